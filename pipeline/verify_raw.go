package pipeline

import (
	"context"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

// rawRange is what of one raw partition is compared: [from, to), what the log still has below the committed offset.
type rawRange struct {
	rawPartition
	from, to int64
}

// contains reports whether a position lies in the range.
func (r *rawRange) contains(offset int64) bool { return offset >= r.from && offset < r.to }

// identity names an input record within one run.
type identity struct {
	topic     uint64 // RawTopic.ID
	partition uint32
	offset    int64
	index     uint32
}

func (i identity) before(o identity) bool {
	return i.offset < o.offset || i.offset == o.offset && i.index < o.index
}

func identityOf(s *schemas.Source) identity {
	return identity{s.Topic, s.Partition, s.Offset, s.Index}
}

// sourcePartition is a raw partition as messages name it.
type sourcePartition struct {
	topic     uint64
	partition uint32
}

// sourceOfShard names a source within a shard.
type sourceOfShard struct {
	shard int
	sourcePartition
}

// entityHour is an hour of receipt in a shard, in hours since the Unix epoch.
type entityHour struct {
	shard int
	hour  int32
}

// entityFold is the sum of messages: of who they are, and of what they say.
type entityFold struct{ identities, contents sinks.Fold }

func (f *entityFold) add(id identity, content uint64) {
	var b [28]byte
	put := func(at int, v uint64) {
		for i := range 8 {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	put(0, id.topic)
	put(8, uint64(id.offset))
	put(16, uint64(id.partition)<<32|uint64(id.index))
	f.identities.Add(xxhash.Sum64(b[:24]))
	f.contents.Add(content)
}

// differs compares two folds.
func (f entityFold) differs(o entityFold, presenceOnly bool) bool {
	return f.identities != o.identities || !presenceOnly && f.contents != o.contents
}

func hourOf(ms int64) int32 { return int32(max(ms, 0) / 3_600_000) }

// rawComparison is the comparison of the raw topics with the entities topic and with the tables of records by source.
type rawComparison struct {
	*verifier
	part   *verifyPart
	ranges map[sourcePartition]*rawRange
	order  []*rawRange
	topics map[uint64]RawTopic
	// first and end are the entities topic's offsets by shard.
	first, end []int64
	// beginnings are the first positions of each source in a shard that has lost its beginning.
	beginnings map[sourceOfShard]identity
	refused    map[identity]bool // by Kafka; they are in quarantine
	rawRefused map[identity]bool // of raw_records by ClickHouse
	undecoded  int64
}

func (v *verifier) verifyRaw(ctx context.Context) error {
	return v.again(ctx, entitiesStage, -1, func(p *verifyPart) error {
		c := &rawComparison{verifier: v, part: p, ranges: map[sourcePartition]*rawRange{}, topics: map[uint64]RawTopic{}, beginnings: map[sourceOfShard]identity{},
			refused: map[identity]bool{}, rawRefused: map[identity]bool{}}
		return c.run(ctx)
	})
}

func (c *rawComparison) run(ctx context.Context) error {
	// Committed offsets first: what lies below them is in the entities topic by then.
	for _, t := range c.config.RawTopics {
		c.topics[t.ID()] = t
		if err := c.findRanges(ctx, t); err != nil {
			return err
		}
	}
	for shard := range c.config.Partitions {
		first, end, err := c.deps.Kafka.ListOffsets(ctx, c.config.EntitiesTopic, shard)
		if err != nil {
			return err
		}
		c.first, c.end = append(c.first, first), append(c.end, end)
	}
	if err := c.deps.Tables.Quarantined(ctx, sinks.StagePublish, "", func(s sinks.Source) { c.refused[c.identityOf(s)] = true }); err != nil {
		return err
	}
	if err := c.deps.Tables.Quarantined(ctx, sinks.SinkStage(sinks.RawRecordsTable), "", func(s sinks.Source) { c.rawRefused[c.identityOf(s)] = true }); err != nil {
		return err
	}
	stage := c.part.stage(entitiesStage)
	got := map[entityHour]entityFold{}
	if err := c.scanEntities(ctx, func(shard int, m *schemas.EntityMessage, value []byte, repeat bool) {
		r := c.ranges[sourcePartition{m.Source.Topic, m.Source.Partition}]
		switch id := identityOf(m.Source); {
		case r == nil:
			c.part.counts.OtherMessages++
		case repeat:
			stage.Repeats++
		case !r.contains(m.Source.Offset):
			// Above what is committed, or below what the raw topic still has.
		case c.refused[id]:
			stage.Quarantined++
		default:
			k := entityHour{shard, hourOf(m.ReceivedMs)}
			f := got[k]
			f.add(id, xxhash.Sum64(value))
			got[k] = f
		}
	}); err != nil {
		return err
	}
	want := map[entityHour]entityFold{}
	quarantine, raw := map[sinks.SourceHour]sinks.Fold{}, map[sinks.SourceHour]sinks.Fold{}
	if err := c.scanRaw(ctx, nil, rawHandler{
		message: func(shard int, m *schemas.EntityMessage, value []byte) {
			k := entityHour{shard, hourOf(m.ReceivedMs)}
			f := want[k]
			f.add(identityOf(m.Source), xxhash.Sum64(value))
			want[k] = f
		},
		broken: func(k sinks.SourceHour, _ sinks.Source, hash uint64) { addTo(quarantine, k, hash) },
		signIn: func(k sinks.SourceHour, _ sinks.Source, hash uint64) { addTo(raw, k, hash) },
		count:  &c.part.counts,
	}); err != nil {
		return err
	}
	if err := c.compareEntities(ctx, want, got); err != nil {
		return err
	}
	if c.undecoded > 0 {
		c.part.note("%d messages of the entities topic cannot be decoded", c.undecoded)
	}
	if err := c.compareRecords(ctx, sinks.QuarantineTable, sinks.StageDecode, quarantine); err != nil {
		return err
	}
	if !c.deps.RawRecords {
		c.part.note("records as received are not kept, so raw_records is not compared")
		return nil
	}
	return c.compareRecords(ctx, sinks.RawRecordsTable, "", raw)
}

func addTo(folds map[sinks.SourceHour]sinks.Fold, k sinks.SourceHour, hash uint64) {
	f := folds[k]
	f.Add(hash)
	folds[k] = f
}

func (c *rawComparison) identityOf(s sinks.Source) identity {
	return identity{RawTopic{s.Topic, s.Incarnation}.ID(), uint32(s.Partition), s.Offset, s.Index}
}

// findRanges finds what of a raw topic is to be compared.
func (c *rawComparison) findRanges(ctx context.Context, t RawTopic) error {
	parts, err := c.deps.Kafka.TopicPartitions(ctx, t.Name)
	if err != nil {
		return err
	}
	for _, p := range parts {
		stored, err := c.deps.Kafka.committed(ctx, c.config.group("router"), t.Name, p.ID)
		if err != nil {
			return fmt.Errorf("read the committed offset of %s/%d: %w", t.Name, p.ID, err)
		}
		first, end, err := c.deps.Kafka.ListOffsets(ctx, t.Name, p.ID)
		if err != nil {
			return err
		}
		committed := stored.CommittedOffset
		meta, ok := parseCommitMetadata(stored.Metadata)
		switch {
		case committed < 0:
			committed = first
		case !ok:
			c.part.note("the committed offset of %s/%d was set by hand", t.Name, p.ID)
		case meta.Incarnation != t.Incarnation:
			c.part.note("the committed offset of %s/%d is of incarnation %d, so nothing of incarnation %d is compared", t.Name, p.ID, meta.Incarnation, t.Incarnation)
			committed = first
		case meta.Entities != c.config.EntitiesTopic || meta.Partitions != c.config.Partitions || meta.EntitiesIncarnation != c.config.EntitiesIncarnation:
			c.part.note("the committed offset of %s/%d is for another entities topic (%s, %d partitions, incarnation %d), so nothing of it is compared",
				t.Name, p.ID, meta.Entities, meta.Partitions, meta.EntitiesIncarnation)
			committed = first
		}
		key := findingKey{kind: Lost, in: rawStage, topic: t.Name, partition: p.ID, hour: noHour}
		if committed < first {
			key.reason = "expired before they were read"
			c.part.find(key, first-committed, fmt.Sprintf("offsets %d to %d", committed, first-1))
		}
		if committed > end {
			key.reason = "the log ends below the committed offset"
			c.part.find(key, committed-end, fmt.Sprintf("offsets %d to %d", end, committed-1))
		}
		r := &rawRange{rawPartition: rawPartition{t, p.ID}, from: first, to: max(first, min(committed, end))}
		c.part.counts.Waiting += max(end-r.to, 0)
		c.ranges[sourcePartition{t.ID(), uint32(p.ID)}] = r
		c.order = append(c.order, r)
	}
	return nil
}

// scanEntities reads the entities topic up to where it ended at the beginning and calls each for every message that can be decoded;
// repeat says that the shards' fence drops it. Of a shard that has lost its beginning it notes where every source begins.
func (c *rawComparison) scanEntities(ctx context.Context, each func(shard int, m *schemas.EntityMessage, value []byte, repeat bool)) error {
	c.undecoded = 0
	for shard := range c.config.Partitions {
		fence := map[sourcePartition]identity{}
		var m schemas.EntityMessage
		err := c.scan(ctx, c.config.EntitiesTopic, shard, c.first[shard], c.end[shard], func(rec *Record) {
			m.ResetVT()
			if err := m.UnmarshalVTUnsafe(rec.Value); err != nil || m.Source == nil || m.SignIn == nil {
				c.undecoded++
				return
			}
			source, id := sourcePartition{m.Source.Topic, m.Source.Partition}, identityOf(m.Source)
			highest, seen := fence[source]
			repeat := seen && !highest.before(id)
			if !repeat {
				fence[source] = id
			}
			if !seen && c.first[shard] > 0 {
				c.beginnings[sourceOfShard{shard, source}] = id
			}
			each(shard, &m, rec.Value, repeat)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scan calls each for the records of a partition at offsets [from, to). Records that expire meanwhile are errAgain.
func (v *verifier) scan(ctx context.Context, topic string, partition int, from, to int64, each func(*Record)) error {
	if from >= to {
		return nil
	}
	expired := false
	reader := NewReader(v.deps.Kafka, ReaderConfig{Topic: topic, Partition: partition, Offset: from, MaxBytes: v.config.FetchBytes, Logger: v.log,
		OnHole: func(h Hole) { expired = expired || h.Reason == HoleExpired }})
	defer reader.Close()
	for next := from; next < to; {
		batch, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read %s/%d: %w", topic, partition, err)
		}
		if expired {
			return fmt.Errorf("records of %s/%d expired: %w", topic, partition, errAgain)
		}
		for i := range batch.Records {
			if batch.Records[i].Offset >= to {
				break
			}
			each(&batch.Records[i])
		}
		next = batch.Next
	}
	return nil
}

// rawHandler takes what the raw topics give. Its functions may be nil.
type rawHandler struct {
	message        func(shard int, m *schemas.EntityMessage, value []byte)
	broken, signIn func(k sinks.SourceHour, s sinks.Source, hash uint64)
	count          *VerifyReport
}

// scanRaw decodes and deals the raw ranges as the router does; only may name one of them.
func (c *rawComparison) scanRaw(ctx context.Context, only *rawRange, h rawHandler) error {
	hasher := sinks.NewRecordHasher()
	var value []byte
	var failed error
	keptQuarantine, keptRaw := c.keptHour(sinks.QuarantineTable), c.keptHour(sinks.RawRecordsTable)
	for _, r := range c.order {
		if only != nil && r != only {
			continue
		}
		var d dealing
		d.init(r.rawPartition, c.deps.Catalogue, c.deps.Wanted, c.config.Partitions, func(partition uint32, m *schemas.EntityMessage) {
			if h.message == nil {
				return
			}
			id, shard := identityOf(m.Source), int(partition)
			if c.refused[id] {
				return
			}
			if c.first[shard] > 0 {
				// What lies before the first position that the shard still has went with its beginning.
				at, ok := c.beginnings[sourceOfShard{shard, sourcePartition{id.topic, id.partition}}]
				if !ok || id.before(at) {
					if h.count != nil {
						c.part.stage(entitiesStage).Expired++
					}
					return
				}
			}
			size := m.SizeVT()
			value = slices.Grow(value[:0], size)[:size]
			if _, err := m.MarshalToSizedBufferVT(value); err != nil {
				failed = fmt.Errorf("encode %s/%d offset %d index %d: %w", r.topic.Name, r.partition, id.offset, id.index, err)
			}
			h.message(shard, m, value)
		})
		err := c.scan(ctx, r.topic.Name, r.partition, r.from, r.to, func(rec *Record) {
			if h.count != nil {
				h.count.RawMessages++
			}
			values := 0
			broken := func(q sinks.QuarantinedRecord) {
				if h.broken == nil {
					return
				}
				hash, hour := hasher.Quarantined(&q)
				if hour >= keptQuarantine {
					h.broken(sinks.SourceHour{Topic: r.topic.Name, Partition: int32(r.partition), Hour: hour}, q.Source, hash)
				}
			}
			// As in the router, what this program's own code fails on must be in quarantine.
			failedOn := func(index int, bytes []byte) {
				broken(sinks.QuarantinedRecord{Source: d.source(index), Stage: sinks.StageDecode, ReceivedTime: rec.Time, Bytes: bytes})
			}
			defer func() {
				if recover() != nil {
					d.decoder = schemas.NewDecoder() // the old one is in no known state
					failedOn(values, rec.Value)
				}
			}()
			d.decode(*rec, func(index int, decoded *schemas.Decoded) {
				values = index + 1
				defer func() {
					if recover() != nil {
						failedOn(index, decoded.Raw)
					}
				}()
				switch decoded.Kind {
				case schemas.KindBroken:
					broken(d.quarantined(index, decoded))
				case schemas.KindSignIn:
					if h.count != nil {
						h.count.SignIns++
					}
					if h.signIn != nil && c.deps.RawRecords {
						raw := d.received(index, decoded)
						hash, hour := hasher.Raw(&raw)
						switch {
						case hour < keptRaw:
						case len(c.rawRefused) > 0 && c.rawRefused[c.identityOf(raw.Source)]:
							if h.count != nil {
								c.part.stage(sinks.RawRecordsTable).Quarantined++
							}
						default:
							h.signIn(sinks.SourceHour{Topic: r.topic.Name, Partition: int32(r.partition), Hour: hour}, raw.Source, hash)
						}
					}
					d.deal(index, decoded.SignIn)
				}
			})
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keptHour is the first hour of receipt of which a table has its rows for certain.
func (v *verifier) keptHour(table string) int32 {
	at, ok := v.kept[table]
	if !ok {
		return 0
	}
	return int32(at / 1000 / 3_600_000)
}

// maxNamed bounds the messages that are looked at one by one to name what differs.
const maxNamed = 1 << 20

// compareEntities compares hour by hour, and names what differs.
func (c *rawComparison) compareEntities(ctx context.Context, want, got map[entityHour]entityFold) error {
	stage := c.part.stage(entitiesStage)
	bad := map[entityHour]bool{}
	looked := uint64(0)
	for k := range union(want, got) {
		w, g := want[k], got[k]
		if !w.differs(g, c.options.PresenceOnly) {
			if c.options.PresenceOnly && w.contents != g.contents {
				stage.Present += int64(w.identities.Count)
			} else {
				stage.Exact += int64(w.identities.Count)
			}
			continue
		}
		key := findingKey{in: entitiesStage, topic: c.config.EntitiesTopic, partition: k.shard, hour: k.hour}
		if looked += w.identities.Count + g.identities.Count; looked <= maxNamed {
			bad[k] = true
			continue
		}
		// Too many to look at: the numbers alone tell.
		key.reason = "not looked at one by one"
		switch w, g := int64(w.identities.Count), int64(g.identities.Count); {
		case w > g:
			key.kind = Lost
			c.part.find(key, w-g, "")
		case w < g:
			key.kind = Repeated
			c.part.find(key, g-w, "")
		default:
			key.kind = Altered
			c.part.find(key, 1, "")
		}
	}
	if len(bad) == 0 {
		return nil
	}
	type place struct {
		shard int
		id    identity
	}
	type content struct {
		hash uint64
		hour int32
	}
	wanted, found, places := map[place]content{}, map[place]content{}, map[string][]place{}
	if err := c.scanRaw(ctx, nil, rawHandler{message: func(shard int, m *schemas.EntityMessage, value []byte) {
		if hour := hourOf(m.ReceivedMs); bad[entityHour{shard, hour}] {
			wanted[place{shard, identityOf(m.Source)}] = content{xxhash.Sum64(value), hour}
		}
	}}); err != nil {
		return err
	}
	if err := c.scanEntities(ctx, func(shard int, m *schemas.EntityMessage, value []byte, repeat bool) {
		r, id := c.ranges[sourcePartition{m.Source.Topic, m.Source.Partition}], identityOf(m.Source)
		if hour := hourOf(m.ReceivedMs); r != nil && !repeat && r.contains(id.offset) && !c.refused[id] && bad[entityHour{shard, hour}] {
			if _, twice := found[place{shard, id}]; twice {
				places[Repeated] = append(places[Repeated], place{shard, id})
			}
			found[place{shard, id}] = content{xxhash.Sum64(value), hour}
		}
	}); err != nil {
		return err
	}
	for p, w := range wanted {
		g, ok := found[p]
		switch {
		case !ok:
			places[Lost] = append(places[Lost], p)
		case g.hash != w.hash && !c.options.PresenceOnly:
			places[Altered] = append(places[Altered], p)
		default:
			stage.Exact++
		}
	}
	for p := range found {
		if _, ok := wanted[p]; !ok {
			places[Repeated] = append(places[Repeated], p)
		}
	}
	if len(places) == 0 {
		// The sums differed, so there must be something.
		return fmt.Errorf("%d hours of the entities topic differed and did not when they were read again: %w", len(bad), errAgain)
	}
	for kind, list := range places {
		slices.SortFunc(list, func(a, b place) int {
			if a.id.before(b.id) {
				return -1
			}
			return 1
		})
		for _, p := range list {
			at, ok := wanted[p]
			if !ok {
				at = found[p]
			}
			c.part.find(findingKey{kind: kind, in: entitiesStage, topic: c.config.EntitiesTopic, partition: p.shard, hour: at.hour}, 1,
				fmt.Sprintf("%s/%d offset %d index %d", c.topics[p.id.topic].Name, p.id.partition, p.id.offset, p.id.index))
		}
	}
	return nil
}

// union returns the keys of both.
func union[K comparable, V any](a, b map[K]V) map[K]bool {
	all := make(map[K]bool, len(a)+len(b))
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

// compareRecords compares quarantine or raw_records with what the raw topics give, hour by hour, and names what differs.
func (c *rawComparison) compareRecords(ctx context.Context, table, stageName string, want map[sinks.SourceHour]sinks.Fold) error {
	stage := c.part.stage(table)
	var ranges []sinks.SourceRange
	byPartition := map[sinks.SourceHour]*rawRange{}
	for _, r := range c.order {
		ranges = append(ranges, r.sourceRange())
		byPartition[sinks.SourceHour{Topic: r.topic.Name, Partition: int32(r.partition)}] = r
	}
	got, err := c.deps.Tables.SourceFolds(ctx, table, stageName, ranges, c.keptHour(table))
	if err != nil {
		return err
	}
	looked := uint64(0)
	for k := range union(want, got) {
		w, g := want[k], got[k]
		if w == g {
			stage.Exact += int64(w.Count)
			continue
		}
		key := findingKey{in: table, topic: k.Topic, partition: int(k.Partition), hour: k.Hour}
		if looked += w.Count + g.Count; looked > maxNamed {
			key.kind, key.reason = Altered, "not looked at one by one"
			if w.Count > g.Count {
				key.kind = Lost
			} else if w.Count < g.Count {
				key.kind = Repeated
			}
			c.part.find(key, max(int64(w.Count)-int64(g.Count), int64(g.Count)-int64(w.Count), 1), "")
			continue
		}
		if err := c.nameRecords(ctx, table, stageName, byPartition[sinks.SourceHour{Topic: k.Topic, Partition: k.Partition}], key); err != nil {
			return err
		}
	}
	return nil
}

func (r *rawRange) sourceRange() sinks.SourceRange {
	return sinks.SourceRange{Topic: r.topic.Name, Incarnation: r.topic.Incarnation, Partition: int32(r.partition), From: r.from, To: r.to}
}

// nameRecords compares one hour of one raw partition record by record.
func (c *rawComparison) nameRecords(ctx context.Context, table, stageName string, r *rawRange, key findingKey) error {
	type place struct {
		offset int64
		index  uint32
	}
	wanted, found := map[place]uint64{}, map[place][]uint64{}
	take := func(k sinks.SourceHour, s sinks.Source, hash uint64) {
		if k.Hour == key.hour {
			wanted[place{s.Offset, s.Index}] = hash
		}
	}
	h := rawHandler{broken: take}
	if table == sinks.RawRecordsTable {
		h = rawHandler{signIn: take}
	}
	if err := c.scanRaw(ctx, r, h); err != nil {
		return err
	}
	if err := c.deps.Tables.SourceRows(ctx, table, stageName, r.sourceRange(), key.hour, func(offset int64, index uint32, hash uint64) {
		p := place{offset, index}
		found[p] = append(found[p], hash)
	}); err != nil {
		return err
	}
	find := func(kind string, p place) {
		key.kind = kind
		c.part.find(key, 1, fmt.Sprintf("offset %d index %d", p.offset, p.index))
	}
	for p, hash := range wanted {
		switch hashes := found[p]; {
		case len(hashes) == 0:
			find(Lost, p)
		case !slices.Contains(hashes, hash):
			find(Altered, p)
		default:
			c.part.stage(table).Exact++
		}
	}
	for p, hashes := range found {
		if _, ok := wanted[p]; !ok {
			find(Repeated, p)
		} else if len(hashes) > 1 {
			find(Repeated, p)
		}
	}
	return nil
}
