package exports

import (
	"bytes"
	"strconv"
	"strings"
)

// maxNesting bounds arrays and envelopes around records.
const maxNesting = 8

// lineAhead is how much of the next line, in bytes, is looked at to tell whether a record begins there; deeper indented
// records are not recognised.
const lineAhead = 256

// maxRewinds bounds reading the end of a file again behind records that never end, so that a file made of nothing else
// does not take for ever.
const maxRewinds = 64

// jsonState is where the reader stands between two values: the brackets of the arrays and envelopes that are open.
type jsonState struct {
	open   []byte // '[' for an array of records, '{' for an envelope whose records were read
	stack  []byte // scratch: the open brackets of the value that is being read
	indent int    // white space before that value on its line
	// rewinds counts how often the text behind a record that never ends was read again.
	rewinds int
}

// nextJSON returns the next record.
func (r *Reader) nextJSON() (Item, error) {
	for {
		r.space()
		if r.pos >= r.end {
			return r.endOfJSON()
		}
		open := byte(0)
		if n := len(r.json.open); n > 0 {
			open = r.json.open[n-1]
		}
		switch b := r.buf[r.pos]; {
		case b == ',' && open != 0:
			r.pos++
		case b == ']' && open == '[':
			r.json.open = r.json.open[:len(r.json.open)-1]
			r.pos++
		case b == '}' && open == '{':
			r.json.open = r.json.open[:len(r.json.open)-1]
			r.pos++
		case open == '{':
			// Members behind records: "@odata.nextLink" and the like.
			if item, bad := r.skipMember(); bad {
				return item, nil
			}
		case b == '[' && len(r.json.open) < maxNesting:
			r.json.open = append(r.json.open, '[')
			r.pos++
		case b == '{' || b == '[':
			item, whole := r.value()
			if whole {
				return item, nil
			}
		case b == 0:
			line, offset := r.line, r.offset()
			for r.pos < r.end && r.buf[r.pos] == 0 {
				r.pos++
				if r.pos == r.end {
					_ = r.fill(r.pos)
				}
			}
			return r.bad(line, offset, "NUL bytes", "a JSON object", "the file was damaged while it was written; export it again"), nil
		default:
			return r.notAnObject(), nil
		}
	}
}

func (r *Reader) bad(line, offset int64, problem, expected, advice string) Item {
	return Item{Line: line, Offset: offset, Err: &ItemError{File: r.name, Line: line, Problem: problem, Expected: expected, Advice: advice}}
}

const adviceExport = "export the file again or mend this place; the other records are read"

// endOfJSON ends the file; an array or envelope that is still open means that it was cut.
func (r *Reader) endOfJSON() (Item, error) {
	if r.fatal != nil {
		return Item{}, r.fatal
	}
	if len(r.json.open) > 0 && r.cut == nil {
		closing := map[byte]string{'[': `"]"`, '{': `"}"`}[r.json.open[len(r.json.open)-1]]
		r.json.open = nil
		return r.bad(r.line, r.offset(), "the file ends before its list of records does", closing, "it is probably cut; export it again, what stands before was read"), nil
	}
	r.json.open = nil
	return r.finished()
}

// notAnObject reports something other than a record, up to the next comma or the end of the line.
func (r *Reader) notAnObject() Item {
	line, offset := r.line, r.offset()
	inArray := len(r.json.open) > 0
	start := r.pos
	p := r.pos
	inString, escaped := false, false
	for {
		for p < r.end {
			b := r.buf[p]
			switch {
			case b == '\n':
				inString, escaped = false, false
			case escaped:
				escaped = false
			case b == '\\':
				escaped = inString
			case b == '"':
				inString = !inString
			}
			if p > start && (b == '\n' || inArray && !inString && (b == ',' || b == ']' || b == '}')) {
				break
			}
			p++
		}
		if p < r.end {
			break
		}
		if p-start > maxValue {
			// Only the beginning is shown; what was read is thrown away.
			start = p
		}
		shift, err := r.more(start)
		p -= shift
		start -= shift
		if err != nil {
			p = r.end
			break
		}
	}
	shown := string(bytes.TrimSpace(r.buf[start:min(p, start+40)]))
	r.pos = start
	r.advance(p)
	return r.bad(line, offset, "found "+strconv.Quote(strings.ToValidUTF8(shown, "\uFFFD")), "a JSON object", adviceExport)
}

// skipMember skips one member of an envelope, name and value. A list among them is read like the first one.
func (r *Reader) skipMember() (Item, bool) {
	line, offset := r.line, r.offset()
	if r.buf[r.pos] != '"' {
		item := r.notAnObject()
		return item, true
	}
	if !r.skipString() {
		return r.bad(line, offset, "a name without closing quote", `a member such as "@odata.nextLink"`, adviceExport), true
	}
	r.space()
	if r.pos < r.end && r.buf[r.pos] == ':' {
		r.pos++
	}
	r.space()
	if r.pos >= r.end {
		return Item{}, false
	}
	switch r.buf[r.pos] {
	case '"':
		r.skipString()
	case '{', '[':
		r.skipNested()
	default:
		for r.pos < r.end && r.buf[r.pos] != ',' && r.buf[r.pos] != '}' && r.buf[r.pos] > ' ' {
			r.pos++
			if r.pos == r.end {
				_ = r.fill(r.pos)
			}
		}
	}
	return Item{}, false
}

// skipString moves behind the string at pos; false where the text ends or the line breaks first.
func (r *Reader) skipString() bool {
	for escaped := false; ; {
		r.pos++
		if r.pos >= r.end && r.fill(r.pos) != nil {
			return false
		}
		switch b := r.buf[r.pos]; {
		case escaped:
			escaped = false
		case b == '\\':
			escaped = true
		case b == '"':
			r.pos++
			return true
		case b == '\n':
			return false
		}
	}
}

// skipNested moves behind the object or array at pos.
func (r *Reader) skipNested() {
	depth := 0
	for {
		if r.pos >= r.end && r.fill(r.pos) != nil {
			return
		}
		switch r.buf[r.pos] {
		case '"':
			if r.skipString() {
				continue
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '\n':
			r.line++
		}
		r.pos++
		if depth == 0 {
			return
		}
	}
}

// value reads the object or array at pos. whole is false where it turned out to be an envelope: the reader then
// stands inside its list of records.
func (r *Reader) value() (item Item, whole bool) {
	line, offset := r.line, r.offset()
	start, p := r.pos, r.pos
	r.json.indent = r.blank
	stack := r.json.stack[:0]
	defer func() { r.json.stack = stack }()
	var prev byte                // last significant byte
	keyStart, keyEnd := -1, -1   // last string at depth 1 that may be a member name
	newlines, lastBreak := 0, -1 // line breaks passed, position of the last one
	discarding := false          // the value is too large to keep
	refill := func() bool {
		if !discarding && p-start > maxValue {
			discarding = true
		}
		keep := start
		if discarding {
			r.line += int64(bytes.Count(r.buf[r.pos:p], []byte("\n")))
			r.pos, keep = p, p
			start = p
		}
		shift, err := r.more(keep)
		p -= shift
		start -= shift
		lastBreak -= shift
		keyStart -= shift
		keyEnd -= shift
		return err == nil
	}
	fail := func(problem, expected string) (Item, bool) {
		r.pos = start
		r.resync(p)
		return r.bad(line, offset, problem, expected, adviceExport), true
	}
	truncated := func() (Item, bool) {
		if !discarding && newlines > 0 && r.cut == nil && r.json.rewinds < maxRewinds {
			r.json.rewinds++
			// A record that was cut in the middle of the file swallows the rest; go back to the next one.
			p = start + bytes.IndexByte(r.buf[start:r.end], '\n')
			r.pos, r.line = start, line
			if r.resync(p); r.pos < r.end {
				return r.bad(line, offset, "the brackets of a JSON value do not match", "a closing bracket", adviceExport), true
			}
		}
		if !discarding {
			r.pos, r.line = start, line
		}
		r.advance(r.end)
		r.json.open = nil
		return r.bad(line, offset, "the file ends inside the JSON value that begins here", "its closing bracket",
			"the file is probably cut; export it again, what stands before was read"), true
	}
	for {
		if p >= r.end && !refill() {
			return truncated()
		}
		switch b := r.buf[p]; b {
		case ' ', '\t', '\r':
			p++
			continue
		case '\n':
			newlines++
			lastBreak = p
			p++
			continue
		case '"':
			if prev != 0 && prev != '{' && prev != '[' && prev != ',' && prev != ':' {
				return fail("a string where none belongs", "a comma or a closing bracket")
			}
			keyStart = p + 1
			for {
				p++
				if p >= r.end && !refill() {
					return truncated()
				}
				c := r.buf[p]
				if c == '"' {
					break
				}
				if c == '\\' {
					p++
					if p >= r.end && !refill() {
						return truncated()
					}
					continue
				}
				if c == '\n' {
					for r.end-p < lineAhead && refill() {
					}
					if r.looksLikeRecord(p) {
						return fail("a string without closing quote", `a closing quote`)
					}
					newlines++
				}
				for p+1 < r.end && r.buf[p+1] != '"' && r.buf[p+1] != '\\' && r.buf[p+1] != '\n' {
					p++
				}
			}
			keyEnd = p
			prev = '"'
			p++
			continue
		case '{', '[':
			if prev != 0 && prev != ':' && prev != ',' && prev != '[' {
				return fail("a bracket where none belongs", "a comma or a closing bracket")
			}
			if b == '[' && prev == ':' && len(stack) == 1 && stack[0] == '{' && len(r.json.open) < maxNesting && keyStart >= 0 && isListName(r.buf[keyStart:keyEnd]) && !discarding {
				r.json.open = append(r.json.open, '{', '[')
				r.pos = start
				r.advance(p + 1)
				return Item{}, false
			}
			stack = append(stack, b)
		case '}', ']':
			if stack[len(stack)-1] != b-2 {
				return fail("brackets that do not match", `"`+string(stack[len(stack)-1]+2)+`"`)
			}
			stack = stack[:len(stack)-1]
			if len(stack) == 0 {
				p++
				if discarding || p-start > maxValue {
					r.advance(p)
					return r.bad(line, offset, "a record larger than "+strconv.Itoa(maxValue>>20)+" MiB", "records of some KiB", "check that the file is an export of sign-ins"), true
				}
				value := r.buf[start:p:p]
				r.line += int64(newlines)
				r.pos = p
				return Item{Value: value, Line: line, Offset: offset}, true
			}
		}
		prev = r.buf[p]
		p++
	}
}

// isListName reports whether a member holds the records of an envelope: records of Azure Monitor, value of Graph.
func isListName(name []byte) bool {
	return bytes.EqualFold(name, []byte("records")) || bytes.EqualFold(name, []byte("value"))
}

// looksLikeRecord reports whether the line behind the break at p begins with an object, not deeper indented than the
// value that is being read.
func (r *Reader) looksLikeRecord(p int) bool {
	i := p + 1
	for i < r.end && (r.buf[i] == ' ' || r.buf[i] == '\t') {
		i++
	}
	return i < r.end && r.buf[i] == '{' && i-p-1 <= r.json.indent
}

// resync moves from a fault at p to the next line that begins with an object, not deeper indented than the broken value, or to
// the end of the list around it.
func (r *Reader) resync(p int) {
	// The fault may be the very beginning of the next record.
	line := p
	for line > r.pos && r.buf[line-1] != '\n' {
		line--
	}
	if line > r.pos && r.looksLikeRecord(line-1) {
		r.advance(line)
		return
	}
	for {
		n := bytes.IndexByte(r.buf[p:r.end], '\n')
		if n < 0 {
			r.advance(r.end)
			if r.fill(r.pos) != nil {
				return
			}
			p = r.pos
			continue
		}
		p += n
		for r.end-p < lineAhead {
			r.advance(p)
			shift, err := r.more(p)
			p -= shift
			if err != nil {
				break
			}
		}
		if r.looksLikeRecord(p) || p+1 < r.end && (r.buf[p+1] == ']' || r.buf[p+1] == '}') && len(r.json.open) > 0 {
			r.advance(p + 1)
			return
		}
		p++
	}
}
