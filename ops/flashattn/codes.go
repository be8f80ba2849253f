package flashattn

import (
	"math"
	"unsafe"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// codes are the queries and keys of a problem as integers of 8 bits (Int8). Rows are filled up with zeros to whole words of four
// codes, the unit that processors multiply.
type codes[T kernel.Float] struct {
	words int // of a row
	// tiled is for kernel.OnlineCodeTiles, whose rows are filled up to 64 codes; kernel.OnlineCodes takes others.
	tiled bool
	// Of queries, by rowAt: 4·words codes, their scale, −128 times their sum, and q·μ.
	q      []int8
	qScale []T
	qSum   []int32
	qMean  []T
	// Of keys, in panels of codePanel keys counted from the first of a segment, as wordAt says. If not tiled, codes are 128 higher than
	// they are. A head has panels of them; those of a segment begin at segment.panel.
	k      []uint8
	kScale []T
	panels int
}

// codePanel is the number of keys in a panel of codes.
const codePanel = kernel.OnlineKeys

// leastScale is what a largest magnitude below it is taken for: the inverse of a scale stays finite.
const leastScale = 0x1p-100

// codeSizes are the numbers of codes, of elements and of sums that encode keeps, for rows of queries and panels of keys of all heads.
func codeSizes(d int, tiled bool, qRows, kPanels, kvHeads, segs int) (bytes, elements, sums int) {
	return 4 * codeWords(d, tiled) * (qRows + kPanels*codePanel), 2*qRows + kPanels*codePanel + d*segs*kvHeads, qRows
}

// codeWords is the number of words of a row.
func codeWords(d int, tiled bool) int {
	if tiled {
		return ceilTo(d, 64) / 4
	}
	return (d + 3) / 4
}

// wordAt is the place of word w of key n in a panel, in words.
func (c *codes[T]) wordAt(n, w int) int {
	if c.tiled { // tiles of 16 keys by 16 words
		return (n/16*c.words+w/16*16)*16 + n%16*16 + w%16
	}
	return w*codePanel + n
}

// encode rounds queries and keys, and notes in segments where their keys begin.
func (p *problem[T]) encode(w *parallel.Worker) *codes[T] {
	d := p.q.Dim
	c := &codes[T]{tiled: p.codeTiles()}
	c.words = codeWords(d, c.tiled)
	for n := range p.segs {
		s := &p.segs[n]
		s.panel = c.panels
		c.panels += (s.k1 - s.k0 + codePanel - 1) / codePanel
	}
	rows, heads := p.q.Batch*p.q.Heads*p.q.Seq, p.k.Heads
	kPanels := c.panels * heads
	bytes, elements, sums := codeSizes(d, c.tiled, rows, kPanels, heads, len(p.segs))
	all := parallel.Scratch[uint8](w, slotCodes, bytes+4*sums)
	c.k, all = all[:4*c.words*kPanels*codePanel], all[4*c.words*kPanels*codePanel:]
	c.qSum = unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(all))), rows) // whole words lie before it
	c.q = unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(all[4*rows:]))), 4*c.words*rows)
	var means []T
	carve(parallel.Scratch[T](w, slotCodeRows, elements), part[T]{&c.qScale, rows}, part[T]{&c.qMean, rows},
		part[T]{&c.kScale, kPanels * codePanel}, part[T]{&means, d * len(p.segs) * heads})

	sides := (heads + meanHeads - 1) / meanHeads
	parallel.Run(len(p.segs)*sides, func(_ *parallel.Worker, n int) {
		h := n % sides * meanHeads
		p.keyMeans(p.segs[n/sides], h, min(h+meanHeads, heads), means[n/sides*heads*d:][:heads*d])
	})
	keyPieces := (p.k.Seq + codePanel - 1) / codePanel
	parallel.Run(len(p.segs)*keyPieces, func(_ *parallel.Worker, n int) {
		seg := p.segs[n/keyPieces]
		if j0 := seg.k0 + n%keyPieces*codePanel; j0 < seg.k1 {
			p.encodeKeys(c, seg, j0, min(j0+codePanel, seg.k1), means[n/keyPieces*heads*d:][:heads*d])
		}
	})
	pieces := (p.q.Seq + roundPiece - 1) / roundPiece
	parallel.Run(len(p.segs)*pieces, func(_ *parallel.Worker, n int) {
		seg := p.segs[n/pieces]
		i0 := seg.q0 + n%pieces*roundPiece
		for i := i0; i < min(i0+roundPiece, seg.q1); i++ {
			p.encodeQueries(c, seg.batch, i, means[n/pieces*heads*d:][:heads*d])
		}
	})
	return c
}

// meanHeads is how many key heads a task takes the mean of: those that lie side by side are on one page.
const meanHeads = 4

// keyMeans fills in the means of key heads h0 ≤ h < h1 of a segment.
func (p *problem[T]) keyMeans(seg segment, h0, h1 int, means []T) {
	var sums [meanHeads][maxDim]float32
	var row [maxDim]float32
	d := p.k.Dim
	for j := seg.k0; j < seg.k1; j++ {
		for h := h0; h < h1; h++ {
			sum := sums[h-h0][:d]
			kernel.Add(sum, sum, narrowRow(row[:d], p.k.row(seg.batch, j, h)))
		}
	}
	for h := h0; h < h1; h++ {
		sum, n := sums[h-h0][:d], seg.k1-seg.k0
		if !finite(sum) {
			clear(sum)
			for j := seg.k0; j < seg.k1; j++ {
				if x := narrowRow(row[:d], p.k.row(seg.batch, j, h)); finite(x) {
					kernel.Add(sum, sum, x)
				} else {
					n--
				}
			}
		}
		kernel.Scale(sum, sum, 1/float32(max(n, 1)))
		if !finite(sum) {
			clear(sum)
		}
		for i, x := range sum {
			means[h*d+i] = T(x)
		}
	}
}

// encodeKeys centres and rounds keys j0 ≤ j < j1 of a segment, all of one panel.
func (p *problem[T]) encodeKeys(c *codes[T], seg segment, j0, j1 int, means []T) {
	var row, centred [maxDim]float32
	var aligned [maxDim / 4]uint32
	code := unsafe.Slice((*int8)(unsafe.Pointer(&aligned)), len(aligned)*4)[:4*c.words]
	d := p.k.Dim
	for j := j0; j < j1; j++ {
		for h := range p.k.Heads {
			mean := means[h*d:][:d]
			if x, ok := any(mean).([]float32); ok {
				kernel.Scale(centred[:d], x, -1)
			} else {
				for i, x := range mean {
					centred[i] = -float32(x)
				}
			}
			kernel.Add(centred[:d], centred[:d], narrowRow(row[:d], p.k.row(seg.batch, j, h)))
			scale, _ := encodeRow(code, centred[:d])
			c.keyScales(seg, h, j, 1)[0] = T(scale)
			c.putKey(words(c.panel(seg, h, j0)), j-j0, words(code))
		}
	}
}

// putKey stores the codes of key n of a panel.
func (c *codes[T]) putKey(panel []uint32, n int, code []uint32) {
	if c.tiled {
		for w := 0; w < c.words; w += 16 {
			copy(panel[c.wordAt(n, w):][:16], code[w:])
		}
		return
	}
	for w, x := range code {
		panel[c.wordAt(n, w)] = x ^ c.signs()
	}
}

// words are the words of four codes in x, which lies at a multiple of 4 bytes.
func words[T int8 | uint8](x []T) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/4)
}

// signed views codes as they are.
func signed(x []uint8) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// encodeQueries rounds the queries of all heads at a place; means are those of the key heads.
func (p *problem[T]) encodeQueries(c *codes[T], b, i int, means []T) {
	var row [maxDim]float32
	var wide [maxDim]T
	d := p.q.Dim
	for h := range p.q.Heads {
		at := p.rowAt(b, h, i)
		x := narrowRow(row[:d], p.q.row(b, i, h))
		scale, sum := encodeRow(c.q[at*4*c.words:][:4*c.words], x)
		c.qScale[at], c.qSum[at], c.qMean[at] = T(scale), -128*sum, kernel.Dot(wideRow(wide[:d], x), means[h/p.group*d:][:d])
	}
}

// narrowRow is x in float32, in dst if it is not already.
func narrowRow[T kernel.Float](dst []float32, x []T) []float32 {
	if x, ok := any(x).([]float32); ok {
		return x
	}
	for c, v := range x {
		dst[c] = float32(v)
	}
	return dst
}

// wideRow is x in T, in dst if T is not float32.
func wideRow[T kernel.Float](dst []T, x []float32) []T {
	if x, ok := any(x).([]T); ok {
		return x
	}
	for c, v := range x {
		dst[c] = T(v)
	}
	return dst
}

// encodeRow rounds a row to integers, filled up with zeros, and returns their scale and their sum. A row with a NaN or an infinity
// has zeros and the scale NaN.
func encodeRow(dst []int8, x []float32) (scale float32, sum int32) {
	largest := kernel.AbsMax(x)
	if !(largest <= math.MaxFloat32) {
		clear(dst)
		return float32(math.NaN()), 0
	}
	largest = max(largest, leastScale)
	sum = kernel.RoundRow(dst[:len(x)], x, 127/largest)
	clear(dst[len(x):])
	return largest / 127, sum
}

// query widens the codes of a query.
func (c *codes[T]) query(dst []T, at int) {
	for n, v := range c.q[at*4*c.words:][:len(dst)] {
		dst[n] = T(v)
	}
}

// keys widens the codes of keys j0 ≤ j < j1 of a head, transposed, in panels as packKeys does.
func (c *codes[T]) keys(dst []T, d int, seg segment, h, j0, j1, panel int) {
	for j := j0; j < j1; j++ {
		n := j - seg.k0
		from := words(c.panel(seg, h, j-n%codePanel))
		to := dst[(j-j0)/panel*panel*d+(j-j0)%panel:]
		for e := range d {
			to[e*panel] = T(int8((from[c.wordAt(n%codePanel, e/4)] ^ c.signs()) >> (e % 4 * 8)))
		}
	}
}

// signs is what keys' words are xored with.
func (c *codes[T]) signs() uint32 {
	if c.tiled {
		return 0
	}
	return 0x80808080
}

// panel is the panel of codes that begins with key j.
func (c *codes[T]) panel(seg segment, h, j int) []uint8 {
	return c.k[((h*c.panels+seg.panel)*codePanel+j-seg.k0)*4*c.words:][:codePanel*4*c.words]
}

// keyScales are the scales of n keys from key j.
func (c *codes[T]) keyScales(seg segment, h, j, n int) []T {
	return c.kScale[(h*c.panels+seg.panel)*codePanel+j-seg.k0:][:n]
}

// decode turns products of codes, which are integers, into products of queries and keys, but for q·μ where no softcap wants it, and scales them
// as packed keys otherwise do.
func (p *problem[T]) decode(st *stacked, t tile, s []T, ld int) {
	n := t.jz - t.ja
	scales := p.codes.keyScales(st.seg, st.kvHead, t.ja, n)
	for r := range t.rz - t.ra {
		i, h := st.place(t.ra + r)
		at, row := p.rowAt(st.seg.batch, h, i), s[r*ld:][:n]
		kernel.Scale(row, row, p.codes.qScale[at]*p.keyScale())
		kernel.Mul(row, row, scales)
		if p.Softcap > 0 {
			kernel.AddScalar(row, row, p.codes.qMean[at])
		}
	}
}

// lift is what the logits of a row are higher than those that are summed: q·μ, which the softmax does not see.
func (p *problem[T]) lift(at int) float64 {
	if p.codes == nil || p.Softcap > 0 {
		return 0
	}
	return p.Scale * float64(p.codes.qMean[at])
}
