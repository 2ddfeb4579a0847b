package sinks

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/cespare/xxhash/v2"

	"github.com/signindiag/signindiag/detectors"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
)

// What verify compares is hashes of rows. ClickHouse makes a row's text of its columns and hashes it; here the same text is made
// of the same columns that the sinks send (column.appendText and textSQL), so that 32 bytes of a row travel and every column counts.

// Relation is a table whose rows are a function of the entities topic, shard by shard.
type Relation int

// The relations.
const (
	Diagnoses Relation = iota
	DiagnosesByUser
	Incidents
	IncidentMembers
	IncidentMembersByIncident
	Relations // their number
)

// String returns the table's name.
func (r Relation) String() string { return relations[r].table }

// Source returns the table that rows are inserted into; the others are fed by views.
func (r Relation) Source() Relation { return relations[r].source }

// relation says how the rows of a table are made, named and compared.
type relation struct {
	table  string
	source Relation
	// key is what ORDER BY makes one row of. That of diagnoses_by_user folds all letters of the user's name, here only ASCII's:
	// the rest is not the same in two programs.
	key []string
	// without are columns of the source that the table does not have.
	without []string
	// time is the column that the hour and the retention are of; bounded says that it never changes between revisions.
	time    string
	bounded bool
	// name are the columns that name a row to a person.
	name []string
}

var relations = [Relations]relation{
	Diagnoses: {
		table: "diagnoses", source: Diagnoses, key: []string{"correlation_id", "request_id", "tenant_id"}, time: "event_time", bounded: true,
		name: []string{"request_id", "correlation_id"},
	},
	DiagnosesByUser: {
		table: "diagnoses_by_user", source: Diagnoses, key: []string{"tenant_id", "user", "event_time", "request_id"},
		without: []string{"summary", "evidence", "unknown"}, time: "event_time", bounded: true, name: []string{"request_id", "user"},
	},
	Incidents: {
		table: "incidents", source: Incidents, key: []string{"tenant_id", "incident_id"}, time: "last_seen", name: []string{"incident_id", "kind"},
	},
	IncidentMembers: {
		table: "incident_members", source: IncidentMembers, key: []string{"correlation_id", "request_id", "tenant_id", "incident_id"},
		time: "event_time", bounded: true, name: []string{"incident_id", "request_id"},
	},
	IncidentMembersByIncident: {
		table: "incident_members_by_incident", source: IncidentMembers, key: []string{"tenant_id", "incident_id", "event_time", "request_id", "correlation_id"},
		time: "event_time", bounded: true, name: []string{"incident_id", "request_id"},
	},
}

// columnsOf returns the columns of the source.
func (r *relation) columnsOf() *columns {
	switch r.source {
	case Diagnoses:
		return &newDiagnosesTable().columns
	case Incidents:
		return &newIncidentsTable().columns
	default:
		return &newMembersTable().columns
	}
}

// rowColumns are the columns that the row's hash is of: all that the table has.
func (r *relation) rowColumns() []string {
	return slices.DeleteFunc(slices.Clone(r.columnsOf().names), func(n string) bool { return slices.Contains(r.without, n) })
}

// foldedColumn is the one column whose letters are folded in a key.
const foldedColumn = "user"

// hashSQL returns the hash of a row's text, as appendTexts and xxHash64 make it here.
func (c *columns) hashSQL(names []string, fold bool) string {
	var texts []string
	for _, n := range names {
		e := "`" + n + "`"
		if fold && n == foldedColumn {
			e = "lower(" + e + ")"
		}
		texts = append(texts, c.cols[slices.Index(c.names, n)].textSQL(e))
	}
	return "xxHash64(concat(" + strings.Join(texts, ", ") + ", ''))"
}

// indices returns where the columns are.
func (c *columns) indices(names []string) []int {
	var at []int
	for _, n := range names {
		at = append(at, slices.Index(c.names, n))
	}
	return at
}

func (c *columns) appendTexts(dst []byte, row int, at []int, fold bool) []byte {
	for _, i := range at {
		start := len(dst)
		dst = c.cols[i].appendText(dst, row)
		if fold && c.names[i] == foldedColumn {
			for k, b := range dst[start:] {
				if b-'A' < 26 {
					dst[start+k] = b + ('a' - 'A')
				}
			}
		}
	}
	return dst
}

// HashedRow is a row as verify compares it.
type HashedRow struct {
	Key, Hash, Revision uint64
	// Hour is that of the row's time, in hours since the Unix epoch.
	Hour int32
}

const microsPerHour = 60 * 60 * 1e6

// RowHasher makes the rows of a shard as a Sink stores them, and hashes them. It is not safe for concurrent use.
type RowHasher struct {
	renderer SummaryRenderer
	rendered rendered
	block    *rowBlock
	text     []byte
	key, row [Relations][]int
	time     [Relations]int
	// Of the row that each is called with.
	at      *columns
	atRow   int
	atTable Relation
}

// NewRowHasher returns a RowHasher; renderer is as in Config.
func NewRowHasher(renderer SummaryRenderer) *RowHasher {
	h := &RowHasher{renderer: renderer, block: newRowBlock()}
	for i := range Relations {
		r := &relations[i]
		c := r.columnsOf()
		h.key[i], h.row[i], h.time[i] = c.indices(r.key), c.indices(r.rowColumns()), slices.Index(c.names, r.time)
	}
	return h
}

// Hash calls each for every row of every relation that the rows of one message make. rows are not kept.
func (h *RowHasher) Hash(rows *detectors.Rows, pos Position, each func(Relation, HashedRow)) {
	h.rendered.render(rows, h.renderer)
	h.block.put(rows, &h.rendered, pos)
	for _, day := range h.block.diagnoses.days() {
		t := h.block.diagnoses.tables[day]
		h.hash(&t.columns, &t.revision, Diagnoses, each)
	}
	for _, day := range h.block.members.days() {
		t := h.block.members.tables[day]
		h.hash(&t.columns, &t.revision, IncidentMembers, each)
	}
	h.hash(&h.block.incidents.columns, &h.block.incidents.revision, Incidents, each)
	h.block.reset()
}

func (h *RowHasher) hash(c *columns, revisions *uint64Column, source Relation, each func(Relation, HashedRow)) {
	for i := range Relations {
		if relations[i].source != source {
			continue
		}
		for row := range c.n {
			h.text = c.appendTexts(h.text[:0], row, h.key[i], true)
			key := xxhash.Sum64(h.text)
			h.text = c.appendTexts(h.text[:0], row, h.row[i], false)
			h.at, h.atRow, h.atTable = c, row, i
			micros := c.cols[h.time[i]].(*microsecondsColumn).ColInt64[row]
			each(i, HashedRow{Key: key, Hash: xxhash.Sum64(h.text), Revision: revisions.ColUInt64[row], Hour: int32(micros / microsPerHour)})
		}
	}
}

// SourceKey returns the key, in the table that rows are inserted into, of the row that each is called with.
func (h *RowHasher) SourceKey() uint64 {
	return xxhash.Sum64(h.at.appendTexts(nil, h.atRow, h.key[relations[h.atTable].source], true))
}

// Micros returns the time of the row that each is called with, in microseconds since the Unix epoch.
func (h *RowHasher) Micros() int64 {
	return h.at.cols[h.time[h.atTable]].(*microsecondsColumn).ColInt64[h.atRow]
}

// Name names the row that each is called with.
func (h *RowHasher) Name() string {
	var b []byte
	for i, n := range relations[h.atTable].name {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, n...), '=')
		value := h.at.cols[slices.Index(h.at.names, n)].appendText(nil, h.atRow)
		b = append(b, value[slices.Index(value, ':')+1:]...)
	}
	return string(b)
}

// VerifyReader reads what verify compares. It is safe for concurrent use. Errors name what was read and from where.
type VerifyReader struct {
	Conn     driver.Conn
	Database string
}

func (v VerifyReader) table(name string) string {
	if v.Database == "" {
		v.Database = DefaultDatabase
	}
	return chschema.QualifiedName(v.Database, name)
}

// query runs a query and calls scan for every row.
func (v VerifyReader) query(ctx context.Context, what, text string, parameters []any, scan func(driver.Rows) error) error {
	rows, err := v.Conn.Query(ctx, text, parameters...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for rows.Next() {
		if err := scan(rows); err != nil {
			_ = rows.Close()
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := rows.Close(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Rows calls each for every row of a shard that readers see (FINAL), in no order. from and to bound the row's time in
// microseconds since the Unix epoch, [from, to), where it never changes.
func (v VerifyReader) Rows(ctx context.Context, r Relation, shard uint16, from, to int64, each func(HashedRow)) error {
	d := &relations[r]
	c := d.columnsOf()
	text := "SELECT " + c.hashSQL(d.key, true) + ", " + c.hashSQL(d.rowColumns(), false) + ", revision, toInt32(intDiv(toUnixTimestamp64Micro(" + d.time + "), 3600000000))" +
		" FROM " + v.table(d.table) + " FINAL WHERE shard = {shard:UInt16}"
	parameters := []any{clickhouse.Named("shard", shard)}
	if d.bounded {
		text += " AND toUnixTimestamp64Micro(" + d.time + ") >= {from:Int64} AND toUnixTimestamp64Micro(" + d.time + ") < {to:Int64}"
		parameters = append(parameters, clickhouse.Named("from", from), clickhouse.Named("to", to))
	}
	return v.query(ctx, fmt.Sprintf("read the rows of shard %d from %s", shard, v.table(d.table)), text, parameters, func(rows driver.Rows) error {
		var h HashedRow
		err := rows.Scan(&h.Key, &h.Hash, &h.Revision, &h.Hour)
		each(h)
		return err
	})
}

// Bounded reports whether a row's time never changes, so that Rows bounds it.
func (r Relation) Bounded() bool { return relations[r].bounded }

// maxKeys bounds the keys of one query.
const maxKeys = 5000

// Keys calls each for every row with one of the keys, whatever its shard, with what names it to a person.
func (v VerifyReader) Keys(ctx context.Context, r Relation, keys []uint64, each func(row HashedRow, shard uint16, name string)) error {
	d := &relations[r]
	c := d.columnsOf()
	key := c.hashSQL(d.key, true)
	var name []string
	for i, n := range d.name {
		blank := ""
		if i > 0 {
			blank = " "
		}
		name = append(name, "'"+blank+n+"='", "toString(`"+n+"`)")
	}
	for part := range slices.Chunk(keys, maxKeys) {
		err := v.query(ctx, "read rows of "+v.table(d.table)+" by key",
			"SELECT "+key+" AS k, "+c.hashSQL(d.rowColumns(), false)+", revision, toInt32(intDiv(toUnixTimestamp64Micro("+d.time+"), 3600000000)), shard, concat("+strings.Join(name, ", ")+
				") FROM "+v.table(d.table)+" FINAL WHERE k IN ("+numbers(part)+")", nil, func(rows driver.Rows) error {
				var h HashedRow
				var shard uint16
				var name string
				if err := rows.Scan(&h.Key, &h.Hash, &h.Revision, &h.Hour, &shard, &name); err != nil {
					return err
				}
				each(h, shard, name)
				return nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// Stray calls each for the shards from the given one on that have rows, with their number.
func (v VerifyReader) Stray(ctx context.Context, r Relation, shards uint16, each func(shard uint16, rows uint64)) error {
	return v.query(ctx, "look for rows of other shards in "+v.table(r.String()), "SELECT shard, count() FROM "+v.table(r.String())+" FINAL WHERE shard >= {shards:UInt16} GROUP BY shard ORDER BY shard",
		[]any{clickhouse.Named("shards", shards)}, func(rows driver.Rows) error {
			var shard uint16
			var n uint64
			if err := rows.Scan(&shard, &n); err != nil {
				return err
			}
			each(shard, n)
			return nil
		})
}

func numbers(keys []uint64) string {
	var b []byte
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, k, 10)
	}
	return string(b)
}

// requestIDHash is the hash of a row of request_ids, and the same of its row in diagnoses.
func requestIDHash() string {
	c := &newDiagnosesTable().columns
	return c.hashSQL([]string{"request_id", "tenant_id", "correlation_id", "event_time"}, false)
}

// RequestIDFolds folds request_ids, or the same columns of diagnoses, by the hour of event time.
func (v VerifyReader) RequestIDFolds(ctx context.Context, table string) (map[int32]Fold, error) {
	folds := map[int32]Fold{}
	err := v.query(ctx, "fold "+v.table(table), "SELECT toInt32(intDiv(toUnixTimestamp64Micro(event_time), 3600000000)) AS hour, count(), groupBitXor("+requestIDHash()+
		") FROM "+v.table(table)+" FINAL GROUP BY hour", nil, func(rows driver.Rows) error {
		var hour int32
		var f Fold
		err := rows.Scan(&hour, &f.Count, &f.XOR)
		folds[hour] = f
		return err
	})
	return folds, err
}

// RequestIDRow is a row of request_ids, or the same columns of a row of diagnoses.
type RequestIDRow struct {
	// Key is that of the row in Diagnoses; Hash is of all columns.
	Key, Hash uint64
	// Shard and Revision are of the row in diagnoses.
	Shard    uint16
	Revision uint64
	Name     string
}

// RequestIDRows calls each for every row of one hour of event time in request_ids or diagnoses.
func (v VerifyReader) RequestIDRows(ctx context.Context, table string, hour int32, each func(RequestIDRow)) error {
	c := &newDiagnosesTable().columns
	more := "toUInt16(0), toUInt64(0)"
	if table == relations[Diagnoses].table {
		more = "shard, revision"
	}
	text := "SELECT " + c.hashSQL(relations[Diagnoses].key, true) + " AS k, " + requestIDHash() + ", " + more + ", concat('request_id=', request_id, ' correlation_id=', correlation_id) FROM " +
		v.table(table) + " FINAL WHERE event_time >= fromUnixTimestamp64Micro({from:Int64}) AND event_time < fromUnixTimestamp64Micro({to:Int64})"
	return v.query(ctx, "read an hour of "+v.table(table), text,
		[]any{clickhouse.Named("from", int64(hour)*microsPerHour), clickhouse.Named("to", int64(hour+1)*microsPerHour)}, func(rows driver.Rows) error {
			var r RequestIDRow
			if err := rows.Scan(&r.Key, &r.Hash, &r.Shard, &r.Revision, &r.Name); err != nil {
				return err
			}
			each(r)
			return nil
		})
}

// Fold is the sum of many records: equal sets of records have equal folds.
type Fold struct{ Count, XOR uint64 }

// Add takes in one record.
func (f *Fold) Add(hash uint64) {
	f.Count++
	f.XOR ^= hash
}

// SourceRange are the offsets [From, To) of a raw partition.
type SourceRange struct {
	Topic       string
	Incarnation uint32
	Partition   int32
	From, To    int64
}

// SourceHour is an hour of receipt of a raw partition, in hours since the Unix epoch.
type SourceHour struct {
	Topic     string
	Partition int32
	Hour      int32
}

// recordRelation is a table of records by source.
type recordRelation struct {
	make func() *columns
	// row are the columns that the hash is of, nil for all. What quarantine says of the error is text that another version may
	// word otherwise; when and by whom a record was set aside is not of the record.
	row []string
}

var (
	quarantineRelation = recordRelation{func() *columns { return &newQuarantineTable().columns },
		[]string{"source_topic", "source_incarnation", "source_partition", "source_offset", "source_index", "stage", "received_time", "bytes", "size"}}
	rawRelation = recordRelation{func() *columns { return &newRawTable().columns }, nil}
)

func (r recordRelation) rowColumns(c *columns) []string {
	if r.row != nil {
		return r.row
	}
	return c.names
}

// RecordHasher hashes records as Quarantine and RawRecords store them. It is not safe for concurrent use.
type RecordHasher struct {
	quarantine    *quarantineTable
	raw           *rawTable
	quarantineRow []int
	rawRow        []int
	text          []byte
}

// NewRecordHasher returns a RecordHasher.
func NewRecordHasher() *RecordHasher {
	h := &RecordHasher{quarantine: newQuarantineTable(), raw: newRawTable()}
	h.quarantineRow = h.quarantine.indices(quarantineRelation.rowColumns(&h.quarantine.columns))
	h.rawRow = h.raw.indices(rawRelation.rowColumns(&h.raw.columns))
	return h
}

// Quarantined returns the hash of a record in quarantine and the hour of its receipt.
func (h *RecordHasher) Quarantined(q *QuarantinedRecord) (hash uint64, hour int32) {
	h.quarantine.put(q, 0)
	h.text = h.quarantine.appendTexts(h.text[:0], 0, h.quarantineRow, false)
	h.quarantine.reset()
	return xxhash.Sum64(h.text), hourOfMillis(q.ReceivedTime)
}

// Raw returns the hash of a record as received and the hour of its receipt.
func (h *RecordHasher) Raw(r *RawRecord) (hash uint64, hour int32) {
	h.raw.put(r)
	h.text = h.raw.appendTexts(h.text[:0], 0, h.rawRow, false)
	h.raw.reset()
	return xxhash.Sum64(h.text), hourOfMillis(r.ReceivedTime)
}

func hourOfMillis(ms int64) int32 { return int32(clampMillis(ms) / (millisPerDay / 24)) }

// Tables of records by source.
const (
	QuarantineTable = quarantineName
	RawRecordsTable = rawRecordsName
)

func recordRelationOf(table string) recordRelation {
	if table == QuarantineTable {
		return quarantineRelation
	}
	return rawRelation
}

// inRanges returns the condition that a row's source lies in one of the ranges.
func inRanges(ranges []SourceRange) string {
	var parts []string
	for _, r := range ranges {
		parts = append(parts, fmt.Sprintf("(source_topic = %s AND source_incarnation = %d AND source_partition = %d AND source_offset >= %d AND source_offset < %d)",
			quoteSQL(r.Topic), r.Incarnation, r.Partition, r.From, r.To))
	}
	if len(parts) == 0 {
		return "0"
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

// quoteSQL quotes a string for SQL.
func quoteSQL(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// SourceFolds folds the rows of quarantine (of one stage) or raw_records whose sources lie in the ranges, from the hour on.
func (v VerifyReader) SourceFolds(ctx context.Context, table, stage string, ranges []SourceRange, from int32) (map[SourceHour]Fold, error) {
	r := recordRelationOf(table)
	c := r.make()
	folds := map[SourceHour]Fold{}
	text := "SELECT toString(source_topic), source_partition, toInt32(intDiv(toUnixTimestamp64Milli(received_time), 3600000)) AS hour, count(), groupBitXor(" + c.hashSQL(r.rowColumns(c), false) +
		") FROM " + v.table(table) + " FINAL WHERE " + inRanges(ranges) + " AND hour >= {from:Int32}" + ofStage(stage) + " GROUP BY source_topic, source_partition, hour"
	err := v.query(ctx, "fold "+v.table(table), text, []any{clickhouse.Named("from", from)}, func(rows driver.Rows) error {
		var k SourceHour
		var f Fold
		err := rows.Scan(&k.Topic, &k.Partition, &k.Hour, &f.Count, &f.XOR)
		folds[k] = f
		return err
	})
	return folds, err
}

func ofStage(stage string) string {
	if stage == "" {
		return ""
	}
	return " AND stage = " + quoteSQL(stage)
}

// SourceRows calls each for the rows of one hour of a raw partition.
func (v VerifyReader) SourceRows(ctx context.Context, table, stage string, in SourceRange, hour int32, each func(offset int64, index uint32, hash uint64)) error {
	r := recordRelationOf(table)
	c := r.make()
	text := "SELECT source_offset, source_index, " + c.hashSQL(r.rowColumns(c), false) + " FROM " + v.table(table) + " FINAL WHERE " + inRanges([]SourceRange{in}) +
		" AND intDiv(toUnixTimestamp64Milli(received_time), 3600000) = {hour:Int32}" + ofStage(stage)
	return v.query(ctx, "read an hour of "+v.table(table), text, []any{clickhouse.Named("hour", hour)}, func(rows driver.Rows) error {
		var offset int64
		var index uint32
		var hash uint64
		if err := rows.Scan(&offset, &index, &hash); err != nil {
			return err
		}
		each(offset, index, hash)
		return nil
	})
}

// Quarantined calls each for the source of every row of quarantine of one stage.
func (v VerifyReader) Quarantined(ctx context.Context, stage, topic string, each func(Source)) error {
	text := "SELECT toString(source_topic), source_incarnation, source_partition, source_offset, source_index FROM " + v.table(QuarantineTable) + " FINAL WHERE stage = " + quoteSQL(stage)
	if topic != "" {
		text += " AND source_topic = " + quoteSQL(topic)
	}
	return v.query(ctx, "read the sources in "+v.table(QuarantineTable), text, nil, func(rows driver.Rows) error {
		var s Source
		if err := rows.Scan(&s.Topic, &s.Incarnation, &s.Partition, &s.Offset, &s.Index); err != nil {
			return err
		}
		each(s)
		return nil
	})
}

// SinkStage is the stage in quarantine of rows that ClickHouse refused for a table.
func SinkStage(table string) string { return StageSink + table }

// Refused calls each for the rows of a shard that ClickHouse refused, by table and offset of the message in the entities topic.
func (v VerifyReader) Refused(ctx context.Context, topic string, shard uint16, each func(table string, offset int64)) error {
	return v.query(ctx, "read refused rows in "+v.table(QuarantineTable), "SELECT toString(stage), source_offset FROM "+v.table(QuarantineTable)+
		" FINAL WHERE source_topic = {topic:String} AND source_partition = {shard:Int32} AND startsWith(stage, '"+StageSink+"')",
		[]any{clickhouse.Named("topic", topic), clickhouse.Named("shard", int32(shard))}, func(rows driver.Rows) error {
			var stage string
			var offset int64
			if err := rows.Scan(&stage, &offset); err != nil {
				return err
			}
			each(strings.TrimPrefix(stage, StageSink), offset)
			return nil
		})
}

// Progress is ReadProgress.
func (v VerifyReader) Progress(ctx context.Context, topic string) (map[uint16]Position, error) {
	return ReadProgress(ctx, v.Conn, v.Database, topic)
}

var ttlDays = regexp.MustCompile(`toIntervalDay\((\d+)\)`)

// KeptFrom returns for every table the first moment of which the server keeps rows now, in microseconds since the Unix epoch: rows
// before it may be gone. Tables without a retention are missing.
func (v VerifyReader) KeptFrom(ctx context.Context) (map[string]int64, error) {
	database := v.Database
	if database == "" {
		database = DefaultDatabase
	}
	kept := map[string]int64{}
	err := v.query(ctx, "read the retention of the tables of "+database, "SELECT name, engine_full, today() FROM system.tables WHERE database = {database:String}",
		[]any{clickhouse.Named("database", database)}, func(rows driver.Rows) error {
			var name, engine string
			var today time.Time
			if err := rows.Scan(&name, &engine, &today); err != nil {
				return err
			}
			m := ttlClause.FindStringSubmatch(engine)
			if m == nil {
				return nil
			}
			days := ttlDays.FindStringSubmatch(m[1])
			if days == nil {
				return fmt.Errorf("table %s has the retention %q, expected a number of days", name, m[1])
			}
			n, err := strconv.Atoi(days[1])
			if err != nil {
				return err
			}
			// A row goes when its day lies that many days back; a day more, since the day may change meanwhile.
			kept[name] = today.AddDate(0, 0, 2-n).UnixMicro()
			return nil
		})
	return kept, err
}
