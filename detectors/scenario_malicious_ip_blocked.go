package detectors

// recogniseMaliciousIPBlocked explains a 50053 whose text names the address. Whether the password was right is not told.
func recogniseMaliciousIPBlocked(s *subject) verdict {
	if !s.is(50053) || s.lockout() != lockoutMaliciousAddress {
		return doesNotApply
	}
	s.e.SetText(s.keys.lockoutCause, lockoutMaliciousAddress)
	s.riskEvidence()
	s.unknown("password")
	return explains
}
