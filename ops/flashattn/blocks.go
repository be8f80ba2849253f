package flashattn

import "stheno/internal/kernel"

// Bounds of what Attend accepts.
const (
	maxDim   = 256     // of a head
	maxBlock = 1 << 14 // of Config.BlockQ and BlockKV
)

// blocks are the sizes of the pieces in which attention is computed. They depend on shapes and on the instruction set and
// on nothing that is measured while running: two runs of a program must round alike.
type blocks struct {
	// rows is the number of query rows, times the heads that share a key head, of one unit of forward work. Keys and
	// values are packed once per unit, at a cost of some percent divided by rows/100.
	rows int
	// keys is the number of keys packed at a time. Forward, packed keys and values stay in the second-level cache while the
	// rows pass over them. Backward, rows are read and dQ is written once per block of keys, from and to far away, and larger
	// blocks pay even where they outgrow that cache.
	keys int
	// chunk rows × panel keys is the tile of scores that exists at a time, in the first-level cache. chunk is a multiple
	// of the six rows of a register tile.
	chunk, panel int
	// coded says that rows are held as codes of 8 bits too.
	coded bool
}

// unitQueries is the number of query rows of a unit of forward work for a number of heads per key head. Units begin at a
// multiple of six rows, where register tiles of the backward pass begin too: both then round scores alike.
func (b blocks) unitQueries(group int) int {
	n := max(1, b.rows/group)
	for n*group%6 != 0 {
		n++
	}
	return n
}

// forwardBlocks chooses for heads of dimension d (keys) and dv (values).
func (a attrs) forwardBlocks(d, dv int) blocks {
	b := blocks{rows: 576, keys: 256, chunk: 96, panel: 64}
	if d+dv > 128 { // rows and keys of twice the size
		b.rows, b.chunk = 384, 48
	}
	if d+dv > 256 {
		b.keys = 128
	}
	return a.given(b)
}

// Units that go through tiles cut keys and values, which is a larger part of their work: they have more rows, as many as fit into half of
// a second-level cache of 2 MiB, where there are manyUnits even then, to keep the threads of a large machine busy to the end.
const (
	manyUnits    = 24
	tileUnitRows = 576
	tileUnitSize = 1 << 20 // bytes of queries in pieces, and of outputs
)

// tiled is b for tiles, for heads key heads of so many rows. Results do not depend on it unless numbers are not for tiles: a unit leaves
// them as a whole, and rows beside others that see such numbers round otherwise.
func (b blocks) tiled(a attrs, heads, rows, d, dv int) blocks {
	if a.BlockQ > 0 {
		return b
	}
	n := min(2*tileUnitRows, tileUnitSize/(6*d+4*dv)/192*192)
	b.rows = min(n, tileUnitRows)
	if heads*((rows+n-1)/n) >= manyUnits {
		b.rows = n
	}
	return b
}

// backwardBlocks chooses for the backward pass, where rows has no meaning, in tiles or without.
func (a attrs) backwardBlocks(d, dv int, tiles bool) blocks {
	if tiles {
		return a.tileBlocks(d, dv)
	}
	b := blocks{keys: 512, chunk: 96, panel: 64}
	if d+dv > 128 {
		b.keys, b.chunk = 384, 48
	}
	if d+dv > 256 {
		b.keys = 192
	}
	return a.given(b)
}

func (a attrs) given(b blocks) blocks {
	b.coded = a.Precision == Int8
	if a.BlockQ > 0 {
		b.rows = a.BlockQ
		b.chunk = min(b.chunk, ceilTo(a.BlockQ, 6))
	}
	if a.BlockKV > 0 {
		b.keys = a.BlockKV
		b.panel = min(b.panel, ceilTo(a.BlockKV, 8))
	}
	b.keys = ceilTo(b.keys, b.panel)
	return b
}

func ceilTo(n, unit int) int { return (n + unit - 1) / unit * unit }

// gather copies rows rows of n elements, src[i·stride:], to dst[i·ld:], with zeros up to ld.
func gather[T kernel.Float](dst []T, ld int, src []T, rows, stride, n int) {
	for i := range rows {
		to := dst[i*ld:][:ld]
		copy(to, src[i*stride:][:n])
		clear(to[n:])
	}
}
