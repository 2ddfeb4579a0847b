package detectors

import (
	"cmp"
	"slices"
)

// flaggedSpan is how long Entra flags every sign-in of a user who asked for it on an error page, in microseconds.
// https://learn.microsoft.com/en-us/entra/identity/monitoring-health/overview-flagged-sign-ins
const flaggedSpan int64 = 20 * 60 * 1e6

// flaggedOf returns the user's flagged records, oldest first, the last 64 that the store holds.
// The slice is valid until the next use of e.ofUser.
func (e *Engine) flaggedOf(user uint64) []uint64 {
	e.ofUser = e.recent.ofUser(e.ofUser[:0], user, maxRevisedRecords, func(x *recentEntry) bool { return x.flags&entryFlagged != 0 })
	flagged := e.ofUser
	slices.SortFunc(flagged, func(a, b uint64) int { return e.recent.at(a).instant().compare(e.recent.at(b).instant()) })
	return flagged
}

// flaggedView tells of the flagged sign-ins among which an entry is. A group begins with a flagged record that is in none, and
// holds those of the 20 minutes from there on, so that it does not depend on the order of arrival.
func (e *Engine) flaggedView(entry *recentEntry, v *FlaggedView) {
	v.Records, v.First, v.FailureCodes = 0, 0, v.FailureCodes[:0]
	for _, seq := range e.flaggedOf(entry.user) {
		x := e.recent.at(seq)
		if v.Records == 0 || x.eventTime-v.First > flaggedSpan {
			if x.eventTime > entry.eventTime {
				return // the group of the entry is complete
			}
			v.Records, v.First, v.FailureCodes = 0, x.eventTime, v.FailureCodes[:0]
		}
		v.Records++
		if x.kind == kindFailure && !slices.Contains(v.FailureCodes, x.code) {
			v.FailureCodes = append(v.FailureCodes, x.code)
		}
	}
}

// appendFlagged appends to dst the flagged records of a user whose groups may change with one at time t: those that are tied to
// it by neighbours at most 20 minutes apart, since every longer gap begins a group.
func (e *Engine) appendFlagged(dst []uint64, user uint64, t int64) []uint64 {
	flagged := e.flaggedOf(user)
	time := func(i int) int64 { return e.recent.at(flagged[i]).eventTime }
	at, _ := slices.BinarySearchFunc(flagged, t, func(seq uint64, t int64) int { return cmp.Compare(e.recent.at(seq).eventTime, t) })
	from, to := at, at
	for edge := t; from > 0 && edge-time(from-1) <= flaggedSpan; from-- {
		edge = time(from - 1)
	}
	for edge := t; to < len(flagged) && time(to)-edge <= flaggedSpan; to++ {
		edge = time(to)
	}
	return append(dst, flagged[from:to]...)
}
