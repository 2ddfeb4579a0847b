package scenariofile

import (
	"fmt"
	"strings"
)

// token is one word of a line: bare or quoted text, or a key with an operator and a value.
type token struct {
	text   string // of a word; the key of a comparison
	quoted bool
	op     string // "", "=", "!=", "<=", ">=" or "~"
	value  string // of a comparison
	column int    // from 1, in bytes
}

// String returns the token as a person would write it.
func (t token) String() string {
	if t.op != "" {
		return t.text + t.op + quote(t.value)
	}
	if t.quoted {
		return `"` + t.text + `"`
	}
	return t.text
}

func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " \t#\"=~<>!") {
		return `"` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`) + `"`
	}
	return s
}

// Error is a line that could not be understood.
type Error struct {
	File string
	Line int // from 1
	Text string
}

// Error returns one line: file:line: what was found and what was expected.
func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text) }

// tokens splits a line. A # at the start of a word begins a comment.
func tokens(line string) ([]token, error) {
	var out []token
	p := 0
	for {
		for p < len(line) && (line[p] == ' ' || line[p] == '\t' || line[p] == '\r') {
			p++
		}
		if p == len(line) || line[p] == '#' {
			return out, nil
		}
		t := token{column: p + 1}
		var err error
		if line[p] == '"' {
			t.quoted = true
			if t.text, p, err = quoted(line, p); err != nil {
				return nil, err
			}
			if p < len(line) && line[p] != ' ' && line[p] != '\t' && line[p] != '\r' {
				return nil, fmt.Errorf("column %d: found %q right behind a quoted text; expected a space", p+1, line[p])
			}
			out = append(out, t)
			continue
		}
		start := p
		for p < len(line) && !strings.ContainsRune(" \t\r\"=~<>!", rune(line[p])) {
			p++
		}
		t.text = line[start:p]
		if p < len(line) && line[p] != ' ' && line[p] != '\t' && line[p] != '\r' {
			switch {
			case t.text == "":
				return nil, fmt.Errorf("column %d: found %q; expected a word before it", p+1, line[p])
			case line[p] == '=' || line[p] == '~':
				t.op = line[p : p+1]
			case strings.HasPrefix(line[p:], "!=") || strings.HasPrefix(line[p:], "<=") || strings.HasPrefix(line[p:], ">="):
				t.op = line[p : p+2]
			default:
				return nil, fmt.Errorf("column %d: found %q inside a word; expected a space, or one of = != <= >= ~", p+1, line[p])
			}
			p += len(t.op)
			if p < len(line) && line[p] == '"' {
				if t.value, p, err = quoted(line, p); err != nil {
					return nil, err
				}
			} else {
				start = p
				for p < len(line) && line[p] != ' ' && line[p] != '\t' && line[p] != '\r' {
					p++
				}
				t.value = line[start:p]
			}
		}
		out = append(out, t)
	}
}

// quoted reads the text in quotes at p: \" and \\ stand for quote and backslash.
func quoted(line string, p int) (string, int, error) {
	start := p
	var b strings.Builder
	for p++; p < len(line); p++ {
		switch line[p] {
		case '"':
			return b.String(), p + 1, nil
		case '\\':
			if p+1 < len(line) && (line[p+1] == '"' || line[p+1] == '\\') {
				p++
			}
		}
		b.WriteByte(line[p])
	}
	return "", 0, fmt.Errorf("column %d: the quote is not closed on this line", start+1)
}
