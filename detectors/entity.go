package detectors

import (
	"cmp"
	"math/bits"
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
	// maxKeptPasses is how many right passwords of a user are kept beside the events, the newest, and maxKeptGroupPasses those of
	// a group: enough to know who of the kept events got in, see thin.
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
	// sameTry is how close together equal wrong passwords of a client without a person are one try that it repeats: a storm of
	// retries over a minute stays below every threshold, and guessing for longer does not.
	sameTry = 15 * microsPerSecond
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
	session              uint64   // hash of sessionId, 0 for none; of device code flows alone
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
	late   uint32  // events that came too late to tell whether they are in n
	actors *sketch // of a group's actors, nil for one user or service principal
}

// maxHours is how many hours the retention touches.
const maxHours = int(eventRetention/microsPerHour) + 2

// maxEventTime bounds event times on both sides of the Unix epoch, in microseconds (36 000 years), so that sums with windows
// do not overflow whatever a message says.
const maxEventTime = int64(1) << 60

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
	crowded   bool // right passwords were let go

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

// What an entity, an event ... count against the bound on state, in bytes. An entity's size is its struct and its share of the
// index, a text's that of the index and the texts' numbers, as measured (BenchmarkState).
const (
	entitySize   = int64(unsafe.Sizeof(entity{})) + 48
	eventSize    = int64(unsafe.Sizeof(event{}))
	passSize     = int64(unsafe.Sizeof(pass{}))
	hourSize     = int64(unsafe.Sizeof(hourCount{}))
	incidentSize = int64(unsafe.Sizeof(incidentState{}))
	textSize     = 80
)

func (n *entity) size() int64 {
	size := entitySize + room(len(n.events))*eventSize + room(len(n.passes))*passSize + room(len(n.hours))*hourSize +
		room(len(n.incidents))*incidentSize
	for i := range n.hours {
		if n.hours[i].actors != nil {
			size += sketchSize
		}
	}
	for i := range n.incidents {
		size += n.incidents[i].size()
	}
	return size
}

// room is how many items the array of n items is made for: a power of two or three quarters of one.
func room(n int) int64 {
	whole := int64(1) << bits.Len(uint(max(n-1, 0)))
	if n <= 2 {
		return int64(n)
	}
	if threeQuarters := whole / 4 * 3; int64(n) <= threeQuarters {
		return threeQuarters
	}
	return whole
}

// insert is slices.Insert with arrays of no other size than room, or up to four times that where there were more items before.
func insert[T any](list []T, i int, v T) []T {
	if r := int(room(len(list) + 1)); len(list) == cap(list) || cap(list) > 4*r {
		list = append(make([]T, 0, r), list...)
	}
	return slices.Insert(list, i, v)
}

// Lists of entities, each in the order in which the log touched them. The first lists go first: a spray over a million invented
// names does not push out the users whose failures repeat, nor do those push out what incidents are told of.
const (
	listOnce     uint8 = iota // one event
	listRepeated              // more events
	listTold                  // incidents
	listCount
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
	lists [listCount]entityList
	texts interner

	evicted uint64
	scratch []*event // of one call
	rowText []byte   // ids that the rows of one record spell out
}

func (s *entities) init(limit int64) {
	*s = entities{limit: limit, index: make(map[uint64]int32)}
	for list := range s.lists {
		s.lists[list] = entityList{newest: -1, oldest: -1}
	}
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
	if len(n.incidents) > 0 {
		list = listTold
	} else if len(n.events) > 1 || len(n.hours) > 0 {
		list = listRepeated
	}
	s.push(i, list)
}

// bytes is what counts against the limit.
func (s *entities) bytes() int64 { return s.listed() + s.texts.bytes }

// listed is what all entities take without their texts.
func (s *entities) listed() (bytes int64) {
	for list := range s.lists {
		bytes += s.lists[list].bytes
	}
	return bytes
}

// evict lets entities go: those that the bound on bytes asks for, and up to two of each list that nothing touched
// for as long as events are kept. The first list goes first, unless it takes less than a quarter already, then the second.
func (s *entities) evict(received int64) {
	for s.bytes() > s.limit && len(s.index) > 0 {
		quarter, victim := s.listed()/4, int32(-1)
		for list := range s.lists {
			if l := &s.lists[list]; l.oldest >= 0 {
				if victim = l.oldest; l.bytes >= quarter {
					break
				}
			}
		}
		s.remove(victim)
		s.evicted++
	}
	if len(s.slots) > minCompacted && len(s.index) < len(s.slots)/4 {
		s.compactSlots()
	}
	if len(s.texts.texts) > minCompacted && len(s.texts.index) < len(s.texts.texts)/4 {
		s.compactTexts()
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

// minCompacted is how many slots are no waste worth an effort.
const minCompacted = 1 << 12

// compactSlots moves the entities to an array and an index of their own number: neither shrinks by itself.
func (s *entities) compactSlots() {
	old, lists := s.slots, s.lists
	s.slots, s.free, s.index = make([]entity, 0, 2*len(s.index)), nil, make(map[uint64]int32, 2*len(s.index))
	for list := range lists {
		s.lists[list] = entityList{newest: -1, oldest: -1}
		for i := lists[list].oldest; i >= 0; i = old[i].newer {
			k := int32(len(s.slots))
			s.slots = append(s.slots, old[i])
			s.index[old[i].key] = k
			s.push(k, uint8(list))
		}
	}
}

// compactTexts gives the texts new numbers, as few as there are texts.
func (s *entities) compactTexts() {
	old := &s.texts
	texts := interner{index: make(map[string]uint32, 2*len(old.index)), texts: make([]internedText, 1, 2*len(old.index)), bytes: old.bytes}
	numbers := make([]uint32, len(old.texts))
	for n := range old.texts {
		if x := old.texts[n]; x.refs > 0 {
			numbers[n] = uint32(len(texts.texts))
			texts.index[x.text] = numbers[n]
			texts.texts = append(texts.texts, x)
		}
	}
	for list := range s.lists {
		for i := s.lists[list].oldest; i >= 0; i = s.slots[i].newer {
			s.slots[i].eachText(func(t *uint32) { *t = numbers[*t] })
		}
	}
	s.texts = texts
}

// eachText calls do for the number of every text that the entity holds.
func (n *entity) eachText(do func(*uint32)) {
	ids := func(request, correlation *[16]byte, c class) {
		for _, id := range [...]struct {
			bytes *[16]byte
			text  bool
		}{{request, c.has(classRequestText)}, {correlation, c.has(classCorrelationText)}} {
			if id.text {
				t := textNumber(id.bytes)
				do(&t)
				putTextNumber(id.bytes, t)
			}
		}
	}
	for _, t := range [...]*uint32{&n.tenant, &n.name, &n.detail} {
		do(t)
	}
	for i := range n.events {
		v := &n.events[i]
		for _, t := range v.texts() {
			do(t)
		}
		ids(&v.request, &v.correlation, v.class)
	}
	for i := range n.passes {
		p := &n.passes[i]
		for _, t := range [...]*uint32{&p.user, &p.address, &p.agent} {
			do(t)
		}
		ids(&p.request, &p.correlation, p.class)
	}
	for i := range n.incidents {
		for _, list := range n.incidents[i].values {
			for k := range list {
				do(&list[k])
			}
		}
	}
}

func (s *entities) remove(i int32) {
	n := &s.slots[i]
	s.unlink(i, n.size())
	delete(s.index, n.key)
	n.eachText(func(t *uint32) { s.texts.release(*t) })
	old := *n
	*n = entity{}
	// Small arrays serve the slot's next entity.
	if cap(old.events) <= 2 {
		n.events = old.events[:0]
	}
	if cap(old.passes) <= 2 {
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

// idText returns an id. It may alias s.rowText, which is written anew at the next record.
func (s *entities) idText(id *[16]byte, text bool) string {
	if text {
		return s.texts.text(textNumber(id))
	}
	start := len(s.rowText)
	s.rowText = appendGUID(s.rowText, id)
	return aliasString(s.rowText[start:])
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
	if c.has(classDeviceCode) && schemas.IsGroupingID(rec.SessionId) {
		v.session = schemas.Hash64(rec.SessionId)
	}
	if user {
		v.user = s.texts.hold(userName(rec))
	}
	v.app = s.texts.hold(cmp.Or(rec.AppDisplayName, rec.AppId))
	v.address = s.texts.hold(rec.IpAddress)
	v.clientApp = s.texts.hold(rec.ClientAppUsed)
	v.operatingSystem = s.texts.hold(rec.OperatingSystem)
	v.device = s.texts.hold(cmp.Or(rec.DeviceDisplayName, rec.DeviceId))
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
		n.countHour(&v, true)
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
		n.countHour(old, false)
		s.dropped(n, old)
		s.releaseEvent(old)
		n.events = slices.Delete(n.events, 0, 1)
		i--
	}
	n.events = insert(n.events, i, v)
	return i
}

// removeEvent takes out the event at i: a newer version of its record is none.
func (s *entities) removeEvent(n *entity, i int) {
	s.releaseEvent(&n.events[i])
	n.events = slices.Delete(n.events, i, i+1)
}

// addPass notes a right password; it returns its position, -1 when it is older than all that are kept.
func (s *entities) addPass(n *entity, p pass, scratch *counter) int {
	if n.group() && len(n.passes) == n.maxPasses() && (!n.crowded || p.hash%16 == 0) { // seldom where it found little before
		s.thin(n, scratch)
	}
	i, _ := slices.BinarySearchFunc(n.passes, p, comparePasses)
	if len(n.passes) == n.maxPasses() {
		oldest := 0
		if n.group() {
			if k := slices.IndexFunc(n.passes, func(x pass) bool { return !n.failed(x.actor) }); k >= 0 {
				oldest = k
			}
		}
		if i <= oldest && (oldest == 0 || !n.failed(p.actor)) {
			s.releasePass(&p)
			return -1
		}
		n.crowded = true
		s.releasePass(&n.passes[oldest])
		n.passes = slices.Delete(n.passes, oldest, oldest+1)
		if i > oldest {
			i--
		}
	}
	n.passes = insert(n.passes, i, p)
	return i
}

// failed reports whether a user has an event.
func (n *entity) failed(actor uint64) bool {
	for i := range n.events {
		if n.events[i].actor == actor {
			return true
		}
	}
	return false
}

// thin makes room among the right passwords of a group that has as many as are kept: of each user those stay that show who
// mistyped. Those are the first of each kind after the user's first event, and of others the newest with each user agent.
func (s *entities) thin(n *entity, scratch *counter) {
	n.crowded = true
	const kinds = classSuccess | classStopped
	scratch.reset()
	for i := range n.events {
		if slot := scratch.slot(n.events[i].actor); slot.count == 0 {
			slot.count = int32(i + 1)
		}
	}
	var stays [maxKeptGroupPasses]bool
	seen := func(p *pass, more uint64) bool {
		return scratch.add((p.actor^uint64(p.class&kinds)^more<<32)*0x9e3779b97f4a7c15) > 1
	}
	for i := range n.passes {
		p := &n.passes[i]
		first := scratch.count(p.actor)
		stays[i] = p.incident != 0 || first > 0 && notAfter(n.events[first-1].time, p.time) && !seen(p, 1<<31)
	}
	for i := len(n.passes) - 1; i >= 0; i-- {
		p := &n.passes[i]
		first := scratch.count(p.actor)
		stays[i] = stays[i] || (first == 0 || !notAfter(n.events[first-1].time, p.time)) && !seen(p, uint64(p.agent))
	}
	kept := n.passes[:0]
	for i := range n.passes {
		if stays[i] {
			kept = append(kept, n.passes[i])
		} else {
			s.releasePass(&n.passes[i])
		}
	}
	n.passes = kept
}

func (s *entities) removePass(n *entity, i int) {
	s.releasePass(&n.passes[i])
	n.passes = slices.Delete(n.passes, i, i+1)
}

// countHour counts an event that is not kept, or where late is true one of which nobody can tell whether it was counted.
func (n *entity) countHour(v *event, late bool) {
	if !n.group() && !v.class.has(classCounts) {
		return // the windows of a user count failures alone
	}
	hour := floorDiv(v.time, microsPerHour)
	i, ok := slices.BinarySearchFunc(n.hours, hour, func(h hourCount, hour int64) int { return cmp.Compare(h.hour, hour) })
	if !ok {
		if len(n.hours) == maxHours {
			if i == 0 {
				return
			}
			n.hours = slices.Delete(n.hours, 0, 1)
			i--
		}
		n.hours = insert(n.hours, i, hourCount{hour: hour})
	}
	h := &n.hours[i]
	count := &h.n
	if late {
		count = &h.late
	}
	*count = max(*count, *count+1) // at most 1<<32-1
	if n.group() {                 // a user is one however often counted
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
