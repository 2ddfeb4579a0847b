package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestProducerRepeatsTheSameBatch: after an answer that says nothing about the work, the same records come again, whole
// and in order.
func TestProducerRepeatsTheSameBatch(t *testing.T) {
	c := broker(t, kfake.NumBrokers(2))
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas})
	p, err := newPartitionProducer(k, "t", 0, CodecLZ4, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	acknowledged := 0
	send := func(values ...string) {
		var b [][]byte
		for _, v := range values {
			b = append(b, []byte(v))
		}
		if err := p.send(t.Context(), b, nil, func(n int) { acknowledged += n }); err != nil {
			t.Fatal(err)
		}
	}
	send("a", "b")
	if err := c.MoveTopicPartition("t", 0, 1-c.LeaderFor("t", 0)); err != nil {
		t.Fatal(err)
	}
	send("c")
	r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t)})
	defer r.Close()
	_, end, err := k.ListOffsets(t.Context(), "t", 0)
	if err != nil {
		t.Fatal(err)
	}
	got := readTo(t, r, end)
	var values []string
	for i := range end {
		values = append(values, got[i])
	}
	if want := "a b a b a b c"; strings.Join(values, " ") != want || acknowledged != 3 {
		t.Errorf("log %v with %d acknowledged, want %s with 3", values, acknowledged, want)
	}
}

// TestProducerLeavesOutWhatIsRefused: a record that is too large is named, those before and behind it are written.
func TestProducerLeavesOutWhatIsRefused(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	res, err := k.client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: "t", NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "2000"}}}}})
	if err != nil || res.Errors["t"] != nil {
		t.Fatal(err, res)
	}
	p, err := newPartitionProducer(k, "t", 0, CodecNone, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	var values [][]byte
	for i := range 20 {
		size := 10
		if i == 3 || i == 17 {
			size = 3000
		}
		values = append(values, []byte(fmt.Sprint(i, " ", strings.Repeat("x", size))))
	}
	var refused []int
	acknowledged := 0
	if err := p.send(t.Context(), values, func(i int, err error) error {
		var r *RefusedError
		if !errors.As(err, &r) || r.Reason != "too_large" {
			t.Errorf("record %d: %v", i, err)
		}
		refused = append(refused, i)
		return nil
	}, func(n int) { acknowledged += n }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(refused, []int{3, 17}) || acknowledged != 20 {
		t.Errorf("refused %v, settled %d", refused, acknowledged)
	}
	r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t)})
	defer r.Close()
	got := readTo(t, r, 18)
	last := -1
	for i := range int64(18) {
		var n int
		if _, err := fmt.Sscan(got[i], &n); err != nil || n <= last {
			t.Errorf("record %d is %q, out of order", i, got[i])
		}
		last = n
	}
}

func TestProducerStopsWithItsContext(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	var trouble Trouble
	p, err := newPartitionProducer(k, "t", 0, CodecNone, logger(t), &trouble, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, func() {
		if trouble.Reason() == "" {
			t.Error("no reason is told while nothing can be written")
		}
		cancel()
	})
	if err := p.send(ctx, [][]byte{[]byte("a")}, nil, func(int) { t.Error("acknowledged") }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestRawProducerSpreads(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "raw", 3)
	p, err := NewRawProducer(t.Context(), k, "raw", CodecLZ4, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var values [][]byte
	for i := range 1000 {
		values = append(values, []byte(fmt.Sprintf("%04d%s", i, strings.Repeat("x", 2000))))
	}
	values[500] = slices.Repeat([]byte("incompressible? no, but random enough: "), 1)
	if refused, err := p.Send(t.Context(), values); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	if p.Written() != 1000 {
		t.Errorf("%d written, want 1000", p.Written())
	}
	total := int64(0)
	for i := range 3 {
		_, end, err := k.ListOffsets(t.Context(), "raw", i)
		if err != nil {
			t.Fatal(err)
		}
		if end < 200 {
			t.Errorf("partition %d has %d records of 1000", i, end)
		}
		total += end
	}
	if total != 1000 {
		t.Errorf("%d records, want 1000", total)
	}
	if _, err := NewRawProducer(t.Context(), k, "absent", CodecLZ4, logger(t)); !errors.Is(err, kafka.UnknownTopicOrPartition) {
		t.Errorf("absent topic: error %v", err)
	}
}
