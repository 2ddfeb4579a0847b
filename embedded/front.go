package embedded

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// front stands between clients and an engine that runs in the library. There, unlike in ClickHouse's server, an exception that
// leaves a connection's handler ends the whole engine: a wrong password, an unknown database, and a client that was killed
// while it said hello or while an answer was on its way to it. So the front lets a connection through only when its hello is
// whole and would be accepted, and it never resets a connection to the engine.
type front struct {
	listener net.Listener
	engine   string // host:port
	user     frontUser
	tls      *tls.Config // nil for none
}

// frontUser is whom the front lets in.
type frontUser struct{ Name, Password string }

const (
	// helloTimeout bounds the time to read a client's hello.
	helloTimeout = 10 * time.Second
	// maxHelloText bounds one text of a hello in bytes; a name or a password has some dozens.
	maxHelloText = 4096
)

// Packets and error codes of the native protocol, https://github.com/ClickHouse/ClickHouse/blob/master/src/Core/Protocol.h and
// https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp.
const (
	packetHello              = 0
	packetException          = 2
	codeUnknownDatabase      = 81
	codeAuthenticationFailed = 516
	codeNetwork              = 210
)

// serve accepts connections until the listener is closed.
func (f *front) serve() error {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var out interface{ Temporary() bool }
			if errors.As(err, &out) && out.Temporary() { // no file descriptor is left, for example
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return fmt.Errorf("accept connections on %s: %w", f.listener.Addr(), err)
		}
		go f.connection(conn)
	}
}

// stream is what TCP and TLS connections have in common here.
type stream interface {
	net.Conn
	CloseWrite() error
}

func (f *front) connection(conn net.Conn) {
	client := conn.(stream)
	if f.tls != nil {
		client = tls.Server(conn, f.tls)
	}
	defer client.Close()
	if err := client.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return
	}
	in := bufio.NewReaderSize(client, maxHelloText)
	hello, err := readHello(in)
	if err != nil {
		return // it is no client of ours, or it is gone
	}
	if err := client.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	if refusal := f.check(hello); refusal != nil {
		_, _ = client.Write(refusal)
		return
	}
	inner, err := net.DialTimeout("tcp", f.engine, helloTimeout)
	if err != nil {
		_, _ = client.Write(exception(codeNetwork, fmt.Sprintf("the engine does not answer: %v", err)))
		return
	}
	defer inner.Close()
	f.relay(client, in, inner.(*net.TCPConn), hello.bytes)
}

// relay copies both ways until the engine has closed its side. A client that is gone is told to the engine as an orderly end,
// and what the engine still says is read to the end, so that it never meets a reset.
func (f *front) relay(client stream, in *bufio.Reader, engine *net.TCPConn, hello []byte) {
	var both sync.WaitGroup
	both.Go(func() {
		defer engine.CloseWrite()
		if _, err := engine.Write(hello); err != nil {
			return
		}
		if n := in.Buffered(); n > 0 {
			ahead, _ := in.Peek(n)
			if _, err := engine.Write(ahead); err != nil {
				return
			}
		}
		_, _ = io.Copy(engine, client)
	})
	both.Go(func() {
		if _, err := io.Copy(client, engine); err == nil {
			_ = client.CloseWrite()
		} else {
			_, _ = io.Copy(io.Discard, engine)
		}
		client.Close() // ends the other direction
	})
	both.Wait()
}

// check returns the packet that refuses a hello, or nil.
func (f *front) check(h *hello) []byte {
	name := subtle.ConstantTimeCompare([]byte(h.user), []byte(f.user.Name))
	if name&subtle.ConstantTimeCompare([]byte(h.password), []byte(f.user.Password)) != 1 {
		return exception(codeAuthenticationFailed, h.user+": Authentication failed: password is incorrect, or there is no user with such name")
	}
	if h.database == "" || h.database == "default" || h.database == "system" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	conn, err := openNative(f.engine)
	if err != nil {
		return exception(codeNetwork, err.Error())
	}
	defer conn.Close()
	var found uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", h.database).Scan(&found); err != nil {
		return exception(codeNetwork, fmt.Sprintf("the engine does not answer: %v", err))
	}
	if found == 0 {
		return exception(codeUnknownDatabase, "Database "+h.database+" does not exist")
	}
	return nil
}

// hello is the first packet of a client.
type hello struct {
	database, user, password string
	// bytes are the hello for the engine, whose only user is default without a password.
	bytes []byte
}

// readHello reads a hello and nothing behind it.
func readHello(in *bufio.Reader) (*hello, error) {
	h := &hello{}
	number := func() uint64 {
		var v uint64
		for shift := 0; shift < 64; shift += 7 {
			b, err := in.ReadByte()
			if err != nil {
				return 1<<64 - 1
			}
			h.bytes = append(h.bytes, b)
			v |= uint64(b&0x7f) << shift
			if b < 0x80 {
				return v
			}
		}
		return 1<<64 - 1
	}
	text := func() (string, error) {
		n := number()
		if n > maxHelloText {
			return "", errors.New("no hello of ClickHouse's native protocol")
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return "", err
		}
		h.bytes = append(h.bytes, b...)
		return string(b), nil
	}
	if number() != packetHello {
		return nil, errors.New("no hello of ClickHouse's native protocol")
	}
	if _, err := text(); err != nil { // the client's name
		return nil, err
	}
	for range 3 { // its version, and that of the protocol
		if number() > 1<<32 {
			return nil, errors.New("no hello of ClickHouse's native protocol")
		}
	}
	var err error
	if h.database, err = text(); err != nil {
		return nil, err
	}
	own := append(slices.Clip(h.bytes), "\adefault\x00"...)
	if h.user, err = text(); err != nil {
		return nil, err
	}
	if h.password, err = text(); err != nil {
		return nil, err
	}
	h.bytes = own
	return h, nil
}

// exception is the packet by which a server tells an error.
func exception(code int32, message string) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{packetException}, uint32(code))
	for _, text := range []string{"DB::Exception", "DB::Exception: " + message, ""} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return append(b, 0) // no nested one
}

// startFront listens on address and serves in the background. Its end ends the process: nobody could reach the engine any more.
func startFront(address, engine string, user frontUser, certFile, keyFile string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for ClickHouse's native protocol: %w", err)
	}
	f := &front{listener: listener, engine: engine, user: user}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return fmt.Errorf("read the certificate of ClickHouse's native protocol: %w", err)
		}
		f.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	}
	go func() {
		if err := f.serve(); err != nil {
			fmt.Fprintf(os.Stderr, "signindiag: %v\n", err)
			os.Exit(1)
		}
	}()
	return nil
}
