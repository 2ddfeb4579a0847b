package detectors

import (
	"github.com/signindiag/signindiag/schemas"
)

// Incident kinds.
const (
	IncidentPasswordSpray           = "password_spray"
	IncidentDistributedSpray        = "distributed_spray"
	IncidentBruteForce              = "brute_force"
	IncidentAccountLockout          = "account_lockout"
	IncidentKindPasswordKnown       = "password_known"
	IncidentAccountTakeover         = "account_takeover"
	IncidentMFAFatigue              = "mfa_fatigue"
	IncidentTOTPGuessing            = "totp_guessing"
	IncidentLegacyAuth              = "legacy_auth"
	IncidentDeviceCode              = "device_code"
	IncidentPrincipalSecretGuessing = "principal_secret_guessing"
	IncidentDisabledAccountProbe    = "disabled_account_probe"
	IncidentUserEnumeration         = "user_enumeration"
	IncidentCASurge                 = "ca_surge"
	IncidentAppOutage               = "app_outage"
	IncidentPTAOutage               = "pta_outage"
	IncidentSSOOutage               = "sso_outage"
	IncidentExpiredSecret           = "expired_secret"
	IncidentCachedCredential        = "cached_credential"
	IncidentRepeatedFailures        = "repeated_failures"
)

var (
	roleUser    = schemas.Roles(schemas.Role_ROLE_USER)
	roleService = schemas.Roles(schemas.Role_ROLE_SERVICE_PRINCIPAL)
	roleTenant  = schemas.Roles(schemas.Role_ROLE_TENANT)
)

// families are all stories that are told. The position of a family is part of the state format.
var families = []family{
	{name: "credentials", roles: roleUser, belongs: classCounts, quiet: quietFailures, detections: []*detection{
		detectTakeover, detectPasswordKnown, detectTOTPGuessing, detectMFAFatigue, detectCachedCredential, detectLockout,
		detectBruteForce, detectDisabledUser, detectRepeatedFailures,
	}},
	{name: "legacy", roles: roleUser, belongs: classSuccess | classLegacyStop, needs: classLegacy, quiet: quietLegacy, lane: 1,
		detections: []*detection{detectLegacyAuth}},
	{name: "device_code", roles: roleUser, belongs: classDeviceCode, needs: classDeviceCode, quiet: quietDeviceCode, lane: 2,
		detections: []*detection{detectDeviceCode}},
	{name: "secret", roles: roleService, belongs: classWrongSecret, quiet: quietDay, detections: []*detection{detectSecretGuessing}},
	{name: "expired", roles: roleService, belongs: classExpired, quiet: quietExpired, detections: []*detection{detectExpiredSecret}},
	{name: "address", roles: schemas.Roles(schemas.Role_ROLE_ADDRESS), belongs: classesOfSpray, quiet: quietSpray, detections: []*detection{
		detectUserEnumeration, detectDisabledUsers, detectPasswordSpray, detectLockoutsOfAddress, detectTakeoverInSpray,
	}},
	{name: "distributed", roles: schemas.Roles(schemas.Role_ROLE_AGENT_APPLICATION, schemas.Role_ROLE_NETWORK), belongs: classesOfSpray,
		quiet: quietSpray, detections: []*detection{detectDistributedSpray, detectTakeoverInDistributedSpray}},
	{name: "application", roles: schemas.Roles(schemas.Role_ROLE_APPLICATION), belongs: classApplication, quiet: quietDay, byCode: true,
		detections: []*detection{detectAppOutage}},
	{name: "policy", roles: schemas.Roles(schemas.Role_ROLE_POLICY), belongs: classPolicy, quiet: quietSurge, detections: []*detection{detectCASurge}},
	{name: "pass-through", roles: roleTenant, belongs: classPassThrough, quiet: quietHours, detections: []*detection{detectPTAOutage}},
	{name: "seamless", roles: roleTenant, belongs: classSSO, quiet: quietHours, detections: []*detection{detectSSOOutage}},
	{name: "storm", roles: roleTenant, belongs: classLocked, quiet: quietHours, detections: []*detection{detectLockoutStorm}},
}

// classesOfSpray are the events of an attack on many users: what stopped them shows that a password was tried.
const classesOfSpray = classWrong | classLocked | classBadAddress | classDisabled

// detections are all detections by number; a kind that several families find has several.
var detections []*detection

func init() {
	for i := range families {
		for _, d := range families[i].detections {
			d.number = len(detections)
			detections = append(detections, d)
		}
	}
}

// usualSeverity is the severity that the embedded catalogue gives each kind; the severities of findings are meant beside
// it. Another severity in the catalogue of an operator moves all severities of the kind by the difference.
var usualSeverity = map[string]string{
	IncidentPasswordSpray: SeverityMedium, IncidentDistributedSpray: SeverityMedium, IncidentBruteForce: SeverityMedium,
	IncidentAccountLockout: SeverityLow, IncidentKindPasswordKnown: SeverityHigh, IncidentAccountTakeover: SeverityCritical,
	IncidentMFAFatigue: SeverityMedium, IncidentTOTPGuessing: SeverityHigh, IncidentLegacyAuth: SeverityMedium,
	IncidentDeviceCode: SeverityHigh, IncidentPrincipalSecretGuessing: SeverityHigh, IncidentDisabledAccountProbe: SeverityMedium,
	IncidentUserEnumeration: SeverityLow, IncidentCASurge: SeverityMedium, IncidentAppOutage: SeverityMedium,
	IncidentPTAOutage: SeverityHigh, IncidentSSOOutage: SeverityMedium, IncidentExpiredSecret: SeverityMedium,
	IncidentCachedCredential: SeverityLow, IncidentRepeatedFailures: SeverityMedium,
}

// DetectionNames returns the kind of every detection, in the order of Stats.Detections; a kind may stand there more than once.
func DetectionNames() []string {
	names := make([]string, len(detections))
	for i, d := range detections {
		names[i] = d.kind
	}
	return names
}

// quietFailures holds the longest window of the family: two events of one window are of one story, whichever threshold of
// the operator is the shortest.
func quietFailures(t *Thresholds) int64 {
	return max(t.RepeatedFailures.Window, t.BruteForce.SlowWindow, t.CachedCredential.Window, t.MFAFatigue.SlowWindow,
		t.PasswordKnown.Window, t.DisabledAccountProbe.Window).Microseconds()
}
func quietLegacy(t *Thresholds) int64     { return t.LegacyAuth.Digest.Microseconds() }
func quietDeviceCode(t *Thresholds) int64 { return t.DeviceCode.Window.Microseconds() }
func quietExpired(t *Thresholds) int64    { return t.ExpiredSecret.Quiet.Microseconds() }
func quietDay(*Thresholds) int64          { return 24 * microsPerHour }

// quietSpray ends the story of an address: an attacker comes back within hours, while a day later someone else may have the
// address. It is not below the slow window, whose events are hours apart.
func quietSpray(t *Thresholds) int64 {
	return max(6*microsPerHour, t.PasswordSpray.SlowWindow.Microseconds()/2)
}

// quietSurge ends the story of a policy when its users come no faster than usual.
func quietSurge(t *Thresholds) int64 { return t.CASurge.Window.Microseconds() / 2 }

// quietHours ends the story of an outage or surge.
func quietHours(*Thresholds) int64 { return 6 * microsPerHour }
