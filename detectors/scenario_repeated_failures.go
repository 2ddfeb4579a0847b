package detectors

// recogniseRepeatedFailures labels a failure with which its user reached the threshold of the window, and those after it.
func recogniseRepeatedFailures(s *subject) verdict {
	if !s.v.Failures.Repeated || !countsAsFailure(s.r, s.cat) {
		return doesNotApply
	}
	s.failuresEvidence()
	return labels
}
