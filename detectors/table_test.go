package detectors_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// shape is a form in which a record reaches the program: its dialect and the log that it belongs to.
type shape struct {
	dialect  synthetic.Dialect
	category schemas.Category
}

// shapes are all shapes by the names that the table uses.
var shapes = map[string]shape{
	"hub":      {synthetic.EventHubs, schemas.Category_CATEGORY_SIGN_IN},
	"log":      {synthetic.LogAnalytics, schemas.Category_CATEGORY_SIGN_IN},
	"beta":     {synthetic.GraphBeta, schemas.Category_CATEGORY_SIGN_IN},
	"v1":       {synthetic.GraphV1, schemas.Category_CATEGORY_SIGN_IN},
	"hub-non":  {synthetic.EventHubs, schemas.Category_CATEGORY_NON_INTERACTIVE_USER},
	"log-non":  {synthetic.LogAnalytics, schemas.Category_CATEGORY_NON_INTERACTIVE_USER},
	"beta-non": {synthetic.GraphBeta, schemas.Category_CATEGORY_NON_INTERACTIVE_USER},
	"hub-sp":   {synthetic.EventHubs, schemas.Category_CATEGORY_SERVICE_PRINCIPAL},
	"log-sp":   {synthetic.LogAnalytics, schemas.Category_CATEGORY_SERVICE_PRINCIPAL},
	"beta-sp":  {synthetic.GraphBeta, schemas.Category_CATEGORY_SERVICE_PRINCIPAL},
	"hub-mi":   {synthetic.EventHubs, schemas.Category_CATEGORY_MANAGED_IDENTITY},
	"log-mi":   {synthetic.LogAnalytics, schemas.Category_CATEGORY_MANAGED_IDENTITY},
	"beta-mi":  {synthetic.GraphBeta, schemas.Category_CATEGORY_MANAGED_IDENTITY},
	"hub-adfs": {synthetic.EventHubs, schemas.Category_CATEGORY_ADFS},
	"log-adfs": {synthetic.LogAnalytics, schemas.Category_CATEGORY_ADFS},
}

// Sets of shapes. Graph v1.0 has neither steps nor demanders, conditions, user types and flags, so what rests on those
// is expected of the full shapes only.
const (
	all         = "hub log beta v1"
	full        = "hub log beta"
	unattended  = "hub-non log-non beta-non"
	everyUser   = all + " " + unattended
	workloads   = "hub-sp log-sp beta-sp"
	managed     = "hub-mi log-mi beta-mi"
	adfs        = "hub-adfs log-adfs"
	everyLog    = everyUser + " " + workloads + " " + managed + " " + adfs
	contoso     = "11111111-aaaa-4bbb-8ccc-000000000001"
	fabrikam    = "11111111-aaaa-4bbb-8ccc-000000000002"
	homeAddress = "203.0.113.7"
)

// tableTime is createdDateTime of the record that a row judges.
var tableTime = time.Date(2026, 3, 2, 8, 13, 55, 0, time.UTC)

// change sets something of a record.
type change func(*synthetic.SignInSpec)

// row is one line of the table: a record in several shapes and what must be said of it.
type row struct {
	name   string
	shapes string
	// record changes the template of its log.
	record []change
	// around are the same user's other records, each a change of the same record; nil for a lone one.
	around []neighbours
	want   verdict
	// trapOf names the scenario or label that a careless rule would give; the record must not have it, neither as headline
	// nor in also.
	trapOf string
}

// neighbours are n records before (or, where first is positive, after) the one that is judged. The i-th lies first + i*every from it.
type neighbours struct {
	n            int
	first, every time.Duration
	// attempt says that they share the correlation id.
	attempt bool
	change  func(i int, s *synthetic.SignInSpec)
}

// verdict is what is expected. also is the whole list. evidence holds JSON members such as "mfa_denied":true, with ! before a key that
// must be absent; unknown holds keys likewise.
type verdict struct {
	headline, also, outcome, severity string
	evidence                          []string
	unknown                           string
}

func (n neighbours) specs(base synthetic.SignInSpec, key string) []synthetic.SignInSpec {
	out := make([]synthetic.SignInSpec, 0, n.n)
	for i := range n.n {
		s := base
		s.Time = base.Time.Add(n.first + time.Duration(i)*n.every)
		id := fmt.Sprint(key, "/", n.first, "/", i)
		s.RequestID = synthetic.NamedGUID("request", id)
		if !n.attempt {
			s.CorrelationID = synthetic.NamedGUID("correlation", id)
		}
		n.change(i, &s)
		out = append(out, s)
	}
	return out
}

// template is an ordinary record of the shape's log.
func template(s shape, key string) synthetic.SignInSpec {
	spec := synthetic.SignInSpec{Category: s.category, Time: tableTime, ProcessingDelay: 2 * time.Minute, TenantID: contoso,
		RequestID: synthetic.NamedGUID("request", key), CorrelationID: synthetic.NamedGUID("correlation", key),
		AppID: "b0000000-0000-4000-8000-00000000000b", AppDisplayName: "Payroll",
		ResourceID: "b0000000-0000-4000-8000-0000000000aa", ResourceDisplayName: "Payroll API",
		Address: homeAddress, AutonomousSystemNumber: 64496, Place: synthetic.Place{City: "Bern", CountryOrRegion: "CH"}}
	if !s.category.IsUser() {
		spec.ServicePrincipalID, spec.ServicePrincipalName = "c0000000-0000-4000-8000-00000000000c", "nightly-export"
		spec.ClientCredentialType, spec.ServicePrincipalCredentialKeyID = "clientSecret", "d0000000-0000-4000-8000-00000000000d"
		if s.category == schemas.Category_CATEGORY_MANAGED_IDENTITY {
			// Neither address nor place, and the first member of the risk enumeration.
			spec.Address, spec.AutonomousSystemNumber, spec.Place = "", 0, synthetic.Place{}
			spec.ClientCredentialType, spec.ServicePrincipalCredentialKeyID = "managedIdentity", ""
			spec.Risk = synthetic.Risk{LevelDuringSignIn: "low", LevelAggregated: "low"}
		}
		return spec
	}
	spec.UserID, spec.UserPrincipalName, spec.UserDisplayName = "a0000000-0000-4000-8000-00000000000a", "ada@example.org", "Ada Meier"
	spec.Device = synthetic.Device{OperatingSystem: "Windows 11", Browser: "Edge 142.0.0"}
	switch s.category {
	case schemas.Category_CATEGORY_NON_INTERACTIVE_USER:
		spec.ClientAppUsed = synthetic.ClientModern
	case schemas.Category_CATEGORY_ADFS:
		spec.ClientAppUsed, spec.ResourceID, spec.Risk.LevelDuringSignIn = "Unknown", "https://sts.example.org/adfs", "hidden"
		spec.Place = synthetic.Place{}
	}
	return spec
}

// engineVerdict writes the records out, decodes them from bytes and runs them through the whole engine in order of time; it returns the
// final diagnosis of the record with the given id.
func engineVerdict(t *testing.T, d synthetic.Dialect, requestID string, specs ...synthetic.SignInSpec) *detectors.Diagnosis {
	t.Helper()
	slices.SortStableFunc(specs, func(a, b synthetic.SignInSpec) int { return a.Time.Compare(b.Time) })
	runner := newRunner(t)
	for i := range specs {
		feed(t, runner, synthetic.Append(nil, &specs[i], d), specs[i].Time.Add(2*time.Minute))
	}
	result := runner.Result()
	if len(result.Diagnoses) != len(specs) {
		t.Fatalf("%d diagnoses of %d records", len(result.Diagnoses), len(specs))
	}
	for i := range result.Diagnoses {
		if result.Diagnoses[i].RequestID == requestID {
			return &result.Diagnoses[i]
		}
	}
	t.Fatalf("no diagnosis of %s", requestID)
	return nil
}

func newRunner(t testing.TB) *inmemory.Runner {
	t.Helper()
	runner, err := inmemory.New(detectors.Options{Catalogue: tableCatalogue(t)})
	if err != nil {
		t.Fatal(err)
	}
	return runner
}

func feed(t testing.TB, runner *inmemory.Runner, message []byte, received time.Time) {
	t.Helper()
	runner.Feed(message, received, func(_ int, err error) { t.Errorf("%v\n%s", err, message) })
}

var loadOnce = sync.OnceValues(catalogue.Load)

func tableCatalogue(t testing.TB) *catalogue.Catalogue {
	t.Helper()
	cat, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	return cat
}

// has reports whether a scenario or label stands in a diagnosis.
func has(d *detectors.Diagnosis, name string) bool {
	return d.Scenario == name || slices.Contains(d.Also, name)
}

func (w verdict) check(t *testing.T, d *detectors.Diagnosis) {
	t.Helper()
	if d.Scenario != w.headline {
		t.Errorf("headline is %s, want %s", d.Scenario, w.headline)
	}
	if got := strings.Join(d.Also, " "); got != w.also {
		t.Errorf("also is %q, want %q", got, w.also)
	}
	if d.Outcome != w.outcome {
		t.Errorf("outcome is %s, want %s", d.Outcome, w.outcome)
	}
	if d.Severity != w.severity {
		t.Errorf("severity is %s, want %s", d.Severity, w.severity)
	}
	json := string(d.Evidence.AppendJSON(nil))
	for _, e := range w.evidence {
		if key, absent := strings.CutPrefix(e, "!"); absent {
			if d.Evidence.Get(key) != nil {
				t.Errorf("evidence holds %s: %s", key, json)
			}
		} else if !strings.Contains(json, e) {
			t.Errorf("evidence lacks %s: %s", e, json)
		}
	}
	for _, u := range strings.Fields(w.unknown) {
		key, absent := strings.CutPrefix(u, "!")
		if slices.Contains(d.Unknown, key) == absent {
			t.Errorf("unknown is %v, want %s", d.Unknown, u)
		}
	}
}

// judge returns the final diagnosis of the row's record in a shape.
func (r *row) judge(t *testing.T, name string) *detectors.Diagnosis {
	t.Helper()
	s, ok := shapes[name]
	if !ok {
		t.Fatalf("%q is no shape", name)
	}
	key := r.name + "/" + name
	spec := template(s, key)
	for _, c := range r.record {
		c(&spec)
	}
	specs := []synthetic.SignInSpec{spec}
	for _, n := range r.around {
		specs = append(specs, n.specs(spec, key)...)
	}
	return engineVerdict(t, s.dialect, spec.RequestID, specs...)
}

// TestTable judges every row in each of its shapes.
func TestTable(t *testing.T) {
	renderer := detectors.Renderer{Catalogue: tableCatalogue(t)}
	records, names := 0, map[string]bool{}
	for _, group := range table {
		for i := range group.rows {
			r := &group.rows[i]
			if names[r.name] {
				t.Errorf("two rows are called %q", r.name)
			}
			names[r.name] = true
			for _, name := range strings.Fields(r.shapes) {
				records++
				t.Run(r.name+"/"+name, func(t *testing.T) {
					d := r.judge(t, name)
					r.want.check(t, d)
					if r.trapOf != "" && has(d, r.trapOf) {
						t.Errorf("%s %v fell for %s", d.Scenario, d.Also, r.trapOf)
					}
					summary := string(renderer.Summary(nil, d, catalogue.AllCapabilities))
					if summary == "" || strings.Contains(summary, "  ") || strings.ContainsAny(summary, "{}[]") || !strings.HasSuffix(summary, ".") {
						t.Errorf("summary reads %q", summary)
					}
					if t.Failed() {
						t.Log(summary)
					}
				})
			}
		}
	}
	t.Logf("%d records of %d rows", records, len(names))
	if records < 250 {
		t.Errorf("the table holds %d records, expected at least 250", records)
	}
}

// TestTableCoverage holds that every scenario and label is met in at least three shapes and resisted by at least one trap, and
// that every trap names one.
func TestTableCoverage(t *testing.T) {
	met, resisted := map[string]map[string]bool{}, map[string]int{}
	for _, group := range table {
		for i := range group.rows {
			r := &group.rows[i]
			for _, name := range append(strings.Fields(r.want.also), r.want.headline) {
				if met[name] == nil {
					met[name] = map[string]bool{}
				}
				for _, s := range strings.Fields(r.shapes) {
					met[name][s] = true
				}
			}
			if r.trapOf != "" {
				if r.want.headline == r.trapOf || slices.Contains(strings.Fields(r.want.also), r.trapOf) {
					t.Errorf("row %q wants its own trap %s", r.name, r.trapOf)
				}
				resisted[r.trapOf]++
			}
		}
	}
	cat := tableCatalogue(t)
	for _, s := range cat.Scenarios() {
		if len(met[s.Name]) < 3 {
			t.Errorf("%s is met in %d shapes, want at least 3", s.Name, len(met[s.Name]))
		}
		if resisted[s.Name] == 0 {
			t.Errorf("%s has no trap", s.Name)
		}
	}
	for name := range resisted {
		if cat.Scenario(name) == nil {
			t.Errorf("a trap is of %q, which is no scenario", name)
		}
	}
}

// TestTableEveryCode judges every code of the catalogue, lone and in three shapes: the headline follows from the category by the
// rules of the reference, with the exceptions below, and the outcome from the list of interrupts.
func TestTableEveryCode(t *testing.T) {
	cat := tableCatalogue(t)
	judged := 0
	for _, code := range cat.Codes() {
		want, ok := headlineOfCode[code.Code]
		if !ok {
			want, ok = headlineOfCategory[code.Category]
		}
		if !ok {
			t.Errorf("code %d: no headline for the category %s", code.Code, code.Category)
			continue
		}
		judged++
		for _, name := range []string{"hub", "log-non", "v1"} {
			s := shapes[name]
			spec := template(s, fmt.Sprint(code.Code, name))
			spec.ErrorCode = code.Code
			d := engineVerdict(t, s.dialect, spec.RequestID, spec)
			if d.Scenario != want {
				t.Errorf("code %d in %s: headline is %s, want %s", code.Code, name, d.Scenario, want)
			}
			outcome := detectors.OutcomeFailure
			switch {
			case code.Code == 0:
				outcome = detectors.OutcomeSuccess
			case slices.Contains(workbookInterrupts, code.Code), slices.Contains(otherInterrupts, code.Code):
				outcome = detectors.OutcomeInterrupted
			}
			if d.Outcome != outcome {
				t.Errorf("code %d in %s: outcome is %s, want %s", code.Code, name, d.Outcome, outcome)
			}
		}
	}
	if judged != len(cat.Codes()) || judged < 350 {
		t.Errorf("judged %d of %d codes", judged, len(cat.Codes()))
	}
	for code := range headlineOfCode {
		if cat.Code(code) == nil {
			t.Errorf("the catalogue lacks the code %d", code)
		}
	}
}

var (
	// workbookInterrupts are the codes of pending user action in Microsoft's workbooks about sign-in failures.
	workbookInterrupts = []int32{16000, 16001, 16003, 29200, 50019, 50055, 50058, 50059, 50072, 50074, 50076, 50097, 50125, 50127, 50129,
		50140, 50143, 50144, 50158, 51006, 52004, 65001, 81010, 81012, 81014, 165100}
	// otherInterrupts are called interrupts in the text of Microsoft's code reference, or are such by what they mean.
	otherInterrupts = []int32{50078, 50079, 50135, 50136, 50137, 50142, 50157, 50160, 50168, 50199, 50201, 50203, 50204, 50206, 51005, 70016, 70043, 70044, 90095,
		500581, 501314, 700020, 1000002, 9002341}

	headlineOfCategory = map[string]string{
		"other": "error_insight", "user_state": "error_insight", "interrupt": "interrupt", "token_session": "token_session", "b2b": "b2b_failed",
		"device": "device_state", "federation": "federation", "enterprise_app_sp": "app_service_provider", "enterprise_app_config": "app_configuration",
		"service": "service_fault", "credentials": "wrong_password", "lockout": "account_locked", "mfa": "mfa_failed", "mfa_proofup": "mfa_proofup",
		"conditional_access": "ca_failed", "risk": "risk_blocked", "seamless_sso": "sso", "pta": "pta", "consent": "consent_required",
		"security_defaults": "security_defaults",
	}
	headlineOfCode = map[int32]string{
		0:     "success",
		50034: "unknown_user", 50128: "unknown_user", 90101: "unknown_user", 90125: "unknown_user", 90126: "unknown_user",
		50055: "password_expired", 50137: "password_expired", 50144: "password_expired", 120002: "password_expired", 120003: "password_expired",
		120004: "password_expired", 120005: "password_expired", 120012: "password_expired", 120015: "password_expired",
		120018: "password_expired", 120020: "password_expired",
		50057: "account_disabled", 120014: "account_locked",
		53003: "ca_blocked", 53004: "risk_blocked", 530004: "b2b_ca_blocked",
		50074: "mfa_other", 50076: "mfa_other", 50078: "mfa_other", 50158: "ca_mfa",
		// Certificates, revocation lists, passes and methods that are not allowed are no passwords.
		50017: "error_insight", 50192: "error_insight", 70018: "error_insight", 220501: "error_insight", 130500: "error_insight",
		130501: "error_insight", 130502: "error_insight", 130503: "error_insight", 130504: "error_insight", 130505: "error_insight",
		135016: "error_insight", 500172: "error_insight", 500176: "error_insight", 500183: "error_insight",
	}
)

// TestTableProviders judges a prompt by every demander that Microsoft Graph lists (requirementProvider, beta).
func TestTableProviders(t *testing.T) {
	headlines := map[string]string{
		"user": "mfa_other", "request": "mfa_other", "servicePrincipal": "mfa_other", "tenantSessionRiskPolicy": "mfa_other",
		"accountCompromisePolicies": "mfa_other", "enforcedForCspAdmins": "mfa_other", "crossTenantOutboundRule": "mfa_other",
		"riskBasedPolicy": "mfa_other", "scopeBasedAuthRequirementPolicy": "mfa_other", "unknownFutureValue": "mfa_other", "aValueOfTheFuture": "mfa_other",
		"multiConditionalAccess": "ca_mfa", "v1ConditionalAccess": "ca_mfa", "v1ConditionalAccessDependency": "ca_mfa",
		"v1ConditionalAccessPolicyIdRequested": "ca_mfa", "authenticationStrengths": "ca_mfa", "gpsLocationCondition": "ca_mfa",
		"securityDefaults": "security_defaults", "baselineProtection": "security_defaults",
		"mfaRegistrationRequiredBySecurityDefaults": "security_defaults", "mfaRegistrationRequiredByBaselineProtection": "security_defaults",
		"mfaRegistrationRequiredByMultiConditionalAccess": "mfa_proofup", "mfaRegistrationRequiredByIdentityProtectionPolicy": "mfa_proofup",
		"mfaRegistrationRequiredByTheFuture": "mfa_proofup", "proofUpCodeRequest": "mfa_proofup",
	}
	for provider, want := range headlines {
		for _, name := range strings.Fields(full) {
			s := shapes[name]
			// The array may hold several entries: membership counts, not the place.
			spec := template(s, provider+name)
			for _, c := range record(code(50076), demanded("", provider)) {
				c(&spec)
			}
			if d := engineVerdict(t, s.dialect, spec.RequestID, spec); d.Scenario != want {
				t.Errorf("%s in %s: headline is %s, want %s", provider, name, d.Scenario, want)
			}
		}
	}
}

// TestTableLegacyClients judges a success by every client without modern authentication that Microsoft's legacy workbook and
// Graph name, and by those that are none.
func TestTableLegacyClients(t *testing.T) {
	legacy := []string{"Authenticated SMTP", "Autodiscover", "Exchange ActiveSync", "Exchange Online PowerShell", "Exchange Web Services", "IMAP4",
		"MAPI over HTTP", "Offline Address Book", "Outlook Anywhere (RPC over HTTP)", "Outlook Service", "POP3", "Reporting Web Services",
		"Universal Outlook", "Other clients", "IMAP", "POP", "SMTP", "MAPI"}
	modern := []string{"Browser", "browser", "Mobile Apps and Desktop clients", "Mobile Apps and Desktop Clients", "Unknown"}
	for i, client := range append(legacy, modern...) {
		want := "legacy_auth"
		if i >= len(legacy) {
			want = "success"
		}
		for _, name := range strings.Fields(everyUser) {
			s := shapes[name]
			spec := template(s, client+name)
			spec.ClientAppUsed = client
			if d := engineVerdict(t, s.dialect, spec.RequestID, spec); d.Scenario != want {
				t.Errorf("%s in %s: headline is %s, want %s", client, name, d.Scenario, want)
			}
		}
	}
}

// TestTableRaw judges records that no renderer makes: without a code, with the code in a text alone, with nothing at all.
func TestTableRaw(t *testing.T) {
	const who = `"createdDateTime":"2026-03-02T08:13:55Z","userPrincipalName":"ada@example.org","userId":"a0000000-0000-4000-8000-00000000000a","appDisplayName":"Payroll","ipAddress":"203.0.113.7","clientAppUsed":"Browser"`
	for _, tc := range []struct {
		name, record string
		want         verdict
		summary      string
	}{
		{"nothing but a time", `{"time":"2026-03-02T08:15:00Z","category":"SignInLogs"}`,
			verdict{headline: "error_insight", outcome: "success", severity: "info", evidence: []string{`"no_code":true`, `"empty_record":true`}, unknown: "error_code"},
			"The record holds nothing but its time and its log"},
		{"nothing but a time, as a row", `{"Category":"ServicePrincipalSignInLogs","CreatedDateTime":"2026-03-02T08:13:55Z","DurationMs":0,"OperationName":"Sign-in activity"}`,
			verdict{headline: "error_insight", outcome: "success", severity: "info", evidence: []string{`"empty_record":true`}}, "The record holds nothing but its time and its log"},
		{"no code, nothing failed", `{"time":"2026-03-02T08:15:00Z","category":"SignInLogs","properties":{"id":"r1",` + who + `}}`,
			verdict{headline: "error_insight", outcome: "success", severity: "info", evidence: []string{`"no_code":true`, "!empty_record"}, unknown: "error_code"},
			"as far as the record tells: it holds no error code"},
		{"no code, Conditional Access refused", `{"time":"2026-03-02T08:15:00Z","category":"SignInLogs","properties":{"id":"r1",` + who + `,"conditionalAccessStatus":"failure"}}`,
			verdict{headline: "error_insight", outcome: "failure", severity: "low", unknown: "error_code"}, "holds no error code"},
		{"no code, a failed step", `{"time":"2026-03-02T08:15:00Z","category":"SignInLogs","properties":{"id":"r1",` + who + `,"authenticationDetails":[{"authenticationMethod":"Password","succeeded":false}]}}`,
			verdict{headline: "error_insight", outcome: "failure", severity: "low", evidence: []string{`"password_correct":false`}}, ""},
		{"code in resultType alone", `{"time":"2026-03-02T08:15:00Z","category":"SignInLogs","resultType":"50126","properties":{"id":"r1",` + who + `}}`,
			verdict{headline: "wrong_password", outcome: "failure", severity: "low", evidence: []string{"!no_code"}}, ""},
		{"code in the text alone", `{"time":"2026-03-02T08:15:00Z","category":"SignInLogs","resultDescription":"AADSTS53003: Access has been blocked by policies.","properties":{"id":"r1",` + who + `}}`,
			verdict{headline: "ca_blocked", outcome: "failure", severity: "medium", evidence: []string{"!no_code"}, unknown: "policies_withheld"}, ""},
		{"code beside the word Failure", `{"TimeGenerated":"2026-03-02T08:15:00Z","Type":"AADNonInteractiveUserSignInLogs","Id":"r1","ResultType":"Failure","ResultSignature":"50173","UserPrincipalName":"ada@example.org","AppDisplayName":"Payroll"}`,
			verdict{headline: "token_session", outcome: "failure", severity: "info"}, ""},
		{"the word Success is no missing code", `{"TimeGenerated":"2026-03-02T08:15:00Z","Type":"AADNonInteractiveUserSignInLogs","Id":"r1","ResultType":"Success","UserPrincipalName":"ada@example.org","AppDisplayName":"Payroll"}`,
			verdict{headline: "success", outcome: "success", severity: "info", evidence: []string{"!no_code"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			runner := newRunner(t)
			feed(t, runner, []byte(tc.record), tableTime.Add(2*time.Minute))
			result := runner.Result()
			if len(result.Diagnoses) != 1 {
				t.Fatalf("%d diagnoses", len(result.Diagnoses))
			}
			d := &result.Diagnoses[0]
			tc.want.check(t, d)
			summary := string(detectors.Renderer{Catalogue: tableCatalogue(t)}.Summary(nil, d, catalogue.AllCapabilities))
			if !strings.HasPrefix(summary, tc.summary) && !strings.Contains(summary, tc.summary) {
				t.Errorf("summary reads %q, want %q in it", summary, cmp.Or(tc.summary, "anything"))
			}
		})
	}
}

// TestScenarioFiles holds that every scenario and label has a scenario file of its name.
func TestScenarioFiles(t *testing.T) {
	for _, s := range tableCatalogue(t).Scenarios() {
		file := filepath.Join("testdata", "scenarios", s.Name+".txt")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%s has no scenario file: %v", s.Name, err)
			continue
		}
		if want := regexp.MustCompile(`(?m)^expect .*\b(scenario|also)=([a-z_0-9]+,)*` + s.Name + `\b`); !want.Match(text) && !strings.Contains(string(text), " "+s.Name+" count=") {
			t.Errorf("%s expects no %s", file, s.Name)
		}
		for _, word := range []string{"dialect graph", "dialect loganalytics"} {
			if !strings.Contains(string(text), word) {
				t.Errorf("%s lacks a record in %s", file, word)
			}
		}
		if !strings.Contains(string(text), "Trap") {
			t.Errorf("%s names no trap", file)
		}
	}
}
