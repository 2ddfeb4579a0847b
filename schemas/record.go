// Package schemas holds the contracts of signindiag: the sign-in record and its decoders, the
// message of the entities topic, the ClickHouse tables and the catalogue of codes and scenarios.
// It imports no driver and nothing above it.
package schemas

//go:generate ./generate.sh

import (
	"github.com/cespare/xxhash/v2"
)

// Flags of a record, kept in SignIn.Flags. They say what the decoder or the shard had to assume.
const (
	// FlagNoErrorCode: the record held neither status.errorCode nor a numeric resultType.
	FlagNoErrorCode uint32 = 1 << iota
	// FlagNoRequestID: the record held no id; RequestID is made from its content.
	FlagNoRequestID
	// FlagNoEventTime: createdDateTime was absent; EventTime is the processing time, or the time of
	// receipt where that was absent too.
	FlagNoEventTime
	// FlagEventTimeClamped: EventTime lay more than an hour after the time of receipt and was clamped to the processing time, or to
	// the time of receipt where that is not earlier.
	FlagEventTimeClamped
	// FlagUnknownFields: the record held fields that this version does not know; raw_records keeps them.
	FlagUnknownFields
	// FlagMistypedFields: a field held another type than expected and was read as far as possible.
	FlagMistypedFields
	// FlagPoliciesAbsent: the record held no appliedConditionalAccessPolicies at all, so policies
	// are unknown rather than none.
	FlagPoliciesAbsent
)

// Conditions of a Conditional Access policy, as bits of Policy.ConditionsSatisfied and
// ConditionsNotSatisfied. The diagnostic export sends the integer, Microsoft Graph the names.
// The bits up to 1024 are confirmed by real records, the rest follows the order of the Graph
// enumeration conditionalAccessConditions.
const (
	ConditionApplication             uint32 = 1
	ConditionUsers                   uint32 = 2
	ConditionDevicePlatform          uint32 = 4
	ConditionLocation                uint32 = 8
	ConditionClientType              uint32 = 16
	ConditionSignInRisk              uint32 = 32
	ConditionUserRisk                uint32 = 64
	ConditionTime                    uint32 = 128
	ConditionDeviceState             uint32 = 256
	ConditionClient                  uint32 = 512
	ConditionIPAddressSeenByAzureAD  uint32 = 1024
	ConditionIPAddressSeenByResource uint32 = 2048
	ConditionServicePrincipals       uint32 = 8192
	ConditionServicePrincipalRisk    uint32 = 16384
	ConditionAuthenticationFlows     uint32 = 32768
	ConditionInsiderRisk             uint32 = 65536
)

// ConditionNames lists the names that Microsoft Graph uses for the condition bits.
var ConditionNames = []struct {
	Bit  uint32
	Name string
}{
	{ConditionApplication, "application"},
	{ConditionUsers, "users"},
	{ConditionDevicePlatform, "devicePlatform"},
	{ConditionLocation, "location"},
	{ConditionClientType, "clientType"},
	{ConditionSignInRisk, "signInRisk"},
	{ConditionUserRisk, "userRisk"},
	{ConditionTime, "time"},
	{ConditionDeviceState, "deviceState"},
	{ConditionClient, "client"},
	{ConditionIPAddressSeenByAzureAD, "ipAddressSeenByAzureAD"},
	{ConditionIPAddressSeenByResource, "ipAddressSeenByResourceProvider"},
	{ConditionServicePrincipals, "servicePrincipals"},
	{ConditionServicePrincipalRisk, "servicePrincipalRisk"},
	{ConditionAuthenticationFlows, "authenticationFlows"},
	{ConditionInsiderRisk, "insiderRisk"},
}

// categoryNames holds the names of the diagnostic export, by Category.
var categoryNames = [...]string{
	Category_CATEGORY_UNSPECIFIED:                 "",
	Category_CATEGORY_SIGN_IN:                     "SignInLogs",
	Category_CATEGORY_NON_INTERACTIVE_USER:        "NonInteractiveUserSignInLogs",
	Category_CATEGORY_SERVICE_PRINCIPAL:           "ServicePrincipalSignInLogs",
	Category_CATEGORY_MANAGED_IDENTITY:            "ManagedIdentitySignInLogs",
	Category_CATEGORY_ADFS:                        "ADFSSignInLogs",
	Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL: "MicrosoftServicePrincipalSignInLogs",
}

// Name returns the category's name in the diagnostic export, for example "SignInLogs", or "" for
// an unspecified category.
func (c Category) Name() string {
	if c < 0 || int(c) >= len(categoryNames) {
		return ""
	}
	return categoryNames[c]
}

// IsUser reports whether records of the category are about a person rather than a workload.
func (c Category) IsUser() bool {
	return c == Category_CATEGORY_SIGN_IN || c == Category_CATEGORY_NON_INTERACTIVE_USER ||
		c == Category_CATEGORY_ADFS || c == Category_CATEGORY_UNSPECIFIED
}

// RoleSet is a set of roles, one bit (1 << Role) each, as in EntityMessage.Roles.
type RoleSet uint32

// Roles returns the set of the given roles.
func Roles(roles ...Role) RoleSet {
	var s RoleSet
	for _, r := range roles {
		s |= 1 << uint(r)
	}
	return s
}

// Has reports whether r is in the set.
func (s RoleSet) Has(r Role) bool { return s&(1<<uint(r)) != 0 }

// Hash64 is the hash behind entity keys, partitions and id tags: xxHash64 without a seed, so that it
// is the same in every process and every version. A change of it is a new version of the entities topic.
func Hash64(b string) uint64 { return xxhash.Sum64String(b) }

// IsGroupingID reports whether id may tie records together: it has the form of a GUID and is not all
// zeros. Other ids are kept as they are and group nothing.
func IsGroupingID(id string) bool {
	if len(id) != 36 {
		return false
	}
	zero := true
	for i := 0; i < len(id); i++ {
		c := id[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			switch {
			case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			default:
				return false
			}
			if c != '0' {
				zero = false
			}
		}
	}
	return !zero
}
