package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/schemas/synthetic"
	"github.com/signindiag/signindiag/sinks"
)

// poison is a message that holds something that is no sign-in.
type poison struct {
	name string
	// message is nil for a tombstone. SIBLING stands for a good record, of which the message may hold several.
	message []byte
	// broken are the bytes that must be in quarantine, in order; siblings is how many good records the message holds.
	broken [][]byte
	stage  string
	topic  string
	time   time.Time
}

// sibling is a good record of its own.
func sibling(n int, at time.Time) []byte {
	return bytes.TrimSpace(synthetic.AppendEventHubs(nil, &synthetic.SignInSpec{
		Time: at, TenantID: synthetic.NamedGUID("tenant", "contoso"), RequestID: synthetic.GUID(7, uint64(n)), CorrelationID: synthetic.GUID(8, uint64(n)),
		UserID: synthetic.NamedGUID("user", fmt.Sprint(n%9)), UserPrincipalName: fmt.Sprintf("user%d@example.org", n%9), ErrorCode: 50126, Address: "203.0.113.7",
	}))
}

// TestPoison sends hostile input through the whole running system, which is killed on the way: every good record is diagnosed,
// every bad one is in quarantine exactly once, at its position and with the bytes that were sent, and nothing lags.
func TestPoison(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	one := func(name, stage string, broken []byte) poison {
		return poison{name: name, message: broken, broken: [][]byte{broken}, stage: stage}
	}
	among := func(name string, broken ...string) poison {
		p := poison{name: name, stage: "decode", message: []byte(`{"records":[SIBLING`)}
		for _, b := range broken {
			p.message = append(append(append(p.message, ','), b...), ",SIBLING"...)
			p.broken = append(p.broken, []byte(b))
		}
		p.message = append(p.message, "]}"...)
		return p
	}
	random := make([]byte, 60_000)
	rng := rand.NewChaCha8([32]byte{5})
	_, _ = rng.Read(random)
	refused := sibling(900_001, start)
	cases := []poison{
		among("wrong kinds of values", `17`, `"text"`, `null`, `true`, `{}`, `{"a":1}`),
		among("syntax in a record", `{"category":"SignInLogs","properties":{"id":7,}}`, `{"category":"SignInLogs","properties":{"id":"\x"}}`),
		among("deep nesting", `{"category":"SignInLogs","properties":`+strings.Repeat(`{"a":`, 3000)+`1`+strings.Repeat(`}`, 3000)+`}`),
		one("truncated JSON", "decode", []byte(`{"category":"SignInLogs","properties":{"id":"a","createdDateTime":"2026-03-0`)),
		// Eight arrays may lie around a record.
		{name: "open brackets", message: bytes.Repeat([]byte("["), 100_000), broken: [][]byte{bytes.Repeat([]byte("["), 100_000-9), {}}, stage: "decode"},
		one("open objects", "decode", bytes.Repeat([]byte(`{"a":`), 50_000)),
		one("random bytes", "decode", random),
		one("empty message", "decode", []byte{}),
		one("white space", "decode", []byte(" \n\t ")),
		{name: "tombstone", broken: [][]byte{{}}, stage: "decode"},
		one("5 MB record", "decode", []byte(`{"category":"SignInLogs","properties":{"id":"large","createdDateTime":"2026-03-02T09:00:00Z","userAgent":"`+strings.Repeat("x", 5<<20)+`"}}`)),
		{name: "bomb", message: bytes.Repeat([]byte("z"), 40<<20), broken: [][]byte{bytes.Repeat([]byte("z"), sinks.MaxQuarantinedBytes)}, stage: "decode"},
		{name: "a row that ClickHouse refuses", message: append(append([]byte(`{"records":[SIBLING,`), refused...), `,SIBLING]}`...), stage: "sink diagnoses"},
		{name: "garbage on the entities topic", topic: "signindiag.entities.v1", message: []byte("\xff\xff\x00garbage"), broken: [][]byte{[]byte("\xff\xff\x00garbage")}, stage: "entities"},
		{name: "nothing on the entities topic", topic: "signindiag.entities.v1", message: []byte{}, broken: [][]byte{{}}, stage: "entities"},
		{name: "time before 1970", message: []byte("old garbage"), broken: [][]byte{[]byte("old garbage")}, stage: "decode", time: time.UnixMilli(-77_000)},
		{name: "time far ahead", message: []byte("new garbage"), broken: [][]byte{[]byte("new garbage")}, stage: "decode", time: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)},
		// Not poison, but close to it.
		{name: "NUL and control bytes", message: []byte("{\"category\":\"SignInLogs\",\"properties\":{\"id\":\"nul\x00\x01\x1b[2J\"}}")},
		{name: "lone surrogates, huge numbers, invalid UTF-8", message: bytes.ReplaceAll([]byte(`{"records":[SIBLING]}`), []byte("SIBLING"),
			bytes.Replace(sibling(900_002, start), []byte(`"category"`), []byte("\"x\":\"\\ud800 \xff\",\"y\":1e999999,\"z\":123456789012345678901234567890,\"category\""), 1))},
	}
	siblings := 1
	for i := range cases {
		for bytes.Contains(cases[i].message, []byte("SIBLING")) {
			cases[i].message = bytes.Replace(cases[i].message, []byte("SIBLING"), sibling(siblings, start.Add(time.Duration(siblings)*time.Second)), 1)
			siblings++
		}
	}
	data := t.TempDir()
	u := startUp(t, data, "--import", writeFile(t, "first.json", sibling(0, start)))
	u.WaitFor(`Look it up again`)
	connect := func() clickhouse.Conn {
		t.Helper()
		conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{u.WaitFor(`ClickHouse +(\S+)`)[1]}, Auth: clickhouse.Auth{Database: "signindiag"}})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := connect()
	err := conn.Exec(t.Context(), "ALTER TABLE diagnoses ADD CONSTRAINT no_poison CHECK request_id != '"+synthetic.GUID(7, 900_001)+"'")
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	pause := rand.New(rand.NewPCG(seed, 0))
	place := map[string]poison{} // topic/partition/offset
	for i, c := range cases {
		if i == len(cases)/3 || i == 2*len(cases)/3 {
			time.Sleep(time.Duration(pause.Int64N(int64(2 * time.Second))))
			u.Kill()
			u = startUp(t, data)
		}
		topic, offset := "signindiag.raw", int64(0)
		if c.topic != "" {
			topic = c.topic
		}
		client, err := kgo.NewClient(kgo.SeedBrokers(u.WaitFor(`Kafka +(\S+)`)[1]), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
			kgo.ProducerBatchMaxBytes(100<<20), kgo.BrokerMaxWriteBytes(200<<20), kgo.DisableIdempotentWrite())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), program.Long)
		record := &kgo.Record{Topic: topic, Partition: int32(i % 4), Value: c.message, Timestamp: c.time}
		err = client.ProduceSync(ctx, record).FirstErr()
		cancel()
		client.Close()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		offset = record.Offset
		place[fmt.Sprintf("%s/%d/%d", topic, record.Partition, offset)] = c
	}
	conn = connect()
	defer conn.Close()
	number := func(query string) (n uint64) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	want := uint64(1) // the row that is refused
	for _, c := range cases {
		want += uint64(len(c.broken))
	}
	wantRows := uint64(siblings) + 2 // and those that are only close to poison
	lag := regexp.MustCompile(`(?m)^signindiag_kafka_lag_records\{.*\} ([^0].*)$`)
	deadline := time.Now().Add(program.Long)
	for {
		_, metrics := get(t, u.API()+"/metrics")
		quarantined, rows := number("SELECT count() FROM quarantine FINAL"), number("SELECT count() FROM diagnoses FINAL")
		if quarantined >= want && rows >= wantRows && strings.Contains(metrics, "signindiag_kafka_lag_records{") && !lag.MatchString(metrics) {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d records in quarantine, want %d; %d rows, want %d; lag %v", quarantined, want, rows, wantRows, lag.FindAllString(metrics, -1))
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if quarantined, rows := number("SELECT count() FROM quarantine FINAL"), number("SELECT count() FROM diagnoses FINAL"); quarantined != want || rows != wantRows {
		t.Errorf("%d records in quarantine, want %d; %d rows, want %d", quarantined, want, rows, wantRows)
	}
	if got := number("SELECT max(size) FROM quarantine"); got != 40<<20 {
		t.Errorf("the largest record has %d bytes, want %d", got, 40<<20)
	}
	rows, err := conn.Query(t.Context(), "SELECT concat(source_topic, '/', toString(source_partition), '/', toString(source_offset)), stage, reason, error, bytes FROM quarantine FINAL ORDER BY source_topic, source_partition, source_offset, source_index")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	next := map[string]int{}
	for rows.Next() {
		var at, stage, reason, text string
		var got []byte
		if err := rows.Scan(&at, &stage, &reason, &text, &got); err != nil {
			t.Fatal(err)
		}
		c, ok := place[at]
		if stage == "sink diagnoses" {
			if !bytes.Contains(got, []byte(synthetic.GUID(7, 900_001))) {
				t.Errorf("a refused row: %s", got)
			}
			continue
		}
		if !ok || stage != c.stage || next[at] >= len(c.broken) || !bytes.Equal(got, c.broken[next[at]]) || text == "" || reason == "" {
			t.Errorf("%s (%s): stage %s, reason %s, %s, %d bytes %.60q", at, c.name, stage, reason, text, len(got), got)
		}
		next[at]++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for at, c := range place {
		if next[at] != len(c.broken) {
			t.Errorf("%s: %d records in quarantine, want %d", c.name, next[at], len(c.broken))
		}
	}
	if text := u.Text(); strings.Contains(text, "panic") || strings.Contains(text, "goroutine ") {
		t.Error("the system failed on it")
	}
	out, errs, code := command(t, nil, "quarantine", "list", "--data", data)
	if code != 0 || strings.ContainsAny(out, "\x00\x1b") || !strings.Contains(out, "decode, empty") {
		t.Errorf("list: exit code %d\n%s%s", code, out, errs)
	}
	file := filepath.Join(data, "bytes")
	for at, c := range place {
		if c.name == "random bytes" {
			if _, errs, code := command(t, nil, "quarantine", "show", "--data", data, "--bytes", file, at); code != 0 {
				t.Errorf("show: exit code %d: %s", code, errs)
			}
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, random) {
		t.Errorf("show wrote %d bytes, want %d (%v)", len(got), len(random), err)
	}
	// None of it can be read by this version; the refused row is refused again.
	out, errs, code = command(t, nil, "quarantine", "replay", "--data", data)
	if code != 1 || !strings.Contains(out, "0 records replayed") {
		t.Errorf("replay: exit code %d\n%s%s", code, out, errs)
	}
	if code := u.Interrupt(); code != 0 {
		t.Errorf("Ctrl-C: exit code %d", code)
	}
}
