package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

// failing is a tally that fails on some messages, with its state half changed.
type failing struct {
	*tally
	// fails says whether it fails on a message; it changes nothing of what the machine does else.
	fails func(msg *schemas.EntityMessage) bool
}

func (m *failing) Apply(msg *schemas.EntityMessage, offset int64, out *detectors.Rows) {
	m.tally.Apply(msg, offset, out)
	if m.fails(msg) {
		panic("half applied")
	}
}

// isPoison tells the poison of these tests: every record whose request id ends with 7.
func isPoison(msg *schemas.EntityMessage) bool { return strings.HasSuffix(msg.SignIn.RequestId, "7") }

// TestMachineFails: the state machine fails on some messages. Each goes to quarantine once, everything else becomes exactly the rows
// that a log without those messages makes, through crashes, and with a machine that fails no more they are made up for.
func TestMachineFails(t *testing.T) {
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 11))
	w := newWorld(t, 2, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	const count = 900
	users := produceRaw(t, k, rng, 0, count)
	w.machine = func() Machine { return &failing{newTally(w.fingerprint), isPoison} }
	poison := 0
	for n := range count {
		if strings.HasSuffix(requestID(n), "7") {
			poison++
		}
	}
	quarantined := func() (found []sinks.QuarantinedRecord) {
		w.tables.mu.Lock()
		defer w.tables.mu.Unlock()
		for _, q := range w.tables.quarantined {
			if q.Stage == sinks.StageEntities {
				found = append(found, q)
			}
		}
		return found
	}
	for range 4 {
		p := w.start(t, nil)
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		p.kill()
	}
	p := w.start(t, nil)
	eventually(t, "all other rows", func() bool { return w.rows() == count-poison })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	// The other roles of a record travel in messages of their own and are poison as well.
	ids := map[string]bool{}
	for _, q := range quarantined() {
		var msg schemas.EntityMessage
		if err := msg.UnmarshalVT(q.Bytes); err != nil || !isPoison(&msg) || q.Reason != sinks.ReasonPanic || q.Fingerprint != 1 || !strings.Contains(q.Error, "half applied") {
			t.Errorf("quarantined %+v: %v", q, err)
			continue
		}
		ids[msg.SignIn.RequestId] = true
	}
	if len(ids) != poison {
		t.Errorf("%d poison records in quarantine, want %d", len(ids), poison)
	}
	w.tables.mu.Lock()
	if len(w.tables.conflicts) > 0 {
		t.Errorf("rows with two contents: %v", w.tables.conflicts[:1])
	}
	total := int64(0)
	for user := range users {
		total += w.tables.incidents[user].RequestIDsTotal
	}
	w.tables.mu.Unlock()
	if total != int64(count-poison) {
		t.Errorf("users count %d records, want %d: half a change was kept", total, count-poison)
	}

	// The code is mended: another fingerprint begins another epoch, which passes nothing over.
	w.fingerprint, w.machine = 2, nil
	w.config.ReplayOnChange = time.Hour
	before := len(quarantined())
	p = w.start(t, nil)
	eventually(t, "the rows of the mended code", func() bool { return w.rows() == count })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, count, users)
	if got := len(quarantined()); got != before {
		t.Errorf("%d records in quarantine, want %d", got, before)
	}
}

// TestMachineFailsAsItPleases: what was passed over once is passed over ever after, also where the machine would not fail
// again.
func TestMachineFailsAsItPleases(t *testing.T) {
	w := newWorld(t, 1, 1)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	users := produceRaw(t, k, rand.New(rand.NewPCG(1, 12)), 0, 60)
	var mu sync.Mutex
	failed := 0
	w.machine = func() Machine {
		return &failing{newTally(w.fingerprint), func(msg *schemas.EntityMessage) bool {
			mu.Lock()
			defer mu.Unlock()
			if msg.SignIn.RequestId != requestID(20) || failed > 0 {
				return false
			}
			failed++
			return true
		}}
	}
	p := w.start(t, nil)
	eventually(t, "all other rows", func() bool { return w.rows() == 59 })
	p.kill()
	// Neither a snapshot nor the memory of the process is left; rows and progress are.
	w.dir = t.TempDir()
	more := produceRaw(t, k, rand.New(rand.NewPCG(2, 12)), 60, 40)
	p = w.start(t, nil)
	eventually(t, "the rows behind", func() bool { return w.rows() == 99 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for user, n := range more {
		users[user] += n
	}
	for user := range users {
		total += w.tables.incidents[user].RequestIDsTotal
	}
	if total != 99 || len(w.tables.conflicts) > 0 {
		t.Errorf("users count %d records, want 99; conflicts %v", total, w.tables.conflicts)
	}
}

// TestRouterFails: what the router's own code fails on goes to quarantine, a record alone where the decoder is well.
func TestRouterFails(t *testing.T) {
	w := newWorld(t, 1, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	broken := `{"records":[` + signIn(3, "user3@example.com") + `,"broken message"]}`
	produceRawOne(t, k, `{"records":[`+signIn(0, "user0@example.com")+`,`+signIn(1, "poison@example.com")+`,`+signIn(2, "user2@example.com")+`]}`, broken, signIn(4, "user4@example.com"), signIn(5, "poison@example.com"))
	for round := range 3 {
		p := w.start(t, func(p *process) {
			p.pipeline.router.probe = func(message []byte, record *schemas.SignIn) {
				if record != nil && record.UserPrincipalName == "poison@example.com" || record == nil && strings.Contains(string(message), "broken message") {
					panic("probed")
				}
			}
		})
		eventually(t, "the siblings' rows", func() bool { return w.rows() == 4 })
		eventually(t, "quarantine", func() bool {
			w.tables.mu.Lock()
			defer w.tables.mu.Unlock()
			return len(w.tables.quarantined) == 4
		})
		p.kill()
		if round == 0 {
			// Everything once more: the same rows, the same quarantine.
			w.config.Group = fmt.Sprint("again", round)
		}
	}
	want := map[sinks.Source]string{
		{Topic: "raw", Incarnation: 1, Offset: 0, Index: 1}: sinks.ReasonPanic, {Topic: "raw", Incarnation: 1, Offset: 1, Index: 1}: schemas.ReasonNotAnObject,
		{Topic: "raw", Incarnation: 1, Offset: 1, Index: 2}: sinks.ReasonPanic, {Topic: "raw", Incarnation: 1, Offset: 3}: sinks.ReasonPanic,
	}
	for source, q := range w.tables.quarantined {
		if q.Reason != want[source] || q.Stage != sinks.StageDecode {
			t.Errorf("%+v: %s, want %q", source, q.Reason, want[source])
		}
	}
	if q := w.tables.quarantined[sinks.Source{Topic: "raw", Incarnation: 1, Offset: 0, Index: 1}]; string(q.Bytes) != signIn(1, "poison@example.com") {
		t.Errorf("the bytes are %s", q.Bytes)
	}
	if q := w.tables.quarantined[sinks.Source{Topic: "raw", Incarnation: 1, Offset: 1, Index: 2}]; string(q.Bytes) != broken {
		t.Errorf("the bytes are %s", q.Bytes)
	}
	for n, user := range map[int]string{0: "user0", 2: "user2", 3: "user3", 4: "user4"} {
		if d, ok := w.tables.diagnoses[requestID(n)]; !ok || d.User != user+"@example.com" {
			t.Errorf("record %d: %+v", n, d)
		}
	}
}

// largestPut notes how many records come to quarantine at a time.
type largestPut struct {
	*memoryRecords
	largest int
}

func (l *largestPut) Put(ctx context.Context, records []sinks.QuarantinedRecord) error {
	l.largest = max(l.largest, len(records))
	return l.memoryRecords.Put(ctx, records)
}

// TestFloodInOneMessage: a message of hundreds of thousands of broken values comes to quarantine in bounded pieces, its good record
// is diagnosed.
func TestFloodInOneMessage(t *testing.T) {
	w := newWorld(t, 1, 1)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	const values = 300_000
	produceRawOne(t, k, "["+strings.Repeat("1,", values)+signIn(0, "user0@example.com")+"]", signIn(1, "user1@example.com"))
	records := &largestPut{}
	p := w.start(t, func(p *process) {
		records.memoryRecords = p.records
		p.pipeline.router.deps.Quarantine = records
	})
	eventually(t, "the rows", func() bool { return w.rows() == 2 })
	eventually(t, "quarantine", func() bool {
		w.tables.mu.Lock()
		defer w.tables.mu.Unlock()
		return len(w.tables.quarantined) == values
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if records.largest > maxBroken {
		t.Errorf("%d records at once, want at most %d", records.largest, maxBroken)
	}
}

// TestUnpackingStops: batches that unpack to much are unpacked a few at a time, and nothing between them is lost.
func TestUnpackingStops(t *testing.T) {
	w, err := newBatchWriter(CodecZstd)
	if err != nil {
		t.Fatal(err)
	}
	var set []byte
	value := make([]byte, maxArena/2)
	for i := range 5 {
		w.reset()
		value[0] = byte(i)
		w.add(value)
		b, err := w.finish(1)
		if err != nil {
			t.Fatal(err)
		}
		b = slices.Clone(b)
		b[7] = byte(i) // base offset; it is no part of the checksum
		set = append(set, b...)
	}
	var r batchReader
	next := int64(0)
	calls := 0
	for next < 5 {
		records, gaps, after, err := r.decode(set, next, nil, nil, nil)
		if err != nil || len(gaps) > 0 || len(records) == 0 || len(records) > 2 {
			t.Fatal(len(records), gaps, err)
		}
		for i, rec := range records {
			if rec.Offset != next+int64(i) || rec.Value[0] != byte(rec.Offset) || len(rec.Value) != len(value) {
				t.Errorf("record %d has offset %d", i, rec.Offset)
			}
		}
		next = after
		calls++
	}
	if calls != 3 {
		t.Errorf("%d calls, want 3", calls)
	}
}
