package detectors

// detectCASurge finds a Conditional Access policy that suddenly stops many users: so many within the window, several times
// the users that it stopped in an equal time of the 24 hours before, and clearly more than in the busiest such window of
// them. A day has its hours: against the mean of the day alone, every start of work would be a surge.
var detectCASurge = &detection{kind: IncidentCASurge, find: func(s *story) (f finding) {
	t := &s.th.CASurge
	window := t.Window.Microseconds()
	const day = 24 * microsPerHour
	users := &s.e.counter
	n := s.n
	// at holds the users of the window that ends with each kept event.
	var at [MaxKeptGroupEvents]int64
	users.reset()
	from, most := 0, int64(0)
	for i := range n.events {
		users.add(n.events[i].actor)
		for ; n.events[from].time <= n.events[i].time-window; from++ {
			users.remove(n.events[from].actor)
		}
		at[i] = int64(users.distinct)
		most = max(most, at[i])
	}
	if most < int64(t.Users) && len(n.hours) == 0 {
		return f
	}
	for i := range n.events {
		v := &n.events[i]
		if v.time < s.first() || v.time > s.last() || i+1 < len(n.events) && n.events[i+1].time == v.time {
			continue
		}
		now := at[i]
		if len(n.hours) > 0 {
			now = n.distinctActors(v.time, window, users).least
		}
		if now < int64(t.Users) {
			continue
		}
		f.suppressed = true
		edge := v.time - window
		known := max(min(edge-s.e.started, day), 0)
		if known < window {
			// Nobody knows what is usual. Then only a burst tells: so many users in a quarter of the window.
			if n.distinctActors(v.time, window/4, users).least >= int64(t.Users) {
				return finding{found: true, severity: severityMedium, outcome: outcomeFailing}
			}
			continue
		}
		busiest := int64(0)
		for k := i; k >= 0 && n.events[k].time > edge-day; k-- {
			if n.events[k].time <= edge {
				busiest = max(busiest, at[k])
			}
		}
		for k := range n.hours {
			h := &n.hours[k]
			if end := (h.hour + 1) * microsPerHour; h.actors != nil && end > edge-day && h.hour*microsPerHour <= edge {
				busiest = max(busiest, h.actors.estimate()*max(window/microsPerHour, 1))
			}
		}
		if now < surgeOverBusiest*busiest {
			continue
		}
		// Where less than a day is known, its busy hours may still be to come: then the numbers must be beyond them.
		if known < day && (now < int64(t.Factor)*busiest || n.distinctActors(v.time, window/2, users).least < 2*int64(t.Users)) {
			continue
		}
		if now*known >= int64(t.Factor)*n.distinctActors(edge, day, users).most*window {
			return finding{found: true, severity: severityMedium, outcome: outcomeFailing}
		}
	}
	return f
}}

// surgeOverBusiest is how many times the users of the busiest window before a surge are. With numbers as small as the
// threshold of users, chance alone reaches nearly twice of what is usual at that time of the day.
const surgeOverBusiest = 2
