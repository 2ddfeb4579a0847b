package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/signindiag/signindiag/integration/program"
)

// containerGrace is what container runtimes give between SIGTERM and SIGKILL, and what a stop may take.
const containerGrace = 30 * time.Second

// TestStopIsBounded: SIGTERM ends signindiag with exit code 0 and in time when what it works with hangs, and a second signal ends it
// at once. Servers hang by SIGSTOP: their kernel goes on to accept connections and to acknowledge bytes.
func TestStopIsBounded(t *testing.T) {
	p := newPlant(t)
	p.startEngine()
	for _, c := range []struct {
		name   string
		broker bool // hangs
		engine bool
		start  bool // they hang from the start on
		twice  bool
		says   string
	}{
		{name: "nothing hangs"},
		{name: "Kafka hangs", broker: true, says: "raw offsets are not committed; the next start repeats some records"},
		{name: "ClickHouse hangs", engine: true, says: "rows are not stored; they are made again at the next start|not everything is stored; the next start repeats it"},
		{name: "both hang", broker: true, engine: true, says: "the next start repeats"},
		{name: "Kafka hangs at the start", broker: true, start: true},
		{name: "ClickHouse hangs at the start", engine: true, start: true},
		{name: "a second signal", engine: true, broker: true, twice: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(p.forgetMembers)
			hang := func() {
				if c.engine {
					p.signalEngine(syscall.SIGSTOP)
				}
				if c.broker {
					if err := p.broker.Signal(syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				}
				t.Cleanup(func() {
					if c.engine {
						p.signalEngine(syscall.SIGCONT)
					}
					if c.broker {
						_ = p.broker.Signal(syscall.SIGCONT)
					}
				})
			}
			var i *program.Process
			if c.start {
				hang()
				i = p.run()
				i.API()
				time.Sleep(2 * time.Second) // it is in the middle of its first questions
			} else {
				i = p.run()
				stop := p.feed(1000)
				count := i.Metric("signindiag_sink_rows_total", "")
				i.Until("rows", func() bool { return i.Metric("signindiag_sink_rows_total", "") > count+1000 })
				if c.broker {
					stop() // a producer would wait too
				}
				hang()
				time.Sleep(3 * time.Second) // rows wait for ClickHouse, batches for Kafka
				if !c.broker {
					defer stop()
				}
			}
			began := time.Now()
			i.Signal(syscall.SIGTERM)
			if c.twice {
				time.Sleep(500 * time.Millisecond)
				i.Signal(syscall.SIGTERM)
				if _, killed := i.Ended(); !killed {
					t.Error("the second SIGTERM did not end it at once")
				}
				return
			}
			code, killed := i.Ended()
			took := time.Since(began)
			t.Logf("ended after %s", took.Round(time.Millisecond))
			if code != 0 || killed {
				t.Errorf("exit code %d, killed %v", code, killed)
			}
			// The one bound on time in these tests: it is what the container runtime holds it to.
			if took > containerGrace {
				t.Errorf("it took %s, %s are given", took, containerGrace)
			}
			if c.says != "" && len(i.Lines(c.says)) == 0 {
				t.Errorf("the log does not tell what is repeated:\n%s", i.Text())
			}
		})
	}
	i := p.run()
	p.exact(i)
	i.Stop()
}
