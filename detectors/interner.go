package detectors

import (
	"strings"
	"unicode/utf8"
	"unsafe"
)

// maxKeptText bounds a kept string in bytes; names of applications and devices are far shorter.
const maxKeptText = 256

// interner keeps every text once, counted by its holders. Number 0 is the empty text.
type interner struct {
	index map[string]uint32
	texts []internedText
	free  []uint32
	bytes int64
}

type internedText struct {
	text string
	refs uint32
}

func (t *interner) init() {
	*t = interner{index: make(map[string]uint32), texts: make([]internedText, 1)}
}

// hold returns the number of s, cut to maxKeptText bytes at a rune's edge.
func (t *interner) hold(s string) uint32 {
	if len(s) > maxKeptText {
		n := maxKeptText
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return t.holdWhole(s)
}

func (t *interner) holdWhole(s string) uint32 {
	if s == "" {
		return 0
	}
	if n, ok := t.index[s]; ok {
		t.texts[n].refs++
		return n
	}
	var n uint32
	if k := len(t.free); k > 0 {
		n, t.free = t.free[k-1], t.free[:k-1]
	} else {
		n = uint32(len(t.texts))
		t.texts = append(t.texts, internedText{})
	}
	s = strings.Clone(s)
	t.texts[n] = internedText{s, 1}
	t.index[s] = n
	t.bytes += int64(len(s)) + textSize
	return n
}

// number returns the number of s, 0 when nobody holds it.
func (t *interner) number(s string) uint32 {
	if s == "" || len(s) > maxKeptText {
		return 0
	}
	return t.index[s]
}

// again holds a text that is held already.
func (t *interner) again(n uint32) uint32 {
	if n != 0 {
		t.texts[n].refs++
	}
	return n
}

func (t *interner) release(n uint32) {
	if n == 0 {
		return
	}
	x := &t.texts[n]
	if x.refs--; x.refs > 0 {
		return
	}
	delete(t.index, x.text)
	t.bytes -= int64(len(x.text)) + textSize
	x.text = ""
	t.free = append(t.free, n)
}

func (t *interner) text(n uint32) string { return t.texts[n].text }

func textNumber(b *[16]byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func putTextNumber(b *[16]byte, n uint32) {
	*b = [16]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
}

// encodeGUID writes the 16 bytes of a GUID in lower case, the only spelling that guidString gives back; it returns
// false for anything else.
func encodeGUID(dst *[16]byte, s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	n := 0
	for i := 0; i < 36; i += 2 {
		if s[i] == '-' {
			i++
		}
		hi, lo := hexDigit(s[i]), hexDigit(s[i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[n] = hi<<4 | lo
		n++
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

func guidString(b *[16]byte) string { return string(appendGUID(nil, b)) }

func appendGUID(dst []byte, b *[16]byte) []byte {
	for i, x := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[x>>4], hexDigits[x&15])
	}
	return dst
}

func aliasString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
