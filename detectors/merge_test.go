package detectors

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signindiag/signindiag/schemas"
)

// stored returns the version of record n that the engine holds.
func (f *feeder) stored(n, user int) *schemas.SignIn {
	f.t.Helper()
	id := f.engine.dealer.identify(testRecord(n, user, 0, 0))
	hash := schemas.Hash64(testGUID(0, n))
	seq := f.engine.recent.find(id.key^hash*0x9e3779b97f4a7c15, id.key, testGUID(0, n))
	if seq == 0 {
		f.t.Fatalf("record %d is not held", n)
	}
	var r schemas.SignIn
	if err := f.engine.recent.record(f.engine.recent.at(seq), &r); err != nil {
		f.t.Fatal(err)
	}
	return &r
}

func TestExactRepeatChangesNothing(t *testing.T) {
	f := newFeeder(t, Options{})
	f.add(testRecord(0, 1, 0, codeWrong))
	if rows := f.add(testRecord(0, 1, 0, codeWrong)); len(rows.Diagnoses) != 0 {
		t.Errorf("%d rows", len(rows.Diagnoses))
	}
	// Written again later by another router: the same but for the time of writing.
	again := testRecord(0, 1, 0, codeWrong, func(r *schemas.SignIn) { r.ProcessingTime += 5 })
	if rows := f.add(again); len(rows.Diagnoses) != 0 {
		t.Errorf("%d rows for another processing time", len(rows.Diagnoses))
	}
	if s := f.engine.Stats(); s.Duplicates != 1 || s.Merges != 1 || s.Events != 1 {
		t.Errorf("%+v", s)
	}
	if n := f.window(1, testHour).Count; n != 1 {
		t.Errorf("count %d", n)
	}
}

func TestMerge(t *testing.T) {
	part := func(processing int64, code int32, change func(*schemas.SignIn)) *schemas.SignIn {
		return testRecord(0, 1, 0, code, func(r *schemas.SignIn) {
			r.ProcessingTime = testStart + processing
			change(r)
		})
	}
	a := part(1, codePrompt, func(r *schemas.SignIn) {
		r.Policies = []*schemas.Policy{{Id: "p2", Result: "notApplied"}, {Id: "p1", Result: "success"}}
		r.AuthenticationDetails = []*schemas.AuthenticationStep{{StatusSequence: 0, RequestSequence: 1, Time: 5, Method: "Password", Succeeded: schemas.Tri_TRI_TRUE}}
		r.RiskLevelAggregated, r.RiskState = "high", "atRisk"
		r.City = "Oslo"
	})
	b := part(2, codeWrong, func(r *schemas.SignIn) {
		r.Policies = []*schemas.Policy{{Id: "p2", Result: "failure"}, {Id: "p3", Result: "success"}}
		r.AuthenticationDetails = []*schemas.AuthenticationStep{
			{StatusSequence: 0, RequestSequence: 1, Time: 5, Method: "Password", Succeeded: schemas.Tri_TRI_FALSE},
			{StatusSequence: 0, RequestSequence: 2, Time: 9, Method: "Text message"},
		}
		r.AuthenticationRequirementPolicies = []*schemas.RequirementPolicy{{RequirementProvider: "user"}}
		r.RiskLevelAggregated, r.RiskState = "low", "none"
		r.FailureReason = "wrong"
		r.CorrelationId = testGUID(1, 77)
		r.EventTime += 3e6
	})
	for _, order := range [][2]*schemas.SignIn{{a, b}, {b, a}} {
		f := newFeeder(t, Options{})
		f.received = 1
		f.add(order[0], order[1])
		got := f.stored(0, 1)
		want := order[0].CloneVT()
		want.ErrorCode, want.FailureReason, want.ProcessingTime = codeWrong, "wrong", testStart+2
		want.City, want.RiskLevelAggregated, want.RiskState = "Oslo", "high", "atRisk"
		want.Policies = []*schemas.Policy{{Id: "p1", Result: "success"}, {Id: "p2", Result: "failure"}, {Id: "p3", Result: "success"}}
		want.AuthenticationDetails = b.AuthenticationDetails
		want.AuthenticationRequirementPolicies = b.AuthenticationRequirementPolicies
		if !got.EqualVT(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if len(f.diagnoses) != 1 || f.diagnoses[testGUID(0, 0)].CorrelationID != order[0].CorrelationId ||
			f.diagnoses[testGUID(0, 0)].EventTime != order[0].EventTime || f.diagnoses[testGUID(0, 0)].ErrorCode != codeWrong {
			t.Errorf("rows: %+v", f.diagnoses)
		}
		if n := f.window(1, testHour).Count; n != 1 {
			t.Errorf("count %d", n)
		}
	}
}

func TestMergeMovesOutcomeNotCount(t *testing.T) {
	f := newFeeder(t, Options{})
	f.received = 1
	later := func(by int64) func(*schemas.SignIn) {
		return func(r *schemas.SignIn) { r.ProcessingTime += by; r.CorrelationId = testGUID(1, 900) }
	}
	f.add(testRecord(0, 1, 0, codePrompt, later(0)))
	f.want(0, "interrupted interrupted 0")
	f.add(testRecord(1, 1, 10e6, codePrompt, later(0)))
	f.add(testRecord(1, 1, 10e6, codeSuccess, later(1))) // the newer version says that MFA was passed
	f.want(0, "resolved resolved 0")
	f.want(1, "success resolved 0")
	f.add(testRecord(1, 1, 10e6, codeWrong, later(2)))
	f.want(0, "interrupted failed 0")
	f.want(1, "failure failed 0")
	if n := f.window(1, testHour).Count; n != 1 {
		t.Errorf("count %d, want 1", n)
	}
	f.add(testRecord(1, 1, 10e6, codeSuccess, later(3)))
	if n := f.window(1, testHour).Count; n != 0 {
		t.Errorf("count %d, want 0", n)
	}
}

func TestBeyondTheHorizonANewerCopyReplaces(t *testing.T) {
	for _, held := range []bool{true, false} {
		f := newFeeder(t, Options{})
		f.received = 1
		f.add(testRecord(0, 1, 0, codeWrong, func(r *schemas.SignIn) { r.Policies = []*schemas.Policy{{Id: "a"}} }))
		if held {
			f.received += int64((DefaultMergeHorizon + time.Second) / time.Millisecond)
		} else {
			f.received += int64((DefaultRecentHorizon + time.Second) / time.Millisecond)
			f.add(testRecord(5, 2, 0, 0)) // lets the record go
		}
		f.add(testRecord(0, 1, 0, codeWrong, func(r *schemas.SignIn) {
			r.Policies = []*schemas.Policy{{Id: "b"}}
			r.ProcessingTime++
		}))
		if len(f.last.Diagnoses) != 1 {
			t.Fatalf("%d rows", len(f.last.Diagnoses))
		}
		if got := f.stored(0, 1); len(got.Policies) != 1 || got.Policies[0].Id != "b" {
			t.Errorf("held %v: policies %v", held, got.Policies)
		}
		if n := f.window(1, testHour).Count; n != 1 {
			t.Errorf("count %d, want 1: the id tag must hold beyond the horizon", n)
		}
	}
}

func TestSharedRequestIDIsNoKey(t *testing.T) {
	f := newFeeder(t, Options{})
	same := func(r *schemas.SignIn) { r.RequestId = allZeros }
	f.add(testRecord(0, 1, 0, codeWrong, same), testRecord(1, 1, 1e6, codeSuccess, same), testRecord(2, 1, 2e6, codeWrong, same))
	if s := f.engine.Stats(); s.Merges != 0 || s.Rows != 3 {
		t.Errorf("%+v", s)
	}
}

func TestUnite(t *testing.T) {
	cmpStrings := func(a, b string) int {
		switch {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	}
	for _, c := range []struct{ newer, older, want []string }{
		{nil, nil, nil},
		{[]string{"b", "a"}, nil, []string{"b", "a"}},
		{[]string{"b", "a"}, []string{"a"}, []string{"b", "a"}},
		{[]string{"b", "a"}, []string{"c", "a"}, []string{"a", "b", "c"}},
		{nil, []string{"c", "a"}, []string{"a", "c"}},
	} {
		newer := append([]string(nil), c.newer...)
		if diff := cmp.Diff(c.want, unite(newer, c.older, cmpStrings)); diff != "" {
			t.Errorf("%v and %v: %s", c.newer, c.older, diff)
		}
		if diff := cmp.Diff(c.newer, newer); diff != "" {
			t.Errorf("newer was changed: %s", diff)
		}
	}
}
