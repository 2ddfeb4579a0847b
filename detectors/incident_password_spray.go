package detectors

// detectPasswordSpray finds users who fail from one address and do not get in from there afterwards: many within half an
// hour, or over a day, or few in a small tenant where each is tried only some times and with one user agent. Where more people
// get in from the address without a failure than fail, the address is one that many share, and the severity is lower.
var detectPasswordSpray = &detection{kind: IncidentPasswordSpray, find: func(s *story) (f finding) {
	t := &s.th.PasswordSpray
	after := s.th.AccountTakeover.Window.Microseconds()
	s.resolve(after)
	if s.found.has(detectUserEnumeration) || s.found.has(detectDisabledUsers) {
		return f // nearly all names are unknown or disabled: the other kind says it
	}
	fast := peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, s.unresolvedActor)
	switch {
	case fast >= t.UsersHigh:
		f.severity = severityHigh
	case fast >= t.Users:
		f.severity = severityMedium
	case !s.group.livedIn() && peakDistinct(s.events, t.SlowWindow.Microseconds(), &s.e.counter, s.unresolvedActor) >= t.SlowUsers:
		f.severity = severityMedium // over a day, typing errors of an office add up
	case fast >= t.LowUsers && s.lowTier():
		f.severity = severityLow
	default:
		f.suppressed = peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) { return v.actor, true }) >= t.Users
		return f
	}
	f.found = true
	if s.group.livedIn() && f.severity > severityLow {
		f.severity--
	}
	if s.mostlyOf(classUnknownName) {
		f.severity = severityLow // as user_enumeration, whose number of names they do not reach
	}
	f.outcome = s.attackOutcome(after)
	f.severity = attackSeverity(f.severity, f.outcome)
	return f
}}

// lowTier reports whether few users look like a spray all the same: so many within a window were tried only some times until
// then, all with one user agent, and hardly anybody else uses the address. What is tried later takes nothing back.
func (s *story) lowTier() bool {
	if s.group.livedIn() {
		return false
	}
	t := &s.th.PasswordSpray
	window := t.Window.Microseconds()
	users, agents := &s.e.counter, &s.e.addresses
	users.reset()
	agents.reset()
	from, over := 0, 0 // over counts users with too many tries
	counted := func(v *event) bool { _, ok := s.unresolvedActor(v); return ok }
	for _, v := range s.events {
		if !counted(v) {
			continue
		}
		agents.add(uint64(v.agent))
		if users.add(v.actor) == t.LowTries+1 {
			over++
		}
		for ; s.events[from].time <= v.time-window; from++ {
			old := s.events[from]
			if !counted(old) {
				continue
			}
			agents.remove(uint64(old.agent))
			if users.count(old.actor) == t.LowTries+1 {
				over--
			}
			users.remove(old.actor)
		}
		if users.distinct-over >= t.LowUsers && agents.distinct == 1 {
			return true
		}
	}
	return false
}
