package detectors

// recogniseWrongPassword explains 50126 and its kin. The window says whether a person, a stored password or several
// sources are behind it; cached_credential and repeated_failures name the first two.
func recogniseWrongPassword(s *subject) verdict {
	v := s.byCode(ScenarioWrongPassword)
	if v == explains {
		s.failuresEvidence()
	}
	return v
}
