package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/memblob" // mem:// for tests
	"gocloud.dev/gcerrors"

	"github.com/signindiag/signindiag/sinks/crashpoint"
)

// Snapshot is the state of one shard with the position that it belongs to.
type Snapshot struct {
	// Topic and Partitions are those of the entities topic.
	Topic      string
	Partitions uint32
	// Shard, Incarnation, Epoch, Fingerprint, Offset and Hash are as in sinks.Position: the state is that
	// after the message at Offset. Offset -1 is a state before any message.
	Shard       uint16
	Incarnation uint32
	Epoch       uint16
	Fingerprint uint64
	Offset      int64
	Hash        uint64
	// Taken is when the snapshot was made, milliseconds since the Unix epoch.
	Taken int64
	// State is the state machine's own format.
	State []byte
}

// snapshotMagic begins every snapshot; snapshotVersion is the version of what follows it.
const (
	snapshotMagic   = "signindiag snapshot\n"
	snapshotVersion = 1
)

// maxSnapshotState bounds the state that is read back, in bytes.
const maxSnapshotState = 16 << 30

// ErrSnapshotCorrupt marks a snapshot whose bytes are not what was written.
var ErrSnapshotCorrupt = errors.New("snapshot is corrupt")

// ErrSnapshotVersion marks a snapshot in a format that this version does not know.
var ErrSnapshotVersion = errors.New("snapshot has an unknown format version")

// ErrSnapshotGone marks a snapshot that was listed and has been deleted since.
var ErrSnapshotGone = errors.New("snapshot is gone")

// appendSnapshot appends the snapshot as it is stored: magic, version, header, compressed state, and the
// xxHash64 of all that, little-endian.
func appendSnapshot(dst []byte, s *Snapshot, enc *zstd.Encoder) []byte {
	start := len(dst)
	dst = append(dst, snapshotMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, snapshotVersion)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s.Topic)))
	dst = append(dst, s.Topic...)
	dst = binary.LittleEndian.AppendUint32(dst, s.Partitions)
	dst = binary.LittleEndian.AppendUint16(dst, s.Shard)
	dst = binary.LittleEndian.AppendUint32(dst, s.Incarnation)
	dst = binary.LittleEndian.AppendUint16(dst, s.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, s.Fingerprint)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.Offset))
	dst = binary.LittleEndian.AppendUint64(dst, s.Hash)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.Taken))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(s.State)))
	dst = enc.EncodeAll(s.State, dst)
	return binary.LittleEndian.AppendUint64(dst, xxhash.Sum64(dst[start:]))
}

// parseSnapshot is the reverse of appendSnapshot. The error is ErrSnapshotCorrupt or ErrSnapshotVersion.
func parseSnapshot(b []byte) (*Snapshot, error) {
	const fixed = 4 + 2 + 4 + 2 + 8 + 8 + 8 + 8 + 8
	if len(b) < len(snapshotMagic)+4+2+fixed+8 || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return nil, ErrSnapshotCorrupt
	}
	body, sum := b[:len(b)-8], binary.LittleEndian.Uint64(b[len(b)-8:])
	if xxhash.Sum64(body) != sum {
		return nil, ErrSnapshotCorrupt
	}
	body = body[len(snapshotMagic):]
	if v := binary.LittleEndian.Uint32(body); v != snapshotVersion {
		return nil, fmt.Errorf("%w: %d, want %d", ErrSnapshotVersion, v, snapshotVersion)
	}
	n := int(binary.LittleEndian.Uint16(body[4:]))
	body = body[6:]
	if len(body) < n+fixed {
		return nil, ErrSnapshotCorrupt
	}
	s := &Snapshot{Topic: string(body[:n])}
	body = body[n:]
	s.Partitions = binary.LittleEndian.Uint32(body)
	s.Shard = binary.LittleEndian.Uint16(body[4:])
	s.Incarnation = binary.LittleEndian.Uint32(body[6:])
	s.Epoch = binary.LittleEndian.Uint16(body[10:])
	s.Fingerprint = binary.LittleEndian.Uint64(body[12:])
	s.Offset = int64(binary.LittleEndian.Uint64(body[20:]))
	s.Hash = binary.LittleEndian.Uint64(body[28:])
	s.Taken = int64(binary.LittleEndian.Uint64(body[36:]))
	size := binary.LittleEndian.Uint64(body[44:])
	if size > maxSnapshotState {
		return nil, ErrSnapshotCorrupt
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(max(size, 64<<20))) // no less than the encoder's window
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	defer dec.Close()
	if s.State, err = dec.DecodeAll(body[fixed:], make([]byte, 0, size)); err != nil || uint64(len(s.State)) != size {
		return nil, ErrSnapshotCorrupt
	}
	return s, nil
}

// SnapshotName is what the name of a stored snapshot tells. The name orders by Incarnation, Epoch, Offset
// and Taken.
type SnapshotName struct {
	Key         string
	Incarnation uint32
	Epoch       uint16
	Offset      int64
	Fingerprint uint64
	Taken       int64
}

const snapshotSuffix = ".snapshot"

func snapshotPrefix(topic string, shard uint16) string {
	return fmt.Sprintf("%s/shard-%05d/", topic, shard)
}

// Offsets stand in names as offset + 1, so that -1 has no sign.
func (s *Snapshot) key() string {
	return snapshotPrefix(s.Topic, s.Shard) + fmt.Sprintf("%010d-%05d-%019d-%016x-%013d", s.Incarnation, s.Epoch, s.Offset+1, s.Fingerprint, s.Taken) + snapshotSuffix
}

func parseSnapshotKey(key string) (SnapshotName, bool) {
	n := SnapshotName{Key: key}
	base, ok := strings.CutSuffix(path.Base(key), snapshotSuffix)
	parts := strings.Split(base, "-")
	if !ok || len(parts) != 5 {
		return n, false
	}
	incarnation, err1 := strconv.ParseUint(parts[0], 10, 32)
	epoch, err2 := strconv.ParseUint(parts[1], 10, 16)
	offset, err3 := strconv.ParseUint(parts[2], 10, 63)
	fingerprint, err4 := strconv.ParseUint(parts[3], 16, 64)
	taken, err5 := strconv.ParseUint(parts[4], 10, 63)
	n.Incarnation, n.Epoch, n.Offset, n.Fingerprint, n.Taken = uint32(incarnation), uint16(epoch), int64(offset)-1, fingerprint, int64(taken)
	return n, errors.Join(err1, err2, err3, err4, err5) == nil
}

// SnapshotStore keeps snapshots at a URL of gocloud.dev/blob: file:///directory, s3://BUCKET, azblob://CONTAINER, mem://,
// and gs://BUCKET in a program built with the tag gcs. Its errors say what to do and hold no secret. It is safe for
// concurrent use.
type SnapshotStore struct {
	bucket *blob.Bucket
	// place is the store in errors: the URL without what may hold a secret.
	place string
	// dir is the directory of a file URL, which needs fsync; "" for others.
	dir     string
	timeout time.Duration // storeTimeout, shorter in tests
	log     *slog.Logger
	// stuck counts calls that did not come back in time and are still under way.
	stuck atomic.Int64
}

// maxStuck bounds the calls that are left behind in a store that hangs; each holds what it writes.
const maxStuck = 64

// within runs a call to the store and returns when it is done, or with an error when ctx ends: a file system that hangs does not
// care for ctx. The call is then left behind.
func (s *SnapshotStore) within(ctx context.Context, call func(ctx context.Context) error) error {
	if n := s.stuck.Load(); n >= maxStuck {
		return fmt.Errorf("%d calls to the store of snapshots hang already", n)
	}
	done := make(chan error, 1)
	s.stuck.Add(1)
	go func() {
		defer s.stuck.Add(-1)
		done <- call(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// A store that minds ctx says more.
	select {
	case err := <-done:
		return err
	case <-time.After(100 * time.Millisecond):
		return fmt.Errorf("the store of snapshots does not answer: %w", context.Cause(ctx))
	}
}

// OpenSnapshots opens the store. The directory of a file URL is made where it is missing; a bucket or container must be there,
// which the first use tells. The caller closes it.
func OpenSnapshots(ctx context.Context, rawURL string, log *slog.Logger) (*SnapshotStore, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's error repeats the URL.
		return nil, fmt.Errorf("%s is no URL, want %s", SnapshotsSetting, snapshotURLs)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%s has a user name in it, want %s; credentials come from the environment", SnapshotsSetting, snapshotURLs)
	}
	place := u.Scheme + "://" + u.Host + u.Path
	if u.Scheme == fileblob.Scheme {
		if (u.Host != "" && u.Host != "localhost") || u.Path == "" || u.Path == "/" {
			return nil, fmt.Errorf("%s=%s is not a directory, want %s", SnapshotsSetting, place, snapshotURLs)
		}
		dir := filepath.FromSlash(u.Path)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, fmt.Errorf("make the directory for snapshots: %w", err)
		}
		// Files are written beside their place, not in the system's temporary directory, which may be
		// another file system.
		b, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite, DirFileMode: 0o750})
		if err != nil {
			return nil, fmt.Errorf("open snapshots at %s: %w", place, err)
		}
		return &SnapshotStore{bucket: b, place: place, dir: dir, timeout: storeTimeout, log: log}, nil
	}
	if !blob.DefaultURLMux().ValidBucketScheme(u.Scheme) {
		return nil, fmt.Errorf("%s=%s, want %s", SnapshotsSetting, place, snapshotURLs)
	}
	b, err := blob.OpenBucket(ctx, rawURL)
	if err != nil {
		return nil, fmt.Errorf("open snapshots at %s: %w", place, &storeError{place, err})
	}
	return &SnapshotStore{bucket: b, place: place, timeout: storeTimeout, log: log}, nil
}

// failed wraps an error of the store.
func (s *SnapshotStore) failed(what, key string, err error) error {
	return fmt.Errorf("%s %s: %w", what, key, &storeError{s.place, err})
}

// Close releases the store. Where calls to it hang it does nothing, since it would wait for them.
func (s *SnapshotStore) Close() error {
	if s.stuck.Load() > 0 {
		return nil
	}
	return s.bucket.Close()
}

// Write stores a snapshot as a new object and returns its size. In a directory it and its name are on disk when
// Write returns.
func (s *SnapshotStore) Write(ctx context.Context, snap *Snapshot) (size int, err error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, fmt.Errorf("set up zstd: %w", err)
	}
	defer enc.Close()
	key := snap.key()
	b := appendSnapshot(make([]byte, 0, 256+len(snap.State)/2), snap, enc)
	if err := s.within(ctx, func(ctx context.Context) error { return s.writeObject(ctx, key, b) }); err != nil {
		return 0, s.failed("write snapshot", key, err)
	}
	return len(b), nil
}

// writeObject writes an object that is there as a whole or not at all.
func (s *SnapshotStore) writeObject(ctx context.Context, key string, b []byte) error {
	half := len(b) / 2
	if err := s.upload(ctx, key, io.MultiReader(bytes.NewReader(b[:half]), crashpointReader{}, bytes.NewReader(b[half:]))); err != nil || s.dir == "" {
		return err
	}
	// The file, then every directory up to the store's own: each holds a name that may be new.
	for p := filepath.Join(s.dir, filepath.FromSlash(key)); ; p = filepath.Dir(p) {
		if err := syncPath(p); err != nil {
			return fmt.Errorf("to disk: %w", err)
		}
		if len(p) <= len(s.dir) {
			return nil
		}
	}
}

// crashpointReader is an empty reader between the halves of a snapshot.
type crashpointReader struct{}

func (crashpointReader) Read([]byte) (int, error) {
	crashpoint.At(crashpoint.SnapshotHalfWritten)
	return 0, io.EOF
}

// upload writes an object. It is not Bucket.WriteAll, since the writer of azureblob (gocloud.dev v0.47) crashes in Close when the
// store has refused what was written.
func (s *SnapshotStore) upload(ctx context.Context, key string, content io.Reader) error {
	return s.bucket.Upload(ctx, key, content, &blob.WriterOptions{ContentType: "application/octet-stream"})
}

func syncPath(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readObject reads an object of any size; it gives up when nothing comes for s.timeout.
func (s *SnapshotStore) readObject(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(s.timeout, func() { cancel(fmt.Errorf("nothing came for %s: %w", s.timeout, context.DeadlineExceeded)) })
	defer stalled.Stop()
	read := make(chan []byte, 1) // not a variable: a call that is left behind may still write
	if err := s.within(ctx, func(ctx context.Context) error {
		r, err := s.bucket.NewReader(ctx, key, nil)
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		defer r.Close()
		b := make([]byte, 0, r.Size()+1)
		for {
			if len(b) == cap(b) {
				b = slices.Grow(b, 1)
			}
			n, err := r.Read(b[len(b):cap(b)])
			b = b[:len(b)+n]
			if err == io.EOF {
				read <- b
				return nil
			}
			if err != nil {
				return cmp.Or(context.Cause(ctx), err)
			}
			stalled.Reset(s.timeout)
		}
	}); err != nil {
		return nil, err
	}
	return <-read, nil
}

// List returns the snapshots of a shard, oldest first.
func (s *SnapshotStore) List(ctx context.Context, topic string, shard uint16) ([]SnapshotName, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	found := make(chan []SnapshotName, 1) // not a variable: a call that is left behind may still write
	if err := s.within(ctx, func(ctx context.Context) error {
		var names []SnapshotName
		it := s.bucket.List(&blob.ListOptions{Prefix: snapshotPrefix(topic, shard)})
		for {
			o, err := it.Next(ctx)
			if err == io.EOF { // itself: a connection that breaks off is wrapped, and is no end of the list
				found <- names
				return nil
			}
			if err != nil {
				return err
			}
			if n, ok := parseSnapshotKey(o.Key); ok {
				names = append(names, n)
			}
		}
	}); err != nil {
		return nil, s.failed("list snapshots below", snapshotPrefix(topic, shard), err)
	}
	names := <-found
	slices.SortFunc(names, func(a, b SnapshotName) int { return cmp.Compare(a.Key, b.Key) })
	return names, nil
}

// Read returns a stored snapshot. The error is ErrSnapshotCorrupt or ErrSnapshotVersion where its bytes are of no use, and
// ErrSnapshotGone where there is none.
func (s *SnapshotStore) Read(ctx context.Context, name SnapshotName) (*Snapshot, error) {
	b, err := s.readObject(ctx, name.Key)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("read snapshot %s: %w", name.Key, ErrSnapshotGone)
	}
	if err != nil {
		return nil, s.failed("read snapshot", name.Key, err)
	}
	snap, err := parseSnapshot(b)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name.Key, err)
	}
	if snap.key() != name.Key {
		return nil, fmt.Errorf("read snapshot %s: it is that of %s: %w", name.Key, snap.key(), ErrSnapshotCorrupt)
	}
	return snap, nil
}

// Thin deletes the snapshots of a shard that no recovery needs: it keeps the newest three, one per hour of the
// last day, one per day of the last week, and always the newest one at or below the stored position and the first of
// an epoch that has stored no position yet. It returns the newest at or below the position, ok false where there is none.
func (s *SnapshotStore) Thin(ctx context.Context, topic string, shard uint16, incarnation uint32, epoch uint16, offset int64) (newest SnapshotName, ok bool, err error) {
	names, err := s.List(ctx, topic, shard)
	if err != nil {
		return newest, false, err
	}
	if i := newestUpTo(names, incarnation, offset); i >= 0 {
		newest, ok = names[i], true
	}
	if s.dir != "" {
		if err := s.within(ctx, func(context.Context) error {
			return removeHalves(filepath.Join(s.dir, filepath.FromSlash(snapshotPrefix(topic, shard))))
		}); err != nil {
			return newest, ok, fmt.Errorf("remove what a killed process left of snapshots of shard %d: %w", shard, err)
		}
	}
	keep := thin(names, incarnation, epoch, offset)
	for i, n := range names {
		if keep[i] {
			continue
		}
		if err := s.within(ctx, func(ctx context.Context) error { return s.bucket.Delete(ctx, n.Key) }); err != nil {
			return newest, ok, s.failed("delete snapshot", n.Key, err)
		}
	}
	return newest, ok, nil
}

// newestUpTo returns the number of the snapshot with the highest offset that is no higher than offset, -1 for none.
func newestUpTo(names []SnapshotName, incarnation uint32, offset int64) int {
	newest := -1
	for i, n := range names {
		if n.Incarnation == incarnation && n.Offset <= offset && (newest < 0 || n.Offset >= names[newest].Offset) {
			newest = i
		}
	}
	return newest
}

// halfAge is the age from which a half of a snapshot is what a killed process left: none takes so long to write.
const halfAge = time.Hour

// removeHalves removes old halves of snapshots from a directory. fileblob writes NAME.*.tmp and renames it.
func removeHalves(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".tmp") || !strings.Contains(e.Name(), snapshotSuffix) {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < halfAge {
			continue // it is gone, or being written
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func markKey(entities string, p rawPartition) string {
	return fmt.Sprintf("%s/raw/%s-%d-%d.mark", entities, p.topic.Name, p.topic.Incarnation, p.partition)
}

// writeMark keeps the position of a raw partition beside the snapshots. Kafka forgets committed offsets together
// with a topic; the mark tells then that the topic of that name is another one.
func (s *SnapshotStore) writeMark(ctx context.Context, entities string, p rawPartition, m commitMetadata) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	key := markKey(entities, p)
	if err := s.within(ctx, func(ctx context.Context) error { return s.upload(ctx, key, strings.NewReader(m.String())) }); err != nil {
		return s.failed("write", key, err)
	}
	return nil
}

// readMark returns the mark of a raw partition's incarnation, ok false where there is none.
func (s *SnapshotStore) readMark(ctx context.Context, entities string, p rawPartition) (m commitMetadata, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	key := markKey(entities, p)
	b, err := s.readObject(ctx, key)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return m, false, nil
	}
	if err != nil {
		return m, false, s.failed("read", key, err)
	}
	m, ok = parseCommitMetadata(string(b))
	return m, ok, nil
}

// thin says which of names, oldest first, are kept. The position has the incarnation, epoch and offset given.
func thin(names []SnapshotName, incarnation uint32, epoch uint16, offset int64) []bool {
	keep := make([]bool, len(names))
	const hour, day = int64(time.Hour / time.Millisecond), int64(24 * time.Hour / time.Millisecond)
	hours, days := map[int64]bool{}, map[int64]bool{}
	for i := len(names) - 1; i >= 0; i-- {
		// New is what is far in the log: the times are those of a machine, whose clock may have been wrong. One that claims to be
		// newer than the newest has no age.
		taken, age := names[i].Taken, names[len(names)-1].Taken-names[i].Taken
		if len(names)-i <= 3 {
			keep[i] = true
		}
		if age < 0 {
			continue
		}
		if age <= day && !hours[taken/hour] {
			hours[taken/hour], keep[i] = true, true
		}
		if age <= 7*day && !days[taken/day] {
			days[taken/day], keep[i] = true, true
		}
	}
	// What a recovery at the position begins with, and what it falls back on: the newest at or below it of its own
	// epoch, and of any.
	own := -1
	for i, n := range names {
		if n.Incarnation == incarnation && n.Offset <= offset && n.Epoch == epoch {
			own = i
		}
	}
	for _, i := range [2]int{own, newestUpTo(names, incarnation, offset)} {
		if i >= 0 {
			keep[i] = true
		}
	}
	// While an epoch newer than the position's has stored no rows yet, its first snapshot is where it begins.
	for i, n := range names {
		if (n.Incarnation > incarnation || n.Incarnation == incarnation && n.Epoch > epoch) &&
			(i == 0 || names[i-1].Incarnation != n.Incarnation || names[i-1].Epoch != n.Epoch) {
			keep[i] = true
		}
	}
	return keep
}
