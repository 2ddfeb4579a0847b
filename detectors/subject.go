package detectors

import (
	"slices"
	"strings"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Thresholds of labels that are not windows of their own.
const (
	// manyAddresses is from how many addresses on the failures of one user look like several sources.
	manyAddresses = 3
	// knownAfterWrong is how many wrong passwords from one address make a right one suspicious: half of the ten
	// after which smart lockout acts by default.
	knownAfterWrong = 5
	// cachedAfter is how many regular failures make a stored password: ten, as in the table of windows.
	cachedAfter = 10
)

// demand says who demanded MFA, as a bit set.
type demand uint8

const (
	demandCA               demand = 1 << iota // Conditional Access
	demandSecurityDefaults                    // security defaults, formerly baseline protection
	demandOther                               // per-user MFA, the application, a legacy policy ...
	demandRisk                                // a risk policy; also demandOther
	demandRegistration                        // registration of MFA methods
)

// providers maps requirementProvider of authenticationRequirementPolicies (Microsoft Graph, beta) to demands.
var providers = []struct {
	name   string
	demand demand
}{
	{"multiConditionalAccess", demandCA},
	{"v1ConditionalAccess", demandCA},
	{"v1ConditionalAccessDependency", demandCA},
	{"v1ConditionalAccessPolicyIdRequested", demandCA},
	{"authenticationStrengths", demandCA},
	{"gpsLocationCondition", demandCA},
	// What Graph writes where the caller did not ask for newer values: somebody demanded MFA, nobody knows who.
	{"unknownFutureValue", 0},
	{"user", demandOther},
	{"request", demandOther},
	{"servicePrincipal", demandOther},
	{"enforcedForCspAdmins", demandOther},
	{"crossTenantOutboundRule", demandOther},
	{"scopeBasedAuthRequirementPolicy", demandOther},
	{"tenantSessionRiskPolicy", demandOther | demandRisk},
	{"accountCompromisePolicies", demandOther | demandRisk},
	{"riskBasedPolicy", demandOther | demandRisk},
	{"securityDefaults", demandSecurityDefaults},
	{"baselineProtection", demandSecurityDefaults},
	{"mfaRegistrationRequiredBySecurityDefaults", demandSecurityDefaults | demandRegistration},
	{"mfaRegistrationRequiredByBaselineProtection", demandSecurityDefaults | demandRegistration},
	{"mfaRegistrationRequiredByMultiConditionalAccess", demandCA | demandRegistration},
	{"mfaRegistrationRequiredByIdentityProtectionPolicy", demandOther | demandRisk | demandRegistration},
	{"proofUpCodeRequest", demandOther | demandRegistration},
}

func providerDemand(name string) demand {
	for i := range providers {
		if strings.EqualFold(providers[i].name, name) {
			return providers[i].demand
		}
	}
	if hasPrefixFold(name, "mfaRegistrationRequiredBy") {
		return demandOther | demandRegistration
	}
	return demandOther
}

// subject is a record while it is judged: the view, the diagnosis that is being filled, and what several
// scenarios ask of the record, found once.
type subject struct {
	c    *classifier
	cat  *catalogue.Catalogue
	keys *evidenceKeys
	v    *View
	r    *schemas.SignIn
	d    *Diagnosis
	e    *Evidence

	code    *catalogue.Code // nil where the catalogue does not know it, and for a record without one
	noCode  bool
	user    bool // a person's record rather than a workload's
	legacy  bool // the client has no modern authentication
	foreign bool // home and resource tenant are named and differ
	// external: a guest or a person of another tenant.
	external bool

	// Policies with the result failure, and what is in them.
	failing          int
	failingBlock     bool // at least one holds Block
	failingControls  bool // at least one holds another control and no Block
	failingMFADevice bool // at least one asks for MFA or a device, which legacy clients cannot give
	failingDevice    bool // at least one asks for a device
	failingRisk      bool // signInRisk or userRisk matched
	failingClient    bool // clientType matched in one that blocks
	failingGuest     bool // a rule about guests matched
	conditionsKnown  bool // at least one says which conditions matched
	reportOnly       bool // a report-only policy would have stopped or interrupted the sign-in
	mfaPolicy        bool // a policy that applied asks for MFA
	mfaPolicyPassed  bool // a policy that asks for MFA and for nothing else was met

	demand       demand
	statusOnly   bool // only conditionalAccessStatus tells that Conditional Access demanded MFA
	mfaRequired  bool
	mfaSatisfied bool
	mfaStep      *schemas.AuthenticationStep // the last step of MFA
	mfaText      string                      // what came of MFA, in Entra's words
	mfaDenied    bool                        // set by mfa_failed
	assessment   string                      // set by wrong_password
	refused      bool                        // a success that Conditional Access refused all the same; set by legacy_auth
	passwordStep schemas.Tri                 // whether the password step succeeded
	riskUser     bool                        // set by risk_blocked
}

// success reports whether the record is a success by its code.
func (s *subject) success() bool { return s.r.ErrorCode == 0 && !s.noCode }

// is reports whether the code is one of the given.
func (s *subject) is(codes ...int32) bool {
	for _, c := range codes {
		if s.r.ErrorCode == c {
			return true
		}
	}
	return false
}

// byCode judges by the catalogue alone: it explains the scenario's own codes and labels its also_codes.
func (s *subject) byCode(name string) verdict {
	if s.code == nil {
		return doesNotApply
	}
	if s.code.Scenario.Name == name {
		return explains
	}
	for _, also := range s.code.Also {
		if also.Name == name {
			return labels
		}
	}
	return doesNotApply
}

// Codes of prompts whose headline is who demanded them.
func (s *subject) mfaPrompt() bool { return s.is(50074, 50076, 50078, 50158) }

// caRefusal reports whether the code is a terminal refusal by Conditional Access. Policies with the result failure prove
// none without such a code: they are evaluated for other actions too.
func (s *subject) caRefusal() bool {
	return s.code != nil && s.code.Category == "conditional_access" && !s.code.IsInterrupt()
}

const (
	riskUnknown = ""
	riskHidden  = "hidden"
	riskHigh    = "high"
	riskMedium  = "medium"
	riskLow     = "low"
)

// riskTold reports whether the risk fields mean anything. Those of workloads hold "low", the first member of the enumeration,
// by default; they speak only where the state says that there is a risk.
func (s *subject) riskTold() bool {
	return s.user || strings.EqualFold(s.r.RiskState, "atRisk") || strings.EqualFold(s.r.RiskState, "confirmedCompromised")
}

// riskOver reports whether the risk was dealt with: remediated (as by passing MFA that a risk policy demanded),
// dismissed or confirmed as safe.
func (s *subject) riskOver() bool {
	return strings.EqualFold(s.r.RiskState, "remediated") || strings.EqualFold(s.r.RiskState, "dismissed") ||
		strings.EqualFold(s.r.RiskState, "confirmedSafe")
}

// riskLevel returns the level during the sign-in: riskHigh, riskMedium, riskLow, riskHidden, or riskUnknown for none and
// where it means nothing.
func (s *subject) riskLevel() string {
	if !s.riskTold() {
		return riskUnknown
	}
	for _, level := range [...]string{riskHigh, riskMedium, riskLow, riskHidden} {
		if strings.EqualFold(s.r.RiskLevelDuringSignIn, level) {
			return level
		}
	}
	return riskUnknown
}

// facts finds what several scenarios ask.
func (s *subject) facts() {
	r := s.r
	s.noCode = r.ErrorCode == 0 && r.Flags&schemas.FlagNoErrorCode != 0
	if !s.noCode {
		s.code = s.cat.Code(r.ErrorCode)
	}
	s.user = r.Category.IsUser()
	s.legacy = s.user && isLegacyClient(r.ClientAppUsed)
	s.foreign = named(r.HomeTenantId) && named(r.ResourceTenantId) && !strings.EqualFold(r.HomeTenantId, r.ResourceTenantId)
	s.external = s.user && (s.foreign || strings.EqualFold(r.UserType, "guest") || strings.EqualFold(r.UserType, "external") ||
		r.CrossTenantAccessType != "" && !strings.EqualFold(r.CrossTenantAccessType, "none") ||
		containsFold(r.UserPrincipalName, "#ext#"))
	s.policyFacts()
	for _, p := range r.AuthenticationRequirementPolicies {
		if p.GetRequirementProvider() != "" {
			s.demand |= providerDemand(p.RequirementProvider)
		}
	}
	if s.mfaPolicy {
		s.demand |= demandCA
	}
	if s.adapter() != "" {
		s.demand |= demandOther
	}
	if s.mfaPrompt() && s.demand == 0 && strings.EqualFold(r.ConditionalAccessStatus, "failure") {
		// A policy had the user and the application in scope and its control was not met: that is the demand.
		s.demand |= demandCA
		s.statusOnly = true
	}
	s.mfaFacts()
}

// adapter returns who asked for MFA outside of Microsoft Entra's own sign-in: the MFA adapter of AD FS or the extension of a
// network policy server, which name themselves as the issuer of the token or as the resource; else "". Their
// records name no demander and lack many fields.
func (s *subject) adapter() string {
	switch {
	case strings.EqualFold(s.r.TokenIssuerType, "ADFederationServicesMFAAdapter"), strings.EqualFold(s.r.ResourceId, "adfs"):
		return "ADFederationServicesMFAAdapter"
	case strings.EqualFold(s.r.TokenIssuerType, "NPSExtension"), strings.EqualFold(s.r.ResourceId, "radius"):
		return "NPSExtension"
	}
	return ""
}

func (s *subject) policyFacts() {
	// Where everything that was enforced was met, a failing policy was evaluated for another action, such as a registration.
	met := s.success() || strings.EqualFold(s.r.ConditionalAccessStatus, "success")
	for _, p := range s.r.Policies {
		switch {
		case strings.EqualFold(p.Result, "interrupted"), strings.EqualFold(p.Result, "interrupt"):
			_, mfa, _, _ := controls(p)
			s.mfaPolicy = s.mfaPolicy || mfa && !met
		case strings.EqualFold(p.Result, "failure"):
			s.failing++
			block, mfa, device, other := controls(p)
			s.failingBlock = s.failingBlock || block
			s.failingControls = s.failingControls || !block && (mfa || device || other)
			s.failingMFADevice = s.failingMFADevice || !block && (mfa || device)
			s.failingDevice = s.failingDevice || !block && device
			s.mfaPolicy = s.mfaPolicy || mfa && !met
			if p.ConditionsSatisfied != 0 {
				s.conditionsKnown = true
			}
			if p.ConditionsSatisfied&(schemas.ConditionSignInRisk|schemas.ConditionUserRisk|schemas.ConditionServicePrincipalRisk) != 0 {
				s.failingRisk = true
			}
			if block && p.ConditionsSatisfied&schemas.ConditionClientType != 0 {
				s.failingClient = true
			}
			s.failingGuest = s.failingGuest || guestRule(p)
		case strings.EqualFold(p.Result, "success"):
			block, mfa, device, other := controls(p)
			s.mfaPolicy = s.mfaPolicy || mfa
			s.mfaPolicyPassed = s.mfaPolicyPassed || mfa && !block && !device && !other
		case strings.EqualFold(p.Result, "reportOnlyFailure"), strings.EqualFold(p.Result, "reportOnlyInterrupted"):
			s.reportOnly = true
		}
	}
}

// controls says what a policy asks for.
func controls(p *schemas.Policy) (block, mfa, device, other bool) {
	for _, c := range p.EnforcedGrantControls {
		switch {
		case strings.EqualFold(c, "Block"):
			block = true
		case strings.EqualFold(c, "Mfa"):
			mfa = true
		case strings.EqualFold(c, "RequireCompliantDevice"), strings.EqualFold(c, "RequireDomainJoinedDevice"):
			device = true
		case c != "":
			other = true
		}
	}
	if p.AuthenticationStrength != "" {
		mfa = true
	}
	return block, mfa, device, other
}

// Rules of Conditional Access that are about external users (Microsoft Graph, conditionalAccessRule).
func guestRule(p *schemas.Policy) bool {
	for _, rule := range p.IncludeRulesSatisfied {
		for _, name := range [...]string{
			"guest", "b2bCollaborationGuest", "b2bCollaborationMember", "b2bDirectConnectUser", "otherExternalUser",
			"serviceProvider", "internalGuest",
		} {
			if strings.EqualFold(rule.GetRuleSatisfied(), name) {
				return true
			}
		}
	}
	return false
}

// mfaFacts reads the steps. Spellings vary ("Multi-factor", "Multifactor", "Azure AD", "Entra ID") and steps may be
// absent or wrong at first, so fragments are matched and the details of the status help out.
func (s *subject) mfaFacts() {
	r := s.r
	s.mfaRequired = strings.EqualFold(r.AuthenticationRequirement, "multiFactorAuthentication") || s.demand&^demandRegistration != 0
	for _, step := range r.AuthenticationDetails {
		if step == nil {
			continue
		}
		if isMFAStep(step) {
			s.mfaStep = step
			if s.mfaText == "" || step.ResultDetail != "" {
				s.mfaText = step.ResultDetail
			}
		} else if isPassword(step.Method) || containsFold(step.ResultDetail, "correct password") {
			s.passwordStep = step.Succeeded
		}
	}
	if s.mfaText == "" && containsFold(r.AdditionalDetails, "mfa") {
		s.mfaText = r.AdditionalDetails
	}
	s.mfaSatisfied = isSatisfied(s.mfaText) || s.mfaText == "" && s.mfaStep != nil && s.mfaStep.Succeeded == schemas.Tri_TRI_TRUE
	s.mfaRequired = s.mfaRequired || s.mfaStep != nil || s.mfaText != ""
}

// isPassword reports whether a method is a password. "Passwordless phone sign-in" is none.
func isPassword(method string) bool {
	return containsFold(method, "password") && !containsFold(method, "passwordless")
}

func isMFAStep(step *schemas.AuthenticationStep) bool {
	if containsFold(step.ResultDetail, "mfa") {
		return true
	}
	if step.Requirement == "" || containsFold(step.Requirement, "primary") {
		return false
	}
	return true // "Multi-factor authentication", or the name of an authentication strength
}

// isSatisfied reports whether a result text of MFA says that the demand was met.
func isSatisfied(text string) bool {
	if text == "" {
		return false
	}
	if containsFold(text, "not satisfied") || containsFold(text, "denied") || containsFold(text, "failed") {
		return false
	}
	return containsFold(text, "satisfied") || containsFold(text, "completed") || containsFold(text, "skipped due to") ||
		containsFold(text, "successfully")
}

// isLegacyClient reports whether clientAppUsed names a client without modern authentication. "Other clients" are
// counted as such, as Microsoft's workbook does; an absent or unknown client is not.
func isLegacyClient(client string) bool {
	return client != "" && !strings.EqualFold(client, "Browser") && !strings.EqualFold(client, "Mobile Apps and Desktop clients") &&
		!strings.EqualFold(client, "Unknown")
}

// recordEvidence sets what the record says of any sign-in.
func (s *subject) recordEvidence() {
	r, e, k := s.r, s.e, s.keys
	e.SetText(k.city, r.City)
	e.SetText(k.country, r.CountryOrRegion)
	if !s.success() {
		e.SetText(k.failureReason, failureReason(r))
		if s.noCode {
			e.SetBool(k.noCode, true)
			if s.empty() {
				e.SetBool(k.emptyRecord, true)
			}
		} else if s.code == nil {
			e.SetBool(k.unknownCode, true)
		}
	}
	e.SetText(k.additionalDetails, r.AdditionalDetails)
	if !s.user {
		e.SetText(k.servicePrincipal, r.ServicePrincipalName)
		if named(r.ServicePrincipalId) {
			e.SetText(k.servicePrincipalID, r.ServicePrincipalId)
		}
	}
	if s.user && s.mfaRequired && (s.success() || s.mfaStep != nil || s.demand != 0) {
		s.mfaEvidence()
	}
}

// empty reports whether a record names nobody and nothing, so that only its log and its time are known.
func (s *subject) empty() bool {
	r := s.r
	return firstNamed(r.UserPrincipalName, r.UserDisplayName, r.UserId, r.SignInIdentifier) == "" && r.IpAddress == "" &&
		firstNamed(r.AppDisplayName, r.AppId, r.ResourceDisplayName, r.ResourceId) == "" &&
		firstNamed(r.ServicePrincipalName, r.ServicePrincipalId) == ""
}

func (s *subject) mfaEvidence() {
	e, k := s.e, s.keys
	e.SetBool(k.mfaRequired, true)
	if s.mfaSatisfied {
		e.SetBool(k.mfaSatisfied, true)
	}
	for _, p := range s.r.AuthenticationRequirementPolicies {
		if providerDemand(p.GetRequirementProvider())&demandRisk != 0 {
			e.Add(k.mfaDemandedByRisk, p.RequirementProvider)
		} else {
			e.Add(k.mfaDemandedBy, p.GetRequirementProvider())
		}
	}
	if adapter := s.adapter(); adapter != "" {
		e.Add(k.mfaDemandedBy, adapter)
	}
	if s.mfaStep != nil {
		e.SetText(k.mfaMethod, s.mfaStep.Method)
	}
	e.SetText(k.mfaResult, s.mfaText)
	for _, p := range s.r.Policies {
		if !strings.EqualFold(p.Result, "success") && (s.success() || !strings.EqualFold(p.Result, "failure")) {
			continue
		}
		if _, mfa, _, _ := controls(p); mfa {
			e.Add(k.mfaPolicies, policyName(p))
			e.SetText(k.authenticationStrength, p.AuthenticationStrength)
		}
	}
}

func policyName(p *schemas.Policy) string {
	if p.DisplayName != "" {
		return p.DisplayName
	}
	return p.Id
}

// policyEvidence sets the failing policies, what they ask for and what they matched.
func (s *subject) policyEvidence() {
	e, k := s.e, s.keys
	var satisfied uint32
	for _, p := range s.r.Policies {
		if !strings.EqualFold(p.Result, "failure") {
			continue
		}
		e.Add(k.policies, policyName(p))
		e.Add(k.policyIDs, p.Id)
		for _, c := range p.EnforcedGrantControls {
			e.Add(k.unmetControls, c)
		}
		e.SetText(k.authenticationStrength, p.AuthenticationStrength)
		satisfied |= p.ConditionsSatisfied
		for _, rule := range p.IncludeRulesSatisfied {
			e.Add(k.matchedRules, rule.GetRuleSatisfied())
		}
	}
	for _, c := range schemas.ConditionNames {
		if satisfied&c.Bit != 0 {
			e.Add(k.matchedConditions, c.Name)
		}
	}
	e.SetText(k.conditionalAccessStatus, s.r.ConditionalAccessStatus)
}

// policyUnknown notes that no failing policy is named: either the record holds no list at all, since its reader may not see
// one, or the list holds none that failed, as when the rest of it came in another part.
func (s *subject) policyUnknown() {
	if s.r.Flags&schemas.FlagPoliciesAbsent != 0 {
		s.unknown("policies_withheld")
	} else {
		s.unknown("policy")
	}
}

// riskEvidence sets what the record says of risk.
func (s *subject) riskEvidence() {
	if !s.riskTold() {
		return
	}
	r, e, k := s.r, s.e, s.keys
	set := func(key *catalogue.EvidenceKey, v string) {
		if !strings.EqualFold(v, "none") && !strings.EqualFold(v, riskHidden) {
			e.SetText(key, v)
		}
	}
	set(k.riskLevel, r.RiskLevelDuringSignIn)
	set(k.riskLevelAggregated, r.RiskLevelAggregated)
	set(k.riskState, r.RiskState)
	set(k.riskDetail, r.RiskDetail)
	for _, event := range r.RiskEventTypes {
		e.Add(k.riskEvents, event)
	}
}

// tenantEvidence sets where an external user comes from.
func (s *subject) tenantEvidence() {
	r, e, k := s.r, s.e, s.keys
	e.SetText(k.userType, r.UserType)
	e.SetText(k.homeTenant, r.HomeTenantId)
	e.SetText(k.resourceTenant, r.ResourceTenantId)
	e.SetText(k.crossTenantAccess, r.CrossTenantAccessType)
}

// failuresEvidence sets the user's failures in 48 hours.
func (s *subject) failuresEvidence() {
	f := &s.v.Failures
	if f.Count < 2 || s.e.find(s.keys.failures48h) != nil {
		return
	}
	e, k := s.e, s.keys
	e.SetInt(k.failures48h, f.Count)
	if f.AtLeast {
		e.SetBool(k.failuresAtLeast, true)
	}
	e.SetTime(k.failuresFirst, f.First)
	e.SetTime(k.failuresLast, f.Last)
	for _, code := range f.Codes {
		e.Add(k.failureCodes, s.c.codeText(code))
	}
	e.SetList(k.failureApplications, f.Applications)
	e.SetList(k.failureAddresses, f.Addresses)
	e.SetList(k.failureClientApps, f.ClientApps)
	e.SetList(k.failureOperatingSystems, f.OperatingSystems)
	e.SetList(k.failureDevices, f.Devices)
	if len(f.Addresses) >= manyAddresses {
		e.SetBool(k.failureManyAddresses, true)
	}
	if f.Successes > 0 {
		e.SetInt(k.successesBetween, f.Successes)
	}
	if f.RegularSeconds > 0 && s.unattended() && !slices.Contains(f.Codes, codeLockout) {
		e.SetInt(k.regularSeconds, f.RegularSeconds)
	}
}

// circumstances sets where and with what the sign-in was made, for all but the plain success, which needs none.
func (s *subject) circumstances() {
	if s.d.Scenario == ScenarioSuccess && len(s.d.Also) == 0 {
		return
	}
	r, e, k := s.r, s.e, s.keys
	if !s.success() && s.user {
		s.passwordEvidence()
	}
	if s.success() {
		for _, p := range r.Policies {
			if strings.EqualFold(p.Result, "success") {
				e.Add(k.policiesApplied, policyName(p))
			}
		}
	}
	e.SetText(k.conditionalAccessStatus, r.ConditionalAccessStatus)
	if r.IsInteractive != schemas.Tri_TRI_UNKNOWN {
		e.SetBool(k.interactive, r.IsInteractive == schemas.Tri_TRI_TRUE)
	}
	for _, l := range r.NetworkLocationDetails {
		for _, name := range l.GetNetworkNames() {
			e.Add(k.network, name)
		}
	}
	if r.AutonomousSystemNumber != 0 {
		e.SetInt(k.autonomousSystem, int64(r.AutonomousSystemNumber))
	}
	e.SetText(k.device, unmasked(r.DeviceDisplayName))
	e.SetText(k.deviceID, unmasked(r.DeviceId))
	e.SetText(k.operatingSystem, r.OperatingSystem)
	e.SetText(k.browser, r.Browser)
	e.SetText(k.deviceTrust, r.TrustType)
	if told := s.deviceTold(r.IsCompliant); told != schemas.Tri_TRI_UNKNOWN {
		e.SetBool(k.deviceCompliant, told == schemas.Tri_TRI_TRUE)
	}
	if told := s.deviceTold(r.IsManaged); told != schemas.Tri_TRI_UNKNOWN {
		e.SetBool(k.deviceManaged, told == schemas.Tri_TRI_TRUE)
	}
	e.SetText(k.userAgent, r.UserAgent)
	if !strings.EqualFold(r.AuthenticationProtocol, "none") {
		e.SetText(k.authenticationProtocol, r.AuthenticationProtocol)
	}
	if !strings.EqualFold(r.OriginalTransferMethod, "none") {
		e.SetText(k.transferMethod, r.OriginalTransferMethod)
	}
	if !strings.EqualFold(r.TokenIssuerType, "AzureAD") {
		e.SetText(k.tokenIssuer, r.TokenIssuerType)
	}
	e.SetText(k.appID, r.AppId)
	if a := &s.v.Attempt; a.Successes+a.Failures+a.Interrupts > 1 {
		e.SetInt(k.attemptRecords, int64(a.Successes+a.Failures+a.Interrupts))
		if a.LastFailureCode != 0 {
			e.SetInt(k.attemptFailureCode, int64(a.LastFailureCode))
		}
	}
}

// unmasked returns a field of a device, "" where its tenant keeps it from the reader's.
func unmasked(s string) string {
	if containsFold(s, "pii removed") {
		return ""
	}
	return s
}

// deviceTold returns isCompliant or isManaged. Where the device is not known to the directory Graph writes false for what the
// export leaves out, so false says something of a known device only, and beside 53000, which says that it is not compliant.
func (s *subject) deviceTold(v schemas.Tri) schemas.Tri {
	known := named(unmasked(s.r.DeviceId)) || unmasked(s.r.DeviceDisplayName) != "" || s.r.TrustType != ""
	if v == schemas.Tri_TRI_FALSE && !known && !s.is(53000) {
		return schemas.Tri_TRI_UNKNOWN
	}
	return v
}

// passwordEvidence says whether the password was right where the code or a step tells. Codes come first: steps can be
// incomplete or wrong.
func (s *subject) passwordEvidence() {
	switch s.passwordWas() {
	case schemas.Tri_TRI_TRUE:
		s.e.SetBool(s.keys.passwordCorrect, true)
	case schemas.Tri_TRI_FALSE:
		s.e.SetBool(s.keys.passwordCorrect, false)
	}
}

// passwordWas tells whether the password (or other first factor) was right. Conditional Access and MFA are judged after
// the first factor, so a refusal by them on a flow with a password proves it right.
func (s *subject) passwordWas() schemas.Tri {
	if s.is(50053, 300030, 120014) { // refused before or regardless of the password
		return schemas.Tri_TRI_UNKNOWN
	}
	if s.code != nil {
		if s.code.PasswordWasRight() && (s.is(50055, 50057) || s.passwordFlow()) {
			return schemas.Tri_TRI_TRUE
		}
		if s.code.PasswordWasWrong() {
			return schemas.Tri_TRI_FALSE
		}
	}
	if s.passwordStep == schemas.Tri_TRI_TRUE {
		return schemas.Tri_TRI_TRUE
	}
	if s.caRefusal() || s.code != nil && s.code.Category == "mfa" {
		for _, method := range s.r.AuthenticationMethodsUsed {
			if isPassword(method) {
				return schemas.Tri_TRI_TRUE
			}
		}
	}
	return s.passwordStep
}

// passwordFlow reports whether a code that comes after the first factor speaks of a password. It does not where a token was
// redeemed, nor where the steps show another first factor.
func (s *subject) passwordFlow() bool {
	if s.passwordStep != schemas.Tri_TRI_UNKNOWN {
		return true
	}
	if containsFold(s.r.IncomingTokenType, "refresh") {
		return false
	}
	for _, step := range s.r.AuthenticationDetails {
		if step.GetMethod() != "" && !isMFAStep(step) {
			return isPassword(step.Method)
		}
	}
	return true
}

// unknowns notes what the record does not tell of any sign-in.
func (s *subject) unknowns() {
	r := s.r
	if s.noCode {
		s.unknown("error_code")
		if s.empty() {
			return // nothing is known, and the summary says so
		}
	} else if s.code == nil {
		s.unknown("error_code_meaning")
	}
	if r.Flags&(schemas.FlagNoEventTime|schemas.FlagEventTimeClamped) != 0 {
		s.unknown("event_time")
	}
	if !s.user {
		return
	}
	if r.IpAddress == "" || s.masked() {
		s.unknown("address")
	}
	if r.CountryOrRegion == "" && r.City == "" {
		s.unknown("location")
	}
	if strings.EqualFold(r.RiskLevelDuringSignIn, riskHidden) {
		s.unknown("risk")
	}
	if !named(r.UserPrincipalName) && !named(r.UserId) {
		s.unknown("user")
	}
	if s.v.Outcome == OutcomeFailure && (r.ClientAppUsed == "" || strings.EqualFold(r.ClientAppUsed, "Unknown")) {
		s.unknown("client_app")
	}
	if s.external && r.HomeTenantId == "" && s.v.Outcome == OutcomeFailure {
		s.unknown("tenants")
	}
	if strings.EqualFold(r.CrossTenantAccessType, "passthrough") {
		s.unknown("passthrough")
	}
}

// masked reports whether a part of the address is withheld (".XXX"), so that many sources share it.
func (s *subject) masked() bool { return containsFold(s.r.IpAddress, "xxx") }

// containsFold reports whether s holds fragment, which must be in lower case ASCII, whatever the case of s.
func containsFold(s, fragment string) bool {
	n := len(fragment)
	if n == 0 {
		return true
	}
	for i := 0; i+n <= len(s); i++ {
		if lower(s[i]) != fragment[0] {
			continue
		}
		j := 1
		for j < n && lower(s[i+j]) == fragment[j] {
			j++
		}
		if j == n {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// containsAny reports whether s holds one of the fragments, which must be in lower case.
func containsAny(s string, fragments ...string) bool {
	for _, f := range fragments {
		if containsFold(s, f) {
			return true
		}
	}
	return false
}
