package quantize

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"gorgonia.org/tensor"

	"stheno/internal/parallel"
)

// Hadamard is a randomized Hadamard rotation Q of n channels: an orthogonal matrix that spreads a channel's large numbers over the
// others, so that codes err less (QuIP, Chee et al. 2023, arXiv 2307.13304; QuaRot, Ashkboos et al. 2024, arXiv 2404.00456):
//
//	Q = D·H/√n
//
// with H the Walsh–Hadamard matrix and D a diagonal of random signs. Where n is not a power of two, and b is the largest one below
// it, Q is one such rotation of the first b channels and then one of the last b, so that all channels are rotated.
//
// As x·w = (x·Q)·(Qᵀ·w), a model stays the same function when RotateOutputs is applied to what makes x and RotateInputs to all
// that read it. RMSNorm without gamma commutes with Q: fold gamma into the weights behind it first, with ScaleInputs.
type Hadamard struct {
	n      int
	blocks []hadamardBlock
}

// hadamardBlock rotates channels from, from+1, … of a power of two.
type hadamardBlock struct {
	from  int
	signs []float64 // divided by √b
}

// NewHadamard returns the rotation of n channels that a seed stands for.
func NewHadamard(n int, seed uint64) (*Hadamard, error) {
	if n < 1 {
		return nil, fmt.Errorf("quantize.NewHadamard: got %d channels, want at least 1", n)
	}
	b := 1 << (bits.Len(uint(n)) - 1)
	h := &Hadamard{n: n}
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	starts := []int{0}
	if b < n {
		starts = append(starts, n-b)
	}
	for _, from := range starts {
		block := hadamardBlock{from: from, signs: make([]float64, b)}
		for i := range block.signs {
			block.signs[i] = math.Copysign(1/math.Sqrt(float64(b)), float64(random.IntN(2))-0.5)
		}
		h.blocks = append(h.blocks, block)
	}
	return h, nil
}

// Channels is n.
func (h *Hadamard) Channels() int { return h.n }

// rotate is x·Q for one row.
func (h *Hadamard) rotate(x []float64) {
	for _, b := range h.blocks {
		y := x[b.from : b.from+len(b.signs)]
		for i, s := range b.signs {
			y[i] *= s
		}
		for half := 1; half < len(y); half *= 2 {
			for i := 0; i < len(y); i += 2 * half {
				u, v := y[i:i+half], y[i+half:i+2*half]
				for j, p := range u {
					q := v[j]
					u[j], v[j] = p+q, p-q
				}
			}
		}
	}
}

// RotateOutputs returns v·Q along the last dimension, which has n channels: of inputs, of a bias, or of the weights (inputs,
// outputs) of a layer. It is computed in float64 and rounded to v's dtype. v is only read.
func (h *Hadamard) RotateOutputs(v *tensor.Dense) (*tensor.Dense, error) {
	const fn = "quantize.RotateOutputs"
	if h == nil {
		return nil, fmt.Errorf("%s: got a nil Hadamard, want one of NewHadamard", fn)
	}
	x, err := lastFor(v, h.n)
	if err != nil {
		return nil, fmt.Errorf("%s: v: %w", fn, err)
	}
	parallel.Run(len(x)/h.n, func(_ *parallel.Worker, i int) { h.rotate(x[i*h.n : (i+1)*h.n]) })
	return like(v, x), nil
}

// RotateInputs returns Qᵀ·w for weights w of shape (n, outputs): what has to be multiplied with x·Q. It is computed in float64 and
// rounded to w's dtype. w is only read.
func (h *Hadamard) RotateInputs(w *tensor.Dense) (*tensor.Dense, error) {
	const fn = "quantize.RotateInputs"
	if h == nil {
		return nil, fmt.Errorf("%s: got a nil Hadamard, want one of NewHadamard", fn)
	}
	x, err := rowsFor(w, h.n)
	if err != nil {
		return nil, fmt.Errorf("%s: w: %w", fn, err)
	}
	out := w.Shape()[1]
	parallel.Run(out, func(_ *parallel.Worker, j int) { // a column c of Qᵀ·w is cᵀ·Q
		column := make([]float64, h.n)
		for i := range column {
			column[i] = x[i*out+j]
		}
		h.rotate(column)
		for i, v := range column {
			x[i*out+j] = v
		}
	})
	return like(w, x), nil
}
