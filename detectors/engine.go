package detectors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// DecisionVersion is the version of the code that decides. Raise it with every change that may give another
// row for the same log: it is part of the fingerprint, hence of the epoch.
const DecisionVersion = 6

// Defaults of Options.
const (
	DefaultMergeHorizon = 2*time.Hour + 15*time.Minute // MFA details may take about 2 h to settle
	// DefaultRecentHorizon is the longest window: a record that is late by less may still change an earlier row.
	DefaultRecentHorizon = 48 * time.Hour
	DefaultAttemptGap    = 15 * time.Minute
	DefaultRecentBytes   = 64 << 20
	DefaultStateBytes    = 128 << 20
)

// Options configure an Engine. Zero values mean the defaults. All but Epoch take part in what an engine decides.
type Options struct {
	// Catalogue is what error codes and scenarios mean; required.
	Catalogue *catalogue.Catalogue
	// Settings of the tenants; nil means DefaultSettings. They must not change any more.
	Settings *Settings
	// MergeHorizon is how long, by Kafka time of the raw messages, parts and versions of a record are united.
	MergeHorizon time.Duration
	// RecentHorizon is how long, by Kafka time of the raw messages, a record is kept so that its row can be revised, as far as
	// RecentBytes allows. It is not below MergeHorizon.
	RecentHorizon time.Duration
	// AttemptGap is the longest time between neighbours of one attempt, by event time.
	AttemptGap time.Duration
	// RecentBytes bounds the recent records that an engine keeps for merging and for rows that change later:
	// the bytes of the records and 168 bytes for each. The store may exceed it by one record.
	RecentBytes int64
	// StateBytes bounds what an engine keeps of users, addresses ... with failures.
	StateBytes int64
	// Shard and Shards say which entities are this engine's own, where a record touches several of one kind: those whose key
	// falls on partition Shard of Shards. 0 Shards means that all are. They decide nothing by themselves.
	Shard, Shards uint32
	// Epoch is the upper part of the revisions.
	Epoch uint16
}

// Engine is the state machine of one shard. It is not safe for concurrent use. Its memory is bounded by
// Options.RecentBytes and Options.StateBytes, whatever the log holds; the fence takes 40 bytes per source partition.
//
// What a row says is final only as far as the engine remembers: a late failure emits the rows of later records anew
// where they turn into repeated_failures (or out of it) and are among the user's 64 newest records of the recent store;
// numbers in the evidence of rows that did not turn stay as they were when the row was emitted.
type Engine struct {
	options    Options
	catalogue  *catalogue.Catalogue
	settings   *Settings
	classifier *classifier
	epoch      uint16
	stats      Stats

	*state

	// Scratch memory of one Apply.
	dealer   Dealer
	known    schemas.SignIn // the stored version of the record
	united   schemas.SignIn
	decoded  schemas.SignIn
	compact  schemas.SignIn
	view     View
	affected []uint64
	retell   []uint64 // records whose place in an incident changed
	ofUser   []uint64
	story    story
	members  []*event
	rowBytes []byte
	counter  counter
	// Of one look at a group.
	actors, addresses, pairs counter
	actorViews               []actorView
	tries                    []*event
	aside                    []bool
	agents                   []uint32
}

// state is what a snapshot holds.
type state struct {
	fence    fence
	recent   recentStore
	attempts attempts
	entities entities
	started  int64 // least event time seen, microseconds
}

// Stats are plain numbers of an engine since it was made, for metrics. Sizes are current; nothing of it is in a snapshot
// but the sizes.
type Stats struct {
	Messages        uint64 // calls of Apply
	RepeatsFenced   uint64 // messages at or below the fence of their source, dropped
	Empty           uint64 // messages without a record, dropped
	Records         uint64 // records in a full role
	Duplicates      uint64 // exact repeats of a record, from another place of the raw log
	Merges          uint64 // parts and versions united with a known record
	Replacements    uint64 // whole copies beyond the merge horizon that replaced a known record
	Rows            uint64 // rows of diagnoses
	Revised         uint64 // rows of diagnoses for records other than that of the message
	Events          uint64 // failures and other events that the windows of users, addresses ... took in
	EventsTooLate   uint64 // events older than all kept ones of an entity with more than are kept
	EventsRepeated  uint64 // tries of a client without a person that repeat an event
	Incidents       uint64 // incidents opened
	Members         uint64 // rows of incident_members
	Unreadable      uint64 // records of a damaged snapshot that could not be read back
	RecordsEvicted  uint64 // records that left the recent store
	EntitiesEvicted uint64 // users, addresses ... with events that were let go
	RecentRecords   int64
	RecentBytes     int64
	AttemptGroups   int64
	Entities        int64 // users, addresses ... with events
	StateBytes      int64
	// The bounds of RecentBytes and StateBytes.
	RecentBytesBound, StateBytesBound int64
	SourcePartitions                  int64
	// Detections holds the numbers of every detection, in the order of DetectionNames. The slice belongs to the engine.
	Detections []DetectionStats
}

// DetectionStats are the numbers of one detection.
type DetectionStats struct {
	Evaluated  uint64 // looks at a story
	Fired      uint64 // incidents in which it found something for the first time
	Suppressed uint64 // looks at which its numbers were reached and something spoke against an attack
}

// ErrSnapshotVersion is returned by RestoreSnapshot for a snapshot of another version: replay the log instead.
var ErrSnapshotVersion = errors.New("snapshot has another version of the state format")

// NewEngine returns an engine without history.
func NewEngine(o Options) (*Engine, error) {
	if o.Catalogue == nil {
		return nil, errors.New("make engine: no catalogue")
	}
	if o.Settings == nil {
		o.Settings = DefaultSettings()
	}
	if err := o.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("make engine: %w", err)
	}
	o.MergeHorizon = cmp.Or(o.MergeHorizon, DefaultMergeHorizon)
	o.RecentHorizon = max(cmp.Or(o.RecentHorizon, DefaultRecentHorizon), o.MergeHorizon)
	o.AttemptGap = cmp.Or(o.AttemptGap, DefaultAttemptGap)
	o.RecentBytes = cmp.Or(o.RecentBytes, DefaultRecentBytes)
	o.StateBytes = cmp.Or(o.StateBytes, DefaultStateBytes)
	if o.MergeHorizon < 0 || o.AttemptGap < 0 || o.RecentBytes < 0 || o.StateBytes < 0 {
		return nil, fmt.Errorf("make engine: merge horizon %s, attempt gap %s, recent bytes %d and state bytes %d must not be negative",
			o.MergeHorizon, o.AttemptGap, o.RecentBytes, o.StateBytes)
	}
	e := &Engine{
		options: o, catalogue: o.Catalogue, settings: o.Settings, epoch: o.Epoch,
		classifier: newClassifier(o.Catalogue, o.Settings),
	}
	e.stats.Detections = make([]DetectionStats, len(detections))
	e.state = e.newState()
	return e, nil
}

func (e *Engine) newState() *state {
	s := &state{started: 1<<63 - 1}
	s.fence.init()
	s.attempts.init(&s.recent, e.options.AttemptGap.Microseconds())
	s.recent.init(e.options.RecentBytes, e.options.RecentHorizon.Milliseconds(), s.attempts.onEvict)
	s.entities.init(e.options.StateBytes)
	return s
}

// SetEpoch sets the epoch of the revisions of all rows that follow. A snapshot does not hold it.
func (e *Engine) SetEpoch(epoch uint16) { e.epoch = epoch }

// Fingerprint identifies everything that decides beside the log itself: the code's DecisionVersion, the
// thresholds, the bounds and the catalogue. Another fingerprint needs another epoch.
func (e *Engine) Fingerprint() uint64 {
	var b []byte
	for _, v := range [...]uint64{
		DecisionVersion, e.settings.Fingerprint(), e.catalogue.Fingerprint(), uint64(e.options.MergeHorizon), uint64(e.options.RecentHorizon),
		uint64(e.options.AttemptGap), uint64(e.options.RecentBytes), uint64(e.options.StateBytes),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return xxhash.Sum64(b)
}

// Stats returns the engine's numbers.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.RecordsEvicted += e.recent.evicted
	s.EntitiesEvicted += e.entities.evicted
	s.RecentRecords, s.RecentBytes = int64(e.recent.len()), e.recent.bytes
	s.AttemptGroups = int64(len(e.attempts.groups))
	s.Entities, s.StateBytes = int64(len(e.entities.index)), e.entities.bytes()
	s.RecentBytesBound, s.StateBytesBound = e.options.RecentBytes, e.options.StateBytes
	s.SourcePartitions = int64(len(e.fence.sources))
	return s
}

// Apply advances the state machine by one message of the entities topic at offset, and appends the rows that
// it changed to out: at most one per key. It is deterministic: the rows depend on the messages so far and on
// Options alone. msg may alias memory that is reused after the call; Apply does not change it.
func (e *Engine) Apply(msg *schemas.EntityMessage, offset int64, out *Rows) {
	e.stats.Messages++
	if !e.fence.pass(msg.Source) {
		e.stats.RepeatsFenced++
		return
	}
	if msg.SignIn == nil {
		e.stats.Empty++
		return
	}
	// Memory is let go here and only here: rows of this call may alias what they found in the store.
	e.recent.evict(msg.ReceivedMs)
	e.entities.evict(msg.ReceivedMs)
	e.entities.rowText = e.entities.rowText[:0]
	e.started = min(e.started, msg.SignIn.EventTime)
	roles, revision := schemas.RoleSet(msg.Roles), Revision(e.epoch, offset)
	if roles&fullRoles != 0 {
		e.stats.Records++
		e.applyRecord(msg.SignIn, msg.ReceivedMs, revision, out)
	}
	if roles&^fullRoles != 0 {
		e.applyGroups(msg.SignIn, roles, msg.ReceivedMs, revision, out)
	}
}

// applyRecord takes in one record in a full role.
func (e *Engine) applyRecord(rec *schemas.SignIn, received int64, revision uint64, out *Rows) {
	id := e.dealer.identify(rec)
	requestHash := schemas.Hash64(rec.RequestId)
	meta := recentEntry{merge: id.key ^ requestHash*0x9e3779b97f4a7c15, user: id.key, request: requestHash, eventTime: rec.EventTime, received: received}

	old := e.recent.find(meta.merge, id.key, rec.RequestId)
	var before recentEntry // of the stored version
	quiet := false
	if old != 0 {
		rec, quiet, old = e.unite(old, rec, received)
		if rec == nil {
			e.stats.Duplicates++
			return
		}
	}
	joined := false
	if old != 0 {
		before = *e.recent.at(old)
		meta.eventTime, meta.received = before.eventTime, before.received
		meta.attempt, meta.attemptTag, meta.outcomes = before.attempt, before.attemptTag, before.outcomes
		meta.flags = before.flags & (entryAttempt | entryRepeated)
	}
	if rec.ErrorCode != 0 && (old == 0 || before.code != rec.ErrorCode) && e.catalogue.Code(rec.ErrorCode) == nil {
		out.UnknownCodes = append(out.UnknownCodes, rec.ErrorCode)
	}
	other := uint64(0)
	if meta.flags&entryAttempt == 0 && id.known {
		if key, ok := e.dealer.attemptKey(id.key, rec); ok {
			meta.attempt, joined = key, true
			meta.flags |= entryAttempt
			other = e.recent.newestOfAttempt(key, id.key)
		}
	}
	switch recordOutcome(rec, e.catalogue) {
	case OutcomeSuccess:
		meta.kind = kindSuccess
	case OutcomeFailure:
		meta.kind = kindFailure
	}
	meta.code = rec.ErrorCode
	if isSilent(rec) {
		meta.flags |= entrySilent
	}
	if rec.FlaggedForReview {
		meta.flags |= entryFlagged
	}
	newerExists := false
	if u := e.recent.newestOfUser(id.key); u != nil {
		newerExists = u.userMax >= meta.eventTime
	}
	seq, err := e.recent.add(meta, rec)
	if err != nil {
		// A decoded message can always be encoded again; only memory that someone changes meanwhile could break it.
		panic(fmt.Sprintf("encode record %q: %v", rec.RequestId, err))
	}
	if old != 0 {
		e.recent.at(old).flags |= entryDead
		e.attempts.replace(old, seq)
	}
	if joined {
		e.attempts.join(seq, other)
	}

	e.affected = append(e.affected[:0], seq)
	sum := e.attempts.sum(seq)
	entry := e.recent.at(seq)
	counts := countsAsFailure(rec, e.catalogue) && sum.outcomeOf(entry.instant()) != outcomeResolved
	changedFrom, changed := int64(0), false // event time from which on the window changed
	if entry.flags&entryGrouped != 0 {
		for _, m := range e.attempts.groups[entry.attempt].members {
			x := e.recent.at(m)
			if m == seq || x.eventTime < sum.first || x.eventTime > sum.last {
				continue
			}
			e.affected = append(e.affected, m)
			// A prompt in a client without a person counts until a success follows it.
			if x.flags&entryCounts != 0 && sum.outcomeOf(x.instant()) == outcomeResolved {
				x.flags &^= entryCounts
				if e.forget(id.key, e.recent.requestID(x), x.request) && (!changed || x.eventTime < changedFrom) {
					changedFrom, changed = x.eventTime, true
				}
			}
		}
	}
	e.retell = e.retell[:0]
	if id.known {
		if e.observe(id, rec, entry, counts, received, revision, out) {
			changedFrom, changed = min(cmp.Or(changedFrom, entry.eventTime), entry.eventTime), true
		}
	}
	if changed && (newerExists || changedFrom < entry.eventTime) {
		limit := max(changedFrom, entry.eventTime) + e.settings.Of(rec.TenantId).Thresholds.RepeatedFailures.Window.Microseconds()
		e.affected = e.recent.ofUser(e.affected, id.key, maxRevisedRecords, func(x *recentEntry) bool { return x.eventTime >= changedFrom && x.eventTime < limit })
	}
	flagged := (entry.flags|before.flags)&entryFlagged != 0 && !quiet
	if flagged {
		e.affected = e.appendFlagged(e.affected, id.key, entry.eventTime)
	}

	e.affected = append(e.affected, e.retell...)
	slices.Sort(e.affected)
	e.affected = slices.Compact(e.affected)
	for _, at := range e.affected {
		if at != seq {
			// What a failure says of its window changed with the window, and what is flagged says how many are.
			x := e.recent.at(at)
			forced := changed && x.kind != kindSuccess && x.eventTime >= changedFrom || flagged && x.flags&entryFlagged != 0 || slices.Contains(e.retell, at)
			e.emit(at, nil, forced, revision, out)
		}
	}
	e.emit(seq, rec, !quiet, revision, out)
}

// maxRevisedRecords bounds the records of a user that a late failure revises.
const maxRevisedRecords = 64

// unite joins a record with its stored version. It returns the record to go on with, nil for an exact repeat; whether the row
// stays the same all the same; and the stored version that it takes the place of, 0 where they turn out to be different records.
func (e *Engine) unite(old uint64, rec *schemas.SignIn, received int64) (*schemas.SignIn, bool, uint64) {
	o := e.recent.at(old)
	if err := e.recent.record(o, &e.known); err != nil {
		e.stats.Unreadable++
		return rec, false, old
	}
	if e.known.EqualVT(rec) {
		return nil, true, old
	}
	if !schemas.IsGroupingID(rec.RequestId) && e.known.EventTime != rec.EventTime {
		return rec, false, 0 // an id such as "" or zeros that many records share
	}
	if horizon := e.options.MergeHorizon.Milliseconds(); o.received != 0 && received != 0 && received-o.received > horizon {
		if rec.ProcessingTime != 0 && rec.ProcessingTime < e.known.ProcessingTime {
			return nil, true, old // an old copy says nothing new
		}
		e.stats.Replacements++
		return rec, false, old
	}
	mergeRecords(&e.united, &e.known, rec, e.catalogue)
	processed := e.united.ProcessingTime
	e.united.ProcessingTime = e.known.ProcessingTime
	same := e.united.EqualVT(&e.known)
	e.united.ProcessingTime = processed
	if same && processed == e.known.ProcessingTime {
		return nil, true, old
	}
	e.stats.Merges++
	return &e.united, same, old
}

// emit appends the row of an entry, when it is forced or says something else than the entry's last row. rec is the
// entry's record where it is at hand.
func (e *Engine) emit(seq uint64, rec *schemas.SignIn, forced bool, revision uint64, out *Rows) {
	entry := e.recent.at(seq)
	sum := e.attempts.sum(seq)
	outcome, attempt := sum.outcomeOf(entry.instant()), sum.outcome()
	outcomes := outcome | attempt<<2
	n := e.entities.get(entry.user)
	repeated := uint8(0)
	if n != nil {
		threshold := e.settings.Of(e.entities.texts.text(n.tenant)).Thresholds.RepeatedFailures
		if n.window(entry.eventTime, threshold.Window.Microseconds(), classCounts).least >= int64(threshold.Count) {
			repeated = entryRepeated
		}
	}
	if !forced && outcomes == entry.outcomes && sum.earliest.hash == entry.attemptTag && repeated == entry.flags&entryRepeated {
		return
	}
	if rec == nil {
		if err := e.recent.record(entry, &e.decoded); err != nil {
			e.stats.Unreadable++
			return
		}
		rec = &e.decoded
		e.stats.Revised++
	}
	entry.outcomes, entry.attemptTag = outcomes, sum.earliest.hash
	entry.flags = entry.flags&^entryRepeated | repeated

	v := &e.view
	v.SignIn, v.Outcome = rec, outcomeNames[outcome]
	v.Attempt = AttemptView{
		ID: e.attempts.attemptID(&sum), Outcome: attemptNames[attempt],
		Successes: int(sum.successes), Failures: int(sum.failures), Interrupts: int(sum.interrupts),
		First: sum.first, Last: sum.last, LastFailureCode: sum.lastFailureCode,
	}
	d := nextDiagnosis(out)
	if n != nil {
		threshold := e.settings.Of(rec.TenantId).Thresholds.RepeatedFailures
		e.entities.failureView(n, entry.eventTime, rec.IpAddress, threshold, entry.flags&entryCounts != 0, &v.Failures)
		d.Incidents = e.entities.incidentsOf(d.Incidents, n, rec.RequestId, entry.request)
		if len(d.Incidents) > 0 {
			v.Failures.IncidentID = d.Incidents[0]
		}
		v.TakenOver = e.entities.takenOver(n, rec.RequestId, entry)
	} else {
		v.Failures.reset()
		v.TakenOver = ""
	}
	if entry.flags&entryFlagged != 0 {
		e.flaggedView(entry, &v.Flagged)
	} else {
		v.Flagged.Records = 0
	}
	e.classifier.classify(v, d)
	d.RequestID, d.CorrelationID, d.TenantID = rec.RequestId, rec.CorrelationId, rec.TenantId
	d.EventTime, d.ReceivedTime = entry.eventTime, entry.received
	d.Outcome, d.AttemptID, d.AttemptOutcome = v.Outcome, v.Attempt.ID, v.Attempt.Outcome
	d.Revision = revision
	e.stats.Rows++
}

// nextDiagnosis appends an empty diagnosis that reuses the memory of an earlier one at its place.
func nextDiagnosis(out *Rows) *Diagnosis {
	if n := len(out.Diagnoses); n < cap(out.Diagnoses) {
		out.Diagnoses = out.Diagnoses[:n+1]
	} else {
		out.Diagnoses = append(out.Diagnoses, Diagnosis{})
	}
	d := &out.Diagnoses[len(out.Diagnoses)-1]
	evidence := d.Evidence
	evidence.Reset()
	*d = Diagnosis{Also: d.Also[:0], Unknown: d.Unknown[:0], Incidents: d.Incidents[:0], Evidence: evidence}
	return d
}
