CREATE DATABASE IF NOT EXISTS `signindiag` ON CLUSTER '{cluster}';

CREATE TABLE IF NOT EXISTS `signindiag`.`schema_version` ON CLUSTER '{cluster}'
(
    version UInt32,
    name    String,
    applied DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/schema_version', '{replica}', applied)
ORDER BY version
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1;

-- 0001_diagnoses.sql
CREATE TABLE IF NOT EXISTS `signindiag`.`diagnoses` ON CLUSTER '{cluster}'
(
    request_id      String,
    correlation_id  String,
    tenant_id       LowCardinality(String),
    event_time      DateTime64(6, 'UTC'),
    received_time   DateTime64(3, 'UTC'),
    category        LowCardinality(String),
    user            String,
    user_id         String,
    app             LowCardinality(String),
    resource        LowCardinality(String),
    client_app      LowCardinality(String),
    address         String,
    error_code      Int32,
    outcome         LowCardinality(String),
    attempt_id      String,
    attempt_outcome LowCardinality(String),
    scenario        LowCardinality(String),
    also            Array(LowCardinality(String)),
    severity        LowCardinality(String),
    summary         String,
    evidence        String,
    unknown         Array(LowCardinality(String)),
    incidents       Array(String),
    shard           UInt16,
    revision        UInt64,
    CONSTRAINT event_time_in_range CHECK event_time >= toDateTime64('1970-01-01 00:00:00', 6, 'UTC') AND event_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/diagnoses', '{replica}', revision)
PARTITION BY toMonday(event_time)
ORDER BY (correlation_id, request_id, tenant_id)
TTL toDate(event_time) + toIntervalDay(90)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `signindiag`.`diagnoses_by_user` ON CLUSTER '{cluster}'
(
    request_id      String,
    correlation_id  String,
    tenant_id       LowCardinality(String),
    event_time      DateTime64(6, 'UTC'),
    received_time   DateTime64(3, 'UTC'),
    category        LowCardinality(String),
    user            String,
    user_id         String,
    app             LowCardinality(String),
    resource        LowCardinality(String),
    client_app      LowCardinality(String),
    address         String,
    error_code      Int32,
    outcome         LowCardinality(String),
    attempt_id      String,
    attempt_outcome LowCardinality(String),
    scenario        LowCardinality(String),
    also            Array(LowCardinality(String)),
    severity        LowCardinality(String),
    incidents       Array(String),
    shard           UInt16,
    revision        UInt64
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/diagnoses_by_user', '{replica}', revision)
PARTITION BY toMonday(event_time)
ORDER BY (tenant_id, lowerUTF8(user), event_time, request_id)
TTL toDate(event_time) + toIntervalDay(90)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `signindiag`.`diagnoses_to_by_user` ON CLUSTER '{cluster}' TO `signindiag`.`diagnoses_by_user` AS
SELECT request_id, correlation_id, tenant_id, event_time, received_time, category, user, user_id, app, resource,
    client_app, address, error_code, outcome, attempt_id, attempt_outcome, scenario, also, severity, incidents, shard, revision
FROM `signindiag`.`diagnoses`;

CREATE TABLE IF NOT EXISTS `signindiag`.`request_ids` ON CLUSTER '{cluster}'
(
    request_id     String,
    tenant_id      LowCardinality(String),
    correlation_id String,
    event_time     DateTime64(6, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/request_ids', '{replica}')
PARTITION BY toMonday(event_time)
ORDER BY (request_id, tenant_id, correlation_id)
TTL toDate(event_time) + toIntervalDay(90)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `signindiag`.`diagnoses_to_request_ids` ON CLUSTER '{cluster}' TO `signindiag`.`request_ids` AS
SELECT request_id, tenant_id, correlation_id, event_time
FROM `signindiag`.`diagnoses`;

-- 0002_incidents.sql
CREATE TABLE IF NOT EXISTS `signindiag`.`incidents` ON CLUSTER '{cluster}'
(
    incident_id       String,
    kind              LowCardinality(String),
    severity          LowCardinality(String),
    entity_kind       LowCardinality(String),
    entity_value      String,
    tenant_id         LowCardinality(String),
    first_seen        DateTime64(6, 'UTC'),
    last_seen         DateTime64(6, 'UTC'),
    users             Array(String),
    addresses         Array(String),
    applications      Array(String),
    devices           Array(String),
    operating_systems Array(String),
    client_apps       Array(String),
    counts            Map(String, Int64),
    outcome           LowCardinality(String),
    request_ids       Array(String),
    request_ids_total Int64,
    shard             UInt16,
    revision          UInt64,
    CONSTRAINT last_seen_in_range CHECK last_seen >= toDateTime64('1970-01-01 00:00:00', 6, 'UTC') AND last_seen < toDateTime64('2100-01-01 00:00:00', 6, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/incidents', '{replica}', revision)
ORDER BY (tenant_id, incident_id)
TTL toDate(last_seen) + toIntervalDay(400)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `signindiag`.`incident_members` ON CLUSTER '{cluster}'
(
    incident_id    String,
    tenant_id      LowCardinality(String),
    request_id     String,
    correlation_id String,
    event_time     DateTime64(6, 'UTC'),
    shard          UInt16,
    revision       UInt64,
    CONSTRAINT event_time_in_range CHECK event_time >= toDateTime64('1970-01-01 00:00:00', 6, 'UTC') AND event_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/incident_members', '{replica}', revision)
PARTITION BY toMonday(event_time)
ORDER BY (correlation_id, request_id, tenant_id, incident_id)
TTL toDate(event_time) + toIntervalDay(90)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `signindiag`.`incident_members_by_incident` ON CLUSTER '{cluster}'
(
    incident_id    String,
    tenant_id      LowCardinality(String),
    request_id     String,
    correlation_id String,
    event_time     DateTime64(6, 'UTC'),
    shard          UInt16,
    revision       UInt64
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/incident_members_by_incident', '{replica}', revision)
PARTITION BY toMonday(event_time)
ORDER BY (tenant_id, incident_id, event_time, request_id, correlation_id)
TTL toDate(event_time) + toIntervalDay(90)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `signindiag`.`incident_members_to_by_incident` ON CLUSTER '{cluster}' TO `signindiag`.`incident_members_by_incident` AS
SELECT incident_id, tenant_id, request_id, correlation_id, event_time, shard, revision
FROM `signindiag`.`incident_members`;

-- 0003_progress.sql
CREATE TABLE IF NOT EXISTS `signindiag`.`progress` ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/progress', '{replica}', position)
ORDER BY (topic, shard)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1;

-- 0004_quarantine.sql
CREATE TABLE IF NOT EXISTS `signindiag`.`quarantine` ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/quarantine', '{replica}')
PARTITION BY toMonday(received_time)
ORDER BY (source_topic, source_incarnation, source_partition, source_offset, source_index, stage)
TTL toDate(received_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

-- 0005_raw_records.sql
CREATE TABLE IF NOT EXISTS `signindiag`.`raw_records` ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/raw_records', '{replica}')
PARTITION BY toDate(received_time)
ORDER BY (request_id, tenant_id, source_topic, source_incarnation, source_partition, source_offset, source_index)
TTL toDate(received_time) + toIntervalDay(7)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

-- 0006_incidents_also.sql
ALTER TABLE `signindiag`.`incidents` ON CLUSTER '{cluster}' ADD COLUMN IF NOT EXISTS also Array(String) AFTER request_ids_total;

-- 0007_alerts.sql
CREATE TABLE IF NOT EXISTS `signindiag`.`alert_deliveries` ON CLUSTER '{cluster}'
(
    receiver    LowCardinality(String),
    tenant_id   LowCardinality(String),
    incident_id String,
    revision    UInt64,
    severity    LowCardinality(String),
    last_seen   DateTime64(6, 'UTC'),
    told        DateTime64(6, 'UTC'),
    labels      Map(String, String),
    open        Bool,
    sent        DateTime64(6, 'UTC'),
    version     UInt64
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/alert_deliveries', '{replica}', version)
ORDER BY (receiver, tenant_id, incident_id)
TTL toDate(sent) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS `signindiag`.`alert_senders` ON CLUSTER '{cluster}'
(
    receiver LowCardinality(String),
    sender   String,
    until    DateTime64(6, 'UTC'),
    version  UInt64
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/alert_senders', '{replica}', version)
ORDER BY receiver
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1;

-- 0008_quarantine.sql
ALTER TABLE `signindiag`.`quarantine` ON CLUSTER '{cluster}' ADD COLUMN IF NOT EXISTS quarantined_time DateTime64(3, 'UTC') DEFAULT received_time;

ALTER TABLE `signindiag`.`quarantine` ON CLUSTER '{cluster}' ADD COLUMN IF NOT EXISTS size UInt64 DEFAULT length(bytes);

ALTER TABLE `signindiag`.`quarantine` ON CLUSTER '{cluster}' ADD COLUMN IF NOT EXISTS fingerprint UInt64;

ALTER TABLE `signindiag`.`quarantine` ON CLUSTER '{cluster}' MODIFY TTL toDate(quarantined_time) + toIntervalDay(30);

CREATE TABLE IF NOT EXISTS `signindiag`.`quarantine_replays` ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/signindiag/quarantine_replays', '{replica}', replayed_time)
ORDER BY (source_topic, source_incarnation, source_partition, source_offset, source_index, stage)
TTL toDate(replayed_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1;

