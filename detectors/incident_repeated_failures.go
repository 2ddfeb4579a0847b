package detectors

import (
	"slices"
	"strings"
)

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
	case s.oneSource() && regularSeconds(s.events) > 0, s.found.has(detectCachedCredential) && s.beside() < t.Count:
		f.severity = severityLow
	case s.beside() >= 5*t.Count:
		f.severity = severityHigh
	case s.unfamiliar(classCounts) == 0: // the user's own place or device
		f.severity = severityLow
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
			s.sameWay(p, classCounts) && !s.ownSuccess(p) {
			return outcomeSignedIn
		}
	}
	return outcome
}

// sameWay reports whether a pass comes from an address, or with a user agent, of events before it.
func (s *story) sameWay(p *pass, of class) bool {
	for _, v := range s.events {
		if v.class.any(of) && notAfter(v.time, p.time) && (s.samePlace(v.address, p.address) || v.agent == p.agent && p.agent != 0) {
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

// ownSuccess reports whether a success is the person's own, rather than that of whoever guessed the password: it comes from
// the person's own place or device, or a second factor was passed at the one address of all the tries, without a prompt that
// was refused or left unanswered. That is somebody who forgot the password and reset it, whom nothing else tells from a
// takeover. Approving a prompt that a stranger caused is told by mfa_fatigue.
func (s *story) ownSuccess(p *pass) bool {
	if s.familiar(p.address, p.class) {
		return true
	}
	if !slices.ContainsFunc(s.n.passes, func(x pass) bool {
		return x.class.has(classSuccess|classPassedMFA) && x.time <= p.time && s.samePlace(x.address, p.address)
	}) {
		return false
	}
	for _, v := range s.events {
		if v.class.any(classDenied|classNoAnswer) || v.class.any(classWrong|classLocked|classBadAddress) && !s.samePlace(v.address, p.address) {
			return false
		}
	}
	return true
}

// familiar reports whether the user's own place or device is behind an event: a joined device, or an address (IPv6: its /64)
// from which the user had got in before failing there more than someone does who mistypes. A user agent alone is nobody's
// own: attackers take the most common ones.
func (s *story) familiar(address uint32, c class) bool {
	if c.has(classKnownDevice) {
		return true
	}
	if address == 0 {
		return false
	}
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if !p.class.has(classSuccess) || !s.samePlace(p.address, address) {
			continue
		}
		n := 0
		for _, v := range s.events {
			if notAfter(v.time, p.time) && s.samePlace(v.address, address) {
				n++
			}
		}
		return n < mistyped
	}
	return false
}

// mistyped is how many failures before a success are a person's typing errors: smart lockout too looks back over three.
const mistyped = 3

// samePlace reports whether two addresses, as numbers of texts, are the same or of the same IPv6 /64, within which one host moves.
func (s *story) samePlace(a, b uint32) bool {
	if a == b {
		return a != 0
	}
	x, y := s.e.entities.texts.text(a), s.e.entities.texts.text(b)
	if strings.IndexByte(x, ':') < 0 || strings.IndexByte(y, ':') < 0 {
		return false
	}
	p, ok := AddressPrefix(x)
	q, known := AddressPrefix(y)
	return ok && known && p == q
}

// unfamiliar counts the wrong passwords and lockouts that do not come from the user's own place or device.
func (s *story) unfamiliar(of class) (n int) {
	for _, v := range s.events {
		if v.class.any(of) && !s.familiar(v.address, v.class) {
			n++
		}
	}
	return n
}
