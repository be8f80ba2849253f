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

// tileSIMD is tile in assembly; strides are in bytes. It walks over panels of columns.
func tileSIMD(m, n, k int, a unsafe.Pointer, rsA, csA, gsA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode, alpha unsafe.Pointer) {
	for j := 0; ; {
		w := min(n-j, 64)
		if active == AVX2 {
			switch {
			case w >= 16:
				w = 16
			case w > 8:
				w = 8
			}
		}
		tilePanel(tileRows, m, w, k, a, rsA, csA, gsA, b, ldb, c, ldc, mode, alpha)
		if j += w; j == n {
			return
		}
		c = unsafe.Add(c, 4*w)
		if k > 0 { // an empty B may be shorter
			b = unsafe.Add(b, 4*w)
		}
	}
}

// tileWideSIMD is TileWide in assembly, for more than 64 columns, where there is one for it; strides are in bytes.
func tileWideSIMD(m, n, k int, a unsafe.Pointer, rsA, csA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode) bool {
	const rows = 5
	if active != AVX512 {
		return false
	}
	tilePanel(rows, m, n, k, a, rsA, csA, rows*rsA, b, ldb, c, ldc, mode, nil)
	return true
}

// tilePanel computes one panel of w columns, cut along groups of rows and k into short calls.
func tilePanel(rows, m, w, k int, a unsafe.Pointer, rsA, csA, gsA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode, alpha unsafe.Pointer) {
	if m*w*k <= tileMaxWork && k <= tileMaxK {
		tileCall(m, w, k, a, rsA, csA, gsA, b, ldb, c, ldc, mode, alpha)
		return
	}
	for p := 0; p < k; p += tileMaxK {
		steps := min(tileMaxK, k-p)
		groups := max(1, tileMaxWork/(rows*w*steps))
		for i := 0; i < m; i += rows * groups {
			scale := alpha
			if mode == TileScaleAdd {
				scale = unsafe.Add(alpha, 4*i)
			}
			tileCall(min(rows*groups, m-i), w, steps,
				unsafe.Add(a, i/rows*gsA+p*csA), rsA, csA, gsA, unsafe.Add(b, p*ldb), ldb, unsafe.Add(c, i*ldc), ldc, mode, scale)
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
	if active == AVX2 {
		switch {
		case w == 16:
			tile2AVX2(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, 0)
		case w == 8:
			tile1AVX2(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, 0)
		default:
			tile1mAVX2(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, w)
		}
		return
	}
	last := (w-1)%16 + 1
	switch {
	case w == 64:
		tile4AVX512(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, 0)
	case w > 64:
		tile5mAVX512(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, last)
	case w > 48:
		tile4mAVX512(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, last)
	case w > 32:
		tile3mAVX512(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, last)
	case w > 16:
		tile2mAVX512(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, last)
	default:
		tile1mAVX512(m, k, pa, rsA, csA, gsA, pb, ldb, pc, ldc, int(mode), ps, last)
	}
}
