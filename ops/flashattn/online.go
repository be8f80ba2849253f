package flashattn

import (
	"sort"
	"unsafe"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// online reports whether forward tiles are kernel.Online's, or kernel.OnlineCodes's: what lies between the two products is a mask and the
// softmax, and one kernel does it all. Other features are stages between kernels of their own.
func (f *forwardRun[T]) online() (floats, codes bool) {
	if !f.maskOnly(f.blocks, f.bias.data != nil) {
		return false, false
	}
	return kernel.OnlineFused[T]() && f.codes == nil, kernel.OnlineCodesFused[T]() && f.codes != nil && !f.codes.tiled
}

// maskOnly reports whether only a mask and the softmax lie between the two products, and panels are as wide as fused kernels take them.
func (a attrs) maskOnly(b blocks, bias bool) bool {
	return b.panel == kernel.OnlineKeys && a.Softcap == 0 && !a.ALiBi && !bias && a.Dropout == 0
}

// fillUp makes whole sixes, or groups of a tile, of the unit's rows, which see what the last one sees.
func (u *forwardUnit[T]) fillUp(rows int) {
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
		r0, r1 := u.seeing(j, n)
		s.Step(r0, r1, u.kt[(j-j0)*d:][:d*u.panel], u.v[(j-j0)*u.ld:], j, n)
	}
}

// seeing are the sixes of rows that may see some of the keys j ≤ … < j+n.
func (u *forwardUnit[T]) seeing(j, n int) (r0, r1 int) {
	r0 = sort.Search(len(u.hi), func(r int) bool { return int(u.hi[r]) > j })
	r1 = sort.Search(len(u.lo), func(r int) bool { return int(u.lo[r]) >= j+n })
	return r0 / 6 * 6, ceilTo(r1, 6)
}

// unitCodes are the rows of a unit as kernel.OnlineCodes wants them.
type unitCodes struct {
	q     []int8
	scale []float32
	sum   []int32
}

// gatherCodes copies the codes of the unit's rows; those that fill it up are 0.
func (u *forwardUnit[T]) gatherCodes(w *parallel.Worker) {
	c, all := u.codes, len(u.lo)
	words := parallel.Scratch[int32](w, slotUnitCodes, u.scratch[slotUnitCodes])[:all*(c.words+2)]
	clear(words)
	u.coded.sum, words = words[:all], words[all:]
	u.coded.scale = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(words))), all)
	u.coded.q = unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(words[all:]))), 4*all*c.words)
	for r := range u.st.rows() {
		i, h := u.st.place(r)
		at := u.rowAt(u.st.seg.batch, h, i)
		copy(u.coded.q[r*4*c.words:], c.q[at*4*c.words:][:4*c.words])
		u.coded.scale[r], u.coded.sum[r] = float32(c.qScale[at]*u.keyScale()), c.qSum[at]
	}
}

// onlineCodes is online on codes, which lie in panels already.
func (u *forwardUnit[T]) onlineCodes(j0, j1 int) {
	c, h, seg := u.codes, u.st.kvHead, u.st.seg
	s := kernel.OnlineCodes{Codes: u.coded.q, Scale: u.coded.scale, Sum: u.coded.sum, Online: kernel.Online[float32]{
		O: float32s(u.o), D: c.words, Ld: u.ld, RowMax: float32s(u.rowMax), RowSum: float32s(u.rowSum), Lo: u.lo, Hi: u.hi, Work: float32s(u.s)}}
	for j := j0; j < j1; j += codePanel {
		n := min(codePanel, j1-j)
		r0, r1 := u.seeing(j, n)
		s.Step(r0, r1, c.panel(seg, h, j), float32s(c.keyScales(seg, h, j, codePanel)), float32s(u.v[(j-j0)*u.ld:]), j, n)
	}
}

// widen fills q with the codes of the unit's rows, for blocks that are not fused.
func (u *forwardUnit[T]) widen() {
	for r := range u.st.rows() {
		i, h := u.st.place(r)
		u.codes.query(u.q[r*u.problem.q.Dim:][:u.problem.q.Dim], u.rowAt(u.st.seg.batch, h, i))
	}
	u.wide = true
}
