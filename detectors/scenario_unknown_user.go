package detectors

// recogniseUnknownUser explains 50034 and its kin. b2b_failed ranks before it where the person is proven to come from
// another tenant. The record may hold no user at all, and unknown names may be guesses of an attacker.
func recogniseUnknownUser(s *subject) verdict { return s.byCode(ScenarioUnknownUser) }
