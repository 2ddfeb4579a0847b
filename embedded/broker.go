package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// offsetsRetentionMinutes keeps the committed offsets of a group without members for ten years. Kafka's
// default (offsets.retention.minutes = 10080, seven days) would forget how far a machine had read that was
// switched off for a fortnight.
const offsetsRetentionMinutes = 10 * 365 * 24 * 60

// segmentBytes is the size of a log file at which the next one is begun. kfake reads files as a whole when
// it opens a log: with its default of 100 MiB (log.segment.bytes) opening 1.1 GB took 1.8 s and 850 MB of
// memory, with this 0.35 s and 245 MB. Each file that was read stays open, some 64 per GB.
const segmentBytes = 16 << 20

// BrokerConfig says where a Broker keeps its data and how it can be reached. The zero value is a broker
// in memory on a free port.
type BrokerConfig struct {
	// DataDir keeps topics, records and committed offsets; it is made when it is missing. Empty means memory only.
	DataDir string
	// Address is host:port on loopback. An empty address or port 0 takes a free port of 127.0.0.1.
	Address string
	// Logger gets the broker's warnings and errors, and its requests at debug level. Nil discards them.
	Logger *slog.Logger
	// SyncWrites fsyncs every batch, so that acknowledged records outlive a power cut as well. Without it
	// they outlive the death of the process, as with Kafka's own defaults.
	SyncWrites bool
	// MaxMessageBytes bounds one record batch in bytes (message.max.bytes). 0 means Kafka's default, 1048588.
	MaxMessageBytes int
	// MinSessionTimeout is the shortest group session that a member may ask for. 0 means Kafka's default, 6 s.
	MinSessionTimeout time.Duration
}

// Broker is a Kafka-protocol broker inside this process, one node that leads every partition. Topics are
// not created on demand: clients create them. All methods are safe for concurrent use.
type Broker struct {
	cluster *kfake.Cluster
	address string
	lock    *fileLock
	log     *brokerLog
	closing sync.Once
	err     error
}

// StartBroker opens the log in cfg.DataDir, or makes it, and serves it. It refuses a directory that
// another broker has open, and an address that is not on loopback or already taken. The caller closes the Broker.
func StartBroker(cfg BrokerConfig) (*Broker, error) {
	network, address, err := loopbackAddress(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("start Kafka broker: %w", err)
	}
	b := &Broker{log: &brokerLog{logger: cfg.Logger}}
	settings := map[string]string{
		"offsets.retention.minutes": strconv.Itoa(offsetsRetentionMinutes),
		"log.segment.bytes":         strconv.Itoa(segmentBytes),
	}
	if cfg.MaxMessageBytes > 0 {
		settings["message.max.bytes"] = strconv.Itoa(cfg.MaxMessageBytes)
	}
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.WithLogger(b.log),
		kfake.BrokerConfigs(settings),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return net.Listen(network, address) }),
	}
	if cfg.MinSessionTimeout > 0 {
		options = append(options, kfake.GroupMinSessionTimeout(cfg.MinSessionTimeout))
	}
	if cfg.SyncWrites {
		options = append(options, kfake.SyncWrites())
	}
	if cfg.DataDir != "" {
		if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
			return nil, fmt.Errorf("start Kafka broker: make data directory: %w", err)
		}
		if b.lock, err = lockFile(filepath.Join(cfg.DataDir, "broker.lock")); err != nil {
			return nil, fmt.Errorf("start Kafka broker: %w", err)
		}
		options = append(options, kfake.DataDir(cfg.DataDir))
	}
	b.cluster, err = kfake.NewCluster(options...)
	if err != nil {
		b.lock.release()
		return nil, fmt.Errorf("start Kafka broker on %s with data in %q: %w", address, cfg.DataDir, err)
	}
	b.address = b.cluster.ListenAddrs()[0]
	return b, nil
}

// Address returns host:port of the broker, for clients as bootstrap address.
func (b *Broker) Address() string { return b.address }

// Close ends all connections, writes and fsyncs what is kept, and frees the directory. What the broker
// could not write is in the error. Further calls do nothing and return the same error.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		b.log.collect()
		b.cluster.Close()
		if err := b.log.collected(); err != nil {
			b.err = fmt.Errorf("close Kafka broker on %s: %w", b.address, err)
		}
		b.lock.release()
	})
	return b.err
}

// loopbackAddress splits an address as in BrokerConfig.Address into what net.Listen takes, and refuses one
// that other machines could reach: neither broker nor database asks for a password.
func loopbackAddress(address string) (network, hostPort string, err error) {
	if address == "" {
		return "tcp4", "127.0.0.1:0", nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", fmt.Errorf("address %q: expected host:port: %w", address, err)
	}
	if number, err := strconv.Atoi(port); err != nil || number < 0 || number > 65535 {
		return "", "", fmt.Errorf("address %q: expected a port from 0 to 65535", address)
	}
	if host == "" || strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsLoopback() {
		return "", "", fmt.Errorf("address %q: expected a loopback address such as 127.0.0.1, since there is no password", address)
	}
	network = "tcp4"
	if ip.To4() == nil {
		network = "tcp6"
	}
	return network, net.JoinHostPort(host, port), nil
}

// brokerLog hands kfake's log lines to slog. While the broker closes it also keeps the errors, which kfake
// only logs.
type brokerLog struct {
	logger *slog.Logger

	mu      sync.Mutex
	keeping bool
	errs    []error
}

// Logf implements kfake.Logger.
func (l *brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelError {
		l.mu.Lock()
		if l.keeping {
			l.errs = append(l.errs, fmt.Errorf(format, args...))
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
	if l.logger == nil {
		return
	}
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	}
	if ctx := context.Background(); l.logger.Enabled(ctx, to) {
		l.logger.Log(ctx, to, "Kafka broker: "+fmt.Sprintf(format, args...))
	}
}

func (l *brokerLog) collect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keeping = true
}

func (l *brokerLog) collected() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
