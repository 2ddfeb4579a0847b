package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/signindiag/signindiag/embedded/embeddedtest"
	"github.com/signindiag/signindiag/pipeline"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
	"github.com/signindiag/signindiag/sinks"
)

// verifyWorld is a pipeline on embedded servers, and its records.
type verifyWorld struct {
	t       *testing.T
	config  *config
	conn    driver.Conn
	traffic *synthetic.Traffic
}

// verifyPatience bounds what must come true.
const verifyPatience = 3 * time.Minute

func newVerifyWorld(t *testing.T, seed uint64) *verifyWorld {
	t.Helper()
	broker := embeddedtest.Broker(t)
	server := sinks.Server{Address: []string{embeddedtest.ClickHouse(t)}, Database: embeddedtest.Database(t)}
	snapshots := t.TempDir()
	t.Setenv("SIGNINDIAG_KAFKA_BROKERS", broker)
	t.Setenv("SIGNINDIAG_KAFKA_ENTITIES_PARTITIONS", fmt.Sprint(upPartitions))
	t.Setenv("SIGNINDIAG_CLICKHOUSE_ADDRESSES", server.Address[0])
	t.Setenv("SIGNINDIAG_CLICKHOUSE_DATABASE", server.Database)
	t.Setenv("SIGNINDIAG_SNAPSHOTS_URL", "file://"+snapshots)
	t.Setenv("SIGNINDIAG_LOG_LEVEL", "error")
	c, err := loadConfig(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.embed(broker, server.Address[0], snapshots)
	w := &verifyWorld{t: t, config: c}
	if w.conn, err = sinks.Open(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.conn.Close() })
	start := time.Now().UTC().Add(-3 * time.Hour).Truncate(time.Second)
	options := synthetic.Options{Seed: seed, Start: start, Rate: 1, Users: 200, Late: 0.01, Repeated: 0.05, Split: 0.05, Batch: 8}
	for i, kind := range synthetic.AttackKinds() {
		options.Attacks = append(options.Attacks, synthetic.Attack{Kind: kind, At: start.Add(time.Duration(5+3*i) * time.Minute), FirstUser: 5 * i % 150})
	}
	if w.traffic, err = synthetic.NewTraffic(options); err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs the pipeline while feed works, until every record is stored, and stops it.
func (w *verifyWorld) run(feed func(*system)) {
	w.t.Helper()
	log, err := newLogger(os.Stderr, w.config.Log)
	if err != nil {
		w.t.Fatal(err)
	}
	tenants, err := w.config.Settings.load()
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := openSystem(w.t.Context(), w.config, log, systemOptions{pipeline: true, singleProcess: true, rawPartitions: rawPartitionsOfNewTopic, settings: tenants})
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.close()
	if _, err := s.kafka.EnsureTopic(w.t.Context(), pipeline.TopicConfig{Name: w.rawTopic(), Partitions: rawPartitionsOfNewTopic, Replicas: 1, AnyPartitions: true}); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}()
	feed(s)
	waiting, done := context.WithTimeout(ctx, verifyPatience)
	defer done()
	if err := s.awaitIdle(waiting); err != nil {
		w.t.Fatal(err)
	}
}

func (w *verifyWorld) rawTopic() string { return w.config.Kafka.RawTopics[0] }

// send writes messages to the raw topic.
func (w *verifyWorld) send(values ...[]byte) {
	w.t.Helper()
	k, err := pipeline.OpenKafka(w.config.Kafka.connection())
	if err != nil {
		w.t.Fatal(err)
	}
	defer k.Close()
	log, _ := newLogger(os.Stderr, w.config.Log)
	producer, err := pipeline.NewRawProducer(w.t.Context(), k, w.rawTopic(), pipeline.CodecLZ4, log)
	if err != nil {
		w.t.Fatal(err)
	}
	defer producer.Close()
	for part := range slices.Chunk(values, 5) { // small ones reach all partitions
		if refused, err := producer.Send(w.t.Context(), part); err != nil || len(refused) > 0 {
			w.t.Fatal(err, refused)
		}
	}
}

// messages returns the next messages of the traffic with at least so many records, and something broken now and then.
func (w *verifyWorld) messages(records int) [][]byte {
	var values [][]byte
	for n := 0; n < records; {
		message, count := w.traffic.Next()
		values = append(values, bytes.Clone(message))
		if len(values)%20 == 1 {
			values = append(values, []byte(`{"records":[{"category":"SignInLogs","properties":{"id":`+fmt.Sprint(n)+`,}},{"category":"AuditLogs","operationName":"Add user"}]}`))
		}
		n += count
	}
	return values
}

// verify runs the command and returns its report and exit code.
func (w *verifyWorld) verify(args ...string) (pipeline.VerifyReport, int) {
	w.t.Helper()
	out, errs, code := call(w.t, "", append([]string{"verify", "--format", "json"}, args...)...)
	var r pipeline.VerifyReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		w.t.Fatalf("exit code %d: %v: %s%s", code, err, out, errs)
	}
	if (code == 0) != r.Exact {
		w.t.Errorf("exit code %d where exact is %v", code, r.Exact)
	}
	return r, code
}

func reportText(r *pipeline.VerifyReport) string {
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		return err.Error()
	}
	return b.String()
}

// exact fails where not everything is exact, or where nothing was compared.
func (w *verifyWorld) exact(args ...string) pipeline.VerifyReport {
	w.t.Helper()
	r, code := w.verify(args...)
	if code != 0 {
		w.t.Errorf("not exact:\n%s", reportText(&r))
	}
	for _, s := range r.Stages {
		if s.Exact+s.Present == 0 && !slices.Contains(args, "--presence") {
			w.t.Errorf("nothing of %s was compared:\n%s", s.Name, reportText(&r))
		}
	}
	return r
}

// finding is what a tampered place must be told as.
type finding struct {
	kind, in string
	count    int64
	example  string
}

// finds fails where the findings are others than those named.
func (w *verifyWorld) finds(r pipeline.VerifyReport, want ...finding) {
	w.t.Helper()
	type place struct{ kind, in string }
	got, examples := map[place]int64{}, map[place]string{}
	for _, f := range r.Findings {
		got[place{f.Kind, f.In}] += f.Count
		examples[place{f.Kind, f.In}] += strings.Join(f.Examples, "; ")
	}
	for _, f := range want {
		p := place{f.kind, f.in}
		if got[p] != f.count || !strings.Contains(examples[p], f.example) {
			w.t.Errorf("%d %s in %s (%s), want %d (%s)", got[p], f.kind, f.in, examples[p], f.count, f.example)
		}
		delete(got, p)
	}
	if len(got) > 0 || w.t.Failed() {
		w.t.Errorf("also %v:\n%s", got, reportText(&r))
	}
}

func (w *verifyWorld) exec(statement string) {
	w.t.Helper()
	if err := w.conn.Exec(w.t.Context(), statement); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

func (w *verifyWorld) value(query string) string {
	w.t.Helper()
	var v string
	if err := w.conn.QueryRow(w.t.Context(), query).Scan(&v); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return v
}

// TestVerifyTables: a system that worked is exact; every row that is removed, repeated or altered afterwards is found and named.
func TestVerifyTables(t *testing.T) {
	w := newVerifyWorld(t, testSeed(t))
	w.run(func(*system) { w.send(w.messages(2500)...) })
	r := w.exact("--complete")
	if r.SignIns < 2500 || len(r.Stages) != 9 {
		t.Errorf("%d sign-ins in %d stages", r.SignIns, len(r.Stages))
	}
	t.Log("\n" + reportText(&r))
	tables := []string{"diagnoses", "diagnoses_by_user", "request_ids", "incidents", "incident_members", "incident_members_by_incident", "progress", "quarantine", "raw_records"}
	from := w.config.ClickHouse.Database
	id := w.value("SELECT request_id FROM diagnoses FINAL WHERE request_id IN (SELECT request_id FROM incident_members) ORDER BY request_id LIMIT 1")
	incident := w.value("SELECT incident_id FROM incidents FINAL WHERE length(counts) > 0 ORDER BY incident_id LIMIT 1")
	member := w.value("SELECT request_id FROM incident_members FINAL WHERE incident_id = '" + incident + "' ORDER BY request_id LIMIT 1")
	ofID, ofIncident := " WHERE request_id = '"+id+"'", " WHERE incident_id = '"+incident+"'"
	ofMember := ofIncident + " AND request_id = '" + member + "'"
	const now = " SETTINGS mutations_sync = 2"
	again := func(table, replace, where string) string {
		return "INSERT INTO {db}." + table + " SELECT * REPLACE(" + replace + ") FROM (SELECT * FROM {db}." + table + " FINAL" + where + " LIMIT 1)"
	}
	type test struct {
		name       string
		statements []string
		want       []finding
		args       []string
	}
	retained := func(table string) string {
		return "ALTER TABLE {db}." + table + " MODIFY TTL toDate(event_time) + toIntervalDay(1) SETTINGS materialize_ttl_after_modify = 0"
	}
	before := w.value("SELECT formatDateTime(toStartOfHour(event_time), '%FT%TZ') FROM diagnoses FINAL" + ofID)
	one := func(kind, in, example string) []finding { return []finding{{kind, in, 1, example}} }
	tests := []test{
		{name: "nothing"},
		{name: "a diagnosis deleted", statements: []string{"ALTER TABLE {db}.diagnoses DELETE" + ofID + now}, want: one("lost", "diagnoses", id)},
		{name: "a diagnosis deleted lightly", statements: []string{"DELETE FROM {db}.diagnoses" + ofID}, want: one("lost", "diagnoses", id)},
		{name: "a diagnosis under another request id", statements: []string{again("diagnoses", "'another' AS request_id", ofID)}, want: one("repeated", "diagnoses", "another")},
		{name: "a diagnosis at another time", statements: []string{"DELETE FROM {db}.diagnoses" + ofID,
			"INSERT INTO {db}.diagnoses SELECT * REPLACE(addHours(event_time, 30) AS event_time) FROM " + from + ".diagnoses FINAL" + ofID}, want: one("altered", "diagnoses", id)},
		{name: "a diagnosis in another shard", statements: []string{"ALTER TABLE {db}.diagnoses UPDATE shard = (shard + 1) % 4" + ofID + now}, want: one("repeated", "diagnoses", id)},
		{name: "a diagnosis in no shard", statements: []string{again("diagnoses", "'another' AS request_id, 77 AS shard", ofID)},
			want: one("repeated", "diagnoses", "")},
		{name: "a severity altered", statements: []string{"ALTER TABLE {db}.diagnoses UPDATE severity = 'odd'" + ofID + now}, want: one("altered", "diagnoses", id)},
		{name: "evidence altered", statements: []string{"ALTER TABLE {db}.diagnoses UPDATE evidence = concat(evidence, ' ')" + ofID + now}, want: one("altered", "diagnoses", id)},
		{name: "a summary altered", statements: []string{"ALTER TABLE {db}.diagnoses UPDATE summary = ''" + ofID + now}, want: one("altered", "diagnoses", id)},
		{name: "a newer revision than any", statements: []string{again("diagnoses", "revision + 1 AS revision", ofID)}, want: one("altered", "diagnoses", id)},
		{name: "an older revision only", statements: []string{"DELETE FROM {db}.diagnoses" + ofID,
			"INSERT INTO {db}.diagnoses SELECT * REPLACE(bitShiftLeft(toUInt64(1), 48) - 1 AS revision) FROM " + from + ".diagnoses FINAL" + ofID}, want: one("lost", "diagnoses", id)},
		{name: "a revision of an epoch to come", statements: []string{again("diagnoses", "bitShiftLeft(toUInt64(2), 48) AS revision", ofID)}, want: one("unchecked", "entities topic", "")},
		{name: "a user's row deleted", statements: []string{"DELETE FROM {db}.diagnoses_by_user" + ofID}, want: one("lost", "diagnoses_by_user", id)},
		{name: "a user's row under another name", statements: []string{again("diagnoses_by_user", "'someone@else.example' AS user", ofID)}, want: one("repeated", "diagnoses_by_user", "someone@else.example")},
		{name: "a user's row at another time", statements: []string{again("diagnoses_by_user", "addSeconds(event_time, 1) AS event_time", ofID)}, want: one("repeated", "diagnoses_by_user", id)},
		{name: "a user's row altered", statements: []string{"ALTER TABLE {db}.diagnoses_by_user UPDATE outcome = 'odd'" + ofID + now}, want: one("altered", "diagnoses_by_user", id)},
		{name: "a request id deleted", statements: []string{"DELETE FROM {db}.request_ids" + ofID}, want: one("lost", "request_ids", id)},
		{name: "a request id with another correlation id", statements: []string{again("request_ids", "'another' AS correlation_id", ofID)}, want: one("repeated", "request_ids", "another")},
		{name: "a request id at another time", statements: []string{"DELETE FROM {db}.request_ids" + ofID,
			"INSERT INTO {db}.request_ids SELECT * REPLACE(addMicroseconds(event_time, 1) AS event_time) FROM " + from + ".request_ids FINAL" + ofID}, want: one("altered", "request_ids", id)},
		{name: "an incident deleted", statements: []string{"ALTER TABLE {db}.incidents DELETE" + ofIncident + now}, want: one("lost", "incidents", incident)},
		{name: "an incident under another id", statements: []string{again("incidents", "'another' AS incident_id", ofIncident)}, want: one("repeated", "incidents", "another")},
		{name: "an incident's counts altered", statements: []string{"ALTER TABLE {db}.incidents UPDATE counts = mapApply((k, v) -> (k, v + 1), counts)" + ofIncident + now}, want: one("altered", "incidents", incident)},
		{name: "an incident's users altered", statements: []string{"ALTER TABLE {db}.incidents UPDATE users = arrayPushBack(users, 'x')" + ofIncident + now}, want: one("altered", "incidents", incident)},
		{name: "a member deleted", statements: []string{"DELETE FROM {db}.incident_members" + ofMember}, want: one("lost", "incident_members", member)},
		{name: "a member under another id", statements: []string{again("incident_members", "'another' AS request_id", ofMember)}, want: one("repeated", "incident_members", "another")},
		{name: "a member of another incident", statements: []string{again("incident_members_by_incident", "'another' AS incident_id", ofMember)}, want: one("repeated", "incident_members_by_incident", "another")},
		{name: "a member by incident deleted", statements: []string{"DELETE FROM {db}.incident_members_by_incident" + ofMember}, want: one("lost", "incident_members_by_incident", member)},
		{name: "a record as received deleted", statements: []string{"DELETE FROM {db}.raw_records" + ofID + " AND source_offset = (SELECT min(source_offset) FROM {db}.raw_records" + ofID + ")"}, want: one("lost", "raw_records", "offset")},
		{name: "a record as received altered", statements: []string{"ALTER TABLE {db}.raw_records UPDATE raw = concat(raw, ' ') WHERE (source_partition, source_offset, source_index) = (SELECT source_partition, source_offset, source_index FROM {db}.raw_records" + ofID + " LIMIT 1)" + now},
			want: one("altered", "raw_records", "offset")},
		{name: "a record as received twice", statements: []string{again("raw_records", "toUInt32(1000) AS source_index", ofID)}, want: one("repeated", "raw_records", "index 1000")},
		{name: "a record as received under two ids", statements: []string{again("raw_records", "'another' AS request_id", ofID)}, want: one("repeated", "raw_records", "offset")},
		{name: "a broken record deleted", statements: []string{"DELETE FROM {db}.quarantine WHERE (source_partition, source_offset) = (SELECT source_partition, source_offset FROM {db}.quarantine LIMIT 1)"}, want: one("lost", "quarantine", "offset")},
		{name: "a broken record altered", statements: []string{"ALTER TABLE {db}.quarantine UPDATE bytes = 'x' WHERE (source_partition, source_offset) = (SELECT source_partition, source_offset FROM {db}.quarantine LIMIT 1)" + now}, want: one("altered", "quarantine", "offset")},
		{name: "all diagnoses lost", statements: []string{"TRUNCATE TABLE {db}.diagnoses"}, want: []finding{{"lost", "diagnoses", stageOf(r, "diagnoses").Exact, ""}}},
		{name: "a diagnosis in quarantine", statements: []string{
			"INSERT INTO {db}.quarantine (source_topic, source_partition, source_offset, stage) SELECT '" + w.config.Kafka.EntitiesTopic + "', shard, bitAnd(revision, 281474976710655), 'sink diagnoses' FROM {db}.diagnoses FINAL" + ofID,
			"DELETE FROM {db}.diagnoses" + ofID, "DELETE FROM {db}.diagnoses_by_user" + ofID, "DELETE FROM {db}.request_ids" + ofID}, want: []finding{}},
	}
	tests = append(tests,
		test{name: "a diagnosis deleted outside of the time asked for", statements: []string{"DELETE FROM {db}.diagnoses" + ofID}, args: []string{"--to", before}},
		test{name: "a diagnosis deleted at the time asked for", statements: []string{"DELETE FROM {db}.diagnoses" + ofID}, want: one("lost", "diagnoses", id), args: []string{"--from", before}},
		test{name: "a diagnosis expired", statements: []string{retained("diagnoses"), retained("diagnoses_by_user"), retained("request_ids"), "DELETE FROM {db}.diagnoses" + ofID}},
	)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &verifyWorld{t: t, config: w.config, conn: w.conn}
			db := fmt.Sprintf("%s_%d", from, i)
			w.exec("CREATE DATABASE " + db + " ENGINE = Atomic")
			t.Cleanup(func() {
				if err := w.conn.Exec(context.Background(), "DROP DATABASE "+db+" SYNC"); err != nil {
					t.Error(err)
				}
			})
			for _, table := range tables {
				w.exec("CREATE TABLE " + db + "." + table + " AS " + from + "." + table)
				w.exec("INSERT INTO " + db + "." + table + " SELECT * FROM " + from + "." + table)
			}
			for _, s := range test.statements {
				w.exec(strings.ReplaceAll(s, "{db}", db))
			}
			t.Setenv("SIGNINDIAG_CLICKHOUSE_DATABASE", db)
			if test.statements == nil {
				w.exact("--complete")
				return
			}
			r, _ := w.verify(test.args...)
			w.finds(r, test.want...)
		})
	}
}

func stageOf(r pipeline.VerifyReport, name string) pipeline.VerifyStage {
	for _, s := range r.Stages {
		if s.Name == name {
			return s
		}
	}
	return pipeline.VerifyStage{}
}

// commit sets the committed offset of a raw partition by hand.
func (w *verifyWorld) commit(entities string, offsets map[int]int64) {
	w.t.Helper()
	var list []kafka.OffsetCommit
	for p, o := range offsets {
		list = append(list, kafka.OffsetCommit{Partition: p, Offset: o})
	}
	client := kafka.Client{Addr: kafka.TCP(w.config.Kafka.Brokers...)}
	answer, err := client.OffsetCommit(w.t.Context(), &kafka.OffsetCommitRequest{
		GroupID: "signindiag.router." + entities, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{w.rawTopic(): list},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range answer.Topics[w.rawTopic()] {
		if p.Error != nil {
			w.t.Fatal(p.Error)
		}
	}
}

func (w *verifyWorld) client(options ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(w.config.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// ends returns the offsets behind the last records of a topic.
func (w *verifyWorld) ends(topic string) map[int]int64 {
	w.t.Helper()
	k, err := pipeline.OpenKafka(w.config.Kafka.connection())
	if err != nil {
		w.t.Fatal(err)
	}
	defer k.Close()
	ends := map[int]int64{}
	for p := range upPartitions {
		if _, ends[p], err = k.ListOffsets(w.t.Context(), topic, p); err != nil {
			w.t.Fatal(err)
		}
	}
	return ends
}

// entities returns the messages of the entities topic by partition.
func (w *verifyWorld) entities() map[int][]*kgo.Record {
	w.t.Helper()
	topic := w.config.Kafka.EntitiesTopic
	missing := int64(0)
	for _, end := range w.ends(topic) {
		missing += end
	}
	c := w.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	records := map[int][]*kgo.Record{}
	ctx, cancel := context.WithTimeout(w.t.Context(), verifyPatience)
	defer cancel()
	for missing > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		for r := range fetches.RecordsAll() {
			records[int(r.Partition)] = append(records[int(r.Partition)], r)
			missing--
		}
	}
	return records
}

// produce appends values to a partition of a topic.
func (w *verifyWorld) produce(topic string, partition int, values ...[]byte) {
	w.t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(partition), Value: v})
	}
	if err := w.client().ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// trim deletes what lies below the offsets.
func (w *verifyWorld) trim(topic string, offsets map[int]int64) {
	w.t.Helper()
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = 5000
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = topic
	for p, o := range offsets {
		t.Partitions = append(t.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: int32(p), Offset: o})
	}
	request.Topics = append(request.Topics, t)
	if _, err := request.RequestWith(w.t.Context(), w.client()); err != nil {
		w.t.Fatal(err)
	}
}

func half(ends map[int]int64) map[int]int64 {
	at := map[int]int64{}
	for p, end := range ends {
		at[p] = end / 2
	}
	return at
}

func decodeEntity(t *testing.T, value []byte) *schemas.EntityMessage {
	t.Helper()
	var m schemas.EntityMessage
	if err := m.UnmarshalVT(value); err != nil {
		t.Fatal(err)
	}
	return &m
}

func encodeEntity(t *testing.T, m *schemas.EntityMessage) []byte {
	t.Helper()
	b, err := m.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVerifyRepeatsAndTrims: what routers repeat after a crash is no fault, nor what retention takes away; what was never dealt is, and
// what expired before it was read.
func TestVerifyRepeatsAndTrims(t *testing.T) {
	w := newVerifyWorld(t, testSeed(t))
	w.run(func(*system) { w.send(w.messages(600)...) })
	// A router that dies before its commit deals the records once more.
	w.commit(w.config.Kafka.EntitiesTopic, half(w.ends(w.rawTopic())))
	w.run(func(*system) { w.send(w.messages(300)...) })
	r := w.exact("--complete")
	if stageOf(r, "entities topic").Repeats == 0 {
		t.Errorf("no message was repeated:\n%s", reportText(&r))
	}
	// A shard that stores rows again, since its position was lost with the newest blocks.
	w.exec("TRUNCATE TABLE progress")
	w.run(func(*system) {})
	w.exact("--complete")

	// Retention takes the older half of both logs.
	w.trim(w.rawTopic(), half(w.ends(w.rawTopic())))
	w.exact("--complete")
	w.trim(w.config.Kafka.EntitiesTopic, half(w.ends(w.config.Kafka.EntitiesTopic)))
	r, _ = w.verify("--complete")
	if !r.Exact || stageOf(r, "entities topic").Expired == 0 || stageOf(r, "entities topic").Exact == 0 || stageOf(r, "diagnoses").Unchecked == 0 {
		t.Errorf("after both logs lost their older half:\n%s", reportText(&r))
	}
}

// TestVerifyUnread: records that no router has dealt are lost when the offset says that one has, and so are those that expired.
func TestVerifyUnread(t *testing.T) {
	w := newVerifyWorld(t, testSeed(t))
	w.run(func(*system) { w.send(w.messages(300)...) })
	before := w.ends(w.rawTopic())
	unread := w.messages(40)
	w.send(unread...)
	ends := w.ends(w.rawTopic())
	r, code := w.verify()
	if code != 0 || r.Waiting != int64(len(unread)) {
		t.Errorf("%d messages of %d wait:\n%s", r.Waiting, len(unread), reportText(&r))
	}
	r, _ = w.verify("--complete")
	w.finds(r, finding{"unchecked", "raw topic", int64(len(unread)), ""})

	w.commit(w.config.Kafka.EntitiesTopic, ends)
	r, _ = w.verify()
	entities, raw, broken := stageOf(r, "entities topic").Lost, stageOf(r, "raw_records").Lost, stageOf(r, "quarantine").Lost
	if raw < 40 || entities < raw {
		t.Errorf("%d messages and %d records are lost, want at least 40", entities, raw)
	}
	w.finds(r, finding{"lost", "entities topic", entities, w.rawTopic() + "/"}, finding{"lost", "raw_records", raw, "offset"}, finding{"lost", "quarantine", broken, ""})

	w.commit(w.config.Kafka.EntitiesTopic, before)
	w.trim(w.rawTopic(), ends)
	r, _ = w.verify()
	w.finds(r, finding{"lost", "raw topic", int64(len(unread)), "offsets "})
}

// TestVerifyMessages: the entities topic is copied with a message left out, one altered and one put in that passes the fence.
func TestVerifyMessages(t *testing.T) {
	w := newVerifyWorld(t, testSeed(t))
	w.run(func(*system) { w.send(w.messages(400)...) })
	records := w.entities()
	copied := "signindiag.entities.v2"
	k, err := pipeline.OpenKafka(w.config.Kafka.connection())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	place := func(r *kgo.Record) string {
		s := decodeEntity(t, r.Value).Source
		return fmt.Sprintf("%s/%d offset %d index %d", w.rawTopic(), s.Partition, s.Offset, s.Index)
	}
	for n, test := range []struct {
		name  string
		shard int
		// change returns what is written in the place of the message in the middle of the shard.
		change func(m *kgo.Record) [][]byte
		want   func(m *kgo.Record) []finding
	}{
		{"as it is", 0, func(m *kgo.Record) [][]byte { return [][]byte{m.Value} }, func(*kgo.Record) []finding { return nil }},
		{"repeated at once", 0, func(m *kgo.Record) [][]byte { return [][]byte{m.Value, m.Value} }, func(*kgo.Record) []finding { return nil }},
		{"left out", 1, func(m *kgo.Record) [][]byte { return nil }, func(m *kgo.Record) []finding { return []finding{{"lost", "entities topic", 1, place(m)}} }},
		{"altered", 2, func(m *kgo.Record) [][]byte {
			e := decodeEntity(t, m.Value)
			e.SignIn.ErrorCode++
			return [][]byte{encodeEntity(t, e)}
		}, func(m *kgo.Record) []finding { return []finding{{"altered", "entities topic", 1, place(m)}} }},
		{"altered in its time of receipt", 2, func(m *kgo.Record) [][]byte {
			e := decodeEntity(t, m.Value)
			e.ReceivedMs += 2 * 3600_000
			return [][]byte{encodeEntity(t, e)}
		}, func(m *kgo.Record) []finding { return []finding{{"altered", "entities topic", 1, place(m)}} }},
		{"in other roles", 3, func(m *kgo.Record) [][]byte {
			e := decodeEntity(t, m.Value)
			e.Roles ^= 1 << schemas.Role_ROLE_TENANT
			return [][]byte{encodeEntity(t, e)}
		}, func(m *kgo.Record) []finding { return []finding{{"altered", "entities topic", 1, place(m)}} }},
		{"repeated past the fence", 3, func(m *kgo.Record) [][]byte {
			e := decodeEntity(t, m.Value)
			e.Source.Index += 1000
			return [][]byte{m.Value, encodeEntity(t, e)}
		}, func(m *kgo.Record) []finding { return []finding{{"repeated", "entities topic", 1, "index 1"}} }},
		{"unreadable", 1, func(m *kgo.Record) [][]byte { return [][]byte{[]byte("\xff\xff")} }, func(m *kgo.Record) []finding { return []finding{{"lost", "entities topic", 1, place(m)}} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &verifyWorld{t: t, config: w.config, conn: w.conn}
			topic := fmt.Sprintf("%s.%d", copied, n)
			if _, err := k.EnsureTopic(t.Context(), pipeline.TopicConfig{Name: topic, Partitions: upPartitions, Replicas: 1, Retention: 200 * time.Hour}); err != nil {
				t.Fatal(err)
			}
			var changed *kgo.Record
			for _, p := range slices.Sorted(maps.Keys(records)) {
				var values [][]byte
				// The last one of its raw message here, so that a higher index in its place is above no other record.
				pick := len(records[p]) / 2
				for pick+1 < len(records[p]) {
					this, next := decodeEntity(t, records[p][pick].Value).Source, decodeEntity(t, records[p][pick+1].Value).Source
					if this.Partition != next.Partition || this.Offset != next.Offset {
						break
					}
					pick++
				}
				for i, r := range records[p] {
					if p == test.shard && i == pick {
						changed = r
						values = append(values, test.change(r)...)
						continue
					}
					values = append(values, r.Value)
				}
				w.produce(topic, p, values...)
			}
			w.commit(topic, w.ends(w.rawTopic()))
			t.Setenv("SIGNINDIAG_KAFKA_ENTITIES_TOPIC", topic)
			r, _ := w.verify()
			// The rows are those of the other topic; what is looked at here is the log.
			r.Findings = slices.DeleteFunc(r.Findings, func(f pipeline.VerifyFinding) bool { return f.In != "entities topic" })
			w.finds(r, test.want(changed)...)
			if stageOf(r, "entities topic").Exact == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// TestVerifyEpochs: rows of a settled epoch are exact, those before its oldest state are looked for, and other settings are told.
func TestVerifyEpochs(t *testing.T) {
	w := newVerifyWorld(t, testSeed(t))
	w.run(func(*system) { w.send(w.messages(700)...) })
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte("default:\n  thresholds:\n    repeated_failures: {count: 3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Only looked for, by other settings: told, and accepted when that is asked for.
	r, _ := w.verify("--settings", file)
	w.finds(r, finding{"unchecked", "entities topic", upPartitions, ""})
	r = w.exact("--settings", file, "--presence")
	if d := stageOf(r, "diagnoses"); d.Exact > 0 || d.Present == 0 {
		t.Errorf("by other settings:\n%s", reportText(&r))
	}

	w.config.Settings.File = file
	t.Setenv("SIGNINDIAG_SETTINGS_FILE", file)
	w.run(func(*system) { w.send(w.messages(300)...) })
	r = w.exact("--complete")
	if d := stageOf(r, "diagnoses"); d.Present > 0 {
		t.Errorf("the epoch begins at the log's first offset, but:\n%s", reportText(&r))
	}
	// The oldest states of the epoch are thinned away: what lies before what is left is looked for.
	names, err := filepath.Glob(strings.TrimPrefix(w.config.Snapshots.URL, "file://") + "/*/shard-*/*-00002-*.snapshot")
	if err != nil || len(names) < 2*upPartitions {
		t.Fatal(names, err)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	for i, name := range names {
		if i+1 < len(names) && filepath.Dir(names[i+1]) == filepath.Dir(name) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.run(func(*system) { w.send(w.messages(300)...) })
	r = w.exact("--complete")
	d := stageOf(r, "diagnoses")
	if d.Exact == 0 || d.Present == 0 {
		t.Errorf("from a state within the epoch:\n%s", reportText(&r))
	}
	// A row that is only looked for is missed when it is gone, and told when no record gives it.
	id := w.value("SELECT argMin(request_id, revision) FROM diagnoses FINAL")
	w.exec("INSERT INTO diagnoses_by_user SELECT * REPLACE('another' AS request_id) FROM (SELECT * FROM diagnoses_by_user FINAL WHERE request_id = '" + id + "')")
	w.exec("DELETE FROM diagnoses WHERE request_id = '" + id + "'")
	r, _ = w.verify()
	w.finds(r, finding{"lost", "diagnoses", 1, id}, finding{"repeated", "diagnoses_by_user", 1, "another"})
}

// TestVerifyLive: while records flow everything that is judged is exact.
func TestVerifyLive(t *testing.T) {
	w := newVerifyWorld(t, testSeed(t))
	w.run(func(*system) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond):
				}
				w.send(w.messages(10)...)
			}
		}()
		for n := range 20 {
			r, code := w.verify()
			if code != 0 {
				t.Errorf("look %d:\n%s", n, reportText(&r))
			}
			if n == 19 {
				t.Log("\n" + reportText(&r))
			}
		}
		close(stop)
		<-stopped
	})
	w.exact("--complete")
}
