package sinks

import (
	"context"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
)

// What the tests of package sinks_test need from inside.

// MigrateTo stops after a step.
func MigrateTo(ctx context.Context, conn driver.Conn, o chschema.Options, version uint32) (Migrated, error) {
	return migrate(ctx, conn, o, version)
}

// Classify returns the class and the code of an error.
func Classify(err error) (string, int) {
	c, code := classify(err)
	return c.String(), code
}

// ExplainConnect is what becomes of the error of a connection attempt.
func ExplainConnect(err error, s Server, address string) error {
	return explainConnect(err, s, address)
}

// MondayOf returns the first day of the week of a time in microseconds, as in the names of partitions.
func MondayOf(microseconds int64) string { return dayName(weekOf(microseconds)) }

// CompressionFor is what a sink asks for at an address when it is not told otherwise.
func CompressionFor(address string) ch.Compression { return compressionFor(address) }

// Compress makes the sink compress whatever the address. Only before Run.
func (s *Sink) Compress(c ch.Compression) {
	s.writer.compression = func(string) ch.Compression { return c }
}

// Insert is one INSERT as the connection sees it.
type Insert struct {
	Table, Token string
	Rows         int
}

// Interpose makes the sink's INSERTs go through f, which gets the INSERT and a function that really sends
// it. Only before Run.
func (s *Sink) Interpose(f func(i Insert, send func() error) error) {
	dial := s.writer.dial
	s.writer.dial = func(ctx context.Context, address string) (connection, error) {
		conn, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		return interposed{conn, f}, nil
	}
}

type interposed struct {
	connection
	f func(i Insert, send func() error) error
}

func (c interposed) Do(ctx context.Context, q ch.Query) error {
	if len(q.Input) == 0 {
		return c.connection.Do(ctx, q)
	}
	i := Insert{Table: insertTable(q.Body), Rows: q.Input[0].Data.Rows()}
	for _, s := range q.Settings {
		if s.Key == "insert_deduplication_token" {
			i.Token = s.Value
		}
	}
	return c.f(i, func() error { return c.connection.Do(ctx, q) })
}

// insertTable takes the table out of INSERT INTO `database`.`table` (...
func insertTable(body string) string {
	var dot, end int
	for i := range len(body) {
		if body[i] == '.' && dot == 0 {
			dot = i
		}
		if dot != 0 && body[i] == '(' {
			end = i
			break
		}
	}
	return body[dot+2 : end-2]
}

// Discard throws away what is written and not yet inserted.
func (s *Sink) Discard() {
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	s.writer.filling.reset()
}

// RowSQL is the expression that verify hashes a row of a relation with.
func RowSQL(r Relation) string {
	return relations[r].columnsOf().hashSQL(relations[r].rowColumns(), false)
}

// RecordSQL is the same of a table of records by source.
func RecordSQL(table string) string {
	r := recordRelationOf(table)
	c := r.make()
	return c.hashSQL(r.rowColumns(c), false)
}
