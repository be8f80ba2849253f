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

	parallel.Run(len(p.segs)*heads, func(_ *parallel.Worker, n int) {
		p.encodeKeys(c, p.segs[n/heads], n%heads, means[n*d:][:d])
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

// encodeKeys centres and rounds the keys of one head of a segment, and leaves their mean.
func (p *problem[T]) encodeKeys(c *codes[T], seg segment, h int, mean []T) {
	var sum, row, centred [maxDim]float32
	var aligned [maxDim / 4]uint32
	code := unsafe.Slice((*int8)(unsafe.Pointer(&aligned)), len(aligned)*4)
	d, n := len(mean), 0
	for j := seg.k0; j < seg.k1; j++ {
		x := narrowRow(row[:d], p.k.row(seg.batch, j, h))
		if finite(x) {
			kernel.Add(sum[:d], sum[:d], x)
			n++
		}
	}
	if n > 0 {
		kernel.Scale(sum[:d], sum[:d], -1/float32(n))
	}
	if !finite(sum[:d]) {
		clear(sum[:d])
	}
	for i, x := range sum[:d] {
		mean[i] = -T(x)
	}
	at := (h*c.panels + seg.panel) * codePanel
	for j := seg.k0; j < seg.k1; j++ {
		kernel.Add(centred[:d], narrowRow(row[:d], p.k.row(seg.batch, j, h)), sum[:d])
		scale, _ := encodeRow(code[:4*c.words], centred[:d])
		c.kScale[at+j-seg.k0] = T(scale)
		n := j - seg.k0
		panel := words(c.panel(seg, h, j-n%codePanel))
		for w, x := range words(code[:4*c.words]) {
			panel[c.wordAt(n%codePanel, w)] = x ^ c.signs()
		}
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
		for n, v := range x {
			wide[n] = T(v)
		}
		c.qScale[at], c.qSum[at], c.qMean[at] = T(scale), -128*sum, kernel.Dot(wide[:d], means[h/p.group*d:][:d])
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
