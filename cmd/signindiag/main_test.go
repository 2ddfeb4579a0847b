package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

// call runs a command in this process.
func call(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, streams{strings.NewReader(stdin), &out, &errs})
	return out.String(), errs.String(), code
}

// signIn returns a record as NDJSON.
func signIn(at time.Time, number int, code int32) string {
	return string(synthetic.AppendEventHubs(nil, &synthetic.SignInSpec{
		Time: at, TenantID: synthetic.NamedGUID("tenant", "contoso"), RequestID: synthetic.GUID(1, uint64(number)), CorrelationID: synthetic.GUID(2, uint64(number)),
		UserID: synthetic.NamedGUID("user", "ada"), UserPrincipalName: "ada@example.org", ErrorCode: code, Address: "203.0.113.7", AppDisplayName: "Payroll",
		AppID: synthetic.NamedGUID("app", "payroll"),
	})) + "\n"
}

func TestExplainTextSaysWhatToDo(t *testing.T) {
	out, errs, code := call(t, signIn(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), 1, 50126), "explain")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"ada@example.org", "Payroll", "What happened", "What to do", "50126", synthetic.GUID(1, 1), "https://learn.microsoft.com/"} {
		if !strings.Contains(out, want) {
			t.Errorf("the text lacks %q:\n%s", want, out)
		}
	}
	if errs != "1 sign-in record\n" {
		t.Errorf("note: %q", errs)
	}
}

// TestExplainJSONIsTheContract holds the names of the JSON form: programs lean on them.
func TestExplainJSONIsTheContract(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var input strings.Builder
	for i := range 5 {
		input.WriteString(signIn(start.Add(time.Duration(4-i)*time.Minute), i, 50126))
	}
	out, errs, code := call(t, input.String(), "explain", "--format", "json", "-")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	diagnosis := []string{"type", "request_id", "correlation_id", "tenant_id", "event_time", "category", "user", "user_id", "app", "resource",
		"client_app", "address", "error_code", "outcome", "attempt_id", "attempt_outcome", "scenario", "also", "severity", "summary", "evidence",
		"actions", "links", "unknown", "incidents", "revision"}
	incident := []string{"type", "incident_id", "kind", "severity", "entity", "tenant_id", "first_seen", "last_seen", "users", "addresses",
		"applications", "devices", "operating_systems", "client_apps", "counts", "outcome", "request_ids", "request_ids_total", "also", "joined"}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 6 {
		t.Fatalf("%d lines, want 5 diagnoses and an incident:\n%s", len(lines), out)
	}
	previous := ""
	for i, line := range lines {
		names, want := []string{}, diagnosis
		decoder := json.NewDecoder(strings.NewReader(line))
		depth := 0
		for key := false; ; {
			token, err := decoder.Token()
			if err != nil {
				break
			}
			switch v := token.(type) {
			case json.Delim:
				if v == '{' || v == '[' {
					depth++
				} else {
					depth--
				}
				key = depth == 1
				continue
			case string:
				if depth == 1 && key {
					names = append(names, v)
					key = false
					continue
				}
			}
			key = depth == 1
		}
		if i == 5 {
			want = incident
		}
		if !slices.Equal(names, want) {
			t.Errorf("line %d has the names\n%v, want\n%v", i+1, names, want)
		}
		var fields struct {
			EventTime string `json:"event_time"`
			Incidents []string
			Revision  uint64
		}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		if i < 5 && (fields.EventTime <= previous || len(fields.Incidents) != 1 || fields.Revision == 0) {
			t.Errorf("line %d: event time %s after %s, incidents %v, revision %d", i+1, fields.EventTime, previous, fields.Incidents, fields.Revision)
		}
		previous = fields.EventTime
	}
}

func TestExplainNamesBadInputAndReadsTheRest(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := signIn(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), 1, 0)
	files := []string{
		write("truncated.json", good[:len(good)/2]),
		write("large.json", `{"category":"SignInLogs","properties":{"id":"x","userAgent":"`+strings.Repeat("a", 5_000_000)+`"}}`),
		write("nul.json", strings.Repeat("\x00", 100)),
		write("empty.json", ""),
		dir,
		write("wrong.csv", "a,b\n1,2\n"),
		filepath.Join(dir, "missing.json"),
		write("mixed.ndjson", `{"foo":1}`+"\n"+good+"{\"category\":\"AuditLogs\",\"time\":\"2026-03-02T09:00:00Z\"}\nxx\n"),
	}
	out, errs, code := call(t, "", append([]string{"explain", "--format", "json"}, files...)...)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, synthetic.GUID(1, 1)) {
		t.Errorf("the good record is not diagnosed alone:\n%s", out)
	}
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if len(lines) != 10 {
		t.Errorf("%d lines, want one for each of 9 faults and the note:\n%s", len(lines), errs)
	}
	for i, want := range []string{"truncated.json:1: ", "large.json:1: ", "nul.json:1: ", "empty.json: ", dir, "wrong.csv:1: ", "missing.json: ", "mixed.ndjson:1: ", "mixed.ndjson:4: ", "1 sign-in record; skipped 1 AuditLogs; 9 not readable"} {
		if i < len(lines) && !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q, want %q in it", i+1, lines[i], want)
		}
	}
}

func TestCodes(t *testing.T) {
	for _, code := range []string{"50126", "AADSTS50126", "aadsts50126"} {
		if out, errs, exit := call(t, "", "codes", code); exit != 0 || !strings.Contains(out, "wrong_password") {
			t.Errorf("codes %s: exit code %d\n%s%s", code, exit, out, errs)
		}
	}
	if _, errs, exit := call(t, "", "codes", "1"); exit != 1 || !strings.Contains(errs, "not in the catalogue") {
		t.Errorf("an unknown code: exit code %d, %s", exit, errs)
	}
	if _, errs, exit := call(t, "", "codes", "x"); exit != 1 || !strings.Contains(errs, "expected a number") {
		t.Errorf("no code: exit code %d, %s", exit, errs)
	}
	if out, _, exit := call(t, "", "codes", "--scenarios"); exit != 0 || strings.Count(out, "\n") < 30 {
		t.Errorf("scenarios: exit code %d\n%s", exit, out)
	}
	var codes struct{ Codes []struct{ Code int } }
	out, _, _ := call(t, "", "codes", "--format", "json")
	if err := json.Unmarshal([]byte(out), &codes); err != nil || len(codes.Codes) < 384 {
		t.Errorf("%d codes, want the 384 known ones at least: %v", len(codes.Codes), err)
	}
}

func TestCodesTellsAllOfACode(t *testing.T) {
	for _, test := range []struct {
		code string
		want []string
	}{
		{"50126", []string{"AADSTS50126 InvalidUserNameOrPassword", "Outcome     failure", "Password    wrong", "Counts      yes", "Scenario    wrong_password: ", "Category    credentials", "Document    https://"}},
		{"50144", []string{"Outcome     interrupt (user_must_act)", "Counts      as a failure within 48 hours only", "Also        pta: Pass-through authentication"}},
		{"0", []string{"Outcome     success", "Password    right", "Counts      no"}},
	} {
		out, _, exit := call(t, "", "codes", test.code)
		for _, want := range test.want {
			if exit != 0 || !strings.Contains(out, want) {
				t.Errorf("codes %s: exit code %d, want %q in\n%s", test.code, exit, want, out)
			}
		}
	}
	if _, errs, exit := call(t, "", "codes", "424242"); exit != 1 || !strings.Contains(errs, "https://login.microsoftonline.com/error?code=424242") {
		t.Errorf("an unknown code: exit code %d, %s", exit, errs)
	}
	if out, _, exit := call(t, "", "codes", "--search", "REPLY url"); exit != 0 || !strings.Contains(out, "50011 ") || strings.Contains(out, "50126 ") {
		t.Errorf("a search: exit code %d\n%s", exit, out)
	}
	if _, errs, exit := call(t, "", "codes", "--search", "no such words"); exit != 1 || !strings.Contains(errs, `"no such words"`) {
		t.Errorf("a search that finds nothing: exit code %d, %s", exit, errs)
	}
	if _, errs, exit := call(t, "", "codes", "--search", "reply", "url"); exit != 1 || !strings.Contains(errs, "in quotes") {
		t.Errorf("a search without quotes: exit code %d, %s", exit, errs)
	}
	out, _, _ := call(t, "", "codes", "--scenarios")
	for _, want := range []string{"1  security_defaults: Security defaults\n", "Severity   medium, interrupted low, resolved info, success info", "Codes      530035; category security_defaults", "Also for   50144", "Examples   ", "Label      never the headline"} {
		if !strings.Contains(out, want) {
			t.Errorf("the scenarios lack %q:\n%s", want, out)
		}
	}
	out, _, _ = call(t, "", "codes", "--scenarios", "--format", "json")
	var scenarios []scenarioAnswer
	if err := json.Unmarshal([]byte(out), &scenarios); err != nil || len(scenarios) < 30 {
		t.Fatalf("%d scenarios: %v", len(scenarios), err)
	}
	total := 0
	for _, s := range scenarios {
		total += s.CodesTotal
		if s.Severities["default"] == "" || len(s.Examples) == 0 || s.Codes == nil || s.AlsoCodes == nil || s.Categories == nil {
			t.Errorf("%+v", s)
		}
	}
	if total < 384 {
		t.Errorf("the scenarios have %d codes, want the 384 known ones at least", total)
	}
}

// TestCatalogueFile holds that every command takes the operator's changes, by flag and by environment.
func TestCatalogueFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := write("own.yaml", `
codes:
  50126: {meaning: Contoso knows better.}
  999001: {category: other, meaning: The gateway of Contoso refused it., remediation: Ask Contoso.}
scenarios:
  wrong_password:
    title: Typed wrong
    severity: {failure: critical}
    summary: {failure: "{who} typed it wrong."}
`)
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	records := signIn(start, 1, 50126) + signIn(start.Add(time.Hour), 2, 999001)
	story := write("story.txt", "at 09:00 ada fails 50126 from 203.0.113.7 app \"Exchange Online\"\nexpect ada severity=critical\n")
	check := func(name string, flags ...string) {
		t.Helper()
		for _, test := range []struct {
			stdin string
			args  []string
			want  []string
		}{
			{"", []string{"codes", "50126"}, []string{"Contoso knows better.", "wrong_password: Typed wrong"}},
			{"", []string{"codes", "AADSTS999001"}, []string{"The gateway of Contoso refused it.", "error?code=999001"}},
			{"", []string{"codes", "--scenarios"}, []string{"Typed wrong", "failure critical"}},
			{records, []string{"explain"}, []string{"ada@example.org typed it wrong.", "Typed wrong  [critical]"}},
			{"", []string{"scenario", story}, []string{"ok "}},
		} {
			out, errs, exit := call(t, test.stdin, append(test.args, flags...)...)
			for _, want := range test.want {
				if exit != 0 || !strings.Contains(out, want) {
					t.Errorf("%s %v: exit code %d, want %q in\n%s%s", name, test.args, exit, want, out, errs)
				}
			}
			if strings.Contains(errs, "does not know") {
				t.Errorf("%s %v: a code that the file adds is told to be unknown: %s", name, test.args, errs)
			}
		}
	}
	check("flag", "--catalogue", own)
	if _, _, exit := call(t, "", "codes", "999001"); exit != 1 {
		t.Error("the changes outlive their command")
	}
	t.Setenv("SIGNINDIAG_CATALOGUE_FILE", own)
	check("environment")

	broken := write("broken.yaml", "codes:\n  50126: {counts: often}\n  # fine\n  50053: {meanin: x}\n")
	for _, args := range [][]string{{"codes"}, {"codes", "50126"}, {"explain"}, {"scenario", story}, {"up"}, {"codes", "--scenarios"}} {
		_, errs, exit := call(t, records, append(args, "--catalogue", broken)...)
		want := "signindiag: the catalogue is not valid:\n" + broken + ":2: code 50126: counts \"often\": expected no, yes or unattended\n" +
			broken + ":4: code 50053: field \"meanin\" cannot be set: expected symbol, category, outcome, password, counts, meaning, remediation or link\n"
		if exit != 1 || errs != want {
			t.Errorf("%v: exit code %d\n%s\nwant\n%s", args, exit, errs, want)
		}
	}
	if _, errs, exit := call(t, "", "codes", "--catalogue", filepath.Join(dir, "missing.yaml")); exit != 1 || !strings.Contains(errs, "missing.yaml") || !strings.Contains(errs, "SIGNINDIAG_CATALOGUE_FILE") {
		t.Errorf("a missing file: exit code %d, %s", exit, errs)
	}
}

func TestExplainTellsUnknownCodes(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	input := signIn(start, 0, 50126)
	for i, code := range []int32{888888, 999999, 999999} {
		record := signIn(start.Add(time.Duration(i)*time.Minute), i+1, code)
		input += record + record // a repeat does not count
	}
	if _, errs, exit := call(t, input, "explain"); exit != 0 || !strings.HasSuffix(errs, "\n3 records with codes that the catalogue does not know: 999999 (2), 888888 (1)\n") {
		t.Errorf("exit code %d, note %q", exit, errs)
	}
	if _, errs, _ := call(t, signIn(start, 1, 888888), "explain", "--format", "json"); !strings.HasSuffix(errs, "\n1 record with a code that the catalogue does not know: 888888 (1)\n") {
		t.Errorf("note %q", errs)
	}
	input = ""
	for i := range 12 {
		input += signIn(start.Add(time.Duration(i)*time.Minute), i, int32(900001+i))
	}
	if _, errs, _ := call(t, input, "explain"); !strings.HasSuffix(errs, "900009 (1), 900010 (1), 2 more\n") {
		t.Errorf("note %q", errs)
	}
}

func TestScenarioCommandTellsFailures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "my.txt")
	content := "at 09:00 ada fails 50126 from 203.0.113.7 app \"Exchange Online\" x5\nexpect ada repeated_failures count=5\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := call(t, "", "scenario", path); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(content, "count=5", "count=6", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := call(t, "", "scenario", path); code != 1 || !strings.Contains(out, "my.txt:2") {
		t.Errorf("an unmet expectation: exit code %d\n%s%s", code, out, errs)
	}
	if err := os.WriteFile(path, []byte("at noon ada sings\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := call(t, "", "scenario", path); code != 1 || !strings.Contains(errs, "my.txt:1") {
		t.Errorf("a wrong statement: exit code %d\n%s", code, errs)
	}
}

func TestGenerateIsSeeded(t *testing.T) {
	args := []string{"generate", "--records", "500", "--seed", "3", "--start", "2026-03-02T08:00:00Z", "--attacks", "password_spray,account_lockout", "--truth"}
	first, truth, code := call(t, "", args...)
	if code != 0 || strings.Count(truth, "planted") != 2 {
		t.Fatalf("exit code %d: %s", code, truth)
	}
	second, _, _ := call(t, "", args...)
	if first != second || first == "" {
		t.Error("the same seed gave other records")
	}
	out, errs, code := call(t, first, "explain", "--format", "json")
	if code != 0 || !strings.Contains(errs, "500 sign-in records") {
		t.Errorf("explain of the generated records: exit code %d, %s", code, errs)
	}
	if !strings.Contains(out, `"scenario":"success"`) {
		t.Error("no success among the generated records")
	}
	if _, errs, code := call(t, "", "generate", "--attacks", "nonsense"); code != 1 || !strings.Contains(errs, "password_spray") {
		t.Errorf("an unknown attack: exit code %d, %s", code, errs)
	}
}

func TestWrongCommandLines(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		text string
	}{
		{nil, 0, "Usage"},
		{[]string{"--help"}, 0, "explain"},
		{[]string{"frob"}, 2, "unexpected argument"},
		{[]string{"lookup"}, 2, "expected"},
		{[]string{"explain", "--format", "xml"}, 2, "must be one of"},
		{[]string{"version"}, 0, "signindiag"},
		{[]string{"run"}, 1, "SIGNINDIAG_KAFKA_BROKERS is not set"},
		{[]string{"migrate"}, 1, "SIGNINDIAG_CLICKHOUSE_ADDRESSES is not set"},
		{[]string{"up", "file.json"}, 1, "files follow --import"},
		{[]string{"up", "--import", "no-such-file.json"}, 1, "no-such-file.json"},
		{[]string{"health", "--address", "127.0.0.1:1"}, 1, "no signindiag answers"},
	} {
		out, errs, code := call(t, "", test.args...)
		if code != test.code || !strings.Contains(out+errs, test.text) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", test.args, code, test.code, test.text, out, errs)
		}
	}
	data := t.TempDir()
	for _, args := range [][]string{{"lookup", "--data", data, synthetic.GUID(1, 1)}, {"import", "--data", data, "-"}, {"search", "--data", data}, {"incidents", "--data", data}} {
		if _, errs, code := call(t, "{}", args...); code != 1 || !strings.Contains(errs, "up` is running") {
			t.Errorf("%v without a running system: exit code %d, %s", args, code, errs)
		}
	}
}

func TestStoppedCommandsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"generate", "--records", "100000000"}, streams{strings.NewReader(""), &out, &errs}); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}
