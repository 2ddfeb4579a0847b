package pipeline

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// KafkaConfig says how the brokers are reached. Azure Event Hubs is Brokers "NAMESPACE.servicebus.windows.net:9093",
// TLS, SASLMechanism "PLAIN", Username "$ConnectionString" and the connection string as Password
// (https://learn.microsoft.com/azure/event-hubs/azure-event-hubs-apache-kafka-overview).
type KafkaConfig struct {
	// Brokers are the bootstrap addresses, host:port each.
	Brokers  []string
	ClientID string
	TLS      bool
	// TLSCAFile holds PEM certificates to trust instead of the system's.
	TLSCAFile string
	// TLSCertFile and TLSKeyFile are the client's own certificate, PEM.
	TLSCertFile, TLSKeyFile string
	// SASLMechanism is empty, PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	SASLMechanism      string
	Username, Password string
	// DialTimeout bounds a connection with its handshakes; 0 means 10 s.
	DialTimeout time.Duration
	// RequestTimeout bounds a request; 0 means 30 s, as Kafka's own clients.
	RequestTimeout time.Duration
}

// keepAlive is below the 240 s after which Event Hubs' load balancer cuts an idle connection.
const keepAlive = 60 * time.Second

// Kafka is a set of brokers. It is safe for concurrent use.
type Kafka struct {
	config    KafkaConfig
	dialer    *kafka.Dialer
	tls       *tls.Config
	mechanism sasl.Mechanism
	transport *kafka.Transport
	client    *kafka.Client
	bootstrap atomic.Uint32
	refused   atomic.Pointer[refusedUser]
	// connect makes a network connection; tests put one in that can be cut.
	connect func(ctx context.Context, network, address string) (net.Conn, error)
}

// OpenKafka checks the configuration and returns the brokers that it names. Nothing is connected yet. The
// caller closes it.
func OpenKafka(config KafkaConfig) (*Kafka, error) {
	if len(config.Brokers) == 0 {
		return nil, errors.New("no Kafka broker is configured")
	}
	for _, b := range config.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return nil, fmt.Errorf("Kafka broker %q is not host:port: %w", b, err)
		}
	}
	if config.DialTimeout == 0 {
		config.DialTimeout = 10 * time.Second
	}
	if config.RequestTimeout == 0 {
		config.RequestTimeout = 30 * time.Second
	}
	if config.ClientID == "" {
		config.ClientID = "signindiag"
	}
	k := &Kafka{config: config, connect: (&net.Dialer{KeepAlive: keepAlive}).DialContext}
	if config.TLS {
		k.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if config.TLSCAFile != "" {
			pem, err := os.ReadFile(config.TLSCAFile)
			if err != nil {
				return nil, fmt.Errorf("read certificates to trust for Kafka (SIGNINDIAG_KAFKA_TLS_CA_FILE): %w", err)
			}
			k.tls.RootCAs = x509.NewCertPool()
			if !k.tls.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read certificates to trust for Kafka (SIGNINDIAG_KAFKA_TLS_CA_FILE): %s holds no PEM certificate", config.TLSCAFile)
			}
		}
		if config.TLSCertFile != "" || config.TLSKeyFile != "" {
			pair, err := tls.LoadX509KeyPair(config.TLSCertFile, config.TLSKeyFile)
			if err != nil {
				return nil, fmt.Errorf("read the client certificate for Kafka (SIGNINDIAG_KAFKA_TLS_CERT_FILE, _KEY_FILE): %w", err)
			}
			k.tls.Certificates = []tls.Certificate{pair}
		}
	}
	var err error
	switch config.SASLMechanism {
	case "":
	case "PLAIN":
		k.mechanism = plain.Mechanism{Username: config.Username, Password: config.Password}
	case "SCRAM-SHA-256":
		k.mechanism, err = scram.Mechanism(scram.SHA256, config.Username, config.Password)
	case "SCRAM-SHA-512":
		k.mechanism, err = scram.Mechanism(scram.SHA512, config.Username, config.Password)
	default:
		err = errors.New("it is unknown, want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	if err != nil {
		return nil, fmt.Errorf("Kafka SASL mechanism %q: %w", config.SASLMechanism, err)
	}
	k.dialer = &kafka.Dialer{
		ClientID:      config.ClientID,
		Timeout:       config.DialTimeout,
		DialFunc:      k.dial,
		SASLMechanism: k.mechanism,
		TLS:           k.tls,
	}
	k.transport = &kafka.Transport{
		Dial:        k.dial,
		DialTimeout: config.DialTimeout,
		ClientID:    config.ClientID,
		TLS:         k.tls,
		SASL:        k.mechanism,
	}
	k.client = &kafka.Client{Addr: kafka.TCP(config.Brokers...), Timeout: config.RequestTimeout, Transport: k.transport}
	return k, nil
}

// Close ends the connections of the shared client. Readers and producers have their own.
func (k *Kafka) Close() { k.transport.CloseIdleConnections() }

func (k *Kafka) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return k.connect(ctx, network, address)
}

// TopicPartitions returns the topic's partitions with their leaders, by number. The error is
// kafka.UnknownTopicOrPartition where there is no such topic. It asks a broker, not a cache.
func (k *Kafka) TopicPartitions(ctx context.Context, topic string) ([]kafka.Partition, error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.RequestTimeout)
	defer cancel()
	if r := k.refused.Load(); r != nil && time.Since(r.at) < refusedPause {
		return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, r.err)
	}
	var failed error
	first := k.bootstrap.Load()
	for i := range uint32(len(k.config.Brokers)) {
		at := (first + i) % uint32(len(k.config.Brokers))
		parts, err := k.topicPartitions(ctx, k.config.Brokers[at], topic)
		var answer kafka.Error
		if err == nil || errors.As(err, &answer) {
			k.bootstrap.Store(at)
			if err != nil {
				return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, err)
			}
			slices.SortFunc(parts, func(a, b kafka.Partition) int { return a.ID - b.ID })
			return parts, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, fmt.Errorf("read the partitions of topic %s: %w", topic, failed)
}

// topicPartitions asks one broker. kafka-go's own request would have the broker make a missing topic, with its default number of
// partitions, where auto.create.topics.enable is on as Kafka has it by default.
func (k *Kafka) topicPartitions(ctx context.Context, broker, topic string) ([]kafka.Partition, error) {
	conn, err := k.dialBroker(ctx, broker)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	stop := context.AfterFunc(ctx, conn.close)
	defer stop()
	b := conn.begin(apiMetadata, versionMetadata)
	b = appendInt32(b, 1)
	b = appendString(b, topic)
	b = append(b, 0) // make no topic
	if err := conn.send(b, nil); err != nil {
		return nil, err
	}
	w, err := conn.receive(conn.timeout)
	if err != nil {
		return nil, k.explain(err)
	}
	w.int32() // throttle
	brokers := map[int32]kafka.Broker{}
	for range w.array() {
		if w.failed {
			break
		}
		id := w.int32()
		brokers[id] = kafka.Broker{ID: int(id), Host: w.string(), Port: int(w.int32())}
		w.string() // rack
	}
	w.string() // cluster
	w.int32()  // controller
	if w.array() != 1 {
		return nil, errProtocol
	}
	if code := kafka.Error(w.int16()); code != 0 {
		return nil, code
	}
	w.string() // name
	w.take(1)  // whether it is internal
	var parts []kafka.Partition
	for range w.array() {
		if w.failed {
			break
		}
		p := kafka.Partition{Topic: topic}
		if code := kafka.Error(w.int16()); code != 0 {
			p.Error = code
		}
		p.ID = int(w.int32())
		p.Leader = brokers[w.int32()]
		for range 2 { // replicas, and those in sync
			w.take(4 * w.array())
		}
		parts = append(parts, p)
	}
	if w.failed {
		return nil, errProtocol
	}
	return parts, nil
}

// refusedPause is how long a user that a broker has refused is not tried again. Every partition has connections of its
// own; together they would ask many times a second, and servers lock out who does.
const refusedPause = 5 * time.Second

// refusedUser is what a broker said when it refused the user, and when.
type refusedUser struct {
	at  time.Time
	err error
}

// explain adds to an error of a new connection which variable it is about, where that can be told.
func (k *Kafka) explain(err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	hint := ""
	switch {
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		hint = fmt.Sprintf("the broker refuses user %q: check SIGNINDIAG_KAFKA_SASL_USERNAME, SIGNINDIAG_KAFKA_SASL_PASSWORD and SIGNINDIAG_KAFKA_SASL_MECHANISM", k.config.Username)
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		hint = fmt.Sprintf("the broker does not offer SIGNINDIAG_KAFKA_SASL_MECHANISM=%s", k.config.SASLMechanism)
	case errors.Is(err, kafka.IllegalSASLState):
		hint = "the broker expects no user on this port: check SIGNINDIAG_KAFKA_SASL_MECHANISM"
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &verification):
		hint = "the broker's certificate is not trusted: check SIGNINDIAG_KAFKA_TLS_CA_FILE and the names in SIGNINDIAG_KAFKA_BROKERS"
	case errors.As(err, &header):
		hint = "the broker does not speak TLS on this port: check SIGNINDIAG_KAFKA_TLS"
	case k.tls != nil && strings.Contains(err.Error(), "remote error: tls:"):
		hint = "the broker wants another certificate of ours: check SIGNINDIAG_KAFKA_TLS_CERT_FILE and SIGNINDIAG_KAFKA_TLS_KEY_FILE"
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET):
		return err
	case k.tls == nil:
		hint = "a broker that is up closes a connection so where it expects TLS or a user: check SIGNINDIAG_KAFKA_TLS and SIGNINDIAG_KAFKA_SASL_MECHANISM"
	default:
		hint = "a broker that is up closes a connection so where it speaks no TLS or asks for a certificate: check SIGNINDIAG_KAFKA_TLS and SIGNINDIAG_KAFKA_TLS_CERT_FILE"
	}
	err = fmt.Errorf("%w (%s)", err, hint)
	if errors.Is(err, kafka.SASLAuthenticationFailed) {
		k.refused.Store(&refusedUser{time.Now(), err})
	}
	return err
}

// ListOffsets returns the first offset of a partition that is still there and the offset that its next record
// will get.
func (k *Kafka) ListOffsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	// The shared client may know an old leader for some seconds; a connection to the leader does not.
	conn, err := k.dialLeader(ctx, topic, partition)
	if err != nil {
		return 0, 0, fmt.Errorf("read the offsets of %s/%d: %w", topic, partition, err)
	}
	defer conn.close()
	if first, err = conn.listOffset(ctx, topic, partition, -2); err == nil {
		end, err = conn.listOffset(ctx, topic, partition, -1)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the offsets of %s/%d: %w", topic, partition, err)
	}
	return first, end, nil
}

// API keys and versions that are sent here, https://kafka.apache.org/protocol. Fetch 10 is the first that
// returns zstd batches (Kafka 2.1); Event Hubs and every broker since speak these.
const (
	apiProduce, versionProduce         = 0, 7
	apiFetch, versionFetch             = 1, 10
	apiListOffsets, versionListOffsets = 2, 2
	apiMetadata, versionMetadata       = 3, 4
)

// leaderConn is an authenticated connection to a broker, mostly the leader of a partition, that carries one request at a
// time. It is not safe for concurrent use; close is.
type leaderConn struct {
	net      net.Conn
	clientID string
	timeout  time.Duration
	id       int32
	request  []byte
	response []byte
	head     [8]byte
}

// dialLeader finds the partition's leader and connects to it.
func (k *Kafka) dialLeader(ctx context.Context, topic string, partition int) (*leaderConn, error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.DialTimeout+k.config.RequestTimeout)
	defer cancel()
	parts, err := k.TopicPartitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	if partition >= len(parts) || parts[partition].ID != partition {
		return nil, fmt.Errorf("partition %d is none of the %d of topic %s: %w", partition, len(parts), topic, kafka.UnknownTopicOrPartition)
	}
	leader := parts[partition].Leader
	if parts[partition].Error != nil || leader.Host == "" {
		return nil, fmt.Errorf("%s/%d has no leader: %w", topic, partition, errors.Join(parts[partition].Error, kafka.LeaderNotAvailable))
	}
	return k.dialBroker(ctx, net.JoinHostPort(leader.Host, strconv.Itoa(leader.Port)))
}

// dialBroker connects to a broker. kafka-go does the handshakes; the connection is then spoken to in plain protocol.
func (k *Kafka) dialBroker(ctx context.Context, address string) (*leaderConn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var inner net.Conn
	dialer := *k.dialer
	dialer.TLS = nil
	dialer.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		c, err := k.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if k.tls != nil {
			config := k.tls.Clone()
			if config.ServerName == "" {
				config.ServerName = host
			}
			secure := tls.Client(c, config)
			if err := secure.HandshakeContext(ctx); err != nil {
				c.Close()
				return nil, err
			}
			c = secure
		}
		inner = c
		return c, nil
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		if err = checkVersions(ctx, conn); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to Kafka broker %s: %w", address, k.explain(err))
	}
	return &leaderConn{net: inner, clientID: k.config.ClientID, timeout: k.config.RequestTimeout}, nil
}

// checkVersions returns an error that names the first request which the broker is too old or too new for.
func checkVersions(ctx context.Context, conn *kafka.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	versions, err := conn.ApiVersions()
	if err != nil {
		return err
	}
	for _, need := range []struct {
		name         string
		key, version int16
	}{{"Produce", apiProduce, versionProduce}, {"Fetch", apiFetch, versionFetch}, {"ListOffsets", apiListOffsets, versionListOffsets}, {"Metadata", apiMetadata, versionMetadata}} {
		for _, v := range versions {
			if v.ApiKey == need.key && (v.MinVersion > need.version || v.MaxVersion < need.version) {
				return fmt.Errorf("it speaks %s versions %d to %d, %d is needed (Kafka 2.1 or later)", need.name, v.MinVersion, v.MaxVersion, need.version)
			}
		}
	}
	return nil
}

func (c *leaderConn) close() {
	if c != nil {
		c.net.Close()
	}
}

// begin starts a request: the caller appends its body to the returned bytes and gives them to send.
func (c *leaderConn) begin(api, version int16) []byte {
	c.id++
	b := append(c.request[:0], 0, 0, 0, 0)
	b = appendInt16(b, api)
	b = appendInt16(b, version)
	b = appendInt32(b, c.id)
	return appendString(b, c.clientID)
}

// send writes the request, and tail behind it.
func (c *leaderConn) send(request, tail []byte) error {
	c.request = request
	binary.BigEndian.PutUint32(request, uint32(len(request)-4+len(tail)))
	if err := c.net.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	if len(tail) == 0 {
		_, err := c.net.Write(request)
		return err
	}
	buffers := net.Buffers{request, tail}
	_, err := buffers.WriteTo(c.net)
	return err
}

// maxResponse bounds a response in bytes, so that a broken length allocates nothing absurd.
const maxResponse = 512 << 20

// receive reads the response of the last request. Its bytes are valid until the next receive.
func (c *leaderConn) receive(wait time.Duration) (*wire, error) {
	if err := c.net.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.net, c.head[:]); err != nil {
		return nil, noEOF(err)
	}
	size := int(int32(binary.BigEndian.Uint32(c.head[:4]))) - 4
	if id := int32(binary.BigEndian.Uint32(c.head[4:])); id != c.id || size < 0 || size > maxResponse {
		return nil, fmt.Errorf("response %d of %d bytes where response %d was due: %w", id, size, c.id, errProtocol)
	}
	if cap(c.response) < size {
		c.response = make([]byte, size+size/4)
	}
	c.response = c.response[:size]
	if _, err := io.ReadFull(c.net, c.response); err != nil {
		return nil, noEOF(err)
	}
	return &wire{b: c.response}, nil
}

func (c *leaderConn) listOffset(ctx context.Context, topic string, partition int, at int64) (int64, error) {
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	b := c.begin(apiListOffsets, versionListOffsets)
	b = appendInt32(b, -1) // replica: none, a consumer
	b = append(b, 0)       // read uncommitted: up to the high watermark
	b = appendInt32(b, 1)
	b = appendString(b, topic)
	b = appendInt32(b, 1)
	b = appendInt32(b, int32(partition))
	b = appendInt64(b, at)
	if err := c.send(b, nil); err != nil {
		return 0, err
	}
	w, err := c.receive(c.timeout)
	if err != nil {
		return 0, err
	}
	w.int32() // throttle
	w.array()
	w.string()
	w.array()
	w.int32() // partition
	code := kafka.Error(w.int16())
	w.int64() // time
	offset := w.int64()
	if w.failed {
		return 0, errProtocol
	}
	if code != 0 {
		return 0, code
	}
	return offset, nil
}

// errProtocol is a response that is not what was asked for.
var errProtocol = errors.New("malformed response")

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendInt16(b []byte, v int16) []byte { return binary.BigEndian.AppendUint16(b, uint16(v)) }
func appendInt32(b []byte, v int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func appendInt64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }
func appendString(b []byte, s string) []byte {
	return append(appendInt16(b, int16(len(s))), s...)
}

// wire reads a response in order. After the first read past its end everything is zero and failed is set.
type wire struct {
	b      []byte
	failed bool
}

func (w *wire) take(n int) []byte {
	if w.failed || n < 0 || n > len(w.b) {
		w.failed = true
		return nil
	}
	v := w.b[:n:n]
	w.b = w.b[n:]
	return v
}

func (w *wire) int16() int16 {
	if v := w.take(2); v != nil {
		return int16(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (w *wire) int32() int32 {
	if v := w.take(4); v != nil {
		return int32(binary.BigEndian.Uint32(v))
	}
	return 0
}

func (w *wire) int64() int64 {
	if v := w.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// string returns a text field; null is empty.
func (w *wire) string() string { return string(w.take(int(max(w.int16(), 0)))) }

// array returns the length of an array; null is 0.
func (w *wire) array() int { return int(max(w.int32(), 0)) }

// bytes returns a byte field; null is empty.
func (w *wire) bytes() []byte { return w.take(int(max(w.int32(), 0))) }

// backoff spaces attempts: 20 ms at first, doubling to 5 s, each drawn from the upper half of its range.
type backoff struct{ attempt int }

func (b *backoff) reset() { b.attempt = 0 }

func (b *backoff) wait(ctx context.Context) error {
	d := min(20*time.Millisecond<<min(b.attempt, 10), 5*time.Second)
	b.attempt++
	d = d/2 + rand.N(d/2)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// persist calls try until it succeeds, with a pause in between, and returns an error only when ctx is done. It
// logs the first failure and then one every 30 s, and tells trouble, which may be nil, what is wrong.
func persist(ctx context.Context, log *slog.Logger, trouble *Trouble, what string, try func() error) error {
	var wait backoff
	var logged time.Time
	for {
		err := try()
		if err == nil {
			trouble.Clear()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		trouble.Set(fmt.Sprintf("%s: %v", what, err))
		if time.Since(logged) >= 30*time.Second {
			logged = time.Now()
			log.Warn("trying again", "what", what, "error", err)
		}
		if err := wait.wait(ctx); err != nil {
			return err
		}
	}
}

// Trouble holds why something does not get on, or nothing. It is safe for concurrent use; a nil *Trouble
// holds nothing.
type Trouble struct {
	reason atomic.Pointer[string]
	count  prometheus.Counter // of calls of Set; may be nil
}

// Set keeps reason.
func (t *Trouble) Set(reason string) {
	if t != nil {
		t.reason.Store(&reason)
		if t.count != nil {
			t.count.Inc()
		}
	}
}

// Clear forgets the reason.
func (t *Trouble) Clear() {
	if t != nil && t.reason.Load() != nil {
		t.reason.Store(nil)
	}
}

// Reason returns the reason, "" for none.
func (t *Trouble) Reason() string {
	if t == nil {
		return ""
	}
	if r := t.reason.Load(); r != nil {
		return *r
	}
	return ""
}
