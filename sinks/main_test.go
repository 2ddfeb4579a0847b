package sinks_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.uber.org/goleak"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/schemas/catalogue"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/sinks"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

const topic = "signindiag.entities.v1"

// deadline bounds a test's waits; it fails the test, it measures nothing.
const deadline = 2 * time.Minute

// environment is a migrated database on the shared engine.
type environment struct {
	t        testing.TB
	ctx      context.Context
	server   sinks.Server
	conn     driver.Conn
	database string
}

func newEnvironment(t testing.TB) *environment {
	t.Helper()
	address := embeddedtest.ClickHouse(t)
	database := embeddedtest.Database(t)
	return migrated(t, sinks.Server{Address: []string{address}, Database: database})
}

// migrated connects to a server and migrates its database.
func migrated(t testing.TB, server sinks.Server) *environment {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	conn, err := sinks.OpenWithoutDatabase(ctx, server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
		goleak.VerifyNone(t, leaks)
	})
	e := &environment{t: t, ctx: ctx, server: server, conn: conn, database: server.Database}
	if _, err := sinks.Migrate(ctx, conn, chschema.Options{Database: server.Database}); err != nil {
		t.Fatal(err)
	}
	return e
}

// config is a Sink's configuration with short waits.
func (e *environment) config() sinks.Config {
	return sinks.Config{Server: e.server, EntitiesTopic: topic, MaxDelay: 20 * time.Millisecond, DrainTimeout: 30 * time.Second, Renderer: renderer{}}
}

// start runs a sink; the returned function ends it and fails the test when rows are left.
func (e *environment) start(s *sinks.Sink) (stop func()) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			e.t.Errorf("Run: %v", err)
		}
	}
	e.t.Cleanup(stop)
	return stop
}

func (e *environment) sink(cfg sinks.Config) *sinks.Sink {
	e.t.Helper()
	s, err := sinks.NewSink(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

func (e *environment) write(s *sinks.Sink, rows *detectors.Rows, pos sinks.Position) {
	e.t.Helper()
	if err := s.Write(e.ctx, rows, pos); err != nil {
		e.t.Fatal(err)
	}
}

func (e *environment) flush(s interface{ Flush(context.Context) error }) {
	e.t.Helper()
	if err := s.Flush(e.ctx); err != nil {
		e.t.Fatal(err)
	}
}

// query returns one value.
func query[T any](e *environment, sql string, args ...any) T {
	e.t.Helper()
	var v T
	if err := e.conn.QueryRow(e.ctx, "SELECT * FROM ("+sql+")", args...).Scan(&v); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// count counts rows as FINAL shows them.
func (e *environment) count(table string) uint64 {
	e.t.Helper()
	return query[uint64](e, "SELECT count() FROM "+e.database+"."+table+" FINAL")
}

// stored counts the rows that are really there, superseded ones included.
func (e *environment) stored(table string) uint64 {
	e.t.Helper()
	return query[uint64](e, "SELECT count() FROM "+e.database+"."+table)
}

func (e *environment) exec(sql string) {
	e.t.Helper()
	if err := e.conn.Exec(e.ctx, sql); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
}

// stopMerges keeps superseded rows, so that stored can be compared.
func (e *environment) stopMerges(tables ...string) {
	for _, table := range tables {
		e.exec("SYSTEM STOP MERGES " + e.database + "." + table)
	}
}

func (e *environment) progress() map[uint16]sinks.Position {
	e.t.Helper()
	p, err := sinks.ReadProgress(e.ctx, e.conn, e.database, topic)
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

// renderer stands for the catalogue's sentences.
type renderer struct{}

func (renderer) Summary(dst []byte, d *detectors.Diagnosis, c catalogue.Capability) []byte {
	if c != catalogue.CapabilityRecords {
		panic(fmt.Sprintf("the column summary was asked for with capabilities %d", c))
	}
	dst = append(dst, d.User...)
	dst = append(dst, " could not sign in to "...)
	dst = append(dst, d.App...)
	return append(dst, ": the password was wrong."...)
}

var (
	keyCount   = &catalogue.EvidenceKey{Name: "failures_48h", Kind: catalogue.KindInt, Capability: catalogue.CapabilityRecords}
	keyPolicy  = &catalogue.EvidenceKey{Name: "policy", Kind: catalogue.KindText, Capability: catalogue.CapabilityConditionalAccess}
	keyDevices = &catalogue.EvidenceKey{Name: "devices", Kind: catalogue.KindList, Capability: catalogue.CapabilityRecords}
)

// start of the generated event times: a Wednesday.
var epochStart = time.Date(2026, 11, 18, 9, 0, 0, 0, time.UTC).UnixMicro()

func guid(r *rand.Rand) string {
	a, b := r.Uint64(), r.Uint64()
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", uint32(a), uint16(a>>32), uint16(a>>48), uint16(b), b>>16)
}

// diagnosis makes a row like those of real traffic.
func diagnosis(r *rand.Rand, offset int64) detectors.Diagnosis {
	id := guid(r)
	user := r.IntN(5000)
	d := detectors.Diagnosis{
		RequestID: id, CorrelationID: guid(r), TenantID: "7d3c8a52-1f7c-4b6e-9a67-0c3f5c1e2d4b",
		EventTime: epochStart + offset*1000 + int64(r.IntN(1000)), ReceivedTime: epochStart/1000 + offset + 90_000,
		Category: "SignInLogs", User: fmt.Sprintf("user%04d@contoso.example", user), UserID: fmt.Sprintf("a0b1c2d3-0000-4000-8000-%012d", user),
		App:      []string{"Office 365 Exchange Online", "Azure Portal", "Microsoft Teams", "SharePoint Online"}[r.IntN(4)],
		Resource: "Microsoft Graph", ClientApp: []string{"Browser", "Mobile Apps and Desktop clients", "IMAP4"}[r.IntN(3)],
		Address: fmt.Sprintf("203.0.113.%d", r.IntN(256)), ErrorCode: 50126, Outcome: detectors.OutcomeFailure,
		AttemptID: id, AttemptOutcome: detectors.AttemptFailed, Scenario: "wrong_password", Severity: detectors.SeverityLow,
		Revision: detectors.Revision(1, offset),
	}
	if r.IntN(10) == 0 {
		d.Also = []string{"legacy_auth", "repeated_failures"}
		d.Unknown = []string{"policies_withheld"}
		d.Incidents = []string{"repeated_failures-0123456789abcdef"}
	}
	d.Evidence.SetInt(keyCount, int64(r.IntN(40)))
	d.Evidence.SetText(keyPolicy, "CA004: Require multifactor authentication for all users")
	d.Evidence.SetList(keyDevices, []string{"LAPTOP-4711", "PHONE-12"})
	return d
}

func position(shard uint16, offset int64) sinks.Position {
	return sinks.Position{Shard: shard, Epoch: 1, Offset: offset, Hash: uint64(offset) * 31, Incarnation: 7, Fingerprint: 1<<63 + 5}
}

func rowsOf(d ...detectors.Diagnosis) *detectors.Rows { return &detectors.Rows{Diagnoses: d} }

// freePort returns a port that nothing listens on.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
