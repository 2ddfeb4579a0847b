package servers_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/signindiag/signindiag/integration/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// produceOne appends a record and returns its offset.
func produceOne(t *testing.T, k *servers.Kafka, topic, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	record, err := k.Client(t).ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).First()
	if err != nil {
		t.Fatalf("produce to %s: %v", topic, err)
	}
	return record.Offset
}

func TestEveryBackendServes(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		s.Kafka.CreateTopic(t, s.RawTopic, 1)
		if offset := produceOne(t, s.Kafka, s.RawTopic, "one"); offset != 0 {
			t.Errorf("first offset is %d", offset)
		}
		conn := s.ClickHouse.Open(t)
		var tables uint64
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM system.tables WHERE database = currentDatabase()").Scan(&tables); err != nil {
			t.Fatal(err)
		}
		if tables != 0 {
			t.Errorf("a fresh database has %d tables", tables)
		}
	})
}

// TestServersComeBack holds what tests of failures lean on: after a stop and after kill -9 the same ports and the same data.
func TestServersComeBack(t *testing.T) {
	servers.EachOwn(t, servers.Options{}, func(t *testing.T, s *servers.Set) {
		s.Kafka.CreateTopic(t, s.RawTopic, 1, "flush.messages", "1")
		conn := s.ClickHouse.Open(t)
		if err := conn.Exec(t.Context(), "CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n SETTINGS fsync_after_insert = 1"); err != nil {
			t.Fatal(err)
		}
		rounds := uint64(0)
		restart := func(name string, c *servers.Control, end func(testing.TB), address string) {
			if c == nil || end == nil {
				return
			}
			before := 0
			if c.PID != nil {
				before = c.PID()
			}
			end(t)
			if reach, err := net.DialTimeout("tcp", address, time.Second); err == nil {
				reach.Close()
				t.Errorf("%s still listens on %s after its end", name, address)
			}
			c.Start(t)
			if c.PID != nil && c.PID() == before {
				t.Errorf("%s has the same process after its end", name)
			}
			rounds++
			if offset := produceOne(t, s.Kafka, s.RawTopic, "again"); offset != int64(rounds)-1 {
				t.Errorf("after restart %d of %s the offset is %d", rounds, name, offset)
			}
			if err := s.ClickHouse.Open(t).Exec(t.Context(), "INSERT INTO kept VALUES (1)"); err != nil {
				t.Fatal(err)
			}
			var rows uint64
			if err := s.ClickHouse.Open(t).QueryRow(t.Context(), "SELECT count() FROM kept").Scan(&rows); err != nil {
				t.Fatal(err)
			}
			if rows != rounds {
				t.Errorf("after restart %d of %s there are %d rows", rounds, name, rows)
			}
		}
		for i, c := range s.Kafka.Controls {
			restart("Kafka", c, c.Stop, s.Kafka.Brokers[i])
			restart("Kafka", c, c.Kill, s.Kafka.Brokers[i])
		}
		if c := s.ClickHouse.Control; c != nil {
			restart("ClickHouse", c, c.Stop, s.ClickHouse.Addresses[0])
			restart("ClickHouse", c, c.Kill, s.ClickHouse.Addresses[0])
		}
	})
}

func TestThreeNodesAndSecurity(t *testing.T) {
	certificates := servers.NewCertificates(t)
	k := servers.StartApacheKafka(t, servers.KafkaOptions{
		Nodes: 3, Certificates: certificates, ClientCertificates: true, Users: map[string]string{"alice": "a secret"},
	})
	if len(k.Brokers) != 3 || len(k.Controls) != 3 || k.Replication != 3 {
		t.Fatalf("a cluster of three is %+v", k)
	}
	k.CertFile, k.KeyFile = certificates.ClientCertFile, certificates.ClientKeyFile
	k.Username, k.Password = "alice", "a secret"
	for i, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		k.SASLMechanism = mechanism
		if i == 0 {
			k.CreateTopic(t, "secure", 1, "min.insync.replicas", "2")
		}
		if offset := produceOne(t, k, "secure", mechanism); offset != int64(i) {
			t.Errorf("%s: offset %d", mechanism, offset)
		}
	}
	for name, change := range map[string]func(*servers.Kafka){
		"wrong password": func(k *servers.Kafka) { k.Password = "another" },
		"no certificate": func(k *servers.Kafka) { k.CertFile = "" },
		"no TLS":         func(k *servers.Kafka) { k.TLS = false },
	} {
		wrong := *k
		change(&wrong)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := wrong.Client(t).Ping(ctx); err == nil {
			t.Errorf("%s: the broker takes it", name)
		}
		cancel()
	}
	if leader := k.Leader(t, "secure", 0); leader < 0 || leader > 2 {
		t.Errorf("leader %d", leader)
	}
}
