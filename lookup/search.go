package lookup

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
)

const (
	// searchWindow is how far a sign-in may lie from the time that a search names, as in Entra's own
	// Sign-in diagnostic.
	searchWindow = 48 * time.Hour
	// defaultLimit and maxSearchLimit bound a page of records.
	defaultLimit   = 50
	maxSearchLimit = 500
	// maxTermLength bounds a search term, bytes.
	maxTermLength = 400
)

// SearchQuery selects records. Empty fields select all; several fields must all fit.
type SearchQuery struct {
	// User is a user principal name or display name in any case, the beginning of one where it has no @,
	// or a user id.
	User string
	// App is the name of an application in any case, or a part of it.
	App string
	// Address is the IP address as the records have it.
	Address string
	// Around selects records within 48 hours of it.
	Around time.Time
	// Flagged selects the sign-ins that their user flagged for review.
	Flagged bool
	// Problems selects failures and interrupts that nothing followed, and whatever else has a severity
	// of medium or higher.
	Problems bool
	Outcome  string // success, failure, interrupted or resolved
	Scenario string // as the headline or in also
	Code     *int32
	// Limit is the size of a page, 1 to 500; 50 when 0.
	Limit int
	// Cursor continues after an earlier page of the same query.
	Cursor string
}

// QueryError says what is wrong with a query.
type QueryError struct {
	Field, Reason string
}

// Error names the field and what was expected.
func (e *QueryError) Error() string { return e.Field + ": " + e.Reason }

// SearchPage is a page of records, newest first.
type SearchPage struct {
	Records []detectors.Diagnosis
	// NextCursor continues with the next page; empty on the last.
	NextCursor string
}

// cursor is the key of the last row of a page. It holds a digest of the query, so that it continues no other.
type cursor struct {
	Filter      string `json:"f"`
	Time        int64  `json:"t"` // microseconds since the Unix epoch
	ID          string `json:"i"`
	Tenant      string `json:"n"`
	Correlation string `json:"c,omitempty"`
}

// String encodes the cursor for a URL.
func (c cursor) String() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and an integer always encode
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseCursor(s, digest string) (*cursor, error) {
	if s == "" {
		return nil, nil
	}
	var c cursor
	text, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil || c.ID == "" {
		return nil, &QueryError{Field: "cursor", Reason: "expected the next_cursor of an earlier page"}
	}
	if c.Filter != digest {
		return nil, &QueryError{Field: "cursor", Reason: "it belongs to another query: expected the next_cursor of an earlier page of this one"}
	}
	return &c, nil
}

// filterDigest is a short hash of what selects rows, everything but limit and cursor.
func filterDigest(parts ...string) string {
	return strconv.FormatUint(schemas.Hash64(strings.Join(parts, "\x00")), 36)
}

func timeKey(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMicro(), 10)
}

func pageLimit(limit, most int) (int, error) {
	if limit == 0 {
		return defaultLimit, nil
	}
	if limit < 1 || limit > most {
		return 0, &QueryError{Field: "limit", Reason: fmt.Sprintf("expected 1 to %d, not %d", most, limit)}
	}
	return limit, nil
}

func (q *SearchQuery) validate() error {
	for _, term := range []struct{ field, value string }{{"user", q.User}, {"app", q.App}, {"ip", q.Address}, {"scenario", q.Scenario}} {
		if len(term.value) > maxTermLength {
			return &QueryError{Field: term.field, Reason: fmt.Sprintf("expected at most %d bytes, not %d", maxTermLength, len(term.value))}
		}
	}
	switch q.Outcome {
	case "", detectors.OutcomeSuccess, detectors.OutcomeFailure, detectors.OutcomeInterrupted, detectors.OutcomeResolved:
		return nil
	}
	return &QueryError{Field: "outcome", Reason: fmt.Sprintf("expected success, failure, interrupted or resolved, not %q", q.Outcome)}
}

func (q *SearchQuery) digest() string {
	code := ""
	if q.Code != nil {
		code = strconv.Itoa(int(*q.Code))
	}
	return filterDigest("records", q.User, q.App, q.Address, timeKey(q.Around), strconv.FormatBool(q.Flagged),
		strconv.FormatBool(q.Problems), q.Outcome, q.Scenario, code)
}

// recordKey is the key of a row of diagnoses.
type recordKey struct{ correlation, request, tenant string }

// found is a row of a search, before its evidence is read.
type found struct {
	recordKey
	event int64
}

// searchSpans are how far back a search without a user looks, one after the other, until a page is full: the table is
// in the order of users, so what such a search costs is the number of rows in its span. 0 is without an end.
var searchSpans = []time.Duration{6 * time.Hour, 48 * time.Hour, 14 * 24 * time.Hour, 0}

// Search returns records that a query selects, newest first, in their newest revision. A query that cannot be is a
// *QueryError; one that takes too long is ErrTooExpensive.
func (s *Store) Search(ctx context.Context, q SearchQuery) (*SearchPage, error) {
	limit, err := pageLimit(q.Limit, maxSearchLimit)
	if err != nil {
		return nil, err
	}
	q.User, q.App, q.Address = strings.TrimSpace(q.User), strings.TrimSpace(q.App), strings.TrimSpace(q.Address)
	if err := q.validate(); err != nil {
		return nil, err
	}
	if q.Scenario != "" && s.catalogue.Scenario(q.Scenario) == nil {
		return nil, &QueryError{Field: "scenario", Reason: fmt.Sprintf("%q is no scenario", q.Scenario)}
	}
	digest := q.digest()
	after, err := parseCursor(q.Cursor, digest)
	if err != nil {
		return nil, err
	}

	spans := []time.Duration{0}
	newest := s.now().Add(100 * 365 * 24 * time.Hour)
	switch {
	case !q.Around.IsZero() || q.User != "":
	case after != nil:
		spans, newest = searchSpans, time.UnixMicro(after.Time)
	default:
		spans = searchSpans
		var records uint64
		err := s.query(ctx, "find the newest sign-in", `SELECT count(), max(event_time) FROM diagnoses_by_user`, nil,
			func(rows driver.Rows) error { return rows.Scan(&records, &newest) })
		if err != nil {
			return nil, err
		}
		if records == 0 {
			return &SearchPage{}, nil
		}
	}
	var rows []found
	for _, span := range spans {
		from := time.UnixMicro(0)
		if span > 0 {
			from = newest.Add(-span)
		}
		rows, err = s.searchRows(ctx, &q, from, after, limit+1)
		if err != nil {
			return nil, err
		}
		if len(rows) > limit {
			break
		}
	}
	page := &SearchPage{}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		page.NextCursor = cursor{Filter: digest, Time: last.event, ID: last.request, Tenant: last.tenant, Correlation: last.correlation}.String()
	}
	keys := make([]recordKey, len(rows))
	for i := range rows {
		keys[i] = rows[i].recordKey
	}
	page.Records, err = s.recordsByKey(ctx, "search sign-ins", keys)
	return page, err
}

// searchRows asks diagnoses_by_user. The clauses are constants; only the query's values vary.
func (s *Store) searchRows(ctx context.Context, q *SearchQuery, from time.Time, after *cursor, limit int) ([]found, error) {
	to := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) // the end of the table's range
	if !q.Around.IsZero() {
		from, to = q.Around.Add(-searchWindow), q.Around.Add(searchWindow)
	}
	clauses := []string{
		`event_time >= fromUnixTimestamp64Micro({from:Int64})`,
		`event_time <= fromUnixTimestamp64Micro({to:Int64})`,
	}
	parameters := []parameter{micros("from", from), micros("to", to), named("limit", limit)}
	where := func(clause string, p ...parameter) {
		clauses = append(clauses, clause)
		parameters = append(parameters, p...)
	}
	switch {
	case q.User == "":
	case schemas.IsGroupingID(q.User):
		where(`user_id IN {user_ids:Array(String)}`, named("user_ids", spellings(strings.ToLower(q.User))))
	case strings.Contains(q.User, "@"):
		where(`lowerUTF8(user) = lowerUTF8({user:String})`, named("user", q.User))
	default:
		where(`startsWith(lowerUTF8(user), lowerUTF8({user:String}))`, named("user", q.User))
	}
	if q.App != "" {
		where(`positionUTF8(lowerUTF8(app), lowerUTF8({app:String})) > 0`, named("app", q.App))
	}
	if q.Address != "" {
		where(`lower(address) = lower({address:String})`, named("address", q.Address))
	}
	if q.Flagged {
		where(`(has(also, 'flagged') OR scenario = 'flagged')`)
	}
	if q.Problems {
		where(`(outcome = 'failure' OR outcome = 'interrupted' OR severity IN ('medium', 'high', 'critical'))`)
	}
	if q.Outcome != "" {
		where(`outcome = {outcome:String}`, named("outcome", q.Outcome))
	}
	if q.Scenario != "" {
		where(`(scenario = {scenario:String} OR has(also, {scenario:String}))`, named("scenario", q.Scenario))
	}
	if q.Code != nil {
		where(`error_code = {code:Int32}`, named("code", *q.Code))
	}
	if after != nil {
		where(`event_time <= fromUnixTimestamp64Micro({after_time:Int64})`, named("after_time", after.Time))
		where(`(event_time, request_id, tenant_id, correlation_id) < (fromUnixTimestamp64Micro({after_time:Int64}), {after_id:String}, {after_tenant:String}, {after_correlation:String})`,
			named("after_id", after.ID), named("after_tenant", after.Tenant), named("after_correlation", after.Correlation))
	}
	var rows []found
	err := s.query(ctx, "search sign-ins", `
		SELECT correlation_id, request_id, tenant_id, toUnixTimestamp64Micro(event_time) FROM diagnoses_by_user FINAL
		WHERE `+strings.Join(clauses, "\n\t\t  AND ")+`
		ORDER BY event_time DESC, request_id DESC, tenant_id DESC, correlation_id DESC LIMIT {limit:UInt32}`, parameters,
		func(r driver.Rows) error {
			var f found
			if err := r.Scan(&f.correlation, &f.request, &f.tenant, &f.event); err != nil {
				return err
			}
			rows = append(rows, f)
			return nil
		})
	return rows, err
}

// recordsByKey returns the records with the given keys in the order of the keys. A key without a record, which a
// retention that just struck may leave, is left out.
func (s *Store) recordsByKey(ctx context.Context, what string, keys []recordKey) ([]detectors.Diagnosis, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	place := make(map[recordKey]int, len(keys))
	correlations, requests := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		place[k] = i
		correlations[i], requests[i] = k.correlation, k.request
	}
	read, err := s.records(ctx, what, `
		WHERE correlation_id IN {correlations:Array(String)} AND request_id IN {requests:Array(String)}`,
		named("correlations", correlations), named("requests", requests))
	if err != nil {
		return nil, err
	}
	ordered := make([]*detectors.Diagnosis, len(keys))
	for i := range read {
		d := &read[i]
		if at, ok := place[recordKey{d.CorrelationID, d.RequestID, d.TenantID}]; ok {
			ordered[at] = d
		}
	}
	records := make([]detectors.Diagnosis, 0, len(keys))
	for _, d := range ordered {
		if d != nil {
			records = append(records, *d)
		}
	}
	return records, nil
}
