package detectors

// detectPasswordKnown finds a right password after wrong ones from the same address that a later check stopped, while the
// person did not get in from there afterwards.
var detectPasswordKnown = &detection{kind: IncidentKindPasswordKnown, find: func(s *story) (f finding) {
	t := &s.th.PasswordKnown
	window := t.Window.Microseconds()
	known := func(time int64, address uint32, c class) bool {
		if address == 0 {
			return false
		}
		wrong := 0
		for _, v := range s.events {
			if v.class.has(classWrong) && s.samePlace(v.address, address) && notAfter(v.time, time) && time-v.time < window {
				wrong++
			}
		}
		if wrong < t.Failures {
			return false
		}
		if s.familiar(address, c) || s.succeeded(time, address) {
			f.suppressed = true
			return false
		}
		f.found = true
		return true
	}
	for _, v := range s.events {
		if v.class.has(classStopped) {
			known(v.time, v.address, v.class)
		}
	}
	for i := range s.n.passes {
		if p := &s.n.passes[i]; p.class.has(classStopped) && known(p.time, p.address, p.class) {
			s.decide(i)
		}
	}
	if f.found {
		f.severity, f.outcome, f.suppressed = severityHigh, outcomePasswordKnown, false
	}
	return f
}}

// succeeded reports whether the user got in from an address within half an hour after t: the prompt before it was the
// person's own. A takeover is found by its own detection.
func (s *story) succeeded(t int64, address uint32) bool {
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if p.class.has(classSuccess) && s.samePlace(p.address, address) && notAfter(t, p.time) && p.time-t <= microsPerHour/2 {
			return true
		}
	}
	return false
}
