package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// maxRecords bounds the authentication summary of one look-up. An attempt has a handful of records, but a
// client may use one correlation id for months; the newest are shown.
const maxRecords = 200

// maxIDLength bounds an id that is looked up, bytes; Entra's have 36.
const maxIDLength = 200

// Store reads what the sinks wrote. It is safe for concurrent use. Every query is read-only, bounded in
// time, memory and rows, and gets its values as parameters.
type Store struct {
	conn      driver.Conn
	catalogue *catalogue.Catalogue
	log       *slog.Logger
	now       func() time.Time

	freshnessMu sync.Mutex
	freshness   Freshness
	freshnessAt time.Time
}

// NewStore returns a Store over a connection whose session database holds the tables. The caller keeps the
// connection and closes it after the last query. The catalogue names the evidence keys. A nil log is silent.
func NewStore(conn driver.Conn, c *catalogue.Catalogue, log *slog.Logger) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{conn: conn, catalogue: c, log: log, now: time.Now}
}

// Match says which id of a record was asked for.
type Match string

// The two ids that a sign-in is known by.
const (
	MatchCorrelationID Match = "correlation_id"
	MatchRequestID     Match = "request_id"
)

// Result is the answer to one id.
type Result struct {
	// ID is the id as it was looked up: trimmed, in the case of the tables.
	ID      string
	Matched Match
	// Records are the authentication summary: all records of the correlation id, oldest first, each in its
	// newest revision. RecordsTotal counts them; it is larger than len(Records) where only the newest 200
	// are given.
	Records      []detectors.Diagnosis
	RecordsTotal uint64
	// Decisive is the index in Records of the record that decides what happened.
	Decisive int
	// Incidents are those that the records belong to, worst first.
	Incidents []detectors.Incident
}

// Diagnosis returns the record that decides. It is valid as long as r.
func (r *Result) Diagnosis() *detectors.Diagnosis { return &r.Records[r.Decisive] }

// NotFoundError says that no sign-in with an id is known, and how fresh the data is, since exports lag.
type NotFoundError struct {
	ID        string
	Freshness Freshness
	// Now is when the question was asked.
	Now time.Time
}

// ErrNotFound is what errors.Is finds in a NotFoundError, and in the error of an unknown incident.
var ErrNotFound = errors.New("not found")

// Error returns one paragraph for people: what is not known, and what is.
func (e *NotFoundError) Error() string {
	return "No sign-in with this id is known. " + e.Freshness.Sentence(e.Now)
}

// Is makes errors.Is(err, ErrNotFound) true.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// InvalidIDError says that a text cannot be the id of one sign-in.
type InvalidIDError struct{ Reason string }

// Error returns what was expected.
func (e *InvalidIDError) Error() string {
	return e.Reason + ": expected a correlationId or requestId, for example 5f0b6c1e-6c2f-4a0e-9a39-1f0e9a1d7c55"
}

// NormalizeID returns id without white space, quotes and braces around it, GUIDs in lower case as Entra
// writes them. It refuses texts that cannot name one sign-in, among them the all-zero GUID, which Entra
// writes where there is no id.
func NormalizeID(id string) (string, error) {
	if len(id) > maxIDLength {
		return "", &InvalidIDError{Reason: fmt.Sprintf("the id has %d characters", len(id))}
	}
	id = strings.Trim(id, " \t\r\n{}()\"'\u00a0\u200b\ufeff")
	if id == "" {
		return "", &InvalidIDError{Reason: "the id is empty"}
	}
	for _, r := range id {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return "", &InvalidIDError{Reason: "the id holds characters that no id has"}
		}
	}
	if strings.Trim(id, "0-") == "" {
		return "", &InvalidIDError{Reason: "an id of zeros stands for an absent one and names no sign-in"}
	}
	if schemas.IsGroupingID(id) {
		id = strings.ToLower(id)
	}
	return id, nil
}

// spellings are the forms under which an id may be stored: as it is, and with a GUID in either case.
func spellings(id string) []string {
	all := []string{id}
	if schemas.IsGroupingID(id) {
		all = append(all, strings.ToUpper(id))
	}
	return all
}

// Find returns what is known of the sign-in with a correlationId or requestId, in any case, with white space
// and braces around it or without. An unknown id is a *NotFoundError, a text that is no id an
// *InvalidIDError.
//
// For a correlation id the record that decides is the terminal failure of its attempt, or the newest record
// of the attempt where none failed; for a request id it is that very record.
func (s *Store) Find(ctx context.Context, id string) (*Result, error) {
	id, err := NormalizeID(id)
	if err != nil {
		return nil, err
	}
	r := &Result{ID: id, Matched: MatchCorrelationID}
	if schemas.IsGroupingID(id) {
		r.Records, r.RecordsTotal, err = s.recordsOfCorrelation(ctx, spellings(id))
		if err != nil {
			return nil, err
		}
	}
	if len(r.Records) > 0 {
		r.Decisive = decisive(r.Records)
	} else if err := s.findRequest(ctx, r); err != nil {
		return nil, err
	}
	if len(r.Records) == 0 {
		f, err := s.Freshness(ctx)
		if err != nil {
			return nil, err
		}
		return nil, &NotFoundError{ID: id, Freshness: f, Now: s.now()}
	}
	r.Incidents, err = s.incidentsOf(ctx, r.Records)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// findRequest fills r by a request id. Where the record has a correlation id that groups, the other records
// of it are the rest of the authentication summary.
func (s *Store) findRequest(ctx context.Context, r *Result) error {
	r.Matched = MatchRequestID
	ids := spellings(r.ID)
	var correlations []string
	err := s.query(ctx, "look up a request id", `
		SELECT DISTINCT correlation_id FROM request_ids
		WHERE request_id IN {ids:Array(String)}
		ORDER BY correlation_id LIMIT 100`,
		[]parameter{named("ids", ids)},
		func(rows driver.Rows) error {
			var c string
			if err := rows.Scan(&c); err != nil {
				return err
			}
			correlations = append(correlations, c)
			return nil
		})
	if err != nil || len(correlations) == 0 {
		return err
	}
	own, err := s.records(ctx, "look up a request id",
		`correlation_id IN {correlations:Array(String)} AND request_id IN {ids:Array(String)}`,
		`ORDER BY event_time DESC, request_id DESC, tenant_id DESC LIMIT 100`,
		named("correlations", correlations), named("ids", ids))
	if err != nil || len(own) == 0 {
		return err
	}
	r.Records, r.RecordsTotal = own, uint64(len(own))
	// Several tenants may have logged the same request; the one that saw it fail tells most.
	chosen := own[decisive(own)]
	if schemas.IsGroupingID(chosen.CorrelationID) {
		all, total, err := s.recordsOfCorrelation(ctx, []string{chosen.CorrelationID})
		if err != nil {
			return err
		}
		same := func(d detectors.Diagnosis) bool {
			return d.RequestID == chosen.RequestID && d.TenantID == chosen.TenantID
		}
		r.Records, r.RecordsTotal = all, total
		if !slices.ContainsFunc(all, same) { // older than the newest 200
			r.Records = append([]detectors.Diagnosis{chosen}, all...)
		}
		r.Decisive = slices.IndexFunc(r.Records, same)
		return nil
	}
	slices.Reverse(r.Records)
	r.Decisive = decisive(r.Records)
	return nil
}

// recordsOfCorrelation returns the newest records of a correlation id, oldest first, and how many it has.
func (s *Store) recordsOfCorrelation(ctx context.Context, ids []string) ([]detectors.Diagnosis, uint64, error) {
	records, err := s.records(ctx, "look up a correlation id", `correlation_id IN {ids:Array(String)}`,
		`ORDER BY event_time DESC, request_id DESC, tenant_id DESC LIMIT {limit:UInt32}`,
		named("ids", ids), named("limit", maxRecords+1))
	if err != nil {
		return nil, 0, err
	}
	total := uint64(len(records))
	if len(records) > maxRecords {
		records = records[:maxRecords]
		err := s.query(ctx, "count the records of a correlation id",
			`SELECT count() FROM diagnoses FINAL WHERE correlation_id IN {ids:Array(String)}`,
			[]parameter{named("ids", ids)},
			func(rows driver.Rows) error { return rows.Scan(&total) })
		if err != nil {
			return nil, 0, err
		}
	}
	slices.Reverse(records)
	return records, total, nil
}

// recordsQuery is the text of a query for rows of diagnoses in their newest revision. where may look at what is the
// same in all revisions (the key and event_time), rest follows and may look at everything. LIMIT 1 BY does the work of
// FINAL here and lets the server read evidence only where the key fits.
func recordsQuery(where, rest string) string {
	return `
	SELECT request_id, correlation_id, tenant_id, toUnixTimestamp64Micro(event_time) AS event_micros, toUnixTimestamp64Milli(received_time) AS received_millis,
		category, user, user_id, app, resource, client_app, address, error_code, outcome, attempt_id, attempt_outcome,
		scenario, also, severity, evidence, unknown, incidents, revision
	FROM (
		SELECT * FROM diagnoses WHERE ` + where + `
		ORDER BY revision DESC LIMIT 1 BY correlation_id, request_id, tenant_id
	) ` + rest
}

// records returns rows of diagnoses in their newest revision, as recordsQuery selects them.
func (s *Store) records(ctx context.Context, what, where, rest string, parameters ...parameter) ([]detectors.Diagnosis, error) {
	var records []detectors.Diagnosis
	err := s.query(ctx, what, recordsQuery(where, rest), parameters, func(rows driver.Rows) error {
		var d detectors.Diagnosis
		var evidence string
		err := rows.Scan(&d.RequestID, &d.CorrelationID, &d.TenantID, &d.EventTime, &d.ReceivedTime,
			&d.Category, &d.User, &d.UserID, &d.App, &d.Resource, &d.ClientApp, &d.Address, &d.ErrorCode,
			&d.Outcome, &d.AttemptID, &d.AttemptOutcome, &d.Scenario, &d.Also, &d.Severity,
			&evidence, &d.Unknown, &d.Incidents, &d.Revision)
		if err != nil {
			return err
		}
		s.parseEvidence(&d, evidence)
		records = append(records, d)
		return nil
	})
	return records, err
}

// decisive returns the index of the record that decides among records in any order. The worst attempt is
// taken, the newest of several; of a failed attempt its newest failure, of any other its newest record.
func decisive(records []detectors.Diagnosis) int {
	badness := func(d *detectors.Diagnosis) int {
		switch d.AttemptOutcome {
		case detectors.AttemptFailed:
			return 2
		case detectors.AttemptInterrupted:
			return 1
		}
		return 0
	}
	newer := func(a, b *detectors.Diagnosis) int {
		return cmp.Or(cmp.Compare(a.EventTime, b.EventTime), cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.TenantID, b.TenantID))
	}
	best := 0
	for i := range records {
		a, b := &records[i], &records[best]
		failed := func(d *detectors.Diagnosis) int {
			if d.AttemptOutcome == detectors.AttemptFailed && d.Outcome == detectors.OutcomeFailure {
				return 1
			}
			return 0
		}
		if cmp.Or(cmp.Compare(badness(a), badness(b)), cmp.Compare(failed(a), failed(b)), newer(a, b)) > 0 {
			best = i
		}
	}
	return best
}

// RawRecord is a record as it was received.
type RawRecord struct {
	RequestID       string
	TenantID        string
	ReceivedTime    time.Time
	SourceTopic     string
	SourcePartition int32
	SourceOffset    int64
	SourceIndex     uint32
	Raw             string
}

// maxRawRecords bounds the copies of one record that are returned: Entra sends newer versions and parts of a
// record, and repeats it where a batch failed.
const maxRawRecords = 20

// Raw returns the copies of a record as received, newest first. They are absent where raw records are not kept, or
// no longer. The caller must have made sure that the viewer may see raw records.
func (s *Store) Raw(ctx context.Context, requestID string) ([]RawRecord, error) {
	id, err := NormalizeID(requestID)
	if err != nil {
		return nil, err
	}
	var all []RawRecord
	err = s.query(ctx, "read raw records", `
		SELECT request_id, tenant_id, received_time, source_topic, source_partition, source_offset, source_index, raw
		FROM raw_records FINAL
		WHERE request_id IN {ids:Array(String)}
		ORDER BY received_time DESC, source_topic, source_partition, source_offset DESC, source_index DESC
		LIMIT {limit:UInt32}`,
		[]parameter{named("ids", spellings(id)), named("limit", maxRawRecords)},
		func(rows driver.Rows) error {
			var r RawRecord
			if err := rows.Scan(&r.RequestID, &r.TenantID, &r.ReceivedTime, &r.SourceTopic, &r.SourcePartition, &r.SourceOffset, &r.SourceIndex, &r.Raw); err != nil {
				return err
			}
			all = append(all, r)
			return nil
		})
	return all, err
}

// parseEvidence reads the column evidence into d. Keys of another version's catalogue are left out and logged: what
// remains is still worth showing.
func (s *Store) parseEvidence(d *detectors.Diagnosis, text string) {
	evidence, err := detectors.ParseJSON(s.catalogue, []byte(text))
	if err != nil {
		s.log.Warn("some evidence of a record is not shown", "request_id", d.RequestID, "reason", err)
	}
	d.Evidence = evidence
}

// Ping reports whether ClickHouse answers.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("ping ClickHouse: %w", err)
	}
	return nil
}

// pingTimeout bounds a ping: probes of readiness give up after a few seconds.
const pingTimeout = 3 * time.Second
