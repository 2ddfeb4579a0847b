package detectors

// recogniseMFAOther explains a prompt for MFA that neither Conditional Access nor security defaults demand: per-user MFA, the
// application, a legacy policy, a risk policy. Where nobody is named as the demander the log may not have settled, or AD FS
// or a network policy server asked.
func recogniseMFAOther(s *subject) verdict {
	if s.demand&(demandCA|demandSecurityDefaults) != 0 {
		return doesNotApply
	}
	if s.mfaPrompt() && !s.is(50158) {
		if s.demand == 0 {
			s.unknown("mfa_demander")
		}
		return explains
	}
	if s.demand&demandOther == 0 || !s.mfaRequired {
		return doesNotApply
	}
	if s.success() || s.code != nil && (s.code.Category == "mfa" || s.code.Category == "mfa_proofup") {
		return labels
	}
	return doesNotApply
}
