// Package servers gives tests a Kafka and a ClickHouse of every kind that is at hand: the embedded ones, Apache Kafka as a
// process on loopback, containers, and servers somewhere else that variables name. Only tests import it.
//
// A test binary that uses it needs
//
//	func TestMain(m *testing.M) { servers.Main(m) }
//
// Variables: SIGNINDIAG_TEST_BACKENDS names the backends to use, separated by commas (default: all that are at hand);
// SIGNINDIAG_TEST_REQUIRE names what must be at hand, so that a test fails instead of being skipped (java for Apache Kafka).
package servers

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

const (
	// backendsVariable narrows Each.
	backendsVariable = "SIGNINDIAG_TEST_BACKENDS"
	// startTimeout bounds the start of a server, which takes seconds on an idle machine.
	startTimeout = 3 * time.Minute
)

// Control stops and starts one server: the same ports, the same data. A field is nil where the backend has no such control.
// Each returns when it is done: Start when the server answers.
type Control struct {
	// Stop asks the server to end and waits until it has; Kill is kill -9.
	Stop, Kill, Start func(t testing.TB)
	// Pause halts the server without a word to anybody, and Resume lets it go on.
	Pause, Resume func(t testing.TB)
	// PID is the process that serves now.
	PID func() int
}

// ClickHouse is how to reach a ClickHouse.
type ClickHouse struct {
	// Addresses are host:port of the native protocol.
	Addresses          []string
	Username, Password string
	// Database is empty, fresh, and dropped with the test.
	Database string
	TLS      bool
	// CAFile holds PEM certificates to trust instead of the system's.
	CAFile string
	// Control is nil where the server cannot be stopped.
	Control *Control
}

// Set is one Kafka and one ClickHouse for a test, with names that nobody else uses.
type Set struct {
	// Backend is the name of the backend.
	Backend    string
	Kafka      *Kafka
	ClickHouse *ClickHouse
	// RawTopic, EntitiesTopic and Group are fresh; no topic is made yet.
	RawTopic, EntitiesTopic, Group string
	// Partitions of the entities topic and Replication of both, for who makes them.
	Partitions, Replication int
	// Snapshots is a directory for snapshots.
	Snapshots string
}

// Options of servers that are a test's own.
type Options struct {
	// Nodes is the number of Kafka brokers; 0 means 1. Backends with one broker only are skipped where it is more.
	Nodes int
}

// backend is a way to have servers.
type backend struct {
	name string
	// shared returns servers that other tests use too; own returns some that the test may stop. Either may be nil, and skips
	// the test where there are none to be had.
	shared func(t testing.TB) *Set
	own    func(t testing.TB, o Options) *Set
}

// backends are all that are known. A backend's file adds to it in an init function.
var backends []backend

func register(b backend) { backends = append(backends, b) }

// Each runs test once for every backend, as a subtest. The servers are shared with other tests of the binary: a test
// makes topics and rows, and stops nothing.
func Each(t *testing.T, test func(t *testing.T, s *Set)) {
	t.Helper()
	each(t, func(b backend) func(testing.TB) *Set { return b.shared }, test)
}

// EachOwn is Each with servers that are the test's own and may be stopped, killed and started where the backend has controls.
func EachOwn(t *testing.T, o Options, test func(t *testing.T, s *Set)) {
	t.Helper()
	o.Nodes = max(o.Nodes, 1)
	each(t, func(b backend) func(testing.TB) *Set {
		if b.own == nil {
			return nil
		}
		return func(t testing.TB) *Set { return b.own(t, o) }
	}, test)
}

func each(t *testing.T, open func(backend) func(testing.TB) *Set, test func(t *testing.T, s *Set)) {
	t.Helper()
	wanted := list(os.Getenv(backendsVariable))
	for _, name := range wanted {
		if !slices.ContainsFunc(backends, func(b backend) bool { return b.name == name }) {
			t.Fatalf("%s names %q, which is no backend", backendsVariable, name)
		}
	}
	slices.SortFunc(backends, func(a, b backend) int { return cmp.Compare(a.name, b.name) })
	for _, b := range backends {
		if len(wanted) > 0 && !slices.Contains(wanted, b.name) {
			continue
		}
		if open := open(b); open != nil {
			t.Run(b.name, func(t *testing.T) {
				s := open(t)
				s.Backend = b.name
				test(t, s)
			})
		}
	}
}

// NewSet puts a Kafka and a ClickHouse together, with fresh names.
func NewSet(t testing.TB, kafka *Kafka, clickHouse *ClickHouse) *Set {
	name := fmt.Sprintf("test-%d-%d-%s", os.Getpid(), names.Add(1), strconv.FormatUint(rand.Uint64(), 36))
	return &Set{
		Kafka: kafka, ClickHouse: clickHouse, RawTopic: name + ".raw", EntitiesTopic: name + ".entities.v1", Group: name,
		Partitions: 4, Replication: kafka.Replication, Snapshots: t.TempDir(),
	}
}

var names atomic.Int64

// Environment returns the variables with which `signindiag run` and other commands work on these servers, NAME=value each. The
// raw topic is made by run. What is not about servers and names has its default.
func (s *Set) Environment() []string {
	k, c := s.Kafka, s.ClickHouse
	variables := []string{
		"KAFKA_BROKERS=" + strings.Join(k.Brokers, ","),
		"KAFKA_RAW_TOPICS=" + s.RawTopic,
		"KAFKA_ENTITIES_TOPIC=" + s.EntitiesTopic,
		"KAFKA_ENTITIES_PARTITIONS=" + strconv.Itoa(s.Partitions),
		"KAFKA_REPLICATION=" + strconv.Itoa(s.Replication),
		"KAFKA_CREATE_TOPICS=true",
		"KAFKA_GROUP=" + s.Group,
		"KAFKA_TLS=" + strconv.FormatBool(k.TLS),
		"KAFKA_TLS_CA_FILE=" + k.CAFile,
		"KAFKA_TLS_CERT_FILE=" + k.CertFile,
		"KAFKA_TLS_KEY_FILE=" + k.KeyFile,
		"KAFKA_SASL_MECHANISM=" + k.SASLMechanism,
		"KAFKA_SASL_USERNAME=" + k.Username,
		"KAFKA_SASL_PASSWORD=" + k.Password,
		"CLICKHOUSE_ADDRESSES=" + strings.Join(c.Addresses, ","),
		"CLICKHOUSE_DATABASE=" + c.Database,
		"CLICKHOUSE_USERNAME=" + cmp.Or(c.Username, "default"),
		"CLICKHOUSE_PASSWORD=" + c.Password,
		"CLICKHOUSE_TLS=" + strconv.FormatBool(c.TLS),
		"CLICKHOUSE_TLS_CA_FILE=" + c.CAFile,
		"SNAPSHOTS_URL=file://" + s.Snapshots,
		"HTTP_ADDRESS=127.0.0.1:0",
	}
	for i, v := range variables {
		variables[i] = "SIGNINDIAG_" + v
	}
	return variables
}

// Main is the body of TestMain: it lets the binary serve as the embedded engine's process, runs the tests, ends the servers
// that they shared, and exits.
func Main(m *testing.M) {
	embedded.ClickHouseMain()
	// The race detector sleeps for a second at the exit of every process, that of the engine included.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintf(os.Stderr, "servers: %v\n", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "servers: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Stop ends the servers that tests shared. Main calls it; only a TestMain that has more to do calls it itself, once.
func Stop() error { return errors.Join(stopSharedKafka(), stopSharedContainers(), embeddedtest.Stop()) }

// Require reports whether the absence of name is a failure here rather than a reason to skip.
func Require(name string) bool {
	return slices.Contains(list(os.Getenv(embeddedtest.RequireVariable)), name)
}

// SkipOrFail skips for want of name, or fails where name is required.
func SkipOrFail(t testing.TB, name string, reason error) {
	t.Helper()
	if Require(name) {
		t.Fatalf("%s is required here: %v", name, reason)
	}
	t.Skipf("skipped: %v", reason)
}

// list splits at commas; an empty text has no element.
func list(text string) []string {
	var l []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			l = append(l, part)
		}
	}
	return l
}

// FreePorts returns n free ports of 127.0.0.1. They lie below those that systems give to outgoing connections (32768 on
// Linux), so that a server which is away for a while finds its port free when it comes back.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		held, ports = append(held, l), append(ports, port)
	}
	t.Fatalf("no %d free ports of 127.0.0.1", n)
	return nil
}
