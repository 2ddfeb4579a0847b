package embeddedtest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// alertmanagerStart bounds the start of an Alertmanager, which takes some 100 ms.
const alertmanagerStart = time.Minute

// Alertmanager is a Prometheus Alertmanager of a test, on loopback.
type Alertmanager struct {
	t      testing.TB
	binary string
	config string
	// URL is its base address; it stays the same over restarts.
	URL string

	mu  sync.Mutex
	cmd *exec.Cmd
	log bytes.Buffer
}

// Program returns the path of the first of the names that is installed. Where none is, the test is skipped with the
// reason, or fails when SIGNINDIAG_TEST_REQUIRE contains required.
func Program(t testing.TB, required string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	reason := "not installed: " + strings.Join(names, ", ")
	if strings.Contains(os.Getenv(RequireVariable), required) {
		t.Fatalf("%s is required here: %s", required, reason)
	}
	t.Skip("skipped: " + reason)
	return ""
}

// StartAlertmanager starts an Alertmanager (Debian's package prometheus-alertmanager, or alertmanager on the PATH) with the
// given configuration, and ends it with the test.
func StartAlertmanager(t testing.TB, config string) *Alertmanager {
	t.Helper()
	a := &Alertmanager{t: t, binary: Program(t, "alertmanager", "prometheus-alertmanager", "alertmanager")}
	a.config = filepath.Join(t.TempDir(), "alertmanager.yaml")
	if err := os.WriteFile(a.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.URL = "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	a.Start()
	return a
}

// Start starts it again after Stop, without the alerts that it had.
func (a *Alertmanager) Start() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log.Reset()
	a.cmd = exec.Command(a.binary, "--config.file="+a.config, "--storage.path="+filepath.Join(filepath.Dir(a.config), "data"),
		"--web.listen-address="+strings.TrimPrefix(a.URL, "http://"), "--cluster.listen-address=")
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	deadline := time.Now().Add(alertmanagerStart)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		response, err := client.Get(a.URL + "/-/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("status %s", response.Status)
		}
		if time.Now().After(deadline) {
			_ = a.cmd.Process.Kill()
			_ = a.cmd.Wait() // so that its log is complete
			a.t.Fatalf("the Alertmanager does not start: %v\n%s", err, a.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Stop ends it; it may be called again.
func (a *Alertmanager) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd == nil {
		return
	}
	_ = a.cmd.Process.Kill() // it keeps nothing that matters
	_ = a.cmd.Wait()
	a.cmd = nil
	if a.t.Failed() {
		a.t.Logf("log of the Alertmanager:\n%s", a.log.String())
	}
}
