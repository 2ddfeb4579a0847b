//go:build unix && !linux

package embedded

import "syscall"

// childAttributes cannot ask for a signal at the parent's death outside Linux; the closing of the pipe does it there.
func childAttributes(bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
