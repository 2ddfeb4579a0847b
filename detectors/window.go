package detectors

import (
	"slices"
)

// windowCount is how many events a sliding window holds. The windows of an entity are exact while all their events are kept
// one by one (MaxKeptFailures, MaxKeptGroupEvents). Beyond that the events that are not kept are counted by the hour: the
// count then lies between least and most, which differ by the hours that an edge of the window cuts.
type windowCount struct {
	least, most int64
}

func (c windowCount) exact() bool { return c.least == c.most }

// window counts the events of a class in the window of the given length that ends at t, t included.
func (n *entity) window(t, length int64, of class) windowCount {
	after := t - length // exclusive
	var c windowCount
	for i := n.after(after); i < len(n.events) && n.events[i].time <= t; i++ {
		if n.events[i].class.any(of) {
			c.least++
		}
	}
	c.most = c.least
	for i := range n.hours {
		start, end := n.hours[i].hour*microsPerHour, (n.hours[i].hour+1)*microsPerHour
		if end <= after || start > t {
			continue
		}
		// Events that were summed up are older than the kept ones, so nothing counts twice.
		c.most += int64(n.hours[i].n) + int64(n.hours[i].late)
		if start > after && end <= t+1 {
			c.least += int64(n.hours[i].n)
		}
	}
	return c
}

// distinctActors counts the different users among a group's events in the window of the given length that ends at t. Above
// MaxKeptGroupEvents the numbers are estimates: least is that of the users of the kept events and of the hours that lie in the window
// whole, most that with the hours that an edge of the window cuts. Each estimate is within three standard errors (9.75 %, or one
// user) in 99.7 of 100 cases, see sketch.
func (n *entity) distinctActors(t, length int64, scratch *counter) windowCount {
	after := t - length // exclusive
	scratch.reset()
	from := n.after(after)
	to := from
	for ; to < len(n.events) && n.events[to].time <= t; to++ {
		scratch.add(n.events[to].actor)
	}
	c := windowCount{int64(scratch.distinct), int64(scratch.distinct)}
	var whole, cut sketch
	some, edge := false, false
	for i := range n.hours {
		h := &n.hours[i]
		start, end := h.hour*microsPerHour, (h.hour+1)*microsPerHour
		if h.actors == nil || end <= after || start > t {
			continue
		}
		if start > after && end <= t+1 {
			whole.union(h.actors)
			some = true
		} else {
			cut.union(h.actors)
			edge = true
		}
	}
	if !some && !edge {
		return c
	}
	for i := from; i < to; i++ {
		whole.add(n.events[i].actor)
	}
	if some {
		c.least = max(c.least, whole.estimate())
	}
	whole.union(&cut)
	c.most = max(c.least, whole.estimate())
	return c
}

// counter counts hashes in a sliding window without allocation: an open-addressing table that a generation number empties.
type counter struct {
	slots      []counterSlot
	generation uint32
	used       int // slots of this generation
	distinct   int // hashes with a count above 0
}

type counterSlot struct {
	hash       uint64
	generation uint32
	count      int32
}

func (c *counter) reset() {
	if len(c.slots) == 0 {
		c.slots = make([]counterSlot, 1024)
	}
	c.generation++
	if c.generation == 0 {
		clear(c.slots)
		c.generation = 1
	}
	c.used, c.distinct = 0, 0
}

func (c *counter) slot(hash uint64) *counterSlot {
	mask := uint64(len(c.slots) - 1)
	for i := (hash * 0x9e3779b97f4a7c15) >> 32 & mask; ; i = (i + 1) & mask {
		s := &c.slots[i]
		if s.generation != c.generation {
			if 4*(c.used+1) > 3*len(c.slots) {
				c.grow()
				return c.slot(hash)
			}
			c.used++
			*s = counterSlot{hash: hash, generation: c.generation}
			return s
		}
		if s.hash == hash {
			return s
		}
	}
}

func (c *counter) grow() {
	old, generation := c.slots, c.generation
	c.slots, c.used = make([]counterSlot, 2*len(old)), 0
	for i := range old {
		if old[i].generation == generation && old[i].count != 0 {
			c.slot(old[i].hash).count = old[i].count
		}
	}
}

// add counts a hash and returns its count.
func (c *counter) add(hash uint64) int {
	s := c.slot(hash)
	s.count++
	if s.count == 1 {
		c.distinct++
	}
	return int(s.count)
}

// remove takes one count of a hash away.
func (c *counter) remove(hash uint64) {
	s := c.slot(hash)
	s.count--
	if s.count == 0 {
		c.distinct--
	}
}

// count returns the count of a hash.
func (c *counter) count(hash uint64) int { return int(c.slot(hash).count) }

// peak returns the largest number of events in any window of the given length over events, which are in order.
func peak(events []*event, length int64, of func(*event) bool) int {
	best, n, from := 0, 0, 0
	for _, v := range events {
		if !of(v) {
			continue
		}
		n++
		for ; events[from].time <= v.time-length; from++ {
			if of(events[from]) {
				n--
			}
		}
		best = max(best, n)
	}
	return best
}

// peakDistinct returns the largest number of different values in any window of the given length over events, which are in
// order. value returns false for an event that does not count.
func peakDistinct(events []*event, length int64, scratch *counter, value func(*event) (uint64, bool)) int {
	scratch.reset()
	best, from := 0, 0
	for _, v := range events {
		x, ok := value(v)
		if !ok {
			continue
		}
		scratch.add(x)
		for ; events[from].time <= v.time-length; from++ {
			if x, ok := value(events[from]); ok {
				scratch.remove(x)
			}
		}
		best = max(best, scratch.distinct)
	}
	return best
}

// failureView fills v for a record of a user at time t from an address; its lists only when lists is true or the view is
// repeated. The lists reuse v's memory, their strings are the interner's.
func (s *entities) failureView(n *entity, t int64, address string, threshold RepeatedFailuresThreshold, lists bool, v *FailureView) {
	v.reset()
	length := threshold.Window.Microseconds()
	c := n.window(t, length, classCounts)
	here := s.texts.number(address)
	if here != 0 {
		for i := range n.passes {
			if p := &n.passes[i]; p.address == here && p.class.has(classSuccess) && p.time < t {
				v.FamiliarAddress = n.firstCounted(t-length) > p.time
				break
			}
		}
	}
	if c.least == 0 {
		return
	}
	v.Count, v.AtLeast = c.least, !c.exact()
	v.Repeated = c.least >= int64(threshold.Count)
	fs := s.scratch[:0]
	for i := n.after(t - length); i < len(n.events) && n.events[i].time <= t; i++ {
		if n.events[i].class.has(classCounts) {
			fs = append(fs, &n.events[i])
		}
	}
	s.scratch = fs
	if len(fs) > 0 {
		v.First, v.Last = fs[0].time, fs[len(fs)-1].time
	}
	if v.AtLeast {
		// What was summed up lies before the kept ones; its hours bound its times.
		for _, h := range n.hours {
			start, end := h.hour*microsPerHour, (h.hour+1)*microsPerHour-1
			if h.n > 0 && start > t-length && end <= t {
				if v.First == 0 || start < v.First {
					v.First = start
				}
				v.Last = max(v.Last, end)
			}
		}
	}
	for i := range n.passes {
		if p := &n.passes[i]; p.class.has(classSuccess) && p.time >= v.First && p.time <= v.Last {
			v.Successes++
		}
	}
	for _, f := range fs {
		if !f.class.has(classWrong) {
			continue
		}
		v.WrongPasswords++
		if here != 0 && f.address == here {
			v.WrongPasswordsFromAddress++
		}
	}
	if !lists && !v.Repeated {
		return
	}
	v.Applications = s.distinct(v.Applications, fs, func(f *event) uint32 { return f.app })
	v.Addresses = s.distinct(v.Addresses, fs, func(f *event) uint32 { return f.address })
	v.ClientApps = s.distinct(v.ClientApps, fs, func(f *event) uint32 { return f.clientApp })
	v.OperatingSystems = s.distinct(v.OperatingSystems, fs, func(f *event) uint32 { return f.operatingSystem })
	v.Devices = s.distinct(v.Devices, fs, func(f *event) uint32 { return f.device })
	for _, f := range fs {
		if len(v.Codes) == maxViewValues {
			break
		}
		if !slices.Contains(v.Codes, f.code) {
			v.Codes = append(v.Codes, f.code)
		}
	}
	v.RegularSeconds = regularSeconds(fs)
}

// firstCounted returns the time of the first kept failure later than t, the end of time where there is none.
func (n *entity) firstCounted(t int64) int64 {
	for i := n.after(t); i < len(n.events); i++ {
		if n.events[i].class.has(classCounts) {
			return n.events[i].time
		}
	}
	return 1<<63 - 1
}

func (v *FailureView) reset() {
	*v = FailureView{
		Applications: v.Applications[:0], Addresses: v.Addresses[:0], ClientApps: v.ClientApps[:0],
		OperatingSystems: v.OperatingSystems[:0], Devices: v.Devices[:0], Codes: v.Codes[:0],
	}
}

func (s *entities) distinct(dst []string, events []*event, of func(*event) uint32) []string {
	var seen [maxViewValues]uint32
	n, last := 0, uint32(0)
next:
	for _, v := range events {
		t := of(v)
		if t == last || t == 0 {
			continue
		}
		last = t
		for _, x := range seen[:n] {
			if x == t {
				continue next
			}
		}
		if n == len(seen) {
			break
		}
		seen[n] = t
		n++
		dst = append(dst, s.texts.text(t))
	}
	return dst
}

// Bounds of a machine's regular spacing.
const (
	// leastRegularSeconds is the least spacing that counts as regular: a client's own retries of one attempt come
	// closer, and say nothing about a schedule.
	leastRegularSeconds = 30
	// minSkippingGaps is the least number of gaps that can show a schedule of which some times are skipped; among fewer,
	// multiples come about by chance.
	minSkippingGaps = 8
	// maxSkipped is the greatest number of spacings that a gap of such a schedule may span: a telephone that dozes or has
	// no network leaves a few out.
	maxSkipped = 6
)

// regularSeconds returns the common spacing of events that come like a machine's: at least four of them, and four of five
// gaps within a tenth (at least two seconds) of the median gap, or, among at least minSkippingGaps, of up to maxSkipped
// times the gap that one of five is shorter than. The spacing is leastRegularSeconds or more; 0 says that there is none.
func regularSeconds(events []*event) int64 {
	if len(events) < minRegular {
		return 0
	}
	var buf, sorted [MaxKeptFailures]int64
	gaps := buf[:0]
	for i := max(1, len(events)-MaxKeptFailures); i < len(events); i++ {
		gaps = append(gaps, events[i].time-events[i-1].time)
	}
	order := append(sorted[:0], gaps...)
	slices.Sort(order)
	if s := spacing(gaps, order[len(order)/2], 1); s > 0 || len(gaps) < minSkippingGaps {
		return s
	}
	return spacing(gaps, order[len(order)/5], maxSkipped)
}

// spacing returns base in seconds when four of five gaps are near one of its multiples up to most, else 0. Gaps and base
// are microseconds.
func spacing(gaps []int64, base, most int64) int64 {
	if base < leastRegularSeconds*microsPerSecond {
		return 0
	}
	slack := max(base/10, 2*microsPerSecond)
	near := 0
	for _, g := range gaps {
		times := (g + base/2) / base
		if off := g - times*base; times >= 1 && times <= most && off >= -slack && off <= slack {
			near++
		}
	}
	if near*5 < len(gaps)*4 {
		return 0
	}
	return (base + microsPerSecond/2) / microsPerSecond
}
