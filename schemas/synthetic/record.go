package synthetic

import (
	"strconv"
	"time"

	"github.com/signindiag/signindiag/schemas"
)

// render fills t.spec with the record behind e. The same event always gives the same record.
func (t *Traffic) render(e *event) {
	tn := t.tenants[e.tenant]
	policies := t.spec.renderedPolicies[:0]
	t.spec = SignInSpec{
		Time:            time.UnixMicro(e.at).UTC(),
		ProcessingDelay: time.Duration(e.delay) * time.Millisecond,
		RequestID:       GUID(e.seed, 1),
		CorrelationID:   GUID(e.correlation, 2),
		TenantID:        tn.id,
		ErrorCode:       e.code,

		ProcessingTimeMilliseconds: 40 + int(e.seed%400),
	}
	s := &t.spec
	if e.original != e.seed {
		s.OriginalRequestID = GUID(e.original, 1)
	}
	if e.class == workload {
		t.renderWorkload(e, tn)
		return
	}
	p := tn.user(int(e.user))
	a := &applications[e.app]
	s.Category = schemas.Category_CATEGORY_SIGN_IN
	if e.class == nonInteractive {
		s.Category = schemas.Category_CATEGORY_NON_INTERACTIVE_USER
		s.IncomingTokenType = "refreshToken"
	}
	s.UserID, s.UserPrincipalName, s.UserDisplayName = p.id, p.upn, p.name
	s.AppID, s.AppDisplayName, s.ResourceID, s.ResourceDisplayName = a.id, a.name, a.resourceID, a.resource
	s.SessionID = GUID(e.correlation, 3)
	s.renderedScopes = a.rendered
	if e.detail == detailUnknown {
		s.UserID, s.UserDisplayName = "00000000-0000-0000-0000-000000000000", ""
		s.UserPrincipalName = unknownName(e, tn, p)
		s.SignInIdentifier = s.UserPrincipalName
	}

	s.ClientAppUsed = ClientBrowser
	s.UserAgent, s.Device = p.agent, p.laptop
	if a.modern {
		s.ClientAppUsed, s.UserAgent = ClientModern, uaOffice
	}
	switch e.client {
	case clientPhone:
		s.ClientAppUsed, s.UserAgent, s.Device = ClientModern, uaPhone, p.phone
	case clientIMAP:
		s.ClientAppUsed, s.UserAgent, s.Device = "IMAP4", uaLegacy, Device{}
		s.AuthenticationProtocol = "ropc"
	case clientSMTP:
		s.ClientAppUsed, s.UserAgent, s.Device = "Authenticated SMTP", uaLegacy, Device{}
		s.AuthenticationProtocol = "ropc"
	case clientScript:
		s.ClientAppUsed, s.UserAgent = ClientModern, uaScanner
		s.Device = Device{OperatingSystem: "Linux"}
		s.AuthenticationProtocol = "ropc"
	}
	if e.code == 53000 {
		s.Device.IsCompliant = schemas.Tri_TRI_FALSE
	}

	switch e.from {
	case fromHome:
		s.Address, s.AutonomousSystemNumber, s.Place = p.home, asnHome, p.place.Place
	case fromOffice:
		s.Address, s.AutonomousSystemNumber, s.Place = tn.office, asnOffice, p.place.Place
		t.nets[0] = NetworkLocation{Type: "trustedNamedLocation", Names: officeNames}
		s.NetworkLocations = t.nets[:1]
	case fromMobile:
		s.Address, s.AutonomousSystemNumber, s.Place = p.mobile, asnMobile, p.place.Place
	case fromAttacker, fromAttacker64:
		s.Address = e.attackAddress()
		s.AutonomousSystemNumber = attackNetwork(int(e.address))
		s.Place = attackPlaces[int(e.address)%len(attackPlaces)]
		if e.client == clientUsual {
			s.Device = Device{OperatingSystem: "Windows 10", Browser: "Chrome 139.0.0"}
			s.UserAgent = uaChrome
		} else if e.client == clientScript { // every attacker has a tool of their own
			s.UserAgent = uaScanner + strconv.FormatUint(uint64(attackNetwork(int(e.address))%100), 10)
		}
	}
	if e.detail == detailCountry {
		s.Place = attackPlaces[0]
		s.NetworkLocations = nil
		if !e.from.isAttacker() {
			s.Address, s.AutonomousSystemNumber = p.mobile, asnMobile
		}
	}
	if e.detail == detailDeviceCode {
		s.AuthenticationProtocol, s.OriginalTransferMethod = "deviceCode", "deviceCodeFlow"
	}
	s.FlaggedForReview = e.detail == detailFlagged
	if e.detail == detailMalicious {
		s.FailureReason = MaliciousAddressText
	}

	t.renderSteps(e, p)
	for i := range tn.policies {
		policies = append(policies, policyOf(e, s, &tn.policies[i]))
	}
	switch {
	case e.part == firstPart:
		policies = policies[:len(policies)/2]
	case e.part == secondPart:
		policies = append(policies[:0], policies[len(policies)/2:]...)
	}
	s.renderedPolicies = policies
	if s.AuthenticationRequirement == RequirementMultiFactor {
		t.reqs[0] = RequirementPolicy{"multiConditionalAccess", "Conditional Access"}
		s.RequirementPolicies = t.reqs[:1]
		t.life[0] = "rememberMultifactorAuthenticationOnTrustedDevices"
		s.SessionLifetimePolicies = t.life[:1]
	}
	switch e.code {
	case 50097, 50072, 50074, 50076, 53000, 53003:
		s.ConditionalAccessStatus = "failure"
	case 0:
		s.ConditionalAccessStatus = ""
	default:
		s.ConditionalAccessStatus = "notApplied"
	}
}

var officeNames = []string{"Office network"}

func unknownName(e *event, tn *tenant, p *person) string {
	if e.from.isAttacker() {
		return "user" + hexDigits[e.seed%16:e.seed%16+1] + GUID(e.seed, 9)[:4] + "@" + tn.domain
	}
	// A typing error: one letter twice.
	return p.upn[:2] + p.upn[1:]
}

func (t *Traffic) renderWorkload(e *event, tn *tenant) {
	s := &t.spec
	p := &tn.principals[e.user]
	s.Category = schemas.Category_CATEGORY_SERVICE_PRINCIPAL
	s.ServicePrincipalID, s.ServicePrincipalName, s.AppID, s.AppDisplayName = p.id, p.name, p.appID, p.name
	r := workloadResources[p.resource]
	s.ResourceID, s.ResourceDisplayName = r.id, r.name
	if p.managed {
		s.Category = schemas.Category_CATEGORY_MANAGED_IDENTITY
		s.ClientCredentialType = "managedIdentity"
		// Managed identities carry the first member of the risk enumeration, which means nothing.
		s.Risk = Risk{LevelDuringSignIn: "low", LevelAggregated: "low"}
		return
	}
	s.ClientCredentialType = "clientSecret"
	s.AuthenticationProtocol = "clientCredentials"
	s.ServicePrincipalCredentialKeyID = p.keyID
	s.Address, s.AutonomousSystemNumber = p.address, asnCloud
	if e.from.isAttacker() {
		s.Address, s.AutonomousSystemNumber = e.attackAddress(), attackNetwork(int(e.address))
		s.Place = attackPlaces[int(e.address)%len(attackPlaces)]
		s.ServicePrincipalCredentialKeyID = ""
	}
}

// renderSteps fills authenticationDetails, the requirement and the additional details.
func (t *Traffic) renderSteps(e *event, p *person) {
	s := &t.spec
	steps := t.steps[:0]
	primary := Step{Method: "Password", MethodDetail: "Password in the cloud", Succeeded: schemas.Tri_TRI_TRUE, ResultDetail: "Correct password"}
	second := Step{Method: "Mobile app notification", MethodDetail: "Phone of " + p.name, Succeeded: schemas.Tri_TRI_TRUE, Requirement: StepMultiFactor,
		After: 9 * time.Second}
	if p.phoneCall {
		second.Method, second.MethodDetail = "Text message", "+XX XXXXXXX"+p.id[:2]
	}
	switch e.code {
	case 0:
		switch e.detail {
		case detailClaim, detailFlagged:
			s.AuthenticationRequirement = RequirementMultiFactor
			s.AdditionalDetails = "MFA requirement satisfied by claim in the token"
			steps = append(steps,
				Step{Method: "Previously satisfied", Succeeded: schemas.Tri_TRI_TRUE, ResultDetail: "First factor requirement satisfied by claim in the token"},
				Step{Method: "Previously satisfied", Succeeded: schemas.Tri_TRI_TRUE, ResultDetail: "MFA requirement satisfied by claim in the token", Requirement: StepMultiFactor})
		case detailApproved:
			s.AuthenticationRequirement = RequirementMultiFactor
			s.AdditionalDetails = "MFA completed in Azure AD"
			second.ResultDetail = "MFA successfully completed"
			steps = append(steps, primary, second)
		default:
			steps = append(steps, primary)
		}
	case 50126, 50053:
		// The export has left the steps of these codes empty since November 2025, as a rule.
		if e.seed%4 == 0 && e.code == 50126 {
			primary.Succeeded, primary.ResultDetail = schemas.Tri_TRI_FALSE, "Invalid username or password or Invalid on-premise username or password."
			steps = append(steps, primary)
		}
	case 50074, 50076, 50072, 50079, 50078:
		s.AuthenticationRequirement = RequirementMultiFactor
		steps = append(steps, primary)
		if e.code == 50074 {
			s.AdditionalDetails = "MFA required in Azure AD"
		}
	case 500121:
		s.AuthenticationRequirement = RequirementMultiFactor
		second.Succeeded = schemas.Tri_TRI_FALSE
		switch e.detail {
		case detailDenied:
			second.ResultDetail = "MFA denied; user declined the authentication"
		case detailWrongCode:
			second.Method, second.ResultDetail = "OATH verification code", "MFA denied; invalid verification code"
		default:
			second.ResultDetail = "MFA denied; user did not respond to mobile app notification"
		}
		s.AdditionalDetails = second.ResultDetail
		second.After = 50 * time.Second
		steps = append(steps, primary, second)
	case 53000, 53003, 50057, 50055, 50105, 65001, 50140:
		steps = append(steps, primary)
	}
	if e.class == nonInteractive && e.seed%2 == 0 {
		steps = steps[:0]
	}
	s.Steps = steps
}

// policyOf chooses the result of one policy of the tenant for the record.
func policyOf(e *event, s *SignInSpec, v *policyVariants) *renderedPolicy {
	switch e.code {
	case 50126, 50053, 50034, 50055, 50057, 50058, 50173, 700082, 50133, 81010, 80002, 81006, 50011:
		return v.notEvaluated // the first factor failed, so Conditional Access was not asked
	}
	success := e.code == 0
	switch v.kind {
	case policyMFA:
		switch {
		case success && s.AuthenticationRequirement == RequirementMultiFactor:
			return v.success
		case e.code == 50074, e.code == 50076, e.code == 50072, e.code == 50079, e.code == 500121:
			return v.failure
		}
	case policyBlockLegacy:
		if e.detail == detailLegacyBlock {
			return v.failure
		}
	case policyCompliantDevice:
		switch {
		case e.code == 53000:
			return v.failure
		case success && e.app == appPayroll:
			return v.success
		}
	case policyBlockCountries:
		if e.code == 53003 && e.detail != detailLegacyBlock {
			return v.failure
		}
	case policyFrequency:
		if success && s.Device.ID == "" {
			return v.success
		}
	case policyReportOnly:
		if success && e.detail == detailPassword {
			return v.failure
		}
		if success {
			return v.success
		}
		return v.notEvaluated
	}
	return v.notApplied
}
