package detectors

import (
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/signindiag/signindiag/schemas"
)

// Names of incidents and of what they say.
const (
	IncidentRepeatedFailures = "repeated_failures"

	EntityUser = "user"

	IncidentBlocked  = "blocked"
	IncidentLocked   = "locked"
	IncidentSignedIn = "signed_in"
)

// maxIncidentValues bounds each list of an incident; the counts go on.
const maxIncidentValues = 50

// repeated_failures: one user failed as often as the threshold within 48 hours. The story lives while
// neighbouring failures are less than 48 hours apart, and grows by revisions. Its id is made from its first failure when it
// is told first, and stays when an earlier failure arrives late.
//
// Outcome: signed_in when an attended sign-in succeeded after as many of the failures as the threshold; else locked
// when one of the failures is a lockout; else blocked.
//
// Severity: high from five times the threshold on, or where the failures came from two or more addresses and the outcome is
// signed_in; low where all come from one application, client, device and address at a regular spacing, as from a
// stored password; medium otherwise.

// incidentState is what is kept of an incident of a user beside the user's failures: its id, and a sum of
// those of its failures that are no longer kept one by one.
type incidentState struct {
	number      uint32
	id          [16]byte
	first, last int64  // event times of its failures
	emitted     uint64 // hash of what a success may change in the last row
	signedIn    bool   // the last row's outcome was signed_in

	count    int64 // failures that are no longer kept
	lockouts int64
	// Texts of failures that are no longer kept, each once, in order of appearance: applications, addresses, client
	// apps, operating systems, devices.
	values   [5][]uint32
	requests []string // request ids, at most MaxIncidentRequestIDs
}

func (i *incidentState) size() int64 {
	n := int64(incidentSize)
	for _, v := range i.values {
		n += int64(len(v)) * 4
	}
	return n + int64(len(i.requests))*textSize
}

func (i *incidentState) release(t *interner) {
	for _, v := range i.values {
		for _, n := range v {
			t.release(n)
		}
	}
}

// indifferentTo reports whether a success after the last failure leaves the incident as it was told.
func (i *incidentState) indifferentTo(entry *recentEntry) bool {
	return entry.kind == kindSuccess && entry.eventTime > i.last && (i.signedIn || entry.flags&entrySilent != 0)
}

func (i *incidentState) idString() string { return hex.EncodeToString(i.id[:]) }

func (f *failure) values() [5]uint32 {
	return [5]uint32{f.app, f.address, f.clientApp, f.operatingSystem, f.device}
}

// of reports whether the failure belongs to an incident.
func (f *failure) of(incident uint32) bool {
	return f.flags&failureMember != 0 && f.incident == incident
}

// absorb sums up a failure that is no longer kept one by one.
func (i *incidentState) absorb(s *users, f *failure) {
	i.count++
	if f.flags&failureLockout != 0 {
		i.lockouts++
	}
	for k, t := range f.values() {
		if t != 0 && len(i.values[k]) < maxIncidentValues && !slices.Contains(i.values[k], t) {
			i.values[k] = append(i.values[k], s.texts.again(t))
		}
	}
	if len(i.requests) < MaxIncidentRequestIDs {
		i.requests = append(i.requests, s.requestID(f))
	}
}

// dropped is called for a failure of u that is no longer kept.
func (s *users) dropped(u *userState, f *failure) {
	if f.flags&failureMember == 0 {
		return
	}
	if i := u.incident(f.incident); i != nil {
		i.absorb(s, f)
	}
}

func (u *userState) incident(number uint32) *incidentState {
	for i := range u.incidents {
		if u.incidents[i].number == number {
			return &u.incidents[i]
		}
	}
	return nil
}

// incidentAt returns the incident whose story a record at t would belong to, the oldest where there are several.
func (u *userState) incidentAt(t, window int64) *incidentState {
	for i := range u.incidents {
		if inc := &u.incidents[i]; t > inc.first-window && t < inc.last+window {
			return inc
		}
	}
	return nil
}

// incidentOf returns the incident that a kept failure of the request id belongs to, nil when there is none.
func (s *users) incidentOf(u *userState, requestID string, hash uint64) *incidentState {
	if len(u.incidents) == 0 {
		return nil
	}
	if i := s.findFailure(u, requestID, hash); i >= 0 && u.failures[i].flags&failureMember != 0 {
		return u.incident(u.failures[i].incident)
	}
	return nil
}

// grow tells the incident of the failure at position at, when there is one or the threshold is reached by
// it, and appends the members that it gained. It returns the number of the incident, 0 when there is none.
func (e *Engine) grow(u *userState, at int, out *Rows, revision uint64) uint32 {
	threshold := e.settings.Of(e.users.texts.text(u.tenant)).Thresholds.RepeatedFailures
	window := threshold.Window.Microseconds()
	t := u.failures[at].time
	inc := u.incidentAt(t, window)
	if inc == nil {
		reached := false
		// Every window that ends with this failure or with a later one, and holds this one.
		for j := at; j < len(u.failures) && u.failures[j].time < t+window && !reached; j++ {
			_, _, count, _ := u.window(u.failures[j].time, window)
			reached = count >= int64(threshold.Count)
		}
		if !reached {
			return 0
		}
	}
	// The story around the failure: neighbours less than a window apart.
	from, to := at, at+1
	for from > 0 && u.failures[from].time-u.failures[from-1].time < window {
		from--
	}
	for to < len(u.failures) && u.failures[to].time-u.failures[to-1].time < window {
		to++
	}
	if inc == nil {
		inc = e.newIncident(u, &u.failures[from])
	}
	for j := from; j < to; j++ {
		f := &u.failures[j]
		if f.flags&failureMember != 0 {
			continue
		}
		f.flags |= failureMember
		f.incident = inc.number
		inc.first, inc.last = min(inc.first, f.time), max(inc.last, f.time)
		out.Members = append(out.Members, IncidentMember{
			IncidentID: inc.idString(), TenantID: e.users.texts.text(u.tenant), RequestID: e.users.requestID(f),
			CorrelationID: e.users.correlationID(f), EventTime: f.time, Revision: revision,
		})
		e.stats.Members++
	}
	return inc.number
}

// newIncident opens an incident that is named by its first failure.
func (e *Engine) newIncident(u *userState, first *failure) *incidentState {
	if len(u.incidents) == maxUserIncidents {
		u.incidents[0].release(&e.users.texts)
		u.incidents = slices.Delete(u.incidents, 0, 1)
	}
	inc := incidentState{number: u.nextInc, first: first.time, last: first.time}
	u.nextInc++
	inc.id = incidentID(IncidentRepeatedFailures, u.key, e.users.requestID(first))
	u.incidents = append(u.incidents, inc)
	e.stats.Incidents++
	return &u.incidents[len(u.incidents)-1]
}

// incidentID is a hash of the kind, the entity (whose key holds role and tenant) and the first record's request id.
func incidentID(kind string, entity uint64, requestID string) (id [16]byte) {
	b := make([]byte, 0, 128)
	b = append(b, kind...)
	b = append(b, 0, byte(entity>>56), byte(entity>>48), byte(entity>>40), byte(entity>>32),
		byte(entity>>24), byte(entity>>16), byte(entity>>8), byte(entity))
	b = append(b, requestID...)
	for half := range 2 {
		h := xxhash.Sum64(append(b, byte(half)))
		for k := range 8 {
			id[half*8+k] = byte(h >> (56 - 8*k))
		}
	}
	return id
}

// tell appends a revision of the incident: always when its failures changed, after a success only when that says
// something new.
func (e *Engine) tell(u *userState, number uint32, failed bool, out *Rows, revision uint64) {
	inc := u.incident(number)
	if inc == nil {
		return
	}
	row := nextIncident(out)
	e.fillIncident(u, inc, row)
	h := row.hash()
	if !failed && h == inc.emitted {
		out.Incidents = out.Incidents[:len(out.Incidents)-1]
		return
	}
	inc.emitted, inc.signedIn = h, row.Outcome == IncidentSignedIn
	row.Revision = revision
}

// nextIncident appends an empty incident that reuses the memory of an earlier one at its place.
func nextIncident(out *Rows) *Incident {
	if n := len(out.Incidents); n < cap(out.Incidents) {
		out.Incidents = out.Incidents[:n+1]
	} else {
		out.Incidents = append(out.Incidents, Incident{})
	}
	i := &out.Incidents[len(out.Incidents)-1]
	*i = Incident{
		Users: i.Users[:0], Addresses: i.Addresses[:0], Applications: i.Applications[:0], Devices: i.Devices[:0],
		OperatingSystems: i.OperatingSystems[:0], ClientApps: i.ClientApps[:0], Counts: i.Counts[:0], RequestIDs: i.RequestIDs[:0],
	}
	return i
}

func (e *Engine) fillIncident(u *userState, inc *incidentState, row *Incident) {
	s := &e.users
	threshold := e.settings.Of(e.users.texts.text(u.tenant)).Thresholds.RepeatedFailures
	row.IncidentID, row.Kind = inc.idString(), IncidentRepeatedFailures
	row.TenantID = s.texts.text(u.tenant)
	row.EntityKind, row.EntityValue = EntityUser, s.texts.text(u.name)
	if row.EntityValue != "" {
		row.Users = append(row.Users, row.EntityValue)
	}
	total, lockouts := inc.count, inc.lockouts
	row.RequestIDs = append(row.RequestIDs, inc.requests...)

	var values [5][]uint32
	var room [5][maxIncidentValues]uint32
	var last [5]uint32
	for k := range values {
		values[k] = append(room[k][:0], inc.values[k]...)
	}
	kept := int64(0)
	for j := range u.failures {
		f := &u.failures[j]
		if !f.of(inc.number) {
			continue
		}
		kept++
		if f.flags&failureLockout != 0 {
			lockouts++
		}
		if len(row.RequestIDs) < MaxIncidentRequestIDs {
			row.RequestIDs = append(row.RequestIDs, s.requestID(f))
		}
		for k, t := range f.values() {
			if t == 0 || t == last[k] {
				continue
			}
			last[k] = t
			if len(values[k]) < maxIncidentValues && !slices.Contains(values[k], t) {
				values[k] = append(values[k], t)
			}
		}
	}
	total += kept
	row.RequestIDsTotal = total
	row.FirstSeen, row.LastSeen = inc.first, inc.last
	for k, list := range [...]*[]string{&row.Applications, &row.Addresses, &row.ClientApps, &row.OperatingSystems, &row.Devices} {
		for _, t := range values[k] {
			*list = append(*list, s.texts.text(t))
		}
	}

	row.Outcome = IncidentBlocked
	if lockouts > 0 {
		row.Outcome = IncidentLocked
	}
	for _, x := range u.successes {
		if x.silent || x.time < inc.first || x.time >= inc.last+threshold.Window.Microseconds() {
			continue
		}
		before := inc.count
		for j := range u.failures {
			if f := &u.failures[j]; f.time <= x.time && f.of(inc.number) {
				before++
			}
		}
		if before >= int64(threshold.Count) {
			row.Outcome = IncidentSignedIn
			break
		}
	}
	regular := int64(0)
	if len(row.Applications) <= 1 && len(row.ClientApps) <= 1 && len(row.Devices) <= 1 && len(row.Addresses) <= 1 {
		members := make([]failure, 0, MaxKeptFailures)
		for j := range u.failures {
			if f := &u.failures[j]; f.of(inc.number) {
				members = append(members, *f)
			}
		}
		regular = regularSeconds(members)
	}
	rank := severityRank(e.catalogue.Incident(row.Kind).Severity)
	switch {
	case row.Outcome == IncidentSignedIn && len(row.Addresses) >= 2:
		rank++
	case regular > 0:
		rank--
	case total >= 5*int64(threshold.Count):
		rank++
	}
	row.Severity = severityOrder[min(max(rank, 0), len(severityOrder)-1)]
	row.Counts = append(row.Counts,
		Count{"failures", total},
		Count{"successes", u.successesBetween(inc.first, inc.last)},
		Count{"lockouts", lockouts},
		Count{"applications", int64(len(row.Applications))},
		Count{"addresses", int64(len(row.Addresses))},
		Count{"client_apps", int64(len(row.ClientApps))},
		Count{"operating_systems", int64(len(row.OperatingSystems))},
		Count{"devices", int64(len(row.Devices))},
		Count{"regular_seconds", regular},
	)
}

// hash is a hash over what a success may change: outcome, severity and counts.
func (i *Incident) hash() uint64 {
	var room [256]byte
	b := append(room[:0], i.Outcome...)
	b = append(append(b, 0), i.Severity...)
	for _, c := range i.Counts {
		b = binary.LittleEndian.AppendUint64(b, uint64(c.Value))
	}
	return xxhash.Sum64(b)
}

// isSilent reports whether a sign-in went without a person: it renewed a session.
func isSilent(rec *schemas.SignIn) bool {
	return rec.Category == schemas.Category_CATEGORY_NON_INTERACTIVE_USER || rec.IsInteractive == schemas.Tri_TRI_FALSE
}
