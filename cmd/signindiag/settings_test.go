package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/pipeline"
)

// TestReloadTakesWhatIsValidAndNew: settings that are valid and other ones come into force, and nothing else does.
func TestReloadTakesWhatIsValidAndNew(t *testing.T) {
	file := writeLines(t, "settings.yaml", []string{"default:", "  thresholds: {repeated_failures: {count: 6}}"})
	var log bytes.Buffer
	s := &system{
		config: &config{}, log: slog.New(slog.NewTextHandler(&log, nil)), pipeline: &pipeline.Pipeline{},
		settingsInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "signindiag_settings_info"}, []string{"fingerprint"}),
	}
	first, err := settingsFlag{file}.loadSettings(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.use(first)
	for _, step := range []struct {
		text, says string
		count      int // in force afterwards
	}{
		{"default:\n  thresholds: {repeated_failures: {count: 6}} # the same\n", "nothing else", 6},
		{"default:\n  thresholds: {repeated_failures: {count: 7}}\n", "begin a new epoch", 7},
		{"default:\n  thresholds: {repeated_failures: {count: 1}}\n", file + ":2:43: ", 7},
		{"default: [\n", "the settings in force stay", 7},
		{"", "begin a new epoch", 5},
	} {
		log.Reset()
		if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.reload()
		if !strings.Contains(log.String(), step.says) {
			t.Errorf("%q: the log does not say %q: %s", step.text, step.says, &log)
		}
		now := s.settings.Load()
		if got := now.Default.Thresholds.RepeatedFailures.Count; got != step.count {
			t.Errorf("%q: count %d is in force, want %d", step.text, got, step.count)
		}
		if n := testutil.CollectAndCount(s.settingsInfo); n != 1 {
			t.Errorf("%d fingerprints are told, want 1", n)
		}
		if v := testutil.ToFloat64(s.settingsInfo.WithLabelValues(fmt.Sprintf("%016x", now.Fingerprint()))); v != 1 {
			t.Errorf("%q: the metric does not tell the fingerprint in force", step.text)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	if s.reload(); !strings.Contains(log.String(), "the settings in force stay") {
		t.Errorf("a file that is gone: %s", &log)
	}
}

// TestEditionIsAnotherFingerprint: raised, it begins a new epoch, with and without a file of settings; left alone, it does not.
func TestEditionIsAnotherFingerprint(t *testing.T) {
	for _, file := range []string{"", writeLines(t, "settings.yaml", []string{"default:", "  thresholds: {repeated_failures: {count: 6}}"})} {
		seen := map[uint64]uint32{}
		for _, edition := range []uint32{0, 1, 2} {
			s, err := settingsConfig{File: file, Edition: edition}.load()
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[s.Fingerprint()]; ok {
				t.Errorf("file %q: editions %d and %d have the same fingerprint", file, other, edition)
			}
			seen[s.Fingerprint()] = edition
		}
	}
	if s, err := (settingsConfig{}).load(); err != nil || s.Fingerprint() != detectors.DefaultSettings().Fingerprint() {
		t.Errorf("the defaults have another fingerprint: %v", err)
	}
}
