package sinks_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/sinks"
)

// benchmarkRows makes n rows of real shape, some 0.9 KB each before compression.
func benchmarkRows(n int) []detectors.Rows {
	r := rand.New(rand.NewPCG(30, 30))
	rows := make([]detectors.Rows, n)
	for i := range rows {
		d := diagnosis(r, int64(i))
		rows[i].Diagnoses = []detectors.Diagnosis{d}
		if i%20 == 0 {
			rows[i].Members = []detectors.IncidentMember{{IncidentID: "repeated_failures-0123456789abcdef", TenantID: d.TenantID, RequestID: d.RequestID, CorrelationID: d.CorrelationID, EventTime: d.EventTime, Revision: d.Revision}}
		}
	}
	return rows
}

// BenchmarkWrite measures Write alone, into blocks that are thrown away: what the shards pay per row.
func BenchmarkWrite(b *testing.B) {
	rows := benchmarkRows(50_000)
	s, err := sinks.NewSink(sinks.Config{Server: sinks.Server{Address: []string{"127.0.0.1:1"}}, EntitiesTopic: topic, MaxRows: 1 << 20, Renderer: renderer{}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range rows { // grow the columns
		if err := s.Write(b.Context(), &rows[i], position(0, int64(i))); err != nil {
			b.Fatal(err)
		}
	}
	s.Discard()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := s.Write(b.Context(), &rows[i%len(rows)], position(0, int64(i))); err != nil {
			b.Fatal(err)
		}
		if i%len(rows) == len(rows)-1 {
			s.Discard()
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkInsert measures the whole way into the engine, views and fsync included, which shares the cores.
func BenchmarkInsert(b *testing.B) {
	e := newEnvironment(b)
	rows := benchmarkRows(200_000)
	cfg := e.config()
	cfg.MaxDelay = time.Second
	s := e.sink(cfg)
	stop := e.start(s)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		d := &rows[i%len(rows)].Diagnoses[0]
		d.Revision = detectors.Revision(1, int64(i))
		if err := s.Write(e.ctx, &rows[i%len(rows)], position(uint16(i%4), int64(i))); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Flush(e.ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.StopTimer()
	stop()
}
