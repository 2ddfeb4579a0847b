package sinks_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// knownSignature was made by openssl: printf 'msg_1.1600000000.{}' | openssl dgst -sha256 -hmac key -binary | base64
const knownSignature = "OYdyVGBLECvfzOaEF+REPaZIFrAkob+/ywzMNv1yTJY="

const alertTenant = "7d3c8a52-1f7c-4b6e-9a67-0c3f5c1e2d4b"

// clock is a clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// alerts is an environment with incidents and outboxes over them.
type alerts struct {
	*environment
	clock *clock
	sink  *sinks.Sink
	// registry has the metrics of the last outbox, log its log lines.
	registry *prometheus.Registry
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newAlerts(t *testing.T) *alerts {
	t.Helper()
	e := newEnvironment(t)
	a := &alerts{environment: e, clock: &clock{at: time.UnixMicro(epochStart)}, sink: e.sink(e.config()), log: &lockedBuffer{}}
	e.start(a.sink)
	return a
}

// incident is a password spray whose last record is at the given age before the clock's now.
func (a *alerts) incident(id, severity string, age time.Duration) detectors.Incident {
	last := a.clock.now().Add(-age)
	return detectors.Incident{
		IncidentID: id, Kind: "password_spray", Severity: severity, EntityKind: "address", EntityValue: "203.0.113.9", TenantID: alertTenant,
		FirstSeen: last.Add(-10 * time.Minute).UnixMicro(), LastSeen: last.UnixMicro(),
		Users: []string{"ada@contoso.example", "bob@contoso.example"}, Addresses: []string{"203.0.113.9"}, Applications: []string{"Azure Portal"},
		Counts: []detectors.Count{{Name: "users", Value: 2}, {Name: "failures", Value: 12}}, Outcome: detectors.IncidentBlocked, Also: []string{"account_lockout"},
		RequestIDs: []string{"aaaaaaaa-0000-4000-8000-000000000001"}, RequestIDsTotal: 12,
	}
}

// put writes a revision of an incident as its shard does.
func (a *alerts) put(i detectors.Incident, shard, epoch uint16, offset int64) {
	a.t.Helper()
	i.Revision = detectors.Revision(epoch, offset)
	a.write(a.sink, &detectors.Rows{Incidents: []detectors.Incident{i}}, sinks.Position{Shard: shard, Epoch: epoch, Offset: offset})
	a.flush(a.sink)
}

// outbox makes an outbox as a process does that starts.
func (a *alerts) outbox(change func(*sinks.OutboxConfig)) *sinks.Outbox {
	a.t.Helper()
	cat, err := catalogue.Load()
	if err != nil {
		a.t.Fatal(err)
	}
	a.registry = prometheus.NewRegistry()
	c := sinks.WithClock(sinks.OutboxConfig{
		Conn: a.conn, Database: a.database, Renderer: detectors.Renderer{Catalogue: cat}, PageURL: "https://signindiag.example.org/",
		Logger: slog.New(slog.NewTextHandler(a.log, nil)), Registerer: a.registry,
	}, a.clock.now)
	change(&c)
	o, err := sinks.NewOutbox(c)
	if err != nil {
		a.t.Fatal(err)
	}
	return o
}

func (a *alerts) pass(o *sinks.Outbox) {
	a.t.Helper()
	if err := o.Pass(a.ctx); err != nil {
		a.t.Fatal(err)
	}
}

// metric returns the value of a series of the last outbox.
func (a *alerts) metric(name string, labels ...string) float64 {
	a.t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			have := []string{}
			for _, l := range m.Label {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			if f.GetName() == name && !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	a.t.Fatalf("no metric %s %v", name, labels)
	return 0
}

// hook is a receiver of webhooks.
type hook struct {
	*httptest.Server
	mu       sync.Mutex
	got      []string // "incident revision" without the epoch
	requests []*http.Request
	bodies   [][]byte
	answer   func(id string) int // nil: 204
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var m struct {
		IncidentID string `json:"incident_id"`
		Revision   uint64
	}
	if err != nil || json.Unmarshal(body, &m) != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answer != nil {
		if code := h.answer(m.IncidentID); code != http.StatusNoContent {
			w.Header().Set("Location", h.URL+"/elsewhere") // looked at for redirects alone
			w.WriteHeader(code)
			return
		}
	}
	h.got = append(h.got, fmt.Sprintf("%s %d", m.IncidentID, m.Revision&(1<<48-1)))
	h.requests, h.bodies = append(h.requests, r), append(h.bodies, body)
	w.WriteHeader(http.StatusNoContent)
}

func (h *hook) answers(f func(id string) int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = f
}

// taken returns what came since the last call, sorted.
func (h *hook) taken() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := slices.Sorted(slices.Values(h.got))
	h.got = nil
	return strings.Join(got, ", ")
}

// last decodes the last message.
func (h *hook) last(t *testing.T, m any) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := json.Unmarshal(h.bodies[len(h.bodies)-1], m); err != nil {
		t.Fatal(err)
	}
}

func (h *hook) config(c *sinks.OutboxConfig) {
	c.Webhook = &sinks.WebhookConfig{URL: h.URL + "/in/path-secret", Secret: "a secret of the test"}
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

var errCrash = errors.New("crashed here")

// TestOutboxCrashes ends the process at each step; the next one repeats and loses nothing.
func TestOutboxCrashes(t *testing.T) {
	crash := map[string]func(*sinks.Outbox){
		"before sending": func(o *sinks.Outbox) { o.Interpose(func(func() error) error { return errCrash }) },
		"between send and progress": func(o *sinks.Outbox) {
			o.Interpose(func(send func() error) error { return errors.Join(send(), errCrash) })
		},
		"as the progress is written": func(o *sinks.Outbox) { o.LoseProgress() },
		"after the second": func(o *sinks.Outbox) {
			n := 0
			o.Interpose(func(send func() error) error {
				if n++; n > 2 {
					return errCrash
				}
				return send()
			})
		},
		"after the progress": nil,
	}
	want := map[string][2]string{
		"before sending":             {"", "a 1, b 2, c 3"},
		"between send and progress":  {"a 1", "a 1, b 2, c 3"},
		"as the progress is written": {"a 1, b 2, c 3", "a 1, b 2, c 3"},
		"after the second":           {"a 1, b 2", "c 3"},
		"after the progress":         {"a 1, b 2, c 3", ""},
	}
	for name, spoil := range crash {
		t.Run(name, func(t *testing.T) {
			a, h := newAlerts(t), newHook(t)
			for n, id := range []string{"a", "b", "c"} {
				a.put(a.incident(id, "high", time.Duration(10-n)*time.Minute), uint16(n), 1, int64(n+1))
			}
			first := a.outbox(h.config)
			if spoil != nil {
				spoil(first)
				if err := first.Pass(a.ctx); err == nil {
					t.Error("the first process did not crash")
				}
			} else {
				a.pass(first)
			}
			expect(t, "the first process sent", h.taken(), want[name][0])
			second := a.outbox(h.config)
			a.pass(second)
			expect(t, "the second process sent", h.taken(), want[name][1])
			a.pass(second)
			expect(t, "afterwards", h.taken(), "")
		})
	}
}

// TestOutboxShardsInterleaved: revisions count per shard, so smaller ones come later from another shard.
func TestOutboxShardsInterleaved(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	o := a.outbox(h.config)
	a.put(a.incident("a", "high", time.Minute), 1, 1, 1_000_000)
	a.pass(o)
	expect(t, "shard 1", h.taken(), "a 1000000")
	// A shard that lay behind, with older records too.
	a.put(a.incident("b", "high", 20*time.Hour), 2, 1, 5)
	a.pass(o)
	expect(t, "shard 2 with a smaller revision", h.taken(), "b 5")
	// Another tenant's incident of the same id is another incident.
	other := a.incident("b", "high", time.Minute)
	other.TenantID = "7d3c8a52-1f7c-4b6e-9a67-0c3f5c1e2d4c"
	a.put(other, 3, 1, 4)
	a.pass(o)
	expect(t, "the other tenant", h.taken(), "b 4")
	// A late repeat of an older revision, as after a restart of its shard.
	a.put(a.incident("a", "high", time.Minute), 1, 1, 999_999)
	a.pass(o)
	expect(t, "an older revision", h.taken(), "")
	// Growth on both, and another rule's epoch with a small offset.
	a.put(a.incident("b", "critical", time.Minute), 2, 1, 6)
	a.put(a.incident("a", "critical", time.Minute), 1, 2, 3)
	a.pass(o)
	expect(t, "growth", h.taken(), "a 3, b 6")
	a.pass(o)
	expect(t, "nothing new", h.taken(), "")
}

// TestOutboxLosesNothing runs random histories with crashes: in the end the newest revision of every incident was taken.
func TestOutboxLosesNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	a, h := newAlerts(t), newHook(t)
	newest := map[string]int64{}
	offsets := make([]int64, 4)
	for shard := range offsets {
		offsets[shard] = r.Int64N(1000)
	}
	seen := map[string]bool{}
	take := func() {
		for part := range strings.SplitSeq(h.taken(), ", ") {
			seen[part] = true
		}
	}
	o := a.outbox(h.config)
	for range 60 {
		switch r.IntN(5) {
		case 0, 1, 2: // a shard writes one of its incidents anew
			shard := r.IntN(4)
			id := fmt.Sprintf("%d-%d", shard, r.IntN(5))
			offsets[shard] += 1 + r.Int64N(3)
			newest[id] = offsets[shard]
			severity := []string{"medium", "high", "critical"}[r.IntN(3)]
			a.put(a.incident(id, severity, time.Duration(r.IntN(40))*time.Hour), uint16(shard), 1, offsets[shard])
		case 3:
			a.pass(o)
		case 4: // a crash at some request, before or after it was taken, and a new process
			at, after := r.IntN(3), r.IntN(2) == 0
			o.Interpose(func(send func() error) error {
				if at--; at >= 0 {
					return send()
				}
				if after {
					return errors.Join(send(), errCrash)
				}
				return errCrash
			})
			if err := o.Pass(a.ctx); err != nil && !strings.Contains(err.Error(), errCrash.Error()) {
				t.Fatal(err)
			}
			o = a.outbox(h.config)
		}
		take()
		a.clock.add(time.Second)
	}
	a.pass(o)
	take()
	for id, offset := range newest {
		if !seen[fmt.Sprintf("%s %d", id, offset)] {
			t.Errorf("incident %s: revision %d never came", id, offset)
		}
	}
	a.pass(o)
	expect(t, "afterwards", h.taken(), "")
}

// TestOutboxSendsWhatMatters: imported history and low severities page nobody.
func TestOutboxSendsWhatMatters(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	o := a.outbox(h.config)
	a.put(a.incident("january", "critical", 300*24*time.Hour), 0, 1, 1)
	a.put(a.incident("too-old", "critical", 48*time.Hour+time.Second), 0, 1, 2)
	a.put(a.incident("old", "high", 48*time.Hour-time.Second), 0, 1, 3)
	a.put(a.incident("low", "low", time.Minute), 0, 1, 4)
	a.put(a.incident("medium", "medium", time.Minute), 0, 1, 5)
	a.pass(o)
	expect(t, "sent", h.taken(), "medium 5, old 3")
	// What was told is told further, also when it becomes less; what grows into the range is told from then on.
	a.put(a.incident("medium", "low", time.Minute), 0, 1, 6)
	a.put(a.incident("low", "high", time.Minute), 0, 1, 7)
	a.put(a.incident("january", "critical", time.Minute), 0, 1, 8)
	a.pass(o)
	expect(t, "sent", h.taken(), "january 8, low 7, medium 6")
	a.clock.add(72 * time.Hour)
	a.pass(a.outbox(func(c *sinks.OutboxConfig) {
		h.config(c)
		c.MinSeverity = "info"
	}))
	expect(t, "three days later", h.taken(), "")
}

// TestOutboxPages sends more than one page holds, past incidents that are refused.
func TestOutboxPages(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	const n = 70
	rows := &detectors.Rows{}
	for i := range n {
		x := a.incident(fmt.Sprintf("i%02d", i), "high", time.Hour-time.Duration(i)*time.Second)
		x.Revision = detectors.Revision(1, int64(i+1))
		rows.Incidents = append(rows.Incidents, x)
	}
	a.write(a.sink, rows, position(0, n))
	a.flush(a.sink)
	h.answers(func(id string) int {
		if id == "i00" || id == "i25" || id == "i69" {
			return http.StatusUnprocessableEntity
		}
		return http.StatusNoContent
	})
	o := a.outbox(h.config)
	a.pass(o)
	if got := strings.Count(h.taken(), "i"); got != n-3 {
		t.Errorf("%d incidents came, want %d", got, n-3)
	}
	name := "receiver=webhook " + strings.TrimPrefix(h.URL, "http://")
	if got := a.metric("signindiag_alerts_failures_total", name, "reason=refused"); got != 3 {
		t.Errorf("%v refusals are counted", got)
	}
	if !strings.Contains(a.log.String(), "incident=i25") || strings.Contains(a.log.String(), "path-secret") {
		t.Errorf("the log does not tell the refused incident, or tells a secret:\n%s", a.log.String())
	}
	h.answers(nil)
	a.clock.add(30 * time.Second)
	a.pass(o)
	expect(t, "not at once again", h.taken(), "")
	if a.metric("signindiag_alerts_oldest_unsent_seconds", name) != 30 {
		t.Errorf("unsent for %v s, want 30", a.metric("signindiag_alerts_oldest_unsent_seconds", name))
	}
	a.clock.add(time.Minute)
	a.pass(o)
	expect(t, "later", h.taken(), "i00 1, i25 26, i69 70")
	if a.metric("signindiag_alerts_oldest_unsent_seconds", name) != 0 {
		t.Error("something is still told as unsent")
	}
}

// TestOutboxRefusesEverything: a receiver that refuses every content is left alone for a while.
func TestOutboxRefusesEverything(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	rows := &detectors.Rows{}
	for i := range 50 {
		x := a.incident(fmt.Sprintf("i%02d", i), "high", time.Minute)
		x.Revision = detectors.Revision(1, int64(i+1))
		rows.Incidents = append(rows.Incidents, x)
	}
	a.write(a.sink, rows, position(0, 50))
	a.flush(a.sink)
	asked := 0
	h.answers(func(string) int { asked++; return http.StatusBadRequest })
	o := a.outbox(h.config)
	if err := o.Pass(a.ctx); err == nil || asked != 20 {
		t.Errorf("after %d refusals: %v", asked, err)
	}
	h.answers(nil)
	a.clock.add(time.Hour)
	a.pass(o)
	if got := strings.Count(h.taken(), "i"); got != 50 {
		t.Errorf("%d incidents came in the end, want 50", got)
	}
}

// TestOutboxReceiverAway runs the outbox against a receiver that is away and comes back.
func TestOutboxReceiverAway(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	a.clock.at = time.Now()
	h.answers(func(string) int { return http.StatusServiceUnavailable })
	o := a.outbox(func(c *sinks.OutboxConfig) {
		h.config(c)
		c.Interval = 10 * time.Millisecond
	})
	ctx, cancel := context.WithCancel(a.ctx)
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	a.put(a.incident("a", "high", time.Minute), 0, 1, 1)
	name := "receiver=webhook " + strings.TrimPrefix(h.URL, "http://")
	wait := func(what string, until func() bool) {
		t.Helper()
		for !until() {
			select {
			case <-a.ctx.Done():
				t.Fatalf("%s did not happen\n%s", what, a.log.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	wait("a failure", func() bool { return a.metric("signindiag_alerts_failures_total", name, "reason=server") >= 2 })
	a.put(a.incident("a", "critical", 0), 0, 1, 2)
	a.clock.add(7 * time.Minute)
	if got := a.metric("signindiag_alerts_oldest_unsent_seconds", name); got < 7*60 {
		t.Errorf("the oldest unsent incident is told to wait for %v s", got)
	}
	for _, want := range []string{"alerts cannot be sent", "webhook 127.0.0.1", "503", "look at its log"} {
		if !strings.Contains(a.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, a.log.String())
		}
	}
	h.answers(nil)
	wait("recovery", func() bool { return strings.Contains(a.log.String(), "alerts are sent again") })
	expect(t, "the newest revision alone", h.taken(), "a 2")
	if got := a.metric("signindiag_alerts_oldest_unsent_seconds", name); got != 0 {
		t.Errorf("unsent for %v s after recovery", got)
	}
	if got := a.metric("signindiag_alerts_sent_total", name); got != 1 {
		t.Errorf("%v sent, want 1", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if strings.Contains(a.log.String(), "path-secret") {
		t.Error("the log tells the webhook's address")
	}
	if n, err := testutil.GatherAndCount(a.registry); err != nil || n == 0 {
		t.Errorf("metrics: %d, %v", n, err)
	}
}

// TestOutboxErrorsSayWhatToDo: each kind of answer, and none.
func TestOutboxErrorsSayWhatToDo(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	a.put(a.incident("a", "high", time.Minute), 0, 1, 1)
	for code, want := range map[int]string{
		http.StatusUnauthorized: "password, token or secret in SIGNINDIAG_ALERTS_WEBHOOK_*", http.StatusNotFound: "check the path",
		http.StatusMovedPermanently: "elsewhere", http.StatusTooManyRequests: "later", http.StatusBadGateway: "log",
	} {
		h.answers(func(string) int { return code })
		err := a.outbox(h.config).Pass(a.ctx)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "path-secret") {
			t.Errorf("%d: %v does not say %q, or tells the address", code, err, want)
		}
	}
	h.Close()
	err := a.outbox(h.config).Pass(a.ctx)
	if err == nil || !strings.Contains(err.Error(), "check that it runs") || strings.Contains(err.Error(), "path-secret") {
		t.Errorf("nobody there: %v", err)
	}
}

// TestOutboxTLS: a certificate that is not trusted is told, and trusted where its authority is configured.
func TestOutboxTLS(t *testing.T) {
	a, h := newAlerts(t), &hook{}
	h.Server = httptest.NewUnstartedServer(h)
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
	h.StartTLS()
	defer h.Close()
	a.put(a.incident("a", "high", time.Minute), 0, 1, 1)
	err := a.outbox(h.config).Pass(a.ctx)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	a.pass(a.outbox(func(c *sinks.OutboxConfig) {
		h.config(c)
		c.Webhook.TLS = &tls.Config{RootCAs: h.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	}))
	expect(t, "a known authority", h.taken(), "a 1")
}

// TestWebhookMessage holds the body and the headers of a request.
func TestWebhookMessage(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	a.put(a.incident("a", "high", time.Minute), 0, 1, 7)
	a.pass(a.outbox(h.config))
	expect(t, "sent", h.taken(), "a 7")
	var m sinks.IncidentMessage
	decoder := json.NewDecoder(bytes.NewReader(h.bodies[0]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		t.Fatalf("%v\n%s", err, h.bodies[0])
	}
	if m.Type != "incident" || m.Entity.Value != "203.0.113.9" || m.Revision != detectors.Revision(1, 7) || m.RequestIDsTotal != 12 ||
		m.URL != "https://signindiag.example.org/incidents/a" || len(m.Actions) == 0 || !strings.Contains(m.Summary, "ada@contoso.example") ||
		len(m.Counts) != 2 || len(m.Also) != 1 || m.Also[0] != "account_lockout" || m.Counts[0].Name != "failures" || m.Devices == nil {
		t.Errorf("body: %s", h.bodies[0])
	}
	header := h.requests[0].Header
	id, at := header.Get("webhook-id"), header.Get("webhook-timestamp")
	if at != fmt.Sprint(a.clock.now().Unix()) || !strings.HasPrefix(id, "msg_") {
		t.Errorf("headers %v", header)
	}
	expect(t, "signature", header.Get("webhook-signature"), "v1,"+sinks.WebhookSignature([]byte("a secret of the test"), id, at, h.bodies[0]))
	// The example of the Standard Webhooks specification's libraries would be signed alike: a known HMAC.
	expect(t, "known signature", sinks.WebhookSignature([]byte("key"), "msg_1", "1600000000", []byte(`{}`)), knownSignature)
}

// TestOutboxLease: one of two processes sends, and the other takes over when it stops.
func TestOutboxLease(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	one, two := a.outbox(h.config), a.outbox(h.config)
	lead := func(o *sinks.Outbox) bool {
		t.Helper()
		lead, err := o.Lead(a.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return lead
	}
	if !lead(one) || lead(two) || !lead(one) || lead(two) {
		t.Error("the first process does not have the lease to itself")
	}
	two.Release(a.ctx)
	if lead(two) {
		t.Error("a process gave up another's lease")
	}
	one.Release(a.ctx)
	if !lead(two) {
		t.Error("the lease is not free after its holder stopped")
	}
	if got := a.count("alert_senders"); got != 1 {
		t.Errorf("%d leases for one receiver", got)
	}
}

// TestOutboxConfiguration: what cannot be is refused with the variable to look at, and without a secret.
func TestOutboxConfiguration(t *testing.T) {
	for want, change := range map[string]func(*sinks.OutboxConfig){
		"no receiver":                    func(*sinks.OutboxConfig) {},
		"expected info, low":             func(c *sinks.OutboxConfig) { c.MinSeverity = "loud" },
		"at most 168h":                   func(c *sinks.OutboxConfig) { c.Quiet = 1000 * time.Hour },
		"SIGNINDIAG_ALERTS_WEBHOOK_*":    func(c *sinks.OutboxConfig) { c.Webhook = &sinks.WebhookConfig{URL: "hunter2.example.org/hook"} },
		"without user name and password": func(c *sinks.OutboxConfig) { c.Webhook = &sinks.WebhookConfig{URL: "https://ada:hunter2@example.org/"} },
		"SIGNINDIAG_ALERTS_WEBHOOK_SECRET": func(c *sinks.OutboxConfig) {
			c.Webhook = &sinks.WebhookConfig{URL: "https://example.org/", Secret: "whsec_hunter2!"}
		},
		"SIGNINDIAG_ALERTS_ALERTMANAGER_*": func(c *sinks.OutboxConfig) { c.Alertmanagers = []sinks.AlertmanagerConfig{{URL: "alertmanager:9093"}} },
		"alertmanager:9093 is configured tw": func(c *sinks.OutboxConfig) {
			c.Alertmanagers = []sinks.AlertmanagerConfig{{URL: "http://alertmanager:9093"}, {URL: "http://alertmanager:9093/"}}
		},
	} {
		var c sinks.OutboxConfig
		change(&c)
		if _, err := sinks.NewOutbox(c); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestOutboxNewEpoch: a new epoch makes an incident anew from its first record on. Whoever was told of it hears nothing until it is
// worse than what was told.
func TestOutboxNewEpoch(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	var mu sync.Mutex
	var alerts []string // severity of the alerts that were not ended
	manager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got []struct {
			Labels map[string]string
			EndsAt time.Time
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, x := range got {
			if x.EndsAt.After(a.clock.now()) {
				alerts = append(alerts, x.Labels["severity"])
			}
		}
	}))
	defer manager.Close()
	stood := func() string {
		mu.Lock()
		defer mu.Unlock()
		text := strings.Join(alerts, ", ")
		alerts = nil
		return text
	}
	o := a.outbox(func(c *sinks.OutboxConfig) {
		h.config(c)
		c.Alertmanagers = []sinks.AlertmanagerConfig{{URL: manager.URL}}
	})
	i := a.incident("a", "high", time.Minute)
	whole := i
	a.put(i, 0, 1, 10)
	a.pass(o)
	expect(t, "the webhook", h.taken(), "a 10")
	expect(t, "the Alertmanager", stood(), "high, high") // sent once more, since none was before
	// Its alert is over when the new epoch makes it again.
	a.clock.add(3 * time.Hour)
	a.pass(o)
	expect(t, "the Alertmanager after a quiet time", stood(), "")
	step := func(what string, offset int64, age time.Duration, severity, webhook, alertmanager string) {
		t.Helper()
		i := whole
		i.LastSeen, i.Severity = whole.LastSeen-age.Microseconds(), severity
		a.put(i, 0, 2, offset)
		a.pass(o)
		expect(t, what+", the webhook", h.taken(), webhook)
		expect(t, what+", the Alertmanager", stood(), alertmanager)
	}
	step("its first records", 3, 8*time.Minute, "low", "", "")
	step("more of them", 5, 4*time.Minute, "medium", "", "")
	step("nearly what it was", 7, time.Minute, "high", "", "")
	step("what it was", 10, 0, "high", "", "")
	if got := a.metric("signindiag_alerts_resent_total", "receiver=webhook "+strings.TrimPrefix(h.URL, "http://")); got != 0 {
		t.Errorf("%v alerts count as sent again, want none", got)
	}
	step("a later record", 11, -time.Minute, "high", "a 11", "high")
	a.put(a.incident("new", "high", time.Minute), 0, 2, 12)
	a.pass(o)
	expect(t, "an incident that the new epoch found", h.taken(), "new 12")
	stood()
	// A third epoch finds it worse from its first records on.
	i = whole
	i.LastSeen, i.Severity = whole.LastSeen-(8*time.Minute).Microseconds(), "critical"
	a.put(i, 0, 3, 3)
	a.pass(o)
	expect(t, "worse", h.taken(), "a 3")
	expect(t, "worse, the Alertmanager", stood(), "critical")
}
