package sinks_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/sinks"
)

// standing is an alert as GET /api/v2/alerts gives it.
type standing struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
}

// pager takes what an Alertmanager notifies: what a person would be paged with.
type pager struct {
	*httptest.Server
	mu  sync.Mutex
	got []string
}

func newPager(t *testing.T) *pager {
	p := &pager{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m struct {
			Alerts []struct {
				Status string
				Labels map[string]string
			}
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &m); err != nil {
			t.Errorf("notification %s: %v", body, err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, x := range m.Alerts {
			p.got = append(p.got, x.Labels["incident_id"]+" "+x.Labels["severity"]+" "+x.Status)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pager) has(page string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.got, page)
}

// alertmanagerEnvironment is a real Alertmanager that pages at once, and incidents; its clock is the real one, since the
// Alertmanager's is.
type alertmanagerEnvironment struct {
	*alerts
	manager *embeddedtest.Alertmanager
	pager   *pager
}

func newAlertmanagerEnvironment(t *testing.T) *alertmanagerEnvironment {
	t.Helper()
	a := newAlerts(t)
	a.clock.at = time.Now()
	p := newPager(t)
	manager := embeddedtest.StartAlertmanager(t, fmt.Sprintf(`
route:
  receiver: pager
  group_by: ['...']
  group_wait: 10ms
  group_interval: 100ms
receivers:
- name: pager
  webhook_configs:
  - url: %s
    send_resolved: true
`, p.URL))
	return &alertmanagerEnvironment{a, manager, p}
}

func (e *alertmanagerEnvironment) config(c *sinks.OutboxConfig) {
	c.Alertmanagers = []sinks.AlertmanagerConfig{{URL: e.manager.URL}}
}

// standing returns what is active, by incident and severity.
func (e *alertmanagerEnvironment) standing() map[string]standing {
	e.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(e.manager.URL + "/api/v2/alerts")
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	var list []standing
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		e.t.Fatal(err)
	}
	found := map[string]standing{}
	for _, s := range list {
		found[s.Labels["incident_id"]+" "+s.Labels["severity"]] = s
	}
	return found
}

func (e *alertmanagerEnvironment) names() string {
	e.t.Helper()
	var names []string
	for name := range e.standing() {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (e *alertmanagerEnvironment) paged(page string) {
	e.t.Helper()
	for !e.pager.has(page) {
		select {
		case <-e.ctx.Done():
			e.t.Fatalf("nobody was paged %q, but %q", page, e.pager.got)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAlertmanagerAlert(t *testing.T) {
	e := newAlertmanagerEnvironment(t)
	i := e.incident("a", "high", time.Minute)
	e.put(i, 0, 1, 1)
	e.pass(e.outbox(e.config))
	s, ok := e.standing()["a high"]
	if !ok {
		t.Fatalf("no alert stands: %v", e.standing())
	}
	labels := map[string]string{"alertname": "SignInPasswordSpray", "kind": "password_spray", "severity": "high", "tenant": alertTenant,
		"incident_id": "a", "entity_kind": "address", "entity": "203.0.113.9"}
	if fmt.Sprint(s.Labels) != fmt.Sprint(labels) {
		t.Errorf("labels %v, want %v", s.Labels, labels)
	}
	for name, want := range map[string]string{
		"summary": "203.0.113.9 tried a few passwords each on several users (ada@contoso.example and bob@contoso.example)", "description": "Password spray. One address",
		"actions": "1. ", "counts": "failures=12 users=2", "links": "https://learn.microsoft.com/", "outcome": "blocked", "also": "account_lockout", "url": "https://signindiag.example.org/incidents/a",
	} {
		if !strings.Contains(s.Annotations[name], want) {
			t.Errorf("annotation %s: %q lacks %q", name, s.Annotations[name], want)
		}
	}
	if s.GeneratorURL != "https://signindiag.example.org/incidents/a" {
		t.Errorf("generatorURL %q", s.GeneratorURL)
	}
	// The Alertmanager gives milliseconds.
	if want := time.UnixMicro(i.FirstSeen).Truncate(time.Millisecond); !s.StartsAt.Equal(want) {
		t.Errorf("starts at %v, want %v", s.StartsAt, want)
	}
	if want := e.clock.now().Add(time.Hour).Truncate(time.Millisecond); s.EndsAt.Sub(want).Abs() > time.Millisecond {
		t.Errorf("ends at %v, want %v", s.EndsAt, want)
	}
	e.paged("a high firing")
}

// TestAlertmanagerSeverity: a severity that rises is another alert, and ends the one before, also when the process
// crashed after it had sent.
func TestAlertmanagerSeverity(t *testing.T) {
	e := newAlertmanagerEnvironment(t)
	e.put(e.incident("a", "medium", time.Minute), 0, 1, 1)
	o := e.outbox(e.config)
	e.pass(o)
	expect(t, "first", e.names(), "a medium")
	e.put(e.incident("a", "critical", 0), 0, 1, 2)
	o.LoseProgress()
	if err := o.Pass(e.ctx); err == nil {
		t.Error("the first process did not crash")
	}
	o = e.outbox(e.config)
	e.pass(o)
	expect(t, "risen", e.names(), "a critical")
	e.paged("a critical firing")
	e.paged("a medium resolved")
	// Below the least severity it is over.
	e.put(e.incident("a", "low", 0), 0, 1, 3)
	e.pass(o)
	expect(t, "fallen", e.names(), "")
	e.paged("a critical resolved")
	e.pass(o)
	if got := e.metric("signindiag_alerts_standing"); got != 0 {
		t.Errorf("%v alerts are told to stand", got)
	}
}

// TestAlertmanagerQuiet: an alert ends when nothing new came for the quiet time. A revision that says nothing new, as
// after a changed rule, does not wake it; a later record does.
func TestAlertmanagerQuiet(t *testing.T) {
	e := newAlertmanagerEnvironment(t)
	long := e.incident("a", "high", 20*time.Hour) // late: told from now on
	e.put(long, 0, 1, 1)
	config := func(c *sinks.OutboxConfig) {
		e.config(c)
		c.Quiet = 2 * time.Second
	}
	o := e.outbox(config)
	e.pass(o)
	e.paged("a high firing")
	e.paged("a high resolved") // by its own end, without us
	e.clock.add(time.Hour)
	e.pass(o)
	if open := query[bool](e.environment, "SELECT open FROM "+e.database+".alert_deliveries FINAL"); open {
		t.Error("the alert is not noted as ended")
	}
	e.put(long, 0, 2, 1)
	e.pass(o)
	expect(t, "the same in another epoch", e.names(), "")
	if got, want := query[uint64](e.environment, "SELECT revision FROM "+e.database+".alert_deliveries FINAL"), detectors.Revision(2, 1); got != want {
		t.Errorf("revision %d is noted, want %d", got, want)
	}
	e.clock.add(-time.Hour + time.Second)
	e.put(e.incident("a", "high", 0), 0, 2, 2)
	e.pass(e.outbox(e.config))
	expect(t, "a later record", e.names(), "a high")
}

// TestAlertmanagerForgets: an Alertmanager keeps no alerts over a restart, so those that stand are sent again.
func TestAlertmanagerForgets(t *testing.T) {
	e := newAlertmanagerEnvironment(t)
	e.put(e.incident("a", "high", time.Minute), 0, 1, 1)
	o := e.outbox(e.config)
	e.pass(o)
	e.manager.Stop()
	e.put(e.incident("b", "high", time.Minute), 1, 1, 1)
	if err := o.Pass(e.ctx); err == nil || !strings.Contains(err.Error(), "check that it runs") {
		t.Errorf("away: %v", err)
	}
	e.manager.Start()
	e.pass(o)
	expect(t, "what is new comes at once", e.names(), "b high")
	e.clock.add(time.Minute)
	e.pass(o)
	expect(t, "what stands comes with the next sending", e.names(), "a high, b high")
	if got := e.metric("signindiag_alerts_standing"); got != 2 {
		t.Errorf("%v alerts are told to stand, want 2", got)
	}
	if got := query[uint64](e.environment, "SELECT count() FROM "+e.database+".alert_deliveries"); got != 2 {
		t.Errorf("%d rows of progress: sending again is no progress", got)
	}
}

// TestAlertmanagerRefusesOne: an alert that it refuses holds up no other.
func TestAlertmanagerRefusesOne(t *testing.T) {
	e := newAlertmanagerEnvironment(t)
	for n := range 5 {
		i := e.incident(fmt.Sprintf("i%d", n), "high", time.Duration(10-n)*time.Minute)
		if n == 2 {
			i.FirstSeen = -2_208_988_800_000_000 // 1900
		}
		e.put(i, 0, 1, int64(n+1))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	// What an Alertmanager refuses depends on its version; this one is made to.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"1900-`) {
			http.Error(w, `{"code":400,"message":"start time in the\nlast but one century"}`, http.StatusBadRequest)
			return
		}
		if user, password, _ := r.BasicAuth(); user != "ada" || password != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		response, err := client.Post(e.manager.URL+r.URL.Path, "application/json", strings.NewReader(string(body)))
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		response.Body.Close()
		w.WriteHeader(response.StatusCode)
	}))
	defer proxy.Close()
	e.pass(e.outbox(func(c *sinks.OutboxConfig) {
		c.Alertmanagers = []sinks.AlertmanagerConfig{{URL: proxy.URL + "/", Username: "ada", Password: "hunter2"}}
	}))
	expect(t, "the others", e.names(), "i0 high, i1 high, i3 high, i4 high")
	if !strings.Contains(e.log.String(), "incident=i2") || !strings.Contains(e.log.String(), "last but one century") {
		t.Errorf("the log does not tell what was refused and why:\n%s", e.log.String())
	}
	e.put(e.incident("new", "high", 0), 0, 1, 9)
	err := e.outbox(func(c *sinks.OutboxConfig) {
		c.Alertmanagers = []sinks.AlertmanagerConfig{{URL: proxy.URL, Token: "wrong-hunter2"}}
	}).Pass(e.ctx)
	if err == nil || !strings.Contains(err.Error(), "SIGNINDIAG_ALERTS_ALERTMANAGER_*") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a wrong token: %v", err)
	}
}

// TestAlertsTellNoPolicy: whoever reads alerts may have the right "records" alone.
func TestAlertsTellNoPolicy(t *testing.T) {
	e, h := newAlertmanagerEnvironment(t), newHook(t)
	i := e.incident("a", "high", time.Minute)
	i.Kind, i.EntityKind, i.EntityValue = "ca_surge", "policy", "SECRET-POLICY Block outside office"
	e.put(i, 0, 1, 1)
	e.pass(e.outbox(func(c *sinks.OutboxConfig) {
		e.config(c)
		h.config(c)
	}))
	s, ok := e.standing()["a high"]
	if !ok || s.Labels["alertname"] != "SignInCaSurge" || s.Labels["entity"] != "" {
		t.Errorf("the alert: %+v", s)
	}
	expect(t, "the webhook", h.taken(), "a 1")
	if text := fmt.Sprint(s, string(h.bodies[0])); strings.Contains(text, "SECRET-POLICY") || !strings.Contains(text, "One Conditional Access policy suddenly stopped") {
		t.Errorf("the alerts tell a policy's name, or nothing: %s", text)
	}
}

// TestAlertsOfHostileNames: names come from records, which anybody can have written.
func TestAlertsOfHostileNames(t *testing.T) {
	e, h := newAlertmanagerEnvironment(t), newHook(t)
	hostile := []string{
		`'; DROP TABLE incidents; --`, "\\' \" \n\t\x00 \u202e", "{{ .Labels }} {evil=\"1\"} ${x}", strings.Repeat("\U0001f980", 400), "\xff\xfe", "",
	}
	for n, name := range hostile {
		i := e.incident(fmt.Sprintf("%d%s", n, name), "high", time.Minute)
		i.EntityValue, i.EntityKind, i.TenantID, i.Users, i.Outcome = name, name, "tenant"+name, []string{name}, name
		e.put(i, 0, 1, int64(n+1))
	}
	o := e.outbox(func(c *sinks.OutboxConfig) {
		e.config(c)
		h.config(c)
	})
	e.pass(o)
	if got := len(e.standing()); got != len(hostile) {
		t.Errorf("%d alerts stand, want %d\n%s", got, len(hostile), e.log.String())
	}
	if got := len(h.bodies); got != len(hostile) {
		t.Errorf("the webhook has %d incidents, want %d", got, len(hostile))
	}
	// Their progress is found again: nothing is sent twice, and all end under the labels that they have.
	e.pass(o)
	if got := len(h.bodies); got != len(hostile) {
		t.Errorf("the webhook has %d incidents after another pass", got)
	}
	for n, name := range hostile {
		i := e.incident(fmt.Sprintf("%d%s", n, name), "low", 0)
		i.EntityValue, i.EntityKind, i.TenantID, i.Users, i.Outcome = name, name, "tenant"+name, []string{name}, name
		e.put(i, 0, 1, int64(n+101))
	}
	e.pass(o)
	expect(t, "ended", e.names(), "")
}
