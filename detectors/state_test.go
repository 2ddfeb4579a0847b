package detectors

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/schemas"
)

// heap returns the bytes of live objects.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// hostile is what may be sent to make an engine keep more than it should: record n of each.
var hostile = []struct {
	name    string
	stories bool // it makes as many stories as there is room for, and so pushes out the oldest
	record  func(n int) *schemas.SignIn
}{
	{"invented names from one address", false, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n, int64(n)*1e6, 50034)
		r.UserId = ""
		return r
	}},
	{"addresses", false, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n%10, int64(n)*1e6, codeWrong)
		r.IpAddress = fmt.Sprintf("2001:db8:%x:%x::1", n>>16, n&0xffff)
		return r
	}},
	{"user agents and long texts", false, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n, int64(n)*1e6, codeWrong)
		long := fmt.Sprint(n, strings.Repeat("x", 4000))
		r.UserAgent, r.DeviceDisplayName, r.OperatingSystem, r.AppDisplayName, r.AppId = long, long+"d", long+"o", long+"a", fmt.Sprint("app", n)
		schemas.Compact(r)
		return r
	}},
	{"ids that are no GUIDs", true, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n%300, int64(n)*1e6, codeWrong)
		r.RequestId, r.CorrelationId = fmt.Sprint(n, strings.Repeat("r", 120)), fmt.Sprint(n, strings.Repeat("c", 120))
		return r
	}},
	{"one user", false, func(n int) *schemas.SignIn { return testRecord(n, 1000, int64(n)*1e6, codeWrong) }},
	{"two failures of each user", false, func(n int) *schemas.SignIn { return testRecord(n, 1000+n/2, int64(n)*1e6, codeWrong) }},
	{"stories of many users", true, func(n int) *schemas.SignIn { return testRecord(n, 1000+n/7, int64(n)*1e6, codeWrong) }},
	{"times from 1970 to 2200", false, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n%500, 0, codeWrong)
		r.EventTime = int64(n*2654435761%7_258_118) * 1000e6
		return r
	}},
	{"far future and far past in turn", false, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n%50, 0, codeWrong)
		r.EventTime = []int64{math.MaxInt64 - int64(n), math.MinInt64 + int64(n), testStart + int64(n)*1e6}[n%3]
		return r
	}},
	{"right passwords at busy addresses", false, func(n int) *schemas.SignIn {
		r := testRecord(n, 1000+n%9000, int64(n)*1e6, []int32{codeWrong, codeSuccess, codeSuccess, codeSuccess}[n%4])
		r.IpAddress = fmt.Sprintf("198.51.100.%d", n%200)
		r.UserAgent = fmt.Sprint("agent ", n%5000)
		return r
	}},
}

// Whatever is sent, the state stays within its bound and one entity, is as large as it says, and keeps the stories that were
// told before.
func TestHostileStateStaysBounded(t *testing.T) {
	const limit = 4 << 20
	// One entity of a group, full: events, right passwords, hours with sketches, incidents with request ids.
	const entityMost = MaxKeptGroupEvents*(int64(128)+7*336) + 256*400 + int64(maxHours)*1100 + maxEntityIncidents*20_000
	cat := testCatalogue(t)
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			before := heap()
			e := benchEngine(t, Options{Catalogue: cat, StateBytes: limit, RecentBytes: 64 << 10})
			d := Dealer{Catalogue: cat}
			var rows Rows
			offset, told := int64(0), map[string]string{}
			apply := func(r *schemas.SignIn) {
				offset++
				rows.Reset()
				d.Deal(r, 1, WantedRoles(), func(_ uint32, roles schemas.RoleSet) {
					e.Apply(&schemas.EntityMessage{Roles: uint32(roles), SignIn: r, ReceivedMs: testStart / 1000}, offset, &rows)
				})
			}
			for n := range 80 { // ten users whose stories are told first
				apply(testRecord(900_000+n, n%10, int64(n)*testMinute, codeWrong))
				for _, i := range rows.Incidents {
					if i.EntityKind == EntityUser {
						told[strings.Clone(i.EntityValue)] = strings.Clone(i.IncidentID)
					}
				}
			}
			if len(told) != 10 {
				t.Fatalf("%d stories before", len(told))
			}
			most := int64(0)
			const records = 40_000
			for n := range records {
				apply(h.record(n))
				if s := e.entities.bytes(); s > limit+entityMost {
					t.Fatalf("%d bytes after %d records, want at most %d and one entity", s, n, limit)
				} else {
					most = max(most, s)
				}
			}
			rows = Rows{}
			state := e.Stats().StateBytes
			// Without the recent store: its records, and what it looks them up by.
			used := heap() - before - int64(len(e.recent.ring))*(recentEntrySize+24) - int64(len(e.recent.blocks))*recentBlockSize
			t.Logf("state %d KB (at most %d KB), heap %d KB, %.2f of it; %d entities, %d evicted", state>>10, most>>10, used>>10, float64(used)/float64(state), e.Stats().Entities, e.Stats().EntitiesEvicted)
			if used > state*3/2+512<<10 {
				t.Errorf("the state says %d bytes and takes %d", state, used)
			}
			kept := 0
			for user := range 10 {
				apply(testRecord(990_000+user, user, 2*testHour, codeWrong))
				for _, i := range rows.Incidents {
					if i.EntityKind == EntityUser && i.IncidentID == told[i.EntityValue] {
						kept++
					}
				}
			}
			if kept != 10 && !h.stories {
				t.Errorf("%d of 10 stories that were told before go on", kept)
			}
			b := e.AppendSnapshot(nil)
			next := benchEngine(t, Options{Catalogue: cat, StateBytes: limit, RecentBytes: 64 << 10})
			if err := next.RestoreSnapshot(b); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(next.AppendSnapshot(nil), b) || next.Stats().StateBytes != e.Stats().StateBytes {
				t.Error("a restored engine writes another snapshot")
			}
			runtime.KeepAlive(e)
		})
	}
}

// What emptied gives its memory back: indexes, slots and numbers of texts do not stay as large as they once were.
func TestStateShrinks(t *testing.T) {
	cat := testCatalogue(t)
	before := heap()
	e := benchEngine(t, Options{Catalogue: cat, StateBytes: 64 << 20, RecentBytes: 1})
	rec, m, rows := newStreamRecord(), &schemas.EntityMessage{}, &Rows{}
	spray := stream{roles: rolesOfUser | rolesOfAddress, record: func(n int, r *streamRecord) { r.set(n, n, n, int64(n)*1e3, codeWrong) }}
	spray.feed(e, rec, m, rows, 0, 60_000)
	full, state := heap()-before, e.Stats().StateBytes
	// Five days later two entities go with every record.
	quiet := stream{roles: rolesOfUser, record: func(n int, r *streamRecord) { r.set(n, n%10, -1, 5*24*testHour+int64(n)*1e3, codeWrong) }}
	quiet.feed(e, rec, m, rows, 60_000, 125_000)
	empty := heap() - before
	t.Logf("%d KB of heap for a state of %d KB, then %d KB for %d KB", full>>10, state>>10, empty>>10, e.Stats().StateBytes>>10)
	if full > 2*state || empty > 3<<20 {
		t.Errorf("%d bytes of heap for a state of %d, then %d for %d", full, state, empty, e.Stats().StateBytes)
	}
	if len(e.entities.slots) > 2*minCompacted || len(e.entities.texts.texts) > 2*minCompacted {
		t.Errorf("%d slots and %d numbers of texts stay", len(e.entities.slots), len(e.entities.texts.texts))
	}
	// The entities that stayed are whole.
	b := e.AppendSnapshot(nil)
	next := benchEngine(t, Options{Catalogue: cat, StateBytes: 64 << 20, RecentBytes: 1})
	if err := next.RestoreSnapshot(b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(next.AppendSnapshot(nil), b) {
		t.Error("a restored engine writes another snapshot")
	}
	runtime.KeepAlive(e)
}

// In steady state a record costs no allocation: a plain success, a failure of a known user, an event and a right password at
// a hot address.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	cat := testCatalogue(t)
	for _, s := range []stream{
		streams[0],
		{"failure of a known user", rolesOfUser, func(n int, r *streamRecord) { r.set(n, n%20, -1, int64(n)*1e6, codeWrong) }},
		{"event of a hot address", rolesOfAddress, func(n int, r *streamRecord) { r.set(n, n%200, -1, int64(n)*1e6, codeWrong) }},
		{"office address", rolesOfAddress, func(n int, r *streamRecord) {
			r.set(n, n*7919%200, -1, int64(n)*1e6, []int32{codeWrong, codeSuccess, codeSuccess}[n%3])
		}},
		{"all roles", WantedRoles() &^ schemas.Roles(schemas.Role_ROLE_SERVICE_PRINCIPAL), func(n int, r *streamRecord) { r.set(n, n%200, n%20, int64(n)*1e6, codeWrong) }},
	} {
		t.Run(s.name, func(t *testing.T) {
			e := benchEngine(t, Options{Catalogue: cat, RecentBytes: 1 << 20})
			rec, m, rows := newStreamRecord(), &schemas.EntityMessage{}, &Rows{}
			n := 40_000
			s.feed(e, rec, m, rows, 0, n)
			if a := testing.AllocsPerRun(2000, func() {
				s.feed(e, rec, m, rows, n, n+1)
				n++
			}); a != 0 {
				t.Errorf("%v allocations for a record", a)
			}
		})
	}
}
