package catalogue

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	yamlparser "github.com/goccy/go-yaml/parser"
)

// place is where something stands: a file and a line in it, counted from 1; 0 means the file as a whole.
type place struct {
	file string
	line int
}

// String returns FILE:line, which editors and terminals open.
func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// valueKind is the form of a value in a file.
type valueKind uint8

const (
	empty   valueKind = iota // nothing stands there, or null
	scalar                   // a text or a number, as written
	list                     // items
	mapping                  // keys with a value each
	refused                  // a form that is not taken; it has been reported
)

var kindNames = [...]string{empty: "nothing", scalar: "a text", list: "a list", mapping: "a mapping", refused: "something else"}

// value is what stands in a file, with its place. All numbers are kept as they are written.
type value struct {
	at     place
	kind   valueKind
	text   string
	items  []*value
	keys   []string // of a mapping, in order
	fields map[string]*value
}

// get returns the value of a key, nil where v is no mapping or has not the key.
func (v *value) get(key string) *value { return v.fields[key] }

func (v *value) set(key string, field *value) {
	if v.fields == nil {
		v.fields = map[string]*value{}
	}
	if v.fields[key] == nil {
		v.keys = append(v.keys, key)
	}
	v.fields[key] = field
}

func (v *value) remove(key string) {
	delete(v.fields, key)
	v.keys = slices.DeleteFunc(v.keys, func(k string) bool { return k == key })
}

// merge lays over upon base: keys of mappings one by one, everything else as a whole. base is changed.
func merge(base, over *value) *value {
	if base == nil || base.kind != mapping || over.kind != mapping {
		return over
	}
	for _, key := range over.keys {
		base.set(key, merge(base.get(key), over.get(key)))
	}
	return base
}

// maxNesting bounds mappings and lists inside each other; the files of a catalogue need 5.
const maxNesting = 8

// Bounds of what is given to the YAML library, which takes memory with the square of the nesting: 200 000 open brackets took
// more than 20 GB. The largest embedded file has 80 KB.
const (
	maxYAMLBytes    = 1 << 20
	maxOpenBrackets = 500
)

// readYAML reads one document. It returns nil for a file that cannot be read and an empty value for one without content.
func (p *parser) readYAML(file string, data []byte) *value {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0 {
			p.fail(place{file, i + 1}, "is no text in UTF-8: save the file with this encoding")
			return nil
		}
	}
	if len(data) > maxYAMLBytes {
		p.fail(place{file, 0}, "holds %d bytes: expected at most %d", len(data), maxYAMLBytes)
		return nil
	}
	open, line := 0, 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		}
		if open > maxOpenBrackets {
			p.fail(place{file, line}, "more than %d brackets are open: close them", maxOpenBrackets)
			return nil
		}
	}
	tree, err := parseYAML(data)
	if err != nil {
		at, message := place{file, 0}, err.Error()
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			message = syntax.GetMessage()
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				at.line = t.Position.Line
			}
		}
		p.fail(at, "is not YAML that can be read: %s: check indentation, quotes and brackets", message)
		return nil
	}
	out := &value{at: place{file, 1}}
	found := false
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if found {
			p.fail(p.placeOf(file, doc.Body, out.at), "a second document begins: expected one, without ---")
			return nil
		}
		found = true
		out = p.convert(file, doc.Body, out.at, 0)
	}
	return out
}

// parseYAML turns a panic of the library, which some malformed input causes, into an error.
func parseYAML(data []byte) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			tree, err = nil, fmt.Errorf("the YAML library gave up (%v)", r)
		}
	}()
	return yamlparser.ParseBytes(data, 0)
}

func (p *parser) placeOf(file string, node ast.Node, otherwise place) place {
	if t := node.GetToken(); t != nil && t.Position != nil {
		return place{file, t.Position.Line}
	}
	return otherwise
}

// convert makes a value of a node. A value of a mapping has the place of its key, so that at is where a person looks.
func (p *parser) convert(file string, node ast.Node, at place, depth int) *value {
	v := &value{at: at}
	if depth > maxNesting {
		p.fail(at, "nests deeper than %d", maxNesting)
		v.kind = refused
		return v
	}
	switch n := node.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
	case *ast.StringNode:
		p.setText(v, n.Value)
	case *ast.LiteralNode:
		p.setText(v, n.Value.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		p.setText(v, n.GetToken().Value)
	case *ast.SequenceNode:
		v.kind = list
		for _, item := range n.Values {
			v.items = append(v.items, p.convert(file, item, p.placeOf(file, item, at), depth+1))
		}
	case *ast.MappingNode:
		v.kind = mapping
		for _, pair := range n.Values {
			p.convertPair(file, v, pair, depth)
		}
	case *ast.MappingValueNode:
		v.kind = mapping
		p.convertPair(file, v, n, depth)
	default:
		p.fail(at, "%s is not supported: write the value itself, in quotes where it is a text", strings.ToLower(node.Type().String()))
		v.kind = refused
	}
	return v
}

func (p *parser) convertPair(file string, v *value, pair *ast.MappingValueNode, depth int) {
	at := p.placeOf(file, pair.Key, v.at)
	key := &value{at: at}
	switch n := pair.Key.(type) {
	case *ast.StringNode:
		p.setText(key, n.Value)
	case *ast.IntegerNode:
		p.setText(key, n.GetToken().Value)
	default:
		p.fail(at, "key %s: expected a plain name", pair.Key)
		return
	}
	if v.get(key.text) != nil {
		p.fail(at, "%s: stands there twice", key.text)
		return
	}
	v.set(key.text, p.convert(file, pair.Value, at, depth+1))
}

// setText takes a scalar. Sentences stand on one line wherever they are shown.
func (p *parser) setText(v *value, text string) {
	v.kind, v.text = scalar, strings.TrimSpace(text)
	if i := strings.IndexFunc(v.text, unicode.IsControl); i >= 0 {
		p.fail(v.at, "a text holds a line break or another control character: write it on one line, or folded behind >-")
	}
}

// fewNames is how many names an error lists.
const fewNames = 40

// choices says what was expected instead of name: the name that it resembles, or all names where they are few, or where they stand.
func choices(name string, known []string, where string) string {
	best, least := "", 1+max(1, len(name)/3)
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(": did you mean %s?", best)
	case len(known) <= fewNames:
		return ": expected " + orList(known)
	}
	return ": expected one of the names in " + where
}

// orList joins names as people write a choice.
func orList(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// distance is the number of bytes to insert, delete or replace to make b of a (Levenshtein). Names longer than 64 bytes are
// as far from everything as they are long.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}
