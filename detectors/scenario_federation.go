package detectors

// recogniseFederation explains faults of the identity provider outside Microsoft Entra.
func recogniseFederation(s *subject) verdict { return s.byCode(ScenarioFederation) }
