package integration

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/signindiag/signindiag/integration/program"
)

// backlog is how many records come while ClickHouse is away. TestOutage has more of them than the two blocks of 50 000 rows that a
// sink keeps.
const backlog = 10_000

// maxRSS bounds the memory of a process with 4 shards while ClickHouse is away, MiB. Three writers have two blocks of up to
// 64 MiB each, and the collector lets as much again stand.
const maxRSS = 1200

// TestClickHouseAway: whatever keeps ClickHouse from taking rows, reading stops, memory stays bounded, log, metrics and /readyz tell, and
// it goes on by itself with nothing lost and nothing twice.
func TestClickHouseAway(t *testing.T) {
	for _, c := range []struct {
		name string
		// prepare comes before the servers run; it may skip.
		prepare func(t *testing.T, p *plant)
		// take takes ClickHouse away, give brings it back.
		take, give func(p *plant)
		ready      string // what /readyz says meanwhile
		code       string // label of signindiag_sink_insert_errors_total
	}{
		{
			name: "killed",
			take: func(p *plant) { p.killEngine() }, give: func(p *plant) { p.startEngine() },
			ready: `ClickHouse has not taken rows of \w+ since .* attempts .*nothing answers there: check the address`, code: "network",
		},
		{
			name: "hangs",
			take: func(p *plant) { p.signalEngine(syscall.SIGSTOP) }, give: func(p *plant) { p.signalEngine(syscall.SIGCONT) },
			ready: `ClickHouse has not taken rows of \w+ since .*`, code: "network",
		},
		{
			name: "read-only",
			take: func(p *plant) { p.readOnly(1) }, give: func(p *plant) { p.readOnly(0) },
			ready: `code 774\), make the table writable again`, code: "774",
		},
		{
			name: "disk full",
			prepare: func(t *testing.T, p *plant) {
				mountSmall(t, p.engineDir(), "900m")
			},
			take:  func(p *plant) { fill(p.t, filepath.Join(p.engineDir(), "filler")) },
			give:  func(p *plant) { remove(p.t, filepath.Join(p.engineDir(), "filler")) },
			ready: `code 243\), make room on the server's disk`, code: "243",
		},
		{
			name: "wrong password",
			prepare: func(t *testing.T, p *plant) {
				p.proxy = newProxy(t, p.clickHouseAddress)
				p.clickHouseAddress = p.proxy.address
			},
			take: func(p *plant) { p.proxy.set(refusePassword) }, give: func(p *plant) { p.proxy.set(pass) },
			ready: `user "default" was refused: check the user name and the password \(code 516\)`, code: "516",
		},
		{
			name: "gone quiet",
			prepare: func(t *testing.T, p *plant) {
				p.proxy = newProxy(t, p.clickHouseAddress)
				p.clickHouseAddress = p.proxy.address
			},
			// Connections stay, nothing comes back any more.
			take: func(p *plant) { p.proxy.set(hold) }, give: func(p *plant) { p.proxy.set(pass) },
			ready: `ClickHouse has not taken rows of \w+ since .*`, code: "network",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlant(t)
			if c.prepare != nil {
				c.prepare(t, p)
			}
			p.startEngine()
			i := p.run()
			p.send(1000)
			p.exact(i)
			before, _ := i.Memory()
			lines := len(i.Lines(""))

			c.take(p)
			began := time.Now()
			for sent := 0; sent < backlog; sent += 1000 {
				p.send(1000)
			}
			var said string
			i.Until("/readyz to tell", func() bool {
				status, body := get(t, i.API()+"/readyz")
				said = body
				return status == http.StatusServiceUnavailable && regexp.MustCompile(c.ready).MatchString(body)
			})
			t.Logf("/readyz: %s", said)
			if i.Metric("signindiag_ready", "") != 0 {
				t.Error("signindiag_ready is not 0")
			}
			i.Until("the metrics to tell", func() bool {
				return i.Metric("signindiag_sink_insert_errors_total", `code="`+c.code+`"`) > 0 && i.Metric("signindiag_sink_oldest_unacknowledged_seconds", "") > 1
			})
			now, most := i.Memory()
			t.Logf("memory %d MiB before, %d MiB after %s without ClickHouse and %d records, %d MiB at most", before, now, time.Since(began).Round(time.Second), backlog, most)
			if most > maxRSS {
				t.Errorf("%d MiB of memory, the bound is %d", most, maxRSS)
			}
			told := i.Lines(`ClickHouse does not take rows; no position moves until it does`)
			t.Logf("%d lines of log, %d of them tell of ClickHouse, the first:\n%s", len(i.Lines(""))-lines, len(told), first(told))
			// Three writers, a line of each in half a minute, another one when the trouble changes.
			if n := int(time.Since(began)/(30*time.Second)) + 1; len(told) == 0 || len(told) > 3*n+6 {
				t.Errorf("%d lines tell of ClickHouse in %s", len(told), time.Since(began))
			}
			// Each lost poison record is one warning of a batch; beside those it is quiet.
			if n := len(i.Lines("")) - lines - len(i.Lines("records went to quarantine")); n > 40 {
				t.Errorf("%d lines of log", n)
			}

			c.give(p)
			back := time.Now()
			p.exact(i)
			t.Logf("caught up %s after ClickHouse came back", time.Since(back).Round(time.Millisecond))
			i.Until("readiness", func() bool { status, _ := get(t, i.API()+"/readyz"); return status == http.StatusOK })
			if len(i.Lines(`ClickHouse takes rows again`)) == 0 {
				t.Error("the log does not tell that ClickHouse is back")
			}
			i.Stop()
		})
	}
}

// TestClickHouseAwayAtStart: signindiag starts without ClickHouse, says so, and begins when it is there.
func TestClickHouseAwayAtStart(t *testing.T) {
	p := newPlant(t)
	p.send(1000)
	i := p.run()
	var said string
	i.Until("/readyz to tell", func() bool {
		status, body := get(t, i.API()+"/readyz")
		said = body
		return status == http.StatusServiceUnavailable && regexp.MustCompile(`the tables are not ready, nothing is read before they are: .*nothing answers there`).MatchString(body)
	})
	t.Logf("/readyz: %s", said)
	if status, body := get(t, i.API()+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	if n := len(i.Lines("waiting for ClickHouse")); n != 1 {
		t.Errorf("%d lines tell of ClickHouse, want 1", n)
	}
	// A stop ends the wait.
	i.Stop()
	i = p.run()
	i.WaitFor("waiting for ClickHouse")
	p.startEngine()
	p.exact(i)
	i.Stop()
}

// TestClickHouseKilledMidInsert kills ClickHouse again and again while rows stream in.
func TestClickHouseKilledMidInsert(t *testing.T) {
	p := newPlant(t)
	p.startEngine()
	i := p.run()
	p.send(100)
	p.exact(i)
	stop := p.feed(2000)
	for range 4 {
		count := i.Metric("signindiag_sink_rows_total", "")
		i.Until("rows", func() bool { return i.Metric("signindiag_sink_rows_total", "") > count+1000 })
		p.killEngine()
		p.startEngine()
	}
	stop()
	p.exact(i)
	i.Stop()
}

// TestClickHouseRestored puts ClickHouse back to an earlier copy of its data.
func TestClickHouseRestored(t *testing.T) {
	copyData := func(t *testing.T, from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("copy ClickHouse's data: %v\n%s", err, out)
		}
	}
	begin := func(t *testing.T) (p *plant, backup string) {
		p = newPlant(t)
		p.startEngine()
		i := p.run()
		p.send(3000)
		p.exact(i)
		i.Stop()
		p.stopEngine()
		backup = filepath.Join(p.dir, "backup")
		copyData(t, p.engineDir(), backup)
		p.startEngine()
		return p, backup
	}
	restore := func(t *testing.T, p *plant, backup string) {
		t.Helper()
		if p.engine.Load() != nil {
			p.stopEngine()
		}
		if err := os.RemoveAll(p.engineDir()); err != nil {
			t.Fatal(err)
		}
		copyData(t, backup, p.engineDir())
		p.startEngine()
	}
	diagnoses := func(t *testing.T, p *plant, i *program.Process) {
		t.Helper()
		i.Until("all diagnoses", func() bool {
			n, err := query[uint64](p, "SELECT count() FROM signindiag.diagnoses FINAL")
			return err == nil && n >= uint64(p.sent.Load())
		})
	}
	// rereadRaw is the documented way to get raw records and quarantine back as well: without a stored offset the raw topic is read from
	// its first record, and the shards drop the repeats.
	rereadRaw := func(t *testing.T, p *plant) {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(p.kafkaAddress))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		request := kmsg.NewPtrDeleteGroupsRequest()
		request.Groups = []string{"signindiag.router." + plantEntities}
		response, err := request.RequestWith(t.Context(), client)
		if err != nil || response.Groups[0].ErrorCode != 0 {
			t.Fatalf("delete the router's group: %v, %+v", err, response)
		}
	}

	t.Run("while signindiag is stopped", func(t *testing.T) {
		p, backup := begin(t)
		i := p.run()
		p.send(3000)
		p.exact(i)
		i.Stop()
		restore(t, p, backup)
		i = p.run()
		diagnoses(t, p, i)
		if n, err := query[uint64](p, "SELECT count() FROM signindiag.raw_records FINAL"); err != nil || n != 3000 {
			t.Errorf("%d raw records, %v: they are not made again by a start alone, want 3000", n, err)
		}
		i.Stop()
		rereadRaw(t, p)
		i = p.run()
		p.exact(i)
		i.Stop()
	})

	t.Run("while signindiag runs", func(t *testing.T) {
		p, backup := begin(t)
		i := p.run()
		p.send(3000)
		p.exact(i)
		p.killEngine()
		p.send(500)
		restore(t, p, backup)
		if code, killed := i.Ended(); code != 1 || killed {
			t.Errorf("exit code %d, want 1: it must not write over the gap", code)
		}
		if told := i.Lines("it was restored from a backup or lost its newest rows"); len(told) == 0 {
			t.Error("the log does not tell why it ended")
		} else {
			t.Log(told[len(told)-1])
		}
		// What supervises it starts it again.
		i = p.run()
		diagnoses(t, p, i)
		i.Stop()
		rereadRaw(t, p)
		i = p.run()
		p.exact(i)
		i.Stop()
	})

	t.Run("tables older than progress", func(t *testing.T) {
		p, _ := begin(t)
		i := p.run()
		p.send(3000)
		p.exact(i)
		i.Stop()
		// The tables of rows come from an older backup than progress does.
		p.exec("ALTER TABLE signindiag.diagnoses DELETE WHERE request_id LIKE '%5' SETTINGS mutations_sync = 2")
		i = p.run()
		p.send(10)
		i.Until("new rows", func() bool {
			n, err := query[uint64](p, "SELECT count() FROM signindiag.diagnoses WHERE request_id IN (SELECT request_id FROM signindiag.raw_records) AND revision > 0")
			return err == nil && n > 0 && n < uint64(p.sent.Load())
		})
		i.Stop()
		if n, err := query[uint64](p, "SELECT count() FROM signindiag.diagnoses FINAL"); err != nil || n >= uint64(p.sent.Load()) {
			t.Errorf("%d rows, %v: this cannot heal by itself", n, err)
		}
		// The documented way on: without progress all that the log holds is written again, as the same rows.
		p.exec("TRUNCATE TABLE signindiag.progress")
		i = p.run()
		p.exact(i)
		i.Stop()
	})
}

func first(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

func (p *plant) signalEngine(s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(p.engine.Load().PID(), s); err != nil {
		p.t.Fatal(err)
	}
}

// readOnly makes the tables refuse rows, or take them again.
func (p *plant) readOnly(value int) {
	p.t.Helper()
	for _, table := range []string{"diagnoses", "raw_records"} {
		p.exec(fmt.Sprintf("ALTER TABLE signindiag.%s MODIFY SETTING table_readonly = %d", table, value))
	}
}

// mountSmall mounts a memory file system of that size at a directory, or skips.
func mountSmall(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("skipped: a small file system cannot be mounted here (it takes root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fill writes a file until its disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size >= 512; {
		if _, err := file.Write(block[:size]); err != nil {
			size /= 2
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// What a proxy does with its connections.
const (
	pass int32 = iota
	// hold keeps connections and passes nothing on.
	hold
	// refusePassword ends connections and answers new ones as a ClickHouse server answers a wrong password.
	refusePassword
)

// proxy passes connections on to a server, or does otherwise.
type proxy struct {
	address, target string
	mode            atomic.Int32
	mu              sync.Mutex
	changed         chan struct{}
	conns           map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String(), target: target, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		p.cut()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) set(mode int32) {
	p.mode.Store(mode)
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if mode == refusePassword {
		p.cut()
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) keep(c net.Conn, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if keep {
		p.conns[c] = true
	} else {
		delete(p.conns, c)
	}
}

// gate waits while nothing passes.
func (p *proxy) gate() {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if p.mode.Load() != hold {
			return
		}
		<-changed
	}
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	p.keep(c, true)
	defer p.keep(c, false)
	if p.mode.Load() == refusePassword {
		buffer := make([]byte, 4096)
		if _, err := c.Read(buffer); err != nil {
			return
		}
		_, _ = c.Write(passwordRefusal())
		_, _ = io.Copy(io.Discard, c)
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.keep(server, true)
	defer p.keep(server, false)
	pump := func(dst, src net.Conn, done chan struct{}) {
		defer close(done)
		buffer := make([]byte, 64<<10)
		for {
			n, err := src.Read(buffer)
			p.gate()
			if n > 0 {
				if _, err := dst.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	up, down := make(chan struct{}), make(chan struct{})
	go pump(server, c, up)
	go pump(c, server, down)
	select {
	case <-up:
	case <-down:
	}
}

// passwordRefusal is an exception packet of the native protocol: kind 2, code, name, message, stack, no further one.
func passwordRefusal() []byte {
	b := []byte{2}
	b = binary.LittleEndian.AppendUint32(b, 516)
	for _, s := range []string{"DB::Exception", "DB::Exception: default: Authentication failed: password is incorrect, or there is no user with such name.", ""} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return append(b, 0)
}
