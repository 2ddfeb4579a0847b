package schemas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// node is a JSON value as a tree. The strict decoder builds it and reads the record from it; it shares with the
// cursor what a value means, not how text is taken apart, and so serves as its oracle in tests.
type node struct {
	kind    byte   // n, t, f, ", 0, { or [
	text    string // of strings (decoded) and numbers (as written)
	names   []string
	members []node
}

// strictOptions allow what the cursor allows: repeated names, and invalid UTF-8, which is replaced.
var strictOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// parseStrict reads exactly one JSON value.
func parseStrict(text []byte) (node, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(text), strictOptions...)
	n, err := readNode(dec)
	if err != nil {
		return node{}, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("text behind the value")
		}
		return node{}, err
	}
	return n, nil
}

// errTooDeep is what the strict decoder says about a record that nests deeper than maxDepth.
var errTooDeep = fmt.Errorf("nested deeper than %d levels", maxDepth)

func readNode(dec *jsontext.Decoder) (node, error) {
	token, err := dec.ReadToken()
	if err != nil {
		return node{}, err
	}
	n := node{kind: byte(token.Kind())}
	switch n.kind {
	case '"', '0':
		n.text = token.String()
	case '{':
		if dec.StackDepth() > maxDepth {
			return node{}, errTooDeep
		}
		for dec.PeekKind() != '}' {
			name, err := dec.ReadToken()
			if err != nil {
				return node{}, err
			}
			key := strings.Clone(name.String())
			value, err := readNode(dec)
			if err != nil {
				return node{}, err
			}
			n.names = append(n.names, key)
			n.members = append(n.members, value)
		}
		if _, err := dec.ReadToken(); err != nil {
			return node{}, err
		}
	case '[':
		if dec.StackDepth() > maxDepth {
			return node{}, errTooDeep
		}
		for dec.PeekKind() != ']' {
			value, err := readNode(dec)
			if err != nil {
				return node{}, err
			}
			n.members = append(n.members, value)
		}
		if _, err := dec.ReadToken(); err != nil {
			return node{}, err
		}
	}
	return n, nil
}

// decodeStrict reads a record with the JSON library. It returns the library's error for text that is no JSON.
func (d *Decoder) decodeStrict(raw []byte) error {
	root, err := parseStrict(raw)
	if err != nil {
		return err
	}
	if root.kind != '{' {
		return errors.New("not an object")
	}
	d.reset()
	t := tree{d}
	t.record(&root, false)
	return nil
}

// tree reads the nodes of a record into its Decoder, by the same rules as the cursor.
type tree struct{ d *Decoder }

func (t tree) find(name string, kind shape) field {
	id := keyTables[kind].find([]byte(name))
	if id == fieldUnknown {
		t.d.unknown(kind, []byte(name))
	}
	return id
}

func (t tree) parse(s string) (node, bool) {
	if t.d.embedded >= maxEmbedded {
		return node{}, false
	}
	if n, err := parseStrict([]byte(s)); err == nil {
		return n, true
	}
	text, ok := appendPythonAsJSON(nil, s)
	if !ok {
		return node{}, false
	}
	n, err := parseStrict(text)
	return n, err == nil
}

func (t tree) scalar(n *node) string {
	switch n.kind {
	case '"':
		return n.text
	case 'n':
		return ""
	}
	t.d.mistyped()
	switch n.kind {
	case '0':
		return n.text
	case 't':
		return "true"
	case 'f':
		return "false"
	case '[':
		for i := range n.members {
			if m := &n.members[i]; m.kind == '"' && m.text != "" {
				return m.text
			}
		}
	}
	return ""
}

func (t tree) text(n *node, dst *string, weak bool) {
	if s := t.scalar(n); s != "" && !(weak && *dst != "") {
		*dst = s
	}
}

func (t tree) plainText(n *node, dst *string) {
	flags := t.d.scratch.flags
	t.text(n, dst, false)
	if n.kind != '[' && n.kind != '{' {
		t.d.scratch.flags = flags
	}
}

func (t tree) integer(n *node) (int64, bool) {
	switch n.kind {
	case '"', '0':
		return t.d.integerOf(n.text)
	case 'n':
		return 0, false
	}
	t.d.mistyped()
	return 0, false
}

func (t tree) tri(n *node, dst *Tri, weak bool) {
	value := Tri_TRI_UNKNOWN
	switch n.kind {
	case 't':
		value = Tri_TRI_TRUE
	case 'f':
		value = Tri_TRI_FALSE
	case '"', '0':
		value = t.d.triOf(n.text)
	case '{', '[':
		t.d.mistyped()
	}
	t.d.setTri(dst, value, weak)
}

func (t tree) yes(n *node, dst *bool, weak bool) {
	value := Tri_TRI_UNKNOWN
	if *dst {
		value = Tri_TRI_TRUE
	}
	t.tri(n, &value, weak)
	*dst = value == Tri_TRI_TRUE
}

func (t tree) object(n *node, kind shape, weak bool) (word string) {
	switch n.kind {
	case '{':
		t.members(n, kind, weak)
	case '"':
		trimmed := trimSpace(n.text)
		if !opensJSON(trimmed) {
			return n.text
		}
		inner, ok := t.parse(trimmed)
		if !ok || inner.kind != '{' {
			t.d.mistyped()
			return ""
		}
		t.members(&inner, kind, weak)
	case 'n':
	default:
		t.d.mistyped()
	}
	return ""
}

func (t tree) members(n *node, kind shape, weak bool) {
	d := t.d
	s := &d.signIn
	for i, name := range n.names {
		m := &n.members[i]
		switch t.find(name, kind) {
		case fieldErrorCode:
			code, found := t.integer(m)
			d.setErrorCode(code, found, weak)
		case fieldFailureReason:
			t.text(m, &s.FailureReason, weak)
		case fieldAdditionalDetails:
			t.text(m, &s.AdditionalDetails, weak)
		case fieldDeviceID:
			t.text(m, &s.DeviceId, weak)
		case fieldDisplayName:
			t.text(m, &s.DeviceDisplayName, weak)
		case fieldOperatingSystem:
			t.text(m, &s.OperatingSystem, weak)
		case fieldBrowser:
			t.text(m, &s.Browser, weak)
		case fieldTrustType:
			t.text(m, &s.TrustType, weak)
		case fieldIsCompliant:
			t.tri(m, &s.IsCompliant, weak)
		case fieldIsManaged:
			t.tri(m, &s.IsManaged, weak)
		case fieldCity:
			t.text(m, &s.City, weak)
		case fieldState:
			t.text(m, &s.State, weak)
		case fieldCountryOrRegion:
			t.text(m, &s.CountryOrRegion, weak)
		case fieldAuthMethod:
			t.text(m, &d.scratch.mfaMethod, weak)
		}
	}
}

func (t tree) texts(n *node, dst *[]string, kind shape, weak bool) {
	if weak && len(*dst) > 0 {
		return
	}
	fresh := true
	t.textsInto(n, dst, kind, &fresh)
}

func (t tree) textsInto(n *node, dst *[]string, kind shape, fresh *bool) {
	switch n.kind {
	case 'n':
	case '"':
		trimmed := trimSpace(n.text)
		switch {
		case opensJSON(trimmed):
			inner, ok := t.parse(trimmed)
			if !ok {
				t.d.mistyped()
				return
			}
			t.d.embedded++
			t.textsInto(&inner, dst, kind, fresh)
			t.d.embedded--
		case trimmed != "":
			for _, part := range strings.Split(trimmed, ",") {
				appendFresh(dst, trimSpace(part), fresh)
			}
		}
	case '{':
		appendFresh(dst, t.one(n, kind), fresh)
	case '[':
		for i := range n.members {
			switch m := &n.members[i]; m.kind {
			case '{':
				appendFresh(dst, t.one(m, kind), fresh)
			case '[':
				t.d.mistyped()
			default:
				appendFresh(dst, t.scalar(m), fresh)
			}
		}
	default:
		appendFresh(dst, t.scalar(n), fresh)
	}
}

func (t tree) one(n *node, kind shape) string {
	if kind == shapeText {
		t.d.mistyped()
		return ""
	}
	var id, name, detail string
	for i, key := range n.names {
		m := &n.members[i]
		switch t.find(key, kind) {
		case fieldID:
			t.text(m, &id, false)
		case fieldDisplayName, fieldExpirationRequirement:
			t.text(m, &name, false)
		case fieldDetail, fieldStrengthResult:
			t.text(m, &detail, false)
		}
	}
	return t.d.oneOf(kind, id, name, detail)
}

func (t tree) list(n *node, kind shape, owner *Policy, include, weak bool) {
	if weak && t.d.listLen(kind) > 0 {
		return
	}
	fresh := true
	t.listInto(n, kind, owner, include, &fresh)
}

func (t tree) listInto(n *node, kind shape, owner *Policy, include bool, fresh *bool) {
	switch n.kind {
	case 'n':
	case '{':
		t.element(n, kind, owner, include, fresh)
	case '[':
		for i := range n.members {
			switch m := &n.members[i]; m.kind {
			case '{':
				t.element(m, kind, owner, include, fresh)
			case 'n':
			default:
				t.d.mistyped()
			}
		}
	case '"':
		trimmed := trimSpace(n.text)
		if trimmed == "" {
			return
		}
		inner, ok := node{}, false
		if opensJSON(trimmed) {
			inner, ok = t.parse(trimmed)
		}
		if !ok {
			t.d.mistyped()
			return
		}
		t.d.embedded++
		t.listInto(&inner, kind, owner, include, fresh)
		t.d.embedded--
	default:
		t.d.mistyped()
	}
}

func (t tree) element(n *node, kind shape, owner *Policy, include bool, fresh *bool) {
	d := t.d
	e := d.add(kind, owner, include, *fresh)
	*fresh = false
	for i, name := range n.names {
		m := &n.members[i]
		id := t.find(name, kind)
		switch kind {
		case shapePolicy:
			t.policy(m, e.policy, id)
		case shapeStep:
			t.step(m, e.step, id)
		case shapeProcessing:
			switch id {
			case fieldKey:
				t.text(m, &e.processing.Key, false)
			case fieldValue:
				t.plainText(m, &e.processing.Value)
			}
		case shapeRequirement:
			switch id {
			case fieldRequirementProvider:
				t.text(m, &e.requirement.RequirementProvider, false)
			case fieldDetail:
				t.text(m, &e.requirement.Detail, false)
			}
		case shapeNetwork:
			switch id {
			case fieldNetworkType:
				t.text(m, &e.network.NetworkType, false)
			case fieldNetworkNames:
				t.texts(m, &e.network.NetworkNames, shapeText, false)
			}
		case shapeRule:
			switch id {
			case fieldRuleCondition:
				t.text(m, &e.rule.ConditionalAccessCondition, false)
			case fieldRuleSatisfied:
				t.text(m, &e.rule.RuleSatisfied, false)
			}
		}
	}
}

func (t tree) policy(n *node, p *Policy, id field) {
	switch id {
	case fieldID:
		t.text(n, &p.Id, false)
	case fieldDisplayName:
		t.text(n, &p.DisplayName, false)
	case fieldResult:
		t.text(n, &p.Result, false)
	case fieldGrantControls:
		t.texts(n, &p.EnforcedGrantControls, shapeText, false)
	case fieldSessionControls:
		t.texts(n, &p.EnforcedSessionControls, shapeText, false)
	case fieldSessionControlsNotSatisfied:
		t.texts(n, &p.SessionControlsNotSatisfied, shapeText, false)
	case fieldConditionsSatisfied:
		t.conditions(n, &p.ConditionsSatisfied)
	case fieldConditionsNotSatisfied:
		t.conditions(n, &p.ConditionsNotSatisfied)
	case fieldAuthenticationStrength:
		if n.kind == '{' {
			if s := t.one(n, shapeStrength); s != "" {
				p.AuthenticationStrength = s
			}
		} else {
			t.text(n, &p.AuthenticationStrength, false)
		}
	case fieldIncludeRules:
		t.list(n, shapeRule, p, true, false)
	case fieldExcludeRules:
		t.list(n, shapeRule, p, false, false)
	}
}

func (t tree) step(n *node, p *AuthenticationStep, id field) {
	switch id {
	case fieldStepTime:
		t.d.setStepTime(p, t.scalar(n))
	case fieldMethod:
		t.text(n, &p.Method, false)
	case fieldMethodDetail:
		t.text(n, &p.MethodDetail, false)
	case fieldSucceeded:
		t.tri(n, &p.Succeeded, false)
	case fieldResultDetail:
		t.text(n, &p.ResultDetail, false)
	case fieldRequirement:
		t.text(n, &p.Requirement, false)
	case fieldStatusSequence:
		if v, found := t.integer(n); found {
			p.StatusSequence = v
		}
	case fieldRequestSequence:
		if v, found := t.integer(n); found {
			p.RequestSequence = v
		}
	}
}

func (t tree) conditions(n *node, dst *uint32) {
	switch n.kind {
	case '"':
		t.d.addConditions(dst, n.text, true)
	case '0':
		t.d.setMask(dst, n.text)
	case 'n':
	case '[':
		replace := true
		for i := range n.members {
			if m := &n.members[i]; m.kind == '"' {
				t.d.addConditions(dst, m.text, replace)
				replace = false
			} else {
				t.d.mistyped()
			}
		}
	default:
		t.d.mistyped()
	}
}

func (t tree) record(n *node, inner bool) {
	d := t.d
	r := &d.scratch
	for i, name := range n.names {
		m := &n.members[i]
		id := t.find(name, shapeRecord)
		initial := byte(0)
		if name != "" {
			initial = name[0]
		}
		switch {
		case id >= fieldAADTenantID:
			if !d.other {
				t.signInMember(m, id, inner)
			}
		case id == fieldProperties && !inner && !d.other:
			t.properties(m)
		case id == fieldCategory:
			t.text(m, &r.category, inner)
			if !inner && initial == 'c' && r.category != "" {
				_, known := categoryOf(r.category)
				d.other = !known
			}
		case id == fieldType && initial == 'T':
			t.text(m, &r.typ, inner)
		case id == fieldODataType:
			t.text(m, &r.odataType, inner)
		case id == fieldOperationName:
			t.text(m, &r.operationName, inner)
		case id == fieldTime:
			t.text(m, &r.processingTime, inner)
		case id == fieldTenantID && inner:
			t.text(m, &r.innerTenant, false)
		case id == fieldTenantID && initial == 't':
			t.text(m, &r.tenant, false)
		}
	}
}

func (t tree) properties(n *node) {
	r := &t.d.scratch
	switch n.kind {
	case '{':
		r.sawProperties = true
		t.record(n, true)
	case '"':
		trimmed := trimSpace(n.text)
		if trimmed == "" {
			return
		}
		inner, ok := t.parse(trimmed)
		if !ok || inner.kind != '{' {
			t.d.mistyped()
			return
		}
		r.sawProperties = true
		t.d.embedded++
		t.record(&inner, true)
		t.d.embedded--
	case 'n':
	default:
		t.d.mistyped()
	}
}

func (t tree) signInMember(n *node, id field, inner bool) {
	d := t.d
	s, r := &d.signIn, &d.scratch
	weak := !inner && r.sawProperties
	switch id {
	case fieldResultType:
		t.plainText(n, &r.resultType)
	case fieldResultSignature:
		t.plainText(n, &r.resultSignature)
	case fieldLocation:
		if word := t.object(n, shapeLocation, weak); word != "" {
			r.country = word
		}
	case fieldResourceID:
		if inner {
			t.text(n, &s.ResourceId, false)
		} else {
			d.setOuterResourceID(t.scalar(n))
		}
	case fieldResourceIdentity:
		t.text(n, &s.ResourceId, false)
	case fieldAutonomousSystemNumber:
		number, found := t.integer(n)
		d.setNetwork(number, found, weak)
	case fieldNetworkLocationDetails:
		t.list(n, shapeNetwork, nil, false, weak)
	case fieldDeviceDetail:
		if t.object(n, shapeDevice, weak) != "" {
			d.mistyped()
		}
	case fieldIsInteractive:
		t.tri(n, &s.IsInteractive, weak)
	case fieldFlaggedForReview:
		t.yes(n, &s.FlaggedForReview, weak)
	case fieldIsTenantRestricted:
		t.yes(n, &s.IsTenantRestricted, weak)
	case fieldPolicies:
		if n.kind == '[' || n.kind == '{' || n.kind == '"' && n.text != "" {
			r.sawPolicies = true
		}
		t.list(n, shapePolicy, nil, false, weak)
	case fieldAuthenticationRequirementPolicies:
		t.list(n, shapeRequirement, nil, false, weak)
	case fieldAuthenticationDetails:
		t.list(n, shapeStep, nil, false, weak)
	case fieldAuthenticationStrengths:
		t.texts(n, &s.AuthenticationStrengths, shapeStrength, weak)
	case fieldAuthenticationMethodsUsed:
		t.texts(n, &s.AuthenticationMethodsUsed, shapeText, weak)
	case fieldSessionLifetimePolicies:
		t.texts(n, &s.SessionLifetimePolicies, shapeLifetime, weak)
	case fieldAuthenticationContextClassReferences:
		t.texts(n, &s.AuthenticationContextClassReferences, shapeContext, weak)
	case fieldRiskEventTypes:
		t.texts(n, &d.riskEventTypesV1, shapeText, weak)
	case fieldRiskEventTypesV2:
		t.texts(n, &s.RiskEventTypes, shapeText, weak)
	case fieldAuthenticationProcessingDetails:
		t.list(n, shapeProcessing, nil, false, weak)
	case fieldStatus:
		if n.kind == '0' {
			d.mistyped()
			code, found := t.integer(n)
			d.setErrorCode(code, found, weak)
		} else if word := t.object(n, shapeStatus, weak); word != "" {
			r.statusWord = word
		}
	case fieldMFADetail:
		if t.object(n, shapeMFA, weak) != "" {
			d.mistyped()
		}
	case fieldSignInEventTypes:
		t.texts(n, &d.signInEventTypes, shapeText, weak)
	case fieldActivityDateTime:
		r.otherShape = "directoryAudit"
	case fieldRiskEventType:
		r.otherShape = "riskDetection"
	case fieldRiskLastUpdated:
		r.otherShape = "riskyUser"
	default:
		if dst := t.plainMember(id); dst != nil {
			t.text(n, dst, weak)
		}
	}
}

// plainMember returns where the text of a member goes that needs no interpretation.
func (t tree) plainMember(id field) *string {
	s, r := &t.d.signIn, &t.d.scratch
	return map[field]*string{
		fieldAADTenantID: &r.aadTenant, fieldResultDescription: &r.resultDescriptor, fieldCallerIPAddress: &r.callerIPAddress,
		fieldIdentity: &r.identity, fieldCorrelationID: &s.CorrelationId, fieldID: &s.RequestId,
		fieldOriginalRequestID: &s.OriginalRequestId, fieldCreatedDateTime: &r.eventTime, fieldUserDisplayName: &s.UserDisplayName,
		fieldUserPrincipalName: &s.UserPrincipalName, fieldUserID: &s.UserId, fieldUserType: &s.UserType,
		fieldSignInIdentifier: &s.SignInIdentifier, fieldAlternateSignInName: &r.alternateSignInName, fieldAppID: &s.AppId,
		fieldAppDisplayName: &s.AppDisplayName, fieldResourceDisplayName: &s.ResourceDisplayName,
		fieldResourceTenantID: &s.ResourceTenantId, fieldHomeTenantID: &s.HomeTenantId,
		fieldCrossTenantAccessType: &s.CrossTenantAccessType, fieldServicePrincipalID: &s.ServicePrincipalId,
		fieldServicePrincipalName: &s.ServicePrincipalName, fieldClientCredentialType: &s.ClientCredentialType,
		fieldServicePrincipalCredentialKeyID: &s.ServicePrincipalCredentialKeyId, fieldFederatedCredentialID: &s.FederatedCredentialId,
		fieldRedirectURL: &s.RedirectUrl, fieldIPAddress: &s.IpAddress, fieldClientAppUsed: &s.ClientAppUsed,
		fieldUserAgent: &s.UserAgent, fieldAuthenticationProtocol: &s.AuthenticationProtocol, fieldIncomingTokenType: &s.IncomingTokenType,
		fieldOriginalTransferMethod: &s.OriginalTransferMethod, fieldTokenIssuerType: &s.TokenIssuerType, fieldSessionID: &s.SessionId,
		fieldConditionalAccessStatus: &s.ConditionalAccessStatus, fieldAuthenticationRequirement: &s.AuthenticationRequirement,
		fieldRiskLevelDuringSignIn: &s.RiskLevelDuringSignIn, fieldRiskLevelAggregated: &s.RiskLevelAggregated,
		fieldRiskState: &s.RiskState, fieldRiskDetail: &s.RiskDetail,
	}[id]
}
