package stheno

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
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

var _ = G.Nodes(nil)
