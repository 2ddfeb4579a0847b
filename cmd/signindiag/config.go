package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/sinks"
)

// envPrefix begins the name of every environment variable that signindiag reads.
const envPrefix = "SIGNINDIAG_"

// config is the whole configuration, read from the environment. README.md holds the same table; a
// test compares the two.
type config struct {
	Kafka      kafkaConfig      `env:", prefix=KAFKA_"`
	ClickHouse clickHouseConfig `env:", prefix=CLICKHOUSE_"`
	Snapshots  snapshotsConfig  `env:", prefix=SNAPSHOTS_"`
	Catalogue  catalogueConfig  `env:", prefix=CATALOGUE_"`
	HTTP       httpConfig       `env:", prefix=HTTP_"`
	Log        logConfig        `env:", prefix=LOG_"`
	Settings   settingsConfig   `env:", prefix=SETTINGS_"`
	Alerts     alertsConfig     `env:", prefix=ALERTS_"`
}

type kafkaConfig struct {
	Brokers            []string      `env:"BROKERS"`
	RawTopics          []string      `env:"RAW_TOPICS, default=signindiag.raw"`
	RawIncarnation     uint32        `env:"RAW_INCARNATION, default=1"`
	EntitiesTopic      string        `env:"ENTITIES_TOPIC, default=signindiag.entities.v1"`
	EntitiesPartitions int           `env:"ENTITIES_PARTITIONS, default=32"`
	EntitiesRetention  time.Duration `env:"ENTITIES_RETENTION, default=168h"`
	Incarnation        uint32        `env:"ENTITIES_INCARNATION, default=1"`
	Replication        int           `env:"REPLICATION, default=-1"`
	CreateTopics       bool          `env:"CREATE_TOPICS, default=false"`
	Group              string        `env:"GROUP, default=signindiag"`
	SessionTimeout     time.Duration `env:"SESSION_TIMEOUT, default=30s"`
	TLS                bool          `env:"TLS, default=false"`
	TLSCAFile          string        `env:"TLS_CA_FILE"`
	TLSCertFile        string        `env:"TLS_CERT_FILE"`
	TLSKeyFile         string        `env:"TLS_KEY_FILE"`
	SASLMechanism      string        `env:"SASL_MECHANISM"`
	SASLUsername       string        `env:"SASL_USERNAME"`
	SASLPassword       secret        `env:"SASL_PASSWORD"`
}

type clickHouseConfig struct {
	Addresses        []string `env:"ADDRESSES"`
	Database         string   `env:"DATABASE, default=signindiag"`
	Username         string   `env:"USERNAME, default=default"`
	Password         secret   `env:"PASSWORD"`
	TLS              bool     `env:"TLS, default=false"`
	TLSCAFile        string   `env:"TLS_CA_FILE"`
	Cluster          string   `env:"CLUSTER"`
	RetentionDays    int      `env:"RETENTION_DAYS, default=0"`
	RawRetentionDays int      `env:"RAW_RETENTION_DAYS, default=0"`
	RawRecords       bool     `env:"RAW_RECORDS, default=true"`
	// Library and Cache concern the embedded engine of `signindiag up` alone.
	Library string `env:"LIBRARY"`
	Cache   string `env:"CACHE"`
}

type snapshotsConfig struct {
	URL      string        `env:"URL"`
	Interval time.Duration `env:"INTERVAL, default=60s"`
}

type catalogueConfig struct {
	// File is an overlay of the embedded catalogue; empty for none.
	File string `env:"FILE"`
}

type httpConfig struct {
	Address      string   `env:"ADDRESS, default=127.0.0.1:8480"`
	Capabilities []string `env:"CAPABILITIES, default=records,conditional_access,risk,raw"`
	Tokens       secret   `env:"TOKENS"`
}

type logConfig struct {
	Level  string `env:"LEVEL, default=info"`
	Format string `env:"FORMAT, default=text"`
}

type settingsConfig struct {
	File string `env:"FILE"`
	// Replay is how far back rows are made again in a new epoch. Edition, raised by one, begins one though nothing else has changed.
	Replay  time.Duration `env:"REPLAY, default=48h"`
	Edition uint32        `env:"EDITION, default=0"`
}

// alertsConfig says who is told of incidents; nobody is without a receiver. The webhook's address is a secret, since such
// addresses often hold one.
type alertsConfig struct {
	AlertmanagerURLs     []string      `env:"ALERTMANAGER_URLS"`
	AlertmanagerUsername string        `env:"ALERTMANAGER_USERNAME"`
	AlertmanagerPassword secret        `env:"ALERTMANAGER_PASSWORD"`
	AlertmanagerToken    secret        `env:"ALERTMANAGER_TOKEN"`
	WebhookURL           secret        `env:"WEBHOOK_URL"`
	WebhookSecret        secret        `env:"WEBHOOK_SECRET"`
	TLSCAFile            string        `env:"TLS_CA_FILE"`
	PageURL              string        `env:"PAGE_URL"`
	MinSeverity          string        `env:"MIN_SEVERITY, default=medium"`
	MaxAge               time.Duration `env:"MAX_AGE, default=48h"`
	Quiet                time.Duration `env:"QUIET, default=1h"`
	Interval             time.Duration `env:"INTERVAL, default=10s"`
	Resend               time.Duration `env:"RESEND, default=1m"`
}

// configured reports whether there is a receiver.
func (c *alertsConfig) configured() bool { return len(c.AlertmanagerURLs) > 0 || c.WebhookURL != "" }

// secret is a text that no log, error text or page may show.
type secret string

// String hides the secret from fmt and slog.
func (s secret) String() string {
	if s == "" {
		return ""
	}
	return "[set]"
}

// GoString hides the secret from %#v.
func (s secret) GoString() string { return s.String() }

// LogValue hides the secret from slog.
func (s secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the secret from encoders.
func (s secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// loadConfig reads the configuration through lookuper (nil: the process's environment) and
// validates it. The error names every wrong variable, one to a line, and never a secret's value.
func loadConfig(ctx context.Context, lookuper envconfig.Lookuper) (*config, error) {
	if lookuper == nil {
		lookuper = envconfig.OsLookuper()
	}
	var c config
	err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &c, Lookuper: envconfig.PrefixLookuper(envPrefix, lookuper)})
	if err != nil {
		return nil, fmt.Errorf("read %s from the environment: %w", variableName(err.Error()), err)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("the configuration is not valid:\n%w", err)
	}
	return &c, nil
}

// variableName returns the variable that an error of go-envconfig is about: its text begins with the path of fields, such as
// "Kafka: RawIncarnation: ".
func variableName(text string) string {
	name, t := envPrefix, reflect.TypeFor[config]()
	for {
		field, rest, _ := strings.Cut(text, ": ")
		f, ok := t.FieldByName(field)
		if !ok {
			return "the configuration"
		}
		tag, options, _ := strings.Cut(f.Tag.Get("env"), ",")
		prefix, nested := strings.CutPrefix(strings.TrimSpace(options), "prefix=")
		if !nested {
			return name + tag
		}
		name, t, text = name+prefix, f.Type, rest
	}
}

// validate checks all that can be told without a server and returns every finding joined.
func (c *config) validate() error {
	var errs []error
	wrong := func(name string, value any, expected string) {
		errs = append(errs, fmt.Errorf("  %s%s=%v: expected %s", envPrefix, name, value, expected))
	}
	for _, address := range c.Kafka.Brokers {
		if _, _, err := net.SplitHostPort(address); err != nil {
			wrong("KAFKA_BROKERS", address, "host:port, several separated by commas")
		}
	}
	for _, address := range c.ClickHouse.Addresses {
		if _, _, err := net.SplitHostPort(address); err != nil {
			wrong("CLICKHOUSE_ADDRESSES", address, "host:port of the native protocol, several separated by commas")
		}
	}
	if len(c.Kafka.RawTopics) == 0 {
		wrong("KAFKA_RAW_TOPICS", "", "at least one topic")
	}
	if slices.Contains(c.Kafka.RawTopics, c.Kafka.EntitiesTopic) {
		wrong("KAFKA_ENTITIES_TOPIC", c.Kafka.EntitiesTopic, "a topic that is not among the raw topics")
	}
	// The upper bound is that of the shard column in ClickHouse (UInt16).
	if c.Kafka.EntitiesPartitions < 1 || c.Kafka.EntitiesPartitions > 4096 {
		wrong("KAFKA_ENTITIES_PARTITIONS", c.Kafka.EntitiesPartitions, "1 to 4096 (4 on one machine, 32 to 64 on a cluster)")
	}
	if c.Kafka.EntitiesRetention < 96*time.Hour {
		wrong("KAFKA_ENTITIES_RETENTION", c.Kafka.EntitiesRetention, "at least 96h: 72 h of windows and lateness, the longest outage and the oldest snapshot")
	}
	if c.Kafka.RawIncarnation == 0 {
		wrong("KAFKA_RAW_INCARNATION", 0, "1 or more; raise it when the raw topic was deleted and made again")
	}
	if c.Kafka.Incarnation == 0 {
		wrong("KAFKA_ENTITIES_INCARNATION", 0, "1 or more; raise it when the entities topic was deleted and made again")
	}
	// Brokers of Kafka take 6 s to 30 min by default (group.min.session.timeout.ms, group.max.session.timeout.ms); Event Hubs takes 6 s
	// to 5 min and recommends 30 s (https://learn.microsoft.com/azure/event-hubs/apache-kafka-configurations).
	if c.Kafka.SessionTimeout < 6*time.Second || c.Kafka.SessionTimeout > 5*time.Minute {
		wrong("KAFKA_SESSION_TIMEOUT", c.Kafka.SessionTimeout, "6s to 5m")
	}
	if (c.Kafka.TLSCertFile == "") != (c.Kafka.TLSKeyFile == "") {
		errs = append(errs, fmt.Errorf("  %sKAFKA_TLS_CERT_FILE and _KEY_FILE: expected both or neither", envPrefix))
	}
	if !c.Kafka.TLS && c.Kafka.TLSCertFile != "" {
		errs = append(errs, fmt.Errorf("  %sKAFKA_TLS_CERT_FILE needs KAFKA_TLS=true too", envPrefix))
	}
	switch c.Kafka.SASLMechanism {
	case "", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
	default:
		wrong("KAFKA_SASL_MECHANISM", c.Kafka.SASLMechanism, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	if c.Kafka.SASLMechanism != "" && (c.Kafka.SASLUsername == "" || c.Kafka.SASLPassword == "") {
		errs = append(errs, fmt.Errorf("  %sKAFKA_SASL_MECHANISM=%s needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD too", envPrefix, c.Kafka.SASLMechanism))
	}
	if c.ClickHouse.RetentionDays < 0 {
		wrong("CLICKHOUSE_RETENTION_DAYS", c.ClickHouse.RetentionDays, "0 (keep for ever) or a number of days")
	}
	if c.ClickHouse.RawRetentionDays < 0 {
		wrong("CLICKHOUSE_RAW_RETENTION_DAYS", c.ClickHouse.RawRetentionDays, "0 (keep for ever) or a number of days")
	}
	if !identifier(c.ClickHouse.Database) {
		wrong("CLICKHOUSE_DATABASE", c.ClickHouse.Database, "letters, digits and underscores, not beginning with a digit")
	}
	if c.Snapshots.URL != "" {
		// It is not repeated: somebody may have put a key into it.
		if u, err := url.Parse(c.Snapshots.URL); err != nil || u.Scheme == "" || u.User != nil {
			wrong("SNAPSHOTS_URL", "[set]", "a URL such as file:///var/lib/signindiag/snapshots, s3://BUCKET or azblob://CONTAINER, without a user name in it")
		}
	}
	if c.Snapshots.Interval < time.Second {
		wrong("SNAPSHOTS_INTERVAL", c.Snapshots.Interval, "1s or more")
	}
	if c.Settings.Replay < time.Hour {
		wrong("SETTINGS_REPLAY", c.Settings.Replay, "1h or more; 48h is the longest window")
	}
	if _, _, err := net.SplitHostPort(c.HTTP.Address); err != nil {
		wrong("HTTP_ADDRESS", c.HTTP.Address, "host:port or :port")
	}
	if _, err := c.HTTP.viewer(); err != nil {
		errs = append(errs, fmt.Errorf("  %w", err))
	}
	if _, err := c.Log.level(); err != nil {
		wrong("LOG_LEVEL", c.Log.Level, "debug, info, warn or error")
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong("LOG_FORMAT", c.Log.Format, "text or json")
	}
	for _, address := range c.Alerts.AlertmanagerURLs {
		// The address is not repeated: a password may stand in it.
		if !httpAddress(address) {
			wrong("ALERTS_ALERTMANAGER_URLS", "[set]", "addresses such as http://alertmanager:9093, separated by commas, user name and password apart")
		}
	}
	if address := string(c.Alerts.WebhookURL); address != "" && !httpAddress(address) {
		wrong("ALERTS_WEBHOOK_URL", c.Alerts.WebhookURL, "an address such as https://alerts.example.org/incidents, without user name and password")
	}
	if c.Alerts.PageURL != "" && !httpAddress(c.Alerts.PageURL) {
		wrong("ALERTS_PAGE_URL", c.Alerts.PageURL, "the address under which people reach the page, such as https://signindiag.example.org")
	}
	if c.Alerts.AlertmanagerToken != "" && c.Alerts.AlertmanagerUsername != "" {
		errs = append(errs, fmt.Errorf("  %sALERTS_ALERTMANAGER_TOKEN and _USERNAME: expected one of them", envPrefix))
	}
	switch c.Alerts.MinSeverity {
	case detectors.SeverityInfo, detectors.SeverityLow, detectors.SeverityMedium, detectors.SeverityHigh, detectors.SeverityCritical:
	default:
		wrong("ALERTS_MIN_SEVERITY", c.Alerts.MinSeverity, "info, low, medium, high or critical")
	}
	for _, d := range []struct {
		name          string
		value         time.Duration
		least, most   time.Duration
		expectedRange string
	}{
		{"ALERTS_MAX_AGE", c.Alerts.MaxAge, time.Minute, sinks.MaxAlertAge, "1m to 168h"},
		{"ALERTS_QUIET", c.Alerts.Quiet, time.Minute, sinks.MaxAlertAge, "1m to 168h"},
		{"ALERTS_INTERVAL", c.Alerts.Interval, time.Second, time.Hour, "1s to 1h"},
		{"ALERTS_RESEND", c.Alerts.Resend, 10 * time.Second, time.Hour, "10s to 1h"},
	} {
		if d.value < d.least || d.value > d.most {
			wrong(d.name, d.value, d.expectedRange)
		}
	}
	return errors.Join(errs...)
}

// httpAddress reports whether s is the address of an HTTP server without a user name and a password in it.
func httpAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

// identifier reports whether s can stand unquoted as a ClickHouse identifier.
func identifier(s string) bool {
	for i, r := range s {
		switch {
		case r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		case r >= '0' && r <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// needServers tells which addresses are missing for a command that works on external servers.
func (c *config) needServers(kafka, clickHouse bool) error {
	var errs []error
	if kafka && len(c.Kafka.Brokers) == 0 {
		errs = append(errs, errors.New("SIGNINDIAG_KAFKA_BROKERS is not set: expected host:port of the Kafka brokers (for a system on this machine alone use `signindiag up`)"))
	}
	if clickHouse && len(c.ClickHouse.Addresses) == 0 {
		errs = append(errs, errors.New("SIGNINDIAG_CLICKHOUSE_ADDRESSES is not set: expected host:port of ClickHouse's native protocol (for a system on this machine alone use `signindiag up`)"))
	}
	return errors.Join(errs...)
}

// viewer returns who may see what.
func (c *httpConfig) viewer() (lookup.StaticViewer, error) {
	anonymous, err := lookup.ParseCapabilities(c.Capabilities)
	if err != nil {
		return lookup.StaticViewer{}, fmt.Errorf("%sHTTP_CAPABILITIES: %w", envPrefix, err)
	}
	tokens, err := lookup.ParseTokens(string(c.Tokens))
	if err != nil {
		return lookup.StaticViewer{}, fmt.Errorf("%sHTTP_TOKENS: %w", envPrefix, err)
	}
	return lookup.StaticViewer{Anonymous: anonymous, Tokens: tokens}, nil
}

func (c *logConfig) level() (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(c.Level))
	return l, err
}
