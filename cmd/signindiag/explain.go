package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/exports"
)

// explainAllBelow is how many records are all explained in text; of more, those without a problem are only counted.
const explainAllBelow = 10

// explainRecentBytes bounds what the engine of explain keeps of earlier records for merging and revisions. It sees one shard of
// everything, as received now, so no record leaves by its age and the bound is far above that of a shard. What is held until
// the input ends (about 0.7 KB a record, see inmemory.Runner.Hold) comes on top.
const explainRecentBytes = 1 << 30

type explainCommand struct {
	Files  []string `arg:"" optional:"" help:"Exported logs: JSON, NDJSON or CSV, also .gz; - or nothing reads standard input."`
	Format string   `enum:"text,json" default:"text" help:"text for people, json for programs (one object a line)."`
	ID     string   `name:"id" placeholder:"ID" help:"Only records with this correlationId or requestId."`
	All    bool     `help:"Text: explain records without a problem too."`
	judgementFlags
}

// Run diagnoses the records of the files and prints what it found.
func (c explainCommand) Run(ctx context.Context, std streams) error {
	cat, tenants, err := c.load(ctx)
	if err != nil {
		return err
	}
	runner, err := inmemory.New(detectors.Options{
		Catalogue: cat, Settings: tenants, RecentBytes: explainRecentBytes, Epoch: 1,
	})
	if err != nil {
		return err
	}
	files := c.Files
	if len(files) == 0 {
		files = []string{"-"}
	}
	// As if the records were received now: one without any time gets this one, as in the pipeline.
	now := time.Now()
	broken := 0
	bad, err := readFiles(ctx, std, files, func(item exports.Item, file string) error {
		runner.Hold(item.Value, now, func(_ int, err error) {
			broken++
			fmt.Fprintln(std.err, oneLine(fmt.Sprintf("%s:%d: %v", file, item.Line, err)))
		})
		return nil
	})
	if err != nil {
		return err
	}
	if err := runner.Release(); err != nil {
		return err
	}
	result, counts := runner.Result(), runner.Counts()
	if c.ID != "" {
		result = onlyID(result, c.ID)
	}
	out := bufio.NewWriterSize(std.out, 1<<16)
	renderer := detectors.Renderer{Catalogue: cat}
	if c.Format == "json" {
		err = writeJSONLines(out, renderer, result)
	} else {
		err = c.writeText(out, renderer, result)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write the diagnoses: %w", err)
	}
	repeats := counts.SignIns - len(result.Diagnoses)
	note := plural(counts.SignIns, "sign-in record")
	if repeats > 0 && c.ID == "" {
		note += fmt.Sprintf(" (%d of them repeats or parts)", repeats)
	}
	if len(counts.OtherCategories) > 0 {
		note += "; skipped " + describeCategories(counts.OtherCategories)
	}
	if broken+bad > 0 {
		note += fmt.Sprintf("; %d not readable", broken+bad)
	}
	fmt.Fprintln(std.err, note)
	if note := unknownCodes(cat, result.Diagnoses); note != "" {
		fmt.Fprintln(std.err, note)
	}
	if broken+bad > 0 {
		return errFailed
	}
	if c.ID != "" && len(result.Diagnoses) == 0 {
		return fmt.Errorf("no record of the input has the id %s", c.ID)
	}
	return nil
}

// maxUnknownCodes is how many codes the note about unknown ones names.
const maxUnknownCodes = 10

// unknownCodes tells how many records have codes that the catalogue does not know, and which, the frequent ones first; it is
// empty where there is none.
func unknownCodes(cat *catalogue.Catalogue, diagnoses []detectors.Diagnosis) string {
	counts, records := map[int32]int{}, 0
	for i := range diagnoses {
		if code := diagnoses[i].ErrorCode; cat.Code(code) == nil {
			counts[code]++
			records++
		}
	}
	if records == 0 {
		return ""
	}
	codes := slices.SortedFunc(maps.Keys(counts), func(a, b int32) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	var names []string
	for _, code := range codes[:min(len(codes), maxUnknownCodes)] {
		names = append(names, fmt.Sprintf("%d (%d)", code, counts[code]))
	}
	if more := len(codes) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	if records == 1 {
		return "1 record with a code that the catalogue does not know: " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%d records with codes that the catalogue does not know: %s", records, strings.Join(names, ", "))
}

// onlyID keeps the records of one correlationId or requestId, and the incidents that they belong to.
func onlyID(all inmemory.Result, id string) inmemory.Result {
	var kept inmemory.Result
	incidents := map[string]bool{}
	for _, d := range all.Diagnoses {
		if equalID(d.CorrelationID, id) || equalID(d.RequestID, id) {
			kept.Diagnoses = append(kept.Diagnoses, d)
			for _, incident := range d.Incidents {
				incidents[incident] = true
			}
		}
	}
	for _, incident := range all.Incidents {
		if incidents[incident.IncidentID] {
			kept.Incidents = append(kept.Incidents, incident)
		}
	}
	return kept
}

// writeJSONLines prints one object a line: diagnoses in the order of event time, then incidents.
func writeJSONLines(w io.Writer, renderer detectors.Renderer, result inmemory.Result) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for i := range result.Diagnoses {
		if err := encoder.Encode(renderer.Report(&result.Diagnoses[i], catalogue.AllCapabilities)); err != nil {
			return err
		}
	}
	for i := range result.Incidents {
		if err := encoder.Encode(renderer.IncidentReport(&result.Incidents[i])); err != nil {
			return err
		}
	}
	return nil
}

func (c explainCommand) writeText(w io.Writer, renderer detectors.Renderer, result inmemory.Result) error {
	quiet := 0
	for i := range result.Diagnoses {
		d := &result.Diagnoses[i]
		if !c.All && c.ID == "" && len(result.Diagnoses) > explainAllBelow && d.Severity == detectors.SeverityInfo {
			quiet++
			continue
		}
		if err := renderer.WriteText(w, renderer.Report(d, catalogue.AllCapabilities)); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for i := range result.Incidents {
		if err := renderer.WriteIncidents(w, renderer.IncidentReport(&result.Incidents[i])); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if quiet > 0 {
		fmt.Fprintf(w, "%s without a problem not shown (--all shows them).\n", plural(quiet, "record"))
	}
	return nil
}
