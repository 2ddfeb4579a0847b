package sinks

import (
	"encoding/json"
	"math/bits"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signindiag/signindiag/detectors"
)

// table is the rows of one block that go into one partition of one table: what one INSERT sends.
type table interface {
	// name is the table's name without the database.
	name() string
	rows() int
	// size is the number of bytes that the rows take in memory, about as many as they take on the wire
	// before compression.
	size() int
	// input appends the columns of rows [lo, hi).
	input(dst proto.Input, lo, hi int) proto.Input
	// quarantined describes a row that the server refused.
	quarantined(row int, topic string) QuarantinedRecord
	reset()
}

// columns is the part of a table that does not depend on its rows' type.
type columns struct {
	table string
	names []string
	cols  []column
	n     int
	bytes int
}

func (c *columns) name() string { return c.table }
func (c *columns) rows() int    { return c.n }
func (c *columns) size() int    { return c.bytes }

func (c *columns) add(name string, col column) {
	c.names = append(c.names, name)
	c.cols = append(c.cols, col)
}

func (c *columns) input(dst proto.Input, lo, hi int) proto.Input {
	for i, col := range c.cols {
		dst = append(dst, proto.InputColumn{Name: c.names[i], Data: col.view(lo, hi)})
	}
	return dst
}

func (c *columns) reset() {
	for _, col := range c.cols {
		col.reset()
	}
	c.n, c.bytes = 0, 0
}

// row says where a row with the given hash of its key goes: to the place of an earlier revision of the same
// key, or to the end. It returns -1 when the block already holds a newer one.
func (c *columns) row(ix *rowIndex, hash, revision uint64, revisions *uint64Column, same func(row int) bool) int {
	row, found := ix.find(hash, same)
	if !found {
		ix.insert(hash, c.n)
		c.n++
		return c.n - 1
	}
	if revisions.ColUInt64[row] > revision {
		return -1
	}
	return row
}

// rowIndex finds the row of a key within a block: open addressing over hashes, no pointers, memory kept
// between blocks.
type rowIndex struct {
	slots  []uint32 // row + 1, 0 for an empty slot
	hashes []uint64 // by row
	shift  uint
}

// find returns the row with the given hash for which same holds.
func (x *rowIndex) find(hash uint64, same func(row int) bool) (int, bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(x.slots) - 1)
	for i := hash >> x.shift; ; i++ {
		s := x.slots[i&mask]
		if s == 0 {
			return 0, false
		}
		if row := int(s - 1); x.hashes[row] == hash && same(row) {
			return row, true
		}
	}
}

// insert adds a row that find did not return; rows come in ascending order without a gap.
func (x *rowIndex) insert(hash uint64, row int) {
	x.hashes = append(x.hashes, hash)
	if len(x.hashes)*2 > len(x.slots) {
		n := max(64, 1<<bits.Len(uint(len(x.hashes)*2)))
		x.slots = make([]uint32, n)
		x.shift = uint(64 - bits.Len(uint(n-1)))
		for r, h := range x.hashes {
			x.place(h, r)
		}
		return
	}
	x.place(hash, row)
}

func (x *rowIndex) place(hash uint64, row int) {
	mask := uint64(len(x.slots) - 1)
	i := hash >> x.shift
	for x.slots[i&mask] != 0 {
		i++
	}
	x.slots[i&mask] = uint32(row + 1)
}

func (x *rowIndex) reset() {
	clear(x.slots)
	x.hashes = x.hashes[:0]
}

// revisionOffsetMask takes the offset in the entities topic out of a revision.
const revisionOffsetMask = 1<<48 - 1

// refusedRow describes a row of a table that the server refused: its source is the message of the entities
// topic that made it, its bytes are the row as JSON. A message may make several rows of a table, so the index is taken from the
// hash of the row's key.
func refusedRow(topic, table string, shard uint16, revision, key uint64, receivedMS int64, row any) QuarantinedRecord {
	b, err := json.Marshal(row)
	if err != nil {
		// Rows are strings and integers; JSON has a form for all of them.
		b = []byte(err.Error())
	}
	return QuarantinedRecord{
		Source:       Source{Topic: topic, Partition: int32(shard), Offset: int64(revision & revisionOffsetMask), Index: uint32(key)},
		Stage:        SinkStage(table),
		ReceivedTime: receivedMS,
		Reason:       "row refused by ClickHouse",
		Bytes:        b,
	}
}

type diagnosesTable struct {
	columns
	index                                                                                     rowIndex
	requestID, correlationID, user, userID, address, attemptID, summary, evidence             stringColumn
	tenantID, category, app, resource, clientApp, outcome, attemptOutcome, scenario, severity lowCardinalityColumn
	eventTime                                                                                 microsecondsColumn
	receivedTime                                                                              millisecondsColumn
	errorCode                                                                                 int32Column
	also, unknown                                                                             lowCardinalityArrayColumn
	incidents                                                                                 stringArrayColumn
	shard                                                                                     uint16Column
	revision                                                                                  uint64Column
}

func newDiagnosesTable() *diagnosesTable {
	t := &diagnosesTable{columns: columns{table: "diagnoses"}}
	t.add("request_id", &t.requestID)
	t.add("correlation_id", &t.correlationID)
	t.add("tenant_id", &t.tenantID)
	t.add("event_time", &t.eventTime)
	t.add("received_time", &t.receivedTime)
	t.add("category", &t.category)
	t.add("user", &t.user)
	t.add("user_id", &t.userID)
	t.add("app", &t.app)
	t.add("resource", &t.resource)
	t.add("client_app", &t.clientApp)
	t.add("address", &t.address)
	t.add("error_code", &t.errorCode)
	t.add("outcome", &t.outcome)
	t.add("attempt_id", &t.attemptID)
	t.add("attempt_outcome", &t.attemptOutcome)
	t.add("scenario", &t.scenario)
	t.add("also", &t.also)
	t.add("severity", &t.severity)
	t.add("summary", &t.summary)
	t.add("evidence", &t.evidence)
	t.add("unknown", &t.unknown)
	t.add("incidents", &t.incidents)
	t.add("shard", &t.shard)
	t.add("revision", &t.revision)
	return t
}

func (t *diagnosesTable) put(d *detectors.Diagnosis, hash uint64, summary, evidence string, shard uint16) {
	r := t.row(&t.index, hash, d.Revision, &t.revision, func(row int) bool {
		return t.requestID.equal(row, d.RequestID) && t.correlationID.equal(row, d.CorrelationID) && t.tenantID.equal(row, d.TenantID)
	})
	if r < 0 {
		return
	}
	t.requestID.put(r, d.RequestID)
	t.correlationID.put(r, d.CorrelationID)
	t.tenantID.put(r, d.TenantID)
	t.eventTime.put(r, d.EventTime)
	t.receivedTime.put(r, d.ReceivedTime)
	t.category.put(r, d.Category)
	t.user.put(r, d.User)
	t.userID.put(r, d.UserID)
	t.app.put(r, d.App)
	t.resource.put(r, d.Resource)
	t.clientApp.put(r, d.ClientApp)
	t.address.put(r, d.Address)
	t.errorCode.put(r, d.ErrorCode)
	t.outcome.put(r, d.Outcome)
	t.attemptID.put(r, d.AttemptID)
	t.attemptOutcome.put(r, d.AttemptOutcome)
	t.scenario.put(r, d.Scenario)
	t.also.put(r, d.Also)
	t.severity.put(r, d.Severity)
	t.summary.put(r, summary)
	t.evidence.put(r, evidence)
	t.unknown.put(r, d.Unknown)
	t.incidents.put(r, d.Incidents)
	t.shard.put(r, shard)
	t.revision.put(r, d.Revision)
	t.bytes = len(t.requestID.Buf) + len(t.correlationID.Buf) + len(t.user.Buf) + len(t.userID.Buf) + len(t.address.Buf) +
		len(t.attemptID.Buf) + len(t.summary.Buf) + len(t.evidence.Buf) + len(t.incidents.buf) + t.n*diagnosisFixedBytes
}

// diagnosisFixedBytes is what a row of diagnoses takes beside its strings: numbers, keys and positions.
const diagnosisFixedBytes = 250

func (t *diagnosesTable) quarantined(row int, topic string) QuarantinedRecord {
	return refusedRow(topic, t.table, t.shard.ColUInt16[row], t.revision.ColUInt64[row], t.index.hashes[row], t.receivedTime.ColInt64[row], map[string]any{
		"request_id": t.requestID.at(row), "correlation_id": t.correlationID.at(row), "tenant_id": t.tenantID.at(row),
		"event_time": t.eventTime.ColInt64[row], "received_time": t.receivedTime.ColInt64[row], "category": t.category.at(row),
		"user": t.user.at(row), "user_id": t.userID.at(row), "app": t.app.at(row), "resource": t.resource.at(row),
		"client_app": t.clientApp.at(row), "address": t.address.at(row), "error_code": t.errorCode.ColInt32[row],
		"outcome": t.outcome.at(row), "attempt_id": t.attemptID.at(row), "attempt_outcome": t.attemptOutcome.at(row),
		"scenario": t.scenario.at(row), "also": t.also.at(row), "severity": t.severity.at(row), "summary": t.summary.at(row),
		"evidence": t.evidence.at(row), "unknown": t.unknown.at(row), "incidents": t.incidents.at(row),
		"shard": t.shard.ColUInt16[row], "revision": t.revision.ColUInt64[row],
	})
}

func (t *diagnosesTable) reset() { t.columns.reset(); t.index.reset() }

type incidentsTable struct {
	columns
	index                                                                             rowIndex
	incidentID, entityValue                                                           stringColumn
	kind, severity, entityKind, tenantID, outcome                                     lowCardinalityColumn
	firstSeen, lastSeen                                                               microsecondsColumn
	users, addresses, applications, devices, operatingSystems, clientApps, requestIDs stringArrayColumn
	also                                                                              stringArrayColumn
	counts                                                                            countsColumn
	requestIDsTotal                                                                   int64Column
	shard                                                                             uint16Column
	revision                                                                          uint64Column
}

func newIncidentsTable() *incidentsTable {
	t := &incidentsTable{columns: columns{table: "incidents"}}
	t.add("incident_id", &t.incidentID)
	t.add("kind", &t.kind)
	t.add("severity", &t.severity)
	t.add("entity_kind", &t.entityKind)
	t.add("entity_value", &t.entityValue)
	t.add("tenant_id", &t.tenantID)
	t.add("first_seen", &t.firstSeen)
	t.add("last_seen", &t.lastSeen)
	t.add("users", &t.users)
	t.add("addresses", &t.addresses)
	t.add("applications", &t.applications)
	t.add("devices", &t.devices)
	t.add("operating_systems", &t.operatingSystems)
	t.add("client_apps", &t.clientApps)
	t.add("counts", &t.counts)
	t.add("outcome", &t.outcome)
	t.add("request_ids", &t.requestIDs)
	t.add("request_ids_total", &t.requestIDsTotal)
	t.add("also", &t.also)
	t.add("shard", &t.shard)
	t.add("revision", &t.revision)
	return t
}

func (t *incidentsTable) put(i *detectors.Incident, hash uint64, shard uint16) {
	r := t.row(&t.index, hash, i.Revision, &t.revision, func(row int) bool {
		return t.incidentID.equal(row, i.IncidentID) && t.tenantID.equal(row, i.TenantID)
	})
	if r < 0 {
		return
	}
	t.incidentID.put(r, i.IncidentID)
	t.kind.put(r, i.Kind)
	t.severity.put(r, i.Severity)
	t.entityKind.put(r, i.EntityKind)
	t.entityValue.put(r, i.EntityValue)
	t.tenantID.put(r, i.TenantID)
	t.firstSeen.put(r, i.FirstSeen)
	t.lastSeen.put(r, i.LastSeen)
	t.users.put(r, i.Users)
	t.addresses.put(r, i.Addresses)
	t.applications.put(r, i.Applications)
	t.devices.put(r, i.Devices)
	t.operatingSystems.put(r, i.OperatingSystems)
	t.clientApps.put(r, i.ClientApps)
	t.counts.put(r, len(i.Counts), func(k int) (string, int64) { return i.Counts[k].Name, i.Counts[k].Value })
	t.outcome.put(r, i.Outcome)
	t.requestIDs.put(r, i.RequestIDs)
	t.requestIDsTotal.put(r, i.RequestIDsTotal)
	t.also.put(r, i.Also)
	t.shard.put(r, shard)
	t.revision.put(r, i.Revision)
	t.bytes = len(t.incidentID.Buf) + len(t.entityValue.Buf) + t.n*incidentFixedBytes + t.users.size() + t.addresses.size() +
		t.applications.size() + t.devices.size() + t.operatingSystems.size() + t.clientApps.size() + t.requestIDs.size() + t.also.size() + t.counts.size()
}

// incidentFixedBytes is what a row of incidents takes beside its strings and lists.
const incidentFixedBytes = 200

func (t *incidentsTable) quarantined(row int, topic string) QuarantinedRecord {
	return refusedRow(topic, t.table, t.shard.ColUInt16[row], t.revision.ColUInt64[row], t.index.hashes[row], t.lastSeen.ColInt64[row]/1000, map[string]any{
		"incident_id": t.incidentID.at(row), "kind": t.kind.at(row), "severity": t.severity.at(row),
		"entity_kind": t.entityKind.at(row), "entity_value": t.entityValue.at(row), "tenant_id": t.tenantID.at(row),
		"first_seen": t.firstSeen.ColInt64[row], "last_seen": t.lastSeen.ColInt64[row], "users": t.users.at(row),
		"addresses": t.addresses.at(row), "applications": t.applications.at(row), "devices": t.devices.at(row),
		"operating_systems": t.operatingSystems.at(row), "client_apps": t.clientApps.at(row), "counts": t.counts.at(row),
		"outcome": t.outcome.at(row), "request_ids": t.requestIDs.at(row), "request_ids_total": t.requestIDsTotal.ColInt64[row],
		"also": t.also.at(row), "shard": t.shard.ColUInt16[row], "revision": t.revision.ColUInt64[row],
	})
}

func (t *incidentsTable) reset() { t.columns.reset(); t.index.reset() }

type membersTable struct {
	columns
	index                                rowIndex
	incidentID, requestID, correlationID stringColumn
	tenantID                             lowCardinalityColumn
	eventTime                            microsecondsColumn
	shard                                uint16Column
	revision                             uint64Column
}

func newMembersTable() *membersTable {
	t := &membersTable{columns: columns{table: "incident_members"}}
	t.add("incident_id", &t.incidentID)
	t.add("tenant_id", &t.tenantID)
	t.add("request_id", &t.requestID)
	t.add("correlation_id", &t.correlationID)
	t.add("event_time", &t.eventTime)
	t.add("shard", &t.shard)
	t.add("revision", &t.revision)
	return t
}

func (t *membersTable) put(m *detectors.IncidentMember, hash uint64, shard uint16) {
	r := t.row(&t.index, hash, m.Revision, &t.revision, func(row int) bool {
		return t.requestID.equal(row, m.RequestID) && t.correlationID.equal(row, m.CorrelationID) &&
			t.tenantID.equal(row, m.TenantID) && t.incidentID.equal(row, m.IncidentID)
	})
	if r < 0 {
		return
	}
	t.incidentID.put(r, m.IncidentID)
	t.tenantID.put(r, m.TenantID)
	t.requestID.put(r, m.RequestID)
	t.correlationID.put(r, m.CorrelationID)
	t.eventTime.put(r, m.EventTime)
	t.shard.put(r, shard)
	t.revision.put(r, m.Revision)
	t.bytes = len(t.incidentID.Buf) + len(t.requestID.Buf) + len(t.correlationID.Buf) + t.n*memberFixedBytes
}

// memberFixedBytes is what a row of incident_members takes beside its strings.
const memberFixedBytes = 100

func (t *membersTable) quarantined(row int, topic string) QuarantinedRecord {
	return refusedRow(topic, t.table, t.shard.ColUInt16[row], t.revision.ColUInt64[row], t.index.hashes[row], t.eventTime.ColInt64[row]/1000, map[string]any{
		"incident_id": t.incidentID.at(row), "tenant_id": t.tenantID.at(row), "request_id": t.requestID.at(row),
		"correlation_id": t.correlationID.at(row), "event_time": t.eventTime.ColInt64[row],
		"shard": t.shard.ColUInt16[row], "revision": t.revision.ColUInt64[row],
	})
}

func (t *membersTable) reset() { t.columns.reset(); t.index.reset() }

// progressTable holds the newest position of every shard that moved in a block.
type progressTable struct {
	columns
	topic             lowCardinalityColumn
	shard, epoch      uint16Column
	offset            int64Column
	hash, fingerprint uint64Column
	incarnation       uint32Column
	updated           millisecondsColumn
}

func newProgressTable() *progressTable {
	t := &progressTable{columns: columns{table: "progress"}}
	t.add("topic", &t.topic)
	t.add("shard", &t.shard)
	t.add("epoch", &t.epoch)
	t.add("offset", &t.offset)
	t.add("hash", &t.hash)
	t.add("incarnation", &t.incarnation)
	t.add("fingerprint", &t.fingerprint)
	t.add("updated", &t.updated)
	return t
}

func (t *progressTable) put(topic string, p Position, nowMS int64) {
	r := t.n
	t.n++
	t.topic.put(r, topic)
	t.shard.put(r, p.Shard)
	t.epoch.put(r, p.Epoch)
	t.offset.put(r, p.Offset)
	t.hash.put(r, p.Hash)
	t.incarnation.put(r, p.Incarnation)
	t.fingerprint.put(r, p.Fingerprint)
	t.updated.put(r, nowMS)
}

// quarantined is never asked for: the table has no constraint, and its rows are numbers and the topic's name.
func (t *progressTable) quarantined(row int, topic string) QuarantinedRecord {
	return refusedRow(topic, t.table, t.shard.ColUInt16[row], uint64(t.offset.ColInt64[row]), 0, t.updated.ColInt64[row], map[string]any{
		"shard": t.shard.ColUInt16[row], "epoch": t.epoch.ColUInt16[row], "offset": t.offset.ColInt64[row],
	})
}

// quarantineTable holds records that left the way.
type quarantineTable struct {
	columns
	source        sourceColumns
	stage, reason lowCardinalityColumn
	receivedTime  millisecondsColumn
	err, raw      stringColumn
	writtenTime   millisecondsColumn
	recordSize    uint64Column
	fingerprint   uint64Column
}

// sourceColumns are the columns that name an input record.
type sourceColumns struct {
	topic       lowCardinalityColumn
	incarnation uint32Column
	partition   int32Column
	offset      int64Column
	index       uint32Column
}

func (s *sourceColumns) addTo(c *columns) {
	c.add("source_topic", &s.topic)
	c.add("source_incarnation", &s.incarnation)
	c.add("source_partition", &s.partition)
	c.add("source_offset", &s.offset)
	c.add("source_index", &s.index)
}

func (s *sourceColumns) put(r int, v Source) {
	s.topic.put(r, v.Topic)
	s.incarnation.put(r, v.Incarnation)
	s.partition.put(r, v.Partition)
	s.offset.put(r, v.Offset)
	s.index.put(r, v.Index)
}

func (s *sourceColumns) at(r int) Source {
	return Source{Topic: s.topic.at(r), Incarnation: s.incarnation.ColUInt32[r], Partition: s.partition.ColInt32[r],
		Offset: s.offset.ColInt64[r], Index: s.index.ColUInt32[r]}
}

func newQuarantineTable() *quarantineTable {
	t := &quarantineTable{columns: columns{table: "quarantine"}}
	t.source.addTo(&t.columns)
	t.add("stage", &t.stage)
	t.add("received_time", &t.receivedTime)
	t.add("reason", &t.reason)
	t.add("error", &t.err)
	t.add("bytes", &t.raw)
	t.add("quarantined_time", &t.writtenTime)
	t.add("size", &t.recordSize)
	t.add("fingerprint", &t.fingerprint)
	return t
}

func (t *quarantineTable) put(q *QuarantinedRecord, nowMS int64) {
	r := t.n
	t.n++
	t.source.put(r, q.Source)
	t.stage.put(r, q.Stage)
	t.receivedTime.put(r, clampMillis(q.ReceivedTime))
	t.reason.put(r, q.Reason)
	t.err.put(r, q.Error)
	t.raw.putBytes(q.Bytes[:min(len(q.Bytes), MaxQuarantinedBytes)])
	t.writtenTime.put(r, nowMS)
	t.recordSize.put(r, uint64(len(q.Bytes)))
	t.fingerprint.put(r, q.Fingerprint)
	t.bytes = len(t.err.Buf) + len(t.raw.Buf) + t.n*recordFixedBytes
}

// recordFixedBytes is what a row of quarantine and of raw_records takes beside its strings.
const recordFixedBytes = 150

func (t *quarantineTable) quarantined(row int, _ string) QuarantinedRecord {
	return QuarantinedRecord{Source: t.source.at(row), Stage: t.stage.at(row), ReceivedTime: t.receivedTime.ColInt64[row],
		Reason: t.reason.at(row), Error: t.err.at(row), Bytes: []byte(t.raw.at(row)), Fingerprint: t.fingerprint.ColUInt64[row]}
}

// rawTable holds records as received.
type rawTable struct {
	columns
	source       sourceColumns
	requestID    stringColumn
	tenantID     lowCardinalityColumn
	eventTime    microsecondsColumn
	receivedTime millisecondsColumn
	raw          stringColumn
}

func newRawTable() *rawTable {
	t := &rawTable{columns: columns{table: "raw_records"}}
	t.add("request_id", &t.requestID)
	t.add("tenant_id", &t.tenantID)
	t.add("event_time", &t.eventTime)
	t.add("received_time", &t.receivedTime)
	t.source.addTo(&t.columns)
	t.add("raw", &t.raw)
	return t
}

func (t *rawTable) put(q *RawRecord) {
	r := t.n
	t.n++
	t.requestID.put(r, q.RequestID)
	t.tenantID.put(r, q.TenantID)
	t.eventTime.put(r, q.EventTime)
	t.receivedTime.put(r, clampMillis(q.ReceivedTime))
	t.source.put(r, q.Source)
	t.raw.putBytes(q.Bytes)
	t.bytes = len(t.requestID.Buf) + len(t.raw.Buf) + t.n*recordFixedBytes
}

func (t *rawTable) quarantined(row int, _ string) QuarantinedRecord {
	return QuarantinedRecord{Source: t.source.at(row), Stage: SinkStage(t.table), ReceivedTime: t.receivedTime.ColInt64[row],
		Reason: "row refused by ClickHouse", Bytes: []byte(t.raw.at(row))}
}

// maxMillis is the end of the year 2099, the last moment that a partition by day or week and a retention
// of a hundred years can hold.
const maxMillis = 4102444800000 - 1

// clampMillis keeps a Kafka time within what partitions can hold: producers set it freely, and -1 means none.
func clampMillis(ms int64) int64 { return min(max(ms, 0), maxMillis) }

const (
	microsPerDay = 24 * 60 * 60 * 1e6
	millisPerDay = 24 * 60 * 60 * 1e3
)

// floorDay returns the day number since 1970-01-01 of t in units of which perDay make a day.
func floorDay(t, perDay int64) int64 {
	d := t / perDay
	if t%perDay < 0 {
		d--
	}
	return d
}

// monday returns the day number of the Monday of the week that day lies in, as ClickHouse's toMonday; day 0,
// 1970-01-01, was a Thursday. The week that holds it begins there, since Date has no day before.
func monday(day int64) int64 {
	if day >= 0 && day < 4 {
		return 0
	}
	return day - ((day+3)%7+7)%7
}
