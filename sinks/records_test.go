package sinks_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/signindiag/signindiag/sinks"
)

func (e *environment) records() sinks.RecordsConfig {
	return sinks.RecordsConfig{Server: e.server, MaxDelay: 20 * time.Millisecond, DrainTimeout: 30 * time.Second}
}

func (e *environment) run(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	e.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Error(err)
		}
	})
}

// TestQuarantine: bytes arrive as they were, repeats vanish, and no Kafka time is too odd.
func TestQuarantine(t *testing.T) {
	e := newEnvironment(t)
	q, err := sinks.NewQuarantine(e.records())
	if err != nil {
		t.Fatal(err)
	}
	e.run(q.Run)
	odd := []byte("{\"id\":\"\x00\xff\xfe'\\\n")
	times := []int64{1_763_456_789_123, -1, 0, math.MaxInt64, math.MinInt64, 4_102_444_800_000, 1_763_456_789_124 + 8*24*3600*1000}
	var records []sinks.QuarantinedRecord
	for i, at := range times {
		records = append(records, sinks.QuarantinedRecord{
			Source: sinks.Source{Topic: "raw", Incarnation: 3, Partition: 2, Offset: int64(i), Index: 9}, Stage: "decode",
			ReceivedTime: at, Reason: "not JSON", Error: fmt.Sprintf("record %d: unexpected end", i), Bytes: bytes.Clone(odd),
		})
	}
	for range 3 {
		if err := q.Put(e.ctx, records); err != nil {
			t.Fatal(err)
		}
		e.flush(q)
	}
	for _, r := range records {
		for i := range r.Bytes {
			r.Bytes[i] = '#'
		}
	}
	if n := e.count("quarantine"); n != uint64(len(times)) {
		t.Errorf("%d records, want %d", n, len(times))
	}
	if n := query[uint64](e, "SELECT count() FROM "+e.database+".quarantine FINAL WHERE bytes = ?", string(odd)); n != uint64(len(times)) {
		t.Errorf("%d records with their bytes, want %d", n, len(times))
	}
	got := query[string](e, "SELECT concat(source_topic, ' ', toString(source_incarnation), ' ', toString(source_partition), ' ', toString(source_index), ' ', stage, ' ', toString(received_time), ' ', reason, ' ', error) FROM "+e.database+".quarantine FINAL WHERE source_offset = 0")
	if want := "raw 3 2 9 decode 2025-11-18 09:06:29.123 not JSON record 0: unexpected end"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := q.Ready(); err != nil {
		t.Error(err)
	}
}

// TestRawRecords: the record as received is found by its request id, compressed, once.
func TestRawRecords(t *testing.T) {
	e := newEnvironment(t)
	w, err := sinks.NewRawRecords(e.records())
	if err != nil {
		t.Fatal(err)
	}
	e.run(w.Run)
	const n = 400
	body := bytes.Repeat([]byte(`{"category":"SignInLogs","properties":{"status":{"errorCode":50126}}},`), 70)
	var records []sinks.RawRecord
	for i := range int64(n) {
		records = append(records, sinks.RawRecord{
			Source:    sinks.Source{Topic: "raw", Partition: int32(i % 3), Offset: i / 3, Index: uint32(i % 5)},
			RequestID: fmt.Sprintf("id-%d", i), TenantID: "t", EventTime: epochStart + i, ReceivedTime: epochStart/1000 + i*3600*1000, Bytes: body,
		})
	}
	for range 2 {
		for batch := range n / 100 {
			if err := w.Put(e.ctx, records[batch*100:][:100]); err != nil {
				t.Fatal(err)
			}
		}
		e.flush(w)
	}
	if got := e.count("raw_records"); got != n {
		t.Errorf("%d records, want %d", got, n)
	}
	if got := query[string](e, "SELECT raw FROM "+e.database+".raw_records FINAL WHERE request_id = 'id-7'"); got != string(body) {
		t.Errorf("record of %d bytes, want %d", len(got), len(body))
	}
	days := query[uint64](e, "SELECT uniqExact(partition) FROM system.parts WHERE active AND database = ? AND table = 'raw_records'", e.database)
	if days < 17 || days > 18 { // 400 hours
		t.Errorf("%d partitions, want one per day", days)
	}
}
