package kernel

import "fmt"

// KVCodes is a rows×cols matrix of codes, keys or values of a group of tokens in a compressed cache. Each row has a scale and a
// minimum, in FP16:
//
//	value(r, n) = scale[r]·code(r, n) + min[r]
//
// so keys, which are quantized channel by channel, have channels as rows and tokens as columns, and values, quantized token by
// token, have tokens as rows: both products of attention sum over rows, with columns as lanes.
//
// Rows and Cols are multiples of 16. A word of 32 bits holds four rows of 8 bits, or eight rows of 4, of a column, the first lowest.
// Columns lie in blocks of 64, the last of which may have 48, 32 or 16; a block is the words of all its columns for the first rows,
// then for the next, so that memory is read in order.
type KVCodes struct {
	Bits, Rows, Cols int // bits: 8 or 4
	Codes            []uint8
	Scales           []uint16
	Mins             []uint16 // nil, for 8 bits only: −128·scale

	// Ahead and AheadRows are how many bytes after Codes and Scales lie those that will be wanted soon: AddProduct prefetches
	// them. What is there changes nothing but time.
	Ahead, AheadRows int
}

// KVCodeLen is the number of bytes of Codes.
func KVCodeLen(bits, rows, cols int) int { return rows * cols * bits / 8 }

// kvMiddle is the code of zero where there are no minima.
const kvMiddle = 128

func (m *KVCodes) check() {
	if m.Bits != 8 && m.Bits != 4 || m.Rows%16 != 0 || m.Cols%16 != 0 || m.Mins == nil && m.Bits != 8 {
		panic(fmt.Sprintf("kernel: KVCodes: got %d bits, %d×%d", m.Bits, m.Rows, m.Cols))
	}
	checkLen("codes", len(m.Codes), KVCodeLen(m.Bits, m.Rows, m.Cols))
	checkLen("scales", len(m.Scales), m.Rows)
	if m.Mins != nil {
		checkLen("minima", len(m.Mins), m.Rows)
	}
}

// kvBlock is the number of columns of a block.
const kvBlock = 64

// at is the byte of element (r, n), and the bits it is shifted by.
func (m *KVCodes) at(r, n int) (i int, shift uint) {
	first := n &^ (kvBlock - 1)
	width := min(kvBlock, m.Cols-first)
	per := 32 / m.Bits
	i = first*m.Rows*m.Bits/8 + r/per*4*width + 4*(n-first)
	if m.Bits == 8 {
		return i + r%4, 0
	}
	return i + r%8/2, uint(r&1) * 4
}

// Code returns code(r, n).
func (m *KVCodes) Code(r, n int) int {
	i, shift := m.at(r, n)
	return int(m.Codes[i]>>shift) & (1<<m.Bits - 1)
}

// SetCode stores code(r, n).
func (m *KVCodes) SetCode(r, n, code int) {
	i, shift := m.at(r, n)
	mask := uint8(1<<m.Bits-1) << shift
	m.Codes[i] = m.Codes[i]&^mask | uint8(code)<<shift
}

// Row returns the scale and the minimum of row r.
func (m *KVCodes) Row(r int) (scale, min float32) {
	scale = Float16Value(m.Scales[r])
	if m.Mins == nil {
		return scale, -kvMiddle * scale
	}
	return scale, Float16Value(m.Mins[r])
}

// Value returns value(r, n), rounded to float32.
func (m *KVCodes) Value(r, n int) float32 {
	s, low := m.Row(r)
	return float32(float64(s)*float64(m.Code(r, n)) + float64(low))
}

// AddProduct computes y[n] += Σ_r x[r]·value(r, n), with scales folded into x and minima summed once. x and tmp have Rows
// elements, y has Cols; tmp is overwritten.
func (m *KVCodes) AddProduct(y, x, tmp []float32) {
	m.check()
	checkLen("y", len(y), m.Cols)
	checkLen("x", len(x), m.Rows)
	checkLen("tmp", len(tmp), m.Rows)
	if m.Rows == 0 || m.Cols == 0 {
		return
	}
	if kvCodesSIMD(m, y, x, tmp) {
		return
	}
	base := float32(0)
	for r := range m.Rows {
		s, low := m.Row(r)
		tmp[r] = x[r] * s
		base += x[r] * low
	}
	per := 32 / m.Bits // rows of a word
	mask := uint8(1<<m.Bits - 1)
	for first := 0; first < m.Cols; first += kvBlock {
		width := min(kvBlock, m.Cols-first)
		var sum [kvBlock]float32
		for r := 0; r < m.Rows; r += per {
			i, _ := m.at(r, first)
			step := m.Codes[i:][:4*width]
			for n := range width {
				for i := range per {
					sum[n] += tmp[r+i] * float32(step[4*n+i*m.Bits/8]>>(i*m.Bits%8)&mask)
				}
			}
		}
		for n, v := range sum[:width] {
			y[first+n] += base + v
		}
	}
}

// AddVecMulHalf computes y[n] += Σ_r x[r]·w[r·ld + n] for the len(x) rows of w, numbers in FP16. len(y) is a multiple of
// 16. What lies ahead bytes after w will be wanted soon and is prefetched.
func AddVecMulHalf(y, x []float32, w []uint16, ld, ahead int) {
	if len(x) == 0 || len(y) == 0 {
		return
	}
	if len(y)%16 != 0 || ld < len(y) {
		panic(fmt.Sprintf("kernel: AddVecMulHalf: got %d columns with stride %d, want a multiple of 16", len(y), ld))
	}
	checkLen("w", len(w), (len(x)-1)*ld+len(y))
	if kvHalvesSIMD(y, x, w, ld, ahead) {
		return
	}
	for r, a := range x {
		for n, h := range w[r*ld:][:len(y)] {
			y[n] += a * Float16Value(h)
		}
	}
}
