package schemas

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// samplesDir returns the folder of real records beside the checkout, or the one that SIGNINDIAG_SAMPLES names. The
// records are others' and no part of the project; without the folder the test is skipped.
func samplesDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SIGNINDIAG_SAMPLES")
	if dir == "" {
		root := ".."
		for range 6 {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			root = filepath.Join("..", root)
		}
		dir = filepath.Join(root, "..", "shared", "samples")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no folder of real records: %v (set SIGNINDIAG_SAMPLES)", err)
	}
	return dir
}

// sampleFiles holds the number of records by file: sign-ins and those of other categories.
var sampleFiles = map[string]struct{ signIns, others int }{
	"elastic-signin.ndjson":               {55, 0},
	"sekoia-signin.ndjson":                {36, 0},
	"msticpy-log-analytics.ndjson":        {86, 0},
	"splunk-signin.ndjson":                {2, 0},
	"tenzir-graph.ndjson":                 {1, 4},
	"vendor-docs.ndjson":                  {4, 0},
	"elastic-risk-other-category.ndjson":  {0, 4},
	"sekoia-risk-other-category.ndjson":   {0, 13},
	"panther-audit-other-category.ndjson": {0, 35},
}

// TestSamples compares what is decoded with what encoding/json finds in the same text.
func TestSamples(t *testing.T) {
	dir := samplesDir(t)
	for file, want := range sampleFiles {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
			all := decodeAll(t, NewDecoder(), text, time.Now())
			if len(all) != len(lines) {
				t.Fatalf("%d records, want %d", len(all), len(lines))
			}
			signIns, others := 0, 0
			for i, r := range all {
				switch {
				case r.SignIn != nil:
					signIns++
					checkSample(t, i+1, lines[i], r.SignIn)
					checkStrict(t, []byte(r.raw))
				case r.Err != "":
					t.Errorf("line %d: %s", i+1, r.Err)
				default:
					others++
				}
			}
			if signIns != want.signIns || others != want.others {
				t.Errorf("%d sign-ins and %d others, want %d and %d", signIns, others, want.signIns, want.others)
			}
			// The same records in one message of the export.
			message := append([]byte(`{"records":[`), bytes.Join(lines, []byte(","))...)
			together := decodeAll(t, NewDecoder(), append(message, "]}"...), time.Now())
			if len(together) != len(all) {
				t.Fatalf("%d records in one message, want %d", len(together), len(all))
			}
			for i := range all {
				if together[i].Kind != all[i].Kind || together[i].raw != all[i].raw {
					t.Errorf("record %d differs in one message", i)
				}
			}
		})
	}
}

// at returns the first of the paths that holds something, as text.
func at(record map[string]any, paths ...string) string {
	for _, path := range paths {
		var v any = record
		for _, name := range strings.Split(path, ".") {
			m, _ := v.(map[string]any)
			v = m[name]
		}
		switch v := v.(type) {
		case string:
			if v != "" {
				return v
			}
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	return ""
}

func checkSample(t *testing.T, line int, text []byte, s *SignIn) {
	t.Helper()
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	if inner, ok := record["event"].(map[string]any); ok {
		record = inner
	}
	if id := at(record, "properties.id", "id", "Id"); id == "" {
		if !strings.HasPrefix(s.RequestId, "content-") || s.Flags&FlagNoRequestID == 0 {
			t.Errorf("line %d: id %q, want one of the content", line, s.RequestId)
		}
	} else if s.RequestId != id {
		t.Errorf("line %d: id %q, want %q", line, s.RequestId, id)
	}
	code := at(record, "properties.status.errorCode", "status.errorCode", "Status.errorCode", "resultType", "ResultType")
	if (code == "") != (s.Flags&FlagNoErrorCode != 0) || code != "" && code != strconv.Itoa(int(s.ErrorCode)) {
		t.Errorf("line %d: code %d, flags %b, want %q", line, s.ErrorCode, s.Flags, code)
	}
	user := at(record, "properties.userPrincipalName", "userPrincipalName", "UserPrincipalName")
	if !strings.EqualFold(user, s.UserPrincipalName) {
		t.Errorf("line %d: user %q, want %q", line, s.UserPrincipalName, user)
	}
	for _, pair := range [][2]string{
		{s.CorrelationId, at(record, "properties.correlationId", "correlationId", "CorrelationId")},
		{s.UserId, at(record, "properties.userId", "userId", "UserId")},
		{s.AppId, at(record, "properties.appId", "appId", "AppId")},
		{s.AppDisplayName, at(record, "properties.appDisplayName", "appDisplayName", "AppDisplayName")},
		{s.UserAgent, at(record, "properties.userAgent", "userAgent", "UserAgent")},
		{s.OperatingSystem, at(record, "properties.deviceDetail.operatingSystem", "deviceDetail.operatingSystem", "DeviceDetail.operatingSystem")},
		{s.City, at(record, "properties.location.city", "location.city", "LocationDetails.city")},
		{s.ConditionalAccessStatus, at(record, "properties.conditionalAccessStatus", "conditionalAccessStatus", "ConditionalAccessStatus")},
	} {
		if pair[0] != pair[1] {
			t.Errorf("line %d: got %q, want %q", line, pair[0], pair[1])
		}
	}
	policies := 0
	for _, v := range []any{record["appliedConditionalAccessPolicies"], record["ConditionalAccessPolicies"]} {
		list, _ := v.([]any)
		policies += len(list)
	}
	if properties, ok := record["properties"].(map[string]any); ok {
		list, _ := properties["appliedConditionalAccessPolicies"].([]any)
		policies += len(list)
	}
	if len(s.Policies) != policies {
		t.Errorf("line %d: %d policies, want %d", line, len(s.Policies), policies)
	}
	text2 := at(record, "properties.createdDateTime", "createdDateTime", "CreatedDateTime")
	if text2 == "" {
		text2 = at(record, "time", "TimeGenerated")
		if s.Flags&FlagNoEventTime == 0 {
			t.Errorf("line %d: the event time is not flagged", line)
		}
	}
	if text2 == "" {
		return
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "1/2/2006 3:04:05 PM", "1/2/2006 15:04:05", "1/2/2006 3:04:05 PM -07:00",
	} {
		if want, err := time.Parse(layout, text2); err == nil {
			if got := TimeOf(s.EventTime); !got.Equal(want.Truncate(time.Microsecond)) {
				t.Errorf("line %d: event time %v, want %v", line, got, want)
			}
			return
		}
	}
	t.Errorf("line %d: the test knows no layout for %q", line, text2)
}

// TestSampleSizes logs how large the full and the small form of real records are.
func TestSampleSizes(t *testing.T) {
	dir := samplesDir(t)
	var sizes sizeLog
	for file, want := range sampleFiles {
		if want.signIns == 0 {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		NewDecoder().Decode(text, time.Now(), sizes.add)
	}
	sizes.report(t, "real records")
}
