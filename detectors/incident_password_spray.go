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
	f.outcome = s.attackOutcome(after)
	f.severity = attackSeverity(f.severity, f.outcome)
	return f
}}

// lowTier reports whether few users look like a spray all the same: each was tried only some times, all with one user agent,
// and hardly anybody else uses the address.
func (s *story) lowTier() bool {
	for i := range s.group.actors {
		if a := &s.group.actors[i]; a.unresolved && a.tries > s.th.PasswordSpray.LowTries {
			return false
		}
	}
	agent, some := uint32(0), false
	for _, v := range s.events {
		if !s.group.of(v.actor).unresolved {
			continue
		}
		if some && v.agent != agent {
			return false
		}
		agent, some = v.agent, true
	}
	return !s.group.livedIn()
}
