package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Kafka is how to reach a Kafka.
type Kafka struct {
	// Brokers are host:port of all brokers.
	Brokers []string
	// Replication is the replication factor for topics of tests; -1 lets the broker choose.
	Replication int
	TLS         bool
	// CAFile holds PEM certificates to trust instead of the system's; CertFile and KeyFile are a client's own.
	CAFile, CertFile, KeyFile string
	// SASLMechanism is empty, PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	SASLMechanism, Username, Password string
	// Controls of the brokers by node, in the order of Brokers; nil where they cannot be stopped.
	Controls []*Control
}

// Client returns a client that is not the one under test, for what a test does to Kafka: it ends with the test.
func (k *Kafka) Client(t testing.TB, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	settings := []kgo.Opt{kgo.SeedBrokers(k.Brokers...), kgo.RequestRetries(60), kgo.RetryTimeout(startTimeout)}
	if k.TLS {
		settings = append(settings, kgo.DialTLSConfig(clientTLS(t, k.CAFile, k.CertFile, k.KeyFile)))
	}
	switch k.SASLMechanism {
	case "PLAIN":
		settings = append(settings, kgo.SASL(plain.Auth{User: k.Username, Pass: k.Password}.AsMechanism()))
	case "SCRAM-SHA-256":
		settings = append(settings, kgo.SASL(scram.Auth{User: k.Username, Pass: k.Password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		settings = append(settings, kgo.SASL(scram.Auth{User: k.Username, Pass: k.Password}.AsSha512Mechanism()))
	}
	client, err := kgo.NewClient(append(settings, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// CreateTopic makes a topic. configs are name, value, name, value ...
func (k *Kafka) CreateTopic(t testing.TB, name string, partitions int, configs ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(partitions), int16(k.Replication)
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], &configs[i+1]
		topic.Configs = append(topic.Configs, c)
	}
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 30_000
	client := k.Client(t)
	for {
		response, err := request.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
		}
		if err == nil {
			return
		}
		// A broker that has just started does not know yet how many there are.
		if !kerr.IsRetriable(err) && err != kerr.InvalidReplicationFactor || ctx.Err() != nil {
			t.Fatalf("make topic %s: %v", name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// DeleteTopics deletes topics; one that is not there is no error.
func (k *Kafka) DeleteTopics(ctx context.Context, t testing.TB, names ...string) {
	t.Helper()
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis, request.TopicNames = 30_000, names
	for _, name := range names {
		topic := kmsg.NewDeleteTopicsRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		request.Topics = append(request.Topics, topic)
	}
	response, err := request.RequestWith(ctx, k.Client(t))
	if err != nil {
		t.Fatalf("delete topics %v: %v", names, err)
	}
	for i, topic := range response.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil && err != kerr.UnknownTopicOrPartition {
			t.Fatalf("delete topic %s: %v", names[i], err)
		}
	}
}

// DeleteRecords deletes what lies below the offset in a partition, as retention does.
func (k *Kafka) DeleteRecords(t testing.TB, topic string, partition int32, offset int64) {
	t.Helper()
	request := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rt.Partitions = append(rt.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: partition, Offset: offset})
	request.Topics, request.TimeoutMillis = append(request.Topics, rt), 30_000
	response, err := request.RequestWith(t.Context(), k.Client(t))
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("delete records of %s/%d below %d: %v", topic, partition, offset, err)
	}
}

// Leader returns the node number of the partition's leader, which is the index in Brokers for a Kafka of StartApacheKafka.
func (k *Kafka) Leader(t testing.TB, topic string, partition int32) int {
	t.Helper()
	request := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(topic)
	request.Topics = append(request.Topics, rt)
	response, err := request.RequestWith(t.Context(), k.Client(t))
	if err != nil {
		t.Fatalf("find the leader of %s/%d: %v", topic, partition, err)
	}
	for _, p := range response.Topics[0].Partitions {
		if p.Partition == partition {
			return int(p.Leader)
		}
	}
	t.Fatalf("%s has no partition %d", topic, partition)
	return -1
}

// clientTLS returns the settings of a client that trusts caFile instead of the system, where it is given, and shows a
// certificate, where it is given.
func clientTLS(t testing.TB, caFile, certFile, keyFile string) *tls.Config {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			t.Fatal(err)
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}
