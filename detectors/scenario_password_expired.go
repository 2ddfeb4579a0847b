package detectors

// recognisePasswordExpired explains passwords that are expired or must be changed, and changes that did not go through.
func recognisePasswordExpired(s *subject) verdict { return s.byCode(ScenarioPasswordExpired) }
