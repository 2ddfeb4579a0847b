package catalogue

import (
	"slices"
	"strings"
	"testing"
)

var testKeys = map[string]*EvidenceKey{
	"name":   {Name: "name", Kind: KindText, Capability: CapabilityRecords},
	"secret": {Name: "secret", Kind: KindText, Capability: CapabilityConditionalAccess},
	"yes":    {Name: "yes", Kind: KindBool, Capability: CapabilityRecords},
	"no":     {Name: "no", Kind: KindBool, Capability: CapabilityRecords},
	"list":   {Name: "list", Kind: KindList, Capability: CapabilityRecords},
	"absent": {Name: "absent", Kind: KindText, Capability: CapabilityRecords},
}

func testKey(name string) *EvidenceKey { return testKeys[name] }

// testValues knows the user, the code, name, yes, no, list and, with all, the secret.
type testValues struct{ all bool }

func (v testValues) AppendField(dst []byte, f Field) ([]byte, State) {
	switch f {
	case FieldUser:
		return append(dst, "ada"...), Present
	case FieldCode:
		return append(dst, "50126"...), Present
	}
	return dst, Missing
}

func (v testValues) AppendEvidence(dst []byte, key *EvidenceKey) ([]byte, State) {
	switch key.Name {
	case "name":
		return append(dst, "Payroll"...), Present
	case "secret":
		if !v.all {
			return dst, Hidden
		}
		return append(dst, "P1"...), Present
	case "yes":
		return append(dst, "true"...), Present
	case "no":
		return append(dst, "false"...), False
	case "list":
		return AppendList(dst, []string{"a", "b", "c", "d", "e"}), Present
	}
	return dst, Missing
}

func (v testValues) Holds(_ Field, key *EvidenceKey, text string) bool {
	if key != nil && key.Name == "name" {
		return text == "Payroll"
	}
	if key != nil && key.Name == "secret" {
		return text == "P1"
	}
	return key != nil && slices.Contains([]string{"a", "b", "c", "d", "e"}, text)
}

func (v testValues) AppendCount(dst []byte, _ string) ([]byte, State) { return dst, Missing }

func TestTemplate(t *testing.T) {
	for _, tc := range []struct {
		source, all, few string // few is what a viewer without the right sees; "=" for the same
		hidden           bool
	}{
		{"{user} at {name|x}.", "ada at Payroll.", "=", false},
		{"{who} did it. {app} was hit.", "Someone whom the record does not name did it. An application that the record does not name was hit.", "=", false},
		{"See {app}.", "See an application that the record does not name.", "=", false},
		{"a[ by {secret}][ in {absent}].", "a by P1.", "a.", true},
		{"{secret|a policy} b", "P1 b", "A policy b", true},
		{"[{?secret}known][{!secret}none]", "known", "", true},
		{"[{?absent}known][{!absent}none]", "none", "=", false},
		{"[{?yes}y][{!yes}n][{?no}y][{!no}n]", "yn", "=", false},
		{"[{?no=false}denied][{?yes=false}x][{?absent=false}y]", "denied", "=", false},
		{"[{?code=1,50126}in][{!code=1,50126}out][{?code=1,2}x][{!code=1,2}y]", "iny", "=", false},
		{"{list|none}", "a, b, c and 2 more", "=", false},
		{"[{?list=e}has e][{?list=f}has f][{!list=f} no f]", "has e no f", "=", false},
		{"[a {name}[ b {absent}] c]", "a Payroll c", "=", false},
		{"[a {absent}[ b {name}] c]", "", "=", false},
		{"[ [{name} ]x{name}]", " Payroll xPayroll", "=", false},
		{"{{a}} [[b]] 100%", "{a} [b] 100%", "=", false},
		{"[{who} at {name}]", "Someone whom the record does not name at Payroll", "=", false},
		{"", "", "=", false},
	} {
		tpl, err := ParseTemplate(tc.source, testKey)
		if err != nil {
			t.Errorf("%s: %v", tc.source, err)
			continue
		}
		if tpl.String() != tc.source {
			t.Errorf("String gives %q", tpl.String())
		}
		if tc.few == "=" {
			tc.few = tc.all
		}
		if got, hidden := Render(tpl, nil, testValues{all: true}); string(got) != tc.all || hidden != 0 {
			t.Errorf("%s: %q (%b), want %q", tc.source, got, hidden, tc.all)
		}
		got, hidden := Render(tpl, []byte("kept"), testValues{})
		rest, kept := strings.CutPrefix(string(got), "kept")
		if !kept || rest != tc.few || (hidden == CapabilityConditionalAccess) != tc.hidden {
			t.Errorf("%s: %q (%b), want %q", tc.source, got, hidden, tc.few)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	for source, want := range map[string]string{
		"{nothing}":            "unknown key",
		"{name":                "not closed",
		"name}":                "} without {",
		"[name":                "not closed",
		"name]":                "] without [",
		"[a]":                  "has no key",
		"[{name|x}]":           "has no key",
		"[{who} was here]":     "has no key",
		"{name}":               "may be missing",
		"{address}{user_id}":   "may be missing",
		"{name|}":              "empty default",
		"{?name}":              "outside a group",
		"{!name=x}":            "outside a group",
		"[{?name=}]":           "compares with nothing",
		"[{?name=a,,b}]":       "compares with nothing",
		"[{yes}]":              "is a boolean",
		"{}":                   "unknown key",
		"[ [ [ [ [{name}]]]]]": "nest deeper",
		"{users|nobody}":       "unknown key",
		"{counts.failures|0}":  "unknown key",
	} {
		if _, err := ParseTemplate(source, testKey); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
	if _, err := parseTemplate("{users|nobody} {counts.failures|0} {entity}", scopeIncident, testKey); err != nil {
		t.Errorf("incident: %v", err)
	}
	if _, err := parseTemplate("{who}", scopeIncident, testKey); err == nil {
		t.Error("an incident has no {who}")
	}
}

func TestAppendList(t *testing.T) {
	for want, list := range map[string][]string{
		"": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}, "a, b, c and 1 more": {"a", "b", "c", "d"},
	} {
		if got := string(AppendList(nil, list)); got != want {
			t.Errorf("%v reads %q, want %q", list, got, want)
		}
	}
}

func TestRenderDoesNotAllocate(t *testing.T) {
	tpl, err := ParseTemplate("{user} at {name|x}[ by {secret}][ {list}][{?code=50126} c]", testKey)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { buf, _ = Render(tpl, buf[:0], testValues{}) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Any source either fails to compile or renders; what a viewer may not see never shows.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{user}[ by {secret}]", "[{?yes}a[ {list}]]", "{{}}[[", "{secret|x}", "[{!code=1,2}{who}]", "[[{name} ]]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		tpl, err := ParseTemplate(source, testKey)
		if err != nil {
			return
		}
		all, hidden := Render(tpl, nil, testValues{all: true})
		if hidden != 0 {
			t.Fatalf("%q hides something from a viewer of everything", source)
		}
		few, _ := Render(tpl, nil, testValues{})
		if strings.Contains(string(few), "P1") && !strings.Contains(source, "P1") {
			t.Fatalf("%q shows the secret: %q", source, few)
		}
		again, _ := Render(tpl, nil, testValues{all: true})
		if string(all) != string(again) {
			t.Fatalf("%q renders %q and then %q", source, all, again)
		}
	})
}
