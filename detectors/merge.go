package detectors

import (
	"cmp"
	"slices"
	"strings"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// mergeRecords unites two parts or versions of one record and writes the result into dst, which must be neither of
// them; dst then shares memory with both. old is what was known, add came later in the log.
//
//   - Event time, user id and correlation id stay those of old: they are the row's place.
//   - Whatever one value can hold comes from the newer of the two by processing time (the later in the log where that is
//     equal or absent), and from the other where the newer has none. Error code, failure reason and details come together.
//   - Policies are united by id, authentication steps by sequence, time and method, other lists by value. Where both
//     have the same item the newer's is taken. A list that gained items is put in order, so that the order in
//     which parts came does not show.
//   - The highest risk level counts, since an offline detection raises it on a later copy.
func mergeRecords(dst, old, add *schemas.SignIn, cat *catalogue.Catalogue) {
	newer, older := add, old
	if add.ProcessingTime != 0 && old.ProcessingTime > add.ProcessingTime {
		newer, older = old, add
	}
	dst.Reset() // not ResetVT, which would wipe the items that it shared at its last use
	m := merger{dst: dst, newer: newer, older: older}

	dst.RequestId, dst.TenantId = old.RequestId, old.TenantId
	dst.CorrelationId, dst.UserId, dst.EventTime = old.CorrelationId, old.UserId, old.EventTime
	dst.Category = old.Category
	dst.ProcessingTime = max(old.ProcessingTime, add.ProcessingTime)

	status, other := newer, older
	interrupted := func(r *schemas.SignIn) bool { c := cat.Code(r.ErrorCode); return c != nil && c.IsInterrupt() }
	if newer.Flags&schemas.FlagNoErrorCode != 0 && older.Flags&schemas.FlagNoErrorCode == 0 ||
		// Where nothing tells which is newer, the end of a sign-in is newer than a step of it.
		newer.ProcessingTime == older.ProcessingTime && interrupted(newer) && !interrupted(older) {
		status, other = older, newer
	}
	dst.ErrorCode, dst.FailureReason, dst.AdditionalDetails = status.ErrorCode, status.FailureReason, status.AdditionalDetails
	if status.ErrorCode == other.ErrorCode {
		dst.FailureReason = cmp.Or(dst.FailureReason, other.FailureReason)
		dst.AdditionalDetails = cmp.Or(dst.AdditionalDetails, other.AdditionalDetails)
	}
	// What had to be assumed still holds only where it had to be assumed of both; what was found odd holds
	// once found.
	const assumed = schemas.FlagNoErrorCode | schemas.FlagPoliciesAbsent
	dst.Flags = old.Flags&add.Flags&assumed | (old.Flags|add.Flags)&^assumed

	m.texts()
	m.numbers()
	m.risks()
	m.lists()
}

type merger struct{ dst, newer, older *schemas.SignIn }

func (m *merger) texts() {
	d, n, o := m.dst, m.newer, m.older
	d.OriginalRequestId = cmp.Or(n.OriginalRequestId, o.OriginalRequestId)
	d.UserPrincipalName = cmp.Or(n.UserPrincipalName, o.UserPrincipalName)
	d.UserDisplayName = cmp.Or(n.UserDisplayName, o.UserDisplayName)
	d.UserType = cmp.Or(n.UserType, o.UserType)
	d.SignInIdentifier = cmp.Or(n.SignInIdentifier, o.SignInIdentifier)
	d.AppId = cmp.Or(n.AppId, o.AppId)
	d.AppDisplayName = cmp.Or(n.AppDisplayName, o.AppDisplayName)
	d.ResourceId = cmp.Or(n.ResourceId, o.ResourceId)
	d.ResourceDisplayName = cmp.Or(n.ResourceDisplayName, o.ResourceDisplayName)
	d.ResourceTenantId = cmp.Or(n.ResourceTenantId, o.ResourceTenantId)
	d.HomeTenantId = cmp.Or(n.HomeTenantId, o.HomeTenantId)
	d.CrossTenantAccessType = cmp.Or(n.CrossTenantAccessType, o.CrossTenantAccessType)
	d.ServicePrincipalId = cmp.Or(n.ServicePrincipalId, o.ServicePrincipalId)
	d.ServicePrincipalName = cmp.Or(n.ServicePrincipalName, o.ServicePrincipalName)
	d.ClientCredentialType = cmp.Or(n.ClientCredentialType, o.ClientCredentialType)
	d.ServicePrincipalCredentialKeyId = cmp.Or(n.ServicePrincipalCredentialKeyId, o.ServicePrincipalCredentialKeyId)
	d.FederatedCredentialId = cmp.Or(n.FederatedCredentialId, o.FederatedCredentialId)
	d.RedirectUrl = cmp.Or(n.RedirectUrl, o.RedirectUrl)
	d.IpAddress = cmp.Or(n.IpAddress, o.IpAddress)
	d.City = cmp.Or(n.City, o.City)
	d.State = cmp.Or(n.State, o.State)
	d.CountryOrRegion = cmp.Or(n.CountryOrRegion, o.CountryOrRegion)
	d.ClientAppUsed = cmp.Or(n.ClientAppUsed, o.ClientAppUsed)
	d.UserAgent = cmp.Or(n.UserAgent, o.UserAgent)
	d.AuthenticationProtocol = cmp.Or(n.AuthenticationProtocol, o.AuthenticationProtocol)
	d.IncomingTokenType = cmp.Or(n.IncomingTokenType, o.IncomingTokenType)
	d.OriginalTransferMethod = cmp.Or(n.OriginalTransferMethod, o.OriginalTransferMethod)
	d.TokenIssuerType = cmp.Or(n.TokenIssuerType, o.TokenIssuerType)
	d.SessionId = cmp.Or(n.SessionId, o.SessionId)
	d.DeviceId = cmp.Or(n.DeviceId, o.DeviceId)
	d.DeviceDisplayName = cmp.Or(n.DeviceDisplayName, o.DeviceDisplayName)
	d.OperatingSystem = cmp.Or(n.OperatingSystem, o.OperatingSystem)
	d.Browser = cmp.Or(n.Browser, o.Browser)
	d.TrustType = cmp.Or(n.TrustType, o.TrustType)
	d.ConditionalAccessStatus = cmp.Or(n.ConditionalAccessStatus, o.ConditionalAccessStatus)
	d.AuthenticationRequirement = cmp.Or(n.AuthenticationRequirement, o.AuthenticationRequirement)
}

func (m *merger) numbers() {
	d, n, o := m.dst, m.newer, m.older
	d.AutonomousSystemNumber = cmp.Or(n.AutonomousSystemNumber, o.AutonomousSystemNumber)
	d.IsCompliant = cmp.Or(n.IsCompliant, o.IsCompliant)
	d.IsManaged = cmp.Or(n.IsManaged, o.IsManaged)
	d.IsInteractive = cmp.Or(n.IsInteractive, o.IsInteractive)
	d.FlaggedForReview = n.FlaggedForReview || o.FlaggedForReview
	d.IsTenantRestricted = n.IsTenantRestricted || o.IsTenantRestricted
	d.PoliciesLeftOut = max(n.PoliciesLeftOut, o.PoliciesLeftOut)
}

// riskRank orders the values of riskLevel in Microsoft Graph; "hidden" means that the tenant has no licence to see it.
func riskRank(level string) int {
	switch strings.ToLower(level) {
	case "none":
		return 2
	case "low":
		return 3
	case "medium":
		return 4
	case "high":
		return 5
	case "":
		return 0
	}
	return 1
}

func highestRisk(newer, older string) string {
	if riskRank(older) > riskRank(newer) {
		return older
	}
	return newer
}

// known returns the newer text unless it says nothing.
func known(newer, older string) string {
	if newer == "" || strings.EqualFold(newer, "none") {
		return cmp.Or(older, newer)
	}
	return newer
}

func (m *merger) risks() {
	d, n, o := m.dst, m.newer, m.older
	d.RiskLevelDuringSignIn = highestRisk(n.RiskLevelDuringSignIn, o.RiskLevelDuringSignIn)
	d.RiskLevelAggregated = highestRisk(n.RiskLevelAggregated, o.RiskLevelAggregated)
	d.RiskState = known(n.RiskState, o.RiskState)
	d.RiskDetail = known(n.RiskDetail, o.RiskDetail)
}

func (m *merger) lists() {
	d, n, o := m.dst, m.newer, m.older
	d.NetworkLocationDetails = append(d.NetworkLocationDetails[:0], n.NetworkLocationDetails...)
	if len(n.NetworkLocationDetails) == 0 {
		d.NetworkLocationDetails = append(d.NetworkLocationDetails, o.NetworkLocationDetails...)
	}
	d.Policies = unite(n.Policies, o.Policies, func(a, b *schemas.Policy) int {
		if a.Id != "" || b.Id != "" {
			return strings.Compare(a.Id, b.Id)
		}
		return strings.Compare(a.DisplayName, b.DisplayName)
	})
	d.AuthenticationRequirementPolicies = unite(n.AuthenticationRequirementPolicies, o.AuthenticationRequirementPolicies,
		func(a, b *schemas.RequirementPolicy) int {
			return cmp.Or(strings.Compare(a.RequirementProvider, b.RequirementProvider), strings.Compare(a.Detail, b.Detail))
		})
	d.AuthenticationDetails = unite(n.AuthenticationDetails, o.AuthenticationDetails, func(a, b *schemas.AuthenticationStep) int {
		return cmp.Or(cmp.Compare(a.StatusSequence, b.StatusSequence), cmp.Compare(a.RequestSequence, b.RequestSequence),
			cmp.Compare(a.Time, b.Time), strings.Compare(a.Method, b.Method))
	})
	d.AuthenticationProcessingDetails = unite(n.AuthenticationProcessingDetails, o.AuthenticationProcessingDetails,
		func(a, b *schemas.ProcessingDetail) int { return strings.Compare(a.Key, b.Key) })
	d.AuthenticationStrengths = unite(n.AuthenticationStrengths, o.AuthenticationStrengths, strings.Compare)
	d.AuthenticationMethodsUsed = unite(n.AuthenticationMethodsUsed, o.AuthenticationMethodsUsed, strings.Compare)
	d.SessionLifetimePolicies = unite(n.SessionLifetimePolicies, o.SessionLifetimePolicies, strings.Compare)
	d.AuthenticationContextClassReferences = unite(n.AuthenticationContextClassReferences, o.AuthenticationContextClassReferences, strings.Compare)
	d.RiskEventTypes = unite(n.RiskEventTypes, o.RiskEventTypes, strings.Compare)
}

// maxUnited bounds a united list, so that a record that is sent again and again with other items stays a record.
const maxUnited = 512

// unite returns newer with the items of older that it lacks. Without such items it is newer as it was; else it is
// in the order of compare.
func unite[T any](newer, older []T, compare func(a, b T) int) []T {
	out := newer
	for _, x := range older {
		if len(out) >= maxUnited {
			break
		}
		if !slices.ContainsFunc(newer, func(y T) bool { return compare(x, y) == 0 }) {
			out = append(out[:len(out):len(out)], x)
		}
	}
	if len(out) != len(newer) {
		slices.SortStableFunc(out, compare)
	}
	return out
}
