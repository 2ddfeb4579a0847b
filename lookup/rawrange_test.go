package lookup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/sinks"
)

func TestEachRawComesInTheOrderOfEventTime(t *testing.T) {
	f := newFixture(t)
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	const count = 3 * rawBlockRows // several blocks
	var records []sinks.RawRecord
	for i := range count {
		// Stored by receipt and id, which both say nothing of the order: 1009 is prime to the count.
		n := i * 1009 % count
		records = append(records, sinks.RawRecord{
			Source: sinks.Source{Topic: "raw", Incarnation: 1, Offset: int64(i)}, RequestID: request(i), TenantID: "tenant",
			EventTime: start.Add(time.Duration(n) * time.Second).UnixMicro(), ReceivedTime: start.Add(time.Duration(i%7) * 24 * time.Hour).Add(time.Hour).UnixMilli(),
			Bytes: fmt.Appendf(nil, `{"n":%d,"padding":"%s"}`, n, strings.Repeat("x", 2000)),
		})
	}
	f.writeRaw(t, records...)
	var got []time.Time
	err := f.store.EachRaw(t.Context(), start.Add(10*time.Second), start.Add((count-10)*time.Second), func(record []byte, at time.Time) error {
		if n := int(at.Sub(start) / time.Second); !strings.HasPrefix(string(record), fmt.Sprintf(`{"n":%d,`, n)) {
			return fmt.Errorf("%s has the record %.40s", at, record)
		}
		got = append(got, at)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != count-20 || !slices.IsSortedFunc(got, time.Time.Compare) || !got[0].Equal(start.Add(10*time.Second)) {
		t.Errorf("%d records from %s, sorted %v; want %d from the 10th second", len(got), got[0], slices.IsSortedFunc(got, time.Time.Compare), count-20)
	}
	held, err := f.store.RawRange(t.Context(), start, start.Add(time.Minute))
	if err != nil || held != (RawRange{Records: 60}) {
		t.Errorf("%+v, %v; want 60 records", held, err)
	}
	stop := errors.New("enough")
	n := 0
	err = f.store.EachRaw(t.Context(), start, start.Add(time.Hour), func([]byte, time.Time) error {
		if n++; n == 5 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 5 {
		t.Errorf("after %d records: %v", n, err)
	}
}
