package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"
)

// variables lists every variable of the configuration with its default.
func variables(t reflect.Type, prefix string, found map[string]string) {
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("env"), ",")
		if sub, ok := strings.CutPrefix(strings.TrimSpace(options), "prefix="); ok {
			variables(t.Field(i).Type, prefix+sub, found)
			continue
		}
		_, value, _ := strings.Cut(options, "default=")
		found[prefix+name] = value
	}
}

func TestReadmeTableHoldsEveryVariable(t *testing.T) {
	want := map[string]string{}
	variables(reflect.TypeFor[config](), envPrefix, want)
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `("+envPrefix+"[A-Z_]+)` \\| (?:`([^`]*)`)? ?\\|").FindAllStringSubmatch(string(text), -1) {
		got[row[1]] = row[2]
	}
	for name, value := range want {
		if documented, ok := got[name]; !ok {
			t.Errorf("README.md lacks %s", name)
		} else if documented != value {
			t.Errorf("README.md gives %s the default %q, the code %q", name, documented, value)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("README.md documents %s, which the code does not read", name)
		}
	}
}

func TestConfigurationErrorsNameVariables(t *testing.T) {
	for _, test := range []struct{ name, value, expected string }{
		{"KAFKA_BROKERS", "kafka", "host:port"},
		{"KAFKA_ENTITIES_PARTITIONS", "0", "1 to 4096"},
		{"KAFKA_ENTITIES_PARTITIONS", "many", "SIGNINDIAG_KAFKA_ENTITIES_PARTITIONS"},
		{"KAFKA_ENTITIES_RETENTION", "1h", "at least 96h"},
		{"KAFKA_SESSION_TIMEOUT", "5s", "6s to 5m"},
		{"KAFKA_ENTITIES_TOPIC", "signindiag.raw", "not among the raw topics"},
		{"KAFKA_SASL_MECHANISM", "GSSAPI", "PLAIN"},
		{"KAFKA_SASL_MECHANISM", "plain", "PLAIN"},
		{"KAFKA_TLS_CERT_FILE", "client.pem", "_KEY_FILE"},
		{"CLICKHOUSE_DATABASE", "a;b", "letters"},
		{"HTTP_CAPABILITIES", "records,everything", "expected records"},
		{"HTTP_TOKENS", "short=records", "at least 16 characters"},
		{"HTTP_ADDRESS", "8480", "host:port"},
		{"LOG_LEVEL", "loud", "debug"},
		{"LOG_FORMAT", "xml", "text or json"},
		{"SNAPSHOTS_URL", "no-url", "file:///"},
		{"SNAPSHOTS_URL", "s3://key:hunter2@bucket", "[set]"},
		{"SETTINGS_REPLAY", "1m", "1h or more"},
		{"ALERTS_ALERTMANAGER_URLS", "alertmanager:9093", "http://alertmanager:9093"},
		{"ALERTS_WEBHOOK_URL", "https://ada:hunter2@example.org/", "[set]"},
		{"ALERTS_PAGE_URL", "signindiag", "https://signindiag.example.org"},
		{"ALERTS_MIN_SEVERITY", "loud", "info, low, medium, high or critical"},
		{"ALERTS_QUIET", "0s", "1m to 168h"},
		{"ALERTS_MAX_AGE", "1000h", "1m to 168h"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := loadConfig(context.Background(), envconfig.MapLookuper(map[string]string{envPrefix + test.name: test.value}))
			if err == nil {
				t.Fatalf("%s=%s is accepted", test.name, test.value)
			}
			if !strings.Contains(err.Error(), test.expected) {
				t.Errorf("the error does not say %q: %v", test.expected, err)
			}
		})
	}
}

func TestConfigurationHidesSecrets(t *testing.T) {
	c, err := loadConfig(context.Background(), envconfig.MapLookuper(map[string]string{
		envPrefix + "KAFKA_SASL_MECHANISM":  "PLAIN",
		envPrefix + "KAFKA_SASL_USERNAME":   "$ConnectionString",
		envPrefix + "KAFKA_SASL_PASSWORD":   "hunter2",
		envPrefix + "CLICKHOUSE_PASSWORD":   "hunter2",
		envPrefix + "HTTP_TOKENS":           "hunter2hunter2hunter2=records",
		envPrefix + "ALERTS_WEBHOOK_URL":    "https://example.org/hunter2",
		envPrefix + "ALERTS_WEBHOOK_SECRET": "hunter2",
		envPrefix + "KAFKA_RAW_TOPICS":      "a,b",
		envPrefix + "WHATEVER_ELSE":         "ignored",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Kafka.RawTopics) != 2 || string(c.ClickHouse.Password) != "hunter2" {
		t.Fatalf("wrong values: %d topics", len(c.Kafka.RawTopics))
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, *c); strings.Contains(text, "hunter2") {
			t.Errorf("%s shows a secret", format)
		}
	}
}
