package detectors

import (
	"cmp"
	"slices"
	"strings"

	"github.com/signindiag/signindiag/schemas"
)

// maxAttemptMembers bounds the records of one attempt group that are looked at one by one. Of a longer
// attempt the earliest are only summed up: they still give the attempt its id, its counts and its outcome, but
// rows of theirs that were emitted do not change any more.
const maxAttemptMembers = 64

// Outcomes as small numbers, for recentEntry.outcomes: outcome | attempt outcome << 2.
const (
	outcomeSuccess uint8 = iota
	outcomeFailure
	outcomeInterrupted
	outcomeResolved
)

const (
	attemptSucceeded uint8 = iota
	attemptFailed
	attemptResolved
	attemptInterrupted
)

var (
	outcomeNames = [4]string{OutcomeSuccess, OutcomeFailure, OutcomeInterrupted, OutcomeResolved}
	attemptNames = [4]string{AttemptSucceeded, AttemptFailed, AttemptResolved, AttemptInterrupted}
)

// instant is a record's place in the order of an attempt. Records of the same microsecond (Log Analytics keeps
// less) stand in the order interrupt, failure, success, and then by the hash of the request id, so that
// the order does not depend on who arrived first.
type instant struct {
	time int64
	kind uint8
	hash uint64
}

func (a instant) compare(b instant) int {
	if c := cmp.Compare(a.time, b.time); c != 0 {
		return c
	}
	if c := cmp.Compare(a.kind, b.kind); c != 0 {
		return c
	}
	return cmp.Compare(a.hash, b.hash)
}

func (e *recentEntry) instant() instant { return instant{e.eventTime, e.kind, e.request} }

// attemptSum is what is known of the records of one attempt together. It is also the form in which records that
// left the store live on while others of their attempt are still there.
type attemptSum struct {
	first, last                     int64
	successes, failures, interrupts int64
	// earliest is the record that names the attempt, seq its entry or 0 with its id in id.
	earliest instant
	seq      uint64
	id       string
	// The places of the first interrupt, the last success and the last failure; meaningful where their count
	// is above zero.
	firstInterrupt, lastSuccess, lastFailure instant
	lastFailureCode                          int32
}

func (a *attemptSum) empty() bool { return a.successes+a.failures+a.interrupts == 0 }

func sumOf(at instant, code int32, seq uint64) attemptSum {
	a := attemptSum{first: at.time, last: at.time, earliest: at, seq: seq}
	switch at.kind {
	case kindSuccess:
		a.successes, a.lastSuccess = 1, at
	case kindFailure:
		a.failures, a.lastFailure, a.lastFailureCode = 1, at, code
	default:
		a.interrupts, a.firstInterrupt = 1, at
	}
	return a
}

// add unites b with a.
func (a *attemptSum) add(b *attemptSum) {
	if a.empty() {
		*a = *b
		return
	}
	a.first, a.last = min(a.first, b.first), max(a.last, b.last)
	if b.earliest.compare(a.earliest) < 0 {
		a.earliest, a.seq, a.id = b.earliest, b.seq, b.id
	}
	if b.interrupts > 0 && (a.interrupts == 0 || b.firstInterrupt.compare(a.firstInterrupt) < 0) {
		a.firstInterrupt = b.firstInterrupt
	}
	if b.successes > 0 && (a.successes == 0 || b.lastSuccess.compare(a.lastSuccess) > 0) {
		a.lastSuccess = b.lastSuccess
	}
	if b.failures > 0 && (a.failures == 0 || b.lastFailure.compare(a.lastFailure) > 0) {
		a.lastFailure, a.lastFailureCode = b.lastFailure, b.lastFailureCode
	}
	a.successes += b.successes
	a.failures += b.failures
	a.interrupts += b.interrupts
}

// outcome judges the attempt by its last terminal record.
func (a *attemptSum) outcome() uint8 {
	switch {
	case a.successes == 0 && a.failures == 0:
		return attemptInterrupted
	case a.successes == 0 || a.failures > 0 && a.lastFailure.compare(a.lastSuccess) > 0:
		return attemptFailed
	case a.interrupts > 0 && a.firstInterrupt.compare(a.lastSuccess) < 0:
		return attemptResolved
	}
	return attemptSucceeded
}

// outcomeOf judges one record of the attempt: an interrupt that a success follows is resolved.
func (a *attemptSum) outcomeOf(at instant) uint8 {
	switch at.kind {
	case kindSuccess:
		return outcomeSuccess
	case kindFailure:
		return outcomeFailure
	}
	if a.successes > 0 && at.compare(a.lastSuccess) < 0 {
		return outcomeResolved
	}
	return outcomeInterrupted
}

// attemptGroup holds the records of one user with the same correlation id and application, where there are two
// or more. A correlation id may live for hours, so a group may hold several attempts, separated by gaps.
type attemptGroup struct {
	members []uint64   // entries, by instant
	sealed  attemptSum // records that left, of the newest attempt that lost any; empty when there are none
}

// attempts finds the attempt of a record. Everything it knows is in the recent store and in groups, so its memory
// is bounded by that of the store.
type attempts struct {
	recent *recentStore
	gap    int64 // microseconds
	groups map[uint64]*attemptGroup
	free   []*attemptGroup
}

func (a *attempts) init(recent *recentStore, gap int64) {
	*a = attempts{recent: recent, gap: gap, groups: make(map[uint64]*attemptGroup)}
}

// sumAt returns the attempt that holds the time t in the group g.
func (a *attempts) sumAt(g *attemptGroup, t int64) attemptSum {
	var cur attemptSum
	sealed := !g.sealed.empty()
	for i := 0; ; {
		var next attemptSum
		if sealed && (i == len(g.members) || g.sealed.first <= a.recent.at(g.members[i]).eventTime) {
			next, sealed = g.sealed, false
		} else if i < len(g.members) {
			e := a.recent.at(g.members[i])
			next = sumOf(e.instant(), e.code, g.members[i])
			i++
		} else {
			return cur
		}
		if !cur.empty() && next.first-cur.last > a.gap {
			if t <= cur.last {
				return cur
			}
			cur = next
			continue
		}
		cur.add(&next)
	}
}

// sum returns the attempt of an entry.
func (a *attempts) sum(seq uint64) attemptSum {
	e := a.recent.at(seq)
	if e.flags&entryAttempt != 0 && len(a.groups) > 0 {
		if g := a.groups[e.attempt]; g != nil {
			// A record that was summed up may lie outside what is left of its group.
			if sum := a.sumAt(g, e.eventTime); e.eventTime >= sum.first && e.eventTime <= sum.last {
				return sum
			}
		}
	}
	return sumOf(e.instant(), e.code, seq)
}

// join makes the new entry seq a member of its attempt group.
func (a *attempts) join(seq uint64, other uint64) {
	e := a.recent.at(seq)
	g := a.groups[e.attempt]
	if g == nil {
		if other == 0 {
			return
		}
		if n := len(a.free); n > 0 {
			g, a.free = a.free[n-1], a.free[:n-1]
		} else {
			g = new(attemptGroup)
		}
		a.groups[e.attempt] = g
		a.insert(g, other)
	}
	a.insert(g, seq)
	if len(g.members) > maxAttemptMembers {
		oldest := g.members[0]
		a.seal(g, oldest)
	}
}

func (a *attempts) insert(g *attemptGroup, seq uint64) {
	e := a.recent.at(seq)
	e.flags |= entryGrouped
	i, _ := slices.BinarySearchFunc(g.members, e.instant(), func(s uint64, at instant) int {
		return a.recent.at(s).instant().compare(at)
	})
	g.members = slices.Insert(g.members, i, seq)
}

// replace puts the entry seq, a newer version of a record, in the place of the entry old.
func (a *attempts) replace(old, seq uint64) {
	o := a.recent.at(old)
	if o.flags&entryGrouped == 0 {
		return
	}
	o.flags &^= entryGrouped
	g := a.groups[o.attempt]
	g.members = slices.DeleteFunc(g.members, func(s uint64) bool { return s == old })
	a.insert(g, seq)
}

// seal takes an entry out of its group. While others of its attempt remain, it lives on in the group's sum.
func (a *attempts) seal(g *attemptGroup, seq uint64) {
	e := a.recent.at(seq)
	own := sumOf(e.instant(), e.code, 0)
	whole := a.sumAt(g, e.eventTime)
	sealedHere := !g.sealed.empty() && g.sealed.first >= whole.first && g.sealed.last <= whole.last
	if sealedHere || whole.successes+whole.failures+whole.interrupts > 1 {
		own.id = strings.Clone(a.recent.requestID(e))
		switch {
		case sealedHere:
			g.sealed.add(&own)
		case g.sealed.empty() || whole.last > g.sealed.last:
			g.sealed = own
		}
	}
	e.flags &^= entryGrouped
	g.members = slices.DeleteFunc(g.members, func(s uint64) bool { return s == seq })
	switch {
	case len(g.members) == 1 && g.sealed.empty():
		a.recent.at(g.members[0]).flags &^= entryGrouped
		a.drop(e.attempt, g)
	case len(g.members) == 0:
		a.drop(e.attempt, g)
	}
}

func (a *attempts) drop(key uint64, g *attemptGroup) {
	delete(a.groups, key)
	g.members = g.members[:0]
	g.sealed = attemptSum{}
	if cap(g.members) <= 8 && len(a.free) < 1024 {
		a.free = append(a.free, g)
	}
}

// onEvict is called for a grouped entry that leaves the store.
func (a *attempts) onEvict(seq uint64, e *recentEntry) {
	a.seal(a.groups[e.attempt], seq)
}

// attemptID returns the request id that names an attempt; it aliases the store until the next eviction.
func (a *attempts) attemptID(sum *attemptSum) string {
	if sum.seq == 0 {
		return sum.id
	}
	return a.recent.requestID(a.recent.at(sum.seq))
}

// attemptKey returns the key of a record's attempt group, false where the record is an attempt of its own: its
// correlation id is none that may tie records together, or nothing says which application it was.
func (d *Dealer) attemptKey(user uint64, rec *schemas.SignIn) (uint64, bool) {
	if !schemas.IsGroupingID(rec.CorrelationId) {
		return 0, false
	}
	app := rec.AppId
	if app == "" {
		app = rec.AppDisplayName
	}
	if app == "" {
		return 0, false
	}
	d.key = append(d.key[:0], byte(user>>56), byte(user>>48), byte(user>>40), byte(user>>32),
		byte(user>>24), byte(user>>16), byte(user>>8), byte(user))
	d.part(rec.CorrelationId)
	d.part(app)
	return hashBytes(d.key), true
}
