package detectors

// 50053 has two meanings that only the failure text tells apart: smart lockout after too many wrong passwords,
// and an address that is known for malicious activity. The code alone never decides.

// Causes of 50053 as lockout_cause gives them.
const (
	lockoutUnknown          = ""
	lockoutBadPasswords     = "bad_passwords"
	lockoutMaliciousAddress = "malicious_address"
)

// lockoutCause reads the text of a 50053. A text that holds both meanings, as the general description of the code
// does, tells nothing.
func lockoutCause(text string) string {
	malicious := containsAny(text, "malicious", "ip address", "anonymous ip")
	locked := containsAny(text, " locked", "too many times", "too many failed", "repeated sign-in attempts", "idslocked")
	switch {
	case malicious && !locked:
		return lockoutMaliciousAddress
	case locked && !malicious:
		return lockoutBadPasswords
	}
	return lockoutUnknown
}

// lockout returns the cause of a 50053, from the failure reason or, where that does not tell, the details.
func (s *subject) lockout() string {
	if cause := lockoutCause(failureReason(s.r)); cause != lockoutUnknown {
		return cause
	}
	return lockoutCause(s.r.AdditionalDetails)
}

// recogniseAccountLocked explains every other 50053, the lockout of AD FS (300030) and accounts that are locked
// on-premises (120014). Evidence is what the user's window holds: applications, numbers, devices, addresses.
func recogniseAccountLocked(s *subject) verdict {
	v := s.byCode(ScenarioAccountLocked)
	if v != explains {
		return v
	}
	if s.is(50053) {
		switch cause := s.lockout(); cause {
		case lockoutMaliciousAddress:
			return doesNotApply
		case lockoutUnknown:
			s.unknown("lockout_cause")
		default:
			s.e.SetText(s.keys.lockoutCause, cause)
		}
	} else if s.is(120014) {
		s.unknown("lockout_cause")
	} else {
		s.e.SetText(s.keys.lockoutCause, lockoutBadPasswords)
	}
	s.failuresEvidence()
	s.unknown("password")
	return explains
}
