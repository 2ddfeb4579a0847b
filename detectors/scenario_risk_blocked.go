package detectors

import (
	"strings"

	"github.com/signindiag/signindiag/schemas"
)

// recogniseRiskBlocked explains refusals and forced password changes because of risk: its own codes, and 53003 where a risk
// condition of a failing policy matched, as for the collective 50131. Where the record does not say which conditions matched, a risk policy among
// the demanders or a risk level during the sign-in decides. Levels of workloads mean nothing, and hidden is not none.
func recogniseRiskBlocked(s *subject) verdict {
	v := s.byCode(ScenarioRiskBlocked)
	if v == explains {
		if s.is(530032, 53011, 530034, 50135, 50142) {
			s.riskUser = true
			if s.user {
				s.e.SetBool(s.keys.riskUser, true)
			}
		}
	} else {
		switch {
		case s.is(53003) && s.blockedForRisk(), s.is(50131) && s.failingRisk:
		case s.caRefusal() && s.failingRisk:
			return labels // what was not met is a control that was asked for because of risk
		default:
			return v
		}
		for _, p := range s.r.Policies {
			if strings.EqualFold(p.Result, "failure") && p.ConditionsSatisfied&schemas.ConditionUserRisk != 0 {
				s.riskUser = true
				s.e.SetBool(s.keys.riskUser, true)
			}
		}
	}
	s.policyEvidence()
	s.riskEvidence()
	if s.riskLevel() == riskUnknown && !s.is(53011, 530034) {
		s.unknown("risk_level")
	}
	return explains
}

func (s *subject) blockedForRisk() bool {
	if s.failingRisk {
		return true
	}
	for _, p := range s.r.AuthenticationRequirementPolicies {
		if strings.EqualFold(p.GetRequirementProvider(), "riskBasedPolicy") {
			return true
		}
	}
	if s.failing > 0 && s.conditionsKnown {
		return false // the conditions that matched hold no risk
	}
	switch s.riskLevel() {
	case riskHigh, riskMedium, riskLow:
		return true
	}
	return false
}
