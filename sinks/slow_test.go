package sinks_test

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSlowAnswers: the answers of ClickHouse come after the INSERT's time is over, so nobody knows whether it took the rows. They are sent
// again until an answer comes in time, and stand there once.
func TestSlowAnswers(t *testing.T) {
	e := newEnvironment(t)
	e.stopMerges("diagnoses", "diagnoses_by_user")
	var slow atomic.Bool
	address := slowProxy(t, e.server.Address[0], &slow)
	cfg := e.config()
	cfg.Address, cfg.InsertTimeout = []string{address}, 4*time.Second
	s := e.sink(cfg)
	stop := e.start(s)
	r := rand.New(rand.NewPCG(16, 16))
	const n = 600
	for i := range int64(n) {
		if i == n/3 {
			e.flush(s)
			slow.Store(true)
		}
		e.write(s, rowsOf(diagnosis(r, i)), position(0, i))
	}
	waitFor(t, func() bool { return s.Ready() != nil })
	// The rows are there, but nobody has been told: the position stays.
	waitFor(t, func() bool { return e.count("diagnoses") > n/3 })
	if got := e.progress()[0].Offset; got != n/3-1 {
		t.Errorf("progress at %d, %d is acknowledged", got, n/3-1)
	}
	slow.Store(false)
	e.flush(s)
	stop()
	for _, table := range []string{"diagnoses", "diagnoses_by_user"} {
		if got := e.stored(table); got != n {
			t.Errorf("%s: %d stored rows, want %d", table, got, n)
		}
	}
	if got := e.progress()[0].Offset; got != n-1 {
		t.Errorf("progress at %d, want %d", got, n-1)
	}
}

// slowProxy passes what a client says on at once, and, while slow is set, what the server answers to INSERTs not at all before six
// seconds are over. The handshake, which comes first, is not held up.
func slowProxy(t *testing.T, target string, slow *atomic.Bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	serve := func(client net.Conn) {
		defer client.Close()
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		var asked atomic.Int64
		serving.Go(func() {
			// What the client has asked is done to its end, as behind a slow network; the embedded engine aborts when the connection
			// of a query is cut.
			defer func() {
				time.Sleep(5 * time.Second)
				server.Close()
			}()
			buffer := make([]byte, 64<<10)
			for {
				n, err := client.Read(buffer)
				asked.Add(int64(n))
				if _, failed := server.Write(buffer[:n]); err != nil || failed != nil {
					return
				}
			}
		})
		buffer := make([]byte, 64<<10)
		gone := false
		for {
			n, err := server.Read(buffer)
			if err != nil {
				return
			}
			// A handshake and the head of an INSERT are some 3 KiB, rows are more.
			if slow.Load() && asked.Load() > 8<<10 {
				time.Sleep(6 * time.Second)
			}
			if !gone {
				_, err = client.Write(buffer[:n])
				gone = err != nil
			}
		}
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	return l.Addr().String()
}
