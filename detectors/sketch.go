package detectors

import "math"

// sketchBits gives a sketch 2^sketchBits registers: a relative standard error of 1.04/sqrt(1024) = 3.25 %, see
// Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog" (2007).
const (
	sketchBits = 10
	sketchSize = 1 << sketchBits
)

// sketch estimates how many different 64-bit hashes were added. It takes sketchSize bytes, its content depends on the set
// of hashes alone, and the union of two is their element-wise maximum. Hashes must be spread evenly (Hash64 is).
type sketch [sketchSize]uint8

func (s *sketch) add(hash uint64) {
	// Entity keys of different kinds share their mixing; a multiplication spreads what a hash has in its low bits.
	hash *= 0x9e3779b97f4a7c15
	i := hash >> (64 - sketchBits)
	rank := uint8(1)
	for rest := hash << sketchBits; rank <= 64-sketchBits && rest>>63 == 0; rest <<= 1 {
		rank++
	}
	s[i] = max(s[i], rank)
}

func (s *sketch) union(other *sketch) {
	for i, v := range other {
		s[i] = max(s[i], v)
	}
}

// estimate returns the number of different hashes, by the estimator of Ertl, "New cardinality estimation algorithms for
// HyperLogLog sketches" (2017), which has no bias for small and middle numbers. Products are rounded before they are added, so
// that every processor gives the same number.
func (s *sketch) estimate() int64 {
	var counts [64 - sketchBits + 2]int // of registers by their value
	for _, v := range s {
		counts[min(int(v), len(counts)-1)]++
	}
	const m = float64(sketchSize)
	sum := 0.0
	for k := len(counts) - 1; k > 0; k-- {
		sum = (sum + float64(counts[k])) / 2
	}
	if counts[0] == sketchSize {
		return 0
	}
	x, y := float64(counts[0])/m, 1.0
	empty := x
	for before := -1.0; empty != before; y += y {
		before = empty
		x *= x
		empty += float64(x * y)
	}
	return int64(m*m/(2*math.Ln2)/(sum+float64(m*empty)) + 0.5)
}
