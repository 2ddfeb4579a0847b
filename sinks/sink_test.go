package sinks_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/sinks"
)

// TestEveryColumn writes one row of each kind and compares all columns, of the tables and of those that
// views fill.
func TestEveryColumn(t *testing.T) {
	for name, compression := range map[string]ch.Compression{"plain": ch.CompressionDisabled, "LZ4": ch.CompressionLZ4} {
		t.Run(name, func(t *testing.T) { testEveryColumn(t, compression) })
	}
}

func TestCompressionFor(t *testing.T) {
	for address, want := range map[string]ch.Compression{
		"127.0.0.1:9000": ch.CompressionDisabled, "localhost:9000": ch.CompressionDisabled, "[::1]:9440": ch.CompressionDisabled,
		"10.0.0.7:9000": ch.CompressionLZ4, "clickhouse:9000": ch.CompressionLZ4, "localhost.example:9000": ch.CompressionLZ4,
	} {
		if got := sinks.CompressionFor(address); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func testEveryColumn(t *testing.T, compression ch.Compression) {
	e := newEnvironment(t)
	s := e.sink(e.config())
	s.Compress(compression)
	e.start(s)
	d := detectors.Diagnosis{
		RequestID: "req-1", CorrelationID: "corr-1", TenantID: "tenant-1", EventTime: 1_763_456_789_123_456, ReceivedTime: 1_763_456_999_321,
		Category: "SignInLogs", User: "Ada@Contoso.example", UserID: "user-id", App: "Azure Portal", Resource: "Microsoft Graph",
		ClientApp: "Browser", Address: "2001:db8::1", ErrorCode: -7, Outcome: "failure", AttemptID: "req-0", AttemptOutcome: "resolved",
		Scenario: "ca_mfa", Also: []string{"flagged", "repeated_failures"}, Severity: "high", Unknown: []string{"location", "risk"},
		Incidents: []string{"i-1", "i-2"}, Revision: detectors.Revision(3, 42),
	}
	d.Evidence.SetText(keyPolicy, "a \"quoted\" name")
	rows := &detectors.Rows{
		Diagnoses: []detectors.Diagnosis{d},
		Incidents: []detectors.Incident{{
			IncidentID: "i-1", Kind: "password_spray", Also: []string{"account_takeover"}, Severity: "critical", EntityKind: "address", EntityValue: "2001:db8::/64", TenantID: "tenant-1",
			FirstSeen: 1_763_456_789_000_001, LastSeen: 1_763_456_789_000_002, Users: []string{"ada", "bob"}, Addresses: []string{"2001:db8::1"},
			Applications: []string{"Azure Portal"}, Devices: []string{"D"}, OperatingSystems: []string{"Windows 11"}, ClientApps: []string{"IMAP4"},
			Counts: []detectors.Count{{Name: "failures", Value: 12}, {Name: "users", Value: -1}}, Outcome: "blocked",
			RequestIDs: []string{"req-1", "req-2"}, RequestIDsTotal: 99, Revision: detectors.Revision(3, 42),
		}},
		Members: []detectors.IncidentMember{{IncidentID: "i-1", TenantID: "tenant-1", RequestID: "req-1", CorrelationID: "corr-1", EventTime: d.EventTime, Revision: detectors.Revision(3, 42)}},
	}
	e.write(s, rows, sinks.Position{Shard: 5, Epoch: 3, Offset: 42})
	e.flush(s)

	common := `'request_id','req-1','correlation_id','corr-1','tenant_id','tenant-1','event_time','2025-11-18 09:06:29.123456','received_time','2025-11-18 09:09:59.321','category','SignInLogs','user','Ada@Contoso.example','user_id','user-id','app','Azure Portal','resource','Microsoft Graph','client_app','Browser','address','2001:db8::1','error_code','-7','outcome','failure','attempt_id','req-0','attempt_outcome','resolved','scenario','ca_mfa','also','[\'flagged\',\'repeated_failures\']','severity','high'`
	for _, c := range []struct{ table, want string }{
		{"diagnoses", common + `,'summary','Ada@Contoso.example could not sign in to Azure Portal: the password was wrong.','evidence','{"policy":"a \\"quoted\\" name"}','unknown','[\'location\',\'risk\']','incidents','[\'i-1\',\'i-2\']','shard','5','revision','844424930132010'`},
		{"diagnoses_by_user", common + `,'incidents','[\'i-1\',\'i-2\']','shard','5','revision','844424930132010'`},
		{"request_ids", `'request_id','req-1','tenant_id','tenant-1','correlation_id','corr-1','event_time','2025-11-18 09:06:29.123456'`},
		{"incidents", `'incident_id','i-1','kind','password_spray','severity','critical','entity_kind','address','entity_value','2001:db8::/64','tenant_id','tenant-1','first_seen','2025-11-18 09:06:29.000001','last_seen','2025-11-18 09:06:29.000002','users','[\'ada\',\'bob\']','addresses','[\'2001:db8::1\']','applications','[\'Azure Portal\']','devices','[\'D\']','operating_systems','[\'Windows 11\']','client_apps','[\'IMAP4\']','counts','{\'failures\':12,\'users\':-1}','outcome','blocked','request_ids','[\'req-1\',\'req-2\']','request_ids_total','99','also','[\'account_takeover\']','shard','5','revision','844424930132010'`},
		{"incident_members", `'incident_id','i-1','tenant_id','tenant-1','request_id','req-1','correlation_id','corr-1','event_time','2025-11-18 09:06:29.123456','shard','5','revision','844424930132010'`},
		{"incident_members_by_incident", `'incident_id','i-1','tenant_id','tenant-1','request_id','req-1','correlation_id','corr-1','event_time','2025-11-18 09:06:29.123456','shard','5','revision','844424930132010'`},
	} {
		columns := query[[]string](e, "SELECT groupArray(name) FROM (SELECT name FROM system.columns WHERE database = ? AND table = ? ORDER BY position)", e.database, c.table)
		var names []string
		for _, name := range columns {
			names = append(names, "'"+name+"'", "toString("+name+")")
		}
		expression := names[0]
		for _, n := range names[1:] {
			expression += ", " + n
		}
		got := query[[]string](e, "SELECT ["+expression+"] FROM "+e.database+"."+c.table+" FINAL")
		want := query[[]string](e, "SELECT ["+c.want+"]")
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", c.table, got, want)
		}
	}
	if got, want := e.progress()[5], (sinks.Position{Shard: 5, Epoch: 3, Offset: 42}); got != want {
		t.Errorf("progress: got %+v, want %+v", got, want)
	}
}

// TestRowsAreCopied overwrites the memory of the rows after Write, as an engine does that reuses its buffers.
func TestRowsAreCopied(t *testing.T) {
	e := newEnvironment(t)
	s := e.sink(e.config())
	const n = 500
	buf := make([]byte, 0, 1<<20)
	alias := func(v string) string {
		start := len(buf)
		buf = append(buf, v...)
		return unsafeString(buf[start:])
	}
	r := rand.New(rand.NewPCG(1, 1))
	want := make(map[string]string)
	for i := range int64(n) {
		buf = buf[:0]
		d := diagnosis(r, i)
		want[string(append([]byte(nil), d.RequestID...))] = d.User + "|" + d.App + "|" + d.Scenario
		d.RequestID, d.CorrelationID, d.TenantID = alias(d.RequestID), alias(d.CorrelationID), alias(d.TenantID)
		d.User, d.App, d.Scenario = alias(d.User), alias(d.App), alias(d.Scenario)
		for k := range d.Also {
			d.Also[k] = alias(d.Also[k])
		}
		e.write(s, rowsOf(d), position(0, i))
		for k := range buf {
			buf[k] = '#'
		}
	}
	e.start(s)
	e.flush(s)
	rows, err := e.conn.Query(e.ctx, "SELECT request_id, user, app, scenario, arrayStringConcat(also) FROM "+e.database+".diagnoses FINAL")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := 0
	for rows.Next() {
		var id, user, app, scenario, also string
		if err := rows.Scan(&id, &user, &app, &scenario, &also); err != nil {
			t.Fatal(err)
		}
		seen++
		if want[id] != user+"|"+app+"|"+scenario || also != "" && also != "legacy_authrepeated_failures" {
			t.Fatalf("row %q: got %q %q %q %q, want %q", id, user, app, scenario, also, want[id])
		}
	}
	if seen != n {
		t.Fatalf("%d rows, want %d", seen, n)
	}
}

// TestRevisions checks that the newest revision wins within a block, across blocks, whatever the order
// they come in, in the base table and in the one by user.
func TestRevisions(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxDelay = time.Hour // only Flush ends a block
	s := e.sink(cfg)
	e.start(s)
	r := rand.New(rand.NewPCG(2, 2))
	d := diagnosis(r, 10)
	revision := func(epoch uint16, offset int64, outcome string) {
		x := d
		x.Revision, x.Outcome = detectors.Revision(epoch, offset), outcome
		x.Also = slices.Repeat([]string{"flagged"}, int(offset%7)) // lengths differ, so that slots are reused and not
		e.write(s, rowsOf(x), position(0, offset))
	}
	e.stopMerges("diagnoses", "diagnoses_by_user", "incidents")
	revision(1, 10, "interrupted")
	revision(1, 11, "failure")
	revision(1, 9, "stale")
	e.flush(s)
	if n := e.stored("diagnoses"); n != 1 {
		t.Errorf("%d stored rows of one block, want 1", n)
	}
	if got := query[string](e, "SELECT outcome FROM "+e.database+".diagnoses"); got != "failure" {
		t.Errorf("outcome %q of the block, want failure, the newest", got)
	}
	revision(1, 12, "resolved")
	e.flush(s)
	revision(1, 8, "stale")
	e.flush(s)
	for _, table := range []string{"diagnoses", "diagnoses_by_user"} {
		if n := e.count(table); n != 1 {
			t.Errorf("%s: %d rows, want 1", table, n)
		}
		if got := query[string](e, "SELECT outcome FROM "+e.database+"."+table+" FINAL"); got != "resolved" {
			t.Errorf("%s: outcome %q, want resolved", table, got)
		}
	}
	// A new epoch wins with any offset; the old one, a zombie, then loses.
	revision(2, 3, "success")
	e.flush(s)
	revision(1, 5000, "zombie")
	e.flush(s)
	for _, table := range []string{"diagnoses", "diagnoses_by_user"} {
		if got := query[string](e, "SELECT outcome FROM "+e.database+"."+table+" FINAL"); got != "success" {
			t.Errorf("%s: outcome %q, want success", table, got)
		}
	}
	// An incident grows within one block: only its last revision is stored, whole.
	incident := detectors.Incident{IncidentID: "i", TenantID: "t", FirstSeen: epochStart, LastSeen: epochStart}
	for i := range int64(1000) {
		incident.Revision = detectors.Revision(1, i)
		incident.LastSeen++
		if len(incident.RequestIDs) < detectors.MaxIncidentRequestIDs {
			incident.RequestIDs = append(incident.RequestIDs, guid(r))
		}
		incident.RequestIDsTotal = i + 1
		incident.Counts = []detectors.Count{{Name: "failures", Value: i + 1}}
		if i%3 == 0 {
			incident.Counts = append(incident.Counts, detectors.Count{Name: "users", Value: i})
		}
		e.write(s, &detectors.Rows{Incidents: []detectors.Incident{incident}}, position(1, i))
	}
	e.flush(s)
	if n := e.stored("incidents"); n != 1 {
		t.Errorf("incidents: %d stored rows, want 1", n)
	}
	if got := query[[]string](e, "SELECT request_ids FROM "+e.database+".incidents"); !slices.Equal(got, incident.RequestIDs) {
		t.Errorf("request_ids: got %q, want %q", got, incident.RequestIDs)
	}
	if got := query[map[string]int64](e, "SELECT counts FROM "+e.database+".incidents"); len(got) != 2 || got["failures"] != 1000 || got["users"] != 999 {
		t.Errorf("counts: got %v", got)
	}
}

// TestKeyTwiceInAPart: INSERTs are not merged with themselves before they are written (optimize_on_insert = 0).
// A key that stands twice in one of them, as it can behind a view, is still shown once.
func TestKeyTwiceInAPart(t *testing.T) {
	e := newEnvironment(t)
	s := e.sink(e.config())
	e.start(s)
	e.stopMerges("diagnoses", "diagnoses_by_user")
	a := diagnosis(rand.New(rand.NewPCG(40, 40)), 1)
	b := a
	b.CorrelationID, b.Outcome, b.Revision = "another", "success", a.Revision+1 // one key by user, two in diagnoses
	e.write(s, rowsOf(a, b), position(0, 2))
	e.flush(s)
	if n, shown := e.stored("diagnoses_by_user"), e.count("diagnoses_by_user"); n != 2 || shown != 1 {
		t.Errorf("diagnoses_by_user: %d stored rows and %d shown, want 2 and 1", n, shown)
	}
	if parts := query[uint64](e, "SELECT count() FROM system.parts WHERE active AND database = ? AND table = 'diagnoses_by_user'", e.database); parts != 1 {
		t.Errorf("%d parts, want 1", parts)
	}
	if got := query[string](e, "SELECT outcome FROM "+e.database+".diagnoses_by_user FINAL"); got != "success" {
		t.Errorf("outcome %q, want that of the newest revision", got)
	}
	if n := e.count("diagnoses"); n != 2 {
		t.Errorf("diagnoses: %d rows, want 2", n)
	}
}

// TestWeeks writes rows of several weeks and checks that each INSERT went into one partition, older ones
// first, and progress last.
func TestWeeks(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxDelay = time.Hour
	s := e.sink(cfg)
	var inserts []sinks.Insert
	s.Interpose(func(i sinks.Insert, send func() error) error {
		inserts = append(inserts, i)
		return send()
	})
	stop := e.start(s)
	r := rand.New(rand.NewPCG(3, 3))
	week := int64(7 * 24 * time.Hour / time.Microsecond)
	day := week / 7
	times := []int64{0, 1, day*3 + 5, day*4 - 1, day * 4, 0 + 40*week, epochStart, epochStart + week, epochStart - 3*week, 4102444799999999}
	for i, at := range times {
		d := diagnosis(r, int64(i))
		d.EventTime = at
		e.write(s, rowsOf(d), position(0, int64(i)))
		// The server's own arithmetic must agree with ours, or blocks would be split.
		if got, want := sinks.MondayOf(at), query[time.Time](e, "SELECT toMonday(fromUnixTimestamp64Micro(toInt64(?), 'UTC'))", at).Format(time.DateOnly); got != want {
			t.Errorf("week of %d: got %s, ClickHouse says %s", at, got, want)
		}
	}
	e.flush(s)
	stop()
	if n := e.count("diagnoses"); n != uint64(len(times)) {
		t.Errorf("%d rows, want %d", n, len(times))
	}
	if inserts[len(inserts)-1].Table != "progress" {
		t.Errorf("last INSERT into %s, want progress", inserts[len(inserts)-1].Table)
	}
	if !slices.IsSortedFunc(inserts[:len(inserts)-1], func(a, b sinks.Insert) int { return slices.Compare([]byte(a.Token), []byte(b.Token)) }) {
		t.Errorf("INSERTs are not in the order of their weeks: %v", inserts)
	}
	parts := query[uint64](e, "SELECT uniqExact(partition) FROM system.parts WHERE database = ? AND table = 'diagnoses'", e.database)
	if parts != uint64(len(inserts)-1) {
		t.Errorf("%d INSERTs for %d partitions", len(inserts)-1, parts)
	}
}

// TestProgressWithoutRows checks that a position moves without rows, that it never goes back, and that OnDurable
// is told after the fact.
func TestProgressWithoutRows(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxDelay = time.Hour // only Flush ends a block
	var durable []sinks.Position
	cfg.OnDurable = func(p []sinks.Position) { durable = append(durable, p...) }
	s := e.sink(cfg)
	stop := e.start(s)
	if len(e.progress()) != 0 {
		t.Fatalf("progress of a new database: %v", e.progress())
	}
	for i := range int64(300) {
		e.write(s, nil, position(uint16(i%3), i))
	}
	e.write(s, nil, position(2, 100)) // late within the block
	e.flush(s)
	if n := len(e.progress()); n != 3 {
		t.Errorf("progress of %d shards, want 3", n)
	}
	for shard, p := range e.progress() {
		if want := position(shard, 297+int64(shard)); p != want {
			t.Errorf("shard %d: got %+v, want %+v", shard, p, want)
		}
	}
	// A process of an older epoch cannot set it back, one of a newer epoch starts below.
	old := position(1, 5)
	e.write(s, nil, old)
	e.flush(s)
	if got := e.progress()[1]; got != position(1, 298) {
		t.Errorf("progress went back to %+v", got)
	}
	newer := position(1, 6)
	newer.Epoch, newer.Fingerprint = 2, 77
	e.write(s, nil, newer)
	e.flush(s)
	if got := e.progress()[1]; got != newer {
		t.Errorf("progress of a new epoch: got %+v, want %+v", got, newer)
	}
	stop()
	if durable[len(durable)-1] != newer || len(durable) < 5 {
		t.Errorf("OnDurable was told %+v", durable)
	}
	other, err := sinks.ReadProgress(e.ctx, e.conn, e.database, "another topic")
	if err != nil || len(other) != 0 {
		t.Errorf("progress of another topic: %v, %v", other, err)
	}
	if err := s.Write(e.ctx, nil, position(0, 1)); err == nil {
		t.Error("Write after Run has ended: no error")
	}
	if err := s.Flush(context.Background()); err != nil {
		t.Errorf("Flush of an empty, stopped sink: %v", err)
	}
	if s.Ready() == nil {
		t.Error("a stopped sink is ready")
	}
}
