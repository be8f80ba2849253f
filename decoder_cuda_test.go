//go:build cuda

package stheno

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/optest"
	"stheno/ops"
)

// onCPU computes every node of a graph by the CPU's method of its op, in an order of its own, whatever the build.
func onCPU(t *testing.T, g *G.ExprGraph) map[*G.Node]G.Value {
	t.Helper()
	values := map[*G.Node]G.Value{}
	var eval func(n *G.Node) G.Value
	eval = func(n *G.Node) G.Value {
		if v, ok := values[n]; ok {
			return v
		}
		var in []G.Value
		it := g.From(n.ID())
		for it.Next() {
			in = append(in, eval(it.Node().(*G.Node)))
		}
		v := n.Value()
		if n.Op() != nil && n.Op().Arity() > 0 {
			var err error
			v, err = n.Op().Do(in...)
			require.NoError(t, err, "%v", n.Op())
		}
		values[n] = v
		return v
	}
	for _, n := range g.AllNodes() {
		eval(n)
	}
	return values
}

func cardConfigs() map[string]Config {
	llama := Llama(17, 2, 16, 4, 2, 12)
	llama.Sinks, llama.Softcap, llama.Window, llama.Dropout = true, 20, 7, 0.2
	gpt := GPT2(19, 1, 16, 2, 12)
	return map[string]Config{"llama": llama, "gpt2": gpt}
}

func cardIDs(cfg Config, n, from int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = ((i+from)*(i+from) + 3*from) % cfg.Vocab
	}
	return ids
}

// A whole decoder trains on the card, with nothing on the CPU but what the report says, to the losses that the CPU has.
func TestTrainingOnTheCard(t *testing.T) {
	for name, cfg := range cardConfigs() {
		t.Run(name, func(t *testing.T) {
			optest.Card(t)
			const batch, seq, steps = 2, 9, 4
			reference, err := NewModel(cfg, 3)
			require.NoError(t, err)
			want := trainByHand(t, reference, batch, seq, steps)
			for _, resident := range []bool{false, true} {
				m, err := NewModel(cfg, 3)
				require.NoError(t, err)
				if resident {
					require.NoError(t, m.ToCard())
				}
				g, err := m.TrainingGraph(batch, seq, Fused)
				require.NoError(t, err)
				p := PlacementOf(g.Graph)
				require.Empty(t, p.Fallbacks(), "%v", p)
				opt, err := ops.NewAdamW(ops.AdamWConfig{LR: 0.01, Clip: 1, WeightDecay: 0.1, NoDecay: m.isVector})
				require.NoError(t, err)
				for step := range steps {
					loss, err := g.Run(cardIDs(cfg, batch*seq, step), cardIDs(cfg, batch*seq, step+1))
					require.NoError(t, err)
					require.InDelta(t, want[step], loss, 2e-5*want[step], "step %d", step)
					require.NoError(t, opt.Step(g.ValueGrads()))
					require.Equal(t, resident, opt.OnCard())
				}
				require.NoError(t, g.Close())
				if resident {
					require.True(t, m.OnCard())
					require.NoError(t, m.FromCard())
				}
				for i, w := range reference.params {
					got, want := optest.Values(t, m.params[i].Value), optest.Values(t, w.Value)
					optest.Close(t, w.Name, got, want, 1e-4)
				}
			}
		})
	}
}

// trainByHand trains on the CPU and returns the losses.
func trainByHand(t *testing.T, m *Model, batch, seq, steps int) (losses []float64) {
	t.Helper()
	g, err := m.TrainingGraph(batch, seq, Fused)
	require.NoError(t, err)
	defer g.Close()
	opt, err := ops.NewAdamW(ops.AdamWConfig{LR: 0.01, Clip: 1, WeightDecay: 0.1, NoDecay: m.isVector})
	require.NoError(t, err)
	for step := range steps {
		in := feed{tokens: cardIDs(m.cfg, batch*seq, step), targets: cardIDs(m.cfg, batch*seq, step+1), step: step}
		require.NoError(t, g.t.let(in))
		values := onCPU(t, g.Graph)
		loss, err := scalarOf(values[g.Loss])
		require.NoError(t, err)
		losses = append(losses, loss)
		grads := make([]G.ValueGrad, len(g.Params))
		for i, p := range m.params {
			grads[i] = &paramGrad{name: p.Name, value: p.Value, grad: values[g.Grads[i]]}
		}
		require.NoError(t, opt.Step(grads))
	}
	return losses
}

// Loss, logits and gradients of a run are valid until the next one, also where some of them are nodes of the CPU, as Plain ones are.
func TestResultsStayOnTheCard(t *testing.T) {
	for name, nodes := range map[string]Nodes{"llama": Fused, "gpt2": Plain} {
		t.Run(nodes.String(), func(t *testing.T) {
			optest.Card(t)
			cfg := cardConfigs()[name]
			m, err := NewModel(cfg, 3)
			require.NoError(t, err)
			g, err := m.TrainingGraph(1, 7, nodes)
			require.NoError(t, err)
			defer g.Close()
			ids := cardIDs(cfg, 7, 0)
			_, err = g.Run(ids, ids)
			require.NoError(t, err)
			results := append(G.Nodes{g.Logits}, g.Grads...)
			var got [][]float64
			for _, n := range results {
				got = append(got, optest.Values(t, n.Value()))
			}
			require.NoError(t, g.t.let(feed{tokens: ids, targets: ids}))
			values := onCPU(t, g.Graph)
			for i, n := range results {
				want := optest.Values(t, values[n])
				optest.Close(t, n.Name(), got[i], want, 1e-5*(magnitude(want)+1e-3))
			}
		})
	}
}

// Prefill on the card: the logits belong to the caller, and a model whose weights lie there copies the tokens alone.
func TestPrefillOnTheCard(t *testing.T) {
	for name, cfg := range cardConfigs() {
		t.Run(name, func(t *testing.T) {
			optest.Card(t)
			m, err := NewModel(cfg, 3)
			require.NoError(t, err)
			require.NoError(t, m.ToCard())
			g, err := m.PrefillGraph(2, 9, Fused)
			require.NoError(t, err)
			require.ErrorContains(t, m.FromCard(), "got 1 open graphs")
			p := PlacementOf(g.Graph)
			require.Empty(t, p.Fallbacks(), "%v", p)
			require.Equal(t, m.Bytes(), p.Resident)
			for _, c := range p.ToCard {
				require.LessOrEqual(t, c.Bytes, int64(8*2*9), "%v is copied on every run", c.Name)
			}
			require.Empty(t, p.ToHost)
			ids := cardIDs(cfg, 18, 1)
			got, err := g.Run(ids, 0)
			require.NoError(t, err)
			if path := os.Getenv(cudamodules.LibraryVar); filepath.IsAbs(path) { // the emulated card, which counts
				before, _ := emulator.Copied(path)
				got, err = g.Run(ids, 0)
				require.NoError(t, err)
				after, _ := emulator.Copied(path)
				var foreseen int64
				for _, c := range p.ToCard {
					foreseen += c.Bytes
				}
				require.Equal(t, foreseen, after-before, "bytes copied by the second run")
			}
			first := optest.Values(t, got)
			require.NoError(t, g.t.let(feed{tokens: ids}))
			optest.Close(t, "logits", first, optest.Values(t, onCPU(t, g.Graph)[g.Logits]), 1e-5)

			// What the host writes is seen by the next run, on the card.
			m.params[len(m.params)-1].Value.Data().([]float32)[0] += 1
			again, err := g.Run(ids, 0)
			require.NoError(t, err)
			require.Equal(t, first, optest.Values(t, got), "the logits are the caller's")
			require.NotEqual(t, first, optest.Values(t, again))
			require.NoError(t, g.Close())
			require.NoError(t, m.FromCard())
			require.False(t, m.OnCard())
		})
	}
}

// Training as a whole on the card: checkpoints are written from there and read into it, and a resumed training goes on with the same
// bits.
func TestTrainAndResumeOnTheCard(t *testing.T) {
	optest.Card(t)
	cfg := Llama(17, 1, 16, 2, 1, 12)
	data := cardIDs(cfg, 200, 1)
	file := filepath.Join(t.TempDir(), "c.safetensors")
	train := func(steps int, checkpoint string, moved bool) *Model {
		m, err := NewModel(cfg, 3)
		require.NoError(t, err)
		memory := m.params[0].Value.Data().([]float32)
		if moved {
			require.NoError(t, m.ToCard())
		}
		_, err = Train(context.Background(), m, data, TrainConfig{Steps: steps, Batch: 2, Seq: 8, Checkpoint: checkpoint, Resume: checkpoint != "",
			Optimizer: ops.AdamWConfig{LR: 0.01, Clip: 1}, OnStep: func(Step) error {
				require.True(t, m.OnCard())
				return nil
			}})
		require.NoError(t, err)
		require.Equal(t, moved, m.OnCard())
		require.NoError(t, m.FromCard())
		require.Same(t, &memory[0], &m.params[0].Value.Data().([]float32)[0], "the weights are back where they were")
		return m
	}
	want := train(4, "", true)
	train(2, file, false)
	got := train(4, file, false)
	for i, p := range want.params {
		require.Equal(t, p.Value.Data(), got.params[i].Value.Data(), p.Name)
	}
}

// Token by token, through caches, come the logits of the whole sequence.
func TestSessionOnTheCard(t *testing.T) {
	for name, cfg := range cardConfigs() {
		t.Run(name, func(t *testing.T) {
			optest.Card(t)
			m, err := NewModel(cfg, 3)
			require.NoError(t, err)
			require.NoError(t, m.ToCard())
			ids := cardIDs(cfg, 6, 1)
			g, err := m.PrefillGraph(1, len(ids), Fused)
			require.NoError(t, err)
			all, err := g.Run(ids, 0)
			require.NoError(t, err)
			require.NoError(t, g.Close())
			want := optest.Values(t, all)
			for _, nodes := range []Nodes{Fused, Plain} {
				if nodes == Plain && name != "gpt2" {
					continue
				}
				s, err := m.NewSession(SessionConfig{Nodes: nodes})
				require.NoError(t, err)
				for at, n := 0, 3; at < len(ids); at, n = at+n, 1 {
					logits, err := s.Feed(ids[at : at+n])
					require.NoError(t, err)
					optest.Close(t, "logits", logits, want[(at+n-1)*cfg.Vocab:(at+n)*cfg.Vocab], 1e-5)
				}
				require.NoError(t, s.Close())
			}
			require.NoError(t, m.FromCard())
		})
	}
}

// A node without a kernel runs on the CPU, between two copies, and the report names all three.
func TestFallbacksOnTheCard(t *testing.T) {
	g := G.NewGraph()
	x := G.NewMatrix(g, G.Float32, G.WithName("x"), G.WithShape(3, 4))
	y, err := ops.RMSNorm(x, nil, ops.RMSNormConfig{})
	require.NoError(t, err)
	half := G.Must(G.Slice(y, nil, G.S(0, 2)))
	_, err = ops.GELU(half, ops.GELUConfig{})
	require.NoError(t, err)
	p := PlacementOf(g)
	require.Len(t, p.Nodes, 4) // a slice for each dimension
	require.Len(t, p.Fallbacks(), 2)
	require.EqualValues(t, 3*2*4, p.Fallbacks()[1].Bytes)
	require.Equal(t, []Transfer{{"ops.RMSNorm", 3 * 4 * 4}}, p.ToHost)
	require.Len(t, p.ToCard, 2)
	require.Equal(t, Transfer{"x", 3 * 4 * 4}, p.ToCard[0])
	require.EqualValues(t, 3*2*4, p.ToCard[1].Bytes)
}
