package synthetic_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

var start = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// decodeAll runs message through the product's decoder and hands over the sign-ins.
func decodeAll(t *testing.T, decoder *schemas.Decoder, message []byte, each func(*schemas.SignIn)) {
	t.Helper()
	decoder.Decode(message, time.Time{}, func(i int, d *schemas.Decoded) {
		if d.Kind != schemas.KindSignIn {
			t.Fatalf("record %d is %v (%s): %v\n%s", i, d.Kind, d.Category, d.Err, d.Raw)
		}
		each(d.SignIn)
	})
}

func TestSamplesDecode(t *testing.T) {
	for _, scenario := range synthetic.SampleScenarios() {
		for _, d := range synthetic.Dialects() {
			t.Run(scenario+"/"+d.String(), func(t *testing.T) {
				want := synthetic.SampleSpec(scenario)
				raw := synthetic.Sample(scenario, d)
				if !json.Valid(raw) {
					t.Fatalf("not JSON: %s", raw)
				}
				n := 0
				decodeAll(t, schemas.NewDecoder(), raw, func(s *schemas.SignIn) {
					n++
					check := func(name string, got, want any) {
						if got != want {
							t.Errorf("%s is %v, expected %v", name, got, want)
						}
					}
					check("id", s.RequestId, want.RequestID)
					check("correlationId", s.CorrelationId, want.CorrelationID)
					check("errorCode", s.ErrorCode, want.ErrorCode)
					check("userPrincipalName", s.UserPrincipalName, want.UserPrincipalName)
					check("appDisplayName", s.AppDisplayName, want.AppDisplayName)
					check("resourceId", s.ResourceId, want.ResourceID)
					check("ipAddress", s.IpAddress, want.Address)
					check("clientAppUsed", s.ClientAppUsed, want.ClientAppUsed)
					check("countryOrRegion", s.CountryOrRegion, want.Place.CountryOrRegion)
					check("operatingSystem", s.OperatingSystem, want.Device.OperatingSystem)
					check("number of policies", len(s.Policies), len(want.Policies))
					if got := time.UnixMicro(s.EventTime).UTC(); !got.Equal(want.Time.Truncate(time.Microsecond)) {
						t.Errorf("createdDateTime is %v, expected %v", got, want.Time)
					}
					if want.ErrorCode != 0 && s.FailureReason == "" {
						t.Error("a failure without a text")
					}
					for i, p := range s.Policies {
						check("policy name", p.DisplayName, want.Policies[i].DisplayName)
						check("policy result", p.Result, want.Policies[i].Result)
						if d != synthetic.GraphV1 {
							check("conditionsSatisfied", p.ConditionsSatisfied, want.Policies[i].Satisfied)
							check("conditionsNotSatisfied", p.ConditionsNotSatisfied, want.Policies[i].NotSatisfied)
						}
					}
					if d == synthetic.GraphV1 {
						return
					}
					check("number of steps", len(s.AuthenticationDetails), len(want.Steps))
					check("userAgent", s.UserAgent, want.UserAgent)
					check("autonomousSystemNumber", s.AutonomousSystemNumber, want.AutonomousSystemNumber)
					check("flaggedForReview", s.FlaggedForReview, want.FlaggedForReview)
					check("number of requirement policies", len(s.AuthenticationRequirementPolicies), len(want.RequirementPolicies))
					level := want.Risk.LevelDuringSignIn
					if level == "" {
						level = "none"
					}
					check("riskLevelDuringSignIn", s.RiskLevelDuringSignIn, level)
					if d == synthetic.GraphBeta {
						return
					}
					check("tenantId", s.TenantId, want.TenantID)
					check("isCompliant", s.IsCompliant, want.Device.IsCompliant)
					if want.Category != schemas.Category_CATEGORY_UNSPECIFIED {
						check("category", s.Category, want.Category)
					}
				})
				if n != 1 {
					t.Fatalf("%d records, expected 1", n)
				}
			})
		}
	}
}

func TestQuotesAndControls(t *testing.T) {
	s := synthetic.SampleSpec("success")
	for _, name := range []string{`a "quoted" \ name`, "tab\tand\nline", "\x00\x1f\x7f", "Zo\u00eb \u65e5\u672c", "bad\xff\xfebytes", "12345678\"", "1234567\x01", "\u2028"} {
		s.UserDisplayName = name
		for _, d := range synthetic.Dialects() {
			raw := synthetic.Append(nil, s, d)
			var any map[string]any
			if err := json.Unmarshal(raw, &any); err != nil {
				t.Fatalf("%v %q: %v", d, name, err)
			}
			decodeAll(t, schemas.NewDecoder(), raw, func(r *schemas.SignIn) {
				if want := strings.ToValidUTF8(name, "\ufffd"); r.UserDisplayName != want && r.UserDisplayName != strings.ReplaceAll(want, "\ufffd", "\ufffd\ufffd") {
					t.Errorf("%v: display name is %q, expected %q", d, r.UserDisplayName, want)
				}
			})
		}
	}
}

func options() synthetic.Options {
	return synthetic.Options{Seed: 7, Start: start, Duration: 3 * time.Minute, Rate: 10, Users: 300, Tenants: 3}
}

func drain(t testing.TB, opt synthetic.Options, each func(message []byte, n int)) *synthetic.Traffic {
	t.Helper()
	tr, err := synthetic.NewTraffic(opt)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, n := tr.Next()
		if n == 0 {
			return tr
		}
		each(m, n)
	}
}

func TestTrafficDecodesAndCounts(t *testing.T) {
	opt := options()
	opt.Duration, opt.Late = 10*time.Minute, 0.01
	distinct := map[string]int{}
	categories := map[schemas.Category]int{}
	codes := map[int32]int{}
	var records int64
	late, interactive, size := 0, 0, 0
	decoder := schemas.NewDecoder()
	tr := drain(t, opt, func(m []byte, n int) {
		if n < 1 || n > 50 {
			t.Fatalf("a message of %d records", n)
		}
		size += len(m)
		got, tenant := 0, ""
		decoder.Decode(m, time.Time{}, func(_ int, d *schemas.Decoded) {
			if d.Kind != schemas.KindSignIn {
				t.Fatalf("%v: %v\n%s", d.Kind, d.Err, d.Raw)
			}
			s := d.SignIn
			got++
			distinct[strings.Clone(s.RequestId)]++ // the decoder reuses its memory
			categories[s.Category]++
			codes[s.ErrorCode]++
			if tenant != "" && s.TenantId != tenant {
				t.Fatalf("one message holds records of two tenants")
			}
			tenant = s.TenantId
			if s.Category == schemas.Category_CATEGORY_SIGN_IN {
				interactive++
			}
			if s.ProcessingTime-s.EventTime > 3600e6 {
				late++
			}
			if s.ProcessingTime < s.EventTime {
				t.Fatalf("record %s was written before it happened", s.RequestId)
			}
			if a := s.IpAddress; a != "" {
				checkDocumentation(t, a)
			}
		})
		if got != n {
			t.Fatalf("%d records decoded of %d", got, n)
		}
		records += int64(n)
	})
	s := tr.Stats()
	if s.Records != records || s.Distinct != int64(len(distinct)) || s.Late != int64(late) {
		t.Errorf("stats %+v, counted %d records, %d ids, %d late", s, records, len(distinct), late)
	}
	if s.Records != s.Distinct+s.Repeated+s.Split {
		t.Errorf("stats do not add up: %+v", s)
	}
	if s.Repeated == 0 || s.Split == 0 || s.Late == 0 {
		t.Errorf("expected repeats, parts and late records: %+v", s)
	}
	if want := opt.Rate * opt.Duration.Seconds(); float64(records) < want*0.9 || float64(records) > want*1.1 {
		t.Errorf("%d records, expected about %v", records, want)
	}
	for _, c := range []schemas.Category{schemas.Category_CATEGORY_SIGN_IN, schemas.Category_CATEGORY_NON_INTERACTIVE_USER,
		schemas.Category_CATEGORY_SERVICE_PRINCIPAL, schemas.Category_CATEGORY_MANAGED_IDENTITY} {
		if categories[c] == 0 {
			t.Errorf("no record of %s", c.Name())
		}
	}
	if ratio := float64(categories[schemas.Category_CATEGORY_NON_INTERACTIVE_USER]) / float64(interactive); ratio < 2 || ratio > 8 {
		t.Errorf("%.1f non-interactive records to one interactive", ratio)
	}
	for _, code := range []int32{0, 50074, 50076, 50126, 50140, 50097, 53003, 50034, 65001} {
		if codes[code] == 0 {
			t.Errorf("no record with code %d", code)
		}
	}
	if mean := size / int(records); mean < 3500 || mean > 8500 {
		t.Errorf("a record has %d bytes on average, expected 4 to 8 KB", mean)
	}
}

func checkDocumentation(t *testing.T, address string) {
	t.Helper()
	a, err := netip.ParseAddr(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return
		}
	}
	t.Fatalf("address %s is not one for documentation", address)
}

// TestTrafficIsDeterministic compares the bytes of two runs, and of one that is paced by a caller's clock.
func TestTrafficIsDeterministic(t *testing.T) {
	sum := func(tr *synthetic.Traffic, next func() ([]byte, int)) string {
		h := sha256.New()
		for {
			m, n := next()
			if n == 0 {
				if tr.Ended() {
					return fmt.Sprintf("%x %+v", h.Sum(nil), tr.Stats())
				}
				continue
			}
			h.Write(m)
		}
	}
	opt := options()
	opt.Attacks = []synthetic.Attack{{Kind: "password_spray", At: start.Add(1 * time.Minute)}}
	var sums []string
	for i := range 3 {
		tr, err := synthetic.NewTraffic(opt)
		if err != nil {
			t.Fatal(err)
		}
		next := tr.Next
		if i == 2 {
			now := start
			next = func() ([]byte, int) {
				m, n := tr.Due(now)
				if n == 0 {
					now = now.Add(700 * time.Millisecond)
				} else if tr.Now().After(now) {
					t.Fatalf("a message of %v was delivered at %v", tr.Now(), now)
				}
				return m, n
			}
		}
		sums = append(sums, sum(tr, next))
	}
	if sums[0] != sums[1] || sums[0] != sums[2] {
		t.Errorf("runs differ:\n%s", strings.Join(sums, "\n"))
	}
	opt.Seed++
	tr, err := synthetic.NewTraffic(opt)
	if err != nil {
		t.Fatal(err)
	}
	if sum(tr, tr.Next) == sums[0] {
		t.Error("another seed gave the same traffic")
	}
}

func TestTrafficStopsAtRecords(t *testing.T) {
	for _, want := range []int64{1, 2, 49, 1000} {
		opt := options()
		opt.Duration, opt.Records = 0, want
		var got int64
		drain(t, opt, func(_ []byte, n int) { got += int64(n) })
		if got != want {
			t.Errorf("%d records, expected %d", got, want)
		}
	}
}

// TestPlanted checks the ground truth of every kind of attack against what the stream delivers.
func TestPlanted(t *testing.T) {
	for _, kind := range synthetic.AttackKinds() {
		t.Run(kind, func(t *testing.T) {
			opt := synthetic.Options{Seed: 3, Start: start, Duration: 5 * time.Minute, Rate: 0.5, Tenants: 3, Users: 100,
				Attacks: []synthetic.Attack{{Kind: kind, At: start.Add(10 * time.Minute), Tenant: 1, FirstUser: 5, Succeeds: true}}}
			type seen struct {
				code    int32
				at      int64
				address string
			}
			found := map[string]seen{}
			decoder := schemas.NewDecoder()
			tr := drain(t, opt, func(m []byte, _ int) {
				decodeAll(t, decoder, m, func(s *schemas.SignIn) {
					found[strings.Clone(s.RequestId)] = seen{s.ErrorCode, s.EventTime, strings.Clone(s.IpAddress)}
				})
			})
			truth := tr.Planted()
			if len(truth) != 1 || truth[0].Kind != kind || len(truth[0].RequestIDs) == 0 || len(truth[0].Users) == 0 {
				t.Fatalf("planted: %+v", truth)
			}
			p := truth[0]
			if p.TenantID != tr.TenantIDs()[1] {
				t.Errorf("tenant %s, expected the second", p.TenantID)
			}
			failures := 0
			for _, id := range p.RequestIDs {
				r, ok := found[id]
				if !ok {
					t.Fatalf("record %s of the attack is not in the stream", id)
				}
				if at := time.UnixMicro(r.at).UTC(); at.Before(p.First) || at.After(p.Last) {
					t.Errorf("record at %v, expected %v to %v", at, p.First, p.Last)
				}
				if !slices.Contains(p.Addresses, r.address) && r.address != "" {
					t.Errorf("address %s is not in the ground truth %v", r.address, p.Addresses)
				}
				if r.code != 0 {
					failures++
				}
			}
			if failures == 0 {
				t.Error("an attack without a failure")
			}
			if (p.Outcome == "signed_in") != (failures < len(p.RequestIDs)) {
				t.Errorf("outcome %s with %d failures of %d records", p.Outcome, failures, len(p.RequestIDs))
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	attack := func(a synthetic.Attack) synthetic.Options {
		o := options()
		o.Attacks = []synthetic.Attack{a}
		return o
	}
	for want, opt := range map[string]synthetic.Options{
		"Start is not set":       {},
		"Rate is -1":             {Start: start, Rate: -1},
		"Users is -5":            {Start: start, Users: -5},
		"MaxDelay is 2h":         {Start: start, MaxDelay: 2 * time.Hour},
		"unknown kind \"flood\"": attack(synthetic.Attack{Kind: "flood", At: start}),
		"At is not set":          attack(synthetic.Attack{Kind: "brute_force"}),
		"there is no tenant 9":   attack(synthetic.Attack{Kind: "brute_force", At: start, Tenant: 9}),
		"the tenant has 300":     attack(synthetic.Attack{Kind: "password_spray", At: start, FirstUser: 299}),
		"records asked for":      attack(synthetic.Attack{Kind: "brute_force", At: start, Users: 300, Intensity: 1000}),
	} {
		if _, err := synthetic.NewTraffic(opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, expected one with %q", err, want)
		}
	}
}

func TestUniqueTokenIdentifier(t *testing.T) {
	// Unpadded base64url of the GUID in little-endian field order, as Entra makes it.
	s := synthetic.SampleSpec("success")
	s.RequestID = "7d0c1b52-0000-4d11-9c00-2b6a5f4e0100"
	var record struct {
		Properties struct{ UniqueTokenIdentifier string }
	}
	if err := json.Unmarshal(synthetic.AppendEventHubs(nil, s), &record); err != nil {
		t.Fatal(err)
	}
	if want := "UhsMfQAAEU2cACtqX04BAA"; record.Properties.UniqueTokenIdentifier != want {
		t.Errorf("uniqueTokenIdentifier is %s, expected %s", record.Properties.UniqueTokenIdentifier, want)
	}
}

func FuzzSpec(f *testing.F) {
	f.Add("Ana", "203.0.113.7", "Azure Portal", int32(50126), "text \"quoted\"\n", int64(1772438035103456700))
	f.Fuzz(func(t *testing.T, user, address, app string, code int32, reason string, nanos int64) {
		s := &synthetic.SignInSpec{Time: time.Unix(0, nanos), RequestID: user, CorrelationID: address, TenantID: app, UserPrincipalName: user,
			UserDisplayName: reason, Address: address, AppDisplayName: app, ErrorCode: code, FailureReason: reason,
			UserType: reason, CrossTenantAccessType: reason, AuthenticationProtocol: reason, IncomingTokenType: reason, OriginalTransferMethod: reason,
			TokenIssuerType: reason, ClientCredentialType: reason, AuthenticationRequirement: reason, ConditionalAccessStatus: reason, SessionID: reason,
			AuthenticationContexts: []string{reason}, SessionLifetimePolicies: []string{reason}, Risk: synthetic.Risk{LevelDuringSignIn: reason, EventTypes: []string{reason}},
			Place: synthetic.Place{City: reason, CountryOrRegion: app}, NetworkLocations: []synthetic.NetworkLocation{{Type: app, Names: []string{reason}}},
			RequirementPolicies: []synthetic.RequirementPolicy{{Provider: app, Detail: reason}}, ProcessingDetails: []synthetic.KeyValue{{Key: app, Value: reason}},
			Policies: []synthetic.Policy{{ID: user, DisplayName: reason, Result: app, GrantControls: []string{user, app}, Satisfied: uint32(code)}},
			Steps:    []synthetic.Step{{Method: user, ResultDetail: reason}}, Scopes: []string{app, reason}}
		for _, d := range synthetic.Dialects() {
			if raw := synthetic.Append(nil, s, d); !json.Valid(raw) || bytes.IndexByte(raw, '\n') >= 0 {
				t.Errorf("%v: not one line of JSON: %s", d, raw)
			}
		}
	})
}

func BenchmarkAppendEventHubs(b *testing.B) {
	s := synthetic.SampleSpec("ca_blocked")
	for len(s.Policies) < 8 {
		s.Policies = append(s.Policies, s.Policies...)
	}
	s.Policies = s.Policies[:8]
	buf := synthetic.AppendEventHubs(nil, s)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = synthetic.AppendEventHubs(buf[:0], s)
	}
}

func BenchmarkTraffic(b *testing.B) {
	tr, err := synthetic.NewTraffic(synthetic.Options{Seed: 1, Start: start, Rate: 500, Users: 20000})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		_, k := tr.Next()
		n += k
	}
	s := tr.Stats()
	b.SetBytes(s.Bytes / s.Records)
	b.ReportMetric(float64(s.Bytes)/float64(s.Records), "B/record")
}
