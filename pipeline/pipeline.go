package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/signindiag/signindiag/sinks"
)

// Pipeline is router, shards and sinks of one process. Ready and State are safe for concurrent use.
type Pipeline struct {
	config  Config
	deps    Dependencies
	log     *slog.Logger
	metrics *metrics
	health  *health
	sink    RowSink
	router  *router
	shards  *shards
	restart chan struct{} // holds one wish for a restart of the shards
}

// New checks the configuration and returns a Pipeline. Nothing runs and nothing is connected yet.
func New(config Config, deps Dependencies) (*Pipeline, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure the pipeline: %w", err)
	}
	for _, d := range []struct {
		missing bool
		name    string
	}{
		{deps.Kafka == nil, "Kafka"}, {deps.Quarantine == nil, "Quarantine"}, {deps.Snapshots == nil, "Snapshots"},
		{!config.NoShards && (deps.NewMachine == nil || deps.NewSink == nil || deps.Progress == nil), "NewMachine, NewSink or Progress"},
	} {
		if d.missing {
			return nil, fmt.Errorf("configure the pipeline: dependency %s is missing", d.name)
		}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	p := &Pipeline{config: config, deps: deps, log: deps.Logger, metrics: m, health: newHealth(m.retries), restart: make(chan struct{}, 1)}
	if !config.NoShards {
		m.shards.Set(float64(config.Partitions))
		p.shards = newShards(config, deps, p.log.With("stage", "shards"), m, p.health)
		if p.sink, err = deps.NewSink(p.shards.onDurable); err != nil {
			return nil, fmt.Errorf("make the sink: %w", err)
		}
		p.shards.sink = p.sink
	}
	if !config.NoRouter {
		p.router = &router{config: config, deps: deps, log: p.log.With("stage", "router"), metrics: m, health: p.health}
		for i := range config.Partitions {
			producer, err := newPartitionProducer(deps.Kafka, config.EntitiesTopic, i, config.Compression, p.router.log, nil, m.producer)
			if err != nil {
				return nil, err
			}
			p.router.lanes = append(p.router.lanes, &lane{producer: producer, in: make(chan *chunk, laneQueue), refuse: p.router.refuse})
		}
	}
	return p, nil
}

// Run reads, applies and writes until ctx is done, and then stops in order: no more is read, what the router has is
// written and committed, rows are flushed, shards are snapshotted; all of it within Config.StopTimeout. It returns nil
// after such a stop, also where time ran out, since the next start repeats what is missing; and an error when it
// cannot go on: a topic with another number of partitions, a retention that is too short, a sink that ended. Run may be
// called once.
func (p *Pipeline) Run(ctx context.Context) error {
	// Sinks and lanes outlive ctx: they are what the stop needs. They end with after.
	after, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	work, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var sinksDone sync.WaitGroup
	stopping := make(chan struct{})
	background := func(name string, wg *sync.WaitGroup, ctx context.Context, run func(context.Context) error) {
		wg.Go(func() {
			err := run(ctx)
			select {
			case <-stopping:
				if err != nil {
					p.log.Warn("not everything is stored; the next start repeats it", "part", name, "error", err)
				}
				return
			default:
			}
			if err == nil {
				err = errors.New("it ended")
			}
			err = fmt.Errorf("%s: %w", name, err)
			p.health.fail(err)
			fail(err)
		})
	}
	sinkCtx, endSinks := context.WithCancel(after)
	defer endSinks()
	background("quarantine", &sinksDone, sinkCtx, p.deps.Quarantine.Run)
	if p.deps.RawStore != nil {
		background("raw records", &sinksDone, sinkCtx, p.deps.RawStore.Run)
	}
	if p.sink != nil {
		background("sink", &sinksDone, sinkCtx, p.sink.Run)
	}
	err := p.prepare(work)
	var lanesDone, stages sync.WaitGroup
	laneCtx, endLanes := context.WithCancel(after)
	defer endLanes()
	if err == nil {
		p.health.start()
		if p.router != nil {
			for i, l := range p.router.lanes {
				l.producer.trouble = p.health.watch("write "+p.config.EntitiesTopic, i)
				background(fmt.Sprintf("lane %d", i), &lanesDone, laneCtx, l.run)
			}
		}
		stage := func(run func(context.Context) error) {
			stages.Go(func() {
				if err := run(work); err != nil && work.Err() == nil {
					p.health.fail(err)
					fail(err)
				}
			})
		}
		if p.router != nil {
			stage(p.runRouter)
		}
		if p.shards != nil {
			stage(p.runShards)
		}
		<-work.Done()
		stages.Wait()
	} else {
		fail(err)
	}
	close(stopping)
	endLanes()
	lanesDone.Wait()
	endSinks()
	sinksDone.Wait()
	if ctx.Err() != nil {
		return nil
	}
	err = context.Cause(work)
	p.health.fail(err)
	return err
}

// prepare makes the topics and checks them.
func (p *Pipeline) prepare(ctx context.Context) error {
	c := p.config
	var fatal error
	ensure := func(t TopicConfig) error {
		trouble := p.health.watch("topic "+t.Name, 0)
		defer p.health.forget("topic "+t.Name, 0)
		err := persist(ctx, p.log, trouble, "make sure of topic "+t.Name, func() error {
			_, err := p.deps.Kafka.EnsureTopic(ctx, t)
			var count *PartitionCountError
			var missing *MissingTopicError
			if errors.As(err, &count) || errors.As(err, &missing) || errors.Is(err, kafka.TopicAuthorizationFailed) {
				fatal = err
				return nil
			}
			return err
		})
		return errors.Join(fatal, err)
	}
	if err := ensure(TopicConfig{
		Name: c.EntitiesTopic, Partitions: c.Partitions, Retention: c.EntitiesRetention, AppendTime: true, Replicas: c.Replicas, MinInsyncReplicas: c.MinInsyncReplicas,
	}); err != nil {
		return err
	}
	want := windowsAndLateness + c.LongestOutage
	if err := p.deps.Kafka.CheckRetention(ctx, c.EntitiesTopic, want, p.log); err != nil {
		if !c.AllowShortRetention {
			return err
		}
		p.log.Warn("the retention is too short", "error", err)
	}
	if p.router == nil {
		return nil
	}
	for _, t := range c.RawTopics {
		if c.RawPartitions == 0 {
			continue
		}
		if err := ensure(TopicConfig{
			Name: t.Name, Partitions: c.RawPartitions, AnyPartitions: true, Retention: c.RawRetention, Replicas: c.Replicas, MinInsyncReplicas: c.MinInsyncReplicas,
		}); err != nil {
			return err
		}
	}
	return nil
}

// newPartitionsInterval is how often raw topics are looked at for new partitions, where no group does it.
const newPartitionsInterval = 30 * time.Second

func (p *Pipeline) runRouter(ctx context.Context) error {
	c := p.config
	topics := map[string]RawTopic{}
	var names []string
	for _, t := range c.RawTopics {
		topics[t.Name] = t
		names = append(names, t.Name)
	}
	if c.Group != "" {
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, name := range names {
			wg.Go(func() { p.awaitRawTopic(ctx, name) })
		}
		return runGroup(ctx, p.deps.Kafka, c, p.log, p.health, "router", names, func(ctx context.Context, m member, assigned map[string][]int) error {
			var parts []rawPartition
			for _, t := range c.RawTopics {
				for _, id := range assigned[t.Name] {
					parts = append(parts, rawPartition{t, id})
				}
			}
			defer p.owning("router", len(parts))()
			return p.router.sources(ctx, m, parts, nil)
		})
	}
	more := make(chan []rawPartition)
	var wg sync.WaitGroup
	defer wg.Wait()
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, t := range c.RawTopics {
		wg.Go(func() {
			known := 0
			trouble := p.health.watch("topic "+t.Name, 0)
			for {
				var parts []rawPartition
				if err := persist(watch, p.log, trouble, "read the partitions of topic "+t.Name, func() error {
					found, err := p.deps.Kafka.TopicPartitions(watch, t.Name)
					parts = parts[:0]
					for i := known; i < len(found); i++ {
						parts = append(parts, rawPartition{t, i})
					}
					return err
				}); err != nil {
					return
				}
				if len(parts) > 0 {
					select {
					case more <- parts:
						known += len(parts)
					case <-watch.Done():
						return
					}
				}
				select {
				case <-time.After(newPartitionsInterval):
				case <-watch.Done():
					return
				}
			}
		})
	}
	return p.router.sources(ctx, noMember(), nil, more)
}

// awaitRawTopic tells while a raw topic is missing: a group without its partitions looks as one that has nothing to do.
func (p *Pipeline) awaitRawTopic(ctx context.Context, name string) {
	trouble := p.health.watch("topic "+name, 0)
	_ = persist(ctx, p.log, trouble, "find raw topic "+name, func() error { // an error is the end of ctx
		_, err := p.deps.Kafka.TopicPartitions(ctx, name)
		if errors.Is(err, kafka.UnknownTopicOrPartition) {
			err = fmt.Errorf("%w; make it (an event hub: in the portal), or set SIGNINDIAG_KAFKA_CREATE_TOPICS=true", err)
		}
		return err
	})
}

func (p *Pipeline) runShards(ctx context.Context) error {
	c := p.config
	if c.Group != "" {
		return runGroup(ctx, p.deps.Kafka, c, p.log, p.health, "shards", []string{c.EntitiesTopic}, func(ctx context.Context, m member, assigned map[string][]int) error {
			ids := slices.Sorted(slices.Values(assigned[c.EntitiesTopic]))
			defer p.owning("shards", len(ids))()
			return p.serveShards(ctx, m, ids)
		})
	}
	ids := make([]int, c.Partitions)
	for i := range ids {
		ids[i] = i
	}
	p.metrics.owned.WithLabelValues("shards").Set(float64(len(ids)))
	return p.serveShards(ctx, noMember(), ids)
}

// owning tells the metrics of a generation's partitions, and with the function that it returns of the generation's end.
func (p *Pipeline) owning(stage string, partitions int) (end func()) {
	p.metrics.generations.WithLabelValues(stage).Inc()
	owned := p.metrics.owned.WithLabelValues(stage)
	owned.Set(float64(partitions))
	return func() { owned.Set(0) }
}

// RestartShards makes the shards begin anew with machines of Dependencies.NewMachine, as another start of the process would:
// rows are flushed and states snapshotted, and where the machines' fingerprint is another one, a new epoch begins. The router goes on
// meanwhile. It returns at once and is safe for concurrent use.
func (p *Pipeline) RestartShards() {
	select {
	case p.restart <- struct{}{}:
	default: // one is on its way, and it will make its machines later than now
	}
}

// serveShards runs the shards until ctx is done, and begins anew after every RestartShards.
func (p *Pipeline) serveShards(ctx context.Context, m member, ids []int) error {
	for {
		serving, stop := context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() { served <- p.shards.serve(serving, m, ids) }()
		select {
		case err := <-served:
			stop()
			return err
		case <-p.restart:
			stop()
			if err := <-served; err != nil || ctx.Err() != nil {
				return err
			}
			p.shards.held = map[int]*shard{} // their states are those of the machines before
		}
	}
}

// Ready returns nil when records are read and rows can be written, or one line that says what is in the way.
func (p *Pipeline) Ready() error {
	errs := []error{p.health.ready(), p.deps.Quarantine.Ready()}
	if p.deps.RawStore != nil {
		errs = append(errs, p.deps.RawStore.Ready())
	}
	if p.sink != nil {
		errs = append(errs, p.sink.Ready())
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Durable returns the stored positions of the shards that this process has written, by shard.
func (p *Pipeline) Durable() map[uint16]sinks.Position {
	out := map[uint16]sinks.Position{}
	if p.shards == nil {
		return out
	}
	p.shards.mu.Lock()
	defer p.shards.mu.Unlock()
	for id, pos := range p.shards.durable {
		out[uint16(id)] = pos
	}
	return out
}
