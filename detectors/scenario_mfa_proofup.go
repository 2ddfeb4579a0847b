package detectors

// recogniseMFAProofup explains 50072, 50079 and 53010: MFA methods have to be registered, or may not be from here, and
// prompts whose demander or authentication strength asks for a registration. It labels the refusal for risk (53004),
// the registration for password reset (50125), successes that a registration was demanded for, and challenges and
// refusals by Conditional Access that failed for want of a method.
func recogniseMFAProofup(s *subject) verdict {
	if v := s.byCode(ScenarioMFAProofup); v != doesNotApply {
		if v == explains && noMethod(s.mfaText) {
			s.e.SetBool(s.keys.mfaNoMethod, true)
		}
		return v
	}
	wanted := s.demand&demandRegistration != 0 || s.strengthWantsRegistration()
	wanted = wanted || containsFold(s.mfaText, "registration prompted")
	if !s.success() {
		wanted = wanted || noMethod(s.mfaText) || noMethod(s.r.AdditionalDetails)
	}
	switch {
	case !wanted:
		return doesNotApply
	case s.mfaPrompt() && !s.is(50158):
		return explains
	case s.success(), s.caRefusal(), s.code != nil && s.code.Category == "mfa":
		return labels
	}
	return doesNotApply
}

// strengthWantsRegistration reports whether the result of an authentication strength (Microsoft Graph, authenticationStrengthResult)
// is that methods have to be registered.
func (s *subject) strengthWantsRegistration() bool {
	for _, result := range s.r.AuthenticationStrengths {
		if containsAny(result, "registrationrequired", "registrationsrequired", "skippedforproofup") {
			return true
		}
	}
	return false
}

// noMethod reports whether a result text of MFA says that nothing is registered.
func noMethod(text string) bool {
	return containsAny(text, "no verification methods", "no method", "no phone", "not registered", "not configured", "registration prompted")
}
