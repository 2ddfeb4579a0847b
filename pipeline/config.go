package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// RawTopic is a topic with records as Azure Monitor writes them.
type RawTopic struct {
	Name string
	// Incarnation is raised by one when the topic was deleted and made again.
	Incarnation uint32
}

// ID is what stands in Source.Topic of the topic's records: a hash of its name, so that the order in which topics
// are configured means nothing, and its incarnation.
func (t RawTopic) ID() uint64 {
	return uint64(uint32(schemas.Hash64(t.Name)))<<32 | uint64(t.Incarnation)
}

// Config configures a Pipeline. Zero values of numbers and times mean the defaults named.
type Config struct {
	// RawTopics are read by the routers.
	RawTopics []RawTopic
	// RawPartitions is the number of partitions that a missing raw topic is made with; 0 makes none and waits
	// for the topic.
	RawPartitions int
	// RawRetention is the retention of a raw topic that is made; 0 lets the broker choose, negative means for ever.
	RawRetention time.Duration

	// EntitiesTopic is the one internal topic; Partitions is the number of its partitions, fixed when it is made,
	// and EntitiesRetention (168 h) its retention then.
	EntitiesTopic     string
	Partitions        int
	EntitiesRetention time.Duration
	// EntitiesIncarnation is raised by one when the entities topic was deleted and made again: the shards keep
	// their state, and the raw topics are read from their first offset once more.
	EntitiesIncarnation uint32
	// Replicas and MinInsyncReplicas of topics that are made; 0 lets the broker choose.
	Replicas, MinInsyncReplicas int

	// Group names the consumer groups: GROUP.router.ENTITIES and GROUP.shards.ENTITIES. With an empty Group this
	// process reads all partitions by itself, without membership, and keeps its offsets under "signindiag": that is
	// for one process (up). Offsets survive a change between the two modes when Group is "signindiag".
	Group string
	// SessionTimeout (30 s), HeartbeatInterval (3 s) and RebalanceTimeout (60 s) are those of the groups.
	SessionTimeout, HeartbeatInterval, RebalanceTimeout time.Duration
	// NoRouter and NoShards leave out a stage, for processes that do only the other.
	NoRouter, NoShards bool

	// Compression of the entities topic; the zero value is none, up and run use CodecLZ4.
	Compression Codec
	// FetchBytes (1 MiB) bounds one fetch of one partition, as it comes; JSON takes 5 to 20 times as much memory when it
	// is decompressed.
	FetchBytes int
	// CommitInterval (1 s) is how often offsets are committed.
	CommitInterval time.Duration

	// SnapshotInterval (60 s) and SnapshotRecords (200 000) say when a shard is snapshotted: whichever comes
	// first, and only when it has moved.
	SnapshotInterval time.Duration
	SnapshotRecords  int64
	// ReplayOnChange (48 h, the longest window) is how far back rows are made again when code, settings or
	// catalogue change.
	ReplayOnChange time.Duration
	// LongestOutage (24 h) is how long a process may be away, with the age of the snapshot that it begins with. The
	// retention of the entities topic must hold that and the windows and lateness, 72 h.
	LongestOutage time.Duration
	// AllowShortRetention makes a retention that is too short a warning.
	AllowShortRetention bool
	// StopTimeout (20 s) bounds what Run does after its context has ended.
	StopTimeout time.Duration

	// topicsInterval (30 s) is how often raw topics are looked at for new ones and for new partitions.
	topicsInterval time.Duration
}

// windowsAndLateness is what a shard may need of the log at least: windows of 48 h and records a day late.
const windowsAndLateness = 72 * time.Hour

// Names of the settings that a person changes to go on after a topic was made again.
const (
	RawIncarnationSetting      = "SIGNINDIAG_KAFKA_RAW_INCARNATION"
	EntitiesIncarnationSetting = "SIGNINDIAG_KAFKA_ENTITIES_INCARNATION"
)

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.EntitiesRetention, 168*time.Hour)
	set(&c.SessionTimeout, 30*time.Second)
	set(&c.HeartbeatInterval, 3*time.Second)
	set(&c.RebalanceTimeout, 60*time.Second)
	set(&c.CommitInterval, time.Second)
	set(&c.SnapshotInterval, 60*time.Second)
	set(&c.ReplayOnChange, 48*time.Hour)
	set(&c.LongestOutage, 24*time.Hour)
	set(&c.StopTimeout, 20*time.Second)
	set(&c.topicsInterval, 30*time.Second)
	if c.FetchBytes == 0 {
		c.FetchBytes = 1 << 20
	}
	if c.SnapshotRecords == 0 {
		c.SnapshotRecords = 200_000
	}
	return c
}

func (c Config) validate() error {
	if len(c.RawTopics) == 0 && !c.NoRouter {
		return errors.New("no raw topic is configured")
	}
	if c.EntitiesTopic == "" {
		return errors.New("no entities topic is configured")
	}
	// Shards are numbered by 16 bits in rows and snapshots; 4096 is more than Kafka's advice for one topic.
	if c.Partitions < 1 || c.Partitions > 4096 {
		return fmt.Errorf("%d partitions of the entities topic are configured, want 1 to 4096", c.Partitions)
	}
	if c.Group != "" {
		if c.HeartbeatInterval >= c.SessionTimeout/2 {
			return fmt.Errorf("the heartbeat interval %s must be less than half of the session timeout %s: a lost session must be noticed before it ends", c.HeartbeatInterval, c.SessionTimeout)
		}
		if c.StopTimeout > c.RebalanceTimeout {
			return fmt.Errorf("the stop timeout %s must not exceed the rebalance timeout %s: what a member writes before it gives up its shards takes up to the one, and it is left out after the other", c.StopTimeout, c.RebalanceTimeout)
		}
	}
	seen := map[uint32]string{}
	for _, t := range c.RawTopics {
		if t.Name == "" || t.Name == c.EntitiesTopic {
			return fmt.Errorf("raw topic %q must have a name other than the entities topic's", t.Name)
		}
		if other, ok := seen[uint32(t.ID()>>32)]; ok {
			return fmt.Errorf("raw topics %s and %s are the same, or their names have the same 32-bit hash: rename one", other, t.Name)
		}
		seen[uint32(t.ID()>>32)] = t.Name
	}
	return nil
}

func (c Config) group(stage string) string {
	name := c.Group
	if name == "" {
		name = "signindiag"
	}
	return name + "." + stage + "." + c.EntitiesTopic
}

// Machine is the state machine of one shard; *detectors.Engine is one.
type Machine interface {
	// Apply advances the machine by one message and appends the rows that it changed. msg and what it points to
	// are valid during the call only.
	Apply(msg *schemas.EntityMessage, offset int64, out *detectors.Rows)
	AppendSnapshot(dst []byte) []byte
	RestoreSnapshot(src []byte) error
	SetEpoch(epoch uint16)
	Fingerprint() uint64
}

// RowSink keeps rows; *sinks.Sink is one.
type RowSink interface {
	// Write takes rows up to and including pos.Offset; it blocks while the sink is full.
	Write(ctx context.Context, rows *detectors.Rows, pos sinks.Position) error
	// Flush returns nil when all that was taken is stored.
	Flush(ctx context.Context) error
	Run(ctx context.Context) error
	Ready() error
}

// Quarantine keeps records that left the way; *sinks.Quarantine is one.
type Quarantine interface {
	Put(ctx context.Context, records []sinks.QuarantinedRecord) error
	Flush(ctx context.Context) error
	Run(ctx context.Context) error
	Ready() error
}

// RawStore keeps records as received; *sinks.RawRecords is one.
type RawStore interface {
	Put(ctx context.Context, records []sinks.RawRecord) error
	Flush(ctx context.Context) error
	Run(ctx context.Context) error
	Ready() error
}

// Dependencies are what a Pipeline works with. The Pipeline runs the sinks: it calls their Run.
type Dependencies struct {
	Kafka *Kafka
	// NewMachine makes the state machine of one shard of so many, without history.
	NewMachine func(shard, shards uint32) (Machine, error)
	// Wanted are the roles that the machine consumes. Catalogue tells which records concern which of them.
	Wanted    schemas.RoleSet
	Catalogue *catalogue.Catalogue
	// NewSink makes the sink for rows. It must call durable when positions are stored with their rows.
	NewSink func(durable func([]sinks.Position)) (RowSink, error)
	// Progress reads the newest stored position of every shard.
	Progress func(ctx context.Context) (map[uint16]sinks.Position, error)
	// OtherEpoch reads the highest epoch that shards of other entities topics have reached, which the first epoch of this one
	// must exceed. It may be nil where there was never another one.
	OtherEpoch func(ctx context.Context) (uint16, error)
	Quarantine Quarantine
	// PassedOver reads which messages of the entities topic are in quarantine because a machine of the fingerprint failed on them
	// (sinks.ReasonPanic), by shard. They are not applied. nil means none.
	PassedOver func(ctx context.Context, incarnation uint32, fingerprint uint64) (map[uint16][]int64, error)
	// RawStore may be nil: records as received are then not kept.
	RawStore  RawStore
	Snapshots *SnapshotStore
	// Logger is silent when nil.
	Logger *slog.Logger
	// Registerer takes the metrics; they are not registered when it is nil.
	Registerer prometheus.Registerer
}

// StoppedError says that one partition is not read any more until a person decides.
type StoppedError struct {
	Topic     string
	Partition int
	// Err is what was found, for example a *LogEndError.
	Err error
	// WayOn says what to do.
	WayOn string
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("%s/%d is not read: %v. %s", e.Topic, e.Partition, e.Err, e.WayOn)
}

// Unwrap returns what was found.
func (e *StoppedError) Unwrap() error { return e.Err }

// IncarnationError says that the configured incarnation of a topic is below the one that was reached.
type IncarnationError struct {
	Topic            string
	Configured, Seen uint32
	Setting          string
}

func (e *IncarnationError) Error() string {
	return fmt.Sprintf("topic %s: %s is %d, but incarnation %d was read already", e.Topic, e.Setting, e.Configured, e.Seen)
}
