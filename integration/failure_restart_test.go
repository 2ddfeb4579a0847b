package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signindiag/signindiag/integration/program"
)

// usersVariable makes TestRestartWithState build the state of a million users instead of a part of them.
const usersVariable = "SIGNINDIAG_TEST_FULL_STATE"

// TestRestartWithState prints how long a process with the state of many users takes from its start to its first new diagnosis, after a
// graceful stop and after kill -9. A third of the users have failed; all are known.
func TestRestartWithState(t *testing.T) {
	users := int64(100_000)
	switch {
	case os.Getenv(usersVariable) != "":
		users = 1_000_000
	case testing.Short():
		users = 10_000
	}
	p := newPlant(t)
	p.users = users
	p.startEngine()
	i := p.run("SIGNINDIAG_SNAPSHOTS_INTERVAL=5s")
	for p.sent.Load() < users {
		p.send(min(5000, users-p.sent.Load()))
	}
	stored := func() int64 {
		n, err := query[uint64](p, "SELECT count() FROM signindiag.diagnoses FINAL")
		if err != nil {
			return 0
		}
		return int64(n)
	}
	i.Until("all rows", func() bool { return stored() >= users })
	_, most := i.Memory()
	t.Logf("%d users: %d MiB of memory at most", users, most)
	i.Stop()
	size := int64(0)
	for shard := range plantPartitions {
		files, err := filepath.Glob(filepath.Join(strings.TrimPrefix(p.snapshots, "file://"), plantEntities, "shard-0000"+string(rune('0'+shard)), "*.snapshot"))
		if err != nil || len(files) == 0 {
			t.Fatalf("shard %d has no snapshot: %v", shard, err)
		}
		info, err := os.Stat(files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	t.Logf("the newest snapshots take %.1f MiB", float64(size)/(1<<20))
	measure := func(how string) *program.Process {
		t.Helper()
		p.send(10)
		n := p.sent.Load()
		began := time.Now()
		i := p.run("SIGNINDIAG_SNAPSHOTS_INTERVAL=5s")
		i.Until("all shards to begin", func() bool { return len(i.Lines("shard begins")) == plantPartitions })
		restored := time.Since(began)
		i.Until("the new rows", func() bool { return stored() >= n })
		now, _ := i.Memory()
		t.Logf("%s: states restored after %s, new diagnoses stored after %s (%d messages replayed), %d MiB of memory", how, restored.Round(time.Millisecond), time.Since(began).Round(time.Millisecond),
			int(i.Metric("signindiag_shard_replayed_total", "")), now)
		return i
	}
	i = measure("start after a stop")
	i.Signal(syscall.SIGKILL)
	i.Ended()
	p.forgetMembers()
	i = measure("start after kill -9")
	p.exact(i)
	i.Stop()
}
