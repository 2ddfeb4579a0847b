package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/signindiag/signindiag/pipeline"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/sinks"
)

// tlsConfig returns the TLS settings, nil without TLS. caFile replaces the system's certificate authorities.
func tlsConfig(enabled bool, caFile, variable string) (*tls.Config, error) {
	if !enabled {
		return nil, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return settings, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", envPrefix, variable, err)
	}
	settings.RootCAs = x509.NewCertPool()
	if !settings.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s%s=%s: expected certificates in PEM form, found none", envPrefix, variable, caFile)
	}
	return settings, nil
}

// server returns how to reach ClickHouse.
func (c *clickHouseConfig) server() (sinks.Server, error) {
	settings, err := tlsConfig(c.TLS, c.TLSCAFile, "CLICKHOUSE_TLS_CA_FILE")
	if err != nil {
		return sinks.Server{}, err
	}
	return sinks.Server{
		Address: c.Addresses, Database: c.Database, Username: c.Username, Password: string(c.Password),
		TLS: settings, Cluster: c.Cluster,
	}, nil
}

// tables returns how the tables are rendered.
func (c *clickHouseConfig) tables() chschema.Options {
	return chschema.Options{
		Database: c.Database, Cluster: c.Cluster,
		Retention: chschema.Retention{
			Diagnoses: c.RetentionDays, Incidents: c.RetentionDays,
			Quarantine: c.RetentionDays, RawRecords: c.RawRetentionDays,
		},
	}
}

// outbox returns the receivers of alerts and what they are sent; who opens it adds the rest.
func (c *alertsConfig) outbox() (sinks.OutboxConfig, error) {
	settings, err := tlsConfig(true, c.TLSCAFile, "ALERTS_TLS_CA_FILE")
	if err != nil {
		return sinks.OutboxConfig{}, err
	}
	o := sinks.OutboxConfig{MinSeverity: c.MinSeverity, MaxAge: c.MaxAge, Quiet: c.Quiet, Interval: c.Interval, Resend: c.Resend, PageURL: c.PageURL}
	for _, address := range c.AlertmanagerURLs {
		o.Alertmanagers = append(o.Alertmanagers, sinks.AlertmanagerConfig{URL: address, Username: c.AlertmanagerUsername,
			Password: string(c.AlertmanagerPassword), Token: string(c.AlertmanagerToken), TLS: settings})
	}
	if c.WebhookURL != "" {
		o.Webhook = &sinks.WebhookConfig{URL: string(c.WebhookURL), Secret: string(c.WebhookSecret), TLS: settings}
	}
	return o, nil
}

// connection returns how to reach Kafka.
func (c *kafkaConfig) connection() pipeline.KafkaConfig {
	return pipeline.KafkaConfig{
		Brokers: c.Brokers, TLS: c.TLS, TLSCAFile: c.TLSCAFile, TLSCertFile: c.TLSCertFile, TLSKeyFile: c.TLSKeyFile,
		SASLMechanism: c.SASLMechanism, Username: c.SASLUsername, Password: string(c.SASLPassword),
	}
}

// pipeline returns how the pipeline works. A single process reads all partitions without a consumer group.
func (c *config) pipeline(singleProcess bool) pipeline.Config {
	settings := pipeline.Config{
		EntitiesTopic:       c.Kafka.EntitiesTopic,
		Partitions:          c.Kafka.EntitiesPartitions,
		EntitiesRetention:   c.Kafka.EntitiesRetention,
		EntitiesIncarnation: c.Kafka.Incarnation,
		Replicas:            max(c.Kafka.Replication, 0),
		Group:               c.Kafka.Group,
		SessionTimeout:      c.Kafka.SessionTimeout,
		// Three may be missed, as Kafka's documents advise.
		HeartbeatInterval: min(3*time.Second, c.Kafka.SessionTimeout/4),
		Compression:       pipeline.CodecLZ4,
		SnapshotInterval:  c.Snapshots.Interval,
		ReplayOnChange:    c.Settings.Replay,
	}
	if settings.Replicas >= 3 {
		// One broker may be away without a stop, and none may be lost with what was acknowledged.
		settings.MinInsyncReplicas = 2
	}
	if singleProcess {
		settings.Group = ""
	}
	for _, name := range c.Kafka.RawTopics {
		settings.RawTopics = append(settings.RawTopics, pipeline.RawTopic{Name: name, Incarnation: c.Kafka.RawIncarnation})
	}
	return settings
}

// embed points the configuration at the embedded servers: what concerns external ones is set aside.
func (c *config) embed(broker, clickHouse, snapshots string) {
	c.Kafka.Brokers = []string{broker}
	c.Kafka.EntitiesPartitions = upPartitions
	c.Kafka.TLS, c.Kafka.SASLMechanism = false, ""
	c.Kafka.Replication = 1
	c.ClickHouse.Addresses = []string{clickHouse}
	c.ClickHouse.Username, c.ClickHouse.Password = "default", ""
	c.ClickHouse.TLS, c.ClickHouse.Cluster = false, ""
	c.Snapshots.URL = "file://" + filepath.ToSlash(snapshots)
}
