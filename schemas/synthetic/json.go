package synthetic

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas"
)

// appendQuoted appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	if plain(s) {
		dst = append(dst, s...)
		return append(dst, '"')
	}
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\t':
				dst = append(dst, '\\', 't')
			case '\r':
				dst = append(dst, '\\', 'r')
			default:
				dst = append(dst, `\u00`...)
				dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[from:i]...)
			dst = utf8.AppendRune(dst, utf8.RuneError)
			from = i + 1
		}
		i += size
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// appendInner appends s as the inside of a JSON string, without the quotes around it.
func appendInner(dst []byte, s string) []byte {
	if plain(s) {
		return append(dst, s...)
	}
	return append(dst, strings.TrimSuffix(strings.TrimPrefix(string(appendQuoted(nil, s)), `"`), `"`)...)
}

const hexDigits = "0123456789abcdef"

// plain reports whether s is ASCII that needs no escape. Eight bytes at a time; the tail overlaps.
func plain(s string) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	if len(s) < 8 {
		for i := 0; i < len(s); i++ {
			if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
				return false
			}
		}
		return true
	}
	for i := 0; ; i += 8 {
		if i+8 > len(s) {
			if i == len(s) {
				return true
			}
			i = len(s) - 8
		}
		q := s[i : i+8] // one bounds check, so that the compiler makes one load of the eight
		w := uint64(q[0]) | uint64(q[1])<<8 | uint64(q[2])<<16 | uint64(q[3])<<24 |
			uint64(q[4])<<32 | uint64(q[5])<<40 | uint64(q[6])<<48 | uint64(q[7])<<56
		quote := w ^ ones*'"'
		slash := w ^ ones*'\\'
		if (w|(w-ones*' ')|(quote-ones)|(slash-ones))&highs != 0 {
			return false
		}
	}
}

// appendTime appends t in UTC with seven digits of fraction, as the export writes it, and zone.
func appendTime(dst []byte, t time.Time, zone string) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendDigits(dst, year, 4)
	dst = append(dst, '-')
	dst = appendDigits(dst, int(month), 2)
	dst = append(dst, '-')
	dst = appendDigits(dst, day, 2)
	dst = append(dst, 'T')
	dst = appendDigits(dst, hour, 2)
	dst = append(dst, ':')
	dst = appendDigits(dst, minute, 2)
	dst = append(dst, ':')
	dst = appendDigits(dst, second, 2)
	dst = append(dst, '.')
	dst = appendDigits(dst, t.Nanosecond()/100, 7)
	return append(dst, zone...)
}

func appendDigits(dst []byte, n, width int) []byte {
	var b [8]byte
	for i := width - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, b[:width]...)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, "true"...)
	}
	return append(dst, "false"...)
}

func appendStrings(dst []byte, values []string) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, v)
	}
	return append(dst, ']')
}

// appendField appends name, which holds the quotes, colon and any comma, and the quoted value.
func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	return appendQuoted(dst, value)
}

func appendTri(dst []byte, name string, t schemas.Tri) []byte {
	if t == schemas.Tri_TRI_UNKNOWN {
		return dst
	}
	dst = append(dst, name...)
	return appendBool(dst, t == schemas.Tri_TRI_TRUE)
}

// appendEmbedded appends, as one JSON string, the JSON text that was written to dst from start on.
func appendEmbedded(dst []byte, start int) []byte {
	text := string(dst[start:])
	return appendQuoted(dst[:start], text)
}

// GUID composes a GUID of version 4 from two numbers, so that equal seeds give equal ids.
func GUID(a, b uint64) string {
	var buf [36]byte
	putGUID(&buf, mix(a^bits.RotateLeft64(b, 32)), mix(b+0x9e3779b97f4a7c15))
	return string(buf[:])
}

// NamedGUID returns the GUID that belongs to a name: the same name always gives the same id.
func NamedGUID(kind, name string) string {
	return GUID(schemas.Hash64(kind), schemas.Hash64(name))
}

func putGUID(buf *[36]byte, a, b uint64) {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], a)
	binary.BigEndian.PutUint64(raw[8:], b)
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	hex.Encode(buf[0:8], raw[0:4])
	hex.Encode(buf[9:13], raw[4:6])
	hex.Encode(buf[14:18], raw[6:8])
	hex.Encode(buf[19:23], raw[8:10])
	hex.Encode(buf[24:36], raw[10:16])
	buf[8], buf[13], buf[18], buf[23] = '-', '-', '-', '-'
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// appendUniqueToken appends uniqueTokenIdentifier of a request id: unpadded base64url of the GUID's
// sixteen bytes in little-endian field order, or of the id's text where it is no GUID.
func appendUniqueToken(dst []byte, id string) []byte {
	if len(id) != 36 {
		return base64.RawURLEncoding.AppendEncode(dst, []byte(id))
	}
	// Positions of the digits of the sixteen bytes, in little-endian field order.
	order := [16]int{6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34}
	var raw [16]byte
	for i, p := range order {
		hi, lo := nibble(id[p]), nibble(id[p+1])
		if hi > 15 || lo > 15 {
			return base64.RawURLEncoding.AppendEncode(dst, []byte(id))
		}
		raw[i] = hi<<4 | lo
	}
	return base64.RawURLEncoding.AppendEncode(dst, raw[:])
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

func appendFloat(dst []byte, f float64) []byte {
	return strconv.AppendFloat(dst, f, 'f', -1, 64)
}
