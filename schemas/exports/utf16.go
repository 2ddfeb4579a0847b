package exports

import (
	"bufio"
	"encoding/binary"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// utf16Order returns the byte order of a text in UTF-16, nil for any other text. Windows PowerShell 5 writes UTF-16 with a
// byte order mark; some editors leave the mark away, then every other byte of the first characters is zero.
func utf16Order(in *bufio.Reader) binary.ByteOrder {
	b, _ := in.Peek(4)
	if len(b) < 2 {
		return nil
	}
	switch {
	case b[0] == 0xff && b[1] == 0xfe:
		_, _ = in.Discard(2)
		return binary.LittleEndian
	case b[0] == 0xfe && b[1] == 0xff:
		_, _ = in.Discard(2)
		return binary.BigEndian
	case len(b) == 4 && b[0] != 0 && b[1] == 0 && b[2] != 0 && b[3] == 0:
		return binary.LittleEndian
	case len(b) == 4 && b[0] == 0 && b[1] != 0 && b[2] == 0 && b[3] != 0:
		return binary.BigEndian
	}
	return nil
}

// utf16Reader turns UTF-16 into UTF-8. Lone surrogates and an odd last byte become U+FFFD.
type utf16Reader struct {
	in    *bufio.Reader
	order binary.ByteOrder
	held  rune // a high surrogate whose partner has not come yet
}

func (u *utf16Reader) Read(p []byte) (int, error) {
	n := 0
	for n+2*utf8.UTFMax <= len(p) {
		b, err := u.in.Peek(2)
		if len(b) < 2 {
			if u.held != 0 {
				n += utf8.EncodeRune(p[n:], utf8.RuneError)
				u.held = 0
			}
			if len(b) == 1 {
				_, _ = u.in.Discard(1)
				n += utf8.EncodeRune(p[n:], utf8.RuneError)
			}
			if n > 0 && err == io.EOF {
				return n, nil
			}
			return n, err
		}
		_, _ = u.in.Discard(2)
		c := rune(u.order.Uint16(b))
		if u.held != 0 {
			high := u.held
			u.held = 0
			if r := utf16.DecodeRune(high, c); r != utf8.RuneError {
				n += utf8.EncodeRune(p[n:], r)
				continue
			}
			n += utf8.EncodeRune(p[n:], utf8.RuneError)
		}
		switch {
		case utf16.IsSurrogate(c) && c < 0xdc00:
			u.held = c
		case utf16.IsSurrogate(c):
			n += utf8.EncodeRune(p[n:], utf8.RuneError)
		default:
			n += utf8.EncodeRune(p[n:], c)
		}
	}
	return n, nil
}
