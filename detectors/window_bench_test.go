package detectors

import (
	"testing"

	"github.com/signindiag/signindiag/schemas"
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
