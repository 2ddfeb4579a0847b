package embedded_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/embedded"
)

// TestClickHouseRefusesHellos: what a client says first ends its own connection at most, never the engine.
func TestClickHouseRefusesHellos(t *testing.T) {
	c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: t.TempDir(), Password: "correct horse"})
	ping := func(user, password, database string) error {
		conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{c.Address()}, Auth: clickhouse.Auth{Username: user, Password: password, Database: database}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.Ping(t.Context())
	}
	for _, refused := range []struct {
		user, password, database string
		code                     int32
	}{
		{"nobody", "", "", 516}, {"default", "", "", 516}, {"default", "wrong", "", 516},
		{"default", "correct horse", "no_database", 81}, {" INTERSERVER SECRET ", "", "", 516},
	} {
		var exception *clickhouse.Exception
		if err := ping(refused.user, refused.password, refused.database); !errors.As(err, &exception) || exception.Code != refused.code {
			t.Errorf("%+v: %v, want code %d", refused, err, refused.code)
		}
	}
	for _, bytes := range []string{"", "\x00", "\x00\x03abc", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "GET / HTTP/1.1\r\n\r\n", "\x00\xff\xff\xff\xff\x7f", "\x07\x00\x00"} {
		for _, reset := range []bool{false, true} {
			conn, err := net.Dial("tcp", c.Address())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(bytes)); err != nil {
				t.Fatal(err)
			}
			if reset {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
			conn.Close()
		}
	}
	if err := ping("default", "correct horse", "system"); err != nil {
		t.Errorf("a good client after bad ones: %v", err)
	}
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
}

// recorder passes a connection on and keeps what the client has sent.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	sent bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.sent.Write(b)
	r.mu.Unlock()
	return r.Conn.Write(b)
}

// TestClickHouseClientsDie replays a client's session up to every kind of place and ends it there, as kill -9 of a client does:
// with an orderly end, or by a reset with an answer unread.
func TestClickHouseClientsDie(t *testing.T) {
	c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: t.TempDir()})
	var session *recorder
	client, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{c.Address()}, MaxOpenConns: 1,
		DialContext: func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			session = &recorder{Conn: conn}
			return session, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string) {
		t.Helper()
		if err := client.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE default.died (number UInt64, text String) ENGINE = MergeTree ORDER BY number")
	batch, err := client.PrepareBatch(t.Context(), "INSERT INTO default.died")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if err := batch.Append(uint64(i), "some text to make it longer"); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	exec("SELECT count() FROM default.died")
	session.mu.Lock()
	said := bytes.Clone(session.sent.Bytes())
	session.mu.Unlock()
	client.Close()

	places := []int{len(said)}
	for at := 1; at < len(said); at += 1 + at/12 {
		places = append(places, at)
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, at := range places {
		for _, reset := range []bool{false, true} {
			for _, read := range []bool{false, true} {
				slots <- struct{}{}
				all.Go(func() {
					defer func() { <-slots }()
					conn, err := net.Dial("tcp", c.Address())
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					_, _ = conn.Write(said[:at]) // the engine may have had enough before
					if read {
						_ = conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
						_, _ = io.Copy(io.Discard, conn)
					} else {
						time.Sleep(10 * time.Millisecond)
					}
					if reset {
						_ = conn.(*net.TCPConn).SetLinger(0)
					}
				})
			}
		}
	}
	all.Wait()
	time.Sleep(200 * time.Millisecond)
	conn := open(t, c.Address(), "default")
	var rows uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM default.died").Scan(&rows); err != nil || rows < 2000 || rows%2000 != 0 {
		t.Errorf("after %d sessions that were cut: %d rows, want whole blocks of 2000 (%v)", 4*len(places), rows, err)
	}
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
}

// TestClickHouseTLS connects over TLS, and not without.
func TestClickHouseTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil) // for its certificate
	defer server.Close()
	dir := t.TempDir()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := startClickHouse(t, embedded.ClickHouseConfig{DataDir: t.TempDir(), TLSCertFile: cert, TLSKeyFile: keyFile})
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for _, config := range []*tls.Config{{RootCAs: roots, ServerName: "example.com"}, nil} {
		conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{c.Address()}, TLS: config, DialTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Ping(t.Context()); (err == nil) != (config != nil) {
			t.Errorf("TLS %v: %v", config != nil, err)
		}
		conn.Close()
	}
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
}
