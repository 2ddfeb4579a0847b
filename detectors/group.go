package detectors

import "slices"

// groupView is what is known of the users behind the events of a group: who of them got in from there, and who may be the
// place's own people who mistyped. Users who fail at an address and then get in are mostly people with a typing error; a
// spray's victims do not get in, and the few that do are seen by the attacker's user agent.
type groupView struct {
	actors []actorView
	// unresolved is how many users failed and did not get in afterwards; clean how many got in and never failed.
	unresolved, clean int
	// agents holds the user agents of unresolved users that nobody uses who got in without a failure.
	agents []uint32
	lookup *counter // actor -> position in actors + 1
}

// actorView is one user of a group.
type actorView struct {
	first, last    int64 // event times of the user's events
	tries          int
	success        int // position of the first success after the first event in passes, -1 when there is none
	stopped        int // position of the first pass after the first event that a later check stopped, -1
	classes        class
	unresolved     bool
	own            bool // a typing error of someone who belongs there
	taken, guessed bool // got in, or had the right password, in the way of the attack
}

// notAfter reports whether a stands not after b, where the same second counts as in order: logs keep no more in some dialects.
func notAfter(a, b int64) bool { return a/microsPerSecond <= b/microsPerSecond }

func (g *groupView) of(actor uint64) *actorView {
	if g.lookup == nil {
		return nil
	}
	if i := g.lookup.count(actor); i > 0 {
		return &g.actors[i-1]
	}
	return nil
}

// ownUser reports whether the user is one of the place's own people.
func (g *groupView) ownUser(actor uint64) bool {
	a := g.of(actor)
	return a != nil && a.own
}

// livedIn reports whether more people get in from the place without any failure than fail there.
func (g *groupView) livedIn() bool { return g.clean >= g.unresolved }

// resolve fills s.group. A pass belongs to the attack when it comes not more than after (microseconds) after the story's last
// event before it.
func (s *story) resolve(after int64) {
	g := &s.group
	if g.lookup != nil {
		return
	}
	g.lookup, g.actors, g.agents = &s.e.actors, s.e.actorViews[:0], s.e.agents[:0]
	g.lookup.reset()
	for _, v := range s.events {
		slot := g.lookup.slot(v.actor)
		if slot.count == 0 {
			g.actors = append(g.actors, actorView{first: v.time, success: -1, stopped: -1})
			slot.count = int32(len(g.actors))
		}
		a := &g.actors[slot.count-1]
		a.last, a.classes = v.time, a.classes|v.class
		a.tries++
	}
	passes := s.n.passes
	inStory := func(t int64) bool { return t >= s.first()-after && t <= s.last()+after }
	clean := &s.e.counter
	clean.reset()
	for i := range passes {
		p := &passes[i]
		a := g.of(p.actor)
		if a == nil {
			if p.class.has(classSuccess) && inStory(p.time) {
				clean.add(p.actor)
			}
			continue
		}
		if !notAfter(a.first, p.time) {
			continue
		}
		if p.class.has(classSuccess) && a.success < 0 {
			a.success = i
		} else if p.class.has(classStopped) && a.stopped < 0 {
			a.stopped = i
		}
	}
	g.clean = clean.distinct
	for i := range g.actors {
		if a := &g.actors[i]; a.success < 0 {
			a.unresolved = true
			g.unresolved++
		}
	}
	// The attack's agents.
	for _, v := range s.events {
		if g.of(v.actor).unresolved && len(g.agents) < 16 && !slices.Contains(g.agents, v.agent) {
			g.agents = append(g.agents, v.agent)
		}
	}
	g.agents = slices.DeleteFunc(g.agents, func(agent uint32) bool {
		return slices.ContainsFunc(passes, func(p pass) bool {
			return p.agent == agent && p.class.has(classSuccess) && inStory(p.time) && g.of(p.actor) == nil
		})
	})
	for i := range g.actors {
		a := &g.actors[i]
		if a.success >= 0 {
			p := &passes[a.success]
			a.taken = slices.Contains(g.agents, p.agent) && p.time-a.last <= after && a.classes.any(classWrong|classLocked|classBadAddress)
			a.own = !a.taken
		} else if a.stopped >= 0 {
			p := &passes[a.stopped]
			a.guessed = (slices.Contains(g.agents, p.agent) || !g.livedIn()) && p.time-a.last <= after && a.classes.any(classWrong)
		}
	}
	s.e.actorViews, s.e.agents = g.actors, g.agents
}

// unresolvedActor is the value of an event for peakDistinct: its user where the user did not get in. Unknown names of a place
// where many people get in are their typing errors.
func (s *story) unresolvedActor(v *event) (uint64, bool) {
	a := s.group.of(v.actor)
	return v.actor, a != nil && a.unresolved && !(a.classes.has(classUnknownName) && s.group.livedIn())
}

// attackOutcome returns what came of an attack on the users of a group, and notes the passes that show it. A right password
// at the first try has no event before it, so passes with the attack's agent count too.
func (s *story) attackOutcome(after int64) uint8 {
	outcome := outcomeBlocked
	for i := range s.group.actors {
		a := &s.group.actors[i]
		switch {
		case a.taken:
			outcome = max(outcome, outcomeSignedIn)
			s.decide(a.success)
		case a.guessed:
			outcome = max(outcome, outcomePasswordKnown)
			s.decide(a.stopped)
		case a.classes.has(classLocked):
			outcome = max(outcome, outcomeLocked)
		}
	}
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if s.group.of(p.actor) != nil || !slices.Contains(s.group.agents, p.agent) || p.agent == 0 ||
			p.time < s.first() || p.time > s.last()+after {
			continue
		}
		s.decide(i)
		if p.class.has(classSuccess) {
			outcome = max(outcome, outcomeSignedIn)
		} else {
			outcome = max(outcome, outcomePasswordKnown)
		}
	}
	return outcome
}

// attackSeverity raises a severity by what came of the attack.
func attackSeverity(severity, outcome uint8) uint8 {
	switch outcome {
	case outcomeSignedIn:
		return severityCritical
	case outcomePasswordKnown:
		return max(severity, severityHigh)
	}
	return severity
}
