package inmemory_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// TestBackfillBesideLive: records of two months ago, of the same people, addresses and applications and with attacks of their own,
// arrive among live ones; every row of a live record and every live incident is the same as without them.
func TestBackfillBesideLive(t *testing.T) {
	cat, err := catalogue.Load()
	if err != nil {
		t.Fatal(err)
	}
	const seed = 7
	past := dayStart.AddDate(0, -2, 0)
	messages := func(start time.Time) (list []string) {
		o := synthetic.Options{Seed: seed, Start: start, Duration: 5 * time.Hour, Rate: 0.5, Tenants: 1, Users: 300}
		for i, kind := range []string{"password_spray", "brute_force", "account_lockout", "mfa_fatigue", "repeated_failures", "distributed_spray", "account_takeover"} {
			// The same seed gives the attacker the same address: had it got in before, it would be a familiar one.
			if kind == "account_takeover" && start.Equal(past) {
				continue
			}
			o.Attacks = append(o.Attacks, synthetic.Attack{Kind: kind, At: start.Add(time.Duration(30+20*i) * time.Minute), FirstUser: 20 * i})
		}
		traffic, err := synthetic.NewTraffic(o)
		if err != nil {
			t.Fatal(err)
		}
		for message, n := traffic.Next(); n > 0; message, n = traffic.Next() {
			list = append(list, string(message))
		}
		return list
	}
	live, old := messages(dayStart), messages(past)
	// The same seed gives the same people and the same ids: those of records must differ.
	ids := regexp.MustCompile(`"(?:id|correlationId|originalRequestId)": ?"[0-9a-f]`)
	turn := strings.NewReplacer("0", "8", "1", "9", "2", "a", "3", "b", "4", "c", "5", "d", "6", "e", "7", "f", "8", "0", "9", "1", "a", "2", "b", "3", "c", "4", "d", "5", "e", "6", "f", "7")
	for i := range old {
		old[i] = ids.ReplaceAllStringFunc(old[i], func(s string) string { return s[:len(s)-1] + turn.Replace(s[len(s)-1:]) })
	}
	run := func(backfill []string) map[string]string {
		r, err := inmemory.New(detectors.Options{Catalogue: cat})
		if err != nil {
			t.Fatal(err)
		}
		received := dayStart.Add(time.Hour)
		for i, message := range live {
			for _, m := range backfill[len(backfill)*i/len(live) : len(backfill)*(i+1)/len(live)] {
				r.Feed([]byte(m), received, nil)
			}
			received = received.Add(5 * time.Hour / time.Duration(len(live)))
			r.Feed([]byte(message), received, nil)
		}
		result := r.Result()
		rows := map[string]string{}
		for _, d := range result.Diagnoses {
			if d.EventTime >= dayStart.UnixMicro() {
				d.Revision = 0 // it holds the offset, which others moved
				rows["diagnosis "+d.RequestID] = fmt.Sprintf("%+v", d)
			}
		}
		for _, i := range result.Incidents {
			if i.LastSeen >= dayStart.UnixMicro() {
				i.Revision = 0
				rows["incident "+i.IncidentID] = fmt.Sprintf("%+v", i)
			}
		}
		t.Logf("%d live rows of %d diagnoses and %d incidents", len(rows), len(result.Diagnoses), len(result.Incidents))
		if len(backfill) > 0 && len(result.Diagnoses) < len(rows)*3/2 {
			t.Errorf("%d diagnoses with the backfill, want nearly twice the live ones", len(result.Diagnoses))
		}
		return rows
	}
	without, with := run(nil), run(old)
	different := 0
	for key, want := range without {
		if got := with[key]; got != want {
			if different++; different <= 5 {
				t.Errorf("%s\nwithout the backfill %s\nwith it              %s", key, want, got)
			}
		}
	}
	if different > 5 {
		t.Errorf("%d rows differ", different)
	}
	if len(with) != len(without) {
		t.Errorf("%d live rows with the backfill, %d without", len(with), len(without))
	}
}
