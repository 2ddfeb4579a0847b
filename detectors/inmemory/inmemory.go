// Package inmemory runs the detectors over records in memory, as one shard and without any server:
// decoded, compacted, dealt and applied exactly as the pipeline does it. Explain and scenario files use it.
package inmemory

import (
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
	receivedMilliseconds := int64(0)
	if !received.IsZero() {
		receivedMilliseconds = received.UnixMilli()
	}
	r.source.Offset++
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
			r.source.Index = uint32(index)
			r.dealer.Deal(decoded.SignIn, 1, detectors.WantedRoles(), func(_ uint32, roles schemas.RoleSet) {
				r.message.Source, r.message.Roles = &r.source, uint32(roles)
				r.message.ReceivedMs, r.message.SignIn = receivedMilliseconds, decoded.SignIn
				r.offset++
				r.rows.Reset()
				r.engine.Apply(&r.message, r.offset, &r.rows)
				r.keep()
			})
		}
	})
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

// Result returns the rows so far. Every diagnosis names all incidents that its record belongs to, those included that
// became known later. The Runner must not be fed afterwards.
func (r *Runner) Result() Result {
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
