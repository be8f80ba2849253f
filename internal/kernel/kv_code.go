package kernel

import (
	"fmt"
	"math"
)

// kvEncoder turns numbers of a row into codes, of which top is the largest.
type kvEncoder struct{ low, inverse, top float64 }

func (m *KVCodes) encoder(r int) kvEncoder {
	s, low := m.Row(r)
	e := kvEncoder{low: float64(low), top: float64(int(1)<<m.Bits - 1)}
	if s > 0 {
		e.inverse = 1 / float64(s)
	}
	return e
}

// code is the nearest code.
func (e *kvEncoder) code(x float32) int {
	c := (float64(x) - e.low) * e.inverse
	return int(math.Max(0, math.Min(e.top, math.RoundToEven(c))))
}

// inBlock is the columns from n on that lie in one block, of those below end: how many they are, where the words of the first rows of
// column n are, and how far the words of the next rows are from them.
func (m *KVCodes) inBlock(n, end int) (count, at, stride int) {
	first := n &^ (kvBlock - 1)
	at, _ = m.at(0, n)
	return min(end, first+kvBlock) - n, at, 4 * min(kvBlock, m.Cols-first)
}

// checkRange checks a matrix of n numbers, rows of width, at most as many as most, ld apart, for from to to of end columns or rows.
func (m *KVCodes) checkRange(fn string, n, ld, width, most, from, to, end int) {
	m.check()
	if from < 0 || to < from || to > end || width > most || ld < width {
		panic(fmt.Sprintf("kernel: %s: got %d to %d of %d, and %d numbers with stride %d, want a range within, and at most %d and the stride", fn, from, to, end, width, ld, most))
	}
	if to > from {
		checkLen(fn, n, (to-from-1)*ld+width)
	}
}

// QuantizeCols stores the nearest codes of x as columns n0 ≤ n < n1: code(r, n) of x[(n−n0)·ld + r], r < rows, with the scales and minima
// that the rows have. Numbers beyond the codes get the nearest one. x is finite.
func (m *KVCodes) QuantizeCols(x []float32, ld, rows, n0, n1 int) {
	m.checkRange("QuantizeCols", len(x), ld, rows, m.Rows, n0, n1, m.Cols)
	done := 0
	if chunks := rows / 16; chunks > 0 && active != Generic {
		for n := n0; n < n1; {
			count, at, stride := m.inBlock(n, n1)
			if !kvQuantizeColsSIMD(m, x[(n-n0)*ld:], ld, at, stride, chunks, count) {
				break
			}
			done, n = chunks*16, n+count
		}
	}
	for r := done; r < rows; r++ {
		e := m.encoder(r)
		for n := n0; n < n1; n++ {
			m.SetCode(r, n, e.code(x[(n-n0)*ld+r]))
		}
	}
}

// QuantizeRow stores the nearest codes of x as the first columns of row r, with its scale and minimum. x is finite.
func (m *KVCodes) QuantizeRow(r int, x []float32) {
	m.checkRange("QuantizeRow", len(x), m.Cols, len(x), m.Cols, r, r+1, m.Rows)
	e, done := m.encoder(r), 0
	if active != Generic {
		for n, end := 0, len(x)&^15; n < end; {
			count, at, mask, shift := m.rowInBlock(r, n, end)
			if !kvQuantizeRowSIMD(m.Codes[at:], x[n:n+count], e, mask, shift) {
				break
			}
			n += count
			done = n
		}
	}
	for n := done; n < len(x); n++ {
		m.SetCode(r, n, e.code(x[n]))
	}
}

// rowInBlock is the codes of row r from column n on that lie in one block, of those below end: how many they are, where the word of the
// first is, and which of its bits.
func (m *KVCodes) rowInBlock(r, n, end int) (count, at int, mask uint32, shift int) {
	count, _, _ = m.inBlock(n, end)
	i, bit := m.at(r, n)
	shift = i%4*8 + int(bit)
	return count, i &^ 3, uint32(1<<m.Bits-1) << shift, shift
}

// DequantizeCols computes dst[(n−n0)·ld + r] = value(r, n) for n0 ≤ n < n1, r < rows.
func (m *KVCodes) DequantizeCols(dst []float32, ld, rows, n0, n1 int) {
	m.checkRange("DequantizeCols", len(dst), ld, rows, m.Rows, n0, n1, m.Cols)
	done := 0
	if chunks := rows / 16; chunks > 0 && active != Generic {
		for n := n0; n < n1; {
			count, at, stride := m.inBlock(n, n1)
			if !kvDequantizeColsSIMD(m, dst[(n-n0)*ld:], ld, at, stride, chunks, count) {
				break
			}
			done, n = chunks*16, n+count
		}
	}
	for r := done; r < rows; r++ {
		s, low := m.Row(r)
		for n := n0; n < n1; n++ {
			dst[(n-n0)*ld+r] = float32(float64(s)*float64(m.Code(r, n)) + float64(low))
		}
	}
}

// DequantizeRows computes dst[(r−r0)·ld + n] = value(r, n) for r0 ≤ r < r1, n < cols.
func (m *KVCodes) DequantizeRows(dst []float32, ld, cols, r0, r1 int) {
	m.checkRange("DequantizeRows", len(dst), ld, cols, m.Cols, r0, r1, m.Rows)
	for r := r0; r < r1; r++ {
		s, low := m.Row(r)
		row, done := dst[(r-r0)*ld:][:cols], 0
		if active != Generic {
			for n, end := 0, cols&^15; n < end; {
				count, at, mask, shift := m.rowInBlock(r, n, end)
				if !kvDequantizeRowSIMD(row[n:n+count], m.Codes[at:], s, low, mask, shift) {
					break
				}
				n += count
				done = n
			}
		}
		for n := done; n < cols; n++ {
			row[n] = float32(float64(s)*float64(m.Code(r, n)) + float64(low))
		}
	}
}

// Hadamard multiplies each block of x by the normalized Walsh–Hadamard matrix of that many rows, a power of two. The matrix is symmetric:
// doing it again gives x back, but for rounding.
func Hadamard(x []float32, block int) {
	if block < 1 || block&(block-1) != 0 || len(x)%block != 0 {
		panic(fmt.Sprintf("kernel: Hadamard: got %d numbers in blocks of %d, want a multiple of a power of two", len(x), block))
	}
	norm := float32(1 / math.Sqrt(float64(block)))
	step := max(block, maxCall&^(block-1))
	for i := 0; i < len(x); i += step {
		part := x[i:min(i+step, len(x))]
		if !hadamardSIMD(part, block, norm) {
			for ; len(part) > 0; part = part[block:] {
				hadamard(part[:block], norm)
			}
		}
		if i+step < len(x) {
			breathe()
		}
	}
}

func hadamard(x []float32, norm float32) {
	for h := 1; h < len(x); h *= 2 {
		for i := 0; i < len(x); i += 2 * h {
			a, b := x[i:i+h], x[i+h:i+2*h]
			for j, u := range a {
				v := b[j]
				a[j], b[j] = u+v, u-v
			}
		}
	}
	for i := range x {
		x[i] *= norm
	}
}
