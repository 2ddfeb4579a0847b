package detectors

// detectCASurge finds a Conditional Access policy that suddenly stops many users: so many within the window, and several
// times the users that it stopped in an equal time of the 24 hours before.
var detectCASurge = &detection{kind: IncidentCASurge, find: func(s *story) (f finding) {
	t := &s.th.CASurge
	window := t.Window.Microseconds()
	const day = 24 * microsPerHour
	actors := func(v *event) (uint64, bool) { return v.actor, true }
	if peakDistinct(s.events, window, &s.e.counter, actors) < t.Users {
		return f
	}
	f.suppressed = true
	for i, v := range s.events {
		if i+1 < len(s.events) && s.events[i+1].time == v.time {
			continue
		}
		now := s.n.distinctActors(v.time, window, &s.e.counter).least
		if now < int64(t.Users) {
			continue
		}
		// What is known of the 24 hours before is less where the log began later. Then the users have to come within half of the
		// window too: a steady trickle, or the start of a working day, is no surge.
		before := s.n.distinctActors(v.time-window, day, &s.e.counter).most
		known := max(min(v.time-window-s.e.started, day), 0)
		if known < day && s.n.distinctActors(v.time, window/2, &s.e.counter).least < int64(t.Users) {
			continue
		}
		if now*known >= int64(t.Factor)*before*window {
			return finding{found: true, severity: severityMedium, outcome: outcomeFailing}
		}
	}
	return f
}}
