package detectors

// detectMFAFatigue finds MFA prompts that one user refused or did not answer. A success soon after them is the worst
// outcome, unless it comes from the person's own place and nothing was refused.
var detectMFAFatigue = &detection{kind: IncidentMFAFatigue, find: func(s *story) (f finding) {
	t := &s.th.MFAFatigue
	prompt := func(v *event) bool { return v.class.any(classDenied | classNoAnswer) }
	n := max(peak(s.events, t.Window.Microseconds(), prompt), peak(s.events, t.SlowWindow.Microseconds(), prompt))
	if n < t.Prompts {
		return f
	}
	denied := peak(s.events, t.SlowWindow.Microseconds(), func(v *event) bool { return v.class.has(classDenied) }) > 0
	f = finding{found: true, severity: severityLow, outcome: outcomePasswordKnown}
	switch {
	case n >= t.PromptsHigh:
		f.severity = severityHigh
	case denied:
		f.severity = severityMedium
	}
	var prompts []int64
	for _, v := range s.events {
		if prompt(v) {
			prompts = append(prompts, v.time)
		}
	}
	for i := range s.n.passes {
		p := &s.n.passes[i]
		before := 0
		for _, at := range prompts {
			if notAfter(at, p.time) && p.time-at <= t.SlowWindow.Microseconds() {
				before++
			}
		}
		if !p.class.has(classSuccess) || before < t.Prompts || s.sameWay(p, classDenied|classNoAnswer) == 0 {
			continue
		}
		if s.familiarBefore(p.address, p.class, p.time) && !denied {
			f.suppressed = true
			continue
		}
		f.severity, f.outcome = severityCritical, outcomeSignedIn
		s.decide(i)
	}
	return f
}}
