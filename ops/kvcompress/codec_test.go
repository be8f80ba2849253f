package kvcompress_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/kvcompress"
)

// Values are within half a step of what their codes stand for, the step being the range of a token, or of a channel over a group,
// divided by the number of steps between codes, with what FP16 adds when scale (2⁻¹⁰ of it) and minimum (2⁻¹⁰ of the largest) are
// rounded outwards. Without rotation, so that keys can be looked at channel by channel.
func TestCodesAreWithinHalfAStep(t *testing.T) {
	m := model{1, 2, 2, 16, 24}
	const n, group = 96, 32
	for _, ratio := range []int{4, 8} {
		for _, size := range []float32{1, 1e-6, 1e3} {
			_, k, v := m.tokens(1, n)
			for i := range k {
				k[i] *= size
			}
			for i := range v {
				v[i] *= size
			}
			c, err := kvcompress.Compress(k, v, n, m.shape(n+group), kvcompress.Config{Ratio: ratio, Recent: 32, GroupSize: group, Rotate: kvcompress.RotateNever})
			require.NoError(t, err)
			gk, gv := c.Decompress()
			check := func(what string, x, y []float32, at func(i int) int, count int) {
				low, high, worst, top := math.Inf(1), math.Inf(-1), 0.0, 0.0
				for i := range count {
					a := float64(x[at(i)])
					low, high, top = min(low, a), max(high, a), max(top, math.Abs(a))
					worst = max(worst, math.Abs(a-float64(y[at(i)])))
				}
				step := 2 * top / 254
				if ratio == 8 {
					step = (high - low + top*0x1p-10) / 15
				}
				bar := (step*(1+0x1p-10)+0x1p-24)/2 + top*0x1p-22
				require.LessOrEqual(t, worst, bar, what)
				require.Greater(t, worst, bar/8, "codes are no better than they can be: %s", what)
			}
			for h := range 2 {
				for g := 0; g < n-32; g += group {
					for d := range m.dk {
						check(fmt.Sprint("k ", ratio, size, h, g, d), k, gk, func(i int) int { return ((g+i)*2+h)*m.dk + d }, group)
					}
				}
				for i := range n - 32 {
					check(fmt.Sprint("v ", ratio, size, h, i), v, gv, func(d int) int { return (i*2+h)*m.dv + d }, m.dv)
				}
			}
			require.Equal(t, k[(n-32)*2*m.dk:], gk[(n-32)*2*m.dk:], "recent keys are exact")
			require.Equal(t, v[(n-32)*2*m.dv:], gv[(n-32)*2*m.dv:], "recent values are exact")
		}
	}
}

// TestZerosOfBothSigns: what is coded does not depend on the order in which a machine compares, and so on the signs of zeros.
func TestZerosOfBothSigns(t *testing.T) {
	m := model{1, 1, 1, 24, 40}
	const n, coded = 64, 48
	path := filepath.Join(t.TempDir(), "cache")
	file := func(sign func(i int) float64) []byte {
		zeros := func(width int) []float32 {
			x := make([]float32, n*width)
			for i := range coded * width {
				x[i] = float32(math.Copysign(0, sign(i)))
			}
			return x
		}
		c, err := kvcompress.Compress(zeros(m.dk), zeros(m.dv), n, m.shape(n), kvcompress.Config{Ratio: 8, Recent: 16, GroupSize: 16, Rotate: kvcompress.RotateNever})
		require.NoError(t, err)
		require.NoError(t, c.Save(path))
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return data
	}
	want := file(func(int) float64 { return 1 })
	for seed := range uint64(3) {
		signs := optest.Normal[float64](seed, coded*m.dv, 1)
		require.True(t, bytes.Equal(want, file(func(i int) float64 { return signs[i] })))
	}
	require.True(t, bytes.Equal(want, file(func(int) float64 { return -1 })))
}

// Rotation spreads what is large in a token over all channels, so that scattered outliers no longer cost every channel its fine steps.
func TestRotationHelpsOutliers(t *testing.T) {
	m := model{1, 1, 1, 64, 16}
	const n = 256
	loss := func(r kvcompress.Rotation, k, v []float32) (sum float64) {
		c, err := kvcompress.Compress(k, v, n, m.shape(n), kvcompress.Config{Ratio: 8, Recent: 64, Rotate: r})
		require.NoError(t, err)
		got, _ := c.Decompress()
		for i := range got {
			sum += math.Pow(float64(got[i]-k[i]), 2)
		}
		return sum
	}
	k, v := optest.Normal[float32](1, n*64, 1), optest.Normal[float32](2, n*16, 1)
	for i := 7; i < len(k); i += 61 { // about one in each token, and in each channel of a group
		k[i] *= 30
	}
	require.Less(t, 3*loss(kvcompress.RotateAlways, k, v), loss(kvcompress.RotateNever, k, v))
}

// Bytes is what MemorySavings says, at every length, and what the heap holds. The bars are those of issue 3.
func TestMemory(t *testing.T) {
	m := model{2, 3, 3, 16, 20}
	for name, cfg := range schemes {
		c := m.new(t, 300, cfg)
		_, k, v := m.tokens(1, 1)
		for n := 1; n <= 300; n++ {
			require.NoError(t, c.Append(k, v, 1))
			s, err := kvcompress.MemorySavings(n, m.shape(300), cfg)
			require.NoError(t, err)
			require.Equal(t, s.Bytes, c.Bytes(), "%s at %d", name, n)
		}
	}
	gpt2 := kvcompress.Shape{Batch: 1, KVHeads: 12, HeadDim: 64, Capacity: 4096}
	for _, bar := range []struct {
		cfg   kvcompress.Config
		ratio float64
	}{
		{kvcompress.Config{Ratio: 2, Recent: 128}, 1.9},
		{kvcompress.Config{Ratio: 4, Recent: 128}, 3.5},
		{kvcompress.Config{Ratio: 4, Recent: 128, RecentFP16: true}, 3.75},
		{kvcompress.Config{Ratio: 8, Recent: 128, RecentFP16: true}, 6.5},
	} {
		s, err := kvcompress.MemorySavings(4096, gpt2, bar.cfg)
		require.NoError(t, err)
		t.Logf("%+v: %.3f", bar.cfg, s.Ratio)
		require.GreaterOrEqual(t, s.Ratio, bar.ratio, "%+v", bar.cfg)
		k := optest.Normal[float32](1, 4096*12*64, 1)
		before := heap()
		c, err := kvcompress.Compress(k, k, 4096, gpt2, bar.cfg)
		require.NoError(t, err)
		held := heap() - before
		require.Equal(t, s.Bytes, c.Bytes())
		// The heap rounds each of a few slices up to 8 KiB; pages and their lists are a few dozen words.
		require.InDelta(t, float64(c.Bytes()), float64(held), 0.02*float64(c.Bytes()), "%+v", bar.cfg)
		runtime.KeepAlive(c)
		runtime.KeepAlive(k)
	}
}

func heap() int64 {
	var s runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestSaveAndRestore(t *testing.T) {
	m := model{2, 2, 1, 24, 16}
	for name, cfg := range schemes {
		if name == "int4 window" {
			cfg.Window = 60
		}
		cfg.Model = "test"
		path := filepath.Join(t.TempDir(), "cache")
		c := m.new(t, 200, cfg)
		_, k, v := m.tokens(1, 150)
		require.NoError(t, c.AppendSome(k, v, 150, []int{150, 2}))
		require.NoError(t, c.Save(path))
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing is left aside")

		r := m.new(t, 200, cfg)
		require.NoError(t, r.Restore(path))
		_, k2, v2 := m.tokens(2, 40) // both go on, and stay the same
		for _, x := range []*kvcompress.Compressed{c, r} {
			require.NoError(t, x.Append(k2, v2, 40))
		}
		wk, wv := c.Decompress()
		gk, gv := r.Decompress()
		require.Equal(t, wk, gk, name)
		require.Equal(t, wv, gv, name)

		// Anything else is refused, and changes nothing.
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		refused := func(want string, x *kvcompress.Compressed, data []byte) {
			require.NoError(t, os.WriteFile(path, data, 0o600))
			bk, bv := x.Decompress()
			require.ErrorContains(t, x.Restore(path), want)
			ak, av := x.Decompress()
			require.Equal(t, bk, ak)
			require.Equal(t, bv, av)
		}
		for _, i := range []int{8, 12, 40, len(data) / 2, len(data) - 40, len(data) - 1} {
			bad := append([]byte(nil), data...)
			bad[i] ^= 4
			refused("damaged", r, bad)
		}
		refused("want a saved cache", r, append([]byte("x"), data...))
		refused("want a saved cache", r, data[:20])
		refused("damaged", r, data[:len(data)-1])
		refused("damaged", r, append(append([]byte(nil), data...), 0))
		other := cfg
		other.Model = "other"
		refused(`got a cache of model "test", want "other"`, m.new(t, 200, other), data)
		other = cfg
		other.Recent += 16
		refused("got a cache with {Ratio:", m.new(t, 200, other), data)
		refused("of shape", model{1, 2, 1, 24, 16}.new(t, 200, cfg), data)
		refused("of shape", m.new(t, 201, cfg), data)
	}
	c := m.new(t, 200, schemes["int8"])
	require.ErrorContains(t, c.Restore(filepath.Join(t.TempDir(), "none")), "kvcompress: Restore: ")
	require.ErrorContains(t, c.Save(filepath.Join(t.TempDir(), "no", "where")), "kvcompress: Save: ")
}

// A file with a right checksum may still say what no cache says: here that pages are dropped which are not full.
func TestRestoreRefusesAHalfPageDropped(t *testing.T) {
	m := model{1, 1, 1, 16, 16}
	cfg := kvcompress.Config{Ratio: 8, Recent: 16, GroupSize: 16, Window: 16}
	c := m.new(t, 80, cfg)
	_, k, v := m.tokens(1, 20)
	require.NoError(t, c.Append(k, v, 20)) // 4 tokens are coded
	path := filepath.Join(t.TempDir(), "cache")
	require.NoError(t, c.Save(path))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	const page = 16*16/2*2 + 2*(2*16+2*16) // codes of keys and values, their scales and minima
	const from, to = `"Coded":4,"Dropped":0`, `"Coded":4,"Dropped":1`
	require.Contains(t, string(data), from)
	data = bytes.Replace(data[:len(data)-sha256.Size], []byte(from), []byte(to), 1)
	data = data[:len(data)-page]
	sum := sha256.Sum256(data)
	require.NoError(t, os.WriteFile(path, append(data, sum[:]...), 0o600))
	require.ErrorContains(t, c.Restore(path), "1 pages dropped, which no cache")
	require.NoError(t, c.Append(k, v, 20))
}

func TestConfigErrors(t *testing.T) {
	shape := kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 59, Capacity: 10}
	for want, cfg := range map[string]kvcompress.Config{
		"Config.Ratio: got 3, want 1, 2, 4 or 8":          {Ratio: 3},
		"Config.Recent: got -1":                           {Ratio: 4, Recent: -1},
		"Config.SinkTokens: got -1":                       {Ratio: 4, SinkTokens: -1},
		"Config.GroupSize: got 17, want a multiple of 16": {Ratio: 4, GroupSize: 17},
		"Config.Rotate: got 3":                            {Ratio: 4, Rotate: 3},
		"got RotateAlways with HeadDim 59, want a mult":   {Ratio: 4, Rotate: kvcompress.RotateAlways},
		"Config.Window: got -1":                           {Ratio: 4, Window: -1},
		"Config.Window: got 5 with Ratio 1":               {Window: 5},
	} {
		_, err := kvcompress.New(shape, cfg)
		require.ErrorContains(t, err, "kvcompress: ")
		require.ErrorContains(t, err, want)
		_, err = kvcompress.MemorySavings(5, shape, cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := kvcompress.New(kvcompress.Shape{}, kvcompress.Config{})
	require.ErrorContains(t, err, "Shape.Batch")
	c, err := kvcompress.New(shape, kvcompress.Config{})
	require.NoError(t, err)
	require.IsType(t, &kvcompress.Plain{}, c, "the zero Config loses nothing")
	_, err = kvcompress.NewCompressed(shape, kvcompress.Config{})
	require.ErrorContains(t, err, "Config.Ratio: got 1, want 2, 4 or 8")
	_, err = kvcompress.MemorySavings(11, shape, kvcompress.Config{Ratio: 4})
	require.ErrorContains(t, err, "got 11 tokens, want 1 to the capacity 10")

	x, err := kvcompress.NewCompressed(shape, kvcompress.Config{Ratio: 8})
	require.NoError(t, err)
	require.Equal(t, kvcompress.RotateNever, x.Config().Rotate, "59 channels are not rotated")
	k := make([]float32, 59)
	for _, bad := range []float32{70000, -70000, float32(math.NaN()), float32(math.Inf(1))} {
		k[3] = bad
		require.ErrorContains(t, x.Append(k, make([]float32, 59), 1), "k: got ")
		require.ErrorContains(t, x.Append(make([]float32, 59), k, 1), "want numbers of at most 65504, which FP16 holds")
		require.Zero(t, x.Len())
	}
}

// FakeQuantizeKV gives what a cache stands for, and hands gradients on as they are.
func TestFakeQuantizeKV(t *testing.T) {
	m := model{2, 2, 2, 16, 20}
	const n = 90
	for name, cfg := range schemes {
		_, k, v := m.tokens(1, n)
		c, err := kvcompress.Compress(k, v, n, m.shape(n), cfg)
		require.NoError(t, err)
		wantK, wantV := c.Decompress()
		for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
			in := []optest.Input{
				{Name: "k", Shape: []int{m.batch, n, m.kvHeads, m.dk}, Data: optest.Float64s(k)},
				{Name: "v", Shape: []int{m.batch, n, m.kvHeads, m.dv}, Data: optest.Float64s(v)},
			}
			g := optest.Graph{Inputs: in, Build: func(in []*G.Node) (*G.Node, error) {
				fk, _, err := kvcompress.FakeQuantizeKV(in[0], in[1], cfg)
				return fk, err
			}}
			require.Equal(t, optest.Float64s(wantK), g.Run(t, dt), name)
			g.Build = func(in []*G.Node) (*G.Node, error) {
				_, fv, err := kvcompress.FakeQuantizeKV(in[0], in[1], cfg)
				return fv, err
			}
			require.Equal(t, optest.Float64s(wantV), g.Run(t, dt), name)
		}
		for machine, grads := range fakeGradients(t, m, n, k, v, cfg) {
			for i := range grads {
				for j, x := range grads[i] {
					require.Equal(t, float64(j%5), x, "%s on %s", name, machine)
				}
			}
		}
	}
}

// fakeGradients are the gradients of Σ (j mod 5)·fake_j of keys and values on both machines.
func fakeGradients(t *testing.T, m model, n int, k, v []float32, cfg kvcompress.Config) map[string][2][]float64 {
	out := map[string][2][]float64{}
	for _, machine := range []string{"tape", "lisp"} {
		g := G.NewGraph()
		node := func(name string, x []float64, dim int) *G.Node {
			value := tensor.New(tensor.WithShape(m.batch, n, m.kvHeads, dim), tensor.WithBacking(x))
			return G.NewTensor(g, tensor.Float64, 4, G.WithName(name), G.WithShape(value.Shape()...), G.WithValue(value))
		}
		nk, nv := node("k", optest.Float64s(k), m.dk), node("v", optest.Float64s(v), m.dv)
		fk, fv, err := kvcompress.FakeQuantizeKV(nk, nv, cfg)
		require.NoError(t, err)
		weights := func(name string, dim int) *G.Node {
			w := make([]float64, m.batch*n*m.kvHeads*dim)
			for i := range w {
				w[i] = float64(i % 5)
			}
			return node(name, w, dim)
		}
		loss := G.Must(G.Add(
			G.Must(G.Sum(G.Must(G.HadamardProd(fk, weights("wk", m.dk))))), G.Must(G.Sum(G.Must(G.HadamardProd(fv, weights("wv", m.dv)))))))
		var grads [2]G.Value
		if machine == "tape" {
			nodes, err := G.Grad(loss, nk, nv)
			require.NoError(t, err)
			for i := range nodes {
				G.Read(nodes[i], &grads[i])
			}
			vm := G.NewTapeMachine(g)
			require.NoError(t, vm.RunAll())
			vm.Close()
		} else {
			vm := G.NewLispMachine(g)
			require.NoError(t, vm.RunAll())
			for i, x := range []*G.Node{nk, nv} {
				grads[i], err = x.Grad()
				require.NoError(t, err)
			}
			vm.Close()
		}
		out[machine] = [2][]float64{optest.Values(t, grads[0]), optest.Values(t, grads[1])}
	}
	return out
}
