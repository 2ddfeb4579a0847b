// Package embeddedtest gives tests a Kafka-protocol broker and a ClickHouse server on loopback.
//
// A test binary that uses ClickHouse needs
//
//	func TestMain(m *testing.M) { embeddedtest.Main(m) }
//
// One engine serves all tests of a binary; each test works in a database of its own (Database).
package embeddedtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/embedded"
)

// RequireVariable names the environment variable that lists servers (comma separated, such as
// "clickhouse") without which a test fails instead of being skipped.
const RequireVariable = "SIGNINDIAG_TEST_REQUIRE"

// fetchTimeout bounds the download of the engine's library, which takes 15 s to some minutes and happens
// once per machine.
const fetchTimeout = 5 * time.Minute

// engine is the one ClickHouse of this test binary, started by the first test that asks for it.
var engine struct {
	once   sync.Once
	dir    string
	server *embedded.ClickHouse
	err    error
}

// databases counts the databases given out, for their names.
var databases atomic.Int64

// Main is the body of TestMain: it lets the binary serve as the engine's process, runs the tests, stops the
// engine and exits. A failure to stop it cleanly fails the run.
func Main(m *testing.M) {
	embedded.ClickHouseMain()
	// The race detector sleeps for a second at the exit of every process, that of the engine included.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintf(os.Stderr, "embeddedtest: %v\n", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "embeddedtest: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Stop ends the shared engine, if there is one, and removes its data. Main calls it; only a TestMain that
// has more to do after the tests calls it itself, once.
func Stop() error {
	engine.once.Do(func() { engine.err = errors.New("the tests are over") })
	if engine.server == nil {
		return nil
	}
	return errors.Join(engine.server.Close(), os.RemoveAll(engine.dir))
}

// Broker starts a broker in memory for this test alone, and returns its host:port. It ends with the test.
func Broker(t testing.TB) string {
	t.Helper()
	return StartBroker(t, embedded.BrokerConfig{}).Address()
}

// StartBroker starts a broker as configured, and ends it with the test.
func StartBroker(t testing.TB, cfg embedded.BrokerConfig) *embedded.Broker {
	t.Helper()
	broker, err := embedded.StartBroker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	return broker
}

// ClickHouse returns host:port (native protocol) of the engine that all tests of this binary share, and
// starts it on the first call. Where the library cannot be had the test is skipped with the reason, or
// fails when SIGNINDIAG_TEST_REQUIRE contains "clickhouse".
func ClickHouse(t testing.TB) string {
	t.Helper()
	return server(t).Address()
}

// ClickHouseHTTP returns host:port of the HTTP interface of the same engine.
func ClickHouseHTTP(t testing.TB) string {
	t.Helper()
	return server(t).HTTPAddress()
}

// Database makes an empty database for this test and returns its name. It is dropped when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	address := ClickHouse(t)
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), databases.Add(1))
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{address}, MaxOpenConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(t.Context(), "CREATE DATABASE "+name+" ENGINE = Atomic"); err != nil {
		conn.Close()
		t.Fatalf("make a database for the test: %v", err)
	}
	t.Cleanup(func() {
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := conn.Exec(ctx, "DROP DATABASE "+name+" SYNC"); err != nil {
			t.Errorf("drop the database of the test: %v", err)
		}
	})
	return name
}

// Library returns the path of the engine's library for tests that start engines of their own, and skips or
// fails like ClickHouse.
func Library(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(embedded.LibraryVariable); path != "" {
		return path
	}
	ctx, cancel := context.WithTimeout(t.Context(), fetchTimeout)
	defer cancel()
	path, err := embedded.FetchLibrary(ctx, "", nil)
	skipOrFail(t, err)
	return path
}

func server(t testing.TB) *embedded.ClickHouse {
	t.Helper()
	engine.once.Do(func() {
		if engine.dir, engine.err = os.MkdirTemp("", "signindiag-clickhouse-"); engine.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		engine.server, engine.err = embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{
			DataDir: engine.dir, IgnoreInstalled: true, MemoryLimit: 2 << 30,
		})
		if engine.err != nil {
			engine.err = errors.Join(engine.err, os.RemoveAll(engine.dir))
		}
	})
	skipOrFail(t, engine.err)
	if err := engine.server.Err(); err != nil {
		t.Fatal(err)
	}
	return engine.server
}

// skipOrFail skips where there is no library to test with, and fails on any other error.
func skipOrFail(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var missing *embedded.LibraryError
	if errors.As(err, &missing) && !strings.Contains(os.Getenv(RequireVariable), "clickhouse") {
		t.Skipf("skipped without an engine: %v", err)
	}
	t.Fatal(err)
}
