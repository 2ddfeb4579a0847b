package detectors

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Real records beside the checkout, where they are (or where SIGNINDIAG_SAMPLES says): every sign-in has a headline, a summary
// and texts that hold together.
func TestClassifySamples(t *testing.T) {
	dir := os.Getenv("SIGNINDIAG_SAMPLES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "samples")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil || len(files) == 0 {
		t.Skipf("no real records in %s (set SIGNINDIAG_SAMPLES)", dir)
	}
	cat := loadCatalogue(t)
	c, r := newClassifier(cat, DefaultSettings()), Renderer{Catalogue: cat}
	headlines := map[string]int{}
	var d Diagnosis
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decoder := schemas.NewDecoder()
		decoder.Decode(data, time.Now(), func(index int, record *schemas.Decoded) {
			if record.Kind != schemas.KindSignIn {
				return
			}
			judge(c, &View{SignIn: record.SignIn}, &d)
			headlines[d.Scenario]++
			checkDiagnosis(t, r, &d)
			if d.ErrorCode == 0 && d.Outcome == OutcomeSuccess && d.Scenario != ScenarioSuccess && d.Scenario != ScenarioMissedInterrupt &&
				d.Scenario != ScenarioLegacyAuth && d.Scenario != ScenarioErrorInsight {
				t.Errorf("%s, record %d: a success is %s", filepath.Base(file), index, d.Scenario)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text, r.Report(&d, catalogue.AllCapabilities)); err != nil || !strings.Contains(text.String(), "What happened") {
				t.Errorf("%s, record %d: %v\n%s", filepath.Base(file), index, err, text.String())
			}
			if testing.Verbose() {
				t.Logf("%d %s %v %s %v | %s", d.ErrorCode, d.Scenario, d.Also, d.Severity, d.Unknown, r.Summary(nil, &d, catalogue.AllCapabilities))
			}
		})
	}
	if len(headlines) < 3 {
		t.Errorf("headlines are %v", headlines)
	}
}
