package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

// startClickHouse starts an engine of this test's own, and ends it with the test.
func startClickHouse(t *testing.T, cfg embedded.ClickHouseConfig) *embedded.ClickHouse {
	t.Helper()
	cfg.IgnoreInstalled = true
	if cfg.Library == "" {
		cfg.Library = embeddedtest.Library(t)
	}
	c, err := embedded.StartClickHouse(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// open returns a driver's connection; it ends with the test.
func open(t *testing.T, address, database string) clickhouse.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{address}, Auth: clickhouse.Auth{Database: database}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func execute(t *testing.T, conn clickhouse.Conn, queries ...string) {
	t.Helper()
	for _, query := range queries {
		if err := conn.Exec(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

func one[T any](t *testing.T, conn clickhouse.Conn, query string) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

// fillTable makes a table with rows in signindiag.kept.
func fillTable(t *testing.T, address string, rows int) {
	t.Helper()
	conn := open(t, address, "default")
	defer conn.Close() // An open connection holds up the engine's stop.
	execute(t, conn,
		"CREATE DATABASE IF NOT EXISTS signindiag ENGINE = Atomic",
		"CREATE TABLE IF NOT EXISTS signindiag.kept (n UInt64) ENGINE = ReplacingMergeTree ORDER BY n",
		fmt.Sprintf("INSERT INTO signindiag.kept SELECT number FROM numbers(%d)", rows))
}

// checkTable looks for them.
func checkTable(t *testing.T, address string, rows uint64) {
	t.Helper()
	conn := open(t, address, "default")
	defer conn.Close()
	if got := one[uint64](t, conn, "SELECT count() FROM signindiag.kept FINAL"); got != rows {
		t.Errorf("%d rows, expected %d", got, rows)
	}
}

func TestClickHouseRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `a directory & <its> "name"`)
	first := startClickHouse(t, embedded.ClickHouseConfig{DataDir: dir})
	fillTable(t, first.Address(), 1000)
	if _, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{DataDir: dir, Library: embeddedtest.Library(t)}); err == nil {
		t.Error("a second engine on one directory was not refused")
	} else if locked := (*embedded.LockedError)(nil); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second engine on one directory: got %v, expected a *LockedError", err)
	}
	response, err := http.Get("http://" + first.HTTPAddress() + "/?query=SELECT+1") // Leaves a connection open.
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "1\n" || response.Body.Close() != nil {
		t.Errorf("over HTTP: %q, %v", text, err)
	}
	pid := first.PID()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.Close(), first.Err()); err != nil {
		t.Errorf("after a clean Close: %v", err)
	}
	select {
	case <-first.Done():
	default:
		t.Error("Done is open after Close")
	}
	if embedded.ProcessAlive(pid) {
		t.Errorf("process %d outlived Close", pid)
	}
	if _, err := os.Stat(filepath.Join(dir, "server", "status")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the engine was not stopped cleanly: its status file is left (%v)", err)
	}

	// The same ports, asked for.
	cfg := embedded.ClickHouseConfig{DataDir: dir, TCPPort: portOf(t, first.Address()), HTTPPort: portOf(t, first.HTTPAddress())}
	second := startClickHouse(t, cfg)
	if second.Address() != first.Address() || second.HTTPAddress() != first.HTTPAddress() {
		t.Errorf("addresses %s %s, expected %s %s", second.Address(), second.HTTPAddress(), first.Address(), first.HTTPAddress())
	}
	checkTable(t, second.Address(), 1000)
	if _, err := os.Stat(second.LogPath() + ".1"); err != nil {
		t.Errorf("the log of the first run: %v", err)
	}
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestClickHouseStopsWithQueriesRunning(t *testing.T) {
	c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: t.TempDir()})
	conn := open(t, c.Address(), "default")
	failed := make(chan error, 1)
	go func() {
		failed <- conn.Exec(context.Background(), "SELECT count() FROM system.numbers WHERE NOT ignore(number)")
	}()
	watcher := open(t, c.Address(), "default")
	for one[uint64](t, watcher, "SELECT count() FROM system.processes WHERE query LIKE '%NOT ignore%' AND query NOT LIKE '%processes%'") == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	execute(t, watcher, "CREATE TABLE d (k UInt64) ENGINE = MergeTree ORDER BY k")
	batch, err := watcher.PrepareBatch(t.Context(), "INSERT INTO d") // Holds a connection until it is sent.
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Close()
	begun := time.Now()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %s", time.Since(begun))
	if err := <-failed; err == nil {
		t.Error("an endless query ended well")
	}
}

func TestClickHouseKilled(t *testing.T) {
	dir := t.TempDir()
	c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: dir})
	fillTable(t, c.Address(), 1000)
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	for name, err := range map[string]error{"Err": c.Err(), "Close": c.Close()} {
		if err == nil || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), c.Address()) {
			t.Errorf("%s: got %v, expected that the engine on %s was killed", name, err, c.Address())
		}
	}
	checkTable(t, startClickHouse(t, embedded.ClickHouseConfig{DataDir: dir}).Address(), 1000)
}

// TestClickHouseDiesWithItsParent kills the parent in several states and looks for the engine. Its lock is
// free only when no process holds it any more, the child included.
func TestClickHouseDiesWithItsParent(t *testing.T) {
	library := embeddedtest.Library(t)
	for _, test := range []struct {
		name        string
		deathSignal bool
		busy        bool // A query is running.
		early       bool // While the engine starts.
	}{
		{name: "idle", deathSignal: true},
		{name: "busy", deathSignal: true, busy: true},
		{name: "starting", deathSignal: true, early: true},
		{name: "idle, pipe only"},
		{name: "busy, pipe only", busy: true},
		{name: "starting, pipe only", early: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			parent := startRole(t, role{Part: "clickhouse", Dir: dir, Library: library, DeathSignal: test.deathSignal})
			if test.early {
				lines := bufio.NewScanner(parent.stderr)
				for lines.Scan() && lines.Text() != embedded.StageStart {
				}
			} else {
				engine := parent.ready(t)
				fillTable(t, engine.Address, 1000)
				if test.busy {
					conn := open(t, engine.Address, "default")
					go func() {
						_ = conn.Exec(context.Background(), "SELECT count() FROM system.numbers WHERE NOT ignore(number)")
					}()
					watcher := open(t, engine.Address, "default")
					for one[uint64](t, watcher, "SELECT count() FROM system.processes WHERE query LIKE '%NOT ignore%' AND query NOT LIKE '%processes%'") == 0 {
						time.Sleep(10 * time.Millisecond)
					}
				}
				defer waitGone(t, engine.PID)
			}
			parent.kill()
			ctx, cancel := context.WithTimeout(t.Context(), 2*embedded.StopTimeout)
			defer cancel()
			if err := embedded.WaitForLock(ctx, filepath.Join(dir, "clickhouse.lock")); err != nil {
				t.Fatalf("the engine outlived its parent: %v", err)
			}
		})
	}
}

// TestClickHouseStartsAfterItsParentWasKilled starts at once, while the old engine may still be on its way out.
func TestClickHouseStartsAfterItsParentWasKilled(t *testing.T) {
	dir := t.TempDir()
	for _, deathSignal := range []bool{true, false} {
		parent := startRole(t, role{Part: "clickhouse", Dir: dir, Library: embeddedtest.Library(t), DeathSignal: deathSignal})
		fillTable(t, parent.ready(t).Address, 1000)
		parent.kill()
		c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: dir})
		checkTable(t, c.Address(), 1000)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClickHouseStartRefusals(t *testing.T) {
	library := embeddedtest.Library(t)
	text := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("changed my mind"))
	for _, test := range []struct {
		name string
		ctx  context.Context
		cfg  embedded.ClickHouseConfig
		want string // In the error.
	}{
		{"no directory", t.Context(), embedded.ClickHouseConfig{Library: library}, "no data directory"},
		{"directory is a file", t.Context(), embedded.ClickHouseConfig{Library: library, DataDir: text}, "not a directory"},
		{"missing library", t.Context(), embedded.ClickHouseConfig{Library: text + "x", DataDir: t.TempDir()}, text + "x"},
		{"library is a directory", t.Context(), embedded.ClickHouseConfig{Library: t.TempDir(), DataDir: t.TempDir()}, "not a file"},
		{"not a library", t.Context(), embedded.ClickHouseConfig{Library: text, DataDir: t.TempDir()}, "load the ClickHouse library " + text},
		{"TCP port is taken", t.Context(), embedded.ClickHouseConfig{Library: library, DataDir: t.TempDir(), TCPPort: port}, "port " + strconv.Itoa(port)},
		{"HTTP port is taken", t.Context(), embedded.ClickHouseConfig{Library: library, DataDir: t.TempDir(), HTTPPort: port}, "port " + strconv.Itoa(port)},
		{"cancelled", cancelled, embedded.ClickHouseConfig{Library: library, DataDir: t.TempDir()}, "changed my mind"},
		{"too slow", t.Context(), embedded.ClickHouseConfig{Library: library, DataDir: t.TempDir(), StartTimeout: time.Millisecond}, "gave no answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := embedded.StartClickHouse(test.ctx, test.cfg)
			if err == nil {
				_ = c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, expected an error with %q", err, test.want)
			}
			if test.cfg.DataDir != "" && test.cfg.DataDir != text { // The directory is free again.
				lock := filepath.Join(test.cfg.DataDir, "clickhouse.lock")
				if err := embedded.WaitForLock(cancelled, lock); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestClickHouseUserIsConfined tries what somebody on this machine could try against a server without a password.
func TestClickHouseUserIsConfined(t *testing.T) {
	conn := open(t, embeddedtest.ClickHouse(t), embeddedtest.Database(t))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"SELECT * FROM file('" + file + "', 'LineAsString', 'line String')",
		"SELECT * FROM default.`" + file + "`",
		"INSERT INTO FUNCTION file('" + file + ".new', 'CSV', 'n UInt8') SELECT 1",
		"CREATE TABLE f (line String) ENGINE = File(LineAsString, '" + file + "')",
		"SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'n UInt8')",
		"SELECT * FROM remote('127.0.0.1:1', 'system.one')",
		"SELECT * FROM executable('x.sh', 'CSV', 'n UInt8')",
		"CREATE TABLE e (n UInt8) ENGINE = Executable('x.sh', 'CSV')",
		"CREATE TABLE k (n UInt8) ENGINE = Kafka('127.0.0.1:1', 't', 'g', 'CSV')",
		"CREATE DATABASE fs ENGINE = Filesystem('/')",
		"BACKUP DATABASE system TO File('" + file + ".backup')",
		"CREATE USER somebody",
		"GRANT ALL ON *.* TO default",
	} {
		var exception *clickhouse.Exception
		if err := conn.Exec(t.Context(), query); !errors.As(err, &exception) {
			t.Errorf("%s: got %v, expected a refusal by the server", query, err)
		}
	}
	if left, err := filepath.Glob(file + "?*"); err != nil || len(left) > 0 {
		t.Errorf("files %v were written (%v)", left, err)
	}
}

// TestClickHouseFeatures runs what the tables of this project lean on.
func TestClickHouseFeatures(t *testing.T) {
	conn := open(t, embeddedtest.ClickHouse(t), embeddedtest.Database(t))
	execute(t, conn,
		`CREATE TABLE d (k UInt64, day Date, revision UInt64, v LowCardinality(String)) ENGINE = ReplacingMergeTree(revision)
			PARTITION BY toMonday(day) ORDER BY k TTL day + INTERVAL 30 DAY SETTINGS non_replicated_deduplication_window = 1000`,
		`CREATE TABLE by_value (k UInt64, day Date, revision UInt64, v LowCardinality(String)) ENGINE = ReplacingMergeTree(revision) ORDER BY (v, k)`,
		"CREATE MATERIALIZED VIEW to_by_value TO by_value AS SELECT * FROM d",
		"CREATE TABLE totals (v String, c UInt64) ENGINE = MergeTree ORDER BY v",
		"CREATE MATERIALIZED VIEW to_totals REFRESH EVERY 1 SECOND TO totals AS SELECT v, count() AS c FROM d FINAL GROUP BY v",
		"INSERT INTO d SETTINGS insert_deduplication_token = 'a' SELECT number, today(), 1, 'x' FROM numbers(1000)",
		"INSERT INTO d SETTINGS insert_deduplication_token = 'a' SELECT number, today(), 1, 'x' FROM numbers(1000)",
	)
	if got := one[uint64](t, conn, "SELECT count() FROM d"); got != 1000 {
		t.Errorf("%d rows after a repeated token, expected 1000", got)
	}
	execute(t, conn, "INSERT INTO d SETTINGS insert_deduplication_token = 'b' SELECT number, today(), 2, 'y' FROM numbers(500)")
	if got := one[uint64](t, conn, "SELECT count() FROM d FINAL WHERE v = 'x'"); got != 500 {
		t.Errorf("%d rows of the old revision are visible, expected 500", got)
	}
	if got := one[uint64](t, conn, "SELECT count() FROM by_value"); got < 1500 {
		t.Errorf("the view brought %d rows, expected at least 1500", got)
	}
	deadline, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for one[uint64](t, conn, "SELECT sum(c) FROM totals WHERE v = 'y'") != 500 {
		if deadline.Err() != nil {
			t.Fatal("the refreshable view does not refresh")
		}
		time.Sleep(50 * time.Millisecond)
	}
	// Mutations need free entries in the small background pool; TTL needs merges.
	execute(t, conn, "ALTER TABLE d DELETE WHERE k < 100 SETTINGS mutations_sync = 1",
		"INSERT INTO d SELECT number, today() - 60, 1, 'old' FROM numbers(10)",
		"OPTIMIZE TABLE d FINAL", "SYSTEM FLUSH LOGS")
	if got := one[uint64](t, conn, "SELECT count() FROM d FINAL"); got != 900 {
		t.Errorf("%d rows after a mutation and TTL, expected 900", got)
	}
	if got := one[string](t, conn, "SELECT timezone()"); got != "UTC" {
		t.Errorf("time zone %s, expected UTC", got)
	}
	if got := one[uint64](t, conn, "SELECT count() FROM system.tables WHERE database = 'system' AND name LIKE '%\\_log' AND engine LIKE '%MergeTree'"); got != 0 {
		t.Errorf("%d system log tables grow, expected none", got)
	}
}

func TestClickHouseConcurrentClients(t *testing.T) {
	address, database := embeddedtest.ClickHouse(t), embeddedtest.Database(t)
	execute(t, open(t, address, database), "CREATE TABLE d (k UInt64, revision UInt64, v String) ENGINE = ReplacingMergeTree(revision) ORDER BY k")
	const clients, blocks, rows = 4, 5, 10_000
	var group sync.WaitGroup
	for client := range clients {
		conn := open(t, address, database)
		group.Go(func() {
			for block := range blocks {
				batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO d")
				if err != nil {
					t.Error(err)
					return
				}
				for k := range rows { // Each client writes the same keys, with revisions of its own.
					if err := batch.Append(uint64(k), uint64(block*clients+client), "some text that is as long as a sentence"); err != nil {
						t.Error(err)
					}
				}
				if err := batch.Send(); err != nil {
					t.Error(err)
				}
				var seen uint64
				if err := conn.QueryRow(t.Context(), "SELECT uniqExact(k) FROM d FINAL").Scan(&seen); err != nil || seen != rows {
					t.Errorf("client %d sees %d keys (%v), expected %d", client, seen, err, rows)
				}
			}
		})
	}
	group.Wait()
	conn := open(t, address, database)
	if got := one[uint64](t, conn, "SELECT count() FROM d FINAL"); got != rows {
		t.Errorf("%d rows, expected %d", got, rows)
	}
	if got := one[uint64](t, conn, "SELECT min(revision) FROM d FINAL"); got != blocks*clients-1 {
		t.Errorf("oldest visible revision %d, expected %d", got, blocks*clients-1)
	}
}

func TestClickHouseMemoryLimit(t *testing.T) {
	c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: t.TempDir(), MemoryLimit: 600 << 20})
	conn := open(t, c.Address(), "default")
	err := conn.Exec(t.Context(), "SELECT groupArray(toString(number)) FROM numbers(100000000) FORMAT Null")
	var exception *clickhouse.Exception
	if !errors.As(err, &exception) || exception.Code != 241 { // MEMORY_LIMIT_EXCEEDED
		t.Errorf("got %v, expected exception 241", err)
	}
	if got := one[uint8](t, conn, "SELECT 1"); got != 1 || c.Err() != nil {
		t.Errorf("the engine did not live on: %v", c.Err())
	}
}
