package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/schollz/progressbar/v3"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/ops"
	"stheno/ops/grounding"
)

const (
	batchSize = 16
	perScene  = 4 // phrases of a training scene
)

// batch is what one step of training is given.
type batch struct {
	sight, ids, mask *tensor.Dense
	targets, weights *tensor.Dense // (scenes, phrases·longest, patches)
}

func newBatch(scenes, phrases int) batch {
	zeros := func(of tensor.Dtype, shape ...int) *tensor.Dense {
		return tensor.New(tensor.Of(of), tensor.WithShape(shape...))
	}
	n := phrases * longest
	return batch{zeros(tensor.Float32, scenes, patches, features), zeros(tensor.Int, scenes*phrases, longest), zeros(tensor.Int, scenes, n),
		zeros(tensor.Float32, scenes, n, patches), zeros(tensor.Float32, scenes, n, patches)}
}

// show makes a normalised picture that of scene i.
func (b batch) show(i int, picture *tensor.Dense) {
	look(b.sight.Data().([]float32)[i*patches*features:], picture.Data().([]float32))
}

// say makes p phrase i, counted over all scenes.
func (b batch) say(i int, p phrase) {
	ids, mask := b.ids.Data().([]int)[i*longest:][:longest], b.mask.Data().([]int)[i*longest:][:longest]
	clear(ids)
	clear(mask)
	for j, w := range p.words {
		ids[j], mask[j] = vocabulary[w], 1
	}
}

// let binds the batch to the inputs of a model.
func (b batch) let(m *model) error {
	for node, v := range map[*G.Node]*tensor.Dense{m.sight: b.sight, m.ids: b.ids, m.mask: b.mask} {
		if err := G.Let(node, v); err != nil {
			return err
		}
	}
	return nil
}

// fill draws new scenes. None shows a held-out combination.
func (b batch) fill(rng *rand.Rand) error {
	targets, weights := b.targets.Data().([]float32), b.weights.Data().([]float32)
	clear(targets)
	clear(weights)
	for i := range b.sight.Shape()[0] {
		s := newScene(rng, perScene, false)
		x, grid, err := grounding.ImageTensor(s.img, grounding.PatchConfig{Patch: patch})
		if err != nil {
			return err
		}
		b.show(i, x)
		for j, d := range s.phrases {
			b.say(i*perScene+j, d.phrase)
			object, err := grounding.OverlapTargets(grid, d.box)
			if err != nil {
				return err
			}
			landmark, err := grounding.OverlapTargets(grid, d.landBox)
			if err != nil {
				return err
			}
			for k := range d.words {
				at := ((i*perScene+j)*longest + k) * patches
				if k < d.landmark {
					copy(targets[at:], object)
				} else {
					copy(targets[at:], landmark)
				}
				for p := range patches {
					weights[at+p] = 1
				}
			}
		}
	}
	return nil
}

// teach is the loss of both looks: every word should find the patches that its object covers.
func teach(m *model) (loss, targets, weights *G.Node, err error) {
	input := func(name string) *G.Node {
		return G.NewTensor(m.logits.Graph(), tensor.Float32, 3, G.WithShape(m.logits.Shape()...), G.WithName(name))
	}
	targets, weights = input("targets"), input("weights")
	cfg := grounding.AlignmentConfig{Weights: weights}
	first, err := grounding.AlignmentLoss(m.first, targets, cfg)
	if err != nil {
		return
	}
	last, err := grounding.AlignmentLoss(m.logits, targets, cfg)
	if err != nil {
		return
	}
	loss, err = G.Add(first, last)
	return
}

// train changes w over so many steps, or until ctx ends, and returns the last losses' mean. Scenes are drawn beside the
// training, the next batch while one is learnt from.
func train(ctx context.Context, w weights, seed uint64, steps int, log io.Writer) (float64, error) {
	m, err := newModel(w, batchSize, perScene)
	if err != nil {
		return 0, err
	}
	loss, targets, weights, err := teach(m)
	if err != nil {
		return 0, err
	}
	grads, err := G.Grad(loss, m.params...)
	if err != nil {
		return 0, err
	}
	solver, err := ops.NewAdamW(ops.AdamWConfig{LR: 3e-3, Beta2: 0.98, Clip: 1, WeightDecay: 0.01,
		Schedule: ops.Schedule{Kind: ops.ScheduleCosine, Warmup: max(1, steps/20), Steps: max(2, steps), Floor: 0.02}})
	if err != nil {
		return 0, err
	}
	vm := G.NewTapeMachine(m.logits.Graph(), G.BindDualValues(m.params...))
	defer vm.Close()
	results := op.NewRecycler(m.logits.Graph(), append(G.Nodes{loss}, grads...), nil)
	bar := progressbar.NewOptions(steps, progressbar.OptionSetWriter(log), progressbar.OptionSetWidth(24),
		progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(time.Second),
		progressbar.OptionSetDescription("training"))
	defer fmt.Fprintln(log)

	ready, free, failed := make(chan batch, 2), make(chan batch, 2), make(chan error, 1)
	free <- newBatch(batchSize, perScene)
	free <- newBatch(batchSize, perScene)
	done := make(chan struct{})
	defer close(done)
	go func() {
		rng := rand.New(rand.NewPCG(seed, 1))
		for {
			select {
			case b := <-free:
				if err := b.fill(rng); err != nil {
					failed <- err
					return
				}
				ready <- b
			case <-done:
				return
			}
		}
	}()
	mean := 0.0
	for step := range steps {
		var b batch
		select {
		case b = <-ready:
		case err := <-failed:
			return 0, err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err := errors.Join(b.let(m), G.Let(targets, b.targets), G.Let(weights, b.weights)); err != nil {
			return 0, err
		}
		stop := results.Watch()
		err := vm.RunAll()
		stop()
		if err != nil {
			return 0, fmt.Errorf("step %d: %w", step+1, err)
		}
		l := float64(loss.Value().Data().(float32))
		mean += (l - mean) * max(0.02, 1/float64(step+1))
		if err := solver.Step(G.NodesToValueGrads(m.params)); err != nil {
			return 0, fmt.Errorf("step %d: %w", step+1, err)
		}
		results.Release()
		vm.Reset()
		free <- b
		bar.Describe(fmt.Sprintf("training, loss %.4f", mean))
		bar.Add(1)
	}
	return mean, nil
}
