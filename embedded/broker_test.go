package embedded_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

// newClient returns a client of one broker.
func newClient(t *testing.T, address string) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(address), Timeout: 10 * time.Second, Transport: transport}
}

func createTopic(t *testing.T, client *kafka.Client, topic string, partitions int) {
	t.Helper()
	response, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err == nil {
		err = response.Errors[topic]
	}
	if err != nil {
		t.Fatal(err)
	}
}

// produce writes values to a partition with acks=all and returns the error of the broker.
func produce(t *testing.T, client *kafka.Client, topic string, partition int, values ...string) error {
	t.Helper()
	records := make([]kafka.Record, len(values))
	for i, value := range values {
		records[i].Value = kafka.NewBytes([]byte(value))
	}
	response, err := client.Produce(t.Context(), &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err != nil {
		return err
	}
	return response.Error
}

// values reads a partition from its first offset to its end.
func values(t *testing.T, address, topic string, partition int) []string {
	t.Helper()
	conn, err := kafka.DialLeader(t.Context(), "tcp", address, topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first, last, err := conn.ReadOffsets()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for int64(len(got)) < last-first {
		batch := conn.ReadBatch(1, 1<<20)
		for int64(len(got)) < last-first {
			message, err := batch.ReadMessage()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("read %s/%d at %d: %v", topic, partition, first+int64(len(got)), err)
			}
			got = append(got, string(message.Value))
		}
		if err := batch.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func commit(t *testing.T, client *kafka.Client, group, topic string, offset int64) {
	t.Helper()
	response, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: offset}}},
	})
	if err == nil {
		err = response.Topics[topic][0].Error
	}
	if err != nil {
		t.Fatal(err)
	}
}

func committed(t *testing.T, client *kafka.Client, group, topic string) int64 {
	t.Helper()
	response, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	if err != nil {
		t.Fatal(err)
	}
	return response.Topics[topic][0].CommittedOffset
}

func numbered(from, to int) []string {
	var texts []string
	for i := from; i < to; i++ {
		texts = append(texts, fmt.Sprintf("record %d", i))
	}
	return texts
}

func TestBrokerKeepsRecordsAndOffsets(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("SyncWrites=%t", sync), func(t *testing.T) {
			cfg := embedded.BrokerConfig{DataDir: t.TempDir(), SyncWrites: sync}
			broker, err := embedded.StartBroker(cfg)
			if err != nil {
				t.Fatal(err)
			}
			client := newClient(t, broker.Address())
			createTopic(t, client, "raw", 2)
			want := numbered(0, 500)
			if err := produce(t, client, "raw", 1, want...); err != nil {
				t.Fatal(err)
			}
			commit(t, client, "routers", "raw", 321)
			if err := broker.Close(); err != nil {
				t.Fatal(err)
			}
			if err := broker.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}

			cfg.Address = broker.Address() // The port of before, asked for by name.
			again := embeddedtest.StartBroker(t, cfg)
			if again.Address() != broker.Address() {
				t.Errorf("address %s, expected %s as before", again.Address(), broker.Address())
			}
			if got := values(t, again.Address(), "raw", 1); !slices.Equal(got, want) {
				t.Errorf("%d records after re-opening, expected %d", len(got), len(want))
			}
			if got := committed(t, newClient(t, again.Address()), "routers", "raw"); got != 321 {
				t.Errorf("committed offset %d after re-opening, expected 321", got)
			}
		})
	}
}

func TestBrokerAfterKill(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for round := range 3 { // A log that was recovered once must recover again.
		other := startRole(t, role{Part: "broker", Dir: dir})
		client := newClient(t, other.ready(t).Address)
		if round == 0 {
			createTopic(t, client, "raw", 1)
		}
		for range 20 {
			batch := numbered(len(want), len(want)+50)
			if err := produce(t, client, "raw", 0, batch...); err != nil {
				t.Fatal(err)
			}
			want = append(want, batch...)
		}
		commit(t, client, "routers", "raw", int64(len(want)))
		other.kill()
	}
	broker := embeddedtest.StartBroker(t, embedded.BrokerConfig{DataDir: dir})
	if got := values(t, broker.Address(), "raw", 0); !slices.Equal(got, want) {
		t.Errorf("%d acknowledged records after kill -9, expected %d", len(got), len(want))
	}
	client := newClient(t, broker.Address())
	if got := committed(t, client, "routers", "raw"); got != int64(len(want)) {
		t.Errorf("committed offset %d after kill -9, expected %d", got, len(want))
	}
	if err := produce(t, client, "raw", 0, "one more"); err != nil {
		t.Errorf("produce after recovery: %v", err)
	}
}

// TestBrokerAfterTornWrite cuts the log inside the last batch, as a power cut may.
func TestBrokerAfterTornWrite(t *testing.T) {
	dir := t.TempDir()
	other := startRole(t, role{Part: "broker", Dir: dir})
	client := newClient(t, other.ready(t).Address)
	createTopic(t, client, "raw", 1)
	for _, value := range []string{"whole", "torn"} {
		if err := produce(t, client, "raw", 0, value); err != nil {
			t.Fatal(err)
		}
	}
	other.kill()
	segments, err := filepath.Glob(filepath.Join(dir, "partitions", "*", "*.dat"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v: expected one", segments, err)
	}
	info, err := os.Stat(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segments[0], info.Size()-5); err != nil {
		t.Fatal(err)
	}
	broker := embeddedtest.StartBroker(t, embedded.BrokerConfig{DataDir: dir})
	if err := produce(t, newClient(t, broker.Address()), "raw", 0, "after"); err != nil {
		t.Fatal(err)
	}
	if got, want := values(t, broker.Address(), "raw", 0), []string{"whole", "after"}; !slices.Equal(got, want) {
		t.Errorf("records %q, expected %q", got, want)
	}
}

func TestBrokerRefusals(t *testing.T) {
	dir := t.TempDir()
	broker := embeddedtest.StartBroker(t, embedded.BrokerConfig{DataDir: dir})

	var locked *embedded.LockedError
	if _, err := embedded.StartBroker(embedded.BrokerConfig{DataDir: dir}); !errors.As(err, &locked) {
		t.Errorf("second broker on one directory: got %v, expected a *LockedError", err)
	}
	elsewhere := t.TempDir()
	if _, err := embedded.StartBroker(embedded.BrokerConfig{DataDir: elsewhere, Address: broker.Address()}); err == nil {
		t.Error("second broker on one port was not refused")
	}
	embeddedtest.StartBroker(t, embedded.BrokerConfig{DataDir: elsewhere}) // A failed start gives the directory free.

	client := newClient(t, broker.Address())
	if err := produce(t, client, "nobody-made-me", 0, "x"); err == nil {
		t.Error("produce to an unknown topic was not refused")
	}
	metadata, err := client.Metadata(t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(metadata.Topics) != 0 {
		t.Errorf("topics %v were made on demand", metadata.Topics)
	}
}

func TestBrokerMessageLimit(t *testing.T) {
	broker := embeddedtest.StartBroker(t, embedded.BrokerConfig{MaxMessageBytes: 2000})
	client := newClient(t, broker.Address())
	createTopic(t, client, "raw", 1)
	if err := produce(t, client, "raw", 0, string(make([]byte, 1000))); err != nil {
		t.Errorf("1000 bytes: %v", err)
	}
	if err := produce(t, client, "raw", 0, string(make([]byte, 3000))); !errors.Is(err, kafka.MessageSizeTooLarge) {
		t.Errorf("3000 bytes: got %v, expected MessageSizeTooLarge", err)
	}
}

func TestBrokerReportsWhatItCouldNotWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	broker, err := embedded.StartBroker(embedded.BrokerConfig{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // A file where the directory was.
		t.Fatal(err)
	}
	if err := broker.Close(); err == nil {
		t.Error("Close did not report that it could not write")
	}
}

func TestLoopbackAddress(t *testing.T) {
	for _, test := range []struct{ address, network, hostPort string }{
		{"", "tcp4", "127.0.0.1:0"},
		{":9092", "tcp4", "127.0.0.1:9092"},
		{"localhost:9092", "tcp4", "127.0.0.1:9092"},
		{"127.0.0.5:1", "tcp4", "127.0.0.5:1"},
		{"[::1]:0", "tcp6", "[::1]:0"},
		{"0.0.0.0:9092", "", ""},
		{"192.0.2.1:9092", "", ""},
		{"example.com:9092", "", ""},
		{"127.0.0.1", "", ""},
		{"127.0.0.1:70000", "", ""},
		{"127.0.0.1:kafka", "", ""},
	} {
		network, hostPort, err := embedded.LoopbackAddress(test.address)
		if (err != nil) != (test.network == "") || network != test.network || hostPort != test.hostPort {
			t.Errorf("%q: got %q %q %v, expected %q %q", test.address, network, hostPort, err, test.network, test.hostPort)
		}
	}
}
