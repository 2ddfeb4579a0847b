package detectors

// recogniseTokenSession explains tokens, grants and sessions that ended; 70043 and 70044 are the sign-in frequency at work.
func recogniseTokenSession(s *subject) verdict { return s.byCode(ScenarioTokenSession) }
