package flashattn

import (
	"math"

	"stheno/internal/kernel"
)

// log is the natural logarithm, for results of type T. To float32 a relative error of 2⁻³⁹ is nothing, and this takes half the time of
// math.Log, which of a causal pass over 512 rows was a twelfth:
//
//	x = m·2^k, √½ ≤ m < √2:  log x = k·log 2 + 2·atanh((m−1)/(m+1)), the series to the seventh term.
func log[T kernel.Float](x float64) float64 {
	if _, double := any(T(0)).(float64); double || !(x >= 0x1p-1022 && x <= math.MaxFloat64) {
		return math.Log(x)
	}
	const one = 0x3fe6a09e667f3bcd // √½
	bits := math.Float64bits(x)
	k := int64(bits-one) >> 52
	m := math.Float64frombits(bits - uint64(k)<<52)
	s := (m - 1) / (m + 1)
	z := s * s
	return float64(k)*math.Ln2 + 2*s*(1+z*(1./3+z*(1./5+z*(1./7+z*(1./9+z*(1./11+z/13))))))
}
