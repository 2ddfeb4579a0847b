-- quarantine: records that could not be decoded, published or stored, with their bytes and the reason.
-- The key is the identity of the record, so a repeat of it is not a second row.
CREATE TABLE IF NOT EXISTS {{.Table "quarantine"}}{{.OnCluster}}
(
    source_topic       LowCardinality(String),
    source_incarnation UInt32,
    source_partition   Int32,
    source_offset      Int64,
    source_index       UInt32,
    stage              LowCardinality(String),
    received_time      DateTime64(3, 'UTC'),
    reason             LowCardinality(String),
    error              String,
    bytes              String CODEC(ZSTD(3))
)
ENGINE = {{.Replacing "quarantine" ""}}
PARTITION BY toMonday(received_time)
ORDER BY (source_topic, source_incarnation, source_partition, source_offset, source_index, stage)
{{.TTL "quarantine"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;
