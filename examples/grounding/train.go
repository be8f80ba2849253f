package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/schollz/progressbar/v3"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops"
	"stheno/ops/grounding"
)

const (
	batchSize = 16
	perScene  = 4 // phrases of a training scene
)

// batch is what one step of training is given.
type batch struct {
	sight, bags, targets *tensor.Dense
}

func newBatch(n, phrases int) batch {
	dense := func(shape ...int) *tensor.Dense {
		return tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(shape...))
	}
	return batch{dense(n, patches, features), dense(n, phrases, len(words)), dense(n, phrases, patches)}
}

// fill draws new scenes. None shows a held-out combination.
func (b batch) fill(rng *rand.Rand) error {
	sight, bags, targets := b.sight.Data().([]float32), b.bags.Data().([]float32), b.targets.Data().([]float32)
	n := b.sight.Shape()[0]
	for i := range n {
		s := newScene(rng, perScene, false)
		x, grid, err := grounding.ImageTensor(s.img, grounding.PatchConfig{Patch: patch})
		if err != nil {
			return err
		}
		look(sight[i*patches*features:], x.Data().([]float32))
		for j, p := range s.phrases {
			bag(bags[(i*perScene+j)*len(words):][:len(words)], p.words)
			y, err := grounding.OverlapTargets(grid, p.box)
			if err != nil {
				return err
			}
			copy(targets[(i*perScene+j)*patches:], y)
		}
	}
	return nil
}

// train changes w over so many steps, or until ctx ends, and returns the last losses' mean. Scenes are drawn beside the
// training, the next batch while one is learnt from.
func train(ctx context.Context, w weights, seed uint64, steps int, log io.Writer) (float64, error) {
	m, err := newModel(w, batchSize, perScene)
	if err != nil {
		return 0, err
	}
	targets := G.NewTensor(m.logits.Graph(), tensor.Float32, 3, G.WithShape(batchSize, perScene, patches), G.WithName("targets"))
	loss, err := grounding.AlignmentLoss(m.logits, targets, grounding.AlignmentConfig{})
	if err != nil {
		return 0, err
	}
	if _, err := G.Grad(loss, m.params...); err != nil {
		return 0, err
	}
	solver, err := ops.NewAdamW(ops.AdamWConfig{LR: 2e-3, Clip: 1, WeightDecay: 0.01,
		Schedule: ops.Schedule{Kind: ops.ScheduleCosine, Warmup: max(1, steps/20), Steps: max(2, steps), Floor: 0.02}})
	if err != nil {
		return 0, err
	}
	vm := G.NewTapeMachine(m.logits.Graph(), G.BindDualValues(m.params...))
	defer vm.Close()
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
			return mean, ctx.Err()
		}
		for node, v := range map[*G.Node]*tensor.Dense{m.sight: b.sight, m.bags: b.bags, targets: b.targets} {
			if err := G.Let(node, v); err != nil {
				return 0, err
			}
		}
		if err := vm.RunAll(); err != nil {
			return 0, fmt.Errorf("step %d: %w", step+1, err)
		}
		l := float64(loss.Value().Data().(float32))
		mean += (l - mean) * max(0.02, 1/float64(step+1))
		if err := solver.Step(G.NodesToValueGrads(m.params)); err != nil {
			return 0, fmt.Errorf("step %d: %w", step+1, err)
		}
		vm.Reset()
		free <- b
		bar.Describe(fmt.Sprintf("training, loss %.4f", mean))
		bar.Add(1)
	}
	return mean, nil
}
