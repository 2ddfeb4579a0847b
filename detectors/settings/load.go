// Package settings reads the file in which an operator says what holds for the tenants: thresholds, trusted addresses,
// privileged users and expectations. README.md beside this file describes it.
package settings

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
)

// MaxSize is the largest file in bytes.
const MaxSize = 1 << 20

// privilegedWord stands in users and except_users of an expectation for all privileged users of the tenant.
const privilegedWord = "privileged"

// Load reads the text of a file of settings; name is the file's, for messages. What the file leaves out has its default. The
// error names everything that is wrong, one finding a line: FILE:line:column: what is there, what was expected, what to do.
func Load(name string, data []byte) (*detectors.Settings, error) {
	l := &loader{file: name}
	s := l.load(data)
	if len(l.findings) == 0 {
		return s, nil
	}
	slices.SortStableFunc(l.findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	l.findings = slices.Compact(l.findings) // what a default lacks, every tenant that inherits it lacks
	errs := make([]error, len(l.findings))
	for i, f := range l.findings {
		errs[i] = fmt.Errorf("%s:%d:%d: %s", name, f.line, f.column, f.text)
	}
	return nil, errors.Join(errs...)
}

type finding struct {
	line, column int
	text         string
}

type loader struct {
	file     string
	findings []finding
}

func (l *loader) fail(at *token.Token, format string, args ...any) {
	f := finding{1, 1, fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		f.line, f.column = at.Position.Line, at.Position.Column
	}
	l.findings = append(l.findings, f)
}

// section is what one part of the file says, before it is put together.
type section struct {
	thresholds   detectors.Thresholds
	trusted      []netip.Prefix
	privileged   []string
	expectations []expectation
}

// expectation is one that was read, with the place of the word privileged where it uses it.
type expectation struct {
	detectors.Expectation
	at         *token.Token
	privileged *token.Token
}

func (l *loader) load(data []byte) *detectors.Settings {
	if len(data) > MaxSize {
		l.fail(nil, "the file has %d bytes, expected at most %d; remove what is not needed", len(data), MaxSize)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) {
			l.fail(at.GetToken(), "is no YAML: %s; expected the form that the example shows", strings.Join(strings.Fields(at.GetMessage()), " "))
		} else {
			l.fail(nil, "is no YAML: %s; expected the form that the example shows", strings.Join(strings.Fields(err.Error()), " "))
		}
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			l.fail(doc.Body.GetToken(), "is a second document, expected one; put all settings into it")
			continue
		}
		body = doc.Body
	}
	settings := &detectors.Settings{}
	base := section{thresholds: detectors.DefaultThresholds()}
	root := l.mapping("the file", body, "default", "tenants")
	if e := root.get("default"); e != nil {
		base = l.section("default", e.value, base)
	}
	settings.Default = l.finish(base)
	tenants := root.get("tenants")
	if tenants == nil {
		return settings
	}
	for _, e := range l.mapping("tenants", tenants.value).entries {
		id := strings.ToLower(e.name)
		if !schemas.IsGroupingID(id) {
			l.fail(e.at, "tenants: %s is no tenant id, expected a GUID such as 11111111-aaaa-4bbb-8ccc-000000000001; the portal shows it on the tenant's overview", quote(e.name))
			continue
		}
		if settings.Tenants[id] != nil {
			l.fail(e.at, "tenants: %s is named twice, expected each tenant once; unite the two", e.name)
			continue
		}
		complete := l.finish(l.section("tenants."+e.name, e.value, base))
		if settings.Tenants == nil {
			settings.Tenants = map[string]*detectors.TenantSettings{}
		}
		settings.Tenants[id] = &complete
	}
	return settings
}

// section reads the settings of one tenant, or those of all, on top of what is inherited.
func (l *loader) section(path string, node ast.Node, inherited section) section {
	s := section{
		thresholds: inherited.thresholds, trusted: slices.Clone(inherited.trusted), privileged: slices.Clone(inherited.privileged),
		expectations: slices.Clone(inherited.expectations),
	}
	known := []string{"thresholds", "trusted_addresses", "privileged_users", "expectations"}
	if path != "default" {
		known = append([]string{"name"}, known...)
	}
	m := l.mapping(path, node, known...)
	if e := m.get("name"); e != nil {
		l.text(path+".name", e.value)
	}
	if e := m.get("thresholds"); e != nil {
		l.thresholds(path+".thresholds", e, &s.thresholds, inherited.thresholds)
	}
	if e := m.get("trusted_addresses"); e != nil {
		s.trusted = append(s.trusted, l.prefixes(path+".trusted_addresses", e.value)...)
	}
	if e := m.get("privileged_users"); e != nil {
		s.privileged = append(s.privileged, l.users(path+".privileged_users", e.value, nil)...)
	}
	if e := m.get("expectations"); e != nil {
		for i, node := range l.list(path+".expectations", e.value) {
			if x, ok := l.expectation(fmt.Sprintf("%s.expectations[%d]", path, i), node); ok {
				if slices.ContainsFunc(s.expectations, func(y expectation) bool { return y.Name == x.Name }) {
					l.fail(x.at, "%s: there is an expectation %s already, expected each name once; rename one", path, quote(x.Name))
					continue
				}
				s.expectations = append(s.expectations, x)
			}
		}
	}
	return s
}

// thresholds sets every value that the file names, and checks that they do not contradict each other.
func (l *loader) thresholds(path string, e *entry, t *detectors.Thresholds, inherited detectors.Thresholds) {
	fields := detectors.ThresholdFields()
	var detections []string
	for i := range fields {
		if !slices.Contains(detections, fields[i].Detection) {
			detections = append(detections, fields[i].Detection)
		}
	}
	m := l.mapping(path, e.value, detections...)
	for _, detection := range m.entries {
		var names []string
		for i := range fields {
			if fields[i].Detection == detection.name {
				names = append(names, fields[i].Name)
			}
		}
		path := path + "." + detection.name
		for _, value := range l.mapping(path, detection.value, names...).entries {
			text, ok := l.text(path+"."+value.name, value.value)
			if !ok {
				continue
			}
			i := slices.IndexFunc(fields, func(f detectors.ThresholdField) bool {
				return f.Detection == detection.name && f.Name == value.name
			})
			f := &fields[i]
			if f.Duration {
				text = hours(text)
			}
			if err := f.Set(t, text); err != nil {
				what := "a whole number"
				if f.Duration {
					what = "a duration such as 30m, 24h or 2d"
				}
				given, _ := l.text("", value.value)
				l.fail(value.value.GetToken(), "%s.%s is %s, expected %s from %s to %s; it means: %s", path, value.name, quote(given), what, f.Min, f.Max, f.Doc)
			}
		}
	}
	err := t.Validate()
	if err == nil {
		return
	}
	known := ""
	if err := inherited.Validate(); err != nil {
		known = err.Error()
	}
	for _, text := range strings.Split(err.Error(), "\n") {
		if slices.Contains(strings.Split(known, "\n"), text) {
			continue // said where it stands
		}
		at := e.at
		for _, detection := range m.entries {
			if strings.Contains(text, " "+detection.name+".") {
				at = detection.at
			}
		}
		l.fail(at, "%s: %s, expected the other way round; change one of the two", path, text)
	}
}

// hours spells the days of a duration as hours, which is what time.ParseDuration knows: 2d is 48h, 1d12h is 24h12h.
func hours(text string) string {
	days, rest, ok := strings.Cut(text, "d")
	n, err := strconv.ParseUint(days, 10, 16)
	if !ok || err != nil {
		return text
	}
	return strconv.FormatUint(24*n, 10) + "h" + rest
}

var expectationKeys = []string{"name", "expect", "users", "applications", "resources", "client_apps", "countries", "except_users", "except_addresses", "non_interactive"}

var expects = []string{detectors.ExpectMFA, detectors.ExpectConditionalAccess, detectors.ExpectCompliantDevice, detectors.ExpectBlock}

// Expects returns what an expectation may expect.
func Expects() []string { return slices.Clone(expects) }

func (l *loader) expectation(path string, node ast.Node) (x expectation, ok bool) {
	before := len(l.findings)
	x.at = node.GetToken()
	m := l.mapping(path, node, expectationKeys...)
	narrowed := false
	texts := func(key string, dst *[]string, read func(string, ast.Node) []string) {
		if e := m.get(key); e != nil {
			*dst = read(path+"."+key, e.value)
			narrowed = narrowed || len(*dst) > 0 && !strings.HasPrefix(key, "except_")
		}
	}
	users := func(path string, node ast.Node) []string { return l.users(path, node, &x.privileged) }
	texts("users", &x.Users, users)
	texts("applications", &x.Applications, l.texts)
	texts("resources", &x.Resources, l.texts)
	texts("client_apps", &x.ClientApps, l.texts)
	texts("countries", &x.Countries, l.countries)
	texts("except_users", &x.ExceptUsers, users)
	if e := m.get("except_addresses"); e != nil {
		x.ExceptAddresses = l.prefixes(path+".except_addresses", e.value)
	}
	if e := m.get("non_interactive"); e != nil {
		switch text, _ := l.text(path+".non_interactive", e.value); text {
		case "true":
			x.NonInteractive = true
		case "false", "":
		default:
			l.fail(e.value.GetToken(), "%s.non_interactive is %s, expected true or false; true holds sign-ins without a person too", path, quote(text))
		}
	}
	if e := m.get("name"); e != nil {
		x.at = e.value.GetToken()
		x.Name, _ = l.text(path+".name", e.value)
	} else if m.read {
		l.fail(x.at, "%s has no name, expected name: TEXT; the diagnosis calls it by this name", path)
	}
	if e := m.get("expect"); e != nil {
		if x.Expect, _ = l.text(path+".expect", e.value); x.Expect != "" && !slices.Contains(expects, x.Expect) {
			l.fail(e.value.GetToken(), "%s.expect is %s, expected one of %s; choose one", path, quote(x.Expect), strings.Join(expects, ", "))
		}
		if x.Expect == detectors.ExpectBlock && !narrowed && before == len(l.findings) {
			l.fail(e.value.GetToken(), "%s expects every sign-in to be blocked, expected at least one of users, applications, resources, client_apps, countries; say which ones", path)
		}
	} else if m.read {
		l.fail(x.at, "%s has no expect, expected expect: %s; choose one", path, strings.Join(expects, " or "))
	}
	return x, before == len(l.findings)
}

// finish puts the settings of a tenant together. Lists of which the order means nothing are put in order, so that another
// order is not another epoch.
func (l *loader) finish(s section) detectors.TenantSettings {
	t := detectors.TenantSettings{Thresholds: s.thresholds, TrustedAddresses: s.trusted, PrivilegedUsers: sorted(s.privileged)}
	slices.SortFunc(t.TrustedAddresses, comparePrefixes)
	t.TrustedAddresses = slices.Compact(t.TrustedAddresses)
	for _, x := range s.expectations {
		if x.privileged != nil && len(t.PrivilegedUsers) == 0 {
			l.fail(x.privileged, "expectation %s is about %s, which is empty here, expected privileged_users beside it; list them, or move the expectation to the tenants that do",
				quote(x.Name), privilegedWord)
			continue
		}
		e := x.Expectation
		for _, list := range [...]*[]string{&e.Users, &e.ExceptUsers} {
			if slices.Contains(*list, privilegedWord) {
				*list = append(slices.DeleteFunc(slices.Clone(*list), func(u string) bool { return u == privilegedWord }), t.PrivilegedUsers...)
			}
		}
		for _, list := range [...]*[]string{&e.Users, &e.Applications, &e.Resources, &e.ClientApps, &e.Countries, &e.ExceptUsers} {
			*list = sorted(*list)
		}
		e.ExceptAddresses = slices.Clone(e.ExceptAddresses)
		slices.SortFunc(e.ExceptAddresses, comparePrefixes)
		e.ExceptAddresses = slices.Compact(e.ExceptAddresses)
		t.Expectations = append(t.Expectations, e)
	}
	return t
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// entry is one key of a mapping with its value.
type entry struct {
	name  string
	at    *token.Token
	value ast.Node
}

type mapping struct {
	entries []entry
	read    bool // false where the node was no mapping, which has been said
}

func (m mapping) get(name string) *entry {
	for i := range m.entries {
		if m.entries[i].name == name {
			return &m.entries[i]
		}
	}
	return nil
}

// mapping returns the entries of a node; known are the keys that it may have, none meaning any. Keys without a value are
// left out.
func (l *loader) mapping(path string, node ast.Node, known ...string) (m mapping) {
	var values []*ast.MappingValueNode
	switch n := node.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return mapping{read: node == nil}
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		l.fail(node.GetToken(), "%s is %s, expected %s; write key: value lines below it", path, kind(node), keys(known))
		return m
	}
	m.read = true
	seen := map[string]bool{}
	for _, v := range values {
		at := v.Key.GetToken()
		key, scalar := v.Key.(ast.ScalarNode)
		name := ""
		if scalar {
			name, scalar = scalarText(key)
		}
		switch {
		case !scalar:
			l.fail(at, "%s: a key is %s, expected %s; write it out", path, kind(v.Key), keys(known))
		case seen[name]:
			l.fail(at, "%s: %s is given twice, expected it once; unite the two", path, quote(name))
		case len(known) > 0 && !slices.Contains(known, name):
			l.fail(at, "%s: unknown key %s, expected %s; correct or remove it", path, quote(name), keys(known))
		default:
			if _, empty := v.Value.(*ast.NullNode); !empty && v.Value != nil {
				m.entries = append(m.entries, entry{name, at, v.Value})
			}
		}
		seen[name] = true
	}
	return m
}

func keys(known []string) string {
	switch len(known) {
	case 0:
		return "key: value pairs"
	case 1:
		return known[0]
	}
	return "one of " + strings.Join(known, ", ")
}

// kind says what a node is, in words.
func kind(node ast.Node) string {
	switch n := node.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode, *ast.DirectiveNode, *ast.MappingKeyNode:
		return "an anchor, alias, tag, directive, merge or complex key, which is not read"
	case ast.ScalarNode:
		if text, ok := scalarText(n); ok {
			return quote(text)
		}
	}
	return "something else"
}

// scalarText returns the text of a value as the file spells it, so that 0x10 and 1_0 are not numbers by surprise.
func scalarText(node ast.ScalarNode) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// text returns the one text of a node; what it finds wrong it says.
func (l *loader) text(path string, node ast.Node) (string, bool) {
	if n, ok := node.(ast.ScalarNode); ok {
		if text, ok := scalarText(n); ok && text != "" && text == strings.TrimSpace(text) && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return text, true
		}
	}
	l.fail(node.GetToken(), "%s is %s, expected one value on one line; write it out", path, kind(node))
	return "", false
}

func (l *loader) list(path string, node ast.Node) []ast.Node {
	n, ok := node.(*ast.SequenceNode)
	if !ok {
		l.fail(node.GetToken(), "%s is %s, expected a list; write it as [a, b] or as lines that begin with -", path, kind(node))
		return nil
	}
	return n.Values
}

func (l *loader) each(path string, node ast.Node, do func(at *token.Token, text string)) {
	for i, item := range l.list(path, node) {
		if text, ok := l.text(fmt.Sprintf("%s[%d]", path, i), item); ok {
			do(item.GetToken(), text)
		}
	}
}

func (l *loader) texts(path string, node ast.Node) (list []string) {
	l.each(path, node, func(_ *token.Token, text string) { list = append(list, text) })
	return list
}

func (l *loader) countries(path string, node ast.Node) (list []string) {
	l.each(path, node, func(at *token.Token, text string) {
		if len(text) != 2 || strings.Trim(strings.ToUpper(text), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			l.fail(at, "%s: %s is no country, expected two letters as Entra writes them, such as DE; quote \"NO\"", path, quote(text))
			return
		}
		list = append(list, strings.ToUpper(text))
	})
	return list
}

// users reads names of users in lower case. The word privileged is one where privileged is given, which then gets its place.
func (l *loader) users(path string, node ast.Node, privileged **token.Token) (list []string) {
	l.each(path, node, func(at *token.Token, text string) {
		text = strings.ToLower(text)
		switch {
		case privileged != nil && text == privilegedWord:
			*privileged = at
		case strings.Count(text, "@") != 1 && !schemas.IsGroupingID(text):
			more := ""
			if privileged != nil {
				more = ", or the word " + privilegedWord
			}
			l.fail(at, "%s: %s is no user, expected a userPrincipalName or an object id%s; the sign-in log shows both", path, quote(text), more)
			return
		}
		list = append(list, text)
	})
	return list
}

func (l *loader) prefixes(path string, node ast.Node) (list []netip.Prefix) {
	l.each(path, node, func(at *token.Token, text string) {
		p, err := ParsePrefix(text)
		if err != nil {
			l.fail(at, "%s: %v", path, err)
			return
		}
		list = append(list, p)
	})
	return list
}

// ParsePrefix reads an address or a network. The error says what was expected and what to do.
func ParsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, fmt.Errorf("%s is no address and no network, expected 198.51.100.7, 203.0.113.0/24 or 2001:db8::/32; correct it", quote(text))
	case p.Bits() == 0:
		return p, fmt.Errorf("%s is every address, expected a network; name those that are meant", quote(text))
	case p.Masked() != p:
		return p, fmt.Errorf("%s has bits beyond its length, expected a network such as %s; write that, or the address alone", quote(text), p.Masked())
	}
	return p, nil
}

func quote(text string) string {
	const most = 80 // a slip of indentation can make one value of half the file
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return strconv.Quote(text)
}
