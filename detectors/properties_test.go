package detectors

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// catalogueOnce is the catalogue of property tests, whose inner functions have no testing.TB to load it with.
var catalogueOnce *catalogue.Catalogue

func setCatalogue(t testing.TB) {
	t.Helper()
	catalogueOnce = testCatalogue(t)
}

var testCodes = []int32{codeSuccess, codeSuccess, codeWrong, codeWrong, codePrompt, 50140, codeLocked, 53003, 500121}

// drawRecords draws records of a few users with shared correlation ids, some of them in parts and versions, within so many hours.
func drawRecords(t *rapid.T, most, hours int) []*schemas.SignIn {
	var out []*schemas.SignIn
	for n := range rapid.IntRange(1, most).Draw(t, "records") {
		user := rapid.IntRange(0, 2).Draw(t, "user")
		after := int64(rapid.IntRange(0, hours*60).Draw(t, "minute")) * testMinute
		r := testRecord(n, user, after, rapid.SampledFrom(testCodes).Draw(t, "code"), withCorrelation(rapid.IntRange(0, 3).Draw(t, "correlation")))
		r.IpAddress = fmt.Sprintf("203.0.113.%d", rapid.IntRange(1, 3).Draw(t, "address"))
		if rapid.IntRange(0, 9).Draw(t, "silent") == 0 {
			r.Category, r.IsInteractive = schemas.Category_CATEGORY_NON_INTERACTIVE_USER, schemas.Tri_TRI_FALSE
		}
		if rapid.IntRange(0, 9).Draw(t, "nobody") == 0 {
			r.UserId, r.UserPrincipalName = "", ""
		}
		if rapid.IntRange(0, 9).Draw(t, "odd id") == 0 {
			r.CorrelationId = rapid.SampledFrom([]string{"", allZeros, "x-1"}).Draw(t, "id")
		}
		out = append(out, r)
		for v := range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "versions") {
			again := r.CloneVT()
			if rapid.Bool().Draw(t, "changed") {
				again.ProcessingTime += int64(v+1) * 1e6
				again.Policies = []*schemas.Policy{{Id: testGUID(9, v), Result: "success"}}
				if rapid.Bool().Draw(t, "status") {
					again.ErrorCode = rapid.SampledFrom(testCodes).Draw(t, "new code")
				}
			}
			out = append(out, again)
		}
	}
	return out
}

func shuffled(t *rapid.T, records []*schemas.SignIn) []*schemas.SignIn {
	out := slices.Clone(records)
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1))
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// rapidFeeder is a feeder whose failures are rapid's.
func rapidFeeder(t *rapid.T, o Options) *feeder {
	o.Catalogue = catalogueOnce
	e, err := NewEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	return &feeder{engine: e, t: t, received: 1, diagnoses: map[string]Diagnosis{}, incidents: map[string]Incident{}, members: map[string]IncidentMember{}}
}

// The window of failures is what a look at the whole history would count, however late and often records come.
func TestWindowEqualsWholeHistory(t *testing.T) {
	setCatalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		f := rapidFeeder(t, Options{})
		// Up to 60 records over 40 hours: below the bound of kept failures, and no more than 48 hours late.
		records := drawRecords(t, 25, 40)
		for _, r := range records {
			r.CorrelationId = r.RequestId // attempts of one: no prompt is resolved
			r.UserAgent = r.RequestId     // and no two tries of a client without a person are the same
		}
		records = shuffled(t, append(records, records[:rapid.IntRange(0, len(records)).Draw(t, "repeated")]...))
		for i, r := range records {
			f.add(r)
			// Whole history: the newest version of each record so far.
			newest := map[string]*schemas.SignIn{}
			for _, x := range records[:i+1] {
				if old := newest[x.RequestId]; old == nil || x.ProcessingTime >= old.ProcessingTime {
					newest[x.RequestId] = x
				}
			}
			for user := range 3 {
				for _, at := range []int64{
					r.EventTime - testStart, 10 * testHour, 40 * testHour, 70 * testHour,
					// The edges of the window: 48 hours after a failure it is out, a microsecond before it is in.
					r.EventTime - testStart + 48*testHour, r.EventTime - testStart + 48*testHour - 1,
				} {
					var want FailureView
					wrong := int64(0)
					for _, x := range newest {
						id := testGUID(2, user)
						if x.UserId != id || !countsAsFailure(x, catalogueOnce) || x.EventTime > testStart+at || x.EventTime <= testStart+at-48*testHour {
							continue
						}
						if want.Count == 0 || x.EventTime < want.First {
							want.First = x.EventTime
						}
						want.Count++
						want.Last = max(want.Last, x.EventTime)
						if catalogueOnce.Code(x.ErrorCode).PasswordWasWrong() {
							wrong++
						}
					}
					got := f.window(user, at)
					if got.Count != want.Count || got.AtLeast || got.First != want.First || got.Last != want.Last ||
						got.Repeated != (want.Count >= 5) || got.WrongPasswords != wrong {
						t.Fatalf("record %d, user %d at %d min: got %+v, want %+v with %d wrong passwords", i, user, at/testMinute, got, want, wrong)
					}
				}
			}
		}
	})
}

// apply applies messages from..to and appends clones of their rows.
func applyAll(e *Engine, log []*schemas.EntityMessage, from, to int, out *Rows) {
	var rows Rows
	for i := from; i < to; i++ {
		rows.Reset()
		e.Apply(log[i], int64(i), &rows)
		out.AppendClone(&rows)
	}
}

func drawLog(t *rapid.T, most, hours int, crowded bool) []*schemas.EntityMessage {
	var log []*schemas.EntityMessage
	received := testStart / 1000
	d := Dealer{Catalogue: catalogueOnce}
	add := func(r *schemas.SignIn, offset int64) {
		d.Deal(r, 1, WantedRoles(), func(_ uint32, roles schemas.RoleSet) {
			log = append(log, &schemas.EntityMessage{
				Source: &schemas.Source{Topic: 1, Partition: uint32(len(log) % 3), Offset: offset}, Roles: uint32(roles), ReceivedMs: received, SignIn: r,
			})
		})
	}
	if crowded && rapid.IntRange(0, 15).Draw(t, "spray") == 0 { // more events at an address than are kept
		for n := range rapid.IntRange(MaxKeptGroupEvents, MaxKeptGroupEvents+90).Draw(t, "sprayed") {
			add(testRecord(10_000+n, 100+n, int64(n)*testMinute/2, codeWrong, func(r *schemas.SignIn) { r.UserAgent = "python" }), int64(len(log)))
		}
	}
	tr := &traffic{Rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "traffic"), 1)), n: 20_000}
	records := drawRecords(t, most, hours)
	if more := tr.records(); rapid.Bool().Draw(t, "all families") {
		records = append(records, more[:min(len(more), 2*most)]...)
	}
	for _, r := range shuffled(t, records) {
		received += int64(rapid.SampledFrom([]int{0, 1000, 60_000, 3_600_000, 30 * 3_600_000}).Draw(t, "pause"))
		offset := int64(len(log))
		if offset > 0 && rapid.IntRange(0, 9).Draw(t, "repeat") == 0 {
			offset--
		}
		add(r, offset)
	}
	return log
}

// A snapshot taken anywhere and restored into a new engine goes on byte for byte, whatever the bounds.
func TestSnapshotAnywhere(t *testing.T) {
	setCatalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Catalogue: catalogueOnce}
		if rapid.Bool().Draw(t, "small") {
			o.RecentBytes, o.StateBytes = int64(rapid.IntRange(1, 8000).Draw(t, "recent")), int64(rapid.IntRange(1, 40000).Draw(t, "state"))
		}
		log := drawLog(t, 30, 100, true)
		make := func() *Engine {
			e, err := NewEngine(o)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		whole, parts := make(), make()
		var want, got Rows
		applyAll(whole, log, 0, len(log), &want)
		at := 0
		for at < len(log) {
			to := min(len(log), at+rapid.IntRange(1, 40).Draw(t, "part"))
			applyAll(parts, log, at, to, &got)
			at = to
			snapshot := parts.AppendSnapshot([]byte("before"))[len("before"):]
			next := make()
			if err := next.RestoreSnapshot(bytes.Clone(snapshot)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(next.AppendSnapshot(nil), snapshot) {
				t.Fatal("a restored engine writes another snapshot")
			}
			s, n := parts.Stats(), next.Stats()
			if s.StateBytes != n.StateBytes || s.RecentBytes != n.RecentBytes || s.Entities != n.Entities || s.AttemptGroups != n.AttemptGroups || s.RecentRecords != n.RecentRecords {
				t.Fatalf("sizes differ: %+v, restored %+v", s, n)
			}
			parts = next
		}
		if diff := gocmp.Diff(want, got, compareRows); diff != "" {
			t.Error(diff)
		}
		if !bytes.Equal(whole.AppendSnapshot(nil), parts.AppendSnapshot(nil)) {
			t.Error("final states differ")
		}
	})
}

// final is what of a row must not depend on the order in which records came.
type final struct {
	request, correlation, outcome, attempt, attemptOutcome string
	code                                                   int32
	repeated                                               bool
}

func (f *feeder) final() (out []final) {
	for _, d := range f.diagnoses {
		out = append(out, final{d.RequestID, d.CorrelationID, d.Outcome, d.AttemptID, d.AttemptOutcome, d.ErrorCode, slices.Contains(d.Also, "repeated_failures")})
	}
	slices.SortFunc(out, func(a, b final) int { return cmp.Compare(a.request, b.request) })
	return out
}

func (f *feeder) stories() (out []Incident) {
	for _, i := range f.incidents {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Incident) int {
		return cmp.Or(cmp.Compare(a.EntityValue, b.EntityValue), cmp.Compare(a.FirstSeen, b.FirstSeen))
	})
	return out
}

// Another order, with repeats, gives the same final rows; only revisions, and the id of an incident, tell of the order.
func TestOrderDoesNotMatter(t *testing.T) {
	setCatalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		records := drawRecords(t, 40, 40)
		// Versions of one record differ in processing time, else nothing tells which is the newer. They keep the status: a
		// failure that a later version takes back may leave its incident behind.
		codes := map[string]int32{}
		for i, r := range records {
			if code, ok := codes[r.RequestId]; ok {
				r.ErrorCode = code
			}
			codes[r.RequestId] = r.ErrorCode
			r.ProcessingTime += int64(i)
			// Prompts that count until they are resolved would open incidents that depend on the order.
			if r.ErrorCode == codePrompt || r.ErrorCode == 50140 {
				r.Category, r.IsInteractive = schemas.Category_CATEGORY_SIGN_IN, schemas.Tri_TRI_TRUE
			}
		}
		a, b := rapidFeeder(t, Options{}), rapidFeeder(t, Options{})
		a.add(shuffled(t, records)...)
		b.add(shuffled(t, append(records, records[:rapid.IntRange(0, len(records)).Draw(t, "repeated")]...))...)
		if diff := gocmp.Diff(a.final(), b.final(), gocmp.AllowUnexported(final{})); diff != "" {
			t.Error(diff)
		}
		ignore := cmpopts.IgnoreFields(Incident{}, "IncidentID", "Revision")
		if diff := gocmp.Diff(a.stories(), b.stories(), compareRows, ignore); diff != "" {
			t.Error(diff)
		}
		if len(a.members) != len(b.members) {
			t.Errorf("%d and %d members", len(a.members), len(b.members))
		}
	})
}

// The number of shards does not show in the rows.
func TestShardsDoNotMatter(t *testing.T) {
	setCatalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t, 30, 100, false)
		for _, m := range log {
			m.ReceivedMs = testStart / 1000 // the horizon is measured by each shard's own messages
		}
		run := func(partitions uint32) []Diagnosis {
			engines := make([]*Engine, partitions)
			for i := range engines {
				e, err := NewEngine(Options{Catalogue: catalogueOnce})
				if err != nil {
					t.Fatal(err)
				}
				engines[i] = e
			}
			var d Dealer
			var out Rows
			for i, m := range log {
				d.Deal(m.SignIn, partitions, WantedRoles(), func(p uint32, roles schemas.RoleSet) {
					x := m.CloneVT()
					x.Roles = uint32(roles)
					x.Source = &schemas.Source{Topic: 1, Offset: int64(i)}
					applyAll(engines[p], []*schemas.EntityMessage{x}, 0, 1, &out)
				})
			}
			return out.Diagnoses
		}
		strip := cmpopts.IgnoreFields(Diagnosis{}, "Revision")
		if diff := gocmp.Diff(run(1), run(uint32(rapid.IntRange(2, 9).Draw(t, "shards"))), compareRows, strip); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	f := newFeeder(t, Options{})
	for n := range 30 {
		f.add(testRecord(n, n%3, int64(n)*testMinute, testCodes[n%len(testCodes)], withCorrelation(n%4)))
	}
	good := f.engine.AppendSnapshot(nil)
	e := newFeeder(t, Options{}).engine
	for n := range good {
		if err := e.RestoreSnapshot(good[:n]); err == nil {
			t.Fatalf("a snapshot cut at byte %d was taken", n)
		}
	}
	if err := e.RestoreSnapshot(append(bytes.Clone(good), 0)); err == nil {
		t.Error("a snapshot with a byte too many was taken")
	}
	if e.Stats().RecentRecords != 0 {
		t.Error("a refused snapshot changed the engine")
	}
	other := bytes.Clone(good)
	other[len(snapshotMagic)] = SnapshotVersion + 1
	if err := e.RestoreSnapshot(other); !errors.Is(err, ErrSnapshotVersion) {
		t.Errorf("another version: %v", err)
	}
	if err := e.RestoreSnapshot(good); err != nil {
		t.Error(err)
	}
}

// A silent success shows nobody getting in, before a snapshot and after it.
func TestSnapshotKeepsSilentSuccesses(t *testing.T) {
	f := newFeeder(t, Options{})
	f.received = 1
	for n := range 5 {
		f.add(testRecord(n, 1, int64(n)*testMinute, codeWrong))
	}
	f.add(testRecord(5, 1, testHour, codeSuccess, func(r *schemas.SignIn) { r.IsInteractive = schemas.Tri_TRI_FALSE }))
	next := newFeeder(t, Options{})
	if err := next.engine.RestoreSnapshot(f.engine.AppendSnapshot(nil)); err != nil {
		t.Fatal(err)
	}
	next.offset = f.offset
	rows := next.add(testRecord(6, 1, 2*testHour, codeWrong))
	if len(rows.Incidents) != 1 || rows.Incidents[0].Outcome != IncidentBlocked {
		t.Errorf("incidents: %+v", rows.Incidents)
	}
}

// afterwards applies records of all roles to an engine whose state came from a snapshot that may hold anything: it must go on
// without a panic, stay bounded, and write what it reads again.
func afterwards(t testing.TB, e *Engine, seed uint64) {
	t.Helper()
	tr := newTraffic(seed)
	d := Dealer{Catalogue: e.catalogue}
	var rows Rows
	offset := int64(1 << 40)
	apply := func(r *schemas.SignIn) {
		rows.Reset()
		offset++
		d.Deal(r, 1, WantedRoles(), func(_ uint32, roles schemas.RoleSet) {
			e.Apply(&schemas.EntityMessage{Source: &schemas.Source{Topic: 77, Offset: offset}, Roles: uint32(roles), ReceivedMs: testStart / 1000, SignIn: r}, offset, &rows)
		})
		rows.Clone()
	}
	for n := range 30 {
		apply(testRecord(n, n%3, int64(n)*testMinute, testCodes[n%len(testCodes)], withCorrelation(n%4)))
	}
	records := tr.records()
	for _, r := range records[:min(len(records), 60)] {
		apply(r)
	}
	e.Top(5)
	b := e.AppendSnapshot(nil)
	next, err := NewEngine(e.options)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.RestoreSnapshot(b); err != nil {
		t.Errorf("what it wrote is refused: %v", err)
	} else if !bytes.Equal(next.AppendSnapshot(nil), b) {
		t.Error("what it wrote is read as something else")
	}
}

// engineOfAll returns an engine that saw all roles, and a crowded address with hours, sketches and incidents.
func engineOfAll(t testing.TB, seed uint64) *Engine {
	run := newRunner(t, 1, Options{Catalogue: catalogueOnce})
	tr := newTraffic(seed)
	for n := range MaxKeptGroupEvents + 40 {
		run.add(tr.record(n, 0, int64(n)*testMinute, codeWrong))
	}
	for _, r := range tr.records() {
		run.add(r)
	}
	return run.engines[0]
}

// A well-formed snapshot of what no engine would write: whatever numbers it holds are refused, or the engine goes on with them.
func TestRestoreHostileState(t *testing.T) {
	setCatalogue(t)
	taken := 0
	const seeds = 40
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 3))
		e := engineOfAll(t, seed%10)
		odd := func(most int64) int64 {
			return []int64{0, 1, 2, most, most + 1, r.Int64N(most + 1), 1<<32 - 1, math.MaxInt64, math.MinInt64, -1}[r.IntN(10)]
		}
		s := &e.entities
		for range 1 + r.IntN(4) {
			n := &s.slots[r.IntN(len(s.slots))]
			switch r.IntN(5) {
			case 0:
				n.received, n.nextInc = odd(10), uint32(odd(10))
			case 1:
				if len(n.incidents) > 0 {
					i := &n.incidents[r.IntN(len(n.incidents))]
					switch r.IntN(8) {
					case 0:
						i.number = uint32(odd(5))
					case 1:
						i.family = uint8(odd(int64(len(families))))
					case 2:
						i.kind = uint8(odd(int64(len(detections))))
					case 3:
						i.severity, i.outcome = uint8(odd(5)), uint8(odd(5))
					case 4:
						i.kinds, i.leftSet = kindSet(odd(1<<20)), kindSet(odd(1<<20))
					case 5:
						i.first, i.last = odd(maxEventTime), odd(maxEventTime)
					case 6:
						i.left.events, i.left.wrong = odd(1000), odd(1000)
					case 7:
						i.actors = &sketch{uint8(odd(255)), uint8(odd(255))}
					}
				}
			case 2:
				if len(n.events) > 0 {
					v := &n.events[r.IntN(len(n.events))]
					const texts = classRequestText | classCorrelationText
					v.class = v.class&texts | class(odd(1<<25))&^texts
					v.incidents[r.IntN(maxLanes)] = uint32(odd(5))
					if r.IntN(2) == 0 {
						v.time = odd(maxEventTime)
						slices.SortFunc(n.events, compareEvents)
					}
				}
			case 3:
				if len(n.passes) > 0 {
					p := &n.passes[r.IntN(len(n.passes))]
					p.incident = uint32(odd(5))
					if r.IntN(2) == 0 {
						p.time = odd(maxEventTime)
						slices.SortFunc(n.passes, comparePasses)
					}
				}
			case 4:
				n.hours = append(n.hours, hourCount{hour: odd(maxEventTime / microsPerHour), n: uint32(odd(10)), late: uint32(odd(10))})
				slices.SortFunc(n.hours, func(a, b hourCount) int { return cmp.Compare(a.hour, b.hour) })
			}
		}
		next := newRunner(t, 1, Options{Catalogue: catalogueOnce}).engines[0]
		if err := next.RestoreSnapshot(e.AppendSnapshot(nil)); err != nil {
			continue
		}
		taken++
		t.Logf("seed %d", seed)
		afterwards(t, next, seed)
	}
	if taken == 0 || taken == seeds {
		t.Errorf("%d of %d were taken", taken, seeds)
	}
}

func FuzzRestoreSnapshot(f *testing.F) {
	setCatalogue(f)
	f.Add(newFeeder(f, Options{}).engine.AppendSnapshot(nil))
	feed := newFeeder(f, Options{})
	for n := range 40 {
		feed.add(testRecord(n, n%3, int64(n)*testMinute, testCodes[n%len(testCodes)], withCorrelation(n%4)))
	}
	f.Add(feed.engine.AppendSnapshot(nil))
	for seed := range uint64(3) {
		f.Add(engineOfAll(f, seed).AppendSnapshot(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newFeeder(t, Options{Catalogue: catalogueOnce, RecentBytes: 4000, StateBytes: 4000}).engine
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := e.RestoreSnapshot(b)
		runtime.ReadMemStats(&after)
		// A count is read with the bytes of its items at hand: what is made is bounded by what is there.
		if used := after.TotalAlloc - before.TotalAlloc; used > 64*uint64(len(b))+4<<20 {
			t.Errorf("%d bytes of a snapshot made %d bytes", len(b), used)
		}
		if err == nil {
			afterwards(t, e, 1)
		}
	})
}

func TestGUIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.StringMatching("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), rapid.StringMatching("[0-9a-fA-F-]{36}"), rapid.String()).Draw(t, "id")
		var b [16]byte
		if ok := encodeGUID(&b, s); ok && guidString(&b) != s {
			t.Errorf("%q became %q", s, guidString(&b))
		} else if !ok && schemas.IsGroupingID(s) && s == string(appendFolded(nil, s)) {
			t.Errorf("%q was refused", s)
		}
	})
}

func TestOutcomeWith(t *testing.T) {
	for _, c := range []struct{ lead, other, want uint8 }{
		{outcomeSignedIn, outcomeFailing, outcomeSignedIn},
		{outcomeBlocked, outcomeFailing, outcomeBlocked},
		{outcomeFailing, outcomeBlocked, outcomeFailing},
		{outcomeFailing, outcomeSignedIn, outcomeSignedIn},
		{outcomeLocked, outcomePasswordKnown, outcomePasswordKnown},
		{outcomeSignedIn, outcomeLocked, outcomeSignedIn},
	} {
		if got := outcomeWith(c.lead, c.other); got != c.want {
			t.Errorf("%s with %s: %s, want %s", incidentOutcomes[c.lead], incidentOutcomes[c.other],
				incidentOutcomes[got], incidentOutcomes[c.want])
		}
	}
}

func TestRegularSeconds(t *testing.T) {
	at := func(minutes ...int64) (out []*event) {
		for _, m := range minutes {
			out = append(out, &event{time: m * testMinute})
		}
		return out
	}
	for _, c := range []struct {
		failures []*event
		want     int64
	}{
		{at(0, 30, 60), 0},
		{at(0, 30, 60, 90), 1800},
		{at(0, 30, 60, 90, 120, 400), 1800},
		{at(0, 1, 30, 200), 0},
		{at(0, 0, 0, 0, 0), 0},
		// A telephone that asks every quarter of an hour and sleeps through some of them.
		{at(0, 15, 30, 75, 90, 120, 180, 195, 240), 15 * 60},
		{at(0, 15, 30, 75, 90, 120, 180, 195), 0}, // too few gaps for multiples
		{at(0, 15, 37, 75, 98, 120, 142, 195, 240), 0},
		// A client's own retries are no schedule.
		{[]*event{{time: 0}, {time: 15e6}, {time: 30e6}, {time: 45e6}, {time: 60e6}}, 0},
		{[]*event{{time: 0}, {time: 30e6}, {time: 60e6}, {time: 90e6}}, 30},
	} {
		if got := regularSeconds(c.failures); got != c.want {
			t.Errorf("%d failures: %d, want %d", len(c.failures), got, c.want)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, c := range []struct {
		name  string
		users int
		code  func(n int) int32
		group int // records of one attempt
	}{
		{"success", 100_000, func(int) int32 { return codeSuccess }, 1},
		{"attempts", 100_000, func(n int) int32 { return []int32{codePrompt, 50140, codeSuccess}[n%3] }, 3},
		{"failures", 100_000, func(int) int32 { return codeWrong }, 1},
		{"brute_force", 10, func(int) int32 { return codeWrong }, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newFeeder(b, Options{RecentBytes: 16 << 20})
			messages := make([]*schemas.EntityMessage, 60_000)
			ids := make([][2][]byte, len(messages))
			for n := range messages {
				m := f.message(testRecord(n, n/c.group%c.users, int64(n)*10e3, c.code(n), withCorrelation(n/c.group)))
				m.Source = nil
				ids[n] = [2][]byte{[]byte(m.SignIn.RequestId), []byte(m.SignIn.CorrelationId)}
				m.SignIn.RequestId, m.SignIn.CorrelationId = aliasString(ids[n][0]), aliasString(ids[n][1])
				messages[n] = m
			}
			var rows Rows
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				i := n % len(messages)
				m := messages[i]
				if round := n / len(messages); round > 0 { // the same records ten minutes later, under other ids
					m.SignIn.EventTime += int64(len(messages)) * 10e3
					m.ReceivedMs = m.SignIn.EventTime / 1000
					for _, id := range ids[i] {
						const digits = "0123456789abcdef"
						id[9], id[10], id[11] = digits[round>>8&15], digits[round>>4&15], digits[round&15]
					}
				}
				rows.Reset()
				f.engine.Apply(m, int64(n), &rows)
				n++
			}
			s := f.engine.Stats()
			b.ReportMetric(float64(s.StateBytes)/float64(max(s.Entities, 1)), "B/user")
			b.ReportMetric(float64(s.Rows)/float64(s.Records), "rows/record")
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	f := newFeeder(b, Options{})
	var rows Rows
	for n := range 50_000 {
		rows.Reset()
		m := f.message(testRecord(n, n%20_000, int64(n)*1e6, testCodes[n%len(testCodes)]))
		m.Source = nil
		f.engine.Apply(m, int64(n), &rows)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = f.engine.AppendSnapshot(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}
