package lookup

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
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
	// Problems selects failures and interrupts that nothing followed, and whatever else has a severity of medium or
	// higher. A severity of info is never a problem: sessions end and prompts wait all the time.
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

// recordKey is the key of a row of diagnoses, and its event time, which never changes.
type recordKey struct {
	correlation, request, tenant string
	event                        int64 // microseconds since the Unix epoch
}

// searchSpans are how far back a search without a user looks, one after the other, until a page is full: the table is
// in the order of users, so what such a search costs is the number of rows in its span. 0 is without an end.
var searchSpans = []time.Duration{6 * time.Hour, 48 * time.Hour, 14 * 24 * time.Hour, 0}

// maxSearchRounds bounds how often candidates are read for one page. More than one round is needed only where many
// records no longer fit in their newest revision; the page then ends early, with a cursor.
const maxSearchRounds = 20

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
	var newest time.Time
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
	page := &SearchPage{}
	for _, span := range spans {
		from := time.UnixMicro(0)
		if span > 0 {
			from = newest.Add(-span)
		}
		// Every span goes on where the one before it ended.
		var more bool
		more, after, err = s.searchSpan(ctx, &q, from, after, limit+1, page)
		if err != nil {
			return nil, err
		}
		if more {
			page.NextCursor = keyCursor(digest, after)
		}
		if more || len(page.Records) > limit {
			break
		}
	}
	if len(page.Records) > limit {
		page.Records = page.Records[:limit]
		last := &page.Records[limit-1]
		page.NextCursor = cursor{Filter: digest, Time: last.EventTime, ID: last.RequestID, Tenant: last.TenantID, Correlation: last.CorrelationID}.String()
	}
	return page, nil
}

func keyCursor(digest string, c *cursor) string {
	c.Filter = digest
	return c.String()
}

// searchSpan adds the records after a cursor and not before a time to the page until it has want records. It reads
// candidates, rows of which any revision fits, and keeps those of which the newest does. It returns the cursor of
// the last candidate, and whether it gave up with candidates left.
func (s *Store) searchSpan(ctx context.Context, q *SearchQuery, from time.Time, after *cursor, want int, page *SearchPage) (more bool, last *cursor, err error) {
	f := q.filter(from)
	for range maxSearchRounds {
		// Twice as many, since revisions that are not merged yet are candidates too.
		batch := 2 * (want - len(page.Records))
		candidates, err := s.candidates(ctx, f, after, batch)
		if err != nil {
			return false, nil, err
		}
		if len(candidates) > 0 {
			k := candidates[len(candidates)-1]
			after = &cursor{Time: k.event, ID: k.request, Tenant: k.tenant, Correlation: k.correlation}
		}
		records, err := s.recordsByKey(ctx, "search sign-ins", candidates, f)
		if err != nil {
			return false, nil, err
		}
		page.Records = append(page.Records, records...)
		if len(candidates) < batch || len(page.Records) >= want {
			return false, after, nil
		}
	}
	return true, after, nil
}

// filter is the condition of a search, for diagnoses_by_user and for diagnoses alike. The clauses are constants; only
// the parameters vary.
type filter struct {
	clauses    []string
	parameters []parameter
}

func (f *filter) where(clause string, p ...parameter) {
	f.clauses = append(f.clauses, clause)
	f.parameters = append(f.parameters, p...)
}

// tableEnd is the end of the tables' range of event times.
var tableEnd = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func (q *SearchQuery) filter(from time.Time) filter {
	var f filter
	to := tableEnd
	if !q.Around.IsZero() {
		from, to = q.Around.Add(-searchWindow), q.Around.Add(searchWindow)
	}
	f.where(`event_time >= fromUnixTimestamp64Micro({from:Int64})`, micros("from", from))
	f.where(`event_time <= fromUnixTimestamp64Micro({to:Int64})`, micros("to", to))
	switch {
	case q.User == "":
	case schemas.IsGroupingID(q.User):
		f.where(`user_id IN {user_ids:Array(String)}`, named("user_ids", spellings(strings.ToLower(q.User))))
	case strings.Contains(q.User, "@"):
		f.where(`lowerUTF8(user) = lowerUTF8({user:String})`, named("user", q.User))
	default:
		f.where(`startsWith(lowerUTF8(user), lowerUTF8({user:String}))`, named("user", q.User))
	}
	if q.App != "" {
		f.where(`positionUTF8(lowerUTF8(app), lowerUTF8({app:String})) > 0`, named("app", q.App))
	}
	if q.Address != "" {
		f.where(`lower(address) = lower({address:String})`, named("address", q.Address))
	}
	if q.Flagged {
		f.where(`(has(also, 'flagged') OR scenario = 'flagged')`)
	}
	if q.Problems {
		f.where(`severity != 'info' AND (outcome IN ('failure', 'interrupted') OR severity IN ('medium', 'high', 'critical'))`)
	}
	if q.Outcome != "" {
		f.where(`outcome = {outcome:String}`, named("outcome", q.Outcome))
	}
	if q.Scenario != "" {
		f.where(`(scenario = {scenario:String} OR has(also, {scenario:String}))`, named("scenario", q.Scenario))
	}
	if q.Code != nil {
		f.where(`error_code = {code:Int32}`, named("code", *q.Code))
	}
	return f
}

// candidates returns the keys of up to limit rows of which some revision fits, newest first, each key once.
func (s *Store) candidates(ctx context.Context, f filter, after *cursor, limit int) ([]recordKey, error) {
	clauses, parameters := f.clauses, append(slices.Clip(f.parameters), named("limit", limit))
	if after != nil {
		clauses = append(slices.Clip(clauses),
			`event_time <= fromUnixTimestamp64Micro({after_time:Int64})`,
			`(event_time, request_id, tenant_id, correlation_id) < (fromUnixTimestamp64Micro({after_time:Int64}), {after_id:String}, {after_tenant:String}, {after_correlation:String})`)
		parameters = append(parameters, named("after_time", after.Time), named("after_id", after.ID), named("after_tenant", after.Tenant), named("after_correlation", after.Correlation))
	}
	var keys []recordKey
	err := s.query(ctx, "search sign-ins", `
		SELECT correlation_id, request_id, tenant_id, toUnixTimestamp64Micro(event_time) FROM diagnoses_by_user
		WHERE `+strings.Join(clauses, "\n\t\t  AND ")+`
		ORDER BY event_time DESC, request_id DESC, tenant_id DESC, correlation_id DESC LIMIT {limit:UInt32}`, parameters,
		func(r driver.Rows) error {
			var k recordKey
			if err := r.Scan(&k.correlation, &k.request, &k.tenant, &k.event); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		})
	return keys, err
}

// recordsByKey returns the records with the given keys in the order of the keys, each once, where their newest revision
// fits the filter. A key without a record, which a retention that just struck may leave, is left out.
func (s *Store) recordsByKey(ctx context.Context, what string, keys []recordKey, f filter) ([]detectors.Diagnosis, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	place := make(map[recordKey]int, len(keys))
	correlations, requests := make([]string, 0, len(keys)), make([]string, 0, len(keys))
	first, last := keys[0].event, keys[0].event
	for i, k := range keys {
		place[k] = i
		correlations, requests = append(correlations, k.correlation), append(requests, k.request)
		first, last = min(first, k.event), max(last, k.event)
	}
	rest := ""
	if len(f.clauses) > 0 {
		rest = "WHERE " + strings.Join(f.clauses, "\n\t\t  AND ")
	}
	// The times leave out the parts of the table that cannot hold a key.
	read, err := s.records(ctx, what, `
		event_time >= fromUnixTimestamp64Micro({first:Int64}) AND event_time <= fromUnixTimestamp64Micro({last:Int64})
		AND correlation_id IN {correlations:Array(String)} AND request_id IN {requests:Array(String)}`, rest,
		append(slices.Clip(f.parameters), named("first", first), named("last", last), named("correlations", correlations), named("requests", requests))...)
	if err != nil {
		return nil, err
	}
	ordered := make([]*detectors.Diagnosis, len(keys))
	for i := range read {
		d := &read[i]
		if at, ok := place[recordKey{d.CorrelationID, d.RequestID, d.TenantID, d.EventTime}]; ok {
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
