// Package clickhouse holds the ClickHouse tables of signindiag: numbered, idempotent SQL that is rendered
// for one server or for a cluster. It imports no driver; package sinks applies it.
package clickhouse

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"text/template"
)

//go:embed *.sql
var files embed.FS

// Retention is how many days rows are kept, counted from the time that the table is partitioned by. Zero
// keeps them for ever.
type Retention struct {
	// Diagnoses covers diagnoses, diagnoses_by_user, request_ids and the members of incidents, by event time.
	Diagnoses int
	// Incidents counts from last_seen.
	Incidents int
	// Quarantine counts from the time at which a record was put there, or was replayed.
	Quarantine int
	// RawRecords counts from the Kafka time of the raw message.
	RawRecords int
}

// Options say how the tables are rendered.
type Options struct {
	// Database holds the tables; it is made when absent.
	Database string
	// Cluster names a cluster of the server's remote_servers. When set, statements run ON CLUSTER and tables
	// are Replicated: one shard of any number of replicas, with the macros {shard} and {replica}.
	Cluster string
	// Retention in days per kind of table.
	Retention Retention
}

// Migration is one numbered step, rendered.
type Migration struct {
	Version    uint32
	Name       string // the file name, for example "0001_diagnoses.sql"
	Statements []string
}

// retained says for every table with a retention which column it counts from.
var retained = map[string]struct {
	column string
	days   func(Retention) int
}{
	"diagnoses":                    {"event_time", func(r Retention) int { return r.Diagnoses }},
	"diagnoses_by_user":            {"event_time", func(r Retention) int { return r.Diagnoses }},
	"request_ids":                  {"event_time", func(r Retention) int { return r.Diagnoses }},
	"incident_members":             {"event_time", func(r Retention) int { return r.Diagnoses }},
	"incident_members_by_incident": {"event_time", func(r Retention) int { return r.Diagnoses }},
	"incidents":                    {"last_seen", func(r Retention) int { return r.Incidents }},
	"quarantine":                   {"quarantined_time", func(r Retention) int { return r.Quarantine }},
	"quarantine_replays":           {"replayed_time", func(r Retention) int { return r.Quarantine }},
	"raw_records":                  {"received_time", func(r Retention) int { return r.RawRecords }},
	"alert_deliveries":             {"sent", func(Retention) int { return deliveryDays }},
}

// deliveryDays is how long it is kept what receivers of alerts were told. It must outlast the age up to which incidents are
// sent and the quiet time after which they end, both at most a week.
const deliveryDays = 30

// maxRetentionDays keeps the end of a row's life within the range of Date (it ends in 2149, rows in 2099).
const maxRetentionDays = 36500

var fileName = regexp.MustCompile(`^([0-9]{4})_[a-z_]+\.sql$`)

// identifier is what the rendered SQL puts between backquotes or quotes; anything else is refused rather
// than escaped, since the same name also stands in ZooKeeper paths.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// Validate reports the first option that cannot be rendered.
func (o Options) Validate() error {
	if !identifier.MatchString(o.Database) {
		return fmt.Errorf("ClickHouse database name %q: expected letters, digits, '_', '-' and '.', beginning with a letter or '_'", o.Database)
	}
	if o.Cluster != "" && !identifier.MatchString(o.Cluster) && o.Cluster != "{cluster}" {
		return fmt.Errorf("ClickHouse cluster name %q: expected letters, digits, '_', '-' and '.', or the macro {cluster}", o.Cluster)
	}
	for table, r := range retained {
		if d := r.days(o.Retention); d < 0 || d > maxRetentionDays {
			return fmt.Errorf("retention of table %s: %d days, expected 1 to %d, or 0 for none", table, d, maxRetentionDays)
		}
	}
	return nil
}

// Bootstrap returns the statements that make the database and the table schema_version, which records the
// steps that were applied. They come before any Migration and change nothing when repeated.
func Bootstrap(o Options) ([]string, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := renderer{o}
	return []string{
		"CREATE DATABASE IF NOT EXISTS " + quote(o.Database) + r.OnCluster(),
		"CREATE TABLE IF NOT EXISTS " + r.Table("schema_version") + r.OnCluster() +
			"\n(\n    version UInt32,\n    name    String,\n    applied DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')\n)\n" +
			"ENGINE = " + r.Replacing("schema_version", "applied") + "\nORDER BY version\nSETTINGS " + r.Settings(),
	}, nil
}

// Migrations returns all steps in ascending order, rendered with o. Every statement is idempotent, so that
// a step that was cut short is simply repeated.
func Migrations(o Options) ([]Migration, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list embedded migrations: %w", err)
	}
	sort.Strings(names)
	var out []Migration
	for i, name := range names {
		m := fileName.FindStringSubmatch(path.Base(name))
		if m == nil {
			return nil, fmt.Errorf("embedded migration %s: expected a name such as 0001_diagnoses.sql", name)
		}
		version, err := strconv.ParseUint(m[1], 10, 32)
		if err != nil || version != uint64(i+1) {
			return nil, fmt.Errorf("embedded migration %s: expected number %04d", name, i+1)
		}
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read embedded migration %s: %w", name, err)
		}
		t, err := template.New(name).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("parse embedded migration: %w", err)
		}
		var b strings.Builder
		if err := t.Execute(&b, renderer{o}); err != nil {
			return nil, fmt.Errorf("render embedded migration: %w", err)
		}
		out = append(out, Migration{Version: uint32(version), Name: name, Statements: split(b.String())})
	}
	return out, nil
}

// TTL returns the retention expression of a table under o, "" when it keeps rows for ever or has none.
func TTL(o Options, table string) string {
	r, ok := retained[table]
	if !ok || r.days(o.Retention) == 0 {
		return ""
	}
	return fmt.Sprintf("toDate(%s) + toIntervalDay(%d)", r.column, r.days(o.Retention))
}

// RetainedTables returns the names of the tables that have a retention, sorted.
func RetainedTables() []string {
	names := make([]string, 0, len(retained))
	for name := range retained {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// QualifiedName returns `database`.`table`, quoted for SQL.
func QualifiedName(database, table string) string { return quote(database) + "." + quote(table) }

// OnCluster returns the clause " ON CLUSTER 'name'", or "" without a cluster.
func OnCluster(o Options) string { return renderer{o}.OnCluster() }

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// renderer is what the templates call.
type renderer struct{ o Options }

// Table returns the qualified name of a table.
func (r renderer) Table(name string) string { return QualifiedName(r.o.Database, name) }

// OnCluster returns the ON CLUSTER clause with a leading blank.
func (r renderer) OnCluster() string {
	if r.o.Cluster == "" {
		return ""
	}
	return " ON CLUSTER '" + r.o.Cluster + "'"
}

// Replacing returns the engine ReplacingMergeTree, by the given version column or by order of insertion
// when that is empty.
func (r renderer) Replacing(table, version string) string {
	if r.o.Cluster == "" {
		return "ReplacingMergeTree(" + version + ")"
	}
	args := "'/clickhouse/tables/{shard}/" + r.o.Database + "/" + table + "', '{replica}'"
	if version != "" {
		args += ", " + version
	}
	return "ReplicatedReplacingMergeTree(" + args + ")"
}

// madeWith names the column that a table's retention counted from when the table was made, where that is another one than now.
var madeWith = map[string]string{"quarantine": "received_time"}

// TTL returns the TTL clause with which a table is made, or an SQL comment that says that there is none.
func (r renderer) TTL(table string) string {
	if e := TTL(r.o, table); e != "" {
		if column := madeWith[table]; column != "" {
			e = strings.Replace(e, retained[table].column, column, 1)
		}
		return "TTL " + e
	}
	return "-- no TTL: rows are kept"
}

// ModifyTTL returns the statement that gives a table its present retention, or an SQL comment where it has none.
func (r renderer) ModifyTTL(table string) string {
	if e := TTL(r.o, table); e != "" {
		return "ALTER TABLE " + r.Table(table) + r.OnCluster() + " MODIFY TTL " + e + ";"
	}
	return "-- no TTL: rows are kept"
}

// Settings returns the settings that every table needs: a repeated INSERT is recognised by its token for
// the last 10 000 blocks (the default of a plain table is none at all), and an acknowledged INSERT is on
// disk, not only in the page cache.
func (r renderer) Settings() string {
	dedup := "non_replicated_deduplication_window = 10000"
	if r.o.Cluster != "" {
		// A week, since a writer may be cut off for that long before it repeats its last INSERT; the
		// default is an hour.
		dedup = "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"
	}
	return dedup + ", fsync_after_insert = 1, fsync_part_directory = 1"
}

// split cuts a rendered file into its statements, which end with ';' at the end of a line. Lines that are
// only a comment are dropped.
func split(text string) []string {
	var statements []string
	var b strings.Builder
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "--") {
			continue
		}
		if s, ok := strings.CutSuffix(trimmed, ";"); ok {
			b.WriteString(strings.TrimRight(line[:strings.Index(line, trimmed)], "\n") + s)
			statements = append(statements, b.String())
			b.Reset()
			continue
		}
		b.WriteString(strings.TrimRight(line, " \t\r\n") + "\n")
	}
	if rest := strings.TrimSpace(b.String()); rest != "" {
		statements = append(statements, rest)
	}
	return statements
}
