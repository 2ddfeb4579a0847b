package catalogue

import "testing"

func TestWords(t *testing.T) {
	c := mustLoad(t)
	for _, tc := range []struct {
		key  string
		list []string
		want string
	}{
		{"unmet_controls", []string{"RequireCompliantDevice"}, "a compliant device"},
		{"unmet_controls", []string{"requirecompliantDEVICE", "Mfa"}, "a compliant device and multifactor authentication (MFA)"},
		{"unmet_controls", []string{"RequireCompliantDevice", "compliantDevice"}, "a compliant device"},
		{"unmet_controls", []string{"Contoso terms of use"}, "Contoso terms of use"},
		{"mfa_demanded_by", []string{"multiConditionalAccess", "user", "v1ConditionalAccess"}, "Conditional Access and per-user MFA"},
		{"mfa_demanded_by", []string{"aDemanderOfTomorrow"}, "aDemanderOfTomorrow"},
		{"policies", []string{"Block countries", "Trial"}, `"Block countries" and "Trial"`},
		{"policies", []string{"a", "b", "c", "d", "a", "e"}, `"a", "b", "c" and 2 more`},
		{"failure_codes", []string{"50126", "50053"}, "50126 and 50053"},
	} {
		w := c.KeyWords(c.Evidence(tc.key))
		if got := string(w.AppendList(nil, tc.list)); got != tc.want {
			t.Errorf("%s %q reads %q, want %q", tc.key, tc.list, got, tc.want)
		}
	}
	if got := string(c.Words(FieldClientApp).Append(nil, "Browser")); got != "a browser" {
		t.Errorf("client Browser reads %q", got)
	}
	w, buf := c.KeyWords(c.Evidence("unmet_controls")), make([]byte, 0, 256)
	list := []string{"REQUIRECOMPLIANTDEVICE", "Mfa", "Something else"}
	if n := testing.AllocsPerRun(50, func() { buf = w.AppendList(buf[:0], list) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A test compares with the value of the log, whatever words stand for it.
func TestWordsInTests(t *testing.T) {
	keys := func(name string) *EvidenceKey { return testKeys[name] }
	for source, want := range map[string]string{
		"[{?name=Payroll}yes]": "yes", "[{!name=Payroll}no]": "", "[{?name=the payroll}no]": "", "[{!name=Mail}yes]": "yes",
	} {
		tpl, err := ParseTemplate(source, keys)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := Render(tpl, nil, wordedValues{}); string(got) != want {
			t.Errorf("%s renders %q, want %q", source, got, want)
		}
	}
}

// wordedValues says "the payroll" for the name Payroll.
type wordedValues struct{ testValues }

func (v wordedValues) AppendEvidence(dst []byte, key *EvidenceKey) ([]byte, State) {
	if key.Name == "name" {
		return append(dst, "the payroll"...), Present
	}
	return v.testValues.AppendEvidence(dst, key)
}
