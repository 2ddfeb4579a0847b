package detectors

import (
	"encoding/binary"
	"slices"
	"strings"
)

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
	foreign        bool // some try came from a device that is not known
	own            bool // a typing error of someone who belongs there
	aside          bool // all tries belong to other stories, see setAside
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
		a.foreign = a.foreign || !v.class.has(classKnownDevice)
		a.tries++
	}
	// Who fails with one tool and gets in with another may be two: the attacker and the victim behind one address.
	ways := &s.e.pairs
	ways.reset()
	way := func(actor uint64, agent uint32) uint64 { return actor ^ uint64(agent)*0x9e3779b97f4a7c15 }
	for _, v := range s.events {
		ways.add(way(v.actor, v.agent))
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
			if p.agent == 0 || ways.count(way(p.actor, p.agent)) > 0 || ways.count(way(p.actor, 0)) > 0 {
				a.success = i
			}
		} else if p.class.has(classStopped) && a.stopped < 0 {
			a.stopped = i
		}
	}
	g.clean = clean.distinct
	for i := range g.actors {
		a := &g.actors[i]
		switch {
		case a.success >= 0:
		case !a.foreign:
			// Someone who gave up, on a device that is joined, registered or managed: an attacker has none.
			a.own = true
		default:
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
	// An agent of people who get in is theirs. One or two beside a whole spray are victims whose password was guessed at once.
	g.agents = slices.DeleteFunc(g.agents, func(agent uint32) bool {
		clean.reset()
		for i := range passes {
			if p := &passes[i]; p.agent == agent && p.class.has(classSuccess) && inStory(p.time) && g.of(p.actor) == nil {
				clean.add(p.actor)
			}
		}
		in := clean.distinct
		if in == 0 {
			return false
		}
		clean.reset()
		for _, v := range s.events {
			if v.agent == agent && g.of(v.actor).unresolved {
				clean.add(v.actor)
			}
		}
		return clean.distinct < s.th.PasswordSpray.Users*in
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

// isAside reports whether the event at i belongs to another story: it is a typing error of one of the place's own people, or
// setAside found it.
func (s *story) isAside(i int) bool {
	if a := s.group.of(s.events[i].actor); a != nil && a.own && !(s.lockouts && a.classes.has(classLocked)) {
		return true
	}
	return s.aside != nil && s.aside[i]
}

// setAside marks what is no part of a distributed spray, though it shares the network or the tool: guessing at one user from
// one address, and an address that tries so many users that it is a spray by itself. Both are told by stories of their own. A
// story of several days holds as many tries and users more.
func (s *story) setAside(tries, users int) {
	days := 1 + int((s.last()-s.first())/max(s.th.DistributedSpray.SlowWindow.Microseconds(), 1))
	addresses, pairs := &s.e.addresses, &s.e.pairs
	addresses.reset()
	pairs.reset()
	for _, v := range s.events {
		if pairs.add(s.pairOf(v)) == 1 {
			addresses.add(s.placeOf(v))
		}
	}
	s.aside = s.e.aside[:0]
	for _, v := range s.events {
		s.aside = append(s.aside, pairs.count(s.pairOf(v)) > tries*days || v.address != 0 && addresses.count(s.placeOf(v)) >= users*days)
	}
	s.e.aside = s.aside
	for i := range s.group.actors {
		s.group.actors[i].aside = true
	}
	for i, v := range s.events {
		if a := s.group.of(v.actor); !s.aside[i] {
			a.aside = false
		}
	}
}

// placeOf returns a number for the address of an event, the same for all addresses of an IPv6 /64.
func (s *story) placeOf(v *event) uint64 {
	if v.address == 0 {
		return 0
	}
	text := s.e.entities.texts.text(v.address)
	if strings.IndexByte(text, ':') < 0 {
		return uint64(v.address)
	}
	prefix, ok := AddressPrefix(text)
	if !ok || prefix.Addr().Is4() {
		return uint64(v.address)
	}
	b := prefix.Addr().As16()
	return binary.BigEndian.Uint64(b[:8]) | 1<<63 // texts' numbers have 32 bits
}

// pairOf returns a number for the user and address of an event.
func (s *story) pairOf(v *event) uint64 { return v.actor ^ s.placeOf(v)*0x9e3779b97f4a7c15 }

// attackOutcome returns what came of an attack on the users of a group, and notes the passes that show it. A right password
// at the first try has no event before it, so passes with the attack's agent count too.
func (s *story) attackOutcome(after int64) uint8 {
	outcome := outcomeBlocked
	for i := range s.group.actors {
		a := &s.group.actors[i]
		switch {
		case a.aside:
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
