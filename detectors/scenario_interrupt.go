package detectors

// recogniseInterrupt explains the steps of a sign-in that nothing else does: stay signed in (50140), no session
// (50058), choose an account and their like. Prompts, consent and device checks have scenarios of their own.
func recogniseInterrupt(s *subject) verdict { return s.byCode(ScenarioInterrupt) }
