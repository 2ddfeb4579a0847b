package detectors

import (
	"cmp"
	"slices"
)

// Every entity's shard writes its own findings: a spray is seen by the address, by the network and by the user agent, and a
// user whom it hit five times has repeated failures as well. Join makes one incident of what is one story, when it is
// read. Incidents of one tenant belong together where at least half of the smaller one's records are in the other as well.

// Overlap says how many records two incidents of one tenant share.
type Overlap struct {
	TenantID string
	A, B     string // incident ids
	Shared   int64
}

// Overlaps counts the records that incidents share. The order of the result is that of the incidents' first common record
// in members.
func Overlaps(members []IncidentMember) []Overlap {
	type record struct{ tenant, correlation, request string }
	type pair struct{ tenant, a, b string }
	of := make(map[record][]string, len(members))
	var shared []Overlap
	index := map[pair]int{}
	for i := range members {
		m := &members[i]
		key := record{m.TenantID, m.CorrelationID, m.RequestID}
		ids := of[key]
		if slices.Contains(ids, m.IncidentID) {
			continue
		}
		for _, other := range ids {
			p := pair{m.TenantID, min(other, m.IncidentID), max(other, m.IncidentID)}
			at, ok := index[p]
			if !ok {
				at = len(shared)
				index[p] = at
				shared = append(shared, Overlap{TenantID: p.tenant, A: p.a, B: p.b})
			}
			shared[at].Shared++
		}
		of[key] = append(ids, m.IncidentID)
	}
	return shared
}

// leads orders the incidents that may lead a story: a tenant's and a spray's before those of single users, and of
// one kind of entity the kinds as their families rank them.
func leads(i *Incident) int {
	entity := slices.Index([]string{
		EntityTenant, EntityAgent, EntityAddress, EntityNetwork, EntityPolicy, EntityApplication, EntityUser, EntityServicePrincipal,
	}, i.EntityKind)
	kind := slices.IndexFunc(detections, func(d *detection) bool { return d.kind == i.Kind })
	return entity*len(detections) + kind
}

// single reports whether an incident is about one user or service principal.
func (i *Incident) single() bool {
	return i.EntityKind == EntityUser || i.EntityKind == EntityServicePrincipal
}

// Join returns the incidents with those of one story made into one: the one that leads, with the users, addresses ... , other
// kinds, severity and outcome of all, and the ids of the others in Joined. Its counts and revision are the leader's; the
// number of its records is at most the true one. The order is that of the leading incidents in incidents, which is not
// changed; lists of the result may share memory with it. The result does not depend on the order of incidents and
// overlaps otherwise.
//
// Two shared places, or two incidents of one user, are one story when half of the smaller one's records are in both. A user's
// incident belongs to the place that holds most of its records, at least half of them, and ties no two places together. What
// is no attack (outages, a policy's surge, a stored password) belongs to no attack.
func Join(incidents []Incident, overlaps []Overlap) []Incident {
	type key struct{ tenant, id string }
	at := make(map[key]int, len(incidents))
	parent := make([]int, len(incidents))
	for i := range incidents {
		at[key{incidents[i].TenantID, incidents[i].IncidentID}] = i
		parent[i] = i
	}
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	// The largest overlaps tie a story together; what they share is counted once.
	overlaps = slices.Clone(overlaps)
	slices.SortFunc(overlaps, func(x, y Overlap) int {
		return cmp.Or(cmp.Compare(y.Shared, x.Shared), cmp.Compare(x.TenantID, y.TenantID), cmp.Compare(x.A, y.A), cmp.Compare(x.B, y.B))
	})
	shared := make(map[int]int64, len(incidents)) // records counted more than once, by root
	unite := func(a, b int, records int64) {
		if a, b = root(a), root(b); a != b {
			parent[a] = b
			shared[b] += shared[a] + records
		}
	}
	pairs := func(mixed bool, visit func(a, b int, o *Overlap)) {
		for n := range overlaps {
			o := &overlaps[n]
			a, okA := at[key{o.TenantID, o.A}]
			b, okB := at[key{o.TenantID, o.B}]
			if !okA || !okB || incidents[a].single() != incidents[b].single() != mixed ||
				(incidents[a].Outcome == IncidentFailing) != (incidents[b].Outcome == IncidentFailing) {
				continue
			}
			if incidents[b].single() {
				a, b = b, a
			}
			visit(a, b, o)
		}
	}
	pairs(false, func(a, b int, o *Overlap) {
		if 2*o.Shared >= min(incidents[a].RequestIDsTotal, incidents[b].RequestIDsTotal) {
			unite(a, b, o.Shared)
		}
	})
	users := make([]int, len(incidents)) // the roots of the users' own stories
	for i := range incidents {
		users[i] = root(i)
	}
	placed := make(map[int]bool) // those that belong to a place
	pairs(true, func(user, place int, o *Overlap) {
		if !placed[users[user]] && 2*o.Shared >= incidents[user].RequestIDsTotal {
			placed[users[user]] = true
			unite(user, place, o.Shared)
		}
	})
	stories := make(map[int][]int, len(incidents))
	for i := range incidents {
		r := root(i)
		stories[r] = append(stories[r], i)
	}
	better := func(a, b int) int {
		x, y := &incidents[a], &incidents[b]
		return cmp.Or(cmp.Compare(leads(x), leads(y)), cmp.Compare(y.RequestIDsTotal, x.RequestIDsTotal),
			cmp.Compare(x.FirstSeen, y.FirstSeen), cmp.Compare(x.IncidentID, y.IncidentID))
	}
	joined := make([]Incident, 0, len(stories))
	for i := range incidents {
		story := stories[root(i)]
		if len(story) == 1 {
			joined = append(joined, incidents[i])
			continue
		}
		order := slices.Clone(story)
		slices.SortFunc(order, better)
		if order[0] != i {
			continue
		}
		lead := incidents[i]
		total := lead.RequestIDsTotal
		for _, k := range order[1:] {
			lead.absorb(&incidents[k])
			total += incidents[k].RequestIDsTotal
		}
		lead.RequestIDsTotal = max(total-shared[root(i)], lead.RequestIDsTotal, int64(len(lead.RequestIDs)))
		joined = append(joined, lead)
	}
	return joined
}

// absorb takes the findings of another incident of the same story into i.
func (i *Incident) absorb(other *Incident) {
	i.Joined = append(slices.Clone(i.Joined), other.IncidentID)
	also := append([]string{other.Kind}, other.Also...)
	also = slices.DeleteFunc(also, func(kind string) bool { return kind == i.Kind })
	i.Also = united(i.Also, also, len(detections))
	if severityRank(other.Severity) > severityRank(i.Severity) {
		i.Severity = other.Severity
	}
	if outcomeRank(other.Outcome) > outcomeRank(i.Outcome) {
		i.Outcome = other.Outcome
	}
	i.FirstSeen, i.LastSeen = min(i.FirstSeen, other.FirstSeen), max(i.LastSeen, other.LastSeen)
	for _, lists := range [...]struct {
		to   *[]string
		from []string
	}{
		{&i.Users, other.Users}, {&i.Addresses, other.Addresses}, {&i.Applications, other.Applications}, {&i.Devices, other.Devices},
		{&i.OperatingSystems, other.OperatingSystems}, {&i.ClientApps, other.ClientApps}, {&i.RequestIDs, other.RequestIDs},
	} {
		*lists.to = united(*lists.to, lists.from, maxIncidentValues)
	}
}

// united returns a with the values of b that it lacks, at most limit; a is not changed.
func united(a, b []string, limit int) []string {
	out := slices.Clip(a)
	for _, s := range b {
		if len(out) >= limit {
			break
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// outcomeRank orders outcomes; that of operational kinds is the least, since an attack's says more.
func outcomeRank(outcome string) int {
	if outcome == IncidentFailing {
		return -1
	}
	return slices.Index(incidentOutcomes[:], outcome)
}
