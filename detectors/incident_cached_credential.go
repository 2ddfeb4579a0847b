package detectors

// detectCachedCredential finds wrong passwords that come at a regular spacing from one application, client and device (where
// there is none, one address) by something that tries without a person: a program that keeps an old password. What the person
// mistypes beside it is another matter. A lockout speaks against it, since smart lockout does not count a repeated wrong
// password.
var detectCachedCredential = &detection{kind: IncidentCachedCredential, find: func(s *story) (f finding) {
	s.findStored()
	if s.stored != nil {
		f = finding{found: true, severity: severityLow, outcome: outcomeFailing}
	}
	return f
}}

// findStored sets s.stored, once for a story: other detections ask for it first, since its tries are nobody's guesses.
func (s *story) findStored() {
	if s.storedKnown {
		return
	}
	s.storedKnown = true
	t := &s.th.CachedCredential
	for _, v := range s.events {
		if v.class.any(classLocked | classBadAddress) {
			return
		}
	}
	first := s.mostFrequentProgram()
	if first == nil || peak(s.events, t.Window.Microseconds(), func(v *event) bool { return sameProgram(first, v) }) < t.Failures {
		return
	}
	tries := s.e.tries[:0]
	for _, v := range s.events {
		if sameProgram(first, v) {
			tries = append(tries, v)
		}
	}
	s.e.tries = tries
	if regularSeconds(tries) != 0 {
		s.stored = first
	}
}

// mostFrequentProgram returns the first try of the program with the most wrong passwords, nil where there is none.
func (s *story) mostFrequentProgram() (best *event) {
	most := 0
	for i, v := range s.events {
		if !v.class.has(classWrong) || !v.class.any(classSilent|classLegacy) && v.device == 0 {
			continue
		}
		n := 0
		for _, x := range s.events[i:] { // that of an earlier try was counted from there
			if sameProgram(v, x) {
				n++
			}
		}
		if n > most {
			most, best = n, v
		}
	}
	return best
}

// sameProgram reports whether two wrong passwords come from the same program, as far as the log tells.
func sameProgram(a, b *event) bool {
	return b.class.has(classWrong) && a.app == b.app && a.clientApp == b.clientApp && a.device == b.device && a.agent == b.agent &&
		(a.device != 0 || a.address == b.address)
}

// isStored reports whether an event is a try of the program that keeps an old password.
func (s *story) isStored(v *event) bool { return s.stored != nil && sameProgram(s.stored, v) }

// beside counts the events that are none of such a program.
func (s *story) beside() (n int) {
	for _, v := range s.events {
		if !s.isStored(v) {
			n++
		}
	}
	return n
}
