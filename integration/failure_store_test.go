package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/integration/program"
)

// TestSnapshotStoreFails: without a place for snapshots work goes on; what is lost there is made again from the log.
func TestSnapshotStoreFails(t *testing.T) {
	p := newPlant(t)
	p.startEngine()
	store := strings.TrimPrefix(p.snapshots, "file://")
	failed := func(i *program.Process) float64 { return i.Metric("signindiag_snapshots_total", `result="failed"`) }
	stored := func(i *program.Process) float64 { return i.Metric("signindiag_snapshots_total", `result="stored"`) }
	flows := func(i *program.Process, what string) {
		t.Helper()
		p.send(500)
		p.all(i)
		if status, body := get(t, i.API()+"/readyz"); status != http.StatusOK {
			t.Errorf("%s: rows flow, but /readyz says %s", what, body)
		}
	}
	awayWhileRunning := func(i *program.Process, take, give func()) {
		t.Helper()
		before := stored(i)
		i.Until("a snapshot", func() bool { p.send(10); return stored(i) > before })
		take()
		count := failed(i)
		i.Until("failures to be counted", func() bool { p.send(10); return failed(i) > count+8 })
		flows(i, "without the store")
		if n := len(i.Lines("the snapshot is not stored")); n == 0 {
			t.Error("the log does not tell")
		} else {
			t.Logf("%v failures, %d lines of log, the first:\n%s", failed(i)-count, n, first(i.Lines("the snapshot is not stored")))
			if n > 2*plantPartitions {
				t.Errorf("%d lines of log for the same trouble", n)
			}
		}
		give()
		p.verify() // it reads the store too
		before = stored(i)
		i.Until("a snapshot when the store is back", func() bool { p.send(10); return stored(i) > before })
	}

	// Away at the start: what cannot be a store is refused with a clear error.
	if err := os.WriteFile(store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i := p.run()
	if code, _ := i.Ended(); code != 1 || len(i.Lines("make the directory for snapshots: mkdir "+store+": not a directory")) != 1 {
		t.Errorf("a file in the place of the directory: exit code %d\n%s", code, i.Text())
	}
	remove(t, store)

	i = p.run()
	p.send(1000)
	p.exact(i)
	awayWhileRunning(i, func() {
		if err := os.Rename(store, store+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(store, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}, func() {
		remove(t, store)
		if err := os.Rename(store+".away", store); err != nil {
			t.Fatal(err)
		}
	})
	i.Stop()

	t.Run("full", func(t *testing.T) {
		mountSmall(t, store, "8m")
		i := p.run()
		p.send(100)
		p.exact(i)
		awayWhileRunning(i, func() { fill(t, filepath.Join(store, "filler")) }, func() { remove(t, filepath.Join(store, "filler")) })
		i.Stop()
		if halves, _ := filepath.Glob(filepath.Join(store, plantEntities, "shard-*", "*.tmp")); len(halves) > 0 {
			t.Errorf("a full disk keeps halves of snapshots: %v", halves)
		}
	})

	of := func(shard string) []string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(store, plantEntities, shard, "*.snapshot"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no snapshots: %v", err)
		}
		slices.Sort(files)
		return files
	}
	files := of("shard-00001")
	if err := os.Truncate(files[len(files)-1], 100); err != nil {
		t.Fatal(err)
	}
	i = p.run()
	i.WaitFor("a snapshot is of no use; an older one or the log is taken instead.*shard=1|shard=1.*a snapshot is of no use")
	flows(i, "with a corrupt snapshot")
	p.verify()
	i.Stop()

	for _, file := range of("shard-00002") {
		remove(t, file)
	}
	if err := os.RemoveAll(filepath.Join(store, plantEntities, "shard-00003")); err != nil {
		t.Fatal(err)
	}
	i = p.run()
	i.WaitFor(`shard begins.*shard=2.*state="the first offset"`)
	i.WaitFor(`shard begins.*shard=3.*state="the first offset"`)
	flows(i, "with the snapshots of two shards lost")
	p.verify()
	i.Stop()
}
