package detectors

import "testing"

// Every kind of the catalogue is found by a detection, with the severity that the code takes for the usual one.
func TestDetectionsCoverTheCatalogue(t *testing.T) {
	cat := testCatalogue(t)
	found := map[string]bool{}
	for _, name := range DetectionNames() {
		found[name] = true
		kind := cat.Incident(name)
		if kind == nil {
			t.Errorf("detection %s is no kind of the catalogue", name)
			continue
		}
		if usualSeverity[name] != kind.Severity {
			t.Errorf("%s: the catalogue says %s, the code takes %q for the usual severity", name, kind.Severity, usualSeverity[name])
		}
	}
	for _, kind := range cat.Incidents() {
		if !found[kind.Name] {
			t.Errorf("nothing finds %s", kind.Name)
		}
	}
	if len(detections) > 32 {
		t.Errorf("%d detections do not fit into a kindSet", len(detections))
	}
	for i := range families {
		for j := range i {
			a, b := &families[i], &families[j]
			if a.roles&b.roles != 0 && a.belongs&b.belongs != 0 && a.lane == b.lane {
				t.Errorf("families %s and %s may share an event of one lane", a.name, b.name)
			}
		}
	}
}
