package detectors

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Settings are what an operator says of the tenants. They decide, so they are part of the engine's fingerprint. They must
// not change once an engine uses them; they are then safe for concurrent use.
type Settings struct {
	// Default holds for every tenant that Tenants does not name.
	Default TenantSettings
	// Tenants holds the settings of single tenants by their id in lower case, complete: nothing is inherited any more.
	Tenants map[string]*TenantSettings
	// Edition changes nothing but the fingerprint: raised, it has rows made again though nothing else differs.
	Edition uint32
}

// TenantSettings are the settings of one tenant.
type TenantSettings struct {
	Thresholds Thresholds
	// TrustedAddresses are networks of the organisation's own, such as those of a proxy: what comes from them has a
	// lower severity, and is never silenced.
	TrustedAddresses []netip.Prefix
	// PrivilegedUsers are principal names or object ids in lower case: what concerns them has a higher severity.
	PrivilegedUsers []string
	// Expectations say which sign-ins should have been interrupted, for missed_interrupt.
	Expectations []Expectation
}

// Expectation says what a tenant expects of certain successful sign-ins: all given lists must hold the sign-in, an
// empty list holds every one. Names and ids are compared without regard to case.
type Expectation struct {
	// Name is what the diagnosis calls it.
	Name string
	// Users are principal names or object ids; Applications and Resources are names or ids; ClientApps are values of
	// clientAppUsed; Countries are values of countryOrRegion.
	Users, Applications, Resources, ClientApps, Countries []string
	// ExceptUsers and ExceptAddresses are left out.
	ExceptUsers     []string
	ExceptAddresses []netip.Prefix
	// NonInteractive holds sign-ins without a person too, where Expect is ExpectMFA or ExpectConditionalAccess; the other
	// two always do.
	NonInteractive bool
	// Expect is what should have happened: one of the Expect constants.
	Expect string
}

// What an Expectation expects of a sign-in that it holds.
const (
	ExpectMFA               = "mfa"                // multifactor authentication was passed
	ExpectConditionalAccess = "conditional_access" // at least one policy applied
	ExpectCompliantDevice   = "compliant_device"   // the device is known to be compliant
	ExpectBlock             = "block"              // no success at all
)

// DefaultSettings returns the settings that are used unless configured.
func DefaultSettings() *Settings {
	return &Settings{Default: TenantSettings{Thresholds: DefaultThresholds()}}
}

// Of returns the settings of a tenant. They belong to s.
func (s *Settings) Of(tenantID string) *TenantSettings {
	if len(s.Tenants) > 0 {
		if t := s.Tenants[tenantID]; t != nil { // ids come in lower case as a rule
			return t
		}
		if t := s.Tenants[strings.ToLower(tenantID)]; t != nil {
			return t
		}
	}
	return &s.Default
}

// Validate returns an error that names the tenant and every value out of its range.
func (s *Settings) Validate() error {
	if err := s.Default.Thresholds.Validate(); err != nil {
		return err
	}
	for _, id := range s.tenantIDs() {
		if err := s.Tenants[id].Thresholds.Validate(); err != nil {
			return fmt.Errorf("tenant %s: %w", id, err)
		}
	}
	return nil
}

func (s *Settings) tenantIDs() []string {
	ids := make([]string, 0, len(s.Tenants))
	for id := range s.Tenants {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Fingerprint returns a number that differs when any setting differs. It is the same in every process.
func (s *Settings) Fingerprint() uint64 {
	b := s.Default.append(nil)
	for _, id := range s.tenantIDs() {
		b = appendText(b, id)
		b = s.Tenants[id].append(b)
	}
	if s.Edition != 0 {
		b = binary.LittleEndian.AppendUint32(append(b, "edition"...), s.Edition)
	}
	return xxhash.Sum64(b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (t *TenantSettings) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, t.Thresholds.Fingerprint())
	texts := func(list []string) {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = appendText(b, s)
		}
	}
	prefixes := func(list []netip.Prefix) {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, p := range list {
			b = appendText(b, p.String())
		}
	}
	prefixes(t.TrustedAddresses)
	texts(t.PrivilegedUsers)
	b = binary.AppendUvarint(b, uint64(len(t.Expectations)))
	for i := range t.Expectations {
		e := &t.Expectations[i]
		b = appendText(appendText(b, e.Name), e.Expect)
		for _, list := range [...][]string{e.Users, e.Applications, e.Resources, e.ClientApps, e.Countries, e.ExceptUsers} {
			texts(list)
		}
		prefixes(e.ExceptAddresses)
		if e.NonInteractive {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// Trusted reports whether an address lies in one of the tenant's trusted networks.
func (t *TenantSettings) Trusted(address string) bool {
	return len(t.TrustedAddresses) > 0 && inPrefixes(t.TrustedAddresses, address)
}

// Privileged reports whether one of the names of a user is in the tenant's list.
func (t *TenantSettings) Privileged(names ...string) bool {
	for _, have := range t.PrivilegedUsers {
		for _, name := range names {
			if name != "" && strings.EqualFold(have, name) {
				return true
			}
		}
	}
	return false
}

func inPrefixes(list []netip.Prefix, address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
