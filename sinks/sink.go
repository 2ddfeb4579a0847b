package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// SummaryRenderer makes the sentence that a viewer with the given capabilities may read. It must be safe for
// concurrent use.
type SummaryRenderer interface {
	Summary(dst []byte, d *detectors.Diagnosis, capabilities catalogue.Capability) []byte
}

// Config configures a Sink. The zero values of its numbers and times mean the defaults named.
type Config struct {
	Server
	// EntitiesTopic names the topic whose positions are written to progress, and the source of refused rows.
	EntitiesTopic string
	// MaxRows (50 000), MaxBytes (64 MiB) and MaxDelay (1 s) bound a block: it is inserted when it has reached
	// any of them. Two blocks, and one encoded, are in memory.
	MaxRows  int
	MaxBytes int
	MaxDelay time.Duration
	// InsertTimeout bounds one attempt of one INSERT (60 s); set it below the session timeout of the consumer
	// group, so that no INSERT of a lost session is under way when others take over.
	InsertTimeout time.Duration
	// DrainTimeout bounds what Run does after its context has ended (10 s).
	DrainTimeout time.Duration
	// Renderer makes the column summary, with CapabilityRecords only. Without one the column is empty.
	Renderer SummaryRenderer
	// Logger is silent when nil.
	Logger *slog.Logger
	// Registerer takes the metrics; they are not registered when it is nil.
	Registerer prometheus.Registerer
	// OnDurable is called by Run's goroutine after a block and its progress are acknowledged, with the
	// positions that moved, by shard. The slice is reused; OnDurable must not call the Sink.
	OnDurable func([]Position)
}

// Position is how far the rows of a shard are.
type Position struct {
	// Shard is the partition of the entities topic.
	Shard uint16
	// Epoch stands in the revisions of the shard's rows.
	Epoch uint16
	// Offset is that of the last message applied, inclusive; Hash is the hash of that message.
	Offset int64
	Hash   uint64
	// Incarnation tells a topic that was deleted and made again from the one before.
	Incarnation uint32
	// Fingerprint is that of code, thresholds and catalogue, which the epoch stands for.
	Fingerprint uint64
}

// Sink writes the rows of all shards of a process to ClickHouse. All methods are safe for concurrent use.
type Sink struct {
	cfg      Config
	writer   *writer[*rowBlock]
	scratch  sync.Pool
	progress *progressTable
	durable  []Position
	// stored are the positions that this process has stored, by shard; behindSince is when a replica was first found behind them.
	stored      map[uint16]Position
	behindSince time.Time
}

// NewSink returns a Sink; Run must be started for rows to be written. It does not connect yet.
func NewSink(cfg Config) (*Sink, error) {
	s := &Sink{cfg: cfg, progress: newProgressTable(), stored: map[uint16]Position{}}
	s.scratch.New = func() any { return new(rendered) }
	w, err := newWriter(writerConfig{
		server: cfg.Server, name: "rows", topic: cfg.EntitiesTopic, maxRows: cfg.MaxRows, maxBytes: cfg.MaxBytes,
		maxDelay: cfg.MaxDelay, insertTimeout: cfg.InsertTimeout, drainTimeout: cfg.DrainTimeout,
		logger: cfg.Logger, registerer: cfg.Registerer,
	}, newRowBlock(), newRowBlock())
	if err != nil {
		return nil, err
	}
	w.committed, w.greet = s.commit, s.greet
	s.writer = w
	return s, nil
}

// Write takes the rows of one shard up to and including pos.Offset: they are copied before it returns, and
// stand in one block with the position or in an earlier one. rows may be nil or empty, then only the
// position moves. Write blocks while both blocks are full, until ctx ends; after an error nothing of the
// call was taken. A shard's calls must come in the order of its offsets.
func (s *Sink) Write(ctx context.Context, rows *detectors.Rows, pos Position) error {
	if rows == nil {
		rows = &noRows
	}
	r := s.scratch.Get().(*rendered)
	r.render(rows, s.cfg.Renderer)
	b, err := s.writer.acquire(ctx)
	if err != nil {
		s.scratch.Put(r)
		return err
	}
	b.put(rows, r, pos)
	s.writer.release()
	s.scratch.Put(r)
	return nil
}

var noRows detectors.Rows

// Flush returns nil when everything that Write took before is in ClickHouse, progress included. It waits for as
// long as ctx lasts, or returns ErrStopped when Run ends first.
func (s *Sink) Flush(ctx context.Context) error { return s.writer.flush(ctx) }

// Run writes blocks until ctx ends, and then what is left, within Config.DrainTimeout. It returns nil when
// everything that was taken is in ClickHouse, else an error; what is not acknowledged is emitted again
// at the next start, since no position moved past it. It may be called once.
func (s *Sink) Run(ctx context.Context) error { return s.writer.run(ctx) }

// Ready returns nil when rows can be written, or says why they cannot be now.
func (s *Sink) Ready() error { return s.writer.ready() }

// commit writes the positions of a block whose rows are acknowledged.
func (s *Sink) commit(ctx context.Context, b *rowBlock, token string) error {
	s.durable = b.newest(s.durable[:0])
	if len(s.durable) == 0 {
		return nil
	}
	s.progress.reset()
	now := time.Now().UnixMilli()
	for _, p := range s.durable {
		s.progress.put(s.cfg.EntitiesTopic, p, now)
	}
	crashpoint.At(crashpoint.RowsInserted)
	if err := s.writer.insertPart(ctx, part{s.progress, "all"}, token); err != nil {
		return err
	}
	crashpoint.At(crashpoint.ProgressStored)
	for _, p := range s.durable {
		s.stored[p.Shard] = p
	}
	if s.cfg.OnDurable != nil {
		s.cfg.OnDurable(s.durable)
	}
	return nil
}

// WentBackError says that ClickHouse knows a position of a shard below one that it has acknowledged: its tables were restored from a
// backup, or it lost what it had. Rows between the two are missing, and whoever went on from memory would write a newer position over
// the gap. So the process has to begin anew with what is stored: it then makes those rows again.
type WentBackError struct {
	Shard                uint16
	Acknowledged, Stored Position // Stored is zero where there is none
}

func (e *WentBackError) Error() string {
	return fmt.Sprintf("ClickHouse holds rows of shard %d up to epoch %d offset %d, but had acknowledged epoch %d offset %d: it was restored from a backup or lost its newest rows; the next start makes them again",
		e.Shard, e.Stored.Epoch, e.Stored.Offset, e.Acknowledged.Epoch, e.Acknowledged.Offset)
}

// replicaPatience is how long a replica may be behind what a quorum of others has acknowledged.
const replicaPatience = time.Minute

// greet compares the positions in the tables with those that this process has stored in them.
func (s *Sink) greet(ctx context.Context, conn connection) error {
	if len(s.stored) == 0 {
		return nil
	}
	found := make(map[uint16]Position, len(s.stored))
	var shard, epoch proto.ColUInt16
	var offset proto.ColInt64
	query := ch.Query{
		Body:       "SELECT shard, epoch, offset FROM " + chschema.QualifiedName(s.writer.cfg.server.Database, "progress") + " FINAL WHERE topic = {topic:String}",
		Parameters: ch.Parameters(map[string]any{"topic": s.cfg.EntitiesTopic}),
		Result:     proto.Results{{Name: "shard", Data: &shard}, {Name: "epoch", Data: &epoch}, {Name: "offset", Data: &offset}},
		OnResult: func(context.Context, proto.Block) error {
			for i, id := range shard {
				found[id] = Position{Shard: id, Epoch: epoch[i], Offset: offset[i]}
			}
			return nil
		},
	}
	if err := conn.Do(ctx, query); err != nil {
		return fmt.Errorf("compare the positions in progress: %w", err)
	}
	for id, p := range s.stored {
		at, ok := found[id]
		if ok && detectors.Revision(at.Epoch, at.Offset) >= detectors.Revision(p.Epoch, p.Offset) {
			continue
		}
		if s.cfg.Cluster != "" {
			// A replica that was away may need a moment; others hold what was acknowledged.
			if s.behindSince.IsZero() {
				s.behindSince = time.Now()
			}
			if time.Since(s.behindSince) < replicaPatience {
				return fmt.Errorf("the replica holds rows of shard %d up to offset %d, %d is acknowledged", id, at.Offset, p.Offset)
			}
		}
		return &WentBackError{id, p, at}
	}
	s.behindSince = time.Time{}
	return nil
}

// rendered is what is made of rows before the block is locked: texts and the hashes of keys.
type rendered struct {
	buf       []byte
	diagnoses []renderedDiagnosis
	incidents []uint64
	members   []uint64
}

type renderedDiagnosis struct {
	hash                 uint64
	summaryEnd, textsEnd int // summary, then evidence, in buf
}

func (r *rendered) render(rows *detectors.Rows, renderer SummaryRenderer) {
	r.buf, r.diagnoses, r.incidents, r.members = r.buf[:0], r.diagnoses[:0], r.incidents[:0], r.members[:0]
	for i := range rows.Diagnoses {
		d := &rows.Diagnoses[i]
		x := renderedDiagnosis{hash: hashKey(d.CorrelationID, d.RequestID, d.TenantID)}
		if renderer != nil {
			r.buf = renderer.Summary(r.buf, d, catalogue.CapabilityRecords)
		}
		x.summaryEnd = len(r.buf)
		r.buf = d.Evidence.AppendJSON(r.buf)
		x.textsEnd = len(r.buf)
		r.diagnoses = append(r.diagnoses, x)
	}
	for i := range rows.Incidents {
		r.incidents = append(r.incidents, hashKey(rows.Incidents[i].TenantID, rows.Incidents[i].IncidentID))
	}
	for i := range rows.Members {
		m := &rows.Members[i]
		r.members = append(r.members, hashKey(m.CorrelationID, m.RequestID, m.TenantID, m.IncidentID))
	}
}

// hashKey hashes the parts of a key. Equal hashes are followed by a comparison, so the order and the
// boundaries of the parts need not be exact, only cheap.
func hashKey(parts ...string) uint64 {
	h := uint64(0)
	for _, p := range parts {
		h = (h ^ xxhash.Sum64String(p)) * 0x9e3779b97f4a7c15 // 2^64 / golden ratio spreads the parts
	}
	return h
}

// rowBlock is a block of the Sink: the rows by table and partition, and the positions.
type rowBlock struct {
	diagnoses partitions[*diagnosesTable]
	incidents *incidentsTable
	members   partitions[*membersTable]
	n, bytes  int
	positions []Position // by shard
	moved     []bool     // by shard
	shards    []uint16   // those that moved
}

func newRowBlock() *rowBlock {
	return &rowBlock{
		diagnoses: partitions[*diagnosesTable]{make: newDiagnosesTable},
		incidents: newIncidentsTable(),
		members:   partitions[*membersTable]{make: newMembersTable},
	}
}

func (b *rowBlock) put(rows *detectors.Rows, r *rendered, pos Position) {
	start := 0
	for i := range rows.Diagnoses {
		d, x := &rows.Diagnoses[i], &r.diagnoses[i]
		t := b.diagnoses.at(weekOf(d.EventTime))
		n, bytes := t.n, t.bytes
		// The texts are copied by put and not kept.
		texts := unsafe.String(unsafe.SliceData(r.buf), len(r.buf))
		t.put(d, x.hash, texts[start:x.summaryEnd], texts[x.summaryEnd:x.textsEnd], pos.Shard)
		start = x.textsEnd
		b.n += t.n - n
		b.bytes += t.bytes - bytes
	}
	for i := range rows.Incidents {
		t := b.incidents
		n, bytes := t.n, t.bytes
		t.put(&rows.Incidents[i], r.incidents[i], pos.Shard)
		b.n += t.n - n
		b.bytes += t.bytes - bytes
	}
	for i := range rows.Members {
		m := &rows.Members[i]
		t := b.members.at(weekOf(m.EventTime))
		n, bytes := t.n, t.bytes
		t.put(m, r.members[i], pos.Shard)
		b.n += t.n - n
		b.bytes += t.bytes - bytes
	}
	b.move(pos)
}

// move notes the position of a shard, unless it is behind what the block has already.
func (b *rowBlock) move(pos Position) {
	if n := int(pos.Shard) + 1; n > len(b.positions) {
		b.positions = append(b.positions, make([]Position, n-len(b.positions))...)
		b.moved = append(b.moved, make([]bool, n-len(b.moved))...)
	}
	if !b.moved[pos.Shard] {
		b.moved[pos.Shard] = true
		b.shards = append(b.shards, pos.Shard)
	} else if old := b.positions[pos.Shard]; detectors.Revision(old.Epoch, old.Offset) > detectors.Revision(pos.Epoch, pos.Offset) {
		return
	}
	b.positions[pos.Shard] = pos
}

// newest appends the positions that moved, by shard.
func (b *rowBlock) newest(dst []Position) []Position {
	slices.Sort(b.shards)
	for _, shard := range b.shards {
		dst = append(dst, b.positions[shard])
	}
	return dst
}

func (b *rowBlock) empty() bool { return len(b.shards) == 0 }
func (b *rowBlock) rows() int   { return b.n }
func (b *rowBlock) size() int   { return b.bytes }

// parts appends diagnoses, then members, then incidents; older weeks first. An incident that can be read
// has its members.
func (b *rowBlock) parts(dst []part) []part {
	for _, day := range b.diagnoses.days() {
		dst = append(dst, part{b.diagnoses.tables[day], dayName(day)})
	}
	for _, day := range b.members.days() {
		dst = append(dst, part{b.members.tables[day], dayName(day)})
	}
	if b.incidents.n > 0 {
		dst = append(dst, part{b.incidents, "all"})
	}
	return dst
}

func (b *rowBlock) reset() {
	b.diagnoses.reset()
	b.members.reset()
	b.incidents.reset()
	b.n, b.bytes = 0, 0
	for _, shard := range b.shards {
		b.moved[shard] = false
	}
	b.shards = b.shards[:0]
}
