package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// maxBatchBytes bounds a record batch before compression, in bytes. Event Hubs refuses requests of
// 1 046 528 bytes and more, Kafka's default bound of a batch (message.max.bytes) is 1 048 588.
const maxBatchBytes = 1_000_000

// maxRequestBatch bounds a batch as it is sent, in bytes: what Event Hubs takes, less the request's frame.
const maxRequestBatch = 1_046_528 - 1024

// RefusedError says that Kafka will not take a record, however often it is tried.
type RefusedError struct {
	Topic     string
	Partition int
	// Reason is a short stable name: too_large or invalid_record.
	Reason string
	Err    error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s/%d refuses the record (%s): %v", e.Topic, e.Partition, e.Reason, e.Err)
}

// Unwrap returns Kafka's answer.
func (e *RefusedError) Unwrap() error { return e.Err }

// refusal returns the reason when err is an answer that no retry can mend.
func refusal(err error) (reason string, ok bool) {
	switch {
	case errors.Is(err, kafka.MessageSizeTooLarge), errors.Is(err, kafka.RecordListTooLarge), errors.Is(err, errTooLarge):
		return "too_large", true
	case errors.Is(err, kafka.InvalidRecord):
		return "invalid_record", true
	}
	return "", false
}

var errTooLarge = errors.New("larger than a request may be")

// partitionProducer writes one partition with acks=all. One request is under way at a time; a batch is sent, the
// same bytes, until it is acknowledged. It is not safe for concurrent use.
type partitionProducer struct {
	kafka     *Kafka
	topic     string
	partition int
	codec     Codec
	batch     *batchWriter
	conn      *leaderConn
	log       *slog.Logger
	trouble   *Trouble
	metrics   *producerMetrics
	now       func() time.Time
}

func newPartitionProducer(k *Kafka, topic string, partition int, codec Codec, log *slog.Logger, trouble *Trouble, m *producerMetrics) (*partitionProducer, error) {
	b, err := newBatchWriter(codec)
	if err != nil {
		return nil, err
	}
	return &partitionProducer{kafka: k, topic: topic, partition: partition, codec: codec, batch: b, log: log, trouble: trouble, metrics: m, now: time.Now}, nil
}

func (p *partitionProducer) close() {
	p.conn.close()
	p.conn = nil
}

// send writes the values in order and returns when all are acknowledged, or refused for good: refused is
// called for each of those, in order, with its number; the others are written. An error is the cause of ctx, after
// which any suffix of the values may be unwritten; those behind acknowledged were not reported.
func (p *partitionProducer) send(ctx context.Context, values [][]byte, refused func(i int, err error) error, acknowledged func(n int)) error {
	for start := 0; start < len(values); {
		p.batch.reset()
		end := start
		for end < len(values) && (end == start || p.batch.size()+len(values[end])+recordOverhead <= maxBatchBytes) {
			p.batch.add(values[end])
			end++
		}
		if err := p.sendRange(ctx, values, start, end, refused); err != nil {
			return err
		}
		acknowledged(end - start)
		start = end
	}
	return nil
}

// sendRange sends values [start, end), which p.batch holds. Where Kafka refuses a batch for good, its halves are sent
// one after the other, down to the record that it will not take.
func (p *partitionProducer) sendRange(ctx context.Context, values [][]byte, start, end int, refused func(int, error) error) error {
	set, err := p.batch.finish(p.now().UnixMilli())
	if err != nil {
		return err
	}
	reason := ""
	if len(set) > maxRequestBatch {
		reason, err = "too_large", errTooLarge
	} else {
		count := end - start
		err = persist(ctx, p.log, p.trouble, fmt.Sprintf("write %d records to %s/%d", count, p.topic, p.partition), func() error {
			err := p.attempt(ctx, set)
			if err == nil {
				p.metrics.sent(count, len(set))
				return nil
			}
			p.close()
			p.metrics.failed()
			var final bool
			if reason, final = refusal(err); final {
				return nil
			}
			reason = ""
			if errors.Is(err, kafka.InvalidTimestamp) {
				// The time is ours, not the records': they wait until the clocks agree.
				renewed, failed := p.batch.finish(p.now().UnixMilli())
				if failed != nil {
					return failed
				}
				set = renewed
				return fmt.Errorf("the broker does not believe the clock of this machine; set one of the two right: %w", err)
			}
			return err
		})
		if err != nil {
			return err
		}
		if reason == "" {
			return nil
		}
		err = kafka.InvalidRecord
		if reason == "too_large" {
			err = kafka.MessageSizeTooLarge
		}
	}
	if end-start == 1 {
		return refused(start, &RefusedError{Topic: p.topic, Partition: p.partition, Reason: reason, Err: err})
	}
	middle := start + (end-start)/2
	for _, half := range [2][2]int{{start, middle}, {middle, end}} {
		p.batch.reset()
		for _, v := range values[half[0]:half[1]] {
			p.batch.add(v)
		}
		if err := p.sendRange(ctx, values, half[0], half[1], refused); err != nil {
			return err
		}
	}
	return nil
}

// attempt sends one produce request and waits for its answer.
func (p *partitionProducer) attempt(ctx context.Context, set []byte) error {
	if p.conn == nil {
		conn, err := p.kafka.dialLeader(ctx, p.topic, p.partition)
		if err != nil {
			return err
		}
		p.conn = conn
	}
	conn := p.conn
	stop := context.AfterFunc(ctx, conn.close)
	defer stop()
	b := conn.begin(apiProduce, versionProduce)
	b = appendInt16(b, -1) // no transaction
	b = appendInt16(b, -1) // acks=all
	b = appendInt32(b, int32(conn.timeout.Milliseconds()))
	b = appendInt32(b, 1)
	b = appendString(b, p.topic)
	b = appendInt32(b, 1)
	b = appendInt32(b, int32(p.partition))
	b = appendInt32(b, int32(len(set)))
	if err := conn.send(b, set); err != nil {
		return err
	}
	crashpoint.At(crashpoint.ProduceSent)
	// The broker gives up after conn.timeout; wait a little longer for it to say so.
	w, err := conn.receive(conn.timeout + conn.timeout/4)
	if err != nil {
		return err
	}
	w.array()
	w.string()
	w.array()
	w.int32() // partition
	code := kafka.Error(w.int16())
	w.int64() // base offset
	if w.failed {
		return errProtocol
	}
	if code != 0 {
		return code
	}
	crashpoint.At(crashpoint.ProduceAcknowledged)
	return nil
}

// lane writes what all routers of the process have for one partition of the entities topic. It keeps the
// order in which each router hands over its chunks.
type lane struct {
	producer *partitionProducer
	in       chan *chunk
	// refuse takes a record that Kafka will not take. Its error ends the lane.
	refuse func(ctx context.Context, value []byte, err *RefusedError) error
}

// laneQueue bounds the chunks that wait for a lane. One router may have several under way.
const laneQueue = 8

// chunk is the messages that one read of a raw partition has for one partition of the entities topic.
type chunk struct {
	data   []byte
	ends   []int
	flight *flight
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func (c *chunk) release() {
	// A rare huge chunk is left to the collector, so that the pool stays small.
	if cap(c.data) > 8<<20 {
		return
	}
	c.data, c.ends, c.flight = c.data[:0], c.ends[:0], nil
	chunks.Put(c)
}

// run writes chunks until ctx is done or in is closed. Chunks that wait are written together.
func (l *lane) run(ctx context.Context) error {
	defer l.producer.close()
	var taken []*chunk
	var values [][]byte
	var counts []int
	for {
		var c *chunk
		var ok bool
		select {
		case <-ctx.Done():
			return nil
		case c, ok = <-l.in:
			if !ok {
				return nil
			}
		}
		taken, values, counts = taken[:0], values[:0], counts[:0]
		size := 0
	gather:
		for {
			taken = append(taken, c)
			start := 0
			for _, end := range c.ends {
				values = append(values, c.data[start:end:end])
				start = end
			}
			counts = append(counts, len(c.ends))
			if size += len(c.data); size >= maxBatchBytes {
				break
			}
			select {
			case c, ok = <-l.in:
				if !ok {
					break gather
				}
			default:
				break gather
			}
		}
		done := 0
		err := l.producer.send(ctx, values,
			func(i int, err error) error {
				var r *RefusedError
				if !errors.As(err, &r) {
					return err
				}
				return l.refuse(ctx, values[i], r)
			},
			func(n int) {
				for n > 0 {
					k := min(n, counts[done])
					counts[done] -= k
					n -= k
					if counts[done] == 0 {
						taken[done].flight.finish()
						taken[done].release()
						done++
					}
				}
			})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("write %s/%d: %w", l.producer.topic, l.producer.partition, err)
		}
	}
}

// Refused is a value that Kafka would not take.
type Refused struct {
	// Index is the value's number in Send's argument.
	Index int
	Err   error
}

// RawProducer writes records without keys to a raw topic, spread over its partitions by whole batches. It is
// not safe for concurrent use.
type RawProducer struct {
	topic      string
	partitions []*partitionProducer
	next       int
	written    atomic.Int64
}

// NewRawProducer returns a producer for the topic, which must exist. The caller closes it.
func NewRawProducer(ctx context.Context, k *Kafka, topic string, codec Codec, log *slog.Logger) (*RawProducer, error) {
	parts, err := k.TopicPartitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	p := &RawProducer{topic: topic}
	for i := range parts {
		pp, err := newPartitionProducer(k, topic, i, codec, log, nil, nil)
		if err != nil {
			return nil, err
		}
		p.partitions = append(p.partitions, pp)
	}
	return p, nil
}

// Send writes the values and returns when every one of them is acknowledged by all in-sync replicas, or refused
// for good. It tries for ever until ctx is done; the error is then the cause of ctx and it is unknown which of the values
// were written. So a caller that notes its own position after every Send that returned can go on from there: values are
// then written at least once.
func (p *RawProducer) Send(ctx context.Context, values [][]byte) ([]Refused, error) {
	// Batches of about 256 KiB keep all partitions busy without making many small requests.
	const share = 256 << 10
	type span struct{ start, end int }
	spans := make([][]span, len(p.partitions))
	for start := 0; start < len(values); {
		end, size := start, 0
		for end < len(values) && (end == start || size+len(values[end]) <= share) {
			size += len(values[end])
			end++
		}
		spans[p.next] = append(spans[p.next], span{start, end})
		p.next = (p.next + 1) % len(p.partitions)
		start = end
	}
	var mu sync.Mutex
	var refused []Refused
	var failed error
	var wg sync.WaitGroup
	for i, todo := range spans {
		if len(todo) == 0 {
			continue
		}
		wg.Go(func() {
			for _, s := range todo {
				err := p.partitions[i].send(ctx, values[s.start:s.end],
					func(j int, err error) error {
						mu.Lock()
						defer mu.Unlock()
						refused = append(refused, Refused{s.start + j, err})
						return nil
					},
					func(n int) { p.written.Add(int64(n)) })
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	p.written.Add(-int64(len(refused)))
	if failed != nil {
		return refused, fmt.Errorf("write to %s: %w", p.topic, failed)
	}
	return refused, nil
}

// Written returns how many values are acknowledged so far. It may be called while Send runs.
func (p *RawProducer) Written() int64 { return p.written.Load() }

// Close ends the connections.
func (p *RawProducer) Close() {
	for _, pp := range p.partitions {
		pp.close()
	}
}
