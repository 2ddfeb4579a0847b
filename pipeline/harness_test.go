package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// knowledge is the catalogue of all tests.
var knowledge = func() *catalogue.Catalogue {
	c, err := catalogue.Load()
	if err != nil {
		panic(err)
	}
	return c
}()

// seed is the seed of a test's randomness, printed so that a failure can be had again with
// SIGNINDIAG_TEST_SEED.
func seed(t testing.TB) uint64 {
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("SIGNINDIAG_TEST_SEED"); v != "" {
		if _, err := fmt.Sscan(v, &s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SIGNINDIAG_TEST_SEED=%d", s)
	return s
}

func broker(t testing.TB, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return net.Listen("tcp4", "127.0.0.1:0") }),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func openKafka(t testing.TB, c *kfake.Cluster) *Kafka {
	t.Helper()
	k, err := OpenKafka(KafkaConfig{Brokers: c.ListenAddrs(), RequestTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func ensure(t testing.TB, k *Kafka, name string, partitions int) {
	t.Helper()
	if _, err := k.EnsureTopic(t.Context(), TopicConfig{Name: name, Partitions: partitions, Replicas: 1, Retention: 200 * time.Hour}); err != nil {
		t.Fatal(err)
	}
}

func logger(t testing.TB) *slog.Logger {
	if os.Getenv("SIGNINDIAG_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// deleteRecords deletes a partition's records below the offset.
func deleteRecords(t testing.TB, c *kfake.Cluster, topic string, partition int32, offset int64) {
	t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rt.Partitions = append(rt.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: partition, Offset: offset})
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
	resp := request(t, c, topic, partition, req).(*kmsg.DeleteRecordsResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}

// deleteTopic deletes a topic.
func deleteTopic(t testing.TB, c *kfake.Cluster, topic string) {
	t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.SetVersion(3)
	req.TopicNames, req.TimeoutMillis = []string{topic}, 5000
	resp := request(t, c, topic, 0, req).(*kmsg.DeleteTopicsResponse)
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}

// request sends one request to the partition's leader in the protocol's own words.
func request(t testing.TB, c *kfake.Cluster, topic string, partition int32, req kmsg.Request) kmsg.Response {
	t.Helper()
	leader := c.LeaderFor(topic, partition)
	conn, err := net.Dial("tcp", c.ListenAddrs()[max(leader, 0)])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if req.Key() != 20 {
		req.SetVersion(0)
	}
	b := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	return resp
}

// switchboard makes network connections that can all be cut for good, as the death of a process does.
type switchboard struct {
	mu    sync.Mutex
	dead  bool
	conns map[net.Conn]bool
	// before and after see every request by API key; when they return true the process dies before the request
	// is sent, or after it was sent and before its answer is read.
	before, after func(api int16) bool
	onDeath       func()
	// gate holds a channel while the process is paused.
	gate atomic.Pointer[chan struct{}]
}

// pause holds everything that the process sends and receives, and its inserts, until the function that it returns is called.
func (s *switchboard) pause() (wake func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	return sync.OnceFunc(func() {
		s.gate.Store(nil)
		close(gate)
	})
}

// wait returns when the process is not paused, and whether it was.
func (s *switchboard) wait() (paused bool) {
	for gate := s.gate.Load(); gate != nil; gate = s.gate.Load() {
		<-*gate
		paused = true
	}
	return paused
}

func (s *switchboard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	dead := s.dead
	s.mu.Unlock()
	if dead {
		return nil, errors.New("the process is dead")
	}
	s.wait()
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		c.Close()
		return nil, errors.New("the process is dead")
	}
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	s.conns[c] = true
	return &cutConn{Conn: c, board: s}, nil
}

// kill cuts everything. It may be called several times.
func (s *switchboard) kill() {
	s.mu.Lock()
	first := !s.dead
	s.dead = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	if first && s.onDeath != nil {
		s.onDeath()
	}
}

type cutConn struct {
	net.Conn
	board *switchboard
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.board.wait()
	return n, err
}

// Write sees whole requests: both kafka-go and leaderConn begin a request with a write of its own.
func (c *cutConn) Write(p []byte) (int, error) {
	api := int16(-1)
	if len(p) >= 8 {
		api = int16(binary.BigEndian.Uint16(p[4:]))
	}
	if c.board.before != nil && c.board.before(api) {
		c.board.kill()
	}
	if c.board.wait() {
		// What a paused process was about to send goes out when it wakes, however late.
		if err := c.SetWriteDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Write(p)
	if err == nil && c.board.after != nil && c.board.after(api) {
		time.Sleep(time.Millisecond) // let the broker have it
		c.board.kill()
	}
	return n, err
}

// unknownCode is the code that a tally does not know.
const unknownCode = 999999

// tally is a state machine with the properties of the real one that the pipeline leans on: it drops repeats by
// source, counts per user, and emits a row per record and one revision per user and record.
type tally struct {
	epoch       uint16
	fingerprint uint64
	fence       map[[2]uint64][2]int64
	users       map[string]int64
	repeats     int64
}

func newTally(fingerprint uint64) *tally {
	return &tally{fingerprint: fingerprint, fence: map[[2]uint64][2]int64{}, users: map[string]int64{}}
}

func (m *tally) SetEpoch(e uint16)   { m.epoch = e }
func (m *tally) Fingerprint() uint64 { return m.fingerprint }

func (m *tally) Apply(msg *schemas.EntityMessage, offset int64, out *detectors.Rows) {
	key := [2]uint64{msg.Source.Topic, uint64(msg.Source.Partition)}
	at := [2]int64{msg.Source.Offset, int64(msg.Source.Index)}
	if last, ok := m.fence[key]; ok && slices.Compare(at[:], last[:]) <= 0 {
		m.repeats++
		return
	}
	m.fence[key] = at
	if !schemas.RoleSet(msg.Roles).Has(schemas.Role_ROLE_USER) {
		return
	}
	user := strings.Clone(msg.SignIn.UserPrincipalName)
	m.users[user]++
	revision := detectors.Revision(m.epoch, offset)
	out.Diagnoses = append(out.Diagnoses, detectors.Diagnosis{
		RequestID: msg.SignIn.RequestId, CorrelationID: msg.SignIn.CorrelationId, TenantID: msg.SignIn.TenantId, User: user,
		ErrorCode: msg.SignIn.ErrorCode, EventTime: msg.SignIn.EventTime, ReceivedTime: msg.ReceivedMs, Revision: revision,
	})
	if msg.SignIn.ErrorCode == unknownCode {
		out.UnknownCodes = append(out.UnknownCodes, unknownCode)
	}
	out.Incidents = append(out.Incidents, detectors.Incident{IncidentID: user, Kind: fmt.Sprint(m.fingerprint), RequestIDsTotal: m.users[user], Revision: revision})
}

type tallyState struct {
	Fence [][4]int64
	Users map[string]int64
}

func (m *tally) AppendSnapshot(dst []byte) []byte {
	s := tallyState{Users: m.users}
	for k, v := range m.fence {
		s.Fence = append(s.Fence, [4]int64{int64(k[0]), int64(k[1]), v[0], v[1]})
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return append(dst, b...)
}

func (m *tally) RestoreSnapshot(src []byte) error {
	var s tallyState
	if err := json.Unmarshal(src, &s); err != nil {
		return err
	}
	m.fence, m.users = map[[2]uint64][2]int64{}, s.Users
	for _, f := range s.Fence {
		m.fence[[2]uint64{uint64(f[0]), uint64(f[1])}] = [2]int64{f[2], f[3]}
	}
	return nil
}

// tables are what outlives a process: the newest revision of every row, and progress.
type tables struct {
	mu          sync.Mutex
	diagnoses   map[string]detectors.Diagnosis
	incidents   map[string]detectors.Incident
	progress    map[uint16]sinks.Position
	quarantined map[sinks.Source]sinks.QuarantinedRecord
	raw         map[sinks.Source]sinks.RawRecord
	seen        map[string]string // every row by key and revision: its content must not differ
	conflicts   []string
	inserted    int
}

func newTables() *tables {
	return &tables{diagnoses: map[string]detectors.Diagnosis{}, incidents: map[string]detectors.Incident{}, progress: map[uint16]sinks.Position{},
		quarantined: map[sinks.Source]sinks.QuarantinedRecord{}, raw: map[sinks.Source]sinks.RawRecord{}, seen: map[string]string{}}
}

func (t *tables) insert(rows *detectors.Rows) {
	same := func(key string, revision uint64, content string) {
		key = fmt.Sprintf("%s@%d", key, revision)
		if before, ok := t.seen[key]; ok && before != content {
			t.conflicts = append(t.conflicts, fmt.Sprintf("%s: %s then %s", key, before, content))
		}
		t.seen[key] = content
	}
	for _, d := range rows.Diagnoses {
		t.inserted++
		same("diagnosis "+d.RequestID, d.Revision, fmt.Sprintf("%+v", d))
		if old, ok := t.diagnoses[d.RequestID]; !ok || old.Revision <= d.Revision {
			t.diagnoses[d.RequestID] = d
		}
	}
	for _, i := range rows.Incidents {
		same("incident "+i.IncidentID, i.Revision, fmt.Sprintf("%+v", i))
		if old, ok := t.incidents[i.IncidentID]; !ok || old.Revision <= i.Revision {
			t.incidents[i.IncidentID] = i
		}
	}
}

func (t *tables) readProgress(context.Context) (map[uint16]sinks.Position, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.progress), nil
}

func (t *tables) readPassedOver(_ context.Context, incarnation uint32, fingerprint uint64) (map[uint16][]int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[uint16][]int64{}
	for source, q := range t.quarantined {
		if q.Stage == sinks.StageEntities && q.Reason == sinks.ReasonPanic && source.Incarnation == incarnation && q.Fingerprint == fingerprint {
			all[uint16(source.Partition)] = append(all[uint16(source.Partition)], source.Offset)
		}
	}
	return all, nil
}

// memorySink is a RowSink over tables: rows wait in a block, become visible when it is inserted, and the positions after
// that. It can die at any of these moments.
type memorySink struct {
	tables  *tables
	durable func([]sinks.Position)
	mu      sync.Mutex
	dead    bool
	rows    detectors.Rows
	pos     map[uint16]sinks.Position
	// stuck holds the block back, as a database that is away does.
	stuck atomic.Bool
	// dieAfterRows is called between the insert of rows and of positions; true means death.
	dieAfterRows func() bool
	limit        int
	delay        func() time.Duration
	board        *switchboard
}

func newMemorySink(t *tables, durable func([]sinks.Position)) *memorySink {
	return &memorySink{tables: t, durable: durable, pos: map[uint16]sinks.Position{}, limit: 5000,
		delay: func() time.Duration { return time.Millisecond }}
}

var errDead = errors.New("the process is dead")

func (s *memorySink) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

func (s *memorySink) Write(ctx context.Context, rows *detectors.Rows, pos sinks.Position) error {
	for {
		s.mu.Lock()
		if s.dead {
			s.mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		}
		if len(s.rows.Diagnoses) < s.limit {
			break
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	defer s.mu.Unlock()
	if rows != nil {
		for i := range rows.Diagnoses {
			s.rows.Diagnoses = append(s.rows.Diagnoses, rows.Diagnoses[i].Clone())
		}
		for i := range rows.Incidents {
			s.rows.Incidents = append(s.rows.Incidents, rows.Incidents[i].Clone())
		}
	}
	s.pos[pos.Shard] = pos
	return nil
}

func (s *memorySink) insert() {
	if s.stuck.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || len(s.pos) == 0 {
		return
	}
	if s.board != nil {
		s.board.wait()
	}
	s.tables.mu.Lock()
	s.tables.insert(&s.rows)
	if s.dieAfterRows != nil && s.dieAfterRows() {
		s.dead = true
		s.tables.mu.Unlock()
		return
	}
	var moved []sinks.Position
	for shard, p := range s.pos {
		old, ok := s.tables.progress[shard]
		if !ok || detectors.Revision(old.Epoch, old.Offset) <= detectors.Revision(p.Epoch, p.Offset) {
			s.tables.progress[shard] = p
		}
		moved = append(moved, p)
	}
	s.tables.mu.Unlock()
	s.rows.Reset()
	clear(s.pos)
	s.durable(moved)
}

func (s *memorySink) Flush(ctx context.Context) error {
	for {
		s.insert()
		s.mu.Lock()
		dead, empty := s.dead, len(s.pos) == 0
		s.mu.Unlock()
		if dead {
			return errDead
		}
		if empty {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *memorySink) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			s.insert()
			return nil
		case <-time.After(s.delay()):
			s.insert()
		}
	}
}

func (s *memorySink) Ready() error { return nil }

// memoryRecords is a Quarantine and a RawStore.
type memoryRecords struct {
	tables *tables
	mu     sync.Mutex
	dead   bool
	bad    []sinks.QuarantinedRecord
	raw    []sinks.RawRecord
}

func (s *memoryRecords) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

func (s *memoryRecords) Put(ctx context.Context, records []sinks.QuarantinedRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		r.Bytes = bytes.Clone(r.Bytes)
		r.Error = strings.Clone(r.Error)
		s.bad = append(s.bad, r)
	}
	return nil
}

func (s *memoryRecords) putRaw(records []sinks.RawRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		r.Bytes = bytes.Clone(r.Bytes)
		r.RequestID, r.TenantID = strings.Clone(r.RequestID), strings.Clone(r.TenantID)
		s.raw = append(s.raw, r)
	}
}

func (s *memoryRecords) Flush(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	s.tables.mu.Lock()
	defer s.tables.mu.Unlock()
	for _, r := range s.bad {
		s.tables.quarantined[r.Source] = r
	}
	s.bad = nil
	return nil
}

func (s *memoryRecords) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (s *memoryRecords) Ready() error { return nil }

type memoryRaw struct{ *memoryRecords }

func (s memoryRaw) Put(_ context.Context, records []sinks.RawRecord) error {
	s.putRaw(records)
	return nil
}

func (s memoryRaw) Flush(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	s.tables.mu.Lock()
	defer s.tables.mu.Unlock()
	for _, r := range s.raw {
		s.tables.raw[r.Source] = r
	}
	s.memoryRecords.raw = nil
	return nil
}

// process is one run of a pipeline that can be stopped or killed.
type process struct {
	t        testing.TB
	board    *switchboard
	kafka    *Kafka
	store    *SnapshotStore
	sink     *memorySink
	records  *memoryRecords
	pipeline *Pipeline
	// fingerprint is that of the machines that are made next.
	fingerprint atomic.Uint64
	cancel      context.CancelFunc
	done        chan error
}

type world struct {
	cluster *kfake.Cluster
	tables  *tables
	dir     string
	config  Config
	// fingerprint of the machine, of a process when it starts; its own may be changed while it runs.
	fingerprint uint64
	// machine makes the state machines, where it is set.
	machine func() Machine
	// snapshots is where they are stored, a directory where it is empty.
	snapshots string
	log       *slog.Logger
}

func newWorld(t testing.TB, rawPartitions, partitions int) *world {
	w := &world{cluster: broker(t), tables: newTables(), dir: t.TempDir(), fingerprint: 1}
	w.config = Config{
		RawTopics: []RawTopic{{Name: "raw", Incarnation: 1}}, RawPartitions: rawPartitions,
		EntitiesTopic: "signindiag.entities.v1", Partitions: partitions, EntitiesIncarnation: 1, Replicas: 1, Compression: CodecLZ4,
		CommitInterval: 10 * time.Millisecond, SnapshotInterval: 20 * time.Millisecond, SnapshotRecords: 200, StopTimeout: 5 * time.Second, FetchBytes: 16 << 10,
	}
	return w
}

// start starts a process; tweak, which may be nil, sees it before it runs.
func (w *world) start(t testing.TB, tweak func(*process)) *process {
	t.Helper()
	p := &process{t: t, board: &switchboard{}, done: make(chan error, 1)}
	p.fingerprint.Store(w.fingerprint)
	var err error
	if p.kafka, err = OpenKafka(KafkaConfig{Brokers: w.cluster.ListenAddrs(), RequestTimeout: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	p.kafka.connect = p.board.dial
	if p.store, err = OpenSnapshots(t.Context(), cmp.Or(w.snapshots, "file://"+w.dir), logger(t)); err != nil {
		t.Fatal(err)
	}
	p.records = &memoryRecords{tables: w.tables}
	p.pipeline, err = New(w.config, Dependencies{
		Kafka: p.kafka,
		NewMachine: func(_, _ uint32) (Machine, error) {
			if w.machine != nil {
				return w.machine(), nil
			}
			return newTally(p.fingerprint.Load()), nil
		},
		Wanted: schemas.Roles(schemas.Role_ROLE_USER, schemas.Role_ROLE_ADDRESS), Catalogue: knowledge,
		NewSink: func(durable func([]sinks.Position)) (RowSink, error) {
			p.sink = newMemorySink(w.tables, durable)
			p.sink.board = p.board
			return p.sink, nil
		},
		Progress: w.tables.readProgress, PassedOver: w.tables.readPassedOver, Quarantine: p.records, RawStore: memoryRaw{p.records}, Snapshots: p.store, Logger: cmp.Or(w.log, logger(t)),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.board.onDeath = func() {
		p.sink.kill()
		p.records.kill()
		p.store.Close()
	}
	if tweak != nil {
		tweak(p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.cancel = cancel
	go func() { p.done <- p.pipeline.Run(ctx) }()
	return p
}

// stop stops gracefully.
func (p *process) stop() error {
	p.t.Helper()
	p.cancel()
	err := <-p.done
	p.kafka.Close()
	p.board.mu.Lock()
	dead := p.board.dead
	p.board.mu.Unlock()
	if !dead {
		if err := p.store.Close(); err != nil {
			p.t.Error(err)
		}
	}
	return err
}

// kill cuts the process off and takes its remains away.
func (p *process) kill() {
	p.t.Helper()
	p.board.kill()
	if err := p.stop(); err != nil {
		p.t.Logf("killed process: %v", err)
	}
}

// patience bounds what must come true; a healthy run needs a fraction of it.
const patience = 30 * time.Second

// eventually waits for a condition that must come true.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			t.Fatalf("%s: not in %s", what, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// signIn returns a made-up sign-in as Azure Monitor exports it.
func signIn(n int, user string) string {
	return fmt.Sprintf(`{"time":"2026-03-02T09:00:%02d.0000000Z","resourceId":"/tenants/3f1c2b7e-0000-4000-8000-00000000aaaa/providers/Microsoft.aadiam","operationName":"Sign-in activity",`+
		`"category":"SignInLogs","tenantId":"3f1c2b7e-0000-4000-8000-00000000aaaa","resultType":"%d","properties":{"id":"%08x-1111-4000-8000-%012x","createdDateTime":"2026-03-02T09:00:%02d+00:00",`+
		`"userPrincipalName":"%s","correlationId":"%08x-2222-4000-8000-%012x","appDisplayName":"Example App","ipAddress":"203.0.113.%d","status":{"errorCode":%d}}}`,
		n%60, []int{0, 50126}[n%2], n, n, n%60, user, n, n, n%250, []int{0, 50126}[n%2])
}

func requestID(n int) string { return fmt.Sprintf("%08x-1111-4000-8000-%012x", n, n) }

// produceRaw writes count sign-ins, numbered from first, in messages of one to three records, and now and then
// something else. It returns how many records each user has.
func produceRaw(t testing.TB, k *Kafka, rng *rand.Rand, first, count int) map[string]int64 {
	t.Helper()
	users := map[string]int64{}
	var values [][]byte
	for n := first; n < first+count; {
		var records []string
		for range 1 + rng.IntN(3) {
			if n == first+count {
				break
			}
			user := fmt.Sprintf("user%d@example.com", rng.IntN(40))
			users[user]++
			records = append(records, signIn(n, user))
			n++
		}
		switch rng.IntN(20) {
		case 0:
			records = append(records, `{"category":"AuditLogs","operationName":"Add user","properties":{"id":"a"}}`)
		case 1:
			records = append(records, `{"category":"SignInLogs","properties":{"id":`+fmt.Sprint(n)+`,}}`)
		}
		values = append(values, []byte(`{"records":[`+strings.Join(records, ",")+`]}`))
	}
	p, err := NewRawProducer(t.Context(), k, "raw", CodecLZ4, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for len(values) > 0 {
		n := min(len(values), 1+rng.IntN(60))
		refused, err := p.Send(t.Context(), values[:n])
		if err != nil || len(refused) > 0 {
			t.Fatal(err, refused)
		}
		values = values[n:]
	}
	return users
}

// check compares the tables with what a single thread would have counted.
func (w *world) check(t testing.TB, count int, users map[string]int64) {
	t.Helper()
	w.tables.mu.Lock()
	defer w.tables.mu.Unlock()
	for _, c := range w.tables.conflicts {
		t.Errorf("one row with two contents: %s", c)
	}
	lost := 0
	for n := range count {
		if d, ok := w.tables.diagnoses[requestID(n)]; !ok {
			lost++
		} else if d.ErrorCode != int32([]int{0, 50126}[n%2]) {
			t.Errorf("record %d has code %d", n, d.ErrorCode)
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d records are lost", lost, count)
	}
	if len(w.tables.diagnoses) != count {
		t.Errorf("%d records, want %d", len(w.tables.diagnoses), count)
	}
	for user, want := range users {
		if got := w.tables.incidents[user].RequestIDsTotal; got != want {
			t.Errorf("%s has %d records, want %d", user, got, want)
		}
	}
}

// checkSnapshots compares the state of every stored snapshot with that of the log up to its offset.
func (w *world) checkSnapshots(t testing.TB, k *Kafka) {
	t.Helper()
	store, err := OpenSnapshots(t.Context(), "file://"+w.dir, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for shard := range w.config.Partitions {
		names, err := store.List(t.Context(), w.config.EntitiesTopic, uint16(shard))
		if err != nil {
			t.Fatal(err)
		}
		machine := newTally(w.fingerprint)
		r := NewReader(k, ReaderConfig{Topic: w.config.EntitiesTopic, Partition: shard, Logger: logger(t)})
		defer r.Close()
		var left []Record
		slices.SortFunc(names, func(a, b SnapshotName) int { return int(a.Offset - b.Offset) })
		for _, n := range names {
			snap, err := store.Read(t.Context(), n)
			if err != nil {
				t.Error(err)
				continue
			}
			for at := int64(-1); at < n.Offset; {
				if len(left) == 0 {
					b, err := r.Next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					left = b.Records
					continue
				}
				if left[0].Offset > n.Offset {
					break
				}
				var msg schemas.EntityMessage
				if err := msg.UnmarshalVT(left[0].Value); err != nil {
					t.Fatal(err)
				}
				machine.Apply(&msg, left[0].Offset, &detectors.Rows{})
				if at = left[0].Offset; at == n.Offset && snap.Hash != hashRecord(left[0].Value) {
					t.Errorf("%s has the hash of another message", n.Key)
				}
				left = left[1:]
			}
			got := newTally(w.fingerprint)
			if err := got.RestoreSnapshot(snap.State); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got.users, machine.users) || !maps.Equal(got.fence, machine.fence) {
				t.Errorf("%s is not the state behind its offset", n.Key)
			}
		}
	}
}

func (w *world) rows() int {
	w.tables.mu.Lock()
	defer w.tables.mu.Unlock()
	return len(w.tables.diagnoses)
}
