package detectors

import "strings"

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
		return
	}
	if s.user { // an offline detection raises the aggregated level alone
		switch {
		case strings.EqualFold(s.r.RiskLevelAggregated, riskHigh), strings.EqualFold(s.r.RiskLevelAggregated, riskMedium),
			strings.EqualFold(s.r.RiskLevelAggregated, riskLow):
			s.riskEvidence()
		}
	}
}
