package pipeline

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxShardLabels bounds the partitions that get time series of their own.
const maxShardLabels = 64

// maxCategoryLabels bounds the names of other logs that get time series of their own: they come from the
// input.
const maxCategoryLabels = 32

// maxCodeLabels bounds the error codes unknown to the catalogue that get time series of their own. Microsoft adds some in a
// year; the bound is for input that is none of Entra's.
const maxCodeLabels = 100

// metrics are the numbers of one Pipeline.
type metrics struct {
	messages      prometheus.Counter
	messageBytes  prometheus.Counter
	fetchedBytes  *prometheus.CounterVec
	records       *prometheus.CounterVec
	skipped       *prometheus.CounterVec
	unknownFields prometheus.Counter
	quarantined   *prometheus.CounterVec
	entities      prometheus.Counter
	holes         *prometheus.CounterVec
	holeRecords   *prometheus.CounterVec
	lag           *prometheus.GaugeVec
	lagSeconds    *lagAges
	position      *prometheus.GaugeVec
	retries       *prometheus.CounterVec
	commits       *prometheus.CounterVec
	generations   *prometheus.CounterVec
	owned         *prometheus.GaugeVec
	shards        prometheus.Gauge
	producer      *producerMetrics
	applied       prometheus.Counter
	rows          *prometheus.CounterVec
	unknownCodes  *prometheus.CounterVec
	replayed      prometheus.Counter
	received      *prometheus.GaugeVec
	durable       *prometheus.GaugeVec
	epoch         *prometheus.GaugeVec
	remaining     *prometheus.GaugeVec
	recovery      prometheus.Histogram
	snapshotTaken *prometheus.GaugeVec
	snapshotAt    *prometheus.GaugeVec
	snapshots     *prometheus.CounterVec
	snapshotBytes prometheus.Histogram
	snapshotTime  prometheus.Histogram
	// rebalanceSeconds is by stage.
	rebalanceSeconds *prometheus.HistogramVec
	stopped          *prometheus.GaugeVec
	engine           *engineMetrics

	mu         sync.Mutex
	categories map[string]bool
	codes      map[string]bool
}

// producerMetrics count what is written to Kafka. A nil *producerMetrics counts nothing.
type producerMetrics struct {
	records  prometheus.Counter
	batches  prometheus.Counter
	bytes    prometheus.Counter
	failures prometheus.Counter
}

func (m *producerMetrics) sent(records, bytes int) {
	if m != nil {
		m.records.Add(float64(records))
		m.batches.Inc()
		m.bytes.Add(float64(bytes))
	}
}

func (m *producerMetrics) failed() {
	if m != nil {
		m.failures.Inc()
	}
}

// newMetrics makes the metrics and registers them, unless registerer is nil.
func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "signindiag_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signindiag_" + name, Help: help}, labels)
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "signindiag_" + name, Help: help}, labels)
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "signindiag_" + name, Help: help, NativeHistogramBucketFactor: 1.1,
			NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour})
	}
	m := &metrics{
		messages:      counter("router_messages_total", "Raw Kafka messages read."),
		messageBytes:  counter("router_message_bytes_total", "Bytes of raw Kafka messages read, uncompressed."),
		fetchedBytes:  counters("kafka_fetched_bytes_total", "Bytes of record sets fetched, as they came.", "topic"),
		records:       counters("router_records_total", "Sign-in records decoded.", "category"),
		skipped:       counters("router_skipped_total", "Records of other logs, which are skipped.", "category"),
		unknownFields: counter("router_unknown_fields_total", "Sign-in records that hold fields unknown to this version."),
		quarantined:   counters("quarantined_total", "Records that left the way to quarantine.", "stage", "reason"),
		entities:      counter("router_entities_total", "Messages dealt to the entities topic."),
		holes:         counters("kafka_holes_total", "Ranges of offsets that were to be read and are not in the log.", "topic", "reason"),
		holeRecords:   counters("kafka_hole_records_total", "Offsets that were to be read and are not in the log.", "topic", "reason"),
		lag:           gauges("kafka_lag_records", "Offsets between the reader and the end of the partition.", "topic", "partition"),
		lagSeconds: &lagAges{parts: map[partitionKey]*partitionGauges{}, desc: prometheus.NewDesc("signindiag_kafka_lag_seconds",
			"Age of the records in hand or, where more wait, read last; 0 where none do. While a sink takes nothing it grows.", []string{"topic", "partition"}, nil)},
		retries:     counters("retries_total", "Attempts that failed and are made again, by the topic, or what is done with it; /readyz tells the reasons.", "what"),
		commits:     counters("kafka_commit_failures_total", "Failed commits of offsets; those of shards are hints for lag tools alone.", "stage"),
		generations: counters("group_generations_total", "Generations of the consumer group that this process took part in: one more with every rebalance.", "stage"),
		owned:       gauges("group_partitions", "Partitions that this process has.", "stage"),
		shards:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "signindiag_shards", Help: "Shards that all processes have together."}),
		position:    gauges("kafka_position", "Offset that is read next.", "topic", "partition"),
		producer: &producerMetrics{
			records:  counter("producer_records_total", "Records written to the entities topic and acknowledged."),
			batches:  counter("producer_batches_total", "Batches written to the entities topic and acknowledged."),
			bytes:    counter("producer_bytes_total", "Bytes written to the entities topic and acknowledged, compressed."),
			failures: counter("producer_failures_total", "Attempts to write a batch that failed."),
		},
		applied:  counter("shard_messages_total", "Messages of the entities topic applied, replay included."),
		replayed: counter("shard_replayed_total", "Messages applied again without emission after a start."),
		rows:     counters("shard_rows_total", "Rows handed to the sink.", "table"),
		unknownCodes: counters("shard_unknown_codes_total",
			"Sign-in records whose error code the catalogue does not know, without repeats; a new epoch counts those again whose rows it makes again.", "code"),
		received:      gauges("shard_received_timestamp_seconds", "Kafka time of the raw message that was applied last.", "shard"),
		durable:       gauges("shard_durable_offset", "Last offset of the entities topic whose rows are stored.", "shard"),
		epoch:         gauges("shard_epoch", "Epoch of the shard's rows.", "shard"),
		remaining:     gauges("shard_recovery_messages", "Messages between the shard and the last one whose rows were stored before it began, 0 when its replay is done.", "shard"),
		recovery:      histogram("shard_recovery_seconds", "Time from taking on a shard to the end of its replay."),
		snapshotTaken: gauges("snapshot_timestamp_seconds", "When the newest snapshot was taken whose rows were stored by then; the start of the shard where it began without one.", "shard"),
		snapshotAt:    gauges("snapshot_offset", "Offset of that snapshot: a start replays the messages behind it.", "shard"),
		snapshots:     counters("snapshots_total", "Snapshots by result.", "result"),
		snapshotBytes: histogram("snapshot_bytes", "Size of a snapshot as stored."),
		snapshotTime:  histogram("snapshot_seconds", "Time to store a snapshot."),
		rebalanceSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "signindiag_rebalance_seconds",
			Help: "Time from the end of a generation of the consumer group to the next one: nothing is read meanwhile.", Buckets: []float64{.1, .3, 1, 3, 10, 30, 60, 120}}, []string{"stage"}),
		stopped:    gauges("partition_stopped", "1 for a partition that is not read any more until a person decides.", "topic", "partition"),
		engine:     newEngineMetrics(),
		categories: make(map[string]bool),
		codes:      make(map[string]bool),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range append([]prometheus.Collector{m.messages, m.messageBytes, m.fetchedBytes, m.records, m.skipped, m.unknownFields, m.quarantined,
		m.entities, m.holes, m.holeRecords, m.lag, m.lagSeconds, m.position, m.retries, m.commits, m.generations, m.owned, m.shards, m.producer.records, m.producer.batches, m.producer.bytes, m.producer.failures,
		m.applied, m.replayed, m.rows, m.unknownCodes, m.received, m.durable, m.epoch, m.remaining, m.recovery, m.snapshotTaken, m.snapshotAt, m.snapshots, m.snapshotBytes, m.snapshotTime, m.rebalanceSeconds, m.stopped}, m.engine.collectors()...) {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register the pipeline's metrics: %w", err)
		}
	}
	return m, nil
}

// category returns the label for the name of another log: the name itself for the first ones, then "other".
func (m *metrics) category(name string) string {
	if len(name) > 64 {
		return "other"
	}
	return m.bounded(m.categories, maxCategoryLabels, name)
}

// code returns the label for an error code that the catalogue does not know: the number for the first ones, then "other".
func (m *metrics) code(code int32) string {
	return m.bounded(m.codes, maxCodeLabels, strconv.Itoa(int(code)))
}

// bounded returns name while it is among the first that seen holds, then "other".
func (m *metrics) bounded(seen map[string]bool, bound int, name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seen[name] {
		return name
	}
	if len(seen) >= bound {
		return "other"
	}
	seen[name] = true
	return name
}

func (m *metrics) hole(h Hole) {
	m.holes.WithLabelValues(h.Topic, h.Reason).Inc()
	m.holeRecords.WithLabelValues(h.Topic, h.Reason).Add(float64(h.To - h.From))
}

// partitionGauges are the series of one partition; nil where it has none.
type partitionGauges struct {
	lag, position prometheus.Gauge
	// behind is the Kafka time of the first record in hand, and else of the one that was read last, milliseconds since the Unix
	// epoch; 0 when none is in hand and none waits.
	behind atomic.Int64
}

func (m *metrics) partition(topic string, partition int) *partitionGauges {
	if partition >= maxShardLabels {
		return nil
	}
	p := strconv.Itoa(partition)
	g := &partitionGauges{lag: m.lag.WithLabelValues(topic, p), position: m.position.WithLabelValues(topic, p)}
	m.lagSeconds.mu.Lock()
	defer m.lagSeconds.mu.Unlock()
	m.lagSeconds.parts[partitionKey{topic, partition}] = g
	return g
}

// forgetPartition drops the series of a partition that this process does not read any more: another one tells of it.
func (m *metrics) forgetPartition(topic string, partition int) {
	p := strconv.Itoa(partition)
	for _, g := range []*prometheus.GaugeVec{m.lag, m.position, m.stopped} {
		g.DeleteLabelValues(topic, p)
	}
	m.lagSeconds.mu.Lock()
	defer m.lagSeconds.mu.Unlock()
	delete(m.lagSeconds.parts, partitionKey{topic, partition})
}

func (g *partitionGauges) set(b *Batch) {
	if g == nil {
		return
	}
	g.lag.Set(float64(max(b.End-b.Next, 0)))
	g.position.Set(float64(b.Next))
	switch {
	case len(b.Records) > 0:
		g.behind.Store(b.Records[0].Time)
	case b.Next >= b.End:
		g.behind.Store(0)
	}
}

// handled tells that what set told of is not in hand any more.
func (g *partitionGauges) handled(b *Batch) {
	if g != nil && b.Next >= b.End {
		g.behind.Store(0)
	}
}

// lagAges tells how far partitions are behind in time, when it is asked: a reader that stands still falls behind too.
type lagAges struct {
	desc  *prometheus.Desc
	mu    sync.Mutex
	parts map[partitionKey]*partitionGauges
}

// Describe implements prometheus.Collector.
func (l *lagAges) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc }

// Collect implements prometheus.Collector.
func (l *lagAges) Collect(ch chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, g := range l.parts {
		age := 0.0
		if at := g.behind.Load(); at > 0 {
			age = max(time.Since(time.UnixMilli(at)).Seconds(), 0)
		}
		ch <- prometheus.MustNewConstMetric(l.desc, prometheus.GaugeValue, age, key.topic, strconv.Itoa(key.partition))
	}
}

// shardGauges are the series of one shard; nil where it has none.
type shardGauges struct{ received, durable, epoch, remaining, snapshotTaken, snapshotAt prometheus.Gauge }

func (m *metrics) shard(id int) *shardGauges {
	if id >= maxShardLabels {
		return nil
	}
	s := strconv.Itoa(id)
	return &shardGauges{m.received.WithLabelValues(s), m.durable.WithLabelValues(s), m.epoch.WithLabelValues(s), m.remaining.WithLabelValues(s),
		m.snapshotTaken.WithLabelValues(s), m.snapshotAt.WithLabelValues(s)}
}

// snapshot tells of the newest snapshot that a start can begin with. taken is in milliseconds since the Unix epoch.
func (g *shardGauges) snapshot(offset, taken int64) {
	if g != nil {
		g.snapshotTaken.Set(float64(taken) / 1000)
		g.snapshotAt.Set(float64(offset))
	}
}

// forgetShard drops the series of a shard that this process does not have any more.
func (m *metrics) forgetShard(id int) {
	for _, g := range []*prometheus.GaugeVec{m.received, m.durable, m.epoch, m.remaining, m.snapshotTaken, m.snapshotAt} {
		g.DeleteLabelValues(strconv.Itoa(id))
	}
	m.engine.forget(id)
}
