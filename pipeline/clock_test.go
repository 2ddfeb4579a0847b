package pipeline

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestThinWithAWrongClock: snapshots that a wrong clock dated decades ahead do not push out those that come after them.
func TestThinWithAWrongClock(t *testing.T) {
	now, wrong := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	var names []SnapshotName
	for i := range int64(5) {
		names = append(names, SnapshotName{Incarnation: 1, Epoch: 1, Offset: i, Taken: wrong.Add(time.Duration(i) * time.Minute).UnixMilli()})
	}
	for i := range int64(200) {
		names = append(names, SnapshotName{Incarnation: 1, Epoch: 1, Offset: 5 + i, Taken: now.Add(time.Duration(i) * time.Minute).UnixMilli()})
		// The position is behind the newest snapshot, as it is while rows are under way.
		keep := thin(names, 1, 1, 5+i-1)
		if !keep[len(keep)-1] {
			t.Fatalf("snapshot %d goes as soon as it is written", i)
		}
		var kept []SnapshotName
		for j, k := range keep {
			if k {
				kept = append(kept, names[j])
			}
		}
		names = kept
	}
	if len(names) > 3+4+2 {
		t.Errorf("%d snapshots are kept of three hours", len(names))
	}
	if names[0].Taken >= wrong.UnixMilli() {
		t.Error("one of the wrong dates is kept")
	}
}

// TestClockRefused: a broker that does not believe this machine's clock (INVALID_TIMESTAMP) gets the records when the clock is right; no
// record is refused for it.
func TestClockRefused(t *testing.T) {
	c := broker(t)
	k := openKafka(t, c)
	ensure(t, k, "t", 1)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidTimestamp, Count: 3})
	p, err := newPartitionProducer(k, "t", 0, CodecNone, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	at := time.Now().Add(4 * time.Second)
	calls := 0
	p.now = func() time.Time {
		calls++
		return at.Add(-time.Duration(calls) * time.Second) // it is being set right
	}
	if err := p.send(t.Context(), [][]byte{[]byte("a"), []byte("b")}, func(i int, err error) error {
		t.Errorf("record %d is refused: %v", i, err)
		return nil
	}, func(int) {}); err != nil {
		t.Fatal(err)
	}
	r := NewReader(k, ReaderConfig{Topic: "t", Logger: logger(t)})
	defer r.Close()
	if got := readTo(t, r, 2); got[0] != "a" || got[1] != "b" {
		t.Errorf("got %v", got)
	}
	if calls != 4 {
		t.Errorf("the time was taken %d times, want 4: with every attempt", calls)
	}
}
