package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// childVariable marks a process as the engine's child; its value is a childSpecification.
	childVariable = "SIGNINDIAG_CLICKHOUSE_CHILD"
	// lifelineDescriptor is the read end of a pipe that only the parent can write to, so that it ends with the parent.
	lifelineDescriptor = 3
	// queryPrefix begins the id of the query that keeps clickhouse-local serving.
	queryPrefix = "signindiag-engine-"
)

// mainCalled says that this executable handles its own re-execution. Without that, starting the engine
// would start the whole program again, and again.
var mainCalled atomic.Bool

// childSpecification is what the parent tells the child. Either Library or Program is set.
type childSpecification struct {
	Library string // libchdb.so, loaded into the child.
	Program string // An installed clickhouse program, run below the child.
	Config  string // Path of config.xml.
	Address string // host:port of the native protocol.
	// Engine is host:port at which the engine itself listens; where that is not Address, a front listens there.
	Engine string
	User   frontUser
	// TLSCertFile and TLSKeyFile make the front speak TLS.
	TLSCertFile, TLSKeyFile string
	Mark                    string // Makes the query id unique.
}

func (s childSpecification) environment() string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // Strings only: it cannot fail.
	}
	return childVariable + "=" + string(text)
}

// ClickHouseMain has to be called first thing in main and in TestMain of every program that uses
// StartClickHouse. In the process that StartClickHouse made it runs the engine and never returns; in any
// other it returns at once.
func ClickHouseMain() {
	mainCalled.Store(true)
	text, isChild := os.LookupEnv(childVariable)
	if !isChild {
		return
	}
	os.Unsetenv(childVariable)
	var s childSpecification
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Fprintf(os.Stderr, "signindiag: %s: %v\n", childVariable, err)
		os.Exit(2)
	}
	syscall.CloseOnExec(lifelineDescriptor)
	if err := runChild(s, os.NewFile(lifelineDescriptor, "lifeline")); err != nil {
		fmt.Fprintf(os.Stderr, "signindiag: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// checkReexecution refuses to start a child that would not know that it is one.
func checkReexecution() error {
	if !mainCalled.Load() {
		return errors.New("embedded.ClickHouseMain was not called: call it first thing in main (in tests: TestMain)")
	}
	return nil
}

// runChild runs the engine until the lifeline ends. It returns nil when the engine stopped because it was asked to.
func runChild(s childSpecification, lifeline *os.File) error {
	asked := make(chan struct{})
	go func() {
		// Nothing is ever written: any end of the read means that the parent has closed its end or has died.
		var one [1]byte
		_, _ = lifeline.Read(one[:])
		close(asked)
	}()
	var err error
	if s.Program != "" {
		err = runProgram(s, asked)
	} else {
		err = runLibrary(s, asked)
	}
	select {
	case <-asked:
		return nil
	default:
		return err
	}
}

// runLibrary loads libchdb.so and runs clickhouse-local in it, which serves until its last query ends. That
// query sleeps; when asked to stop, it is cancelled from outside like any other.
func runLibrary(s childSpecification, asked <-chan struct{}) error {
	go func() {
		<-asked
		stopLibrary(s.Engine)
	}()
	if s.Engine != s.Address {
		if err := startFront(s.Address, s.Engine, s.User, s.TLSCertFile, s.TLSKeyFile); err != nil {
			return err
		}
	}
	if err := RunLibrary(s.Library, localArguments(s)...); err != nil {
		return err
	}
	return errors.New("clickhouse-local returned without being asked to")
}

// localArguments is the command line of clickhouse-local. sleepEachRow costs four wake-ups a second; the
// query limits that would end it after a while are off.
func localArguments(s childSpecification) []string {
	return []string{
		"clickhouse", "--config-file=" + s.Config, "--log-level=warning", "--query_id=" + queryPrefix + s.Mark,
		"--query=SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
			"SELECT sleepEachRow(0.25) FROM system.numbers FORMAT Null SETTINGS max_block_size = 1, max_threads = 1, " +
			"function_sleep_max_microseconds_per_block = 0, max_execution_time = 0",
	}
}

// stopLibrary cancels every query of this server, the one that keeps it serving included, and ends the
// process when that does not end it within stopTimeout. An engine that is not listening yet, or whose
// library is still being loaded, is ended at once: nobody has had an acknowledgement from it.
func stopLibrary(address string) {
	end := time.Now().Add(stopTimeout)
	for time.Now().Before(end) {
		err := cancelQueries(address)
		if err == nil {
			time.Sleep(time.Until(end)) // The process ends in between.
			break
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		fmt.Fprintf(os.Stderr, "signindiag: stop the engine: %v\n", err)
		time.Sleep(200 * time.Millisecond)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// cancelQueries cancels all running queries but itself, without waiting for their end.
func cancelQueries(address string) error {
	probe, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return err
	}
	probe.Close()
	conn, err := openNative(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return conn.Exec(ctx, "KILL QUERY WHERE 1 ASYNC")
}

// runProgram runs an installed clickhouse as a server below this process.
func runProgram(s childSpecification, asked <-chan struct{}) error {
	cmd := exec.Command(s.Program, programArguments(s)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	server, err := startChild(cmd, true)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Program, err)
	}
	select {
	case <-server.done:
		if err := server.wait(); err != nil {
			return fmt.Errorf("%s server: %w", s.Program, err)
		}
		return fmt.Errorf("%s server ended without being asked to", s.Program)
	case <-asked:
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-server.done:
	case <-time.After(stopTimeout):
		server.kill()
		<-server.done
		fmt.Fprintf(os.Stderr, "signindiag: %s server did not stop within %s and was killed\n", s.Program, stopTimeout)
	}
	return nil
}

// programArguments is the command line of an installed clickhouse.
func programArguments(s childSpecification) []string {
	return []string{"server", "--config-file=" + s.Config}
}
