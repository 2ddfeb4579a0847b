package detectors

// recogniseServiceFault explains faults of Microsoft Entra and of services beside it.
func recogniseServiceFault(s *subject) verdict { return s.byCode(ScenarioServiceFault) }
