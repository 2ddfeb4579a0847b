package kafka

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/integration/servers"
)

// more waits until so many further rows are stored.
func more(t *testing.T, s *servers.Set, count int) {
	t.Helper()
	conn := s.ClickHouse.Open(t)
	before, begun := rows(t, conn), time.Now()
	program.Wait(t, fmt.Sprintf("%d rows more than %d", count, before), func() bool { return rows(t, conn) >= before+count })
	t.Logf("%d more rows after %s", count, time.Since(begun).Round(time.Millisecond))
}

// coordinator returns the node that coordinates a group.
func coordinator(t *testing.T, s *servers.Set, group string) int {
	t.Helper()
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey = group
	response, err := request.RequestWith(t.Context(), s.Kafka.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Coordinators) > 0 {
		return int(response.Coordinators[0].NodeID)
	}
	return int(response.NodeID)
}

// TestBrokersOfThree: records flow while the leader of a raw partition is killed, while a broker is stopped, while the coordinator of
// the shards' group is killed, and they wait while no broker can acknowledge.
func TestBrokersOfThree(t *testing.T) {
	servers.EachOwn(t, servers.Options{Nodes: 3}, func(t *testing.T, s *servers.Set) {
		if len(s.Kafka.Controls) != 3 {
			t.Skip("skipped: no three brokers that can be killed")
		}
		control := func(node int) *servers.Control { return s.Kafka.Controls[node] }
		s.Kafka.CreateTopic(t, s.RawTopic, 4, "min.insync.replicas", "2")
		r := start(t, s)
		r.Ready()
		end := feed(t, s, 0)
		more(t, s, 50)

		leader := s.Kafka.Leader(t, s.RawTopic, 0)
		t.Logf("kill -9 node %d, which leads %s/0", leader, s.RawTopic)
		control(leader).Kill(t)
		more(t, s, 100)
		control(leader).Start(t)

		stopped := (leader + 1) % 3
		t.Logf("stop node %d", stopped)
		control(stopped).Stop(t)
		more(t, s, 100)
		control(stopped).Start(t)

		leads := coordinator(t, s, s.Group+".shards."+s.EntitiesTopic)
		t.Logf("kill -9 node %d, which coordinates the shards", leads)
		control(leads).Kill(t)
		more(t, s, 100)
		control(leads).Start(t)
		r.Ready()

		t.Log("kill -9 two of three nodes")
		failures := r.Metric("signindiag_producer_failures_total", "")
		control(0).Kill(t)
		control(1).Kill(t)
		r.Unready(s.RawTopic + "|" + s.EntitiesTopic)
		r.WaitFor(`level=WARN msg="trying again`)
		control(0).Start(t)
		control(1).Start(t)
		r.Ready()
		more(t, s, 100)

		count := end()
		exactly(t, s, count)
		t.Logf("%v attempts to write failed in all, %v before the last outage", r.Metric("signindiag_producer_failures_total", ""), failures)
		bounded(t, r)
		r.Stop()
	})
}

// TestBrokerRestarts: the only broker is killed and stopped while records flow.
func TestBrokerRestarts(t *testing.T) {
	servers.EachOwn(t, servers.Options{}, func(t *testing.T, s *servers.Set) {
		if len(s.Kafka.Controls) == 0 {
			t.Skip("skipped: the broker cannot be stopped")
		}
		s.Kafka.CreateTopic(t, s.RawTopic, 4)
		c := s.Kafka.Controls[0]
		r := start(t, s)
		r.Ready()
		end := feed(t, s, 0)
		for name, stop := range map[string]func(testing.TB){"kill": c.Kill, "stop": c.Stop} {
			if stop == nil {
				continue
			}
			more(t, s, 50)
			t.Log(name)
			stop(t)
			r.Unready(s.RawTopic + "|" + s.EntitiesTopic)
			r.WaitFor(`level=WARN msg="trying again`)
			c.Start(t)
			r.Ready()
		}
		more(t, s, 50)
		exactly(t, s, end())
		bounded(t, r)
		r.Stop()
	})
}

// TestAcknowledgementLost: the broker has written what the router sent, and the router does not learn it. The same batch is sent again,
// so the entities topic holds repeats, and the rows do not.
func TestAcknowledgementLost(t *testing.T) {
	front := listen(t)
	var answers, lost atomic.Int64
	var striking atomic.Bool
	front.swallow = func(client string, api int16) bool {
		if api != 0 || client != "signindiag" || !striking.Load() || answers.Add(1)%3 != 0 {
			return false
		}
		lost.Add(1)
		return true
	}
	k := servers.StartApacheKafka(t, servers.KafkaOptions{Advertise: front.address()})
	front.serve(k.Brokers[0])
	k.Brokers = []string{front.address()}
	s := servers.NewSet(t, k, servers.SharedClickHouse(t))
	s.Kafka.CreateTopic(t, s.RawTopic, 4)
	r := start(t, s)
	r.Ready()
	striking.Store(true)
	end := feed(t, s, 0)
	program.Wait(t, "acknowledgements to be lost", func() bool { return lost.Load() >= 20 })
	striking.Store(false)
	count := end()
	exactly(t, s, count)
	r.Ready()
	if got := r.Metric("signindiag_producer_failures_total", ""); got < float64(lost.Load()) {
		t.Errorf("%v failures are counted, %d answers were lost", got, lost.Load())
	}
	r.WaitFor(`level=WARN msg="trying again" .*write \d+ records to ` + s.EntitiesTopic)
	// The proof that the fault struck: more messages than the router dealt.
	written, dealt := endOffsets(t, s, s.EntitiesTopic), r.Metric("signindiag_router_entities_total", "")
	if float64(written) <= dealt {
		t.Errorf("%d messages in the entities topic, %v were dealt: no repeat was written", written, dealt)
	}
	t.Logf("%d acknowledgements lost, %d messages for %v", lost.Load(), written, dealt)
	r.Stop()
}

// endOffsets returns the sum of the end offsets of a topic.
func endOffsets(t *testing.T, s *servers.Set, topic string) (sum int64) {
	t.Helper()
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for p := range s.Partitions {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = int32(p), -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	request.Topics = append(request.Topics, rt)
	client := s.Kafka.Client(t)
	for _, shard := range client.RequestSharded(t.Context(), request) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, topic := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range topic.Partitions {
				if p.ErrorCode != 0 {
					t.Fatalf("offsets of partition %d: code %d", p.Partition, p.ErrorCode)
				}
				sum += p.Offset
			}
		}
	}
	return sum
}

// TestExpiredOffsets: while nobody reads, retention takes records away. They are counted and told, and the rest has its rows.
func TestExpiredOffsets(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		s.Kafka.CreateTopic(t, s.RawTopic, 1)
		r := start(t, s)
		r.Ready()
		send(t, s, 0, 100)
		exactly(t, s, 100)
		r.Stop()
		send(t, s, 100, 300)
		s.Kafka.DeleteRecords(t, s.RawTopic, 0, 150)
		r = start(t, s)
		var expired []int
		for n := 100; n < 150; n++ {
			expired = append(expired, n)
		}
		exactly(t, s, 300, expired...)
		r.WaitFor(`level=ERROR msg="records are missing in the raw topic.*from=100 to=150 reason=expired`)
		if holes, records := r.Metric("signindiag_kafka_holes_total", `"expired"`), r.Metric("signindiag_kafka_hole_records_total", `"expired"`); holes != 1 || records != 50 {
			t.Errorf("%v holes of %v records, want 1 of 50", holes, records)
		}
		r.Ready()
		r.Stop()
	})
}

// TestTooLarge: what the entities topic will not take goes to quarantine alone; its neighbours have their rows.
func TestTooLarge(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		s.Kafka.CreateTopic(t, s.RawTopic, 1)
		s.Kafka.CreateTopic(t, s.EntitiesTopic, s.Partitions, "max.message.bytes", "2000", "retention.ms", "-1")
		r := start(t, s)
		r.Ready()
		send(t, s, 0, 100)
		var policies []string // with names that no compression makes small
		random := rand.New(rand.NewPCG(1, 2))
		for range 30 {
			policies = append(policies, fmt.Sprintf(`{"id":"%032x","displayName":"%016x%016x%016x%016x%016x","result":"failure"}`,
				random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64()))
		}
		large := strings.Replace(string(record(100, "Example App")), `"status":`, `"appliedConditionalAccessPolicies":[`+strings.Join(policies, ",")+`],"status":`, 1)
		client := s.Kafka.Client(t)
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: s.RawTopic, Value: []byte(large)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		send(t, s, 101, 200)
		exactly(t, s, 200, 100)
		r.WaitFor(`level=WARN .*quarantine`)
		if got := r.Metric("signindiag_quarantined_total", `reason="too_large"`); got < 1 {
			t.Errorf("%v records are counted as quarantined", got)
		}
		conn := s.ClickHouse.Open(t)
		var stage, reason string
		program.Wait(t, "the record to be in quarantine", func() bool {
			return conn.QueryRow(t.Context(), "SELECT stage, reason FROM quarantine FINAL").Scan(&stage, &reason) == nil
		})
		if stage != "publish" || reason != "too_large" {
			t.Errorf("quarantined at %s for %s", stage, reason)
		}
		r.Ready()
		r.Stop()
	})
}

// TestTopicMadeAgain: a raw topic is deleted and made again while it is read. The partitions stop and say which variable to
// raise; with it all of the new topic's records have their rows.
func TestTopicMadeAgain(t *testing.T) {
	servers.Each(t, func(t *testing.T, s *servers.Set) {
		s.Kafka.CreateTopic(t, s.RawTopic, 2)
		r := start(t, s)
		r.Ready()
		send(t, s, 0, 200)
		exactly(t, s, 200)
		s.Kafka.DeleteTopics(t.Context(), t, s.RawTopic)
		time.Sleep(time.Second) // a broker deletes in its own time
		s.Kafka.CreateTopic(t, s.RawTopic, 2)
		send(t, s, 200, 600)
		r.WaitFor(`level=ERROR msg="the partition is not read any more".*SIGNINDIAG_KAFKA_RAW_INCARNATION=2`)
		r.Unready("SIGNINDIAG_KAFKA_RAW_INCARNATION=2")
		r.Until("both partitions to be counted as stopped", func() bool { return r.Metric("signindiag_partition_stopped", s.RawTopic) == 2 })
		r.Stop()
		exactly(t, s, 200)
		r = start(t, s, "SIGNINDIAG_KAFKA_RAW_INCARNATION=2")
		exactly(t, s, 600)
		r.Ready()
		r.Stop()
	})
}
