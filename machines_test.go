package stheno

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// suppressed are data races that are Gorgonia's own: a machine binds each result to the graph's node, so two machines on
// one graph write the same field. The race detector is told of that function and of nothing else.
const suppressed = "race:gorgonia.org/gorgonia.(*Node).bind\n"

const childEnv = "STHENO_TEST_MACHINES"

// TestTwoMachinesOnOneGraph trains one graph in two machines at once: no op may keep what belongs to a run.
func TestTwoMachinesOnOneGraph(t *testing.T) {
	if raceEnabled && os.Getenv(childEnv) == "" {
		file := filepath.Join(t.TempDir(), "suppressions")
		require.NoError(t, os.WriteFile(file, []byte(suppressed), 0o600))
		cmd := exec.Command(os.Args[0], "-test.run=^TestTwoMachinesOnOneGraph$", "-test.v")
		cmd.Env = append(os.Environ(), childEnv+"=1", "GORACE=suppressions="+file)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestTwoMachinesOnOneGraph")
		return
	}
	cfg := Llama(17, 2, 16, 4, 2, 12)
	cfg.Sinks, cfg.Softcap, cfg.Window, cfg.Dropout = true, 20, 7, 0.2
	m, err := NewModel(cfg, 3)
	require.NoError(t, err)
	const batch, seq, runs = 2, 12, 25
	g, err := m.TrainingGraph(batch, seq, Fused)
	require.NoError(t, err)
	defer g.Close()
	ids := make([]int, batch*seq)
	for i := range ids {
		ids[i] = (i*i + 3) % cfg.Vocab
	}
	_, err = g.Run(ids, ids)
	require.NoError(t, err)
	want := gradients(t, g.Grads)

	machines := []G.VM{G.NewTapeMachine(g.Graph), G.NewTapeMachine(g.Graph)}
	for range runs {
		var wg sync.WaitGroup
		for _, vm := range machines {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := vm.RunAll(); err != nil {
					t.Error(err)
				}
				vm.Reset()
			}()
		}
		wg.Wait()
		// Either machine may have bound a node last; both must have computed the same.
		require.Equal(t, want, gradients(t, g.Grads))
	}
	for _, vm := range machines {
		require.NoError(t, vm.Close())
	}
}

func gradients(t *testing.T, nodes G.Nodes) [][]float32 {
	t.Helper()
	var out [][]float32
	for _, n := range nodes {
		d, ok := n.Value().(*tensor.Dense)
		require.True(t, ok, "%v", n)
		out = append(out, append([]float32(nil), d.Data().([]float32)...))
	}
	return out
}
