package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/sinks"
)

type verifyCommand struct {
	Data     string `help:"Data directory of a running signindiag up (default: the one that runs, or what the environment says as for run)." placeholder:"DIRECTORY" type:"path"`
	From     string `help:"Compare rows of diagnoses from this event time on (RFC 3339 or a date). Bounds the memory: about 50 bytes for each row of one shard in four tables." placeholder:"TIME"`
	To       string `help:"Compare rows of diagnoses before this event time." placeholder:"TIME"`
	Complete bool   `help:"Fail also while messages wait to be worked on."`
	Presence bool   `help:"Only look whether messages and rows are there where this program would make others: other settings, catalogue or version."`
	Format   string `enum:"text,json" default:"text" help:"text for people, json for programs."`
	catalogueFlag
	settingsFlag
}

// Help tells kong what to say of the command beyond its flags.
func (verifyCommand) Help() string {
	return `Reads the raw topics up to the committed offsets and deals them once more: every message must stand in the entities topic, once and as it
is made, every broken record in quarantine and every record as received in raw_records. Then replays every shard of the entities topic from the
beginning of its epoch: every row must stand in ClickHouse, in its newest revision, with every column as it is made, and no other. The pipeline
may run meanwhile or be stopped; nothing is written.`
}

// Run compares and prints what it found. Anything that is not exact is a failure.
func (c verifyCommand) Run(ctx context.Context, std streams) (err error) {
	configuration, err := c.configure(ctx)
	if err != nil {
		return err
	}
	if c.Settings != "" {
		configuration.Settings.File = c.Settings
	}
	single := false
	if c.Data != "" || len(configuration.Kafka.Brokers) == 0 && len(configuration.ClickHouse.Addresses) == 0 {
		running, err := readEndpoints(c.Data)
		if errors.Is(err, errNotRunning) {
			return fmt.Errorf("%w: start it, name its data directory with --data, or set what run needs (SIGNINDIAG_KAFKA_BROKERS, SIGNINDIAG_CLICKHOUSE_ADDRESSES, SIGNINDIAG_SNAPSHOTS_URL)", err)
		}
		if err != nil {
			return err
		}
		running.use(configuration)
		single = true
	}
	if err := configuration.needServers(true, true); err != nil {
		return err
	}
	var options pipeline.VerifyOptions
	options.PresenceOnly, options.Complete = c.Presence, c.Complete
	if options.From, err = parseBound(c.From); err != nil {
		return err
	}
	if options.To, err = parseBound(c.To); err != nil {
		return err
	}
	report, err := verify(ctx, configuration, single, std, options)
	if err != nil {
		return err
	}
	if c.Format == "json" {
		err = printJSON(std.out, report)
	} else {
		err = report.WriteText(std.out)
	}
	if err == nil && !report.Exact {
		err = errFailed
	}
	return err
}

func parseBound(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return lookup.ParseTime(text)
}

// verify compares what the configuration names.
func verify(ctx context.Context, c *config, singleProcess bool, std streams, options pipeline.VerifyOptions) (report *pipeline.VerifyReport, err error) {
	if c.Snapshots.URL == "" {
		return nil, errors.New("SIGNINDIAG_SNAPSHOTS_URL is not set: expected where the pipeline keeps its state, such as file:///var/lib/signindiag/snapshots")
	}
	log, err := newLogger(std.err, c.Log)
	if err != nil {
		return nil, err
	}
	cat, err := c.Catalogue.load()
	if err != nil {
		return nil, err
	}
	tenants, err := c.Settings.load()
	if err != nil {
		return nil, err
	}
	server, err := c.ClickHouse.server()
	if err != nil {
		return nil, err
	}
	conn, err := sinks.Open(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // queries only: nothing is lost
	kafka, err := pipeline.OpenKafka(c.Kafka.connection())
	if err != nil {
		return nil, err
	}
	defer kafka.Close()
	snapshots, err := pipeline.OpenSnapshots(ctx, c.Snapshots.URL, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snapshots.Close()) }()
	return pipeline.Verify(ctx, c.pipeline(singleProcess), pipeline.VerifyDependencies{
		Kafka: kafka,
		NewMachine: func(shard, shards uint32) (pipeline.Machine, error) {
			return newEngine(cat, tenants, shard, shards)
		},
		Wanted: detectors.WantedRoles(), Catalogue: cat, Renderer: detectors.Renderer{Catalogue: cat},
		Tables: sinks.VerifyReader{Conn: conn, Database: server.Database},
		PassedOver: func(ctx context.Context, incarnation uint32, fingerprint uint64) (map[uint16][]int64, error) {
			return sinks.ReadPassedOver(ctx, conn, server.Database, c.Kafka.EntitiesTopic, incarnation, fingerprint)
		},
		Snapshots:  snapshots,
		RawRecords: c.ClickHouse.RawRecords,
		Logger:     log,
	}, options)
}
