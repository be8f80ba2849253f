package flashattn

import (
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// problem is one attention to compute: values in, memory for values out, and everything derived from the Config.
type problem[T kernel.Float] struct {
	attrs
	q, k, v Heads[T]
	out     Heads[T]
	lse     []T // (batch, heads, seqQ), natural logarithm; nil where nobody wants it
	// rowMax and rowSum (batch, heads, seqQ) are the largest logit of each row and the sum of e^(logit − rowMax),
	// sinks included: −∞ and 0 where a row sees no key. The backward pass wants them apart, for a log-sum-exp of 10⁴ would
	// be rounded to 10⁻³ and all weights of the row with it. nil where no backward pass follows.
	rowMax, rowSum []T
	sinks          []T // (heads), nil for none
	bias           bias[T]
	segs           []segment

	sight  sight
	group  int    // query heads per key head
	slopes []T    // of ALiBi per head; nil for none
	key    uint64 // of the dropout generator

	rounds bool // q, k and v are rounded to BF16 where they are read

	codes *codes[T] // of q and k under Int8, while a run lasts
}

// bias is an additive mask (batch or 1, heads or 1, seqQ, seqKV); a stride of 0 repeats it.
type bias[T kernel.Float] struct {
	data                       []T
	batchStride, headStride, n int // n is seqKV
}

// shape sets the strides for a bias of shape s.
func (b *bias[T]) shape(s tensor.Shape) {
	b.n = s[3]
	if s[1] > 1 {
		b.headStride = s[2] * s[3]
	}
	if s[0] > 1 {
		b.batchStride = s[1] * s[2] * s[3]
	}
}

// at is the offset of row i of head h of batch element bt.
func (b *bias[T]) at(bt, h, i int) int { return bt*b.batchStride + h*b.headStride + i*b.n }

// prepare derives what the values imply.
func (p *problem[T]) prepare(step int) {
	p.sight = p.attrs.sight()
	p.group = p.q.Heads / p.k.Heads
	if p.ALiBi {
		for _, s := range Slopes(p.q.Heads) {
			p.slopes = append(p.slopes, T(s))
		}
	}
	if p.Dropout > 0 {
		p.key = mix(p.Seed, uint64(step))
	}
}

// mix is SplitMix64's finalizer over seed and step, which makes unrelated keys of neighbouring ones.
func mix(seed, step uint64) uint64 {
	z := seed + (step+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Slopes returns the slopes of ALiBi for a number of heads: 2^(−8/n), 2^(−16/n), … where n is a power of two; otherwise
// those of the power of two below, and then every other one of the power of two above (Press et al., arXiv 2108.12409).
func Slopes(heads int) []float64 {
	power := 1
	for 2*power <= heads {
		power *= 2
	}
	out := make([]float64, heads)
	for h := range out {
		if h < power {
			out[h] = math.Exp2(-8 * float64(h+1) / float64(power))
		} else {
			out[h] = math.Exp2(-4 * float64(2*(h-power)+1) / float64(power))
		}
	}
	return out
}

// stacked is a run of rows of one segment and key head: row r is query row q0 + r/group of head kvHead·group + r%group, so
// that all heads that share a key head pass over it together and one query's rows are neighbours.
type stacked struct {
	seg    segment
	kvHead int
	q0, q1 int
	group  int
}

func (s stacked) rows() int { return (s.q1 - s.q0) * s.group }

// place is the query row and the head of row r.
func (s stacked) place(r int) (i, h int) {
	return s.q0 + r/s.group, s.kvHead*s.group + r%s.group
}

// edges fills in the keys lo[r] ≤ j < hi[r] that each row sees.
func (s stacked) edges(w sight, lo, hi []int32) {
	for r := 0; r < s.rows(); r += s.group {
		a, z := s.seg.keys(s.q0+r/s.group, w)
		for g := range s.group {
			lo[r+g], hi[r+g] = int32(a), int32(z)
		}
	}
}

// span is the keys that any row sees, from a whole number of panels after the segment's first key.
func (s stacked) span(lo, hi []int32, panel int) (first, last int) {
	return s.seg.k0 + (int(lo[0])-s.seg.k0)/panel*panel, int(hi[len(hi)-1])
}

// tile is the part of a chunk × panel rectangle that rows see: rows ra ≤ r < rz, keys ja ≤ j < jz. All of it is seen if
// full.
type tile struct {
	ra, rz, ja, jz int
	full           bool
}

// see narrows rows r0 ≤ r < r1 and keys j0 ≤ j < j1 to what is seen; ok is false where nothing is. Rows are narrowed in
// sixes and keys in eights, so that register tiles stay whole.
func see(lo, hi []int32, r0, r1, j0, j1 int) (t tile, ok bool) {
	if int(hi[r1-1]) <= j0 || int(lo[r0]) >= j1 {
		return tile{}, false
	}
	t.ja = j0 + max(0, int(lo[r0])-j0)&^7
	t.jz = min(j1, j0+ceilTo(int(hi[r1-1])-j0, 8))
	t.ra, t.rz = r0, r1
	for t.ra < r1 && int(hi[t.ra]) <= t.ja {
		t.ra++
	}
	t.ra = r0 + (t.ra-r0)/6*6
	for t.rz > t.ra && int(lo[t.rz-1]) >= t.jz {
		t.rz--
	}
	if t.rz <= t.ra || t.jz <= t.ja {
		return tile{}, false
	}
	t.full = int(hi[t.ra]) >= t.jz && int(lo[t.rz-1]) <= t.ja
	return t, true
}
