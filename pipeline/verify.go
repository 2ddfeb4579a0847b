package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// VerifyDependencies are what Verify works with. It only reads.
type VerifyDependencies struct {
	Kafka *Kafka
	// NewMachine, Wanted and Catalogue are those of the pipeline that is verified.
	NewMachine func(shard, shards uint32) (Machine, error)
	Wanted     schemas.RoleSet
	Catalogue  *catalogue.Catalogue
	// Renderer makes the column summary, as in sinks.Config.
	Renderer sinks.SummaryRenderer
	Tables   sinks.VerifyReader
	// PassedOver is that of the pipeline, see Dependencies.
	PassedOver func(ctx context.Context, incarnation uint32, fingerprint uint64) (map[uint16][]int64, error)
	Snapshots  *SnapshotStore
	// RawRecords says that the pipeline keeps records as received.
	RawRecords bool
	// Logger is silent when nil.
	Logger *slog.Logger
}

// VerifyOptions say what Verify looks at. The zero value is everything.
type VerifyOptions struct {
	// From and To bound the event time of the rows of diagnoses and incident_members that are compared, [From, To), and with them the
	// memory: about 50 bytes for each row of one shard in each of four tables. Zero means no bound.
	From, To time.Time
	// PresenceOnly compares which messages and rows there are, and not what they say, where this process would not make the same:
	// another version, other settings, another catalogue.
	PresenceOnly bool
	// Complete makes it a finding that something waits: raw messages above the committed offsets, or messages of the entities topic
	// above the stored positions. It is for tests and for after a drain.
	Complete bool
	// Examples is how many rows or positions a finding names; 0 means 5.
	Examples int
}

// Kinds of a VerifyFinding.
const (
	// Lost: what the log gives is not there.
	Lost = "lost"
	// Repeated: it is there, and the log does not give it.
	Repeated = "repeated"
	// Altered: it is there and says something else than what the log gives.
	Altered = "altered"
	// Unchecked: it cannot be compared, so nothing is proved.
	Unchecked = "unchecked"
)

// VerifyFinding is one hour in which something is not as it must be.
type VerifyFinding struct {
	Kind string `json:"kind"`
	// In is the table, or "entities topic", or "raw topic".
	In string `json:"in"`
	// Topic names the topic of Partition: the entities topic, whose partitions are the shards, or a raw topic. Partition is -1 where
	// none applies.
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	// Hour is of event time for rows of diagnoses, of last_seen for incidents, and else of the Kafka time of the raw message. Zero where no hour applies.
	Hour time.Time `json:"hour,omitzero"`
	// Epoch is that of the rows, 0 where none applies.
	Epoch uint16 `json:"epoch,omitempty"`
	Count int64  `json:"count"`
	// Examples name some of them.
	Examples []string `json:"examples,omitempty"`
	// Reason says more than the kind, in a sentence.
	Reason string `json:"reason,omitempty"`
}

// VerifyStage is what was compared at one place.
type VerifyStage struct {
	Name string `json:"name"`
	// Exact counts what was compared to the last byte, Present what was only looked for, Unchecked rows of which neither could be said:
	// what an older epoch found beyond its diagnoses.
	Exact     int64 `json:"exact"`
	Present   int64 `json:"present"`
	Unchecked int64 `json:"unchecked"`
	// Quarantined are set aside: they stand in quarantine instead. Superseded rows have the key of a newer row of another shard or record.
	Quarantined int64 `json:"quarantined"`
	Superseded  int64 `json:"superseded"`
	// Expired are beyond a retention.
	Expired int64 `json:"expired"`
	// Repeats are dropped by the fence.
	Repeats int64 `json:"repeats"`
	// Lost, Repeated and Altered are the sums of the findings.
	Lost     int64 `json:"lost"`
	Repeated int64 `json:"repeated"`
	Altered  int64 `json:"altered"`
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	// Exact: nothing is lost, repeated or altered, and nothing stands unchecked that should have been compared.
	Exact bool `json:"exact"`
	// RawMessages and SignIns are those below the committed offsets, Waiting the messages above them, EntitiesWaiting those of the
	// entities topic above the stored positions, OtherMessages those from other raw topics or incarnations.
	RawMessages     int64           `json:"raw_messages"`
	SignIns         int64           `json:"sign_ins"`
	Waiting         int64           `json:"waiting"`
	EntitiesWaiting int64           `json:"entities_waiting"`
	OtherMessages   int64           `json:"other_messages"`
	Stages          []VerifyStage   `json:"stages"`
	Findings        []VerifyFinding `json:"findings"`
	// Notes are what a person should know beside the findings.
	Notes []string `json:"notes"`
}

// entitiesStage is the name of the stage of the entities topic.
const (
	entitiesStage = "entities topic"
	rawStage      = "raw topic"
)

// Verify folds the logs and the tables, shard by shard and hour by hour, and names every hour with a lost, repeated or altered
// message or row. The pipeline may run meanwhile: what is on its way is not judged. An error means that the comparison was not
// finished.
func Verify(ctx context.Context, c Config, d VerifyDependencies, o VerifyOptions) (*VerifyReport, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("configure verify: %w", err)
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Examples == 0 {
		o.Examples = 5
	}
	v := &verifier{config: c, deps: d, options: o, log: d.Logger, total: newVerifyPart(o.Examples), from: math.MinInt64, to: math.MaxInt64}
	if !o.From.IsZero() {
		v.from = o.From.UnixMicro()
	}
	if !o.To.IsZero() {
		v.to = o.To.UnixMicro()
	}
	parts, err := d.Kafka.TopicPartitions(ctx, c.EntitiesTopic)
	if err != nil {
		return nil, err
	}
	if len(parts) != c.Partitions {
		return nil, &PartitionCountError{c.EntitiesTopic, len(parts), c.Partitions}
	}
	if v.kept, err = d.Tables.KeptFrom(ctx); err != nil {
		return nil, err
	}
	if err := v.verifyRaw(ctx); err != nil {
		return nil, fmt.Errorf("compare the raw topics with the entities topic: %w", err)
	}
	if err := v.verifyRows(ctx); err != nil {
		return nil, fmt.Errorf("compare the entities topic with the tables: %w", err)
	}
	if o.Complete {
		for _, w := range []struct {
			in    string
			count int64
		}{{rawStage, v.total.counts.Waiting}, {entitiesStage, v.total.counts.EntitiesWaiting}} {
			if w.count > 0 {
				v.total.find(findingKey{kind: Unchecked, in: w.in, partition: -1, hour: noHour, reason: "messages wait to be worked on"}, w.count, "")
			}
		}
	}
	return v.total.report(), nil
}

// verifier is one run of Verify.
type verifier struct {
	config   Config
	deps     VerifyDependencies
	options  VerifyOptions
	log      *slog.Logger
	kept     map[string]int64
	from, to int64
	total    *verifyPart
}

// keptFrom is the first moment of which a table has its rows for certain, in microseconds since the Unix epoch.
func (v *verifier) keptFrom(table string) int64 {
	if at, ok := v.kept[table]; ok {
		return at
	}
	return math.MinInt64
}

// verifyPart is what one step of the comparison found. A step that has to be done again is thrown away whole.
type verifyPart struct {
	examples int
	counts   VerifyReport
	stages   map[string]*VerifyStage
	findings map[findingKey]*VerifyFinding
	notes    []string
}

type findingKey struct {
	kind, in, topic string
	partition       int
	hour            int32
	epoch           uint16
	reason          string
}

// noHour is the hour of a finding to which none applies.
const noHour = math.MinInt32

func newVerifyPart(examples int) *verifyPart {
	return &verifyPart{examples: examples, stages: map[string]*VerifyStage{}, findings: map[findingKey]*VerifyFinding{}}
}

func (p *verifyPart) stage(name string) *VerifyStage {
	s := p.stages[name]
	if s == nil {
		s = &VerifyStage{Name: name}
		p.stages[name] = s
	}
	return s
}

// find adds to a finding. example may be "".
func (p *verifyPart) find(k findingKey, count int64, example string) {
	f := p.findings[k]
	if f == nil {
		f = &VerifyFinding{Kind: k.kind, In: k.in, Topic: k.topic, Partition: k.partition, Epoch: k.epoch, Reason: k.reason}
		if k.hour != noHour {
			f.Hour = time.Unix(int64(k.hour)*3600, 0).UTC()
		}
		p.findings[k] = f
	}
	f.Count += count
	if example != "" && len(f.Examples) < p.examples {
		f.Examples = append(f.Examples, example)
	}
	s := p.stage(k.in)
	switch k.kind {
	case Lost:
		s.Lost += count
	case Repeated:
		s.Repeated += count
	case Altered:
		s.Altered += count
	}
}

func (p *verifyPart) note(text string, a ...any) {
	if text = fmt.Sprintf(text, a...); !slices.Contains(p.notes, text) {
		p.notes = append(p.notes, text)
	}
}

// add takes in another part.
func (p *verifyPart) add(o *verifyPart) {
	p.counts.RawMessages += o.counts.RawMessages
	p.counts.SignIns += o.counts.SignIns
	p.counts.Waiting += o.counts.Waiting
	p.counts.EntitiesWaiting += o.counts.EntitiesWaiting
	p.counts.OtherMessages += o.counts.OtherMessages
	for name, s := range o.stages {
		t := p.stage(name)
		t.Exact += s.Exact
		t.Present += s.Present
		t.Unchecked += s.Unchecked
		t.Quarantined += s.Quarantined
		t.Superseded += s.Superseded
		t.Expired += s.Expired
		t.Repeats += s.Repeats
	}
	for k, f := range o.findings {
		p.find(k, f.Count, "")
		mine := p.findings[k]
		mine.Examples = append(mine.Examples, f.Examples...)
		mine.Examples = mine.Examples[:min(len(mine.Examples), p.examples)]
	}
	for _, n := range o.notes {
		p.note("%s", n)
	}
}

// stageOrder is the order in which stages are told.
func stageOrder(name string) int {
	order := []string{rawStage, entitiesStage, sinks.QuarantineTable, sinks.RawRecordsTable}
	for r := range sinks.Relations {
		order = append(order, r.String())
	}
	return slices.Index(append(order, requestIDs), name)
}

func (p *verifyPart) report() *VerifyReport {
	r := p.counts
	r.Exact = len(p.findings) == 0
	r.Stages, r.Findings, r.Notes = []VerifyStage{}, []VerifyFinding{}, append([]string{}, p.notes...)
	for _, s := range p.stages {
		r.Stages = append(r.Stages, *s)
	}
	slices.SortFunc(r.Stages, func(a, b VerifyStage) int { return cmp.Compare(stageOrder(a.Name), stageOrder(b.Name)) })
	for _, f := range p.findings {
		r.Findings = append(r.Findings, *f)
	}
	slices.SortFunc(r.Findings, func(a, b VerifyFinding) int {
		return cmp.Or(cmp.Compare(stageOrder(a.In), stageOrder(b.In)), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), a.Hour.Compare(b.Hour),
			cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason))
	})
	return &r
}

// maxFindingLines bounds the findings of the text; the JSON has them all.
const maxFindingLines = 200

// WriteText writes the report for people.
func (r *VerifyReport) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d raw messages, %d sign-ins", r.RawMessages, r.SignIns)
	if r.Waiting > 0 || r.EntitiesWaiting > 0 {
		fmt.Fprintf(&b, "; waiting: %d raw messages, %d messages of the entities topic", r.Waiting, r.EntitiesWaiting)
	}
	if r.OtherMessages > 0 {
		fmt.Fprintf(&b, "; %d messages of the entities topic come from other raw topics", r.OtherMessages)
	}
	b.WriteByte('\n')
	looked := int64(0)
	for _, s := range r.Stages {
		state := "exact "
		switch {
		case s.Lost+s.Repeated+s.Altered > 0:
			state = "WRONG "
		case s.Exact == 0 && s.Present+s.Unchecked > 0:
			state = "looked"
		}
		looked += s.Present + s.Unchecked
		fmt.Fprintf(&b, "  %-29s %s %d compared", s.Name, state, s.Exact)
		for _, n := range []struct {
			count int64
			text  string
		}{
			{s.Present, "only looked for"}, {s.Unchecked, "of older epochs not compared"}, {s.Repeats, "repeats dropped by the fence"}, {s.Quarantined, "in quarantine"},
			{s.Superseded, "superseded by newer rows of their key"}, {s.Expired, "expired"}, {s.Lost, "LOST"}, {s.Repeated, "REPEATED"}, {s.Altered, "ALTERED"},
		} {
			if n.count > 0 {
				fmt.Fprintf(&b, ", %d %s", n.count, n.text)
			}
		}
		b.WriteByte('\n')
	}
	for i, f := range r.Findings {
		if i == maxFindingLines {
			fmt.Fprintf(&b, "... and %d more; --format json has them all\n", len(r.Findings)-i)
			break
		}
		fmt.Fprintf(&b, "%s %s", strings.ToUpper(f.Kind), f.In)
		if f.Partition >= 0 {
			fmt.Fprintf(&b, " %s/%d", f.Topic, f.Partition)
		}
		if !f.Hour.IsZero() {
			fmt.Fprintf(&b, " hour %s", f.Hour.Format("2006-01-02T15Z"))
		}
		if f.Epoch > 0 {
			fmt.Fprintf(&b, " epoch %d", f.Epoch)
		}
		fmt.Fprintf(&b, ": %d", f.Count)
		if f.Reason != "" {
			fmt.Fprintf(&b, ", %s", f.Reason)
		}
		if len(f.Examples) > 0 {
			fmt.Fprintf(&b, " (%s", strings.Join(f.Examples, "; "))
			if int64(len(f.Examples)) < f.Count {
				fmt.Fprintf(&b, "; and %d more", f.Count-int64(len(f.Examples)))
			}
			b.WriteByte(')')
		}
		b.WriteByte('\n')
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	switch {
	case r.Exact && looked > 0:
		fmt.Fprintf(&b, "exact as far as it can be made again: nothing is lost, repeated or altered; %d rows are not compared to the last byte\n", looked)
	case r.Exact:
		b.WriteString("exact: nothing is lost, repeated or altered\n")
	default:
		b.WriteString("NOT exact\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// errAgain says that the logs or tables changed under a step so that it has to be done anew.
var errAgain = errors.New("what was compared has changed meanwhile")

const (
	// verifyTries bounds how often a step is done anew, verifyPause is the time between two: together well above the time between the
	// INSERT of a block and that of its positions.
	verifyTries = 20
	verifyPause = time.Second
)

// again does a step anew while it returns errAgain, and takes in what it found. What never settles is a finding.
func (v *verifier) again(ctx context.Context, in string, partition int, step func(*verifyPart) error) error {
	for try := 1; ; try++ {
		p := newVerifyPart(v.options.Examples)
		err := step(p)
		if err == nil {
			v.total.add(p)
			return nil
		}
		if !errors.Is(err, errAgain) {
			return err
		}
		if try == verifyTries {
			v.total.find(findingKey{kind: Unchecked, in: in, topic: v.config.EntitiesTopic, partition: partition, hour: noHour, reason: err.Error()}, 1, "")
			return nil
		}
		v.log.Info("comparing anew", "reason", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(verifyPause):
		}
	}
}
