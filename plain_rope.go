package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops"
)

// ropeTable is a rotation spelt as products, for Plain nodes: y = x⊙cosine + (x·turn)⊙sine.
type ropeTable struct {
	headDim      int
	turn         []float64 // (headDim, headDim)
	cosine, sine []float64 // (MaxSeq, headDim)
}

// newRopeTable reads the angles off ops.RoPE itself: a head with 1 in the first place of every pair and 0 in the second
// comes out as cosines and sines.
func newRopeTable(m *Model) (*ropeTable, error) {
	cfg := m.cfg
	seq, hd := cfg.MaxSeq, cfg.HeadDim
	r := &ropeTable{headDim: hd, turn: make([]float64, hd*hd), cosine: make([]float64, seq*hd), sine: make([]float64, seq*hd)}
	probe := make([]float64, seq*hd)
	pairs := rotatedPairs(cfg.RoPE, hd)
	for s := range seq {
		for _, p := range pairs {
			probe[s*hd+p[0]] = 1
		}
	}
	got, err := rotate(cfg.RoPE, probe, seq, hd)
	if err != nil {
		return nil, err
	}
	for i := range r.cosine {
		r.cosine[i] = 1
	}
	for _, p := range pairs {
		r.turn[p[1]*hd+p[0]] = -1
		r.turn[p[0]*hd+p[1]] = 1
		for s := range seq {
			for _, at := range p {
				r.cosine[s*hd+at] = got[s*hd+p[0]]
				r.sine[s*hd+at] = got[s*hd+p[1]]
			}
		}
	}
	return r, nil
}

// rotatedPairs lists which elements of a head turn together.
func rotatedPairs(cfg ops.RoPEConfig, headDim int) [][2]int {
	dim := cfg.Dim
	if dim == 0 {
		dim = headDim
	}
	out := make([][2]int, dim/2)
	for i := range out {
		if cfg.Interleaved {
			out[i] = [2]int{2 * i, 2*i + 1}
		} else {
			out[i] = [2]int{i, i + dim/2}
		}
	}
	return out
}

// rotate applies ops.RoPE to one head of seq tokens, in float64.
func rotate(cfg ops.RoPEConfig, x []float64, seq, headDim int) ([]float64, error) {
	g := G.NewGraph()
	shape := []int{1, seq, 1, headDim}
	in := G.NewTensor(g, tensor.Float64, 4, G.WithName("x"), G.WithShape(shape...), G.WithValue(dense(x, shape)))
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"), G.WithValue(0))
	out, err := ops.RoPE(in, pos, cfg)
	if err != nil {
		return nil, fmt.Errorf("stheno: Config.RoPE: %w", err)
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		return nil, fmt.Errorf("stheno: rotation table: %w", err)
	}
	return out.Value().Data().([]float64), nil
}

// rows spreads the table over (batch, seq, heads) vectors, the first token of each sequence at position pos.
func (r *ropeTable) rows(pos, batch, seq, heads int) (cosine, sine []float64) {
	n := batch * seq * heads * r.headDim
	cosine, sine = make([]float64, 0, n), make([]float64, 0, n)
	for range batch {
		for s := range seq {
			at := (pos + s) * r.headDim
			for range heads {
				cosine = append(cosine, r.cosine[at:at+r.headDim]...)
				sine = append(sine, r.sine[at:at+r.headDim]...)
			}
		}
	}
	return cosine, sine
}
