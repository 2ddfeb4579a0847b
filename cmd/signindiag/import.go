package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/exports"
)

// Bounds of one batch that import sends: large enough to keep all partitions busy, small enough to lie in memory twice.
const (
	importBatchRecords = 2000
	importBatchBytes   = 8 << 20
)

type importCommand struct {
	Files []string      `arg:"" help:"Exported logs: JSON, NDJSON or CSV, also .gz; - reads standard input."`
	Data  string        `help:"Data directory of the running up (default: the one that runs, or SIGNINDIAG_KAFKA_BROKERS)." placeholder:"DIRECTORY" type:"path"`
	Topic string        `help:"Raw topic (default: the first of SIGNINDIAG_KAFKA_RAW_TOPICS)." placeholder:"TOPIC"`
	Rate  int           `help:"At most so many records a second, so that live sign-ins are not delayed (default: as fast as possible)." placeholder:"NUMBER"`
	Wait  time.Duration `default:"60s" help:"How long to wait until the records can be looked up; 0 does not wait."`
}

// Run sends the records of the files to the raw topic.
func (c importCommand) Run(ctx context.Context, std streams) error {
	if c.Rate < 0 {
		return errors.New("--rate: expected a number above 0")
	}
	producer, err := openRawProducerTo(ctx, c.Data, c.Topic)
	if err != nil {
		return err
	}
	defer producer.Close()
	report, err := importFiles(ctx, std, producer, c.Files, c.Rate)
	report.write(std)
	if err != nil {
		return err
	}
	if c.Wait > 0 && report.last != "" {
		c.await(ctx, std, report)
	}
	if report.failed() {
		return errFailed
	}
	return nil
}

// await waits until the record that was sent last can be looked up. That it cannot yet is no failure of the import.
func (c importCommand) await(ctx context.Context, std streams, report *importReport) {
	o, err := storeFlags{Data: c.Data}.open(ctx)
	if err != nil {
		fmt.Fprintf(std.err, "the records are in Kafka; whether they can be looked up is not known: %s\n", oneLine(err.Error()))
		return
	}
	defer o.close()
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	if err := awaitRecord(ctx, o.store, report.last); err != nil {
		fmt.Fprintf(std.err, "the records are in Kafka; after %s they cannot be looked up yet\n", c.Wait)
		return
	}
	fmt.Fprintf(std.out, "Look one up: signindiag lookup %s\n", report.example())
}

// awaitRecord returns when the record can be looked up, or ctx has ended.
func awaitRecord(ctx context.Context, store *lookup.Store, requestID string) error {
	for {
		_, err := store.Find(ctx, requestID)
		if err == nil {
			return nil
		}
		if !errors.Is(err, lookup.ErrNotFound) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// importReport counts what became of the values of the files.
type importReport struct {
	signIns     int
	categories  map[string]int
	quarantined map[string]int // by reason
	unreadable  int
	refused     int
	last        string // request id of the sign-in sent last
	lastFailure string // and of the last one that failed
}

// failed reports whether anything was wrong with the input.
func (r *importReport) failed() bool {
	return r.unreadable > 0 || r.refused > 0 || len(r.quarantined) > 0
}

// example is the request id that is most worth looking up.
func (r *importReport) example() string {
	if r.lastFailure != "" {
		return r.lastFailure
	}
	return r.last
}

func (r *importReport) write(std streams) {
	fmt.Fprintf(std.out, "%s sent\n", plural(r.signIns, "sign-in record"))
	if len(r.categories) > 0 {
		fmt.Fprintf(std.out, "other categories skipped: %s\n", describeCategories(r.categories))
	}
	if len(r.quarantined) > 0 {
		fmt.Fprintf(std.out, "quarantined: %s\n", describeCategories(r.quarantined))
	}
	if r.unreadable+r.refused > 0 {
		fmt.Fprintf(std.out, "not sent: %s\n", plural(r.unreadable+r.refused, "unreadable value"))
	}
}

// importFiles sends every value of the files, at most rate a second where rate is above 0. Each is decoded here as well, only to
// count it: the router decides.
func importFiles(ctx context.Context, std streams, producer *pipeline.RawProducer, files []string, rate int) (*importReport, error) {
	report := &importReport{categories: map[string]int{}, quarantined: map[string]int{}}
	decoder := schemas.NewDecoder()
	var batch [][]byte
	var places []string
	size, most := 0, importBatchRecords
	if rate > 0 {
		most = min(most, max(rate/4, 1)) // even drops, four a second
	}
	next := time.Now()
	send := func() error {
		if rate > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Until(next)):
			}
			next = time.Now().Add(time.Duration(len(batch)) * time.Second / time.Duration(rate))
		}
		refused, err := producer.Send(ctx, batch)
		for _, r := range refused {
			fmt.Fprintln(std.err, oneLine(fmt.Sprintf("%s: Kafka refused the record: %v", places[r.Index], r.Err)))
			report.refused++
		}
		batch, places, size = batch[:0], places[:0], 0
		return err
	}
	bad, err := readFiles(ctx, std, files, func(item exports.Item, file string) error {
		place := fmt.Sprintf("%s:%d", file, item.Line)
		skip := true
		decoder.Decode(item.Value, time.Now(), func(_ int, d *schemas.Decoded) {
			switch d.Kind {
			case schemas.KindOtherCategory:
				report.categories[d.Category]++
			case schemas.KindBroken:
				// It is sent all the same: quarantine keeps its bytes, from where it can be replayed.
				skip = false
				reason := "broken"
				var recordError *schemas.RecordError
				if errors.As(d.Err, &recordError) {
					reason = recordError.Reason
				}
				report.quarantined[reason]++
				fmt.Fprintln(std.err, oneLine(fmt.Sprintf("%s: %v", place, d.Err)))
			case schemas.KindSignIn:
				skip = false
				report.signIns++
				report.last = strings.Clone(d.SignIn.RequestId)
				if d.SignIn.ErrorCode != 0 {
					report.lastFailure = report.last
				}
			}
		})
		if skip {
			return nil
		}
		batch, places, size = append(batch, bytes.Clone(item.Value)), append(places, place), size+len(item.Value)
		if len(batch) >= most || size >= importBatchBytes {
			return send()
		}
		return nil
	})
	report.unreadable = bad
	if err == nil && len(batch) > 0 {
		err = send()
	}
	return report, err
}

// openRawProducer returns a producer for the raw topic of the running `signindiag up` on dir, or of the configured
// brokers.
func openRawProducer(ctx context.Context, dir string) (*pipeline.RawProducer, error) {
	return openRawProducerTo(ctx, dir, "")
}

// openRawProducerTo is openRawProducer for a topic; empty means the first configured raw topic.
func openRawProducerTo(ctx context.Context, dir, topic string) (*pipeline.RawProducer, error) {
	c, err := loadConfig(ctx, nil)
	if err != nil {
		return nil, err
	}
	settings, first := c.Kafka.connection(), c.Kafka.RawTopics[0]
	if dir != "" || len(settings.Brokers) == 0 {
		running, err := readEndpoints(dir)
		if errors.Is(err, errNotRunning) {
			return nil, fmt.Errorf("%w: start it, name its data directory with --data, or set SIGNINDIAG_KAFKA_BROKERS", err)
		}
		if err != nil {
			return nil, err
		}
		settings = pipeline.KafkaConfig{Brokers: []string{running.Kafka}}
		first = running.RawTopic
	}
	brokers, err := pipeline.OpenKafka(settings)
	if err != nil {
		return nil, err
	}
	return pipeline.NewRawProducer(ctx, brokers, cmp.Or(topic, first), pipeline.CodecLZ4, slog.New(slog.DiscardHandler))
}
