package schemas

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"
)

// maxAhead is how far an event time may lie after the time of receipt before it is clamped: clocks of the
// log and of the broker differ by seconds, never by an hour.
const maxAhead = time.Hour

// enumNames are values of Microsoft Graph's enumerations for sign-ins, in Graph's spelling. The export, the
// tables and the portal's CSV write some of them with another case or with spaces.
// Source: learn.microsoft.com/graph/api/resources/signin and the enumerations it links.
var enumNames = []string{
	"success", "failure", "notApplied", "notEnabled", "unknown", "unknownFutureValue",
	"reportOnlySuccess", "reportOnlyFailure", "reportOnlyNotApplied", "reportOnlyInterrupted", "interrupted",
	"low", "medium", "high", "hidden", "none", "confirmedSafe", "remediated", "dismissed", "atRisk", "confirmedCompromised",
	"b2bCollaboration", "b2bDirectConnect", "microsoftSupport", "serviceProvider", "passthrough",
	"member", "guest", "external",
	"primaryRefreshToken", "saml11", "saml20", "remoteDesktopToken", "refreshToken",
	"oAuth2", "ropc", "wsFederation", "deviceCode", "authenticationTransfer", "nativeAuth",
	"authorizationCodeWithPkce", "authorizationCodeWithoutPkce", "clientCredentials", "refreshTokenGrant", "kerberos", "prtGrant",
	"seamlessSso", "prtBrokerBased", "prtNonBrokerBased", "onBehalfOf", "samlOnBehalfOf", "officeS2S", "wsTrust", "directUserGrant",
	"encryptedAuthorizeResponse", "deviceCodeFlow",
	"clientSecret", "clientAssertion", "federatedIdentityCredential", "managedIdentity", "certificate",
	"AzureAD", "ADFederationServices", "AzureADBackupAuth", "ADFederationServicesMFAAdapter", "NPSExtension",
	"intranet", "extranet", "namedNetwork", "trusted", "trustedNamedLocation",
	"singleFactorAuthentication", "multiFactorAuthentication",
	"user", "request", "servicePrincipal", "v1ConditionalAccess", "multiConditionalAccess", "tenantSessionRiskPolicy",
	"accountCompromisePolicies", "v1ConditionalAccessDependency", "v1ConditionalAccessPolicyIdRequested",
	"mfaRegistrationRequiredByIdentityProtectionPolicy", "baselineProtection", "mfaRegistrationRequiredByBaselineProtection",
	"mfaRegistrationRequiredByMultiConditionalAccess", "enforcedForCspAdmins", "securityDefaults",
	"mfaRegistrationRequiredBySecurityDefaults", "proofUpCodeRequest", "crossTenantOutboundRule", "gpsLocationCondition",
	"riskBasedPolicy", "scopeBasedAuthRequirementPolicy", "authenticationStrengths",
	"adminGeneratedTemporaryPassword", "userPerformedSecuredPasswordChange", "userPerformedSecuredPasswordReset",
	"adminConfirmedSigninSafe", "aiConfirmedSigninSafe", "userPassedMFADrivenByRiskBasedPolicy", "adminDismissedAllRiskForUser",
	"adminConfirmedSigninCompromised", "adminConfirmedUserCompromised", "m365DAdminDismissedDetection", "userChangedPasswordOnPremises",
	"adminDismissedRiskForSignIn", "adminConfirmedAccountSafe", "microsoftRevokedSessions",
	"rememberMultifactorAuthenticationOnTrustedDevices", "tenantTokenLifetimePolicy", "audienceTokenLifetimePolicy",
	"signInFrequencyPeriodicReauthentication", "ngcMfa", "signInFrequencyEveryTime",
	"anonymizedIPAddress", "unlikelyTravel", "unfamiliarFeatures", "maliciousIPAddress", "passwordSpray", "anomalousToken",
	"leakedCredentials", "investigationsThreatIntelligence", "generic", "nationStateIP", "suspiciousBrowser", "tokenIssuerAnomaly",
	"newCountry", "mcasImpossibleTravel", "riskyIPAddress", "attackerinTheMiddle", "attemptedPrtAccess", "suspiciousAPITraffic",
	"userReportedSuspiciousActivity", "malwareInfectedIPAddress", "suspiciousIPAddress", "maliciousIPAddressValidCredentialsBlockedIP",
}

var enumTable = func() keyTable {
	keys := make(map[string]field, len(enumNames))
	for i, name := range enumNames {
		keys[strings.ToLower(name)] = field(i + 1)
	}
	return newKeyTable(keys)
}()

// canonicalEnum returns Graph's spelling of an enumeration value, and a value it does not know unchanged.
func canonicalEnum(s string) string {
	if s == "" {
		return s
	}
	if i := enumTable.find(aliasBytes(s)); i != fieldUnknown {
		return enumNames[i-1]
	}
	if len(s) > 64 || strings.IndexByte(s, ' ') < 0 && strings.IndexByte(s, '-') < 0 {
		return s
	}
	var buf [64]byte
	short := buf[:0]
	for i := 0; i < len(s); i++ {
		if s[i] != ' ' && s[i] != '-' {
			short = append(short, s[i])
		}
	}
	if i := enumTable.find(short); i != fieldUnknown {
		return enumNames[i-1]
	}
	return s
}

// signInCategories maps the names of sign-in categories, letters only, lower case, without the prefixes
// am- (hubs of the workspace data export) and aad (tables) and without the suffix logs.
var signInCategories = map[string]Category{
	"signin":                          Category_CATEGORY_SIGN_IN,
	"interactiveusersignin":           Category_CATEGORY_SIGN_IN,
	"noninteractiveusersignin":        Category_CATEGORY_NON_INTERACTIVE_USER,
	"noninteractivesignin":            Category_CATEGORY_NON_INTERACTIVE_USER,
	"serviceprincipalsignin":          Category_CATEGORY_SERVICE_PRINCIPAL,
	"managedidentitysignin":           Category_CATEGORY_MANAGED_IDENTITY,
	"adfssignin":                      Category_CATEGORY_ADFS,
	"microsoftserviceprincipalsignin": Category_CATEGORY_MICROSOFT_SERVICE_PRINCIPAL,
}

// categoryOf returns the category of a sign-in log by its name in the export ("SignInLogs"), in Log Analytics
// ("AADNonInteractiveUserSignInLogs") or in documents that misspell it ("SignIn", "NonInteractiveUserSIgnInLogs").
// known is false for any other name.
func categoryOf(name string) (c Category, known bool) {
	switch name {
	case "SignInLogs", "SigninLogs":
		return Category_CATEGORY_SIGN_IN, true
	case "NonInteractiveUserSignInLogs":
		return Category_CATEGORY_NON_INTERACTIVE_USER, true
	case "ServicePrincipalSignInLogs":
		return Category_CATEGORY_SERVICE_PRINCIPAL, true
	case "ManagedIdentitySignInLogs":
		return Category_CATEGORY_MANAGED_IDENTITY, true
	}
	if len(name) > 64 {
		return 0, false
	}
	var buf [64]byte
	short := buf[:0]
	for i := 0; i < len(name); i++ {
		if b := name[i] | 0x20; b >= 'a' && b <= 'z' {
			short = append(short, b)
		}
	}
	folded := alias(short)
	folded = strings.TrimPrefix(folded, "am")
	folded = strings.TrimPrefix(folded, "aad")
	folded = strings.TrimSuffix(folded, "cl") // custom tables end in _CL
	folded = strings.TrimSuffix(folded, "s")
	folded = strings.TrimSuffix(folded, "log")
	c, known = signInCategories[folded]
	return c, known
}

// isGUID reports whether s has the form 8-4-4-4-12 of hexadecimal digits.
func isGUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	for i := 0; i < 36; i++ {
		if i != 8 && i != 13 && i != 18 && i != 23 && unhex(s[i]) < 0 {
			return false
		}
	}
	return true
}

// canonicalID returns a GUID in lower case without braces, and any other id trimmed but otherwise as it is.
func (d *Decoder) canonicalID(s string) string {
	if len(s) == 36 && s[0] > ' ' && s[35] > ' ' {
		// An upper-case letter has bit 0x40 and not bit 0x20; eight bytes at a time.
		b := aliasBytes(s)
		upper := uint64(0)
		for _, i := range [...]int{0, 8, 16, 24, 28} {
			v := binary.LittleEndian.Uint64(b[i:])
			upper |= v & (lowBits * 0x40) &^ (v << 1)
		}
		if upper == 0 {
			return s
		}
		if isGUID(s) {
			return d.lower(s)
		}
		return s
	}
	s = trimSpace(s)
	if len(s) == 38 && s[0] == '{' && s[37] == '}' && isGUID(s[1:37]) {
		return d.lower(s[1:37])
	}
	if isGUID(s) {
		return d.lower(s)
	}
	return s
}

// lower folds ASCII letters; it copies into the arena only where there is something to fold.
func (d *Decoder) lower(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			start := len(d.arena)
			for k := 0; k < len(s); k++ {
				b := s[k]
				if b >= 'A' && b <= 'Z' {
					b |= 0x20
				}
				d.arena = append(d.arena, b)
			}
			return d.keep(start)
		}
	}
	return s
}

// canonicalAddress returns an address without port and brackets: IPv4 in dotted form, IPv6 in the canonical
// form of RFC 5952, mapped IPv4 as IPv4. What is no address, such as 203.0.113.XXX (masked by Entra for privacy), stays.
func (d *Decoder) canonicalAddress(s string) string {
	s = trimSpace(s)
	if s == "" {
		return s
	}
	host := s
	dots, colons := 0, 0
	plain := true
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b == '.':
			dots++
		case b == ':':
			colons++
		case b < '0' || b > '9':
			plain = false
		}
	}
	if s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return s
		}
		host = s[1:end]
	} else if dots == 3 && colons == 1 {
		host = s[:strings.IndexByte(s, ':')]
	} else if dots == 3 && colons == 0 && plain {
		return s
	}
	if i := strings.IndexByte(host, '%'); i >= 0 {
		host = host[:i]
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return s
	}
	var buf [64]byte
	text := addr.Unmap().AppendTo(buf[:0])
	if string(text) == s {
		return s
	}
	start := len(d.arena)
	d.arena = append(d.arena, text...)
	return d.keep(start)
}

// appendPythonAsJSON appends Python literal text (repr of dicts, lists, tuples, strings, True, False, None) as
// JSON. ok is false, and dst unchanged, where the text is none; the caller checks the JSON's grammar.
func appendPythonAsJSON(dst []byte, s string) (out []byte, ok bool) {
	start := len(dst)
	for i := 0; i < len(s); {
		switch b := s[i]; {
		case b == '\'' || b == '"':
			var closed bool
			if dst, i, closed = appendPythonString(dst, s, i); !closed {
				return dst[:start], false
			}
		case b == '(':
			dst = append(dst, '[')
			i++
		case b == ')':
			dst = append(dst, ']')
			i++
		case b|0x20 >= 'a' && b|0x20 <= 'z':
			end := i
			for end < len(s) && s[end]|0x20 >= 'a' && s[end]|0x20 <= 'z' {
				end++
			}
			switch word := s[i:end]; word {
			case "True", "true":
				dst = append(dst, "true"...)
			case "False", "false":
				dst = append(dst, "false"...)
			case "None", "null", "nan":
				dst = append(dst, "null"...)
			case "u", "b": // prefix of a string
				if end == len(s) || s[end] != '\'' && s[end] != '"' {
					return dst[:start], false
				}
			default:
				return dst[:start], false
			}
			i = end
		case b == ',' || b == ':' || b == '[' || b == ']' || b == '{' || b == '}' || b == '-' || b == '+' || b == '.' ||
			b >= '0' && b <= '9' || b == ' ' || b == '\n' || b == '\r' || b == '\t':
			dst = append(dst, b)
			i++
		default:
			return dst[:start], false
		}
	}
	return dst, true
}

func appendPythonString(dst []byte, s string, i int) (out []byte, next int, closed bool) {
	quote := s[i]
	dst = append(dst, '"')
	for i++; i < len(s); i++ {
		switch b := s[i]; {
		case b == quote:
			return append(dst, '"'), i + 1, true
		case b == '"':
			dst = append(dst, '\\', '"')
		case b < ' ':
			dst = append(dst, '\\', 'u', '0', '0', "0123456789abcdef"[b>>4], "0123456789abcdef"[b&15])
		case b == '\\' && i+1 < len(s):
			i++
			switch e := s[i]; e {
			case '\'':
				dst = append(dst, '\'')
			case '"', '\\', 'n', 'r', 't', 'b', 'f', 'u':
				dst = append(dst, '\\', e)
			case 'x':
				dst = append(dst, '\\', 'u', '0', '0')
			default:
				dst = append(dst, '\\', '\\', e)
			}
		case b == '\\':
			return dst, i, false
		default:
			dst = append(dst, b)
		}
	}
	return dst, i, false
}
