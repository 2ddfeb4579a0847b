package integration

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

// TestVerifyAfterKills: a system that is killed again and again while it works has lost, repeated and altered nothing.
func TestVerifyAfterKills(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	start := time.Now().UTC().Add(-2 * time.Hour).Truncate(time.Second)
	traffic, err := synthetic.NewTraffic(synthetic.Options{
		Seed: seed, Start: start, Records: 12_000, Rate: 4, Users: 300,
		Attacks: []synthetic.Attack{{Kind: "password_spray", At: start.Add(10 * time.Minute)}, {Kind: "brute_force", At: start.Add(15 * time.Minute), FirstUser: 40}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for {
		message, n := traffic.Next()
		if n == 0 {
			break
		}
		lines.Write(append(bytes.TrimSpace(message), '\n'))
	}
	lines.WriteString(`{"category":"SignInLogs","properties":{"id":1,}}` + "\n")
	file := writeFile(t, "signins.ndjson", lines.Bytes())
	data := t.TempDir()
	for range 4 {
		u := spawnUp(t, data, "--import", file)
		u.WaitFor(`Page and API +(\S+)`)
		time.Sleep(time.Duration(rng.IntN(2500)) * time.Millisecond)
		u.Kill()
	}
	u := startUp(t, data)
	if out, errs, code := command(t, nil, "import", "--data", data, file); code > 1 {
		t.Fatalf("import: exit code %d: %s%s", code, out, errs)
	}
	// Exact at any moment, and in the end with nothing left to do.
	deadline := time.Now().Add(program.Long)
	for {
		out, errs, code := command(t, nil, "verify", "--data", data, "--format", "json", "--complete")
		var report struct {
			Exact    bool
			SignIns  int64 `json:"sign_ins"`
			Findings []struct{ Kind, In, Reason string }
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("exit code %d: %v: %s%s", code, err, out, errs)
		}
		waits := false
		for _, f := range report.Findings {
			if f.Kind != "unchecked" || !strings.Contains(f.Reason, "wait") {
				t.Fatalf("exit code %d: %s", code, out)
			}
			waits = true
		}
		if !waits {
			if !report.Exact || report.SignIns < 12_000 {
				t.Fatalf("exit code %d: %s", code, out)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("messages wait for ever: %s", out)
		}
	}
	if code := u.Interrupt(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, u.Text())
	}
}
