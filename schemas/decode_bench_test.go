package schemas

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func BenchmarkDecode(b *testing.B) {
	received := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	for _, bench := range []struct {
		name     string
		policies int
	}{{"4.8KB", 0}, {"7.4KB", 10}} {
		const records = 64
		message := exportMessage(7, records, bench.policies)
		b.Run(bench.name, func(b *testing.B) {
			d := NewDecoder()
			b.SetBytes(int64(len(message) / records))
			b.ReportAllocs()
			n := 0
			for n < b.N {
				d.Decode(message, received, func(_ int, r *Decoded) {
					if r.Kind != KindSignIn {
						b.Fatal(r.Err)
					}
					n++
				})
			}
			b.ReportMetric(float64(len(message)/records), "B/record")
		})
	}
}

// BenchmarkValid is the library's check of the grammar alone, to judge the machine by.
func BenchmarkValid(b *testing.B) {
	message := exportMessage(7, 64, 10)
	b.SetBytes(int64(len(message) / 64))
	for n := 0; n < b.N; n += 64 {
		if !json.Valid(message) {
			b.Fatal("invalid")
		}
	}
}

func BenchmarkDecodeStrict(b *testing.B) {
	message := exportMessage(7, 1, 10)
	record := bytes.TrimSuffix(bytes.TrimPrefix(message, []byte(`{"records":[`)), []byte("]}"))
	d := NewDecoder()
	b.SetBytes(int64(len(record)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.decodeStrict(record); err != nil {
			b.Fatal(err)
		}
	}
}
