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
	// Not −0, whichever of the two an order of comparisons has found.
	if low == 0 {
		low = 0
	}
	if high == 0 {
		high = 0
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

// blockSide is how many channels, or tokens, are converted at a time in memory of the stack.
const blockSide = 64

// scaleKeys fixes the scale of every channel of m from all keys of the group, rows of the len(keys)/dk tokens.
func (l *layout) scaleKeys(m *kernel.KVCodes, keys []float32) {
	var low, high [blockSide]float32
	for c := 0; c < l.dk; c += blockSide {
		n := copy(low[:], keys[c:l.dk])
		copy(high[:], low[:n])
		kernel.ColumnRange(low[:n], high[:n], keys[c:], l.dk, len(keys)/l.dk)
		for i := range n {
			s, z := l.scaleFor(low[i], high[i])
			setRow(m, c+i, s, z)
		}
	}
}

// encodeKeys codes keys as the tokens from column first on, with the scales that m has.
func (l *layout) encodeKeys(m *kernel.KVCodes, keys []float32, first int) {
	m.QuantizeCols(keys, l.dk, l.dk, first, first+len(keys)/l.dk)
}

// encodeValues codes values as the tokens from row first on, each with a scale of its own.
func (l *layout) encodeValues(m *kernel.KVCodes, values []float32, first int) {
	for ; len(values) > 0; values, first = values[l.dv:], first+1 {
		row := values[:l.dv]
		s, z := l.scaleFor(kernel.RowRange(row))
		setRow(m, first, s, z)
		m.QuantizeRow(first, row)
	}
}

// encodeHalves stores keys as the tokens from column first on of (channels, tokens) in FP16.
func (l *layout) encodeHalves(k []uint16, keys []float32, first int) {
	tokens := len(keys) / l.dk
	if tokens < 4 { // turning them around does not pay
		var row [blockSide]uint16
		for ; len(keys) > 0; keys, first = keys[l.dk:], first+1 {
			for c := 0; c < l.dk; c += blockSide {
				n := min(blockSide, l.dk-c)
				kernel.ToFloat16(row[:n], keys[c:][:n])
				for i, h := range row[:n] {
					k[(c+i)*l.group+first] = h
				}
			}
		}
		return
	}
	var turned [16 * blockSide]float32
	for tokens > 0 {
		n := min(tokens, blockSide)
		for c := 0; c < l.dk; c += 16 {
			channels := min(16, l.dk-c)
			kernel.Transpose(turned[:], n, keys[c:], l.dk, n, channels, 1)
			for i := range channels {
				kernel.ToFloat16(k[(c+i)*l.group+first:][:n], turned[i*n:][:n])
			}
		}
		keys, first, tokens = keys[n*l.dk:], first+n, tokens-n
	}
}

// decodeHalves is the other way.
func (l *layout) decodeHalves(keys []float32, k []uint16, first, count int) {
	var turned [16 * blockSide]float32
	for count > 0 {
		n := min(count, blockSide)
		for c := 0; c < l.dk; c += 16 {
			channels := min(16, l.dk-c)
			for i := range channels {
				kernel.FromFloat16(turned[i*n:][:n], k[(c+i)*l.group+first:][:n])
			}
			kernel.Transpose(keys[c:], l.dk, turned[:], n, channels, n, 1)
		}
		keys, first, count = keys[n*l.dk:], first+n, count-n
	}
}

// encode stores tokens of a head from place first of a page on. Rotated keys are given rotated. scales says that the page is new
// and that keys and group are equal: the keys of all its tokens, of which count are coded now.
func (p *page) encode(l *layout, head int, group, values []float32, first, count int, scales bool) {
	if l.bits == 16 {
		k, v := p.keys16(l, head), p.values16(l, head)
		l.encodeHalves(k, group[:count*l.dk], first)
		for i := range count {
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
		l.decodeHalves(keys, k, first, count)
		for i := range count {
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
	if l.rotate > 0 {
		kernel.Hadamard(x, l.rotate)
	}
}
