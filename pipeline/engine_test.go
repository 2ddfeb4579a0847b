package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
)

var _ Reporting = (*detectors.Engine)(nil)

// withEngine gives a process real engines, and returns a function that lists them.
func withEngine(t testing.TB, p *process, o detectors.Options) func() []*detectors.Engine {
	t.Helper()
	var mu sync.Mutex
	var engines []*detectors.Engine
	o.Catalogue = knowledge
	p.pipeline.router.deps.Wanted, p.pipeline.router.deps.Catalogue = detectors.WantedRoles(), knowledge
	p.pipeline.shards.deps.NewMachine = func(shard, shards uint32) (Machine, error) {
		o := o // shards begin at the same time
		o.Shard, o.Shards = shard, shards
		e, err := detectors.NewEngine(o)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		engines = append(engines, e)
		return e, nil
	}
	return func() []*detectors.Engine {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(engines)
	}
}

// at returns signIn with another time.
func at(n int, user string, when time.Time) string {
	text := signIn(n, user)
	text = strings.Replace(text, fmt.Sprintf("2026-03-02T09:00:%02d.0000000Z", n%60), when.UTC().Format("2006-01-02T15:04:05.0000000Z"), 1)
	return strings.Replace(text, fmt.Sprintf("2026-03-02T09:00:%02d+00:00", n%60), when.UTC().Format("2006-01-02T15:04:05+00:00"), 1)
}

func TestEngineMetrics(t *testing.T) {
	w := newWorld(t, 1, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	now := time.Now()
	var values []string
	// Odd numbers are wrong passwords: the user mistypes six times three minutes ago. The last bounds of the lateness are as
	// far from the times as a slow machine may be late.
	for i := range 6 {
		values = append(values, at(2*i+1, "ann@example.com", now.Add(-3*time.Minute+time.Duration(i)*time.Second)))
	}
	values = append(values, at(20, "ben@example.com", now.Add(-20*time.Hour)), at(22, "cleo@example.com", now.Add(-72*time.Hour)))
	values = append(values, values[0], values[6]) // repeats from another place of the log
	produceRawOne(t, k, values...)

	registry := prometheus.NewPedanticRegistry()
	var engines func() []*detectors.Engine
	p := w.start(t, func(p *process) {
		engines = withEngine(t, p, detectors.Options{StateBytes: 1 << 20, RecentBytes: 2 << 20})
		registry.MustRegister(p.pipeline.metrics.engine.collectors()...)
	})
	metrics := p.pipeline.metrics.engine
	eventually(t, "all rows", func() bool { return w.rows() == 8 })
	// Duplicates make no row: only the numbers tell that the shards are through.
	of := func(name string) prometheus.Counter {
		for i := range engineCounters {
			if engineCounters[i].name == name {
				return metrics.counters[i]
			}
		}
		t.Fatalf("there is no %s", name)
		return nil
	}
	eventually(t, "the repeats", func() bool { return counter(t, of("engine_duplicates_total")) == 2 })
	if reports := p.pipeline.Shards(); len(reports) != 2 || reports[0].Shard != 0 || reports[1].Shard != 1 {
		t.Errorf("while it runs %d shards have told of themselves, want 0 and 1", len(reports))
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	// What planted records must give.
	for name, want := range map[string]float64{"engine_records_total": 10, "engine_duplicates_total": 2, "engine_incidents_total": 1, "engine_merges_total": 0} {
		if got := counter(t, of(name)); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := counter(t, metrics.fired.WithLabelValues(detectors.IncidentRepeatedFailures)); got != 1 {
		t.Errorf("repeated_failures fired %v times, want once", got)
	}
	if got := counter(t, metrics.fired.WithLabelValues(detectors.IncidentPasswordSpray)); got != 0 {
		t.Errorf("password_spray fired %v times, want never", got)
	}
	// Six records and the repeat of one came 3 minutes late; one and its repeat 20 hours; one 72 hours.
	checkLateness(t, registry, 10, func(bound time.Duration) uint64 {
		switch {
		case bound >= 24*time.Hour:
			return 9
		case bound >= 5*time.Minute:
			return 7
		}
		return 0
	})

	// Everything else is what the engines themselves say.
	all := engines()
	if len(all) != 2 {
		t.Fatalf("%d engines were made, want 2", len(all))
	}
	for i, c := range engineCounters {
		sum := uint64(0)
		for _, e := range all {
			s := e.Stats()
			sum += c.of(&s)
		}
		if got := counter(t, metrics.counters[i]); got != float64(sum) {
			t.Errorf("%s is %v, the engines say %d", c.name, got, sum)
		}
	}
	kinds := detectors.DetectionNames()
	evaluated := map[string]uint64{}
	for _, e := range all {
		for i, d := range e.Stats().Detections {
			evaluated[kinds[i]] += d.Evaluated
		}
	}
	if evaluated[detectors.IncidentRepeatedFailures] == 0 {
		t.Error("repeated_failures was never evaluated")
	}
	for kind, n := range evaluated {
		if got := counter(t, metrics.evaluated.WithLabelValues(kind)); got != float64(n) {
			t.Errorf("%s was evaluated %v times, the engines say %d", kind, got, n)
		}
	}
	reports := p.pipeline.Shards()
	if len(reports) != 2 {
		t.Fatalf("%d reports, want 2", len(reports))
	}
	found := false
	for _, r := range reports {
		var e *detectors.Engine // of the shard: engines are made in any order
		for _, candidate := range all {
			if candidate.Stats().Messages == r.Stats.Messages && candidate.Stats().Records == r.Stats.Records {
				e = candidate
			}
		}
		if e == nil || r.Fingerprint != e.Fingerprint() || r.Epoch != 1 || r.Stats.StateBytesBound != 1<<20 || r.Stats.RecentBytesBound != 2<<20 {
			t.Errorf("shard %d: epoch %d, fingerprint %x, bounds %d and %d", r.Shard, r.Epoch, r.Fingerprint, r.Stats.StateBytesBound, r.Stats.RecentBytesBound)
			continue
		}
		for i, g := range engineGaugeList {
			s := e.Stats()
			if got := counter(t, metrics.gauges[i].WithLabelValues(fmt.Sprint(r.Shard))); got != float64(g.of(&s)) {
				t.Errorf("%s of shard %d is %v, the engine says %d", g.name, r.Shard, got, g.of(&s))
			}
		}
		for _, top := range r.Top {
			if top.Kind == detectors.EntityUser && top.Value == "ann@example.com" {
				found = true
				if top.Events != 6 || top.Incidents != 1 || top.Bytes == 0 {
					t.Errorf("ann has %+v, want 6 events and 1 incident", top)
				}
			}
		}
	}
	if !found {
		t.Error("the user who mistyped is not among the top entities")
	}
	late := reports[0].Lateness
	late.add(&reports[1].Lateness)
	if late.Max < 72*time.Hour || late.Max > 73*time.Hour || late.Counts[len(late.Counts)-1] != 1 {
		t.Errorf("lateness is %+v", late)
	}
}

// checkLateness compares the lateness histogram with a total and the number of records up to each bound.
func checkLateness(t *testing.T, registry *prometheus.Registry, total uint64, upTo func(time.Duration) uint64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for families[i].GetName() != "signindiag_record_lateness_seconds" {
		i++
	}
	h := families[i].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != total || h.GetSampleSum() < 112*3600 || h.GetSampleSum() > 113*3600 {
		t.Errorf("lateness of %d records, together %v s; want %d and some 112 h", h.GetSampleCount(), h.GetSampleSum(), total)
	}
	if len(h.GetBucket()) != len(latenessBounds) {
		t.Fatalf("%d buckets, want %d", len(h.GetBucket()), len(latenessBounds))
	}
	for i, b := range h.GetBucket() {
		if bound := latenessBounds[i]; b.GetUpperBound() != bound.Seconds() || b.GetCumulativeCount() != upTo(bound) {
			t.Errorf("%d records within %v s, want %d within %s", b.GetCumulativeCount(), b.GetUpperBound(), upTo(bound), bound)
		}
	}
}

// TestCountersOfEngines: a kind that several detections find is summed, and a new machine begins at zero.
func TestCountersOfEngines(t *testing.T) {
	m := newEngineMetrics()
	names := detectors.DetectionNames()
	var counted detectors.Stats
	machine := func(records, evaluated uint64) {
		now := detectors.Stats{Records: records, Detections: make([]detectors.DetectionStats, len(names))}
		for i, kind := range names {
			if kind == detectors.IncidentAccountLockout {
				now.Detections[i] = detectors.DetectionStats{Evaluated: evaluated, Suppressed: 1}
			}
		}
		m.count(&counted, &now)
		m.count(&counted, &now) // nothing has grown
	}
	machine(3, 2)
	machine(5, 7)
	counted = detectors.Stats{} // as newMachine does
	machine(1, 1)
	families := 0
	for _, kind := range names {
		if kind == detectors.IncidentAccountLockout {
			families++
		}
	}
	if families < 2 {
		t.Fatalf("account_lockout has %d detections, the test needs several", families)
	}
	if got := counter(t, m.counters[0]); got != 6 {
		t.Errorf("%v records, want 6", got)
	}
	if got := counter(t, m.evaluated.WithLabelValues(detectors.IncidentAccountLockout)); got != float64(8*families) {
		t.Errorf("evaluated %v times, want %d", got, 8*families)
	}
	if got := counter(t, m.suppressed.WithLabelValues(detectors.IncidentAccountLockout)); got != float64(2*families) {
		t.Errorf("suppressed %v times, want %d", got, 2*families)
	}
	m.shard(3)
	m.forget(3)
	if n := testutil.CollectAndCount(m.gauges[0]); n != 0 {
		t.Errorf("%d series of a shard that is gone", n)
	}
	if m.shard(maxShardLabels) != nil {
		t.Error("a shard beyond the bound has series")
	}
}

func TestLatenessDoesNotAllocate(t *testing.T) {
	s := &shard{}
	s.message.Roles, s.message.ReceivedMs = uint32(fullRoles), 1_800_000_000_000
	s.message.SignIn = &schemas.SignIn{EventTime: 1_700_000_000_000_000}
	if n := testing.AllocsPerRun(100, func() { s.observeLateness(&s.message) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
	if s.lateInBatch.Counts[len(latenessBounds)] == 0 {
		t.Error("nothing was counted")
	}
}
