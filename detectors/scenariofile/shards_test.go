package scenariofile_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/detectors/scenariofile"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// eachFile parses every scenario file.
func eachFile(t *testing.T, run func(t *testing.T, f *scenariofile.File)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scenario files: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := scenariofile.Parse(filepath.ToSlash(name), src)
			if err != nil {
				t.Fatal(err)
			}
			run(t, f)
		})
	}
}

func engineOptions(t *testing.T, f *scenariofile.File) detectors.Options {
	t.Helper()
	known, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	settings := detectors.DefaultSettings()
	if f.Thresholds != nil {
		settings.Default.Thresholds = *f.Thresholds
	}
	return detectors.Options{Catalogue: known, Settings: settings}
}

// dealt sends the file's records to so many shards as the router does: whole to the user's or service principal's shard, in
// their small form to those of addresses, networks ... alone.
func dealt(t *testing.T, f *scenariofile.File, shards uint32) (rows inmemory.Result) {
	t.Helper()
	o := engineOptions(t, f)
	engines := make([]*detectors.Engine, shards)
	for i := range engines {
		o.Shard, o.Shards = uint32(i), shards
		engine, err := detectors.NewEngine(o)
		if err != nil {
			t.Fatal(err)
		}
		engines[i] = engine
	}
	dealer := detectors.Dealer{Catalogue: o.Catalogue}
	decoder := schemas.NewDecoder()
	diagnoses, incidents, members := map[string]detectors.Diagnosis{}, map[string]detectors.Incident{}, map[string]detectors.IncidentMember{}
	var out detectors.Rows
	offset := int64(0)
	for _, m := range f.Messages(0) {
		decoder.Decode(m.Value, m.Time, func(_ int, decoded *schemas.Decoded) {
			schemas.Compact(decoded.SignIn)
			var small schemas.SignIn
			schemas.CompactFor(&small, decoded.SignIn)
			if offset == 0 {
				// Every shard of a real log has seen records of the time when the log began: ca_surge asks how much is known.
				for _, engine := range engines {
					engine.Apply(&schemas.EntityMessage{Source: &schemas.Source{}, ReceivedMs: m.Time.UnixMilli(), SignIn: &small}, offset, &out)
				}
			}
			offset++
			dealer.Deal(decoded.SignIn, shards, detectors.WantedRoles(), func(p uint32, roles schemas.RoleSet) {
				message := schemas.EntityMessage{Source: &schemas.Source{Offset: offset}, Roles: uint32(roles), ReceivedMs: m.Time.UnixMilli(), SignIn: decoded.SignIn}
				if !roles.Has(schemas.Role_ROLE_USER) && !roles.Has(schemas.Role_ROLE_SERVICE_PRINCIPAL) {
					message.SignIn = &small
				}
				out.Reset()
				engines[p].Apply(&message, offset, &out)
				for _, d := range out.Diagnoses {
					diagnoses[d.TenantID+d.RequestID+d.CorrelationID] = d.Clone()
				}
				for _, i := range out.Incidents {
					incidents[i.TenantID+i.IncidentID] = i.Clone()
				}
				for _, m := range out.Members {
					members[m.TenantID+m.RequestID+m.IncidentID] = m.Clone()
				}
			})
		})
	}
	for _, d := range diagnoses {
		d.Revision = 0
		rows.Diagnoses = append(rows.Diagnoses, d)
	}
	for _, i := range incidents {
		i.Revision = 0
		rows.Incidents = append(rows.Incidents, i)
	}
	for _, m := range members {
		m.Revision = 0
		rows.Members = append(rows.Members, m)
	}
	slices.SortFunc(rows.Diagnoses, func(a, b detectors.Diagnosis) int {
		return cmp.Or(cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.CorrelationID, b.CorrelationID))
	})
	slices.SortFunc(rows.Incidents, func(a, b detectors.Incident) int {
		return cmp.Or(cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.IncidentID, b.IncidentID))
	})
	slices.SortFunc(rows.Members, func(a, b detectors.IncidentMember) int {
		return cmp.Or(cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.IncidentID, b.IncidentID), cmp.Compare(a.RequestID, b.RequestID))
	})
	return rows
}

// compareRows compares diagnoses by what they say. Evidence has methods of its own for it.
var compareRows = gocmp.Options{
	cmpopts.EquateEmpty(),
	gocmp.Comparer(func(a, b detectors.Evidence) bool { return gocmp.Equal(a.Facts(), b.Facts()) }),
}

// TestShardsDoNotMatter deals the records of every file to several shards: the rows are those of one.
func TestShardsDoNotMatter(t *testing.T) {
	eachFile(t, func(t *testing.T, f *scenariofile.File) {
		want := dealt(t, f, 1)
		if *verbose {
			for _, i := range want.Incidents {
				t.Logf("%s also %v %s %s of %s %s, %d users, %d records", i.Kind, i.Also, i.Severity, i.Outcome, i.EntityKind, i.EntityValue, len(i.Users), i.RequestIDsTotal)
			}
		}
		for _, shards := range []uint32{2, 7, 64} {
			if diff := gocmp.Diff(want, dealt(t, f, shards), compareRows); diff != "" {
				t.Errorf("%d shards: %s", shards, diff)
			}
		}
	})
}

// TestTrustAndPrivilegeSilenceNothing trusts every address, and calls every user privileged: the incidents stay the same, lower
// or higher by a step.
func TestTrustAndPrivilegeSilenceNothing(t *testing.T) {
	rank := func(severity string) int {
		return slices.Index([]string{detectors.SeverityInfo, detectors.SeverityLow, detectors.SeverityMedium, detectors.SeverityHigh, detectors.SeverityCritical}, severity)
	}
	eachFile(t, func(t *testing.T, f *scenariofile.File) {
		run := func(change func(*detectors.TenantSettings)) map[string]detectors.Incident {
			o := engineOptions(t, f)
			change(&o.Settings.Default)
			runner, err := inmemory.New(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range f.Messages(0) {
				runner.Feed(m.Value, m.Time, nil)
			}
			out := map[string]detectors.Incident{}
			for _, i := range runner.Result().Incidents {
				out[i.TenantID+i.IncidentID] = i
			}
			return out
		}
		plain := run(func(*detectors.TenantSettings) {})
		trusted := run(func(s *detectors.TenantSettings) {
			s.TrustedAddresses = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		})
		var users []string
		for _, i := range plain {
			users = append(users, i.Users...)
		}
		privileged := run(func(s *detectors.TenantSettings) { s.PrivilegedUsers = users })
		same := func(name string, got map[string]detectors.Incident, lowest, highest int) {
			if len(got) != len(plain) {
				t.Errorf("%s: %d incidents, expected %d", name, len(got), len(plain))
			}
			for id, want := range plain {
				i, ok := got[id]
				highest := highest
				if want.Kind == detectors.IncidentAccountLockout {
					highest *= 2 // a privileged user's lockout is high, whatever it was
				}
				if step := rank(i.Severity) - rank(want.Severity); !ok || i.Kind != want.Kind || i.Outcome != want.Outcome || step < lowest || step > highest {
					t.Errorf("%s: %s", name, fmt.Sprintf("%s %s %s of %s became %s %s %s", want.Kind, want.Severity, want.Outcome, want.EntityValue, i.Kind, i.Severity, i.Outcome))
				}
			}
		}
		same("trusted", trusted, -1, 0)
		same("privileged", privileged, 0, 1)
	})
}
