-- raw_records: the record as received. Partitioned by day of receipt, since its retention is counted in
-- days; the Kafka time of a message never changes, so a repeat falls on its first copy.
CREATE TABLE IF NOT EXISTS {{.Table "raw_records"}}{{.OnCluster}}
(
    request_id         String,
    tenant_id          LowCardinality(String),
    event_time         DateTime64(6, 'UTC'),
    received_time      DateTime64(3, 'UTC'),
    source_topic       LowCardinality(String),
    source_incarnation UInt32,
    source_partition   Int32,
    source_offset      Int64,
    source_index       UInt32,
    raw                String CODEC(ZSTD(3))
)
ENGINE = {{.Replacing "raw_records" ""}}
PARTITION BY toDate(received_time)
ORDER BY (request_id, tenant_id, source_topic, source_incarnation, source_partition, source_offset, source_index)
{{.TTL "raw_records"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;
