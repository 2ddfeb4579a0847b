package integration

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/pipeline"
)

// plant is a broker, a ClickHouse that can be killed and started again on the same data and port, and what a `signindiag run`
// on them is told. A plant that has no name of its own in what follows runs with 4 raw partitions and 4 shards.
type plant struct {
	t      *testing.T
	broker *os.Process
	kafka  *pipeline.Kafka
	// kafkaAddress and clickHouseAddress are what signindiag is told; a test may put a proxy there.
	kafkaAddress, clickHouseAddress string

	dir     string // of everything below
	port    int    // of ClickHouse
	engine  atomic.Pointer[embedded.ClickHouse]
	library string

	proxy     *proxy   // before ClickHouse; nil for none
	snapshots string   // URL
	env       []string // further variables

	users    int64        // how many users the records are of
	sent     atomic.Int64 // good records written to the raw topic
	poison   atomic.Int64 // records written that cannot be decoded
	producer *pipeline.RawProducer
}

const (
	plantRaw        = "signindiag.raw"
	plantEntities   = "signindiag.entities.v1"
	plantPartitions = 4
)

// newPlant starts the servers; all of it ends with the test.
func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{t: t, users: 997, library: embeddedtest.Library(t), dir: t.TempDir(), port: freePort(t)}
	p.snapshots = "file://" + filepath.Join(p.dir, "snapshots")
	p.startBroker()
	p.clickHouseAddress = fmt.Sprintf("127.0.0.1:%d", p.port)
	var err error
	if p.kafka, err = pipeline.OpenKafka(pipeline.KafkaConfig{Brokers: []string{p.kafkaAddress}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kafka.Close)
	if _, err := p.kafka.EnsureTopic(t.Context(), pipeline.TopicConfig{Name: plantRaw, Partitions: plantPartitions}); err != nil {
		t.Fatal(err)
	}
	// Not compressed: a fetch is bounded as it comes, and alike records would be so small that much of a backlog is one fetch.
	if p.producer, err = pipeline.NewRawProducer(t.Context(), p.kafka, plantRaw, pipeline.CodecNone, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.producer.Close)
	t.Cleanup(func() {
		if engine := p.engine.Load(); engine != nil {
			_ = engine.Close() // it may have been killed
		}
	})
	return p
}

// startBroker starts a broker in a process of its own, which a test may stop with SIGSTOP. It ends with its standard input.
func (p *plant) startBroker() {
	p.t.Helper()
	c := exec.Command(program.Path, "embedded-broker", "--data", filepath.Join(p.dir, "kafka"))
	in, err := c.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.broker = c.Process
	p.t.Cleanup(func() {
		_ = p.broker.Signal(syscall.SIGCONT)
		in.Close()
		if err := c.Wait(); err != nil {
			p.t.Errorf("the broker: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	p.kafkaAddress = strings.TrimSpace(line)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (p *plant) engineDir() string { return filepath.Join(p.dir, "clickhouse") }

// startEngine starts ClickHouse on its data and port.
func (p *plant) startEngine() {
	p.t.Helper()
	engine, err := embedded.StartClickHouse(context.Background(), embedded.ClickHouseConfig{
		DataDir: p.engineDir(), TCPPort: p.port, Library: p.library, IgnoreInstalled: true, MemoryLimit: 2 << 30,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.engine.Store(engine)
}

// killEngine is kill -9.
func (p *plant) killEngine() {
	p.t.Helper()
	engine := p.engine.Swap(nil)
	if err := syscall.Kill(engine.PID(), syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	<-engine.Done()
	_ = engine.Close() // it was killed
}

func (p *plant) stopEngine() {
	p.t.Helper()
	if err := p.engine.Swap(nil).Close(); err != nil {
		p.t.Fatal(err)
	}
}

// record returns a small sign-in as Azure Monitor exports it. Every third one fails, so that there are incidents and rows that
// are made again.
func record(n int64) []byte { return recordOf(n, n%997) }

func recordOf(n, user int64) []byte {
	code := 0
	if n%3 == 0 {
		code = 50126
	}
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).Add(time.Duration(n) * 100 * time.Millisecond).Format("2006-01-02T15:04:05.000Z")
	return fmt.Appendf(nil, `{"time":"%s","operationName":"Sign-in activity","category":"SignInLogs","tenantId":"3f1c2b7e-0000-4000-8000-00000000aaaa","resultType":"%d",`+
		`"properties":{"id":"%08x-1111-4000-8000-%012x","createdDateTime":"%s","userId":"%08x-3333-4000-8000-00000000aaaa","userPrincipalName":"user%d@example.org",`+
		`"correlationId":"%08x-2222-4000-8000-%012x","appDisplayName":"Example App","ipAddress":"203.0.113.%d","status":{"errorCode":%d}}}`,
		at, code, n, n, at, user, user, n, n, n%250, code)
}

// send writes n good records to the raw topic, and one that cannot be decoded with every hundred.
func (p *plant) send(n int64) {
	p.t.Helper()
	var values [][]byte
	first := p.sent.Load()
	for i := first; i < first+n; i++ {
		values = append(values, recordOf(i, i%p.users))
		if i%100 == 0 {
			values = append(values, fmt.Appendf(nil, `{"category":"SignInLogs","properties":{"id":%d,}}`, i))
			p.poison.Add(1)
		}
	}
	refused, err := p.producer.Send(context.Background(), values)
	if err != nil || len(refused) > 0 {
		p.t.Errorf("write to the raw topic: %v %v", err, refused)
	}
	p.sent.Add(n)
}

// feed sends records at about the given number a second until the function that it returns is called.
func (p *plant) feed(rate int64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.send(max(rate/20, 1))
			}
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	p.t.Cleanup(stop)
	return stop
}

// environ is the configuration of `signindiag run`; later variables win.
func (p *plant) environ(more ...string) []string {
	env := []string{
		"SIGNINDIAG_KAFKA_BROKERS=" + p.kafkaAddress, "SIGNINDIAG_KAFKA_RAW_TOPICS=" + plantRaw, "SIGNINDIAG_KAFKA_ENTITIES_TOPIC=" + plantEntities,
		"SIGNINDIAG_KAFKA_ENTITIES_PARTITIONS=" + strconv.Itoa(plantPartitions), "SIGNINDIAG_KAFKA_REPLICATION=1",
		"SIGNINDIAG_CLICKHOUSE_ADDRESSES=" + p.clickHouseAddress, "SIGNINDIAG_SNAPSHOTS_URL=" + p.snapshots, "SIGNINDIAG_SNAPSHOTS_INTERVAL=1s",
		"SIGNINDIAG_HTTP_ADDRESS=127.0.0.1:0",
	}
	return append(append(env, p.env...), more...)
}

// run starts `signindiag run`.
func (p *plant) run(more ...string) *program.Process { return p.runProgram(program.Path, more...) }

func (p *plant) runProgram(file string, more ...string) *program.Process {
	p.t.Helper()
	return program.StartFile(p.t, file, p.environ(more...), "run")
}

// forgetMembers takes the members that a killed process left in its groups out of them, as Kafka's own admin tools do. The
// broker would do it after the session timeout.
func (p *plant) forgetMembers() {
	p.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(p.kafkaAddress))
	if err != nil {
		p.t.Fatal(err)
	}
	defer client.Close()
	for _, stage := range []string{"router", "shards"} {
		group := "signindiag." + stage + "." + plantEntities
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Groups = []string{group}
		described, err := describe.RequestWith(p.t.Context(), client)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, g := range described.Groups {
			for _, m := range g.Members {
				leave := kmsg.NewPtrLeaveGroupRequest()
				leave.Group = group
				leave.MemberID = m.MemberID
				member := kmsg.NewLeaveGroupRequestMember()
				member.MemberID = m.MemberID
				leave.Members = append(leave.Members, member)
				if _, err := leave.RequestWith(p.t.Context(), client); err != nil {
					p.t.Fatal(err)
				}
			}
		}
	}
}

// query returns one value from ClickHouse itself, past any proxy.
func query[T any](p *plant, sql string, args ...any) (value T, err error) {
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{fmt.Sprintf("127.0.0.1:%d", p.port)}, Auth: clickhouse.Auth{Database: "system"}, MaxOpenConns: 1})
	if err != nil {
		return value, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	return value, err
}

func (p *plant) exec(sql string) {
	p.t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{fmt.Sprintf("127.0.0.1:%d", p.port)}, Auth: clickhouse.Auth{Database: "system"}, MaxOpenConns: 1})
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec(p.t.Context(), sql); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

// counts are what the tables hold.
func (p *plant) counts() (string, error) {
	return query[string](p, `SELECT concat(
		toString((SELECT count() FROM signindiag.diagnoses FINAL)), ' diagnoses of ', toString((SELECT uniqExact(request_id) FROM signindiag.diagnoses)), ' ids, ',
		toString((SELECT count() FROM signindiag.diagnoses_by_user FINAL)), ' by user, ', toString((SELECT count() FROM signindiag.request_ids FINAL)), ' request ids, ',
		toString((SELECT count() FROM signindiag.raw_records FINAL)), ' raw records, ', toString((SELECT count() FROM signindiag.quarantine FINAL)), ' in quarantine')`)
}

// exact waits until the tables hold every record that was sent once, and nothing else, and has verify look at every column.
func (p *plant) exact(i *program.Process) {
	p.t.Helper()
	p.all(i)
	p.verify()
}

// all waits until the tables hold every record that was sent once, and nothing else.
func (p *plant) all(i *program.Process) {
	p.t.Helper()
	n := p.sent.Load()
	want := fmt.Sprintf("%d diagnoses of %d ids, %d by user, %d request ids, %d raw records, %d in quarantine", n, n, n, n, n, p.poison.Load())
	got := ""
	defer func() {
		if p.t.Failed() {
			p.t.Logf("want %s\ngot  %s", want, got)
		}
	}()
	i.Until("all rows", func() bool {
		var err error
		if got, err = p.counts(); err != nil {
			got = err.Error()
		}
		return got == want
	})
}

// verify runs `signindiag verify`, which compares all logs and tables. The raw offsets are committed a second behind the rows.
func (p *plant) verify() {
	p.t.Helper()
	var out []byte
	var err error
	for range 10 {
		c := exec.Command(program.Path, "verify", "--complete")
		c.Env = append(os.Environ(), p.environ()...)
		if out, err = c.CombinedOutput(); err == nil {
			return
		}
		time.Sleep(time.Second)
	}
	p.t.Errorf("verify: %v\n%s", err, out)
}
