package kernel

import (
	"fmt"
	"unsafe"
)

// TileMode says what a product is added to.
type TileMode int

const (
	TileSet      TileMode = iota // C = A·B; what C held is not read
	TileAdd                      // C = C + A·B
	TileScaleAdd                 // C = diag(alpha)·C + A·B
)

// tileRows is the number of rows that a register tile holds.
const tileRows = 6

// Tile computes a small product on the calling goroutine:
//
//	C = [0 | C | diag(alpha)·C] + A·B
//
// with A (m×k) at a[i·rsA+p·csA], any strides; B (k×n) at b[p·ldb+j]; C (m×n) at c[i·ldc+j]; alpha of m elements, used by
// TileScaleAdd only. Nothing outside these elements is read or written, nothing is allocated. C must not overlap A or B.
//
// The order of the sum over p depends on k and on the place of (i, j) in the tile, not on the data.
func Tile[T Float](m, n, k int, a []T, rsA, csA int, b []T, ldb int, c []T, ldc int, mode TileMode, alpha []T) {
	if m <= 0 || n <= 0 {
		return
	}
	checkTile(m, n, k, len(a), rsA, csA, len(b), ldb, len(c), ldc, mode, len(alpha))
	tile(m, n, k, a, rsA, csA, tileRows*rsA, b, ldb, c, ldc, mode, alpha)
}

// WideTile is the most columns of TileWide.
const WideTile = 80

// TileWide is Tile for up to WideTile columns, without TileScaleAdd. Where 65 to 80 columns fit into one register tile
// (AVX-512), they do not leave a narrow panel, most of whose lanes would be empty.
func TileWide[T Float](m, n, k int, a []T, rsA, csA int, b []T, ldb int, c []T, ldc int, mode TileMode) {
	if m <= 0 || n <= 0 {
		return
	}
	if n > WideTile || mode == TileScaleAdd {
		panic(fmt.Sprintf("kernel: TileWide: got %d columns and mode %d, want at most %d and a product that is set or added", n, mode, WideTile))
	}
	checkTile(m, n, k, len(a), rsA, csA, len(b), ldb, len(c), ldc, mode, 0)
	if n > 64 && vectorized[T]() && tileWideSIMD(m, n, k, pointer(a), 4*rsA, 4*csA, pointer(b), 4*ldb, pointer(c), 4*ldc, mode) {
		return
	}
	tile(m, n, k, a, rsA, csA, tileRows*rsA, b, ldb, c, ldc, mode, nil)
}

// checkTile panics when an operand is too short.
func checkTile(m, n, k, lenA, rsA, csA, lenB, ldb, lenC, ldc int, mode TileMode, lenAlpha int) {
	if k > 0 {
		checkLen("A", lenA, (m-1)*rsA+(k-1)*csA+1)
		checkLen("B", lenB, (k-1)*ldb+n)
	}
	checkLen("C", lenC, (m-1)*ldc+n)
	if mode == TileScaleAdd {
		checkLen("alpha", lenAlpha, m)
	}
}

func checkLen(what string, got, want int) {
	if got < want {
		panic(fmt.Sprintf("kernel: %s: got %d elements, want at least %d", what, got, want))
	}
}

// tile is Tile with the operands checked and groups of six rows of A at a distance gsA, which packing may change.
func tile[T Float](m, n, k int, a []T, rsA, csA, gsA int, b []T, ldb int, c []T, ldc int, mode TileMode, alpha []T) {
	if vectorized[T]() {
		tileSIMD(m, n, k, pointer(a), 4*rsA, 4*csA, 4*gsA, pointer(b), 4*ldb, pointer(c), 4*ldc, mode, pointer(alpha))
		return
	}
	for i := 0; i < m; i += tileRows {
		rows := min(tileRows, m-i)
		var s []T
		if mode == TileScaleAdd {
			s = alpha[i:]
		}
		tileGeneric(rows, n, k, tail(a, i/tileRows*gsA), rsA, csA, b, ldb, c[i*ldc:], ldc, mode, s)
	}
}

// tail is s[from:], or nothing where an empty A begins beyond its end.
func tail[T Float](s []T, from int) []T { return s[min(from, len(s)):] }

// pointer is the address of the first element.
func pointer[T Float](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// vectorized reports whether the active instruction set has assembly for T.
func vectorized[T Float]() bool {
	var zero T
	return haveAssembly && active != Generic && unsafe.Sizeof(zero) == 4
}

// tileGeneric is the portable product: blocks of two rows and four columns, whose eight sums fit into registers.
func tileGeneric[T Float](m, n, k int, a []T, rsA, csA int, b []T, ldb int, c []T, ldc int, mode TileMode, alpha []T) {
	for i := 0; i < m; i += 2 {
		rows := min(2, m-i)
		var scale [2]T
		switch mode {
		case TileAdd:
			scale = [2]T{1, 1}
		case TileScaleAdd:
			copy(scale[:rows], alpha[i:])
		}
		j := 0
		for ; j+4 <= n; j += 4 {
			var s [2][4]T
			if rows == 2 {
				s = dot2x4(k, tail(a, i*rsA), rsA, csA, b, ldb, j)
			} else {
				s[0] = dot1x4(k, tail(a, i*rsA), csA, b, ldb, j)
			}
			for r := range rows {
				put(c[(i+r)*ldc+j:][:4], s[r][:], mode, scale[r])
			}
		}
		for ; j < n; j++ {
			for r := range rows {
				var s [1]T
				for p := range k {
					s[0] += a[(i+r)*rsA+p*csA] * b[p*ldb+j]
				}
				put(c[(i+r)*ldc+j:][:1], s[:], mode, scale[r])
			}
		}
	}
}

// dot2x4 returns Σ_p A(r, p)·B(p, j+v) for r < 2, v < 4.
func dot2x4[T Float](k int, a []T, rsA, csA int, b []T, ldb, j int) [2][4]T {
	var s00, s01, s02, s03, s10, s11, s12, s13 T
	for p := range k {
		x, y := a[p*csA], a[rsA+p*csA]
		w := b[p*ldb+j:][:4]
		s00 += x * w[0]
		s01 += x * w[1]
		s02 += x * w[2]
		s03 += x * w[3]
		s10 += y * w[0]
		s11 += y * w[1]
		s12 += y * w[2]
		s13 += y * w[3]
	}
	return [2][4]T{{s00, s01, s02, s03}, {s10, s11, s12, s13}}
}

// dot1x4 returns Σ_p A(0, p)·B(p, j+v) for v < 4.
func dot1x4[T Float](k int, a []T, csA int, b []T, ldb, j int) [4]T {
	var s0, s1, s2, s3 T
	for p := range k {
		x := a[p*csA]
		w := b[p*ldb+j:][:4]
		s0 += x * w[0]
		s1 += x * w[1]
		s2 += x * w[2]
		s3 += x * w[3]
	}
	return [4]T{s0, s1, s2, s3}
}

// put stores sums, adding what the mode asks for.
func put[T Float](c, sums []T, mode TileMode, scale T) {
	if mode == TileSet {
		copy(c, sums)
		return
	}
	for v, s := range sums {
		c[v] = c[v]*scale + s
	}
}
