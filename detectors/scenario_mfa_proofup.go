package detectors

// recogniseMFAProofup explains 50072, 50079 and 53010: MFA methods have to be registered, or may not be from here. It labels
// the refusal for risk (53004), the registration for password reset (50125), successes that a registration
// was demanded for, and challenges that failed for want of a method.
func recogniseMFAProofup(s *subject) verdict {
	if v := s.byCode(ScenarioMFAProofup); v != doesNotApply {
		if v == explains && noMethod(s.mfaText) {
			s.e.SetBool(s.keys.mfaNoMethod, true)
		}
		return v
	}
	if s.success() {
		if s.demand&demandRegistration != 0 {
			return labels
		}
		return doesNotApply
	}
	if s.code == nil || s.code.Category != "mfa" {
		return doesNotApply
	}
	if s.demand&demandRegistration != 0 || noMethod(s.mfaText) || noMethod(s.r.AdditionalDetails) {
		return labels
	}
	for _, result := range s.r.AuthenticationStrengths {
		if containsAny(result, "registrationrequired", "registrationsrequired", "skippedforproofup") {
			return labels
		}
	}
	return doesNotApply
}

// noMethod reports whether a result text of MFA says that nothing is registered.
func noMethod(text string) bool {
	return containsAny(text, "no verification methods", "no method", "no phone", "not registered", "not configured", "registration prompted")
}
