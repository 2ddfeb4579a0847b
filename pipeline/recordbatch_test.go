package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
)

func buildBatch(t testing.TB, codec Codec, base, milli int64, values ...string) []byte {
	t.Helper()
	w, err := newBatchWriter(codec)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		w.add([]byte(v))
	}
	b, err := w.finish(milli)
	if err != nil {
		t.Fatal(err)
	}
	b = slices.Clone(b)
	binary.BigEndian.PutUint64(b, uint64(base))
	return b
}

// change edits a batch and mends its checksum.
func change(b []byte, f func(b []byte)) []byte {
	b = slices.Clone(b)
	f(b)
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
	return b
}

func TestBatchesRoundTrip(t *testing.T) {
	for _, codec := range []Codec{CodecNone, CodecLZ4, CodecZstd} {
		long := strings.Repeat("0123456789abcdef", 50_000)
		set := append(buildBatch(t, codec, 10, 1000, "a", "", "ccc"), buildBatch(t, codec, 13, 2000, long, "e")...)
		for _, next := range []int64{10, 12, 14, 15} {
			var r batchReader
			records, gaps, after, err := r.decode(set, next, nil, nil, nil)
			if err != nil || after != 15 || len(gaps) > 0 {
				t.Fatalf("codec %d from %d: next %d, gaps %v, error %v", codec, next, after, gaps, err)
			}
			want := []string{"a", "", "ccc", long, "e"}[next-10:]
			if len(records) != len(want) {
				t.Fatalf("codec %d from %d: %d records, want %d", codec, next, len(records), len(want))
			}
			for i, rec := range records {
				at := int64(1000)
				if rec.Offset >= 13 {
					at = 2000
				}
				if rec.Offset != next+int64(i) || string(rec.Value) != want[i] || rec.Time != at {
					t.Errorf("codec %d from %d: record %d at %d ms", codec, next, rec.Offset, rec.Time)
				}
			}
		}
		// A batch that is cut off is left for the next fetch.
		var r batchReader
		records, _, after, err := r.decode(set[:len(set)-1], 10, nil, nil, nil)
		if err != nil || len(records) != 3 || after != 13 {
			t.Errorf("codec %d, cut off: %d records, next %d, error %v", codec, len(records), after, err)
		}
	}
}

func TestBatchesWithoutRecords(t *testing.T) {
	data := buildBatch(t, CodecNone, 0, 1, "a", "b")
	transactional := func(producer int64) func([]byte) {
		return func(b []byte) {
			binary.BigEndian.PutUint16(b[batchAttributes:], attributeTransactional)
			binary.BigEndian.PutUint64(b[batchProducerID:], uint64(producer))
		}
	}
	marker := func(producer int64) func([]byte) {
		return func(b []byte) {
			transactional(producer)(b)
			binary.BigEndian.PutUint16(b[batchAttributes:], attributeTransactional|attributeControl)
		}
	}
	at := func(base int64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b, uint64(base)) }
	}
	one := buildBatch(t, CodecNone, 0, 1, "x")
	set := slices.Concat(
		change(change(data, transactional(7)), at(0)), // aborted: 0, 1
		change(change(data, transactional(8)), at(2)), // committed: 2, 3
		change(change(one, marker(7)), at(4)),         // the abort marker of 7
		change(change(data, transactional(7)), at(5)), // the next transaction of 7: 5, 6
		change(change(one, marker(8)), at(7)),
	)
	var r batchReader
	records, gaps, next, err := r.decode(set, 0, []abortedTransaction{{producer: 7, first: 0}}, nil, nil)
	if err != nil || next != 8 || len(gaps) > 0 {
		t.Fatalf("next %d, gaps %v, error %v", next, gaps, err)
	}
	var offsets []int64
	for _, rec := range records {
		offsets = append(offsets, rec.Offset)
	}
	if !slices.Equal(offsets, []int64{2, 3, 5, 6}) {
		t.Errorf("records at %v, want those of committed transactions at 2, 3, 5, 6", offsets)
	}
}

func TestBatchGaps(t *testing.T) {
	// A batch behind a gap, and one that compaction has taken the middle and the end from.
	compacted := change(buildBatch(t, CodecNone, 20, 1, "a", "b"), func(b []byte) {
		binary.BigEndian.PutUint32(b[batchLastOffsetDelta:], 5)
	})
	var r batchReader
	records, gaps, next, err := r.decode(slices.Concat(buildBatch(t, CodecNone, 12, 1, "x"), compacted), 10, nil, nil, nil)
	if err != nil || len(records) != 3 || next != 26 {
		t.Fatalf("%d records, next %d, error %v", len(records), next, err)
	}
	if want := []gap{{10, 12}, {13, 20}, {22, 26}}; !slices.Equal(gaps, want) {
		t.Errorf("gaps %v, want %v", gaps, want)
	}
}

func TestLogAppendTime(t *testing.T) {
	b := change(buildBatch(t, CodecNone, 0, 1000, "a"), func(b []byte) {
		binary.BigEndian.PutUint16(b[batchAttributes:], attributeLogAppendTime)
		binary.BigEndian.PutUint64(b[batchMaxTimestamp:], 5000)
	})
	var r batchReader
	records, _, _, err := r.decode(b, 0, nil, nil, nil)
	if err != nil || len(records) != 1 || records[0].Time != 5000 {
		t.Errorf("records %v, error %v, want the broker's time 5000", records, err)
	}
}

func TestCorruptBatches(t *testing.T) {
	good := buildBatch(t, CodecLZ4, 0, 1, "first")
	for name, bad := range map[string][]byte{
		"a flipped bit": func() []byte { b := buildBatch(t, CodecNone, 1, 1, "second"); b[len(b)-1] ^= 1; return b }(),
		"an old format": change(buildBatch(t, CodecNone, 1, 1, "second"), func(b []byte) { b[batchMagic] = 1 }),
		"a short length": func() []byte {
			b := buildBatch(t, CodecNone, 1, 1, "second")
			binary.BigEndian.PutUint32(b[batchLength:], 3)
			return b
		}(),
		"too many records": change(buildBatch(t, CodecNone, 1, 1, "second"), func(b []byte) { binary.BigEndian.PutUint32(b[batchCount:], 2) }),
		"no lz4":           change(buildBatch(t, CodecNone, 1, 1, "second"), func(b []byte) { b[batchAttributes+1] = byte(CodecLZ4) }),
		"unknown codec":    change(buildBatch(t, CodecNone, 1, 1, "second"), func(b []byte) { b[batchAttributes+1] = 6 }),
	} {
		var r batchReader
		records, _, next, err := r.decode(slices.Concat(good, bad), 0, nil, nil, nil)
		if !errors.Is(err, errCorrupt) || len(records) < 1 || string(records[0].Value) != "first" || next < 1 {
			t.Errorf("%s: %d records, next %d, error %v", name, len(records), next, err)
		}
	}
}

// TestForeignBatches reads what kafka-go writes in every compression, and lets kafka-go read what is written here.
func TestForeignBatches(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "foreign", 1)
	var want []string
	for _, compression := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		var records []kafka.Record
		for i := range 50 {
			v := fmt.Sprintf("%v %d %s", compression, i, strings.Repeat("x", i*100))
			want = append(want, v)
			records = append(records, kafka.Record{Key: kafka.NewBytes([]byte("key")), Value: kafka.NewBytes([]byte(v)), Headers: []kafka.Header{{Key: "h", Value: []byte("v")}}})
		}
		if res, err := k.client.Produce(t.Context(), &kafka.ProduceRequest{Topic: "foreign", RequiredAcks: kafka.RequireAll, Compression: compression, Records: kafka.NewRecordReader(records...)}); err != nil || res.Error != nil {
			t.Fatal(err, res)
		}
	}
	for _, codec := range []Codec{CodecNone, CodecLZ4, CodecZstd} {
		p, err := newPartitionProducer(k, "foreign", 0, codec, logger(t), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var values [][]byte
		for i := range 50 {
			v := fmt.Sprintf("own %v %d %s", codec, i, strings.Repeat("y", i*100))
			want = append(want, v)
			values = append(values, []byte(v))
		}
		if err := p.send(t.Context(), values, nil, func(int) {}); err != nil {
			t.Fatal(err)
		}
		p.close()
	}
	r := NewReader(k, ReaderConfig{Topic: "foreign", Logger: logger(t)})
	defer r.Close()
	var got []string
	for len(got) < len(want) {
		b, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Records {
			got = append(got, string(rec.Value))
		}
	}
	if !slices.Equal(got, want) {
		t.Error("other records than were written")
	}
	conn, err := kafka.DialLeader(t.Context(), "tcp", c.ListenAddrs()[0], "foreign", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	batch := conn.ReadBatchWith(kafka.ReadBatchConfig{MinBytes: 1, MaxBytes: 10 << 20})
	got = got[:0]
	for {
		m, err := batch.ReadMessage()
		if err != nil {
			break
		}
		got = append(got, string(m.Value))
	}
	if err := batch.Close(); err != nil || !slices.Equal(got, want) {
		t.Errorf("kafka-go reads %d records of %d: %v", len(got), len(want), err)
	}
}

func FuzzBatches(f *testing.F) {
	for _, codec := range []Codec{CodecNone, CodecLZ4, CodecZstd} {
		f.Add(buildBatch(f, codec, 0, 1, "a", "bb"), int64(0), true)
	}
	f.Fuzz(func(t *testing.T, set []byte, next int64, mend bool) {
		set = bytes.Clone(set)
		if mend && len(set) >= batchHeader {
			if size := int64(binary.BigEndian.Uint32(set[batchLength:])) + batchLengthPrefix; size >= batchHeader && size <= int64(len(set)) {
				binary.BigEndian.PutUint32(set[batchCRC:], crc32.Checksum(set[batchAttributes:size], castagnoli))
			}
		}
		var r batchReader
		records, _, after, err := r.decode(set, next, nil, nil, nil)
		if err == nil && after < next {
			t.Errorf("next went back from %d to %d", next, after)
		}
		for _, rec := range records {
			if rec.Offset < next {
				t.Errorf("record at %d, before %d", rec.Offset, next)
			}
		}
	})
}

func BenchmarkCodecs(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var values [][]byte
	size := 0
	for i := range 1500 {
		// About what an entities message holds: ids that do not compress, and names that do.
		v := fmt.Sprintf("\n\x0c\x08\x81\x80\x10 %08x-%04x-4000-8000-%012x %08x-%04x-4000-8000-%012x 3f1c2b7e-0000-4000-8000-00000000aaaa user%d@example.com Office 365 Exchange Online "+
			"203.0.113.%d Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Windows10 Chrome 126.0.0 Oslo NO singleFactorAuthentication failure 5012%d",
			rng.Uint32(), rng.Uint32N(1<<16), rng.Uint64N(1<<48), rng.Uint32(), rng.Uint32N(1<<16), rng.Uint64N(1<<48), rng.IntN(5000), rng.IntN(250), i%7)
		values = append(values, []byte(v))
		size += len(v)
	}
	for _, codec := range []Codec{CodecNone, CodecLZ4, CodecZstd} {
		name := map[Codec]string{CodecNone: "none", CodecLZ4: "lz4", CodecZstd: "zstd"}[codec]
		w, err := newBatchWriter(codec)
		if err != nil {
			b.Fatal(err)
		}
		write := func() []byte {
			w.reset()
			for _, v := range values {
				w.add(v)
			}
			set, err := w.finish(1)
			if err != nil {
				b.Fatal(err)
			}
			return set
		}
		b.Run("write/"+name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var n int
			for b.Loop() {
				n = len(write())
			}
			b.ReportMetric(float64(size)/float64(n), "ratio")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(values)), "ns/record")
		})
		set := bytes.Clone(write())
		b.Run("read/"+name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var r batchReader
			var records []Record
			for b.Loop() {
				if records, _, _, err = r.decode(set, 0, nil, records[:0], nil); err != nil || len(records) != len(values) {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(values)), "ns/record")
		})
	}
}
