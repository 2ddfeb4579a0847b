package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

// The delivery protocol in one thread, with random schedules that a seed repeats: raw logs, routers, entities logs, shards,
// sinks, tables, progress, snapshots and epochs. Kafka, ClickHouse, the object store and time are models that do what the real ones
// may do: apply a request and lose its answer, apply it long after its sender has died, or not at all. The shards are the
// project's own code (shard.prepare, apply, store with planRecovery, thin and the claim of epochs), as is the balancer
// that shares them; routers are modelled, see router.go for the rules that they follow.
//
// What must hold:
//   - every row that is inserted is what a single thread makes of the log up to that offset, each input counted once;
//   - an epoch of a shard belongs to one fingerprint;
//   - the stored position covers no row that is not in the tables, at any moment;
//   - at the end every key has the row of its last input, and those behind the beginning of the last epoch are of the last settings.

// protocolRules are what mutants break; the zero value is the protocol.
type protocolRules struct {
	noFence          bool // shards count everything
	noOrder          bool // a second produce request goes out while one is under way
	suffixFirst      bool // a request that failed is cut in two, and its end is sent first
	commitEarly      bool // a raw offset is committed when its record is handed over, not when it is acknowledged
	fenceNotStored   bool // snapshots hold counts and no fence
	stateNewer       bool // a snapshot's state is taken when it is written, later than its offset
	stateOlder       bool // a snapshot's offset is that of its writing, later than its state
	progressFirst    bool // the position is stored before the rows
	emitFromCommit   bool // emission goes on from the Kafka commit
	newestSnapshot   bool // recovery takes the newest snapshot, also above the stored position
	noEpoch          bool // revisions are offsets alone
	thinNeeded       bool // thinning deletes the newest snapshot at or below the stored position
	noClaim          bool // an epoch is taken without looking whether another process has taken it
	memoryOfAnyEpoch bool // a shard goes on from memory though another process has begun a later epoch
}

type simRecord struct{ source, offset int }

// simUsers is how many users there are; a record has one.
const simUsers = 5

func (r simRecord) user() int { return int(mix(r)>>8) % simUsers }

func mix(r simRecord) uint64 {
	h := uint64(r.source+1)*0x9e3779b97f4a7c15 + uint64(r.offset+1)*0xbf58476d1ce4e5b9
	return h ^ h>>29
}

type simRequest struct {
	target int
	batch  []simRecord
}

type simRouter struct {
	sources []int         // sources that it believes to own
	read    map[int]int   // next offset to read
	queue   [][]simRecord // by target: not yet sent
	flight  [][]simRequest
	unacked map[simRecord]int
}

// simEntry is a message of an entities log, with what a single thread has after it.
type simEntry struct {
	record simRecord
	value  []byte
	repeat bool
	after  simCount
	since  int // offset of the user's message before, -1 for none
}

// simCount is the state of a user: how many records, and a hash of them in their order.
type simCount struct{ n, chain uint64 }

func (c simCount) add(r simRecord) simCount {
	return simCount{c.n + 1, (c.chain ^ mix(r)) * 0x100000001b3}
}

type simShardLog struct {
	entries []simEntry
	first   int64
	users   [simUsers]simCount
	last    [simUsers]int
	seen    map[simRecord]bool
}

// simRow is a stored row; its key is a user, or a record where user is -1.
type simRowKey struct {
	shard, user int
	record      simRecord
}

type simRow struct {
	revision    uint64
	count       simCount
	fingerprint uint64
}

type simTables struct {
	rows     map[simRowKey]simRow
	progress map[uint16]sinks.Position
	tokens   map[string]bool
}

func (t *simTables) clone() *simTables {
	return &simTables{maps.Clone(t.rows), maps.Clone(t.progress), maps.Clone(t.tokens)}
}

type simWorld struct {
	rng   *rand.Rand
	rules protocolRules

	length    []int // records by source
	logs      []*simShardLog
	committed []int // raw offsets
	hints     []int64
	routers   []*simRouter
	delayed   []simRequest

	tables      *simTables
	inserts     []func() // that a dead or impatient process has sent
	backup      *simTables
	snapshots   map[uint16]map[string]*Snapshot
	clock       time.Time
	fingerprint uint64
	instances   []*simInstance
	ever        []*simInstance // the dead included
	started     int
	generation  int
	epochs      map[[2]int]uint64
	begun       map[[2]int]int64 // first offset of an epoch's rows, by shard and epoch
	problems    []string
	calm        bool
}

func (w *simWorld) problem(format string, args ...any) {
	if len(w.problems) < 5 {
		w.problems = append(w.problems, fmt.Sprintf(format, args...))
	}
}

// chance is true once in n times, and never in the calm at the end.
func (w *simWorld) chance(n int) bool { return !w.calm && w.rng.IntN(n) == 0 }

// deal says where a record goes: one or two targets, always the same.
func (w *simWorld) deal(r simRecord) []int {
	h, n := mix(r), uint64(len(w.logs))
	a, b := int(h%n), int((h>>20)%n)
	if a == b || h>>40&1 == 0 {
		return []int{a}
	}
	return []int{a, b}
}

// appendBatch is what a broker does with a produce request.
func (w *simWorld) appendBatch(req simRequest) {
	l := w.logs[req.target]
	for _, r := range req.batch {
		msg := schemas.EntityMessage{
			Source: &schemas.Source{Topic: 1, Partition: uint32(r.source), Offset: int64(r.offset)}, Roles: 1,
			SignIn: &schemas.SignIn{RequestId: fmt.Sprintf("%d/%d", r.source, r.offset)},
		}
		value, err := msg.MarshalVT()
		if err != nil {
			panic(err)
		}
		e := simEntry{record: r, value: value, repeat: l.seen[r], since: l.last[r.user()]}
		if !e.repeat {
			l.seen[r] = true
			l.users[r.user()] = l.users[r.user()].add(r)
			l.last[r.user()] = len(l.entries)
		}
		e.after = l.users[r.user()]
		l.entries = append(l.entries, e)
	}
}

func (w *simWorld) startRouter(sources []int) {
	r := &simRouter{sources: sources, read: map[int]int{}, queue: make([][]simRecord, len(w.logs)), flight: make([][]simRequest, len(w.logs)), unacked: map[simRecord]int{}}
	for _, s := range sources {
		r.read[s] = w.committed[s]
	}
	w.routers = append(w.routers, r)
}

func (w *simWorld) killRouter(i int) {
	for _, flight := range w.routers[i].flight {
		for _, req := range flight {
			if w.rng.IntN(2) == 0 {
				w.delayed = append(w.delayed, req)
			}
		}
	}
	w.routers = slices.Delete(w.routers, i, i+1)
}

// stepRouter lets one router do one thing.
func (w *simWorld) stepRouter(r *simRouter) {
	switch w.rng.IntN(4) {
	case 0: // read some records of one source
		s := r.sources[w.rng.IntN(len(r.sources))]
		for range 1 + w.rng.IntN(4) {
			if r.read[s] == w.length[s] {
				return
			}
			rec := simRecord{s, r.read[s]}
			r.read[s]++
			for _, t := range w.deal(rec) {
				r.queue[t] = append(r.queue[t], rec)
				r.unacked[rec]++
			}
		}
	case 1: // send
		t := w.rng.IntN(len(w.logs))
		allowed := 1
		if w.rules.noOrder {
			allowed = 2
		}
		if len(r.queue[t]) > 0 && len(r.flight[t]) < allowed {
			n := 1 + w.rng.IntN(len(r.queue[t]))
			r.flight[t] = append(r.flight[t], simRequest{t, slices.Clone(r.queue[t][:n])})
			r.queue[t] = slices.Clone(r.queue[t][n:])
		}
	case 2: // a request meets its fate
		t := w.rng.IntN(len(w.logs))
		if len(r.flight[t]) == 0 {
			return
		}
		i := w.rng.IntN(len(r.flight[t]))
		req := r.flight[t][i]
		fate := w.rng.IntN(8)
		if w.calm {
			fate = 0
		}
		switch fate {
		case 1: // applied, the answer is lost: it will be sent again
			w.appendBatch(req)
		case 2: // not applied
			if n := len(req.batch); w.rules.suffixFirst && n > 1 {
				r.flight[t][i] = simRequest{t, append(slices.Clone(req.batch[n/2:]), req.batch[:n/2]...)}
			}
		case 3: // given up on, applied some time later, and sent again
			w.delayed = append(w.delayed, req)
		default:
			w.appendBatch(req)
			for _, rec := range req.batch {
				if r.unacked[rec]--; r.unacked[rec] == 0 {
					delete(r.unacked, rec)
				}
			}
			r.flight[t] = slices.Delete(r.flight[t], i, i+1)
		}
	case 3: // commit, also over a higher commit of another router; one that lost its generation is refused at times
		s := r.sources[w.rng.IntN(len(r.sources))]
		below := r.read[s]
		if !w.rules.commitEarly {
			for rec := range r.unacked {
				if rec.source == s {
					below = min(below, rec.offset)
				}
			}
		}
		if !w.chance(3) {
			w.committed[s] = below
		}
	}
}

// simMachine counts the records of each user in their order.
type simMachine struct {
	world       *simWorld
	shard       int
	epoch       uint16
	fingerprint uint64
	fence       map[int]int64
	users       [simUsers]simCount
}

func (m *simMachine) SetEpoch(e uint16)   { m.epoch = e }
func (m *simMachine) Fingerprint() uint64 { return m.fingerprint }

func (m *simMachine) Apply(msg *schemas.EntityMessage, offset int64, out *detectors.Rows) {
	source := int(msg.Source.Partition)
	if last, ok := m.fence[source]; ok && msg.Source.Offset <= last && !m.world.rules.noFence {
		return
	}
	m.fence[source] = msg.Source.Offset
	r := simRecord{source, int(msg.Source.Offset)}
	u := r.user()
	m.users[u] = m.users[u].add(r)
	epoch := m.epoch
	if m.world.rules.noEpoch {
		epoch = 0
	}
	revision := detectors.Revision(epoch, offset)
	out.Diagnoses = append(out.Diagnoses, detectors.Diagnosis{RequestID: strings.Clone(msg.SignIn.RequestId), EventTime: int64(m.users[u].chain), Revision: revision})
	out.Incidents = append(out.Incidents, detectors.Incident{
		IncidentID: fmt.Sprint(u), RequestIDsTotal: int64(m.users[u].n), FirstSeen: int64(m.users[u].chain), LastSeen: int64(m.fingerprint), Revision: revision,
	})
}

func (m *simMachine) AppendSnapshot(dst []byte) []byte {
	for _, c := range m.users {
		dst = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(dst, c.n), c.chain)
	}
	if m.world.rules.fenceNotStored {
		return dst
	}
	for _, source := range slices.Sorted(maps.Keys(m.fence)) {
		dst = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(dst, uint64(source)), uint64(m.fence[source]))
	}
	return dst
}

func (m *simMachine) RestoreSnapshot(src []byte) error {
	next := func() uint64 {
		v := binary.LittleEndian.Uint64(src)
		src = src[8:]
		return v
	}
	m.fence = map[int]int64{}
	for i := range m.users {
		m.users[i] = simCount{next(), next()}
	}
	for len(src) > 0 {
		source := int(next())
		m.fence[source] = int64(next())
	}
	return nil
}

// simInstance is one process with shards.
type simInstance struct {
	world       *simWorld
	name        string
	fingerprint uint64
	shards      *shards
	balancer    *stickyBalancer
	ids         []int
	ctx         context.Context
	cancel      context.CancelFunc
	dead        bool
	busy        bool // in the middle of a step

	// The sink: an open block, and one that is being inserted.
	open, sealed *simBlock
	blocks       int
	pending      []func() // snapshots that are being written
	claimed      uint16   // epoch of the last snapshot that was written
	looks        int      // at the store since, for the mutant that does not see others' claims
}

type simBlock struct {
	token     string
	rows      map[simRowKey]simRow
	positions map[uint16]sinks.Position
	rowsDone  bool // or, for the mutant, the positions
}

var simMetrics = func() *metrics {
	m, err := newMetrics(nil)
	if err != nil {
		panic(err)
	}
	return m
}()

// quiet shows the shards' log where SIGNINDIAG_TEST_LOG is set, for one schedule.
var quiet = func() *slog.Logger {
	if os.Getenv("SIGNINDIAG_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}()

func (w *simWorld) startInstance() *simInstance {
	w.started++
	i := &simInstance{world: w, name: fmt.Sprintf("i%03d", w.started), fingerprint: w.fingerprint, balancer: &stickyBalancer{}}
	i.start()
	w.instances, w.ever = append(w.instances, i), append(w.ever, i)
	return i
}

// start makes the shards of a process that has no memory.
func (i *simInstance) start() {
	w := i.world
	c := Config{EntitiesTopic: "e", EntitiesIncarnation: 1, Partitions: len(w.logs), ReplayOnChange: time.Duration(w.rng.IntN(4)) * time.Hour}.withDefaults()
	i.shards = newShards(c, Dependencies{
		NewMachine: func(shard, _ uint32) (Machine, error) {
			return &simMachine{world: w, shard: int(shard), fingerprint: i.fingerprint, fence: map[int]int64{}}, nil
		},
		Progress: func(context.Context) (map[uint16]sinks.Position, error) {
			p := maps.Clone(w.tables.progress)
			if w.rules.emitFromCommit {
				for id, pos := range p {
					pos.Offset = min(w.hints[id]-1, int64(len(w.logs[id].entries))-1)
					pos.Hash = 0
					if pos.Offset >= 0 {
						pos.Hash = hashRecord(w.logs[id].entries[pos.Offset].value)
					}
					p[id] = pos
				}
			}
			return p, nil
		},
	}, quiet, simMetrics, newHealth(simMetrics.retries))
	i.shards.kafka, i.shards.store, i.shards.sink = (*simKafka)(i), (*simStore)(i), i
	i.shards.now = func() time.Time { return w.clock }
	if w.rules.newestSnapshot {
		i.shards.plan = func(progress *sinks.Position, names []SnapshotName, incarnation uint32, fingerprint uint64, replay, first int64, floor uint16) (recovery, error) {
			r, err := planRecovery(progress, names, incarnation, fingerprint, replay, first, floor)
			if r.reason == "continue" {
				r.candidates = slices.DeleteFunc(slices.Clone(names), func(n SnapshotName) bool { return n.Epoch != r.epoch })
				slices.Reverse(r.candidates)
			}
			return r, err
		}
	}
	i.open, i.sealed = nil, nil
	i.join(nil)
}

// join begins a generation with the shards given, as shards.serve does.
func (i *simInstance) join(ids []int) {
	w := i.world
	if i.cancel != nil {
		i.cancel()
	}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	m := i.shards
	for id := range m.held {
		if !slices.Contains(ids, id) {
			delete(m.held, id)
		}
	}
	i.ids = ids
	for _, id := range ids {
		if m.held[id] == nil {
			m.held[id] = &shard{id: id, shards: m, log: quiet.With("process", i.name, "shard", id)}
		}
	}
	i.balancer.decide(i.fingerprint)
	i.balancer.hold(w.generation, map[string][]int{"e": ids})
	if !w.chance(4) { // else they begin one by one, later
		i.prepare(ids)
	}
}

func (i *simInstance) prepare(ids []int) {
	w := i.world
	for _, id := range ids {
		s := i.shards.held[id]
		if w.rules.memoryOfAnyEpoch && s.recovered {
			continue
		}
		kept, epoch := s.recovered, s.position.Epoch
		progress, stored := w.tables.progress[uint16(id)]
		if err := s.prepare(i.ctx); err != nil {
			if i.ctx.Err() == nil {
				w.problem("%s recovers shard %d: %v", i.name, id, err)
			}
			continue
		}
		if (!kept || s.position.Epoch != epoch) && (!stored || progress.Epoch < s.position.Epoch) {
			key := [2]int{id, int(s.position.Epoch)}
			w.begun[key] = max(w.begun[key], s.emitFrom)
		}
	}
}

// stop ends the process; what it has sent may still arrive.
func (i *simInstance) stop() {
	w := i.world
	i.dead = true
	i.cancel()
	if i.sealed != nil && w.rng.IntN(2) == 0 {
		i.attempt(true)
	}
	for _, write := range i.pending {
		if w.rng.IntN(2) == 0 {
			w.inserts = append(w.inserts, write)
		}
	}
	w.instances = slices.DeleteFunc(w.instances, func(o *simInstance) bool { return o == i })
}

// simKafka is the entities topic as a shard asks for it.
type simKafka simInstance

func (k *simKafka) ListOffsets(_ context.Context, _ string, partition int) (first, end int64, err error) {
	l := k.world.logs[partition]
	return l.first, int64(len(l.entries)), nil
}

func (k *simKafka) verifyRecord(_ context.Context, topic string, partition int, offset int64, hash uint64, _ *slog.Logger, _ *Trouble) (bool, error) {
	l := k.world.logs[partition]
	if offset >= int64(len(l.entries)) {
		return false, errors.New("log end")
	}
	if offset < l.first || offset < 0 {
		return false, nil
	}
	if hashRecord(l.entries[offset].value) != hash {
		return false, fmt.Errorf("%s/%d: another hash at %d", topic, partition, offset)
	}
	return true, nil
}

// simStore is the object store.
type simStore simInstance

func (s *simStore) List(_ context.Context, _ string, shard uint16) ([]SnapshotName, error) {
	names := s.world.names(shard)
	if s.world.rules.noClaim && s.looks < 2 {
		s.looks++
		names = slices.DeleteFunc(names, func(n SnapshotName) bool {
			return n.Epoch >= s.claimed && !strings.Contains(n.Key, fmt.Sprintf("-%016x-", s.fingerprint))
		})
	}
	return names, nil
}

func (w *simWorld) names(shard uint16) []SnapshotName {
	var names []SnapshotName
	for _, key := range slices.Sorted(maps.Keys(w.snapshots[shard])) {
		n, ok := parseSnapshotKey(key)
		if !ok {
			panic(key)
		}
		names = append(names, n)
	}
	return names
}

func (s *simStore) Read(_ context.Context, n SnapshotName) (*Snapshot, error) {
	for _, of := range s.world.snapshots {
		if snap, ok := of[n.Key]; ok {
			return snap, nil
		}
	}
	return nil, errors.New("no such object")
}

// Write may fail before or after the object is there. The first snapshot of an epoch is written while the shard waits: for it a
// failure is the death of the generation, since another try would follow otherwise.
func (s *simStore) Write(_ context.Context, snap *Snapshot) (int, error) {
	w := s.world
	kept := *snap
	kept.State = slices.Clone(snap.State)
	put := func() {
		if w.snapshots[snap.Shard] == nil {
			w.snapshots[snap.Shard] = map[string]*Snapshot{}
		}
		w.snapshots[snap.Shard][kept.key()] = &kept
	}
	if !s.dead && w.chance(6) {
		s.busy = true
		w.meanwhile()
		s.busy = false
	}
	switch {
	case w.chance(12):
		s.cancel()
		return 0, errors.New("not stored")
	case w.chance(12):
		w.inserts = append(w.inserts, put)
		s.cancel()
		return 0, errors.New("no answer")
	}
	put()
	s.claimed, s.looks = snap.Epoch, 0
	return 1, nil
}

func (s *simStore) Thin(_ context.Context, _ string, shard uint16, incarnation uint32, epoch uint16, offset int64) (newest SnapshotName, ok bool, err error) {
	w := s.world
	names := w.names(shard)
	keep := thin(names, incarnation, epoch, offset)
	if w.rules.thinNeeded {
		last := -1
		for i, n := range names {
			if n.Offset <= offset && (last < 0 || n.Offset >= names[last].Offset) {
				last = i
			}
		}
		if last >= 0 {
			keep[last] = false
		}
	}
	for i, n := range names {
		if !keep[i] {
			if w.chance(10) {
				return newest, false, errors.New("not deleted")
			}
			delete(w.snapshots[shard], n.Key)
		}
	}
	return newest, false, nil
}

// meanwhile lets another process do something between two steps of one.
func (w *simWorld) meanwhile() {
	others := slices.DeleteFunc(slices.Clone(w.instances), func(o *simInstance) bool { return o.busy })
	if len(others) == 0 {
		return
	}
	other := others[w.rng.IntN(len(others))]
	if w.rng.IntN(2) == 0 {
		other.prepare(other.ids)
	}
	w.stepInstance(other)
}

// Write implements RowSink: a full block while another is inserted is what a shard waits for until its generation ends.
func (i *simInstance) Write(_ context.Context, rows *detectors.Rows, pos sinks.Position) error {
	w := i.world
	if i.open == nil {
		i.blocks++
		i.open = &simBlock{token: fmt.Sprintf("%s/%d", i.name, i.blocks), rows: map[simRowKey]simRow{}, positions: map[uint16]sinks.Position{}}
	}
	if len(i.open.rows) > 30 {
		if w.chance(4) {
			i.cancel()
			return context.Canceled
		}
		for i.sealed != nil {
			i.insert()
		}
		i.sealed, i.open = i.open, nil
		return i.Write(i.ctx, rows, pos)
	}
	put := func(key simRowKey, row simRow) {
		if old, ok := i.open.rows[key]; !ok || old.revision <= row.revision {
			i.open.rows[key] = row
		}
	}
	if rows != nil {
		for k := range rows.Diagnoses {
			d := &rows.Diagnoses[k]
			var r simRecord
			if _, err := fmt.Sscanf(d.RequestID, "%d/%d", &r.source, &r.offset); err != nil {
				panic(err)
			}
			put(simRowKey{int(pos.Shard), -1, r}, simRow{d.Revision, simCount{0, uint64(d.EventTime)}, pos.Fingerprint})
		}
		for k := range rows.Incidents {
			n := &rows.Incidents[k]
			put(simRowKey{int(pos.Shard), int(n.IncidentID[0] - '0'), simRecord{}}, simRow{n.Revision, simCount{uint64(n.RequestIDsTotal), uint64(n.FirstSeen)}, uint64(n.LastSeen)})
		}
		w.checkRows(pos, rows)
	}
	if old, ok := i.open.positions[pos.Shard]; !ok || detectors.Revision(old.Epoch, old.Offset) <= detectors.Revision(pos.Epoch, pos.Offset) {
		i.open.positions[pos.Shard] = pos
	}
	return nil
}

// Flush, Run and Ready complete RowSink.
func (i *simInstance) Flush(context.Context) error { return nil }
func (i *simInstance) Run(context.Context) error   { return nil }
func (i *simInstance) Ready() error                { return nil }

// checkRows compares rows with those of a single thread at the same offset.
func (w *simWorld) checkRows(pos sinks.Position, rows *detectors.Rows) {
	key := [2]int{int(pos.Shard), int(pos.Epoch)}
	if f, ok := w.epochs[key]; ok && f != pos.Fingerprint {
		w.problem("epoch %d of shard %d belongs to the fingerprints %d and %d", pos.Epoch, pos.Shard, f, pos.Fingerprint)
	}
	w.epochs[key] = pos.Fingerprint
	e := w.logs[pos.Shard].entries[pos.Offset]
	for _, n := range rows.Incidents {
		if e.repeat {
			w.problem("shard %d offset %d: %v is counted again", pos.Shard, pos.Offset, e.record)
		} else if got := (simCount{uint64(n.RequestIDsTotal), uint64(n.FirstSeen)}); got != e.after {
			w.problem("shard %d offset %d epoch %d: user %s has %d records, a single thread has %d", pos.Shard, pos.Offset, pos.Epoch, n.IncidentID, got.n, e.after.n)
		}
	}
}

// apply applies some messages of one shard.
func (i *simInstance) apply() {
	w := i.world
	if len(i.ids) == 0 {
		return
	}
	s := i.shards.held[i.ids[w.rng.IntN(len(i.ids))]]
	if i.ctx.Err() != nil {
		// The generation is over; a process that is not told of a next one joins again.
		i.join(i.ids)
	}
	if !s.recovered || s.superseded.Load() && !w.rules.memoryOfAnyEpoch {
		i.prepare([]int{s.id})
		return
	}
	l := w.logs[s.id]
	n := min(int64(1+w.rng.IntN(6)), int64(len(l.entries))-s.next)
	if n <= 0 {
		return
	}
	if s.next < l.first {
		w.problem("%s meets a hole in shard %d at %d", i.name, s.id, s.next)
		s.next = l.first
		return
	}
	b := &Batch{Next: s.next + n}
	for o := s.next; o < b.Next; o++ {
		b.Records = append(b.Records, Record{Offset: o, Value: l.entries[o].value})
	}
	if err := s.apply(i.ctx, b); err != nil && i.ctx.Err() == nil {
		w.problem("apply: %v", err)
	}
}

// seal closes the open block for its INSERT.
func (i *simInstance) seal() {
	if i.sealed == nil && i.open != nil {
		i.sealed, i.open = i.open, nil
	}
}

// insert is one attempt of the first of what is missing of the block: its rows, then its positions.
func (i *simInstance) insert() {
	if i.sealed != nil {
		i.attempt(false)
	}
}

// attempt sends the next part of the block; late means that the process will not see the end.
func (i *simInstance) attempt(late bool) {
	w, b := i.world, i.sealed
	rows := b.rowsDone == w.rules.progressFirst
	token := b.token + fmt.Sprint(rows)
	apply := func() {
		if w.tables.tokens[token] {
			return
		}
		// The window of tokens is finite.
		if w.rng.IntN(4) > 0 {
			w.tables.tokens[token] = true
		}
		if rows {
			w.insertRows(b.rows)
		} else {
			w.insertPositions(b.positions)
		}
	}
	switch {
	case late:
		w.inserts = append(w.inserts, apply)
		return
	case w.chance(8): // no answer, and applied some time
		w.inserts = append(w.inserts, apply)
		return
	case w.chance(8): // applied, no answer
		apply()
		return
	case w.chance(8): // not applied
		return
	}
	apply()
	if !b.rowsDone {
		b.rowsDone = true
		return
	}
	var moved []sinks.Position
	for _, id := range slices.Sorted(maps.Keys(b.positions)) {
		moved = append(moved, b.positions[id])
	}
	i.shards.onDurable(moved)
	i.sealed = nil
}

func (w *simWorld) insertRows(rows map[simRowKey]simRow) {
	for key, row := range rows {
		if old, ok := w.tables.rows[key]; !ok || old.revision <= row.revision {
			w.tables.rows[key] = row
		}
	}
}

func (w *simWorld) insertPositions(positions map[uint16]sinks.Position) {
	for _, id := range slices.Sorted(maps.Keys(positions)) {
		p := positions[id]
		old, ok := w.tables.progress[id]
		if !ok || detectors.Revision(old.Epoch, old.Offset) <= detectors.Revision(p.Epoch, p.Offset) {
			w.tables.progress[id] = p
			w.checkCovered(p)
		}
	}
}

// base is the last offset before the rows of an epoch.
func (w *simWorld) base(shard uint16, epoch uint16) int64 {
	if b, ok := w.begun[[2]int{int(shard), int(epoch)}]; ok {
		return b - 1
	}
	return -1
}

// checkCovered: everything up to a stored position is in the tables.
func (w *simWorld) checkCovered(p sinks.Position) {
	base := w.base(p.Shard, p.Epoch)
	for key, last := range w.lastUpTo(int(p.Shard), p.Offset) {
		row, ok := w.tables.rows[key]
		epoch, offset := uint16(row.revision>>48), int64(row.revision&(1<<48-1))
		if w.rules.noEpoch {
			epoch = p.Epoch
		}
		if !ok || epoch <= p.Epoch && offset < last || last > base && epoch < p.Epoch {
			w.problem("shard %d: the position %d of epoch %d covers %+v at offset %d, the tables have offset %d of epoch %d", p.Shard, p.Offset, p.Epoch, key, last, offset, epoch)
		}
	}
}

// lastUpTo returns the last offset of every key of a shard up to the one given.
func (w *simWorld) lastUpTo(id int, to int64) map[simRowKey]int64 {
	last := map[simRowKey]int64{}
	for o, e := range w.logs[id].entries {
		if int64(o) > to {
			break
		}
		if !e.repeat {
			last[simRowKey{id, -1, e.record}] = int64(o)
			last[simRowKey{id, e.record.user(), simRecord{}}] = int64(o)
		}
	}
	return last
}

// snapshot begins to write a snapshot; it is written some steps later, behind others perhaps, or never.
func (i *simInstance) snapshot() {
	w := i.world
	if len(i.ids) == 0 {
		return
	}
	s := i.shards.held[i.ids[w.rng.IntN(len(i.ids))]]
	if !s.recovered || s.position.Offset <= s.stored {
		return
	}
	snap := s.snapshotOf()
	snap.State = slices.Clone(snap.State)
	s.stored = snap.Offset
	i.pending = append(i.pending, func() {
		switch {
		case w.rules.stateNewer && s.recovered:
			snap.State = s.machine.AppendSnapshot(nil)
		case w.rules.stateOlder && s.recovered:
			snap.Offset, snap.Hash = s.position.Offset, s.position.Hash
		}
		ctx, cancel := i.ctx, i.cancel
		i.ctx, i.cancel = context.WithCancel(context.Background()) // a failure is not that of the generation
		if err := s.store(i.ctx, snap); err != nil && w.calm {
			w.problem("store: %v", err)
		}
		i.cancel()
		i.ctx, i.cancel = ctx, cancel
	})
}

// stepInstance lets one process do one thing.
func (w *simWorld) stepInstance(i *simInstance) {
	switch w.rng.IntN(10) {
	case 0, 1, 2, 3:
		i.apply()
	case 4:
		i.seal()
	case 5, 6:
		i.insert()
	case 7:
		i.snapshot()
	case 8:
		if len(i.pending) > 0 {
			k := w.rng.IntN(len(i.pending))
			write := i.pending[k]
			i.pending = slices.Delete(i.pending, k, k+1)
			write()
		}
	case 9: // the commit is a hint; a member that lost its generation is refused at times
		for _, id := range i.ids {
			if p, ok := i.shards.durableAt(id); ok && w.rng.IntN(2) == 0 {
				w.hints[id] = p.Offset + 1
			}
		}
	}
}

// rebalance shares the shards among all or most processes; one that is left out goes on with what it had, as a zombie.
func (w *simWorld) rebalance() {
	members := slices.Clone(w.instances)
	if len(members) > 1 && w.chance(3) {
		k := w.rng.IntN(len(members))
		members = slices.Delete(members, k, k+1)
	}
	var asked []kafka.GroupMember
	for _, i := range members {
		data, err := i.balancer.UserData()
		if err != nil {
			panic(err)
		}
		asked = append(asked, kafka.GroupMember{ID: i.name, Topics: []string{"e"}, UserData: data})
		if w.rng.IntN(2) == 0 { // a flush and a last snapshot, where there is time
			i.seal()
			i.insert()
			i.insert()
			i.snapshot()
		}
	}
	var partitions []kafka.Partition
	for id := range w.logs {
		partitions = append(partitions, kafka.Partition{Topic: "e", ID: id})
	}
	given := (&stickyBalancer{}).AssignGroups(asked, partitions)
	w.generation++
	for _, i := range members {
		i.join(given[i.name]["e"])
	}
}

// event is something that happens now and then.
func (w *simWorld) event(truncate bool) {
	all := make([]int, len(w.length))
	for s := range all {
		all[s] = s
	}
	switch w.rng.IntN(12) {
	case 0:
		if len(w.routers) > 1 {
			w.killRouter(w.rng.IntN(len(w.routers)))
		}
	case 1: // another router; the old ones may not know
		if len(w.routers) < 4 {
			w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			w.startRouter(all[:1+w.rng.IntN(len(all))])
		}
	case 2, 3: // a process joins
		if len(w.instances) < 4 {
			w.startInstance()
			w.rebalance()
		}
	case 4: // a process dies
		if len(w.instances) > 1 {
			w.instances[w.rng.IntN(len(w.instances))].stop()
			if w.rng.IntN(3) > 0 {
				w.rebalance()
			}
		}
	case 5, 6:
		w.rebalance()
	case 7: // other settings, for a process that is told of them; others follow when they start
		if w.fingerprint < 3 {
			w.fingerprint++
		}
		i := w.instances[w.rng.IntN(len(w.instances))]
		if i.fingerprint != w.fingerprint {
			i.fingerprint = w.fingerprint
			i.shards.held = map[int]*shard{}
			i.join(i.ids)
		}
	case 8: // the settings are put back for a process that starts
		if w.fingerprint > 1 && w.rng.IntN(4) == 0 {
			w.fingerprint = 1
		}
	case 9: // the log loses its beginning, nothing that a recovery or a process needs
		if truncate {
			w.truncate(w.rng.IntN(len(w.logs)))
		}
	case 10: // the tables are saved, or set back while nothing writes
		if truncate {
			return
		}
		if w.backup == nil || w.rng.IntN(3) > 0 {
			w.backup = w.tables.clone()
			return
		}
		for len(w.instances) > 0 {
			w.instances[0].stop()
		}
		w.inserts = nil
		w.tables = w.backup.clone()
		w.startInstance()
		w.rebalance()
	case 11:
		w.clock = w.clock.Add(time.Duration(w.rng.IntN(5)) * time.Hour)
		if w.rng.IntN(10) == 0 { // a clock that was wrong
			w.clock = w.clock.Add(-3 * time.Hour)
		}
	}
}

func (w *simWorld) truncate(id int) {
	p, ok := w.tables.progress[uint16(id)]
	if !ok {
		return
	}
	// The retention holds 72 h and the oldest snapshot that is needed: that of the stored position in its epoch, as every process knows it.
	names := w.names(uint16(id))
	needed := func(p sinks.Position) (offset int64) {
		offset = -1
		for _, n := range names {
			if n.Offset <= p.Offset && n.Epoch == p.Epoch && n.Fingerprint == p.Fingerprint {
				offset = max(offset, n.Offset+1)
			}
		}
		return offset
	}
	limit := needed(p)
	for _, i := range w.ever {
		if d, ok := i.shards.durableAt(id); ok && d.Epoch == p.Epoch {
			limit = min(limit, needed(d))
		}
	}
	for _, n := range w.names(uint16(id)) {
		if n.Epoch > p.Epoch { // an epoch has begun and has no position yet
			limit = min(limit, n.Offset+1)
		}
	}
	for _, i := range w.instances {
		if s := i.shards.held[id]; s != nil && s.recovered {
			limit = min(limit, s.next)
		}
	}
	if l := w.logs[id]; limit > l.first {
		l.first += 1 + w.rng.Int64N(limit-l.first)
		quiet.Info("the log loses its beginning", "shard", id, "first", l.first, "progress", p)
	}
}

// simulate runs one schedule and returns what was wrong.
func simulate(seed uint64, rules protocolRules) []string {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &simWorld{
		rng: rng, rules: rules, tables: &simTables{map[simRowKey]simRow{}, map[uint16]sinks.Position{}, map[string]bool{}}, fingerprint: 1,
		snapshots: map[uint16]map[string]*Snapshot{}, clock: time.UnixMilli(1_800_000_000_000), epochs: map[[2]int]uint64{}, begun: map[[2]int]int64{},
	}
	for range 1 + rng.IntN(3) {
		w.length = append(w.length, 5+rng.IntN(30))
	}
	for range 1 + rng.IntN(3) {
		l := &simShardLog{seen: map[simRecord]bool{}}
		for u := range l.last {
			l.last[u] = -1
		}
		w.logs = append(w.logs, l)
	}
	w.committed, w.hints = make([]int, len(w.length)), make([]int64, len(w.logs))
	all := make([]int, len(w.length))
	for s := range all {
		all[s] = s
	}
	w.startRouter(all)
	for range 1 + rng.IntN(3) {
		w.startInstance()
	}
	w.rebalance()
	truncate := rng.IntN(2) == 0
	for range 200 + rng.IntN(800) {
		w.clock = w.clock.Add(time.Duration(rng.IntN(120_000)) * time.Millisecond)
		switch e := rng.IntN(40); {
		case e == 0:
			w.event(truncate)
		case e < 3 && len(w.delayed) > 0: // the broker applies a request that nobody waits for any more
			k := rng.IntN(len(w.delayed))
			w.appendBatch(w.delayed[k])
			w.delayed = slices.Delete(w.delayed, k, k+1)
		case e < 5 && len(w.inserts) > 0: // so does the database, or the store
			k := rng.IntN(len(w.inserts))
			apply := w.inserts[k]
			w.inserts = slices.Delete(w.inserts, k, k+1)
			apply()
		case e < 15 && len(w.routers) > 0:
			w.stepRouter(w.routers[rng.IntN(len(w.routers))])
		case len(w.instances) > 0:
			w.stepInstance(w.instances[rng.IntN(len(w.instances))])
		}
		if len(w.problems) > 0 {
			return w.problems
		}
	}
	w.finish(all)
	return w.problems
}

// finish lets one router and one process do the rest in peace, after everything late has arrived, and compares.
func (w *simWorld) finish(all []int) {
	w.calm = true
	w.routers = nil
	w.startRouter(all)
	last := w.routers[0]
	for done := false; !done; {
		w.stepRouter(last)
		done = len(last.unacked) == 0
		for s, n := range w.length {
			done = done && last.read[s] == n
		}
	}
	for _, req := range w.delayed {
		w.appendBatch(req)
	}
	// One process does the rest: a new one, or one of the last settings that goes on.
	var i *simInstance
	if k := w.rng.IntN(1 + len(w.instances)); k < len(w.instances) && w.instances[k].fingerprint == w.fingerprint {
		i = w.instances[k]
	}
	for _, other := range slices.Clone(w.instances) {
		if other != i {
			other.stop()
		}
	}
	before := w.inserts
	w.rng.Shuffle(len(before), func(i, j int) { before[i], before[j] = before[j], before[i] })
	arrive := func(all []func()) {
		for _, apply := range all {
			apply()
		}
	}
	half := len(before) / 2
	arrive(before[:half])
	if i == nil {
		i = w.startInstance()
	}
	w.rebalance()
	for range 10_000 {
		done := true
		for id, l := range w.logs {
			s := i.shards.held[id]
			done = done && s != nil && s.recovered && s.next == int64(len(l.entries))
		}
		if done || len(w.problems) > 0 {
			break
		}
		i.apply()
	}
	arrive(before[half:]) // zombies that come last of all
	for n := 0; (i.open != nil || i.sealed != nil) && n < 100; n++ {
		i.seal()
		i.insert()
	}
	// What came last of all may have been of a later epoch than the process began with: it looks at each snapshot.
	for range 3 {
		for id := range w.logs {
			if s := i.shards.held[id]; s.recovered {
				if err := s.store(i.ctx, s.snapshotOf()); err != nil {
					w.problem("store: %v", err)
				}
			}
		}
		for range 2000 {
			i.apply()
		}
		for n := 0; (i.open != nil || i.sealed != nil) && n < 100; n++ {
			i.seal()
			i.insert()
		}
	}
	if len(w.problems) > 0 {
		return
	}
	for id, l := range w.logs {
		p, ok := w.tables.progress[uint16(id)]
		epoch, end := i.shards.held[id].position.Epoch, int64(len(l.entries))
		base := w.base(uint16(id), epoch)
		// An epoch that begins at the end of the log has no rows and stores no position.
		if end > 0 && (!ok || p.Offset != end-1 || base < end-1 && (p.Fingerprint != w.fingerprint || p.Epoch != epoch)) {
			w.problem("shard %d ends at %+v, want offset %d of fingerprint %d in epoch %d", id, p, end-1, w.fingerprint, epoch)
			continue
		}
		for key, offset := range w.lastUpTo(id, int64(len(l.entries))) {
			row, ok := w.tables.rows[key]
			switch {
			case !ok:
				w.problem("shard %d: %+v has no row", id, key)
			case int64(row.revision&(1<<48-1)) != offset:
				w.problem("shard %d: %+v has the row of offset %d of epoch %d, want %d", id, key, row.revision&(1<<48-1), row.revision>>48, offset)
			case key.user >= 0 && row.count != l.entries[offset].after:
				w.problem("shard %d: %+v has %d records, want %d", id, key, row.count.n, l.entries[offset].after.n)
			case offset > base && row.fingerprint != w.fingerprint:
				w.problem("shard %d: %+v is decided by %d, want %d", id, key, row.fingerprint, w.fingerprint)
			}
		}
	}
	for s, n := range w.length {
		for offset := range n {
			for _, t := range w.deal(simRecord{s, offset}) {
				if !w.logs[t].seen[simRecord{s, offset}] {
					w.problem("record %d/%d is not in shard %d", s, offset, t)
				}
			}
		}
	}
}

// schedules is how many the simulation runs; SIGNINDIAG_TEST_SCHEDULES asks for more.
func schedules(t testing.TB) uint64 {
	n := uint64(1000)
	if v := os.Getenv("SIGNINDIAG_TEST_SCHEDULES"); v != "" {
		if _, err := fmt.Sscan(v, &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestProtocol: SIGNINDIAG_TEST_SEED is the first seed; with SIGNINDIAG_TEST_SCHEDULES=1 it replays one schedule.
func TestProtocol(t *testing.T) {
	s := seed(t)
	n := schedules(t)
	for i := range n {
		if problems := simulate(s+i, protocolRules{}); len(problems) > 0 {
			t.Fatalf("SIGNINDIAG_TEST_SEED=%d SIGNINDIAG_TEST_SCHEDULES=1 shows:\n%s", s+i, strings.Join(problems, "\n"))
		}
	}
	t.Logf("%d schedules, 0 violations", n)
}

// TestProtocolMutants: each rule is needed, and the simulation sees when it is broken.
func TestProtocolMutants(t *testing.T) {
	s, n := seed(t), schedules(t)
	for _, mutant := range []struct {
		name  string
		rules protocolRules
	}{
		{"fence off", protocolRules{noFence: true}},
		{"two requests in flight", protocolRules{noOrder: true}},
		{"the end of a batch first", protocolRules{suffixFirst: true}},
		{"commit early", protocolRules{commitEarly: true}},
		{"fence not in the snapshot", protocolRules{fenceNotStored: true}},
		{"state newer than its offset", protocolRules{stateNewer: true}},
		{"state older than its offset", protocolRules{stateOlder: true}},
		{"position before rows", protocolRules{progressFirst: true}},
		{"emission goes on from the commit", protocolRules{emitFromCommit: true}},
		{"newest snapshot above the position", protocolRules{newestSnapshot: true}},
		{"no epoch in the revision", protocolRules{noEpoch: true}},
		{"thinning deletes what recovery needs", protocolRules{thinNeeded: true}},
		{"epochs without claim", protocolRules{noClaim: true}},
		{"memory of any epoch", protocolRules{memoryOfAnyEpoch: true}},
	} {
		t.Run(mutant.name, func(t *testing.T) {
			for i := range n {
				if problems := simulate(s+i, mutant.rules); len(problems) > 0 {
					t.Logf("schedule %d caught it: %s", s+i, problems[0])
					return
				}
			}
			t.Errorf("none of %d schedules caught it", n)
		})
	}
}
