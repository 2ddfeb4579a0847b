package detectors

// recogniseCAMFA explains a prompt for MFA, or for an external step (50158), that Conditional Access demands. On a success, on a
// failed challenge and on a registration it labels: the demand is evidence there, not what stopped or marked the sign-in.
func recogniseCAMFA(s *subject) verdict {
	if s.mfaPrompt() {
		if s.demand&demandCA == 0 && !s.is(50158) {
			return doesNotApply
		}
		s.policyEvidence()
		if s.failing == 0 && (s.statusOnly || s.demand&demandCA == 0) {
			s.policyUnknown()
		}
		return explains
	}
	if s.demand&demandCA == 0 || !s.mfaRequired {
		return doesNotApply
	}
	if s.success() || s.code != nil && (s.code.Category == "mfa" || s.code.Category == "mfa_proofup") {
		return labels
	}
	return doesNotApply
}
