package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/schemas/synthetic"
)

// testSeed returns the seed of a test, printed so that a failure can be had again with SIGNINDIAG_TEST_SEED.
func testSeed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("SIGNINDIAG_TEST_SEED"); v != "" {
		if err := json.Unmarshal([]byte(v), &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SIGNINDIAG_TEST_SEED=%d", seed)
	return seed
}

func writeLines(t *testing.T, name string, lines []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExplainReadsAnyOrder: the same records give the same bytes forwards, newest first, shuffled and in several files,
// with attacks, repeats, parts, late records and users with more failures than are kept one by one among them.
func TestExplainReadsAnyOrder(t *testing.T) {
	seed := testSeed(t)
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	options := synthetic.Options{Seed: seed, Start: start, Records: 1500, Rate: 2, Users: 500, Repeated: 0.1, Split: 0.1, Late: 0.02, Batch: 1}
	for i, kind := range synthetic.AttackKinds() {
		options.Attacks = append(options.Attacks, synthetic.Attack{Kind: kind, At: start.Add(time.Duration(i) * 20 * time.Second), FirstUser: i})
	}
	traffic, err := synthetic.NewTraffic(options)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for {
		message, n := traffic.Next()
		if n == 0 {
			break
		}
		lines = append(lines, string(message))
	}
	for i := range 150 { // one user, many at the same second
		lines = append(lines, strings.TrimSpace(signIn(start.Add(time.Duration(i/3)*time.Second), 1000+i, 50126)))
	}
	if len(lines) < 1000 {
		t.Fatalf("only %d messages", len(lines))
	}
	explain := func(files ...string) string {
		out, errs, code := call(t, "", append([]string{"explain", "--format", "json"}, files...)...)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		return out
	}
	want := explain(writeLines(t, "forwards.ndjson", lines))
	if !strings.Contains(want, `"failures":150,`) {
		t.Error("the user's 150 failures are not counted")
	}
	same := func(how, got string) {
		if got == want {
			return
		}
		a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
		for i := range a {
			if i >= len(b) || a[i] != b[i] {
				t.Errorf("%s: %d lines, want %d; line %d differs:\n got %s\nwant %s", how, len(b), len(a), i+1, slices.Concat(b, []string{""})[min(i, len(b))], a[i])
				return
			}
		}
		t.Errorf("%s: more lines", how)
	}
	backwards := slices.Clone(lines)
	slices.Reverse(backwards)
	same("backwards", explain(writeLines(t, "backwards.ndjson", backwards)))
	random := rand.New(rand.NewPCG(seed, 1))
	shuffled := slices.Clone(lines)
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	same("shuffled", explain(writeLines(t, "shuffled.ndjson", shuffled)))
	var files []string
	for len(shuffled) > 0 {
		n := min(len(shuffled), 1+random.IntN(600))
		files = append(files, writeLines(t, "part.ndjson", shuffled[:n]))
		shuffled = shuffled[n:]
	}
	same("several files", explain(files...))
}

// TestExplainJudgesByTheSettings: a threshold and an expectation of the file decide, and its mistakes are told with their place.
func TestExplainJudgesByTheSettings(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	input := signIn(start, 1, 50126) + signIn(start.Add(time.Minute), 2, 50126) + signIn(start.Add(time.Hour), 3, 0)
	file := writeLines(t, "settings.yaml", []string{
		"tenants:", "  " + synthetic.NamedGUID("tenant", "contoso") + ":", "    thresholds:", "      repeated_failures: {count: 2}",
		"    expectations:", "      - {name: MFA for payroll, applications: [payroll], expect: conditional_access}",
	})
	out, errs, code := call(t, input, "explain", "--format", "json", "--settings", file)
	if code != 0 {
		t.Fatal(errs)
	}
	for _, want := range []string{`"repeated_failures"`, `"scenario":"missed_interrupt"`, "the tenant expects a Conditional Access policy here: MFA for payroll"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %s:\n%s", want, out)
		}
	}
	out, _, _ = call(t, input, "explain", "--format", "json")
	if strings.Contains(out, `"repeated_failures"`) || strings.Contains(out, "missed_interrupt") {
		t.Error("without the file the defaults do not hold")
	}
	wrong := writeLines(t, "settings.yaml", []string{"default:", "  thresholds: {repeated_failures: {count: 1}}", "  more: 1"})
	_, errs, code = call(t, input, "explain", "--settings", wrong)
	if code != 1 || !strings.Contains(errs, wrong+":2:43: ") || !strings.Contains(errs, wrong+":3:3: ") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	t.Setenv(envPrefix+"SETTINGS_FILE", file)
	if out, _, _ = call(t, input, "explain", "--format", "json"); !strings.Contains(out, "MFA for payroll") {
		t.Error("the variable is not read")
	}
}
