package pipeline

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// stickyBalancer gives partitions back to the members that held them, and shares the rest evenly. Members send what they hold
// as user data. kafka-go's protocol is eager: every member gives up everything at a rebalance, and what it is given back goes
// on from memory.
//
// Members with another fingerprint make other rows, and a shard that moves between them begins a new epoch, which replays hours of the
// log. So a partition that a member holds stays with members of its fingerprint while there are any, and one that nobody holds
// goes to those that hold the most. In a rolling upgrade new members wait until the last old one has left; settings
// that differ by mistake cost an epoch when the last process with the one kind leaves, and not at every rebalance.
type stickyBalancer struct {
	log *slog.Logger

	mu          sync.Mutex
	fingerprint uint64
	generation  int
	held        map[string][]int
	mixed       bool // members with several fingerprints were told of
}

// ProtocolName implements kafka.GroupBalancer.
func (b *stickyBalancer) ProtocolName() string { return "signindiag-sticky" }

// hold notes what the member is assigned in a generation.
func (b *stickyBalancer) hold(generation int, assigned map[string][]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.generation, b.held = generation, assigned
}

// decide notes what the member's rows depend on beside the log; 0 where they depend on nothing.
func (b *stickyBalancer) decide(fingerprint uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fingerprint = fingerprint
}

// holding is what a member tells of itself.
type holding struct {
	fingerprint uint64
	generation  int // in which it was given what it holds
	partitions  map[string][]int
}

// holdingVersion is the first byte of the user data.
const holdingVersion = 2

// UserData implements kafka.GroupBalancer: version, fingerprint, generation, then per topic its name and partitions.
func (b *stickyBalancer) UserData() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := binary.LittleEndian.AppendUint64([]byte{holdingVersion}, b.fingerprint)
	data = binary.AppendUvarint(data, uint64(max(b.generation, 0)))
	for _, t := range slices.Sorted(maps.Keys(b.held)) {
		data = binary.AppendUvarint(data, uint64(len(t)))
		data = append(data, t...)
		data = binary.AppendUvarint(data, uint64(len(b.held[t])))
		for _, p := range b.held[t] {
			data = binary.AppendUvarint(data, uint64(p))
		}
	}
	return data, nil
}

// parseHolding is the reverse of UserData; data of another balancer holds nothing.
func parseHolding(data []byte) holding {
	h := holding{partitions: map[string][]int{}}
	if len(data) < 9 || data[0] != holdingVersion {
		return h
	}
	h.fingerprint = binary.LittleEndian.Uint64(data[1:])
	data = data[9:]
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return 0, false
		}
		data = data[n:]
		return v, true
	}
	generation, _ := next()
	h.generation = int(min(generation, math.MaxInt32))
	for len(data) > 0 {
		n, ok := next()
		if !ok || n > uint64(len(data)) {
			return h
		}
		topic := string(data[:n])
		data = data[n:]
		count, ok := next()
		if !ok || count > uint64(len(data)) {
			return h
		}
		for range count {
			p, ok := next()
			if !ok {
				return h
			}
			h.partitions[topic] = append(h.partitions[topic], int(p))
		}
	}
	return h
}

// candidate is a member in an assignment.
type candidate struct {
	kafka.GroupMember
	holding
	load int
}

// holds reports whether the member may go on with the partition.
func (c *candidate) holds(topic string, id int) bool {
	return slices.Contains(c.partitions[topic], id) && slices.Contains(c.Topics, topic)
}

// AssignGroups implements kafka.GroupBalancer. It depends on its arguments only, not on their order.
func (b *stickyBalancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	out := kafka.GroupMemberAssignments{}
	if len(members) == 0 {
		return out
	}
	// A member whose membership had ended may still believe to hold what another was given later: the later one is right.
	all := make([]*candidate, len(members))
	for i, m := range members {
		out[m.ID] = map[string][]int{}
		all[i] = &candidate{GroupMember: m, holding: parseHolding(m.UserData)}
	}
	slices.SortFunc(all, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.generation, a.generation), cmp.Compare(a.ID, b.ID))
	})
	holder := func(among []*candidate, p kafka.Partition) *candidate {
		if i := slices.IndexFunc(among, func(c *candidate) bool { return c.holds(p.Topic, p.ID) }); i >= 0 {
			return among[i]
		}
		return nil
	}
	alike := map[uint64][]*candidate{}
	held := map[uint64]int{}
	for _, c := range all {
		alike[c.fingerprint] = append(alike[c.fingerprint], c)
	}
	for _, p := range partitions {
		if c := holder(all, p); c != nil {
			held[c.fingerprint]++
		}
	}
	fingerprints := slices.SortedFunc(maps.Keys(alike), func(a, b uint64) int {
		return cmp.Or(cmp.Compare(held[b], held[a]), cmp.Compare(len(alike[b]), len(alike[a])), cmp.Compare(a, b))
	})
	b.tell(fingerprints, alike, held)
	parts := map[uint64][]kafka.Partition{}
	for _, p := range partitions {
		to := fingerprints[0]
		if c := holder(all, p); c != nil {
			to = c.fingerprint
		}
		parts[to] = append(parts[to], p)
	}
	for _, f := range fingerprints {
		share(alike[f], parts[f], out)
	}
	return out
}

// share gives the partitions to the members, evenly, and to who holds them where that allows it.
func share(members []*candidate, partitions []kafka.Partition, out kafka.GroupMemberAssignments) {
	slices.SortFunc(partitions, func(a, b kafka.Partition) int { return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.ID, b.ID)) })
	give := func(c *candidate, p kafka.Partition) {
		out[c.ID][p.Topic] = append(out[c.ID][p.Topic], p.ID)
		c.load++
	}
	most := (len(partitions) + len(members) - 1) / len(members)
	var left []kafka.Partition
	for _, p := range partitions {
		if i := slices.IndexFunc(members, func(c *candidate) bool { return c.load < most && c.holds(p.Topic, p.ID) }); i >= 0 {
			give(members[i], p)
		} else {
			left = append(left, p)
		}
	}
	for _, p := range left {
		var least *candidate
		for _, c := range members {
			if slices.Contains(c.Topics, p.Topic) && (least == nil || c.load < least.load) {
				least = c
			}
		}
		if least != nil {
			give(least, p)
		}
	}
}

// tell logs once that members decide by different code or settings, and once that they agree again.
func (b *stickyBalancer) tell(fingerprints []uint64, alike map[uint64][]*candidate, held map[uint64]int) {
	b.mu.Lock()
	before := b.mixed
	b.mixed = len(fingerprints) > 1
	b.mu.Unlock()
	switch {
	case b.log == nil || before == b.mixed:
	case before:
		b.log.Info("all processes of the group have the same code, settings and catalogue again")
	default:
		var kinds []string
		for _, f := range fingerprints {
			kinds = append(kinds, fmt.Sprintf("%016x: %d processes with %d shards", f, len(alike[f]), held[f]))
		}
		b.log.Warn("processes of the group have different code, settings or catalogue; shards do not move between them until the last process of the one kind has left",
			"fingerprints", strings.Join(kinds, "; "))
	}
}

// group is a consumer group that this process is a member of.
type group struct {
	kafka    *Kafka
	config   Config
	stage    string
	topics   []string
	balancer *stickyBalancer
	log      *slog.Logger
	trouble  *Trouble
	metrics  *metrics
}

// shortGeneration is how long a generation lasts at least where several in a row end at once: kafka-go joins again without a pause
// when a topic that it watches cannot be read.
const shortGeneration = time.Second

// run joins the group and calls serve for every generation, with what this member is assigned, until ctx is done. serve must return
// soon after its context is done, and ends the generation when it returns; its error ends run.
func (g *group) run(ctx context.Context, serve func(ctx context.Context, m member, assigned map[string][]int) error) error {
	c := g.config
	name := c.group(g.stage)
	members, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: name, Brokers: g.kafka.config.Brokers, Dialer: g.kafka.dialer, Topics: g.topics,
		GroupBalancers:         []kafka.GroupBalancer{g.balancer},
		HeartbeatInterval:      c.HeartbeatInterval,
		SessionTimeout:         c.SessionTimeout,
		RebalanceTimeout:       c.RebalanceTimeout,
		JoinGroupBackoff:       time.Second,
		WatchPartitionChanges:  true,
		PartitionWatchInterval: c.topicsInterval,
		// A heartbeat without answer ends the generation before the session ends, when others take over.
		Timeout: min(g.kafka.config.RequestTimeout, c.SessionTimeout/2),
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", name, err)
	}
	var serving sync.WaitGroup
	defer func() {
		serving.Wait()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = members.Close() // it returns nothing else than nil
		}()
		select {
		case <-closed:
		case <-time.After(c.StopTimeout / 4):
			g.log.Warn("the consumer group could not be left in time; others take over after the session timeout", "group", name, "session_timeout", c.SessionTimeout.String())
		}
	}()
	g.trouble.Set("joining group " + name)
	work, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var logged time.Time
	var ended atomic.Int64 // when the generation before was over, Unix nanoseconds
	var short atomic.Int32 // generations in a row that ended at once
	for {
		gen, err := members.Next(work)
		switch {
		case ctx.Err() != nil || errors.Is(err, kafka.ErrGroupClosed):
			return nil
		case work.Err() != nil:
			return context.Cause(work)
		case errors.Is(err, kafka.RebalanceInProgress):
			// Another member came or went while this one joined.
			continue
		case err != nil:
			// kafka-go tries again by itself.
			err = g.kafka.explain(err)
			g.trouble.Set(fmt.Sprintf("join group %s: %v", name, err))
			if time.Since(logged) >= 30*time.Second {
				logged = time.Now()
				g.log.Warn("trying again", "what", "join group "+name, "error", err)
			}
			continue
		}
		g.trouble.Clear()
		assigned := map[string][]int{}
		count := 0
		for topic, parts := range gen.Assignments {
			for _, p := range parts {
				assigned[topic] = append(assigned[topic], p.ID)
			}
			count += len(parts)
		}
		serving.Add(1)
		g.balancer.hold(int(gen.ID), assigned)
		var paused time.Duration
		if at := ended.Load(); at > 0 {
			paused = time.Since(time.Unix(0, at))
			g.metrics.rebalanceSeconds.WithLabelValues(g.stage).Observe(paused.Seconds())
		}
		g.log.Info("partitions are assigned", "group", name, "generation", gen.ID, "partitions", count, "paused", paused)
		began := time.Now()
		gen.Start(func(gctx context.Context) {
			defer serving.Done()
			// A generation ends when its function returns, so there is one, and it ends with either context.
			run, cancel := context.WithCancel(gctx)
			defer cancel()
			stop := context.AfterFunc(work, cancel)
			defer stop()
			defer context.AfterFunc(run, func() { ended.Store(time.Now().UnixNano()) })()
			if err := serve(run, member{generation: int(gen.ID), id: gen.MemberID}, assigned); err != nil {
				fail(err)
				return
			}
			if run.Err() == nil {
				ended.Store(time.Now().UnixNano())
			}
			if time.Since(began) >= shortGeneration {
				short.Store(0)
			} else if short.Add(1) > 3 {
				select {
				case <-work.Done():
				case <-time.After(shortGeneration):
				}
			}
		})
	}
}
