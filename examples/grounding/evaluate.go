package main

import (
	"context"
	"image"
	"math/rand/v2"

	"stheno/ops/grounding"
)

// perTest is how many phrases a test scene has.
const perTest = 2

// evaluate scores a method on n scenes that the seed fixes: its phrases, and its words where it tells them apart.
func evaluate(ground method, seed uint64, n int, unseen bool) (phrases, words *grounding.Report, err error) {
	rng := rand.New(rand.NewPCG(seed, 2))
	var whole, parts []grounding.Phrase
	for range n {
		s := newScene(rng, perTest, unseen)
		fs, err := ground(s.img, plain(s.phrases))
		if err != nil {
			return nil, nil, err
		}
		for i, f := range fs {
			d := s.phrases[i]
			whole = append(whole, grounding.Phrase{Result: f.phrase, Truth: []image.Rectangle{d.box}, Type: d.kind})
			for j, r := range f.words {
				parts = append(parts, grounding.Phrase{Result: r, Truth: []image.Rectangle{d.truth(j)}, Type: d.kindOf(j)})
			}
		}
	}
	if phrases, err = grounding.Evaluate(whole); err != nil || parts == nil {
		return phrases, nil, err
	}
	words, err = grounding.Evaluate(parts)
	return phrases, words, err
}

// plain leaves out the truth.
func plain(ds []described) []phrase {
	out := make([]phrase, len(ds))
	for i, d := range ds {
		out[i] = d.phrase
	}
	return out
}

// calibrate finds a method's threshold on scenes of its own, without held-out combinations.
func calibrate(ground method, relative bool, seed uint64, n int) (float64, error) {
	rng := rand.New(rand.NewPCG(seed, 3))
	var results []*grounding.Result
	var truth []image.Rectangle
	for range n {
		s := newScene(rng, perTest, false)
		fs, err := ground(s.img, plain(s.phrases))
		if err != nil {
			return 0, err
		}
		for i, f := range fs {
			results, truth = append(results, f.phrase), append(truth, s.phrases[i].box)
		}
	}
	threshold, _, err := grounding.Calibrate(results, truth, grounding.ResultConfig{Relative: relative, Refine: 4})
	return threshold, err
}

// calibrated is the threshold that suits trained weights.
func calibrated(ctx context.Context, w weights, o options) (float64, error) {
	e, err := newEye(w, perTest, 0)
	if err != nil {
		return 0, err
	}
	defer e.vm.Close()
	return calibrate(method(e.ground).until(ctx), true, o.seed, min(o.scenes, 100))
}
