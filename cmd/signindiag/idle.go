package main

import (
	"context"
	"fmt"
	"time"
)

// awaitIdle returns when every record of the raw topics has become rows that are stored: the routers are at the ends of
// their partitions, and so are the shards.
func (s *system) awaitIdle(ctx context.Context) error {
	ends, err := s.rawEnds(ctx)
	if err != nil {
		return err
	}
	// Often enough to be exact to a few per cent in a run of seconds, and too seldom to cost the run anything.
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		idle, err := s.idle(ctx, ends)
		if err != nil || idle {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the pipeline: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// rawEnds returns the sum of the end offsets of every raw topic.
func (s *system) rawEnds(ctx context.Context) (map[string]int64, error) {
	ends := map[string]int64{}
	for _, topic := range s.config.Kafka.RawTopics {
		partitions, err := s.kafka.TopicPartitions(ctx, topic)
		if err != nil {
			return nil, err
		}
		for _, p := range partitions {
			_, end, err := s.kafka.ListOffsets(ctx, topic, p.ID)
			if err != nil {
				return nil, err
			}
			ends[topic] += end
		}
	}
	return ends, nil
}

// idle asks the routers first: what they have written by then is what the shards must have stored.
func (s *system) idle(ctx context.Context, ends map[string]int64) (bool, error) {
	families, err := s.registry.Gather()
	if err != nil {
		return false, fmt.Errorf("read the metrics: %w", err)
	}
	sums := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			key := family.GetName()
			for _, label := range metric.GetLabel() {
				if label.GetName() == "topic" && key == "signindiag_kafka_position" {
					key += "/" + label.GetValue()
				}
			}
			sums[key] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	for topic, end := range ends {
		if int64(sums["signindiag_kafka_position/"+topic]) < end {
			return false, nil
		}
	}
	if sums["signindiag_router_entities_total"] > sums["signindiag_producer_records_total"] {
		return false, nil
	}
	durable := s.pipeline.Durable()
	for shard := range s.config.Kafka.EntitiesPartitions {
		_, end, err := s.kafka.ListOffsets(ctx, s.config.Kafka.EntitiesTopic, shard)
		if err != nil {
			return false, err
		}
		position, ok := durable[uint16(shard)]
		if end > 0 && (!ok || position.Offset+1 < end) {
			return false, nil
		}
	}
	return true, nil
}
