package detectors

// recognisePTA explains the codes that only pass-through authentication gives, and labels an expired password on-premises
// (50144). Other failures of people who use it have their own scenarios.
func recognisePTA(s *subject) verdict { return s.byCode(ScenarioPTA) }
