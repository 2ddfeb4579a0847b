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

// estimate returns the number of different hashes: by linear counting while registers are empty and the number is small,
// by the harmonic mean of the registers otherwise.
func (s *sketch) estimate() int64 {
	sum, empty := 0.0, 0
	for _, v := range s {
		sum += math.Ldexp(1, -int(v))
		if v == 0 {
			empty++
		}
	}
	const m = float64(sketchSize)
	estimate := 0.7213 / (1 + 1.079/m) * m * m / sum
	if estimate <= 2.5*m && empty > 0 {
		estimate = m * math.Log(m/float64(empty))
	}
	return int64(estimate + 0.5)
}
