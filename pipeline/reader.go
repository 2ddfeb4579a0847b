package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/segmentio/kafka-go"
)

// Hole is a range of offsets [From, To) that a reader asked for and that the log does not have.
type Hole struct {
	Topic     string
	Partition int
	From, To  int64
	// Reason is HoleExpired or HoleMissing.
	Reason string
}

// Reasons of a Hole.
const (
	// HoleExpired: the records were deleted before they were read, by retention or by a person.
	HoleExpired = "expired"
	// HoleMissing: the log skips the offsets, as a compacted topic does.
	HoleMissing = "missing"
)

// LogEndError says that a log ends below a position that was reached in it: the topic was deleted and made
// again, or its brokers lost the end of it.
type LogEndError struct {
	Topic     string
	Partition int
	// Offset was to be read, First and End are what the log has: [First, End).
	Offset, First, End int64
}

func (e *LogEndError) Error() string {
	return fmt.Sprintf("%s/%d ends at offset %d, but it was read up to %d: the topic was deleted and made again, or lost its end", e.Topic, e.Partition, e.End, e.Offset)
}

// HashError says that the record at a position reached earlier is another one now.
type HashError struct {
	Topic     string
	Partition int
	Offset    int64
	Want, Got uint64
}

func (e *HashError) Error() string {
	return fmt.Sprintf("%s/%d: the record at offset %d is another one than was read there (hash %016x, want %016x): the topic was deleted and made again, or lost its end",
		e.Topic, e.Partition, e.Offset, e.Got, e.Want)
}

// CorruptError says that a batch in the log cannot be read.
type CorruptError struct {
	Topic     string
	Partition int
	Offset    int64
	Err       error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s/%d cannot be read at offset %d: %v; if no replica has the batch whole, skip it with kafka-consumer-groups.sh --reset-offsets", e.Topic, e.Partition, e.Offset, e.Err)
}

// Unwrap returns what is wrong with the batch.
func (e *CorruptError) Unwrap() error { return e.Err }

// Batch is what one fetch brought.
type Batch struct {
	// Records are in offset order. Their values are valid until the reader's next call.
	Records []Record
	// Next is the offset behind the batch; it lies beyond the last record where control records follow.
	Next int64
	// End is the offset that the partition's next record will get (the high watermark).
	End int64
	// Bytes is the size of the fetched record set, compressed as it came.
	Bytes int
}

// ReaderConfig says what a Reader reads.
type ReaderConfig struct {
	Topic     string
	Partition int
	// Offset is the first offset to read.
	Offset int64
	// MaxBytes is how much one fetch asks for; 0 means 2 MiB.
	MaxBytes int
	// MaxWait is how long the broker waits for a first record; 0 means 250 ms. It must be well below
	// KafkaConfig.RequestTimeout.
	MaxWait time.Duration
	Logger  *slog.Logger
	// OnHole is called for every hole, before the records behind it are returned. It may be nil.
	OnHole func(Hole)
	// Trouble is told what keeps the reader from reading. It may be nil.
	Trouble *Trouble
}

// Reader reads one partition in order. It is not safe for concurrent use.
type Reader struct {
	kafka     *Kafka
	config    ReaderConfig
	next      int64
	maxBytes  int
	conn      *leaderConn
	asked     bool // a fetch is under way on conn
	batches   batchReader
	records   []Record
	gaps      []gap
	aborted   []abortedTransaction
	batch     Batch
	wait      backoff
	corrupt   int
	lastError time.Time

	// last and lastHash are of the last record returned, -1 for none. After a broken connection reading begins there
	// once more (recheck), so that a topic that was made again meanwhile does not pass for the same one.
	last     int64
	lastHash uint64
	recheck  bool
}

// NewReader returns a reader; it connects with the first Next.
func NewReader(k *Kafka, config ReaderConfig) *Reader {
	if config.MaxBytes == 0 {
		config.MaxBytes = 2 << 20
	}
	if config.MaxWait == 0 {
		config.MaxWait = 250 * time.Millisecond
	}
	return &Reader{kafka: k, config: config, next: config.Offset, maxBytes: config.MaxBytes, last: -1}
}

// Close ends the connection.
func (r *Reader) Close() {
	r.conn.close()
	r.conn, r.asked = nil, false
}

// Next returns what lies behind the batch before. It asks the broker for the following batch before it returns,
// so that broker and caller work at the same time. A batch without records means that nothing came for
// MaxWait. Next tries for ever through network errors and moved partitions; it returns a *LogEndError or a
// *HashError where the log is not the one that was read before, a *CorruptError, or the cause of ctx.
func (r *Reader) Next(ctx context.Context) (*Batch, error) {
	for {
		batch, err := r.fetch(ctx)
		if err == nil {
			r.wait.reset()
			r.config.Trouble.Clear()
			return batch, nil
		}
		r.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var end *LogEndError
		var other *HashError
		var corrupt *CorruptError
		if errors.As(err, &end) || errors.As(err, &other) {
			return nil, err
		}
		// A corrupt batch may have been damaged on the way: only a repeated one is given up.
		if errors.As(err, &corrupt) {
			if r.corrupt++; r.corrupt >= 5 {
				return nil, err
			}
		}
		r.config.Trouble.Set(fmt.Sprintf("read %s/%d at offset %d: %v", r.config.Topic, r.config.Partition, r.next, err))
		if now := time.Now(); now.Sub(r.lastError) >= 30*time.Second {
			r.lastError = now
			r.config.Logger.Warn("trying again to read", "topic", r.config.Topic, "partition", r.config.Partition, "offset", r.next, "error", err)
		}
		if err := r.wait.wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) fetch(ctx context.Context) (*Batch, error) {
	if r.conn == nil {
		conn, err := r.kafka.dialLeader(ctx, r.config.Topic, r.config.Partition)
		if err != nil {
			return nil, err
		}
		r.conn, r.asked, r.recheck = conn, false, r.last >= 0
	}
	conn := r.conn
	stop := context.AfterFunc(ctx, conn.close)
	defer stop()
	if !r.asked {
		if err := r.ask(); err != nil {
			return nil, err
		}
	}
	r.asked = false
	w, err := conn.receive(r.config.MaxWait + r.kafka.config.RequestTimeout)
	if err != nil {
		return nil, err
	}
	w.int32() // throttle; the broker delays the answer by itself
	if code := kafka.Error(w.int16()); code != 0 {
		return nil, code
	}
	w.int32() // session
	w.array()
	w.string()
	w.array()
	w.int32() // partition
	code := kafka.Error(w.int16())
	end := w.int64()
	w.int64() // last stable offset
	logStart := w.int64()
	r.aborted = r.aborted[:0]
	for range w.array() {
		if w.failed {
			break
		}
		r.aborted = append(r.aborted, abortedTransaction{w.int64(), w.int64()})
	}
	set := w.bytes()
	if w.failed {
		return nil, errProtocol
	}
	if code == kafka.OffsetOutOfRange {
		batch, err := r.outOfRange(ctx)
		if errors.Is(err, errExpiredLast) {
			r.recheck, r.last = false, -1
		}
		return batch, err
	}
	if code != 0 {
		return nil, code
	}
	slices.SortFunc(r.aborted, func(a, b abortedTransaction) int { return cmp.Compare(a.first, b.first) })
	from := r.from()
	read := r.next
	r.records, r.gaps, r.next, err = r.batches.decode(set, from, r.aborted, r.records[:0], r.gaps[:0])
	if r.recheck && err == nil && (len(r.records) > 0 || r.next > read) {
		r.recheck = false
		if len(r.records) > 0 && r.records[0].Offset == r.last {
			if got := hashRecord(r.records[0].Value); got != r.lastHash {
				return nil, &HashError{r.config.Topic, r.config.Partition, r.last, r.lastHash, got}
			}
			r.records = r.records[1:]
		}
		from, r.next = read, max(r.next, read)
	}
	for _, g := range r.gaps {
		if g.from = max(g.from, from); g.from >= g.to {
			continue
		}
		reason := HoleMissing
		if g.to <= logStart {
			reason = HoleExpired
		}
		r.hole(g.from, g.to, reason)
	}
	if err != nil {
		if len(r.records) == 0 && r.next == from {
			return nil, &CorruptError{r.config.Topic, r.config.Partition, r.next, err}
		}
		// What lies before the corrupt batch is good; the next fetch meets the batch again.
		if n := len(r.records); n > 0 {
			r.next = r.records[n-1].Offset + 1
			r.last, r.lastHash = r.records[n-1].Offset, hashRecord(r.records[n-1].Value)
		}
		r.asked = false
		r.batch = Batch{Records: r.records, Next: r.next, End: end, Bytes: len(set)}
		return &r.batch, nil
	}
	r.corrupt = 0
	if n := len(r.records); n > 0 {
		r.last, r.lastHash = r.records[n-1].Offset, hashRecord(r.records[n-1].Value)
	}
	if r.next == from && len(set) > 0 {
		// A batch larger than the fetch, from a broker that cuts it off: ask for more.
		if r.maxBytes > maxResponse/4 {
			return nil, &CorruptError{r.config.Topic, r.config.Partition, r.next, fmt.Errorf("a batch larger than %d bytes: %w", r.maxBytes, errCorrupt)}
		}
		r.maxBytes *= 2
	}
	r.batch = Batch{Records: r.records, Next: r.next, End: end, Bytes: len(set)}
	if err := r.ask(); err != nil {
		r.Close() // the batch is good, the next call connects anew
	}
	return &r.batch, nil
}

// errExpiredLast says that the last record returned is not in the log any more.
var errExpiredLast = errors.New("the last record that was read has expired")

// from is the offset to fetch: next, or that of the last record to be compared.
func (r *Reader) from() int64 {
	if r.recheck {
		return r.last
	}
	return r.next
}

// ask sends a fetch.
func (r *Reader) ask() error {
	b := r.conn.begin(apiFetch, versionFetch)
	b = appendInt32(b, -1) // replica: none, a consumer
	b = appendInt32(b, int32(r.config.MaxWait.Milliseconds()))
	b = appendInt32(b, 1) // min bytes
	b = appendInt32(b, int32(r.maxBytes))
	b = append(b, 1)       // read committed
	b = appendInt32(b, 0)  // no session
	b = appendInt32(b, -1) // session epoch
	b = appendInt32(b, 1)
	b = appendString(b, r.config.Topic)
	b = appendInt32(b, 1)
	b = appendInt32(b, int32(r.config.Partition))
	b = appendInt32(b, -1) // leader epoch: unknown
	b = appendInt64(b, r.from())
	b = appendInt64(b, -1) // log start offset: for followers
	b = appendInt32(b, int32(r.maxBytes))
	b = appendInt32(b, 0) // forgotten topics
	if err := r.conn.send(b, nil); err != nil {
		return err
	}
	r.asked = true
	return nil
}

// outOfRange finds out why the log does not have next.
func (r *Reader) outOfRange(ctx context.Context) (*Batch, error) {
	first, end, err := r.kafka.ListOffsets(ctx, r.config.Topic, r.config.Partition)
	if err != nil {
		return nil, err
	}
	switch {
	case r.next < first:
		r.hole(r.next, first, HoleExpired)
		r.next, r.last, r.recheck = first, -1, false
		r.batch = Batch{Next: first, End: end}
		return &r.batch, nil
	case r.next > end:
		return nil, &LogEndError{Topic: r.config.Topic, Partition: r.config.Partition, Offset: r.next, First: first, End: end}
	}
	if r.recheck && r.last < first {
		return nil, errExpiredLast
	}
	// The broker that answered is behind the one that leads now.
	return nil, kafka.OffsetOutOfRange
}

func (r *Reader) hole(from, to int64, reason string) {
	if r.config.OnHole != nil {
		r.config.OnHole(Hole{Topic: r.config.Topic, Partition: r.config.Partition, From: from, To: to, Reason: reason})
	}
}

// hashRecord is the hash that stands beside a stored offset: xxHash64 of the record's value.
func hashRecord(value []byte) uint64 { return xxhash.Sum64(value) }

// verifyRecord compares the record at offset with the hash that was stored for it. A record that has
// expired cannot be compared: known is false. The error is a *LogEndError or a *HashError where the log
// is not the one that was read, or the cause of ctx; network errors are tried again.
func (k *Kafka) verifyRecord(ctx context.Context, topic string, partition int, offset int64, hash uint64, log *slog.Logger, trouble *Trouble) (known bool, err error) {
	var first, end int64
	if err := persist(ctx, log, trouble, "read the offsets of "+topic, func() (err error) {
		first, end, err = k.ListOffsets(ctx, topic, partition)
		return err
	}); err != nil {
		return false, err
	}
	if offset >= end {
		return false, &LogEndError{Topic: topic, Partition: partition, Offset: offset + 1, First: first, End: end}
	}
	if offset < first {
		return false, nil
	}
	r := NewReader(k, ReaderConfig{Topic: topic, Partition: partition, Offset: offset, MaxBytes: 1, Logger: log, Trouble: trouble})
	defer r.Close()
	for {
		batch, err := r.Next(ctx)
		if err != nil {
			return false, err
		}
		for _, rec := range batch.Records {
			if rec.Offset != offset {
				return false, nil // expired meanwhile, or compacted away
			}
			if got := hashRecord(rec.Value); got != hash {
				return false, &HashError{Topic: topic, Partition: partition, Offset: offset, Want: hash, Got: got}
			}
			return true, nil
		}
		if batch.Next > offset {
			return false, nil
		}
	}
}
