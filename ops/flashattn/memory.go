package flashattn

import (
	"unsafe"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Shape is the size of an attention, for Memory.
type Shape struct {
	Batch, SeqQ, SeqKV, Heads, KVHeads, HeadDim, ValueDim int
	// Backward asks for forward and backward pass together; the forward pass alone otherwise.
	Backward bool
	// Float64 asks for float64 in place of float32.
	Float64 bool
	// Threads is the number of threads; 0 stands for those of the process.
	Threads int
}

// Memory returns the bytes of workspace that an attention needs beyond its inputs, its outputs and, in the backward pass, the
// gradients: standard for the matrix of scores that attention by matrix products holds at the least, tiled for Attend, whose
// workspace is kept and used again by later runs. Both are 0 for a shape or a Config that Attend refuses. Nodes in cfg are not
// looked at, packed sequences count as one, and so does a bias that needs no gradient.
//
// Inputs that are not contiguous are copied, and an input that holds a NaN or an infinity, or numbers beyond what tiles of AMX
// multiply, takes more; neither is counted.
func Memory(shape Shape, cfg Config) (standard, tiled int64) {
	s := shape
	for _, n := range []int{s.Batch, s.SeqQ, s.SeqKV, s.Heads, s.KVHeads, s.HeadDim, s.ValueDim} {
		if n < 1 {
			return 0, 0
		}
	}
	a, err := cfg.normal(s.HeadDim)
	if err != nil || s.Heads%s.KVHeads != 0 || s.HeadDim > maxDim || s.ValueDim > maxDim || s.Threads < 0 {
		return 0, 0
	}
	if s.Float64 {
		return memory[float64](s, a)
	}
	return memory[float32](s, a)
}

func memory[T kernel.Float](s Shape, a attrs) (standard, tiled int64) {
	var zero T
	size := int64(unsafe.Sizeof(zero))
	rows := s.Batch * s.Heads * s.SeqQ
	standard = size * int64(rows) * int64(s.SeqKV)
	if s.Threads == 0 {
		s.Threads = parallel.Threads()
	}
	group := s.Heads / s.KVHeads

	f := a.forwardBlocks(s.HeadDim, s.ValueDim)
	fused := inTiles[T](a, f, a.HasBias)
	if fused {
		f = f.tiled(a, s.Batch*s.KVHeads, s.SeqQ*group, s.HeadDim, s.ValueDim)
	}
	queries := min(f.unitQueries(group), s.SeqQ)
	units := s.Batch * s.KVHeads * ((s.SeqQ + queries - 1) / queries)
	coded := inCodeTiles[T](a, f, a.HasBias, s.SeqQ*group)
	n := f.forwardScratch(queries*group, s.HeadDim, s.ValueDim, a.Dropout > 0, coded || fused)
	switch {
	case inPairs[T](a, f, a.HasBias):
		n[slotUnitCodes] = ceilTo(queries*group, 6) * pairWords(s.HeadDim)
	case !fused && scoresInTiles[T](a):
		f.scoreScratch(&n, queries*group, s.HeadDim)
	}
	tiled = 2*size*int64(rows) + scratchBytes(n[:], slotEdges, size)*int64(min(s.Threads, units))
	if s.Backward || !roundsAsItGoes[T](a, f, a.HasBias) {
		tiled += roundedBytes(s, a, size, coded)
	}
	if !s.Backward {
		return standard, tiled
	}

	tiles := scoresInTiles[T](a)
	b := a.backwardBlocks(s.HeadDim, s.ValueDim, tiles)
	m := b.backwardScratch(s.SeqQ*group, s.HeadDim, s.ValueDim)
	pass := scratchBytes(m[:], slotBackEdges, size)
	if tiles {
		m = b.tileScratch(s.SeqQ*group, s.HeadDim, s.ValueDim)
		pass = scratchBytes(m[:], slotBackEdges, size) - 2*int64(m[slotBackKeys]+m[slotBackPieces]) + 12*int64(m[slotBackInfo]) // which are not of 4 bytes
	}
	tasks := s.Batch * s.KVHeads
	splits := b.splits(tasks, s.SeqKV)
	tiled += size*int64(rows) + pass*int64(min(s.Threads, tasks*splits))
	if splits > 1 {
		tiled += size * int64(splits) * int64(rows) * int64(s.HeadDim)
	}
	return standard, tiled
}

// roundedBytes is what a run holds of rounded inputs.
func roundedBytes(s Shape, a attrs, size int64, tiled bool) int64 {
	q, k := s.Batch*s.SeqQ*s.Heads, s.Batch*s.SeqKV*s.KVHeads
	switch a.Precision {
	case BFloat16:
		return size * int64(q*s.HeadDim+k*(s.HeadDim+s.ValueDim))
	case Int8:
		panels := s.Batch * s.KVHeads * ((s.SeqKV + codePanel - 1) / codePanel)
		bytes, elements, sums := codeSizes(s.HeadDim, tiled, q, panels, s.KVHeads, s.Batch)
		return int64(bytes) + size*int64(elements+k*s.ValueDim) + 4*int64(sums)
	}
	return 0
}

// scratchBytes adds up elements of the given size, in slot edges of 4 bytes.
func scratchBytes(elements []int, edges int, size int64) (total int64) {
	for slot, n := range elements {
		if slot == edges {
			total += 4 * int64(n)
		} else {
			total += size * int64(n)
		}
	}
	return total
}
