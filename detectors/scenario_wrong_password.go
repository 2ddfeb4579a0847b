package detectors

import (
	"slices"

	"github.com/signindiag/signindiag/schemas"
)

// What is behind a wrong password, as the evidence key assessment gives it.
const (
	assessedHuman   = "human"
	assessedStored  = "stored_password"
	assessedAttack  = "attack"
	assessedUnclear = "unclear"
)

// Thresholds of the assessment. The user's window of 48 hours is judged; where the sources of these values speak of a day
// the longer window makes little difference, since lone slips stay far below them.
const (
	// attackWrong wrong passwords from attackAddresses addresses are an attack: the values of the brute-force query in
	// Microsoft's Azure portal workbook. Fewer are what a person mistypes.
	attackWrong     = 5
	attackAddresses = 2
	// manyWrong wrong passwords from manyAddresses are an attack whatever else the person does in the meantime: ten is where
	// smart lockout acts.
	manyWrong = 10
	// attackFromAddress wrong passwords from one address are an attack by the same query.
	attackFromAddress = 20
	// storedLongRun wrong passwords without a lockout are one and the same password again and again: smart lockout acts after
	// ten different ones by default and counts a repeated one once (Microsoft, smart lockout); five are slack, since data
	// centres may let a few more through.
	storedLongRun = 15
	// severeWrong is from how many wrong passwords on an attack is severe, as is one from manyAddresses.
	severeWrong = 30
)

// recogniseWrongPassword explains 50126 and its kin, and assesses from the window whether a person, a stored password or an
// attack is behind it. It labels 80004, where pass-through authentication was given a wrong user name.
func recogniseWrongPassword(s *subject) verdict {
	v := s.byCode(ScenarioWrongPassword)
	if v == explains {
		s.failuresEvidence()
		s.assessment = s.assess()
		s.e.SetText(s.keys.assessment, s.assessment)
	} else if s.is(80004) {
		return labels
	}
	return v
}

// assess says who sends the wrong password.
//
//   - stored_password: one application on one device (or, where none is named, from one address), no lockout, and either at a
//     regular spacing (cached_credential) or so often from one or two addresses that only a repeated password explains that
//     no lockout came. An old password (50054) where nobody types is one by itself.
//   - attack: several addresses and a lockout or ten wrong passwords; or several wrong passwords from two addresses, none of
//     them from a device that the directory knows and none between successes; or very many from the record's address, likewise.
//   - human: few tries of a person at a browser or app, and the attempt succeeded, or there are successes between them, or the
//     device is one that the directory knows.
//   - unclear: everything else, a lone wrong password above all.
func (s *subject) assess() string {
	f := &s.v.Failures
	wrong := max(f.WrongPasswords, 1)
	many := len(f.Addresses) >= manyAddresses
	attended := s.r.Category != schemas.Category_CATEGORY_NON_INTERACTIVE_USER && s.r.IsInteractive != schemas.Tri_TRI_FALSE && !s.legacy
	if s.is(50054) && !attended {
		return assessedStored
	}
	if s.storedRegular() || s.oneSource() && wrong >= storedLongRun && !many {
		return assessedStored
	}
	locked := slices.Contains(f.Codes, 50053)
	if many && (locked || wrong >= manyWrong) {
		return assessedAttack
	}
	if len(f.Devices) == 0 && f.Successes == 0 && !s.overcome() {
		if wrong >= attackWrong && len(f.Addresses) >= attackAddresses || f.WrongPasswordsFromAddress >= attackFromAddress {
			return assessedAttack
		}
	}
	if attended && !locked && wrong < attackWrong && (s.overcome() || f.Successes > 0 || named(unmasked(s.r.DeviceId))) {
		return assessedHuman
	}
	return assessedUnclear
}

// oneSource reports whether the failures of the window come from one application on one device, or from one address
// where no device is named, without a lockout.
func (s *subject) oneSource() bool {
	f := &s.v.Failures
	if len(f.Applications) > 1 || len(f.Devices) > 1 {
		return false
	}
	if len(f.Devices) == 0 && len(f.Addresses) > 1 || len(f.Devices) == 1 && s.r.DeviceDisplayName == "" && s.r.DeviceId == "" {
		return false // of several places, or not from the device that is named elsewhere
	}
	return !slices.Contains(f.Codes, 50053)
}

// unattended reports whether a program may have sent the record without a person: browsers without a named device are attended, and
// a script that guesses at a regular spacing looks like one.
func (s *subject) unattended() bool {
	return isSilent(s.r) || s.legacy || s.r.DeviceDisplayName != "" || named(s.r.DeviceId)
}

// storedRegular reports whether the failures come as a program sends them.
func (s *subject) storedRegular() bool {
	return s.unattended() && s.v.Failures.RegularSeconds > 0 && s.v.Failures.Count >= cachedAfter && s.oneSource()
}
