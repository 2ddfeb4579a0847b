package synthetic

import (
	"strconv"

	"github.com/signindiag/signindiag/schemas"
)

// Dialect is one of the forms in which a record reaches a consumer.
type Dialect uint8

const (
	// EventHubs is Azure Monitor's diagnostic export: camelCase with a properties object.
	EventHubs Dialect = iota
	// LogAnalytics is a row of a workspace's table: flat PascalCase columns.
	LogAnalytics
	// GraphBeta is Microsoft Graph's signIn resource with all its properties.
	GraphBeta
	// GraphV1 is version v1.0 of that resource, which has a third of the properties.
	GraphV1
)

// Dialects lists all dialects.
func Dialects() []Dialect { return []Dialect{EventHubs, LogAnalytics, GraphBeta, GraphV1} }

// String returns the dialect's name.
func (d Dialect) String() string {
	switch d {
	case EventHubs:
		return "event_hubs"
	case LogAnalytics:
		return "log_analytics"
	case GraphBeta:
		return "graph_beta"
	case GraphV1:
		return "graph_v1"
	}
	return "unknown"
}

// Append appends the record in the given dialect, without an envelope, and returns the extended buffer.
func Append(dst []byte, s *SignInSpec, d Dialect) []byte {
	switch d {
	case LogAnalytics:
		return AppendLogAnalytics(dst, s)
	case GraphBeta, GraphV1:
		return AppendGraph(dst, s, d)
	}
	return AppendEventHubs(dst, s)
}

// AppendEventHubs appends the record as Azure Monitor's diagnostic export sends it to Event Hubs: one
// JSON object in camelCase with a properties object, without the {"records":[...]} envelope. It
// returns the extended buffer.
func AppendEventHubs(dst []byte, s *SignInSpec) []byte {
	category := s.category()
	user := category.IsUser()
	dst = append(dst, `{"time":"`...)
	dst = appendTime(dst, s.Time.Add(s.ProcessingDelay), `Z","resourceId":"/tenants/`)
	dst = appendInner(dst, s.TenantID)
	dst = append(dst, `/providers/Microsoft.aadiam","operationName":"Sign-in activity","operationVersion":"1.0","category":"`...)
	dst = append(dst, category.Name()...)
	dst = appendField(dst, `","tenantId":`, s.TenantID)
	dst = append(dst, `,"resultType":"`...)
	dst = strconv.AppendInt(dst, int64(s.ErrorCode), 10)
	if s.ErrorCode == 0 {
		dst = append(dst, `","resultSignature":"SUCCESS","durationMs":0`...)
	} else {
		dst = append(dst, `","resultSignature":"FAILURE"`...)
		dst = appendField(dst, `,"resultDescription":`, s.failureReason())
		dst = append(dst, `,"durationMs":0`...)
	}
	if s.Address != "" {
		dst = appendField(dst, `,"callerIpAddress":`, s.Address)
	}
	dst = appendField(dst, `,"correlationId":`, s.CorrelationID)
	if user {
		dst = appendField(dst, `,"identity":`, s.UserDisplayName)
	} else {
		dst = appendField(dst, `,"identity":`, s.ServicePrincipalName)
	}
	dst = append(dst, `,"Level":4`...)
	dst = appendField(dst, `,"location":`, s.Place.CountryOrRegion)

	dst = appendField(dst, `,"properties":{"id":`, s.RequestID)
	dst = append(dst, `,"createdDateTime":"`...)
	dst = appendTime(dst, s.Time, `+00:00"`)
	if user {
		dst = appendField(dst, `,"userDisplayName":`, s.UserDisplayName)
		dst = appendField(dst, `,"userPrincipalName":`, s.UserPrincipalName)
		dst = appendField(dst, `,"userId":`, s.UserID)
	} else {
		dst = append(dst, `,"userId":null`...)
	}
	dst = appendField(dst, `,"appId":`, s.AppID)
	dst = appendField(dst, `,"appDisplayName":`, s.AppDisplayName)
	dst = appendField(dst, `,"ipAddress":`, s.Address)
	dst = append(dst, `,"status":`...)
	dst = appendStatus(dst, s, EventHubs)
	if user {
		dst = appendField(dst, `,"clientAppUsed":`, s.clientAppUsed())
		dst = appendField(dst, `,"userAgent":`, s.UserAgent)
	}
	dst = append(dst, `,"deviceDetail":`...)
	dst = appendDevice(dst, s, EventHubs)
	dst = append(dst, `,"location":`...)
	dst = appendPlace(dst, s, EventHubs)
	dst = append(dst, `,"mfaDetail":{}`...)
	dst = appendField(dst, `,"correlationId":`, s.CorrelationID)
	dst = appendField(dst, `,"conditionalAccessStatus":`, s.conditionalAccessStatus())
	if !s.PoliciesWithheld {
		dst = append(dst, `,"appliedConditionalAccessPolicies":`...)
		dst = appendPolicies(dst, s, EventHubs)
	}
	dst = append(dst, `,"authenticationContextClassReferences":`...)
	dst = appendContexts(dst, s)
	dst = appendField(dst, `,"originalRequestId":`, or(s.OriginalRequestID, s.RequestID))
	dst = append(dst, `,"isInteractive":`...)
	dst = appendBool(dst, s.interactive())
	dst = append(dst, `,"signInEventTypes":["`...)
	dst = append(dst, s.signInEventType()...)
	dst = append(dst, `"],"tokenIssuerName":"","tokenIssuerType":"`...)
	dst = appendInner(dst, s.tokenIssuerType())
	dst = append(dst, `","authenticationProcessingDetails":`...)
	dst = appendProcessingDetails(dst, s)
	dst = append(dst, `,"networkLocationDetails":`...)
	dst = appendNetworkLocations(dst, s)
	dst = append(dst, `,"clientCredentialType":"`...)
	dst = appendInner(dst, or(s.ClientCredentialType, "none"))
	dst = append(dst, `","processingTimeInMilliseconds":`...)
	dst = strconv.AppendInt(dst, int64(s.ProcessingTimeMilliseconds), 10)
	dst = appendRisk(dst, s, EventHubs)
	dst = appendField(dst, `,"resourceDisplayName":`, s.ResourceDisplayName)
	dst = appendField(dst, `,"resourceId":`, s.ResourceID)
	dst = appendField(dst, `,"resourceTenantId":`, or(s.ResourceTenantID, s.TenantID))
	dst = appendField(dst, `,"homeTenantId":`, or(s.HomeTenantID, s.TenantID))
	dst = appendField(dst, `,"homeTenantName":"","tenantId":`, s.TenantID)
	dst = append(dst, `,"authenticationDetails":`...)
	dst = appendSteps(dst, s, EventHubs)
	if len(s.AuthenticationMethodsUsed) > 0 {
		dst = append(dst, `,"authenticationMethodsUsed":`...)
		dst = appendStrings(dst, s.AuthenticationMethodsUsed)
	}
	dst = append(dst, `,"authenticationRequirementPolicies":`...)
	dst = appendRequirementPolicies(dst, s)
	dst = append(dst, `,"sessionLifetimePolicies":`...)
	dst = appendSessionLifetimePolicies(dst, s)
	dst = append(dst, `,"authenticationRequirement":"`...)
	dst = appendInner(dst, or(s.AuthenticationRequirement, RequirementSingleFactor))
	dst = append(dst, '"')
	if user {
		dst = append(dst, `,"alternateSignInName":""`...)
		dst = appendField(dst, `,"signInIdentifier":`, or(s.SignInIdentifier, s.UserPrincipalName))
	}
	dst = appendField(dst, `,"servicePrincipalId":`, s.ServicePrincipalID)
	if !user {
		dst = appendField(dst, `,"servicePrincipalName":`, s.ServicePrincipalName)
		dst = appendField(dst, `,"servicePrincipalCredentialKeyId":`, s.ServicePrincipalCredentialKeyID)
		dst = append(dst, `,"servicePrincipalCredentialThumbprint":""`...)
		dst = appendField(dst, `,"federatedCredentialId":`, s.FederatedCredentialID)
	}
	dst = append(dst, `,"userType":"`...)
	dst = appendInner(dst, s.userType())
	dst = append(dst, `","flaggedForReview":`...)
	dst = appendBool(dst, s.FlaggedForReview)
	dst = append(dst, `,"isTenantRestricted":`...)
	dst = appendBool(dst, s.IsTenantRestricted)
	dst = append(dst, `,"autonomousSystemNumber":`...)
	dst = strconv.AppendUint(dst, uint64(s.AutonomousSystemNumber), 10)
	dst = append(dst, `,"crossTenantAccessType":"`...)
	dst = appendInner(dst, or(s.CrossTenantAccessType, "none"))
	dst = append(dst, `","privateLinkDetails":{},"ssoExtensionVersion":"","uniqueTokenIdentifier":"`...)
	dst = appendUniqueToken(dst, s.RequestID)
	dst = append(dst, `","authenticationStrengths":`...)
	dst = appendStrings(dst, s.AuthenticationStrengths)
	dst = append(dst, `,"incomingTokenType":"`...)
	dst = appendInner(dst, or(s.IncomingTokenType, "none"))
	dst = append(dst, `","authenticationProtocol":"`...)
	dst = appendInner(dst, or(s.AuthenticationProtocol, "none"))
	dst = appendField(dst, `","appServicePrincipalId":null,"resourceServicePrincipalId":"","sourceAppClientId":"","appOwnerTenantId":"","resourceOwnerTenantId":`, or(s.ResourceTenantID, s.TenantID))
	dst = append(dst, `,"rngcStatus":0,"signInTokenProtectionStatus":"none","tokenProtectionStatusDetails":{"signInSessionStatus":"unbound","signInSessionStatusCode":1002},"originalTransferMethod":"`...)
	dst = appendInner(dst, or(s.OriginalTransferMethod, "none"))
	dst = append(dst, `","isThroughGlobalSecureAccess":false,"globalSecureAccessIpAddress":"","ipAddressFromResourceProvider":"","conditionalAccessAudiences":[],"managedServiceIdentity":{"associatedResourceId":"","federatedTokenId":"","federatedTokenIssuer":"","msiType":"none"}`...)
	dst = appendField(dst, `,"sessionId":`, s.SessionID)
	if s.RedirectURL != "" {
		dst = appendField(dst, `,"redirectUrl":`, s.RedirectURL)
	}
	return append(dst, `,"agent":{"agentType":"notAgentic","parentAppId":""}}}`...)
}

// AppendEnvelope appends the {"records":[...]} envelope of Azure Monitor around the records of specs.
func AppendEnvelope(dst []byte, specs ...*SignInSpec) []byte {
	dst = append(dst, `{"records":[`...)
	for i, s := range specs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendEventHubs(dst, s)
	}
	return append(dst, `]}`...)
}

func (s *SignInSpec) clientAppUsed() string {
	if s.category() == schemas.Category_CATEGORY_ADFS {
		return or(s.ClientAppUsed, "Unknown")
	}
	return or(s.ClientAppUsed, ClientBrowser)
}

func appendStatus(dst []byte, s *SignInSpec, d Dialect) []byte {
	dst = append(dst, `{"errorCode":`...)
	dst = strconv.AppendInt(dst, int64(s.ErrorCode), 10)
	switch {
	case s.failureReason() != "":
		dst = appendField(dst, `,"failureReason":`, s.failureReason())
	case d >= GraphBeta:
		dst = append(dst, `,"failureReason":"Other."`...)
	}
	switch {
	case s.AdditionalDetails != "":
		dst = appendField(dst, `,"additionalDetails":`, s.AdditionalDetails)
	case d >= GraphBeta:
		dst = append(dst, `,"additionalDetails":null`...)
	}
	return append(dst, '}')
}

func appendDevice(dst []byte, s *SignInSpec, d Dialect) []byte {
	v := &s.Device
	dst = appendField(dst, `{"deviceId":`, v.ID)
	if v.DisplayName != "" || d >= GraphBeta {
		dst = appendField(dst, `,"displayName":`, v.DisplayName)
	}
	dst = appendField(dst, `,"operatingSystem":`, v.OperatingSystem)
	dst = appendField(dst, `,"browser":`, v.Browser)
	compliant, managed := v.IsCompliant, v.IsManaged
	if d >= GraphBeta {
		// Graph shows an absent boolean as false.
		compliant, managed = max(compliant, schemas.Tri_TRI_FALSE), max(managed, schemas.Tri_TRI_FALSE)
	}
	dst = appendTri(dst, `,"isCompliant":`, compliant)
	dst = appendTri(dst, `,"isManaged":`, managed)
	if v.TrustType != "" || d >= GraphBeta {
		dst = appendField(dst, `,"trustType":`, v.TrustType)
	}
	return append(dst, '}')
}

func appendPlace(dst []byte, s *SignInSpec, d Dialect) []byte {
	p := &s.Place
	dst = appendField(dst, `{"city":`, p.City)
	dst = appendField(dst, `,"state":`, p.State)
	dst = appendField(dst, `,"countryOrRegion":`, p.CountryOrRegion)
	dst = append(dst, `,"geoCoordinates":{`...)
	if d >= GraphBeta {
		dst = append(dst, `"altitude":null,`...)
	}
	dst = append(dst, `"latitude":`...)
	dst = appendFloat(dst, p.Latitude)
	dst = append(dst, `,"longitude":`...)
	dst = appendFloat(dst, p.Longitude)
	return append(dst, `}}`...)
}

func appendPolicies(dst []byte, s *SignInSpec, d Dialect) []byte {
	dst = append(dst, '[')
	for i, p := range s.renderedPolicies {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, p.text...)
	}
	for i := range s.Policies {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendPolicy(dst, &s.Policies[i], d)
	}
	return append(dst, ']')
}

func appendPolicy(dst []byte, p *Policy, d Dialect) []byte {
	dst = appendField(dst, `{"id":`, p.ID)
	dst = appendField(dst, `,"displayName":`, p.DisplayName)
	dst = append(dst, `,"enforcedGrantControls":`...)
	dst = appendStrings(dst, p.GrantControls)
	dst = append(dst, `,"enforcedSessionControls":`...)
	dst = appendStrings(dst, p.SessionControls)
	dst = appendField(dst, `,"result":`, p.Result)
	if d == GraphV1 {
		return append(dst, '}')
	}
	dst = append(dst, `,"sessionControlsNotSatisfied":`...)
	dst = appendStrings(dst, p.SessionControlsNotSatisfied)
	dst = append(dst, `,"conditionsSatisfied":`...)
	dst = appendConditions(dst, p.Satisfied, d)
	dst = append(dst, `,"conditionsNotSatisfied":`...)
	dst = appendConditions(dst, p.NotSatisfied, d)
	if p.AuthenticationStrength != "" {
		if d == GraphBeta {
			dst = appendField(dst, `,"authenticationStrength":{"displayName":`, p.AuthenticationStrength)
			dst = append(dst, '}')
		} else {
			dst = appendField(dst, `,"authenticationStrength":`, p.AuthenticationStrength)
		}
	}
	dst = append(dst, `,"includeRulesSatisfied":`...)
	dst = appendRules(dst, p.Include)
	dst = append(dst, `,"excludeRulesSatisfied":`...)
	dst = appendRules(dst, p.Exclude)
	return append(dst, '}')
}

// appendConditions writes an integer for the export and names for Graph.
func appendConditions(dst []byte, bits uint32, d Dialect) []byte {
	if d < GraphBeta {
		return strconv.AppendUint(dst, uint64(bits), 10)
	}
	if bits == 0 {
		return append(dst, `"none"`...)
	}
	dst = append(dst, '"')
	first := true
	for _, c := range schemas.ConditionNames {
		if bits&c.Bit == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, c.Name...)
	}
	return append(dst, '"')
}

func appendRules(dst []byte, rules []Rule) []byte {
	dst = append(dst, '[')
	for i := range rules {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, `{"conditionalAccessCondition":`, rules[i].Condition)
		dst = appendField(dst, `,"ruleSatisfied":`, rules[i].Satisfied)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendSteps(dst []byte, s *SignInSpec, d Dialect) []byte {
	dst = append(dst, '[')
	for i := range s.Steps {
		step := &s.Steps[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"authenticationStepDateTime":"`...)
		dst = appendTime(dst, s.Time.Add(step.After), `+00:00"`)
		dst = appendField(dst, `,"authenticationMethod":`, step.Method)
		if step.MethodDetail != "" || d >= GraphBeta {
			dst = appendField(dst, `,"authenticationMethodDetail":`, step.MethodDetail)
		}
		dst = appendTri(dst, `,"succeeded":`, step.Succeeded)
		dst = appendField(dst, `,"authenticationStepResultDetail":`, step.ResultDetail)
		dst = appendField(dst, `,"authenticationStepRequirement":`, or(step.Requirement, StepPrimary))
		if d < GraphBeta {
			dst = append(dst, `,"StatusSequence":`...)
			dst = strconv.AppendInt(dst, int64(i), 10)
			dst = append(dst, `,"RequestSequence":1`...)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendContexts(dst []byte, s *SignInSpec) []byte {
	dst = append(dst, '[')
	for i, id := range s.AuthenticationContexts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, `{"id":`, id)
		dst = append(dst, `,"detail":"required"}`...)
	}
	return append(dst, ']')
}

func appendProcessingDetails(dst []byte, s *SignInSpec) []byte {
	dst = append(dst, `[{"key":"Legacy TLS (TLS 1.0, 1.1, 3DES)","value":"False"}`...)
	if s.renderedScopes != "" {
		dst = append(dst, s.renderedScopes...)
	} else {
		dst = appendScopes(dst, s.Scopes)
	}
	for i := range s.ProcessingDetails {
		dst = appendField(dst, `,{"key":`, s.ProcessingDetails[i].Key)
		dst = appendField(dst, `,"value":`, s.ProcessingDetails[i].Value)
		dst = append(dst, '}')
	}
	return append(dst, `,{"key":"Is CAE Token","value":"False"}]`...)
}

// appendScopes appends the entry "Oauth Scope Info", whose value is a JSON array inside a string.
func appendScopes(dst []byte, scopes []string) []byte {
	if len(scopes) == 0 {
		return dst
	}
	dst = append(dst, `,{"key":"Oauth Scope Info","value":`...)
	start := len(dst)
	dst = appendEmbedded(appendStrings(dst, scopes), start)
	return append(dst, '}')
}

func appendNetworkLocations(dst []byte, s *SignInSpec) []byte {
	dst = append(dst, '[')
	for i := range s.NetworkLocations {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, `{"networkType":`, s.NetworkLocations[i].Type)
		dst = append(dst, `,"networkNames":`...)
		dst = appendStrings(dst, s.NetworkLocations[i].Names)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendRequirementPolicies(dst []byte, s *SignInSpec) []byte {
	dst = append(dst, '[')
	for i := range s.RequirementPolicies {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, `{"requirementProvider":`, s.RequirementPolicies[i].Provider)
		dst = appendField(dst, `,"detail":`, s.RequirementPolicies[i].Detail)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendSessionLifetimePolicies(dst []byte, s *SignInSpec) []byte {
	dst = append(dst, '[')
	for i, requirement := range s.SessionLifetimePolicies {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, `{"expirationRequirement":`, requirement)
		dst = append(dst, `,"detail":""}`...)
	}
	return append(dst, ']')
}

func appendRisk(dst []byte, s *SignInSpec, d Dialect) []byte {
	r := &s.Risk
	dst = appendField(dst, `,"riskDetail":`, or(r.Detail, "none"))
	dst = appendField(dst, `,"riskLevelAggregated":`, or(r.LevelAggregated, or(r.LevelDuringSignIn, "none")))
	dst = appendField(dst, `,"riskLevelDuringSignIn":`, or(r.LevelDuringSignIn, "none"))
	dst = appendField(dst, `,"riskState":`, or(r.State, "none"))
	if d != GraphBeta {
		dst = append(dst, `,"riskEventTypes":[]`...)
	}
	dst = append(dst, `,"riskEventTypes_v2":`...)
	return appendStrings(dst, r.EventTypes)
}

// AppendLogAnalytics appends the record as a row of the Log Analytics table of its category: flat
// PascalCase columns, with JSON text inside strings where the workspace keeps it so. It returns the
// extended buffer.
func AppendLogAnalytics(dst []byte, s *SignInSpec) []byte {
	category := s.category()
	user := category.IsUser()
	interactive := category == schemas.Category_CATEGORY_SIGN_IN
	embed := func(name string, appendJSON func([]byte) []byte, text bool) {
		dst = append(dst, name...)
		start := len(dst)
		dst = appendJSON(dst)
		if text {
			dst = appendEmbedded(dst, start)
		}
	}
	dst = append(dst, `{"TimeGenerated":"`...)
	dst = appendTime(dst, s.Time.Add(s.ProcessingDelay), `Z"`)
	// TenantId is the workspace's id, unlike AADTenantId.
	dst = appendField(dst, `,"TenantId":`, NamedGUID("workspace", s.TenantID))
	dst = appendField(dst, `,"AADTenantId":`, s.TenantID)
	dst = appendField(dst, `,"SourceSystem":"Azure AD","ResourceId":`, "/tenants/"+s.TenantID+"/providers/Microsoft.aadiam")
	dst = append(dst, `,"Resource":"Microsoft.aadiam","ResourceGroup":"Microsoft.aadiam","ResourceProvider":"","OperationName":"Sign-in activity","OperationVersion":"1.0","Category":"`...)
	dst = append(dst, category.Name()...)
	dst = append(dst, `","ResultType":"`...)
	dst = strconv.AppendInt(dst, int64(s.ErrorCode), 10)
	dst = append(dst, `","ResultSignature":"None"`...)
	dst = appendField(dst, `,"ResultDescription":`, s.failureReason())
	dst = appendField(dst, `,"DurationMs":0,"CorrelationId":`, s.CorrelationID)
	if user {
		dst = appendField(dst, `,"Identity":`, s.UserDisplayName)
	} else {
		dst = appendField(dst, `,"Identity":`, s.ServicePrincipalName)
	}
	dst = appendField(dst, `,"Level":"4","Location":`, s.Place.CountryOrRegion)
	dst = append(dst, `,"CreatedDateTime":"`...)
	dst = appendTime(dst, s.Time, `Z"`)
	dst = appendField(dst, `,"Id":`, s.RequestID)
	dst = appendField(dst, `,"OriginalRequestId":`, or(s.OriginalRequestID, s.RequestID))
	if user {
		dst = appendField(dst, `,"UserDisplayName":`, s.UserDisplayName)
		dst = appendField(dst, `,"UserPrincipalName":`, s.UserPrincipalName)
		dst = appendField(dst, `,"UserId":`, s.UserID)
		dst = appendField(dst, `,"UserType":`, s.userType())
		dst = appendField(dst, `,"SignInIdentifier":`, or(s.SignInIdentifier, s.UserPrincipalName))
		dst = appendField(dst, `,"ClientAppUsed":`, s.clientAppUsed())
		dst = appendField(dst, `,"UserAgent":`, s.UserAgent)
	}
	dst = appendField(dst, `,"AppId":`, s.AppID)
	dst = appendField(dst, `,"AppDisplayName":`, s.AppDisplayName)
	dst = appendField(dst, `,"ResourceIdentity":`, s.ResourceID)
	dst = appendField(dst, `,"ResourceDisplayName":`, s.ResourceDisplayName)
	dst = appendField(dst, `,"ResourceTenantId":`, or(s.ResourceTenantID, s.TenantID))
	dst = appendField(dst, `,"HomeTenantId":`, or(s.HomeTenantID, s.TenantID))
	dst = appendField(dst, `,"CrossTenantAccessType":`, or(s.CrossTenantAccessType, "none"))
	dst = appendField(dst, `,"ServicePrincipalId":`, s.ServicePrincipalID)
	dst = appendField(dst, `,"ServicePrincipalName":`, s.ServicePrincipalName)
	if !user {
		dst = appendField(dst, `,"ServicePrincipalCredentialKeyId":`, s.ServicePrincipalCredentialKeyID)
		dst = appendField(dst, `,"FederatedCredentialId":`, s.FederatedCredentialID)
		dst = appendField(dst, `,"ClientCredentialType":`, or(s.ClientCredentialType, "none"))
	}
	dst = appendField(dst, `,"IPAddress":`, s.Address)
	dst = append(dst, `,"AutonomousSystemNumber":"`...)
	dst = strconv.AppendUint(dst, uint64(s.AutonomousSystemNumber), 10)
	dst = append(dst, '"')
	embed(`,"Status":`, func(b []byte) []byte { return appendStatus(b, s, LogAnalytics) }, !interactive)
	embed(`,"DeviceDetail":`, func(b []byte) []byte { return appendDevice(b, s, LogAnalytics) }, !interactive)
	embed(`,"LocationDetails":`, func(b []byte) []byte { return appendPlace(b, s, LogAnalytics) }, !interactive)
	dst = appendField(dst, `,"ConditionalAccessStatus":`, s.conditionalAccessStatus())
	if !s.PoliciesWithheld {
		embed(`,"ConditionalAccessPolicies":`, func(b []byte) []byte { return appendPolicies(b, s, LogAnalytics) }, !interactive)
	}
	embed(`,"AuthenticationContextClassReferences":`, func(b []byte) []byte { return appendContexts(b, s) }, true)
	embed(`,"AuthenticationDetails":`, func(b []byte) []byte { return appendSteps(b, s, LogAnalytics) }, true)
	embed(`,"AuthenticationProcessingDetails":`, func(b []byte) []byte { return appendProcessingDetails(b, s) }, true)
	dst = appendField(dst, `,"AuthenticationRequirement":`, or(s.AuthenticationRequirement, RequirementSingleFactor))
	embed(`,"AuthenticationRequirementPolicies":`, func(b []byte) []byte { return appendRequirementPolicies(b, s) }, true)
	embed(`,"NetworkLocationDetails":`, func(b []byte) []byte { return appendNetworkLocations(b, s) }, true)
	embed(`,"SessionLifetimePolicies":`, func(b []byte) []byte { return appendSessionLifetimePolicies(b, s) }, true)
	dst = appendField(dst, `,"AuthenticationProtocol":`, or(s.AuthenticationProtocol, "none"))
	dst = appendField(dst, `,"IncomingTokenType":`, or(s.IncomingTokenType, "none"))
	dst = appendField(dst, `,"OriginalTransferMethod":`, or(s.OriginalTransferMethod, "none"))
	dst = appendField(dst, `,"TokenIssuerName":"","TokenIssuerType":`, s.tokenIssuerType())
	dst = appendField(dst, `,"SessionId":`, s.SessionID)
	dst = append(dst, `,"UniqueTokenIdentifier":"`...)
	dst = appendUniqueToken(dst, s.RequestID)
	dst = append(dst, `","IsInteractive":`...)
	dst = appendBool(dst, s.interactive())
	dst = append(dst, `,"FlaggedForReview":`...)
	dst = appendBool(dst, s.FlaggedForReview)
	dst = append(dst, `,"IsTenantRestricted":`...)
	dst = appendBool(dst, s.IsTenantRestricted)
	if interactive {
		dst = append(dst, `,"ProcessingTimeInMilliseconds":"`...)
	} else {
		dst = append(dst, `,"ProcessingTimeInMs":"`...)
	}
	dst = strconv.AppendInt(dst, int64(s.ProcessingTimeMilliseconds), 10)
	dst = append(dst, '"')
	r := &s.Risk
	dst = appendField(dst, `,"RiskDetail":`, or(r.Detail, "none"))
	dst = appendField(dst, `,"RiskLevelAggregated":`, or(r.LevelAggregated, or(r.LevelDuringSignIn, "none")))
	dst = appendField(dst, `,"RiskLevelDuringSignIn":`, or(r.LevelDuringSignIn, "none"))
	dst = appendField(dst, `,"RiskState":`, or(r.State, "none"))
	dst = append(dst, `,"RiskEventTypes":"[]"`...)
	embed(`,"RiskEventTypes_V2":`, func(b []byte) []byte { return appendStrings(b, r.EventTypes) }, true)
	dst = appendField(dst, `,"IsRisky":null,"Type":`, tableOf(category))
	return append(dst, '}')
}

// tableOf returns the name of the Log Analytics table for a category.
func tableOf(c schemas.Category) string {
	switch c {
	case schemas.Category_CATEGORY_NON_INTERACTIVE_USER:
		return "AADNonInteractiveUserSignInLogs"
	case schemas.Category_CATEGORY_SERVICE_PRINCIPAL:
		return "AADServicePrincipalSignInLogs"
	case schemas.Category_CATEGORY_MANAGED_IDENTITY:
		return "AADManagedIdentitySignInLogs"
	case schemas.Category_CATEGORY_ADFS:
		return "ADFSSignInLogs"
	case schemas.Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL:
		return "MicrosoftServicePrincipalSignInLogs"
	}
	return "SigninLogs"
}

// AppendGraph appends the record as Microsoft Graph returns it from auditLogs/signIns, without the
// {"value":[...]} envelope: d is GraphBeta or GraphV1. Graph does not tell the tenant whose log it is.
// It returns the extended buffer.
func AppendGraph(dst []byte, s *SignInSpec, d Dialect) []byte {
	user := s.category().IsUser()
	dst = appendField(dst, `{"id":`, s.RequestID)
	dst = append(dst, `,"createdDateTime":"`...)
	t := s.Time.UTC()
	if t.Nanosecond() == 0 {
		dst = t.AppendFormat(dst, "2006-01-02T15:04:05")
		dst = append(dst, `Z"`...)
	} else {
		dst = appendTime(dst, t, `Z"`)
	}
	if user {
		dst = appendField(dst, `,"userDisplayName":`, s.UserDisplayName)
		dst = appendField(dst, `,"userPrincipalName":`, s.UserPrincipalName)
		dst = appendField(dst, `,"userId":`, s.UserID)
	} else {
		dst = append(dst, `,"userDisplayName":null,"userPrincipalName":null,"userId":""`...)
	}
	dst = appendField(dst, `,"appId":`, s.AppID)
	dst = appendField(dst, `,"appDisplayName":`, s.AppDisplayName)
	dst = appendField(dst, `,"ipAddress":`, s.Address)
	dst = appendField(dst, `,"clientAppUsed":`, s.clientAppUsed())
	dst = appendField(dst, `,"correlationId":`, s.CorrelationID)
	dst = appendField(dst, `,"conditionalAccessStatus":`, s.conditionalAccessStatus())
	dst = append(dst, `,"isInteractive":`...)
	dst = appendBool(dst, s.interactive())
	dst = appendRisk(dst, s, d)
	dst = appendField(dst, `,"resourceDisplayName":`, s.ResourceDisplayName)
	dst = appendField(dst, `,"resourceId":`, s.ResourceID)
	dst = append(dst, `,"status":`...)
	dst = appendStatus(dst, s, d)
	dst = append(dst, `,"deviceDetail":`...)
	dst = appendDevice(dst, s, d)
	dst = append(dst, `,"location":`...)
	dst = appendPlace(dst, s, d)
	if !s.PoliciesWithheld {
		dst = append(dst, `,"appliedConditionalAccessPolicies":`...)
		dst = appendPolicies(dst, s, d)
	}
	if d == GraphV1 {
		return append(dst, '}')
	}
	dst = appendField(dst, `,"originalRequestId":`, or(s.OriginalRequestID, s.RequestID))
	dst = appendField(dst, `,"userAgent":`, s.UserAgent)
	dst = append(dst, `,"userType":"`...)
	dst = appendInner(dst, lowerFirst(s.userType()))
	dst = appendField(dst, `","signInIdentifier":`, or(s.SignInIdentifier, s.UserPrincipalName))
	dst = append(dst, `,"signInEventTypes":["`...)
	dst = append(dst, s.signInEventType()...)
	dst = appendField(dst, `"],"homeTenantId":`, or(s.HomeTenantID, s.TenantID))
	dst = appendField(dst, `,"homeTenantName":"","resourceTenantId":`, or(s.ResourceTenantID, s.TenantID))
	dst = appendField(dst, `,"crossTenantAccessType":`, or(s.CrossTenantAccessType, "none"))
	dst = append(dst, `,"autonomousSystemNumber":`...)
	dst = strconv.AppendUint(dst, uint64(s.AutonomousSystemNumber), 10)
	dst = appendField(dst, `,"servicePrincipalId":`, s.ServicePrincipalID)
	dst = appendField(dst, `,"servicePrincipalName":`, s.ServicePrincipalName)
	dst = appendField(dst, `,"servicePrincipalCredentialKeyId":`, s.ServicePrincipalCredentialKeyID)
	dst = appendField(dst, `,"federatedCredentialId":`, s.FederatedCredentialID)
	dst = appendField(dst, `,"clientCredentialType":`, or(s.ClientCredentialType, "none"))
	dst = append(dst, `,"authenticationContextClassReferences":`...)
	dst = appendContexts(dst, s)
	dst = append(dst, `,"authenticationDetails":`...)
	dst = appendSteps(dst, s, d)
	dst = append(dst, `,"authenticationMethodsUsed":`...)
	dst = appendStrings(dst, s.AuthenticationMethodsUsed)
	dst = append(dst, `,"authenticationProcessingDetails":`...)
	dst = appendProcessingDetails(dst, s)
	dst = appendField(dst, `,"authenticationProtocol":`, or(s.AuthenticationProtocol, "none"))
	dst = appendField(dst, `,"authenticationRequirement":`, or(s.AuthenticationRequirement, RequirementSingleFactor))
	dst = append(dst, `,"authenticationRequirementPolicies":`...)
	dst = appendRequirementPolicies(dst, s)
	dst = append(dst, `,"networkLocationDetails":`...)
	dst = appendNetworkLocations(dst, s)
	dst = append(dst, `,"sessionLifetimePolicies":`...)
	dst = appendSessionLifetimePolicies(dst, s)
	dst = appendField(dst, `,"incomingTokenType":`, or(s.IncomingTokenType, "none"))
	dst = appendField(dst, `,"originalTransferMethod":`, or(s.OriginalTransferMethod, "none"))
	dst = appendField(dst, `,"tokenIssuerName":"","tokenIssuerType":`, s.tokenIssuerType())
	dst = appendField(dst, `,"sessionId":`, s.SessionID)
	dst = append(dst, `,"flaggedForReview":`...)
	dst = appendBool(dst, s.FlaggedForReview)
	dst = append(dst, `,"isTenantRestricted":`...)
	dst = appendBool(dst, s.IsTenantRestricted)
	dst = append(dst, `,"processingTimeInMilliseconds":`...)
	dst = strconv.AppendInt(dst, int64(s.ProcessingTimeMilliseconds), 10)
	dst = append(dst, `,"uniqueTokenIdentifier":"`...)
	dst = appendUniqueToken(dst, s.RequestID)
	return append(dst, `","mfaDetail":null,"privateLinkDetails":null,"appliedEventListeners":[]}`...)
}

func lowerFirst(s string) string {
	if s == "" || s[0] < 'A' || s[0] > 'Z' {
		return s
	}
	return string(s[0]+'a'-'A') + s[1:]
}
