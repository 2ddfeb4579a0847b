package detectors

// detectLockout finds the first lockout of a user by wrong passwords; all that follow are in the same incident. Severity is
// medium where the tries come from several or foreign places, low otherwise.
var detectLockout = &detection{kind: IncidentAccountLockout, find: func(s *story) (f finding) {
	for _, v := range s.events {
		f.found = f.found || v.class.has(classLocked)
	}
	if !f.found {
		return f
	}
	f.severity, f.outcome = severityLow, outcomeLocked
	if s.several(func(v *event) uint32 { return v.address }) || s.unfamiliar(classWrong|classLocked) >= s.th.BruteForce.Failures {
		f.severity = severityMedium
	}
	for _, v := range s.events {
		if v.class.has(classPrivileged) {
			f.severity = severityMedium // high, with the step that privileged users are raised by
		}
	}
	return f
}}

// detectLockoutsOfAddress finds several users who are locked by tries from one address. Those who get in afterwards are locked
// all the same, but where hardly anybody else is, they are people who forgot their passwords.
var detectLockoutsOfAddress = &detection{kind: IncidentAccountLockout, find: func(s *story) (f finding) {
	t := &s.th.AccountLockout
	s.resolve(s.th.AccountTakeover.Window.Microseconds())
	f.found = peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, lockedActor) >= t.UsersHigh
	if !f.found {
		return f
	}
	s.lockouts = true
	f.severity, f.outcome = severityLow, outcomeLocked
	if peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) {
		return v.actor, v.class.has(classLocked) && !s.group.of(v.actor).own
	}) >= t.UsersHigh {
		f.severity = severityHigh
	}
	return f
}}

// detectLockoutStorm finds many users of a tenant who are locked at once, wherever the tries come from.
var detectLockoutStorm = &detection{kind: IncidentAccountLockout, find: func(s *story) (f finding) {
	t := &s.th.AccountLockout
	f.found = peakDistinct(s.events, t.StormWindow.Microseconds(), &s.e.counter, lockedActor) >= t.StormUsers
	if f.found {
		f.severity, f.outcome = severityCritical, outcomeLocked
	}
	return f
}}

func lockedActor(v *event) (uint64, bool) { return v.actor, v.class.has(classLocked) }
