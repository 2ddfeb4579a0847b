package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

type benchCommand struct {
	Records int64  `default:"500000" help:"Number of records, repeats included."`
	Seed    uint64 `default:"1" help:"Equal seeds give equal records."`
	Users   int    `default:"20000" help:"Users per tenant."`
	CPU     string `name:"cpu-profile" help:"Write a CPU profile of the run (go tool pprof)." placeholder:"FILE" type:"path"`
	Format  string `enum:"text,json" default:"text" help:"text for people, json for programs."`
}

// benchResult is what one run measured. CPU, allocations and memory are those of this process alone: router, shards and sink;
// the broker and ClickHouse run in processes of their own on the same machine.
type benchResult struct {
	Records             int64   `json:"records"`
	RecordBytes         float64 `json:"record_bytes"`
	Seconds             float64 `json:"seconds"`
	RecordsPerSecond    float64 `json:"records_per_second"`
	MegabytesPerSecond  float64 `json:"megabytes_per_second"`
	CPUMicrosPerRecord  float64 `json:"cpu_microseconds_per_record"`
	AllocationsPerRec   float64 `json:"allocations_per_record"`
	AllocatedBytesPerRe float64 `json:"allocated_bytes_per_record"`
	PeakMemoryBytes     int64   `json:"peak_memory_bytes"`
	Rows                uint64  `json:"rows"`
	RequestIDs          uint64  `json:"request_ids"`
	Incidents           uint64  `json:"incidents"`
	Cores               int     `json:"cores"`
}

// Run fills a raw topic, lets the pipeline work it off, and tells what that took.
func (c benchCommand) Run(ctx context.Context, std streams) (err error) {
	configuration, err := loadConfig(ctx, nil)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "signindiag-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for the data: %w", err)
	}
	stop := cleanups{}
	defer func() { err = errors.Join(err, stop.run()) }()
	stop.add(func() error { return os.RemoveAll(dir) })
	configuration.Log.Level = "warn"
	log, err := newLogger(std.err, configuration.Log)
	if err != nil {
		return err
	}
	broker, end, err := startBrokerProcess(ctx, std, filepath.Join(dir, "kafka"))
	if err != nil {
		return err
	}
	stop.add(end)
	engine, err := startEngine(ctx, std, dir, configuration, log)
	if err != nil {
		return err
	}
	stop.add(engine.Close)
	snapshots := filepath.Join(dir, "snapshots")
	if err := os.MkdirAll(snapshots, 0o700); err != nil {
		return fmt.Errorf("make the directory for snapshots: %w", err)
	}
	configuration.embed(broker, engine.Address(), snapshots)

	s, err := openSystem(ctx, configuration, log, systemOptions{pipeline: true, singleProcess: true, rawPartitions: rawPartitionsOfNewTopic})
	if err != nil {
		return err
	}
	stop.add(func() error { s.close(); return nil })
	topic := configuration.Kafka.RawTopics[0]
	if _, err := s.kafka.EnsureTopic(ctx, pipeline.TopicConfig{Name: topic, Partitions: rawPartitionsOfNewTopic, Replicas: 1}); err != nil {
		return err
	}
	result := benchResult{Records: c.Records, Cores: runtime.NumCPU()}
	fmt.Fprintf(std.err, "filling the raw topic with %d records\n", c.Records)
	size, err := c.fill(ctx, s, topic)
	if err != nil {
		return err
	}
	fmt.Fprintln(std.err, "running the pipeline")
	if c.CPU != "" {
		file, err := os.Create(c.CPU)
		if err != nil {
			return fmt.Errorf("write the CPU profile: %w", err)
		}
		stop.add(file.Close)
		if err := pprof.StartCPUProfile(file); err != nil {
			return fmt.Errorf("write the CPU profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := processCPU()
	start := time.Now()
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.run(running) }()
	err = s.awaitIdle(ctx)
	elapsed := time.Since(start)
	cpu = processCPU() - cpu
	runtime.ReadMemStats(&after)
	cancel()
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	records := float64(c.Records)
	result.RecordBytes = float64(size) / records
	result.Seconds = elapsed.Seconds()
	result.RecordsPerSecond = records / elapsed.Seconds()
	result.MegabytesPerSecond = float64(size) / elapsed.Seconds() / 1e6
	result.CPUMicrosPerRecord = cpu.Seconds() * 1e6 / records
	result.AllocationsPerRec = float64(after.Mallocs-before.Mallocs) / records
	result.AllocatedBytesPerRe = float64(after.TotalAlloc-before.TotalAlloc) / records
	result.PeakMemoryBytes = peakMemory()
	if err := s.conn.QueryRow(ctx, "SELECT count(), uniqExact(request_id) FROM diagnoses FINAL").Scan(&result.Rows, &result.RequestIDs); err != nil {
		return fmt.Errorf("count the rows: %w", err)
	}
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM incidents FINAL").Scan(&result.Incidents); err != nil {
		return fmt.Errorf("count the incidents: %w", err)
	}
	if c.Format == "json" {
		return printJSON(std.out, result)
	}
	_, err = fmt.Fprintf(std.out, `%d records of %.0f bytes in %.1f s on %d cores, broker and ClickHouse on the same cores
  %8.0f records/s  (%.0f MB/s of JSON)
  %8.1f us of own CPU per record
  %8.2f allocations per record (%.0f bytes)
  %8.0f MB peak memory
  %8d rows, %d request ids, %d incidents
`, c.Records, result.RecordBytes, result.Seconds, result.Cores, result.RecordsPerSecond, result.MegabytesPerSecond, result.CPUMicrosPerRecord,
		result.AllocationsPerRec, result.AllocatedBytesPerRe, float64(result.PeakMemoryBytes)/1e6, result.Rows, result.RequestIDs, result.Incidents)
	return err
}

// fill sends the records to the raw topic and returns their size in bytes.
func (c benchCommand) fill(ctx context.Context, s *system, topic string) (int64, error) {
	producer, err := pipeline.NewRawProducer(ctx, s.kafka, topic, pipeline.CodecLZ4, s.log)
	if err != nil {
		return 0, err
	}
	defer producer.Close()
	// A day's worth of event time whatever the number of records is, so that windows hold what they would in use.
	rate := float64(c.Records) / (24 * 3600)
	traffic, err := synthetic.NewTraffic(synthetic.Options{
		Seed: c.Seed, Records: c.Records, Rate: rate, Users: c.Users,
		Start: time.Now().UTC().Add(-25 * time.Hour).Truncate(time.Second),
	})
	if err != nil {
		return 0, err
	}
	size := int64(0)
	var batch [][]byte
	for {
		message, n := traffic.Next()
		if n > 0 {
			size += int64(len(message))
			batch = append(batch, bytes.Clone(message))
		}
		if len(batch) >= 200 || n == 0 && len(batch) > 0 {
			refused, err := producer.Send(ctx, batch)
			if err != nil {
				return 0, err
			}
			if len(refused) > 0 {
				return 0, fmt.Errorf("the broker refused a message: %w", refused[0].Err)
			}
			batch = batch[:0]
		}
		if n == 0 {
			return size, ctx.Err()
		}
	}
}

// startBrokerProcess runs the embedded broker in a process of its own, which ends with this one.
func startBrokerProcess(ctx context.Context, std streams, dir string) (address string, stop func() error, err error) {
	executable, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find this program: %w", err)
	}
	command := exec.CommandContext(ctx, executable, "embedded-broker", "--data", dir)
	command.Stderr = std.err
	input, err := command.StdinPipe()
	if err != nil {
		return "", nil, fmt.Errorf("start the broker: %w", err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return "", nil, fmt.Errorf("start the broker: %w", err)
	}
	if err := command.Start(); err != nil {
		return "", nil, fmt.Errorf("start the broker: %w", err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("the broker did not start: %w", err), command.Wait())
	}
	return strings.TrimSpace(line), func() error { return errors.Join(input.Close(), command.Wait()) }, nil
}
