//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/ops/quantize"
)

// packedCase is a matrix of weights as kernels take it, and the numbers that it stands for, k × n.
type packedCase struct {
	p      *quantize.Packed
	values []float64
}

func packed(t *testing.T, cfg quantize.Config, k, n int) packedCase {
	t.Helper()
	w := random[float32](7, k*n)
	for i := range w {
		w[i] += 0.3 // so that zero points of asymmetric codes are not in the middle
	}
	p, err := quantize.Quantize(tensor.New(tensor.WithShape(k, n), tensor.WithBacking(w)), cfg)
	require.NoError(t, err)
	d, err := p.Dequantize()
	require.NoError(t, err)
	return packedCase{p, wide(d.Data().([]float32))}
}

// params are codes, scales and zeros, and then k, n, group and many.
func (c packedCase) params() (matrix, sizes []any) {
	matrix = []any{emulator.In{c.p.Codes.Data()}, nil, nil}
	group, many := c.p.In, 1
	if c.p.Scales != nil {
		matrix[1] = emulator.In{c.p.Scales.Data()}
	}
	if c.p.Zeros != nil {
		matrix[2] = emulator.In{c.p.Zeros.Data()}
	}
	switch c.p.Config.Granularity {
	case quantize.PerGroup:
		group = c.p.Config.GroupSize
	case quantize.PerTensor:
		many = 0
	}
	return matrix, []any{int64(c.p.In), int64(c.p.Out), int64(group), int64(many)}
}

// scaleAndCode take code − zero of a number and its scale apart.
func (c packedCase) scaleAndCode(p, j int) (scale, code float64) {
	scales := c.p.Scales.Data().([]float32)
	scale = float64(scales[0])
	switch c.p.Config.Granularity {
	case quantize.PerChannel:
		scale = float64(scales[j])
	case quantize.PerGroup:
		scale = float64(scales[p/c.p.Config.GroupSize*c.p.Out+j])
	}
	return scale, math.Round(c.values[p*c.p.Out+j] / scale)
}

// product is s·Σ_groups scale·Σ q·(code − zero) of column j.
func (c packedCase) product(q []int8, s float64, j int) (y float64) {
	group := c.p.In
	if c.p.Config.Granularity == quantize.PerGroup {
		group = c.p.Config.GroupSize
	}
	for p0 := 0; p0 < c.p.In; p0 += group {
		var sum float64
		scale, _ := c.scaleAndCode(p0, j)
		for p := p0; p < min(p0+group, c.p.In); p++ {
			_, code := c.scaleAndCode(p, j)
			sum += float64(q[p]) * code
		}
		y += sum * scale * s
	}
	return y
}

func join(parts ...[]any) (all []any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

var packings = []quantize.Config{
	{Scheme: quantize.FP16},
	{Scheme: quantize.BF16},
	{Scheme: quantize.INT8},
	{Scheme: quantize.INT8, Granularity: quantize.PerGroup, GroupSize: 64, Asymmetric: true},
	{Scheme: quantize.INT4, Granularity: quantize.PerTensor, Asymmetric: true},
	{Scheme: quantize.INT4, Granularity: quantize.PerGroup, GroupSize: 32},
}

// rows, inputs and outputs: one of each, ends of words, panels and tiles, several tiles.
var quantizedSizes = [][3]int{{1, 1, 1}, {3, 70, 21}, {5, 33, 130}, {129, 100, 16}}

// Products with the numbers that codes stand for, and with their transposed, against plain sums in float64.
func TestQuantizedProducts(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for i, cfg := range packings {
		for j, size := range quantizedSizes {
			c := packed(t, cfg, size[1], size[2])
			if testing.Short() && (i+j)%3 != 0 {
				continue
			}
			testQuantized[float32](t, s, c, size[0])
			testQuantized[float64](t, s, c, size[0])
		}
	}
}

func testQuantized[T number](t *testing.T, s *emulator.Session, c packedCase, rows int) {
	k, n := c.p.In, c.p.Out
	matrix, sizes := c.params()
	name := c.p.Config.Scheme.String() + suffix[T]()
	var zero T
	x, dy := random[T](1, rows*k), random[T](2, rows*n)
	y, dx := make([]float64, rows*n), make([]float64, rows*k)
	for i := range rows {
		for p := range k {
			for j := range n {
				v := c.values[p*n+j]
				y[i*n+j] += float64(x[i*k+p]) * v
				dx[i*k+p] += float64(dy[i*n+j]) * v
			}
		}
	}
	run := func(kernel string, g cudamodules.Geometry, out, in []T, want []float64, terms int) {
		what := fmt.Sprintf("%s %v of %d rows, %d × %d", kernel, c.p.Config, rows, k, n)
		every(t, s, func() any {
			require.NoError(t, s.Run("quantized", kernel+name, g, join([]any{emulator.Out{out}, emulator.In{in}}, matrix, []any{int64(rows)}, sizes)...))
			// A rounding for each term, relative to sums of about √terms.
			near(t, out, want, float64(2*terms+4)*epsilon[T](), 2, what)
			return out
		})
	}
	size := int(unsafe.Sizeof(zero))
	run("quantized_", cudamodules.ProductGeometry(size, rows, n, 1), make([]T, rows*n), x, y, k)
	run("quantized_turned_", cudamodules.ProductGeometry(size, rows, k, 1), make([]T, rows*k), dy, dx, n)
	if rows < 16 {
		g := cudamodules.Geometry{Grid: [3]int{(n + 15) / 16, (rows + 3) / 4}, Block: [3]int{256}}
		run("quantized_row_", g, make([]T, rows*n), x, y, k)
	}
}

// Float products err at most twice as much as the same sums taken plainly in float32.
func TestProductsErrLikeFloat(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	const m, n, k = 7, 9, 1000
	a, b := random[float32](1, m*k), random[float32](2, k*n)
	want, plain := make([]float64, m*n), make([]float32, m*n)
	for i := range m {
		for j := range n {
			for p := range k {
				want[i*n+j] += float64(a[i*k+p]) * float64(b[p*n+j])
				plain[i*n+j] += a[i*k+p] * b[p*n+j]
			}
		}
	}
	got := make([]float32, m*n)
	require.NoError(t, s.Run("matmul", "gemm_f32", cudamodules.ProductGeometry(4, m, n, 1), emulator.Out{got}, emulator.In{a}, emulator.In{b},
		int64(m), int64(n), int64(k), int64(k), int64(1), int64(n), int64(1), int64(n), int64(1), int64(0), int64(0), int64(0), 1.0, 0.0))
	require.LessOrEqual(t, worst(t, "product", got, want), 2*worst(t, "plain", plain, want))
}

// What is not finite stays in the results that depend on it, and an infinity is one.
func TestProductsOfInfinities(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	const m, n, k = 3, 5, 20
	inf := float32(math.Inf(1))
	a, b := random[float32](1, m*k), random[float32](2, k*n)
	a[2], a[k+3] = inf, float32(math.NaN())
	a[2*k] = math.MaxFloat32
	for j := range n {
		b[j] = 0.5
	}
	got := make([]float32, m*n)
	require.NoError(t, s.Run("matmul", "gemm_f32", cudamodules.ProductGeometry(4, m, n, 1), emulator.Out{got}, emulator.In{a}, emulator.In{b},
		int64(m), int64(n), int64(k), int64(k), int64(1), int64(n), int64(1), int64(n), int64(1), int64(0), int64(0), int64(0), 1.0, 0.0))
	for j := range n {
		sign := 1
		if b[2*n+j] < 0 {
			sign = -1
		}
		require.True(t, math.IsInf(float64(got[j]), sign), "got %v", got[j])
		require.True(t, math.IsNaN(float64(got[n+j])))
		require.Equal(t, float32(math.MaxFloat32)/2, got[2*n+j])
	}
}

// Integers by integers, against the definition: rounded inputs, exact sums within a group, scales.
func TestRoundedProducts(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for i, cfg := range packings {
		if !cfg.Scheme.HasScales() {
			continue
		}
		for j, size := range quantizedSizes {
			if testing.Short() && (i+j)%2 != 0 {
				continue
			}
			c := packed(t, cfg, size[1], size[2])
			testRounded[float32](t, s, c, size[0], float64(j%2)*0.02)
			testRounded[float64](t, s, c, size[0], float64(j%2)*0.02)
		}
	}
}

func testRounded[T number](t *testing.T, s *emulator.Session, c packedCase, rows int, given float64) {
	k, n := c.p.In, c.p.Out
	matrix, sizes := c.params()
	name := c.p.Config.Scheme.String() + suffix[T]()
	pitch := (k + 63) / 64 * 64
	x := random[T](1, rows*k)
	if rows > 2 {
		x[k] = T(math.NaN())
		clear(x[2*k : 3*k])
	}
	q, sx := make([]int8, rows*pitch), make([]T, rows)
	every(t, s, func() any {
		require.NoError(t, s.Run("quantized", "round_rows"+suffix[T](), cudamodules.Geometry{Grid: [3]int{(rows + 1) / 2}, Block: [3]int{256}},
			emulator.Out{q}, emulator.Out{sx}, emulator.In{x}, int64(rows), int64(k), int64(pitch), given))
		return []any{q, sx}
	})
	y := make([]float64, rows*n)
	for i := range rows {
		var top T
		for _, v := range x[i*k : (i+1)*k] {
			top = max(top, T(math.Abs(float64(v))))
		}
		scale, inverse := T(max(float64(top), 0x1p-100)/127), T(127/max(float64(top), 0x1p-100))
		if given > 0 {
			scale, inverse = T(given), 1/T(given)
		}
		if top != top {
			require.True(t, sx[i] != sx[i], "row %d: the scale of a row with NaN is NaN", i)
		} else {
			require.Equal(t, scale, sx[i])
		}
		for p := range pitch {
			want := 0.0
			if p < k && top == top {
				want = min(max(math.RoundToEven(float64(x[i*k+p]*inverse)), -127), 127)
			}
			require.Equal(t, int8(want), q[i*pitch+p], "row %d, number %d", i, p)
		}
		for j := range n {
			y[i*n+j] = c.product(q[i*pitch:], float64(sx[i]), j)
		}
	}
	kernels := map[string]cudamodules.Geometry{
		"rounded_":     {Grid: [3]int{(rows + 63) / 64, (n + 127) / 128}, Block: [3]int{256}},
		"rounded_row_": {Grid: [3]int{(n + 15) / 16, (rows + 3) / 4}, Block: [3]int{256}},
	}
	for kernel, g := range kernels {
		what := fmt.Sprintf("%s %v of %d rows, %d × %d", kernel, c.p.Config, rows, k, n)
		every(t, s, func() any {
			out := make([]T, rows*n)
			require.NoError(t, s.Run("quantized", kernel+name, g, join([]any{emulator.Out{out}, emulator.In{q}, emulator.In{sx}}, matrix,
				[]any{int64(rows)}, sizes, []any{int64(pitch)})...))
			// Three roundings a group, of which there are four at most.
			near(t, out, y, 16*epsilon[T](), 2, what)
			return out
		})
	}
}

// dx is 0 where x lies at the end of the range of a given scale or beyond.
func TestClamped(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	x, dx := random[float32](1, 300), random[float32](2, 300)
	x[7], x[8] = 127*0.01, -127*0.01
	want := append([]float32(nil), dx...)
	end := 127 * float32(0.01)
	for i, v := range x {
		if v >= end || v <= -end {
			want[i] = 0
		}
	}
	require.NoError(t, s.Run("quantized", "clamped_f32", elements(300, 256), emulator.InOut{dx}, emulator.In{x}, 0.01, int64(300)))
	require.Equal(t, want, dx)
}

// Columns of a matrix are the very numbers that Dequantize gives.
func TestQuantizedLookup(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, cfg := range packings {
		const k, n = 37, 21
		c := packed(t, cfg, k, n)
		matrix, sizes := c.params()
		ids := []int64{3, 20, 0, -1, 21, 3}
		y := make([]float32, len(ids)*k)
		require.NoError(t, s.Run("quantized", "quantized_lookup_"+cfg.Scheme.String()+"_f32", elements(len(y), 64),
			join([]any{emulator.Out{y}, emulator.In{ids}}, matrix, []any{int64(8), int64(len(ids))}, sizes)...))
		for i, id := range ids {
			for p := range k {
				if id < 0 || id >= n {
					require.True(t, math.IsNaN(float64(y[i*k+p])))
					continue
				}
				require.Equal(t, c.values[p*n+int(id)], float64(y[i*k+p]))
			}
		}
	}
}
