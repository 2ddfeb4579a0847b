package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"
)

// Kind says what a value of a message turned out to be.
type Kind uint8

const (
	// KindSignIn is a sign-in record; Decoded.SignIn holds it.
	KindSignIn Kind = iota
	// KindOtherCategory is a record of another log or resource (AuditLogs, RiskyUsers, Graph's riskDetection ...);
	// Decoded.Category names it. It is counted and skipped, not quarantined.
	KindOtherCategory
	// KindBroken is a value that is no record; Decoded.Err says why.
	KindBroken
)

// String returns the kind's name as metrics label it.
func (k Kind) String() string {
	switch k {
	case KindSignIn:
		return "sign_in"
	case KindOtherCategory:
		return "other_category"
	case KindBroken:
		return "broken"
	}
	return "unknown"
}

// Reasons of a RecordError. They are stable: metrics and the quarantine table use them.
const (
	// ReasonInvalidJSON: the text breaks the grammar of RFC 8259.
	ReasonInvalidJSON = "invalid_json"
	// ReasonTruncated: the message ends inside the record, or before its envelope is closed.
	ReasonTruncated = "truncated"
	// ReasonEmpty: the message holds nothing, as a Kafka tombstone does.
	ReasonEmpty = "empty"
	// ReasonNotAnObject: a JSON value other than an object stands where a record belongs.
	ReasonNotAnObject = "not_an_object"
	// ReasonNotASignIn: an object without a category and without the members of a sign-in.
	ReasonNotASignIn = "not_a_sign_in"
	// ReasonNoTime: a sign-in without any time, received at no known time.
	ReasonNoTime = "no_time"
	// ReasonTooLarge: the record is larger than MaxRecordSize.
	ReasonTooLarge = "too_large"
	// ReasonTooDeep: the record nests deeper than 1000 levels.
	ReasonTooDeep = "too_deep"
)

// MaxRecordSize bounds one record, in bytes of JSON. Event Hubs takes messages up to 1 MiB, Premium up to 20 MiB
// with many records each; the largest real records, with some hundred policies, stay below 128 KiB.
const MaxRecordSize = 4 << 20

// RecordError says why a value of a message is no record.
type RecordError struct {
	// Reason is one of the Reason constants.
	Reason string
	// Offset is the position inside the message, in bytes from 0, where the fault was met.
	Offset int
	// Expected says what should have stood there.
	Expected string
	// Err is the strict decoder's error, nil where the fault is not one of JSON.
	Err error
}

// Error returns one line: reason, position, what was expected.
func (e *RecordError) Error() string {
	text := fmt.Sprintf("%s at byte %d: expected %s", e.Reason, e.Offset, e.Expected)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the strict decoder's error.
func (e *RecordError) Unwrap() error { return e.Err }

// Decoded is one value of a message.
type Decoded struct {
	Kind Kind
	// Raw is the value's own bytes, a part of the message. It is empty where a message ends before its envelope does.
	Raw []byte
	// SignIn is the record in normal form; nil unless Kind is KindSignIn. Its strings alias the message and the
	// Decoder's buffers: who keeps it beyond the call marshals it or takes a Clone (CloneVT copies no strings).
	SignIn *SignIn
	// Category names the other log, for example AuditLogs; for a sign-in it is Category.Name.
	Category string
	// Err is a *RecordError; nil unless Kind is KindBroken.
	Err error
}

// Decoder decodes raw Kafka messages or exported values into sign-in records.
//
// It takes every shape in which sign-in logs reach a consumer: {"records":[...]} with an array or one object, arrays
// of such envelopes or of records, bare records, any of these one after another (NDJSON), Graph's {"value":[...]}, and
// wrappers that hold a record in a member, such as {"event":{...},"routing":{...}}; properties as an object or as a
// string; a byte order mark before and NUL bytes or white space behind. Records may be those of the Azure Monitor export, of
// Log Analytics tables (also with JSON or Python literals in text columns), of Graph v1.0 and beta, and what PowerShell makes
// of those: member names match without regard to ASCII case.
//
// Rules where a record is ambiguous:
//   - A member that comes twice counts by its last value that is not empty; objects are united member by member.
//   - Members of properties win over members of the envelope. tenantId is the exception: the envelope's names the tenant
//     whose log it is.
//   - Log Analytics' TenantId is the workspace and never the tenant; AADTenantId is, else the tenant in ResourceId.
//   - GUIDs become lower case; other ids stay. userPrincipalName becomes lower case. Enumerations get Graph's spelling. Addresses
//     lose their port and get their canonical form.
//   - The code is status.errorCode, else a numeric resultType, else resultSignature beside the words Success and Failure,
//     else a code AADSTSnnnnn in the failure text; FlagNoErrorCode marks a record that holds none of these.
//   - Commas between the elements of an array of records may be missing or repeated.
//
// A bad record does not harm its siblings: decoding goes on behind its closing bracket or, where brackets do not
// match, at the next text that is a whole record. A Decoder is not safe for concurrent use; use one per goroutine. It reuses its
// buffers and does not allocate in the steady state.
type Decoder struct {
	message  []byte
	whole    []byte // message with the white space behind it
	begin    int    // where the first value of message begins
	received time.Time
	each     func(int, *Decoded)
	index    int
	quiet    int  // > 0 while members of a wrapper are tried
	wasCut   bool // the end of a cut message was reported
	out      Decoded

	signIn           SignIn
	scratch          scratch
	riskEventTypesV1 []string
	signInEventTypes []string
	initial          byte // first byte of the member name found last
	other            bool // the category read so far is none of sign-ins
	envelope         int  // position of the value of records, -1 for none
	embedded         int
	arena            []byte
	cursor           cursor
	brackets         []byte
	resyncBudget     int // bytes that may still be looked at for the next whole record
	bracketBudget    int // bytes that may still be looked at for the closing brackets of broken records

	policies     pool[Policy]
	steps        pool[AuthenticationStep]
	processing   pool[ProcessingDetail]
	requirements pool[RequirementPolicy]
	networks     pool[NetworkLocation]
	rules        pool[Rule]

	unknownFields  map[string]*uint64
	unknownName    []byte
	unknownMembers []unknownMember
}

// NewDecoder returns a Decoder.
func NewDecoder() *Decoder {
	return &Decoder{unknownFields: make(map[string]*uint64)}
}

// maxWrapping bounds arrays, envelopes and wrappers around a record.
const maxWrapping = 8

// Decode calls each once per record in message, in order, with an index from 0. received is the time at which the
// message was received (its Kafka time): the event time of a record that holds none, and the bound above which event times are
// clamped; the zero time switches both off. The Decoded and all that hangs on it is valid until each returns, and aliases
// message. each must not call Decode of the same Decoder.
func (d *Decoder) Decode(message []byte, received time.Time, each func(index int, record *Decoded)) {
	d.message, d.received, d.each, d.index, d.quiet = message, received, each, 0, 0
	d.wasCut = false
	d.resyncBudget, d.bracketBudget = 4*len(message)+1<<16, 64*len(message)+1<<20
	d.whole, d.begin = message, 0
	defer func() { d.message, d.whole, d.each = nil, nil, nil }()

	end := len(message)
	for end > 0 && (message[end-1] <= ' ') {
		end--
	}
	d.message = message[:end]
	p := 0
	for p < end && message[p] <= ' ' {
		p++
	}
	if bytes.HasPrefix(d.message[p:], []byte("\xef\xbb\xbf")) {
		p += 3
	}
	if p = d.skipSpace(p); p == end {
		d.broken(0, p, &RecordError{Reason: ReasonEmpty, Offset: p, Expected: "a JSON object with a member records, or a record"})
		return
	}
	d.begin = p
	for p < end {
		p = d.skipSpace(d.value(p, 0, '\n'))
	}
}

func (d *Decoder) skipSpace(p int) int {
	for p < len(d.message) && d.message[p] <= ' ' {
		p++
	}
	return p
}

// value decodes the records in the value at p and returns the position behind it. separator is what may stand
// between this value and the next one: a comma in an array, a new line at top level.
func (d *Decoder) value(p, level int, separator byte) int {
	if level > maxWrapping {
		return d.notAnObject(p, separator)
	}
	switch d.message[p] {
	case '{':
		return d.objectAt(p, level, separator)
	case '[':
		p++
		for {
			p = d.skipSpace(p)
			switch {
			case p >= len(d.message):
				d.cut(p)
				return p
			case d.message[p] == ']':
				return p + 1
			case d.message[p] == ',':
				p++
			default:
				p = d.value(p, level+1, ',')
			}
		}
	}
	return d.notAnObject(p, separator)
}

// cut reports that the message ends at p before an array or envelope is closed.
func (d *Decoder) cut(p int) {
	if d.quiet > 0 || d.wasCut {
		return
	}
	d.broken(p, len(d.message), &RecordError{Reason: ReasonTruncated, Offset: p, Expected: "the rest of the message"})
}

// notAnObject reports the value at p, which is no object, or wraps too deep.
func (d *Decoder) notAnObject(p int, separator byte) int {
	c := cursor{b: d.message, p: p}
	if c.skip() {
		if d.quiet == 0 {
			d.broken(p, c.p, &RecordError{Reason: ReasonNotAnObject, Offset: p, Expected: "a JSON object"})
		}
		return c.p
	}
	end := d.resync(p, separator)
	if d.quiet == 0 {
		d.broken(p, end, &RecordError{Reason: c.fault.reason, Offset: min(c.fault.at, len(d.message)), Expected: c.fault.expected})
	}
	return end
}

// objectAt decodes the object at p: a record, an envelope or a wrapper.
func (d *Decoder) objectAt(p, level int, separator byte) int {
	d.reset()
	c := &d.cursor
	*c = cursor{b: d.message, p: p}
	if !d.record(c, false) {
		return d.repair(p, separator, c.fault)
	}
	if d.envelope >= 0 {
		return d.afterEnvelope(d.value(d.envelope, level+1, ','), separator)
	}
	end := c.p
	if end-p > MaxRecordSize {
		d.broken(p, end, &RecordError{Reason: ReasonTooLarge, Offset: p, Expected: fmt.Sprintf("a record of at most %d bytes", MaxRecordSize)})
		return end
	}
	d.classified(p, end, level)
	return end
}

// classified delivers the record that was just read from message[p:end].
func (d *Decoder) classified(p, end, level int) {
	raw := d.message[p:end:end]
	kind, category, reason := d.finish(raw)
	switch {
	case kind != KindBroken:
		d.deliver(Decoded{Kind: kind, Raw: raw, Category: category, SignIn: &d.signIn})
	case reason == ReasonNotASignIn:
		if d.wrapper(p, level) {
			return
		}
		if d.quiet == 0 {
			d.broken(p, end, &RecordError{Reason: reason, Offset: p,
				Expected: "a sign-in: a category such as SignInLogs, or createdDateTime with status, appId or userPrincipalName"})
		}
	default:
		d.broken(p, end, &RecordError{Reason: reason, Offset: p, Expected: "createdDateTime or time"})
	}
}

// wrapper tries the members of the object at p, whose text is known to be whole; it reports whether one held a record.
func (d *Decoder) wrapper(p, level int) bool {
	if level >= maxWrapping {
		return false
	}
	before := d.index
	d.quiet++
	c := cursor{b: d.message, p: p}
	if c.enter() {
		var key text
		for more := c.firstMember(&key); more; more = c.nextMember(&key) {
			if first := c.peek(); first == '{' || first == '[' {
				d.value(c.p, level+1, ',')
			}
			if !c.skip() {
				break
			}
		}
	}
	d.quiet--
	return d.index > before
}

// afterEnvelope skips what stands behind records in an envelope.
func (d *Decoder) afterEnvelope(p int, separator byte) int {
	c := cursor{b: d.message, p: p}
	var key text
	for more := c.nextMember(&key); more; more = c.nextMember(&key) {
		if !c.skip() {
			break
		}
	}
	if c.fault.expected == "" {
		return c.p
	}
	p = d.skipSpace(p)
	if p >= len(d.message) {
		// The array of records was cut and reported, or only the envelope's last bracket is missing.
		if d.message[len(d.message)-1] == ']' || d.message[len(d.message)-1] == '}' {
			d.cut(p)
		}
		return p
	}
	end := d.resync(p, separator)
	d.broken(p, end, &RecordError{Reason: c.fault.reason, Offset: min(c.fault.at, len(d.message)), Expected: c.fault.expected})
	return end
}

// repair handles an object that the cursor refused: the strict decoder has the last word, then unescaped control
// characters in strings are forgiven, then the record is broken and decoding goes on at the next one.
func (d *Decoder) repair(p int, separator byte, f fault) int {
	end := -1
	if d.bracketBudget > 0 {
		var looked int
		end, looked, d.brackets = matchBracket(d.message, p, d.brackets)
		d.bracketBudget -= looked
	}
	if end < 0 {
		next := d.resync(max(f.at, p+1), separator)
		d.brokenJSON(p, next, f, nil)
		return next
	}
	if end-p > MaxRecordSize {
		d.broken(p, end, &RecordError{Reason: ReasonTooLarge, Offset: p, Expected: fmt.Sprintf("a record of at most %d bytes", MaxRecordSize)})
		return end
	}
	raw := d.message[p:end:end]
	err := d.decodeStrict(raw)
	if err == nil {
		d.classified(p, end, maxWrapping)
		return end
	}
	d.reset()
	c := &d.cursor
	*c = cursor{b: d.message[:end], p: p, lenient: true}
	if d.record(c, false) && d.envelope < 0 && c.p == end {
		d.mistyped()
		d.classified(p, end, maxWrapping)
		return end
	}
	next := d.resync(max(f.at, p+1), separator)
	if next > end {
		next = end
	}
	d.brokenJSON(p, next, f, err)
	return next
}

func (d *Decoder) brokenJSON(p, end int, f fault, err error) {
	at := min(f.at, len(d.message))
	if f.reason == ReasonTruncated && end < len(d.message) {
		f.reason = ReasonInvalidJSON
	}
	d.broken(p, end, &RecordError{Reason: f.reason, Offset: at, Expected: f.expected, Err: err})
}

// resync returns the next position at or behind p where a whole record begins: after a comma inside an array of
// records, after a line break anywhere. It returns the end of the message where there is none, and gives up when the work
// becomes a multiple of the message's size.
func (d *Decoder) resync(p int, separator byte) int {
	for p < len(d.message) && d.resyncBudget > 0 {
		n := bytes.IndexByte(d.message[p:], '{')
		if n < 0 {
			break
		}
		d.resyncBudget -= n + 1
		p += n
		before := p - 1
		line := false
		for before >= 0 && d.message[before] <= ' ' {
			line = line || d.message[before] == '\n'
			before--
		}
		if line || before >= 0 && d.message[before] == ',' {
			if d.isRecord(p) {
				return p
			}
		}
		p++
	}
	return len(d.message)
}

// isRecord reports whether a whole sign-in record, record of another category or envelope begins at p.
func (d *Decoder) isRecord(p int) bool {
	d.reset()
	c := &d.cursor
	*c = cursor{b: d.message, p: p}
	ok := d.record(c, false)
	d.resyncBudget -= c.p - p
	if !ok {
		d.resyncBudget -= max(0, c.fault.at-p)
		return false
	}
	if d.envelope >= 0 {
		return true
	}
	d.unknownMembers = d.unknownMembers[:0] // they are counted when the record is delivered
	kind, _, _ := d.finish(d.message[p:c.p])
	return kind != KindBroken
}

func (d *Decoder) broken(p, end int, err *RecordError) {
	d.wasCut = d.wasCut || err.Reason == ReasonTruncated
	// The bytes as they were sent, with the white space around them.
	if p == d.begin {
		p = 0
	}
	if end == len(d.message) {
		end = len(d.whole)
	}
	d.deliver(Decoded{Kind: KindBroken, Raw: d.whole[p:end:end], Err: err})
}

func (d *Decoder) deliver(out Decoded) {
	if out.Kind != KindSignIn {
		out.SignIn = nil
	}
	d.out = out
	index := d.index
	d.index++
	d.each(index, &d.out)
}

// maxUnknownFields bounds the names that UnknownFields keeps apart.
const maxUnknownFields = 256

// otherUnknownFields stands for all names beyond maxUnknownFields and for names over 96 bytes.
const otherUnknownFields = "(other)"

// unknownMember is a member that no dialect is known to hold, met in the record being read. Its name aliases the
// message or the arena.
type unknownMember struct {
	kind shape
	name []byte
}

// unknown notes a member that no dialect is known to hold.
func (d *Decoder) unknown(kind shape, name []byte) {
	d.scratch.flags |= FlagUnknownFields
	d.unknownMembers = append(d.unknownMembers, unknownMember{kind, name})
}

// countUnknown counts the unknown members of a record that turned out to be a sign-in.
func (d *Decoder) countUnknown() {
	for _, m := range d.unknownMembers {
		d.unknownName = append(append(d.unknownName[:0], shapeNames[m.kind]...), m.name...)
		if len(d.unknownName) > 96 {
			d.unknownName = append(d.unknownName[:0], otherUnknownFields...)
		}
		n := d.unknownFields[string(d.unknownName)]
		if n == nil && len(d.unknownFields) >= maxUnknownFields {
			d.unknownName = append(d.unknownName[:0], otherUnknownFields...)
			n = d.unknownFields[otherUnknownFields]
		}
		if n == nil {
			n = new(uint64)
			d.unknownFields[string(d.unknownName)] = n
		}
		*n++
	}
	d.unknownMembers = d.unknownMembers[:0]
}

// UnknownFields iterates over the names of members of sign-ins that no dialect is known to hold, with the number of times they
// were met since the Decoder was made. Names of nested members stand behind their parent's: "status.newMember". At most 256
// names are kept apart; "(other)" holds the rest.
func (d *Decoder) UnknownFields() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for name, n := range d.unknownFields {
			if !yield(name, *n) {
				return
			}
		}
	}
}

// finish turns what was read into normal form and says what it is. raw is the record's text.
func (d *Decoder) finish(raw []byte) (kind Kind, category, reason string) {
	s, r := &d.signIn, &d.scratch
	if kind, category = d.classify(); kind != KindSignIn {
		return kind, category, ReasonNotASignIn
	}
	d.finishIDs(raw)
	d.finishResult()
	if !d.finishTimes() {
		return KindBroken, "", ReasonNoTime
	}
	d.finishTexts()
	d.countUnknown()
	if !r.sawPolicies {
		r.flags |= FlagPoliciesAbsent
	}
	s.Flags = r.flags
	return KindSignIn, s.Category.Name(), ""
}

// signInOperation is operationName of every sign-in record of the export.
const signInOperation = "Sign-in activity"

// classify tells sign-ins from records of other kinds and sets the category.
func (d *Decoder) classify() (kind Kind, other string) {
	s, r := &d.signIn, &d.scratch
	if r.odataType != "" {
		name := r.odataType
		name = name[strings.LastIndexByte(name, '.')+1:]
		if !strings.EqualFold(name, "signIn") {
			return KindOtherCategory, name
		}
	}
	if c, known := categoryOf(r.category); known {
		s.Category = c
	} else if c, known := categoryOf(r.typ); known {
		s.Category = c
	} else if r.category != "" {
		return KindOtherCategory, r.category
	} else if r.typ != "" {
		return KindOtherCategory, r.typ
	} else if r.otherShape != "" {
		return KindOtherCategory, r.otherShape
	} else if !strings.EqualFold(r.operationName, signInOperation) {
		if r.eventTime == "" || !r.hasErrorCode && s.AppId == "" && s.UserPrincipalName == "" && s.UserId == "" &&
			s.ServicePrincipalId == "" && s.ConditionalAccessStatus == "" && s.AppDisplayName == "" {
			return KindBroken, ""
		}
	}
	if s.Category == Category_CATEGORY_UNSPECIFIED {
		s.Category = d.streamCategory()
	}
	return KindSignIn, ""
}

// streamCategory derives the category of a Graph record, which names none.
func (d *Decoder) streamCategory() Category {
	s := &d.signIn
	for _, t := range d.signInEventTypes {
		switch {
		case strings.EqualFold(t, "interactiveUser"):
			return Category_CATEGORY_SIGN_IN
		case strings.EqualFold(t, "nonInteractiveUser"):
			return Category_CATEGORY_NON_INTERACTIVE_USER
		case strings.EqualFold(t, "servicePrincipal"):
			return Category_CATEGORY_SERVICE_PRINCIPAL
		case strings.EqualFold(t, "managedIdentity"):
			return Category_CATEGORY_MANAGED_IDENTITY
		}
	}
	if s.ServicePrincipalId != "" && s.UserId == "" && s.UserPrincipalName == "" {
		return Category_CATEGORY_SERVICE_PRINCIPAL
	}
	if s.IsInteractive == Tri_TRI_FALSE {
		return Category_CATEGORY_NON_INTERACTIVE_USER
	}
	return Category_CATEGORY_SIGN_IN
}

func (d *Decoder) finishIDs(raw []byte) {
	s, r := &d.signIn, &d.scratch
	s.TenantId = r.aadTenant
	if s.TenantId == "" {
		s.TenantId = r.tenant
	}
	if s.TenantId == "" {
		s.TenantId = tenantOfPath(r.resourcePath)
	}
	if s.TenantId == "" {
		s.TenantId = r.innerTenant
	}
	for _, id := range [...]*string{
		&s.RequestId, &s.CorrelationId, &s.TenantId, &s.OriginalRequestId, &s.UserId, &s.AppId, &s.ResourceId,
		&s.ResourceTenantId, &s.HomeTenantId, &s.ServicePrincipalId, &s.ServicePrincipalCredentialKeyId,
		&s.FederatedCredentialId, &s.SessionId, &s.DeviceId,
	} {
		if *id != "" {
			*id = d.canonicalID(*id)
		}
	}
	if s.TenantId == "" && s.HomeTenantId == s.ResourceTenantId {
		// Graph does not name the tenant that was asked; where user and resource share one, it is that.
		s.TenantId = s.HomeTenantId
	}
	for _, p := range s.Policies {
		p.Id = d.canonicalID(p.Id)
	}
	if s.RequestId == "" {
		r.flags |= FlagNoRequestID
		sum := sha256.Sum256(raw)
		start := len(d.arena)
		d.arena = hex.AppendEncode(append(d.arena, contentIDPrefix...), sum[:16])
		s.RequestId = d.keep(start)
	}
}

// contentIDPrefix begins the id of a record that holds none; 32 hexadecimal digits follow, the first half of the
// SHA-256 of its text, so that the same text always has the same id.
const contentIDPrefix = "content-"

// tenantOfPath returns the tenant in a resource path such as /tenants/<guid>/providers/Microsoft.aadiam.
func tenantOfPath(path string) string {
	const prefix = "/tenants/"
	if len(path) < len(prefix) || !strings.EqualFold(path[:len(prefix)], prefix) {
		return ""
	}
	tenant, _, _ := strings.Cut(path[len(prefix):], "/")
	return tenant
}

// finishResult settles code and failure text.
func (d *Decoder) finishResult() {
	s, r := &d.signIn, &d.scratch
	if s.FailureReason == "" {
		s.FailureReason = r.resultDescriptor
	}
	word := r.resultType
	if word == "" {
		word = r.statusWord
	}
	if word == "" {
		word = r.resultSignature
	}
	word = trimSpace(word)
	switch {
	case r.hasErrorCode:
		s.ErrorCode = int32(r.errorCode)
	default:
		code, found := codeOf(word)
		if !found {
			code, found = codeOf(trimSpace(r.resultSignature))
		}
		if !found {
			code, found = codeInText(s.FailureReason)
		}
		if !found && strings.EqualFold(word, "success") {
			code, found = 0, true
		}
		if found {
			s.ErrorCode = code
		} else {
			r.flags |= FlagNoErrorCode
			if s.FailureReason == "" && strings.HasPrefix(strings.ToLower(word), "fail") {
				s.FailureReason = word
			}
		}
	}
	if s.ErrorCode == 0 && (s.FailureReason == "Other." || s.FailureReason == "Other") {
		s.FailureReason = ""
	}
}

// codeOf reads an error code: digits, also with the prefix AADSTS.
func codeOf(s string) (int32, bool) {
	if len(s) > 6 && strings.EqualFold(s[:6], "AADSTS") {
		s = s[6:]
	}
	if s == "" || len(s) > 10 {
		return 0, false
	}
	n := int64(0)
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return int32(min(n, math.MaxInt32)), n <= math.MaxInt32
}

// codeInText finds AADSTSnnnnn in a failure text.
func codeInText(s string) (int32, bool) {
	i := strings.Index(s, "AADSTS")
	if i < 0 {
		return 0, false
	}
	s = s[i+6:]
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	return codeOf(s[:end])
}

// finishTimes settles event and processing time; false means that there is none at all.
func (d *Decoder) finishTimes() bool {
	s, r := &d.signIn, &d.scratch
	if r.processingTime != "" {
		if micros, ok := ParseTime(r.processingTime); ok {
			s.ProcessingTime = micros
		} else {
			d.mistyped()
		}
	}
	if r.eventTime != "" {
		if micros, ok := ParseTime(r.eventTime); ok {
			s.EventTime = micros
		} else {
			d.mistyped()
		}
	}
	received := int64(0)
	if !d.received.IsZero() {
		received = d.received.UnixMicro()
	}
	if s.EventTime == 0 {
		r.flags |= FlagNoEventTime
		s.EventTime = s.ProcessingTime
		if s.EventTime == 0 {
			s.EventTime = received
		}
		if s.EventTime == 0 {
			return false
		}
	}
	if received > 0 && s.EventTime > received+maxAhead.Microseconds() {
		s.EventTime = received
		if s.ProcessingTime > 0 && s.ProcessingTime < received {
			s.EventTime = s.ProcessingTime // the log was written when the sign-in was over
		}
		r.flags |= FlagEventTimeClamped
	}
	return true
}

// finishTexts settles names, addresses and enumerations.
func (d *Decoder) finishTexts() {
	s, r := &d.signIn, &d.scratch
	if s.IpAddress == "" {
		s.IpAddress = r.callerIPAddress
	}
	s.IpAddress = d.canonicalAddress(s.IpAddress)
	if s.CountryOrRegion == "" {
		s.CountryOrRegion = r.country
	}
	s.UserPrincipalName = d.lower(trimSpace(s.UserPrincipalName))
	if s.SignInIdentifier == "" {
		s.SignInIdentifier = r.alternateSignInName
	}
	if r.identity != "" && !isGUID(r.identity) {
		if s.Category.IsUser() {
			if s.UserDisplayName == "" {
				s.UserDisplayName = r.identity
			}
		} else if s.ServicePrincipalName == "" {
			s.ServicePrincipalName = r.identity
		}
	}
	if len(s.RiskEventTypes) == 0 {
		s.RiskEventTypes = append(s.RiskEventTypes, d.riskEventTypesV1...)
	}
	if len(s.AuthenticationMethodsUsed) == 0 && r.mfaMethod != "" {
		s.AuthenticationMethodsUsed = append(s.AuthenticationMethodsUsed, r.mfaMethod)
	}
	for _, e := range [...]*string{
		&s.UserType, &s.CrossTenantAccessType, &s.ClientCredentialType, &s.AuthenticationProtocol, &s.IncomingTokenType,
		&s.OriginalTransferMethod, &s.TokenIssuerType, &s.ConditionalAccessStatus, &s.AuthenticationRequirement,
		&s.RiskLevelDuringSignIn, &s.RiskLevelAggregated, &s.RiskState, &s.RiskDetail,
	} {
		if *e != "" {
			*e = canonicalEnum(*e)
		}
	}
	for _, p := range s.Policies {
		p.Result = canonicalEnum(p.Result)
	}
	for _, p := range s.AuthenticationRequirementPolicies {
		p.RequirementProvider = canonicalEnum(p.RequirementProvider)
	}
	for _, n := range s.NetworkLocationDetails {
		n.NetworkType = canonicalEnum(n.NetworkType)
	}
	for i := range s.SessionLifetimePolicies {
		s.SessionLifetimePolicies[i] = canonicalEnum(s.SessionLifetimePolicies[i])
	}
	for i := range s.RiskEventTypes {
		s.RiskEventTypes[i] = canonicalEnum(s.RiskEventTypes[i])
	}
}
