-- quarantine: when the row was written, from which its retention counts, since producers set Kafka times freely and a
-- record with an old one would be gone at once; the size of the record as received, larger than its bytes where only their
-- beginning is kept; and, for a message that a shard passes over, the code, settings and catalogue for which it does.
ALTER TABLE {{.Table "quarantine"}}{{.OnCluster}} ADD COLUMN IF NOT EXISTS quarantined_time DateTime64(3, 'UTC') DEFAULT received_time;
ALTER TABLE {{.Table "quarantine"}}{{.OnCluster}} ADD COLUMN IF NOT EXISTS size UInt64 DEFAULT length(bytes);
ALTER TABLE {{.Table "quarantine"}}{{.OnCluster}} ADD COLUMN IF NOT EXISTS fingerprint UInt64;
{{.ModifyTTL "quarantine"}}

-- quarantine_replays: which records of quarantine were sent again, when and where to. It is a table of its own, since a
-- record that is met again after a crash is written to quarantine again.
CREATE TABLE IF NOT EXISTS {{.Table "quarantine_replays"}}{{.OnCluster}}
(
    source_topic       LowCardinality(String),
    source_incarnation UInt32,
    source_partition   Int32,
    source_offset      Int64,
    source_index       UInt32,
    stage              LowCardinality(String),
    replayed_time      DateTime64(3, 'UTC'),
    target             LowCardinality(String)
)
ENGINE = {{.Replacing "quarantine_replays" "replayed_time"}}
ORDER BY (source_topic, source_incarnation, source_partition, source_offset, source_index, stage)
{{.TTL "quarantine_replays"}}
SETTINGS {{.Settings}};
