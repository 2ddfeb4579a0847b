package detectors

// recogniseSecurityDefaults explains 530035 and the prompts that security defaults demand, registration included. On a success and
// on a failed challenge it labels.
func recogniseSecurityDefaults(s *subject) verdict {
	if v := s.byCode(ScenarioSecurityDefaults); v != doesNotApply {
		return v
	}
	if s.demand&demandSecurityDefaults == 0 {
		return doesNotApply
	}
	if s.mfaPrompt() || s.is(50072, 50079) {
		return explains
	}
	if s.success() || s.code != nil && (s.code.Category == "mfa" || s.code.Category == "mfa_proofup") {
		return labels
	}
	return doesNotApply
}
