package sinks

import (
	"context"
	"fmt"
	"maps"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
)

// Bounds of a query of the outbox on the server.
const (
	outboxQueryTime   = 30 * time.Second
	outboxQueryMemory = 2 << 30 // bytes
)

// leaseTime is how long a process is left alone with a receiver after it has said so.
const leaseTime = 30 * time.Second

// incidentKey names an incident.
type incidentKey struct{ tenant, id string }

// pendingKey is an incident that is to be sent, with the order in which that happens: by its last record.
type pendingKey struct {
	incidentKey
	seen int64 // microseconds since the Unix epoch
}

// delivery is what a receiver acknowledged of an incident. version is 0 when there is nothing yet. Times are microseconds
// since the Unix epoch.
type delivery struct {
	revision       uint64
	severity       string
	lastSeen, told int64
	labels         map[string]string
	open           bool
	sent           int64
	version        uint64
}

// equal reports whether two deliveries say the same, whenever they were noted.
func (d delivery) equal(other delivery) bool {
	return d.revision == other.revision && d.severity == other.severity && d.lastSeen == other.lastSeen && d.told == other.told &&
		d.open == other.open && maps.Equal(d.labels, other.labels)
}

// outboxStore reads incidents and keeps the progress of receivers.
type outboxStore struct {
	conn     driver.Conn
	database string
}

func (s outboxStore) table(name string) string { return chschema.QualifiedName(s.database, name) }

// query runs a bounded query and calls scan for every row.
func (s outboxStore) query(ctx context.Context, what, text string, parameters []any, scan func(driver.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, outboxQueryTime+time.Second)
	defer cancel()
	settings := clickhouse.Settings{
		"max_execution_time": int(outboxQueryTime / time.Second), "max_memory_usage": outboxQueryMemory,
		"do_not_merge_across_partitions_select_final": 0,
	}
	rows, err := s.conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(settings)), text, parameters...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("%s: read a row: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// pending returns the next incidents that the receiver has not acknowledged in their newest revision: those whose last record is
// no older than from and which are severe enough, or were told before.
//
// It compares key by key. A position such as the newest revision sent would skip rows: revisions count per shard, and a
// shard that was away writes smaller ones later. The scan reads columns of fixed size; the wide ones are read by key.
func (s outboxStore) pending(ctx context.Context, receiver string, from time.Time, severities []string, after pendingKey, limit int) ([]pendingKey, error) {
	var keys []pendingKey
	err := s.query(ctx, "look for incidents to send to "+receiver, `
		SELECT tenant_id, incident_id, seen FROM (
			SELECT tenant_id, incident_id, max(revision) AS newest, argMax(severity, revision) AS grade, toUnixTimestamp64Micro(max(last_seen)) AS seen
			FROM `+s.table("incidents")+`
			WHERE last_seen >= fromUnixTimestamp64Micro({from:Int64})
			GROUP BY tenant_id, incident_id
		) AS i
		LEFT JOIN (
			SELECT tenant_id, incident_id, revision, version FROM `+s.table("alert_deliveries")+` FINAL WHERE receiver = {receiver:String}
		) AS d USING (tenant_id, incident_id)
		WHERE (d.version = 0 AND grade IN {severities:Array(String)} OR d.version > 0 AND newest > d.revision)
			AND (seen, tenant_id, incident_id) > ({seen:Int64}, {tenant:String}, {id:String})
		ORDER BY seen, tenant_id, incident_id
		LIMIT {limit:UInt32}`,
		[]any{clickhouse.Named("from", from.UnixMicro()), clickhouse.Named("receiver", receiver), clickhouse.Named("severities", severities),
			clickhouse.Named("seen", after.seen), clickhouse.Named("tenant", after.tenant), clickhouse.Named("id", after.id), clickhouse.Named("limit", limit)},
		func(rows driver.Rows) error {
			var k pendingKey
			if err := rows.Scan(&k.tenant, &k.id, &k.seen); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		})
	return keys, err
}

// open returns the next incidents whose alerts stand at the receiver, in the order of their keys.
func (s outboxStore) open(ctx context.Context, receiver string, after incidentKey, limit int) ([]incidentKey, error) {
	var keys []incidentKey
	err := s.query(ctx, "look for alerts that stand at "+receiver, `
		SELECT tenant_id, incident_id FROM `+s.table("alert_deliveries")+` FINAL
		WHERE receiver = {receiver:String} AND open AND (tenant_id, incident_id) > ({tenant:String}, {id:String})
		ORDER BY tenant_id, incident_id
		LIMIT {limit:UInt32}`,
		[]any{clickhouse.Named("receiver", receiver), clickhouse.Named("tenant", after.tenant), clickhouse.Named("id", after.id), clickhouse.Named("limit", limit)},
		func(rows driver.Rows) error {
			var k incidentKey
			if err := rows.Scan(&k.tenant, &k.id); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		})
	return keys, err
}

// byKey are the conditions and parameters that select keys; they may select a few more, in other tenants.
func byKey(keys []incidentKey) (string, []any) {
	tenants, ids, seen := []string{}, make([]string, 0, len(keys)), map[string]bool{}
	for _, k := range keys {
		if !seen[k.tenant] {
			seen[k.tenant] = true
			tenants = append(tenants, k.tenant)
		}
		ids = append(ids, k.id)
	}
	return " tenant_id IN {tenants:Array(String)} AND incident_id IN {ids:Array(String)}", []any{clickhouse.Named("tenants", tenants), clickhouse.Named("ids", ids)}
}

// incidents returns the newest revisions of incidents.
func (s outboxStore) incidents(ctx context.Context, keys []incidentKey) (map[incidentKey]*detectors.Incident, error) {
	condition, parameters := byKey(keys)
	found := make(map[incidentKey]*detectors.Incident, len(keys))
	err := s.query(ctx, "read incidents to send", `
		SELECT `+IncidentColumns+`
		FROM `+s.table("incidents")+` FINAL WHERE`+condition, parameters,
		func(rows driver.Rows) error {
			i := new(detectors.Incident)
			if err := ScanIncident(rows, i); err != nil {
				return err
			}
			found[incidentKey{i.TenantID, i.IncidentID}] = i
			return nil
		})
	return found, err
}

// deliveries returns what the receiver acknowledged of incidents.
func (s outboxStore) deliveries(ctx context.Context, receiver string, keys []incidentKey) (map[incidentKey]delivery, error) {
	condition, parameters := byKey(keys)
	found := make(map[incidentKey]delivery, len(keys))
	err := s.query(ctx, "read the progress of "+receiver, `
		SELECT tenant_id, incident_id, revision, severity, toUnixTimestamp64Micro(last_seen), toUnixTimestamp64Micro(told), labels, open,
			toUnixTimestamp64Micro(sent), version
		FROM `+s.table("alert_deliveries")+` FINAL WHERE receiver = {receiver:String} AND`+condition, append(parameters, clickhouse.Named("receiver", receiver)),
		func(rows driver.Rows) error {
			var k incidentKey
			var d delivery
			if err := rows.Scan(&k.tenant, &k.id, &d.revision, &d.severity, &d.lastSeen, &d.told, &d.labels, &d.open, &d.sent, &d.version); err != nil {
				return err
			}
			found[k] = d
			return nil
		})
	return found, err
}

// note stores what the receiver acknowledged, in one INSERT.
func (s outboxStore) note(ctx context.Context, receiver string, tasks []task) error {
	what := "keep the progress of " + receiver
	batch, err := s.conn.PrepareBatch(clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0})),
		"INSERT INTO "+s.table("alert_deliveries")+" (receiver, tenant_id, incident_id, revision, severity, last_seen, told, labels, open, sent, version)")
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer batch.Close()
	for _, t := range tasks {
		labels := t.next.labels
		if labels == nil {
			labels = map[string]string{}
		}
		if err := batch.Append(receiver, t.tenant, t.id, t.next.revision, t.next.severity, time.UnixMicro(t.next.lastSeen).UTC(),
			time.UnixMicro(t.next.told).UTC(), labels, t.next.open, time.UnixMicro(t.next.sent).UTC(), t.next.version); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// lead reports whether this process is the one that sends to the receiver, and takes that on where no other does. All
// times are the server's.
func (w *outboxWorker) lead(ctx context.Context) (bool, error) {
	if w.config.Alone || time.Now().Before(w.leased) {
		return true, nil
	}
	asked := time.Now()
	sender, valid, version, err := w.holder(ctx)
	if err != nil || valid && sender != w.sender {
		return false, err
	}
	if err := w.claim(ctx, version, leaseTime); err != nil {
		return false, err
	}
	if sender, _, _, err = w.holder(ctx); err != nil || sender != w.sender {
		return false, err
	}
	// Renewed after half of it, so that it does not end within a pass.
	w.leased = asked.Add(leaseTime / 2)
	return true, nil
}

func (w *outboxWorker) holder(ctx context.Context) (sender string, valid bool, version uint64, err error) {
	err = w.store.query(ctx, "look who sends alerts to "+w.receiver.name(),
		"SELECT sender, until > now64(6), version FROM "+w.store.table("alert_senders")+" FINAL WHERE receiver = {receiver:String}",
		[]any{clickhouse.Named("receiver", w.receiver.name())},
		func(rows driver.Rows) error { return rows.Scan(&sender, &valid, &version) })
	return sender, valid, version, err
}

func (w *outboxWorker) claim(ctx context.Context, version uint64, lease time.Duration) error {
	err := w.store.conn.Exec(ctx, "INSERT INTO "+w.store.table("alert_senders")+` (receiver, sender, until, version)
		SELECT {receiver:String}, {sender:String}, now64(6) + toIntervalMillisecond({lease:Int64}), greatest(toUInt64(toUnixTimestamp64Micro(now64(6))), {version:UInt64} + 1)`,
		clickhouse.Named("receiver", w.receiver.name()), clickhouse.Named("sender", w.sender), clickhouse.Named("lease", lease.Milliseconds()), clickhouse.Named("version", version))
	if err != nil {
		return fmt.Errorf("take on the sending of alerts to %s: %w", w.receiver.name(), err)
	}
	return nil
}

// release lets another process send at once. Where that fails the lease ends by itself.
func (w *outboxWorker) release(ctx context.Context) {
	if w.config.Alone {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if sender, valid, version, err := w.holder(ctx); err == nil && valid && sender == w.sender {
		_ = w.claim(ctx, version, 0)
	}
}
