package sinks_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/sinks"
)

// members writes the records from..to as members of an incident.
func (a *alerts) members(i detectors.Incident, from, to int, shard uint16, offset int64) {
	a.t.Helper()
	var rows detectors.Rows
	for n := from; n < to; n++ {
		rows.Members = append(rows.Members, detectors.IncidentMember{
			IncidentID: i.IncidentID, TenantID: i.TenantID, RequestID: fmt.Sprintf("request-%d", n), CorrelationID: fmt.Sprintf("correlation-%d", n),
			EventTime: i.FirstSeen + int64(n), Revision: detectors.Revision(1, offset),
		})
	}
	a.write(a.sink, &rows, sinks.Position{Shard: shard, Epoch: 1, Offset: offset})
	a.flush(a.sink)
}

// A spray and what it did to one of its users is one story: one message, told again when another shard finds it worse.
func TestOutboxTellsStories(t *testing.T) {
	a, h := newAlerts(t), newHook(t)
	o := a.outbox(h.config)
	user := a.incident("user", "medium", 5*time.Minute)
	user.Kind, user.EntityKind, user.EntityValue, user.RequestIDsTotal = "repeated_failures", "user", "ada@contoso.example", 6
	user.Users, user.RequestIDs = []string{"ada@contoso.example"}, []string{"request-3"}
	a.put(user, 1, 1, 7)
	a.members(user, 0, 6, 1, 8)
	a.pass(o)
	expect(t, "the user's incident alone", h.taken(), "user 7")
	spray := a.incident("spray", "high", 5*time.Minute)
	a.put(spray, 2, 1, 3)
	a.members(spray, 2, 14, 2, 4)
	a.pass(o)
	expect(t, "with the spray", h.taken(), "spray 3")
	// Another one that shares only a little is a story of its own.
	other := a.incident("other", "medium", 5*time.Minute)
	other.RequestIDsTotal = 9
	a.put(other, 3, 1, 2)
	a.members(other, 12, 21, 3, 3)
	a.pass(o)
	expect(t, "another story", h.taken(), "other 2")
	// What the spray did to its user gets worse: the story is told again, and only the story.
	user.Kind, user.Severity, user.Outcome = "account_takeover", "critical", detectors.IncidentSignedIn
	a.put(user, 1, 1, 9)
	a.pass(o)
	expect(t, "the user is taken over", h.taken(), "spray 3")
	var last sinks.IncidentMessage
	h.last(t, &last)
	if last.Severity != "critical" || last.Outcome != detectors.IncidentSignedIn || last.Kind != "password_spray" ||
		fmt.Sprint(last.Also) != "[account_lockout account_takeover]" || fmt.Sprint(last.Joined) != "[user]" {
		t.Errorf("told %+v", last)
	}
	a.pass(o)
	expect(t, "afterwards", h.taken(), "")
}
