package lookup

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static/htmx.min.js static/page.js static/page.css static/icon.svg
var staticFiles embed.FS

// recentRecords is how many problems the first page lists.
const recentRecords = 15

// recentIncidents is how many incidents stand beside them.
const recentIncidents = 6

// pages holds the parsed templates and the static files by name.
type pages struct {
	templates map[string]*template.Template
	static    map[string]staticFile
}

// staticFile is a file with the hash that stands in its address, so that a browser may keep it for ever.
type staticFile struct {
	content     []byte
	contentType string
	hash        string
}

var staticTypes = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

func newPages() (*pages, error) {
	p := &pages{templates: map[string]*template.Template{}, static: map[string]staticFile{}}
	err := fs.WalkDir(staticFiles, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := staticFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		p.static[path.Base(name)] = staticFile{content, staticTypes[path.Ext(name)], hex.EncodeToString(sum[:6])}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the static files of the pages: %w", err)
	}
	functions := template.FuncMap{
		// Ids are not always GUIDs: whatever they hold stays one segment of a path.
		"segment": url.PathEscape,
		"static": func(name string) (string, error) {
			file, ok := p.static[name]
			if !ok {
				return "", fmt.Errorf("no static file %s", name)
			}
			return "/static/" + name + "?v=" + file.hash, nil
		},
	}
	shared, err := template.New("").Funcs(functions).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse the templates of the pages: %w", err)
	}
	for _, name := range []string{"home", "result", "search", "incidents", "incident", "codes", "code", "error"} {
		t, err := shared.Clone()
		if err == nil {
			_, err = t.ParseFS(templateFiles, "templates/"+name+".html")
		}
		if err != nil {
			return nil, fmt.Errorf("parse the templates of the pages: %w", err)
		}
		p.templates[name] = t
	}
	return p, nil
}

// page is what every page needs, and the Content of one.
type page struct {
	Title string
	// Section is the entry of the navigation that the page belongs to.
	Section string
	// Query fills the search box.
	Query   string
	Demo    bool
	Home    bool
	Content any
}

// writePage renders a template, whole or the block named by fragment alone.
func (s *Server) writePage(w http.ResponseWriter, r *http.Request, status int, name, fragment string, p *page) {
	p.Demo = s.config.Demo
	if fragment == "" {
		fragment = "layout"
	}
	var b bytes.Buffer
	if err := s.pages.templates[name].ExecuteTemplate(&b, fragment, p); err != nil {
		s.log.Error("a page cannot be rendered", "page", name, "pattern", r.Pattern, "error", err)
		writePlain(w, http.StatusInternalServerError, "internal error")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that has gone misses nothing
}

// errorView is the content of a page that says what went wrong.
type errorView struct {
	Heading, Text string
	// Hint is what to do about it, or empty.
	Hint string
}

func (s *Server) writeErrorPage(w http.ResponseWriter, r *http.Request, query string, err error) {
	status, text, _ := s.errorStatus(r, err)
	v := errorView{Heading: "That did not work", Text: text}
	switch status {
	case http.StatusNotFound:
		v.Heading = "Nothing found"
		if query != "" {
			v.Hint = "Check that the id is a correlation id or a request id of the sign-in, as the error message of the sign-in page or the sign-in log shows it."
		}
	case http.StatusBadRequest:
		v.Heading = "This cannot be looked up"
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="signindiag"`)
		v.Heading = "Not allowed"
	case http.StatusForbidden:
		v.Heading = "Not allowed"
	}
	s.writePage(w, r, status, "error", "", &page{Title: v.Heading, Query: query, Content: v})
}

func (s *Server) routePages(route func(string, http.HandlerFunc)) {
	viewed := func(pattern string, h func(http.ResponseWriter, *http.Request, catalogue.Capability) error) {
		route(pattern, func(w http.ResponseWriter, r *http.Request) {
			capabilities, err := s.capabilities(r)
			if err == nil {
				err = h(w, r, capabilities)
			}
			if err != nil {
				s.writeErrorPage(w, r, r.PathValue("id"), err)
			}
		})
	}
	viewed("GET /{$}", s.homePage)
	viewed("GET /partials/recent", s.recentPartial)
	viewed("GET /search", s.searchPage)
	viewed("GET /diagnoses/{id}", s.resultPage)
	viewed("GET /incidents", s.incidentsPage)
	viewed("GET /incidents/{id}", s.incidentPage)
	route("GET /codes", s.codesPage)
	route("GET /codes/{code}", s.codePage)
	route("GET /static/{file}", s.staticFile)
	route("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.writeErrorPage(w, r, "", &statusError{http.StatusNotFound, "There is no page at this address."})
	})
}

func (s *Server) staticFile(w http.ResponseWriter, r *http.Request) {
	file, ok := s.pages.static[r.PathValue("file")]
	if !ok {
		writePlain(w, http.StatusNotFound, "no such file")
		return
	}
	w.Header().Set("Content-Type", file.contentType)
	if r.URL.Query().Get("v") == file.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	_, _ = w.Write(file.content)
}

// timeView is a time for people and for programs.
type timeView struct{ Text, ISO string }

func newTimeView(t time.Time) timeView {
	return timeView{t.UTC().Format("2006-01-02 15:04:05Z"), t.UTC().Format(time.RFC3339Nano)}
}

// nameView is a name of the contract and its title for people.
type nameView struct{ Name, Title string }

// factView is one piece of evidence.
type factView struct {
	Title  string
	Values []string
}

// recordView is a report as the pages show it.
type recordView struct {
	detectors.Report
	Time     timeView
	Scenario nameView
	Also     []nameView
	Why      []string
	Facts    []factView
	Unknown  []string
	Subject  string // user, or application for a workload
	Current  bool
	IDs      []idView // to quote in a ticket
}

// idView is an id with a button to copy it.
type idView struct{ Label, Value string }

func (s *Server) recordView(d *detectors.Diagnosis, capabilities catalogue.Capability) recordView {
	report := s.renderer.Report(d, capabilities)
	v := recordView{Report: report, Time: newTimeView(time.UnixMicro(d.EventTime)), Scenario: s.scenarioName(report.Scenario)}
	for _, also := range report.Also {
		v.Also = append(v.Also, s.scenarioName(also))
	}
	v.Why = s.renderer.Why(d, capabilities)
	v.Unknown = s.renderer.UnknownTexts(d)
	evidence, _ := d.Evidence.Visible(capabilities)
	for i := range evidence.Facts() {
		fact := &evidence.Facts()[i]
		v.Facts = append(v.Facts, factView{orText(fact.Key.Title, fact.Key.Name), factValues(fact)})
	}
	v.Subject = orText(report.User, orText(report.App, "Unknown user"))
	for _, id := range []idView{
		{"Correlation id", report.CorrelationID}, {"Request id", report.RequestID}, {"Time", v.Time.ISO},
		{"Tenant id", report.TenantID}, {"User id", report.UserID},
	} {
		if id.Value != "" {
			v.IDs = append(v.IDs, id)
		}
	}
	return v
}

func (s *Server) recordViews(records []detectors.Diagnosis, capabilities catalogue.Capability) []recordView {
	views := make([]recordView, len(records))
	for i := range records {
		views[i] = s.recordView(&records[i], capabilities)
	}
	return views
}

func (s *Server) scenarioName(name string) nameView {
	if scenario := s.catalogue.Scenario(name); scenario != nil {
		return nameView{name, scenario.Title}
	}
	return nameView{name, name}
}

// factValues are the values of a fact for people.
func factValues(f *detectors.Fact) []string {
	switch f.Key.Kind {
	case catalogue.KindInt:
		return []string{strconv.FormatInt(f.Int, 10)}
	case catalogue.KindBool:
		if f.Bool {
			return []string{"yes"}
		}
		return []string{"no"}
	case catalogue.KindTime:
		return []string{stamp(time.UnixMicro(f.Int))}
	case catalogue.KindList:
		return f.List
	}
	return []string{f.Text}
}

// countView is one number of an incident.
type countView struct {
	Title string
	Value int64
}

// incidentView is an incident as the pages show it.
type incidentView struct {
	detectors.IncidentReport
	Kind        nameView
	First, Last timeView
	Summary     string
	Outcome     string
	Counts      []countView
	Lists       []factView
	Actions     []detectors.Action
	Links       []detectors.Link
}

func (s *Server) incidentView(i *detectors.Incident, capabilities catalogue.Capability) incidentView {
	visible := i.Visible(capabilities, withheld)
	report := s.renderer.IncidentReport(&visible)
	v := incidentView{
		Summary: string(s.renderer.IncidentSummary(nil, &visible)), Outcome: strings.ReplaceAll(report.Outcome, "_", " "),
		Actions:        s.renderer.IncidentActions(report.Kind),
		IncidentReport: report, Kind: nameView{Name: report.Kind, Title: report.Kind},
		First: newTimeView(time.UnixMicro(i.FirstSeen)), Last: newTimeView(time.UnixMicro(i.LastSeen)),
	}
	if kind := s.catalogue.Incident(report.Kind); kind != nil {
		v.Kind.Title = kind.Title
		for _, link := range kind.Links {
			v.Links = append(v.Links, detectors.Link{Title: link.Title, URL: link.URL})
		}
	}
	for _, c := range report.Counts {
		if c.Value == 0 {
			continue
		}
		v.Counts = append(v.Counts, countView{strings.ReplaceAll(c.Name, "_", " "), c.Value})
	}
	for _, list := range []factView{
		{"Users", report.Users}, {"Addresses", report.Addresses}, {"Applications", report.Applications}, {"Devices", report.Devices},
		{"Operating systems", report.OperatingSystems}, {"Client applications", report.ClientApps},
	} {
		if len(list.Values) > 0 {
			v.Lists = append(v.Lists, list)
		}
	}
	return v
}

func (s *Server) incidentViews(incidents []detectors.Incident, capabilities catalogue.Capability) []incidentView {
	views := make([]incidentView, len(incidents))
	for i := range incidents {
		views[i] = s.incidentView(&incidents[i], capabilities)
	}
	return views
}

// homeView is the content of the first page, and of its part that refreshes itself.
type homeView struct {
	Fresh     string
	Records   []recordView
	Incidents []incidentView
}

func (s *Server) homeView(r *http.Request, capabilities catalogue.Capability) (*homeView, error) {
	freshness, err := s.store.Freshness(r.Context())
	if err != nil {
		return nil, err
	}
	records, err := s.store.Search(r.Context(), SearchQuery{Problems: true, Limit: recentRecords})
	if err != nil {
		return nil, err
	}
	incidents, err := s.store.Incidents(r.Context(), IncidentFilter{Limit: recentIncidents})
	if err != nil {
		return nil, err
	}
	return &homeView{
		Fresh:     freshness.Sentence(s.store.now()),
		Records:   s.recordViews(records.Records, capabilities),
		Incidents: s.incidentViews(incidents.Incidents, capabilities),
	}, nil
}

func (s *Server) homePage(w http.ResponseWriter, r *http.Request, capabilities catalogue.Capability) error {
	view, err := s.homeView(r, capabilities)
	if err != nil {
		return err
	}
	s.writePage(w, r, http.StatusOK, "home", "", &page{Title: "Sign-in diagnostics", Section: "home", Home: true, Content: view})
	return nil
}

func (s *Server) recentPartial(w http.ResponseWriter, r *http.Request, capabilities catalogue.Capability) error {
	view, err := s.homeView(r, capabilities)
	if err != nil {
		return err
	}
	s.writePage(w, r, http.StatusOK, "home", "recent", &page{Content: view})
	return nil
}

// resultView is the content of the page of one sign-in.
type resultView struct {
	ID           string
	ByRequest    bool
	Records      []recordView
	RecordsTotal uint64
	Result       recordView
	Incidents    []incidentView
	MayReadRaw   bool
	WantRaw      bool
	Raw          []rawView
}

// rawView is a record as received, indented where it is JSON.
type rawView struct {
	Received timeView
	Source   string
	Text     string
}

func (s *Server) resultPage(w http.ResponseWriter, r *http.Request, capabilities catalogue.Capability) error {
	query, err := parameters(r, "raw")
	if err != nil {
		return err
	}
	wantRaw, err := query.boolean("raw")
	if err != nil {
		return err
	}
	mayRead := capabilities.Has(mayReadRaw)
	if wantRaw && !mayRead {
		return &statusError{http.StatusForbidden, "Raw records need the capabilities raw, conditional_access and risk."}
	}
	result, err := s.store.Find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	view := &resultView{
		ID: result.ID, ByRequest: result.Matched == MatchRequestID, RecordsTotal: result.RecordsTotal,
		Records: s.recordViews(result.Records, capabilities), Incidents: s.incidentViews(result.Incidents, capabilities),
		MayReadRaw: mayRead, WantRaw: wantRaw,
	}
	view.Records[result.Decisive].Current = true
	view.Result = view.Records[result.Decisive]
	if wantRaw {
		raw, err := s.raw(r.Context(), result.Diagnosis())
		if err != nil {
			return err
		}
		for _, record := range raw {
			text := string(record.Record)
			var indented bytes.Buffer
			if json.Indent(&indented, record.Record, "", "  ") == nil {
				text = indented.String()
			}
			view.Raw = append(view.Raw, rawView{
				newTimeView(record.ReceivedTime),
				fmt.Sprintf("%s, partition %d, offset %d, index %d", record.Topic, record.Partition, record.Offset, record.Index), text,
			})
		}
	}
	s.writePage(w, r, http.StatusOK, "result", "", &page{
		Title: view.Result.Scenario.Title + ": " + view.Result.Subject, Query: result.ID, Content: view,
	})
	return nil
}

// searchView is the content of the page of a search.
type searchView struct {
	Form      map[string]string
	Flagged   bool
	Problems  bool
	Asked     bool
	Error     string
	Records   []recordView
	Next      string
	Outcomes  []string
	Scenarios []nameView
}

// searchPage looks up an id, or searches. The search box sends q alone: an id or a user.
func (s *Server) searchPage(w http.ResponseWriter, r *http.Request, capabilities catalogue.Capability) error {
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &QueryError{Field: "query", Reason: "expected name=value pairs, percent-encoded, joined by &"}
	}
	q := strings.TrimSpace(given.Get("q"))
	if id, err := NormalizeID(q); err == nil && schemas.IsGroupingID(id) {
		http.Redirect(w, r, "/diagnoses/"+url.PathEscape(id), http.StatusSeeOther)
		return nil
	}
	// A form sends its empty fields too, and q is the box's name for a user.
	kept := url.Values{}
	for name, all := range given {
		for _, value := range all {
			if strings.TrimSpace(value) != "" && name != "q" {
				kept.Add(name, value)
			}
		}
	}
	if q != "" && !kept.Has("user") {
		kept.Set("user", q)
	}
	request := r.Clone(r.Context())
	request.URL.RawQuery = kept.Encode()
	view := &searchView{
		Form:     map[string]string{},
		Outcomes: []string{detectors.OutcomeFailure, detectors.OutcomeInterrupted, detectors.OutcomeResolved, detectors.OutcomeSuccess},
	}
	for _, name := range []string{"user", "app", "ip", "around", "outcome", "scenario", "code"} {
		view.Form[name] = kept.Get(name)
	}
	view.Flagged, view.Problems = kept.Has("flagged"), kept.Has("problems")
	for _, scenario := range s.catalogue.Scenarios() {
		view.Scenarios = append(view.Scenarios, nameView{scenario.Name, scenario.Title})
	}
	status := http.StatusOK
	if len(kept) > 0 {
		view.Asked = true
		query, err := searchQuery(request)
		var found *SearchPage
		if err == nil {
			found, err = s.store.Search(r.Context(), query)
		}
		if err != nil {
			status, view.Error, _ = s.errorStatus(r, err)
			if status >= http.StatusInternalServerError {
				return err
			}
		} else {
			view.Records = s.recordViews(found.Records, capabilities)
			if found.NextCursor != "" {
				kept.Set("cursor", found.NextCursor)
				view.Next = "/search?" + kept.Encode()
			}
		}
	}
	s.writePage(w, r, status, "search", "", &page{Title: "Search", Section: "search", Query: q, Content: view})
	return nil
}

// incidentsView is the content of the list of incidents.
type incidentsView struct {
	Incidents []incidentView
	Next      string
}

func (s *Server) incidentsPage(w http.ResponseWriter, r *http.Request, capabilities catalogue.Capability) error {
	filter, err := incidentFilter(r)
	if err != nil {
		return err
	}
	found, err := s.store.Incidents(r.Context(), filter)
	if err != nil {
		return err
	}
	view := &incidentsView{Incidents: s.incidentViews(found.Incidents, capabilities)}
	if found.NextCursor != "" {
		query := r.URL.Query()
		query.Set("cursor", found.NextCursor)
		view.Next = "/incidents?" + query.Encode()
	}
	s.writePage(w, r, http.StatusOK, "incidents", "", &page{Title: "Incidents", Section: "incidents", Content: view})
	return nil
}

// incidentDetailView is the content of the page of one incident.
type incidentDetailView struct {
	Incident     incidentView
	Records      []recordView
	RecordsTotal uint64
}

func (s *Server) incidentPage(w http.ResponseWriter, r *http.Request, capabilities catalogue.Capability) error {
	detail, err := s.store.Incident(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	view := &incidentDetailView{
		Incident: s.incidentView(&detail.Incident, capabilities),
		Records:  s.recordViews(detail.Records, capabilities), RecordsTotal: detail.RecordsTotal,
	}
	s.writePage(w, r, http.StatusOK, "incident", "", &page{Title: view.Incident.Kind.Title, Section: "incidents", Content: view})
	return nil
}

// codesView is the content of the list of codes.
type codesView struct {
	Query string
	Codes []CodeAnswer
}

func (s *Server) codesPage(w http.ResponseWriter, r *http.Request) {
	query, err := parameters(r, "q")
	if err != nil {
		s.writeErrorPage(w, r, "", err)
		return
	}
	view := &codesView{Query: query.text("q")}
	view.Codes = SearchCodes(s.catalogue, view.Query)
	s.writePage(w, r, http.StatusOK, "codes", "", &page{Title: "Error codes", Section: "codes", Content: view})
}

// codeView is the content of the page of one code.
type codeView struct {
	CodeAnswer
	Scenario nameView
}

func (s *Server) codePage(w http.ResponseWriter, r *http.Request) {
	answer, err := s.apiCode(r)
	if err != nil {
		s.writeErrorPage(w, r, "", err)
		return
	}
	code, ok := answer.(CodeAnswer)
	if !ok {
		s.writeErrorPage(w, r, "", fmt.Errorf("answer about a code is %T", answer))
		return
	}
	s.writePage(w, r, http.StatusOK, "code", "", &page{
		Title: fmt.Sprintf("Code %d", code.Code), Section: "codes", Content: codeView{code, s.scenarioName(code.Scenario)},
	})
}
