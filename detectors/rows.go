// Package detectors turns sign-in records into diagnoses and incidents. It is pure logic: the same
// messages in the same order give the same rows, byte for byte. It uses no clock, no randomness, no
// goroutine, no Kafka and no ClickHouse; time is the time that the records carry.
package detectors

// Rows collects what Apply emits. A caller reuses one Rows over a batch and resets it in between.
// The strings of its rows may alias the message of the Apply call that emitted them or buffers of the
// engine: they are valid until the next call of Apply, so a caller takes the rows away (into
// columns, or a deep copy by Clone) after every Apply.
type Rows struct {
	Diagnoses []Diagnosis
	Incidents []Incident
	Members   []IncidentMember
	// UnknownCodes are no rows but a hint for metrics: error codes that the catalogue does not know, once for every record that
	// the engine sees for the first time or with another code than before.
	UnknownCodes []int32
}

// Reset empties the rows and keeps their memory.
func (r *Rows) Reset() {
	r.Diagnoses = r.Diagnoses[:0]
	r.Incidents = r.Incidents[:0]
	r.Members = r.Members[:0]
	r.UnknownCodes = r.UnknownCodes[:0]
}

// Outcomes of a record, and of the attempt that it belongs to.
const (
	OutcomeSuccess     = "success"
	OutcomeFailure     = "failure"
	OutcomeInterrupted = "interrupted"
	OutcomeResolved    = "resolved"

	AttemptSucceeded   = "succeeded"
	AttemptFailed      = "failed"
	AttemptResolved    = "resolved"
	AttemptInterrupted = "interrupted"
)

// Severities, lowest first.
const (
	SeverityInfo     = "info"
	SeverityLow      = "low"
	SeverityMedium   = "medium"
	SeverityHigh     = "high"
	SeverityCritical = "critical"
)

// Diagnosis is one row of the table diagnoses: what is known of one record. Its key is
// (CorrelationID, RequestID, TenantID); a later row with the same key and a higher Revision replaces it.
// The field names are those of the JSON contract and of the table's columns.
type Diagnosis struct {
	RequestID     string
	CorrelationID string
	TenantID      string
	// EventTime is createdDateTime in microseconds since the Unix epoch, as first seen: it never
	// moves between revisions, since the table is partitioned by it.
	EventTime int64
	// ReceivedTime is the Kafka time of the raw message, milliseconds since the Unix epoch.
	ReceivedTime int64
	Category     string
	User         string // userPrincipalName, or the display name where that is absent
	UserID       string
	App          string // appDisplayName, or the id where that is absent
	Resource     string
	ClientApp    string
	Address      string
	ErrorCode    int32
	Outcome      string
	// AttemptID is the request id of the attempt's first record.
	AttemptID      string
	AttemptOutcome string
	Scenario       string
	Also           []string
	Severity       string
	// Evidence is the typed evidence; text is rendered from it for a given viewer.
	Evidence Evidence
	// Unknown names what the record does not tell, as catalogue keys.
	Unknown []string
	// Incidents holds the ids of incidents that were known when the row was emitted; incident_members
	// has them all.
	Incidents []string
	// Revision is epoch << 48 | offset in the entities topic.
	Revision uint64
}

// Incident is one revision of a story over many records: one row of the table incidents, keyed
// by (TenantID, IncidentID).
type Incident struct {
	IncidentID string
	Kind       string
	// Also are other kinds that were found in the same story.
	Also             []string
	Severity         string
	EntityKind       string
	EntityValue      string
	TenantID         string
	FirstSeen        int64 // microseconds since the Unix epoch
	LastSeen         int64
	Users            []string
	Addresses        []string
	Applications     []string
	Devices          []string
	OperatingSystems []string
	ClientApps       []string
	Counts           []Count
	Outcome          string
	// RequestIDs prove the incident; at most MaxIncidentRequestIDs are named.
	RequestIDs      []string
	RequestIDsTotal int64
	// Joined holds the ids of the incidents of other entities that are the same story. Join fills it; no table has it.
	Joined   []string
	Revision uint64
}

// MaxIncidentRequestIDs bounds the request ids that an incident names; RequestIDsTotal has their count.
const MaxIncidentRequestIDs = 50

// Count is one named number of an incident.
type Count struct {
	Name  string
	Value int64
}

// IncidentMember ties a record to an incident: one row of the table incident_members, keyed by
// (CorrelationID, RequestID, TenantID, IncidentID).
type IncidentMember struct {
	IncidentID    string
	TenantID      string
	RequestID     string
	CorrelationID string
	EventTime     int64
	Revision      uint64
}

// Revision composes a row's revision. A larger epoch beats any offset, so that a process of an older
// epoch can never overwrite what a newer one decided.
func Revision(epoch uint16, offset int64) uint64 {
	return uint64(epoch)<<48 | uint64(offset)&(1<<48-1)
}
