package detectors

// recogniseAppConfiguration explains settings of the application in Microsoft Entra: reply URL, assignment, permissions,
// identifier, an expired secret.
func recogniseAppConfiguration(s *subject) verdict { return s.byApplication(ScenarioAppConfiguration) }
