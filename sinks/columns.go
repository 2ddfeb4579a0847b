package sinks

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/ClickHouse/ch-go/proto"
)

// The columns of a block. They differ from those of ch-go in one way: put may overwrite an earlier row, so
// that of several revisions of one key a block holds only the newest, and view gives a range of rows, so
// that a bad row can be looked for. All keep their memory over reset. put(row, v) with row equal to the
// number of rows appends.

// column is what a table needs of its columns.
type column interface {
	// view returns rows [lo, hi) for encoding. It stays valid until the next put or reset. The view of a
	// whole column may be the column itself.
	view(lo, hi int) proto.ColInput
	// appendText appends a row in the text that verify hashes. textSQL is the same text as ClickHouse makes it of an
	// expression of the column's type. A value's text tells where it ends, so that texts can stand side by side.
	appendText(dst []byte, row int) []byte
	textSQL(expression string) string
	reset()
}

// stringColumn is String. Its values are copies.
type stringColumn struct{ proto.ColStr }

func (c *stringColumn) put(row int, v string) {
	if row < len(c.Pos) {
		// A value that fits takes the place of the old one, so that an incident that is revised a
		// thousand times within a block does not hold a thousand copies.
		if p := c.Pos[row]; len(v) <= p.End-p.Start {
			copy(c.Buf[p.Start:], v)
			c.Pos[row].End = p.Start + len(v)
			return
		}
		c.Buf = append(c.Buf, v...)
		c.Pos[row] = proto.Position{Start: len(c.Buf) - len(v), End: len(c.Buf)}
		return
	}
	c.Buf = append(c.Buf, v...)
	c.Pos = append(c.Pos, proto.Position{Start: len(c.Buf) - len(v), End: len(c.Buf)})
}

// putBytes appends a row.
func (c *stringColumn) putBytes(v []byte) {
	c.Buf = append(c.Buf, v...)
	c.Pos = append(c.Pos, proto.Position{Start: len(c.Buf) - len(v), End: len(c.Buf)})
}

func (c *stringColumn) at(row int) string { p := c.Pos[row]; return string(c.Buf[p.Start:p.End]) }

// equal reports whether a row holds v, without a copy.
func (c *stringColumn) equal(row int, v string) bool {
	p := c.Pos[row]
	return string(c.Buf[p.Start:p.End]) == v
}

func (c *stringColumn) view(lo, hi int) proto.ColInput {
	if lo == 0 && hi == len(c.Pos) {
		return c.ColStr
	}
	return proto.ColStr{Buf: c.Buf, Pos: c.Pos[lo:hi]}
}

func (c *stringColumn) appendText(dst []byte, row int) []byte {
	p := c.Pos[row]
	return appendStringText(dst, c.Buf[p.Start:p.End])
}

func (c *stringColumn) textSQL(e string) string { return stringTextSQL(e) }

func (c *stringColumn) reset() { c.Buf, c.Pos = c.Buf[:0], c.Pos[:0] }

// dictionary gives each distinct string of a block a small number. Values are copied when they are seen for
// the first time in the life of the dictionary, so that a block of known names allocates nothing.
type dictionary struct {
	ids    map[string]uint32 // value to its index in values
	values []string
	// seen[id] is generation<<32 | key when the value has a key in the block of that generation.
	seen       []uint64
	generation uint32
	block      []uint32 // ids of this block's values; a value's position is its key
	lastValue  string   // of values, never an alias of a caller's string
	lastKey    uint32
}

// maxDictionaryValues bounds what a dictionary remembers over blocks: names of applications and the like
// number in the thousands, and 65 536 of 40 B with their map are some 8 MB.
const maxDictionaryValues = 1 << 16

// key returns the number of v within the block.
func (d *dictionary) key(v string) uint32 {
	if len(d.block) > 0 && v == d.lastValue {
		return d.lastKey
	}
	id, ok := d.ids[v]
	if !ok {
		if d.ids == nil {
			d.ids = make(map[string]uint32)
		}
		id = uint32(len(d.values))
		v = string(append([]byte(nil), v...))
		d.ids[v] = id
		d.values = append(d.values, v)
		d.seen = append(d.seen, math.MaxUint64)
	}
	if d.seen[id]>>32 != uint64(d.generation) {
		d.seen[id] = uint64(d.generation)<<32 | uint64(len(d.block))
		d.block = append(d.block, id)
	}
	d.lastValue, d.lastKey = d.values[id], uint32(d.seen[id])
	return d.lastKey
}

// value returns the string of a key of this block.
func (d *dictionary) value(key uint32) string { return d.values[d.block[key]] }

func (d *dictionary) reset() {
	d.block = d.block[:0]
	d.generation++
	if len(d.values) > maxDictionaryValues || d.generation == math.MaxUint32 {
		*d = dictionary{}
	}
}

// encodeState writes the version of the serialisation of LowCardinality in the native format.
func encodeLowCardinalityState(b *proto.Buffer) { b.PutInt64(1) }

// Flags of a LowCardinality column in the native format: its own keys follow, no shared dictionary.
const lowCardinalityFlags = 1<<9 | 1<<10

// encode writes the dictionary and the given keys of it, in the narrowest integers that fit.
func (d *dictionary) encode(b *proto.Buffer, rows int, keys func(yield func(uint32) bool)) {
	if rows == 0 {
		return
	}
	width := int64(proto.KeyUInt32)
	switch n := len(d.block); {
	case n <= math.MaxUint8+1:
		width = int64(proto.KeyUInt8)
	case n <= math.MaxUint16+1:
		width = int64(proto.KeyUInt16)
	}
	b.PutInt64(lowCardinalityFlags | width)
	b.PutInt64(int64(len(d.block)))
	for _, id := range d.block {
		b.PutString(d.values[id])
	}
	b.PutInt64(int64(rows))
	switch width {
	case int64(proto.KeyUInt8):
		for k := range keys {
			b.Buf = append(b.Buf, uint8(k))
		}
	case int64(proto.KeyUInt16):
		for k := range keys {
			b.Buf = binary.LittleEndian.AppendUint16(b.Buf, uint16(k))
		}
	default:
		for k := range keys {
			b.Buf = binary.LittleEndian.AppendUint32(b.Buf, k)
		}
	}
}

// lowCardinalityColumn is LowCardinality(String).
type lowCardinalityColumn struct {
	dictionary
	keys []uint32
}

func (c *lowCardinalityColumn) put(row int, v string) {
	k := c.key(v)
	if row < len(c.keys) {
		c.keys[row] = k
		return
	}
	c.keys = append(c.keys, k)
}

func (c *lowCardinalityColumn) at(row int) string { return c.value(c.keys[row]) }

func (c *lowCardinalityColumn) equal(row int, v string) bool { return c.value(c.keys[row]) == v }

func (c *lowCardinalityColumn) view(lo, hi int) proto.ColInput {
	return lowCardinalityView{&c.dictionary, c.keys[lo:hi]}
}

func (c *lowCardinalityColumn) appendText(dst []byte, row int) []byte {
	return appendStringText(dst, c.value(c.keys[row]))
}

func (c *lowCardinalityColumn) textSQL(e string) string { return stringTextSQL(e) }

func (c *lowCardinalityColumn) reset() { c.dictionary.reset(); c.keys = c.keys[:0] }

type lowCardinalityView struct {
	d    *dictionary
	keys []uint32
}

func (v lowCardinalityView) Type() proto.ColumnType      { return "LowCardinality(String)" }
func (v lowCardinalityView) Rows() int                   { return len(v.keys) }
func (v lowCardinalityView) EncodeState(b *proto.Buffer) { encodeLowCardinalityState(b) }
func (v lowCardinalityView) WriteColumn(w *proto.Writer) { w.ChainBuffer(v.EncodeColumn) }
func (v lowCardinalityView) EncodeColumn(b *proto.Buffer) {
	v.d.encode(b, len(v.keys), func(yield func(uint32) bool) {
		for _, k := range v.keys {
			if !yield(k) {
				return
			}
		}
	})
}

// span is where a row's elements lie.
type span struct{ start, end uint32 }

func encodeOffsets(b *proto.Buffer, spans []span) (elements int) {
	var total uint64
	for _, s := range spans {
		total += uint64(s.end - s.start)
		b.PutUInt64(total)
	}
	return int(total)
}

// lowCardinalityArrayColumn is Array(LowCardinality(String)).
type lowCardinalityArrayColumn struct {
	dictionary
	elements []uint32
	spans    []span
}

func (c *lowCardinalityArrayColumn) put(row int, vs []string) {
	s := span{start: uint32(len(c.elements))}
	for _, v := range vs {
		c.elements = append(c.elements, c.key(v))
	}
	s.end = uint32(len(c.elements))
	if row < len(c.spans) {
		c.spans[row] = s
		return
	}
	c.spans = append(c.spans, s)
}

func (c *lowCardinalityArrayColumn) at(row int) []string {
	var vs []string
	for _, k := range c.elements[c.spans[row].start:c.spans[row].end] {
		vs = append(vs, c.value(k))
	}
	return vs
}

func (c *lowCardinalityArrayColumn) view(lo, hi int) proto.ColInput {
	return lowCardinalityArrayView{c, c.spans[lo:hi]}
}

func (c *lowCardinalityArrayColumn) appendText(dst []byte, row int) []byte {
	keys := c.elements[c.spans[row].start:c.spans[row].end]
	dst = appendNumberText(dst, len(keys))
	for _, k := range keys {
		dst = appendStringText(dst, c.value(k))
	}
	return dst
}

func (c *lowCardinalityArrayColumn) textSQL(e string) string { return arrayTextSQL(e) }

func (c *lowCardinalityArrayColumn) reset() {
	c.dictionary.reset()
	c.elements, c.spans = c.elements[:0], c.spans[:0]
}

type lowCardinalityArrayView struct {
	c     *lowCardinalityArrayColumn
	spans []span
}

func (v lowCardinalityArrayView) Type() proto.ColumnType      { return "Array(LowCardinality(String))" }
func (v lowCardinalityArrayView) Rows() int                   { return len(v.spans) }
func (v lowCardinalityArrayView) EncodeState(b *proto.Buffer) { encodeLowCardinalityState(b) }
func (v lowCardinalityArrayView) WriteColumn(w *proto.Writer) { w.ChainBuffer(v.EncodeColumn) }
func (v lowCardinalityArrayView) EncodeColumn(b *proto.Buffer) {
	n := encodeOffsets(b, v.spans)
	v.c.encode(b, n, func(yield func(uint32) bool) {
		for _, s := range v.spans {
			for _, k := range v.c.elements[s.start:s.end] {
				if !yield(k) {
					return
				}
			}
		}
	})
}

// stringArrayColumn is Array(String). A row that is overwritten takes the place of the old one as far as
// it fits, as in stringColumn.
type stringArrayColumn struct {
	buf      []byte
	elements []proto.Position
	spans    []span
}

func (c *stringArrayColumn) put(row int, vs []string) {
	if row < len(c.spans) {
		s := c.spans[row]
		// Most revisions repeat what the row already held and add to its end.
		same := 0
		for same < len(vs) && same < int(s.end-s.start) {
			p := c.elements[int(s.start)+same]
			if string(c.buf[p.Start:p.End]) != vs[same] {
				break
			}
			same++
		}
		if same == len(vs) {
			c.spans[row].end = s.start + uint32(same)
			return
		}
		start := uint32(len(c.elements))
		c.elements = append(c.elements, c.elements[s.start:int(s.start)+same]...)
		for _, v := range vs[same:] {
			c.add(v)
		}
		c.spans[row] = span{start, uint32(len(c.elements))}
		return
	}
	start := uint32(len(c.elements))
	for _, v := range vs {
		c.add(v)
	}
	c.spans = append(c.spans, span{start, uint32(len(c.elements))})
}

// size is the memory that the column holds, superseded rows included: 16 B per element and 8 B per row.
func (c *stringArrayColumn) size() int { return len(c.buf) + 16*len(c.elements) + 8*len(c.spans) }

func (c *stringArrayColumn) add(v string) {
	c.buf = append(c.buf, v...)
	c.elements = append(c.elements, proto.Position{Start: len(c.buf) - len(v), End: len(c.buf)})
}

func (c *stringArrayColumn) at(row int) []string {
	var vs []string
	for _, p := range c.elements[c.spans[row].start:c.spans[row].end] {
		vs = append(vs, string(c.buf[p.Start:p.End]))
	}
	return vs
}

func (c *stringArrayColumn) view(lo, hi int) proto.ColInput {
	return stringArrayView{c, c.spans[lo:hi]}
}

func (c *stringArrayColumn) appendText(dst []byte, row int) []byte {
	elements := c.elements[c.spans[row].start:c.spans[row].end]
	dst = appendNumberText(dst, len(elements))
	for _, p := range elements {
		dst = appendStringText(dst, c.buf[p.Start:p.End])
	}
	return dst
}

func (c *stringArrayColumn) textSQL(e string) string { return arrayTextSQL(e) }

func (c *stringArrayColumn) reset() {
	c.buf, c.elements, c.spans = c.buf[:0], c.elements[:0], c.spans[:0]
}

func (c *stringArrayColumn) encodeElements(b *proto.Buffer, spans []span) {
	for _, s := range spans {
		for _, p := range c.elements[s.start:s.end] {
			b.PutUVarInt(uint64(p.End - p.Start))
			b.Buf = append(b.Buf, c.buf[p.Start:p.End]...)
		}
	}
}

type stringArrayView struct {
	c     *stringArrayColumn
	spans []span
}

func (v stringArrayView) Type() proto.ColumnType      { return "Array(String)" }
func (v stringArrayView) Rows() int                   { return len(v.spans) }
func (v stringArrayView) WriteColumn(w *proto.Writer) { w.ChainBuffer(v.EncodeColumn) }
func (v stringArrayView) EncodeColumn(b *proto.Buffer) {
	encodeOffsets(b, v.spans)
	v.c.encodeElements(b, v.spans)
}

// countsColumn is Map(String, Int64): in the native format offsets, then all names, then all numbers.
type countsColumn struct {
	names  stringArrayColumn
	values []int64 // beside names.elements
}

func (c *countsColumn) put(row int, n int, at func(int) (string, int64)) {
	if row < len(c.names.spans) && c.overwrite(c.names.spans[row], n, at) {
		return
	}
	start := uint32(len(c.names.elements))
	for i := range n {
		name, value := at(i)
		c.names.add(name)
		c.values = append(c.values, value)
	}
	put(&c.names.spans, row, span{start, uint32(len(c.names.elements))})
}

// overwrite puts new numbers in the place of old ones, if the names are the same.
func (c *countsColumn) overwrite(s span, n int, at func(int) (string, int64)) bool {
	if int(s.end-s.start) != n {
		return false
	}
	for i := range n {
		p := c.names.elements[int(s.start)+i]
		if name, _ := at(i); string(c.names.buf[p.Start:p.End]) != name {
			return false
		}
	}
	for i := range n {
		_, c.values[int(s.start)+i] = at(i)
	}
	return true
}

func (c *countsColumn) size() int { return c.names.size() + 8*len(c.values) }

func (c *countsColumn) at(row int) map[string]int64 {
	counts := make(map[string]int64)
	s := c.names.spans[row]
	for i := s.start; i < s.end; i++ {
		p := c.names.elements[i]
		counts[string(c.names.buf[p.Start:p.End])] = c.values[i]
	}
	return counts
}

func (c *countsColumn) view(lo, hi int) proto.ColInput { return countsView{c, c.names.spans[lo:hi]} }

// appendText sorts by name: in which order a map is stored is the server's business.
func (c *countsColumn) appendText(dst []byte, row int) []byte {
	counts := c.at(row)
	dst = appendNumberText(dst, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		dst = appendNumberText(appendStringText(dst, name), counts[name])
	}
	return dst
}

func (c *countsColumn) textSQL(e string) string {
	return "concat(" + numberTextSQL("length("+e+")") + ", arrayStringConcat(arrayMap(x -> concat(" + stringTextSQL("x.1") + ", " + numberTextSQL("x.2") +
		"), arraySort(arrayZip(mapKeys(" + e + "), mapValues(" + e + "))))))"
}

func (c *countsColumn) reset() { c.names.reset(); c.values = c.values[:0] }

type countsView struct {
	c     *countsColumn
	spans []span
}

func (v countsView) Type() proto.ColumnType      { return "Map(String, Int64)" }
func (v countsView) Rows() int                   { return len(v.spans) }
func (v countsView) WriteColumn(w *proto.Writer) { w.ChainBuffer(v.EncodeColumn) }
func (v countsView) EncodeColumn(b *proto.Buffer) {
	encodeOffsets(b, v.spans)
	v.c.names.encodeElements(b, v.spans)
	for _, s := range v.spans {
		for _, n := range v.c.values[s.start:s.end] {
			b.PutInt64(n)
		}
	}
}

// put writes v to a row of a slice that is a column, or appends it.
func put[S ~[]T, T any](c *S, row int, v T) {
	if row < len(*c) {
		(*c)[row] = v
		return
	}
	*c = append(*c, v)
}

// Columns of fixed width are those of ch-go; the wrappers add view and reset.
type (
	int32Column  struct{ proto.ColInt32 }
	int64Column  struct{ proto.ColInt64 }
	uint16Column struct{ proto.ColUInt16 }
	uint32Column struct{ proto.ColUInt32 }
	uint64Column struct{ proto.ColUInt64 }
)

func (c *int32Column) put(row int, v int32)           { put(&c.ColInt32, row, v) }
func (c *int32Column) view(lo, hi int) proto.ColInput { return c.ColInt32[lo:hi] }
func (c *int32Column) reset()                         { c.ColInt32 = c.ColInt32[:0] }
func (c *int32Column) appendText(dst []byte, row int) []byte {
	return appendNumberText(dst, c.ColInt32[row])
}
func (c *int32Column) textSQL(e string) string        { return numberTextSQL(e) }
func (c *int64Column) put(row int, v int64)           { put(&c.ColInt64, row, v) }
func (c *int64Column) view(lo, hi int) proto.ColInput { return c.ColInt64[lo:hi] }
func (c *int64Column) reset()                         { c.ColInt64 = c.ColInt64[:0] }
func (c *int64Column) appendText(dst []byte, row int) []byte {
	return appendNumberText(dst, c.ColInt64[row])
}
func (c *int64Column) textSQL(e string) string         { return numberTextSQL(e) }
func (c *uint16Column) put(row int, v uint16)          { put(&c.ColUInt16, row, v) }
func (c *uint16Column) view(lo, hi int) proto.ColInput { return c.ColUInt16[lo:hi] }
func (c *uint16Column) reset()                         { c.ColUInt16 = c.ColUInt16[:0] }
func (c *uint16Column) appendText(dst []byte, row int) []byte {
	return appendNumberText(dst, c.ColUInt16[row])
}
func (c *uint16Column) textSQL(e string) string        { return numberTextSQL(e) }
func (c *uint32Column) put(row int, v uint32)          { put(&c.ColUInt32, row, v) }
func (c *uint32Column) view(lo, hi int) proto.ColInput { return c.ColUInt32[lo:hi] }
func (c *uint32Column) reset()                         { c.ColUInt32 = c.ColUInt32[:0] }
func (c *uint32Column) appendText(dst []byte, row int) []byte {
	return appendNumberText(dst, c.ColUInt32[row])
}
func (c *uint32Column) textSQL(e string) string        { return numberTextSQL(e) }
func (c *uint64Column) put(row int, v uint64)          { put(&c.ColUInt64, row, v) }
func (c *uint64Column) view(lo, hi int) proto.ColInput { return c.ColUInt64[lo:hi] }
func (c *uint64Column) reset()                         { c.ColUInt64 = c.ColUInt64[:0] }
func (c *uint64Column) appendText(dst []byte, row int) []byte {
	return appendNumberText(dst, c.ColUInt64[row])
}
func (c *uint64Column) textSQL(e string) string { return numberTextSQL(e) }

// microsecondsColumn is DateTime64(6, 'UTC'), millisecondsColumn DateTime64(3, 'UTC'); both hold ticks since
// the Unix epoch.
type (
	microsecondsColumn struct{ int64Column }
	millisecondsColumn struct{ int64Column }
	microsecondsView   struct{ proto.ColInt64 }
	millisecondsView   struct{ proto.ColInt64 }
)

func (c *microsecondsColumn) view(lo, hi int) proto.ColInput {
	return microsecondsView{c.ColInt64[lo:hi]}
}
func (c *millisecondsColumn) view(lo, hi int) proto.ColInput {
	return millisecondsView{c.ColInt64[lo:hi]}
}
func (*microsecondsColumn) textSQL(e string) string {
	return numberTextSQL("toUnixTimestamp64Micro(" + e + ")")
}
func (*millisecondsColumn) textSQL(e string) string {
	return numberTextSQL("toUnixTimestamp64Milli(" + e + ")")
}
func (microsecondsView) Type() proto.ColumnType { return "DateTime64(6, 'UTC')" }
func (millisecondsView) Type() proto.ColumnType { return "DateTime64(3, 'UTC')" }

// appendStringText appends the length in bytes, a colon and the bytes.
func appendStringText[S string | []byte](dst []byte, v S) []byte {
	dst = strconv.AppendInt(dst, int64(len(v)), 10)
	return append(append(dst, ':'), v...)
}

func stringTextSQL(e string) string {
	return "concat(toString(length(" + e + ")), ':', toString(" + e + "))"
}

// appendNumberText appends the decimal number and a semicolon.
func appendNumberText[N int | int32 | int64 | uint16 | uint32 | uint64](dst []byte, v N) []byte {
	if v < 0 {
		dst = strconv.AppendInt(dst, int64(v), 10)
	} else {
		dst = strconv.AppendUint(dst, uint64(v), 10)
	}
	return append(dst, ';')
}

func numberTextSQL(e string) string { return "concat(toString(" + e + "), ';')" }

func arrayTextSQL(e string) string {
	return "concat(" + numberTextSQL("length("+e+")") + ", arrayStringConcat(arrayMap(x -> " + stringTextSQL("x") + ", " + e + ")))"
}
