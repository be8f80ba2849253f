//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/ops/quantize"
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
	"act": {1, func(s *emulator.Session) (any, error) {
		sum := make([]float32, 40)
		err := s.Run("act", "column_sum_f32", cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{256}},
			emulator.Out{sum}, emulator.In{random[float32](1, 30*40)}, int64(30), int64(40))
		return sum, err
	}},
	"tokens": {8, func(s *emulator.Session) (any, error) {
		const rows, vocab = 3, 300
		z, targets := random[float32](1, rows*vocab), []int64{5, 200, 7}
		losses, stats, total, d := make([]float64, rows), make([]float32, 2*rows), make([]float32, 1), make([]float32, rows*vocab)
		one := cudamodules.Geometry{Block: [3]int{256}}
		var r, v int64 = rows, vocab
		var none int64
		if err := s.Run("tokens", "cross_entropy_f32", one, emulator.Out{losses}, emulator.Out{stats}, emulator.In{z}, emulator.In{targets},
			int64(8), r, v, none, none, 0.1, 0.0); err != nil {
			return nil, err
		}
		// Two sums over more rows than a warp has lanes.
		many, same := random[float64](2, 300), make([]int64, 300)
		for i := range same {
			same[i] = int64(i % 3)
		}
		if err := s.Run("tokens", "cross_entropy_total_f32", one, emulator.Out{total}, emulator.In{many}, emulator.In{same}, int64(8),
			int64(300), int64(1), int64(2), int64(1)); err != nil {
			return nil, err
		}
		z, stats = random[float32](3, 300*2), make([]float32, 600)
		for i := range stats {
			stats[i] = 1
		}
		d = make([]float32, 600)
		err := s.Run("tokens", "cross_entropy_grad_f32", one, emulator.Out{d}, emulator.In{z}, emulator.In{stats}, emulator.In{[]float32{1}},
			emulator.In{same}, int64(8), int64(300), int64(2), int64(1), int64(2), int64(1), 0.0, 0.0)
		if err != nil {
			return nil, err
		}
		// In one block, ids that are new and ids that were there by turns: what a fast warp finds for the next must not reach a slow one.
		const n, columns = 200, 130
		ids, dy, table := make([]int64, n), random[float32](4, n*columns), make([]float32, n/2*columns)
		for i := range ids {
			if ids[i] = int64(i / 2); i%2 == 1 {
				ids[i] = int64(7 * i % (i/2 + 1))
			}
		}
		err = s.Run("tokens", "embedding_grad_f32", cudamodules.Geometry{Block: [3]int{128}}, emulator.InOut{table}, emulator.In{dy}, emulator.In{ids},
			int64(8), int64(n/2), int64(columns), int64(n), int64(-1))
		return []any{losses, stats, total, d, table}, err
	}},
	"matmul": {5, func(s *emulator.Session) (any, error) {
		const m, n, k = 20, 70, 40
		c, wide := make([]float32, m*n), make([]float64, m*n)
		sizes := []any{int64(m), int64(n), int64(k), int64(k), int64(1), int64(n), int64(1), int64(n), int64(1), int64(0), int64(0), int64(0), 1.0, 0.0}
		err := s.Run("matmul", "gemm_f32", cudamodules.ProductGeometry(4, m, n, 1),
			append([]any{emulator.Out{c}, emulator.In{random[float32](1, m*k)}, emulator.In{random[float32](2, k*n)}}, sizes...)...)
		if err != nil {
			return nil, err
		}
		err = s.Run("matmul", "gemm_f64", cudamodules.ProductGeometry(8, m, n, 1),
			append([]any{emulator.Out{wide}, emulator.In{random[float64](1, m*k)}, emulator.In{random[float64](2, k*n)}}, sizes...)...)
		if err != nil {
			return nil, err
		}
		row := make([]float32, n)
		err = s.Run("matmul", "gemm_row_f32", cudamodules.RowGeometry(1, n), emulator.Out{row}, emulator.In{random[float32](1, k)},
			emulator.In{random[float32](2, k*n)}, int64(1), int64(n), int64(k), int64(k), int64(1), int64(n), int64(1), int64(n), int64(1), 1.0, 0.0)
		return []any{c, wide, row}, err
	}},
	"quantized": {9, func(s *emulator.Session) (any, error) {
		const rows, k, n = 20, 170, 70
		p, err := quantize.Quantize(tensor.New(tensor.WithShape(k, n), tensor.WithBacking(random[float32](1, k*n))), quantize.Config{Scheme: quantize.INT8})
		if err != nil {
			return nil, err
		}
		matrix, sizes := packedCase{p: p}.params()
		x, y, wide := random[float32](2, rows*k), make([]float32, rows*n), make([]float64, rows*n)
		var out []any
		run := func(kernel string, g cudamodules.Geometry, head, more []any) {
			if err == nil {
				err = s.Run("quantized", kernel, g, join(head, matrix, []any{int64(rows)}, sizes, more)...)
				out = append(out, fmt.Sprint(y), fmt.Sprint(wide))
			}
		}
		run("quantized_int8_f32", cudamodules.ProductGeometry(4, rows, n, 1), []any{emulator.Out{y}, emulator.In{x}}, nil)
		run("quantized_int8_f64", cudamodules.ProductGeometry(8, rows, n, 1), []any{emulator.Out{wide}, emulator.In{random[float64](2, rows*k)}}, nil)
		row := cudamodules.Geometry{Grid: [3]int{(n + 15) / 16, (rows + 3) / 4}, Block: [3]int{256}}
		run("quantized_row_int8_f32", row, []any{emulator.Out{y}, emulator.In{x}}, nil)
		const pitch = (k + 63) / 64 * 64
		q, sx := make([]int8, rows*pitch), make([]float32, rows)
		if err == nil {
			err = s.Run("quantized", "round_rows_f32", cudamodules.Geometry{Block: [3]int{256}}, emulator.Out{q}, emulator.Out{sx}, emulator.In{x},
				int64(rows), int64(k), int64(pitch), 0.0)
			out = append(out, q, sx)
		}
		g := cudamodules.Geometry{Grid: [3]int{1, 1}, Block: [3]int{256}}
		run("rounded_int8_f32", g, []any{emulator.Out{y}, emulator.In{q}, emulator.In{sx}}, []any{int64(pitch)})
		return out, err
	}},
	"elements": {1, func(s *emulator.Session) (any, error) {
		parts := make([]float64, 1)
		err := s.Run("elements", "squares_f32", cudamodules.Geometry{Block: [3]int{256}}, emulator.Out{parts}, emulator.In{random[float32](1, 3000)}, int64(3000))
		return parts, err
	}},
	"attention_grad": {4, func(s *emulator.Session) (any, error) {
		const n, d = 100, 8
		q, k, v, dOut := random[float32](1, n*d), random[float32](2, n*d), random[float32](3, n*d), random[float32](4, n*d)
		stats, delta := make([]float32, 2*n), random[float32](5, n)
		for i := range n {
			stats[n+i] = n // largest logits of 0
		}
		dQ, dK, dV := make([]float32, n*d), make([]float32, n*d), make([]float32, n*d)
		params := []any{emulator.In{dOut}, emulator.In{stats}, emulator.In{delta}, emulator.In{q}, emulator.In{k}, emulator.In{v}, nil, nil,
			int64(0), int64(0), int64(1), int64(n), int64(n), int64(1), int64(1), int64(d), int64(d), int64(n), int64(n), 0.1, 0.0}
		g := cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{128}, Shared: 4 * 96 * 2 * pitch(d)}
		if err := s.Run("attention_grad", "attention_grad_rows_64_f32", g, append([]any{emulator.Out{dQ}}, params...)...); err != nil {
			return nil, err
		}
		err := s.Run("attention_grad", "attention_grad_keys_64_f32", g, append([]any{emulator.Out{dK}, emulator.Out{dV}}, params...)...)
		return []any{dQ, dK, dV}, err
	}},
	"narrow": {3, func(s *emulator.Session) (any, error) {
		const seq, d = 600, 70
		k, means := random[float32](1, seq*d), make([]float32, d)
		k[300*d+40] = float32(math.Inf(1))
		one := cudamodules.Geometry{Block: [3]int{256}}
		if err := s.Run("narrow", "narrow_means_f32", one, emulator.Out{means}, emulator.In{k}, int64(seq), int64(1), int64(d), nil, int64(0)); err != nil {
			return nil, err
		}
		k[d-1], k[2*d-1] = math.MaxFloat32, math.MaxFloat32
		none := make([]float32, d)
		err := s.Run("narrow", "narrow_means_f32", one, emulator.Out{none}, emulator.In{k}, int64(seq), int64(1), int64(d), nil, int64(0))
		return []any{means, none}, err
	}},
	"attention_narrow": {1, func(s *emulator.Session) (any, error) {
		n, err := attention{1, 130, 150, 1, 1, 8, 8, -1, -1, 0, false, false, false, false, 0}.prepare(s, false)
		if err != nil {
			return nil, err
		}
		out, lse, _, err := n.run(s)
		return []any{out, lse}, err
	}},
	"attention_narrow_grad": {2, func(s *emulator.Session) (any, error) {
		n, err := attention{1, 150, 150, 1, 1, 8, 8, -1, -1, 0, false, false, false, false, 0}.prepare(s, false)
		if err != nil {
			return nil, err
		}
		stats := make([]float32, 300)
		for i := range 150 {
			stats[150+i] = 150 // largest logits of 0
		}
		dQ, dK, dV, err := n.gradient(s, stats, random[float32](5, 150), random[float32](4, 150*8))
		return []any{dQ, dK, dV}, err
	}},
	"fake": {2, func(s *emulator.Session) (any, error) {
		const rows, n = 3, 300
		y := make([]float32, rows*n)
		err := s.Run("fake", "fake_rows_f32", cudamodules.Geometry{Block: [3]int{256}}, emulator.Out{y}, emulator.In{random[float32](1, rows*n)},
			int64(rows), int64(n))
		return y, err
	}},
	"kvcache": {8, func(s *emulator.Session) (any, error) {
		var out []any
		for i, c := range caches[:2] {
			if i == 1 {
				// Pages come first, and a warp takes rotated queries that others have scaled.
				c.cfg.SinkTokens, c.shape.HeadDim = 0, 48
			}
			card := newCardCache(c.shape, c.cfg, c.rotated)
			for j, seq := range []int{60, 5, 40} {
				seed, sh := uint64(10*j), c.shape
				q, k := random[float32](seed+1, sh.Batch*seq*c.heads*sh.HeadDim), random[float32](seed+2, sh.Batch*seq*sh.KVHeads*sh.HeadDim)
				v := random[float32](seed+3, sh.Batch*seq*sh.KVHeads*sh.ValueDim)
				y, err := card.step(s, q, k, v, seq, c.heads, []int{seq}, c.attend, nil)
				if err != nil {
					return nil, err
				}
				k, v = card.decompress()
				out = append(out, y, k, v)
			}
		}
		return out, nil
	}},
	"ground": {2, func(s *emulator.Session) (any, error) {
		const n = 20000
		w := random[float32](3, n)
		for i := range w {
			w[i] *= w[i]
		}
		loss, dz, err := runAlignment(s, random[float32](1, n), random[float32](2, n), w)
		return []any{loss, dz}, err
	}},
	"attention": {2, func(s *emulator.Session) (any, error) {
		c := attention{1, 64, 100, 1, 1, 8, 8, -1, -1, 0, false, false, false, false, 0}
		out, lse, _, err := c.run(s, c.data())
		return []any{out, lse}, err
	}},
}

// A kernel without one of its barriers gives other results in some schedule, or fails: so each of them is needed, and the
// emulator would see it missing.
func TestEachBarrierIsMissed(t *testing.T) {
	s := emulator.Open(t, emulator.Config{Modules: cudamodules.Modules()}) // the emulated card, whatever there is
	defer s.RemoveBarrier(-1)
	for module, p := range probes {
		out, err := p.run(s)
		require.NoError(t, err)
		want := fmt.Sprint(out)
		for n := range p.barriers {
			s.RemoveBarrier(n)
			missed := false
			for seed := 0; seed < 6 && !missed; seed++ {
				s.Schedule(seed)
				out, err := p.run(s)
				missed = err != nil || fmt.Sprint(out) != want
			}
			require.True(t, missed, "%s: barrier %d", module, n)
		}
		s.RemoveBarrier(-1)
		s.Schedule(0)
	}
}

// Each source with barriers has a probe, which knows how many there are.
func TestEachModuleWithBarriersHasAProbe(t *testing.T) {
	for _, module := range cudamodules.Modules() {
		source, err := os.ReadFile("../src/" + module + ".cu")
		require.NoError(t, err)
		numbers := map[string]bool{}
		for _, m := range regexp.MustCompile(`BARRIER\((\d+)\)`).FindAllSubmatch(source, -1) {
			numbers[string(m[1])] = true
		}
		require.GreaterOrEqual(t, probes[module].barriers, len(numbers), module)
	}
}
