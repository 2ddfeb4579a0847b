// Package integration tests signindiag as a user meets it: the built program, real servers, real signals.
package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

// program is the built binary.
var program string

func TestMain(m *testing.M) {
	embedded.ClickHouseMain()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "signindiag-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "signindiag")
	build := exec.Command("go", "build", "-o", program, "./cmd/signindiag")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build signindiag: %v\n%s\n", err, out)
		return 1
	}
	return m.Run()
}

// waitLong bounds waiting for something that has to happen. It is far above what it takes, so that a slow machine fails
// nothing.
const waitLong = 3 * time.Minute

// command runs the program to its end and returns what it printed and its exit code.
func command(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
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
	t      *testing.T
	cmd    *exec.Cmd
	data   string
	mu     sync.Mutex
	output strings.Builder
	done   chan struct{}
}

// startUp starts `signindiag up` on the data directory and waits until it has printed its addresses.
func startUp(t *testing.T, data string, args ...string) *up {
	t.Helper()
	u := spawnUp(t, data, args...)
	u.waitFor(`Page and API +(\S+)`)
	return u
}

// spawnUp starts `signindiag up` without waiting for anything.
func spawnUp(t *testing.T, data string, args ...string) *up {
	t.Helper()
	embeddedtest.Library(t) // fetched once, outside of what the test waits for
	u := &up{t: t, data: data, done: make(chan struct{})}
	u.cmd = exec.Command(program, append([]string{"up", "--data", data, "--http", "127.0.0.1:0"}, args...)...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	u.cmd.Stdout, u.cmd.Stderr = writer, writer
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	go func() {
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			u.mu.Lock()
			u.output.WriteString(lines.Text() + "\n")
			u.mu.Unlock()
		}
		_ = u.cmd.Wait()
		close(u.done)
	}()
	t.Cleanup(func() {
		_ = u.cmd.Process.Kill()
		<-u.done
		if t.Failed() {
			t.Logf("output of up:\n%s", u.text())
		}
	})
	return u
}

func (u *up) text() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.output.String()
}

// waitFor waits until the output matches the pattern and returns the submatches.
func (u *up) waitFor(pattern string) []string {
	u.t.Helper()
	expression := regexp.MustCompile(pattern)
	deadline := time.After(waitLong)
	for {
		if found := expression.FindStringSubmatch(u.text()); found != nil {
			return found
		}
		select {
		case <-u.done:
			if found := expression.FindStringSubmatch(u.text()); found != nil {
				return found
			}
			u.t.Fatalf("up ended before it printed %s:\n%s", pattern, u.text())
		case <-deadline:
			u.t.Fatalf("up did not print %s:\n%s", pattern, u.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// api returns the API's address, http://host:port.
func (u *up) api() string {
	u.t.Helper()
	return u.waitFor(`Page and API +(\S+)`)[1]
}

// interrupt sends what Ctrl-C sends and returns the exit code.
func (u *up) interrupt() int {
	u.t.Helper()
	if err := u.cmd.Process.Signal(syscall.SIGINT); err != nil {
		u.t.Fatal(err)
	}
	select {
	case <-u.done:
	case <-time.After(waitLong):
		u.t.Fatalf("up did not stop:\n%s", u.text())
	}
	return u.cmd.ProcessState.ExitCode()
}

// kill is kill -9.
func (u *up) kill() {
	u.t.Helper()
	if err := u.cmd.Process.Kill(); err != nil {
		u.t.Fatal(err)
	}
	<-u.done
}
