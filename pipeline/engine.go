package pipeline

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
)

// Reporting is what a Machine may have beside its own methods, so that operators see what it holds and does. *detectors.Engine
// has it. It is called by the goroutine that calls Apply, and never during Apply.
type Reporting interface {
	Stats() detectors.Stats
	Top(limit int) []detectors.TopEntity
}

const (
	// statsInterval is how often a shard copies the numbers of its machine into the metrics.
	statsInterval = time.Second
	// reportInterval is how often it makes a new ShardReport: finding the top entities looks at every entity.
	reportInterval = 10 * time.Second
	// maxTopEntities is how many entities a ShardReport names.
	maxTopEntities = 20
)

// ShardReport is what a shard tells of its state machine, at the time Taken.
type ShardReport struct {
	Shard       int
	Epoch       uint16
	Fingerprint uint64
	Taken       time.Time
	// Stats are since the shard began in this process, the replay of the log included.
	Stats detectors.Stats
	// Top holds the entities with the most events, at most 20. Every entity has its state in one shard.
	Top      []detectors.TopEntity
	Lateness Lateness
}

// latenessBounds are the upper bounds of Lateness. Exports usually lag 2 to 8 minutes; beyond 48 h a record meets no window
// that is still kept.
var latenessBounds = [...]time.Duration{
	5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour,
}

// LatenessBounds returns the upper bounds of the counts of Lateness but the last, which has none.
func LatenessBounds() []time.Duration { return slices.Clone(latenessBounds[:]) }

// Lateness counts records by how long after their event they were received: Kafka time of the raw message minus event time. A
// record is counted where it is diagnosed; repeats count too, the replay of the log before new rows does not. Event times
// after the receipt count as no lateness.
type Lateness struct {
	// Counts are not cumulative: the first holds records up to the first bound, the last those above all bounds.
	Counts   [len(latenessBounds) + 1]uint64
	Sum, Max time.Duration
}

func (l *Lateness) observe(late time.Duration) {
	late = max(late, 0)
	i := 0
	for i < len(latenessBounds) && late > latenessBounds[i] {
		i++
	}
	l.Counts[i]++
	l.Sum += late
	l.Max = max(l.Max, late)
}

func (l *Lateness) add(o *Lateness) {
	for i, n := range o.Counts {
		l.Counts[i] += n
	}
	l.Sum += o.Sum
	l.Max = max(l.Max, o.Max)
}

// fullRoles are the roles in which a record is diagnosed: exactly one message of every record has one of them.
var fullRoles = schemas.Roles(schemas.Role_ROLE_USER, schemas.Role_ROLE_SERVICE_PRINCIPAL)

// observeLateness counts a message that was applied, where it is the one in which its record is diagnosed.
func (s *shard) observeLateness(m *schemas.EntityMessage) {
	if schemas.RoleSet(m.Roles)&fullRoles != 0 && m.ReceivedMs != 0 {
		s.lateInBatch.observe(time.Duration(m.ReceivedMs*1000-m.SignIn.EventTime) * time.Microsecond)
	}
}

// tell tells the metrics, and from time to time who asks Pipeline.Shards, how the machine is. It is called between batches by
// the shard's goroutine; a batch without records comes every MaxWait, so that it is told of the last records too.
func (s *shard) tell(now time.Time) {
	m := s.shards
	machine, ok := s.machine.(Reporting)
	if !ok || now.Before(s.statsAt) {
		return
	}
	s.statsAt = now.Add(statsInterval)
	stats := machine.Stats()
	m.metrics.engine.count(&s.counted, &stats)
	if s.engineGauges != nil {
		s.engineGauges.set(&stats)
	}
	if now.Before(s.reportAt) {
		return
	}
	s.reportAt = now.Add(reportInterval)
	stats.Detections = slices.Clone(stats.Detections)
	r := ShardReport{
		Shard: s.id, Epoch: s.position.Epoch, Fingerprint: s.position.Fingerprint, Taken: now, Stats: stats, Top: machine.Top(maxTopEntities), Lateness: s.late,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reports[s.id] = r
}

// tellAll is tell at the end of a run, whenever the last was.
func (s *shard) tellAll() {
	s.statsAt, s.reportAt = time.Time{}, time.Time{}
	s.tell(time.Now())
}

// Shards returns what the shards of this process told of their machines last, at most some 10 seconds ago while they run, in the
// order of their numbers. The reports are shared: read them only. Safe for concurrent use.
func (p *Pipeline) Shards() []ShardReport {
	if p.shards == nil {
		return nil
	}
	p.shards.mu.Lock()
	defer p.shards.mu.Unlock()
	list := make([]ShardReport, 0, len(p.shards.reports))
	for _, id := range slices.Sorted(maps.Keys(p.shards.reports)) {
		list = append(list, p.shards.reports[id])
	}
	return list
}

// forget drops what is told of a shard that this process does not have any more.
func (m *shards) forget(id int) {
	m.mu.Lock()
	delete(m.reports, id)
	delete(m.durable, id)
	m.mu.Unlock()
	m.metrics.forgetShard(id)
	m.metrics.forgetPartition(m.config.EntitiesTopic, id)
}

// engineCounters are the numbers of detectors.Stats that only grow.
var engineCounters = [...]struct {
	name, help string
	of         func(*detectors.Stats) uint64
}{
	{"engine_records_total", "Records taken in by the shards' engines, replay included, as all numbers of the engines.", func(s *detectors.Stats) uint64 { return s.Records }},
	{"engine_duplicates_total", "Exact repeats of a record from another place of the raw log.", func(s *detectors.Stats) uint64 { return s.Duplicates }},
	{"engine_merges_total", "Parts and versions united with a known record.", func(s *detectors.Stats) uint64 { return s.Merges }},
	{"engine_revised_rows_total", "Rows of diagnoses made anew because another record came.", func(s *detectors.Stats) uint64 { return s.Revised }},
	{"engine_events_total", "Failures and other events that the windows of users, addresses and others took in.", func(s *detectors.Stats) uint64 { return s.Events }},
	{"engine_events_too_late_total", "Events older than all that are kept of an entity with more than are kept; windows do not count them.",
		func(s *detectors.Stats) uint64 { return s.EventsTooLate }},
	{"engine_events_repeated_total", "Tries of a client without a person that repeat an event.", func(s *detectors.Stats) uint64 { return s.EventsRepeated }},
	{"engine_incidents_total", "Incidents opened.", func(s *detectors.Stats) uint64 { return s.Incidents }},
	{"engine_records_evicted_total", "Records that left the recent store by age or for its bound.", func(s *detectors.Stats) uint64 { return s.RecordsEvicted }},
	{"engine_entities_evicted_total", "Users, addresses and others with events that were let go by age or for the bound on state.",
		func(s *detectors.Stats) uint64 { return s.EntitiesEvicted }},
	{"engine_unreadable_records_total", "Kept records that could not be read back.", func(s *detectors.Stats) uint64 { return s.Unreadable }},
}

// engineGaugeList are the sizes in detectors.Stats.
var engineGaugeList = [...]struct {
	name, help string
	of         func(*detectors.Stats) int64
}{
	{"engine_entities", "Users, addresses and others with events.", func(s *detectors.Stats) int64 { return s.Entities }},
	{"engine_state_bytes", "What is kept of users, addresses and others.", func(s *detectors.Stats) int64 { return s.StateBytes }},
	{"engine_state_bound_bytes", "The bound of signindiag_engine_state_bytes.", func(s *detectors.Stats) int64 { return s.StateBytesBound }},
	{"engine_recent_records", "Recent records kept for merging and revisions.", func(s *detectors.Stats) int64 { return s.RecentRecords }},
	{"engine_recent_bytes", "What the recent records take.", func(s *detectors.Stats) int64 { return s.RecentBytes }},
	{"engine_recent_bound_bytes", "The bound of signindiag_engine_recent_bytes.", func(s *detectors.Stats) int64 { return s.RecentBytesBound }},
}

// engineMetrics are the numbers of the shards' machines.
type engineMetrics struct {
	counters                     [len(engineCounters)]prometheus.Counter
	gauges                       [len(engineGaugeList)]*prometheus.GaugeVec
	evaluated, fired, suppressed *prometheus.CounterVec
	// Series of every detection, in the order of Stats.Detections; those of one kind are the same.
	ofDetection []detectionCounters
	lateness    *latenessHistogram
}

type detectionCounters struct{ evaluated, fired, suppressed prometheus.Counter }

func newEngineMetrics() *engineMetrics {
	m := &engineMetrics{}
	for i, c := range engineCounters {
		m.counters[i] = prometheus.NewCounter(prometheus.CounterOpts{Name: "signindiag_" + c.name, Help: c.help})
	}
	for i, g := range engineGaugeList {
		m.gauges[i] = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "signindiag_" + g.name, Help: g.help}, []string{"shard"})
	}
	detections := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signindiag_" + name, Help: help}, []string{"kind"})
	}
	m.evaluated = detections("engine_detections_evaluated_total", "Looks of a detection at a story, by the kind of incident that it finds.")
	m.fired = detections("engine_detections_fired_total", "Incidents in which a detection found something for the first time.")
	m.suppressed = detections("engine_detections_suppressed_total", "Looks at which the numbers were reached and something spoke against an attack.")
	for _, kind := range detectors.DetectionNames() {
		m.ofDetection = append(m.ofDetection, detectionCounters{m.evaluated.WithLabelValues(kind), m.fired.WithLabelValues(kind), m.suppressed.WithLabelValues(kind)})
	}
	m.lateness = &latenessHistogram{desc: prometheus.NewDesc("signindiag_record_lateness_seconds",
		"Time from a sign-in to the receipt of its record, repeats included; a new epoch counts those again whose rows it makes again.", nil, nil)}
	return m
}

func (m *engineMetrics) collectors() []prometheus.Collector {
	list := []prometheus.Collector{m.evaluated, m.fired, m.suppressed, m.lateness}
	for _, c := range m.counters {
		list = append(list, c)
	}
	for _, g := range m.gauges {
		list = append(list, g)
	}
	return list
}

// count adds what has grown since counted to the metrics, and notes it there.
func (m *engineMetrics) count(counted, now *detectors.Stats) {
	grown := func(c prometheus.Counter, before, now uint64) {
		if now > before {
			c.Add(float64(now - before))
		}
	}
	for i := range engineCounters {
		grown(m.counters[i], engineCounters[i].of(counted), engineCounters[i].of(now))
	}
	before := counted.Detections
	if len(before) != len(now.Detections) {
		before = make([]detectors.DetectionStats, len(now.Detections))
	}
	for i := range now.Detections {
		d, was := &now.Detections[i], &before[i]
		grown(m.ofDetection[i].evaluated, was.Evaluated, d.Evaluated)
		grown(m.ofDetection[i].fired, was.Fired, d.Fired)
		grown(m.ofDetection[i].suppressed, was.Suppressed, d.Suppressed)
	}
	copy(before, now.Detections)
	*counted = *now
	counted.Detections = before
}

// engineGauges are the series of one shard.
type engineGauges [len(engineGaugeList)]prometheus.Gauge

// shard returns the series of a shard; nil where it has none.
func (m *engineMetrics) shard(id int) *engineGauges {
	if id >= maxShardLabels {
		return nil
	}
	g := &engineGauges{}
	for i := range m.gauges {
		g[i] = m.gauges[i].WithLabelValues(strconv.Itoa(id))
	}
	return g
}

func (g *engineGauges) set(s *detectors.Stats) {
	for i := range g {
		g[i].Set(float64(engineGaugeList[i].of(s)))
	}
}

func (m *engineMetrics) forget(id int) {
	for _, g := range m.gauges {
		g.DeleteLabelValues(strconv.Itoa(id))
	}
}

// latenessHistogram is a histogram that takes many observations at once, so that a shard counts by itself and adds once a batch.
type latenessHistogram struct {
	desc *prometheus.Desc
	mu   sync.Mutex
	all  Lateness
}

func (h *latenessHistogram) add(l *Lateness) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all.add(l)
}

// Describe implements prometheus.Collector.
func (h *latenessHistogram) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector.
func (h *latenessHistogram) Collect(ch chan<- prometheus.Metric) {
	h.mu.Lock()
	all := h.all
	h.mu.Unlock()
	buckets, total := make(map[float64]uint64, len(latenessBounds)), uint64(0)
	for i, bound := range latenessBounds {
		total += all.Counts[i]
		buckets[bound.Seconds()] = total
	}
	total += all.Counts[len(latenessBounds)]
	ch <- prometheus.MustNewConstHistogram(h.desc, total, all.Sum.Seconds(), buckets)
}
