package detectors

// recogniseFlagged labels what a user asked for help with; it says nothing of risk. What was flagged around it belongs to the
// same request: the failures among it are what the user needs help with, since successes are flagged too.
func recogniseFlagged(s *subject) verdict {
	if !s.r.FlaggedForReview {
		return doesNotApply
	}
	if f := &s.v.Flagged; f.Records > 0 {
		s.e.SetInt(s.keys.flaggedRecords, int64(f.Records))
		s.e.SetTime(s.keys.flaggedSince, f.First)
		for _, code := range f.FailureCodes {
			s.e.Add(s.keys.flaggedFailures, s.c.codeText(code))
		}
	}
	return labels
}
