package main

import (
	"image"
	"math"
	"math/rand/v2"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops/grounding"
)

// method grounds phrases in a picture: one way or another it makes maps.
type method func(img image.Image, phrases [][]string) ([]*grounding.Result, error)

func labels(phrases [][]string) []string {
	out := make([]string, len(phrases))
	for i, p := range phrases {
		out[i] = strings.Join(p, " ")
	}
	return out
}

// eye is a trained model for one picture and so many phrases.
type eye struct {
	m         *model
	vm        G.VM
	phrases   int
	threshold float64 // the share of the largest value from which on a patch belongs to the object
}

func newEye(w weights, phrases int, threshold float64) (*eye, error) {
	m, err := newModel(w, 1, phrases)
	if err != nil {
		return nil, err
	}
	return &eye{m, G.NewTapeMachine(m.logits.Graph()), phrases, threshold}, nil
}

func (e *eye) ground(img image.Image, phrases [][]string) ([]*grounding.Result, error) {
	x, grid, err := grounding.ImageTensor(img, grounding.PatchConfig{Patch: patch, Width: side, Height: side})
	if err != nil {
		return nil, err
	}
	b := newBatch(1, e.phrases)
	look(b.sight.Data().([]float32), x.Data().([]float32))
	for i, p := range phrases {
		bag(b.bags.Data().([]float32)[i*len(words):][:len(words)], p)
	}
	e.vm.Reset()
	if err := G.Let(e.m.sight, b.sight); err != nil {
		return nil, err
	}
	if err := G.Let(e.m.bags, b.bags); err != nil {
		return nil, err
	}
	if err := e.vm.RunAll(); err != nil {
		return nil, err
	}
	maps := e.m.logits.Value().(*tensor.Dense).Clone().(*tensor.Dense)
	for i, z := range maps.Data().([]float32) {
		maps.Data().([]float32)[i] = float32(1 / (1 + math.Exp(-float64(z))))
	}
	return grounding.Results(maps, grid, grounding.ResultConfig{Threshold: e.threshold, Relative: true, Refine: patch, Labels: labels(phrases)})
}

// colours is the baseline without training: the cosine of a patch's mean colour, away from the picture's, with the colour
// that a phrase names. What names none gets a map of zeros.
func colours(threshold float64) method {
	return func(img image.Image, phrases [][]string) ([]*grounding.Result, error) {
		x, grid, err := grounding.Patches(img, grounding.PatchConfig{Patch: patch, Width: side, Height: side})
		if err != nil {
			return nil, err
		}
		pix := x.Data().([]float32)
		look, whole := make([]float64, 3*patches), [3]float64{}
		for p := range patches {
			for c := range 3 {
				for i := range patch * patch {
					look[p*3+c] += float64(pix[(p*3+c)*patch*patch+i]) / (patch * patch)
				}
				whole[c] += look[p*3+c] / patches
			}
		}
		for i := range look {
			look[i] -= whole[i%3]
		}
		text := make([]float64, 3*len(phrases))
		for i, p := range phrases {
			for colour, synonyms := range lexicon[colourKind] {
				for _, s := range synonyms {
					for _, w := range p {
						if w == s {
							for c := range 3 {
								text[i*3+c] = 2*rgb[colour][c] - 1 - whole[c]
							}
						}
					}
				}
			}
		}
		g := G.NewGraph()
		node := func(name string, data []float64) *G.Node {
			v := tensor.New(tensor.WithShape(len(data)/3, 3), tensor.WithBacking(data))
			return G.NewMatrix(g, tensor.Float64, G.WithName(name), G.WithShape(len(data)/3, 3), G.WithValue(v))
		}
		s, err := grounding.Ground(node("text", text), node("look", look), nil, grounding.Config{})
		if err != nil {
			return nil, err
		}
		vm := G.NewTapeMachine(g)
		defer vm.Close()
		if err := vm.RunAll(); err != nil {
			return nil, err
		}
		return grounding.Results(s.Value(), grid, grounding.ResultConfig{Threshold: threshold, Refine: patch, Labels: labels(phrases)})
	}
}

// chance points at a random patch and marks a random rectangle of the size of an object.
func chance(rng *rand.Rand) method {
	return func(img image.Image, phrases [][]string) ([]*grounding.Result, error) {
		grid, err := grounding.NewGrid(cells, cells, img.Bounds())
		if err != nil {
			return nil, err
		}
		v := tensor.New(tensor.Of(tensor.Float64), tensor.WithShape(len(phrases), patches))
		for i := range phrases {
			x0, y0 := rng.IntN(cells-3), rng.IntN(cells-3)
			for p := range patches {
				if x, y := p%cells, p/cells; x >= x0 && x < x0+4 && y >= y0 && y < y0+4 {
					v.Data().([]float64)[i*patches+p] = 0.6 + 0.4*rng.Float64()
				}
			}
		}
		return grounding.Results(v, grid, grounding.ResultConfig{Labels: labels(phrases)})
	}
}

// evaluate scores a method on n scenes that the seed fixes, one phrase each.
func evaluate(ground method, seed uint64, n int, unseen bool) (*grounding.Report, error) {
	rng := rand.New(rand.NewPCG(seed, 2))
	var all []grounding.Phrase
	for range n {
		s := newScene(rng, 1, unseen)
		r, err := ground(s.img, [][]string{s.phrases[0].words})
		if err != nil {
			return nil, err
		}
		all = append(all, grounding.Phrase{Result: r[0], Truth: []image.Rectangle{s.phrases[0].box}, Type: s.phrases[0].kind})
	}
	return grounding.Evaluate(all)
}

// calibrate finds a method's threshold on scenes of its own, without held-out combinations.
func calibrate(ground method, relative bool, seed uint64, n int) (float64, error) {
	rng := rand.New(rand.NewPCG(seed, 3))
	var results []*grounding.Result
	var truth []image.Rectangle
	for range n {
		s := newScene(rng, 1, false)
		r, err := ground(s.img, [][]string{s.phrases[0].words})
		if err != nil {
			return 0, err
		}
		results, truth = append(results, r[0]), append(truth, s.phrases[0].box)
	}
	threshold, _, err := grounding.Calibrate(results, truth, grounding.ResultConfig{Relative: relative, Refine: 4})
	return threshold, err
}

// calibrated is the threshold that suits trained weights.
func calibrated(w weights, o options) (float64, error) {
	e, err := newEye(w, 1, 0)
	if err != nil {
		return 0, err
	}
	defer e.vm.Close()
	return calibrate(e.ground, true, o.seed, min(o.scenes, 100))
}
