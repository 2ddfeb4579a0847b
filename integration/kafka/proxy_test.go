package kafka

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between clients and one broker.
type proxy struct {
	t        *testing.T
	listener net.Listener
	target   string
	accepted atomic.Int64
	// swallow is asked for every answer to a request of a client; true leaves the answer out and cuts the connection. May be nil.
	swallow func(client string, api int16) bool

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// listen takes a free port; serve has to follow.
func listen(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			c.Close()
		}
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// serve passes connections on to the target.
func (p *proxy) serve(target string) {
	p.target = target
	go func() {
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			go p.pass(client)
		}
	}()
}

func (p *proxy) pass(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	cut := sync.OnceFunc(func() {
		client.Close()
		server.Close()
		p.mu.Lock()
		delete(p.conns, client)
		delete(p.conns, server)
		p.mu.Unlock()
	})
	defer cut()
	if p.swallow == nil {
		go func() {
			defer cut()
			_, _ = io.Copy(server, client)
		}()
		_, _ = io.Copy(client, server)
		return
	}
	// Answers come in the order of their requests.
	type asked struct {
		client string
		api    int16
	}
	requests := make(chan asked, 10_000)
	go func() {
		defer cut()
		frames(server, client, func(frame []byte) bool {
			if length := int(int16(binary.BigEndian.Uint16(frame[8:]))); length >= 0 && 10+length <= len(frame) {
				requests <- asked{string(frame[10 : 10+length]), int16(binary.BigEndian.Uint16(frame))}
			} else {
				requests <- asked{"", int16(binary.BigEndian.Uint16(frame))}
			}
			return true
		})
	}()
	frames(client, server, func([]byte) bool {
		r := <-requests
		return !p.swallow(r.client, r.api)
	})
}

// frames copies whole messages of Kafka's protocol that pass, until either side ends or one does not.
func frames(to, from net.Conn, pass func(frame []byte) bool) {
	var head [4]byte
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		if !pass(frame) {
			return
		}
		if _, err := to.Write(append(head[:], frame...)); err != nil {
			return
		}
	}
}
