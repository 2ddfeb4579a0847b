package detectors

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/signindiag/signindiag/schemas"
)

// Bounds of what is kept of one user. Above them counts become lower bounds (AtLeast).
const (
	// MaxKeptFailures is how many failures of one user are kept one by one, the newest by event time; older
	// ones are counted by the hour.
	MaxKeptFailures = 64
	// maxKeptSuccesses is how many successes beside the failures are kept, the newest by event time.
	maxKeptSuccesses = 64
	// maxUserIncidents is how many repeated_failures incidents of a user are remembered, newest last.
	maxUserIncidents = 4
	// maxViewValues bounds the lists of a FailureView.
	maxViewValues = 10
	// maxKeptText bounds a kept string in bytes; names of applications and devices are far shorter.
	maxKeptText = 256
)

const (
	microsPerSecond = int64(1e6)
	microsPerHour   = 3600 * microsPerSecond
	// failureRetention is how long before a user's newest failure older ones are kept: two windows, so that
	// a record that is up to 48 h late still meets its whole window.
	failureRetention = 2 * 48 * microsPerHour
	// minRegular is the least number of failures that can show a regular spacing.
	minRegular = 4
)

// Flags of a failure.
const (
	failureRequestText     uint8 = 1 << iota // request holds the number of an interned text, not a GUID
	failureCorrelationText                   // the same for correlation
	failureLockout                           // 50053 that means too many attempts
	failureMember                            // belongs to the incident number .incident
	failureWrongPassword                     // the code says that the password was wrong
)

// failure is one kept failure of a user. It holds no pointer; texts are numbers of the interner.
type failure struct {
	time                                             int64 // event time, microseconds
	code                                             int32
	incident                                         uint32 // number of the user's incident, with failureMember
	app, address, clientApp, operatingSystem, device uint32
	request, correlation                             [16]byte
	hash                                             uint64 // of the request id
	flags                                            uint8
}

// compareFailures orders failures by event time, and those of the same microsecond by a hash of
// the request id, so that the order does not depend on who arrived first.
func compareFailures(a, b *failure) int {
	if c := cmp.Compare(a.time, b.time); c != 0 {
		return c
	}
	return cmp.Compare(a.hash, b.hash)
}

// keptSuccess is a success of a user who also has failures.
type keptSuccess struct {
	time int64
	hash uint64 // of the request id, so that a repeat does not count
	// silent is true for a renewal without a person, which does not show that someone got in.
	silent bool
}

// hourCount counts failures that are not kept one by one.
type hourCount struct {
	hour int64 // event time in hours since the Unix epoch
	n    uint32
}

// userState is what is kept of a user with failures.
type userState struct {
	key       uint64
	tenant    uint32 // texts
	name      uint32
	received  int64 // Kafka time of the last raw message that touched the user, milliseconds
	failures  []failure
	successes []keptSuccess
	hours     []hourCount
	incidents []incidentState
	nextInc   uint32

	// Links of the list that the user is in, by slot; -1 ends it.
	newer, older int32
	list         uint8
}

// What a user, a failure ... count against the bound on state, in bytes.
const (
	userSize     = 288
	failureSize  = int64(unsafe.Sizeof(failure{}))
	successSize  = int64(unsafe.Sizeof(keptSuccess{}))
	hourSize     = int64(unsafe.Sizeof(hourCount{}))
	incidentSize = 512
	textSize     = 48
)

func (u *userState) size() int64 {
	n := userSize + int64(len(u.failures))*failureSize + int64(len(u.successes))*successSize + int64(len(u.hours))*hourSize
	for i := range u.incidents {
		n += u.incidents[i].size()
	}
	return n
}

// Lists of users, by the order in which the log touched them. Users with one failure are in a list of their own and
// go first: a spray over a million invented names does not push out the users whose failures repeat.
const (
	listOnce uint8 = iota
	listRepeated
)

type userList struct {
	newest, oldest int32
	bytes          int64
}

// users holds the state of all users with failures, bounded by bytes.
type users struct {
	limit int64
	index map[uint64]int32
	slots []userState
	free  []int32
	lists [2]userList
	texts interner

	evicted uint64
}

func (s *users) init(limit int64) {
	*s = users{limit: limit, index: make(map[uint64]int32)}
	s.lists = [2]userList{{newest: -1, oldest: -1}, {newest: -1, oldest: -1}}
	s.texts.init()
}

// get returns the state of a user, nil when there is none. The pointer is valid until the next call of create.
func (s *users) get(key uint64) *userState {
	if len(s.index) == 0 {
		return nil
	}
	i, ok := s.index[key]
	if !ok {
		return nil
	}
	return &s.slots[i]
}

func (s *users) create(key uint64) *userState {
	var i int32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		i = int32(len(s.slots))
		s.slots = append(s.slots, userState{})
	}
	u := &s.slots[i]
	u.key, u.nextInc = key, 1
	s.index[key] = i
	s.push(i, listOnce)
	return u
}

func (s *users) push(i int32, list uint8) {
	u, l := &s.slots[i], &s.lists[list]
	u.list, u.newer, u.older = list, -1, l.newest
	if l.newest >= 0 {
		s.slots[l.newest].newer = i
	} else {
		l.oldest = i
	}
	l.newest = i
	l.bytes += u.size()
}

func (s *users) unlink(i int32, size int64) {
	u := &s.slots[i]
	l := &s.lists[u.list]
	if u.newer >= 0 {
		s.slots[u.newer].older = u.older
	} else {
		l.newest = u.older
	}
	if u.older >= 0 {
		s.slots[u.older].newer = u.newer
	} else {
		l.oldest = u.newer
	}
	l.bytes -= size
}

// touch moves a user to the front of the list that it now belongs to. size is the user's size when it was linked.
func (s *users) touch(u *userState, size, received int64) {
	i := s.index[u.key]
	s.unlink(i, size)
	u.received = max(u.received, received)
	list := listOnce
	if len(u.failures) > 1 || len(u.hours) > 0 || len(u.incidents) > 0 {
		list = listRepeated
	}
	s.push(i, list)
}

// bytes is what counts against the limit.
func (s *users) bytes() int64 { return s.lists[0].bytes + s.lists[1].bytes + s.texts.bytes }

// evict lets users go: those that the bound on bytes asks for, and up to two of each list that nothing touched
// for as long as failures are kept. Users with one failure go first, unless they already take less than a quarter.
func (s *users) evict(received int64) {
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
			if i < 0 || s.slots[i].received == 0 || received-s.slots[i].received <= failureRetention/1000 {
				break
			}
			s.remove(i)
			s.evicted++
		}
	}
}

func (s *users) remove(i int32) {
	u := &s.slots[i]
	s.unlink(i, u.size())
	delete(s.index, u.key)
	s.texts.release(u.tenant)
	s.texts.release(u.name)
	for j := range u.failures {
		s.releaseFailure(&u.failures[j])
	}
	for j := range u.incidents {
		u.incidents[j].release(&s.texts)
	}
	old := *u
	*u = userState{}
	// Small arrays serve the slot's next user.
	if cap(old.failures) <= 8 {
		u.failures = old.failures[:0]
	}
	if cap(old.successes) <= 8 {
		u.successes = old.successes[:0]
	}
	s.free = append(s.free, i)
}

// releaseFailure lets go of the texts of a failure.
func (s *users) releaseFailure(f *failure) {
	for _, t := range [...]uint32{f.app, f.address, f.clientApp, f.operatingSystem, f.device} {
		s.texts.release(t)
	}
	if f.flags&failureRequestText != 0 {
		s.texts.release(textNumber(&f.request))
	}
	if f.flags&failureCorrelationText != 0 {
		s.texts.release(textNumber(&f.correlation))
	}
}

// newFailure makes a failure of a record; its texts are held until releaseFailure.
func (s *users) newFailure(rec *schemas.SignIn, eventTime int64, requestHash uint64, wrongPassword bool) failure {
	f := failure{time: eventTime, code: rec.ErrorCode, hash: requestHash}
	f.app = s.texts.hold(cmp.Or(rec.AppDisplayName, rec.AppId))
	f.address = s.texts.hold(rec.IpAddress)
	f.clientApp = s.texts.hold(rec.ClientAppUsed)
	f.operatingSystem = s.texts.hold(rec.OperatingSystem)
	f.device = s.texts.hold(cmp.Or(rec.DeviceDisplayName, rec.DeviceId))
	if !encodeGUID(&f.request, rec.RequestId) {
		putTextNumber(&f.request, s.texts.holdWhole(rec.RequestId))
		f.flags |= failureRequestText
	}
	if !encodeGUID(&f.correlation, rec.CorrelationId) {
		putTextNumber(&f.correlation, s.texts.holdWhole(rec.CorrelationId))
		f.flags |= failureCorrelationText
	}
	if isLockout(rec) {
		f.flags |= failureLockout
	}
	if wrongPassword {
		f.flags |= failureWrongPassword
	}
	return f
}

// isLockout reports whether the record says that the account was locked for too many attempts. The other meaning
// of 50053, an address with malicious activity, is told apart by the text alone.
func isLockout(rec *schemas.SignIn) bool {
	return rec.ErrorCode == 50053 && !containsFold(rec.FailureReason, "malicious") && !containsFold(rec.AdditionalDetails, "malicious")
}

func (s *users) requestID(f *failure) string {
	if f.flags&failureRequestText != 0 {
		return s.texts.text(textNumber(&f.request))
	}
	return guidString(&f.request)
}

func (s *users) correlationID(f *failure) string {
	if f.flags&failureCorrelationText != 0 {
		return s.texts.text(textNumber(&f.correlation))
	}
	return guidString(&f.correlation)
}

// findFailure returns the position of a request id's failure, -1 when it is not kept.
func (s *users) findFailure(u *userState, requestID string, hash uint64) int {
	for i := range u.failures {
		if u.failures[i].hash == hash && s.requestID(&u.failures[i]) == requestID {
			return i
		}
	}
	return -1
}

// addFailure inserts a failure that is not kept yet, and returns its position, or -1 when it is older than all
// that are kept while earlier ones were summed up already: then nobody can tell whether it was counted.
// Failures that are no longer kept are summed up in their incident.
func (s *users) addFailure(u *userState, f failure) int {
	i, _ := slices.BinarySearchFunc(u.failures, &f, func(a failure, b *failure) int { return compareFailures(&a, b) })
	if i == 0 && len(u.hours) > 0 || i == 0 && len(u.failures) == MaxKeptFailures {
		u.countHour(f.time, 0)
		s.releaseFailure(&f)
		return -1
	}
	if i == len(u.failures) {
		// The user's newest: what lies more than the retention before it goes.
		limit := f.time - failureRetention
		n := 0
		for n < len(u.failures) && u.failures[n].time < limit {
			s.dropped(u, &u.failures[n])
			s.releaseFailure(&u.failures[n])
			n++
		}
		u.failures = slices.Delete(u.failures, 0, n)
		u.hours = slices.DeleteFunc(u.hours, func(h hourCount) bool { return (h.hour+1)*microsPerHour < limit })
		u.successes = slices.DeleteFunc(u.successes, func(x keptSuccess) bool { return x.time < limit })
		i -= n
	}
	if len(u.failures) == MaxKeptFailures {
		old := &u.failures[0]
		u.countHour(old.time, 1)
		s.dropped(u, old)
		s.releaseFailure(old)
		u.failures = slices.Delete(u.failures, 0, 1)
		i--
	}
	u.failures = slices.Insert(u.failures, i, f)
	return i
}

// removeFailure takes out the failure at i: a newer version of its record is no failure.
func (s *users) removeFailure(u *userState, i int) {
	s.releaseFailure(&u.failures[i])
	u.failures = slices.Delete(u.failures, i, i+1)
}

func (u *userState) countHour(t int64, n uint32) {
	hour := floorDiv(t, microsPerHour)
	i, ok := slices.BinarySearchFunc(u.hours, hour, func(h hourCount, hour int64) int { return cmp.Compare(h.hour, hour) })
	if !ok {
		u.hours = slices.Insert(u.hours, i, hourCount{hour: hour})
		if len(u.hours) > int(failureRetention/microsPerHour) {
			u.hours = slices.Delete(u.hours, 0, 1)
			if i == 0 {
				return
			}
			i--
		}
	}
	if u.hours[i].n <= 1<<32-1-n {
		u.hours[i].n += n
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// addSuccess notes a success; it returns false when it was known.
func (u *userState) addSuccess(x keptSuccess) bool {
	i, ok := slices.BinarySearchFunc(u.successes, x, compareSuccesses)
	if ok || i == 0 && len(u.successes) == maxKeptSuccesses {
		return false
	}
	if len(u.successes) == maxKeptSuccesses {
		u.successes = slices.Delete(u.successes, 0, 1)
		i--
	}
	u.successes = slices.Insert(u.successes, i, x)
	return true
}

func (u *userState) removeSuccess(hash uint64) bool {
	n := len(u.successes)
	u.successes = slices.DeleteFunc(u.successes, func(x keptSuccess) bool { return x.hash == hash })
	return len(u.successes) != n
}

func compareSuccesses(a, b keptSuccess) int {
	if c := cmp.Compare(a.time, b.time); c != 0 {
		return c
	}
	return cmp.Compare(a.hash, b.hash)
}

// successesBetween counts the kept successes from first to last, both included.
func (u *userState) successesBetween(first, last int64) (n int64) {
	for i := len(u.successes) - 1; i >= 0 && u.successes[i].time >= first; i-- {
		if u.successes[i].time <= last {
			n++
		}
	}
	return n
}

// window returns the kept failures in the window that ends at t, u.failures[from:to], the count with those that
// were summed up, and whether that count is only a lower bound.
func (u *userState) window(t, length int64) (from, to int, count int64, atLeast bool) {
	after := t - length // exclusive
	from = u.after(after)
	to = u.after(t)
	count = int64(to - from)
	for _, h := range u.hours {
		start, end := h.hour*microsPerHour, (h.hour+1)*microsPerHour
		if end <= after || start > t {
			continue
		}
		atLeast = true
		// An hour cut by an edge of the window may lie outside: only whole hours count. Failures
		// that were summed up are older than the kept ones, so nothing counts twice.
		if start > after && end <= t+1 {
			count += int64(h.n)
		}
	}
	return from, to, count, atLeast
}

// after returns the position of the first failure later than t.
func (u *userState) after(t int64) int {
	lo, hi := 0, len(u.failures)
	for lo < hi {
		if mid := (lo + hi) / 2; u.failures[mid].time > t {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// view fills v for a record at time t from an address; its lists only when lists is true or the view is repeated. The lists reuse v's memory, their
// strings are the interner's.
func (s *users) view(u *userState, t int64, address string, threshold RepeatedFailuresThreshold, lists bool, v *FailureView) {
	from, to, count, atLeast := u.window(t, threshold.Window.Microseconds())
	v.reset()
	if count == 0 {
		return
	}
	v.Count, v.AtLeast = count, atLeast
	v.Repeated = count >= int64(threshold.Count)
	if to > from {
		v.First, v.Last = u.failures[from].time, u.failures[to-1].time
	}
	if atLeast {
		// What was summed up lies before the kept ones; its hours bound its times.
		for _, h := range u.hours {
			start, end := h.hour*microsPerHour, (h.hour+1)*microsPerHour-1
			if h.n > 0 && start > t-threshold.Window.Microseconds() && end <= t {
				if v.First == 0 || start < v.First {
					v.First = start
				}
				v.Last = max(v.Last, end)
			}
		}
	}
	v.Successes = u.successesBetween(v.First, v.Last)
	here := s.texts.number(address)
	for i := range u.failures[from:to] {
		f := &u.failures[from+i]
		if f.flags&failureWrongPassword == 0 {
			continue
		}
		v.WrongPasswords++
		if here != 0 && f.address == here {
			v.WrongPasswordsFromAddress++
		}
	}
	if inc := u.incidentAt(t, threshold.Window.Microseconds()); inc != nil {
		v.IncidentID = inc.idString()
	}
	if !lists && !v.Repeated {
		return
	}
	fs := u.failures[from:to]
	v.Applications = s.distinct(v.Applications, fs, func(f *failure) uint32 { return f.app })
	v.Addresses = s.distinct(v.Addresses, fs, func(f *failure) uint32 { return f.address })
	v.ClientApps = s.distinct(v.ClientApps, fs, func(f *failure) uint32 { return f.clientApp })
	v.OperatingSystems = s.distinct(v.OperatingSystems, fs, func(f *failure) uint32 { return f.operatingSystem })
	v.Devices = s.distinct(v.Devices, fs, func(f *failure) uint32 { return f.device })
	for i := range fs {
		if len(v.Codes) == maxViewValues {
			break
		}
		if !slices.Contains(v.Codes, fs[i].code) {
			v.Codes = append(v.Codes, fs[i].code)
		}
	}
	v.RegularSeconds = regularSeconds(fs)
}

func (v *FailureView) reset() {
	*v = FailureView{
		Applications: v.Applications[:0], Addresses: v.Addresses[:0], ClientApps: v.ClientApps[:0],
		OperatingSystems: v.OperatingSystems[:0], Devices: v.Devices[:0], Codes: v.Codes[:0],
	}
}

func (s *users) distinct(dst []string, fs []failure, of func(*failure) uint32) []string {
	var seen [maxViewValues]uint32
	n, last := 0, uint32(0)
next:
	for i := range fs {
		t := of(&fs[i])
		if t == last || t == 0 {
			continue
		}
		last = t
		for _, x := range seen[:n] {
			if x == t {
				continue next
			}
		}
		if n == len(seen) {
			break
		}
		seen[n] = t
		n++
		dst = append(dst, s.texts.text(t))
	}
	return dst
}

// regularSeconds returns the common spacing of failures that come like a machine's: at least four of them, and
// four of five gaps within a tenth (at least two seconds) of the median gap, which is ten seconds or more.
func regularSeconds(fs []failure) int64 {
	if len(fs) < minRegular {
		return 0
	}
	var buf, sorted [MaxKeptFailures]int64
	gaps := buf[:0]
	for i := 1; i < len(fs); i++ {
		gaps = append(gaps, fs[i].time-fs[i-1].time)
	}
	order := append(sorted[:0], gaps...)
	slices.Sort(order)
	median := order[len(order)/2]
	if median < 10*microsPerSecond {
		return 0
	}
	slack := max(median/10, 2*microsPerSecond)
	near := 0
	for _, g := range gaps {
		if g >= median-slack && g <= median+slack {
			near++
		}
	}
	if near*5 < len(gaps)*4 {
		return 0
	}
	return (median + microsPerSecond/2) / microsPerSecond
}

// interner keeps every text once, counted by its holders. Number 0 is the empty text.
type interner struct {
	index map[string]uint32
	texts []internedText
	free  []uint32
	bytes int64
}

type internedText struct {
	text string
	refs uint32
}

func (t *interner) init() {
	*t = interner{index: make(map[string]uint32), texts: make([]internedText, 1)}
}

// hold returns the number of s, cut to maxKeptText bytes at a rune's edge.
func (t *interner) hold(s string) uint32 {
	if len(s) > maxKeptText {
		n := maxKeptText
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return t.holdWhole(s)
}

func (t *interner) holdWhole(s string) uint32 {
	if s == "" {
		return 0
	}
	if n, ok := t.index[s]; ok {
		t.texts[n].refs++
		return n
	}
	var n uint32
	if k := len(t.free); k > 0 {
		n, t.free = t.free[k-1], t.free[:k-1]
	} else {
		n = uint32(len(t.texts))
		t.texts = append(t.texts, internedText{})
	}
	s = strings.Clone(s)
	t.texts[n] = internedText{s, 1}
	t.index[s] = n
	t.bytes += int64(len(s)) + textSize
	return n
}

// number returns the number of s, 0 when nobody holds it.
func (t *interner) number(s string) uint32 {
	if s == "" || len(s) > maxKeptText {
		return 0
	}
	return t.index[s]
}

// again holds a text that is held already.
func (t *interner) again(n uint32) uint32 {
	if n != 0 {
		t.texts[n].refs++
	}
	return n
}

func (t *interner) release(n uint32) {
	if n == 0 {
		return
	}
	x := &t.texts[n]
	if x.refs--; x.refs > 0 {
		return
	}
	delete(t.index, x.text)
	t.bytes -= int64(len(x.text)) + textSize
	x.text = ""
	t.free = append(t.free, n)
}

func (t *interner) text(n uint32) string { return t.texts[n].text }

func textNumber(b *[16]byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func putTextNumber(b *[16]byte, n uint32) {
	*b = [16]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
}

// encodeGUID writes the 16 bytes of a GUID in lower case, the only spelling that guidString gives back; it returns
// false for anything else.
func encodeGUID(dst *[16]byte, s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	n := 0
	for i := 0; i < 36; i += 2 {
		if s[i] == '-' {
			i++
		}
		hi, lo := hexDigit(s[i]), hexDigit(s[i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[n] = hi<<4 | lo
		n++
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

func guidString(b *[16]byte) string {
	const digits = "0123456789abcdef"
	var out [36]byte
	n := 0
	for i, x := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out[n] = '-'
			n++
		}
		out[n], out[n+1] = digits[x>>4], digits[x&15]
		n += 2
	}
	return string(out[:])
}

func aliasString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
