package lookup

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/sinks"
)

// QuarantinePosition names records of quarantine: a topic, and in it a partition, an offset and an index, each of which may be
// absent with all that follow it.
type QuarantinePosition struct {
	Topic     string
	Partition *int32
	Offset    *int64
	Index     *uint32
}

// ParseQuarantinePosition reads a position as QuarantinedRecord.Position writes it: topic/partition/offset/index.
func ParseQuarantinePosition(text string) (QuarantinePosition, error) {
	parts := strings.Split(text, "/")
	p := QuarantinePosition{Topic: parts[0]}
	wrong := fmt.Errorf("position %s: expected topic/partition/offset/index such as signindiag.raw/0/1234/0, as `signindiag quarantine list` prints it", strconv.QuoteToASCII(text))
	if len(parts) < 3 || len(parts) > 4 || p.Topic == "" {
		return p, wrong
	}
	partition, err1 := strconv.ParseInt(parts[1], 10, 32)
	offset, err2 := strconv.ParseInt(parts[2], 10, 64)
	if err1 != nil || err2 != nil {
		return p, wrong
	}
	narrow := int32(partition)
	p.Partition, p.Offset = &narrow, &offset
	if len(parts) == 4 {
		index, err := strconv.ParseUint(parts[3], 10, 32)
		if err != nil {
			return p, wrong
		}
		narrow := uint32(index)
		p.Index = &narrow
	}
	return p, nil
}

// QuarantineFilter says which records of quarantine are meant; the zero value means all.
type QuarantineFilter struct {
	Stage, Reason, Topic string
	// From and To bound the Kafka time of the message, To exclusive.
	From, To  time.Time
	Positions []QuarantinePosition
	// Waiting leaves out what was replayed.
	Waiting bool
}

// where returns the condition on the table quarantine and its parameters. Values travel as parameters.
func (f QuarantineFilter) where() (string, []parameter) {
	conditions := []string{"1"}
	var parameters []parameter
	add := func(condition, name string, value any) {
		conditions, parameters = append(conditions, condition), append(parameters, named(name, value))
	}
	if f.Stage != "" {
		add("stage = {stage:String}", "stage", f.Stage)
	}
	if f.Reason != "" {
		add("reason = {reason:String}", "reason", f.Reason)
	}
	if f.Topic != "" {
		add("source_topic = {topic:String}", "topic", f.Topic)
	}
	if !f.From.IsZero() {
		add("received_time >= fromUnixTimestamp64Milli({from:Int64})", "from", f.From.UnixMilli())
	}
	if !f.To.IsZero() {
		add("received_time < fromUnixTimestamp64Milli({to:Int64})", "to", f.To.UnixMilli())
	}
	var places []string
	for i, p := range f.Positions {
		n := strconv.Itoa(i)
		place := "source_topic = {topic" + n + ":String}"
		parameters = append(parameters, named("topic"+n, p.Topic))
		if p.Partition != nil {
			place += " AND source_partition = {partition" + n + ":Int32}"
			parameters = append(parameters, named("partition"+n, *p.Partition))
		}
		if p.Offset != nil {
			place += " AND source_offset = {offset" + n + ":Int64}"
			parameters = append(parameters, named("offset"+n, *p.Offset))
		}
		if p.Index != nil {
			place += " AND source_index = {index" + n + ":UInt32}"
			parameters = append(parameters, named("index"+n, *p.Index))
		}
		places = append(places, "("+place+")")
	}
	if len(places) > 0 {
		conditions = append(conditions, "("+strings.Join(places, " OR ")+")")
	}
	return strings.Join(conditions, " AND "), parameters
}

// quarantineKey is the key of the table quarantine.
const quarantineKey = "source_topic, source_incarnation, source_partition, source_offset, source_index, stage"

// from joins the records for which the condition holds with their replays. A record without one has the zero time.
func (f QuarantineFilter) from(where string) string {
	text := ` FROM (SELECT ` + quarantineKey + `, received_time, quarantined_time, reason, size FROM quarantine FINAL WHERE ` + where + `) AS records
		LEFT JOIN (SELECT ` + quarantineKey + `, replayed_time, target FROM quarantine_replays FINAL) AS replays USING (` + quarantineKey + `)`
	if f.Waiting {
		text += " WHERE replayed_time = toDateTime64(0, 3, 'UTC')"
	}
	return text
}

// QuarantineCount counts the records of one stage and reason.
type QuarantineCount struct {
	Stage    string `json:"stage"`
	Reason   string `json:"reason"`
	Records  uint64 `json:"records"`
	Replayed uint64 `json:"replayed"`
}

// QuarantineCounts counts the records that the filter means, most first.
func (s *Store) QuarantineCounts(ctx context.Context, f QuarantineFilter) ([]QuarantineCount, error) {
	where, parameters := f.where()
	var counts []QuarantineCount
	err := s.query(ctx, "count what is in quarantine", "SELECT stage, reason, count(), countIf(replayed_time > toDateTime64(0, 3, 'UTC'))"+f.from(where)+
		" GROUP BY stage, reason ORDER BY count() DESC, stage, reason LIMIT 1000", parameters, func(rows driver.Rows) error {
		var c QuarantineCount
		if err := rows.Scan(&c.Stage, &c.Reason, &c.Records, &c.Replayed); err != nil {
			return err
		}
		counts = append(counts, c)
		return nil
	})
	return counts, err
}

// QuarantinedRecord is a row of quarantine.
type QuarantinedRecord struct {
	Source       sinks.Source
	Stage        string
	ReceivedTime time.Time
	// QuarantinedTime is when the row was written.
	QuarantinedTime time.Time
	Reason, Error   string
	// Size is that of the record in bytes as it was received. Bytes may be fewer: what was asked for, and never more than
	// sinks.MaxQuarantinedBytes.
	Size  uint64
	Bytes []byte
	// Replayed is when it was replayed last, the zero time for never; Target is the topic or table that it went to.
	Replayed time.Time
	Target   string
}

// Position returns topic/partition/offset/index.
func (r *QuarantinedRecord) Position() string {
	return fmt.Sprintf("%s/%d/%d/%d", r.Source.Topic, r.Source.Partition, r.Source.Offset, r.Source.Index)
}

// key tells rows apart, also those of two incarnations or stages at one position.
func (r *QuarantinedRecord) key() string {
	return fmt.Sprintf("%s/%d/%s", r.Position(), r.Source.Incarnation, r.Stage)
}

// Quarantined returns the newest records that the filter means, newest first, each with its first bytes.
func (s *Store) Quarantined(ctx context.Context, f QuarantineFilter, limit, firstBytes int) ([]QuarantinedRecord, error) {
	where, parameters := f.where()
	records, err := s.quarantined(ctx, f.from(where)+" ORDER BY received_time DESC, "+quarantineKey+" LIMIT {limit:UInt32}", append(parameters, named("limit", limit)))
	if err != nil {
		return nil, err
	}
	return records, s.quarantinedBytes(ctx, records, firstBytes)
}

// QuarantinedInOrder calls each for the records that the filter means, whole and in the order of their positions, in groups
// that fit into memory. A group is valid until each returns.
func (s *Store) QuarantinedInOrder(ctx context.Context, f QuarantineFilter, each func([]QuarantinedRecord) error) error {
	// Half of what a query may return: the driver holds a block besides.
	const pageRows, group, groupBytes = 5000, 500, sinks.MaxQuarantinedBytes
	where, parameters := f.where()
	after, afterParameters := "", []parameter(nil)
	for {
		page, err := s.quarantined(ctx, f.from(where+after)+" ORDER BY "+quarantineKey+" LIMIT {limit:UInt32}",
			append(append(parameters[:len(parameters):len(parameters)], afterParameters...), named("limit", pageRows)))
		if err != nil || len(page) == 0 {
			return err
		}
		last := page[len(page)-1]
		for len(page) > 0 {
			n, size := 0, uint64(0)
			for n < min(len(page), group) && (n == 0 || size+page[n].Size <= groupBytes) {
				size += page[n].Size
				n++
			}
			if err := s.quarantinedBytes(ctx, page[:n], sinks.MaxQuarantinedBytes); err != nil {
				return err
			}
			if err := each(page[:n]); err != nil {
				return err
			}
			clear(page[:n])
			page = page[n:]
		}
		after = " AND (" + quarantineKey + ") > ({last_topic:String}, {last_incarnation:UInt32}, {last_partition:Int32}, {last_offset:Int64}, {last_index:UInt32}, {last_stage:String})"
		afterParameters = []parameter{named("last_topic", last.Source.Topic), named("last_incarnation", last.Source.Incarnation), named("last_partition", last.Source.Partition),
			named("last_offset", last.Source.Offset), named("last_index", last.Source.Index), named("last_stage", last.Stage)}
	}
}

// quarantined reads rows without error and bytes.
func (s *Store) quarantined(ctx context.Context, fromAndRest string, parameters []parameter) ([]QuarantinedRecord, error) {
	var records []QuarantinedRecord
	err := s.query(ctx, "read quarantine", "SELECT "+quarantineKey+", received_time, quarantined_time, reason, size, replayed_time, target"+
		fromAndRest, parameters, func(rows driver.Rows) error {
		var r QuarantinedRecord
		if err := rows.Scan(&r.Source.Topic, &r.Source.Incarnation, &r.Source.Partition, &r.Source.Offset, &r.Source.Index, &r.Stage,
			&r.ReceivedTime, &r.QuarantinedTime, &r.Reason, &r.Size, &r.Replayed, &r.Target); err != nil {
			return err
		}
		if r.Replayed.UnixMilli() == 0 {
			r.Replayed = time.Time{}
		}
		records = append(records, r)
		return nil
	})
	return records, err
}

// quarantinedBytes fills in error and the first bytes. They are read by key, so that the server unpacks no other record.
func (s *Store) quarantinedBytes(ctx context.Context, records []QuarantinedRecord, first int) error {
	for len(records) > 0 {
		part := records[:min(len(records), 500)]
		records = records[len(part):]
		byKey := make(map[string]*QuarantinedRecord, len(part))
		var topics, keys []string
		var partitions []int32
		var offsets []int64
		for i := range part {
			r := &part[i]
			byKey[r.key()] = r
			topics, partitions, offsets, keys = append(topics, r.Source.Topic), append(partitions, r.Source.Partition), append(offsets, r.Source.Offset), append(keys, r.key())
		}
		const key = "concat(source_topic, '/', toString(source_partition), '/', toString(source_offset), '/', toString(source_index), '/', toString(source_incarnation), '/', stage)"
		err := s.query(ctx, "read records of quarantine", "SELECT "+key+` AS key, error, substring(bytes, 1, {first:UInt32}) FROM quarantine FINAL
			WHERE source_topic IN {topics:Array(String)} AND source_partition IN {partitions:Array(Int32)} AND source_offset IN {offsets:Array(Int64)} AND `+key+" IN {keys:Array(String)}",
			[]parameter{named("first", first), named("topics", topics), named("partitions", partitions), named("offsets", offsets), named("keys", keys)},
			func(rows driver.Rows) error {
				var k, text string
				var b []byte
				if err := rows.Scan(&k, &text, &b); err != nil {
					return err
				}
				if r := byKey[k]; r != nil {
					r.Error, r.Bytes = text, b
				}
				return nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// RawAt returns the record that was received at a position, as it is kept in raw_records; ErrNotFound where it is not.
// received is the Kafka time of its message.
func (s *Store) RawAt(ctx context.Context, source sinks.Source, received time.Time) ([]byte, error) {
	var raw []byte
	found := false
	err := s.query(ctx, "read the raw record", `SELECT raw FROM raw_records WHERE toDate(received_time) = toDate(fromUnixTimestamp64Milli({received:Int64}, 'UTC'))
		AND source_topic = {topic:String} AND source_incarnation = {incarnation:UInt32} AND source_partition = {partition:Int32} AND source_offset = {offset:Int64}
		AND source_index = {index:UInt32} LIMIT 1`,
		[]parameter{named("received", received.UnixMilli()), named("topic", source.Topic), named("incarnation", source.Incarnation), named("partition", source.Partition),
			named("offset", source.Offset), named("index", source.Index)},
		func(rows driver.Rows) error {
			found = true
			return rows.Scan(&raw)
		})
	if err == nil && !found {
		err = fmt.Errorf("raw record %s/%d/%d/%d: %w", source.Topic, source.Partition, source.Offset, source.Index, ErrNotFound)
	}
	return raw, err
}

// QuarantineAnswer is the quarantine as programs read it.
type QuarantineAnswer struct {
	Counts  []QuarantineCount `json:"counts"`
	Records []QuarantineEntry `json:"records"`
}

// QuarantineEntry is one record of quarantine as programs read it.
type QuarantineEntry struct {
	Position        string     `json:"position"`
	Incarnation     uint32     `json:"incarnation"`
	Stage           string     `json:"stage"`
	ReceivedTime    time.Time  `json:"received_time"`
	QuarantinedTime time.Time  `json:"quarantined_time"`
	Reason          string     `json:"reason"`
	Error           string     `json:"error"`
	Size            uint64     `json:"size"`
	ReplayedTime    *time.Time `json:"replayed_time,omitempty"`
	Target          string     `json:"target,omitempty"`
	// Bytes are the record's, in base64; only the first ones in a list.
	Bytes []byte `json:"bytes"`
}

// NewQuarantineEntry returns the record for programs.
func NewQuarantineEntry(r *QuarantinedRecord) QuarantineEntry {
	e := QuarantineEntry{Position: r.Position(), Incarnation: r.Source.Incarnation, Stage: r.Stage, ReceivedTime: r.ReceivedTime.UTC(), QuarantinedTime: r.QuarantinedTime.UTC(),
		Reason: r.Reason, Error: r.Error, Size: r.Size, Target: r.Target, Bytes: r.Bytes}
	if !r.Replayed.IsZero() {
		at := r.Replayed.UTC()
		e.ReplayedTime = &at
	}
	return e
}

// NewQuarantineAnswer returns counts and records for programs.
func NewQuarantineAnswer(counts []QuarantineCount, records []QuarantinedRecord) QuarantineAnswer {
	a := QuarantineAnswer{Counts: append([]QuarantineCount{}, counts...), Records: make([]QuarantineEntry, 0, len(records))}
	for i := range records {
		a.Records = append(a.Records, NewQuarantineEntry(&records[i]))
	}
	return a
}

// printable makes bytes of a stranger fit for a terminal: everything but printable ASCII is escaped.
func printable(b []byte) string {
	quoted := strconv.QuoteToASCII(string(b))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// OneLine keeps a text of a stranger from disturbing a terminal: control characters and marks that turn the direction of writing
// become blanks.
func OneLine(s string) string { return oneLine(s) }

// shortError is how much of an error a list shows, in characters.
const shortError = 200

// WriteQuarantine writes counts by stage and reason, and records as a list.
func WriteQuarantine(w io.Writer, counts []QuarantineCount, records []QuarantinedRecord) error {
	b := bufio.NewWriter(w)
	total := uint64(0)
	for _, c := range counts {
		total += c.Records
		fmt.Fprintf(b, "%8d  %s, %s", c.Records, oneLine(c.Stage), oneLine(c.Reason))
		if c.Replayed > 0 {
			fmt.Fprintf(b, " (%d replayed)", c.Replayed)
		}
		fmt.Fprintln(b)
	}
	if total == 0 {
		fmt.Fprintln(b, "Nothing is in quarantine.")
	}
	for i := range records {
		r := &records[i]
		fmt.Fprintln(b)
		writeQuarantined(b, r, shortError)
		fmt.Fprintf(b, "    %s", printable(r.Bytes))
		if uint64(len(r.Bytes)) < r.Size {
			fmt.Fprint(b, " ...")
		}
		fmt.Fprintln(b)
	}
	if n := uint64(len(records)); n > 0 && n < total {
		fmt.Fprintf(b, "\nThe newest %d of %d; --limit shows more.\n", n, total)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write what is in quarantine: %w", err)
	}
	return nil
}

func writeQuarantined(b *bufio.Writer, r *QuarantinedRecord, most int) {
	fmt.Fprintf(b, "%s  %s  %s, %s  %d bytes", oneLine(r.Position()), r.ReceivedTime.UTC().Format(time.RFC3339), oneLine(r.Stage), oneLine(r.Reason), r.Size)
	if r.Source.Incarnation != 1 {
		fmt.Fprintf(b, "  incarnation %d", r.Source.Incarnation)
	}
	if !r.Replayed.IsZero() {
		fmt.Fprintf(b, "  replayed %s to %s", r.Replayed.UTC().Format(time.RFC3339), oneLine(r.Target))
	}
	text := []rune(oneLine(r.Error))
	if len(text) > most {
		text = append(text[:most], []rune(" ...")...)
	}
	fmt.Fprintf(b, "\n    %s\n", string(text))
}

// WriteQuarantinedRecord writes one record with its whole error and all of its bytes, escaped.
func WriteQuarantinedRecord(w io.Writer, r *QuarantinedRecord) error {
	b := bufio.NewWriter(w)
	writeQuarantined(b, r, len(r.Error))
	fmt.Fprintf(b, "    in quarantine since %s\n", r.QuarantinedTime.UTC().Format(time.RFC3339))
	if kept := uint64(len(r.Bytes)); kept < r.Size {
		fmt.Fprintf(b, "    the first %d bytes are kept\n", kept)
	}
	fmt.Fprintf(b, "%s\n", printable(r.Bytes))
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write a record of quarantine: %w", err)
	}
	return nil
}
