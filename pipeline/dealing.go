package pipeline

import (
	"errors"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// dealing makes the messages of the entities topic out of the records of one raw partition. The router writes what it makes, and
// verify compares with what it makes. It is not safe for concurrent use.
type dealing struct {
	decoder    *schemas.Decoder
	dealer     detectors.Dealer
	wanted     schemas.RoleSet
	partitions uint32 // of the entities topic
	// put takes a message, which is valid during the call, for one partition.
	put func(partition uint32, message *schemas.EntityMessage)

	of        rawPartition
	record    Record // the one that is decoded
	message   schemas.EntityMessage
	from      schemas.Source
	signIn    *schemas.SignIn
	compact   schemas.SignIn
	compacted bool
}

// init begins with a raw partition.
func (d *dealing) init(of rawPartition, cat *catalogue.Catalogue, wanted schemas.RoleSet, partitions int, put func(uint32, *schemas.EntityMessage)) {
	d.of = of
	d.decoder = schemas.NewDecoder()
	d.dealer = detectors.Dealer{Catalogue: cat}
	d.wanted, d.partitions, d.put = wanted, uint32(partitions), put
	d.from = schemas.Source{Topic: of.topic.ID(), Partition: uint32(of.partition)}
	d.message.Source = &d.from
}

// Bounds of Kafka times that are believed, milliseconds since the Unix epoch: 2010, before which Entra ID did not exist, and 2100, where
// the tables end.
var earliestReceipt, latestReceipt = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// receivedAt returns the Kafka time of a record in milliseconds, 0 for none. Event times are held to it and state ages by it, so what a
// producer without a clock wrote counts as no time.
func receivedAt(r Record) int64 {
	if r.Time < earliestReceipt || r.Time >= latestReceipt {
		return 0
	}
	return r.Time
}

// decode calls each for every value of a record, as schemas.Decoder.Decode.
func (d *dealing) decode(record Record, each func(index int, decoded *schemas.Decoded)) {
	d.record = record
	received := time.Time{}
	if ms := receivedAt(record); ms != 0 {
		received = time.UnixMilli(ms)
	}
	d.decoder.Decode(record.Value, received, each)
}

// deal puts one sign-in of the record that is decoded.
func (d *dealing) deal(index int, rec *schemas.SignIn) {
	schemas.Compact(rec)
	d.from.Offset, d.from.Index = d.record.Offset, uint32(index)
	d.message.ReceivedMs = receivedAt(d.record)
	d.signIn, d.compacted = rec, false
	d.dealer.Deal(rec, d.partitions, d.wanted, d.emit)
}

// emit puts the current sign-in for one partition: whole for its person or workload, else in the compact form.
func (d *dealing) emit(partition uint32, roles schemas.RoleSet) {
	d.message.SignIn = d.signIn
	if !roles.Has(schemas.Role_ROLE_USER) && !roles.Has(schemas.Role_ROLE_SERVICE_PRINCIPAL) {
		if !d.compacted {
			schemas.CompactFor(&d.compact, d.signIn)
			d.compacted = true
		}
		d.message.SignIn = &d.compact
	}
	d.message.Roles = uint32(roles)
	d.put(partition, &d.message)
}

// source is the identity of a value of the record that is decoded.
func (d *dealing) source(index int) sinks.Source {
	return sinks.Source{Topic: d.of.topic.Name, Incarnation: d.of.topic.Incarnation, Partition: int32(d.of.partition), Offset: d.record.Offset, Index: uint32(index)}
}

// quarantined describes a value that cannot be decoded, for the quarantine. Its bytes are those of decoded.
func (d *dealing) quarantined(index int, decoded *schemas.Decoded) sinks.QuarantinedRecord {
	reason := "broken"
	var e *schemas.RecordError
	if errors.As(decoded.Err, &e) {
		reason = e.Reason
	}
	return sinks.QuarantinedRecord{
		Source: d.source(index), Stage: sinks.StageDecode, ReceivedTime: d.record.Time, Reason: reason, Error: decoded.Err.Error(), Bytes: decoded.Raw,
	}
}

// received describes a sign-in as it was received, before deal. Its texts and bytes are those of decoded.
func (d *dealing) received(index int, decoded *schemas.Decoded) sinks.RawRecord {
	rec := decoded.SignIn
	return sinks.RawRecord{
		Source: d.source(index), RequestID: rec.RequestId, TenantID: rec.TenantId, EventTime: rec.EventTime, ReceivedTime: d.record.Time, Bytes: decoded.Raw,
	}
}
