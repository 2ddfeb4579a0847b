-- incidents: one row per incident, the newest revision wins. There is no partition key: first_seen moves
-- when a late record arrives, and FINAL needs all revisions of a row in one partition.
CREATE TABLE IF NOT EXISTS {{.Table "incidents"}}{{.OnCluster}}
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
ENGINE = {{.Replacing "incidents" "revision"}}
ORDER BY (tenant_id, incident_id)
{{.TTL "incidents"}}
SETTINGS {{.Settings}};

-- incident_members: which records belong to which incidents, found by the record ...
CREATE TABLE IF NOT EXISTS {{.Table "incident_members"}}{{.OnCluster}}
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
ENGINE = {{.Replacing "incident_members" "revision"}}
PARTITION BY toMonday(event_time)
ORDER BY (correlation_id, request_id, tenant_id, incident_id)
{{.TTL "incident_members"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;

-- ... and by the incident.
CREATE TABLE IF NOT EXISTS {{.Table "incident_members_by_incident"}}{{.OnCluster}}
(
    incident_id    String,
    tenant_id      LowCardinality(String),
    request_id     String,
    correlation_id String,
    event_time     DateTime64(6, 'UTC'),
    shard          UInt16,
    revision       UInt64
)
ENGINE = {{.Replacing "incident_members_by_incident" "revision"}}
PARTITION BY toMonday(event_time)
ORDER BY (tenant_id, incident_id, event_time, request_id, correlation_id)
{{.TTL "incident_members_by_incident"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Table "incident_members_to_by_incident"}}{{.OnCluster}} TO {{.Table "incident_members_by_incident"}} AS
SELECT incident_id, tenant_id, request_id, correlation_id, event_time, shard, revision
FROM {{.Table "incident_members"}};
