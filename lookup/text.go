package lookup

import (
	"bufio"
	"fmt"
	"io"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// WriteResult writes what is known of one sign-in for a terminal: the authentication summary with all records, the
// diagnostic result, and the incidents. Nothing that needs a right beyond capabilities is in it.
func WriteResult(w io.Writer, r *Result, renderer detectors.Renderer, capabilities catalogue.Capability) error {
	b := bufio.NewWriter(w)
	id := "correlation id"
	if r.Matched == MatchRequestID {
		id = "request id"
	}
	fmt.Fprintf(b, "Authentication summary of %s %s: %s\n\n", id, r.ID, recordCount(len(r.Records), r.RecordsTotal))
	all := reports(r.Records, renderer, capabilities)
	if err := renderer.WriteSummaryTable(b, all...); err != nil {
		return fmt.Errorf("write the authentication summary: %w", err)
	}
	result := &all[r.Decisive]
	fmt.Fprintf(b, "\nDiagnostic result, by the record of %s\n\n", result.EventTime)
	if err := renderer.WriteText(b, *result); err != nil {
		return fmt.Errorf("write the diagnostic result: %w", err)
	}
	if len(r.Incidents) > 0 {
		fmt.Fprintf(b, "\nIncidents\n\n")
		if err := writeIncidents(b, r.Incidents, renderer, capabilities); err != nil {
			return err
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the result of a look-up: %w", err)
	}
	return nil
}

func recordCount(shown int, total uint64) string {
	switch {
	case total > uint64(shown):
		return fmt.Sprintf("the newest %d of %d records", shown, total)
	case shown == 1:
		return "1 record"
	}
	return fmt.Sprintf("%d records", shown)
}

func writeIncidents(w io.Writer, incidents []detectors.Incident, renderer detectors.Renderer, capabilities catalogue.Capability) error {
	all := make([]detectors.IncidentReport, len(incidents))
	for i := range incidents {
		visible := incidents[i].Visible(capabilities, withheld)
		all[i] = renderer.IncidentReport(&visible)
	}
	if err := renderer.WriteIncidents(w, all...); err != nil {
		return fmt.Errorf("write incidents: %w", err)
	}
	return nil
}

// WriteSearch writes a page of records as a table, newest first, with their request ids to look up.
func WriteSearch(w io.Writer, p *SearchPage, renderer detectors.Renderer, capabilities catalogue.Capability) error {
	b := bufio.NewWriter(w)
	if len(p.Records) == 0 {
		fmt.Fprintln(b, "No sign-in fits.")
	}
	for _, report := range reports(p.Records, renderer, capabilities) {
		fmt.Fprintf(b, "%s  [%s]  %s\n    %s\n    request %s\n", report.EventTime, report.Severity, renderer.Title(report.Scenario),
			oneLine(report.Summary), oneLine(report.RequestID))
	}
	if p.NextCursor != "" {
		fmt.Fprintf(b, "More: --cursor %s\n", p.NextCursor)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the result of a search: %w", err)
	}
	return nil
}

// WriteIncidents writes a page of incidents, newest first.
func WriteIncidents(w io.Writer, p *IncidentPage, renderer detectors.Renderer, capabilities catalogue.Capability) error {
	b := bufio.NewWriter(w)
	if len(p.Incidents) == 0 {
		fmt.Fprintln(b, "No incident fits.")
	} else if err := writeIncidents(b, p.Incidents, renderer, capabilities); err != nil {
		return err
	}
	if p.NextCursor != "" {
		fmt.Fprintf(b, "\nMore: --cursor %s\n", p.NextCursor)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write incidents: %w", err)
	}
	return nil
}

// WriteIncident writes one incident and its newest records.
func WriteIncident(w io.Writer, d *IncidentDetail, renderer detectors.Renderer, capabilities catalogue.Capability) error {
	b := bufio.NewWriter(w)
	if err := writeIncidents(b, []detectors.Incident{d.Incident}, renderer, capabilities); err != nil {
		return err
	}
	if len(d.Records) > 0 {
		fmt.Fprintf(b, "\nIts records, newest first: %s\n\n", recordCount(len(d.Records), d.RecordsTotal))
		if err := renderer.WriteSummaryTable(b, reports(d.Records, renderer, capabilities)...); err != nil {
			return fmt.Errorf("write the records of an incident: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write an incident: %w", err)
	}
	return nil
}

// oneLine keeps a value of a record from disturbing a terminal: control characters and marks that turn the direction
// of writing become blanks.
func oneLine(s string) string {
	clean := []rune(s)
	for i, c := range clean {
		if c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x061c || c >= 0x200e && c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2066 && c <= 0x2069 {
			clean[i] = ' '
		}
	}
	return string(clean)
}
