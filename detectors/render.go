package detectors

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Renderer turns diagnoses and incidents into text for people. It holds no state and is safe for concurrent
// use. Every text is rendered for a viewer's capabilities from the evidence that these let him see, so a policy's or a
// risk's name never reaches a viewer through a sentence; where something was left out, a sentence says that a
// right is missing.
type Renderer struct {
	Catalogue *catalogue.Catalogue
}

// Action is one thing to do and who can do it.
type Action struct {
	Text string `json:"text"`
	Role string `json:"role"`
}

// Link is one document to read.
type Link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

// Bounds of the sentences that labels add to a summary. The first is always told, a second while the summary is
// shorter than so many bytes; the reasons name every label.
const (
	maxSummaryNotes = 2
	roomForNote     = 180
)

// Summary appends what happened, in one or two sentences with the record's own names and numbers. What is stored
// beside a row is rendered with catalogue.CapabilityRecords alone. It allocates nothing but the growth of dst.
func (r Renderer) Summary(dst []byte, d *Diagnosis, capabilities catalogue.Capability) []byte {
	v := values{cat: r.Catalogue, d: d, capabilities: capabilities}
	start := len(dst)
	var hidden catalogue.Capability
	if s := r.Catalogue.Scenario(d.Scenario); s != nil && s.Type == catalogue.TypeScenario {
		dst, hidden = catalogue.Render(s.Summary.For(d.Outcome), dst, v)
	}
	notes := 0
	for _, name := range d.Also {
		s := r.Catalogue.Scenario(name)
		if s == nil || s.Type != catalogue.TypeLabel || notes == maxSummaryNotes {
			continue
		}
		if notes > 0 && len(dst)-start > roomForNote {
			break
		}
		var n int
		var hid catalogue.Capability
		dst, n, hid = appendSentence(dst, s.Note, v)
		hidden |= hid
		if n > 0 {
			notes++
		}
	}
	if d.Severity != SeverityInfo {
		var hid catalogue.Capability
		dst, _, hid = appendSentence(dst, r.Catalogue.Sentence(catalogue.SentenceRisk), v)
		hidden |= hid
	}
	if d.Outcome == OutcomeFailure && overcome(d) {
		dst, _, _ = appendSentence(dst, r.Catalogue.Sentence(catalogue.SentenceAttemptSucceeded), v)
	}
	if d.Outcome != OutcomeSuccess {
		hidden |= withheld(d, capabilities)
	}
	for _, right := range missingRights {
		if hidden&right.capability == right.capability {
			hidden &^= right.capability
			dst, _, _ = appendSentence(dst, r.Catalogue.Sentence(right.sentence), v)
		}
	}
	return dst
}

// overcome reports whether the attempt of the record got to a success.
func overcome(d *Diagnosis) bool {
	return d.AttemptOutcome == AttemptSucceeded || d.AttemptOutcome == AttemptResolved
}

// withheld returns the rights for want of which the reasons behind a diagnosis are not told.
func withheld(d *Diagnosis, capabilities catalogue.Capability) catalogue.Capability {
	var hidden catalogue.Capability
	for i := range d.Evidence.items {
		if key := d.Evidence.items[i].Key; key.Told && !capabilities.Has(key.Capability) {
			hidden |= key.Capability
		}
	}
	return hidden
}

// missingRights says once what is left out, so the sentence for two rights stands before those for one.
var missingRights = [...]struct {
	capability catalogue.Capability
	sentence   string
}{
	{catalogue.CapabilityConditionalAccess | catalogue.CapabilityRisk, catalogue.SentenceMissingBoth},
	{catalogue.CapabilityConditionalAccess, catalogue.SentenceMissingConditionalAccess},
	{catalogue.CapabilityRisk, catalogue.SentenceMissingRisk},
	{catalogue.CapabilityRaw, catalogue.SentenceMissingRaw},
}

// appendSentence appends a template's text after a space, or nothing where it renders empty; n is its length.
func appendSentence(dst []byte, t *catalogue.Template, v values) (out []byte, n int, hidden catalogue.Capability) {
	mark := len(dst)
	if mark > 0 {
		dst = append(dst, ' ')
	}
	start := len(dst)
	dst, hidden = catalogue.Render(t, dst, v)
	if len(dst) == start {
		return dst[:mark], 0, hidden
	}
	return dst, len(dst) - start, hidden
}

// maxActions bounds what to do: of more than six steps a reader does none.
const maxActions = 6

// Actions returns what to do in order, at most maxActions: first what a compromise and a known password demand, then the
// answer to a person who asked for help, then what the headline says, then what the other labels add. Actions that do not
// apply to the evidence are left out; a failure that a success of the same attempt followed leaves little to do. A
// viewer from whom everything to do is hidden reads that, not that there is nothing to do.
func (r Renderer) Actions(d *Diagnosis, capabilities catalogue.Capability) []Action {
	v := values{cat: r.Catalogue, d: d, capabilities: capabilities}
	outcome := d.Outcome
	if outcome == OutcomeFailure && overcome(d) {
		outcome = OutcomeResolved
	}
	actions := make([]Action, 0, maxActions)
	seen := make(map[*catalogue.Action]bool, 8)
	var buf []byte
	var hidden catalogue.Capability
	tell := func(a *catalogue.Action) {
		var hid catalogue.Capability
		buf, hid = catalogue.Render(a.Text, buf[:0], v)
		hidden |= hid
		if text := strings.TrimSpace(string(buf)); text != "" && !hasText(actions, text) {
			actions = append(actions, Action{Text: text, Role: a.Role.Title})
		}
	}
	add := func(name string) {
		s := r.Catalogue.Scenario(name)
		if s == nil {
			return
		}
		for _, a := range s.Actions.For(outcome) {
			if seen[a] || a.Name == catalogue.ActionNothing || len(actions) == maxActions {
				continue
			}
			seen[a] = true
			tell(a)
		}
	}
	if a := r.Catalogue.Action(catalogue.ActionCompromised); a != nil {
		tell(a)
	}
	for _, first := range [...]string{ScenarioPasswordKnown, ScenarioFlagged} {
		for _, name := range d.Also {
			if name == first {
				add(name)
			}
		}
	}
	add(d.Scenario)
	for _, name := range d.Also {
		if s := r.Catalogue.Scenario(name); s != nil && (s.Type == catalogue.TypeLabel || name == ScenarioLegacyAuth) {
			add(name)
		}
	}
	if len(actions) == 0 {
		last := catalogue.ActionNothing
		if hidden != 0 && d.Severity != SeverityInfo {
			last = catalogue.ActionWithheld
		}
		if a := r.Catalogue.Action(last); a != nil {
			actions = append(actions, Action{Text: a.Text.String(), Role: a.Role.Title})
		}
	}
	return actions
}

func hasText(actions []Action, text string) bool {
	for i := range actions {
		if actions[i].Text == text {
			return true
		}
	}
	return false
}

// ErrorLookupURL is Microsoft's page that explains an error code; the code follows it.
const ErrorLookupURL = catalogue.ErrorLookupURL

// errorReferenceURL is the list of all codes, which tells no more of one code than the page behind ErrorLookupURL.
const errorReferenceURL = "https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes"

// maxLinks bounds the documents, the page about the error code included.
const maxLinks = 6

// Links returns the documents to read: those of the headline, the first of each other scenario that applies, the
// page about the error code where there is one of its own, and Microsoft's look-up of the code. Documents that are for other
// evidence are left out, and no page is named twice.
func (r Renderer) Links(d *Diagnosis, capabilities catalogue.Capability) []Link {
	v := values{cat: r.Catalogue, d: d, capabilities: capabilities}
	links := make([]Link, 0, maxLinks)
	var buf []byte
	page := func(url string) string {
		url, _, _ = strings.Cut(url, "#")
		return url
	}
	add := func(title, url string, limit int) {
		for i := range links {
			if page(links[i].URL) == page(url) {
				return
			}
		}
		if len(links) < limit {
			links = append(links, Link{Title: title, URL: url})
		}
	}
	document := func(l *catalogue.Link) bool {
		if l.When != nil {
			if buf, _ = catalogue.Render(l.When, buf[:0], v); len(buf) == 0 {
				return false
			}
		}
		add(l.Title, l.URL, maxLinks-1)
		return true
	}
	if s := r.Catalogue.Scenario(d.Scenario); s != nil {
		for _, l := range s.Links {
			document(l)
		}
	}
	for _, name := range d.Also {
		if s := r.Catalogue.Scenario(name); s != nil {
			for _, l := range s.Links {
				if document(l) {
					break
				}
			}
		}
	}
	if d.ErrorCode != 0 {
		code := strconv.Itoa(int(d.ErrorCode))
		if c := r.Catalogue.Code(d.ErrorCode); c != nil && !strings.HasPrefix(c.Link, ErrorLookupURL) && page(c.Link) != errorReferenceURL {
			add("About error code "+code, c.Link, maxLinks-1)
		}
		add("Error code "+code, ErrorLookupURL+code, maxLinks)
	}
	return links
}

// UnknownTexts returns the sentences of d.Unknown. A key of a newer catalogue stands for itself.
func (r Renderer) UnknownTexts(d *Diagnosis) []string {
	texts := make([]string, 0, len(d.Unknown))
	for _, key := range d.Unknown {
		if u := r.Catalogue.Unknown(key); u != nil {
			texts = append(texts, u.Text)
		} else {
			texts = append(texts, key)
		}
	}
	return texts
}

// Title returns the headline of a scenario for people, or the name itself where the catalogue lacks it.
func (r Renderer) Title(scenario string) string {
	if s := r.Catalogue.Scenario(scenario); s != nil {
		return s.Title
	}
	return scenario
}

// values gives templates the values of a diagnosis.
type values struct {
	cat          *catalogue.Catalogue
	d            *Diagnosis
	capabilities catalogue.Capability
}

// workloads are the categories whose records are about a service principal.
func isWorkload(category string) bool {
	switch category {
	case schemas.Category_CATEGORY_SERVICE_PRINCIPAL.Name(), schemas.Category_CATEGORY_MANAGED_IDENTITY.Name(),
		schemas.Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL.Name():
		return true
	}
	return false
}

// unresolvedID stands where Entra did not resolve an id.
const unresolvedID = "00000000-0000-0000-0000-000000000000"

func named(s string) bool { return s != "" && s != unresolvedID }

func text(dst []byte, s string) ([]byte, catalogue.State) {
	if s == "" {
		return dst, catalogue.Missing
	}
	return appendClean(dst, s), catalogue.Present
}

// words is text with a vocabulary.
func words(dst []byte, w *catalogue.Words, s string) ([]byte, catalogue.State) {
	if s == "" {
		return dst, catalogue.Missing
	}
	mark := len(dst)
	if dst = w.Append(dst, s); isClean(dst[mark:]) {
		return dst, catalogue.Present
	}
	said := string(dst[mark:])
	return appendClean(dst[:mark], said), catalogue.Present
}

func firstNamed(list ...string) string {
	for _, s := range list {
		if named(s) {
			return s
		}
	}
	return ""
}

// AppendField implements catalogue.Values.
func (v values) AppendField(dst []byte, f catalogue.Field) ([]byte, catalogue.State) {
	d := v.d
	switch f {
	case catalogue.FieldWho:
		if named(d.User) {
			return text(dst, d.User)
		}
		if f := d.Evidence.Get("service_principal"); f != nil {
			return text(dst, f.Text)
		}
		if isWorkload(d.Category) {
			return text(dst, firstNamed(d.App, d.UserID))
		}
		return text(dst, firstNamed(d.UserID))
	case catalogue.FieldUser:
		return text(dst, firstNamed(d.User, d.UserID))
	case catalogue.FieldUserID:
		return text(dst, d.UserID)
	case catalogue.FieldApp:
		return text(dst, d.App)
	case catalogue.FieldResource:
		return text(dst, d.Resource)
	case catalogue.FieldTarget:
		if isWorkload(d.Category) {
			return text(dst, firstNamed(d.Resource, d.App))
		}
		return text(dst, firstNamed(d.App, d.Resource))
	case catalogue.FieldDependency:
		if named(d.App) && named(d.Resource) && d.App != d.Resource && !isWorkload(d.Category) {
			return text(dst, d.Resource)
		}
		return dst, catalogue.Missing
	case catalogue.FieldClientApp:
		return words(dst, v.cat.Words(f), d.ClientApp)
	case catalogue.FieldAddress:
		return text(dst, d.Address)
	case catalogue.FieldCode:
		return strconv.AppendInt(dst, int64(d.ErrorCode), 10), catalogue.Present
	case catalogue.FieldCodeMeaning:
		if c := v.cat.Code(d.ErrorCode); c != nil {
			return append(dst, c.Meaning...), catalogue.Present
		}
		return dst, catalogue.Missing
	case catalogue.FieldCodeRemediation:
		if c := v.cat.Code(d.ErrorCode); c != nil {
			return append(dst, c.Remediation...), catalogue.Present
		}
		return dst, catalogue.Missing
	case catalogue.FieldTime:
		return appendPeopleTime(dst, d.EventTime), catalogue.Present
	case catalogue.FieldTenant:
		return text(dst, d.TenantID)
	case catalogue.FieldCategory:
		return text(dst, d.Category)
	case catalogue.FieldOutcome:
		return text(dst, d.Outcome)
	case catalogue.FieldAttemptOutcome:
		return text(dst, d.AttemptOutcome)
	case catalogue.FieldScenario:
		return text(dst, d.Scenario)
	case catalogue.FieldAlso:
		if len(d.Also) == 0 {
			return dst, catalogue.Missing
		}
		return catalogue.AppendList(dst, d.Also), catalogue.Present
	case catalogue.FieldRequestID:
		return text(dst, d.RequestID)
	case catalogue.FieldCorrelationID:
		return text(dst, d.CorrelationID)
	}
	return dst, catalogue.Missing
}

// AppendEvidence implements catalogue.Values.
func (v values) AppendEvidence(dst []byte, key *catalogue.EvidenceKey) ([]byte, catalogue.State) {
	f := v.d.Evidence.find(key)
	if f == nil {
		return dst, catalogue.Missing
	}
	if !v.capabilities.Has(key.Capability) {
		return dst, catalogue.Hidden
	}
	switch key.Kind {
	case catalogue.KindInt:
		if key.Name == "regular_seconds" {
			return appendSpacing(dst, f.Int), catalogue.Present
		}
		return strconv.AppendInt(dst, f.Int, 10), catalogue.Present
	case catalogue.KindBool:
		if !f.Bool {
			return append(dst, "false"...), catalogue.False
		}
		return append(dst, "true"...), catalogue.Present
	case catalogue.KindTime:
		return appendPeopleTime(dst, f.Int), catalogue.Present
	case catalogue.KindList:
		return appendCleanList(dst, v.cat.KeyWords(key), f.List), catalogue.Present
	default:
		return words(dst, v.cat.KeyWords(key), f.Text)
	}
}

// Holds implements catalogue.Values.
func (v values) Holds(f catalogue.Field, key *catalogue.EvidenceKey, text string) bool {
	list := v.d.Also
	if f == catalogue.FieldNone {
		fact := v.d.Evidence.find(key)
		if key.Kind == catalogue.KindText {
			return fact.Text == text
		}
		list = fact.List
	}
	for _, s := range list {
		if s == text {
			return true
		}
	}
	return false
}

// AppendCount implements catalogue.Values; a diagnosis has no counts.
func (v values) AppendCount(dst []byte, _ string) ([]byte, catalogue.State) {
	return dst, catalogue.Missing
}

// incidentValues gives templates the values of an incident.
type incidentValues struct {
	cat *catalogue.Catalogue
	i   *Incident
}

// AppendField implements catalogue.Values.
func (v incidentValues) AppendField(dst []byte, f catalogue.Field) ([]byte, catalogue.State) {
	switch f {
	case catalogue.FieldEntity:
		return text(dst, v.i.EntityValue)
	case catalogue.FieldEntityKind:
		return text(dst, v.i.EntityKind)
	case catalogue.FieldTenant:
		return text(dst, v.i.TenantID)
	case catalogue.FieldOutcome:
		return text(dst, v.i.Outcome)
	case catalogue.FieldFirstSeen:
		return appendPeopleTime(dst, v.i.FirstSeen), catalogue.Present
	case catalogue.FieldLastSeen:
		return appendPeopleTime(dst, v.i.LastSeen), catalogue.Present
	case catalogue.FieldRecords:
		return strconv.AppendInt(dst, v.i.RequestIDsTotal, 10), catalogue.Present
	}
	if list := v.list(f); len(list) > 0 {
		return appendCleanList(dst, v.cat.Words(f), list), catalogue.Present
	}
	return dst, catalogue.Missing
}

func (v incidentValues) list(f catalogue.Field) []string {
	switch f {
	case catalogue.FieldUsers:
		return v.i.Users
	case catalogue.FieldAddresses:
		return v.i.Addresses
	case catalogue.FieldApplications:
		return v.i.Applications
	case catalogue.FieldDevices:
		return v.i.Devices
	case catalogue.FieldOperatingSystems:
		return v.i.OperatingSystems
	case catalogue.FieldClientApps:
		return v.i.ClientApps
	}
	return nil
}

// AppendEvidence implements catalogue.Values; an incident has no evidence of its own.
func (v incidentValues) AppendEvidence(dst []byte, _ *catalogue.EvidenceKey) ([]byte, catalogue.State) {
	return dst, catalogue.Missing
}

// Holds implements catalogue.Values.
func (v incidentValues) Holds(f catalogue.Field, _ *catalogue.EvidenceKey, text string) bool {
	for _, s := range v.list(f) {
		if s == text {
			return true
		}
	}
	return false
}

// AppendCount implements catalogue.Values.
func (v incidentValues) AppendCount(dst []byte, name string) ([]byte, catalogue.State) {
	for i := range v.i.Counts {
		if v.i.Counts[i].Name == name {
			return strconv.AppendInt(dst, v.i.Counts[i].Value, 10), catalogue.Present
		}
	}
	return dst, catalogue.Missing
}

// appendSpacing appends a number of seconds as people say it: in minutes from two minutes on.
func appendSpacing(dst []byte, seconds int64) []byte {
	if seconds < 120 {
		return append(strconv.AppendInt(dst, seconds, 10), " seconds"...)
	}
	return append(strconv.AppendInt(dst, (seconds+30)/60, 10), " minutes"...)
}

// appendPeopleTime appends a time in UTC, as the log has it, to the second.
func appendPeopleTime(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, "2006-01-02 15:04:05 UTC")
}

func appendCleanList(dst []byte, w *catalogue.Words, list []string) []byte {
	mark := len(dst)
	dst = w.AppendList(dst, list)
	if isClean(dst[mark:]) {
		return dst
	}
	s := string(dst[mark:])
	return appendClean(dst[:mark], s)
}

func isClean(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c >= 0x7f {
			return false
		}
	}
	return true
}

// appendClean appends a value from a record so that it cannot disturb a terminal or a line of text: control
// characters and marks that turn the direction of writing become spaces, invalid UTF-8 becomes U+FFFD.
func appendClean(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			dst = append(dst, s[:i]...)
			return appendCleanRunes(dst, s[i:])
		}
	}
	return append(dst, s...)
}

func appendCleanRunes(dst []byte, s string) []byte {
	for _, c := range s {
		switch {
		case c < 0x20, c >= 0x7f && c < 0xa0, c == 0x061c, c >= 0x200e && c <= 0x200f,
			c >= 0x2028 && c <= 0x202e, c >= 0x2066 && c <= 0x2069:
			dst = append(dst, ' ')
		default:
			dst = utf8.AppendRune(dst, c)
		}
	}
	return dst
}
