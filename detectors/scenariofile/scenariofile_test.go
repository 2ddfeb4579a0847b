package scenariofile_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/detectors/scenariofile"
)

var verbose = flag.Bool("results", false, "print the result of every scenario file")

const directory = "../testdata/scenarios"

// TestScenarios runs every scenario file as it stands, and again in ways that must change nothing: restarted after
// every record, with every record sent twice, and as Log Analytics rows.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(directory, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found %d scenario files in %s, expected at least 20", len(files), directory)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file, err := scenariofile.Parse(filepath.ToSlash(name), src)
			if err != nil {
				t.Fatal(err)
			}
			if file.Expectations() == 0 {
				t.Fatalf("%s expects nothing", name)
			}
			variants := map[string]scenariofile.Options{
				"as it stands":         {},
				"restarts":             {RestartEvery: 1},
				"every record twice":   {Repeat: true},
				"Log Analytics":        {Dialect: "loganalytics"},
				"twice, with restarts": {Repeat: true, RestartEvery: 2},
			}
			for variant, o := range variants {
				result, err := scenariofile.Run(file, o)
				if err != nil {
					t.Fatalf("%s: %v", variant, err)
				}
				for _, f := range result.Failures {
					t.Errorf("%s: %v", variant, f)
				}
				if *verbose && variant == "as it stands" {
					var text strings.Builder
					if err := result.WriteText(&text); err != nil {
						t.Fatal(err)
					}
					t.Log(text.String())
				}
			}
		})
	}
}
