package detectors

import (
	"strings"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// class says what a record is to the windows, as a bit set. The windows look at nothing else of a code.
type class uint32

const (
	classCounts      class = 1 << iota // a terminal failure of a person, as countsAsFailure judges
	classWrong                         // the user name or the password was wrong
	classUnknownName                   // the user name is none of the directory; also classWrong
	classLocked                        // smart lockout after too many wrong passwords
	classBadAddress                    // refused because the address is known for malicious activity
	classDisabled                      // the account is disabled
	classStopped                       // the password was right and a later check stopped the sign-in, or asked for more
	classSuccess                       // the sign-in succeeded
	classDenied                        // the person refused an MFA prompt, or reported it
	classNoAnswer                      // nobody answered an MFA prompt
	classWrongCode                     // a wrong one-time code
	classLegacy                        // a client without modern authentication
	classLegacyStop                    // stopped because of such a client, after a right password
	classDeviceCode                    // part of a device code flow
	classSilent                        // nobody was there: a session was renewed, or a client tried by itself
	classWrongSecret                   // a wrong secret or assertion of a service principal
	classExpired                       // an expired secret or certificate of a service principal
	classApplication                   // the application or its configuration is at fault
	classPolicy                        // Conditional Access refused it
	classPassThrough                   // pass-through authentication has no agent or domain controller
	classSSO                           // Seamless SSO is broken
	classKnownDevice                   // the device is joined or managed
	classPrivileged                    // the settings call the person privileged
	classPerson                        // a person's record, not a workload's

	// Not of the record, but of how it is kept.
	classRequestText     // request holds the number of an interned text, not a GUID
	classCorrelationText // the same for correlation

	classPassedMFA // a success of somebody who passed a second factor, there and then or before on the same device
)

func (c class) has(bits class) bool { return c&bits == bits }
func (c class) any(bits class) bool { return c&bits != 0 }

// Codes that mean an entity's fault as a whole (learn.microsoft.com/entra/identity-platform/reference-error-codes):
// pass-through authentication without an agent or a domain controller.
func isPassThroughOutage(code int32) bool {
	switch code {
	case 80001, 80002, 80005, 80007, 80014:
		return true
	}
	return false
}

// isWrongSecret reports whether a code says that a workload's secret, certificate or federated token was wrong.
func isWrongSecret(code int32) bool {
	switch code {
	case 7000215, 700027, 700024, 70021:
		return true
	}
	return false
}

const (
	codeUserUnknown   = 50034
	codeLockout       = 50053
	codeUserDisabled  = 50057
	codeDeviceConfirm = 50199 // the person confirms which application a device code is for
	codeMFAFailed     = 500121
	codeSecretExpired = 7000222
)

// classOf judges what a record is to the windows. It needs no more of a record than schemas.CompactFor keeps, except for
// what only the user's own windows ask: MFA steps and devices.
func classOf(r *schemas.SignIn, cat *catalogue.Catalogue) class {
	var c class
	if isSilent(r) {
		c |= classSilent
	}
	known := cat.Code(r.ErrorCode)
	if !r.Category.IsUser() {
		switch {
		case r.ErrorCode == 0 && r.Flags&schemas.FlagNoErrorCode == 0:
			c |= classSuccess
		case r.ErrorCode == codeSecretExpired:
			c |= classExpired
		case isWrongSecret(r.ErrorCode):
			c |= classWrongSecret
		}
		return c
	}
	c |= classPerson
	if isLegacyClient(r.ClientAppUsed) {
		c |= classLegacy
	}
	if r.ErrorCode == codeDeviceConfirm || strings.EqualFold(r.AuthenticationProtocol, "deviceCode") ||
		strings.EqualFold(r.OriginalTransferMethod, "deviceCodeFlow") {
		c |= classDeviceCode
	}
	if r.TrustType != "" || r.IsCompliant == schemas.Tri_TRI_TRUE || r.IsManaged == schemas.Tri_TRI_TRUE {
		c |= classKnownDevice
	}
	if r.ErrorCode == 0 {
		if r.Flags&schemas.FlagNoErrorCode == 0 {
			c |= classSuccess
			if passedMFA(r) {
				c |= classPassedMFA
			}
		}
		return c
	}
	if countsAsFailure(r, cat) {
		c |= classCounts
	}
	if known == nil {
		return c
	}
	switch {
	case known.PasswordWasWrong():
		c |= classWrong
		if r.ErrorCode == codeUserUnknown {
			c |= classUnknownName
		}
	case r.ErrorCode == codeLockout, known.Category == "lockout":
		if r.ErrorCode != codeLockout || isLockout(r) {
			c |= classLocked
		} else {
			c |= classBadAddress
		}
	case r.ErrorCode == codeUserDisabled:
		c |= classDisabled | classStopped
	case r.ErrorCode == codeMFAFailed:
		c |= classStopped | mfaClass(r)
	case known.PasswordWasRight() && !c.has(classSilent): // a redeemed token proves no password
		c |= classStopped
		if c.has(classLegacy) && known.Category == "conditional_access" {
			c |= classLegacyStop
		}
	}
	switch known.Category {
	case "enterprise_app_sp", "enterprise_app_config":
		c |= classApplication
	case "conditional_access", "risk":
		if !known.IsInterrupt() {
			c |= classPolicy
		}
	case "pta":
		if isPassThroughOutage(r.ErrorCode) {
			c |= classPassThrough
		}
	case "seamless_sso":
		if !known.IsInterrupt() {
			c |= classSSO
		}
	}
	return c
}

// mfaClass reads what came of a failed challenge. Texts vary, so fragments are matched as in recogniseMFAFailed.
func mfaClass(r *schemas.SignIn) class {
	text := r.AdditionalDetails
	oath := false
	for _, step := range r.AuthenticationDetails {
		if step == nil || !isMFAStep(step) {
			continue
		}
		if step.ResultDetail != "" {
			text = step.ResultDetail
		}
		oath = containsFold(step.Method, "oath")
	}
	switch {
	case containsAny(text, "fraud", "declined", "rejected", "refused", "not me"):
		return classDenied
	case containsAny(text, "wrong code", "incorrect code", "invalid code", "verification code", "code incorrect", "wrong otp",
		"oath code", "wrong code too many times"):
		return classWrongCode
	case containsAny(text, "did not respond", "not respond", "no response", "timed out", "timeout", "time out", "not answered",
		"no answer", "unanswered", "voicemail", "hung up", "unreachable", "expired"):
		return classNoAnswer
	case oath:
		return classWrongCode
	}
	return 0
}

// passedMFA reports whether a second factor was passed: in this sign-in, or earlier in a session that the device holds or
// on a device that is remembered. Neither has who merely guessed a password. Skipping it for the place says nothing.
func passedMFA(r *schemas.SignIn) bool {
	for _, step := range r.AuthenticationDetails {
		if step != nil && isMFAStep(step) && step.Succeeded == schemas.Tri_TRI_TRUE && isSatisfied(step.ResultDetail) &&
			!(containsFold(step.ResultDetail, "skipped") && !containsFold(step.ResultDetail, "device")) {
			return true
		}
	}
	return false
}

// isLockout reports whether the record says that the account was locked for too many attempts. The other meaning
// of 50053, an address with malicious activity, is told apart by the text alone.
func isLockout(rec *schemas.SignIn) bool {
	return rec.ErrorCode == codeLockout && lockoutCause(failureReason(rec)) != lockoutMaliciousAddress &&
		lockoutCause(rec.AdditionalDetails) != lockoutMaliciousAddress
}

// isSilent reports whether a sign-in went without a person: it renewed a session. Resource owner password credentials and
// legacy clients send a password each time, though they are logged as non-interactive.
func isSilent(rec *schemas.SignIn) bool {
	if strings.EqualFold(rec.AuthenticationProtocol, "ropc") || isLegacyClient(rec.ClientAppUsed) {
		return false
	}
	return rec.Category == schemas.Category_CATEGORY_NON_INTERACTIVE_USER || rec.IsInteractive == schemas.Tri_TRI_FALSE
}

// What of a record a role is about. A record that is none of it is not dealt to the role's entity.
const (
	// credentials are tries of a password from an address, with an agent, in a network; attended successes beside them show
	// who got in.
	classesOfAddress = classWrong | classLocked | classBadAddress | classDisabled | classStopped
	classesOfTenant  = classPassThrough | classSSO | classLocked
)

// concerns reports whether a record of class c says anything to the entities of a role.
func (c class) concerns(role schemas.Role) bool {
	switch role {
	case schemas.Role_ROLE_ADDRESS, schemas.Role_ROLE_NETWORK, schemas.Role_ROLE_AGENT_APPLICATION:
		return c.any(classesOfAddress) || c.has(classSuccess|classPerson) && !c.has(classSilent)
	case schemas.Role_ROLE_APPLICATION:
		return c.has(classApplication)
	case schemas.Role_ROLE_POLICY:
		return c.has(classPolicy)
	case schemas.Role_ROLE_TENANT:
		return c.any(classesOfTenant)
	}
	return false
}
