package lookup

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors"
)

// engineShards are two made-up shards.
func engineShards() []EngineShard {
	received := time.Date(2026, 3, 2, 9, 4, 0, 0, time.UTC)
	detections := func(fired uint64) []detectors.DetectionStats {
		list := make([]detectors.DetectionStats, len(detectors.DetectionNames()))
		for i, kind := range detectors.DetectionNames() {
			if kind == detectors.IncidentAccountLockout {
				list[i] = detectors.DetectionStats{Evaluated: 10, Fired: fired, Suppressed: 1}
			}
		}
		return list
	}
	bounds := []time.Duration{time.Minute, 5 * time.Minute, time.Hour}
	top := func(kind, value string, events int64) detectors.TopEntity {
		return detectors.TopEntity{Kind: kind, Value: value, TenantID: "11111111-aaaa-4bbb-8ccc-000000000001", Events: events, Incidents: 1, Bytes: 900, LastReceived: received}
	}
	return []EngineShard{{
		Shard: 0, Epoch: 3, Fingerprint: 0xab, Taken: received,
		Stats:    detectors.Stats{Records: 90, Entities: 2, StateBytes: 1800, StateBytesBound: 10_000, EntitiesEvicted: 4, Detections: detections(1)},
		Top:      []detectors.TopEntity{top(detectors.EntityPolicy, "Require MFA for admins", 50), top(detectors.EntityUser, "bob@contoso.example", 7)},
		Lateness: EngineLateness{bounds, []uint64{80, 10, 0, 0}, 90 * time.Minute, 3 * time.Minute},
	}, {
		Shard: 1, Epoch: 4, Fingerprint: 0xcd, Taken: received,
		Stats:    detectors.Stats{Records: 10, Entities: 1, StateBytes: 900, StateBytesBound: 10_000, EntitiesEvicted: 1, Detections: detections(2)},
		Top:      []detectors.TopEntity{top(detectors.EntityAddress, "203.0.113.9", 20)},
		Lateness: EngineLateness{bounds, []uint64{0, 0, 8, 2}, 10 * time.Hour, 3 * time.Hour},
	}}
}

func TestEngine(t *testing.T) {
	f := newFixture(t)
	api := loadOpenAPI(t)
	var shards []EngineShard
	h := f.newServer(t, func(c *Config) { c.Engine = func() []EngineShard { return shards } }).Handler()
	ask := func(token string) (a EngineAnswer) {
		t.Helper()
		response, body := get(t, h, "/v1/engine", token)
		if response.StatusCode != 200 {
			t.Fatalf("status %d: %s", response.StatusCode, body)
		}
		api.check(t, "/v1/engine", 200, body)
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(""); len(a.Shards) != 0 || a.Overall.Lateness.Records != 0 { // while the shards begin
		t.Errorf("got %+v", a)
	}

	shards = engineShards()
	a := ask("")
	o := a.Overall
	if o.Epoch != 4 || !slices.Equal(o.Fingerprints, []string{"00000000000000ab", "00000000000000cd"}) || o.Records != 100 || o.Entities != 3 ||
		o.StateBytes != 2700 || o.StateBytesBound != 20_000 || o.EntitiesEvicted != 5 {
		t.Errorf("overall %+v", o)
	}
	if len(a.Shards) != 2 || a.Shards[0].Records != 90 || a.Shards[1].Shard != 1 || a.Shards[1].Epoch != 4 || a.Shards[1].Fingerprint != "00000000000000cd" {
		t.Errorf("shards %+v", a.Shards)
	}
	if want := (LatenessAnswer{Records: 100, Mean: 414, P50: 60, P90: 300, P99: 3 * 3600, Max: 3 * 3600}); o.Lateness != want {
		t.Errorf("lateness %+v, want %+v", o.Lateness, want)
	}
	// Not above the longest that was seen, which lies within the bucket.
	if got := a.Shards[0].Lateness; got.P99 != 180 || got.P50 != 60 {
		t.Errorf("lateness of shard 0 %+v", got)
	}
	families := uint64(0)
	for _, kind := range detectors.DetectionNames() {
		if kind == detectors.IncidentAccountLockout {
			families++
		}
	}
	found := 0
	for i, d := range o.Detections {
		if i > 0 && o.Detections[i-1].Kind >= d.Kind {
			t.Errorf("%s stands behind %s", d.Kind, o.Detections[i-1].Kind)
		}
		if d.Kind == detectors.IncidentAccountLockout {
			found++
			if d.Evaluated != 20*families || d.Fired != 3*families || d.Suppressed != 2*families {
				t.Errorf("got %+v of %d families", d, families)
			}
		}
	}
	if found != 1 {
		t.Errorf("account_lockout stands there %d times", found)
	}
	values := func(list []EntityAnswer) (v []string) {
		for _, e := range list {
			v = append(v, e.Value)
		}
		return v
	}
	if got := values(o.TopEntities); !slices.Equal(got, []string{"Require MFA for admins", "203.0.113.9", "bob@contoso.example"}) {
		t.Errorf("top entities %q", got)
	}
	if again := ask(""); !slices.Equal(values(again.Overall.TopEntities), values(o.TopEntities)) {
		t.Error("the second answer is another one")
	}

	// Names of policies need the right to see Conditional Access.
	if got := values(ask(tokenRecords).Overall.TopEntities); !slices.Equal(got, []string{"a policy", "203.0.113.9", "bob@contoso.example"}) {
		t.Errorf("top entities for who may see records only: %q", got)
	}
	if got := values(ask(tokenPolicy).Shards[0].TopEntities); got[0] != "Require MFA for admins" {
		t.Errorf("top entities for who may see policies: %q", got)
	}
	for target, want := range map[string]struct {
		token  string
		status int
		text   string
	}{
		"/v1/engine":     {tokenNothing, 403, "capability records"},
		"/v1/engine?x=1": {"", 400, "unknown parameter"},
	} {
		response, body := get(t, h, target, want.token)
		if response.StatusCode != want.status || !strings.Contains(body, want.text) {
			t.Errorf("GET %s: status %d: %s", target, response.StatusCode, body)
		}
		api.check(t, target, want.status, body)
	}
	if response, body := get(t, f.newServer(t, nil).Handler(), "/v1/engine", ""); response.StatusCode != 404 || !strings.Contains(body, "has no engine") {
		t.Errorf("without an engine: status %d: %s", response.StatusCode, body)
	}
}
