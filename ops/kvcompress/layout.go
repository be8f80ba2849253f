package kvcompress

import (
	"sync/atomic"

	"stheno/internal/kernel"
)

// layout is the sizes that shape and config imply.
type layout struct {
	heads            int // of keys
	dk, dv           int
	padK, padV       int // filled up to multiples of 16
	group            int // tokens of a page
	recent           int // slots of the ring
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

// page is one group of tokens of one sequence in compressed form: for each head its keys, then its values.
type page struct {
	shared atomic.Bool // by a Fork: copied before it is written
	codes  []uint8
	halves []uint16
}

func newPage(l *layout) *page {
	return &page{codes: make([]uint8, l.codes()), halves: make([]uint16, l.halves())}
}

func (p *page) clone() *page {
	return &page{codes: append([]uint8(nil), p.codes...), halves: append([]uint16(nil), p.halves...)}
}

// keys is the matrix (channels, tokens) of a head.
func (p *page) keys(l *layout, head int) kernel.KVCodes {
	return l.matrix(p.codes[head*(l.codesK+l.codesV):][:l.codesK], p.halves[head*(l.halvesK+l.halvesV):][:l.halvesK], l.padK, l.group)
}

// values is the matrix (tokens, channels) of a head.
func (p *page) values(l *layout, head int) kernel.KVCodes {
	return l.matrix(p.codes[head*(l.codesK+l.codesV)+l.codesK:][:l.codesV], p.halves[head*(l.halvesK+l.halvesV)+l.halvesK:][:l.halvesV], l.group, l.padV)
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
	return p.halves[head*(l.halvesK+l.halvesV):][:l.halvesK]
}

func (p *page) values16(l *layout, head int) []uint16 {
	return p.halves[head*(l.halvesK+l.halvesV)+l.halvesK:][:l.halvesV]
}
