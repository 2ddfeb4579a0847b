package lookup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/detectors"
)

// Incidents of several entities that are one story are listed, shown and named as one.
func TestStories(t *testing.T) {
	f := newFixture(t)
	var rows detectors.Rows
	incident := func(id, kind, entityKind, severity, outcome string, minute int, users ...string) {
		at := start.UnixMicro() + int64(minute)*60e6
		rows.Incidents = append(rows.Incidents, detectors.Incident{
			IncidentID: id, Kind: kind, EntityKind: entityKind, EntityValue: id, Severity: severity, Outcome: outcome, TenantID: tenant,
			FirstSeen: start.UnixMicro(), LastSeen: at, Users: users, RequestIDsTotal: 0, Revision: detectors.Revision(1, 1),
		})
	}
	members := func(id string, numbers ...int) {
		for _, n := range numbers {
			d := record(n)
			rows.Members = append(rows.Members, detectors.IncidentMember{IncidentID: id, TenantID: d.TenantID, RequestID: d.RequestID,
				CorrelationID: d.CorrelationID, EventTime: start.UnixMicro() + int64(n), Revision: detectors.Revision(1, 1)})
		}
		rows.Incidents[len(rows.Incidents)-1].RequestIDsTotal = int64(len(numbers))
	}
	for n := range 12 {
		d := record(n)
		d.EventTime, d.Revision = start.UnixMicro()+int64(n), detectors.Revision(1, 1)
		rows.Diagnoses = append(rows.Diagnoses, d)
	}
	incident("spray", "password_spray", "address", "high", "blocked", 9, "ada@contoso.example", "bob@contoso.example")
	members("spray", 1, 2, 3, 4, 5, 6)
	incident("network", "distributed_spray", "network", "medium", "blocked", 8, "bob@contoso.example", "cleo@contoso.example")
	members("network", 4, 5, 6, 7, 8)
	incident("takeover", "account_takeover", "user", "critical", "signed_in", 7, "ada@contoso.example")
	members("takeover", 1, 2, 9)
	incident("apart", "repeated_failures", "user", "medium", "blocked", 6, "dora@contoso.example")
	members("apart", 9, 10, 11) // one of three records is shared: another story
	f.write(t, &rows)

	list := func(filter IncidentFilter) string {
		t.Helper()
		page, err := f.store.Incidents(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, i := range page.Incidents {
			told = append(told, fmt.Sprintf("%s+%s %s %s", i.IncidentID, strings.Join(i.Joined, "+"), i.Severity, i.Outcome))
		}
		return strings.Join(told, ", ")
	}
	const story = "spray+network+takeover critical signed_in"
	for _, c := range []struct {
		filter IncidentFilter
		want   string
	}{
		{IncidentFilter{}, story + ", apart+ medium blocked"},
		{IncidentFilter{Limit: 1}, story},
		{IncidentFilter{Kind: "account_takeover"}, story}, // met by what the story holds
		{IncidentFilter{User: "cleo@contoso.example"}, story},
	} {
		if got := list(c.filter); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.filter, got, c.want)
		}
	}
	for _, id := range []string{"spray", "network", "takeover"} {
		detail, err := f.store.Incident(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		i := &detail.Incident
		if i.IncidentID != "spray" || detail.RecordsTotal != 9 || i.RequestIDsTotal != 9 || len(detail.Records) != 9 ||
			fmt.Sprint(i.Also) != "[distributed_spray account_takeover]" || len(i.Users) != 3 {
			t.Errorf("%s: %d records of %d, %+v", id, len(detail.Records), detail.RecordsTotal, i)
		}
	}
	found, err := f.store.Find(t.Context(), record(9).RequestID)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, i := range found.Incidents {
		ids = append(ids, i.IncidentID)
	}
	if strings.Join(ids, " ") != "spray apart" {
		t.Errorf("incidents of a record are %v", ids)
	}
}
