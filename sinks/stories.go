package sinks

import (
	"cmp"
	"context"
	"slices"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
)

// IncidentColumns are the columns of the table incidents in the order in which ScanIncident reads them.
const IncidentColumns = `incident_id, kind, severity, entity_kind, entity_value, tenant_id, toUnixTimestamp64Micro(first_seen), toUnixTimestamp64Micro(last_seen),
		users, addresses, applications, devices, operating_systems, client_apps, counts, outcome, request_ids, request_ids_total, also, revision`

// ScanIncident reads a row of IncidentColumns. Counts come in the order of their names.
func ScanIncident(rows driver.Rows, i *detectors.Incident) error {
	var counts map[string]int64
	err := rows.Scan(&i.IncidentID, &i.Kind, &i.Severity, &i.EntityKind, &i.EntityValue, &i.TenantID, &i.FirstSeen, &i.LastSeen,
		&i.Users, &i.Addresses, &i.Applications, &i.Devices, &i.OperatingSystems, &i.ClientApps, &counts, &i.Outcome,
		&i.RequestIDs, &i.RequestIDsTotal, &i.Also, &i.Revision)
	if err != nil {
		return err
	}
	for name, value := range counts {
		i.Counts = append(i.Counts, detectors.Count{Name: name, Value: value})
	}
	slices.SortFunc(i.Counts, func(a, b detectors.Count) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// Bounds of the look for incidents of one story.
const (
	// sampledMembers is how many records of an incident are looked at to find incidents that share them: a story shares half
	// of the smaller one's.
	sampledMembers = 200
	// maxRelated bounds the incidents that are found so in one round, storyRounds the rounds: a user, the sprays that hit it,
	// and what else they hit.
	maxRelated  = 1000
	storyRounds = 3
)

// StoryReader reads which stored incidents are one story.
type StoryReader struct {
	// Query runs a bounded query and calls scan for every row; what says what it is for.
	Query func(ctx context.Context, what, text string, parameters []any, scan func(driver.Rows) error) error
	// Table gives a table's name as queries need it.
	Table func(name string) string
}

// Join returns the stories that hold at least one of the incidents, each led by one incident, see detectors.Join: in the
// order of the incidents, none twice. A leading incident need not be among them.
func (r StoryReader) Join(ctx context.Context, incidents []detectors.Incident) ([]detectors.Incident, error) {
	if len(incidents) == 0 {
		return incidents, nil
	}
	const what = "look for incidents of one story"
	known := make(map[incidentKey]bool, len(incidents))
	candidates := slices.Clone(incidents)
	for i := range incidents {
		known[incidentKey{incidents[i].TenantID, incidents[i].IncidentID}] = true
	}
	// What belongs to an incident of the story belongs to the story.
	for found, round := candidates, 0; len(found) > 0 && round < storyRounds; round++ {
		related, err := r.related(ctx, what, found)
		if err != nil {
			return nil, err
		}
		related = slices.DeleteFunc(related, func(k incidentKey) bool { return known[k] })
		if len(related) == 0 {
			break
		}
		found = nil
		condition, parameters := byKey(related)
		err = r.Query(ctx, what, "SELECT "+IncidentColumns+" FROM "+r.Table("incidents")+" FINAL WHERE"+condition+
			" ORDER BY tenant_id, incident_id", parameters, func(rows driver.Rows) error {
			var i detectors.Incident
			if err := ScanIncident(rows, &i); err != nil {
				return err
			}
			if k := (incidentKey{i.TenantID, i.IncidentID}); !known[k] && slices.Contains(related, k) {
				known[k] = true
				found = append(found, i)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, found...)
	}
	if len(candidates) == 1 {
		return candidates, nil
	}
	overlaps, err := r.overlaps(ctx, what, candidates)
	if err != nil || len(overlaps) == 0 {
		return incidents, err
	}
	stories := detectors.Join(candidates, overlaps)
	leader := map[incidentKey]int{}
	for i := range stories {
		leader[incidentKey{stories[i].TenantID, stories[i].IncidentID}] = i
		for _, id := range stories[i].Joined {
			leader[incidentKey{stories[i].TenantID, id}] = i
		}
	}
	var out []detectors.Incident
	taken := map[int]bool{}
	for i := range incidents {
		if at := leader[incidentKey{incidents[i].TenantID, incidents[i].IncidentID}]; !taken[at] {
			taken[at] = true
			out = append(out, stories[at])
		}
	}
	return out, r.count(ctx, what, out)
}

// count sets the number of records of joined incidents, each record once.
func (r StoryReader) count(ctx context.Context, what string, stories []detectors.Incident) error {
	for n := range stories {
		i := &stories[n]
		if len(i.Joined) == 0 {
			continue
		}
		err := r.Query(ctx, what, `SELECT toInt64(uniqExact(correlation_id, request_id)) FROM `+r.Table("incident_members_by_incident")+`
			WHERE tenant_id = {tenant:String} AND incident_id IN {ids:Array(String)}`,
			[]any{clickhouse.Named("tenant", i.TenantID), clickhouse.Named("ids", append([]string{i.IncidentID}, i.Joined...))},
			func(rows driver.Rows) error { return rows.Scan(&i.RequestIDsTotal) })
		if err != nil {
			return err
		}
	}
	return nil
}

// membersOf returns the conditions and parameters that select the members of incidents, by partition and by key.
func membersOf(incidents []detectors.Incident) (condition string, parameters []any) {
	keys := make([]incidentKey, 0, len(incidents))
	from, to := incidents[0].FirstSeen, incidents[0].LastSeen
	for i := range incidents {
		keys = append(keys, incidentKey{incidents[i].TenantID, incidents[i].IncidentID})
		from, to = min(from, incidents[i].FirstSeen), max(to, incidents[i].LastSeen)
	}
	condition, parameters = byKey(keys)
	return condition + " AND event_time BETWEEN fromUnixTimestamp64Micro({from:Int64}) AND fromUnixTimestamp64Micro({to:Int64})",
		append(parameters, clickhouse.Named("from", from), clickhouse.Named("to", to))
}

// related returns the incidents that share sampled records with the given ones, those included.
func (r StoryReader) related(ctx context.Context, what string, incidents []detectors.Incident) ([]incidentKey, error) {
	condition, parameters := membersOf(incidents)
	var keys []incidentKey
	err := r.Query(ctx, what, `
		SELECT DISTINCT tenant_id, incident_id FROM `+r.Table("incident_members")+`
		WHERE event_time BETWEEN fromUnixTimestamp64Micro({from:Int64}) AND fromUnixTimestamp64Micro({to:Int64}) AND (correlation_id, request_id, tenant_id) IN (
			SELECT correlation_id, request_id, tenant_id FROM `+r.Table("incident_members_by_incident")+`
			WHERE`+condition+` ORDER BY tenant_id, incident_id, event_time LIMIT {sampled:UInt32} BY tenant_id, incident_id)
		ORDER BY tenant_id, incident_id LIMIT {most:UInt32}`,
		append(parameters, clickhouse.Named("sampled", sampledMembers), clickhouse.Named("most", maxRelated)),
		func(rows driver.Rows) error {
			var k incidentKey
			if err := rows.Scan(&k.tenant, &k.id); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		})
	return keys, err
}

// overlaps counts the records that incidents share.
func (r StoryReader) overlaps(ctx context.Context, what string, incidents []detectors.Incident) ([]detectors.Overlap, error) {
	condition, parameters := membersOf(incidents)
	var overlaps []detectors.Overlap
	err := r.Query(ctx, what, `
		SELECT tenant_id, pair.1 AS a, pair.2 AS b, toInt64(count()) AS shared FROM (
			SELECT tenant_id, arraySort(groupUniqArray(incident_id)) AS ids FROM `+r.Table("incident_members_by_incident")+`
			WHERE`+condition+`
			GROUP BY tenant_id, correlation_id, request_id HAVING length(ids) > 1
		)
		ARRAY JOIN arrayFlatten(arrayMap((x, i) -> arrayMap(y -> (x, y), arraySlice(ids, i + 1)), ids, arrayEnumerate(ids))) AS pair
		GROUP BY tenant_id, a, b ORDER BY tenant_id, a, b`, parameters,
		func(rows driver.Rows) error {
			var o detectors.Overlap
			if err := rows.Scan(&o.TenantID, &o.A, &o.B, &o.Shared); err != nil {
				return err
			}
			overlaps = append(overlaps, o)
			return nil
		})
	return overlaps, err
}

// stories joins the incidents of the keys. It returns the keys with those of leading incidents that were not among them, and
// which of the keys another incident leads; incidents then holds the stories by the keys of those that lead.
func (s outboxStore) stories(ctx context.Context, keys []incidentKey, incidents map[incidentKey]*detectors.Incident) ([]incidentKey, map[incidentKey]bool, error) {
	list := make([]detectors.Incident, 0, len(keys))
	for _, k := range keys {
		if i := incidents[k]; i != nil {
			list = append(list, *i)
		}
	}
	stories, err := StoryReader{Query: s.query, Table: s.table}.Join(ctx, list)
	if err != nil {
		return nil, nil, err
	}
	led := map[incidentKey]bool{}
	for n := range stories {
		i := &stories[n]
		lead := incidentKey{i.TenantID, i.IncidentID}
		if incidents[lead] == nil {
			keys = append(keys, lead)
		}
		incidents[lead] = i
		for _, id := range i.Joined {
			led[incidentKey{i.TenantID, id}] = true
		}
	}
	return keys, led, nil
}
