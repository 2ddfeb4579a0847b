package detectors

// detectDistributedSpray finds users who fail from many addresses that share a user agent and an application, or a network:
// few tries of a user from an address, and more users who fail than users who get in.
var detectDistributedSpray = &detection{kind: IncidentDistributedSpray, find: func(s *story) (f finding) {
	t := &s.th.DistributedSpray
	after := s.th.AccountTakeover.Window.Microseconds()
	s.resolve(after)
	if s.group.unresolved < t.Users {
		return f
	}
	s.setAside(t.Tries, s.th.PasswordSpray.Users)
	for _, window := range [...]int64{t.Window.Microseconds(), t.SlowWindow.Microseconds()} {
		if s.distributed(window) {
			f.found = true
			break
		}
	}
	if !f.found {
		return f
	}
	if s.group.clean >= s.group.unresolved {
		return finding{suppressed: true}
	}
	f.severity = severityMedium
	if s.group.unresolved >= 2*t.Users {
		f.severity = severityHigh
	}
	f.outcome = s.attackOutcome(after)
	f.severity = attackSeverity(f.severity, f.outcome)
	return f
}}

// distributed reports whether some window holds so many users from so many addresses, with few tries each.
func (s *story) distributed(window int64) bool {
	t := &s.th.DistributedSpray
	users, addresses, pairs := &s.e.counter, &s.e.addresses, &s.e.pairs
	users.reset()
	addresses.reset()
	pairs.reset()
	from, over := 0, 0 // over counts pairs of user and address with too many tries
	counted := func(i int) bool {
		v := s.events[i]
		return s.group.of(v.actor).unresolved && v.address != 0 && !s.aside[i]
	}
	for i, v := range s.events {
		if !counted(i) {
			continue
		}
		users.add(v.actor)
		addresses.add(s.placeOf(v))
		if pairs.add(s.pairOf(v)) == t.Tries+1 {
			over++
		}
		for ; s.events[from].time <= v.time-window; from++ {
			old := s.events[from]
			if !counted(from) {
				continue
			}
			users.remove(old.actor)
			addresses.remove(s.placeOf(old))
			if pairs.count(s.pairOf(old)) == t.Tries+1 {
				over--
			}
			pairs.remove(s.pairOf(old))
		}
		// A few users with more tries are people who mistype with the same browser.
		if users.distinct-over >= t.Users && addresses.distinct >= t.Addresses && 2*addresses.distinct >= users.distinct {
			return true
		}
	}
	return false
}
