package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

type codesCommand struct {
	Code      string `arg:"" optional:"" help:"Error code, such as 50126 or AADSTS50126."`
	Scenarios bool   `help:"List the scenarios instead."`
	Format    string `enum:"text,json" default:"text" help:"text for people, json for programs."`
}

// Run explains one code, or lists codes or scenarios.
func (c codesCommand) Run(std streams) error {
	cat, err := catalogue.Load()
	if err != nil {
		return fmt.Errorf("load the catalogue: %w", err)
	}
	if c.Scenarios {
		return c.scenarios(std, cat)
	}
	if c.Code == "" {
		return c.list(std, cat)
	}
	number, err := strconv.ParseInt(strings.TrimPrefix(strings.ToUpper(c.Code), "AADSTS"), 10, 32)
	if err != nil {
		return fmt.Errorf("%q is no error code: expected a number such as 50126 or AADSTS50126", c.Code)
	}
	code := cat.Code(int32(number))
	if code == nil {
		return fmt.Errorf("error code %d is not in the catalogue; Microsoft's own page is https://login.microsoftonline.com/error?code=%d", number, number)
	}
	answer := lookup.NewCodeAnswer(code)
	if c.Format == "json" {
		return printJSON(std.out, answer)
	}
	fmt.Fprintf(std.out, "AADSTS%d %s\n%s\n\n", answer.Code, answer.Symbol, answer.Meaning)
	if answer.Outcome == "" {
		answer.Outcome = detectors.OutcomeFailure
	}
	fmt.Fprintf(std.out, "What to do:  %s\nOutcome:     %s\nScenario:    %s\nDocument:    %s\n", answer.Remediation, answer.Outcome, answer.Scenario, answer.Link)
	return nil
}

func (c codesCommand) list(std streams, cat *catalogue.Catalogue) error {
	answer := lookup.CodesAnswer{}
	for _, code := range cat.Codes() {
		answer.Codes = append(answer.Codes, lookup.NewCodeAnswer(code))
	}
	if c.Format == "json" {
		return printJSON(std.out, answer)
	}
	table := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, code := range answer.Codes {
		fmt.Fprintf(table, "%d\t%s\t%s\n", code.Code, code.Scenario, code.Meaning)
	}
	return table.Flush()
}

// scenarioAnswer is one scenario as `codes --scenarios --format json` prints it.
type scenarioAnswer struct {
	Rank       int     `json:"rank"`
	Name       string  `json:"name"`
	Title      string  `json:"title"`
	Definition string  `json:"definition"`
	Severity   string  `json:"severity"`
	Codes      []int32 `json:"codes"`
}

func (c codesCommand) scenarios(std streams, cat *catalogue.Catalogue) error {
	answers := []scenarioAnswer{}
	for _, s := range cat.Scenarios() {
		answers = append(answers, scenarioAnswer{s.Rank, s.Name, s.Title, s.Definition, s.Severity.For(detectors.OutcomeFailure), s.Codes})
	}
	if c.Format == "json" {
		return printJSON(std.out, answers)
	}
	table := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, s := range answers {
		fmt.Fprintf(table, "%d\t%s\t%s\n", s.Rank, s.Name, s.Definition)
	}
	return table.Flush()
}
