package detectors

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/signindiag/signindiag/schemas"
)

// traffic draws records of several users, addresses, agents, applications, policies and service principals, of all families.
// Equal seeds give equal records, in no order. Every record is one of the whole history: there are no versions with another status.
type traffic struct {
	*rand.Rand
	n int
}

func newTraffic(seed uint64) *traffic { return &traffic{Rand: rand.New(rand.NewPCG(seed, 7))} }

var trafficAgents = []string{"Mozilla/5.0 (Windows NT 10.0)", "BAV2ROPC", "python-requests/2.31"}

// themes are the codes of a stream: what a family looks at comes often enough that its incidents happen.
var themes = [][]int32{
	{50126, 50126, 50126, 0}, {50126, 50053, 50053, 50053}, {50126, 50053, 50126, 0, 50074}, {50034, 50034, 50034, 50126}, {50057, 50057, 50126, 0},
	{500121, 500121, 0, 50126}, {80001, 80005, 81006, 81004}, {50011, 700016, 50105, 0}, {53003, 53003, 53000, 0},
	{50126, 0, 53003, 50199}, {50126, 50053, 50034, 50057, 500121, 80001, 81006, 50011, 53003, 0, 0, 0},
}

func (t *traffic) record(user, place int, after int64, code int32) *schemas.SignIn {
	r := testRecord(t.n, user, after, code)
	t.n++
	r.IpAddress = fmt.Sprintf("203.0.113.%d", place+1)
	r.AutonomousSystemNumber = uint32(64500 + place%2)
	r.UserAgent = trafficAgents[place%3]
	r.AppId, r.AppDisplayName = testGUID(4, place%2), fmt.Sprintf("App %d", place%2)
	return r
}

func (t *traffic) records() []*schemas.SignIn {
	theme := themes[t.IntN(len(themes))]
	span := []int64{10 * testMinute, testHour, 6 * testHour, 20 * testHour}[t.IntN(4)]
	users, places := []int{1, 3, 12, 40}[t.IntN(4)], []int{1, 3, 14}[t.IntN(3)]
	var out []*schemas.SignIn
	for range 10 + t.IntN(50*min(users, 3)) {
		after := t.Int64N(span)
		if t.IntN(3) > 0 {
			after -= after % (30 * microsPerSecond) // many at the same time
		}
		r := t.record(t.IntN(users), t.IntN(places), after, theme[t.IntN(len(theme))])
		switch t.IntN(12) {
		case 0:
			r.Category, r.IsInteractive = schemas.Category_CATEGORY_NON_INTERACTIVE_USER, schemas.Tri_TRI_FALSE
		case 1:
			r.ClientAppUsed = "IMAP4"
		case 2:
			r.AuthenticationProtocol = "deviceCode"
			r.CorrelationId = testGUID(1, 5000+t.IntN(2))
		case 3:
			r.TrustType, r.DeviceDisplayName = "Hybrid Azure AD joined", "LAPTOP-1"
		case 4, 5:
			r.UserAgent = trafficAgents[t.IntN(3)] // not the place's own
		}
		if r.ErrorCode == 53003 || r.ErrorCode == 53000 {
			r.Policies = []*schemas.Policy{{Id: testGUID(9, t.IntN(2)), DisplayName: fmt.Sprintf("Policy %d", r.EventTime%2), Result: "failure"}}
			r.Policies[0].DisplayName = "Policy " + r.Policies[0].Id[35:]
		}
		if r.ErrorCode == 500121 {
			r.AuthenticationDetails = []*schemas.AuthenticationStep{{Method: "Mobile app notification", ResultDetail: []string{
				"MFA denied; user declined the authentication", "MFA denied; user did not respond to mobile app notification", "MFA denied; wrong code entered"}[t.IntN(3)]}}
		}
		if t.IntN(8) == 0 {
			r.Category = schemas.Category_CATEGORY_SERVICE_PRINCIPAL
			r.ServicePrincipalId, r.ServicePrincipalName = testGUID(5, t.IntN(2)), "Worker"
			r.UserId, r.UserPrincipalName, r.Policies, r.AuthenticationDetails = "", "", nil, nil
			r.ErrorCode = []int32{7000215, 7000215, 7000215, 7000222, 0}[t.IntN(5)]
		}
		out = append(out, r)
		for range []int{0, 0, 0, 0, 1, 2}[t.IntN(6)] {
			out = append(out, r) // repeats
		}
	}
	return out
}

// primer makes one event of every shared place of the records, earlier than all of them and of a user of its own: what happens at a
// place before anything failed there is not kept, so the first event must be known first in every order.
func (t *traffic) primer(records []*schemas.SignIn) (out []*schemas.SignIn) {
	type place struct {
		address, agent, app string
	}
	seen := map[place]bool{}
	for _, r := range records {
		p := place{r.IpAddress, r.UserAgent, r.AppId}
		if seen[p] {
			continue
		}
		seen[p] = true
		first := t.record(900, 0, -testMinute, codeWrong)
		first.IpAddress, first.AutonomousSystemNumber, first.UserAgent, first.AppId, first.AppDisplayName = r.IpAddress, r.AutonomousSystemNumber, r.UserAgent, r.AppId, r.AppDisplayName
		out = append(out, first)
	}
	return out
}

func (t *traffic) shuffled(records []*schemas.SignIn) []*schemas.SignIn {
	out := slices.Clone(records)
	t.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func inOrder(records []*schemas.SignIn) []*schemas.SignIn {
	out := slices.Clone(records)
	slices.SortStableFunc(out, func(a, b *schemas.SignIn) int { return cmp.Compare(a.EventTime, b.EventTime) })
	return out
}

// runner applies records in all their roles, over one engine for each partition of the entities topic, and keeps the
// newest row of every incident. Restarts are snapshots taken and restored.
type runner struct {
	t       testing.TB
	engines []*Engine
	options Options
	dealer  Dealer
	offset  int64
	rows    map[string]Incident
	members map[[2]string]bool
}

func newRunner(t testing.TB, partitions int, o Options) *runner {
	t.Helper()
	if o.Catalogue == nil {
		o.Catalogue = testCatalogue(t)
	}
	r := &runner{t: t, options: o, dealer: Dealer{Catalogue: o.Catalogue}, rows: map[string]Incident{}, members: map[[2]string]bool{}}
	for i := range partitions {
		r.engines = append(r.engines, r.engine(i, partitions))
	}
	return r
}

func (r *runner) engine(shard, shards int) *Engine {
	o := r.options
	o.Shard, o.Shards = uint32(shard), uint32(shards)
	e, err := NewEngine(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// add deals one record as the router does: whole to its user, in the compact form to others.
func (r *runner) add(rec *schemas.SignIn) {
	r.offset++
	var compact schemas.SignIn
	r.dealer.Deal(rec, uint32(len(r.engines)), WantedRoles(), func(p uint32, roles schemas.RoleSet) {
		m := schemas.EntityMessage{Source: &schemas.Source{Topic: 1, Offset: r.offset}, Roles: uint32(roles), ReceivedMs: testStart/1000 + 1, SignIn: rec}
		if roles&fullRoles == 0 {
			compact.ResetVT()
			schemas.CompactFor(&compact, rec)
			m.SignIn = &compact
		}
		var rows Rows
		r.engines[p].Apply(&m, r.offset, &rows)
		rows = rows.Clone()
		for _, i := range rows.Incidents {
			r.rows[i.IncidentID] = i
		}
		for _, m := range rows.Members {
			r.members[[2]string{m.IncidentID, m.RequestID}] = true
		}
	})
}

func (r *runner) restart() {
	for i, e := range r.engines {
		next := r.engine(i, len(r.engines))
		if err := next.RestoreSnapshot(e.AppendSnapshot(nil)); err != nil {
			r.t.Fatal(err)
		}
		r.engines[i] = next
	}
}

// told is an incident at the end of a stream, without what the order of arrival may change.
type told struct {
	Family  string
	Row     Incident
	Members []string
}

// stories returns the incidents that still hold at the end: an incident that was told on less and that what came later speaks against
// stays in the table, and in another order may never have been told. It leaves out the families of an entity with incidents whose events
// grew together, or apart, later, and reports how many. It checks that the last row says what the end's state says.
func (r *runner) stories() (out []told, bridged int) {
	for _, e := range r.engines {
		s := &e.entities
		for l := range s.lists {
			for i := s.lists[l].oldest; i >= 0; i = s.slots[i].newer {
				n := &s.slots[i]
				for j := range n.incidents {
					inc := &n.incidents[j]
					f := &families[inc.family]
					th := &e.settings.Default.Thresholds
					quiet := f.quiet(th)
					if slices.ContainsFunc(n.incidents, func(x incidentState) bool {
						return x.family == inc.family && x.code == inc.code && x.number != inc.number && x.first < inc.last+quiet && inc.first < x.last+quiet
					}) {
						bridged++
						continue
					}
					st := story{e: e, n: n, tenant: &e.settings.Default, th: th, code: inc.code}
					e.collect(&st, f, inc, inc.first, quiet)
					if len(st.events) == 0 {
						continue
					}
					split := false // an event between the others was taken out: an earlier one stands for its series
					for k := 1; k < len(st.events); k++ {
						split = split || st.events[k].time-st.events[k-1].time >= quiet
					}
					if split {
						bridged++
						continue
					}
					kinds := kindSet(0)
					for _, d := range f.detections {
						if d.find(&st).found {
							kinds |= 1 << d.number
							st.found = kinds
						}
					}
					if kinds == 0 {
						continue
					}
					var rows Rows
					e.judge(n, inc.family, inc.first, inc.code, 1, &rows)
					if len(rows.Incidents) > 0 {
						r.t.Errorf("%s of %s: the last row is not that of the end: %s", f.name, s.texts.text(n.name), gocmp.Diff(r.rows[s.incidentID(inc)], rows.Incidents[0], compareRows))
					}
					x := told{Family: f.name, Row: r.rows[s.incidentID(inc)]}
					for k := range st.events {
						if v := st.events[k]; v.of(inc) && !st.isAside(k) {
							id := s.requestID(v)
							x.Members = append(x.Members, id)
							if !r.members[[2]string{s.incidentID(inc), id}] {
								r.t.Errorf("%s of %s: event %s is no member", f.name, s.texts.text(n.name), id)
							}
						}
					}
					slices.Sort(x.Members)
					x.Row.IncidentID, x.Row.Revision = "", 0
					out = append(out, x)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b told) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Row.EntityKind, b.Row.EntityKind), cmp.Compare(a.Row.EntityValue, b.Row.EntityValue),
			cmp.Compare(a.Row.FirstSeen, b.Row.FirstSeen), slices.Compare(a.Members, b.Members))
	})
	return out, bridged
}

// The incidents of a stream in any order, with repeats and restarts, over any number of shards, are those of the same stream in
// the order of event time.
func TestStoriesInAnyOrder(t *testing.T) {
	const streams = 300
	kinds := map[string]int{}
	left := 0
	cat := testCatalogue(t)
	for seed := range uint64(streams) {
		tr := newTraffic(seed)
		records := tr.records()
		primer := tr.primer(records)
		want, got := newRunner(t, 1, Options{Catalogue: cat}), newRunner(t, 1+tr.IntN(4), Options{Catalogue: cat})
		for _, r := range append(primer, inOrder(records)...) {
			want.add(r)
		}
		for _, r := range append(slices.Clone(primer), tr.shuffled(records)...) {
			got.add(r)
			if tr.IntN(20) == 0 {
				got.restart()
			}
		}
		a, bridgedA := want.stories()
		b, bridgedB := got.stories()
		if left += bridgedA + bridgedB; bridgedA+bridgedB > 0 {
			continue
		}
		for _, x := range a {
			kinds[x.Family+" "+x.Row.Kind]++
		}
		if diff := gocmp.Diff(a, b, compareRows); diff != "" {
			t.Errorf("seed %d: %s", seed, diff)
		}
		if t.Failed() {
			t.Fatalf("seed %d: %d records over %d shards", seed, len(records), len(got.engines))
		}
	}
	for i := range families {
		f := &families[i]
		if !slices.ContainsFunc(f.detections, func(d *detection) bool { return kinds[f.name+" "+d.kind] > 0 }) {
			t.Errorf("no stream has an incident of the family %s", f.name)
		}
	}
	t.Logf("incidents that hold: %v; left out as grown together: %d", kinds, left)
}
