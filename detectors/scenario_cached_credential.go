package detectors

// recogniseCachedCredential labels a wrong password that comes at a regular spacing from one application and one device:
// a program that keeps an old password rather than a person or an attack. A lockout among the failures speaks against
// it, since repeating one wrong password does not count for smart lockout.
func recogniseCachedCredential(s *subject) verdict {
	if s.code == nil || !s.code.PasswordWasWrong() || !s.storedRegular() {
		return doesNotApply
	}
	s.failuresEvidence()
	return labels
}
