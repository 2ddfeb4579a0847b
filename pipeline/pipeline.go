package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
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

func (p *Pipeline) runRouter(ctx context.Context) error {
	c := p.config
	if c.Group != "" {
		return p.runRouterGroup(ctx)
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
				case <-time.After(p.config.topicsInterval):
				case <-watch.Done():
					return
				}
			}
		})
	}
	return p.router.sources(ctx, noMember(), nil, more)
}

// runRouterGroup shares the raw partitions with the other members of the group. The members may read different lists of topics: a
// topic goes to those that have it on their list. A topic that is missing is joined when it comes.
func (p *Pipeline) runRouterGroup(ctx context.Context) error {
	g := p.group("router")
	for {
		names, err := p.presentTopics(ctx)
		if err != nil {
			return nil // ctx is done
		}
		same, changed := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-time.After(p.config.topicsInterval):
				case <-same.Done():
					return
				}
				if now, err := p.presentTopics(same); err == nil && !slices.Equal(now, names) {
					p.log.Info("the raw topics have changed; the group is joined anew", "topics", now, "before", names)
					changed()
					return
				}
			}
		})
		g.topics = names
		err = g.run(same, func(ctx context.Context, m member, assigned map[string][]int) error {
			var parts []rawPartition
			for _, t := range p.config.RawTopics {
				for _, id := range assigned[t.Name] {
					parts = append(parts, rawPartition{t, id})
				}
			}
			defer p.owning("router", len(parts))()
			return p.router.sources(ctx, m, parts, nil)
		})
		changed()
		wg.Wait()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// presentTopics returns the names of the raw topics that there are, and waits while there is none. Those that are missing stand
// in the way of readiness.
func (p *Pipeline) presentTopics(ctx context.Context) ([]string, error) {
	missing := p.health.watch("raw topics", 0)
	var names []string
	err := persist(ctx, p.log, missing, "find the raw topics", func() error {
		names = names[:0]
		var absent []string
		for _, t := range p.config.RawTopics {
			switch _, err := p.deps.Kafka.TopicPartitions(ctx, t.Name); {
			case err == nil:
				names = append(names, t.Name)
			case errors.Is(err, kafka.UnknownTopicOrPartition):
				absent = append(absent, t.Name)
			default:
				return err
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("there is no topic %s: %w; make it (an event hub: in the portal), or set SIGNINDIAG_KAFKA_CREATE_TOPICS=true", strings.Join(absent, ", "), kafka.UnknownTopicOrPartition)
		}
		p.absent(absent)
		return nil
	})
	return names, err
}

// absent tells of raw topics that are missing while others are read.
func (p *Pipeline) absent(topics []string) {
	if len(topics) == 0 {
		p.health.forget("missing raw topics", 0)
		return
	}
	p.health.watch("missing raw topics", 0).Set("raw topics that do not exist yet are not read: " + strings.Join(topics, ", "))
	p.log.Warn("raw topics do not exist yet; they are read when they do", "topics", topics)
}

func (p *Pipeline) group(stage string) *group {
	log := p.log.With("stage", stage)
	return &group{
		kafka: p.deps.Kafka, config: p.config, stage: stage, balancer: &stickyBalancer{log: log}, log: log,
		trouble: p.health.watch("group "+p.config.group(stage), 0), metrics: p.metrics,
	}
}

func (p *Pipeline) runShards(ctx context.Context) error {
	c := p.config
	if c.Group == "" {
		ids := make([]int, c.Partitions)
		for i := range ids {
			ids[i] = i
		}
		p.metrics.owned.WithLabelValues("shards").Set(float64(len(ids)))
		return p.serveShards(ctx, noMember(), ids, nil)
	}
	g := p.group("shards")
	g.topics = []string{c.EntitiesTopic}
	if err := p.decideBy(g.balancer); err != nil {
		return err
	}
	tooMany := p.health.watch("partitions of "+c.EntitiesTopic, 0)
	return g.run(ctx, func(ctx context.Context, m member, assigned map[string][]int) error {
		ids := slices.Sorted(slices.Values(assigned[c.EntitiesTopic]))
		// A topic that does not fit is refused at the start; here it has grown since. No router of this number deals to what is new.
		tooMany.Clear()
		if fit := slices.IndexFunc(ids, func(id int) bool { return id >= c.Partitions }); fit >= 0 {
			err := &PartitionCountError{Topic: c.EntitiesTopic, Want: c.Partitions, Got: ids[len(ids)-1] + 1}
			tooMany.Set(err.Error())
			p.log.Error("the entities topic has got more partitions, which are not read", "error", err)
			ids = ids[:fit]
		}
		if len(ids) == 0 {
			p.log.Info("no shard is assigned to this process: there are more processes than shards, or others hold them with other code, settings or catalogue")
		}
		defer p.owning("shards", len(ids))()
		return p.serveShards(ctx, m, ids, g.balancer)
	})
}

// decideBy tells the balancer the fingerprint of the machines that are made now.
func (p *Pipeline) decideBy(b *stickyBalancer) error {
	machine, err := p.shards.deps.NewMachine(0, uint32(p.config.Partitions))
	if err != nil {
		return fmt.Errorf("make a state machine: %w", err)
	}
	b.decide(machine.Fingerprint())
	return nil
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

// serveShards runs the shards until ctx is done, and begins anew after every RestartShards. A member of a group that has no shards
// returns then, so that the generation ends and the balancer hears of its new machines.
func (p *Pipeline) serveShards(ctx context.Context, m member, ids []int, b *stickyBalancer) error {
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
			if b == nil {
				continue
			}
			if err := p.decideBy(b); err != nil || len(ids) == 0 {
				return err
			}
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
