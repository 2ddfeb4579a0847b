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
	f.found = peakDistinct(s.events, t.Window.Microseconds(), &s.e.counter, func(v *event) (uint64, bool) {
		return v.actor, v.class.has(classDisabled)
	}) >= t.Users
	if f.found {
		f.severity = severityMedium
	}
	return f
}}
