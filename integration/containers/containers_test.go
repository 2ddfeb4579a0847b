package containers

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/signindiag/signindiag/integration/servers"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/synthetic"
)

func TestMain(m *testing.M) { servers.Main(m) }

const (
	// waitLong bounds waiting for something that has to happen; it is far above what it takes.
	waitLong = 3 * time.Minute
	// rawTopic is what run reads unless told otherwise.
	rawTopic = "signindiag.raw"
)

// ownImage is the image of deploy/Dockerfile.
func ownImage() string { return cmp.Or(os.Getenv("SIGNINDIAG_TEST_IMAGE"), "signindiag:local") }

// instance is a `signindiag run` in a container.
type instance struct {
	*servers.Container
	// url is where this machine reaches its API.
	url string
}

// startInstance runs signindiag's own image as docker-compose.yml does, on the servers that are in the network. It is ready when
// its API answers, which is before rows flow.
func startInstance(t *testing.T, n *servers.Containers, c *servers.ClickHouse, name string, host func(*container.HostConfig), variables map[string]string) *instance {
	t.Helper()
	port := servers.FreePorts(t, 1)[0]
	environment := map[string]string{
		"SIGNINDIAG_KAFKA_BROKERS": "kafka-0:9092", "SIGNINDIAG_KAFKA_ENTITIES_PARTITIONS": "6", "SIGNINDIAG_KAFKA_CREATE_TOPICS": "true",
		"SIGNINDIAG_CLICKHOUSE_ADDRESSES": "clickhouse:9000", "SIGNINDIAG_CLICKHOUSE_DATABASE": c.Database,
		"SIGNINDIAG_CLICKHOUSE_USERNAME": c.Username, "SIGNINDIAG_CLICKHOUSE_PASSWORD": c.Password,
	}
	for name, value := range variables {
		environment[name] = value
	}
	i := &instance{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	i.Container = n.Run(t, servers.Request{
		Name: name, Image: ownImage(), Environment: environment, Ports: map[string]int{"8480/tcp": port},
		Host: func(h *container.HostConfig) {
			h.ReadonlyRootfs, h.CapDrop, h.SecurityOpt = true, []string{"ALL"}, []string{"no-new-privileges:true"}
			if host != nil {
				host(h)
			}
		},
		Ready: func(ctx context.Context) error {
			_, _, err := get(ctx, i.url+"/healthz")
			return err
		},
	})
	return i
}

// get returns status and body of an answer.
func get(ctx context.Context, url string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// until waits for a condition; it fails with what the condition said last.
func until(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(waitLong)
	for {
		done, last := condition()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s: %s", what, last)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// awaitRows waits until every one of the request ids has its row, and no other.
func awaitRows(t *testing.T, c *servers.ClickHouse, want int) {
	t.Helper()
	conn := c.Open(t)
	until(t, fmt.Sprintf("%d rows are there", want), func() (bool, string) {
		var rows, ids uint64
		if err := conn.QueryRow(t.Context(), "SELECT count(), uniqExact(request_id) FROM diagnoses FINAL").Scan(&rows, &ids); err != nil {
			return false, err.Error()
		}
		if rows > uint64(want) {
			t.Fatalf("%d rows of %d request ids, more than the %d that were sent", rows, ids, want)
		}
		return rows == uint64(want) && ids == rows, fmt.Sprintf("%d rows of %d request ids", rows, ids)
	})
}

// feed sends made-up traffic to the raw topic.
type feed struct {
	t       *testing.T
	client  *kgo.Client
	traffic *synthetic.Traffic
	decoder *schemas.Decoder
	// ids are the request ids that were sent.
	ids map[string]bool
}

func newFeed(t *testing.T, k *servers.Kafka, seed uint64) *feed {
	t.Helper()
	traffic, err := synthetic.NewTraffic(synthetic.Options{Seed: seed, Rate: 5, Start: time.Now().UTC().Add(-24 * time.Hour).Truncate(time.Second), Batch: 10})
	if err != nil {
		t.Fatal(err)
	}
	return &feed{t: t, client: k.Client(t), traffic: traffic, decoder: schemas.NewDecoder(), ids: map[string]bool{}}
}

// send sends about so many records and returns when they are acknowledged.
func (f *feed) send(records int) {
	f.t.Helper()
	var batch []*kgo.Record
	for records > 0 {
		message, n := f.traffic.Next()
		records -= n
		message = slices.Clone(message)
		f.decoder.Decode(message, time.Time{}, func(_ int, d *schemas.Decoded) {
			if d.Kind != schemas.KindSignIn {
				f.t.Fatalf("the traffic holds what is no sign-in: %v", d.Err)
			}
			f.ids[strings.Clone(d.SignIn.RequestId)] = true
		})
		batch = append(batch, &kgo.Record{Topic: rawTopic, Value: message})
	}
	if err := f.client.ProduceSync(f.t.Context(), batch...).FirstErr(); err != nil {
		f.t.Fatalf("send records: %v", err)
	}
}

// verifyExact lets `signindiag verify` compare all that was sent with all that is there, inside the container of an instance.
func verifyExact(t *testing.T, i *instance) {
	t.Helper()
	var out string
	until(t, "everything that was sent has been worked on", func() (bool, string) {
		var code int
		out, code = i.Exec(t, "/signindiag", "verify", "--complete")
		return code == 0, out
	})
	t.Logf("verify:\n%s", out)
}
