package detectors

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"github.com/signindiag/signindiag/schemas"
)

// An incident is a story of one entity: events of one family with less than the family's quiet time between neighbours.
// It is told first when one of the family's detections finds something in it, and grows by revisions. What it says
// is a function of the kept events, whatever their order of arrival; its id is made from its first event when it is told
// first, and stays when an earlier event arrives late.

// Kinds of entities, as incidents name them.
const (
	EntityUser             = "user"
	EntityServicePrincipal = "service_principal"
	EntityAddress          = "address"
	EntityNetwork          = "network"
	EntityAgent            = "user_agent"
	EntityApplication      = "application"
	EntityPolicy           = "policy"
	EntityTenant           = "tenant"
)

var entityKinds = map[schemas.Role]string{
	schemas.Role_ROLE_USER: EntityUser, schemas.Role_ROLE_SERVICE_PRINCIPAL: EntityServicePrincipal,
	schemas.Role_ROLE_ADDRESS: EntityAddress, schemas.Role_ROLE_NETWORK: EntityNetwork,
	schemas.Role_ROLE_AGENT_APPLICATION: EntityAgent, schemas.Role_ROLE_APPLICATION: EntityApplication,
	schemas.Role_ROLE_POLICY: EntityPolicy, schemas.Role_ROLE_TENANT: EntityTenant,
}

// Outcomes of incidents, the least first.
const (
	IncidentBlocked       = "blocked"
	IncidentLocked        = "locked"
	IncidentPasswordKnown = "password_known"
	IncidentSignedIn      = "signed_in"
	IncidentFailing       = "failing" // of the kinds that are no attack
)

var incidentOutcomes = [...]string{IncidentBlocked, IncidentLocked, IncidentPasswordKnown, IncidentSignedIn, IncidentFailing}

const (
	outcomeBlocked uint8 = iota
	outcomeLocked
	outcomePasswordKnown
	outcomeSignedIn
	outcomeFailing
)

// Severities as numbers, positions in severityOrder.
const (
	severityInfo uint8 = iota
	severityLow
	severityMedium
	severityHigh
	severityCritical
)

// maxIncidentValues bounds each list of an incident; the counts go on.
const maxIncidentValues = 50

// family is a kind of story: which events of which entity belong together, and what may be found in them.
type family struct {
	// name is part of the incidents' ids.
	name  string
	roles schemas.RoleSet
	// belongs holds the events that are in the story: those of any of these classes, and of all of needs.
	belongs, needs class
	// quiet is the longest time between neighbours, in microseconds.
	quiet func(*Thresholds) int64
	// byCode tells one story for each error code.
	byCode bool
	// lane keeps apart the families of an entity that may share an event, see event.incidents.
	lane uint8
	// detections are asked in this order. The first that finds something names the incident; the others stand in also.
	detections []*detection
}

// detection is one windowed detection.
type detection struct {
	// kind is the incident kind that it finds.
	kind string
	// find looks at the story and reports what it found. It keeps nothing of the story.
	find func(*story) finding
	// number is its position in detections, set at start.
	number int
}

// finding is what a detection has to say of a story.
type finding struct {
	found bool
	// severity is that of the kind alone, by what it found.
	severity uint8
	// outcome is the least outcome that follows from it.
	outcome uint8
	// suppressed: the numbers were reached, and something that speaks against an attack held it back.
	suppressed bool
}

// story is what detections look at: the events of one incident, or of what may become one.
type story struct {
	e      *Engine
	n      *entity
	tenant *TenantSettings
	th     *Thresholds
	events []*event // in order, at least one
	code   int32    // of families by code
	found  kindSet  // what detections before found
	// decisive holds positions of n.passes that detections found to belong to the story.
	decisive []int
	// stored is an event of the program that keeps an old password, where there is one: see findStored.
	stored      *event
	storedKnown bool
	// lockouts says that users who were locked are part of the story, whoever they are.
	lockouts bool
	// aside marks those of events that belong to another story: see setAside.
	aside []bool
	// unresolved is what a look at a group found: see resolve.
	group groupView
}

func (s *story) first() int64 { return s.events[0].time }
func (s *story) last() int64  { return s.events[len(s.events)-1].time }

// decide notes a pass that belongs to the story.
func (s *story) decide(i int) {
	if !slices.Contains(s.decisive, i) {
		s.decisive = append(s.decisive, i)
	}
}

// kindSet is a set of detections, by number.
type kindSet uint32

func (k kindSet) has(d *detection) bool { return k&(1<<d.number) != 0 }

// incidentState is what is kept of an incident beside the entity's events: its id, its last row, and a sum of
// those of its events that are no longer kept one by one.
type incidentState struct {
	number      uint32
	family      uint8
	code        int32
	id          [16]byte
	first, last int64  // event times of its events
	emitted     uint64 // hash of the last row
	// Of the last row: they hold where what is kept tells less.
	kind              uint8
	severity, outcome uint8
	kinds             kindSet

	// Of events that are no longer kept.
	left     sums
	leftSet  kindSet // found while they were kept
	actors   *sketch // of a group
	values   [6][]uint32
	requests []string // request ids, at most MaxIncidentRequestIDs
}

// sums are the numbers of events by class.
type sums struct{ events, failures, successes, wrong, unknown, lockouts, prompts int64 }

func (s *sums) add(v *event) {
	s.events++
	switch {
	case v.class.has(classSuccess):
		s.successes++
	case v.class.any(classCounts | classesOfSpray | classesOfTenant | classWrongSecret | classExpired | classApplication | classPolicy):
		s.failures++ // the rest are steps, such as the confirmation of a device code
	}
	if v.class.has(classWrong) {
		s.wrong++
	}
	if v.class.has(classUnknownName) {
		s.unknown++
	}
	if v.class.has(classLocked) {
		s.lockouts++
	}
	if v.class.any(classDenied | classNoAnswer | classWrongCode) {
		s.prompts++
	}
}

// size is what the incident takes beside its struct.
func (i *incidentState) size() int64 {
	n := int64(0)
	for _, v := range i.values {
		n += int64(len(v)) * 4
	}
	if i.actors != nil {
		n += sketchSize
	}
	for _, id := range i.requests {
		n += int64(len(id)) + requestSize
	}
	return n
}

// requestSize is what a kept request id takes beside its bytes: the string, and what allocation rounds up.
const requestSize = int64(unsafe.Sizeof("")) + 12

func (i *incidentState) release(t *interner) {
	for _, v := range i.values {
		for _, n := range v {
			t.release(n)
		}
	}
}

// takenOver returns the severity of the incident of n in which a successful record is how someone got in, "" where there is none.
func (s *entities) takenOver(n *entity, requestID string, entry *recentEntry) string {
	if entry.kind != kindSuccess || len(n.incidents) == 0 {
		return ""
	}
	var inc *incidentState
	if i := s.findPass(n, requestID, entry.request); i >= 0 {
		inc = n.incident(n.passes[i].incident)
	}
	if i := s.findEvent(n, requestID, entry.request); i >= 0 && inc == nil && n.events[i].class.has(classDeviceCode) {
		for k := range families {
			if families[k].needs == classDeviceCode {
				inc = n.incident(n.events[i].incidents[families[k].lane])
			}
		}
	}
	if inc == nil || inc.outcome != outcomeSignedIn {
		return ""
	}
	return severityOrder[inc.severity]
}

// incidentID returns the id of an incident in s.rowText.
func (s *entities) incidentID(i *incidentState) string {
	start := len(s.rowText)
	s.rowText = hex.AppendEncode(s.rowText, i.id[:])
	return aliasString(s.rowText[start:])
}

// values lists what of an event stands in the lists of an incident, in the order of incidentState.values.
func (v *event) values() [6]uint32 {
	return [6]uint32{v.user, v.app, v.address, v.clientApp, v.operatingSystem, v.device}
}

// of reports whether the event belongs to an incident.
func (v *event) of(i *incidentState) bool { return v.incidents[families[i.family].lane] == i.number }

// dropped sums up an event that is no longer kept one by one.
func (s *entities) dropped(n *entity, v *event) {
	for _, number := range v.incidents {
		if i := n.incident(number); i != nil {
			s.leave(n, i, v)
		}
	}
}

func (s *entities) leave(n *entity, i *incidentState, v *event) {
	i.left.add(v)
	i.leftSet |= i.kinds
	if n.group() {
		if i.actors == nil {
			i.actors = new(sketch)
		}
		i.actors.add(v.actor)
	}
	for k, t := range v.values() {
		if t != 0 && len(i.values[k]) < maxIncidentValues && !slices.Contains(i.values[k], t) {
			i.values[k] = append(i.values[k], s.texts.again(t))
		}
	}
	if len(i.requests) < MaxIncidentRequestIDs {
		i.requests = append(i.requests, strings.Clone(s.requestID(v)))
	}
}

// incident returns the incident of a number, nil for 0 and for one that is forgotten.
func (n *entity) incident(number uint32) *incidentState {
	for i := range n.incidents {
		if n.incidents[i].number == number {
			return &n.incidents[i]
		}
	}
	return nil
}

// incidentAt returns the incident whose story an event at t would belong to, the oldest where there are several.
func (n *entity) incidentAt(family uint8, code int32, t, quiet int64) *incidentState {
	for i := range n.incidents {
		if inc := &n.incidents[i]; inc.family == family && inc.code == code && t > inc.first-quiet && t < inc.last+quiet {
			return inc
		}
	}
	return nil
}

// incidentsOf appends the ids of the incidents that a record belongs to, by its kept event or pass.
func (s *entities) incidentsOf(dst []string, n *entity, requestID string, hash uint64) []string {
	if len(n.incidents) == 0 {
		return dst
	}
	if i := s.findEvent(n, requestID, hash); i >= 0 {
		for _, number := range n.events[i].incidents {
			if inc := n.incident(number); inc != nil {
				dst = append(dst, s.incidentID(inc))
			}
		}
	}
	if i := s.findPass(n, requestID, hash); i >= 0 {
		if inc := n.incident(n.passes[i].incident); inc != nil {
			if id := s.incidentID(inc); !slices.Contains(dst, id) {
				dst = append(dst, id)
			}
		}
	}
	return dst
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

// outcomeWith returns the outcome of an incident led by a detection with the outcome lead, once another with the outcome
// other is found in the same story: what an attack reached counts over everything, and that a device or application is
// failing is told only where it leads and nothing was reached.
func outcomeWith(lead, other uint8) uint8 {
	switch {
	case other == outcomeFailing || other == outcomeBlocked:
		return lead
	case lead == outcomeFailing:
		return other
	default:
		return max(lead, other)
	}
}

// judge looks at the story of one family around the time t of an entity, and tells its incident where there is one and its
// row changed. It is called after every change of the entity's events and passes.
func (e *Engine) judge(n *entity, number uint8, t int64, code int32, revision uint64, out *Rows) {
	f := &families[number]
	if !f.byCode {
		code = 0
	}
	tenant := e.settings.Of(e.entities.texts.text(n.tenant))
	quiet := f.quiet(&tenant.Thresholds)
	inc := n.incidentAt(number, code, t, quiet)
	s := &e.story
	*s = story{e: e, n: n, tenant: tenant, th: &tenant.Thresholds, code: code, events: s.events[:0], decisive: s.decisive[:0]}
	e.collect(s, f, inc, t, quiet)
	if len(s.events) == 0 && inc == nil {
		return
	}
	kinds, severity, outcome := kindSet(0), severityInfo, outcomeBlocked
	kind := -1
	if len(s.events) > 0 {
		for _, d := range f.detections {
			e.stats.Detections[d.number].Evaluated++
			found := d.find(s)
			if found.suppressed {
				e.stats.Detections[d.number].Suppressed++
			}
			if !found.found {
				continue
			}
			if kind < 0 {
				kind, outcome = d.number, found.outcome
			}
			kinds |= 1 << d.number
			s.found = kinds
			severity, outcome = max(severity, found.severity), outcomeWith(outcome, found.outcome)
		}
	}
	if kind < 0 && inc == nil {
		return
	}
	if inc == nil {
		inc = e.openIncident(n, number, code, s.events[0])
	}
	for k := range detections { // kinds that were told first
		if kinds&(1<<k) != 0 && inc.kinds&(1<<k) == 0 {
			e.stats.Detections[k].Fired++
		}
	}
	e.addMembers(s, inc, revision, out)
	// What left was judged with events that are no longer there.
	if inc.leftSet != 0 || kind < 0 {
		kinds |= inc.leftSet
		found := kind
		if found < 0 {
			kinds |= inc.kinds
		}
		for _, d := range f.detections {
			if kinds.has(d) {
				kind = d.number
				break
			}
		}
		if inc.leftSet != 0 {
			severity = max(severity, inc.severity)
			if kind == found {
				outcome = outcomeWith(outcome, inc.outcome)
			} else {
				outcome = outcomeWith(inc.outcome, outcome)
			}
		}
	}
	inc.kind, inc.kinds, inc.severity, inc.outcome = uint8(kind), kinds, severity, outcome

	row := nextIncident(out)
	e.fillIncident(s, f, inc, row)
	var h uint64
	if h, e.rowBytes = row.hash(e.rowBytes[:0]); h != inc.emitted {
		inc.emitted = h
		row.Revision = revision
		return
	}
	out.Incidents = out.Incidents[:len(out.Incidents)-1]
}

// collect fills s.events with the story around t: events of the family with less than the quiet time between neighbours,
// those of the incident included.
func (e *Engine) collect(s *story, f *family, inc *incidentState, t, quiet int64) {
	low, high := t, t
	if inc != nil {
		low, high = min(low, inc.first), max(high, inc.last)
	}
	belongs := func(v *event) bool {
		return v.class.any(f.belongs) && v.class.has(f.needs) && (!f.byCode || v.code == s.code)
	}
	n := s.n
	from := n.after(t)
	for i := from - 1; i >= 0; i-- {
		if v := &n.events[i]; belongs(v) {
			if v.time <= low-quiet {
				break
			}
			low, from = min(low, v.time), i
		}
	}
	for i := from; i < len(n.events); i++ {
		if v := &n.events[i]; belongs(v) {
			if v.time >= high+quiet {
				break
			}
			high = max(high, v.time)
			s.events = append(s.events, v)
		}
	}
}

// openIncident opens an incident that is named by its first event.
func (e *Engine) openIncident(n *entity, family uint8, code int32, first *event) *incidentState {
	if len(n.incidents) == maxEntityIncidents {
		n.incidents[0].release(&e.entities.texts)
		n.incidents = slices.Delete(n.incidents, 0, 1)
	}
	inc := incidentState{number: n.nextInc, family: family, code: code, first: first.time, last: first.time}
	n.nextInc++
	inc.id = incidentID(families[family].name, n.key, e.entities.requestID(first))
	n.incidents = insert(n.incidents, len(n.incidents), inc)
	e.stats.Incidents++
	return &n.incidents[len(n.incidents)-1]
}

// addMembers appends the members that the incident gained.
func (e *Engine) addMembers(s *story, inc *incidentState, revision uint64, out *Rows) {
	tenant := e.entities.texts.text(s.n.tenant)
	lane := families[inc.family].lane
	for i, v := range s.events {
		if v.incidents[lane] == 0 && !s.isAside(i) {
			e.addMember(inc, v, tenant, revision, out)
		}
	}
	// An event may have left the story again: a newer version of its record, an earlier try of the same series, or a user who got in.
	first, last := int64(1<<63-1), int64(-1<<63)
	for i, v := range s.events {
		if v.of(inc) && !s.isAside(i) {
			first, last = min(first, v.time), max(last, v.time)
		}
	}
	if first <= last {
		inc.last = last
		if inc.left.events == 0 {
			inc.first = first
		}
	}
	for _, i := range s.decisive {
		p := &s.n.passes[i]
		if p.incident != 0 {
			continue
		}
		p.incident = inc.number
		if s.n.role == schemas.Role_ROLE_USER {
			// The row of that record says so, also where it was told before.
			id := e.entities.passRequestID(p)
			if seq := e.recent.find(s.n.key^p.hash*0x9e3779b97f4a7c15, s.n.key, id); seq != 0 {
				e.retell = append(e.retell, seq)
			}
		}
		out.Members = append(out.Members, IncidentMember{
			IncidentID: e.entities.incidentID(inc), TenantID: tenant, RequestID: e.entities.passRequestID(p),
			CorrelationID: e.entities.passCorrelationID(p), EventTime: p.time, Revision: revision,
		})
		e.stats.Members++
	}
}

func (e *Engine) addMember(inc *incidentState, v *event, tenant string, revision uint64, out *Rows) {
	v.incidents[families[inc.family].lane] = inc.number
	inc.first, inc.last = min(inc.first, v.time), max(inc.last, v.time)
	out.Members = append(out.Members, IncidentMember{
		IncidentID: e.entities.incidentID(inc), TenantID: tenant, RequestID: e.entities.requestID(v),
		CorrelationID: e.entities.correlationID(v), EventTime: v.time, Revision: revision,
	})
	e.stats.Members++
}

// follow makes the new event at a position of a group a member of its story's incident, and reports whether the story need not be
// judged for it: the entity holds as many events as are kept, the incident has lost some already, and the event says what those before it say.
// Such a story is judged once in so many events as are a thirty-second of those that left, at most 32, so that a large attack costs
// little; until then its row is behind by as many.
func (e *Engine) follow(n *entity, number uint8, at int, revision uint64, out *Rows) bool {
	if !n.group() || len(n.events) < n.maxEvents() {
		return false
	}
	v := &n.events[at]
	f := &families[number]
	code := int32(0)
	if f.byCode {
		code = v.code
	}
	tenant := e.entities.texts.text(n.tenant)
	inc := n.incidentAt(number, code, v.time, f.quiet(&e.settings.Of(tenant).Thresholds))
	if inc == nil || inc.left.events%min(inc.left.events/32+1, 32) == 0 ||
		!slices.ContainsFunc(n.events[max(at-8, 0):at], func(x event) bool { return x.class == v.class && x.of(inc) }) {
		return false
	}
	e.addMember(inc, v, tenant, revision, out)
	return true
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
		Also: i.Also[:0], Users: i.Users[:0], Addresses: i.Addresses[:0], Applications: i.Applications[:0], Devices: i.Devices[:0],
		OperatingSystems: i.OperatingSystems[:0], ClientApps: i.ClientApps[:0], Counts: i.Counts[:0], RequestIDs: i.RequestIDs[:0],
	}
	return i
}

// fillIncident writes the row of an incident.
func (e *Engine) fillIncident(s *story, f *family, inc *incidentState, row *Incident) {
	n, texts := s.n, &e.entities.texts
	row.IncidentID, row.Kind = e.entities.incidentID(inc), detections[inc.kind].kind
	for _, d := range f.detections {
		if inc.kinds.has(d) && d.number != int(inc.kind) && !slices.Contains(row.Also, d.kind) && d.kind != row.Kind {
			row.Also = append(row.Also, d.kind)
		}
	}
	row.TenantID = texts.text(n.tenant)
	row.EntityKind, row.EntityValue = entityKinds[n.role], texts.text(n.name)
	row.Outcome = incidentOutcomes[inc.outcome]
	total := inc.left
	row.RequestIDs = append(row.RequestIDs, inc.requests...)

	var values [6][]uint32
	var room [6][maxIncidentValues]uint32
	var last [6]uint32
	for k := range values {
		values[k] = append(room[k][:0], inc.values[k]...)
	}
	if n.role == schemas.Role_ROLE_USER && n.name != 0 {
		values[0] = append(values[0][:0], n.name)
	}
	if n.group() {
		e.counter.reset()
	}
	note := func(v [6]uint32) {
		for k, t := range v {
			if t == 0 || t == last[k] {
				continue
			}
			last[k] = t
			if len(values[k]) < maxIncidentValues && !slices.Contains(values[k], t) {
				values[k] = append(values[k], t)
			}
		}
	}
	e.members = e.members[:0]
	// A story whose members turned out to be the place's own people all the same keeps them as its proof.
	emptied := inc.left.events == 0
	for i, v := range s.events {
		emptied = emptied && (!v.of(inc) || s.isAside(i))
	}
	for i, v := range s.events {
		if !v.of(inc) || s.isAside(i) && !emptied {
			continue
		}
		total.add(v)
		if len(row.RequestIDs) < MaxIncidentRequestIDs {
			row.RequestIDs = append(row.RequestIDs, e.entities.requestID(v))
		}
		if n.group() {
			e.counter.add(v.actor)
		}
		note(v.values())
		e.members = append(e.members, v)
	}
	row.FirstSeen, row.LastSeen = inc.first, inc.last
	successes, stopped, passes := total.successes, int64(0), int64(0)
	for i := range n.passes {
		p := &n.passes[i]
		// What was told to belong to the story, and does not any more, counts only where nobody can tell anew.
		belongs := p.incident == inc.number && (s.found == 0 || inc.leftSet != 0 || slices.Contains(s.decisive, i))
		if belongs {
			passes++
			if p.class.has(classStopped) {
				stopped++
			}
			if len(row.RequestIDs) < MaxIncidentRequestIDs {
				row.RequestIDs = append(row.RequestIDs, e.entities.passRequestID(p))
			}
			note([6]uint32{p.user, 0, p.address})
			if n.group() {
				e.counter.add(p.actor)
			}
			row.FirstSeen, row.LastSeen = min(row.FirstSeen, p.time), max(row.LastSeen, p.time)
		}
		if p.class.has(classSuccess) && (belongs || !n.group() && f.lane == 0 && p.time >= inc.first && p.time <= inc.last) {
			successes++
		}
	}
	row.RequestIDsTotal = total.events + passes
	for k, list := range [...]*[]string{&row.Users, &row.Applications, &row.Addresses, &row.ClientApps, &row.OperatingSystems, &row.Devices} {
		for _, t := range values[k] {
			*list = append(*list, texts.text(t))
		}
	}
	regular := int64(0)
	if len(row.Applications) <= 1 && len(row.ClientApps) <= 1 && len(row.Devices) <= 1 && len(row.Addresses) <= 1 && !n.group() {
		regular = regularSeconds(e.members)
	}
	users := int64(len(row.Users))
	if n.group() {
		users = int64(e.counter.distinct)
		if inc.actors != nil {
			all := *inc.actors
			for _, v := range e.members {
				all.add(v.actor)
			}
			users = max(users, all.estimate())
		}
	}
	severity := inc.severity
	if emptied && n.group() {
		severity = min(severity, severityLow)
	}
	row.Severity = severityOrder[e.weigh(s, severity, row)]
	addresses := int64(len(row.Addresses))
	if len(row.Addresses) == maxIncidentValues {
		e.addresses.reset()
		for _, v := range e.members {
			if v.address != 0 {
				e.addresses.add(uint64(v.address))
			}
		}
		addresses = max(addresses, int64(e.addresses.distinct))
	}
	row.Counts = append(row.Counts,
		Count{"failures", total.failures},
		Count{"users", users},
		Count{"successes", successes},
		Count{"lockouts", total.lockouts},
		Count{"wrong_passwords", total.wrong},
		Count{"unknown_names", total.unknown},
		Count{"mfa_prompts", total.prompts},
		Count{"stopped", stopped},
		Count{"applications", int64(len(row.Applications))},
		Count{"addresses", addresses},
		Count{"client_apps", int64(len(row.ClientApps))},
		Count{"operating_systems", int64(len(row.OperatingSystems))},
		Count{"devices", int64(len(row.Devices))},
		Count{"regular_seconds", regular},
	)
}

// weigh raises a severity where a privileged user is concerned, and lowers it where every address is one of the tenant's
// own. Neither silences.
func (e *Engine) weigh(s *story, severity uint8, row *Incident) uint8 {
	moved := int(severity) + severityRank(e.catalogue.Incident(row.Kind).Severity) - severityRank(usualSeverity[row.Kind])
	severity = uint8(min(max(moved, int(severityInfo)), int(severityCritical)))
	if severity < severityCritical && len(s.tenant.PrivilegedUsers) > 0 &&
		slices.ContainsFunc(e.members, func(v *event) bool { return v.class.has(classPrivileged) }) {
		severity++
	}
	if severity <= severityLow || len(s.tenant.TrustedAddresses) == 0 || len(row.Addresses) == 0 ||
		slices.ContainsFunc(row.Addresses, func(address string) bool { return !s.tenant.Trusted(address) }) {
		return severity
	}
	return severity - 1
}

// hash is a hash over what a row says, its revision aside. It is made in b, which it returns.
func (i *Incident) hash(b []byte) (uint64, []byte) {
	for _, s := range [...]string{i.Kind, i.Severity, i.Outcome, i.EntityValue} {
		b = appendText(b, s)
	}
	for _, list := range [...][]string{i.Also, i.Users, i.Addresses, i.Applications, i.Devices, i.OperatingSystems, i.ClientApps, i.RequestIDs} {
		for _, s := range list {
			b = appendText(b, s)
		}
		b = append(b, 0xff)
	}
	for _, v := range [...]int64{i.FirstSeen, i.LastSeen, i.RequestIDsTotal} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	for _, c := range i.Counts {
		b = binary.LittleEndian.AppendUint64(b, uint64(c.Value))
	}
	return xxhash.Sum64(b), b
}
