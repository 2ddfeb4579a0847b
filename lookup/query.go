package lookup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// Bounds of one query. A look-up reads a few granules and takes some 10 ms; the bounds are there for a
// search without a key over a large retention, which must neither occupy the server nor this process.
const (
	// queryTimeout bounds a query on the server (max_execution_time); the same and a second more here.
	queryTimeout = 10 * time.Second
	// queryMemory bounds a query's memory on the server, bytes.
	queryMemory = 2 << 30
	// queryResultRows bounds what a query may return: the largest page, its raw records and some more.
	queryResultRows = 10_000
	// queryResultBytes bounds the same in bytes: raw records are some 8 KB each, and at most 5 MB.
	queryResultBytes = 64 << 20
)

// Codes of ClickHouse that mean that a query met one of its bounds (src/Common/ErrorCodes.cpp).
const (
	codeTooManyRows         = 158
	codeTimeoutExceeded     = 159
	codeTooSlow             = 160
	codeMemoryLimitExceeded = 241
	codeTooManyRowsOrBytes  = 396
)

// ErrTooExpensive means that a query met its bounds of time, memory or rows. Narrowing it helps.
var ErrTooExpensive = errors.New("the search takes too long: narrow it by a user or by a time (around)")

// readSettings make a query read-only and bounded. readonly is 2, since 1 would refuse the other
// settings of the same query.
func readSettings() clickhouse.Settings {
	return clickhouse.Settings{
		"readonly":              2,
		"max_execution_time":    int(queryTimeout / time.Second),
		"timeout_overflow_mode": "throw",
		"max_memory_usage":      queryMemory,
		"max_result_rows":       queryResultRows,
		"max_result_bytes":      queryResultBytes,
		"result_overflow_mode":  "throw",
		// Revisions of one row lie in one partition, but FINAL is to merge whatever it meets.
		"do_not_merge_across_partitions_select_final": 0,
	}
}

// parameter is a value that goes to the server beside the text of the query, as {name:Type}.
type parameter = driver.NamedValue

func named(name string, value any) parameter { return clickhouse.Named(name, value) }

// micros makes a DateTime64(6) parameter as microseconds since the Unix epoch; the query converts it by
// fromUnixTimestamp64Micro.
func micros(name string, t time.Time) parameter { return named(name, t.UnixMicro()) }

// query runs one bounded, read-only query and calls scan for every row. The text is a constant with
// parameters; values never become part of it. what says what is asked, for errors.
func (s *Store) query(ctx context.Context, what, text string, parameters []parameter, scan func(driver.Rows) error) error {
	arguments := make([]any, len(parameters))
	for i, p := range parameters {
		arguments[i] = p
	}
	return s.queryAny(ctx, what, text, arguments, scan)
}

// queryAny is query with its parameters as the driver takes them.
func (s *Store) queryAny(ctx context.Context, what, text string, arguments []any, scan func(driver.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout+time.Second)
	defer cancel()
	rows, err := s.conn.Query(clickhouse.Context(ctx, clickhouse.WithSettings(readSettings())), text, arguments...)
	if err != nil {
		return queryError(what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("%s: read a row of ClickHouse: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return queryError(what, err)
	}
	return nil
}

func queryError(what string, err error) error {
	var exception *proto.Exception
	if errors.As(err, &exception) {
		switch exception.Code {
		case codeTooManyRows, codeTimeoutExceeded, codeTooSlow, codeMemoryLimitExceeded, codeTooManyRowsOrBytes:
			return fmt.Errorf("%s: %w", what, ErrTooExpensive)
		}
		// Only the first line: the rest repeats the query and the server's stack.
		message, _, _ := strings.Cut(exception.Message, "\n")
		return fmt.Errorf("%s: ClickHouse refused the query (code %d): %s", what, exception.Code, message)
	}
	return fmt.Errorf("%s: ask ClickHouse: %w", what, err)
}
