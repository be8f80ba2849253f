package flashattn

import (
	"sort"

	"stheno/internal/kernel"
)

// online reports whether forward tiles are kernel.Online's: what lies between the two products is a mask and the softmax, and one
// kernel does it all. Other features are stages between kernels of their own.
func (f *forwardRun[T]) online() bool {
	return kernel.OnlineFused[T]() && f.panel == kernel.OnlineKeys && f.Softcap == 0 && f.slopes == nil && f.bias.data == nil && f.Dropout == 0 && f.codes == nil
}

// fillUp makes whole sixes of the unit's rows: rows of zeros that see what the last one sees.
func (u *forwardUnit[T]) fillUp(rows int) {
	clear(u.q[rows*u.problem.q.Dim:])
	for r := rows; r < len(u.lo); r++ {
		u.lo[r], u.hi[r] = u.lo[rows-1], u.hi[rows-1]
	}
}

// online takes all rows over packed keys j0 ≤ j < j1, panel by panel, so that a panel stays in the first-level cache.
func (u *forwardUnit[T]) online(j0, j1 int) {
	d := u.problem.q.Dim
	s := kernel.Online[T]{Q: u.q, O: u.o, D: d, Ld: u.ld, RowMax: u.rowMax, RowSum: u.rowSum, Lo: u.lo, Hi: u.hi, Work: u.s}
	for j := j0; j < j1; j += u.panel {
		n := min(u.panel, j1-j)
		r0 := sort.Search(len(u.hi), func(r int) bool { return int(u.hi[r]) > j })
		r1 := sort.Search(len(u.lo), func(r int) bool { return int(u.lo[r]) >= j+n })
		s.Step(r0/6*6, ceilTo(r1, 6), u.kt[(j-j0)*d:][:d*u.panel], u.v[(j-j0)*u.ld:], j, n)
	}
}
