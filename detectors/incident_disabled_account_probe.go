package detectors

// detectDisabledUser finds one disabled account that is tried at several applications.
var detectDisabledUser = &detection{kind: IncidentDisabledAccountProbe, find: func(s *story) (f finding) {
	t := &s.th.DisabledAccountProbe
	f.found = peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) {
		return uint64(v.app), v.class.has(classDisabled) && v.app != 0
	}) >= t.Applications
	if f.found {
		f.severity = severityMedium
	}
	return f
}}

// detectDisabledUsers finds several disabled accounts that are tried from one address.
var detectDisabledUsers = &detection{kind: IncidentDisabledAccountProbe, find: func(s *story) (f finding) {
	t := &s.th.DisabledAccountProbe
	if peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) {
		return v.actor, v.class.has(classDisabled)
	}) < t.Users {
		return f
	}
	s.resolve(s.th.AccountTakeover.Window.Microseconds())
	f.found = s.mostlyOf(classDisabled)
	if f.found {
		f.severity = severityMedium
	}
	f.suppressed = !f.found // a spray that meets disabled accounts too
	return f
}}

// mostlyOf reports whether four of five users of a group have an event of a class.
func (s *story) mostlyOf(of class) bool {
	n := 0
	for i := range s.group.actors {
		if s.group.actors[i].classes.has(of) {
			n++
		}
	}
	return 5*n >= 4*len(s.group.actors)
}
