package sinks

import (
	"slices"
	"time"
)

// partitions holds the tables of a block by partition, named by the first day of it as days since
// 1970-01-01.
type partitions[T table] struct {
	make   func() T
	tables map[int32]T
	// idle are tables without rows that keep their memory.
	idle    []T
	lastDay int32
	last    T
	valid   bool // last belongs to lastDay
	sorted  []int32
}

// maxIdle bounds the tables that keep their memory without being used: live traffic touches one or two
// weeks, an import of old logs perhaps hundreds.
const maxIdle = 8

// at returns the table of a partition.
func (p *partitions[T]) at(day int32) T {
	if p.valid && p.lastDay == day {
		return p.last
	}
	t, ok := p.tables[day]
	if !ok {
		if n := len(p.idle); n > 0 {
			t = p.idle[n-1]
			p.idle = p.idle[:n-1]
		} else {
			t = p.make()
		}
		if p.tables == nil {
			p.tables = make(map[int32]T)
		}
		p.tables[day] = t
	}
	p.last, p.lastDay, p.valid = t, day, true
	return t
}

// days returns the partitions that have rows, oldest first. The slice is reused.
func (p *partitions[T]) days() []int32 {
	p.sorted = p.sorted[:0]
	for day := range p.tables {
		p.sorted = append(p.sorted, day)
	}
	slices.Sort(p.sorted)
	return p.sorted
}

// reset empties all partitions and keeps the largest tables for the next block.
func (p *partitions[T]) reset() {
	if len(p.tables)+len(p.idle) > maxIdle {
		var all []T
		for _, t := range p.tables {
			all = append(all, t)
		}
		all = append(all, p.idle...)
		slices.SortFunc(all, func(a, b T) int { return b.size() - a.size() })
		p.idle = all[:maxIdle]
	} else {
		for _, t := range p.tables {
			p.idle = append(p.idle, t)
		}
	}
	for _, t := range p.idle {
		t.reset()
	}
	clear(p.tables)
	p.valid = false
}

// dayName names a partition in tokens and errors.
func dayName(day int32) string {
	return time.Unix(int64(day)*24*60*60, 0).UTC().Format(time.DateOnly)
}

// weekOf returns the partition of tables by week of event time: the Monday of the week of a time in
// microseconds.
func weekOf(micros int64) int32 { return int32(monday(floorDay(micros, microsPerDay))) }

// weekOfMillis is weekOf for a time in milliseconds, dayOfMillis its day.
func weekOfMillis(ms int64) int32 { return int32(monday(floorDay(ms, millisPerDay))) }
func dayOfMillis(ms int64) int32  { return int32(floorDay(ms, millisPerDay)) }
