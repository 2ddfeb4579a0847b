package sinks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ClickHouse/ch-go/proto"
)

// decode reads back what a column writes, with the columns of the driver.
func decode(t *testing.T, in proto.ColInput, out proto.ColResult) {
	t.Helper()
	if in.Type() != out.Type() {
		t.Fatalf("type %s, want %s", in.Type(), out.Type())
	}
	var b proto.Buffer
	if s, ok := in.(proto.StateEncoder); ok {
		s.EncodeState(&b)
	}
	in.EncodeColumn(&b)
	r := b.Reader()
	if s, ok := out.(proto.StateDecoder); ok {
		if err := s.DecodeState(r); err != nil {
			t.Fatal(err)
		}
	}
	out.Reset()
	if err := out.DecodeColumn(r, in.Rows()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Fatal("bytes are left over")
	}
}

// TestColumns overwrites random rows of all column types over several blocks and compares what they encode,
// whole and in ranges, with a plain slice. Dictionaries get few, hundreds and more than 65 536 values.
func TestColumns(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var str stringColumn
	var lc lowCardinalityColumn
	var lcs lowCardinalityArrayColumn
	var strs stringArrayColumn
	for block, distinct := range []int{3, 300, 70_000, 5, 70_000, 1} {
		rows := 2000
		if distinct > 1<<16 {
			rows = 100_000
		}
		value := func() string { return fmt.Sprintf("%0*d", 1+r.IntN(9), r.IntN(distinct)) }
		values := func() []string {
			var vs []string
			for range r.IntN(4) {
				vs = append(vs, value())
			}
			return vs
		}
		var wantStr []string
		var wantList [][]string
		for i := range rows * 3 / 2 {
			row := i
			if i >= rows {
				row = r.IntN(rows)
			}
			v, vs := value(), values()
			if row < len(wantList) && r.IntN(2) == 0 {
				vs = append(slices.Clone(wantList[row]), vs...) // grow, as incidents do
				vs = vs[:min(len(vs), 6)]
			}
			put(&wantStr, row, v)
			put(&wantList, row, vs)
			str.put(row, v)
			lc.put(row, v)
			lcs.put(row, vs)
			strs.put(row, vs)
		}
		lo := r.IntN(rows)
		for _, span := range [][2]int{{0, rows}, {lo, lo + r.IntN(rows-lo)}, {rows, rows}} {
			lo, hi := span[0], span[1]
			var s proto.ColStr
			decode(t, str.view(lo, hi), &s)
			l := proto.NewLowCardinality[string](new(proto.ColStr))
			decode(t, lc.view(lo, hi), l)
			ls := proto.NewLowCardinality[string](new(proto.ColStr)).Array()
			decode(t, lcs.view(lo, hi), ls)
			ss := new(proto.ColStr).Array()
			decode(t, strs.view(lo, hi), ss)
			for i := range hi - lo {
				if s.Row(i) != wantStr[lo+i] || l.Row(i) != wantStr[lo+i] {
					t.Fatalf("block %d row %d: got %q and %q, want %q", block, lo+i, s.Row(i), l.Row(i), wantStr[lo+i])
				}
				if !slices.Equal(ls.Row(i), wantList[lo+i]) || !slices.Equal(ss.Row(i), wantList[lo+i]) {
					t.Fatalf("block %d row %d: got %q and %q, want %q", block, lo+i, ls.Row(i), ss.Row(i), wantList[lo+i])
				}
				if str.at(lo+i) != wantStr[lo+i] || lc.at(lo+i) != wantStr[lo+i] || !slices.Equal(lcs.at(lo+i), wantList[lo+i]) || !slices.Equal(strs.at(lo+i), wantList[lo+i]) {
					t.Fatalf("block %d row %d: at differs from what is sent", block, lo+i)
				}
			}
		}
		str.reset()
		lc.reset()
		lcs.reset()
		strs.reset()
	}
}

// TestCounts overwrites maps with the same and with other names.
func TestCounts(t *testing.T) {
	var c countsColumn
	of := func(pairs ...any) (int, func(int) (string, int64)) {
		return len(pairs) / 2, func(i int) (string, int64) { return pairs[2*i].(string), int64(pairs[2*i+1].(int)) }
	}
	set := func(row int, pairs ...any) {
		n, at := of(pairs...)
		c.put(row, n, at)
	}
	set(0, "a", 1, "b", 2)
	set(1)
	set(2, "x", -5)
	set(0, "a", 3, "b", 4)
	set(2, "y", 6, "x", 7)
	out := proto.NewMap[string, int64](new(proto.ColStr), new(proto.ColInt64))
	decode(t, c.view(0, 3), out)
	for i, want := range []map[string]int64{{"a": 3, "b": 4}, {}, {"y": 6, "x": 7}} {
		if got := out.Row(i); fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(c.at(i)) != fmt.Sprint(want) {
			t.Errorf("row %d: got %v and %v, want %v", i, got, c.at(i), want)
		}
	}
}

// TestRowIndexCollisions gives all keys one hash, or few.
func TestRowIndexCollisions(t *testing.T) {
	for _, hashes := range []uint64{1, 7, 1 << 40} {
		var x rowIndex
		for range 2 {
			for row := range 2000 {
				same := func(r int) bool { return r == row }
				hash := uint64(row) % hashes << 30
				if got, ok := x.find(hash, same); ok {
					t.Fatalf("row %d found at %d before it was there", row, got)
				}
				x.insert(hash, row)
				if got, ok := x.find(hash, same); !ok || got != row {
					t.Fatalf("row %d: found %d, %v", row, got, ok)
				}
			}
			x.reset()
		}
	}
}
