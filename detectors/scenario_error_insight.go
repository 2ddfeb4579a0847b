package detectors

// recogniseErrorInsight is the fallback: codes of families without a scenario, codes that the catalogue does not know, and
// records without a code, whatever they turn out to be.
func recogniseErrorInsight(s *subject) verdict {
	if s.code == nil {
		return explains
	}
	return s.byCode(ScenarioErrorInsight)
}
