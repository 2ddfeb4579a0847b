package embedded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

// roleVariable makes this test binary play another process; see playRole.
const roleVariable = "EMBEDDED_TEST_ROLE"

// role is a part that the test binary plays in a process of its own.
type role struct {
	Part        string // broker, lock, clickhouse, or program
	Dir         string
	Library     string
	Cache       string
	DeathSignal bool
}

// announcement is the one line that a role prints when it is ready.
type announcement struct {
	Address string
	PID     int // Of the engine.
}

func TestMain(m *testing.M) {
	embedded.ClickHouseMain()
	if text := os.Getenv(roleVariable); text != "" {
		if err := playRole(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The race detector sleeps for a second at the exit of every process, those of the engines included.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := embeddedtest.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// playRole starts something, says where it is, and waits for the end of its standard input.
func playRole(text string) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	var ready announcement
	var stop func() error
	switch r.Part {
	case "broker":
		b, err := embedded.StartBroker(embedded.BrokerConfig{DataDir: r.Dir})
		if err != nil {
			return err
		}
		ready.Address, stop = b.Address(), b.Close
	case "lock":
		l, err := embedded.LockData(r.Dir)
		if err != nil {
			return err
		}
		stop = l.Close
	case "clickhouse":
		cfg := embedded.ClickHouseConfig{DataDir: r.Dir, Library: r.Library, CacheDir: r.Cache}
		if !r.DeathSignal {
			cfg = embedded.WithoutDeathSignal(cfg)
		}
		cfg.Progress = func(p embedded.Progress) { fmt.Fprintln(os.Stderr, p.Stage) }
		c, err := embedded.StartClickHouse(context.Background(), cfg)
		if err != nil {
			return err
		}
		ready = announcement{Address: c.Address(), PID: c.PID()}
		stop = c.Close
	case "program":
		return playProgram(r)
	default:
		return fmt.Errorf("unknown part %q", r.Part)
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, stop())
}

// playProgram is an installed clickhouse: it knows "server --version" and "server --config-file=FILE".
func playProgram(r role) error {
	config, found := strings.CutPrefix(os.Args[len(os.Args)-1], "--config-file=")
	if !found {
		_, err := fmt.Println("ClickHouse server version 26.7.2.1 (official build).")
		return err
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var ports struct {
		TCP string `xml:"tcp_port"`
	}
	if err := xml.Unmarshal(text, &ports); err != nil {
		return err
	}
	return embedded.RunAsProgram(r.Library, config, "127.0.0.1:"+ports.TCP)
}

// process is a running role.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.Reader
	stderr io.Reader
}

// startRole starts the test binary in a role; the test ends it at the latest.
func startRole(t *testing.T, r role) *process {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	p := &process{cmd: cmd}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if p.stdout, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if p.stderr, err = cmd.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// ready waits for the role's announcement.
func (p *process) ready(t *testing.T) announcement {
	t.Helper()
	var a announcement
	line, err := bufio.NewReader(p.stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		text, _ := io.ReadAll(p.stderr)
		t.Fatalf("the other process did not get ready: %v: %s", err, text)
	}
	return a
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	_ = p.cmd.Wait()
}

// waitGone waits until no process of this id is left that runs. Nobody reaps what the init process of a
// container inherits, so that a zombie counts as gone.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*embedded.StopTimeout)
	defer cancel()
	for embedded.ProcessAlive(pid) && !zombie(pid) {
		select {
		case <-ctx.Done():
			t.Fatalf("process %d is still there", pid)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// zombie tells whether a process has ended without being reaped, where /proc can tell.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(after, "Z")
}
