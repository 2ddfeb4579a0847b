package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go/compress"
)

// The record batch of Kafka 0.11 and later (magic 2), big-endian, as in
// https://kafka.apache.org/documentation/#recordbatch.
const (
	batchBaseOffset      = 0
	batchLength          = 8
	batchMagic           = 16
	batchCRC             = 17
	batchAttributes      = 21
	batchLastOffsetDelta = 23
	batchBaseTimestamp   = 27
	batchMaxTimestamp    = 35
	batchProducerID      = 43
	batchCount           = 57
	batchHeader          = 61
	// batchLengthPrefix is what batchLength does not count: base offset and the length itself.
	batchLengthPrefix = 12

	attributeCodec         = 0x07
	attributeLogAppendTime = 0x08
	attributeTransactional = 0x10
	attributeControl       = 0x20

	// recordOverhead bounds what a record adds to its value: length, attributes, two deltas, null key, value
	// length and header count.
	recordOverhead = 5 + 1 + 1 + 5 + 1 + 5 + 1
)

// maxDecompressed bounds the decompressed size of one batch in bytes. Kafka's default for a compressed
// batch is 1 MiB, and JSON packs 10 to 20 times; beyond this bound a batch is taken for hostile.
const maxDecompressed = 256 << 20

// maxArena is how much one call of decode unpacks before it stops between batches, in bytes; the rest is fetched again.
const maxArena = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one record of a partition. Value aliases a buffer of the reader that gave it.
type Record struct {
	Offset int64
	// Time is the record's Kafka time in milliseconds since the Unix epoch: the broker's where the topic
	// is configured with LogAppendTime, else the producer's.
	Time  int64
	Value []byte
}

// Codec is how record batches are compressed.
type Codec int8

// Codecs that this package writes. It reads gzip and snappy as well.
const (
	CodecNone Codec = 0
	CodecLZ4  Codec = 3
	CodecZstd Codec = 4
)

// batchWriter builds record batches. It is not safe for concurrent use.
type batchWriter struct {
	codec Codec
	body  []byte
	out   []byte
	count int32
	lz4   *lz4.Writer
	zstd  *zstd.Encoder
}

func newBatchWriter(codec Codec) (*batchWriter, error) {
	w := &batchWriter{codec: codec}
	switch codec {
	case CodecNone:
	case CodecLZ4:
		w.lz4 = lz4.NewWriter(nil)
		if err := w.lz4.Apply(lz4.BlockSizeOption(lz4.Block256Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1)); err != nil {
			return nil, fmt.Errorf("set up lz4: %w", err)
		}
	case CodecZstd:
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			return nil, fmt.Errorf("set up zstd: %w", err)
		}
		w.zstd = e
	default:
		return nil, fmt.Errorf("compression %d cannot be written", codec)
	}
	return w, nil
}

// reset empties the batch.
func (w *batchWriter) reset() { w.body, w.count = w.body[:0], 0 }

// size is the batch's size in bytes before compression.
func (w *batchWriter) size() int { return batchHeader + len(w.body) }

// add appends a record without a key.
func (w *batchWriter) add(value []byte) {
	delta := int64(w.count)
	n := 1 + 1 + varintLen(delta) + 1 + varintLen(int64(len(value))) + len(value) + 1
	b := binary.AppendVarint(w.body, int64(n))
	b = append(b, 0, 0) // attributes, time delta
	b = binary.AppendVarint(b, delta)
	b = append(b, 1) // key length -1: no key
	b = binary.AppendVarint(b, int64(len(value)))
	b = append(b, value...)
	w.body = append(b, 0) // no headers
	w.count++
}

// finish returns the batch with all records at time milli, milliseconds since the Unix epoch. The bytes
// are valid until the next finish.
func (w *batchWriter) finish(milli int64) ([]byte, error) {
	b := append(w.out[:0], make([]byte, batchHeader)...)
	switch w.codec {
	case CodecNone:
		b = append(b, w.body...)
	case CodecZstd:
		b = w.zstd.EncodeAll(w.body, b)
	case CodecLZ4:
		to := appender(b)
		w.lz4.Reset(&to)
		if _, err := w.lz4.Write(w.body); err != nil {
			return nil, fmt.Errorf("compress a batch of %d records: %w", w.count, err)
		}
		if err := w.lz4.Close(); err != nil {
			return nil, fmt.Errorf("compress a batch of %d records: %w", w.count, err)
		}
		b = to
	}
	w.out = b
	binary.BigEndian.PutUint32(b[batchLength:], uint32(len(b)-batchLengthPrefix))
	binary.BigEndian.PutUint32(b[12:], 0xffffffff) // partition leader epoch: the broker's business
	b[batchMagic] = 2
	binary.BigEndian.PutUint16(b[batchAttributes:], uint16(w.codec))
	binary.BigEndian.PutUint32(b[batchLastOffsetDelta:], uint32(w.count-1))
	binary.BigEndian.PutUint64(b[batchBaseTimestamp:], uint64(milli))
	binary.BigEndian.PutUint64(b[batchMaxTimestamp:], uint64(milli))
	for i := batchProducerID; i < batchCount; i++ {
		b[i] = 0xff // no producer id, epoch or sequence
	}
	binary.BigEndian.PutUint32(b[batchCount:], uint32(w.count))
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
	return b, nil
}

type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}

// abortedTransaction is one entry of a fetch response: records of the producer from the offset on are
// aborted until its abort marker.
type abortedTransaction struct {
	producer int64
	first    int64
}

// gap is a range of offsets [from, to) that a partition's log skips.
type gap struct{ from, to int64 }

// batchReader takes record batches apart. It is not safe for concurrent use.
type batchReader struct {
	arena   []byte
	from    bytes.Reader
	lz4     *lz4.Reader
	zstd    *zstd.Decoder
	aborted map[int64]bool
}

// decode appends the records of set at offset next and later to records. set is the record set of a fetch
// response, whose last batch may be cut off; values alias set or the reader's arena, which the caller lets go of
// before the next call. It returns the offset to fetch next, and the offsets that no batch covers.
// Control records and those of aborted transactions are left out. An error names the batch's offset; the
// records before it are returned with it.
func (r *batchReader) decode(set []byte, next int64, aborted []abortedTransaction, records []Record, gaps []gap) ([]Record, []gap, int64, error) {
	if cap(r.arena) > maxArena {
		r.arena = nil // a rare huge batch is left to the collector
	}
	r.arena = r.arena[:0]
	clear(r.aborted)
	for len(set) >= batchHeader && (len(r.arena) < maxArena || len(records) == 0) {
		base := int64(binary.BigEndian.Uint64(set[batchBaseOffset:]))
		size := int(int32(binary.BigEndian.Uint32(set[batchLength:]))) + batchLengthPrefix
		if magic := set[batchMagic]; magic != 2 {
			return records, gaps, next, fmt.Errorf("batch at offset %d has message format %d, want 2 (Kafka 0.11 or later): %w", base, magic, errCorrupt)
		}
		if size < batchHeader {
			return records, gaps, next, fmt.Errorf("batch at offset %d says it has %d bytes: %w", base, size, errCorrupt)
		}
		if size > len(set) {
			break
		}
		batch := set[:size]
		set = set[size:]
		last := base + int64(int32(binary.BigEndian.Uint32(batch[batchLastOffsetDelta:])))
		if last < next {
			continue
		}
		if sum := crc32.Checksum(batch[batchAttributes:], castagnoli); sum != binary.BigEndian.Uint32(batch[batchCRC:]) {
			return records, gaps, next, fmt.Errorf("batch at offset %d has another checksum than its bytes: %w", base, errCorrupt)
		}
		if base > next {
			gaps = append(gaps, gap{next, base})
		}
		attributes := binary.BigEndian.Uint16(batch[batchAttributes:])
		producer := int64(binary.BigEndian.Uint64(batch[batchProducerID:]))
		for len(aborted) > 0 && aborted[0].first <= last {
			if r.aborted == nil {
				r.aborted = make(map[int64]bool)
			}
			r.aborted[aborted[0].producer] = true
			aborted = aborted[1:]
		}
		skip := attributes&attributeControl != 0
		if skip {
			// Abort and commit markers both end the producer's transaction.
			delete(r.aborted, producer)
		} else if attributes&attributeTransactional != 0 && r.aborted[producer] {
			skip = true
		}
		if skip {
			next = last + 1
			continue
		}
		body, err := r.body(Codec(attributes&attributeCodec), batch[batchHeader:])
		if err != nil {
			return records, gaps, next, fmt.Errorf("decompress batch at offset %d: %w (%w)", base, err, errCorrupt)
		}
		baseTime := int64(binary.BigEndian.Uint64(batch[batchBaseTimestamp:]))
		appendTime := attributes&attributeLogAppendTime != 0
		if appendTime {
			baseTime = int64(binary.BigEndian.Uint64(batch[batchMaxTimestamp:]))
		}
		count := int(int32(binary.BigEndian.Uint32(batch[batchCount:])))
		expected := max(base, next)
		for i := 0; i < count; i++ {
			rec, rest, ok := readRecord(body)
			if !ok {
				return records, gaps, expected, fmt.Errorf("batch at offset %d: record %d of %d is cut off: %w", base, i, count, errCorrupt)
			}
			body = rest
			rec.Offset += base
			if rec.Offset < next {
				continue
			}
			if appendTime {
				rec.Time = baseTime
			} else {
				rec.Time += baseTime
			}
			if rec.Offset > expected {
				gaps = append(gaps, gap{expected, rec.Offset})
			}
			expected = rec.Offset + 1
			records = append(records, rec)
		}
		if expected <= last {
			gaps = append(gaps, gap{expected, last + 1})
		}
		next = last + 1
	}
	return records, gaps, next, nil
}

// errCorrupt marks bytes that are no valid record batch.
var errCorrupt = errors.New("corrupt record batch")

// body returns the batch's records in plain.
func (r *batchReader) body(codec Codec, src []byte) ([]byte, error) {
	start := len(r.arena)
	switch codec {
	case CodecNone:
		return src, nil
	case CodecZstd:
		if r.zstd == nil {
			d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecompressed))
			if err != nil {
				return nil, err
			}
			r.zstd = d
		}
		out, err := r.zstd.DecodeAll(src, r.arena)
		if err != nil {
			return nil, err
		}
		r.arena = out
		return out[start:len(out):len(out)], nil
	}
	r.from.Reset(src)
	var from io.Reader
	switch codec {
	case CodecLZ4:
		if r.lz4 == nil {
			r.lz4 = lz4.NewReader(nil)
		}
		r.lz4.Reset(&r.from)
		from = r.lz4
	default:
		if int(codec) >= len(compress.Codecs) || compress.Codecs[codec] == nil {
			return nil, fmt.Errorf("compression %d is unknown", codec)
		}
		c := compress.Codecs[codec].NewReader(&r.from)
		defer c.Close()
		from = c
	}
	// Records alias the arena. Where it grows, older records keep the array that they point to.
	out := r.arena
	for {
		if cap(out)-len(out) < 4<<10 {
			bigger := make([]byte, len(out), max(2*cap(out), len(out)+4*len(src), 256<<10))
			copy(bigger, out)
			out = bigger
		}
		n, err := from.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if len(out)-start > maxDecompressed {
			return nil, fmt.Errorf("more than %d bytes when decompressed", maxDecompressed)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	r.arena = out
	return out[start:len(out):len(out)], nil
}

// readRecord takes one record off b. Its offset and time are deltas.
func readRecord(b []byte) (rec Record, rest []byte, ok bool) {
	size, n := binary.Varint(b)
	if n <= 0 || size < 1 || size > int64(len(b)-n) {
		return rec, nil, false
	}
	rest = b[n+int(size):]
	b = b[n+1 : n+int(size)] // without the attributes, which are unused
	if rec.Time, n = binary.Varint(b); n <= 0 {
		return rec, nil, false
	}
	b = b[n:]
	if rec.Offset, n = binary.Varint(b); n <= 0 {
		return rec, nil, false
	}
	b = b[n:]
	if _, b, ok = readBytes(b); !ok {
		return rec, nil, false
	}
	rec.Value, _, ok = readBytes(b)
	return rec, rest, ok
}

// readBytes takes a length and so many bytes off b; a negative length is null.
func readBytes(b []byte) (value, rest []byte, ok bool) {
	size, n := binary.Varint(b)
	if n <= 0 || size > int64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	if size < 0 {
		return nil, b, true
	}
	return b[:size:size], b[size:], true
}
