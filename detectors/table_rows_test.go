package detectors_test

import (
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// Changes of a record.

func code(c int32) change { return func(s *synthetic.SignInSpec) { s.ErrorCode = c } }

func saying(text string) change { return func(s *synthetic.SignInSpec) { s.FailureReason = text } }

func detailed(text string) change {
	return func(s *synthetic.SignInSpec) { s.AdditionalDetails = text }
}

func by(client string) change { return func(s *synthetic.SignInSpec) { s.ClientAppUsed = client } }

func status(text string) change {
	return func(s *synthetic.SignInSpec) { s.ConditionalAccessStatus = text }
}

// demanded sets who demanded MFA.
func demanded(providers ...string) change {
	return func(s *synthetic.SignInSpec) {
		s.AuthenticationRequirement = synthetic.RequirementMultiFactor
		for _, p := range providers {
			s.RequirementPolicies = append(s.RequirementPolicies, synthetic.RequirementPolicy{Provider: p})
		}
	}
}

const anybody = schemas.ConditionApplication | schemas.ConditionUsers

// rule adds a policy: result and controls as Entra writes them, conditions beside application and users.
func rule(name, result string, conditions uint32, controls ...string) change {
	return func(s *synthetic.SignInSpec) {
		s.Policies = append(s.Policies, synthetic.Policy{ID: synthetic.NamedGUID("policy", name), DisplayName: name, Result: result,
			GrantControls: controls, Satisfied: anybody | conditions})
	}
}

// including adds a rule to the last policy.
func including(condition, satisfied string) change {
	return func(s *synthetic.SignInSpec) {
		p := &s.Policies[len(s.Policies)-1]
		p.Include = append(p.Include, synthetic.Rule{Condition: condition, Satisfied: satisfied})
	}
}

func strength(name string) change {
	return func(s *synthetic.SignInSpec) { s.Policies[len(s.Policies)-1].AuthenticationStrength = name }
}

func strengthResult(text string) change {
	return func(s *synthetic.SignInSpec) { s.AuthenticationStrengths = []string{text} }
}

func withheld(s *synthetic.SignInSpec) { s.PoliciesWithheld = true }

func risk(level, state string, events ...string) change {
	return func(s *synthetic.SignInSpec) {
		s.Risk = synthetic.Risk{LevelDuringSignIn: level, State: state, EventTypes: events}
	}
}

func guest(s *synthetic.SignInSpec) { s.UserType = "Guest" }

// visiting makes a member of another tenant who signs in here.
func visiting(s *synthetic.SignInSpec) {
	s.HomeTenantID, s.ResourceTenantID, s.CrossTenantAccessType, s.UserType = fabrikam, contoso, "b2bCollaboration", "Guest"
}

func passing(s *synthetic.SignInSpec) {
	s.HomeTenantID, s.ResourceTenantID, s.CrossTenantAccessType = contoso, fabrikam, "passthrough"
}

func step(method, requirement, result string, succeeded bool) change {
	return func(s *synthetic.SignInSpec) {
		tri := schemas.Tri_TRI_FALSE
		if succeeded {
			tri = schemas.Tri_TRI_TRUE
		}
		s.Steps = append(s.Steps, synthetic.Step{Method: method, Requirement: requirement, ResultDetail: result, Succeeded: tri})
	}
}

func password(s *synthetic.SignInSpec) { step("Password", "", "Correct password", true)(s) }

func second(method, result string, succeeded bool) change {
	return step(method, synthetic.StepMultiFactor, result, succeeded)
}

func compliant(v schemas.Tri) change {
	return func(s *synthetic.SignInSpec) { s.Device.IsCompliant = v }
}

func laptop(s *synthetic.SignInSpec) {
	s.Device.ID, s.Device.DisplayName, s.Device.TrustType = "e0000000-0000-4000-8000-00000000000e", "LAPTOP-7", "Azure AD joined"
}

func from(address string) change { return func(s *synthetic.SignInSpec) { s.Address = address } }

func protocol(name string) change {
	return func(s *synthetic.SignInSpec) { s.AuthenticationProtocol = name }
}

func redeeming(token string) change {
	return func(s *synthetic.SignInSpec) { s.IncomingTokenType = token }
}

func flagged(s *synthetic.SignInSpec) { s.FlaggedForReview = true }

func nobody(s *synthetic.SignInSpec) {
	s.UserID, s.UserPrincipalName, s.UserDisplayName = "00000000-0000-0000-0000-000000000000", "", ""
}

func upn(name string) change { return func(s *synthetic.SignInSpec) { s.UserPrincipalName = name } }

func app(name string) change { return func(s *synthetic.SignInSpec) { s.AppDisplayName = name } }

func resource(id string) change { return func(s *synthetic.SignInSpec) { s.ResourceID = id } }

func issuer(name string) change { return func(s *synthetic.SignInSpec) { s.TokenIssuerType = name } }

func redirect(url string) change { return func(s *synthetic.SignInSpec) { s.RedirectURL = url } }

func methods(names ...string) change {
	return func(s *synthetic.SignInSpec) { s.AuthenticationMethodsUsed = names }
}

func processing(key, value string) change {
	return func(s *synthetic.SignInSpec) {
		s.ProcessingDetails = append(s.ProcessingDetails, synthetic.KeyValue{Key: key, Value: value})
	}
}

func record(changes ...change) []change { return changes }

// Neighbours of a record.

// as turns a neighbour into a failure, interrupt or success with nothing else of the record that is judged but who, where and with what.
func as(c int32) func(int, *synthetic.SignInSpec) {
	return func(_ int, s *synthetic.SignInSpec) { plain(s, c) }
}

func plain(s *synthetic.SignInSpec, c int32) {
	s.ErrorCode, s.FailureReason, s.AdditionalDetails, s.Policies, s.ConditionalAccessStatus, s.Steps = c, "", "", nil, "", nil
	s.RequirementPolicies, s.AuthenticationRequirement, s.FlaggedForReview = nil, "", false
}

// before are n records in front of the one that is judged, evenly spaced up to it.
func before(n int, every time.Duration, c func(int, *synthetic.SignInSpec)) neighbours {
	return neighbours{n: n, first: -time.Duration(n) * every, every: every, change: c}
}

// then is a success of the same attempt some seconds later.
var then = []neighbours{{n: 1, first: 12 * time.Second, attempt: true, change: as(0)}}

func around(n ...neighbours) []neighbours { return n }

// fromEach gives the i-th neighbour the i-th of the addresses, in turn.
func fromEach(c int32, addresses ...string) func(int, *synthetic.SignInSpec) {
	return func(i int, s *synthetic.SignInSpec) { plain(s, c); s.Address = addresses[i%len(addresses)] }
}

// irregular puts the i-th neighbour at a time that no machine would choose.
func irregular(c int32) func(int, *synthetic.SignInSpec) {
	return func(i int, s *synthetic.SignInSpec) {
		plain(s, c)
		s.Time = s.Time.Add(time.Duration(i*i*37%211) * time.Second)
	}
}

// Verdicts.

func failed(headline, also, severity string) verdict {
	return verdict{headline: headline, also: also, outcome: detectors.OutcomeFailure, severity: severity}
}

func interrupted(headline, also, severity string) verdict {
	return verdict{headline: headline, also: also, outcome: detectors.OutcomeInterrupted, severity: severity}
}

func resolved(headline, also, severity string) verdict {
	return verdict{headline: headline, also: also, outcome: detectors.OutcomeResolved, severity: severity}
}

func succeeded(headline, also, severity string) verdict {
	return verdict{headline: headline, also: also, outcome: detectors.OutcomeSuccess, severity: severity}
}

func (w verdict) with(evidence ...string) verdict {
	w.evidence = append(w.evidence, evidence...)
	return w
}

func (w verdict) not(known ...string) verdict {
	w.unknown = strings.Join(append(strings.Fields(w.unknown), known...), " ")
	return w
}

const (
	lockedText   = "The account is locked, you've tried to sign in too many times with an incorrect user ID or password."
	addressText  = synthetic.MaliciousAddressText
	refreshToken = "refreshToken"
)

// table holds the rows by group. The comment of a group says why its severities are what an operator would agree with.
var table = []struct {
	name string
	rows []row
}{
	{"success", []row{
		// Nothing to do: info. High risk is the exception, since Entra holds the person for an attacker: low where MFA was passed (somebody should
		// look at it some day), medium where nothing tells whether it was.
		{name: "plain success", shapes: everyUser, want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "success of a workload", shapes: workloads + " " + managed, want: succeeded("success", "", "info").with(`"service_principal":"nightly-export"`, "!risk_level"), trapOf: "risk_blocked"},
		{name: "success through AD FS", shapes: adfs, want: succeeded("success", "", "info").not("risk", "location"), trapOf: "legacy_auth"},
		{name: "success with MFA by Conditional Access", shapes: full, record: record(demanded("multiConditionalAccess"), rule("Require MFA", "success", 0, "Mfa"), password,
			second("Mobile app notification", "MFA completed in Azure AD", true)), want: succeeded("success", "ca_mfa", "info").
			with(`"mfa_satisfied":true`, `"mfa_demanded_by":["multiConditionalAccess"]`, `"mfa_policies":["Require MFA"]`), trapOf: "mfa_failed"},
		{name: "success with MFA, spelled for Entra ID", shapes: full, record: record(demanded("user"), password,
			step("Previously satisfied", "Multi-factor authentication", "MFA requirement satisfied by claim in the token (Microsoft Entra ID)", true)),
			want: succeeded("success", "mfa_other", "info").with(`"mfa_satisfied":true`), trapOf: "ca_mfa"},
		{name: "success, MFA skipped on a remembered device", shapes: full, record: record(demanded("v1ConditionalAccess"), detailed("MFA requirement skipped due to remembered device")),
			want: succeeded("success", "ca_mfa", "info").with(`"mfa_satisfied":true`), trapOf: "missed_interrupt"},
		{name: "success and a policy judged for another action", shapes: full, record: record(status("success"), rule("Register from the office", "failure", 0, "Block", "Mfa")),
			want: succeeded("success", "", "info").with("!policies", "!mfa_policies"), trapOf: "ca_blocked"},
		{name: "single factor is no flood of missed interrupts", shapes: all, record: record(password), want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "success at hidden risk", shapes: all, record: record(risk("hidden", "hidden")), want: succeeded("success", "", "info").with("!risk_level").not("risk"), trapOf: "risk_blocked"},
		{name: "success at high risk with MFA", shapes: all, record: record(risk("high", "atRisk"), detailed("MFA completed in Azure AD")),
			want: succeeded("success", "", "low").with(`"risk_level":"high"`), trapOf: "missed_interrupt"},
		{name: "success at high risk, remediated by MFA", shapes: all, record: record(risk("high", "remediated")), want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "success at high risk, the policy's MFA met", shapes: all, record: record(risk("high", "atRisk"), rule("Require MFA", "success", 0, "Mfa")),
			want: succeeded("success", "ca_mfa", "low"), trapOf: "missed_interrupt"},
		{name: "token at high risk, steps unknown", shapes: unattended, record: record(risk("high", "atRisk", "anomalousToken"), redeeming(refreshToken)),
			want: succeeded("success", "", "medium").with(`"risk_events":["anomalousToken"]`), trapOf: "missed_interrupt"},
		{name: "risk that was found later", shapes: all, record: record(func(s *synthetic.SignInSpec) {
			s.Risk = synthetic.Risk{LevelDuringSignIn: "none", LevelAggregated: "high", State: "atRisk", EventTypes: []string{"attackerinTheMiddle"}}
		}), want: succeeded("success", "", "medium").with(`"risk_level_aggregated":"high"`, "!risk_level"), trapOf: "missed_interrupt"},
		{name: "risk that was found later and dismissed", shapes: all, record: record(func(s *synthetic.SignInSpec) {
			s.Risk = synthetic.Risk{LevelDuringSignIn: "none", LevelAggregated: "high", State: "dismissed"}
		}), want: succeeded("success", "", "info"), trapOf: "risk_blocked"},
		{name: "passed through to another tenant", shapes: full, record: record(passing), want: succeeded("success", "", "info").not("passthrough"), trapOf: "b2b_failed"},
		{name: "success of a local guest", shapes: full, record: record(guest), want: succeeded("success", "", "info"), trapOf: "b2b_ca_blocked"},
		{name: "risk is no flag", shapes: full, record: record(risk("medium", "atRisk")), want: succeeded("success", "", "info"), trapOf: "flagged"},
		{name: "a refusal is no success", shapes: all, record: record(code(50126)), want: failed("wrong_password", "", "low").with(`"assessment":"unclear"`), trapOf: "success"},
	}},
	{"missed interrupt", []row{
		// A gap to close at leisure: low. High risk without MFA is somebody inside: high.
		{name: "report-only would have blocked", shapes: all, record: record(rule("Block countries", "reportOnlyFailure", schemas.ConditionLocation, "Block")),
			want: succeeded("missed_interrupt", "", "low").with(`"report_only_policies":["Block countries"]`), trapOf: "ca_blocked"},
		{name: "report-only would have asked", shapes: all, record: record(rule("MFA for all", "reportOnlyInterrupted", 0, "Mfa")), want: succeeded("missed_interrupt", "", "low"), trapOf: "ca_mfa"},
		{name: "high risk without MFA", shapes: all, record: record(risk("high", "atRisk")), want: succeeded("missed_interrupt", "", "high").with(`"risk_level":"high"`), trapOf: "risk_blocked"},
		{name: "report-only would have passed", shapes: all, record: record(rule("MFA for all", "reportOnlySuccess", 0, "Mfa")), want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "report-only at a token refresh", shapes: unattended, record: record(rule("Block countries", "reportOnlyFailure", 0, "Block")), want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "report-only at Windows sign-in", shapes: all, record: record(app("Windows Sign In"), rule("MFA for all", "reportOnlyInterrupted", 0, "Mfa")), want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "report-only at Microsoft Graph", shapes: all, record: record(resource("00000003-0000-0000-c000-000000000000"), rule("MFA for all", "reportOnlyInterrupted", 0, "Mfa")),
			want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "report-only with Windows Hello", shapes: full, record: record(step("Windows Hello for Business", "", "", true), rule("MFA for all", "reportOnlyInterrupted", 0, "Mfa")),
			want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "report-only of directory synchronisation", shapes: all, record: record(upn("sync_dc1_0a1b2c@contoso.onmicrosoft.com"), rule("MFA for all", "reportOnlyInterrupted", 0, "Mfa")),
			want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "report-only at another tenant", shapes: full, record: record(visiting, rule("MFA for all", "reportOnlyInterrupted", 0, "Mfa")), want: succeeded("success", "", "info"), trapOf: "missed_interrupt"},
		{name: "high risk with a passkey", shapes: full, record: record(risk("high", "atRisk"), step("Passkey (device-bound)", "", "", true)), want: succeeded("success", "", "low"), trapOf: "missed_interrupt"},
	}},
	{"Conditional Access blocks", []row{
		// Somebody with the right password was stopped: medium, since it is either an attacker or a colleague who cannot work. A token refresh repeats it by itself: low.
		{name: "blocked for the place", shapes: full, record: record(code(53003), password, rule("Block countries", "failure", schemas.ConditionLocation, "Block"), rule("Other", "notApplied", 0, "Mfa")),
			want: failed("ca_blocked", "", "medium").with(`"policies":["Block countries"]`, `"matched_conditions":["application","users","location"]`, `"password_correct":true`).not("!policy", "!policies_withheld"), trapOf: "ca_failed"},
		{name: "blocked, conditions not told", shapes: "v1", record: record(code(53003), rule("Block countries", "failure", 0, "Block")),
			want: failed("ca_blocked", "", "medium").with(`"policies":["Block countries"]`).not("policy_conditions"), trapOf: "ca_failed"},
		{name: "blocked, list withheld", shapes: all, record: record(code(53003), status("failure"), withheld), want: failed("ca_blocked", "", "medium").with("!policies").not("policies_withheld", "!policy"), trapOf: "ca_failed"},
		{name: "blocked, list empty", shapes: all, record: record(code(53003), status("failure")), want: failed("ca_blocked", "", "medium").with("!policies").not("policy", "!policies_withheld"), trapOf: "risk_blocked"},
		{name: "report-only never blocks", shapes: all, record: record(code(53003), status("failure"), rule("Trial", "reportOnlyFailure", 0, "Block")), want: failed("ca_blocked", "", "medium").with("!policies").not("policy"), trapOf: "missed_interrupt"},
		{name: "blocked at every refresh", shapes: unattended, record: record(code(53003), redeeming(refreshToken), rule("Block countries", "failure", schemas.ConditionLocation, "Block")),
			want: failed("ca_blocked", "", "low").with("!password_correct"), trapOf: "password_known"},
		{name: "service principal blocked", shapes: workloads, record: record(code(53003), rule("Block workloads", "failure", schemas.ConditionServicePrincipals, "Block")),
			want: failed("ca_blocked", "", "medium").with(`"service_principal":"nightly-export"`), trapOf: "risk_blocked"},
		{name: "managed identity blocked", shapes: managed, record: record(code(53003), status("failure"), rule("Block workloads", "failure", 0, "Block")),
			want: failed("ca_blocked", "", "medium").with("!risk_level"), trapOf: "risk_blocked"},
		{name: "Block and a control", shapes: full, record: record(code(53003), rule("Block countries", "failure", schemas.ConditionLocation, "Block"), rule("Devices", "failure", 0, "RequireCompliantDevice")),
			want: failed("ca_blocked", "ca_failed", "medium"), trapOf: "device_state"},
		{name: "blocked with a passkey", shapes: full, record: record(code(53003), step("FIDO2 security key", "", "", true), rule("Block countries", "failure", schemas.ConditionLocation, "Block")),
			want: failed("ca_blocked", "", "medium").with("!password_correct"), trapOf: "password_known"},
		{name: "seven Block policies fail beside a device check", shapes: full, record: record(code(50097), status("success"), rule("Register A", "failure", 0, "Block"), rule("Register B", "failure", 0, "Block")),
			want: interrupted("device_state", "", "info").with("!policies"), trapOf: "ca_blocked"},
		{name: "a control, not Block", shapes: full, record: record(code(53003), rule("Devices", "failure", 0, "RequireCompliantDevice")),
			want: failed("ca_failed", "", "medium").with(`"unmet_controls":["RequireCompliantDevice"]`).not("device_state"), trapOf: "ca_blocked"},
	}},
	{"Conditional Access requirements", []row{
		// As for a block: medium, low at a token refresh.
		{name: "device not compliant", shapes: all, record: record(code(53000), laptop, compliant(schemas.Tri_TRI_FALSE), rule("Devices", "failure", 0, "RequireCompliantDevice")),
			want: failed("ca_failed", "", "medium").with(`"device_compliant":false`, `"device":"LAPTOP-7"`).not("!device_state"), trapOf: "device_state"},
		{name: "an absent isCompliant is unknown", shapes: "hub log", record: record(code(53000), rule("Devices", "failure", 0, "RequireCompliantDevice")),
			want: failed("ca_failed", "", "medium").with("!device_compliant").not("device_state"), trapOf: "device_state"},
		{name: "Graph's false of an unknown device is unknown", shapes: "beta v1", record: record(code(53001), rule("Devices", "failure", 0, "RequireDomainJoinedDevice")),
			want: failed("ca_failed", "", "medium").with("!device_compliant", "!device_managed").not("device_state"), trapOf: "device_state"},
		{name: "device not joined", shapes: all, record: record(code(53001), status("failure")), want: failed("ca_failed", "", "medium").not("policy"), trapOf: "ca_blocked"},
		{name: "application not approved", shapes: all, record: record(code(53002), status("failure")), want: failed("ca_failed", "", "medium"), trapOf: "app_configuration"},
		{name: "application not approved, older code", shapes: all, record: record(code(530021), status("failure")), want: failed("ca_failed", "", "medium"), trapOf: "app_configuration"},
		{name: "application without protection", shapes: all, record: record(code(53009), status("failure")), want: failed("ca_failed", "", "medium"), trapOf: "app_service_provider"},
		{name: "browser cannot show the device", shapes: all, record: record(code(530001), status("failure")), want: failed("ca_failed", "", "medium").not("device_state"), trapOf: "device_state"},
		{name: "device flow cannot show the device", shapes: full, record: record(code(530033), status("failure"), protocol("deviceCode")),
			want: failed("ca_failed", "", "medium").with(`"authentication_protocol":"deviceCode"`).not("device_state"), trapOf: "device_state"},
		{name: "platform not supported", shapes: all, record: record(code(50005), status("failure")), want: failed("ca_failed", "", "medium"), trapOf: "device_state"},
		{name: "collective refusal", shapes: all, record: record(code(50131), status("failure")), want: failed("ca_failed", "", "medium"), trapOf: "ca_blocked"},
		{name: "terms of use not accepted", shapes: full, record: record(code(53003), rule("Terms", "failure", 0, "Contoso terms of use")),
			want: failed("ca_failed", "", "medium").with(`"unmet_controls":["Contoso terms of use"]`).not("!device_state"), trapOf: "ca_blocked"},
		{name: "authentication strength not met", shapes: full, record: record(code(53003), rule("Passkeys for admins", "failure", 0), strength("Phishing-resistant MFA")),
			want: failed("ca_failed", "", "medium").with(`"authentication_strength":"Phishing-resistant MFA"`), trapOf: "ca_blocked"},
		{name: "external control broken", shapes: all, record: record(code(50161)), want: failed("ca_failed", "", "medium"), trapOf: "federation"},
		{name: "device not compliant at a refresh", shapes: unattended, record: record(code(53000), redeeming("primaryRefreshToken"), status("failure")),
			want: failed("ca_failed", "", "low").with("!password_correct"), trapOf: "token_session"},
		{name: "a compliant device was asked for because of risk", shapes: full, record: record(code(53000), laptop, rule("Risky: compliant device", "failure", schemas.ConditionSignInRisk, "RequireCompliantDevice")),
			want: failed("ca_failed", "risk_blocked", "medium"), trapOf: "ca_blocked"},
		{name: "device must register first", shapes: all, record: record(code(50129), status("failure")), want: interrupted("device_state", "", "info"), trapOf: "ca_failed"},
		{name: "broker must be installed", shapes: all, record: record(code(50127), status("failure")), want: interrupted("device_state", "", "info"), trapOf: "ca_failed"},
	}},
	{"risk", []row{
		// medium; high where the account is in doubt (user risk) or the risk of the sign-in is high. A change of the password that was made, leaves low: somebody should look at the cause.
		{name: "risk of the sign-in", shapes: full, record: record(code(53003), risk("medium", "atRisk"), rule("Block risk", "failure", schemas.ConditionSignInRisk, "Block")),
			want: failed("risk_blocked", "ca_blocked", "medium").with(`"risk_level":"medium"`, `"policies":["Block risk"]`, "!risk_user"), trapOf: "flagged"},
		{name: "risk of the user", shapes: full, record: record(code(53003), rule("Block risky users", "failure", schemas.ConditionUserRisk, "Block")),
			want: failed("risk_blocked", "ca_blocked", "high").with(`"risk_user":true`).not("risk_level"), trapOf: "b2b_ca_blocked"},
		{name: "risk level, conditions not told", shapes: "v1", record: record(code(53003), risk("medium", "atRisk"), rule("Block", "failure", 0, "Block")),
			want: failed("risk_blocked", "ca_blocked", "medium").not("policy_conditions"), trapOf: "flagged"},
		{name: "high risk, list withheld", shapes: all, record: record(code(53003), status("failure"), withheld, risk("high", "atRisk")),
			want: failed("risk_blocked", "ca_blocked", "high").not("policies_withheld"), trapOf: "ca_failed"},
		{name: "a risk policy demanded it", shapes: full, record: record(code(53003), status("failure"), demanded("riskBasedPolicy")),
			want: failed("risk_blocked", "ca_blocked", "medium").with(`"mfa_demanded_by_risk":["riskBasedPolicy"]`, "!mfa_demanded_by"), trapOf: "mfa_other"},
		{name: "security policy of the tenant", shapes: all, record: record(code(530032), status("failure")), want: failed("risk_blocked", "", "high").not("risk_level"), trapOf: "ca_blocked"},
		{name: "registration refused for risk", shapes: all, record: record(code(53004)), want: failed("risk_blocked", "mfa_proofup", "medium"), trapOf: "mfa_other"},
		{name: "risk in the home tenant", shapes: full, record: record(code(53011), visiting), want: failed("risk_blocked", "b2b_failed", "high").with(`"home_tenant":"` + fabrikam + `"`).not("!risk_level"), trapOf: "b2b_ca_blocked"},
		{name: "partner's administrator at risk", shapes: full, record: record(code(530034), visiting), want: failed("risk_blocked", "b2b_failed", "high"), trapOf: "b2b_ca_blocked"},
		{name: "password must be changed for risk", shapes: full, record: record(code(50142), demanded("riskBasedPolicy")), want: interrupted("risk_blocked", "", "high").with(`"mfa_demanded_by_risk":["riskBasedPolicy"]`), trapOf: "password_expired"},
		{name: "password must be changed, legacy policy", shapes: full, record: record(code(50135), demanded("accountCompromisePolicies")), want: interrupted("risk_blocked", "", "high"), trapOf: "password_expired"},
		{name: "password was changed for risk", shapes: all, record: record(code(50142)), around: then, want: resolved("risk_blocked", "", "low"), trapOf: "password_expired"},
		{name: "collective refusal with a risk condition", shapes: full, record: record(code(50131), rule("Risk", "failure", schemas.ConditionSignInRisk, "Block")),
			want: failed("risk_blocked", "ca_failed", "medium"), trapOf: "ca_blocked"},
		{name: "service principal at risk", shapes: workloads, record: record(code(53003), risk("high", "atRisk", "suspiciousAPITraffic"), rule("Block risky workloads", "failure", schemas.ConditionServicePrincipalRisk, "Block")),
			want: failed("risk_blocked", "ca_blocked", "high").with(`"risk_level":"high"`, "!risk_user"), trapOf: "ca_failed"},
		{name: "low of a workload means nothing", shapes: workloads + " " + managed, record: record(code(53003), status("failure"), risk("low", "none")), want: failed("ca_blocked", "", "medium").with("!risk_level", "!risk_state"), trapOf: "risk_blocked"},
		{name: "hidden risk is not risk", shapes: all, record: record(code(53003), risk("hidden", "hidden"), rule("Block countries", "failure", schemas.ConditionLocation, "Block")),
			want: failed("ca_blocked", "", "medium").with("!risk_level").not("risk"), trapOf: "risk_blocked"},
		{name: "a risky person blocked for the place", shapes: full, record: record(code(53003), risk("low", "atRisk"), rule("Block countries", "failure", schemas.ConditionLocation, "Block")),
			want: failed("ca_blocked", "", "medium"), trapOf: "risk_blocked"},
		{name: "guest blocked for risk", shapes: full, record: record(code(53003), visiting, risk("high", "atRisk"), rule("Block risk", "failure", schemas.ConditionSignInRisk, "Block")),
			want: failed("risk_blocked", "b2b_ca_blocked ca_blocked", "high"), trapOf: "ca_failed"},
	}},
	{"external users", []row{
		// Stopped by a policy: medium as for everybody. An invitation or a tenant's setting is a request for access: low, info while the person can still choose another account.
		{name: "guest blocked", shapes: full, record: record(code(53003), visiting, rule("Block guests", "failure", 0, "Block")), want: failed("b2b_ca_blocked", "ca_blocked", "medium").
			with(`"home_tenant":"`+fabrikam+`"`, `"resource_tenant":"`+contoso+`"`, `"cross_tenant_access":"b2bCollaboration"`), trapOf: "b2b_failed"},
		{name: "guest's device", shapes: full, record: record(code(53000), visiting, rule("Devices", "failure", 0, "RequireCompliantDevice")), want: failed("b2b_ca_blocked", "ca_failed", "medium"), trapOf: "ca_blocked"},
		{name: "device claims not accepted", shapes: all, record: record(code(530004)), want: failed("b2b_ca_blocked", "", "medium"), trapOf: "b2b_failed"},
		{name: "guest by name alone", shapes: all, record: record(code(53001), upn("bela_fabrikam.example#EXT#@example.org"), status("failure")), want: failed("b2b_ca_blocked", "ca_failed", "medium"), trapOf: "b2b_failed"},
		{name: "local guest blocked", shapes: full, record: record(code(53003), guest, rule("Block guests", "failure", 0, "Block"), including("users", "internalGuest")),
			want: failed("b2b_ca_blocked", "ca_blocked", "medium").with(`"home_tenant":"` + contoso + `"`).not("!tenants"), trapOf: "b2b_failed"},
		{name: "direct connect user by the policy's rule", shapes: full, record: record(code(50131), rule("Direct connect", "failure", 0, "Mfa"), including("users", "b2bDirectConnectUser")),
			want: failed("b2b_ca_blocked", "ca_failed", "medium"), trapOf: "risk_blocked"},
		{name: "member blocked", shapes: full, record: record(code(53003), rule("Block", "failure", schemas.ConditionLocation, "Block")), want: failed("ca_blocked", "", "medium"), trapOf: "b2b_ca_blocked"},
		{name: "guest with a wrong password", shapes: full, record: record(code(50126), visiting), want: failed("wrong_password", "", "low"), trapOf: "b2b_ca_blocked"},
		{name: "not invited", shapes: all, record: record(code(50020)), want: failed("b2b_failed", "", "low"), trapOf: "unknown_user"},
		{name: "home tenant's outbound policy", shapes: all, record: record(code(500212)), want: failed("b2b_failed", "", "low"), trapOf: "b2b_ca_blocked"},
		{name: "resource tenant's inbound policy", shapes: all, record: record(code(500213)), want: failed("b2b_failed", "", "low"), trapOf: "b2b_ca_blocked"},
		{name: "invitation not redeemed", shapes: all, record: record(code(50014)), want: failed("b2b_failed", "", "low"), trapOf: "consent_required"},
		{name: "tenant restrictions", shapes: all, record: record(code(500021)), want: failed("b2b_failed", "", "low"), trapOf: "ca_blocked"},
		{name: "account missing in the tenant, MFA impossible", shapes: all, record: record(code(90072)), want: failed("b2b_failed", "", "low"), trapOf: "mfa_failed"},
		{name: "session control for who passes through", shapes: full, record: record(code(50178), passing), want: failed("b2b_failed", "", "low").not("passthrough"), trapOf: "ca_failed"},
		{name: "another account has to be chosen", shapes: all, record: record(code(16003)), want: interrupted("b2b_failed", "", "info"), trapOf: "interrupt"},
		{name: "another account was chosen", shapes: all, record: record(code(16003)), around: then, want: resolved("b2b_failed", "", "info"), trapOf: "interrupt"},
		{name: "guest disabled", shapes: full, record: record(code(500571), visiting), want: failed("b2b_failed", "account_disabled", "low"), trapOf: "b2b_ca_blocked"},
		{name: "unknown name of a foreign tenant", shapes: full, record: record(code(50034), visiting), want: failed("b2b_failed", "unknown_user", "low"), trapOf: "wrong_password"},
		{name: "unknown name with a guest's type only", shapes: full, record: record(code(50034), guest), want: failed("unknown_user", "", "low"), trapOf: "b2b_failed"},
	}},
	{"legacy authentication", []row{
		// A client that cannot do MFA and got in, or still tries: medium, a matter for this week. A wrong password over it stays what it is.
		{name: "legacy client got in", shapes: all, record: record(by("IMAP4")), want: succeeded("legacy_auth", "missed_interrupt", "medium").with(`"legacy_client":"IMAP4"`), trapOf: "ca_mfa"},
		{name: "legacy client got in without anybody", shapes: unattended, record: record(by("Exchange Web Services")), want: succeeded("legacy_auth", "missed_interrupt", "medium"), trapOf: "cached_credential"},
		{name: "ActiveSync got in, as the log says", shapes: all, record: record(by("Exchange ActiveSync")), want: succeeded("legacy_auth", "missed_interrupt", "medium").with("!legacy_blocked").not("active_sync_result"), trapOf: "ca_blocked"},
		{name: "ActiveSync was refused, whatever the log says", shapes: all, record: record(by("Exchange ActiveSync"), rule("Block old mail", "failure", schemas.ConditionClientType, "Block")),
			want: succeeded("legacy_auth", "", "medium").with(`"legacy_blocked":true`, `"policies":["Block old mail"]`).not("active_sync_result"), trapOf: "missed_interrupt"},
		{name: "blocked for the client", shapes: full, record: record(code(53003), by("Other clients"), rule("Block old mail", "failure", schemas.ConditionClientType, "Block")),
			want: failed("legacy_auth", "ca_blocked", "medium").with(`"legacy_blocked":true`), trapOf: "ca_failed"},
		{name: "a legacy client cannot do MFA", shapes: all, record: record(code(53003), by("Authenticated SMTP"), rule("MFA for all", "failure", 0, "Mfa")), want: failed("legacy_auth", "ca_failed", "medium"), trapOf: "ca_blocked"},
		{name: "a legacy client was asked for MFA", shapes: full, record: record(code(50076), by("POP3"), demanded("multiConditionalAccess")), want: interrupted("legacy_auth", "ca_mfa", "medium"), trapOf: "mfa_failed"},
		{name: "a legacy client blocked for its place", shapes: full, record: record(code(53003), by("POP3"), rule("Block countries", "failure", schemas.ConditionLocation, "Block")),
			want: failed("ca_blocked", "legacy_auth", "medium"), trapOf: "missed_interrupt"},
		{name: "wrong password over IMAP", shapes: all, record: record(code(50126), by("IMAP4")), want: failed("wrong_password", "legacy_auth", "low"), trapOf: "ca_blocked"},
		{name: "a modern client", shapes: all, record: record(by("Mobile Apps and Desktop clients")), want: succeeded("success", "", "info"), trapOf: "legacy_auth"},
		{name: "legacy TLS is not legacy authentication", shapes: full, record: record(processing("Legacy TLS (TLS 1.0, 1.1, 3DES)", "True")), want: succeeded("success", "", "info"), trapOf: "legacy_auth"},
		{name: "AD FS names no client", shapes: adfs, record: record(code(50126)), want: failed("wrong_password", "", "low").not("client_app"), trapOf: "legacy_auth"},
		{name: "a browser blocked by client type", shapes: full, record: record(code(53003), rule("Block browsers", "failure", schemas.ConditionClientType, "Block")), want: failed("ca_blocked", "", "medium"), trapOf: "legacy_auth"},
	}},
	{"security defaults", []row{
		// Refused: medium. A prompt or registration waits for the person: low, and info when done.
		{name: "refused by security defaults", shapes: all, record: record(code(530035)), want: failed("security_defaults", "", "medium"), trapOf: "ca_blocked"},
		{name: "legacy client refused by security defaults", shapes: all, record: record(code(530035), by("IMAP4")), want: failed("security_defaults", "legacy_auth", "medium"), trapOf: "ca_blocked"},
		{name: "registration by security defaults", shapes: full, record: record(code(50072), demanded("mfaRegistrationRequiredBySecurityDefaults")), want: interrupted("security_defaults", "mfa_proofup", "low"), trapOf: "ca_mfa"},
		{name: "prompt by baseline protection", shapes: full, record: record(code(50076), demanded("baselineProtection")), want: interrupted("security_defaults", "", "low"), trapOf: "mfa_other"},
		{name: "registration by security defaults done", shapes: full, record: record(code(50072), demanded("mfaRegistrationRequiredBySecurityDefaults")), around: then, want: resolved("security_defaults", "mfa_proofup", "info"), trapOf: "ca_mfa"},
		{name: "success in the period of grace", shapes: full, record: record(demanded("mfaRegistrationRequiredBySecurityDefaults")), want: succeeded("success", "security_defaults mfa_proofup", "info"), trapOf: "missed_interrupt"},
		{name: "challenge of security defaults failed", shapes: full, record: record(code(500121), demanded("securityDefaults")), want: failed("mfa_failed", "security_defaults", "low"), trapOf: "mfa_other"},
		{name: "registration of security defaults from a forbidden place", shapes: full, record: record(code(53010), demanded("mfaRegistrationRequiredBySecurityDefaults")), want: failed("mfa_proofup", "security_defaults", "medium"), trapOf: "risk_blocked"},
		{name: "prompt by Conditional Access is not by security defaults", shapes: full, record: record(code(50076), demanded("multiConditionalAccess"), status("failure")), want: interrupted("ca_mfa", "", "low"), trapOf: "security_defaults"},
	}},
	{"MFA demanded by Conditional Access", []row{
		// A prompt without an end so far may be a person who went away, or an attacker who cannot go on: low; info when done.
		{name: "prompt by a policy", shapes: all, record: record(code(50074), rule("Require MFA", "failure", 0, "Mfa")), want: interrupted("ca_mfa", "", "low").with(`"mfa_policies":["Require MFA"]`), trapOf: "ca_failed"},
		{name: "prompt whose policy was interrupted", shapes: all, record: record(code(50074), rule("Require MFA", "interrupted", 0, "Mfa")), want: interrupted("ca_mfa", "", "low").not("!mfa_demander"), trapOf: "mfa_other"},
		{name: "prompt told by the status alone", shapes: all, record: record(code(50076), status("failure")), want: interrupted("ca_mfa", "", "low").not("policy"), trapOf: "mfa_other"},
		{name: "prompt for a strength", shapes: full, record: record(code(50074), demanded("authenticationStrengths"), rule("Passkeys", "failure", 0), strength("Phishing-resistant MFA")),
			want: interrupted("ca_mfa", "", "low").with(`"authentication_strength":"Phishing-resistant MFA"`), trapOf: "mfa_proofup"},
		{name: "prompt by two, Conditional Access second", shapes: full, record: record(code(50076), demanded("user", "v1ConditionalAccess")), want: interrupted("ca_mfa", "", "low"), trapOf: "mfa_other"},
		{name: "older proof of MFA expired", shapes: full, record: record(code(50078), demanded("multiConditionalAccess")), want: interrupted("ca_mfa", "", "low"), trapOf: "token_session"},
		{name: "external step", shapes: all, record: record(code(50158), rule("Custom MFA", "failure", 0, "Contoso MFA")), want: interrupted("ca_mfa", "", "low"), trapOf: "federation"},
		{name: "prompt answered", shapes: all, record: record(code(50074), rule("Require MFA", "failure", 0, "Mfa")), around: then, want: resolved("ca_mfa", "", "info"), trapOf: "mfa_failed"},
		{name: "prompt without anybody", shapes: unattended, record: record(code(50076), demanded("multiConditionalAccess"), status("failure")), want: interrupted("ca_mfa", "", "low"), trapOf: "mfa_failed"},
		{name: "prompt at high risk", shapes: full, record: record(code(50076), demanded("multiConditionalAccess"), risk("high", "atRisk")), want: interrupted("ca_mfa", "", "medium"), trapOf: "risk_blocked"},
		{name: "a policy judged for another action demands nothing", shapes: all, record: record(code(50076), status("success"), rule("Register from the office", "failure", 0, "Mfa")),
			want: interrupted("mfa_other", "", "low").not("mfa_demander"), trapOf: "ca_mfa"},
		{name: "wrong password before Conditional Access", shapes: all, record: record(code(50126), rule("Require MFA", "notApplied", 0, "Mfa")), want: failed("wrong_password", "", "low"), trapOf: "ca_mfa"},
	}},
	{"MFA demanded by something else", []row{
		// As above.
		{name: "per-user MFA", shapes: full, record: record(code(50076), demanded("user")), want: interrupted("mfa_other", "", "low").with(`"mfa_demanded_by":["user"]`).not("!mfa_demander"), trapOf: "ca_mfa"},
		{name: "MFA asked by the application", shapes: full, record: record(code(50074), demanded("request")), want: interrupted("mfa_other", "", "low"), trapOf: "app_service_provider"},
		{name: "MFA asked by a risk policy", shapes: full, record: record(code(50076), demanded("riskBasedPolicy")), want: interrupted("mfa_other", "", "low").with(`"mfa_demanded_by_risk":["riskBasedPolicy"]`, "!mfa_demanded_by"), trapOf: "risk_blocked"},
		{name: "MFA asked by a legacy policy", shapes: full, record: record(code(50076), demanded("tenantSessionRiskPolicy")), want: interrupted("mfa_other", "", "low"), trapOf: "ca_mfa"},
		{name: "demander that Graph does not tell", shapes: full, record: record(code(50076), demanded("unknownFutureValue")), want: interrupted("mfa_other", "", "low").not("mfa_demander"), trapOf: "ca_mfa"},
		{name: "nobody named yet", shapes: all, record: record(code(50076), demanded()), want: interrupted("mfa_other", "", "low").not("mfa_demander"), trapOf: "ca_mfa"},
		{name: "network policy server", shapes: "hub log beta", record: record(issuer("NPSExtension"), resource("radius"), second("Mobile app notification", "MFA successfully completed", true)),
			want: succeeded("success", "mfa_other", "info").with(`"token_issuer":"NPSExtension"`, `"mfa_demanded_by":["NPSExtension"]`), trapOf: "ca_mfa"},
		{name: "MFA adapter of AD FS refused", shapes: adfs, record: record(code(500121), issuer("ADFederationServicesMFAAdapter"), resource("adfs"), detailed("MFA denied; user did not respond to mobile app notification")),
			want: failed("mfa_failed", "mfa_other", "low").with(`"mfa_no_answer":true`).not("!mfa_demander"), trapOf: "federation"},
		{name: "per-user MFA answered", shapes: full, record: record(code(50076), demanded("user")), around: then, want: resolved("mfa_other", "", "info"), trapOf: "mfa_failed"},
		{name: "demanded by Conditional Access too", shapes: full, record: record(code(50074), demanded("multiConditionalAccess", "user")), want: interrupted("ca_mfa", "", "low"), trapOf: "mfa_other"},
	}},
	{"MFA registration", []row{
		// Normal for a new colleague: low, info when done. Refused, the person cannot go on: medium.
		{name: "registration at the first sign-in", shapes: all, record: record(code(50072)), want: interrupted("mfa_proofup", "", "low"), trapOf: "mfa_failed"},
		{name: "registration done", shapes: all, record: record(code(50072)), around: then, want: resolved("mfa_proofup", "", "info"), trapOf: "mfa_failed"},
		{name: "registration without anybody", shapes: unattended, record: record(code(50079)), want: interrupted("mfa_proofup", "", "low"), trapOf: "mfa_other"},
		{name: "registration from a forbidden place", shapes: all, record: record(code(53010)), want: failed("mfa_proofup", "", "medium"), trapOf: "ca_blocked"},
		{name: "prompt that wants a registration", shapes: full, record: record(code(50074), demanded("mfaRegistrationRequiredByMultiConditionalAccess")), want: interrupted("mfa_proofup", "ca_mfa", "low"), trapOf: "mfa_other"},
		{name: "prompt that wants a registration, risk policy", shapes: full, record: record(code(50074), demanded("mfaRegistrationRequiredByIdentityProtectionPolicy")), want: interrupted("mfa_proofup", "mfa_other", "low"), trapOf: "risk_blocked"},
		{name: "strength that wants a registration", shapes: "hub", record: record(code(50074), demanded("authenticationStrengths"), strengthResult("Phishing-resistant MFA (singleRegistrationRequired)")),
			want: interrupted("mfa_proofup", "ca_mfa", "low"), trapOf: "mfa_failed"},
		{name: "strength that is met", shapes: "hub", record: record(code(50074), demanded("authenticationStrengths"), strengthResult("Phishing-resistant MFA (singleChallengeRequired)")),
			want: interrupted("ca_mfa", "", "low"), trapOf: "mfa_proofup"},
		{name: "registration for password reset", shapes: all, record: record(code(50125)), want: interrupted("interrupt", "mfa_proofup", "info"), trapOf: "password_expired"},
		{name: "an ordinary prompt", shapes: full, record: record(code(50074), demanded("multiConditionalAccess")), want: interrupted("ca_mfa", "", "low"), trapOf: "mfa_proofup"},
	}},
	{"MFA failed", []row{
		// Somebody with the right password did not pass: low, as most is a phone in another room. Declined is a person who says it was not them: medium. Reported fraud: high.
		{name: "declined", shapes: all, record: record(code(500121), detailed("MFA denied; user declined the authentication")), want: failed("mfa_failed", "", "medium").with(`"mfa_denied":true`).not("mfa_demander"), trapOf: "ca_mfa"},
		{name: "not answered", shapes: full, record: record(code(500121), password, demanded("multiConditionalAccess"), second("Mobile app notification", "MFA denied; user did not respond to mobile app notification", false)),
			want: failed("mfa_failed", "ca_mfa", "low").with(`"mfa_no_answer":true`, "!mfa_denied", `"password_correct":true`), trapOf: "mfa_other"},
		{name: "hung up", shapes: all, record: record(code(500121), detailed("MFA denied; user hung up the phone")), want: failed("mfa_failed", "", "low").with(`"mfa_no_answer":true`), trapOf: "mfa_proofup"},
		{name: "phone unreachable", shapes: all, record: record(code(500121), detailed("MFA denied; phone unreachable")), want: failed("mfa_failed", "", "low").with(`"mfa_no_answer":true`), trapOf: "mfa_proofup"},
		{name: "wrong code", shapes: full, record: record(code(500121), demanded("user"), step("OATH verification code", "Multi-factor authentication", "MFA denied; Invalid Verification Code", false)),
			want: failed("mfa_failed", "mfa_other", "low").with(`"mfa_wrong_code":true`), trapOf: "ca_mfa"},
		{name: "wrong code too often", shapes: all, record: record(code(500121), detailed("MFA denied; user entered wrong code too many times")), want: failed("mfa_failed", "", "low").with(`"mfa_wrong_code":true`), trapOf: "account_locked"},
		{name: "blocked from MFA", shapes: all, record: record(code(500121), detailed("MFA denied; user is blocked in Microsoft Entra ID")), want: failed("mfa_failed", "", "low").with("!mfa_denied"), trapOf: "ca_blocked"},
		{name: "fraud reported", shapes: all, record: record(code(500121), detailed("MFA denied; Fraud code entered")), want: failed("mfa_failed", "password_known", "high").with(`"mfa_fraud":true`), trapOf: "risk_blocked"},
		{name: "nothing registered", shapes: all, record: record(code(500121), detailed("MFA denied; user has no verification methods registered")), want: failed("mfa_failed", "mfa_proofup", "low").with(`"mfa_no_method":true`), trapOf: "ca_mfa"},
		{name: "nothing told", shapes: all, record: record(code(500121)), want: failed("mfa_failed", "", "low").not("mfa_result"), trapOf: "ca_mfa"},
		{name: "passwordless phone sign-in is no password", shapes: full, record: record(code(500121), step("Passwordless phone sign-in", "", "", true)), want: failed("mfa_failed", "", "low").with("!password_correct"), trapOf: "password_known"},
		{name: "telephone limit", shapes: all, record: record(code(50088)), want: failed("mfa_failed", "", "low"), trapOf: "ca_mfa"},
		{name: "a prompt is no failure", shapes: all, record: record(code(50074), status("failure")), want: interrupted("ca_mfa", "", "low"), trapOf: "mfa_failed"},
	}},
	{"locked accounts", []row{
		// Somebody cannot work, or somebody is being guessed at: medium; high from three addresses on.
		{name: "locked", shapes: everyUser, record: record(code(50053), saying(lockedText)), want: failed("account_locked", "", "medium").with(`"lockout_cause":"bad_passwords"`, "!password_correct").not("password"), trapOf: "malicious_ip_blocked"},
		{name: "locked, text unknown", shapes: all, record: record(code(50053), saying("Zugriff verweigert.")), want: failed("account_locked", "", "medium").with("!lockout_cause").not("lockout_cause"), trapOf: "malicious_ip_blocked"},
		{name: "malicious address", shapes: everyUser, record: record(code(50053), saying(addressText)), want: failed("malicious_ip_blocked", "", "medium").with(`"lockout_cause":"malicious_address"`, "!password_correct").not("password"), trapOf: "account_locked"},
		{name: "malicious address, text in capitals", shapes: all, record: record(code(50053), saying("BLOCKED: MALICIOUS IP ADDRESS")), want: failed("malicious_ip_blocked", "", "medium"), trapOf: "account_locked"},
		{name: "malicious address of a legacy client", shapes: all, record: record(code(50053), by("IMAP4"), saying(addressText)), want: failed("malicious_ip_blocked", "legacy_auth", "medium"), trapOf: "account_locked"},
		{name: "locked in AD FS", shapes: adfs, record: record(code(300030)), want: failed("account_locked", "", "medium").with(`"lockout_cause":"bad_passwords"`), trapOf: "federation"},
		{name: "locked or disabled on-premises", shapes: all, record: record(code(120014)), want: failed("account_locked", "account_disabled", "medium").not("lockout_cause"), trapOf: "password_expired"},
		{name: "locked from three addresses", shapes: all, record: record(code(50053), saying(lockedText)), around: around(before(9, 20*time.Second, fromEach(50126, "198.51.100.4", "192.0.2.9", homeAddress))),
			want: failed("account_locked", "repeated_failures", "high").with(`"failures_48h":10`, `"failure_many_addresses":true`), trapOf: "password_known"},
		{name: "a wrong password is no lock", shapes: all, record: record(code(50126), saying("Error validating credentials due to invalid username or password.")), want: failed("wrong_password", "", "low"), trapOf: "account_locked"},
		{name: "an address alone is no malicious one", shapes: all, record: record(code(53003), status("failure"), saying("Access from this IP address is blocked by policy.")), want: failed("ca_blocked", "", "medium"), trapOf: "malicious_ip_blocked"},
	}},
	{"credentials", []row{
		// One slip: low, info once the person got in. An attack: medium, high where it is massive. A stored password is a nuisance however often it comes: low.
		{name: "lone wrong password", shapes: everyUser + " " + adfs, record: record(code(50126)), want: failed("wrong_password", "", "low").with(`"password_correct":false`, `"assessment":"unclear"`), trapOf: "unknown_user"},
		{name: "no password in the directory", shapes: all, record: record(code(50056)), want: failed("wrong_password", "", "low"), trapOf: "password_expired"},
		{name: "credential check failed", shapes: all, record: record(code(50064)), want: failed("wrong_password", "", "low"), trapOf: "federation"},
		{name: "current password wrong at a change", shapes: all, record: record(code(120000)), want: failed("wrong_password", "", "low"), trapOf: "password_expired"},
		{name: "a person mistyped, then got in", shapes: all, record: record(code(50126)), around: then, want: failed("wrong_password", "", "info").with(`"assessment":"human"`), trapOf: "cached_credential"},
		{name: "a person at a known device", shapes: all, record: record(code(50126), laptop), want: failed("wrong_password", "", "low").with(`"assessment":"human"`), trapOf: "cached_credential"},
		{name: "an old password that nobody typed", shapes: unattended, record: record(code(50054)), want: failed("wrong_password", "", "low").with(`"assessment":"stored_password"`), trapOf: "password_expired"},
		{name: "an old password that somebody typed", shapes: all, record: record(code(50054)), want: failed("wrong_password", "", "low").with(`"assessment":"unclear"`), trapOf: "cached_credential"},
		{name: "a program every five minutes", shapes: unattended, record: record(code(50126)), around: around(before(11, 5*time.Minute, as(50126))),
			want: failed("wrong_password", "repeated_failures cached_credential", "low").with(`"assessment":"stored_password"`, `"regular_seconds":300`), trapOf: "account_locked"},
		{name: "a program on a telephone", shapes: all, record: record(code(50126), by("Exchange ActiveSync"), laptop), around: around(before(11, 15*time.Minute, fromEach(50126, homeAddress, "198.51.100.4"))),
			want: failed("wrong_password", "legacy_auth repeated_failures cached_credential", "low").with(`"assessment":"stored_password"`), trapOf: "account_locked"},
		{name: "the same password again and again without a lockout", shapes: all, record: record(code(50126)), around: around(before(15, 9*time.Minute, irregular(50126))),
			want: failed("wrong_password", "repeated_failures", "low").with(`"assessment":"stored_password"`), trapOf: "cached_credential"},
		{name: "regular, but locked in between", shapes: all, record: record(code(50126)), around: around(before(11, 5*time.Minute, func(i int, s *synthetic.SignInSpec) {
			plain(s, 50126)
			if i == 6 {
				plain(s, 50053)
			}
		})), want: failed("wrong_password", "repeated_failures", "medium").with(`"assessment":"unclear"`), trapOf: "cached_credential"},
		{name: "guesses from two addresses", shapes: all, record: record(code(50126)), around: around(before(5, 40*time.Second, fromEach(50126, homeAddress, "198.51.100.4"))),
			want: failed("wrong_password", "repeated_failures", "medium").with(`"assessment":"attack"`), trapOf: "cached_credential"},
		{name: "guesses from four addresses", shapes: all, record: record(code(50126)), around: around(before(8, 70*time.Second, fromEach(50126, homeAddress, "198.51.100.4", "198.51.100.5", "192.0.2.9"))),
			want: failed("wrong_password", "repeated_failures", "high").with(`"assessment":"attack"`, `"failure_many_addresses":true`), trapOf: "account_locked"},
		{name: "guesses from three addresses while the person works", shapes: all, record: record(code(50126)), around: around(before(12, 10*time.Minute, func(i int, s *synthetic.SignInSpec) {
			fromEach(50126, homeAddress, "198.51.100.4", "192.0.2.9")(i, s)
			if i == 6 {
				plain(s, 0)
			}
		})), want: failed("wrong_password", "repeated_failures", "high").with(`"assessment":"attack"`), trapOf: "cached_credential"},
		{name: "guesses beside a slip at the person's own device", shapes: all, record: record(code(50126)), around: around(before(17, 9*time.Minute, func(i int, s *synthetic.SignInSpec) {
			fromEach(50126, homeAddress, "198.51.100.4", "192.0.2.9")(i, s)
			s.Time = s.Time.Add(time.Duration(i*i*37%211) * time.Second)
			if i == 3 {
				laptop(s)
			}
		})), want: failed("wrong_password", "repeated_failures", "high").with(`"assessment":"attack"`), trapOf: "cached_credential"},
		{name: "guesses from one address at many applications", shapes: all, record: record(code(50126)), around: around(before(20, 9*time.Second, func(i int, s *synthetic.SignInSpec) {
			plain(s, 50126)
			s.AppDisplayName = []string{"Payroll", "Azure Portal", "Mail"}[i%3]
		})), want: failed("wrong_password", "repeated_failures", "medium").with(`"assessment":"attack"`), trapOf: "cached_credential"},
		{name: "failures on the way home, at a known device", shapes: all, record: record(code(50126), laptop), around: around(before(5, 40*time.Minute, func(i int, s *synthetic.SignInSpec) {
			fromEach(50126, homeAddress, "198.51.100.4")(i, s)
			s.Time = s.Time.Add(time.Duration(i*i) * time.Minute)
		})), want: failed("wrong_password", "repeated_failures", "medium").with(`"assessment":"unclear"`), trapOf: "cached_credential"},
		{name: "sprayed at the endpoint of Seamless SSO", shapes: full, record: record(code(50126), protocol("seamlessSso")), want: failed("wrong_password", "sso", "low"), trapOf: "pta"},
		{name: "wrong password of a pass-through user", shapes: "hub beta", record: record(code(50126), methods("Pass-through Authentication")), want: failed("wrong_password", "", "low"), trapOf: "pta"},
		{name: "masked address", shapes: all, record: record(code(50126), from("203.0.113.XXX")), want: failed("wrong_password", "", "low").not("address"), trapOf: "malicious_ip_blocked"},
		{name: "masked device", shapes: all, record: record(code(50126), func(s *synthetic.SignInSpec) { s.Device.ID, s.Device.DisplayName = "{PII Removed}", "{PII Removed}" }),
			want: failed("wrong_password", "", "low").with("!device", "!device_id", `"assessment":"unclear"`), trapOf: "device_state"},
		{name: "unknown name", shapes: everyUser, record: record(code(50034)), want: failed("unknown_user", "", "low"), trapOf: "wrong_password"},
		{name: "unknown name without an id", shapes: all, record: record(code(50034), nobody), want: failed("unknown_user", "", "low").not("user"), trapOf: "b2b_failed"},
		{name: "no tenant for the name", shapes: all, record: record(code(50128)), want: failed("unknown_user", "", "low"), trapOf: "wrong_password"},
		{name: "known name, wrong password", shapes: all, record: record(code(50126), saying("Invalid username or password.")), want: failed("wrong_password", "", "low"), trapOf: "unknown_user"},
	}},
	{"state of the account", []row{
		// The person can change the password: low, info when done. A disabled account that is still tried: low.
		{name: "password expired", shapes: all, record: record(code(50055)), want: interrupted("password_expired", "", "low").with(`"password_correct":true`), trapOf: "wrong_password"},
		{name: "password changed", shapes: all, record: record(code(50055)), around: then, want: resolved("password_expired", "", "info"), trapOf: "wrong_password"},
		{name: "password expired on-premises", shapes: all, record: record(code(50144)), want: interrupted("password_expired", "pta", "low"), trapOf: "account_disabled"},
		{name: "new password demanded by a policy", shapes: all, record: record(code(50137)), want: interrupted("password_expired", "", "low"), trapOf: "risk_blocked"},
		{name: "new password too weak", shapes: all, record: record(code(120002)), want: failed("password_expired", "", "low"), trapOf: "wrong_password"},
		{name: "a wrong password is not an expired one", shapes: all, record: record(code(50126)), want: failed("wrong_password", "", "low"), trapOf: "password_expired"},
		{name: "disabled", shapes: everyUser, record: record(code(50057)), want: failed("account_disabled", "", "low"), trapOf: "account_locked"},
		{name: "a lock is not a disabled account", shapes: all, record: record(code(50053), saying(lockedText)), want: failed("account_locked", "", "medium"), trapOf: "account_disabled"},
	}},
	{"applications", []row{
		// Nobody, or no job, can use the application until it is mended: medium. One person who is not assigned asks for access: low.
		{name: "SAML request", shapes: all, record: record(code(75005)), want: failed("app_service_provider", "", "medium"), trapOf: "federation"},
		{name: "wrong secret", shapes: workloads, record: record(code(7000215)), want: failed("app_service_provider", "", "medium").with(`"credential_type":"clientSecret"`, `"service_principal_id":"c0000000-0000-4000-8000-00000000000c"`), trapOf: "app_configuration"},
		{name: "a loop", shapes: unattended, record: record(code(50196)), want: failed("app_service_provider", "", "medium"), trapOf: "repeated_failures"},
		{name: "code challenge too short", shapes: all, record: record(code(501491)), want: failed("app_service_provider", "", "medium"), trapOf: "app_configuration"},
		{name: "body of the request lacks a field", shapes: all, record: record(code(900144)), want: failed("app_service_provider", "", "medium"), trapOf: "error_insight"},
		{name: "malformed token", shapes: all, record: record(code(50027)), want: failed("token_session", "app_service_provider", "info"), trapOf: "service_fault"},
		{name: "expired secret", shapes: workloads, record: record(code(7000222)), want: failed("app_configuration", "", "medium").with(`"credential_key_id":"d0000000-0000-4000-8000-00000000000d"`), trapOf: "app_service_provider"},
		{name: "reply URL", shapes: "hub", record: record(code(50011), redirect("https://payroll.example.org/cb")), want: failed("app_configuration", "", "medium").with(`"redirect_url":"https://payroll.example.org/cb"`), trapOf: "app_service_provider"},
		{name: "unknown application", shapes: all + " " + workloads, record: record(code(700016)), want: failed("app_configuration", "", "medium").with(`"app_id":"b0000000-0000-4000-8000-00000000000b"`), trapOf: "unknown_user"},
		{name: "not assigned", shapes: all, record: record(code(50105)), want: failed("app_configuration", "", "low"), trapOf: "ca_blocked"},
		{name: "permissions of the registration", shapes: all, record: record(code(650056)), want: failed("app_configuration", "", "medium"), trapOf: "consent_required"},
		{name: "consent page", shapes: all, record: record(code(65001)), want: interrupted("consent_required", "", "low"), trapOf: "app_configuration"},
		{name: "consent given", shapes: all, record: record(code(65001)), around: then, want: resolved("consent_required", "", "info"), trapOf: "app_configuration"},
		{name: "consent refused", shapes: all, record: record(code(65004)), want: failed("consent_required", "", "low"), trapOf: "app_configuration"},
		{name: "administrator must consent", shapes: all, record: record(code(90094)), want: failed("consent_required", "", "low"), trapOf: "app_configuration"},
		{name: "administrator was asked to consent", shapes: all, record: record(code(90095)), want: interrupted("consent_required", "", "low"), trapOf: "app_configuration"},
		{name: "consent of a job", shapes: workloads, record: record(code(65001)), want: interrupted("consent_required", "", "low"), trapOf: "app_configuration"},
	}},
	{"pass-through authentication and Seamless SSO", []row{
		// Agents or domain controllers that do not answer concern everybody: medium. One person's name or hours: low. Without Seamless SSO the password is just asked for: low, info while it goes on.
		{name: "no agent", shapes: everyUser, record: record(code(80001)), want: failed("pta", "", "medium"), trapOf: "service_fault"},
		{name: "agent did not answer in time", shapes: all, record: record(code(80002)), want: failed("pta", "", "medium"), trapOf: "wrong_password"},
		{name: "names differ on-premises", shapes: all, record: record(code(80004)), want: failed("pta", "wrong_password", "low").with(`"password_correct":false`), trapOf: "unknown_user"},
		{name: "outside the hours", shapes: all, record: record(code(80012)), want: failed("pta", "", "low"), trapOf: "account_disabled"},
		{name: "no Kerberos header", shapes: unattended + " " + all, record: record(code(81006)), want: failed("sso", "", "low"), trapOf: "app_service_provider"},
		{name: "ticket not accepted", shapes: all, record: record(code(81010)), want: interrupted("sso", "", "info"), trapOf: "interrupt"},
		{name: "another Windows user chosen", shapes: all, record: record(code(81012)), around: then, want: resolved("sso", "", "info"), trapOf: "wrong_password"},
		{name: "Windows authentication absent", shapes: all, record: record(code(50180)), want: failed("sso", "", "low"), trapOf: "device_state"},
		{name: "session lacks Windows authentication", shapes: all, record: record(code(51006)), want: interrupted("interrupt", "sso", "info"), trapOf: "token_session"},
		{name: "sign-in without Seamless SSO", shapes: all, record: record(code(50058)), want: interrupted("interrupt", "", "info"), trapOf: "sso"},
	}},
	{"devices, providers, sessions, faults", []row{
		// A device check goes on by itself: info; a broken registration: low. An identity provider at fault concerns everybody who uses it: medium. Ended sessions are normal: info. Faults of the service pass: low.
		{name: "device check", shapes: all, record: record(code(50097), status("failure")), want: interrupted("device_state", "", "info"), trapOf: "ca_failed"},
		{name: "device check passed", shapes: all, record: record(code(50097), status("failure")), around: then, want: resolved("device_state", "", "info"), trapOf: "ca_failed"},
		{name: "device deleted", shapes: all, record: record(code(700003)), want: failed("device_state", "", "low"), trapOf: "ca_failed"},
		{name: "a device that is not compliant is known", shapes: all, record: record(code(53000), laptop, status("failure")), want: failed("ca_failed", "", "medium"), trapOf: "device_state"},
		{name: "SAML assertion of the provider", shapes: all, record: record(code(50008)), want: failed("federation", "", "medium"), trapOf: "app_service_provider"},
		{name: "realm of the provider", shapes: all, record: record(code(50107)), want: failed("federation", "", "medium"), trapOf: "app_configuration"},
		{name: "wrong password at AD FS is no fault of it", shapes: adfs, record: record(code(50126)), want: failed("wrong_password", "", "low"), trapOf: "federation"},
		{name: "sign-in frequency", shapes: everyUser, record: record(code(70043)), want: interrupted("token_session", "", "info"), trapOf: "interrupt"},
		{name: "session revoked", shapes: unattended, record: record(code(50173), redeeming(refreshToken)), want: failed("token_session", "", "info").with("!password_correct"), trapOf: "password_known"},
		{name: "refresh token unused too long", shapes: unattended, record: record(code(700082)), want: failed("token_session", "", "info"), trapOf: "password_expired"},
		{name: "a prompt for MFA is no ended session", shapes: unattended, record: record(code(50078), demanded("user")), want: interrupted("mfa_other", "", "low"), trapOf: "token_session"},
		{name: "directory service unavailable", shapes: everyUser + " " + workloads, record: record(code(90033)), want: failed("service_fault", "", "low"), trapOf: "error_insight"},
		{name: "passing fault", shapes: all, record: record(code(90025)), want: failed("service_fault", "", "low"), trapOf: "error_insight"},
		{name: "an agent on-premises is not the service", shapes: all, record: record(code(80005)), want: failed("pta", "", "medium"), trapOf: "service_fault"},
	}},
	{"steps and other codes", []row{
		// A step is none to speak of: info. A code that nothing explains: low.
		{name: "stay signed in", shapes: all, record: record(code(50140), status("success")), want: interrupted("interrupt", "", "info"), trapOf: "success"},
		{name: "stay signed in, then in", shapes: all, record: record(code(50140), status("success")), around: then, want: resolved("interrupt", "", "info"), trapOf: "success"},
		{name: "silent sign-in without a session", shapes: everyUser, record: record(code(50058)), want: interrupted("interrupt", "", "info"), trapOf: "token_session"},
		{name: "another account to be chosen", shapes: all, record: record(code(16000)), want: interrupted("interrupt", "", "info"), trapOf: "b2b_failed"},
		{name: "device code waits", shapes: full, record: record(code(70016), protocol("deviceCode")), want: interrupted("interrupt", "", "info").with(`"authentication_protocol":"deviceCode"`), trapOf: "error_insight"},
		{name: "application to be confirmed", shapes: full, record: record(code(50199), protocol("deviceCode")), around: then, want: resolved("interrupt", "", "info"), trapOf: "consent_required"},
		{name: "a device check is no mere step", shapes: all, record: record(code(50097)), want: interrupted("device_state", "", "info"), trapOf: "interrupt"},
		{name: "Graph refused the caller", shapes: all + " " + workloads, record: record(code(90093)), want: failed("error_insight", "", "low"), trapOf: "service_fault"},
		{name: "code of the future", shapes: everyLog, record: record(code(999999), saying("A new failure.")), want: failed("error_insight", "", "low").
			with(`"unknown_code":true`, `"failure_reason":"A new failure."`).not("error_code_meaning"), trapOf: "repeated_failures"},
		{name: "a known code is no mere insight", shapes: all, record: record(code(53003), status("failure"), rule("Block", "failure", 0, "Block")), want: failed("ca_blocked", "", "medium"), trapOf: "error_insight"},
	}},
	{"over several records", []row{
		// The password is in foreign hands: high. Many failures: medium, whatever each of them is. A request for help: medium while the person is stuck.
		{name: "right password after a series, blocked", shapes: all, record: record(code(53003), password, rule("Block countries", "failure", schemas.ConditionLocation, "Block")),
			around: around(before(6, 15*time.Second, as(50126))), want: failed("ca_blocked", "password_known repeated_failures", "high").with(`"wrong_passwords":6`, `"failures_48h":7`), trapOf: "cached_credential"},
		{name: "right password after a series, prompted", shapes: all, record: record(code(50074), password, status("failure")), around: around(before(6, 15*time.Second, as(50126))),
			want: interrupted("ca_mfa", "password_known", "high"), trapOf: "mfa_failed"},
		{name: "right password after a series, got in", shapes: all, record: record(code(50074), password, status("failure")), around: append(around(before(6, 15*time.Second, as(50126))), then...),
			want: resolved("ca_mfa", "", "info"), trapOf: "password_known"},
		{name: "right password after one slip", shapes: all, record: record(code(50074), password, status("failure")), around: around(before(1, 15*time.Second, as(50126))),
			want: interrupted("ca_mfa", "", "low"), trapOf: "password_known"},
		{name: "wrong passwords from elsewhere", shapes: all, record: record(code(53003), password, status("failure")), around: around(before(6, 15*time.Second, fromEach(50126, "198.51.100.4"))),
			want: failed("ca_blocked", "repeated_failures", "medium"), trapOf: "password_known"},
		{name: "a masked address is many", shapes: all, record: record(code(53003), password, status("failure"), from("203.0.113.XXX")), around: around(before(6, 15*time.Second, as(50126))),
			want: failed("ca_blocked", "repeated_failures", "medium"), trapOf: "password_known"},
		// Equal tries of a client without a person within a minute are one.
		{name: "a token refreshed after a series", shapes: unattended, record: record(code(53003), redeeming(refreshToken), status("failure")), around: around(before(6, 15*time.Second, as(50126))),
			want: failed("ca_blocked", "", "low").with("!password_correct"), trapOf: "password_known"},
		{name: "a lock tells nothing of the password", shapes: all, record: record(code(50053), saying(lockedText)), around: around(before(6, 15*time.Second, as(50126))),
			want: failed("account_locked", "repeated_failures", "medium"), trapOf: "password_known"},
		{name: "fifth failure", shapes: everyUser, record: record(code(50126)), around: around(before(4, 7*time.Hour, irregular(50126))), want: failed("wrong_password", "repeated_failures", "medium").with(`"failures_48h":5`), trapOf: "cached_credential"},
		{name: "fourth failure", shapes: everyUser, record: record(code(50126)), around: around(before(3, 7*time.Hour, as(50126))), want: failed("wrong_password", "", "low"), trapOf: "repeated_failures"},
		{name: "failures out of the window", shapes: all, record: record(code(50126)), around: around(before(8, 13*time.Hour, as(50126))), want: failed("wrong_password", "", "low").with(`"failures_48h":4`), trapOf: "repeated_failures"},
		{name: "many steps", shapes: all, record: record(code(50140)), around: around(before(9, time.Hour, as(50140))), want: interrupted("interrupt", "", "info"), trapOf: "repeated_failures"},
		{name: "many ended sessions", shapes: unattended, record: record(code(70044)), around: around(before(9, time.Hour, as(70044))), want: interrupted("token_session", "", "info"), trapOf: "repeated_failures"},
		{name: "flagged success", shapes: full, record: record(flagged), want: succeeded("success", "flagged", "info"), trapOf: "missed_interrupt"},
		{name: "flagged failure", shapes: full, record: record(code(50126), flagged), want: failed("wrong_password", "flagged", "medium"), trapOf: "risk_blocked"},
		{name: "flagged step", shapes: full, record: record(code(50058), flagged), want: interrupted("interrupt", "flagged", "medium"), trapOf: "success"},
		{name: "nobody asked for help", shapes: full, record: record(code(53003), status("failure"), risk("high", "atRisk")), want: failed("risk_blocked", "ca_blocked", "high"), trapOf: "flagged"},
	}},
}
