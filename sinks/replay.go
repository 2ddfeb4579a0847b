package sinks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
)

// Replayed is a record of quarantine that was sent again.
type Replayed struct {
	Source Source
	Stage  string
	// Target is the topic that it was sent to, or the table that its row was put into.
	Target string
}

// durableInsert are the settings of INSERTs that are not made by a writer.
func durableInsert(ctx context.Context, s Server) context.Context {
	settings := clickhouse.Settings{"async_insert": 0}
	if s.Cluster != "" {
		settings["insert_quorum"] = "auto"
	}
	return clickhouse.Context(ctx, clickhouse.WithSettings(settings))
}

// MarkReplayed notes in quarantine_replays that records were sent again. It returns when ClickHouse has the marks on disk.
func MarkReplayed(ctx context.Context, conn driver.Conn, s Server, replayed []Replayed, now time.Time) error {
	s = s.withDefaults()
	if len(replayed) == 0 {
		return nil
	}
	batch, err := conn.PrepareBatch(durableInsert(ctx, s), "INSERT INTO "+chschema.QualifiedName(s.Database, "quarantine_replays")+
		" (source_topic, source_incarnation, source_partition, source_offset, source_index, stage, replayed_time, target)")
	if err != nil {
		return fmt.Errorf("mark %d records as replayed: %w", len(replayed), err)
	}
	defer batch.Close()
	for _, r := range replayed {
		if err := batch.Append(r.Source.Topic, r.Source.Incarnation, r.Source.Partition, r.Source.Offset, r.Source.Index, r.Stage, now, r.Target); err != nil {
			return fmt.Errorf("mark %d records as replayed: %w", len(replayed), err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("mark %d records as replayed: %w", len(replayed), err)
	}
	return nil
}

// RefusedTable returns the table whose refused rows the stage names, and whether InsertRefused can put them into it.
func RefusedTable(stage string) (table string, ok bool) {
	table, ok = strings.CutPrefix(stage, StageSink)
	switch table {
	case "diagnoses", "incidents", "incident_members":
		return table, ok
	}
	return table, false
}

// InsertRefused puts a row that ClickHouse refused into its table once more; row is what quarantine has of it. It has the key and
// the revision that it had, so a newer revision that came meanwhile stays the one that is read. The error tells why the row is
// refused again.
func InsertRefused(ctx context.Context, conn driver.Conn, s Server, table string, row []byte) error {
	s = s.withDefaults()
	if _, ok := RefusedTable(StageSink + table); !ok {
		return fmt.Errorf("put a row into %s: expected diagnoses, incidents or incident_members", table)
	}
	columns, err := conn.Query(ctx, "SELECT name, type FROM system.columns WHERE database = ? AND table = ? AND default_kind = '' ORDER BY position", s.Database, table)
	if err != nil {
		return fmt.Errorf("read the columns of %s: %w", table, err)
	}
	defer columns.Close()
	var names, values, structure []string
	for columns.Next() {
		var name, kind string
		if err := columns.Scan(&name, &kind); err != nil {
			return fmt.Errorf("read the columns of %s: %w", table, err)
		}
		value := "`" + name + "`"
		// Times stand in the row as numbers: microseconds, and milliseconds where the column has those.
		switch {
		case strings.HasPrefix(kind, "DateTime64(6"):
			value, kind = "fromUnixTimestamp64Micro("+value+", 'UTC')", "Int64"
		case strings.HasPrefix(kind, "DateTime64(3"):
			value, kind = "fromUnixTimestamp64Milli("+value+", 'UTC')", "Int64"
		}
		names, values, structure = append(names, "`"+name+"`"), append(values, value), append(structure, "`"+name+"` "+kind)
	}
	if err := columns.Err(); err != nil {
		return fmt.Errorf("read the columns of %s: %w", table, err)
	}
	if len(names) == 0 {
		return fmt.Errorf("table %s.%s is not there: run signindiag migrate", s.Database, table)
	}
	// The row travels as a parameter and never becomes part of the text.
	text := "INSERT INTO " + chschema.QualifiedName(s.Database, table) + " (" + strings.Join(names, ", ") + ") SELECT " + strings.Join(values, ", ") +
		" FROM format(JSONEachRow, '" + strings.ReplaceAll(strings.ReplaceAll(strings.Join(structure, ", "), `\`, `\\`), "'", `\'`) + "', {row:String})"
	if err := conn.Exec(durableInsert(ctx, s), text, clickhouse.Named("row", string(row))); err != nil {
		return fmt.Errorf("put the row into %s once more: %w", table, firstLine(err))
	}
	return nil
}

// firstLine keeps the server's reason and leaves out the query and the stack that follow it.
func firstLine(err error) error {
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		message, _, _ := strings.Cut(exception.Message, "\n")
		if len(message) > maxErrorText {
			message = message[:maxErrorText] + " ..."
		}
		return fmt.Errorf("ClickHouse refuses it (code %d): %s", exception.Code, message)
	}
	return err
}

// ReadPassedOver returns the offsets of messages that the shards of an entities topic pass over, by shard: those on which the
// code, settings and catalogue with the fingerprint have failed.
func ReadPassedOver(ctx context.Context, conn driver.Conn, database, topic string, incarnation uint32, fingerprint uint64) (map[uint16][]int64, error) {
	if database == "" {
		database = DefaultDatabase
	}
	rows, err := conn.Query(ctx, "SELECT DISTINCT source_partition, source_offset FROM "+chschema.QualifiedName(database, "quarantine")+
		" WHERE source_topic = ? AND source_incarnation = ? AND stage = ? AND reason = ? AND fingerprint = ? ORDER BY source_partition, source_offset",
		topic, incarnation, StageEntities, ReasonPanic, fingerprint)
	if err != nil {
		return nil, fmt.Errorf("read which messages of %s are passed over: %w", topic, err)
	}
	defer rows.Close()
	offsets := map[uint16][]int64{}
	for rows.Next() {
		var shard int32
		var offset int64
		if err := rows.Scan(&shard, &offset); err != nil {
			return nil, fmt.Errorf("read which messages of %s are passed over: %w", topic, err)
		}
		offsets[uint16(shard)] = append(offsets[uint16(shard)], offset)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read which messages of %s are passed over: %w", topic, err)
	}
	return offsets, nil
}
