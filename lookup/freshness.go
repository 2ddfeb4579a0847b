package lookup

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// freshnessAge is how long an answer about freshness is reused: pages ask for it every few seconds, and it
// reads a column of the newest records.
const freshnessAge = 5 * time.Second

// exactRecords is up to how many stored rows the categories are counted exactly (FINAL, some 0.2 s for as many);
// beyond it rows are counted as stored, where a revision that is not merged yet counts once more.
const exactRecords = 1_000_000

// Freshness tells how much of what Entra knows has arrived.
type Freshness struct {
	// NewestReceived is when the newest record reached Kafka; NewestEvent and OldestEvent are times of
	// sign-ins. All are zero where nothing has arrived yet.
	NewestReceived time.Time `json:"newest_received,omitzero"`
	NewestEvent    time.Time `json:"newest_event,omitzero"`
	OldestEvent    time.Time `json:"oldest_event,omitzero"`
	// Categories are the log categories that have been seen, most records first.
	Categories []CategoryCount `json:"categories"`
	// Approximate is true where the counts may hold revisions of a record twice.
	Approximate bool `json:"approximate"`
}

// CategoryCount is one category of the export and its records.
type CategoryCount struct {
	Category string `json:"category"`
	Records  uint64 `json:"records"`
}

// Sentence says in words how fresh the data is, as of now.
func (f Freshness) Sentence(now time.Time) string {
	if len(f.Categories) == 0 {
		return "No record has been received yet: check that Entra's diagnostic setting exports the sign-in logs and that the pipeline runs."
	}
	var b strings.Builder
	fmt.Fprintf(&b, "The newest record was received %s (%s); exports from Entra usually lag 2 to 8 minutes and may lag up to hours. ",
		ago(now.Sub(f.NewestReceived)), stamp(f.NewestReceived))
	fmt.Fprintf(&b, "Data reaches from %s back to %s. Categories seen: ", stamp(f.NewestEvent), stamp(f.OldestEvent))
	about := ""
	if f.Approximate {
		about = "about "
	}
	for i, c := range f.Categories {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s%d)", orText(c.Category, "no category"), about, c.Records)
	}
	b.WriteString(".")
	return b.String()
}

// stamp writes a time for people, in UTC to the second.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// ago says how long ago something was.
func ago(d time.Duration) string {
	unit := func(n int64, name string) string {
		if n == 1 {
			return "1 " + name + " ago"
		}
		return fmt.Sprintf("%d %ss ago", n, name)
	}
	switch {
	case d < time.Second:
		return "just now"
	case d < 2*time.Minute:
		return unit(int64(d/time.Second), "second")
	case d < 2*time.Hour:
		return unit(int64(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return unit(int64(d/time.Hour), "hour")
	}
	return unit(int64(d/(24*time.Hour)), "day")
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Freshness returns how fresh the data is, at most five seconds ago. One query runs at a time; others wait for its
// answer. A failed query is asked again by the next call.
func (s *Store) Freshness(ctx context.Context) (Freshness, error) {
	s.freshnessMu.Lock()
	defer s.freshnessMu.Unlock()
	if age := s.now().Sub(s.freshnessAt); !s.freshnessAt.IsZero() && age >= 0 && age < freshnessAge {
		return s.freshness, nil
	}
	f, err := s.readFreshness(ctx)
	if err != nil {
		return Freshness{}, err
	}
	s.freshness, s.freshnessAt = f, s.now()
	return f, nil
}

func (s *Store) readFreshness(ctx context.Context) (Freshness, error) {
	const what = "read how fresh the data is"
	f := Freshness{Categories: []CategoryCount{}}
	var total uint64
	// ClickHouse answers these from the parts' own minima, maxima and counts.
	err := s.query(ctx, what, `SELECT count(), min(event_time), max(event_time) FROM diagnoses`, nil,
		func(rows driver.Rows) error { return rows.Scan(&total, &f.OldestEvent, &f.NewestEvent) })
	if err != nil {
		return f, err
	}
	var raw uint64
	var rawReceived time.Time
	err = s.query(ctx, what, `SELECT count(), max(received_time) FROM (
			SELECT received_time FROM raw_records
			WHERE toDate(received_time) = (SELECT max(toDate(received_time)) FROM raw_records))`, nil,
		func(rows driver.Rows) error { return rows.Scan(&raw, &rawReceived) })
	if err != nil {
		return f, err
	}
	if raw > 0 {
		f.NewestReceived = rawReceived.UTC()
	}
	if total == 0 {
		f.OldestEvent, f.NewestEvent = time.Time{}, time.Time{}
		return f, nil
	}
	f.OldestEvent, f.NewestEvent = f.OldestEvent.UTC(), f.NewestEvent.UTC()
	// received_time is no key: where there are many rows only those of the newest two days are read, which hold the
	// newest receipt unless an import of older logs came last.
	since := time.UnixMicro(0)
	if total > exactRecords {
		since = f.NewestEvent.Add(-48 * time.Hour)
	}
	err = s.query(ctx, what, `SELECT max(received_time) FROM diagnoses
		WHERE event_time >= fromUnixTimestamp64Micro({since:Int64})`, []parameter{micros("since", since)},
		func(rows driver.Rows) error {
			var received time.Time
			if err := rows.Scan(&received); err != nil {
				return err
			}
			if received.After(f.NewestReceived) {
				f.NewestReceived = received.UTC()
			}
			return nil
		})
	if err != nil {
		return f, err
	}
	text := `SELECT category, count() AS records FROM diagnoses FINAL GROUP BY category ORDER BY records DESC, category`
	if total > exactRecords {
		f.Approximate = true
		text = `SELECT category, count() AS records FROM diagnoses GROUP BY category ORDER BY records DESC, category`
	}
	err = s.query(ctx, what, text, nil, func(rows driver.Rows) error {
		var c CategoryCount
		if err := rows.Scan(&c.Category, &c.Records); err != nil {
			return err
		}
		f.Categories = append(f.Categories, c)
		return nil
	})
	return f, err
}
