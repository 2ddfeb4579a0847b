package inmemory_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

var (
	daySeeds = flag.Int("day-seeds", 3, "how many days TestMixedDay makes, each of another seed")
	daySeed  = flag.Uint64("day-seed", 1, "the seed of the first day of TestMixedDay")
)

var dayStart = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

const (
	large, middle, small = 0, 1, 2 // tenants
)

// mixedDay is a day of three tenants with attacks and outages of every kind. Each has users and a network of its own, so that
// two of them share no record.
func mixedDay(seed uint64) synthetic.Options {
	o := synthetic.Options{
		Seed: seed, Start: dayStart, Duration: 24 * time.Hour, Rate: 0.35, Tenants: 3, TenantUsers: []int{600, 300, 8}, Remember: true,
	}
	r := rand.New(rand.NewPCG(seed, 0xda7))
	next := [...]int{0, 0, 0} // users that no attack has yet, by tenant
	plant := func(kind string, tenant int, users int, change ...func(*synthetic.Attack)) {
		a := synthetic.Attack{Kind: kind, Tenant: tenant, FirstUser: next[tenant], Users: users}
		// From the third hour on: a surge is measured by what was before.
		a.At = dayStart.Add(3*time.Hour + time.Duration(r.Int64N(int64(18*time.Hour))))
		for _, c := range change {
			c(&a)
		}
		if kind != "principal_secret_guessing" && kind != "expired_secret" {
			next[tenant] += users
		}
		o.Attacks = append(o.Attacks, a)
	}
	succeeds := func(a *synthetic.Attack) { a.Succeeds = true }
	late := func(d time.Duration) func(*synthetic.Attack) { return func(a *synthetic.Attack) { a.Late = d } }
	over := func(d time.Duration) func(*synthetic.Attack) {
		return func(a *synthetic.Attack) { a.At, a.Over = dayStart.Add(time.Hour), d }
	}
	addresses := func(n int) func(*synthetic.Attack) { return func(a *synthetic.Attack) { a.Addresses = n } }

	plant("password_spray", large, 15)
	plant("password_spray", middle, 20, succeeds)
	plant("password_spray", large, 30, over(20*time.Hour))
	plant("password_spray", small, 8)
	plant("password_spray", middle, 12, func(a *synthetic.Attack) { a.OneNetwork, a.Addresses = true, 12 })
	plant("password_spray", large, 12, late(5*time.Hour))
	plant("distributed_spray", large, 40)
	plant("distributed_spray", middle, 40, over(18*time.Hour))
	plant("brute_force", large, 1)
	plant("brute_force", middle, 1, succeeds, addresses(4))
	plant("account_lockout", large, 1, late(6*time.Hour))
	plant("account_lockout", middle, 1, addresses(4), func(a *synthetic.Attack) { a.Intensity = 2 })
	plant("mfa_fatigue", large, 1, succeeds)
	plant("mfa_fatigue", middle, 1)
	plant("totp_guessing", large, 1)
	plant("legacy_auth", middle, 4, addresses(1))
	plant("password_known", middle, 1)
	plant("account_takeover", large, 1)
	plant("repeated_failures", large, 1)
	plant("cached_credential", middle, 1, over(20*time.Hour))
	plant("user_enumeration", large, 30)
	plant("disabled_account_probe", middle, 5)
	plant("principal_secret_guessing", large, 1)
	plant("expired_secret", middle, 1)
	plant("pta_outage", large, 25)
	plant("sso_outage", middle, 12)
	plant("app_outage", large, 12)
	plant("ca_surge", large, 25)
	plant("device_code", middle, 1)
	return o
}

// story is an incident as readers see it, made of those that share records, with the ids of all of its records.
type story struct {
	*detectors.Incident
	requests map[string]bool
}

func (s *story) String() string {
	return fmt.Sprintf("%s (also %s) %s %s of %s %s, %d users, %d addresses, %d records, %s to %s", s.Kind, strings.Join(s.Also, "+"), s.Severity, s.Outcome,
		s.EntityKind, s.EntityValue, len(s.Users), len(s.Addresses), len(s.requests), clock(s.FirstSeen), clock(s.LastSeen))
}

func clock(micros int64) string { return time.UnixMicro(micros).UTC().Format("02 15:04:05") }

// stories gives every incident its records.
func stories(rows *inmemory.Result) []*story {
	type key struct{ tenant, id string }
	of := map[key]*story{}
	var out []*story
	for i := range rows.Incidents {
		s := &story{&rows.Incidents[i], map[string]bool{}}
		out = append(out, s)
		of[key{s.TenantID, s.IncidentID}] = s
		for _, id := range s.Joined {
			of[key{s.TenantID, id}] = s
		}
	}
	for _, m := range rows.Members {
		of[key{m.TenantID, m.IncidentID}].requests[m.RequestID] = true
	}
	return out
}

// runDay sends the traffic through the detectors.
func runDay(t *testing.T, o synthetic.Options) (*synthetic.Traffic, inmemory.Result) {
	t.Helper()
	known, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	runner, err := inmemory.New(detectors.Options{Catalogue: known})
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := synthetic.NewTraffic(o)
	if err != nil {
		t.Fatal(err)
	}
	for {
		message, n := traffic.Next()
		if n == 0 {
			break
		}
		runner.Feed(message, traffic.Now(), func(_ int, err error) { t.Fatal(err) })
	}
	return traffic, runner.Result()
}

// score matches stories with the ground truth.
type score struct {
	planted, found      int // what was planted, and what of it was found with its kind and outcome as one story
	organic, foundOf    int // the same of what people did by themselves
	incidents, truthful int // incidents, and those whose records are of the ground truth
	faults              []string
}

func (s *score) fault(format string, values ...any) {
	s.faults = append(s.faults, fmt.Sprintf(format, values...))
}

func match(traffic *synthetic.Traffic, rows *inmemory.Result) (s score) {
	all := stories(rows)
	planted, organic := traffic.Planted(), traffic.Organic()
	attacks := map[*story][]int{}
	look := func(p *synthetic.Planted, demandOne bool) (of []*story, ok bool, why string) {
		told := 0
		count := func(story *story) (n int) {
			for _, id := range p.RequestIDs {
				if story.requests[id] {
					n++
				}
			}
			return n
		}
		for _, story := range all {
			told += count(story)
		}
		for _, story := range all {
			// A record or two of an attack may stand in the story of a person who failed by herself more often.
			if n := count(story); n > 0 && (!demandOne || 2*n >= len(story.requests) || 2*n >= told) {
				of = append(of, story)
			}
		}
		if len(of) != 1 && demandOne {
			return of, false, fmt.Sprintf("is told by %d stories, expected 1", len(of))
		}
		for _, story := range of {
			// People who got in with the password alone after failures of their own may be at a familiar place.
			own := !demandOne && p.Kind == detectors.IncidentRepeatedFailures && p.Outcome == detectors.IncidentSignedIn && story.Outcome == detectors.IncidentBlocked
			if (story.Kind == p.Kind || slices.Contains(story.Also, p.Kind)) && (story.Outcome == p.Outcome || own) {
				return of, true, ""
			}
		}
		return of, false, "is not told with its kind and outcome"
	}
	describe := func(p *synthetic.Planted, of []*story, why string) {
		var lines []string
		for _, story := range of {
			lines = append(lines, "    "+story.String())
		}
		s.fault("%s (%s) in %s from %s, %d users, %d records %s:\n%s", p.Kind, p.Outcome, p.TenantID[:8], p.First.Format("02 15:04:05"), len(p.Users), len(p.RequestIDs), why, strings.Join(lines, "\n"))
	}
	for n := range planted {
		p := &planted[n]
		s.planted++
		of, ok, why := look(p, true)
		for _, story := range of {
			attacks[story] = append(attacks[story], n)
		}
		if !ok {
			describe(p, of, why)
			continue
		}
		s.found++
	}
	for story, list := range attacks {
		if len(list) > 1 {
			kinds := ""
			for _, n := range list {
				kinds += " " + planted[n].Kind
			}
			s.fault("one story of%s:\n    %s", kinds, story)
		}
	}
	for n := range organic {
		p := &organic[n]
		s.organic++
		// A person whom an attack concerns too has one story of both.
		of, ok, why := look(p, false)
		if !ok && !slices.ContainsFunc(of, func(story *story) bool { return len(attacks[story]) > 0 }) {
			describe(p, of, why)
			continue
		}
		s.foundOf++
	}
	// What an incident may be of: an attack or outage that its records are mostly of, or, for a single user or workload, what they
	// did by themselves. Beside an attack nobody has got in.
	records := map[string]*synthetic.Planted{}
	for _, list := range [][]synthetic.Planted{organic, planted} {
		for n := range list {
			for _, id := range list[n].RequestIDs {
				records[id] = &list[n]
			}
		}
	}
	attacked := map[*synthetic.Planted]bool{}
	for n := range planted {
		attacked[&planted[n]] = true
	}
	for _, story := range all {
		s.incidents++
		ofAttack, ofSomething, in := 0, 0, false
		for id := range story.requests {
			if p := records[id]; p != nil {
				ofSomething++
				in = in || p.Outcome == detectors.IncidentSignedIn
				if attacked[p] {
					ofAttack++
				}
			}
		}
		single := story.EntityKind == detectors.EntityUser || story.EntityKind == detectors.EntityServicePrincipal
		switch {
		case single && ofSomething == 0, !single && 2*ofAttack < len(story.requests):
			s.fault("invented: %d of %d records are of an attack, in\n    %s", ofAttack, len(story.requests), story)
		case story.Outcome == detectors.IncidentSignedIn && !in:
			s.fault("nobody got in, in\n    %s", story)
		default:
			s.truthful++
		}
	}
	slices.SortFunc(s.faults, cmp.Compare)
	return s
}

// TestMixedDay plants attacks and outages of every kind into a day of ordinary traffic, and demands that each is found as one
// story with its kind and outcome, that what people did by themselves is found as what it is, and that nothing is invented.
func TestMixedDay(t *testing.T) {
	for n := range *daySeeds {
		seed := *daySeed + uint64(n)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			traffic, rows := runDay(t, mixedDay(seed))
			s := match(traffic, &rows)
			t.Logf("seed %d: %d records; recall %.3f (%d of %d planted), %.3f (%d of %d by themselves); precision %.3f (%d of %d incidents)", seed, traffic.Stats().Records,
				float64(s.found)/float64(s.planted), s.found, s.planted, float64(s.foundOf)/float64(max(s.organic, 1)), s.foundOf, s.organic,
				float64(s.truthful)/float64(s.incidents), s.truthful, s.incidents)
			for _, f := range s.faults {
				t.Errorf("seed %d: %s", seed, f)
			}
		})
	}
}
