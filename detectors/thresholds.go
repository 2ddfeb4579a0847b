package detectors

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Thresholds are the values at which a windowed detection speaks. They are configuration: another value is
// another epoch (Engine.Fingerprint), so that a replay brings it to the records it concerns.
type Thresholds struct {
	RepeatedFailures RepeatedFailuresThreshold
}

// RepeatedFailuresThreshold belongs to repeated_failures: so many failures of one user in a window.
type RepeatedFailuresThreshold struct {
	// Count is the number of failures that makes a record, and the user, repeated_failures. At least 2, at
	// most MaxKeptFailures, since only so many failures of a user are kept one by one.
	Count int
	// Window is the sliding window of event time, at most MaxFailureWindow and a whole number of seconds.
	Window time.Duration
}

// MaxFailureWindow bounds the window of failures: the 48 hours over which Microsoft's own sign-in
// diagnostic looks for repeated failures.
const MaxFailureWindow = 48 * time.Hour

// DefaultThresholds returns the values that are used unless configured. Microsoft publishes no threshold for
// "large number of failed sign-ins"; 5 is the number of failures that the portal's own brute-force
// query takes for one user.
func DefaultThresholds() Thresholds {
	return Thresholds{RepeatedFailures: RepeatedFailuresThreshold{Count: 5, Window: MaxFailureWindow}}
}

// Validate returns an error that names the first value out of its range.
func (t Thresholds) Validate() error {
	r := t.RepeatedFailures
	if r.Count < 2 || r.Count > MaxKeptFailures {
		return fmt.Errorf("threshold repeated_failures.count is %d, want 2 to %d", r.Count, MaxKeptFailures)
	}
	if r.Window < time.Minute || r.Window > MaxFailureWindow || r.Window%time.Second != 0 {
		return fmt.Errorf("threshold repeated_failures.window is %s, want whole seconds from 1m to %s", r.Window, MaxFailureWindow)
	}
	return nil
}

// Fingerprint returns a number that differs when any value differs. It is the same in every process.
func (t Thresholds) Fingerprint() uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(t.RepeatedFailures.Count))
	binary.LittleEndian.PutUint64(b[8:], uint64(t.RepeatedFailures.Window))
	return xxhash.Sum64(b[:])
}
