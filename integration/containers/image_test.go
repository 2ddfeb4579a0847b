package containers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/integration/servers"
)

// TestOwnImage runs the image of deploy/Dockerfile as docker-compose.yml does: no root, no capability, nothing to write to but its
// volume.
func TestOwnImage(t *testing.T) {
	n := servers.NewContainers(t)
	n.Kafka(t, 1, nil)
	clickHouse := n.ClickHouse(t)
	i := startInstance(t, n, clickHouse, "signindiag", nil, map[string]string{"SIGNINDIAG_SNAPSHOTS_INTERVAL": "1s"})
	about := i.Inspect(t)
	if about.Config.User != "65532:65532" || !about.HostConfig.ReadonlyRootfs || len(about.HostConfig.CapDrop) != 1 {
		t.Errorf("it runs as %q, read-only %v, without %v", about.Config.User, about.HostConfig.ReadonlyRootfs, about.HostConfig.CapDrop)
	}
	if len(about.Mounts) != 1 || about.Mounts[0].Destination != "/var/lib/signindiag" {
		t.Errorf("mounts: %+v, want the volume for snapshots alone", about.Mounts)
	}
	until(t, "it is healthy", func() (bool, string) {
		out, code := i.Exec(t, "/signindiag", "health")
		return code == 0, out
	})
	if out, code := i.Exec(t, "/signindiag", "generate", "--records", "3000", "--to-kafka"); code != 0 || !strings.Contains(out, "3000 records sent") {
		t.Fatalf("generate: exit code %d\n%s", code, out)
	}
	conn := clickHouse.Open(t)
	until(t, "all raw records are there", func() (bool, string) {
		var records uint64
		err := conn.QueryRow(t.Context(), "SELECT count() FROM raw_records FINAL").Scan(&records)
		return err == nil && records >= 3000, ""
	})
	verifyExact(t, i)
	for path, want := range map[string]string{
		"/metrics": "signindiag_ready 1", "/v1/freshness": "SignInLogs", "/v1/incidents": "", "/": "<html", "/readyz": "",
	} {
		if status, body, err := get(t.Context(), i.url+path); err != nil || status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, %v, want %q in\n%.500s", path, status, err, want, body)
		}
	}
	if _, err := os.Stat(about.Mounts[0].Source); err == nil { // the engine is on this machine
		until(t, "a snapshot lies in the volume", func() (bool, string) {
			snapshots := 0
			_ = filepath.WalkDir(filepath.Join(about.Mounts[0].Source, "snapshots"), func(_ string, entry os.DirEntry, err error) error {
				if err == nil && !entry.IsDir() {
					snapshots++
				}
				return nil
			})
			return snapshots > 0, "none"
		})
	}
	if changes := i.Changes(t); len(changes) > 0 {
		t.Errorf("it wrote outside of its volume: %v", changes)
	}
	// SIGTERM ends it within the grace period.
	i.Control().Stop(t)
	if state := i.Inspect(t).State; state.ExitCode != 0 || state.OOMKilled {
		t.Errorf("SIGTERM: exit code %d", state.ExitCode)
	}
}
