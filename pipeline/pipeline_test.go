package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

var (
	_ Machine    = (*detectors.Engine)(nil)
	_ RowSink    = (*sinks.Sink)(nil)
	_ Quarantine = (*sinks.Quarantine)(nil)
	_ RawStore   = (*sinks.RawRecords)(nil)
)

func TestRecordsBecomeRows(t *testing.T) {
	w := newWorld(t, 3, 4)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 3)
	users := produceRaw(t, k, rand.New(rand.NewPCG(1, 1)), 0, 2000)
	p := w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 2000 })
	if err := p.pipeline.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 2000, users)
	if len(w.tables.quarantined) == 0 {
		t.Error("no broken record is in quarantine")
	}
	for _, q := range w.tables.quarantined {
		if q.Stage != sinks.StageDecode || q.Reason == "" || q.Source.Topic != "raw" || len(q.Bytes) == 0 {
			t.Errorf("quarantined %+v", q)
		}
	}
	w.checkSnapshots(t, k)
	if len(w.tables.raw) != 2000 {
		t.Errorf("%d records as received, want 2000", len(w.tables.raw))
	}

	// A second start on the same data has nothing to do, and begins with a snapshot.
	before := w.tables.inserted
	p = w.start(t, nil)
	produceRawOne(t, k, signIn(2000, "user1@example.com"))
	eventually(t, "the row after the restart", func() bool { return w.rows() == 2001 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if n := counter(t, p.pipeline.metrics.replayed); n != 0 {
		t.Errorf("the restart replayed %v messages: the snapshots of the stop were not used", n)
	}
	if again := w.tables.inserted - before; again != 1 {
		t.Errorf("the restart wrote %d rows, want 1", again)
	}
	users["user1@example.com"]++
	w.check(t, 2001, users)
}

func produceRawOne(t testing.TB, k *Kafka, values ...string) {
	t.Helper()
	p, err := NewRawProducer(t.Context(), k, "raw", CodecNone, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var b [][]byte
	for _, v := range values {
		b = append(b, []byte(v))
	}
	if _, err := p.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// TestCrashes kills processes at chosen and at random moments, while the broker answers some requests with
// errors after doing the work, and compares the rows with those of a single thread.
func TestCrashes(t *testing.T) {
	s := seed(t)
	rounds := 3
	if v := os.Getenv("SIGNINDIAG_TEST_ROUNDS"); v != "" {
		if _, err := fmt.Sscan(v, &rounds); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(s, uint64(round)))
			w := newWorld(t, 1+rng.IntN(4), 1+rng.IntN(5))
			k := openKafka(t, w.cluster)
			ensure(t, k, "raw", w.config.RawPartitions)
			w.config.FetchBytes = 1 << (8 + rng.IntN(8))
			const count = 3000
			users := produceRaw(t, k, rng, 0, count)
			w.config.StopTimeout = 400 * time.Millisecond
			for life := range 6 {
				var faults []*kfake.FaultHandle
				answers := []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition}
				rng.Shuffle(len(answers), func(i, j int) { answers[i], answers[j] = answers[j], answers[i] })
				for _, fault := range answers {
					faults = append(faults, w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.config.EntitiesTopic, Err: fault, Count: 1 + rng.IntN(3)}))
				}
				faults = append(faults, w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "raw", Err: kerr.NotLeaderForPartition, Count: 1}))
				how := []string{"before commit", "after commit", "before produce", "after produce", "between rows and progress", "at a snapshot", "at random"}[rng.IntN(7)]
				nth := int64(1 + rng.IntN(25))
				var seen atomic.Int64
				on := func(api int16) func(int16) bool {
					return func(a int16) bool { return a == api && seen.Add(1) == nth }
				}
				delay := time.Duration(1+rng.IntN(80)) * time.Millisecond // of the database: snapshots get ahead of it
				p := w.start(t, func(p *process) {
					p.sink.delay = func() time.Duration { return delay }
					switch how {
					case "before commit":
						p.board.before = on(8)
					case "after commit":
						p.board.after = on(8)
					case "before produce":
						p.board.before = on(0)
					case "after produce":
						p.board.after = on(0)
					case "between rows and progress":
						p.sink.dieAfterRows = func() bool {
							if seen.Add(1) == nth {
								go p.board.kill()
								return true
							}
							return false
						}
					case "at a snapshot":
						snapshots := func() int {
							found, _ := filepath.Glob(filepath.Join(w.dir, w.config.EntitiesTopic, "*", "*"))
							return len(found)
						}
						now := snapshots()
						go func() {
							for range 500 {
								if snapshots() != now {
									p.board.kill()
									return
								}
								time.Sleep(100 * time.Microsecond)
							}
						}()
					}
				})
				limit := time.After(time.Duration(5+rng.IntN(150)) * time.Millisecond)
				if how != "at random" {
					limit = time.After(400 * time.Millisecond)
				}
			wait:
				for {
					select {
					case <-limit:
						break wait
					case <-time.After(time.Millisecond):
						p.board.mu.Lock()
						dead := p.board.dead
						p.board.mu.Unlock()
						if dead {
							break wait
						}
					}
				}
				if rng.IntN(5) == 0 {
					how += ", stopped"
					if err := p.stop(); err != nil {
						t.Errorf("stop: %v", err)
					}
				} else {
					p.kill()
				}
				for _, f := range faults {
					f.Remove()
				}
				t.Logf("life %d: %s (%d), %d rows", life, how, nth, w.rows())
			}
			p := w.start(t, nil)
			eventually(t, "all rows", func() bool { return w.rows() == count })
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			w.check(t, count, users)
			if n := counter(t, p.pipeline.metrics.snapshots.WithLabelValues("unreadable")); n != 0 {
				t.Errorf("%v snapshots were of no use", n)
			}
			w.checkSnapshots(t, k)
			if broken := brokenRecords(t, k, w.config.RawPartitions); len(w.tables.quarantined) != broken {
				t.Errorf("%d records are in quarantine, want %d", len(w.tables.quarantined), broken)
			}
			if len(w.tables.raw) != count {
				t.Errorf("%d records as received, want %d", len(w.tables.raw), count)
			}
		})
	}
}

// brokenRecords reads the raw topic and counts what cannot be decoded.
func brokenRecords(t *testing.T, k *Kafka, partitions int) (broken int) {
	t.Helper()
	for i := range partitions {
		_, end, err := k.ListOffsets(t.Context(), "raw", i)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(k, ReaderConfig{Topic: "raw", Partition: i, Logger: logger(t)})
		defer r.Close()
		for next := int64(0); next < end; {
			b, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range b.Records {
				schemas.NewDecoder().Decode(rec.Value, time.UnixMilli(rec.Time), func(_ int, d *schemas.Decoded) {
					if d.Kind == schemas.KindBroken {
						broken++
					}
				})
			}
			next = b.Next
		}
	}
	return broken
}

// TestZombie lets two processes that both believe to own everything work on the same topics.
func TestZombie(t *testing.T) {
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	w := newWorld(t, 3, 3)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 3)
	users := produceRaw(t, k, rng, 0, 1500)
	a := w.start(t, nil)
	b := w.start(t, nil)
	for u, n := range produceRaw(t, k, rng, 1500, 1500) {
		users[u] += n
	}
	eventually(t, "all rows", func() bool { return w.rows() == 3000 })
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	c := w.start(t, nil)
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	w.check(t, 3000, users)
}

func TestAnotherNumberOfPartitionsIsRefused(t *testing.T) {
	w := newWorld(t, 1, 3)
	k := openKafka(t, w.cluster)
	ensure(t, k, w.config.EntitiesTopic, 4)
	p := w.start(t, nil)
	err := <-p.done
	p.done <- err
	var count *PartitionCountError
	if !errors.As(err, &count) || count.Want != 3 || count.Got != 4 {
		t.Errorf("error %v, want a PartitionCountError", err)
	}
	p.stop()
}

func TestShortRetentionIsRefused(t *testing.T) {
	w := newWorld(t, 1, 1)
	k := openKafka(t, w.cluster)
	if _, err := k.EnsureTopic(t.Context(), TopicConfig{Name: w.config.EntitiesTopic, Partitions: 1, Replicas: 1, Retention: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	p := w.start(t, nil)
	err := <-p.done
	p.done <- err
	var retention *RetentionError
	if !errors.As(err, &retention) || retention.Setting != "retention.ms" {
		t.Errorf("error %v, want a RetentionError", err)
	}
	p.stop()
}

// TestStuckSink: while rows cannot be stored nothing is committed beyond memory, and everything arrives afterwards.
func TestStuckSink(t *testing.T) {
	w := newWorld(t, 2, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	users := produceRaw(t, k, rand.New(rand.NewPCG(1, 2)), 0, 3000)
	p := w.start(t, func(p *process) {
		p.sink.limit = 100
		p.sink.stuck.Store(true)
	})
	eventually(t, "a full block", func() bool {
		p.sink.mu.Lock()
		defer p.sink.mu.Unlock()
		return len(p.sink.rows.Diagnoses) >= 100
	})
	time.Sleep(100 * time.Millisecond)
	if n := len(p.pipeline.Durable()); n != 0 {
		t.Errorf("%d shards have a stored position while nothing is stored", n)
	}
	p.sink.mu.Lock()
	if n := len(p.sink.rows.Diagnoses); n > 102 {
		t.Errorf("%d rows wait, want about 100", n)
	}
	p.sink.mu.Unlock()
	p.sink.stuck.Store(false)
	eventually(t, "all rows", func() bool { return w.rows() == 3000 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 3000, users)
}

// TestAnotherFingerprint: changed code makes the rows of the replayed log again, in a new epoch.
func TestAnotherFingerprint(t *testing.T) {
	w := newWorld(t, 2, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	users := produceRaw(t, k, rand.New(rand.NewPCG(1, 3)), 0, 1000)
	p := w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 1000 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.fingerprint = 2
	p = w.start(t, nil)
	eventually(t, "all rows by the new code", func() bool {
		w.tables.mu.Lock()
		defer w.tables.mu.Unlock()
		for _, d := range w.tables.diagnoses {
			if d.Revision>>48 != 2 {
				return false
			}
		}
		return true
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 1000, users)
	for u := range users {
		if i := w.tables.incidents[u]; i.Kind != "2" {
			t.Errorf("%s is decided by code %s, want 2", u, i.Kind)
		}
	}
	for shard, pos := range w.tables.progress {
		if pos.Epoch != 2 || pos.Fingerprint != 2 {
			t.Errorf("shard %d is at %+v, want epoch 2", shard, pos)
		}
	}
	// The same code again begins no other epoch.
	p = w.start(t, nil)
	time.Sleep(50 * time.Millisecond)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for shard, pos := range w.tables.progress {
		if pos.Epoch != 2 {
			t.Errorf("shard %d is at %+v, want epoch 2", shard, pos)
		}
	}
}

// TestRestartShards: machines with another fingerprint take over while records arrive, each in an epoch of its own; nothing
// is lost, nothing counts twice, and every row is decided by the last of them in the end. With and without a consumer group.
func TestRestartShards(t *testing.T) {
	for _, group := range []string{"", "signindiag"} {
		t.Run("group="+group, func(t *testing.T) {
			s := seed(t)
			w := newWorld(t, 2, 3)
			w.config.Group = group
			k := openKafka(t, w.cluster)
			ensure(t, k, "raw", 2)
			p := w.start(t, nil)
			rng := rand.New(rand.NewPCG(s, 4))
			users, count := map[string]int64{}, 0
			const last = 5
			for n := uint64(1); n <= last; n++ {
				for user, more := range produceRaw(t, k, rng, count, 300) {
					users[user] += more
				}
				count += 300
				if n == 1 || rng.IntN(2) == 0 { // the first machines have decided something before others come
					eventually(t, "all rows so far", func() bool { return w.rows() == count })
				}
				if n < last {
					p.fingerprint.Store(n + 1)
					p.pipeline.RestartShards()
				}
			}
			decided := func() bool {
				w.tables.mu.Lock()
				defer w.tables.mu.Unlock()
				for user, want := range users {
					if i := w.tables.incidents[user]; i.Kind != fmt.Sprint(last) || i.RequestIDsTotal != want {
						return false
					}
				}
				epochs := map[uint64]bool{}
				for _, d := range w.tables.diagnoses {
					epochs[d.Revision>>48] = true
				}
				return len(w.tables.diagnoses) == count && !epochs[1]
			}
			eventually(t, "all rows by the last machines", decided)
			w.tables.mu.Lock()
			before := maps.Clone(w.tables.progress)
			w.tables.mu.Unlock()
			for shard, pos := range before {
				if pos.Fingerprint != last || pos.Epoch < 2 || pos.Epoch > last {
					t.Errorf("shard %d is at %+v, want fingerprint %d in an epoch from 2 to %d", shard, pos, last, last)
				}
			}
			// The same machines again begin no other epoch, and go on.
			p.pipeline.RestartShards()
			for user, more := range produceRaw(t, k, rng, count, 100) {
				users[user] += more
			}
			count += 100
			eventually(t, "rows after a restart that changes nothing", decided)
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			w.check(t, count, users)
			for shard, pos := range w.tables.progress {
				if pos.Epoch != before[shard].Epoch {
					t.Errorf("shard %d is in epoch %d, was in %d", shard, pos.Epoch, before[shard].Epoch)
				}
			}
		})
	}
}

// TestEntitiesTopicMadeAgain: the shards stop with a way on, and after it nothing is lost and nothing counts twice.
func TestEntitiesTopicMadeAgain(t *testing.T) {
	w := newWorld(t, 2, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	rng := rand.New(rand.NewPCG(1, 4))
	users := produceRaw(t, k, rng, 0, 1000)
	p := w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 1000 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	deleteTopic(t, w.cluster, w.config.EntitiesTopic)
	p = w.start(t, nil)
	var reason error
	eventually(t, "the shards stop", func() bool {
		reason = p.pipeline.Ready()
		return reason != nil && strings.Contains(reason.Error(), EntitiesIncarnationSetting+"=2")
	})
	t.Log(reason)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.config.EntitiesIncarnation = 2
	for u, n := range produceRaw(t, k, rng, 1000, 500) {
		users[u] += n
	}
	p = w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 1500 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 1500, users)
	// Going back is refused.
	w.config.EntitiesIncarnation = 1
	p = w.start(t, nil)
	eventually(t, "the lower number is refused", func() bool {
		err := p.pipeline.Ready()
		return err != nil && strings.Contains(err.Error(), "incarnation 2 was read already")
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherNumberOfPartitions: another entities topic takes over from the first raw record on; its rows win though its offsets
// begin at 0, and nothing is lost or counts twice.
func TestAnotherNumberOfPartitions(t *testing.T) {
	w := newWorld(t, 2, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	rng := rand.New(rand.NewPCG(1, 9))
	users := produceRaw(t, k, rng, 0, 500)
	p := w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 500 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.config.EntitiesTopic, w.config.Partitions = "signindiag.entities.v2", 3
	w.tables.progress = map[uint16]sinks.Position{} // of this topic, as the table has it
	for u, n := range produceRaw(t, k, rng, 500, 100) {
		users[u] += n
	}
	p = w.start(t, func(p *process) {
		p.pipeline.shards.deps.OtherEpoch = func(context.Context) (uint16, error) { return 1, nil }
	})
	eventually(t, "all rows by the new topic", func() bool {
		w.tables.mu.Lock()
		defer w.tables.mu.Unlock()
		for _, d := range w.tables.diagnoses {
			if d.Revision>>48 != 2 {
				return false
			}
		}
		return len(w.tables.diagnoses) == 600
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 600, users)
}

// TestRawTopicMadeAgain: its partitions stop, and a raised incarnation reads it from the first record.
func TestRawTopicMadeAgain(t *testing.T) {
	for _, longer := range []bool{false, true} {
		t.Run(fmt.Sprintf("longer=%v", longer), func(t *testing.T) {
			w := newWorld(t, 1, 2)
			k := openKafka(t, w.cluster)
			ensure(t, k, "raw", 1)
			rng := rand.New(rand.NewPCG(1, 5))
			users := produceRaw(t, k, rng, 0, 300)
			p := w.start(t, nil)
			eventually(t, "all rows", func() bool { return w.rows() == 300 })
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			deleteTopic(t, w.cluster, "raw")
			ensure(t, k, "raw", 1)
			count := 100 // the new log is shorter than the position: its end tells
			if longer {
				count = 1000 // it is longer: the hash of the last record tells
			}
			for u, n := range produceRaw(t, k, rng, 300, count) {
				users[u] += n
			}
			p = w.start(t, nil)
			eventually(t, "the partition stops", func() bool {
				err := p.pipeline.Ready()
				return err != nil && strings.Contains(err.Error(), RawIncarnationSetting+"=2")
			})
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			if w.rows() != 300 {
				t.Errorf("%d rows while the partition is stopped, want 300", w.rows())
			}
			w.config.RawTopics = []RawTopic{{Name: "raw", Incarnation: 2}}
			p = w.start(t, nil)
			eventually(t, "all rows", func() bool { return w.rows() == 300+count })
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			w.check(t, 300+count, users)
		})
	}
}

// TestUndecodableEntity: one bad message of the entities topic goes to quarantine, the shard goes on.
func TestUndecodableEntity(t *testing.T) {
	w := newWorld(t, 1, 1)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	ensure(t, k, w.config.EntitiesTopic, 1)
	bad, err := newPartitionProducer(k, w.config.EntitiesTopic, 0, CodecNone, logger(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.close()
	if err := bad.send(t.Context(), [][]byte{[]byte("\xff\xff no protobuf"), {}}, nil, func(int) {}); err != nil {
		t.Fatal(err)
	}
	users := produceRaw(t, k, rand.New(rand.NewPCG(1, 6)), 0, 50)
	p := w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 50 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 50, users)
	for _, offset := range []int64{0, 1} {
		q, ok := w.tables.quarantined[sinks.Source{Topic: w.config.EntitiesTopic, Incarnation: 1, Offset: offset}]
		if !ok || q.Stage != sinks.StageEntities {
			t.Errorf("message %d is not in quarantine: %+v", offset, q)
		}
	}
}

// TestRefusedEntity: a record that Kafka will not take goes to quarantine as it was received, siblings are written.
func TestRefusedEntity(t *testing.T) {
	w := newWorld(t, 1, 1)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	res, err := k.client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: w.config.EntitiesTopic, NumPartitions: 1, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "1000"}, {ConfigName: "retention.ms", ConfigValue: "-1"}},
	}}})
	if err != nil || res.Errors[w.config.EntitiesTopic] != nil {
		t.Fatal(err, res.Errors)
	}
	w.config.Compression = CodecNone
	long := strings.Replace(signIn(1, "user1@example.com"), "Example App", strings.Repeat("x", 120)+`","resourceDisplayName":"`+strings.Repeat("y", 120)+
		`","userDisplayName":"`+strings.Repeat("u", 120)+`","userAgent":"`+strings.Repeat("z", 250)+`","servicePrincipalName":"`+strings.Repeat("w", 120), 1)
	produceRawOne(t, k, signIn(0, "user0@example.com"), long, signIn(2, "user2@example.com"))
	p := w.start(t, nil)
	eventually(t, "the siblings' rows", func() bool { return w.rows() == 2 })
	eventually(t, "the quarantined record", func() bool {
		w.tables.mu.Lock()
		defer w.tables.mu.Unlock()
		return len(w.tables.quarantined) == 1
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for _, q := range w.tables.quarantined {
		if q.Stage != sinks.StagePublish || q.Reason != "too_large" || string(q.Bytes) != long || q.Source.Topic != "raw" || q.Source.Offset != 1 {
			t.Errorf("quarantined %+v", q)
		}
	}
}

// TestStateLost: without snapshots the log gives the same rows.
func TestStateLost(t *testing.T) {
	w := newWorld(t, 2, 3)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	rng := rand.New(rand.NewPCG(1, 7))
	users := produceRaw(t, k, rng, 0, 500)
	var log lockedLog
	tell := func(p *process) { p.pipeline.shards.log = slog.New(slog.NewTextHandler(&log, nil)) }
	p := w.start(t, tell)
	eventually(t, "all rows", func() bool { return w.rows() == 500 })
	p.kill()
	const warning = "is SIGNINDIAG_SNAPSHOTS_URL shared by all instances"
	if strings.Contains(log.String(), warning) {
		t.Errorf("a warning of lost snapshots before any was lost:\n%s", log.String())
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	for u, n := range produceRaw(t, k, rng, 500, 500) {
		users[u] += n
	}
	p = w.start(t, tell)
	eventually(t, "all rows", func() bool { return w.rows() == 1000 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 1000, users)
	if n := strings.Count(log.String(), warning); n != 1 {
		t.Errorf("%d warnings of snapshots that are not seen here, want 1 for the process:\n%s", n, log.String())
	}
	for shard := range w.config.Partitions {
		if left := counter(t, p.pipeline.metrics.remaining.WithLabelValues(fmt.Sprint(shard))); left != 0 {
			t.Errorf("shard %d has %v messages to replay, want none", shard, left)
		}
	}
	if n := testutil.CollectAndCount(p.pipeline.metrics.recovery); n != 1 {
		t.Errorf("%d series of recovery times, want 1", n)
	}
}

// TestUnknownCodesAreCounted: once for a record, also when the log is replayed.
func TestUnknownCodesAreCounted(t *testing.T) {
	w := newWorld(t, 1, 2)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	unknown := func(n int) string {
		return strings.Replace(signIn(2*n+1, fmt.Sprintf("user%d@example.com", n)), `"errorCode":50126`, fmt.Sprintf(`"errorCode":%d`, unknownCode), 1)
	}
	produceRawOne(t, k, signIn(0, "ada@example.com"), signIn(1, "ada@example.com"), unknown(1), unknown(2), unknown(3))
	p := w.start(t, nil)
	count := func() float64 { return counter(t, p.pipeline.metrics.unknownCodes.WithLabelValues("999999")) }
	eventually(t, "all rows", func() bool { return w.rows() == 5 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 3 {
		t.Errorf("%v records with an unknown code, want 3", n)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	produceRawOne(t, k, unknown(4))
	p = w.start(t, nil)
	eventually(t, "the row after the replay", func() bool { return w.rows() == 6 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if n, replayed := count(), counter(t, p.pipeline.metrics.replayed); n != 1 || replayed == 0 {
		t.Errorf("%v records with an unknown code after a replay of %v messages, want 1", n, replayed)
	}
}

// TestTablesLost: an empty database is filled again from the log.
func TestTablesLost(t *testing.T) {
	w := newWorld(t, 2, 3)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 2)
	users := produceRaw(t, k, rand.New(rand.NewPCG(1, 8)), 0, 500)
	p := w.start(t, nil)
	eventually(t, "all rows", func() bool { return w.rows() == 500 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.tables = newTables()
	p = w.start(t, nil)
	eventually(t, "all rows again", func() bool { return w.rows() == 500 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 500, users)
}

// TestHoleInRawTopic: expired records are counted, the rest is read.
func TestHoleInRawTopic(t *testing.T) {
	w := newWorld(t, 1, 1)
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	var values []string
	for n := range 100 {
		values = append(values, signIn(n, "user1@example.com"))
	}
	produceRawOne(t, k, values[:10]...)
	p := w.start(t, nil)
	eventually(t, "the first rows", func() bool { return w.rows() == 10 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	produceRawOne(t, k, values[10:]...)
	deleteRecords(t, w.cluster, "raw", 0, 50)
	p = w.start(t, nil)
	eventually(t, "the remaining rows", func() bool { return w.rows() == 60 })
	if got := counter(t, p.pipeline.metrics.holeRecords.WithLabelValues("raw", HoleExpired)); got != 40 {
		t.Errorf("%v records are counted as missing, want 40", got)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestUnreachableBroker: the pipeline waits, says why it is not ready, and stops when told.
func TestUnreachableBroker(t *testing.T) {
	w := newWorld(t, 1, 1)
	p := w.start(t, func(p *process) { p.board.dead = true })
	eventually(t, "a reason", func() bool {
		err := p.pipeline.Ready()
		return err != nil
	})
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	p.store.Close()
}

func TestConfigErrors(t *testing.T) {
	good := newWorld(t, 1, 1).config
	for name, change := range map[string]func(*Config){
		"no raw topic":      func(c *Config) { c.RawTopics = nil },
		"no entities topic": func(c *Config) { c.EntitiesTopic = "" },
		"no partitions":     func(c *Config) { c.Partitions = 0 },
		"the same topic":    func(c *Config) { c.RawTopics = []RawTopic{{Name: c.EntitiesTopic}} },
		"a topic twice":     func(c *Config) { c.RawTopics = []RawTopic{{Name: "a"}, {Name: "a", Incarnation: 2}} },
		"rare heartbeats":   func(c *Config) { c.Group, c.HeartbeatInterval = "g", 25*time.Second },
		"long stop":         func(c *Config) { c.Group, c.StopTimeout = "g", 2*time.Minute },
	} {
		c := good.withDefaults()
		change(&c)
		if err := c.validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := good.validate(); err != nil {
		t.Error(err)
	}
}
