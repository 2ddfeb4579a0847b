package integration

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/signindiag/signindiag/"

// TestImportsPointOneWay holds the house's rule: cmd -> pipeline, lookup, embedded -> sinks ->
// detectors -> schemas, and no driver in the two pure layers.
func TestImportsPointOneWay(t *testing.T) {
	ranks := map[string]int{"schemas": 0, "detectors": 1, "sinks": 2, "pipeline": 3, "lookup": 3, "embedded": 3, "cmd": 4, "integration": 5}
	forbidden := []string{"database/sql", "net", "net/http", "github.com/segmentio/", "github.com/ClickHouse/", "github.com/twmb/", "github.com/prometheus/"}
	list := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the packages: %v", err)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		top, _, _ := strings.Cut(strings.TrimPrefix(path, module), "/")
		rank, known := ranks[top]
		if !known {
			t.Errorf("%s is in no known layer", path)
			continue
		}
		packages++
		for imported := range strings.FieldsSeq(imports) {
			if own, ok := strings.CutPrefix(imported, module); ok {
				target, _, _ := strings.Cut(own, "/")
				if target != top && ranks[target] >= rank {
					t.Errorf("%s imports %s, which is not below it", path, imported)
				}
				continue
			}
			if rank > 1 {
				continue
			}
			for _, driver := range forbidden {
				if imported == driver || strings.HasSuffix(driver, "/") && strings.HasPrefix(imported, driver) {
					t.Errorf("%s imports %s: this layer is pure logic", path, imported)
				}
			}
		}
	}
	if packages < len(ranks)-1 {
		t.Fatalf("only %d packages were looked at", packages)
	}
}
