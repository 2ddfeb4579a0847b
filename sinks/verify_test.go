package sinks_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/sinks"
)

// awkward are texts that a careless form of a row would mix up.
var awkward = []string{"", ":", "1:a", ";", "1;", "a", "ab", "b", "'", `\`, "\x00", "\xff\xfe", "\n", "Ä", "İ", "user@Contoso.example", "{", "2:ab1:c"}

func texts(r *rand.Rand) []string {
	list := make([]string, r.IntN(4))
	for i := range list {
		list[i] = awkward[r.IntN(len(awkward))]
	}
	return list
}

func awkwardRows(r *rand.Rand, offset int64) *detectors.Rows {
	text := func() string { return awkward[r.IntN(len(awkward))] }
	revision := detectors.Revision(3, offset)
	d := diagnosis(r, offset)
	d.User, d.UserID, d.App, d.AttemptID, d.Also, d.Unknown, d.Incidents = text(), text(), text(), text(), texts(r), texts(r), texts(r)
	d.ErrorCode, d.Revision = []int32{0, -1, math.MinInt32, math.MaxInt32, 50126}[r.IntN(5)], revision
	i := detectors.Incident{
		IncidentID: fmt.Sprint("incident-", offset), Kind: text(), Also: texts(r), Severity: text(), EntityKind: text(), EntityValue: text(), TenantID: text(),
		FirstSeen: epochStart, LastSeen: epochStart + r.Int64N(1e12), Users: texts(r), Addresses: texts(r), Applications: texts(r), Devices: texts(r), OperatingSystems: texts(r),
		ClientApps: texts(r), Outcome: text(), RequestIDs: texts(r), RequestIDsTotal: r.Int64(), Revision: revision,
	}
	for _, n := range r.Perm(len(awkward))[:r.IntN(4)] {
		i.Counts = append(i.Counts, detectors.Count{Name: awkward[n], Value: r.Int64() - r.Int64()})
	}
	m := detectors.IncidentMember{IncidentID: text(), TenantID: text(), RequestID: guid(r), CorrelationID: text(), EventTime: d.EventTime, Revision: revision}
	return &detectors.Rows{Diagnoses: []detectors.Diagnosis{d}, Incidents: []detectors.Incident{i}, Members: []detectors.IncidentMember{m}}
}

// TestVerifyHashesAreTheServers: what a sink stored has the hash that is expected of it, and no other when any column is another.
func TestVerifyHashesAreTheServers(t *testing.T) {
	e := newEnvironment(t)
	sink := e.sink(e.config())
	stop := e.start(sink)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	hasher := sinks.NewRowHasher(renderer{})
	want := [sinks.Relations]map[uint64]sinks.HashedRow{}
	for i := range want {
		want[i] = map[uint64]sinks.HashedRow{}
	}
	for offset := range int64(300) {
		rows := awkwardRows(r, offset)
		if offset%50 == 0 {
			rows.Diagnoses[0].EventTime += 30 * 24 * 3600 * 1e6 // another week
		}
		e.write(sink, rows, position(5, offset))
		hasher.Hash(rows, position(5, offset), func(relation sinks.Relation, row sinks.HashedRow) { want[relation][row.Key] = row })
	}
	e.flush(sink)
	stop()
	reader := sinks.VerifyReader{Conn: e.conn, Database: e.database}
	for relation := range sinks.Relations {
		got := map[uint64]sinks.HashedRow{}
		if err := reader.Rows(e.ctx, relation, 5, math.MinInt64, math.MaxInt64, func(row sinks.HashedRow) { got[row.Key] = row }); err != nil {
			t.Fatal(err)
		}
		if len(got) < 200 || !maps.Equal(got, want[relation]) {
			t.Errorf("%s: %d rows stored, %d expected, or others", relation, len(got), len(want[relation]))
		}
		e.everyColumnCounts(relation.String(), sinks.RowSQL(relation), nil)
		named := 0
		if err := reader.Keys(e.ctx, relation, slices.Collect(maps.Keys(got)), func(row sinks.HashedRow, shard uint16, name string) {
			if got[row.Key] == row && shard == 5 && strings.Contains(name, "=") {
				named++
			}
		}); err != nil {
			t.Fatal(err)
		}
		if named != len(got) {
			t.Errorf("%s: %d rows of %d are found by key", relation, named, len(got))
		}
	}
	if n := query[uint64](e, "SELECT count() FROM "+e.database+".diagnoses_by_user FINAL"); n != uint64(len(want[sinks.DiagnosesByUser])) {
		t.Errorf("%d rows by user, %d expected", n, len(want[sinks.DiagnosesByUser]))
	}
}

// everyColumnCounts changes each column of a table in turn and fails where a hash stays as it was.
func (e *environment) everyColumnCounts(table, hash string, but []string) {
	e.t.Helper()
	type column struct{ Name, Type string }
	var columns []column
	rows, err := e.conn.Query(e.ctx, "SELECT name, type FROM system.columns WHERE database = ? AND table = ?", e.database, table)
	if err != nil {
		e.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.Name, &c.Type); err != nil {
			e.t.Fatal(err)
		}
		columns = append(columns, c)
	}
	if len(columns) < 4 {
		e.t.Fatalf("%s has the columns %v", table, columns)
	}
	for _, c := range columns {
		if slices.Contains(but, c.Name) {
			continue
		}
		changed := "`" + c.Name + "` + 1"
		switch {
		case strings.HasPrefix(c.Type, "Array"):
			changed = "arrayPushBack(`" + c.Name + "`, '')"
		case strings.HasPrefix(c.Type, "Map"):
			changed = "mapUpdate(`" + c.Name + "`, map('another', toInt64(0)))"
		case strings.HasPrefix(c.Type, "DateTime64(6"):
			changed = "addMicroseconds(`" + c.Name + "`, 1)"
		case strings.HasPrefix(c.Type, "DateTime64(3"):
			changed = "addMilliseconds(`" + c.Name + "`, 1)"
		case strings.Contains(c.Type, "String"):
			changed = "concat(`" + c.Name + "`, ' ')"
		}
		changed = "CAST(" + changed + ", '" + strings.ReplaceAll(c.Type, "'", `\'`) + "')"
		stored := e.database + "." + table + " FINAL"
		same := query[uint64](e, "SELECT countIf(h IN (SELECT "+hash+" FROM "+stored+")) FROM (SELECT "+hash+" AS h FROM (SELECT * REPLACE("+changed+" AS `"+c.Name+"`) FROM "+stored+"))")
		if same > 0 {
			e.t.Errorf("%s: %d rows have the same hash with another %s", table, same, c.Name)
		}
	}
}

// TestVerifyRecordHashesAreTheServers is the same for quarantine and raw_records.
func TestVerifyRecordHashesAreTheServers(t *testing.T) {
	e := newEnvironment(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	cfg := sinks.RecordsConfig{Server: e.server}
	quarantine, err := sinks.NewQuarantine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sinks.NewRawRecords(cfg)
	if err != nil {
		t.Fatal(err)
	}
	hasher := sinks.NewRecordHasher()
	wantQuarantine, wantRaw := map[sinks.SourceHour]sinks.Fold{}, map[sinks.SourceHour]sinks.Fold{}
	add := func(folds map[sinks.SourceHour]sinks.Fold, k sinks.SourceHour, hash uint64) {
		f := folds[k]
		f.Add(hash)
		folds[k] = f
	}
	run := func(s interface {
		Run(ctx context.Context) error
		Flush(ctx context.Context) error
	}, put func() error) {
		t.Helper()
		ctx, cancel := context.WithCancel(e.ctx)
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		if err := put(); err != nil {
			t.Fatal(err)
		}
		e.flush(s)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	var bad []sinks.QuarantinedRecord
	var good []sinks.RawRecord
	for i := range int64(200) {
		source := sinks.Source{Topic: "it's raw", Incarnation: 2, Partition: int32(i % 3), Offset: i, Index: uint32(r.IntN(3))}
		received := epochStart/1000 + r.Int64N(10*3_600_000)
		if i%40 == 0 {
			received = -1 // none
		}
		q := sinks.QuarantinedRecord{Source: source, Stage: "decode", ReceivedTime: received, Reason: "r", Error: "e", Bytes: []byte(awkward[r.IntN(len(awkward))])}
		g := sinks.RawRecord{Source: source, RequestID: guid(r), TenantID: awkward[r.IntN(len(awkward))], EventTime: epochStart + i, ReceivedTime: received, Bytes: []byte(awkward[r.IntN(len(awkward))])}
		bad, good = append(bad, q), append(good, g)
		hash, hour := hasher.Quarantined(&q)
		add(wantQuarantine, sinks.SourceHour{Topic: source.Topic, Partition: source.Partition, Hour: hour}, hash)
		hash, hour = hasher.Raw(&g)
		add(wantRaw, sinks.SourceHour{Topic: source.Topic, Partition: source.Partition, Hour: hour}, hash)
	}
	run(quarantine, func() error { return quarantine.Put(e.ctx, bad) })
	run(raw, func() error { return raw.Put(e.ctx, good) })
	reader := sinks.VerifyReader{Conn: e.conn, Database: e.database}
	var ranges []sinks.SourceRange
	for p := range int32(3) {
		ranges = append(ranges, sinks.SourceRange{Topic: "it's raw", Incarnation: 2, Partition: p, From: 0, To: 200})
	}
	for table, want := range map[string]map[sinks.SourceHour]sinks.Fold{sinks.QuarantineTable: wantQuarantine, sinks.RawRecordsTable: wantRaw} {
		stage, but := "", []string(nil)
		if table == sinks.QuarantineTable {
			stage, but = "decode", []string{"reason", "error", "quarantined_time", "fingerprint"}
		}
		got, err := reader.SourceFolds(e.ctx, table, stage, ranges, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < 10 || !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", table, got, want)
		}
		e.everyColumnCounts(table, sinks.RecordSQL(table), but)
		ranges := slices.Clone(ranges[:1])
		ranges[0].To = 100
		if got, err = reader.SourceFolds(e.ctx, table, stage, ranges, 0); err != nil || len(got) == 0 {
			t.Fatal(got, err)
		}
		n := uint64(0)
		for _, f := range got {
			n += f.Count
		}
		if n != 34 { // offsets 0, 3 ... 99
			t.Errorf("%s: %d rows in the range, want 34", table, n)
		}
	}
}
