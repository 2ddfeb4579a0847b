package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func counter(t testing.TB, c prometheus.Collector) float64 {
	t.Helper()
	return testutil.ToFloat64(c)
}

func TestMetricsAreWellFormed(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	m.hole(Hole{Topic: "raw", From: 10, To: 15, Reason: HoleExpired})
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	if got := counter(t, m.holeRecords.WithLabelValues("raw", HoleExpired)); got != 5 {
		t.Errorf("%v records missing, want 5", got)
	}
	if _, err := newMetrics(registry); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

func TestCategoryLabelsAreBounded(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]bool{}
	for i := range 1000 {
		labels[m.category(fmt.Sprint("Category", i))] = true
	}
	if len(labels) != maxCategoryLabels+1 || !labels["other"] {
		t.Errorf("%d labels, want %d and other", len(labels), maxCategoryLabels)
	}
	if got := m.category("Category0"); got != "Category0" {
		t.Errorf("a known name became %s", got)
	}
}

func TestCodeLabelsAreBounded(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]bool{}
	for i := range int32(1000) {
		labels[m.code(900_000_000+i)] = true
	}
	if len(labels) != maxCodeLabels+1 || !labels["other"] {
		t.Errorf("%d labels, want %d and other", len(labels), maxCodeLabels)
	}
	if got := m.code(900_000_000); got != "900000000" {
		t.Errorf("a known code became %s", got)
	}
}

// TestLagWhileRecordsAreInHand: a reader whose records a sink does not take falls behind, also when the log had no more when it read them.
func TestLagWhileRecordsAreInHand(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	g := m.partition("raw", 0)
	lag := func() float64 { return testutil.ToFloat64(m.lagSeconds) }
	last := &Batch{Records: []Record{{Time: time.Now().Add(-90 * time.Second).UnixMilli()}}, Next: 1, End: 1}
	if g.set(last); lag() < 90 {
		t.Errorf("lag of %v s with a record in hand that is 90 s old", lag())
	}
	if g.handled(last); lag() != 0 {
		t.Errorf("lag of %v s with nothing in hand and nothing in the log", lag())
	}
}
