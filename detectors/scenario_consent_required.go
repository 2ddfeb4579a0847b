package detectors

// recogniseConsentRequired explains missing or refused consent. The consent page itself (65001) is an interrupt.
func recogniseConsentRequired(s *subject) verdict { return s.byCode(ScenarioConsentRequired) }
