package detectors_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSampleHeadlines runs the real records beside the checkout, where they are (or where SIGNINDIAG_SAMPLES says), through the
// whole engine and compares each headline with samples.golden, which holds "request id headline" a line and nothing else of
// the records. Run with -update-samples to write it anew, and read what changed.
func TestSampleHeadlines(t *testing.T) {
	dir := os.Getenv("SIGNINDIAG_SAMPLES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "samples")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil || len(files) == 0 {
		t.Skipf("no real records in %s (set SIGNINDIAG_SAMPLES)", dir)
	}
	slices.Sort(files)
	runner := newRunner(t)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			if len(bytes.TrimSpace(line)) > 0 {
				// A time after all records; those without one of their own get it.
				feed(t, runner, line, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
			}
		}
	}
	var lines []string
	for _, d := range runner.Result().Diagnoses {
		lines = append(lines, d.RequestID+" "+d.Scenario+"\n")
	}
	slices.Sort(lines)
	got := strings.Join(lines, "")
	const golden = "testdata/samples.golden"
	if *updateSamples {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("read golden file (make it with -update-samples): %v", err)
	}
	if got == string(want) {
		return
	}
	expected := strings.SplitAfter(string(want), "\n")
	for _, line := range lines {
		if !slices.Contains(expected, line) {
			t.Errorf("not in %s: %s", golden, line)
		}
	}
	for _, line := range expected {
		if line != "" && !slices.Contains(lines, line) {
			t.Errorf("only in %s: %s", golden, line)
		}
	}
	t.Errorf("%d lines, want %d (see -update-samples)", len(lines), len(expected)-1)
}

var updateSamples = flag.Bool("update-samples", false, "write samples.golden anew")
