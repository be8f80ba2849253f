package kernel

import (
	"fmt"
	"unsafe"
)

// OnlinePairs is Online for numbers of BF16, two to a word, which VDPBF16PS multiplies; weights are rounded to BF16 for the product with
// values, and not for their sums.
//
// That instruction takes two products where one of float32 takes one, on AMD's processors at the same rate. On Intel's (measured on
// one with AMX) its rate is a quarter of that in products of a multiply-add's: there Online is twice as fast.
type OnlinePairs struct {
	Online[float32]          // without Q; D is the number of words of a row
	Pairs           []uint32 // rows × D
	Scale           float32  // which multiplies products
}

// OnlinePairsFused reports whether Step runs here, and is fast.
func OnlinePairsFused[T Float]() bool { return OnlineFused[T]() && pairsFast }

// UsePairs makes OnlinePairs run where the processor has VDPBF16PS, fast or not, or not run at all, until restore is called. It is for tests
// and benchmarks: it must not run while kernels do.
func UsePairs(on bool) (restore func(), err error) {
	if on && !havePairs {
		return nil, fmt.Errorf("kernel: VDPBF16PS is not supported here")
	}
	old := pairsFast
	pairsFast = on
	return func() { pairsFast = old }, nil
}

// Step is Online.Step: word w of key n lies at w·OnlineKeys + n of k, and the word of values of keys 2p and 2p+1 in column c at p·Ld + c
// of v, which has a row more where n is odd, its upper half 0. Scores are Scale·(q·k).
func (s *OnlinePairs) Step(r0, r1 int, k, v []uint32, j, n int) {
	if r0 >= r1 || n <= 0 {
		return
	}
	s.checkStep(r0, r1, n, "Pairs", len(s.Pairs), r1*s.D)
	checkLen("keys", len(k), s.D*OnlineKeys)
	checkLen("values", len(v), (n+1)/2*s.Ld)
	a := onlinePairsArgs{attnForwardArgs: attnForwardArgs{kt: unsafe.Pointer(unsafe.SliceData(k)), v: unsafe.Pointer(unsafe.SliceData(v)),
		work: aligned(s.Work), d: s.D, ld: 4 * s.Ld, j: j, keys: n}, scale: s.Scale}
	columnPanels(&a.panels, s.Ld/16)
	step := max(1, onlineMaxWork/(tileRows*OnlineKeys*(2*s.D+s.Ld)))
	for groups := (r1 - r0) / tileRows; groups > 0; groups -= a.groups {
		g := min(groups, step)
		s.point(&a.attnForwardArgs, r0)
		a.q = unsafe.Pointer(&s.Pairs[r0*s.D])
		a.groups, a.colsBefore = g, 0
		onlinePairsCall(&a)
		a.groups = g
		r0 += g * tileRows
	}
}

// onlinePairsArgs is what the assembly takes; gen/attn knows the order.
type onlinePairsArgs struct {
	attnForwardArgs
	scale float32
}

// PairRows rounds a[i] and b[i] to BF16, ties to even, for the lower and the upper half of dst[i]. All have the same length; dst may lie
// where a does. It runs where OnlinePairs does.
func PairRows(dst []uint32, a, b []float32) {
	sameLen("PairRows", len(dst), len(a))
	sameLen("PairRows", len(dst), len(b))
	for len(dst) > 0 {
		n := min(len(dst), maxCall)
		pairRowsSIMD(dst[:n], a, b)
		dst, a, b = dst[n:], a[n:], b[n:]
	}
}
