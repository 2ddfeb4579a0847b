package detectors

import (
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// recognisePasswordKnown labels a sign-in that was stopped after a right password that followed a series of wrong ones from
// the same address, and a challenge that the user reported as fraud. An interrupt that a success followed is the
// person's own. It labels the success, too, by which an incident says that someone else got in.
func recognisePasswordKnown(s *subject) verdict {
	if s.v.TakenOver != "" {
		s.e.SetBool(s.keys.takenOver, true)
		if n := s.v.Failures.WrongPasswords; n > 0 {
			s.e.SetInt(s.keys.wrongPasswords, n)
		}
		return labels
	}
	if s.success() || !s.user || s.v.Outcome == OutcomeResolved || s.noCode {
		return doesNotApply
	}
	if f := s.e.find(s.keys.mfaFraud); f != nil {
		return labels
	}
	if s.overcome() || s.code == nil || s.code.Password == catalogue.PasswordWeak || s.passwordWas() != schemas.Tri_TRI_TRUE {
		return doesNotApply
	}
	f := &s.v.Failures
	if f.WrongPasswordsFromAddress < knownAfterWrong || s.r.IpAddress == "" || s.masked() {
		return doesNotApply
	}
	s.e.SetInt(s.keys.wrongPasswords, f.WrongPasswordsFromAddress)
	s.failuresEvidence()
	return labels
}
