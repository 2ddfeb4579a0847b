package detectors

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

const (
	testTenant  = "7a6b5c4d-0000-4000-8000-00000000aaaa"
	testApp     = "a0000000-0000-4000-8000-000000000001"
	allZeros    = "00000000-0000-0000-0000-000000000000"
	testMinute  = int64(60e6) // microseconds
	testHour    = 60 * testMinute
	codeSuccess = 0
	codeWrong   = 50126 // wrong password
	codePrompt  = 50074 // MFA prompt: an interrupt
	codeLocked  = 50053
)

// testStart is 2026-03-02 09:00 UTC in microseconds.
var testStart = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).UnixMicro()

func testGUID(kind, n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", kind+1, n+1) }

// testRecord returns the record n: a sign-in of a user, so many microseconds after testStart.
func testRecord(n, user int, after int64, code int32, change ...func(*schemas.SignIn)) *schemas.SignIn {
	r := &schemas.SignIn{
		RequestId: testGUID(0, n), CorrelationId: testGUID(1, n), TenantId: testTenant,
		EventTime: testStart + after, ProcessingTime: testStart + after + testMinute,
		Category: schemas.Category_CATEGORY_SIGN_IN, ErrorCode: code,
		UserId: testGUID(2, user), UserPrincipalName: fmt.Sprintf("user%d@example.com", user),
		AppId: testApp, AppDisplayName: "Exchange Online", IpAddress: "203.0.113.7", ClientAppUsed: "Browser",
		OperatingSystem: "Windows 10", IsInteractive: schemas.Tri_TRI_TRUE,
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func withCorrelation(n int) func(*schemas.SignIn) {
	return func(r *schemas.SignIn) { r.CorrelationId = testGUID(1, n) }
}

func testCatalogue(t testing.TB) *catalogue.Catalogue {
	t.Helper()
	c, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// feeder feeds an engine and keeps the newest row of every key.
type feeder struct {
	t         rapid.TB
	engine    *Engine
	offset    int64
	received  int64 // milliseconds after testStart; 0 = the event time of each record
	last      Rows  // of the last record
	diagnoses map[string]Diagnosis
	incidents map[string]Incident
	members   map[string]IncidentMember
}

func newFeeder(t testing.TB, o Options) *feeder {
	t.Helper()
	if o.Catalogue == nil {
		o.Catalogue = testCatalogue(t)
	}
	e, err := NewEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	return &feeder{t: t, engine: e, diagnoses: map[string]Diagnosis{}, incidents: map[string]Incident{}, members: map[string]IncidentMember{}}
}

func (f *feeder) message(r *schemas.SignIn) *schemas.EntityMessage {
	received := r.EventTime / 1000
	if f.received != 0 {
		received = testStart/1000 + f.received
	}
	role := schemas.Role_ROLE_USER
	if !r.Category.IsUser() {
		role = schemas.Role_ROLE_SERVICE_PRINCIPAL
	}
	return &schemas.EntityMessage{
		Source: &schemas.Source{Topic: 1, Offset: f.offset}, Roles: uint32(schemas.Roles(role)), ReceivedMs: received, SignIn: r,
	}
}

// add applies records at the next offsets and returns the rows of the last one.
func (f *feeder) add(records ...*schemas.SignIn) *Rows {
	f.t.Helper()
	for _, r := range records {
		f.offset++
		var rows Rows
		f.engine.Apply(f.message(r), f.offset, &rows)
		f.last = rows.Clone()
		seen := map[string]bool{}
		for _, d := range f.last.Diagnoses {
			key := d.CorrelationID + d.RequestID + d.TenantID
			if seen[key] {
				f.t.Errorf("two rows of %s in one call", d.RequestID)
			}
			seen[key] = true
			if d.Revision != Revision(f.engine.epoch, f.offset) {
				f.t.Errorf("revision %x at offset %d", d.Revision, f.offset)
			}
			f.diagnoses[d.RequestID] = d
		}
		for _, i := range f.last.Incidents {
			f.incidents[i.IncidentID] = i
		}
		for _, m := range f.last.Members {
			f.members[m.IncidentID+m.RequestID] = m
		}
	}
	return &f.last
}

// of returns "outcome attempt-outcome attempt" of record n, the attempt as the number of its first record.
func (f *feeder) of(n int) string {
	d, ok := f.diagnoses[testGUID(0, n)]
	if !ok {
		return "no row"
	}
	attempt := d.AttemptID
	for i := range 1000 {
		if attempt == testGUID(0, i) {
			attempt = fmt.Sprint(i)
			break
		}
	}
	return d.Outcome + " " + d.AttemptOutcome + " " + attempt
}

func (f *feeder) want(n int, want string) {
	f.t.Helper()
	if got := f.of(n); got != want {
		f.t.Errorf("record %d: got %q, want %q", n, got, want)
	}
}

// ids returns the numbers of the records that the last call gave rows for.
func (f *feeder) ids() []int {
	var out []int
	for _, d := range f.last.Diagnoses {
		for i := range 1000 {
			if d.RequestID == testGUID(0, i) {
				out = append(out, i)
			}
		}
	}
	slices.Sort(out)
	return out
}

var compareRows = cmp.Options{cmpopts.EquateEmpty(), cmp.AllowUnexported(Evidence{}), cmpopts.IgnoreUnexported(catalogue.EvidenceKey{})}

func TestFence(t *testing.T) {
	f := newFeeder(t, Options{})
	apply := func(topic uint64, partition uint32, offset int64, index uint32) int {
		m := f.message(testRecord(int(offset)*10+int(index)+int(partition)*1000+int(topic)*10000, 1, 0, codeSuccess))
		m.Source = &schemas.Source{Topic: topic, Partition: partition, Offset: offset, Index: index}
		var rows Rows
		f.engine.Apply(m, 1, &rows)
		return len(rows.Diagnoses)
	}
	for i, step := range []struct {
		topic     uint64
		partition uint32
		offset    int64
		index     uint32
		rows      int
	}{
		{1, 0, 5, 0, 1},
		{1, 0, 5, 0, 0}, // the same
		{1, 0, 4, 9, 0}, // an earlier message
		{1, 0, 5, 1, 1}, // the next record of the message
		{1, 0, 5, 0, 0},
		{1, 1, 0, 0, 1}, // another partition
		{2, 0, 0, 0, 1}, // another topic, or another incarnation of it
		{1, 0, 6, 0, 1},
		{1, 1, 0, 0, 0},
	} {
		if got := apply(step.topic, step.partition, step.offset, step.index); got != step.rows {
			t.Errorf("step %d %+v: %d rows", i, step, got)
		}
	}
	if got := f.engine.Stats().RepeatsFenced; got != 4 {
		t.Errorf("%d repeats fenced, want 4", got)
	}
}

func TestFenceDropsReplayedPrefix(t *testing.T) {
	var log []*schemas.EntityMessage
	f := newFeeder(t, Options{})
	for n := range 40 {
		f.offset = int64(n)
		log = append(log, f.message(testRecord(n, n%3, int64(n)*testMinute, []int32{codeSuccess, codeWrong}[n%2])))
	}
	want, got := newFeeder(t, Options{}), newFeeder(t, Options{})
	var a, b Rows
	for n, m := range log {
		want.engine.Apply(m, int64(n), &a)
	}
	// A router that crashed writes a part of the log again, twice.
	for n, m := range slices.Concat(log[:20], log[5:30], log[10:]) {
		got.engine.Apply(m, int64(n), &b)
	}
	strip := cmpopts.IgnoreFields(Diagnosis{}, "Revision")
	if diff := cmp.Diff(a.Diagnoses, b.Diagnoses, compareRows, strip); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(want.engine.AppendSnapshot(nil), got.engine.AppendSnapshot(nil)) {
		t.Error("states differ")
	}
}

func TestAttempts(t *testing.T) {
	type record struct {
		n    int
		at   int64 // seconds
		code int32
		app  string
		corr int
	}
	for _, c := range []struct {
		name    string
		records []record
		want    map[int]string
		rows    []int // of the last record
	}{
		{"success", []record{{n: 0}}, map[int]string{0: "success succeeded 0"}, []int{0}},
		{"failure", []record{{n: 0, code: codeWrong}}, map[int]string{0: "failure failed 0"}, []int{0}},
		{"prompt", []record{{n: 0, code: codePrompt}}, map[int]string{0: "interrupted interrupted 0"}, []int{0}},
		{"prompt then success", []record{{n: 0, code: codePrompt}, {n: 1, at: 20}},
			map[int]string{0: "resolved resolved 0", 1: "success resolved 0"}, []int{0, 1}},
		{"success comes first", []record{{n: 1, at: 20}, {n: 0, code: codePrompt}},
			map[int]string{0: "resolved resolved 0", 1: "success resolved 0"}, []int{0, 1}},
		{"wrong password then success", []record{{n: 0, code: codeWrong}, {n: 1, at: 20}},
			map[int]string{0: "failure succeeded 0", 1: "success succeeded 0"}, []int{0, 1}},
		{"success then failure", []record{{n: 0}, {n: 1, at: 20, code: codeWrong}},
			map[int]string{0: "success failed 0", 1: "failure failed 0"}, []int{0, 1}},
		{"prompt after success", []record{{n: 0}, {n: 1, at: 20, code: codePrompt}},
			map[int]string{0: "success succeeded 0", 1: "interrupted succeeded 0"}, []int{1}},
		{"same second", []record{{n: 0}, {n: 1, code: codePrompt}},
			map[int]string{0: "success resolved 1", 1: "resolved resolved 1"}, []int{0, 1}},
		{"two prompts", []record{{n: 0, code: codePrompt}, {n: 1, at: 1, code: 50140}, {n: 2, at: 2}},
			map[int]string{0: "resolved resolved 0", 1: "resolved resolved 0", 2: "success resolved 0"}, []int{0, 1, 2}},
		{"gap of 15 minutes", []record{{n: 0, code: codePrompt}, {n: 1, at: 900}},
			map[int]string{0: "resolved resolved 0", 1: "success resolved 0"}, []int{0, 1}},
		{"gap above 15 minutes", []record{{n: 0, code: codePrompt}, {n: 1, at: 901}},
			map[int]string{0: "interrupted interrupted 0", 1: "success succeeded 1"}, []int{1}},
		{"late record bridges", []record{{n: 0, code: codePrompt}, {n: 2, at: 1600}, {n: 1, at: 800, code: codePrompt}},
			map[int]string{0: "resolved resolved 0", 1: "resolved resolved 0", 2: "success resolved 0"}, []int{0, 1, 2}},
		{"other application", []record{{n: 0, code: codePrompt}, {n: 1, at: 5, app: "b0000000-0000-4000-8000-000000000002"}},
			map[int]string{0: "interrupted interrupted 0", 1: "success succeeded 1"}, []int{1}},
		{"other correlation id", []record{{n: 0, code: codePrompt}, {n: 1, at: 5, corr: 7}},
			map[int]string{0: "interrupted interrupted 0", 1: "success succeeded 1"}, []int{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeeder(t, Options{})
			f.received = 1
			for _, r := range c.records {
				f.add(testRecord(r.n, 1, r.at*1e6, r.code, withCorrelation(500+r.corr), func(s *schemas.SignIn) {
					if r.app != "" {
						s.AppId = r.app
					}
				}))
			}
			for n, want := range c.want {
				f.want(n, want)
			}
			if diff := cmp.Diff(c.rows, f.ids()); diff != "" {
				t.Errorf("rows of the last record: %s", diff)
			}
		})
	}
}

func TestNothingGroupsByAnEmptyKey(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*schemas.SignIn)
	}{
		{"no correlation id", func(r *schemas.SignIn) { r.CorrelationId = "" }},
		{"zero correlation id", func(r *schemas.SignIn) { r.CorrelationId = allZeros }},
		{"correlation id of another form", func(r *schemas.SignIn) { r.CorrelationId = "session-1" }},
		{"no application", func(r *schemas.SignIn) { r.AppId, r.AppDisplayName = "", "" }},
		{"nobody", func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = allZeros, "ANONYMIZED" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeeder(t, Options{})
			f.add(testRecord(0, 1, 0, codePrompt, withCorrelation(9), c.change), testRecord(1, 1, 1e6, codeSuccess, withCorrelation(9), c.change))
			f.want(0, "interrupted interrupted 0")
			f.want(1, "success succeeded 1")
		})
	}
	f := newFeeder(t, Options{})
	for n := range 20 {
		f.add(testRecord(n, 1, int64(n)*testMinute, codeWrong, func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = "", allZeros }))
	}
	if len(f.incidents) != 0 || f.engine.Stats().Entities != 0 {
		t.Errorf("records of nobody made %d incidents and %d users", len(f.incidents), f.engine.Stats().Entities)
	}
}

func TestLongAttemptKeepsItsID(t *testing.T) {
	f := newFeeder(t, Options{})
	for n := range 200 {
		f.add(testRecord(n, 1, int64(n)*60e6, codePrompt, withCorrelation(900)))
		f.want(n, "interrupted interrupted 0")
		if len(f.last.Diagnoses) != 1 {
			t.Fatalf("record %d gave %d rows", n, len(f.last.Diagnoses))
		}
	}
	f.add(testRecord(200, 1, 200*60e6, codeSuccess, withCorrelation(900)))
	f.want(200, "success resolved 0")
	f.want(199, "resolved resolved 0")
	if n := len(f.last.Diagnoses); n != maxAttemptMembers {
		t.Errorf("%d rows changed, want %d", n, maxAttemptMembers)
	}
}

func TestAttemptOutlivesItsFirstRecordsInTheStore(t *testing.T) {
	size := int64(testRecord(0, 1, 0, 0).SizeVT()+36) + recentEntrySize
	f := newFeeder(t, Options{RecentBytes: 3 * size})
	for n := range 30 {
		f.add(testRecord(n, 1, int64(n)*60e6, codePrompt, withCorrelation(900)))
		f.want(n, "interrupted interrupted 0")
	}
	if s := f.engine.Stats(); s.RecentRecords > 4 || s.AttemptGroups != 1 {
		t.Errorf("%d records kept, %d groups", s.RecentRecords, s.AttemptGroups)
	}
	for n := range 10 { // others push them out
		f.add(testRecord(100+n, 2, testHour, codeSuccess))
	}
	if s := f.engine.Stats(); s.AttemptGroups != 0 {
		t.Errorf("%d groups left", s.AttemptGroups)
	}
}

func TestEvictionByHorizonIsBoundedPerCall(t *testing.T) {
	f := newFeeder(t, Options{})
	for n := range 100 {
		f.add(testRecord(n, 1, 0, codeSuccess))
	}
	f.received = int64(1000 * time.Hour / time.Millisecond)
	f.add(testRecord(100, 1, 0, codeSuccess))
	if n := f.engine.Stats().RecentRecords; n != 93 {
		t.Errorf("one message from the future left %d records, want 93", n)
	}
}

func TestRepeatedFailures(t *testing.T) {
	f := newFeeder(t, Options{})
	for n := range 4 {
		f.add(testRecord(n, 1, int64(n)*testHour, codeWrong))
	}
	if len(f.incidents) != 0 {
		t.Fatal("incident below the threshold")
	}
	f.add(testRecord(4, 1, 4*testHour, codeWrong, func(r *schemas.SignIn) { r.IpAddress = "198.51.100.9" }))
	if len(f.last.Members) != 5 || len(f.last.Incidents) != 1 {
		t.Fatalf("%d members and %d incidents at the threshold", len(f.last.Members), len(f.last.Incidents))
	}
	first := f.last.Incidents[0]
	d := f.diagnoses[testGUID(0, 4)]
	if !slices.Contains(d.Also, "repeated_failures") || !slices.Equal(d.Incidents, []string{first.IncidentID}) {
		t.Errorf("fifth failure: also %v, incidents %v", d.Also, d.Incidents)
	}
	want := Incident{
		IncidentID: first.IncidentID, Kind: "repeated_failures", Severity: SeverityMedium, EntityKind: "user", EntityValue: "user1@example.com",
		TenantID: testTenant, FirstSeen: testStart, LastSeen: testStart + 4*testHour, Users: []string{"user1@example.com"},
		Addresses: []string{"203.0.113.7", "198.51.100.9"}, Applications: []string{"Exchange Online"}, OperatingSystems: []string{"Windows 10"},
		ClientApps: []string{"Browser"}, Outcome: IncidentBlocked, RequestIDsTotal: 5,
		RequestIDs: []string{testGUID(0, 0), testGUID(0, 1), testGUID(0, 2), testGUID(0, 3), testGUID(0, 4)},
		Counts: []Count{{"failures", 5}, {"users", 1}, {"successes", 0}, {"lockouts", 0}, {"wrong_passwords", 5}, {"unknown_names", 0},
			{"mfa_prompts", 0}, {"stopped", 0}, {"applications", 1}, {"addresses", 2}, {"client_apps", 1},
			{"operating_systems", 1}, {"devices", 0}, {"regular_seconds", 0}},
		Revision: Revision(0, 5),
	}
	if diff := cmp.Diff(want, first, compareRows); diff != "" {
		t.Error(diff)
	}

	// It grows under the same id, also by an earlier failure that comes late.
	f.add(testRecord(5, 1, 30*testHour, codeLocked, func(r *schemas.SignIn) { r.FailureReason = "too many attempts" }))
	f.add(testRecord(6, 1, -testHour, codeWrong))
	if len(f.incidents) != 1 {
		t.Fatalf("%d incidents", len(f.incidents))
	}
	got := f.incidents[first.IncidentID]
	if got.Outcome != IncidentLocked || got.RequestIDsTotal != 7 || got.FirstSeen != testStart-testHour || got.RequestIDs[0] != testGUID(0, 6) {
		t.Errorf("grown incident: %+v", got)
	}
	// A success tells that someone got in; a silent one does not.
	f.add(testRecord(7, 1, 31*testHour, codeSuccess, func(r *schemas.SignIn) { r.Category = schemas.Category_CATEGORY_NON_INTERACTIVE_USER }))
	if len(f.last.Incidents) != 0 {
		t.Error("a silent success changed the incident")
	}
	f.add(testRecord(8, 1, 32*testHour, codeSuccess))
	if got := f.incidents[first.IncidentID]; got.Outcome != IncidentSignedIn || got.Severity != SeverityHigh {
		t.Errorf("after a success: outcome %s, severity %s", got.Outcome, got.Severity)
	}
	// 48 hours without a failure end the story.
	for n := range 5 {
		f.add(testRecord(20+n, 1, 200*testHour+int64(n)*testMinute, codeWrong))
	}
	if len(f.incidents) != 2 || len(f.members) != 12 {
		t.Errorf("%d incidents, %d members", len(f.incidents), len(f.members))
	}
}

func TestRepeatedFailuresByALateFailure(t *testing.T) {
	f := newFeeder(t, Options{})
	f.received = 1
	for n := range 4 {
		f.add(testRecord(n, 1, int64(n+1)*testHour, codeWrong))
	}
	f.add(testRecord(9, 1, 6*testHour, codeSuccess))
	f.add(testRecord(4, 1, 0, codeWrong)) // late: the window of record 3 now holds five
	// The later failures say another number now, and the success is repeated.
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 9}, f.ids()); diff != "" {
		t.Errorf("rows: %s", diff)
	}
	for n, want := range map[int]bool{0: false, 1: false, 2: false, 3: true, 4: false} {
		if got := slices.Contains(f.diagnoses[testGUID(0, n)].Also, "repeated_failures"); got != want {
			t.Errorf("record %d repeated: %v", n, got)
		}
	}
	if len(f.members) != 5 || len(f.incidents) != 1 {
		t.Errorf("%d members, %d incidents", len(f.members), len(f.incidents))
	}
}

func TestIncidentSeverity(t *testing.T) {
	for _, c := range []struct {
		name  string
		n     int
		every int64
		jump  bool
		want  string
	}{
		{"few", 5, 7 * testMinute, true, SeverityMedium},
		{"stored password of a phone", 30, 30 * testMinute, false, SeverityLow},
		{"many", 25, 10 * testMinute, true, SeverityHigh},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeeder(t, Options{})
			at := int64(0)
			for n := range c.n {
				at += c.every
				if c.jump {
					at += int64(n*n%7) * testMinute * 3
				}
				f.add(testRecord(n, 1, at, codeWrong, func(r *schemas.SignIn) { r.DeviceDisplayName = "phone" }))
			}
			for _, i := range f.incidents {
				if i.Severity != c.want {
					t.Errorf("severity %s, want %s", i.Severity, c.want)
				}
			}
			if len(f.incidents) != 1 {
				t.Errorf("%d incidents", len(f.incidents))
			}
		})
	}
}

// An operator's catalogue decides: its severity of the incident, its codes, and which codes count.
func TestOverlayDecides(t *testing.T) {
	cat, err := catalogue.LoadOverlay("contoso.yaml", []byte(`
codes:
  50126: {counts: no}
  999001: {category: lockout, counts: yes, meaning: The gateway refused it., remediation: Ask Contoso.}
incidents:
  account_lockout: {severity: medium}
scenarios:
  account_locked: {severity: {failure: critical}}
`))
	if err != nil {
		t.Fatal(err)
	}
	f := newFeeder(t, Options{Catalogue: cat})
	for n := range 8 {
		f.add(testRecord(n, 1, int64(n*n)*testMinute, codeWrong))
	}
	if len(f.incidents) != 0 {
		t.Errorf("%d incidents by a code that does not count", len(f.incidents))
	}
	for n := range 6 {
		f.add(testRecord(100+n, 2, int64(n*n)*testMinute, 999001))
	}
	if d := f.diagnoses[testGUID(0, 100)]; d.Scenario != ScenarioAccountLocked || d.Severity != SeverityCritical || len(f.last.UnknownCodes) != 0 {
		t.Errorf("scenario %s, severity %s, unknown codes %v", d.Scenario, d.Severity, f.last.UnknownCodes)
	}
	if len(f.incidents) != 1 {
		t.Fatalf("%d incidents, want 1", len(f.incidents))
	}
	for _, i := range f.incidents {
		// One above medium, which the repeated failures have, as the catalogue's is one above the usual.
		if i.Kind != IncidentAccountLockout || i.Severity != SeverityHigh {
			t.Errorf("%s of severity %s, want account_lockout, high", i.Kind, i.Severity)
		}
	}
	if newFeeder(t, Options{}).engine.Fingerprint() == f.engine.Fingerprint() {
		t.Error("another catalogue has the same fingerprint, so it would not begin another epoch")
	}
}

// Codes that the catalogue does not know are told once for every record.
func TestUnknownCodes(t *testing.T) {
	f := newFeeder(t, Options{})
	record := func(n int, code int32, change ...func(*schemas.SignIn)) *schemas.SignIn {
		return testRecord(n, 1, int64(n)*testMinute, code, change...)
	}
	newer := func(r *schemas.SignIn) { r.ProcessingTime += testMinute; r.FailureReason = "More is known now." }
	for _, step := range []struct {
		name   string
		record *schemas.SignIn
		want   []int32
	}{
		{"known", record(1, codeWrong), nil},
		{"success", record(2, codeSuccess), nil},
		{"unknown", record(3, 999999), []int32{999999}},
		{"repeat", record(3, 999999), nil},
		{"newer version", record(3, 999999, newer), nil},
		{"another record", record(4, 888888), []int32{888888}},
		{"known at first", record(5, codePrompt), nil},
		{"then unknown", record(5, 777777, newer), []int32{777777}},
	} {
		if got := f.add(step.record).UnknownCodes; !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}

func TestManyFailuresStayBounded(t *testing.T) {
	f := newFeeder(t, Options{})
	for n := range 500 {
		f.add(testRecord(n, 1, int64(n)*testMinute, codeWrong, func(r *schemas.SignIn) { r.IpAddress = fmt.Sprintf("198.51.100.%d", n%250) }))
	}
	if len(f.incidents) != 1 || len(f.members) != 500 {
		t.Fatalf("%d incidents, %d members", len(f.incidents), len(f.members))
	}
	for _, i := range f.incidents {
		if i.RequestIDsTotal != 500 || len(i.RequestIDs) != MaxIncidentRequestIDs || i.RequestIDs[0] != testGUID(0, 0) || len(i.Addresses) != maxIncidentValues {
			t.Errorf("total %d, %d request ids from %s, %d addresses", i.RequestIDsTotal, len(i.RequestIDs), i.RequestIDs[0], len(i.Addresses))
		}
	}
	if v := f.window(1, 499*testMinute); v.AtLeast || v.Count != 500 { // whole hours are counted exactly
		t.Errorf("window: %+v", v)
	}
	if v := f.window(1, 470*testMinute+48*testHour); !v.AtLeast || v.Count > 30 || v.Count < 0 { // an hour is cut by the edge
		t.Errorf("window: %+v", v)
	}
	if n := f.engine.Stats().StateBytes; n > 32<<10 {
		t.Errorf("one user takes %d bytes", n)
	}
}

// window returns the failures that the engine sees for a user at a time after testStart.
func (f *feeder) window(user int, after int64) FailureView {
	var v FailureView
	id := f.engine.dealer.identify(testRecord(0, user, 0, 0))
	if n := f.engine.entities.get(id.key); n != nil {
		f.engine.entities.failureView(n, testStart+after, "", f.engine.settings.Default.Thresholds.RepeatedFailures, true, &v)
	}
	return v
}

func TestInventedNamesStayBounded(t *testing.T) {
	const limit = 512 << 10
	f := newFeeder(t, Options{StateBytes: limit, RecentBytes: limit})
	// Three failures of a real user, then a spray over invented names, then two more.
	for n := range 3 {
		f.add(testRecord(n, 1, int64(n)*testMinute, codeWrong))
	}
	var rows Rows
	for n := range 10_000 {
		r := testRecord(1000+n, 0, testHour, 50034, func(r *schemas.SignIn) {
			r.UserId, r.UserPrincipalName = "", fmt.Sprintf("name%d@example.com", n)
			r.ClientAppUsed = fmt.Sprintf("client %d", n)
		})
		f.offset++
		rows.Reset()
		f.engine.Apply(f.message(r), f.offset, &rows)
	}
	s := f.engine.Stats()
	if s.StateBytes > limit+4096 || s.RecentBytes > limit+4096 || s.EntitiesEvicted == 0 {
		t.Errorf("state %d, recent %d bytes, %d users evicted", s.StateBytes, s.RecentBytes, s.EntitiesEvicted)
	}
	f.add(testRecord(3, 1, 2*testHour, codeWrong), testRecord(4, 1, 3*testHour, codeWrong))
	if len(f.incidents) != 1 {
		t.Error("the spray pushed out the user whose failures repeat")
	}
	// Every text is let go with its last holder.
	f.engine.entities.limit = -1
	f.engine.entities.evict(0)
	if n := f.engine.entities.bytes(); n != 0 || len(f.engine.entities.texts.index) != 0 {
		t.Errorf("%d bytes and %d texts left without users", n, len(f.engine.entities.texts.index))
	}
}

func TestUnattendedPromptCountsUntilResolved(t *testing.T) {
	cat := testCatalogue(t)
	code := int32(0)
	for _, c := range cat.Codes() {
		if c.Counts == catalogue.CountsUnattended && c.IsInterrupt() {
			code = c.Code
			break
		}
	}
	if code == 0 {
		t.Fatal("the catalogue has no code that counts only where nobody is there")
	}
	silent := func(r *schemas.SignIn) {
		r.Category, r.IsInteractive = schemas.Category_CATEGORY_NON_INTERACTIVE_USER, schemas.Tri_TRI_FALSE
	}
	f := newFeeder(t, Options{})
	f.add(testRecord(0, 1, 0, code, silent, withCorrelation(900)))
	if !countsAsFailure(testRecord(0, 1, 0, code, silent), cat) {
		t.Fatalf("code %d does not count", code)
	}
	if n := f.window(1, testHour).Count; n != 1 {
		t.Fatalf("count %d, want 1", n)
	}
	f.add(testRecord(1, 1, testMinute, codeSuccess, withCorrelation(900)))
	f.want(0, "resolved resolved 0")
	if n := f.window(1, testHour).Count; n != 0 {
		t.Errorf("count %d after the success, want 0", n)
	}
}

func TestEpochAndFingerprint(t *testing.T) {
	f := newFeeder(t, Options{})
	f.engine.SetEpoch(7)
	if got := f.add(testRecord(0, 1, 0, 0)).Diagnoses[0].Revision; got != 7<<48|1 {
		t.Errorf("revision %x", got)
	}
	settings := DefaultSettings()
	settings.Default.Thresholds.RepeatedFailures.Count = 6
	other := newFeeder(t, Options{Settings: settings})
	if f.engine.Fingerprint() == other.engine.Fingerprint() || f.engine.Fingerprint() != newFeeder(t, Options{Epoch: 3}).engine.Fingerprint() {
		t.Error("the fingerprint must follow the thresholds and nothing of the epoch")
	}
}

func TestThresholdsValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Thresholds)
		want   string
	}{
		{func(*Thresholds) {}, ""},
		{func(x *Thresholds) { x.RepeatedFailures.Count = 1 }, "count is 1"},
		{func(x *Thresholds) { x.RepeatedFailures.Count = MaxKeptFailures + 1 }, "count is 65"},
		{func(x *Thresholds) { x.RepeatedFailures.Window = 49 * time.Hour }, "window is 49h"},
		{func(x *Thresholds) { x.RepeatedFailures.Window = time.Second }, "window is 1s"},
		{func(x *Thresholds) { x.RepeatedFailures.Window = time.Hour + 1 }, "whole seconds"},
	} {
		x := DefaultThresholds()
		c.change(&x)
		err := x.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", x, err, c.want)
		}
	}
	if _, err := NewEngine(Options{}); err == nil {
		t.Error("an engine without a catalogue")
	}
}

func TestInputIsNotChanged(t *testing.T) {
	f := newFeeder(t, Options{})
	a := testRecord(0, 1, 0, codePrompt, func(r *schemas.SignIn) { r.Policies = []*schemas.Policy{{Id: "b", Result: "failure"}} })
	b := testRecord(0, 1, 0, codePrompt, func(r *schemas.SignIn) { r.Policies = []*schemas.Policy{{Id: "a", Result: "success"}} })
	for range 3 {
		for n, r := range []*schemas.SignIn{a, b, testRecord(1, 1, 1e6, 0)} {
			before := r.CloneVT()
			f.add(r)
			if !r.EqualVT(before) {
				t.Fatalf("record %d was changed", n)
			}
		}
	}
}
