// Package synthetic makes sign-in records in the dialects that Entra sends them, for demonstrations,
// load and tests: single records from a SignInSpec, one sample per scenario, and a seeded stream of
// traffic with planted attacks. Nothing in it comes from a real record: tenants are contoso and
// example.org, addresses lie in the ranges that RFC 5737 and RFC 3849 reserve for documentation.
// Only names and ids of Microsoft's own applications are real; they are public.
package synthetic

import (
	"time"

	"github.com/signindiag/signindiag/schemas"
)

// SignInSpec says what a record shall hold, whatever its dialect. Fields that are left at their zero
// value get the value that Entra would send for an ordinary sign-in; the comments name it. The Append
// methods only read a spec, so one may be used by several goroutines at once.
type SignInSpec struct {
	// Category is the log that the record belongs to; CATEGORY_UNSPECIFIED stands for SignInLogs.
	Category schemas.Category
	// Time is createdDateTime. It must be set: the package knows no clock.
	Time time.Time
	// ProcessingDelay is how long after Time the log was written (time, TimeGenerated).
	ProcessingDelay time.Duration

	RequestID     string
	CorrelationID string
	// OriginalRequestID is the first request of the sequence; RequestID by default.
	OriginalRequestID string

	// TenantID is the tenant whose log this is.
	TenantID string
	// HomeTenantID and ResourceTenantID are TenantID by default.
	HomeTenantID     string
	ResourceTenantID string
	// CrossTenantAccessType is "none" by default.
	CrossTenantAccessType string

	UserID            string
	UserPrincipalName string
	UserDisplayName   string
	// UserType is "Member" by default for a person.
	UserType string
	// SignInIdentifier is what the person typed; UserPrincipalName by default.
	SignInIdentifier string

	AppID               string
	AppDisplayName      string
	ResourceID          string
	ResourceDisplayName string

	// The fields of workload identities.
	ServicePrincipalID              string
	ServicePrincipalName            string
	ServicePrincipalCredentialKeyID string
	FederatedCredentialID           string
	// ClientCredentialType is "none" by default.
	ClientCredentialType string

	// ErrorCode is the code without its AADSTS prefix, 0 for success.
	ErrorCode int32
	// FailureReason is FailureText(ErrorCode) by default.
	FailureReason     string
	AdditionalDetails string

	// ClientAppUsed is "Browser" by default.
	ClientAppUsed string
	UserAgent     string
	// AuthenticationProtocol and the next two are "none" by default.
	AuthenticationProtocol string
	IncomingTokenType      string
	OriginalTransferMethod string
	// TokenIssuerType is "AzureAD" by default, ADFederationServices in ADFSSignInLogs.
	TokenIssuerType string
	SessionID       string
	RedirectURL     string

	Device Device

	Address                string
	AutonomousSystemNumber uint32
	Place                  Place
	NetworkLocations       []NetworkLocation

	// ConditionalAccessStatus follows from the policies by default: failure when one failed, success
	// when one succeeded, else notApplied.
	ConditionalAccessStatus string
	Policies                []Policy
	// PoliciesWithheld leaves appliedConditionalAccessPolicies out, as for a reader without the right.
	PoliciesWithheld bool
	// AuthenticationRequirement is "singleFactorAuthentication" by default.
	AuthenticationRequirement string
	RequirementPolicies       []RequirementPolicy
	Steps                     []Step
	AuthenticationStrengths   []string
	AuthenticationMethodsUsed []string
	// SessionLifetimePolicies holds values of expirationRequirement.
	SessionLifetimePolicies []string
	// AuthenticationContexts holds ids that were required, such as c1.
	AuthenticationContexts []string

	// Risk is "none" throughout by default.
	Risk Risk

	FlaggedForReview   bool
	IsTenantRestricted bool
	// Interactive overrides isInteractive; TRI_UNKNOWN follows the category.
	Interactive schemas.Tri

	// ProcessingDetails come beside the usual ones (Legacy TLS, Is CAE Token, Oauth Scope Info).
	ProcessingDetails []KeyValue
	// Scopes is the list behind "Oauth Scope Info".
	Scopes []string
	// ProcessingTimeMilliseconds is processingTimeInMilliseconds.
	ProcessingTimeMilliseconds int

	// Traffic renders the policies of a tenant and the scopes of an application once: these stand for
	// Policies and Scopes in the export. A Policy is half of a record's bytes otherwise.
	renderedPolicies []*renderedPolicy
	renderedScopes   string
}

// Device is deviceDetail. TRI_UNKNOWN leaves isCompliant or isManaged out, as the export does.
type Device struct {
	ID              string
	DisplayName     string
	OperatingSystem string
	Browser         string
	TrustType       string
	IsCompliant     schemas.Tri
	IsManaged       schemas.Tri
}

// Place is location. CountryOrRegion has two letters.
type Place struct {
	City, State, CountryOrRegion string
	Latitude, Longitude          float64 // degrees
}

// NetworkLocation is one entry of networkLocationDetails.
type NetworkLocation struct {
	Type  string
	Names []string
}

// Policy is one entry of appliedConditionalAccessPolicies.
type Policy struct {
	ID, DisplayName string
	// Result is one of Graph's values: success, failure, notApplied, notEnabled, reportOnlyFailure ...
	Result          string
	GrantControls   []string
	SessionControls []string
	// SessionControlsNotSatisfied names session controls that stopped the sign-in.
	SessionControlsNotSatisfied []string
	// Satisfied and NotSatisfied are sets of the Condition bits of package schemas.
	Satisfied, NotSatisfied uint32
	AuthenticationStrength  string
	Include, Exclude        []Rule
}

// Rule is one entry of includeRulesSatisfied or excludeRulesSatisfied.
type Rule struct{ Condition, Satisfied string }

// RequirementPolicy is one entry of authenticationRequirementPolicies.
type RequirementPolicy struct{ Provider, Detail string }

// KeyValue is one entry of authenticationProcessingDetails.
type KeyValue struct{ Key, Value string }

// Step is one entry of authenticationDetails.
type Step struct {
	// After is how long after the record's Time the step was taken.
	After        time.Duration
	Method       string
	MethodDetail string
	Succeeded    schemas.Tri
	ResultDetail string
	// Requirement is "Primary authentication" by default.
	Requirement string
}

// Risk holds the risk fields; empty ones are sent as "none".
type Risk struct {
	LevelDuringSignIn, LevelAggregated, State, Detail string
	EventTypes                                        []string
}

// Names of the fixed values that specs use most.
const (
	ClientBrowser = "Browser"
	ClientModern  = "Mobile Apps and Desktop clients"

	RequirementSingleFactor = "singleFactorAuthentication"
	RequirementMultiFactor  = "multiFactorAuthentication"

	StepPrimary     = "Primary authentication"
	StepMultiFactor = "Multifactor authentication"
)

func (s *SignInSpec) category() schemas.Category {
	if s.Category == schemas.Category_CATEGORY_UNSPECIFIED {
		return schemas.Category_CATEGORY_SIGN_IN
	}
	return s.Category
}

func (s *SignInSpec) interactive() bool {
	if s.Interactive != schemas.Tri_TRI_UNKNOWN {
		return s.Interactive == schemas.Tri_TRI_TRUE
	}
	c := s.category()
	return c == schemas.Category_CATEGORY_SIGN_IN || c == schemas.Category_CATEGORY_ADFS
}

func (s *SignInSpec) failureReason() string {
	if s.FailureReason != "" || s.ErrorCode == 0 {
		return s.FailureReason
	}
	return FailureText(s.ErrorCode)
}

func (s *SignInSpec) conditionalAccessStatus() string {
	if s.ConditionalAccessStatus != "" {
		return s.ConditionalAccessStatus
	}
	status := "notApplied"
	for i := range s.Policies {
		switch s.Policies[i].Result {
		case "failure":
			return "failure"
		case "success":
			status = "success"
		}
	}
	for _, p := range s.renderedPolicies {
		switch p.result {
		case "failure":
			return "failure"
		case "success":
			status = "success"
		}
	}
	return status
}

func (s *SignInSpec) tokenIssuerType() string {
	if s.TokenIssuerType == "" && s.category() == schemas.Category_CATEGORY_ADFS {
		return "ADFederationServices"
	}
	return or(s.TokenIssuerType, "AzureAD")
}

func (s *SignInSpec) userType() string {
	if s.UserType == "" && s.category().IsUser() {
		return "Member"
	}
	return s.UserType
}

// signInEventType is the value that Graph gives a record of the category.
func (s *SignInSpec) signInEventType() string {
	switch s.category() {
	case schemas.Category_CATEGORY_NON_INTERACTIVE_USER:
		return "nonInteractiveUser"
	case schemas.Category_CATEGORY_SERVICE_PRINCIPAL, schemas.Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL:
		return "servicePrincipal"
	case schemas.Category_CATEGORY_MANAGED_IDENTITY:
		return "managedIdentity"
	}
	return "interactiveUser"
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// failureTexts holds what a record says about a code, in our own words. Entra changes its texts at any
// time; only 50053 has fragments that its two meanings are told apart by ("malicious", "IP address").
var failureTexts = map[int32]string{
	16000:   "The account in this browser cannot be used here; another one has to be chosen.",
	50005:   "The device runs a platform that Conditional Access does not support.",
	50011:   "The reply address of the request is not one that is registered for the application.",
	50034:   "No account with this name exists in the directory.",
	50053:   "The account is locked: too many sign-ins with a wrong user name or password.",
	50055:   "The password is right but has expired.",
	50057:   "The account is disabled.",
	50058:   "Nobody is signed in yet, so a silent sign-in is not possible.",
	50072:   "The user has to set up multifactor authentication before going on.",
	50074:   "A strong method of authentication is needed and was asked for.",
	50076:   "Multifactor authentication is needed because of a change of configuration or of place.",
	50078:   "The earlier multifactor authentication has expired.",
	50079:   "The user has to enrol for multifactor authentication.",
	50097:   "The device has to authenticate first.",
	50105:   "The user is not assigned to a role of the application.",
	50126:   "Invalid user name or password.",
	50133:   "The session ended because of a password change or because it expired.",
	50140:   "The user was asked whether to stay signed in.",
	50144:   "The password in the on-premises directory has expired.",
	50158:   "An external challenge was not answered yet.",
	50173:   "The token was revoked; a new sign-in is needed.",
	50199:   "The user was asked to confirm the application on another device.",
	53000:   "The device does not meet the compliance rules of the organisation.",
	53001:   "The device is not joined to the domain.",
	53003:   "Conditional Access does not allow a token to be issued.",
	53004:   "Setting up multifactor authentication was refused because of suspicious activity.",
	65001:   "The user or an administrator has not consented to the application.",
	70043:   "The token is older than the sign-in frequency allows.",
	80002:   "The authentication agent did not get an answer in time.",
	81010:   "The Kerberos ticket for single sign-on was not accepted.",
	500121:  "The second factor was not completed.",
	530003:  "The device has to be managed to reach this resource.",
	530035:  "Security defaults block this kind of client.",
	700016:  "The application is not known in this directory.",
	700082:  "The refresh token has expired because it was not used.",
	7000215: "The client secret is not valid.",
	7000222: "The client secret has expired.",
}

// MaliciousAddressText is the failure text of a 50053 that was given because of the address, whether or
// not the password was right.
const MaliciousAddressText = "Sign-in was blocked because it came from an IP address with malicious activity."

// FailureText returns the text that a record carries for code, "" for 0.
func FailureText(code int32) string {
	if code == 0 {
		return ""
	}
	if text, ok := failureTexts[code]; ok {
		return text
	}
	return "The sign-in did not go through."
}
