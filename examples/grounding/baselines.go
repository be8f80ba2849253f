package main

import (
	"image"
	"math/rand/v2"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops/grounding"
)

// results are those of a method that knows of no words.
func results(maps G.Value, grid *grounding.Grid, cfg grounding.ResultConfig) ([]found, error) {
	rs, err := grounding.Results(maps, grid, cfg)
	out := make([]found, len(rs))
	for i, r := range rs {
		out[i].phrase = r
	}
	return out, err
}

// colours is the baseline without training: the cosine of a patch's mean colour, away from the picture's, with the colour
// that a phrase names for its object. What names none gets a map of zeros.
func colours(threshold float64) method {
	return func(img image.Image, phrases []phrase) ([]found, error) {
		x, grid, err := grounding.Patches(img, grounding.PatchConfig{Patch: patch, Width: side, Height: side})
		if err != nil {
			return nil, err
		}
		look, whole := meanColours(x.Data().([]float32))
		text := make([]float64, 3*len(phrases))
		for i, p := range phrases {
			for _, w := range p.words[:p.landmark] {
				if k, v := traitOf(w); k == colourKind {
					for c := range 3 {
						text[i*3+c] = 2*rgb[v][c] - 1 - whole[c]
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
		return results(s.Value(), grid, grounding.ResultConfig{Threshold: threshold, Refine: patch, Labels: labels(phrases)})
	}
}

// meanColours are the mean colours of patches less that of the picture, and that of the picture.
func meanColours(pixels []float32) (look []float64, whole [3]float64) {
	look = make([]float64, 3*patches)
	for p := range patches {
		for c := range 3 {
			for i := range patch * patch {
				look[p*3+c] += float64(pixels[(p*3+c)*patch*patch+i]) / (patch * patch)
			}
			whole[c] += look[p*3+c] / patches
		}
	}
	for i := range look {
		look[i] -= whole[i%3]
	}
	return look, whole
}

// chance points at a random patch and marks a random rectangle of the size of an object.
func chance(rng *rand.Rand) method {
	return func(img image.Image, phrases []phrase) ([]found, error) {
		grid, err := grounding.NewGrid(cells, cells, img.Bounds())
		if err != nil {
			return nil, err
		}
		maps := make([]float64, len(phrases)*patches)
		for i := range phrases {
			x0, y0 := rng.IntN(cells-3), rng.IntN(cells-3)
			for p := range patches {
				if x, y := p%cells, p/cells; x >= x0 && x < x0+4 && y >= y0 && y < y0+4 {
					maps[i*patches+p] = 0.6 + 0.4*rng.Float64()
				}
			}
		}
		return results(dense(maps), grid, grounding.ResultConfig{Labels: labels(phrases)})
	}
}
