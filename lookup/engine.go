package lookup

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// EngineShard is what a shard of this process tells of its engine.
type EngineShard struct {
	Shard       int
	Epoch       uint16
	Fingerprint uint64
	Taken       time.Time
	Stats       detectors.Stats
	// Top holds the entities with the most events, most first.
	Top      []detectors.TopEntity
	Lateness EngineLateness
}

// EngineLateness counts records by the time from the sign-in to the receipt of the record.
type EngineLateness struct {
	// Bounds are the upper bounds of Counts, ascending; Counts has one number more, for what lies above all bounds.
	Bounds []time.Duration
	Counts []uint64
	Sum    time.Duration
	Max    time.Duration
}

// maxTopEntities bounds the entities that an answer names over all shards.
const maxTopEntities = 20

// EngineAnswer answers GET /v1/engine.
type EngineAnswer struct {
	Overall EngineOverall       `json:"overall"`
	Shards  []EngineShardAnswer `json:"shards"`
}

// EngineOverall sums up the shards of the process.
type EngineOverall struct {
	// Epoch is the highest of the shards', Fingerprints are all that the shards have: more than one while they change.
	Epoch        uint16   `json:"epoch"`
	Fingerprints []string `json:"fingerprints"`
	EngineNumbers
}

// EngineShardAnswer is one shard, as of Taken.
type EngineShardAnswer struct {
	Shard       int       `json:"shard"`
	Epoch       uint16    `json:"epoch"`
	Fingerprint string    `json:"fingerprint"`
	Taken       time.Time `json:"taken"`
	EngineNumbers
}

// EngineNumbers are what an engine, or several, hold and have done since they began in this process.
type EngineNumbers struct {
	StateBytes       int64 `json:"state_bytes"`
	StateBytesBound  int64 `json:"state_bytes_bound"`
	Entities         int64 `json:"entities"`
	RecentBytes      int64 `json:"recent_bytes"`
	RecentBytesBound int64 `json:"recent_bytes_bound"`
	RecentRecords    int64 `json:"recent_records"`

	Records         uint64 `json:"records"`
	Duplicates      uint64 `json:"duplicates"`
	Merges          uint64 `json:"merges"`
	RevisedRows     uint64 `json:"revised_rows"`
	Events          uint64 `json:"events"`
	EventsTooLate   uint64 `json:"events_too_late"`
	EventsRepeated  uint64 `json:"events_repeated"`
	Incidents       uint64 `json:"incidents"`
	RecordsEvicted  uint64 `json:"records_evicted"`
	EntitiesEvicted uint64 `json:"entities_evicted"`
	Unreadable      uint64 `json:"unreadable"`

	Lateness    LatenessAnswer    `json:"lateness"`
	Detections  []DetectionAnswer `json:"detections"`
	TopEntities []EntityAnswer    `json:"top_entities"`
}

// LatenessAnswer sums up lateness. The percentiles are upper bounds: that of the bucket, or the longest seen where that is less.
type LatenessAnswer struct {
	Records uint64  `json:"records"`
	Mean    float64 `json:"mean_seconds"`
	P50     float64 `json:"p50_seconds"`
	P90     float64 `json:"p90_seconds"`
	P99     float64 `json:"p99_seconds"`
	Max     float64 `json:"max_seconds"`
}

// DetectionAnswer are the numbers of all detections that find one kind of incident.
type DetectionAnswer struct {
	Kind       string `json:"kind"`
	Evaluated  uint64 `json:"evaluated"`
	Fired      uint64 `json:"fired"`
	Suppressed uint64 `json:"suppressed"`
}

// EntityAnswer is one of the entities with the most events.
type EntityAnswer struct {
	Kind         string    `json:"kind"`
	Value        string    `json:"value"`
	TenantID     string    `json:"tenant_id"`
	Events       int64     `json:"events"`
	Incidents    int       `json:"incidents"`
	Bytes        int64     `json:"bytes"`
	LastReceived time.Time `json:"last_received"`
}

// NewEngineAnswer renders what shards tell for a viewer. Detections stand in the order of their kinds.
func NewEngineAnswer(shards []EngineShard, capabilities catalogue.Capability) *EngineAnswer {
	a := &EngineAnswer{Shards: []EngineShardAnswer{}}
	all := EngineShard{}
	a.Overall.Fingerprints = []string{}
	for i := range shards {
		s := &shards[i]
		fingerprint := fmt.Sprintf("%016x", s.Fingerprint)
		a.Shards = append(a.Shards, EngineShardAnswer{s.Shard, s.Epoch, fingerprint, s.Taken.UTC(), s.numbers(capabilities)})
		a.Overall.Epoch = max(a.Overall.Epoch, s.Epoch)
		if !slices.Contains(a.Overall.Fingerprints, fingerprint) {
			a.Overall.Fingerprints = append(a.Overall.Fingerprints, fingerprint)
		}
		all.add(s)
	}
	slices.SortStableFunc(all.Top, func(a, b detectors.TopEntity) int { return cmp.Compare(b.Events, a.Events) })
	all.Top = all.Top[:min(len(all.Top), maxTopEntities)]
	a.Overall.EngineNumbers = all.numbers(capabilities)
	return a
}

// add adds the numbers of another shard. Every entity is kept by one shard, so the lists of the top ones just join.
func (s *EngineShard) add(o *EngineShard) {
	t, u := &s.Stats, &o.Stats
	t.StateBytes += u.StateBytes
	t.StateBytesBound += u.StateBytesBound
	t.Entities += u.Entities
	t.RecentBytes += u.RecentBytes
	t.RecentBytesBound += u.RecentBytesBound
	t.RecentRecords += u.RecentRecords
	t.Records += u.Records
	t.Duplicates += u.Duplicates
	t.Merges += u.Merges
	t.Revised += u.Revised
	t.Events += u.Events
	t.EventsTooLate += u.EventsTooLate
	t.EventsRepeated += u.EventsRepeated
	t.Incidents += u.Incidents
	t.RecordsEvicted += u.RecordsEvicted
	t.EntitiesEvicted += u.EntitiesEvicted
	t.Unreadable += u.Unreadable
	if t.Detections == nil {
		t.Detections = make([]detectors.DetectionStats, len(u.Detections))
	}
	for i, d := range u.Detections {
		t.Detections[i].Evaluated += d.Evaluated
		t.Detections[i].Fired += d.Fired
		t.Detections[i].Suppressed += d.Suppressed
	}
	if s.Lateness.Counts == nil {
		s.Lateness.Bounds, s.Lateness.Counts = o.Lateness.Bounds, make([]uint64, len(o.Lateness.Counts))
	}
	for i, n := range o.Lateness.Counts {
		s.Lateness.Counts[i] += n
	}
	s.Lateness.Sum += o.Lateness.Sum
	s.Lateness.Max = max(s.Lateness.Max, o.Lateness.Max)
	s.Top = append(s.Top, o.Top...)
}

func (s *EngineShard) numbers(capabilities catalogue.Capability) EngineNumbers {
	t := &s.Stats
	n := EngineNumbers{
		StateBytes: t.StateBytes, StateBytesBound: t.StateBytesBound, Entities: t.Entities,
		RecentBytes: t.RecentBytes, RecentBytesBound: t.RecentBytesBound, RecentRecords: t.RecentRecords,
		Records: t.Records, Duplicates: t.Duplicates, Merges: t.Merges, RevisedRows: t.Revised,
		Events: t.Events, EventsTooLate: t.EventsTooLate, EventsRepeated: t.EventsRepeated, Incidents: t.Incidents,
		RecordsEvicted: t.RecordsEvicted, EntitiesEvicted: t.EntitiesEvicted, Unreadable: t.Unreadable,
		Lateness: s.Lateness.answer(), Detections: []DetectionAnswer{}, TopEntities: []EntityAnswer{},
	}
	kinds := detectors.DetectionNames()
	for i, d := range t.Detections {
		at := slices.IndexFunc(n.Detections, func(a DetectionAnswer) bool { return a.Kind == kinds[i] })
		if at < 0 {
			at = len(n.Detections)
			n.Detections = append(n.Detections, DetectionAnswer{Kind: kinds[i]})
		}
		n.Detections[at].Evaluated += d.Evaluated
		n.Detections[at].Fired += d.Fired
		n.Detections[at].Suppressed += d.Suppressed
	}
	slices.SortFunc(n.Detections, func(a, b DetectionAnswer) int { return cmp.Compare(a.Kind, b.Kind) })
	for _, e := range s.Top {
		if e.Kind == detectors.EntityPolicy && !capabilities.Has(catalogue.CapabilityConditionalAccess) {
			e.Value = "a policy"
		}
		n.TopEntities = append(n.TopEntities, EntityAnswer{e.Kind, e.Value, e.TenantID, e.Events, e.Incidents, e.Bytes, e.LastReceived})
	}
	return n
}

func (l *EngineLateness) answer() (a LatenessAnswer) {
	for _, n := range l.Counts {
		a.Records += n
	}
	if a.Records == 0 {
		return a
	}
	a.Mean, a.Max = l.Sum.Seconds()/float64(a.Records), l.Max.Seconds()
	a.P50, a.P90, a.P99 = l.percentile(.5, a.Records), l.percentile(.9, a.Records), l.percentile(.99, a.Records)
	return a
}

// percentile returns within how many seconds the given share of the records was received, rounded up to a bound.
func (l *EngineLateness) percentile(share float64, records uint64) float64 {
	rest := uint64(math.Ceil(share * float64(records)))
	for i, bound := range l.Bounds {
		if l.Counts[i] >= rest {
			return min(bound, l.Max).Seconds()
		}
		rest -= l.Counts[i]
	}
	return l.Max.Seconds()
}

func (s *Server) apiEngine(r *http.Request, capabilities catalogue.Capability) (any, error) {
	if _, err := parameters(r); err != nil {
		return nil, err
	}
	if s.config.Engine == nil {
		return nil, &statusError{http.StatusNotFound, "this process serves the API alone and has no engine: ask a process of signindiag run"}
	}
	return NewEngineAnswer(s.config.Engine(), capabilities), nil
}
