package embedded

import (
	"os/exec"
	"runtime"
)

// childProcess is a started process that dies with us. Linux ties the signal that a child gets at its
// parent's death to the *thread* that started it (PR_SET_PDEATHSIG, prctl(2)), and Go ends idle threads;
// therefore one goroutine starts the child on a thread of its own and keeps that thread until the child has ended.
type childProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// startChild starts cmd in a process group of its own, so that Ctrl-C at a terminal reaches only us.
// deathSignal asks the kernel, where it can, to kill the child when this process dies.
func startChild(cmd *exec.Cmd, deathSignal bool) (*childProcess, error) {
	cmd.SysProcAttr = childAttributes(deathSignal)
	p := &childProcess{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Never unlocked: the thread ends with this goroutine.
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *childProcess) pid() int { return p.cmd.Process.Pid }

// wait returns how the process ended: nil for exit status 0.
func (p *childProcess) wait() error {
	<-p.done
	return p.err
}

// kill ends the whole process group at once.
func (p *childProcess) kill() {
	select {
	case <-p.done: // The process id may belong to somebody else by now.
	default:
		killGroup(p.cmd.Process.Pid)
	}
}
