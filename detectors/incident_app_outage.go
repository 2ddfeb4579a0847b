package detectors

// detectAppOutage finds an application that fails for many users with the same code.
var detectAppOutage = &detection{kind: IncidentAppOutage, find: func(s *story) finding {
	t := &s.th.AppOutage
	return s.outage(t.Users, t.Window.Microseconds(), severityMedium)
}}

// outage finds so many users within a window: an operational incident.
func (s *story) outage(users int, window int64, severity uint8) (f finding) {
	f.found = peakDistinct(s.events, window, &s.e.counter, func(v *event) (uint64, bool) { return v.actor, true }) >= users
	if f.found {
		f.severity, f.outcome = severity, outcomeFailing
	}
	return f
}
