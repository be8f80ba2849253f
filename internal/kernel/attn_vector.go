package kernel

// MulVec computes y[r] = Σ_{p<k} w[r·ldw+p]·x[p] for r < rows on the calling goroutine: a vector against rows that are used
// once, as a query is against the keys of a cache. Rows are read in order, up to ldw apart.
func MulVec[T Float](y []T, rows, k int, w []T, ldw int, x []T) {
	if rows <= 0 {
		return
	}
	checkLen("y", len(y), rows)
	checkLen("w", len(w), (rows-1)*ldw+k)
	checkLen("x", len(x), k)
	dots(rows, k, w, ldw, x, y, 1, false)
}

// AddVecMul computes y[j] += Σ_{p<k} x[p]·w[p·ldw+j] for j < n on the calling goroutine: the rows of w, weighted and added up.
func AddVecMul[T Float](y []T, n, k int, x []T, w []T, ldw int) {
	if n <= 0 || k <= 0 {
		return
	}
	checkLen("y", len(y), n)
	checkLen("x", len(x), k)
	checkLen("w", len(w), (k-1)*ldw+n)
	axpy(n, k, x, 1, w, ldw, y)
}
