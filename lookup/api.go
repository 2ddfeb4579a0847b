package lookup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// The answers of the API. schemas/openapi.yaml describes them; a test compares the two.

// FindAnswer answers GET /v1/diagnoses/{id}.
type FindAnswer struct {
	ID      string `json:"id"`
	Matched Match  `json:"matched"`
	// Result is the record that decides, one of Records.
	Result       detectors.Report           `json:"result"`
	Records      []detectors.Report         `json:"records"`
	RecordsTotal uint64                     `json:"records_total"`
	Incidents    []detectors.IncidentReport `json:"incidents"`
	// Raw holds the deciding record as received, where it was asked for.
	Raw []RawAnswer `json:"raw,omitempty"`
}

// RawAnswer is a record as received.
type RawAnswer struct {
	ReceivedTime time.Time `json:"received_time"`
	Topic        string    `json:"topic"`
	Partition    int32     `json:"partition"`
	Offset       int64     `json:"offset"`
	Index        uint32    `json:"index"`
	// Record is the record itself where it is JSON, else a string of it.
	Record json.RawMessage `json:"record"`
}

// SearchAnswer answers GET /v1/diagnoses.
type SearchAnswer struct {
	Records    []detectors.Report `json:"records"`
	NextCursor string             `json:"next_cursor"`
}

// IncidentsAnswer answers GET /v1/incidents.
type IncidentsAnswer struct {
	Incidents  []detectors.IncidentReport `json:"incidents"`
	NextCursor string                     `json:"next_cursor"`
}

// IncidentAnswer answers GET /v1/incidents/{id}.
type IncidentAnswer struct {
	Incident     detectors.IncidentReport `json:"incident"`
	Records      []detectors.Report       `json:"records"`
	RecordsTotal uint64                   `json:"records_total"`
}

// CodeAnswer answers GET /v1/codes/{code}.
type CodeAnswer struct {
	Code        int32    `json:"code"`
	Symbol      string   `json:"symbol"`
	Category    string   `json:"category"`
	Outcome     string   `json:"outcome"`
	Password    string   `json:"password"`
	Counts      string   `json:"counts"`
	Meaning     string   `json:"meaning"`
	Remediation string   `json:"remediation"`
	Link        string   `json:"link"`
	Scenario    string   `json:"scenario"`
	Title       string   `json:"scenario_title"`
	Also        []string `json:"also"`
}

// CodesAnswer answers GET /v1/codes.
type CodesAnswer struct {
	Codes []CodeAnswer `json:"codes"`
}

// ErrorAnswer is the body of every error.
type ErrorAnswer struct {
	Error string `json:"error"`
	// Freshness stands in a 404 for an id, since exports lag.
	Freshness *Freshness `json:"freshness,omitempty"`
}

// NewFindAnswer renders a result for a viewer.
func NewFindAnswer(r *Result, renderer detectors.Renderer, capabilities catalogue.Capability) *FindAnswer {
	a := &FindAnswer{
		ID: r.ID, Matched: r.Matched, RecordsTotal: r.RecordsTotal,
		Records:   reports(r.Records, renderer, capabilities),
		Incidents: incidentReports(r.Incidents, renderer, capabilities),
	}
	a.Result = a.Records[r.Decisive]
	return a
}

// NewSearchAnswer renders a page of records for a viewer.
func NewSearchAnswer(p *SearchPage, renderer detectors.Renderer, capabilities catalogue.Capability) *SearchAnswer {
	return &SearchAnswer{Records: reports(p.Records, renderer, capabilities), NextCursor: p.NextCursor}
}

// NewIncidentsAnswer renders a page of incidents for a viewer.
func NewIncidentsAnswer(p *IncidentPage, renderer detectors.Renderer, capabilities catalogue.Capability) *IncidentsAnswer {
	return &IncidentsAnswer{Incidents: incidentReports(p.Incidents, renderer, capabilities), NextCursor: p.NextCursor}
}

// NewIncidentAnswer renders an incident and its records for a viewer.
func NewIncidentAnswer(d *IncidentDetail, renderer detectors.Renderer, capabilities catalogue.Capability) *IncidentAnswer {
	return &IncidentAnswer{
		Incident:     incidentReport(&d.Incident, renderer, capabilities),
		Records:      reports(d.Records, renderer, capabilities),
		RecordsTotal: d.RecordsTotal,
	}
}

// NewCodeAnswer renders a code of the catalogue.
func NewCodeAnswer(c *catalogue.Code) CodeAnswer {
	a := CodeAnswer{
		Code: c.Code, Symbol: c.Symbol, Category: c.Category, Outcome: c.Outcome, Password: c.Password, Counts: c.Counts,
		Meaning: c.Meaning, Remediation: c.Remediation, Link: c.Link, Also: []string{},
	}
	if c.Scenario != nil {
		a.Scenario, a.Title = c.Scenario.Name, c.Scenario.Title
	}
	for _, also := range c.Also {
		a.Also = append(a.Also, also.Name)
	}
	return a
}

// SearchCodes returns the codes that hold every word of text, in any case, in number, name, category, meaning or remediation.
func SearchCodes(cat *catalogue.Catalogue, text string) []CodeAnswer {
	found := []CodeAnswer{}
	words := strings.Fields(strings.ToLower(text))
next:
	for _, c := range cat.Codes() {
		all := strings.ToLower(fmt.Sprintf("%d aadsts%d %s %s %s %s", c.Code, c.Code, c.Symbol, c.Category, c.Meaning, c.Remediation))
		for _, word := range words {
			if !strings.Contains(all, word) {
				continue next
			}
		}
		found = append(found, NewCodeAnswer(c))
	}
	return found
}

func reports(records []detectors.Diagnosis, renderer detectors.Renderer, capabilities catalogue.Capability) []detectors.Report {
	all := make([]detectors.Report, len(records))
	for i := range records {
		all[i] = renderer.Report(&records[i], capabilities)
	}
	return all
}

func incidentReports(incidents []detectors.Incident, renderer detectors.Renderer, capabilities catalogue.Capability) []detectors.IncidentReport {
	all := make([]detectors.IncidentReport, len(incidents))
	for i := range incidents {
		all[i] = incidentReport(&incidents[i], renderer, capabilities)
	}
	return all
}

func (s *Server) routeAPI(route func(string, http.HandlerFunc)) {
	api := func(pattern string, h func(*http.Request, catalogue.Capability) (any, error)) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) {
			capabilities, err := s.capabilities(r)
			var answer any
			if err == nil {
				answer, err = h(r, capabilities)
			}
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			s.writeJSON(w, http.StatusOK, answer)
		})
	}
	api("GET /v1/diagnoses/{id}", s.apiFind)
	api("GET /v1/diagnoses", s.apiSearch)
	api("GET /v1/incidents", s.apiIncidents)
	api("GET /v1/incidents/{id}", s.apiIncident)
	api("GET /v1/engine", s.apiEngine)
	api("GET /v1/freshness", func(r *http.Request, _ catalogue.Capability) (any, error) {
		return s.store.Freshness(r.Context())
	})
	// What codes mean is public knowledge.
	public := func(pattern string, h func(*http.Request) (any, error)) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := h(r)
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			s.writeJSON(w, http.StatusOK, answer)
		})
	}
	public("GET /v1/codes", s.apiCodes)
	public("GET /v1/codes/{code}", s.apiCode)
	route("GET /v1/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
		_, _ = w.Write(schemas.OpenAPI)
	})
	public("GET /v1/", func(r *http.Request) (any, error) {
		return nil, &statusError{http.StatusNotFound, "no such resource: /v1/openapi.yaml describes the API"}
	})
}

// statusError is an error with the status that it is answered by.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// capabilities asks the viewer and refuses who may not see records.
func (s *Server) capabilities(r *http.Request) (catalogue.Capability, error) {
	capabilities, err := s.config.Viewer.Capabilities(r)
	switch {
	case errors.Is(err, ErrUnauthorized):
		return 0, &statusError{http.StatusUnauthorized, err.Error()}
	case err != nil:
		return 0, fmt.Errorf("find out what the viewer may see: %w", err)
	case !capabilities.Has(catalogue.CapabilityRecords) && r.Header.Get("Authorization") == "":
		return 0, &statusError{http.StatusUnauthorized, "sign-in records need a token: send Authorization: Bearer TOKEN"}
	case !capabilities.Has(catalogue.CapabilityRecords):
		return 0, &statusError{http.StatusForbidden, "the token does not have the capability records, which sign-in records need"}
	}
	return capabilities, nil
}

// errorStatus returns the status and the text for an error. Texts of errors within are for the log, not for the viewer.
func (s *Server) errorStatus(r *http.Request, err error) (status int, text string, freshness *Freshness) {
	var notFound *NotFoundError
	var invalidID *InvalidIDError
	var query *QueryError
	var withStatus *statusError
	switch {
	case errors.As(err, &notFound):
		return http.StatusNotFound, notFound.Error(), &notFound.Freshness
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound, strings.TrimSuffix(err.Error(), ": "+ErrNotFound.Error()), nil
	case errors.As(err, &invalidID), errors.As(err, &query):
		return http.StatusBadRequest, err.Error(), nil
	case errors.As(err, &withStatus):
		return withStatus.status, withStatus.text, nil
	case errors.Is(err, ErrTooExpensive):
		return http.StatusUnprocessableEntity, ErrTooExpensive.Error(), nil
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client has gone; nobody reads the answer. 499 is nginx's number for it.
		return 499, "the request was cancelled", nil
	}
	s.log.Error("a request to the look-up server failed", "pattern", r.Pattern, "error", err)
	return http.StatusServiceUnavailable, "ClickHouse cannot answer now: try again, and see /readyz", nil
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	status, text, freshness := s.errorStatus(r, err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="signindiag"`)
	}
	s.writeJSON(w, status, ErrorAnswer{Error: text, Freshness: freshness})
}

func (s *Server) writeJSON(w http.ResponseWriter, status int, answer any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(answer); err != nil {
		s.log.Error("an answer cannot be encoded", "error", err)
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"error":"internal error"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that has gone misses nothing
}

func (s *Server) apiFind(r *http.Request, capabilities catalogue.Capability) (any, error) {
	query, err := parameters(r, "raw")
	if err != nil {
		return nil, err
	}
	wantRaw, err := query.boolean("raw")
	if err != nil {
		return nil, err
	}
	if wantRaw && !capabilities.Has(mayReadRaw) {
		return nil, &statusError{http.StatusForbidden, "raw records need the capabilities raw, conditional_access and risk"}
	}
	result, err := s.store.Find(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	answer := NewFindAnswer(result, s.renderer, capabilities)
	if wantRaw {
		if answer.Raw, err = s.raw(r.Context(), result.Diagnosis()); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// raw returns the copies of a record as received. The caller has checked that the viewer may see them.
func (s *Server) raw(ctx context.Context, d *detectors.Diagnosis) ([]RawAnswer, error) {
	records, err := s.store.Raw(ctx, d.RequestID)
	if err != nil {
		return nil, err
	}
	answers := []RawAnswer{}
	for i := range records {
		record := &records[i]
		// Another tenant's copy of the same request is not this record.
		if record.TenantID != d.TenantID {
			continue
		}
		answers = append(answers, RawAnswer{
			ReceivedTime: record.ReceivedTime.UTC(), Topic: record.SourceTopic, Partition: record.SourcePartition,
			Offset: record.SourceOffset, Index: record.SourceIndex, Record: rawJSON(record.Raw),
		})
	}
	return answers, nil
}

// rawJSON returns text as it is where it is JSON in valid UTF-8, else as a JSON string.
func rawJSON(text string) json.RawMessage {
	if utf8.ValidString(text) && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string always encodes
	}
	return quoted
}

func (s *Server) apiSearch(r *http.Request, capabilities catalogue.Capability) (any, error) {
	query, err := searchQuery(r)
	if err != nil {
		return nil, err
	}
	page, err := s.store.Search(r.Context(), query)
	if err != nil {
		return nil, err
	}
	return NewSearchAnswer(page, s.renderer, capabilities), nil
}

// searchQuery reads the parameters of a search.
func searchQuery(r *http.Request) (q SearchQuery, err error) {
	query, err := parameters(r, "user", "app", "ip", "around", "flagged", "problems", "outcome", "scenario", "code", "limit", "cursor")
	if err != nil {
		return q, err
	}
	q.User, q.App, q.Outcome, q.Scenario, q.Cursor = query.text("user"), query.text("app"), query.text("outcome"), query.text("scenario"), query.text("cursor")
	if q.Address, err = query.address("ip"); err != nil {
		return q, err
	}
	if q.Around, err = query.time("around"); err != nil {
		return q, err
	}
	if q.Flagged, err = query.boolean("flagged"); err != nil {
		return q, err
	}
	if q.Problems, err = query.boolean("problems"); err != nil {
		return q, err
	}
	if q.Limit, err = query.limit("limit", maxSearchLimit); err != nil {
		return q, err
	}
	if text := query.text("code"); text != "" {
		code, err := parseCode(text)
		if err != nil {
			return q, err
		}
		q.Code = &code
	}
	return q, nil
}

func (s *Server) apiIncidents(r *http.Request, capabilities catalogue.Capability) (any, error) {
	filter, err := incidentFilter(r)
	if err != nil {
		return nil, err
	}
	page, err := s.store.Incidents(r.Context(), filter)
	if err != nil {
		return nil, err
	}
	return NewIncidentsAnswer(page, s.renderer, capabilities), nil
}

// incidentFilter reads the parameters of a list of incidents.
func incidentFilter(r *http.Request) (f IncidentFilter, err error) {
	query, err := parameters(r, "kind", "severity", "user", "around", "limit", "cursor")
	if err != nil {
		return f, err
	}
	f.Kind, f.Severity, f.User, f.Cursor = query.text("kind"), query.text("severity"), query.text("user"), query.text("cursor")
	if f.Around, err = query.time("around"); err != nil {
		return f, err
	}
	f.Limit, err = query.limit("limit", maxIncidentLimit)
	return f, err
}

func (s *Server) apiIncident(r *http.Request, capabilities catalogue.Capability) (any, error) {
	detail, err := s.store.Incident(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return NewIncidentAnswer(detail, s.renderer, capabilities), nil
}

func (s *Server) apiCodes(r *http.Request) (any, error) {
	if _, err := parameters(r); err != nil {
		return nil, err
	}
	return CodesAnswer{Codes: SearchCodes(s.catalogue, "")}, nil
}

func (s *Server) apiCode(r *http.Request) (any, error) {
	code, err := parseCode(r.PathValue("code"))
	if err != nil {
		return nil, err
	}
	c := s.catalogue.Code(code)
	if c == nil {
		return nil, &statusError{http.StatusNotFound, fmt.Sprintf("the catalogue does not hold the code %d; Microsoft's own page is %s", code, catalogue.CodePage(code))}
	}
	return NewCodeAnswer(c), nil
}

// parseCode reads an error code, as a number or as Entra's pages write it (AADSTS50126).
func parseCode(text string) (int32, error) {
	digits := text
	if len(digits) > 6 && strings.EqualFold(digits[:6], "AADSTS") {
		digits = digits[6:]
	}
	code, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || code > math.MaxInt32 {
		return 0, &QueryError{Field: "code", Reason: fmt.Sprintf("expected an error code such as 50126 or AADSTS50126, not %q", text)}
	}
	return int32(code), nil
}

// values are the parameters of a request, each known and given once.
type values struct{ url.Values }

// parameters returns the query of a request. An unknown parameter and a repeated one are errors: a misspelt filter
// would otherwise select everything.
func parameters(r *http.Request, known ...string) (values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return values{}, &QueryError{Field: "query", Reason: "expected name=value pairs, percent-encoded, joined by &"}
	}
	for name, all := range query {
		if !slices.Contains(known, name) {
			expected := "no parameters"
			if len(known) > 0 {
				expected = strings.Join(known, ", ")
			}
			return values{}, &QueryError{Field: name, Reason: "unknown parameter: expected " + expected}
		}
		if len(all) > 1 {
			return values{}, &QueryError{Field: name, Reason: "given more than once"}
		}
		if !utf8.ValidString(all[0]) || strings.ContainsRune(all[0], 0) {
			return values{}, &QueryError{Field: name, Reason: "expected a text in UTF-8"}
		}
	}
	return values{query}, nil
}

func (v values) text(name string) string { return strings.TrimSpace(v.Get(name)) }

func (v values) boolean(name string) (bool, error) {
	switch v.text(name) {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, &QueryError{Field: name, Reason: fmt.Sprintf("expected true or false, not %q", v.text(name))}
}

func (v values) limit(name string, most int) (int, error) {
	text := v.text(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, &QueryError{Field: name, Reason: fmt.Sprintf("expected 1 to %d, not %q", most, text)}
	}
	return n, nil
}

// timeLayouts are the forms of a time in a query; those without a zone are UTC.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly}

// ParseTime reads a time of a query: RFC 3339, or without seconds, zone (then UTC) or time of day.
func ParseTime(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	for _, layout := range timeLayouts {
		t, err := time.Parse(layout, text)
		// A plus sign that was not percent-encoded arrives as a blank.
		if err != nil && layout == time.RFC3339Nano && strings.Contains(text, " ") {
			t, err = time.Parse(layout, strings.Replace(text, " ", "+", 1))
		}
		if err == nil && t.Year() >= 1970 && t.Year() < 2100 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("expected a time such as 2026-03-01T09:30:00Z between 1970 and 2099, not %q", text)
}

func (v values) time(name string) (time.Time, error) {
	if v.text(name) == "" {
		return time.Time{}, nil
	}
	t, err := ParseTime(v.text(name))
	if err != nil {
		return t, &QueryError{Field: name, Reason: err.Error()}
	}
	return t, nil
}

// address reads an IP address. Addresses that Entra masked (203.0.113.XXX) are texts like any other.
func (v values) address(name string) (string, error) {
	text := v.text(name)
	if text == "" {
		return "", nil
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		return ip.Unmap().String(), nil
	}
	if strings.HasSuffix(strings.ToUpper(text), "XXX") && !strings.ContainsAny(text, " ,;") {
		return text, nil
	}
	return "", &QueryError{Field: name, Reason: fmt.Sprintf("expected an IP address such as 203.0.113.7 or 2001:db8::1, not %q", text)}
}
