package detectors

// detectSecretGuessing finds wrong secrets of one service principal from an address at which it did not succeed before. A
// success from there afterwards means that a secret was found.
var detectSecretGuessing = &detection{kind: IncidentPrincipalSecretGuessing, find: func(s *story) (f finding) {
	t := &s.th.PrincipalSecretGuessing
	for i, v := range s.events {
		if v.address == 0 || seenBefore(s.events[:i], v.address) {
			continue
		}
		here := func(x *event) bool { return x.address == v.address }
		if max(peak(s.events, t.Window.Microseconds(), here), peak(s.events, t.SlowWindow.Microseconds(), here)) < t.Failures {
			continue
		}
		outcome, severity, own := outcomeBlocked, severityHigh, false
		for j := range s.n.passes {
			p := &s.n.passes[j]
			if !p.class.has(classSuccess) || p.address != v.address {
				continue
			}
			if p.time < v.time {
				own = true
				break
			}
			n := 0
			for _, x := range s.events {
				if here(x) && notAfter(x.time, p.time) {
					n++
				}
			}
			if n >= t.Failures {
				outcome, severity = outcomeSignedIn, severityCritical
				s.decide(j)
				break
			}
		}
		if own {
			f.suppressed = true
			continue
		}
		f.found, f.outcome, f.severity = true, max(f.outcome, outcome), max(f.severity, severity)
	}
	return f
}}

func seenBefore(events []*event, address uint32) bool {
	for _, v := range events {
		if v.address == address {
			return true
		}
	}
	return false
}
