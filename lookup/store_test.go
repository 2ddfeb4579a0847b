package lookup

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
)

func requestIDs(records []detectors.Diagnosis) string {
	ids := make([]string, len(records))
	for i := range records {
		var n int
		if _, err := fmt.Sscanf(records[i].RequestID, "bbbbbbbb-0000-4000-8000-%012d", &n); err != nil {
			return records[i].RequestID
		}
		ids[i] = fmt.Sprint(n)
	}
	return strings.Join(ids, " ")
}

func TestFind(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	upper := strings.ToUpper(correlation(3))
	for _, test := range []struct {
		name, id  string
		matched   Match
		records   string
		decisive  int
		incidents string
	}{
		{"a resolved interrupt, by its newest record", correlation(1), MatchCorrelationID, "1 2", 2, ""},
		{"a failed attempt, by its failure", correlation(3), MatchCorrelationID, "3 4 5", 4, "incident-surge"},
		{"upper case and braces", " {" + upper + "} \n", MatchCorrelationID, "3 4 5", 4, "incident-surge"},
		{"a request decides by itself", request(5), MatchRequestID, "3 4 5", 5, "incident-surge"},
		{"a request in quotes and upper case", `"` + strings.ToUpper(request(3)) + `"`, MatchRequestID, "3 4 5", 3, "incident-surge"},
		{"the newest revision", correlation(6), MatchCorrelationID, "6", 6, "incident-carol"},
		{"no correlation id groups nothing", request(9), MatchRequestID, "9", 9, ""},
		{"zeros group nothing", request(10), MatchRequestID, "10", 10, ""},
		{"a workload", request(12), MatchRequestID, "12", 12, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := f.store.Find(t.Context(), test.id)
			if err != nil {
				t.Fatal(err)
			}
			var incidents []string
			for _, i := range r.Incidents {
				incidents = append(incidents, i.IncidentID)
			}
			if got := requestIDs(r.Records); got != test.records || r.RecordsTotal != uint64(len(r.Records)) {
				t.Errorf("records %q, total %d, want %q", got, r.RecordsTotal, test.records)
			}
			if got := r.Diagnosis().RequestID; got != request(test.decisive) {
				t.Errorf("decisive is %s, want %s", got, request(test.decisive))
			}
			if got := strings.Join(incidents, " "); got != test.incidents {
				t.Errorf("incidents %q, want %q", got, test.incidents)
			}
			if r.Matched != test.matched {
				t.Errorf("matched %s, want %s", r.Matched, test.matched)
			}
		})
	}

	r, err := f.store.Find(t.Context(), correlation(6))
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Diagnosis(); d.Revision != detectors.Revision(1, 100) || !slices.Equal(d.Also, []string{"repeated_failures"}) {
		t.Errorf("revision %d, also %v: not the newest revision", d.Revision, d.Also)
	}
	r, err = f.store.Find(t.Context(), request(4))
	if err != nil {
		t.Fatal(err)
	}
	if fact := r.Diagnosis().Evidence.Get("policies"); fact == nil || !slices.Equal(fact.List, []string{policyName}) {
		t.Errorf("policies %+v: evidence was not read", fact)
	}
	if d := r.Diagnosis(); d.EventTime != start.Add(4*time.Second).UnixMicro() || d.ReceivedTime != start.Add(3*time.Minute+4*time.Second).UnixMilli() {
		t.Errorf("event time %d, received time %d are not as written", d.EventTime, d.ReceivedTime)
	}
}

func TestFindNothing(t *testing.T) {
	f := newFixture(t)
	_, err := f.store.Find(t.Context(), request(99))
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "No record has been received yet") {
		t.Errorf("empty tables: %v", err)
	}
	f.story(t)
	_, err = f.store.Find(t.Context(), request(99))
	var notFound *NotFoundError
	if !errors.As(err, &notFound) || !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v, want a NotFoundError", err)
	}
	const want = "No sign-in with this id is known. The newest record was received 23 hours ago (2026-03-02 09:03:13Z); " +
		"exports from Entra usually lag 2 to 8 minutes and may lag up to hours. " +
		"Data reaches from 2026-03-02 09:00:13Z back to 2026-03-02 09:00:01Z. " +
		"Categories seen: SignInLogs (12), ServicePrincipalSignInLogs (1)."
	if got := err.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	for _, id := range []string{"", "  ", "{}", "00000000-0000-0000-0000-000000000000", strings.Repeat("a", 201), "a\x00b", "a\nb", "\xff"} {
		var invalid *InvalidIDError
		if _, err := f.store.Find(t.Context(), id); !errors.As(err, &invalid) {
			t.Errorf("id %q: got %v, want an InvalidIDError", id, err)
		}
	}
}

// hostile are texts that would change a query that was put together from strings, or a parameter that was not escaped.
var hostile = []string{
	`' OR 1=1 --`, `'; DROP TABLE diagnoses; --`, `\' OR 1=1 --`, `\`, `\\'`, `')) OR ((1=1`, "tab\tand\"quote", `{ids:Array(String)}`, `%`, `_`, `['a']`, `NULL`, `\N`, "é'ü", "`", "/*", "?", "$1", "@user",
}

func TestHostileInput(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	rows := &detectors.Rows{}
	for i, text := range hostile {
		d := record(1000 + i)
		d.RequestID, d.CorrelationID, d.User, d.App = "x"+text, "", "u"+text, text
		rows.Diagnoses = append(rows.Diagnoses, d)
	}
	f.write(t, rows)
	for i, text := range hostile {
		// What is stored is found, and only that.
		if !strings.ContainsAny(text, "\t") {
			r, err := f.store.Find(t.Context(), "x"+text)
			want := strings.Trim("x"+text, ` "'{}()`)
			if want == "x"+text {
				if err != nil || len(r.Records) != 1 || r.Diagnosis().RequestID != "x"+text {
					t.Errorf("Find(%q): %v, %v", "x"+text, r, err)
				}
			} else if !errors.Is(err, ErrNotFound) {
				t.Errorf("Find(%q): got %v, want not found", "x"+text, err)
			}
		}
		page, err := f.store.Search(t.Context(), SearchQuery{User: "u" + text})
		if err != nil {
			t.Errorf("Search user %q: %v", text, err)
			continue
		}
		if !slices.ContainsFunc(page.Records, func(d detectors.Diagnosis) bool { return d.User == "u"+text }) ||
			slices.ContainsFunc(page.Records, func(d detectors.Diagnosis) bool { return !strings.HasPrefix(d.User, "u"+text) }) {
			t.Errorf("Search user %q (%d): %d records, not those of the user", text, i, len(page.Records))
		}
		for _, q := range []SearchQuery{{App: text}, {Address: text}, {User: text, App: text, Address: text}} {
			if _, err := f.store.Search(t.Context(), q); err != nil {
				t.Errorf("Search %+v: %v", q, err)
			}
		}
		if _, err := f.store.Incident(t.Context(), text); !errors.Is(err, ErrNotFound) {
			t.Errorf("Incident(%q): %v", text, err)
		}
		if page, err := f.store.Incidents(t.Context(), IncidentFilter{User: text}); err != nil || len(page.Incidents) > 0 {
			t.Errorf("Incidents of %q: %v, %v", text, page, err)
		}
	}
	r, err := f.store.Find(t.Context(), correlation(3))
	if err != nil || len(r.Records) != 3 {
		t.Errorf("the tables were changed: %v, %v", r, err)
	}
}

func TestQueriesAreReadOnlyAndBounded(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	for _, text := range []string{
		`INSERT INTO request_ids (request_id) VALUES ('x')`, `DROP TABLE diagnoses`, `ALTER TABLE diagnoses DELETE WHERE 1`, `SET readonly = 0`,
	} {
		err := f.store.query(t.Context(), "test", text, nil, nil)
		if err == nil {
			t.Errorf("%s was allowed", text)
		}
	}
	err := f.store.query(t.Context(), "test", `SELECT number FROM numbers(20000)`, nil, discard)
	if !errors.Is(err, ErrTooExpensive) {
		t.Errorf("a large result: got %v, want ErrTooExpensive", err)
	}
}

func TestSearch(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	code := int32(53003)
	for _, test := range []struct {
		name  string
		query SearchQuery
		want  string
	}{
		{"everything, newest first", SearchQuery{}, "13 12 11 10 9 8 7 6 5 4 3 2 1"},
		{"a user in another case", SearchQuery{User: "CAROL@contoso.example"}, "8 7 6"},
		{"the beginning of a user", SearchQuery{User: "bo"}, "5 4 3"},
		{"a user id", SearchQuery{User: strings.ToUpper(guid("dddddddd", 2))}, "5 4 3"},
		{"a part of an application", SearchQuery{App: "team"}, "5"},
		{"an address", SearchQuery{Address: "2001:DB8::1"}, "5 4 3"},
		{"a user and an application", SearchQuery{User: "bob@contoso.example", App: "exchange"}, "4 3"},
		{"flagged", SearchQuery{Flagged: true}, "4"},
		{"problems", SearchQuery{Problems: true}, "12 11 10 9 8 7 6 4 3"},
		{"an outcome", SearchQuery{Outcome: detectors.OutcomeResolved}, "1"},
		{"a scenario", SearchQuery{Scenario: "ca_blocked"}, "4"},
		{"a label of the newest revision", SearchQuery{Scenario: "repeated_failures"}, "6"},
		{"a code", SearchQuery{Code: &code}, "4"},
		{"47 hours later", SearchQuery{Around: start.Add(47 * time.Hour), App: "Teams"}, "5"},
		{"49 hours later", SearchQuery{Around: start.Add(49 * time.Hour)}, ""},
		{"nobody", SearchQuery{User: "nobody@contoso.example"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			page, err := f.store.Search(t.Context(), test.query)
			if err != nil {
				t.Fatal(err)
			}
			if got := requestIDs(page.Records); got != test.want || page.NextCursor != "" {
				t.Errorf("got %q and cursor %q, want %q and none", got, page.NextCursor, test.want)
			}
		})
	}
	for _, test := range []struct {
		field string
		query SearchQuery
	}{
		{"limit", SearchQuery{Limit: 501}}, {"limit", SearchQuery{Limit: -1}}, {"outcome", SearchQuery{Outcome: "bad"}}, {"scenario", SearchQuery{Scenario: "no_such"}},
		{"cursor", SearchQuery{Cursor: "x"}}, {"cursor", SearchQuery{Cursor: cursor{Filter: "other", ID: "x"}.String()}}, {"user", SearchQuery{User: strings.Repeat("u", 401)}},
	} {
		var wrong *QueryError
		if _, err := f.store.Search(t.Context(), test.query); !errors.As(err, &wrong) || wrong.Field != test.field {
			t.Errorf("%+v: got %v, want an error of %s", test.query, err, test.field)
		}
	}
}

// TestSearchPages reads pages of random sizes over records that share times and request ids and lie far apart, and
// wants every record once, in order.
func TestSearchPages(t *testing.T) {
	f := newFixture(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	rows := &detectors.Rows{}
	const records = 60
	for n := range records {
		d := record(n)
		// Some at the same microsecond, some months before.
		d.EventTime = start.Add(-time.Duration(random.IntN(10)) * 100 * time.Hour).UnixMicro()
		if n%10 == 9 { // the other tenant's copy of the same request
			d.RequestID, d.CorrelationID, d.TenantID, d.EventTime = request(n-1), correlation(n-1), otherTenant, rows.Diagnoses[n-1].EventTime
		}
		rows.Diagnoses = append(rows.Diagnoses, d)
	}
	f.write(t, rows)
	for _, query := range []SearchQuery{{}, {User: "ada@contoso.example"}, {Problems: true, Around: start}} {
		var got []detectors.Diagnosis
		for pages := 0; ; pages++ {
			query.Limit = 1 + random.IntN(15)
			page, err := f.store.Search(t.Context(), query)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Records) > query.Limit || pages > records {
				t.Fatalf("page %d has %d records, limit %d", pages, len(page.Records), query.Limit)
			}
			got = append(got, page.Records...)
			if page.NextCursor == "" {
				break
			}
			query.Cursor = page.NextCursor
		}
		seen := map[string]bool{}
		for i := range got {
			id := got[i].RequestID + got[i].TenantID
			if seen[id] {
				t.Errorf("%+v: %s twice", query, id)
			}
			seen[id] = true
			if i > 0 && got[i].EventTime > got[i-1].EventTime {
				t.Errorf("%+v: record %d is newer than the one before", query, i)
			}
		}
		want := records
		if !query.Around.IsZero() {
			want = 0
			for i := range rows.Diagnoses {
				if rows.Diagnoses[i].EventTime >= start.Add(-searchWindow).UnixMicro() {
					want++
				}
			}
		}
		if len(got) != want {
			t.Errorf("%+v: %d records on all pages, want %d", query, len(got), want)
		}
	}
}

// TestSearchRevisions searches where the newest revision of most records no longer fits, before the tables merge.
func TestSearchRevisions(t *testing.T) {
	f := newFixture(t)
	const records, stale = 260, 250
	if err := f.conn.Exec(t.Context(), `SYSTEM STOP MERGES diagnoses_by_user`); err != nil {
		t.Fatal(err)
	}
	if err := f.conn.Exec(t.Context(), `SYSTEM STOP MERGES diagnoses`); err != nil {
		t.Fatal(err)
	}
	before, after := &detectors.Rows{}, &detectors.Rows{}
	for n := range records {
		d := record(n)
		before.Diagnoses = append(before.Diagnoses, d)
		d.Revision = detectors.Revision(1, int64(records+n))
		if n >= records-stale { // the newest were resolved since
			d.Outcome, d.AttemptOutcome = detectors.OutcomeResolved, detectors.AttemptResolved
		}
		after.Diagnoses = append(after.Diagnoses, d)
	}
	f.write(t, before)
	f.write(t, after)
	query := SearchQuery{Outcome: detectors.OutcomeFailure, Limit: 3}
	var got []string
	for pages := 0; pages < records; pages++ {
		page, err := f.store.Search(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Records) > 0 {
			got = append(got, requestIDs(page.Records))
		}
		if query.Cursor = page.NextCursor; query.Cursor == "" {
			break
		}
	}
	if want := "9 8 7 6 5 4 3 2 1 0"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIncidents(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	list := func(filter IncidentFilter) string {
		page, err := f.store.Incidents(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, i := range page.Incidents {
			ids = append(ids, i.IncidentID)
		}
		if page.NextCursor != "" {
			ids = append(ids, "more")
		}
		return strings.Join(ids, " ")
	}
	for _, test := range []struct {
		filter IncidentFilter
		want   string
	}{
		{IncidentFilter{}, "incident-carol incident-surge"},
		{IncidentFilter{Limit: 1}, "incident-carol more"},
		{IncidentFilter{Kind: "ca_surge"}, "incident-surge"},
		{IncidentFilter{Severity: detectors.SeverityHigh}, "incident-surge"},
		{IncidentFilter{Severity: detectors.SeverityInfo}, "incident-carol incident-surge"},
		{IncidentFilter{User: "Carol@Contoso.example"}, "incident-carol"},
		{IncidentFilter{Around: start.Add(-47 * time.Hour)}, "incident-carol incident-surge"},
		{IncidentFilter{Around: start.Add(49 * time.Hour)}, ""},
	} {
		if got := list(test.filter); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.filter, got, test.want)
		}
	}
	page, err := f.store.Incidents(t.Context(), IncidentFilter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := list(IncidentFilter{Limit: 1, Cursor: page.NextCursor}); got != "incident-surge" {
		t.Errorf("second page %q", got)
	}
	for _, filter := range []IncidentFilter{{Kind: "no_such"}, {Severity: "bad"}, {Limit: 1000}, {Cursor: "x"}, {Kind: "ca_surge", Cursor: page.NextCursor}} {
		var wrong *QueryError
		if _, err := f.store.Incidents(t.Context(), filter); !errors.As(err, &wrong) {
			t.Errorf("%+v: got %v, want a QueryError", filter, err)
		}
	}

	detail, err := f.store.Incident(t.Context(), "incident-carol")
	if err != nil {
		t.Fatal(err)
	}
	if got := requestIDs(detail.Records); got != "8 7 6" || detail.RecordsTotal != 3 {
		t.Errorf("records %q of %d", got, detail.RecordsTotal)
	}
	if i := detail.Incident; len(i.Counts) != 1 || i.Counts[0] != (detectors.Count{Name: "failures", Value: 3}) || i.EntityValue != "carol@contoso.example" {
		t.Errorf("incident %+v", i)
	}
	if _, err := f.store.Incident(t.Context(), "no-such"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown incident: %v", err)
	}
}

// TestManyRecords looks up a correlation id that a client used for too long.
func TestManyRecords(t *testing.T) {
	f := newFixture(t)
	rows := &detectors.Rows{}
	for n := range 3 * maxRecords / 2 {
		d := record(n)
		d.CorrelationID = correlation(0)
		rows.Diagnoses = append(rows.Diagnoses, d)
	}
	f.write(t, rows)
	r, err := f.store.Find(t.Context(), correlation(0))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Records) != maxRecords || r.RecordsTotal != 3*maxRecords/2 || r.Records[maxRecords-1].RequestID != request(3*maxRecords/2-1) {
		t.Errorf("%d records of %d, the newest is %s", len(r.Records), r.RecordsTotal, r.Records[len(r.Records)-1].RequestID)
	}
	// The oldest is not among the newest, but it is what was asked for.
	r, err = f.store.Find(t.Context(), request(0))
	if err != nil {
		t.Fatal(err)
	}
	if r.Diagnosis().RequestID != request(0) || len(r.Records) != maxRecords+1 {
		t.Errorf("decisive %s among %d records", r.Diagnosis().RequestID, len(r.Records))
	}
}

// TestUnknownEvidence reads a row of a newer catalogue.
func TestUnknownEvidence(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	err := f.conn.Exec(t.Context(), `INSERT INTO diagnoses (request_id, correlation_id, tenant_id, event_time, evidence, revision)
		SELECT 'newer', '', 't', event_time, '{"operating_system":"Plan 9","of_the_future":[1,2]}', 1 FROM diagnoses LIMIT 1`)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.store.Find(t.Context(), "newer")
	if err != nil {
		t.Fatal(err)
	}
	if fact := r.Diagnosis().Evidence.Get("operating_system"); fact == nil || fact.Text != "Plan 9" || r.Diagnosis().Evidence.Len() != 1 {
		t.Errorf("evidence %+v", r.Diagnosis().Evidence)
	}
}

// TestLookupIsOneSeek makes sure that a look-up reads granules by key instead of the table.
func TestLookupIsOneSeek(t *testing.T) {
	f := newFixture(t)
	err := f.conn.Exec(t.Context(), `INSERT INTO diagnoses (request_id, correlation_id, tenant_id, event_time, evidence, revision)
		SELECT toString(generateUUIDv4(number)), toString(generateUUIDv4(number + 1000000)), 't', toDateTime64('2026-03-02 00:00:00', 6, 'UTC') + number % 86400, '{}', number FROM numbers(200000)`)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, &detectors.Rows{Diagnoses: []detectors.Diagnosis{record(1)}})
	if err := f.conn.Exec(t.Context(), `OPTIMIZE TABLE diagnoses FINAL`); err != nil {
		t.Fatal(err)
	}
	if err := f.conn.Exec(t.Context(), `OPTIMIZE TABLE request_ids FINAL`); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what, text string
		parameters []parameter
	}{
		{"correlation id", recordsQuery(`correlation_id IN {ids:Array(String)}`, `ORDER BY event_time DESC, request_id DESC, tenant_id DESC LIMIT {limit:UInt32}`),
			[]parameter{named("ids", spellings(correlation(1))), named("limit", 10)}},
		{"request id", `SELECT DISTINCT correlation_id FROM request_ids WHERE request_id IN {ids:Array(String)}`, []parameter{named("ids", spellings(request(1)))}},
		{"records by key", recordsQuery(`correlation_id IN {correlations:Array(String)} AND request_id IN {requests:Array(String)}`, ``),
			[]parameter{named("correlations", []string{correlation(1)}), named("requests", []string{request(1)})}},
	} {
		var plan strings.Builder
		err := f.store.query(t.Context(), "explain", "EXPLAIN indexes = 1 "+test.text, test.parameters, func(rows driverRows) error {
			var line string
			err := rows.Scan(&line)
			plan.WriteString(line + "\n")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		// 200 000 rows are 25 granules; the key leaves the one or two that may hold it, in each of two spellings.
		if !strings.Contains(plan.String(), "PrimaryKey") || granules(plan.String()) > 4 || granules(plan.String()) == 0 {
			t.Errorf("%s reads %d granules:\n%s", test.what, granules(plan.String()), plan.String())
		}
	}
}

// granules returns the number of granules that the last index of a plan leaves.
func granules(plan string) int {
	var left, of int // the part's own line has no "of"
	for line := range strings.Lines(plan) {
		if at := strings.Index(line, "Granules: "); at >= 0 {
			var l int
			if n, _ := fmt.Sscanf(line[at:], "Granules: %d/%d", &l, &of); n == 2 {
				left = l
			}
		}
	}
	return left
}

func TestDecisive(t *testing.T) {
	at := func(second int64, outcome, attempt string) detectors.Diagnosis {
		return detectors.Diagnosis{EventTime: second, RequestID: fmt.Sprint(second), Outcome: outcome, AttemptOutcome: attempt}
	}
	success, failure, interrupted, resolved := detectors.OutcomeSuccess, detectors.OutcomeFailure, detectors.OutcomeInterrupted, detectors.OutcomeResolved
	for _, test := range []struct {
		name    string
		records []detectors.Diagnosis
		want    string
	}{
		{"one", []detectors.Diagnosis{at(1, success, "succeeded")}, "1"},
		{"resolved: the success", []detectors.Diagnosis{at(1, resolved, "resolved"), at(2, success, "resolved")}, "2"},
		{"wrong password, then in: the success", []detectors.Diagnosis{at(1, failure, "succeeded"), at(2, success, "succeeded")}, "2"},
		{"failed: the newest failure", []detectors.Diagnosis{at(1, failure, "failed"), at(2, failure, "failed"), at(3, interrupted, "failed")}, "2"},
		{"failed in one application, in at another", []detectors.Diagnosis{at(1, failure, "failed"), at(2, success, "succeeded")}, "1"},
		{"abandoned beats success", []detectors.Diagnosis{at(1, interrupted, "interrupted"), at(2, success, "succeeded")}, "1"},
		{"any order", []detectors.Diagnosis{at(3, interrupted, "failed"), at(2, failure, "failed"), at(1, failure, "failed")}, "2"},
	} {
		if got := test.records[decisive(test.records)].RequestID; got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestAgo(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Hour, "just now"}, {0, "just now"}, {time.Second, "1 second ago"}, {119 * time.Second, "119 seconds ago"}, {2 * time.Minute, "2 minutes ago"},
		{119 * time.Minute, "119 minutes ago"}, {2 * time.Hour, "2 hours ago"}, {47 * time.Hour, "47 hours ago"}, {49 * time.Hour, "2 days ago"},
	} {
		if got := ago(test.d); got != test.want {
			t.Errorf("%v: got %q, want %q", test.d, got, test.want)
		}
	}
}

func FuzzNormalizeID(f *testing.F) {
	for _, id := range append(hostile, correlation(1), "{"+correlation(1)+"}", "", "0-0") {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		normal, err := NormalizeID(id)
		if err != nil {
			return
		}
		again, err := NormalizeID(normal)
		if err != nil || again != normal || normal == "" {
			t.Errorf("%q became %q and then %q, %v", id, normal, again, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add(cursor{Filter: "d", Time: 1, ID: "i", Tenant: "t", Correlation: "c"}.String())
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCursor(text, "d")
		if err != nil || c == nil {
			return
		}
		again, err := parseCursor(c.String(), "d")
		if err != nil || *again != *c {
			t.Errorf("%q became %+v and then %+v, %v", text, c, again, err)
		}
	})
}
