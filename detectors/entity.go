package detectors

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"github.com/signindiag/signindiag/schemas"
)

// Bounds of what is kept of one entity. Within them windows are exact; beyond them counts become lower bounds or
// estimates, see windowCount.
const (
	// MaxKeptFailures is how many events of one user or service principal are kept one by one, the newest by event
	// time; older ones are counted by the hour.
	MaxKeptFailures = 64
	// MaxKeptGroupEvents is the same for addresses, networks, agents, applications, policies and tenants. No threshold of
	// users lies above it, so an attack of any size is seen.
	MaxKeptGroupEvents = 256
	// maxKeptPasses is how many right passwords of a user are kept beside the events, and maxKeptGroupPasses those of a
	// group: enough to know who of the kept events got in.
	maxKeptPasses      = 32
	maxKeptGroupPasses = 256
	// maxEntityIncidents is how many incidents of an entity are remembered, newest last.
	maxEntityIncidents = 6
	// maxViewValues bounds the lists of a FailureView.
	maxViewValues = 10
)

const (
	microsPerSecond = int64(1e6)
	microsPerHour   = 3600 * microsPerSecond
	// eventRetention is how long before an entity's newest event older ones are kept: two windows, so that
	// a record that is up to 48 h late still meets its whole window.
	eventRetention = 2 * 48 * microsPerHour
	// minRegular is the least number of failures that can show a regular spacing.
	minRegular = 4
	// sameTry is how close together equal tries of a client without a person are one try that it repeats.
	sameTry = 60 * microsPerSecond
)

// maxLanes is how many incidents of one entity an event may belong to: a refused sign-in of a legacy client, for example,
// is a failure and legacy authentication.
const maxLanes = 3

// event is one kept record of an entity: something that its windows count. It holds no pointer; texts are
// numbers of the interner.
type event struct {
	time                 int64    // event time, microseconds
	request, correlation [16]byte // GUIDs, or numbers of texts with classRequestText and classCorrelationText
	hash                 uint64   // of the request id
	actor                uint64   // key of the user or service principal
	code                 int32
	class                class
	incidents            [maxLanes]uint32 // numbers of the entity's incidents that it belongs to, by family.lane; 0 is none
	// Texts. user is empty for the events of a user.
	user, app, address, clientApp, operatingSystem, device, agent uint32
}

// texts lists the texts of an event for those that hold, release or write them all.
func (v *event) texts() [7]*uint32 {
	return [7]*uint32{&v.user, &v.app, &v.address, &v.clientApp, &v.operatingSystem, &v.device, &v.agent}
}

// compareEvents orders events by event time, and those of the same microsecond by a hash of the request id, so that
// the order does not depend on who arrived first.
func compareEvents(a, b event) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.hash, b.hash))
}

// pass is a right password: an attended success, or a sign-in that a later check stopped. It stands for the record among
// the events of an incident.
type pass struct {
	time                 int64
	request, correlation [16]byte
	hash, actor          uint64
	class                class
	user, address, agent uint32
	incident             uint32 // number of the entity's incident that it belongs to; 0 is none
}

func comparePasses(a, b pass) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.hash, b.hash))
}

// hourCount counts events that are not kept one by one.
type hourCount struct {
	hour   int64 // event time in hours since the Unix epoch
	n      uint32
	actors *sketch // of a group's actors, nil for one user or service principal
}

// entity is what is kept of a user, address, network ... with events.
type entity struct {
	key      uint64
	role     schemas.Role
	tenant   uint32 // texts
	name     uint32
	detail   uint32 // a second name: of an agent's application
	received int64  // Kafka time of the last raw message that touched the entity, milliseconds
	events   []event
	passes   []pass
	hours    []hourCount

	incidents []incidentState
	nextInc   uint32

	// Links of the list that the entity is in, by slot; -1 ends it.
	newer, older int32
	list         uint8
}

// group reports whether the entity is one that many users share.
func (n *entity) group() bool {
	return n.role != schemas.Role_ROLE_USER && n.role != schemas.Role_ROLE_SERVICE_PRINCIPAL
}

func (n *entity) maxEvents() int {
	if n.group() {
		return MaxKeptGroupEvents
	}
	return MaxKeptFailures
}

func (n *entity) maxPasses() int {
	if n.group() {
		return maxKeptGroupPasses
	}
	return maxKeptPasses
}

// What an entity, an event ... count against the bound on state, in bytes. An entity's size is its struct, its share of the
// index and of the texts' numbers.
const (
	entitySize   = int64(unsafe.Sizeof(entity{})) + 48
	eventSize    = int64(unsafe.Sizeof(event{}))
	passSize     = int64(unsafe.Sizeof(pass{}))
	hourSize     = int64(unsafe.Sizeof(hourCount{}))
	incidentSize = 384
	textSize     = 48
)

func (n *entity) size() int64 {
	size := entitySize + int64(len(n.events))*eventSize + int64(len(n.passes))*passSize
	for i := range n.hours {
		size += hourSize
		if n.hours[i].actors != nil {
			size += sketchSize
		}
	}
	for i := range n.incidents {
		size += n.incidents[i].size()
	}
	return size
}

// Lists of entities, by the order in which the log touched them. Those with one event are in a list of their own and
// go first: a spray over a million invented names does not push out the users whose failures repeat.
const (
	listOnce uint8 = iota
	listRepeated
)

type entityList struct {
	newest, oldest int32
	bytes          int64
}

// entities holds the state of all entities with events, bounded by bytes.
type entities struct {
	limit int64
	index map[uint64]int32
	slots []entity
	free  []int32
	lists [2]entityList
	texts interner

	evicted uint64
	scratch []*event // of one call
}

func (s *entities) init(limit int64) {
	*s = entities{limit: limit, index: make(map[uint64]int32)}
	s.lists = [2]entityList{{newest: -1, oldest: -1}, {newest: -1, oldest: -1}}
	s.texts.init()
}

// get returns the state of an entity, nil when there is none. The pointer is valid until the next call of create.
func (s *entities) get(key uint64) *entity {
	if len(s.index) == 0 {
		return nil
	}
	i, ok := s.index[key]
	if !ok {
		return nil
	}
	return &s.slots[i]
}

// create makes an entity. Whoever changes it calls touch afterwards.
func (s *entities) create(key uint64, role schemas.Role) *entity {
	var i int32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		i = int32(len(s.slots))
		s.slots = append(s.slots, entity{})
	}
	n := &s.slots[i]
	n.key, n.role, n.nextInc = key, role, 1
	s.index[key] = i
	s.push(i, listOnce)
	return n
}

func (s *entities) push(i int32, list uint8) {
	n, l := &s.slots[i], &s.lists[list]
	n.list, n.newer, n.older = list, -1, l.newest
	if l.newest >= 0 {
		s.slots[l.newest].newer = i
	} else {
		l.oldest = i
	}
	l.newest = i
	l.bytes += n.size()
}

func (s *entities) unlink(i int32, size int64) {
	n := &s.slots[i]
	l := &s.lists[n.list]
	if n.newer >= 0 {
		s.slots[n.newer].older = n.older
	} else {
		l.newest = n.older
	}
	if n.older >= 0 {
		s.slots[n.older].newer = n.newer
	} else {
		l.oldest = n.newer
	}
	l.bytes -= size
}

// touch moves an entity to the front of the list that it now belongs to. size is its size when it was linked.
func (s *entities) touch(n *entity, size, received int64) {
	i := s.index[n.key]
	s.unlink(i, size)
	n.received = max(n.received, received)
	list := listOnce
	if len(n.events) > 1 || len(n.hours) > 0 || len(n.incidents) > 0 {
		list = listRepeated
	}
	s.push(i, list)
}

// bytes is what counts against the limit.
func (s *entities) bytes() int64 { return s.lists[0].bytes + s.lists[1].bytes + s.texts.bytes }

// evict lets entities go: those that the bound on bytes asks for, and up to two of each list that nothing touched
// for as long as events are kept. Entities with one event go first, unless they already take less than a quarter.
func (s *entities) evict(received int64) {
	for s.bytes() > s.limit && len(s.index) > 0 {
		list := listOnce
		if l := &s.lists[listOnce]; l.oldest < 0 || l.bytes < s.limit/4 && s.lists[listRepeated].oldest >= 0 {
			list = listRepeated
		}
		s.remove(s.lists[list].oldest)
		s.evicted++
	}
	for list := range s.lists {
		for range 2 {
			i := s.lists[list].oldest
			if i < 0 || s.slots[i].received == 0 || received-s.slots[i].received <= eventRetention/1000 {
				break
			}
			s.remove(i)
			s.evicted++
		}
	}
}

func (s *entities) remove(i int32) {
	n := &s.slots[i]
	s.unlink(i, n.size())
	delete(s.index, n.key)
	for _, t := range [...]uint32{n.tenant, n.name, n.detail} {
		s.texts.release(t)
	}
	for j := range n.events {
		s.releaseEvent(&n.events[j])
	}
	for j := range n.passes {
		s.releasePass(&n.passes[j])
	}
	for j := range n.incidents {
		n.incidents[j].release(&s.texts)
	}
	old := *n
	*n = entity{}
	// Small arrays serve the slot's next entity.
	if cap(old.events) <= 8 {
		n.events = old.events[:0]
	}
	if cap(old.passes) <= 8 {
		n.passes = old.passes[:0]
	}
	s.free = append(s.free, i)
}

// holdID keeps an id as the bytes of a GUID or as a text, and returns the bit that says which.
func (s *entities) holdID(dst *[16]byte, id string, bit class) class {
	if encodeGUID(dst, id) {
		return 0
	}
	putTextNumber(dst, s.texts.holdWhole(id))
	return bit
}

func (s *entities) releaseIDs(request, correlation *[16]byte, c class) {
	if c.has(classRequestText) {
		s.texts.release(textNumber(request))
	}
	if c.has(classCorrelationText) {
		s.texts.release(textNumber(correlation))
	}
}

func (s *entities) idText(id *[16]byte, text bool) string {
	if text {
		return s.texts.text(textNumber(id))
	}
	return guidString(id)
}

func (s *entities) requestID(v *event) string {
	return s.idText(&v.request, v.class.has(classRequestText))
}

func (s *entities) correlationID(v *event) string {
	return s.idText(&v.correlation, v.class.has(classCorrelationText))
}

func (s *entities) passRequestID(p *pass) string {
	return s.idText(&p.request, p.class.has(classRequestText))
}

func (s *entities) passCorrelationID(p *pass) string {
	return s.idText(&p.correlation, p.class.has(classCorrelationText))
}

// releaseEvent lets go of the texts of an event.
func (s *entities) releaseEvent(v *event) {
	for _, t := range v.texts() {
		s.texts.release(*t)
	}
	s.releaseIDs(&v.request, &v.correlation, v.class)
}

func (s *entities) releasePass(p *pass) {
	s.texts.release(p.user)
	s.texts.release(p.address)
	s.texts.release(p.agent)
	s.releaseIDs(&p.request, &p.correlation, p.class)
}

// userName is what an incident calls the person or workload of a record.
func userName(rec *schemas.SignIn) string {
	if !rec.Category.IsUser() {
		return cmp.Or(rec.ServicePrincipalName, rec.ServicePrincipalId, rec.AppDisplayName, rec.AppId)
	}
	return cmp.Or(firstNamed(rec.UserPrincipalName, rec.SignInIdentifier, rec.UserId), rec.UserPrincipalName)
}

// newEvent makes an event of a record; its texts are held until releaseEvent. user is left out for the events of a user.
func (s *entities) newEvent(rec *schemas.SignIn, eventTime int64, hash, actor uint64, c class, user bool) event {
	v := event{time: eventTime, code: rec.ErrorCode, hash: hash, actor: actor, class: c}
	if user {
		v.user = s.texts.hold(userName(rec))
	} else { // the small form of a record, which groups elsewhere get, has no device
		v.operatingSystem = s.texts.hold(rec.OperatingSystem)
		v.device = s.texts.hold(cmp.Or(rec.DeviceDisplayName, rec.DeviceId))
	}
	v.app = s.texts.hold(cmp.Or(rec.AppDisplayName, rec.AppId))
	v.address = s.texts.hold(rec.IpAddress)
	v.clientApp = s.texts.hold(rec.ClientAppUsed)
	v.agent = s.texts.hold(rec.UserAgent)
	v.class |= s.holdID(&v.request, rec.RequestId, classRequestText) | s.holdID(&v.correlation, rec.CorrelationId, classCorrelationText)
	return v
}

func (s *entities) newPass(rec *schemas.SignIn, eventTime int64, hash, actor uint64, c class, user bool) pass {
	p := pass{time: eventTime, hash: hash, actor: actor, class: c}
	if user {
		p.user = s.texts.hold(userName(rec))
	}
	p.address, p.agent = s.texts.hold(rec.IpAddress), s.texts.hold(rec.UserAgent)
	p.class |= s.holdID(&p.request, rec.RequestId, classRequestText) | s.holdID(&p.correlation, rec.CorrelationId, classCorrelationText)
	return p
}

// findEvent returns the position of a request id's event, -1 when it is not kept.
func (s *entities) findEvent(n *entity, requestID string, hash uint64) int {
	for i := range n.events {
		if n.events[i].hash == hash && s.requestID(&n.events[i]) == requestID {
			return i
		}
	}
	return -1
}

func (s *entities) findPass(n *entity, requestID string, hash uint64) int {
	for i := range n.passes {
		if n.passes[i].hash == hash && s.passRequestID(&n.passes[i]) == requestID {
			return i
		}
	}
	return -1
}

// addEvent inserts an event that is not kept yet, and returns its position, or -1 when it is older than all
// that are kept while earlier ones were summed up already: then nobody can tell whether it was counted.
// Events that are no longer kept are summed up in their incident.
func (s *entities) addEvent(n *entity, v event) int {
	i, _ := slices.BinarySearchFunc(n.events, v, compareEvents)
	if i == 0 && (len(n.hours) > 0 && (len(n.events) > 0 || v.time < (n.hours[len(n.hours)-1].hour+1)*microsPerHour) || len(n.events) == n.maxEvents()) {
		n.countHour(&v, 0)
		s.releaseEvent(&v)
		return -1
	}
	if i == len(n.events) {
		// The entity's newest: what lies more than the retention before it goes.
		limit := v.time - eventRetention
		k := 0
		for k < len(n.events) && n.events[k].time < limit {
			s.dropped(n, &n.events[k])
			s.releaseEvent(&n.events[k])
			k++
		}
		n.events = slices.Delete(n.events, 0, k)
		n.hours = slices.DeleteFunc(n.hours, func(h hourCount) bool { return (h.hour+1)*microsPerHour < limit })
		for k = 0; k < len(n.passes) && n.passes[k].time < limit; k++ {
			s.releasePass(&n.passes[k])
		}
		n.passes = slices.Delete(n.passes, 0, k)
		i = len(n.events)
	}
	if len(n.events) == n.maxEvents() {
		old := &n.events[0]
		n.countHour(old, 1)
		s.dropped(n, old)
		s.releaseEvent(old)
		n.events = slices.Delete(n.events, 0, 1)
		i--
	}
	n.events = slices.Insert(n.events, i, v)
	return i
}

// removeEvent takes out the event at i: a newer version of its record is none.
func (s *entities) removeEvent(n *entity, i int) {
	s.releaseEvent(&n.events[i])
	n.events = slices.Delete(n.events, i, i+1)
}

// addPass notes a right password; it returns its position, -1 when it tells nothing new or is older than all that are kept.
// Of a group's user only the first of each kind after the user's first event is kept, and of someone without an event
// the newest with each user agent: a busy office does not push out those that show who mistyped.
func (s *entities) addPass(n *entity, p pass, scratch *counter) int {
	if n.group() {
		first := int64(1<<63 - 1)
		for i := range n.events {
			if n.events[i].actor == p.actor {
				first = n.events[i].time
				break
			}
		}
		const kinds = classSuccess | classStopped
		for i := range n.passes {
			x := &n.passes[i]
			if x.actor != p.actor || x.class&kinds != p.class&kinds || x.incident != 0 {
				continue
			}
			failed := notAfter(first, p.time)
			switch {
			case failed && notAfter(first, x.time) && x.time <= p.time, !failed && x.agent == p.agent && x.time >= p.time && !notAfter(first, x.time):
				s.releasePass(&p)
				return -1
			case failed && notAfter(first, x.time), !failed && x.agent == p.agent && !notAfter(first, x.time):
				s.removePass(n, i)
			default:
				continue
			}
			break
		}
	}
	i, _ := slices.BinarySearchFunc(n.passes, p, comparePasses)
	if len(n.passes) == n.maxPasses() {
		oldest := 0
		if n.group() {
			scratch.reset()
			for j := range n.events {
				scratch.add(n.events[j].actor)
			}
			if k := slices.IndexFunc(n.passes, func(x pass) bool { return scratch.count(x.actor) == 0 }); k >= 0 {
				oldest = k
			}
		}
		if i <= oldest && (oldest == 0 || scratch.count(p.actor) == 0) {
			s.releasePass(&p)
			return -1
		}
		s.releasePass(&n.passes[oldest])
		n.passes = slices.Delete(n.passes, oldest, oldest+1)
		if i > oldest {
			i--
		}
	}
	n.passes = slices.Insert(n.passes, i, p)
	return i
}

func (s *entities) removePass(n *entity, i int) {
	s.releasePass(&n.passes[i])
	n.passes = slices.Delete(n.passes, i, i+1)
}

// countHour counts an event that is not kept, or with a count of 0 only notes that its hour is not known whole.
func (n *entity) countHour(v *event, count uint32) {
	if !n.group() && !v.class.has(classCounts) {
		return // the windows of a user count failures alone
	}
	hour := floorDiv(v.time, microsPerHour)
	i, ok := slices.BinarySearchFunc(n.hours, hour, func(h hourCount, hour int64) int { return cmp.Compare(h.hour, hour) })
	if !ok {
		n.hours = slices.Insert(n.hours, i, hourCount{hour: hour})
		if len(n.hours) > int(eventRetention/microsPerHour) {
			n.hours = slices.Delete(n.hours, 0, 1)
			if i == 0 {
				return
			}
			i--
		}
	}
	h := &n.hours[i]
	if h.n <= 1<<32-1-count {
		h.n += count
	}
	if count > 0 && n.group() {
		if h.actors == nil {
			h.actors = new(sketch)
		}
		h.actors.add(v.actor)
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// after returns the position of the first event later than t.
func (n *entity) after(t int64) int {
	lo, hi := 0, len(n.events)
	for lo < hi {
		if mid := (lo + hi) / 2; n.events[mid].time > t {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// top describes an entity for Engine.Top.
func (s *entities) top(n *entity) TopEntity {
	return TopEntity{
		Kind: entityKinds[n.role], Value: s.texts.text(n.name), TenantID: s.texts.text(n.tenant), Events: int64(len(n.events)) + n.counted(),
		Incidents: len(n.incidents), Bytes: n.size(), LastReceived: time.UnixMilli(n.received).UTC(),
	}
}

// counted is how many events were only counted by the hour.
func (n *entity) counted() (count int64) {
	for i := range n.hours {
		count += int64(n.hours[i].n)
	}
	return count
}

// TopEntity is one of the entities with the most events, for operators.
type TopEntity struct {
	Kind, Value, TenantID string
	// Events is how many events of the last 96 hours are kept or counted.
	Events int64
	// Incidents is how many incidents of the entity are remembered, Bytes what it takes.
	Incidents    int
	Bytes        int64
	LastReceived time.Time
}
