package main

import (
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/pipeline"
)

// engineShards returns what the shards of a pipeline tell, as the API shows it.
func engineShards(p *pipeline.Pipeline) []lookup.EngineShard {
	var list []lookup.EngineShard
	for _, r := range p.Shards() {
		list = append(list, lookup.EngineShard{
			Shard: r.Shard, Epoch: r.Epoch, Fingerprint: r.Fingerprint, Taken: r.Taken, Stats: r.Stats, Top: r.Top,
			Lateness: lookup.EngineLateness{Bounds: pipeline.LatenessBounds(), Counts: r.Lateness.Counts[:], Sum: r.Lateness.Sum, Max: r.Lateness.Max},
		})
	}
	return list
}
