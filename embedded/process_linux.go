package embedded

import "syscall"

func childAttributes(deathSignal bool) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if deathSignal {
		attributes.Pdeathsig = syscall.SIGKILL
	}
	return attributes
}
