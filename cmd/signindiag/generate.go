package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signindiag/signindiag/schemas/synthetic"
)

type generateCommand struct {
	Records int64         `default:"1000" help:"Number of records, repeats included."`
	Seed    uint64        `default:"1" help:"Equal seeds give equal records."`
	Start   string        `help:"Event time of the first record, RFC 3339 (default: so that the last one is now)." placeholder:"TIME"`
	Rate    float64       `default:"20" help:"Average records per second of event time."`
	Tenants int           `default:"2" help:"Number of tenants."`
	Users   int           `default:"500" help:"Users per tenant."`
	Batch   int           `default:"50" help:"Largest number of records in one message."`
	Attacks []string      `help:"Attacks to plant, separated by commas; 'all' plants one of each kind." placeholder:"KIND"`
	ToKafka bool          `help:"Send to the raw topic of the running up, or of SIGNINDIAG_KAFKA_BROKERS, instead of printing NDJSON messages."`
	Truth   bool          `help:"Say on standard error which stories were planted."`
	Data    string        `help:"Data directory of the running up." placeholder:"DIRECTORY" type:"path"`
	Delay   time.Duration `default:"12m" help:"Longest time that a record waits for its export."`
}

// options returns the traffic that is asked for.
func (c generateCommand) options(now time.Time) (synthetic.Options, error) {
	span := time.Duration(float64(c.Records) / c.Rate * float64(time.Second))
	o := synthetic.Options{Seed: c.Seed, Records: c.Records, Rate: c.Rate, Tenants: c.Tenants, Users: c.Users, Batch: c.Batch, MaxDelay: c.Delay,
		Start: now.Add(-span).Truncate(time.Second).UTC()}
	if c.Start != "" {
		start, err := time.Parse(time.RFC3339, c.Start)
		if err != nil {
			return o, fmt.Errorf("--start %q: expected a time such as 2026-03-02T08:00:00Z", c.Start)
		}
		o.Start = start.UTC()
	}
	kinds := c.Attacks
	if slices.Contains(kinds, "all") {
		kinds = synthetic.AttackKinds()
	}
	for i, kind := range kinds {
		if !slices.Contains(synthetic.AttackKinds(), kind) {
			return o, fmt.Errorf("--attacks %s: expected some of %s, or all", kind, strings.Join(synthetic.AttackKinds(), ", "))
		}
		// Spread over the middle of the span, so that each has ordinary traffic around it.
		o.Attacks = append(o.Attacks, synthetic.Attack{Kind: kind, At: o.Start.Add(span * time.Duration(i+1) / time.Duration(len(kinds)+2)), Tenant: i % max(c.Tenants, 1), FirstUser: max(c.Users, 1) / len(kinds) * i})
	}
	return o, nil
}

// Run prints the messages, one a line, or sends them.
func (c generateCommand) Run(ctx context.Context, std streams) error {
	if c.Rate <= 0 || c.Records <= 0 {
		return errors.New("--rate and --records: expected a number above 0")
	}
	options, err := c.options(time.Now())
	if err != nil {
		return err
	}
	traffic, err := synthetic.NewTraffic(options)
	if err != nil {
		return err
	}
	if c.ToKafka {
		err = c.send(ctx, std, traffic)
	} else {
		out := bufio.NewWriterSize(std.out, 1<<20)
		for ctx.Err() == nil {
			message, n := traffic.Next()
			if n == 0 {
				break
			}
			if _, err := out.Write(append(bytes.TrimSpace(message), '\n')); err != nil {
				return fmt.Errorf("write the records: %w", err)
			}
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("write the records: %w", err)
		}
		err = ctx.Err()
	}
	if c.Truth {
		for _, p := range traffic.Planted() {
			fmt.Fprintf(std.err, "planted %s (%s) in tenant %s from %s: %s, %s, %s\n", p.Kind, p.Outcome, p.TenantID, p.First.Format(time.RFC3339),
				plural(len(p.Users), "user"), plural(len(p.Addresses), "address"), plural(len(p.RequestIDs), "record"))
		}
	}
	return err
}

func (c generateCommand) send(ctx context.Context, std streams, traffic *synthetic.Traffic) error {
	producer, err := openRawProducer(ctx, c.Data)
	if err != nil {
		return err
	}
	defer producer.Close()
	records := 0
	var batch [][]byte
	for ctx.Err() == nil {
		message, n := traffic.Next()
		if n > 0 {
			records += n
			batch = append(batch, bytes.Clone(message))
		}
		if len(batch) >= 100 || n == 0 && len(batch) > 0 {
			refused, err := producer.Send(ctx, batch)
			if err != nil {
				return err
			}
			for _, r := range refused {
				return fmt.Errorf("a generated message was refused: %w", r.Err)
			}
			batch = batch[:0]
		}
		if n == 0 {
			break
		}
	}
	fmt.Fprintf(std.err, "%s sent\n", plural(records, "record"))
	return ctx.Err()
}
