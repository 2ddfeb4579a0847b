package pipeline

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lines keeps what is logged, for tests that look for a line.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

// fleet is a world with several processes in one consumer group.
type fleet struct {
	*world
	k     *Kafka
	rng   *rand.Rand
	users map[string]int64
	count int
	lines *lines
}

func newFleet(t *testing.T, raw, partitions int) *fleet {
	f := &fleet{world: newWorld(t, raw, partitions), rng: rand.New(rand.NewPCG(seed(t), 0)), users: map[string]int64{}, lines: &lines{}}
	f.config.Group = "signindiag"
	// Long, so that a slow machine ends no membership; tests with deaths wait for less.
	f.config.SessionTimeout, f.config.HeartbeatInterval, f.config.RebalanceTimeout = 20*time.Second, 50*time.Millisecond, 20*time.Second
	f.log = slog.New(slog.NewTextHandler(f.lines, nil))
	if os.Getenv("SIGNINDIAG_TEST_LOG") != "" {
		f.log = logger(t)
	}
	f.k = openKafka(t, f.cluster)
	ensure(t, f.k, "raw", raw)
	return f
}

// shortSession is for tests in which members die.
func (f *fleet) shortSession() {
	f.config.SessionTimeout, f.config.RebalanceTimeout, f.config.StopTimeout = 1500*time.Millisecond, 1500*time.Millisecond, time.Second
}

// produce writes n more records.
func (f *fleet) produce(t *testing.T, n int) {
	t.Helper()
	for u, more := range produceRaw(t, f.k, f.rng, f.count, n) {
		f.users[u] += more
	}
	f.count += n
}

// settled waits until all rows are there.
func (f *fleet) settled(t *testing.T, what string) {
	t.Helper()
	eventually(t, what, func() bool { return f.rows() == f.count })
}

// shardsOf are the shards that a process holds now.
func (p *process) shardsOf() (ids []int) {
	h := p.pipeline.health
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.parts {
		if k.topic == p.pipeline.config.EntitiesTopic {
			ids = append(ids, k.partition)
		}
	}
	return ids
}

// finish stops the processes, lets a new one look at everything, and compares.
func (f *fleet) finish(t *testing.T, processes ...*process) {
	t.Helper()
	for _, p := range processes {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}
	last := f.start(t, nil)
	f.produce(t, 100)
	f.settled(t, "the last rows")
	if err := last.stop(); err != nil {
		t.Error(err)
	}
	f.check(t, f.count, f.users)
}

// epochs is the highest epoch of the shards.
func (f *fleet) epochs() (highest uint16) {
	f.tables.mu.Lock()
	defer f.tables.mu.Unlock()
	for _, p := range f.tables.progress {
		highest = max(highest, p.Epoch)
	}
	return highest
}

// TestScaleOut lets processes join, leave, crash, and stop for longer than their session and wake again, while records arrive.
func TestScaleOut(t *testing.T) {
	f := newFleet(t, 4, 6)
	f.shortSession()
	live := []*process{f.start(t, nil)}
	asleep := map[*process]func(){}
	wakeAll := func() {
		for _, wake := range asleep {
			wake()
		}
		clear(asleep)
	}
	steps := 8
	if v := os.Getenv("SIGNINDIAG_TEST_ROUNDS"); v != "" {
		if _, err := fmt.Sscan(v, &steps); err != nil {
			t.Fatal(err)
		}
	}
	for range steps {
		f.produce(t, 200+f.rng.IntN(300))
		k := f.rng.IntN(len(live))
		what := ""
		switch e := f.rng.IntN(5); {
		case len(live) < 2 || e < 2 && len(live) < 4:
			what = "join"
			live = append(live, f.start(t, nil))
		case e == 2:
			what = "leave"
			wakeAll() // one that is asleep cannot leave
			if err := live[k].stop(); err != nil {
				t.Error(err)
			}
			live = slices.Delete(live, k, k+1)
		case e == 3:
			what = "crash"
			wakeAll()
			live[k].kill()
			live = slices.Delete(live, k, k+1)
		default:
			what = "pause"
			if asleep[live[k]] == nil {
				asleep[live[k]] = live[k].board.pause()
			}
		}
		if f.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(f.rng.IntN(1500)) * time.Millisecond)
		}
		if len(asleep) > 0 && (f.rng.IntN(2) == 0 || len(asleep) == len(live)) {
			what += ", wake"
			wakeAll()
		}
		t.Logf("%s: %d processes, %d of %d rows", what, len(live), f.rows(), f.count)
	}
	wakeAll()
	f.settled(t, "all rows")
	f.finish(t, live...)
	f.checkSnapshots(t, f.k)
	if e := f.epochs(); e != 1 {
		t.Errorf("epoch %d was reached, want 1: all processes decide alike", e)
	}
}

// TestZombieWakes: a process that stops with an INSERT and a produce request under way wakes after others have taken over.
func TestZombieWakes(t *testing.T) {
	f := newFleet(t, 4, 6)
	f.shortSession()
	var produces atomic.Int64
	a := f.start(t, func(p *process) {
		p.sink.delay = func() time.Duration { return 30 * time.Millisecond }
		p.board.before = func(api int16) bool {
			if api == 0 {
				produces.Add(1)
			}
			return false
		}
	})
	f.produce(t, 500)
	f.settled(t, "rows by the first process")
	b := f.start(t, nil)
	eventually(t, "both have shards", func() bool { return len(a.shardsOf()) == 3 && len(b.shardsOf()) == 3 })
	before := produces.Load()
	for produces.Load() == before {
		f.produce(t, 50)
	}
	wake := a.board.pause()
	f.produce(t, 500)
	eventually(t, "the other has all shards", func() bool { return len(b.shardsOf()) == 6 })
	f.settled(t, "all rows by the other process")
	f.produce(t, 200)
	wake()
	f.settled(t, "all rows after it woke")
	eventually(t, "both have shards again", func() bool { return len(a.shardsOf()) == 3 && len(b.shardsOf()) == 3 })
	f.finish(t, a, b)
	f.checkSnapshots(t, f.k)
}

// pauses returns for how long members of a stage's group paused between two generations, from the log.
func (l *lines) pauses(stage string) (all []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range regexp.MustCompile(`stage=`+stage+` group=.* paused=(\S+)`).FindAllStringSubmatch(l.b.String(), -1) {
		if d, err := time.ParseDuration(m[1]); err == nil && d > 0 {
			all = append(all, d)
		}
	}
	slices.Sort(all)
	return all
}

// TestRollingRestart: three processes are restarted one after the other while records arrive. Shards that stay keep their memory, and
// those that move begin with the snapshot of their last owner, so that nothing is replayed.
func TestRollingRestart(t *testing.T) {
	f := newFleet(t, 4, 12)
	f.config.SnapshotInterval, f.config.SnapshotRecords = time.Hour, 1<<40 // those at the end of a generation alone
	var all []*process
	start := func() {
		all = append(all, f.start(t, nil))
		eventually(t, "shards are shared", func() bool {
			n := 0
			for _, p := range all {
				n += len(p.shardsOf())
				if len(p.shardsOf()) != 12/len(all) {
					return false
				}
			}
			return n == 12
		})
	}
	for range 3 {
		start()
	}
	f.produce(t, 1000)
	f.settled(t, "rows before")
	var replayed float64
	for range 3 {
		f.produce(t, 300)
		if err := all[0].stop(); err != nil {
			t.Error(err)
		}
		replayed += counter(t, all[0].pipeline.metrics.replayed)
		all = all[1:]
		f.produce(t, 300)
		start()
		f.settled(t, "rows after a restart")
	}
	for _, p := range all {
		replayed += counter(t, p.pipeline.metrics.replayed)
	}
	for _, stage := range []string{"router", "shards"} {
		if d := f.lines.pauses(stage); len(d) > 0 {
			t.Logf("%s: %d pauses of a member by a rebalance, median %s, longest %s", stage, len(d), d[len(d)/2], d[len(d)-1])
		}
	}
	if replayed != 0 {
		t.Errorf("%v messages were replayed, want none: every owner leaves a snapshot at its last position", replayed)
	}
	f.finish(t, all...)
}

// TestRollingUpgrade: three processes get another fingerprint one after the other, and an old one comes and goes in between. Shards move from the old to the new once; a process with other settings takes none from those that hold them.
func TestRollingUpgrade(t *testing.T) {
	f := newFleet(t, 4, 6)
	shared := func(all ...*process) {
		eventually(t, "shards are shared", func() bool {
			n := 0
			for _, p := range all {
				n += len(p.shardsOf())
			}
			return n == 6 && len(all[0].shardsOf()) == 6/len(all)
		})
	}
	a := f.start(t, nil)
	f.produce(t, 500)
	f.settled(t, "rows of the old code")
	b := f.start(t, nil)
	shared(a, b)
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	f.fingerprint = 2
	a = f.start(t, nil)
	f.produce(t, 300)
	f.settled(t, "rows of old and new code")
	eventually(t, "the old process has all shards", func() bool { return len(b.shardsOf()) == 6 })
	if e := f.epochs(); e != 1 {
		t.Errorf("epoch %d while an old process lives, want 1", e)
	}
	f.fingerprint = 1
	for range 3 { // an old one that comes and goes
		c := f.start(t, nil)
		shared(b, c)
		f.produce(t, 50)
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	}
	f.settled(t, "rows of old and new code")
	if e := f.epochs(); e != 1 {
		t.Errorf("epoch %d while an old process lives, want 1", e)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	f.produce(t, 300)
	f.settled(t, "rows of the new code")
	shared(a)
	for range 3 { // one with the old settings comes by mistake
		c := f.start(t, nil)
		f.produce(t, 50)
		eventually(t, "the mistake is told", func() bool {
			return f.lines.count("different code, settings or catalogue;") >= 1 || os.Getenv("SIGNINDIAG_TEST_LOG") != ""
		})
		f.settled(t, "rows beside a process with old settings")
		if ids := c.shardsOf(); len(ids) > 0 {
			t.Errorf("the process with old settings took %v", ids)
		}
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	}
	f.fingerprint = 2
	b = f.start(t, nil)
	shared(a, b)
	f.produce(t, 100)
	f.settled(t, "rows of the new code")
	if e := f.epochs(); e != 2 {
		t.Errorf("epoch %d after the upgrade, want 2", e)
	}
	f.finish(t, a, b)
	for u := range f.users {
		if i := f.tables.incidents[u]; i.Kind != "2" {
			t.Errorf("%s is decided by code %s, want 2", u, i.Kind)
		}
	}
}

// TestSettingsThatDiffer: SIGHUP reaches one process and then the other, with a rebalance in between, and a process without shards
// joins in when it has the settings of the others.
func TestSettingsThatDiffer(t *testing.T) {
	f := newFleet(t, 2, 4)
	reload := func(p *process, fingerprint uint64) {
		p.fingerprint.Store(fingerprint)
		p.pipeline.RestartShards()
	}
	a := f.start(t, nil)
	b := f.start(t, nil)
	f.produce(t, 300)
	f.settled(t, "rows")
	eventually(t, "shards are shared", func() bool { return len(a.shardsOf()) == 2 && len(b.shardsOf()) == 2 })
	reload(a, 2)
	f.produce(t, 100)
	c := f.start(t, nil) // settings of b
	eventually(t, "b shares with c, a keeps its own", func() bool { return len(a.shardsOf()) == 2 && len(b.shardsOf()) == 1 && len(c.shardsOf()) == 1 })
	f.produce(t, 100)
	f.settled(t, "rows of both")
	reload(b, 2)
	reload(c, 2)
	f.fingerprint = 3
	d := f.start(t, nil)
	f.produce(t, 200)
	f.settled(t, "rows of the new settings")
	if ids := d.shardsOf(); len(ids) > 0 {
		t.Errorf("a process with settings of its own has %v", ids)
	}
	reload(d, 2)
	eventually(t, "all share", func() bool {
		return len(a.shardsOf()) == 1 && len(b.shardsOf()) == 1 && len(c.shardsOf()) == 1 && len(d.shardsOf()) == 1
	})
	f.produce(t, 200)
	f.settled(t, "rows of all")
	if e := f.epochs(); e > 3 {
		t.Errorf("epoch %d, want at most 3", e)
	}
	f.fingerprint = 2
	f.finish(t, a, b, c, d)
}

// TestJoinFailureIsTold: by readiness and one line, and it goes away.
func TestJoinFailureIsTold(t *testing.T) {
	f := newFleet(t, 1, 2)
	fault := f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	p := f.start(t, nil)
	f.produce(t, 50)
	eventually(t, "a reason", func() bool {
		err := p.pipeline.Ready()
		return err != nil && strings.Contains(err.Error(), "join group signindiag.") && strings.Contains(err.Error(), "Group Authorization Failed")
	})
	t.Log(p.pipeline.Ready())
	time.Sleep(1500 * time.Millisecond) // some more attempts
	if n := f.lines.count("Group Authorization Failed"); n != 2 && os.Getenv("SIGNINDIAG_TEST_LOG") == "" {
		t.Errorf("%d lines about it, want one for each of two groups", n)
	}
	fault.Remove()
	f.settled(t, "rows when it is allowed")
	eventually(t, "ready", func() bool { return p.pipeline.Ready() == nil })
	f.finish(t, p)
}

// TestMissingRawTopic: a group waits for topics that are not there, without joining again and again, and reads them when they come.
func TestMissingRawTopic(t *testing.T) {
	f := newFleet(t, 2, 2)
	f.config.RawPartitions = 0
	f.config.RawTopics = []RawTopic{{Name: "raw", Incarnation: 1}, {Name: "later", Incarnation: 1}}
	f.config.topicsInterval = 200 * time.Millisecond
	f.produce(t, 100)
	var joins atomic.Int64
	p := f.start(t, func(p *process) {
		p.board.before = func(api int16) bool {
			if api == 11 {
				joins.Add(1)
			}
			return false
		}
	})
	f.settled(t, "rows of the topic that is there")
	err := p.pipeline.Ready()
	if err == nil || !strings.Contains(err.Error(), "later") {
		t.Errorf("ready says %v, want the name of the missing topic", err)
	}
	time.Sleep(time.Second)
	if n := joins.Load(); n > 6 {
		t.Errorf("%d requests to join in a second", n)
	}
	ensure(t, f.k, "later", 3)
	eventually(t, "ready", func() bool { return p.pipeline.Ready() == nil })
	// Another process reads one of the topics only, and a third the other.
	f.config.RawTopics = f.config.RawTopics[:1]
	q := f.start(t, nil)
	eventually(t, "shards are shared", func() bool { return len(p.shardsOf()) == 1 && len(q.shardsOf()) == 1 })
	f.produce(t, 100)
	producer, err := NewRawProducer(t.Context(), f.k, "later", CodecNone, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for range 20 {
		if _, err := producer.Send(t.Context(), [][]byte{[]byte(signIn(f.count, "user1@example.com"))}); err != nil {
			t.Fatal(err)
		}
		f.users["user1@example.com"]++
		f.count++
	}
	f.settled(t, "rows of both topics")
	f.grow(t, "raw", 5)
	f.produce(t, 300)
	f.settled(t, "rows of new partitions")
	f.finish(t, p, q)
}

// grow adds partitions to a topic.
func (f *fleet) grow(t *testing.T, name string, partitions int32) {
	t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = name, partitions
	req.Topics, req.TimeoutMillis = append(req.Topics, topic), 5000
	resp := request(t, f.cluster, name, 0, req).(*kmsg.CreatePartitionsResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}

// TestEntitiesTopicGrows: partitions that are added while it is read are told of and left alone.
func TestEntitiesTopicGrows(t *testing.T) {
	f := newFleet(t, 1, 2)
	f.config.topicsInterval = 100 * time.Millisecond
	p := f.start(t, nil)
	f.produce(t, 100)
	f.settled(t, "rows")
	f.grow(t, f.config.EntitiesTopic, 4)
	eventually(t, "it is told", func() bool {
		err := p.pipeline.Ready()
		return err != nil && strings.Contains(err.Error(), "has 4 partitions")
	})
	t.Log(p.pipeline.Ready())
	f.produce(t, 100)
	f.settled(t, "rows after it has grown")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	f.check(t, f.count, f.users)
}

// TestStrangers: two processes that are members of no group and decide differently overtake each other's epochs a few times, and then
// one of them stops and says why.
func TestStrangers(t *testing.T) {
	f := newFleet(t, 1, 2)
	f.config.Group = ""
	a := f.start(t, nil)
	f.produce(t, 200)
	f.settled(t, "rows by the first")
	f.fingerprint = 2
	b := f.start(t, nil)
	stopped := func(p *process) bool {
		err := p.pipeline.Ready()
		return err != nil && strings.Contains(err.Error(), "another process with other code, settings or catalogue works on the shard")
	}
	eventually(t, "one of them stops", func() bool {
		f.produce(t, 20)
		time.Sleep(20 * time.Millisecond)
		return stopped(a) || stopped(b)
	})
	t.Log(a.pipeline.Ready(), b.pipeline.Ready())
	if e := f.epochs(); e > 3*(maxSuperseded+1) {
		t.Errorf("epoch %d before one of two processes stopped", e)
	}
	f.finish(t, a, b)
}
