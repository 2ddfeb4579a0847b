package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/segmentio/kafka-go"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// router deals the records of raw partitions to the lanes of the entities topic. One goroutine serves one raw
// partition (a source); the lanes are shared, so that one request at a time goes to a target partition.
//
// Why no record is lost or overtaken: a source hands its chunks to each lane in the order of its offsets; a lane is
// first in, first out, and sends a batch until it is acknowledged before it looks at the next one. So in every target
// partition a record stands behind all records of its source with lower offsets, also when a process that lost its
// partition still writes. The offset is committed only below the first message that has a chunk unacknowledged.
type router struct {
	config  Config
	deps    Dependencies
	log     *slog.Logger
	metrics *metrics
	lanes   []*lane
	health  *health
	// probe, which tests set, sees every message (with a nil record, when it is decoded) and every record of it.
	probe func(message []byte, record *schemas.SignIn)
}

// commitMetadata stands beside a committed raw offset.
type commitMetadata struct {
	Incarnation uint32 // of the raw topic
	// Entities, Partitions and EntitiesIncarnation are the topic that the records below the offset were dealt to.
	Entities            string
	Partitions          int
	EntitiesIncarnation uint32
	// Last is the offset of the last record processed and Hash its hash. Last is -1 when there was none.
	Last int64
	Hash uint64
}

// String returns what is committed, at most 400 bytes; Kafka takes 4096 (offset.metadata.max.bytes).
func (m commitMetadata) String() string {
	return fmt.Sprintf("signindiag/1 %d %s/%d/%d %d %016x", m.Incarnation, m.Entities, m.Partitions, m.EntitiesIncarnation, m.Last, m.Hash)
}

func parseCommitMetadata(s string) (m commitMetadata, ok bool) {
	f := strings.Fields(s)
	if len(f) != 5 || f[0] != "signindiag/1" {
		return m, false
	}
	incarnation, err1 := strconv.ParseUint(f[1], 10, 32)
	target := strings.Split(f[2], "/")
	if len(target) != 3 {
		return m, false
	}
	partitions, err2 := strconv.Atoi(target[1])
	entities, err3 := strconv.ParseUint(target[2], 10, 32)
	last, err4 := strconv.ParseInt(f[3], 10, 64)
	hash, err5 := strconv.ParseUint(f[4], 16, 64)
	return commitMetadata{uint32(incarnation), target[0], partitions, uint32(entities), last, hash}, errors.Join(err1, err2, err3, err4, err5) == nil
}

// flight is one read of a source that has chunks under way.
type flight struct {
	pending atomic.Int32
	next    int64 // offset to commit when all flights up to this one are finished
	last    int64
	hash    uint64
	// aborted is set where the source was stopped before it had handed over all chunks: the flight never
	// finishes. It is guarded by the source's mutex.
	aborted bool
}

// reached is how far a source is: the offset to commit, and the last record below it.
type reached struct {
	next, last int64
	hash       uint64
}

// finish takes one chunk off the flight.
func (f *flight) finish() { f.pending.Add(-1) }

// source is one raw partition that is read.
type source struct {
	router    *router
	topic     RawTopic
	partition int
	reader    *Reader
	log       *slog.Logger
	trouble   *Trouble
	gauges    *partitionGauges

	// The goroutine's own.
	dealing
	targets     []*chunk
	ctx         context.Context // of process
	values      int             // of the current message that were taken
	dealt       []uint32        // target partitions of the current record
	broken      []sinks.QuarantinedRecord
	brokenBytes int
	firstBroken sinks.QuarantinedRecord
	raw         []sinks.RawRecord
	ids         []byte
	counts      [categories]int
	unknown     int
	entities    int
	others      map[string]int
	brokenCount map[string]int
	fail        error

	mu        sync.Mutex
	flights   []*flight
	committed int64 // next offset as committed
	reached   reached

	marked time.Time // by the goroutine of commit
}

// categories is the number of categories of sign-ins.
const categories = int(schemas.Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL) + 1

// run reads the source until ctx is done. A nil error means that it was stopped; a *StoppedError ends this
// source only.
func (s *source) run(ctx context.Context) error {
	offset, err := s.start(ctx)
	if err != nil {
		return err
	}
	s.reader = NewReader(s.router.deps.Kafka, ReaderConfig{
		Topic: s.topic.Name, Partition: s.partition, Offset: offset, MaxBytes: s.router.config.FetchBytes,
		Logger: s.router.log, Trouble: s.trouble, OnHole: s.hole,
	})
	defer s.reader.Close()
	s.log.Info("reading", "offset", offset)
	for {
		batch, err := s.reader.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return s.stopped(err, offset)
		}
		s.gauges.set(batch)
		if batch.Next == offset {
			continue
		}
		crashpoint.At(crashpoint.RawFetched)
		if err := s.process(ctx, batch); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.gauges.handled(batch)
		offset = batch.Next
	}
}

func (s *source) stopped(err error, offset int64) error {
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return &StoppedError{s.topic.Name, s.partition, err, fmt.Sprintf("Records from offset %d on wait.", offset)}
	}
	return &StoppedError{s.topic.Name, s.partition, err,
		fmt.Sprintf("If the topic was made again on purpose, set %s=%d: its records are then read from the first one.", RawIncarnationSetting, s.topic.Incarnation+1)}
}

func (s *source) hole(h Hole) {
	s.router.metrics.hole(h)
	s.log.Error("records are missing in the raw topic: they were deleted before they were read", "from", h.From, "to", h.To, "reason", h.Reason)
}

// start finds the offset to begin with.
func (s *source) start(ctx context.Context) (int64, error) {
	r := s.router
	k := r.deps.Kafka
	var stored kafka.OffsetFetchPartition
	what := fmt.Sprintf("read the committed offset of %s/%d", s.topic.Name, s.partition)
	if err := persist(ctx, s.log, s.trouble, what, func() (err error) {
		stored, err = k.committed(ctx, r.config.group("router"), s.topic.Name, s.partition)
		return err
	}); err != nil {
		return 0, err
	}
	var first, end int64
	if err := persist(ctx, s.log, s.trouble, "read the offsets of "+s.topic.Name, func() (err error) {
		first, end, err = k.ListOffsets(ctx, s.topic.Name, s.partition)
		return err
	}); err != nil {
		return 0, err
	}
	meta, ok := parseCommitMetadata(stored.Metadata)
	if stored.CommittedOffset < 0 || !ok {
		if err := s.checkMark(ctx); err != nil {
			return 0, err
		}
	}
	if stored.CommittedOffset < 0 {
		return first, nil
	}
	if !ok {
		// A person has set the offset with Kafka's own tools: that is an order.
		if stored.CommittedOffset > end {
			return 0, s.stopped(&LogEndError{s.topic.Name, s.partition, stored.CommittedOffset, first, end}, stored.CommittedOffset)
		}
		s.log.Info("the committed offset was set by hand", "offset", stored.CommittedOffset)
		return stored.CommittedOffset, nil
	}
	switch {
	case meta.Incarnation > s.topic.Incarnation:
		return 0, &StoppedError{s.topic.Name, s.partition, &IncarnationError{s.topic.Name, s.topic.Incarnation, meta.Incarnation, RawIncarnationSetting}, "Put the higher number back."}
	case meta.Incarnation < s.topic.Incarnation:
		s.log.Info("the topic has a new incarnation and is read from its first offset", "incarnation", s.topic.Incarnation, "before", meta.Incarnation)
		return first, nil
	case meta.Entities != r.config.EntitiesTopic || meta.Partitions != r.config.Partitions || meta.EntitiesIncarnation != r.config.EntitiesIncarnation:
		s.log.Info("the entities topic is another one, so the raw topic is read from its first offset", "entities", r.config.EntitiesTopic, "before", meta.Entities)
		return first, nil
	}
	if stored.CommittedOffset > end {
		return 0, s.stopped(&LogEndError{s.topic.Name, s.partition, stored.CommittedOffset, first, end}, stored.CommittedOffset)
	}
	if meta.Last >= 0 {
		known, err := k.verifyRecord(ctx, s.topic.Name, s.partition, meta.Last, meta.Hash, s.log, s.trouble)
		if err != nil {
			if ctx.Err() != nil {
				return 0, err
			}
			return 0, s.stopped(err, stored.CommittedOffset)
		}
		if !known {
			s.log.Info("the last record read has expired and cannot be compared", "offset", meta.Last)
		}
	}
	s.mu.Lock()
	s.committed = stored.CommittedOffset
	s.reached = reached{next: stored.CommittedOffset, last: meta.Last, hash: meta.Hash}
	s.mu.Unlock()
	return stored.CommittedOffset, nil
}

// checkMark compares the log with the mark of an earlier run: Kafka forgets the committed offsets of a deleted topic.
func (s *source) checkMark(ctx context.Context) error {
	d := s.router.deps
	var mark commitMetadata
	var ok bool
	if err := persist(ctx, s.log, s.trouble, fmt.Sprintf("read the mark of %s/%d", s.topic.Name, s.partition), func() (err error) {
		mark, ok, err = d.Snapshots.readMark(ctx, s.router.config.EntitiesTopic, rawPartition{s.topic, s.partition})
		return err
	}); err != nil {
		return err
	}
	if !ok || mark.Last < 0 {
		return nil
	}
	known, err := d.Kafka.verifyRecord(ctx, s.topic.Name, s.partition, mark.Last, mark.Hash, s.log, s.trouble)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return s.stopped(err, mark.Last+1)
	}
	if !known {
		s.log.Warn("no offset is committed though the topic was read before, and the last record known has expired: reading goes on as if the topic were the same", "offset", mark.Last)
	}
	return nil
}

// markInterval is how often the mark of a raw partition is renewed: any record that the log still has will do.
const markInterval = 10 * time.Minute

// process decodes a batch and hands its chunks to the lanes.
func (s *source) process(ctx context.Context, batch *Batch) error {
	r := s.router
	f := &flight{next: batch.Next, last: -1}
	f.pending.Store(1)
	if n := len(batch.Records); n > 0 {
		f.last, f.hash = batch.Records[n-1].Offset, hashRecord(batch.Records[n-1].Value)
	}
	s.mu.Lock()
	s.flights = append(s.flights, f)
	s.mu.Unlock()
	whole := false
	defer func() {
		if !whole {
			s.mu.Lock()
			f.aborted = true
			s.mu.Unlock()
		}
	}()
	size := 0
	s.ctx = ctx
	for i := range batch.Records {
		size += len(batch.Records[i].Value)
		if s.decodeMessage(batch.Records[i]); s.fail != nil {
			return s.fail
		}
	}
	if s.putBroken(); s.fail != nil {
		return s.fail
	}
	if len(s.raw) > 0 {
		if err := r.deps.RawStore.Put(ctx, s.raw); err != nil {
			return fmt.Errorf("keep %d records of %s/%d as received: %w", len(s.raw), s.topic.Name, s.partition, err)
		}
	}
	for p, c := range s.targets {
		if c == nil {
			continue
		}
		s.targets[p] = nil
		f.pending.Add(1)
		c.flight = f
		select {
		case r.lanes[p].in <- c:
			crashpoint.At(crashpoint.ChunkHandedOver)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f.finish()
	whole = true
	s.count(batch, size)
	return nil
}

// decodeMessage decodes a message. Where this program's own code fails on it, what is left of the message goes to quarantine
// with all of the message's bytes, so that one message never holds up the partition.
func (s *source) decodeMessage(record Record) {
	s.values = 0
	defer func() {
		if p := recover(); p != nil {
			s.decoder = schemas.NewDecoder() // the old one is in no known state
			s.panicked(s.values, p, s.record.Value)
		}
	}()
	s.decode(record, s.decoded)
	if s.router.probe != nil {
		s.router.probe(s.record.Value, nil)
	}
}

// panicked puts bytes on which this program's own code failed into quarantine.
func (s *source) panicked(index int, p any, raw []byte) {
	s.log.Error("signindiag failed on a record; it goes to quarantine and the next ones are read. Please report the stack",
		"offset", s.record.Offset, "index", index, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	s.addBroken(sinks.QuarantinedRecord{Source: s.source(index), Stage: sinks.StageDecode, ReceivedTime: s.record.Time, Reason: sinks.ReasonPanic, Error: fmt.Sprint(p), Bytes: raw})
}

// Bounds of the broken records that wait for quarantine: a message may hold half a million of them, each a single byte.
const (
	maxBroken      = 4096
	maxBrokenBytes = 8 << 20
)

func (s *source) addBroken(q sinks.QuarantinedRecord) {
	if len(s.brokenCount) == 0 {
		s.firstBroken = q
	}
	s.brokenCount[q.Reason]++
	s.broken = append(s.broken, q)
	if s.brokenBytes += len(q.Bytes); len(s.broken) >= maxBroken || s.brokenBytes >= maxBrokenBytes {
		s.putBroken()
	}
}

// putBroken hands broken records to quarantine, and waits there while ClickHouse does not take them.
func (s *source) putBroken() {
	if len(s.broken) == 0 || s.fail != nil {
		return
	}
	if err := s.router.deps.Quarantine.Put(s.ctx, s.broken); err != nil {
		s.fail = fmt.Errorf("put %d records of %s/%d into quarantine: %w", len(s.broken), s.topic.Name, s.partition, err)
	}
	clear(s.broken)
	s.broken, s.brokenBytes = s.broken[:0], 0
}

func (s *source) count(batch *Batch, size int) {
	m := s.router.metrics
	m.messages.Add(float64(len(batch.Records)))
	m.messageBytes.Add(float64(size))
	m.fetchedBytes.WithLabelValues(s.topic.Name).Add(float64(batch.Bytes))
	m.entities.Add(float64(s.entities))
	m.unknownFields.Add(float64(s.unknown))
	for c, n := range s.counts {
		if n > 0 {
			m.records.WithLabelValues(schemas.Category(c).Name()).Add(float64(n))
		}
	}
	for c, n := range s.others {
		m.skipped.WithLabelValues(m.category(c)).Add(float64(n))
	}
	broken := 0
	for reason, n := range s.brokenCount {
		m.quarantined.WithLabelValues(sinks.StageDecode, reason).Add(float64(n))
		broken += n
	}
	if broken > 0 {
		s.log.Warn("records went to quarantine", "records", broken, "offset", s.firstBroken.Source.Offset, "index", s.firstBroken.Source.Index, "error", s.firstBroken.Error)
	}
	s.firstBroken = sinks.QuarantinedRecord{} // its bytes are those of the batch
	clear(s.others)
	clear(s.brokenCount)
	clear(s.raw)
	s.raw, s.ids = s.raw[:0], s.ids[:0]
	s.counts, s.unknown, s.entities = [categories]int{}, 0, 0
}

// decoded takes one value of the current message. Where this program's own code fails on it, that value alone goes to quarantine.
func (s *source) decoded(index int, d *schemas.Decoded) {
	if s.fail != nil {
		return
	}
	s.values = index + 1
	defer func() {
		if p := recover(); p != nil {
			s.undeal()
			s.panicked(index, p, d.Raw)
		}
	}()
	s.take(index, d)
}

func (s *source) take(index int, d *schemas.Decoded) {
	switch d.Kind {
	case schemas.KindOtherCategory:
		// The name aliases the message; a key that is there already is not stored again.
		if n, ok := s.others[d.Category]; ok {
			s.others[d.Category] = n + 1
		} else {
			s.others[strings.Clone(d.Category)] = 1
		}
	case schemas.KindBroken:
		s.addBroken(s.quarantined(index, d))
	case schemas.KindSignIn:
		rec := d.SignIn
		s.counts[min(max(int(rec.Category), 0), categories-1)]++
		if rec.Flags&schemas.FlagUnknownFields != 0 {
			s.unknown++
		}
		if s.router.deps.RawStore != nil {
			raw := s.received(index, d)
			raw.RequestID, raw.TenantID = s.keep(raw.RequestID), s.keep(raw.TenantID)
			s.raw = append(s.raw, raw)
		}
		s.dealt = s.dealt[:0]
		if s.router.probe != nil {
			defer s.router.probe(s.record.Value, rec)
		}
		s.deal(index, rec)
	}
}

// keep copies a string of the decoder, which reuses its buffers, into memory that lasts for the batch.
func (s *source) keep(v string) string {
	n := len(s.ids)
	s.ids = append(s.ids, v...)
	b := s.ids[n:]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// append appends a message to the chunk of one target partition.
func (s *source) append(partition uint32, message *schemas.EntityMessage) {
	c := s.targets[partition]
	if c == nil {
		c = chunks.Get().(*chunk)
		s.targets[partition] = c
	}
	size := message.SizeVT()
	start := len(c.data)
	if cap(c.data)-start < size {
		bigger := make([]byte, start, max(2*cap(c.data), start+size, 64<<10))
		copy(bigger, c.data)
		c.data = bigger
	}
	c.data = c.data[:start+size]
	if _, err := message.MarshalToSizedBufferVT(c.data[start:]); err != nil {
		s.fail = fmt.Errorf("encode %s/%d offset %d index %d: %w", s.topic.Name, s.partition, message.Source.Offset, message.Source.Index, err)
	}
	c.ends = append(c.ends, len(c.data))
	s.dealt = append(s.dealt, partition)
	s.entities++
}

// undeal takes the current record out of all chunks, whatever of it stands there.
func (s *source) undeal() {
	for _, p := range s.dealt {
		c := s.targets[p]
		c.ends = c.ends[:len(c.ends)-1]
		s.entities--
	}
	s.dealt = s.dealt[:0]
	for p, c := range s.targets {
		switch {
		case c == nil:
		case len(c.ends) == 0:
			c.release()
			s.targets[p] = nil
		default:
			c.data = c.data[:c.ends[len(c.ends)-1]]
		}
	}
}

// committable returns the offset below which everything is acknowledged, and whether it moved.
func (s *source) committable() (reached, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.flights) && s.flights[n].pending.Load() == 0 {
		f := s.flights[n]
		s.reached.next = f.next
		if f.last >= 0 {
			s.reached.last, s.reached.hash = f.last, f.hash
		}
		n++
	}
	s.flights = append(s.flights[:0], s.flights[n:]...)
	return s.reached, s.reached.next > s.committed
}

// idle reports whether nothing of the source is under way.
func (s *source) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if f.pending.Load() != 0 && !f.aborted {
			return false
		}
	}
	return true
}

// member is the group membership that offsets are committed with; the zero value is none.
type member struct {
	generation int
	id         string
}

func noMember() member { return member{generation: -1} }

// rawPartition names a partition of a raw topic.
type rawPartition struct {
	topic     RawTopic
	partition int
}

// sources runs the given raw partitions until ctx is done, then waits for what is under way, commits and
// returns. more, which may be nil, brings further partitions.
func (r *router) sources(ctx context.Context, m member, parts []rawPartition, more <-chan []rawPartition) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var running []*source
	// Where a goroutine fails for good, the others are stopped.
	run, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	start := func(parts []rawPartition) {
		for _, p := range parts {
			s := r.source(p)
			mu.Lock()
			running = append(running, s)
			mu.Unlock()
			wg.Go(func() {
				err := s.run(run)
				var stop *StoppedError
				switch {
				case err == nil || run.Err() != nil:
				case errors.As(err, &stop):
					r.health.stop(p.topic.Name, p.partition, stop)
					s.log.Error("the partition is not read any more", "error", err)
					r.metrics.stopped.WithLabelValues(p.topic.Name, strconv.Itoa(p.partition)).Set(1)
				default:
					fail(err)
				}
			})
		}
	}
	start(parts)
	commit := func(ctx context.Context) error {
		mu.Lock()
		now := append([]*source(nil), running...)
		mu.Unlock()
		return r.commit(ctx, m, now)
	}
	tick := time.NewTicker(r.config.CommitInterval)
	defer tick.Stop()
	logged := time.Time{}
loop:
	for {
		select {
		case <-run.Done():
			break loop
		case p := <-more:
			start(p)
		case <-tick.C:
			if err := commit(run); err != nil && run.Err() == nil {
				r.metrics.commits.WithLabelValues("router").Inc()
				if time.Since(logged) > 30*time.Second {
					logged = time.Now()
					r.log.Warn("raw offsets are not committed; trying again", "error", err)
				}
			}
		}
	}
	wg.Wait()
	// What the lanes have is written on; give it a moment so that it needs no repeat.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.config.StopTimeout/4)
	defer cancel()
	for _, s := range running {
		for !s.idle() && drain.Err() == nil && !r.health.failed() {
			time.Sleep(5 * time.Millisecond)
		}
		r.health.forget(s.topic.Name, s.partition)
		r.metrics.forgetPartition(s.topic.Name, s.partition)
	}
	if err := commit(drain); err != nil {
		r.log.Warn("raw offsets are not committed; the next start repeats some records, which are dropped as repeats", "error", err)
	}
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(run)
}

func (r *router) source(p rawPartition) *source {
	s := &source{
		router: r, topic: p.topic, partition: p.partition,
		log:     r.log.With("topic", p.topic.Name, "partition", p.partition),
		trouble: r.health.watch(p.topic.Name, p.partition),
		gauges:  r.metrics.partition(p.topic.Name, p.partition),
		targets: make([]*chunk, len(r.lanes)),
		others:  map[string]int{}, brokenCount: map[string]int{},
		committed: -1, reached: reached{next: -1, last: -1},
	}
	s.dealing.init(p, r.deps.Catalogue, r.deps.Wanted, len(r.lanes), s.append)
	return s
}

// commit commits what is acknowledged. Quarantine and raw records below the offsets are stored first.
func (r *router) commit(ctx context.Context, m member, all []*source) error {
	topics := map[string][]kafka.OffsetCommit{}
	var moved []*source
	var offsets []int64
	var metas []commitMetadata
	for _, s := range all {
		f, ok := s.committable()
		if !ok {
			continue
		}
		meta := commitMetadata{s.topic.Incarnation, r.config.EntitiesTopic, r.config.Partitions, r.config.EntitiesIncarnation, f.last, f.hash}
		topics[s.topic.Name] = append(topics[s.topic.Name], kafka.OffsetCommit{Partition: s.partition, Offset: f.next, Metadata: meta.String()})
		moved, offsets, metas = append(moved, s), append(offsets, f.next), append(metas, meta)
	}
	if len(moved) == 0 {
		return nil
	}
	if err := r.deps.Quarantine.Flush(ctx); err != nil {
		return fmt.Errorf("store quarantined records before a commit: %w", err)
	}
	if r.deps.RawStore != nil {
		if err := r.deps.RawStore.Flush(ctx); err != nil {
			return fmt.Errorf("store raw records before a commit: %w", err)
		}
	}
	// A mark is written before the first commit: a stop in between would leave an offset that is gone with its topic, and
	// nothing to tell that topic from the next of its name.
	var failed error
	for i, s := range moved {
		now := time.Now()
		if now.Sub(s.marked) < markInterval || metas[i].Last < 0 {
			continue
		}
		if err := r.deps.Snapshots.writeMark(ctx, r.config.EntitiesTopic, rawPartition{s.topic, s.partition}, metas[i]); err != nil {
			if s.marked.IsZero() {
				return err
			}
			failed = err
			continue
		}
		s.marked = now
	}
	crashpoint.At(crashpoint.RecordsStored)
	if err := r.deps.Kafka.commitOffsets(ctx, r.config.group("router"), m, topics); err != nil {
		return err
	}
	crashpoint.At(crashpoint.RawCommitted)
	for i, s := range moved {
		s.mu.Lock()
		s.committed = offsets[i]
		s.mu.Unlock()
	}
	return failed
}

// committed returns the offset that a group has committed of a partition, -1 for none, with its metadata.
func (k *Kafka) committed(ctx context.Context, group, topic string, partition int) (stored kafka.OffsetFetchPartition, err error) {
	res, err := k.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {partition}}})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		// A coordinator may answer so before the first commit.
		stored.CommittedOffset = -1
		return stored, nil
	}
	if err != nil {
		return stored, err
	}
	parts := res.Topics[topic]
	if len(parts) != 1 {
		return stored, errProtocol
	}
	return parts[0], parts[0].Error
}

// commitOffsets commits offsets with their metadata, which kafka-go's Generation leaves out.
func (k *Kafka) commitOffsets(ctx context.Context, group string, m member, topics map[string][]kafka.OffsetCommit) error {
	res, err := k.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: m.generation, MemberID: m.id, Topics: topics})
	if err != nil {
		return fmt.Errorf("commit offsets of group %s: %w", group, err)
	}
	for topic, parts := range res.Topics {
		for _, p := range parts {
			if p.Error != nil {
				err = errors.Join(err, fmt.Errorf("commit the offset of %s/%d for group %s: %w", topic, p.Partition, group, p.Error))
			}
		}
	}
	return err
}

// refuse puts a record that Kafka does not take into quarantine, with its bytes as received.
func (r *router) refuse(ctx context.Context, value []byte, refused *RefusedError) error {
	var msg schemas.EntityMessage
	if err := msg.UnmarshalVT(value); err != nil || msg.Source == nil {
		return fmt.Errorf("read back a message of %d bytes that was refused: %w", len(value), errors.Join(err, refused))
	}
	rec := sinks.QuarantinedRecord{
		Stage: sinks.StagePublish, ReceivedTime: msg.ReceivedMs, Reason: refused.Reason, Error: refused.Error(), Bytes: value,
		Source: sinks.Source{Incarnation: uint32(msg.Source.Topic), Partition: int32(msg.Source.Partition), Offset: msg.Source.Offset, Index: msg.Source.Index},
	}
	for _, t := range r.config.RawTopics {
		if t.ID() == msg.Source.Topic {
			rec.Source.Topic = t.Name
		}
	}
	if raw := r.deps.Kafka.RawRecord(ctx, rec.Source, msg.ReceivedMs); raw != nil {
		rec.Bytes = raw
	}
	if err := r.deps.Quarantine.Put(ctx, []sinks.QuarantinedRecord{rec}); err != nil {
		return fmt.Errorf("put a record that Kafka refused into quarantine: %w", err)
	}
	r.metrics.quarantined.WithLabelValues(sinks.StagePublish, refused.Reason).Inc()
	r.log.Warn("Kafka refused a record for good; it is in quarantine", "topic", rec.Source.Topic, "partition", rec.Source.Partition, "offset", rec.Source.Offset, "index", rec.Source.Index, "error", refused)
	return nil
}

// RawRecord reads a record's own bytes from the raw topic once more, nil where they have expired or Kafka does not answer.
// receivedMs is the Kafka time of its message.
func (k *Kafka) RawRecord(ctx context.Context, src sinks.Source, receivedMs int64) []byte {
	ctx, cancel := context.WithTimeout(ctx, k.config.RequestTimeout)
	defer cancel()
	reader := NewReader(k, ReaderConfig{Topic: src.Topic, Partition: int(src.Partition), Offset: src.Offset, MaxBytes: 1, Logger: slog.New(slog.DiscardHandler)})
	defer reader.Close()
	for {
		batch, err := reader.Next(ctx)
		if err != nil || batch.Next > src.Offset && (len(batch.Records) == 0 || batch.Records[0].Offset != src.Offset) {
			return nil
		}
		if len(batch.Records) == 0 {
			continue
		}
		var raw []byte
		schemas.NewDecoder().Decode(batch.Records[0].Value, time.UnixMilli(receivedMs), func(index int, d *schemas.Decoded) {
			if uint32(index) == src.Index {
				raw = append([]byte(nil), d.Raw...)
			}
		})
		return raw
	}
}
