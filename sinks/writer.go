package sinks

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/prometheus/client_golang/prometheus"

	chschema "github.com/signindiag/signindiag/schemas/clickhouse"
	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// Defaults of a writer. A block of 50 000 rows a second is what ClickHouse's documents ask for
// (https://clickhouse.com/docs/optimize/bulk-inserts: 10 000 to 100 000 rows, about one INSERT a second).
const (
	defaultMaxRows       = 50_000
	defaultMaxBytes      = 64 << 20
	defaultMaxDelay      = time.Second
	defaultInsertTimeout = 60 * time.Second
	defaultDrainTimeout  = 10 * time.Second
)

// Waits between attempts: doubled from the shortest to the longest, each varied by half, so that processes
// that lost the same server do not come back together.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
	// minBackoffParts is the shortest wait when merges cannot keep up (code 252): seconds, since another part
	// makes it worse.
	minBackoffParts = 2 * time.Second
	// minBackoffConfiguration is the shortest wait where a person has to act.
	minBackoffConfiguration = time.Second
)

// logInterval is the shortest time between two lines about the same trouble.
const logInterval = 30 * time.Second

// maxErrorText bounds what is kept of a server's error text, in bytes.
const maxErrorText = 500

// maxRefusedUnproven is how many rows of one part may be refused with none accepted before the table
// rather than the rows is taken to be at fault.
const maxRefusedUnproven = 32

// ErrStopped says that a writer takes nothing more because its Run has ended or is ending.
var ErrStopped = errors.New("the ClickHouse writer has stopped")

// block is what a writer fills and inserts.
type block interface {
	// empty reports whether there is nothing to write, not even a position.
	empty() bool
	rows() int
	size() int
	// parts appends what is to be inserted, in order.
	parts(dst []part) []part
	reset()
}

// part is one INSERT: rows of one table and one of its partitions.
type part struct {
	table     table
	partition string
}

// connection is what is used of ch.Client.
type connection interface {
	Do(ctx context.Context, q ch.Query) error
	Close() error
}

type writerConfig struct {
	server        Server
	name          string // value of the metric label writer
	topic         string // entities topic, names the source of refused rows
	maxRows       int
	maxBytes      int
	maxDelay      time.Duration
	insertTimeout time.Duration
	drainTimeout  time.Duration
	logger        *slog.Logger
	registerer    prometheus.Registerer
}

func (c writerConfig) withDefaults() writerConfig {
	c.server = c.server.withDefaults()
	if c.maxRows <= 0 {
		c.maxRows = defaultMaxRows
	}
	if c.maxBytes <= 0 {
		c.maxBytes = defaultMaxBytes
	}
	if c.maxDelay <= 0 {
		c.maxDelay = defaultMaxDelay
	}
	if c.insertTimeout <= 0 {
		c.insertTimeout = defaultInsertTimeout
	}
	if c.drainTimeout <= 0 {
		c.drainTimeout = defaultDrainTimeout
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// writer fills one block while it inserts the one before. Any goroutine may fill (acquire, append to the
// block, release); run inserts. Its memory is bounded by the two blocks.
type writer[B block] struct {
	cfg     writerConfig
	process string // names this process in deduplication tokens
	metrics *metrics
	// committed is called after everything of a block is acknowledged; an error means that ctx has ended.
	committed func(ctx context.Context, b B, token string) error
	// greet, which may be nil, looks at what a new connection leads to before anything is inserted there. A *WentBackError ends run.
	greet func(ctx context.Context, conn connection) error
	dial  func(ctx context.Context, address string) (connection, error)
	// compression of what is sent to an address.
	compression func(address string) ch.Compression

	mu           sync.Mutex
	filling      B
	spare        B
	spareFree    bool      // spare is empty and not being inserted
	sequence     uint64    // of the block that is filling, from 1
	acknowledged uint64    // sequence of the newest block that is in ClickHouse
	flushTo      uint64    // blocks up to here are wanted at once
	since        time.Time // first write to filling; zero when it is empty
	sendingSince time.Time // the same of the block being inserted
	full         bool
	started      bool
	closing      bool
	stopped      bool
	changed      chan struct{} // closed on every change of the above, made by those who wait

	wake    chan struct{} // there may be a block to insert
	failing atomic.Pointer[failure]

	// Below only run's goroutine.
	conn        connection
	nextAddress int
	queries     map[string]string
	input       proto.Input
	todo        []part
	logged      time.Time
	loggedCode  int
}

// failure is the trouble that a writer is in.
type failure struct {
	since    time.Time
	attempts int
	table    string
	code     int
	class    class
	text     string
}

func newWriter[B block](cfg writerConfig, a, b B) (*writer[B], error) {
	cfg = cfg.withDefaults()
	if err := cfg.server.validate(); err != nil {
		return nil, err
	}
	if err := (chschema.Options{Database: cfg.server.Database, Cluster: cfg.server.Cluster}).Validate(); err != nil {
		return nil, err
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make an id for deduplication tokens: %w", err)
	}
	w := &writer[B]{
		cfg:       cfg,
		process:   hex.EncodeToString(id[:]),
		filling:   a,
		spare:     b,
		spareFree: true,
		sequence:  1,
		wake:      make(chan struct{}, 1),
		queries:   make(map[string]string),
	}
	w.dial, w.compression = w.dialServer, compressionFor
	m, err := newMetrics(cfg.registerer, cfg.name, w.oldestAge)
	if err != nil {
		return nil, fmt.Errorf("register metrics of the ClickHouse writer %s: %w", cfg.name, err)
	}
	w.metrics = m
	return w, nil
}

// acquire returns the block to fill with w.mu held; release must follow. It blocks while both blocks are
// full, until ctx ends or the writer stops.
func (w *writer[B]) acquire(ctx context.Context) (B, error) {
	w.mu.Lock()
	if w.full && !w.closing {
		blocked := time.Now()
		for w.full && !w.closing {
			if err := w.wait(ctx); err != nil {
				w.mu.Unlock()
				w.metrics.blocked.Add(time.Since(blocked).Seconds())
				var none B
				return none, fmt.Errorf("wait for ClickHouse to take rows: %w", err)
			}
		}
		w.metrics.blocked.Add(time.Since(blocked).Seconds())
	}
	if w.closing {
		w.mu.Unlock()
		var none B
		return none, ErrStopped
	}
	return w.filling, nil
}

// release ends what acquire began.
func (w *writer[B]) release() {
	first := w.since.IsZero() && !w.filling.empty()
	if first {
		w.since = time.Now()
	}
	w.full = w.filling.rows() >= w.cfg.maxRows || w.filling.size() >= w.cfg.maxBytes
	wake := first || w.full
	w.mu.Unlock()
	if wake {
		w.wakeUp()
	}
}

func (w *writer[B]) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wait releases w.mu until something changes or ctx ends, and takes it again.
func (w *writer[B]) wait(ctx context.Context) error {
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	changed := w.changed
	w.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.mu.Lock()
	return err
}

// broadcast wakes all who wait; w.mu is held.
func (w *writer[B]) broadcast() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// flush returns when everything that was written before the call is acknowledged.
func (w *writer[B]) flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	target := w.sequence
	if w.filling.empty() {
		target--
	}
	if w.acknowledged >= target {
		return nil
	}
	w.flushTo = max(w.flushTo, target)
	w.wakeUp()
	for w.acknowledged < target {
		if w.stopped {
			return fmt.Errorf("flush: %w", ErrStopped)
		}
		if err := w.wait(ctx); err != nil {
			return fmt.Errorf("wait for ClickHouse to acknowledge rows: %w", err)
		}
	}
	return nil
}

// ready says why nothing can be written now, or nil.
func (w *writer[B]) ready() error {
	w.mu.Lock()
	running := w.started && !w.closing
	w.mu.Unlock()
	if !running {
		return fmt.Errorf("the ClickHouse writer %s is not running", w.cfg.name)
	}
	f := w.failing.Load()
	if f == nil {
		return nil
	}
	return fmt.Errorf("ClickHouse has not taken rows of %s since %s, %d attempts (%s error, code %s)%s: %s",
		f.table, f.since.UTC().Format(time.RFC3339), f.attempts, f.class, codeLabel(f.code), remedy(f.code), f.text)
}

// oldestAge is how long the oldest row that is not acknowledged has waited.
func (w *writer[B]) oldestAge() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.sendingSince.IsZero():
		return time.Since(w.sendingSince)
	case !w.since.IsZero():
		return time.Since(w.since)
	}
	return 0
}

// run inserts blocks until ctx ends, and then what is left, for at most the drain timeout.
func (w *writer[B]) run(ctx context.Context) error {
	w.mu.Lock()
	if w.started {
		w.mu.Unlock()
		return fmt.Errorf("the ClickHouse writer %s was started twice", w.cfg.name)
	}
	w.started = true
	w.mu.Unlock()

	// An INSERT under way outlives ctx by the time that is given to drain.
	inserting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		w.mu.Lock()
		w.closing = true
		w.broadcast()
		w.mu.Unlock()
		w.wakeUp()
		t := time.NewTimer(w.cfg.drainTimeout)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-inserting.Done():
		}
	})
	defer func() {
		cancel()
		if !stop() {
			<-drained
		}
		w.disconnect()
		w.mu.Lock()
		w.closing, w.stopped = true, true
		w.broadcast()
		w.mu.Unlock()
	}()

	if err := w.connectFirst(inserting, ctx); err != nil {
		return w.unfinished(err)
	}
	for {
		b, sequence, ok := w.next()
		if !ok {
			return nil
		}
		if err := w.insert(inserting, b, sequence); err != nil {
			return w.unfinished(err)
		}
		w.done(b, sequence)
	}
}

// connectFirst makes the first connection, so that Ready tells of a server that is not there before there
// is a row to write. It gives up without an error when ctx ends and nothing waits to be written.
func (w *writer[B]) connectFirst(inserting, ctx context.Context) error {
	for {
		_, err := w.connection(inserting)
		if err == nil {
			w.recovered()
			return nil
		}
		c, code := classify(err)
		w.metrics.errors.WithLabelValues(codeLabel(code), c.String()).Inc()
		delay := w.failed("any table", c, code, err)
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil // the loop drains, with attempts of its own
		}
	}
}

func (w *writer[B]) unfinished(cause error) error {
	w.mu.Lock()
	rows := w.filling.rows()
	if !w.spareFree {
		// The block that was being inserted is not given back.
		rows = -1
	}
	w.mu.Unlock()
	text := "rows that were being inserted"
	if rows >= 0 {
		text = strconv.Itoa(rows) + " rows"
	}
	if f := w.failing.Load(); f != nil {
		return fmt.Errorf("stop the ClickHouse writer %s: %s are not acknowledged and will be written again at the next start (last error: %s): %w", w.cfg.name, text, f.text, cause)
	}
	return fmt.Errorf("stop the ClickHouse writer %s: %s are not acknowledged and will be written again at the next start: %w", w.cfg.name, text, cause)
}

// next waits for a block that is due and takes it; false means that the writer is closing and all is written.
func (w *writer[B]) next() (B, uint64, bool) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		var delay time.Duration
		if w.filling.empty() {
			if w.closing {
				w.mu.Unlock()
				var none B
				return none, 0, false
			}
			delay = time.Hour
		} else {
			delay = w.cfg.maxDelay - time.Since(w.since)
			if w.full || w.closing || w.flushTo >= w.sequence || delay <= 0 {
				b, sequence := w.filling, w.sequence
				w.filling, w.spare, w.spareFree = w.spare, b, false
				w.sequence++
				w.sendingSince, w.since = w.since, time.Time{}
				w.full = false
				w.broadcast()
				w.mu.Unlock()
				return b, sequence, true
			}
		}
		w.mu.Unlock()
		timer.Reset(delay)
		select {
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// done gives a block back that is in ClickHouse.
func (w *writer[B]) done(b B, sequence uint64) {
	b.reset()
	w.mu.Lock()
	w.spareFree = true
	w.acknowledged = sequence
	w.sendingSince = time.Time{}
	w.broadcast()
	w.mu.Unlock()
}

// insert writes a block, part by part, for ever if need be; an error means that ctx has ended.
func (w *writer[B]) insert(ctx context.Context, b B, sequence uint64) error {
	token := w.process + "/" + strconv.FormatUint(sequence, 10)
	w.todo = b.parts(w.todo[:0])
	for _, p := range w.todo {
		if err := w.insertPart(ctx, p, token); err != nil {
			return err
		}
		crashpoint.At(crashpoint.PartInserted)
	}
	clear(w.todo)
	w.metrics.blocks.Inc()
	if w.committed == nil {
		return nil
	}
	return w.committed(ctx, b, token)
}

// rowRange is rows [lo, hi) of a part.
type rowRange struct{ lo, hi int }

// insertPart writes one part. Every range of rows keeps its token however often it is sent, so the server
// stores it once. A range that the server refuses for its content is halved until the bad rows are found;
// they go to quarantine when the rest is stored.
func (w *writer[B]) insertPart(ctx context.Context, p part, token string) error {
	token += "/" + p.table.name() + "/" + p.partition
	whole := rowRange{0, p.table.rows()}
	if whole.hi == 0 {
		return nil
	}
	work := []rowRange{whole}
	accepted := 0
	var refused []refusedRange
	for len(work) > 0 {
		r := work[len(work)-1]
		err := w.attempt(ctx, p, r, whole, token)
		c, code := classDone, codeNetwork
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var wentBack *WentBackError
			if errors.As(err, &wentBack) {
				return err
			}
			c, code = classify(err)
			w.metrics.errors.WithLabelValues(codeLabel(code), c.String()).Inc()
		}
		switch {
		case c == classDone:
			work = work[:len(work)-1]
			accepted += r.hi - r.lo
			w.recovered()
			continue
		case c == classData && p.table.name() == quarantineName:
			// There is no place left to put such a record.
			c = classConfiguration
		case c == classData && r.hi-r.lo > 1:
			work = halve(work)
			continue
		case c == classData && code != codeViolatedConstraint && accepted == 0 && len(refused) >= maxRefusedUnproven:
			// No row was ever good: not the rows, the table is at fault. Begin again with all of them.
			work, refused = append(work[:0], whole), nil
			c = classConfiguration
		case c == classData:
			work = work[:len(work)-1]
			refused = append(refused, refusedRange{r.lo, err})
			continue
		case c == classMemory && r.hi-r.lo > 1:
			work = halve(work)
		}
		w.metrics.retries.Inc()
		if err := sleep(ctx, w.failed(p.table.name(), c, code, err)); err != nil {
			return err
		}
	}
	w.metrics.rows.WithLabelValues(p.table.name()).Add(float64(accepted))
	if len(refused) == 0 {
		return nil
	}
	return w.quarantineRows(ctx, p, refused, token)
}

// refusedRange is one row that the server refused, and why.
type refusedRange struct {
	row int
	err error
}

// halve replaces the last range by its two halves, the first of them on top.
func halve(work []rowRange) []rowRange {
	r := work[len(work)-1]
	mid := r.lo + (r.hi-r.lo)/2
	return append(work[:len(work)-1], rowRange{mid, r.hi}, rowRange{r.lo, mid})
}

// quarantineRows puts refused rows into the table quarantine.
func (w *writer[B]) quarantineRows(ctx context.Context, p part, refused []refusedRange, token string) error {
	q := newRecordBlock(newQuarantineTable, weekOfMillis)
	now := time.Now().UnixMilli()
	for _, r := range refused {
		rec := p.table.quarantined(r.row, w.cfg.topic)
		rec.Error = errorText(r.err)
		t := q.table(rec.ReceivedTime)
		t.put(&rec, now)
	}
	for _, part := range q.parts(nil) {
		if err := w.insertPart(ctx, part, token); err != nil {
			return err
		}
	}
	w.metrics.quarantined.WithLabelValues(p.table.name()).Add(float64(len(refused)))
	w.cfg.logger.Warn("ClickHouse refused rows, they are in quarantine", "table", p.table.name(), "partition", p.partition,
		"rows", len(refused), "of", p.table.rows(), "error", errorText(refused[0].err))
	return nil
}

// attempt sends one range of rows once.
func (w *writer[B]) attempt(ctx context.Context, p part, r, whole rowRange, token string) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.insertTimeout)
	defer cancel()
	conn, err := w.connection(ctx)
	if err != nil {
		return err
	}
	if r != whole {
		token += "/" + strconv.Itoa(r.lo) + "-" + strconv.Itoa(r.hi)
	}
	w.input = p.table.input(w.input[:0], r.lo, r.hi)
	name := p.table.name()
	body, ok := w.queries[name]
	if !ok {
		body = "INSERT INTO " + chschema.QualifiedName(w.cfg.server.Database, name) + " " + w.input.Columns() + " VALUES"
		w.queries[name] = body
	}
	// ch-go looks at ctx between packets only; closing the connection ends any read at once.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	began := time.Now()
	err = conn.Do(ctx, ch.Query{Body: body, Input: w.input, Settings: w.insertSettings(token)})
	clear(w.input)
	if !stop() || err != nil {
		w.disconnect()
	}
	if err != nil {
		return fmt.Errorf("insert %d rows into %s, partition %s: %w", r.hi-r.lo, name, p.partition, err)
	}
	w.metrics.insertSeconds.WithLabelValues(name).Observe(time.Since(began).Seconds())
	w.metrics.insertRows.WithLabelValues(name).Observe(float64(r.hi - r.lo))
	return nil
}

// insertSettings are the settings of one INSERT. Those that an older server may not know are not marked as
// important, so that it passes over them.
func (w *writer[B]) insertSettings(token string) []ch.Setting {
	s := []ch.Setting{
		{Key: "insert_deduplication_token", Value: token, Important: true},
		{Key: "insert_deduplicate", Value: "1", Important: true},
		{Key: "deduplicate_insert", Value: "enable"},
		// A retry after a crash between a table and its views completes the views.
		{Key: "deduplicate_blocks_in_dependent_materialized_views", Value: "1", Important: true},
		// With it the server would cut blocks of its own, under tokens of its own.
		{Key: "async_insert", Value: "0", Important: true},
		// A block holds a key once, so merging it with itself before it is written finds nothing.
		{Key: "optimize_on_insert", Value: "0", Important: true},
		{Key: "max_execution_time", Value: strconv.Itoa(int(max(w.cfg.insertTimeout.Seconds(), 1))), Important: true},
	}
	if w.cfg.server.Cluster != "" {
		s = append(s, ch.Setting{Key: "insert_quorum", Value: "auto", Important: true})
	}
	return s
}

// connection returns the connection, and makes one where there is none, trying the addresses in turn.
func (w *writer[B]) connection(ctx context.Context) (connection, error) {
	if w.conn != nil {
		return w.conn, nil
	}
	var err error
	for range w.cfg.server.Address {
		address := w.cfg.server.Address[w.nextAddress%len(w.cfg.server.Address)]
		var conn connection
		if conn, err = w.dial(ctx, address); err == nil {
			if w.greet == nil {
				w.conn = conn
				return conn, nil
			}
			// As in attempt: closing ends a read at once.
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			err = w.greet(ctx, conn)
			if stop() && err == nil {
				w.conn = conn
				return conn, nil
			}
			_ = conn.Close() // it is thrown away
			if err == nil {
				err = context.Cause(ctx)
			}
		} else {
			err = explainConnect(err, w.cfg.server, address)
		}
		w.nextAddress++
	}
	return nil, err
}

func (w *writer[B]) disconnect() {
	if w.conn != nil {
		_ = w.conn.Close() // it is thrown away, whatever its state
		w.conn = nil
		w.nextAddress++
	}
}

func (w *writer[B]) dialServer(ctx context.Context, address string) (connection, error) {
	s := w.cfg.server
	return ch.Dial(ctx, ch.Options{
		Address:          address,
		Database:         systemDatabase, // INSERTs name theirs, and it may not exist yet
		User:             s.Username,
		Password:         s.Password,
		Compression:      w.compression(address),
		ClientName:       "signindiag",
		TLS:              s.TLS,
		Dialer:           &net.Dialer{Timeout: s.DialTimeout},
		DialTimeout:      s.DialTimeout,
		HandshakeTimeout: s.DialTimeout,
	})
}

// compressionFor returns LZ4, and none on loopback, where packing and unpacking on the same cores costs more than the bytes.
func compressionFor(address string) ch.Compression {
	host, _, err := net.SplitHostPort(address)
	if err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback()) {
		return ch.CompressionDisabled
	}
	return ch.CompressionLZ4
}

// failed records that an attempt failed and returns how long to wait before the next one.
func (w *writer[B]) failed(table string, c class, code int, err error) time.Duration {
	now := time.Now()
	f := failure{since: now}
	if old := w.failing.Load(); old != nil {
		f = *old
	}
	f.attempts++
	f.table, f.class, f.code, f.text = table, c, code, errorText(err)
	w.failing.Store(&f)

	delay := maxBackoff
	if f.attempts <= 8 {
		delay = min(minBackoff<<(f.attempts-1), maxBackoff)
	}
	switch {
	case code == codeTooManyParts:
		delay = max(delay, minBackoffParts)
	case c == classConfiguration:
		delay = max(delay, minBackoffConfiguration)
	}
	delay = time.Duration(float64(delay) * (0.5 + mathrand.Float64()))

	if code != w.loggedCode || now.Sub(w.logged) >= logInterval {
		w.logged, w.loggedCode = now, code
		level := slog.LevelWarn
		if c == classConfiguration {
			level = slog.LevelError
		}
		w.cfg.logger.Log(context.Background(), level, "ClickHouse does not take rows; no position moves until it does",
			"writer", w.cfg.name, "table", table, "class", c.String(), "code", codeLabel(code), "attempts", f.attempts,
			"since", f.since.UTC().Format(time.RFC3339), "retry_in", delay.Round(time.Millisecond).String(), "error", f.text+remedy(code))
	}
	return delay
}

// recovered records that an attempt succeeded.
func (w *writer[B]) recovered() {
	f := w.failing.Load()
	if f == nil {
		return
	}
	w.failing.Store(nil)
	w.logged, w.loggedCode = time.Time{}, 0
	w.cfg.logger.Info("ClickHouse takes rows again", "writer", w.cfg.name, "table", f.table, "attempts", f.attempts,
		"after", time.Since(f.since).Round(time.Millisecond).String())
}

// remedy says what helps against an error that a person has to mend.
func remedy(code int) string {
	switch code {
	case codeUnknownTable, codeUnknownDatabase, codeNoSuchColumnInTable, codeUnknownIdentifier:
		return ", run signindiag migrate"
	case codeAccessDenied, codeDatabaseAccessDenied, codeReadonly:
		return ", grant INSERT and SELECT on the database"
	case codeTableReadonly:
		return ", make the table writable again (setting table_readonly)"
	case codeNotEnoughSpace:
		return ", make room on the server's disk"
	}
	return ""
}

// errorText is an error in one bounded line.
func errorText(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + " ..."
	}
	return text
}

// sleep waits for d or the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
