// Package integration tests signindiag as a user meets it: the built program, real servers, real signals.
package integration

import (
	"context"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/integration/program"
)

func TestMain(m *testing.M) { program.Main(m, "..") }

// command runs the program to its end and returns what it printed and its exit code.
func command(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), program.Long)
	defer cancel()
	c := exec.CommandContext(ctx, program.Path, args...)
	c.Stdin = stdin
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if ctx.Err() != nil {
		t.Fatalf("signindiag %s did not end\n%s\n%s", strings.Join(args, " "), out.String(), errs.String())
	}
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatalf("run signindiag %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// up is a running `signindiag up`.
type up struct {
	*program.Process
	data string
}

// startUp starts `signindiag up` on the data directory and waits until it has printed its addresses.
func startUp(t *testing.T, data string, args ...string) *up {
	t.Helper()
	u := spawnUp(t, data, args...)
	u.API()
	return u
}

// spawnUp starts `signindiag up` without waiting for anything.
func spawnUp(t *testing.T, data string, args ...string) *up {
	t.Helper()
	embeddedtest.Library(t) // fetched once, outside of what the test waits for
	return &up{program.Start(t, nil, append([]string{"up", "--data", data, "--http", "127.0.0.1:0"}, args...)...), data}
}
