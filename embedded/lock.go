package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// errLockHeld is what tryFlock returns when another open file holds the lock.
var errLockHeld = errors.New("the lock is held")

// LockedError reports a directory that another process has open.
type LockedError struct {
	// Dir is the directory that was asked for.
	Dir string
	// PID is the process that holds it; 0 when it is not known.
	PID int
}

// Error names the directory and the process, and says what to do.
func (e *LockedError) Error() string {
	holder := "another process"
	if e.PID > 0 {
		holder = "process " + strconv.Itoa(e.PID)
		if e.PID == os.Getpid() {
			holder = "this process"
		}
	}
	return fmt.Sprintf("data directory %s is in use by %s: stop it or choose another directory", e.Dir, holder)
}

// DataLock is the right to write below one data directory. The operating system takes it back when the
// process dies, however it dies.
type DataLock struct{ file *fileLock }

// LockData takes the lock of a data directory, the file "lock" in it, and makes the directory when it is
// missing. It never waits: when another process holds the lock the error is a *LockedError with its
// process id. The caller keeps the lock as long as it uses the directory.
func LockData(dir string) (*DataLock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	file, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	return &DataLock{file: file}, nil
}

// Close gives the directory free. Further calls do nothing.
func (l *DataLock) Close() error {
	l.file.release()
	return nil
}

// fileLock is an exclusive advisory lock on a file that holds the process id of its owner. The file stays
// when the lock is given back: removing it would let two processes lock two different files of one name.
type fileLock struct{ file *os.File }

// lockFile takes the lock at once, or returns a *LockedError.
func lockFile(path string) (*fileLock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := tryFlock(file); err != nil {
		defer file.Close()
		if !errors.Is(err, errLockHeld) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, &LockedError{Dir: filepath.Dir(path), PID: lockOwner(file)}
	}
	// The process id is for people; the lock itself is what counts, so a full disk does not matter here.
	if err := file.Truncate(0); err == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &fileLock{file: file}, nil
}

// lockOwner reads the process id from a lock file, 0 when its owner has not written it yet.
func lockOwner(file *os.File) int {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// release gives the lock back; closing the file does it.
func (l *fileLock) release() {
	if l != nil && l.file != nil {
		_ = l.file.Truncate(0)
		_ = l.file.Close()
		l.file = nil
	}
}
