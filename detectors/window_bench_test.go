package detectors

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// stream is synthetic traffic that costs no memory of its own: record n of it, in memory that the next one reuses.
type stream struct {
	name   string
	roles  schemas.RoleSet
	record func(n int, r *streamRecord)
}

type streamRecord struct {
	schemas.SignIn
	request, correlation, user, name, address []byte
}

func putHex(dst []byte, n int) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

func newStreamRecord() *streamRecord {
	r := &streamRecord{
		request: []byte(testGUID(0, 0)), correlation: []byte(testGUID(1, 0)), user: []byte(testGUID(2, 0)),
		name: []byte("user00000000@example.com"), address: []byte("2001:db8:0000:0000::1"),
	}
	r.SignIn = *testRecord(0, 0, 0, 0)
	r.RequestId, r.CorrelationId, r.UserId = aliasString(r.request), aliasString(r.correlation), aliasString(r.user)
	r.UserPrincipalName = aliasString(r.name)
	r.UserAgent, r.AutonomousSystemNumber = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", 64500
	return r
}

// set makes it record n of a user, so many microseconds after the start. address -1 leaves the address as it is.
func (r *streamRecord) set(n, user, address int, after int64, code int32) {
	putHex(r.request[24:], n)
	putHex(r.correlation[24:], n)
	putHex(r.user[24:], user)
	putHex(r.name[4:12], user)
	if address >= 0 {
		putHex(r.address[9:13], address>>16)
		putHex(r.address[14:18], address)
		r.IpAddress = aliasString(r.address)
	}
	r.ErrorCode, r.EventTime = code, testStart+after
}

var (
	rolesOfUser    = schemas.Roles(schemas.Role_ROLE_USER)
	rolesOfAddress = schemas.Roles(schemas.Role_ROLE_ADDRESS)
)

var streams = []stream{
	{"plain success", rolesOfUser, func(n int, r *streamRecord) { r.set(n, n%100_000, -1, int64(n)*10e3, codeSuccess) }},
	{"failures of users", rolesOfUser, func(n int, r *streamRecord) { r.set(n, n%100_000, -1, int64(n)*10e3, codeWrong) }},
	{"failures of one user", rolesOfUser, func(n int, r *streamRecord) { r.set(n, 1, -1, int64(n)*1e6, codeWrong) }},
	{"spray at one address", rolesOfAddress, func(n int, r *streamRecord) { r.set(n, n, -1, int64(n)*1e6, codeWrong) }},
	{"office address", rolesOfAddress, func(n int, r *streamRecord) {
		r.set(n, n*7919%500, -1, int64(n)*1e6, []int32{codeWrong, codeSuccess, codeSuccess, codeSuccess, codeSuccess, codeSuccess, codeSuccess, codeSuccess}[n%8])
	}},
	{"distributed spray", schemas.Roles(schemas.Role_ROLE_ADDRESS, schemas.Role_ROLE_NETWORK, schemas.Role_ROLE_AGENT_APPLICATION), func(n int, r *streamRecord) {
		r.set(n, n, n%10_000, int64(n)*1e6, codeWrong)
	}},
	{"successes at many addresses", rolesOfAddress, func(n int, r *streamRecord) { r.set(n, n%100_000, n%100_000, int64(n)*10e3, codeSuccess) }},
}

// benchEngine keeps the recent store small, so that it is full after a warm-up.
func benchEngine(tb testing.TB, o Options) *Engine {
	if o.Catalogue == nil {
		o.Catalogue = testCatalogue(tb)
	}
	if o.RecentBytes == 0 {
		o.RecentBytes = 4 << 20
	}
	e, err := NewEngine(o)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// feed applies records of a stream, from n up to but not including to.
func (s *stream) feed(e *Engine, rec *streamRecord, m *schemas.EntityMessage, rows *Rows, n, to int) {
	for ; n < to; n++ {
		s.record(n, rec)
		m.SignIn, m.Roles, m.ReceivedMs = &rec.SignIn, uint32(s.roles), rec.EventTime/1000
		rows.Reset()
		e.Apply(m, int64(n), rows)
	}
}

// BenchmarkStream is one record of each kind of traffic, in steady state.
func BenchmarkStream(b *testing.B) {
	for _, s := range streams {
		b.Run(s.name, func(b *testing.B) {
			e := benchEngine(b, Options{})
			rec, m, rows := newStreamRecord(), &schemas.EntityMessage{}, &Rows{}
			const warm = 20_000
			s.feed(e, rec, m, rows, 0, warm)
			b.ReportAllocs()
			n := warm
			for b.Loop() {
				s.feed(e, rec, m, rows, n, n+1)
				n++
			}
			st := e.Stats()
			b.ReportMetric(float64(st.StateBytes)/float64(max(st.Entities, 1)), "B/entity")
			b.ReportMetric(float64(st.Entities), "entities")
		})
	}
}

// BenchmarkState measures what users, addresses ... take: Stats.StateBytes and the heap, per entity and for ten million users
// of whom one in twenty fails one to three times, with successes before and after. SIGNINDIAG_BENCH_USERS is the number of users that
// are really applied (default 1 million); the state of ten million is that, scaled.
func BenchmarkState(b *testing.B) {
	report := func(b *testing.B, e *Engine, before int64, per int, unit string) {
		s := e.Stats()
		used := heap() - before - int64(len(e.recent.ring))*(recentEntrySize+24) - int64(len(e.recent.blocks))*recentBlockSize
		b.ReportMetric(float64(s.StateBytes)/float64(per), "state-B/"+unit)
		b.ReportMetric(float64(used)/float64(per), "heap-B/"+unit)
		b.ReportMetric(float64(s.Entities), "entities")
		b.ReportMetric(0, "ns/op")
		runtime.KeepAlive(e)
	}
	all := WantedRoles() &^ schemas.Roles(schemas.Role_ROLE_SERVICE_PRINCIPAL)
	for _, c := range []struct {
		name, unit string
		records    int
		per        int
		stream     stream
	}{
		{"quiet user", "user", 300_000, 100_000, stream{"", all, func(n int, r *streamRecord) { r.set(n, n%100_000, n%100_000, int64(n)*1e3, codeSuccess) }}},
		{"user with one failure", "user", 200_000, 200_000, stream{"", rolesOfUser, func(n int, r *streamRecord) { r.set(n, n, n, int64(n)*1e3, codeWrong) }}},
		{"user with ten failures", "user", 400_000, 40_000, stream{"", rolesOfUser, func(n int, r *streamRecord) { r.set(n, n%40_000, n%40_000, int64(n)*1e3, codeWrong) }}},
		{"user with 200 failures", "user", 100_000, 500, stream{"", rolesOfUser, func(n int, r *streamRecord) { r.set(n, n%500, n%500, int64(n)*1e6, codeWrong) }}},
		{"address with one failure", "address", 200_000, 200_000, stream{"", rolesOfAddress, func(n int, r *streamRecord) { r.set(n, n, n, int64(n)*1e3, codeWrong) }}},
		{"address under spray", "address", 100_000, 100, stream{"", rolesOfAddress, func(n int, r *streamRecord) { r.set(n, n, n%100, int64(n)*1e6, codeWrong) }}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				e := benchEngine(b, Options{StateBytes: 4 << 30, RecentBytes: 1 << 20})
				c.stream.feed(e, newStreamRecord(), &schemas.EntityMessage{}, &Rows{}, 0, c.records)
				report(b, e, before, c.per, c.unit)
			}
		})
	}
	b.Run("ten million users", func(b *testing.B) {
		users := 1_000_000
		if v, err := strconv.Atoi(os.Getenv("SIGNINDIAG_BENCH_USERS")); err == nil {
			users = v
		}
		// A success of every user, then one to three failures of one user in twenty, then another success of every user; two users share
		// an address.
		failures := users / 20 * 3
		records := 2*users + failures
		mixed := stream{"", all, func(n int, r *streamRecord) {
			user, code := n%users, int32(codeSuccess)
			switch k := n - users; {
			case k >= failures:
				user = k - failures
			case k >= 0:
				user = k % (users / 20)
				if code = codeWrong; k/(users/20) > user%3 { // has failed as often as it does: someone else gets in
					code = codeSuccess
				}
				user *= 20
			}
			r.set(n, user, user/2, int64(float64(n)/float64(records)*float64(40*testHour)), code)
		}}
		for b.Loop() {
			before := heap()
			e := benchEngine(b, Options{StateBytes: 4 << 30, RecentBytes: 1 << 20})
			mixed.feed(e, newStreamRecord(), &schemas.EntityMessage{}, &Rows{}, 0, records)
			report(b, e, before, users, "user")
			b.ReportMetric(float64(e.Stats().StateBytes)*1e7/float64(users)/(1<<20), "MiB/10M-users")
			start := time.Now()
			snapshot := e.AppendSnapshot(nil)
			wrote := time.Since(start)
			next := benchEngine(b, Options{StateBytes: 4 << 30, RecentBytes: 1 << 20})
			start = time.Now()
			if err := next.RestoreSnapshot(snapshot); err != nil {
				b.Fatal(err)
			}
			read := time.Since(start)
			b.ReportMetric(float64(len(snapshot))/float64(users), "snapshot-B/user")
			b.ReportMetric(wrote.Seconds()*1e9/float64(len(snapshot)), "s/GB-written")
			b.ReportMetric(read.Seconds()*1e9/float64(len(snapshot)), "s/GB-restored")
		}
	})
}

// BenchmarkEntitiesTopic deals synthetic traffic over 32 partitions, and reports what a record costs on the entities topic: messages
// and bytes (uncompressed, without the framing of record batches), with the full role alone and with all.
func BenchmarkEntitiesTopic(b *testing.B) {
	for _, c := range []struct {
		name    string
		wanted  schemas.RoleSet
		attacks bool
	}{{"full role", fullRoles, false}, {"all roles", WantedRoles(), false}, {"full role, attacks", fullRoles, true}, {"all roles, attacks", WantedRoles(), true}} {
		b.Run(c.name, func(b *testing.B) {
			d := Dealer{Catalogue: testCatalogue(b)}
			for b.Loop() {
				traffic, err := synthetic.NewTraffic(synthetic.Options{Seed: 1, Start: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), Records: 100_000, Users: 20_000, Rate: 100})
				if err != nil {
					b.Fatal(err)
				}
				if c.attacks {
					for _, kind := range synthetic.AttackKinds() {
						if _, err := traffic.Plant(synthetic.Attack{Kind: kind, At: time.Date(2026, 3, 2, 9, 1, 0, 0, time.UTC), Over: 10 * time.Minute, Users: 20, Addresses: 10}); err != nil {
							b.Fatal(err)
						}
					}
				}
				decoder := schemas.NewDecoder()
				var compact schemas.SignIn
				records, messages, size, input := 0, 0, 0, 0
				var spent time.Duration
				for !traffic.Ended() {
					message, n := traffic.Next()
					if n == 0 {
						break
					}
					input += len(message)
					decoder.Decode(message, time.Time{}, func(_ int, r *schemas.Decoded) {
						if r.Kind != schemas.KindSignIn {
							return
						}
						records++
						schemas.Compact(r.SignIn)
						start := time.Now()
						d.Deal(r.SignIn, 32, c.wanted, func(_ uint32, roles schemas.RoleSet) {
							m := schemas.EntityMessage{Source: &schemas.Source{Topic: 1 << 60, Offset: 1 << 30}, Roles: uint32(roles), ReceivedMs: testStart / 1000, SignIn: r.SignIn}
							if roles&fullRoles == 0 {
								schemas.CompactFor(&compact, r.SignIn)
								m.SignIn = &compact
							}
							messages++
							size += m.SizeVT()
						})
						spent += time.Since(start)
					})
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(records), "records")
				b.ReportMetric(float64(messages)/float64(records), "messages/record")
				b.ReportMetric(float64(size)/float64(records), "B/record")
				b.ReportMetric(float64(input)/float64(records), "input-B/record")
				b.ReportMetric(float64(spent.Nanoseconds())/float64(records), "ns/record")
			}
		})
	}
}
