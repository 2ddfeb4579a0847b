package scenariofile

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// Options of a run. The zero value runs the file once as it stands.
type Options struct {
	// Engine configures the detectors. Catalogue defaults to the embedded one; the file's statements threshold
	// replace the thresholds of Settings, and trusted, privileged and expectation add to its lists.
	Engine detectors.Options
	// RestartEvery restarts the engine from a snapshot after every so many records, beside the file's own
	// restarts. What is expected must hold all the same.
	RestartEvery int
	// Repeat sends every record twice, one right behind the other. Expectations must hold all the same.
	Repeat bool
	// Dialect sends all records in this dialect (eventhubs, loganalytics, graph) instead of each in its own.
	Dialect string
}

// Result tells how a file went.
type Result struct {
	File         string    `json:"file"`
	Records      int       `json:"records"`
	Diagnoses    int       `json:"diagnoses"`
	Incidents    int       `json:"incidents"`
	Expectations int       `json:"expectations"`
	Failures     []Failure `json:"failures"`
}

// Passed reports whether every expectation was met.
func (r *Result) Passed() bool { return len(r.Failures) == 0 }

// Failure is one expectation that was not met.
type Failure struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Expected string `json:"expected"`
	Got      string `json:"got"`
}

// String returns three lines: where, what was expected, what was there.
func (f Failure) String() string {
	return fmt.Sprintf("%s:%d: expectation not met\n    expected: %s\n    got:      %s", f.File, f.Line, f.Expected, f.Got)
}

// Message is one raw record of a file on its way, as a message of the raw topic.
type Message struct {
	// Value is an envelope of one record, or a bare row where the dialect has no envelope.
	Value []byte
	// Time is when it arrives.
	Time time.Time
	// Line is the statement in the file that sends it.
	Line int
}

// Messages returns the file's records in the order in which they arrive, so that they can be sent into
// the raw topic. Times are those of the file; shift moves all of them, event times included.
func (f *File) Messages(shift time.Duration) []Message {
	out := make([]Message, 0, len(f.deliveries))
	for i := range f.deliveries {
		if d := &f.deliveries[i]; d.record != nil {
			out = append(out, Message{d.record.message("", shift), d.arrival.Add(shift), d.line})
		}
	}
	return out
}

func (r *record) message(dialect string, shift time.Duration) []byte {
	s := r.spec
	s.Time = s.Time.Add(shift)
	if dialect == "" {
		dialect = r.dialect
	}
	switch dialect {
	case "loganalytics":
		return append(synthetic.AppendLogAnalytics([]byte(`{"records":[`), &s), `]}`...)
	case "graph":
		return append(synthetic.AppendGraph([]byte(`{"value":[`), &s, synthetic.GraphBeta), `]}`...)
	}
	return synthetic.AppendEnvelope(nil, &s)
}

// Run sends the file's records through decoder, dealer and engine as one shard, exactly as the pipeline does,
// and checks the expectations against the final revision of every row. The error is about the run
// itself; expectations that were not met are in the result.
func Run(f *File, o Options) (Result, error) {
	result := Result{File: f.Name, Expectations: len(f.expectations), Failures: []Failure{}}
	if o.Engine.Catalogue == nil {
		known, err := catalogue.Load()
		if err != nil {
			return result, fmt.Errorf("run %s: load the catalogue: %w", f.Name, err)
		}
		o.Engine.Catalogue = known
	}
	o.Engine.Settings = f.settings(o.Engine.Settings)
	runner, err := inmemory.New(o.Engine)
	if err != nil {
		return result, fmt.Errorf("run %s: %w", f.Name, err)
	}
	for i := range f.deliveries {
		d := &f.deliveries[i]
		if d.record == nil {
			if err := runner.Restart(); err != nil {
				return result, fmt.Errorf("%s:%d: restart: %w", f.Name, d.line, err)
			}
			continue
		}
		message := d.record.message(o.Dialect, 0)
		var broken error
		times := 1
		if o.Repeat {
			times = 2
		}
		for range times {
			runner.Feed(message, d.arrival, func(_ int, err error) { broken = err })
		}
		if broken != nil {
			return result, fmt.Errorf("%s:%d: the decoder refused the record: %w", f.Name, d.line, broken)
		}
		result.Records++
		if o.RestartEvery > 0 && result.Records%o.RestartEvery == 0 {
			if err := runner.Restart(); err != nil {
				return result, fmt.Errorf("%s:%d: restart after %d records: %w", f.Name, d.line, result.Records, err)
			}
		}
	}
	rows := runner.Result()
	result.Diagnoses, result.Incidents = len(rows.Diagnoses), len(rows.Incidents)
	for i := range f.expectations {
		e := &f.expectations[i]
		if v := e.evaluate(&rows, result.Records); !v.ok {
			result.Failures = append(result.Failures, Failure{f.Name, e.line, e.text, v.got})
		}
	}
	return result, nil
}

// WriteText writes the result for people: one line, and three for every failure.
func (r *Result) WriteText(w io.Writer) error {
	state := "ok  "
	if !r.Passed() {
		state = "FAIL"
	}
	_, err := fmt.Fprintf(w, "%s %s: %d records, %d diagnoses, %d incidents, %d of %d expectations met\n", state, r.File, r.Records, r.Diagnoses,
		r.Incidents, r.Expectations-len(r.Failures), r.Expectations)
	for i := range r.Failures {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", r.Failures[i])
		}
	}
	return err
}

// WriteJSON writes the result as one line of JSON.
func (r *Result) WriteJSON(w io.Writer) error {
	return json.NewEncoder(w).Encode(r)
}
