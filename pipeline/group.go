package pipeline

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// stickyBalancer gives partitions back to the members that held them, and shares the rest evenly. Members send the
// partitions that they hold as user data. kafka-go's protocol is eager: every member gives up everything at a
// rebalance, and what it is given back goes on from memory.
type stickyBalancer struct {
	mu   sync.Mutex
	held map[string][]int
}

// ProtocolName implements kafka.GroupBalancer.
func (b *stickyBalancer) ProtocolName() string { return "signindiag-sticky" }

func (b *stickyBalancer) hold(assigned map[string][]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = assigned
}

// UserData implements kafka.GroupBalancer: version 1, then per topic its name and partitions.
func (b *stickyBalancer) UserData() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := []byte{1}
	topics := make([]string, 0, len(b.held))
	for t := range b.held {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	for _, t := range topics {
		data = binary.AppendUvarint(data, uint64(len(t)))
		data = append(data, t...)
		data = binary.AppendUvarint(data, uint64(len(b.held[t])))
		for _, p := range b.held[t] {
			data = binary.AppendUvarint(data, uint64(p))
		}
	}
	return data, nil
}

// parseHeld is the reverse of UserData; data of another balancer holds nothing.
func parseHeld(data []byte) map[string][]int {
	held := map[string][]int{}
	if len(data) == 0 || data[0] != 1 {
		return held
	}
	data = data[1:]
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return 0, false
		}
		data = data[n:]
		return v, true
	}
	for len(data) > 0 {
		n, ok := next()
		if !ok || n > uint64(len(data)) {
			return held
		}
		topic := string(data[:n])
		data = data[n:]
		count, ok := next()
		if !ok || count > uint64(len(data)) {
			return held
		}
		for range count {
			p, ok := next()
			if !ok {
				return held
			}
			held[topic] = append(held[topic], int(p))
		}
	}
	return held
}

// AssignGroups implements kafka.GroupBalancer. It depends on its arguments only, not on their order.
func (b *stickyBalancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b kafka.GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	out := kafka.GroupMemberAssignments{}
	load := map[string]int{}
	held := make([]map[string][]int, len(members))
	for i, m := range members {
		out[m.ID] = map[string][]int{}
		held[i] = parseHeld(m.UserData)
	}
	type key struct {
		topic string
		id    int
	}
	var all []key
	for _, p := range partitions {
		all = append(all, key{p.Topic, p.ID})
	}
	slices.SortFunc(all, func(a, b key) int { return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id)) })
	if len(members) == 0 {
		return out
	}
	share := (len(all) + len(members) - 1) / len(members)
	var left []key
next:
	for _, k := range all {
		for i, m := range members {
			if load[m.ID] < share && slices.Contains(held[i][k.topic], k.id) && slices.Contains(m.Topics, k.topic) {
				out[m.ID][k.topic] = append(out[m.ID][k.topic], k.id)
				load[m.ID]++
				continue next
			}
		}
		left = append(left, k)
	}
	for _, k := range left {
		best := ""
		for _, m := range members {
			if slices.Contains(m.Topics, k.topic) && (best == "" || load[m.ID] < load[best]) {
				best = m.ID
			}
		}
		if best != "" {
			out[best][k.topic] = append(out[best][k.topic], k.id)
			load[best]++
		}
	}
	return out
}

// runGroup joins a consumer group and calls serve for every generation, with what this member is assigned. serve
// must return soon after its context is done; an error of it ends runGroup. h tells while this process is no member.
func runGroup(ctx context.Context, k *Kafka, c Config, log *slog.Logger, h *health, stage string, topics []string, serve func(ctx context.Context, m member, assigned map[string][]int) error) error {
	sticky := &stickyBalancer{}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.group(stage), Brokers: k.config.Brokers, Dialer: k.dialer, Topics: topics,
		GroupBalancers:         []kafka.GroupBalancer{sticky},
		HeartbeatInterval:      c.HeartbeatInterval,
		SessionTimeout:         c.SessionTimeout,
		RebalanceTimeout:       c.RebalanceTimeout,
		WatchPartitionChanges:  true,
		PartitionWatchInterval: 30 * time.Second,
		Timeout:                k.config.RequestTimeout,
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", c.group(stage), err)
	}
	var serving sync.WaitGroup
	defer func() {
		serving.Wait()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = group.Close() // it returns nothing else than nil
		}()
		select {
		case <-closed:
		case <-time.After(c.StopTimeout / 4):
			log.Warn("the consumer group could not be left in time; others take over after the session timeout", "group", c.group(stage), "session_timeout", c.SessionTimeout.String())
		}
	}()
	trouble := h.watch("group "+c.group(stage), 0)
	trouble.Set("joining group " + c.group(stage))
	var logged time.Time
	failed := make(chan error, 1)
	for {
		gen, err := group.Next(ctx)
		select {
		case err := <-failed:
			return err
		default:
		}
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, kafka.ErrGroupClosed) {
				return nil
			}
			// kafka-go joins again by itself, after 5 s; an error here is one attempt.
			if !errors.Is(err, kafka.RebalanceInProgress) {
				err = k.explain(err)
				trouble.Set(fmt.Sprintf("join group %s: %v", c.group(stage), err))
				if time.Since(logged) >= 30*time.Second {
					logged = time.Now()
					log.Warn("trying again to join the group", "group", c.group(stage), "error", err)
				}
			}
			continue
		}
		trouble.Clear()
		assigned := map[string][]int{}
		for topic, parts := range gen.Assignments {
			for _, p := range parts {
				assigned[topic] = append(assigned[topic], p.ID)
			}
		}
		sticky.hold(assigned)
		serving.Add(1)
		gen.Start(func(gctx context.Context) {
			defer serving.Done()
			// A generation ends when its function returns, so there is one, and it ends with either context.
			run, cancel := context.WithCancel(gctx)
			defer cancel()
			stop := context.AfterFunc(ctx, cancel)
			defer stop()
			if err := serve(run, member{generation: int(gen.ID), id: gen.MemberID}, assigned); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
}
