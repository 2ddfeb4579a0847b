package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	testcontainerslog "github.com/testcontainers/testcontainers-go/log"
	testcontainersnetwork "github.com/testcontainers/testcontainers-go/network"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Images of servers in containers, by variables; `go run ./integration/images` builds some where no registry is reached.
const (
	kafkaImageVariable      = "SIGNINDIAG_TEST_KAFKA_IMAGE"
	kafkaImage              = "apache/kafka:4.3.1"
	clickHouseImageVariable = "SIGNINDIAG_TEST_CLICKHOUSE_IMAGE"
	clickHouseImage         = "clickhouse/clickhouse-server:25.8"
)

const (
	// pullTimeout bounds pulling one image.
	pullTimeout = 5 * time.Minute
	// stopTimeout is how long a container may take to stop before it is killed.
	stopTimeout = 30 * time.Second
	// Ports inside containers: of Kafka for other containers and for this machine, and of ClickHouse's native protocol.
	kafkaInside, kafkaOutside, clickHouseInside = "9092/tcp", "29092/tcp", "9000/tcp"
	clickHouseUser, clickHousePassword          = "signindiag", "a-password"
)

func init() {
	register(backend{
		name: "containers",
		shared: func(t testing.TB) *Set {
			kafka, clickHouse := sharedContainerServers(t)
			return NewSet(t, kafka, freshDatabase(t, clickHouse))
		},
		own: func(t testing.TB, o Options) *Set {
			if o.Nodes > 1 {
				t.Skip("skipped: several brokers run as processes, in the backend kafka")
			}
			n := NewContainers(t)
			return NewSet(t, n.Kafka(t, o.Nodes, nil), n.ClickHouse(t))
		},
	})
}

// Containers are containers in a network of their own. Their ports are published on loopback alone, under numbers that stay the
// same when a container is started again.
type Containers struct {
	// Network is the name of the network; containers find each other in it by their names.
	Network string

	client  *testcontainers.DockerClient
	network *testcontainers.DockerNetwork
	mu      sync.Mutex
	all     []*Container
}

// Container is one of Containers.
type Container struct {
	// Name is its name inside the network.
	Name string
	// ID is the container engine's.
	ID string

	in        *Containers
	container *testcontainers.DockerContainer
	ready     func(ctx context.Context) error
}

// NewContainers makes a network, which is removed with the test together with the containers in it. Without a container
// engine the test is skipped with the reason, or fails when SIGNINDIAG_TEST_REQUIRE contains "containers".
func NewContainers(t testing.TB) *Containers {
	t.Helper()
	n, err := newContainers()
	if err != nil {
		SkipOrFail(t, "containers", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, c := range n.containers() {
				t.Logf("end of the log of the container %s: %s", c.Name, c.LogTail())
			}
		}
		if err := n.close(); err != nil {
			t.Errorf("remove the containers of the test: %v", err)
		}
	})
	return n
}

func newContainers() (n *Containers, err error) {
	// What removes containers of tests that died is one more image; who runs the tests removes what has the label org.testcontainers.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return nil, err
	}
	testcontainerslog.SetDefault(testcontainerslog.NewNoopLogger())
	defer func() {
		if r := recover(); r != nil { // testcontainers panics where it finds no engine
			err = fmt.Errorf("no container engine answers: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	n = &Containers{}
	if n.client, err = testcontainers.NewDockerClientWithOpts(ctx); err != nil {
		return nil, fmt.Errorf("no container engine answers: %w", err)
	}
	if n.network, err = testcontainersnetwork.New(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make a network of containers: %w", err), n.client.Close())
	}
	n.Network = n.network.Name
	return n, nil
}

func (n *Containers) containers() []*Container {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// close removes containers with their volumes, and the network.
func (n *Containers) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var errs []error
	for _, c := range n.containers() {
		_, err := n.client.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, n.network.Remove(ctx), n.client.Close())...)
}

// Request is a container to run.
type Request struct {
	// Name is its name inside the network.
	Name, Image string
	Command     []string
	Environment map[string]string
	// Ports are those to publish, such as 9092/tcp, each with its port on loopback.
	Ports map[string]int
	// Host changes how the engine runs it; nil for no change.
	Host func(*container.HostConfig)
	// Ready is asked until it returns no error, also after each start; nil for a container that is ready when it runs.
	Ready func(ctx context.Context) error
}

// Run starts a container, after Pull.
func (n *Containers) Run(t testing.TB, r Request) *Container {
	t.Helper()
	n.Pull(t, r.Image)
	c, err := n.run(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Pull brings an image that is not here. One that cannot be pulled skips the test like a missing engine.
func (n *Containers) Pull(t testing.TB, image string) {
	t.Helper()
	if err := n.pull(image); err != nil {
		SkipOrFail(t, "containers", err)
	}
}

// pull brings an image that is not here.
func (n *Containers) pull(image string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pullTimeout)
	defer cancel()
	_, err := n.client.ImageInspect(ctx, image)
	if !errdefs.IsNotFound(err) {
		return err
	}
	progress, err := n.client.ImagePull(ctx, image, client.ImagePullOptions{})
	if err == nil {
		err = errors.Join(progress.Wait(ctx), progress.Close())
	}
	if err != nil {
		return fmt.Errorf("the image %s is not here and cannot be pulled: %w", image, err)
	}
	return nil
}

func (n *Containers) run(r Request) (*Container, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	bindings := network.PortMap{}
	var exposed []string
	for inside, outside := range r.Ports {
		exposed = append(exposed, inside)
		bindings[network.MustParsePort(inside)] = []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: strconv.Itoa(outside)}}
	}
	options := []testcontainers.ContainerCustomizer{
		testcontainers.WithEnv(r.Environment), testcontainers.WithExposedPorts(exposed...),
		testcontainersnetwork.WithNetworkName([]string{r.Name}, n.Network),
		testcontainers.WithConfigModifier(func(c *container.Config) { c.Hostname = r.Name }),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.PortBindings = bindings
			if r.Host != nil {
				r.Host(h)
			}
		}),
	}
	if len(r.Command) > 0 {
		options = append(options, testcontainers.WithCmd(r.Command...))
	}
	started, err := testcontainers.Run(ctx, r.Image, options...)
	c := &Container{Name: r.Name, in: n, container: started, ready: r.Ready}
	if started != nil {
		c.ID = started.GetContainerID()
		n.mu.Lock()
		n.all = append(n.all, c)
		n.mu.Unlock()
	}
	if err != nil {
		return c, fmt.Errorf("start the container %s of %s: %w", r.Name, r.Image, err)
	}
	return c, c.await(ctx)
}

// await waits until the container is ready.
func (c *Container) await(ctx context.Context) error {
	for c.ready != nil {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := c.ready(asked)
		cancel()
		if err == nil {
			return nil
		}
		state, stateErr := c.container.State(ctx)
		if stateErr != nil || !state.Running || ctx.Err() != nil {
			return fmt.Errorf("the container %s is not ready: %w; end of its log: %s", c.Name, err, c.LogTail())
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// LogTail returns the end of what the container printed.
func (c *Container) LogTail() string {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	reader, err := c.container.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer reader.Close()
	text, err := io.ReadAll(reader)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTailBytes):])
}

// Inspect returns what the engine knows of the container.
func (c *Container) Inspect(t testing.TB) *container.InspectResponse {
	t.Helper()
	answer, err := c.container.Inspect(context.Background())
	if err != nil {
		t.Fatalf("inspect the container %s: %v", c.Name, err)
	}
	return answer
}

// Changes returns what the container wrote outside of its volumes.
func (c *Container) Changes(t testing.TB) []string {
	t.Helper()
	answer, err := c.in.client.ContainerDiff(context.Background(), c.ID, client.ContainerDiffOptions{})
	if err != nil {
		t.Fatalf("look what the container %s has changed: %v", c.Name, err)
	}
	var paths []string
	for _, change := range answer.Changes {
		paths = append(paths, change.Path)
	}
	return paths
}

// Address returns the container's address inside the network.
func (c *Container) Address(t testing.TB) netip.Addr {
	t.Helper()
	endpoint := c.Inspect(t).NetworkSettings.Networks[c.in.Network]
	if endpoint == nil || !endpoint.IPAddress.IsValid() {
		t.Fatalf("the container %s has no address in its network", c.Name)
	}
	return endpoint.IPAddress
}

// Exec runs a command inside the container and returns what it printed, standard error included, and its exit code.
func (c *Container) Exec(t testing.TB, command ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	code, output, err := c.container.Exec(ctx, command, tcexec.Multiplexed())
	if err != nil {
		t.Fatalf("run %v in the container %s: %v", command, c.Name, err)
	}
	text, err := io.ReadAll(output)
	if err != nil {
		t.Fatalf("read what %v prints in the container %s: %v", command, c.Name, err)
	}
	return string(text), code
}

// Control returns what stops, kills, pauses and starts the container.
func (c *Container) Control() *Control {
	do := func(what string, act func(ctx context.Context) error) func(testing.TB) {
		return func(t testing.TB) {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
			defer cancel()
			if err := act(ctx); err != nil {
				t.Fatalf("%s the container %s: %v", what, c.Name, err)
			}
		}
	}
	stop := func(after time.Duration) func(ctx context.Context) error {
		return func(ctx context.Context) error { return c.container.Stop(ctx, &after) }
	}
	return &Control{
		Stop: do("stop", stop(stopTimeout)),
		Kill: do("kill", stop(0)), // SIGKILL after no time
		Start: do("start", func(ctx context.Context) error {
			if err := c.container.Start(ctx); err != nil {
				return err
			}
			return c.await(ctx)
		}),
		Pause: do("pause", func(ctx context.Context) error {
			_, err := c.in.client.ContainerPause(ctx, c.ID, client.ContainerPauseOptions{})
			return err
		}),
		Resume: do("resume", func(ctx context.Context) error {
			_, err := c.in.client.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{})
			return err
		}),
		PID: func() int {
			state, err := c.container.State(context.Background())
			if err != nil {
				return 0
			}
			return state.Pid
		},
	}
}

// Container returns a container by its name; nil where there is none.
func (n *Containers) Container(name string) *Container {
	for _, c := range n.containers() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Kafka starts brokers, each a controller too. Other containers reach them as kafka-0:9092, kafka-1:9092 ... Variables KAFKA_* are
// added to those of every broker.
func (n *Containers) Kafka(t testing.TB, nodes int, variables map[string]string) *Kafka {
	t.Helper()
	image := imageOr(kafkaImageVariable, kafkaImage)
	n.Pull(t, image)
	k, err := n.kafka(image, FreePorts(t, max(nodes, 1)), variables)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (n *Containers) kafka(image string, ports []int, variables map[string]string) (*Kafka, error) {
	k := &Kafka{Replication: len(ports)}
	var voters []string
	for id, port := range ports {
		voters = append(voters, fmt.Sprintf("%d@kafka-%d:9093", id, id))
		k.Brokers = append(k.Brokers, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	replicas := strconv.Itoa(min(len(ports), 3))
	containers := make([]*Container, len(ports))
	errs := make([]error, len(ports))
	var all sync.WaitGroup
	for id, port := range ports {
		environment := map[string]string{
			"CLUSTER_ID":                                             clusterID,
			"KAFKA_NODE_ID":                                          strconv.Itoa(id),
			"KAFKA_PROCESS_ROLES":                                    "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                         strings.Join(voters, ","),
			"KAFKA_CONTROLLER_LISTENER_NAMES":                        "CONTROLLER",
			"KAFKA_INTER_BROKER_LISTENER_NAME":                       "INSIDE",
			"KAFKA_LISTENERS":                                        "INSIDE://:9092,CONTROLLER://:9093,OUTSIDE://:29092",
			"KAFKA_ADVERTISED_LISTENERS":                             fmt.Sprintf("INSIDE://kafka-%d:9092,OUTSIDE://127.0.0.1:%d", id, port),
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":                   "INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTSIDE:PLAINTEXT",
			"KAFKA_LOG_DIRS":                                         "/var/lib/kafka/data",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                        "false",
			"KAFKA_DEFAULT_REPLICATION_FACTOR":                       replicas,
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "4",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 replicas,
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         replicas,
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                 "0",
			"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS":                     "1000",
			"KAFKA_BROKER_SESSION_TIMEOUT_MS":                        "3000",
			"KAFKA_BROKER_HEARTBEAT_INTERVAL_MS":                     "500",
			"KAFKA_LOG_CLEANER_DEDUPE_BUFFER_SIZE":                   "4194304",
			"KAFKA_HEAP_OPTS":                                        kafkaHeap,
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": replicas,
		}
		for name, value := range variables {
			environment[name] = value
		}
		all.Go(func() {
			containers[id], errs[id] = n.run(Request{
				Name: fmt.Sprintf("kafka-%d", id), Image: image, Environment: environment, Ports: map[string]int{kafkaOutside: port},
				Ready: func(ctx context.Context) error { return knowsBrokers(ctx, k.Brokers[id], len(ports)) },
			})
		})
	}
	all.Wait()
	for _, c := range containers {
		k.Controls = append(k.Controls, c.Control())
	}
	return k, errors.Join(errs...)
}

// knowsBrokers asks one broker whether it serves and knows that many.
func knowsBrokers(ctx context.Context, address string, brokers int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{} // none
	response, err := client.SeedBrokers()[0].Request(ctx, request)
	if err != nil {
		return err
	}
	if known := len(response.(*kmsg.MetadataResponse).Brokers); known < brokers {
		return fmt.Errorf("it knows %d brokers of %d", known, brokers)
	}
	return nil
}

// ClickHouse starts a server with a user who has a password. Other containers reach it as clickhouse:9000.
func (n *Containers) ClickHouse(t testing.TB) *ClickHouse {
	t.Helper()
	image := imageOr(clickHouseImageVariable, clickHouseImage)
	n.Pull(t, image)
	c, err := n.clickHouse(image, FreePorts(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *Containers) clickHouse(image string, port int) (*ClickHouse, error) {
	c := &ClickHouse{
		Addresses: []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, Username: clickHouseUser, Password: clickHousePassword,
		Database: "signindiag_test",
	}
	started, err := n.run(Request{
		Name: "clickhouse", Image: image, Ports: map[string]int{clickHouseInside: port},
		Environment: map[string]string{"CLICKHOUSE_USER": c.Username, "CLICKHOUSE_PASSWORD": c.Password, "CLICKHOUSE_DB": c.Database},
		Ready:       c.answers,
	})
	c.Control = started.Control()
	return c, err
}

// answers asks the server one query.
func (c *ClickHouse) answers(ctx context.Context) error {
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: c.Addresses, DialTimeout: 2 * time.Second,
		Auth: clickhouse.Auth{Username: c.Username, Password: c.Password, Database: c.Database}})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Exec(ctx, "SELECT 1")
}

// freshDatabase returns the server with a database of the test's own, dropped with it.
func freshDatabase(t testing.TB, server *ClickHouse) *ClickHouse {
	t.Helper()
	c := *server
	c.Control = nil // others use it too
	c.Database = fmt.Sprintf("signindiag_test_%d", names.Add(1))
	createDatabase(t, &c)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn := c.connect(t, "")
		defer conn.Close()
		if err := conn.Exec(ctx, "DROP DATABASE "+c.Database+" SYNC"); err != nil {
			t.Errorf("drop the database of the test: %v", err)
		}
	})
	return &c
}

// sharedContainers are those of this test binary.
var sharedContainers struct {
	once       sync.Once
	containers *Containers
	kafka      *Kafka
	clickHouse *ClickHouse
	missing    error // no engine or no image: a reason to skip
	err        error
}

func sharedContainerServers(t testing.TB) (*Kafka, *ClickHouse) {
	t.Helper()
	s := &sharedContainers
	s.once.Do(func() {
		if s.containers, s.missing = newContainers(); s.missing != nil {
			return
		}
		images := []string{imageOr(kafkaImageVariable, kafkaImage), imageOr(clickHouseImageVariable, clickHouseImage)}
		for _, image := range images {
			if s.missing = s.containers.pull(image); s.missing != nil {
				return
			}
		}
		ports := FreePorts(t, 2)
		if s.kafka, s.err = s.containers.kafka(images[0], ports[:1], nil); s.err == nil {
			s.clickHouse, s.err = s.containers.clickHouse(images[1], ports[1])
		}
	})
	if s.missing != nil {
		SkipOrFail(t, "containers", s.missing)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	k := *s.kafka
	k.Controls = nil // others use it too
	return &k, s.clickHouse
}

func stopSharedContainers() error {
	s := &sharedContainers
	s.once.Do(func() { s.err = errors.New("the tests are over") })
	if s.containers == nil {
		return nil
	}
	return s.containers.close()
}

// imageOr returns the image that the variable names, or the official one.
func imageOr(variable, official string) string {
	if image := os.Getenv(variable); image != "" {
		return image
	}
	return official
}
