package detectors

// detectUserEnumeration finds many unknown user names from one address, with hardly a known one among them.
var detectUserEnumeration = &detection{kind: IncidentUserEnumeration, find: func(s *story) (f finding) {
	t := &s.th.UserEnumeration
	s.resolve(s.th.AccountTakeover.Window.Microseconds())
	unknown := peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) {
		return v.actor, v.class.has(classUnknownName)
	})
	if unknown < t.Names {
		return f
	}
	names := 0
	for i := range s.group.actors {
		if s.group.actors[i].classes.has(classUnknownName) {
			names++
		}
	}
	f.found = 5*names >= 4*len(s.group.actors)
	if f.found {
		f.severity = severityLow
		if names >= 5*t.Names {
			f.severity = severityMedium
		}
	}
	return f
}}
