package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// stopTimeout bounds each step of a graceful stop; together they stay within the 30 s that container runtimes give.
const stopTimeout = 10 * time.Second

// system is the pipeline and the API over one Kafka and one ClickHouse, wired from the configuration.
type system struct {
	config    *config
	log       *slog.Logger
	registry  *prometheus.Registry
	catalogue *catalogue.Catalogue
	renderer  detectors.Renderer
	conn      driver.Conn
	store     *lookup.Store
	pipeline  *pipeline.Pipeline
	kafka     *pipeline.Kafka
	server    *lookup.Server
	address   net.Addr
	// settings are those in force. reload replaces them.
	settings     atomic.Pointer[detectors.Settings]
	settingsInfo *prometheus.GaugeVec
	outbox       *sinks.Outbox // nil without a receiver of alerts
}

// systemOptions say what of a system is wanted beside what the configuration tells.
type systemOptions struct {
	// pipeline is false for an API without a pipeline.
	pipeline bool
	// api is false for a pipeline without an API.
	api bool
	// alerts sends incidents to the receivers that are configured.
	alerts bool
	// singleProcess reads all partitions without a consumer group.
	singleProcess bool
	// rawPartitions is the number of partitions that missing raw topics are made with, 0 to make none.
	rawPartitions int
	// httpAddress overrides the configured address.
	httpAddress string
	// settings of the tenants, for a pipeline; nil means the defaults.
	settings *detectors.Settings
	// demo marks the pages as showing made-up records.
	demo bool
}

// openSystem connects, brings the tables up to date and wires everything; nothing runs yet. The caller closes it.
func openSystem(ctx context.Context, c *config, log *slog.Logger, o systemOptions) (s *system, err error) {
	s = &system{config: c, log: log, registry: prometheus.NewRegistry()}
	opened := s // a return of nil sets s
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if s.catalogue, err = c.Catalogue.load(); err != nil {
		return nil, err
	}
	s.renderer = detectors.Renderer{Catalogue: s.catalogue}
	server, err := c.ClickHouse.server()
	if err != nil {
		return nil, err
	}
	if o.pipeline {
		if _, err := migrate(ctx, c); err != nil {
			return nil, err
		}
	}
	if s.conn, err = sinks.Open(ctx, server); err != nil {
		return nil, err
	}
	s.store = lookup.NewStore(s.conn, s.catalogue, log)
	if o.pipeline {
		if err := s.openPipeline(server, o); err != nil {
			return nil, err
		}
	}
	if o.api {
		if err := s.openServer(ctx, o); err != nil {
			return nil, err
		}
	}
	if o.alerts && c.Alerts.configured() {
		if err := s.openOutbox(o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// openOutbox makes what sends alerts. Nothing that it does or fails to do holds up the pipeline or makes it unready.
func (s *system) openOutbox(options systemOptions) error {
	o, err := s.config.Alerts.outbox()
	if err != nil {
		return err
	}
	o.Conn, o.Database, o.Renderer, o.Logger, o.Registerer = s.conn, s.config.ClickHouse.Database, s.renderer, s.log, s.registry
	o.Alone = options.singleProcess
	if tcp, ok := s.address.(*net.TCPAddr); ok && o.PageURL == "" && tcp.IP.IsLoopback() {
		o.PageURL = "http://" + s.address.String()
	}
	s.outbox, err = sinks.NewOutbox(o)
	return err
}

func (s *system) openPipeline(server sinks.Server, o systemOptions) (err error) {
	c := s.config
	s.settingsInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "signindiag_settings_info", Help: "1 for the settings in force, by their fingerprint.",
	}, []string{"fingerprint"})
	s.registry.MustRegister(s.settingsInfo)
	s.use(cmp.Or(o.settings, detectors.DefaultSettings()))
	if s.kafka, err = pipeline.OpenKafka(c.Kafka.connection()); err != nil {
		return err
	}
	records := sinks.RecordsConfig{Server: server, Logger: s.log, Registerer: s.registry}
	quarantine, err := sinks.NewQuarantine(records)
	if err != nil {
		return fmt.Errorf("make the quarantine: %w", err)
	}
	settings := pipeline.Config{
		EntitiesTopic:       c.Kafka.EntitiesTopic,
		Partitions:          c.Kafka.EntitiesPartitions,
		EntitiesRetention:   c.Kafka.EntitiesRetention,
		EntitiesIncarnation: c.Kafka.Incarnation,
		Replicas:            max(c.Kafka.Replication, 0),
		Group:               c.Kafka.Group,
		Compression:         pipeline.CodecLZ4,
		SnapshotInterval:    c.Snapshots.Interval,
		RawPartitions:       o.rawPartitions,
	}
	if settings.Replicas >= 3 {
		// One broker may be away without a stop, and none may be lost with what was acknowledged.
		settings.MinInsyncReplicas = 2
	}
	if o.singleProcess {
		settings.Group = ""
	}
	for _, name := range c.Kafka.RawTopics {
		settings.RawTopics = append(settings.RawTopics, pipeline.RawTopic{Name: name, Incarnation: c.Kafka.RawIncarnation})
	}
	snapshots, err := pipeline.OpenSnapshots(context.Background(), c.Snapshots.URL, s.log)
	if err != nil {
		return err
	}
	dependencies := pipeline.Dependencies{
		Kafka: s.kafka,
		NewMachine: func(shard, shards uint32) (pipeline.Machine, error) {
			return detectors.NewEngine(detectors.Options{
				Catalogue: s.catalogue, Settings: s.settings.Load(), Shard: shard, Shards: shards,
			})
		},
		Wanted: detectors.WantedRoles(), Catalogue: s.catalogue,
		NewSink: func(durable func([]sinks.Position)) (pipeline.RowSink, error) {
			return sinks.NewSink(sinks.Config{
				Server: server, EntitiesTopic: c.Kafka.EntitiesTopic, Renderer: s.renderer,
				// Below the session timeout of the consumer groups (45 s), so that no INSERT outlives a lost session.
				InsertTimeout: 30 * time.Second,
				Logger:        s.log, Registerer: s.registry, OnDurable: durable,
			})
		},
		Progress: func(ctx context.Context) (map[uint16]sinks.Position, error) {
			return sinks.ReadProgress(ctx, s.conn, server.Database, c.Kafka.EntitiesTopic)
		},
		Quarantine: quarantine,
		Snapshots:  snapshots,
		Logger:     s.log,
		Registerer: s.registry,
	}
	if c.ClickHouse.RawRecords {
		raw, err := sinks.NewRawRecords(records)
		if err != nil {
			return fmt.Errorf("make the store of raw records: %w", err)
		}
		dependencies.RawStore = raw
	}
	s.pipeline, err = pipeline.New(settings, dependencies)
	return err
}

func (s *system) openServer(ctx context.Context, o systemOptions) error {
	viewer, err := s.config.HTTP.viewer()
	if err != nil {
		return err
	}
	settings := lookup.Config{
		Viewer:     viewer,
		Metrics:    promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry}),
		Registerer: s.registry,
		Log:        s.log,
		Demo:       o.demo,
	}
	if s.pipeline != nil {
		settings.Engine = func() []lookup.EngineShard { return engineShards(s.pipeline) }
		ready := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "signindiag_ready", Help: "1 while rows flow, 0 when /readyz says why they do not."},
			func() float64 {
				if s.pipeline.Ready() != nil {
					return 0
				}
				return 1
			})
		if err := s.registry.Register(ready); err != nil {
			return fmt.Errorf("register the metric of readiness: %w", err)
		}
		settings.Ready = func(context.Context) []string {
			if err := s.pipeline.Ready(); err != nil {
				return []string{err.Error()}
			}
			return nil
		}
	}
	if s.server, err = lookup.NewServer(settings, s.store, s.renderer, s.catalogue); err != nil {
		return err
	}
	address := o.httpAddress
	if address == "" {
		address = s.config.HTTP.Address
	}
	if s.address, err = s.server.Listen(ctx, address); err != nil {
		return err
	}
	if tcp, ok := s.address.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && s.config.HTTP.Tokens == "" {
		s.log.Warn("the API listens beyond loopback and asks nobody for a token: everyone who reaches it sees what SIGNINDIAG_HTTP_CAPABILITIES allows",
			"address", s.address.String(), "capabilities", s.config.HTTP.Capabilities)
	}
	return nil
}

// run runs what was wired until ctx ends or a part of it fails, and then stops all of it in order.
func (s *system) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := 0
	ended := make(chan error, 3)
	start := func(run func() error) {
		parts++
		go func() { ended <- run() }()
	}
	if s.pipeline != nil {
		start(func() error { return s.pipeline.Run(ctx) })
		defer s.reloadOnSignal(ctx, cancel)()
	}
	if s.server != nil {
		start(s.server.Serve)
	}
	if s.outbox != nil {
		start(func() error { return s.outbox.Run(ctx) })
	}
	var errs []error
	select {
	case <-ctx.Done():
	case err := <-ended:
		parts--
		if err == nil && ctx.Err() == nil {
			err = errors.New("a part of the system ended unasked")
		}
		errs = append(errs, err)
	}
	cancel()
	if s.server != nil {
		stopping, done := context.WithTimeout(context.Background(), stopTimeout)
		errs = append(errs, s.server.Shutdown(stopping))
		done()
	}
	for range parts {
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// close ends the connections. It is called after run has returned.
func (s *system) close() {
	if s.conn != nil {
		_ = s.conn.Close() // queries only: nothing is lost
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
}

// newServiceLogger returns the logger of a long-running command, on standard error.
func newServiceLogger(c *config) (*slog.Logger, error) { return newLogger(os.Stderr, c.Log) }

type runCommand struct {
	catalogueFlag
	settingsFlag
}

// Run runs the pipeline and the API on external servers until a signal ends it.
func (command runCommand) Run(ctx context.Context) error {
	c, err := command.configure(ctx)
	if err != nil {
		return err
	}
	if err := c.needServers(true, true); err != nil {
		return err
	}
	if c.Snapshots.URL == "" {
		return errors.New("SIGNINDIAG_SNAPSHOTS_URL is not set: expected where state is kept, such as file:///var/lib/signindiag/snapshots")
	}
	tenants, err := command.loadSettings(c)
	if err != nil {
		return err
	}
	log, err := newServiceLogger(c)
	if err != nil {
		return err
	}
	options := systemOptions{pipeline: true, api: true, alerts: true, settings: tenants}
	if c.Kafka.CreateTopics {
		options.rawPartitions = rawPartitionsOfNewTopic
	}
	s, err := openSystem(ctx, c, log, options)
	if err != nil {
		return err
	}
	defer s.close()
	log.Info("signindiag runs", "version", versionText(), "api", "http://"+s.address.String(), "kafka", c.Kafka.Brokers, "clickhouse", c.ClickHouse.Addresses)
	return s.run(ctx)
}

// rawPartitionsOfNewTopic is how many partitions a raw topic gets that is made here: enough for two cores, and few enough
// for a laptop.
const rawPartitionsOfNewTopic = 4

type serveCommand struct {
	catalogueFlag
}

// Run serves the API and the page until a signal ends it.
func (r serveCommand) Run(ctx context.Context) error {
	c, err := r.configure(ctx)
	if err != nil {
		return err
	}
	if err := c.needServers(false, true); err != nil {
		return err
	}
	log, err := newServiceLogger(c)
	if err != nil {
		return err
	}
	s, err := openSystem(ctx, c, log, systemOptions{api: true})
	if err != nil {
		return err
	}
	defer s.close()
	log.Info("signindiag serves", "version", versionText(), "api", "http://"+s.address.String(), "clickhouse", c.ClickHouse.Addresses)
	return s.run(ctx)
}
