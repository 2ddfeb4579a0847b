package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

const (
	// defaultStartTimeout bounds the time from starting the engine's process to its first answer. On an SSD
	// it takes a second or two, also after kill -9; a cold 566 MB library on a slow disk takes longer.
	defaultStartTimeout = 2 * time.Minute
	// stopTimeout is how long the engine may take to stop cleanly before its process is killed.
	stopTimeout = 10 * time.Second
	// lockTimeout is how long a start waits for the engine of a process that has died to end as well: that
	// one stops within stopTimeout.
	lockTimeout = stopTimeout + 5*time.Second
	// portAttempts is how often other free ports are tried when somebody else takes one between our choosing
	// it and the engine listening on it.
	portAttempts = 3
	// logTailBytes bounds what of the engine's log goes into an error.
	logTailBytes = 2000
)

// Stages of starting ClickHouse, as reported in Progress.
const (
	// StageFetch is the download of the engine's library, on first need only.
	StageFetch = "fetch"
	// StageStart is the time until the engine answers.
	StageStart = "start"
	// StageReady is reported once, when the engine answers.
	StageReady = "ready"
)

// Progress tells people what StartClickHouse is doing.
type Progress struct {
	// Stage is one of the Stage constants.
	Stage string
	// Text is one short sentence.
	Text string
	// Done and Total count bytes of the download; both are 0 where there is nothing to count, Total is 0
	// where the size is not known.
	Done, Total int64
}

// ClickHouseConfig says where the embedded ClickHouse keeps its data, how it is reached and where its
// engine comes from. Only DataDir is required.
type ClickHouseConfig struct {
	// DataDir keeps tables, the generated configuration and the logs; it is made when it is missing.
	DataDir string
	// TCPPort (native protocol) and HTTPPort are ports of 127.0.0.1; 0 takes free ones.
	TCPPort, HTTPPort int
	// Library is the path of libchdb.so. When it is empty the environment variable SIGNINDIAG_CLICKHOUSE_LIBRARY
	// is asked, then an installed clickhouse program, then the cache, then npm.
	Library string
	// IgnoreInstalled passes over a clickhouse program on PATH.
	IgnoreInstalled bool
	// CacheDir keeps the downloaded library. Empty means signindiag in the user's cache directory.
	CacheDir string
	// Progress is called from one goroutine, a few times a second at most, until StartClickHouse returns. May be nil.
	Progress func(Progress)
	// Logger gets one line when the engine is ready. Its end is told by Done and Err. Nil discards it.
	Logger *slog.Logger
	// MemoryLimit bounds the engine's memory in bytes; half of the machine's memory is a further bound.
	// 0 means 4 GiB.
	MemoryLimit int64
	// StartTimeout bounds the wait for the engine's first answer, the download not included. 0 means two minutes.
	StartTimeout time.Duration

	// Username (default) and Password (none) are what clients of the native protocol at Address must give; with TLSCertFile and
	// TLSKeyFile, PEM, they must speak TLS. HTTP knows none of these. Only the engine in the library is so protected, not an
	// installed program.
	Username, Password, TLSCertFile, TLSKeyFile string

	// leaveDeathSignalOut lets tests show that the engine ends by the closing of its pipe alone.
	leaveDeathSignalOut bool
}

// ClickHouse is a running ClickHouse server in a child process. Its user is default, without a password
// and without access to files, other hosts or other programs, reachable on loopback only; times are in UTC.
// All methods are safe for concurrent use.
type ClickHouse struct {
	address     string
	httpAddress string
	version     string
	logPath     string
	serverLog   int64 // Length of the server's own log when this run began.

	lock     *fileLock
	lifeline *os.File // Write end of the pipe whose closing ends the child.
	process  *childProcess
	done     chan struct{}

	mu      sync.Mutex
	closing bool
	err     error
}

// StartClickHouse starts the engine on cfg.DataDir and returns when it answers queries. On first need it
// fetches the engine's library with npm, which takes a while: cfg.Progress tells. Cancelling ctx ends a
// start or a download under way; afterwards ctx has no influence, the caller stops the engine with Close.
// The engine ends by itself when this process dies.
//
// Errors: *LockedError when another process uses DataDir, *LibraryError when no engine can be had.
func StartClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	c, err := startClickHouse(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	return c, nil
}

func startClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	if err := checkReexecution(); err != nil {
		return nil, err
	}
	if cfg.DataDir == "" {
		return nil, errors.New("no data directory is given")
	}
	if cfg.MemoryLimit <= 0 {
		cfg.MemoryLimit = defaultMemoryLimit
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory %q: %w", cfg.DataDir, err)
	}
	cfg.DataDir = dir
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := waitForLock(ctx, filepath.Join(cfg.DataDir, "clickhouse.lock"), lockTimeout)
	if err != nil {
		return nil, err
	}
	engine, err := findEngine(ctx, &cfg)
	if err != nil {
		lock.release()
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		c, err := launch(ctx, &cfg, engine, lock)
		if err == nil {
			return c, nil
		}
		// Ports that were asked for and are taken are refused before the engine is started.
		if errors.Is(err, errAddressTaken) && attempt < portAttempts {
			continue
		}
		lock.release()
		return nil, err
	}
}

// errAddressTaken marks a start that failed because a port was no longer free.
var errAddressTaken = errors.New("a port is taken")

// launch starts the engine's process once and waits until it answers. On success the ClickHouse owns lock.
func launch(ctx context.Context, cfg *ClickHouseConfig, engine engineSource, lock *fileLock) (_ *ClickHouse, err error) {
	begun := time.Now()
	ports, err := choosePorts(cfg.TCPPort, cfg.HTTPPort, 0)
	if err != nil {
		return nil, err
	}
	c := &ClickHouse{
		address:     loopbackPort(ports[0]),
		httpAddress: loopbackPort(ports[1]),
		logPath:     filepath.Join(cfg.DataDir, "engine.log"),
		lock:        lock,
		done:        make(chan struct{}),
	}
	specification := childSpecification{
		Library: engine.library, Program: engine.program, Address: c.address, Engine: c.address, Mark: rand.Text(),
		User: frontUser{cmp.Or(cfg.Username, "default"), cfg.Password}, TLSCertFile: cfg.TLSCertFile, TLSKeyFile: cfg.TLSKeyFile,
	}
	server := serverConfig{
		Dir: cfg.DataDir, TCPPort: ports[0], HTTPPort: ports[1], MemoryLimit: cfg.MemoryLimit, Mark: specification.Mark,
	}
	if engine.library != "" {
		server.TCPPort = ports[2]
		specification.Engine = loopbackPort(ports[2])
	}
	specification.Config, err = writeServerConfig(server)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(c.serverLogPath()); err == nil {
		c.serverLog = info.Size()
	}
	log, err := rotateLog(c.logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the pipe that ends the engine: %w", err)
	}
	defer read.Close()
	c.lifeline = write

	executable, err := ownExecutable()
	if err != nil {
		write.Close()
		return nil, fmt.Errorf("find this program's own file: %w", err)
	}
	cmd := exec.Command(executable)
	cmd.Args = []string{os.Args[0], "clickhouse", "--config-file=" + specification.Config} // For people who look at ps.
	// clickhouse-local goes by TZ and passes over <timezone>.
	cmd.Env = append(os.Environ(), "TZ=UTC", specification.environment())
	cmd.Dir = cfg.DataDir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{read, lock.file} // Descriptors 3 and 4; see ClickHouseMain.
	cfg.Progress(Progress{Stage: StageStart, Text: "Starting ClickHouse (" + engine.String() + ")"})
	c.process, err = startChild(cmd, !cfg.leaveDeathSignalOut)
	if err != nil {
		write.Close()
		return nil, fmt.Errorf("start the engine's process: %w", err)
	}
	go c.watch()

	if err := c.waitReady(ctx, cfg.StartTimeout, &specification); err != nil {
		c.setClosing()
		c.lifeline.Close()
		c.process.kill()
		<-c.done
		return nil, err
	}
	writeEngineVersion(cfg.DataDir, c.version)
	took := time.Since(begun).Round(time.Millisecond)
	cfg.Logger.Info("ClickHouse is ready", "version", c.version, "engine", engine.String(), "address", c.address,
		"http", c.httpAddress, "data", cfg.DataDir, "process", c.process.pid(), "took", took)
	cfg.Progress(Progress{Stage: StageReady, Text: fmt.Sprintf("ClickHouse %s is ready on %s after %s", c.version, c.address, took)})
	return c, nil
}

// watch reports the end of the engine's process and frees what belongs to it.
func (c *ClickHouse) watch() {
	err := c.process.wait()
	c.mu.Lock()
	if !c.closing {
		c.err = c.endError(err)
	}
	c.mu.Unlock()
	close(c.done)
}

// endError describes a process that ended without being asked to, with the end of its log.
func (c *ClickHouse) endError(err error) error {
	if err == nil {
		err = errors.New("its process ended by itself")
	}
	tail := c.logTail()
	if strings.Contains(strings.ToLower(tail), "address already in use") {
		err = errors.Join(err, errAddressTaken)
	}
	return fmt.Errorf("the ClickHouse engine on %s ended: %w; end of its log %s: %s", c.address, err, c.logPath, tail)
}

// waitReady returns when the engine answers a query over the native protocol, and checks by the mark in
// its configuration that it is our engine that answers and not somebody else's on the same port.
func (c *ClickHouse) waitReady(ctx context.Context, timeout time.Duration, s *childSpecification) error {
	deadline, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	var last error
	for {
		found, version, err := askMark(deadline, s.Engine)
		switch {
		case err == nil && found == s.Mark:
			c.version = version
			return nil
		case err == nil:
			return fmt.Errorf("another ClickHouse answers on %s: %w", s.Engine, errAddressTaken)
		case deadline.Err() == nil:
			last = err
		}
		select {
		case <-pause.C:
		case <-c.done:
			return c.Err()
		case <-deadline.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("wait for the engine: %w", context.Cause(ctx))
			}
			return fmt.Errorf("the engine gave no answer on %s within %s (last: %v); end of its log %s: %s",
				c.address, timeout, last, c.logPath, c.logTail())
		}
	}
}

// askMark asks the server at address for the mark in its configuration and its version.
func askMark(ctx context.Context, address string) (mark, version string, err error) {
	// A plain dial first: it fails at once while nobody listens, without a driver's pool around it.
	dialer := net.Dialer{Timeout: time.Second}
	probe, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", "", err
	}
	probe.Close()
	conn, err := openNative(address)
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	query, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := conn.QueryRow(query, "SELECT getMacro('"+markMacro+"'), version()").Scan(&mark, &version); err != nil {
		var exception *clickhouse.Exception
		if errors.As(err, &exception) && strings.Contains(exception.Message, "No macro") {
			return "", "", nil // A ClickHouse, but one that was not configured by us.
		}
		return "", "", err
	}
	return mark, version, nil
}

// openNative makes a one-connection client; it does not dial yet.
func openNative(address string) (clickhouse.Conn, error) {
	return clickhouse.Open(&clickhouse.Options{
		Addr: []string{address}, DialTimeout: 2 * time.Second, MaxOpenConns: 1, MaxIdleConns: 1,
	})
}

// Address returns host:port of the native protocol.
func (c *ClickHouse) Address() string { return c.address }

// HTTPAddress returns host:port of the HTTP interface.
func (c *ClickHouse) HTTPAddress() string { return c.httpAddress }

// LogPath returns the file that holds what the engine's process prints.
func (c *ClickHouse) LogPath() string { return c.logPath }

// PID returns the process id of the engine's process.
func (c *ClickHouse) PID() int { return c.process.pid() }

// Done is closed when the engine's process has ended, for whatever reason. The data directory stays locked
// until Close.
func (c *ClickHouse) Done() <-chan struct{} { return c.done }

// Err returns nil while the engine runs and after a clean Close, and otherwise why the engine ended, with
// the end of its log.
func (c *ClickHouse) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close stops the engine: running queries are cancelled and tables are closed. An engine that takes longer
// than ten seconds is killed, which loses no acknowledged row and is an error here. When the engine had
// ended before by itself, that is the error. Further calls return the same.
func (c *ClickHouse) Close() error {
	if !c.setClosing() {
		<-c.done
		return c.Err()
	}
	c.lifeline.Close()
	timer := time.NewTimer(stopTimeout + 2*time.Second) // The child kills itself at stopTimeout.
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		c.process.kill()
		<-c.done
	}
	c.lock.release()
	// Connections that do not end in time make the engine leave with status 1 after shutdown_wait_unfinished;
	// that is a stop as well. A signal is not: ours after the time is up, or a crash.
	var exit *exec.ExitError
	if err := c.process.wait(); errors.As(err, &exit) && !exit.Exited() {
		c.mu.Lock()
		if c.err == nil {
			c.err = fmt.Errorf("stop ClickHouse on %s: it did not end by itself: %w; end of its log %s: %s", c.address, err, c.logPath, c.logTail())
		}
		c.mu.Unlock()
	}
	return c.Err()
}

// setClosing marks the end as wanted; false when it was so before.
func (c *ClickHouse) setClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.closing = true
	return true
}

// waitForLock takes the lock at path. A lock whose owner lives is refused at once; one whose owner has died
// is still held by that owner's engine, which is on its way out, so it is waited for.
func waitForLock(ctx context.Context, path string, timeout time.Duration) (*fileLock, error) {
	deadline := time.Now().Add(timeout)
	for {
		lock, err := lockFile(path)
		var locked *LockedError
		if err == nil || !errors.As(err, &locked) {
			return lock, err
		}
		if locked.PID > 0 && processAlive(locked.PID) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the previous engine in %s to end: %w", filepath.Dir(path), context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// choosePorts returns the ports that were asked for, with free ones in the place of zeros, and refuses one
// that is taken. All are probed before any is given back, so that they differ.
func choosePorts(asked ...int) ([]int, error) {
	ports := make([]int, len(asked))
	for i, port := range asked {
		listener, err := net.Listen("tcp4", loopbackPort(port))
		if err != nil {
			return nil, fmt.Errorf("port %d of 127.0.0.1: %w", port, err)
		}
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func loopbackPort(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// rotateLog moves the log of the previous run aside, to path.1, and begins a new one.
func rotateLog(path string) (*os.File, error) {
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("move the previous log aside: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("make the engine's log: %w", err)
	}
	return file, nil
}

// ownExecutable is what to run to get this program once more; under Linux that works also after its file
// was replaced or removed, as an upgrade and "go run" do.
func ownExecutable() (string, error) {
	const self = "/proc/self/exe"
	if runtime.GOOS == "linux" {
		if _, err := os.Stat(self); err == nil {
			return self, nil
		}
	}
	return os.Executable()
}

func (c *ClickHouse) serverLogPath() string {
	return filepath.Join(filepath.Dir(c.logPath), serverLogName)
}

// logTail returns the last lines of this run: what the process printed, then what the server logged.
func (c *ClickHouse) logTail() string {
	printed := fileTail(c.logPath, 0)
	logged := fileTail(c.serverLogPath(), c.serverLog)
	if printed+logged == "" {
		return "(empty)"
	}
	return strings.TrimSpace(printed + "\n" + logged)
}

// fileTail returns the last whole lines of a file behind an offset, at most logTailBytes; empty when there
// are none. A file shorter than the offset was rotated since, and is read from its beginning.
func fileTail(path string, from int64) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	if from > info.Size() {
		from = 0
	}
	cut := info.Size()-from > logTailBytes
	if cut {
		from = info.Size() - logTailBytes
	}
	text, err := io.ReadAll(io.NewSectionReader(file, from, logTailBytes))
	if err != nil {
		return ""
	}
	tail := string(text)
	if cut {
		if _, rest, found := strings.Cut(tail, "\n"); found {
			tail = rest
		}
	}
	return strings.TrimSpace(strings.ToValidUTF8(tail, "?"))
}
