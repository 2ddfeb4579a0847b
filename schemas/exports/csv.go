package exports

import (
	"bytes"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/signindiag/signindiag/schemas"
)

// csvState holds the columns of a CSV file and scratch for its rows.
type csvState struct {
	comma    byte
	columns  []column
	fields   [][]byte
	text     []byte
	value    []byte
	category string // what the file's name says of the log, "" for nothing
}

// column says where the cells of one column go: a member, or a member of a member.
type column struct {
	parent, name string
	portal       portalColumn
}

// portalColumn marks the columns of the portal that are more than a renamed member.
type portalColumn uint8

const (
	portalNone portalColumn = iota
	portalPlain
	portalStatus
	portalCode
	portalLocation
	portalManagedIdentity
	portalIgnored
)

// portalColumns are the columns of the CSV download of Entra's sign-in logs (files InteractiveSignIns, NonInteractiveSignIns,
// ApplicationSignIns, MSISignIns), lower case with single spaces, and the members of Graph's signIn that hold the same.
var portalColumns = map[string]column{
	"date (utc)":                         {name: "createdDateTime"},
	"date":                               {name: "createdDateTime"},
	"request id":                         {name: "id"},
	"user agent":                         {name: "userAgent"},
	"correlation id":                     {name: "correlationId"},
	"user id":                            {name: "userId"},
	"user":                               {name: "userDisplayName"},
	"username":                           {name: "userPrincipalName"},
	"user type":                          {name: "userType"},
	"cross tenant access type":           {name: "crossTenantAccessType"},
	"incoming token type":                {name: "incomingTokenType"},
	"authentication protocol":            {name: "authenticationProtocol"},
	"unique token identifier":            {name: "uniqueTokenIdentifier"},
	"original transfer method":           {name: "originalTransferMethod"},
	"client credential type":             {name: "clientCredentialType"},
	"token protection - sign in session": {portal: portalIgnored},
	"token protection - sign in session statuscode": {portal: portalIgnored},
	"application":                             {name: "appDisplayName"},
	"application id":                          {name: "appId"},
	"app owner tenant id":                     {name: "appOwnerTenantId"},
	"resource":                                {name: "resourceDisplayName"},
	"resource id":                             {name: "resourceIdentity"},
	"resource tenant id":                      {name: "resourceTenantId"},
	"resource owner tenant id":                {name: "resourceOwnerTenantId"},
	"home tenant id":                          {name: "homeTenantId"},
	"home tenant name":                        {name: "homeTenantName"},
	"ip address":                              {name: "ipAddress"},
	"location":                                {portal: portalLocation},
	"status":                                  {portal: portalStatus},
	"sign-in error code":                      {portal: portalCode},
	"failure reason":                          {parent: "status", name: "failureReason"},
	"client app":                              {name: "clientAppUsed"},
	"device id":                               {parent: "deviceDetail", name: "deviceId"},
	"browser":                                 {parent: "deviceDetail", name: "browser"},
	"operating system":                        {parent: "deviceDetail", name: "operatingSystem"},
	"compliant":                               {parent: "deviceDetail", name: "isCompliant"},
	"managed":                                 {parent: "deviceDetail", name: "isManaged"},
	"join type":                               {parent: "deviceDetail", name: "trustType"},
	"multifactor authentication result":       {parent: "status", name: "additionalDetails"},
	"multifactor authentication auth method":  {parent: "mfaDetail", name: "authMethod"},
	"multifactor authentication auth detail":  {parent: "mfaDetail", name: "authDetail"},
	"mfa result":                              {parent: "status", name: "additionalDetails"},
	"mfa auth method":                         {parent: "mfaDetail", name: "authMethod"},
	"mfa auth detail":                         {parent: "mfaDetail", name: "authDetail"},
	"authentication requirement":              {name: "authenticationRequirement"},
	"sign-in identifier":                      {name: "signInIdentifier"},
	"session id":                              {name: "sessionId"},
	"ip address (seen by resource)":           {name: "ipAddressFromResourceProvider"},
	"through global secure access":            {name: "isThroughGlobalSecureAccess"},
	"global secure access ip address":         {name: "globalSecureAccessIpAddress"},
	"autonomous system number":                {name: "autonomousSystemNumber"},
	"flagged for review":                      {name: "flaggedForReview"},
	"token issuer type":                       {name: "tokenIssuerType"},
	"token issuer name":                       {name: "tokenIssuerName"},
	"latency":                                 {name: "processingTimeInMilliseconds"},
	"conditional access":                      {name: "conditionalAccessStatus"},
	"managed identity type":                   {portal: portalManagedIdentity},
	"associated resource id":                  {name: "azureResourceId"},
	"federated token id":                      {portal: portalIgnored},
	"federated token issuer":                  {portal: portalIgnored},
	"service principal id":                    {name: "servicePrincipalId"},
	"service principal name":                  {name: "servicePrincipalName"},
	"credential key id":                       {name: "servicePrincipalCredentialKeyId"},
	"service principal credential key id":     {name: "servicePrincipalCredentialKeyId"},
	"credential thumbprint":                   {name: "servicePrincipalCredentialThumbprint"},
	"service principal credential thumbprint": {name: "servicePrincipalCredentialThumbprint"},
	"federated credential id":                 {name: "federatedCredentialId"},
	"risk state":                              {name: "riskState"},
	"risk level (aggregate)":                  {name: "riskLevelAggregated"},
	"risk level (real-time)":                  {name: "riskLevelDuringSignIn"},
	"alternate sign-in name":                  {name: "alternateSignInName"},
}

// flatColumns are columns of flattened tables that are members of a member in every dialect.
var flatColumns = map[string]column{
	"city": {parent: "locationDetails", name: "city"}, "state": {parent: "locationDetails", name: "state"},
	"country": {parent: "locationDetails", name: "countryOrRegion"}, "countryorregion": {parent: "locationDetails", name: "countryOrRegion"},
	"browser": {parent: "deviceDetail", name: "browser"}, "os": {parent: "deviceDetail", name: "operatingSystem"},
	"operatingsystem": {parent: "deviceDetail", name: "operatingSystem"}, "deviceid": {parent: "deviceDetail", name: "deviceId"},
	"errorcode": {parent: "status", name: "errorCode"}, "failurereason": {parent: "status", name: "failureReason"},
	"additionaldetails": {parent: "status", name: "additionalDetails"}, "iscompliant": {parent: "deviceDetail", name: "isCompliant"},
	"ismanaged": {parent: "deviceDetail", name: "isManaged"}, "trusttype": {parent: "deviceDetail", name: "trustType"},
}

// normalHeader folds a column name: trimmed, lower case, single spaces, without a unit such as [UTC].
func normalHeader(s string) string {
	if i := strings.IndexByte(s, '['); i > 0 {
		s = s[:i]
	}
	return strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(s, "\u00a0", " "))), " ")
}

// startCSV reads the header.
func (r *Reader) startCSV() error {
	s := &r.csv
	for {
		s.comma = ','
		line := r.headLine()
		if bytes.HasPrefix(line, []byte("#TYPE")) || bytes.HasPrefix(line, []byte("sep=")) {
			// Export-Csv of Windows PowerShell and Excel put a line before the header.
			r.advance(r.pos + len(line))
			r.space()
			if r.pos >= r.end {
				return r.unknownColumns(nil)
			}
			continue
		}
		for _, comma := range []byte{';', '\t'} {
			if bytes.Count(line, []byte{comma}) > bytes.Count(line, []byte{s.comma}) {
				s.comma = comma
			}
		}
		break
	}
	line := r.line
	fields, problem := r.row()
	if problem != "" {
		return &ItemError{File: r.name, Line: line, Problem: "the header has " + problem, Expected: "the names of columns", Advice: "export the file again"}
	}
	var header []string
	for _, f := range fields {
		header = append(header, string(f))
	}
	names := make([]string, len(header))
	for i, h := range header {
		names[i] = normalHeader(h)
	}
	has := func(name string) bool { return slices.Contains(names, name) }
	switch {
	case (has("date (utc)") || has("date")) && (has("username") || has("user") || has("application") || has("service principal id") || has("request id")):
		r.format = FormatPortalCSV
		for _, name := range names {
			c := portalColumns[name]
			if c.name != "" {
				c.portal = portalPlain
			}
			s.columns = append(s.columns, c)
		}
		if strings.Contains(strings.ToLower(filepath.Base(r.name)), "noninteractive") {
			s.category = "NonInteractiveUserSignInLogs"
		}
		return nil
	}
	r.format = FormatTableCSV
	known, timed := 0, false
	for i, name := range names {
		c := tableColumn(strings.TrimSpace(strings.Split(header[i], "[")[0]), name)
		if c.name != "" {
			known++
		}
		timed = timed || strings.HasSuffix(name, "createddatetime") || name == "timegenerated" || name == "time"
		s.columns = append(s.columns, c)
	}
	if known < 3 || !timed {
		return r.unknownColumns(header)
	}
	return nil
}

// tableColumn finds the member that a column stands for: one by its own name, or one of a nested object by a
// path such as status.errorCode.
func tableColumn(header, name string) column {
	if c, ok := flatColumns[name]; ok {
		return c
	}
	if schemas.KnownMember(header) {
		return column{name: header}
	}
	path := strings.Split(strings.TrimPrefix(strings.TrimPrefix(header, "properties."), "Properties."), ".")
	if schemas.KnownMember(path[0]) {
		switch len(path) {
		case 1:
			return column{name: path[0]}
		case 2:
			return column{parent: path[0], name: path[1]}
		}
	}
	return column{}
}

func (r *Reader) unknownColumns(header []string) error {
	problem := "has no columns of a sign-in log"
	if len(header) > 0 {
		shown := strings.Join(header[:min(len(header), 6)], ", ")
		if len(shown) > 120 {
			shown = schemas.Clip(shown, 120)
		}
		problem += " (found: " + strings.ToValidUTF8(shown, "\uFFFD") + ")"
	}
	return &ItemError{File: r.name, Line: 1, Problem: problem,
		Expected: `"Date (UTC)" with "Request ID", "Username" or "Application" (portal in English), or "TimeGenerated" or "CreatedDateTime" with "Id", "UserPrincipalName", "ResultType" (Log Analytics)`,
		Advice:   "download the sign-in log as JSON or with English column names"}
}

// headLine returns the line at pos, with what of it was read so far.
func (r *Reader) headLine() []byte {
	for {
		if n := bytes.IndexByte(r.buf[r.pos:r.end], '\n'); n >= 0 {
			return r.buf[r.pos : r.pos+n]
		}
		if r.end-r.pos > maxValue || r.fill(r.pos) != nil {
			return r.buf[r.pos:r.end]
		}
	}
}

// row reads the cells of the row at pos. problem is "" for a good row; else the reader stands behind the row's first line.
func (r *Reader) row() (fields [][]byte, problem string) {
	s := &r.csv
	p := r.pos
	quoted := false
scan:
	for {
		for p < r.end {
			switch b := r.buf[p]; {
			case b == '"':
				quoted = !quoted
			case b == '\n' && !quoted:
				break scan
			}
			p++
		}
		if p-r.pos > maxValue {
			r.firstLine()
			return nil, "more than 4 MiB of text, or a quote without its partner"
		}
		shift, err := r.more(r.pos)
		p -= shift
		if err != nil {
			break
		}
	}
	if quoted {
		r.firstLine()
		return nil, "a quote without its partner"
	}
	row := r.buf[r.pos:p]
	if p < r.end {
		p++
	}
	row = bytes.TrimSuffix(row, []byte("\r"))
	s.fields, s.text = s.fields[:0], s.text[:0]
	// Cells with doubled quotes are unescaped into text; it must not move under the cells already cut.
	if cap(s.text) < len(row) {
		s.text = make([]byte, 0, 2*len(row))
	}
	for i := 0; ; {
		cell := row[i:]
		end := len(row)
		if i < len(row) && row[i] == '"' {
			start := len(s.text)
			i++
			for i < len(row) {
				n := bytes.IndexByte(row[i:], '"')
				if n < 0 {
					s.text = append(s.text, row[i:]...)
					i = len(row)
					break
				}
				s.text = append(s.text, row[i:i+n]...)
				i += n + 1
				if i < len(row) && row[i] == '"' {
					s.text = append(s.text, '"')
					i++
					continue
				}
				break
			}
			cell = s.text[start:len(s.text):len(s.text)]
			if n := bytes.IndexByte(row[min(i, len(row)):], s.comma); n >= 0 {
				end = i + n
			}
		} else {
			if n := bytes.IndexByte(cell, s.comma); n >= 0 {
				end = i + n
			}
			cell = row[i:end]
		}
		s.fields = append(s.fields, cell)
		if end >= len(row) {
			break
		}
		i = end + 1
	}
	r.advance(p)
	return s.fields, ""
}

// firstLine moves behind the line at pos.
func (r *Reader) firstLine() {
	n := bytes.IndexByte(r.buf[r.pos:r.end], '\n')
	if n < 0 {
		r.advance(r.end)
		return
	}
	r.advance(r.pos + n + 1)
}

// nextCSV returns the next row as a record.
func (r *Reader) nextCSV() (Item, error) {
	for {
		if r.pos >= r.end && r.fill(r.pos) != nil {
			return r.finished()
		}
		line, offset := r.line, r.offset()
		fields, problem := r.row()
		switch {
		case problem != "":
			return r.bad(line, offset, "a row with "+problem, "cells in quotes, inner quotes doubled", adviceExport), nil
		case len(fields) == 1 && len(bytes.TrimSpace(fields[0])) == 0:
			continue
		case r.eof && r.pos >= r.end && r.cut != nil:
			return r.finished()
		case len(fields) < min(2, len(r.csv.columns)) || len(fields) > len(r.csv.columns)+1:
			return r.bad(line, offset, "a row of "+strconv.Itoa(len(fields))+" cells", strconv.Itoa(len(r.csv.columns))+" cells as the header has", adviceExport), nil
		}
		if r.format == FormatPortalCSV {
			r.portalRecord(fields)
		} else {
			r.tableRecord(fields)
		}
		return Item{Value: r.csv.value, Line: line, Offset: offset}, nil
	}
}

// cellText cuts white space and the quote that guards cells against being read as formulas.
func cellText(cell []byte) []byte {
	cell = bytes.TrimSpace(cell)
	if len(cell) > 1 && cell[0] == '\'' && bytes.IndexByte([]byte("=+-@"), cell[1]) >= 0 {
		cell = cell[1:]
	}
	return cell
}

// tableRecord encodes a row whose columns are members. Cells stay text: the decoder reads numbers and JSON from text.
func (r *Reader) tableRecord(fields [][]byte) {
	s := &r.csv
	w := writer{b: append(s.value[:0], '{')}
	for i, c := range s.columns {
		if i < len(fields) && c.name != "" && c.parent == "" {
			w.member(c.name, cellText(fields[i]))
		}
	}
	w.nested(s.columns, fields)
	s.value = append(w.b, '}')
}

// portalRecord encodes a row of the portal's CSV as a Graph signIn with a category.
func (r *Reader) portalRecord(fields [][]byte) {
	s := &r.csv
	w := writer{b: append(s.value[:0], '{')}
	var status, code, location, managed, user, principal []byte
	for i, c := range s.columns {
		if i >= len(fields) {
			break
		}
		cell := cellText(fields[i])
		switch c.portal {
		case portalStatus:
			status = cell
		case portalCode:
			code = cell
		case portalLocation:
			location = cell
		case portalManagedIdentity:
			managed = cell
		case portalPlain:
			switch c.name {
			case "userPrincipalName", "userId":
				user = append(user, cell...)
			case "servicePrincipalId":
				principal = cell
			}
			if c.parent == "" {
				w.member(c.name, cell)
			}
		}
	}
	category := s.category
	switch {
	case len(user) == 0 && len(managed) > 0 && !bytes.EqualFold(managed, []byte("none")):
		category = "ManagedIdentitySignInLogs"
	case len(user) == 0 && len(principal) > 0:
		category = "ServicePrincipalSignInLogs"
	case category == "":
		category = "SignInLogs"
	}
	w.member("category", []byte(category))
	w.member("operationName", []byte("Sign-in activity"))
	if len(code) > 0 && isDigits(code) {
		w.member("resultType", code)
	} else {
		// The word Success or Failure; Interrupted alone names no code.
		w.member("resultType", status)
	}
	if len(location) > 0 {
		city, state, country := splitLocation(string(location))
		w.key("location")
		w.b = append(w.b, '{')
		w.member("city", []byte(city))
		w.member("state", []byte(state))
		w.member("countryOrRegion", []byte(country))
		w.b = append(w.b, '}')
	}
	w.nested(s.columns, fields)
	s.value = append(w.b, '}')
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// splitLocation takes "City, State, Country" apart; parts that are missing are missing from the left.
func splitLocation(s string) (city, state, country string) {
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	switch n := len(parts); n {
	case 1:
		return "", "", parts[0]
	case 2:
		return parts[0], "", parts[1]
	default:
		return strings.Join(parts[:n-2], ", "), parts[n-2], parts[n-1]
	}
}

// writer appends the members of a JSON object.
type writer struct {
	b []byte
}

func (w *writer) key(name string) {
	if n := len(w.b); n > 0 && w.b[n-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = appendString(w.b, []byte(name))
	w.b = append(w.b, ':')
}

// member appends a member with a text; an empty cell is an absent member.
func (w *writer) member(name string, text []byte) {
	if len(text) == 0 {
		return
	}
	w.key(name)
	w.b = appendString(w.b, text)
}

// nested appends the objects that several columns make up together.
func (w *writer) nested(columns []column, fields [][]byte) {
	for i, c := range columns {
		if c.parent == "" || seenBefore(columns[:i], c.parent) {
			continue
		}
		mark := len(w.b)
		w.key(c.parent)
		w.b = append(w.b, '{')
		inside := len(w.b)
		for k := i; k < len(columns) && k < len(fields); k++ {
			if columns[k].parent == c.parent {
				w.member(columns[k].name, cellText(fields[k]))
			}
		}
		if len(w.b) == inside {
			w.b = w.b[:mark]
			continue
		}
		w.b = append(w.b, '}')
	}
}

func seenBefore(columns []column, parent string) bool {
	for _, c := range columns {
		if c.parent == parent {
			return true
		}
	}
	return false
}

// appendString appends text as a JSON string; invalid UTF-8 becomes U+FFFD.
func appendString(b, text []byte) []byte {
	b = append(b, '"')
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRune(text[i:])
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}
