package schemas

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// maxDepth bounds the nesting of a record. Real records nest eight deep; beyond the bound a record is
// broken with ReasonTooDeep rather than a load on the stack.
const maxDepth = 1000

// cursor walks over JSON text without building a tree. A method that meets text which RFC 8259 does
// not allow records the first fault and returns false; every caller returns at once. Two things are
// taken that the RFC leaves open: repeated member names and invalid UTF-8 (replaced by U+FFFD).
type cursor struct {
	b       []byte
	p       int
	depth   int
	lenient bool // also take unescaped control characters inside strings
	fault   fault
}

// fault says where the text of a cursor broke and what was expected there.
type fault struct {
	at       int
	expected string
	reason   string
}

func (c *cursor) fail(at int, expected string) bool {
	if c.fault.expected == "" {
		reason := ReasonInvalidJSON
		if at >= len(c.b) {
			reason = ReasonTruncated
		}
		c.fault = fault{at: at, expected: expected, reason: reason}
	}
	return false
}

func (c *cursor) ws() {
	for c.p < len(c.b) {
		switch c.b[c.p] {
		case ' ', '\n', '\r', '\t':
			c.p++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, 0 at the end of the text.
func (c *cursor) peek() byte {
	if c.p < len(c.b) && c.b[c.p] > ' ' {
		return c.b[c.p]
	}
	c.ws()
	if c.p < len(c.b) {
		return c.b[c.p]
	}
	return 0
}

func (c *cursor) enter() bool {
	c.depth++
	if c.depth > maxDepth {
		if c.fault.expected == "" {
			c.fault = fault{at: c.p, expected: "at most " + strconv.Itoa(maxDepth) + " levels of nesting", reason: ReasonTooDeep}
		}
		return false
	}
	c.p++
	return true
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// text is the content of a JSON string as it stands between the quotes.
type text struct {
	raw      []byte
	escaped  bool // holds backslash escapes
	nonASCII bool // holds bytes above 0x7f
}

// str reads the string whose opening quote is at the cursor. Eight bytes are looked at per step: most
// strings of a record are 4 to 40 bytes long, where a call of bytes.IndexByte costs more than it saves.
func (c *cursor) str(t *text) bool {
	b := c.b
	start := c.p + 1
	i := start
	var high uint64
	escaped := false
	for {
		var stop int
		for {
			if i+8 > len(b) {
				stop = -1
				break
			}
			v := binary.LittleEndian.Uint64(b[i:])
			quote := v ^ (lowBits * '"')
			slash := v ^ (lowBits * '\\')
			hit := ((quote-lowBits)&^quote | (slash-lowBits)&^slash | (v-lowBits*' ')&^v) & highBits
			if hit != 0 {
				n := bits.TrailingZeros64(hit) >> 3
				high |= v & (1<<(uint(n)*8) - 1)
				stop = i + n
				break
			}
			high |= v
			i += 8
		}
		if stop < 0 {
			stop = i
			for stop < len(b) && b[stop] != '"' && b[stop] != '\\' && b[stop] >= ' ' {
				high |= uint64(b[stop])
				stop++
			}
			if stop >= len(b) {
				return c.fail(len(b), "the closing quote of a string")
			}
		}
		switch b[stop] {
		case '"':
			t.raw = b[start:stop]
			t.escaped = escaped
			t.nonASCII = high&highBits != 0
			c.p = stop + 1
			return true
		case '\\':
			escaped = true
			if stop+1 >= len(b) {
				return c.fail(len(b), "the rest of an escape sequence")
			}
			switch b[stop+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i = stop + 2
			case 'u':
				for k := stop + 2; k < stop+6; k++ {
					if k >= len(b) {
						return c.fail(len(b), "four hexadecimal digits")
					}
					if unhex(b[k]) < 0 {
						return c.fail(k, "four hexadecimal digits")
					}
				}
				i = stop + 6
			default:
				return c.fail(stop+1, "an escape sequence of JSON")
			}
		default:
			if !c.lenient {
				return c.fail(stop, "no unescaped control character in a string")
			}
			i = stop + 1
		}
	}
}

func unhex(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

// appendUnescaped appends the text of a JSON string to dst: escapes resolved, lone surrogates and
// invalid UTF-8 replaced by U+FFFD.
func appendUnescaped(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		n := bytes.IndexByte(raw[i:], '\\')
		if n < 0 {
			n = len(raw) - i
		}
		if n > 0 {
			dst = appendValidUTF8(dst, raw[i:i+n])
			i += n
			continue
		}
		switch e := raw[i+1]; e {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(raw[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				low := utf8.RuneError
				if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
					low = utf16.DecodeRune(r, hex4(raw[i+2:]))
				}
				if low != utf8.RuneError {
					i += 6
				}
				r = low
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default:
			dst = append(dst, e)
		}
		i += 2
	}
	return dst
}

func appendValidUTF8(dst, b []byte) []byte {
	if utf8.Valid(b) {
		return append(dst, b...)
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		dst = utf8.AppendRune(dst, r)
		b = b[n:]
	}
	return dst
}

func hex4(b []byte) rune {
	return rune(unhex(b[0])<<12 | unhex(b[1])<<8 | unhex(b[2])<<4 | unhex(b[3]))
}

// number reads a number and returns its text.
func (c *cursor) number() ([]byte, bool) {
	b, i := c.b, c.p
	start := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && b[i] >= '1' && b[i] <= '9':
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
	default:
		return nil, c.fail(i, "a digit")
	}
	if i < len(b) && b[i] == '.' {
		i++
		first := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		if i == first {
			return nil, c.fail(i, "a digit after the decimal point")
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		first := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		if i == first {
			return nil, c.fail(i, "a digit of the exponent")
		}
	}
	c.p = i
	return b[start:i], true
}

// literal reads null, true or false.
func (c *cursor) literal(word string) bool {
	for k := 0; k < len(word); k++ {
		if c.p+k >= len(c.b) || c.b[c.p+k] != word[k] {
			return c.fail(c.p+k, "a JSON value")
		}
	}
	c.p += len(word)
	return true
}

// scalar skips a number or a literal.
func (c *cursor) scalar(first byte) bool {
	switch first {
	case 'n':
		return c.literal("null")
	case 't':
		return c.literal("true")
	case 'f':
		return c.literal("false")
	}
	if first == '-' || first >= '0' && first <= '9' {
		_, ok := c.number()
		return ok
	}
	return c.fail(c.p, "a JSON value")
}

// skip reads over one value of any kind and checks its grammar.
func (c *cursor) skip() bool {
	switch first := c.peek(); first {
	case '"':
		var t text
		return c.str(&t)
	case '{':
		if !c.enter() {
			return false
		}
		var key text
		for more := c.firstMember(&key); more; more = c.nextMember(&key) {
			if !c.skip() {
				return false
			}
		}
		return c.left()
	case '[':
		if !c.enter() {
			return false
		}
		for more := c.firstElement(); more; more = c.nextElement() {
			if !c.skip() {
				return false
			}
		}
		return c.left()
	default:
		return c.scalar(first)
	}
}

// left ends an object or array whose iteration returned false; it tells a proper end from a fault.
func (c *cursor) left() bool {
	c.depth--
	return c.fault.expected == ""
}

// firstMember and nextMember iterate over the members of an object that enter has entered: they leave the
// cursor at a value and return true, or return false at the end of the object or at a fault.
func (c *cursor) firstMember(key *text) bool {
	if c.peek() == '}' {
		c.p++
		return false
	}
	return c.member(key)
}

func (c *cursor) nextMember(key *text) bool {
	switch c.peek() {
	case ',':
		c.p++
		return c.member(key)
	case '}':
		c.p++
		return false
	}
	return c.fail(c.p, "a comma or the end of the object")
}

func (c *cursor) member(key *text) bool {
	if c.peek() != '"' {
		return c.fail(c.p, "a member name in quotes")
	}
	if !c.str(key) {
		return false
	}
	if c.peek() != ':' {
		return c.fail(c.p, "a colon after the member name")
	}
	c.p++
	return true
}

// firstElement and nextElement do the same for arrays.
func (c *cursor) firstElement() bool {
	if c.peek() == ']' {
		c.p++
		return false
	}
	return true
}

func (c *cursor) nextElement() bool {
	switch c.peek() {
	case ',':
		c.p++
		return true
	case ']':
		c.p++
		return false
	}
	return c.fail(c.p, "a comma or the end of the array")
}

// matchBracket returns the position behind the bracket that closes the one at start. Brackets in strings do not count. It
// returns -1 where the text ends before, or where brackets of different kinds cross. looked is how many bytes that took; open is
// scratch for the kinds of the open brackets and is handed back.
func matchBracket(b []byte, start int, open []byte) (end, looked int, scratch []byte) {
	open = open[:0]
	for i := start; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			open = append(open, b[i]+2) // '}' and ']' stand two places behind their opening brackets
		case '}', ']':
			if len(open) == 0 || open[len(open)-1] != b[i] {
				return -1, i - start, open
			}
			open = open[:len(open)-1]
			if len(open) == 0 {
				return i + 1, i - start, open
			}
		}
	}
	return -1, len(b) - start, open
}

// alias returns a string over b without copying; it lives as long as b stays untouched.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// aliasBytes returns the bytes under s, for reading only.
func aliasBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// keyTable finds a member name among the known ones, ignoring ASCII case: the export writes camelCase,
// Log Analytics and PowerShell PascalCase. It is built once and only read afterwards.
type keyTable struct {
	slots []keySlot
	mask  uint64
}

type keySlot struct {
	name string
	id   field
}

const caseBits = 0x2020202020202020

func newKeyTable(keys map[string]field) keyTable {
	size := 16
	for size < 4*len(keys) {
		size *= 2
	}
	t := keyTable{slots: make([]keySlot, size), mask: uint64(size - 1)}
	for name, id := range keys {
		h := hashKey([]byte(name))
		for t.slots[h&t.mask].id != fieldUnknown {
			h++
		}
		t.slots[h&t.mask] = keySlot{name: name, id: id}
	}
	return t
}

func hashKey(k []byte) uint64 {
	const k1, k2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F // odd constants of xxHash64
	var x, y uint64
	n := len(k)
	switch {
	case n >= 8:
		x = binary.LittleEndian.Uint64(k) | caseBits
		y = binary.LittleEndian.Uint64(k[n-8:]) | caseBits
	case n >= 4:
		x = uint64(binary.LittleEndian.Uint32(k)) | caseBits
		y = uint64(binary.LittleEndian.Uint32(k[n-4:])) | caseBits
	default:
		for _, c := range k {
			x = x<<8 | uint64(c|0x20)
		}
	}
	h := (x*k1 ^ bits.RotateLeft64(y*k2, 31)) + uint64(n)*k1
	return h ^ h>>29 ^ h>>47
}

func (t *keyTable) find(k []byte) field {
	for h := hashKey(k); ; h++ {
		s := &t.slots[h&t.mask]
		if s.id == fieldUnknown {
			return fieldUnknown
		}
		if len(s.name) == len(k) && equalFoldKey(k, s.name) {
			return s.id
		}
	}
}

// equalFoldKey compares a member name with a known lower-case name of the same length. Only letters
// differ in bit 0x20 here: the known names hold letters, digits, '.', '@' and '_'.
func equalFoldKey(k []byte, name string) bool {
	n := len(name)
	if n < 8 {
		for i := 0; i < n; i++ {
			if k[i]|0x20 != name[i]|0x20 {
				return false
			}
		}
		return true
	}
	b := aliasBytes(name)
	for i := 0; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(k[i:])|caseBits != binary.LittleEndian.Uint64(b[i:])|caseBits {
			return false
		}
	}
	return binary.LittleEndian.Uint64(k[n-8:])|caseBits == binary.LittleEndian.Uint64(b[n-8:])|caseBits
}
