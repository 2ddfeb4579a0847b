package integration

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestWrongClocks: whatever the clocks of those who write to the raw topic say, every record has its row, once; and what verify makes of
// the log later, at another time, is the same. Nothing of what it compares comes from the clock of the process that made it.
func TestWrongClocks(t *testing.T) {
	p := newPlant(t)
	p.startEngine()
	i := p.run()
	p.send(1000)
	p.exact(i)
	client, err := kgo.NewClient(kgo.SeedBrokers(p.kafkaAddress), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	date := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	// Kafka times: of the future, of 1970, without one, negative, and going backwards.
	times := []time.Time{date(2099), time.UnixMilli(86_400_000), time.UnixMilli(1), time.UnixMilli(0), time.UnixMilli(-5000), date(2300)}
	for back := range 20 {
		times = append(times, date(2026).Add(-time.Duration(back)*24*time.Hour))
	}
	created := fmt.Appendf(nil, "2026-03-02T")
	for n, at := range times {
		// Event times far apart too, of one user's neighbouring records.
		for k, event := range []string{"2026-03-02T", "1970-01-02T", "2099-03-02T", "2001-03-02T"} {
			id := p.sent.Add(1) - 1
			value := bytes.ReplaceAll(record(id), created, []byte(event))
			r := &kgo.Record{Topic: plantRaw, Partition: int32((n + k) % plantPartitions), Value: value, Timestamp: at}
			if err := client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.send(1000)
	p.exact(i)
	// A Kafka time that no clock can have said moves no event.
	for _, c := range []struct {
		year int
		want uint64
	}{{1970, 26}, {2001, 26}} {
		n, err := query[uint64](p, "SELECT count() FROM signindiag.diagnoses FINAL WHERE toYear(event_time) = ?", c.year)
		if err != nil || n != c.want {
			t.Errorf("%d rows of %d, %v, want %d", n, c.year, err, c.want)
		}
	}
	i.Stop()
	i = p.run()
	p.send(100)
	p.exact(i)
	i.Stop()
}
