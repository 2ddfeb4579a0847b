package pipeline

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// gatedBucket is a store that hangs while its gate is shut, as a network file system does: it does not care for any context.
type gatedBucket struct {
	driver.Bucket // what is not used here
	real          *blob.Bucket
	mu            sync.Mutex
	open          chan struct{}
}

func newGatedBucket(real *blob.Bucket) *gatedBucket {
	g := &gatedBucket{real: real, open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gatedBucket) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gatedBucket) pass() {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	<-open
}

func (g *gatedBucket) unshut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

func (g *gatedBucket) ErrorCode(err error) gcerrors.ErrorCode { return gcerrors.Code(err) }
func (g *gatedBucket) ErrorAs(error, any) bool                { return false }
func (g *gatedBucket) Close() error                           { return g.real.Close() }

func (g *gatedBucket) Delete(ctx context.Context, key string, _ *driver.DeleteOptions) error {
	g.pass()
	return g.real.Delete(ctx, key)
}

func (g *gatedBucket) ListPaged(ctx context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	g.pass()
	page := &driver.ListPage{}
	it := g.real.List(&blob.ListOptions{Prefix: o.Prefix})
	for {
		found, err := it.Next(ctx)
		if err == io.EOF {
			return page, nil
		}
		if err != nil {
			return nil, err
		}
		page.Objects = append(page.Objects, &driver.ListObject{Key: found.Key, ModTime: found.ModTime, Size: found.Size})
	}
}

type gatedReader struct{ *blob.Reader }

func (r gatedReader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{ContentType: r.ContentType(), ModTime: r.ModTime(), Size: r.Size()}
}

func (g *gatedBucket) NewRangeReader(ctx context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	g.pass()
	r, err := g.real.NewRangeReader(ctx, key, offset, length, nil)
	if err != nil {
		return nil, err
	}
	return gatedReader{r}, nil
}

type gatedWriter struct {
	*blob.Writer
	pass func()
}

func (w gatedWriter) Write(p []byte) (int, error) {
	w.pass()
	return w.Writer.Write(p)
}

func (w gatedWriter) Upload(r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}

func (g *gatedBucket) NewTypedWriter(ctx context.Context, key, contentType string, _ *driver.WriterOptions) (driver.Writer, error) {
	g.pass()
	w, err := g.real.NewWriter(ctx, key, &blob.WriterOptions{ContentType: contentType})
	if err != nil {
		return nil, err
	}
	return gatedWriter{w, g.pass}, nil
}

// TestStoreHangs: a store of snapshots that hangs holds up neither records nor a stop; it is told of, and when it works again so do
// snapshots.
func TestStoreHangs(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.config.StopTimeout = 2 * time.Second
	k := openKafka(t, w.cluster)
	ensure(t, k, "raw", 1)
	var gate *gatedBucket
	gated := func(p *process) {
		gate = newGatedBucket(p.store.bucket)
		p.store.bucket = blob.NewBucket(gate)
	}
	sent := 0
	send := func(count int) {
		t.Helper()
		for range count {
			produceRawOne(t, k, signIn(sent, "user1@example.com"))
			sent++
		}
	}
	send(10)
	p := w.start(t, gated)
	eventually(t, "rows", func() bool { return w.rows() == sent })
	snapshots := p.pipeline.metrics.snapshots
	eventually(t, "a snapshot", func() bool { return testutil.ToFloat64(snapshots.WithLabelValues("stored")) > 0 })
	gate.shut()
	for range 5 {
		send(5)
		eventually(t, "rows while the store hangs", func() bool { return w.rows() == sent })
	}
	eventually(t, "the failure to be counted", func() bool {
		send(1)
		return testutil.ToFloat64(snapshots.WithLabelValues("failed")) > 0
	})
	stored := testutil.ToFloat64(snapshots.WithLabelValues("stored"))
	gate.unshut()
	eventually(t, "a snapshot when the store works again", func() bool {
		send(1)
		return testutil.ToFloat64(snapshots.WithLabelValues("stored")) > stored
	})
	send(5)
	eventually(t, "rows", func() bool { return w.rows() == sent })
	gate.shut()
	send(5)
	eventually(t, "rows", func() bool { return w.rows() == sent })
	if err := p.stop(); err != nil { // hangs where the stop does
		t.Error(err)
	}
	gate.unshut()

	// Away at the start: it is said, a stop ends the wait, and it begins when the store is there.
	send(5)
	p = w.start(t, func(p *process) {
		gated(p)
		gate.shut()
	})
	eventually(t, "readiness to tell", func() bool {
		err := p.pipeline.Ready()
		return err != nil && strings.Contains(err.Error(), "waiting for the store of snapshots")
	})
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	gate.unshut()
	p = w.start(t, func(p *process) {
		gated(p)
		gate.shut()
	})
	eventually(t, "readiness to tell", func() bool { return p.pipeline.Ready() != nil })
	gate.unshut()
	eventually(t, "rows", func() bool { return w.rows() == sent && p.pipeline.Ready() == nil })
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	w.check(t, sent, map[string]int64{"user1@example.com": int64(sent)})
}
