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
// have, a legacy client, or high risk without MFA. Without one of these nobody can know what should have happened. Records that are
// not interactive often hold no steps, so a missing MFA means nothing there; a risk that was remediated is over.
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
	return v
}

func (s *subject) interactive() bool {
	return s.r.Category == schemas.Category_CATEGORY_SIGN_IN && s.r.IsInteractive != schemas.Tri_TRI_FALSE
}

func (s *subject) missedExcluded() bool {
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
	// Directory synchronisation signs in by itself and is exempt from such policies.
	if hasPrefixFold(s.r.UserPrincipalName, "sync_") || strings.EqualFold(s.r.UserDisplayName, "On-Premises Directory Synchronization Service Account") {
		return true
	}
	return s.foreign || s.strongFirstFactor()
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
