// Package kafka tests `signindiag run` against what a Kafka does to its clients: security, Event Hubs' ways, and failures.
package kafka

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/integration/servers"
)

const (
	// waitLong bounds waiting for something that has to happen, far above what it takes.
	waitLong = 4 * time.Minute
	// maxResident bounds the memory of a process under test, in bytes. It takes some 150 MB.
	maxResident = 700 << 20
)

// program is the built binary.
var program string

func TestMain(m *testing.M) {
	embedded.ClickHouseMain()
	code := buildAndRun(m)
	if err := servers.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "signindiag-kafka-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "signindiag")
	build := exec.Command("go", "build", "-o", program, "./cmd/signindiag")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build signindiag: %v\n%s\n", err, out)
		return 1
	}
	return m.Run()
}

// run is a `signindiag run`.
type run struct {
	t    *testing.T
	cmd  *exec.Cmd
	mu   sync.Mutex
	text strings.Builder
	done chan struct{}
}

// start starts `signindiag run` on the servers; environment comes behind that of the set, and wins.
func start(t *testing.T, s *servers.Set, environment ...string) *run {
	t.Helper()
	r := &run{t: t, done: make(chan struct{})}
	r.cmd = exec.Command(program, "run")
	// Sessions are short, so that a broker's death is over soon.
	r.cmd.Env = append(append(os.Environ(), append(s.Environment(), "SIGNINDIAG_KAFKA_SESSION_TIMEOUT=6s", "SIGNINDIAG_SNAPSHOTS_INTERVAL=2s")...), environment...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = writer, writer
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	go func() {
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			r.mu.Lock()
			r.text.WriteString(lines.Text() + "\n")
			r.mu.Unlock()
		}
		reader.Close()
		_ = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
		if t.Failed() {
			text := r.output()
			t.Logf("output of run:\n%s", text[max(0, len(text)-20_000):])
		}
	})
	return r
}

func (r *run) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// eventually waits for a condition that must come true; state tells what is there instead.
func eventually(t *testing.T, what string, condition func() bool, state func() string) {
	t.Helper()
	deadline := time.Now().Add(waitLong)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %s: %s", what, waitLong, state())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// says waits for a line of the log that matches, and returns the submatches.
func (r *run) says(pattern string) (found []string) {
	r.t.Helper()
	expression := regexp.MustCompile(pattern)
	eventually(r.t, "the log says "+pattern, func() bool {
		found = expression.FindStringSubmatch(r.output())
		return found != nil
	}, func() string { return "" })
	return found
}

func (r *run) get(path string) (status int, body string) {
	r.t.Helper()
	address := r.says(`signindiag runs.* api=(\S+)`)[1]
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// ready waits until /readyz says so.
func (r *run) ready() {
	r.t.Helper()
	var status int
	var body string
	eventually(r.t, "/readyz is ready", func() bool { status, body = r.get("/readyz"); return status == http.StatusOK }, func() string { return body })
}

// unready waits until /readyz says something that matches.
func (r *run) unready(pattern string) {
	r.t.Helper()
	expression := regexp.MustCompile(pattern)
	var status int
	var body string
	eventually(r.t, "/readyz says "+pattern, func() bool {
		status, body = r.get("/readyz")
		return status == http.StatusServiceUnavailable && expression.MatchString(body)
	}, func() string { return fmt.Sprint(status, " ", body) })
}

// metric returns the sum of a metric's series whose labels contain the text.
func (r *run) metric(name, labels string) float64 {
	r.t.Helper()
	status, body := r.get("/metrics")
	if status != http.StatusOK {
		r.t.Fatalf("/metrics answers %d: %s", status, body)
	}
	sum := 0.0
	for line := range strings.Lines(body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series == name || strings.HasPrefix(series, name+"{") && strings.Contains(series, labels) {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// bounded checks how much memory the process has had at most.
func (r *run) bounded() {
	r.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return // not Linux
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		r.t.Fatalf("no VmHWM in\n%s", status)
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("run had at most %d MB", kilobytes>>10)
	if kilobytes<<10 > maxResident {
		r.t.Errorf("run had %d MB, want at most %d", kilobytes>>10, maxResident>>20)
	}
}

// stop asks the process to end, and fails where it does not end well.
func (r *run) stop() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if code := r.ended(); code != 0 {
		r.t.Errorf("run ends with %d:\n%s", code, r.output())
	}
}

// ended waits for the end and returns the exit code.
func (r *run) ended() int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(waitLong):
		r.t.Fatalf("run did not end:\n%s", r.output())
	}
	return r.cmd.ProcessState.ExitCode()
}

// record returns sign-in n as Azure Monitor exports it, alone in its message, from a user of a hundred. app is the name of the
// application.
func record(n int, app string) []byte {
	code := []int{0, 50126}[n%2]
	return fmt.Appendf(nil, `{"records":[{"time":"2026-03-02T09:00:%02d.0000000Z","resourceId":"/tenants/3f1c2b7e-0000-4000-8000-00000000aaaa/providers/Microsoft.aadiam",`+
		`"operationName":"Sign-in activity","category":"SignInLogs","tenantId":"3f1c2b7e-0000-4000-8000-00000000aaaa","resultType":"%d","properties":{"id":"%s",`+
		`"createdDateTime":"2026-03-02T09:00:%02d+00:00","userPrincipalName":"user%d@example.com","userId":"%08x-3333-4000-8000-000000000000",`+
		`"correlationId":"%08x-2222-4000-8000-%012x","appDisplayName":"%s","ipAddress":"203.0.113.%d","status":{"errorCode":%d}}}]}`,
		n%60, code, requestID(n), n%60, n%100, n%100, n, n, app, n%250, code)
}

func requestID(n int) string { return fmt.Sprintf("%08x-1111-4000-8000-%012x", n, n) }

// send writes sign-ins [from, to) to the raw topic, each once, and waits until they are acknowledged.
func send(t *testing.T, s *servers.Set, from, to int) {
	t.Helper()
	// Event Hubs and its like offer no producer ids.
	client := s.Kafka.Client(t, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	for n := from; n < to; n++ {
		client.Produce(t.Context(), &kgo.Record{Topic: s.RawTopic, Value: record(n, "Example App")}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("send record %d: %v", n, err)
			}
		})
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.Close()
}

// feed writes sign-ins from the given number on, up to 100 a second and one after the other, until it is ended; end returns the
// number behind the last. A record that could not be written is written again, perhaps twice.
func feed(t *testing.T, s *servers.Set, from int) (end func() int) {
	t.Helper()
	client := s.Kafka.Client(t, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(0))
	stop, stopped := make(chan struct{}), make(chan struct{})
	n := from
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
			// The client takes a broker that restarts for one that expects TLS, and gives records up.
			for client.ProduceSync(t.Context(), &kgo.Record{Topic: s.RawTopic, Value: record(n, "Example App")}).FirstErr() != nil {
				if t.Context().Err() != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			n++
		}
	}()
	return func() int {
		close(stop)
		select {
		case <-stopped:
		case <-time.After(waitLong):
			t.Fatal("the last record cannot be written")
		}
		return n
	}
}

// rows counts the sign-ins that have a row.
func rows(t *testing.T, conn clickhouse.Conn) int {
	t.Helper()
	var n uint64
	if err := conn.QueryRow(t.Context(), "SELECT uniqExact(request_id) FROM diagnoses").Scan(&n); err != nil {
		var exception *clickhouse.Exception
		if errors.As(err, &exception) && exception.Code == 60 { // no such table yet
			return 0
		}
		t.Fatal(err)
	}
	return int(n)
}

// exactly waits for the rows of sign-ins [0, count) without those that are left out, and checks that each is there once and
// unchanged, and that nothing else is.
func exactly(t *testing.T, s *servers.Set, count int, without ...int) {
	t.Helper()
	conn := s.ClickHouse.Open(t)
	want := map[string]int{}
	for n := range count {
		want[requestID(n)] = n
	}
	for _, n := range without {
		delete(want, requestID(n))
	}
	total := len(want)
	eventually(t, fmt.Sprintf("%d rows", total), func() bool { return rows(t, conn) >= total }, func() string { return fmt.Sprint(rows(t, conn), " rows") })
	result, err := conn.Query(t.Context(), "SELECT request_id, error_code, user FROM diagnoses FINAL")
	if err != nil {
		t.Fatal(err)
	}
	defer result.Close()
	got := 0
	for result.Next() {
		var id, user string
		var code int32
		if err := result.Scan(&id, &code, &user); err != nil {
			t.Fatal(err)
		}
		n, ok := want[id]
		if !ok {
			t.Fatalf("row %s is there twice, or should not be there", id)
		}
		delete(want, id)
		got++
		if code != int32([]int{0, 50126}[n%2]) || user != fmt.Sprintf("user%d@example.com", n%100) {
			t.Errorf("row %s has code %d and user %s", id, code, user)
		}
	}
	if err := result.Err(); err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("%d of %d rows are lost", len(want), total)
	}
	t.Logf("%d rows, each once", got)
}
