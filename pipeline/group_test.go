package pipeline

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go"
)

// TestStickyBalancer: every partition has one owner, shares are even, and a member keeps what it held where shares allow.
func TestStickyBalancer(t *testing.T) {
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	for range 300 {
		count := rng.IntN(40)
		var partitions []kafka.Partition
		for i := range count {
			partitions = append(partitions, kafka.Partition{Topic: "t", ID: i})
		}
		balancers := map[string]*stickyBalancer{}
		before := kafka.GroupMemberAssignments{}
		for round := range 6 {
			var members []kafka.GroupMember
			n := 1 + rng.IntN(6)
			for range n {
				id := fmt.Sprint("m", rng.IntN(8))
				if _, ok := balancers[id]; !ok {
					balancers[id] = &stickyBalancer{}
				}
				members = append(members, kafka.GroupMember{ID: id, Topics: []string{"t"}})
			}
			unique := map[string]kafka.GroupMember{}
			for _, m := range members {
				data, err := balancers[m.ID].UserData()
				if err != nil {
					t.Fatal(err)
				}
				m.UserData = data
				unique[m.ID] = m
			}
			members = members[:0]
			for _, m := range unique {
				members = append(members, m)
			}
			got := balancers[members[0].ID].AssignGroups(members, partitions)
			if again := balancers[members[0].ID].AssignGroups(members, partitions); !reflect.DeepEqual(got, again) {
				t.Fatal("two results for the same members")
			}
			owner := map[int]string{}
			share := (count + len(members) - 1) / len(members)
			for m, topics := range got {
				if len(topics["t"]) > share {
					t.Fatalf("%s has %d of %d, share %d", m, len(topics["t"]), count, share)
				}
				kept := 0
				for _, p := range topics["t"] {
					if o, ok := owner[p]; ok {
						t.Fatalf("%d belongs to %s and %s", p, o, m)
					}
					owner[p] = m
					for _, q := range before[m]["t"] {
						if p == q {
							kept++
						}
					}
				}
				if could := min(share, len(before[m]["t"])); kept < could {
					t.Fatalf("%s keeps %d of its %d, could keep %d", m, kept, len(before[m]["t"]), could)
				}
			}
			if len(owner) != count {
				t.Fatalf("%d of %d partitions have an owner", len(owner), count)
			}
			// Who is away forgets nothing, but must not claim what others hold now.
			for id, b := range balancers {
				b.hold(round, got[id])
			}
			before = got
		}
	}
}

func TestForeignUserData(t *testing.T) {
	user := func(b ...byte) []byte { return append([]byte{holdingVersion, 1, 2, 3, 4, 5, 6, 7, 8}, b...) }
	for _, data := range [][]byte{nil, {}, {0}, {2, 1, 2}, user(), user(0), user(0, 255), user(0, 1, 't', 200), user(0, 1, 't', 1), append([]byte{3}, user(0, 1, 't', 1, 1)[1:]...)} {
		if held := parseHolding(data).partitions; len(held["t"]) > 0 {
			t.Errorf("% x holds %v", data, held)
		}
	}
}

// fleetOf is some members that remember what they are given.
type fleetOf map[string]*stickyBalancer

func (f fleetOf) add(id string, fingerprint uint64) {
	f[id] = &stickyBalancer{}
	f[id].decide(fingerprint)
}

// assign shares the shards among the members named, in a generation.
func (f fleetOf) assign(t *testing.T, generation, shards int, members ...string) map[string][]int {
	t.Helper()
	var asked []kafka.GroupMember
	for _, id := range members {
		data, err := f[id].UserData()
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, kafka.GroupMember{ID: id, Topics: []string{"t"}, UserData: data})
	}
	var partitions []kafka.Partition
	for i := range shards {
		partitions = append(partitions, kafka.Partition{Topic: "t", ID: i})
	}
	got, all := map[string][]int{}, 0
	for id, topics := range f[members[0]].AssignGroups(asked, partitions) {
		got[id] = topics["t"]
		all += len(topics["t"])
		f[id].hold(generation, topics)
	}
	if all != shards {
		t.Fatalf("%d of %d shards are assigned", all, shards)
	}
	return got
}

func moved(before, after map[string][]int) (n int) {
	for id, shards := range after {
		for _, s := range shards {
			if !slices.Contains(before[id], s) {
				n++
			}
		}
	}
	return n
}

// TestFewShardsMove: no more than must when a process leaves and comes back.
func TestFewShardsMove(t *testing.T) {
	f := fleetOf{}
	for _, id := range []string{"a", "b", "c"} {
		f.add(id, 1)
	}
	three := f.assign(t, 1, 32, "a", "b", "c")
	two := f.assign(t, 2, 32, "a", "c")
	f.add("d", 1) // a process that restarts is another member
	again := f.assign(t, 3, 32, "a", "c", "d")
	left, back := moved(three, two), moved(two, again)
	t.Logf("32 shards: %d move when one of 3 processes leaves, %d when it comes back", left, back)
	if left != len(three["b"]) || back != len(again["d"]) {
		t.Errorf("%d and %d shards move, want %d and %d: those of the process that left, and of the one that came", left, back, len(three["b"]), len(again["d"]))
	}
	for id, shards := range again {
		if len(shards) < 10 || len(shards) > 11 {
			t.Errorf("%s has %d shards of 32, want 10 or 11", id, len(shards))
		}
	}
}

// TestFingerprintsKeepTheirShards: between processes that decide differently no shard moves while one of the kind that holds it is there.
func TestFingerprintsKeepTheirShards(t *testing.T) {
	f := fleetOf{}
	f.add("a", 1)
	f.add("b", 1)
	f.add("x", 2)
	first := f.assign(t, 1, 8, "a", "b")
	if got := f.assign(t, 2, 8, "a", "b", "x"); moved(first, got) != 0 {
		t.Errorf("%v after %v: shards moved to a process with other code", got, first)
	}
	if got := f.assign(t, 3, 8, "b", "x"); len(got["b"]) != 8 {
		t.Errorf("%v: the shards of a process that left went to one with other code", got)
	}
	if got := f.assign(t, 4, 8, "x"); len(got["x"]) != 8 {
		t.Errorf("%v", got)
	}
	f.add("c", 1)
	if got := f.assign(t, 5, 8, "c", "x"); len(got["x"]) != 8 {
		t.Errorf("%v: shards went back to the old code", got)
	}
	// One that was away for some generations claims what it held then, in vain.
	f.add("y", 2)
	late := f.assign(t, 9, 8, "x", "y")
	if got := f.assign(t, 10, 8, "a", "x", "y"); moved(late, got) != 0 {
		t.Errorf("%v after %v: a process that was away took shards", got, late)
	}
}
