package main

import (
	"bytes"
	"maps"
	"os"
	"reflect"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/sethvargo/go-envconfig"
)

// at returns what lies on a path of keys in decoded YAML; an empty key stands for the first element of a list.
func at(t *testing.T, value any, path ...string) any {
	t.Helper()
	for i, key := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[key]
		case []any:
			if key == "" && len(v) > 0 {
				value = v[0]
			}
		}
		if value == nil {
			t.Errorf("nothing at %v", path[:i+1])
			return nil
		}
	}
	return value
}

// TestKubernetesPattern: the objects fit together, and a pod's environment is a configuration that `run` takes.
func TestKubernetesPattern(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/signindiag.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]map[string]any{}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var object map[string]any
		if err := yaml.UnmarshalWithOptions(document, &object, yaml.Strict()); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		objects[object["kind"].(string)] = object
	}
	for kind, version := range map[string]string{"ConfigMap": "v1", "Deployment": "apps/v1", "Service": "v1", "PodDisruptionBudget": "policy/v1"} {
		if objects[kind]["apiVersion"] != version {
			t.Errorf("%s has the version %v, want %s", kind, objects[kind]["apiVersion"], version)
		}
	}
	deployment := objects["Deployment"]
	labels := at(t, deployment, "spec", "template", "metadata", "labels")
	for _, selector := range []any{
		at(t, deployment, "spec", "selector", "matchLabels"), at(t, objects["Service"], "spec", "selector"),
		at(t, objects["PodDisruptionBudget"], "spec", "selector", "matchLabels"),
		at(t, deployment, "spec", "template", "spec", "affinity", "podAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution", "", "podAffinityTerm", "labelSelector", "matchLabels"),
	} {
		if !reflect.DeepEqual(selector, labels) {
			t.Errorf("a selector is %v, the pods' labels are %v", selector, labels)
		}
	}
	pod := at(t, deployment, "spec", "template", "spec")
	container := at(t, pod, "containers", "")
	for _, want := range []struct {
		in    any
		path  []string
		value any
	}{
		{pod, []string{"securityContext", "runAsNonRoot"}, true},
		{container, []string{"securityContext", "readOnlyRootFilesystem"}, true},
		{container, []string{"securityContext", "allowPrivilegeEscalation"}, false},
		{container, []string{"livenessProbe", "httpGet", "path"}, "/healthz"},
		{container, []string{"readinessProbe", "httpGet", "path"}, "/readyz"},
		{container, []string{"readinessProbe", "httpGet", "port"}, at(t, container, "ports", "", "name")},
		{container, []string{"envFrom", "", "configMapRef", "name"}, at(t, objects["ConfigMap"], "metadata", "name")},
		{objects["Service"], []string{"spec", "ports", "", "targetPort"}, at(t, container, "ports", "", "name")},
	} {
		if got := at(t, want.in, want.path...); got != want.value {
			t.Errorf("%v is %v, want %v", want.path, got, want.value)
		}
	}
	environment := map[string]string{ // of the secret, and of the image
		"SIGNINDIAG_KAFKA_SASL_PASSWORD": "x", "SIGNINDIAG_CLICKHOUSE_PASSWORD": "x", "SIGNINDIAG_HTTP_TOKENS": "0123456789abcdef=records", "SIGNINDIAG_HTTP_ADDRESS": ":8480",
	}
	for name, value := range at(t, objects["ConfigMap"], "data").(map[string]any) {
		environment[name] = value.(string)
	}
	known := map[string]string{}
	variables(reflect.TypeFor[config](), envPrefix, known)
	for name := range maps.Keys(environment) {
		if _, ok := known[name]; !ok {
			t.Errorf("%s is no variable", name)
		}
	}
	c, err := loadConfig(t.Context(), envconfig.MapLookuper(environment))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.needServers(true, true); err != nil {
		t.Error(err)
	}
}
