package stheno

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/internal/tensorfile"
	"stheno/ops"
)

// cycle is a stream in which every token follows from the two before it: what a model must learn to a loss near 0.
func cycle(n int) []int {
	out := []int{0, 1}
	for len(out) < n {
		k := len(out)
		out = append(out, (out[k-1]+2*out[k-2])%7)
	}
	return out
}

func tinyTraining() (Config, TrainConfig) {
	cfg := Llama(7, 2, 16, 4, 2, 16)
	return cfg, TrainConfig{Steps: 8, Batch: 2, Seq: 8, Seed: 3, Optimizer: ops.AdamWConfig{LR: 1e-2, WeightDecay: 0.1, Clip: 1}}
}

// TestTrainingToAKnownLoss: a stream that is fully determined by its past is learned; one of independent fair choices
// among four tokens settles at ln 4.
func TestTrainingToAKnownLoss(t *testing.T) {
	for _, nodes := range bothNodes {
		t.Run(nodes.String(), func(t *testing.T) {
			cfg, tc := tinyTraining()
			m, err := NewModel(cfg, 1)
			require.NoError(t, err)
			tc.Steps, tc.Nodes, tc.Batch = 150, nodes, 4
			var losses []float64
			tc.OnStep = func(s Step) error {
				losses = append(losses, s.Loss)
				require.Equal(t, len(losses), s.Step)
				require.Equal(t, int64(len(losses)*32), s.Tokens)
				require.Positive(t, s.GradNorm)
				require.Positive(t, s.TokensPerSecond)
				require.Positive(t, s.LR)
				return nil
			}
			result, err := Train(context.Background(), m, cycle(600), tc)
			require.NoError(t, err)
			require.True(t, result.Completed)
			require.Equal(t, 150, result.Step.Step)
			require.InDelta(t, math.Log(7), losses[0], 0.1, "an untrained model knows nothing")
			require.Less(t, result.Loss, 0.4)
			bits, err := m.Evaluate(context.Background(), cycle(100), 8, nodes)
			require.NoError(t, err)
			require.Less(t, bits, 0.6)
		})
	}
	t.Run("noise", func(t *testing.T) {
		cfg, tc := tinyTraining()
		m, err := NewModel(cfg, 1)
		require.NoError(t, err)
		tc.Steps, tc.Batch, tc.Optimizer.LR = 60, 8, 3e-3
		_, err = Train(context.Background(), m, optest.Ints(1, 20000, 4), tc)
		require.NoError(t, err)
		bits, err := m.Evaluate(context.Background(), optest.Ints(2, 2000, 4), 16, Fused)
		require.NoError(t, err)
		require.InDelta(t, 2, bits, 0.05)
	})
}

func weightsOf(t testing.TB, m *Model) [][]float64 {
	var out [][]float64
	for _, p := range m.Parameters() {
		out = append(out, optest.Values(t, p.Value))
	}
	return out
}

// TestResumeIsBitEqual stops a training, by cancelling or by a lower number of steps, resumes it in a model of other
// weights, and finds the weights of a training that never stopped.
func TestResumeIsBitEqual(t *testing.T) {
	data := cycle(600)
	for name, change := range map[string]func(*Config, *TrainConfig){
		"plainly":    func(*Config, *TrainConfig) {},
		"accumulate": func(_ *Config, tc *TrainConfig) { tc.Accumulate = 3 },
		"dropout":    func(c *Config, _ *TrainConfig) { c.Dropout = 0.2 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg, tc := tinyTraining()
			change(&cfg, &tc)
			tc.Steps = 8
			whole, err := NewModel(cfg, 1)
			require.NoError(t, err)
			var want []float64
			tc.OnStep = func(s Step) error { want = append(want, s.Loss, s.GradNorm, s.LR); return nil }
			_, err = Train(context.Background(), whole, data, tc)
			require.NoError(t, err)

			tc.Checkpoint, tc.Resume = filepath.Join(t.TempDir(), "run.safetensors"), true
			tc.CheckpointEvery = 2
			var got []float64
			ctx, cancel := context.WithCancel(context.Background())
			tc.OnStep = func(s Step) error {
				got = append(got, s.Loss, s.GradNorm, s.LR)
				if s.Step == 3 {
					cancel()
				}
				return nil
			}
			first, err := NewModel(cfg, 1)
			require.NoError(t, err)
			result, err := Train(ctx, first, data, tc)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorContains(t, err, "stopped after 3 of 8 steps")
			require.Equal(t, 3, result.Step.Step)
			require.False(t, result.Completed)

			second, err := NewModel(cfg, 99)
			require.NoError(t, err)
			result, err = Train(context.Background(), second, data, tc)
			require.NoError(t, err)
			require.Equal(t, 3, result.Resumed)
			require.Equal(t, want, got)
			require.Equal(t, weightsOf(t, whole), weightsOf(t, second))

			third, err := NewModel(cfg, 98)
			require.NoError(t, err)
			result, err = Train(context.Background(), third, data, tc)
			require.NoError(t, err, "nothing is left to do")
			require.Equal(t, 8, result.Resumed)
			require.True(t, result.Completed)
			require.Equal(t, weightsOf(t, whole), weightsOf(t, third))

			loaded, err := Load(tc.Checkpoint)
			require.NoError(t, err)
			require.Equal(t, weightsOf(t, whole), weightsOf(t, loaded))
		})
	}
}

func TestResumeRefusesAnotherTraining(t *testing.T) {
	cfg, tc := tinyTraining()
	tc.Steps, tc.Checkpoint = 2, filepath.Join(t.TempDir(), "run.safetensors")
	data := cycle(100)
	m, err := NewModel(cfg, 1)
	require.NoError(t, err)
	_, err = Train(context.Background(), m, data, tc)
	require.NoError(t, err)
	tc.Resume, tc.Steps = true, 4
	before := weightsOf(t, m)
	for want, change := range map[string]func(*TrainConfig, *[]int, *Model, *testing.T) *Model{
		"Seed:3":     func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model { c.Seed = 4; return m },
		"Batch:2":    func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model { c.Batch = 3; return m },
		"100 tokens": func(_ *TrainConfig, d *[]int, m *Model, t *testing.T) *Model { *d = cycle(101); return m },
		"LR 0.01, ":  func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model { c.Optimizer.LR = 0.02; return m },
		"Clip 1, ":   func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model { c.Optimizer.Clip = 2; return m },
		"parameters decay, ": func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model {
			c.Optimizer.NoDecay = func(string) bool { return false }
			return m
		},
		"Kernel:": func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model {
			restore, err := kernel.Use(kernel.Generic)
			require.NoError(t, err)
			t.Cleanup(restore)
			return m
		},
		"Quantize:none": func(c *TrainConfig, _ *[]int, m *Model, _ *testing.T) *Model {
			c.Quantize.Weights = INT8
			return m
		},
		"Nodes:stheno": func(c *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model { c.Nodes = Plain; return m },
		"got a model of": func(_ *TrainConfig, _ *[]int, m *Model, t *testing.T) *Model {
			other := cfg
			other.Softcap = 3
			m, err := NewModel(other, 1)
			require.NoError(t, err)
			return m
		},
	} {
		t.Run(want, func(t *testing.T) {
			if want == "Kernel:" && kernel.Active() == kernel.Generic {
				t.Skip("this build has portable kernels alone")
			}
			c, d := tc, data
			_, err := Train(context.Background(), change(&c, &d, m, t), d, c)
			require.ErrorContains(t, err, want)
		})
	}
	require.NoError(t, m.Save(tc.Checkpoint))
	_, err = Train(context.Background(), m, data, tc)
	require.ErrorContains(t, err, "not a training checkpoint")
	require.NoError(t, os.WriteFile(tc.Checkpoint, []byte("torn"), 0o600))
	_, err = Train(context.Background(), m, data, tc)
	require.ErrorContains(t, err, "stheno: resuming from")
	require.Equal(t, before, weightsOf(t, m))
}

// TestResumeRefusesAnIncompleteOptimizer: without all moments training would go on with other bits, and say nothing.
func TestResumeRefusesAnIncompleteOptimizer(t *testing.T) {
	cfg, tc := tinyTraining()
	tc.Steps, tc.Checkpoint = 2, filepath.Join(t.TempDir(), "c.safetensors")
	data := cycle(100)
	m, err := NewModel(cfg, 1)
	require.NoError(t, err)
	_, err = Train(context.Background(), m, data, tc)
	require.NoError(t, err)

	var meta map[string]string
	state := map[string]*tensor.Dense{}
	require.NoError(t, tensorfile.With(tc.Checkpoint, func(r io.ReaderAt, size int64) error {
		file, err := openTensors(r, size)
		require.NoError(t, err)
		meta = map[string]string{metaTraining: file.Meta[metaTraining]}
		for name := range file.Tensors {
			if key, ok := strings.CutPrefix(name, optimizerPrefix); ok {
				state[key], err = file.Read(name)
				require.NoError(t, err)
			}
		}
		return nil
	}))
	tc.Resume, tc.Steps = true, 4
	resumed := func(state map[string]*tensor.Dense) error {
		require.NoError(t, m.save(tc.Checkpoint, state, meta))
		other, err := NewModel(cfg, 2)
		require.NoError(t, err)
		before := weightsOf(t, other)
		_, err = Train(context.Background(), other, data, tc)
		if err != nil {
			require.Equal(t, before, weightsOf(t, other))
		}
		return err
	}
	require.ErrorContains(t, resumed(map[string]*tensor.Dense{"step": state["step"]}), "got no tensor \"optimizer.m.")
	bent := maps.Clone(state)
	bent["m.wte.weight"] = dense(make([]float32, 2), []int{2})
	bent["v.wte.weight"] = dense(make([]float32, 2), []int{2})
	require.ErrorContains(t, resumed(bent), "optimizer.m.wte.weight")
	require.NoError(t, resumed(state))
}

// TestAccumulationIsABiggerBatch: the mean gradient of two runs makes the step of one run over both batches.
func TestAccumulationIsABiggerBatch(t *testing.T) {
	cfg, tc := tinyTraining()
	data := cycle(200)
	m, err := newModel(cfg, 1, tensor.Float64)
	require.NoError(t, err)
	tc.Steps, tc.Accumulate = 1, 2
	_, err = Train(context.Background(), m, data, tc)
	require.NoError(t, err)

	both, err := newModel(cfg, 1, tensor.Float64)
	require.NoError(t, err)
	tr, err := newTrainer(both, data, tc)
	require.NoError(t, err)
	defer tr.graph.Close()
	g, err := both.TrainingGraph(2*tc.Batch, tc.Seq, Fused)
	require.NoError(t, err)
	defer g.Close()
	tokens, targets := tr.batch(0)
	more, moreTargets := tr.batch(1)
	_, err = g.Run(append(tokens, more...), append(targets, moreTargets...))
	require.NoError(t, err)
	require.NoError(t, tr.opt.Step(g.ValueGrads()))
	want := weightsOf(t, both)
	for i, got := range weightsOf(t, m) {
		optest.Close(t, m.Parameters()[i].Name, got, want[i], 1e-9)
	}
}

func TestTrainErrors(t *testing.T) {
	cfg, good := tinyTraining()
	m, err := NewModel(cfg, 1)
	require.NoError(t, err)
	data := cycle(100)
	for want, change := range map[string]func(*TrainConfig, *[]int){
		"TrainConfig.Steps: got 0":              func(c *TrainConfig, _ *[]int) { c.Steps = 0 },
		"TrainConfig.Batch: got -1":             func(c *TrainConfig, _ *[]int) { c.Batch = -1 },
		"TrainConfig.Seq: got 0":                func(c *TrainConfig, _ *[]int) { c.Seq = 0 },
		"TrainConfig.Accumulate: got -1":        func(c *TrainConfig, _ *[]int) { c.Accumulate = -1 },
		"TrainConfig.CheckpointEvery: got -1":   func(c *TrainConfig, _ *[]int) { c.CheckpointEvery = -1 },
		"TrainConfig.Resume":                    func(c *TrainConfig, _ *[]int) { c.Resume = true },
		"TrainConfig.Optimizer":                 func(c *TrainConfig, _ *[]int) { c.Optimizer.LR = math.NaN() },
		"got sequences of 17 tokens":            func(c *TrainConfig, _ *[]int) { c.Seq = 17 },
		"got 8 tokens of data, want at least S": func(_ *TrainConfig, d *[]int) { *d = cycle(8) },
		"data[2]: got id 7, want 0 to 6":        func(_ *TrainConfig, d *[]int) { *d = append([]int{1, 2, 7}, data...) },
	} {
		c, d := good, data
		change(&c, &d)
		_, err := Train(context.Background(), m, d, c)
		require.ErrorContains(t, err, want)
	}
	stop := errors.New("enough")
	c := good
	c.OnStep = func(Step) error { return stop }
	result, err := Train(context.Background(), m, data, c)
	require.ErrorIs(t, err, stop)
	require.Equal(t, 1, result.Step.Step)

	v, err := m.Parameter("ln_f.weight")
	require.NoError(t, err)
	v.Data().([]float32)[0] = float32(math.NaN())
	before := weightsOf(t, m)
	_, err = Train(context.Background(), m, data, good)
	require.ErrorContains(t, err, "step 1: got a loss of NaN")
	require.Equal(t, before[0], weightsOf(t, m)[0], "nothing was changed")
}
