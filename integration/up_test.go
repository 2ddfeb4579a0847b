package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// get fetches a URL and returns status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// writeFile writes a file into a directory of the test.
func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// engineProcesses returns the ids of processes whose command line names the directory.
func engineProcesses(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		for _, file := range []string{entry, strings.TrimSuffix(entry, "environ") + "cmdline"} {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), dir) {
				found = append(found, entry)
				break
			}
		}
	}
	return found
}

// TestOperatorsCatalogue: a file of the operator's is in what is stored and what is shown, and another file makes the rows anew.
func TestOperatorsCatalogue(t *testing.T) {
	file := writeFile(t, "contoso.yaml", []byte("codes:\n  50126: {meaning: Contoso knows better.}\nscenarios:\n  wrong_password:\n    title: Typed wrong\n    severity: {failure: critical}\n"))
	var specs []*synthetic.SignInSpec
	for i, code := range []int32{50126, 999001} {
		specs = append(specs, &synthetic.SignInSpec{
			Time: time.Now().UTC().Add(-time.Hour), TenantID: synthetic.NamedGUID("tenant", "contoso"), RequestID: synthetic.NamedGUID("request", fmt.Sprint(i)),
			CorrelationID: synthetic.NamedGUID("correlation", fmt.Sprint(i)), UserID: synthetic.NamedGUID("user", "ada"), UserPrincipalName: "ada@example.org", ErrorCode: code,
			Address: "203.0.113.7", AppID: synthetic.NamedGUID("app", "payroll"), AppDisplayName: "Payroll",
		})
	}
	data := t.TempDir()
	u := startUp(t, data, "--catalogue", file, "--import", writeFile(t, "signins.json", synthetic.AppendEnvelope(nil, specs...)))
	u.WaitFor(`Look it up again`)
	show := func(want ...string) {
		t.Helper()
		out, errs, code := command(t, nil, "lookup", "--data", data, specs[0].RequestID)
		for _, w := range want {
			if code != 0 || !strings.Contains(out, w) {
				t.Errorf("lookup: exit code %d, want %q in\n%s%s", code, w, out, errs)
			}
		}
	}
	show("Typed wrong  [critical]", "Contoso knows better.")
	if status, body := get(t, u.API()+"/v1/codes/50126"); status != http.StatusOK || !strings.Contains(body, "Contoso knows better.") {
		t.Errorf("API: status %d\n%s", status, body)
	}
	if _, body := get(t, u.API()+"/metrics"); !strings.Contains(body, "signindiag_shard_unknown_codes_total{code=\"999001\"} 1\n") {
		t.Error("the metrics do not count the unknown code")
	}
	if code := u.Interrupt(); code != 0 {
		t.Fatalf("Ctrl-C: exit code %d", code)
	}

	if err := os.WriteFile(file, []byte("codes:\n  999001: {category: credentials, meaning: The gateway refused it., remediation: Ask Contoso.}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := startUp(t, data, "--catalogue", file)
	again.WaitFor(`Stop: `)
	deadline := time.Now().Add(program.Long)
	for {
		status, body := get(t, again.API()+"/v1/diagnoses/"+specs[1].RequestID)
		if status == http.StatusOK && strings.Contains(body, `"scenario":"wrong_password"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the row of the code that is known now was not made anew: status %d\n%s", status, body)
		}
		time.Sleep(100 * time.Millisecond)
	}
	show("Wrong user name or password  [low]")
}

// TestImportAndLookup imports a file and looks its records up in every way.
func TestImportAndLookup(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var specs []*synthetic.SignInSpec
	for i := range 6 {
		specs = append(specs, &synthetic.SignInSpec{
			Time: start.Add(time.Duration(i) * time.Minute), TenantID: synthetic.NamedGUID("tenant", "contoso"),
			RequestID: synthetic.NamedGUID("request", fmt.Sprint(i)), CorrelationID: synthetic.NamedGUID("correlation", fmt.Sprint(i)),
			UserID: synthetic.NamedGUID("user", "ada"), UserPrincipalName: "ada@example.org", ErrorCode: 50126, Address: "203.0.113.7",
			AppID: synthetic.NamedGUID("app", "payroll"), AppDisplayName: "Payroll",
		})
	}
	file := writeFile(t, "signins.json", synthetic.AppendEnvelope(nil, specs...))
	data := t.TempDir()
	u := startUp(t, data, "--import", file)
	u.WaitFor(`Look it up again`)

	id := specs[5].CorrelationID
	out, errs, code := command(t, nil, "lookup", "--data", data, id)
	if code != 0 {
		t.Fatalf("lookup of the correlation id: exit code %d\n%s%s", code, out, errs)
	}
	for _, expected := range []string{"ada@example.org", "Payroll", "203.0.113.7", "50126", specs[5].RequestID} {
		if !strings.Contains(out, expected) {
			t.Errorf("the answer lacks %q:\n%s", expected, out)
		}
	}
	out, errs, code = command(t, nil, "lookup", "--data", data, "--format", "json", "{"+strings.ToUpper(specs[4].RequestID)+"}")
	if code != 0 {
		t.Fatalf("lookup of a request id: exit code %d\n%s", code, errs)
	}
	var answer struct {
		Result struct {
			RequestID string `json:"request_id"`
			Scenario  string
			Also      []string
			Outcome   string
			Incidents []string
		}
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("the answer is no JSON: %v\n%s", err, out)
	}
	if r := answer.Result; r.RequestID != specs[4].RequestID || r.Scenario != "wrong_password" || r.Outcome != "failure" || !slices.Contains(r.Also, "repeated_failures") || len(r.Incidents) != 1 {
		t.Errorf("wrong diagnosis: %+v", r)
	}
	status, body := get(t, u.API()+"/v1/diagnoses/"+specs[0].RequestID)
	if status != http.StatusOK || !strings.Contains(body, `"wrong_password"`) {
		t.Errorf("API: status %d\n%s", status, body)
	}

	unknown := "00000000-1111-4222-8333-444444444444"
	out, errs, code = command(t, nil, "lookup", "--data", data, unknown)
	if code != 1 || !strings.Contains(errs, "newest record") || !strings.Contains(errs, "SignInLogs") {
		t.Errorf("unknown id: exit code %d\n%s%s", code, out, errs)
	}
	status, body = get(t, u.API()+"/v1/diagnoses/"+unknown)
	if status != http.StatusNotFound || !strings.Contains(body, "freshness") {
		t.Errorf("unknown id over the API: status %d\n%s", status, body)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/v1/freshness", "/v1/codes/50126", "/v1/incidents", "/v1/openapi.yaml", "/"} {
		if status, body := get(t, u.API()+path); status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", path, status, body)
		}
	}
	out, errs, code = command(t, nil, "search", "--data", data, "--user", "ada@example.org")
	if code != 0 || strings.Count(out, "Wrong user name or password") != 6 {
		t.Errorf("search: exit code %d\n%s%s", code, out, errs)
	}
	out, errs, code = command(t, nil, "incidents", "--data", data)
	if code != 0 || !strings.Contains(out, "ada@example.org") {
		t.Errorf("incidents: exit code %d\n%s%s", code, out, errs)
	}

	// A second instance on the same data is refused in plain words.
	second := spawnUp(t, data)
	if code, _ := second.Ended(); code != 1 || !strings.Contains(second.Text(), data) || !strings.Contains(second.Text(), fmt.Sprint(u.PID())) {
		t.Errorf("second instance: exit code %d\n%s", code, second.Text())
	}

	// Another import into the running system.
	more := synthetic.SignInSpec{Time: start.Add(time.Hour), TenantID: specs[0].TenantID, RequestID: synthetic.NamedGUID("request", "more"),
		CorrelationID: synthetic.NamedGUID("correlation", "more"), UserID: synthetic.NamedGUID("user", "bo"), UserPrincipalName: "bo@example.org", Address: "203.0.113.9"}
	out, errs, code = command(t, strings.NewReader(string(synthetic.AppendEventHubs(nil, &more))), "import", "--data", data, "-")
	if code != 0 || !strings.Contains(out, "1 sign-in record sent") || !strings.Contains(out, more.RequestID) {
		t.Errorf("import from standard input: exit code %d\n%s%s", code, out, errs)
	}

	if code := u.Interrupt(); code != 0 {
		t.Errorf("Ctrl-C: exit code %d", code)
	}
	if left := engineProcesses(t, data); len(left) > 0 {
		t.Errorf("processes were left behind: %v", left)
	}

	// The second start continues on the same data.
	again := startUp(t, data)
	again.WaitFor(`Stop: `)
	if out, errs, code := command(t, nil, "lookup", "--data", data, more.CorrelationID); code != 0 || !strings.Contains(out, "bo@example.org") {
		t.Errorf("lookup after the second start: exit code %d\n%s%s", code, out, errs)
	}
}

// TestDemoShowsADiagnosis runs the README's first command and looks up what it shows.
func TestDemoShowsADiagnosis(t *testing.T) {
	data := t.TempDir()
	u := startUp(t, data, "--demo")
	id := u.WaitFor(`lookup .*?([0-9a-f-]{36})`)[1]
	out, errs, code := command(t, nil, "lookup", "--data", data, id)
	if code != 0 || !strings.Contains(out, id) {
		t.Errorf("lookup of the id that was shown: exit code %d\n%s%s", code, out, errs)
	}
	if code := u.Interrupt(); code != 0 {
		t.Errorf("Ctrl-C: exit code %d", code)
	}
}

// TestKilledImportLosesNothing kills the whole system again and again while 100 000 records are on their way, and
// counts at the end.
func TestKilledImportLosesNothing(t *testing.T) {
	records := int64(100_000)
	if testing.Short() {
		records = 10_000
	}
	traffic, err := synthetic.NewTraffic(synthetic.Options{Seed: 7, Records: records, Rate: 5, Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "traffic.ndjson")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]bool{}
	decoder := schemas.NewDecoder()
	for {
		message, n := traffic.Next()
		if n == 0 {
			break
		}
		decoder.Decode(message, time.Time{}, func(_ int, d *schemas.Decoded) {
			if d.Kind != schemas.KindSignIn {
				t.Fatalf("the traffic holds what is no sign-in: %v", d.Err)
			}
			expected[strings.Clone(d.SignIn.RequestId)] = true
		})
		if _, err := file.Write(append(slices.Clone(message), '\n')); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	data := t.TempDir()
	for round := range 5 {
		u := startUp(t, data, "--import", path)
		pause := time.Duration(random.Int64N(int64(3 * time.Second)))
		time.Sleep(pause)
		u.Kill()
		t.Logf("round %d: killed after %s", round, pause)
		deadline := time.Now().Add(program.Long)
		for len(engineProcesses(t, data)) > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("an orphan lives on: %v", engineProcesses(t, data))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	u := startUp(t, data, "--import", path)
	u.WaitFor(`Look it up again`)
	address := u.WaitFor(`ClickHouse +(\S+)`)[1]
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{address}, Auth: clickhouse.Auth{Database: "signindiag"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline := time.Now().Add(program.Long)
	var rows, ids uint64
	for {
		if err := conn.QueryRow(t.Context(), "SELECT count(), uniqExact(request_id) FROM diagnoses FINAL").Scan(&rows, &ids); err != nil {
			t.Fatal(err)
		}
		if ids >= uint64(len(expected)) || time.Now().After(deadline) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if rows != uint64(len(expected)) || ids != uint64(len(expected)) {
		t.Errorf("%d rows and %d request ids, want %d of both", rows, ids, len(expected))
	}
	var quarantined uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM quarantine FINAL").Scan(&quarantined); err != nil {
		t.Fatal(err)
	}
	if quarantined != 0 {
		t.Errorf("%d records in quarantine, want none", quarantined)
	}
	found, err := conn.Query(t.Context(), "SELECT request_id FROM diagnoses FINAL")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		var id string
		if err := found.Scan(&id); err != nil {
			t.Fatal(err)
		}
		if !expected[id] {
			t.Fatalf("a row for %s, which was never sent", id)
		}
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	u.Stop()
}
