package pipeline

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestBackfillBesideLive: while an import goes on without end, into the raw topic or one of its own, live records get their rows.
func TestBackfillBesideLive(t *testing.T) {
	for _, topic := range []string{"raw", "raw.backfill"} {
		t.Run(topic, func(t *testing.T) {
			w := newWorld(t, 2, 2)
			if topic != "raw" {
				w.config.RawTopics = append(w.config.RawTopics, RawTopic{Name: topic, Incarnation: 1})
			}
			k := openKafka(t, w.cluster)
			ensure(t, k, "raw", 2)
			ensure(t, k, topic, 2)
			const live = 20
			p := w.start(t, nil)
			producer, err := NewRawProducer(t.Context(), k, topic, CodecLZ4, logger(t))
			if err != nil {
				t.Fatal(err)
			}
			defer producer.Close()
			var stop atomic.Bool
			imported := make(chan int, 1)
			go func() {
				n := live
				for ; !stop.Load(); n += 500 {
					var values [][]byte
					for i := range 500 {
						values = append(values, []byte(signIn(n+i, fmt.Sprintf("old%d@example.com", i%40))))
					}
					if refused, err := producer.Send(t.Context(), values); err != nil || len(refused) > 0 {
						t.Error(err, refused)
						break
					}
					// An import of a pace that the pipeline can keep up with, as --rate gives it.
					for w.rows() < n-2000 && !stop.Load() {
						time.Sleep(time.Millisecond)
					}
				}
				imported <- n
			}()
			defer stop.Store(true)
			eventually(t, "the import is under way", func() bool { return w.rows() > 500 })
			for n := range live {
				produceRawOne(t, k, signIn(n, "live@example.com"))
				eventually(t, "the live record's row while the import goes on", func() bool {
					w.tables.mu.Lock()
					defer w.tables.mu.Unlock()
					_, ok := w.tables.diagnoses[requestID(n)]
					return ok
				})
			}
			stop.Store(true)
			count := <-imported
			eventually(t, "all rows", func() bool { return w.rows() == count })
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d records were imported meanwhile", count-live)
			w.check(t, count, map[string]int64{"live@example.com": live})
		})
	}
}
