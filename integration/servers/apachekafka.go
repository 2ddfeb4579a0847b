package servers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// kafkaHeap is the heap of one broker.
	kafkaHeap = "-Xmx320m"
	// clusterID is any 16 bytes in base64.
	clusterID = "c2lnbmluZGlhZy10ZXN0cw"
	// logTailBytes bounds what of a broker's log goes into a failed test's output.
	logTailBytes = 6000
)

func init() {
	register(backend{
		name:   "kafka",
		shared: func(t testing.TB) *Set { return NewSet(t, SharedApacheKafka(t), SharedClickHouse(t)) },
		own: func(t testing.TB, o Options) *Set {
			return NewSet(t, StartApacheKafka(t, KafkaOptions{Nodes: o.Nodes}), StartClickHouse(t))
		},
	})
}

// KafkaOptions configure an Apache Kafka. The zero value is one broker without security.
type KafkaOptions struct {
	// Nodes is the number of brokers, each a controller too; 0 means 1.
	Nodes int
	// Certificates are what brokers show and trust; nil means no TLS. ClientCertificates demands one of clients.
	Certificates       *Certificates
	ClientCertificates bool
	// Users by name with their passwords turn SASL on, with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 for each.
	Users map[string]string
	// Advertise is host:port that clients are told instead of a single broker's own, for a proxy in front of it.
	Advertise string
	// Properties are added to server.properties.
	Properties map[string]string
}

// kafkaNode is one broker.
type kafkaNode struct {
	kafka      *apacheKafka
	id         int
	dir        string
	properties string
	address    string // For clients.
	internal   string // For brokers, without security.

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// StartApacheKafka starts an Apache Kafka in KRaft mode on loopback for this test alone, and ends it with the test. Without java
// or its jars the test is skipped with the reason, or fails when SIGNINDIAG_TEST_REQUIRE contains "java".
func StartApacheKafka(t testing.TB, o KafkaOptions) *Kafka {
	t.Helper()
	program, err := findApacheKafka()
	if err != nil {
		SkipOrFail(t, "java", err)
	}
	k, nodes, err := newApacheKafka(program, t.TempDir(), FreePorts(t, 3*max(o.Nodes, 1)), o)
	t.Cleanup(func() { endApacheKafka(t, nodes) })
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		k.Controls = append(k.Controls, &Control{
			Start: func(t testing.TB) {
				t.Helper()
				if err := n.start(); err != nil {
					t.Fatal(err)
				}
			},
			Stop: func(t testing.TB) { t.Helper(); n.end(t, syscall.SIGTERM) },
			Kill: func(t testing.TB) { t.Helper(); n.end(t, syscall.SIGKILL) },
			PID:  n.pid,
		})
	}
	return k
}

// endApacheKafka kills what still runs, and shows the logs of a test that failed.
func endApacheKafka(t testing.TB, nodes []*kafkaNode) {
	for _, n := range nodes {
		n.end(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("end of the log of Kafka node %d: %s", n.id, n.logTail())
		}
	}
}

// shared is the one Apache Kafka of this test binary.
var shared struct {
	once  sync.Once
	dir   string
	nodes []*kafkaNode
	kafka *Kafka
	err   error
}

// SharedApacheKafka returns the one Apache Kafka of this test binary, one broker without security, and starts it on the
// first call. It skips and fails like StartApacheKafka.
func SharedApacheKafka(t testing.TB) *Kafka {
	t.Helper()
	program, err := findApacheKafka()
	if err != nil {
		SkipOrFail(t, "java", err)
	}
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "signindiag-kafka-"); shared.err == nil {
			shared.kafka, shared.nodes, shared.err = newApacheKafka(program, shared.dir, FreePorts(t, 3), KafkaOptions{})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of the shared Kafka: %s", shared.nodes[0].logTail())
		}
	})
	return shared.kafka
}

func stopSharedKafka() error {
	shared.once.Do(func() { shared.err = errors.New("the tests are over") })
	for _, n := range shared.nodes {
		n.kill()
	}
	if shared.dir == "" {
		return nil
	}
	return os.RemoveAll(shared.dir)
}

// newApacheKafka formats and starts all nodes. What it returns is to be ended also after an error. Each node takes three of the
// ports: for clients, for brokers among themselves and for controllers.
func newApacheKafka(program *apacheKafka, dir string, ports []int, o KafkaOptions) (*Kafka, []*kafkaNode, error) {
	count := max(o.Nodes, 1)
	var voters []string
	for id := range count {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", id, ports[3*id+2]))
	}
	k := &Kafka{Replication: count, TLS: o.Certificates != nil}
	if k.TLS {
		k.CAFile = o.Certificates.CAFile
	}
	var nodes []*kafkaNode
	for id := range count {
		n := &kafkaNode{
			kafka: program, id: id, dir: filepath.Join(dir, fmt.Sprintf("node-%d", id)), address: fmt.Sprintf("127.0.0.1:%d", ports[3*id]),
			internal: fmt.Sprintf("127.0.0.1:%d", ports[3*id+1]),
		}
		k.Brokers = append(k.Brokers, n.address)
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return k, nodes, err
		}
		n.properties = filepath.Join(n.dir, "server.properties")
		if err := os.WriteFile(n.properties, n.configuration(ports[3*id:], voters, o), 0o600); err != nil {
			return k, nodes, err
		}
		nodes = append(nodes, n)
	}
	if err := together(nodes, func(n *kafkaNode) error {
		if err := n.format(o.Users); err != nil {
			return err
		}
		return n.start()
	}); err != nil {
		return k, nodes, err
	}
	return k, nodes, together(nodes, func(n *kafkaNode) error { return n.await(len(nodes)) })
}

// together does something for every node at once: nodes wait for one another.
func together(nodes []*kafkaNode, do func(*kafkaNode) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// configuration is server.properties. Clients come in by the listener CLIENT, with what security there is; brokers speak with
// one another by BROKER, which has none.
func (n *kafkaNode) configuration(ports []int, voters []string, o KafkaOptions) []byte {
	replicas := min(len(voters), 3)
	protocol := "PLAINTEXT"
	properties := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          fmt.Sprint(n.id),
		"controller.quorum.voters":                         strings.Join(voters, ","),
		"listeners":                                        fmt.Sprintf("CLIENT://127.0.0.1:%d,BROKER://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", ports[0], ports[1], ports[2]),
		"advertised.listeners":                             fmt.Sprintf("CLIENT://127.0.0.1:%d,BROKER://127.0.0.1:%d", ports[0], ports[1]),
		"controller.listener.names":                        "CONTROLLER",
		"inter.broker.listener.name":                       "BROKER",
		"log.dirs":                                         filepath.Join(n.dir, "data"),
		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       fmt.Sprint(replicas),
		"num.partitions":                                   "1",
		"num.network.threads":                              "2",
		"num.io.threads":                                   "2",
		"background.threads":                               "2",
		"num.replica.fetchers":                             "1",
		"log.cleaner.dedupe.buffer.size":                   "4194304",
		"log.cleaner.threads":                              "1",
		"group.initial.rebalance.delay.ms":                 "0",
		"group.min.session.timeout.ms":                     "1000",
		"offsets.topic.num.partitions":                     "4",
		"offsets.topic.replication.factor":                 fmt.Sprint(replicas),
		"transaction.state.log.num.partitions":             "1",
		"transaction.state.log.replication.factor":         fmt.Sprint(replicas),
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.num.partitions":     "1",
		"share.coordinator.state.topic.replication.factor": fmt.Sprint(replicas),
		"share.coordinator.state.topic.min.isr":            "1",
		// A dead broker is noticed after this, and its partitions get other leaders.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
		"controlled.shutdown.enable":   "true",
		"delete.topic.enable":          "true",
	}
	if o.Certificates != nil {
		protocol = "SSL"
		properties["listener.name.client.ssl.keystore.type"] = "PEM"
		properties["listener.name.client.ssl.keystore.location"] = o.Certificates.serverPEM
		properties["listener.name.client.ssl.truststore.type"] = "PEM"
		properties["listener.name.client.ssl.truststore.location"] = o.Certificates.CAFile
		if o.ClientCertificates {
			properties["listener.name.client.ssl.client.auth"] = "required"
		}
	}
	if len(o.Users) > 0 {
		protocol = map[string]string{"PLAINTEXT": "SASL_PLAINTEXT", "SSL": "SASL_SSL"}[protocol]
		properties["listener.name.client.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
		module := "org.apache.kafka.common.security.plain.PlainLoginModule required"
		for user, password := range o.Users {
			module += fmt.Sprintf(` user_%s="%s"`, user, password)
		}
		properties["listener.name.client.plain.sasl.jaas.config"] = module + ";"
		for _, mechanism := range []string{"scram-sha-256", "scram-sha-512"} {
			properties["listener.name.client."+mechanism+".sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
		}
	}
	properties["listener.security.protocol.map"] = "CLIENT:" + protocol + ",BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT"
	if o.Advertise != "" {
		properties["advertised.listeners"] = fmt.Sprintf("CLIENT://%s,BROKER://127.0.0.1:%d", o.Advertise, ports[1])
	}
	for name, value := range o.Properties {
		properties[name] = value
	}
	var b bytes.Buffer
	names := make([]string, 0, len(properties))
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(properties[name], `\`, `\\`))
	}
	return b.Bytes()
}

// java returns a command that runs a class of Kafka.
func (n *kafkaNode) java(class string, arguments ...string) *exec.Cmd {
	c := exec.Command(n.kafka.java, append([]string{
		kafkaHeap, "-Xms64m", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-cp", n.kafka.classPath, class,
	}, arguments...)...)
	c.Dir = n.dir
	// Debian's OpenJDK 17.0.15 was seen to die under load at an unrelocated address (0xc456) of libjava.so, that of a call which is
	// bound on first use; so all are bound at the start.
	c.Env = append(os.Environ(), "LD_BIND_NOW=1")
	c.SysProcAttr = childAttributes()
	return c
}

// format prepares the directory, with the users' SCRAM credentials.
func (n *kafkaNode) format(users map[string]string) error {
	arguments := []string{"format", "--config", n.properties, "--cluster-id", clusterID}
	for user, password := range users {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			arguments = append(arguments, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, user, password))
		}
	}
	if out, err := n.java("kafka.tools.StorageTool", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of Kafka node %d: %w\n%s", n.id, err, out)
	}
	return nil
}

// start starts the node and waits until it serves.
func (n *kafkaNode) start() error {
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := n.java("kafka.Kafka", n.properties)
	cmd.Stdout, cmd.Stderr = log, log
	started := make(chan error)
	done := make(chan struct{})
	go func() {
		// The kernel kills the child when the thread that started it ends, so this goroutine keeps its thread.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed at the end
			close(done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start Kafka node %d: %w", n.id, err)
	}
	n.mu.Lock()
	n.cmd, n.done = cmd, done
	n.mu.Unlock()
	return n.await(1)
}

// await waits until the node serves and knows so many brokers.
func (n *kafkaNode) await(brokers int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(n.internal))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	n.mu.Lock()
	done := n.done
	n.mu.Unlock()
	for {
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = []kmsg.MetadataRequestTopic{} // none
		response, err := client.SeedBrokers()[0].Request(ctx, request)
		if err == nil && len(response.(*kmsg.MetadataResponse).Brokers) >= brokers {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("Kafka node %d ended while it started: %s", n.id, n.logTail())
		case <-ctx.Done():
			return fmt.Errorf("Kafka node %d does not serve with %d brokers after %s: %w; end of its log: %s",
				n.id, brokers, startTimeout, cmp.Or(err, ctx.Err()), n.logTail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// end sends the signal and waits for the end; a node that has ended before is left.
func (n *kafkaNode) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	select {
	case <-n.done: // Its process id may belong to somebody else by now.
	default:
		_ = syscall.Kill(-n.cmd.Process.Pid, signal)
	}
	select {
	case <-n.done:
	case <-time.After(startTimeout):
		_ = killGroup(n.cmd)
		<-n.done
		t.Errorf("Kafka node %d did not end within %s and was killed", n.id, startTimeout)
	}
	n.cmd = nil
}

// kill ends the node at once.
func (n *kafkaNode) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = killGroup(n.cmd)
		<-n.done
		n.cmd = nil
	}
}

func (n *kafkaNode) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

func (n *kafkaNode) logPath() string { return filepath.Join(n.dir, "kafka.log") }

func (n *kafkaNode) logTail() string {
	text, err := os.ReadFile(n.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTailBytes):])
}

// killGroup kills a process and those that it started.
func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
