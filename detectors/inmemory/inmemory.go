// Package inmemory runs the detectors over records in memory, as one shard and without any server:
// decoded, compacted, dealt and applied exactly as the pipeline does it. Explain and scenario files use it.
package inmemory

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
)

// Counts tells what a Runner was fed.
type Counts struct {
	// SignIns is the number of sign-in records, repeats included.
	SignIns int
	// OtherCategories counts records of other logs by category; they are skipped.
	OtherCategories map[string]int
	// Broken is the number of values that were no record.
	Broken int
}

// Runner is one shard in memory. It keeps the newest revision of every row until Result is read. It is
// not safe for concurrent use.
type Runner struct {
	options detectors.Options
	engine  *detectors.Engine
	decoder *schemas.Decoder
	dealer  detectors.Dealer
	message schemas.EntityMessage
	source  schemas.Source
	rows    detectors.Rows
	offset  int64
	counts  Counts
	held    []heldRecord
	block   []byte // free memory for records that are held

	followers     []*Runner
	incidentsOnly bool

	diagnoses map[diagnosisKey]int
	incidents map[incidentKey]int
	members   map[memberKey]int
	result    Result
}

type diagnosisKey struct{ correlationID, requestID, tenantID string }

type incidentKey struct{ tenantID, incidentID string }

type memberKey struct{ correlationID, requestID, tenantID, incidentID string }

// Result holds every row in its newest revision. Diagnoses and members are in the order of event time, then
// request id; incidents in the order of their first event.
type Result struct {
	Diagnoses []detectors.Diagnosis
	Incidents []detectors.Incident
	Members   []detectors.IncidentMember
}

// New returns a Runner without history.
func New(options detectors.Options) (*Runner, error) {
	engine, err := detectors.NewEngine(options)
	if err != nil {
		return nil, err
	}
	return &Runner{
		options:   options,
		engine:    engine,
		decoder:   schemas.NewDecoder(),
		dealer:    detectors.Dealer{Catalogue: options.Catalogue},
		counts:    Counts{OtherCategories: map[string]int{}},
		diagnoses: map[diagnosisKey]int{},
		incidents: map[incidentKey]int{},
		members:   map[memberKey]int{},
	}, nil
}

// Feed takes one message as the raw topic would carry it, with its Kafka time; a zero time means that it is not known,
// and event times are then never clamped. broken is called for every value that is no record, with its index and the
// decoder's *schemas.RecordError; nil ignores them, they are counted all the same.
func (r *Runner) Feed(message []byte, received time.Time, broken func(index int, err error)) {
	r.source.Offset++
	r.decode(message, received, broken, func(index int, signIn *schemas.SignIn) {
		r.source.Index = uint32(index)
		r.apply(signIn, milliseconds(received))
	})
}

// Follow lets r apply every record that leader applies from now on, so that two engines see the same. r itself is not fed.
func (r *Runner) Follow(leader *Runner) { leader.followers = append(leader.followers, r) }

// KeepIncidentsOnly makes r forget diagnoses, so that its memory does not grow with the records: Result has none.
func (r *Runner) KeepIncidentsOnly() { r.incidentsOnly = true }

func milliseconds(received time.Time) int64 {
	if received.IsZero() {
		return 0
	}
	return received.UnixMilli()
}

// heldRecord is a record until Release applies it.
type heldRecord struct {
	eventTime, processingTime, received int64
	request                             uint64 // hash of the request id
	record                              []byte
}

// heldBlockSize is the size of the blocks of memory in which records are held.
const heldBlockSize = 1 << 20

// Hold is Feed for exports, which come in any order, often newest first: it keeps the records, about 0.7 KB and 56 bytes for
// each, until Release applies them in the order of event time. Records with the same event time are taken in an order of their
// own (request id, processing time, content) and not that of the input, so that the same records give the same rows however
// they are ordered and split into messages.
func (r *Runner) Hold(message []byte, received time.Time, broken func(index int, err error)) {
	r.decode(message, received, broken, func(_ int, signIn *schemas.SignIn) {
		n := signIn.SizeVT()
		if len(r.block) < n {
			r.block = make([]byte, max(n, heldBlockSize))
		}
		record := r.block[:n:n]
		r.block = r.block[n:]
		if _, err := signIn.MarshalToSizedBufferVT(record); err != nil {
			// A decoded record can always be encoded; only memory that someone changes meanwhile could break it.
			panic(fmt.Sprintf("encode record %q: %v", signIn.RequestId, err))
		}
		r.held = append(r.held, heldRecord{signIn.EventTime, signIn.ProcessingTime, milliseconds(received), schemas.Hash64(signIn.RequestId), record})
	})
}

// Release applies what is held and lets it go.
func (r *Runner) Release() error {
	slices.SortFunc(r.held, func(a, b heldRecord) int {
		return cmp.Or(cmp.Compare(a.eventTime, b.eventTime), cmp.Compare(a.request, b.request), cmp.Compare(a.processingTime, b.processingTime),
			bytes.Compare(a.record, b.record))
	})
	var signIn schemas.SignIn
	for i := range r.held {
		h := &r.held[i]
		signIn.ResetVT()
		if err := signIn.UnmarshalVTUnsafe(h.record); err != nil {
			return fmt.Errorf("decode a record that is held in memory: %w", err)
		}
		r.source.Offset++
		r.source.Index = 0
		r.apply(&signIn, h.received)
	}
	r.held, r.block = nil, nil
	return nil
}

// decode calls each for every sign-in record of a message, compacted; it belongs to the decoder.
func (r *Runner) decode(message []byte, received time.Time, broken func(index int, err error), each func(index int, signIn *schemas.SignIn)) {
	r.decoder.Decode(message, received, func(index int, decoded *schemas.Decoded) {
		switch decoded.Kind {
		case schemas.KindOtherCategory:
			r.counts.OtherCategories[decoded.Category]++
		case schemas.KindBroken:
			r.counts.Broken++
			if broken != nil {
				broken(index, decoded.Err)
			}
		case schemas.KindSignIn:
			r.counts.SignIns++
			schemas.Compact(decoded.SignIn)
			each(index, decoded.SignIn)
		}
	})
}

func (r *Runner) apply(signIn *schemas.SignIn, received int64) {
	r.dealer.Deal(signIn, 1, detectors.WantedRoles(), func(_ uint32, roles schemas.RoleSet) {
		r.message.Source, r.message.Roles = &r.source, uint32(roles)
		r.message.ReceivedMs, r.message.SignIn = received, signIn
		r.offset++
		r.rows.Reset()
		r.engine.Apply(&r.message, r.offset, &r.rows)
		r.keep()
	})
	for _, f := range r.followers {
		f.source.Offset, f.source.Index = r.source.Offset, r.source.Index
		f.apply(signIn, received)
	}
}

// Restart replaces the engine by a new one that is restored from a snapshot, as a restart of the process does.
func (r *Runner) Restart() error {
	snapshot := r.engine.AppendSnapshot(nil)
	engine, err := detectors.NewEngine(r.options)
	if err != nil {
		return err
	}
	if err := engine.RestoreSnapshot(snapshot); err != nil {
		return fmt.Errorf("restore the snapshot that was just made: %w", err)
	}
	r.engine = engine
	return nil
}

// Counts tells what was fed so far. The map belongs to the Runner.
func (r *Runner) Counts() Counts { return r.counts }

// keep takes the rows of one Apply call, each replacing an older revision of its key.
func (r *Runner) keep() {
	if r.incidentsOnly {
		r.rows.Diagnoses = r.rows.Diagnoses[:0]
	}
	for i := range r.rows.Diagnoses {
		d := r.rows.Diagnoses[i].Clone()
		key := diagnosisKey{d.CorrelationID, d.RequestID, d.TenantID}
		if at, ok := r.diagnoses[key]; ok {
			r.result.Diagnoses[at] = d
			continue
		}
		r.diagnoses[key] = len(r.result.Diagnoses)
		r.result.Diagnoses = append(r.result.Diagnoses, d)
	}
	for i := range r.rows.Incidents {
		incident := r.rows.Incidents[i].Clone()
		key := incidentKey{incident.TenantID, incident.IncidentID}
		if at, ok := r.incidents[key]; ok {
			r.result.Incidents[at] = incident
			continue
		}
		r.incidents[key] = len(r.result.Incidents)
		r.result.Incidents = append(r.result.Incidents, incident)
	}
	for i := range r.rows.Members {
		m := r.rows.Members[i].Clone()
		key := memberKey{m.CorrelationID, m.RequestID, m.TenantID, m.IncidentID}
		if at, ok := r.members[key]; ok {
			r.result.Members[at] = m
			continue
		}
		r.members[key] = len(r.result.Members)
		r.result.Members = append(r.result.Members, m)
	}
}

// Result returns the rows so far, incidents of one story joined into one. Every diagnosis names all incidents that its record
// belongs to, those included that became known later. The Runner must not be fed afterwards.
func (r *Runner) Result() Result {
	r.result.Incidents = detectors.Join(r.result.Incidents, detectors.Overlaps(r.result.Members))
	leader := map[incidentKey]string{}
	for i := range r.result.Incidents {
		for _, id := range r.result.Incidents[i].Joined {
			leader[incidentKey{r.result.Incidents[i].TenantID, id}] = r.result.Incidents[i].IncidentID
		}
	}
	r.result.Members = slices.DeleteFunc(r.result.Members, func(m detectors.IncidentMember) bool {
		id, ok := leader[incidentKey{m.TenantID, m.IncidentID}]
		_, both := r.members[memberKey{m.CorrelationID, m.RequestID, m.TenantID, id}]
		return ok && both
	})
	records := map[incidentKey]int64{}
	told := map[memberKey]bool{}
	kept := r.result.Members[:0]
	for _, m := range r.result.Members {
		m.IncidentID = cmp.Or(leader[incidentKey{m.TenantID, m.IncidentID}], m.IncidentID)
		if k := (memberKey{m.CorrelationID, m.RequestID, m.TenantID, m.IncidentID}); !told[k] {
			told[k] = true
			records[incidentKey{m.TenantID, m.IncidentID}]++
			kept = append(kept, m)
		}
	}
	r.result.Members = kept
	for i := range r.result.Incidents {
		if x := &r.result.Incidents[i]; len(x.Joined) > 0 {
			x.RequestIDsTotal = records[incidentKey{x.TenantID, x.IncidentID}]
		}
	}
	for i := range r.result.Diagnoses {
		d := &r.result.Diagnoses[i]
		for k, id := range d.Incidents {
			d.Incidents[k] = cmp.Or(leader[incidentKey{d.TenantID, id}], id)
		}
		slices.Sort(d.Incidents)
		d.Incidents = slices.Compact(d.Incidents)
	}
	for _, m := range r.result.Members {
		if at, ok := r.diagnoses[diagnosisKey{m.CorrelationID, m.RequestID, m.TenantID}]; ok {
			d := &r.result.Diagnoses[at]
			if !slices.Contains(d.Incidents, m.IncidentID) {
				d.Incidents = append(d.Incidents, m.IncidentID)
			}
		}
	}
	slices.SortFunc(r.result.Diagnoses, func(a, b detectors.Diagnosis) int {
		return cmp.Or(cmp.Compare(a.EventTime, b.EventTime), cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.TenantID, b.TenantID))
	})
	slices.SortFunc(r.result.Incidents, func(a, b detectors.Incident) int {
		return cmp.Or(cmp.Compare(a.FirstSeen, b.FirstSeen), cmp.Compare(a.IncidentID, b.IncidentID))
	})
	slices.SortFunc(r.result.Members, func(a, b detectors.IncidentMember) int {
		return cmp.Or(cmp.Compare(a.EventTime, b.EventTime), cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.IncidentID, b.IncidentID))
	})
	return r.result
}
