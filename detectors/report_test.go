package detectors

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatalf("write golden file: %v", err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read golden file (make it with -update): %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (see -update):\n--- got\n%s--- want\n%s", file, got, want)
	}
}

func device(name, os, browser, trust string, compliant schemas.Tri) option {
	return with(func(r *schemas.SignIn) {
		r.DeviceDisplayName, r.OperatingSystem, r.Browser, r.TrustType, r.IsCompliant = name, os, browser, trust, compliant
	})
}

// explained are typical records as people see them.
var explained = []struct {
	name string
	view *View
	caps catalogue.Capability
}{
	{"success_mfa", record(0, provider("multiConditionalAccess"), policy("Require MFA", "success", block, "Mfa"), caStatus("success"),
		step("Password", "Primary authentication", "Correct password", schemas.Tri_TRI_TRUE),
		step("Mobile app notification", "Multifactor authentication", "MFA completed in Azure AD", schemas.Tri_TRI_TRUE)), catalogue.AllCapabilities},
	{"wrong_password_then_success", record(50126, reason("Error validating credentials due to invalid username or password."),
		func(v *View) {
			v.Outcome = OutcomeFailure
			v.Attempt = AttemptView{ID: "7d0c1b52-0000-4d11-9c00-2b6a5f4e0100", Outcome: AttemptSucceeded, Failures: 1, Successes: 1, LastFailureCode: 50126}
		}), catalogue.AllCapabilities},
	{"stored_password", record(50126, client("Exchange ActiveSync"), reason("Error validating credentials due to invalid username or password."),
		device("ada-phone", "Android 14", "", "", schemas.Tri_TRI_UNKNOWN),
		failures(FailureView{Count: 40, AtLeast: true, Repeated: true, First: testTime - 12000e6, Last: testTime, Applications: []string{"Office 365 Exchange Online"},
			Devices: []string{"ada-phone"}, Addresses: []string{"203.0.113.7"}, ClientApps: []string{"Exchange ActiveSync"}, Codes: []int32{50126}, RegularSeconds: 300, WrongPasswords: 40})), catalogue.AllCapabilities},
	{"account_locked", record(50053, reason(lockedText), client("IMAP4"), failures(FailureView{Count: 12, Repeated: true, First: testTime - 7200e6, Last: testTime,
		Applications: []string{"Payroll", "Mail"}, Addresses: []string{"203.0.113.7", "198.51.100.4", "192.0.2.9", "192.0.2.10"}, ClientApps: []string{"IMAP4", "Browser"}, Codes: []int32{50126, 50053}, Successes: 2})), catalogue.AllCapabilities},
	{"malicious_address", record(50053, reason(addressTxt)), catalogue.AllCapabilities},
	{"ca_blocked", record(53003, reason("Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."), caStatus("failure"),
		policy("Block countries", "failure", block|schemas.ConditionLocation, "Block"), device("LAP-1", "Windows 11", "Edge 130.0", "Azure AD joined", schemas.Tri_TRI_TRUE)), catalogue.AllCapabilities},
	{"ca_blocked_without_right", record(53003, reason("Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."), caStatus("failure"),
		policy("Block countries", "failure", block|schemas.ConditionLocation, "Block"), device("LAP-1", "Windows 11", "Edge 130.0", "Azure AD joined", schemas.Tri_TRI_TRUE)), catalogue.CapabilityRecords},
	{"device_not_compliant", record(53000, reason("Device is not in required device state."), caStatus("failure"), policy("Compliant devices", "failure", block, "RequireCompliantDevice"),
		device("LAP-2", "Windows 11", "Chrome 130.0", "", schemas.Tri_TRI_FALSE)), catalogue.AllCapabilities},
	{"mfa_resolved", record(50076, provider("multiConditionalAccess"), caStatus("failure"), policy("Require MFA", "failure", block, "Mfa"), func(v *View) {
		v.Outcome = OutcomeResolved
		v.Attempt = AttemptView{ID: "7d0c1b52-0000-4d11-9c00-2b6a5f4e00ff", Outcome: AttemptResolved, Interrupts: 2, Successes: 1}
	}), catalogue.AllCapabilities},
	{"mfa_declined_after_series", record(500121, details("MFA denied; user declined the authentication"), reason("Authentication failed during strong authentication request."),
		step("Password", "Primary authentication", "Correct password", schemas.Tri_TRI_TRUE),
		step("Mobile app notification", "Multifactor authentication", "MFA denied; user declined the authentication", schemas.Tri_TRI_FALSE), failures(sprayed)), catalogue.AllCapabilities},
	{"legacy_success", record(0, client("IMAP4")), catalogue.AllCapabilities},
	{"risk_blocked_without_right", record(53003, caStatus("failure"), risk("high"), policy("Block high risk", "failure", block|schemas.ConditionSignInRisk, "Block"),
		with(func(r *schemas.SignIn) { r.RiskEventTypes = []string{"anonymizedIPAddress"} })), catalogue.CapabilityRecords | catalogue.CapabilityConditionalAccess},
	{"unknown_user", record(50034, reason("The user account does not exist in the directory."), with(func(r *schemas.SignIn) {
		r.UserId, r.UserPrincipalName, r.UserDisplayName = unresolvedID, "nobody@example.org", ""
	})), catalogue.AllCapabilities},
	{"expired_secret", record(7000222, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL), reason("The provided client secret keys are expired."),
		with(func(r *schemas.SignIn) {
			r.ServicePrincipalCredentialKeyId, r.ClientCredentialType = "d0000000-0000-4000-8000-00000000000d", "clientSecret"
		})), catalogue.AllCapabilities},
	{"unknown_code", record(999999, reason("A failure\x1b[31m of\r\n the future.")), catalogue.AllCapabilities},
}

func TestWriteText(t *testing.T) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	for _, tc := range explained {
		t.Run(tc.name, func(t *testing.T) {
			var d Diagnosis
			judge(c, tc.view, &d)
			report := r.Report(&d, tc.caps)
			var text bytes.Buffer
			if err := r.WriteText(&text, report); err != nil {
				t.Fatal(err)
			}
			golden(t, "report_"+tc.name, text.Bytes())
			if strings.ContainsAny(text.String(), "\x1b\r{}") {
				t.Error("text holds control characters or template remains")
			}
			// A report that went through JSON reads the same.
			data, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			var again Report
			if err := json.Unmarshal(data, &again); err != nil {
				t.Fatal(err)
			}
			var second bytes.Buffer
			if err := r.WriteText(&second, again); err != nil {
				t.Fatal(err)
			}
			if text.String() != second.String() {
				t.Errorf("after JSON the text reads\n%s", second.String())
			}
		})
	}
}

func TestWriteSummaryTable(t *testing.T) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	var reports []Report
	for _, tc := range explained {
		var d Diagnosis
		judge(c, tc.view, &d)
		reports = append(reports, r.Report(&d, catalogue.AllCapabilities))
	}
	reports[0].App = "Zürich Straßenverzeichnis mit einem sehr langen Namen"
	var text bytes.Buffer
	if err := r.WriteSummaryTable(&text, reports...); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary_table", text.Bytes())
}

func testIncident() *Incident {
	return &Incident{IncidentID: "i-1", Kind: "repeated_failures", Severity: "medium", EntityKind: "user", EntityValue: "ada@example.org",
		TenantID: homeTenant, FirstSeen: testTime - 7200e6, LastSeen: testTime, Users: []string{"ada@example.org"}, Addresses: []string{"203.0.113.7", "198.51.100.4"},
		Applications: []string{"Payroll"}, Counts: []Count{{"failures", 12}, {"wrong_passwords", 10}}, Outcome: "blocked",
		RequestIDs: []string{"r1", "r2", "r3", "r4", "r5", "r6"}, RequestIDsTotal: 12}
}

func TestWriteIncidents(t *testing.T) {
	r := Renderer{Catalogue: loadCatalogue(t)}
	var text bytes.Buffer
	i := testIncident()
	i.Counts = append(i.Counts, Count{Name: "lockouts"}) // none tells nothing
	if err := r.WriteIncidents(&text, r.IncidentReport(i)); err != nil {
		t.Fatal(err)
	}
	golden(t, "incident", text.Bytes())
}

// jsonKeys returns the keys of a JSON object in their order.
func jsonKeys(t *testing.T, data []byte) []string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, tok.(string))
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			t.Fatal(err)
		}
		if string(skip) == "null" {
			t.Errorf("%v is null", tok)
		}
	}
	return keys
}

// The names and their order are the contract of explain, the API and the table's columns.
func TestReportContract(t *testing.T) {
	cat := loadCatalogue(t)
	r := Renderer{Catalogue: cat}
	for _, d := range []*Diagnosis{{}, {Also: []string{"flagged"}, Scenario: "success", Outcome: "success", EventTime: testTime}} {
		data, err := json.Marshal(r.Report(d, catalogue.AllCapabilities))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split("type request_id correlation_id tenant_id event_time category user user_id app resource client_app address error_code outcome attempt_id "+
			"attempt_outcome scenario also severity summary evidence actions links unknown incidents revision", " ")
		if got := jsonKeys(t, data); !slices.Equal(got, want) {
			t.Errorf("keys are %v, want %v", got, want)
		}
		var back Report
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if back.Type != "diagnosis" {
			t.Errorf("type is %q", back.Type)
		}
	}
	rep := r.Report(&Diagnosis{EventTime: testTime}, catalogue.AllCapabilities)
	if rep.EventTime != "2026-03-02T08:13:55.103456Z" {
		t.Errorf("event_time is %s", rep.EventTime)
	}
	if got := timeText(testTime / 1e6 * 1e6); got != "2026-03-02T08:13:55Z" {
		t.Errorf("a whole second is %s", got)
	}
	data, err := json.Marshal(r.IncidentReport(&Incident{Counts: []Count{{"b", 1}, {"a", 2}}}))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split("type incident_id kind severity entity tenant_id first_seen last_seen users addresses applications devices operating_systems client_apps counts outcome request_ids request_ids_total also joined", " ")
	if got := jsonKeys(t, data); !slices.Equal(got, want) {
		t.Errorf("keys are %v, want %v", got, want)
	}
	if !strings.Contains(string(data), `"entity":{"kind":"","value":""}`) || !strings.Contains(string(data), `"counts":{"b":1,"a":2}`) {
		t.Errorf("incident reads %s", data)
	}
	var back IncidentReport
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Counts, Counts{{"b", 1}, {"a", 2}}) {
		t.Errorf("counts came back as %v", back.Counts)
	}
}

// Names of policies and risk never reach a viewer without the right, whichever way they could take.
func TestNothingLeaks(t *testing.T) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	// Values that occur nowhere else.
	secretCA := []string{"SECRETPOLICY", "SECRETCONTROL", "SECRETRULE", "id-of-SECRETPOLICY", "SECRETSTRENGTH"}
	secretRisk := []string{"SECRETDETECTION", "SECRETSTATE", "SECRETDETAIL", "riskBasedPolicy"}
	plant := with(func(s *schemas.SignIn) {
		for _, result := range []string{"failure", "success", "reportOnlyFailure"} {
			s.Policies = append(s.Policies, &schemas.Policy{Id: "id-of-SECRETPOLICY", DisplayName: "SECRETPOLICY", Result: result, ConditionsSatisfied: 63,
				EnforcedGrantControls: []string{"Block", "Mfa", "SECRETCONTROL"}, AuthenticationStrength: "SECRETSTRENGTH",
				IncludeRulesSatisfied: []*schemas.Rule{{ConditionalAccessCondition: "users", RuleSatisfied: "SECRETRULE"}}})
		}
		s.AuthenticationRequirementPolicies = append(s.AuthenticationRequirementPolicies, &schemas.RequirementPolicy{RequirementProvider: "riskBasedPolicy"})
		s.AuthenticationRequirement = "multiFactorAuthentication"
		s.RiskLevelDuringSignIn, s.RiskState, s.RiskDetail, s.RiskEventTypes = "high", "SECRETSTATE", "SECRETDETAIL", []string{"SECRETDETECTION"}
		s.ConditionalAccessStatus = "failure"
	})
	found := map[string]bool{}
	var d Diagnosis
	for _, code := range cat.Codes() {
		for _, extra := range [][]option{nil, {guest()}, {client("IMAP4")}} {
			judge(c, record(code.Code, append(extra, plant)...), &d)
			render := func(caps catalogue.Capability) string {
				rep := r.Report(&d, caps)
				data, err := json.Marshal(rep)
				if err != nil {
					t.Fatal(err)
				}
				var text bytes.Buffer
				if err := r.WriteText(&text, rep); err != nil {
					t.Fatal(err)
				}
				return string(data) + text.String()
			}
			all := render(catalogue.AllCapabilities)
			for _, s := range append(secretCA, secretRisk...) {
				if strings.Contains(all, s) {
					found[s] = true
				}
			}
			for _, check := range []struct {
				caps   catalogue.Capability
				secret []string
			}{
				{catalogue.CapabilityRecords, append(slices.Clone(secretCA), secretRisk...)},
				{catalogue.CapabilityRecords | catalogue.CapabilityConditionalAccess, secretRisk},
				{catalogue.CapabilityRecords | catalogue.CapabilityRisk, secretCA},
			} {
				shown := render(check.caps)
				for _, s := range check.secret {
					if strings.Contains(shown, s) {
						t.Fatalf("code %d: %s reaches a viewer with capabilities %b:\n%s", code.Code, s, check.caps, shown)
					}
				}
			}
		}
	}
	for _, s := range append(secretCA, secretRisk...) {
		if !found[s] {
			t.Errorf("%s is shown to nobody, so the test shows nothing of it", s)
		}
	}
}

// A viewer without a right is told so.
func TestMissingRightIsSaid(t *testing.T) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	var d Diagnosis
	judge(c, record(53003, caStatus("failure"), policy("Block countries", "failure", block, "Block")), &d)
	if s := string(r.Summary(nil, &d, catalogue.CapabilityRecords)); !strings.Contains(s, "a right to see them is missing") {
		t.Errorf("summary reads %q", s)
	}
	if s := string(r.Summary(nil, &d, catalogue.AllCapabilities)); strings.Contains(s, "missing") || !strings.Contains(s, "Block countries") {
		t.Errorf("summary reads %q", s)
	}
	judge(c, record(53003, caStatus("failure")), &d)
	if s := string(r.Summary(nil, &d, catalogue.CapabilityRecords)); strings.Contains(s, "missing") {
		t.Errorf("nothing was left out, yet the summary reads %q", s)
	}
}

func TestSummaryDoesNotAllocate(t *testing.T) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	for _, tc := range explained {
		var d Diagnosis
		judge(c, tc.view, &d)
		buf := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(50, func() { buf = r.Summary(buf[:0], &d, catalogue.CapabilityRecords) }); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

func BenchmarkSummary(b *testing.B) {
	cat := loadCatalogue(b)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	for _, name := range []string{"success_mfa", "ca_blocked"} {
		for _, tc := range explained {
			if tc.name != name {
				continue
			}
			b.Run(name, func(b *testing.B) {
				var d Diagnosis
				judge(c, tc.view, &d)
				buf := make([]byte, 0, 1024)
				b.ReportAllocs()
				for b.Loop() {
					buf = r.Summary(buf[:0], &d, catalogue.CapabilityRecords)
				}
			})
		}
	}
}

// What weighs more because of risk says so, to those who may see risk; others read that something is left out, both in the
// summary and where there would be nothing else to do.
func TestRiskOfSuccess(t *testing.T) {
	c, r := newClassifier(loadCatalogue(t), DefaultSettings()), Renderer{Catalogue: loadCatalogue(t)}
	const missing = "Risk details are left out"
	tokens := with(func(r *schemas.SignIn) { r.Category = schemas.Category_CATEGORY_NON_INTERACTIVE_USER })
	state := func(s string) option { return with(func(r *schemas.SignIn) { r.RiskState = s }) }
	for _, tc := range []struct {
		name             string
		view             *View
		said, to, hidden string // of the summary and of the first action
	}{
		{"high", record(0, tokens, risk("high")), "saw a high risk", "Ask ada@example.org", "left out here"},
		{"high, found afterwards", record(0, with(func(r *schemas.SignIn) { r.RiskLevelAggregated = "high" })), "found a high risk", "Ask ada@example.org", "left out here"},
		{"high, remediated", record(0, tokens, risk("high"), state("remediated")), "", "Nothing to do.", "Nothing to do."},
		{"low", record(0, risk("low")), "", "Nothing to do.", "Nothing to do."},
		{"compromised", record(0, state("confirmedCompromised")), "confirmed as compromised", "Reset the password", "left out here"},
		{"compromised, refused", record(50126, state("confirmedCompromised")), "confirmed as compromised", "Reset the password", "type the user name"},
		{"high without MFA", record(0, risk("high")), "risk was high", "Ask ada@example.org", "What If"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var d Diagnosis
			judge(c, tc.view, &d)
			all, records := r.Report(&d, catalogue.AllCapabilities), r.Report(&d, catalogue.CapabilityRecords)
			if !strings.Contains(all.Summary, tc.said) || !strings.HasPrefix(all.Actions[0].Text, tc.to) {
				t.Errorf("summary %q, action %q", all.Summary, all.Actions[0].Text)
			}
			if (d.Severity == SeverityInfo) != (tc.said == "") {
				t.Errorf("severity %s, said %q", d.Severity, tc.said)
			}
			if tc.said != "" && (strings.Contains(records.Summary, tc.said) || !strings.Contains(records.Summary, missing)) {
				t.Errorf("without the right: summary %q", records.Summary)
			}
			if tc.said == "" && strings.Contains(records.Summary, missing) {
				t.Errorf("without the right: summary %q, which has nothing to leave out", records.Summary)
			}
			if !strings.Contains(records.Actions[0].Text, tc.hidden) {
				t.Errorf("without the right: action %q", records.Actions[0].Text)
			}
		})
	}
}
