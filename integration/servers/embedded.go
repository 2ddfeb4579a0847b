package servers

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

func init() {
	register(backend{
		name: "embedded",
		shared: func(t testing.TB) *Set {
			return NewSet(t, &Kafka{Brokers: []string{embeddedtest.Broker(t)}, Replication: 1}, SharedClickHouse(t))
		},
		own: func(t testing.TB, o Options) *Set {
			if o.Nodes > 1 {
				t.Skip("skipped: the embedded broker is one node")
			}
			return NewSet(t, startEmbeddedKafka(t), StartClickHouse(t))
		},
	})
}

// SharedClickHouse returns a fresh database of the engine that all tests of the binary share.
func SharedClickHouse(t testing.TB) *ClickHouse {
	t.Helper()
	return &ClickHouse{Addresses: []string{embeddedtest.ClickHouse(t)}, Username: "default", Database: embeddedtest.Database(t)}
}

// StartClickHouse starts an embedded engine for this test alone.
func StartClickHouse(t testing.TB) *ClickHouse {
	t.Helper()
	return startClickHouse(t, &ClickHouse{Username: "default"}, embedded.ClickHouseConfig{})
}

// StartSecureClickHouse is StartClickHouse with a user's name, a password, and TLS.
func StartSecureClickHouse(t testing.TB, certificates *Certificates, username, password string) *ClickHouse {
	t.Helper()
	return startClickHouse(t, &ClickHouse{Username: username, Password: password, TLS: true, CAFile: certificates.CAFile}, embedded.ClickHouseConfig{
		Username: username, Password: password, TLSCertFile: certificates.serverPEM, TLSKeyFile: certificates.serverPEM,
	})
}

// startClickHouse starts an engine as configured, and completes how to reach it.
func startClickHouse(t testing.TB, c *ClickHouse, config embedded.ClickHouseConfig) *ClickHouse {
	t.Helper()
	ports := FreePorts(t, 2)
	config.DataDir, config.TCPPort, config.HTTPPort = filepath.Join(t.TempDir(), "clickhouse"), ports[0], ports[1]
	config.Library, config.IgnoreInstalled, config.MemoryLimit = embeddedtest.Library(t), true, 2<<30
	var engine *embedded.ClickHouse
	start := func(t testing.TB) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		var err error
		if engine, err = embedded.StartClickHouse(ctx, config); err != nil {
			t.Fatal(err)
		}
	}
	stop := func(t testing.TB) {
		t.Helper()
		if err := engine.Close(); err != nil {
			t.Errorf("stop ClickHouse: %v", err)
		}
	}
	start(t)
	t.Cleanup(func() { _ = engine.Close() }) // it may have been killed
	c.Addresses, c.Database = []string{engine.Address()}, "signindiag_test"
	c.Control = &Control{
		Start: start, Stop: stop,
		Kill: func(t testing.TB) {
			t.Helper()
			if err := syscall.Kill(engine.PID(), syscall.SIGKILL); err != nil {
				t.Fatalf("kill ClickHouse: %v", err)
			}
			_ = engine.Close() // waits, frees the directory, and says that it was killed
		},
		PID: func() int { return engine.PID() },
	}
	createDatabase(t, c)
	return c
}

// createDatabase makes the database of c.
func createDatabase(t testing.TB, c *ClickHouse) {
	t.Helper()
	conn := c.connect(t, "")
	defer conn.Close()
	if err := conn.Exec(t.Context(), "CREATE DATABASE "+c.Database); err != nil {
		t.Fatalf("make a database for the test: %v", err)
	}
}

// startEmbeddedKafka starts an embedded broker for this test alone. It cannot be killed: it is part of the test's process.
func startEmbeddedKafka(t testing.TB) *Kafka {
	t.Helper()
	config := embedded.BrokerConfig{
		DataDir: filepath.Join(t.TempDir(), "kafka"), Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePorts(t, 1)[0])),
	}
	var broker *embedded.Broker
	start := func(t testing.TB) {
		t.Helper()
		var err error
		if broker, err = embedded.StartBroker(config); err != nil {
			t.Fatal(err)
		}
	}
	start(t)
	stop := func(t testing.TB) {
		t.Helper()
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { stop(t) })
	return &Kafka{Brokers: []string{broker.Address()}, Replication: 1, Controls: []*Control{{Start: start, Stop: stop}}}
}

// Open returns a connection to the database, closed with the test.
func (c *ClickHouse) Open(t testing.TB) clickhouse.Conn {
	t.Helper()
	conn := c.connect(t, c.Database)
	t.Cleanup(func() { _ = conn.Close() }) // its server may be away
	return conn
}

// connect returns a pool of connections to a database, "" for the user's own.
func (c *ClickHouse) connect(t testing.TB, database string) clickhouse.Conn {
	t.Helper()
	o := &clickhouse.Options{Addr: c.Addresses, Auth: clickhouse.Auth{Username: c.Username, Password: c.Password, Database: database}}
	if c.TLS {
		o.TLS = clientTLS(t, c.CAFile, "", "")
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
