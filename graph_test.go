package stheno

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/kvcompress"
)

// flavours are tiny decoders that between them use every feature of a Config.
func flavours() map[string]Config {
	gpt2 := GPT2(11, 2, 12, 3, 16)
	untied := gpt2
	untied.TiedEmbeddings, untied.Bias = false, false
	llama := Llama(11, 2, 12, 3, 1, 16)
	llama.Hidden = 20
	grouped := Llama(13, 1, 16, 4, 2, 16)
	grouped.TiedEmbeddings, grouped.Window, grouped.Bias = true, 3, true
	grouped.RoPE.Interleaved = true
	capped := gpt2
	capped.Softcap, capped.Window, capped.Activation = 2, 4, SiLU
	relu := gpt2
	relu.Activation, relu.HeadDim = ReLU, 6
	return map[string]Config{
		"gpt2": gpt2, "untied": untied, "llama": llama, "grouped": grouped, "capped": capped, "relu": relu,
	}
}

// fusedOnly are flavours that Plain nodes cannot compose.
func fusedOnly() map[string]Config {
	exact := GPT2(11, 2, 12, 3, 16)
	exact.Activation = GELU
	sinks := Llama(11, 2, 12, 3, 1, 16)
	sinks.Sinks = true
	return map[string]Config{"exact": exact, "sinks": sinks}
}

func flavoursFor(nodes Nodes) map[string]Config {
	all := flavours()
	if nodes == Fused {
		for name, cfg := range fusedOnly() {
			all[name] = cfg
		}
	}
	return all
}

var bothNodes = []Nodes{Fused, Plain}

// TestLogitsAgainstReference holds whole graphs to the reference: within rounding in float64, and in float32 within 1e-4.
func TestLogitsAgainstReference(t *testing.T) {
	const batch, seq = 2, 7
	for _, nodes := range bothNodes {
		for name, cfg := range flavoursFor(nodes) {
			t.Run(nodes.String()+"/"+name, func(t *testing.T) {
				tokens := optest.Ints(5, batch*seq, cfg.Vocab)
				for _, dt := range []tensor.Dtype{tensor.Float64, tensor.Float32} {
					m := noisy(t, cfg, dt)
					ref := newReference(t, m)
					want := append(ref.logits(tokens[:seq]), ref.logits(tokens[seq:])...)
					g, err := m.PrefillGraph(batch, seq, nodes)
					require.NoError(t, err)
					defer g.Close()
					for range 2 { // a second run finds nothing changed by the first
						got, err := g.Run(tokens, 0)
						require.NoError(t, err)
						tol := 1e-11
						if dt == tensor.Float32 {
							tol = 1e-4
						}
						optest.Close(t, dt.String(), optest.Values(t, got), want, tol)
					}
				}
			})
		}
	}
}

// TestGradientsOfEveryParameter compares the gradients of the loss, in float64, with central differences of the reference.
func TestGradientsOfEveryParameter(t *testing.T) {
	const batch, seq, h = 2, 5, 1e-5
	for _, nodes := range bothNodes {
		for name, cfg := range flavoursFor(nodes) {
			t.Run(nodes.String()+"/"+name, func(t *testing.T) {
				m := noisy(t, cfg, tensor.Float64)
				ref := newReference(t, m)
				tokens, targets := optest.Ints(5, batch*seq, cfg.Vocab), optest.Ints(6, batch*seq, cfg.Vocab)
				g, err := m.TrainingGraph(batch, seq, nodes)
				require.NoError(t, err)
				defer g.Close()
				for range 2 {
					loss, err := g.Run(tokens, targets)
					require.NoError(t, err)
					require.InDelta(t, ref.loss(tokens, targets, seq), loss, 1e-11)
				}
				r := rand.New(rand.NewPCG(3, 3))
				for i, p := range m.Parameters() {
					got := optest.Values(t, g.Grads[i].Value())
					w := ref.w[p.Name]
					require.Len(t, got, len(w))
					picks := r.Perm(len(w))
					for _, j := range picks[:min(10, len(picks))] {
						x := w[j]
						w[j] = x + h
						up := ref.loss(tokens, targets, seq)
						w[j] = x - h
						down := ref.loss(tokens, targets, seq)
						w[j] = x
						want := (up - down) / (2 * h)
						if !(math.Abs(got[j]-want) <= 1e-8*(1+math.Abs(want))) {
							t.Errorf("gradient of %s[%d]: got %v, want %v", p.Name, j, got[j], want)
						}
					}
				}
			})
		}
	}
}

// TestGradientsOnLispMachine holds the gradients of a LispMachine to those of the TapeMachine, whole graphs of Fused nodes.
func TestGradientsOnLispMachine(t *testing.T) {
	const batch, seq = 2, 5
	for name, cfg := range flavoursFor(Fused) {
		t.Run(name, func(t *testing.T) {
			m := noisy(t, cfg, tensor.Float64)
			tokens, targets := optest.Ints(5, batch*seq, cfg.Vocab), optest.Ints(6, batch*seq, cfg.Vocab)
			tape, err := m.TrainingGraph(batch, seq, Fused)
			require.NoError(t, err)
			defer tape.Close()
			want, err := tape.Run(tokens, targets)
			require.NoError(t, err)

			g, err := m.graph(plan{batch: batch, seq: seq, train: true}, Fused)
			require.NoError(t, err)
			require.NoError(t, g.t.let(feed{tokens: tokens, targets: targets}))
			lisp := G.NewLispMachine(g.g)
			defer lisp.Close()
			require.NoError(t, lisp.RunAll())
			loss, err := scalarOf(g.loss.Value())
			require.NoError(t, err)
			require.InDelta(t, want, loss, 1e-12)
			for i, p := range g.params {
				got, err := p.Grad()
				require.NoError(t, err)
				optest.Close(t, p.Name(), optest.Values(t, got), optest.Values(t, tape.Grads[i].Value()), 1e-12)
			}
		})
	}
}

// TestDropoutInTraining: the same step draws the same masks, another step others, inference none; and the gradients are
// those of the masks drawn, by differences of the loss at a fixed step.
func TestDropoutInTraining(t *testing.T) {
	const batch, seq, h = 2, 5, 1e-5
	cfg := flavours()["gpt2"]
	cfg.Dropout = 0.3
	m := noisy(t, cfg, tensor.Float64)
	tokens, targets := optest.Ints(5, batch*seq, cfg.Vocab), optest.Ints(6, batch*seq, cfg.Vocab)
	g, err := m.TrainingGraph(batch, seq, Fused)
	require.NoError(t, err)
	defer g.Close()
	at := func(step int) float64 {
		g.Step = step
		loss, err := g.Run(tokens, targets)
		require.NoError(t, err)
		return loss
	}
	first := at(3)
	require.Equal(t, 4, g.Step)
	require.NotEqual(t, first, at(4))
	require.Equal(t, first, at(3))
	require.NotEqual(t, first, newReference(t, m).loss(tokens, targets, seq))
	for i, p := range m.Parameters() {
		grad := append([]float64(nil), optest.Values(t, g.Grads[i].Value())...)
		w := p.Value.Data().([]float64)
		j := len(w) / 2
		x := w[j]
		w[j] = x + h
		up := at(3)
		w[j] = x - h
		down := at(3)
		w[j] = x
		require.InDelta(t, (up-down)/(2*h), grad[j], 1e-8, p.Name)
		at(3)
	}

	got, err := m.Logits([][]int{tokens[:seq]}, Fused)
	require.NoError(t, err)
	optest.Close(t, "inference", optest.Values(t, got), newReference(t, m).logits(tokens[:seq]), 1e-11)
	_, err = m.TrainingGraph(batch, seq, Plain)
	require.ErrorContains(t, err, "Dropout 0.3")
}

// TestOneModelManyGraphs runs graphs of one model at the same time; with -race it shows that they share only weights.
func TestOneModelManyGraphs(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	want, _, err := m.Generate(context.Background(), []int{1, 2, 3}, GenerateConfig{MaxTokens: 5})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			got, _, err := m.Generate(context.Background(), []int{1, 2, 3}, GenerateConfig{MaxTokens: 5})
			assert.NoError(t, err)
			assert.Equal(t, want, got)
			g, err := m.TrainingGraph(1, 4, Fused)
			if assert.NoError(t, err) {
				_, err = g.Run([]int{1, 2, 3, 4}, []int{2, 3, 4, 5})
				assert.NoError(t, err)
				assert.NoError(t, g.Close())
			}
		})
	}
	wg.Wait()
}

// TestBitEqualAtAnyThreadCount: loss and gradients of a float32 graph do not depend on the threads.
func TestBitEqualAtAnyThreadCount(t *testing.T) {
	cfg := GPT2(61, 2, 48, 4, 32)
	m := noisy(t, cfg, tensor.Float32)
	tokens, targets := optest.Ints(5, 3*32, cfg.Vocab), optest.Ints(6, 3*32, cfg.Vocab)
	g, err := m.TrainingGraph(3, 32, Fused)
	require.NoError(t, err)
	defer g.Close()
	var loss float64
	var grads [][]float64
	for _, threads := range []int{1, 2, 3} {
		old, err := parallel.SetThreads(threads)
		require.NoError(t, err)
		defer parallel.SetThreads(old)
		got, err := g.Run(tokens, targets)
		require.NoError(t, err)
		if threads == 1 {
			loss = got
		}
		require.Equal(t, loss, got)
		for i := range g.Grads {
			v := optest.Values(t, g.Grads[i].Value())
			if threads == 1 {
				grads = append(grads, v)
			}
			require.Equal(t, grads[i], v, g.Params[i].Name())
		}
	}
}

func TestGraphErrors(t *testing.T) {
	m := noisy(t, flavours()["gpt2"], tensor.Float32)
	for want, build := range map[string]func() error{
		"got a batch of 0": func() error { _, err := m.TrainingGraph(0, 4, Fused); return err },
		"got sequences of 0 tokens, want 1 to MaxSeq = 16":  func() error { _, err := m.TrainingGraph(1, 0, Fused); return err },
		"got sequences of 17 tokens, want 1 to MaxSeq = 16": func() error { _, err := m.PrefillGraph(1, 17, Plain); return err },
		"got nodes 5":              func() error { _, err := m.PrefillGraph(1, 4, 5); return err },
		"got no caches, want 2":    func() error { _, err := m.DecodeGraph(1, nil); return err },
		"got no sequences":         func() error { _, err := m.Logits(nil, Fused); return err },
		"tokens[1]: got 1 tokens":  func() error { _, err := m.Logits([][]int{{1, 2}, {1}}, Fused); return err },
		"tokens[0]: got id -1":     func() error { _, err := m.Logits([][]int{{-1}}, Fused); return err },
		"got name \"x\"":           func() error { _, err := m.Parameter("x"); return err },
		"got 1 tokens, want at le": func() error { _, err := m.Evaluate(context.Background(), []int{1}, 4, Fused); return err },
		"got stretches of 0":       func() error { _, err := m.Evaluate(context.Background(), []int{1, 2}, 0, Fused); return err },
	} {
		require.ErrorContains(t, build(), want)
	}
	for name, cfg := range fusedOnly() {
		_, err := noisy(t, cfg, tensor.Float32).PrefillGraph(1, 4, Plain)
		require.ErrorContains(t, err, "Plain nodes", name)
	}
	g, err := m.TrainingGraph(1, 4, Fused)
	require.NoError(t, err)
	defer g.Close()
	_, err = g.ValueGrads()[0].Grad()
	require.ErrorContains(t, err, "got no gradient")
	_, err = g.Run([]int{1, 2}, []int{1, 2, 3, 4})
	require.ErrorContains(t, err, "got 2 tokens, want 4")
	_, err = g.Run([]int{1, 2, 3, 4}, []int{1, 2, 3, 40})
	require.ErrorContains(t, err, "targets[3]: got id 40, want 0 to 10")
	_, err = g.Run([]int{1, 2, 3, 4}, []int{1, 2, 3, 4})
	require.NoError(t, err, "a run after an error")

	p, err := m.PrefillGraph(1, 4, Fused)
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Run([]int{1, 2, 3, 4}, 13)
	require.ErrorContains(t, err, "got 4 tokens at position 13, want both within MaxSeq = 16")

	caches, err := m.NewCaches(1, 8, kvcompress.Config{})
	require.NoError(t, err)
	d, err := m.DecodeGraph(1, caches)
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Run([]int{1}, 2)
	require.ErrorContains(t, err, "got 2, want 0, the number of tokens cached")
	_, err = d.Run([]int{1}, 0)
	require.NoError(t, err)
}

func TestEvaluate(t *testing.T) {
	ctx := context.Background()
	for _, nodes := range bothNodes {
		cfg := flavours()["llama"]
		m := noisy(t, cfg, tensor.Float32)
		tokens := optest.Ints(5, 12, cfg.Vocab)
		ref := newReference(t, m)
		want := (5*ref.loss(tokens[:5], tokens[1:6], 5) + 5*ref.loss(tokens[5:10], tokens[6:11], 5) +
			ref.loss(tokens[10:11], tokens[11:], 1)) / 11 / math.Ln2
		got, err := m.Evaluate(ctx, tokens, 5, nodes)
		require.NoError(t, err)
		require.InDelta(t, want, got, 1e-5)
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		_, err = m.Evaluate(stopped, tokens, 5, nodes)
		require.ErrorIs(t, err, context.Canceled)
	}
}

// TestDot exports a training graph, which a reader finds the nodes in.
func TestDot(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	g, err := m.TrainingGraph(1, 4, Fused)
	require.NoError(t, err)
	defer g.Close()
	dot := g.Graph.ToDot()
	for _, want := range []string{"digraph", "ops.RMSNorm", "flashattn.Attend", "ops.CrossEntropy", "h.1.attn.q_proj.weight", "tokens"} {
		require.Contains(t, dot, want)
	}
}
