package schemas

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// sizeLog collects encoded sizes.
type sizeLog struct{ raw, decoded, full, small []int }

func (l *sizeLog) add(_ int, r *Decoded) {
	if r.SignIn == nil {
		return
	}
	var small SignIn
	CompactFor(&small, r.SignIn)
	l.raw, l.decoded, l.small = append(l.raw, len(r.Raw)), append(l.decoded, r.SignIn.SizeVT()), append(l.small, small.SizeVT())
	Compact(r.SignIn)
	l.full = append(l.full, r.SignIn.SizeVT())
}

func (l *sizeLog) report(t *testing.T, what string) {
	for _, s := range []struct {
		name  string
		sizes []int
	}{{"JSON", l.raw}, {"decoded", l.decoded}, {"full form", l.full}, {"small form", l.small}} {
		slices.Sort(s.sizes)
		sum := 0
		for _, n := range s.sizes {
			sum += n
		}
		n := len(s.sizes)
		t.Logf("%s, %d records, %s: mean %d B, median %d B, 95 %% %d B, largest %d B", what, n, s.name, sum/n, s.sizes[n/2], s.sizes[n*95/100], s.sizes[n-1])
	}
}

func TestCompactSizes(t *testing.T) {
	var sizes sizeLog
	NewDecoder().Decode(exportMessage(9, 200, 10), testReceived, sizes.add)
	sizes.report(t, "generated records of 7.4 KB")
	if n := len(sizes.full); n != 200 {
		t.Fatalf("%d records, want 200", n)
	}
	for i := range sizes.full {
		if sizes.full[i] > sizes.decoded[i] || sizes.small[i] > sizes.full[i] {
			t.Errorf("the forms grow: decoded %d B, full %d B, small %d B", sizes.decoded[i], sizes.full[i], sizes.small[i])
		}
	}
}

func TestCompact(t *testing.T) {
	long := strings.Repeat("ü", 1000)
	s := &SignIn{
		RequestId: "a", OriginalRequestId: "a", TenantId: "t", HomeTenantId: "t", ResourceTenantId: "t", UserPrincipalName: "ana@example.org", SignInIdentifier: "Ana@example.org",
		CrossTenantAccessType: "none", IncomingTokenType: "none", AuthenticationProtocol: "deviceCode", TokenIssuerType: "AzureAD",
		FailureReason: long, UserAgent: long, RiskEventTypes: []string{long},
		AuthenticationProcessingDetails: []*ProcessingDetail{
			{Key: "Legacy TLS (TLS 1.0, 1.1, 3DES)", Value: "False"}, {Key: "Oauth Scope Info", Value: `["x"]`}, {Key: "Legacy TLS (TLS 1.0, 1.1, 3DES)", Value: "True"},
			{Key: "Azure AD App Authentication Library", Value: "Family: MSAL Library: MSAL.NET"}, {Key: "Azure AD App Authentication Library", Value: long},
			{Key: "Authentication agent", Value: "pta01"}, {Key: "IsCAEToken", Value: "True"}, {Key: "Is CAE Token", Value: "0"},
		},
		Policies: []*Policy{
			{Id: "1", Result: "notApplied"}, {Id: "2", Result: "success", IncludeRulesSatisfied: []*Rule{{RuleSatisfied: "x"}}}, {Id: "3", Result: "notEnabled"},
			{Id: "4", Result: "failure", IncludeRulesSatisfied: []*Rule{{RuleSatisfied: "y"}}}, {Id: "5", Result: "reportOnlyFailure"}, {Id: "6", Result: "reportOnlyNotApplied"},
		},
	}
	small := new(SignIn)
	CompactFor(small, s)
	Compact(s)
	if s.OriginalRequestId+s.HomeTenantId+s.ResourceTenantId+s.SignInIdentifier+s.CrossTenantAccessType+s.IncomingTokenType+s.TokenIssuerType != "" {
		t.Errorf("what repeats other values stays: %v", s)
	}
	if s.AuthenticationProtocol != "deviceCode" {
		t.Errorf("protocol %q", s.AuthenticationProtocol)
	}
	for _, text := range []struct {
		s     string
		limit int
	}{{s.FailureReason, maxFailureReason}, {s.UserAgent, maxUserAgent}, {s.RiskEventTypes[0], maxName}} {
		if len(text.s) > text.limit || len(text.s) < text.limit-1 || !utf8.ValidString(text.s) {
			t.Errorf("%d bytes, want %d, valid %v", len(text.s), text.limit, utf8.ValidString(text.s))
		}
	}
	var policies, details []string
	for _, p := range s.Policies {
		policies = append(policies, p.Id)
		if rules := len(p.IncludeRulesSatisfied); rules != 0 && p.Id != "4" {
			t.Errorf("policy %s keeps %d rules", p.Id, rules)
		}
	}
	if got := strings.Join(policies, " "); got != "2 4 5" || s.PoliciesLeftOut != 3 || len(s.Policies[1].IncludeRulesSatisfied) != 1 {
		t.Errorf("policies %s, %d left out", got, s.PoliciesLeftOut)
	}
	for _, p := range s.AuthenticationProcessingDetails {
		details = append(details, p.Key+"="+p.Value)
	}
	if got := strings.Join(details, "; "); got != "Legacy TLS (TLS 1.0, 1.1, 3DES)=True; Azure AD App Authentication Library=Family: MSAL Library: MSAL.NET; Authentication agent=pta01; IsCAEToken=True" {
		t.Errorf("processing details %s", got)
	}
	if len(small.Policies) != 1 || small.Policies[0].Id != "4" || small.AuthenticationProcessingDetails != nil || small.FailureReason != "" {
		t.Errorf("small form: %v", small)
	}
}

func TestCompactForeignTenantStays(t *testing.T) {
	s := &SignIn{TenantId: "t", HomeTenantId: "t", ResourceTenantId: "other"}
	if Compact(s); s.HomeTenantId != "t" || s.ResourceTenantId != "other" {
		t.Errorf("home %q, resource %q", s.HomeTenantId, s.ResourceTenantId)
	}
}

// TestCompactManyPolicies: of more policies than are kept, those that stopped the sign-in stay.
func TestCompactManyPolicies(t *testing.T) {
	s := &SignIn{}
	for i := range 3 * maxPolicies {
		result := "success"
		if i%8 == 7 {
			result = "failure"
		}
		s.Policies = append(s.Policies, &Policy{Id: string(rune('a' + i%26)), Result: result})
	}
	all := slices.Clone(s.Policies)
	Compact(s)
	failures := 0
	for _, p := range s.Policies {
		if p.Result == "failure" {
			failures++
		}
		if !slices.Contains(all, p) {
			t.Error("a policy that was not there")
		}
	}
	if len(s.Policies) != maxPolicies || failures != 3*maxPolicies/8 || s.PoliciesLeftOut != 2*maxPolicies {
		t.Errorf("%d policies, %d failures, %d left out", len(s.Policies), failures, s.PoliciesLeftOut)
	}
	// Every entry is there once: reusing the list must not make two entries one.
	seen := map[*Policy]bool{}
	for _, p := range s.Policies[:cap(s.Policies)] {
		if p != nil && seen[p] {
			t.Fatal("a policy stands twice in the list's memory")
		}
		seen[p] = true
	}
}

func TestCompactForReuse(t *testing.T) {
	dst := new(SignIn)
	CompactFor(dst, &SignIn{RequestId: "a", UserAgent: "x", Policies: []*Policy{{Id: "1", Result: "failure", EnforcedGrantControls: []string{"Mfa", "Block"}}, {Id: "2", Result: "interrupted"}}})
	if len(dst.Policies) != 2 {
		t.Fatalf("%d policies", len(dst.Policies))
	}
	src := &SignIn{RequestId: "b", Policies: []*Policy{{Id: "3", Result: "failure"}}}
	CompactFor(dst, src)
	want := &SignIn{RequestId: "b", Policies: []*Policy{{Id: "3", Result: "failure"}}}
	if !dst.EqualVT(want) {
		t.Errorf("got %v, want %v", dst, want)
	}
	if dst.Policies[0] == src.Policies[0] {
		t.Error("the small form shares a policy with the record")
	}
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		s     string
		limit int
		want  string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aüb", 2, "a"}, {"aüb", 3, "aü"}, {"😀", 3, ""}, {"", 0, ""}, {"a", 0, ""}} {
		if got := Clip(test.s, test.limit); got != test.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", test.s, test.limit, got, test.want)
		}
	}
}

// TestCloneSharesNothing: a clone survives the buffers of the decoder.
func TestCloneSharesNothing(t *testing.T) {
	message := exportMessage(4, 1, 3)
	var clone *SignIn
	var text string
	NewDecoder().Decode(message, testReceived, func(_ int, r *Decoded) {
		clone = Clone(r.SignIn)
		text = strings.Clone(r.SignIn.String())
	})
	for i := range message {
		message[i] = 'x'
	}
	if !strings.Contains(text, clone.UserPrincipalName) || !strings.Contains(clone.UserPrincipalName, "@example.org") {
		t.Errorf("the clone changed with the message: %v", clone)
	}
}
