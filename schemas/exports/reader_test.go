package exports

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf16"

	"github.com/signindiag/signindiag/schemas"
)

var received = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)

// record is a record of the export with the given id.
func record(id string) string {
	return `{"time":"2026-03-02T08:15:41Z","category":"SignInLogs","properties":{"id":"` + id +
		`","createdDateTime":"2026-03-02T08:13:55Z","status":{"errorCode":0},"authenticationProcessingDetails":[{"key":"a","value":"b \"[{"},{"key":"c","value":"d"}]}}`
}

// indented is the same over several lines, as pretty-printing tools write it.
func indented(id, indent string) string {
	return strings.ReplaceAll("{\n  \"category\": \"SignInLogs\",\n  \"time\": \"2026-03-02T08:15:41Z\",\n  \"properties\": {\n    \"id\": \""+id+
		"\",\n    \"list\": [\n      {\n        \"value\": [\n          1\n        ]\n      }\n    ]\n  }\n}", "\n", "\n"+indent)
}

// readAll reads a text and returns the ids of its records, errors as "!line".
func readAll(t testing.TB, text []byte, wrap func(io.Reader) io.Reader) (ids []string, items []Item) {
	t.Helper()
	r, err := Open("-", wrap(bytes.NewReader(text)))
	if err != nil {
		return []string{"open: " + err.Error()}, nil
	}
	defer r.Close()
	d := schemas.NewDecoder()
	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ids, items
		}
		if err != nil {
			return append(ids, "error: "+err.Error()), items
		}
		if item.Err != nil {
			var e *ItemError
			if !errors.As(item.Err, &e) || e.Line != item.Line || e.Problem == "" || e.Expected == "" || e.Advice == "" || strings.Contains(e.Error(), "\n") {
				t.Errorf("error %#v of line %d", item.Err, item.Line)
			}
			ids = append(ids, fmt.Sprintf("!%d", item.Line))
		} else {
			d.Decode(item.Value, received, func(index int, got *schemas.Decoded) {
				switch {
				case got.SignIn != nil:
					ids = append(ids, strings.Clone(got.SignIn.RequestId))
				case got.Err != nil:
					ids = append(ids, "?"+got.Err.Error())
				default:
					ids = append(ids, "("+got.Category+")")
				}
			})
		}
		item.Value = bytes.Clone(item.Value)
		items = append(items, item)
	}
}

func plain(r io.Reader) io.Reader { return r }

func gzipped(text string) []byte {
	var b bytes.Buffer
	// Two members, as concatenated files have.
	for _, part := range []string{text[:len(text)/2], text[len(text)/2:]} {
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(part))
		_ = w.Close()
	}
	return b.Bytes()
}

func utf16Text(text string, order binary.AppendByteOrder, mark bool) []byte {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, c := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, c)
	}
	return b
}

var jsonCases = []struct{ name, text, want string }{
	{"one record", record("a"), "a"},
	{"lines", record("a") + "\n" + record("b") + "\r\n\n" + record("c"), "a b c"},
	{"concatenated", record("a") + record("b") + " " + record("c"), "a b c"},
	{"array", "[" + record("a") + "," + record("b") + "]", "a b"},
	{"indented array", "[\n  " + indented("a", "  ") + ",\n  " + indented("b", "  ") + "\n]\n", "a b"},
	{"indented records", indented("a", "") + "\n" + indented("b", "") + "\n", "a b"},
	{"envelope", `{"records":[` + record("a") + "," + record("b") + `]}`, "a b"},
	{"envelope with members", `{"x":{"y":["z"]},"records":[` + record("a") + `],"n":1,"m":"]}","o":[[{}]],"t":true}`, "a"},
	{"Graph page", `{"@odata.context":"c","@odata.nextLink":"n","value":[` + record("a") + `,` + record("b") + `]}`, "a b"},
	{"indented page", "{\n  \"value\": [\n    " + indented("a", "    ") + "\n  ],\n  \"@odata.nextLink\": \"n\"\n}\n", "a"},
	{"pages", `{"value":[` + record("a") + `]}` + "\n" + `{"value":[` + record("b") + `]}`, "a b"},
	{"array of envelopes", `[{"records":[` + record("a") + `]},{"records":[` + record("b") + `]}]`, "a b"},
	{"empty lists", `{"records":[]}[]` + record("a"), "a"},
	{"other categories", `[{"category":"AuditLogs"},` + record("a") + `]`, "(AuditLogs) a"},
	{"text between", record("a") + "\nERROR: no more pages\n" + record("b"), "a !2 b"},
	{"scalars", `[1, "x,y]", null, ` + record("a") + `]`, "!1 !1 !1 a"},
	{"NUL bytes", record("a") + "\n\x00\x00\x00\n" + record("b"), "a !2 b"},
	{"NUL bytes at the end", record("a") + "\n\x00\x00\x00", "a !2"},
	{"line cut", record("a") + "\n" + record("b")[:80] + "\n" + record("c") + "\n", "a !2 c"},
	{"line cut in string", record("a") + "\n" + record("b")[:5] + "\n" + record("c") + "\n", "a !2 c"},
	{"line without end", record("a") + "\n" + strings.TrimSuffix(record("b"), "}") + "\n" + record("c") + "\n" + record("d"), "a !2 c d"},
	{"brackets cross", `[` + record("a") + ",\n" + `{"x":[1}},` + "\n" + record("b") + `]`, "a !2 b"},
	{"cut in record", `{"records":[` + record("a") + "," + record("b")[:100], "a !1"},
	{"cut in list", `{"records":[` + record("a") + ",\n", "a !2"},
	{"cut before the end", `{"records":[` + record("a") + "]\n", "a !2"},
	{"cut indented", "[\n  " + indented("a", "  ") + ",\n  " + indented("b", "  ")[:90], "a !16"},
	{"only brackets", "[", "!1"},
	{"bracket behind the list", `{"records":[` + record("a") + `]]}` + "\n" + record("b"), "a !1 b"},
	{"text behind the list", `{"records":[` + record("a") + `] x }` + "\n" + record("b"), "a !1 b"},
	{"byte order mark", "\xef\xbb\xbf" + record("a"), "a"},
	{"white space before", " \r\n\t" + record("a"), "a"},
}

func TestReadJSON(t *testing.T) {
	for _, test := range jsonCases {
		for _, form := range []struct {
			name string
			text []byte
		}{
			{"plain", []byte(test.text)}, {"gzip", gzipped(test.text)},
			{"UTF-16 LE", utf16Text(strings.TrimPrefix(test.text, "\xef\xbb\xbf"), binary.LittleEndian, true)},
			{"UTF-16 BE", utf16Text(strings.TrimPrefix(test.text, "\xef\xbb\xbf"), binary.BigEndian, true)},
		} {
			t.Run(test.name+"/"+form.name, func(t *testing.T) {
				ids, items := readAll(t, form.text, plain)
				if got := strings.Join(ids, " "); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
				byByte, _ := readAll(t, form.text, iotest.OneByteReader)
				if strings.Join(byByte, " ") != strings.Join(ids, " ") {
					t.Errorf("byte by byte: %s, at once %s", byByte, ids)
				}
				if form.name != "plain" {
					return
				}
				for _, item := range items {
					if item.Err == nil && !bytes.HasPrefix(form.text[item.Offset:], item.Value) {
						t.Errorf("line %d: the value does not stand at offset %d", item.Line, item.Offset)
					}
					if line := int64(1 + bytes.Count(form.text[:item.Offset], []byte("\n"))); line != item.Line {
						t.Errorf("line %d, want %d", item.Line, line)
					}
				}
			})
		}
	}
}

func TestReadLarge(t *testing.T) {
	large := `{"category":"SignInLogs","time":"2026-03-02T08:15:41Z","x":"` + strings.Repeat("x\\n", maxValue/2) + `","y":[` + "\n" + `{"z":1}]}`
	for _, text := range []string{
		record("a") + "\n" + large + "\n" + record("b"),
		"[" + record("a") + ",\n" + large + "," + record("b") + "]",
	} {
		ids, items := readAll(t, []byte(text), plain)
		if got := strings.Join(ids, " "); got != "a !2 b" {
			t.Errorf("got %s, want a !2 b", got)
		} else if !strings.Contains(items[1].Err.Error(), "larger than 4 MiB") {
			t.Errorf("error %v", items[1].Err)
		}
	}
}

// endless yields the records of an array without end, to see that a list is never held whole.
type endless struct {
	left    int
	pending []byte
	one     []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.pending) == 0 {
		if e.left == 0 {
			return 0, io.EOF
		}
		e.left--
		e.pending = e.one
	}
	n := copy(p, e.pending)
	e.pending = e.pending[n:]
	return n, nil
}

func TestReadStreams(t *testing.T) {
	const n = 30_000
	r, err := Open("-", io.MultiReader(strings.NewReader("[\n"), &endless{left: n, one: []byte(record("a") + ",\n")}, strings.NewReader("]")))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for {
		item, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil || item.Err != nil {
			t.Fatal(err, item.Err)
		}
		got++
	}
	if got != n {
		t.Errorf("%d records, want %d", got, n)
	}
	if len(r.buf) > 2*chunk {
		t.Errorf("the buffer grew to %d bytes over a list of small records", len(r.buf))
	}
	if r.line != n+2 {
		t.Errorf("line %d at the end, want %d", r.line, n+2)
	}
}

const portalHeader = `Date (UTC),Request ID,User agent,Correlation ID,User ID,User,Username,User type,Cross tenant access type,Incoming token type,Authentication Protocol,Unique token identifier,Original transfer method,Client credential type,Token Protection - Sign In Session,Token Protection - Sign In Session StatusCode,Application,Application ID ,App owner tenant ID,Resource,Resource ID ,Resource tenant ID,Resource owner tenant ID,Home tenant ID,Home tenant name,IP address,Location,Status,Sign-in error code,Failure reason,Client app,Device ID,Browser,Operating System,Compliant,Managed,Join Type,Multifactor authentication result,Multifactor authentication auth method,Multifactor authentication auth detail,Authentication requirement,Sign-in identifier,Session ID,IP address (seen by resource),Through Global Secure Access,Global Secure Access IP address,Autonomous system  number,Flagged for review,Token issuer type,Incoming token type,Token issuer name,Latency,Conditional Access,Managed Identity type,Associated Resource Id,Federated Token Id,Federated Token Issuer`

const portalRow = `2026-03-02T08:13:55Z,7d0c1b52-0000-4d11-9c00-2b6a5f4e0100,"Mozilla/5.0 (Windows NT 10.0; Win64; x64) ""quoted"", comma",c0ffee00-0000-4000-8000-000000000001,aaaaaaaa-0000-4000-8000-00000000000a,"Meier, Ana",ana.meier@example.org,Member,none,Primary refresh token,None,'-0001,None,None,Unbound,1002,Azure Portal,aaaaaaaa-0000-4000-8000-0000000000b3,,Windows Azure Service Management API,797f4846-ba00-4fd7-ba43-dac1f8f63013,11111111-aaaa-4bbb-8ccc-000000000001,,11111111-aaaa-4bbb-8ccc-000000000001,,203.0.113.7,"Zürich, Zürich, CH",Failure,50126,Error validating credentials due to invalid username or password.,Browser,dddddddd-0000-4000-8000-0000000000d4,Edge 141.0.0,Windows10,Yes,No,Hybrid Azure AD joined,MFA completed,Text message,+XX XXXXXXX42,Multifactor authentication,ana.meier@example.org,eeeeeeee-0000-4000-8000-0000000000e5,,No,,64496,Yes,Azure AD,,,120,Not applied,,,,`

func decodeOne(t *testing.T, item Item) *schemas.SignIn {
	t.Helper()
	if item.Err != nil {
		t.Fatal(item.Err)
	}
	var s *schemas.SignIn
	schemas.NewDecoder().Decode(item.Value, received, func(_ int, r *schemas.Decoded) {
		if r.Err != nil {
			t.Fatalf("%v: %s", r.Err, item.Value)
		}
		s = schemas.Clone(r.SignIn)
	})
	return s
}

func TestReadPortalCSV(t *testing.T) {
	success := strings.NewReplacer("Failure,50126,Error validating credentials due to invalid username or password.", "Success,0,Other.", "4e0100", "4e0101").Replace(portalRow)
	text := "\xef\xbb\xbf" + portalHeader + "\r\n" + portalRow + "\r\n" + success + "\r\n"
	_, items := readAll(t, []byte(text), plain)
	if len(items) != 2 {
		t.Fatalf("%d rows, want 2: %v", len(items), items)
	}
	got := decodeOne(t, items[0])
	want := &schemas.SignIn{
		RequestId: "7d0c1b52-0000-4d11-9c00-2b6a5f4e0100", CorrelationId: "c0ffee00-0000-4000-8000-000000000001",
		TenantId:  "11111111-aaaa-4bbb-8ccc-000000000001",
		EventTime: time.Date(2026, 3, 2, 8, 13, 55, 0, time.UTC).UnixMicro(), Category: schemas.Category_CATEGORY_SIGN_IN, ErrorCode: 50126,
		Flags: schemas.FlagPoliciesAbsent, FailureReason: "Error validating credentials due to invalid username or password.", AdditionalDetails: "MFA completed",
		UserId: "aaaaaaaa-0000-4000-8000-00000000000a", UserPrincipalName: "ana.meier@example.org", UserDisplayName: "Meier, Ana", UserType: "member",
		SignInIdentifier: "ana.meier@example.org", AppId: "aaaaaaaa-0000-4000-8000-0000000000b3", AppDisplayName: "Azure Portal",
		ResourceId: "797f4846-ba00-4fd7-ba43-dac1f8f63013", ResourceDisplayName: "Windows Azure Service Management API",
		ResourceTenantId: "11111111-aaaa-4bbb-8ccc-000000000001", HomeTenantId: "11111111-aaaa-4bbb-8ccc-000000000001",
		CrossTenantAccessType: "none", ClientCredentialType: "none", IpAddress: "203.0.113.7", AutonomousSystemNumber: 64496,
		City: "Zürich", State: "Zürich", CountryOrRegion: "CH", ClientAppUsed: "Browser",
		UserAgent: `Mozilla/5.0 (Windows NT 10.0; Win64; x64) "quoted", comma`, AuthenticationProtocol: "none", IncomingTokenType: "primaryRefreshToken",
		OriginalTransferMethod: "none", TokenIssuerType: "AzureAD", SessionId: "eeeeeeee-0000-4000-8000-0000000000e5", DeviceId: "dddddddd-0000-4000-8000-0000000000d4",
		OperatingSystem: "Windows10", Browser: "Edge 141.0.0", TrustType: "Hybrid Azure AD joined", IsCompliant: schemas.Tri_TRI_TRUE, IsManaged: schemas.Tri_TRI_FALSE,
		FlaggedForReview: true, ConditionalAccessStatus: "notApplied", AuthenticationRequirement: "multiFactorAuthentication",
		AuthenticationMethodsUsed: []string{"Text message"},
	}
	if !got.EqualVT(want) {
		t.Errorf("got  %v\nwant %v\nfrom %s", got, want, items[0].Value)
	}
	if s := decodeOne(t, items[1]); s.ErrorCode != 0 || s.Flags != schemas.FlagPoliciesAbsent || s.FailureReason != "" {
		t.Errorf("success: code %d, flags %b, reason %q", s.ErrorCode, s.Flags, s.FailureReason)
	}
	if items[0].Line != 2 || items[1].Line != 3 {
		t.Errorf("lines %d and %d", items[0].Line, items[1].Line)
	}
}

func TestReadPortalCSVCategories(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		name, text string
		want       schemas.Category
	}{
		{"NonInteractiveSignIns_2026-03-02.csv", portalHeader + "\n" + portalRow, schemas.Category_CATEGORY_NON_INTERACTIVE_USER},
		{"InteractiveSignIns_2026-03-02.csv", portalHeader + "\n" + portalRow, schemas.Category_CATEGORY_SIGN_IN},
		{"a.csv", "Date (UTC),Request ID,Service principal ID,Service principal name,Credential key ID,Application,Status,Sign-in error code\n" +
			"2026-03-02T08:13:55Z,r1,eeeeeeee-0000-4000-8000-0000000000e5,Nightly job,k1,Nightly job,Failure,7000222\n", schemas.Category_CATEGORY_SERVICE_PRINCIPAL},
		{"b.csv", "Date (UTC);Request ID;Service principal ID;Managed Identity type;Status\n2026-03-02T08:13:55Z;r1;eeeeeeee-0000-4000-8000-0000000000e5;System-assigned;Success\n",
			schemas.Category_CATEGORY_MANAGED_IDENTITY},
	} {
		path := filepath.Join(dir, test.name)
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Format() != FormatPortalCSV || r.Size() != int64(len(test.text)) {
			t.Errorf("%s: format %v, size %d", test.name, r.Format(), r.Size())
		}
		item, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if s := decodeOne(t, item); s.Category != test.want {
			t.Errorf("%s: category %v, want %v", test.name, s.Category, test.want)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: %v, want the end", test.name, err)
		}
		if r.BytesRead() != r.Size() {
			t.Errorf("%s: %d bytes read, want %d", test.name, r.BytesRead(), r.Size())
		}
		r.Close()
	}
}

func TestReadTableCSV(t *testing.T) {
	for _, text := range []string{
		"\"TenantId\",\"TimeGenerated [UTC]\",\"CreatedDateTime [UTC]\",Id,ResultType,ResultDescription,UserPrincipalName,AADTenantId,ConditionalAccessPolicies,DeviceDetail,LocationDetails,Location,Category,Type\r\n" +
			"w,\"3/2/2026, 8:15:41.220 AM\",\"3/2/2026, 8:13:55.000 AM\",r1,53003,blocked,ana.meier@example.org,11111111-aaaa-4bbb-8ccc-000000000001,\"[{\"\"id\"\":\"\"p-1\"\",\"\"result\"\":\"\"failure\"\"}]\",\"{\"\"operatingSystem\"\":\"\"Windows 10\"\"}\",\"{\"\"city\"\":\"\"Bern\"\"}\",CH,SignInLogs,SigninLogs\r\n",
		"#TYPE Selected.Microsoft.Graph\r\n\"Id\",\"CreatedDateTime\",\"UserPrincipalName\",\"status.errorCode\",\"deviceDetail.operatingSystem\",\"City\",\"Country\",\"properties.appliedConditionalAccessPolicies\",\"AADTenantId\",\"TimeGenerated\",\"status.failureReason\"\r\n" +
			"\"r1\",\"3/2/2026 8:13:55 AM\",\"ana.meier@example.org\",\"53003\",\"Windows 10\",\"Bern\",\"CH\",\"[{'id': 'p-1', 'result': 'failure'}]\",\"11111111-aaaa-4bbb-8ccc-000000000001\",\"2026-03-02T08:15:41.22Z\",\"blocked\"\r\n",
	} {
		_, items := readAll(t, []byte(text), plain)
		if len(items) != 1 {
			t.Fatalf("%d rows, want 1: %v", len(items), items)
		}
		got := decodeOne(t, items[0])
		want := &schemas.SignIn{
			RequestId: "r1", TenantId: "11111111-aaaa-4bbb-8ccc-000000000001", EventTime: time.Date(2026, 3, 2, 8, 13, 55, 0, time.UTC).UnixMicro(),
			ProcessingTime: time.Date(2026, 3, 2, 8, 15, 41, 220e6, time.UTC).UnixMicro(), Category: schemas.Category_CATEGORY_SIGN_IN, ErrorCode: 53003,
			FailureReason: "blocked", UserPrincipalName: "ana.meier@example.org", City: "Bern", CountryOrRegion: "CH", OperatingSystem: "Windows 10",
			Policies: []*schemas.Policy{{Id: "p-1", Result: "failure"}},
		}
		if !got.EqualVT(want) {
			t.Errorf("got  %v\nwant %v\nfrom %s", got, want, items[0].Value)
		}
	}
}

func TestReadCSVBadRows(t *testing.T) {
	head := "Date (UTC),Request ID,Username,Status\n"
	row := func(id string) string { return "2026-03-02T08:13:55Z," + id + ",ana@example.org,Success\n" }
	for _, test := range []struct{ name, text, want string }{
		{"good", head + row("a") + "\n" + row("b"), "a b"},
		{"line break in a cell", head + "2026-03-02T08:13:55Z,a,\"ana\n@example.org\",Success\n" + row("b"), "a b"},
		{"too few cells", head + row("a") + "x\n" + row("b"), "a !3 b"},
		{"too many cells", head + row("a") + "1,2,3,4,5,6,7\n" + row("b"), "a !3 b"},
		{"quote without partner", head + row("a") + "2026-03-02T08:13:55Z,\"b,x,Success\n" + row("c"), "a !3 c"},
		{"no line end", head + strings.TrimSuffix(row("a"), "\n"), "a"},
		{"header only", head, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, wrap := range []func(io.Reader) io.Reader{plain, iotest.OneByteReader} {
				ids, _ := readAll(t, []byte(test.text), wrap)
				if got := strings.Join(ids, " "); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct{ path, want string }{
		{filepath.Join(dir, "missing.json"), "no such file"},
		{dir, "is a directory"},
		{write("empty.json", nil), "is empty"},
		{write("space.json", []byte(" \n\n")), "holds nothing but white space"},
		{write("empty.gz", gzipped("")), "is empty"},
		{write("cut.gz", []byte{0x1f, 0x8b, 8}), "no whole gzip file"},
		{write("book.xlsx", []byte("PK\x03\x04\x14\x00\x06\x00")), "is no text"},
		{write("people.csv", []byte("Name,Street,Town\nA,B,C\n")), `"Date (UTC)"`},
		{write("german.csv", []byte("Datum (UTC),Anforderungs-ID,Benutzer\n")), "English column names"},
		{write("text.txt", []byte("hello there\n")), "no columns of a sign-in log"},
	} {
		r, err := Open(test.path, nil)
		if err == nil {
			r.Close()
			t.Errorf("%s opens", test.path)
			continue
		}
		var e *ItemError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), test.path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q in it", test.path, err, test.want)
		}
	}
	if _, err := Open("-", nil); err == nil {
		t.Error("no standard input, no error")
	}
}

func TestReadCutGzip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, "%s\n", record(fmt.Sprintf("%d-%x", i, r.Uint64())))
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text.String()))
	_ = w.Close()
	ids, items := readAll(t, b.Bytes()[:b.Len()/2], plain)
	if len(ids) < 500 || len(ids) >= 2000 || !strings.HasPrefix(ids[len(ids)-1], "!") {
		t.Fatalf("%d values, the last one %s", len(ids), ids[len(ids)-1])
	}
	if err := items[len(items)-1].Err; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("last error: %v", err)
	}
	for _, id := range ids[:len(ids)-2] {
		if strings.HasPrefix(id, "!") || strings.HasPrefix(id, "?") {
			t.Errorf("%s before the cut", id)
		}
	}
}

func TestReadErrorOfTheFile(t *testing.T) {
	broken := errors.New("device is gone")
	r, err := Open("-", io.MultiReader(strings.NewReader(record("a")+"\n"+record("b")[:50]), iotest.ErrReader(broken)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err = r.Next(); err != nil {
			break
		}
	}
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// FuzzReader: no text makes the reader panic or stand still, and what it yields does not depend on how the text
// arrives.
func FuzzReader(f *testing.F) {
	for _, test := range jsonCases {
		f.Add([]byte(test.text))
	}
	f.Add([]byte(portalHeader + "\n" + portalRow))
	f.Add([]byte("Id,CreatedDateTime,UserPrincipalName\n\"a\"\"b\",2026-03-02,\"x\ny\"\n"))
	f.Add(gzipped(record("a")))
	f.Add(utf16Text(record("a"), binary.LittleEndian, false))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<14 {
			return
		}
		ids, items := readAll(t, text, plain)
		if len(items) > len(text)+1 && !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
			t.Fatalf("%d values from %d bytes", len(items), len(text))
		}
		again, _ := readAll(t, text, iotest.OneByteReader)
		if strings.Join(ids, "\n") != strings.Join(again, "\n") {
			t.Fatalf("byte by byte %q, at once %q", again, ids)
		}
	})
}
