package sinks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// DefaultDatabase is the name of the database when none is configured.
const DefaultDatabase = "signindiag"

// defaultDialTimeout bounds one connection attempt including the handshake.
const defaultDialTimeout = 10 * time.Second

// Server says where ClickHouse is and how to sign in to it. Its password never reaches a log or an error.
type Server struct {
	// Address holds host:port of the native protocol (9000, or 9440 with TLS); all name replicas of one
	// another. At least one is needed.
	Address []string
	// Database holds the tables; DefaultDatabase when empty.
	Database string
	Username string // "default" when empty
	Password string
	// TLS is nil for a plain connection.
	TLS *tls.Config
	// Cluster is set when tables are replicated: an INSERT then waits for a majority of replicas.
	Cluster string
	// DialTimeout bounds a connection attempt; 10 s when zero.
	DialTimeout time.Duration
}

func (s Server) withDefaults() Server {
	if s.Database == "" {
		s.Database = DefaultDatabase
	}
	if s.Username == "" {
		s.Username = "default"
	}
	if s.DialTimeout <= 0 {
		s.DialTimeout = defaultDialTimeout
	}
	return s
}

func (s Server) validate() error {
	if len(s.Address) == 0 {
		return errors.New("ClickHouse: no address configured, expected host:port of the native protocol")
	}
	for _, a := range s.Address {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("ClickHouse address %q: expected host:port of the native protocol, for example 127.0.0.1:9000", a)
		}
	}
	return nil
}

// systemDatabase exists on every server, so a session can begin in it before s.Database is made.
const systemDatabase = "system"

// Open connects to ClickHouse for queries and DDL and makes sure that it answers. The session's database is
// s.Database, which must exist. The caller closes the connection, which is a pool and safe for concurrent
// use. Errors name the address and what to do; ctx bounds the attempt.
func Open(ctx context.Context, s Server) (driver.Conn, error) {
	s = s.withDefaults()
	// A server that is asked for a database that it does not have ends the handshake; asking first tells
	// the two apart whatever its version says then.
	first, err := open(ctx, s, systemDatabase)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	var n uint64
	if err := first.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", s.Database).Scan(&n); err != nil {
		return nil, fmt.Errorf("look for database %s on ClickHouse at %s: %w", s.Database, strings.Join(s.Address, ", "), err)
	}
	if n == 0 {
		return nil, fmt.Errorf("connect to ClickHouse at %s: database %q does not exist or user %q may not see it: run signindiag migrate, or check the name", strings.Join(s.Address, ", "), s.Database, s.Username)
	}
	return open(ctx, s, s.Database)
}

// OpenWithoutDatabase connects like Open, but with the database "system" as the session's database, so that it
// works before Migrate has made s.Database. Statements must name their database.
func OpenWithoutDatabase(ctx context.Context, s Server) (driver.Conn, error) {
	return open(ctx, s.withDefaults(), systemDatabase)
}

// OpenLater is Open without a look whether the server answers or has the database: the first query connects, and so does every
// one after a failure.
func OpenLater(s Server) (driver.Conn, error) {
	s = s.withDefaults()
	return prepare(s, s.Database)
}

func open(ctx context.Context, s Server, database string) (driver.Conn, error) {
	conn, err := prepare(s, database)
	if err != nil {
		return nil, err
	}
	if err := conn.Ping(ctx); err != nil {
		_ = conn.Close() // the ping's error is the one that tells
		return nil, explainConnect(err, s, strings.Join(s.Address, ", "))
	}
	return conn, nil
}

func prepare(s Server, database string) (driver.Conn, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:        s.Address,
		Auth:        clickhouse.Auth{Database: database, Username: s.Username, Password: s.Password},
		TLS:         s.TLS,
		DialTimeout: s.DialTimeout,
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
	})
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse at %s: %w", strings.Join(s.Address, ", "), err)
	}
	return conn, nil
}

// explainConnect turns an error of a connection attempt into one line that names the address and says what
// to do about it.
func explainConnect(err error, s Server, address string) error {
	var refused *net.OpError
	var unverified *tls.CertificateVerificationError
	code := exceptionCode(err)
	hint := ""
	switch {
	case code == codeAuthenticationFailed || code == codeUnknownUser || code == codeWrongPassword || code == codeRequiredPassword:
		hint = fmt.Sprintf("user %q was refused: check the user name and the password", s.Username)
		// The server's own text may repeat what it was sent; its code says enough.
		return &refusedError{fmt.Sprintf("connect to ClickHouse at %s: %s (code %d)", address, hint, code), code}
	case code == codeUnknownDatabase:
		hint = fmt.Sprintf("database %q does not exist: run signindiag migrate, or check the name", s.Database)
	case code == codeDatabaseAccessDenied || code == codeAccessDenied:
		hint = fmt.Sprintf("user %q has no access to database %q: grant it", s.Username, s.Database)
	case errors.As(err, &unverified):
		hint = "the server's certificate is not trusted: configure its certificate authority"
	case errors.As(err, &refused) && refused.Op == "dial":
		hint = "nothing answers there: check the address, and that ClickHouse runs and listens for the native protocol"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "no answer in time: check the address and the network"
	case errors.Is(err, io.EOF), strings.Contains(err.Error(), "unexpected packet"):
		hint = "the server does not speak the native protocol there: 8123 is HTTP, 9000 is native, 9440 is native with TLS"
	default:
		return fmt.Errorf("connect to ClickHouse at %s: %w", address, err)
	}
	return fmt.Errorf("connect to ClickHouse at %s: %s: %w", address, hint, err)
}

// refusedError is an error of the server without the server's text.
type refusedError struct {
	text string
	code int
}

func (e *refusedError) Error() string { return e.text }
