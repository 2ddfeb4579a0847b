package synthetic

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Options describe a stream of traffic. The zero value of a field stands for the default named with it.
type Options struct {
	// Seed decides everything: equal options give the same messages, byte for byte.
	Seed uint64
	// Start is the first event time. It must be set: the package knows no clock.
	Start time.Time
	// Duration of event time; 0 means without end.
	Duration time.Duration
	// Records ends the stream after that many records, repeats included; 0 means without end.
	Records int64
	// Rate is the average number of records per second of event time, 20 by default. Memory grows
	// with it: records wait for their export, about 80 bytes each, MaxDelay/3 on average.
	Rate float64
	// Tenants is 2 by default.
	Tenants int
	// Users per tenant, 500 by default. People are derived from the seed, so millions cost little.
	Users int
	// TenantUsers gives the first tenants other numbers of users than Users; 0 leaves a tenant with Users.
	TenantUsers []int
	// MaxDelay bounds how long an ordinary record waits for its export, 12 minutes by default (0 to
	// 739 seconds were seen in real records); at most 1 hour. Half of the records take less than a quarter.
	MaxDelay time.Duration
	// Batch is the largest number of records in one message, 50 by default.
	Batch int
	// Repeated, Split and Late are the shares of records that are exported twice, whose policies come
	// in two parts under one id, and that are hours late. They default to 0.015, 0.005 and 0.002; a
	// negative value means none.
	Repeated, Split, Late float64
	// Attacks are planted into the traffic; Planted tells what became of them.
	Attacks []Attack
	// Remember keeps what people did by themselves that is a story too, for Organic. Memory grows with it, about 40 bytes
	// for each refused sign-in.
	Remember bool
}

// Stats counts what a Traffic has delivered so far.
type Stats struct {
	Messages, Records, Bytes int64
	// Distinct is the number of different request ids among the records.
	Distinct int64
	// Repeated, Split and Late count exact repeats, second parts, and records that came hours late.
	Repeated, Split, Late int64
}

// Traffic makes an endless or bounded stream of messages as Azure Monitor writes them: envelopes
// of 1 to 50 records, out of order by minutes, a few repeated, split or hours late. It is not safe
// for concurrent use; several goroutines use a Traffic of their own with different seeds.
type Traffic struct {
	opt     Options
	rng     *rand.Rand
	tenants []*tenant
	people  int // users of all tenants

	clock   int64 // event time of the next attempt, microseconds
	end     int64 // no attempt starts at or after it
	created int64
	closed  bool // no attempt will start any more

	ring    [ringSeconds][]event // records by the second of their delivery
	waiting int                  // records in the ring
	head    int64                // the second that is delivered next or now
	open    []event              // the opened second, sorted by tenant
	next    int                  // position in open
	late    lateHeap             // records beyond the ring
	notes   []note               // with Options.Remember
	planned []event              // of attacks, sorted by event time, not yet in the ring
	planted []*Planted

	spec  SignInSpec
	msg   []byte
	stats Stats
	steps [4]Step
	nets  [1]NetworkLocation
	reqs  [1]RequirementPolicy
	life  [1]string
}

// ringSeconds is how far ahead deliveries are kept by the second; later ones go to a heap.
const ringSeconds = 2048

// event is a record that waits for its delivery; it is rendered only then.
type event struct {
	at          int64 // microseconds
	seed        uint64
	correlation uint64
	original    uint64 // seed of the first request of the sequence
	user        int32  // number in the tenant; a principal's for workloads
	delay       int32  // milliseconds
	code        int32
	address     uint16 // number of the attacker's address
	tenant      uint16
	app         uint8
	class       class
	detail      detail
	client      client
	from        origin
	part        part
}

type class uint8

const (
	interactive class = iota
	nonInteractive
	workload
)

// detail tells records with the same code apart.
type detail uint8

const (
	detailNone detail = iota
	detailPassword
	detailClaim       // MFA satisfied by a claim in the token
	detailApproved    // MFA prompt answered
	detailDenied      // user declined
	detailTimeout     // user did not answer
	detailWrongCode   // OATH code wrong
	detailLegacyBlock // 53003 because of the client
	detailCountry     // 53003 because of the place
	detailMalicious   // 50053 because of the address
	detailUnknown     // a name that is no account
	detailFlagged
	detailNewSecret
	detailDeviceCode
)

type client uint8

const (
	clientUsual client = iota
	clientPhone
	clientIMAP
	clientSMTP
	clientScript
)

type origin uint8

const (
	fromHome origin = iota
	fromOffice
	fromMobile
	fromAttacker
	fromAttacker64 // one of many addresses of one IPv6 /64
)

func (o origin) isAttacker() bool { return o == fromAttacker || o == fromAttacker64 }

type part uint8

const (
	whole part = iota
	firstPart
	secondPart
	repeatOf
	lateOne
)

// NewTraffic returns the stream that opt describes, or an error that names the option that is wrong.
func NewTraffic(opt Options) (*Traffic, error) {
	if opt.Rate == 0 {
		opt.Rate = 20
	}
	if opt.Tenants == 0 {
		opt.Tenants = 2
	}
	if opt.Users == 0 {
		opt.Users = 500
	}
	if opt.MaxDelay == 0 {
		opt.MaxDelay = 12 * time.Minute
	}
	if opt.Batch == 0 {
		opt.Batch = 50
	}
	share := func(p *float64, otherwise float64) {
		if *p == 0 {
			*p = otherwise
		}
		*p = max(*p, 0)
	}
	share(&opt.Repeated, 0.015)
	share(&opt.Split, 0.005)
	share(&opt.Late, 0.002)
	switch {
	case opt.Start.IsZero():
		return nil, fmt.Errorf("synthetic traffic: Start is not set; expected the first event time")
	case !(opt.Rate > 0 && opt.Rate <= 1e6):
		return nil, fmt.Errorf("synthetic traffic: Rate is %v records per second; expected more than 0 and at most 1000000", opt.Rate)
	case opt.Tenants < 1 || opt.Tenants > 10_000:
		return nil, fmt.Errorf("synthetic traffic: Tenants is %d; expected 1 to 10000", opt.Tenants)
	case opt.Users < 1 || opt.Users > 100_000_000:
		return nil, fmt.Errorf("synthetic traffic: Users is %d per tenant; expected 1 to 100000000", opt.Users)
	case len(opt.TenantUsers) > opt.Tenants || slices.ContainsFunc(opt.TenantUsers, func(n int) bool { return n < 0 || n > 100_000_000 }):
		return nil, fmt.Errorf("synthetic traffic: TenantUsers is %v; expected at most one number for each of %d tenants, each up to 100000000", opt.TenantUsers, opt.Tenants)
	case opt.MaxDelay < 0 || opt.MaxDelay > time.Hour:
		return nil, fmt.Errorf("synthetic traffic: MaxDelay is %v; expected at most 1h", opt.MaxDelay)
	case opt.Batch < 1 || opt.Batch > 1000:
		return nil, fmt.Errorf("synthetic traffic: Batch is %d records; expected 1 to 1000", opt.Batch)
	case opt.Duration < 0 || opt.Records < 0:
		return nil, fmt.Errorf("synthetic traffic: Duration and Records must not be negative")
	case opt.Repeated+opt.Split+opt.Late > 1:
		return nil, fmt.Errorf("synthetic traffic: Repeated, Split and Late sum up to %v; expected at most 1", opt.Repeated+opt.Split+opt.Late)
	}
	t := &Traffic{opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x5157))}
	for i := range opt.Tenants {
		users := opt.Users
		if i < len(opt.TenantUsers) && opt.TenantUsers[i] > 0 {
			users = opt.TenantUsers[i]
		}
		t.tenants = append(t.tenants, newTenant(opt.Seed, i, users))
		t.people += users
	}
	t.clock = opt.Start.UnixMicro()
	t.end = math.MaxInt64
	if opt.Duration > 0 {
		t.end = t.clock + opt.Duration.Microseconds()
	}
	t.head = t.clock / 1e6
	for i, a := range opt.Attacks {
		if _, err := t.Plant(a); err != nil {
			return nil, fmt.Errorf("attack %d: %w", i+1, err)
		}
	}
	return t, nil
}

// Next returns the next message and how many records it holds; 0 means that the stream has ended. The
// message is valid until the next call. Deliveries come in the order of simulated time, which Now tells.
func (t *Traffic) Next() (message []byte, records int) { return t.deliver(math.MaxInt64) }

// Due is Next for a caller that keeps real time: it returns the next message that was written before
// now, and 0 records when there is none yet (or the stream has ended, see Ended). Messages are of whole
// seconds, so calling it a few times a second until it returns 0 is enough.
func (t *Traffic) Due(now time.Time) (message []byte, records int) { return t.deliver(now.Unix()) }

// Now is the simulated time at which the last message was written.
func (t *Traffic) Now() time.Time { return time.Unix(t.head, 0).UTC() }

// Ended reports whether everything has been delivered.
func (t *Traffic) Ended() bool {
	return t.closed && t.waiting == 0 && len(t.late) == 0 && t.next == len(t.open)
}

// Stats returns what has been delivered so far.
func (t *Traffic) Stats() Stats { return t.stats }

// TenantIDs returns the ids of the tenants in order.
func (t *Traffic) TenantIDs() []string {
	ids := make([]string, len(t.tenants))
	for i, tn := range t.tenants {
		ids[i] = tn.id
	}
	return ids
}

// Planted returns the ground truth of the planted attacks: what is in the stream, delivered or not.
func (t *Traffic) Planted() []Planted {
	out := make([]Planted, len(t.planted))
	for i, p := range t.planted {
		out[i] = *p
	}
	return out
}

// deliver returns the next message whose second lies before limit.
func (t *Traffic) deliver(limit int64) ([]byte, int) {
	for t.next == len(t.open) {
		if t.Ended() || !t.openSecond(limit) {
			return nil, 0
		}
	}
	first := &t.open[t.next]
	n := 1
	// The size depends on the first record alone, so that it is the same however the caller paces.
	size := 1 + int(mix(first.seed^0xb5)%uint64(t.opt.Batch))
	for n < size && t.next+n < len(t.open) && t.open[t.next+n].tenant == first.tenant {
		n++
	}
	t.msg = append(t.msg[:0], `{"records":[`...)
	for i := range n {
		if i > 0 {
			t.msg = append(t.msg, ',')
		}
		e := &t.open[t.next+i]
		t.render(e)
		t.msg = AppendEventHubs(t.msg, &t.spec)
		switch e.part {
		case repeatOf:
			t.stats.Repeated++
		case secondPart:
			t.stats.Split++
		case lateOne:
			t.stats.Late++
			t.stats.Distinct++
		default:
			t.stats.Distinct++
		}
	}
	t.msg = append(t.msg, `]}`...)
	t.next += n
	t.stats.Messages++
	t.stats.Records += int64(n)
	t.stats.Bytes += int64(len(t.msg))
	return t.msg, n
}

// openSecond makes the next second with records the open one. It returns false when limit is reached.
func (t *Traffic) openSecond(limit int64) bool {
	for {
		if t.head >= limit {
			return false
		}
		slot := &t.ring[t.head%ringSeconds]
		if len(t.open) > 0 { // the second at head was open and is spent
			t.open, t.next = t.open[:0], 0
			t.head++
			continue
		}
		t.generate((t.head + 1) * 1e6)
		if t.closed && t.waiting == 0 && len(t.late) > 0 {
			t.head = max(t.head, t.late[0].second()) // nothing before the next late record
			if t.head >= limit {
				return false
			}
			slot = &t.ring[t.head%ringSeconds]
		}
		for len(t.late) > 0 && t.late[0].second() <= t.head {
			*slot = append(*slot, heap.Pop(&t.late).(event))
			t.waiting++
		}
		if len(*slot) == 0 {
			if t.Ended() {
				return false
			}
			t.head++
			continue
		}
		t.waiting -= len(*slot)
		t.open, *slot = *slot, t.open[:0]
		t.next = 0
		slices.SortStableFunc(t.open, func(a, b event) int { return int(a.tenant) - int(b.tenant) })
		return true
	}
}

// generate starts every attempt before until (event time, microseconds) and hands over planned records.
func (t *Traffic) generate(until int64) {
	for !t.closed && t.clock < until {
		if t.clock >= t.end {
			t.closed = len(t.planned) == 0
			break
		}
		before := t.created
		t.attempt(t.clock)
		made := max(t.created-before, 1)
		gap := float64(made) / t.opt.Rate * 1e6 * t.rng.ExpFloat64()
		t.clock += max(int64(gap), 1)
	}
	n := 0
	for n < len(t.planned) && t.planned[n].at < until {
		t.add(t.planned[n])
		n++
	}
	t.planned = t.planned[n:]
	if t.opt.Records > 0 && t.created >= t.opt.Records {
		t.closed = true
		t.planned = nil
	}
}

// add gives the record its delivery, and now and then a repeat, a split or hours of delay.
func (t *Traffic) add(e event) {
	u := mix(e.seed ^ 0xde1a)
	// Squared and a bit more: half of the records take less than a quarter of MaxDelay.
	f := float64(u>>11) / (1 << 53)
	e.delay += int32(math.Sqrt(f) * f * f * float64(t.opt.MaxDelay.Milliseconds()))
	odds := float64(mix(e.seed^0x0dd)>>11) / (1 << 53)
	switch {
	case odds < t.opt.Repeated:
		t.put(e, 0)
		e.part = repeatOf
		t.put(e, int64(u%600))
	case odds < t.opt.Repeated+t.opt.Split && t.hasPolicies(&e):
		e.part = firstPart
		t.put(e, 0)
		e.part = secondPart
		t.put(e, int64(u%20))
	case odds > 1-t.opt.Late:
		e.part = lateOne
		e.delay += int32((1 + u%29) * 3_600_000)
		t.put(e, 0)
	default:
		t.put(e, 0)
	}
}

func (t *Traffic) hasPolicies(e *event) bool {
	return e.class != workload && len(t.tenants[e.tenant].policies) >= 2
}

// second is the second of delivery.
func (e *event) second() int64 { return (e.at + int64(e.delay)*1000) / 1e6 }

// put files the record under its second, after seconds later.
func (t *Traffic) put(e event, after int64) {
	if t.opt.Records > 0 && t.created >= t.opt.Records {
		return
	}
	t.created++
	second := max(e.second()+after, t.head)
	if second-t.head < ringSeconds {
		slot := &t.ring[second%ringSeconds]
		*slot = append(*slot, e)
		t.waiting++
		return
	}
	heap.Push(&t.late, e)
}

// lateHeap orders records by delivery, ties by seed, so that the order is the same in every run.
type lateHeap []event

func (h lateHeap) Len() int { return len(h) }
func (h lateHeap) Less(i, j int) bool {
	a, b := h[i].second(), h[j].second()
	if a != b {
		return a < b
	}
	if h[i].seed != h[j].seed {
		return h[i].seed < h[j].seed
	}
	return h[i].part < h[j].part
}
func (h lateHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *lateHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *lateHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// activity is, by local hour, how many of a hundred people who could sign in then do.
var activity = [24]uint8{2, 1, 1, 1, 2, 8, 25, 60, 95, 100, 95, 85, 70, 90, 95, 90, 80, 60, 35, 25, 18, 12, 8, 4}

// pick chooses a tenant and a user whose hour it is.
func (t *Traffic) pick(at int64) (uint16, int32) {
	hour := int(at/3_600_000_000) % 24
	var tn, user int
	for range 6 {
		if len(t.opt.TenantUsers) > 0 { // everybody is as busy
			tn, user = 0, t.rng.IntN(t.people)
			for user >= t.tenants[tn].users {
				user -= t.tenants[tn].users
				tn++
			}
		} else {
			// The first tenant is the largest: two draws, the smaller one wins.
			tn = min(t.rng.IntN(len(t.tenants)), t.rng.IntN(len(t.tenants)))
			user = t.rng.IntN(t.tenants[tn].users)
		}
		_, home := t.tenants[tn].home(user)
		if t.rng.IntN(100) < int(activity[(hour+home.offset+24)%24]) {
			break
		}
	}
	return uint16(tn), int32(user)
}

// attempt makes what one person or workload does at the given time: one or more records.
func (t *Traffic) attempt(at int64) {
	r := t.rng
	e := event{at: at, seed: r.Uint64(), correlation: r.Uint64()}
	e.original = e.seed
	e.tenant, e.user = t.pick(at)
	kind := r.IntN(1000)
	switch {
	case kind < 190: // workloads
		tn := t.tenants[e.tenant]
		e.class = workload
		e.user = int32(r.IntN(len(tn.principals)))
		e.app = uint8(e.user)
		if !tn.principals[e.user].managed && r.IntN(200) == 0 {
			e.code = 7000222
			if r.IntN(2) == 0 {
				e.code = 700016
			}
		}
		t.did(e)
		return
	case kind < 860:
		t.silent(e)
		return
	}
	p := t.tenants[e.tenant].user(int(e.user))
	e.app = p.apps[r.IntN(len(p.apps))]
	switch hour := int(at/3_600_000_000+int64(p.place.offset)+24) % 24; {
	case hour >= 8 && hour < 18 && r.IntN(3) > 0:
		e.from = fromOffice
	case r.IntN(5) == 0:
		e.from = fromMobile
		e.client = clientPhone
	}
	t.person(e)
}

// silent is a non-interactive sign-in: a client renews its token.
func (t *Traffic) silent(e event) {
	r := t.rng
	p := t.tenants[e.tenant].user(int(e.user))
	e.class = nonInteractive
	e.app = p.apps[r.IntN(len(p.apps))]
	e.detail = detailClaim
	if r.IntN(3) == 0 {
		e.from = fromMobile
		e.client = clientPhone
	}
	switch k := r.IntN(1000); {
	case k < 950:
	case k < 985: // a token ran out: the client tries a few times, then succeeds or waits for the person
		codes := [...]int32{50173, 700082, 70043, 50133, 50078}
		e.code = codes[r.IntN(len(codes))]
		e.detail = detailNone
		for range 1 + r.IntN(4) {
			t.did(e)
			t.follow(&e, 1, 20)
		}
		if r.IntN(2) == 0 {
			return
		}
		e.code, e.detail = 0, detailClaim
	case k < 990:
		e.code, e.detail = 50058, detailNone
	case k < 993:
		e.code, e.detail = 65001, detailNone
	case k < 996:
		e.code, e.detail = 50076, detailNone
	default:
		e.code, e.detail = 81010, detailNone
		t.did(e)
		t.follow(&e, 1, 3)
		e.code, e.detail = 0, detailClaim
	}
	t.did(e)
}

// did adds a record of somebody who is no attacker.
func (t *Traffic) did(e event) {
	if t.opt.Remember {
		t.note(&e)
	}
	t.add(e)
}

// follow moves the attempt on: another record of the same sequence, between low and high seconds later.
func (t *Traffic) follow(e *event, low, high int) {
	e.at += int64(low)*1_000_000 + t.rng.Int64N(int64(high-low)*1_000_000)
	e.seed = t.rng.Uint64()
}

// person is an interactive attempt.
func (t *Traffic) person(e event) {
	r := t.rng
	then := func(code int32, d detail, low, high int) {
		t.follow(&e, low, high)
		e.code, e.detail = code, d
		t.did(e)
	}
	now := func(code int32, d detail) {
		e.code, e.detail = code, d
		t.did(e)
	}
	switch k := r.IntN(1000); {
	case k < 450:
		now(0, detailClaim)
	case k < 560: // prompted, answered
		now([...]int32{50074, 50076}[r.IntN(2)], detailPassword)
		then(0, detailApproved, 5, 50)
	case k < 640:
		now(50140, detailPassword)
		then(0, detailClaim, 1, 9)
	case k < 690:
		now(50097, detailNone)
		then(50140, detailPassword, 1, 3)
		then(0, detailClaim, 1, 4)
	case k < 715:
		now(65001, detailClaim)
		then(0, detailClaim, 5, 40)
	case k < 765:
		now(50058, detailNone)
		then(0, detailClaim, 3, 60)
	case k < 815: // mistyped once or twice
		now(50126, detailPassword)
		if r.IntN(4) == 0 {
			then(50126, detailPassword, 4, 20)
		}
		then(0, detailClaim, 4, 25)
	case k < 850:
		now(0, detailClaim)
	case k < 862: // gave up
		now(50126, detailPassword)
		then(50126, detailPassword, 5, 30)
	case k < 870:
		now(50055, detailPassword)
		then(0, detailApproved, 40, 180)
	case k < 880:
		now(50072, detailPassword)
		then(0, detailApproved, 60, 300)
	case k < 895:
		now(50074, detailPassword) // closed the page
	case k < 905:
		now(50074, detailPassword)
		then(500121, detailTimeout, 55, 70)
		then(0, detailApproved, 10, 60)
	case k < 913:
		now(50074, detailPassword)
		then(500121, detailWrongCode, 15, 40)
		then(0, detailApproved, 10, 40)
	case k < 925:
		now(53003, detailCountry)
	case k < 937:
		e.app = appPayroll
		now(53000, detailPassword)
	case k < 952: // an old mail client
		e.app, e.client, e.from = appExchange, clientIMAP, fromHome
		if r.IntN(3) == 0 {
			e.client = clientSMTP
		}
		if t.tenants[e.tenant].blocksLegacy {
			now(53003, detailLegacyBlock)
		} else {
			now(0, detailPassword)
		}
	case k < 962:
		now(50034, detailUnknown)
		then(0, detailClaim, 8, 40)
	case k < 966:
		now(50057, detailPassword)
	case k < 971:
		now(50105, detailClaim)
	case k < 973:
		now(50126, detailPassword)
		e.detail = detailFlagged
		then(0, detailFlagged, 5, 30)
	case k < 975: // forgot the password altogether: locked out, then back after a reset
		for range 10 + r.IntN(3) {
			now(50126, detailPassword)
			t.follow(&e, 5, 25)
		}
		now(50053, detailNone)
		then(50053, detailNone, 5, 30)
		e.correlation = r.Uint64()
		then(0, detailApproved, 300, 900) // with the new password
	default:
		now(0, detailPassword)
	}
}
