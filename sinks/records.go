package sinks

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is the identity of an input record.
type Source struct {
	// Topic is the name of the Kafka topic, Incarnation tells a topic that was deleted and made again.
	Topic       string
	Incarnation uint32
	Partition   int32
	Offset      int64
	// Index is the position of the record inside its message, from 0.
	Index uint32
}

// Stages at which a record leaves the way.
const (
	// StageDecode: the bytes are no record.
	StageDecode = "decode"
	// StagePublish: Kafka does not take the record's message for the entities topic.
	StagePublish = "publish"
	// StageEntities: a message of the entities topic cannot be read or applied; its bytes are that message.
	StageEntities = "entities"
	// StageSink is followed by the name of the table that does not take the row; the bytes are the row as JSON.
	StageSink = "sink "
)

// ReasonPanic is the reason of a record on which this program's own code failed; the log has the stack.
const ReasonPanic = "panic"

// QuarantinedRecord is a record that left the way, with its bytes and the reason.
type QuarantinedRecord struct {
	Source Source
	// Stage is where it left the way, for example "decode".
	Stage string
	// ReceivedTime is the Kafka time of the raw message, milliseconds since the Unix epoch.
	ReceivedTime int64
	// Reason is a short name of the kind of trouble, one of few; Error is the error in full.
	Reason string
	Error  string
	// Bytes are kept up to MaxQuarantinedBytes.
	Bytes []byte
	// Fingerprint is set where a shard passes over a message: that of the code, settings and catalogue for which it does.
	Fingerprint uint64
}

// MaxQuarantinedBytes bounds what is kept of one record, in bytes. It is more than any message that Kafka takes by default
// (1 MiB) and that Event Hubs takes at all (20 MiB); beyond it is what a hostile batch unpacks to. Of a larger record
// the beginning is kept; the whole of it is in the raw topic, at its position, as long as that keeps it.
const MaxQuarantinedBytes = 32 << 20

// RawRecord is a record as received.
type RawRecord struct {
	Source    Source
	RequestID string
	TenantID  string
	// EventTime is createdDateTime in microseconds since the Unix epoch.
	EventTime int64
	// ReceivedTime is the Kafka time of the raw message, milliseconds since the Unix epoch.
	ReceivedTime int64
	Bytes        []byte
}

// RecordsConfig configures a Quarantine or a RawRecords. The zero values of its numbers and times mean
// the defaults of Config.
type RecordsConfig struct {
	Server
	MaxRows       int
	MaxBytes      int
	MaxDelay      time.Duration
	InsertTimeout time.Duration
	DrainTimeout  time.Duration
	Logger        *slog.Logger
	Registerer    prometheus.Registerer
}

func (c RecordsConfig) writer(name string) writerConfig {
	return writerConfig{
		server: c.Server, name: name, maxRows: c.MaxRows, maxBytes: c.MaxBytes, maxDelay: c.MaxDelay,
		insertTimeout: c.InsertTimeout, drainTimeout: c.DrainTimeout, logger: c.Logger, registerer: c.Registerer,
	}
}

const (
	quarantineName = "quarantine"
	rawRecordsName = "raw_records"
)

// recordBlock is a block of records by partition of their time of receipt.
type recordBlock[T table] struct {
	tables   partitions[T]
	of       func(ms int64) int32
	n, bytes int
}

func newRecordBlock[T table](make func() T, of func(ms int64) int32) *recordBlock[T] {
	return &recordBlock[T]{tables: partitions[T]{make: make}, of: of}
}

// table returns the table for a record that was received at ms.
func (b *recordBlock[T]) table(ms int64) T { return b.tables.at(b.of(clampMillis(ms))) }

// put appends one record by the given function, which gets its table.
func (b *recordBlock[T]) put(ms int64, f func(T)) {
	t := b.table(ms)
	n, bytes := t.rows(), t.size()
	f(t)
	b.n += t.rows() - n
	b.bytes += t.size() - bytes
}

func (b *recordBlock[T]) empty() bool { return b.n == 0 }
func (b *recordBlock[T]) rows() int   { return b.n }
func (b *recordBlock[T]) size() int   { return b.bytes }

func (b *recordBlock[T]) parts(dst []part) []part {
	for _, day := range b.tables.days() {
		dst = append(dst, part{b.tables.tables[day], dayName(day)})
	}
	return dst
}

func (b *recordBlock[T]) reset() {
	b.tables.reset()
	b.n, b.bytes = 0, 0
}

// Quarantine writes records that left the way to the table of that name. A record that is put again, after a
// crash for example, is the same row. All methods are safe for concurrent use.
type Quarantine struct {
	writer *writer[*recordBlock[*quarantineTable]]
}

// NewQuarantine returns a Quarantine; Run must be started for records to be written.
func NewQuarantine(cfg RecordsConfig) (*Quarantine, error) {
	w, err := newWriter(cfg.writer(quarantineName), newRecordBlock(newQuarantineTable, weekOfMillis), newRecordBlock(newQuarantineTable, weekOfMillis))
	if err != nil {
		return nil, err
	}
	return &Quarantine{w}, nil
}

// Put takes records; they are copied before it returns. It blocks while both blocks are full, until ctx ends;
// after an error some of them may have been taken, which is no harm. Before the raw offset of a record is committed, Flush
// must have returned nil.
func (q *Quarantine) Put(ctx context.Context, records []QuarantinedRecord) error {
	now := time.Now().UnixMilli()
	return putRecords(ctx, q.writer, len(records), func(b *recordBlock[*quarantineTable], i int) {
		b.put(records[i].ReceivedTime, func(t *quarantineTable) { t.put(&records[i], now) })
	})
}

// putRecords fills the writer's block with n records and waits for the next one whenever it is full, so that no block is
// larger than its bounds and one record.
func putRecords[T table](ctx context.Context, w *writer[*recordBlock[T]], n int, put func(b *recordBlock[T], i int)) error {
	for i := 0; i < n; {
		b, err := w.acquire(ctx)
		if err != nil {
			return err
		}
		for i < n && b.rows() < w.cfg.maxRows && b.size() < w.cfg.maxBytes {
			put(b, i)
			i++
		}
		w.release()
	}
	return nil
}

// Flush returns nil when everything that Put took before is in ClickHouse.
func (q *Quarantine) Flush(ctx context.Context) error { return q.writer.flush(ctx) }

// Run writes until ctx ends, as Sink.Run.
func (q *Quarantine) Run(ctx context.Context) error { return q.writer.run(ctx) }

// Ready is as Sink.Ready.
func (q *Quarantine) Ready() error { return q.writer.ready() }

// RawRecords writes records as received to the table raw_records. A record that is put again is the same
// row. All methods are safe for concurrent use.
type RawRecords struct {
	writer *writer[*recordBlock[*rawTable]]
}

// NewRawRecords returns a RawRecords; Run must be started for records to be written.
func NewRawRecords(cfg RecordsConfig) (*RawRecords, error) {
	w, err := newWriter(cfg.writer(rawRecordsName), newRecordBlock(newRawTable, dayOfMillis), newRecordBlock(newRawTable, dayOfMillis))
	if err != nil {
		return nil, err
	}
	return &RawRecords{w}, nil
}

// Put takes records, as Quarantine.Put.
func (r *RawRecords) Put(ctx context.Context, records []RawRecord) error {
	return putRecords(ctx, r.writer, len(records), func(b *recordBlock[*rawTable], i int) {
		b.put(records[i].ReceivedTime, func(t *rawTable) { t.put(&records[i]) })
	})
}

// Flush returns nil when everything that Put took before is in ClickHouse.
func (r *RawRecords) Flush(ctx context.Context) error { return r.writer.flush(ctx) }

// Run writes until ctx ends, as Sink.Run.
func (r *RawRecords) Run(ctx context.Context) error { return r.writer.run(ctx) }

// Ready is as Sink.Ready.
func (r *RawRecords) Ready() error { return r.writer.ready() }
