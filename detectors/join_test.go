package detectors

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJoin(t *testing.T) {
	member := func(incident, tenant string, n int) IncidentMember {
		return IncidentMember{IncidentID: incident, TenantID: tenant, RequestID: testGUID(0, n), CorrelationID: testGUID(1, n)}
	}
	var members []IncidentMember
	add := func(incident, tenant string, from, to int) int64 {
		for n := from; n < to; n++ {
			members = append(members, member(incident, tenant, n))
		}
		return int64(to - from)
	}
	const here, there = "tenant-1", "tenant-2"
	incidents := []Incident{
		{IncidentID: "user", Kind: IncidentAccountTakeover, Also: []string{IncidentBruteForce}, EntityKind: EntityUser, TenantID: here, Severity: SeverityCritical,
			Outcome: IncidentSignedIn, FirstSeen: 50, LastSeen: 70, Users: []string{"ada"}, RequestIDs: []string{"r1"}, RequestIDsTotal: add("user", here, 10, 20)},
		{IncidentID: "spray", Kind: IncidentPasswordSpray, EntityKind: EntityAddress, TenantID: here, Severity: SeverityMedium, Outcome: IncidentBlocked,
			FirstSeen: 40, LastSeen: 60, Users: []string{"ada", "bela"}, RequestIDs: []string{"r2"}, RequestIDsTotal: add("spray", here, 0, 15), Revision: 3},
		{IncidentID: "agent", Kind: IncidentDistributedSpray, EntityKind: EntityAgent, TenantID: here, Severity: SeverityHigh, Outcome: IncidentPasswordKnown,
			FirstSeen: 30, LastSeen: 55, Users: []string{"cleo"}, RequestIDsTotal: add("agent", here, 8, 12), Revision: 2},
		// Nine of its twenty records are the spray's, and no half of the spray's are its.
		{IncidentID: "office", Kind: IncidentPasswordSpray, EntityKind: EntityAddress, TenantID: here, Severity: SeverityLow, Outcome: IncidentBlocked,
			RequestIDsTotal: add("office", here, 0, 7) + add("office", here, 100, 113)},
		// The same ids in another tenant.
		{IncidentID: "spray", Kind: IncidentPasswordSpray, EntityKind: EntityAddress, TenantID: there, Severity: SeverityLow, Outcome: IncidentBlocked,
			RequestIDsTotal: add("spray", there, 0, 15)},
		{IncidentID: "outage", Kind: IncidentPTAOutage, EntityKind: EntityTenant, TenantID: here, Severity: SeverityHigh, Outcome: IncidentFailing, RequestIDsTotal: 3},
	}
	members = append(members, members...) // a member may be written twice
	want := "agent+spray+user distributed_spray[password_spray account_takeover brute_force] critical signed_in 30-70 [cleo ada bela] 20 rev 2, " +
		"office password_spray[] low blocked 0-0 [] 20 rev 0, spray password_spray[] low blocked 0-0 [] 15 rev 0, outage pta_outage[] high failing 0-0 [] 3 rev 0"
	told := func(list []Incident) string {
		var out []string
		for _, i := range list {
			out = append(out, fmt.Sprintf("%s %s%v %s %s %d-%d %v %d rev %d", strings.Join(append([]string{i.IncidentID}, i.Joined...), "+"), i.Kind, i.Also,
				i.Severity, i.Outcome, i.FirstSeen, i.LastSeen, i.Users, i.RequestIDsTotal, i.Revision))
		}
		return strings.Join(out, ", ")
	}
	before := Rows{Incidents: incidents}
	copied := before.Clone()
	if got := told(Join(incidents, Overlaps(members))); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if diff := cmp.Diff(copied.Incidents, incidents, compareRows); diff != "" {
		t.Errorf("the incidents were changed: %s", diff)
	}
	// Another order of the members and incidents gives the same stories.
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		rng.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		rng.Shuffle(3, func(i, j int) { incidents[i], incidents[j] = incidents[j], incidents[i] })
		if got := told(Join(incidents, Overlaps(members))); got != want {
			t.Fatalf("in another order: got %s", got)
		}
	}
}
