//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/kernel"
)

// rounded are x in BF16.
func rounded(x []float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = kernel.BFloat16Value(kernel.BFloat16Bits(v))
	}
	return y
}

// codesOf are the codes of the rows of x, less the mean of their key head, and their scales, both by (batch, heads, seq).
func codesOf(x []float32, means []float32, batch, seq, heads, d int) (codes []int8, scales []float32) {
	codes, scales = make([]int8, len(x)), make([]float32, batch*seq*heads)
	row := make([]float32, d)
	for b := range batch {
		for h := range heads {
			for i := range seq {
				var top float32
				for c := range d {
					row[c] = x[((b*seq+i)*heads+h)*d+c]
					if means != nil {
						row[c] -= means[(b*heads+h)*d+c]
					}
					top = max(top, float32(math.Abs(float64(row[c]))))
				}
				at := (b*heads+h)*seq + i
				top = max(top, 0x1p-100)
				scales[at] = top / 127
				for c, v := range row {
					codes[at*d+c] = int8(math.RoundToEven(float64(v * (127 / top))))
				}
			}
		}
	}
	return
}

// narrowAttention is one problem in BF16, or of codes, with all that its kernels read.
type narrowAttention struct {
	attention
	codes bool
	exact attentionData[float32] // of the rounded numbers
	means []float32
	width int
	q, k  any // []uint16 or []int8, (batch, heads, seq, width)
	v     []uint16

	qScales, kScales []float32
}

// bf16 runs narrow_bf16_f32.
func bf16(s *emulator.Session, x []float32, batch, seq, heads, d int) ([]uint16, error) {
	width := (d + 15) / 16 * 16
	y := make([]uint16, batch*seq*heads*width)
	return y, s.Run("narrow", "narrow_bf16_f32", elements(len(y)/2, 256), emulator.Out{y}, emulator.In{x},
		int64(batch), int64(seq), int64(heads), int64(d), int64(width))
}

// prepare runs the kernels that round, and holds what they give to the CPU's bits.
func (c attention) prepare(s *emulator.Session, codes bool) (n narrowAttention, err error) {
	in := c.data()
	n = narrowAttention{attention: c, codes: codes, exact: in, width: (c.d + 15) / 16 * 32}
	n.exact.v = rounded(in.v)
	if n.v, err = bf16(s, in.v, c.batch, c.seqKV, c.kvHeads, c.dv); err != nil {
		return n, err
	}
	if !codes {
		n.exact.q, n.exact.k = rounded(in.q), rounded(in.k)
		if n.q, err = bf16(s, in.q, c.batch, c.seqQ, c.heads, c.d); err != nil {
			return n, err
		}
		n.k, err = bf16(s, in.k, c.batch, c.seqKV, c.kvHeads, c.d)
		return n, err
	}
	n.width = (c.d + 31) / 32 * 32
	n.means = make([]float32, c.batch*c.kvHeads*c.d)
	err = s.Run("narrow", "narrow_means_f32", cudamodules.Geometry{Grid: [3]int{c.kvHeads, c.batch}, Block: [3]int{256}},
		emulator.Out{n.means}, emulator.In{in.k}, int64(c.seqKV), int64(c.kvHeads), int64(c.d), nil, int64(0))
	if err != nil {
		return n, err
	}
	encode := func(x []float32, seq, heads int, centred int64) (codes []int8, scales, lift, values []float32, err error) {
		rows := c.batch * heads * seq
		codes, scales, lift, values = make([]int8, rows*n.width), make([]float32, rows), make([]float32, rows), make([]float32, rows*c.d)
		err = s.Run("narrow", "narrow_codes_f32", cudamodules.Geometry{Grid: [3]int{min((rows+3)/4, 3)}, Block: [3]int{128}},
			emulator.Out{codes}, emulator.Out{scales}, emulator.Out{lift}, emulator.Out{values}, emulator.In{x}, emulator.In{n.means},
			int64(c.batch), int64(seq), int64(heads), int64(c.kvHeads), int64(c.d), int64(n.width), centred, nil, int64(0), int64(0))
		means := n.means
		if centred == 0 {
			means = nil
		}
		want, wantScales := codesOf(x, means, c.batch, seq, heads, c.d)
		for r := range rows {
			if err == nil && (fmt.Sprint(codes[r*n.width:][:c.d]) != fmt.Sprint(want[r*c.d:][:c.d]) || scales[r] != wantScales[r]) {
				err = fmt.Errorf("row %d: got codes %v by %v, want %v by %v", r, codes[r*n.width:][:c.d], scales[r], want[r*c.d:][:c.d], wantScales[r])
			}
		}
		return
	}
	n.exact.gq, n.exact.gk = in.q, in.k
	if n.q, n.qScales, n.exact.lift, n.exact.q, err = encode(in.q, c.seqQ, c.heads, 0); err != nil {
		return n, err
	}
	n.k, n.kScales, _, n.exact.k, err = encode(in.k, c.seqKV, c.kvHeads, 1)
	return n, err
}

func (n narrowAttention) kernel() string {
	if n.codes {
		return "int8"
	}
	return "bf16"
}

func side(n int) int64 {
	if n < 0 {
		return 1 << 40
	}
	return int64(n)
}

// given is a slice to read, nil for none.
func given(x []float32) any {
	if len(x) == 0 {
		return nil
	}
	return emulator.In{x}
}

// operands are the parameters from q to lift, logits those from slopes on.
func (n narrowAttention) operands() []any {
	return []any{emulator.In{n.q}, emulator.In{n.k}, emulator.In{n.v}, int64(n.width), int64((n.dv + 15) / 16 * 32),
		given(n.qScales), given(n.kScales), given(n.exact.lift)}
}

func (n narrowAttention) logits() []any {
	var biasBatch, biasHead int64
	if n.bias && !n.oneBias {
		biasHead = int64(n.seqQ * n.seqKV)
		biasBatch = biasHead * int64(n.heads)
	}
	return []any{given(n.exact.slopes), given(n.exact.bias), biasBatch, biasHead, int64(n.seqQ), int64(n.seqKV), int64(n.heads), int64(n.kvHeads),
		int64(n.d), int64(n.dv), side(n.left), side(n.right), 1 / math.Sqrt(float64(n.d)), n.softcap}
}

func (n narrowAttention) run(s *emulator.Session) (out, lse, stats []float32, err error) {
	rows := n.batch * n.heads * n.seqQ
	out, lse, stats = make([]float32, rows*n.dv), make([]float32, rows), make([]float32, 2*rows)
	most, keys := 64, 64
	for most < n.dv {
		most *= 2
	}
	if most == 256 {
		keys = 32
	}
	p, pv := n.width+16, (n.dv+15)/16*32+16
	g := cudamodules.Geometry{Grid: [3]int{(n.seqQ + 127) / 128, n.heads, n.batch}, Block: [3]int{256}, Shared: 128*p + 2*keys*(p+pv)}
	params := append([]any{emulator.Out{out}, emulator.Out{lse}, emulator.Out{stats}}, n.operands()...)
	params = append(append(params, given(n.exact.sinks)), n.logits()...)
	err = s.Run("attention_narrow", fmt.Sprintf("attention_%s_%d_f32", n.kernel(), most), g, params...)
	return
}

// gradient gives dQ, dK and dV, of the statistics of the forward pass and delta.
func (n narrowAttention) gradient(s *emulator.Session, stats, delta, dOut []float32) (dQ, dK, dV []float32, err error) {
	dQ, dK, dV = make([]float32, len(n.exact.q)), make([]float32, len(n.exact.k)), make([]float32, len(n.exact.v))
	d16, err := bf16(s, dOut, n.batch, n.seqQ, n.heads, n.dv)
	if err != nil {
		return
	}
	q16, k16 := n.q, n.k
	if n.codes {
		if q16, err = bf16(s, n.exact.gq, n.batch, n.seqQ, n.heads, n.d); err != nil {
			return
		}
		if k16, err = bf16(s, n.exact.gk, n.batch, n.seqKV, n.kvHeads, n.d); err != nil {
			return
		}
	}
	wide := max(n.d, n.dv)
	most, keys := 64, 64
	if wide > 64 {
		most, keys = 128, 32
	}
	parts := (wide + most - 1) / most
	each := n.width + (n.dv+15)/16*32 + 32
	shared := 64 * each
	if n.codes {
		each += (n.d+15)/16*32 + 16
	}
	params := append([]any{int64(parts), emulator.In{d16}, emulator.In{q16}, emulator.In{k16}, int64((n.d + 15) / 16 * 32), emulator.In{stats},
		emulator.In{delta}, int64(n.batch)}, append(n.operands(), n.logits()...)...)
	g := cudamodules.Geometry{Grid: [3]int{(n.seqQ + 63) / 64 * parts, n.heads, n.batch}, Block: [3]int{128}, Shared: shared + 2*keys*each}
	if err = s.Run("attention_narrow_grad", fmt.Sprintf("attention_grad_rows_%s_%d_f32", n.kernel(), most), g,
		append([]any{emulator.Out{dQ}}, params...)...); err != nil {
		return
	}
	g = cudamodules.Geometry{Grid: [3]int{(n.seqKV + 63) / 64 * parts, n.kvHeads, n.batch}, Block: [3]int{128}, Shared: shared + 64*(each+20)}
	err = s.Run("attention_narrow_grad", fmt.Sprintf("attention_grad_keys_%s_%d_f32", n.kernel(), most), g,
		append([]any{emulator.Out{dK}, emulator.Out{dV}}, params...)...)
	return
}

// Errors against exact attention of the rounded numbers are at most twice, those of gradients three times, the ones of the same
// computation done plainly in float32 with the same roundings, or some roundings of the largest value, as in TestAttention; log-sum-exps have a unit of the approximate 2ˣ more.
func TestAttentionNarrow(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for i, c := range append(attentions, attention{1, 140, 140, 1, 1, 16, 16, -1, 0, 0, false, false, false, false, 0}) {
		if testing.Short() && i%3 != 1 {
			continue
		}
		for _, codes := range []bool{false, true} {
			t.Run(fmt.Sprintf("codes=%t,%s", codes, c.name()), func(t *testing.T) {
				n, err := c.prepare(s, codes)
				require.NoError(t, err)
				naive := n.exact
				naive.rounds = true
				out, lse, high, sums := plainAttention[float64](c, n.exact)
				plain, plainLSE, _, _ := plainAttention[float32](c, naive)
				dOut := random[float32](9, len(out))
				exact, rough := [3][]float64{}, [3][]float32{}
				exact[0], exact[1], exact[2], _, _ = plainGradient[float64](c, n.exact, dOut)
				rough[0], rough[1], rough[2], _, _ = plainGradient[float32](c, naive, dOut)
				delta := make([]float32, len(lse))
				for b := range c.batch {
					for h := range c.heads {
						for i := range c.seqQ {
							for e := range c.dv {
								at := ((b*c.seqQ+i)*c.heads+h)*c.dv + e
								delta[(b*c.heads+h)*c.seqQ+i] += float32(out[at]) * dOut[at]
							}
						}
					}
				}
				every(t, s, func() any {
					got, gotLSE, stats, err := n.run(s)
					require.NoError(t, err)
					require.LessOrEqual(t, worst(t, "out", got, out), 2*worst(t, "plain", plain, out)+1e-6)
					bar := 2*worst(t, "plain lse", plainLSE, lse) + 3e-6
					require.LessOrEqual(t, worst(t, "lse", gotLSE, lse), bar)
					c.statistics(t, stats, high, sums, bar)
					var g [3][]float32
					g[0], g[1], g[2], err = n.gradient(s, stats, delta, dOut)
					require.NoError(t, err)
					for e, x := range g {
						// Rounding errors of a sum are a matter of luck: a thousandth of the largest value is a quarter of a rounding.
						bar := 3*worst(t, "naive", rough[e], exact[e]) + 1e-3*largest(exact[e]) + 1e-6
						require.LessOrEqual(t, worst(t, "gradient", x, exact[e]), bar, "gradient %d", e)
					}
					return []any{got, gotLSE, stats, g}
				})
			})
		}
	}
}

// Keys that are not finite are left out of the mean, and give NaN as a scale; a sum that overflows gives the mean 0.
func TestMeansOfKeysThatAreNotFinite(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	const seq, d = 300, 5
	k := random[float32](1, seq*d)
	k[7*d+1], k[270*d+4] = float32(math.NaN()), float32(math.Inf(1))
	run := func() (means []float32) {
		means = make([]float32, d)
		require.NoError(t, s.Run("narrow", "narrow_means_f32", cudamodules.Geometry{Block: [3]int{256}},
			emulator.Out{means}, emulator.In{k}, int64(seq), int64(1), int64(d), nil, int64(0)))
		return means
	}
	want := make([]float32, d)
	for j := range seq {
		for c := 0; c < d && j != 7 && j != 270; c++ {
			want[c] += k[j*d+c]
		}
	}
	for c := range want {
		want[c] *= 1 / float32(seq-2)
	}
	every(t, s, func() any {
		got := run()
		require.Equal(t, want, got)
		return got
	})
	k[0], k[d] = math.MaxFloat32, math.MaxFloat32
	require.Equal(t, make([]float32, d), run())
}
