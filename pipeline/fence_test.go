package pipeline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// The protocol between routers and shards, without Kafka: routers read sources from a committed offset, deal each record
// to target partitions, keep a queue per target with one request under way, send the same batch until it is
// acknowledged, and commit below the lowest unacknowledged record. Requests may be applied with the answer lost, fail, or be
// applied long after the router gave up on them or died. Several routers may believe to own a source. Shards drop what
// is at or below the highest offset that they know of a source. Each record must then count exactly once per target.

// protocol has the rules that a mutant breaks.
type protocol struct {
	noFence     bool // shards count everything
	noOrder     bool // a second request goes out while one is under way
	commitEarly bool // an offset is committed when its records are handed over, not when they are acknowledged
}

type simRecord struct{ source, offset int }

type simRequest struct {
	target int
	batch  []simRecord
}

type simRouter struct {
	sources []int          // sources that it believes to own
	read    map[int]int    // next offset to read
	queue   [][]simRecord  // by target: not yet sent
	flight  [][]simRequest // by target: sent and not acknowledged
	unacked map[simRecord]int
}

type simWorld struct {
	rng       *rand.Rand
	rules     protocol
	length    []int // records by source
	targets   int
	logs      [][]simRecord
	committed []int
	routers   []*simRouter
	delayed   []simRequest
}

// deal says where a record goes: one or two targets, always the same.
func (w *simWorld) deal(r simRecord) []int {
	h := uint64(r.source)*0x9e3779b97f4a7c15 + uint64(r.offset)*0xbf58476d1ce4e5b9
	h ^= h >> 29
	a, b := int(h%uint64(w.targets)), int((h>>20)%uint64(w.targets))
	if a == b || h>>40&1 == 0 {
		return []int{a}
	}
	return []int{a, b}
}

func (w *simWorld) startRouter(sources []int) {
	r := &simRouter{sources: sources, read: map[int]int{}, queue: make([][]simRecord, w.targets), flight: make([][]simRequest, w.targets), unacked: map[simRecord]int{}}
	for _, s := range sources {
		r.read[s] = w.committed[s]
	}
	w.routers = append(w.routers, r)
}

// step lets one router do one thing.
func (w *simWorld) step(r *simRouter, calm bool) {
	switch w.rng.IntN(4) {
	case 0: // read some records of one source
		s := r.sources[w.rng.IntN(len(r.sources))]
		for range 1 + w.rng.IntN(4) {
			if r.read[s] == w.length[s] {
				return
			}
			rec := simRecord{s, r.read[s]}
			r.read[s]++
			for _, t := range w.deal(rec) {
				r.queue[t] = append(r.queue[t], rec)
				r.unacked[rec]++
			}
		}
	case 1: // send
		t := w.rng.IntN(w.targets)
		allowed := 1
		if w.rules.noOrder {
			allowed = 2
		}
		if len(r.queue[t]) > 0 && len(r.flight[t]) < allowed {
			n := 1 + w.rng.IntN(len(r.queue[t]))
			r.flight[t] = append(r.flight[t], simRequest{t, slices.Clone(r.queue[t][:n])})
			r.queue[t] = r.queue[t][n:]
		}
	case 2: // a request meets its fate
		t := w.rng.IntN(w.targets)
		if len(r.flight[t]) == 0 {
			return
		}
		i := w.rng.IntN(len(r.flight[t]))
		req := r.flight[t][i]
		fate := w.rng.IntN(8)
		if calm {
			fate = 0
		}
		switch fate {
		case 1: // applied, the answer is lost: it will be sent again
			w.logs[t] = append(w.logs[t], req.batch...)
		case 2: // not applied
		case 3: // given up on, applied some time later
			w.delayed = append(w.delayed, req)
		default:
			w.logs[t] = append(w.logs[t], req.batch...)
			for _, rec := range req.batch {
				if r.unacked[rec]--; r.unacked[rec] == 0 {
					delete(r.unacked, rec)
				}
			}
			r.flight[t] = slices.Delete(r.flight[t], i, i+1)
		}
	case 3: // commit, also over a higher commit of another router
		s := r.sources[w.rng.IntN(len(r.sources))]
		below := r.read[s]
		if !w.rules.commitEarly {
			for rec := range r.unacked {
				if rec.source == s {
					below = min(below, rec.offset)
				}
			}
		}
		w.committed[s] = below
	}
}

// simulate runs one schedule and returns how many records are lost and how many count more than once.
func simulate(seed uint64, rules protocol) (lost, twice int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &simWorld{rng: rng, rules: rules, targets: 1 + rng.IntN(4)}
	for range 1 + rng.IntN(3) {
		w.length = append(w.length, 5+rng.IntN(30))
	}
	w.logs, w.committed = make([][]simRecord, w.targets), make([]int, len(w.length))
	all := make([]int, len(w.length))
	for i := range all {
		all[i] = i
	}
	w.startRouter(all)
	for range 50 + rng.IntN(400) {
		switch e := rng.IntN(60); {
		case e == 0 && len(w.routers) > 1: // death: what was under way may still be applied
			i := rng.IntN(len(w.routers))
			for _, f := range w.routers[i].flight {
				for _, req := range f {
					if rng.IntN(2) == 0 {
						w.delayed = append(w.delayed, req)
					}
				}
			}
			w.routers = slices.Delete(w.routers, i, i+1)
		case e == 1 && len(w.routers) < 4: // another one starts; the old ones may not know
			owned := slices.Clone(all)
			rng.Shuffle(len(owned), func(i, j int) { owned[i], owned[j] = owned[j], owned[i] })
			w.startRouter(owned[:1+rng.IntN(len(owned))])
		case e < 6 && len(w.delayed) > 0: // the broker applies a request that nobody waits for any more
			i := rng.IntN(len(w.delayed))
			w.logs[w.delayed[i].target] = append(w.logs[w.delayed[i].target], w.delayed[i].batch...)
			w.delayed = slices.Delete(w.delayed, i, i+1)
		default:
			w.step(w.routers[rng.IntN(len(w.routers))], false)
		}
	}
	// At last one router does the rest in peace.
	w.routers = nil
	w.startRouter(all)
	last := w.routers[0]
	for done := false; !done; {
		w.step(last, true)
		done = len(last.unacked) == 0
		for s, n := range w.length {
			done = done && last.read[s] == n
		}
	}
	for _, req := range w.delayed {
		w.logs[req.target] = append(w.logs[req.target], req.batch...)
	}
	for t, log := range w.logs {
		counted := map[simRecord]int{}
		fence := map[int]int{}
		for _, rec := range log {
			if high, ok := fence[rec.source]; ok && rec.offset <= high && !rules.noFence {
				continue
			}
			fence[rec.source] = rec.offset
			counted[rec]++
		}
		for s, n := range w.length {
			for offset := range n {
				rec := simRecord{s, offset}
				if !slices.Contains(w.deal(rec), t) {
					continue
				}
				switch c := counted[rec]; {
				case c == 0:
					lost++
				case c > 1:
					twice++
				}
			}
		}
	}
	return lost, twice
}

func TestFenceProtocol(t *testing.T) {
	s := seed(t)
	schedules := uint64(5000)
	if testing.Short() {
		schedules = 1000
	}
	for i := range schedules {
		if lost, twice := simulate(s+i, protocol{}); lost > 0 || twice > 0 {
			t.Fatalf("schedule %d: %d records lost, %d counted twice", s+i, lost, twice)
		}
	}
}

// TestFenceProtocolMutants: each rule is needed, and the simulation sees when it is broken.
func TestFenceProtocolMutants(t *testing.T) {
	for _, mutant := range []struct {
		rules       protocol
		lost, twice bool
	}{
		{rules: protocol{noFence: true}, twice: true},
		{rules: protocol{noOrder: true}, lost: true},
		{rules: protocol{commitEarly: true}, lost: true},
	} {
		t.Run(fmt.Sprintf("%+v", mutant.rules), func(t *testing.T) {
			var lost, twice int
			for i := range uint64(1000) {
				l, d := simulate(i, mutant.rules)
				lost, twice = lost+l, twice+d
			}
			t.Logf("%d lost, %d twice", lost, twice)
			if lost > 0 != mutant.lost || twice > 0 != mutant.twice {
				t.Errorf("%d lost and %d twice, want lost %v and twice %v", lost, twice, mutant.lost, mutant.twice)
			}
		})
	}
}
