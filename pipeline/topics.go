package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// TopicConfig is a topic as EnsureTopic makes it.
type TopicConfig struct {
	Name       string
	Partitions int
	// Replicas is the replication factor; 0 lets the broker choose.
	Replicas int
	// MinInsyncReplicas is min.insync.replicas; 0 lets the broker choose.
	MinInsyncReplicas int
	// Retention is how long records are kept; 0 lets the broker choose, negative keeps them for ever.
	Retention time.Duration
	// AppendTime lets the broker set the time of records, so that retention does not depend on the clocks of writers.
	AppendTime bool
	// AnyPartitions accepts an existing topic with another number of partitions.
	AnyPartitions bool
}

// PartitionCountError says that a topic has another number of partitions than its messages were dealt for.
type PartitionCountError struct {
	Topic     string
	Want, Got int
}

func (e *PartitionCountError) Error() string {
	return fmt.Sprintf("topic %s has %d partitions, want %d: entities are dealt by that number, so another one needs a topic of another name (.v2, ...) or the configured number put back",
		e.Topic, e.Got, e.Want)
}

// EnsureTopic makes the topic where it is missing and returns the number of its partitions. An existing topic
// keeps its configuration. The error is a *PartitionCountError where its number of partitions is another.
func (k *Kafka) EnsureTopic(ctx context.Context, t TopicConfig) (int, error) {
	parts, err := k.TopicPartitions(ctx, t.Name)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		if err := k.createTopic(ctx, t); err != nil {
			return 0, err
		}
		var wait backoff
		for {
			parts, err = k.TopicPartitions(ctx, t.Name)
			// A controller answers before every broker knows the topic.
			if err == nil && len(parts) > 0 {
				break
			}
			if err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) && !errors.Is(err, kafka.LeaderNotAvailable) {
				return 0, err
			}
			if err := wait.wait(ctx); err != nil {
				return 0, fmt.Errorf("wait for topic %s: %w", t.Name, err)
			}
		}
	}
	if err != nil {
		return 0, err
	}
	if len(parts) != t.Partitions && !t.AnyPartitions {
		return 0, &PartitionCountError{Topic: t.Name, Want: t.Partitions, Got: len(parts)}
	}
	return len(parts), nil
}

func (k *Kafka) createTopic(ctx context.Context, t TopicConfig) error {
	config := kafka.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: t.Replicas}
	if t.Replicas == 0 {
		config.ReplicationFactor = -1 // KIP-464, Kafka 2.4
	}
	if t.Retention != 0 {
		ms := int64(-1)
		if t.Retention > 0 {
			ms = t.Retention.Milliseconds()
		}
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: strconv.FormatInt(ms, 10)})
	}
	if t.AppendTime {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	}
	if t.MinInsyncReplicas > 0 {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(t.MinInsyncReplicas)})
	}
	res, err := k.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err == nil {
		err = res.Errors[t.Name]
	}
	switch {
	case err == nil, errors.Is(err, kafka.TopicAlreadyExists):
		return nil
	case errors.Is(err, kafka.TopicAuthorizationFailed), errors.Is(err, kafka.ClusterAuthorizationFailed), errors.Is(err, kafka.PolicyViolation),
		errors.Is(err, kafka.UnsupportedVersion), errors.Is(err, kafka.InvalidRequest), errors.Is(err, kafka.InvalidTopic),
		errors.Is(err, kafka.InvalidPartitionNumber), errors.Is(err, kafka.InvalidReplicationFactor), errors.Is(err, kafka.InvalidConfiguration):
		return &MissingTopicError{TopicConfig: t, Err: err}
	}
	return fmt.Errorf("create topic %s with %d partitions: %w", t.Name, t.Partitions, err)
}

// MissingTopicError says that a topic is missing and that the broker will not make it.
type MissingTopicError struct {
	TopicConfig
	Err error
}

func (e *MissingTopicError) Error() string {
	retention := ""
	if e.Retention > 0 {
		retention = fmt.Sprintf(" and a retention of %s", e.Retention)
	}
	return fmt.Sprintf("topic %s does not exist and the broker does not make it: %v; make it with %d partitions%s, on Event Hubs as an event hub in the portal",
		e.Name, e.Err, e.Partitions, retention)
}

// Unwrap returns the broker's answer.
func (e *MissingTopicError) Unwrap() error { return e.Err }

// RetentionError says that a topic forgets records before a recovery may need them.
type RetentionError struct {
	Topic, Setting, Value, Want string
}

func (e *RetentionError) Error() string {
	return fmt.Sprintf("topic %s has %s=%s, want %s: a shard that starts again after an outage would miss records; raise it (kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config ...)",
		e.Topic, e.Setting, e.Value, e.Want, e.Topic)
}

// CheckRetention returns a *RetentionError where the topic is known to keep records for less than want, or
// compacts them away. Brokers that do not tell (Event Hubs, missing rights) and a limit by size, whose
// time nobody knows, are logged.
func (k *Kafka) CheckRetention(ctx context.Context, topic string, want time.Duration, log *slog.Logger) error {
	res, err := k.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic,
			ResourceName: topic,
			ConfigNames:  []string{"retention.ms", "retention.bytes", "cleanup.policy"},
		}},
	})
	if err == nil && len(res.Resources) == 1 {
		err = res.Resources[0].Error
	}
	if err != nil || len(res.Resources) != 1 {
		log.Warn("retention of the topic cannot be read; make sure that it is long enough", "topic", topic, "want", want.String(), "error", err)
		return nil
	}
	known := false
	for _, c := range res.Resources[0].ConfigEntries {
		switch c.ConfigName {
		case "retention.ms":
			ms, err := strconv.ParseInt(c.ConfigValue, 10, 64)
			if err != nil {
				continue
			}
			known = true
			if ms >= 0 && ms < want.Milliseconds() {
				return &RetentionError{topic, c.ConfigName, c.ConfigValue, fmt.Sprintf("%d (%s) or more", want.Milliseconds(), want)}
			}
		case "retention.bytes":
			if n, err := strconv.ParseInt(c.ConfigValue, 10, 64); err == nil && n >= 0 {
				log.Warn("the topic is also bounded by size; make sure that it lasts long enough", "topic", topic, "retention.bytes", n, "want", want.String())
			}
		case "cleanup.policy":
			if c.ConfigValue != "" && c.ConfigValue != "delete" {
				return &RetentionError{topic, c.ConfigName, c.ConfigValue, "delete"}
			}
		}
	}
	if !known {
		log.Warn("retention of the topic cannot be read; make sure that it is long enough", "topic", topic, "want", want.String())
	}
	return nil
}

// kafkaOffset is the offset to read next of one partition.
type kafkaOffset struct {
	partition int
	offset    int64
}

// commitHints commits offsets of one topic, for tools that show lag.
func (k *Kafka) commitHints(ctx context.Context, group string, m member, topic string, offsets []kafkaOffset) error {
	var commits []kafka.OffsetCommit
	for _, o := range offsets {
		commits = append(commits, kafka.OffsetCommit{Partition: o.partition, Offset: o.offset})
	}
	return k.commitOffsets(ctx, group, m, map[string][]kafka.OffsetCommit{topic: commits})
}
