package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/sinks"
)

func exception(code int, name string) error {
	return &ch.Exception{Code: proto.Error(code), Name: name, Message: "made by a test"}
}

// TestLostAcknowledgement: every INSERT reaches the server, but its answer is lost at first. The repeats carry
// the same token, so that nothing is stored twice, in no table and behind no view.
func TestLostAcknowledgement(t *testing.T) {
	e := newEnvironment(t)
	tables := []string{"diagnoses", "diagnoses_by_user", "request_ids", "incident_members", "incident_members_by_incident"}
	e.stopMerges(tables...)
	cfg := e.config()
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	s := e.sink(cfg)
	attempts := make(map[string]int)
	s.Interpose(func(i sinks.Insert, send func() error) error {
		attempts[i.Token]++
		if err := send(); err != nil {
			return err
		}
		if attempts[i.Token] <= 2 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	stop := e.start(s)
	r := rand.New(rand.NewPCG(4, 4))
	const n = 1000
	for i := range int64(n) {
		d := diagnosis(r, i)
		e.write(s, &detectors.Rows{
			Diagnoses: []detectors.Diagnosis{d},
			Members:   []detectors.IncidentMember{{IncidentID: "i", TenantID: d.TenantID, RequestID: d.RequestID, CorrelationID: d.CorrelationID, EventTime: d.EventTime, Revision: d.Revision}},
		}, position(uint16(i%4), i))
	}
	e.flush(s)
	stop()
	for _, table := range tables {
		if got := e.stored(table); got != n {
			t.Errorf("%s: %d stored rows, want %d", table, got, n)
		}
	}
	for token, n := range attempts {
		if n != 3 {
			t.Errorf("token %s: %d attempts, want 3", token, n)
		}
	}
	if got := counter(t, registry, "signindiag_sink_insert_errors_total"); got != float64(2*len(attempts)) {
		t.Errorf("insert_errors_total %v, want %d", got, 2*len(attempts))
	}
	if got := counter(t, registry, "signindiag_sink_rows_total"); got < 2*n {
		t.Errorf("rows_total %v, want at least %d", got, 2*n)
	}
}

// counter sums a counter over its labels.
func counter(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
			return sum
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestMetricNames(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	registry := prometheus.NewPedanticRegistry()
	cfg.Registerer = registry
	s := e.sink(cfg)
	e.start(s)
	e.write(s, rowsOf(diagnosis(rand.New(rand.NewPCG(5, 5)), 1)), position(0, 1))
	e.flush(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 || len(families) < 7 {
		t.Errorf("%d metrics: %v, %v", len(families), problems, err)
	}
	if _, err := sinks.NewSink(cfg); err == nil {
		t.Error("a second Sink with the same registerer: no error")
	}
}

// TestReplay: a process dies between the rows and their progress; the next one emits the rows again, under
// other tokens. They are shown once.
func TestReplay(t *testing.T) {
	e := newEnvironment(t)
	e.stopMerges("diagnoses", "diagnoses_by_user")
	cfg := e.config()
	cfg.DrainTimeout = time.Millisecond
	s := e.sink(cfg)
	dead := make(chan struct{})
	var once sync.Once
	s.Interpose(func(i sinks.Insert, send func() error) error {
		if i.Table == "progress" {
			once.Do(func() { close(dead) })
			return errors.New("the process is gone")
		}
		return send()
	})
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	const n = 2000
	emit := func(s *sinks.Sink) {
		r := rand.New(rand.NewPCG(6, 6))
		for i := range int64(n) {
			e.write(s, rowsOf(diagnosis(r, i)), position(0, i))
		}
	}
	emit(s)
	<-dead
	cancel()
	if err := <-done; err == nil {
		t.Error("Run that could not write its progress: no error")
	}
	if len(e.progress()) != 0 {
		t.Fatalf("progress %v before it was written", e.progress())
	}
	before := e.stored("diagnoses")
	if before == 0 {
		t.Fatal("no row arrived before the crash")
	}

	next := e.sink(e.config())
	e.start(next)
	emit(next)
	e.flush(next)
	for _, table := range []string{"diagnoses", "diagnoses_by_user", "request_ids"} {
		if got := e.count(table); got != n {
			t.Errorf("%s: %d rows, want %d", table, got, n)
		}
	}
	if got := e.stored("diagnoses"); got != before+n {
		t.Errorf("%d stored rows, want %d and %d: the repeats were not repeats", got, before, n)
	}
	if got := e.progress()[0].Offset; got != n-1 {
		t.Errorf("progress at %d, want %d", got, n-1)
	}
}

// TestViewFails: the table takes a block, a view behind it cannot. The same block under the same token then
// completes the view and adds nothing to the table.
func TestViewFails(t *testing.T) {
	e := newEnvironment(t)
	e.stopMerges("diagnoses", "diagnoses_by_user", "request_ids")
	e.exec("RENAME TABLE " + e.database + ".request_ids TO " + e.database + ".away")
	s := e.sink(e.config())
	e.start(s)
	const n = 300
	r := rand.New(rand.NewPCG(7, 7))
	for i := range int64(n) {
		e.write(s, rowsOf(diagnosis(r, i)), position(0, i))
	}
	waitFor(t, func() bool { err := s.Ready(); return err != nil && strings.Contains(err.Error(), "code 60") })
	if len(e.progress()) != 0 {
		t.Errorf("progress moved to %v while rows were refused", e.progress())
	}
	e.exec("RENAME TABLE " + e.database + ".away TO " + e.database + ".request_ids")
	e.flush(s)
	if err := s.Ready(); err != nil {
		t.Errorf("Ready after recovery: %v", err)
	}
	for _, table := range []string{"diagnoses", "diagnoses_by_user", "request_ids"} {
		if got := e.count(table); got != n {
			t.Errorf("%s: %d rows, want %d", table, got, n)
		}
		if got := e.stored(table); got != n {
			t.Errorf("%s: %d stored rows, want %d", table, got, n)
		}
	}
}

// waitFor polls until f holds; the limit only ends a test that would never end.
func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(deadline); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("waited in vain")
		}
	}
}

// TestPoisonRows: rows that the table's constraint refuses are found among good ones, go to quarantine
// with their content and the reason, and everything else arrives.
func TestPoisonRows(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxDelay = time.Hour
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	s := e.sink(cfg)
	e.start(s)
	r := rand.New(rand.NewPCG(8, 8))
	const n = 3000
	bad := map[int64]int64{0: -1, 1000: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), 1001: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), n - 1: -62_135_596_800_000_000}
	for i := range int64(n) {
		d := diagnosis(r, i)
		if at, ok := bad[i]; ok {
			d.EventTime = at
			d.User = "poison" + strconv.FormatInt(i, 10)
		}
		e.write(s, rowsOf(d), position(3, i))
	}
	// A bad row between good ones of the same week: the constraint is narrowed for that.
	e.exec("ALTER TABLE " + e.database + ".diagnoses ADD CONSTRAINT no_poison CHECK user != 'user0042@contoso.example'")
	e.flush(s)
	refused := query[uint64](e, "SELECT count() FROM "+e.database+".quarantine FINAL")
	if stored := e.count("diagnoses"); stored+refused != n || refused < uint64(len(bad)) {
		t.Errorf("%d rows and %d refused, want %d in all, at least %d refused", stored, refused, n, len(bad))
	}
	if got := query[uint64](e, "SELECT count() FROM "+e.database+".diagnoses FINAL WHERE user = 'user0042@contoso.example'"); got != 0 {
		t.Errorf("%d bad rows arrived", got)
	}
	for offset := range bad {
		got := query[string](e, "SELECT concat(source_topic, ' ', toString(source_partition), ' ', stage, ' ', JSONExtractString(bytes, 'user'), ' ', toString(position(error, 'onstraint') > 0)) FROM "+e.database+".quarantine FINAL WHERE source_offset = ?", offset)
		if want := fmt.Sprintf("%s 3 sink diagnoses poison%d 1", topic, offset); got != want {
			t.Errorf("quarantine of offset %d: got %q, want %q", offset, got, want)
		}
	}
	if got := counter(t, registry, "signindiag_sink_quarantined_total"); got != float64(refused) {
		t.Errorf("quarantined_total %v, want %d", got, refused)
	}
	if got := e.progress()[3].Offset; got != n-1 {
		t.Errorf("progress at %d, want %d", got, n-1)
	}
}

// TestTableAtFault: a server that refuses every single row for its content is taken to have a wrong table,
// not a thousand wrong rows: nothing goes to quarantine, and all arrives when it is mended.
func TestTableAtFault(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxDelay = time.Hour
	s := e.sink(cfg)
	var mended atomic.Bool
	s.Interpose(func(i sinks.Insert, send func() error) error {
		if i.Table == "diagnoses" && !mended.Load() {
			return exception(117, "DB::Exception")
		}
		return send()
	})
	e.start(s)
	r := rand.New(rand.NewPCG(9, 9))
	const n = 500
	for i := range int64(n) {
		e.write(s, rowsOf(diagnosis(r, i)), position(0, i))
	}
	flushed := make(chan error, 1)
	go func() { flushed <- s.Flush(e.ctx) }()
	waitFor(t, func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "configuration error, code 117")
	})
	mended.Store(true)
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	if got, q := e.count("diagnoses"), e.count("quarantine"); got != n || q != 0 {
		t.Errorf("%d rows and %d in quarantine, want %d and 0", got, q, n)
	}
}

// TestOutOfMemory: a server that cannot take a whole block gets halves of it.
func TestOutOfMemory(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxDelay = time.Hour
	s := e.sink(cfg)
	tokens := make(map[string]int)
	s.Interpose(func(i sinks.Insert, send func() error) error {
		if i.Rows > 300 {
			return exception(241, "DB::Exception")
		}
		tokens[i.Token]++
		return send()
	})
	stop := e.start(s)
	r := rand.New(rand.NewPCG(10, 10))
	const n = 1000
	for i := range int64(n) {
		e.write(s, rowsOf(diagnosis(r, i)), position(0, i))
	}
	e.flush(s)
	stop()
	if got := e.count("diagnoses"); got != n {
		t.Errorf("%d rows, want %d", got, n)
	}
	if len(tokens) != 5 { // four quarters and progress
		t.Errorf("%d INSERTs went through, want 5: %v", len(tokens), tokens)
	}
}

// TestBackPressure: without a server, Write takes two blocks and then waits; nothing is lost when the server
// is there.
func TestBackPressure(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxRows, cfg.MaxDelay = 100, time.Hour
	s := e.sink(cfg)
	var open atomic.Bool
	s.Interpose(func(i sinks.Insert, send func() error) error {
		if !open.Load() {
			return syscall.ECONNREFUSED
		}
		return send()
	})
	e.start(s)
	const n, writers = 1000, 4
	var written atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(11, uint64(w)))
			for i := range int64(n / writers) {
				if err := s.Write(e.ctx, rowsOf(diagnosis(r, i)), position(uint16(w), i)); err != nil {
					t.Error(err)
					return
				}
				written.Add(1)
			}
		})
	}
	waitFor(t, func() bool { return written.Load() == 200 && s.Ready() != nil })
	short, cancel := context.WithTimeout(e.ctx, 50*time.Millisecond)
	defer cancel()
	if err := s.Write(short, nil, position(0, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Write with both blocks full: %v, want a deadline", err)
	}
	if err := s.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush without a server: %v, want a deadline", err)
	}
	if got := written.Load(); got != 200 {
		t.Errorf("%d rows were taken, want 200: two blocks", got)
	}
	open.Store(true)
	wg.Wait()
	e.flush(s)
	if got := e.count("diagnoses"); got != n {
		t.Errorf("%d rows, want %d", got, n)
	}
	for w := range uint16(writers) {
		if got := e.progress()[w].Offset; got != n/writers-1 {
			t.Errorf("progress of shard %d at %d, want %d", w, got, n/writers-1)
		}
	}
}

// TestBytesBoundABlock: large rows end a block before their number does.
func TestBytesBoundABlock(t *testing.T) {
	e := newEnvironment(t)
	cfg := e.config()
	cfg.MaxBytes, cfg.MaxDelay = 100_000, time.Hour
	s := e.sink(cfg)
	largest := 0
	s.Interpose(func(i sinks.Insert, send func() error) error {
		largest = max(largest, i.Rows)
		return send()
	})
	stop := e.start(s)
	r := rand.New(rand.NewPCG(12, 12))
	for i := range int64(100) {
		d := diagnosis(r, i)
		d.Evidence.SetText(keyPolicy, strings.Repeat("p", 10_000))
		e.write(s, rowsOf(d), position(0, i))
	}
	e.flush(s)
	stop()
	if got := e.count("diagnoses"); got != 100 || largest > 10 {
		t.Errorf("%d rows in INSERTs of up to %d, want 100 in INSERTs of up to 10", got, largest)
	}
}

// TestDrainIsBounded: without a server Run ends after its drain timeout and says what is missing.
func TestDrainIsBounded(t *testing.T) {
	s, err := sinks.NewSink(sinks.Config{
		Server: sinks.Server{Address: []string{fmt.Sprintf("127.0.0.1:%d", freePort(t))}, Password: "correct horse"}, DrainTimeout: 50 * time.Millisecond, EntitiesTopic: topic,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := s.Write(ctx, rowsOf(diagnosis(rand.New(rand.NewPCG(13, 13)), 1)), position(0, 1)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Ready() != nil && strings.Contains(s.Ready().Error(), "nothing answers there") })
	flushed := make(chan error, 1)
	go func() { flushed <- s.Flush(context.Background()) }()
	cancel()
	err = <-done
	if err == nil || !strings.Contains(err.Error(), "not acknowledged") || !strings.Contains(err.Error(), "nothing answers there") {
		t.Errorf("Run: %v", err)
	}
	if err := <-flushed; !errors.Is(err, sinks.ErrStopped) {
		t.Errorf("Flush: %v, want ErrStopped", err)
	}
	if err := s.Run(context.Background()); err == nil {
		t.Error("a second Run: no error")
	}
}

// TestEngineKilled kills the engine while rows stream in, several times, and checks that every row is there
// once.
func TestEngineKilled(t *testing.T) {
	library := embeddedtest.Library(t)
	dir := filepath.Join(t.TempDir(), "clickhouse")
	port := freePort(t)
	begin := func() *embedded.ClickHouse {
		engine, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{DataDir: dir, TCPPort: port, Library: library, IgnoreInstalled: true, MemoryLimit: 2 << 30})
		if err != nil {
			t.Fatal(err)
		}
		return engine
	}
	engine := begin()
	e := migrated(t, sinks.Server{Address: []string{engine.Address()}, Database: "signindiag"})
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := e.config()
	cfg.MaxRows, cfg.MaxDelay = 500, 5*time.Millisecond
	var durable atomic.Int64
	cfg.OnDurable = func(p []sinks.Position) { durable.Store(p[0].Offset) }
	s := e.sink(cfg)
	stop := e.start(s)
	const n = 24_000
	wrote := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(14, 14))
		for i := range int64(n) {
			if err := s.Write(e.ctx, rowsOf(diagnosis(r, i)), position(0, i)); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	for kill := range int64(3) {
		waitFor(t, func() bool { return durable.Load() > (kill+1)*n/6 })
		if err := syscall.Kill(engine.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-engine.Done()
		acknowledged := durable.Load()
		_ = engine.Close() // it was killed
		engine = begin()
		// What was acknowledged before the kill is there after it.
		if got := e.progress()[0].Offset; got < acknowledged {
			t.Errorf("kill %d: progress at %d, %d was acknowledged", kill+1, got, acknowledged)
		}
		if got := query[uint64](e, "SELECT count() FROM "+e.database+".diagnoses FINAL WHERE revision <= ?", detectors.Revision(1, acknowledged)); got != uint64(acknowledged+1) {
			t.Errorf("kill %d: %d rows up to offset %d", kill+1, got, acknowledged)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	e.flush(s)
	stop()
	for _, table := range []string{"diagnoses", "diagnoses_by_user", "request_ids"} {
		if got := e.count(table); got != n {
			t.Errorf("%s: %d rows, want %d", table, got, n)
		}
	}
	if got := query[uint64](e, "SELECT uniqExact(revision) FROM "+e.database+".diagnoses"); got != n {
		t.Errorf("%d distinct offsets, want %d", got, n)
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err   error
		class string
	}{
		{io.EOF, "retriable"}, {syscall.ECONNRESET, "retriable"}, {context.DeadlineExceeded, "retriable"},
		{exception(3, ""), "retriable"}, {exception(159, ""), "retriable"}, {exception(202, ""), "retriable"}, {exception(203, ""), "retriable"},
		{exception(209, ""), "retriable"}, {exception(210, ""), "retriable"}, {exception(242, ""), "retriable"}, {exception(252, ""), "retriable"},
		{exception(279, ""), "retriable"}, {exception(285, ""), "retriable"}, {exception(286, ""), "retriable"}, {exception(319, ""), "retriable"},
		{exception(394, ""), "retriable"}, {exception(425, ""), "retriable"}, {exception(473, ""), "retriable"}, {exception(999, ""), "retriable"},
		{exception(12345, ""), "retriable"},
		{exception(241, ""), "memory"}, {exception(389, ""), "done"},
		{exception(16, ""), "configuration"}, {exception(60, ""), "configuration"}, {exception(81, ""), "configuration"}, {exception(164, ""), "configuration"},
		{exception(516, ""), "configuration"}, {exception(243, ""), "configuration"}, {exception(497, ""), "configuration"}, {exception(774, ""), "configuration"}, {exception(53, ""), "configuration"},
		{exception(6, ""), "data"}, {exception(27, ""), "data"}, {exception(38, ""), "data"}, {exception(69, ""), "data"},
		{exception(117, ""), "data"}, {exception(131, ""), "data"}, {exception(469, ""), "data"},
		{fmt.Errorf("insert: %w", exception(469, "")), "data"},
		{sinks.ExplainConnect(exception(516, ""), sinks.Server{}, "a:9000"), "configuration"},
		{sinks.ExplainConnect(exception(81, ""), sinks.Server{}, "a:9000"), "configuration"},
		{sinks.ExplainConnect(exception(999, ""), sinks.Server{}, "a:9000"), "retriable"},
		{sinks.ExplainConnect(syscall.ECONNREFUSED, sinks.Server{}, "a:9000"), "retriable"},
	} {
		if class, code := sinks.Classify(c.err); class != c.class {
			t.Errorf("%v (code %d): class %s, want %s", c.err, code, class, c.class)
		}
	}
}
