package detectors

// recogniseFlagged labels what a user asked for help with; it says nothing of risk.
func recogniseFlagged(s *subject) verdict {
	if s.r.FlaggedForReview {
		return labels
	}
	return doesNotApply
}
