//go:build unix

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// tryFlock takes an exclusive lock on an open file (flock(2)) without waiting; errLockHeld means that
// another open file has it, in this process or elsewhere.
func tryFlock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLockHeld
		}
		return err
	}
}
