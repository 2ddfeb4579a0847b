package clickhouse

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func rendered(t *testing.T, o Options) string {
	t.Helper()
	statements, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Migrations(o)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, s := range statements {
		b.WriteString(s + ";\n\n")
	}
	for _, step := range steps {
		b.WriteString("-- " + step.Name + "\n")
		for _, s := range step.Statements {
			b.WriteString(s + ";\n\n")
		}
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for name, o := range map[string]Options{
		"single.sql":  {Database: "signindiag"},
		"cluster.sql": {Database: "signindiag", Cluster: "{cluster}", Retention: Retention{Diagnoses: 90, Incidents: 400, Quarantine: 30, RawRecords: 7}},
	} {
		got := rendered(t, o)
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs; run with -update and look at the difference:\n%s", path, got)
		}
	}
}

// TestEveryStatement checks what no step may forget: to be repeatable, to name the database, and on a cluster
// to run everywhere and replicate.
func TestEveryStatement(t *testing.T) {
	o := Options{Database: "some_database", Cluster: "some-cluster", Retention: Retention{1, 2, 3, 4}}
	statements, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Migrations(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if len(step.Statements) == 0 {
			t.Errorf("%s holds no statement", step.Name)
		}
		statements = append(statements, step.Statements...)
	}
	ttls := 0
	for _, s := range statements {
		first, _, _ := strings.Cut(s, "\n")
		for _, want := range []string{"IF NOT EXISTS", "`some_database`", " ON CLUSTER 'some-cluster'"} {
			if want == "IF NOT EXISTS" && strings.Contains(first, " MODIFY TTL ") {
				continue // it sets what it sets, however often
			}
			if !strings.Contains(first, want) {
				t.Errorf("%q lacks %q", first, want)
			}
		}
		if strings.HasPrefix(s, "CREATE TABLE") {
			for _, want := range []string{"ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/some_database/", "replicated_deduplication_window = 10000", "fsync_after_insert = 1", "fsync_part_directory = 1"} {
				if !strings.Contains(s, want) {
					t.Errorf("%q lacks %q", first, want)
				}
			}
		}
		if strings.Contains(s, "{{") || strings.Contains(s, ";") {
			t.Errorf("%q is not one rendered statement", first)
		}
		ttls += strings.Count(s, "\nTTL ")
	}
	if ttls != len(RetainedTables()) {
		t.Errorf("%d tables with a retention, want %d", ttls, len(RetainedTables()))
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // "" for valid
	}{
		{Options{Database: "signindiag"}, ""},
		{Options{Database: "a-b.c_1", Cluster: "{cluster}"}, ""},
		{Options{}, "database name"},
		{Options{Database: "a`; DROP DATABASE x"}, "database name"},
		{Options{Database: "a", Cluster: "x' y"}, "cluster name"},
		{Options{Database: "a", Retention: Retention{Diagnoses: -1}}, "-1 days"},
		{Options{Database: "a", Retention: Retention{RawRecords: 40000}}, "40000 days"},
	} {
		err := c.o.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.o, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: got %v, want %q", c.o, err, c.want)
		}
		if _, err := Migrations(c.o); (err == nil) != (c.want == "") {
			t.Errorf("%+v: Migrations: %v", c.o, err)
		}
	}
}

func TestSplit(t *testing.T) {
	got := split("-- a comment; with a semicolon\nCREATE A\n(\n  -- inside\n  x 'a;b' -- kept\n);\n\nALTER B; \nCREATE C")
	want := []string{"CREATE A\n(\n  x 'a;b' -- kept\n)", "ALTER B", "CREATE C"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}
