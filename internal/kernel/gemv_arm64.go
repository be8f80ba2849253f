//go:build !purego

package kernel

import "unsafe"

// gemvMaxWork bounds the elements of the matrix that one call of assembly reads.
const gemvMaxWork = 1 << 17

// axpySIMD computes y[j] += Σ_{p<k} x[p·incX]·w[p·ldw+j] for j < n, eight rows at a time. Strides are in bytes.
func axpySIMD(n, k int, x unsafe.Pointer, incX int, w unsafe.Pointer, ldw int, y unsafe.Pointer) {
	const maxCols = gemvMaxWork / 8
	for j := 0; j < n; j += maxCols {
		cols := min(maxCols, n-j)
		for p := 0; p < k; {
			rows := 1
			if k-p >= 8 {
				rows = 8
			}
			axpyCall(rows, cols, unsafe.Add(x, p*incX), incX, unsafe.Add(w, p*ldw+4*j), ldw, unsafe.Add(y, 4*j))
			p += rows
		}
	}
}

//go:noinline
func axpyCall(rows, n int, x unsafe.Pointer, incX int, w unsafe.Pointer, ldw int, y unsafe.Pointer) {
	px, pw, py := (*float32)(x), (*float32)(w), (*float32)(y)
	if rows == 8 {
		axpy8NEON(n, px, incX, pw, ldw, py)
		return
	}
	axpy1NEON(n, px, incX, pw, ldw, py)
}

// dotSIMD computes y[r·incY] = [0 | y[r·incY]] + Σ_{p<k} w[r·ldw+p]·x[p] for r < rows, four rows at a time. Strides are in
// bytes. Where k is long it is cut at places that depend on k alone.
func dotSIMD(rows, k int, w unsafe.Pointer, ldw int, x, y unsafe.Pointer, incY int, add bool) {
	const maxK = gemvMaxWork / 4
	for p := 0; p == 0 || p < k; p += maxK {
		steps := min(maxK, k-p)
		batch := max(1, gemvMaxWork/(4*max(1, steps)))
		for r := 0; r < rows; {
			group, n := 4, min(batch, (rows-r)/4)
			if n == 0 {
				group, n = 1, rows-r
			}
			dotCall(group, n, steps, unsafe.Add(w, r*ldw+4*p), ldw, unsafe.Add(x, 4*p), unsafe.Add(y, r*incY), incY, add)
			r += group * n
		}
		add = true
	}
}

//go:noinline
func dotCall(group, n, k int, w unsafe.Pointer, ldw int, x, y unsafe.Pointer, incY int, add bool) {
	pw, px, py := (*float32)(w), (*float32)(x), (*float32)(y)
	adds := 0
	if add {
		adds = 1
	}
	if group == 4 {
		dot4NEON(n, k, pw, ldw, px, py, incY, adds)
		return
	}
	dot1NEON(n, k, pw, ldw, px, py, incY, adds)
}
