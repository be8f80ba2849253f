//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// probes are, for each module with barriers, how many there are and a run that uses all of them.
var probes = map[string]struct {
	barriers int
	run      func(s *emulator.Session) (any, error)
}{
	"norm": {9, func(s *emulator.Session) (any, error) {
		const rows, dim = 3, 300
		x, dy := random[float32](1, rows*dim), random[float32](2, rows*dim)
		y, dx, stats, dg := make([]float32, rows*dim), make([]float32, rows*dim), make([]float32, 2*rows), make([]float32, dim)
		one := cudamodules.Geometry{Block: [3]int{256}}
		var r, d int64 = rows, dim
		if err := s.Run("norm", "layernorm_f32", one, emulator.Out{y}, emulator.In{x}, nil, nil, r, d, 1e-5); err != nil {
			return nil, err
		}
		if err := s.Run("norm", "norm_grad_f32", one, emulator.Out{dx}, emulator.Out{stats}, emulator.In{x}, emulator.In{dy}, nil,
			r, d, 1e-5, int64(1)); err != nil {
			return nil, err
		}
		err := s.Run("norm", "norm_grad_gamma_f32", cudamodules.Geometry{Grid: [3]int{10}, Block: [3]int{256}},
			emulator.Out{dg}, emulator.Out{dg}, emulator.In{stats}, emulator.In{x}, emulator.In{dy}, r, d)
		return []any{y, dx, dg}, err
	}},
}

// A kernel without one of its barriers gives other results in some schedule, or fails: so each of them is needed, and the
// emulator would see it missing.
func TestEachBarrierIsMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a library for each barrier: not with -short")
	}
	for module, p := range probes {
		s := emulator.Open(t, emulator.Config{Modules: []string{module}})
		out, err := p.run(s)
		require.NoError(t, err)
		want := fmt.Sprint(out)
		for n := range p.barriers {
			s := emulator.Open(t, emulator.Config{Modules: []string{module}, Defines: []string{fmt.Sprintf("REMOVE_BARRIER=%d", n)}})
			missed := false
			for seed := range 6 {
				s.Schedule(seed)
				out, err := p.run(s)
				missed = missed || err != nil || fmt.Sprint(out) != want
			}
			require.True(t, missed, "%s: barrier %d", module, n)
		}
	}
}
