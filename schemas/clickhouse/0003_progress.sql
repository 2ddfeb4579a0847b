-- progress: how far the rows of each shard are in the tables. A shard's newest position has the highest
-- epoch and then the highest offset, so an old process can never set it back. The whole table is one
-- granule: a read is one seek.
CREATE TABLE IF NOT EXISTS {{.Table "progress"}}{{.OnCluster}}
(
    topic       LowCardinality(String),
    shard       UInt16,
    epoch       UInt16,
    offset      Int64,
    hash        UInt64,
    incarnation UInt32,
    fingerprint UInt64,
    updated     DateTime64(3, 'UTC'),
    position    UInt64 MATERIALIZED bitOr(bitShiftLeft(toUInt64(epoch), 48), bitAnd(toUInt64(offset), 281474976710655))
)
ENGINE = {{.Replacing "progress" "position"}}
ORDER BY (topic, shard)
SETTINGS {{.Settings}};
