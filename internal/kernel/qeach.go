package kernel

import "stheno/internal/parallel"

// QuantizedProduct is one of several products of one A: C = A·B, then the epilogue.
type QuantizedProduct[T Float] struct {
	C        Matrix[T]
	B        *Quantized
	Epilogue Epilogue[T]
}

// GemmQuantizedEach is GemmQuantized for each of the products, with the same bits. Where a few rows meet matrices that are coded
// alike, the rows are cut into digits once and the threads start once for all.
func GemmQuantizedEach[T Float](a Matrix[T], products []QuantizedProduct[T]) {
	if len(products) > 0 && a.Rows > 0 && a.Rows <= quantizedVectorRows && alike(products) {
		for _, p := range products {
			checkQuantized(p.C, a, p.B.K, p.B.N, p.B, p.Epilogue)
		}
		if b := products[0].B; b.K > 0 && codesAsVectors[T](b) {
			vectorsEach(a, products)
			return
		}
	}
	for _, p := range products {
		GemmQuantized(p.C, a, p.B, p.Epilogue)
	}
}

// GemmDynamicEach is GemmDynamic for each of the products, with the same bits. Where the matrices are coded alike, A is rounded once.
func GemmDynamicEach[T Float](a Matrix[T], products []QuantizedProduct[T]) {
	if len(products) > 0 && alike(products) {
		gemmRounded(a, 0, products)
		return
	}
	for _, p := range products {
		GemmDynamic(p.C, a, p.B, p.Epilogue)
	}
}

// alike reports whether what is made of A for one product serves for all: digits, and their sums times zero points.
func alike[T Float](products []QuantizedProduct[T]) bool {
	first := products[0].B
	for _, p := range products[1:] {
		b := p.B
		if b.Coding != first.Coding || b.K != first.K || b.groupRows() != first.groupRows() || (b.Zeros == nil) != (first.Zeros == nil) {
			return false
		}
	}
	return true
}

// vectorsEach computes products of a few rows from the codes.
func vectorsEach[T Float](a Matrix[T], products []QuantizedProduct[T]) {
	gs := make([]quantizedGemm[T], len(products))
	for i, p := range products {
		gs[i] = quantizedGemm[T]{c: p.C, a: a, b: p.B, ep: p.Epilogue}
	}
	pieces := func(fixed []fixedRow) {
		vectorTasks(products, func(w *parallel.Worker, i, j0, j1 int) { gs[i].vectorPiece(w, fixed, j0, j1) })
	}
	if !fixedVectorized[T](products[0].B.Coding) {
		pieces(nil)
		return
	}
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, func(w *parallel.Worker, _ int) { pieces(gs[0].fixedRows(w)) })
}

// vectorTasks cuts the columns of products of a few rows into tasks, which begin at multiples of vectorCols of their product.
func vectorTasks[T Float](products []QuantizedProduct[T], body func(w *parallel.Worker, product, j0, j1 int)) {
	n, count := 0, 0
	for _, p := range products {
		n += p.C.Cols
	}
	piece := max(1, n)
	if threads := parallel.Threads(); threads > 1 && products[0].C.Rows*n*products[0].B.K >= gemvSplit {
		piece = max(vectorCols, ceilTo(tasks(n, vectorTasksEach*threads), vectorCols))
	}
	for _, p := range products {
		count += tasks(p.C.Cols, piece)
	}
	parallel.Run(count, func(w *parallel.Worker, t int) {
		for i, p := range products {
			if own := tasks(p.C.Cols, piece); t >= own {
				t -= own
				continue
			}
			body(w, i, t*piece, min((t+1)*piece, p.C.Cols))
			return
		}
	})
}
