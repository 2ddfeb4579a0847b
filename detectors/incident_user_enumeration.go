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
	f.found = s.mostlyOf(classUnknownName)
	if f.found {
		f.severity = severityLow
		if unknown >= 5*t.Names {
			f.severity = severityMedium
		}
	}
	return f
}}
