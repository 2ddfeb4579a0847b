package detectors

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/signindiag/signindiag/schemas"
)

func networks(prefix string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(prefix)} }

func TestExpectations(t *testing.T) {
	applied := &schemas.Policy{Id: "p1", DisplayName: "Require MFA", Result: "success", EnforcedGrantControls: []string{"Mfa"}}
	other := &schemas.Policy{Id: "p2", DisplayName: "Other", Result: "reportOnlySuccess"}
	single := func(r *schemas.SignIn) {
		r.AuthenticationRequirement, r.Policies = "singleFactorAuthentication", []*schemas.Policy{other}
	}
	multi := func(r *schemas.SignIn) {
		single(r)
		r.AuthenticationRequirement = "multiFactorAuthentication"
	}
	set := func(change func(r *schemas.SignIn)) func(*schemas.SignIn) {
		return func(r *schemas.SignIn) {
			single(r)
			change(r)
		}
	}
	all := Expectation{Name: "X", Expect: ExpectMFA}
	ca := Expectation{Name: "X", Expect: ExpectConditionalAccess}
	device := Expectation{Name: "X", Expect: ExpectCompliantDevice}
	mail := Expectation{Name: "X", Expect: ExpectBlock, Applications: []string{"exchange ONLINE"}, Countries: []string{"DE"}, ExceptUsers: []string{"user2@example.com"}}
	few := mail
	few.ExceptAddresses = networks("203.0.113.0/24")
	silent := all
	silent.NonInteractive = true
	inGermany := set(func(r *schemas.SignIn) { r.CountryOrRegion = "DE" })
	nonInteractive := set(func(r *schemas.SignIn) {
		r.Category, r.IsInteractive = schemas.Category_CATEGORY_NON_INTERACTIVE_USER, schemas.Tri_TRI_FALSE
	})
	hello := set(func(r *schemas.SignIn) {
		r.AuthenticationDetails = []*schemas.AuthenticationStep{{Method: "Windows Hello for Business", Succeeded: schemas.Tri_TRI_TRUE}}
	})
	for _, test := range []struct {
		name   string
		expect Expectation
		change func(*schemas.SignIn)
		user   int
		missed bool
	}{
		{"single factor", all, single, 1, true},
		{"MFA was passed", all, multi, 1, false},
		{"MFA by a claim", all, set(func(r *schemas.SignIn) { r.AdditionalDetails = "MFA requirement satisfied by claim in the token" }), 1, false},
		{"bootstrap: no policy was evaluated", all, set(func(r *schemas.SignIn) { r.Policies = nil }), 1, false},
		{"policies were evaluated and left out", all, set(func(r *schemas.SignIn) { r.Policies, r.PoliciesLeftOut = nil, 3 }), 1, true},
		{"policies are withheld", all, set(func(r *schemas.SignIn) { r.Policies, r.Flags = nil, schemas.FlagPoliciesAbsent }), 1, true},
		{"the record tells nothing of MFA", all, set(func(r *schemas.SignIn) { r.AuthenticationRequirement = "" }), 1, false},
		{"Windows Hello for Business", all, hello, 1, false},
		{"without a person", all, nonInteractive, 1, false},
		{"without a person, asked for", silent, nonInteractive, 1, true},
		{"another tenant's resource", all, set(func(r *schemas.SignIn) { r.HomeTenantId, r.ResourceTenantId = testGUID(8, 1), testGUID(8, 2) }), 1, false},
		{"Microsoft Graph", all, set(func(r *schemas.SignIn) { r.ResourceId = "00000003-0000-0000-c000-000000000000" }), 1, false},
		{"Azure AD Graph", ca, set(func(r *schemas.SignIn) { r.ResourceId = "00000002-0000-0000-C000-000000000000" }), 1, false},
		{"Windows Sign In", ca, set(func(r *schemas.SignIn) { r.AppDisplayName = "Windows Sign In" }), 1, false},
		{"the broker", device, set(func(r *schemas.SignIn) { r.AppDisplayName = "Microsoft Authentication Broker" }), 1, false},
		{"synchronisation", all, set(func(r *schemas.SignIn) { r.UserPrincipalName = "Sync_SRV1_0a1b2c@contoso.onmicrosoft.com" }), 1, false},
		{"someone called sync", all, set(func(r *schemas.SignIn) { r.UserPrincipalName = "sync_a@example.com" }), 1, true},
		{"no policy applied", ca, single, 1, true},
		{"a policy applied", ca, set(func(r *schemas.SignIn) { r.Policies = []*schemas.Policy{other, applied} }), 1, false},
		{"policies are withheld, which is not none", ca, set(func(r *schemas.SignIn) { r.Policies, r.Flags = nil, schemas.FlagPoliciesAbsent }), 1, false},
		{"device unknown", device, single, 1, true},
		{"device not compliant", device, set(func(r *schemas.SignIn) { r.IsCompliant = schemas.Tri_TRI_FALSE }), 1, true},
		{"device compliant", device, set(func(r *schemas.SignIn) { r.IsCompliant = schemas.Tri_TRI_TRUE }), 1, false},
		{"device, without a person", device, nonInteractive, 1, true},
		{"a success from there", mail, inGermany, 1, true},
		{"MFA is no excuse", mail, set(func(r *schemas.SignIn) {
			r.CountryOrRegion, r.AuthenticationRequirement = "DE", "multiFactorAuthentication"
		}), 1, true},
		{"from elsewhere", mail, single, 1, false},
		{"from nowhere known", few, single, 1, false},
		{"another application", mail, set(func(r *schemas.SignIn) { r.CountryOrRegion, r.AppDisplayName = "DE", "Payroll" }), 1, false},
		{"by the application's id", Expectation{Name: "X", Expect: ExpectBlock, Applications: []string{testApp}}, single, 1, true},
		{"a user left out", mail, inGermany, 2, false},
		{"an address left out", few, inGermany, 1, false},
		{"a failure", mail, set(func(r *schemas.SignIn) { r.CountryOrRegion, r.ErrorCode = "DE", codeWrong }), 1, false},
		{"a user's object id", Expectation{Name: "X", Expect: ExpectBlock, Users: []string{testGUID(2, 1)}}, single, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			settings := DefaultSettings()
			settings.Tenants = map[string]*TenantSettings{testTenant: {Thresholds: DefaultThresholds(), Expectations: []Expectation{test.expect}}}
			f := newFeeder(t, Options{Settings: settings})
			f.add(testRecord(0, test.user, 0, codeSuccess, test.change))
			d := f.diagnoses[testGUID(0, 0)]
			by := d.Evidence.Get("missed_by")
			if missed := d.Scenario == ScenarioMissedInterrupt; missed != test.missed || missed != (by != nil) {
				t.Fatalf("scenario %s, missed_by %v", d.Scenario, by)
			}
			text := map[string]string{ExpectMFA: "the tenant expects MFA here: X", ExpectConditionalAccess: "the tenant expects a Conditional Access policy here: X",
				ExpectCompliantDevice: "the tenant expects a compliant device here: X", ExpectBlock: "the tenant expects no sign-in here: X"}[test.expect.Expect]
			if test.missed && (!slices.Contains(by.List, text) || d.Severity != SeverityLow) {
				t.Errorf("missed_by %v, severity %s", by.List, d.Severity)
			}
			// Another tenant has no such expectation.
			f.add(testRecord(1, 3, 0, codeSuccess, test.change, func(r *schemas.SignIn) { r.TenantId = testGUID(8, 9) }))
			if d := f.diagnoses[testGUID(0, 1)]; d.Scenario == ScenarioMissedInterrupt {
				t.Error("it holds another tenant too")
			}
		})
	}
}

// TestExpectationsDoNotAllocate: what a success meets costs no memory, with expectations and without.
func TestExpectationsDoNotAllocate(t *testing.T) {
	settings := DefaultSettings()
	settings.Default.Expectations = []Expectation{
		{Name: "A", Expect: ExpectMFA, Users: []string{"somebody@example.com"}, ExceptAddresses: networks("203.0.113.0/24")},
		{Name: "B", Expect: ExpectCompliantDevice, Applications: []string{"Exchange Online"}, ExceptAddresses: networks("2001:db8::/32")},
	}
	c := newClassifier(testCatalogue(t), settings)
	r := testRecord(0, 1, 0, codeSuccess)
	r.IsCompliant = schemas.Tri_TRI_TRUE
	s := subject{c: c, cat: c.cat, keys: &c.keys, v: &View{SignIn: r}, r: r, d: new(Diagnosis), e: new(Evidence)}
	s.facts()
	if n := testing.AllocsPerRun(100, func() {
		if recogniseMissedInterrupt(&s) != doesNotApply {
			t.Fatal("it is missed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
