// Package scenariofile reads and runs scenario files: a few lines of sign-ins and the verdicts that are
// expected of them. The language is described in README.md beside this file. Tests of the detectors,
// the command "signindiag scenario" and the demonstration use the same files.
package scenariofile

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/settings"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// Bounds of a file, so that a slip of the pen cannot fill the memory.
const (
	// MaxRecords is the largest number of records that a file may send.
	MaxRecords = 100_000
	// maxSize is the largest file in bytes.
	maxSize = 4 << 20
	// maxDelay bounds how late a record may be.
	maxDelay = 60 * 24 * time.Hour
)

// Defaults of records; the statements date and delay change the first two.
var (
	defaultDate  = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) // a Monday
	defaultDelay = 2 * time.Minute                             // usual lag of the diagnostic export
)

const (
	defaultAddress = "198.51.100.10"
	defaultApp     = "Azure Portal"
	defaultAgent   = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
	defaultEvery   = 10 * time.Second
	zeroGUID       = "00000000-0000-0000-0000-000000000000"
)

// File is a parsed scenario file.
type File struct {
	Name string
	// Thresholds of the statement threshold; nil where the file sets none.
	Thresholds *detectors.Thresholds

	said         map[*tenant]*detectors.TenantSettings // by the statements trusted, privileged and expectation
	deliveries   []delivery                            // in order of arrival
	expectations []expectation
	labels       map[string]labelled
	users        map[string]account // by name, and "tenant/name"
	tenants      map[string]*tenant
}

// Records returns the number of records that the file sends, repeats included.
func (f *File) Records() int {
	n := 0
	for i := range f.deliveries {
		if f.deliveries[i].record != nil {
			n++
		}
	}
	return n
}

// Expectations returns the number of expect statements.
func (f *File) Expectations() int { return len(f.expectations) }

// delivery is one record on its way, or a restart.
type delivery struct {
	line    int
	arrival time.Time
	record  *record // nil: a restart
}

// record is one sign-in as it is sent.
type record struct {
	spec    synthetic.SignInSpec
	dialect string
	delay   time.Duration
}

type labelled struct {
	tenantID, requestID string
	line                int
}

// tenant is an organisation of the file.
type tenant struct {
	name, id, domain string
}

// account is a user or a service principal.
type account struct {
	name      string
	tenant    *tenant
	userID    string
	upn       string
	userType  string
	home      *tenant
	principal bool
	managed   bool
	unknown   bool // a name that is no account
	appID     string
}

type policy struct {
	name       string
	controls   []string
	session    []string
	conditions uint32
	strength   string
}

// Parse reads a scenario file. name is only for messages. The error is an *Error with the line, what was
// found there and what was expected.
func Parse(name string, src []byte) (*File, error) {
	if len(src) > maxSize {
		return nil, &Error{name, 1, fmt.Sprintf("the file has %d bytes; expected at most %d", len(src), maxSize)}
	}
	p := &parser{
		file:     &File{Name: name, labels: map[string]labelled{}, users: map[string]account{}, tenants: map[string]*tenant{}},
		policies: map[string]*policy{},
		date:     defaultDate, delay: defaultDelay,
	}
	p.tenant = p.addTenant("contoso")
	text := strings.TrimPrefix(string(src), "\ufeff")
	for i, line := range strings.Split(text, "\n") {
		p.line = i + 1
		words, err := tokens(line)
		if err == nil && len(words) > 0 {
			p.words, p.next = words, 0
			err = p.statement()
		}
		if err != nil {
			return nil, &Error{name, p.line, err.Error()}
		}
	}
	for i := range p.file.expectations {
		e := &p.file.expectations[i]
		if err := p.resolve(e); err != nil {
			return nil, &Error{name, e.line, err.Error()}
		}
	}
	slices.SortStableFunc(p.file.deliveries, func(a, b delivery) int { return a.arrival.Compare(b.arrival) })
	return p.file, nil
}

type parser struct {
	file     *File
	line     int
	words    []token
	next     int
	tenant   *tenant
	policies map[string]*policy // by tenant id and name
	date     time.Time          // day 1
	delay    time.Duration
	now      time.Time // of the last statement with a time
	arrival  time.Time // arrival of the last record that was not declared late
	last     *record
	count    int // records so far
}

func (p *parser) more() bool { return p.next < len(p.words) }

func (p *parser) peek() token {
	if p.more() {
		return p.words[p.next]
	}
	return token{}
}

// found describes what stands where something else was expected.
func (p *parser) found() string {
	if !p.more() {
		return "found the end of the line"
	}
	return fmt.Sprintf("column %d: found %s", p.peek().column, p.peek())
}

// word takes the next bare or quoted word.
func (p *parser) word(expected string) (string, error) {
	if !p.more() || p.peek().op != "" || p.peek().text == "" {
		return "", fmt.Errorf("%s; expected %s", p.found(), expected)
	}
	p.next++
	return p.words[p.next-1].text, nil
}

// is takes the next word if it is the given bare one.
func (p *parser) is(word string) bool {
	if p.more() && !p.peek().quoted && p.peek().op == "" && p.peek().text == word {
		p.next++
		return true
	}
	return false
}

func (p *parser) end() error {
	if p.more() {
		return fmt.Errorf("%s; expected the end of the line", p.found())
	}
	return nil
}

// statements are the words that a line may begin with.
var statements = []struct {
	word  string
	parse func(*parser) error
}{
	{"at", (*parser).at},
	{"expect", (*parser).expect},
	{"user", (*parser).user},
	{"principal", (*parser).principal},
	{"policy", (*parser).policy},
	{"tenant", (*parser).tenantStatement},
	{"date", (*parser).dateStatement},
	{"delay", (*parser).delayStatement},
	{"threshold", (*parser).threshold},
	{"trusted", (*parser).trusted},
	{"privileged", (*parser).privileged},
	{"expectation", (*parser).expectation},
	{"restart", (*parser).restart},
}

func (p *parser) statement() error {
	for _, s := range statements {
		if p.is(s.word) {
			if err := s.parse(p); err != nil {
				return err
			}
			return p.end()
		}
	}
	names := make([]string, len(statements))
	for i, s := range statements {
		names[i] = s.word
	}
	return fmt.Errorf("unknown statement %s; expected one of %s", p.peek(), strings.Join(names, ", "))
}

// pairs takes the key=value words that follow; keys outside allowed are an error.
func (p *parser) pairs(allowed ...string) (map[string]string, error) {
	out := map[string]string{}
	for p.more() && p.peek().op != "" {
		t := p.peek()
		if t.op != "=" || !slices.Contains(allowed, t.text) {
			return nil, fmt.Errorf("%s; expected one of %s=VALUE", p.found(), strings.Join(allowed, "=VALUE, "))
		}
		if _, ok := out[t.text]; ok {
			return nil, fmt.Errorf("column %d: %s= is given twice; expected it once", t.column, t.text)
		}
		out[t.text] = t.value
		p.next++
	}
	return out, nil
}

func (p *parser) addTenant(name string) *tenant {
	t := &tenant{name: name, id: synthetic.NamedGUID("tenant", name), domain: "example.org"}
	if name != "contoso" {
		t.domain = strings.ToLower(name) + ".example.org"
	}
	p.file.tenants[name] = t
	return t
}

func (p *parser) tenantStatement() error {
	name, err := p.word("a name, as in: tenant contoso")
	if err != nil {
		return err
	}
	t := p.file.tenants[name]
	if t == nil {
		t = p.addTenant(name)
	}
	pairs, err := p.pairs("id", "domain")
	if err != nil {
		return err
	}
	if id, ok := pairs["id"]; ok {
		if !schemas.IsGroupingID(id) {
			return fmt.Errorf("id=%s is no GUID; expected 36 characters, not all zeros", id)
		}
		t.id = strings.ToLower(id)
	}
	if domain, ok := pairs["domain"]; ok {
		t.domain = domain
	}
	p.tenant = t
	return nil
}

func (p *parser) user() error {
	name, err := p.word("a name, as in: user ada upn=ada@example.org")
	if err != nil {
		return err
	}
	pairs, err := p.pairs("upn", "id", "type", "home")
	if err != nil {
		return err
	}
	a := p.newUser(name)
	if v, ok := pairs["upn"]; ok {
		a.upn = strings.ToLower(v)
	}
	if v, ok := pairs["id"]; ok {
		a.userID = strings.ToLower(v)
	}
	switch v := pairs["type"]; v {
	case "", "member":
	case "guest":
		a.userType = "Guest"
	default:
		return fmt.Errorf("type=%s is no type of user; expected member or guest", v)
	}
	if v, ok := pairs["home"]; ok {
		a.home = p.file.tenants[v]
		if a.home == nil {
			a.home = p.addTenant(v)
		}
	}
	return p.declare(a)
}

func (p *parser) principal() error {
	name, err := p.word("a name, as in: principal backup")
	if err != nil {
		return err
	}
	a := account{name: name, tenant: p.tenant, principal: true, userID: synthetic.NamedGUID("principal", p.tenant.name+"/"+name),
		appID: synthetic.NamedGUID("application", p.tenant.name+"/"+name)}
	a.managed = p.is("managed")
	return p.declare(a)
}

func (p *parser) newUser(name string) account {
	a := account{name: name, tenant: p.tenant, upn: strings.ToLower(name), userID: synthetic.NamedGUID("user", p.tenant.name+"/"+name)}
	if !strings.Contains(name, "@") {
		a.upn = strings.ToLower(strings.ReplaceAll(name, " ", ".")) + "@" + p.tenant.domain
	}
	return a
}

// reserved are words of the language that cannot name anybody.
var reserved = []string{"no", "incident", "incidents", "diagnoses", "records", "request", "at", "every", "repeat", "update", "split", "restart", "late", "last", "day"}

func (p *parser) declare(a account) error {
	if slices.Contains(reserved, a.name) {
		return fmt.Errorf("%s is a word of the language; expected another name", a.name)
	}
	key := a.tenant.name + "/" + a.name
	if _, ok := p.file.users[key]; ok {
		return fmt.Errorf("%s is already known in tenant %s; expected each name once, before its first sign-in", a.name, a.tenant.name)
	}
	p.file.users[key] = a
	return nil
}

// who finds the account of the current tenant; an unknown name becomes a user of that tenant.
func (p *parser) who(name string) account {
	a, ok := p.file.users[p.tenant.name+"/"+name]
	if !ok {
		a = p.newUser(name)
		p.file.users[p.tenant.name+"/"+name] = a
	}
	return a
}

// controls are the words of a policy's definition and the names that Entra gives its controls.
var controls = map[string]string{"block": "Block", "mfa": "Mfa", "compliantDevice": "RequireCompliantDevice", "hybridJoin": "RequireDomainJoinedDevice",
	"approvedApp": "RequireApprovedApp", "compliantApp": "RequireCompliantApp"}

func (p *parser) policy() error {
	name, err := p.word(`the policy's name, as in: policy "Block old mail" block clientType`)
	if err != nil {
		return err
	}
	key := p.tenant.id + name
	if p.policies[key] != nil {
		return fmt.Errorf("the policy %q is already known in tenant %s; expected each name once", name, p.tenant.name)
	}
	q := &policy{name: name, conditions: schemas.ConditionApplication | schemas.ConditionUsers}
	for p.more() {
		t := p.peek()
		switch {
		case t.op == "" && !t.quoted && controls[t.text] != "":
			q.controls = append(q.controls, controls[t.text])
		case p.is("control"):
			v, err := p.word(`the name of a control, as in: control "Terms of use"`)
			if err != nil {
				return err
			}
			q.controls = append(q.controls, v)
			continue
		case p.is("session"):
			v, err := p.word("the name of a session control, as in: session SignInFrequency")
			if err != nil {
				return err
			}
			q.session = append(q.session, v)
			continue
		case p.is("strength"):
			if q.strength, err = p.word(`the name of an authentication strength, as in: strength "Phishing-resistant MFA"`); err != nil {
				return err
			}
			continue
		case t.op == "" && !t.quoted && condition(t.text) != 0:
			q.conditions |= condition(t.text)
		default:
			return fmt.Errorf("%s; expected a control (block, mfa, compliantDevice, hybridJoin, approvedApp, compliantApp, control NAME, session NAME, "+
				"strength NAME) or a condition (%s)", p.found(), conditionNames())
		}
		p.next++
	}
	p.policies[key] = q
	return nil
}

func condition(name string) uint32 {
	for _, c := range schemas.ConditionNames {
		if c.Name == name {
			return c.Bit
		}
	}
	return 0
}

func conditionNames() string {
	var names []string
	for _, c := range schemas.ConditionNames {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

func (p *parser) dateStatement() error {
	v, err := p.word("a date, as in: date 2026-03-02")
	if err != nil {
		return err
	}
	d, err := time.Parse(time.DateOnly, v)
	if err != nil || d.Year() < 2000 || d.Year() > 2200 {
		return fmt.Errorf("found %s; expected a date of the years 2000 to 2200, as in: date 2026-03-02", v)
	}
	p.date = d
	return nil
}

func (p *parser) delayStatement() error {
	d, err := p.duration("the time until a record arrives, as in: delay 90s")
	if err != nil {
		return err
	}
	if d > maxDelay {
		return fmt.Errorf("delay %s is too long; expected at most %s", d, maxDelay)
	}
	p.delay = d
	return nil
}

func (p *parser) duration(expected string) (time.Duration, error) {
	v, err := p.word(expected)
	if err != nil {
		return 0, err
	}
	d, err := parseDuration(v)
	if err != nil {
		return 0, fmt.Errorf("found %s; expected %s", v, expected)
	}
	return d, nil
}

// parseDuration reads Go's durations and whole days: 90s, 1h30m, 2d.
func parseDuration(v string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(v)
	if err == nil && d < 0 {
		err = fmt.Errorf("negative")
	}
	return d, err
}

func (p *parser) threshold() error {
	detection, err := p.word("a detection, as in: threshold repeated_failures count=3 window=24h")
	if err != nil {
		return err
	}
	var names, detections []string
	fields := map[string]*detectors.ThresholdField{}
	for i := range detectors.ThresholdFields() {
		f := &detectors.ThresholdFields()[i]
		if f.Detection == detection {
			names = append(names, f.Name)
			fields[f.Name] = f
		}
		if !slices.Contains(detections, f.Detection) {
			detections = append(detections, f.Detection)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("found %s; expected a detection, one of %s", detection, strings.Join(detections, ", "))
	}
	pairs, err := p.pairs(names...)
	if err != nil {
		return err
	}
	if len(pairs) == 0 {
		return fmt.Errorf("%s; expected NAME=VALUE with one of %s", p.found(), strings.Join(names, ", "))
	}
	t := detectors.DefaultThresholds()
	if p.file.Thresholds != nil {
		t = *p.file.Thresholds
	}
	for _, name := range names {
		v, ok := pairs[name]
		if !ok {
			continue
		}
		if fields[name].Duration {
			// Days, too, as everywhere in these files.
			if d, err := parseDuration(v); err == nil {
				v = d.String()
			}
		}
		if err := fields[name].Set(&t, v); err != nil {
			return err
		}
	}
	if err := t.Validate(); err != nil {
		return err
	}
	p.file.Thresholds = &t
	return nil
}

// says returns what the file says of the current tenant.
func (p *parser) says() *detectors.TenantSettings {
	s := p.file.said[p.tenant]
	if s == nil {
		s = new(detectors.TenantSettings)
		if p.file.said == nil {
			p.file.said = map[*tenant]*detectors.TenantSettings{}
		}
		p.file.said[p.tenant] = s
	}
	return s
}

func (p *parser) trusted() error {
	for {
		text, err := p.word("an address or a network, as in: trusted 203.0.113.0/24")
		if err != nil {
			return err
		}
		network, err := settings.ParsePrefix(text)
		if err != nil {
			return err
		}
		s := p.says()
		s.TrustedAddresses = append(s.TrustedAddresses, network)
		if !p.more() {
			return nil
		}
	}
}

func (p *parser) privileged() error {
	for {
		name, err := p.word("a user, as in: privileged ada")
		if err != nil {
			return err
		}
		s := p.says()
		s.PrivilegedUsers = append(s.PrivilegedUsers, p.who(name).upn)
		if !p.more() {
			return nil
		}
	}
}

// expectation reads what a tenant expects: words that narrow it, and expect with what should happen.
func (p *parser) expectation() error {
	const example = `as in: expectation "MFA for payroll" app Payroll expect mfa`
	name, err := p.word("a name, " + example)
	if err != nil {
		return err
	}
	x := detectors.Expectation{Name: name}
	lists := map[string]*[]string{"app": &x.Applications, "resource": &x.Resources, "client": &x.ClientApps, "country": &x.Countries}
	for p.more() {
		word, err := p.word("one of app, resource, client, country, user, except, noninteractive, expect, " + example)
		if err != nil {
			return err
		}
		if word == "noninteractive" {
			x.NonInteractive = true
			continue
		}
		value, err := p.word("a value of " + word + ", " + example)
		if err != nil {
			return err
		}
		switch list := lists[word]; {
		case list != nil:
			*list = append(*list, value)
		case word == "user":
			x.Users = append(x.Users, p.who(value).upn)
		case word == "except":
			if network, err := settings.ParsePrefix(value); err == nil {
				x.ExceptAddresses = append(x.ExceptAddresses, network)
			} else {
				x.ExceptUsers = append(x.ExceptUsers, p.who(value).upn)
			}
		case word == "expect" && slices.Contains(settings.Expects(), value):
			x.Expect = value
		case word == "expect":
			return fmt.Errorf("found expect %s; expected one of %s", value, strings.Join(settings.Expects(), ", "))
		default:
			return fmt.Errorf("found %s; expected one of app, resource, client, country, user, except, noninteractive, expect", word)
		}
	}
	if x.Expect == "" {
		return fmt.Errorf("%s; expected expect and one of %s", p.found(), strings.Join(settings.Expects(), ", "))
	}
	s := p.says()
	s.Expectations = append(s.Expectations, x)
	return nil
}

// settings returns the settings of a run: those given, with what the file says on top.
func (f *File) settings(given *detectors.Settings) *detectors.Settings {
	s := *cmp.Or(given, detectors.DefaultSettings())
	s.Tenants = maps.Clone(s.Tenants)
	if s.Tenants == nil {
		s.Tenants = map[string]*detectors.TenantSettings{}
	}
	for t, said := range f.said {
		own := *s.Of(t.id)
		own.TrustedAddresses = slices.Concat(own.TrustedAddresses, said.TrustedAddresses)
		own.PrivilegedUsers = slices.Concat(own.PrivilegedUsers, said.PrivilegedUsers)
		own.Expectations = slices.Concat(own.Expectations, said.Expectations)
		s.Tenants[t.id] = &own
	}
	if f.Thresholds != nil {
		s.Default.Thresholds = *f.Thresholds
		for id, t := range s.Tenants {
			own := *t
			own.Thresholds = *f.Thresholds
			s.Tenants[id] = &own
		}
	}
	return &s
}

func (p *parser) restart() error {
	arrival := p.arrival
	if arrival.IsZero() {
		return fmt.Errorf("restart stands before the first sign-in; expected it behind one")
	}
	p.file.deliveries = append(p.file.deliveries, delivery{line: p.line, arrival: arrival})
	return nil
}

// moment reads a time of day with an optional day in front: 09:00, 09:00:05.250, day 2 09:00, 2026-03-05 09:00.
// It tells the precision in which the time was written.
func (p *parser) moment() (time.Time, time.Duration, error) {
	day := p.date
	if p.is("day") {
		v, err := p.word("a number, as in: day 2 09:00")
		if err != nil {
			return time.Time{}, 0, err
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 400 {
			return time.Time{}, 0, fmt.Errorf("found day %s; expected day 1 to day 400", v)
		}
		day = day.AddDate(0, 0, n-1)
	} else if d, err := time.Parse(time.DateOnly, p.peek().text); err == nil && p.peek().op == "" {
		if d.Year() < 2000 || d.Year() > 2200 {
			return time.Time{}, 0, fmt.Errorf("%s; expected a date of the years 2000 to 2200", p.found())
		}
		day = d
		p.next++
	}
	const expected = "a time (UTC), as in 09:00, 09:00:05, day 2 09:00 or 2026-03-05 09:00"
	v, err := p.word(expected)
	if err != nil {
		return time.Time{}, 0, err
	}
	for layout, precision := range map[string]time.Duration{"15:04": time.Minute, "15:04:05": time.Second} {
		if t, err := time.Parse(layout, v); err == nil {
			if strings.Contains(v, ".") {
				precision = time.Microsecond
			}
			return day.Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute +
				time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond()).Truncate(time.Microsecond)), precision, nil
		}
	}
	p.next--
	return time.Time{}, 0, fmt.Errorf("%s; expected %s", p.found(), expected)
}

// at is everything that happens at a time: a sign-in, or a record that comes again.
func (p *parser) at() error {
	t, _, err := p.moment()
	if err != nil {
		return err
	}
	p.now = t
	var late time.Duration
	isLate := p.is("late")
	if isLate {
		if late, err = p.duration("how late, as in: late 3h"); err != nil {
			return err
		}
		if late > maxDelay {
			return fmt.Errorf("late %s is too much; expected at most %s", late, maxDelay)
		}
	}
	switch {
	case p.is("restart"):
		p.file.deliveries = append(p.file.deliveries, delivery{line: p.line, arrival: t.Add(p.delay + late)})
		return nil
	case p.is("repeat"), p.is("update"), p.is("split"):
		return p.again(t.Add(p.delay+late), p.words[p.next-1].text)
	}
	name, err := p.word("who signs in, as in: at 09:00 ada fails 50126")
	if err != nil {
		return err
	}
	r := &record{delay: p.delay + late, dialect: "eventhubs"}
	r.spec.Time = t
	who := p.who(name)
	p.fill(r, who)
	if err := p.verb(r); err != nil {
		return err
	}
	m := &modified{record: r, who: who}
	if err := p.modifiers(m); err != nil {
		return err
	}
	p.settle(m)
	every := m.every
	if every == 0 {
		every = defaultEvery
	}
	for i := range m.times {
		c := *r
		c.spec.Time = t.Add(time.Duration(i) * every)
		label := m.label
		if label != "" && m.times > 1 {
			label += "." + strconv.Itoa(i+1)
		}
		if err := p.identify(&c, label, m.correlation, m.original); err != nil {
			return err
		}
		if !isLate {
			p.arrival = c.spec.Time.Add(c.delay)
		}
		if err := p.send(&c, c.spec.Time.Add(c.delay)); err != nil {
			return err
		}
	}
	return nil
}

// send puts a record on its way.
func (p *parser) send(r *record, arrival time.Time) error {
	if p.count >= MaxRecords {
		return fmt.Errorf("more than %d records; expected fewer", MaxRecords)
	}
	p.count++
	// The export writes a record when it sends it.
	r.spec.ProcessingDelay = max(arrival.Sub(r.spec.Time), 0)
	p.last = r
	p.file.deliveries = append(p.file.deliveries, delivery{p.line, arrival, r})
	return nil
}

// identify gives the record its ids: made from labels where there are any, else from its number.
func (p *parser) identify(r *record, label, correlation, original string) error {
	tenant := r.spec.TenantID
	number := strconv.Itoa(p.count + 1)
	r.spec.RequestID = synthetic.NamedGUID("request", tenant+"/#"+number)
	if label != "" {
		if old, ok := p.file.labels[label]; ok {
			return fmt.Errorf("request %s is already the name of a record of line %d; expected each name once", label, old.line)
		}
		r.spec.RequestID = synthetic.NamedGUID("request", tenant+"/"+label)
		p.file.labels[label] = labelled{tenant, r.spec.RequestID, p.line}
	}
	switch correlation {
	case "":
		r.spec.CorrelationID = synthetic.NamedGUID("correlation", tenant+"/#"+number)
	case "zero":
		r.spec.CorrelationID = zeroGUID
	default:
		r.spec.CorrelationID = synthetic.NamedGUID("correlation", correlation)
	}
	if original != "" {
		old, ok := p.file.labels[original]
		if !ok {
			return fmt.Errorf("original %s names no record above; expected a name given by request NAME", original)
		}
		r.spec.OriginalRequestID = old.requestID
	}
	return nil
}

// again sends a record once more: as it was, or changed by modifiers.
func (p *parser) again(arrival time.Time, how string) error {
	var old *record
	name, err := p.word("last, or the name of a record")
	if err != nil {
		return err
	}
	if name == "last" {
		old = p.last
	} else if l, ok := p.file.labels[name]; ok {
		for i := range p.file.deliveries {
			if r := p.file.deliveries[i].record; r != nil && r.spec.RequestID == l.requestID {
				old = r // the newest version
			}
		}
	}
	if old == nil {
		return fmt.Errorf("there is no record %s above; expected last or a name given by request NAME", name)
	}
	if first := old.spec.Time.Add(old.spec.ProcessingDelay); arrival.Before(first) {
		return fmt.Errorf("the record would come again at %s, before it came at %s; expected a later time (both are time plus delay)",
			arrival.Format(time.DateTime), first.Format(time.DateTime))
	}
	kept := old.spec.ProcessingDelay
	c := *old
	plain := how == "repeat"
	m := &modified{record: &c, again: true}
	m.who = account{userID: c.spec.UserID, upn: c.spec.UserPrincipalName, tenant: p.tenant}
	if how == "split" {
		c.spec.Policies = nil
		c.spec.ConditionalAccessStatus = or(c.spec.ConditionalAccessStatus, statusOf(old.spec.Policies))
	}
	if plain && p.more() && slices.Contains([]string{"succeeds", "fails", "interrupted"}, p.peek().text) {
		return fmt.Errorf("%s; a repeat is exactly the same record; expected update for a changed one", p.found())
	}
	if p.is("succeeds") {
		c.spec.ErrorCode, c.spec.FailureReason = 0, ""
	} else if p.peek().text == "fails" || p.peek().text == "interrupted" {
		if err := p.verb(&c); err != nil {
			return err
		}
		c.spec.FailureReason = ""
	}
	begin := p.next
	if err := p.modifiers(m); err != nil {
		return err
	}
	if plain && p.next-begin > 0 && !m.onlyTimes {
		p.next = begin
		return fmt.Errorf("%s; a repeat is exactly the same record, so only xN may follow; expected update or split for a changed one", p.found())
	}
	p.settle(m)
	for i := range m.times {
		d := c
		at := arrival.Add(time.Duration(i) * or(m.every, defaultEvery))
		p.arrival = at
		if err := p.send(&d, at); err != nil {
			return err
		}
		if plain {
			d.spec.ProcessingDelay = kept // an exact repeat differs in nothing
		}
	}
	return nil
}

func statusOf(policies []synthetic.Policy) string {
	status := "notApplied"
	for i := range policies {
		switch policies[i].Result {
		case "failure":
			return "failure"
		case "success":
			status = "success"
		}
	}
	return status
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// fill sets what follows from who signs in.
func (p *parser) fill(r *record, a account) {
	s := &r.spec
	s.TenantID = a.tenant.id
	s.Address, s.AutonomousSystemNumber = defaultAddress, 64496
	s.Place = synthetic.Place{City: "Bern", State: "Bern", CountryOrRegion: "CH", Latitude: 46.94809, Longitude: 7.44744}
	if a.principal {
		s.Category = schemas.Category_CATEGORY_SERVICE_PRINCIPAL
		s.ClientCredentialType = "clientSecret"
		if a.managed {
			s.Category, s.ClientCredentialType = schemas.Category_CATEGORY_MANAGED_IDENTITY, "managedIdentity"
			s.Address, s.AutonomousSystemNumber, s.Place = "", 0, synthetic.Place{}
		}
		s.ServicePrincipalID, s.ServicePrincipalName, s.AppID, s.AppDisplayName = a.userID, a.name, a.appID, a.name
		_, s.ResourceID, s.ResourceDisplayName = synthetic.Application("Microsoft Graph")
		return
	}
	s.Category = schemas.Category_CATEGORY_SIGN_IN
	s.UserID, s.UserPrincipalName, s.UserType = a.userID, a.upn, a.userType
	s.UserDisplayName = strings.ToUpper(a.name[:1]) + a.name[1:]
	if a.name[0] >= 0x80 {
		s.UserDisplayName = a.name
	}
	if a.home != nil {
		s.HomeTenantID, s.ResourceTenantID, s.CrossTenantAccessType = a.home.id, a.tenant.id, "b2bCollaboration"
	}
	s.AppDisplayName = defaultApp
	s.AppID, s.ResourceID, s.ResourceDisplayName = synthetic.Application(defaultApp)
	s.ClientAppUsed = synthetic.ClientBrowser
	s.UserAgent = defaultAgent
	s.Device = synthetic.Device{OperatingSystem: "Windows 11", Browser: "Edge 142.0.0"}
}

// verb reads succeeds, fails CODE or interrupted CODE.
func (p *parser) verb(r *record) error {
	switch {
	case p.is("succeeds"):
		r.spec.ErrorCode = 0
		return nil
	case p.is("fails"), p.is("interrupted"):
		v, err := p.word("an error code, as in: ada fails 50126")
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 1 || n > math.MaxInt32 {
			p.next--
			return fmt.Errorf("%s; expected an error code without its letters AADSTS, as in: ada fails 50126", p.found())
		}
		r.spec.ErrorCode = int32(n)
		return nil
	}
	return fmt.Errorf("%s; expected succeeds, fails CODE or interrupted CODE", p.found())
}

// modified is a record while its modifiers are read.
type modified struct {
	*record
	who                          account
	again                        bool
	times                        int
	every                        time.Duration
	label, correlation, original string
	resource                     bool
	required                     bool // requirement was given
	steps, policies              bool // replaced by this statement
	second                       *synthetic.Step
	onlyTimes                    bool // nothing but xN was given
}

// modifier is one word behind the verb with its arguments.
type modifier struct {
	word string
	// arguments is how many words follow; example shows the whole.
	arguments int
	example   string
	set       func(p *parser, m *modified, v []string) error
}

// modifiers reads to the end of the line.
func (p *parser) modifiers(m *modified) error {
	m.times, m.onlyTimes = 1, true
	seen := map[string]bool{}
	for p.more() {
		t := p.peek()
		if t.op != "" || t.quoted {
			return fmt.Errorf("%s; expected a word such as from, app or x5", p.found())
		}
		if count, ok := strings.CutPrefix(t.text, "x"); ok {
			if n, err := strconv.Atoi(count); err == nil {
				if n < 1 || n > MaxRecords {
					return fmt.Errorf("%s; expected x1 to x%d", p.found(), MaxRecords)
				}
				p.next++
				m.times = n
				if p.is("every") {
					if m.every, err = p.duration("the time between two, as in: x5 every 20s"); err != nil {
						return err
					}
					if m.every == 0 || m.every > maxDelay {
						return fmt.Errorf("found every %s; expected more than 0 and at most %s", m.every, maxDelay)
					}
				}
				continue
			}
		}
		i := slices.IndexFunc(modifierTable, func(d modifier) bool { return d.word == t.text })
		if i < 0 {
			return fmt.Errorf("%s; expected one of %s, xN", p.found(), modifierNames())
		}
		d := &modifierTable[i]
		if seen[d.word] && d.word != "policy" && d.word != "step" && d.word != "detail" {
			return fmt.Errorf("%s a second time; expected it once", p.found())
		}
		if m.again && (d.word == "request" || d.word == "correlation") {
			return fmt.Errorf("%s; a record that comes again keeps its ids", p.found())
		}
		seen[d.word] = true
		m.onlyTimes = false
		p.next++
		values := make([]string, d.arguments)
		for k := range values {
			var err error
			if values[k], err = p.word("its value, as in: " + d.example); err != nil {
				return err
			}
		}
		if err := d.set(p, m, values); err != nil {
			return err
		}
	}
	return nil
}

func modifierNames() string {
	names := make([]string, len(modifierTable))
	for i := range modifierTable {
		names[i] = modifierTable[i].word
	}
	return strings.Join(names, ", ")
}

// settle adds what follows from the rest: the first factor, the requirement, who demanded it.
func (p *parser) settle(m *modified) {
	s := &m.spec
	if m.who.unknown {
		s.UserID, s.UserDisplayName = zeroGUID, ""
	}
	if m.again && !m.policies && !m.steps && m.second == nil {
		return
	}
	if !m.steps && !m.again && s.Category.IsUser() {
		switch s.ErrorCode {
		case 0, 50055, 50072, 50074, 50076, 50079, 53000, 53001, 53003, 50105, 65001, 50140:
			s.Steps = append(s.Steps, synthetic.Step{Method: "Password", MethodDetail: "Password in the cloud", Succeeded: schemas.Tri_TRI_TRUE,
				ResultDetail: "Correct password"})
		}
	}
	if m.second != nil {
		s.Steps = append(slices.Clip(s.Steps), *m.second)
	}
	needsMFA := m.second != nil || len(s.RequirementPolicies) > 0
	switch s.ErrorCode {
	case 50074, 50076, 50078, 50072, 50079, 500121:
		needsMFA = true
	}
	demanded := false
	for i := range s.Policies {
		if r := s.Policies[i].Result; slices.Contains(s.Policies[i].GrantControls, "Mfa") && (r == "success" || r == "failure") {
			demanded = true
		}
	}
	if demanded && len(s.RequirementPolicies) == 0 {
		s.RequirementPolicies = []synthetic.RequirementPolicy{{Provider: "multiConditionalAccess", Detail: "Conditional Access"}}
	}
	if !m.required && (needsMFA || demanded) {
		s.AuthenticationRequirement = synthetic.RequirementMultiFactor
	}
}

// mfaResults are the words of the modifier mfa with the step that they make.
var mfaResults = map[string]struct {
	method, result string
	succeeded      schemas.Tri
}{
	"approved":   {"Mobile app notification", "MFA successfully completed", schemas.Tri_TRI_TRUE},
	"claim":      {"Previously satisfied", "MFA requirement satisfied by claim in the token", schemas.Tri_TRI_TRUE},
	"remembered": {"Previously satisfied", "MFA requirement skipped due to remembered device", schemas.Tri_TRI_TRUE},
	"denied":     {"Mobile app notification", "MFA denied; user declined the authentication", schemas.Tri_TRI_FALSE},
	"timeout":    {"Mobile app notification", "MFA denied; user did not respond to mobile app notification", schemas.Tri_TRI_FALSE},
	"wrongcode":  {"OATH verification code", "MFA denied; invalid verification code", schemas.Tri_TRI_FALSE},
	"fraud":      {"Mobile app notification", "MFA denied; fraud code entered", schemas.Tri_TRI_FALSE},
	"nomethod":   {"", "MFA denied; user does not have any methods registered", schemas.Tri_TRI_FALSE},
}

var categories = map[string]schemas.Category{
	"interactive":      schemas.Category_CATEGORY_SIGN_IN,
	"noninteractive":   schemas.Category_CATEGORY_NON_INTERACTIVE_USER,
	"serviceprincipal": schemas.Category_CATEGORY_SERVICE_PRINCIPAL,
	"managedidentity":  schemas.Category_CATEGORY_MANAGED_IDENTITY,
	"adfs":             schemas.Category_CATEGORY_ADFS,
}

// policyResults are Graph's results of a policy.
var policyResults = []string{"success", "failure", "notApplied", "notEnabled", "unknown", "reportOnlySuccess", "reportOnlyFailure",
	"reportOnlyNotApplied", "reportOnlyInterrupted"}

// Dialects that the modifier dialect takes.
var dialects = []string{"eventhubs", "loganalytics", "graph"}

func oneOf(word, value string, allowed []string) error {
	if !slices.Contains(allowed, value) {
		return fmt.Errorf("found %s %s; expected %s %s", word, value, word, strings.Join(allowed, ", "))
	}
	return nil
}

func yesNo(word, value string) (schemas.Tri, error) {
	switch value {
	case "yes":
		return schemas.Tri_TRI_TRUE, nil
	case "no":
		return schemas.Tri_TRI_FALSE, nil
	case "unknown":
		return schemas.Tri_TRI_UNKNOWN, nil
	}
	return 0, fmt.Errorf("found %s %s; expected yes, no or unknown", word, value)
}

// text makes a modifier that stores its one word in a field.
func text(field func(s *synthetic.SignInSpec) *string) func(*parser, *modified, []string) error {
	return func(_ *parser, m *modified, v []string) error {
		*field(&m.spec) = v[0]
		return nil
	}
}

// modifierTable is filled by init, since its functions refer to it.
var modifierTable []modifier

func init() {
	modifierTable = []modifier{
		{"from", 1, "from 203.0.113.7", func(p *parser, m *modified, v []string) error {
			if v[0] != "nowhere" && !strings.Contains(v[0], "XXX") {
				if _, err := netip.ParseAddr(v[0]); err != nil {
					return fmt.Errorf("found from %s; expected an address such as 203.0.113.7 or 2001:db8::7, or nowhere", v[0])
				}
			}
			m.spec.Address = v[0]
			if v[0] == "nowhere" {
				m.spec.Address = ""
			}
			return nil
		}},
		{"app", 1, `app "Exchange Online"`, func(p *parser, m *modified, v []string) error {
			resourceID, resource := m.spec.ResourceID, m.spec.ResourceDisplayName
			m.spec.AppDisplayName = v[0]
			m.spec.AppID, m.spec.ResourceID, m.spec.ResourceDisplayName = synthetic.Application(v[0])
			if m.resource {
				m.spec.ResourceID, m.spec.ResourceDisplayName = resourceID, resource
			}
			return nil
		}},
		{"resource", 1, `resource "Microsoft Graph"`, func(p *parser, m *modified, v []string) error {
			m.resource = true
			m.spec.ResourceDisplayName = v[0]
			_, m.spec.ResourceID, _ = synthetic.Application(v[0])
			return nil
		}},
		{"client", 1, "client IMAP4", text(func(s *synthetic.SignInSpec) *string { return &s.ClientAppUsed })},
		{"agent", 1, `agent "python-requests/2.32"`, text(func(s *synthetic.SignInSpec) *string { return &s.UserAgent })},
		{"device", 1, "device LAPTOP-7", func(p *parser, m *modified, v []string) error {
			m.spec.Device.DisplayName = v[0]
			m.spec.Device.ID = synthetic.NamedGUID("device", v[0])
			return nil
		}},
		{"os", 1, `os "Windows 11"`, text(func(s *synthetic.SignInSpec) *string { return &s.Device.OperatingSystem })},
		{"browser", 1, `browser "Edge 142.0.0"`, text(func(s *synthetic.SignInSpec) *string { return &s.Device.Browser })},
		{"trust", 1, `trust "Azure AD joined"`, text(func(s *synthetic.SignInSpec) *string { return &s.Device.TrustType })},
		{"compliant", 1, "compliant no", func(p *parser, m *modified, v []string) (err error) {
			m.spec.Device.IsCompliant, err = yesNo("compliant", v[0])
			return err
		}},
		{"managed", 1, "managed yes", func(p *parser, m *modified, v []string) (err error) {
			m.spec.Device.IsManaged, err = yesNo("managed", v[0])
			return err
		}},
		{"place", 2, "place Hamburg DE", func(p *parser, m *modified, v []string) error {
			if len(v[1]) != 2 {
				return fmt.Errorf("found place %s %s; expected a town and a country of two letters, as in: place Hamburg DE", v[0], v[1])
			}
			m.spec.Place = synthetic.Place{City: v[0], CountryOrRegion: strings.ToUpper(v[1])}
			return nil
		}},
		{"network", 1, `network "Head office"`, func(p *parser, m *modified, v []string) error {
			m.spec.NetworkLocations = []synthetic.NetworkLocation{{Type: "trustedNamedLocation", Names: []string{v[0]}}}
			return nil
		}},
		{"asn", 1, "asn 64500", func(p *parser, m *modified, v []string) error {
			n, err := strconv.ParseUint(v[0], 10, 32)
			if err != nil {
				return fmt.Errorf("found asn %s; expected a number of an autonomous system, as in: asn 64500", v[0])
			}
			m.spec.AutonomousSystemNumber = uint32(n)
			return nil
		}},
		{"category", 1, "category noninteractive", func(p *parser, m *modified, v []string) error {
			c, ok := categories[v[0]]
			if !ok {
				return fmt.Errorf("found category %s; expected interactive, noninteractive, serviceprincipal, managedidentity or adfs", v[0])
			}
			if c.IsUser() != m.spec.Category.IsUser() {
				return fmt.Errorf("category %s does not suit %s; a workload is declared by: principal NAME", v[0], or(m.who.name, "the record"))
			}
			m.spec.Category = c
			return nil
		}},
		{"policy", 1, `policy "Block old mail" failure`, (*parser).policyModifier},
		{"policies", 1, "policies withheld", func(p *parser, m *modified, v []string) error {
			m.spec.PoliciesWithheld = true
			return oneOf("policies", v[0], []string{"withheld"})
		}},
		{"ca", 1, "ca notApplied", func(p *parser, m *modified, v []string) error {
			m.spec.ConditionalAccessStatus = v[0]
			return oneOf("ca", v[0], []string{"success", "failure", "notApplied"})
		}},
		{"requirement", 1, "requirement multi", func(p *parser, m *modified, v []string) error {
			m.required = true
			m.spec.AuthenticationRequirement = synthetic.RequirementSingleFactor
			if v[0] == "multi" {
				m.spec.AuthenticationRequirement = synthetic.RequirementMultiFactor
			}
			return oneOf("requirement", v[0], []string{"single", "multi"})
		}},
		{"demanded", 1, "demanded securityDefaults", func(p *parser, m *modified, v []string) error {
			m.spec.RequirementPolicies = nil
			for provider := range strings.SplitSeq(v[0], ",") {
				m.spec.RequirementPolicies = append(m.spec.RequirementPolicies, synthetic.RequirementPolicy{Provider: provider})
			}
			return nil
		}},
		{"mfa", 1, "mfa denied", func(p *parser, m *modified, v []string) error {
			r, ok := mfaResults[v[0]]
			if !ok {
				return fmt.Errorf("found mfa %s; expected approved, claim, remembered, denied, timeout, wrongcode, fraud or nomethod", v[0])
			}
			m.second = &synthetic.Step{Method: r.method, Succeeded: r.succeeded, ResultDetail: r.result, Requirement: synthetic.StepMultiFactor, After: 20 * time.Second}
			m.spec.AdditionalDetails = or(m.spec.AdditionalDetails, r.result)
			return nil
		}},
		{"password", 1, "password wrong", func(p *parser, m *modified, v []string) error {
			step := synthetic.Step{Method: "Password", MethodDetail: "Password in the cloud", Succeeded: schemas.Tri_TRI_TRUE, ResultDetail: "Correct password"}
			if v[0] == "wrong" {
				step.Succeeded, step.ResultDetail = schemas.Tri_TRI_FALSE, "Invalid username or password or Invalid on-premise username or password."
			}
			p.addStep(m, step)
			return oneOf("password", v[0], []string{"right", "wrong"})
		}},
		{"step", 3, `step "FIDO2 security key" ok "MFA successfully completed"`, func(p *parser, m *modified, v []string) error {
			succeeded := schemas.Tri_TRI_FALSE
			if v[1] == "ok" {
				succeeded = schemas.Tri_TRI_TRUE
			}
			p.addStep(m, synthetic.Step{Method: v[0], Succeeded: succeeded, ResultDetail: v[2]})
			return oneOf("step "+v[0], v[1], []string{"ok", "failed"})
		}},
		{"strength", 1, `strength "Phishing-resistant MFA"`, func(p *parser, m *modified, v []string) error {
			m.spec.AuthenticationStrengths = []string{v[0]}
			return nil
		}},
		{"methods", 1, `methods "Pass-through Authentication"`, func(p *parser, m *modified, v []string) error {
			m.spec.AuthenticationMethodsUsed = strings.Split(v[0], ",")
			return nil
		}},
		{"context", 1, "context c1", func(p *parser, m *modified, v []string) error {
			m.spec.AuthenticationContexts = strings.Split(v[0], ",")
			return nil
		}},
		{"risk", 1, "risk high", func(p *parser, m *modified, v []string) error {
			m.spec.Risk.LevelDuringSignIn = v[0]
			m.spec.Risk.State = or(m.spec.Risk.State, map[string]string{"low": "atRisk", "medium": "atRisk", "high": "atRisk"}[v[0]])
			return oneOf("risk", v[0], []string{"none", "low", "medium", "high", "hidden"})
		}},
		{"aggregated", 1, "aggregated medium", func(p *parser, m *modified, v []string) error {
			m.spec.Risk.LevelAggregated = v[0]
			return oneOf("aggregated", v[0], []string{"none", "low", "medium", "high", "hidden"})
		}},
		{"riskstate", 1, "riskstate remediated", text(func(s *synthetic.SignInSpec) *string { return &s.Risk.State })},
		{"riskdetail", 1, "riskdetail userPassedMFADrivenByRiskBasedPolicy", text(func(s *synthetic.SignInSpec) *string { return &s.Risk.Detail })},
		{"riskevents", 1, "riskevents unfamiliarFeatures,anonymizedIPAddress", func(p *parser, m *modified, v []string) error {
			m.spec.Risk.EventTypes = strings.Split(v[0], ",")
			return nil
		}},
		{"protocol", 1, "protocol deviceCode", text(func(s *synthetic.SignInSpec) *string { return &s.AuthenticationProtocol })},
		{"token", 1, "token refreshToken", text(func(s *synthetic.SignInSpec) *string { return &s.IncomingTokenType })},
		{"transfer", 1, "transfer deviceCodeFlow", text(func(s *synthetic.SignInSpec) *string { return &s.OriginalTransferMethod })},
		{"crosstenant", 1, "crosstenant b2bCollaboration", text(func(s *synthetic.SignInSpec) *string { return &s.CrossTenantAccessType })},
		{"credential", 1, "credential certificate", text(func(s *synthetic.SignInSpec) *string { return &s.ClientCredentialType })},
		{"identifier", 1, "identifier ada.old@example.org", text(func(s *synthetic.SignInSpec) *string { return &s.SignInIdentifier })},
		{"redirect", 1, "redirect https://app.example.org/back", text(func(s *synthetic.SignInSpec) *string { return &s.RedirectURL })},
		{"session", 1, "session s1", func(p *parser, m *modified, v []string) error {
			m.spec.SessionID = synthetic.NamedGUID("session", v[0])
			return nil
		}},
		{"nouser", 0, "nouser", func(p *parser, m *modified, v []string) error {
			m.who.unknown = true
			return nil
		}},
		{"flagged", 0, "flagged", func(p *parser, m *modified, v []string) error {
			m.spec.FlaggedForReview = true
			return nil
		}},
		{"restricted", 0, "restricted", func(p *parser, m *modified, v []string) error {
			m.spec.IsTenantRestricted = true
			return nil
		}},
		{"text", 1, `text "Invalid user name or password."`, text(func(s *synthetic.SignInSpec) *string { return &s.FailureReason })},
		{"details", 1, `details "MFA required in Azure AD"`, text(func(s *synthetic.SignInSpec) *string { return &s.AdditionalDetails })},
		{"detail", 2, `detail "Legacy TLS (TLS 1.0, 1.1, 3DES)" True`, func(p *parser, m *modified, v []string) error {
			m.spec.ProcessingDetails = append(slices.Clip(m.spec.ProcessingDetails), synthetic.KeyValue{Key: v[0], Value: v[1]})
			return nil
		}},
		{"request", 1, "request r1", func(p *parser, m *modified, v []string) error {
			m.label = v[0]
			if v[0] == "last" {
				return fmt.Errorf("last is no name for a record, it means the one above; expected another name")
			}
			return nil
		}},
		{"correlation", 1, "correlation c1", func(p *parser, m *modified, v []string) error {
			m.correlation = v[0]
			return nil
		}},
		{"original", 1, "original r1", func(p *parser, m *modified, v []string) error {
			m.original = v[0]
			return nil
		}},
		{"dialect", 1, "dialect loganalytics", func(p *parser, m *modified, v []string) error {
			m.dialect = v[0]
			return oneOf("dialect", v[0], dialects)
		}},
	}
}

func (p *parser) addStep(m *modified, step synthetic.Step) {
	if !m.steps {
		m.steps = true
		m.spec.Steps = nil
	}
	m.spec.Steps = append(slices.Clip(m.spec.Steps), step)
}

// policyModifier adds a policy with its result; without one it failed where the sign-in did.
func (p *parser) policyModifier(m *modified, v []string) error {
	q := p.policies[m.spec.TenantID+v[0]]
	if q == nil {
		return fmt.Errorf("there is no policy %q in the tenant; expected it declared above, as in: policy %q block", v[0], v[0])
	}
	result := "success"
	if m.spec.ErrorCode != 0 {
		result = "failure"
	}
	if p.more() && p.peek().op == "" && slices.Contains(policyResults, p.peek().text) {
		result = p.peek().text
		p.next++
	}
	if !m.policies && m.again {
		m.spec.Policies = nil
	}
	m.policies = true
	entry := synthetic.Policy{ID: synthetic.NamedGUID("policy", m.spec.TenantID+q.name), DisplayName: q.name, Result: result,
		GrantControls: q.controls, SessionControls: q.session, AuthenticationStrength: q.strength}
	applied := result != "notApplied" && result != "notEnabled" && result != "reportOnlyNotApplied"
	for _, c := range schemas.ConditionNames {
		if q.conditions&c.Bit == 0 {
			continue
		}
		if applied {
			entry.Satisfied |= c.Bit
			entry.Include = append(entry.Include, synthetic.Rule{Condition: c.Name, Satisfied: includeRules[c.Name]})
		} else {
			entry.NotSatisfied = c.Bit // the last condition is the one that was not met
		}
	}
	if !applied {
		entry.Satisfied = q.conditions &^ entry.NotSatisfied
	}
	m.spec.Policies = append(slices.Clip(m.spec.Policies), entry)
	return nil
}

// includeRules are the rules by which a condition of a declared policy is met.
var includeRules = map[string]string{"application": "allApps", "users": "allUsers", "devicePlatform": "allDevicePlatforms", "location": "allLocations",
	"clientType": "otherClients", "signInRisk": "signInRisk", "userRisk": "userRisk", "deviceState": "deviceState", "authenticationFlows": "deviceCodeFlow"}

// Words returns every word that begins a statement or modifies a sign-in, for checks that documents tell of all.
func Words() []string {
	var words []string
	for _, s := range statements {
		words = append(words, s.word)
	}
	for i := range modifierTable {
		words = append(words, modifierTable[i].word)
	}
	return append(words, "repeat", "update", "split", "late", "every")
}

// Examples returns an example of every modifier, as error messages show them.
func Examples() []string {
	examples := make([]string, len(modifierTable))
	for i := range modifierTable {
		examples[i] = modifierTable[i].example
	}
	return examples
}
