package sinks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one writer; the label writer tells rows, quarantine and raw_records apart.
type metrics struct {
	rows          *prometheus.CounterVec
	blocks        prometheus.Counter
	insertSeconds *prometheus.HistogramVec
	insertRows    *prometheus.HistogramVec
	retries       prometheus.Counter
	errors        *prometheus.CounterVec
	quarantined   *prometheus.CounterVec
	blocked       prometheus.Counter
}

// nativeFactor makes neighbouring buckets of native histograms 10 % apart.
const nativeFactor = 1.1

func newMetrics(reg prometheus.Registerer, writer string, oldest func() time.Duration) (*metrics, error) {
	labels := prometheus.Labels{"writer": writer}
	m := &metrics{
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signindiag_sink_rows_total", ConstLabels: labels,
			Help: "Rows that ClickHouse acknowledged, by table.",
		}, []string{"table"}),
		blocks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signindiag_sink_blocks_total", ConstLabels: labels,
			Help: "Blocks whose rows ClickHouse acknowledged.",
		}),
		insertSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "signindiag_sink_insert_seconds", ConstLabels: labels,
			Help:                        "Duration of acknowledged INSERTs in seconds, by table.",
			Buckets:                     []float64{.01, .03, .1, .3, 1, 3, 10, 30},
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: 100,
		}, []string{"table"}),
		insertRows: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "signindiag_sink_insert_rows", ConstLabels: labels,
			Help:                        "Rows of acknowledged INSERTs, by table.",
			Buckets:                     []float64{1, 10, 100, 1_000, 10_000, 50_000, 100_000},
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: 100,
		}, []string{"table"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signindiag_sink_retries_total", ConstLabels: labels,
			Help: "INSERTs that were sent again.",
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signindiag_sink_insert_errors_total", ConstLabels: labels,
			Help: "Failed attempts to insert, by ClickHouse error code (network: no code) and by what is done about it.",
		}, []string{"code", "class"}),
		quarantined: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signindiag_sink_quarantined_total", ConstLabels: labels,
			Help: "Rows that ClickHouse refused for their content and that went to quarantine, by table.",
		}, []string{"table"}),
		blocked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "signindiag_sink_blocked_seconds_total", ConstLabels: labels,
			Help: "Time that writes waited for ClickHouse with both blocks full, summed over goroutines.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "signindiag_sink_oldest_unacknowledged_seconds", ConstLabels: labels,
		Help: "Age of the oldest row that ClickHouse has not acknowledged, 0 when there is none.",
	}, func() float64 { return oldest().Seconds() })
	for _, c := range []prometheus.Collector{m.rows, m.blocks, m.insertSeconds, m.insertRows, m.retries, m.errors, m.quarantined, m.blocked, age} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
