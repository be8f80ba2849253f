package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"stheno"
	"stheno/ops"
)

// losses is the course of a training.
type losses struct {
	bits []float64 // of each step, in bits per byte
}

// fit trains the model. When ctx ends, the steps done so far stay.
func (j *job) fit(ctx context.Context) error {
	data := tokens(j.text.training)
	steps := j.opt.steps
	if steps == 0 {
		perStep, err := j.timeStep(ctx, data)
		if err != nil {
			return err
		}
		steps = max(1, int(j.opt.minutes*float64(time.Minute)/float64(perStep)))
		fmt.Fprintf(j.out, "training    %d steps of %d × %d bytes: about %s at %s a step\n", steps, j.opt.batch, j.opt.seq,
			roundly(time.Duration(steps)*perStep), roundly(perStep))
	} else {
		fmt.Fprintf(j.out, "training    %d steps of %d × %d bytes\n", steps, j.opt.batch, j.opt.seq)
	}
	p := newProgress(j.log, steps)
	defer p.close()
	cfg := j.training(steps)
	cfg.OnStep = func(s stheno.Step) error {
		j.bits = append(j.bits, s.Loss/math.Ln2)
		p.step(s)
		return nil
	}
	_, err := stheno.Train(ctx, j.model, data, cfg)
	return err
}

// training is the recipe: AdamW, a short warmup, then half a cosine.
func (j *job) training(steps int) stheno.TrainConfig {
	return stheno.TrainConfig{
		Steps: steps, Batch: j.opt.batch, Seq: j.opt.seq, Seed: j.opt.seed,
		Optimizer: ops.AdamWConfig{
			LR: j.opt.rate, Beta2: 0.98, WeightDecay: 0.1, Clip: 1,
			Schedule: ops.Schedule{Kind: ops.ScheduleCosine, Warmup: min(100, steps/10), Steps: steps, Floor: 0.05},
		},
	}
}

// timeStep is how long a training step takes, found on a model that is thrown away. It is the quickest of a few: what
// disturbs those does not last for minutes.
func (j *job) timeStep(ctx context.Context, data []int) (time.Duration, error) {
	scratch, err := stheno.NewModel(j.model.Config(), j.opt.seed)
	if err != nil {
		return 0, err
	}
	best, previous := time.Duration(math.MaxInt64), time.Duration(0)
	cfg := j.training(5)
	cfg.OnStep = func(s stheno.Step) error {
		if s.Step > 1 {
			best = min(best, s.Elapsed-previous)
		}
		previous = s.Elapsed
		return nil
	}
	_, err = stheno.Train(ctx, scratch, data, cfg)
	return best, err
}
