package detectors

// detectLegacyAuth finds sign-ins of a user with legacy clients that got in, or that were stopped for the client after the
// right password had followed wrong ones. A block of a person's own old program, and wrong passwords alone, are not it: the
// latter count in the user's failures and in sprays. One incident holds the sign-ins of a digest period.
var detectLegacyAuth = &detection{kind: IncidentLegacyAuth, find: func(s *story) (f finding) {
	for _, v := range s.events {
		switch {
		case v.class.has(classSuccess):
			return finding{found: true, severity: severityHigh, outcome: outcomeSignedIn}
		case s.wrongLegacyBefore(v.time) >= legacyWrongBefore:
			f = finding{found: true, severity: severityMedium, outcome: outcomePasswordKnown}
		default:
			f.suppressed = !f.found
		}
	}
	return f
}}

// legacyWrongBefore is how many wrong passwords over legacy clients make a blocked right one an attack: more than a person
// types before remembering (smart lockout remembers three as well).
const legacyWrongBefore = 3

// wrongLegacyBefore counts the user's wrong passwords over legacy clients in the day before t.
func (s *story) wrongLegacyBefore(t int64) (n int) {
	for i := range s.n.events {
		if v := &s.n.events[i]; v.class.has(classWrong|classLegacy) && notAfter(v.time, t) && t-v.time < 24*microsPerHour {
			n++
		}
	}
	return n
}
