package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of metrics anew")

// TestMetricsPageIsWhatIsExported compares the table of deploy/prometheus/README.md with what `run` registers.
func TestMetricsPageIsWhatIsExported(t *testing.T) {
	const file, begin, end = "../../deploy/prometheus/README.md", "<!-- metrics: a test holds this table against the code -->\n", "<!-- end of metrics -->"
	exported := exportedMetrics(t)
	table := "| Metric | Labels | Meaning |\n|---|---|---|\n"
	for _, name := range slices.Sorted(maps.Keys(exported)) {
		if !strings.HasPrefix(name, "signindiag_") {
			continue // of the Go runtime and the process
		}
		m := exported[name]
		labels := ""
		for i, label := range m.labels {
			if i > 0 {
				labels += ", "
			}
			labels += "`" + label + "`"
		}
		table += fmt.Sprintf("| `%s` | %s | %s |\n", name, labels, m.help)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks of the table", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != table {
		t.Errorf("%s is not what is exported; write it anew with: go test ./cmd/signindiag -run TestMetricsPage -update", file)
	}
}
