// Package kafka tests `signindiag run` against what a Kafka does to its clients: security, Event Hubs' ways, and failures.
package kafka

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/integration/servers"
)

// maxResident bounds the memory of a process under test, in MiB. It takes some 150.
const maxResident = 700

func TestMain(m *testing.M) { program.Main(m, "../..") }

// start starts `signindiag run` on the servers; environment comes behind that of the set, and wins.
func start(t *testing.T, s *servers.Set, environment ...string) *program.Process {
	t.Helper()
	// Sessions are short, so that a broker's death is over soon.
	short := []string{"SIGNINDIAG_KAFKA_SESSION_TIMEOUT=6s", "SIGNINDIAG_SNAPSHOTS_INTERVAL=2s"}
	return program.Start(t, append(append(s.Environment(), short...), environment...), "run")
}

// bounded checks how much memory the process has had at most.
func bounded(t *testing.T, p *program.Process) {
	t.Helper()
	_, most := p.Memory()
	t.Logf("run had at most %d MiB", most)
	if most > maxResident {
		t.Errorf("run had %d MiB, want at most %d", most, maxResident)
	}
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
		case <-time.After(program.Long):
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
	program.Wait(t, fmt.Sprintf("%d rows", total), func() bool { return rows(t, conn) >= total })
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
