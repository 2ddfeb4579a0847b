-- alert_deliveries: what each receiver of alerts has acknowledged of each incident. Revisions count per shard,
-- so there is no one position up to which everything was sent: rows are compared with incidents key by key.
-- version is the time of sending in microseconds, or one more than the version before where a clock lags.
CREATE TABLE IF NOT EXISTS {{.Table "alert_deliveries"}}{{.OnCluster}}
(
    receiver    LowCardinality(String),
    tenant_id   LowCardinality(String),
    incident_id String,
    revision    UInt64,
    severity    LowCardinality(String),
    last_seen   DateTime64(6, 'UTC'),
    -- When the receiver was last told something new: a later record or a higher severity.
    told        DateTime64(6, 'UTC'),
    -- The labels under which the alert stands at an Alertmanager, and whether it still does.
    labels      Map(String, String),
    open        Bool,
    sent        DateTime64(6, 'UTC'),
    version     UInt64
)
ENGINE = {{.Replacing "alert_deliveries" "version"}}
ORDER BY (receiver, tenant_id, incident_id)
{{.TTL "alert_deliveries"}}
SETTINGS {{.Settings}};

-- alert_senders: which process sends to a receiver, and until when it is left alone. A lease of this kind can be held
-- by two for a moment; that repeats alerts and loses none.
CREATE TABLE IF NOT EXISTS {{.Table "alert_senders"}}{{.OnCluster}}
(
    receiver LowCardinality(String),
    sender   String,
    until    DateTime64(6, 'UTC'),
    version  UInt64
)
ENGINE = {{.Replacing "alert_senders" "version"}}
ORDER BY receiver
SETTINGS {{.Settings}};
