package detectors

import "github.com/signindiag/signindiag/schemas"

// View is all that a scenario may look at when it judges one record: the merged record itself and what
// the engine knows around it. The engine fills one View and reuses it; a scenario keeps nothing of it.
type View struct {
	SignIn *schemas.SignIn
	// Outcome is the record's own outcome: one of the Outcome constants. An interrupt that a
	// success of the same attempt followed is OutcomeResolved.
	Outcome string
	Attempt AttemptView
	// Failures are the user's failures in the 48 hours that end with this record.
	Failures FailureView
	// Flagged are the flagged sign-ins around a flagged record.
	Flagged FlaggedView
}

// FlaggedView tells of the sign-ins that a user flagged within 20 minutes, of which the record is one; Records is 0 for a record
// that is not flagged.
type FlaggedView struct {
	Records int
	First   int64 // event time of the first of them, microseconds
	// FailureCodes are the different codes of the terminal failures among them, in order of first appearance.
	FailureCodes []int32
}

// AttemptView tells of the attempt that a record belongs to: the records of one user with the same
// correlation id and application, at most 15 minutes between neighbours.
type AttemptView struct {
	ID      string // request id of its first record
	Outcome string // one of the Attempt constants
	// Numbers of records seen so far, by their kind. A resolved interrupt counts as an interrupt.
	Successes, Failures, Interrupts int
	// First and Last are event times in microseconds since the Unix epoch.
	First, Last int64
	// LastFailureCode is the code of the newest terminal failure, 0 when there is none.
	LastFailureCode int32
}

// FailureView is what the 48 h window holds for the user of a record, that record included when it is a
// failure. Interrupts, expired tokens and repeats never count.
type FailureView struct {
	Count int64
	// AtLeast is true when the window held more failures than it keeps one by one: Count is a lower bound.
	AtLeast bool
	// Repeated is true when Count reached the threshold of repeated_failures.
	Repeated    bool
	First, Last int64 // event times of the first and last failure, microseconds
	// Distinct values among the failures in order of first appearance, each bounded.
	Applications, Addresses, ClientApps, OperatingSystems, Devices []string
	Codes                                                          []int32
	// WrongPasswords is how many of the failures say that the password was wrong;
	// WrongPasswordsFromAddress how many of those came from this record's address.
	WrongPasswords, WrongPasswordsFromAddress int64
	// Successes is the number of successful sign-ins of the user between First and Last.
	Successes int64
	// FamiliarAddress is true where the user had got in from this record's address before the first of the failures.
	FamiliarAddress bool
	// RegularSeconds is the common spacing of the failures where they come at regular intervals, else 0.
	RegularSeconds int64
	// IncidentID is the user's repeated_failures incident when there is one.
	IncidentID string
}
