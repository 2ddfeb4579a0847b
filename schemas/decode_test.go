package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"
)

var update = flag.Bool("update", false, "write the golden files anew")

var testReceived = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)

// result is a Decoded that outlives its call.
type result struct {
	Kind     string
	Category string  `json:",omitempty"`
	Err      string  `json:",omitempty"`
	SignIn   *SignIn `json:",omitempty"`
	raw      string
	reason   string
}

func decodeAll(t testing.TB, d *Decoder, message []byte, received time.Time) []result {
	t.Helper()
	var all []result
	d.Decode(message, received, func(index int, r *Decoded) {
		if index != len(all) {
			t.Fatalf("index %d, want %d", index, len(all))
		}
		out := result{Kind: r.Kind.String(), Category: r.Category, raw: string(r.Raw)}
		if r.Err != nil {
			out.Err = r.Err.Error()
			var e *RecordError
			if !errors.As(r.Err, &e) {
				t.Fatalf("error is %T, want *RecordError", r.Err)
			}
			if e.Offset < 0 || e.Offset > len(message) {
				t.Errorf("offset %d lies outside a message of %d bytes", e.Offset, len(message))
			}
			out.reason = e.Reason
		}
		if (r.SignIn != nil) != (r.Kind == KindSignIn) || (r.Err != nil) != (r.Kind == KindBroken) {
			t.Errorf("%v with SignIn %v and Err %v", r.Kind, r.SignIn != nil, r.Err)
		}
		if r.SignIn != nil {
			out.SignIn = Clone(r.SignIn)
		}
		if !inside(message, r.Raw) {
			t.Errorf("record %d: Raw lies outside the message", index)
		}
		all = append(all, out)
	})
	return all
}

func inside(message, raw []byte) bool {
	if len(raw) == 0 {
		return true
	}
	m, r := uintptr(unsafe.Pointer(unsafe.SliceData(message))), uintptr(unsafe.Pointer(unsafe.SliceData(raw)))
	return r >= m && r+uintptr(len(raw)) <= m+uintptr(len(message))
}

func TestDecodeGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/decode/*.*json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			message, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(decodeAll(t, NewDecoder(), message, testReceived), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs from %s; run with -update and look at the difference\n%s", file, golden, firstDifference(got, want))
			}
		})
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\n got  %s\n want %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// export is a whole record of the export with the given id.
func export(id string) string {
	return `{"time":"2026-03-02T08:15:41Z","category":"SignInLogs","tenantId":"11111111-aaaa-4bbb-8ccc-000000000001","properties":{"id":"` + id +
		`","createdDateTime":"2026-03-02T08:13:55Z","status":{"errorCode":0},"appliedConditionalAccessPolicies":[{"id":"p","result":"success"},{"id":"q","result":"failure"}]}}`
}

// TestDecodeSiblings: what is broken is one record, the others come through, in order.
func TestDecodeSiblings(t *testing.T) {
	a, b, c := export("a"), export("b"), export("c")
	other := `{"category":"AuditLogs","properties":{"x":[{"y":1}]}}`
	deep := `{"category":"SignInLogs","x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`
	large := `{"category":"SignInLogs","time":"2026-03-02T08:15:41Z","x":"` + strings.Repeat("x", MaxRecordSize) + `"}`
	for _, test := range []struct{ name, message, want string }{
		{"records", `{"records":[` + a + `,` + b + `]}`, "a b"},
		{"one record as object", `{"records":` + a + `}`, "a"},
		{"empty list", `{"records":[]}`, ""},
		{"members around records", `{"x":{"y":[1]},"records":[` + a + `],"z":[2]}`, "a"},
		{"array of envelopes", `[{"records":[` + a + `]},{"records":[` + b + `,` + c + `]}]`, "a b c"},
		{"array of records", `[` + a + `,` + other + `,` + b + `]`, "a AuditLogs b"},
		{"bare record", a, "a"},
		{"lines", a + "\n" + b + "\r\n\n" + c + "\n", "a b c"},
		{"lines of envelopes", `{"records":[` + a + `]}` + "\n" + `{"records":[` + b + `]}`, "a b"},
		{"mark and padding", "\xef\xbb\xbf" + a + "\r\n\x00\x00\x00", "a"},
		{"wrapper", `{"event":` + a + `,"routing":{"x":1}}`, "a"},
		{"wrapper with list", `{"meta":{"n":2},"data":[` + a + `,` + b + `]}`, "a b"},
		{"wrapper in wrapper", `{"m":{"body":{"Records":[` + a + `]}}}`, "a"},
		{"Graph page", `{"@odata.context":"x","value":[` + a + `,` + b + `],"@odata.nextLink":"y"}`, "a b"},
		{"missing commas", `{"records":[` + a + ` ` + b + `,,` + c + `]}`, "a b c"},
		{"empty", "", "!empty"},
		{"white space and NULs", " \n\x00\x00", "!empty"},
		{"no object", `{"records":[17,` + a + `,"x",null,` + b + `]}`, "!not_an_object a !not_an_object !not_an_object b"},
		{"text", `hello`, "!invalid_json"},
		{"not a sign-in", `{"records":[{"hello":1},` + a + `]}`, "!not_a_sign_in a"},
		{"bad value", `{"records":[{"category":"SignInLogs","x":},` + a + `]}`, "!invalid_json a"},
		{"bad literal", `{"records":[{"category":"SignInLogs","x":nul},` + a + `]}`, "!invalid_json a"},
		{"bad number", `{"records":[{"category":"SignInLogs","x":01},` + a + `]}`, "!invalid_json a"},
		{"bad escape", `{"records":[{"category":"SignInLogs","x":"\q"},` + a + `]}`, "!invalid_json a"},
		{"brace missing", `{"records":[` + a + `,` + strings.TrimSuffix(b, "}") + `,` + c + `]}`, "a !invalid_json c"},
		{"brace too many", `{"records":[` + a + `},` + b + `]}`, "a !invalid_json b"},
		{"stray quote", `{"records":[` + a + `,` + strings.Replace(b, `"time"`, `"ti"me"`, 1) + `,` + c + `]}`, "a !invalid_json c"},
		{"quote missing", `{"records":[` + a + `,` + strings.Replace(b, `"time"`, `"time`, 1) + `,` + c + `]}`, "a !invalid_json c"},
		{"line cut", a + "\n" + b[:100] + "\n" + c + "\n", "a !invalid_json c"},
		{"line cut in string", a + "\n" + b[:5] + "\n" + c + "\n", "a !invalid_json c"},
		{"line of text", a + "\nERROR no route {\n" + c, "a !invalid_json c"},
		{"cut in record", `{"records":[` + a + `,` + b + `,` + c[:150], "a b !truncated"},
		{"cut between records", `{"records":[` + a + `,` + b + `,`, "a b !truncated"},
		{"cut behind record", `{"records":[` + a + `,` + b, "a b !truncated"},
		{"cut behind list", `{"records":[` + a + `,` + b + `]`, "a b !truncated"},
		{"raw line break in string", `{"records":[` + strings.Replace(a, `"errorCode":0`, "\"errorCode\":0,\"failureReason\":\"two\nlines\"", 1) + `,` + b + `]}`, "a b"},
		{"deep", `{"records":[` + deep + `,` + a + `]}`, "!too_deep a"},
		{"large", `{"records":[` + large + `,` + a + `]}`, "!too_large a"},
		{"other categories", `[` + other + `,{"@odata.type":"#microsoft.graph.riskDetection"},{"Type":"AADUserRiskEvents"},{"category":"Policy"}]`,
			"AuditLogs riskDetection AADUserRiskEvents Policy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := NewDecoder()
			for range 2 { // the second time with used buffers
				var got []string
				for _, r := range decodeAll(t, d, []byte(test.message), testReceived) {
					switch {
					case r.SignIn != nil:
						got = append(got, r.SignIn.RequestId)
						if r.raw != "" && !strings.Contains(r.raw, `"`+r.SignIn.RequestId+`"`) {
							t.Errorf("Raw of %s is another record's: %s", r.SignIn.RequestId, r.raw)
						}
						if n := len(r.SignIn.Policies); n != 2 {
							t.Errorf("%s has %d policies, want 2", r.SignIn.RequestId, n)
						}
					case r.Err != "":
						got = append(got, "!"+r.reason)
						if strings.Contains(r.Err, "\n") {
							t.Errorf("the error has several lines: %s", r.Err)
						}
					default:
						got = append(got, r.Category)
					}
				}
				if s := strings.Join(got, " "); s != test.want {
					t.Errorf("got  %s\nwant %s", s, test.want)
				}
			}
		})
	}
}

func TestDecodeTimes(t *testing.T) {
	record := []byte(`{"category":"SignInLogs","time":"2026-03-02T08:15:41Z","properties":{"id":"a","createdDateTime":"2026-03-02T08:13:55Z"}}`)
	event := time.Date(2026, 3, 2, 8, 13, 55, 0, time.UTC)
	for _, test := range []struct {
		name     string
		record   []byte
		received time.Time
		want     time.Time
		flags    uint32
	}{
		{"plain", record, event.Add(time.Minute), event, 0},
		{"an hour ahead", record, event.Add(-time.Hour), event, 0},
		{"more than an hour ahead", record, event.Add(-time.Hour - time.Microsecond), event.Add(-time.Hour - time.Microsecond), FlagEventTimeClamped},
		{"no bound", record, time.Time{}, event, 0},
		{"processing time", bytes.Replace(record, []byte(`"createdDateTime":"2026-03-02T08:13:55Z"`), []byte(`"x":0`), 1), testReceived,
			time.Date(2026, 3, 2, 8, 15, 41, 0, time.UTC), FlagNoEventTime | FlagUnknownFields},
		{"time of receipt", []byte(`{"category":"SignInLogs","properties":{"id":"a"}}`), testReceived, testReceived, FlagNoEventTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := decodeAll(t, NewDecoder(), test.record, test.received)
			if len(got) != 1 || got[0].SignIn == nil {
				t.Fatalf("got %+v", got)
			}
			s := got[0].SignIn
			if at := TimeOf(s.EventTime); !at.Equal(test.want) {
				t.Errorf("event time %v, want %v", at, test.want)
			}
			if flags := s.Flags &^ (FlagNoErrorCode | FlagPoliciesAbsent); flags != test.flags {
				t.Errorf("flags %b, want %b", flags, test.flags)
			}
		})
	}
	if got := decodeAll(t, NewDecoder(), []byte(`{"category":"SignInLogs"}`), time.Time{}); len(got) != 1 || got[0].reason != ReasonNoTime {
		t.Errorf("a record without any time: %+v, want %s", got, ReasonNoTime)
	}
}

func TestContentID(t *testing.T) {
	ids := map[string]string{}
	for _, record := range []string{`{"category":"SignInLogs","time":"2026-03-02T08:15:41Z"}`, `{"category":"SignInLogs","time":"2026-03-02T08:15:42Z"}`} {
		for range 2 {
			s := decodeAll(t, NewDecoder(), []byte(record), testReceived)[0].SignIn
			if len(s.RequestId) != len("content-")+32 || !strings.HasPrefix(s.RequestId, "content-") || s.Flags&FlagNoRequestID == 0 {
				t.Errorf("id %q, flags %b", s.RequestId, s.Flags)
			}
			if IsGroupingID(s.RequestId) {
				t.Errorf("%s groups records", s.RequestId)
			}
			if before, ok := ids[record]; ok && before != s.RequestId {
				t.Errorf("the same text has the ids %s and %s", before, s.RequestId)
			}
			ids[record] = s.RequestId
		}
	}
	if len(ids) != 2 || ids[`{"category":"SignInLogs","time":"2026-03-02T08:15:41Z"}`] == ids[`{"category":"SignInLogs","time":"2026-03-02T08:15:42Z"}`] {
		t.Errorf("different texts share an id: %v", ids)
	}
}

func TestUnknownFields(t *testing.T) {
	d := NewDecoder()
	decodeAll(t, d, []byte(`{"category":"SignInLogs","new":1,"properties":{"id":"a","new":{"x":1},"status":{"newer":2}}}{"category":"AuditLogs","y":1}{"z":{}}`), testReceived)
	got := map[string]uint64{}
	for name, n := range d.UnknownFields() {
		got[name] = n
	}
	if len(got) != 2 || got["new"] != 2 || got["status.newer"] != 1 {
		t.Errorf("got %v", got)
	}
	for i := range 2 * maxUnknownFields {
		decodeAll(t, d, fmt.Appendf(nil, `{"category":"SignInLogs","field%d":1,%q:2}`, i, strings.Repeat("long", 30)), testReceived)
	}
	n := 0
	total := uint64(0)
	for _, count := range d.UnknownFields() {
		n++
		total += count
	}
	if n > maxUnknownFields+1 || total != 3+4*maxUnknownFields {
		t.Errorf("%d names with %d occurrences, want at most %d with %d", n, total, maxUnknownFields+1, 3+4*maxUnknownFields)
	}
}

func TestDecodeAllocations(t *testing.T) {
	message := exportMessage(3, 20, 10)
	d := NewDecoder()
	n := 0
	each := func(int, *Decoded) { n++ }
	d.Decode(message, testReceived, each)
	if n != 20 {
		t.Fatalf("%d records, want 20", n)
	}
	if allocs := testing.AllocsPerRun(20, func() { d.Decode(message, testReceived, each) }); allocs > 2 {
		t.Errorf("%.0f allocations for 20 records, want at most 2", allocs)
	}
}

// TestDecodeReuse: a record never shows what an earlier one left in the buffers.
func TestDecodeReuse(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 5))
	var records [][]byte
	for range 40 {
		records = append(records, exportRecord(r, r.IntN(12)))
	}
	d := NewDecoder()
	for i, record := range records {
		fresh := decodeAll(t, NewDecoder(), record, testReceived)[0].SignIn
		used := decodeAll(t, d, record, testReceived)[0].SignIn
		if !fresh.EqualVT(used) {
			t.Fatalf("record %d differs with a used decoder:\n%v\n%v", i, used, fresh)
		}
	}
	// A caller may shorten and reorder the lists of the record that it was lent.
	d.Decode(records[0], testReceived, func(_ int, r *Decoded) {
		p := r.SignIn.Policies
		for i := range p {
			p[i] = p[len(p)-1]
		}
		r.SignIn.Policies = p[:min(1, len(p))]
	})
	want := decodeAll(t, NewDecoder(), records[1], testReceived)[0].SignIn
	if got := decodeAll(t, d, records[1], testReceived)[0].SignIn; !got.EqualVT(want) {
		t.Errorf("after a caller's change:\n%v\nwant\n%v", got, want)
	}
}

func TestCanonicalAddress(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "203.0.113.7:443": "203.0.113.7", "2001:DB8:0:0::1": "2001:db8::1",
		"[2001:db8::1]:443": "2001:db8::1", "[2001:db8::1]": "2001:db8::1", "::ffff:192.0.2.8": "192.0.2.8", "::FFFF:C000:0208": "192.0.2.8",
		"203.0.113.XXX": "203.0.113.XXX", "203.0.113.xxx": "203.0.113.xxx", "": "", "unknown": "unknown", "fe80::1%eth0": "fe80::1", " 192.0.2.1 ": "192.0.2.1",
		"999.0.0.1": "999.0.0.1", "[": "[", "[x]": "[x]",
	} {
		d := NewDecoder()
		if got := d.canonicalAddress(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCanonicalID(t *testing.T) {
	for in, want := range map[string]string{
		"AAAAAAAA-0000-4000-8000-00000000000F": "aaaaaaaa-0000-4000-8000-00000000000f", "aaaaaaaa-0000-4000-8000-00000000000f": "aaaaaaaa-0000-4000-8000-00000000000f",
		"{AAAAAAAA-0000-4000-8000-00000000000F}": "aaaaaaaa-0000-4000-8000-00000000000f", " P-1 ": "P-1", "HTTPS://intranet.example.org/aaaaaaaa": "HTTPS://intranet.example.org/aaaaaaaa",
		"GAAAAAAA-0000-4000-8000-00000000000F": "GAAAAAAA-0000-4000-8000-00000000000F", "00000000-0000-0000-0000-000000000000": "00000000-0000-0000-0000-000000000000",
		" AAAAAAAA-0000-4000-8000-00000000000F": "aaaaaaaa-0000-4000-8000-00000000000f",
	} {
		d := NewDecoder()
		if got := d.canonicalID(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCategoryOf(t *testing.T) {
	for name, want := range map[string]Category{
		"SignInLogs": Category_CATEGORY_SIGN_IN, "signinlogs": Category_CATEGORY_SIGN_IN, "SignIn": Category_CATEGORY_SIGN_IN, "SigninLogs": Category_CATEGORY_SIGN_IN,
		"NonInteractiveUserSIgnInLogs": Category_CATEGORY_NON_INTERACTIVE_USER, "AADNonInteractiveUserSignInLogs": Category_CATEGORY_NON_INTERACTIVE_USER,
		"am-AADServicePrincipalSignInLogs": Category_CATEGORY_SERVICE_PRINCIPAL, "ManagedIdentitySignInLogs": Category_CATEGORY_MANAGED_IDENTITY,
		"AADManagedIdentitySignInLogs": Category_CATEGORY_MANAGED_IDENTITY, "ADFSSignInLogs": Category_CATEGORY_ADFS,
		"MicrosoftServicePrincipalSignInLogs": Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL, "SigninLogs_CL": Category_CATEGORY_SIGN_IN,
	} {
		if got, known := categoryOf(name); got != want || !known {
			t.Errorf("%s: got %v, %v", name, got, known)
		}
	}
	for _, name := range []string{"", "AuditLogs", "RiskyUsers", "UserRiskEvents", "B2CRequestLogs", "ProvisioningLogs", "NetworkAccessTrafficLogs", strings.Repeat("SignInLogs", 10)} {
		if c, known := categoryOf(name); known {
			t.Errorf("%q is taken for %v", name, c)
		}
	}
}

// TestStrictAgrees: the cursor and the strict decoder read the same from every test record.
func TestStrictAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var records [][]byte
	for range 50 {
		records = append(records, exportRecord(r, r.IntN(8)))
	}
	files, _ := filepath.Glob("testdata/decode/*.*json")
	for _, file := range files {
		message, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range decodeAll(t, NewDecoder(), message, testReceived) {
			records = append(records, []byte(one.raw))
		}
	}
	for _, record := range records {
		checkStrict(t, record)
	}
}

// checkStrict compares the cursor with the strict decoder on one record, or on text that is none.
func checkStrict(t *testing.T, record []byte) {
	t.Helper()
	fast, strict := NewDecoder(), NewDecoder()
	fast.received, strict.received = testReceived, testReceived
	fast.reset()
	c := cursor{b: record, p: spaceBefore(record)}
	if c.p >= len(record) || record[c.p] != '{' {
		return
	}
	ok := fast.record(&c, false)
	if ok && fast.envelope >= 0 {
		return
	}
	if ok {
		c.ws()
		ok = c.p == len(record)
	}
	err := strict.decodeStrict(record)
	if ok != (err == nil) {
		t.Fatalf("cursor %v (%+v), strict decoder %v, for %q", ok, c.fault, err, clipped(record))
	}
	if !ok {
		return
	}
	fastKind, fastCategory, fastReason := fast.finish(record)
	strictKind, strictCategory, strictReason := strict.finish(record)
	if fastKind != strictKind || fastCategory != strictCategory || fastReason != strictReason {
		t.Fatalf("cursor says %v %s %s, strict decoder %v %s %s, for %q", fastKind, fastCategory, fastReason, strictKind, strictCategory, strictReason, clipped(record))
	}
	if fastKind == KindSignIn && !fast.signIn.EqualVT(&strict.signIn) {
		t.Fatalf("cursor and strict decoder differ for %q:\n%v\n%v", clipped(record), &fast.signIn, &strict.signIn)
	}
}

func spaceBefore(b []byte) int {
	p := 0
	for p < len(b) && (b[p] == ' ' || b[p] == '\n' || b[p] == '\r' || b[p] == '\t') {
		p++
	}
	return p
}

func clipped(b []byte) []byte { return b[:min(len(b), 2000)] }

func seedFuzz(f *testing.F) {
	files, _ := filepath.Glob("testdata/decode/*.*json")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		for line := range bytes.Lines(b) {
			f.Add(bytes.TrimSpace(line))
		}
	}
	f.Add([]byte(`{"records":[` + export("a") + `,` + export("b")[:99]))
	f.Add([]byte(`{"category":"SignInLogs","properties":{"id":"\ud83d\u0041","id":"` + "\xff" + `","status":[1e400,-0,"\/"]}}`))
	f.Add([]byte(`{"Type":"SigninLogs","Status":"{'errorCode': 5, 'x': (1, None)}","ConditionalAccessPolicies":"[{\"id\":\"\\u0041\"}]"}`))
}

// FuzzDecode: no message makes the decoder panic; every record lies inside the message, indices count up, and what is
// read does not depend on what the decoder read before.
func FuzzDecode(f *testing.F) {
	seedFuzz(f)
	used := NewDecoder()
	f.Fuzz(func(t *testing.T, message []byte) {
		kept := bytes.Clone(message)
		first := decodeAll(t, NewDecoder(), message, testReceived)
		again := decodeAll(t, used, message, testReceived)
		if len(first) != len(again) {
			t.Fatalf("%d records, with a used decoder %d", len(first), len(again))
		}
		for i := range first {
			a, b := first[i], again[i]
			if a.Kind != b.Kind || a.raw != b.raw || a.Err != b.Err || a.SignIn != nil && !a.SignIn.EqualVT(b.SignIn) {
				t.Fatalf("record %d: %+v, with a used decoder %+v", i, a, b)
			}
			if a.SignIn != nil {
				Compact(a.SignIn)
				once := Clone(a.SignIn)
				if Compact(a.SignIn); !once.EqualVT(a.SignIn) {
					t.Fatalf("compacting twice changes the record:\n%v\n%v", once, a.SignIn)
				}
			}
		}
		if !bytes.Equal(kept, message) {
			t.Fatal("the message was changed")
		}
	})
}

// FuzzDecodeDifferential: on any text the cursor and the strict decoder agree whether it is one JSON object, and on what it says.
func FuzzDecodeDifferential(f *testing.F) {
	seedFuzz(f)
	f.Fuzz(func(t *testing.T, record []byte) { checkStrict(t, record) })
}

// TestDecodeHostile: messages made to cost the most are done in time proportional to their size. A quadratic step would
// take minutes here.
func TestDecodeHostile(t *testing.T) {
	unit := `{"records":[{"category":"SignInLogs","x":bad,` + export("a") + `,`
	for name, message := range map[string]string{
		"open records":       `{"records":[` + strings.Repeat(`{"category":"SignInLogs","x":bad,`, 10_000),
		"open and whole":     `{"records":[` + strings.Repeat(`{"x":bad,`+"\n"+export("a")+",", 600),
		"open envelopes":     strings.Repeat(unit, 600),
		"commas":             `[` + strings.Repeat(`,{`, 100_000),
		"nested objects":     strings.Repeat(`,{"a":`, 60_000),
		"nested lists":       strings.Repeat(`[`, 200_000),
		"lines":              strings.Repeat("{\n", 100_000),
		"quotes":             `{"records":[{` + strings.Repeat(`"`, 200_001),
		"backslashes":        `{"records":[{"a":"` + strings.Repeat(`\`, 200_001),
		"wrappers":           strings.Repeat(`{"a":`, 900) + `1` + strings.Repeat(`}`, 900) + strings.Repeat(`[{"a":[{}]}]`, 10_000),
		"strings in strings": `{"category":"SignInLogs","properties":"` + strings.Repeat(`{\"properties\":\"`, 30_000) + `"}`,
		"huge numbers":       `{"category":"SignInLogs","properties":{"autonomousSystemNumber":1` + strings.Repeat("0", 100_000) + `,"status":{"errorCode":1e999999999}}}`,
		"zeros":              strings.Repeat("\x00", 200_000) + "x",
	} {
		t.Run(name, func(t *testing.T) {
			got := decodeAll(t, NewDecoder(), []byte(message), testReceived)
			if len(got) == 0 {
				t.Error("nothing was reported")
			}
			signIns := 0
			for _, r := range got {
				if r.SignIn != nil {
					signIns++
				}
			}
			if whole := strings.Count(message, export("a")); signIns != whole && whole > 0 {
				t.Errorf("%d sign-ins, want %d", signIns, whole)
			}
		})
	}
}
