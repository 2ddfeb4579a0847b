//go:build unix

package embedded

import (
	"errors"
	"syscall"
)

// killGroup sends SIGKILL to every process of a group.
func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// processAlive reports whether a process of this id exists, of whatever user.
func processAlive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
