package pipeline

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

// What is known of a stored row.
const (
	rowSeen    = 1 << iota // the log gives its key
	rowExact               // the log gives this very row
	rowAltered             // the log gives another row with this revision
	rowStale               // the log gives a newer row that must be stored by now
	rowPresent             // the log gives its key, by a state or an epoch that cannot be had any more
)

// storedRow is a row as ClickHouse shows it.
type storedRow struct {
	hash, revision uint64
	hour           int32
	known          uint8
}

// rowSet holds stored rows by key, about 45 bytes each.
type rowSet struct {
	at   map[uint64]uint32
	rows []storedRow
}

// get returns the row with a key, nil for none. It is valid until the next add.
func (s *rowSet) get(key uint64) *storedRow {
	if i, ok := s.at[key]; ok {
		return &s.rows[i]
	}
	return nil
}

func (s *rowSet) add(h sinks.HashedRow) {
	if s.at == nil {
		s.at = map[uint64]uint32{}
	}
	s.at[h.Key] = uint32(len(s.rows))
	s.rows = append(s.rows, storedRow{hash: h.Hash, revision: h.Revision, hour: h.Hour})
}

// missingRow is a row that the log gives and ClickHouse has not, or only an older revision of it.
type missingRow struct {
	revision uint64
	source   uint64 // its key in the table that feeds the one that misses it
	hour     int32
	name     string
}

// shardComparison is the comparison of one shard of the entities topic with its rows.
type shardComparison struct {
	*verifier
	part       *verifyPart
	shard      int
	position   sinks.Position // the stored one
	first, end int64
	stored     [sinks.Relations]rowSet
	// missing are keys of which no row is stored, stale those of which only an older one is.
	missing, stale [sinks.Relations]map[uint64]missingRow
	// aside are the offsets of messages of which ClickHouse refused rows, by the table they were for.
	aside map[string]map[int64]bool
	// exactFrom is the first offset whose rows are compared to the last byte, in the stored position's epoch.
	exactFrom int64
	undecoded []int64
	// passed are the offsets that shards pass over, see Dependencies.PassedOver.
	passed []int64
	hasher *sinks.RowHasher
	wrong  map[uint64]bool // keys of diagnoses, for request_ids
}

func (v *verifier) verifyRows(ctx context.Context) error {
	wrong := map[uint64]bool{}
	for shard := range v.config.Partitions {
		if err := v.again(ctx, entitiesStage, shard, func(p *verifyPart) error {
			c := &shardComparison{verifier: v, part: p, shard: shard, hasher: sinks.NewRowHasher(v.deps.Renderer), wrong: wrong}
			return c.run(ctx)
		}); err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
	}
	if err := v.strayRows(ctx); err != nil {
		return err
	}
	return v.again(ctx, requestIDs, -1, func(p *verifyPart) error { return v.requestIDs(ctx, p, wrong) })
}

// strayRows finds rows of shards that there are none of.
func (v *verifier) strayRows(ctx context.Context) error {
	for r := range sinks.Relations {
		if err := v.deps.Tables.Stray(ctx, r, uint16(v.config.Partitions), func(shard uint16, rows uint64) {
			v.total.find(findingKey{kind: Repeated, in: r.String(), topic: v.config.EntitiesTopic, partition: int(shard), hour: noHour,
				reason: fmt.Sprintf("the topic has %d partitions", v.config.Partitions)}, int64(rows), "")
		}); err != nil {
			return err
		}
	}
	return nil
}

// unchecked adds a finding that something of the shard cannot be compared.
func (c *shardComparison) unchecked(reason string) {
	c.part.find(findingKey{kind: Unchecked, in: entitiesStage, topic: c.config.EntitiesTopic, partition: c.shard, hour: noHour, epoch: c.position.Epoch, reason: reason}, 1, "")
}

func (c *shardComparison) run(ctx context.Context) error {
	all, err := c.deps.Tables.Progress(ctx, c.config.EntitiesTopic)
	if err != nil {
		return err
	}
	position, begun := all[uint16(c.shard)]
	c.position = position
	newest, err := c.read(ctx)
	if err != nil {
		return err
	}
	// After the rows, since every row is of a message that was there before it.
	if c.first, c.end, err = c.deps.Kafka.ListOffsets(ctx, c.config.EntitiesTopic, c.shard); err != nil {
		return err
	}
	machine, err := c.deps.NewMachine(uint32(c.shard), uint32(c.config.Partitions))
	if err != nil {
		return fmt.Errorf("make the state machine: %w", err)
	}
	if !begun {
		// Rows may be there whose position is not: the process died in between.
		c.position = sinks.Position{Shard: uint16(c.shard), Epoch: uint16(newest >> 48), Offset: c.first - 1, Incarnation: c.config.EntitiesIncarnation, Fingerprint: machine.Fingerprint()}
	}
	if c.position.Incarnation != c.config.EntitiesIncarnation {
		c.unchecked(fmt.Sprintf("the stored position is of incarnation %d, %s is %d", c.position.Incarnation, EntitiesIncarnationSetting, c.config.EntitiesIncarnation))
		return nil
	}
	if epoch := uint16(newest >> 48); epoch > c.position.Epoch {
		// An epoch begins: its rows are stored before its position.
		return fmt.Errorf("there are rows of epoch %d, the stored position is of epoch %d: %w", epoch, c.position.Epoch, errAgain)
	}
	last := c.position.Offset
	if uint16(newest>>48) == c.position.Epoch {
		last = max(last, offsetOf(newest))
	}
	if c.position.Offset >= c.end {
		c.part.find(findingKey{kind: Lost, in: entitiesStage, topic: c.config.EntitiesTopic, partition: c.shard, hour: noHour, reason: "the log ends below the stored position"},
			c.position.Offset+1-c.end, "")
	}
	c.part.counts.EntitiesWaiting += max(c.end-1-c.position.Offset, 0)
	last = min(last, c.end-1)
	if c.deps.PassedOver != nil {
		passed, err := c.deps.PassedOver(ctx, c.position.Incarnation, c.position.Fingerprint)
		if err != nil {
			return err
		}
		c.passed = passed[uint16(c.shard)]
	}
	snap, from, ok, err := c.beginning(ctx, machine.Fingerprint())
	if err != nil {
		return err
	}
	switch {
	case machine.Fingerprint() != c.position.Fingerprint:
		ok = false
		if !c.options.PresenceOnly {
			c.unchecked("this process has other settings, another catalogue or another version than the one that made the rows, so that it can only look whether they are there; " +
				"run verify as the pipeline is configured, or accept that with --presence")
		}
	case !ok:
		c.part.note("shard %d: no snapshot is left of epoch %d and the log has lost its beginning, so rows are only looked for", c.shard, c.position.Epoch)
	}
	c.exactFrom = math.MaxInt64
	if ok {
		c.exactFrom = from
	}
	if c.exactFrom > c.first {
		if err := c.lookFor(ctx, min(c.exactFrom-1, c.position.Offset)); err != nil {
			return err
		}
	}
	if ok {
		if snap != nil {
			if err := machine.RestoreSnapshot(snap.State); err != nil {
				return fmt.Errorf("restore snapshot %s: %w", snap.key(), err)
			}
		}
		if err := c.compare(ctx, machine, from, last); err != nil {
			return err
		}
	}
	if err := c.quarantined(ctx); err != nil {
		return err
	}
	return c.judge(ctx)
}

// read reads the rows and returns the newest revision.
func (c *shardComparison) read(ctx context.Context) (newest uint64, err error) {
	for r := range sinks.Relations {
		if err := c.deps.Tables.Rows(ctx, r, uint16(c.shard), c.from, c.to, func(h sinks.HashedRow) {
			c.stored[r].add(h)
			newest = max(newest, h.Revision)
		}); err != nil {
			return 0, err
		}
		c.missing[r], c.stale[r] = map[uint64]missingRow{}, map[uint64]missingRow{}
	}
	c.aside = map[string]map[int64]bool{}
	return newest, c.deps.Tables.Refused(ctx, c.config.EntitiesTopic, uint16(c.shard), func(table string, offset int64) {
		if c.aside[table] == nil {
			c.aside[table] = map[int64]bool{}
		}
		c.aside[table][offset] = true
	})
}

// beginning finds the state with which the epoch's rows can be made again: its oldest snapshot, or none where the epoch is the
// first and the log is whole. from is the first offset behind it; ok is false where there is no such state.
func (c *shardComparison) beginning(ctx context.Context, fingerprint uint64) (snap *Snapshot, from int64, ok bool, err error) {
	p := c.position
	// The first epoch of all begins without state, and only that one does so for certain.
	if p.Epoch <= 1 && c.first == 0 {
		return nil, 0, true, nil
	}
	names, err := c.deps.Snapshots.List(ctx, c.config.EntitiesTopic, uint16(c.shard))
	if err != nil {
		return nil, 0, false, err
	}
	for _, n := range names {
		if n.Epoch != p.Epoch || n.Incarnation != p.Incarnation || n.Fingerprint != p.Fingerprint || n.Fingerprint != fingerprint || n.Offset+1 < c.first {
			continue
		}
		snap, err := c.deps.Snapshots.Read(ctx, n)
		if err != nil {
			c.log.Info("a snapshot is of no use; the next one is taken", "snapshot", n.Key, "error", err)
			continue
		}
		return snap, snap.Offset + 1, true, nil
	}
	return nil, 0, false, nil
}

// replay applies the messages at offsets [from, to] and calls each for every one that can be decoded with its rows. It notes those
// that cannot, and those that are passed over.
func (c *shardComparison) replay(ctx context.Context, machine Machine, from, to int64, each func(*Record, *schemas.EntityMessage, *detectors.Rows)) error {
	machine.SetEpoch(c.position.Epoch)
	var m schemas.EntityMessage
	var rows detectors.Rows
	return c.scan(ctx, c.config.EntitiesTopic, c.shard, from, to+1, func(rec *Record) {
		m.ResetVT()
		if err := m.UnmarshalVTUnsafe(rec.Value); err != nil || m.Source == nil || m.SignIn == nil || slices.Contains(c.passed, rec.Offset) {
			if rec.Offset <= c.position.Offset {
				c.undecoded = append(c.undecoded, rec.Offset)
			}
			return
		}
		rows.Reset()
		machine.Apply(&m, rec.Offset, &rows)
		each(rec, &m, &rows)
	})
}

// outside reports whether a row is not compared: it lies outside of the bounds asked for.
func (c *shardComparison) outside(r sinks.Relation) bool {
	at := c.hasher.Micros()
	return r.Bounded() && (at < c.from || at >= c.to)
}

// lookFor makes the diagnoses of the log up to an offset without their state, so that only their keys are certain, and looks for those.
func (c *shardComparison) lookFor(ctx context.Context, to int64) error {
	machine, err := c.deps.NewMachine(uint32(c.shard), uint32(c.config.Partitions))
	if err != nil {
		return fmt.Errorf("make the state machine: %w", err)
	}
	begun := int64(math.MinInt64)
	position := sinks.Position{Shard: uint16(c.shard)}
	return c.replay(ctx, machine, c.first, to, func(_ *Record, m *schemas.EntityMessage, rows *detectors.Rows) {
		if begun == math.MinInt64 {
			begun = m.ReceivedMs
		}
		rows.Incidents, rows.Members = rows.Incidents[:0], rows.Members[:0]
		c.hasher.Hash(rows, position, func(r sinks.Relation, row sinks.HashedRow) {
			if c.outside(r) {
				return
			}
			if s := c.stored[r].get(row.Key); s != nil {
				s.known |= rowSeen | rowPresent
				return
			}
			// Where the log has lost its beginning, a record may be the second part of one that is not there any more and have
			// its row under the first one's correlation id.
			if c.first > 0 && m.ReceivedMs < begun+detectors.DefaultRecentHorizon.Milliseconds() {
				return
			}
			row.Revision = uint64(offsetOf(row.Revision)) // its epoch is not known
			c.miss(r, row)
		})
	})
}

// compare makes the rows of the offsets [from, to] from the state of machine, and compares them with what is stored.
func (c *shardComparison) compare(ctx context.Context, machine Machine, from, to int64) error {
	// Rows above it may be stored, those up to it must.
	due := func(row sinks.HashedRow) bool { return offsetOf(row.Revision) <= c.position.Offset }
	return c.replay(ctx, machine, from, to, func(_ *Record, _ *schemas.EntityMessage, rows *detectors.Rows) {
		if len(rows.Diagnoses)+len(rows.Incidents)+len(rows.Members) == 0 {
			return
		}
		c.hasher.Hash(rows, c.position, func(r sinks.Relation, row sinks.HashedRow) {
			if c.outside(r) {
				return
			}
			s := c.stored[r].get(row.Key)
			switch {
			case s == nil:
				if due(row) {
					c.miss(r, row)
				}
			case s.revision == row.Revision:
				s.known |= rowSeen
				if s.hash == row.Hash {
					s.known |= rowExact
				} else {
					s.known |= rowAltered
				}
			default:
				s.known |= rowSeen
				if s.revision < row.Revision && due(row) {
					if c.setAside(r, row.Revision) {
						c.part.stage(r.String()).Quarantined++
						return
					}
					s.known |= rowStale
					c.stale[r][row.Key] = missingRow{row.Revision, 0, row.Hour, c.hasher.Name()}
				}
			}
		})
	})
}

func (c *shardComparison) setAside(r sinks.Relation, revision uint64) bool {
	return c.aside[r.Source().String()][offsetOf(revision)]
}

// offsetOf is the offset in the entities topic of a revision, see detectors.Revision.
func offsetOf(revision uint64) int64 { return int64(revision & (1<<48 - 1)) }

// miss notes a row that must be there and is not.
func (c *shardComparison) miss(r sinks.Relation, row sinks.HashedRow) {
	if c.hasher.Micros() < c.keptFrom(r.String()) {
		delete(c.missing[r], row.Key)
		c.part.stage(r.String()).Expired++
		return
	}
	name := c.missing[r][row.Key].name
	if name == "" && len(c.missing[r]) < maxNamed {
		name = c.hasher.Name()
	}
	c.missing[r][row.Key] = missingRow{row.Revision, c.hasher.SourceKey(), row.Hour, name}
}

// replaced reports whether a row that a view's table lacks was replaced where it was inserted, by a newer row of the same key that
// stands elsewhere in the view's table: records that share their ids and differ in user or time, as anonymised ones do.
func (c *shardComparison) replaced(r sinks.Relation, m missingRow) bool {
	if r.Source() == r {
		return false
	}
	s := c.stored[r.Source()].get(m.source)
	return s != nil && s.revision > m.revision
}

// quarantined compares the messages that cannot be decoded with the quarantine.
func (c *shardComparison) quarantined(ctx context.Context) error {
	if len(c.undecoded) == 0 {
		return nil
	}
	there := map[int64]bool{}
	if err := c.deps.Tables.Quarantined(ctx, sinks.StageEntities, c.config.EntitiesTopic, func(s sinks.Source) {
		if s.Partition == int32(c.shard) && s.Incarnation == c.position.Incarnation {
			there[s.Offset] = true
		}
	}); err != nil {
		return err
	}
	_, expires := c.kept[sinks.QuarantineTable]
	slices.Sort(c.undecoded)
	for _, offset := range slices.Compact(c.undecoded) {
		switch {
		case there[offset]:
			c.part.stage(sinks.QuarantineTable).Exact++
		case expires:
			c.part.stage(sinks.QuarantineTable).Expired++
		default:
			c.part.find(findingKey{kind: Lost, in: sinks.QuarantineTable, topic: c.config.EntitiesTopic, partition: c.shard, hour: noHour}, 1, fmt.Sprintf("offset %d", offset))
		}
	}
	return nil
}

// maxLookups bounds the rows of one table and shard that are asked for by key.
const maxLookups = 50_000

// judge adds up what is known of every row.
func (c *shardComparison) judge(ctx context.Context) error {
	told := map[uint64]bool{}
	for r := range sinks.Relations {
		stage := c.part.stage(r.String())
		epoch := c.position.Epoch
		key := func(kind string, hour int32, epoch uint16) findingKey {
			return findingKey{kind: kind, in: r.String(), topic: c.config.EntitiesTopic, partition: c.shard, hour: hour, epoch: epoch}
		}
		exactFrom := uint64(math.MaxUint64)
		if c.exactFrom != math.MaxInt64 {
			exactFrom = detectors.Revision(epoch, c.exactFrom)
		}
		// What is wrong is asked for once more, by key: for names, and for rows that another shard made newer.
		type wrong struct {
			kind string
			row  *storedRow
		}
		bad := map[uint64]wrong{}
		for k, i := range c.stored[r].at {
			s := &c.stored[r].rows[i]
			switch {
			case s.known&rowAltered != 0 && s.known&rowExact == 0:
				bad[k] = wrong{Altered, s}
			case s.known&rowStale != 0:
				bad[k] = wrong{Lost, s}
			case s.known&rowExact != 0:
				stage.Exact++
			case s.revision >= exactFrom && s.known&rowSeen != 0:
				bad[k] = wrong{Altered, s}
			case s.revision >= exactFrom:
				bad[k] = wrong{Repeated, s}
			case s.known&rowPresent != 0:
				stage.Present++
			case (r == sinks.Diagnoses || r == sinks.DiagnosesByUser) && c.first == 0 && c.position.Incarnation == 1:
				// The log is whole and gives no such record, by whatever settings.
				bad[k] = wrong{Repeated, s}
			default:
				stage.Unchecked++
			}
		}
		var keys []uint64
		for k := range c.missing[r] {
			keys = append(keys, k)
		}
		for k := range bad {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		names := map[uint64]string{}
		superseded := map[uint64]bool{}
		changed := false
		if err := c.deps.Tables.Keys(ctx, r, keys[:min(len(keys), maxLookups)], func(row sinks.HashedRow, shard uint16, name string) {
			names[row.Key] = name
			m, isMissing := c.missing[r][row.Key]
			if !isMissing {
				m = c.stale[r][row.Key]
			}
			if shard != uint16(c.shard) {
				superseded[row.Key] = superseded[row.Key] || isMissing && row.Revision >= m.revision
			} else if w, ok := bad[row.Key]; isMissing || !ok || w.row.hash != row.Hash || w.row.revision != row.Revision {
				changed = true
			}
		}); err != nil {
			return err
		}
		if changed {
			return fmt.Errorf("rows of %s came late: %w", r, errAgain)
		}
		for _, k := range keys {
			if r == sinks.Diagnoses {
				told[k] = true
			}
			if w, ok := bad[k]; ok {
				at := key(w.kind, w.row.hour, uint16(w.row.revision>>48))
				name := names[k]
				if w.kind == Lost {
					m := c.stale[r][k]
					at = key(Lost, m.hour, epoch)
					at.reason = "only an older revision is stored"
					name = m.name
				}
				c.part.find(at, 1, name)
				continue
			}
			m := c.missing[r][k]
			switch {
			case superseded[k] || c.replaced(r, m):
				stage.Superseded++
			case c.setAside(r, m.revision):
				stage.Quarantined++
			default:
				c.part.find(key(Lost, m.hour, epoch), 1, m.name)
			}
		}
	}
	maps.Copy(c.wrong, told)
	return nil
}

// requestIDs is the table that leads from a request id to its row in diagnoses.
const requestIDs = "request_ids"

// requestIDs compares request_ids with diagnoses, whose rows are verified by then, hour by hour. wrong are keys of diagnoses that have
// been told.
func (v *verifier) requestIDs(ctx context.Context, p *verifyPart, wrong map[uint64]bool) error {
	positions, err := v.deps.Tables.Progress(ctx, v.config.EntitiesTopic)
	if err != nil {
		return err
	}
	want, err := v.deps.Tables.RequestIDFolds(ctx, sinks.Diagnoses.String())
	if err != nil {
		return err
	}
	got, err := v.deps.Tables.RequestIDFolds(ctx, requestIDs)
	if err != nil {
		return err
	}
	stage := p.stage(requestIDs)
	kept := v.keptFrom(requestIDs)
	for hour := range union(want, got) {
		start := int64(hour) * time.Hour.Microseconds()
		switch {
		case start < kept:
			stage.Expired += int64(want[hour].Count)
			continue
		case start+time.Hour.Microseconds() <= v.from || start >= v.to:
			continue
		case want[hour] == got[hour]:
			stage.Exact += int64(want[hour].Count)
			continue
		}
		if err := v.nameRequestIDs(ctx, p, hour, positions, wrong); err != nil {
			return err
		}
	}
	return nil
}

// nameRequestIDs compares one hour row by row. Rows that come meanwhile are in one table before they are in the other.
func (v *verifier) nameRequestIDs(ctx context.Context, p *verifyPart, hour int32, positions map[uint16]sinks.Position, wrong map[uint64]bool) error {
	read := func(table string) (map[uint64][]sinks.RequestIDRow, error) {
		rows := map[uint64][]sinks.RequestIDRow{}
		err := v.deps.Tables.RequestIDRows(ctx, table, hour, func(r sinks.RequestIDRow) { rows[r.Key] = append(rows[r.Key], r) })
		return rows, err
	}
	before, err := read(sinks.Diagnoses.String())
	if err != nil {
		return err
	}
	found, err := read(requestIDs)
	if err != nil {
		return err
	}
	after, err := read(sinks.Diagnoses.String())
	if err != nil {
		return err
	}
	at := func(kind string) findingKey {
		return findingKey{kind: kind, in: requestIDs, topic: v.config.EntitiesTopic, partition: -1, hour: hour}
	}
	for k, rows := range before {
		row, stored := rows[0], found[k]
		position := positions[row.Shard]
		switch {
		case wrong[k]:
		case len(stored) == 0 && row.Revision > detectors.Revision(position.Epoch, position.Offset):
			// Its INSERT may be under way.
		case len(stored) == 0:
			p.find(at(Lost), 1, row.Name)
		case stored[0].Hash != row.Hash:
			p.find(at(Altered), 1, row.Name)
		default:
			p.stage(requestIDs).Exact++
		}
	}
	for k, rows := range found {
		if len(before[k]) == 0 && len(after[k]) == 0 && !wrong[k] {
			p.find(at(Repeated), 1, rows[0].Name)
		}
	}
	return nil
}
