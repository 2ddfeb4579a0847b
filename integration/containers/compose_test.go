package containers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/signindiag/signindiag/integration/servers"
)

// composeProject is docker-compose.yml with other images and ports, as a project of the test's own.
type composeProject struct {
	t           *testing.T
	program     []string
	environment []string
}

// run runs docker compose and returns what it printed, standard error included.
func (p *composeProject) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLong)
	defer cancel()
	command := append(append([]string{}, p.program...), args...)
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Dir, c.Env = filepath.Join("..", ".."), append(os.Environ(), p.environment...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func (p *composeProject) must(args ...string) string {
	p.t.Helper()
	out, err := p.run(args...)
	if err != nil {
		p.t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// up starts the services and waits until all are healthy.
func (p *composeProject) up(services []string) {
	p.t.Helper()
	p.must(append([]string{"up", "--detach", "--no-build"}, services...)...)
	for _, service := range services {
		id := strings.TrimSpace(p.must("ps", "--quiet", service))
		until(p.t, service+" is healthy", func() (bool, string) {
			out, err := exec.CommandContext(p.t.Context(), "docker", "inspect", "--format", "{{json .State.Health}}", id).CombinedOutput()
			return err == nil && strings.Contains(string(out), `"Status":"healthy"`), string(out)
		})
	}
}

// TestComposeFile brings docker-compose.yml up, but for Grafana where no image of it is named: records in, diagnoses out, Prometheus
// sees signindiag, Alertmanager is told of an incident, and another start goes on with the same data.
func TestComposeFile(t *testing.T) {
	p := &composeProject{t: t, program: []string{"docker", "compose"}}
	if exec.Command("docker", "compose", "version").Run() != nil {
		p.program = []string{"docker-compose"}
		if _, err := exec.LookPath("docker-compose"); err != nil {
			if servers.Require("compose") {
				t.Fatalf("compose is required here: %v", err)
			}
			t.Skipf("skipped: neither `docker compose` nor docker-compose is installed")
		}
	}
	n := servers.NewContainers(t)
	services := []string{"kafka", "clickhouse", "signindiag", "prometheus", "alertmanager"}
	official := map[string]string{"kafka": "apache/kafka:4.3.1", "clickhouse": "clickhouse/clickhouse-server:25.8", "prometheus": "prom/prometheus:v3.5.0",
		"alertmanager": "prom/alertmanager:v0.28.1"}
	if os.Getenv("SIGNINDIAG_TEST_GRAFANA_IMAGE") != "" {
		services = append(services, "grafana")
	} else {
		t.Log("SIGNINDIAG_TEST_GRAFANA_IMAGE names no image: Grafana is left out")
	}
	ports := servers.FreePorts(t, len(services))
	url := map[string]string{}
	p.environment = []string{fmt.Sprintf("COMPOSE_PROJECT_NAME=signindiag-test-%d", os.Getpid()), "SIGNINDIAG_IMAGE=" + ownImage()}
	// ClickHouse asks for many open files, more than some machines allow.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	p.environment = append(p.environment, fmt.Sprintf("SIGNINDIAG_CLICKHOUSE_NOFILE=%d", min(files.Max, 262144)))
	n.Pull(t, ownImage())
	for i, service := range services {
		name := strings.ToUpper(service)
		if service == "signindiag" {
			p.environment = append(p.environment, fmt.Sprintf("SIGNINDIAG_PORT=%d", ports[i]))
		} else {
			image := cmp.Or(os.Getenv("SIGNINDIAG_TEST_"+name+"_IMAGE"), official[service])
			n.Pull(t, image)
			p.environment = append(p.environment, fmt.Sprintf("SIGNINDIAG_%s_PORT=%d", name, ports[i]), fmt.Sprintf("SIGNINDIAG_%s_IMAGE=%s", name, image))
		}
		url[service] = fmt.Sprintf("http://127.0.0.1:%d", ports[i])
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := p.run("logs", "--tail", "40")
			t.Logf("logs:\n%s", out)
		}
		if out, err := p.run("down", "--volumes", "--remove-orphans"); err != nil {
			t.Errorf("docker compose down: %v\n%s", err, out)
		}
	})
	p.up(services)

	own := func(args ...string) (string, error) {
		return p.run(append([]string{"exec", "-T", "signindiag", "/signindiag"}, args...)...)
	}
	if out, err := own("generate", "--records", "10000", "--attacks", "password_spray", "--to-kafka"); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	verify := func() {
		t.Helper()
		until(t, "everything that was sent has been worked on", func() (bool, string) {
			out, err := own("verify", "--complete")
			return err == nil, out
		})
	}
	answers := func(what, url, want string) {
		t.Helper()
		until(t, what, func() (bool, string) {
			_, body, err := get(t.Context(), url)
			return err == nil && strings.Contains(body, want), fmt.Sprintf("%v, want %s in %.2000s", err, want, body)
		})
	}
	verify()
	answers("the API knows the sign-ins", url["signindiag"]+"/v1/freshness", "SignInLogs")
	answers("Prometheus reaches signindiag", url["prometheus"]+"/api/v1/targets", `"health":"up"`)
	answers("Prometheus has its numbers", url["prometheus"]+"/api/v1/query?query=signindiag_ready", `"job":"signindiag"`)
	answers("Prometheus has the rules", url["prometheus"]+"/api/v1/rules", "SignindiagAbsent")
	answers("Prometheus knows Alertmanager", url["prometheus"]+"/api/v1/alertmanagers", "alertmanager:9093")
	answers("Alertmanager is told of the spray", url["alertmanager"]+"/api/v2/alerts", "SignInPasswordSpray")
	if url["grafana"] != "" {
		answers("Grafana has the dashboard", strings.Replace(url["grafana"], "http://", "http://admin:signindiag@", 1)+"/api/dashboards/uid/signindiag-lockouts", "signindiag")
	}

	grafana := func(query string) (string, error) {
		return p.run("exec", "-T", "clickhouse", "clickhouse-client", "--user", "grafana", "--password", "grafana", "--query", query)
	}
	rows := func() string {
		t.Helper()
		out, err := grafana("SELECT count() FROM signindiag.diagnoses_by_user FINAL")
		if err != nil || strings.TrimSpace(out) == "0" {
			t.Fatalf("Grafana's user counts %s: %v", out, err)
		}
		return out
	}
	before := rows()
	for _, query := range []string{
		"SELECT count() FROM signindiag.raw_records", "SELECT count() FROM signindiag.diagnoses", "TRUNCATE TABLE signindiag.incidents", "DROP DATABASE signindiag",
		"INSERT INTO signindiag.incidents (incident_id) VALUES ('made-up')",
	} {
		if out, err := grafana(query); err == nil || !strings.Contains(out, "grafana: Not enough privileges") && !strings.Contains(out, "readonly mode") {
			t.Errorf("Grafana's user may %s: %v\n%s", query, err, out)
		}
	}

	// Another start finds topics, rows and snapshots in the volumes.
	p.must("rm", "--stop", "--force", "-v") // anonymous volumes alone go
	p.up(services)
	if after := rows(); after != before {
		t.Errorf("%s rows after another start, want %s", after, before)
	}
	if out, err := own("generate", "--records", "500", "--seed", "2", "--to-kafka"); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	verify()
}
