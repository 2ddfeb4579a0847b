package detectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Evidence is an ordered list of typed facts under the catalogue's keys. The zero value is empty.
// A key occurs at most once; setting it again replaces it. An Evidence that is reset keeps its memory, the
// lists of its facts included, so a shallow copy must not outlive a reset of the original: use Clone.
type Evidence struct {
	items []Fact
}

// Fact is one piece of evidence. Exactly one of the value fields is meaningful, told by the kind that
// the catalogue gives the key. A time is held in Int as microseconds since the Unix epoch.
type Fact struct {
	Key  *catalogue.EvidenceKey
	Text string
	Int  int64
	Bool bool
	List []string
}

// Reset empties the evidence and keeps its memory.
func (e *Evidence) Reset() { e.items = e.items[:0] }

// Len returns the number of facts.
func (e *Evidence) Len() int { return len(e.items) }

// Facts returns the facts in the order of their setting. The slice belongs to the evidence.
func (e *Evidence) Facts() []Fact { return e.items }

// fact returns the fact of a key, emptied, adding it at the end where it is new.
func (e *Evidence) fact(key *catalogue.EvidenceKey, kind catalogue.Kind) *Fact {
	if key.Kind != kind {
		panic("evidence key " + key.Name + " is set with another kind than the catalogue gives it")
	}
	for i := range e.items {
		if e.items[i].Key == key {
			f := &e.items[i]
			*f = Fact{Key: key, List: f.List[:0]}
			return f
		}
	}
	if n := len(e.items); n < cap(e.items) {
		e.items = e.items[:n+1]
	} else {
		e.items = append(e.items, Fact{})
	}
	f := &e.items[len(e.items)-1]
	*f = Fact{Key: key, List: f.List[:0]}
	return f
}

// SetText sets a text. An empty text is no evidence and sets nothing.
func (e *Evidence) SetText(key *catalogue.EvidenceKey, v string) {
	if v != "" {
		e.fact(key, catalogue.KindText).Text = v
	}
}

// SetInt sets an integer.
func (e *Evidence) SetInt(key *catalogue.EvidenceKey, v int64) {
	e.fact(key, catalogue.KindInt).Int = v
}

// SetBool sets a boolean.
func (e *Evidence) SetBool(key *catalogue.EvidenceKey, v bool) {
	e.fact(key, catalogue.KindBool).Bool = v
}

// SetTime sets a time in microseconds since the Unix epoch.
func (e *Evidence) SetTime(key *catalogue.EvidenceKey, micros int64) {
	e.fact(key, catalogue.KindTime).Int = micros
}

// SetList sets a list to the values of v, which are kept as they are while the slice is copied. An empty list is
// no evidence and sets nothing.
func (e *Evidence) SetList(key *catalogue.EvidenceKey, v []string) {
	if len(v) > 0 {
		f := e.fact(key, catalogue.KindList)
		f.List = append(f.List, v...)
	}
}

// Add appends v to the list of a key, starting the list where the key is new. An empty v and one that the list
// already holds are left out.
func (e *Evidence) Add(key *catalogue.EvidenceKey, v string) {
	if v == "" {
		return
	}
	for i := range e.items {
		if e.items[i].Key == key {
			for _, have := range e.items[i].List {
				if have == v {
					return
				}
			}
			e.items[i].List = append(e.items[i].List, v)
			return
		}
	}
	f := e.fact(key, catalogue.KindList)
	f.List = append(f.List, v)
}

// Get returns the fact of the key with the given name, or nil. The fact belongs to the evidence.
func (e *Evidence) Get(name string) *Fact {
	for i := range e.items {
		if e.items[i].Key.Name == name {
			return &e.items[i]
		}
	}
	return nil
}

// find is Get by key.
func (e *Evidence) find(key *catalogue.EvidenceKey) *Fact {
	for i := range e.items {
		if e.items[i].Key == key {
			return &e.items[i]
		}
	}
	return nil
}

// Visible returns the evidence that a viewer with the given capabilities may see, and whether anything was left
// out. Where nothing was, the result shares the memory of e.
func (e *Evidence) Visible(capabilities catalogue.Capability) (visible Evidence, hidden bool) {
	for i := range e.items {
		if !capabilities.Has(e.items[i].Key.Capability) {
			hidden = true
		}
	}
	if !hidden {
		return *e, false
	}
	for i := range e.items {
		if capabilities.Has(e.items[i].Key.Capability) {
			visible.items = append(visible.items, e.items[i])
		}
	}
	return visible, true
}

// Clone returns a deep copy that shares no memory with e.
func (e *Evidence) Clone() Evidence {
	if len(e.items) == 0 {
		return Evidence{}
	}
	c := Evidence{items: make([]Fact, len(e.items))}
	for i := range e.items {
		f := e.items[i]
		f.Text = strings.Clone(f.Text)
		f.List = nil
		for _, s := range e.items[i].List {
			f.List = append(f.List, strings.Clone(s))
		}
		c.items[i] = f
	}
	return c
}

// AppendJSON appends the evidence as one JSON object, keys in the order of setting; an empty evidence is {}.
func (e *Evidence) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range e.items {
		if i > 0 {
			dst = append(dst, ',')
		}
		f := &e.items[i]
		dst = appendJSONString(dst, f.Key.Name)
		dst = append(dst, ':')
		switch f.Key.Kind {
		case catalogue.KindText:
			dst = appendJSONString(dst, f.Text)
		case catalogue.KindInt:
			dst = strconv.AppendInt(dst, f.Int, 10)
		case catalogue.KindBool:
			dst = strconv.AppendBool(dst, f.Bool)
		case catalogue.KindTime:
			dst = append(dst, '"')
			dst = appendTime(dst, f.Int)
			dst = append(dst, '"')
		case catalogue.KindList:
			dst = append(dst, '[')
			for j, s := range f.List {
				if j > 0 {
					dst = append(dst, ',')
				}
				dst = appendJSONString(dst, s)
			}
			dst = append(dst, ']')
		}
	}
	return append(dst, '}')
}

// MarshalJSON implements json.Marshaler by AppendJSON.
func (e Evidence) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// ParseJSON is the inverse of AppendJSON. Keys that the catalogue does not know, and values of another type than their
// key has, are left out and named in err while the rest is returned: a row of a newer version stays readable. Data
// that is no JSON object gives empty evidence and an error.
func ParseJSON(cat *catalogue.Catalogue, data []byte) (Evidence, error) {
	var e Evidence
	if len(bytes.TrimSpace(data)) == 0 {
		return e, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tok, err := dec.Token()
	if err != nil || tok != json.Delim('{') {
		return e, fmt.Errorf("evidence: expected a JSON object: %w", orSyntax(err))
	}
	var errs []error
	for dec.More() {
		tok, err = dec.Token()
		if err != nil {
			return e, fmt.Errorf("evidence: %w", err)
		}
		name, ok := tok.(string)
		if !ok {
			return e, fmt.Errorf("evidence: expected a key: %w", orSyntax(nil))
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return e, fmt.Errorf("evidence key %q: %w", name, err)
		}
		key := cat.Evidence(name)
		if key == nil {
			errs = append(errs, fmt.Errorf("evidence key %q is not in the catalogue", name))
			continue
		}
		if err := e.setJSON(key, raw); err != nil {
			errs = append(errs, fmt.Errorf("evidence key %q: %w", name, err))
		}
	}
	if _, err = dec.Token(); err != nil {
		return e, fmt.Errorf("evidence: %w", err)
	}
	if dec.More() {
		errs = append(errs, errors.New("evidence: something follows the JSON object"))
	}
	return e, errors.Join(errs...)
}

var errSyntax = errors.New("not valid")

func orSyntax(err error) error {
	if err == nil {
		return errSyntax
	}
	return err
}

func (e *Evidence) setJSON(key *catalogue.EvidenceKey, raw json.RawMessage) error {
	switch key.Kind {
	case catalogue.KindText:
		var v *string
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if v == nil || *v == "" {
			return errors.New("expected a text")
		}
		e.SetText(key, *v)
	case catalogue.KindInt:
		v, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return fmt.Errorf("expected an integer: %w", err)
		}
		e.SetInt(key, v)
	case catalogue.KindBool:
		switch string(raw) {
		case "true", "false":
			e.SetBool(key, string(raw) == "true")
		default:
			return errors.New("expected true or false")
		}
	case catalogue.KindTime:
		var v string
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return err
		}
		e.SetTime(key, t.UnixMicro())
	case catalogue.KindList:
		var v []string
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if len(v) == 0 {
			return errors.New("expected a list of texts")
		}
		e.SetList(key, v)
	}
	return nil
}

// appendTime appends microseconds since the Unix epoch as RFC 3339 in UTC, with no more fractional digits than needed.
func appendTime(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, "2006-01-02T15:04:05.999999Z07:00")
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD; control characters and the HTML and
// script delimiters are escaped, so that the text may stand in a page.
func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
			}
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
			dst = append(dst, s[from:i]...)
			switch r {
			case '\u2028':
				dst = append(dst, `\u2028`...)
			case '\u2029':
				dst = append(dst, `\u2029`...)
			default:
				dst = append(dst, "\ufffd"...)
			}
			i += size
			from = i
			continue
		}
		i += size
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
