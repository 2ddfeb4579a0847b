package detectors

import (
	"strings"

	"github.com/signindiag/signindiag/schemas"
)

// Why an interruption of a success was to be expected, as missed_by gives it, and missed_by_risk what only viewers of risk may know.
const (
	missedReportOnly = "a report-only policy would have stopped or interrupted it"
	missedLegacy     = "a legacy client cannot be asked for MFA"
	missedRisk       = "the risk was high and MFA was not passed"
)

// missedExpectations begin the text of missed_by for an expectation of the tenant; its name follows.
var missedExpectations = [...]struct{ expect, text string }{
	{ExpectMFA, "the tenant expects MFA here: "},
	{ExpectConditionalAccess, "the tenant expects a Conditional Access policy here: "},
	{ExpectCompliantDevice, "the tenant expects a compliant device here: "},
	{ExpectBlock, "the tenant expects no sign-in here: "},
}

// Resources and applications for which a report-only result on a success says nothing: sign-ins to Windows, brokers and the
// directory's own interfaces are made with tokens that policies judge elsewhere (Microsoft's Conditional Access gap analyzer
// workbook leaves them out).
var (
	missedResources = [...]string{
		"00000002-0000-0000-c000-000000000000", // Azure AD Graph
		"00000003-0000-0000-c000-000000000000", // Microsoft Graph
	}
	missedApplications = [...]string{"Windows Sign In", "Microsoft Authentication Broker"}
)

// recogniseMissedInterrupt explains a success that something should have interrupted: a report-only policy that would
// have, a legacy client, high risk without MFA, or what the tenant expects. Without one of these nobody can know what should have
// happened. Records that are not interactive often hold no steps, so a missing MFA means nothing there; a risk that was remediated
// is over.
func recogniseMissedInterrupt(s *subject) verdict {
	if !s.user {
		return doesNotApply
	}
	v := doesNotApply
	if s.reportOnly && s.interactive() && !s.missedExcluded() {
		s.e.Add(s.keys.missedBy, missedReportOnly)
		for _, p := range s.r.Policies {
			if strings.EqualFold(p.Result, "reportOnlyFailure") || strings.EqualFold(p.Result, "reportOnlyInterrupted") {
				s.e.Add(s.keys.reportOnlyPolicies, policyName(p))
			}
		}
		v = explains
	}
	if s.legacy && !s.refused {
		s.e.Add(s.keys.missedBy, missedLegacy)
		v = explains
	}
	if s.riskLevel() == riskHigh && !s.riskOver() && s.interactive() && !s.mfaPassed() {
		s.e.Add(s.keys.missedByRisk, missedRisk)
		s.riskEvidence()
		v = explains
	}
	expectations := s.c.settings.Of(s.r.TenantId).Expectations
	for i := range expectations {
		x := &expectations[i]
		if !s.holds(x) || s.asExpected(x) {
			continue
		}
		for _, m := range missedExpectations {
			if m.expect == x.Expect {
				s.e.Add(s.keys.missedBy, m.text+x.Name)
				v = explains
			}
		}
	}
	return v
}

// holds reports whether an expectation is about the sign-in.
func (s *subject) holds(x *Expectation) bool {
	r := s.r
	among := func(list []string, a, b string) bool { return len(list) == 0 || namedIn(list, a, b) }
	return among(x.Users, r.UserPrincipalName, r.UserId) &&
		among(x.Applications, r.AppDisplayName, r.AppId) &&
		among(x.Resources, r.ResourceDisplayName, r.ResourceId) &&
		among(x.ClientApps, r.ClientAppUsed, "") &&
		among(x.Countries, r.CountryOrRegion, "") &&
		!namedIn(x.ExceptUsers, r.UserPrincipalName, r.UserId) &&
		(len(x.ExceptAddresses) == 0 || !inPrefixes(x.ExceptAddresses, r.IpAddress))
}

// namedIn reports whether a list has one of two values, whatever their case; an empty value is in no list.
func namedIn(list []string, a, b string) bool {
	for _, have := range list {
		if a != "" && strings.EqualFold(have, a) || b != "" && strings.EqualFold(have, b) {
			return true
		}
	}
	return false
}

// asExpected reports whether a success is as an expectation says. It is where the record does not tell, and where a
// sign-in is of a kind that policies do not judge (scope of Microsoft's gap analyzer workbook).
func (s *subject) asExpected(x *Expectation) bool {
	r := s.r
	switch x.Expect {
	case ExpectMFA:
		if !x.NonInteractive && !s.interactive() || s.missedExcluded() || s.mfaSatisfied ||
			strings.EqualFold(r.AuthenticationRequirement, "multiFactorAuthentication") {
			return true
		}
		policiesKnown := r.Flags&schemas.FlagPoliciesAbsent == 0
		if policiesKnown && len(r.Policies) == 0 && r.PoliciesLeftOut == 0 {
			return true // none was evaluated at all: a bootstrap flow, such as the registration of a device
		}
		return r.AuthenticationRequirement == "" && len(r.AuthenticationDetails) == 0 // Graph's v1.0 tells neither
	case ExpectConditionalAccess:
		if !x.NonInteractive && !s.interactive() || s.missedExcluded() || r.Flags&schemas.FlagPoliciesAbsent != 0 {
			return true
		}
		for _, p := range r.Policies {
			if strings.EqualFold(p.Result, "success") {
				return true
			}
		}
		return false
	case ExpectCompliantDevice:
		return r.IsCompliant == schemas.Tri_TRI_TRUE || s.missedOutOfScope()
	}
	return false
}

func (s *subject) interactive() bool {
	return s.r.Category == schemas.Category_CATEGORY_SIGN_IN && s.r.IsInteractive != schemas.Tri_TRI_FALSE
}

// missedExcluded reports whether nothing can be said to be missed, since policies judge the sign-in elsewhere or its first
// factor was strong by itself.
func (s *subject) missedExcluded() bool { return s.missedOutOfScope() || s.strongFirstFactor() }

func (s *subject) missedOutOfScope() bool {
	for _, id := range missedResources {
		if strings.EqualFold(s.r.ResourceId, id) {
			return true
		}
	}
	for _, name := range missedApplications {
		if strings.EqualFold(s.r.AppDisplayName, name) {
			return true
		}
	}
	return s.foreign || s.synchronisation()
}

// synchronisation reports whether the user is an account with which Microsoft Entra Connect (Sync_SERVER_NUMBER) or cloud sync
// synchronise the directory, which is exempt from such policies. Both have their names in the tenant's initial domain.
func (s *subject) synchronisation() bool {
	const domain = ".onmicrosoft.com"
	upn := s.r.UserPrincipalName
	if strings.EqualFold(s.r.UserDisplayName, "On-Premises Directory Synchronization Service Account") {
		return true
	}
	return len(upn) > len(domain) && strings.EqualFold(upn[len(upn)-len(domain):], domain) &&
		(hasPrefixFold(upn, "Sync_") || hasPrefixFold(upn, "ADToAADSyncServiceAccount"))
}

// mfaPassed reports whether something in the record says that MFA was passed or not needed: a step or the details, a
// policy that asks for it and was met, or a method that is multifactor by itself.
func (s *subject) mfaPassed() bool {
	return s.mfaSatisfied || s.mfaPolicyPassed || s.strongFirstFactor()
}

// strongFirstFactor reports whether a step used a method that is multifactor by itself.
func (s *subject) strongFirstFactor() bool {
	for _, step := range s.r.AuthenticationDetails {
		if step.GetSucceeded() == schemas.Tri_TRI_TRUE &&
			containsAny(step.GetMethod(), "windows hello", "fido2", "passkey", "passwordless", "x.509") {
			return true
		}
	}
	return false
}
