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
	"github.com/signindiag/signindiag/integration/servers"
)

// program is the built binary.
var program string

func TestMain(m *testing.M) {
	embedded.ClickHouseMain()
	code := buildAndRun(m)
	if err := servers.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
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

// process is the program running in the background.
type process struct {
	t      *testing.T
	name   string // its command, for messages
	cmd    *exec.Cmd
	mu     sync.Mutex
	output strings.Builder
	done   chan struct{}
}

// spawn starts the program in the background; it ends with the test. environment is added to that of the test.
func spawn(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: args[0], done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), environment...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	go func() {
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.output.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, p.text())
		}
	})
	return p
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// waitFor waits until the output matches the pattern and returns the submatches.
func (p *process) waitFor(pattern string) []string {
	p.t.Helper()
	expression := regexp.MustCompile(pattern)
	deadline := time.After(waitLong)
	for {
		if found := expression.FindStringSubmatch(p.text()); found != nil {
			return found
		}
		select {
		case <-p.done:
			if found := expression.FindStringSubmatch(p.text()); found != nil {
				return found
			}
			p.t.Fatalf("%s ended before it printed %s:\n%s", p.name, pattern, p.text())
		case <-deadline:
			p.t.Fatalf("%s did not print %s:\n%s", p.name, pattern, p.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// signal sends a signal and returns the exit code.
func (p *process) signal(s os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(waitLong):
		p.t.Fatalf("%s did not stop:\n%s", p.name, p.text())
	}
	return p.cmd.ProcessState.ExitCode()
}

// interrupt sends what Ctrl-C sends and returns the exit code.
func (p *process) interrupt() int {
	p.t.Helper()
	return p.signal(syscall.SIGINT)
}

// kill is kill -9.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

// up is a running `signindiag up`.
type up struct {
	*process
	data string
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
	return &up{spawn(t, nil, append([]string{"up", "--data", data, "--http", "127.0.0.1:0"}, args...)...), data}
}

// api returns the API's address, http://host:port.
func (u *up) api() string {
	u.t.Helper()
	return u.waitFor(`Page and API +(\S+)`)[1]
}
