package detectors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// viewers are the sets of rights for which texts are read.
var viewers = []struct {
	name         string
	capabilities catalogue.Capability
}{
	{"", catalogue.AllCapabilities},
	{"records", catalogue.CapabilityRecords},
	{"policies", catalogue.CapabilityRecords | catalogue.CapabilityConditionalAccess},
	{"risk", catalogue.CapabilityRecords | catalogue.CapabilityRisk},
}

// outcomesOf returns what may become of a record: an interrupt stays open or is resolved, a failure stays or a success
// of the same attempt follows.
func outcomesOf(r *schemas.SignIn, cat *catalogue.Catalogue) [][2]string {
	switch recordOutcome(r, cat) {
	case OutcomeInterrupted:
		return [][2]string{{OutcomeInterrupted, AttemptInterrupted}, {OutcomeResolved, AttemptResolved}}
	case OutcomeFailure:
		return [][2]string{{OutcomeFailure, AttemptFailed}, {OutcomeFailure, AttemptSucceeded}}
	}
	return [][2]string{{OutcomeSuccess, AttemptSucceeded}}
}

// sampleRecord decodes the made-up record of a scenario.
func sampleRecord(t testing.TB, scenario string) *schemas.SignIn {
	t.Helper()
	var record *schemas.SignIn
	schemas.NewDecoder().Decode(synthetic.Sample(scenario, synthetic.EventHubs), time.Unix(0, testTime*1000), func(_ int, d *schemas.Decoded) {
		if d.Err == nil && d.Kind == schemas.KindSignIn {
			record = d.SignIn.CloneVT()
		}
	})
	if record == nil {
		t.Fatalf("the sample of %s does not decode", scenario)
	}
	return record
}

// evidence sets evidence that recognition cannot give to a single record.
type evidence func(e *Evidence, key func(string) *catalogue.EvidenceKey)

func assessed(as string) evidence {
	return func(e *Evidence, key func(string) *catalogue.EvidenceKey) { e.SetText(key("assessment"), as) }
}

func flaggedWindow(n int64, codes ...string) evidence {
	return func(e *Evidence, key func(string) *catalogue.EvidenceKey) {
		e.SetInt(key("flagged_records"), n)
		e.SetTime(key("flagged_since"), testTime-240e6)
		e.SetList(key("flagged_failures"), codes)
	}
}

// variants are what one record of a scenario does not show.
var variants = []struct {
	name     string
	scenario string // whose sample it is made of
	options  []option
	evidence evidence
}{
	{"wrong_password_human", "wrong_password", nil, assessed("human")},
	{"wrong_password_stored_password", "wrong_password", nil, assessed("stored_password")},
	{"wrong_password_attack", "wrong_password", []option{failures(FailureView{Count: 9, First: testTime - 600e6, Last: testTime, Codes: []int32{50126},
		Applications: []string{"Office 365 Exchange Online"}, Addresses: []string{"198.51.100.7", "198.51.100.8", "198.51.100.9", "198.51.100.10"}})}, assessed("attack")},
	{"wrong_password_unclear", "wrong_password", nil, assessed("unclear")},
	{"flagged_window", "flagged", nil, flaggedWindow(3, "50126", "50053")},
	{"flagged_one", "flagged", nil, flaggedWindow(1, "50126")},
	{"account_locked_onprem", "account_locked", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 120014 })}, nil},
	{"security_defaults_prompt", "ca_mfa", []option{with(func(r *schemas.SignIn) {
		r.Policies = nil
		r.AuthenticationRequirementPolicies = []*schemas.RequirementPolicy{{RequirementProvider: "securityDefaults"}}
	})}, nil},
	{"external_step", "ca_mfa", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 50158 })}, nil},
	{"mfa_by_application", "mfa_other", []option{with(func(r *schemas.SignIn) {
		r.AuthenticationRequirementPolicies = []*schemas.RequirementPolicy{{RequirementProvider: "request"}}
	})}, nil},
	{"mfa_demander_unknown", "mfa_other", []option{with(func(r *schemas.SignIn) { r.AuthenticationRequirementPolicies = nil })}, nil},
	{"mfa_not_answered", "mfa_failed", []option{with(func(r *schemas.SignIn) {
		r.AdditionalDetails = "MFA denied; user did not respond to mobile app notification"
		r.AuthenticationDetails[len(r.AuthenticationDetails)-1].ResultDetail = r.AdditionalDetails
	})}, nil},
	{"mfa_fraud", "mfa_failed", []option{with(func(r *schemas.SignIn) {
		r.AdditionalDetails = "MFA denied; fraud code entered"
		r.AuthenticationDetails[len(r.AuthenticationDetails)-1].ResultDetail = r.AdditionalDetails
	})}, nil},
	{"registration_refused", "mfa_proofup", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 53010 })}, nil},
	{"ca_policy_unknown", "ca_blocked", []option{with(func(r *schemas.SignIn) { r.Policies = nil })}, nil},
	{"ca_policies_withheld", "ca_blocked", []option{with(func(r *schemas.SignIn) { r.Policies, r.Flags = nil, r.Flags|schemas.FlagPoliciesAbsent })}, nil},
	{"ca_strength", "ca_failed", []option{with(func(r *schemas.SignIn) {
		p := r.Policies[len(r.Policies)-1]
		r.ErrorCode, p.EnforcedGrantControls, p.AuthenticationStrength = 53003, nil, "Phishing-resistant MFA"
	})}, nil},
	{"ca_control_of_53003", "ca_failed", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 53003 })}, nil},
	{"ca_app_protection", "ca_failed", []option{with(func(r *schemas.SignIn) {
		r.ErrorCode = 53009
		r.Policies[len(r.Policies)-1].EnforcedGrantControls = []string{"RequireCompliantApp"}
	})}, nil},
	{"ca_device_unknown", "ca_failed", []option{with(func(r *schemas.SignIn) {
		r.TrustType, r.IsCompliant, r.IsManaged, r.DeviceDisplayName = "", schemas.Tri_TRI_UNKNOWN, schemas.Tri_TRI_UNKNOWN, ""
	})}, nil},
	{"guest_device", "b2b_ca_blocked", []option{with(func(r *schemas.SignIn) {
		r.ErrorCode = 53000
		r.Policies[len(r.Policies)-1].EnforcedGrantControls = []string{"RequireCompliantDevice"}
	})}, nil},
	{"guest_device_claims", "b2b_ca_blocked", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 530004 })}, nil},
	{"guest_not_invited", "b2b_failed", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 50020 })}, nil},
	{"legacy_success", "success", []option{client("Exchange ActiveSync")}, nil},
	{"legacy_refused", "success", []option{client("Exchange ActiveSync"), caStatus("failure"), policy("Old clients", "failure", block|schemas.ConditionClientType, "Block")}, nil},
	{"guest_passthrough", "success", []option{guest(), with(func(r *schemas.SignIn) { r.CrossTenantAccessType = "passthrough" })}, nil},
	{"mfa_by_network_policy_server", "mfa_other", []option{with(func(r *schemas.SignIn) {
		r.AuthenticationRequirementPolicies, r.TokenIssuerType, r.ResourceId = nil, "NPSExtension", "radius"
	})}, nil},
	{"mfa_demander_unnamed", "mfa_other", []option{with(func(r *schemas.SignIn) {
		r.AuthenticationRequirementPolicies = []*schemas.RequirementPolicy{{RequirementProvider: "unknownFutureValue"}}
	})}, nil},
	{"success_at_high_risk", "success", []option{risk("high"), with(func(r *schemas.SignIn) {
		r.Category, r.RiskEventTypes, r.RiskState = schemas.Category_CATEGORY_NON_INTERACTIVE_USER, []string{"unfamiliarFeatures"}, "atRisk"
	})}, nil},
	{"success_found_risky", "success", []option{with(func(r *schemas.SignIn) { r.RiskLevelAggregated, r.RiskState = "high", "atRisk" })}, nil},
	{"success_compromised", "success", []option{with(func(r *schemas.SignIn) {
		r.RiskState, r.RiskDetail = "confirmedCompromised", "adminConfirmedSigninCompromised"
	})}, nil},
	{"success_of_risky_workload", "success", []option{workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL), risk("high"), with(func(r *schemas.SignIn) {
		r.RiskState, r.UserPrincipalName, r.UserDisplayName, r.SignInIdentifier = "atRisk", "", "", ""
	})}, nil},
	{"mfa_at_high_risk", "ca_mfa", []option{risk("high")}, nil},
	{"external_terms_of_use", "ca_mfa", []option{with(func(r *schemas.SignIn) {
		r.ErrorCode, r.Policies[len(r.Policies)-1].EnforcedGrantControls = 50158, []string{"RequireTermsOfUse"}
	})}, nil},
	{"empty_record", "success", []option{with(func(r *schemas.SignIn) {
		*r = schemas.SignIn{RequestId: r.RequestId, TenantId: r.TenantId, EventTime: r.EventTime, Category: r.Category, Flags: schemas.FlagNoErrorCode}
	})}, nil},
	{"risk_home_tenant", "risk_blocked", []option{guest(), with(func(r *schemas.SignIn) { r.ErrorCode, r.HomeTenantId = 53011, resourceTenant })}, nil},
	{"risk_password_change", "risk_blocked", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 50142 })}, nil},
	{"risk_of_user", "risk_blocked", []option{with(func(r *schemas.SignIn) { r.ErrorCode, r.RiskLevelDuringSignIn = 530032, "hidden" })}, nil},
	{"password_expired_onprem", "password_expired", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 50144 })}, nil},
	{"pta_upn", "pta", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 80004 })}, nil},
	{"sso_ticket", "sso", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 81004 })}, nil},
	{"app_reply_url", "app_configuration", []option{with(func(r *schemas.SignIn) { r.ErrorCode, r.RedirectUrl = 50011, "https://app.example.org/back" })}, nil},
	{"app_wrong_secret", "app_service_provider", []option{workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL), with(func(r *schemas.SignIn) {
		r.ErrorCode, r.ClientCredentialType, r.SignInIdentifier, r.Policies = 7000215, "clientSecret", "", nil
		r.DeviceDisplayName, r.OperatingSystem, r.TrustType, r.IsCompliant, r.IsManaged = "", "", "", schemas.Tri_TRI_UNKNOWN, schemas.Tri_TRI_UNKNOWN
	})}, nil},
	{"consent_of_admin", "consent_required", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 90094 })}, nil},
	{"device_deleted", "device_state", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 700003 })}, nil},
	{"session_revoked", "token_session", []option{with(func(r *schemas.SignIn) { r.ErrorCode = 50173 })}, nil},
	{"missed_at_high_risk", "success", []option{risk("high")}, nil},
	{"no_code", "success", []option{with(func(r *schemas.SignIn) { r.Flags |= schemas.FlagNoErrorCode; r.ConditionalAccessStatus = "failure" })}, nil},
}

// diagnose judges a view and adds evidence.
func diagnose(c *classifier, v *View, add evidence, d *Diagnosis) {
	judge(c, v, d)
	if add != nil {
		add(&d.Evidence, c.cat.Evidence)
	}
}

// Every scenario, as its made-up record reads: the text of each outcome, and once more for a viewer without the rights to
// policies and risk where that differs.
func TestScenarioTexts(t *testing.T) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	text := func(t *testing.T, v *View, add evidence) []byte {
		var all bytes.Buffer
		for _, o := range outcomesOf(v.SignIn, cat) {
			v.Outcome, v.Attempt.Outcome = o[0], o[1]
			v.Attempt.Successes, v.Attempt.Failures, v.Attempt.Interrupts = 0, 0, 0
			var d Diagnosis
			diagnose(c, v, add, &d)
			shown := ""
			for _, viewer := range viewers[:2] {
				var one bytes.Buffer
				if err := r.WriteText(&one, r.Report(&d, viewer.capabilities)); err != nil {
					t.Fatal(err)
				}
				if one.String() == shown {
					continue
				}
				shown = one.String()
				title := o[0]
				if o[0] == OutcomeFailure && o[1] == AttemptSucceeded {
					title = "failure, then success"
				}
				if viewer.name != "" {
					title += ", without the rights to policies and risk"
				}
				fmt.Fprintf(&all, "=== %s\n%s\n", title, shown)
			}
		}
		return all.Bytes()
	}
	for _, scenario := range synthetic.SampleScenarios() {
		t.Run(scenario, func(t *testing.T) {
			golden(t, "explain_"+scenario, text(t, &View{SignIn: sampleRecord(t, scenario)}, nil))
		})
	}
	for _, label := range []struct {
		name string
		view *View
	}{
		{ScenarioPasswordKnown, &View{SignIn: sampleRecord(t, "ca_blocked"), Failures: sprayed}},
		{ScenarioRepeatedFailures, &View{SignIn: sampleRecord(t, "wrong_password"), Failures: FailureView{Count: 6, Repeated: true, First: testTime - 7200e6, Last: testTime,
			Applications: []string{"Office 365 Exchange Online"}, Addresses: []string{"203.0.113.7"}, ClientApps: []string{"Browser"}, Codes: []int32{50126}}}},
		{ScenarioCachedCredential, &View{SignIn: sampleRecord(t, "wrong_password"), Failures: FailureView{Count: 24, First: testTime - 7200e6, Last: testTime,
			Applications: []string{"Office 365 Exchange Online"}, Devices: []string{"LAPTOP-ANA"}, Addresses: []string{"203.0.113.7"}, Codes: []int32{50126}, RegularSeconds: 300, WrongPasswords: 24}}},
	} {
		t.Run(label.name, func(t *testing.T) {
			var d Diagnosis
			judge(c, label.view, &d)
			if !slices.Contains(d.Also, label.name) {
				t.Errorf("also is %v", d.Also)
			}
			golden(t, "explain_"+label.name, text(t, label.view, nil))
		})
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			view := &View{SignIn: sampleRecord(t, v.scenario)}
			for _, o := range v.options {
				o(view)
			}
			golden(t, "explain_"+v.name, text(t, view, v.evidence))
		})
	}
}

// eachText calls f with the texts that a reader may meet: samples and variants in every outcome for every viewer, and all codes
// of members; codes of guests, legacy clients, workloads, at risk and with a window of failures as far as they differ.
func eachText(t *testing.T, f func(name string, r Renderer, d *Diagnosis, capabilities catalogue.Capability)) {
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	var d Diagnosis
	readers := viewers
	each := func(name string, v *View, add evidence) {
		for _, o := range outcomesOf(v.SignIn, cat) {
			v.Outcome, v.Attempt.Outcome = o[0], o[1]
			diagnose(c, v, add, &d)
			for _, viewer := range readers {
				f(fmt.Sprintf("%s (%s, attempt %s, rights %s)", name, o[0], o[1], viewer.name), r, &d, viewer.capabilities)
			}
		}
	}
	for _, scenario := range synthetic.SampleScenarios() {
		each(scenario, &View{SignIn: sampleRecord(t, scenario)}, nil)
	}
	for _, v := range variants {
		view := &View{SignIn: sampleRecord(t, v.scenario)}
		for _, o := range v.options {
			o(view)
		}
		each(v.name, view, v.evidence)
	}
	windows := []option{
		func(*View) {},
		failures(sprayed),
		failures(FailureView{Count: 40, AtLeast: true, Repeated: true, First: testTime - 12000e6, Last: testTime, Applications: []string{"Mail"}, Devices: []string{"ada-phone"},
			Addresses: []string{"203.0.113.7"}, ClientApps: []string{"Exchange ActiveSync"}, Codes: []int32{50126}, RegularSeconds: 300, WrongPasswords: 40}),
	}
	kinds := []struct {
		name    string
		options []option
	}{
		{"member", nil},
		{"guest", []option{guest(), foreign(), policy("Guests", "failure", block, "RequireCompliantDevice")}},
		{"legacy client", []option{client("IMAP4"), policy("Old clients", "failure", block|schemas.ConditionClientType, "Block"), with(func(r *schemas.SignIn) { r.FlaggedForReview = true })}},
		{"risk", []option{risk("high"), policy("Risk", "failure", block|schemas.ConditionSignInRisk, "Block"), provider("riskBasedPolicy")}},
		{"nameless", []option{with(func(r *schemas.SignIn) {
			*r = schemas.SignIn{RequestId: r.RequestId, CorrelationId: r.CorrelationId, TenantId: r.TenantId, EventTime: r.EventTime, Category: r.Category, ErrorCode: r.ErrorCode}
		})}},
		{"workload", []option{workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL)}},
	}
	readers = viewers[:2]
	assessments := []evidence{nil, assessed("human"), assessed("stored_password"), assessed("attack"), assessed("unclear")}
	// The large families of codes differ in what the catalogue says of the code, which one record shows.
	const manyCodes = 12
	ofScenario := map[string]int{}
	for _, code := range cat.Codes() {
		ofScenario[code.Scenario.Name]++
		for _, kind := range kinds {
			for i, window := range windows {
				alike := ofScenario[code.Scenario.Name] > manyCodes
				if i > 0 && (alike || kind.name != "member" && kind.name != "legacy client") || alike && kind.name != "member" {
					continue
				}
				name := fmt.Sprintf("code %d, %s, window %d", code.Code, kind.name, i)
				if code.Scenario.Name == ScenarioWrongPassword || code.Scenario.Name == ScenarioAccountLocked {
					for _, add := range assessments {
						each(name, record(code.Code, append(slices.Clone(kind.options), window)...), add)
					}
					continue
				}
				each(name, record(code.Code, append(slices.Clone(kind.options), window)...), nil)
			}
		}
	}
}

// Words that sentences for people do not hold: tokens of the log and names of our own.
var (
	camelCase = regexp.MustCompile(`\b[A-Za-z]*[a-z]+[A-Z][A-Za-z]+\b`)
	plainWord = regexp.MustCompile(`^[a-z]+$`)
	snakeCase = regexp.MustCompile(`\b[a-z0-9]+_[a-z0-9_]+\b`)
	// properNames have such a form and are what people look for.
	properNames = regexp.MustCompile(`userPrincipalName|ActiveSync|PowerShell`)
	slips       = regexp.MustCompile(`  | [.,;:](?:\s|$)|[.]{2}|,,|[(]\s*[)]|[:;,][.]|[{}\[\]]|\bNone[.]|%!|\bcodes?[ )]*$`)
)

// lintSentence returns what is wrong with a sentence, or "". Tokens in what the catalogue says of the code are left to it: a
// developer has to find them in the request.
func lintSentence(s string, code *catalogue.Code) string {
	plain := properNames.ReplaceAllString(s, "")
	if code != nil {
		plain = strings.ReplaceAll(strings.ReplaceAll(plain, code.Meaning, ""), code.Remediation, "")
	}
	switch {
	case s == "":
		return "is empty"
	case !strings.HasSuffix(s, "."):
		return "does not end with a full stop"
	case slips.MatchString(s):
		return fmt.Sprintf("holds %q", slips.FindString(s))
	case camelCase.MatchString(plain):
		return "holds the token " + camelCase.FindString(plain)
	case snakeCase.MatchString(plain):
		return "holds the token " + snakeCase.FindString(plain)
	}
	return ""
}

// maxSummary bounds a summary, in characters.
const maxSummary = 420

func TestTextsHoldTogether(t *testing.T) {
	complained := map[string]bool{}
	complain := func(name, what, text, problem string) {
		if key := what + text; problem != "" && !complained[key] {
			complained[key] = true
			t.Errorf("%s: %s %s:\n\t%s", name, what, problem, text)
		}
	}
	texts := 0
	eachText(t, func(name string, r Renderer, d *Diagnosis, capabilities catalogue.Capability) {
		texts++
		code := r.Catalogue.Code(d.ErrorCode)
		report := r.Report(d, capabilities)
		complain(name, "summary", report.Summary, lintSentence(report.Summary, code))
		if n := utf8.RuneCountInString(report.Summary); n > maxSummary {
			complain(name, "summary", report.Summary, fmt.Sprintf("has %d characters", n))
		}
		sentences := map[string]bool{}
		for _, s := range r.Why(d, capabilities) {
			complain(name, "why", s, lintSentence(s, code))
			if sentences[s] {
				complain(name, "why", s, "stands twice")
			}
			sentences[s] = true
		}
		for _, s := range r.UnknownTexts(d) {
			complain(name, "unknown", s, lintSentence(s, nil))
		}
		if len(report.Actions) == 0 || len(report.Actions) > maxActions {
			t.Errorf("%s: %d actions", name, len(report.Actions))
		}
		done := map[string]bool{}
		for _, a := range report.Actions {
			complain(name, "action", a.Text, lintSentence(a.Text, code))
			if first, _ := utf8.DecodeRuneInString(a.Text); !unicode.IsUpper(first) {
				complain(name, "action", a.Text, "does not begin with a capital letter")
			}
			if a.Role == "" || done[a.Text] {
				complain(name, "action", a.Text, "has no role or stands twice")
			}
			done[a.Text] = true
		}
		pages := map[string]bool{}
		for _, l := range report.Links {
			page, _, _ := strings.Cut(l.URL, "#")
			if pages[page] || l.Title == "" {
				complain(name, "link", l.URL, "stands twice or has no title")
			}
			pages[page] = true
		}
		if len(report.Links) > maxLinks {
			t.Errorf("%s: %d links", name, len(report.Links))
		}
		var text bytes.Buffer
		if err := r.WriteText(&text, report); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		for i, line := range lines {
			if utf8.RuneCountInString(line) > textWidth && !strings.Contains(line, "https://") {
				complain(name, "line", line, "is too long")
			}
			// A heading stands after an empty line, at the left edge.
			if i > 0 && lines[i-1] == "" && line != "" && line[0] != ' ' && (i+1 == len(lines) || !strings.HasPrefix(lines[i+1], " ")) {
				complain(name, "section", line, "is empty")
			}
		}
	})
	t.Logf("%d texts", texts)
}

// What a viewer may not see reaches him in no text of any sample: every value that only his lack of a right hides from him.
func TestNoSampleLeaks(t *testing.T) {
	seen := 0
	eachText(t, func(name string, r Renderer, d *Diagnosis, capabilities catalogue.Capability) {
		if capabilities == catalogue.AllCapabilities {
			return
		}
		visible := string(d.UserID) + d.User + d.App + d.Resource
		var secrets []string
		for _, f := range d.Evidence.Facts() {
			if capabilities.Has(f.Key.Capability) {
				continue
			}
			for _, s := range append(slices.Clone(f.List), f.Text) {
				// Levels and names of conditions are words of the language.
				if len(s) > 8 && !plainWord.MatchString(s) && !strings.Contains(visible, s) {
					secrets = append(secrets, s)
				}
				if word := string(r.Catalogue.KeyWords(f.Key).Append(nil, s)); len(s) > 0 && len(word) > 12 && word != s {
					secrets = append(secrets, word)
				}
			}
		}
		if len(secrets) == 0 {
			return
		}
		report := r.Report(d, capabilities)
		data, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := r.WriteText(&text, report); err != nil {
			t.Fatal(err)
		}
		shown := string(data) + text.String() + strings.Join(r.Why(d, capabilities), "\n")
		for _, s := range secrets {
			seen++
			if strings.Contains(shown, s) && !toldByCode(r, d, s) {
				t.Errorf("%s: %q reaches a viewer without the right:\n%s", name, s, text.String())
			}
		}
		if n := strings.Count(report.Summary, "a right to see them is missing"); n > 1 {
			t.Errorf("%s: the summary says %d times that a right is missing: %s", name, n, report.Summary)
		}
	})
	if seen == 0 {
		t.Error("no sample holds anything that a viewer may not see")
	}
}

// toldByCode reports whether a word stands in a text that depends on the code and the scenario alone, as "a compliant
// device" does for 53000: that is no secret.
func toldByCode(r Renderer, d *Diagnosis, s string) bool {
	bare := *d
	bare.Evidence = Evidence{}
	for _, f := range d.Evidence.Facts() {
		if f.Key.Capability == catalogue.CapabilityRecords {
			bare.Evidence.items = append(bare.Evidence.items, f)
		}
	}
	var text bytes.Buffer
	_ = r.WriteText(&text, r.Report(&bare, catalogue.AllCapabilities))
	return strings.Contains(text.String(), s)
}

// Every kind of incident in every outcome reads as sentences, with something to do and to read.
func TestIncidentTexts(t *testing.T) {
	cat := loadCatalogue(t)
	r := Renderer{Catalogue: cat}
	var all bytes.Buffer
	for _, kind := range cat.Incidents() {
		said := map[string]bool{}
		for _, outcome := range []string{"blocked", "locked", "password_known", "signed_in", "failing"} {
			for _, bare := range []bool{false, true} {
				i := testIncident()
				i.Kind, i.Severity, i.Outcome = kind.Name, kind.Severity, outcome
				switch kind.Name {
				case "password_spray", "disabled_account_probe", "user_enumeration":
					i.EntityKind, i.EntityValue, i.Addresses = "address", "203.0.113.7", []string{"203.0.113.7"}
				case "distributed_spray":
					i.EntityKind, i.EntityValue = "network", "AS64500"
				case "principal_secret_guessing", "expired_secret":
					i.EntityKind, i.EntityValue = "service_principal", "nightly-export"
				case "app_outage":
					i.EntityKind, i.EntityValue = "application", "Payroll"
				case "ca_surge", "pta_outage", "sso_outage":
					i.EntityKind, i.EntityValue = "tenant", homeTenant
				}
				i.Users = []string{"ada@example.org", "ben@example.org", "cleo@example.org", "dan@example.org"}
				i.ClientApps, i.Devices = []string{"Exchange ActiveSync"}, []string{"ada-phone"}
				if bare {
					i.Users, i.Addresses, i.Applications, i.Devices, i.ClientApps = nil, nil, nil, nil, nil
					i.RequestIDsTotal = 1
				}
				summary := string(r.IncidentSummary(nil, i))
				if problem := lintSentence(summary, nil); problem != "" {
					t.Errorf("%s, %s: summary %s:\n\t%s", kind.Name, outcome, problem, summary)
				}
				if n := utf8.RuneCountInString(summary); n > maxSummary {
					t.Errorf("%s, %s: summary has %d characters:\n\t%s", kind.Name, outcome, n, summary)
				}
				if strings.Contains(summary, "1 records") {
					t.Errorf("%s, %s: one is not many:\n\t%s", kind.Name, outcome, summary)
				}
				if !bare && !said[summary] {
					fmt.Fprintf(&all, "%s, %s: %s\n", kind.Title, outcome, summary)
					said[summary] = true
				}
			}
		}
		actions := r.IncidentActions(kind.Name)
		if len(actions) == 0 || len(actions) > maxActions || len(kind.Links) == 0 {
			t.Errorf("%s: %d actions, %d links", kind.Name, len(actions), len(kind.Links))
		}
		done := map[string]bool{}
		for n, a := range actions {
			if problem := lintSentence(a.Text, nil); problem != "" || done[a.Text] || a.Role == "" {
				t.Errorf("%s: action %q: %s", kind.Name, a.Text, problem)
			}
			done[a.Text] = true
			fmt.Fprintf(&all, "  %d. %s (%s)\n", n+1, a.Text, a.Role)
		}
		if problem := lintSentence(kind.Definition, nil); problem != "" {
			t.Errorf("%s: definition %s", kind.Name, problem)
		}
		for _, l := range kind.Links {
			fmt.Fprintf(&all, "  - %s: %s\n", l.Title, l.URL)
		}
	}
	golden(t, "incidents", all.Bytes())
}
