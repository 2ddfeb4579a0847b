package detectors

// recogniseSSO explains the codes of Seamless SSO. The person is normally just asked for the password, so a success often follows.
func recogniseSSO(s *subject) verdict { return s.byCode(ScenarioSSO) }
