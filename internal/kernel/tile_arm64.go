//go:build !purego

package kernel

import "unsafe"

const haveAssembly = true

// Bounds on one call of a tile function, so that it stays far below a millisecond: the garbage collector cannot stop a
// goroutine inside assembly.
const (
	tileMaxWork = 1 << 19 // multiply-adds, where six rows allow it
	tileMaxK    = 1 << 13
)

// tileSIMD is tile in assembly; strides are in bytes. It walks over panels of columns: as many of 16 as there are, then at
// most one each of 8, 4 and what is left.
func tileSIMD(m, n, k int, a unsafe.Pointer, rsA, csA, gsA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode, alpha unsafe.Pointer) {
	for j := 0; ; {
		w := n - j
		for _, width := range [...]int{16, 8, 4} {
			if w >= width {
				w = width
				break
			}
		}
		tilePanel(m, w, k, a, rsA, csA, gsA, b, ldb, c, ldc, mode, alpha)
		if j += w; j == n {
			return
		}
		c = unsafe.Add(c, 4*w)
		if k > 0 { // an empty B may be shorter
			b = unsafe.Add(b, 4*w)
		}
	}
}

// tilePanel computes one panel of w columns, cut along rows and k into short calls.
func tilePanel(m, w, k int, a unsafe.Pointer, rsA, csA, gsA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode, alpha unsafe.Pointer) {
	if m*w*k <= tileMaxWork && k <= tileMaxK {
		tileCall(m, w, k, a, rsA, csA, gsA, b, ldb, c, ldc, mode, alpha)
		return
	}
	for p := 0; p < k; p += tileMaxK {
		steps := min(tileMaxK, k-p)
		groups := max(1, tileMaxWork/(tileRows*w*steps))
		for i := 0; i < m; i += tileRows * groups {
			scale := alpha
			if mode == TileScaleAdd {
				scale = unsafe.Add(alpha, 4*i)
			}
			tileCall(min(tileRows*groups, m-i), w, steps,
				unsafe.Add(a, i/tileRows*gsA+p*csA), rsA, csA, gsA, unsafe.Add(b, p*ldb), ldb, unsafe.Add(c, i*ldc), ldc, mode, scale)
		}
		mode = TileAdd
	}
}

// tileCall is one call of assembly. It is a function with a frame of its own because its prologue is where the garbage
// collector and the scheduler can stop a loop of such calls.
//
//go:noinline
func tileCall(m, w, k int, a unsafe.Pointer, rsA, csA, gsA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode, alpha unsafe.Pointer) {
	pa, pb, pc, ps := (*float32)(a), (*float32)(b), (*float32)(c), (*float32)(alpha)
	switch w {
	case 16:
		tile16NEON(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps)
	case 8:
		tile8NEON(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps)
	case 4:
		tile4NEON(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps)
	case 3:
		tile3NEON(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps)
	case 2:
		tile2NEON(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps)
	default:
		tile1NEON(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps)
	}
}

// tileWideSIMD: there is none.
func tileWideSIMD(m, n, k int, a unsafe.Pointer, rsA, csA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode) bool {
	return false
}
