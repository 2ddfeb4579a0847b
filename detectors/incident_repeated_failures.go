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
			s.sameWay(p, classCounts) >= min(s.th.RepeatedFailures.Count, after) && !s.ownSuccess(p) {
			return outcomeSignedIn
		}
	}
	return outcome
}

// sameWay counts the events before a pass that come from its address, or with its user agent where the last of them is as
// close as for a takeover: hours later the same common browser is no trace. Below mistyped they are the typing errors of the
// person, whom somebody else attacks from elsewhere.
func (s *story) sameWay(p *pass, of class) int {
	place, either, last := 0, 0, int64(0)
	for _, v := range s.events {
		if !v.class.any(of) || s.isStored(v) || !notAfter(v.time, p.time) {
			continue
		}
		switch {
		case s.samePlace(v.address, p.address):
			place++
			either++
		case v.agent == p.agent && p.agent != 0 && !s.familiar(v.address, v.class):
			either++
			last = v.time
		}
	}
	if p.time-last > s.th.AccountTakeover.Window.Microseconds() {
		return place
	}
	return either
}

// eventsBefore counts the events of a class up to the second of t, those of a stored password aside.
func (s *story) eventsBefore(t int64, of class) (n int) {
	for _, v := range s.events {
		if v.class.any(of) && !s.isStored(v) && notAfter(v.time, t) {
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

// ownSuccess reports whether a success is the person's own, rather than that of whoever guessed the password. It comes from
// the person's own place or device. Or a second factor was passed at a place where no prompt was refused and hardly one was left unanswered,
// and either nearly all of the tries from places that are not the person's came from there or none: somebody who forgot the password and reset it, or who was
// elsewhere meanwhile, with the browser that the attacker names. Nothing else tells them from a takeover. Approving a prompt
// that a stranger caused is told by mfa_fatigue.
func (s *story) ownSuccess(p *pass) bool {
	if s.familiarBefore(p.address, p.class, p.time) {
		return true
	}
	if !slices.ContainsFunc(s.n.passes, func(x pass) bool {
		return x.class.has(classSuccess|classPassedMFA) && x.time <= p.time && s.samePlace(x.address, p.address)
	}) {
		return false
	}
	here, elsewhere, unanswered := 0, 0, 0
	for _, v := range s.events {
		same := s.samePlace(v.address, p.address)
		if same && v.class.has(classNoAnswer) {
			unanswered++
		}
		switch {
		case same && (v.class.has(classDenied) || unanswered >= s.th.MFAFatigue.Prompts):
			return false
		case !v.class.any(classWrong | classLocked | classBadAddress | classDenied | classNoAnswer):
		case same:
			here++
		case !s.familiar(v.address, v.class):
			elsewhere++
		}
	}
	return here == 0 || here >= 4*elsewhere
}

// familiar reports whether the user's own place or device is behind an event: a joined device, or an address (IPv6: its /64)
// from which the user had got in before failing there more than someone does who mistypes. A user agent alone is nobody's
// own: attackers take the most common ones.
func (s *story) familiar(address uint32, c class) bool {
	return s.familiarBefore(address, c, 1<<63-1)
}

// familiarBefore is familiar by what was known before t: a success is no witness of itself.
func (s *story) familiarBefore(address uint32, c class, t int64) bool {
	if c.has(classKnownDevice) {
		return true
	}
	if address == 0 {
		return false
	}
	for i := range s.n.passes {
		p := &s.n.passes[i]
		if p.time >= t {
			break
		}
		if !p.class.has(classSuccess) || !s.samePlace(p.address, address) {
			continue
		}
		n := 0
		for _, v := range s.events {
			if v.class.any(classWrong|classLocked|classBadAddress) && notAfter(v.time, p.time) && s.samePlace(v.address, address) {
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
