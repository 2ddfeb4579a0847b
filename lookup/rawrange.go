package lookup

import (
	"context"
	"fmt"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
)

// Bounds of reading many raw records. The server sorts what does not fit into rawSortMemory on its disk.
const (
	rawSortMemory = 256 << 20
	// rawBlockRows is how many records come at once: some 8 MB.
	rawBlockRows = 1024
)

// RawRange says what is stored of a span of event time, rows counted approximately.
type RawRange struct {
	// Records are those kept as received, Diagnosed those that have a diagnosis.
	Records, Diagnosed uint64
}

// RawRange counts what is stored of sign-ins from a time until before another.
func (s *Store) RawRange(ctx context.Context, from, to time.Time) (r RawRange, err error) {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(rangeSettings()))
	for table, count := range map[string]*uint64{"raw_records": &r.Records, "diagnoses": &r.Diagnosed} {
		row := s.conn.QueryRow(ctx, `SELECT uniq(request_id, tenant_id) FROM `+table+`
			WHERE event_time >= fromUnixTimestamp64Micro({from:Int64}) AND event_time < fromUnixTimestamp64Micro({to:Int64})`,
			micros("from", from), micros("to", to))
		if err := row.Scan(count); err != nil {
			return r, queryError("count the records of "+table, err)
		}
	}
	return r, nil
}

// EachRaw calls each with every record as received whose sign-in was from a time until before another, in the order of event time;
// copies of a record come one after another. It reads in a stream: neither the server nor this process holds the span in memory. The
// caller must have made sure that the viewer may see raw records. record is valid during the call only.
func (s *Store) EachRaw(ctx context.Context, from, to time.Time, each func(record []byte, eventTime time.Time) error) error {
	const what = "read the records as received"
	// No record is received a day before its sign-in: clocks differ by minutes. That leaves out older partitions.
	rows, err := s.conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(rangeSettings())), `
		SELECT raw, event_time FROM raw_records
		WHERE event_time >= fromUnixTimestamp64Micro({from:Int64}) AND event_time < fromUnixTimestamp64Micro({to:Int64})
			AND toDate(received_time) >= toDate(fromUnixTimestamp64Micro({received:Int64}))
		ORDER BY event_time, request_id, tenant_id, received_time, source_topic, source_incarnation, source_partition, source_offset, source_index`,
		micros("from", from), micros("to", to), micros("received", from.Add(-24*time.Hour)))
	if err != nil {
		return queryError(what, err)
	}
	defer rows.Close()
	var record string
	var eventTime time.Time
	for rows.Next() {
		if err := rows.Scan(&record, &eventTime); err != nil {
			return fmt.Errorf("%s: read a row of ClickHouse: %w", what, err)
		}
		if err := each([]byte(record), eventTime); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return queryError(what, err)
	}
	return nil
}

// rangeSettings make a query over a long span read-only and bounded in memory. It may take its time, which is the caller's context's.
func rangeSettings() clickhouse.Settings {
	return clickhouse.Settings{
		"readonly":                       2,
		"max_execution_time":             0,
		"max_memory_usage":               queryMemory,
		"max_bytes_before_external_sort": rawSortMemory,
		"max_block_size":                 rawBlockRows,
		"max_threads":                    2,
	}
}
