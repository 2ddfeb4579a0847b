package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// write puts numbered values into partition 0, in batches of ten.
func write(t testing.TB, k *Kafka, topic string, first, count int, prefix string) {
	t.Helper()
	p, err := newPartitionProducer(k, topic, 0, CodecLZ4, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for start := first; start < first+count; start += 10 {
		var values [][]byte
		for i := start; i < min(start+10, first+count); i++ {
			values = append(values, fmt.Appendf(nil, "%s%d", prefix, i))
		}
		if err := p.send(t.Context(), values, nil, func(int) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// readTo reads until offset end and returns values by offset.
func readTo(t testing.TB, r *Reader, end int64) map[int64]string {
	t.Helper()
	got := map[int64]string{}
	for {
		b, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Records {
			if _, ok := got[rec.Offset]; ok {
				t.Errorf("offset %d came twice", rec.Offset)
			}
			if time.Since(time.UnixMilli(rec.Time)).Abs() > time.Minute {
				t.Errorf("record %d has time %d", rec.Offset, rec.Time)
			}
			got[rec.Offset] = string(rec.Value)
		}
		if b.Next >= end {
			return got
		}
	}
}

func TestReaderSurvivesFaults(t *testing.T) {
	c := broker(t, kfake.NumBrokers(3))
	k := openKafka(t, c)
	if _, err := k.EnsureTopic(t.Context(), TopicConfig{Name: "t", Partitions: 1, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	write(t, k, "t", 0, 300, "v")
	for _, e := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.FencedLeaderEpoch, kerr.KafkaStorageError} {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: e})
	}
	var trouble Trouble
	r := NewReader(k, ReaderConfig{Topic: "t", MaxBytes: 500, Logger: logger(t), Trouble: &trouble, OnHole: func(h Hole) { t.Errorf("hole %+v", h) }})
	defer r.Close()
	var next int64
	for i := 0; next < 300; i++ {
		b, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Records {
			if rec.Offset != next || string(rec.Value) != fmt.Sprint("v", next) {
				t.Fatalf("record %d %q, want v%d", rec.Offset, rec.Value, next)
			}
			next++
		}
		if i%3 == 0 {
			if err := c.MoveTopicPartition("t", 0, int32(i/3%3)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if trouble.Reason() != "" {
		t.Errorf("trouble %q after success", trouble.Reason())
	}
}

func TestReaderReportsHoles(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	write(t, k, "t", 0, 100, "v")
	deleteRecords(t, c, "t", 0, 30)
	var holes []Hole
	r := NewReader(k, ReaderConfig{Topic: "t", Offset: 10, Logger: logger(t), OnHole: func(h Hole) { holes = append(holes, h) }})
	defer r.Close()
	got := readTo(t, r, 100)
	if len(got) != 70 || got[30] != "v30" {
		t.Errorf("%d records", len(got))
	}
	if want := []Hole{{"t", 0, 10, 30, HoleExpired}}; !slices.Equal(holes, want) {
		t.Errorf("holes %v, want %v", holes, want)
	}
}

func TestReaderStopsWhereTheLogEndsEarlier(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	write(t, k, "t", 0, 20, "v")
	r := NewReader(k, ReaderConfig{Topic: "t", Offset: 21, Logger: logger(t)})
	defer r.Close()
	_, err := r.Next(t.Context())
	var end *LogEndError
	if !errors.As(err, &end) || end.End != 20 || end.Offset != 21 {
		t.Errorf("error %v, want a LogEndError", err)
	}
}

// TestReaderSeesAnotherTopic: a topic that is made again while it is read, and grows beyond the position.
func TestReaderSeesAnotherTopic(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	write(t, k, "t", 0, 20, "v")
	r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t), MaxWait: 20 * time.Millisecond})
	defer r.Close()
	readTo(t, r, 20)
	r.Close() // as a broken connection does
	deleteTopic(t, c, "t")
	ensure(t, k, "t", 1)
	write(t, k, "t", 0, 50, "w")
	_, err := r.Next(t.Context())
	var other *HashError
	if !errors.As(err, &other) || other.Offset != 19 {
		t.Errorf("error %v, want a HashError at 19", err)
	}
}

// TestReaderGoesOnAfterReconnect: the comparison gives no record twice, also where the last record has expired.
func TestReaderGoesOnAfterReconnect(t *testing.T) {
	for _, expired := range []int64{0, 20, 25} {
		c := broker(t)
		k := openKafka(t, c)
		ensure(t, k, "t", 1)
		write(t, k, "t", 0, 20, "v")
		var holes []Hole
		r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t), MaxWait: 20 * time.Millisecond, OnHole: func(h Hole) { holes = append(holes, h) }})
		defer r.Close()
		readTo(t, r, 20)
		r.Close()
		// With nothing new the comparison must not give records or move.
		if expired == 0 {
			if b, err := r.Next(t.Context()); err != nil || len(b.Records) > 0 || b.Next != 20 {
				t.Errorf("%+v, %v", b, err)
			}
			r.Close()
		}
		write(t, k, "t", 20, 30, "v")
		if expired > 0 {
			deleteRecords(t, c, "t", 0, expired)
		}
		got := readTo(t, r, 50)
		first := max(expired, 20)
		if len(got) != int(50-first) || got[first] != fmt.Sprint("v", first) {
			t.Errorf("expired below %d: %d records, want %d", expired, len(got), 50-first)
		}
		missing := int64(0)
		for _, h := range holes {
			missing += h.To - h.From
		}
		if missing != first-20 {
			t.Errorf("expired below %d: holes %v, want %d offsets", expired, holes, first-20)
		}
	}
}

func TestReaderReadsCommittedOnly(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	write(t, k, "t", 0, 5, "v")
	for i, commit := range []bool{false, true} {
		id := fmt.Sprint("txn", i)
		p, err := k.client.InitProducerID(t.Context(), &kafka.InitProducerIDRequest{TransactionalID: id, TransactionTimeoutMs: 60_000, ProducerID: -1, ProducerEpoch: -1})
		if err != nil || p.Error != nil {
			t.Fatal(err, p)
		}
		if res, err := k.client.AddPartitionsToTxn(t.Context(), &kafka.AddPartitionsToTxnRequest{TransactionalID: id, ProducerID: p.Producer.ProducerID, ProducerEpoch: p.Producer.ProducerEpoch,
			Topics: map[string][]kafka.AddPartitionToTxn{"t": {{Partition: 0}}}}); err != nil || res.Topics["t"][0].Error != nil {
			t.Fatal(err, res)
		}
		set := change(buildBatch(t, CodecNone, 0, time.Now().UnixMilli(), id+"a", id+"b"), func(b []byte) {
			b[batchAttributes+1] = attributeTransactional
			for i := range 8 {
				b[batchProducerID+i] = byte(p.Producer.ProducerID >> (56 - 8*i))
			}
			b[batchProducerID+8], b[batchProducerID+9] = byte(p.Producer.ProducerEpoch>>8), byte(p.Producer.ProducerEpoch)
			clear(b[batchProducerID+10 : batchCount])
		})
		producer, err := newPartitionProducer(k, "t", 0, CodecNone, logger(t), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := producer.attempt(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		producer.close()
		if res, err := k.client.EndTxn(t.Context(), &kafka.EndTxnRequest{TransactionalID: id, ProducerID: p.Producer.ProducerID, ProducerEpoch: p.Producer.ProducerEpoch, Committed: commit}); err != nil || res.Error != nil {
			t.Fatal(err, res)
		}
	}
	write(t, k, "t", 5, 1, "v")
	r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t), OnHole: func(h Hole) { t.Errorf("hole %+v", h) }})
	defer r.Close()
	_, end, err := k.ListOffsets(t.Context(), "t", 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, v := range readTo(t, r, end) {
		values = append(values, v)
	}
	slices.Sort(values)
	if want := []string{"txn1a", "txn1b", "v0", "v1", "v2", "v3", "v4", "v5"}; !slices.Equal(values, want) {
		t.Errorf("values %v, want %v: without the aborted ones and the markers", values, want)
	}
}

func TestReaderStopsWithItsContext(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t), MaxWait: 3 * time.Second})
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestVerifyRecord(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	write(t, k, "t", 0, 20, "v")
	verify := func(offset int64, value string) (bool, error) {
		return k.verifyRecord(t.Context(), "t", 0, offset, hashRecord([]byte(value)), logger(t), nil)
	}
	if known, err := verify(7, "v7"); err != nil || !known {
		t.Errorf("the right record: known %v, error %v", known, err)
	}
	var hash *HashError
	if _, err := verify(7, "other"); !errors.As(err, &hash) {
		t.Errorf("another record: error %v", err)
	}
	var end *LogEndError
	if _, err := verify(20, "v20"); !errors.As(err, &end) {
		t.Errorf("beyond the end: error %v", err)
	}
	deleteRecords(t, c, "t", 0, 10)
	if known, err := verify(7, "v7"); err != nil || known {
		t.Errorf("an expired record: known %v, error %v", known, err)
	}
}

func TestKafkaConfigErrors(t *testing.T) {
	for name, c := range map[string]KafkaConfig{
		"no broker":         {},
		"no port":           {Brokers: []string{"localhost"}},
		"unknown mechanism": {Brokers: []string{"localhost:1"}, SASLMechanism: "GSSAPI"},
		"missing CA":        {Brokers: []string{"localhost:1"}, TLS: true, TLSCAFile: "does/not/exist"},
		"missing key":       {Brokers: []string{"localhost:1"}, TLS: true, TLSCertFile: "does/not/exist"},
	} {
		if k, err := OpenKafka(c); err == nil {
			k.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSASL(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		c := broker(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "user", "password"))
		k, err := OpenKafka(KafkaConfig{Brokers: c.ListenAddrs(), SASLMechanism: mechanism, Username: "user", Password: "password"})
		if err != nil {
			t.Fatal(err)
		}
		ensure(t, k, "t", 1)
		write(t, k, "t", 0, 5, "v")
		r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t)})
		if got := readTo(t, r, 5); len(got) != 5 {
			t.Errorf("%s: %d records", mechanism, len(got))
		}
		r.Close()
		k.Close()
	}
}

// TestTopicsAreNotMadeByLooking: a broker makes topics that are asked for (auto.create.topics.enable, Kafka's default), with a number
// of partitions of its own; EnsureTopic must make its topic with the number that it wants.
func TestTopicsAreNotMadeByLooking(t *testing.T) {
	c := broker(t, kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(1))
	k := openKafka(t, c)
	if _, err := k.TopicPartitions(t.Context(), "missing"); !errors.Is(err, kafka.UnknownTopicOrPartition) {
		t.Errorf("a missing topic gives %v", err)
	}
	n, err := k.EnsureTopic(t.Context(), TopicConfig{Name: "wanted", Partitions: 3, Replicas: 1})
	if err != nil || n != 3 {
		t.Errorf("%d partitions, %v, want 3", n, err)
	}
}

// TestTopicsThatTheBrokerDoesNotMake: Event Hubs, and a cluster without the right to, leave it to a person; the error must say so
// and the topic be taken as it is when it is there.
func TestTopicsThatTheBrokerDoesNotMake(t *testing.T) {
	for _, code := range []*kerr.Error{kerr.ClusterAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.PolicyViolation, kerr.UnsupportedVersion, kerr.InvalidRequest} {
		c := broker(t, kfake.SeedTopics(4, "there"))
		k := openKafka(t, c)
		c.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
			for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
				rt := kmsg.NewCreateTopicsResponseTopic()
				rt.Topic, rt.ErrorCode = topic.Topic, code.Code
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil, true
		})
		c.ControlKey(int16(kmsg.DescribeConfigs), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			return nil, errors.New("no such request"), true // the connection is cut
		})
		var missing *MissingTopicError
		_, err := k.EnsureTopic(t.Context(), TopicConfig{Name: "missing", Partitions: 4, Retention: 168 * time.Hour})
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), "portal") || !strings.Contains(err.Error(), "4 partitions and a retention of 168h") {
			t.Errorf("%v: the error is %v", code.Message, err)
		}
		if n, err := k.EnsureTopic(t.Context(), TopicConfig{Name: "there", Partitions: 4}); err != nil || n != 4 {
			t.Errorf("%v: an existing topic gives %d, %v", code.Message, n, err)
		}
		if err := k.CheckRetention(t.Context(), "there", 96*time.Hour, logger(t)); err != nil {
			t.Errorf("%v: a retention that cannot be read is an error: %v", code.Message, err)
		}
	}
}

// TestRefusedUserIsLeftAlone: every partition has connections of its own; a password that the broker refuses is not tried by each.
func TestRefusedUserIsLeftAlone(t *testing.T) {
	c := broker(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "user", "password"))
	k, err := OpenKafka(KafkaConfig{Brokers: c.ListenAddrs(), SASLMechanism: "PLAIN", Username: "user", Password: "another"})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	dials, connect := 0, k.connect
	k.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials++
		return connect(ctx, network, address)
	}
	for range 50 {
		_, err := k.TopicPartitions(t.Context(), "t")
		if !errors.Is(err, kafka.SASLAuthenticationFailed) || !strings.Contains(err.Error(), "SIGNINDIAG_KAFKA_SASL_PASSWORD") {
			t.Fatalf("error %v", err)
		}
	}
	if dials != 1 {
		t.Errorf("%d connections for 50 questions within the pause, want 1", dials)
	}
	k.refused.Store(&refusedUser{time.Now().Add(-refusedPause), errors.New("long ago")})
	if _, err := k.TopicPartitions(t.Context(), "t"); err == nil || dials != 2 {
		t.Errorf("%d connections after the pause, want 2; error %v", dials, err)
	}
}
