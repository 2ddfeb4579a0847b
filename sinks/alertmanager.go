package sinks

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// AlertmanagerConfig is one Prometheus Alertmanager. Of a cluster of them each is configured: they share what they
// have notified, not their alerts.
type AlertmanagerConfig struct {
	// URL is its base address, such as http://alertmanager:9093; /api/v2/alerts is appended.
	URL string
	// Username and Password, or Token, sign in where something before it asks; empty otherwise.
	Username, Password, Token string
	TLS                       *tls.Config
}

// alertSkew is how far the clocks of this process and of an Alertmanager may differ: an alert that is to end now is
// given an end that long ago, since an end that lies in the Alertmanager's future does not shorten an earlier one
// (Alert.Merge in https://github.com/prometheus/alertmanager/blob/main/types/types.go).
const alertSkew = time.Minute

// maxLabel bounds a label's value in bytes; it names things and need not hold whole texts.
const maxLabel = 512

// alertmanager sends to one Alertmanager. An incident is one alert with labels that its revisions do not change, the severity
// apart: where labels differ from those that stand, the alert with the old ones is ended in the same request.
type alertmanager struct {
	config AlertmanagerConfig
	poster *poster
	text   alertText
	least  int // severities below this rank end an alert
	quiet  time.Duration
}

func newAlertmanager(c AlertmanagerConfig, text alertText, least int, quiet time.Duration) (*alertmanager, error) {
	title := "the Alertmanager"
	if u, err := url.Parse(c.URL); err == nil {
		title += " at " + u.Host + strings.TrimRight(u.Path, "/")
	}
	p, err := newPoster(title, c.URL, "SIGNINDIAG_ALERTS_ALERTMANAGER_*", c.TLS)
	if err != nil {
		return nil, err
	}
	p.url = strings.TrimRight(c.URL, "/") + "/api/v2/alerts"
	p.tellAnswer = true
	return &alertmanager{config: c, poster: p, text: text, least: least, quiet: quiet}, nil
}

func (a *alertmanager) name() string {
	return strings.Replace(a.poster.title, "the Alertmanager at ", "alertmanager ", 1)
}

func (a *alertmanager) perRequest() int { return 100 }

func (a *alertmanager) send(ctx context.Context, messages []message) error {
	var parts [][]byte
	for _, m := range messages {
		parts = append(parts, m.parts...)
	}
	body := append([]byte{'['}, bytes.Join(parts, []byte{','})...)
	return a.poster.post(ctx, append(body, ']'), func(h http.Header) {
		switch {
		case a.config.Token != "":
			h.Set("Authorization", "Bearer "+a.config.Token)
		case a.config.Username != "":
			(&http.Request{Header: h}).SetBasicAuth(a.config.Username, a.config.Password)
		}
	})
}

// alert is one element of POST /api/v2/alerts
// (https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml).
type alert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// plan: an alert stands until the incident has been quiet for the quiet time, counted from its last record or from when
// it was told, whichever is later, since records may come late. A revision that tells neither a later record nor a higher
// severity wakes nothing that is over.
func (a *alertmanager) plan(i *detectors.Incident, have delivery, now time.Time) (parts [][]byte, next delivery) {
	if i == nil || have.version > 0 && i.Revision < have.revision {
		next = have
		if i == nil && have.open {
			next.open = false
			parts = append(parts, a.ended(nil, have, now))
		}
		return parts, next
	}
	if i.LastSeen < have.lastSeen && retold(i, have) {
		// On the way to what it was: the alert stands or ends as if there were no new epoch.
		next = have
		if until := a.until(have); have.open && now.Before(until) {
			parts = append(parts, a.encode(&alert{Labels: have.labels, StartsAt: startOf(i, now), EndsAt: until}, i))
		} else if have.open {
			next.open = false
			parts = append(parts, a.ended(i, have, now))
		}
		return parts, next
	}
	next = delivery{revision: i.Revision, severity: i.Severity, lastSeen: max(i.LastSeen, have.lastSeen), told: have.told, open: have.open}
	if have.version == 0 || i.LastSeen > have.lastSeen || severityRank(i.Severity) > severityRank(have.severity) {
		next.told, next.open = now.UnixMicro(), true
	}
	until := a.until(next)
	if next.open && (!now.Before(until) || severityRank(i.Severity) < a.least) {
		next.open = false
	}
	if next.open {
		next.labels = a.text.labels(i)
	}
	if have.open && (!next.open || !maps.Equal(have.labels, next.labels)) {
		parts = append(parts, a.ended(i, have, now))
	}
	if next.open {
		parts = append(parts, a.encode(&alert{Labels: next.labels, StartsAt: startOf(i, now), EndsAt: until}, i))
	}
	return parts, next
}

// until is when the alert of an incident ends for want of anything new.
func (a *alertmanager) until(d delivery) time.Time {
	return time.UnixMicro(max(d.lastSeen, d.told)).Add(a.quiet).UTC()
}

// ended is the alert that stands, with its end.
func (a *alertmanager) ended(i *detectors.Incident, have delivery, now time.Time) []byte {
	end := now.Add(-alertSkew).UTC()
	if until := a.until(have); until.Before(end) {
		end = until
	}
	return a.encode(&alert{Labels: have.labels, StartsAt: startOf(i, end), EndsAt: end}, i)
}

// startOf is when an incident began, and no later than now: a record's clock may run ahead.
func startOf(i *detectors.Incident, now time.Time) time.Time {
	if i == nil || i.FirstSeen > now.UnixMicro() {
		return now.UTC()
	}
	return time.UnixMicro(i.FirstSeen).UTC()
}

func (a *alertmanager) encode(x *alert, i *detectors.Incident) []byte {
	if i != nil {
		x.Annotations, x.GeneratorURL = a.text.annotations(i), a.text.page(i)
	}
	b, err := json.Marshal(x)
	if err != nil {
		panic(err) // strings and times within the range of years, which the table holds
	}
	return b
}

// alertText makes the texts of alerts. They say what a viewer with the right "records" may see, whoever reads them.
type alertText struct {
	renderer detectors.Renderer
	// base is the address of the page without a slash at its end, empty where there are no links to it.
	base string
}

// page returns the address of the incident's page, or nothing.
func (t alertText) page(i *detectors.Incident) string {
	if t.base == "" {
		return ""
	}
	return t.base + "/incidents/" + url.PathEscape(i.IncidentID)
}

// labels identify the alert of an incident. Prometheus's alerts are named in CamelCase.
func (t alertText) labels(i *detectors.Incident) map[string]string {
	visible := i.Visible(catalogue.CapabilityRecords, "")
	labels := map[string]string{
		"alertname": alertName(i.Kind), "kind": i.Kind, "severity": i.Severity, "tenant": i.TenantID,
		"incident_id": i.IncidentID, "entity_kind": i.EntityKind, "entity": visible.EntityValue,
	}
	for name, value := range labels {
		if value = labelValue(value); value == "" {
			delete(labels, name) // Alertmanager drops empty labels; what stands is compared with what is sent
		} else {
			labels[name] = value
		}
	}
	return labels
}

// alertName makes SignInPasswordSpray of password_spray.
func alertName(kind string) string {
	var b strings.Builder
	b.WriteString("SignIn")
	for word := range strings.SplitSeq(kind, "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

func labelValue(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) > maxLabel {
		end := maxLabel
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return s
}

func (t alertText) annotations(i *detectors.Incident) map[string]string {
	visible := i.Visible(catalogue.CapabilityRecords, "")
	annotations := map[string]string{
		"summary": string(t.renderer.IncidentSummary(nil, &visible)),
		"outcome": i.Outcome,
		"also":    strings.Join(i.Also, " "),
		"url":     t.page(i),
	}
	if k := t.renderer.Catalogue.Incident(i.Kind); k != nil {
		annotations["description"] = k.Title + ". " + k.Definition
		var links []string
		for _, l := range k.Links {
			links = append(links, l.Title+": "+l.URL)
		}
		annotations["links"] = strings.Join(links, "\n")
	}
	var actions, counts []string
	for n, action := range t.renderer.IncidentActions(i.Kind) {
		actions = append(actions, fmt.Sprintf("%d. %s (%s)", n+1, action.Text, action.Role))
	}
	annotations["actions"] = strings.Join(actions, "\n")
	for _, c := range sortedCounts(i.Counts) {
		counts = append(counts, c.Name+"="+strconv.FormatInt(c.Value, 10))
	}
	annotations["counts"] = strings.Join(counts, " ")
	maps.DeleteFunc(annotations, func(_, text string) bool { return text == "" })
	return annotations
}

// sortedCounts orders counts by name: the table gives them in no order.
func sortedCounts(counts []detectors.Count) []detectors.Count {
	return slices.SortedFunc(slices.Values(counts), func(a, b detectors.Count) int { return cmp.Compare(a.Name, b.Name) })
}
