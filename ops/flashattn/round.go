package flashattn

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Slots of what a run rounds before its tasks; they belong to the caller of all tasks.
const (
	slotRounded = iota + allSlots
	slotCodes
	slotCodeRows
)

// roundPiece is how many rows of all heads a task rounds.
const roundPiece = 64

// round makes p the problem of the numbers that its Precision multiplies. p holds memory of w afterwards.
func (p *problem[T]) round(w *parallel.Worker) {
	switch p.Precision {
	case BFloat16:
		p.roundBFloat16(w, &p.q, &p.k, &p.v)
	case Int8:
		p.roundBFloat16(w, &p.v)
		p.codes = p.encode(w)
	}
}

// roundBFloat16 replaces some of q, k and v by copies that are rounded to BF16, as far as segments have their rows.
func (p *problem[T]) roundBFloat16(w *parallel.Worker, which ...*Heads[T]) {
	n := 0
	for _, x := range which {
		n += x.size()
	}
	all := parallel.Scratch[T](w, slotRounded, n)
	for _, x := range which {
		from, to := *x, Contiguous(all[:x.size()], x.Batch, x.Seq, x.Heads, x.Dim)
		all = all[x.size():]
		pieces := (x.Seq + roundPiece - 1) / roundPiece
		parallel.Run(len(p.segs)*pieces, func(_ *parallel.Worker, n int) {
			seg := p.segs[n/pieces]
			i0, i1 := seg.k0, seg.k1
			if x == &p.q {
				i0, i1 = seg.q0, seg.q1
			}
			i0 += n % pieces * roundPiece
			for i := i0; i < min(i0+roundPiece, i1); i++ {
				for h := range x.Heads { // which lie side by side
					roundRow(to.row(seg.batch, i, h), from.row(seg.batch, i, h))
				}
			}
		})
		*x = to
	}
}

// roundRow rounds the elements of a row to BF16.
func roundRow[T kernel.Float](dst, x []T) {
	var bits [maxDim]uint16
	if src, ok := any(x).([]float32); ok {
		kernel.ToBFloat16(bits[:len(x)], src)
		kernel.FromBFloat16(any(dst).([]float32), bits[:len(x)])
		return
	}
	for c, v := range x {
		dst[c] = T(kernel.BFloat16Value(kernel.BFloat16Bits(float32(v))))
	}
}

// size is the number of elements.
func (x *Heads[T]) size() int { return x.Batch * x.Seq * x.Heads * x.Dim }
