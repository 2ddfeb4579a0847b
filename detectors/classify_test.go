package detectors

import (
	"slices"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

const (
	homeTenant     = "11111111-aaaa-4bbb-8ccc-000000000001"
	resourceTenant = "11111111-aaaa-4bbb-8ccc-000000000002"
	// 2026-03-02T08:13:55.1034567Z
	testTime = int64(1772439235103456)
)

func loadCatalogue(t testing.TB) *catalogue.Catalogue {
	t.Helper()
	cat, err := catalogue.Load()
	if err != nil {
		t.Fatalf("load catalogue: %v", err)
	}
	return cat
}

// option changes a record or its view.
type option func(v *View)

// record makes an interactive record of ada with the given code.
func record(code int32, options ...option) *View {
	v := &View{SignIn: &schemas.SignIn{
		RequestId: "7d0c1b52-0000-4d11-9c00-2b6a5f4e0100", CorrelationId: "c0ffee00-0000-4000-8000-000000000001",
		TenantId: homeTenant, EventTime: testTime, Category: schemas.Category_CATEGORY_SIGN_IN, ErrorCode: code,
		UserId: "a0000000-0000-4000-8000-00000000000a", UserPrincipalName: "ada@example.org", UserDisplayName: "Ada Meier",
		UserType: "Member", AppId: "b0000000-0000-4000-8000-00000000000b", AppDisplayName: "Payroll",
		ResourceDisplayName: "Payroll API", IpAddress: "203.0.113.7", City: "Bern", CountryOrRegion: "CH",
		ClientAppUsed: "Browser", IsInteractive: schemas.Tri_TRI_TRUE, RiskLevelDuringSignIn: "none", RiskState: "none",
		ConditionalAccessStatus: "notApplied",
	}}
	for _, o := range options {
		o(v)
	}
	return v
}

func with(f func(r *schemas.SignIn)) option { return func(v *View) { f(v.SignIn) } }

func reason(text string) option { return with(func(r *schemas.SignIn) { r.FailureReason = text }) }
func details(text string) option {
	return with(func(r *schemas.SignIn) { r.AdditionalDetails = text })
}
func client(name string) option { return with(func(r *schemas.SignIn) { r.ClientAppUsed = name }) }
func caStatus(s string) option {
	return with(func(r *schemas.SignIn) { r.ConditionalAccessStatus = s })
}
func risk(level string) option {
	return with(func(r *schemas.SignIn) { r.RiskLevelDuringSignIn = level })
}
func category(c schemas.Category) option { return with(func(r *schemas.SignIn) { r.Category = c }) }
func provider(names ...string) option {
	return with(func(r *schemas.SignIn) {
		for _, n := range names {
			r.AuthenticationRequirementPolicies = append(r.AuthenticationRequirementPolicies, &schemas.RequirementPolicy{RequirementProvider: n})
		}
		r.AuthenticationRequirement = "multiFactorAuthentication"
	})
}
func policy(name, result string, conditions uint32, controls ...string) option {
	return with(func(r *schemas.SignIn) {
		r.Policies = append(r.Policies, &schemas.Policy{Id: "id-of-" + name, DisplayName: name, Result: result,
			EnforcedGrantControls: controls, ConditionsSatisfied: conditions})
	})
}
func guest() option {
	return with(func(r *schemas.SignIn) { r.UserType = "guest" })
}
func foreign() option {
	return with(func(r *schemas.SignIn) { r.HomeTenantId, r.ResourceTenantId = homeTenant, resourceTenant })
}
func step(method, requirement, detail string, succeeded schemas.Tri) option {
	return with(func(r *schemas.SignIn) {
		r.AuthenticationDetails = append(r.AuthenticationDetails, &schemas.AuthenticationStep{Method: method, Requirement: requirement, ResultDetail: detail, Succeeded: succeeded})
	})
}
func outcome(o, attempt string) option {
	return func(v *View) { v.Outcome, v.Attempt.Outcome = o, attempt }
}
func failures(f FailureView) option { return func(v *View) { v.Failures = f } }
func workload(c schemas.Category) option {
	return with(func(r *schemas.SignIn) {
		r.Category, r.UserId, r.UserPrincipalName, r.UserDisplayName, r.UserType = c, "", "", "", ""
		r.ServicePrincipalName, r.ServicePrincipalId = "nightly-export", "c0000000-0000-4000-8000-00000000000c"
		r.ClientAppUsed, r.IsInteractive = "", schemas.Tri_TRI_UNKNOWN
	})
}

// sprayed is a window of many wrong passwords from the record's address.
var sprayed = FailureView{Count: 11, Repeated: true, First: testTime - 3600e6, Last: testTime, Applications: []string{"Payroll"},
	Addresses: []string{"203.0.113.7"}, Codes: []int32{50126, 53003}, WrongPasswords: 10, WrongPasswordsFromAddress: 10}

const (
	block      = schemas.ConditionApplication | schemas.ConditionUsers
	lockedText = "The account is locked, you've tried to sign in too many times with an incorrect user ID or password."
	addressTxt = "Sign-in was blocked because it came from an IP address with malicious activity."
)

type classifyCase struct {
	name     string
	view     *View
	scenario string
	also     []string
	severity string
	unknown  []string
	// evidence that must be there, as it stands in JSON; a leading ! means the key must be absent.
	evidence []string
}

var classifyCases = []classifyCase{
	// success
	{name: "success", view: record(0), scenario: "success", severity: "info"},
	{name: "success says Other. in Graph", view: record(0, reason("Other.")), scenario: "success", evidence: []string{"!failure_reason"}},
	{name: "success with MFA by policy", view: record(0, provider("multiConditionalAccess"), policy("Require MFA", "success", block, "Mfa"), caStatus("success"),
		step("Mobile app notification", "Multifactor authentication", "MFA completed in Azure AD", schemas.Tri_TRI_TRUE)),
		scenario: "success", also: []string{"ca_mfa"}, severity: "info",
		evidence: []string{`"mfa_satisfied":true`, `"mfa_policies":["Require MFA"]`, `"mfa_demanded_by":["multiConditionalAccess"]`}},
	{name: "success with per-user MFA", view: record(0, provider("user"), details("MFA requirement satisfied by claim in the token")),
		scenario: "success", also: []string{"mfa_other"}, evidence: []string{`"mfa_satisfied":true`}},
	{name: "success under security defaults", view: record(0, provider("securityDefaults")), scenario: "success", also: []string{"security_defaults"}},
	{name: "success with a registration in the period of grace", view: record(0, provider("mfaRegistrationRequiredBySecurityDefaults")),
		scenario: "success", also: []string{"security_defaults", "mfa_proofup"}, severity: "info"},
	{name: "success and a policy evaluated for another action", view: record(0, caStatus("success"), policy("Register from office", "failure", block, "Block", "Mfa")),
		scenario: "success", evidence: []string{"!policies", "!mfa_policies"}},
	{name: "success of a service principal", view: record(0, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL)), scenario: "success",
		evidence: []string{`"service_principal":"nightly-export"`}},
	{name: "success of a managed identity whose risk is a default", view: record(0, workload(schemas.Category_CATEGORY_MANAGED_IDENTITY), risk("low")),
		scenario: "success", severity: "info", evidence: []string{"!risk_level"}},
	{name: "success at hidden risk", view: record(0, risk("hidden")), scenario: "success", unknown: []string{"risk"}, evidence: []string{"!risk_level"}},
	{name: "success at high risk with MFA", view: record(0, risk("high"), details("MFA completed in Azure AD")), scenario: "success", severity: "low",
		evidence: []string{`"risk_level":"high"`}},
	{name: "AD FS without a place", view: record(0, category(schemas.Category_CATEGORY_ADFS), client("Unknown"),
		with(func(r *schemas.SignIn) { r.City, r.CountryOrRegion = "", "" })), scenario: "success", unknown: []string{"location"}},
	{name: "flagged success", view: record(0, with(func(r *schemas.SignIn) { r.FlaggedForReview = true })), scenario: "success",
		also: []string{"flagged"}, severity: "info"},

	// missed_interrupt
	{name: "report-only policy would have stopped it", view: record(0, policy("Block countries", "reportOnlyFailure", block, "Block")),
		scenario: "missed_interrupt", severity: "low", evidence: []string{`"report_only_policies":["Block countries"]`}},
	{name: "report-only policy would have interrupted it", view: record(0, policy("MFA for all", "reportOnlyInterrupted", block, "Mfa")), scenario: "missed_interrupt"},
	{name: "report-only that would have passed", view: record(0, policy("MFA for all", "reportOnlySuccess", block, "Mfa")), scenario: "success"},
	{name: "report-only in a non-interactive record", view: record(0, category(schemas.Category_CATEGORY_NON_INTERACTIVE_USER),
		with(func(r *schemas.SignIn) { r.IsInteractive = schemas.Tri_TRI_FALSE }), policy("Block countries", "reportOnlyFailure", block, "Block")), scenario: "success"},
	{name: "report-only at Windows sign-in", view: record(0, with(func(r *schemas.SignIn) { r.AppDisplayName = "Windows Sign In" }),
		policy("Block countries", "reportOnlyFailure", block, "Block")), scenario: "success"},
	{name: "high risk without MFA", view: record(0, risk("high")), scenario: "missed_interrupt", severity: "high"},
	{name: "high risk with a passkey", view: record(0, risk("high"), step("FIDO2 security key", "Primary authentication", "", schemas.Tri_TRI_TRUE)), scenario: "success"},
	{name: "single factor without an expectation is no flood", view: record(0, with(func(r *schemas.SignIn) { r.AuthenticationRequirement = "singleFactorAuthentication" })), scenario: "success"},

	// legacy_auth
	{name: "legacy client got in", view: record(0, client("IMAP4")), scenario: "legacy_auth", also: []string{"missed_interrupt"}, severity: "medium",
		evidence: []string{`"legacy_client":"IMAP4"`}},
	{name: "ActiveSync may be refused all the same", view: record(0, client("Exchange ActiveSync")), scenario: "legacy_auth", also: []string{"missed_interrupt"},
		unknown: []string{"active_sync_result"}},
	{name: "legacy client with a wrong password", view: record(50126, client("IMAP4")), scenario: "wrong_password", also: []string{"legacy_auth"}},
	{name: "legacy client that is locked", view: record(50053, client("Authenticated SMTP"), reason(lockedText)), scenario: "account_locked", also: []string{"legacy_auth"}},
	{name: "legacy client blocked by client type", view: record(53003, client("Other clients"), caStatus("failure"),
		policy("Block old mail", "failure", block|schemas.ConditionClientType, "Block")),
		scenario: "legacy_auth", also: []string{"ca_blocked"}, evidence: []string{`"legacy_blocked":true`, `"matched_conditions":["application","users","clientType"]`}},
	{name: "legacy client blocked for its place", view: record(53003, client("POP3"), caStatus("failure"), policy("Block countries", "failure", block|schemas.ConditionLocation, "Block")),
		scenario: "ca_blocked", also: []string{"legacy_auth"}},
	{name: "legacy client that cannot do MFA", view: record(53003, client("Exchange ActiveSync"), caStatus("failure"), policy("MFA for all", "failure", block, "Mfa")),
		scenario: "legacy_auth", also: []string{"ca_failed"}},
	{name: "browser matched by client type", view: record(53003, caStatus("failure"), policy("Block browsers", "failure", block|schemas.ConditionClientType, "Block")), scenario: "ca_blocked"},
	{name: "unknown client of AD FS is not legacy", view: record(50126, category(schemas.Category_CATEGORY_ADFS), client("Unknown")), scenario: "wrong_password", unknown: []string{"client_app"}},
	{name: "modern client is not legacy whatever its case", view: record(50126, client("mobile apps and desktop clients")), scenario: "wrong_password"},

	// wrong_password, unknown_user
	{name: "wrong password", view: record(50126, reason("Invalid username or password.")), scenario: "wrong_password", severity: "low",
		evidence: []string{`"password_correct":false`, `"failure_reason":"Invalid username or password."`}},
	{name: "wrong password, then a success", view: record(50126, outcome(OutcomeFailure, AttemptSucceeded)), scenario: "wrong_password", severity: "info"},
	{name: "no password in the directory", view: record(50056), scenario: "wrong_password"},
	{name: "wrong password of a guest", view: record(50126, guest()), scenario: "wrong_password"},
	{name: "a revocation list that cannot be read is no wrong password", view: record(220501), scenario: "error_insight"},
	{name: "unknown user", view: record(50034, with(func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName, r.UserDisplayName = unresolvedID, "", "" })),
		scenario: "unknown_user", severity: "low", unknown: []string{"user"}},
	{name: "unknown user of another tenant", view: record(50034, foreign()), scenario: "b2b_failed", also: []string{"unknown_user"}},
	{name: "unknown user with a guest's type only", view: record(50034, guest()), scenario: "unknown_user"},
	{name: "masked address", view: record(50126, with(func(r *schemas.SignIn) { r.IpAddress = "203.0.XXX.XXX" })), scenario: "wrong_password", unknown: []string{"address"}},

	// 50053
	{name: "locked", view: record(50053, reason(lockedText)), scenario: "account_locked", severity: "medium", unknown: []string{"password"},
		evidence: []string{`"lockout_cause":"bad_passwords"`, "!password_correct"}},
	{name: "malicious address", view: record(50053, reason(addressTxt)), scenario: "malicious_ip_blocked", severity: "medium", unknown: []string{"password"},
		evidence: []string{`"lockout_cause":"malicious_address"`}},
	{name: "malicious address, other case", view: record(50053, reason("BLOCKED: MALICIOUS IP")), scenario: "malicious_ip_blocked"},
	{name: "50053 with an unknown text", view: record(50053, reason("Zugriff verweigert.")), scenario: "account_locked", unknown: []string{"lockout_cause", "password"}, evidence: []string{"!lockout_cause"}},
	{name: "50053 without a text", view: record(50053), scenario: "account_locked", unknown: []string{"lockout_cause", "password"}},
	{name: "50053 with both meanings in its text", view: record(50053, reason(lockedText+" Or, "+addressTxt)), scenario: "account_locked", unknown: []string{"lockout_cause"}},
	{name: "50053 told by the details", view: record(50053, details(addressTxt)), scenario: "malicious_ip_blocked"},
	{name: "locked with its sources", view: record(50053, reason(lockedText), failures(FailureView{Count: 12, Repeated: true, First: testTime - 7200e6, Last: testTime,
		Addresses: []string{"203.0.113.7", "198.51.100.4", "192.0.2.9"}, ClientApps: []string{"IMAP4"}, Codes: []int32{50126, 50053}})),
		scenario: "account_locked", also: []string{"repeated_failures"}, severity: "high",
		evidence: []string{`"failures_48h":12`, `"failure_many_addresses":true`, `"failure_codes":["50126","50053"]`}},
	{name: "AD FS lockout", view: record(300030, category(schemas.Category_CATEGORY_ADFS)), scenario: "account_locked"},
	{name: "locked on-premises", view: record(120014), scenario: "account_locked", also: []string{"account_disabled"}, unknown: []string{"lockout_cause"}},

	// Conditional Access
	{name: "blocked by a policy", view: record(53003, caStatus("failure"), policy("Block countries", "failure", block|schemas.ConditionLocation, "Block"), policy("Other", "notApplied", 0, "Mfa")),
		scenario: "ca_blocked", severity: "medium", evidence: []string{`"policies":["Block countries"]`, `"password_correct":true`, `"matched_conditions":["application","users","location"]`}},
	{name: "blocked, policy withheld", view: record(53003, caStatus("failure")), scenario: "ca_blocked", unknown: []string{"policy"}, evidence: []string{"!policies"}},
	{name: "blocked, conditions not told", view: record(53003, caStatus("failure"), policy("Block countries", "failure", 0, "Block")), scenario: "ca_blocked", unknown: []string{"policy_conditions"}},
	{name: "report-only never blocks", view: record(53003, caStatus("failure"), policy("Trial", "reportOnlyFailure", block, "Block")), scenario: "ca_blocked", unknown: []string{"policy"}, evidence: []string{"!policies"}},
	{name: "blocked at every refresh", view: record(53003, category(schemas.Category_CATEGORY_NON_INTERACTIVE_USER), caStatus("failure"), policy("Block countries", "failure", block, "Block")),
		scenario: "ca_blocked", severity: "low"},
	{name: "53003 without Block is a requirement", view: record(53003, caStatus("failure"), policy("Compliant device", "failure", block, "RequireCompliantDevice")),
		scenario: "ca_failed", unknown: []string{"device_state"}, evidence: []string{`"unmet_controls":["RequireCompliantDevice"]`}},
	{name: "Block and a requirement", view: record(53003, caStatus("failure"), policy("Block countries", "failure", block, "Block"), policy("Compliant device", "failure", block, "RequireCompliantDevice")),
		scenario: "ca_blocked", also: []string{"ca_failed"}},
	{name: "device not compliant", view: record(53000, caStatus("failure"), with(func(r *schemas.SignIn) { r.IsCompliant = schemas.Tri_TRI_FALSE })), scenario: "ca_failed",
		evidence: []string{`"device_compliant":false`}},
	{name: "absent isCompliant is unknown", view: record(53000, caStatus("failure")), scenario: "ca_failed", unknown: []string{"device_state", "policy"}, evidence: []string{"!device_compliant"}},
	{name: "app not approved", view: record(53002), scenario: "ca_failed"},
	{name: "app protection", view: record(53009), scenario: "ca_failed"},
	{name: "external control broken", view: record(50161), scenario: "ca_failed"},
	{name: "policies fail beside a device check", view: record(50097, caStatus("success"), policy("Block registration", "failure", block, "Block")), scenario: "device_state",
		evidence: []string{"!policies"}},
	{name: "service principal blocked", view: record(53003, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL), caStatus("failure"), policy("Block workloads", "failure", schemas.ConditionServicePrincipals, "Block")),
		scenario: "ca_blocked"},

	// risk
	{name: "risk condition in the policy", view: record(53003, caStatus("failure"), policy("Block risk", "failure", block|schemas.ConditionSignInRisk, "Block"), risk("medium")),
		scenario: "risk_blocked", also: []string{"ca_blocked"}, severity: "medium", evidence: []string{`"risk_level":"medium"`}},
	{name: "user risk", view: record(53003, caStatus("failure"), policy("Block risky users", "failure", block|schemas.ConditionUserRisk, "Block")), scenario: "risk_blocked",
		also: []string{"ca_blocked"}, severity: "high", unknown: []string{"risk_level"}},
	{name: "risk level, policy withheld", view: record(53003, caStatus("failure"), risk("high")), scenario: "risk_blocked", also: []string{"ca_blocked"}, severity: "high", unknown: []string{"policy"}},
	{name: "risky sign-in blocked for its place", view: record(53003, caStatus("failure"), risk("low"), policy("Block countries", "failure", block|schemas.ConditionLocation, "Block")), scenario: "ca_blocked"},
	{name: "hidden risk is not risk", view: record(53003, caStatus("failure"), risk("hidden"), policy("Block countries", "failure", block, "Block")), scenario: "ca_blocked", unknown: []string{"risk"}},
	{name: "level of a workload means nothing", view: record(53003, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL), risk("low"), caStatus("failure")), scenario: "ca_blocked"},
	{name: "security policy of the tenant", view: record(530032), scenario: "risk_blocked", severity: "high", unknown: []string{"risk_level"}},
	{name: "registration refused for risk", view: record(53004), scenario: "risk_blocked", also: []string{"mfa_proofup"}},
	{name: "risk in the home tenant", view: record(53011, guest(), foreign()), scenario: "risk_blocked", also: []string{"b2b_failed"}},
	{name: "partner admin at risk", view: record(530034), scenario: "risk_blocked"},
	{name: "forced password change", view: record(50142, provider("riskBasedPolicy")), scenario: "risk_blocked", evidence: []string{`"mfa_demanded_by_risk":["riskBasedPolicy"]`, "!mfa_demanded_by"}},
	{name: "forced password change done", view: record(50142, outcome(OutcomeResolved, AttemptResolved)), scenario: "risk_blocked", severity: "low"},

	// external users
	{name: "guest blocked", view: record(53003, guest(), caStatus("failure"), policy("Block guests", "failure", block, "Block")), scenario: "b2b_ca_blocked", also: []string{"ca_blocked"}},
	{name: "guest's device", view: record(53000, foreign()), scenario: "b2b_ca_blocked", also: []string{"ca_failed"}, evidence: []string{`"home_tenant":"` + homeTenant + `"`}},
	{name: "guest by name", view: record(53001, with(func(r *schemas.SignIn) { r.UserPrincipalName = "x_example.net#EXT#@example.org" })), scenario: "b2b_ca_blocked", also: []string{"ca_failed"}, unknown: []string{"tenants"}},
	{name: "device claims not accepted", view: record(530004), scenario: "b2b_ca_blocked"},
	{name: "guest blocked for risk", view: record(53003, guest(), caStatus("failure"), risk("high")), scenario: "risk_blocked", also: []string{"b2b_ca_blocked", "ca_blocked"}},
	{name: "member of the same tenant", view: record(53003, caStatus("failure"), with(func(r *schemas.SignIn) {
		r.HomeTenantId, r.ResourceTenantId, r.CrossTenantAccessType = homeTenant, homeTenant, "none"
	})), scenario: "ca_blocked"},
	{name: "not invited", view: record(50020, foreign()), scenario: "b2b_failed", severity: "low"},
	{name: "inbound policy", view: record(500213, guest()), scenario: "b2b_failed"},
	{name: "account not in this tenant, resolved", view: record(16003, outcome(OutcomeResolved, AttemptResolved)), scenario: "b2b_failed", severity: "info"},
	{name: "guest disabled", view: record(500571, guest()), scenario: "b2b_failed", also: []string{"account_disabled"}},
	{name: "choose another account", view: record(16000), scenario: "interrupt"},

	// MFA
	{name: "prompt by Conditional Access", view: record(50076, provider("multiConditionalAccess"), caStatus("failure")), scenario: "ca_mfa", severity: "low"},
	{name: "prompt by a policy without a provider", view: record(50074, caStatus("failure"), policy("Require MFA", "failure", block, "Mfa")), scenario: "ca_mfa",
		evidence: []string{`"mfa_policies":["Require MFA"]`}},
	{name: "prompt, status alone tells", view: record(50076, caStatus("failure")), scenario: "ca_mfa"},
	{name: "prompt resolved", view: record(50074, provider("authenticationStrengths"), outcome(OutcomeResolved, AttemptResolved)), scenario: "ca_mfa", severity: "info"},
	{name: "prompt by per-user MFA", view: record(50076, provider("user")), scenario: "mfa_other"},
	{name: "prompt by both", view: record(50076, provider("user", "v1ConditionalAccess")), scenario: "ca_mfa"},
	{name: "prompt without a demander", view: record(50076, details("MFA required in Azure AD")), scenario: "mfa_other", unknown: []string{"mfa_demander"}},
	{name: "prompt by a risk policy", view: record(50076, provider("riskBasedPolicy")), scenario: "mfa_other"},
	{name: "prompt by security defaults", view: record(50076, provider("securityDefaults")), scenario: "security_defaults", severity: "low"},
	{name: "external step", view: record(50158, caStatus("failure"), policy("Custom MFA", "failure", 3, "Custom control")), scenario: "ca_mfa"},
	{name: "legacy client asked for MFA", view: record(50076, client("IMAP4"), caStatus("failure"), policy("Require MFA", "failure", block, "Mfa")), scenario: "legacy_auth", also: []string{"ca_mfa"}},
	{name: "challenge declined", view: record(500121, provider("multiConditionalAccess"), details("MFA denied; user declined the authentication")), scenario: "mfa_failed", also: []string{"ca_mfa"}, severity: "medium",
		evidence: []string{`"mfa_denied":true`}},
	{name: "challenge not answered", view: record(500121, details("MFA denied; user did not respond to mobile app notification")), scenario: "mfa_failed", severity: "low",
		evidence: []string{`"mfa_no_answer":true`, "!mfa_denied"}},
	{name: "wrong one-time code", view: record(500121, step("OATH verification code", "Multi-factor authentication", "MFA denied; invalid verification code", schemas.Tri_TRI_FALSE)), scenario: "mfa_failed",
		evidence: []string{`"mfa_wrong_code":true`, `"mfa_method":"OATH verification code"`}},
	{name: "fraud reported", view: record(500121, details("MFA denied; Fraud code entered")), scenario: "mfa_failed", also: []string{"password_known"}, severity: "high"},
	{name: "challenge without a result", view: record(500121), scenario: "mfa_failed", unknown: []string{"mfa_result"}},
	{name: "challenge under security defaults", view: record(500121, provider("securityDefaults")), scenario: "mfa_failed", also: []string{"security_defaults"}},
	{name: "nothing registered", view: record(500121, details("MFA denied; user has no verification methods registered")), scenario: "mfa_failed", also: []string{"mfa_proofup"}, evidence: []string{`"mfa_no_method":true`}},
	{name: "phone limit", view: record(50088), scenario: "mfa_failed"},
	{name: "registration", view: record(50072), scenario: "mfa_proofup", severity: "low"},
	{name: "registration by policy", view: record(50079, provider("multiConditionalAccess")), scenario: "mfa_proofup", also: []string{"ca_mfa"}},
	{name: "registration by security defaults", view: record(50072, provider("mfaRegistrationRequiredBySecurityDefaults")), scenario: "security_defaults", also: []string{"mfa_proofup"}},
	{name: "registration from a forbidden place", view: record(53010), scenario: "mfa_proofup", severity: "medium"},
	{name: "registration for password reset", view: record(50125), scenario: "interrupt", also: []string{"mfa_proofup"}},
	{name: "security defaults refuse", view: record(530035), scenario: "security_defaults", severity: "medium"},
	{name: "security defaults refuse a legacy client", view: record(530035, client("IMAP4")), scenario: "security_defaults", also: []string{"legacy_auth"}},

	// accounts, applications and the rest
	{name: "expired password", view: record(50055), scenario: "password_expired", evidence: []string{`"password_correct":true`}},
	{name: "expired on-premises", view: record(50144), scenario: "password_expired", also: []string{"pta"}},
	{name: "new password too weak", view: record(120002), scenario: "password_expired"},
	{name: "disabled", view: record(50057), scenario: "account_disabled"},
	{name: "age consent", view: record(50015), scenario: "error_insight"},
	{name: "pass-through agent", view: record(80001), scenario: "pta"},
	{name: "pass-through name", view: record(80004), scenario: "pta", also: []string{"wrong_password"}, evidence: []string{`"password_correct":false`}},
	{name: "wrong password of a pass-through user", view: record(50126, with(func(r *schemas.SignIn) { r.AuthenticationMethodsUsed = []string{"PTA"} })), scenario: "wrong_password"},
	{name: "Kerberos header", view: record(81006), scenario: "sso"},
	{name: "other Windows user", view: record(81012, outcome(OutcomeResolved, AttemptResolved)), scenario: "sso", severity: "info"},
	{name: "SAML request", view: record(75005), scenario: "app_service_provider"},
	{name: "wrong secret", view: record(7000215, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL)), scenario: "app_service_provider"},
	{name: "expired secret", view: record(7000222, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL), with(func(r *schemas.SignIn) { r.ServicePrincipalCredentialKeyId = "k-1" })),
		scenario: "app_configuration", evidence: []string{`"credential_key_id":"k-1"`}},
	{name: "not assigned", view: record(50105), scenario: "app_configuration"},
	{name: "reply URL", view: record(50011, with(func(r *schemas.SignIn) { r.RedirectUrl = "https://payroll.example.org/cb" })), scenario: "app_configuration",
		evidence: []string{`"redirect_url":"https://payroll.example.org/cb"`}},
	{name: "consent page", view: record(65001), scenario: "consent_required"},
	{name: "consent refused", view: record(65004), scenario: "consent_required"},
	{name: "device check resolved", view: record(50097, outcome(OutcomeResolved, AttemptResolved)), scenario: "device_state", severity: "info"},
	{name: "device deleted", view: record(700003), scenario: "device_state"},
	{name: "federated provider", view: record(50008), scenario: "federation"},
	{name: "sign-in frequency", view: record(70043), scenario: "token_session", severity: "info"},
	{name: "revoked", view: record(50173), scenario: "token_session", severity: "info"},
	{name: "service", view: record(90033), scenario: "service_fault"},
	{name: "stay signed in", view: record(50140), scenario: "interrupt", severity: "info"},
	{name: "stay signed in after MFA", view: record(50140, details("MFA required")), scenario: "interrupt"},
	{name: "silent sign-in", view: record(50058), scenario: "interrupt"},
	{name: "Graph refused", view: record(90093), scenario: "error_insight"},
	{name: "code of the future", view: record(999999, reason("A new failure.")), scenario: "error_insight", severity: "low", unknown: []string{"error_code_meaning"},
		evidence: []string{`"unknown_code":true`, `"failure_reason":"A new failure."`}},
	{name: "no code", view: record(0, with(func(r *schemas.SignIn) { r.Flags |= schemas.FlagNoErrorCode })), scenario: "error_insight", severity: "info", unknown: []string{"error_code"},
		evidence: []string{`"no_code":true`}},
	{name: "no code but a refusal", view: record(0, caStatus("failure"), with(func(r *schemas.SignIn) { r.Flags |= schemas.FlagNoErrorCode })), scenario: "error_insight", severity: "low"},

	// labels
	{name: "fifth failure", view: record(50126, failures(FailureView{Count: 5, Repeated: true, First: testTime - 3600e6, Last: testTime, Addresses: []string{"203.0.113.7"}, Codes: []int32{50126}})),
		scenario: "wrong_password", also: []string{"repeated_failures"}, severity: "medium", evidence: []string{`"failures_48h":5`}},
	{name: "interrupt among failures", view: record(50140, failures(FailureView{Count: 5, Repeated: true})), scenario: "interrupt", evidence: []string{"!failures_48h"}},
	{name: "expired token among failures", view: record(70044, failures(FailureView{Count: 5, Repeated: true})), scenario: "token_session"},
	{name: "stored password", view: record(50126, with(func(r *schemas.SignIn) { r.DeviceDisplayName = "phone" }), failures(FailureView{Count: 20, Repeated: true, First: testTime - 6000e6, Last: testTime, Applications: []string{"Mail"}, Devices: []string{"phone"},
		Addresses: []string{"203.0.113.7", "198.51.100.1"}, Codes: []int32{50126}, RegularSeconds: 300})),
		scenario: "wrong_password", also: []string{"repeated_failures", "cached_credential"}, severity: "low", evidence: []string{`"regular_seconds":300`}},
	{name: "regular but locked", view: record(50126, failures(FailureView{Count: 20, Repeated: true, Applications: []string{"Mail"}, Devices: []string{"phone"}, Codes: []int32{50126, 50053}, RegularSeconds: 300})),
		scenario: "wrong_password", also: []string{"repeated_failures"}},
	{name: "right password after a series", view: record(53003, caStatus("failure"), policy("Block countries", "failure", block, "Block"), failures(sprayed)),
		scenario: "ca_blocked", also: []string{"password_known", "repeated_failures"}, severity: "high", evidence: []string{`"wrong_passwords":10`}},
	{name: "right password after one slip", view: record(50074, provider("multiConditionalAccess"), failures(FailureView{Count: 1, WrongPasswords: 1, WrongPasswordsFromAddress: 1})), scenario: "ca_mfa"},
	{name: "right password, then in", view: record(50074, provider("multiConditionalAccess"), failures(sprayed), outcome(OutcomeResolved, AttemptResolved)), scenario: "ca_mfa", severity: "info"},
	{name: "lockout tells nothing of the password", view: record(50053, reason(lockedText), failures(sprayed)), scenario: "account_locked", also: []string{"repeated_failures"}},
	{name: "revoked session is weak proof", view: record(50133, failures(sprayed)), scenario: "token_session"},
	{name: "wrong passwords from elsewhere", view: record(53003, caStatus("failure"), failures(FailureView{Count: 11, Repeated: true, WrongPasswords: 10})), scenario: "ca_blocked", also: []string{"repeated_failures"}},
	{name: "flagged failure", view: record(50126, with(func(r *schemas.SignIn) { r.FlaggedForReview = true })), scenario: "wrong_password", also: []string{"flagged"}, severity: "medium"},
}

// judge classifies a view, filling outcomes that a case leaves open as the engine would for a lone record.
func judge(c *classifier, v *View, d *Diagnosis) {
	if v.Outcome == "" {
		v.Outcome = recordOutcome(v.SignIn, c.cat)
	}
	if v.Attempt.Outcome == "" {
		switch v.Outcome {
		case OutcomeSuccess:
			v.Attempt = AttemptView{Outcome: AttemptSucceeded, Successes: 1}
		case OutcomeFailure:
			v.Attempt = AttemptView{Outcome: AttemptFailed, Failures: 1, LastFailureCode: v.SignIn.ErrorCode}
		default:
			v.Attempt = AttemptView{Outcome: AttemptInterrupted, Interrupts: 1}
		}
		v.Attempt.ID, v.Attempt.First, v.Attempt.Last = v.SignIn.RequestId, v.SignIn.EventTime, v.SignIn.EventTime
	}
	c.classify(v, d)
}

func TestClassify(t *testing.T) {
	cat := loadCatalogue(t)
	c := newClassifier(cat, DefaultSettings())
	r := Renderer{Catalogue: cat}
	var d Diagnosis // reused, as by the engine
	for _, tc := range classifyCases {
		t.Run(tc.name, func(t *testing.T) {
			judge(c, tc.view, &d)
			if d.Scenario != tc.scenario {
				t.Errorf("scenario is %s, want %s", d.Scenario, tc.scenario)
			}
			if !slices.Equal(d.Also, tc.also) && len(d.Also)+len(tc.also) > 0 {
				t.Errorf("also is %v, want %v", d.Also, tc.also)
			}
			if tc.severity != "" && d.Severity != tc.severity {
				t.Errorf("severity is %s, want %s", d.Severity, tc.severity)
			}
			for _, u := range tc.unknown {
				if !slices.Contains(d.Unknown, u) {
					t.Errorf("unknown is %v, want %s in it", d.Unknown, u)
				}
			}
			json := string(d.Evidence.AppendJSON(nil))
			for _, e := range tc.evidence {
				if key, absent := strings.CutPrefix(e, "!"); absent {
					if d.Evidence.Get(key) != nil {
						t.Errorf("evidence holds %s: %s", key, json)
					}
				} else if !strings.Contains(json, e) {
					t.Errorf("evidence lacks %s: %s", e, json)
				}
			}
			checkDiagnosis(t, r, &d)
		})
	}
}

// checkDiagnosis holds for every diagnosis whatever the record is.
func checkDiagnosis(t *testing.T, r Renderer, d *Diagnosis) {
	t.Helper()
	cat := r.Catalogue
	headline := cat.Scenario(d.Scenario)
	if headline == nil || headline.Type != catalogue.TypeScenario {
		t.Fatalf("headline %q is no scenario", d.Scenario)
	}
	allowed := map[*catalogue.EvidenceKey]bool{}
	allow := func(keys []*catalogue.EvidenceKey) {
		for _, k := range keys {
			allowed[k] = true
		}
	}
	allow(cat.CommonEvidence())
	allow(headline.Evidence)
	last := 0
	for _, name := range d.Also {
		s := cat.Scenario(name)
		if s == nil || name == d.Scenario {
			t.Fatalf("also holds %q", name)
		}
		if s.Rank <= last {
			t.Errorf("also %v is not in rank order", d.Also)
		}
		last = s.Rank
		allow(s.Evidence)
	}
	for _, f := range d.Evidence.Facts() {
		if !allowed[f.Key] {
			t.Errorf("evidence %s belongs to none of %s, %v", f.Key.Name, d.Scenario, d.Also)
		}
	}
	for _, u := range d.Unknown {
		if cat.Unknown(u) == nil {
			t.Errorf("unknown key %s is not in the catalogue", u)
		}
	}
	if !slices.Contains(severityOrder[:], d.Severity) {
		t.Errorf("severity %q is none", d.Severity)
	}
	for _, caps := range []catalogue.Capability{catalogue.CapabilityRecords, catalogue.AllCapabilities} {
		summary := string(r.Summary(nil, d, caps))
		if summary == "" || strings.Contains(summary, "  ") || strings.Contains(summary, " .") || strings.ContainsAny(summary, "{}[]") || !strings.HasSuffix(summary, ".") {
			t.Errorf("summary reads %q", summary)
		}
		if len(r.Actions(d, caps)) == 0 {
			t.Error("no action")
		}
		for _, a := range r.Actions(d, caps) {
			if a.Text == "" || a.Role == "" || strings.Contains(a.Text, "  ") || strings.ContainsAny(a.Text, "{}[]") {
				t.Errorf("action reads %q (%s)", a.Text, a.Role)
			}
		}
	}
	if len(r.Links(d, catalogue.AllCapabilities)) == 0 {
		t.Error("no link")
	}
}

// Every scenario and label is met by at least one case as it stands in a diagnosis.
func TestClassifyCasesCoverCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, tc := range classifyCases {
		seen[tc.scenario] = true
		for _, name := range tc.also {
			if s := loadCatalogue(t).Scenario(name); s != nil && s.Type == catalogue.TypeLabel {
				seen[name] = true
			}
		}
	}
	for _, s := range loadCatalogue(t).Scenarios() {
		if !seen[s.Name] {
			t.Errorf("no case for %s", s.Name)
		}
	}
	if len(classifyCases) < 80 {
		t.Errorf("%d cases", len(classifyCases))
	}
}

// Every code of the catalogue, for a person and for a workload and with each outcome, gives a whole diagnosis.
func TestClassifyEveryCode(t *testing.T) {
	cat := loadCatalogue(t)
	c := newClassifier(cat, DefaultSettings())
	r := Renderer{Catalogue: cat}
	var d Diagnosis
	for _, code := range cat.Codes() {
		for _, options := range [][]option{
			nil,
			{workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL)},
			{category(schemas.Category_CATEGORY_NON_INTERACTIVE_USER), client("IMAP4")},
			{with(func(s *schemas.SignIn) { *s = schemas.SignIn{ErrorCode: s.ErrorCode} })},
			{guest(), foreign(), caStatus("failure"), policy("P", "failure", 3, "Block")},
		} {
			v := record(code.Code, options...)
			judge(c, v, &d)
			if code.IsInterrupt() != (d.Outcome == OutcomeInterrupted) {
				t.Errorf("code %d: outcome %s", code.Code, d.Outcome)
			}
			checkDiagnosis(t, r, &d)
			if code.IsInterrupt() {
				judge(c, record(code.Code, append(options, outcome(OutcomeResolved, AttemptResolved))...), &d)
				checkDiagnosis(t, r, &d)
				if severityRank(d.Severity) > severityRank(SeverityLow) && d.Scenario != ScenarioRiskBlocked {
					t.Errorf("code %d resolved: severity %s", code.Code, d.Severity)
				}
			}
			if t.Failed() {
				t.Fatalf("code %d: %s %v %s", code.Code, d.Scenario, d.Also, r.Summary(nil, &d, catalogue.AllCapabilities))
			}
		}
	}
}

func TestRecordOutcome(t *testing.T) {
	cat := loadCatalogue(t)
	noCode := with(func(r *schemas.SignIn) { r.Flags |= schemas.FlagNoErrorCode })
	for _, tc := range []struct {
		name string
		view *View
		want string
	}{
		{"success", record(0), OutcomeSuccess},
		{"failure", record(50126), OutcomeFailure},
		{"interrupt", record(50140), OutcomeInterrupted},
		{"expired password waits for the user", record(50055), OutcomeInterrupted},
		{"unknown code", record(999999), OutcomeFailure},
		{"no code", record(0, noCode), OutcomeSuccess},
		{"no code, refused", record(0, noCode, caStatus("failure")), OutcomeFailure},
		{"no code, text of a failure", record(0, noCode, reason("Invalid password")), OutcomeFailure},
		{"no code, text of a success in Graph", record(0, noCode, reason("Other.")), OutcomeSuccess},
		{"no code, failed step", record(0, noCode, step("Password", "Primary authentication", "", schemas.Tri_TRI_FALSE)), OutcomeFailure},
	} {
		if got := recordOutcome(tc.view.SignIn, cat); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestCountsAsFailure(t *testing.T) {
	cat := loadCatalogue(t)
	nonInteractive := category(schemas.Category_CATEGORY_NON_INTERACTIVE_USER)
	for _, tc := range []struct {
		name string
		view *View
		want bool
	}{
		{"success", record(0), false},
		{"wrong password", record(50126), true},
		{"lockout", record(50053), true},
		{"blocked by policy", record(53003), true},
		{"MFA failed", record(500121), true},
		{"disabled", record(50057), true},
		{"prompt", record(50074), false},
		{"stay signed in", record(50140), false},
		{"sign-in frequency", record(70043), false},
		{"ended session", record(70044), false},
		{"revoked", record(50173), false},
		{"consent", record(65001), false},
		{"consent refused", record(65004), false},
		{"service", record(90033), false},
		{"pass-through outage", record(80001), false},
		{"application", record(50011), false},
		{"wrong secret", record(7000215), false},
		{"expired password, a person is there", record(50055), false},
		{"expired password, nobody is there", record(50055, nonInteractive), true},
		{"expired password, legacy client", record(50055, client("IMAP4")), true},
		{"unknown code", record(999999), false},
		{"workload", record(53003, workload(schemas.Category_CATEGORY_SERVICE_PRINCIPAL)), false},
	} {
		if got := countsAsFailure(tc.view.SignIn, cat); got != tc.want {
			t.Errorf("%s: %t, want %t", tc.name, got, tc.want)
		}
	}
}

func BenchmarkClassifySuccess(b *testing.B) {
	benchmarkClassify(b, record(0, provider("multiConditionalAccess"), policy("Require MFA", "success", 3, "Mfa"), details("MFA requirement satisfied by claim in the token")))
}

func BenchmarkClassifyPlainSuccess(b *testing.B) {
	benchmarkClassify(b, record(0, category(schemas.Category_CATEGORY_NON_INTERACTIVE_USER)))
}

func BenchmarkClassifyWrongPassword(b *testing.B) {
	benchmarkClassify(b, record(50126, failures(sprayed)))
}

func BenchmarkClassifyBlocked(b *testing.B) {
	benchmarkClassify(b, record(53003, caStatus("failure"), policy("Block countries", "failure", 11, "Block"), policy("Compliant device", "failure", 3, "RequireCompliantDevice"), failures(sprayed)))
}

func benchmarkClassify(b *testing.B, v *View) {
	c := newClassifier(loadCatalogue(b), DefaultSettings())
	var d Diagnosis
	judge(c, v, &d)
	b.ReportAllocs()
	for b.Loop() {
		c.classify(v, &d)
	}
}

// A reused diagnosis allocates nothing once its slices have grown.
func TestClassifyDoesNotAllocate(t *testing.T) {
	c := newClassifier(loadCatalogue(t), DefaultSettings())
	for name, v := range map[string]*View{
		"success": record(0, provider("multiConditionalAccess"), policy("Require MFA", "success", 3, "Mfa")),
		"blocked": record(53003, caStatus("failure"), policy("Block countries", "failure", 11, "Block"), failures(sprayed)),
	} {
		var d Diagnosis
		judge(c, v, &d)
		if n := testing.AllocsPerRun(100, func() { c.classify(v, &d) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
