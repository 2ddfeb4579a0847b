package detectors

// detectRepeatedFailures finds so many terminal failures of one user within 48 hours. Severity: high from five times the
// threshold on, or where the failures came from two or more addresses and someone got in; low where all come from one
// application, client, device and address at a regular spacing, as from a stored password; medium otherwise.
var detectRepeatedFailures = &detection{kind: IncidentRepeatedFailures, find: func(s *story) (f finding) {
	t := &s.th.RepeatedFailures
	f.found = peak(s.events, t.Window.Microseconds(), func(*event) bool { return true }) >= t.Count
	if !f.found {
		return f
	}
	f.outcome = s.credentialOutcome(t.Count)
	switch {
	case f.outcome == outcomeSignedIn && s.several(func(v *event) uint32 { return v.address }):
		f.severity = severityHigh
	case s.oneSource() && regularSeconds(s.events) > 0:
		f.severity = severityLow
	case len(s.events) >= 5*t.Count:
		f.severity = severityHigh
	default:
		f.severity = severityMedium
	}
	return f
}}

// credentialOutcome tells what came of a user's failures: someone got in after so many of them, the account was locked, or
// neither.
func (s *story) credentialOutcome(after int) uint8 {
	outcome := outcomeBlocked
	for _, v := range s.events {
		if v.class.has(classLocked) {
			outcome = outcomeLocked
		}
	}
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if p.class.has(classSuccess) && p.time < s.last()+quietFailures(s.th) && s.eventsBefore(p.time, classCounts) >= after &&
			s.sameWay(p, classCounts) && !s.familiar(p.address, p.agent, p.class) {
			return outcomeSignedIn
		}
	}
	return outcome
}

// sameWay reports whether a pass comes from an address, or with a user agent, of events before it.
func (s *story) sameWay(p *pass, of class) bool {
	for _, v := range s.events {
		if v.class.any(of) && notAfter(v.time, p.time) && (v.address == p.address && p.address != 0 || v.agent == p.agent && p.agent != 0) {
			return true
		}
	}
	return false
}

// eventsBefore counts the events of a class up to the second of t.
func (s *story) eventsBefore(t int64, of class) (n int) {
	for _, v := range s.events {
		if v.class.any(of) && notAfter(v.time, t) {
			n++
		}
	}
	return n
}

// several reports whether the events hold more than one value, absent ones aside.
func (s *story) several(of func(*event) uint32) bool {
	first := uint32(0)
	for _, v := range s.events {
		switch x := of(v); {
		case x == 0 || x == first:
		case first == 0:
			first = x
		default:
			return true
		}
	}
	return false
}

// oneSource reports whether all events come from one application, client, device and address.
func (s *story) oneSource() bool {
	for _, of := range [...]func(*event) uint32{
		func(v *event) uint32 { return v.app }, func(v *event) uint32 { return v.clientApp },
		func(v *event) uint32 { return v.device }, func(v *event) uint32 { return v.address },
	} {
		if s.several(of) {
			return false
		}
	}
	return true
}

// familiar reports whether the user's own place or device is behind an event: a joined device, or an address or user agent
// with which the user had got in before it failed there more than someone does who mistypes.
func (s *story) familiar(address, agent uint32, c class) bool {
	if c.has(classKnownDevice) {
		return true
	}
	at := s.firstFamiliar(func(p *pass) bool { return p.address == address && address != 0 }, func(v *event) bool { return v.address == address })
	return at || s.firstFamiliar(func(p *pass) bool { return p.agent == agent && agent != 0 }, func(v *event) bool { return v.agent == agent })
}

// mistyped is how many failures before a success are a person's typing errors: smart lockout too looks back over three.
const mistyped = 3

// firstFamiliar reports whether the first success of a way in was preceded by hardly a failure of that way.
func (s *story) firstFamiliar(pass func(*pass) bool, failed func(*event) bool) bool {
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if !p.class.has(classSuccess) || !pass(p) {
			continue
		}
		n := 0
		for _, v := range s.events {
			if notAfter(v.time, p.time) && failed(v) {
				n++
			}
		}
		return n < mistyped
	}
	return false
}

// unfamiliar counts the wrong passwords and lockouts that do not come from the user's own place or device.
func (s *story) unfamiliar(of class) (n int) {
	for _, v := range s.events {
		if v.class.any(of) && !s.familiar(v.address, v.agent, v.class) {
			n++
		}
	}
	return n
}
