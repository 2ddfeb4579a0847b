package catalogue

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/goccy/go-yaml"
)

//go:embed codes.tsv scenarios.yaml incidents.yaml actions.yaml roles.yaml links.yaml evidence.yaml words.yaml unknowns.yaml sentences.yaml
var embedded embed.FS

// Files lists the files that a catalogue consists of, in the order in which they are hashed.
var Files = []string{
	"codes.tsv", "scenarios.yaml", "incidents.yaml", "actions.yaml", "roles.yaml", "links.yaml",
	"evidence.yaml", "words.yaml", "unknowns.yaml", "sentences.yaml",
}

var loadOnce = sync.OnceValues(func() (*Catalogue, error) { return Parse(embedded) })

// Load returns the embedded catalogue. It is parsed and validated once per process; the value is immutable and
// shared by all callers.
func Load() (*Catalogue, error) { return loadOnce() }

type yamlRole struct {
	Name  string `yaml:"name"`
	Title string `yaml:"title"`
}

type yamlLink struct {
	Name  string `yaml:"name"`
	Title string `yaml:"title"`
	URL   string `yaml:"url"`
	When  string `yaml:"when"`
}

type yamlWords struct {
	Name  string            `yaml:"name"`
	Keys  []string          `yaml:"keys"`
	Quote bool              `yaml:"quote"`
	Words map[string]string `yaml:"words"`
}

type yamlEvidence struct {
	Name       string `yaml:"name"`
	Kind       string `yaml:"kind"`
	Capability string `yaml:"capability"`
	Title      string `yaml:"title"`
	Common     bool   `yaml:"common"`
}

type yamlAction struct {
	Name string `yaml:"name"`
	Text string `yaml:"text"`
	Role string `yaml:"role"`
}

type yamlUnknown struct {
	Name string `yaml:"name"`
	Text string `yaml:"text"`
}

type yamlScenario struct {
	Name       string              `yaml:"name"`
	Type       string              `yaml:"type"`
	Title      string              `yaml:"title"`
	Definition string              `yaml:"definition"`
	Rank       int                 `yaml:"rank"`
	Severity   map[string]string   `yaml:"severity"`
	Summary    map[string]string   `yaml:"summary"`
	Note       string              `yaml:"note"`
	Actions    map[string][]string `yaml:"actions"`
	Links      []string            `yaml:"links"`
	Evidence   []string            `yaml:"evidence"`
	Codes      []int32             `yaml:"codes"`
	AlsoCodes  []int32             `yaml:"also_codes"`
	Categories []string            `yaml:"categories"`
	Examples   []string            `yaml:"examples"`
}

type yamlIncident struct {
	Name       string   `yaml:"name"`
	Title      string   `yaml:"title"`
	Definition string   `yaml:"definition"`
	Severity   string   `yaml:"severity"`
	Summary    string   `yaml:"summary"`
	Actions    []string `yaml:"actions"`
	Links      []string `yaml:"links"`
}

var kinds = map[string]Kind{"text": KindText, "int": KindInt, "bool": KindBool, "list": KindList, "time": KindTime}

var capabilities = map[string]Capability{
	"records": CapabilityRecords, "conditional_access": CapabilityConditionalAccess,
	"risk": CapabilityRisk, "raw": CapabilityRaw,
}

var severities = map[string]bool{"info": true, "low": true, "medium": true, "high": true, "critical": true}

// outcomes are the outcomes of a record that texts may tell apart; "default" is the fallback.
var outcomes = map[string]bool{"success": true, "failure": true, "interrupted": true, "resolved": true, "default": true}

// Parse reads and validates a catalogue from the files in fsys (see Files). Everything that is wrong is reported
// in one error, a line per finding with the file and the name that it concerns: unknown references, duplicate names,
// codes or ranks, templates that do not compile, categories and codes without a scenario, unused entries.
func Parse(fsys fs.FS) (*Catalogue, error) {
	p := &parser{
		files: make(map[string][]byte, len(Files)),
		cat: &Catalogue{
			codes: map[int32]*Code{}, scenarios: map[string]*Scenario{}, incidents: map[string]*Incident{},
			evidence: map[string]*EvidenceKey{}, actions: map[string]*Action{}, roles: map[string]*Role{},
			links: map[string]*Link{}, unknowns: map[string]*Unknown{}, sentences: map[string]*Template{},
			words: map[Field]*Words{}, keyWords: map[*EvidenceKey]*Words{},
		},
		used: map[string]bool{},
	}
	digest := xxhash.New()
	for _, name := range Files {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read catalogue file %s: %w", name, err)
		}
		p.files[name] = data
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(data)))
		_, _ = digest.Write(size[:]) // a hash.Hash never fails
		_, _ = digest.Write(data)
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
	if len(p.errs) == 0 {
		p.unused()
	}
	if len(p.errs) > 0 {
		return nil, fmt.Errorf("catalogue: %w", errors.Join(p.errs...))
	}
	return p.cat, nil
}

type parser struct {
	files map[string][]byte
	cat   *Catalogue
	errs  []error
	used  map[string]bool // "action/name", "link/name", "role/name"
}

func (p *parser) fail(file, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(file+": "+format, args...))
}

// decode reads a YAML list strictly: unknown and repeated fields are errors with their line.
func decode[T any](p *parser, file string) []T {
	var list []T
	dec := yaml.NewDecoder(bytes.NewReader(p.files[file]), yaml.Strict())
	if err := dec.Decode(&list); err != nil {
		p.fail(file, "%s", strings.TrimSpace(yaml.FormatError(err, false, false)))
		return nil
	}
	if len(list) == 0 {
		p.fail(file, "is empty")
	}
	return list
}

// name checks an entry's name and that it is new.
func (p *parser) name(file, name string, taken bool) bool {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		p.fail(file, "name %q: expected lower case letters, digits and _", name)
		return false
	}
	if taken {
		p.fail(file, "%s: defined twice", name)
		return false
	}
	return true
}

func (p *parser) need(file, name, what, value string) {
	if strings.TrimSpace(value) == "" {
		p.fail(file, "%s: %s is missing", name, what)
	}
}

func (p *parser) roles() {
	const file = "roles.yaml"
	for _, y := range decode[yamlRole](p, file) {
		if p.name(file, y.Name, p.cat.roles[y.Name] != nil) {
			p.need(file, y.Name, "title", y.Title)
			p.cat.roles[y.Name] = &Role{Name: y.Name, Title: y.Title}
		}
	}
}

func (p *parser) checkURL(file, name, s string) {
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" {
		p.fail(file, "%s: url %q: expected an https address", name, s)
	}
}

func (p *parser) links() {
	const file = "links.yaml"
	for _, y := range decode[yamlLink](p, file) {
		if p.name(file, y.Name, p.cat.links[y.Name] != nil) {
			p.need(file, y.Name, "title", y.Title)
			p.checkURL(file, y.Name, y.URL)
			l := &Link{Name: y.Name, Title: y.Title, URL: y.URL}
			if y.When != "" {
				l.When = p.template(file, y.Name, "when", "["+y.When+"+]", scopeDiagnosis)
			}
			p.cat.links[y.Name] = l
		}
	}
}

func (p *parser) evidence() {
	const file = "evidence.yaml"
	for _, y := range decode[yamlEvidence](p, file) {
		if !p.name(file, y.Name, p.cat.evidence[y.Name] != nil) {
			continue
		}
		if _, clash := fields[y.Name]; clash {
			p.fail(file, "%s: is the name of a record field", y.Name)
			continue
		}
		p.need(file, y.Name, "title", y.Title)
		kind, ok := kinds[y.Kind]
		if !ok {
			p.fail(file, "%s: kind %q: expected text, int, bool, list or time", y.Name, y.Kind)
		}
		capability, ok := capabilities[y.Capability]
		if !ok {
			p.fail(file, "%s: capability %q: expected records, conditional_access, risk or raw", y.Name, y.Capability)
		}
		k := &EvidenceKey{Name: y.Name, Kind: kind, Capability: capability, Title: y.Title, Index: len(p.cat.keys)}
		p.cat.evidence[y.Name] = k
		p.cat.keys = append(p.cat.keys, k)
		if y.Common {
			p.cat.common = append(p.cat.common, k)
		}
	}
}

// words ties each vocabulary to evidence keys and to fields of records and incidents.
func (p *parser) words() {
	const file = "words.yaml"
	names := map[string]bool{}
	for _, y := range decode[yamlWords](p, file) {
		if !p.name(file, y.Name, names[y.Name]) {
			continue
		}
		names[y.Name] = true
		w := &Words{Name: y.Name, quote: y.Quote, exact: y.Words}
		for token, word := range y.Words {
			p.need(file, y.Name, "the word for "+token, word)
			w.tokens = append(w.tokens, token)
		}
		sort.Strings(w.tokens)
		for i := 1; i < len(w.tokens); i++ {
			for _, other := range w.tokens[:i] {
				if strings.EqualFold(other, w.tokens[i]) && y.Words[other] != y.Words[w.tokens[i]] {
					p.fail(file, "%s: %s and %s differ in case only but not in their words", y.Name, other, w.tokens[i])
				}
			}
		}
		if len(y.Words) == 0 && !y.Quote {
			p.fail(file, "%s: neither words nor quote", y.Name)
		}
		if len(y.Keys) == 0 {
			p.fail(file, "%s: keys are missing", y.Name)
		}
		for _, name := range y.Keys {
			k, f := p.cat.evidence[name], fields[name].field
			switch {
			case k != nil && p.cat.keyWords[k] != nil, f != FieldNone && p.cat.words[f] != nil:
				p.fail(file, "%s: key %s has words already", y.Name, name)
			case k != nil && k.Kind != KindText && k.Kind != KindList:
				p.fail(file, "%s: key %s is neither a text nor a list", y.Name, name)
			case k != nil:
				p.cat.keyWords[k] = w
			case f != FieldNone:
				p.cat.words[f] = w
			default:
				p.fail(file, "%s: unknown key %q", y.Name, name)
			}
		}
	}
}

func (p *parser) unknowns() {
	const file = "unknowns.yaml"
	for _, y := range decode[yamlUnknown](p, file) {
		if p.name(file, y.Name, p.cat.unknowns[y.Name] != nil) {
			p.need(file, y.Name, "text", y.Text)
			p.cat.unknowns[y.Name] = &Unknown{Name: y.Name, Text: y.Text}
		}
	}
}

func (p *parser) template(file, name, what, source string, sc scope) *Template {
	t, err := parseTemplate(strings.TrimSpace(source), sc, p.cat.Evidence)
	if err != nil {
		p.fail(file, "%s: %s: %v", name, what, err)
		return nil
	}
	return t
}

// sentences must hold exactly the ones that the renderer asks for.
func (p *parser) sentences() {
	const file = "sentences.yaml"
	for _, y := range decode[yamlUnknown](p, file) {
		if !p.name(file, y.Name, p.cat.sentences[y.Name] != nil) {
			continue
		}
		if !oneOf(y.Name, sentenceNames...) {
			p.fail(file, "%s: nothing uses it", y.Name)
		}
		p.need(file, y.Name, "text", y.Text)
		p.cat.sentences[y.Name] = p.template(file, y.Name, "text", y.Text, scopeDiagnosis)
	}
	for _, name := range sentenceNames {
		if p.cat.sentences[name] == nil {
			p.fail(file, "%s: is missing", name)
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
	const file = "actions.yaml"
	for _, y := range decode[yamlAction](p, file) {
		if !p.name(file, y.Name, p.cat.actions[y.Name] != nil) {
			continue
		}
		p.need(file, y.Name, "text", y.Text)
		role := p.cat.roles[y.Role]
		if role == nil {
			p.fail(file, "%s: unknown role %q", y.Name, y.Role)
		}
		p.used["role/"+y.Role] = true
		p.cat.actions[y.Name] = &Action{Name: y.Name, Text: p.template(file, y.Name, "text", y.Text, scopeDiagnosis), Role: role}
	}
}

func (p *parser) actionList(file, name string, names []string) []*Action {
	out := make([]*Action, 0, len(names))
	for _, n := range names {
		a := p.cat.actions[n]
		if a == nil {
			p.fail(file, "%s: unknown action %q", name, n)
			continue
		}
		p.used["action/"+n] = true
		out = append(out, a)
	}
	return out
}

func (p *parser) linkList(file, name string, names []string) []*Link {
	out := make([]*Link, 0, len(names))
	for _, n := range names {
		l := p.cat.links[n]
		if l == nil {
			p.fail(file, "%s: unknown link %q", name, n)
			continue
		}
		p.used["link/"+n] = true
		out = append(out, l)
	}
	return out
}

// texts turns a map by outcome into Texts and demands a default.
func texts[S, T any](p *parser, file, name, what string, in map[string]S, conv func(outcome string, v S) T) Texts[T] {
	out := Texts[T]{byOutcome: map[string]T{}}
	if _, ok := in["default"]; !ok {
		p.fail(file, "%s: %s has no default", name, what)
	}
	order := make([]string, 0, len(in))
	for outcome := range in {
		order = append(order, outcome)
	}
	sort.Strings(order)
	for _, outcome := range order {
		if !outcomes[outcome] {
			p.fail(file, "%s: %s: outcome %q: expected success, failure, interrupted, resolved or default", name, what, outcome)
			continue
		}
		v := conv(outcome, in[outcome])
		if outcome == "default" {
			out.fallback = v
		} else {
			out.byOutcome[outcome] = v
		}
	}
	return out
}

func (p *parser) scenarios() {
	const file = "scenarios.yaml"
	ranks := map[int]string{}
	for _, y := range decode[yamlScenario](p, file) {
		if !p.name(file, y.Name, p.cat.scenarios[y.Name] != nil) {
			continue
		}
		if y.Type == "" {
			y.Type = TypeScenario
		}
		if y.Type != TypeScenario && y.Type != TypeLabel {
			p.fail(file, "%s: type %q: expected scenario or label", y.Name, y.Type)
		}
		p.need(file, y.Name, "title", y.Title)
		p.need(file, y.Name, "definition", y.Definition)
		if y.Rank < 1 {
			p.fail(file, "%s: rank %d: expected 1 or more", y.Name, y.Rank)
		} else if other := ranks[y.Rank]; other != "" {
			p.fail(file, "%s: rank %d is that of %s", y.Name, y.Rank, other)
		}
		ranks[y.Rank] = y.Name
		if len(y.Examples) == 0 {
			p.fail(file, "%s: examples are missing", y.Name)
		}
		s := &Scenario{
			Name: y.Name, Type: y.Type, Title: y.Title, Definition: y.Definition, Rank: y.Rank,
			Codes: y.Codes, AlsoCodes: y.AlsoCodes, Categories: y.Categories, Examples: y.Examples,
			Links: p.linkList(file, y.Name, y.Links),
		}
		s.Severity = texts(p, file, y.Name, "severity", y.Severity, func(outcome, v string) string {
			if !severities[v] {
				p.fail(file, "%s: severity %q: expected info, low, medium, high or critical", y.Name, v)
			}
			return v
		})
		if y.Note != "" {
			s.Note = p.template(file, y.Name, "note", y.Note, scopeDiagnosis)
		}
		if y.Type == TypeLabel {
			if y.Note == "" {
				p.fail(file, "%s: a label needs a note", y.Name)
			}
			if len(y.Summary)+len(y.Codes)+len(y.Categories) > 0 {
				p.fail(file, "%s: a label has no summary, codes or categories", y.Name)
			}
		} else {
			s.Summary = texts(p, file, y.Name, "summary", y.Summary, func(outcome, v string) *Template {
				return p.template(file, y.Name, "summary "+outcome, v, scopeDiagnosis)
			})
		}
		s.Actions = texts(p, file, y.Name, "actions", y.Actions, func(outcome string, v []string) []*Action {
			return p.actionList(file, y.Name, v)
		})
		for _, e := range y.Evidence {
			if k := p.cat.evidence[e]; k != nil {
				s.Evidence = append(s.Evidence, k)
			} else {
				p.fail(file, "%s: unknown evidence key %q", y.Name, e)
			}
		}
		p.cat.scenarios[y.Name] = s
		p.cat.ranked = append(p.cat.ranked, s)
	}
	sort.SliceStable(p.cat.ranked, func(i, j int) bool { return p.cat.ranked[i].Rank < p.cat.ranked[j].Rank })
}

func (p *parser) incidents() {
	const file = "incidents.yaml"
	for _, y := range decode[yamlIncident](p, file) {
		if !p.name(file, y.Name, p.cat.incidents[y.Name] != nil) {
			continue
		}
		p.need(file, y.Name, "title", y.Title)
		p.need(file, y.Name, "definition", y.Definition)
		if !severities[y.Severity] {
			p.fail(file, "%s: severity %q: expected info, low, medium, high or critical", y.Name, y.Severity)
		}
		i := &Incident{
			Name: y.Name, Title: y.Title, Definition: y.Definition, Severity: y.Severity,
			Summary: p.template(file, y.Name, "summary", y.Summary, scopeIncident),
			Actions: p.actionList(file, y.Name, y.Actions),
			Links:   p.linkList(file, y.Name, y.Links),
		}
		p.need(file, y.Name, "summary", y.Summary)
		for _, l := range i.Links {
			if l.When != nil {
				p.fail(file, "%s: link %s is for some diagnoses only, which an incident cannot tell", y.Name, l.Name)
			}
		}
		for _, a := range i.Actions {
			if a.Text == nil {
				continue
			}
			for _, n := range a.Text.nodes {
				if n.op != opLiteral {
					p.fail(file, "%s: action %s holds a key of a diagnosis, which an incident has not", y.Name, a.Name)
					break
				}
			}
		}
		p.cat.incidents[y.Name] = i
		p.cat.kinds = append(p.cat.kinds, i)
	}
}

// codeColumns is the header of codes.tsv.
var codeColumns = []string{"code", "symbol", "category", "outcome", "password", "counts", "meaning", "remediation", "link"}

func oneOf(v string, allowed ...string) bool {
	for _, a := range allowed {
		if v == a {
			return true
		}
	}
	return v == ""
}

func (p *parser) codes() {
	const file = "codes.tsv"
	lines := strings.Split(strings.TrimSuffix(string(p.files[file]), "\n"), "\n")
	if lines[0] != strings.Join(codeColumns, "\t") {
		p.fail(file, "line 1: expected the columns %s", strings.Join(codeColumns, ", "))
		return
	}
	for i, line := range lines[1:] {
		n := i + 2
		f := strings.Split(line, "\t")
		if len(f) != len(codeColumns) {
			p.fail(file, "line %d: %d columns, expected %d", n, len(f), len(codeColumns))
			continue
		}
		v, err := strconv.ParseInt(f[0], 10, 32)
		if err != nil || v < 0 {
			p.fail(file, "line %d: code %q: expected a number", n, f[0])
			continue
		}
		c := &Code{Code: int32(v), Symbol: f[1], Category: f[2], Outcome: f[3], Password: f[4], Counts: f[5],
			Meaning: f[6], Remediation: f[7], Link: f[8]}
		name := "code " + f[0]
		if p.cat.codes[c.Code] != nil {
			p.fail(file, "%s: defined twice", name)
			continue
		}
		if !oneOf(c.Outcome, OutcomeBenignStep, OutcomeNeedsFollowUp, OutcomeUserMustAct) {
			p.fail(file, "%s: outcome %q is unknown", name, c.Outcome)
		}
		if !oneOf(c.Password, PasswordRight, PasswordWeak, PasswordWrong) {
			p.fail(file, "%s: password %q is unknown", name, c.Password)
		}
		if !oneOf(c.Counts, CountsYes, CountsUnattended) {
			p.fail(file, "%s: counts %q is unknown", name, c.Counts)
		}
		if c.Counts == CountsYes && c.IsInterrupt() {
			p.fail(file, "%s: an interrupt cannot count as a failure", name)
		}
		p.need(file, name, "category", c.Category)
		p.need(file, name, "meaning", c.Meaning)
		p.need(file, name, "remediation", c.Remediation)
		p.checkURL(file, name, c.Link)
		p.cat.codes[c.Code] = c
		p.cat.codeList = append(p.cat.codeList, c)
	}
	sort.Slice(p.cat.codeList, func(i, j int) bool { return p.cat.codeList[i].Code < p.cat.codeList[j].Code })
	p.mapCodes()
}

// mapCodes gives every code its headline: the scenario that names the code, else the one of its category.
func (p *parser) mapCodes() {
	const file = "scenarios.yaml"
	byCategory := map[string]*Scenario{}
	seen := map[string]bool{}
	for _, c := range p.cat.codeList {
		seen[c.Category] = true
	}
	for _, s := range p.cat.ranked {
		for _, category := range s.Categories {
			if !seen[category] {
				p.fail(file, "%s: category %s has no code", s.Name, category)
			}
			if other := byCategory[category]; other != nil {
				p.fail(file, "%s: category %s is that of %s", s.Name, category, other.Name)
			}
			byCategory[category] = s
		}
		for _, code := range s.Codes {
			c := p.cat.codes[code]
			switch {
			case c == nil:
				p.fail(file, "%s: unknown code %d", s.Name, code)
			case c.Scenario != nil:
				p.fail(file, "%s: code %d is that of %s", s.Name, code, c.Scenario.Name)
			default:
				c.Scenario = s
			}
		}
	}
	for _, c := range p.cat.codeList {
		if c.Scenario != nil {
			continue
		}
		if c.Scenario = byCategory[c.Category]; c.Scenario == nil {
			p.fail("codes.tsv", "code %d: category %s has no scenario", c.Code, c.Category)
		}
	}
	for _, s := range p.cat.ranked { // in rank order, so that Also is too
		for _, code := range s.AlsoCodes {
			c := p.cat.codes[code]
			switch {
			case c == nil:
				p.fail(file, "%s: unknown code %d", s.Name, code)
			case c.Scenario == s:
				p.fail(file, "%s: code %d has this headline already", s.Name, code)
			default:
				c.Also = append(c.Also, s)
			}
		}
	}
}

// unused reports entries that nothing refers to: they are mistakes or leftovers.
func (p *parser) unused() {
	for name := range p.cat.actions {
		if !p.used["action/"+name] {
			p.fail("actions.yaml", "%s: no scenario uses it", name)
		}
	}
	for name := range p.cat.links {
		if !p.used["link/"+name] {
			p.fail("links.yaml", "%s: no scenario uses it", name)
		}
	}
	for name := range p.cat.roles {
		if !p.used["role/"+name] {
			p.fail("roles.yaml", "%s: no action uses it", name)
		}
	}
	sort.Slice(p.errs, func(i, j int) bool { return p.errs[i].Error() < p.errs[j].Error() })
}
