package lookup

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/schemas/catalogue"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/sinks"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

// start is the time of the first made-up sign-in; now is when the tests ask.
var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	now   = start.Add(24 * time.Hour)
)

const (
	tenant      = "aaaaaaaa-0000-4000-8000-000000000001"
	otherTenant = "aaaaaaaa-0000-4000-8000-000000000002"
	// Names that need a right, and that no viewer without it may ever read.
	policyName   = "SECRET-POLICY Block outside office"
	policyID     = "eeeeeeee-5ec2-4e70-8000-00000000cafe"
	riskDetail   = "SECRET-RISK leakedCredentials"
	surgeIncited = "SECRET-POLICY-ENTITY Block legacy"
)

// guid makes an id of a kind and a number.
func guid(kind string, n int) string { return fmt.Sprintf("%s-0000-4000-8000-%012d", kind, n) }

func request(n int) string     { return guid("bbbbbbbb", n) }
func correlation(n int) string { return guid("cccccccc", n) }

func loadCatalogue(t testing.TB) *catalogue.Catalogue {
	t.Helper()
	c, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// record is the base of the made-up records: ada fails at second n.
func record(n int) detectors.Diagnosis {
	at := start.Add(time.Duration(n) * time.Second)
	return detectors.Diagnosis{
		RequestID: request(n), CorrelationID: correlation(n), TenantID: tenant,
		EventTime: at.UnixMicro(), ReceivedTime: at.Add(3 * time.Minute).UnixMilli(),
		Category: "SignInLogs", User: "ada@contoso.example", UserID: guid("dddddddd", 1), App: "Office 365 Exchange Online",
		Resource: "Exchange", ClientApp: "Mobile Apps and Desktop clients", Address: "203.0.113.7", ErrorCode: 50126,
		Outcome: detectors.OutcomeFailure, AttemptID: request(n), AttemptOutcome: detectors.AttemptFailed,
		Scenario: "wrong_password", Severity: detectors.SeverityLow, Revision: detectors.Revision(1, int64(n)),
	}
}

// fixture is what is in the tables of a test.
type fixture struct {
	server    sinks.Server
	conn      driver.Conn
	store     *Store
	renderer  detectors.Renderer
	catalogue *catalogue.Catalogue
}

// newFixture makes empty tables and a store over them.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{server: sinks.Server{Address: []string{embeddedtest.ClickHouse(t)}, Database: embeddedtest.Database(t)}, catalogue: loadCatalogue(t)}
	conn, err := sinks.Open(t.Context(), f.server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := sinks.Migrate(t.Context(), conn, chschema.Options{Database: f.server.Database}); err != nil {
		t.Fatal(err)
	}
	f.conn = conn
	f.store = NewStore(conn, f.catalogue, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	f.store.now = func() time.Time { return now }
	f.renderer = detectors.Renderer{Catalogue: f.catalogue}
	return f
}

// testWriter takes log lines into the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

var _ io.Writer = testWriter{}

// write puts rows into the tables the way the pipeline does.
func (f *fixture) write(t testing.TB, rows *detectors.Rows) {
	t.Helper()
	sink, err := sinks.NewSink(sinks.Config{Server: f.server, EntitiesTopic: "entities", MaxDelay: 10 * time.Millisecond, Renderer: f.renderer})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx) }()
	err = sink.Write(ctx, rows, sinks.Position{Shard: 1, Epoch: 1, Offset: 1})
	if err == nil {
		err = sink.Flush(ctx)
	}
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	f.forget()
}

// forget makes the next question about freshness ask ClickHouse.
func (f *fixture) forget() {
	f.store.freshnessMu.Lock()
	defer f.store.freshnessMu.Unlock()
	f.store.freshnessAt = time.Time{}
}

func (f *fixture) writeRaw(t testing.TB, records ...sinks.RawRecord) {
	t.Helper()
	sink, err := sinks.NewRawRecords(sinks.RecordsConfig{Server: f.server, MaxDelay: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx) }()
	err = sink.Put(ctx, records)
	if err == nil {
		err = sink.Flush(ctx)
	}
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	f.forget()
}

// story is the content of the tables of most tests:
//
//	correlation 1: ada is asked for MFA (request 1) and gets in (request 2)
//	correlation 3: bob is blocked by a policy at risk (requests 3 an interrupt, 4 the block, 5 a success elsewhere)
//	correlation 6: carol types a wrong password (request 6), in two revisions; 6 has an incident with 7 and 8
//	request 9: no correlation id; request 10: the zero correlation id, as 11
//	request 12: a workload's; request 13: a session that ended
func (f *fixture) story(t testing.TB) {
	t.Helper()
	set := func(d *detectors.Diagnosis, change func(*detectors.Diagnosis)) detectors.Diagnosis {
		change(d)
		return *d
	}
	one := func(n int, change func(*detectors.Diagnosis)) detectors.Diagnosis {
		d := record(n)
		return set(&d, change)
	}
	key := func(name string) *catalogue.EvidenceKey {
		k := f.catalogue.Evidence(name)
		if k == nil {
			t.Fatalf("the catalogue has no evidence key %s", name)
		}
		return k
	}
	rows := &detectors.Rows{}
	add := func(d detectors.Diagnosis) { rows.Diagnoses = append(rows.Diagnoses, d) }
	add(one(1, func(d *detectors.Diagnosis) {
		d.ErrorCode, d.Outcome, d.AttemptOutcome, d.Scenario, d.Severity = 50076, detectors.OutcomeResolved, detectors.AttemptResolved, "ca_mfa", detectors.SeverityInfo
	}))
	add(one(2, func(d *detectors.Diagnosis) {
		d.CorrelationID, d.AttemptID = correlation(1), request(1)
		d.ErrorCode, d.Outcome, d.AttemptOutcome, d.Scenario, d.Severity = 0, detectors.OutcomeSuccess, detectors.AttemptResolved, "success", detectors.SeverityInfo
	}))
	bob := func(d *detectors.Diagnosis) {
		d.CorrelationID, d.AttemptID, d.User, d.UserID, d.Address = correlation(3), request(3), "bob@contoso.example", guid("dddddddd", 2), "2001:db8::1"
	}
	add(one(3, func(d *detectors.Diagnosis) {
		bob(d)
		d.ErrorCode, d.Outcome, d.Scenario = 50097, detectors.OutcomeInterrupted, "device_state"
	}))
	blocked := one(4, func(d *detectors.Diagnosis) {
		bob(d)
		d.ErrorCode, d.Scenario, d.Severity = 53003, "ca_blocked", detectors.SeverityMedium
		d.Also = []string{"flagged"}
		d.Unknown = []string{"location"}
		d.Evidence.SetList(key("policies"), []string{policyName})
		d.Evidence.SetList(key("policy_ids"), []string{policyID})
		d.Evidence.SetText(key("risk_detail"), riskDetail)
		d.Evidence.SetText(key("operating_system"), "Windows 11")
		d.Evidence.SetBool(key("device_managed"), true)
	})
	add(blocked)
	add(one(5, func(d *detectors.Diagnosis) {
		bob(d)
		d.AttemptID, d.App, d.ErrorCode, d.Outcome, d.AttemptOutcome, d.Scenario, d.Severity = request(5), "Teams", 0, detectors.OutcomeSuccess, detectors.AttemptSucceeded, "success", detectors.SeverityInfo
	}))
	carol := func(d *detectors.Diagnosis) {
		d.User, d.UserID = "Carol@contoso.example", guid("dddddddd", 3)
	}
	for n := 6; n <= 8; n++ {
		add(one(n, carol))
		rows.Members = append(rows.Members, detectors.IncidentMember{
			IncidentID: "incident-carol", TenantID: tenant, RequestID: request(n), CorrelationID: correlation(n),
			EventTime: start.Add(time.Duration(n) * time.Second).UnixMicro(), Revision: detectors.Revision(1, int64(n)),
		})
	}
	add(one(9, func(d *detectors.Diagnosis) { d.CorrelationID = "" }))
	for n := 10; n <= 11; n++ {
		add(one(n, func(d *detectors.Diagnosis) { d.CorrelationID = "00000000-0000-0000-0000-000000000000" }))
	}
	add(one(12, func(d *detectors.Diagnosis) {
		d.Category, d.User, d.UserID, d.App, d.ErrorCode, d.Scenario = "ServicePrincipalSignInLogs", "", "", "Backup job", 7000215, "app_service_provider"
	}))
	rows.Incidents = append(rows.Incidents, detectors.Incident{
		IncidentID: "incident-carol", Kind: "repeated_failures", Severity: detectors.SeverityMedium, EntityKind: "user", EntityValue: "carol@contoso.example",
		TenantID: tenant, FirstSeen: start.Add(6 * time.Second).UnixMicro(), LastSeen: start.Add(8 * time.Second).UnixMicro(),
		Users: []string{"carol@contoso.example"}, Addresses: []string{"203.0.113.7"}, Applications: []string{"Office 365 Exchange Online"},
		Counts: []detectors.Count{{Name: "failures", Value: 3}}, Outcome: "blocked",
		RequestIDs: []string{request(6), request(7), request(8)}, RequestIDsTotal: 3, Revision: detectors.Revision(1, 8),
	}, detectors.Incident{
		IncidentID: "incident-surge", Kind: "ca_surge", Severity: detectors.SeverityHigh, EntityKind: "policy", EntityValue: surgeIncited,
		TenantID: tenant, FirstSeen: start.UnixMicro(), LastSeen: start.Add(4 * time.Second).UnixMicro(),
		Users: []string{"bob@contoso.example"}, Outcome: "failing", RequestIDs: []string{request(4)}, RequestIDsTotal: 1, Revision: detectors.Revision(1, 4),
	})
	rows.Members = append(rows.Members, detectors.IncidentMember{
		IncidentID: "incident-surge", TenantID: tenant, RequestID: request(4), CorrelationID: correlation(3), EventTime: blocked.EventTime, Revision: detectors.Revision(1, 4),
	})
	// A session that ended is no problem.
	add(one(13, func(d *detectors.Diagnosis) {
		d.ErrorCode, d.Scenario, d.Severity = 70043, "token_session", detectors.SeverityInfo
	}))
	f.write(t, rows)
	// A second revision of carol's record, in another block.
	f.write(t, &detectors.Rows{Diagnoses: []detectors.Diagnosis{one(6, func(d *detectors.Diagnosis) {
		carol(d)
		d.Also, d.Severity, d.Revision = []string{"repeated_failures"}, detectors.SeverityMedium, detectors.Revision(1, 100)
	})}})
	raw := func(offset int64, bytes string) sinks.RawRecord {
		return sinks.RawRecord{
			Source: sinks.Source{Topic: "raw", Incarnation: 1, Offset: offset}, RequestID: request(4), TenantID: tenant,
			EventTime: blocked.EventTime, ReceivedTime: blocked.ReceivedTime, Bytes: []byte(bytes),
		}
	}
	f.writeRaw(t, raw(1, `{"id":"`+request(4)+`","policy":"`+policyName+`"}`), raw(2, "not JSON \xff"))
}

type driverRows = driver.Rows

func discard(driver.Rows) error { return nil }
