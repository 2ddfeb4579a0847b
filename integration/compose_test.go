package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// requires reports whether the absence of name is a failure here rather than a skip.
func requires(name string) bool {
	for required := range strings.SplitSeq(os.Getenv("SIGNINDIAG_TEST_REQUIRE"), ",") {
		if strings.TrimSpace(required) == name {
			return true
		}
	}
	return false
}

// skipOrFail skips for want of name, or fails where name is required.
func skipOrFail(t *testing.T, name, reason string) {
	t.Helper()
	if requires(name) {
		t.Fatalf("%s is required here: %s", name, reason)
	}
	t.Skip(reason)
}

// TestComposeFileIsValid asks docker compose itself, in whichever form it is installed.
func TestComposeFileIsValid(t *testing.T) {
	command := []string{"docker", "compose"}
	if exec.Command("docker", "compose", "version").Run() != nil {
		command = []string{"docker-compose"}
		if _, err := exec.LookPath("docker-compose"); err != nil {
			skipOrFail(t, "compose", "neither `docker compose` nor docker-compose is installed")
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
