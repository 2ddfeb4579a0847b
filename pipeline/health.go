package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// health collects why the pipeline does not get on.
type health struct {
	mu      sync.Mutex
	parts   map[partitionKey]*partitionHealth
	retries *prometheus.CounterVec
	started bool
	fatal   error
}

type partitionKey struct {
	topic     string
	partition int
}

type partitionHealth struct {
	trouble Trouble
	stopped *StoppedError
}

// newHealth returns the health of a pipeline that begins. retries counts every trouble, by the name that is watched.
func newHealth(retries *prometheus.CounterVec) *health {
	return &health{parts: map[partitionKey]*partitionHealth{}, retries: retries}
}

// watch returns the trouble of a partition, fresh.
func (h *health) watch(topic string, partition int) *Trouble {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &partitionHealth{trouble: Trouble{count: h.retries.WithLabelValues(topic)}}
	h.parts[partitionKey{topic, partition}] = p
	return &p.trouble
}

func (h *health) forget(topic string, partition int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.parts, partitionKey{topic, partition})
}

func (h *health) stop(topic string, partition int, err *StoppedError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.parts[partitionKey{topic, partition}]; p != nil {
		p.stopped = err
	}
}

func (h *health) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started = true
}

func (h *health) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fatal == nil {
		h.fatal = err
	}
}

func (h *health) failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fatal != nil
}

// maxReasons bounds the reasons that ready names one by one.
const maxReasons = 5

// ready returns nil or what is wrong, most telling first, on one line.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fatal != nil {
		return h.fatal
	}
	keys := make([]partitionKey, 0, len(h.parts))
	for k := range h.parts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b partitionKey) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	var reasons []string
	for _, k := range keys {
		if p := h.parts[k]; p.stopped != nil {
			reasons = append(reasons, p.stopped.Error())
		}
	}
	for _, k := range keys {
		if p := h.parts[k]; p.stopped == nil {
			if r := p.trouble.Reason(); r != "" {
				reasons = append(reasons, r)
			}
		}
	}
	if !h.started {
		reasons = append([]string{"starting"}, reasons...)
	}
	if len(reasons) == 0 {
		return nil
	}
	more := ""
	if n := len(reasons) - maxReasons; n > 0 {
		more = fmt.Sprintf("; and %d more", n)
		reasons = reasons[:maxReasons]
	}
	return errors.New(strings.Join(reasons, "; ") + more)
}
