// Package program builds signindiag and runs it as a user does, with real signals and real output. Only tests import it.
package program

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/integration/servers"
)

// Long bounds waiting for something that has to happen. It is far above what it takes, so that a busy machine fails nothing.
const Long = 10 * time.Minute

// Path is the program that Main has built.
var Path string

// Main is the body of TestMain: it builds the program from the module's folder root, relative to the package's, runs the tests, ends the
// servers that they shared, and exits.
func Main(m *testing.M, root string) {
	embedded.ClickHouseMain()
	code := buildAndRun(m, root)
	if err := servers.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M, root string) int {
	dir, err := os.MkdirTemp("", "signindiag-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	Path = filepath.Join(dir, "signindiag")
	if err := Build(root, Path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Build builds the program into a file; arguments are further ones of go build.
func Build(root, file string, arguments ...string) error {
	build := exec.Command("go", append(append([]string{"build", "-o", file}, arguments...), "./cmd/signindiag")...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build signindiag: %w\n%s", err, out)
	}
	return nil
}

// Process is the program running in the background. Its methods fail the test when what they wait for does not come.
type Process struct {
	t    testing.TB
	name string // its command, for messages
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	lines []string
}

// Start starts the program; it ends with the test. environment is added to that of the test, and wins.
func Start(t testing.TB, environment []string, args ...string) *Process {
	t.Helper()
	return StartFile(t, Path, environment, args...)
}

// StartFile is Start for another build of the program.
func StartFile(t testing.TB, file string, environment []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: args[0], cmd: exec.Command(file, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), environment...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	err = p.cmd.Start()
	writer.Close()
	if err != nil {
		reader.Close()
		t.Fatal(err)
	}
	go func() {
		defer reader.Close()
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // the exit code is asked for where it matters
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			lines := p.Lines("")
			t.Logf("end of the output of %s, process %d:\n%s", p.name, p.PID(), strings.Join(lines[max(len(lines)-80, 0):], "\n"))
		}
	})
	return p
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Lines returns the lines of the output that match the pattern.
func (p *Process) Lines(pattern string) []string {
	expression := regexp.MustCompile(pattern)
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	for _, line := range p.lines {
		if expression.MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

// Text returns the output.
func (p *Process) Text() string { return strings.Join(p.Lines(""), "\n") }

// WaitFor waits until a line of the output matches the pattern and returns its submatches.
func (p *Process) WaitFor(pattern string) []string {
	p.t.Helper()
	p.Until("a line "+pattern, func() bool { return len(p.Lines(pattern)) > 0 })
	return regexp.MustCompile(pattern).FindStringSubmatch(p.Lines(pattern)[0])
}

// Until waits for what has to happen while the process runs.
func (p *Process) Until(what string, condition func() bool) {
	p.t.Helper()
	Wait(p.t, what, func() bool {
		select {
		case <-p.done:
			if condition() {
				return true
			}
			p.t.Fatalf("signindiag %s ended (%v) while the test waited for %s", p.name, p.cmd.ProcessState, what)
		default:
		}
		return condition()
	})
}

// Wait waits for what has to happen. The looks come less often with time, so that they do not slow down what is waited for.
func Wait(t testing.TB, what string, condition func() bool) {
	t.Helper()
	wait := 20 * time.Millisecond
	for deadline := time.Now().Add(Long); !condition(); time.Sleep(wait) {
		wait = min(wait+wait/4, time.Second)
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// API returns the address of the API of up and run, http://host:port.
func (p *Process) API() string {
	p.t.Helper()
	return p.WaitFor(`(?:Page and API +|signindiag runs.* api=)(\S+)`)[1]
}

// Get fetches a path of the API. Without an answer the status is 0.
func (p *Process) Get(path string) (status int, body string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.API()+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// Ready waits until /readyz says that rows flow.
func (p *Process) Ready() {
	p.t.Helper()
	p.Until("/readyz to be ready", func() bool { status, _ := p.Get("/readyz"); return status == http.StatusOK })
}

// Unready waits until /readyz says something that matches the pattern.
func (p *Process) Unready(pattern string) {
	p.t.Helper()
	expression := regexp.MustCompile(pattern)
	p.Until("/readyz to say "+pattern, func() bool {
		status, body := p.Get("/readyz")
		return status == http.StatusServiceUnavailable && expression.MatchString(body)
	})
}

// Metric returns the sum of a metric's series whose labels match the pattern.
func (p *Process) Metric(name, labels string) float64 {
	p.t.Helper()
	_, body := p.Get("/metrics")
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{([^}]*)\})? (\S+)$`).FindAllStringSubmatch(body, -1) {
		if regexp.MustCompile(labels).MatchString(m[1]) {
			v, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				p.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// Memory is the resident memory of the process in MiB now, and the most that it had.
func (p *Process) Memory() (now, most int) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		p.t.Fatal(err)
	}
	value := func(name string) int {
		m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(text)
		if m == nil {
			p.t.Fatalf("no %s in the process's status", name)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			p.t.Fatal(err)
		}
		return n >> 10
	}
	return value("VmRSS"), value("VmHWM")
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Ended waits for the end and returns the exit code, and whether a signal ended the process.
func (p *Process) Ended() (code int, killed bool) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(Long):
		p.t.Fatalf("signindiag %s did not end", p.name)
	}
	return p.cmd.ProcessState.ExitCode(), p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
}

// Kill is kill -9.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop sends what container runtimes send, and expects a graceful stop.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if code, _ := p.Ended(); code != 0 {
		p.t.Errorf("signindiag %s: exit code %d after SIGTERM, want 0", p.name, code)
	}
}

// Interrupt sends what Ctrl-C sends and returns the exit code.
func (p *Process) Interrupt() int {
	p.t.Helper()
	p.Signal(syscall.SIGINT)
	code, _ := p.Ended()
	return code
}
