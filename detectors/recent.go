package detectors

import (
	"github.com/signindiag/signindiag/schemas"
)

// Kinds of a record, in the order in which records of the same microsecond are taken.
const (
	kindInterrupted uint8 = iota
	kindFailure
	kindSuccess
)

// Flags of a recentEntry.
const (
	entryDead     uint8 = 1 << iota // a newer version of the record has an entry of its own
	entryGrouped                    // the entry is a member of an attemptGroup
	entryAttempt                    // the record may form an attempt with others: attempt is set
	entryCounts                     // the record counts as a failure of its user
	entryRepeated                   // the last row of the record said repeated
	entrySilent                     // the record renewed a session without a person
	entryFlagged                    // the user asked for help: flaggedForReview
)

// recentEntry is one record of the recent store. It holds no pointer, so that the collector passes over it.
type recentEntry struct {
	merge, attempt, user             uint64 // hashes: record, attempt group, entity
	mergeNext, attemptNext, userNext uint64 // older entry of the same bucket, by sequence number; 0 = none
	request                          uint64 // hash of the request id
	eventTime                        int64  // microseconds, as first seen
	userMax                          int64  // newest event time among this and the user's older entries
	received                         int64  // Kafka time of the raw message as first seen, milliseconds
	attemptTag                       uint64 // hash of the attempt id of the last row
	offset                           uint32 // place of the bytes in their block
	size                             uint32 // bytes of the request id and the record
	block                            uint32
	code                             int32
	idSize                           uint16 // bytes of the request id, which stands before the record
	kind                             uint8
	flags                            uint8
	outcomes                         uint8 // outcome and attempt outcome of the last row
}

// recentEntrySize is what an entry counts beside its bytes: the struct and its share of three bucket tables.
const recentEntrySize = 168

// recentBlockSize is the size of the blocks that hold record bytes; a larger record gets its own block.
const recentBlockSize = 256 << 10

// recentStore keeps the bytes of the newest full-role records of a shard in log order, bounded by bytes, and finds
// them by record, by attempt and by user. Entries are named by sequence numbers from 1; they leave in
// the order in which they came. Bucket chains run from new to old and need no clean-up: they end where they
// meet an entry that has left.
type recentStore struct {
	limit   int64 // bytes
	horizon int64 // milliseconds of Kafka time; 0 = only the bytes bound the store

	head, next uint64 // entries head..next-1 are held
	ring       []recentEntry
	bytes      int64

	blocks     map[uint32][]byte
	firstBlock uint32
	lastBlock  uint32
	used       uint32 // bytes used in the last block
	spare      []byte // one block kept for reuse

	byMerge, byAttempt, byUser []uint64 // newest entry of each bucket

	evicted uint64
	// onEvict is called for a grouped entry just before it leaves.
	onEvict func(seq uint64, e *recentEntry)
}

// maxChainSteps bounds the walk along one bucket: chains are short unless someone makes hashes collide.
const maxChainSteps = 64

func (s *recentStore) init(limit, horizon int64, onEvict func(uint64, *recentEntry)) {
	*s = recentStore{limit: limit, horizon: horizon, head: 1, next: 1, onEvict: onEvict}
	s.blocks = make(map[uint32][]byte)
	s.firstBlock, s.lastBlock = 1, 0
	s.resize(256)
}

func (s *recentStore) len() int { return int(s.next - s.head) }

// at returns the entry of seq, or nil when it has left.
func (s *recentStore) at(seq uint64) *recentEntry {
	if seq < s.head || seq >= s.next {
		return nil
	}
	return &s.ring[seq&uint64(len(s.ring)-1)]
}

// resize gives ring and buckets room for n entries (a power of two) and links the entries anew.
func (s *recentStore) resize(n int) {
	old := s.ring
	s.ring = make([]recentEntry, n)
	for seq := s.head; seq < s.next; seq++ {
		s.ring[seq&uint64(n-1)] = old[seq&uint64(len(old)-1)]
	}
	s.byMerge, s.byAttempt, s.byUser = make([]uint64, n), make([]uint64, n), make([]uint64, n)
	for seq := s.head; seq < s.next; seq++ {
		s.link(seq)
	}
}

func (s *recentStore) link(seq uint64) {
	e := s.at(seq)
	mask := uint64(len(s.byMerge) - 1)
	e.mergeNext, s.byMerge[e.merge&mask] = s.byMerge[e.merge&mask], seq
	e.userNext, s.byUser[e.user&mask] = s.byUser[e.user&mask], seq
	if e.flags&entryAttempt != 0 {
		e.attemptNext, s.byAttempt[e.attempt&mask] = s.byAttempt[e.attempt&mask], seq
	}
}

// evict lets the oldest entries go: all that the bound on bytes asks for, and those beyond the horizon. The latter
// at most eight per call, so that one raw message with a time far in the future empties nothing.
func (s *recentStore) evict(received int64) {
	old := 8
	for s.head < s.next {
		e := s.at(s.head)
		if s.bytes <= s.limit {
			if old == 0 || s.horizon == 0 || e.received == 0 || received-e.received <= s.horizon {
				return
			}
			old--
		}
		if e.flags&entryGrouped != 0 {
			s.onEvict(s.head, e)
		}
		s.evicted++
		s.bytes -= int64(e.size) + recentEntrySize
		for s.firstBlock < e.block {
			s.release()
		}
		s.head++
	}
	for s.firstBlock <= s.lastBlock {
		s.release()
	}
}

func (s *recentStore) release() {
	if b := s.blocks[s.firstBlock]; len(b) == recentBlockSize {
		s.spare = b
	}
	delete(s.blocks, s.firstBlock)
	s.firstBlock++
}

// add appends a record. The fields of meta that say where the bytes are get filled in; the others are the caller's.
func (s *recentStore) add(meta recentEntry, rec *schemas.SignIn) (uint64, error) {
	n := rec.SizeVT()
	meta.idSize = uint16(min(len(rec.RequestId), 1<<16-1))
	dst := s.space(&meta, int(meta.idSize)+n)
	copy(dst, rec.RequestId[:meta.idSize])
	if _, err := rec.MarshalToSizedBufferVT(dst[meta.idSize:]); err != nil {
		return 0, err
	}
	return s.insert(meta), nil
}

// space reserves size bytes and notes their place in meta.
func (s *recentStore) space(meta *recentEntry, size int) []byte {
	b := s.blocks[s.lastBlock]
	if s.lastBlock < s.firstBlock || len(b)-int(s.used) < size {
		b = s.spare
		s.spare = nil
		if size > recentBlockSize {
			b = make([]byte, size)
		} else if b == nil {
			b = make([]byte, recentBlockSize)
		}
		s.lastBlock++
		s.blocks[s.lastBlock] = b
		s.used = 0
	}
	meta.block, meta.offset, meta.size = s.lastBlock, s.used, uint32(size)
	s.used += uint32(size)
	return b[meta.offset : meta.offset+uint32(size)]
}

func (s *recentStore) insert(meta recentEntry) uint64 {
	if s.len() == len(s.ring) {
		s.resize(2 * len(s.ring))
	}
	seq := s.next
	s.next++
	meta.userMax = meta.eventTime
	if older := s.newestOfUser(meta.user); older != nil {
		meta.userMax = max(meta.userMax, older.userMax)
	}
	s.ring[seq&uint64(len(s.ring)-1)] = meta
	s.bytes += int64(meta.size) + recentEntrySize
	s.link(seq)
	return seq
}

func (s *recentStore) bytesOf(e *recentEntry) []byte {
	return s.blocks[e.block][e.offset : e.offset+e.size]
}

// requestID returns the request id of an entry; it aliases the store until the next eviction.
func (s *recentStore) requestID(e *recentEntry) string {
	return aliasString(s.bytesOf(e)[:e.idSize])
}

// record decodes an entry into dst, which then aliases the store until the next eviction.
func (s *recentStore) record(e *recentEntry, dst *schemas.SignIn) error {
	dst.ResetVT()
	return dst.UnmarshalVTUnsafe(s.bytesOf(e)[e.idSize:])
}

// find returns the living entry of a record, 0 when there is none.
func (s *recentStore) find(merge, user uint64, requestID string) uint64 {
	seq := s.byMerge[merge&uint64(len(s.byMerge)-1)]
	for step := 0; step < maxChainSteps; step++ {
		e := s.at(seq)
		if e == nil {
			return 0
		}
		if e.merge == merge && e.user == user && e.flags&entryDead == 0 && s.requestID(e) == requestID {
			return seq
		}
		seq = e.mergeNext
	}
	return 0
}

// newestOfAttempt returns the newest living entry of an attempt group, 0 when there is none.
func (s *recentStore) newestOfAttempt(attempt, user uint64) uint64 {
	seq := s.byAttempt[attempt&uint64(len(s.byAttempt)-1)]
	for step := 0; step < maxChainSteps; step++ {
		e := s.at(seq)
		if e == nil {
			return 0
		}
		if e.attempt == attempt && e.user == user && e.flags&entryDead == 0 {
			return seq
		}
		seq = e.attemptNext
	}
	return 0
}

func (s *recentStore) newestOfUser(user uint64) *recentEntry {
	seq := s.byUser[user&uint64(len(s.byUser)-1)]
	for step := 0; step < maxChainSteps; step++ {
		e := s.at(seq)
		if e == nil {
			return nil
		}
		if e.user == user {
			return e
		}
		seq = e.userNext
	}
	return nil
}

// ofUser appends the living entries of a user that are wanted to dst, in the order of arrival, last first, at most limit. What is
// not wanted takes no other's place, so that an import of a user's past hides none of the user's present; but the look ends after
// some times as many.
func (s *recentStore) ofUser(dst []uint64, user uint64, limit int, wanted func(*recentEntry) bool) []uint64 {
	seq := s.byUser[user&uint64(len(s.byUser)-1)]
	for steps := 16 * limit; steps > 0 && limit > 0; steps-- {
		e := s.at(seq)
		if e == nil {
			break
		}
		if e.user == user && e.flags&entryDead == 0 && wanted(e) {
			dst = append(dst, seq)
			limit--
		}
		seq = e.userNext
	}
	return dst
}
