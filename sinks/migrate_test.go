package sinks_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/sinks"
)

// schema describes every table and view of a database.
func schema(e *environment, database string) string {
	e.t.Helper()
	lines := query[[]string](e, "SELECT groupArray(line) FROM (SELECT concat(name, ' ', replaceAll(create_table_query, database, 'D')) AS line FROM system.tables WHERE database = ? AND name NOT LIKE '.%' ORDER BY name)", database)
	return strings.Join(lines, "\n")
}

// TestMigrateFromEveryVersion checks that a database of each older version, with rows in it, becomes the same
// as a new one, and that nothing happens the second time.
func TestMigrateFromEveryVersion(t *testing.T) {
	e := newEnvironment(t)
	want := schema(e, e.database)
	steps, err := chschema.Migrations(chschema.Options{Database: e.database})
	if err != nil {
		t.Fatal(err)
	}
	for version := uint32(0); version <= uint32(len(steps)); version++ {
		t.Run(fmt.Sprintf("from %d", version), func(t *testing.T) {
			o := chschema.Options{Database: embeddedtest.Database(t)}
			if version > 0 {
				if _, err := sinks.MigrateTo(e.ctx, e.conn, o, version); err != nil {
					t.Fatal(err)
				}
				e.exec("INSERT INTO " + o.Database + ".diagnoses (request_id, correlation_id, event_time, revision) VALUES ('r', 'c', '2026-11-18 09:00:00', 1)")
			}
			m, err := sinks.Migrate(e.ctx, e.conn, o)
			if err != nil {
				t.Fatal(err)
			}
			if m.From != version || m.To != uint32(len(steps)) || len(m.Applied) != len(steps)-int(version) {
				t.Errorf("first time: %+v", m)
			}
			if got := schema(e, o.Database); got != want {
				t.Errorf("schema:\n%s\nwant:\n%s", got, want)
			}
			again, err := sinks.Migrate(e.ctx, e.conn, o)
			if err != nil {
				t.Fatal(err)
			}
			if again.From != uint32(len(steps)) || len(again.Applied) != 0 || len(again.Retention) != 0 {
				t.Errorf("second time: %+v", again)
			}
			if version > 0 {
				if got := query[string](e, "SELECT correlation_id FROM "+o.Database+".request_ids FINAL WHERE request_id = 'r'"); got != "c" {
					t.Errorf("the row of version %d is gone: %q", version, got)
				}
			}
			// A step that was cut short before it was recorded is repeated.
			e.exec("TRUNCATE TABLE " + o.Database + ".schema_version")
			if m, err := sinks.Migrate(e.ctx, e.conn, o); err != nil || len(m.Applied) != len(steps) {
				t.Errorf("all steps again: %+v, %v", m, err)
			}
		})
	}
}

func TestMigrateByANewerProgram(t *testing.T) {
	e := newEnvironment(t)
	e.exec("INSERT INTO " + e.database + ".schema_version (version, name) VALUES (9000, 'later')")
	m, err := sinks.Migrate(e.ctx, e.conn, chschema.Options{Database: e.database})
	if err != nil || m.From != 9000 || m.To >= 9000 || len(m.Applied) != 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestMigrateAtOnce: several processes start together on a new database.
func TestMigrateAtOnce(t *testing.T) {
	e := newEnvironment(t)
	o := chschema.Options{Database: embeddedtest.Database(t)}
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			_, err := sinks.Migrate(e.ctx, e.conn, o)
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got, want := schema(e, o.Database), schema(e, e.database); got != want {
		t.Errorf("schema:\n%s\nwant:\n%s", got, want)
	}
}

// TestRetention: the retention of existing tables follows the configuration, both ways, and rows beyond it
// vanish.
func TestRetention(t *testing.T) {
	e := newEnvironment(t)
	o := chschema.Options{Database: e.database}
	s := e.sink(e.config())
	e.start(s)
	r := rand.New(rand.NewPCG(20, 20))
	old := diagnosis(r, 1)
	old.EventTime -= 400 * 24 * 3600 * 1e6
	e.write(s, rowsOf(old, diagnosis(r, 2)), position(0, 2))
	e.flush(s)

	ttl := func(table string) string {
		engine := query[string](e, "SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", e.database, table)
		_, after, _ := strings.Cut(engine, " TTL ")
		ttl, _, _ := strings.Cut(after, " SETTINGS ")
		return ttl
	}
	for _, c := range []struct {
		retention chschema.Retention
		changed   []string
		diagnoses string
		incidents string
	}{
		{chschema.Retention{}, nil, "", ""},
		{chschema.Retention{Diagnoses: 3650}, []string{"diagnoses", "diagnoses_by_user", "incident_members", "incident_members_by_incident", "request_ids"}, "toDate(event_time) + toIntervalDay(3650)", ""},
		{chschema.Retention{Diagnoses: 3650, Incidents: 30, Quarantine: 31, RawRecords: 7}, []string{"incidents", "quarantine", "quarantine_replays", "raw_records"}, "toDate(event_time) + toIntervalDay(3650)", "toDate(last_seen) + toIntervalDay(30)"},
		{chschema.Retention{Incidents: 31, Quarantine: 31, RawRecords: 7}, []string{"diagnoses", "diagnoses_by_user", "incident_members", "incident_members_by_incident", "incidents", "request_ids"}, "", "toDate(last_seen) + toIntervalDay(31)"},
	} {
		o.Retention = c.retention
		m, err := sinks.Migrate(e.ctx, e.conn, o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Retention, c.changed) {
			t.Errorf("%+v: changed %v, want %v", c.retention, m.Retention, c.changed)
		}
		if got := ttl("diagnoses"); got != c.diagnoses {
			t.Errorf("%+v: TTL of diagnoses %q, want %q", c.retention, got, c.diagnoses)
		}
		if got := ttl("incidents"); got != c.incidents {
			t.Errorf("%+v: TTL of incidents %q, want %q", c.retention, got, c.incidents)
		}
		if m, err := sinks.Migrate(e.ctx, e.conn, o); err != nil || len(m.Retention) != 0 {
			t.Errorf("%+v, second time: changed %v, %v", c.retention, m.Retention, err)
		}
	}
	if n := e.count("diagnoses"); n != 2 {
		t.Fatalf("%d rows before the retention, want 2", n)
	}
	// The rows' week must hold today's date less than the days kept: counted from the real clock.
	o.Retention.Diagnoses = 300
	if _, err := sinks.Migrate(e.ctx, e.conn, o); err != nil {
		t.Fatal(err)
	}
	e.exec("OPTIMIZE TABLE " + e.database + ".diagnoses FINAL")
	if n := query[uint64](e, "SELECT count() FROM "+e.database+".diagnoses FINAL WHERE event_time < now() - INTERVAL 301 DAY"); n != 0 {
		t.Errorf("%d rows outlive their retention", n)
	}
}

// TestRetentionOfANewDatabase: tables that are made with a retention keep it, and it is recognised.
func TestRetentionOfANewDatabase(t *testing.T) {
	e := newEnvironment(t)
	o := chschema.Options{Database: embeddedtest.Database(t), Retention: chschema.Retention{Diagnoses: 90, Incidents: 400, Quarantine: 30, RawRecords: 7}}
	for range 2 {
		m, err := sinks.Migrate(e.ctx, e.conn, o)
		if err != nil || len(m.Retention) != 0 {
			t.Fatalf("changed %v, %v", m.Retention, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	address := embeddedtest.ClickHouse(t)
	http := embeddedtest.ClickHouseHTTP(t)
	// The embedded engine aborts when it has refused a user, unlike a server; so these have one of their own.
	refusing := func(t *testing.T) string {
		engine, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{DataDir: t.TempDir(), Library: embeddedtest.Library(t), IgnoreInstalled: true, MemoryLimit: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = engine.Close() })
		return engine.Address()
	}
	closed := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	const password = "correct horse battery staple"
	for _, c := range []struct {
		name   string
		server sinks.Server
		want   []string
	}{
		{"refused", sinks.Server{Address: []string{closed}, Password: password}, []string{closed, "nothing answers there"}},
		{"unknown database", sinks.Server{Address: []string{address}, Database: "no_such_database"}, []string{address, `database "no_such_database" does not exist`, "signindiag migrate"}},
		{"unknown user", sinks.Server{Username: "nobody", Password: password}, []string{`user "nobody" was refused`, "password"}},
		{"wrong password", sinks.Server{Password: password}, []string{`user "default" was refused`}},
		{"HTTP port", sinks.Server{Address: []string{http}}, []string{http, "native protocol"}},
		{"no address", sinks.Server{}, []string{"no address"}},
		{"no port", sinks.Server{Address: []string{"localhost"}}, []string{`"localhost"`, "host:port"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.server.Address == nil && c.name != "no address" {
				c.server.Address = []string{refusing(t)}
				c.want = append(c.want, c.server.Address[0])
			}
			conn, err := sinks.Open(t.Context(), c.server)
			if err == nil {
				conn.Close()
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("%q holds the password", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than one line", err)
			}
		})
	}
}

// TestSinkStartsBeforeItsDatabase: the same errors of a Sink are told by Ready, and end by themselves.
func TestSinkStartsBeforeItsDatabase(t *testing.T) {
	e := newEnvironment(t)
	name := fmt.Sprintf("later_%d", os.Getpid())
	e.exec("DROP DATABASE IF EXISTS " + name)
	cfg := e.config()
	cfg.Server.Database = name
	s := e.sink(cfg)
	e.start(s)
	e.write(s, rowsOf(diagnosis(rand.New(rand.NewPCG(21, 21)), 1)), position(0, 1))
	waitFor(t, func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "signindiag migrate")
	})
	t.Cleanup(func() {
		if err := e.conn.Exec(context.Background(), "DROP DATABASE "+name+" SYNC"); err != nil {
			t.Error(err)
		}
	})
	if _, err := sinks.Migrate(e.ctx, e.conn, chschema.Options{Database: name}); err != nil {
		t.Fatal(err)
	}
	e.flush(s)
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
	if n := query[uint64](e, "SELECT count() FROM "+name+".diagnoses"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}
