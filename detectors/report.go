package detectors

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Values of the field type of reports.
const (
	ReportDiagnosis = "diagnosis"
	ReportIncident  = "incident"
)

// Report is a diagnosis as the commands and the API give it. The JSON names and their order are a contract.
type Report struct {
	Type          string `json:"type"`
	RequestID     string `json:"request_id"`
	CorrelationID string `json:"correlation_id"`
	TenantID      string `json:"tenant_id"`
	// EventTime is RFC 3339 in UTC with at most six fractional digits.
	EventTime      string   `json:"event_time"`
	Category       string   `json:"category"`
	User           string   `json:"user"`
	UserID         string   `json:"user_id"`
	App            string   `json:"app"`
	Resource       string   `json:"resource"`
	ClientApp      string   `json:"client_app"`
	Address        string   `json:"address"`
	ErrorCode      int32    `json:"error_code"`
	Outcome        string   `json:"outcome"`
	AttemptID      string   `json:"attempt_id"`
	AttemptOutcome string   `json:"attempt_outcome"`
	Scenario       string   `json:"scenario"`
	Also           []string `json:"also"`
	Severity       string   `json:"severity"`
	Summary        string   `json:"summary"`
	// Evidence is one JSON object under the catalogue's keys, without what the viewer may not see.
	Evidence json.RawMessage `json:"evidence"`
	Actions  []Action        `json:"actions"`
	Links    []Link          `json:"links"`
	// Unknown holds keys of the catalogue's unknowns.
	Unknown   []string `json:"unknown"`
	Incidents []string `json:"incidents"`
	Revision  uint64   `json:"revision"`
}

// Entity is what an incident is about.
type Entity struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

// IncidentReport is an incident as the commands and the API give it. The JSON names and their order are a contract.
type IncidentReport struct {
	Type             string   `json:"type"`
	IncidentID       string   `json:"incident_id"`
	Kind             string   `json:"kind"`
	Severity         string   `json:"severity"`
	Entity           Entity   `json:"entity"`
	TenantID         string   `json:"tenant_id"`
	FirstSeen        string   `json:"first_seen"`
	LastSeen         string   `json:"last_seen"`
	Users            []string `json:"users"`
	Addresses        []string `json:"addresses"`
	Applications     []string `json:"applications"`
	Devices          []string `json:"devices"`
	OperatingSystems []string `json:"operating_systems"`
	ClientApps       []string `json:"client_apps"`
	// Counts are named numbers, in the order in which the detection gives them.
	Counts          Counts   `json:"counts"`
	Outcome         string   `json:"outcome"`
	RequestIDs      []string `json:"request_ids"`
	RequestIDsTotal int64    `json:"request_ids_total"`
	// Also are other kinds that were found in the same story.
	Also []string `json:"also"`
	// Joined holds the ids of incidents of other entities that are the same story.
	Joined []string `json:"joined"`
}

// Counts is a list of named numbers that is an object in JSON.
type Counts []Count

// MarshalJSON gives the object in the order of the list.
func (c Counts) MarshalJSON() ([]byte, error) {
	dst := []byte{'{'}
	for i := range c {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONString(dst, c[i].Name)
		dst = append(dst, ':')
		dst = strconv.AppendInt(dst, c[i].Value, 10)
	}
	return append(dst, '}'), nil
}

// UnmarshalJSON reads the object and keeps its order.
func (c *Counts) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("counts: %w", err)
	}
	*c = nil
	if tok == nil {
		return nil
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("counts: expected an object, got %v", tok)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return fmt.Errorf("counts: %w", err)
		}
		var n int64
		if err := dec.Decode(&n); err != nil {
			return fmt.Errorf("counts: %v: %w", name, err)
		}
		*c = append(*c, Count{Name: name.(string), Value: n})
	}
	return nil
}

func timeText(micros int64) string { return string(appendTime(nil, micros)) }

func cloneList(list []string) []string { return append(make([]string, 0, len(list)), list...) }

// Report returns a diagnosis for a viewer with the given capabilities. It shares no memory with d but strings. Lists are
// never nil, so that JSON never holds null.
func (r Renderer) Report(d *Diagnosis, capabilities catalogue.Capability) Report {
	visible, _ := d.Evidence.Visible(capabilities)
	return Report{
		Type: ReportDiagnosis, RequestID: d.RequestID, CorrelationID: d.CorrelationID, TenantID: d.TenantID,
		EventTime: timeText(d.EventTime), Category: d.Category, User: d.User, UserID: d.UserID, App: d.App,
		Resource: d.Resource, ClientApp: d.ClientApp, Address: d.Address, ErrorCode: d.ErrorCode, Outcome: d.Outcome,
		AttemptID: d.AttemptID, AttemptOutcome: d.AttemptOutcome, Scenario: d.Scenario, Also: cloneList(d.Also),
		Severity: d.Severity, Summary: string(r.Summary(nil, d, capabilities)), Evidence: visible.AppendJSON(nil),
		Actions: r.Actions(d, capabilities), Links: r.Links(d, capabilities), Unknown: cloneList(d.Unknown),
		Incidents: cloneList(d.Incidents), Revision: d.Revision,
	}
}

// IncidentReport returns an incident. Lists are never nil.
func (r Renderer) IncidentReport(i *Incident) IncidentReport {
	return IncidentReport{
		Type: ReportIncident, IncidentID: i.IncidentID, Kind: i.Kind, Severity: i.Severity,
		Entity: Entity{Kind: i.EntityKind, Value: i.EntityValue}, TenantID: i.TenantID,
		FirstSeen: timeText(i.FirstSeen), LastSeen: timeText(i.LastSeen),
		Users: cloneList(i.Users), Addresses: cloneList(i.Addresses), Applications: cloneList(i.Applications),
		Devices: cloneList(i.Devices), OperatingSystems: cloneList(i.OperatingSystems), ClientApps: cloneList(i.ClientApps),
		Counts: append(Counts{}, i.Counts...), Outcome: i.Outcome, RequestIDs: cloneList(i.RequestIDs),
		RequestIDsTotal: i.RequestIDsTotal, Also: cloneList(i.Also), Joined: cloneList(i.Joined),
	}
}

// IncidentSummary appends what an incident is, in a sentence.
func (r Renderer) IncidentSummary(dst []byte, i *Incident) []byte {
	if k := r.Catalogue.Incident(i.Kind); k != nil {
		dst, _ = catalogue.Render(k.Summary, dst, incidentValues{r.Catalogue, i})
	}
	return dst
}

// IncidentActions returns what to do about an incident, in order.
func (r Renderer) IncidentActions(kind string) []Action {
	var actions []Action
	if k := r.Catalogue.Incident(kind); k != nil {
		for _, a := range k.Actions {
			actions = append(actions, Action{Text: a.Text.String(), Role: a.Role.Title})
		}
	}
	return actions
}

// diagnosis turns a report back into what it was made of, without what its viewer could not see. Times that do not
// parse stay 0. It keeps evidence that the catalogue knows, whatever else the object holds.
func (r Renderer) diagnosis(rep *Report) Diagnosis {
	d := Diagnosis{
		RequestID: rep.RequestID, CorrelationID: rep.CorrelationID, TenantID: rep.TenantID, Category: rep.Category,
		User: rep.User, UserID: rep.UserID, App: rep.App, Resource: rep.Resource, ClientApp: rep.ClientApp,
		Address: rep.Address, ErrorCode: rep.ErrorCode, Outcome: rep.Outcome, AttemptID: rep.AttemptID,
		AttemptOutcome: rep.AttemptOutcome, Scenario: rep.Scenario, Also: rep.Also, Severity: rep.Severity,
		Unknown: rep.Unknown, Incidents: rep.Incidents, Revision: rep.Revision,
	}
	if t, err := time.Parse(time.RFC3339Nano, rep.EventTime); err == nil {
		d.EventTime = t.UnixMicro()
	}
	d.Evidence, _ = ParseJSON(r.Catalogue, rep.Evidence) // what is not known is not told
	return d
}

// Layout of the text form, in characters.
const (
	textWidth  = 100
	textIndent = 2
)

// WriteText writes diagnoses for people, one after the other with an empty line between: headline, who, when and where,
// what happened, why, what to do, documents, what is not known, the code with Entra's own text beside ours, the attempt,
// and the ids to quote. Sections without content are left out. Reports may come from Report or from JSON.
func (r Renderer) WriteText(w io.Writer, reports ...Report) error {
	t := textWriter{w: bufio.NewWriter(w)}
	for i := range reports {
		if i > 0 {
			t.line("")
		}
		r.writeReport(&t, &reports[i])
	}
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r Renderer) writeReport(t *textWriter, rep *Report) {
	d := r.diagnosis(rep)
	nobody := ""
	if a := r.Catalogue.Action(catalogue.ActionNothing); a != nil {
		nobody = a.Role.Title
	}
	v := values{cat: r.Catalogue, d: &d, capabilities: catalogue.AllCapabilities}
	t.line(r.Title(d.Scenario) + "  [" + rep.Severity + "]")
	who, where := r.headerLines(&d)
	t.wrap(0, 0, who)
	if where != "" {
		t.wrap(0, 0, where)
	}

	t.section("What happened")
	t.paragraph(rep.Summary)

	t.section("Why")
	for _, name := range catalogue.WhySentences {
		text, _ := catalogue.Render(r.Catalogue.Sentence(name), nil, v)
		t.item("- ", string(text))
	}
	var also []string
	for _, name := range d.Also {
		also = append(also, r.Title(name))
	}
	if len(also) > 0 {
		t.item("- ", "Also: "+strings.Join(also, "; ")+".")
	}

	t.section("What to do")
	for i, a := range rep.Actions {
		who := ""
		if a.Role != "" && a.Role != nobody {
			who = " (" + a.Role + ")"
		}
		t.item(strconv.Itoa(i+1)+". ", a.Text+who)
	}

	t.section("Documents")
	for _, l := range rep.Links {
		t.item("- ", l.Title+": "+l.URL)
	}

	t.section("Not known")
	for _, text := range r.UnknownTexts(&d) {
		t.item("- ", text)
	}

	r.writeCode(t, &d)

	t.section("Attempt")
	if text := r.attemptText(&d); text != "" {
		t.paragraph(text)
	}

	t.section("To quote")
	quote := func(name, value string) {
		if value != "" {
			t.item("", name+" "+string(appendClean(nil, value)))
		}
	}
	quote("Request id    ", rep.RequestID)
	quote("Correlation id", rep.CorrelationID)
	quote("Tenant        ", rep.TenantID)
	quote("Time          ", rep.EventTime)
	for _, id := range rep.Incidents {
		quote("Incident      ", id)
	}
}

// headerLines say when and who, and where to, with what and from where.
func (r Renderer) headerLines(d *Diagnosis) (who, where string) {
	v := values{cat: r.Catalogue, d: d, capabilities: catalogue.AllCapabilities}
	var line []byte
	part := func(prefix string, f catalogue.Field) {
		if value, state := v.AppendField(nil, f); state == catalogue.Present {
			if len(line) > 0 {
				line = append(line, ' ')
			}
			line = append(append(line, prefix...), value...)
		}
	}
	part("", catalogue.FieldTime)
	part(" ", catalogue.FieldWho)
	who, line = string(line), nil
	part("at ", catalogue.FieldTarget)
	if d.Resource != "" && d.Resource != d.App && !isWorkload(d.Category) && d.App != "" {
		part("for ", catalogue.FieldResource)
	}
	part("with ", catalogue.FieldClientApp)
	part("from ", catalogue.FieldAddress)
	var place []string
	for _, key := range []string{"city", "country"} {
		if f := d.Evidence.Get(key); f != nil {
			place = append(place, string(appendClean(nil, f.Text)))
		}
	}
	if len(place) > 0 {
		line = append(line, " ("...)
		line = append(append(line, strings.Join(place, ", ")...), ')')
	}
	return who, strings.TrimSpace(string(line))
}

// writeCode shows what Entra says beside what the catalogue says.
func (r Renderer) writeCode(t *textWriter, d *Diagnosis) {
	evidenceText := func(key string) string {
		if f := d.Evidence.Get(key); f != nil {
			return string(appendClean(nil, f.Text))
		}
		return ""
	}
	entra, details := evidenceText("failure_reason"), evidenceText("additional_details")
	code := r.Catalogue.Code(d.ErrorCode)
	if d.ErrorCode == 0 && entra == "" && details == "" {
		return
	}
	if f := d.Evidence.Get("no_code"); f != nil && f.Bool {
		t.section("Code")
	} else {
		title := "Code " + strconv.Itoa(int(d.ErrorCode))
		if code != nil && code.Symbol != "" {
			title += " " + code.Symbol
		}
		t.section(title)
		if code != nil && d.ErrorCode != 0 {
			t.item("Meaning: ", code.Meaning)
		}
	}
	if entra != "" {
		t.item("Entra:   ", entra)
	}
	if details != "" {
		t.item("Details: ", details)
	}
}

// attemptText tells how the attempt stands. A record that is all that is known of its attempt needs no sentence.
func (r Renderer) attemptText(d *Diagnosis) string {
	records := int64(1)
	if f := d.Evidence.Get("attempt_records"); f != nil {
		records = f.Int
	}
	if records == 1 && (d.AttemptID == "" || d.AttemptID == d.RequestID) {
		return ""
	}
	var text string
	switch d.AttemptOutcome {
	case AttemptSucceeded:
		text = "The attempt succeeded"
	case AttemptFailed:
		text = "The attempt failed"
	case AttemptResolved:
		text = "The attempt was interrupted and then succeeded"
	case AttemptInterrupted:
		text = "The attempt is interrupted so far: no success has followed"
	default:
		return ""
	}
	if records > 1 {
		text += " (" + strconv.FormatInt(records, 10) + " records)"
	}
	text += "."
	if d.AttemptID != "" && d.AttemptID != d.RequestID {
		text += " It began with request " + string(appendClean(nil, d.AttemptID)) + "."
	}
	if d.AttemptOutcome == AttemptFailed {
		v := values{cat: r.Catalogue, d: d, capabilities: catalogue.AllCapabilities}
		if s, _ := catalogue.Render(r.Catalogue.Sentence(catalogue.SentenceAttemptFailed), nil, v); len(s) > 0 {
			text += " " + string(s)
		}
	}
	return text
}

// textWriter writes sections lazily: a heading appears with its first line.
type textWriter struct {
	w       *bufio.Writer
	pending string
}

func (t *textWriter) line(s string) {
	_, _ = t.w.WriteString(strings.TrimRight(s, " ")) // the error stays in the writer until Flush
	_ = t.w.WriteByte('\n')
}

func (t *textWriter) section(title string) { t.pending = title }

func (t *textWriter) open() {
	if t.pending != "" {
		t.line("")
		t.line(t.pending)
		t.pending = ""
	}
}

func (t *textWriter) paragraph(s string) {
	if s = strings.TrimSpace(s); s != "" {
		t.open()
		t.wrap(textIndent, textIndent, s)
	}
}

func (t *textWriter) item(bullet, s string) {
	if s = strings.TrimSpace(s); s == "" {
		return
	}
	t.open()
	t.wrap(textIndent, textIndent+utf8.RuneCountInString(bullet), bullet+s)
}

// wrap writes s with line breaks at spaces so that lines stay within textWidth where words allow it. Runs of spaces
// are kept, so that aligned text stays aligned.
func (t *textWriter) wrap(first, rest int, s string) {
	indent := first
	for {
		room := textWidth - indent
		if utf8.RuneCountInString(s) <= room {
			t.line(strings.Repeat(" ", indent) + s)
			return
		}
		cut := -1 // byte position of the last space that fits
		n := 0
		for i, c := range s {
			if c == ' ' && i > rest-first {
				if n <= room || cut < 0 {
					cut = i
				}
				if n > room {
					break
				}
			}
			n++
		}
		if cut < 0 {
			t.line(strings.Repeat(" ", indent) + s)
			return
		}
		t.line(strings.Repeat(" ", indent) + s[:cut])
		s = strings.TrimLeft(s[cut:], " ")
		first, indent = rest, rest
	}
}

// WriteSummaryTable writes the authentication summary of several records: one aligned line each with time, outcome,
// code, scenario, application, client and address, in the order given.
func (r Renderer) WriteSummaryTable(w io.Writer, reports ...Report) error {
	rows := make([][]string, 0, len(reports)+1)
	rows = append(rows, []string{"TIME (UTC)", "OUTCOME", "CODE", "SCENARIO", "APPLICATION", "CLIENT", "ADDRESS"})
	for i := range reports {
		rep := &reports[i]
		when := rep.EventTime
		if t, err := time.Parse(time.RFC3339Nano, rep.EventTime); err == nil {
			when = t.UTC().Format("2006-01-02 15:04:05")
		}
		rows = append(rows, []string{
			when, rep.Outcome, strconv.Itoa(int(rep.ErrorCode)), rep.Scenario,
			firstNamed(rep.App, rep.Resource), rep.ClientApp, rep.Address,
		})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = string(appendClean(nil, cell))
			if row[i] == "" {
				row[i] = "-"
			}
			row[i] = shorten(row[i], maxCell)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	t := textWriter{w: bufio.NewWriter(w)}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		t.line(b.String())
	}
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return nil
}

// maxCell bounds a cell of the summary table, in characters; the longest IPv6 address has 39.
const maxCell = 40

func shorten(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	runes := []rune(s)
	return string(runes[:limit-1]) + "…"
}

// WriteIncidents writes incidents for people, one after the other.
func (r Renderer) WriteIncidents(w io.Writer, reports ...IncidentReport) error {
	t := textWriter{w: bufio.NewWriter(w)}
	for n := range reports {
		rep := &reports[n]
		if n > 0 {
			t.line("")
		}
		i := rep.incident()
		title := rep.Kind
		if k := r.Catalogue.Incident(rep.Kind); k != nil {
			title = k.Title
		}
		t.line(title + "  [" + rep.Severity + "]")
		t.wrap(0, 0, string(r.IncidentSummary(nil, &i)))
		t.section("What to do")
		for j, a := range r.IncidentActions(rep.Kind) {
			t.item(strconv.Itoa(j+1)+". ", a.Text+" ("+a.Role+")")
		}
		if len(rep.Also) > 0 {
			titles := make([]string, 0, len(rep.Also))
			for _, kind := range rep.Also {
				if k := r.Catalogue.Incident(kind); k != nil {
					kind = k.Title
				}
				titles = append(titles, kind)
			}
			t.section("In the same story")
			t.paragraph(strings.Join(titles, "; ") + ".")
		}
		t.section("Proof")
		var numbers []string
		for _, c := range rep.Counts {
			if c.Value != 0 && c.Name == "regular_seconds" {
				numbers = append(numbers, "every "+string(appendSpacing(nil, c.Value)))
			} else if c.Value != 0 {
				numbers = append(numbers, strings.ReplaceAll(c.Name, "_", " ")+" "+strconv.FormatInt(c.Value, 10))
			}
		}
		t.paragraph(strings.Join(numbers, ", "))
		shown := rep.RequestIDs[:min(len(rep.RequestIDs), maxTextRequestIDs)]
		for _, id := range shown {
			t.item("", "request "+string(appendClean(nil, id)))
		}
		if more := rep.RequestIDsTotal - int64(len(shown)); more > 0 && len(shown) > 0 {
			t.item("", "and "+strconv.FormatInt(more, 10)+" more")
		}
		t.section("To quote")
		t.item("", "Incident id "+rep.IncidentID)
	}
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write incidents: %w", err)
	}
	return nil
}

// maxTextRequestIDs bounds the request ids in the text form of an incident; JSON has up to MaxIncidentRequestIDs.
const maxTextRequestIDs = 5

// incident turns a report back into what it was made of.
func (rep *IncidentReport) incident() Incident {
	i := Incident{
		IncidentID: rep.IncidentID, Kind: rep.Kind, Severity: rep.Severity, EntityKind: rep.Entity.Kind,
		EntityValue: rep.Entity.Value, TenantID: rep.TenantID, Users: rep.Users, Addresses: rep.Addresses,
		Applications: rep.Applications, Devices: rep.Devices, OperatingSystems: rep.OperatingSystems,
		ClientApps: rep.ClientApps, Counts: rep.Counts, Outcome: rep.Outcome, RequestIDs: rep.RequestIDs,
		RequestIDsTotal: rep.RequestIDsTotal, Also: rep.Also, Joined: rep.Joined,
	}
	if t, err := time.Parse(time.RFC3339Nano, rep.FirstSeen); err == nil {
		i.FirstSeen = t.UnixMicro()
	}
	if t, err := time.Parse(time.RFC3339Nano, rep.LastSeen); err == nil {
		i.LastSeen = t.UnixMicro()
	}
	return i
}
