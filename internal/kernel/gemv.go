package kernel

import "stheno/internal/parallel"

// The largest numbers of rows of A for which a product goes row by row: it then reads B in the order of memory and once.
// More rows are worth the short lines in which tiles read B, or the copy that turns its columns into rows.
const (
	gemvRowsDot  = 5 // B with contiguous columns
	gemvRowsAxpy = 2 // B with contiguous rows, from the cache
	gemvRowsCold = 5 // B with contiguous rows, of more than gemvCold elements
	gemvCold     = 1 << 19
)

// Bounds of a piece of B that all rows of A pass over before the next.
const (
	gemvBlock = 1 << 15 // elements: a part of the second-level cache
	gemvSplit = 1 << 18 // multiply-adds below which one goroutine computes all
	gemvTasks = 2       // tasks per thread: few, so that rows are read in long runs
	// gemvParts is the number of sums of rows that a product with a matrix from memory is made of, each a run of whole rows. Like
	// every order of summation it depends on the shape alone.
	gemvParts = 4
)

// asVectors computes the product as one or a few vectors times a matrix and reports whether it did. One column is one row
// of the transposed product.
func (g *gemm[T]) asVectors() bool {
	c, a, b := g.c, g.a, g.b
	flipped := c.Cols == 1 && c.Rows > 1
	if flipped {
		c, a, b = c.T(), b.T(), a.T()
	}
	rows := c.Rows
	dot := b.RowStride == 1 && rows <= gemvRowsDot
	if !dot && !(b.ColStride == 1 && (rows <= gemvRowsAxpy || rows <= gemvRowsCold && b.Rows*b.Cols > gemvCold)) {
		return false
	}
	v := gemv[T]{c: c, a: a, b: b, accumulate: g.accumulate, ep: g.ep, flipped: flipped, dot: dot}
	v.run()
	return true
}

// gemv is a product whose C has few rows. If flipped it is the transpose of what was asked for, with one row.
type gemv[T Float] struct {
	c, a, b    Matrix[T]
	accumulate bool
	ep         Epilogue[T]
	flipped    bool
	dot        bool // whether columns of B are contiguous, or else its rows
}

// run cuts the columns of C into tasks.
func (g *gemv[T]) run() {
	m, n, k := g.c.Rows, g.c.Cols, g.b.Rows
	if !g.dot && g.cold() && k >= 8*gemvParts {
		g.runParts()
		return
	}
	piece := n
	if threads := parallel.Threads(); threads > 1 && m*n*k >= gemvSplit {
		piece = max(64, ceilTo(tasks(n, gemvTasks*threads), 64))
	}
	parallel.Run(tasks(n, piece), func(w *parallel.Worker, t int) {
		j0, j1 := t*piece, min((t+1)*piece, n)
		if g.dot {
			g.dots(w, j0, j1)
		} else {
			g.axpys(w, j0, j1)
		}
		g.finish(j0, j1)
	})
}

// cold reports whether B is too large for the caches.
func (g *gemv[T]) cold() bool { return g.b.Rows*g.b.Cols > gemvCold }

// runParts sums parts of the rows of B, which lie in memory one behind the other, then the parts.
func (g *gemv[T]) runParts() {
	m, n, k := g.c.Rows, g.c.Cols, g.b.Rows
	rows := ceilTo(tasks(k, gemvParts), 8)
	parts := tasks(k, rows)
	piece := max(64, ceilTo(tasks(n, tasks(gemvTasks*parallel.Threads(), parts)), 64))
	across := tasks(n, piece)
	// A Run of one task lends the caller's scratch without taking the workers, which the Run inside it then has.
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		sums := parallel.Scratch[T](w, slotA, parts*m*n)
		parallel.Run(parts*across, func(_ *parallel.Worker, t int) {
			part, j0 := t/across, t%across*piece
			g.part(sums[part*m*n:(part+1)*m*n], part*rows, min((part+1)*rows, k), j0, min(j0+piece, n))
		})
		for i := range m {
			for part := 1; part < parts; part++ {
				Add(sums[i*n:(i+1)*n], sums[i*n:(i+1)*n], sums[(part*m+i)*n:(part*m+i+1)*n])
			}
			for j, s := range sums[i*n : (i+1)*n] {
				if at := g.c.at(i, j); g.accumulate {
					g.c.Data[at] += s
				} else {
					g.c.Data[at] = s
				}
			}
		}
	})
	g.finish(0, n)
}

// part computes columns j0 to j1 of sums (m×n) over rows p0 to p1 of B.
func (g *gemv[T]) part(sums []T, p0, p1, j0, j1 int) {
	m, n := g.c.Rows, g.c.Cols
	for i := range m {
		clear(sums[i*n+j0 : i*n+j1])
	}
	rows := max(8, gemvBlock/(j1-j0)&^7)
	if m == 1 {
		rows = p1 - p0
	}
	for p := p0; p < p1; p += rows {
		for i := range m {
			axpy(j1-j0, min(rows, p1-p), g.a.Data[g.a.at(i, p):], g.a.ColStride, g.b.Data[g.b.at(p, j0):], g.b.RowStride, sums[i*n+j0:])
		}
	}
}

// axpys computes columns j0 to j1 as sums of rows of B.
func (g *gemv[T]) axpys(w *parallel.Worker, j0, j1 int) {
	m, k, n := g.c.Rows, g.b.Rows, j1-j0
	c := g.c
	if c.ColStride != 1 { // gather into rows, scatter at the end
		c = RowMajor(parallel.Scratch[T](w, slotA, m*n), m, n)
		for i := range m {
			for j := range n {
				c.Data[c.at(i, j)] = g.c.Data[g.c.at(i, j0+j)]
			}
		}
	} else {
		c.Data = c.Data[j0:]
	}
	if !g.accumulate {
		for i := range m {
			clear(c.Data[c.at(i, 0):][:n])
		}
	}
	rows := max(8, gemvBlock/n&^7)
	for p := 0; p < k; p += rows {
		for i := range m {
			axpy(n, min(rows, k-p), g.a.Data[g.a.at(i, p):], g.a.ColStride, g.b.Data[g.b.at(p, j0):], g.b.RowStride, c.Data[c.at(i, 0):])
		}
	}
	if g.c.ColStride != 1 {
		for i := range m {
			for j := range n {
				g.c.Data[g.c.at(i, j0+j)] = c.Data[c.at(i, j)]
			}
		}
	}
}

// axpy computes y[j] += Σ_{p<k} x[p·incX]·w[p·ldw+j] for j < n.
func axpy[T Float](n, k int, x []T, incX int, w []T, ldw int, y []T) {
	if vectorized[T]() {
		axpySIMD(n, k, pointer(x), 4*incX, pointer(w), 4*ldw, pointer(y))
		return
	}
	y = y[:n]
	for p := range k {
		s, row := x[p*incX], w[p*ldw:][:n]
		for j, v := range row {
			y[j] += s * v
		}
	}
}

// dots computes columns j0 to j1 as scalar products with columns of B.
func (g *gemv[T]) dots(w *parallel.Worker, j0, j1 int) {
	m, k := g.c.Rows, g.b.Rows
	a := g.a
	if a.ColStride != 1 {
		a = RowMajor(parallel.Scratch[T](w, slotA, m*k), m, k)
		for i := range m {
			for p := range k {
				a.Data[a.at(i, p)] = g.a.Data[g.a.at(i, p)]
			}
		}
	}
	cols := j1 - j0
	if m > 1 {
		cols = max(4, gemvBlock/k&^3)
	}
	for j := j0; j < j1; j += cols {
		n := min(cols, j1-j)
		for i := range m {
			dots(n, k, g.b.Data[g.b.at(0, j):], g.b.ColStride, a.Data[a.at(i, 0):], g.c.Data[g.c.at(i, j):], g.c.ColStride, g.accumulate)
		}
	}
}

// dots computes y[r·incY] = [y[r·incY]] + Σ_{p<k} w[r·ldw+p]·x[p] for r < rows.
func dots[T Float](rows, k int, w []T, ldw int, x, y []T, incY int, add bool) {
	if vectorized[T]() {
		dotSIMD(rows, k, pointer(w), 4*ldw, pointer(x), pointer(y), 4*incY, add)
		return
	}
	x = x[:k]
	for r := range rows {
		var s [4]T
		row := w[r*ldw:][:k]
		p := 0
		for ; p+4 <= k; p += 4 {
			u, v := row[p:p+4], x[p:p+4]
			s[0] += u[0] * v[0]
			s[1] += u[1] * v[1]
			s[2] += u[2] * v[2]
			s[3] += u[3] * v[3]
		}
		for ; p < k; p++ {
			s[0] += row[p] * x[p]
		}
		sum := (s[0] + s[1]) + (s[2] + s[3])
		if add {
			sum += y[r*incY]
		}
		y[r*incY] = sum
	}
}

// finish runs the epilogue on columns j0 to j1, in the coordinates of the caller.
func (g *gemv[T]) finish(j0, j1 int) {
	m := g.c.Rows
	if bias := g.ep.Bias; bias != nil {
		for i := range m {
			for j := j0; j < j1; j++ {
				at := j
				if g.flipped {
					at = 0
				}
				g.c.Data[g.c.at(i, j)] += bias[at]
			}
		}
	}
	switch {
	case g.ep.After == nil:
	case g.flipped:
		g.ep.After(j0, j1, 0, 1)
	default:
		g.ep.After(0, m, j0, j1)
	}
}
