package catalogue

import (
	"fmt"
	"strings"
)

// Template is a compiled sentence. The language:
//
//	{key}          the value of a record field or an evidence key; lists read "a, b and 3 more"
//	{key|text}     the value, or text where the value is missing or hidden from the viewer
//	{?key}         a test, prints nothing: the value is there (and true, for a boolean)
//	{?key=a,b}     a test: the value is exactly a or b, as the log has it and not as words.yaml says it; a list
//	               holds a or b
//	{!key}         a test: the value is missing or false. A hidden value fails it: what a viewer may not
//	               see is not absent
//	{!key=a,b}     a test: the value is neither; a hidden value fails it
//	[ ... ]        an optional group: left out as a whole when a value inside is missing or hidden, or a
//	               test inside fails. Groups nest; an inner group does not fail its outer one
//	{{ }} [[ ]]    the characters { } [ ] themselves ("]]" only outside groups, where it cannot end two)
//
// A key outside a group needs a {key|text} default unless the field is always there or has a default of
// its own ({who}, {app} ...). All keys are resolved when the catalogue is loaded.
type Template struct {
	source string
	nodes  []node
}

// Field is a value that a template takes from the record itself rather than from the evidence.
type Field uint8

// Fields of a diagnosis and of an incident.
const (
	FieldNone Field = iota
	// Diagnosis.
	FieldWho // the user, else the service principal, else the id
	FieldUser
	FieldUserID
	FieldApp
	FieldResource
	FieldTarget     // what was signed in to: the application, for workloads the resource
	FieldDependency // the resource, where a person's application leans on another one
	FieldClientApp
	FieldAddress
	FieldCode
	FieldCodeMeaning
	FieldCodeRemediation
	FieldTime
	FieldTenant
	FieldCategory
	FieldOutcome
	FieldAttemptOutcome
	FieldScenario // the headline
	FieldAlso     // the scenarios and labels beside the headline
	FieldRequestID
	FieldCorrelationID
	// Incident.
	FieldEntity
	FieldEntityKind
	FieldUsers
	FieldAddresses
	FieldApplications
	FieldDevices
	FieldOperatingSystems
	FieldClientApps
	FieldFirstSeen
	FieldLastSeen
	FieldRecords
)

type fieldInfo struct {
	field Field
	// fallback is the text for a missing value outside a group; always marks fields that are never missing.
	fallback string
	always   bool
	// everywhere: the fallback holds inside groups too, so the field never fails a group.
	everywhere bool
	list       bool
	incident   bool // of an incident; FieldTenant and FieldOutcome belong to both
	both       bool
}

var fields = map[string]fieldInfo{
	"who":               {field: FieldWho, fallback: "someone whom the record does not name", everywhere: true},
	"user":              {field: FieldUser, fallback: "a user whom the record does not name"},
	"user_id":           {field: FieldUserID},
	"target":            {field: FieldTarget, fallback: "an application that the record does not name", everywhere: true},
	"app":               {field: FieldApp, fallback: "an application that the record does not name"},
	"resource":          {field: FieldResource},
	"dependency":        {field: FieldDependency},
	"client_app":        {field: FieldClientApp},
	"address":           {field: FieldAddress, fallback: "an address that the record does not name"},
	"code":              {field: FieldCode, always: true},
	"code_meaning":      {field: FieldCodeMeaning},
	"code_remediation":  {field: FieldCodeRemediation},
	"time":              {field: FieldTime, always: true},
	"tenant":            {field: FieldTenant, both: true},
	"category":          {field: FieldCategory},
	"outcome":           {field: FieldOutcome, always: true, both: true},
	"attempt_outcome":   {field: FieldAttemptOutcome},
	"scenario":          {field: FieldScenario, always: true},
	"also":              {field: FieldAlso, list: true},
	"request_id":        {field: FieldRequestID, always: true},
	"correlation_id":    {field: FieldCorrelationID},
	"entity":            {field: FieldEntity, always: true, incident: true},
	"entity_kind":       {field: FieldEntityKind, always: true, incident: true},
	"users":             {field: FieldUsers, list: true, incident: true},
	"addresses":         {field: FieldAddresses, list: true, incident: true},
	"applications":      {field: FieldApplications, list: true, incident: true},
	"devices":           {field: FieldDevices, list: true, incident: true},
	"operating_systems": {field: FieldOperatingSystems, list: true, incident: true},
	"client_apps":       {field: FieldClientApps, list: true, incident: true},
	"first_seen":        {field: FieldFirstSeen, always: true, incident: true},
	"last_seen":         {field: FieldLastSeen, always: true, incident: true},
	"records":           {field: FieldRecords, always: true, incident: true},
}

// State says what became of a value that a template asked for.
type State uint8

// States of a value.
const (
	Missing State = iota // nothing is known
	Hidden               // known, but the viewer lacks the right to see it
	False                // known and false (booleans)
	Present              // known; the value was appended
)

// Values gives a template its values. Each method appends the value's text to dst when it returns Present
// or False, and returns dst unchanged otherwise.
type Values interface {
	AppendField(dst []byte, f Field) ([]byte, State)
	AppendEvidence(dst []byte, key *EvidenceKey) ([]byte, State)
	// Holds reports whether a list or an evidence text that is Present holds text as the log has it: that of the
	// field, or where f is FieldNone that of the key.
	Holds(f Field, key *EvidenceKey, text string) bool
	// AppendCount appends a named count of an incident.
	AppendCount(dst []byte, name string) ([]byte, State)
}

type op uint8

const (
	opLiteral op = iota
	opValue
	opTest
	opTestNot
	opGroup
)

type node struct {
	op       op
	literal  string   // opLiteral; the default of opValue
	any      []string // a test compares with these; empty for a test of presence
	list     bool     // a test asks Holds: the value is a list, or a text that words may stand for
	field    Field
	evidence *EvidenceKey
	count    string
	group    []node
}

// scope says which keys a template may use.
type scope uint8

const (
	scopeDiagnosis scope = iota
	scopeIncident
)

// maxTemplateDepth bounds nested groups, so that compiling is never deep recursion.
const maxTemplateDepth = 4

// ParseTemplate compiles a template for diagnoses. Unknown keys, unbalanced brackets and values that could
// be missing outside a group are errors. keys resolves evidence keys and returns nil for an unknown one.
func ParseTemplate(source string, keys func(name string) *EvidenceKey) (*Template, error) {
	return parseTemplate(source, scopeDiagnosis, keys)
}

func parseTemplate(source string, sc scope, keys func(name string) *EvidenceKey) (*Template, error) {
	p := templateParser{src: source, scope: sc, keys: keys}
	nodes, err := p.nodes(0)
	if err != nil {
		return nil, fmt.Errorf("template %q, character %d: %w", source, p.pos+1, err)
	}
	return &Template{source: source, nodes: nodes}, nil
}

type templateParser struct {
	src   string
	pos   int
	scope scope
	keys  func(name string) *EvidenceKey
}

func (p *templateParser) nodes(depth int) ([]node, error) {
	var out []node
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			out = append(out, node{op: opLiteral, literal: lit.String()})
			lit.Reset()
		}
	}
	for p.pos < len(p.src) {
		c := p.src[p.pos]
		switch c {
		case '{', '}', '[', ']':
			// Inside a group "]]" ends two groups.
			if p.pos+1 < len(p.src) && p.src[p.pos+1] == c && (c != ']' || depth == 0) {
				lit.WriteByte(c)
				p.pos += 2
				continue
			}
		default:
			lit.WriteByte(c)
			p.pos++
			continue
		}
		switch c {
		case '{':
			flush()
			n, err := p.key(depth)
			if err != nil {
				return nil, err
			}
			out = append(out, n)
		case '[':
			if depth == maxTemplateDepth {
				return nil, fmt.Errorf("groups nest deeper than %d", maxTemplateDepth)
			}
			flush()
			p.pos++
			group, err := p.nodes(depth + 1)
			if err != nil {
				return nil, err
			}
			if p.pos >= len(p.src) || p.src[p.pos] != ']' {
				return nil, fmt.Errorf("group is not closed by ]")
			}
			p.pos++
			if !hasKey(group) {
				return nil, fmt.Errorf("group has no key, so it would never be left out")
			}
			out = append(out, node{op: opGroup, group: group})
		case ']':
			if depth == 0 {
				return nil, fmt.Errorf("] without [")
			}
			flush()
			return out, nil
		case '}':
			return nil, fmt.Errorf("} without {")
		}
	}
	flush()
	return out, nil
}

func hasKey(nodes []node) bool {
	for i := range nodes {
		if nodes[i].op == opValue && nodes[i].literal == "" || nodes[i].op == opTest || nodes[i].op == opTestNot {
			return true
		}
	}
	return false
}

func (p *templateParser) key(depth int) (node, error) {
	end := strings.IndexByte(p.src[p.pos:], '}')
	if end < 0 {
		return node{}, fmt.Errorf("key is not closed by }")
	}
	body := p.src[p.pos+1 : p.pos+end]
	n := node{op: opValue}
	switch {
	case strings.HasPrefix(body, "?"):
		n.op, body = opTest, body[1:]
	case strings.HasPrefix(body, "!"):
		n.op, body = opTestNot, body[1:]
	}
	name := body
	if n.op == opValue {
		var ok bool
		if name, n.literal, ok = strings.Cut(body, "|"); ok && n.literal == "" {
			return node{}, fmt.Errorf("key {%s} has an empty default; use a group", body)
		}
	} else {
		var alternatives string
		var compare bool
		if name, alternatives, compare = strings.Cut(body, "="); compare {
			n.any = strings.Split(alternatives, ",")
			for _, a := range n.any {
				if a == "" {
					return node{}, fmt.Errorf("test {%s} compares with nothing", body)
				}
			}
		}
		if depth == 0 {
			return node{}, fmt.Errorf("test {%s} stands outside a group", body)
		}
	}
	if f, ok := fields[name]; ok && (f.both || f.incident == (p.scope == scopeIncident)) {
		n.field, n.list = f.field, f.list
		if n.op == opValue && n.literal == "" && (depth == 0 || f.everywhere) {
			if !f.always && f.fallback == "" {
				return node{}, fmt.Errorf("key {%s} may be missing: give it a default or a group", name)
			}
			n.literal = f.fallback
		}
	} else if p.scope == scopeIncident {
		counter, ok := strings.CutPrefix(name, "counts.")
		if !ok || counter == "" {
			return node{}, fmt.Errorf("unknown key {%s}", name)
		}
		if n.op == opValue && n.literal == "" && depth == 0 {
			return node{}, fmt.Errorf("key {%s} may be missing: give it a default or a group", name)
		}
		n.count = counter
	} else {
		if n.evidence = p.keys(name); n.evidence == nil {
			return node{}, fmt.Errorf("unknown key {%s}", name)
		}
		n.list = n.evidence.Kind == KindList || n.evidence.Kind == KindText
		if n.op == opValue {
			if n.evidence.Kind == KindBool {
				return node{}, fmt.Errorf("key {%s} is a boolean: test it with {?%s} or {!%s}", name, name, name)
			}
			if n.literal == "" && depth == 0 {
				return node{}, fmt.Errorf("key {%s} may be missing: give it a default or a group", name)
			}
		}
	}
	p.pos += end + 1
	return n, nil
}

// String returns the source of the template.
func (t *Template) String() string { return t.source }

// Render appends the sentence to dst. hidden holds the rights for want of which something was left out or
// replaced by its default. It allocates nothing beyond the growth of dst.
func Render[V Values](t *Template, dst []byte, v V) (out []byte, hidden Capability) {
	start := len(dst)
	dst, _, hidden = render(t.nodes, dst, start, v)
	return dst, hidden
}

// render appends nodes. ok is false when a value was missing or a test failed.
func render[V Values](nodes []node, dst []byte, start int, v V) (out []byte, ok bool, hidden Capability) {
	for i := range nodes {
		n := &nodes[i]
		switch n.op {
		case opLiteral:
			dst = append(dst, n.literal...)
		case opGroup:
			mark := len(dst)
			var complete bool
			var hid Capability
			dst, complete, hid = render(n.group, dst, start, v)
			if !complete {
				dst = dst[:mark]
			}
			hidden |= hid
		default:
			mark := len(dst)
			var state State
			switch {
			case n.field != FieldNone:
				dst, state = v.AppendField(dst, n.field)
			case n.evidence != nil:
				dst, state = v.AppendEvidence(dst, n.evidence)
			default:
				dst, state = v.AppendCount(dst, n.count)
			}
			if n.op == opValue {
				if state == Present || state == False {
					continue
				}
				if state == Hidden {
					hidden |= n.evidence.Capability
				}
				if n.literal == "" {
					return dst, false, hidden
				}
				atStart := mark == start || mark >= 2 && dst[mark-2] == '.' && dst[mark-1] == ' '
				dst = append(dst, n.literal...)
				if atStart && dst[mark] >= 'a' && dst[mark] <= 'z' {
					dst[mark] -= 'a' - 'A'
				}
				continue
			}
			holds := state == Present
			if n.any != nil {
				holds = false
				for _, text := range n.any {
					if n.list {
						holds = holds || state == Present && v.Holds(n.field, n.evidence, text)
					} else {
						holds = holds || (state == Present || state == False) && string(dst[mark:]) == text
					}
				}
			}
			dst = dst[:mark]
			if state == Hidden {
				return dst, false, hidden | n.evidence.Capability
			}
			if holds != (n.op == opTest) {
				return dst, false, hidden
			}
		}
	}
	return dst, true, hidden
}

// AppendList appends a list as people write it, without a vocabulary; see Words.AppendList.
func AppendList(dst []byte, list []string) []byte { return (*Words)(nil).AppendList(dst, list) }
