package sinks

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
)

// Migrated says what Migrate did.
type Migrated struct {
	// From is the version that the database had, 0 for none; To is the newest that this program knows. From is
	// above To when a newer program made the tables: they only ever gain columns, so this one can use them.
	From, To uint32
	// Applied names the steps that were applied, for example "0001_diagnoses.sql".
	Applied []string
	// Retention names the tables whose retention was changed.
	Retention []string
}

// Migrate brings the database to the newest version: it makes the database and what is missing of its tables,
// and sets the retention of existing ones as configured. It may be repeated, cut short and run by several
// processes at once. The connection's session database does not matter; one from OpenWithoutDatabase works
// before the database exists. Every error names the step and the statement.
func Migrate(ctx context.Context, conn driver.Conn, o chschema.Options) (Migrated, error) {
	return migrate(ctx, conn, o, 0)
}

// migrate stops after the step upTo, unless that is 0.
func migrate(ctx context.Context, conn driver.Conn, o chschema.Options, upTo uint32) (Migrated, error) {
	var m Migrated
	bootstrap, err := chschema.Bootstrap(o)
	if err != nil {
		return m, err
	}
	steps, err := chschema.Migrations(o)
	if err != nil {
		return m, err
	}
	for _, statement := range bootstrap {
		if err := execute(ctx, conn, "bootstrap", statement); err != nil {
			return m, err
		}
	}
	versions := chschema.QualifiedName(o.Database, "schema_version")
	if err := conn.QueryRow(ctx, "SELECT max(version) FROM "+versions).Scan(&m.From); err != nil {
		return m, fmt.Errorf("read the version of database %s: %w", o.Database, err)
	}
	m.To = steps[len(steps)-1].Version
	for _, step := range steps {
		if step.Version <= m.From || upTo != 0 && step.Version > upTo {
			continue
		}
		for _, statement := range step.Statements {
			if err := execute(ctx, conn, step.Name, statement); err != nil {
				return m, err
			}
		}
		if err := conn.Exec(ctx, "INSERT INTO "+versions+" (version, name) VALUES (?, ?)", step.Version, step.Name); err != nil {
			return m, fmt.Errorf("migrate database %s: record step %s: %w", o.Database, step.Name, err)
		}
		m.Applied = append(m.Applied, step.Name)
	}
	m.Retention, err = setRetention(ctx, conn, o)
	return m, err
}

func execute(ctx context.Context, conn driver.Conn, step, statement string) error {
	if err := conn.Exec(ctx, statement); err != nil {
		first, _, _ := strings.Cut(statement, "\n")
		return fmt.Errorf("migrate, step %s: %s: %w", step, first, err)
	}
	return nil
}

// ttlClause finds the retention in what ClickHouse tells of a table's engine.
var ttlClause = regexp.MustCompile(` TTL (.*?) SETTINGS `)

// setRetention changes the retention of tables where it is not as configured.
func setRetention(ctx context.Context, conn driver.Conn, o chschema.Options) (changed []string, err error) {
	rows, err := conn.Query(ctx, "SELECT name, engine_full FROM system.tables WHERE database = ?", o.Database)
	if err != nil {
		return nil, fmt.Errorf("read the retention of the tables of %s: %w", o.Database, err)
	}
	engines := make(map[string]string)
	for rows.Next() {
		var name, engine string
		if err := rows.Scan(&name, &engine); err != nil {
			_ = rows.Close()
			return nil, fmt.Errorf("read the retention of the tables of %s: %w", o.Database, err)
		}
		engines[name] = engine
	}
	if err := rows.Close(); err != nil {
		return nil, fmt.Errorf("read the retention of the tables of %s: %w", o.Database, err)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the retention of the tables of %s: %w", o.Database, err)
	}
	for _, table := range chschema.RetainedTables() {
		engine, ok := engines[table]
		if !ok {
			continue
		}
		have, want := "", chschema.TTL(o, table)
		if m := ttlClause.FindStringSubmatch(engine); m != nil {
			have = m[1]
		}
		if have == want {
			continue
		}
		statement := "ALTER TABLE " + chschema.QualifiedName(o.Database, table) + chschema.OnCluster(o)
		if want == "" {
			statement += " REMOVE TTL"
		} else {
			statement += " MODIFY TTL " + want
		}
		if err := execute(ctx, conn, "retention", statement); err != nil {
			return changed, err
		}
		changed = append(changed, table)
	}
	return changed, nil
}

// ReadProgress returns the newest position of every shard of an entities topic, by shard. It is empty when
// none was ever written.
func ReadProgress(ctx context.Context, conn driver.Conn, database, topic string) (map[uint16]Position, error) {
	if database == "" {
		database = DefaultDatabase
	}
	table := chschema.QualifiedName(database, "progress")
	rows, err := conn.Query(ctx, "SELECT shard, epoch, offset, hash, incarnation, fingerprint FROM "+table+" FINAL WHERE topic = ?", topic)
	if err != nil {
		return nil, fmt.Errorf("read progress of topic %s from %s: %w", topic, table, err)
	}
	positions := make(map[uint16]Position)
	for rows.Next() {
		var p Position
		if err := rows.Scan(&p.Shard, &p.Epoch, &p.Offset, &p.Hash, &p.Incarnation, &p.Fingerprint); err != nil {
			_ = rows.Close()
			return nil, fmt.Errorf("read progress of topic %s from %s: %w", topic, table, err)
		}
		positions[p.Shard] = p
	}
	if err := rows.Close(); err != nil {
		return nil, fmt.Errorf("read progress of topic %s from %s: %w", topic, table, err)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read progress of topic %s from %s: %w", topic, table, err)
	}
	return positions, nil
}

// HighestOtherEpoch returns the highest epoch of which shards of other entities topics have stored rows, 0 where there are none.
// Rows of a topic that takes over from another one need a higher epoch to win.
func HighestOtherEpoch(ctx context.Context, conn driver.Conn, database, topic string) (epoch uint16, err error) {
	if database == "" {
		database = DefaultDatabase
	}
	table := chschema.QualifiedName(database, "progress")
	if err := conn.QueryRow(ctx, "SELECT max(epoch) FROM "+table+" WHERE topic != ?", topic).Scan(&epoch); err != nil {
		return 0, fmt.Errorf("read the epochs of other topics than %s from %s: %w", topic, table, err)
	}
	return epoch, nil
}
