package detectors

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/signindiag/signindiag/schemas"
)

var allRoles = schemas.RoleSet(1<<(schemas.Role_ROLE_TENANT+1) - 1)

func TestDeal(t *testing.T) {
	setCatalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		r := testRecord(1, rapid.IntRange(0, 5).Draw(t, "user"), 0, rapid.SampledFrom([]int32{0, 50126, 80001, 81006, 81010, 50011, 50053, 53003, 65001, 999999}).Draw(t, "code"))
		r.Category = schemas.Category(rapid.IntRange(0, 6).Draw(t, "category"))
		r.IpAddress = rapid.SampledFrom([]string{"", "xxxx", "203.0.113.7", "2001:db8::1"}).Draw(t, "address")
		r.UserAgent = rapid.SampledFrom([]string{"", "Mozilla/5.0"}).Draw(t, "agent")
		for range rapid.IntRange(0, 4).Draw(t, "policies") {
			r.Policies = append(r.Policies, &schemas.Policy{Id: testGUID(9, rapid.IntRange(0, 9).Draw(t, "policy")), Result: "failure"})
		}
		partitions := rapid.Uint32Range(1, 64).Draw(t, "partitions")
		wanted := schemas.RoleSet(rapid.Uint32().Draw(t, "wanted")) & allRoles
		d := Dealer{Catalogue: catalogueOnce}
		seen := map[uint32]bool{}
		full := 0
		var roles schemas.RoleSet
		d.Deal(r, partitions, wanted, func(p uint32, set schemas.RoleSet) {
			if p >= partitions || seen[p] {
				t.Errorf("partition %d of %d, dealt before: %v", p, partitions, seen[p])
			}
			seen[p] = true
			roles |= set
			if set&fullRoles != 0 {
				full++
			}
		})
		if full != 1 {
			t.Errorf("%d full roles", full)
		}
		if extra := roles &^ (wanted | fullRoles); extra != 0 {
			t.Errorf("unwanted roles %b", extra)
		}
		// Which entities a record is dealt to, judged anew from the record.
		user, code, silent := r.Category.IsUser(), r.ErrorCode, isSilent(r)
		tried := code == 50126 || code == 50053 || (code == 53003 || code == 0) && !silent
		policy := code == 53003 && len(r.Policies) > 0
		for role, want := range map[schemas.Role]bool{
			schemas.Role_ROLE_ADDRESS:           user && tried && len(r.IpAddress) > 4,
			schemas.Role_ROLE_NETWORK:           false, // the records have no network
			schemas.Role_ROLE_AGENT_APPLICATION: user && tried && r.UserAgent != "",
			schemas.Role_ROLE_APPLICATION:       user && code == 50011,
			schemas.Role_ROLE_POLICY:            user && policy,
			schemas.Role_ROLE_TENANT:            user && (code == 80001 || code == 81006 || code == 50053),
		} {
			if want = want && wanted.Has(role); roles.Has(role) != want {
				t.Errorf("%s of code %d, category %s, address %q: %v", role, code, r.Category, r.IpAddress, !want)
			}
		}
	})
}

func TestIdentity(t *testing.T) {
	var d Dealer
	id := func(change func(*schemas.SignIn)) identity { return d.identify(testRecord(1, 1, 0, 0, change)) }
	base := id(func(*schemas.SignIn) {})
	for _, c := range []struct {
		name        string
		change      func(*schemas.SignIn)
		same, known bool
	}{
		{"other name, same id", func(r *schemas.SignIn) { r.UserPrincipalName = "new@example.com" }, true, true},
		{"other case", func(r *schemas.SignIn) {
			r.UserId = "00000003-0000-4000-8000-000000000002"
			r.TenantId = "7A6B5C4D-0000-4000-8000-00000000AAAA"
		}, true, true},
		{"other tenant", func(r *schemas.SignIn) { r.TenantId = testGUID(8, 1) }, false, true},
		{"name only", func(r *schemas.SignIn) { r.UserId = "" }, false, true},
		{"zero id", func(r *schemas.SignIn) { r.UserId = allZeros }, false, true},
		{"telephone", func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName, r.SignInIdentifier = "", "", "+47 99 99 99 99" }, false, true},
		{"domain user", func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = "", `EXAMPLE\ada` }, false, true},
		{"mask", func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = "", "ANONYMIZED_VALUE" }, false, false},
		{"number", func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = "", "42" }, false, false},
		{"nobody", func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = allZeros, allZeros }, false, false},
	} {
		got := id(c.change)
		if (got.key == base.key) != c.same || got.known != c.known || got.role != schemas.Role_ROLE_USER {
			t.Errorf("%s: %+v, base %+v", c.name, got, base)
		}
	}
	upper, lower := id(func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = "", "ÅSE@Example.com" }), id(func(r *schemas.SignIn) { r.UserId, r.UserPrincipalName = "", "åse@example.com" })
	if upper.key != lower.key {
		t.Error("letters must fold")
	}
	sp := id(func(r *schemas.SignIn) {
		r.Category, r.ServicePrincipalId = schemas.Category_CATEGORY_SERVICE_PRINCIPAL, r.UserId
	})
	if sp.role != schemas.Role_ROLE_SERVICE_PRINCIPAL || sp.key == base.key {
		t.Error("a service principal is no user")
	}
}

func TestAddressPrefix(t *testing.T) {
	for address, want := range map[string]string{
		"203.0.113.7":                           "203.0.113.7/32",
		"203.0.113.7:443":                       "203.0.113.7/32",
		"::ffff:203.0.113.7":                    "203.0.113.7/32",
		"2001:db8:85a3:1:2:8a2e:370:7334":       "2001:db8:85a3:1::/64",
		"[2001:db8:85a3:1:2:8a2e:370:7334]:443": "2001:db8:85a3:1::/64",
		"fe80::1%eth0":                          "fe80::/64",
		"":                                      "",
		"xxxx":                                  "",
		"203.0.113.xxx":                         "",
		"0.0.0.0":                               "",
		"::":                                    "",
		allZeros:                                "",
	} {
		p, ok := AddressPrefix(address)
		if ok != (want != "") || ok && p.String() != want {
			t.Errorf("%q: %s %v, want %q", address, p, ok, want)
		}
	}
}

func BenchmarkDeal(b *testing.B) {
	d := Dealer{Catalogue: testCatalogue(b)}
	r := testRecord(1, 1, 0, codeWrong, func(r *schemas.SignIn) { r.UserAgent, r.AutonomousSystemNumber = "Mozilla/5.0", 64500 })
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		d.Deal(r, 64, WantedRoles(), func(uint32, schemas.RoleSet) { n++ })
	}
}
