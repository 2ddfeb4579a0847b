package detectors

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/signindiag/signindiag/schemas"
)

// history is what a look at the whole history of an entity finds: its events in order, each request id once.
type history struct {
	role   schemas.Role
	events []event
}

// histories recomputes the events of every entity from all records so far, without any state.
func histories(e *Engine, records []*schemas.SignIn) map[uint64]*history {
	out := map[uint64]*history{}
	d := Dealer{Catalogue: e.catalogue}
	seen := map[string]bool{}
	for _, r := range records {
		if seen[r.RequestId] {
			continue
		}
		seen[r.RequestId] = true
		id := d.identify(r)
		var compact schemas.SignIn
		schemas.CompactFor(&compact, r)
		add := func(key uint64, role schemas.Role, c class) {
			h := out[key]
			if h == nil {
				h = &history{role: role}
				out[key] = h
			}
			h.events = append(h.events, event{time: r.EventTime, hash: schemas.Hash64(r.RequestId), actor: id.key, class: c, code: r.ErrorCode})
		}
		c := classOf(r, e.catalogue)
		if c.any(classCounts|classDeviceCode|classWrongSecret|classExpired) || c.has(classLegacy) && c.any(classSuccess|classLegacyStop) {
			add(id.key, id.role, c)
		}
		c = classOf(&compact, e.catalogue)
		d.groups(&compact, WantedRoles(), func(role schemas.Role, key uint64, _ *schemas.Policy) {
			if c.any(eventsOf(role)) && c.concerns(role) {
				add(key, role, c)
			}
		})
	}
	for _, h := range out {
		slices.SortFunc(h.events, compareEvents)
	}
	return out
}

// count counts the events of a class and their users in the window that ends at t.
func (h *history) count(t, length int64, of class) (events, actors int64) {
	seen := map[uint64]bool{}
	for i := range h.events {
		if v := &h.events[i]; v.time > t-length && v.time <= t {
			seen[v.actor] = true
			if v.class.any(of) {
				events++
			}
		}
	}
	return events, int64(len(seen))
}

// peaks are the largest numbers of events and of users in any window: those that end at an event hold every maximum.
func (h *history) peaks(length int64, of class) (events, actors int64) {
	for i := range h.events {
		n, a := h.count(h.events[i].time, length, of)
		events, actors = max(events, n), max(actors, a)
	}
	return events, actors
}

var lengths = []int64{testMinute, 10 * testMinute, testHour, 24 * testHour, 48 * testHour}

// While an entity holds no more events than are kept, its windows are what a look at the whole history counts, however late and
// often records come, and over restarts.
func TestWindowsOfEveryEntityEqualWholeHistory(t *testing.T) {
	cat := testCatalogue(t)
	looked := map[schemas.Role]int{}
	for seed := range uint64(150) {
		tr := newTraffic(seed)
		records := tr.shuffled(tr.records())
		for _, r := range records { // no two tries of a client without a person are the same
			r.DeviceDisplayName = r.RequestId
		}
		run := newRunner(t, 1, Options{Catalogue: cat})
		for i, r := range records {
			run.add(r)
			if tr.IntN(20) == 0 {
				run.restart()
			}
			if tr.IntN(20) > 0 && i < len(records)-1 {
				continue
			}
			s := &run.engines[0].entities
			all := histories(run.engines[0], records[:i+1])
			for key, h := range all {
				n := s.get(key)
				if n == nil {
					t.Fatalf("seed %d: no state of a %s with %d events", seed, h.role, len(h.events))
				}
				looked[h.role]++
				of := []class{classCounts, classWrong, classLocked, ^class(0)}[tr.IntN(4)]
				length := lengths[tr.IntN(len(lengths))]
				at := h.events[tr.IntN(len(h.events))].time + []int64{0, -1, length, length - 1, testMinute}[tr.IntN(5)]
				events, actors := h.count(at, length, of)
				if c := n.window(at, length, of); !c.exact() || c.least != events {
					t.Errorf("seed %d, record %d: %s has %+v events of %x, want %d", seed, i, h.role, c, of, events)
				}
				if c := n.distinctActors(at, length, &run.engines[0].counter); !c.exact() || c.least != actors {
					t.Errorf("seed %d, record %d: %s has %+v users, want %d", seed, i, h.role, c, actors)
				}
				kept := make([]*event, len(n.events))
				for k := range kept {
					kept[k] = &n.events[k]
				}
				events, actors = h.peaks(length, of)
				if got := peak(kept, length, func(v *event) bool { return v.class.any(of) }); int64(got) != events {
					t.Errorf("seed %d, record %d: %s has a peak of %d events, want %d", seed, i, h.role, got, events)
				}
				if got := peakDistinct(kept, length, &run.engines[0].counter, func(v *event) (uint64, bool) { return v.actor, true }); int64(got) != actors {
					t.Errorf("seed %d, record %d: %s has a peak of %d users, want %d", seed, i, h.role, got, actors)
				}
			}
			if len(all) != len(s.index) {
				t.Errorf("seed %d, record %d: state of %d entities, want %d", seed, i, len(s.index), len(all))
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	for role := range entityKinds {
		if looked[role] == 0 {
			t.Errorf("no stream had an entity of %s", role)
		}
	}
	t.Logf("entities looked at: %v", looked)
}

// misses counts how often an estimate lies beyond three standard errors. The estimates are independent, each misses in 3 of 1000
// cases (those of a normal distribution), so more than most misses come in fewer than 1 of 10 000 runs.
func allowedMisses(cases int) (most int) {
	const miss = 0.0027
	p := math.Pow(1-miss, float64(cases)) // of exactly most misses
	for sum := p; sum < 0.9999; sum += p {
		most++
		p *= float64(cases-most+1) / float64(most) * miss / (1 - miss)
	}
	return most
}

// Beyond the bound a window's counts enclose the exact number, however late events come, and its numbers of users are within the
// stated error.
func TestWindowsBeyondTheBound(t *testing.T) {
	cat := testCatalogue(t)
	const seeds = 60
	misses, estimates, enclosed := 0, 0, 0
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 11))
		run := newRunner(t, 1, Options{Catalogue: cat, RecentBytes: 1})
		count, users := 300+r.IntN(1500), 1+r.IntN(1200)
		span := (1 + r.Int64N(90)) * testHour
		late := []int64{0, testHour, span}[r.IntN(3)] // how late events may come
		hot := r.IntN(8) == 0                         // one user, hence more than are kept of a user too
		records := make([]*schemas.SignIn, count)
		for i := range records {
			after := span*int64(i)/int64(count) - r.Int64N(late+1)
			user := r.IntN(users)
			if hot {
				user = 0
			}
			records[i] = testRecord(int(seed)*10_000+i, int(seed)*10_000+user, max(after, 0), codeWrong)
			run.add(records[i])
			if r.IntN(300) == 0 {
				run.restart()
			}
		}
		e := run.engines[0]
		for key, h := range histories(e, records) {
			n := e.entities.get(key)
			if !n.group() && len(h.events) <= MaxKeptFailures {
				continue
			}
			newest := h.events[len(h.events)-1].time
			at := newest - r.Int64N(min(span, 48*testHour))
			if r.IntN(3) == 0 {
				at = newest
			}
			length := lengths[2+r.IntN(3)]
			events, actors := h.count(at, length, classWrong)
			c := n.window(at, length, classWrong)
			if c.least > events || c.most < events {
				t.Errorf("seed %d: %s with %d events has %+v of %d", seed, h.role, len(h.events), c, events)
			}
			enclosed++
			if !n.group() {
				continue
			}
			// The users of what is known to lie in the window, and of what may.
			inside, touching := map[uint64]bool{}, map[uint64]bool{}
			oldest := n.events[0]
			for i := range h.events {
				v := &h.events[i]
				hour := floorDiv(v.time, microsPerHour)
				start, end := hour*microsPerHour, (hour+1)*microsPerHour
				kept := compareEvents(*v, oldest) >= 0
				in := v.time > at-length && v.time <= at
				if kept && in || !kept && start > at-length && end <= at+1 {
					inside[v.actor], touching[v.actor] = true, true
				} else if !kept && end > at-length && start <= at {
					touching[v.actor] = true
				}
			}
			d := n.distinctActors(at, length, &e.counter)
			if int64(len(inside)) > actors || int64(len(touching)) < actors {
				t.Fatalf("seed %d: %d and %d do not enclose %d", seed, len(inside), len(touching), actors)
			}
			beyond := func(got int64, want int) bool {
				return math.Abs(float64(got)-float64(want)) > max(0.0975*float64(want), 1)
			}
			if d.exact() && d.least == actors {
				continue
			}
			estimates++
			if beyond(d.least, len(inside)) || beyond(d.most, len(touching)) {
				misses++
				t.Logf("seed %d: %+v users, want %d to %d", seed, d, len(inside), len(touching))
			}
		}
	}
	// least and most of one window are two estimates.
	most := allowedMisses(2 * estimates)
	t.Logf("seeds 0 to %d: %d windows enclosed; %d estimates of users, %d misses, %d allowed", seeds-1, enclosed, estimates, misses, most)
	if misses > most || estimates < seeds/3 || enclosed < seeds {
		t.Errorf("%d misses of %d, want at most %d", misses, estimates, most)
	}
}

// The sketch's error is that of the paper, for sets of any size and for unions.
func TestSketch(t *testing.T) {
	const seeds = 400 // 0 to 399, for each size
	for _, size := range []int{1, 10, 100, 1000, 2500, 3000, 5000, 20_000, 200_000} {
		misses, squares, sum := 0, 0.0, 0.0
		cases := seeds
		if size > 10_000 {
			cases = seeds / 8
		}
		for seed := range uint64(cases) {
			var a, b sketch
			for i := range size {
				hash := schemas.Hash64(fmt.Sprintf("%d %d", seed, i))
				a.add(hash)
				a.add(hash)
				if i%2 == 0 {
					b.add(hash)
				}
			}
			whole := a
			if a.union(&b); a != whole {
				t.Fatalf("seed %d: a union with a part of itself is another sketch", seed)
			}
			off := float64(a.estimate()-int64(size)) / float64(size)
			squares, sum = squares+off*off, sum+off
			if math.Abs(off) > max(0.0975, 1/float64(size)) {
				misses++
			}
		}
		t.Logf("%d hashes: standard error %.2f %%, bias %.2f %%, %d of %d seeds beyond 9.75 %%", size, 100*math.Sqrt(squares/float64(cases)), 100*sum/float64(cases), misses, cases)
		if misses > allowedMisses(cases) {
			t.Errorf("%d hashes: %d misses, want at most %d", size, misses, allowedMisses(cases))
		}
	}
}
