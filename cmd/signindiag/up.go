package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// Settings of the demo's traffic.
const (
	// demoHistory is sent at once at the first start, so that windows and pages have something to show.
	demoHistory = 2 * time.Hour
	// demoRate is the average number of records per second, live and in the history.
	demoRate = 10
	// demoBatch is the number of messages that are sent at once; a message holds up to 50 records of 6 KB.
	demoBatch = 50
	// demoAttackEvery is the time between live attacks.
	demoAttackEvery = 90 * time.Second
	// upPartitions is the number of shards of a system on one machine (design: small by default).
	upPartitions = 4
)

type upCommand struct {
	Demo   bool     `help:"Add live made-up traffic with attacks in it."`
	Import []string `help:"Load exported logs at start: JSON, NDJSON or CSV, also .gz. May be given several times." placeholder:"FILE" sep:"none"`
	Files  []string `arg:"" optional:"" help:"Further files for --import." placeholder:"FILE"`
	Data   string   `help:"Data directory (default: signindiag/local below the user's data directory, signindiag/demo with --demo)." placeholder:"DIRECTORY" type:"path"`
	HTTP   string   `name:"http" help:"host:port of the API and the page (default 127.0.0.1:8480, or a free port where that is taken)." placeholder:"ADDRESS"`
	Kafka  string   `help:"host:port of the broker (default: a free port)." placeholder:"ADDRESS"`
	Seed   uint64   `default:"1" help:"Seed of the demo's traffic."`
	Quiet  bool     `help:"Log warnings and errors only."`
	catalogueFlag
	settingsFlag
}

// Run starts everything on this machine and stops it when ctx ends.
func (c upCommand) Run(ctx context.Context, std streams) (err error) {
	files := append(c.Import, c.Files...)
	if len(c.Files) > 0 && len(c.Import) == 0 {
		return fmt.Errorf("unexpected argument %s: files follow --import", c.Files[0])
	}
	for _, file := range files {
		// A name that is wrong is told before minutes of starting.
		if _, err := os.Stat(file); file != "-" && err != nil {
			return err
		}
	}
	configuration, err := c.configure(ctx)
	if err != nil {
		return err
	}
	if _, err := configuration.Catalogue.load(); err != nil {
		return err // before minutes of starting, too
	}
	tenants, err := c.loadSettings(configuration)
	if err != nil {
		return err
	}
	dir := c.Data
	if dir == "" {
		if dir, err = defaultDataDir(c.Demo); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := embedded.LockData(dir)
	if err != nil {
		return err
	}
	stop := cleanups{}
	defer func() { err = errors.Join(err, stop.run()) }()
	stop.add(lock.Close)

	if c.Quiet || configuration.Log.Level == "info" {
		// The screen belongs to the person who tries it; the log file has everything.
		configuration.Log.Level = "warn"
	}
	log, err := newLogger(std.err, configuration.Log)
	if err != nil {
		return err
	}

	broker, err := embedded.StartBroker(embedded.BrokerConfig{DataDir: filepath.Join(dir, "kafka"), Address: c.Kafka, Logger: log.With("part", "broker")})
	if err != nil {
		return err
	}
	stop.add(broker.Close)
	engine, err := startEngine(ctx, std, dir, configuration, log)
	if err != nil {
		return err
	}
	stop.add(engine.Close)

	snapshots := filepath.Join(dir, "snapshots")
	if err := os.MkdirAll(snapshots, 0o700); err != nil {
		return fmt.Errorf("make the directory for snapshots: %w", err)
	}
	configuration.embed(broker.Address(), engine.Address(), snapshots)

	options := systemOptions{pipeline: true, api: true, alerts: true, singleProcess: true, rawPartitions: rawPartitionsOfNewTopic, demo: c.Demo, settings: tenants}
	options.httpAddress, err = c.httpAddress(configuration)
	if err != nil {
		return err
	}
	s, err := openSystem(ctx, configuration, log, options)
	if err != nil {
		return err
	}
	stop.add(func() error { s.close(); return nil })

	// The system stops before the servers below it do, and when one of those ends.
	running, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	ended := make(chan error, 1)
	go func() { ended <- s.run(running) }()
	parts.Go(func() {
		select {
		case <-engine.Done():
			cancel(fmt.Errorf("the embedded ClickHouse ended: %w", engine.Err()))
		case <-running.Done():
		}
	})
	stop.add(func() error {
		cancel(nil)
		parts.Wait()
		return nil
	})
	address := endpoints{
		PID: os.Getpid(), Kafka: broker.Address(), RawTopic: configuration.Kafka.RawTopics[0],
		ClickHouse: engine.Address(), Database: configuration.ClickHouse.Database, HTTP: "http://" + s.address.String(),
		Snapshots: snapshots, Catalogue: configuration.Catalogue.File, Settings: configuration.Settings.File,
	}
	if address.Settings != "" {
		// Other commands find it from where they run.
		if address.Settings, err = filepath.Abs(address.Settings); err != nil {
			cancel(nil)
			return errors.Join(fmt.Errorf("find the settings: %w", err), <-ended)
		}
	}
	if err := writeEndpoints(dir, address); err != nil {
		cancel(nil)
		return errors.Join(err, <-ended)
	}
	stop.add(func() error { return removeEndpoints(dir) })
	fmt.Fprintf(std.out, "Page and API  %s\nKafka         %s (topic %s)\nClickHouse    %s (database %s)\nData          %s\n\n",
		address.HTTP, address.Kafka, address.RawTopic, address.ClickHouse, address.Database, dir)

	work := make(chan error, 1)
	parts.Go(func() { work <- c.feed(running, std, s, files, log) })
	for {
		select {
		case err := <-work:
			// Imports that failed in part have said so; the system stays up to be asked.
			if err != nil && running.Err() == nil && !errors.Is(err, errFailed) {
				cancel(nil)
				return errors.Join(err, <-ended)
			}
			work = nil
		case err := <-ended:
			if cause := context.Cause(running); cause != nil && ctx.Err() == nil {
				err = errors.Join(cause, err)
			}
			if ctx.Err() != nil {
				fmt.Fprintln(std.err, "stopping")
			}
			return err
		}
	}
}

// httpAddress returns where the API listens: as told, else as configured, else a free port where the configured one is
// taken on loopback.
func (c upCommand) httpAddress(configuration *config) (string, error) {
	if c.HTTP != "" {
		return c.HTTP, nil
	}
	address := configuration.HTTP.Address
	if _, set := os.LookupEnv(envPrefix + "HTTP_ADDRESS"); set {
		return address, nil
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return "127.0.0.1:0", nil
	}
	if err != nil {
		return "", fmt.Errorf("listen for HTTP on %s: %w", address, err)
	}
	return address, listener.Close()
}

// startEngine starts the embedded ClickHouse and tells how far it is.
func startEngine(ctx context.Context, std streams, dir string, configuration *config, log *slog.Logger) (*embedded.ClickHouse, error) {
	show := newEngineProgress(std)
	defer show.finish()
	return embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{
		DataDir:  filepath.Join(dir, "clickhouse"),
		Library:  configuration.ClickHouse.Library,
		CacheDir: configuration.ClickHouse.Cache,
		Progress: show.report,
		Logger:   log,
	})
}

// engineProgress shows fetching and starting the engine: a bar on a terminal, a line a stage elsewhere.
type engineProgress struct {
	std      streams
	terminal bool
	bar      *progressbar.ProgressBar
	stage    string
	tenth    int64
}

func newEngineProgress(std streams) *engineProgress {
	file, ok := std.err.(*os.File)
	return &engineProgress{std: std, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

func (p *engineProgress) report(progress embedded.Progress) {
	if progress.Stage != p.stage {
		p.finish()
		p.stage = progress.Stage
		switch progress.Stage {
		case embedded.StageFetch:
			fmt.Fprintln(p.std.err, "fetching ClickHouse's engine with npm, once")
			if p.terminal && progress.Total > 0 {
				p.bar = progressbar.NewOptions64(progress.Total, progressbar.OptionSetWriter(p.std.err), progressbar.OptionShowBytes(true),
					progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetWidth(30))
			}
		case embedded.StageStart:
			fmt.Fprintln(p.std.err, "starting ClickHouse")
		}
	}
	if p.stage != embedded.StageFetch || progress.Total <= 0 {
		return
	}
	if p.bar != nil {
		_ = p.bar.Set64(min(progress.Done, progress.Total)) // a bar that cannot be drawn is no failure
	} else if tenth := 10 * progress.Done / progress.Total; tenth > p.tenth && !p.terminal {
		p.tenth = tenth
		fmt.Fprintf(p.std.err, "fetched %d %%\n", 10*tenth)
	}
}

func (p *engineProgress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}

// feed loads the files, then shows a diagnosis, then sends the demo's traffic until ctx ends.
func (c upCommand) feed(ctx context.Context, std streams, s *system, files []string, log *slog.Logger) error {
	if len(files) == 0 && !c.Demo {
		fmt.Fprintf(std.out, "Load exported logs:  %[1]s import FILE...\nLook up a sign-in:   %[1]s lookup ID\nStop:                Ctrl-C\n", invocation())
		return nil
	}
	topic := s.config.Kafka.RawTopics[0]
	if _, err := s.kafka.EnsureTopic(ctx, pipeline.TopicConfig{Name: topic, Partitions: rawPartitionsOfNewTopic, Replicas: 1, AnyPartitions: true}); err != nil {
		return err
	}
	producer, err := pipeline.NewRawProducer(ctx, s.kafka, topic, pipeline.CodecLZ4, log)
	if err != nil {
		return err
	}
	defer producer.Close()
	failed := false
	if len(files) > 0 {
		report, err := importFiles(ctx, std, producer, files, 0)
		report.write(std)
		if err != nil {
			return err
		}
		failed = report.failed()
		if report.last != "" {
			if err := awaitRecord(ctx, s.store, report.last); err != nil {
				return err
			}
			if err := c.show(ctx, std, s, report.example()); err != nil {
				return err
			}
		}
	}
	if c.Demo {
		if err := c.demo(ctx, std, s, producer); err != nil && ctx.Err() == nil {
			return err
		}
	}
	if failed {
		return errFailed
	}
	return nil
}

// show prints the diagnosis of one record and how to look it up again.
func (c upCommand) show(ctx context.Context, std streams, s *system, id string) error {
	result, err := s.store.Find(ctx, id)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := s.renderer.WriteText(&text, s.renderer.Report(result.Diagnosis(), catalogue.AllCapabilities)); err != nil {
		return err
	}
	data := ""
	if c.Data != "" {
		data = " --data " + c.Data
	}
	_, err = io.WriteString(std.out, text.String()+fmt.Sprintf("\nLook it up again:  %s lookup%s %s\n                   curl http://%s/v1/diagnoses/%s\nStop:              Ctrl-C\n", invocation(), data, id, s.address, id))
	return err
}

// invocation is how this program was called, as a person would type it.
func invocation() string {
	if strings.Contains(filepath.ToSlash(os.Args[0]), "/go-build") {
		return "go run ./cmd/signindiag"
	}
	return os.Args[0]
}

// demo sends some history and then live traffic with an attack now and then, until ctx ends. It shows one diagnosis as
// soon as one is there.
func (c upCommand) demo(ctx context.Context, std streams, s *system, producer *pipeline.RawProducer) error {
	now := time.Now().UTC()
	start := now.Add(-demoHistory).Truncate(time.Second)
	// Another start goes on with other records: the seed moves with the clock's hour.
	traffic, err := synthetic.NewTraffic(synthetic.Options{
		Seed: c.Seed + uint64(start.Unix()), Start: start, Rate: demoRate, MaxDelay: 2 * time.Minute,
		Attacks: []synthetic.Attack{
			{Kind: "repeated_failures", At: start.Add(20 * time.Minute)},
			{Kind: "account_lockout", At: start.Add(45 * time.Minute), FirstUser: 20},
			{Kind: "password_spray", At: start.Add(70 * time.Minute), FirstUser: 40},
			{Kind: "legacy_auth", At: start.Add(95 * time.Minute), FirstUser: 90},
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "Sending two hours of made-up sign-ins with attacks in them, then live ones.\n\n")
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	kinds := synthetic.AttackKinds()
	nextAttack, attacks, shown := now.Add(demoAttackEvery), 0, false
	var batch [][]byte
	for {
		now := time.Now().UTC()
		if now.After(nextAttack) {
			planted := synthetic.Attack{Kind: kinds[attacks%len(kinds)], At: now.Add(5 * time.Second), FirstUser: 10 * attacks % 400}
			if _, err := traffic.Plant(planted); err != nil {
				return err
			}
			attacks++
			nextAttack = now.Add(demoAttackEvery)
		}
		batch = batch[:0]
		for len(batch) < demoBatch {
			message, n := traffic.Due(now)
			if n == 0 {
				break
			}
			batch = append(batch, append([]byte(nil), message...))
		}
		if len(batch) > 0 {
			if _, err := producer.Send(ctx, batch); err != nil {
				return err
			}
		}
		if len(batch) == demoBatch {
			continue
		}
		if !shown {
			id, err := demoExample(ctx, s.store)
			if err != nil {
				return err
			}
			if id != "" {
				if err := c.show(ctx, std, s, id); err != nil {
					return err
				}
				shown = true
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// demoExample returns the id of a record that shows what a single record does not: a member of an incident. It is empty while
// there is none.
func demoExample(ctx context.Context, store *lookup.Store) (string, error) {
	page, err := store.Incidents(ctx, lookup.IncidentFilter{Kind: "repeated_failures", Limit: 1})
	if err != nil || len(page.Incidents) == 0 || len(page.Incidents[0].RequestIDs) == 0 {
		return "", err
	}
	ids := page.Incidents[0].RequestIDs
	return ids[len(ids)-1], nil
}

// cleanups are run last first.
type cleanups struct {
	steps []func() error
}

func (c *cleanups) add(step func() error) { c.steps = append(c.steps, step) }

// run runs all steps, also after one failed, and returns all errors.
func (c *cleanups) run() error {
	var errs []error
	for i := len(c.steps) - 1; i >= 0; i-- {
		errs = append(errs, c.steps[i]())
	}
	return errors.Join(errs...)
}
