package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
	"stheno/internal/kernel/gen/isa"
)

// A tile of pieces is 16 lines of 16 pairs: the pair of p and p+16 for p < 16. The three pieces of 32 steps lie one behind the other.

// half is half of what a BF16's last bit is worth, as an integer to add to the bits of a float32; upperBits are those of a BF16.
const (
	half      = 0x8000
	upperBits = 0xffff0000
)

// upper returns v rounded to the 8 bits of a BF16, half away from 0. A number beyond the range of BF16 becomes an infinity.
func upper(k *isa.K, v isa.V) isa.V { return k.And(k.IntAdd(v, isa.Bits(half)), isa.Bits(upperBits)) }

// cut returns the three numbers of BF16 whose sum v is.
func cut(k *isa.K, v isa.V) [amx.Pieces]isa.V {
	high := upper(k, v)
	rest := k.Sub(v, high)
	middle := upper(k, rest)
	return [amx.Pieces]isa.V{high, middle, k.Sub(rest, middle)}
}

// bounds are the largest magnitude so far, and the smallest that is not 0, less 1.
type bounds struct{ least, most isa.V }

func loadBounds(k *isa.K, p reg.Register) bounds {
	return bounds{k.Get(operand.Mem{Base: p}), k.Get(operand.Mem{Base: p, Disp: 64})}
}

func (b bounds) store(k *isa.K, p reg.Register) {
	k.Put(operand.Mem{Base: p}, b.least)
	k.Put(operand.Mem{Base: p, Disp: 64}, b.most)
}

func (b bounds) note(k *isa.K, v isa.V) {
	u := k.Abs(v)
	k.UintMaxTo(b.most, u)
	k.VPMINUD(k.IntSub(u, isa.Bits(1)).R(), b.least.R(), b.least.R()) // of 0 it is the largest integer
}

// rounded returns v rounded to a BF16, ties to even, in the upper half; the lower half is of no meaning.
func rounded(k *isa.K, v isa.V) isa.V {
	odd := k.And(k.ShiftRightInt(v, 16), isa.Bits(1))
	return k.IntAdd(k.IntAdd(v, isa.Bits(half-1)), odd)
}

// pairs cuts the vectors of p and p+16 and writes their pieces, a tile apart, or rounds them to the only one. Pieces below 2⁻¹²⁶ need not
// be numbers of BF16: what is beyond one's 16 bits is lost, and does not become part of the other.
func pairs(k *isa.K, b bounds, odd reg.OpmaskVirtual, low, high isa.V, dst operand.Mem, parts int) {
	b.note(k, low)
	b.note(k, high)
	l, h := []isa.V{low}, []isa.V{high}
	if parts == amx.Pieces {
		x, y := cut(k, low), cut(k, high)
		l, h = x[:], y[:]
	} else {
		l[0], h[0] = rounded(k, low), rounded(k, high)
	}
	for i := range parts {
		k.VPSRLD(operand.Imm(16), l[i].R(), l[i].R())
		k.VPBLENDMW(h[i].R(), l[i].R(), odd, l[i].R())
		k.VMOVDQU32(l[i].R(), dst.Offset(i*amx.TileBytes))
	}
}

// pin keeps constants in registers, and returns the words of a vector that are upper halves.
func pin(k *isa.K, parts int) reg.OpmaskVirtual {
	if parts == amx.Pieces {
		k.Pin(isa.Bits(half), isa.Bits(upperBits), isa.Bits(0x7fffffff), isa.Bits(1))
	} else {
		k.Pin(isa.Bits(half-1), isa.Bits(0x7fffffff), isa.Bits(1))
	}
	words, odd := k.GP32(), k.K()
	k.MOVL(operand.U32(0xaaaaaaaa), words)
	k.KMOVD(words, odd)
	return odd
}

// lines cuts or rounds numbers of which those of a line lie side by side.
func lines(name, does string, parts int) isa.Fn {
	return isa.Fn{
		Name: name, Params: "dst *uint16, x *float32, ldx, lines, tiles int, bounds *uint32",
		Doc: does + ` x(i, p) = x[i·ldx+p] for i < lines, p < 32·tiles: of p = 32t+q and 32t+q+16 for
q < 16, pair q of line i of the tiles nt to nt+n−1 of dst, n the number of pieces. bounds holds 16 minima of |x|'s bits less 1, then
16 maxima of |x|'s bits, and is updated. ldx is in bytes. lines ≥ 1, tiles ≥ 1.`,
		Body: func(k *isa.K) {
			dst, x, ldx, lines, tiles, at := k.Arg("dst"), k.Arg("x"), k.Arg("ldx"), k.Arg("lines"), k.Arg("tiles"), k.Arg("bounds")
			odd := pin(k, parts)
			b := loadBounds(k, at)
			to, from := k.GP64(), k.GP64()
			k.Rows(lines, func() {
				k.MOVQ(dst, to)
				k.MOVQ(x, from)
				k.Rows(tiles, func() {
					for disp := range 2 { // four lines further, too far for the hardware to foresee
						k.PREFETCHT0(operand.Mem{Base: from, Index: ldx, Scale: 4, Disp: 64 * disp})
					}
					pairs(k, b, odd, k.Get(operand.Mem{Base: from}), k.Get(operand.Mem{Base: from, Disp: 64}), operand.Mem{Base: to}, parts)
					k.ADDQ(operand.I32(128), from)
					k.ADDQ(operand.I32(parts*amx.TileBytes), to)
				})
				k.ADDQ(operand.I32(64), dst)
				k.ADDQ(ldx, x)
			})
			b.store(k, at)
		},
	}
}

// columns cuts or rounds numbers of which those of a step lie side by side.
func columns(name, does string, parts int) isa.Fn {
	return isa.Fn{
		Name: name, Params: "dst *uint16, panel int, x *float32, ldx, panels, tiles int, bounds *uint32",
		Doc: does + ` x(p, j) = x[p·ldx+j] for p < 32·tiles, j < 16·panels: of p = 32t+q and 32t+q+16 for
q < 16, pair j%16 of line q of the tiles nt to nt+n−1 of panel j/16 of dst, n the number of pieces. bounds holds 32 words for each panel: 16
minima of |x|'s bits less 1, then 16 maxima of |x|'s bits, and is updated. ldx and panel are in bytes. panels ≥ 1, tiles ≥ 1.`,
		Body: func(k *isa.K) {
			dst, panel, x, ldx := k.Arg("dst"), k.Arg("panel"), k.Arg("x"), k.Arg("ldx")
			panels, tiles, bounds := k.Arg("panels"), k.Arg("tiles"), k.Arg("bounds")
			odd := pin(k, parts)
			low, high, to, at, lines, rows := k.GP64(), k.GP64(), k.GP64(), k.GP64(), k.GP64(), k.GP64()
			k.MOVQ(ldx, rows)
			k.SHLQ(operand.Imm(4), rows) // 16 of them
			k.Rows(tiles, func() {
				k.MOVQ(operand.U32(16), lines)
				k.Rows(lines, func() {
					k.MOVQ(x, low)
					k.MOVQ(x, high)
					k.ADDQ(rows, high)
					k.MOVQ(dst, to)
					k.MOVQ(bounds, at)
					k.Rows(panels, func() {
						b := loadBounds(k, at)
						for _, p := range []reg.Register{low, high} { // of the next tile
							k.PREFETCHT0(operand.Mem{Base: p, Index: rows, Scale: 2})
						}
						pairs(k, b, odd, k.Get(operand.Mem{Base: low}), k.Get(operand.Mem{Base: high}), operand.Mem{Base: to}, parts)
						b.store(k, at)
						k.ADDQ(operand.I32(64), low)
						k.ADDQ(operand.I32(64), high)
						k.ADDQ(panel, to)
						k.ADDQ(operand.I32(128), at)
					})
					k.ADDQ(ldx, x)
					k.ADDQ(operand.I32(64), dst)
				})
				k.ADDQ(rows, x)
				k.ADDQ(operand.I32((parts-1)*amx.TileBytes), dst)
			})
		},
	}
}

var turnTiles = isa.Fn{
	Name: "turnTiles", Params: "x *uint16, tiles int",
	Doc: "transposes tiles of 16 lines of 16 pairs, where they lie. tiles ≥ 0.",
	Body: func(k *isa.K) {
		x, tiles := k.Arg("x"), k.Arg("tiles")
		var r, t [16]isa.V
		for i := range r {
			r[i], t[i] = k.New(), k.New()
		}
		quarter := func(lanes uint64, a, b, dst isa.V) { k.VSHUFF32X4(operand.Imm(lanes), b.R(), a.R(), dst.R()) }
		k.Rows(tiles, func() {
			for i := range r {
				k.VMOVUPS(operand.Mem{Base: x, Disp: 64 * i}, r[i].R())
			}
			for i := 0; i < 16; i += 2 {
				k.VUNPCKLPS(r[i+1].R(), r[i].R(), t[i].R())
				k.VUNPCKHPS(r[i+1].R(), r[i].R(), t[i+1].R())
			}
			for i := 0; i < 16; i += 4 { // r[i+j] has columns j, j+4, j+8, j+12 of rows i to i+3
				k.VUNPCKLPD(t[i+2].R(), t[i].R(), r[i].R())
				k.VUNPCKHPD(t[i+2].R(), t[i].R(), r[i+1].R())
				k.VUNPCKLPD(t[i+3].R(), t[i+1].R(), r[i+2].R())
				k.VUNPCKHPD(t[i+3].R(), t[i+1].R(), r[i+3].R())
			}
			for j := range 4 {
				even, odd, even2, odd2 := t[0], t[1], t[2], t[3]
				quarter(0x88, r[j], r[4+j], even) // columns j, j+8 of rows 0 to 7
				quarter(0xdd, r[j], r[4+j], odd)  // columns j+4, j+12
				quarter(0x88, r[8+j], r[12+j], even2)
				quarter(0xdd, r[8+j], r[12+j], odd2)
				quarter(0x88, even, even2, t[4])
				quarter(0x88, odd, odd2, t[5])
				quarter(0xdd, even, even2, t[6])
				quarter(0xdd, odd, odd2, t[7])
				for q := range 4 {
					k.VMOVUPS(t[4+q].R(), operand.Mem{Base: x, Disp: 64 * (j + 4*q)})
				}
			}
			k.ADDQ(operand.I32(amx.TileBytes), x)
		})
	},
}
