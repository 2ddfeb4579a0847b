package detectors

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// verdict is what a scenario says of a record.
type verdict uint8

const (
	// doesNotApply: the record has nothing to do with the scenario.
	doesNotApply verdict = iota
	// labels: the scenario belongs into also, whatever the headline is.
	labels
	// explains: the scenario says what stopped or marked the sign-in, so it may be the headline. Among those that
	// explain the best rank wins; the others go into also.
	explains
)

// recognition judges one record. It appends evidence only when it applies, and keeps nothing of the subject.
type recognition func(s *subject) verdict

// Outcomes for which a scenario is asked at all.
const (
	onSuccess uint8 = 1 << iota // code 0
	onOther                     // failures, interrupts, records without a code
)

// registry holds every scenario and label with its recognition; each stands in a file of its own. The order is that of
// the catalogue's ranks, not of this list.
var registry = []struct {
	name      string
	when      uint8
	recognise recognition
}{
	{ScenarioSecurityDefaults, onSuccess | onOther, recogniseSecurityDefaults},
	{ScenarioPTA, onOther, recognisePTA},
	{ScenarioSSO, onOther, recogniseSSO},
	{ScenarioMaliciousIPBlocked, onOther, recogniseMaliciousIPBlocked},
	{ScenarioAccountLocked, onOther, recogniseAccountLocked},
	{ScenarioRiskBlocked, onOther, recogniseRiskBlocked},
	{ScenarioB2BCABlocked, onOther, recogniseB2BCABlocked},
	{ScenarioB2BFailed, onOther, recogniseB2BFailed},
	{ScenarioLegacyAuth, onSuccess | onOther, recogniseLegacyAuth},
	{ScenarioCABlocked, onOther, recogniseCABlocked},
	{ScenarioCAFailed, onOther, recogniseCAFailed},
	{ScenarioMFAProofup, onSuccess | onOther, recogniseMFAProofup},
	{ScenarioMFAFailed, onOther, recogniseMFAFailed},
	{ScenarioCAMFA, onSuccess | onOther, recogniseCAMFA},
	{ScenarioMFAOther, onSuccess | onOther, recogniseMFAOther},
	{ScenarioUnknownUser, onOther, recogniseUnknownUser},
	{ScenarioWrongPassword, onOther, recogniseWrongPassword},
	{ScenarioPasswordExpired, onOther, recognisePasswordExpired},
	{ScenarioAccountDisabled, onOther, recogniseAccountDisabled},
	{ScenarioAppServiceProvider, onOther, recogniseAppServiceProvider},
	{ScenarioAppConfiguration, onOther, recogniseAppConfiguration},
	{ScenarioConsentRequired, onOther, recogniseConsentRequired},
	{ScenarioDeviceState, onOther, recogniseDeviceState},
	{ScenarioFederation, onOther, recogniseFederation},
	{ScenarioTokenSession, onOther, recogniseTokenSession},
	{ScenarioServiceFault, onOther, recogniseServiceFault},
	{ScenarioMissedInterrupt, onSuccess, recogniseMissedInterrupt},
	{ScenarioInterrupt, onOther, recogniseInterrupt},
	{ScenarioErrorInsight, onOther, recogniseErrorInsight},
	{ScenarioSuccess, onSuccess, recogniseSuccess},
	{ScenarioPasswordKnown, onOther, recognisePasswordKnown},
	{ScenarioRepeatedFailures, onOther, recogniseRepeatedFailures},
	{ScenarioCachedCredential, onOther, recogniseCachedCredential},
	{ScenarioFlagged, onSuccess | onOther, recogniseFlagged},
}

// registered is one entry of the registry, tied to the catalogue.
type registered struct {
	scenario  *catalogue.Scenario
	recognise recognition
	// fallback scenarios explain what nothing else does and never stand in also.
	fallback bool
}

// classifier judges records. It is not safe for concurrent use: it reuses one subject.
type classifier struct {
	cat      *catalogue.Catalogue
	settings *Settings
	keys     evidenceKeys
	// Entries in rank order, by outcome.
	success, other []registered
	insight        *catalogue.Scenario
	codeTexts      map[int32]string // of the catalogue's codes, so that no window makes them anew
	subject        subject
}

// newClassifier ties the registry to a catalogue. It panics when the two do not hold the same scenarios, or when the
// catalogue lacks an evidence key that the scenarios set: both are mistakes of the build that tests exclude. The
// windows that thresholds rule have been judged before a View reaches the classifier; it reads the expectations.
func newClassifier(cat *catalogue.Catalogue, settings *Settings) *classifier {
	c := &classifier{cat: cat, settings: settings, keys: newEvidenceKeys(cat), insight: cat.Scenario(ScenarioErrorInsight)}
	if len(cat.Scenarios()) != len(registry) {
		panic(fmt.Sprintf("catalogue holds %d scenarios, the registry %d", len(cat.Scenarios()), len(registry)))
	}
	c.codeTexts = make(map[int32]string, len(cat.Codes()))
	for _, code := range cat.Codes() {
		c.codeTexts[code.Code] = strconv.Itoa(int(code.Code))
	}
	for _, s := range cat.Scenarios() {
		found := false
		for i := range registry {
			r := &registry[i]
			if r.name != s.Name {
				continue
			}
			found = true
			entry := registered{scenario: s, recognise: r.recognise}
			entry.fallback = s.Name == ScenarioSuccess || s.Name == ScenarioInterrupt || s.Name == ScenarioErrorInsight
			if r.when&onSuccess != 0 {
				c.success = append(c.success, entry)
			}
			if r.when&onOther != 0 {
				c.other = append(c.other, entry)
			}
		}
		if !found {
			panic("scenario " + s.Name + " of the catalogue is not in the registry")
		}
	}
	return c
}

// classify fills d from what v tells: all fields of the record, the headline, also, severity, evidence and unknown. It
// leaves ReceivedTime, Incidents and Revision to the caller, and reuses the memory of d's slices. d's
// strings alias those of the record.
func (c *classifier) classify(v *View, d *Diagnosis) {
	r := v.SignIn
	s := &c.subject
	*s = subject{c: c, cat: c.cat, keys: &c.keys, v: v, r: r, d: d, e: &d.Evidence}
	d.RequestID, d.CorrelationID, d.TenantID = r.RequestId, r.CorrelationId, r.TenantId
	d.EventTime = r.EventTime
	d.Category = r.Category.Name()
	d.User, d.UserID = firstNamed(r.UserPrincipalName, r.UserDisplayName, r.SignInIdentifier), r.UserId
	if d.User == "" {
		d.User = r.UserPrincipalName // all zeros, as Entra writes it
	}
	d.App = firstNamed(r.AppDisplayName, r.AppId)
	d.Resource = firstNamed(r.ResourceDisplayName, r.ResourceId)
	d.ClientApp, d.Address, d.ErrorCode = r.ClientAppUsed, r.IpAddress, r.ErrorCode
	d.Outcome, d.AttemptID, d.AttemptOutcome = v.Outcome, v.Attempt.ID, v.Attempt.Outcome
	d.Also, d.Unknown = d.Also[:0], d.Unknown[:0]
	d.Evidence.Reset()

	s.facts()
	s.recordEvidence()
	entries := c.other
	if s.success() {
		entries = c.success
	}
	var headline *catalogue.Scenario
	for i := range entries {
		entry := &entries[i]
		switch entry.recognise(s) {
		case explains:
			if headline == nil {
				headline = entry.scenario
				continue
			}
			if !entry.fallback {
				d.Also = append(d.Also, entry.scenario.Name)
			}
		case labels:
			d.Also = append(d.Also, entry.scenario.Name)
		}
	}
	if headline == nil { // a code whose scenario's own rules turned it away
		headline = c.insight
	}
	d.Scenario = headline.Name
	if s.riskLevel() == riskHigh || strings.EqualFold(r.RiskState, "confirmedCompromised") {
		s.riskEvidence() // it raises the severity of whatever the headline is
	}
	s.circumstances()
	s.unknowns()
	d.Severity = s.severity(headline)
}

// recordOutcome judges one record by its code alone: success, failure or interrupted. A record without a code is a
// failure where something in it says so (Conditional Access refused it, it carries a failure text, or its last
// authentication step failed), and a success otherwise, as exports leave the code out only there; unknown names it.
func recordOutcome(r *schemas.SignIn, cat *catalogue.Catalogue) string {
	if r.ErrorCode == 0 {
		if r.Flags&schemas.FlagNoErrorCode == 0 || !failedWithoutCode(r) {
			return OutcomeSuccess
		}
		return OutcomeFailure
	}
	if c := cat.Code(r.ErrorCode); c != nil && c.IsInterrupt() {
		return OutcomeInterrupted
	}
	return OutcomeFailure
}

func failedWithoutCode(r *schemas.SignIn) bool {
	if strings.EqualFold(r.ConditionalAccessStatus, "failure") || failureReason(r) != "" {
		return true
	}
	if n := len(r.AuthenticationDetails); n > 0 {
		return r.AuthenticationDetails[n-1].GetSucceeded() == schemas.Tri_TRI_FALSE
	}
	return false
}

// countsAsFailure reports whether a record counts in the window of its user's failures: terminal failures of a
// person, such as wrong credentials, lockouts, refusals by Conditional Access or risk, failed MFA, disabled accounts.
// Interrupts, ended tokens, consent, faults of the service and of applications do not count. An expired
// password, which a person is asked to change, counts only where nobody is there to do so: in non-interactive records and
// legacy clients. Codes that the catalogue does not know never count.
func countsAsFailure(r *schemas.SignIn, cat *catalogue.Catalogue) bool {
	if r.ErrorCode == 0 || !r.Category.IsUser() {
		return false
	}
	c := cat.Code(r.ErrorCode)
	if c == nil {
		return false
	}
	switch c.Counts {
	case catalogue.CountsYes:
		return true
	case catalogue.CountsUnattended:
		return r.Category == schemas.Category_CATEGORY_NON_INTERACTIVE_USER || isLegacyClient(r.ClientAppUsed)
	}
	return false
}

// severityOrder lists the severities, lowest first.
var severityOrder = [...]string{SeverityInfo, SeverityLow, SeverityMedium, SeverityHigh, SeverityCritical}

func severityRank(s string) int {
	for i, name := range severityOrder {
		if name == s {
			return i
		}
	}
	return 0
}

// severity starts from the catalogue's value for headline and outcome and weighs what an operator would weigh.
func (s *subject) severity(headline *catalogue.Scenario) string {
	rank := severityRank(headline.Severity.For(s.v.Outcome))
	raise := func(to string) { rank = max(rank, severityRank(to)) }
	if s.v.Outcome == OutcomeResolved {
		if strings.EqualFold(s.r.RiskState, "confirmedCompromised") {
			raise(SeverityHigh)
		}
		return severityOrder[rank]
	}
	failure := s.v.Outcome == OutcomeFailure
	switch {
	case failure && s.overcome() && !s.has(ScenarioPasswordKnown):
		// The person got in a moment later.
		rank = max(rank-1, 0)
	case s.r.Category == schemas.Category_CATEGORY_NON_INTERACTIVE_USER &&
		(headline.Name == ScenarioCABlocked || headline.Name == ScenarioCAFailed || headline.Name == ScenarioB2BCABlocked):
		// A refused client repeats this at every refresh of its token.
		rank = severityRank(SeverityLow)
	}
	switch headline.Name {
	case ScenarioRiskBlocked:
		if s.riskLevel() == riskHigh || s.riskUser {
			raise(SeverityHigh)
		}
	case ScenarioMissedInterrupt:
		if s.riskLevel() == riskHigh {
			raise(SeverityHigh)
		}
	case ScenarioAccountLocked:
		if len(s.v.Failures.Addresses) >= manyAddresses {
			raise(SeverityHigh)
		}
	case ScenarioMFAFailed:
		if s.mfaDenied {
			raise(SeverityMedium)
		}
	case ScenarioPTA:
		if s.is(80004, 80012) { // one person's name or hours, not an outage of agents
			rank = min(rank, severityRank(SeverityLow))
		}
	case ScenarioAppConfiguration:
		if s.is(50105) { // a person asks for access; nothing is broken
			rank = min(rank, severityRank(SeverityLow))
		}
	case ScenarioWrongPassword:
		switch {
		case s.assessment == assessedAttack && (s.v.Failures.WrongPasswords >= severeWrong || len(s.v.Failures.Addresses) >= manyAddresses):
			raise(SeverityHigh)
		case s.assessment == assessedAttack:
			raise(SeverityMedium)
		}
	case ScenarioSuccess:
		// High risk that was seen at the sign-in, or found later.
		if (s.riskLevel() == riskHigh || s.user && strings.EqualFold(s.r.RiskLevelAggregated, riskHigh)) && !s.riskOver() {
			raise(SeverityLow)
			if !s.mfaPassed() {
				raise(SeverityMedium) // nothing tells that MFA was passed: the password or the token may be stolen
			}
		}
	}
	if s.riskLevel() == riskHigh && !s.riskOver() && s.v.Outcome != OutcomeSuccess {
		raise(SeverityMedium) // somebody whom Entra holds for an attacker came this far
	}
	if s.has(ScenarioRepeatedFailures) && !s.has(ScenarioCachedCredential) && s.assessment != assessedStored {
		raise(SeverityMedium)
	}
	if s.has(ScenarioFlagged) && s.v.Outcome != OutcomeSuccess {
		raise(SeverityMedium)
	}
	if s.has(ScenarioPasswordKnown) {
		raise(SeverityHigh)
	}
	if strings.EqualFold(s.r.RiskState, "confirmedCompromised") {
		raise(SeverityHigh)
	}
	return severityOrder[rank]
}

// overcome reports whether the attempt of the record got to a success.
func (s *subject) overcome() bool {
	return s.v.Attempt.Outcome == AttemptSucceeded || s.v.Attempt.Outcome == AttemptResolved
}

func (s *subject) has(label string) bool {
	for _, name := range s.d.Also {
		if name == label {
			return true
		}
	}
	return false
}

// unknown notes something that the record does not tell.
func (s *subject) unknown(key string) {
	for _, have := range s.d.Unknown {
		if have == key {
			return
		}
	}
	s.d.Unknown = append(s.d.Unknown, key)
}

// failureReason returns Entra's own text of a failure. Microsoft Graph writes "Other." on success.
func failureReason(r *schemas.SignIn) string {
	if r.FailureReason == "Other." || r.FailureReason == "Other" {
		return ""
	}
	return r.FailureReason
}

// codeText returns a code as a text, for the lists of evidence.
func (c *classifier) codeText(code int32) string {
	if s, ok := c.codeTexts[code]; ok {
		return s
	}
	return strconv.Itoa(int(code))
}
