// Package exports reads files of exported sign-in logs: JSON, NDJSON and CSV as the Entra portal, Azure Monitor, Log
// Analytics, Microsoft Graph and PowerShell write them, plain or compressed with gzip.
package exports

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas"
)

// Format is what a file turned out to hold.
type Format uint8

const (
	// FormatJSON is one JSON value or several: an array, an envelope with records or value, NDJSON.
	FormatJSON Format = iota
	// FormatPortalCSV is the CSV download of the Entra portal.
	FormatPortalCSV
	// FormatTableCSV is a CSV whose columns are named as the members of records: Log Analytics, PowerShell.
	FormatTableCSV
)

// String returns a name for messages to people.
func (f Format) String() string {
	switch f {
	case FormatPortalCSV:
		return "CSV of the Entra portal"
	case FormatTableCSV:
		return "CSV with table columns"
	}
	return "JSON"
}

// Item is one value of a file.
type Item struct {
	// Value is one JSON record for schemas.Decoder. A CSV row is encoded as a record with the members of its columns. It is valid until
	// the next call of Next. Nil where Err is set.
	Value []byte
	// Line is where the value begins, from 1.
	Line int64
	// Offset is where the value begins in the uncompressed text, in bytes from 0 (in UTF-8 for a file in UTF-16).
	Offset int64
	// Err is an *ItemError: this value is bad, reading goes on behind it.
	Err error
}

// ItemError says what is wrong with one place of a file.
type ItemError struct {
	File string
	Line int64
	// Problem says what was found, Expected what should have been there, Advice what to do.
	Problem, Expected, Advice string
	// Err is the underlying error, if any.
	Err error
}

// Error returns one line: file:line: problem: expected ...; advice.
func (e *ItemError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	text := fmt.Sprintf("%s: %s: expected %s; %s", where, e.Problem, e.Expected, e.Advice)
	if e.Err != nil {
		text += " (" + e.Err.Error() + ")"
	}
	return text
}

// Unwrap returns the underlying error.
func (e *ItemError) Unwrap() error { return e.Err }

// Reader reads the records of one file. It is not safe for concurrent use, except for Size and BytesRead.
type Reader struct {
	name   string
	closer io.Closer
	size   int64
	read   atomic.Int64
	format Format

	in       io.Reader
	buf      []byte
	pos      int   // next byte of buf
	end      int   // end of what buf holds
	base     int64 // offset of buf[0] in the text
	line     int64 // line of buf[pos]
	blank    int   // spaces and tabs before the text at blankEnd, on its line
	blankEnd int64
	eof      bool
	cut      error // the text ended before its end, as a cut gzip file does
	fatal    error

	json jsonState
	csv  csvState
}

// chunk is how much is read at once, in bytes.
const chunk = 256 << 10

// Open opens a file of exported sign-ins; path "-" reads stdin. What the file holds is recognised by its content, so Open
// reads its beginning. The error names the file and says what to do. The caller closes the Reader.
func Open(path string, stdin io.Reader) (*Reader, error) {
	r := &Reader{name: path, line: 1}
	var in io.Reader
	if path == "-" {
		r.name = "(stdin)"
		if stdin == nil {
			return nil, &ItemError{File: r.name, Problem: "no standard input", Expected: "exported sign-ins", Advice: "name a file"}
		}
		in = stdin
	} else {
		info, err := os.Stat(path)
		if err != nil {
			return nil, &ItemError{File: path, Problem: "cannot be read", Expected: "a file of exported sign-ins", Advice: "check the path", Err: errors.Unwrap(err)}
		}
		if info.IsDir() {
			return nil, &ItemError{File: path, Problem: "is a directory", Expected: "a file of exported sign-ins", Advice: "name the files in it"}
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, &ItemError{File: path, Problem: "cannot be opened", Expected: "a readable file", Advice: "check its permissions", Err: errors.Unwrap(err)}
		}
		r.closer, r.size, in = f, info.Size(), f
	}
	if err := r.start(in); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// counter counts the bytes read from the file, for progress.
type counter struct {
	in   io.Reader
	read *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (r *Reader) start(in io.Reader) error {
	raw := bufio.NewReaderSize(&counter{in, &r.read}, chunk)
	r.in = raw
	if magic, _ := raw.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(raw)
		if err != nil {
			return &ItemError{File: r.name, Problem: "is no whole gzip file", Expected: "gzip or plain text", Advice: "copy or download it again", Err: err}
		}
		text := bufio.NewReaderSize(z, chunk)
		r.in = text
		raw = text
	}
	if order := utf16Order(raw); order != nil {
		r.in = &utf16Reader{in: raw, order: order}
	}
	r.buf = make([]byte, chunk)
	if err := r.fill(0); err != nil && r.fatal != nil {
		return r.fatal
	}
	if bytes.HasPrefix(r.buf[:r.end], []byte("\xef\xbb\xbf")) {
		r.pos = 3
	}
	r.space()
	if r.pos == r.end {
		problem := "is empty"
		if r.base > 0 || r.end > 0 {
			problem = "holds nothing but white space"
		}
		return &ItemError{File: r.name, Problem: problem, Expected: "exported sign-ins as JSON, NDJSON or CSV",
			Advice: "export them again and check that the filter matches any", Err: r.cut}
	}
	switch r.buf[r.pos] {
	case '{', '[':
		r.format = FormatJSON
		return nil
	}
	for r.end-r.pos < 4096 && r.fill(r.pos) == nil {
	}
	head := r.buf[r.pos:min(r.end, r.pos+4096)]
	if junk := binaryAt(head); junk >= 0 {
		return &ItemError{File: r.name, Line: r.line, Problem: fmt.Sprintf("is no text: byte 0x%02x at offset %d", head[junk], r.base+int64(r.pos+junk)),
			Expected: "JSON, NDJSON or CSV, plain or compressed with gzip", Advice: "unpack other archives first, save a workbook as CSV"}
	}
	return r.startCSV()
}

// binaryAt returns the position of a byte that text does not hold, -1 for none.
func binaryAt(b []byte) int {
	for i := 0; i < len(b); {
		if b[i] < ' ' && b[i] != '\n' && b[i] != '\r' && b[i] != '\t' {
			return i
		}
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n == 1 && len(b)-i >= utf8.UTFMax {
			return i
		}
		i += n
	}
	return -1
}

// Close closes the file.
func (r *Reader) Close() error {
	if r.closer == nil {
		return nil
	}
	return r.closer.Close()
}

// Name returns the file's name as it stands in errors.
func (r *Reader) Name() string { return r.name }

// Format returns what the file holds.
func (r *Reader) Format() Format { return r.format }

// Size returns the file's size in bytes as it lies on disk, 0 where it is not known. It may be called at any time.
func (r *Reader) Size() int64 { return r.size }

// BytesRead returns how many bytes of the file were read so far, compressed ones for a compressed file. It may be
// called from another goroutine.
func (r *Reader) BytesRead() int64 { return r.read.Load() }

// Next returns the next value of the file. A value that is bad comes as an Item with Err; the error result is
// io.EOF behind the last value, or an error of reading that ends the file.
func (r *Reader) Next() (Item, error) {
	if r.format == FormatJSON {
		return r.nextJSON()
	}
	return r.nextCSV()
}

// fill reads more text. What stands before keep may be thrown away. It returns io.EOF where there is no more.
// Positions in buf move down by the returned shift, which the caller applies to its own.
func (r *Reader) fill(keep int) error {
	_, err := r.more(keep)
	return err
}

func (r *Reader) more(keep int) (shift int, err error) {
	if r.eof {
		return 0, io.EOF
	}
	if keep > 0 {
		copy(r.buf, r.buf[keep:r.end])
		r.end -= keep
		r.pos -= keep
		r.base += int64(keep)
		shift = keep
	}
	if r.end == len(r.buf) {
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	for tries := 0; tries < 100; tries++ {
		n, err := r.in.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			r.eof = true
			if !errors.Is(err, io.EOF) {
				if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) {
					r.cut = err
				} else {
					r.fatal = fmt.Errorf("read %s: %w", r.name, err)
				}
			}
			if n == 0 {
				return shift, io.EOF
			}
		}
		if n > 0 {
			return shift, nil
		}
	}
	r.eof = true
	r.fatal = fmt.Errorf("read %s: %w", r.name, io.ErrNoProgress)
	return shift, io.EOF
}

// space skips white space and counts lines; blank is how much of it stands directly before pos on its line.
func (r *Reader) space() {
	if r.offset() != r.blankEnd {
		r.blank = 0
	}
	for {
		for r.pos < r.end {
			switch r.buf[r.pos] {
			case '\n':
				r.line++
				r.blank = 0
			case ' ', '\t':
				r.blank++
			case '\r':
			default:
				r.blankEnd = r.offset()
				return
			}
			r.pos++
		}
		if r.fill(r.pos) != nil {
			r.blankEnd = r.offset()
			return
		}
	}
}

// advance moves to position p of buf and counts the lines passed.
func (r *Reader) advance(p int) {
	r.line += int64(bytes.Count(r.buf[r.pos:p], []byte("\n")))
	r.pos = p
}

func (r *Reader) offset() int64 { return r.base + int64(r.pos) }

// finished ends the file: the error that cut it short, if any, then io.EOF.
func (r *Reader) finished() (Item, error) {
	if r.fatal != nil {
		return Item{}, r.fatal
	}
	if r.cut != nil {
		err := r.cut
		r.cut = nil
		return Item{Line: r.line, Offset: r.offset(), Err: &ItemError{File: r.name, Line: r.line, Problem: "the compressed file is cut or damaged",
			Expected: "the rest of it", Advice: "copy or download it again; what stands before was read", Err: err}}, nil
	}
	return Item{}, io.EOF
}

// maxValue bounds one record of a file, in bytes; the decoder takes no larger ones.
const maxValue = schemas.MaxRecordSize
