package pipeline

import (
	"fmt"
	"math/rand/v2"
	"reflect"
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
