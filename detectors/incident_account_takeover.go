package detectors

import "slices"

// detectTakeover finds a success after many wrong passwords of one user, from one of their addresses or with one of their
// user agents, that is not the person's own.
var detectTakeover = &detection{kind: IncidentAccountTakeover, find: func(s *story) (f finding) {
	t := &s.th.AccountTakeover
	const wrong = classWrong | classLocked | classBadAddress
	s.findStored()
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if !p.class.has(classSuccess) || s.eventsBefore(p.time, wrong) < t.Failures {
			continue
		}
		last := int64(0)
		for _, v := range s.events {
			if v.class.any(wrong) && !s.isStored(v) && notAfter(v.time, p.time) {
				last = v.time
			}
		}
		if p.time-last > t.Window.Microseconds() || s.sameWay(p, wrong) < min(mistyped, t.Failures) {
			continue
		}
		if s.ownSuccess(p) {
			f.suppressed = true
			continue
		}
		f = finding{found: true, severity: severityCritical, outcome: outcomeSignedIn}
		s.decide(i)
	}
	return f
}}

// detectTakeoverInSpray labels the spray of an address, and detectTakeoverInDistributedSpray a distributed one, that
// someone got in by: the spray stays the incident.
var detectTakeoverInSpray = &detection{kind: IncidentAccountTakeover, find: func(s *story) finding {
	return s.takeoverInside(s.found != 0, s.th.AccountTakeover.Window.Microseconds())
}}

var detectTakeoverInDistributedSpray = &detection{kind: IncidentAccountTakeover, find: detectTakeoverInSpray.find}

func (s *story) takeoverInside(attack bool, after int64) (f finding) {
	if !attack {
		return f
	}
	s.resolve(after)
	f.found = s.attackOutcome(after) == outcomeSignedIn
	if f.found {
		f.severity, f.outcome = severityCritical, outcomeSignedIn
	}
	if !slices.ContainsFunc(s.group.actors, func(a actorView) bool { return a.own }) {
		return f
	}
	f.suppressed = !f.found // someone got in who belongs there
	return f
}
