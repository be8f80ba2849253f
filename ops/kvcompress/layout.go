package kvcompress

import (
	"sync/atomic"

	"stheno/internal/kernel"
	"stheno/internal/memory"
)

// layout is the sizes that shape and config imply.
type layout struct {
	heads            int // of keys
	dk, dv           int
	padK, padV       int // filled up to multiples of 16
	group            int // tokens of a page
	recent           int // slots of the ring
	most             int // pages of a sequence
	sinks            int // tokens kept in float32
	bits             int // of a code: 16, 8, 4
	asym             bool
	rotate           int // channels of a block that is rotated, 0 for none
	codesK, codesV   int // bytes of a head's part of a page
	halvesK, halvesV int // FP16 numbers likewise: scales and minima, or with 16 bits the numbers themselves
}

func newLayout(s Shape, c Config) layout {
	l := layout{
		heads: s.KVHeads, dk: s.HeadDim, dv: s.ValueDim, padK: (s.HeadDim + 15) &^ 15, padV: (s.ValueDim + 15) &^ 15,
		group: c.GroupSize, sinks: min(c.SinkTokens, s.Capacity), bits: 32 / c.Ratio, asym: c.Ratio == 8,
	}
	l.recent = max(1, min(max(c.Recent, c.GroupSize), s.Capacity-l.sinks))
	l.most = (s.Capacity - l.sinks - l.recent + l.group - 1) / l.group
	if c.Rotate == RotateAlways {
		l.rotate = s.HeadDim & -s.HeadDim
	}
	if l.bits == 16 {
		l.halvesK, l.halvesV = l.dk*l.group, l.group*l.padV
		return l
	}
	l.codesK, l.codesV = kernel.KVCodeLen(l.bits, l.padK, l.group), kernel.KVCodeLen(l.bits, l.group, l.padV)
	l.halvesK, l.halvesV = l.padK, l.group
	if l.asym {
		l.halvesK, l.halvesV = 2*l.halvesK, 2*l.halvesV
	}
	return l
}

// codes and halves are the sizes of a page.
func (l *layout) codes() int     { return l.heads * (l.codesK + l.codesV) }
func (l *layout) halves() int    { return l.heads * (l.halvesK + l.halvesV) }
func (l *layout) pageBytes() int { return l.codes() + 2*l.halves() }

// page is one group of tokens of one sequence in compressed form: a place in a slab.
type page struct {
	shared atomic.Bool // by a Fork: copied before it is written
	*slab
	i int
}

// slab is memory for pages. The part of a head is the same page after page, keys and then values, so that a query streams through
// the tokens of its head: part (head, page, keys or values).
type slab struct {
	owner  *owner
	pages  int
	codes  []uint8
	halves []uint16
}

// slabBytes is about how large the first slabs are, if that many pages are still to come; later ones are half as large as all before.
const slabBytes = 2 << 20

// slabPages is the number of pages of the next slab of a sequence that has room for pages of them and may need most in all.
func (l *layout) slabPages(pages, most int) int {
	return min(max(1, slabBytes/l.pageBytes(), pages/2), most-pages)
}

// owner tells the slabs of one sequence from those of its forks.
type owner struct{ _ byte }

func newSlab(l *layout, o *owner, pages int) *slab {
	return &slab{owner: o, pages: pages, codes: memory.Make[uint8](pages * l.codes()), halves: memory.Make[uint16](pages * l.halves())}
}

// head is the codes and the FP16 numbers of a head.
func (p *page) head(l *layout, head int) (codes []uint8, halves []uint16) {
	at := head*p.pages + p.i
	n, m := l.codesK+l.codesV, l.halvesK+l.halvesV
	return p.codes[at*n:][:n], p.halves[at*m:][:m]
}

// copyFrom copies the numbers of q.
func (p *page) copyFrom(l *layout, q *page) {
	for h := range l.heads {
		toCodes, toHalves := p.head(l, h)
		codes, halves := q.head(l, h)
		copy(toCodes, codes)
		copy(toHalves, halves)
	}
}

// clear zeroes the numbers.
func (p *page) clear(l *layout) {
	for h := range l.heads {
		codes, halves := p.head(l, h)
		clear(codes)
		clear(halves)
	}
}

// keys is the matrix (channels, tokens) of a head.
func (p *page) keys(l *layout, head int) kernel.KVCodes {
	codes, halves := p.head(l, head)
	return l.matrix(codes[:l.codesK], halves[:l.halvesK], l.padK, l.group)
}

// values is the matrix (tokens, channels) of a head.
func (p *page) values(l *layout, head int) kernel.KVCodes {
	codes, halves := p.head(l, head)
	return l.matrix(codes[l.codesK:], halves[l.halvesK:], l.group, l.padV)
}

func (l *layout) matrix(codes []uint8, halves []uint16, rows, cols int) kernel.KVCodes {
	m := kernel.KVCodes{Bits: l.bits, Rows: rows, Cols: cols, Codes: codes, Scales: halves[:rows]}
	if l.asym {
		m.Mins = halves[rows : 2*rows]
	}
	return m
}

// keys16 and values16 are, with 16 bits, the numbers (channels, tokens) and (tokens, channels).
func (p *page) keys16(l *layout, head int) []uint16 {
	_, halves := p.head(l, head)
	return halves[:l.halvesK]
}

func (p *page) values16(l *layout, head int) []uint16 {
	_, halves := p.head(l, head)
	return halves[l.halvesK:]
}
