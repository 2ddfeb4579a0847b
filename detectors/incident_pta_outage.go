package detectors

// detectPTAOutage finds pass-through authentication that fails for many users of a tenant at once.
var detectPTAOutage = &detection{kind: IncidentPTAOutage, find: func(s *story) finding {
	t := &s.th.PTAOutage
	return s.outage(t.Users, t.Window.Microseconds(), severityHigh)
}}
