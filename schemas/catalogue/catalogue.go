// Package catalogue is the knowledge of signindiag as data: error codes, scenarios, evidence keys,
// actions, roles and links, loaded from embedded files and validated before use.
//
// The files are: codes.tsv (one line per error code), scenarios.yaml, incidents.yaml, actions.yaml,
// roles.yaml, links.yaml, evidence.yaml, words.yaml, unknowns.yaml and sentences.yaml. Sentences in them are written in the
// small template language of Template. LoadOverlay lays a file of the operator's over them. A Catalogue is immutable after Load
// and safe for concurrent use.
package catalogue

import (
	"slices"
	"sort"
)

// Kind is the type of an evidence key's value.
type Kind uint8

// Kinds of evidence values and their JSON forms.
const (
	KindText Kind = iota // a string
	KindInt              // an integer
	KindBool             // true or false
	KindList             // an array of strings
	KindTime             // microseconds since the Unix epoch; an RFC 3339 string in JSON
)

// Capability is a right that a viewer needs to see a piece of evidence.
type Capability uint8

// Capabilities, as in the design: records is needed for anything at all.
const (
	CapabilityRecords Capability = 1 << iota
	CapabilityConditionalAccess
	CapabilityRisk
	CapabilityRaw
)

// AllCapabilities is the set of a viewer who may see everything.
const AllCapabilities = CapabilityRecords | CapabilityConditionalAccess | CapabilityRisk | CapabilityRaw

// Has reports whether the set c holds every capability of want.
func (c Capability) Has(want Capability) bool { return c&want == want }

// EvidenceKey is one fixed key of evidence: its name in JSON, its type and the right to see it.
type EvidenceKey struct {
	Name       string
	Kind       Kind
	Capability Capability
	// Title is the key's name for people, for example "Policy".
	Title string
	// Index numbers the keys of a catalogue from 0 in the order of evidence.yaml.
	Index int
	// Told is true where a Why sentence tells the value, so that a viewer without the right misses something.
	Told bool
}

// Outcome kinds of a code, from Microsoft's sign-in failure analysis workbook and the error code
// reference. A code without a kind is a failure, save for code 0.
const (
	OutcomeBenignStep    = "benign_step"
	OutcomeNeedsFollowUp = "needs_follow_up"
	OutcomeUserMustAct   = "user_must_act"
)

// What a code says about the password that was used.
const (
	PasswordRight = "right" // the first factor was passed, whatever came after it
	PasswordWeak  = "weak"  // the session was good once; weak proof
	PasswordWrong = "wrong" // the user name or the password was wrong
)

// How a code counts in the 48 h window of a person's failures.
const (
	CountsYes        = "yes"        // a terminal failure of a person
	CountsUnattended = "unattended" // only where nobody is there who could act on the prompt
)

// Code is what is known of one error code (status.errorCode, AADSTSnnn).
type Code struct {
	Code   int32
	Symbol string
	// Category is the family of the code, for example "credentials".
	Category string
	// Outcome is one of the Outcome kinds of this package, or "" for a failure (and for code 0).
	Outcome string
	// Password is one of the Password constants, or "" where the code says nothing about it.
	Password string
	// Counts is one of the Counts constants, or "" where the code never counts as a failure of a person.
	Counts      string
	Meaning     string
	Remediation string
	// Link is the page of Microsoft's documentation that explains the code.
	Link string
	// Scenario is the headline that the code alone stands for. The rules of package detectors refine it.
	Scenario *Scenario
	// Also are scenarios that the code belongs to beside its headline.
	Also []*Scenario
}

// IsInterrupt reports whether the code pauses a sign-in for a further step rather than ending it.
func (c *Code) IsInterrupt() bool { return c.Outcome != "" }

// PasswordWasRight reports whether the code proves that the password was right although the sign-in may
// have failed. Weak proof (revoked sessions) does not count.
func (c *Code) PasswordWasRight() bool { return c.Password == PasswordRight }

// PasswordWasWrong reports whether the code says that the user name or the password was wrong.
func (c *Code) PasswordWasWrong() bool { return c.Password == PasswordWrong }

// Types of scenarios.
const (
	TypeScenario = "scenario" // may be a headline
	TypeLabel    = "label"    // cross-cutting: never a headline alone
)

// Texts holds one value per outcome with a fallback for all others.
type Texts[T any] struct {
	byOutcome map[string]T
	fallback  T
}

// For returns the value for an outcome, or the fallback where the outcome has none of its own.
func (t *Texts[T]) For(outcome string) T {
	if v, ok := t.byOutcome[outcome]; ok {
		return v
	}
	return t.fallback
}

// Scenario is one name that a diagnosis may carry, as a headline or in also.
type Scenario struct {
	Name string
	// Type is TypeScenario or TypeLabel.
	Type  string
	Title string
	// Definition says in a sentence when the name applies.
	Definition string
	// Rank orders headlines and also, 1 first. It is unique.
	Rank int
	// Severity is the default by outcome; package detectors raises or lowers it by the evidence.
	Severity Texts[string]
	// Summary is what happened, by outcome.
	Summary Texts[*Template]
	// Note is the sentence that the scenario adds to the summary of another headline; nil for none.
	Note *Template
	// Actions are what to do in order, by outcome.
	Actions Texts[[]*Action]
	// Links are documents to read.
	Links []*Link
	// Evidence lists the keys that the scenario may set beside the common ones.
	Evidence []*EvidenceKey
	// Codes are the codes whose headline the scenario is, ascending; AlsoCodes those that it labels.
	Codes, AlsoCodes []int32
	// Categories are the code categories whose codes have this headline unless a code says otherwise.
	Categories []string
	// Examples are sentences that show when the name applies.
	Examples []string
}

// Incident is one kind of incident.
type Incident struct {
	Name       string
	Title      string
	Definition string
	// Severity is that of an ordinary incident of the kind; package detectors tells a step more or less by what it finds.
	Severity string
	Summary  *Template
	Actions  []*Action
	Links    []*Link
}

// Action is one thing to do and who can do it. A text that renders empty for a diagnosis does not apply to it.
type Action struct {
	Name string
	Text *Template
	Role *Role
}

// ActionNothing is the name of the action that is told where no other one applies. Its text holds no keys.
const ActionNothing = "nothing"

// Names of actions that stand in no scenario: package detectors tells them whatever the headline is.
const (
	ActionCompromised = "compromised" // before all others
	ActionWithheld    = "withheld"    // in place of ActionNothing, to a viewer without the right to see why there is more to do
)

// hasKeys reports whether the text depends on a diagnosis.
func (a *Action) hasKeys() bool {
	return a.Text != nil && slices.ContainsFunc(a.Text.nodes, func(n node) bool { return n.op != opLiteral })
}

// Role is a role, or a person, who can carry out an action.
type Role struct {
	Name string
	// Title is the role's name in Microsoft Entra or a plain word such as "The user".
	Title string
}

// Link is one document.
type Link struct {
	Name, Title, URL string
	// When says which diagnoses the document is for: those for which it renders a text. nil is for all.
	When *Template
}

// Unknown is something that a record may not tell.
type Unknown struct {
	Name string
	// Text is a full sentence for people.
	Text string
}

// Catalogue holds everything, cross-referenced.
type Catalogue struct {
	codes     map[int32]*Code
	codeList  []*Code
	scenarios map[string]*Scenario
	ranked    []*Scenario
	incidents map[string]*Incident
	kinds     []*Incident
	evidence  map[string]*EvidenceKey
	keys      []*EvidenceKey
	common    []*EvidenceKey
	actions   map[string]*Action
	roles     map[string]*Role
	links     map[string]*Link
	unknowns  map[string]*Unknown
	sentences map[string]*Template
	words     map[Field]*Words
	keyWords  map[*EvidenceKey]*Words
	print     uint64
}

// Code returns what is known of an error code, or nil for a code that the catalogue does not hold.
func (c *Catalogue) Code(code int32) *Code { return c.codes[code] }

// Codes returns all codes in ascending order. The slice belongs to the catalogue.
func (c *Catalogue) Codes() []*Code { return c.codeList }

// Scenario returns a scenario or label by its name, or nil.
func (c *Catalogue) Scenario(name string) *Scenario { return c.scenarios[name] }

// Scenarios returns all scenarios and labels in the order of their ranks. The slice belongs to the catalogue.
func (c *Catalogue) Scenarios() []*Scenario { return c.ranked }

// Incident returns an incident kind by its name, or nil.
func (c *Catalogue) Incident(name string) *Incident { return c.incidents[name] }

// Incidents returns all incident kinds in the order of incidents.yaml. The slice belongs to the catalogue.
func (c *Catalogue) Incidents() []*Incident { return c.kinds }

// Evidence returns an evidence key by its name, or nil.
func (c *Catalogue) Evidence(name string) *EvidenceKey { return c.evidence[name] }

// EvidenceKeys returns all keys in the order of evidence.yaml. The slice belongs to the catalogue.
func (c *Catalogue) EvidenceKeys() []*EvidenceKey { return c.keys }

// CommonEvidence returns the keys that any diagnosis may carry whatever its scenario is.
func (c *Catalogue) CommonEvidence() []*EvidenceKey { return c.common }

// Unknown returns what an unknown key means, or nil.
func (c *Catalogue) Unknown(name string) *Unknown { return c.unknowns[name] }

// Words returns how sentences say the values of a field; nil for as they are.
func (c *Catalogue) Words(f Field) *Words { return c.words[f] }

// KeyWords returns how sentences say the values of an evidence key; nil for as they are.
func (c *Catalogue) KeyWords(key *EvidenceKey) *Words { return c.keyWords[key] }

// Names of the sentences that the texts of every scenario share.
const (
	SentenceAttemptSucceeded         = "attempt_succeeded"
	SentenceAttemptFailed            = "attempt_failed"
	SentenceRisk                     = "risk"
	SentenceMissingConditionalAccess = "missing_conditional_access"
	SentenceMissingRisk              = "missing_risk"
	SentenceMissingBoth              = "missing_conditional_access_and_risk"
	SentenceMissingRaw               = "missing_raw"
	// The Why sentences tell the evidence in the text form of a diagnosis; one that renders empty is left out.
	SentenceWhyPolicy     = "why_policy"
	SentenceWhyConditions = "why_conditions"
	SentenceWhyReportOnly = "why_report_only"
	SentenceWhyClient     = "why_client"
	SentenceWhyDevice     = "why_device"
	SentenceWhyMFA        = "why_mfa"
	SentenceWhyPassword   = "why_password"
	SentenceWhyAssessment = "why_assessment"
	SentenceWhyRisk       = "why_risk"
	SentenceWhyExternal   = "why_external"
	SentenceWhyWorkload   = "why_workload"
	SentenceWhyFailures   = "why_failures"
)

// WhySentences lists the Why sentences in the order in which they are told.
var WhySentences = []string{
	SentenceWhyPolicy, SentenceWhyConditions, SentenceWhyReportOnly, SentenceWhyMFA, SentenceWhyPassword,
	SentenceWhyAssessment, SentenceWhyRisk, SentenceWhyDevice, SentenceWhyClient, SentenceWhyExternal, SentenceWhyWorkload, SentenceWhyFailures,
}

var sentenceNames = append([]string{
	SentenceAttemptSucceeded, SentenceAttemptFailed, SentenceRisk,
	SentenceMissingConditionalAccess, SentenceMissingRisk, SentenceMissingBoth, SentenceMissingRaw,
}, WhySentences...)

// Sentence returns one of the shared sentences by its name. It is there for each of the Sentence constants.
func (c *Catalogue) Sentence(name string) *Template { return c.sentences[name] }

// Action returns an action by its name, or nil.
func (c *Catalogue) Action(name string) *Action { return c.actions[name] }

// Link returns a document by its name, or nil.
func (c *Catalogue) Link(name string) *Link { return c.links[name] }

// Fingerprint is a hash of the content of all files, an overlay included. It is part of what an epoch stands for: another
// catalogue decides differently.
func (c *Catalogue) Fingerprint() uint64 { return c.print }

// PasswordWasRight returns the codes that prove a right password, ascending.
func (c *Catalogue) PasswordWasRight() []int32 { return c.codesWhere((*Code).PasswordWasRight) }

// PasswordWasWrong returns the codes that say the user name or the password was wrong, ascending.
func (c *Catalogue) PasswordWasWrong() []int32 { return c.codesWhere((*Code).PasswordWasWrong) }

func (c *Catalogue) codesWhere(f func(*Code) bool) []int32 {
	var codes []int32
	for _, code := range c.codeList {
		if f(code) {
			codes = append(codes, code.Code)
		}
	}
	sort.Slice(codes, func(i, j int) bool { return codes[i] < codes[j] })
	return codes
}
