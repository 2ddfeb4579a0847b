package synthetic

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Attack is a story to plant into the traffic. Zero fields take the kind's own values.
type Attack struct {
	// Kind is one of AttackKinds.
	Kind string
	// At is the event time of its first record; Over is how long it lasts.
	At   time.Time
	Over time.Duration
	// Tenant is the number of the tenant, from 0.
	Tenant int
	// FirstUser is the number of its first user; Users and Addresses are how many are in it.
	FirstUser, Users, Addresses int
	// Intensity multiplies the number of attempts, 1 by default.
	Intensity float64
	// Succeeds ends the attack with a sign-in of its last user, where the kind has such an end.
	Succeeds bool
	// OneNetwork takes the addresses out of one IPv6 /64, at most 29 of them, as an attacker with one host moves.
	OneNetwork bool
	// Late delays every record beyond the usual, as when an export was down; at most 48 hours.
	Late time.Duration
}

// Planted is the ground truth of one attack, or of a story that people made by themselves (see Traffic.Organic).
type Planted struct {
	// Kind is the kind of incident that the story is; Outcome is one of blocked, locked,
	// password_known, signed_in and failing, as in incidents.
	Kind, Outcome string
	TenantID      string
	// Users holds principal names (names of service principals for their kinds), Addresses what the
	// records carry, RequestIDs every record of the story in order of event time.
	Users, UserIDs, Addresses, RequestIDs []string
	First, Last                           time.Time
}

type attackKind struct {
	name     string
	users    int
	address  int
	attempts float64 // per user
	over     time.Duration
	outcome  string
	plan     func(*planner)
}

var attackKinds = []attackKind{
	{"password_spray", 15, 1, 1, 12 * time.Minute, "blocked", (*planner).spray},
	{"distributed_spray", 40, 25, 1, 50 * time.Minute, "blocked", (*planner).spray},
	{"brute_force", 1, 1, 60, 9 * time.Minute, "blocked", (*planner).guess},
	{"account_lockout", 1, 1, 12, 6 * time.Minute, "locked", (*planner).lockout},
	{"mfa_fatigue", 1, 1, 8, 25 * time.Minute, "blocked", (*planner).fatigue},
	{"totp_guessing", 1, 1, 14, 8 * time.Minute, "blocked", (*planner).codes},
	{"legacy_auth", 4, 2, 6, 3 * time.Hour, "blocked", (*planner).legacy},
	{"password_known", 1, 1, 6, 5 * time.Minute, "password_known", (*planner).known},
	{"account_takeover", 1, 1, 14, 8 * time.Minute, "signed_in", (*planner).takeover},
	{"repeated_failures", 1, 0, 12, 5 * time.Hour, "blocked", (*planner).forgotten},
	{"cached_credential", 1, 0, 40, 20 * time.Hour, "failing", (*planner).cached},
	{"user_enumeration", 30, 1, 1, 6 * time.Minute, "blocked", (*planner).enumerate},
	{"disabled_account_probe", 5, 1, 2, 30 * time.Minute, "blocked", (*planner).disabled},
	{"principal_secret_guessing", 1, 1, 25, 8 * time.Minute, "blocked", (*planner).secrets},
	{"expired_secret", 1, 0, 30, 5 * time.Hour, "failing", (*planner).expired},
	{"pta_outage", 25, 0, 2, 10 * time.Minute, "failing", (*planner).outage},
	{"sso_outage", 12, 0, 2, 25 * time.Minute, "failing", (*planner).ssoOutage},
	{"app_outage", 12, 0, 1, 25 * time.Minute, "failing", (*planner).appOutage},
	{"ca_surge", 25, 0, 1, 20 * time.Minute, "failing", (*planner).surge},
	{"device_code", 1, 1, 1, 6 * time.Minute, "signed_in", (*planner).deviceCode},
}

// AttackKinds lists the kinds that can be planted.
func AttackKinds() []string {
	names := make([]string, len(attackKinds))
	for i := range attackKinds {
		names[i] = attackKinds[i].name
	}
	return names
}

// planner collects the records of one attack.
type planner struct {
	t      *Traffic
	a      Attack
	kind   *attackKind
	n      int // attempts per user
	events []event
	truth  *Planted
	seed   uint64
}

// Plant adds an attack and returns its ground truth. Records whose time has already been delivered
// come at once, as late ones do.
func (t *Traffic) Plant(a Attack) (Planted, error) {
	i := slices.IndexFunc(attackKinds, func(k attackKind) bool { return k.name == a.Kind })
	if i < 0 {
		return Planted{}, fmt.Errorf("plant attack: unknown kind %q; expected one of %s", a.Kind, strings.Join(AttackKinds(), ", "))
	}
	kind := &attackKinds[i]
	if a.Users == 0 {
		a.Users = kind.users
	}
	if a.Addresses == 0 {
		a.Addresses = kind.address
	}
	if a.Over == 0 {
		a.Over = kind.over
	}
	if a.Intensity == 0 {
		a.Intensity = 1
	}
	if a.At.IsZero() {
		return Planted{}, fmt.Errorf("plant %s: At is not set; expected the event time of its first record", a.Kind)
	}
	if a.Tenant < 0 || a.Tenant >= len(t.tenants) {
		return Planted{}, fmt.Errorf("plant %s: there is no tenant %d; expected 0 to %d", a.Kind, a.Tenant, len(t.tenants)-1)
	}
	people := t.tenants[a.Tenant].users
	if kind.name == "principal_secret_guessing" || kind.name == "expired_secret" {
		people = len(t.tenants[a.Tenant].principals)
		// There are far fewer than users, and who plants many kinds numbers them alike. Every third is a managed identity, which has
		// no secret.
		a.FirstUser %= max(people-a.Users, 0) + 1
		a.FirstUser -= a.FirstUser % 3
	}
	if a.FirstUser < 0 || a.Users < 1 || a.FirstUser+a.Users > people {
		return Planted{}, fmt.Errorf("plant %s: users %d to %d asked for; the tenant has %d", a.Kind, a.FirstUser, a.FirstUser+a.Users-1, people)
	}
	if a.Addresses < 0 || a.Addresses > 5000 || !(a.Intensity > 0 && a.Intensity <= 1000) || a.Over < 0 || a.Over > 14*24*time.Hour {
		return Planted{}, fmt.Errorf("plant %s: expected at most 5000 addresses, an intensity up to 1000 and at most 14 days", a.Kind)
	}
	if a.Late < 0 || a.Late > 48*time.Hour || a.OneNetwork && a.Addresses > addressesOfNetwork {
		return Planted{}, fmt.Errorf("plant %s: expected records at most 48h late, and at most %d addresses in one network", a.Kind, addressesOfNetwork)
	}
	n := max(int(kind.attempts*a.Intensity+0.5), 1)
	if n*a.Users > 1_000_000 {
		return Planted{}, fmt.Errorf("plant %s: %d records asked for; expected at most 1000000", a.Kind, n*a.Users)
	}
	p := &planner{t: t, a: a, kind: kind, n: n, truth: &Planted{Kind: kind.name, Outcome: kind.outcome, TenantID: t.tenants[a.Tenant].id}}
	p.seed = mix(t.opt.Seed ^ uint64(a.At.UnixMicro()) ^ uint64(i)<<56 ^ uint64(len(t.planted))<<40)
	kind.plan(p)
	p.finish()
	return *p.truth, nil
}

// add plans one record: position is its place in the attack, 0 to 1.
func (p *planner) add(position float64, user int, code int32, d detail) *event {
	k := uint64(len(p.events))
	e := event{
		at:     p.a.At.Add(time.Duration(position * float64(p.a.Over))).UnixMicro(),
		seed:   mix(p.seed + 2*k + 1),
		tenant: uint16(p.a.Tenant), user: int32(p.a.FirstUser + user), code: code, detail: d, app: appPortal,
		from: fromAttacker, address: p.address(k), delay: int32(p.a.Late.Milliseconds()),
	}
	if p.a.OneNetwork {
		e.from = fromAttacker64
	}
	e.original, e.correlation = e.seed, mix(e.seed)
	p.events = append(p.events, e)
	return &p.events[len(p.events)-1]
}

// address gives the k-th record one of the attack's addresses; every attack has a range of its own.
func (p *planner) address(k uint64) uint16 {
	if p.a.Addresses == 0 {
		return 0
	}
	base := uint64(len(p.t.planted)) * addressesOfNetwork
	return uint16((base + k%uint64(p.a.Addresses)) % 60_000)
}

func (p *planner) finish() {
	slices.SortStableFunc(p.events, func(a, b event) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	truth, t := p.truth, p.t
	seen := make(map[string]bool)
	keep := func(list *[]string, kind, value string) bool {
		if value == "" || seen[kind+value] {
			return false
		}
		seen[kind+value] = true
		*list = append(*list, value)
		return true
	}
	for i := range p.events {
		e := &p.events[i]
		t.render(e)
		s := &t.spec
		truth.RequestIDs = append(truth.RequestIDs, s.RequestID)
		keep(&truth.Addresses, "a", s.Address)
		if e.class == workload {
			keep(&truth.Users, "u", s.ServicePrincipalName)
			keep(&truth.UserIDs, "i", s.ServicePrincipalID)
			continue
		}
		keep(&truth.Users, "u", s.UserPrincipalName)
		if e.detail != detailUnknown {
			keep(&truth.UserIDs, "i", s.UserID)
		}
	}
	truth.First = time.UnixMicro(p.events[0].at).UTC()
	truth.Last = time.UnixMicro(p.events[len(p.events)-1].at).UTC()
	t.planted = append(t.planted, truth)
	t.planned = append(t.planned, p.events...)
	slices.SortStableFunc(t.planned, func(a, b event) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
}

// spray tries a few passwords on many users, round by round.
func (p *planner) spray() {
	total := float64(p.n * p.a.Users)
	for i := range p.n * p.a.Users {
		user := i % p.a.Users
		e := p.add(float64(i)/total*0.97, user, 50126, detailPassword)
		e.client = clientScript
		if user%9 == 8 {
			e.code, e.detail = 50034, detailUnknown
		}
	}
	if p.a.Succeeds {
		e := p.add(1, p.a.Users-1, 0, detailPassword)
		e.client = clientScript
		p.truth.Outcome = "signed_in"
	}
}

func (p *planner) guess() {
	for i := range p.n {
		for user := range p.a.Users {
			p.add(float64(i)/float64(p.n)*0.97, user, 50126, detailPassword).client = clientScript
		}
	}
	if p.a.Succeeds {
		p.add(1, p.a.Users-1, 0, detailPassword).client = clientScript
		p.truth.Outcome = "signed_in"
	}
}

// lockout: wrong passwords until the account is locked, and the tries that go on against the lock.
func (p *planner) lockout() {
	for user := range p.a.Users {
		for i := range p.n {
			p.add(float64(i)/float64(p.n)*0.7, user, 50126, detailPassword)
		}
		for i := range 4 {
			p.add(0.75+0.08*float64(i), user, 50053, detailNone)
		}
	}
}

func (p *planner) fatigue() {
	for user := range p.a.Users {
		for i := range p.n {
			at := float64(i) / float64(p.n) * 0.95
			prompt := p.add(at, user, 50074, detailPassword)
			correlation := prompt.correlation
			d := detailDenied
			if i%3 == 0 {
				d = detailTimeout
			}
			answer := p.add(at+0.01, user, 500121, d)
			answer.correlation, answer.original = correlation, p.events[len(p.events)-2].seed
		}
		p.truth.Outcome = "password_known"
		if p.a.Succeeds {
			p.add(1, user, 0, detailApproved)
			p.truth.Outcome = "signed_in"
		}
	}
}

func (p *planner) codes() {
	for user := range p.a.Users {
		for i := range p.n {
			p.add(float64(i)/float64(p.n), user, 500121, detailWrongCode)
		}
	}
	p.truth.Outcome = "password_known"
}

// legacy tries old mail protocols: blocked where the tenant blocks them, else a success at the end.
func (p *planner) legacy() {
	blocks := p.t.tenants[p.a.Tenant].blocksLegacy
	for user := range p.a.Users {
		for i := range p.n {
			e := p.add((float64(i)+float64(user)/float64(p.a.Users))/float64(p.n)*0.98, user, 50126, detailPassword)
			e.client, e.app = clientIMAP, appExchange
			if i%2 == 1 {
				e.client = clientSMTP
			}
			if i == p.n-1 && blocks {
				e.code, e.detail = 53003, detailLegacyBlock
				p.truth.Outcome = "password_known"
			} else if i == p.n-1 && p.a.Succeeds {
				e.code = 0
				p.truth.Outcome = "signed_in"
			}
		}
	}
}

func (p *planner) known() {
	for user := range p.a.Users {
		for i := range p.n {
			p.add(float64(i)/float64(p.n)*0.9, user, 50126, detailPassword)
		}
		p.add(1, user, 53003, detailCountry)
	}
}

func (p *planner) takeover() {
	for user := range p.a.Users {
		for i := range p.n {
			p.add(float64(i)/float64(p.n)*0.8, user, 50126, detailPassword)
		}
		p.add(0.9, user, 0, detailPassword)
		p.add(1, user, 0, detailClaim).app = appExchange
	}
}

// forgotten is the person's own device and place, a wrong password again and again, no success.
func (p *planner) forgotten() {
	for user := range p.a.Users {
		for i := range p.n {
			// Not regular: bunches of two to three tries.
			e := p.add((float64(i)-0.8*float64(i%3))/float64(p.n), user, 50126, detailPassword)
			e.from, e.app = fromHome, appExchange
		}
	}
}

// cached is a device that goes on sending an old password at a regular spacing.
func (p *planner) cached() {
	for user := range p.a.Users {
		for i := range p.n {
			e := p.add(float64(i)/float64(p.n), user, 50126, detailPassword)
			e.from, e.app, e.client, e.class = fromHome, appExchange, clientPhone, nonInteractive
		}
	}
}

func (p *planner) enumerate() {
	for i := range p.n * p.a.Users {
		p.add(float64(i)/float64(p.n*p.a.Users), i%p.a.Users, 50034, detailUnknown).client = clientScript
	}
}

func (p *planner) disabled() {
	for i := range p.n * p.a.Users {
		p.add(float64(i)/float64(p.n*p.a.Users), i%p.a.Users, 50057, detailPassword)
	}
}

func (p *planner) secrets() {
	for i := range p.n {
		for user := range p.a.Users {
			p.add(float64(i)/float64(p.n), user, 7000215, detailNewSecret).class = workload
		}
	}
}

func (p *planner) expired() {
	for i := range p.n {
		for user := range p.a.Users {
			e := p.add(float64(i)/float64(p.n), user, 7000222, detailNone)
			e.class, e.from = workload, fromHome
		}
	}
}

func (p *planner) outage() {
	for i := range p.n * p.a.Users {
		e := p.add(float64(i)/float64(p.n*p.a.Users), i%p.a.Users, 80002, detailNone)
		e.from, e.app = fromOffice, appOffice
	}
}

// ssoOutage: Seamless SSO is broken, and people type their passwords instead.
func (p *planner) ssoOutage() {
	for i := range p.n * p.a.Users {
		e := p.add(float64(i)/float64(p.n*p.a.Users), i%p.a.Users, 81006, detailNone)
		e.from, e.app, e.class = fromOffice, appOffice, nonInteractive
	}
}

// appOutage: the reply address of an application was changed at one side only.
func (p *planner) appOutage() {
	for i := range p.n * p.a.Users {
		e := p.add(float64(i)/float64(p.n*p.a.Users), i%p.a.Users, 50011, detailNone)
		e.from, e.app = fromOffice, appTravel
	}
}

// surge: a policy asks for compliant devices, and all at once they are none.
func (p *planner) surge() {
	for i := range p.n * p.a.Users {
		e := p.add(float64(i)/float64(p.n*p.a.Users), i%p.a.Users, 53000, detailPassword)
		e.from, e.app = fromOffice, appPayroll
	}
}

// deviceCode: the attacker asks for a code, and the person is talked into confirming it at home.
func (p *planner) deviceCode() {
	for user := range p.a.Users {
		for i := range p.n {
			at := (float64(user) + float64(i)/float64(p.n)) / float64(p.a.Users)
			confirm := p.add(at, user, 50199, detailDeviceCode)
			confirm.from, confirm.app = fromHome, appCLI
			correlation, original := confirm.correlation, confirm.seed
			e := p.add(at+0.3/float64(p.a.Users), user, 0, detailDeviceCode)
			e.app, e.correlation, e.original = appCLI, correlation, original
		}
	}
}
