package main

import (
	"context"
	"fmt"
	"os"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/scenariofile"
)

type scenarioCommand struct {
	Files  []string `arg:"" help:"Scenario files; detectors/scenariofile/README.md describes the language." type:"path"`
	Format string   `enum:"text,json" default:"text" help:"text for people, json for programs."`
	judgementFlags
}

// Run runs every file and fails when an expectation of any is not met.
func (c scenarioCommand) Run(ctx context.Context, std streams) error {
	cat, tenants, err := c.load(ctx)
	if err != nil {
		return err
	}
	failed := false
	results := []scenariofile.Result{}
	for _, path := range c.Files {
		text, err := os.ReadFile(path)
		if err != nil {
			fmt.Fprintln(std.err, oneLine(err.Error()))
			failed = true
			continue
		}
		file, err := scenariofile.Parse(path, text)
		if err != nil {
			fmt.Fprintln(std.err, err)
			failed = true
			continue
		}
		result, err := scenariofile.Run(file, scenariofile.Options{Engine: detectors.Options{Catalogue: cat, Settings: tenants}})
		if err != nil {
			return fmt.Errorf("run %s: %w", path, err)
		}
		failed = failed || !result.Passed()
		if c.Format == "json" {
			results = append(results, result)
			continue
		}
		if err := result.WriteText(std.out); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	if c.Format == "json" {
		if err := printJSON(std.out, results); err != nil {
			return err
		}
	}
	if failed {
		return errFailed
	}
	return nil
}
