// Package pipeline moves records through Kafka: routers read the raw topics, decode and deal every record to
// the entities that it touches, and write the entities topic; shards read that topic, one goroutine per
// partition, apply the detectors' state machine and hand rows to a sink.
//
// Nothing is lost and nothing counts twice, by these rules:
//
//   - A router writes with acks=all, one request in flight per target partition, the same batch until it is
//     acknowledged, and commits a raw offset only below its lowest unacknowledged record. A crash repeats
//     records; it neither skips nor reorders them. The state machine drops repeats by their source.
//   - A shard's snapshot holds offset and state together. Rows are emitted from the position that the sink
//     has stored; what lies between snapshot and position is replayed without emission.
//   - Whatever fails is tried again for ever. Nothing but a record that is itself bad leaves the way: to
//     quarantine.
//
// Kafka is spoken through github.com/segmentio/kafka-go for connections, authentication, topics, groups and
// offsets. Record batches are fetched and produced on connections of their own, in the wire format of
// https://kafka.apache.org/protocol, because kafka-go's readers hide what exactness needs: time stamps
// without an allocation per record, control records, aborted transactions, LogAppendTime and checksums.
package pipeline
