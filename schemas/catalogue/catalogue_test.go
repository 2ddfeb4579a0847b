package catalogue

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func mustLoad(t testing.TB) *Catalogue {
	t.Helper()
	c, err := Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return c
}

// The names are a contract: other parts, stored rows and users' files hold them.
func TestNames(t *testing.T) {
	c := mustLoad(t)
	scenarios := strings.Fields(`ca_blocked ca_failed ca_mfa b2b_ca_blocked b2b_failed mfa_other mfa_proofup mfa_failed wrong_password unknown_user
		account_locked malicious_ip_blocked account_disabled password_expired missed_interrupt app_service_provider app_configuration
		consent_required security_defaults legacy_auth risk_blocked pta sso device_state federation token_session service_fault error_insight
		interrupt success`)
	all := strings.Fields("flagged repeated_failures password_known cached_credential")
	all = append(all, scenarios...)
	for _, name := range all {
		s := c.Scenario(name)
		if s == nil {
			t.Errorf("scenario %s is missing", name)
			continue
		}
		if want := slices.Contains(scenarios, name); want != (s.Type == TypeScenario) {
			t.Errorf("%s is a %s", name, s.Type)
		}
	}
	if len(c.Scenarios()) != len(all) {
		t.Errorf("%d scenarios, want %d", len(c.Scenarios()), len(all))
	}
	incidents := strings.Fields(`password_spray distributed_spray brute_force account_lockout password_known account_takeover mfa_fatigue totp_guessing legacy_auth
		device_code principal_secret_guessing disabled_account_probe user_enumeration ca_surge app_outage pta_outage sso_outage expired_secret
		cached_credential repeated_failures`)
	for _, name := range incidents {
		if c.Incident(name) == nil {
			t.Errorf("incident kind %s is missing", name)
		}
	}
	if len(c.Incidents()) != len(incidents) {
		t.Errorf("%d incident kinds, want %d", len(c.Incidents()), len(incidents))
	}
}

func TestRanks(t *testing.T) {
	last := 0
	for _, s := range mustLoad(t).Scenarios() {
		if s.Rank <= last {
			t.Errorf("%s has rank %d after %d", s.Name, s.Rank, last)
		}
		last = s.Rank
	}
}

// The order of precedence of scenarios, as far as one record can meet several.
func TestPrecedence(t *testing.T) {
	c := mustLoad(t)
	order := strings.Fields(`security_defaults pta sso malicious_ip_blocked risk_blocked b2b_ca_blocked legacy_auth ca_blocked mfa_proofup ca_mfa
		mfa_other wrong_password app_service_provider missed_interrupt error_insight success password_known`)
	for i := 1; i < len(order); i++ {
		if c.Scenario(order[i-1]).Rank >= c.Scenario(order[i]).Rank {
			t.Errorf("%s does not rank before %s", order[i-1], order[i])
		}
	}
}

func TestCodes(t *testing.T) {
	c := mustLoad(t)
	for _, code := range c.Codes() {
		if code.Scenario == nil || code.Scenario.Type != TypeScenario {
			t.Errorf("code %d has no headline", code.Code)
		}
	}
	for code, want := range map[int32]string{
		0: "success", 50126: "wrong_password", 50034: "unknown_user", 50053: "account_locked", 50057: "account_disabled", 50055: "password_expired",
		50144: "password_expired", 50074: "mfa_other", 50158: "ca_mfa", 500121: "mfa_failed", 50072: "mfa_proofup", 53003: "ca_blocked", 53000: "ca_failed",
		53004: "risk_blocked", 53011: "risk_blocked", 530032: "risk_blocked", 530034: "risk_blocked", 530035: "security_defaults", 530004: "b2b_ca_blocked",
		50020: "b2b_failed", 65001: "consent_required", 50097: "device_state", 50140: "interrupt", 50058: "interrupt", 70043: "token_session",
		80001: "pta", 81006: "sso", 7000215: "app_service_provider", 7000222: "app_configuration", 50008: "federation", 90033: "service_fault", 90093: "error_insight",
	} {
		if got := c.Code(code); got == nil || got.Scenario.Name != want {
			t.Errorf("code %d: %+v, want %s", code, got, want)
		}
	}
	if c.Code(123456789) != nil {
		t.Error("an unknown code is known")
	}
	right := []int32{0, 50005, 50055, 50057, 50072, 50074, 50076, 50079, 50105, 50129, 50155, 50158, 53000, 53001, 53003}
	if got := c.PasswordWasRight(); !slices.Equal(got, right) {
		t.Errorf("right passwords: %v", got)
	}
	wrong := []int32{50034, 50054, 50056, 50064, 50126, 80004, 120000}
	if got := c.PasswordWasWrong(); !slices.Equal(got, wrong) {
		t.Errorf("wrong passwords: %v", got)
	}
	// Pending user action in Microsoft's sign-in failure analysis workbook.
	for _, code := range []int32{16000, 16001, 16003, 29200, 50019, 50055, 50058, 50059, 50072, 50074, 50076, 50097, 50125, 50127, 50129, 50140, 50143,
		50144, 50158, 51006, 52004, 65001, 81010, 81012, 81014, 165100} {
		if !c.Code(code).IsInterrupt() {
			t.Errorf("code %d is no interrupt", code)
		}
	}
	for _, code := range []int32{0, 50126, 50053, 53003, 500121, 50057} {
		if c.Code(code).IsInterrupt() {
			t.Errorf("code %d is an interrupt", code)
		}
	}
}

func TestFingerprint(t *testing.T) {
	c := mustLoad(t)
	same, err := Parse(files(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Fingerprint() == 0 || same.Fingerprint() != c.Fingerprint() {
		t.Errorf("fingerprints %d and %d", c.Fingerprint(), same.Fingerprint())
	}
	other, err := Parse(files(t, map[string]string{"unknowns.yaml": "+# another\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if other.Fingerprint() == c.Fingerprint() {
		t.Error("another content has the same fingerprint")
	}
}

// files returns the embedded files with changes: a value that begins with + is appended, else "old => new" is replaced.
func files(t *testing.T, changes map[string]string) fs.FS {
	t.Helper()
	out := fstest.MapFS{}
	for _, name := range Files {
		data, err := fs.ReadFile(embedded, name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if change, ok := changes[name]; ok {
			if more, isMore := strings.CutPrefix(change, "+"); isMore {
				text += more
			} else {
				old, with, ok := strings.Cut(change, " => ")
				if !ok || !strings.Contains(text, old) {
					t.Fatalf("%s does not hold %q", name, old)
				}
				text = strings.Replace(text, old, with, 1)
			}
		}
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// A broken file never loads, and the error says what is wrong and where.
func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, file, change, want string }{
		{"unknown action", "scenarios.yaml", "[pta_retry, => [no_such_action,", `pta: unknown action "no_such_action"`},
		{"unknown link", "scenarios.yaml", "links: [security_defaults, => links: [no_such_link,", `unknown link "no_such_link"`},
		{"unknown evidence", "scenarios.yaml", "evidence: [redirect_url, => evidence: [no_such_key,", `unknown evidence key "no_such_key"`},
		{"unknown code", "scenarios.yaml", "codes: [530035] => codes: [530035, 42]", "scenarios.yaml:28: security_defaults: unknown code 42"},
		{"code of two scenarios", "scenarios.yaml", "codes: [530035] => codes: [530035, 53003]", "ca_blocked: code 53003 is that of security_defaults"},
		{"category of two scenarios", "scenarios.yaml", "categories: [security_defaults] => categories: [security_defaults, pta]", "category pta is that of"},
		{"category without codes", "scenarios.yaml", "categories: [security_defaults] => categories: [security_defaults, nonsense]", "category nonsense has no code"},
		{"category without a scenario", "scenarios.yaml", "categories: [federation] => categories: []", "category federation has no scenario"},
		{"rank twice", "scenarios.yaml", "rank: 2\n => rank: 1\n", "rank 1 is that of security_defaults"},
		{"scenario twice", "scenarios.yaml", "- name: pta\n => - name: sso\n", "sso: defined twice"},
		{"misspelt field", "scenarios.yaml", "  title: Seamless => - titel: Seamless", "scenarios.yaml"},
		{"unknown field", "roles.yaml", "title: The user} => title: The user, colour: red}", `unknown field "colour"`},
		{"severity", "scenarios.yaml", "severity: {default: info} => severity: {default: dreadful}", `token_session: severity: default "dreadful": expected info`},
		{"severity without default", "scenarios.yaml", "severity: {default: info} => severity: {success: info}", "severity has no default"},
		{"outcome", "scenarios.yaml", "resolved: info, success: info} => resolvd: info, success: info}", `outcome "resolvd"`},
		{"template key", "scenarios.yaml", "because of how the application[ {app}] => because of how the application[ {apq}]", "unknown key {apq}"},
		{"template bracket", "scenarios.yaml", "signed in to {target}[ from {address}] => signed in to {target}[ from {address}", "group is not closed"},
		{"value that may be missing", "scenarios.yaml", "because of a fault of the service => because of {country}", "key {country} may be missing"},
		{"label with a summary", "scenarios.yaml", "  type: label\n  rank: 34\n =>   type: label\n  rank: 34\n  summary: {default: x}\n", "flagged: a label has no summary"},
		{"no examples", "scenarios.yaml", "  examples:\n    - \"flaggedForReview is true\" =>   examples: []", "flagged: examples are missing"},
		{"evidence twice", "evidence.yaml", "- {name: city, => - {name: country,", "country: defined twice"},
		{"evidence kind", "evidence.yaml", "{name: city, kind: text => {name: city, kind: words", `kind "words"`},
		{"evidence capability", "evidence.yaml", "{name: city, kind: text, capability: records => {name: city, kind: text, capability: all", `capability "all"`},
		{"evidence that is a field", "evidence.yaml", "+- {name: app, kind: text, capability: records, title: App}\n", "app: is the name of a record field"},
		{"unknown role", "actions.yaml", "role: nobody => role: somebody", `unknown role "somebody"`},
		{"action that nobody uses", "actions.yaml", "+- name: spare\n  role: user\n  text: Spare.\n", "spare: no scenario or incident uses it"},
		{"link that nobody uses", "links.yaml", "+- {name: spare, title: Spare, url: \"https://learn.microsoft.com/x\"}\n", "spare: no scenario or incident uses it"},
		{"link without https", "links.yaml", "url: \"https://learn.microsoft.com/en-us/entra/identity/monitoring-health/overview-flagged-sign-ins\" => url: \"http://example.org\"", "expected an https address"},
		{"link that cannot be tested", "links.yaml", "legacy authentication, when: \"{?legacy_client}\" => legacy authentication, when: \"{?legacy_clint}\"", "legacy_defaults: when: template"},
		{"link of some diagnoses in an incident", "incidents.yaml", "links: [block_legacy] => links: [legacy_defaults]", "link legacy_defaults is for some diagnoses only"},
		{"words for an unknown key", "words.yaml", "keys: [unmet_controls] => keys: [unmet_control]", `controls: unknown key "unmet_control"`},
		{"words twice for a key", "words.yaml", "keys: [unmet_controls] => keys: [unmet_controls, policies]", "controls: key policies has words already"},
		{"words for a number", "words.yaml", "keys: [unmet_controls] => keys: [autonomous_system]", "controls: key autonomous_system is neither a text nor a list"},
		{"words that differ by case", "words.yaml", "    Mfa: multi =>     mfa: something else\n    Mfa: multi", "mfa and Mfa differ in case only"},
		{"vocabulary without words", "words.yaml", "  quote: true => ", "policies: neither words nor quote"},
		{"incident with a diagnosis key", "incidents.yaml", "{entity} was locked => {who} was locked", "unknown key {who}"},
		{"incident action with a key", "incidents.yaml", "actions: [incident_lift_lock, => actions: [reset_password,", "holds a key of a diagnosis"},
		{"sentence missing", "sentences.yaml", "- name: missing_risk => - name: missing_nothing", "missing_risk: is missing"},
		{"name with a blank", "unknowns.yaml", "{name: risk, => {name: the risk,", `name "the risk"`},
		{"code twice", "codes.tsv", "16000\tInteractionRequired => 0\tInteractionRequired", "code 0: defined twice"},
		{"code that is no number", "codes.tsv", "16000\tInteractionRequired => x\tInteractionRequired", `code "x": expected a number`},
		{"columns", "codes.tsv", "16000\tInteractionRequired\t => 16000\t", "codes.tsv:3: 8 columns, expected 9"},
		{"header", "codes.tsv", "code\tsymbol => symbol\tcode", "expected the columns"},
		{"outcome kind", "codes.tsv", "interrupt\tbenign_step => interrupt\tbenign", `outcome "benign": expected failure, benign_step`},
		{"interrupt that counts", "codes.tsv", "interrupt\tbenign_step\t\t\t => interrupt\tbenign_step\t\tyes\t", "an interrupt cannot count as a failure"},
		{"link removed", "links.yaml", "- {name: sign_in_diagnostic => # {name: x", `unknown link "sign_in_diagnostic"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(files(t, map[string]string{tc.file: tc.change}))
			if err == nil {
				t.Fatal("the broken catalogue loads")
			}
			if !regexp.MustCompile(`\nschemas/catalogue/[a-z]+\.(yaml|tsv)(:\d+)?: `).MatchString(err.Error()) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %s in it", err, tc.want)
			}
		})
	}
	missing := files(t, nil).(fstest.MapFS)
	delete(missing, "roles.yaml")
	if _, err := Parse(missing); err == nil || !strings.Contains(err.Error(), "roles.yaml") {
		t.Errorf("without roles.yaml: %v", err)
	}
}
