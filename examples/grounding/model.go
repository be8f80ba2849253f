package main

import (
	"encoding/gob"
	"fmt"
	"math"
	"math/rand/v2"
	"os"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops"
	"stheno/ops/grounding"
)

const (
	patch    = 8
	cells    = side / patch // patches in a row
	patches  = cells * cells
	window   = 20 // half-resolution pixels on a side that a patch sees, itself in the middle
	features = 3 * window * window
	hidden   = 256
	shared   = 64 // dimension of the space in which words and patches meet
	heat     = 0.1
)

// weights are the trained numbers, by name.
type weights map[string]*tensor.Dense

var shapes = map[string][]int{
	"see.w": {features, hidden}, "see.b": {hidden}, "mix.w": {hidden, hidden}, "mix.b": {hidden},
	"vision.w": {hidden, shared}, "text.w": {len(words), shared}, "bias": {1},
}

// order is that in which weights are drawn, so that a seed fixes them.
var order = []string{"see.w", "see.b", "mix.w", "mix.b", "vision.w", "text.w", "bias"}

func newWeights(rng *rand.Rand) weights {
	w := weights{}
	for _, name := range order {
		s := tensor.Shape(shapes[name])
		data := make([]float32, s.TotalSize())
		if s.Dims() == 2 {
			for i := range data {
				data[i] = float32(rng.NormFloat64() * math.Sqrt(2/float64(s[0])))
			}
		}
		w[name] = tensor.New(tensor.WithShape(s...), tensor.WithBacking(data))
	}
	w["bias"].Data().([]float32)[0] = -3
	return w
}

func (w weights) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flat := map[string][]float32{}
	for name, t := range w {
		flat[name] = t.Data().([]float32)
	}
	if err := gob.NewEncoder(f).Encode(flat); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.Close()
}

func loadWeights(path string) (weights, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var flat map[string][]float32
	if err := gob.NewDecoder(f).Decode(&flat); err != nil {
		return nil, fmt.Errorf("%s: not a weight file of this program: %w", path, err)
	}
	w := weights{}
	for _, name := range order {
		s := tensor.Shape(shapes[name])
		if len(flat[name]) != s.TotalSize() {
			return nil, fmt.Errorf("%s: %s: got %d numbers, want %d: the file is of a model of another size", path, name, len(flat[name]), s.TotalSize())
		}
		w[name] = tensor.New(tensor.WithShape(s...), tensor.WithBacking(flat[name]))
	}
	return w, nil
}

// model is the graph for a batch: what patches see and the words of phrases in, a logit for each pair out.
type model struct {
	sight, bags, logits *G.Node
	params              G.Nodes
}

func newModel(w weights, batch, phrases int) (*model, error) {
	g := G.NewGraph()
	m := &model{
		sight: G.NewTensor(g, tensor.Float32, 3, G.WithShape(batch, patches, features), G.WithName("sight")),
		bags:  G.NewTensor(g, tensor.Float32, 3, G.WithShape(batch, phrases, len(words)), G.WithName("bags")),
	}
	p := map[string]*G.Node{}
	for _, name := range order {
		s := shapes[name]
		p[name] = G.NewTensor(g, tensor.Float32, len(s), G.WithShape(s...), G.WithName(name), G.WithValue(w[name]))
		m.params = append(m.params, p[name])
	}
	gelu := ops.LinearConfig{Activation: ops.ActGELU}
	x, err := ops.Linear(m.sight, p["see.w"], p["see.b"], gelu)
	if err != nil {
		return nil, err
	}
	if x, err = ops.Linear(x, p["mix.w"], p["mix.b"], gelu); err != nil {
		return nil, err
	}
	if x, err = ops.Linear(x, p["vision.w"], nil, ops.LinearConfig{}); err != nil {
		return nil, err
	}
	s, err := grounding.Ground(m.bags, x, p["text.w"], grounding.Config{Temperature: heat})
	if err != nil {
		return nil, err
	}
	bias, err := G.Sum(p["bias"])
	if err != nil {
		return nil, err
	}
	m.logits, err = G.Add(s, bias)
	return m, err
}

// look writes what each patch of a normalised picture (3, side, side) sees: the pixels around it at half resolution, 0
// beyond the edge.
func look(dst, pixels []float32) {
	const half = side / 2
	small := make([]float32, 3*half*half)
	for i := range small {
		c, y, x := i/(half*half), i/half%half*2, i%half*2
		at := c*side*side + y*side + x
		small[i] = (pixels[at] + pixels[at+1] + pixels[at+side] + pixels[at+side+1]) / 4
	}
	for p := range patches {
		y0, x0 := p/cells*patch/2+patch/4-window/2, p%cells*patch/2+patch/4-window/2
		for i := range features {
			c, y, x := i/(window*window), y0+i/window%window, x0+i%window
			dst[p*features+i] = 0
			if y >= 0 && y < half && x >= 0 && x < half {
				dst[p*features+i] = small[c*half*half+y*half+x]
			}
		}
	}
}

// bag marks the words of a phrase in the vocabulary.
func bag(dst []float32, phrase []string) {
	clear(dst)
	for _, w := range phrase {
		for i, known := range words {
			if w == known {
				dst[i] = 1
			}
		}
	}
}
