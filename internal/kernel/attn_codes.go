package kernel

import "unsafe"

// OnlineCodes is Online for queries and keys that are integers of 8 bits. A score is (Σ a·b)·Scale·(scale of the key), the sum exact,
// and each of the two products rounded.
type OnlineCodes struct {
	Online[float32]           // without Q; D is the number of words of four codes that a row is filled up to with zeros
	Codes           []int8    // rows × 4·D
	Scale           []float32 // of each row
	Sum             []int32   // −128 times the sum of a row's codes
}

// OnlineCodesFused reports whether Step is one kernel here.
func OnlineCodesFused[T Float]() bool { return OnlineFused[T]() && bytesVectorized() }

// Step is Online.Step over a panel of codes, 128 higher than they are: word w of key n lies at (w·OnlineKeys + n)·4. scale has
// OnlineKeys numbers, of which n count.
func (s *OnlineCodes) Step(r0, r1 int, k []uint8, scale, v []float32, j, n int) {
	if r0 >= r1 || n <= 0 {
		return
	}
	s.checkStep(r0, r1, n, "Codes", len(s.Codes), r1*4*s.D)
	checkRows("OnlineCodes.Step", r1, len(s.Scale), len(s.Sum))
	checkLen("keys", len(k), 4*s.D*OnlineKeys)
	checkLen("scales of keys", len(scale), OnlineKeys)
	checkLen("values", len(v), n*s.Ld)
	if OnlineCodesFused[float32]() {
		s.fused(r0, r1, k, scale, v, j, n)
		return
	}
	for r := r0; r < r1; r += tileRows {
		s.six(r, v, j, n, func(row []float32, r int) { s.products(row, r, k, scale) })
	}
}

// products fills a row of scores.
func (s *OnlineCodes) products(row []float32, r int, k []uint8, scale []float32) {
	for p := range row {
		sum := s.Sum[r]
		for c, a := range s.Codes[r*4*s.D:][:4*s.D] {
			sum += int32(a) * int32(k[(c/4*OnlineKeys+p)*4+c%4])
		}
		row[p] = float32(float32(float32(sum)*s.Scale[r]) * scale[p])
	}
}

// onlineCodesArgs is what the assembly takes; gen/attn knows the order.
type onlineCodesArgs struct {
	attnForwardArgs
	scale, sum, keyScale unsafe.Pointer
}

// fused is Step in assembly, in calls of at most some hundred microseconds.
func (s *OnlineCodes) fused(r0, r1 int, k []uint8, scale, v []float32, j, n int) {
	a := onlineCodesArgs{attnForwardArgs: attnForwardArgs{kt: unsafe.Pointer(unsafe.SliceData(k)), v: pointer(v), work: aligned(s.Work),
		d: s.D, ld: 4 * s.Ld, j: j, keys: n}, keyScale: pointer(scale)}
	columnPanels(&a.panels, s.Ld/16)
	step := max(1, onlineMaxWork/(tileRows*OnlineKeys*(s.D+s.Ld)))
	for groups := (r1 - r0) / tileRows; groups > 0; groups -= a.groups {
		g := min(groups, step)
		s.point(&a.attnForwardArgs, r0)
		a.q = unsafe.Pointer(unsafe.SliceData(s.Codes[r0*4*s.D:]))
		a.scale, a.sum = pointer(s.Scale[r0:]), unsafe.Pointer(unsafe.SliceData(s.Sum[r0:]))
		a.groups, a.colsBefore = g, 0
		onlineCodesCall(&a)
		a.groups = g
		r0 += g * tileRows
	}
}
