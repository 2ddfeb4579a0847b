package containers

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/signindiag/signindiag/integration/servers"
)

// sessionTimeout is that of the instances' consumer groups, the shortest that they take.
const sessionTimeout = 6 * time.Second

// link is a way between two containers. It is cut by letting both drop what comes from the other, without a word: connections
// neither break nor are refused, packets are gone.
type link struct{ a, b *servers.Container }

func (l link) String() string { return l.a.Name + " - " + l.b.Name }

// filter inserts (-I) or deletes (-D) the rules of the cut, in the network namespaces of both containers.
func (l link) filter(t *testing.T, action string) {
	t.Helper()
	for _, side := range []struct{ at, from *servers.Container }{{l.a, l.b}, {l.b, l.a}} {
		command := exec.Command("nsenter", "--target", strconv.Itoa(side.at.Control().PID()), "--net",
			"iptables", "--wait", action, "INPUT", "--source", side.from.Address(t).String(), "--jump", "DROP")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("cut or mend %s: %v\n%s", l, err, out)
		}
	}
}

// TestNetworkCuts cuts the ways between three instances, Kafka and ClickHouse, one after the other and together, while records flow.
// Packets are dropped in silence, for longer than the session of the consumer groups. In the end every row is there, once and as
// it should be.
func TestNetworkCuts(t *testing.T) {
	for _, program := range []string{"nsenter", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			if servers.Require("containers") {
				t.Fatalf("containers are required here: %v", err)
			}
			t.Skipf("skipped: %v", err)
		}
	}
	n := servers.NewContainers(t)
	kafka := n.Kafka(t, 1, nil)
	clickHouse := n.ClickHouse(t)
	kafka.CreateTopic(t, rawTopic, 6)
	variables := map[string]string{"SIGNINDIAG_KAFKA_SESSION_TIMEOUT": sessionTimeout.String(), "SIGNINDIAG_SNAPSHOTS_INTERVAL": "2s"}
	var instances []*instance
	for i := range 3 {
		var host func(*container.HostConfig)
		if i > 0 { // one volume of snapshots for all
			first := instances[0].ID
			host = func(h *container.HostConfig) { h.VolumesFrom = []string{first} }
		}
		instances = append(instances, startInstance(t, n, clickHouse, fmt.Sprintf("signindiag-%d", i), host, variables))
	}
	broker, database := n.Container("kafka-0"), n.Container("clickhouse")
	f := newFeed(t, kafka, 21)
	f.send(2000)
	awaitRows(t, clickHouse, len(f.ids))

	to := func(server *servers.Container, which ...int) (links []link) {
		for _, i := range which {
			links = append(links, link{instances[i].Container, server})
		}
		return links
	}
	for _, cut := range []struct {
		name  string
		links []link
		// silent are the instances that must notice it: they are not ready.
		silent []int
		hold   time.Duration
	}{
		{"one instance from Kafka, longer than its session", to(broker, 0), []int{0}, 2 * sessionTimeout},
		{"one instance from ClickHouse", to(database, 1), []int{1}, sessionTimeout},
		{"Kafka from all", to(broker, 0, 1, 2), []int{0, 1, 2}, 2 * sessionTimeout},
		{"ClickHouse from all", to(database, 0, 1, 2), []int{0, 1, 2}, sessionTimeout},
		{"one instance from everything", append(to(broker, 2), to(database, 2)...), []int{2}, 2 * sessionTimeout},
		{"one instance from Kafka, shorter than its session", to(broker, 1), nil, sessionTimeout / 3},
	} {
		for _, l := range cut.links {
			l.filter(t, "-I")
		}
		began := time.Now()
		f.send(1000)
		for _, i := range cut.silent {
			until(t, fmt.Sprintf("%s is not ready (%s)", instances[i].Name, cut.name), func() (bool, string) {
				status, body, err := get(t.Context(), instances[i].url+"/readyz")
				return err == nil && status != 200, body
			})
		}
		time.Sleep(time.Until(began.Add(cut.hold)))
		f.send(1000)
		for _, l := range cut.links {
			l.filter(t, "-D")
		}
		mended := time.Now()
		for _, i := range instances {
			until(t, fmt.Sprintf("%s is ready again (%s)", i.Name, cut.name), func() (bool, string) {
				status, body, err := get(t.Context(), i.url+"/readyz")
				return err == nil && status == 200, body
			})
		}
		awaitRows(t, clickHouse, len(f.ids))
		t.Logf("%s: cut for %s, everything there %s after it was mended", cut.name, mended.Sub(began).Round(time.Second/10), time.Since(mended).Round(time.Second/10))
	}
	verifyExact(t, instances[0])
	for _, i := range instances {
		_, metrics, err := get(t.Context(), i.url+"/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, "go_memstats_heap_inuse_bytes") || strings.HasPrefix(line, "process_resident_memory_bytes") {
				t.Logf("%s: %s", i.Name, strings.TrimSpace(line))
			}
		}
		i.Control().Stop(t)
		if code := i.Inspect(t).State.ExitCode; code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM", i.Name, code)
		}
	}
}
