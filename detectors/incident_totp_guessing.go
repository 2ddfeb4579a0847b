package detectors

// detectTOTPGuessing finds many wrong one-time codes of one user: the password is known, and the codes are being guessed.
var detectTOTPGuessing = &detection{kind: IncidentTOTPGuessing, find: func(s *story) (f finding) {
	t := &s.th.TOTPGuessing
	wrong := func(v *event) bool { return v.class.has(classWrongCode) }
	if peak(s.events, t.Window.Microseconds(), wrong) < t.Codes {
		return f
	}
	f = finding{found: true, severity: severityHigh, outcome: outcomePasswordKnown}
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if p.class.has(classSuccess) && s.eventsBefore(p.time, classWrongCode) >= t.Codes && p.time-s.last() <= microsPerHour/2 &&
			s.sameWay(p, classWrongCode) > 0 && !s.familiarBefore(p.address, p.class, p.time) {
			f.severity, f.outcome = severityCritical, outcomeSignedIn
			s.decide(i)
		}
	}
	return f
}}
