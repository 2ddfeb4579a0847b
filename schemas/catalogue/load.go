package catalogue

import (
	"cmp"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
)

//go:embed codes.tsv scenarios.yaml incidents.yaml actions.yaml roles.yaml links.yaml evidence.yaml words.yaml unknowns.yaml sentences.yaml
var embedded embed.FS

// Files lists the files that a catalogue consists of, in the order in which they are hashed.
var Files = []string{
	"codes.tsv", "scenarios.yaml", "incidents.yaml", "actions.yaml", "roles.yaml", "links.yaml",
	"evidence.yaml", "words.yaml", "unknowns.yaml", "sentences.yaml",
}

// folder is where the files stand in the repository, for errors.
const folder = "schemas/catalogue/"

var loadOnce = sync.OnceValues(func() (*Catalogue, error) { return Parse(embedded) })

// Load returns the embedded catalogue. It is parsed and validated once per process; the value is immutable and
// shared by all callers.
func Load() (*Catalogue, error) { return loadOnce() }

// LoadOverlay returns the embedded catalogue with the changes of an operator's file laid over it; README.md of this
// package describes the file. name is what errors call it. The catalogue is a function of the embedded files and
// overlay alone. All that is wrong is reported in one error, a line "NAME:LINE: ..." per finding.
func LoadOverlay(name string, overlay []byte) (*Catalogue, error) {
	return parse(embedded, &overlayFile{name, overlay})
}

var kinds = map[string]Kind{"text": KindText, "int": KindInt, "bool": KindBool, "list": KindList, "time": KindTime}

var capabilities = map[string]Capability{
	"records": CapabilityRecords, "conditional_access": CapabilityConditionalAccess,
	"risk": CapabilityRisk, "raw": CapabilityRaw,
}

var severities = []string{"info", "low", "medium", "high", "critical"}

// outcomes are the outcomes of a record that texts may tell apart; "default" is the fallback.
var outcomes = []string{"success", "failure", "interrupted", "resolved", "default"}

// Parse reads and validates a catalogue from the files in fsys (see Files). Everything that is wrong is reported
// in one error, a line per finding with the file, the line and the name that it concerns: unknown references, duplicate
// names, codes or ranks, templates that do not compile, categories and codes without a scenario, unused entries.
func Parse(fsys fs.FS) (*Catalogue, error) { return parse(fsys, nil) }

func parse(fsys fs.FS, overlay *overlayFile) (*Catalogue, error) {
	p := &parser{
		sections: map[string]*value{},
		cat: &Catalogue{
			codes: map[int32]*Code{}, scenarios: map[string]*Scenario{}, incidents: map[string]*Incident{},
			evidence: map[string]*EvidenceKey{}, actions: map[string]*Action{}, roles: map[string]*Role{},
			links: map[string]*Link{}, unknowns: map[string]*Unknown{}, sentences: map[string]*Template{},
			words: map[Field]*Words{}, keyWords: map[*EvidenceKey]*Words{},
		},
		used:    map[string]bool{},
		overlay: overlay,
	}
	digest := xxhash.New()
	hash := func(data []byte) {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(data)))
		_, _ = digest.Write(size[:]) // a hash.Hash never fails
		_, _ = digest.Write(data)
	}
	for _, name := range Files {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read catalogue file %s: %w", name, err)
		}
		hash(data)
		section, extension, _ := strings.Cut(name, ".")
		if extension == "tsv" {
			p.sections[section] = p.readCodes(folder+name, string(data))
		} else {
			p.sections[section] = p.readList(folder+name, data)
		}
	}
	if err := p.report(); err != nil {
		return nil, err // what is missing now would be found a second time wherever it is referred to
	}
	if overlay != nil {
		hash(overlay.data)
		p.layOver()
	}
	p.cat.print = digest.Sum64()
	p.roles()
	p.evidence()
	p.words()
	p.links()
	p.unknowns()
	p.sentences()
	p.actions()
	p.scenarios()
	p.incidents()
	p.codes()
	p.used["action/"+ActionCompromised], p.used["action/"+ActionWithheld] = true, true
	if len(p.findings) == 0 {
		p.unused()
	}
	if err := p.report(); err != nil {
		return nil, err
	}
	return p.cat, nil
}

// report returns all findings in one error, in the order of files and lines.
func (p *parser) report() error {
	if len(p.findings) == 0 {
		return nil
	}
	slices.SortStableFunc(p.findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.at.file, b.at.file), cmp.Compare(a.at.line, b.at.line))
	})
	var errs []error
	for _, f := range p.findings {
		errs = append(errs, fmt.Errorf("%s: %s", f.at, f.text))
	}
	return fmt.Errorf("the catalogue is not valid:\n%w", errors.Join(errs...))
}

// finding is one thing that is wrong.
type finding struct {
	at   place
	text string
}

type parser struct {
	// sections hold the entries of each file by name, those of the overlay laid over them.
	sections map[string]*value
	cat      *Catalogue
	findings []finding
	used     map[string]bool // "action/name", "link/name", "role/name"
	overlay  *overlayFile    // nil for none
}

func (p *parser) fail(at place, format string, args ...any) {
	p.findings = append(p.findings, finding{at, fmt.Sprintf(format, args...)})
}

// readList reads a YAML list of entries with a name each.
func (p *parser) readList(file string, data []byte) *value {
	out := &value{at: place{file, 0}, kind: mapping}
	content := p.readYAML(file, data)
	if content == nil {
		return out
	}
	if content.kind != list || len(content.items) == 0 {
		p.fail(out.at, "holds %s: expected a list of entries", kindNames[content.kind])
		return out
	}
	for _, item := range content.items {
		if item.kind != mapping {
			p.fail(item.at, "is %s: expected an entry with a name", kindNames[item.kind])
			continue
		}
		name, at := p.text(item, "entry", "name")
		item.remove("name")
		switch {
		case !p.validName(at, name):
		case out.get(name) != nil:
			p.fail(at, "%s: defined twice", name)
		default:
			out.set(name, item)
		}
	}
	return out
}

// codeColumns is the header of codes.tsv.
var codeColumns = []string{"code", "symbol", "category", "outcome", "password", "counts", "meaning", "remediation", "link"}

// readCodes reads a table whose columns are parted by tabs.
func (p *parser) readCodes(file, data string) *value {
	out := &value{at: place{file, 0}, kind: mapping}
	lines := strings.Split(strings.TrimSuffix(data, "\n"), "\n")
	if lines[0] != strings.Join(codeColumns, "\t") {
		p.fail(place{file, 1}, "expected the columns %s", strings.Join(codeColumns, ", "))
		return out
	}
	for i, line := range lines[1:] {
		at := place{file, i + 2}
		columns := strings.Split(line, "\t")
		if len(columns) != len(codeColumns) {
			p.fail(at, "%d columns, expected %d", len(columns), len(codeColumns))
			continue
		}
		if out.get(columns[0]) != nil {
			p.fail(at, "code %s: defined twice", columns[0])
			continue
		}
		entry := &value{at: at, kind: mapping}
		for c, text := range columns[1:] {
			entry.set(codeColumns[c+1], &value{at: at, kind: scalar, text: text})
		}
		out.set(columns[0], entry)
	}
	return out
}

func (p *parser) validName(at place, name string) bool {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		p.fail(at, "name %q: expected lower case letters, digits and _", name)
		return false
	}
	return true
}

// entries calls f for every entry of a section, after it has checked that the entry has no fields but these.
func (p *parser) entries(section string, fields []string, f func(name string, entry *value)) {
	all := p.sections[section]
	for _, name := range all.keys {
		entry := all.get(name)
		for _, key := range entry.keys {
			if !slices.Contains(fields, key) {
				p.fail(entry.get(key).at, "%s: unknown field %q%s", name, key, choices(key, fields, ""))
			}
		}
		f(name, entry)
	}
}

// text returns a field that is one text, "" where it is absent, and where to look for it.
func (p *parser) text(entry *value, name, field string) (string, place) {
	v := entry.get(field)
	if v == nil {
		return "", entry.at
	}
	switch v.kind {
	case scalar, refused:
	case empty:
		p.fail(v.at, "%s: %s has no value: write one, or \"\" for none", name, field)
	default:
		p.fail(v.at, "%s: %s is %s: expected a text", name, field, kindNames[v.kind])
	}
	return v.text, v.at
}

// need returns a text that must be there.
func (p *parser) need(entry *value, name, field string) (string, place) {
	before := len(p.findings)
	text, at := p.text(entry, name, field)
	if text == "" && len(p.findings) == before && (entry.get(field) == nil || entry.get(field).kind != refused) {
		p.fail(at, "%s: %s is missing", name, field)
	}
	return text, at
}

// oneOf returns a text that must be one of these or absent; "" where it is another.
func (p *parser) oneOf(entry *value, name, field string, allowed ...string) string {
	text, at := p.text(entry, name, field)
	if text != "" && !slices.Contains(allowed, text) {
		p.fail(at, "%s: %s %q: expected %s", name, field, text, orList(allowed))
		return ""
	}
	return text
}

// texts returns the texts of a list.
func (p *parser) texts(v *value, name, field string) []*value {
	if v == nil || v.kind == refused {
		return nil
	}
	if v.kind != list {
		p.fail(v.at, "%s: %s is %s: expected a list such as [a, b]", name, field, kindNames[v.kind])
		return nil
	}
	var out []*value
	for _, item := range v.items {
		switch item.kind {
		case scalar:
			out = append(out, item)
		case refused:
		default:
			p.fail(item.at, "%s: %s holds %s: expected texts", name, field, kindNames[item.kind])
		}
	}
	return out
}

func (p *parser) strings(entry *value, name, field string) (out []string) {
	for _, v := range p.texts(entry.get(field), name, field) {
		out = append(out, v.text)
	}
	return out
}

func (p *parser) numbers(entry *value, name, field string) (out []int32) {
	for _, v := range p.texts(entry.get(field), name, field) {
		n, err := strconv.ParseInt(v.text, 10, 32)
		if err != nil {
			p.fail(v.at, "%s: %s: %q: expected a number", name, field, v.text)
			continue
		}
		out = append(out, int32(n))
	}
	return out
}

func (p *parser) template(entry *value, name, field string, sc scope) *Template {
	text, at := p.need(entry, name, field)
	return p.compile(text, at, name, field, sc)
}

func (p *parser) compile(text string, at place, name, field string, sc scope) *Template {
	t, err := parseTemplate(text, sc, p.cat.Evidence)
	if err != nil {
		p.fail(at, "%s: %s: %v", name, field, err)
		return nil
	}
	return t
}

func (p *parser) roles() {
	p.entries("roles", []string{"title"}, func(name string, y *value) {
		title, _ := p.need(y, name, "title")
		p.cat.roles[name] = &Role{Name: name, Title: title}
	})
}

// url returns an address that must be there.
func (p *parser) url(entry *value, name, field string) string {
	s, at := p.need(entry, name, field)
	if u, err := url.Parse(s); s != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		p.fail(at, "%s: %s %q: expected an https address", name, field, s)
	}
	return s
}

func (p *parser) links() {
	p.entries("links", []string{"title", "url", "when"}, func(name string, y *value) {
		title, _ := p.need(y, name, "title")
		l := &Link{Name: name, Title: title, URL: p.url(y, name, "url")}
		if when, at := p.text(y, name, "when"); when != "" {
			l.When = p.compile("["+when+"+]", at, name, "when", scopeDiagnosis)
		}
		p.cat.links[name] = l
	})
}

func (p *parser) evidence() {
	p.entries("evidence", []string{"kind", "capability", "title", "common"}, func(name string, y *value) {
		if _, clash := fields[name]; clash {
			p.fail(y.at, "%s: is the name of a record field", name)
			return
		}
		title, _ := p.need(y, name, "title")
		p.need(y, name, "kind")
		p.need(y, name, "capability")
		kind := p.oneOf(y, name, "kind", slices.Sorted(maps.Keys(kinds))...)
		capability := p.oneOf(y, name, "capability", slices.Sorted(maps.Keys(capabilities))...)
		k := &EvidenceKey{Name: name, Kind: kinds[kind], Capability: capabilities[capability], Title: title, Index: len(p.cat.keys)}
		p.cat.evidence[name] = k
		p.cat.keys = append(p.cat.keys, k)
		if p.oneOf(y, name, "common", "true", "false") == "true" {
			p.cat.common = append(p.cat.common, k)
		}
	})
}

// words ties each vocabulary to evidence keys and to fields of records and incidents.
func (p *parser) words() {
	p.entries("words", []string{"keys", "quote", "words"}, func(name string, y *value) {
		w := &Words{Name: name, quote: p.oneOf(y, name, "quote", "true", "false") == "true", exact: map[string]string{}}
		switch in := y.get("words"); {
		case in == nil || in.kind == mapping && len(in.keys) == 0:
			if !w.quote {
				p.fail(y.at, "%s: neither words nor quote", name)
			}
		case in.kind == refused:
		case in.kind != mapping:
			p.fail(in.at, "%s: words is %s: expected a mapping such as {Mfa: multifactor authentication}", name, kindNames[in.kind])
		default:
			for _, token := range in.keys {
				for _, other := range w.tokens {
					if strings.EqualFold(other, token) && w.exact[other] != in.get(token).text {
						p.fail(in.get(token).at, "%s: %s and %s differ in case only but not in their words", name, other, token)
					}
				}
				w.exact[token], _ = p.need(in, name, token)
				w.tokens = append(w.tokens, token)
			}
		}
		slices.Sort(w.tokens)
		keys := p.texts(y.get("keys"), name, "keys")
		if len(keys) == 0 {
			p.fail(y.at, "%s: keys are missing", name)
		}
		for _, key := range keys {
			k, f := p.cat.evidence[key.text], fields[key.text].field
			switch {
			case k != nil && p.cat.keyWords[k] != nil, f != FieldNone && p.cat.words[f] != nil:
				p.fail(key.at, "%s: key %s has words already", name, key.text)
			case k != nil && k.Kind != KindText && k.Kind != KindList:
				p.fail(key.at, "%s: key %s is neither a text nor a list", name, key.text)
			case k != nil:
				p.cat.keyWords[k] = w
			case f != FieldNone:
				p.cat.words[f] = w
			default:
				p.fail(key.at, "%s: unknown key %q", name, key.text)
			}
		}
	})
}

func (p *parser) unknowns() {
	p.entries("unknowns", []string{"text"}, func(name string, y *value) {
		text, _ := p.need(y, name, "text")
		p.cat.unknowns[name] = &Unknown{Name: name, Text: text}
	})
}

// sentences must hold exactly the ones that the renderer asks for.
func (p *parser) sentences() {
	p.entries("sentences", []string{"text"}, func(name string, y *value) {
		if !slices.Contains(sentenceNames, name) {
			p.fail(y.at, "%s: nothing uses it", name)
		}
		p.cat.sentences[name] = p.template(y, name, "text", scopeDiagnosis)
	})
	for _, name := range sentenceNames {
		if p.sections["sentences"].get(name) == nil {
			p.fail(p.sections["sentences"].at, "%s: is missing", name)
		}
	}
	for _, name := range WhySentences {
		if t := p.cat.sentences[name]; t != nil {
			tell(t.nodes)
		}
	}
}

// tell marks the evidence whose values nodes print.
func tell(nodes []node) {
	for i := range nodes {
		tell(nodes[i].group)
		if nodes[i].op == opValue && nodes[i].evidence != nil {
			nodes[i].evidence.Told = true
		}
	}
}

// actions are written for diagnoses. An action that an incident uses may therefore hold no key; incidents checks it.
func (p *parser) actions() {
	p.entries("actions", []string{"text", "role"}, func(name string, y *value) {
		roleName, at := p.need(y, name, "role")
		role := p.cat.roles[roleName]
		if role == nil && roleName != "" {
			p.fail(at, "%s: unknown role %q%s", name, roleName, choices(roleName, p.sections["roles"].keys, ""))
		}
		p.used["role/"+roleName] = true
		a := &Action{Name: name, Text: p.template(y, name, "text", scopeDiagnosis), Role: role}
		if name == ActionNothing && a.hasKeys() {
			_, at := p.text(y, name, "text")
			p.fail(at, "action %s stands where no other one applies: write its text without keys", name)
		}
		p.cat.actions[name] = a
	})
}

func (p *parser) actionList(v *value, name string) []*Action {
	out := []*Action{}
	for _, n := range p.texts(v, name, "actions") {
		a := p.cat.actions[n.text]
		if a == nil {
			p.fail(n.at, "%s: unknown action %q%s", name, n.text, choices(n.text, p.sections["actions"].keys, folder+"actions.yaml"))
			continue
		}
		p.used["action/"+n.text] = true
		out = append(out, a)
	}
	return out
}

func (p *parser) linkList(v *value, name string) []*Link {
	out := []*Link{}
	for _, n := range p.texts(v, name, "links") {
		l := p.cat.links[n.text]
		if l == nil {
			p.fail(n.at, "%s: unknown link %q%s", name, n.text, choices(n.text, p.sections["links"].keys, folder+"links.yaml"))
			continue
		}
		p.used["link/"+n.text] = true
		out = append(out, l)
	}
	return out
}

// byOutcome turns a mapping by outcome into Texts and demands a default. one is the mapping that conv takes a value from.
func byOutcome[T any](p *parser, entry *value, name, field string, conv func(one *value, outcome string) T) Texts[T] {
	out := Texts[T]{byOutcome: map[string]T{}}
	in := entry.get(field)
	switch {
	case in == nil:
		p.fail(entry.at, "%s: %s has no default", name, field)
		return out
	case in.kind == refused:
		return out
	case in.kind != mapping:
		p.fail(in.at, "%s: %s is %s: expected a mapping by outcome, such as {default: ...}", name, field, kindNames[in.kind])
		return out
	case in.get("default") == nil:
		p.fail(in.at, "%s: %s has no default", name, field)
	}
	for _, outcome := range slices.Sorted(slices.Values(in.keys)) {
		if !slices.Contains(outcomes, outcome) {
			p.fail(in.get(outcome).at, "%s: %s: outcome %q: expected %s", name, field, outcome, orList(outcomes))
			continue
		}
		v := conv(in, outcome)
		if outcome == "default" {
			out.fallback = v
		} else {
			out.byOutcome[outcome] = v
		}
	}
	return out
}

// severity returns a severity that must be there.
func (p *parser) severity(entry *value, name, field string) string {
	text, at := p.need(entry, name, field)
	if text != "" && !slices.Contains(severities, text) {
		p.fail(at, "%s: %s %q: expected %s", name, field, text, orList(severities))
	}
	return text
}

func (p *parser) scenarios() {
	ranks := map[int]string{}
	fields := []string{"type", "title", "definition", "rank", "severity", "summary", "note", "actions", "links", "evidence", "codes", "also_codes",
		"categories", "examples"}
	p.entries("scenarios", fields, func(name string, y *value) {
		s := &Scenario{
			Name: name, Type: cmp.Or(p.oneOf(y, name, "type", TypeScenario, TypeLabel), TypeScenario),
			Codes: p.numbers(y, name, "codes"), AlsoCodes: p.numbers(y, name, "also_codes"),
			Categories: p.strings(y, name, "categories"), Examples: p.strings(y, name, "examples"),
			Links: p.linkList(y.get("links"), name),
		}
		s.Title, _ = p.need(y, name, "title")
		s.Definition, _ = p.need(y, name, "definition")
		rank, at := p.need(y, name, "rank")
		var err error
		if s.Rank, err = strconv.Atoi(rank); err != nil || s.Rank < 1 {
			p.fail(at, "%s: rank %q: expected 1 or more", name, rank)
		} else if other := ranks[s.Rank]; other != "" {
			p.fail(at, "%s: rank %d is that of %s", name, s.Rank, other)
		}
		ranks[s.Rank] = name
		if len(s.Examples) == 0 {
			p.fail(y.at, "%s: examples are missing", name)
		}
		s.Severity = byOutcome(p, y, name, "severity", func(one *value, outcome string) string { return p.severity(one, name+": severity", outcome) })
		note, at := p.text(y, name, "note")
		if note != "" {
			s.Note = p.compile(note, at, name, "note", scopeDiagnosis)
		}
		if s.Type == TypeLabel {
			if note == "" {
				p.fail(at, "%s: a label needs a note", name)
			}
			for _, field := range []string{"summary", "codes", "categories"} {
				if v := y.get(field); v != nil {
					p.fail(v.at, "%s: a label has no summary, codes or categories", name)
				}
			}
		} else {
			s.Summary = byOutcome(p, y, name, "summary", func(one *value, outcome string) *Template {
				text, at := p.need(one, name+": summary", outcome)
				return p.compile(text, at, name, "summary "+outcome, scopeDiagnosis)
			})
		}
		s.Actions = byOutcome(p, y, name, "actions", func(one *value, outcome string) []*Action { return p.actionList(one.get(outcome), name) })
		for _, e := range p.texts(y.get("evidence"), name, "evidence") {
			if k := p.cat.evidence[e.text]; k != nil {
				s.Evidence = append(s.Evidence, k)
			} else {
				p.fail(e.at, "%s: unknown evidence key %q", name, e.text)
			}
		}
		p.cat.scenarios[name] = s
		p.cat.ranked = append(p.cat.ranked, s)
	})
	slices.SortStableFunc(p.cat.ranked, func(a, b *Scenario) int { return cmp.Compare(a.Rank, b.Rank) })
}

func (p *parser) incidents() {
	p.entries("incidents", []string{"title", "definition", "severity", "summary", "actions", "links"}, func(name string, y *value) {
		i := &Incident{
			Name: name, Severity: p.severity(y, name, "severity"), Summary: p.template(y, name, "summary", scopeIncident),
			Actions: p.actionList(y.get("actions"), name), Links: p.linkList(y.get("links"), name),
		}
		i.Title, _ = p.need(y, name, "title")
		i.Definition, _ = p.need(y, name, "definition")
		for _, n := range p.texts(y.get("links"), name, "links") {
			if l := p.cat.links[n.text]; l != nil && l.When != nil {
				at := n.at
				if _, when := p.text(p.sections["links"].get(n.text), n.text, "when"); p.fromOverlay(when) {
					at = when
				}
				p.fail(at, "%s: link %s is for some diagnoses only, which an incident cannot tell", name, n.text)
			}
		}
		for _, a := range i.Actions {
			if a.hasKeys() {
				_, at := p.text(p.sections["actions"].get(a.Name), a.Name, "text")
				p.fail(at, "action %s holds a key of a diagnosis, which the incident %s has not: write its text without keys", a.Name, name)
			}
		}
		p.cat.incidents[name] = i
		p.cat.kinds = append(p.cat.kinds, i)
	})
}

// ErrorLookupURL is Microsoft's page that explains an error code; the code follows it.
const ErrorLookupURL = "https://login.microsoftonline.com/error?code="

// CodePage returns the address of Microsoft's own page about an error code.
func CodePage(code int32) string { return ErrorLookupURL + strconv.Itoa(int(code)) }

func (p *parser) codes() {
	p.entries("codes", codeColumns[1:], func(number string, y *value) {
		name := "code " + number
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil || n < 0 || strconv.Itoa(int(n)) != number {
			p.fail(y.at, "code %q: expected a number such as 50126", number)
			return
		}
		c := &Code{
			Code: int32(n),
			// The words for what "" says are taken too.
			Outcome:  strings.TrimPrefix(p.oneOf(y, name, "outcome", "failure", OutcomeBenignStep, OutcomeNeedsFollowUp, OutcomeUserMustAct), "failure"),
			Password: strings.TrimPrefix(p.oneOf(y, name, "password", "unknown", PasswordRight, PasswordWeak, PasswordWrong), "unknown"),
			Counts:   strings.TrimPrefix(p.oneOf(y, name, "counts", "no", CountsYes, CountsUnattended), "no"),
		}
		c.Symbol, _ = p.text(y, name, "symbol")
		if c.Counts == CountsYes && c.IsInterrupt() {
			_, at := p.text(y, name, "counts")
			if _, outcome := p.text(y, name, "outcome"); p.fromOverlay(outcome) {
				at = outcome
			}
			p.fail(at, "%s: an interrupt cannot count as a failure: with an outcome other than failure, counts must be no or unattended", name)
		}
		c.Category, _ = p.need(y, name, "category")
		c.Meaning, _ = p.need(y, name, "meaning")
		c.Remediation, _ = p.need(y, name, "remediation")
		if y.get("link") == nil && p.fromOverlay(y.at) {
			c.Link = CodePage(c.Code)
		} else {
			c.Link = p.url(y, name, "link")
		}
		p.cat.codes[c.Code] = c
		p.cat.codeList = append(p.cat.codeList, c)
	})
	slices.SortFunc(p.cat.codeList, func(a, b *Code) int { return cmp.Compare(a.Code, b.Code) })
	p.mapCodes()
}

// mapCodes gives every code its headline: the scenario that names the code, else the one of its category.
func (p *parser) mapCodes() {
	byCategory := map[string]*Scenario{}
	seen := map[string]bool{}
	for _, c := range p.cat.codeList {
		seen[c.Category] = true
	}
	// at is where a field of a scenario stands.
	at := func(s *Scenario, field string) place { return p.sections["scenarios"].get(s.Name).get(field).at }
	for _, s := range p.cat.ranked {
		for _, category := range s.Categories {
			if !seen[category] && p.overlay == nil { // an overlay may give the last code of a category another one
				p.fail(at(s, "categories"), "%s: category %s has no code", s.Name, category)
			}
			if other := byCategory[category]; other != nil {
				p.fail(at(s, "categories"), "%s: category %s is that of %s", s.Name, category, other.Name)
			}
			byCategory[category] = s
		}
		for _, code := range s.Codes {
			c := p.cat.codes[code]
			switch {
			case c == nil:
				p.fail(at(s, "codes"), "%s: unknown code %d", s.Name, code)
			case c.Scenario != nil:
				p.fail(at(s, "codes"), "%s: code %d is that of %s", s.Name, code, c.Scenario.Name)
			default:
				c.Scenario = s
			}
		}
	}
	for _, c := range p.cat.codeList {
		if c.Scenario == nil {
			c.Scenario = byCategory[c.Category]
		}
		if byCategory[c.Category] == nil && c.Category != "" && (c.Scenario == nil || p.overlay != nil) {
			entry := p.sections["codes"].get(strconv.Itoa(int(c.Code)))
			known := slices.Sorted(maps.Keys(byCategory))
			p.fail(entry.get("category").at, "code %d: category %s has no scenario%s", c.Code, c.Category, choices(c.Category, known, ""))
		}
	}
	for _, s := range p.cat.ranked { // in rank order, so that Also is too
		for _, code := range s.AlsoCodes {
			c := p.cat.codes[code]
			switch {
			case c == nil:
				p.fail(at(s, "also_codes"), "%s: unknown code %d", s.Name, code)
			case c.Scenario == s:
				if p.overlay == nil { // an overlay may have given the code a category of this scenario
					p.fail(at(s, "also_codes"), "%s: code %d has this headline already", s.Name, code)
				}
			default:
				c.Also = append(c.Also, s)
			}
		}
	}
}

// unused reports entries that nothing refers to: they are mistakes or leftovers. An overlay may take the last use away from
// what the catalogue holds, but not add what has none.
func (p *parser) unused() {
	check := func(section, what, user string) {
		for _, name := range p.sections[section].keys {
			at := p.sections[section].get(name).at
			if !p.used[what+"/"+name] && (p.overlay == nil || p.fromOverlay(at)) {
				p.fail(at, "%s: no %s uses it", name, user)
			}
		}
	}
	check("actions", "action", "scenario or incident")
	check("links", "link", "scenario or incident")
	check("roles", "role", "action")
}
