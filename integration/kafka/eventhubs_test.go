package kafka

import (
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/integration/servers"
)

const (
	connectionString = "Endpoint=sb://example.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0"
	// maxEventHubsRequest is the size in bytes from which on Event Hubs refuses a request.
	maxEventHubsRequest = 1_046_528
)

// eventHubs is a broker with the ways of Azure Event Hubs, see deploy/event-hubs.md.
type eventHubs struct {
	kafka   *servers.Kafka
	cluster *kfake.Cluster
	// refused counts requests that it does not offer, cut the connections that were idle, largest is the largest batch in bytes.
	refused, cut, largest atomic.Int64
}

// startEventHubs starts it with the given hubs of four partitions. idle is how long a connection may be without a byte.
func startEventHubs(t *testing.T, idle time.Duration, hubs ...string) *eventHubs {
	t.Helper()
	e := &eventHubs{}
	certificates := servers.NewCertificates(t)
	var err error
	e.cluster, err = kfake.NewCluster(
		kfake.NumBrokers(1), kfake.SeedTopics(4, hubs...), kfake.EnableSASL(), kfake.Superuser("PLAIN", "$ConnectionString", connectionString),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "1048576"}),
		kfake.ListenFn(func(string, string) (net.Listener, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			return tls.NewListener(&idleListener{l, idle, &e.cut}, &tls.Config{Certificates: []tls.Certificate{certificates.Server}, MinVersion: tls.VersionTLS12}), nil
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.cluster.Close)
	// No topics are made, and no configuration is told or changed.
	for _, key := range []kmsg.Key{kmsg.DescribeConfigs, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs, kmsg.CreatePartitions, kmsg.InitProducerID, kmsg.DeleteRecords} {
		e.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			e.cluster.KeepControl()
			e.refused.Add(1)
			return nil, errors.New("not offered"), true // the connection is cut
		})
	}
	e.cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		e.refused.Add(1)
		response := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic, rt.ErrorCode = topic.Topic, kerr.PolicyViolation.Code
			response.Topics = append(response.Topics, rt)
		}
		return response, nil, true
	})
	e.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		size := int64(len(req.AppendTo(nil)))
		for now := e.largest.Load(); size > now && !e.largest.CompareAndSwap(now, size); now = e.largest.Load() {
		}
		if size >= maxEventHubsRequest {
			return nil, errors.New("too large"), true
		}
		return nil, nil, false
	})
	e.kafka = &servers.Kafka{
		Brokers: e.cluster.ListenAddrs(), Replication: 1, TLS: true, CAFile: certificates.CAFile,
		SASLMechanism: "PLAIN", Username: "$ConnectionString", Password: connectionString,
	}
	return e
}

// idleListener cuts connections that were idle for so long.
type idleListener struct {
	net.Listener
	idle time.Duration
	cut  *atomic.Int64
}

func (l *idleListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	i := &idleConn{Conn: c, idle: l.idle}
	i.timer = time.AfterFunc(l.idle, func() {
		l.cut.Add(1)
		c.Close()
	})
	return i, nil
}

type idleConn struct {
	net.Conn
	idle  time.Duration
	timer *time.Timer
}

func (c *idleConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.touch(err)
	return n, err
}

func (c *idleConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.touch(err)
	return n, err
}

func (c *idleConn) touch(err error) {
	if err != nil {
		c.timer.Stop()
	} else {
		c.timer.Reset(c.idle)
	}
}

// TestEventHubs: the whole way on a broker with Event Hubs' ways, with idle connections cut between the records.
func TestEventHubs(t *testing.T) {
	e := startEventHubs(t, 2*time.Second, "insights-logs", "entities")
	s := servers.NewSet(t, e.kafka, servers.SharedClickHouse(t))
	s.RawTopic, s.EntitiesTopic = "insights-logs", "entities"
	r := start(t, s, "SIGNINDIAG_KAFKA_CREATE_TOPICS=false")
	r.Ready()
	r.WaitFor(`level=WARN msg="retention of the topic cannot be read`)
	sent := 0
	for range 3 {
		send(t, s, sent, sent+3000)
		sent += 3000
		exactly(t, s, sent)
		before := e.cut.Load()
		program.Wait(t, "idle connections to be cut", func() bool { return e.cut.Load() > before })
		r.Ready()
	}
	if r.Metric("signindiag_quarantined_total", "") != 0 {
		t.Error("records went to quarantine")
	}
	if got := e.largest.Load(); got == 0 || got >= maxEventHubsRequest {
		t.Errorf("the largest request has %d bytes", got)
	}
	t.Logf("%d idle connections cut, %d requests refused, the largest write has %d bytes", e.cut.Load(), e.refused.Load(), e.largest.Load())
	r.Stop()
	hidden(t, r, connectionString)
}

// TestEventHubsWithoutHub: a hub that is missing has to be made in the portal.
func TestEventHubsWithoutHub(t *testing.T) {
	e := startEventHubs(t, time.Minute, "insights-logs")
	s := servers.NewSet(t, e.kafka, servers.SharedClickHouse(t))
	s.RawTopic, s.EntitiesTopic = "insights-logs", "entities"
	r := start(t, s, "SIGNINDIAG_KAFKA_CREATE_TOPICS=false")
	if code, _ := r.Ended(); code != 1 {
		t.Errorf("run ends with %d", code)
	}
	r.WaitFor(`topic entities does not exist .*4 partitions and a retention of 168h0m0s, on Event Hubs as an event hub in the portal`)
	s.RawTopic, s.EntitiesTopic = "another", "insights-logs"
	r = start(t, s, "SIGNINDIAG_KAFKA_CREATE_TOPICS=false")
	r.Unready(`there is no topic another: .*in the portal`)
	r.WaitFor(`level=WARN .*there is no topic another`)
	r.Stop()
}
