package synthetic

import (
	"math/bits"
	"strconv"
	"strings"

	"github.com/signindiag/signindiag/schemas"
)

// application is a client application with the resource that it asks for. The ids of Microsoft's own
// applications are public (learn.microsoft.com, "Verify first-party Microsoft applications in sign-in
// reports"); the rest is invented.
type application struct {
	id, name, resourceID, resource string
	// modern is true for applications that run as an app rather than in a browser.
	modern bool
	scopes []string
	// rendered is the entry "Oauth Scope Info" of the scopes, made by init.
	rendered string
}

const (
	graphResource    = "00000003-0000-0000-c000-000000000000"
	exchangeResource = "00000002-0000-0ff1-ce00-000000000000"
)

var mailScopes = []string{"AuditLog.Create", "Calendars.ReadWrite", "Calendars.ReadWrite.Shared", "Contacts.ReadWrite",
	"Contacts.ReadWrite.Shared", "Files.ReadWrite.All", "Mail.ReadWrite", "Mail.ReadWrite.Shared", "Mail.Send", "Notes.Create",
	"OnlineMeetings.Read", "People.Read", "Privilege.ELT", "Signals.Read", "Tasks.ReadWrite", "User.Read", "User.ReadBasic.All"}

var portalScopes = []string{"user_impersonation", "email", "openid", "profile", "User.Read", "Directory.AccessAsUser.All"}

var applications = []application{
	{id: "00000002-0000-0ff1-ce00-000000000000", name: "Office 365 Exchange Online", resourceID: exchangeResource, resource: "Office 365 Exchange Online", scopes: mailScopes},
	{id: "1fec8e78-bce4-4aaf-ab1b-5451cc387264", name: "Microsoft Teams", resourceID: "cc15fd57-2c6c-4117-a88c-83b1d56b4bbe", resource: "Microsoft Teams Services", modern: true, scopes: mailScopes},
	{id: "d3590ed6-52b3-4102-aeff-aad2292ab01c", name: "Microsoft Office", resourceID: graphResource, resource: "Microsoft Graph", modern: true, scopes: mailScopes},
	{id: "27922004-5251-4030-b22d-91ecd9a37ea4", name: "Outlook Mobile", resourceID: exchangeResource, resource: "Office 365 Exchange Online", modern: true, scopes: mailScopes},
	{id: "4765445b-32c6-49b0-83e6-1d93765276ca", name: "OfficeHome", resourceID: graphResource, resource: "Microsoft Graph", scopes: portalScopes},
	{id: "89bee1f7-5e6e-4d8a-9f3d-ecd601259da7", name: "Office365 Shell WCSS-Client", resourceID: "5f09333a-842c-47da-a157-57da27fcbca5", resource: "Office365 Shell WCSS-Server", scopes: portalScopes},
	{id: "00000003-0000-0ff1-ce00-000000000000", name: "Office 365 SharePoint Online", resourceID: "00000003-0000-0ff1-ce00-000000000000", resource: "Office 365 SharePoint Online", scopes: portalScopes},
	{id: "ab9b8c07-8f02-4f72-87fa-80105867a763", name: "OneDrive SyncEngine", resourceID: "00000003-0000-0ff1-ce00-000000000000", resource: "Office 365 SharePoint Online", modern: true, scopes: mailScopes},
	{id: "c44b4083-3bb0-49c1-b47d-974e53cbdf3c", name: "Azure Portal", resourceID: "797f4846-ba00-4fd7-ba43-dac1f8f63013", resource: "Windows Azure Service Management API", scopes: portalScopes},
	{id: "04b07795-8ddb-461a-bbee-02f9e1bf7b46", name: "Microsoft Azure CLI", resourceID: "797f4846-ba00-4fd7-ba43-dac1f8f63013", resource: "Windows Azure Service Management API", modern: true, scopes: portalScopes},
	{id: "38aa3b87-a06d-4817-b275-7a316988d93b", name: "Windows Sign In", resourceID: "00000002-0000-0000-c000-000000000000", resource: "Windows Azure Active Directory", modern: true},
	{id: "29d9ed98-a469-4536-ade2-f981bc1d605e", name: "Microsoft Authentication Broker", resourceID: graphResource, resource: "Microsoft Graph", modern: true, scopes: portalScopes},
	{id: "7b0d5f0e-51c3-4f6e-9a55-1d60e3d0a001", name: "Contoso Payroll", resourceID: "7b0d5f0e-51c3-4f6e-9a55-1d60e3d0a002", resource: "Contoso Payroll API", scopes: portalScopes},
	{id: "7b0d5f0e-51c3-4f6e-9a55-1d60e3d0b001", name: "Contoso Wiki", resourceID: graphResource, resource: "Microsoft Graph", scopes: portalScopes},
	{id: "7b0d5f0e-51c3-4f6e-9a55-1d60e3d0c001", name: "Contoso Travel", resourceID: graphResource, resource: "Microsoft Graph", scopes: portalScopes},
}

const (
	appExchange = 0
	appTeams    = 1
	appOffice   = 2
	appPortal   = 8
	appCLI      = 9
	appPayroll  = 12
	appWiki     = 13
	appTravel   = 14
)

func init() {
	for i := range applications {
		applications[i].rendered = string(appendScopes(nil, applications[i].scopes))
	}
}

// Application returns the id, the resource id and the resource's name for an application's display
// name. Exact names of Microsoft's own applications, and "Exchange Online" and "Microsoft Teams" in the
// short forms that people use, give the public ids; any other name gets ids made from it.
func Application(name string) (id, resourceID, resource string) {
	for i := range applications {
		a := &applications[i]
		if strings.EqualFold(a.name, name) || strings.EqualFold(strings.TrimPrefix(a.name, "Office 365 "), name) ||
			strings.EqualFold(strings.TrimPrefix(a.name, "Microsoft "), name) {
			return a.id, a.resourceID, a.resource
		}
	}
	if strings.EqualFold(name, "Microsoft Graph") {
		return NamedGUID("application", name), graphResource, name
	}
	return NamedGUID("application", name), NamedGUID("resource", name), name
}

// place is a town with its hours: offset is whole hours east of UTC, without summer time.
type place struct {
	Place
	offset int
}

var places = []place{
	{Place{"Bern", "Bern", "CH", 46.94809, 7.44744}, 1},
	{Place{"Hamburg", "Hamburg", "DE", 53.55108, 9.99368}, 1},
	{Place{"Lyon", "Rhone", "FR", 45.76404, 4.83566}, 1},
	{Place{"Leeds", "England", "GB", 53.79648, -1.54785}, 0},
	{Place{"Toronto", "Ontario", "CA", 43.70011, -79.4163}, -5},
	{Place{"Denver", "Colorado", "US", 39.73915, -104.9847}, -7},
	{Place{"Pune", "Maharashtra", "IN", 18.51957, 73.85535}, 5},
	{Place{"Osaka", "Osaka", "JP", 34.69374, 135.50218}, 9},
}

// attackPlaces are where planted attacks come from.
var attackPlaces = []Place{
	{"Reykjavik", "Capital Region", "IS", 64.13548, -21.89541},
	{"Valletta", "Valletta", "MT", 35.89972, 14.51472},
	{"Montevideo", "Montevideo", "UY", -34.90328, -56.18816},
}

// Numbers of autonomous systems for documentation (RFC 5398).
const (
	asnHome   = 64496
	asnMobile = 64500
	asnOffice = 65536
	asnCloud  = 65540

	asnAttackLow, asnAttackHigh, attackNetworks = 64501, 65541, 22 // eleven from each
)

var firstNames = []string{"ada", "bela", "carl", "dora", "elif", "fritz", "grace", "hana", "ivan", "june", "kofi", "lena", "milo", "nora", "otto",
	"petra", "quinn", "rosa", "sven", "tara", "ugo", "vera", "wim", "xenia", "yara", "zeno", "anouk", "bruno", "clio", "dario", "edda", "finn"}

var lastNames = []string{"abel", "brandt", "costa", "dale", "ekman", "frost", "gatti", "holm", "ito", "jansen", "keller", "lund", "moser", "nagy",
	"okafor", "peters", "quist", "rossi", "stone", "tanaka", "usher", "vogel", "weber", "xu", "young", "zeller", "amsler", "bianchi", "chen", "duran"}

// departments and the application that each uses beside those of everybody.
var departments = []struct {
	name string
	app  uint8
}{{"Sales", appTravel}, {"Engineering", appCLI}, {"Finance", appPayroll}, {"Support", appWiki}, {"Operations", appPortal}}

const (
	uaEdge    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
	uaChrome  = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
	uaSafari  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15"
	uaPhone   = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
	uaOffice  = "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.19127; Pro)"
	uaLegacy  = "BAV2ROPC"
	uaScanner = "python-requests/2.32." // and a number
)

// person is what stays the same about a user: derived from the seed, so nothing needs to be stored.
type person struct {
	id, upn, name string
	place         *place
	home, mobile  string // addresses
	laptop, phone Device
	agent         string
	apps          [5]uint8
	phoneCall     bool // answers MFA by phone rather than by the app
}

// tenant is one made-up organisation.
type tenant struct {
	id, name, domain string
	seed             uint64
	users            int
	office           string
	policies         []policyVariants
	blocksLegacy     bool
	principals       []principal
	cache            []*person
}

type principal struct {
	id, appID, name, keyID, address string
	managed                         bool
	resource                        int
}

// maxCachedUsers bounds how many people of a tenant are kept in memory, about 600 bytes each; those
// beyond are derived anew for each record.
const maxCachedUsers = 50_000

var tenantNames = []string{"contoso", "contoso-north", "contoso-retail", "contoso-labs", "contoso-school", "contoso-works"}

func newTenant(seed uint64, index, users int) *tenant {
	name := tenantNames[index%len(tenantNames)]
	if index >= len(tenantNames) {
		name += "-" + strconv.Itoa(index/len(tenantNames)+1)
	}
	t := &tenant{name: name, domain: name + ".example.org", seed: mix(seed + uint64(index)*0x9e3779b97f4a7c15), users: users}
	t.id = GUID(t.seed, 1)
	t.office = "192.0.2." + strconv.Itoa(1+index%250)
	t.policies, t.blocksLegacy = tenantPolicies(t.seed, index)
	for i := range 24 {
		h := mix(t.seed + 7000 + uint64(i))
		p := principal{id: GUID(h, 2), appID: GUID(h, 3), keyID: GUID(h, 4), managed: i%3 == 2, resource: i % len(workloadResources)}
		p.name = workloadNames[i%len(workloadNames)]
		if i >= len(workloadNames) {
			p.name += "-" + strconv.Itoa(i/len(workloadNames)+1)
		}
		if !p.managed {
			p.address = "192.0.2." + strconv.Itoa(200+i)
		}
		t.principals = append(t.principals, p)
	}
	t.cache = make([]*person, min(users, maxCachedUsers))
	return t
}

var workloadNames = []string{"backup-agent", "invoice-sync", "build-runner", "mail-archive", "report-export", "directory-audit", "stock-feed", "ticket-bridge"}

var workloadResources = []struct{ id, name string }{
	{graphResource, "Microsoft Graph"},
	{"797f4846-ba00-4fd7-ba43-dac1f8f63013", "Windows Azure Service Management API"},
	{"cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "Azure Key Vault"},
	{"e406a681-f3d4-42a8-90b6-c2b029497af1", "Azure Storage"},
}

// home returns what decides about a person, and where it lives.
func (t *tenant) home(i int) (uint64, *place) {
	h := mix(t.seed + 0x5851f42d4c957f2d*uint64(i+1))
	return h, &places[(t.seed>>8+h>>20%3)%uint64(len(places))]
}

// user returns the person with the given number; the result is shared and must not be changed.
func (t *tenant) user(i int) *person {
	if i < len(t.cache) {
		if p := t.cache[i]; p != nil {
			return p
		}
	}
	h, home := t.home(i)
	first, last := firstNames[i%len(firstNames)], lastNames[i/len(firstNames)%len(lastNames)]
	suffix := ""
	if n := i / (len(firstNames) * len(lastNames)); n > 0 {
		suffix = strconv.Itoa(n + 1)
	}
	p := &person{
		id:  GUID(h, 10),
		upn: first + "." + last + suffix + "@" + t.domain,
		// Many directories show the department beside the name.
		name:      capital(first) + " " + capital(last) + suffix + " (" + departments[h%uint64(len(departments))].name + ")",
		place:     home,
		phoneCall: h>>40%5 == 0,
	}
	p.home = addressV6(0x10, h)
	p.mobile = addressV6(0x20, mix(h))
	short := strconv.FormatUint(h>>36, 36)
	p.laptop = Device{ID: GUID(h, 11), DisplayName: "LAPTOP-" + strings.ToUpper(short), OperatingSystem: "Windows 11", Browser: "Edge 142.0.0",
		TrustType: "Azure AD joined", IsCompliant: schemas.Tri_TRI_TRUE, IsManaged: schemas.Tri_TRI_TRUE}
	p.agent = uaEdge
	switch h >> 50 % 8 {
	case 0: // own computer that nobody manages
		p.laptop = Device{OperatingSystem: "Windows 10", Browser: "Chrome 142.0.0"}
		p.agent = uaChrome
	case 1:
		p.laptop.OperatingSystem, p.laptop.Browser, p.laptop.TrustType = "MacOs", "Safari 18.6", "Azure AD registered"
		p.agent = uaSafari
	}
	p.phone = Device{ID: GUID(h, 12), OperatingSystem: "Ios 18.6", Browser: "Mobile Safari", TrustType: "Azure AD registered"}
	for k := range p.apps {
		p.apps[k] = uint8(bits.RotateLeft64(h, -9*k) % uint64(len(applications)))
	}
	p.apps[0], p.apps[1], p.apps[2] = appExchange, appTeams, departments[h%uint64(len(departments))].app
	if i < len(t.cache) {
		t.cache[i] = p
	}
	return p
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// addressV6 makes an address of a /64 of its own inside 2001:db8::/32 (RFC 3849); area keeps kinds apart.
func addressV6(area uint64, h uint64) string {
	b := make([]byte, 0, 39)
	b = append(b, "2001:db8:"...)
	b = strconv.AppendUint(b, area<<8|h&0xff, 16)
	b = append(b, ':')
	b = strconv.AppendUint(b, h>>8&0xffff|1, 16)
	b = append(b, "::"...)
	b = strconv.AppendUint(b, h>>24&0xffff|1, 16)
	return string(b)
}

// addressesOfNetwork is how many of the attackers' addresses, in order, one network holds.
const addressesOfNetwork = 29

// attackNetwork returns the number of the network that holds the i-th attacker's address.
func attackNetwork(i int) uint32 {
	n := uint32(i/addressesOfNetwork) % attackNetworks
	if n < attackNetworks/2 {
		return asnAttackLow + n
	}
	return asnAttackHigh + n - attackNetworks/2
}

// attackAddress returns the address of an attacker's record.
func (e *event) attackAddress() string {
	if e.from == fromAttacker64 {
		n := int(e.address)
		return "2001:db8:64:" + strconv.FormatInt(int64(n/addressesOfNetwork)+1, 16) + "::" + strconv.FormatInt(int64(n%addressesOfNetwork)+1, 16)
	}
	return attackAddress(int(e.address))
}

// attackAddress returns the i-th address that planted attacks come from: 203.0.113.0/24 first, then
// networks of their own in 2001:db8:bad::/48.
func attackAddress(i int) string {
	if i < 254 {
		return "203.0.113." + strconv.Itoa(1+i)
	}
	return "2001:db8:bad:" + strconv.FormatUint(uint64(i), 16) + "::1"
}

// policyKind is what a Conditional Access policy of the made-up tenants is for.
type policyKind uint8

const (
	policyMFA policyKind = iota
	policyBlockLegacy
	policyCompliantDevice
	policyBlockCountries
	policyRisk
	policyAdmins
	policyFrequency
	policyGuests
	policyReportOnly
	policyOff
	policyStrength
	policyDeviceCode
)

// policyVariants is one policy with all the results that it can have, made once per tenant.
type policyVariants struct {
	kind                                       policyKind
	notApplied, success, failure, notEvaluated *renderedPolicy
}

// renderedPolicy is an entry of appliedConditionalAccessPolicies in the export's form.
type renderedPolicy struct {
	result string
	text   string
}

func renderPolicy(p Policy) *renderedPolicy {
	return &renderedPolicy{p.Result, string(appendPolicy(nil, &p, EventHubs))}
}

const applicationAndUsers = schemas.ConditionApplication | schemas.ConditionUsers

func tenantPolicies(seed uint64, index int) ([]policyVariants, bool) {
	type definition struct {
		kind    policyKind
		name    string
		grant   []string
		session []string
		unmet   uint32 // the condition that keeps the policy from applying as a rule
	}
	all := []definition{
		{policyMFA, "Require MFA for all users", []string{"Mfa"}, nil, schemas.ConditionApplication},
		{policyBlockLegacy, "Block old mail clients", []string{"Block"}, nil, schemas.ConditionClientType},
		{policyCompliantDevice, "Payroll only from compliant devices", []string{"RequireCompliantDevice"}, nil, schemas.ConditionApplication},
		{policyBlockCountries, "Block countries without staff", []string{"Block"}, nil, schemas.ConditionLocation},
		{policyRisk, "MFA at medium or high risk", []string{"Mfa"}, nil, schemas.ConditionSignInRisk},
		{policyAdmins, "Administrators: MFA every day", []string{"Mfa"}, []string{"SignInFrequency"}, schemas.ConditionUsers},
		{policyFrequency, "Unmanaged devices sign in daily", nil, []string{"SignInFrequency"}, schemas.ConditionDeviceState},
		{policyGuests, "Guests: terms of use", []string{"Contoso terms of use"}, nil, schemas.ConditionUsers},
		{policyReportOnly, "Trial: passkeys for everyone", []string{"Mfa"}, nil, 0},
		{policyOff, "Old MFA pilot (off)", nil, nil, 0},
		{policyStrength, "Azure management needs phishing-resistant MFA", nil, nil, schemas.ConditionApplication},
		{policyDeviceCode, "Block device code flow", []string{"Block"}, nil, schemas.ConditionAuthenticationFlows},
	}
	// Tenants differ: from twelve policies down to two; every third lets old mail in.
	count := [...]int{6, 5, 8, 3, 12, 2}[index%6]
	blocksLegacy := index%3 != 2
	var out []policyVariants
	for i, d := range all {
		if i >= count || d.kind == policyBlockLegacy && !blocksLegacy {
			continue
		}
		base := Policy{ID: GUID(mix(seed+500+uint64(i)), 5), DisplayName: d.name, GrantControls: d.grant, SessionControls: d.session}
		notApplied, success, failure := base, base, base
		include := []Rule{{"application", "allApps"}, {"users", "allUsers"}}
		notApplied.Result = "notApplied"
		notApplied.NotSatisfied = d.unmet
		if d.unmet != schemas.ConditionApplication {
			notApplied.Satisfied = schemas.ConditionApplication
			notApplied.Include = include[:1]
			if d.unmet != schemas.ConditionUsers {
				notApplied.Satisfied |= schemas.ConditionUsers
				notApplied.Include = include
			}
		}
		met := applicationAndUsers
		if d.unmet&(schemas.ConditionApplication|schemas.ConditionUsers) == 0 {
			met |= d.unmet
		}
		success.Result, success.Satisfied, success.Include = "success", met, include
		failure.Result, failure.Satisfied, failure.Include = "failure", met, include
		switch d.kind {
		case policyReportOnly:
			success.Result, failure.Result = "reportOnlySuccess", "reportOnlyFailure"
			notApplied.Result, notApplied.Satisfied = "reportOnlySuccess", met
		case policyOff:
			notApplied.Result, notApplied.Satisfied, notApplied.Include = "notEnabled", 0, nil
			success, failure = notApplied, notApplied
		case policyStrength:
			success.AuthenticationStrength, failure.AuthenticationStrength = "Phishing-resistant MFA", "Phishing-resistant MFA"
		}
		notEvaluated := notApplied
		if d.kind != policyOff && d.kind != policyReportOnly {
			notEvaluated.Satisfied, notEvaluated.NotSatisfied, notEvaluated.Include = 0, 0, nil
		}
		out = append(out, policyVariants{d.kind, renderPolicy(notApplied), renderPolicy(success), renderPolicy(failure), renderPolicy(notEvaluated)})
	}
	return out, blocksLegacy
}
