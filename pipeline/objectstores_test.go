package pipeline

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"gocloud.dev/blob"
)

// storeSecret stands in every place of the tests where a secret may stand.
const storeSecret = "hunter2hunter2hunter2"

// faultyStore passes requests on to an object store, or does to them what fault says.
type faultyStore struct {
	*httptest.Server
	url   string // of the store, as SIGNINDIAG_SNAPSHOTS_URL has it
	fault atomic.Pointer[func(w http.ResponseWriter, r *http.Request) (done bool)]
}

func newFaultyStore(t *testing.T, store http.Handler) *faultyStore {
	f := &faultyStore{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := f.fault.Load(); fault != nil && (*fault)(w, r) {
			return
		}
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	// Both SDKs use this one; its connections would outlive the test.
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return f
}

func (f *faultyStore) breakWith(fault func(w http.ResponseWriter, r *http.Request) bool) {
	f.fault.Store(&fault)
}
func (f *faultyStore) mend() { f.fault.Store(nil) }

// s3Store is S3's protocol over memory, with a bucket.
func s3Store(t *testing.T) *faultyStore {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", storeSecret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	backend := s3mem.New()
	if err := backend.CreateBucket("snapshots"); err != nil {
		t.Fatal(err)
	}
	f := newFaultyStore(t, gofakes3.New(backend).Server())
	f.url = "s3://snapshots?region=us-east-1&use_path_style=true&endpoint=" + url.QueryEscape(f.URL)
	return f
}

// azuriteVersion is that of Microsoft's emulator of Azure Storage, which npm brings.
const azuriteVersion = "3.37.0"

// azureKey is the key of all Azurites: gocloud.dev reads it from the environment once.
var azureKey = base64.StdEncoding.EncodeToString([]byte(crand.Text()))

// installAzurite returns azurite-blob, brought by npm into the user's cache directory on first need.
func installAzurite(t *testing.T) string {
	t.Helper()
	unavailable := func(why string) {
		t.Helper()
		if strings.Contains(os.Getenv("SIGNINDIAG_TEST_REQUIRE"), "azurite") {
			t.Fatalf("azurite is required here: %s", why)
		}
		t.Skip("skipped: " + why)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		unavailable("not installed: npm, which brings azurite")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		unavailable(err.Error())
	}
	dir := filepath.Join(cache, "signindiag", "test-azurite-"+azuriteVersion)
	binary := filepath.Join(dir, "node_modules", ".bin", "azurite-blob")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	making, err := os.MkdirTemp(filepath.Dir(dir), "making-azurite-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(making)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, npm, "install", "--prefix", making, "--no-audit", "--no-fund", "--ignore-scripts", "azurite@"+azuriteVersion).CombinedOutput(); err != nil {
		unavailable(fmt.Sprintf("npm does not bring azurite: %v\n%s", err, out))
	}
	if err := os.Rename(making, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, err := os.Stat(binary); err != nil { // another test binary may have been faster
			t.Fatal(err)
		}
	}
	return binary
}

// azureStore is an Azurite on loopback with a container.
func azureStore(t *testing.T) *faultyStore {
	t.Helper()
	binary := installAzurite(t)
	t.Setenv("AZURE_STORAGE_ACCOUNT", "account1")
	t.Setenv("AZURE_STORAGE_KEY", azureKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	cmd := exec.Command(binary, "--blobHost", "127.0.0.1", "--blobPort", port, "--skipApiVersionCheck", "--disableTelemetry", "--silent", "--location", t.TempDir())
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS=account1:"+azureKey)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse("http://127.0.0.1:" + port)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Transport{}
	t.Cleanup(proxy.CloseIdleConnections)
	f := newFaultyStore(t, forward(target, proxy))
	f.url = "azblob://snapshots?protocol=http&domain=" + strings.TrimPrefix(f.URL, "http://")
	b, err := blob.OpenBucket(t.Context(), f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var c *container.Client
	if !b.As(&c) {
		t.Fatal("no client of the container")
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	for deadline := time.Now().Add(3 * time.Minute); ; {
		conn, err := net.Dial("tcp", target.Host)
		if err == nil {
			conn.Close()
			if _, err = c.Create(t.Context(), nil); err == nil {
				break
			}
		}
		select {
		case <-exited:
			t.Fatalf("Azurite does not start: %v\n%s", err, out.String())
		case <-time.After(100 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatalf("Azurite does not take a container: %v", err)
			}
		}
	}
	return f
}

// forward passes requests on as they are, Host included, since it is signed.
func forward(target *url.URL, transport http.RoundTripper) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = target.Scheme, target.Host, ""
		res, err := transport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		for name, values := range res.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(res.StatusCode)
		buf := make([]byte, 64<<10)
		for {
			n, err := res.Body.Read(buf)
			if n > 0 {
				w.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	})
}

// objectStores runs a test on every object store.
func objectStores(t *testing.T, test func(t *testing.T, f *faultyStore)) {
	t.Run("s3", func(t *testing.T) { test(t, s3Store(t)) })
	t.Run("azblob", func(t *testing.T) { test(t, azureStore(t)) })
}

// TestObjectStores writes, lists, reads and thins through the stores' own protocols.
func TestObjectStores(t *testing.T) {
	objectStores(t, func(t *testing.T, f *faultyStore) {
		ctx := t.Context()
		store, err := OpenSnapshots(ctx, f.url, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		const topic = "signindiag.entities.v1"
		if names, err := store.List(ctx, topic, 3); err != nil || len(names) != 0 {
			t.Fatalf("an empty store lists %v: %v", names, err)
		}
		for _, offset := range []int64{-1, 7, 9, 11, 1 << 40} {
			s := exampleSnapshot(offset)
			s.Taken += offset % 1000
			s.State = make([]byte, 6<<20) // a multipart upload where the store has such
			crand.Read(s.State[:1<<20])
			if _, err := store.Write(ctx, s); err != nil {
				t.Fatal(err)
			}
			names, err := store.List(ctx, topic, 3)
			if err != nil || names[len(names)-1].Offset != offset {
				t.Fatalf("%v: %v", names, err)
			}
			got, err := store.Read(ctx, names[len(names)-1])
			if err != nil || !bytes.Equal(got.State, s.State) || got.Hash != s.Hash {
				t.Fatalf("read back at offset %d: %v", offset, err)
			}
		}
		if newest, ok, err := store.Thin(ctx, topic, 3, 1, 2, 8); err != nil || !ok || newest.Offset != 7 {
			t.Fatal(newest, ok, err)
		}
		names, err := store.List(ctx, topic, 3)
		if err != nil {
			t.Fatal(err)
		}
		var offsets []int64
		for _, n := range names {
			offsets = append(offsets, n.Offset)
		}
		// Of one hour the newest three are kept, and 7, which is the newest at or below 8.
		if slices.Contains(offsets, -1) || !slices.Contains(offsets, 7) || len(offsets) < 3 {
			t.Errorf("offsets %v are kept", offsets)
		}
		part := rawPartition{RawTopic{Name: "raw", Incarnation: 1}, 2}
		if _, ok, err := store.readMark(ctx, topic, part); ok || err != nil {
			t.Errorf("a mark before it is written: %v, %v", ok, err)
		}
		mark := commitMetadata{Incarnation: 1, Entities: topic, Partitions: 4, EntitiesIncarnation: 1, Last: 5, Hash: 6}
		if err := store.writeMark(ctx, topic, part, mark); err != nil {
			t.Error(err)
		}
		if got, ok, err := store.readMark(ctx, topic, part); got != mark || !ok || err != nil {
			t.Errorf("the mark is %v, %v, %v", got, ok, err)
		}
	})
}

// TestObjectStoresFail: what a store does not do is told in plain words with the variable or what to do, soon, and without secrets.
func TestObjectStoresFail(t *testing.T) {
	objectStores(t, func(t *testing.T, f *faultyStore) {
		store, err := OpenSnapshots(t.Context(), f.url, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if _, err := store.Write(t.Context(), exampleSnapshot(7)); err != nil {
			t.Fatal(err)
		}
		names, err := store.List(t.Context(), "signindiag.entities.v1", 3)
		if err != nil || len(names) != 1 {
			t.Fatal(err, names)
		}
		release := make(chan struct{})
		defer close(release)
		for _, c := range []struct {
			name, want string
			fault      func(w http.ResponseWriter, r *http.Request) bool
		}{
			{"refusing", "give the credentials of this process the rights", func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("x-ms-error-code", "AuthorizationFailure")
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprintf(w, "<Error><Code>AccessDenied</Code><Message>no rights</Message><Detail>%s</Detail></Error>", storeSecret)
				return true
			}},
			{"hanging", "does not answer in time", func(w http.ResponseWriter, r *http.Request) bool {
				select {
				case <-release:
				case <-r.Context().Done():
				}
				return true
			}},
			{"breaking off", SnapshotsSetting, func(w http.ResponseWriter, r *http.Request) bool {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					conn.Close()
				}
				return true
			}},
		} {
			f.breakWith(c.fault)
			store.timeout = 3 * time.Second
			if c.name == "hanging" {
				store.timeout = 200 * time.Millisecond
			}
			_, listing := store.List(t.Context(), "signindiag.entities.v1", 3)
			_, reading := store.Read(t.Context(), names[0])
			ctx, cancel := context.WithTimeout(t.Context(), store.timeout)
			_, writing := store.Write(ctx, exampleSnapshot(9))
			cancel()
			for what, err := range map[string]error{"list": listing, "read": reading, "write": writing} {
				if err == nil {
					t.Errorf("%s from a store that is %s: no error", what, c.name)
					continue
				}
				t.Logf("%s, %s: %v", c.name, what, err)
				if text := err.Error(); (!strings.Contains(text, c.want) && !strings.Contains(text, "in time")) || strings.Contains(text, "\n") || strings.Contains(text, storeSecret) || strings.Contains(text, "?") {
					t.Errorf("%s from a store that is %s: %v, want it to say %q on one line", what, c.name, err, c.want)
				}
				if errors.Is(err, ErrSnapshotCorrupt) || errors.Is(err, ErrSnapshotGone) {
					t.Errorf("%s from a store that is %s is taken for a snapshot that is of no use: %v", what, c.name, err)
				}
			}
		}
		store.timeout = storeTimeout
		f.mend()
		if _, err := store.Read(t.Context(), names[0]); err != nil {
			t.Errorf("after all: %v", err)
		}
		if err := store.bucket.Delete(t.Context(), names[0].Key); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Read(t.Context(), names[0]); !errors.Is(err, ErrSnapshotGone) {
			t.Errorf("a snapshot that is gone: %v", err)
		}
	})
	t.Run("no bucket", func(t *testing.T) {
		f := s3Store(t)
		store, err := OpenSnapshots(t.Context(), strings.Replace(f.url, "snapshots", "nowhere", 1), logger(t))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if _, err := store.List(t.Context(), "t", 1); err == nil || !strings.Contains(err.Error(), "make the bucket or container, or correct "+SnapshotsSetting) {
			t.Errorf("a bucket that is not there: %v", err)
		}
	})
	t.Run("signature in the address", func(t *testing.T) {
		err := &storeError{"azblob://snapshots", &url.Error{Op: "Get", URL: "https://a.blob.example/c?sv=2024&sig=" + storeSecret, Err: errors.New("no such host")}}
		if text := err.Error(); strings.Contains(text, storeSecret) || !strings.Contains(text, "https://a.blob.example/c") || !strings.Contains(text, "no such host") {
			t.Errorf("%v", err)
		}
	})
	t.Run("secret in the URL", func(t *testing.T) {
		for _, address := range []string{"s3://key:" + storeSecret + "@snapshots", "s4://snapshots?key=" + storeSecret, "s3://%zz" + storeSecret} {
			if s, err := OpenSnapshots(t.Context(), address, logger(t)); err == nil {
				s.Close()
				t.Errorf("%s is accepted", address)
			} else if strings.Contains(err.Error(), storeSecret) {
				t.Errorf("%v", err)
			}
		}
	})
}

// TestPipelineOnObjectStore: a pipeline whose store of snapshots refuses goes on with rows and says so, without it does not begin
// and says why, and with it again goes on from what it stored.
func TestPipelineOnObjectStore(t *testing.T) {
	f := s3Store(t)
	w := newWorld(t, 1, 2)
	w.snapshots = f.url
	var log lockedLog
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	produceRawOne(t, k, signIn(0, "user1@example.com"), signIn(1, "user2@example.com"))
	p := w.start(t, func(p *process) { p.pipeline.shards.log = slog.New(slog.NewTextHandler(&log, nil)) })
	eventually(t, "the first rows", func() bool { return w.rows() == 2 })
	refuse := func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	f.breakWith(refuse)
	produceRawOne(t, k, signIn(2, "user1@example.com"), signIn(3, "user2@example.com"))
	eventually(t, "rows though snapshots are refused", func() bool { return w.rows() == 4 })
	eventually(t, "refused snapshots are counted", func() bool { return counter(t, p.pipeline.metrics.snapshots.WithLabelValues("failed")) > 0 })
	if err := p.pipeline.Ready(); err != nil {
		t.Errorf("not ready though rows flow: %v", err)
	}
	p.kill()
	if text := log.String(); !strings.Contains(text, "the snapshot is not stored") || !strings.Contains(text, "s3://snapshots: give the credentials") || strings.Contains(text, storeSecret) {
		t.Errorf("the log does not tell, or tells too much:\n%s", text)
	}
	p = w.start(t, nil)
	var reason error
	eventually(t, "a reason", func() bool {
		reason = p.pipeline.Ready()
		return reason != nil && strings.Contains(reason.Error(), "s3://snapshots: give the credentials")
	})
	t.Log(reason)
	f.mend()
	produceRawOne(t, k, signIn(4, "user1@example.com"))
	eventually(t, "the last row", func() bool { return w.rows() == 5 })
	eventually(t, "ready", func() bool { return p.pipeline.Ready() == nil })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w.check(t, 5, map[string]int64{"user1@example.com": 3, "user2@example.com": 2})
}

// lockedLog is a log that a test reads while others write.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
