package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/integration/servers"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// startReplica starts `signindiag run` on the servers. It does not wait for anything.
func startReplica(t *testing.T, s *servers.Set, environment ...string) *program.Process {
	t.Helper()
	return program.Start(t, append(s.Environment(), environment...), "run")
}

// testSeed is the seed of a test's randomness, printed so that a failure can be had again with SIGNINDIAG_TEST_SEED.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("SIGNINDIAG_TEST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SIGNINDIAG_TEST_SEED=%d", seed)
	return seed
}

// feed sends made-up traffic with attacks in it to a raw topic, at a steady pace, until it is stopped.
type feed struct {
	t    *testing.T
	stop context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex
	ids  map[string]bool // request ids of what Kafka has acknowledged
	sent atomic.Int64    // records, repeats included
}

// startFeed begins to send about rate records a second. The topic is made by the first instance.
func startFeed(t *testing.T, s *servers.Set, seed uint64, rate int) *feed {
	t.Helper()
	start := time.Now().UTC().Add(-26 * time.Hour).Truncate(time.Second)
	var attacks []synthetic.Attack
	for i, kind := range synthetic.AttackKinds() {
		attacks = append(attacks, synthetic.Attack{Kind: kind, At: start.Add(time.Duration(i+1) * 15 * time.Minute), Tenant: i % 2, FirstUser: 20 * i})
	}
	// A second of it is minutes of event time, so that a test of minutes has windows that fill and slide.
	traffic, err := synthetic.NewTraffic(synthetic.Options{Seed: seed, Records: 10_000_000, Rate: 1, Start: start, Batch: 20, Attacks: attacks})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &feed{t: t, stop: cancel, ids: map[string]bool{}}
	client := s.Kafka.Client(t, kgo.DefaultProduceTopic(s.RawTopic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.UnknownTopicRetries(-1))
	decoder := schemas.NewDecoder()
	f.done.Go(func() {
		const ticks = 10 // a second
		tick := time.NewTicker(time.Second / ticks)
		defer tick.Stop()
		for {
			var batch []*kgo.Record
			var ids []string
			for n := 0; n < rate/ticks; {
				message, records := traffic.Next()
				n += records
				batch = append(batch, &kgo.Record{Value: bytes.Clone(message)})
				decoder.Decode(message, time.Now(), func(_ int, d *schemas.Decoded) {
					if d.Kind == schemas.KindSignIn {
						ids = append(ids, strings.Clone(d.SignIn.RequestId))
					}
				})
			}
			// What is sent is acknowledged, whatever happens meanwhile: the test counts on it.
			if err := client.ProduceSync(context.Background(), batch...).FirstErr(); err != nil {
				t.Errorf("send records: %v", err)
				return
			}
			f.mu.Lock()
			for _, id := range ids {
				f.ids[id] = true
			}
			f.mu.Unlock()
			f.sent.Add(int64(len(ids)))
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	t.Cleanup(f.end)
	return f
}

// end stops the feed and returns when everything that was sent is acknowledged.
func (f *feed) end() {
	f.stop()
	f.done.Wait()
}

// awaitRows waits until every record that was sent has its row.
func (f *feed) awaitRows(s *servers.Set) {
	f.t.Helper()
	conn := s.ClickHouse.Open(f.t)
	deadline := time.Now().Add(program.Long)
	for {
		var rows, ids uint64
		err := conn.QueryRow(f.t.Context(), "SELECT count(), uniqExact(request_id) FROM diagnoses FINAL").Scan(&rows, &ids)
		if err == nil && ids >= uint64(len(f.ids)) {
			f.t.Logf("%d records sent, %d of them repeats; %d rows", f.sent.Load(), int(f.sent.Load())-len(f.ids), rows)
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("of %d request ids that were sent %d have rows (%v)", len(f.ids), ids, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// verifyExact runs `signindiag verify` and expects that nothing is lost, repeated or altered.
func verifyExact(t *testing.T, s *servers.Set, environment ...string) {
	t.Helper()
	p := program.Start(t, append(s.Environment(), environment...), "verify")
	if code, _ := p.Ended(); code != 0 {
		t.Fatalf("verify: exit code %d\n%s", code, p.Text())
	}
	t.Logf("verify:\n%s", p.Text())
}

// quickSession are variables for instances whose death is noticed after seconds.
var quickSession = []string{"SIGNINDIAG_KAFKA_SESSION_TIMEOUT=6s", "SIGNINDIAG_SNAPSHOTS_INTERVAL=2s"}

// TestInstances lets instances join, leave, crash and be replaced one after the other while records flow.
func TestInstances(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		s.Partitions = 8
		seed := testSeed(t)
		start := func() *program.Process { return startReplica(t, s, quickSession...) }
		first := start()
		first.API()
		f := startFeed(t, s, seed, 300)
		second, third := start(), start() // join
		second.WaitFor(`shard begins`)
		third.WaitFor(`shard begins`)
		first.Stop() // leave
		time.Sleep(2 * time.Second)
		second.Kill() // crash
		time.Sleep(time.Second)
		running := []*program.Process{third, start(), start()}
		running[1].WaitFor(`shard begins`)
		running[2].WaitFor(`shard begins`)
		for i, old := range running { // rolling restart
			old.Stop()
			running[i] = start()
			running[i].WaitFor(`shard begins`)
		}
		f.end()
		f.awaitRows(s)
		verifyExact(t, s)
		for _, i := range running {
			i.Stop()
		}
		verifyExact(t, s)
	})
}

// TestSecureServers runs everything over TLS with passwords, and tells of a wrong one to ClickHouse.
func TestSecureServers(t *testing.T) {
	certificates := servers.NewCertificates(t)
	kafka := servers.StartApacheKafka(t, servers.KafkaOptions{Certificates: certificates, Users: map[string]string{"signindiag": "secret of Kafka"}})
	kafka.SASLMechanism, kafka.Username, kafka.Password = "SCRAM-SHA-512", "signindiag", "secret of Kafka"
	clickHouse := servers.StartSecureClickHouse(t, certificates, "signindiag", "secret of ClickHouse")
	s := servers.NewSet(t, kafka, clickHouse)

	wrong := startReplica(t, s, "SIGNINDIAG_CLICKHOUSE_PASSWORD=not it")
	wrong.WaitFor(`was refused: check the user name and the password`)
	wrong.Stop()
	if text := wrong.Text(); strings.Contains(text, "not it") {
		t.Errorf("a wrong password is shown:\n%s", text)
	}

	right := startReplica(t, s)
	right.API()
	f := startFeed(t, s, testSeed(t), 200)
	right.WaitFor(`shard begins`)
	time.Sleep(2 * time.Second)
	f.end()
	f.awaitRows(s)
	verifyExact(t, s)
	right.Stop()
	for _, secret := range []string{"secret of Kafka", "secret of ClickHouse"} {
		if strings.Contains(right.Text(), secret) {
			t.Errorf("the output holds a password:\n%s", right.Text())
		}
	}
}

// TestKilledInstances kills instances at random moments while records flow: SIGNINDIAG_TEST_ROUNDS times (50 on Apache Kafka,
// 10 elsewhere).
func TestKilledInstances(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		if s.Backend == "embedded" {
			t.Skip("skipped: the embedded broker waits for ever for members that died while they joined; it is for one process")
		}
		s.Partitions = 8
		seed := testSeed(t)
		rng := rand.New(rand.NewPCG(seed, 2))
		rounds := 10
		if s.Backend == "kafka" {
			rounds = 50
		}
		if v := os.Getenv("SIGNINDIAG_TEST_ROUNDS"); v != "" {
			var err error
			if rounds, err = strconv.Atoi(v); err != nil {
				t.Fatal(err)
			}
		}
		pause := func(most time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(most)))) }
		start := func() *program.Process { return startReplica(t, s, quickSession...) }
		running := []*program.Process{start(), start(), start()}
		running[0].API()
		f := startFeed(t, s, seed, 200)
		began := time.Now()
		for range rounds {
			victims := rng.Perm(len(running))[:1+rng.IntN(100)/85] // two at once now and then
			for _, v := range victims {
				running[v].Kill()
			}
			pause(2 * time.Second)
			for _, v := range victims {
				running[v] = start()
			}
			// Short pauses kill while instances join and recover, long ones while they work.
			pause([]time.Duration{time.Second, 4 * time.Second, 12 * time.Second}[rng.IntN(3)])
		}
		f.end()
		t.Logf("%d rounds of kill -9 in %s", rounds, time.Since(began).Round(time.Second))
		f.awaitRows(s)
		verifyExact(t, s)
		for _, i := range running {
			i.Stop()
		}
	})
}

// TestCrashToFirstDiagnosis prints how long the records of a killed instance wait for another one.
func TestCrashToFirstDiagnosis(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		s.Partitions = 8
		running := []*program.Process{startReplica(t, s), startReplica(t, s), startReplica(t, s)}
		f := startFeed(t, s, testSeed(t), 100)
		for _, i := range running {
			i.WaitFor(`shard begins`)
		}
		f.end()
		f.awaitRows(s)
		conn := s.ClickHouse.Open(t)
		client := s.Kafka.Client(t, kgo.DefaultProduceTopic(s.RawTopic))

		running[0].Kill()
		killed := time.Now()
		// Users enough that every shard has some of them.
		var specs []*synthetic.SignInSpec
		for n := range 200 {
			specs = append(specs, &synthetic.SignInSpec{
				Time: killed.UTC(), TenantID: synthetic.NamedGUID("tenant", "contoso"), RequestID: synthetic.NamedGUID("after the crash", fmt.Sprint(n)),
				CorrelationID: synthetic.NamedGUID("correlation", fmt.Sprint(n)), UserID: synthetic.NamedGUID("user", fmt.Sprint(n)),
				UserPrincipalName: fmt.Sprintf("user%d@example.org", n), ErrorCode: 50126, Address: "203.0.113.7",
				AppID: synthetic.NamedGUID("app", "payroll"), AppDisplayName: "Payroll",
			})
		}
		for _, spec := range specs {
			if err := client.ProduceSync(t.Context(), kgo.SliceRecord(synthetic.AppendEnvelope(nil, spec))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		var first time.Duration
		for {
			var rows uint64
			if err := conn.QueryRow(t.Context(), "SELECT uniqExact(user_id) FROM diagnoses WHERE tenant_id = ?", synthetic.NamedGUID("tenant", "contoso")).Scan(&rows); err != nil {
				t.Fatal(err)
			}
			if rows > 0 && first == 0 {
				first = time.Since(killed)
			}
			if rows == uint64(len(specs)) {
				break
			}
			if time.Since(killed) > program.Long {
				t.Fatalf("%d of %d records have rows %s after the crash", rows, len(specs), program.Long)
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("kill -9 of one of three instances: first diagnosis after %.1f s, all shards again after %.1f s", first.Seconds(), time.Since(killed).Seconds())
		for _, i := range running[1:] {
			i.Stop()
		}
	})
}
