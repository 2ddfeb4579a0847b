package detectors

// detectSSOOutage finds Seamless SSO that fails for many users of a tenant at once. People are asked for their passwords
// instead, so it hurts less than an outage of pass-through authentication.
var detectSSOOutage = &detection{kind: IncidentSSOOutage, find: func(s *story) finding {
	t := &s.th.SSOOutage
	return s.outage(t.Users, t.Window.Microseconds(), severityMedium)
}}
