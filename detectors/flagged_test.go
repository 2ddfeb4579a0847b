package detectors

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/signindiag/signindiag/schemas"
)

func flagged(r *schemas.SignIn) { r.FlaggedForReview = true }

// flaggedFacts returns what the newest row of record n says of flagged sign-ins.
func (f *feeder) flaggedFacts(n int) string {
	d := f.diagnoses[testGUID(0, n)]
	records, since, failures := d.Evidence.Get("flagged_records"), d.Evidence.Get("flagged_since"), d.Evidence.Get("flagged_failures")
	if records == nil || since == nil {
		return "none"
	}
	text := fmt.Sprintf("%d since %d", records.Int, (since.Int-testStart)/testMinute)
	if failures != nil {
		text += fmt.Sprint(" ", failures.List)
	}
	return text
}

// TestFlaggedSignInsAreOneRequest: flagged records of 20 minutes are told together, in whatever order they come, with repeats,
// a snapshot in between, a late one that begins the group, and a record that becomes flagged by its newer version.
func TestFlaggedSignInsAreOneRequest(t *testing.T) {
	records := []*schemas.SignIn{
		testRecord(0, 1, 0, codeWrong, flagged),
		testRecord(1, 1, 5*testMinute, codeSuccess, flagged),
		testRecord(2, 1, 20*testMinute, 53003, flagged),
		testRecord(3, 1, 21*testMinute, codeSuccess, flagged), // beyond 20 minutes from the first
		testRecord(4, 1, 6*testMinute, codeWrong),             // not flagged
		testRecord(5, 2, 6*testMinute, codeWrong, flagged),    // somebody else
		testRecord(6, 1, 45*testMinute, codeWrong, flagged),
		testRecord(7, 1, 46*testMinute, codePrompt, flagged),
	}
	want := []string{"3 since 0 [50126 53003]", "3 since 0 [50126 53003]", "3 since 0 [50126 53003]", "1 since 21", "none", "1 since 6 [50126]", "2 since 45 [50126]", "2 since 45 [50126]"}
	seed := uint64(7)
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range 60 {
		order := random.Perm(len(records))
		f := newFeeder(t, Options{})
		for i, n := range order {
			if n == 2 && round%3 == 0 { // flagged by its newer version alone
				before := testRecord(2, 1, 20*testMinute, 53003)
				before.ProcessingTime -= testMinute
				f.add(before)
			}
			f.add(schemas.Clone(records[n]))
			if random.IntN(3) == 0 {
				f.add(schemas.Clone(records[n]))
				if rows := f.last; len(rows.Diagnoses) != 0 {
					t.Fatalf("a repeat emits %d rows", len(rows.Diagnoses))
				}
			}
			if i == round%len(order) {
				snapshot := f.engine.AppendSnapshot(nil)
				if err := f.engine.RestoreSnapshot(snapshot); err != nil {
					t.Fatal(err)
				}
			}
		}
		for n := range records {
			if got := f.flaggedFacts(n); got != want[n] {
				t.Fatalf("order %v: record %d says %q, want %q", order, n, got, want[n])
			}
		}
	}
}

// TestFlaggedSignInsAreBounded: of many flagged records the user's 64 newest are looked at.
func TestFlaggedSignInsAreBounded(t *testing.T) {
	f := newFeeder(t, Options{})
	for n := range 200 {
		f.add(testRecord(n, 1, int64(n)*1e6, codeSuccess, flagged))
		if rows := len(f.last.Diagnoses); rows > maxRevisedRecords {
			t.Fatalf("record %d emits %d rows", n, rows)
		}
	}
	if got := f.flaggedFacts(199); got != "64 since 2" {
		t.Error(got)
	}
}
