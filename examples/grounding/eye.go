package main

import (
	"context"
	"fmt"
	"image"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops/grounding"
)

// found is what a method makes of a phrase: the region of the whole phrase, and of each word where it tells words apart.
type found struct {
	phrase *grounding.Result
	words  []*grounding.Result
	short  string // the phrase without relation and place
}

// method grounds phrases in a picture.
type method func(img image.Image, phrases []phrase) ([]found, error)

// until is the method for as long as ctx lasts.
func (m method) until(ctx context.Context) method {
	return func(img image.Image, phrases []phrase) ([]found, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return m(img, phrases)
	}
}

func labels(phrases []phrase) []string {
	out := make([]string, len(phrases))
	for i, p := range phrases {
		out[i] = p.String()
	}
	return out
}

// eye is a trained model for one picture and so many phrases.
type eye struct {
	m         *model
	vm        G.VM
	in        batch
	phrases   int
	threshold float64 // the share of the largest value from which on a patch belongs to the object
}

func newEye(w weights, phrases int, threshold float64) (*eye, error) {
	m, err := newModel(w, 1, phrases)
	if err != nil {
		return nil, err
	}
	return &eye{m, G.NewTapeMachine(m.logits.Graph()), newBatch(1, phrases), phrases, threshold}, nil
}

func (e *eye) ground(img image.Image, phrases []phrase) ([]found, error) {
	if len(phrases) != e.phrases {
		return nil, fmt.Errorf("got %d phrases, want %d", len(phrases), e.phrases)
	}
	x, grid, err := grounding.ImageTensor(img, grounding.PatchConfig{Patch: patch, Width: side, Height: side})
	if err != nil {
		return nil, err
	}
	e.in.show(0, x)
	for i, p := range phrases {
		e.in.say(i, p)
	}
	e.vm.Reset()
	if err := e.in.let(e.m); err != nil {
		return nil, err
	}
	if err := e.vm.RunAll(); err != nil {
		return nil, err
	}
	p := probabilities(e.m.logits.Value().Data().([]float32))
	out := make([]found, len(phrases))
	for i, ph := range phrases {
		if out[i], err = e.read(ph, p[i*longest*patches:], grid); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// read turns the maps of a phrase's words into results. The phrase's own map is the mean of those of the words that name a
// trait of its object.
func (e *eye) read(p phrase, maps []float64, grid *grounding.Grid) (f found, err error) {
	whole := make([]float64, patches)
	at := p.traits()
	for _, i := range at {
		for j, v := range maps[i*patches : (i+1)*patches] {
			whole[j] += v / float64(len(at))
		}
	}
	cfg := grounding.ResultConfig{Threshold: e.threshold, Relative: true, Refine: patch, Labels: []string{p.String()}}
	r, err := grounding.Results(dense(whole), grid, cfg)
	if err != nil {
		return f, err
	}
	cfg.Labels = p.words
	f.words, err = grounding.Results(dense(maps[:len(p.words)*patches]), grid, cfg)
	var short []string
	for _, i := range at {
		short = append(short, p.words[i])
	}
	f.phrase, f.short = r[0], strings.Join(short, " ")
	return f, err
}

// dense is a matrix of maps.
func dense(x []float64) *tensor.Dense {
	return tensor.New(tensor.WithShape(len(x)/patches, patches), tensor.WithBacking(x))
}
