package synthetic

import (
	"fmt"
	"time"

	"github.com/signindiag/signindiag/schemas"
)

// sampleTime is createdDateTime of all samples.
var sampleTime = time.Date(2026, 3, 2, 8, 13, 55, 103456700, time.UTC)

// scenarioSample is one record that stands for a scenario.
type scenarioSample struct {
	scenario string
	shape    func(s *SignInSpec)
}

const (
	conditionsBase = schemas.ConditionApplication | schemas.ConditionUsers
	foreignTenant  = "5d0b7a64-0000-4d11-9c00-0000000000f1"
)

func samplePolicy(name, result string, satisfied uint32, controls ...string) Policy {
	return Policy{ID: NamedGUID("policy", name), DisplayName: name, Result: result, GrantControls: controls, Satisfied: satisfied,
		Include: []Rule{{"application", "allApps"}, {"users", "allUsers"}}}
}

func secondFactor(succeeded schemas.Tri, result string) Step {
	return Step{Method: "Mobile app notification", Succeeded: succeeded, ResultDetail: result, Requirement: StepMultiFactor, After: 20 * time.Second}
}

// needMFA makes the record one that had to pass a second factor, demanded by provider.
func (s *SignInSpec) needMFA(provider string) {
	s.AuthenticationRequirement = RequirementMultiFactor
	s.RequirementPolicies = []RequirementPolicy{{provider, ""}}
}

// samples has one record per scenario of the catalogue and per label that a single record can carry.
var samples = []scenarioSample{
	{"success", func(s *SignInSpec) {}},
	{"interrupt", func(s *SignInSpec) { s.ErrorCode = 50140 }},
	{"wrong_password", func(s *SignInSpec) { s.ErrorCode, s.Steps = 50126, nil }},
	{"unknown_user", func(s *SignInSpec) {
		s.ErrorCode, s.Steps = 50034, nil
		s.UserID, s.UserDisplayName, s.UserPrincipalName = "00000000-0000-0000-0000-000000000000", "", "adda@example.org"
	}},
	{"account_locked", func(s *SignInSpec) { s.ErrorCode, s.Steps = 50053, nil }},
	{"malicious_ip_blocked", func(s *SignInSpec) { s.ErrorCode, s.FailureReason, s.Steps = 50053, MaliciousAddressText, nil }},
	{"account_disabled", func(s *SignInSpec) { s.ErrorCode = 50057 }},
	{"password_expired", func(s *SignInSpec) { s.ErrorCode = 50055 }},
	{"ca_blocked", func(s *SignInSpec) {
		s.ErrorCode = 53003
		s.Policies = append(s.Policies, samplePolicy("Block countries without staff", "failure", conditionsBase|schemas.ConditionLocation, "Block"))
	}},
	{"ca_failed", func(s *SignInSpec) {
		s.ErrorCode = 53000
		s.Device.IsCompliant = schemas.Tri_TRI_FALSE
		s.Policies = append(s.Policies, samplePolicy("Payroll only from compliant devices", "failure", conditionsBase, "RequireCompliantDevice"))
	}},
	{"ca_mfa", func(s *SignInSpec) {
		s.ErrorCode = 50074
		s.needMFA("multiConditionalAccess")
		s.Policies = append(s.Policies, samplePolicy("Require MFA for all users", "failure", conditionsBase, "Mfa"))
	}},
	{"mfa_other", func(s *SignInSpec) {
		s.ErrorCode = 50076
		s.needMFA("user")
	}},
	{"mfa_proofup", func(s *SignInSpec) {
		s.ErrorCode = 50072
		s.needMFA("mfaRegistrationRequiredByMultiConditionalAccess")
	}},
	{"mfa_failed", func(s *SignInSpec) {
		s.ErrorCode = 500121
		s.needMFA("multiConditionalAccess")
		s.Steps = append(s.Steps, secondFactor(schemas.Tri_TRI_FALSE, "MFA denied; user declined the authentication"))
		s.AdditionalDetails = "MFA denied; user declined the authentication"
	}},
	{"b2b_ca_blocked", func(s *SignInSpec) {
		s.guest()
		s.ErrorCode = 53003
		s.Policies = append(s.Policies, samplePolicy("Guests stay outside", "failure", conditionsBase, "Block"))
	}},
	{"b2b_failed", func(s *SignInSpec) {
		s.guest()
		s.ErrorCode, s.FailureReason = 500213, "The resource tenant does not let this user in."
	}},
	{"legacy_auth", func(s *SignInSpec) {
		s.ErrorCode, s.ClientAppUsed, s.UserAgent, s.AuthenticationProtocol, s.Device = 53003, "IMAP4", uaLegacy, "ropc", Device{}
		s.Policies = append(s.Policies, samplePolicy("Block old mail clients", "failure", conditionsBase|schemas.ConditionClientType, "Block"))
	}},
	{"missed_interrupt", func(s *SignInSpec) {
		s.Policies = append(s.Policies, samplePolicy("Trial: passkeys for everyone", "reportOnlyFailure", conditionsBase, "Mfa"))
	}},
	{"risk_blocked", func(s *SignInSpec) {
		s.ErrorCode = 53003
		s.Risk = Risk{LevelDuringSignIn: "high", State: "atRisk", EventTypes: []string{"anonymizedIPAddress"}}
		s.Policies = append(s.Policies, samplePolicy("Block high risk", "failure", conditionsBase|schemas.ConditionSignInRisk, "Block"))
	}},
	{"security_defaults", func(s *SignInSpec) { s.ErrorCode, s.ClientAppUsed = 530035, "POP3" }},
	{"consent_required", func(s *SignInSpec) { s.ErrorCode = 65001 }},
	{"app_service_provider", func(s *SignInSpec) {
		s.ErrorCode, s.FailureReason = 75005, "The application sent a SAML request in a form that is not supported."
	}},
	{"app_configuration", func(s *SignInSpec) { s.ErrorCode = 50105 }},
	{"pta", func(s *SignInSpec) { s.ErrorCode, s.Steps = 80002, nil }},
	{"sso", func(s *SignInSpec) {
		s.ErrorCode, s.FailureReason, s.Steps = 81007, "Seamless single sign-on is not switched on for the tenant.", nil
		s.Category, s.AuthenticationProtocol = schemas.Category_CATEGORY_NON_INTERACTIVE_USER, "seamlessSso"
	}},
	{"device_state", func(s *SignInSpec) { s.ErrorCode, s.ConditionalAccessStatus = 50097, "failure" }},
	{"federation", func(s *SignInSpec) {
		s.ErrorCode, s.FailureReason = 50107, "The federation realm that was asked for does not exist."
	}},
	{"token_session", func(s *SignInSpec) {
		s.ErrorCode, s.Category, s.Steps = 700082, schemas.Category_CATEGORY_NON_INTERACTIVE_USER, nil
		s.IncomingTokenType = "refreshToken"
	}},
	{"service_fault", func(s *SignInSpec) {
		s.ErrorCode, s.FailureReason = 90033, "The service is not available for a short time."
	}},
	{"error_insight", func(s *SignInSpec) { s.ErrorCode, s.FailureReason = 999999, "A code that no table knows yet." }},
	{"flagged", func(s *SignInSpec) { s.ErrorCode, s.FlaggedForReview, s.Steps = 50126, true, nil }},
}

func (s *SignInSpec) guest() {
	s.UserType, s.CrossTenantAccessType, s.HomeTenantID, s.ResourceTenantID = "Guest", "b2bCollaboration", foreignTenant, s.TenantID
}

// SampleScenarios lists the scenarios that Sample and SampleSpec know: every scenario of the catalogue,
// and the label flagged. The other labels need more than one record.
func SampleScenarios() []string {
	names := make([]string, len(samples))
	for i := range samples {
		names[i] = samples[i].scenario
	}
	return names
}

// SampleSpec returns a record whose headline is the scenario (for the label flagged: that carries it). The
// spec is the caller's own. It is nil for an unknown scenario.
func SampleSpec(scenario string) *SignInSpec {
	for i := range samples {
		if samples[i].scenario != scenario {
			continue
		}
		s := &SignInSpec{
			Time: sampleTime, ProcessingDelay: 105 * time.Second,
			RequestID: NamedGUID("sample", scenario), CorrelationID: NamedGUID("sample correlation", scenario),
			TenantID: NamedGUID("tenant", "contoso"),
			UserID:   NamedGUID("user", "ana"), UserPrincipalName: "ana.meier@example.org", UserDisplayName: "Ana Meier",
			AppID: applications[appExchange].id, AppDisplayName: applications[appExchange].name,
			ResourceID: applications[appExchange].resourceID, ResourceDisplayName: applications[appExchange].resource,
			ClientAppUsed: ClientBrowser, UserAgent: uaEdge,
			Device: Device{ID: NamedGUID("device", "ana"), DisplayName: "LAPTOP-ANA", OperatingSystem: "Windows 11", Browser: "Edge 142.0.0",
				TrustType: "Azure AD joined", IsCompliant: schemas.Tri_TRI_TRUE, IsManaged: schemas.Tri_TRI_TRUE},
			Address: "203.0.113.7", AutonomousSystemNumber: asnHome, Place: places[0].Place,
			Steps: []Step{{Method: "Password", MethodDetail: "Password in the cloud", Succeeded: schemas.Tri_TRI_TRUE, ResultDetail: "Correct password"}},
			Policies: []Policy{{ID: NamedGUID("policy", "Guests: terms of use"), DisplayName: "Guests: terms of use", Result: "notApplied",
				GrantControls: []string{"Contoso terms of use"}, Satisfied: schemas.ConditionApplication, NotSatisfied: schemas.ConditionUsers}},
			Scopes: mailScopes, ProcessingTimeMilliseconds: 143,
		}
		samples[i].shape(s)
		return s
	}
	return nil
}

// Sample returns SampleSpec's record in a dialect, without an envelope. An unknown scenario panics, so that a
// test with a typing error does not pass.
func Sample(scenario string, d Dialect) []byte {
	s := SampleSpec(scenario)
	if s == nil {
		panic(fmt.Sprintf("synthetic: no sample of scenario %q", scenario))
	}
	return Append(nil, s, d)
}
