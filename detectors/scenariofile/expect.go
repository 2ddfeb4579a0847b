package scenariofile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// subject is what an expectation is about.
type subject uint8

const (
	subjectUser subject = iota
	subjectRequest
	subjectIncident
	subjectTotal
)

// expectation is one expect statement.
type expectation struct {
	line    int
	text    string
	subject subject
	no      bool // nothing like it may be there
	every   bool // of the user's records

	name      string // of the user or the record
	tenant    *tenant
	account   account
	at        time.Time
	precision time.Duration // 0: no time was given
	label     string        // scenario, label or kind of incident
	checks    []token

	request labelled
	total   string // diagnoses, incidents or records
	count   int
}

// Keys of a diagnosis and of an incident that checks may name, beside evidence.NAME and counts.NAME.
var (
	diagnosisKeys = []string{"scenario", "also", "severity", "outcome", "attempt", "code", "user", "user_id", "app", "resource", "client_app", "address",
		"category", "tenant", "count", "unknown", "incidents", "attempt_id", "correlation_id", "request_id"}
	incidentKeys = []string{"kind", "also", "entity", "entity_kind", "severity", "outcome", "users", "addresses", "applications", "devices", "operating_systems",
		"client_apps", "requests", "count", "tenant", "first_seen", "last_seen"}
)

// expect reads an expectation.
func (p *parser) expect() error {
	e := expectation{line: p.line, tenant: p.tenant}
	texts := make([]string, 0, len(p.words))
	for _, t := range p.words {
		texts = append(texts, t.String())
	}
	e.text = strings.Join(texts, " ")
	e.no = p.is("no")
	known, err := catalogue.Load()
	if err != nil {
		return fmt.Errorf("load the catalogue: %w", err)
	}
	switch {
	case p.is("incident"):
		e.subject = subjectIncident
		if p.more() && p.peek().op == "" {
			if e.label, err = p.word("a kind of incident"); err != nil {
				return err
			}
			if known.Incident(e.label) == nil {
				return fmt.Errorf("unknown kind of incident %q; expected one of %s", e.label, incidentNames(known))
			}
		} else if !e.no {
			return fmt.Errorf("%s; expected a kind of incident, as in: expect incident repeated_failures entity=ada", p.found())
		}
		err = p.checks(&e, known, false, true)
	case p.is("request"):
		e.subject = subjectRequest
		if e.no {
			return fmt.Errorf("expect no request is no expectation; expected: expect request NAME key!=value")
		}
		if e.name, err = p.word("the name of a record, as in: expect request r1 scenario=success"); err != nil {
			return err
		}
		err = p.checks(&e, known, true, false)
		if err == nil && len(e.checks) == 0 {
			err = fmt.Errorf("%s; expected at least one key=value", p.found())
		}
	case p.is("diagnoses"), p.is("incidents"), p.is("records"):
		e.subject, e.total = subjectTotal, p.words[p.next-1].text
		if e.no {
			return fmt.Errorf("expect no %s is no expectation; expected: expect %s 0", e.total, e.total)
		}
		v, err := p.word("a number, as in: expect diagnoses 12")
		if err != nil {
			return err
		}
		if e.count, err = strconv.Atoi(v); err != nil || e.count < 0 {
			return fmt.Errorf("found %s; expected a number, as in: expect diagnoses 12", v)
		}
		p.file.expectations = append(p.file.expectations, e)
		return nil
	default:
		err = p.expectUser(&e, known)
	}
	if err != nil {
		return err
	}
	p.file.expectations = append(p.file.expectations, e)
	return nil
}

func (p *parser) expectUser(e *expectation, known *catalogue.Catalogue) (err error) {
	if e.name, err = p.word("who or what: a user, request NAME, incident KIND, diagnoses N, incidents N, or no before one of them"); err != nil {
		return err
	}
	if p.is("at") {
		if e.at, e.precision, err = p.moment(); err != nil {
			return err
		}
	}
	e.every = p.is("every")
	if p.more() && p.peek().op == "" {
		if e.label, err = p.word("a scenario"); err != nil {
			return err
		}
		if known.Scenario(e.label) == nil && known.Incident(e.label) == nil {
			return fmt.Errorf("unknown scenario %q; expected one of %s, or a kind of incident: %s", e.label, scenarioNames(known), incidentNames(known))
		}
	}
	either := e.label != "" && known.Incident(e.label) != nil && !e.every && e.precision == 0
	if err := p.checks(e, known, true, either); err != nil {
		return err
	}
	if e.label == "" && len(e.checks) == 0 && !e.no {
		return fmt.Errorf("%s; expected a scenario or at least one key=value", p.found())
	}
	return nil
}

// checks reads the comparisons that follow, and refuses keys that the subject does not have.
func (p *parser) checks(e *expectation, known *catalogue.Catalogue, diagnosis, incident bool) error {
	for p.more() {
		t := p.peek()
		if t.op == "" {
			return fmt.Errorf("%s; expected key=value (or != <= >= ~)", p.found())
		}
		evidence, isEvidence := strings.CutPrefix(t.text, "evidence.")
		switch {
		case isEvidence && diagnosis:
			if known.Evidence(evidence) == nil {
				return fmt.Errorf("column %d: unknown evidence %q; expected a key of the catalogue", t.column, evidence)
			}
		case strings.HasPrefix(t.text, "counts.") && incident:
		case diagnosis && slices.Contains(diagnosisKeys, t.text), incident && slices.Contains(incidentKeys, t.text):
		default:
			keys := []string{}
			if diagnosis {
				keys = append(append(keys, diagnosisKeys...), "evidence.KEY")
			}
			if incident {
				for _, k := range append(slices.Clone(incidentKeys), "counts.NAME") {
					if !slices.Contains(keys, k) {
						keys = append(keys, k)
					}
				}
			}
			return fmt.Errorf("column %d: unknown key %q; expected one of %s", t.column, t.text, strings.Join(keys, ", "))
		}
		if t.op == "<=" || t.op == ">=" {
			if _, err := strconv.ParseInt(t.value, 10, 64); err != nil {
				return fmt.Errorf("column %d: %s compares numbers, found %q", t.column, t.op, t.value)
			}
		}
		if err := checkValue(t, known); err != nil {
			return fmt.Errorf("column %d: %w", t.column, err)
		}
		e.checks = append(e.checks, t)
		p.next++
	}
	return nil
}

// checkValue refuses values that a key can never have, so that a typing error does not pass as a failing expectation.
func checkValue(t token, known *catalogue.Catalogue) error {
	allowed := map[string][]string{
		"severity": {detectors.SeverityInfo, detectors.SeverityLow, detectors.SeverityMedium, detectors.SeverityHigh, detectors.SeverityCritical},
		"attempt":  {detectors.AttemptSucceeded, detectors.AttemptFailed, detectors.AttemptResolved, detectors.AttemptInterrupted},
		"outcome": {detectors.OutcomeSuccess, detectors.OutcomeFailure, detectors.OutcomeInterrupted, detectors.OutcomeResolved,
			"blocked", "locked", "password_known", "signed_in", "failing"},
	}[t.text]
	if t.op == "~" {
		return nil
	}
	if t.text == "scenario" || t.text == "also" {
		for _, v := range split(t.value) {
			if v != "none" && known.Scenario(v) == nil && (t.text != "also" || known.Incident(v) == nil) {
				return fmt.Errorf("unknown scenario %q; expected one of %s", v, scenarioNames(known))
			}
		}
		return nil
	}
	if allowed == nil {
		return nil
	}
	for _, v := range split(t.value) {
		if !slices.Contains(allowed, v) {
			return fmt.Errorf("%s can never be %q; expected one of %s", t.text, v, strings.Join(allowed, ", "))
		}
	}
	return nil
}

func split(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == '|' })
}

func scenarioNames(known *catalogue.Catalogue) string {
	var names []string
	for _, s := range known.Scenarios() {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

func incidentNames(known *catalogue.Catalogue) string {
	var names []string
	for _, k := range known.Incidents() {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

// resolve finds what the expectation names once the whole file is read, since it may stand above it.
func (p *parser) resolve(e *expectation) error {
	switch e.subject {
	case subjectRequest:
		l, ok := p.file.labels[e.name]
		if !ok {
			return fmt.Errorf("no record is named %s; expected a name given by request NAME (NAME.1, NAME.2 ... where x repeats it)", e.name)
		}
		e.request = l
	case subjectUser:
		a, ok := p.file.users[e.tenant.name+"/"+e.name]
		if !ok {
			return fmt.Errorf("nobody is called %s in tenant %s; expected a user of this file", e.name, e.tenant.name)
		}
		e.account = a
	case subjectIncident:
		for i := range e.checks {
			c := &e.checks[i]
			if c.text != "entity" {
				continue
			}
			if a, ok := p.file.users[e.tenant.name+"/"+c.value]; ok {
				c.value = a.upn
				if a.principal {
					c.value = a.name
				}
			}
		}
	}
	return nil
}

// verdict is the answer to one expectation: nothing, or what was there instead.
type verdict struct {
	ok  bool
	got string
}

// evaluate checks an expectation against the final rows.
func (e *expectation) evaluate(r *inmemory.Result, records int) verdict {
	switch e.subject {
	case subjectTotal:
		n := len(r.Diagnoses)
		switch e.total {
		case "incidents":
			n = len(r.Incidents)
		case "records":
			n = records
		}
		return verdict{n == e.count, fmt.Sprintf("%d %s", n, e.total)}
	case subjectIncident:
		return e.evaluateIncidents(r)
	case subjectRequest:
		for i := range r.Diagnoses {
			d := &r.Diagnoses[i]
			if d.RequestID == e.request.requestID && (d.TenantID == e.request.tenantID || d.TenantID == "") {
				missed := e.missed(func(t token) bool { return diagnosisMeets(d, t) })
				return verdict{len(missed) == 0, describeDiagnosis(d, e.checks)}
			}
		}
		return verdict{false, fmt.Sprintf("no diagnosis of this record (request id %s)", e.request.requestID)}
	}
	return e.evaluateUser(r)
}

func (e *expectation) missed(meets func(token) bool) []token {
	var missed []token
	for _, t := range e.checks {
		if !meets(t) {
			missed = append(missed, t)
		}
	}
	return missed
}

func (e *expectation) evaluateIncidents(r *inmemory.Result) verdict {
	var nearest *detectors.Incident
	least := 1 << 30
	for i := range r.Incidents {
		inc := &r.Incidents[i]
		if e.label != "" && !isKind(inc, e.label) || inc.TenantID != e.tenant.id && inc.TenantID != "" {
			continue
		}
		missed := len(e.missed(func(t token) bool { return incidentMeets(inc, t) }))
		if missed == 0 {
			return verdict{!e.no, describeIncident(inc)}
		}
		if missed < least {
			nearest, least = inc, missed
		}
	}
	if e.no {
		return verdict{ok: true}
	}
	if nearest != nil {
		return verdict{false, "nearest: " + describeIncident(nearest)}
	}
	if len(r.Incidents) == 0 {
		return verdict{false, "no incident at all"}
	}
	var others []string
	for i := range r.Incidents {
		others = append(others, describeIncident(&r.Incidents[i]))
	}
	return verdict{false, "no such incident; there is " + strings.Join(others[:min(len(others), 3)], "; ")}
}

func (e *expectation) owns(d *detectors.Diagnosis) bool {
	// Graph's records do not say whose log they are from.
	if d.TenantID != e.account.tenant.id && d.TenantID != "" {
		return false
	}
	if e.account.principal {
		return d.User == e.account.name || d.UserID == e.account.userID || factText(d, "service_principal_id") == e.account.userID
	}
	return d.UserID == e.account.userID || d.User == e.account.upn
}

func (e *expectation) evaluateUser(r *inmemory.Result) verdict {
	var mine []*detectors.Diagnosis
	for i := range r.Diagnoses {
		d := &r.Diagnoses[i]
		if !e.owns(d) {
			continue
		}
		if e.precision > 0 {
			t := time.UnixMicro(d.EventTime).UTC()
			if t.Before(e.at) || !t.Before(e.at.Add(e.precision)) {
				continue
			}
		}
		mine = append(mine, d)
	}
	labelled := func(d *detectors.Diagnosis) bool {
		return e.label == "" || d.Scenario == e.label || slices.Contains(d.Also, e.label)
	}
	meets := func(d *detectors.Diagnosis) int {
		missed := len(e.missed(func(t token) bool { return diagnosisMeets(d, t) }))
		if !labelled(d) {
			missed++
		}
		return missed
	}
	// A bare label that is a kind of incident is met by an incident of the user as well.
	if e.label != "" && e.precision == 0 && !e.every {
		for i := range r.Incidents {
			inc := &r.Incidents[i]
			if !isKind(inc, e.label) || inc.TenantID != e.account.tenant.id && inc.TenantID != "" || !e.concerns(inc) {
				continue
			}
			if len(e.missed(func(t token) bool { return incidentMeets(inc, t) })) == 0 {
				return verdict{!e.no, describeIncident(inc)}
			}
		}
	}
	// With a time or every, all the records must meet it; else one is enough.
	all := (e.every || e.precision > 0) && !e.no
	if len(mine) == 0 {
		return verdict{e.no, "no record of " + e.name + e.when()}
	}
	var nearest *detectors.Diagnosis
	least := 1 << 30
	for _, d := range mine {
		missed := meets(d)
		switch {
		case all && missed > 0:
			return verdict{false, describeDiagnosis(d, e.checks)}
		case !all && missed == 0:
			return verdict{!e.no, describeDiagnosis(d, e.checks)}
		case missed < least || missed == least && nearest != nil && d.EventTime > nearest.EventTime:
			nearest, least = d, missed
		}
	}
	if all || e.no {
		return verdict{ok: true}
	}
	got := "nearest: " + describeDiagnosis(nearest, e.checks)
	for i := range r.Incidents {
		if inc := &r.Incidents[i]; isKind(inc, e.label) && e.concerns(inc) {
			got += "; and " + describeIncident(inc)
		}
	}
	return verdict{false, got}
}

func (e *expectation) when() string {
	if e.precision == 0 {
		return ""
	}
	return " at " + e.at.Format("2006-01-02 15:04:05")
}

func (e *expectation) concerns(inc *detectors.Incident) bool {
	want := e.account.upn
	if e.account.principal {
		want = e.account.name
	}
	return inc.EntityValue == want || inc.EntityValue == e.account.userID || slices.Contains(inc.Users, want)
}

// compare tells whether a single value meets a check.
func compare(t token, got string) bool {
	switch t.op {
	case "=":
		return slices.ContainsFunc(strings.Split(t.value, "|"), func(v string) bool { return v == got || v == "none" && got == "" })
	case "!=":
		return got != t.value && !(t.value == "none" && got == "")
	case "~":
		return strings.Contains(strings.ToLower(got), strings.ToLower(t.value))
	}
	have, err1 := strconv.ParseInt(got, 10, 64)
	want, err2 := strconv.ParseInt(t.value, 10, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	if t.op == "<=" {
		return have <= want
	}
	return have >= want
}

// compareList tells whether a list meets a check: a number compares its length, words must all be in it.
func compareList(t token, got []string) bool {
	if n, err := strconv.Atoi(t.value); err == nil && t.op != "~" && !slices.Contains(got, t.value) {
		switch t.op {
		case "=":
			return len(got) == n
		case "!=":
			return len(got) != n
		case "<=":
			return len(got) <= n
		}
		return len(got) >= n
	}
	if t.op == "~" {
		return slices.ContainsFunc(got, func(v string) bool { return compare(t, v) })
	}
	if t.value == "none" {
		return (len(got) == 0) == (t.op == "=")
	}
	for v := range strings.SplitSeq(t.value, ",") {
		either := strings.Split(v, "|")
		if slices.ContainsFunc(got, func(g string) bool { return slices.Contains(either, g) }) != (t.op == "=") {
			return false
		}
	}
	return true
}

func fact(d *detectors.Diagnosis, key string) (detectors.Fact, bool) {
	for _, f := range d.Evidence.Facts() {
		if f.Key.Name == key {
			return f, true
		}
	}
	return detectors.Fact{}, false
}

func factText(d *detectors.Diagnosis, key string) string {
	f, _ := fact(d, key)
	return f.Text
}

// factValue renders a fact as checks compare it.
func factValue(f detectors.Fact) (value string, list []string, isList bool) {
	switch f.Key.Kind {
	case catalogue.KindInt:
		return strconv.FormatInt(f.Int, 10), nil, false
	case catalogue.KindBool:
		return strconv.FormatBool(f.Bool), nil, false
	case catalogue.KindList:
		return "", f.List, true
	case catalogue.KindTime:
		return time.UnixMicro(f.Int).UTC().Format(time.RFC3339), nil, false
	}
	return f.Text, nil, false
}

func diagnosisMeets(d *detectors.Diagnosis, t token) bool {
	switch value, list, isList := diagnosisValue(d, t.text); {
	case isList:
		return compareList(t, list)
	default:
		return compare(t, value)
	}
}

// diagnosisValue reads what a check names; a key that only incidents have is "".
func diagnosisValue(d *detectors.Diagnosis, key string) (value string, list []string, isList bool) {
	if name, ok := strings.CutPrefix(key, "evidence."); ok {
		f, ok := fact(d, name)
		if !ok {
			return "", nil, false
		}
		return factValue(f)
	}
	switch key {
	case "scenario":
		return d.Scenario, nil, false
	case "also":
		return "", d.Also, true
	case "unknown":
		return "", d.Unknown, true
	case "incidents":
		return "", d.Incidents, true
	case "severity":
		return d.Severity, nil, false
	case "outcome":
		return d.Outcome, nil, false
	case "attempt":
		return d.AttemptOutcome, nil, false
	case "attempt_id":
		return d.AttemptID, nil, false
	case "code":
		return strconv.Itoa(int(d.ErrorCode)), nil, false
	case "user":
		return d.User, nil, false
	case "user_id":
		return d.UserID, nil, false
	case "app":
		return d.App, nil, false
	case "resource":
		return d.Resource, nil, false
	case "client_app":
		return d.ClientApp, nil, false
	case "address":
		return d.Address, nil, false
	case "category":
		return d.Category, nil, false
	case "tenant":
		return d.TenantID, nil, false
	case "correlation_id":
		return d.CorrelationID, nil, false
	case "request_id":
		return d.RequestID, nil, false
	case "count":
		f, ok := fact(d, "failures_48h")
		if !ok {
			return "", nil, false
		}
		return factValue(f)
	}
	return "", nil, false
}

// isKind reports whether an incident is of a kind, or has it beside the one that names it.
func isKind(i *detectors.Incident, kind string) bool {
	return i.Kind == kind || slices.Contains(i.Also, kind)
}

func incidentMeets(i *detectors.Incident, t token) bool {
	if name, ok := strings.CutPrefix(t.text, "counts."); ok {
		return compare(t, countOf(i, name))
	}
	switch t.text {
	case "kind":
		return compare(t, i.Kind)
	case "also":
		return compareList(t, i.Also)
	case "entity":
		return compare(t, i.EntityValue)
	case "entity_kind":
		return compare(t, i.EntityKind)
	case "severity":
		return compare(t, i.Severity)
	case "outcome":
		return compare(t, i.Outcome)
	case "tenant":
		return compare(t, i.TenantID)
	case "users":
		return compareList(t, i.Users)
	case "addresses":
		return compareList(t, i.Addresses)
	case "applications":
		return compareList(t, i.Applications)
	case "devices":
		return compareList(t, i.Devices)
	case "operating_systems":
		return compareList(t, i.OperatingSystems)
	case "client_apps":
		return compareList(t, i.ClientApps)
	case "requests", "count":
		return compare(t, strconv.FormatInt(i.RequestIDsTotal, 10))
	case "first_seen":
		return compare(t, time.UnixMicro(i.FirstSeen).UTC().Format(time.RFC3339))
	case "last_seen":
		return compare(t, time.UnixMicro(i.LastSeen).UTC().Format(time.RFC3339))
	}
	return false
}

func countOf(i *detectors.Incident, name string) string {
	for _, c := range i.Counts {
		if c.Name == name {
			return strconv.FormatInt(c.Value, 10)
		}
	}
	return ""
}

// describeDiagnosis tells in a line what a diagnosis says, with everything that the checks asked for.
func describeDiagnosis(d *detectors.Diagnosis, checks []token) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s code=%d scenario=%s", time.UnixMicro(d.EventTime).UTC().Format("2006-01-02 15:04:05"), d.User, d.ErrorCode, d.Scenario)
	if len(d.Also) > 0 {
		fmt.Fprintf(&b, " also=%s", strings.Join(d.Also, ","))
	}
	fmt.Fprintf(&b, " outcome=%s attempt=%s severity=%s", d.Outcome, d.AttemptOutcome, d.Severity)
	shown := []string{"scenario", "also", "outcome", "attempt", "severity", "code", "user"}
	for _, t := range checks {
		if slices.Contains(shown, t.text) {
			continue
		}
		shown = append(shown, t.text)
		value, list, isList := diagnosisValue(d, t.text)
		switch {
		case isList:
			value = strings.Join(list, ",")
		case value == "":
			value = "none"
		}
		fmt.Fprintf(&b, " %s=%s", t.text, quote(value))
	}
	return b.String()
}

// describeIncident tells in a line what an incident says.
func describeIncident(i *detectors.Incident) string {
	var counts []string
	for _, c := range i.Counts {
		counts = append(counts, fmt.Sprintf("%s:%d", c.Name, c.Value))
	}
	return fmt.Sprintf("incident %s also=%s entity=%s severity=%s outcome=%s requests=%d users=%d addresses=%d counts=%s first_seen=%s last_seen=%s", i.Kind, strings.Join(i.Also, ","),
		quote(i.EntityValue), i.Severity, i.Outcome, i.RequestIDsTotal, len(i.Users), len(i.Addresses), strings.Join(counts, ","),
		time.UnixMicro(i.FirstSeen).UTC().Format(time.RFC3339), time.UnixMicro(i.LastSeen).UTC().Format(time.RFC3339))
}
