package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/schemas"
	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/schemas/synthetic"
	"github.com/signindiag/signindiag/sinks"
)

// tuneStart is when the traffic of these tests begins.
var tuneStart = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// tuneTraffic is made-up traffic with a spray on four users in it, which the thresholds of tuneSettings let pass, and with other
// attacks that they find.
func tuneTraffic(t *testing.T) (lines []string, spray synthetic.Planted) {
	t.Helper()
	traffic, err := synthetic.NewTraffic(synthetic.Options{
		Seed: 7, Start: tuneStart, Records: 1500, Rate: 1, Users: 500, Tenants: 1, Repeated: 0.05, Split: 0.05, Batch: 1,
		Attacks: []synthetic.Attack{
			{Kind: "brute_force", At: tuneStart.Add(time.Minute), FirstUser: 300},
			{Kind: "password_spray", At: tuneStart.Add(2 * time.Minute), FirstUser: 200, Users: 8},
			{Kind: "password_spray", At: tuneStart.Add(3 * time.Minute), FirstUser: 100, Users: 4},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		message, n := traffic.Next()
		if n == 0 {
			break
		}
		lines = append(lines, string(bytes.TrimSpace(message)))
	}
	return lines, traffic.Planted()[2]
}

const tuneSettings = "default:\n  thresholds:\n    password_spray: {low_users: 8}\n"

// tuneFiles writes the settings in force and others.
func tuneFiles(t *testing.T, thresholds string) (now, then string) {
	t.Helper()
	return writeLines(t, "now.yaml", []string{tuneSettings}), writeLines(t, "then.yaml", []string{thresholds})
}

// tuned is the JSON form of a comparison.
type tuned struct {
	lines   []tuneLine
	summary tuneSummary
}

func parseTuned(t *testing.T, out string) (r tuned) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, text := range lines {
		var err error
		if i == len(lines)-1 {
			err = json.Unmarshal([]byte(text), &r.summary)
		} else {
			var head struct {
				Type, With string
				Records    int
				// Counts of a report are an object in JSON, so it is read by its names.
				Incident, Was map[string]any
			}
			err = json.Unmarshal([]byte(text), &head)
			report := func(m map[string]any) (r detectors.IncidentReport) {
				r.Kind, r.Severity, r.TenantID = m["kind"].(string), m["severity"].(string), m["tenant_id"].(string)
				entity := m["entity"].(map[string]any)
				r.Entity = detectors.Entity{Kind: entity["kind"].(string), Value: entity["value"].(string)}
				for _, u := range m["users"].([]any) {
					r.Users = append(r.Users, u.(string))
				}
				return r
			}
			line := tuneLine{Type: head.Type, With: head.With, Records: head.Records, Incident: report(head.Incident)}
			if head.Was != nil {
				was := report(head.Was)
				line.Was = &was
			}
			r.lines = append(r.lines, line)
		}
		if err != nil {
			t.Fatalf("%v in line %d: %s", err, i+1, text)
		}
	}
	if r.summary.Type != "summary" {
		t.Fatalf("the last line is no summary: %s", lines[len(lines)-1])
	}
	return r
}

func TestTuneGainsThePlantedSpray(t *testing.T) {
	lines, spray := tuneTraffic(t)
	input := writeLines(t, "signins.ndjson", lines)
	now, then := tuneFiles(t, "default:\n  thresholds:\n    password_spray: {users: 4, low_users: 8}\n")
	out, errs, code := call(t, "", "tune", "--settings", now, "--thresholds", then, "--format", "json", input)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	got := parseTuned(t, out)
	if len(got.lines) != 1 {
		t.Fatalf("%d differences, want the spray alone:\n%s", len(got.lines), out)
	}
	line := got.lines[0]
	slices.Sort(spray.Users)
	slices.Sort(line.Incident.Users)
	if line.Type != "gained" || line.Incident.Kind != detectors.IncidentPasswordSpray || line.Incident.Severity != detectors.SeverityMedium ||
		line.Incident.TenantID != spray.TenantID || line.Incident.Entity != (detectors.Entity{Kind: detectors.EntityAddress, Value: spray.Addresses[0]}) ||
		line.Records != len(spray.RequestIDs) || !slices.Equal(line.Incident.Users, spray.Users) {
		t.Errorf("got %+v, want the spray %+v", line, spray)
	}
	if want := []thresholdChange{{"", "password_spray.users", "5", "4"}}; !slices.Equal(got.summary.Thresholds, want) {
		t.Errorf("thresholds %+v, want %+v", got.summary.Thresholds, want)
	}
	for _, k := range got.summary.Kinds {
		want := 0
		if k.Kind == detectors.IncidentPasswordSpray {
			want = 1
			if k.Now == 0 {
				t.Error("the large spray is not found now")
			}
		}
		if k.Gained != want || k.Then != k.Now+want || k.Lost != 0 || k.Changed != 0 {
			t.Errorf("%+v", k)
		}
	}

	// The other way round it is lost; in text, and from standard input.
	out, errs, code = call(t, strings.Join(lines, "\n"), "tune", "--settings", then, "--thresholds", now, "-")
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{
		"password_spray.users 4 -> 5\n", "    2     1       0     1        0       0      0  password_spray\n",
		"\nlost     password_spray  medium  address " + spray.Addresses[0] + "  4 users  ", "  4 records  tenant " + spray.TenantID,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the text lacks %q:\n%s", want, out)
		}
	}
	if strings.Count(out, "\nlost ") != 1 || strings.Contains(out, "gained   ") {
		t.Errorf("more than the spray differs:\n%s", out)
	}
}

func TestTuneWhereNothingChanges(t *testing.T) {
	lines, _ := tuneTraffic(t)
	input := writeLines(t, "signins.ndjson", lines)
	// Another threshold, which no story meets; and one that is the same in other words.
	now, then := tuneFiles(t, "default:\n  thresholds:\n    password_spray: {low_users: 8}\n    brute_force: {window: 11m}\n    ca_surge: {window: 60m}\n")
	out, errs, code := call(t, "", "tune", "--settings", now, "--thresholds", then, input)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if !strings.HasPrefix(out, "brute_force.window 10m -> 11m\n\n") || !strings.Contains(out, "Nothing changes: the same incidents come of 1") || strings.Contains(out, "ca_surge.") {
		t.Errorf("got:\n%s", out)
	}
	out, _, _ = call(t, "", "tune", "--settings", now, "--thresholds", then, "--format", "json", input)
	got := parseTuned(t, out)
	stories := 0
	for _, k := range got.summary.Kinds {
		stories += k.Now
	}
	if stories < 2 || len(got.lines) > 0 {
		t.Errorf("%d stories, want several, and %d differences", stories, len(got.lines))
	}
}

func TestTuneTellsOtherSeverities(t *testing.T) {
	lines, _ := tuneTraffic(t)
	input := writeLines(t, "signins.ndjson", lines)
	now, then := tuneFiles(t, "default:\n  trusted_addresses: [2001:db8:ffff::/48]\n  thresholds:\n    password_spray: {users_high: 7, low_users: 8}\n")
	out, errs, code := call(t, "", "tune", "--settings", now, "--thresholds", then, input)
	if code != 0 || !strings.Contains(errs, "differs from what is in force in more than thresholds") {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if !strings.Contains(out, "\nchanged  password_spray  medium -> high  address ") || strings.Count(out, "\nchanged ") != 1 {
		t.Errorf("got:\n%s", out)
	}
}

func TestTuneCommandLines(t *testing.T) {
	now, then := tuneFiles(t, "default:\n  thresholds:\n    password_spray: {users: 1}\n")
	t.Setenv("SIGNINDIAG_CLICKHOUSE_ADDRESSES", "")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"x.ndjson"}, 2, "--thresholds"},
		{[]string{"--thresholds", now}, 2, "name exported logs"},
		{[]string{"--thresholds", now, "--from", "2026-03-02", "x.ndjson"}, 2, "not both"},
		{[]string{"--thresholds", now, "--to", "2026-03-02", "x.ndjson"}, 2, "--to belongs to --from"},
		{[]string{"--thresholds", then, "x.ndjson"}, 1, "password_spray.users is \"1\", expected a whole number from 2"},
		{[]string{"--thresholds", now, "--from", "yesterday"}, 2, "--from: expected a time"},
		{[]string{"--thresholds", now, "--from", "2026-03-02", "--to", "2026-03-01"}, 2, "is not after --from"},
		{[]string{"--thresholds", now, "no-such-file.ndjson"}, 1, "no-such-file.ndjson"},
	} {
		_, errs, code := call(t, "", append([]string{"tune"}, test.args...)...)
		if code != test.code || !strings.Contains(errs, test.want) {
			t.Errorf("tune %q: exit code %d, want %d; %s", test.args, code, test.code, errs)
		}
	}
}

// TestTuneMatchesByRecords: a story is the same whatever its id is, and only where records, and a kind, are the same.
func TestTuneMatchesByRecords(t *testing.T) {
	const tenant = "11111111-aaaa-4bbb-8ccc-000000000001"
	result := func(incidents ...string) (r inmemory.Result) {
		for _, text := range incidents {
			f := strings.Fields(text) // id, kind, entity, records
			kind, also, _ := strings.Cut(f[1], "+")
			i := detectors.Incident{IncidentID: f[0], Kind: kind, Severity: "medium", EntityKind: detectors.EntityUser, EntityValue: f[2], TenantID: tenant,
				LastSeen: tuneStart.UnixMicro()}
			if also != "" {
				i.Also = []string{also}
			}
			r.Incidents = append(r.Incidents, i)
			for _, id := range strings.Split(f[3], ",") {
				r.Members = append(r.Members, detectors.IncidentMember{IncidentID: f[0], TenantID: tenant, RequestID: id})
			}
		}
		return r
	}
	for _, test := range []struct {
		name      string
		now, then inmemory.Result
		want      []string // type, incident, with
	}{
		{"another id", result("a brute_force ada 1,2,3"), result("b brute_force ada 2,3,4"), nil},
		{"the same id, other records", result("a brute_force ada 1,2"), result("a brute_force ada 3,4"), []string{"gained a ", "lost a "}},
		{"another kind", result("a brute_force ada 1,2"), result("b mfa_fatigue ada 1,2"), []string{"gained b ", "lost a "}},
		{"another kind first", result("a brute_force+repeated_failures ada 1,2"), result("b repeated_failures ada 1,2"), []string{"changed b "}},
		{"split", result("a brute_force ada 1,2,3,4,5"), result("b brute_force ada 1,2", "c brute_force ada 3,4,5"), []string{"split b a"}},
		{"united", result("b brute_force ada 1,2", "c brute_force ada 3,4,5"), result("a brute_force ada 1,2,3,4,5"), []string{"united b a"}},
		{"the same entity before more records", result("a brute_force ada 1", "b brute_force bob 2,3"), result("c brute_force ada 1,2,3"), []string{"united b c"}},
		{"nothing", result(), result(), nil},
	} {
		c := tuning{}
		c.compare(test.now, test.then, time.Time{})
		var got []string
		for _, l := range c.lines {
			got = append(got, fmt.Sprintf("%s %s %s", l.Type, l.Incident.IncidentID, l.With))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		for _, k := range c.kinds() {
			if k.Changed == 0 && k.Then != k.Now+k.Gained+k.Split-k.Lost-k.United {
				t.Errorf("%s: %+v does not add up", test.name, k)
			}
		}
	}
	c := tuning{}
	c.compare(result("a brute_force ada 1"), result(), tuneStart.Add(time.Second))
	if len(c.lines) != 0 || len(c.kinds()) != 0 {
		t.Error("a story that ended before the span is compared")
	}
	if text := entityText(detectors.Entity{Kind: "user", Value: "a\x1b[31m\u202eb"}); text != "user a [31m b" {
		t.Errorf("a name that disturbs a terminal became %q", text)
	}
}

// TestTuneReadsClickHouse: what ClickHouse holds as received gives the same differences as the file it came from.
func TestTuneReadsClickHouse(t *testing.T) {
	server := sinks.Server{Address: []string{embeddedtest.ClickHouse(t)}, Database: embeddedtest.Database(t)}
	conn, err := sinks.Open(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := sinks.Migrate(t.Context(), conn, chschema.Options{Database: server.Database}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIGNINDIAG_CLICKHOUSE_ADDRESSES", server.Address[0])
	t.Setenv("SIGNINDIAG_CLICKHOUSE_DATABASE", server.Database)
	now, then := tuneFiles(t, "default:\n  thresholds:\n    password_spray: {users: 4, low_users: 8}\n")
	tune := func(more ...string) (string, string, int) {
		return call(t, "", append([]string{"tune", "--settings", now, "--thresholds", then, "--format", "json"}, more...)...)
	}
	span := []string{"--from", "2026-03-02T08:00:00Z", "--to", "2026-03-02T12:00:00Z"}
	if _, errs, code := tune(span...); code != 1 || !strings.Contains(errs, "ClickHouse holds no sign-in from 2026-03-02T08:00:00Z") {
		t.Errorf("without any record: exit code %d: %s", code, errs)
	}
	if err := conn.Exec(t.Context(), `INSERT INTO diagnoses (request_id, event_time) VALUES ('r1', '2026-03-02 09:00:00'), ('r2', '2026-03-02 09:00:01')`); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := tune(span...); code != 1 || !strings.Contains(errs, "about 2 diagnosed records of that time, and none as received") ||
		!strings.Contains(errs, "SIGNINDIAG_CLICKHOUSE_RAW_RECORDS is false") {
		t.Errorf("without records as received: exit code %d: %s", code, errs)
	}

	lines, spray := tuneTraffic(t)
	seed := testSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	var records []sinks.RawRecord
	decoder := schemas.NewDecoder()
	for i, line := range lines {
		decoder.Decode([]byte(line), tuneStart.Add(time.Hour), func(index int, d *schemas.Decoded) {
			if d.Kind == schemas.KindSignIn {
				// The text of the record itself, as the router keeps it; received in any order, up to weeks later.
				records = append(records, sinks.RawRecord{
					Source: sinks.Source{Topic: "raw", Incarnation: 1, Offset: int64(i), Index: uint32(index)}, RequestID: d.SignIn.RequestId, TenantID: d.SignIn.TenantId,
					EventTime: d.SignIn.EventTime, ReceivedTime: tuneStart.Add(time.Hour + time.Duration(rng.IntN(30*24))*time.Hour).UnixMilli(), Bytes: bytes.Clone(d.Raw),
				})
			}
		})
	}
	storeRaw(t, server, records)

	out, errs, code := tune(span...)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	got := parseTuned(t, out)
	if len(got.lines) != 1 || got.lines[0].Incident.Entity.Value != spray.Addresses[0] || got.summary.Records != len(records) {
		t.Errorf("%d records:\n%s", got.summary.Records, out)
	}
	file, _, _ := tune(writeLines(t, "signins.ndjson", lines))
	if d := cmp.Diff(parseTuned(t, file).summary.Kinds, got.summary.Kinds); d != "" {
		t.Errorf("the file gives other numbers (-file +ClickHouse):\n%s", d)
	}
	// Of a running up, its own settings are those in force.
	dir := t.TempDir()
	if err := writeEndpoints(dir, endpoints{PID: os.Getpid(), ClickHouse: server.Address[0], Database: server.Database, Settings: then}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIGNINDIAG_SETTINGS_FILE", now)
	out, errs, code = call(t, "", append([]string{"tune", "--data", dir, "--thresholds", then}, span...)...)
	if code != 0 || errs != "" || !strings.HasPrefix(out, "The thresholds are those in force.\n") || !strings.Contains(out, "Nothing changes") {
		t.Errorf("exit code %d: %s%s", code, errs, out)
	}
	// What ended before --from is no difference of the span, and what came later is not read.
	out, _, code = tune("--from", "2026-03-03T09:00:00Z", "--to", "2026-03-03T10:00:00Z")
	if code != 1 {
		t.Errorf("a span without sign-ins: exit code %d: %s", code, out)
	}
	if _, errs, code := call(t, "", "tune", "--thresholds", then, "--from", "2026-03-02", "--data", filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(errs, "no `signindiag up` is running") {
		t.Errorf("where nothing runs: exit code %d: %s", code, errs)
	}
}

func storeRaw(t *testing.T, server sinks.Server, records []sinks.RawRecord) {
	t.Helper()
	sink, err := sinks.NewRawRecords(sinks.RecordsConfig{Server: server})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx) }()
	err = sink.Put(ctx, records)
	if err == nil {
		err = sink.Flush(ctx)
	}
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
