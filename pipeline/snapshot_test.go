package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/signindiag/signindiag/sinks"
)

func exampleSnapshot(offset int64) *Snapshot {
	return &Snapshot{Topic: "signindiag.entities.v1", Partitions: 4, Shard: 3, Incarnation: 1, Epoch: 2, Fingerprint: 0xfeedfacecafebeef, Offset: offset, Hash: 42,
		Taken: 1_750_000_000_000, State: bytes.Repeat([]byte("state "), 1000)}
}

func TestSnapshotsRoundTrip(t *testing.T) {
	for _, url := range []string{"mem://", "file://" + t.TempDir() + "/made/here"} {
		store, err := OpenSnapshots(t.Context(), url, logger(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, offset := range []int64{1 << 40, -1, 7} {
			if _, err := store.Write(t.Context(), exampleSnapshot(offset)); err != nil {
				t.Fatal(err)
			}
		}
		other := exampleSnapshot(9)
		other.Shard = 30
		if _, err := store.Write(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		names, err := store.List(t.Context(), "signindiag.entities.v1", 3)
		if err != nil {
			t.Fatal(err)
		}
		var offsets []int64
		for _, n := range names {
			snap, err := store.Read(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			want := exampleSnapshot(n.Offset)
			if fmt.Sprint(snap) != fmt.Sprint(want) {
				t.Errorf("read %+v", snap)
			}
			if n.Epoch != 2 || n.Incarnation != 1 || n.Fingerprint != want.Fingerprint || n.Taken != want.Taken {
				t.Errorf("name %+v", n)
			}
			offsets = append(offsets, n.Offset)
		}
		if !slices.Equal(offsets, []int64{-1, 7, 1 << 40}) {
			t.Errorf("%s: offsets %v, want them in order", url, offsets)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSnapshotsOfEverySize(t *testing.T) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for size := 0; size < 10_000_000; size += 1 + size/3 {
		s := exampleSnapshot(7)
		s.State = make([]byte, size)
		for i := range s.State {
			s.State[i] = byte(rng.IntN(8))
		}
		got, err := parseSnapshot(appendSnapshot(nil, s, enc))
		if err != nil || !bytes.Equal(got.State, s.State) {
			t.Fatalf("state of %d bytes: %v", size, err)
		}
	}
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	good := appendSnapshot(nil, exampleSnapshot(7), enc)
	if _, err := parseSnapshot(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := parseSnapshot(good[:n]); !errors.Is(err, ErrSnapshotCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		bad := slices.Clone(good)
		bad[n] ^= 0x10
		if _, err := parseSnapshot(bad); !errors.Is(err, ErrSnapshotCorrupt) {
			t.Fatalf("changed at %d: %v", n, err)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendSnapshot(nil, exampleSnapshot(7), enc))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSnapshot(b); err == nil && s == nil {
			t.Error("neither a snapshot nor an error")
		}
	})
}

func TestSnapshotsURL(t *testing.T) {
	for _, url := range []string{"", "nothing://x", "file://host/dir", "file:///", "://"} {
		if s, err := OpenSnapshots(t.Context(), url, logger(t)); err == nil {
			s.Close()
			t.Errorf("%q is accepted", url)
		}
	}
}

// TestUnreadableSnapshots: a shard takes an older one, or the log.
func TestUnreadableSnapshots(t *testing.T) {
	for _, all := range []bool{false, true} {
		w := newWorld(t, 1, 1)
		w.config.SnapshotInterval, w.config.SnapshotRecords = time.Hour, 1<<40
		k := openKafka(t, w.cluster)
		ensure(t, k, "raw", 1)
		for i := range 3 {
			produceRawOne(t, k, signIn(i, "user1@example.com"))
			p := w.start(t, nil)
			eventually(t, "the row", func() bool { return w.rows() == i+1 })
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
		}
		files, err := filepath.Glob(filepath.Join(w.dir, w.config.EntitiesTopic, "shard-*", "*"))
		if err != nil || len(files) != 3 {
			t.Fatalf("%d snapshots, want 3: %v", len(files), err)
		}
		slices.Sort(files)
		for i, f := range files {
			if i == len(files)-1 || all {
				if err := os.WriteFile(f, []byte(snapshotMagic+"torn"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		produceRawOne(t, k, signIn(3, "user1@example.com"))
		p := w.start(t, nil)
		eventually(t, "the row", func() bool { return w.rows() == 4 })
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		w.check(t, 4, map[string]int64{"user1@example.com": 4})
	}
}

func TestThin(t *testing.T) {
	const minute = int64(time.Minute / time.Millisecond)
	var names []SnapshotName
	// A snapshot a minute for ten days, at offsets 0, 1, 2, ...
	for i := range int64(10 * 24 * 60) {
		names = append(names, SnapshotName{Key: fmt.Sprint(i), Incarnation: 1, Epoch: 1, Offset: i, Taken: i * minute})
	}
	const position = 100
	keep := thin(names, 1, 1, position)
	var kept []int64
	for i, k := range keep {
		if k {
			kept = append(kept, int64(i))
		}
	}
	if len(kept) < 3+24+6 || len(kept) > 3+25+8+1 {
		t.Errorf("%d are kept", len(kept))
	}
	last := int64(len(names) - 1)
	for _, want := range []int64{last, last - 1, last - 2, position} {
		if !slices.Contains(kept, want) {
			t.Errorf("%d is not kept", want)
		}
	}
	for back := int64(0); back < 24; back++ {
		if !slices.ContainsFunc(kept, func(k int64) bool { return k/60 == last/60-back }) {
			t.Errorf("none is kept of %d hours ago", back)
		}
	}
	for back := int64(0); back < 7; back++ {
		if !slices.ContainsFunc(kept, func(k int64) bool { return k/1440 == last/1440-back }) {
			t.Errorf("none is kept of %d days ago", back)
		}
	}
	// Thinning again takes nothing more.
	var rest []SnapshotName
	for _, k := range kept {
		rest = append(rest, names[k])
	}
	for i, k := range thin(rest, 1, 1, position) {
		if !k {
			t.Errorf("%s goes when thinned again", rest[i].Key)
		}
	}
	// The base of an epoch without a position stays, however old.
	names = append(names[:3000:3000], SnapshotName{Key: "base", Incarnation: 1, Epoch: 2, Offset: 5, Taken: 0}, SnapshotName{Key: "x", Incarnation: 1, Epoch: 2, Offset: 6, Taken: 1})
	for i := range int64(10) {
		names = append(names, SnapshotName{Key: "later", Incarnation: 1, Epoch: 2, Offset: 100 + i, Taken: (4000 + i) * minute})
	}
	if keep := thin(names, 1, 1, position); !keep[3000] || !keep[position] {
		t.Error("the base of the new epoch goes")
	}
}

func TestPlanRecovery(t *testing.T) {
	const fp, other = 11, 22
	day := (24 * time.Hour).Milliseconds()
	name := func(incarnation uint32, epoch uint16, fingerprint uint64, offset, taken int64) SnapshotName {
		return SnapshotName{Key: fmt.Sprintf("%d/%d/%d/%d", incarnation, epoch, fingerprint, offset), Incarnation: incarnation, Epoch: epoch, Fingerprint: fingerprint, Offset: offset, Taken: taken}
	}
	position := func(incarnation uint32, epoch uint16, fingerprint uint64, offset int64) *sinks.Position {
		return &sinks.Position{Incarnation: incarnation, Epoch: epoch, Fingerprint: fingerprint, Offset: offset}
	}
	old := []SnapshotName{name(1, 1, fp, 10, 1*day), name(1, 1, fp, 50, 5*day), name(1, 1, fp, 90, 6*day), name(1, 1, fp, 120, 7*day)}
	for _, c := range []struct {
		name        string
		progress    *sinks.Position
		names       []SnapshotName
		incarnation uint32
		fingerprint uint64
		first       int64
		want        string
	}{
		{"first start", nil, nil, 1, fp, 0, "epoch 1 from state base []"},
		{"tables lost", nil, old, 1, fp, 0, "epoch 1 from state []"},
		{"tables lost, other code", nil, old, 1, other, 0, "epoch 2 from state base []"},
		{"restart", position(1, 1, fp, 100), old, 1, fp, 0, "epoch 1 after 100 [1/1/11/90 1/1/11/50 1/1/11/10]"},
		{"restart at a snapshot", position(1, 1, fp, 120), old, 1, fp, 0, "epoch 1 after 120 [1/1/11/120 1/1/11/90 1/1/11/50 1/1/11/10]"},
		{"tables restored from a backup", position(1, 1, fp, 40), old, 1, fp, 0, "epoch 1 after 40 [1/1/11/10]"},
		{"own epoch first", position(1, 2, fp, 100), append([]SnapshotName{name(1, 1, other, 95, 6*day)}, name(1, 2, fp, 60, 5*day)), 1, fp, 0, "epoch 2 after 100 [1/2/11/60 1/1/22/95]"},
		{"other code", position(1, 1, fp, 100), old, 1, other, 0, "epoch 2 from state base [1/1/11/10]"},
		{"other code, no old snapshot", position(1, 1, fp, 100), old[1:], 1, other, 0, "epoch 2 from state base []"},
		{"other code, no old snapshot, log trimmed", position(1, 1, fp, 100), old[1:], 1, other, 40, "epoch 2 from state base [1/1/11/50]"},
		{"other code, epoch began before", position(1, 1, fp, 100), append(slices.Clone(old), name(1, 2, other, 10, 8*day), name(1, 2, other, 30, 9*day)), 1, other, 0, "epoch 2 from state [1/2/22/10]"},
		{"other code than the epoch that began", position(1, 1, fp, 100), append(slices.Clone(old), name(1, 2, 33, 10, 8*day)), 1, other, 0, "epoch 3 from state base [1/1/11/10]"},
		{"code put back", position(1, 1, fp, 100), append(slices.Clone(old), name(1, 2, other, 10, 8*day)), 1, fp, 0, "epoch 3 from state base [1/1/11/10]"},
		{"code put back, the other's epoch began later", position(1, 1, fp, 200), append(slices.Clone(old), name(1, 2, other, 60, 8*day)), 1, fp, 0, "epoch 3 from state base [1/1/11/50 1/1/11/10]"},
		{"an epoch of two", position(1, 1, fp, 100), append(slices.Clone(old), name(1, 2, other, 10, 8*day), name(1, 2, 33, 10, 8*day)), 1, other, 0, "epoch 3 from state base [1/1/11/10]"},
		{"tables set back, the epoch's first snapshot is gone", position(1, 1, fp, 40), append(slices.Clone(old), name(1, 2, other, 60, 8*day)), 1, other, 0, "epoch 3 from state base []"},
		{"other code, the log has lost what the oldest needs", position(1, 1, fp, 125), old, 1, other, 40, "epoch 2 from state base [1/1/11/50]"},
		{"new incarnation", position(1, 1, fp, 100), old, 2, fp, 0, "epoch 2 from state base carried [1/1/11/90 1/1/11/50 1/1/11/10]"},
		{"new incarnation, began before", position(1, 1, fp, 100), append(slices.Clone(old), name(2, 2, fp, -1, 8*day)), 2, fp, 0, "epoch 2 from state [2/2/11/-1]"},
	} {
		r, err := planRecovery(c.progress, c.names, c.incarnation, c.fingerprint, 2*day, c.first, 0)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := fmt.Sprintf("epoch %d", r.epoch)
		if r.fromState {
			got += " from state"
		} else {
			got += fmt.Sprintf(" after %d", r.emitAfter)
		}
		if r.base {
			got += " base"
		}
		if r.carried {
			got += " carried"
		}
		var keys []string
		for _, n := range r.candidates {
			keys = append(keys, n.Key)
		}
		got += fmt.Sprintf(" [%s]", strings.Join(keys, " "))
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if _, err := planRecovery(position(1, math.MaxUint16, fp, 1), nil, 1, other, 0, 0, 0); err == nil {
		t.Error("an epoch beyond the last one was given out")
	}
}
