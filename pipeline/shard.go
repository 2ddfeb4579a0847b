package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// recovery is how a shard begins.
type recovery struct {
	epoch uint16
	// candidates are the snapshots to try, in order; with none of them the shard begins at the log's first
	// offset without state.
	candidates []SnapshotName
	// carried: the state comes from an earlier incarnation of the topic, and the log is read from its first offset.
	carried bool
	// emitAfter is the last offset whose rows are stored already. It does not hold where fromState is set: rows
	// are then emitted for everything behind the state.
	emitAfter int64
	fromState bool
	// base: the state is stored as the epoch's first snapshot before any row is emitted, so that every later
	// recovery of the epoch replays from the same state.
	base   bool
	reason string
}

// planRecovery decides how a shard begins. progress is the stored position or nil; names are its snapshots, oldest
// first; floor is the highest epoch known from elsewhere; first is the first offset in the log; replay says how
// far back rows are made again after a change, in milliseconds.
//
// An epoch belongs to one fingerprint and one incarnation. Within an epoch emission continues behind the stored position,
// and the log between snapshot and position is replayed silently. A new epoch emits from its base on. Code that is put back after
// another epoch has begun begins a new one too: rows of the other may be stored without a position.
func planRecovery(progress *sinks.Position, names []SnapshotName, incarnation uint32, fingerprint uint64, replay, first int64, floor uint16) (recovery, error) {
	highest := floor
	if progress != nil {
		highest = max(highest, progress.Epoch)
	}
	for _, n := range names {
		highest = max(highest, n.Epoch)
	}
	var own []SnapshotName // of the highest epoch, where that is this code's alone
	if undisputed(names, incarnation, highest, fingerprint) {
		for _, n := range names {
			if n.Epoch == highest && n.Incarnation == incarnation {
				own = append(own, n)
			}
		}
	}
	next := func(reason string) (recovery, error) {
		if highest == math.MaxUint16 {
			return recovery{}, fmt.Errorf("all %d epochs are used up: begin with a new entities topic", math.MaxUint16)
		}
		return recovery{epoch: highest + 1, fromState: true, base: true, reason: reason}, nil
	}
	if progress == nil {
		r := recovery{epoch: highest, fromState: true, reason: "no position is stored"}
		if len(own) > 0 {
			return r, nil
		}
		return next(r.reason)
	}
	upTo := func(incarnation uint32) []SnapshotName {
		var found []SnapshotName
		for _, n := range names {
			if n.Incarnation == incarnation && n.Offset <= progress.Offset {
				found = append(found, n)
			}
		}
		slices.SortStableFunc(found, func(a, b SnapshotName) int {
			return cmp.Or(cmp.Compare(b.Offset, a.Offset), cmp.Compare(b.Taken, a.Taken))
		})
		return found
	}
	if progress.Incarnation == incarnation && progress.Fingerprint == fingerprint && highest == progress.Epoch {
		r := recovery{epoch: progress.Epoch, emitAfter: progress.Offset, reason: "continue"}
		all := upTo(incarnation)
		mine := func(n SnapshotName) bool { return n.Epoch == progress.Epoch && n.Fingerprint == fingerprint }
		for _, n := range all {
			if mine(n) {
				r.candidates = append(r.candidates, n)
			}
		}
		for _, n := range all {
			if !mine(n) {
				r.candidates = append(r.candidates, n)
			}
		}
		return r, nil
	}
	// Epochs that have begun and stored no position may have written rows, which win over those of the position's epoch: the next
	// epoch begins no later than any of them, so that its rows come in their place.
	latest := progress.Offset
	for _, n := range names {
		if n.Incarnation == incarnation && n.Epoch > progress.Epoch {
			latest = min(latest, n.Offset)
		}
	}
	if highest > progress.Epoch && len(own) > 0 && own[0].Offset <= latest && own[0].Offset+1 >= first {
		// This epoch began, but no row of it is stored: begin it once more.
		return recovery{epoch: highest, candidates: own[:1], fromState: true, reason: "begin the epoch again"}, nil
	}
	if progress.Incarnation < incarnation {
		r, err := next("the topic has a new incarnation")
		r.carried, r.candidates = true, upTo(progress.Incarnation)
		return r, err
	}
	r, err := next("code, settings or catalogue have changed")
	all := upTo(incarnation)
	early := func(n SnapshotName) bool { return n.Offset <= latest }
	continued := func(n SnapshotName) bool { return n.Offset+1 >= first }
	for _, n := range all {
		if early(n) && continued(n) && n.Taken <= all[0].Taken-replay {
			r.candidates = append(r.candidates, n)
		}
	}
	if len(r.candidates) > 0 || first <= 0 {
		return r, err
	}
	// The log has lost its beginning: the oldest state that it continues is better than none, and that better than one with a hole.
	for _, n := range slices.Backward(all) {
		if continued(n) {
			r.candidates = append(r.candidates, n)
			return r, err
		}
	}
	r.candidates = all
	return r, err
}

// undisputed reports whether no snapshot of the epoch is of another fingerprint.
func undisputed(names []SnapshotName, incarnation uint32, epoch uint16, fingerprint uint64) bool {
	return !slices.ContainsFunc(names, func(n SnapshotName) bool {
		return n.Incarnation == incarnation && n.Epoch == epoch && n.Fingerprint != fingerprint
	})
}

// claimed reports whether the epoch that the shard has just begun is its own. An epoch is claimed by storing its first snapshot and
// listing them all afterwards: of two processes that claim the same number at least one sees the other, and whoever sees another
// takes a later number. So rows of one epoch are those of one process and its heirs. That needs a store in which a
// stored object is listed at once, as directories, S3, Azure Blob and GCS are.
func (s *shard) claimed(names []SnapshotName) bool {
	return !slices.ContainsFunc(names, func(n SnapshotName) bool {
		return n.Incarnation >= s.position.Incarnation && n.Epoch >= s.position.Epoch && n.Key != s.base
	})
}

// shardLog is what a shard asks of the entities topic beside reading it; *Kafka in all but simulations.
type shardLog interface {
	ListOffsets(ctx context.Context, topic string, partition int) (first, end int64, err error)
	verifyRecord(ctx context.Context, topic string, partition int, offset int64, hash uint64, log *slog.Logger, trouble *Trouble) (bool, error)
}

// shardStore is where a shard keeps its snapshots; *SnapshotStore in all but simulations.
type shardStore interface {
	List(ctx context.Context, topic string, shard uint16) ([]SnapshotName, error)
	Read(ctx context.Context, name SnapshotName) (*Snapshot, error)
	Write(ctx context.Context, snap *Snapshot) (size int, err error)
	Thin(ctx context.Context, topic string, shard uint16, incarnation uint32, epoch uint16, offset int64) (newest SnapshotName, ok bool, err error)
}

// shard is one partition of the entities topic that this process owns.
type shard struct {
	id      int
	shards  *shards
	log     *slog.Logger
	trouble *Trouble
	gauges  *shardGauges
	lag     *partitionGauges

	machine   Machine
	recovered bool
	next      int64
	emitFrom  int64
	position  sinks.Position // of the last message applied
	message   schemas.EntityMessage
	rows      detectors.Rows
	replaying bool
	// passed are the offsets that are passed over, since a machine with the fingerprint passedBy failed on them.
	passed   map[int64]bool
	passedBy uint64
	// recovering is set until the shard is at caughtUp, the offset behind the last one whose rows were stored when it began.
	recovering bool
	caughtUp   int64
	began      time.Time

	base         string // key of the epoch's first snapshot, where this process began the epoch
	stored       int64  // offset of the last snapshot
	snapshotAt   time.Time
	snapshotBuf  []byte
	snapshotting atomic.Bool
	writing      sync.WaitGroup
	superseded   atomic.Bool // a later epoch was seen in the store; its rows win over this shard's

	// What is told of the machine, see tell.
	engineGauges      *engineGauges
	counted           detectors.Stats // what the metrics hold of the machine
	late, lateInBatch Lateness
	statsAt, reportAt time.Time
}

// shards are those of this process.
type shards struct {
	config    Config
	deps      Dependencies
	kafka     shardLog
	store     shardStore
	now       func() time.Time
	plan      func(progress *sinks.Position, names []SnapshotName, incarnation uint32, fingerprint uint64, replay, first int64, floor uint16) (recovery, error)
	sink      RowSink
	log       *slog.Logger
	metrics   *metrics
	health    *health
	held      map[int]*shard // by the goroutine of serve
	committed map[int]int64
	// warnOfStore bounds a warning to one for the process.
	warnOfStore sync.Once

	mu      sync.Mutex
	durable map[int]sinks.Position
	// snapshotFailed is when the log told last of a snapshot that was not stored.
	snapshotFailed time.Time
	reports        map[int]ShardReport
}

func newShards(c Config, d Dependencies, log *slog.Logger, m *metrics, h *health) *shards {
	return &shards{config: c, deps: d, kafka: d.Kafka, store: d.Snapshots, now: time.Now, plan: planRecovery, log: log, metrics: m, health: h, held: map[int]*shard{}, committed: map[int]int64{}, durable: map[int]sinks.Position{},
		reports: map[int]ShardReport{}}
}

// onDurable takes positions that the sink has stored.
func (m *shards) onDurable(positions []sinks.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range positions {
		m.durable[int(p.Shard)] = p
		if p.Shard < maxShardLabels {
			m.metrics.durable.WithLabelValues(strconv.Itoa(int(p.Shard))).Set(float64(p.Offset))
		}
	}
}

// tellSnapshotFailed reports whether it is time to tell the log of a failed snapshot: all shards have one store, so one line in half a
// minute will do. The metric counts all.
func (m *shards) tellSnapshotFailed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.snapshotFailed) < 30*time.Second {
		return false
	}
	m.snapshotFailed = time.Now()
	return true
}

func (m *shards) durableAt(id int) (sinks.Position, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.durable[id]
	return p, ok
}

// serve runs the shards with the given ids until ctx is done. Shards that this process held the time before go on
// with the state in memory, which is a prefix of the log; others are dropped. At the end the rows are flushed and
// every shard is snapshotted.
func (m *shards) serve(ctx context.Context, mem member, ids []int) error {
	for id := range m.held {
		if !slices.Contains(ids, id) {
			delete(m.held, id)
			m.forget(id)
		}
	}
	var wg sync.WaitGroup
	run, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, id := range ids {
		s := m.held[id]
		if s == nil {
			s = &shard{id: id, shards: m, log: m.log.With("shard", id), gauges: m.metrics.shard(id), lag: m.metrics.partition(m.config.EntitiesTopic, id)}
			m.held[id] = s
		}
		s.trouble = m.health.watch(m.config.EntitiesTopic, id)
		wg.Go(func() {
			err := s.run(run)
			for errors.Is(err, errPassedOver) && run.Err() == nil {
				s.writing.Wait() // a snapshot under way uses the buffer of the next one
				err = s.run(run)
			}
			var stop *StoppedError
			switch {
			case err == nil || run.Err() != nil:
			case errors.As(err, &stop):
				m.health.stop(m.config.EntitiesTopic, id, stop)
				m.metrics.stopped.WithLabelValues(m.config.EntitiesTopic, fmt.Sprint(id)).Set(1)
				s.log.Error("the shard is stopped", "error", err)
			default:
				fail(err)
			}
		})
	}
	tick := time.NewTicker(5 * m.config.CommitInterval)
	defer tick.Stop()
loop:
	for {
		select {
		case <-run.Done():
			break loop
		case <-tick.C:
			if err := m.commit(run, mem, ids); err != nil && run.Err() == nil {
				m.metrics.commits.WithLabelValues("shards").Inc()
				m.log.Debug("entities offsets are not committed; they are a hint only", "error", err)
			}
		}
	}
	wg.Wait()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.config.StopTimeout/2)
	defer cancel()
	crashpoint.At(crashpoint.StopReading)
	if !m.health.failed() {
		if err := m.sink.Flush(end); err != nil {
			m.log.Warn("rows are not stored; they are made again at the next start", "error", err)
		}
	}
	crashpoint.At(crashpoint.StopFlushed)
	for _, id := range ids {
		wg.Go(func() {
			m.held[id].finish(end)
			m.health.forget(m.config.EntitiesTopic, id)
		})
	}
	wg.Wait()
	if err := m.commit(end, mem, ids); err != nil {
		m.log.Debug("entities offsets are not committed; they are a hint only", "error", err)
	}
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(run)
}

// commit tells Kafka the stored positions, for lag tools.
func (m *shards) commit(ctx context.Context, mem member, ids []int) error {
	var offsets []kafkaOffset
	for _, id := range ids {
		if p, ok := m.durableAt(id); ok && m.committed[id] != p.Offset+1 {
			offsets = append(offsets, kafkaOffset{id, p.Offset + 1})
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	if err := m.deps.Kafka.commitHints(ctx, m.config.group("shards"), mem, m.config.EntitiesTopic, offsets); err != nil {
		return err
	}
	crashpoint.At(crashpoint.EntitiesCommitted)
	for _, o := range offsets {
		m.committed[o.partition] = o.offset
	}
	return nil
}

// maxSuperseded is how often a shard begins a later epoch than a process that is no member of the group any more, in one generation. More
// means that two processes work on the shard for good, and their epochs would overtake each other until there are no more.
const maxSuperseded = 3

// run recovers the shard and applies messages until ctx is done.
func (s *shard) run(ctx context.Context) error {
	for n := 0; ; n++ {
		if err := s.prepare(ctx); err != nil {
			return err
		}
		if err := s.read(ctx); err != nil || !s.superseded.Load() || ctx.Err() != nil {
			return err
		}
		if n == maxSuperseded {
			return &StoppedError{s.shards.config.EntitiesTopic, s.id, errors.New("another process with other code, settings or catalogue works on the shard"),
				"Processes that share shards must be members of one group; stop those that are not."}
		}
	}
}

// read applies messages until ctx is done or a later epoch is seen.
func (s *shard) read(ctx context.Context) error {
	m := s.shards
	s.snapshotAt = time.Now().Add(m.config.SnapshotInterval * time.Duration(s.id+1) / time.Duration(m.config.Partitions))
	reader := NewReader(m.deps.Kafka, ReaderConfig{
		Topic: m.config.EntitiesTopic, Partition: s.id, Offset: s.next, MaxBytes: m.config.FetchBytes,
		Logger: m.log, Trouble: s.trouble, OnHole: func(h Hole) {
			m.metrics.hole(h)
			s.log.Error("messages are missing in the entities topic: they were deleted before they were read", "from", h.From, "to", h.To, "reason", h.Reason)
		},
	})
	defer reader.Close()
	s.engineGauges = m.metrics.engine.shard(s.id)
	defer s.tellAll()
	for {
		s.tell(time.Now())
		batch, err := reader.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return s.stopped(err)
		}
		s.lag.set(batch)
		if len(batch.Records) > 0 {
			crashpoint.At(crashpoint.EntitiesFetched)
		}
		if err := s.apply(ctx, batch); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.lag.handled(batch)
		s.tellRecovery()
		if moved := s.position.Offset - s.stored; moved > 0 && (moved >= m.config.SnapshotRecords || !time.Now().Before(s.snapshotAt)) {
			s.snapshot()
		}
		if s.superseded.Load() {
			return nil
		}
	}
}

// prepare recovers the shard, unless its state is in memory and no other process has begun a later epoch since: rows of the
// epoch in memory would lose against those that it has written.
func (s *shard) prepare(ctx context.Context) error {
	if s.recovered {
		progress, err := s.progress(ctx)
		if err != nil {
			return err
		}
		names, err := s.snapshots(ctx)
		if err != nil {
			return err
		}
		if progress != nil && later(progress.Incarnation, progress.Epoch, &s.position) || anyLater(names, &s.position) {
			s.log.Info("another process has begun a later epoch; the state in memory is let go", "epoch", s.position.Epoch)
			s.recovered = false
		}
	}
	s.superseded.Store(false)
	if s.recovered {
		return nil
	}
	s.began = time.Now()
	if err := s.newMachine(); err != nil {
		return err
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	s.recovered = true
	return nil
}

// later reports whether an epoch comes after that of p.
func later(incarnation uint32, epoch uint16, p *sinks.Position) bool {
	return incarnation > p.Incarnation || incarnation == p.Incarnation && epoch > p.Epoch
}

func anyLater(names []SnapshotName, p *sinks.Position) bool {
	return slices.ContainsFunc(names, func(n SnapshotName) bool { return later(n.Incarnation, n.Epoch, p) })
}

// snapshots lists the shard's snapshots, oldest first.
func (s *shard) snapshots(ctx context.Context) (names []SnapshotName, err error) {
	err = persist(ctx, s.log, s.trouble, "list snapshots", func() (err error) {
		s.trouble.Set("waiting for the store of snapshots")
		names, err = s.shards.store.List(ctx, s.shards.config.EntitiesTopic, uint16(s.id))
		return err
	})
	return names, err
}

// progress reads how far the shard's rows are stored, nil for not at all.
func (s *shard) progress(ctx context.Context) (progress *sinks.Position, err error) {
	err = persist(ctx, s.log, s.trouble, "read how far the rows are stored", func() error {
		all, err := s.shards.deps.Progress(ctx)
		if p, ok := all[uint16(s.id)]; ok {
			progress = &p
		}
		return err
	})
	return progress, err
}

// newMachine begins with a machine without history.
func (s *shard) newMachine() (err error) {
	if s.machine, err = s.shards.deps.NewMachine(uint32(s.id), uint32(s.shards.config.Partitions)); err != nil {
		return fmt.Errorf("make the state machine of shard %d: %w", s.id, err)
	}
	s.counted = detectors.Stats{}
	if f := s.machine.Fingerprint(); s.passed == nil || s.passedBy != f {
		s.passed, s.passedBy = map[int64]bool{}, f
	}
	return nil
}

// errPassedOver means that the machine failed on a message, which is passed over from now on: the state is to be recovered.
var errPassedOver = errors.New("the state machine failed on a message")

// step applies the current message. When the machine fails on it, its state may be half changed: the message goes to quarantine,
// which is where every later recovery with the same fingerprint reads that it is passed over, and the state is recovered
// from snapshot and log without it. So the rows stay a function of the log and of what is passed over.
func (s *shard) step(ctx context.Context, rec *Record) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.recovered, s.machine = false, nil
		s.log.Error("signindiag failed on a message of the entities topic; it goes to quarantine, and the shard begins again without it. Please report the stack",
			"offset", rec.Offset, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if err = s.quarantine(ctx, rec, sinks.ReasonPanic, fmt.Sprint(p)); err == nil {
			s.passed[rec.Offset] = true
			err = errPassedOver
		}
	}()
	s.machine.Apply(&s.message, rec.Offset, &s.rows)
	return nil
}

func (s *shard) stopped(err error) error {
	m := s.shards
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return &StoppedError{m.config.EntitiesTopic, s.id, err, "The shard waits for a replica that has it whole."}
	}
	return &StoppedError{m.config.EntitiesTopic, s.id, err, fmt.Sprintf(
		"If the topic was made again on purpose, set %s=%d: the shards keep their state, and the raw topics are read from their first record; repeats are dropped.",
		EntitiesIncarnationSetting, m.config.EntitiesIncarnation+1)}
}

// apply applies a batch. An error that is not of ctx is fatal. After an error of ctx everything up to s.position
// was applied and, from emitFrom on, written.
func (s *shard) apply(ctx context.Context, batch *Batch) error {
	m := s.shards
	written := true
	var last []byte
	var applied, rows, replayed int
	var incidents, members int
	defer func() {
		m.metrics.applied.Add(float64(applied))
		m.metrics.replayed.Add(float64(replayed))
		m.metrics.rows.WithLabelValues("diagnoses").Add(float64(rows))
		m.metrics.rows.WithLabelValues("incidents").Add(float64(incidents))
		m.metrics.rows.WithLabelValues("incident_members").Add(float64(members))
		m.metrics.engine.lateness.add(&s.lateInBatch)
		s.late.add(&s.lateInBatch)
		s.lateInBatch = Lateness{}
		if s.gauges != nil && applied > 0 {
			s.gauges.received.Set(float64(s.message.ReceivedMs) / 1000)
		}
	}()
	for i := range batch.Records {
		rec := &batch.Records[i]
		emit := rec.Offset >= s.emitFrom
		if emit && s.replaying {
			s.replaying = false
			s.log.Info("replay is done", "offset", rec.Offset)
		}
		s.rows.Reset()
		s.message.ResetVT()
		if s.passed[rec.Offset] {
			// So that the next recovery need not begin before it.
			s.snapshotAt = time.Now()
		} else if err := s.message.UnmarshalVTUnsafe(rec.Value); err != nil || s.message.Source == nil || s.message.SignIn == nil {
			if emit {
				if err == nil {
					err = errors.New("it has no source or no record")
				}
				if err := s.quarantine(ctx, rec, "undecodable", err.Error()); err != nil {
					return err
				}
				s.log.Warn("a message of the entities topic cannot be decoded; it is in quarantine", "offset", rec.Offset, "error", err)
			}
		} else {
			if err := s.step(ctx, rec); err != nil {
				return err
			}
			applied++
			if emit {
				s.observeLateness(&s.message)
			}
		}
		next := s.position
		next.Offset = rec.Offset
		last, written = rec.Value, false
		if emit && len(s.rows.Diagnoses)+len(s.rows.Incidents)+len(s.rows.Members) > 0 {
			next.Hash = hashRecord(rec.Value)
			if err := m.sink.Write(ctx, &s.rows, next); err != nil {
				// The machine is ahead of the sink: what is in memory must not be used again.
				s.recovered = false
				return fmt.Errorf("write rows of shard %d: %w", s.id, err)
			}
			crashpoint.At(crashpoint.RowsHandedOver)
			written = true
			rows += len(s.rows.Diagnoses)
			incidents += len(s.rows.Incidents)
			members += len(s.rows.Members)
			for _, code := range s.rows.UnknownCodes {
				m.metrics.unknownCodes.WithLabelValues(m.metrics.code(code)).Inc()
			}
		}
		if !emit {
			crashpoint.At(crashpoint.Replaying)
			replayed++
		}
		s.position, s.next = next, rec.Offset+1
	}
	if last != nil {
		s.position.Hash = hashRecord(last)
		if !written && s.position.Offset >= s.emitFrom {
			if err := m.sink.Write(ctx, nil, s.position); err != nil {
				s.recovered = false
				return fmt.Errorf("write the position of shard %d: %w", s.id, err)
			}
		}
	}
	s.next = batch.Next
	return nil
}

// quarantine stores a message that cannot be read or applied, before the position passes it.
func (s *shard) quarantine(ctx context.Context, rec *Record, reason, text string) error {
	m := s.shards
	q := sinks.QuarantinedRecord{
		Source: sinks.Source{Topic: m.config.EntitiesTopic, Incarnation: m.config.EntitiesIncarnation, Partition: int32(s.id), Offset: rec.Offset},
		Stage:  sinks.StageEntities, ReceivedTime: rec.Time, Reason: reason, Error: text, Bytes: rec.Value,
	}
	if reason == sinks.ReasonPanic {
		q.Fingerprint = s.passedBy
	}
	err := m.deps.Quarantine.Put(ctx, []sinks.QuarantinedRecord{q})
	if err == nil {
		err = m.deps.Quarantine.Flush(ctx)
	}
	if err != nil {
		s.recovered = false
		return fmt.Errorf("put message %d of shard %d into quarantine: %w", rec.Offset, s.id, err)
	}
	m.metrics.quarantined.WithLabelValues(sinks.StageEntities, reason).Inc()
	return nil
}

// snapshotOf returns the shard's state and position.
func (s *shard) snapshotOf() *Snapshot {
	c := s.shards.config
	s.snapshotBuf = s.machine.AppendSnapshot(s.snapshotBuf[:0])
	return &Snapshot{
		Topic: c.EntitiesTopic, Partitions: uint32(c.Partitions), Shard: uint16(s.id), Incarnation: s.position.Incarnation, Epoch: s.position.Epoch,
		Fingerprint: s.position.Fingerprint, Offset: s.position.Offset, Hash: s.position.Hash, Taken: s.shards.now().UnixMilli(), State: s.snapshotBuf,
	}
}

// snapshot takes the state and stores it beside the shard's work. It does nothing while the snapshot before is
// still being stored.
func (s *shard) snapshot() {
	if !s.snapshotting.CompareAndSwap(false, true) {
		return
	}
	snap := s.snapshotOf()
	s.stored = snap.Offset
	s.snapshotAt = time.Now().Add(s.shards.config.SnapshotInterval)
	s.writing.Go(func() {
		defer s.snapshotting.Store(false)
		// Bounded, so that a store that hangs blocks neither later snapshots nor the stop.
		ctx, cancel := context.WithTimeout(context.Background(), s.shards.config.StopTimeout/2)
		defer cancel()
		if err := s.store(ctx, snap); err != nil {
			if s.shards.tellSnapshotFailed() {
				s.log.Warn("the snapshot is not stored; the next one is tried in its turn", "offset", snap.Offset, "error", err)
			}
		}
	})
}

func (s *shard) store(ctx context.Context, snap *Snapshot) error {
	m := s.shards
	start := time.Now()
	size, err := m.store.Write(ctx, snap)
	if err != nil {
		m.metrics.snapshots.WithLabelValues("failed").Inc()
		return err
	}
	crashpoint.At(crashpoint.SnapshotWritten)
	m.metrics.snapshots.WithLabelValues("stored").Inc()
	m.metrics.snapshotBytes.Observe(float64(size))
	m.metrics.snapshotTime.Observe(time.Since(start).Seconds())
	// A process whose membership had ended may have begun a later epoch after this one looked. What is kept is its concern then.
	names, err := m.store.List(ctx, m.config.EntitiesTopic, uint16(s.id))
	if err != nil {
		return err
	}
	if anyLater(names, &sinks.Position{Incarnation: snap.Incarnation, Epoch: snap.Epoch}) {
		s.superseded.Store(true)
		return nil
	}
	if p, ok := m.durableAt(s.id); ok {
		newest, ok, err := m.store.Thin(ctx, m.config.EntitiesTopic, uint16(s.id), p.Incarnation, p.Epoch, p.Offset)
		if ok {
			s.gauges.snapshot(newest.Offset, newest.Taken)
		}
		return err
	}
	return nil
}

// finish stores a last snapshot, where the shard has moved since the one before.
func (s *shard) finish(ctx context.Context) {
	s.writing.Wait()
	if !s.recovered || s.position.Offset <= s.stored {
		return
	}
	if err := s.store(ctx, s.snapshotOf()); err != nil {
		s.log.Warn("the last snapshot is not stored; the next start replays from the one before", "offset", s.position.Offset, "error", err)
		return
	}
	s.stored = s.position.Offset
}

// recover brings the state up to where emission begins; the log between is replayed by run.
func (s *shard) recover(ctx context.Context) error {
	m := s.shards
	topic := m.config.EntitiesTopic
	var first, end int64
	progress, err := s.progress(ctx)
	if err != nil {
		return err
	}
	names, err := s.snapshots(ctx)
	if err != nil {
		return err
	}
	if err := persist(ctx, s.log, s.trouble, "read the offsets of "+topic, func() (err error) {
		first, end, err = m.kafka.ListOffsets(ctx, topic, s.id)
		return err
	}); err != nil {
		return err
	}
	incarnation := m.config.EntitiesIncarnation
	if m.deps.PassedOver != nil {
		if err := persist(ctx, s.log, s.trouble, "read which messages are passed over", func() error {
			all, err := m.deps.PassedOver(ctx, incarnation, s.passedBy)
			for _, offset := range all[uint16(s.id)] {
				s.passed[offset] = true
			}
			return err
		}); err != nil {
			return err
		}
	}
	seen := uint32(0)
	if progress != nil {
		seen = progress.Incarnation
	}
	for _, n := range names {
		seen = max(seen, n.Incarnation)
	}
	if seen > incarnation {
		return &StoppedError{topic, s.id, &IncarnationError{topic, incarnation, seen, EntitiesIncarnationSetting}, "Put the higher number back."}
	}
	if progress != nil && progress.Incarnation == incarnation {
		if progress.Offset >= end {
			return s.stopped(&LogEndError{topic, s.id, progress.Offset + 1, first, end})
		}
		known, err := m.kafka.verifyRecord(ctx, topic, s.id, progress.Offset, progress.Hash, s.log, s.trouble)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			return s.stopped(err)
		}
		if !known {
			s.log.Info("the last message applied has expired and cannot be compared", "offset", progress.Offset)
		}
		m.mu.Lock()
		if p, ok := m.durable[s.id]; !ok || detectors.Revision(p.Epoch, p.Offset) < detectors.Revision(progress.Epoch, progress.Offset) {
			m.durable[s.id] = *progress
		}
		m.mu.Unlock()
	}
	s.caughtUp = 0
	if progress != nil && progress.Incarnation == incarnation {
		s.caughtUp = progress.Offset + 1
	}
	fingerprint := s.machine.Fingerprint()
	floor := uint16(0)
	if progress == nil && m.deps.OtherEpoch != nil {
		if err := persist(ctx, s.log, s.trouble, "read the epochs of other entities topics", func() (err error) {
			floor, err = m.deps.OtherEpoch(ctx)
			return err
		}); err != nil {
			return err
		}
	}
	for _, n := range names {
		floor = max(floor, n.Epoch)
	}
	for {
		plan, err := m.plan(progress, names, incarnation, fingerprint, m.config.ReplayOnChange.Milliseconds(), first, floor)
		if err != nil {
			return &StoppedError{topic, s.id, err, ""}
		}
		snap, unreadable, err := s.load(ctx, plan, first)
		if err != nil {
			return err
		}
		if snap == nil && unreadable && plan.fromState && !plan.base {
			// The base of an epoch that has just begun is gone: begin another one.
			names = slices.DeleteFunc(names, func(n SnapshotName) bool { return n.Epoch == plan.epoch })
			continue
		}
		if err := s.begin(ctx, plan, snap, unreadable, first); err != nil || !plan.base {
			return err
		}
		if names, err = s.snapshots(ctx); err != nil || s.claimed(names) {
			return err
		}
		s.log.Warn("another process has begun an epoch at the same time; a later one is taken", "epoch", plan.epoch)
		floor = plan.epoch + 1
		if err := s.newMachine(); err != nil {
			return err
		}
	}
}

// load restores the first candidate that can be, and returns it, nil for none, and whether any was of no use.
func (s *shard) load(ctx context.Context, plan recovery, first int64) (snap *Snapshot, unreadable bool, err error) {
	m := s.shards
	for _, name := range plan.candidates {
		var useless error
		if err := persist(ctx, s.log, s.trouble, "read snapshot "+name.Key, func() (err error) {
			s.trouble.Set("waiting for the store of snapshots")
			snap, err = m.store.Read(ctx, name)
			if errors.Is(err, ErrSnapshotCorrupt) || errors.Is(err, ErrSnapshotVersion) || errors.Is(err, ErrSnapshotGone) {
				useless, err = err, nil
			}
			return err
		}); err != nil {
			return nil, unreadable, err
		}
		if useless == nil && snap.Partitions != uint32(m.config.Partitions) {
			return nil, unreadable, &StoppedError{m.config.EntitiesTopic, s.id, &PartitionCountError{m.config.EntitiesTopic, int(snap.Partitions), m.config.Partitions}, "The snapshots were made for the other number."}
		}
		if useless == nil && !plan.carried && snap.Offset >= first && snap.Hash != 0 {
			if _, err = m.kafka.verifyRecord(ctx, m.config.EntitiesTopic, s.id, snap.Offset, snap.Hash, s.log, s.trouble); err != nil {
				if ctx.Err() != nil {
					return nil, unreadable, err
				}
				useless = err
			}
		}
		if useless == nil {
			if err := s.machine.RestoreSnapshot(snap.State); err != nil {
				useless = fmt.Errorf("restore the state: %w", err)
			}
		}
		if useless == nil {
			crashpoint.At(crashpoint.StateRestored)
			return snap, unreadable, nil
		}
		m.metrics.snapshots.WithLabelValues("unreadable").Inc()
		s.log.Warn("a snapshot is of no use; an older one or the log is taken instead", "snapshot", name.Key, "error", useless)
		unreadable = true
		// A failed restore may leave half a state behind.
		if err := s.newMachine(); err != nil {
			return nil, unreadable, err
		}
	}
	return nil, unreadable, nil
}

// tellRecovery tells how much is left of the replay after a start, and how long it took when it is done.
func (s *shard) tellRecovery() {
	if !s.recovering {
		return
	}
	left := max(s.caughtUp-s.next, 0)
	if s.gauges != nil {
		s.gauges.remaining.Set(float64(left))
	}
	if left == 0 {
		s.recovering = false
		s.shards.metrics.recovery.Observe(time.Since(s.began).Seconds())
	}
}

// begin sets position and epoch, and stores the base of a new epoch. unreadable says that snapshots were of no use.
func (s *shard) begin(ctx context.Context, plan recovery, snap *Snapshot, unreadable bool, first int64) error {
	m := s.shards
	s.position = sinks.Position{
		Shard: uint16(s.id), Epoch: plan.epoch, Offset: first - 1, Incarnation: m.config.EntitiesIncarnation, Fingerprint: s.machine.Fingerprint(),
	}
	if snap != nil && !plan.carried {
		s.position.Offset, s.position.Hash = snap.Offset, snap.Hash
	}
	s.next = s.position.Offset + 1
	s.emitFrom = plan.emitAfter + 1
	if plan.fromState {
		s.emitFrom = s.next
	}
	s.machine.SetEpoch(plan.epoch)
	s.stored = s.position.Offset
	s.replaying = s.next < s.emitFrom
	if plan.base {
		base := s.snapshotOf()
		s.base = base.key()
		if err := persist(ctx, s.log, s.trouble, fmt.Sprintf("store the first snapshot of epoch %d", plan.epoch), func() error {
			ctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			return s.store(ctx, base)
		}); err != nil {
			return err
		}
		crashpoint.At(crashpoint.EpochBaseStored)
	}
	if s.gauges != nil {
		s.gauges.epoch.Set(float64(plan.epoch))
	}
	from, taken := "the first offset", s.began.UnixMilli()
	if snap != nil {
		from, taken = snap.key(), snap.Taken
	}
	s.gauges.snapshot(s.position.Offset, taken)
	s.recovering = true
	s.tellRecovery()
	// A shard is snapshotted after every SnapshotRecords messages, so less than a few times that lies behind the newest snapshot of a
	// store that all instances see.
	if behind := s.caughtUp - s.next; !plan.fromState && !unreadable && (snap == nil && behind > 0 || behind > 4*m.config.SnapshotRecords) {
		m.warnOfStore.Do(func() {
			m.log.Warn("the rows of a shard are stored much further than its snapshots seen here, so it replays: is "+SnapshotsSetting+
				" shared by all instances, and are the snapshots still there?", "shard", s.id, "snapshot", from, "replays_messages", behind)
		})
	}
	s.log.Info("shard begins", "reason", plan.reason, "epoch", plan.epoch, "state", from, "offset", s.next, "emit_from", s.emitFrom)
	return nil
}
