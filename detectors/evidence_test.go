package detectors

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas/catalogue"
)

func TestEvidence(t *testing.T) {
	cat := loadCatalogue(t)
	k := newEvidenceKeys(cat)
	var e Evidence
	if got := string(e.AppendJSON(nil)); got != "{}" {
		t.Errorf("empty evidence is %s", got)
	}
	for range 2 { // the second round meets used memory
		e.Reset()
		e.SetText(k.failureReason, "a \"quoted\"\n\\ <b> \x01 é \u2028 \xff")
		e.SetText(k.city, "")
		e.SetList(k.policies, []string{"P1", "P2"})
		e.Add(k.policyIDs, "i1")
		e.Add(k.policyIDs, "i1")
		e.Add(k.policyIDs, "")
		e.Add(k.policyIDs, "i2")
		e.SetInt(k.failures48h, 3)
		e.SetInt(k.failures48h, -4)
		e.SetBool(k.interactive, false)
		e.SetTime(k.failuresFirst, testTime)
		want := `{"failure_reason":"a \"quoted\"\n\\ \u003cb\u003e \u0001 é \u2028 ` + "\ufffd" + `","policies":["P1","P2"],"policy_ids":["i1","i2"],` +
			`"failures_48h":-4,"interactive":false,"failures_first":"2026-03-02T08:13:55.103456Z"}`
		if got := string(e.AppendJSON(nil)); got != want {
			t.Errorf("evidence is\n%s, want\n%s", got, want)
		}
	}
	if f := e.Get("failures_48h"); f == nil || f.Int != -4 {
		t.Errorf("Get gives %+v", f)
	}
	if e.Get("city") != nil {
		t.Error("an empty text became evidence")
	}

	back, err := ParseJSON(cat, e.AppendJSON(nil))
	if err != nil {
		t.Fatal(err)
	}
	if string(back.AppendJSON(nil)) != string(e.AppendJSON(nil)) {
		t.Errorf("evidence came back as %s", back.AppendJSON(nil))
	}

	visible, hidden := e.Visible(catalogue.CapabilityRecords)
	if !hidden || visible.Get("policies") != nil || visible.Get("interactive") == nil {
		t.Errorf("a viewer of records sees %s", visible.AppendJSON(nil))
	}
	if all, hidden := e.Visible(catalogue.AllCapabilities); hidden || all.Len() != e.Len() {
		t.Errorf("a viewer of everything sees %s", all.AppendJSON(nil))
	}

	clone := e.Clone()
	before := string(clone.AppendJSON(nil))
	e.Reset()
	e.SetList(k.matchedRules, []string{"x", "y"})
	e.SetText(k.city, "z")
	e.Add(k.network, "w")
	if string(clone.AppendJSON(nil)) != before {
		t.Error("a clone changed with its original")
	}
}

func TestEvidenceOfAnotherKindPanics(t *testing.T) {
	k := newEvidenceKeys(loadCatalogue(t))
	defer func() {
		if r := recover(); r == nil {
			t.Error("a text was set under a key of integers")
		}
	}()
	var e Evidence
	e.SetText(k.failures48h, "many")
}

func TestParseJSONErrors(t *testing.T) {
	cat := loadCatalogue(t)
	for _, tc := range []struct{ in, kept, err string }{
		{`{"city":"Bern","of_the_future":[1,{"a":2}],"country":"CH"}`, `{"city":"Bern","country":"CH"}`, `"of_the_future" is not in the catalogue`},
		{`{"city":7,"country":"CH"}`, `{"country":"CH"}`, `"city"`},
		{`{"failures_48h":1.5}`, `{}`, "expected an integer"},
		{`{"interactive":"yes"}`, `{}`, "expected true or false"},
		{`{"failures_first":"yesterday"}`, `{}`, `"failures_first"`},
		{`{"policies":[]}`, `{}`, "expected a list"},
		{`{"policies":null}`, `{}`, "expected a list"},
		{`[1]`, `{}`, "expected a JSON object"},
		{`{"city":"Bern"`, `{"city":"Bern"}`, "evidence"},
		{`{"city":"Bern"} x`, `{"city":"Bern"}`, "follows"},
		{``, `{}`, ""},
		{` {} `, `{}`, ""},
	} {
		e, err := ParseJSON(cat, []byte(tc.in))
		if got := string(e.AppendJSON(nil)); got != tc.kept {
			t.Errorf("%s: kept %s, want %s", tc.in, got, tc.kept)
		}
		switch {
		case tc.err == "" && err != nil:
			t.Errorf("%s: %v", tc.in, err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: error %v, want one about %q", tc.in, err, tc.err)
		}
	}
}

// What is set is valid JSON with the same meaning, and reads back.
func FuzzEvidenceJSON(f *testing.F) {
	f.Add("text", "a", "b", int64(1), true)
	f.Add("\x00\"\\\u2028</script>", "\xff\xfe", "é", int64(-1), false)
	f.Fuzz(func(t *testing.T, text, a, b string, n int64, yes bool) {
		cat := loadCatalogue(t)
		k := newEvidenceKeys(cat)
		var e Evidence
		e.SetText(k.failureReason, text)
		e.Add(k.policies, a)
		e.Add(k.policies, b)
		e.SetInt(k.failures48h, n)
		e.SetBool(k.interactive, yes)
		data := e.AppendJSON(nil)
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if text != "" && m["failure_reason"] != strings.ToValidUTF8(text, "\ufffd") && utf8.ValidString(text) {
			t.Fatalf("%q became %q", text, m["failure_reason"])
		}
		back, err := ParseJSON(cat, data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		var again map[string]any
		if err := json.Unmarshal(back.AppendJSON(nil), &again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%s came back as %s", data, back.AppendJSON(nil))
		}
	})
}

// ParseJSON takes any bytes.
func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"city":"Bern","policies":["a"],"failures_first":"2026-03-02T08:13:55Z"}`))
	f.Add([]byte(`{"city":{"a":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, _ := ParseJSON(loadCatalogue(t), data)
		if out := e.AppendJSON(nil); !json.Valid(out) {
			t.Fatalf("%q gives %s", data, out)
		}
	})
}
