package detectors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/signindiag/signindiag/schemas"
)

// SnapshotVersion is the version of the state format that this code writes and reads.
const SnapshotVersion = 3

// snapshotMagic begins every snapshot.
const snapshotMagic = "signindiag state "

// AppendSnapshot appends the engine's whole state to dst: fence, recent records, attempts, users, addresses ... with their events and
// incidents. Equal histories give equal bytes. Epoch, thresholds and statistics are not part of it. There is no
// checksum: whoever stores a snapshot adds one.
func (e *Engine) AppendSnapshot(dst []byte) []byte {
	w := snapshotWriter{append(dst, snapshotMagic...)}
	w.uint(SnapshotVersion)
	w.int(e.started)
	e.fence.write(&w)
	e.recent.write(&w)
	e.attempts.write(&w)
	e.entities.write(&w)
	return w.b
}

// RestoreSnapshot replaces the engine's state by that of a snapshot; the engine then behaves, byte for byte, like the
// one that wrote it, where their Options are the same. It copies what it keeps of src. On an error the engine stays as it was;
// the error is ErrSnapshotVersion where the format is another version's.
func (e *Engine) RestoreSnapshot(src []byte) error {
	if len(src) < len(snapshotMagic) || string(src[:len(snapshotMagic)]) != snapshotMagic {
		return errors.New("restore snapshot: not a snapshot of an engine")
	}
	r := snapshotReader{b: src[len(snapshotMagic):], size: len(src)}
	if v := r.uint(); r.err == nil && v != SnapshotVersion {
		return fmt.Errorf("restore snapshot of version %d, want %d: %w", v, SnapshotVersion, ErrSnapshotVersion)
	}
	s := e.newState()
	s.started = r.int()
	s.fence.read(&r)
	s.recent.read(&r)
	s.attempts.read(&r)
	s.entities.read(&r)
	if r.err == nil && len(r.b) != 0 {
		r.fail("bytes behind the end")
	}
	if r.err != nil {
		return fmt.Errorf("restore snapshot: %w", r.err)
	}
	e.state = s
	return nil
}

type snapshotWriter struct{ b []byte }

func (w *snapshotWriter) uint(v uint64)  { w.b = binary.AppendUvarint(w.b, v) }
func (w *snapshotWriter) int(v int64)    { w.b = binary.AppendVarint(w.b, v) }
func (w *snapshotWriter) byte(v uint8)   { w.b = append(w.b, v) }
func (w *snapshotWriter) hash(v uint64)  { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *snapshotWriter) bytes(v []byte) { w.b = append(w.b, v...) }
func (w *snapshotWriter) bool(v bool)    { w.byte(map[bool]uint8{true: 1}[v]) }
func (w *snapshotWriter) text(s string) {
	w.uint(uint64(len(s)))
	w.b = append(w.b, s...)
}

// snapshotReader reads what snapshotWriter wrote. After the first error everything reads as zero.
type snapshotReader struct {
	b    []byte
	size int
	err  error
}

func (r *snapshotReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s at byte %d of %d", what, r.size-len(r.b), r.size)
	}
	r.b = nil
}

func (r *snapshotReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("number cut off or too large")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *snapshotReader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("number cut off or too large")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *snapshotReader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail("bytes cut off")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *snapshotReader) byte() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *snapshotReader) bool() bool { return r.byte() == 1 }

func (r *snapshotReader) hash() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *snapshotReader) uint32() uint32 {
	v := r.uint()
	if v > 1<<32-1 {
		r.fail("number above 32 bits")
		return 0
	}
	return uint32(v)
}

func (r *snapshotReader) int32() int32 {
	v := r.int()
	if v != int64(int32(v)) {
		r.fail("number above 32 bits")
		return 0
	}
	return int32(v)
}

// count reads the number of items that follow, each of which takes at least least bytes.
func (r *snapshotReader) count(least int) int {
	v := r.uint()
	if v > uint64(len(r.b)/least) {
		r.fail("more items than bytes")
		return 0
	}
	return int(v)
}

func (r *snapshotReader) text() string { return string(r.bytes(r.count(1))) }

func (f *fence) write(w *snapshotWriter) {
	w.uint(uint64(len(f.sources)))
	for _, k := range f.sorted() {
		p := f.sources[k]
		w.uint(k.topic)
		w.uint(uint64(k.partition))
		w.int(p.offset)
		w.uint(uint64(p.index))
	}
}

func (f *fence) read(r *snapshotReader) {
	for range r.count(4) {
		k := fenceSource{r.uint(), r.uint32()}
		f.sources[k] = fencePosition{r.int(), r.uint32()}
	}
}

func (s *recentStore) write(w *snapshotWriter) {
	w.uint(s.head)
	w.uint(uint64(s.len()))
	for seq := s.head; seq < s.next; seq++ {
		e := s.at(seq)
		w.byte(e.flags &^ entryGrouped)
		w.byte(e.kind)
		w.byte(e.outcomes)
		w.hash(e.merge)
		w.hash(e.attempt)
		w.hash(e.user)
		w.hash(e.request)
		w.hash(e.attemptTag)
		w.int(e.eventTime)
		w.int(e.received)
		w.int(int64(e.code))
		w.uint(uint64(e.idSize))
		w.uint(uint64(e.size))
		if e.flags&entryDead == 0 {
			w.bytes(s.bytesOf(e))
		}
	}
}

func (s *recentStore) read(r *snapshotReader) {
	s.head = r.uint()
	n := r.count(3)
	if s.head == 0 || s.head > 1<<62 {
		r.fail("sequence number out of range")
		s.head = 1
	}
	s.next = s.head
	for range n {
		e := recentEntry{flags: r.byte() &^ entryGrouped, kind: r.byte(), outcomes: r.byte()}
		e.merge, e.attempt, e.user, e.request, e.attemptTag = r.hash(), r.hash(), r.hash(), r.hash(), r.hash()
		e.eventTime, e.received, e.code = r.int(), r.int(), r.int32()
		idSize, size := r.uint32(), r.uint32()
		if r.err == nil && (idSize > size || idSize > 1<<16-1 || e.kind > kindSuccess || e.outcomes > 15) {
			r.fail("record entry out of range")
		}
		if r.err != nil {
			return
		}
		e.idSize, e.size = uint16(idSize), size
		if e.flags&entryDead == 0 {
			b := r.bytes(int(size))
			if r.err != nil {
				return
			}
			copy(s.space(&e, len(b)), b)
		}
		s.insert(e)
	}
}

func (a *attemptSum) write(w *snapshotWriter) {
	w.int(a.successes)
	w.int(a.failures)
	w.int(a.interrupts)
	if a.empty() {
		return
	}
	w.int(a.first)
	w.int(a.last)
	w.text(a.id)
	w.int(int64(a.lastFailureCode))
	for _, at := range [...]instant{a.earliest, a.firstInterrupt, a.lastSuccess, a.lastFailure} {
		w.int(at.time)
		w.byte(at.kind)
		w.hash(at.hash)
	}
}

func (a *attemptSum) read(r *snapshotReader) {
	a.successes, a.failures, a.interrupts = r.int(), r.int(), r.int()
	if a.empty() {
		return
	}
	a.first, a.last, a.id, a.lastFailureCode = r.int(), r.int(), r.text(), r.int32()
	for _, at := range [...]*instant{&a.earliest, &a.firstInterrupt, &a.lastSuccess, &a.lastFailure} {
		at.time, at.kind, at.hash = r.int(), r.byte(), r.hash()
	}
	if a.successes < 0 || a.failures < 0 || a.interrupts < 0 || a.first > a.last {
		r.fail("attempt out of range")
	}
}

// write writes the groups in the order of their oldest entries.
func (a *attempts) write(w *snapshotWriter) {
	w.uint(uint64(len(a.groups)))
	for seq := a.recent.head; seq < a.recent.next; seq++ {
		e := a.recent.at(seq)
		if e.flags&entryGrouped == 0 {
			continue
		}
		g := a.groups[e.attempt]
		if slices.Min(g.members) != seq {
			continue
		}
		w.uint(uint64(len(g.members)))
		for _, m := range g.members {
			w.uint(m - a.recent.head)
		}
		g.sealed.write(w)
	}
}

func (a *attempts) read(r *snapshotReader) {
	for range r.count(5) {
		g := new(attemptGroup)
		n := r.count(1)
		if n == 0 || n > maxAttemptMembers {
			r.fail("attempt group of no or too many records")
		}
		var key uint64
		for i := range n {
			seq := a.recent.head + r.uint()
			e := a.recent.at(seq)
			if r.err != nil {
				return
			}
			if e == nil || e.flags&(entryDead|entryGrouped) != 0 || e.flags&entryAttempt == 0 || i > 0 && e.attempt != key ||
				i > 0 && a.recent.at(g.members[i-1]).instant().compare(e.instant()) > 0 {
				r.fail("attempt group with a record that cannot be its member")
				return
			}
			key = e.attempt
			e.flags |= entryGrouped
			g.members = append(g.members, seq)
		}
		g.sealed.read(r)
		if r.err != nil {
			return
		}
		if a.groups[key] != nil {
			r.fail("attempt group twice")
			return
		}
		a.groups[key] = g
	}
}

// write writes the entities of each list from the one touched longest ago to the newest.
func (s *entities) write(w *snapshotWriter) {
	for list := range s.lists {
		n := uint64(0)
		for i := s.lists[list].oldest; i >= 0; i = s.slots[i].newer {
			n++
		}
		w.uint(n)
		for i := s.lists[list].oldest; i >= 0; i = s.slots[i].newer {
			s.writeEntity(w, &s.slots[i])
		}
	}
}

func (s *entities) writeEntity(w *snapshotWriter, n *entity) {
	w.hash(n.key)
	w.uint(uint64(n.role))
	for _, t := range [...]uint32{n.tenant, n.name, n.detail} {
		w.text(s.texts.text(t))
	}
	w.int(n.received)
	w.uint(uint64(n.nextInc))
	w.bool(n.crowded)
	w.uint(uint64(len(n.events)))
	for i := range n.events {
		v := &n.events[i]
		w.uint(uint64(v.class))
		w.int(v.time)
		w.int(int64(v.code))
		for _, number := range v.incidents {
			w.uint(uint64(number))
		}
		w.hash(v.hash)
		w.hash(v.actor)
		for _, t := range v.texts() {
			w.text(s.texts.text(*t))
		}
		s.writeID(w, &v.request, v.class.has(classRequestText))
		s.writeID(w, &v.correlation, v.class.has(classCorrelationText))
	}
	w.uint(uint64(len(n.passes)))
	for i := range n.passes {
		p := &n.passes[i]
		w.uint(uint64(p.class))
		w.int(p.time)
		w.uint(uint64(p.incident))
		w.hash(p.hash)
		w.hash(p.actor)
		for _, t := range [...]uint32{p.user, p.address, p.agent} {
			w.text(s.texts.text(t))
		}
		s.writeID(w, &p.request, p.class.has(classRequestText))
		s.writeID(w, &p.correlation, p.class.has(classCorrelationText))
	}
	w.uint(uint64(len(n.hours)))
	for i := range n.hours {
		w.int(n.hours[i].hour)
		w.uint(uint64(n.hours[i].n))
		w.uint(uint64(n.hours[i].late))
		w.sketch(n.hours[i].actors)
	}
	w.uint(uint64(len(n.incidents)))
	for i := range n.incidents {
		s.writeIncident(w, &n.incidents[i])
	}
}

// sketch writes a sketch, or that there is none.
func (w *snapshotWriter) sketch(s *sketch) {
	w.bool(s != nil)
	if s != nil {
		w.bytes(s[:])
	}
}

func (r *snapshotReader) sketch() *sketch {
	if !r.bool() {
		return nil
	}
	s := new(sketch)
	copy(s[:], r.bytes(sketchSize))
	return s
}

func (s *entities) writeIncident(w *snapshotWriter, inc *incidentState) {
	w.uint(uint64(inc.number))
	w.byte(inc.family)
	w.int(int64(inc.code))
	w.bytes(inc.id[:])
	w.int(inc.first)
	w.int(inc.last)
	w.hash(inc.emitted)
	w.byte(inc.kind)
	w.byte(inc.severity)
	w.byte(inc.outcome)
	w.uint(uint64(inc.kinds))
	w.uint(uint64(inc.leftSet))
	for _, v := range inc.left.all() {
		w.int(*v)
	}
	w.sketch(inc.actors)
	for _, list := range inc.values {
		w.uint(uint64(len(list)))
		for _, t := range list {
			w.text(s.texts.text(t))
		}
	}
	w.uint(uint64(len(inc.requests)))
	for _, id := range inc.requests {
		w.text(id)
	}
}

// all lists the numbers for those that write or read them all.
func (s *sums) all() [5]*int64 {
	return [5]*int64{&s.events, &s.wrong, &s.unknown, &s.lockouts, &s.prompts}
}

func (s *entities) writeID(w *snapshotWriter, id *[16]byte, text bool) {
	if text {
		w.text(s.texts.text(textNumber(id)))
		return
	}
	w.bytes(id[:])
}

func (s *entities) read(r *snapshotReader) {
	for list := range s.lists {
		for range r.count(16) {
			s.readEntity(r, uint8(list))
			if r.err != nil {
				return
			}
		}
	}
}

// atMost reads the number of items that follow, with a bound of its own.
func (r *snapshotReader) atMost(most int) int {
	n := r.count(1)
	if n > most {
		r.fail("more items than are kept")
		return 0
	}
	return n
}

// time reads an event time.
func (r *snapshotReader) time() int64 {
	t := r.int()
	if t < -maxEventTime || t > maxEventTime {
		r.fail("event time out of range")
		return 0
	}
	return t
}

func (s *entities) readText(r *snapshotReader) uint32 {
	return s.texts.holdWhole(aliasString(r.bytes(r.count(1))))
}

func (s *entities) readEntity(r *snapshotReader, list uint8) {
	key, role := r.hash(), schemas.Role(r.uint32())
	if r.err == nil && (s.get(key) != nil || entityKinds[role] == "") {
		r.fail("entity twice, or of an unknown kind")
	}
	if r.err != nil {
		return
	}
	n := s.create(key, role)
	for _, t := range [...]*uint32{&n.tenant, &n.name, &n.detail} {
		*t = s.readText(r)
	}
	n.received, n.nextInc, n.crowded = r.int(), r.uint32(), r.bool()
	count := r.atMost(n.maxEvents())
	n.events = make([]event, 0, room(count))
	for range count {
		v := event{class: class(r.uint32()), time: r.time(), code: r.int32(), incidents: [maxLanes]uint32{r.uint32(), r.uint32(), r.uint32()}, hash: r.hash(), actor: r.hash()}
		for _, t := range v.texts() {
			*t = s.readText(r)
		}
		s.readID(r, &v.request, v.class.has(classRequestText))
		s.readID(r, &v.correlation, v.class.has(classCorrelationText))
		n.events = append(n.events, v)
	}
	count = r.atMost(n.maxPasses())
	n.passes = make([]pass, 0, room(count))
	for range count {
		p := pass{class: class(r.uint32()), time: r.time(), incident: r.uint32(), hash: r.hash(), actor: r.hash()}
		for _, t := range [...]*uint32{&p.user, &p.address, &p.agent} {
			*t = s.readText(r)
		}
		s.readID(r, &p.request, p.class.has(classRequestText))
		s.readID(r, &p.correlation, p.class.has(classCorrelationText))
		n.passes = append(n.passes, p)
	}
	count = r.atMost(maxHours)
	n.hours = make([]hourCount, 0, room(count))
	for range count {
		h := hourCount{hour: r.int(), n: r.uint32(), late: r.uint32(), actors: r.sketch()}
		if h.hour < -maxEventTime/microsPerHour-1 || h.hour > maxEventTime/microsPerHour {
			r.fail("hour out of range")
		}
		n.hours = append(n.hours, h)
	}
	count = r.atMost(maxEntityIncidents)
	n.incidents = make([]incidentState, 0, room(count))
	for range count {
		inc := s.readIncident(r, role)
		if r.err == nil && (inc.number == 0 || inc.number >= n.nextInc || n.incident(inc.number) != nil) {
			r.fail("incident's number out of range, or twice")
		}
		n.incidents = append(n.incidents, inc)
	}
	if r.err == nil && (n.nextInc == 0 || !slices.IsSortedFunc(n.events, compareEvents) || !slices.IsSortedFunc(n.passes, comparePasses) ||
		!slices.IsSortedFunc(n.hours, func(a, b hourCount) int { return cmp.Compare(a.hour, b.hour) })) {
		r.fail("events, right passwords or hours out of order")
	}
	// It was linked empty and into the first list.
	i := s.index[key]
	s.unlink(i, entitySize)
	s.push(i, list)
}

func (s *entities) readIncident(r *snapshotReader, role schemas.Role) incidentState {
	inc := incidentState{number: r.uint32(), family: r.byte(), code: r.int32()}
	copy(inc.id[:], r.bytes(len(inc.id)))
	inc.first, inc.last, inc.emitted = r.time(), r.time(), r.hash()
	inc.kind, inc.severity, inc.outcome = r.byte(), r.byte(), r.byte()
	inc.kinds, inc.leftSet = kindSet(r.uint32()), kindSet(r.uint32())
	if r.err == nil && (int(inc.family) >= len(families) || !families[inc.family].roles.Has(role) || int(inc.kind) >= len(detections) || inc.severity > severityCritical ||
		int(inc.outcome) >= len(incidentOutcomes) || (inc.kinds|inc.leftSet)>>len(detections) != 0) {
		r.fail("incident out of range")
	}
	for _, v := range inc.left.all() {
		*v = r.int()
	}
	inc.actors = r.sketch()
	for k := range inc.values {
		for range r.atMost(maxIncidentValues) {
			inc.values[k] = append(inc.values[k], s.readText(r))
		}
	}
	for range r.atMost(MaxIncidentRequestIDs) {
		inc.requests = append(inc.requests, r.text())
	}
	return inc
}

func (s *entities) readID(r *snapshotReader, id *[16]byte, text bool) {
	if text {
		putTextNumber(id, s.readText(r))
		return
	}
	copy(id[:], r.bytes(16))
}
