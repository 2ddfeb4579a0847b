package schemas

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// object is a JSON object whose members keep their order, as Azure Monitor writes them.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", m.name, value)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

func guid(r *rand.Rand) string {
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.Uint32N(1<<16), r.Uint32N(1<<12), r.Uint32N(1<<12), r.Uint64N(1<<48))
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// exportRecord makes one record of the diagnostic export with the given number of policies: 4.8 KB without, 7.4 KB with 10.
func exportRecord(r *rand.Rand, policies int) []byte {
	const tenant = "11111111-aaaa-4bbb-8ccc-000000000001"
	names := []string{"ana.meier", "ben.okafor", "chloe.durand", "dmitri.sokolov", "eva.lindqvist"}
	name := pick(r, names...)
	code := pick(r, 0, 0, 0, 0, 50126, 50074, 53003, 500121)
	reason := "Error validating credentials due to invalid username or password, or a policy that was not satisfied."
	id, correlation := guid(r), guid(r)
	at := fmt.Sprintf("2026-03-%02dT%02d:%02d:%02d.%07d", 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e7))
	status := object{{"errorCode", code}}
	if code != 0 {
		status = append(status, member{"failureReason", reason})
	}
	status = append(status, member{"additionalDetails", "MFA requirement satisfied by claim in the token"})
	var applied []object
	for i := range policies {
		applied = append(applied, object{
			{"id", guid(r)}, {"displayName", fmt.Sprintf("CA%03d - Require MFA for all users - group %d", i, r.IntN(90))},
			{"enforcedGrantControls", pick(r, []string{"Mfa"}, []string{"Block"}, []string{}, []string{"RequireCompliantDevice"})},
			{"enforcedSessionControls", []string{}},
			{"result", pick(r, "success", "notApplied", "notEnabled", "reportOnlyNotApplied", "failure", "notApplied", "notApplied")},
			{"conditionsSatisfied", r.IntN(2048)}, {"conditionsNotSatisfied", r.IntN(32)},
		})
	}
	properties := object{
		{"id", id}, {"createdDateTime", at + "+00:00"}, {"userDisplayName", "Ana Meier"}, {"userPrincipalName", name + "@example.org"},
		{"userId", guid(r)}, {"appId", guid(r)}, {"appDisplayName", pick(r, "Office 365 Exchange Online", "Azure Portal", "Microsoft Teams")},
		{"ipAddress", pick(r, "203.0.113.7", "198.51.100.23", "2001:db8:10::42", "192.0.2.99")}, {"status", status}, {"clientAppUsed", "Browser"},
		{"userAgent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"},
		{"deviceDetail", object{{"deviceId", guid(r)}, {"displayName", "LAPTOP-" + guid(r)[:6]}, {"operatingSystem", "Windows10"},
			{"browser", "Edge 141.0.0"}, {"isCompliant", true}, {"isManaged", true}, {"trustType", "Hybrid Azure AD joined"}}},
		{"location", object{{"city", "Zürich"}, {"state", "Zürich"}, {"countryOrRegion", "CH"},
			{"geoCoordinates", object{{"latitude", 47.3769}, {"longitude", 8.5417}}}}},
		{"mfaDetail", object{}}, {"correlationId", correlation}, {"conditionalAccessStatus", pick(r, "success", "failure", "notApplied")},
		{"appliedConditionalAccessPolicies", applied}, {"authenticationContextClassReferences", []object{}}, {"originalRequestId", id},
		{"isInteractive", true}, {"tokenIssuerName", ""}, {"tokenIssuerType", "AzureAD"},
		{"authenticationProcessingDetails", []object{{{"key", "Login Hint Present"}, {"value", "True"}},
			{{"key", "Legacy TLS (TLS 1.0, 1.1, 3DES)"}, {"value", "False"}},
			{{"key", "Oauth Scope Info"}, {"value", `["email","openid","profile","https://graph.example.org/User.Read"]`}},
			{{"key", "Is CAE Token"}, {"value", "False"}}}},
		{"networkLocationDetails", []object{{{"networkType", "trustedNamedLocation"}, {"networkNames", []string{"Head office"}}}}},
		{"clientCredentialType", "none"}, {"processingTimeInMilliseconds", r.IntN(900)}, {"riskDetail", "none"}, {"riskLevelAggregated", "none"},
		{"riskLevelDuringSignIn", "none"}, {"riskState", "none"}, {"riskEventTypes", []string{}}, {"riskEventTypes_v2", []string{}},
		{"resourceDisplayName", "Windows Azure Active Directory"}, {"resourceId", "00000002-0000-0000-c000-000000000000"},
		{"resourceTenantId", tenant}, {"homeTenantId", tenant}, {"tenantId", tenant},
		{"authenticationDetails", []object{
			{{"authenticationStepDateTime", at + "+00:00"}, {"authenticationMethod", "Password"}, {"authenticationMethodDetail", "Password in the cloud"},
				{"succeeded", true}, {"authenticationStepResultDetail", "Correct password"}, {"authenticationStepRequirement", "Primary authentication"},
				{"StatusSequence", 1772439235103}, {"RequestSequence", 1772439235101}},
			{{"authenticationStepDateTime", at + "+00:00"}, {"authenticationMethod", "Mobile app notification"}, {"succeeded", code == 0},
				{"authenticationStepResultDetail", "MFA successfully completed"}, {"authenticationStepRequirement", "Multi-factor authentication"},
				{"StatusSequence", 1772439245103}, {"RequestSequence", 1772439235101}}}},
		{"authenticationRequirementPolicies", []object{{{"requirementProvider", "multiConditionalAccess"}, {"detail", "Conditional Access"}}}},
		{"sessionLifetimePolicies", []object{{{"expirationRequirement", "rememberMultifactorAuthenticationOnTrustedDevices"}, {"detail", "Remember MFA"}}}},
		{"authenticationRequirement", "multiFactorAuthentication"}, {"alternateSignInName", ""}, {"signInIdentifier", name + "@example.org"},
		{"servicePrincipalId", ""}, {"userType", "Member"}, {"flaggedForReview", false}, {"isTenantRestricted", false},
		{"autonomousSystemNumber", 64496 + r.IntN(16)}, {"crossTenantAccessType", "none"}, {"privateLinkDetails", object{}},
		{"ssoExtensionVersion", ""}, {"uniqueTokenIdentifier", "ErQx6XbUE02cACtqX04BAA"}, {"authenticationStrengths", []string{}},
		{"incomingTokenType", "none"}, {"authenticationProtocol", "none"}, {"appServicePrincipalId", nil}, {"resourceServicePrincipalId", guid(r)},
		{"rngcStatus", 0}, {"signInTokenProtectionStatus", "none"}, {"tokenProtectionStatusDetails", object{{"signInSessionStatus", "unbound"}, {"signInSessionStatusCode", 1002}}},
		{"originalTransferMethod", "none"}, {"isThroughGlobalSecureAccess", false}, {"conditionalAccessAudiences", []object{{{"applicationId", guid(r)}, {"audienceReasons", "none"}}}},
		{"sessionId", guid(r)}, {"appOwnerTenantId", tenant}, {"resourceOwnerTenantId", tenant},
	}
	record := object{
		{"time", at + "Z"}, {"resourceId", "/tenants/" + tenant + "/providers/Microsoft.aadiam"}, {"operationName", "Sign-in activity"},
		{"operationVersion", "1.0"}, {"category", pick(r, "SignInLogs", "NonInteractiveUserSignInLogs")}, {"tenantId", tenant},
		{"resultType", fmt.Sprint(code)}, {"resultSignature", "None"}, {"resultDescription", reason}, {"durationMs", 0},
		{"callerIpAddress", "203.0.113.7"}, {"correlationId", correlation}, {"identity", "Ana Meier"}, {"Level", 4}, {"location", "CH"},
		{"properties", properties},
	}
	b, err := json.Marshal(record)
	if err != nil {
		panic(err)
	}
	return b
}

// exportMessage makes a message of n records, as Azure Monitor sends them.
func exportMessage(seed uint64, n, policies int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := []byte(`{"records":[`)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, exportRecord(r, policies)...)
	}
	return append(b, "]}"...)
}
