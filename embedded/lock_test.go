package embedded_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/embedded"
)

func TestDataLockAcrossProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	other := startRole(t, role{Part: "lock", Dir: dir})
	other.ready(t)

	_, err := embedded.LockData(dir)
	var locked *embedded.LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("got %v, expected a *LockedError while another process holds the lock", err)
	}
	if locked.PID != other.cmd.Process.Pid || locked.Dir != dir {
		t.Errorf("refused for %s by process %d, expected %s by %d", locked.Dir, locked.PID, dir, other.cmd.Process.Pid)
	}
	for _, want := range []string{dir, strconv.Itoa(other.cmd.Process.Pid)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not name %s", err, want)
		}
	}

	other.kill()
	lock, err := embedded.LockData(dir)
	if err != nil {
		t.Fatalf("the lock outlived its process: %v", err)
	}
	if _, err := embedded.LockData(dir); !errors.As(err, &locked) || !strings.Contains(err.Error(), "this process") {
		t.Errorf("second lock in one process: got %v, expected a refusal", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := embedded.LockData(dir)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if err := errors.Join(again.Close(), again.Close()); err != nil {
		t.Error(err)
	}
}
