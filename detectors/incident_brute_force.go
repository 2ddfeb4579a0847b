package detectors

// detectBruteForce finds many wrong passwords of one user, unknown names aside, from all addresses together: fast ones wherever they come from,
// slow ones from places where the user did not get in before. Regular tries of a stored password are none.
var detectBruteForce = &detection{kind: IncidentBruteForce, find: func(s *story) (f finding) {
	t := &s.th.BruteForce
	wrong := func(v *event) bool {
		return v.class.any(classWrong|classLocked|classBadAddress) && !v.class.has(classUnknownName) && !s.isStored(v)
	}
	foreign := func(v *event) bool { return wrong(v) && !s.familiar(v.address, v.class) }
	fast := peak(s.events, t.Window.Microseconds(), wrong)
	slow := peak(s.events, t.SlowWindow.Microseconds(), foreign)
	if fast < t.Failures && slow < t.Failures {
		f.suppressed = peak(s.events, t.SlowWindow.Microseconds(), func(v *event) bool { return wrong(v) || s.isStored(v) }) >= t.Failures
		return f
	}
	f.found, f.severity = true, severityMedium
	addresses := peakDistinct(s.events, t.SlowWindow.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) {
		return uint64(v.address), foreign(v) && v.address != 0
	})
	switch {
	case max(fast, slow) >= t.FailuresHigh, addresses >= t.AddressesHigh:
		f.severity = severityHigh
	case slow == 0: // the user's own place or device
		f.severity = severityLow
	}
	f.outcome = s.credentialOutcome(t.Failures)
	return f
}}
