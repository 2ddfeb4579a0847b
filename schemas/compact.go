package schemas

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of the full form, in bytes of UTF-8. Microsoft states no lengths; the bounds are above what public records
// show (failure texts 20 to 300, user agents up to 230) and keep what an attacker controls from growing the log.
const (
	maxFailureReason     = 512
	maxAdditionalDetails = 256
	maxUserAgent         = 256
	maxRedirectURL       = 256
	maxName              = 128 // display names, user names, names of places and networks, ids that are no GUIDs
	maxStepText          = 128 // method details and results of authentication steps, values of processing details
	maxAppLibrary        = 96  // "Azure AD App Authentication Library"; a longer one is left out
	maxPolicies          = 32
	maxSteps             = 16
	maxListed            = 16 // strings of any list
	maxRules             = 8
)

// Clip returns s cut to at most limit bytes, never inside a character.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Clone returns a copy of s that shares no memory with it, for who keeps a record beyond the call that lent it.
func Clone(s *SignIn) *SignIn {
	c := new(SignIn)
	b, err := s.MarshalVT()
	if err == nil {
		err = c.UnmarshalVT(b)
	}
	if err != nil {
		panic("schemas: a SignIn does not survive its own encoding: " + err.Error())
	}
	return c
}

// policyDecided reports whether a policy had a say: it was not merely out of scope or switched off.
func policyDecided(result string) bool {
	switch result {
	case "notApplied", "notEnabled", "reportOnlyNotApplied":
		return false
	}
	return true
}

// PolicyFailed reports whether a policy's result is that it stopped the sign-in: failure, or interrupted by a prompt.
// Report-only results stop nothing.
func PolicyFailed(result string) bool {
	return result == "failure" || result == "interrupted" || result == "interrupt"
}

// policyTelling reports whether a policy's rules are evidence: it stopped the sign-in, or would have.
func policyTelling(result string) bool {
	return PolicyFailed(result) || result == "reportOnlyFailure" || result == "reportOnlyInterrupted"
}

// Compact turns a decoded record into the full form of the entities topic, in place:
//
//   - policies that did not apply or are not enabled are left out and counted in PoliciesLeftOut, at most 32 stay (those that failed
//     first of all); include and exclude rules stay with policies that failed;
//   - of the processing details those stay that a diagnosis reads: legacy TLS, CAE and login hint where true, agents of
//     pass-through authentication, password hash sync and federation, a short name of the application's library;
//   - values that only repeat others go: originalRequestId equal to the id, the tenants of a member and the resource where both
//     are the log's own, an identifier equal to the user name, "none" for protocol, token type, transfer, credential and
//     cross-tenant access, and the token issuer AzureAD;
//   - long texts are cut at the bounds of this file.
//
// Compacting twice changes nothing more.
func Compact(s *SignIn) {
	compactPolicies(s)
	compactProcessing(s)
	if s.OriginalRequestId == s.RequestId {
		s.OriginalRequestId = ""
	}
	// Those of a guest stay: one that is at home in the log's own tenant is a local guest, which nothing else tells.
	if s.HomeTenantId == s.TenantId && s.ResourceTenantId == s.TenantId && !strings.EqualFold(s.UserType, "guest") {
		s.HomeTenantId, s.ResourceTenantId = "", ""
	}
	if strings.EqualFold(s.SignInIdentifier, s.UserPrincipalName) {
		s.SignInIdentifier = ""
	}
	for _, p := range [...]*string{
		&s.CrossTenantAccessType, &s.ClientCredentialType, &s.AuthenticationProtocol, &s.IncomingTokenType, &s.OriginalTransferMethod,
	} {
		if *p == "none" {
			*p = ""
		}
	}
	if s.TokenIssuerType == "AzureAD" {
		s.TokenIssuerType = ""
	}
	s.FailureReason = Clip(s.FailureReason, maxFailureReason)
	s.AdditionalDetails = Clip(s.AdditionalDetails, maxAdditionalDetails)
	s.UserAgent = Clip(s.UserAgent, maxUserAgent)
	s.RedirectUrl = Clip(s.RedirectUrl, maxRedirectURL)
	for _, p := range [...]*string{
		&s.RequestId, &s.CorrelationId, &s.TenantId, &s.OriginalRequestId, &s.UserId, &s.UserPrincipalName, &s.UserDisplayName,
		&s.UserType, &s.SignInIdentifier, &s.AppId, &s.AppDisplayName, &s.ResourceId, &s.ResourceDisplayName, &s.ResourceTenantId,
		&s.HomeTenantId, &s.CrossTenantAccessType, &s.ServicePrincipalId, &s.ServicePrincipalName, &s.ClientCredentialType,
		&s.ServicePrincipalCredentialKeyId, &s.FederatedCredentialId, &s.IpAddress, &s.City, &s.State, &s.CountryOrRegion,
		&s.ClientAppUsed, &s.AuthenticationProtocol, &s.IncomingTokenType, &s.OriginalTransferMethod, &s.TokenIssuerType,
		&s.SessionId, &s.DeviceId, &s.DeviceDisplayName, &s.OperatingSystem, &s.Browser, &s.TrustType, &s.ConditionalAccessStatus,
		&s.AuthenticationRequirement, &s.RiskLevelDuringSignIn, &s.RiskLevelAggregated, &s.RiskState, &s.RiskDetail,
	} {
		if len(*p) > maxName {
			*p = Clip(*p, maxName)
		}
	}
	for _, list := range [...]*[]string{
		&s.AuthenticationStrengths, &s.AuthenticationMethodsUsed, &s.SessionLifetimePolicies,
		&s.AuthenticationContextClassReferences, &s.RiskEventTypes,
	} {
		clipList(list)
	}
	s.NetworkLocationDetails = s.NetworkLocationDetails[:min(len(s.NetworkLocationDetails), maxListed)]
	for _, n := range s.NetworkLocationDetails {
		n.NetworkType = Clip(n.NetworkType, maxName)
		clipList(&n.NetworkNames)
	}
	s.AuthenticationRequirementPolicies = s.AuthenticationRequirementPolicies[:min(len(s.AuthenticationRequirementPolicies), maxListed)]
	for _, r := range s.AuthenticationRequirementPolicies {
		r.RequirementProvider = Clip(r.RequirementProvider, maxName)
		r.Detail = Clip(r.Detail, maxName)
	}
	s.AuthenticationDetails = s.AuthenticationDetails[:min(len(s.AuthenticationDetails), maxSteps)]
	for _, a := range s.AuthenticationDetails {
		a.Method, a.MethodDetail = Clip(a.Method, maxStepText), Clip(a.MethodDetail, maxStepText)
		a.ResultDetail, a.Requirement = Clip(a.ResultDetail, maxStepText), Clip(a.Requirement, maxStepText)
	}
}

func clipList(list *[]string) {
	*list = (*list)[:min(len(*list), maxListed)]
	for i, s := range *list {
		(*list)[i] = Clip(s, maxName)
	}
}

// policyRank orders policies by how much they decide: those that stopped the sign-in, a block first, then those that would have.
func policyRank(p *Policy) int {
	block := slices.ContainsFunc(p.EnforcedGrantControls, func(c string) bool { return strings.EqualFold(c, "Block") })
	switch {
	case PolicyFailed(p.Result) && block:
		return 0
	case PolicyFailed(p.Result):
		return 1
	case policyTelling(p.Result) && block:
		return 2
	case policyTelling(p.Result):
		return 3
	}
	return 4
}

func compactPolicies(s *SignIn) {
	kept := 0
	for i, p := range s.Policies {
		if policyDecided(p.Result) {
			s.Policies[kept], s.Policies[i] = s.Policies[i], s.Policies[kept]
			kept++
		}
	}
	if kept > maxPolicies {
		// What decided comes first; policies of one rank keep their order.
		slices.SortStableFunc(s.Policies[:kept], func(a, b *Policy) int { return cmp.Compare(policyRank(a), policyRank(b)) })
		kept = maxPolicies
	}
	s.PoliciesLeftOut += uint32(len(s.Policies) - kept)
	s.Policies = s.Policies[:kept]
	for _, p := range s.Policies {
		p.Id, p.DisplayName, p.Result = Clip(p.Id, maxName), Clip(p.DisplayName, maxName), Clip(p.Result, maxName)
		p.AuthenticationStrength = Clip(p.AuthenticationStrength, maxName)
		clipList(&p.EnforcedGrantControls)
		clipList(&p.EnforcedSessionControls)
		clipList(&p.SessionControlsNotSatisfied)
		rules := 0
		if policyTelling(p.Result) {
			rules = maxRules
		}
		for _, list := range [...]*[]*Rule{&p.IncludeRulesSatisfied, &p.ExcludeRulesSatisfied} {
			*list = (*list)[:min(len(*list), rules)]
			for _, r := range *list {
				r.ConditionalAccessCondition = Clip(r.ConditionalAccessCondition, maxName)
				r.RuleSatisfied = Clip(r.RuleSatisfied, maxName)
			}
		}
	}
}

func compactProcessing(s *SignIn) {
	kept := 0
	for i, p := range s.AuthenticationProcessingDetails {
		if kept < maxListed && processingUseful(p) {
			p.Key, p.Value = Clip(p.Key, maxName), Clip(p.Value, maxStepText)
			list := s.AuthenticationProcessingDetails
			list[kept], list[i] = list[i], list[kept]
			kept++
		}
	}
	s.AuthenticationProcessingDetails = s.AuthenticationProcessingDetails[:kept]
}

// processingUseful reports whether a diagnosis reads a processing detail. The keys are those of public records and of
// learn.microsoft.com/entra/identity/monitoring-health/concept-sign-in-log-activity-details.
func processingUseful(p *ProcessingDetail) bool {
	value := trimSpace(p.Value)
	if value == "" || strings.EqualFold(value, "false") || value == "0" {
		return false
	}
	key := p.Key
	switch {
	case hasFoldPrefix(key, "Legacy TLS"), hasFoldPrefix(key, "Login Hint"), hasFoldPrefix(key, "Is CAE Token"), hasFoldPrefix(key, "IsCAEToken"),
		hasFoldPrefix(key, "Is Legacy Store"), hasFoldPrefix(key, "Server name"):
		return true
	case hasFoldPrefix(key, "Azure AD App Authentication Library"):
		return len(value) <= maxAppLibrary
	}
	for _, word := range [...]string{"agent", "pass-through", "passthrough", "password hash", "federat", "PTA", "PHS"} {
		if containsFold(key, word) {
			return true
		}
	}
	return false
}

func hasFoldPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func containsFold(s, word string) bool {
	for i := 0; i+len(word) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// CompactFor makes the small form of src in dst, for the entities topic's roles other than user and service principal: ids,
// times, category, code, user (the identifier where there is no id), application, resource, address, network, client, user agent, protocol and country, and of the
// policies those that failed, with id, name, result and controls; of the device whether it is joined or managed. Texts are cut as Compact cuts them; the failure text
// stays only where no code names the failure, or its code has two meanings (50053). dst is overwritten; its nested messages are used again. Its strings alias
// those of src.
func CompactFor(dst, src *SignIn) {
	policies := dst.Policies[:0]
	dst.Reset()
	dst.RequestId, dst.CorrelationId, dst.TenantId = Clip(src.RequestId, maxName), Clip(src.CorrelationId, maxName), Clip(src.TenantId, maxName)
	dst.EventTime, dst.ProcessingTime = src.EventTime, src.ProcessingTime
	dst.Category, dst.ErrorCode, dst.Flags = src.Category, src.ErrorCode, src.Flags
	if src.Flags&FlagNoErrorCode != 0 || src.ErrorCode == 50053 {
		dst.FailureReason = Clip(src.FailureReason, maxName)
	}
	dst.UserId, dst.UserPrincipalName = Clip(src.UserId, maxName), Clip(src.UserPrincipalName, maxName)
	if !IsGroupingID(src.UserId) && src.SignInIdentifier != src.UserPrincipalName {
		dst.SignInIdentifier = Clip(src.SignInIdentifier, maxName) // all that may tell one person from another
	}
	dst.UserType = src.UserType
	dst.TrustType, dst.IsCompliant, dst.IsManaged = Clip(src.TrustType, maxName), src.IsCompliant, src.IsManaged
	dst.AppId, dst.AppDisplayName = Clip(src.AppId, maxName), Clip(src.AppDisplayName, maxName)
	dst.ResourceId, dst.ResourceDisplayName = Clip(src.ResourceId, maxName), Clip(src.ResourceDisplayName, maxName)
	dst.ServicePrincipalId = Clip(src.ServicePrincipalId, maxName)
	dst.IpAddress, dst.AutonomousSystemNumber = Clip(src.IpAddress, maxName), src.AutonomousSystemNumber
	dst.CountryOrRegion = Clip(src.CountryOrRegion, maxName)
	dst.ClientAppUsed, dst.UserAgent = Clip(src.ClientAppUsed, maxName), Clip(src.UserAgent, maxUserAgent)
	if src.AuthenticationProtocol != "none" {
		dst.AuthenticationProtocol = Clip(src.AuthenticationProtocol, maxName)
	}
	if src.OriginalTransferMethod != "none" {
		dst.OriginalTransferMethod = Clip(src.OriginalTransferMethod, maxName)
	}
	dst.IsInteractive = src.IsInteractive
	for _, p := range src.Policies {
		if !PolicyFailed(p.Result) || len(policies) == maxPolicies {
			continue
		}
		if len(policies) < cap(policies) {
			policies = policies[:len(policies)+1]
		} else {
			policies = append(policies, nil)
		}
		q := policies[len(policies)-1]
		if q == nil {
			q = new(Policy)
			policies[len(policies)-1] = q
		}
		q.Id, q.DisplayName, q.Result = Clip(p.Id, maxName), Clip(p.DisplayName, maxName), p.Result
		q.EnforcedGrantControls = append(q.EnforcedGrantControls[:0], p.EnforcedGrantControls[:min(len(p.EnforcedGrantControls), maxListed)]...)
		q.EnforcedSessionControls = append(q.EnforcedSessionControls[:0], p.EnforcedSessionControls[:min(len(p.EnforcedSessionControls), maxListed)]...)
		clipList(&q.EnforcedGrantControls)
		clipList(&q.EnforcedSessionControls)
	}
	dst.Policies = policies
}
