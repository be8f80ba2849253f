//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// runWarpgroups computes the problem with the kernels of attention_sm90a.
func (c attention) runWarpgroups(s *emulator.Session, in attentionData[float32]) (out, lse, stats []float32, err error) {
	side := func(n int) int {
		if n < 0 {
			return 1 << 40
		}
		return n
	}
	a := cudamodules.WarpgroupAttention{
		Batch: c.batch, SeqQ: c.seqQ, SeqKV: c.seqKV, Heads: c.heads, KVHeads: c.kvHeads, Dim: c.d, DimV: c.dv,
		Left: side(c.left), Right: side(c.right), Scale: 1 / math.Sqrt(float64(c.d)),
	}
	out = make([]float32, c.batch*c.seqQ*c.heads*c.dv)
	lse, stats = make([]float32, c.batch*c.heads*c.seqQ), make([]float32, 2*c.batch*c.heads*c.seqQ)
	scratch, err := s.Alloc(a.ScratchBytes())
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if e := s.Free(scratch); err == nil {
			err = e
		}
	}()
	var sinks any
	if in.sinks != nil {
		sinks = emulator.In{in.sinks}
	}
	err = a.Launch(s.Run, scratch, emulator.Out{out}, emulator.Out{lse}, emulator.Out{stats}, emulator.In{in.q}, emulator.In{in.k},
		emulator.In{in.v}, sinks)
	return
}

var warpgroupAttentions = []attention{
	{1, 1, 1, 1, 1, 1, 1, -1, -1, 0, false, false, false, false, 0},
	{1, 130, 300, 2, 1, 64, 64, -1, 0, 0, false, false, false, false, 0},
	{2, 59, 97, 2, 2, 59, 40, -1, -1, 0, true, false, false, false, 0},
	{1, 300, 300, 1, 1, 64, 64, 100, 0, 0, false, false, false, false, 0},
	{1, 150, 520, 1, 1, 111, 128, -1, 0, 0, false, false, false, false, 3}, // large logits
	{1, 200, 135, 2, 1, 128, 128, -1, 0, 0, true, false, false, false, 0},  // rows that see no key
	{1, 20, 700, 1, 1, 128, 70, 300, 50, 0, false, false, false, false, 0},
}

// randomAttention is a problem of any shape that the kernels take.
func randomAttention(r *rand.Rand) attention {
	kvHeads := 1 + r.IntN(2)
	return attention{batch: 1 + r.IntN(2), seqQ: 1 + r.IntN(300), seqKV: 1 + r.IntN(400), heads: kvHeads * (1 + r.IntN(2)), kvHeads: kvHeads,
		d: 1 + r.IntN(128), dv: 1 + r.IntN(128), left: r.IntN(400) - 100, right: r.IntN(100) - 50, sinks: r.IntN(3) == 0}
}

// The error against float64 is at most twice that of the same computation in float32 with weights rounded to BF16: here 2⁻⁹ of the largest
// value, the most that rounding of weights alone can do, twice.
func TestWarpgroupAttention(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	s.Capability(t, 90)
	cases := warpgroupAttentions
	if long() {
		r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
		for range 12 {
			cases = append(cases, randomAttention(r))
		}
	}
	for i, c := range cases {
		if testing.Short() && i%2 == 0 {
			continue
		}
		t.Run(c.name(), func(t *testing.T) {
			in := c.data()
			exact := in
			exact.q, exact.k, exact.v = rounded(in.q), rounded(in.k), rounded(in.v)
			out, lse, high, sums := plainAttention[float64](c, exact)
			_, plainLSE, _, _ := plainAttention[float32](c, exact)
			var most float64
			for _, v := range exact.v {
				most = max(most, math.Abs(float64(v)))
			}
			every(t, s, func() any {
				got, gotLSE, stats, err := c.runWarpgroups(s, in)
				require.NoError(t, err)
				require.LessOrEqual(t, worst(t, "out", got, out), 2*most*0x1p-9)
				bar := 2*worst(t, "plain lse", plainLSE, lse) + 4e-6
				require.LessOrEqual(t, worst(t, "lse", gotLSE, lse), bar)
				c.statistics(t, stats, high, sums, bar)
				return []any{got, gotLSE, stats}
			})
		})
	}
}

// warpgroupProbe is a run that passes through each step of the kernels: four tiles, more than there are slots.
func warpgroupProbe(s *emulator.Session) (any, error) {
	var all []any
	for _, c := range []attention{
		{1, 128, 500, 1, 1, 64, 64, -1, -1, 0, false, false, false, false, 0},
		{1, 70, 100, 1, 1, 64, 64, -1, -1, 0, false, false, false, false, 0},
	} {
		out, lse, _, err := c.runWarpgroups(s, c.data())
		if err != nil {
			return nil, err
		}
		all = append(all, out, lse)
	}
	return fmt.Sprint(all), nil
}

func wantProbe(t *testing.T) any {
	t.Helper()
	s := emulator.Open(t, onlyWarpgroups)
	defer s.Close()
	s.Capability(t, 90)
	want, err := warpgroupProbe(s)
	require.NoError(t, err)
	return want
}

func long() bool { return os.Getenv("STHENO_CHECK_CUDA") == "long" }

// missed says whether some schedule shows that the kernels of a build, without one step, are not those of want.
func missed(t *testing.T, cfg emulator.Config, removed int, want any) bool {
	t.Helper()
	s := emulator.Open(t, cfg)
	defer s.Close() // with an error, where a launch had one
	s.Capability(t, 90)
	s.RemoveBarrier(removed)
	defer s.RemoveBarrier(-1)
	defer s.Schedule(0)
	for seed := range 6 {
		s.Schedule(seed)
		if got, err := warpgroupProbe(s); err != nil || got != want {
			return true
		}
	}
	return false
}

// Each step of the kernels that orders what goes on at the same time is needed, and the emulator would see it missing.
func TestEachStepOfWarpgroupsIsMissed(t *testing.T) {
	want := wantProbe(t)
	require.False(t, missed(t, onlyWarpgroups, -1, want))
	for n := range 23 {
		require.True(t, missed(t, onlyWarpgroups, n, want), "step %d", n)
	}
}

var onlyWarpgroups = emulator.Config{Modules: []string{cudamodules.WarpgroupModule}}

// So are the sizes and places that a card would not complain about.
func TestWrongLayoutsOfWarpgroupsShow(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a library for each mistake: not with -short")
	}
	want := wantProbe(t)
	files := map[string]string{}
	for _, name := range []string{"common.cuh", "math.cuh", "mma.cuh", "narrow.cuh", "warpgroup.cuh", "attention_sm90a.cu"} {
		data, err := os.ReadFile(filepath.Join("../src", name))
		require.NoError(t, err)
		files[name] = string(data)
	}
	for i, m := range []struct{ file, from, to string }{
		{"warpgroup.cuh", "(u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62", "(u64)1 << 16 | (u64)(512 >> 4) << 32 | (u64)1 << 62"},
		{"warpgroup.cuh", "(u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62", "(u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)2 << 62"},
		{"warpgroup.cuh", "(u64)(next >> 4) << 16 | (u64)(1024 >> 4) << 32", "(u64)(1024 >> 4) << 16 | (u64)(next >> 4) << 32"},
		{"attention_sm90a.cu", "^ (r % 8 * 16)", "^ (r % 4 * 16)"},
		{"attention_sm90a.cu", "(shared_address(shared) + 1023) & ~1023u", "shared_address(shared)"},
		{"attention_sm90a.cu", "step * 16 * 128, tile_keys", "step * 8 * 128, tile_keys"},
		{"attention_sm90a.cu", "barrier_expect(m.bar(keys_full + slot), Memory::tile)", "barrier_arrive(m.bar(keys_full + slot))"},
		{"attention_sm90a.cu", "barrier_expect(m.bar(values_full + slot), Memory::tile)", "barrier_expect(m.bar(values_full + slot), Memory::tile / 2)"},
		{"attention_sm90a.cu", "STEP(16, products_wait<1>())", "STEP(16, products_wait<2>())"},
		{"attention_sm90a.cu", "barrier_init(m.bar(keys_free + s), 8)", "barrier_init(m.bar(keys_free + s), 7)"},
		{"attention_sm90a.cu", "registers_more<232>", "registers_more<240>"},
	} {
		if i%4 != 2 && !long() {
			continue
		}
		require.Equal(t, 1, strings.Count(files[m.file], m.from), m.from)
		dir := t.TempDir()
		for name, text := range files {
			if name == m.file {
				text = strings.Replace(text, m.from, m.to, 1)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		require.True(t, missed(t, emulator.Config{Source: dir}, -1, want), "%s for %s", m.to, m.from)
	}
}

// The check that decides on a card whether these kernels are used takes them when they are right. Without a step it ends as well, with the
// other answer, and leaves the card usable.
func TestCheckOfWarpgroups(t *testing.T) {
	t.Setenv(cudamodules.WarpgroupsVar, "check")
	log.SetOutput(io.Discard)
	defer log.SetOutput(os.Stderr)
	for _, removed := range []int{-1, 7, 16} {
		// A library of its own, as a driver keeps what the check has found.
		s := emulator.Open(t, emulator.Config{Modules: []string{cudamodules.WarpgroupModule}, Defines: []string{fmt.Sprintf("CHECKED=%d", removed)}})
		s.Capability(t, 90)
		s.Schedule(2)
		s.RemoveBarrier(removed)
		ok, why := s.Device().Warpgroups()
		require.Equal(t, removed < 0, ok, "%d: %s", removed, why)
		if ok {
			require.Contains(t, why, "it agrees with the host, within ")
		}
		s.RemoveBarrier(-1)
		out := make([]uint16, 128*64)
		require.NoError(t, s.Run(cudamodules.WarpgroupModule, "attention_pack_f32", elements(1024, 256), emulator.Out{out}, emulator.In{random[float32](1, 128*64)},
			int64(1), int64(128), int64(1), int64(64), int64(64), int64(64)))
	}
}
