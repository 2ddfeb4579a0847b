package integration

import (
	"os"
	"testing"
	"time"
)

// outageVariable makes TestOutage send the full half hour of 500 records a second, 900 000, instead of a part of it.
const outageVariable = "SIGNINDIAG_TEST_FULL_OUTAGE"

// TestOutage: half an hour's traffic comes while ClickHouse is down. Memory stays bounded, and all of it is caught up.
func TestOutage(t *testing.T) {
	records := int64(250_000)
	switch {
	case os.Getenv(outageVariable) != "":
		records = 30 * 60 * 500
	case testing.Short():
		records = 20_000
	}
	p := newPlant(t)
	p.startEngine()
	i := p.run()
	p.send(1000)
	p.exact(i)
	before, _ := i.Memory()
	p.killEngine()
	for sent := int64(0); sent < records; sent += 2000 {
		p.send(2000)
	}
	// It reads until its blocks are full, and then waits.
	position := -1.0
	i.Until("reading to stop", func() bool {
		last := position
		position = i.Metric("signindiag_kafka_position", "")
		if position != last {
			time.Sleep(2 * time.Second)
		}
		return position == last
	})
	now, most := i.Memory()
	waiting := -int64(i.Metric("signindiag_kafka_position", `topic="`+plantRaw+`"`))
	for partition := range plantPartitions {
		_, end, err := p.kafka.ListOffsets(t.Context(), plantRaw, partition)
		if err != nil {
			t.Fatal(err)
		}
		waiting += end
	}
	t.Logf("outage with %d records: memory %d MiB before, %d MiB now, %d MiB at most; %d messages wait in Kafka", records, before, now, most, waiting)
	if most > maxRSS {
		t.Errorf("%d MiB of memory, the bound is %d", most, maxRSS)
	}
	if !testing.Short() && waiting == 0 {
		t.Error("all was read: the backlog is no more than the bound")
	}
	p.startEngine()
	began := time.Now()
	n := uint64(p.sent.Load())
	i.Until("all rows", func() bool {
		found, err := query[uint64](p, "SELECT count() FROM signindiag.diagnoses FINAL")
		return err == nil && found >= n
	})
	took := time.Since(began)
	_, most = i.Memory()
	t.Logf("caught up in %s with the wait for the next attempt, %.0f records/s; %d MiB at most", took.Round(time.Millisecond), float64(records)/took.Seconds(), most)
	p.exact(i)
	i.Stop()
}
