package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// TestKilledAtEveryStep kills the process at every step that the code names, at several counts of it, starts it again, and looks
// at the rows. All kills hit the same topics and tables, so what one leaves behind meets the next.
func TestKilledAtEveryStep(t *testing.T) {
	p := newPlant(t)
	tagged := filepath.Join(p.dir, "signindiag-crashpoints")
	if err := program.Build("..", tagged, "-tags", "crashpoints"); err != nil {
		t.Fatal(err)
	}
	p.startEngine()
	settings := filepath.Join(p.dir, "settings.yaml")
	p.env = append(p.env, "SIGNINDIAG_SETTINGS_FILE="+settings)
	threshold := 10
	otherSettings := func() {
		threshold++
		text := fmt.Sprintf("default:\n  thresholds:\n    password_spray: {slow_users: %d}\n", threshold)
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	otherSettings()
	calm := func() {
		i := p.run()
		p.exact(i)
		i.Stop()
	}
	p.send(1000)
	calm()
	counts := []int{1, 3}
	if testing.Short() {
		counts = counts[:1]
	}
	for point := range crashpoint.Count {
		stop := p.feed(400)
		for _, count := range counts {
			switch point {
			case crashpoint.EpochBaseStored:
				otherSettings()
			case crashpoint.Replaying:
				// Rows are stored beyond the newest snapshot.
				i := p.run("SIGNINDIAG_SNAPSHOTS_INTERVAL=1h")
				before, err := query[int64](p, "SELECT sum(offset) FROM signindiag.progress FINAL")
				if err != nil {
					t.Fatal(err)
				}
				i.Until("progress", func() bool {
					now, err := query[int64](p, "SELECT sum(offset) FROM signindiag.progress FINAL")
					return err == nil && now > before+500
				})
				i.Signal(syscall.SIGKILL)
				i.Ended()
				p.forgetMembers()
			}
			i := p.runProgram(tagged, fmt.Sprintf("%s=%s:%d", crashpoint.Variable, point, count))
			switch point {
			case crashpoint.StopReading, crashpoint.StopFlushed:
				i.WaitFor(`shard begins`)
				i.Signal(syscall.SIGTERM)
				if count > 1 {
					// There is one such step in a stop.
					i.Ended()
					continue
				}
			}
			if code, killed := i.Ended(); !killed {
				t.Fatalf("%s: the process was not killed there, exit code %d", point, code)
			}
			p.forgetMembers()
		}
		stop()
		calm()
		t.Logf("%s: %d records, exact", point, p.sent.Load())
	}
	// Halves of snapshots that the kills have left go when they are old.
	halves := func() []string {
		found, err := filepath.Glob(filepath.Join(strings.TrimPrefix(p.snapshots, "file://"), "*", "shard-*", "*.tmp"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if len(halves()) == 0 {
		t.Error("no kill has left half a snapshot")
	}
	for _, path := range halves() {
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	i := p.run()
	i.Until("old halves to go", func() bool { p.send(10); return len(halves()) == 0 })
	p.exact(i)
	i.Stop()
}
