// Package sinks takes rows to where they are kept: ClickHouse for diagnoses, incidents and progress,
// for quarantined records and for raw records.
//
// There is one Sink per process, fed by all shards. It collects rows in columns, block by block: one
// block fills while the one before it is inserted. A block is split by table and partition, each part is
// one INSERT under a deduplication token of its own, and only when all of them are acknowledged is the
// position of every shard written to the table progress. A crash in between repeats rows, which the
// tables' keys make invisible; nothing is skipped. A server that refuses rows is asked again for ever: no position
// moves, Write blocks, Ready says why. Only a row that is itself bad leaves the way, to the table
// quarantine.
package sinks
