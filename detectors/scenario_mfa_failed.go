package detectors

// recogniseMFAFailed explains 500121 and the other terminal failures of a challenge. How it failed stands in the last step
// or in the details of the status; every failed challenge is called denied there, so only the reason counts.
func recogniseMFAFailed(s *subject) verdict {
	v := s.byCode(ScenarioMFAFailed)
	if v != explains {
		return v
	}
	text := s.mfaText
	if text == "" {
		text = s.r.AdditionalDetails
	}
	e, k := s.e, s.keys
	switch {
	case containsFold(text, "fraud"):
		s.mfaDenied = true
		e.SetBool(k.mfaDenied, true)
		e.SetBool(k.mfaFraud, true)
	case containsAny(text, "declined", "rejected", "refused", "not me"):
		s.mfaDenied = true
		e.SetBool(k.mfaDenied, true)
	case noMethod(text):
		e.SetBool(k.mfaNoMethod, true)
	case containsAny(text, "wrong code", "incorrect code", "invalid code", "invalid verification code", "wrong verification code",
		"code incorrect", "incorrect verification code", "wrong otp", "wrong number", "oath code", "wrong code too many times"):
		e.SetBool(k.mfaWrongCode, true)
	case containsAny(text, "did not respond", "not respond", "no response", "timed out", "timeout", "time out", "not answered",
		"no answer", "unanswered", "voicemail", "voice mail", "hung up", "unreachable", "expired"):
		e.SetBool(k.mfaNoAnswer, true)
	case text == "":
		s.unknown("mfa_result")
	}
	if s.demand == 0 && s.is(500121) {
		s.unknown("mfa_demander")
	}
	if s.mfaRequired && s.e.find(k.mfaRequired) == nil {
		s.mfaEvidence()
	}
	return explains
}
