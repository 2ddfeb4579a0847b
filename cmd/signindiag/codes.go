package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

type codesCommand struct {
	Code      string `arg:"" optional:"" help:"Error code, such as 50126 or AADSTS50126."`
	Search    string `help:"List the codes that hold all these words." placeholder:"WORDS" xor:"what"`
	Scenarios bool   `help:"List the scenarios instead." xor:"what"`
	Format    string `enum:"text,json" default:"text" help:"text for people, json for programs."`
	catalogueFlag
}

// Run explains one code, or lists codes or scenarios.
func (c codesCommand) Run(ctx context.Context, std streams) error {
	cat, err := c.load(ctx)
	if err != nil {
		return err
	}
	if c.Code != "" && (c.Scenarios || c.Search != "") {
		return fmt.Errorf("unexpected argument %s beside --scenarios or --search: put words of a search in quotes", c.Code)
	}
	if c.Scenarios {
		return c.scenarios(std, cat)
	}
	if c.Code == "" {
		return c.list(std, cat)
	}
	number, err := strconv.ParseInt(strings.TrimPrefix(strings.ToUpper(c.Code), "AADSTS"), 10, 32)
	if err != nil || number < 0 {
		return fmt.Errorf("%q is no error code: expected a number such as 50126 or AADSTS50126", c.Code)
	}
	code := cat.Code(int32(number))
	if code == nil {
		return fmt.Errorf("error code %d is not in the catalogue; Microsoft's own page is %s", number, catalogue.CodePage(int32(number)))
	}
	if c.Format == "json" {
		return printJSON(std.out, lookup.NewCodeAnswer(code))
	}
	if err := writeCode(std.out, code); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// What the values of a code say, for people.
var (
	codeOutcomes = map[string]string{
		"":                             "failure: the sign-in ends with it",
		catalogue.OutcomeBenignStep:    "interrupt (benign_step): an ordinary step on the way, no problem in itself",
		catalogue.OutcomeNeedsFollowUp: "interrupt (needs_follow_up): a step that the client or the user still has to take; a problem where no success follows",
		catalogue.OutcomeUserMustAct:   "interrupt (user_must_act): the user has to do something before the sign-in goes on",
	}
	codePasswords = map[string]string{
		"":                      "nothing is said about it",
		catalogue.PasswordRight: "right: the first factor was passed",
		catalogue.PasswordWeak:  "right once: the session was good earlier, which is weak proof",
		catalogue.PasswordWrong: "wrong, or the user name was",
	}
	codeCounts = map[string]string{
		"":                         "no, never as a failure of a person",
		catalogue.CountsYes:        "yes, as a failure of the person within 48 hours",
		catalogue.CountsUnattended: "as a failure within 48 hours only where nobody is there to act on the prompt (non-interactive records, legacy clients)",
	}
)

// writeCode explains a code for people.
func writeCode(w io.Writer, code *catalogue.Code) error {
	outcome := codeOutcomes[code.Outcome]
	if code.Code == 0 {
		outcome = "success"
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n\nWhat to do  %s\nOutcome     %s\nPassword    %s\nCounts      %s\nScenario    %s: %s\n",
		strings.TrimSpace(fmt.Sprintf("AADSTS%d %s", code.Code, code.Symbol)), code.Meaning, code.Remediation, outcome,
		codePasswords[code.Password], codeCounts[code.Counts], code.Scenario.Name, code.Scenario.Title)
	for i, also := range code.Also {
		if err == nil {
			_, err = fmt.Fprintf(w, "%-10s  %s: %s\n", []string{"Also", ""}[min(i, 1)], also.Name, also.Title)
		}
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "Category    %s\nDocument    %s\n", code.Category, code.Link)
	}
	return err
}

func (c codesCommand) list(std streams, cat *catalogue.Catalogue) error {
	answer := lookup.CodesAnswer{Codes: lookup.SearchCodes(cat, c.Search)}
	if c.Format == "json" {
		return printJSON(std.out, answer)
	}
	if len(answer.Codes) == 0 {
		return fmt.Errorf("no code of the catalogue holds all the words %q", c.Search)
	}
	table := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, code := range answer.Codes {
		fmt.Fprintf(table, "%d\t%s\t%s\n", code.Code, code.Scenario, code.Meaning)
	}
	return table.Flush()
}

// scenarioAnswer is one scenario as `codes --scenarios --format json` prints it.
type scenarioAnswer struct {
	Rank       int    `json:"rank"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Title      string `json:"title"`
	Definition string `json:"definition"`
	// Severity is that of a failure; Severities has "default" and the outcomes that differ from it.
	Severity   string            `json:"severity"`
	Severities map[string]string `json:"severities"`
	// Codes are listed by the scenario itself and AlsoCodes only labelled by it; further codes come by their Categories.
	Codes      []int32  `json:"codes"`
	AlsoCodes  []int32  `json:"also_codes"`
	Categories []string `json:"categories"`
	// CodesTotal is the number of codes that have this headline.
	CodesTotal int      `json:"codes_total"`
	Examples   []string `json:"examples"`
}

// scenarioOutcomes are the outcomes that a severity is told for.
var scenarioOutcomes = []string{detectors.OutcomeFailure, detectors.OutcomeInterrupted, detectors.OutcomeResolved, detectors.OutcomeSuccess}

func (c codesCommand) scenarios(std streams, cat *catalogue.Catalogue) error {
	totals := map[string]int{}
	for _, code := range cat.Codes() {
		totals[code.Scenario.Name]++
	}
	answers := []scenarioAnswer{}
	for _, s := range cat.Scenarios() {
		a := scenarioAnswer{
			Rank: s.Rank, Name: s.Name, Type: s.Type, Title: s.Title, Definition: s.Definition,
			Severity: s.Severity.For(detectors.OutcomeFailure), Severities: map[string]string{"default": s.Severity.For("default")},
			Codes: append([]int32{}, s.Codes...), AlsoCodes: append([]int32{}, s.AlsoCodes...),
			Categories: append([]string{}, s.Categories...), Examples: s.Examples, CodesTotal: totals[s.Name],
		}
		for _, outcome := range scenarioOutcomes {
			if severity := s.Severity.For(outcome); severity != a.Severities["default"] {
				a.Severities[outcome] = severity
			}
		}
		answers = append(answers, a)
	}
	if c.Format == "json" {
		return printJSON(std.out, answers)
	}
	for i := range answers {
		if err := answers[i].write(std.out); err != nil {
			return fmt.Errorf("write the scenarios: %w", err)
		}
	}
	return nil
}

// write describes the scenario for people.
func (a *scenarioAnswer) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%3d  %s: %s\n", a.Rank, a.Name, a.Title)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "     %-9s  %s\n", name, text)
		}
	}
	fmt.Fprintf(&b, "     %s\n", a.Definition)
	severity := a.Severities["default"]
	for _, outcome := range scenarioOutcomes {
		if other, ok := a.Severities[outcome]; ok {
			severity += ", " + outcome + " " + other
		}
	}
	if a.Type == catalogue.TypeLabel {
		line("Label", "never the headline")
	}
	line("Severity", severity)
	codes := numbers(a.Codes)
	if len(a.Categories) > 0 {
		codes = strings.TrimPrefix(codes+"; category "+strings.Join(a.Categories, ", "), "; ")
	}
	if a.CodesTotal > len(a.Codes) {
		codes += fmt.Sprintf(" (%s in all)", plural(a.CodesTotal, "code"))
	}
	line("Codes", codes)
	line("Also for", numbers(a.AlsoCodes))
	for i, example := range a.Examples {
		line([]string{"Examples", ""}[min(i, 1)], example)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func numbers(all []int32) string {
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = strconv.Itoa(int(n))
	}
	return strings.Join(texts, ", ")
}
