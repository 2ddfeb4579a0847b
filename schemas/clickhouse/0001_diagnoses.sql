-- diagnoses: one row per sign-in record, the newest revision wins.
-- The key is what a look-up by correlation id seeks. event_time never changes between the revisions of a
-- row, so all of them lie in one partition and FINAL sees them together.
-- Codecs are the server's default, LZ4. Measured on 500 000 rows, all three tables: ZSTD(1) for ids, summary
-- and evidence makes 222 B of 378 B a row, for a fifth to a half more CPU with merges included. Where disk
-- counts more, the server's setting <compression> does the same for large, old parts alone.
CREATE TABLE IF NOT EXISTS {{.Table "diagnoses"}}{{.OnCluster}}
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
    -- Within the range of Date, the type of the partition key and of the retention: beyond it weeks wrap.
    CONSTRAINT event_time_in_range CHECK event_time >= toDateTime64('1970-01-01 00:00:00', 6, 'UTC') AND event_time < toDateTime64('2100-01-01 00:00:00', 6, 'UTC')
)
ENGINE = {{.Replacing "diagnoses" "revision"}}
PARTITION BY toMonday(event_time)
ORDER BY (correlation_id, request_id, tenant_id)
{{.TTL "diagnoses"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;

-- diagnoses_by_user: the same rows in the order of search and of the 48 hour view. The name is compared
-- without regard to case, as Entra does. Sentences and evidence are fetched from diagnoses by key.
CREATE TABLE IF NOT EXISTS {{.Table "diagnoses_by_user"}}{{.OnCluster}}
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
ENGINE = {{.Replacing "diagnoses_by_user" "revision"}}
PARTITION BY toMonday(event_time)
ORDER BY (tenant_id, lowerUTF8(user), event_time, request_id)
{{.TTL "diagnoses_by_user"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Table "diagnoses_to_by_user"}}{{.OnCluster}} TO {{.Table "diagnoses_by_user"}} AS
SELECT request_id, correlation_id, tenant_id, event_time, received_time, category, user, user_id, app, resource,
    client_app, address, error_code, outcome, attempt_id, attempt_outcome, scenario, also, severity, incidents, shard, revision
FROM {{.Table "diagnoses"}};

-- request_ids: a request id finds its correlation id, and with it the row in diagnoses, by one seek.
CREATE TABLE IF NOT EXISTS {{.Table "request_ids"}}{{.OnCluster}}
(
    request_id     String,
    tenant_id      LowCardinality(String),
    correlation_id String,
    event_time     DateTime64(6, 'UTC')
)
ENGINE = {{.Replacing "request_ids" ""}}
PARTITION BY toMonday(event_time)
ORDER BY (request_id, tenant_id, correlation_id)
{{.TTL "request_ids"}}
SETTINGS {{.Settings}}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Table "diagnoses_to_request_ids"}}{{.OnCluster}} TO {{.Table "request_ids"}} AS
SELECT request_id, tenant_id, correlation_id, event_time
FROM {{.Table "diagnoses"}};
