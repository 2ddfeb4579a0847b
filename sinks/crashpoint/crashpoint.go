// Package crashpoint names the steps of the pipeline at which its tests kill it. In a program built without the tag
// crashpoints At does nothing and costs nothing; with it At kills its own process where the environment variable
// SIGNINDIAG_CRASH_AT says so. It lies below sinks since pipeline and sinks both have such steps.
package crashpoint

// Variable names the environment variable that a program with the tag crashpoints reads: NAME:N kills the process with SIGKILL when
// it is at the step of that name for the N-th time.
const Variable = "SIGNINDIAG_CRASH_AT"

// Point is a step. Each has exactly one call of At.
type Point uint8

// The steps, in the way of a record; then those of snapshots, of recovery and of a stop.
const (
	RawFetched Point = iota
	ChunkHandedOver
	ProduceSent
	ProduceAcknowledged
	RecordsStored
	RawCommitted
	EntitiesFetched
	RowsHandedOver
	PartInserted
	RowsInserted
	ProgressStored
	EntitiesCommitted
	SnapshotHalfWritten
	SnapshotWritten
	EpochBaseStored
	StateRestored
	Replaying
	StopReading
	StopFlushed
	Count // how many there are
)

// names is as long as there are steps, so that none can be left out.
var names = [Count]string{
	RawFetched:          "raw_fetched",           // a raw batch is fetched, nothing of it handed over
	ChunkHandedOver:     "chunk_handed_over",     // one of its chunks is handed to a lane
	ProduceSent:         "produce_sent",          // a batch is sent to the entities topic, its answer not read
	ProduceAcknowledged: "produce_acknowledged",  // the answer is read
	RecordsStored:       "records_stored",        // quarantine and raw records are stored, the raw offset is not committed
	RawCommitted:        "raw_committed",         // the raw offset is committed
	EntitiesFetched:     "entities_fetched",      // a batch of the entities topic is fetched
	RowsHandedOver:      "rows_handed_over",      // rows of a message are handed to the sink
	PartInserted:        "part_inserted",         // one part of a block is inserted
	RowsInserted:        "rows_inserted",         // all rows of a block are inserted, its progress is not
	ProgressStored:      "progress_stored",       // the progress is
	EntitiesCommitted:   "entities_committed",    // the entities offsets are committed
	SnapshotHalfWritten: "snapshot_half_written", // half of a snapshot's bytes are written
	SnapshotWritten:     "snapshot_written",      // a snapshot is stored, older ones are not thinned
	EpochBaseStored:     "epoch_base_stored",     // the first snapshot of an epoch is stored, no row of it
	StateRestored:       "state_restored",        // a shard's state is restored, nothing replayed
	Replaying:           "replaying",             // a message is replayed silently
	StopReading:         "stop_reading",          // in a stop: shards read no more, rows are not flushed
	StopFlushed:         "stop_flushed",          // in a stop: rows are flushed, the last snapshots are not taken
}

// String returns the name.
func (p Point) String() string { return names[p] }
