package integration

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/integration/servers"
)

// TestComposeFileIsValid asks docker compose itself, in whichever form it is installed.
func TestComposeFileIsValid(t *testing.T) {
	command := []string{"docker", "compose"}
	if exec.Command("docker", "compose", "version").Run() != nil {
		command = []string{"docker-compose"}
		if _, err := exec.LookPath("docker-compose"); err != nil {
			servers.SkipOrFail(t, "compose", errors.New("neither `docker compose` nor docker-compose is installed"))
		}
	}
	config := exec.Command(command[0], append(command[1:], "-f", "../docker-compose.yml", "config", "--services")...)
	out, err := config.CombinedOutput()
	if err != nil {
		t.Fatalf("docker-compose.yml is not valid: %v\n%s", err, out)
	}
	for _, service := range []string{"kafka", "clickhouse", "signindiag", "prometheus", "alertmanager", "grafana"} {
		if !strings.Contains(string(out), service) {
			t.Errorf("docker-compose.yml lacks the service %s", service)
		}
	}
}
