package detectors

// detectCachedCredential finds wrong passwords that come at a regular spacing from one application, device, client and
// address by something that tries without a person: a program that keeps an old password. A lockout among them speaks against
// it, since smart lockout does not count a repeated wrong password.
var detectCachedCredential = &detection{kind: IncidentCachedCredential, find: func(s *story) (f finding) {
	t := &s.th.CachedCredential
	if peak(s.events, t.Window.Microseconds(), func(v *event) bool { return v.class.has(classWrong) }) < t.Failures {
		return f
	}
	for _, v := range s.events {
		if !v.class.has(classWrong) || !v.class.any(classSilent|classLegacy) && v.device == 0 {
			return f
		}
	}
	if !s.oneSource() || regularSeconds(s.events) == 0 {
		return f
	}
	return finding{found: true, severity: severityLow, outcome: outcomeFailing}
}}
