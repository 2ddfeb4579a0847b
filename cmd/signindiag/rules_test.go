package main

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sethvargo/go-envconfig"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// exportedMetric is what a metric says of itself.
type exportedMetric struct {
	help   string
	labels []string
}

// exportedMetrics returns every metric that `signindiag run` registers, by its name. Nothing is connected.
func exportedMetrics(t *testing.T) map[string]exportedMetric {
	t.Helper()
	c, err := loadConfig(t.Context(), envconfig.MapLookuper(map[string]string{
		envPrefix + "KAFKA_BROKERS":            "127.0.0.1:9",
		envPrefix + "CLICKHOUSE_ADDRESSES":     "127.0.0.1:9",
		envPrefix + "SNAPSHOTS_URL":            "file://" + t.TempDir(),
		envPrefix + "HTTP_ADDRESS":             "127.0.0.1:0",
		envPrefix + "ALERTS_ALERTMANAGER_URLS": "http://127.0.0.1:9",
	}))
	if err != nil {
		t.Fatal(err)
	}
	s := &system{config: c, log: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}
	if s.catalogue, err = catalogue.Load(); err != nil {
		t.Fatal(err)
	}
	s.renderer = detectors.Renderer{Catalogue: s.catalogue}
	s.store = lookup.NewStore(nil, s.catalogue, s.log)
	defer s.close()
	if err := s.openPipeline(sinks.Server{Address: c.ClickHouse.Addresses}, systemOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.openServer(t.Context(), systemOptions{}); err != nil {
		t.Fatal(err)
	}
	defer s.server.Shutdown(context.Background())
	if err := s.openOutbox(systemOptions{}); err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 1000)
	s.registry.Describe(descs)
	close(descs)
	// A description gives its name and labels as text alone.
	form := regexp.MustCompile(`^Desc\{fqName: "([a-z_0-9]+)", help: ("(?:[^"\\]|\\.)*"),.* constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	found := map[string]exportedMetric{}
	for desc := range descs {
		parts := form.FindStringSubmatch(desc.String())
		if parts == nil {
			t.Fatalf("a description of another form: %s", desc)
		}
		var m exportedMetric
		if m.help, err = strconv.Unquote(parts[2]); err != nil {
			t.Fatalf("%s: %v", desc, err)
		}
		for label := range strings.SplitSeq(parts[3]+","+parts[4], ",") {
			if name, _, _ := strings.Cut(label, "="); name != "" {
				m.labels = append(m.labels, name)
			}
		}
		found[parts[1]] = m
	}
	return found
}

// TestAlertRulesNameWhatIsExported: a rule over a metric or a label that is not there never fires.
func TestAlertRulesNameWhatIsExported(t *testing.T) {
	text, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("../../deploy/prometheus/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	exported := exportedMetrics(t)
	metric := regexp.MustCompile(`signindiag_[a-z_]+`)
	label := regexp.MustCompile(`([a-z_]+)(?:=~?|!=|!~)"|\$labels\.([a-z_]+)`)
	grouped := regexp.MustCompile(`by \(([a-z_, ]+)\)`)
	rules := 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			rules++
			labels := []string{"instance", "job"} // from the scrape
			if !strings.Contains(string(tests), `alertname="`+rule.Alert+`"`) && !strings.Contains(string(tests), "alertname: "+rule.Alert+",") {
				t.Errorf("%s is not tested in alerts_test.yaml", rule.Alert)
			}
			names := metric.FindAllString(rule.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s asks for no metric of signindiag", rule.Alert)
			}
			for _, name := range names {
				have, ok := exported[name]
				if !ok {
					t.Errorf("%s asks for %s, which is not exported", rule.Alert, name)
				}
				labels = append(labels, have.labels...)
			}
			var asked []string
			for _, found := range label.FindAllStringSubmatch(rule.Expr+rule.Annotations["summary"]+rule.Annotations["description"], -1) {
				asked = append(asked, found[1]+found[2])
			}
			for _, found := range grouped.FindAllStringSubmatch(rule.Expr, -1) {
				asked = append(asked, strings.Split(found[1], ", ")...)
			}
			for _, name := range asked {
				if !slices.Contains(labels, name) {
					t.Errorf("%s asks for the label %s, which %v do not have", rule.Alert, name, names)
				}
			}
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("%s lacks a summary, a description or a severity", rule.Alert)
			}
		}
	}
	if rules < 10 {
		t.Errorf("only %d rules were looked at", rules)
	}
}
