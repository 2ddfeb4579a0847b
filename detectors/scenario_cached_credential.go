package detectors

// recogniseCachedCredential labels a wrong password that comes at a regular spacing from one application and one device:
// a program that keeps an old password rather than a person or an attack. A lockout among the failures speaks against
// it, since repeating one wrong password does not count for smart lockout.
func recogniseCachedCredential(s *subject) verdict {
	f := &s.v.Failures
	if s.code == nil || !s.code.PasswordWasWrong() || f.RegularSeconds == 0 || f.Count < cachedAfter {
		return doesNotApply
	}
	if len(f.Applications) > 1 || len(f.Devices) > 1 || len(f.Devices) == 0 && len(f.Addresses) > 1 {
		return doesNotApply
	}
	for _, code := range f.Codes {
		if code == 50053 {
			return doesNotApply
		}
	}
	s.failuresEvidence()
	return labels
}
