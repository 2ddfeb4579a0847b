package sinks

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// WebhookConfig is a receiver of any kind over HTTP.
type WebhookConfig struct {
	// URL is sent every revision of an incident. It may hold a secret: only its host is ever told.
	URL string
	// Secret signs requests as Standard Webhooks describes
	// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md): "whsec_" and base64, or
	// any text, whose bytes are the key then. Without one requests are not signed.
	Secret string
	TLS    *tls.Config
}

// webhook sends each revision of an incident as one request.
type webhook struct {
	host   string
	key    []byte
	poster *poster
	text   alertText
	least  int
	now    func() time.Time
}

func newWebhook(c WebhookConfig, text alertText, least int, now func() time.Time) (*webhook, error) {
	w := &webhook{key: []byte(c.Secret), text: text, least: least, now: now}
	if u, err := url.Parse(c.URL); err == nil {
		w.host = u.Host
	}
	if encoded, ok := strings.CutPrefix(c.Secret, "whsec_"); ok {
		var err error
		if w.key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			// The decoder's error tells of the secret.
			return nil, fmt.Errorf("secret of the webhook: expected base64 after whsec_, see SIGNINDIAG_ALERTS_WEBHOOK_SECRET")
		}
	}
	var err error
	w.poster, err = newPoster("the webhook at "+w.host, c.URL, "SIGNINDIAG_ALERTS_WEBHOOK_*", c.TLS)
	return w, err
}

func (w *webhook) name() string    { return "webhook " + w.host }
func (w *webhook) perRequest() int { return 1 }

// IncidentMessage is the body of a request to a webhook: the incident as explain and the API give it, and what else a
// person wants to read. (tenant_id, incident_id, revision) names it; a repeat has the same.
type IncidentMessage struct {
	detectors.IncidentReport
	Revision uint64             `json:"revision"`
	Summary  string             `json:"summary"`
	Actions  []detectors.Action `json:"actions"`
	URL      string             `json:"url,omitempty"`
}

// plan: every revision is told once, whatever became of the severity of an incident that was told before; those of a new epoch
// once they tell more.
func (w *webhook) plan(i *detectors.Incident, have delivery, now time.Time) (parts [][]byte, next delivery) {
	// A story may get worse by a finding of another shard, whose revisions are not this incident's.
	if i == nil || have.version > 0 && i.Revision <= have.revision && severityRank(i.Severity) <= severityRank(have.severity) {
		return nil, have
	}
	if retold(i, have) {
		// Until the incident is what it was, the epoch that was told stays, so that no step on the way is taken for news.
		next = have
		if i.LastSeen == have.lastSeen {
			next.revision = i.Revision
		}
		return nil, next
	}
	next = delivery{revision: i.Revision, severity: i.Severity, lastSeen: max(i.LastSeen, have.lastSeen), told: now.UnixMicro()}
	if have.version == 0 && severityRank(i.Severity) < w.least {
		return nil, next
	}
	visible := i.Visible(catalogue.CapabilityRecords, "")
	visible.Counts = sortedCounts(i.Counts)
	m := IncidentMessage{
		IncidentReport: w.text.renderer.IncidentReport(&visible), Revision: i.Revision,
		Summary: string(w.text.renderer.IncidentSummary(nil, &visible)), Actions: append([]detectors.Action{}, w.text.renderer.IncidentActions(i.Kind)...), URL: w.text.page(i),
	}
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and integers
	}
	return [][]byte{body}, next
}

func (w *webhook) send(ctx context.Context, messages []message) error {
	for _, m := range messages {
		sum := sha256.Sum256([]byte(m.id))
		id := "msg_" + hex.EncodeToString(sum[:16])
		at := strconv.FormatInt(w.now().Unix(), 10)
		body := m.parts[0]
		err := w.poster.post(ctx, body, func(h http.Header) {
			h.Set("webhook-id", id)
			h.Set("webhook-timestamp", at)
			if len(w.key) > 0 {
				h.Set("webhook-signature", "v1,"+WebhookSignature(w.key, id, at, body))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// WebhookSignature returns the base64 HMAC-SHA256 of id, Unix time in seconds and body, joined by full stops.
func WebhookSignature(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
