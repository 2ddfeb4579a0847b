package lookup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/sinks"
)

// Bounds of what is told of incidents.
const (
	// maxRecordIncidents bounds the incidents of one look-up.
	maxRecordIncidents = 100
	// maxIncidentLimit bounds a page of incidents.
	maxIncidentLimit = 500
	// maxIncidentRecords bounds the records that are shown with one incident, newest first.
	maxIncidentRecords = 50
)

// IncidentFilter selects incidents; empty fields select all.
type IncidentFilter struct {
	Kind     string
	Severity string // this severity or a higher one
	User     string // as the incident names it, in any case
	// Around selects incidents that were under way within 48 hours of it.
	Around time.Time
	// Limit is the size of a page, 1 to 500; 50 when 0.
	Limit int
	// Cursor continues after an earlier page of the same filter.
	Cursor string
}

func (s *Store) incidents(ctx context.Context, what, clauses string, parameters ...parameter) ([]detectors.Incident, error) {
	var all []detectors.Incident
	err := s.query(ctx, what, "SELECT "+sinks.IncidentColumns+" FROM incidents FINAL "+clauses, parameters, func(rows driver.Rows) error {
		var i detectors.Incident
		if err := sinks.ScanIncident(rows, &i); err != nil {
			return err
		}
		all = append(all, i)
		return nil
	})
	return all, err
}

// stories joins incidents of one story, see sinks.StoryReader.
func (s *Store) stories(ctx context.Context, incidents []detectors.Incident) ([]detectors.Incident, error) {
	reader := sinks.StoryReader{Query: s.queryAny, Table: func(name string) string { return name }}
	return reader.Join(ctx, incidents)
}

// severities are the names of the severities, lowest first.
var severities = []string{
	detectors.SeverityInfo, detectors.SeverityLow, detectors.SeverityMedium, detectors.SeverityHigh, detectors.SeverityCritical,
}

// incidentsOf returns the incidents that records belong to, worst first, then newest first.
func (s *Store) incidentsOf(ctx context.Context, records []detectors.Diagnosis) ([]detectors.Incident, error) {
	const what = "read the incidents of a sign-in"
	type key struct{ tenant, incident string }
	type member struct{ correlation, request, tenant string }
	wanted := make(map[key]bool)
	own := make(map[member]bool)
	var correlations, requests []string
	for i := range records {
		d := &records[i]
		own[member{d.CorrelationID, d.RequestID, d.TenantID}] = true
		correlations = append(correlations, d.CorrelationID)
		requests = append(requests, d.RequestID)
		for _, id := range d.Incidents {
			wanted[key{d.TenantID, id}] = true
		}
	}
	slices.Sort(correlations)
	correlations = slices.Compact(correlations)
	err := s.query(ctx, what, `
		SELECT correlation_id, request_id, tenant_id, incident_id FROM incident_members
		WHERE correlation_id IN {correlations:Array(String)} AND request_id IN {requests:Array(String)}
		ORDER BY event_time DESC, incident_id LIMIT 1 BY tenant_id, incident_id LIMIT 1000`,
		[]parameter{named("correlations", correlations), named("requests", requests)},
		func(rows driver.Rows) error {
			var m member
			var incident string
			if err := rows.Scan(&m.correlation, &m.request, &m.tenant, &incident); err != nil {
				return err
			}
			if own[m] {
				wanted[key{m.tenant, incident}] = true
			}
			return nil
		})
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	var tenants, ids []string
	for k := range wanted {
		tenants = append(tenants, k.tenant)
		ids = append(ids, k.incident)
	}
	slices.Sort(tenants)
	slices.Sort(ids)
	all, err := s.incidents(ctx, what, `
		WHERE tenant_id IN {tenants:Array(String)} AND incident_id IN {ids:Array(String)}
		ORDER BY last_seen DESC, incident_id LIMIT 1000`,
		named("tenants", slices.Compact(tenants)), named("ids", slices.Compact(ids)))
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(i detectors.Incident) bool { return !wanted[key{i.TenantID, i.IncidentID}] })
	if all, err = s.stories(ctx, all); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b detectors.Incident) int {
		return cmp.Compare(slices.Index(severities, b.Severity), slices.Index(severities, a.Severity))
	})
	return all[:min(len(all), maxRecordIncidents)], nil
}

// IncidentPage is a page of incidents, newest first.
type IncidentPage struct {
	Incidents []detectors.Incident
	// NextCursor continues with the next page; empty on the last.
	NextCursor string
}

// Incidents returns incidents by the time of their last record, newest first. A filter that cannot be is a *QueryError.
func (s *Store) Incidents(ctx context.Context, f IncidentFilter) (*IncidentPage, error) {
	limit, err := pageLimit(f.Limit, maxIncidentLimit)
	if err != nil {
		return nil, err
	}
	atLeast := severities
	if f.Severity != "" {
		i := slices.Index(severities, f.Severity)
		if i < 0 {
			return nil, &QueryError{Field: "severity", Reason: fmt.Sprintf("expected info, low, medium, high or critical, not %q", f.Severity)}
		}
		atLeast = severities[i:]
	}
	if f.Kind != "" && s.catalogue.Incident(f.Kind) == nil {
		return nil, &QueryError{Field: "kind", Reason: fmt.Sprintf("%q is no kind of incident", f.Kind)}
	}
	digest := filterDigest("incidents", f.Kind, f.Severity, f.User, timeKey(f.Around))
	after, err := parseCursor(f.Cursor, digest)
	if err != nil {
		return nil, err
	}
	clauses := `
		WHERE (NOT {by_severity:Bool} OR severity IN {severities:Array(String)})
		  AND ({kind:String} = '' OR kind = {kind:String})
		  AND ({user:String} = '' OR arrayExists(u -> lowerUTF8(u) = lowerUTF8({user:String}), users))`
	parameters := []parameter{
		named("by_severity", f.Severity != ""), named("severities", atLeast), named("kind", f.Kind), named("user", f.User), named("limit", limit+1),
	}
	if !f.Around.IsZero() {
		clauses += `
		  AND last_seen >= fromUnixTimestamp64Micro({from:Int64}) AND first_seen <= fromUnixTimestamp64Micro({to:Int64})`
		parameters = append(parameters, micros("from", f.Around.Add(-searchWindow)), micros("to", f.Around.Add(searchWindow)))
	}
	if after != nil {
		clauses += `
		  AND (last_seen, incident_id, tenant_id) < (fromUnixTimestamp64Micro({after_time:Int64}), {after_id:String}, {after_tenant:String})`
		parameters = append(parameters, named("after_time", after.Time), named("after_id", after.ID), named("after_tenant", after.Tenant))
	}
	clauses += `
		ORDER BY last_seen DESC, incident_id DESC, tenant_id DESC LIMIT {limit:UInt32}`
	all, err := s.incidents(ctx, "list incidents", clauses, parameters...)
	if err != nil {
		return nil, err
	}
	page := &IncidentPage{}
	if len(all) > limit {
		all = all[:limit]
		last := &all[limit-1]
		page.NextCursor = cursor{Filter: digest, Time: last.LastSeen, ID: last.IncidentID, Tenant: last.TenantID}.String()
	}
	type key struct{ tenant, incident string }
	here := map[key]bool{}
	for i := range all {
		here[key{all[i].TenantID, all[i].IncidentID}] = true
	}
	if page.Incidents, err = s.stories(ctx, all); err != nil {
		return nil, err
	}
	if f.Kind == "" && f.Severity == "" && f.User == "" {
		// A story stands on the page of its leading incident. Where a filter may have left that out, it stands where it is met.
		page.Incidents = slices.DeleteFunc(page.Incidents, func(i detectors.Incident) bool { return !here[key{i.TenantID, i.IncidentID}] })
	}
	return page, nil
}

// IncidentDetail is an incident with the records that prove it.
type IncidentDetail struct {
	Incident detectors.Incident
	// Records are its newest records, newest first; RecordsTotal counts all of them.
	Records      []detectors.Diagnosis
	RecordsTotal uint64
}

// Incident returns the story of one incident by its id, joined with those of other entities that belong to it, with its newest
// records. An unknown id is ErrNotFound.
func (s *Store) Incident(ctx context.Context, id string) (*IncidentDetail, error) {
	const what = "read an incident"
	if id == "" || len(id) > maxIDLength {
		return nil, &QueryError{Field: "id", Reason: "expected the id of an incident"}
	}
	found, err := s.incidents(ctx, what, `
		WHERE incident_id = {id:String}
		ORDER BY last_seen DESC, tenant_id LIMIT 1`, named("id", id))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no incident with the id %q is known: %w", id, ErrNotFound)
	}
	if found, err = s.stories(ctx, found); err != nil {
		return nil, err
	}
	detail := &IncidentDetail{Incident: found[0]}
	parameters := []parameter{named("tenant", found[0].TenantID), named("ids", append([]string{found[0].IncidentID}, found[0].Joined...))}
	err = s.query(ctx, what, `SELECT uniqExact(correlation_id, request_id) FROM incident_members_by_incident
		WHERE tenant_id = {tenant:String} AND incident_id IN {ids:Array(String)}`, parameters,
		func(rows driver.Rows) error { return rows.Scan(&detail.RecordsTotal) })
	if err != nil {
		return nil, err
	}
	var keys []recordKey
	err = s.query(ctx, what, `SELECT correlation_id, request_id, tenant_id, toUnixTimestamp64Micro(max(event_time)) AS event FROM incident_members_by_incident
		WHERE tenant_id = {tenant:String} AND incident_id IN {ids:Array(String)} GROUP BY correlation_id, request_id, tenant_id
		ORDER BY event DESC, request_id DESC, correlation_id DESC LIMIT {limit:UInt32}`,
		append(parameters, named("limit", maxIncidentRecords)),
		func(rows driver.Rows) error {
			var k recordKey
			if err := rows.Scan(&k.correlation, &k.request, &k.tenant, &k.event); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		})
	if err != nil {
		return nil, err
	}
	detail.Records, err = s.recordsByKey(ctx, what, keys, filter{})
	return detail, err
}
