package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
	"github.com/signindiag/signindiag/sinks"
)

// TestAlertRules lets Prometheus's own tool check the rules and run their tests.
func TestAlertRules(t *testing.T) {
	promtool := embeddedtest.Program(t, "promtool", "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		command := exec.Command(promtool, args...)
		command.Dir = "../deploy/prometheus"
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestAlertmanagerExample starts an Alertmanager with the example of its configuration.
func TestAlertmanagerExample(t *testing.T) {
	config, err := os.ReadFile("../deploy/alertmanager/alertmanager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	embeddedtest.StartAlertmanager(t, string(config))
	// Its rules name kinds: a name that is none would never match.
	cat, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, kind := range cat.Incidents() {
		name := "SignIn"
		for word := range strings.SplitSeq(kind.Name, "_") {
			name += strings.ToUpper(word[:1]) + word[1:]
		}
		known[name] = true
	}
	groups := regexp.MustCompile(`SignIn\(([A-Za-z|]+)\)`).ReplaceAllStringFunc(string(config), func(group string) string {
		return "SignIn" + strings.ReplaceAll(strings.Trim(strings.TrimPrefix(group, "SignIn"), "()"), "|", " SignIn")
	})
	names := regexp.MustCompile(`SignIn[A-Z][A-Za-z]+`).FindAllString(groups, -1)
	for _, name := range names {
		if !known[name] {
			t.Errorf("the example names %s, which is no kind of incident", name)
		}
	}
	if len(names) < 10 {
		t.Errorf("only %d names were looked at", len(names))
	}
}

// dashboard is what this test needs of a Grafana dashboard.
type dashboard struct {
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct {
			RawSQL     string `json:"rawSql"`
			Format     int
			QueryType  string
			Datasource struct{ Type string }
		}
		FieldConfig struct {
			Overrides []struct {
				Matcher struct{ ID, Options string }
			}
		}
		Options struct {
			ReduceOptions struct{ Fields string }
		}
	}
	Templating struct {
		List []struct {
			Name, Type string
			Query      string
		}
	}
}

var (
	macroTimeFilter   = regexp.MustCompile(`\$__timeFilter\(([a-z_]+)\)`)
	macroTimeInterval = regexp.MustCompile(`\$__timeInterval\(([a-z_]+)\)`)
	dataField         = regexp.MustCompile(`__data\.fields\.([a-z_]+)`)
)

// expand does what Grafana and its ClickHouse data source do with a query before they send it.
func expand(sql string, from, to time.Time, variables map[string]string) string {
	since, until := fmt.Sprintf("toDateTime(%d)", from.Unix()), fmt.Sprintf("toDateTime(%d)", to.Unix())
	sql = macroTimeFilter.ReplaceAllString(sql, "$1 >= "+since+" AND $1 <= "+until)
	sql = macroTimeInterval.ReplaceAllString(sql, "toStartOfInterval(toDateTime($1), INTERVAL 600 second)")
	sql = strings.NewReplacer("$__fromTime", since, "$__toTime", until).Replace(sql)
	for name, value := range variables {
		sql = strings.ReplaceAll(sql, "${"+name+"}", value)
	}
	return sql
}

// TestDashboard runs every query of the Grafana dashboard on the tables of a running signindiag, after an import of traffic with
// attacks in it and with an incident of every kind.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../deploy/grafana/signindiag-lockouts-and-sprays.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	var panels []json.RawMessage // for the links, which stand in several places
	var whole struct{ Panels []json.RawMessage }
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	panels = whole.Panels

	now := time.Now().UTC().Truncate(time.Second)
	start := now.Add(-20 * time.Hour)
	attack := func(kind string, hour, user int) synthetic.Attack {
		return synthetic.Attack{Kind: kind, At: start.Add(time.Duration(hour) * time.Hour), FirstUser: user}
	}
	traffic, err := synthetic.NewTraffic(synthetic.Options{Seed: 11, Records: 3000, Rate: 0.05, Start: start, Attacks: []synthetic.Attack{
		attack("password_spray", 2, 10), attack("account_lockout", 4, 40), attack("legacy_auth", 6, 60), attack("repeated_failures", 8, 80), attack("account_takeover", 10, 100),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var records []byte
	for message, n := traffic.Next(); n > 0; message, n = traffic.Next() {
		records = append(append(records, message...), '\n')
	}
	u := startUp(t, t.TempDir(), "--import", writeFile(t, "traffic.ndjson", records))
	u.WaitFor(`Look it up again`)
	found := u.WaitFor(`ClickHouse +(\S+) \(database (\S+)\)`)
	address, database := found[1], found[2]
	writeIncidents(t, address, database, now)

	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{address}}) // in the database "default"
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		switch v.Name {
		case "database":
			variables["database"] = database
		case "tenant":
			names, rows := run(t, conn, expand(v.Query, start, now, variables))
			if len(names) != 1 || len(rows) == 0 {
				t.Fatalf("the variable tenant: %v, %d rows", names, len(rows))
			}
			var tenants []string
			for _, row := range rows {
				tenants = append(tenants, fmt.Sprintf("'%v'", row[0]))
			}
			variables["tenant:singlequote"] = strings.Join(tenants, ",")
		case "open_hours":
			variables["open_hours"] = strings.Split(v.Query, ",")[0]
		}
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for n, panel := range d.Panels {
		t.Run(panel.Title, func(t *testing.T) {
			if ids[panel.ID] || len(panel.Targets) != 1 || panel.Targets[0].Datasource.Type != "grafana-clickhouse-datasource" {
				t.Fatalf("a panel with an id of its own and one query of ClickHouse is expected: %+v", panel)
			}
			ids[panel.ID] = true
			for x := panel.GridPos.X; x < panel.GridPos.X+panel.GridPos.W; x++ {
				for y := panel.GridPos.Y; y < panel.GridPos.Y+panel.GridPos.H; y++ {
					if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("it lies on %q or beyond the right edge", other)
					}
					cells[[2]int{x, y}] = panel.Title
				}
			}
			target := panel.Targets[0]
			sql := expand(target.RawSQL, start, now.Add(time.Minute), variables)
			if strings.Contains(sql, "$") {
				t.Fatalf("a macro or variable is not known: %s", sql)
			}
			// The import is done when the first record is there; the rest follows.
			deadline := time.Now().Add(program.Long)
			names, rows := run(t, conn, sql)
			for (len(rows) == 0 || panel.Type == "stat" && fmt.Sprint(rows[0][0]) == "0") && time.Now().Before(deadline) {
				time.Sleep(100 * time.Millisecond)
				names, rows = run(t, conn, sql)
			}
			if len(rows) == 0 || panel.Type == "stat" && fmt.Sprint(rows[0][0]) == "0" {
				t.Fatalf("it shows nothing: %s", sql)
			}
			used := []string{strings.Trim(panel.Options.ReduceOptions.Fields, "/^$")}
			for _, o := range panel.FieldConfig.Overrides {
				if o.Matcher.ID != "byName" {
					t.Errorf("a matcher that is not looked at: %+v", o.Matcher)
				}
				used = append(used, o.Matcher.Options)
			}
			for _, match := range dataField.FindAllSubmatch(panels[n], -1) {
				used = append(used, string(match[1]))
			}
			for _, name := range used {
				if name != "" && !slices.Contains(names, name) {
					t.Errorf("it uses the column %s, which is none of %v", name, names)
				}
			}
			switch panel.Type {
			case "timeseries":
				numbers := 0
				for _, value := range rows[0] {
					if _, ok := value.(uint64); ok {
						numbers++
					}
				}
				if _, ok := rows[0][0].(time.Time); !ok || names[0] != "time" || numbers == 0 || target.Format != 0 || target.QueryType != "timeseries" {
					t.Errorf("a time series has a time first, then numbers and what tells them apart: %v, %T", names, rows[0][0])
				}
			case "table", "stat":
				if target.Format != 1 || target.QueryType != "table" {
					t.Errorf("format %d, %s", target.Format, target.QueryType)
				}
			default:
				t.Errorf("a panel of type %s, which is not looked at", panel.Type)
			}
			if panel.Title == "Open incidents" {
				for _, row := range rows {
					if strings.Contains(fmt.Sprint(row), "SECRET-POLICY") {
						t.Error("it shows a policy's name")
					}
				}
			}
		})
	}
	if len(d.Panels) < 10 {
		t.Errorf("only %d panels were looked at", len(d.Panels))
	}
}

// run runs a query as Grafana does, read-only, and returns the names of its columns and its rows.
func run(t *testing.T, conn driver.Conn, sql string) (names []string, values [][]any) {
	t.Helper()
	rows, err := conn.Query(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"readonly": 2})), sql)
	if err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
	defer rows.Close()
	for rows.Next() {
		pointers := make([]any, len(rows.ColumnTypes()))
		for i, column := range rows.ColumnTypes() {
			pointers[i] = reflect.New(column.ScanType()).Interface()
		}
		if err := rows.Scan(pointers...); err != nil {
			t.Fatalf("%v\n%s", err, sql)
		}
		row := make([]any, len(pointers))
		for i := range row {
			row[i] = reflect.ValueOf(pointers[i]).Elem().Interface()
		}
		values = append(values, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
	return rows.Columns(), values
}

// writeIncidents writes an incident of every kind the way the pipeline does, as a shard that `up` does not have.
func writeIncidents(t *testing.T, address, database string, now time.Time) {
	t.Helper()
	cat, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	sink, err := sinks.NewSink(sinks.Config{Server: sinks.Server{Address: []string{address}, Database: database}, EntitiesTopic: "another", MaxDelay: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx) }()
	rows := &detectors.Rows{}
	for n, kind := range cat.Incidents() {
		last := now.Add(-time.Duration(n) * time.Minute)
		i := detectors.Incident{
			IncidentID: "made-up-" + kind.Name, Kind: kind.Name, Severity: kind.Severity, EntityKind: "user", EntityValue: fmt.Sprintf("user%d@contoso.example", n),
			TenantID: synthetic.NamedGUID("tenant", "contoso"), FirstSeen: last.Add(-time.Hour).UnixMicro(), LastSeen: last.UnixMicro(),
			Users: []string{"ada@contoso.example", "bob@contoso.example"}, Outcome: "blocked", RequestIDsTotal: 9, Revision: detectors.Revision(1, int64(n+1)),
		}
		if kind.Name == "ca_surge" {
			i.EntityKind, i.EntityValue = "policy", "SECRET-POLICY"
		}
		rows.Incidents = append(rows.Incidents, i)
	}
	// The tenant is known by a sign-in of it.
	rows.Diagnoses = []detectors.Diagnosis{{RequestID: "made-up", CorrelationID: "made-up", TenantID: synthetic.NamedGUID("tenant", "contoso"),
		EventTime: now.UnixMicro(), ReceivedTime: now.UnixMilli(), Category: "SignInLogs", User: "ada@contoso.example", Outcome: detectors.OutcomeSuccess,
		Scenario: "legacy_auth", ClientApp: "IMAP4", Severity: "medium", Revision: detectors.Revision(1, 1)}}
	if err := sink.Write(ctx, rows, sinks.Position{Shard: 9, Epoch: 1, Offset: int64(len(rows.Incidents))}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestUpSendsAlerts: a running system tells a real Alertmanager of an incident, once and also over a kill; a receiver that is
// away holds up nothing.
func TestUpSendsAlerts(t *testing.T) {
	manager := embeddedtest.StartAlertmanager(t, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
	t.Setenv("SIGNINDIAG_ALERTS_ALERTMANAGER_URLS", manager.URL)
	t.Setenv("SIGNINDIAG_ALERTS_WEBHOOK_URL", "http://127.0.0.1:9/path-secret")
	t.Setenv("SIGNINDIAG_ALERTS_INTERVAL", "1s")
	now := time.Now().UTC()
	var specs []*synthetic.SignInSpec
	for i := range 6 {
		specs = append(specs, &synthetic.SignInSpec{
			Time: now.Add(time.Duration(i-10) * time.Minute), TenantID: synthetic.NamedGUID("tenant", "contoso"),
			RequestID: synthetic.NamedGUID("request", fmt.Sprint(i)), CorrelationID: synthetic.NamedGUID("correlation", fmt.Sprint(i)),
			UserID: synthetic.NamedGUID("user", "ada"), UserPrincipalName: "ada@example.org", ErrorCode: 50126, Address: fmt.Sprintf("203.0.113.%d", i),
			AppID: synthetic.NamedGUID("app", "payroll"), AppDisplayName: "Payroll",
		})
	}
	data := t.TempDir()
	u := startUp(t, data, "--import", writeFile(t, "signins.json", synthetic.AppendEnvelope(nil, specs...)))
	type alert struct {
		Labels, Annotations map[string]string
		GeneratorURL        string
	}
	alerts := func(u *up) []alert {
		t.Helper()
		deadline := time.Now().Add(program.Long)
		for {
			_, body := get(t, manager.URL+"/api/v2/alerts?filter=alertname%3DSignInRepeatedFailures")
			var found []alert
			if err := json.Unmarshal([]byte(body), &found); err != nil {
				t.Fatalf("%v\n%s", err, body)
			}
			if len(found) > 0 {
				return found
			}
			if time.Now().After(deadline) {
				t.Fatalf("no alert came\n%s", u.Text())
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	found := alerts(u)
	a := found[0]
	if len(found) != 1 || a.Labels["entity"] != "ada@example.org" || !strings.Contains(a.Annotations["summary"], "ada@example.org failed") ||
		a.GeneratorURL != u.API()+"/incidents/"+a.Labels["incident_id"] {
		t.Errorf("alerts: %+v", found)
	}
	if status, body := get(t, a.GeneratorURL); status != 200 || !strings.Contains(body, "ada@example.org") {
		t.Errorf("the alert's link: status %d\n%s", status, body)
	}
	u.WaitFor(`receiver="webhook 127\.0\.0\.1:9"`)
	if strings.Contains(u.Text(), "path-secret") {
		t.Error("the log tells the webhook's address")
	}
	if status, body := get(t, u.API()+"/readyz"); status != 200 {
		t.Errorf("a receiver that is away makes the system unready: %s", body)
	}
	_, metrics := get(t, u.API()+"/metrics")
	for _, want := range []string{`signindiag_alerts_sent_total{receiver="alertmanager `, `signindiag_alerts_failures_total{reason="unreachable",receiver="webhook 127.0.0.1:9"}`, "signindiag_ready 1"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}

	// The Alertmanager forgets, and the system is killed: it tells again what stands, without another row of progress.
	u.Kill()
	manager.Stop()
	manager.Start()
	u = startUp(t, data)
	if again := alerts(u); len(again) != 1 || again[0].Labels["incident_id"] != a.Labels["incident_id"] {
		t.Errorf("after a kill: %+v", again)
	}
	if code := u.Interrupt(); code != 0 {
		t.Errorf("Ctrl-C: exit code %d\n%s", code, u.Text())
	}
}
