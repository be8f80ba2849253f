package kvcompress

import (
	"math"

	"stheno/internal/kernel"
)

// halfUp is the smallest FP16 number that is not below x, 0 ≤ x ≤ 65504.
func halfUp(x float64) uint16 {
	h := kernel.Float16Bits(float32(x))
	if float64(kernel.Float16Value(h)) < x {
		h++
	}
	return h
}

// halfDown is the largest FP16 number that is not above x, |x| ≤ 65504.
func halfDown(x float32) uint16 {
	h := kernel.Float16Bits(x)
	switch v := kernel.Float16Value(h); {
	case v <= x:
		return h
	case h&0x7fff == 0:
		return 0x8001
	case v > 0:
		return h - 1
	default:
		return h + 1
	}
}

// scaleFor returns the scale and the minimum, in FP16, for numbers from low to high. Every number between is within half a scale
// of one that a code stands for. Without minima the numbers are coded symmetrically.
func (l *layout) scaleFor(low, high float32) (scale, min uint16) {
	if !l.asym {
		return halfUp(math.Max(math.Abs(float64(low)), math.Abs(float64(high))) / 127), 0
	}
	min = halfDown(low)
	return halfUp((float64(high) - float64(kernel.Float16Value(min))) / float64(int(1)<<l.bits-1)), min
}

// setRow stores the scale and the minimum of row r of m.
func setRow(m *kernel.KVCodes, r int, scale, min uint16) {
	m.Scales[r] = scale
	if m.Mins != nil {
		m.Mins[r] = min
	}
}

// encoder turns numbers of a row into codes.
type encoder struct {
	low, inverse float64
	top          float64
}

func newEncoder(m *kernel.KVCodes, r int) encoder {
	s, low := m.Row(r)
	e := encoder{low: float64(low), top: float64(int(1)<<m.Bits - 1)}
	if s > 0 {
		e.inverse = 1 / float64(s)
	}
	return e
}

// code is the nearest code.
func (e *encoder) code(x float32) int {
	c := (float64(x) - e.low) * e.inverse
	return int(math.Max(0, math.Min(e.top, math.RoundToEven(c))))
}

// scaleKeys fixes the scale of every channel of m from all keys of the group, rows of the len(keys)/dk tokens.
func (l *layout) scaleKeys(m *kernel.KVCodes, keys []float32) {
	for c := range l.dk {
		low, high := keys[c], keys[c]
		for i := c + l.dk; i < len(keys); i += l.dk {
			low, high = min(low, keys[i]), max(high, keys[i])
		}
		s, z := l.scaleFor(low, high)
		setRow(m, c, s, z)
	}
}

// encodeKeys codes keys as the tokens from column first on, with the scales that m has.
func (l *layout) encodeKeys(m *kernel.KVCodes, keys []float32, first int) {
	for c := range l.dk {
		e := newEncoder(m, c)
		for i, n := c, first; i < len(keys); i, n = i+l.dk, n+1 {
			m.SetCode(c, n, e.code(keys[i]))
		}
	}
}

// encodeValues codes values as the tokens from row first on, each with a scale of its own.
func (l *layout) encodeValues(m *kernel.KVCodes, values []float32, first int) {
	for ; len(values) > 0; values, first = values[l.dv:], first+1 {
		row := values[:l.dv]
		low, high := row[0], row[0]
		for _, x := range row {
			low, high = min(low, x), max(high, x)
		}
		s, z := l.scaleFor(low, high)
		setRow(m, first, s, z)
		e := newEncoder(m, first)
		for n, x := range row {
			m.SetCode(first, n, e.code(x))
		}
	}
}

// encode stores tokens of a head from place first of a page on. Rotated keys are given rotated. scales says that the page is new
// and that keys and group are equal: the keys of all its tokens, of which count are coded now.
func (p *page) encode(l *layout, head int, group, values []float32, first, count int, scales bool) {
	if l.bits == 16 {
		k, v := p.keys16(l, head), p.values16(l, head)
		for i := range count {
			for c, x := range group[i*l.dk:][:l.dk] {
				k[c*l.group+first+i] = kernel.Float16Bits(x)
			}
			kernel.ToFloat16(v[(first+i)*l.padV:][:l.dv], values[i*l.dv:][:l.dv])
		}
		return
	}
	k, v := p.keys(l, head), p.values(l, head)
	if scales {
		l.scaleKeys(&k, group)
	}
	l.encodeKeys(&k, group[:count*l.dk], first)
	l.encodeValues(&v, values[:count*l.dv], first)
}

// decode writes what tokens first to first+count of a head stand for, rows of dk and dv numbers; keys stay rotated.
func (p *page) decode(l *layout, head int, keys, values []float32, first, count int) {
	if l.bits == 16 {
		k, v := p.keys16(l, head), p.values16(l, head)
		for i := range count {
			for c := range l.dk {
				keys[i*l.dk+c] = kernel.Float16Value(k[c*l.group+first+i])
			}
			kernel.FromFloat16(values[i*l.dv:][:l.dv], v[(first+i)*l.padV:][:l.dv])
		}
		return
	}
	k, v := p.keys(l, head), p.values(l, head)
	k.DequantizeCols(keys, l.dk, l.dk, first, first+count)
	v.DequantizeRows(values, l.dv, l.dv, first, first+count)
}

// rotateRows multiplies each row of dk numbers by the normalized Hadamard matrix, block by block. The matrix is symmetric: doing
// it again gives the row back.
func (l *layout) rotateRows(x []float32) {
	if l.rotate == 0 {
		return
	}
	for ; len(x) > 0; x = x[l.rotate:] {
		hadamard(x[:l.rotate])
	}
}

// hadamard is the fast Walsh–Hadamard transform of a power of two of numbers, normalized.
func hadamard(x []float32) {
	for h := 1; h < len(x); h *= 2 {
		for i := 0; i < len(x); i += 2 * h {
			a, b := x[i:i+h], x[i+h:i+2*h]
			for j, u := range a {
				v := b[j]
				a[j], b[j] = u+v, u-v
			}
		}
	}
	norm := float32(1 / math.Sqrt(float64(len(x))))
	for i := range x {
		x[i] *= norm
	}
}
