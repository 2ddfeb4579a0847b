package schemas

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// field names a member that the decoder knows, whatever its spelling in the dialect.
type field uint16

const (
	fieldUnknown field = iota
	// fieldIgnored: known, and nothing in SignIn is made of it.
	fieldIgnored
	fieldRecords
	fieldValue
	fieldProperties
	fieldCategory
	fieldType
	fieldODataType
	fieldOperationName
	fieldTime
	fieldTenantID
	fieldAADTenantID
	fieldResultType
	fieldResultSignature
	fieldResultDescription
	fieldCallerIPAddress
	fieldIdentity
	fieldLocation
	fieldResourceID
	fieldResourceIdentity
	fieldCorrelationID
	fieldID
	fieldCreatedDateTime
	fieldUserDisplayName
	fieldUserPrincipalName
	fieldUserID
	fieldUserType
	fieldSignInIdentifier
	fieldAlternateSignInName
	fieldAppID
	fieldAppDisplayName
	fieldResourceDisplayName
	fieldResourceTenantID
	fieldHomeTenantID
	fieldCrossTenantAccessType
	fieldServicePrincipalID
	fieldServicePrincipalName
	fieldClientCredentialType
	fieldServicePrincipalCredentialKeyID
	fieldFederatedCredentialID
	fieldRedirectURL
	fieldIPAddress
	fieldAutonomousSystemNumber
	fieldNetworkLocationDetails
	fieldClientAppUsed
	fieldUserAgent
	fieldAuthenticationProtocol
	fieldIncomingTokenType
	fieldOriginalTransferMethod
	fieldTokenIssuerType
	fieldSessionID
	fieldDeviceDetail
	fieldIsInteractive
	fieldFlaggedForReview
	fieldIsTenantRestricted
	fieldConditionalAccessStatus
	fieldPolicies
	fieldAuthenticationRequirement
	fieldAuthenticationRequirementPolicies
	fieldAuthenticationDetails
	fieldAuthenticationStrengths
	fieldAuthenticationMethodsUsed
	fieldSessionLifetimePolicies
	fieldAuthenticationContextClassReferences
	fieldRiskLevelDuringSignIn
	fieldRiskLevelAggregated
	fieldRiskState
	fieldRiskDetail
	fieldRiskEventTypes
	fieldRiskEventTypesV2
	fieldAuthenticationProcessingDetails
	fieldOriginalRequestID
	fieldStatus
	fieldMFADetail
	fieldSignInEventTypes
	// Members that only objects of other kinds hold; they name the kind where no category does.
	fieldActivityDateTime
	fieldRiskEventType
	fieldRiskLastUpdated

	// Members of nested objects.
	fieldErrorCode
	fieldFailureReason
	fieldAdditionalDetails
	fieldDeviceID
	fieldDisplayName
	fieldOperatingSystem
	fieldBrowser
	fieldTrustType
	fieldIsCompliant
	fieldIsManaged
	fieldCity
	fieldState
	fieldCountryOrRegion
	fieldAuthMethod
	fieldGrantControls
	fieldSessionControls
	fieldSessionControlsNotSatisfied
	fieldResult
	fieldConditionsSatisfied
	fieldConditionsNotSatisfied
	fieldAuthenticationStrength
	fieldIncludeRules
	fieldExcludeRules
	fieldStepTime
	fieldMethod
	fieldMethodDetail
	fieldSucceeded
	fieldResultDetail
	fieldRequirement
	fieldStatusSequence
	fieldRequestSequence
	fieldKey
	fieldRequirementProvider
	fieldDetail
	fieldNetworkType
	fieldNetworkNames
	fieldRuleCondition
	fieldRuleSatisfied
	fieldExpirationRequirement
	fieldStrengthResult
)

// shape is the kind of an object inside a record; it selects the table of known members.
type shape uint8

const (
	shapeRecord shape = iota
	shapeStatus
	shapeDevice
	shapeLocation
	shapeMFA
	shapePolicy
	shapeStep
	shapeProcessing
	shapeRequirement
	shapeNetwork
	shapeRule
	shapeContext  // authenticationContextClassReferences
	shapeLifetime // sessionLifetimePolicies
	shapeStrength // authenticationStrengths
	shapeText     // no object: a list of plain strings
	shapeCount
)

// shapeNames stand before the names of unknown members in Decoder.UnknownFields.
var shapeNames = [shapeCount]string{
	shapeStatus: "status.", shapeDevice: "deviceDetail.", shapeLocation: "location.", shapeMFA: "mfaDetail.",
	shapePolicy: "appliedConditionalAccessPolicies.", shapeStep: "authenticationDetails.",
	shapeProcessing: "authenticationProcessingDetails.", shapeRequirement: "authenticationRequirementPolicies.",
	shapeNetwork: "networkLocationDetails.", shapeRule: "rulesSatisfied.", shapeContext: "authenticationContextClassReferences.",
	shapeLifetime: "sessionLifetimePolicies.", shapeStrength: "authenticationStrengths.",
}

// keyTables holds the known members by shape. Names are those of the diagnostic export, of the Log Analytics
// tables and of the Graph resource signIn (beta), as Microsoft's references list them:
// learn.microsoft.com/graph/api/resources/signin, /azure/azure-monitor/reference/tables/signinlogs and the four
// tables AADNonInteractiveUserSignInLogs, AADServicePrincipalSignInLogs, AADManagedIdentitySignInLogs, ADFSSignInLogs.
var keyTables = [shapeCount]keyTable{
	shapeRecord: newKeyTable(map[string]field{
		"records": fieldRecords, "value": fieldValue, "properties": fieldProperties,
		"category": fieldCategory, "type": fieldType, "@odata.type": fieldODataType, "operationname": fieldOperationName,
		"time": fieldTime, "timegenerated": fieldTime, "createddatetime": fieldCreatedDateTime,
		"tenantid": fieldTenantID, "aadtenantid": fieldAADTenantID,
		"resulttype": fieldResultType, "resultsignature": fieldResultSignature, "resultdescription": fieldResultDescription,
		"calleripaddress": fieldCallerIPAddress, "identity": fieldIdentity,
		"location": fieldLocation, "locationdetails": fieldLocation,
		"resourceid": fieldResourceID, "resourceidentity": fieldResourceIdentity,
		"correlationid": fieldCorrelationID, "id": fieldID, "originalrequestid": fieldOriginalRequestID,
		"userdisplayname": fieldUserDisplayName, "userprincipalname": fieldUserPrincipalName, "userid": fieldUserID,
		"usertype": fieldUserType, "signinidentifier": fieldSignInIdentifier, "alternatesigninname": fieldAlternateSignInName,
		"appid": fieldAppID, "appdisplayname": fieldAppDisplayName, "resourcedisplayname": fieldResourceDisplayName,
		"resourcetenantid": fieldResourceTenantID, "hometenantid": fieldHomeTenantID,
		"crosstenantaccesstype": fieldCrossTenantAccessType, "serviceprincipalid": fieldServicePrincipalID,
		"serviceprincipalname": fieldServicePrincipalName, "clientcredentialtype": fieldClientCredentialType,
		"serviceprincipalcredentialkeyid": fieldServicePrincipalCredentialKeyID,
		"federatedcredentialid":           fieldFederatedCredentialID, "redirecturl": fieldRedirectURL,
		"ipaddress": fieldIPAddress, "autonomoussystemnumber": fieldAutonomousSystemNumber,
		"networklocationdetails": fieldNetworkLocationDetails, "clientappused": fieldClientAppUsed, "useragent": fieldUserAgent,
		"authenticationprotocol": fieldAuthenticationProtocol, "incomingtokentype": fieldIncomingTokenType,
		"originaltransfermethod": fieldOriginalTransferMethod, "tokenissuertype": fieldTokenIssuerType, "sessionid": fieldSessionID,
		"devicedetail": fieldDeviceDetail, "isinteractive": fieldIsInteractive, "flaggedforreview": fieldFlaggedForReview,
		"istenantrestricted": fieldIsTenantRestricted, "conditionalaccessstatus": fieldConditionalAccessStatus,
		"appliedconditionalaccesspolicies": fieldPolicies, "conditionalaccesspolicies": fieldPolicies,
		"authenticationrequirement":            fieldAuthenticationRequirement,
		"authenticationrequirementpolicies":    fieldAuthenticationRequirementPolicies,
		"authenticationdetails":                fieldAuthenticationDetails,
		"authenticationstrengths":              fieldAuthenticationStrengths,
		"authenticationmethodsused":            fieldAuthenticationMethodsUsed,
		"sessionlifetimepolicies":              fieldSessionLifetimePolicies,
		"authenticationcontextclassreferences": fieldAuthenticationContextClassReferences,
		"risklevelduringsignin":                fieldRiskLevelDuringSignIn, "risklevelaggregated": fieldRiskLevelAggregated,
		"riskstate": fieldRiskState, "riskdetail": fieldRiskDetail,
		"riskeventtypes": fieldRiskEventTypes, "riskeventtypes_v2": fieldRiskEventTypesV2,
		"authenticationprocessingdetails": fieldAuthenticationProcessingDetails, "status": fieldStatus, "mfadetail": fieldMFADetail,
		"signineventtypes": fieldSignInEventTypes, "activitydatetime": fieldActivityDateTime,
		"riskeventtype": fieldRiskEventType, "risklastupdateddatetime": fieldRiskLastUpdated,

		"operationversion": fieldIgnored, "durationms": fieldIgnored, "duration": fieldIgnored, "level": fieldIgnored,
		"resource": fieldIgnored, "resourcegroup": fieldIgnored, "resourceprovider": fieldIgnored, "sourcesystem": fieldIgnored,
		"_itemid": fieldIgnored, "_internal_workspaceresourceid": fieldIgnored, "_resourceid": fieldIgnored, "_billedsize": fieldIgnored,
		"_isbillable": fieldIgnored, "_subscriptionid": fieldIgnored, "_timereceived": fieldIgnored, "mg": fieldIgnored, "computer": fieldIgnored,
		"eventprocessedutctime": fieldIgnored, "partitionid": fieldIgnored, "eventenqueuedutctime": fieldIgnored,
		"@odata.context": fieldIgnored, "@odata.etag": fieldIgnored, "@odata.id": fieldIgnored, "@odata.nextlink": fieldIgnored, "@odata.count": fieldIgnored,
		"appownertenantid": fieldIgnored, "appserviceprincipalid": fieldIgnored, "sourceappclientid": fieldIgnored, "agent": fieldIgnored,
		"ipaddressfromresourceprovider": fieldIgnored, "globalsecureaccessipaddress": fieldIgnored, "isthroughglobalsecureaccess": fieldIgnored,
		"conditionalaccessaudiences": fieldIgnored, "tokenissuername": fieldIgnored, "processingtimeinmilliseconds": fieldIgnored,
		"processingtimeinms": fieldIgnored, "resourceserviceprincipalid": fieldIgnored, "resourceownertenantid": fieldIgnored,
		"hometenantname": fieldIgnored, "managedserviceidentity": fieldIgnored, "privatelinkdetails": fieldIgnored,
		"ssoextensionversion": fieldIgnored, "uniquetokenidentifier": fieldIgnored, "signintokenprotectionstatus": fieldIgnored,
		"tokenprotectionstatusdetails": fieldIgnored, "apptokenprotectionstatus": fieldIgnored, "appliedeventlisteners": fieldIgnored,
		"useradministrativeunits": fieldIgnored, "rngcstatus": fieldIgnored, "authenticationappdevicedetails": fieldIgnored,
		"authenticationapppolicyevaluationdetails": fieldIgnored, "authenticationapppolicydetails": fieldIgnored,
		"azureresourceid": fieldIgnored, "clientsessionid": fieldIgnored, "serviceprincipalcredentialthumbprint": fieldIgnored,
		"signinidentifiertype": fieldIgnored, "isrisky": fieldIgnored, "result": fieldIgnored, "latitude": fieldIgnored, "longitude": fieldIgnored,
		"additionalproperties": fieldIgnored,
	}),
	shapeStatus: newKeyTable(map[string]field{
		"errorcode": fieldErrorCode, "failurereason": fieldFailureReason, "additionaldetails": fieldAdditionalDetails,
		"additionalproperties": fieldIgnored, "@odata.type": fieldIgnored,
	}),
	shapeDevice: newKeyTable(map[string]field{
		"deviceid": fieldDeviceID, "displayname": fieldDisplayName, "operatingsystem": fieldOperatingSystem, "browser": fieldBrowser,
		"trusttype": fieldTrustType, "iscompliant": fieldIsCompliant, "ismanaged": fieldIsManaged, "browserid": fieldIgnored,
		"additionalproperties": fieldIgnored, "@odata.type": fieldIgnored,
	}),
	shapeLocation: newKeyTable(map[string]field{
		"city": fieldCity, "state": fieldState, "countryorregion": fieldCountryOrRegion, "geocoordinates": fieldIgnored,
		"additionalproperties": fieldIgnored, "@odata.type": fieldIgnored,
	}),
	shapeMFA: newKeyTable(map[string]field{
		"authmethod": fieldAuthMethod, "authdetail": fieldIgnored, "additionalproperties": fieldIgnored, "@odata.type": fieldIgnored,
	}),
	shapePolicy: newKeyTable(map[string]field{
		"id": fieldID, "displayname": fieldDisplayName, "enforcedgrantcontrols": fieldGrantControls,
		"enforcedsessioncontrols": fieldSessionControls, "sessioncontrolsnotsatisfied": fieldSessionControlsNotSatisfied,
		"result": fieldResult, "conditionssatisfied": fieldConditionsSatisfied, "conditionsnotsatisfied": fieldConditionsNotSatisfied,
		"authenticationstrength": fieldAuthenticationStrength, "includerulessatisfied": fieldIncludeRules, "excluderulessatisfied": fieldExcludeRules,
		"additionalproperties": fieldIgnored, "@odata.type": fieldIgnored,
	}),
	shapeStep: newKeyTable(map[string]field{
		"authenticationstepdatetime": fieldStepTime, "authenticationmethod": fieldMethod, "authenticationmethoddetail": fieldMethodDetail,
		"succeeded": fieldSucceeded, "authenticationstepresultdetail": fieldResultDetail,
		"authenticationsteprequirement": fieldRequirement, "statussequence": fieldStatusSequence, "requestsequence": fieldRequestSequence,
		"additionalproperties": fieldIgnored, "@odata.type": fieldIgnored,
	}),
	shapeProcessing: newKeyTable(map[string]field{"key": fieldKey, "value": fieldValue, "additionalproperties": fieldIgnored}),
	shapeRequirement: newKeyTable(map[string]field{
		"requirementprovider": fieldRequirementProvider, "detail": fieldDetail, "additionalproperties": fieldIgnored,
	}),
	shapeNetwork: newKeyTable(map[string]field{
		"networktype": fieldNetworkType, "networknames": fieldNetworkNames, "additionalproperties": fieldIgnored,
	}),
	shapeRule: newKeyTable(map[string]field{
		"conditionalaccesscondition": fieldRuleCondition, "rulesatisfied": fieldRuleSatisfied, "additionalproperties": fieldIgnored,
	}),
	shapeContext:  newKeyTable(map[string]field{"id": fieldID, "detail": fieldDetail, "details": fieldDetail, "additionalproperties": fieldIgnored}),
	shapeLifetime: newKeyTable(map[string]field{"expirationrequirement": fieldExpirationRequirement, "detail": fieldIgnored, "additionalproperties": fieldIgnored}),
	shapeStrength: newKeyTable(map[string]field{
		"displayname": fieldDisplayName, "name": fieldDisplayName, "authenticationstrengthid": fieldID, "id": fieldID,
		"authenticationstrengthresult": fieldStrengthResult, "result": fieldStrengthResult, "additionalproperties": fieldIgnored,
	}),
	shapeText: newKeyTable(nil),
}

// KnownMember reports whether name is a member of a sign-in record in any dialect, without regard to case. Readers
// of tabular exports recognise their columns by it.
func KnownMember(name string) bool {
	return keyTables[shapeRecord].find(aliasBytes(name)) != fieldUnknown
}

// pool keeps messages of one type for use in the next record. The Decoder owns them; the slices of
// SignIn point into it, so a caller may reorder or shorten those slices freely.
type pool[T any] struct {
	items []*T
	used  int
}

func (p *pool[T]) next() *T {
	if p.used == len(p.items) {
		p.items = append(p.items, new(T))
	}
	p.used++
	return p.items[p.used-1]
}

// scratch is what a record says beyond the fields of SignIn; finish reads it.
type scratch struct {
	category, typ, odataType, operationName       string
	eventTime, processingTime                     string
	tenant, aadTenant, innerTenant, resourcePath  string
	resultType, resultSignature, resultDescriptor string
	statusWord                                    string
	callerIPAddress, identity, country            string
	alternateSignInName                           string
	mfaMethod                                     string
	otherShape                                    string
	errorCode                                     int64
	hasErrorCode                                  bool
	sawProperties, sawPolicies                    bool
	flags                                         uint32
}

// reset makes the decoder ready for the next record; it keeps all memory.
func (d *Decoder) reset() {
	s := &d.signIn
	networks, policies, requirements := s.NetworkLocationDetails[:0], s.Policies[:0], s.AuthenticationRequirementPolicies[:0]
	steps, processing := s.AuthenticationDetails[:0], s.AuthenticationProcessingDetails[:0]
	strengths, methods, lifetimes := s.AuthenticationStrengths[:0], s.AuthenticationMethodsUsed[:0], s.SessionLifetimePolicies[:0]
	contexts, risks := s.AuthenticationContextClassReferences[:0], s.RiskEventTypes[:0]
	s.Reset()
	s.NetworkLocationDetails, s.Policies, s.AuthenticationRequirementPolicies = networks, policies, requirements
	s.AuthenticationDetails, s.AuthenticationProcessingDetails = steps, processing
	s.AuthenticationStrengths, s.AuthenticationMethodsUsed, s.SessionLifetimePolicies = strengths, methods, lifetimes
	s.AuthenticationContextClassReferences, s.RiskEventTypes = contexts, risks
	d.policies.used, d.steps.used, d.processing.used, d.requirements.used, d.networks.used, d.rules.used = 0, 0, 0, 0, 0, 0
	d.scratch = scratch{}
	d.riskEventTypesV1, d.signInEventTypes = d.riskEventTypesV1[:0], d.signInEventTypes[:0]
	d.unknownMembers = d.unknownMembers[:0]
	d.other = false
	d.arena = d.arena[:0]
	d.envelope = -1
	d.embedded = 0
}

func (d *Decoder) mistyped() { d.scratch.flags |= FlagMistypedFields }

// string reads a JSON string at the cursor. The result aliases the text, or the arena where the string
// holds escapes or invalid UTF-8.
func (d *Decoder) string(c *cursor) (string, bool) {
	var t text
	if !c.str(&t) {
		return "", false
	}
	return d.decoded(&t), true
}

func (d *Decoder) decoded(t *text) string {
	if !t.escaped && (!t.nonASCII || utf8.Valid(t.raw)) {
		return alias(t.raw)
	}
	start := len(d.arena)
	d.arena = appendUnescaped(d.arena, t.raw)
	return alias(d.arena[start:])
}

// keep returns the arena's end as a string, for text that was appended from start on.
func (d *Decoder) keep(start int) string { return alias(d.arena[start:]) }

// text reads a value into *dst. A repeated member counts where it is not empty, the last one wins. weak leaves
// a value that stands already: what stands beside properties only fills what properties left empty.
func (d *Decoder) text(c *cursor, dst *string, weak bool) bool {
	s, ok := d.scalarText(c)
	if ok && s != "" && !(weak && *dst != "") {
		*dst = s
	}
	return ok
}

// scalarText reads a value of any kind as text: strings as they are, numbers and booleans by their JSON
// text, arrays by their first string, null and objects as "".
func (d *Decoder) scalarText(c *cursor) (string, bool) {
	switch first := c.peek(); first {
	case '"':
		return d.string(c)
	case 'n':
		return "", c.literal("null")
	case '[':
		d.mistyped()
		found := ""
		if !c.enter() {
			return "", false
		}
		for more := c.firstElement(); more; more = c.nextElement() {
			if found == "" && c.peek() == '"' {
				var ok bool
				if found, ok = d.string(c); !ok {
					return "", false
				}
			} else if !c.skip() {
				return "", false
			}
		}
		return found, c.left()
	case '{':
		d.mistyped()
		return "", c.skip()
	default:
		d.mistyped()
		start := c.p
		if !c.scalar(first) {
			return "", false
		}
		return alias(c.b[start:c.p]), true
	}
}

// integer reads a whole number, written as a number or as text; found is false for null, "" and anything else.
func (d *Decoder) integer(c *cursor) (n int64, found, ok bool) {
	switch first := c.peek(); first {
	case '"':
		s, ok := d.string(c)
		if !ok {
			return 0, false, false
		}
		n, found = d.integerOf(s)
		return n, found, true
	case 'n':
		return 0, false, c.literal("null")
	case '{', '[', 't', 'f':
		d.mistyped()
		return 0, false, c.skip()
	default:
		raw, ok := c.number()
		if !ok {
			return 0, false, false
		}
		n, found = d.integerOf(alias(raw))
		return n, found, true
	}
}

// integerOf reads a whole number from text; it marks text that is none, other than "", as mistyped.
func (d *Decoder) integerOf(s string) (int64, bool) {
	s = trimSpace(s)
	if s == "" {
		return 0, false
	}
	var n int64
	plain := len(s) <= 18
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= '0' && s[i] <= '9'
		n = n*10 + int64(s[i]&0x0f)
	}
	if plain {
		return n, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		d.mistyped()
		return 0, false
	}
	return int64(f), true
}

// tri reads a boolean, also from the texts true/false, yes/no and 1/0.
func (d *Decoder) tri(c *cursor, dst *Tri, weak bool) bool {
	value := Tri_TRI_UNKNOWN
	switch first := c.peek(); first {
	case 't':
		if !c.literal("true") {
			return false
		}
		value = Tri_TRI_TRUE
	case 'f':
		if !c.literal("false") {
			return false
		}
		value = Tri_TRI_FALSE
	case 'n':
		return c.literal("null")
	case '"':
		s, ok := d.string(c)
		if !ok {
			return false
		}
		value = d.triOf(s)
	case '{', '[':
		d.mistyped()
		return c.skip()
	default:
		raw, ok := c.number()
		if !ok {
			return false
		}
		value = d.triOf(alias(raw))
	}
	d.setTri(dst, value, weak)
	return true
}

func (d *Decoder) setTri(dst *Tri, value Tri, weak bool) {
	if value != Tri_TRI_UNKNOWN && !(weak && *dst != Tri_TRI_UNKNOWN) {
		*dst = value
	}
}

func (d *Decoder) triOf(s string) Tri {
	switch s = trimSpace(s); {
	case s == "":
		return Tri_TRI_UNKNOWN
	case s == "1" || strings.EqualFold(s, "true") || strings.EqualFold(s, "yes"):
		return Tri_TRI_TRUE
	case s == "0" || strings.EqualFold(s, "false") || strings.EqualFold(s, "no"):
		return Tri_TRI_FALSE
	}
	d.mistyped()
	return Tri_TRI_UNKNOWN
}

// yes reads a boolean that is false where it is absent.
func (d *Decoder) yes(c *cursor, dst *bool, weak bool) bool {
	value := Tri_TRI_UNKNOWN
	if *dst {
		value = Tri_TRI_TRUE
	}
	if !d.tri(c, &value, weak) {
		return false
	}
	*dst = value == Tri_TRI_TRUE
	return true
}

// maxEmbedded bounds JSON inside strings inside JSON. Log Analytics needs one level, a forwarded record two.
const maxEmbedded = 3

// open returns a cursor over JSON that stands inside a string, or over Python literal text of the same
// meaning, which notebooks make of dynamic columns. ok is false where it is neither.
func (d *Decoder) open(s string, parent *cursor) (sub cursor, ok bool) {
	if d.embedded >= maxEmbedded {
		return cursor{}, false
	}
	sub = cursor{b: aliasBytes(s), depth: parent.depth}
	if sub.whole() {
		return cursor{b: sub.b, depth: parent.depth}, true
	}
	start := len(d.arena)
	arena, ok := appendPythonAsJSON(d.arena, s)
	if !ok {
		return cursor{}, false
	}
	d.arena = arena
	sub = cursor{b: d.arena[start:], depth: parent.depth}
	if !sub.whole() {
		return cursor{}, false
	}
	return cursor{b: sub.b, depth: parent.depth}, true
}

// whole reports whether the text is exactly one JSON value.
func (c *cursor) whole() bool {
	if !c.skip() {
		return false
	}
	c.ws()
	return c.p == len(c.b)
}

// opensJSON reports whether text begins like a JSON object or array.
func opensJSON(s string) bool { return s != "" && (s[0] == '{' || s[0] == '[') }

// object reads a nested object, also from a string that holds it. Other values leave the target as it is;
// a string that is no JSON is returned as word.
func (d *Decoder) object(c *cursor, kind shape, weak bool) (word string, ok bool) {
	switch first := c.peek(); first {
	case '{':
		return "", d.members(c, kind, weak)
	case '"':
		s, ok := d.string(c)
		if !ok {
			return "", false
		}
		trimmed := trimSpace(s)
		if !opensJSON(trimmed) {
			return s, true
		}
		sub, ok := d.open(trimmed, c)
		if !ok || sub.peek() != '{' {
			d.mistyped()
			return "", true
		}
		d.embedded++
		_, ok = d.object(&sub, kind, weak)
		d.embedded--
		return "", ok
	case 'n':
		return "", c.literal("null")
	default:
		d.mistyped()
		return "", c.skip()
	}
}

// texts reads a list of strings: an array, a string holding an array, or comma-separated names.
// Objects in it give one string each, by kind. A list that holds nothing leaves *dst as it is.
func (d *Decoder) texts(c *cursor, dst *[]string, kind shape, weak bool) bool {
	if weak && len(*dst) > 0 {
		return c.skip()
	}
	fresh := true
	return d.textsInto(c, dst, kind, &fresh)
}

func appendFresh(dst *[]string, s string, fresh *bool) {
	if s == "" {
		return
	}
	if *fresh {
		*dst = (*dst)[:0]
		*fresh = false
	}
	*dst = append(*dst, s)
}

func (d *Decoder) textsInto(c *cursor, dst *[]string, kind shape, fresh *bool) bool {
	switch first := c.peek(); first {
	case 'n':
		return c.literal("null")
	case '"':
		s, ok := d.string(c)
		if !ok {
			return false
		}
		trimmed := trimSpace(s)
		if opensJSON(trimmed) {
			sub, ok := d.open(trimmed, c)
			if !ok {
				d.mistyped()
				return true
			}
			d.embedded++
			ok = d.textsInto(&sub, dst, kind, fresh)
			d.embedded--
			return ok
		}
		for more := trimmed != ""; more; {
			var part string
			part, trimmed, more = strings.Cut(trimmed, ",")
			appendFresh(dst, trimSpace(part), fresh)
		}
		return true
	case '{':
		s, ok := d.one(c, kind)
		appendFresh(dst, s, fresh)
		return ok
	case '[':
		if !c.enter() {
			return false
		}
		for more := c.firstElement(); more; more = c.nextElement() {
			var s string
			var ok bool
			switch c.peek() {
			case '"':
				s, ok = d.string(c)
			case '{':
				s, ok = d.one(c, kind)
			case '[':
				d.mistyped()
				ok = c.skip()
			default:
				s, ok = d.scalarText(c)
			}
			if !ok {
				return false
			}
			appendFresh(dst, s, fresh)
		}
		return c.left()
	default:
		s, ok := d.scalarText(c)
		appendFresh(dst, s, fresh)
		return ok
	}
}

// one reads an object that stands for one string of a list: "id detail" for an authentication context,
// the requirement for a session lifetime policy, "name (result)" for an authentication strength.
func (d *Decoder) one(c *cursor, kind shape) (string, bool) {
	if kind == shapeText {
		d.mistyped()
		return "", c.skip()
	}
	var id, name, detail string
	if !c.enter() {
		return "", false
	}
	var key text
	for more := c.firstMember(&key); more; more = c.nextMember(&key) {
		var ok bool
		switch d.find(&key, kind) {
		case fieldID:
			ok = d.text(c, &id, false)
		case fieldDisplayName, fieldExpirationRequirement:
			ok = d.text(c, &name, false)
		case fieldDetail, fieldStrengthResult:
			ok = d.text(c, &detail, false)
		default:
			ok = c.skip()
		}
		if !ok {
			return "", false
		}
	}
	if !c.left() {
		return "", false
	}
	return d.oneOf(kind, id, name, detail), true
}

func (d *Decoder) oneOf(kind shape, id, name, detail string) string {
	start := len(d.arena)
	switch kind {
	case shapeContext:
		if detail == "" || id == "" {
			return id
		}
		d.arena = append(append(append(d.arena, id...), ' '), detail...)
	case shapeStrength:
		if name == "" {
			name = id
		}
		if detail == "" || name == "" {
			return name
		}
		d.arena = append(append(append(append(d.arena, name...), " ("...), detail...), ')')
	default:
		return name
	}
	return d.keep(start)
}

// find looks a member up and counts it where it is unknown.
func (d *Decoder) find(key *text, kind shape) field {
	name := key.raw
	if key.escaped {
		name = aliasBytes(d.decoded(key))
	}
	id := keyTables[kind].find(name)
	if len(name) > 0 {
		d.initial = name[0]
	}
	if id == fieldUnknown {
		if !key.escaped && key.nonASCII {
			name = aliasBytes(d.decoded(key))
		}
		d.unknown(kind, name)
	}
	return id
}

// list reads an array of objects into the slice of SignIn that kind stands for; also a string holding
// the array, or a single object. A list without entries leaves what stands.
func (d *Decoder) list(c *cursor, kind shape, owner *Policy, include, weak bool) bool {
	if weak && d.listLen(kind) > 0 {
		return c.skip()
	}
	fresh := true
	return d.listInto(c, kind, owner, include, &fresh)
}

func (d *Decoder) listLen(kind shape) int {
	s := &d.signIn
	switch kind {
	case shapePolicy:
		return len(s.Policies)
	case shapeStep:
		return len(s.AuthenticationDetails)
	case shapeProcessing:
		return len(s.AuthenticationProcessingDetails)
	case shapeRequirement:
		return len(s.AuthenticationRequirementPolicies)
	default:
		return len(s.NetworkLocationDetails)
	}
}

func (d *Decoder) listInto(c *cursor, kind shape, owner *Policy, include bool, fresh *bool) bool {
	switch first := c.peek(); first {
	case 'n':
		return c.literal("null")
	case '{':
		return d.element(c, kind, owner, include, fresh)
	case '[':
		if !c.enter() {
			return false
		}
		for more := c.firstElement(); more; more = c.nextElement() {
			ok := true
			switch c.peek() {
			case '{':
				ok = d.element(c, kind, owner, include, fresh)
			case 'n':
				ok = c.literal("null")
			default:
				d.mistyped()
				ok = c.skip()
			}
			if !ok {
				return false
			}
		}
		return c.left()
	case '"':
		s, ok := d.string(c)
		if !ok {
			return false
		}
		trimmed := trimSpace(s)
		if trimmed == "" {
			return true
		}
		if !opensJSON(trimmed) {
			d.mistyped()
			return true
		}
		sub, ok := d.open(trimmed, c)
		if !ok {
			d.mistyped()
			return true
		}
		d.embedded++
		ok = d.listInto(&sub, kind, owner, include, fresh)
		d.embedded--
		return ok
	default:
		d.mistyped()
		return c.skip()
	}
}

// element appends one entry to the list that kind stands for.
func (d *Decoder) element(c *cursor, kind shape, owner *Policy, include bool, fresh *bool) bool {
	e := d.add(kind, owner, include, *fresh)
	*fresh = false
	if !c.enter() {
		return false
	}
	var key text
	for more := c.firstMember(&key); more; more = c.nextMember(&key) {
		id := d.find(&key, kind)
		ok := true
		switch kind {
		case shapePolicy:
			ok = d.policyMember(c, e.policy, id)
		case shapeStep:
			ok = d.stepMember(c, e.step, id)
		case shapeProcessing:
			switch id {
			case fieldKey:
				ok = d.text(c, &e.processing.Key, false)
			case fieldValue:
				ok = d.plainText(c, &e.processing.Value)
			default:
				ok = c.skip()
			}
		case shapeRequirement:
			switch id {
			case fieldRequirementProvider:
				ok = d.text(c, &e.requirement.RequirementProvider, false)
			case fieldDetail:
				ok = d.text(c, &e.requirement.Detail, false)
			default:
				ok = c.skip()
			}
		case shapeNetwork:
			switch id {
			case fieldNetworkType:
				ok = d.text(c, &e.network.NetworkType, false)
			case fieldNetworkNames:
				ok = d.texts(c, &e.network.NetworkNames, shapeText, false)
			default:
				ok = c.skip()
			}
		case shapeRule:
			switch id {
			case fieldRuleCondition:
				ok = d.text(c, &e.rule.ConditionalAccessCondition, false)
			case fieldRuleSatisfied:
				ok = d.text(c, &e.rule.RuleSatisfied, false)
			default:
				ok = c.skip()
			}
		}
		if !ok {
			return false
		}
	}
	return c.left()
}

// plainText reads a value that some exporters write as a boolean or number without a fault of theirs.
func (d *Decoder) plainText(c *cursor, dst *string) bool {
	flags := d.scratch.flags
	first := c.peek()
	ok := d.text(c, dst, false)
	if first != '[' && first != '{' {
		d.scratch.flags = flags
	}
	return ok
}

// entry is a freshly added list entry; the member of its kind is set.
type entry struct {
	policy      *Policy
	step        *AuthenticationStep
	processing  *ProcessingDetail
	requirement *RequirementPolicy
	network     *NetworkLocation
	rule        *Rule
}

// add takes an entry from the pool of its kind and appends it to its list; fresh empties the list first.
func (d *Decoder) add(kind shape, owner *Policy, include, fresh bool) (e entry) {
	s := &d.signIn
	switch kind {
	case shapePolicy:
		if fresh {
			s.Policies = s.Policies[:0]
		}
		p := d.policies.next()
		p.Id, p.DisplayName, p.Result, p.AuthenticationStrength = "", "", "", ""
		p.EnforcedGrantControls, p.EnforcedSessionControls = p.EnforcedGrantControls[:0], p.EnforcedSessionControls[:0]
		p.SessionControlsNotSatisfied = p.SessionControlsNotSatisfied[:0]
		p.ConditionsSatisfied, p.ConditionsNotSatisfied = 0, 0
		p.IncludeRulesSatisfied, p.ExcludeRulesSatisfied = p.IncludeRulesSatisfied[:0], p.ExcludeRulesSatisfied[:0]
		s.Policies = append(s.Policies, p)
		e.policy = p
	case shapeStep:
		if fresh {
			s.AuthenticationDetails = s.AuthenticationDetails[:0]
		}
		p := d.steps.next()
		p.Time, p.Method, p.MethodDetail, p.Succeeded, p.ResultDetail, p.Requirement = 0, "", "", Tri_TRI_UNKNOWN, "", ""
		p.StatusSequence, p.RequestSequence = 0, 0
		s.AuthenticationDetails = append(s.AuthenticationDetails, p)
		e.step = p
	case shapeProcessing:
		if fresh {
			s.AuthenticationProcessingDetails = s.AuthenticationProcessingDetails[:0]
		}
		p := d.processing.next()
		p.Key, p.Value = "", ""
		s.AuthenticationProcessingDetails = append(s.AuthenticationProcessingDetails, p)
		e.processing = p
	case shapeRequirement:
		if fresh {
			s.AuthenticationRequirementPolicies = s.AuthenticationRequirementPolicies[:0]
		}
		p := d.requirements.next()
		p.RequirementProvider, p.Detail = "", ""
		s.AuthenticationRequirementPolicies = append(s.AuthenticationRequirementPolicies, p)
		e.requirement = p
	case shapeNetwork:
		if fresh {
			s.NetworkLocationDetails = s.NetworkLocationDetails[:0]
		}
		p := d.networks.next()
		p.NetworkType, p.NetworkNames = "", p.NetworkNames[:0]
		s.NetworkLocationDetails = append(s.NetworkLocationDetails, p)
		e.network = p
	case shapeRule:
		rules := &owner.ExcludeRulesSatisfied
		if include {
			rules = &owner.IncludeRulesSatisfied
		}
		if fresh {
			*rules = (*rules)[:0]
		}
		p := d.rules.next()
		p.ConditionalAccessCondition, p.RuleSatisfied = "", ""
		*rules = append(*rules, p)
		e.rule = p
	}
	return e
}

func (d *Decoder) policyMember(c *cursor, p *Policy, id field) bool {
	switch id {
	case fieldID:
		return d.text(c, &p.Id, false)
	case fieldDisplayName:
		return d.text(c, &p.DisplayName, false)
	case fieldResult:
		return d.text(c, &p.Result, false)
	case fieldGrantControls:
		return d.texts(c, &p.EnforcedGrantControls, shapeText, false)
	case fieldSessionControls:
		return d.texts(c, &p.EnforcedSessionControls, shapeText, false)
	case fieldSessionControlsNotSatisfied:
		return d.texts(c, &p.SessionControlsNotSatisfied, shapeText, false)
	case fieldConditionsSatisfied:
		return d.conditions(c, &p.ConditionsSatisfied)
	case fieldConditionsNotSatisfied:
		return d.conditions(c, &p.ConditionsNotSatisfied)
	case fieldAuthenticationStrength:
		if c.peek() == '{' {
			s, ok := d.one(c, shapeStrength)
			if s != "" {
				p.AuthenticationStrength = s
			}
			return ok
		}
		return d.text(c, &p.AuthenticationStrength, false)
	case fieldIncludeRules:
		return d.list(c, shapeRule, p, true, false)
	case fieldExcludeRules:
		return d.list(c, shapeRule, p, false, false)
	}
	return c.skip()
}

func (d *Decoder) stepMember(c *cursor, p *AuthenticationStep, id field) bool {
	switch id {
	case fieldStepTime:
		var s string
		if !d.text(c, &s, false) {
			return false
		}
		d.setStepTime(p, s)
		return true
	case fieldMethod:
		return d.text(c, &p.Method, false)
	case fieldMethodDetail:
		return d.text(c, &p.MethodDetail, false)
	case fieldSucceeded:
		return d.tri(c, &p.Succeeded, false)
	case fieldResultDetail:
		return d.text(c, &p.ResultDetail, false)
	case fieldRequirement:
		return d.text(c, &p.Requirement, false)
	case fieldStatusSequence:
		n, found, ok := d.integer(c)
		if found {
			p.StatusSequence = n
		}
		return ok
	case fieldRequestSequence:
		n, found, ok := d.integer(c)
		if found {
			p.RequestSequence = n
		}
		return ok
	}
	return c.skip()
}

func (d *Decoder) setStepTime(p *AuthenticationStep, s string) {
	if s == "" {
		return
	}
	if micros, ok := ParseTime(s); ok {
		p.Time = micros
	} else {
		d.mistyped()
	}
}

// conditions reads a condition set: an integer mask (diagnostic export), comma-separated names (Graph) or
// an array of names.
func (d *Decoder) conditions(c *cursor, dst *uint32) bool {
	switch first := c.peek(); first {
	case '"':
		s, ok := d.string(c)
		if ok {
			d.addConditions(dst, s, true)
		}
		return ok
	case 'n':
		return c.literal("null")
	case '[':
		if !c.enter() {
			return false
		}
		replace := true
		for more := c.firstElement(); more; more = c.nextElement() {
			if c.peek() != '"' {
				d.mistyped()
				if !c.skip() {
					return false
				}
				continue
			}
			s, ok := d.string(c)
			if !ok {
				return false
			}
			d.addConditions(dst, s, replace)
			replace = false
		}
		return c.left()
	case '{', 't', 'f':
		d.mistyped()
		return c.skip()
	default:
		raw, ok := c.number()
		if !ok {
			return false
		}
		d.setMask(dst, alias(raw))
		return true
	}
}

func (d *Decoder) setMask(dst *uint32, s string) {
	n, found := d.integerOf(s)
	if found && (n < 0 || n > math.MaxUint32) {
		d.mistyped()
	} else if found {
		*dst = uint32(n)
	}
}

// conditionTable finds the bit of a condition name, ignoring case.
var conditionTable = func() keyTable {
	keys := make(map[string]field, len(ConditionNames))
	for i, c := range ConditionNames {
		keys[strings.ToLower(c.Name)] = field(i + 1)
	}
	return newKeyTable(keys)
}()

// addConditions adds the conditions named in s; replace clears the set before the first of them.
func (d *Decoder) addConditions(dst *uint32, s string, replace bool) {
	s = trimSpace(s)
	if s == "" {
		return
	}
	if s[0] >= '0' && s[0] <= '9' {
		d.setMask(dst, s)
		return
	}
	var set uint32
	for more := true; more; {
		var name string
		name, s, more = strings.Cut(s, ",")
		name = trimSpace(name)
		if i := conditionTable.find(aliasBytes(name)); i != fieldUnknown {
			set |= ConditionNames[i-1].Bit
		} else if name != "" && !strings.EqualFold(name, "none") && !strings.EqualFold(name, "unknownFutureValue") {
			d.mistyped()
		}
	}
	if replace {
		*dst = set
	} else {
		*dst |= set
	}
}

// members reads an object whose members belong to SignIn itself: the record, its properties, status,
// device, location. weak says that existing values stay.
func (d *Decoder) members(c *cursor, kind shape, weak bool) bool {
	if !c.enter() {
		return false
	}
	s := &d.signIn
	var key text
	for more := c.firstMember(&key); more; more = c.nextMember(&key) {
		ok := true
		switch d.find(&key, kind) {
		case fieldErrorCode:
			var n int64
			var found bool
			n, found, ok = d.integer(c)
			d.setErrorCode(n, found, weak)
		case fieldFailureReason:
			ok = d.text(c, &s.FailureReason, weak)
		case fieldAdditionalDetails:
			ok = d.text(c, &s.AdditionalDetails, weak)
		case fieldDeviceID:
			ok = d.text(c, &s.DeviceId, weak)
		case fieldDisplayName:
			ok = d.text(c, &s.DeviceDisplayName, weak)
		case fieldOperatingSystem:
			ok = d.text(c, &s.OperatingSystem, weak)
		case fieldBrowser:
			ok = d.text(c, &s.Browser, weak)
		case fieldTrustType:
			ok = d.text(c, &s.TrustType, weak)
		case fieldIsCompliant:
			ok = d.tri(c, &s.IsCompliant, weak)
		case fieldIsManaged:
			ok = d.tri(c, &s.IsManaged, weak)
		case fieldCity:
			ok = d.text(c, &s.City, weak)
		case fieldState:
			ok = d.text(c, &s.State, weak)
		case fieldCountryOrRegion:
			ok = d.text(c, &s.CountryOrRegion, weak)
		case fieldAuthMethod:
			ok = d.text(c, &d.scratch.mfaMethod, weak)
		default:
			ok = c.skip()
		}
		if !ok {
			return false
		}
	}
	return c.left()
}

func (d *Decoder) setErrorCode(n int64, found, weak bool) {
	r := &d.scratch
	if !found || weak && r.hasErrorCode {
		return
	}
	if n < math.MinInt32 || n > math.MaxInt32 {
		d.mistyped()
		return
	}
	r.errorCode, r.hasErrorCode = n, true
}

// record reads a record object. inner says that it is the value of properties. Members of the envelope stay
// apart where they mean something else than the same name inside.
func (d *Decoder) record(c *cursor, inner bool) bool {
	if !c.enter() {
		return false
	}
	r := &d.scratch
	var key text
	for more := c.firstMember(&key); more; more = c.nextMember(&key) {
		id := d.find(&key, shapeRecord)
		initial := d.initial
		ok := true
		if id >= fieldAADTenantID {
			if d.other {
				ok = c.skip()
			} else {
				ok = d.signInMember(c, id, inner)
			}
		} else {
			switch id {
			case fieldRecords, fieldValue:
				if first := c.peek(); !inner && d.embedded == 0 && c.depth == 1 && (first == '[' || first == '{' && id == fieldRecords) {
					d.envelope = c.p
					return true
				}
				ok = c.skip()
			case fieldProperties:
				if inner || d.other {
					ok = c.skip()
				} else {
					ok = d.properties(c)
				}
			case fieldCategory:
				ok = d.text(c, &r.category, inner)
				if !inner && initial == 'c' && r.category != "" {
					_, known := categoryOf(r.category)
					d.other = !known
				}
			case fieldType:
				// Log shippers add a member "type" of their own; the column of Log Analytics is "Type".
				if initial == 'T' {
					ok = d.text(c, &r.typ, inner)
				} else {
					ok = c.skip()
				}
			case fieldODataType:
				ok = d.text(c, &r.odataType, inner)
			case fieldOperationName:
				ok = d.text(c, &r.operationName, inner)
			case fieldTime:
				ok = d.text(c, &r.processingTime, inner)
			case fieldTenantID:
				switch {
				case inner:
					ok = d.text(c, &r.innerTenant, false)
				case initial == 't':
					ok = d.text(c, &r.tenant, false)
				default:
					// TenantId is the workspace in Log Analytics.
					ok = c.skip()
				}
			default:
				ok = c.skip()
			}
		}
		if !ok {
			return false
		}
	}
	return c.left()
}

// properties reads the member properties, an object or a string holding one.
func (d *Decoder) properties(c *cursor) bool {
	r := &d.scratch
	switch first := c.peek(); first {
	case '{':
		r.sawProperties = true
		return d.record(c, true)
	case '"':
		s, ok := d.string(c)
		if !ok {
			return false
		}
		trimmed := trimSpace(s)
		if trimmed == "" {
			return true
		}
		sub, ok := d.open(trimmed, c)
		if !ok || sub.peek() != '{' {
			d.mistyped()
			return true
		}
		r.sawProperties = true
		d.embedded++
		ok = d.record(&sub, true)
		d.embedded--
		return ok
	case 'n':
		return c.literal("null")
	default:
		d.mistyped()
		return c.skip()
	}
}

// signInMember reads one member of a sign-in.
func (d *Decoder) signInMember(c *cursor, id field, inner bool) bool {
	s, r := &d.signIn, &d.scratch
	weak := !inner && r.sawProperties
	switch id {
	case fieldAADTenantID:
		return d.text(c, &r.aadTenant, weak)
	case fieldResultType:
		return d.plainText(c, &r.resultType)
	case fieldResultSignature:
		return d.plainText(c, &r.resultSignature)
	case fieldResultDescription:
		return d.text(c, &r.resultDescriptor, weak)
	case fieldCallerIPAddress:
		return d.text(c, &r.callerIPAddress, weak)
	case fieldIdentity:
		return d.text(c, &r.identity, weak)
	case fieldLocation:
		word, ok := d.object(c, shapeLocation, weak)
		if word != "" {
			r.country = word
		}
		return ok
	case fieldResourceID:
		if inner {
			return d.text(c, &s.ResourceId, false)
		}
		var id string
		if !d.text(c, &id, false) {
			return false
		}
		d.setOuterResourceID(id)
		return true
	case fieldResourceIdentity:
		return d.text(c, &s.ResourceId, false)
	case fieldCorrelationID:
		return d.text(c, &s.CorrelationId, weak)
	case fieldID:
		return d.text(c, &s.RequestId, weak)
	case fieldOriginalRequestID:
		return d.text(c, &s.OriginalRequestId, weak)
	case fieldCreatedDateTime:
		return d.text(c, &r.eventTime, weak)
	case fieldUserDisplayName:
		return d.text(c, &s.UserDisplayName, weak)
	case fieldUserPrincipalName:
		return d.text(c, &s.UserPrincipalName, weak)
	case fieldUserID:
		return d.text(c, &s.UserId, weak)
	case fieldUserType:
		return d.text(c, &s.UserType, weak)
	case fieldSignInIdentifier:
		return d.text(c, &s.SignInIdentifier, weak)
	case fieldAlternateSignInName:
		return d.text(c, &r.alternateSignInName, weak)
	case fieldAppID:
		return d.text(c, &s.AppId, weak)
	case fieldAppDisplayName:
		return d.text(c, &s.AppDisplayName, weak)
	case fieldResourceDisplayName:
		return d.text(c, &s.ResourceDisplayName, weak)
	case fieldResourceTenantID:
		return d.text(c, &s.ResourceTenantId, weak)
	case fieldHomeTenantID:
		return d.text(c, &s.HomeTenantId, weak)
	case fieldCrossTenantAccessType:
		return d.text(c, &s.CrossTenantAccessType, weak)
	case fieldServicePrincipalID:
		return d.text(c, &s.ServicePrincipalId, weak)
	case fieldServicePrincipalName:
		return d.text(c, &s.ServicePrincipalName, weak)
	case fieldClientCredentialType:
		return d.text(c, &s.ClientCredentialType, weak)
	case fieldServicePrincipalCredentialKeyID:
		return d.text(c, &s.ServicePrincipalCredentialKeyId, weak)
	case fieldFederatedCredentialID:
		return d.text(c, &s.FederatedCredentialId, weak)
	case fieldRedirectURL:
		return d.text(c, &s.RedirectUrl, weak)
	case fieldIPAddress:
		return d.text(c, &s.IpAddress, weak)
	case fieldAutonomousSystemNumber:
		n, found, ok := d.integer(c)
		d.setNetwork(n, found, weak)
		return ok
	case fieldNetworkLocationDetails:
		return d.list(c, shapeNetwork, nil, false, weak)
	case fieldClientAppUsed:
		return d.text(c, &s.ClientAppUsed, weak)
	case fieldUserAgent:
		return d.text(c, &s.UserAgent, weak)
	case fieldAuthenticationProtocol:
		return d.text(c, &s.AuthenticationProtocol, weak)
	case fieldIncomingTokenType:
		return d.text(c, &s.IncomingTokenType, weak)
	case fieldOriginalTransferMethod:
		return d.text(c, &s.OriginalTransferMethod, weak)
	case fieldTokenIssuerType:
		return d.text(c, &s.TokenIssuerType, weak)
	case fieldSessionID:
		return d.text(c, &s.SessionId, weak)
	case fieldDeviceDetail:
		word, ok := d.object(c, shapeDevice, weak)
		if word != "" {
			d.mistyped()
		}
		return ok
	case fieldIsInteractive:
		return d.tri(c, &s.IsInteractive, weak)
	case fieldFlaggedForReview:
		return d.yes(c, &s.FlaggedForReview, weak)
	case fieldIsTenantRestricted:
		return d.yes(c, &s.IsTenantRestricted, weak)
	case fieldConditionalAccessStatus:
		return d.text(c, &s.ConditionalAccessStatus, weak)
	case fieldPolicies:
		switch c.peek() {
		case '[', '{':
			r.sawPolicies = true
		case '"':
			// A string is a list where it holds one; an empty column says nothing.
			if c.p+2 < len(c.b) && c.b[c.p+1] != '"' {
				r.sawPolicies = true
			}
		}
		return d.list(c, shapePolicy, nil, false, weak)
	case fieldAuthenticationRequirement:
		return d.text(c, &s.AuthenticationRequirement, weak)
	case fieldAuthenticationRequirementPolicies:
		return d.list(c, shapeRequirement, nil, false, weak)
	case fieldAuthenticationDetails:
		return d.list(c, shapeStep, nil, false, weak)
	case fieldAuthenticationStrengths:
		return d.texts(c, &s.AuthenticationStrengths, shapeStrength, weak)
	case fieldAuthenticationMethodsUsed:
		return d.texts(c, &s.AuthenticationMethodsUsed, shapeText, weak)
	case fieldSessionLifetimePolicies:
		return d.texts(c, &s.SessionLifetimePolicies, shapeLifetime, weak)
	case fieldAuthenticationContextClassReferences:
		return d.texts(c, &s.AuthenticationContextClassReferences, shapeContext, weak)
	case fieldRiskLevelDuringSignIn:
		return d.text(c, &s.RiskLevelDuringSignIn, weak)
	case fieldRiskLevelAggregated:
		return d.text(c, &s.RiskLevelAggregated, weak)
	case fieldRiskState:
		return d.text(c, &s.RiskState, weak)
	case fieldRiskDetail:
		return d.text(c, &s.RiskDetail, weak)
	case fieldRiskEventTypes:
		return d.texts(c, &d.riskEventTypesV1, shapeText, weak)
	case fieldRiskEventTypesV2:
		return d.texts(c, &s.RiskEventTypes, shapeText, weak)
	case fieldAuthenticationProcessingDetails:
		return d.list(c, shapeProcessing, nil, false, weak)
	case fieldStatus:
		if first := c.peek(); first == '-' || first >= '0' && first <= '9' {
			d.mistyped()
			n, found, ok := d.integer(c)
			d.setErrorCode(n, found, weak)
			return ok
		}
		word, ok := d.object(c, shapeStatus, weak)
		if word != "" {
			r.statusWord = word
		}
		return ok
	case fieldMFADetail:
		word, ok := d.object(c, shapeMFA, weak)
		if word != "" {
			d.mistyped()
		}
		return ok
	case fieldSignInEventTypes:
		return d.texts(c, &d.signInEventTypes, shapeText, weak)
	case fieldActivityDateTime:
		r.otherShape = "directoryAudit"
	case fieldRiskEventType:
		r.otherShape = "riskDetection"
	case fieldRiskLastUpdated:
		r.otherShape = "riskyUser"
	}
	return c.skip()
}

// setOuterResourceID takes the resourceId beside properties or of a flat record: the Azure resource path of the
// log (/tenants/...), or in Graph the resource that was signed in to.
func (d *Decoder) setOuterResourceID(id string) {
	s, r := &d.signIn, &d.scratch
	switch {
	case id == "":
	case id[0] == '/':
		r.resourcePath = id
	case s.ResourceId == "" || !r.sawProperties:
		s.ResourceId = id
	}
}

func (d *Decoder) setNetwork(n int64, found, weak bool) {
	s := &d.signIn
	if !found || weak && s.AutonomousSystemNumber != 0 {
		return
	}
	if n < 0 || n > math.MaxUint32 {
		d.mistyped()
		return
	}
	s.AutonomousSystemNumber = uint32(n)
}
