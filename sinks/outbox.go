package sinks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signindiag/signindiag/detectors"
)

// Bounds of the outbox.
const (
	// outboxPage is how many incidents are in memory at a time, for each receiver: some 2 KB each, 20 KB at most.
	outboxPage = 200
	// maxAlertBackoff bounds the wait after failures.
	maxAlertBackoff = 5 * time.Minute
	// maxRefusals bounds the incidents that are remembered as refused, to be tried again later than the others.
	maxRefusals = 1000
	// allRefused is how many incidents in a row are refused until the receiver is taken to refuse everything.
	allRefused = 20
	// complainEvery is the time between log lines about the same receiver while it fails.
	complainEvery = 5 * time.Minute
	// MaxAlertAge bounds MaxAge and Quiet; the table of deliveries forgets after 30 days.
	MaxAlertAge = 7 * 24 * time.Hour
)

// severities are the names of the severities, lowest first.
var severities = []string{
	detectors.SeverityInfo, detectors.SeverityLow, detectors.SeverityMedium, detectors.SeverityHigh, detectors.SeverityCritical,
}

// severityRank is 0 for the lowest severity, -1 for a name that is none.
func severityRank(name string) int { return slices.Index(severities, name) }

// OutboxConfig configures an Outbox. Zero numbers and times mean the defaults named.
type OutboxConfig struct {
	// Conn reads incidents and keeps the progress, in Database (DefaultDatabase when empty). The caller closes it.
	Conn     driver.Conn
	Database string
	// Renderer makes the texts; its catalogue is needed.
	Renderer detectors.Renderer
	// Alertmanagers and Webhook are the receivers.
	Alertmanagers []AlertmanagerConfig
	Webhook       *WebhookConfig
	// MinSeverity is the lowest severity that is sent ("medium").
	MinSeverity string
	// MaxAge (48 h) keeps imported history from paging: an incident is sent when its last record is no older.
	MaxAge time.Duration
	// Quiet (1 h) is how long nothing new is told of an incident until its alert ends.
	Quiet time.Duration
	// Interval (10 s) is the time between two looks at the table.
	Interval time.Duration
	// Resend (1 m) is the time between two sendings of the alerts that stand: an Alertmanager that was started anew knows none.
	Resend time.Duration
	// PageURL is the address under which people reach the page; without it alerts hold no links to it.
	PageURL string
	// Alone is set where no other process sends to the same receivers: there is no lease to wait for then after a crash.
	Alone bool
	// Logger is silent when nil.
	Logger *slog.Logger
	// Registerer takes the metrics; they are not registered when it is nil.
	Registerer prometheus.Registerer

	now func() time.Time // the clock of tests
}

func (c OutboxConfig) withDefaults() OutboxConfig {
	for _, d := range []struct {
		value     *time.Duration
		otherwise time.Duration
	}{{&c.MaxAge, 48 * time.Hour}, {&c.Quiet, time.Hour}, {&c.Interval, 10 * time.Second}, {&c.Resend, time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.otherwise
		}
	}
	if c.Database == "" {
		c.Database = DefaultDatabase
	}
	if c.MinSeverity == "" {
		c.MinSeverity = detectors.SeverityMedium
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

// Outbox sends incidents to receivers, each at its own pace: at least once, keyed by tenant, incident and revision. What a
// receiver acknowledged is kept in ClickHouse after it did, so a crash in between repeats and never skips. An incident
// that grows while a receiver is away is sent in its newest revision.
//
// It sends what is in the table incidents when it looks, so it needs nothing of the pipeline and cannot hold it up. Of several
// processes one sends to a receiver at a time, save for moments when a lease is in dispute.
type Outbox struct {
	workers []*outboxWorker
}

// NewOutbox returns an Outbox for the receivers of the configuration; there must be one. It connects to none of them.
func NewOutbox(c OutboxConfig) (*Outbox, error) {
	c = c.withDefaults()
	least := severityRank(c.MinSeverity)
	if least < 0 {
		return nil, fmt.Errorf("alerts: severity %q: expected info, low, medium, high or critical", c.MinSeverity)
	}
	if c.Quiet > MaxAlertAge || c.MaxAge > MaxAlertAge {
		return nil, fmt.Errorf("alerts: quiet time %v and age %v: expected at most %v", c.Quiet, c.MaxAge, MaxAlertAge)
	}
	text := alertText{renderer: c.Renderer, base: strings.TrimRight(c.PageURL, "/")}
	m, err := newOutboxMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of alerts: %w", err)
	}
	o := &Outbox{}
	store := outboxStore{conn: c.Conn, database: c.Database}
	sender := rand.Text()
	add := func(r receiver, p *poster, resends bool) error {
		if slices.ContainsFunc(o.workers, func(w *outboxWorker) bool { return w.receiver.name() == r.name() }) {
			return fmt.Errorf("alerts: %s is configured twice", p.title)
		}
		w := &outboxWorker{config: c, store: store, receiver: r, poster: p, resends: resends, sender: sender,
			wanted: severities[least:], refusals: map[incidentKey]refusal{}, caughtUp: c.now(), metrics: m}
		m.start(r.name())
		o.workers = append(o.workers, w)
		return nil
	}
	for _, settings := range c.Alertmanagers {
		r, err := newAlertmanager(settings, text, least, c.Quiet)
		if err != nil {
			return nil, fmt.Errorf("alerts: %w", err)
		}
		if err := add(r, r.poster, true); err != nil {
			return nil, err
		}
	}
	if c.Webhook != nil {
		r, err := newWebhook(*c.Webhook, text, least, c.now)
		if err != nil {
			return nil, fmt.Errorf("alerts: %w", err)
		}
		if err := add(r, r.poster, false); err != nil {
			return nil, err
		}
	}
	if len(o.workers) == 0 {
		return nil, errors.New("alerts: no receiver is configured")
	}
	m.ages.workers.Store(&o.workers)
	return o, nil
}

// Run sends until ctx ends, and returns nil then. What fails is logged, counted and tried again.
func (o *Outbox) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for _, w := range o.workers {
		workers.Go(func() { w.run(ctx) })
	}
	workers.Wait()
	return nil
}

// outboxWorker serves one receiver. Its methods are called by one goroutine.
type outboxWorker struct {
	config   OutboxConfig
	store    outboxStore
	receiver receiver
	poster   *poster
	// resends is whether alerts that stand are sent again and ended.
	resends bool
	// sender names this process in the lease.
	sender   string
	leased   time.Time // until when the lease needs no renewal
	wanted   []string  // severities
	refusals map[incidentKey]refusal
	resent   time.Time
	metrics  *outboxMetrics

	failures   int // passes that failed in a row
	complained time.Time

	mu       sync.Mutex
	caughtUp time.Time // start of the last pass that left nothing unsent
	behind   bool      // something is unsent
}

// refusal is an incident that the receiver refused for its content.
type refusal struct {
	revision uint64
	next     time.Time
	wait     time.Duration
}

func (w *outboxWorker) run(ctx context.Context) {
	defer w.poster.close()
	defer w.release(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		lead, err := w.lead(ctx)
		if err == nil && lead {
			err = w.pass(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil && !lead {
			w.settle(w.config.now(), true) // another process sees to it and tells its age
		}
		timer.Reset(w.tell(err))
	}
}

// tell logs how a pass went and returns how long to wait for the next.
func (w *outboxWorker) tell(err error) time.Duration {
	now := w.config.now()
	if err == nil {
		if w.failures > 0 {
			w.config.Logger.Info("alerts are sent again", "receiver", w.receiver.name())
		}
		w.failures, w.complained = 0, time.Time{}
		return w.config.Interval
	}
	w.failures++
	reason, advice := reasonClickHouse, "check that ClickHouse answers; nothing is lost meanwhile"
	var failed *deliveryError
	text := err.Error()
	if errors.As(err, &failed) {
		reason, advice, text = failed.reason, failed.advice, failed.text
	}
	w.metrics.failures.WithLabelValues(w.receiver.name(), reason).Inc()
	if now.Sub(w.complained) >= complainEvery {
		w.complained = now
		w.config.Logger.Warn("alerts cannot be sent and wait", "receiver", w.receiver.name(), "error", text, "do", advice, "unsent_for", w.age().Round(time.Second))
	}
	wait := w.config.Interval
	for range min(w.failures-1, 20) {
		wait = min(wait*2, maxAlertBackoff)
	}
	// Several processes, and several receivers of one, do not ask in step.
	return wait + time.Duration(mathrand.Int64N(int64(wait)/4+1))
}

// age is how long the receiver has been without something that it ought to have.
func (w *outboxWorker) age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.behind {
		return 0
	}
	return max(w.config.now().Sub(w.caughtUp), 0)
}

// settle notes that something waits, or that at the given time nothing did.
func (w *outboxWorker) settle(at time.Time, complete bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.behind = !complete
	if complete {
		w.caughtUp = at
	}
}

// pass sends what is not acknowledged, and then, when it is time, what stands. An error concerns the receiver or ClickHouse;
// an incident that is refused for its content stops no other.
func (w *outboxWorker) pass(ctx context.Context) error {
	start := w.config.now()
	complete, refused := true, 0
	// What was sent of a page is noted when the page is through.
	limit := min(outboxPage, 20*w.receiver.perRequest())
	var after pendingKey
	for {
		page, err := w.store.pending(ctx, w.receiver.name(), start.Add(-w.config.MaxAge), w.wanted, after, limit)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		w.settle(start, false)
		after = page[len(page)-1]
		keys := make([]incidentKey, 0, len(page))
		for _, p := range page {
			keys = append(keys, p.incidentKey)
		}
		ok, err := w.deliver(ctx, keys, &refused)
		if err != nil {
			return err
		}
		complete = complete && ok
		if len(page) < limit {
			break
		}
		if lead, err := w.lead(ctx); err != nil || !lead {
			return err
		}
	}
	if w.resends && start.Sub(w.resent) >= w.config.Resend {
		standing := 0
		var after incidentKey
		for {
			keys, err := w.store.open(ctx, w.receiver.name(), after, limit)
			if err != nil {
				return err
			}
			standing += len(keys)
			if len(keys) == 0 {
				break
			}
			after = keys[len(keys)-1]
			if _, err := w.deliver(ctx, keys, &refused); err != nil {
				return err
			}
			if lead, err := w.lead(ctx); err != nil || !lead {
				return err
			}
		}
		w.resent = start
		w.metrics.standing.WithLabelValues(w.receiver.name()).Set(float64(standing))
	}
	w.settle(start, complete)
	return nil
}

// retold reports whether a revision of a newer epoch tells no more than what the receiver was told: no later record and no higher
// severity. A new epoch makes the rows of the past again, and an incident grows in it from its first record to what it was.
func retold(i *detectors.Incident, have delivery) bool {
	return have.version > 0 && i.Revision>>48 > have.revision>>48 && i.LastSeen <= have.lastSeen && severityRank(i.Severity) <= severityRank(have.severity)
}

// task is an incident that is to be sent.
type task struct {
	incidentKey
	have, next delivery
	message    message
}

// deliver sends incidents and notes what was acknowledged. ok is false when some were refused or are not tried yet again;
// refused counts refusals in a row.
func (w *outboxWorker) deliver(ctx context.Context, keys []incidentKey, refused *int) (ok bool, err error) {
	now := w.config.now()
	incidents, err := w.store.incidents(ctx, keys)
	if err != nil {
		return false, err
	}
	// One alert tells a story: that of its leading incident. The others' alerts, told before the story was known, end.
	keys, led, err := w.store.stories(ctx, keys, incidents)
	if err != nil {
		return false, err
	}
	deliveries, err := w.store.deliveries(ctx, w.receiver.name(), keys)
	if err != nil {
		return false, err
	}
	ok = true
	var tasks []task
	for _, key := range keys {
		t := task{incidentKey: key, have: deliveries[key]}
		i := incidents[key]
		var revision uint64
		if i != nil {
			revision = i.Revision
		}
		if r, found := w.refusals[key]; found && r.revision == revision && now.Before(r.next) {
			ok = false
			continue
		}
		if led[key] {
			t.message.parts, t.next = w.receiver.plan(nil, t.have, now)
			t.next.revision = max(t.next.revision, revision)
		} else {
			t.message.parts, t.next = w.receiver.plan(i, t.have, now)
		}
		t.message.id = fmt.Sprintf("%s\x00%s\x00%d\x00%s", key.tenant, key.id, revision, t.next.severity)
		tasks = append(tasks, t)
	}
	done, all, err := w.send(ctx, tasks, refused)
	// What was acknowledged is noted even when the rest was not, and when ctx has ended meanwhile.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), alertRequestTimeout)
	defer cancel()
	return ok && all, errors.Join(err, w.note(noting, done))
}

// send returns the tasks that the receiver acknowledged. An error ends it; a refusal does not.
func (w *outboxWorker) send(ctx context.Context, tasks []task, refused *int) (done []task, ok bool, err error) {
	ok = true
	var rest []task
	for _, t := range tasks {
		if len(t.message.parts) == 0 {
			done = append(done, t)
		} else {
			rest = append(rest, t)
		}
	}
	size := w.receiver.perRequest()
	for len(rest) > 0 {
		n := min(size, len(rest))
		messages := make([]message, 0, n)
		for _, t := range rest[:n] {
			messages = append(messages, t.message)
		}
		err := w.receiver.send(ctx, messages)
		switch {
		case err == nil:
			*refused = 0
			done = append(done, rest[:n]...)
			for _, t := range rest[:n] {
				delete(w.refusals, t.incidentKey)
			}
		case refusedContent(err) && n > 1:
			size = (n + 1) / 2 // until the one that is refused stands alone
			continue
		case refusedContent(err):
			ok = false
			w.refuse(rest[0], err)
			if *refused++; *refused >= allRefused {
				return done, false, err
			}
		default:
			return done, false, err
		}
		rest = rest[n:]
	}
	return done, ok, nil
}

// refuse remembers and tells that an incident was refused; it is tried again after a minute, then ever later.
func (w *outboxWorker) refuse(t task, err error) {
	w.metrics.failures.WithLabelValues(w.receiver.name(), reasonRefused).Inc()
	r, known := w.refusals[t.incidentKey]
	now := w.config.now()
	if !known && len(w.refusals) >= maxRefusals {
		maps.DeleteFunc(w.refusals, func(_ incidentKey, r refusal) bool { return now.Sub(r.next) > r.wait })
		if len(w.refusals) >= maxRefusals {
			return // tried again in the next pass
		}
	}
	r.wait = min(max(2*r.wait, time.Minute), time.Hour)
	if r.revision != t.next.revision {
		r.wait = time.Minute
		w.config.Logger.Warn("an alert was refused and is tried again later; the others go on",
			"receiver", w.receiver.name(), "incident", t.id, "tenant", t.tenant, "error", err)
	}
	r.revision, r.next = t.next.revision, now.Add(r.wait)
	w.refusals[t.incidentKey] = r
}

// note stores what was acknowledged, where that differs from what is stored.
func (w *outboxWorker) note(ctx context.Context, done []task) error {
	now := w.config.now().UnixMicro()
	var changed []task
	fresh, again := 0, 0
	for _, t := range done {
		if t.have.version > 0 && t.next.equal(t.have) {
			if len(t.message.parts) > 0 {
				again++
			}
			continue
		}
		if len(t.message.parts) > 0 {
			fresh++
		}
		t.next.sent = now
		t.next.version = max(uint64(now), t.have.version+1)
		changed = append(changed, t)
	}
	w.metrics.sent.WithLabelValues(w.receiver.name()).Add(float64(fresh))
	w.metrics.resent.WithLabelValues(w.receiver.name()).Add(float64(again))
	if len(changed) == 0 {
		return nil
	}
	return w.store.note(ctx, w.receiver.name(), changed)
}

// outboxMetrics are the metrics of all receivers; each is a label.
type outboxMetrics struct {
	sent, resent, failures *prometheus.CounterVec
	standing               *prometheus.GaugeVec
	ages                   *outboxAges
}

func newOutboxMetrics(registerer prometheus.Registerer) (*outboxMetrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signindiag_alerts_" + name, Help: help}, append([]string{"receiver"}, labels...))
	}
	m := &outboxMetrics{
		sent:     counter("sent_total", "Revisions of incidents, and ends of alerts, that the receiver acknowledged."),
		resent:   counter("resent_total", "Alerts that stand and were sent once more."),
		failures: counter("failures_total", "Failed attempts to send, by what was wrong; clickhouse: incidents could not be read or progress not be kept.", "reason"),
		standing: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "signindiag_alerts_standing", Help: "Alerts that stand at the receiver."}, []string{"receiver"}),
		ages: &outboxAges{desc: prometheus.NewDesc("signindiag_alerts_oldest_unsent_seconds",
			"At most how long an incident has waited for the receiver since it could be read, 0 when none waits.", []string{"receiver"}, nil)},
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.sent, m.resent, m.failures, m.standing, m.ages} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// start makes the series of a receiver, so that they are there before anything happens.
func (m *outboxMetrics) start(receiver string) {
	m.sent.WithLabelValues(receiver)
	m.resent.WithLabelValues(receiver)
	m.standing.WithLabelValues(receiver)
	for _, reason := range []string{reasonUnreachable, reasonUnauthorized, reasonAddress, reasonBusy, reasonServer, reasonRefused, reasonClickHouse} {
		m.failures.WithLabelValues(receiver, reason)
	}
}

// outboxAges tells the age of what is unsent when it is asked, since it grows while nothing happens.
type outboxAges struct {
	desc    *prometheus.Desc
	workers atomic.Pointer[[]*outboxWorker]
}

// Describe implements prometheus.Collector.
func (a *outboxAges) Describe(descs chan<- *prometheus.Desc) { descs <- a.desc }

// Collect implements prometheus.Collector.
func (a *outboxAges) Collect(metrics chan<- prometheus.Metric) {
	if workers := a.workers.Load(); workers != nil {
		for _, w := range *workers {
			metrics <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, w.age().Seconds(), w.receiver.name())
		}
	}
}
