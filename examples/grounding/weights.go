package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"

	"gorgonia.org/tensor"

	"stheno/internal/tensorfile"
)

// weights are the trained numbers, by name.
type weights map[string]*tensor.Dense

// spec is a weight's name and shape, and how wide its first values are spread; 0 means all are fill.
type spec struct {
	name         string
	shape        tensor.Shape
	spread, fill float64
}

// specs are all weights in the order in which they are drawn, so that a seed fixes them.
var specs = func() (all []spec) {
	matrix := func(name string, in, out int, gain float64) {
		all = append(all, spec{name + ".w", tensor.Shape{in, out}, math.Sqrt(gain / float64(in)), 0}, spec{name + ".b", tensor.Shape{out}, 0, 0})
	}
	norm := func(name string) {
		all = append(all, spec{name + ".gamma", tensor.Shape{width}, 0, 1}, spec{name + ".beta", tensor.Shape{width}, 0, 0})
	}
	matrix("see", features, hidden, 2)
	matrix("mix", hidden, hidden, 2)
	matrix("vision", hidden, width, 1)
	all = append(all, spec{"places", tensor.Shape{patches, width}, 0.5, 0}, spec{"words", tensor.Shape{len(words), width}, 1, 0},
		spec{"order", tensor.Shape{longest, width}, 0.5, 0})
	for _, block := range []string{"picture", "caption", "again"} {
		norm(block + ".norm1")
		for _, part := range []string{".q", ".k", ".v", ".out"} {
			matrix(block+part, width, width, 1)
		}
		norm(block + ".norm2")
		matrix(block+".up", width, 2*width, 2)
		matrix(block+".down", 2*width, width, 1)
	}
	matrix("seen", width, width, 1)
	for _, look := range []string{"first", "last"} {
		all = append(all, spec{look + ".w", tensor.Shape{width, width}, math.Sqrt(1.0 / width), 0}, spec{look + ".bias", tensor.Shape{1, patches}, 0, -3})
	}
	return all
}()

func newWeights(rng *rand.Rand) weights {
	w := weights{}
	for _, s := range specs {
		data := make([]float32, s.shape.TotalSize())
		for i := range data {
			data[i] = float32(s.fill)
			if s.spread > 0 {
				data[i] = float32(rng.NormFloat64() * s.spread)
			}
		}
		w[s.name] = tensor.New(tensor.WithShape(s.shape...), tensor.WithBacking(data))
	}
	waves(w["places"].Data().([]float32))
	return w
}

// waves begins the places of patches with smooth functions of x and y, so that what is learnt of one place holds beside it:
// half a wave over the picture, then shorter ones.
func waves(places []float32) {
	for p := range patches {
		at := [2]float64{(float64(p%cells) + 0.5) / cells, (float64(p/cells) + 0.5) / cells}
		for j := range width {
			angle := math.Pi * at[j%2] * (1 + float64(j/4%8)/2)
			if j/2%2 == 1 {
				angle += math.Pi / 2
			}
			places[p*width+j] = float32(0.7 * math.Cos(angle))
		}
	}
}

func (w weights) save(path string) error { return tensorfile.Write(path, w, nil, nil) }

func loadWeights(path string) (w weights, err error) {
	err = tensorfile.With(path, func(r io.ReaderAt, size int64) error {
		file, err := tensorfile.Open(r, size)
		if err != nil {
			return fmt.Errorf("got no weight file of this program, want one that -save wrote: %w", err)
		}
		w = weights{}
		for _, s := range specs {
			d, err := file.Read(s.name)
			if err != nil {
				return fmt.Errorf("got no weight file of this program, want one that -save wrote: %s: %w", s.name, err)
			}
			if !d.Shape().Eq(s.shape) || d.Dtype() != tensor.Float32 {
				return fmt.Errorf("%s: got %v of shape %v, want float32 of %v: the file is of a model of another size", s.name, d.Dtype(), d.Shape(), s.shape)
			}
			for i, x := range d.Data().([]float32) {
				if x := float64(x); math.IsNaN(x) || math.IsInf(x, 0) {
					return fmt.Errorf("%s: got %v at %d, want finite numbers", s.name, x, i)
				}
			}
			w[s.name] = d
		}
		return nil
	})
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}
