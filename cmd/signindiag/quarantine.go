package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

type quarantineCommand struct {
	List   quarantineListCommand   `cmd:"" default:"withargs" help:"Count by stage and reason, and list the newest."`
	Show   quarantineShowCommand   `cmd:"" help:"Show one record: its whole error and its bytes."`
	Replay quarantineReplayCommand `cmd:"" help:"Send records again, after a fix: what this version can read goes to the raw topic once more, and rows that ClickHouse refused to their table. Kafka's time is then that of the replay; the sign-in's own time stays."`
}

// quarantineFilter says which records are meant.
type quarantineFilter struct {
	Stage  string `help:"Only this stage: decode, publish, entities or 'sink TABLE'." placeholder:"STAGE"`
	Reason string `help:"Only this reason." placeholder:"REASON"`
	Topic  string `help:"Only records of this topic." placeholder:"TOPIC"`
	From   string `help:"Only records received at or after this time (RFC 3339 or a date)." placeholder:"TIME"`
	To     string `help:"Only records received before this time." placeholder:"TIME"`
}

func (f quarantineFilter) filter() (lookup.QuarantineFilter, error) {
	q := lookup.QuarantineFilter{Stage: f.Stage, Reason: f.Reason, Topic: f.Topic}
	for _, t := range []struct {
		name, text string
		to         *time.Time
	}{{"from", f.From, &q.From}, {"to", f.To, &q.To}} {
		if t.text == "" {
			continue
		}
		var err error
		if *t.to, err = lookup.ParseTime(t.text); err != nil {
			return q, fmt.Errorf("--%s: %w", t.name, err)
		}
	}
	return q, nil
}

// quarantineFirstBytes is how much of a record a list shows.
const quarantineFirstBytes = 100

type quarantineListCommand struct {
	quarantineFilter
	Waiting bool `help:"Only records that were not replayed."`
	Limit   int  `default:"50" help:"At most this many records."`
	storeFlags
}

// Run prints what is in quarantine, newest first.
func (c quarantineListCommand) Run(ctx context.Context, std streams) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if c.Limit < 0 || c.Limit > 10_000 {
		return fmt.Errorf("--limit %d: expected 0 to 10000", c.Limit)
	}
	filter.Waiting = c.Waiting
	o, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	counts, err := o.store.QuarantineCounts(ctx, filter)
	if err != nil {
		return err
	}
	records, err := o.store.Quarantined(ctx, filter, c.Limit, quarantineFirstBytes)
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(std.out, lookup.NewQuarantineAnswer(counts, records))
	}
	return lookup.WriteQuarantine(std.out, counts, records)
}

type quarantineShowCommand struct {
	Position string `arg:"" help:"topic/partition/offset/index, as list prints it."`
	Stage    string `help:"Only this stage, where several records have the position." placeholder:"STAGE"`
	Bytes    string `help:"Write the record's bytes, as they were received, to this file; - is standard output." placeholder:"FILE"`
	storeFlags
}

// Run prints the records at a position, or writes the bytes of one.
func (c quarantineShowCommand) Run(ctx context.Context, std streams) error {
	position, err := lookup.ParseQuarantinePosition(c.Position)
	if err != nil {
		return err
	}
	o, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	found, written := 0, 0
	err = o.store.QuarantinedInOrder(ctx, lookup.QuarantineFilter{Stage: c.Stage, Positions: []lookup.QuarantinePosition{position}}, func(records []lookup.QuarantinedRecord) error {
		for i := range records {
			r := &records[i]
			found++
			switch {
			case c.Bytes != "" && found > 1:
				return fmt.Errorf("several records have the position %s: name the whole of it, and the stage with --stage", c.Position)
			case c.Bytes == "-":
				written = len(r.Bytes)
				if _, err := std.out.Write(r.Bytes); err != nil {
					return fmt.Errorf("write the bytes: %w", err)
				}
			case c.Bytes != "":
				written = len(r.Bytes)
				if err := os.WriteFile(c.Bytes, r.Bytes, 0o600); err != nil {
					return fmt.Errorf("write the bytes: %w", err)
				}
			case c.Format == "json":
				if err := printJSON(std.out, lookup.NewQuarantineEntry(r)); err != nil {
					return err
				}
			default:
				if err := lookup.WriteQuarantinedRecord(std.out, r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found == 0 {
		return fmt.Errorf("%s: nothing is in quarantine there", c.Position)
	}
	if c.Bytes != "" && c.Bytes != "-" {
		fmt.Fprintf(std.out, "%s written\n", plural(written, "byte"))
	}
	return nil
}

type quarantineReplayCommand struct {
	Positions []string `arg:"" optional:"" help:"topic/partition/offset/index, as list prints it (default: all that the filters leave)."`
	quarantineFilter
	ToTopic string `help:"Topic to send to (default: the raw topic that the record came from)." placeholder:"TOPIC"`
	DryRun  bool   `help:"Say what would be done, and do nothing."`
	Force   bool   `help:"Also send what this version still cannot read."`
	Again   bool   `help:"Also send what was replayed before."`
	Data    string `help:"Data directory of a running signindiag up (default: the one that runs, or SIGNINDIAG_KAFKA_BROKERS and SIGNINDIAG_CLICKHOUSE_ADDRESSES)." placeholder:"DIRECTORY" type:"path"`
}

// Run replays records in the order of their positions.
func (c quarantineReplayCommand) Run(ctx context.Context, std streams) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	filter.Waiting = !c.Again
	for _, text := range c.Positions {
		p, err := lookup.ParseQuarantinePosition(text)
		if err != nil {
			return err
		}
		filter.Positions = append(filter.Positions, p)
	}
	if err := c.sameSystem(ctx); err != nil {
		return err
	}
	o, err := storeFlags{Data: c.Data}.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	r := &replay{command: c, std: std, opened: o, decoder: schemas.NewDecoder(), producers: map[string]*pipeline.RawProducer{}, sent: map[string]int{}, left: map[string]int{}}
	defer r.close()
	counts, err := o.store.QuarantineCounts(ctx, filter)
	if err != nil {
		return err
	}
	total := 0
	for _, n := range counts {
		total += int(n.Records)
		if !c.Again {
			total -= int(n.Replayed)
		}
	}
	if total == 0 {
		fmt.Fprintln(std.out, "Nothing in quarantine waits to be replayed.")
		return nil
	}
	if file, ok := std.err.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		r.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(std.err), progressbar.OptionSetDescription("replaying"),
			progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetWidth(30))
	}
	err = o.store.QuarantinedInOrder(ctx, filter, func(records []lookup.QuarantinedRecord) error {
		err := r.group(ctx, records)
		if r.bar != nil {
			_ = r.bar.Add(len(records)) // a bar that cannot be drawn is no failure
		}
		return err
	})
	if r.bar != nil {
		_ = r.bar.Finish()
	}
	r.report()
	if err == nil && len(r.left) > 0 {
		err = errFailed
	}
	return err
}

// sameSystem refuses to read the quarantine of one system and to send to another.
func (c quarantineReplayCommand) sameSystem(ctx context.Context) error {
	if c.Data != "" {
		return nil
	}
	configured, err := loadConfig(ctx, nil)
	if err != nil {
		return err
	}
	if len(configured.Kafka.Brokers) > 0 == (len(configured.ClickHouse.Addresses) > 0) {
		return nil
	}
	return configured.needServers(true, true)
}

// replay is one run of quarantine replay.
type replay struct {
	command   quarantineReplayCommand
	std       streams
	opened    opened
	decoder   *schemas.Decoder
	kafka     *pipeline.Kafka
	producers map[string]*pipeline.RawProducer
	bar       *progressbar.ProgressBar

	sent     map[string]int // records by target
	left     map[string]int // records that were not sent, by why
	told     int
	timeless int // records without a time of their own among those sent
}

func (r *replay) close() {
	for _, p := range r.producers {
		p.Close()
	}
	if r.kafka != nil {
		r.kafka.Close()
	}
}

// toldAtMost bounds the lines about single records.
const toldAtMost = 50

// leave tells that a record is not sent. why is counted, text says it of this record.
func (r *replay) leave(record *lookup.QuarantinedRecord, why, text string) {
	r.left[why]++
	if r.told++; r.told > toldAtMost {
		if r.told == toldAtMost+1 {
			fmt.Fprintln(r.std.err, "... further ones are only counted")
		}
		return
	}
	if r.bar != nil {
		_ = r.bar.Clear()
	}
	fmt.Fprintln(r.std.err, lookup.OneLine(fmt.Sprintf("%s (%s): %s", record.Position(), record.Stage, text)))
}

// group sends records, waits until they are acknowledged, and marks them. A crash in between repeats them, which makes no
// second row: the engine knows a request id that comes again.
func (r *replay) group(ctx context.Context, records []lookup.QuarantinedRecord) error {
	for start := 0; start < len(records); {
		var values [][]byte
		var marks []sinks.Replayed
		var of []*lookup.QuarantinedRecord
		target := ""
		for start < len(records) {
			record := &records[start]
			to := r.target(record)
			if len(values) > 0 && target != to {
				break
			}
			start++
			table, value, ok, err := r.prepare(ctx, record)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			mark := sinks.Replayed{Source: record.Source, Stage: record.Stage, Target: cmp.Or(table, to)}
			if table != "" {
				if err := r.mark(ctx, []sinks.Replayed{mark}); err != nil {
					return err
				}
				r.sent[table]++
				continue
			}
			target = to
			values, marks, of = append(values, value), append(marks, mark), append(of, record)
		}
		if len(values) == 0 {
			continue
		}
		if err := r.send(ctx, target, values, marks, of); err != nil {
			return err
		}
	}
	return nil
}

// target returns the topic that a record goes to.
func (r *replay) target(record *lookup.QuarantinedRecord) string {
	switch {
	case r.command.ToTopic != "":
		return r.command.ToTopic
	case record.Stage == sinks.StageEntities:
		return r.opened.rawTopics[0]
	}
	return record.Source.Topic
}

func (r *replay) send(ctx context.Context, target string, values [][]byte, marks []sinks.Replayed, of []*lookup.QuarantinedRecord) error {
	if !r.command.DryRun {
		producer := r.producers[target]
		if producer == nil {
			var err error
			if producer, err = openRawProducerTo(ctx, r.command.Data, target); err != nil {
				return err
			}
			r.producers[target] = producer
		}
		refused, err := producer.Send(ctx, values)
		if err != nil {
			return fmt.Errorf("%w; these records are not marked, the next replay sends them again", err)
		}
		for _, x := range refused {
			r.leave(of[x.Index], "refused by Kafka", x.Err.Error())
			marks[x.Index].Target = ""
		}
		kept := marks[:0]
		for _, m := range marks {
			if m.Target != "" {
				kept = append(kept, m)
			}
		}
		marks = kept
		if err := r.mark(ctx, marks); err != nil {
			return err
		}
	}
	r.sent[target] += len(marks)
	return nil
}

// mark notes what was replayed, also when a signal came meanwhile.
func (r *replay) mark(ctx context.Context, marks []sinks.Replayed) error {
	if r.command.DryRun {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := sinks.MarkReplayed(ctx, r.opened.conn, r.opened.server, marks, time.Now()); err != nil {
		return fmt.Errorf("%w: they were sent, and the next replay sends them again, which makes no second row", err)
	}
	return nil
}

// prepare returns what is to be sent for a record, or the table that its row was put into. ok is false where neither is possible;
// that was told.
func (r *replay) prepare(ctx context.Context, record *lookup.QuarantinedRecord) (table string, value []byte, ok bool, err error) {
	value = record.Bytes
	if uint64(len(value)) < record.Size {
		r.leave(record, "cut", fmt.Sprintf("only the first %d of %d bytes are kept: read the message from the topic at its position and import it", len(value), record.Size))
		return "", nil, false, nil
	}
	if strings.HasPrefix(record.Stage, sinks.StageSink) {
		// A raw record that was refused has a diagnosis; sent again it is stored as received once more.
		if name, known := sinks.RefusedTable(record.Stage); known {
			ok, err = r.insert(ctx, record, name)
			return name, nil, ok, err
		}
	}
	if record.Stage == sinks.StageEntities {
		if value, err = r.rawOf(ctx, record); value == nil {
			return "", nil, false, err
		}
	}
	why, text, timeless := r.judge(value, record.ReceivedTime)
	if why != "" && !r.command.Force {
		r.leave(record, why, text)
		return "", nil, false, nil
	}
	r.timeless += timeless
	return "", value, true, nil
}

// insert puts a refused row into its table.
func (r *replay) insert(ctx context.Context, record *lookup.QuarantinedRecord, table string) (bool, error) {
	if r.command.DryRun {
		return true, nil
	}
	if err := sinks.InsertRefused(ctx, r.opened.conn, r.opened.server, table, record.Bytes); err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		r.leave(record, "row refused again", err.Error())
		return false, nil
	}
	return true, nil
}

// rawOf returns the raw record that a message of the entities topic was made of, nil where it cannot be had; that was told.
func (r *replay) rawOf(ctx context.Context, record *lookup.QuarantinedRecord) ([]byte, error) {
	const advice = "an internal message is not sent as it is. If a newer version wrote it, run that one: its new epoch reads it again. Else import the sign-ins of that time once more"
	var message schemas.EntityMessage
	// A message that is damaged further on may still name its source.
	_ = message.UnmarshalVT(record.Bytes)
	if message.Source == nil {
		r.leave(record, "no raw record", "it does not name its raw record; "+advice)
		return nil, nil
	}
	source := sinks.Source{Incarnation: uint32(message.Source.Topic), Partition: int32(message.Source.Partition), Offset: message.Source.Offset, Index: message.Source.Index}
	for _, name := range r.opened.rawTopics {
		if (pipeline.RawTopic{Name: name, Incarnation: source.Incarnation}).ID() == message.Source.Topic {
			source.Topic = name
		}
	}
	if source.Topic == "" {
		r.leave(record, "no raw record", "it is of a raw topic that is not configured here; "+advice)
		return nil, nil
	}
	raw, err := r.opened.store.RawAt(ctx, source, time.UnixMilli(message.ReceivedMs))
	if err == nil || !errors.Is(err, lookup.ErrNotFound) {
		return raw, err
	}
	// The log that is there now is that of the present incarnation.
	if source.Incarnation != r.opened.rawIncarnation {
		r.leave(record, "no raw record", fmt.Sprintf("its raw record %s/%d/%d/%d is of incarnation %d of the topic and not in raw_records; %s", source.Topic, source.Partition, source.Offset, source.Index, source.Incarnation, advice))
		return nil, nil
	}
	if r.kafka == nil {
		if r.kafka, err = openKafkaOf(ctx, r.command.Data); err != nil {
			return nil, err
		}
	}
	if raw = r.kafka.RawRecord(ctx, source, message.ReceivedMs); raw == nil {
		r.leave(record, "no raw record", fmt.Sprintf("its raw record %s/%d/%d/%d is neither in raw_records nor in Kafka any more; %s", source.Topic, source.Partition, source.Offset, source.Index, advice))
	}
	return raw, nil
}

// judge tries to decode the bytes with this version. why is empty when all of them are sign-ins; timeless counts those without a
// time of their own.
func (r *replay) judge(value []byte, received time.Time) (why, text string, timeless int) {
	defer func() {
		// Some records are in quarantine for this.
		if p := recover(); p != nil {
			why, text = sinks.ReasonPanic, fmt.Sprintf("this version still fails on it: %v", p)
			r.decoder = schemas.NewDecoder()
		}
	}()
	r.decoder.Decode(value, received, func(_ int, d *schemas.Decoded) {
		switch {
		case why != "":
		case d.Kind == schemas.KindBroken:
			why, text = "broken", d.Err.Error()
			var e *schemas.RecordError
			if errors.As(d.Err, &e) {
				why = e.Reason
			}
		case d.Kind == schemas.KindOtherCategory:
			why, text = "no sign-in", "it is of the category "+d.Category+", which is skipped"
		case d.SignIn.Flags&schemas.FlagNoEventTime != 0:
			timeless++
		}
	})
	return why, text, timeless
}

// report prints what was done.
func (r *replay) report() {
	verb := "replayed"
	if r.command.DryRun {
		verb = "would be replayed"
	}
	if len(r.sent) == 0 {
		fmt.Fprintf(r.std.out, "0 records %s\n", verb)
	}
	for _, target := range slices.Sorted(maps.Keys(r.sent)) {
		fmt.Fprintf(r.std.out, "%s %s to %s\n", plural(r.sent[target], "record"), verb, lookup.OneLine(target))
	}
	if r.timeless > 0 {
		fmt.Fprintf(r.std.out, "%s without a time of their own: the time of the replay stands for it\n", plural(r.timeless, "record"))
	}
	if len(r.left) > 0 {
		fmt.Fprintf(r.std.out, "not replayed: %s\n", describeCategories(r.left))
	}
}

// openKafkaOf connects to the Kafka of the configuration, or of the running `signindiag up` on dir.
func openKafkaOf(ctx context.Context, dir string) (*pipeline.Kafka, error) {
	c, err := loadConfig(ctx, nil)
	if err != nil {
		return nil, err
	}
	settings := c.Kafka.connection()
	if dir != "" || len(settings.Brokers) == 0 {
		running, err := readEndpoints(dir)
		if err != nil {
			return nil, err
		}
		settings = pipeline.KafkaConfig{Brokers: []string{running.Kafka}}
	}
	return pipeline.OpenKafka(settings)
}
