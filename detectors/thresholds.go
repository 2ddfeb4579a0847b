package detectors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Thresholds are the values at which the windowed detections speak, for one tenant. They are configuration: another value
// is another epoch (Engine.Fingerprint), so that a replay brings it to the records it concerns. Every window slides over
// event time. The tags hold names as a file of settings and scenario files spell them, defaults, bounds and meaning;
// ThresholdFields reads them. The defaults are starting values taken from what Microsoft Sentinel, Elastic Security,
// Splunk and Panther ship, see each field.
type Thresholds struct {
	RepeatedFailures        RepeatedFailuresThreshold        `name:"repeated_failures"`
	PasswordSpray           PasswordSprayThreshold           `name:"password_spray"`
	DistributedSpray        DistributedSprayThreshold        `name:"distributed_spray"`
	BruteForce              BruteForceThreshold              `name:"brute_force"`
	AccountLockout          AccountLockoutThreshold          `name:"account_lockout"`
	PasswordKnown           PasswordKnownThreshold           `name:"password_known"`
	AccountTakeover         AccountTakeoverThreshold         `name:"account_takeover"`
	MFAFatigue              MFAFatigueThreshold              `name:"mfa_fatigue"`
	TOTPGuessing            TOTPGuessingThreshold            `name:"totp_guessing"`
	LegacyAuth              LegacyAuthThreshold              `name:"legacy_auth"`
	DeviceCode              DeviceCodeThreshold              `name:"device_code"`
	DisabledAccountProbe    DisabledAccountProbeThreshold    `name:"disabled_account_probe"`
	UserEnumeration         UserEnumerationThreshold         `name:"user_enumeration"`
	PrincipalSecretGuessing PrincipalSecretGuessingThreshold `name:"principal_secret_guessing"`
	CachedCredential        CachedCredentialThreshold        `name:"cached_credential"`
	CASurge                 CASurgeThreshold                 `name:"ca_surge"`
	AppOutage               AppOutageThreshold               `name:"app_outage"`
	PTAOutage               PTAOutageThreshold               `name:"pta_outage"`
	SSOOutage               SSOOutageThreshold               `name:"sso_outage"`
	ExpiredSecret           ExpiredSecretThreshold           `name:"expired_secret"`
}

// RepeatedFailuresThreshold belongs to repeated_failures: so many terminal failures of one user in a window.
type RepeatedFailuresThreshold struct {
	Count  int           `name:"count" default:"5" min:"2" max:"64" doc:"terminal failures of a user"`
	Window time.Duration `name:"window" default:"48h" min:"1m" max:"48h" doc:"window of the failures"`
}

// PasswordSprayThreshold belongs to password_spray: users that fail from one address. A user who then gets in from the same
// address is no sprayed one.
type PasswordSprayThreshold struct {
	Users      int           `name:"users" default:"5" min:"2" max:"256" doc:"users failing from one address: medium"`
	UsersHigh  int           `name:"users_high" default:"10" min:"2" max:"256" doc:"users failing from one address: high"`
	Window     time.Duration `name:"window" default:"30m" min:"1m" max:"48h" doc:"window of users and users_high"`
	LowUsers   int           `name:"low_users" default:"3" min:"2" max:"256" doc:"users, each with at most low_tries tries and all with one user agent: low (small tenants)"`
	LowTries   int           `name:"low_tries" default:"3" min:"1" max:"64" doc:"most tries of one user for low_users"`
	SlowUsers  int           `name:"slow_users" default:"10" min:"2" max:"256" doc:"users failing from one address within slow_window: medium"`
	SlowWindow time.Duration `name:"slow_window" default:"24h" min:"1m" max:"48h" doc:"window of slow_users"`
}

// DistributedSprayThreshold belongs to distributed_spray: users that fail from many addresses with one user agent at one
// application, or from one network.
type DistributedSprayThreshold struct {
	Users      int           `name:"users" default:"10" min:"2" max:"256" doc:"users failing with one user agent at one application, or from one network"`
	Addresses  int           `name:"addresses" default:"5" min:"2" max:"256" doc:"addresses that they fail from, and at least half as many as users"`
	Tries      int           `name:"tries" default:"3" min:"1" max:"64" doc:"most tries of one user from one address"`
	Window     time.Duration `name:"window" default:"1h" min:"1m" max:"48h" doc:"window of the spray"`
	SlowWindow time.Duration `name:"slow_window" default:"24h" min:"1m" max:"48h" doc:"window of a slow one with the same numbers"`
}

// BruteForceThreshold belongs to brute_force: wrong passwords of one user from all addresses together.
type BruteForceThreshold struct {
	Failures      int           `name:"failures" default:"10" min:"2" max:"64" doc:"wrong passwords of one user: medium"`
	FailuresHigh  int           `name:"failures_high" default:"30" min:"2" max:"64" doc:"wrong passwords of one user: high"`
	AddressesHigh int           `name:"addresses_high" default:"3" min:"2" max:"64" doc:"addresses of the wrong passwords: high"`
	Window        time.Duration `name:"window" default:"10m" min:"1m" max:"48h" doc:"window of a fast one"`
	SlowWindow    time.Duration `name:"slow_window" default:"24h" min:"1m" max:"48h" doc:"window of a slow one, with the same numbers, from places where the user did not get in"`
}

// AccountLockoutThreshold belongs to account_lockout: the first lockout by wrong passwords is an incident.
type AccountLockoutThreshold struct {
	UsersHigh   int           `name:"users_high" default:"3" min:"2" max:"256" doc:"users locked from one address within window: high"`
	Window      time.Duration `name:"window" default:"15m" min:"1m" max:"48h" doc:"window of users_high"`
	StormUsers  int           `name:"storm_users" default:"25" min:"2" max:"256" doc:"users locked in the tenant within storm_window: critical"`
	StormWindow time.Duration `name:"storm_window" default:"30m" min:"1m" max:"48h" doc:"window of storm_users"`
}

// PasswordKnownThreshold belongs to password_known: a right password after wrong ones, stopped by a later check.
type PasswordKnownThreshold struct {
	Failures int           `name:"failures" default:"5" min:"1" max:"64" doc:"wrong passwords from the address of the right one before it"`
	Window   time.Duration `name:"window" default:"24h" min:"1m" max:"48h" doc:"window of the wrong passwords"`
}

// AccountTakeoverThreshold belongs to account_takeover: a success after wrong passwords, or inside a spray.
type AccountTakeoverThreshold struct {
	Failures int           `name:"failures" default:"10" min:"2" max:"64" doc:"wrong passwords before the success"`
	Window   time.Duration `name:"window" default:"30m" min:"1m" max:"48h" doc:"longest time from the last wrong password, or from the live spray, to the success"`
}

// MFAFatigueThreshold belongs to mfa_fatigue: prompts that a user refused or did not answer.
type MFAFatigueThreshold struct {
	Prompts     int           `name:"prompts" default:"3" min:"2" max:"64" doc:"prompts refused or not answered: low, or medium when one was refused"`
	PromptsHigh int           `name:"prompts_high" default:"5" min:"2" max:"64" doc:"prompts refused or not answered: high"`
	Window      time.Duration `name:"window" default:"10m" min:"1m" max:"48h" doc:"window of a fast one"`
	SlowWindow  time.Duration `name:"slow_window" default:"1h" min:"1m" max:"48h" doc:"window of a slow one with the same numbers; a success within it after the prompts is critical"`
}

// TOTPGuessingThreshold belongs to totp_guessing: wrong one-time codes of one user.
type TOTPGuessingThreshold struct {
	Codes  int           `name:"codes" default:"10" min:"2" max:"64" doc:"wrong one-time codes of one user"`
	Window time.Duration `name:"window" default:"10m" min:"1m" max:"48h" doc:"window of the codes"`
}

// LegacyAuthThreshold belongs to legacy_auth: one incident for a user and a digest period.
type LegacyAuthThreshold struct {
	Digest time.Duration `name:"digest" default:"24h" min:"1h" max:"48h" doc:"successes of a user with legacy clients this close together are one incident"`
}

// DeviceCodeThreshold belongs to device_code: one device code session seen from several places.
type DeviceCodeThreshold struct {
	Places int           `name:"places" default:"2" min:"2" max:"16" doc:"addresses or user agents of one session"`
	Window time.Duration `name:"window" default:"1h" min:"1m" max:"48h" doc:"window of the session"`
}

// DisabledAccountProbeThreshold belongs to disabled_account_probe.
type DisabledAccountProbeThreshold struct {
	Users        int           `name:"users" default:"3" min:"2" max:"256" doc:"disabled accounts tried from one address"`
	Applications int           `name:"applications" default:"3" min:"2" max:"64" doc:"applications at which one disabled account is tried"`
	Window       time.Duration `name:"window" default:"24h" min:"1m" max:"48h" doc:"window of both"`
}

// UserEnumerationThreshold belongs to user_enumeration: unknown user names from one address.
type UserEnumerationThreshold struct {
	Names  int           `name:"names" default:"10" min:"2" max:"256" doc:"unknown user names from one address, at least four of five of all that fail there"`
	Window time.Duration `name:"window" default:"30m" min:"1m" max:"48h" doc:"window of the names"`
}

// PrincipalSecretGuessingThreshold belongs to principal_secret_guessing.
type PrincipalSecretGuessingThreshold struct {
	Failures   int           `name:"failures" default:"10" min:"2" max:"64" doc:"wrong secrets of one service principal from an address at which it never succeeded"`
	Window     time.Duration `name:"window" default:"10m" min:"1m" max:"48h" doc:"window of a fast one"`
	SlowWindow time.Duration `name:"slow_window" default:"24h" min:"1m" max:"48h" doc:"window of a slow one with the same number"`
}

// CachedCredentialThreshold belongs to cached_credential: wrong passwords at a regular spacing from one application and device.
type CachedCredentialThreshold struct {
	Failures int           `name:"failures" default:"10" min:"4" max:"64" doc:"wrong passwords at a regular spacing, without a lockout"`
	Window   time.Duration `name:"window" default:"48h" min:"1m" max:"48h" doc:"window of the failures"`
}

// CASurgeThreshold belongs to ca_surge: one policy suddenly stops many users.
type CASurgeThreshold struct {
	Users  int           `name:"users" default:"5" min:"2" max:"256" doc:"users that one policy stops"`
	Factor int           `name:"factor" default:"3" min:"1" max:"1000" doc:"times the policy's own rate of the 24 hours before"`
	Window time.Duration `name:"window" default:"1h" min:"1m" max:"12h" doc:"window of users"`
}

// AppOutageThreshold belongs to app_outage: one application fails for many users with the same code.
type AppOutageThreshold struct {
	Users  int           `name:"users" default:"5" min:"2" max:"256" doc:"users for whom one application fails with the same code"`
	Window time.Duration `name:"window" default:"1h" min:"1m" max:"48h" doc:"window of users"`
}

// PTAOutageThreshold belongs to pta_outage: pass-through authentication fails for many users of the tenant.
type PTAOutageThreshold struct {
	Users  int           `name:"users" default:"3" min:"2" max:"256" doc:"users for whom pass-through authentication fails (80001, 80002, 80005, 80007, 80014)"`
	Window time.Duration `name:"window" default:"15m" min:"1m" max:"48h" doc:"window of users"`
}

// SSOOutageThreshold belongs to sso_outage: Seamless SSO fails for many users of the tenant.
type SSOOutageThreshold struct {
	Users  int           `name:"users" default:"5" min:"2" max:"256" doc:"users for whom Seamless SSO fails (81xxx other than interrupts)"`
	Window time.Duration `name:"window" default:"1h" min:"1m" max:"48h" doc:"window of users"`
}

// ExpiredSecretThreshold belongs to expired_secret: the first use of an expired secret or certificate is an incident.
type ExpiredSecretThreshold struct {
	Quiet time.Duration `name:"quiet" default:"24h" min:"1m" max:"48h" doc:"uses this close together are one incident"`
}

// MaxFailureWindow bounds every window: the 48 hours over which Microsoft's own sign-in diagnostic looks for
// repeated failures.
const MaxFailureWindow = 48 * time.Hour

// ThresholdField is one value of Thresholds, as settings name it.
type ThresholdField struct {
	// Detection and Name are the two parts of the name, such as password_spray and users.
	Detection, Name string
	// Default, Min and Max are spelled as in a file of settings: a whole number or a duration such as 30m.
	Default, Min, Max string
	// Duration is true for a duration of whole seconds, false for a number.
	Duration bool
	// Doc is what the value means.
	Doc string

	outer, inner int // positions in the structs
}

// thresholdFields holds all fields in the order of their definition.
var thresholdFields = func() (list []ThresholdField) {
	t := reflect.TypeFor[Thresholds]()
	for i := range t.NumField() {
		detection := t.Field(i)
		for j := range detection.Type.NumField() {
			f := detection.Type.Field(j)
			list = append(list, ThresholdField{
				Detection: detection.Tag.Get("name"), Name: f.Tag.Get("name"),
				Default: f.Tag.Get("default"), Min: f.Tag.Get("min"), Max: f.Tag.Get("max"), Doc: f.Tag.Get("doc"),
				Duration: f.Type == reflect.TypeFor[time.Duration](), outer: i, inner: j,
			})
		}
	}
	return list
}()

// ThresholdFields returns every value of Thresholds in the order of its definition. The slice is shared: read it only.
func ThresholdFields() []ThresholdField { return thresholdFields }

// DefaultThresholds returns the values that are used unless configured.
func DefaultThresholds() (t Thresholds) {
	for i := range thresholdFields {
		f := &thresholdFields[i]
		if err := f.Set(&t, f.Default); err != nil {
			panic(err) // a mistake in a tag, which every test finds
		}
	}
	return t
}

func (f *ThresholdField) of(t *Thresholds) reflect.Value {
	return reflect.ValueOf(t).Elem().Field(f.outer).Field(f.inner)
}

// Set sets the value in t from its text. The error says what was expected.
func (f *ThresholdField) Set(t *Thresholds, text string) error {
	v, ok := f.parse(text)
	if low, _ := f.parse(f.Min); !ok || v < low {
		return f.refuse(text)
	}
	if high, _ := f.parse(f.Max); v > high {
		return f.refuse(text)
	}
	f.of(t).SetInt(v)
	return nil
}

// Text returns the value in t as Set reads it.
func (f *ThresholdField) Text(t *Thresholds) string {
	v := f.of(t).Int()
	if !f.Duration {
		return strconv.FormatInt(v, 10)
	}
	s := time.Duration(v).String()
	for _, zero := range [...]string{"m0s", "h0m"} { // 30m0s, 48h0m
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func (f *ThresholdField) parse(text string) (int64, bool) {
	if !f.Duration {
		v, err := strconv.ParseInt(text, 10, 32)
		return v, err == nil
	}
	d, err := time.ParseDuration(text)
	return int64(d), err == nil && d%time.Second == 0
}

func (f *ThresholdField) refuse(text string) error {
	kind := "a whole number"
	if f.Duration {
		kind = "a duration in whole seconds"
	}
	return fmt.Errorf("threshold %s.%s is %s, want %s from %s to %s", f.Detection, f.Name, text, kind, f.Min, f.Max)
}

// Validate returns an error that names every value out of its range, and every pair that contradicts itself.
func (t Thresholds) Validate() error {
	var errs []error
	for i := range thresholdFields {
		f := &thresholdFields[i]
		v := f.of(&t).Int()
		low, _ := f.parse(f.Min)
		high, _ := f.parse(f.Max)
		if v < low || v > high || f.Duration && v%int64(time.Second) != 0 {
			errs = append(errs, f.refuse(f.Text(&t)))
		}
	}
	order := func(low int64, lowName string, high int64, highName string) {
		if low > high {
			errs = append(errs, fmt.Errorf("threshold %s is above %s", lowName, highName))
		}
	}
	order(int64(t.PasswordSpray.Users), "password_spray.users", int64(t.PasswordSpray.UsersHigh), "password_spray.users_high")
	order(int64(t.PasswordSpray.Window), "password_spray.window", int64(t.PasswordSpray.SlowWindow), "password_spray.slow_window")
	order(int64(t.DistributedSpray.Window), "distributed_spray.window", int64(t.DistributedSpray.SlowWindow), "distributed_spray.slow_window")
	order(int64(t.BruteForce.Failures), "brute_force.failures", int64(t.BruteForce.FailuresHigh), "brute_force.failures_high")
	order(int64(t.BruteForce.Window), "brute_force.window", int64(t.BruteForce.SlowWindow), "brute_force.slow_window")
	order(int64(t.MFAFatigue.Prompts), "mfa_fatigue.prompts", int64(t.MFAFatigue.PromptsHigh), "mfa_fatigue.prompts_high")
	order(int64(t.MFAFatigue.Window), "mfa_fatigue.window", int64(t.MFAFatigue.SlowWindow), "mfa_fatigue.slow_window")
	order(int64(t.PrincipalSecretGuessing.Window), "principal_secret_guessing.window",
		int64(t.PrincipalSecretGuessing.SlowWindow), "principal_secret_guessing.slow_window")
	return errors.Join(errs...)
}

// Fingerprint returns a number that differs when any value differs. It is the same in every process.
func (t Thresholds) Fingerprint() uint64 {
	b := make([]byte, 0, 8*len(thresholdFields))
	for i := range thresholdFields {
		b = binary.LittleEndian.AppendUint64(b, uint64(thresholdFields[i].of(&t).Int()))
	}
	return xxhash.Sum64(b)
}
