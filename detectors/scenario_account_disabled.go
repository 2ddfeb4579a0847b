package detectors

// recogniseAccountDisabled explains 50057, and labels disabled guests (500571) and accounts that are locked or disabled on-premises.
func recogniseAccountDisabled(s *subject) verdict { return s.byCode(ScenarioAccountDisabled) }
