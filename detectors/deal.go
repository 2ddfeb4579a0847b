package detectors

import (
	"net/netip"
	"strings"
	"unsafe"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Dealer deals records to the entities that they touch. It holds scratch memory: one Dealer serves one
// goroutine. Without a catalogue it deals full roles alone.
type Dealer struct {
	// Catalogue tells what a code means to an entity.
	Catalogue *catalogue.Catalogue

	key     []byte
	targets []target
}

type target struct {
	partition uint32
	roles     schemas.RoleSet
}

// Deal calls emit once for every partition of the entities topic that rec concerns, with all the roles in which
// it falls there, out of those in wanted. Exactly one call carries the full role, ROLE_USER or
// ROLE_SERVICE_PRINCIPAL, which is dealt whether it is wanted or not: every record is diagnosed somewhere.
// The order of calls is fixed by the record: the full role's partition first, then the order of the roles.
//
// Home and resource tenant log the same attempt each in its own log; keys use the log's tenant.
func (d *Dealer) Deal(rec *schemas.SignIn, partitions uint32, wanted schemas.RoleSet, emit func(partition uint32, roles schemas.RoleSet)) {
	d.targets = d.targets[:0]
	id := d.identify(rec)
	d.add(id.key, partitions, id.role)
	if d.Catalogue != nil && wanted&^fullRoles != 0 {
		if c := classOf(rec, d.Catalogue); c.any(dealtClasses) {
			d.groups(rec, wanted, func(role schemas.Role, key uint64, _ *schemas.Policy) {
				if c.concerns(role) {
					d.add(key, partitions, role)
				}
			})
		}
	}
	for _, t := range d.targets {
		emit(t.partition, t.roles)
	}
}

// dealtClasses are the records that some entity beside the user wants.
const dealtClasses = classesOfAddress | classesOfTenant | classApplication | classPolicy | classSuccess

// groups calls emit for every entity of the given roles, the full ones aside, that a record names. policy is that of
// ROLE_POLICY. The order is that of the roles.
func (d *Dealer) groups(rec *schemas.SignIn, roles schemas.RoleSet, emit func(role schemas.Role, key uint64, policy *schemas.Policy)) {
	if roles.Has(schemas.Role_ROLE_ADDRESS) {
		if k, ok := d.addressKey(rec); ok {
			emit(schemas.Role_ROLE_ADDRESS, k, nil)
		}
	}
	if roles.Has(schemas.Role_ROLE_NETWORK) && rec.AutonomousSystemNumber != 0 {
		n := rec.AutonomousSystemNumber
		d.start(schemas.Role_ROLE_NETWORK, rec.TenantId)
		d.key = append(d.key, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		emit(schemas.Role_ROLE_NETWORK, hashBytes(d.key), nil)
	}
	if roles.Has(schemas.Role_ROLE_AGENT_APPLICATION) && rec.UserAgent != "" && rec.AppId != "" {
		d.start(schemas.Role_ROLE_AGENT_APPLICATION, rec.TenantId)
		d.part(rec.AppId)
		d.key = append(d.key, rec.UserAgent...)
		emit(schemas.Role_ROLE_AGENT_APPLICATION, hashBytes(d.key), nil)
	}
	if roles.Has(schemas.Role_ROLE_APPLICATION) && rec.AppId != "" {
		emit(schemas.Role_ROLE_APPLICATION, d.entity(schemas.Role_ROLE_APPLICATION, rec.TenantId, rec.AppId), nil)
	}
	if roles.Has(schemas.Role_ROLE_POLICY) {
		for _, p := range rec.Policies {
			if p.Id != "" && strings.EqualFold(p.Result, "failure") {
				emit(schemas.Role_ROLE_POLICY, d.entity(schemas.Role_ROLE_POLICY, rec.TenantId, p.Id), p)
			}
		}
	}
	if roles.Has(schemas.Role_ROLE_TENANT) {
		emit(schemas.Role_ROLE_TENANT, d.entity(schemas.Role_ROLE_TENANT, rec.TenantId, ""), nil)
	}
}

func (d *Dealer) add(key uint64, partitions uint32, role schemas.Role) {
	p := uint32(key % uint64(max(partitions, 1)))
	for i := range d.targets {
		if d.targets[i].partition == p {
			d.targets[i].roles |= schemas.Roles(role)
			return
		}
	}
	d.targets = append(d.targets, target{p, schemas.Roles(role)})
}

// identity is the person or workload of a record.
type identity struct {
	key  uint64
	role schemas.Role
	// known is false when nothing in the record names a person or workload. The key is then the request
	// id's: the record has its place, and groups with nothing.
	known bool
}

func (d *Dealer) identify(rec *schemas.SignIn) identity {
	if !rec.Category.IsUser() {
		role := schemas.Role_ROLE_SERVICE_PRINCIPAL
		for _, id := range [...]string{rec.ServicePrincipalId, rec.AppId} {
			if schemas.IsGroupingID(id) {
				return identity{d.entity(role, rec.TenantId, id), role, true}
			}
		}
		return identity{d.entity(role, rec.TenantId, rec.RequestId), role, false}
	}
	role := schemas.Role_ROLE_USER
	switch {
	case schemas.IsGroupingID(rec.UserId):
		return identity{d.entity(role, rec.TenantId, rec.UserId), role, true}
	case isAccountName(rec.UserPrincipalName):
		return identity{d.entity(role, rec.TenantId, rec.UserPrincipalName), role, true}
	case isAccountName(rec.SignInIdentifier):
		return identity{d.entity(role, rec.TenantId, rec.SignInIdentifier), role, true}
	}
	return identity{d.entity(role, rec.TenantId, rec.RequestId), role, false}
}

// isAccountName reports whether name names one account: user@domain, DOMAIN\user, a telephone number, or the
// GUID that stands for the name in some records. Masks such as "ANONYMIZED" are shared by many people and must
// group nothing.
func isAccountName(name string) bool {
	digits := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '@', c == '\\':
			return i > 0 && i < len(name)-1
		case c >= '0' && c <= '9':
			digits++
		case c == '+' && i == 0, c == ' ':
		default:
			digits = -len(name)
		}
	}
	// E.164 numbers have up to 15 digits; fewer than 7 are an extension or an index.
	return digits >= 7 && digits <= 15 || schemas.IsGroupingID(name)
}

func (d *Dealer) addressKey(rec *schemas.SignIn) (uint64, bool) {
	prefix, ok := AddressPrefix(rec.IpAddress)
	if !ok {
		return 0, false
	}
	d.start(schemas.Role_ROLE_ADDRESS, rec.TenantId)
	d.key = prefix.AppendTo(d.key)
	return hashBytes(d.key), true
}

// AddressPrefix returns the network that stands for a sign-in's address: an IPv4 address by itself, an IPv6
// address by its /64, which is what one customer gets and an attacker moves within. It returns false for
// an empty, masked or unspecified address, which groups nothing.
func AddressPrefix(address string) (netip.Prefix, bool) {
	if address == "" {
		return netip.Prefix{}, false
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return netip.Prefix{}, false
		}
		a = ap.Addr()
	}
	a = a.Unmap().WithZone("")
	if a.IsUnspecified() {
		return netip.Prefix{}, false
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// entity returns the key of an entity: role, tenant and value, letters folded, so that another spelling of a
// GUID or of a user principal name is the same entity.
func (d *Dealer) entity(role schemas.Role, tenant, value string) uint64 {
	d.start(role, tenant)
	d.part(value)
	return hashBytes(d.key)
}

func (d *Dealer) start(role schemas.Role, tenant string) {
	d.key = append(d.key[:0], byte(role))
	d.part(tenant)
}

func (d *Dealer) part(s string) {
	d.key = appendFolded(d.key, s)
	d.key = append(d.key, 0)
}

// appendFolded appends s in lower case.
func appendFolded(dst []byte, s string) []byte {
	start := len(dst)
	dst = append(dst, s...)
	wide := byte(0)
	for i, c := range dst[start:] {
		wide |= c
		if c-'A' < 26 {
			dst[start+i] = c + ('a' - 'A')
		}
	}
	if wide >= 0x80 {
		return append(dst[:start], strings.ToLower(s)...)
	}
	return dst
}

func hashBytes(b []byte) uint64 {
	return schemas.Hash64(unsafe.String(unsafe.SliceData(b), len(b)))
}
