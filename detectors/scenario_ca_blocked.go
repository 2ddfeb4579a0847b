package detectors

// recogniseCABlocked explains 53003 where a failing policy holds Block, and where the record names no failing policy: its
// list may be withheld from the reader or have come in another part, so the policy is unknown, not absent.
func recogniseCABlocked(s *subject) verdict {
	if !s.is(53003) {
		return doesNotApply
	}
	if s.failing == 0 {
		s.policyUnknown()
		s.e.SetText(s.keys.conditionalAccessStatus, s.r.ConditionalAccessStatus)
		return explains
	}
	if !s.failingBlock {
		return doesNotApply
	}
	s.policyEvidence()
	if !s.conditionsKnown {
		s.unknown("policy_conditions")
	}
	return explains
}
