package stheno

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"time"

	G "gorgonia.org/gorgonia"

	"stheno/internal/card"
	"stheno/ops"
)

// TrainConfig configures Train. Steps, Batch and Seq must be given.
type TrainConfig struct {
	Steps      int // optimizer steps, those of a resumed run included
	Batch      int // sequences of one run of the graph
	Seq        int // tokens of a sequence
	Accumulate int // runs whose gradients make one step; 0: 1

	// Optimizer is AdamW. Where NoDecay is nil, biases, norms and sinks do not decay.
	Optimizer ops.AdamWConfig

	// Seed draws the sequences. The sequences of a step depend on Seed and the step's number alone.
	Seed  uint64
	Nodes Nodes

	// Quantize names layers that learn to live with their codes (quantization-aware training): see QuantizedTrainingGraph. The
	// weights stay in full precision; Model.Quantize with the same configuration stores what was trained for. Only with Fused
	// nodes.
	Quantize QuantizeConfig

	// OnStep is called after each step. An error ends the training and is returned.
	OnStep func(Step) error

	// Checkpoint is a file for weights, optimizer and progress, written every CheckpointEvery steps (0: only at the end)
	// and when training ends for whatever reason but a failed step. Empty: none.
	Checkpoint      string
	CheckpointEvery int

	// Resume continues from Checkpoint if that file exists, as if training had not stopped: the results are bit-equal. The
	// model must have the checkpoint's Config, and data and configuration, the optimizer's included, must be the same, but
	// for Steps; so must the instruction set that the kernels run on.
	Resume bool
}

// Step reports one optimizer step.
type Step struct {
	Step            int     // 1 for the first
	Loss            float64 // mean cross-entropy in nats, before the step
	GradNorm        float64 // before clipping
	LR              float64
	TokensPerSecond float64 // of this step
	Tokens          int64   // trained on so far, resumed steps included
	Elapsed         time.Duration
}

// TrainResult is what a training came to.
type TrainResult struct {
	Step          // the last one; zero if there was none
	Resumed   int // steps that were done before
	Completed bool
	// CardFull says why weights did not lie on the card, as they do under the build tag cuda, but were copied there by every run: it had no
	// room for them besides. nil otherwise.
	CardFull error
}

// Train fits m to predict the next token of data, a stream of tokens, from sequences at random places of it. m's weights
// change in place; under the build tag cuda they lie on the card meanwhile (Model.ToCard), unless a graph of m is open
// or the card has no room for them (TrainResult.CardFull). When the context ends it stops between two runs of the graph, and returns what there is with the
// context's error; steps that are done stay done.
func Train(ctx context.Context, m *Model, data []int, cfg TrainConfig) (TrainResult, error) {
	var result TrainResult
	if cfg.Accumulate == 0 {
		cfg.Accumulate = 1
	}
	if err := m.checkTraining(data, cfg); err != nil {
		return result, err
	}
	back := func() {}
	if cfg.Nodes == Fused {
		lent, full, err := m.lendToCard()
		if err != nil {
			return result, fmt.Errorf("stheno: Train: %w", err)
		}
		back, result.CardFull = lent, full
		defer func() { back() }()
	}
	t, err := newTrainer(m, data, cfg)
	if card.OutOfMemory(err) && result.CardFull == nil {
		// Without the weights there is room for a graph that copies them.
		back()
		result.CardFull = err
		t, err = newTrainer(m, data, cfg)
	}
	if err != nil {
		return result, err
	}
	defer t.opt.FromCard()
	defer t.graph.Close()
	if cfg.Resume {
		if err := t.resume(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return result, err
		}
		result.Resumed = t.done
	}
	start := time.Now()
	for t.done < cfg.Steps {
		step, err := t.step(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("stheno: Train: stopped after %d of %d steps: %w", t.done, cfg.Steps, err)
				return result, errors.Join(err, t.save())
			}
			return result, fmt.Errorf("stheno: Train: step %d: %w", t.done+1, err)
		}
		step.Elapsed = time.Since(start)
		result.Step = step
		if cfg.OnStep != nil {
			if err := cfg.OnStep(step); err != nil {
				return result, errors.Join(fmt.Errorf("stheno: Train: OnStep: %w", err), t.save())
			}
		}
		if cfg.CheckpointEvery > 0 && t.done%cfg.CheckpointEvery == 0 && t.done < cfg.Steps {
			if err := t.save(); err != nil {
				return result, err
			}
		}
	}
	result.Completed = true
	return result, t.save()
}

func (m *Model) checkTraining(data []int, cfg TrainConfig) error {
	for _, f := range []struct {
		name      string
		got, want int
	}{
		{"Steps", cfg.Steps, 1}, {"Batch", cfg.Batch, 1}, {"Seq", cfg.Seq, 1}, {"Accumulate", cfg.Accumulate, 1},
		{"CheckpointEvery", cfg.CheckpointEvery, 0},
	} {
		if f.got < f.want {
			return fmt.Errorf("stheno: TrainConfig.%s: got %d, want at least %d", f.name, f.got, f.want)
		}
	}
	if cfg.Resume && cfg.Checkpoint == "" {
		return fmt.Errorf("stheno: TrainConfig.Resume: got no Checkpoint to resume from")
	}
	if len(data) < cfg.Seq+1 {
		return fmt.Errorf("stheno: Train: got %d tokens of data, want at least Seq+1 = %d", len(data), cfg.Seq+1)
	}
	return m.checkTokens("data", data, len(data))
}

// trainer is a training under way.
type trainer struct {
	m     *Model
	data  []int
	cfg   TrainConfig
	graph *TrainingGraph
	opt   *ops.AdamW
	sums  *gradSums // with Accumulate > 1
	done  int       // steps
}

func newTrainer(m *Model, data []int, cfg TrainConfig) (*trainer, error) {
	if cfg.Optimizer.NoDecay == nil {
		cfg.Optimizer.NoDecay = m.isVector
	}
	opt, err := ops.NewAdamW(cfg.Optimizer)
	if err != nil {
		return nil, fmt.Errorf("stheno: TrainConfig.Optimizer: %w", err)
	}
	p := plan{batch: cfg.Batch, seq: cfg.Seq, train: true}
	if err := p.fakes(m, cfg.Quantize); err != nil {
		return nil, fmt.Errorf("stheno: TrainConfig.Quantize: %w", err)
	}
	g, err := m.training(p, cfg.Nodes)
	if err != nil {
		return nil, err
	}
	t := &trainer{m: m, data: data, cfg: cfg, graph: g, opt: opt}
	if cfg.Accumulate > 1 {
		t.sums = newGradSums(m)
	}
	return t, nil
}

// isVector reports whether a parameter is a bias, a norm's scale or shift, or the sinks.
func (m *Model) isVector(name string) bool {
	i, ok := m.index[name]
	return ok && m.params[i].Value.Dims() < 2
}

// step runs the graph Accumulate times and the optimizer once.
func (t *trainer) step(ctx context.Context) (Step, error) {
	start := time.Now()
	var mean float64
	grads := []G.ValueGrad(nil)
	for i := range t.cfg.Accumulate {
		if err := ctx.Err(); err != nil {
			return Step{}, err
		}
		run := t.done*t.cfg.Accumulate + i
		tokens, targets := t.batch(run)
		t.graph.Step = run
		loss, err := t.graph.Run(tokens, targets)
		if err != nil {
			return Step{}, err
		}
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return Step{}, fmt.Errorf("got a loss of %v, want a finite number; the weights are those before the step", loss)
		}
		mean += loss / float64(t.cfg.Accumulate)
		grads = t.graph.ValueGrads()
		if t.sums != nil {
			if grads, err = t.sums.add(grads, i == 0, 1/float64(t.cfg.Accumulate)); err != nil {
				return Step{}, err
			}
		}
	}
	if err := t.opt.Step(grads); err != nil {
		return Step{}, err
	}
	t.done++
	perStep := t.cfg.Batch * t.cfg.Seq * t.cfg.Accumulate
	return Step{
		Step: t.done, Loss: mean, GradNorm: t.opt.LastNorm(), LR: t.opt.LR(),
		TokensPerSecond: rate(perStep, time.Since(start)), Tokens: int64(t.done) * int64(perStep),
	}, nil
}

// batch draws the sequences of a run. The random stream is named by seed and run, so there is no generator whose state a
// checkpoint would have to keep.
func (t *trainer) batch(run int) (tokens, targets []int) {
	r := rand.New(rand.NewPCG(t.cfg.Seed, uint64(run)))
	for range t.cfg.Batch {
		at := r.IntN(len(t.data) - t.cfg.Seq)
		tokens = append(tokens, t.data[at:at+t.cfg.Seq]...)
		targets = append(targets, t.data[at+1:at+1+t.cfg.Seq]...)
	}
	return tokens, targets
}
