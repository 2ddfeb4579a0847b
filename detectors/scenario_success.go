package detectors

// recogniseSuccess explains code 0; missed_interrupt and legacy_auth rank before it.
func recogniseSuccess(s *subject) verdict {
	s.riskOfSuccess()
	return explains
}

// riskOfSuccess keeps the risk of a success that had any, since it is the first thing to be asked about.
func (s *subject) riskOfSuccess() {
	switch s.riskLevel() {
	case riskHigh, riskMedium, riskLow:
		s.riskEvidence()
	}
}
