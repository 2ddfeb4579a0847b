package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
	"github.com/signindiag/signindiag/sinks"
)

// waitLong bounds waiting for something that has to happen, far above what it takes.
const waitLong = 3 * time.Minute

// running is a whole pipeline in this process, on real servers, as `signindiag run` wires it.
type running struct {
	t      *testing.T
	system *system
	server sinks.Server
	topic  string
	stop   func()
}

// startSystem starts a pipeline and points the commands of the test at its servers.
func startSystem(t *testing.T) *running {
	t.Helper()
	topic := fmt.Sprintf("raw-%d", time.Now().UnixNano())
	server := sinks.Server{Address: []string{embeddedtest.ClickHouse(t)}, Database: embeddedtest.Database(t)}
	for name, value := range map[string]string{
		"KAFKA_BROKERS": embeddedtest.Broker(t), "KAFKA_RAW_TOPICS": topic, "KAFKA_ENTITIES_TOPIC": topic + ".entities", "KAFKA_ENTITIES_PARTITIONS": "2",
		"KAFKA_REPLICATION": "1", "CLICKHOUSE_ADDRESSES": server.Address[0], "CLICKHOUSE_DATABASE": server.Database, "SNAPSHOTS_URL": "file://" + t.TempDir(),
	} {
		t.Setenv(envPrefix+name, value)
	}
	c, err := loadConfig(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSystem(t.Context(), c, slog.New(slog.DiscardHandler), systemOptions{pipeline: true, singleProcess: true, rawPartitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	r := &running{t: t, system: s, server: server, topic: topic}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("stop the pipeline: %v", err)
		}
		s.close()
	}
	t.Cleanup(r.stop)
	eventually(t, "the raw topic", func() bool {
		_, err := s.kafka.TopicPartitions(t.Context(), topic)
		return err == nil
	})
	return r
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLong); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %s", what, waitLong)
		}
	}
}

// send writes messages to the raw topic and waits until all that came of them is stored.
func (r *running) send(values ...string) {
	r.t.Helper()
	p, err := pipeline.NewRawProducer(r.t.Context(), r.system.kafka, r.topic, pipeline.CodecLZ4, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	defer p.Close()
	for _, v := range values {
		refused, err := p.Send(r.t.Context(), [][]byte{[]byte(v)})
		if err != nil || len(refused) > 0 {
			r.t.Fatal(err, refused)
		}
	}
	r.settle()
}

// settle waits until everything that was sent is stored.
func (r *running) settle() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), waitLong)
	defer cancel()
	if err := r.system.awaitIdle(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// put writes records to quarantine, as a router does, and waits for them.
func (r *running) put(records ...sinks.QuarantinedRecord) {
	r.t.Helper()
	q, err := sinks.NewQuarantine(sinks.RecordsConfig{Server: r.server})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	if err := q.Put(ctx, records); err != nil {
		r.t.Fatal(err)
	}
	if err := q.Flush(ctx); err != nil {
		r.t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) number(query string, args ...any) uint64 {
	r.t.Helper()
	var n uint64
	if err := r.system.conn.QueryRow(r.t.Context(), query, args...).Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// command runs a command that must end with the exit code and returns what it printed.
func (r *running) command(want int, args ...string) (out, errs string) {
	r.t.Helper()
	out, errs, code := call(r.t, "", args...)
	if code != want {
		r.t.Fatalf("signindiag %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out, errs
}

func (r *running) contains(text string, want ...string) {
	r.t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			r.t.Errorf("want %q in\n%s", w, text)
		}
	}
}

// controls reports characters that a terminal would obey.
func controls(text string) bool {
	return strings.ContainsFunc(text, func(c rune) bool {
		return c != '\n' && (c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x202e || c == '\ufffd')
	})
}

func TestQuarantineListAndShow(t *testing.T) {
	r := startSystem(t)
	out, _ := r.command(0, "quarantine", "list")
	if out != "Nothing is in quarantine.\n" {
		t.Errorf("empty: %q", out)
	}
	out, _ = r.command(0, "quarantine", "list", "--format", "json")
	if strings.Join(strings.Fields(out), "") != `{"counts":[],"records":[]}` {
		t.Errorf("empty: %s", out)
	}

	hostile := "{\"id\":\"\x1b[2J\x1b]0;owned\x07\x00\xff\u202e\u009b31m\", tru"
	good := signIn(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), 1, 50126)
	r.send(`{"records":[`+strings.TrimSpace(good)+`,{"category":"SignInLogs","properties":{"id":7,}}]}`, hostile)
	if n := r.number("SELECT count() FROM diagnoses FINAL"); n != 1 {
		t.Errorf("%d siblings have a diagnosis, want 1", n)
	}
	long := bytes.Repeat([]byte("x"), 70_000)
	r.put(sinks.QuarantinedRecord{Source: sinks.Source{Topic: "other", Incarnation: 2, Partition: 3, Offset: 9, Index: 4}, Stage: sinks.StagePublish, ReceivedTime: -1,
		Reason: "too_large", Error: "line\nbreak \x1b[31m" + strings.Repeat("e", 400), Bytes: long})

	out, _ = r.command(0, "quarantine")
	if controls(out) {
		t.Errorf("the list holds control characters: %q", out)
	}
	r.contains(out, "2  decode, invalid_json\n", "1  publish, too_large\n", `{"category":"SignInLogs","properties":{"id":7,}}`, `{"id":"\x1b[2J\x1b]0;owned\a\x00\xff\u202e\u009b31m", tru`,
		"other/3/9/4  1970-01-01T00:00:00Z  publish, too_large  70000 bytes  incarnation 2\n", strings.Repeat("x", quarantineFirstBytes)+" ...\n", "/1  20")
	if strings.Contains(out, strings.Repeat("e", 300)) || strings.Index(out, "other/3/9/4") < strings.Index(out, r.topic) {
		t.Errorf("not short, or not newest first:\n%s", out)
	}
	for _, c := range []struct {
		args string
		n    int
	}{
		{"--stage publish", 1}, {"--stage decode", 2}, {"--reason too_large", 1}, {"--topic other", 1}, {"--topic none", 0}, {"--to 1970-01-02", 1}, {"--from 1970-01-02", 2},
		{"--from 2099-01-01", 0}, {"--limit 1", 1}, {"--waiting", 3}, {"--limit 0", 0},
	} {
		out, _ := r.command(0, append([]string{"quarantine", "list", "--format", "json"}, strings.Fields(c.args)...)...)
		var answer struct {
			Records []struct{ Position string }
		}
		if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer.Records) != c.n {
			t.Errorf("%s: %d records, want %d (%v)", c.args, len(answer.Records), c.n, err)
		}
	}
	out, _ = r.command(0, "quarantine", "list", "--limit", "1")
	r.contains(out, "The newest 1 of 3; --limit shows more.")

	out, _ = r.command(0, "quarantine", "show", "other/3/9/4")
	r.contains(out, strings.Repeat("e", 400), string(long), "line break")
	if controls(out) {
		t.Error("show prints control characters")
	}
	out, _ = r.command(0, "quarantine", "show", "--bytes", "-", "other/3/9")
	if out != string(long) {
		t.Errorf("%d bytes on standard output, want %d", len(out), len(long))
	}
	position := positions(t, r, "--stage", "decode")
	i := slices.IndexFunc(position, func(p string) bool { return strings.HasSuffix(p, "/0") })
	file := filepath.Join(t.TempDir(), "bytes")
	r.command(0, "quarantine", "show", "--bytes", file, position[i])
	if got, err := os.ReadFile(file); err != nil || string(got) != hostile {
		t.Errorf("the bytes are %q, want %q (%v)", got, hostile, err)
	}
	r.put(sinks.QuarantinedRecord{Source: sinks.Source{Topic: "other", Incarnation: 2, Partition: 3, Offset: 9, Index: 4}, Stage: sinks.StageDecode, Reason: "x", Bytes: []byte("second")})
	_, errs := r.command(1, "quarantine", "show", "--bytes", "-", "other/3/9/4")
	r.contains(errs, "several records have the position", "--stage")
	if out, _ = r.command(0, "quarantine", "show", "--stage", "decode", "--bytes", "-", "other/3/9/4"); out != "second" {
		t.Errorf("by stage: %q", out)
	}
	_, errs = r.command(1, "quarantine", "show", "other/3/9/5")
	r.contains(errs, "nothing is in quarantine there")
	for _, wrong := range [][]string{{"show", "other"}, {"show", "o/x/1/1"}, {"show", "o/1/1/-1"}, {"list", "--from", "yesterday"}, {"list", "--limit=-1"}, {"replay", "nonsense"}} {
		if _, errs := r.command(1, append([]string{"quarantine"}, wrong...)...); !strings.Contains(errs, "expected") {
			t.Errorf("%v: %s", wrong, errs)
		}
	}
	r.command(2, "quarantine", "show")
	r.command(2, "quarantine", "list", "--format", "xml")

	// Of a running up as well.
	dir := t.TempDir()
	if err := writeEndpoints(dir, endpoints{PID: os.Getpid(), ClickHouse: r.server.Address[0], Database: r.server.Database, Kafka: os.Getenv("SIGNINDIAG_KAFKA_BROKERS"), RawTopic: r.topic}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIGNINDIAG_CLICKHOUSE_ADDRESSES", "")
	_, errs = r.command(1, "quarantine", "replay")
	r.contains(errs, "SIGNINDIAG_CLICKHOUSE_ADDRESSES is not set")
	t.Setenv("SIGNINDIAG_KAFKA_BROKERS", "")
	out, _ = r.command(0, "quarantine", "list", "--data", dir, "--stage", "publish")
	r.contains(out, "other/3/9/4")
	out, errs = r.command(1, "quarantine", "replay", "--data", dir)
	r.contains(out, "0 records replayed")
	r.contains(errs, "other/3/9/4 (publish): invalid_json")
}

// positions lists what is in quarantine.
func positions(t *testing.T, r *running, args ...string) []string {
	t.Helper()
	out, _ := r.command(0, append([]string{"quarantine", "list", "--format", "json", "--limit", "1000"}, args...)...)
	var answer struct {
		Records []struct{ Position string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range answer.Records {
		all = append(all, a.Position)
	}
	return all
}

func TestQuarantineReplay(t *testing.T) {
	r := startSystem(t)
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	r.send(signIn(at, 1, 50126), "no JSON at all")
	// Records that an older version could not read, as it has left them; this one can.
	const n = 1203
	var records []sinks.QuarantinedRecord
	wanted := map[string]bool{}
	for i := range n {
		records = append(records, sinks.QuarantinedRecord{Source: sinks.Source{Topic: r.topic, Incarnation: 1, Partition: int32(i % 2), Offset: int64(1000 + i), Index: uint32(i % 3)},
			Stage: []string{sinks.StageDecode, sinks.StagePublish}[i%2], ReceivedTime: at.UnixMilli(), Reason: "invalid_json", Error: "of old", Bytes: []byte(signIn(at.Add(time.Duration(i)*time.Second), 100+i, 50126))})
		wanted[synthetic.GUID(1, uint64(100+i))] = true
	}
	r.put(records...)

	out, errs := r.command(1, "quarantine", "replay", "--dry-run")
	r.contains(out, fmt.Sprintf("%d records would be replayed to %s\n", n, r.topic), "not replayed: 1 invalid_json\n")
	r.contains(errs, "invalid_json at byte")
	r.settle()
	if rows, marks := r.number("SELECT count() FROM diagnoses FINAL"), r.number("SELECT count() FROM quarantine_replays"); rows != 1 || marks != 0 {
		t.Fatalf("the dry run left %d rows and %d marks", rows, marks)
	}

	// One alone, by its position; and one that was sent by a replay that died before it could mark it.
	out, _ = r.command(0, "quarantine", "replay", fmt.Sprintf("%s/0/1000/0", r.topic))
	r.contains(out, "1 record replayed to "+r.topic)
	r.send(string(records[1].Bytes))
	// The rest, cut short by a signal: what was acknowledged before is marked.
	out, _ = r.command(1, "quarantine", "replay")
	r.contains(out, fmt.Sprintf("%d records replayed to %s\n", n-1, r.topic), "not replayed: 1 invalid_json\n")
	r.settle()
	check := func(what string) {
		t.Helper()
		rows, err := r.system.conn.Query(t.Context(), "SELECT request_id FROM diagnoses FINAL")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		missing := maps.Clone(wanted)
		count := 0
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				t.Fatal(err)
			}
			delete(missing, id)
			count++
		}
		if count != n+1 || len(missing) > 0 {
			t.Errorf("%s: %d rows, want %d; %d replayed records are missing", what, count, n+1, len(missing))
		}
		if got := r.number("SELECT toUInt64(max(request_ids_total)) FROM incidents FINAL WHERE kind = 'repeated_failures'"); got > n+1 {
			t.Errorf("%s: an incident counts %d records, there are %d", what, got, n+1)
		}
	}
	check("replay")
	if got := r.number("SELECT count() FROM quarantine_replays FINAL"); got != n {
		t.Errorf("%d marks, want %d", got, n)
	}
	ends, err := r.system.rawEnds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, _ = r.command(1, "quarantine", "replay")
	r.contains(out, "0 records replayed\n")
	if again, err := r.system.rawEnds(t.Context()); err != nil || again[r.topic] != ends[r.topic] {
		t.Errorf("a second replay sent %d records (%v)", again[r.topic]-ends[r.topic], err)
	}
	out, _ = r.command(0, "quarantine", "replay", "--stage", "publish")
	if out != "Nothing in quarantine waits to be replayed.\n" {
		t.Errorf("nothing waits: %q", out)
	}
	out, _ = r.command(0, "quarantine", "replay", "--again", "--reason", "invalid_json", "--stage", "publish", "--from", "2026-03-02", "--to", "2026-03-03")
	r.contains(out, fmt.Sprintf("%d records replayed to", n/2))
	r.settle()
	check("replay of what was replayed")
	out, _ = r.command(0, "quarantine", "list", "--limit", "2000")
	r.contains(out, fmt.Sprintf("(%d replayed)", n/2), "  replayed 20", " to "+r.topic)
	if got := len(positions(t, r, "--waiting")); got != 1 {
		t.Errorf("%d records wait, want 1", got)
	}

	// What still fails is sent on demand, and comes back under its new position.
	out, _ = r.command(0, "quarantine", "replay", "--force")
	r.contains(out, "1 record replayed to")
	r.settle()
	eventually(t, "the record is in quarantine again", func() bool {
		return r.number("SELECT count() FROM quarantine FINAL WHERE bytes = 'no JSON at all'") == 2
	})
}

// TestQuarantineReplayInterrupted: a signal between groups loses no mark of what was acknowledged.
func TestQuarantineReplayInterrupted(t *testing.T) {
	r := startSystem(t)
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	const n = 2600 // several groups of 500
	var records []sinks.QuarantinedRecord
	for i := range n {
		records = append(records, sinks.QuarantinedRecord{Source: sinks.Source{Topic: r.topic, Incarnation: 1, Offset: int64(1000 + i)}, Stage: sinks.StageDecode, ReceivedTime: at.UnixMilli(),
			Reason: "invalid_json", Bytes: []byte(signIn(at.Add(time.Duration(i)*time.Second), i, 0))})
	}
	r.put(records...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		var out, errs bytes.Buffer
		ended <- run(ctx, []string{"quarantine", "replay"}, streams{strings.NewReader(""), &out, &errs})
	}()
	eventually(t, "first marks", func() bool { return r.number("SELECT count() FROM quarantine_replays") > 0 })
	cancel()
	code := <-ended
	ends, err := r.system.rawEnds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent, marked := uint64(ends[r.topic]), r.number("SELECT count() FROM quarantine_replays")
	t.Logf("exit code %d, %d sent, %d marked of %d", code, sent, marked, n)
	// At most one group was under way.
	if marked > sent || sent-marked > 500 {
		t.Errorf("%d records sent and %d marked", sent, marked)
	}
	if marked < n {
		out, _ := r.command(0, "quarantine", "replay")
		r.contains(out, fmt.Sprintf("%d records replayed", n-marked))
	}
	r.settle()
	if rows := r.number("SELECT count() FROM diagnoses FINAL"); rows != n {
		t.Errorf("%d rows, want %d", rows, n)
	}
}

// TestQuarantineReplayOfRowsAndMessages: a refused row goes into its table when the table takes it, and loses against a newer one; a
// message of the entities topic leads to its raw record.
func TestQuarantineReplayOfRowsAndMessages(t *testing.T) {
	r := startSystem(t)
	exec := func(statement string) {
		t.Helper()
		if err := r.system.conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec("ALTER TABLE diagnoses ADD CONSTRAINT nobody CHECK user != 'ada@example.org'")
	exec("ALTER TABLE incident_members ADD CONSTRAINT nobody CHECK 0")
	exec("ALTER TABLE incidents ADD CONSTRAINT nobody CHECK 0")
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var lines []string
	for i := range 8 {
		lines = append(lines, strings.TrimSpace(signIn(at.Add(time.Duration(i)*time.Minute), i, 50126)))
	}
	r.send(`{"records":[` + strings.Join(lines, ",") + `]}`)
	if rows := r.number("SELECT count() FROM diagnoses FINAL"); rows != 0 {
		t.Fatalf("%d rows in spite of the constraint", rows)
	}
	refused := map[string]uint64{}
	for _, table := range []string{"diagnoses", "incidents", "incident_members"} {
		refused[table] = r.number("SELECT uniqExact(" + map[string]string{"diagnoses": "JSONExtractString(bytes, 'request_id')", "incidents": "JSONExtractString(bytes, 'incident_id')",
			"incident_members": "(JSONExtractString(bytes, 'incident_id'), JSONExtractString(bytes, 'request_id'))"}[table] + ") FROM quarantine FINAL WHERE stage = 'sink " + table + "'")
	}
	// One message makes many members; none may take another's place in quarantine.
	if refused["diagnoses"] != 8 || refused["incidents"] == 0 || refused["incident_members"] != 8*refused["incidents"] {
		t.Errorf("refused rows in quarantine: %v", refused)
	}
	_, errs := r.command(1, "quarantine", "replay")
	r.contains(errs, "(sink diagnoses): put the row into diagnoses once more: ClickHouse refuses it (code 469)")
	for table := range refused {
		exec("ALTER TABLE " + table + " DROP CONSTRAINT nobody")
	}
	out, _ := r.command(0, "quarantine", "replay")
	r.contains(out, "replayed to diagnoses\n", "replayed to incidents\n", "replayed to incident_members\n")
	for table, n := range refused {
		if got := r.number("SELECT count() FROM " + table + " FINAL"); got != n {
			t.Errorf("%d rows of %s, want %d", got, table, n)
		}
	}
	if got := r.number("SELECT count() FROM diagnoses_by_user FINAL WHERE user = 'ada@example.org' AND event_time = '2026-03-02 09:07:00' AND scenario = 'wrong_password'"); got != 1 {
		t.Errorf("the view has %d rows of the record, want 1", got)
	}
	// The rows are those that the engine makes: a record that comes again changes nothing, and an older row loses.
	exec("INSERT INTO diagnoses (request_id, correlation_id, tenant_id, event_time, user, revision) SELECT request_id, correlation_id, tenant_id, event_time, 'newer', revision + 1 FROM diagnoses FINAL WHERE event_time = '2026-03-02 09:00:00'")
	r.command(0, "quarantine", "replay", "--again", "--stage", "sink diagnoses")
	if got := r.number("SELECT count() FROM diagnoses FINAL WHERE user = 'newer'"); got != 1 {
		t.Errorf("the newer row was overtaken: %d", got)
	}

	// Messages of the entities topic.
	message := func(source *schemas.Source) []byte {
		m := schemas.EntityMessage{Source: source, ReceivedMs: time.Now().UnixMilli(), SignIn: &schemas.SignIn{}}
		b, err := m.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var partition int32
	var offset int64
	var received time.Time
	if err := r.system.conn.QueryRow(t.Context(), "SELECT source_partition, source_offset, received_time FROM raw_records WHERE source_index = 3").Scan(&partition, &offset, &received); err != nil {
		t.Fatal(err)
	}
	id := pipeline.RawTopic{Name: r.topic, Incarnation: 1}.ID()
	own := &schemas.Source{Topic: id, Partition: uint32(partition), Offset: offset, Index: 3}
	for i, bytes := range [][]byte{message(own), message(&schemas.Source{Topic: id + 1<<32}), message(&schemas.Source{Topic: id + 1}), []byte("\xff\xffgarbage"), message(nil)} {
		r.put(sinks.QuarantinedRecord{Source: sinks.Source{Topic: r.topic + ".entities", Incarnation: 1, Partition: 1, Offset: int64(5000 + i)}, Stage: sinks.StageEntities,
			ReceivedTime: time.Now().UnixMilli(), Reason: sinks.ReasonPanic, Bytes: bytes})
	}
	end := func() int64 {
		ends, err := r.system.rawEnds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return ends[r.topic]
	}
	before := end()
	for _, kept := range []bool{false, true} {
		if kept {
			// From raw_records as well as from the log.
			exec("TRUNCATE TABLE raw_records")
			exec("TRUNCATE TABLE quarantine_replays")
		}
		out, errs = r.command(1, "quarantine", "replay", "--stage", "entities")
		r.contains(out, "1 record replayed to "+r.topic, "not replayed: 4 no raw record")
		r.contains(errs, "does not name its raw record", "not configured here", "of incarnation 2 of the topic")
		if got := end(); got != before+1 {
			t.Errorf("%d records sent, want 1", got-before)
		}
		before = end()
		r.settle()
	}
	if rows := r.number("SELECT count() FROM diagnoses FINAL"); rows != 8 {
		t.Errorf("%d rows, want 8", rows)
	}
}
