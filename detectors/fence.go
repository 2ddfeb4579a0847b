package detectors

import (
	"cmp"
	"slices"

	"github.com/signindiag/signindiag/schemas"
)

// fence knows the highest identity seen of every source partition. Routers keep the order of each source in every
// partition of the entities topic and only ever repeat what they wrote, so anything at or below the highest
// identity is a repeat, whichever router sent it.
type fence struct {
	sources map[fenceSource]fencePosition
}

type fenceSource struct {
	topic     uint64
	partition uint32
}

type fencePosition struct {
	offset int64
	index  uint32
}

func (f *fence) init() { f.sources = make(map[fenceSource]fencePosition) }

// pass reports whether the source is new, and remembers it. A message without a source is always new.
func (f *fence) pass(s *schemas.Source) bool {
	if s == nil {
		return true
	}
	k := fenceSource{s.Topic, s.Partition}
	if p, ok := f.sources[k]; ok && (s.Offset < p.offset || s.Offset == p.offset && s.Index <= p.index) {
		return false
	}
	f.sources[k] = fencePosition{s.Offset, s.Index}
	return true
}

// sorted returns the sources in order.
func (f *fence) sorted() []fenceSource {
	keys := make([]fenceSource, 0, len(f.sources))
	for k := range f.sources {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b fenceSource) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	return keys
}
