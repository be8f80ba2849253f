//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// plainGradient is the gradient of Σ dOut·out by the definition, every step in T.
func plainGradient[T number](c attention, in attentionData[float32], dOut32 []float32) (dQ, dK, dV, dSinks, dBias []T) {
	q, k, v, sinks, slopes, bias := convert[T](in.q), convert[T](in.k), convert[T](in.v), convert[T](in.sinks), convert[T](in.slopes), convert[T](in.bias)
	dOut, gq, gk, lift := convert[T](dOut32), q, k, convert[T](in.lift)
	if in.gq != nil {
		gq, gk = convert[T](in.gq), convert[T](in.gk)
	}
	dQ, dK, dV, dSinks, dBias = make([]T, len(q)), make([]T, len(k)), make([]T, len(v)), make([]T, len(sinks)), make([]T, len(bias))
	_, _, high, sums := plainAttention[T](c, in)
	scale := T(1 / math.Sqrt(float64(c.d)))
	for b := range c.batch {
		for h := range c.heads {
			kh := h / (c.heads / c.kvHeads)
			for i := range c.seqQ {
				row, p := (b*c.heads+h)*c.seqQ+i, i+c.seqKV-c.seqQ
				if sums[row] == 0 {
					continue
				}
				qi, di := q[((b*c.seqQ+i)*c.heads+h)*c.d:], dOut[((b*c.seqQ+i)*c.heads+h)*c.dv:]
				w, dP, slope := make([]T, c.seqKV), make([]T, c.seqKV), make([]T, c.seqKV)
				biasAt := i * c.seqKV
				if !c.oneBias {
					biasAt += (b*c.heads + h) * c.seqQ * c.seqKV
				}
				var delta T
				for j := range w {
					if c.left >= 0 && j < p-c.left || c.right >= 0 && j > p+c.right {
						continue
					}
					kj, vj := k[((b*c.seqKV+j)*c.kvHeads+kh)*c.d:], v[((b*c.seqKV+j)*c.kvHeads+kh)*c.dv:]
					var x T
					for e := range c.d {
						x += qi[e] * kj[e]
					}
					if lift != nil {
						x += lift[row]
					}
					x, slope[j] = x*scale, scale
					if c.softcap > 0 {
						th := T(math.Tanh(float64(x) / c.softcap))
						x, slope[j] = T(c.softcap)*th, scale*(1-th*th)
					}
					if slopes != nil {
						x -= slopes[h] * T(math.Abs(float64(p-j)))
					}
					if bias != nil {
						x += bias[biasAt+j]
					}
					w[j] = T(math.Exp(float64(x-high[row]))) / sums[row]
					for e := range c.dv {
						dP[j] += vj[e] * T(in.rounded(float64(di[e])))
						delta += w[j] * vj[e] * di[e]
					}
				}
				if sinks != nil {
					dSinks[h] -= T(math.Exp(float64(sinks[h]-high[row]))) / sums[row] * delta
				}
				for j := range w {
					kj, kv := gk[((b*c.seqKV+j)*c.kvHeads+kh)*c.d:], (b*c.seqKV+j)*c.kvHeads+kh
					dx := w[j] * (dP[j] - delta)
					if bias != nil {
						dBias[biasAt+j] += dx
					}
					ds, wj := T(in.rounded(float64(dx*slope[j]))), T(in.rounded(float64(w[j])))
					for e := range c.d {
						dQ[((b*c.seqQ+i)*c.heads+h)*c.d+e] += ds * T(in.rounded(float64(kj[e])))
						dK[kv*c.d+e] += ds * T(in.rounded(float64(gq[((b*c.seqQ+i)*c.heads+h)*c.d+e])))
					}
					for e := range c.dv {
						dV[kv*c.dv+e] += wj * T(in.rounded(float64(di[e])))
					}
				}
			}
		}
	}
	return
}

// gradient runs the kernels of the gradient after those of the forward pass: on tensor cores, or plain ones in T.
func gradient[T number](c attention, s *emulator.Session, in attentionData[float32], dOut32 []float32, plain bool) (dQ, dK, dV, dSinks, dBias []T, err error) {
	q, k, v, sinks, slopes, bias, dOut := convert[T](in.q), convert[T](in.k), convert[T](in.v), convert[T](in.sinks), convert[T](in.slopes),
		convert[T](in.bias), convert[T](dOut32)
	dQ, dK, dV, dSinks, dBias = make([]T, len(q)), make([]T, len(k)), make([]T, len(v)), make([]T, len(sinks)), make([]T, len(bias))
	rows := c.batch * c.heads * c.seqQ
	out, stats, delta := make([]T, len(dOut)), make([]T, 2*rows), make([]T, rows)
	given := func(x []T) any {
		if len(x) == 0 {
			return nil
		}
		return emulator.In{x}
	}
	far := func(n int) int64 {
		if n < 0 {
			return 1 << 40
		}
		return int64(n)
	}
	var biasBatch, biasHead int64
	if c.bias && !c.oneBias {
		biasHead = int64(c.seqQ * c.seqKV)
		biasBatch = biasHead * int64(c.heads)
	}
	sizes := []any{biasBatch, biasHead, int64(c.batch), int64(c.seqQ), int64(c.seqKV), int64(c.heads), int64(c.kvHeads), int64(c.d), int64(c.dv),
		far(c.left), far(c.right), 1 / math.Sqrt(float64(c.d)), c.softcap}
	params := append([]any{emulator.In{q}, emulator.In{k}, emulator.In{v}, emulator.In{q}, emulator.In{k}, nil, given(sinks), given(slopes), given(bias)}, sizes...)
	params = append(params, nil, int64(0), nil, int64(0), int64(0), int64(0), nil, int64(0), int64(1)<<32, 1.0)
	run := func(name string, pieces, shared int, first ...any) {
		if err == nil {
			g := cudamodules.Geometry{Grid: [3]int{min((pieces+3)/4, 5)}, Block: [3]int{128}, Shared: 4 * shared * bytesOf[T]()}
			err = s.Run("attention_plain", "attention_plain_"+name+suffix[T](), g, append(first, params...)...)
		}
	}
	run("forward", rows, c.dv, emulator.Out{out}, nil, emulator.Out{stats})
	if err == nil {
		err = s.Run("attention_plain", "attention_plain_delta"+suffix[T](), cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{128}},
			emulator.Out{delta}, emulator.In{out}, emulator.In{dOut}, nil, int64(c.batch), int64(c.heads), int64(c.seqQ), int64(c.dv))
	}
	left := []any{emulator.In{dOut}, emulator.In{stats}, emulator.In{delta}}
	if plain {
		run("rows", rows, c.d, append([]any{emulator.Out{dQ}}, left...)...)
		run("keys", c.batch*c.kvHeads*c.seqKV, c.d+c.dv, append([]any{emulator.Out{dK}, emulator.Out{dV}}, left...)...)
		if c.bias {
			run("bias", len(bias)/32, 0, append([]any{emulator.Out{dBias}}, left...)...)
		}
		if c.sinks && err == nil {
			err = s.Run("attention_plain", "attention_plain_sinks"+suffix[T](), cudamodules.Geometry{Grid: [3]int{c.heads}, Block: [3]int{32}},
				emulator.Out{dSinks}, emulator.In{sinks}, emulator.In{stats}, emulator.In{delta}, int64(c.batch), int64(c.heads), int64(c.seqQ))
		}
		return
	}
	most, tile := 64, 32
	for most < max(c.d, c.dv) {
		most, tile = 2*most, 16
	}
	tiled := append(append(left, emulator.In{q}, emulator.In{k}, emulator.In{v}, given(slopes), given(bias)), sizes...)
	g := cudamodules.Geometry{Grid: [3]int{(c.seqQ + 63) / 64, c.heads, c.batch}, Block: [3]int{128}, Shared: 4 * (64 + tile) * (pitch(c.d) + pitch(c.dv))}
	if err == nil {
		err = s.Run("attention_grad", fmt.Sprintf("attention_grad_rows_%d_f32", most), g, append([]any{emulator.Out{dQ}}, tiled...)...)
	}
	g.Grid = [3]int{(c.seqKV + 63) / 64, c.kvHeads, c.batch}
	if err == nil {
		err = s.Run("attention_grad", fmt.Sprintf("attention_grad_keys_%d_f32", most), g, append([]any{emulator.Out{dK}, emulator.Out{dV}}, tiled...)...)
	}
	return
}

// The errors are at most three times those of the same computation done plainly in float32, or a few roundings of the largest value;
// in float64 they are roundings.
func TestAttentionGradient(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for i, c := range attentions {
		if testing.Short() && i%3 != 0 {
			continue
		}
		t.Run(c.name(), func(t *testing.T) {
			in := c.data()
			dOut := random[float32](9, c.batch*c.seqQ*c.heads*c.dv)
			exact, naive := [5][]float64{}, [5][]float32{}
			exact[0], exact[1], exact[2], exact[3], exact[4] = plainGradient[float64](c, in, dOut)
			naive[0], naive[1], naive[2], naive[3], naive[4] = plainGradient[float32](c, in, dOut)
			var got [5][]float32
			check := func(n int) {
				for e := range n {
					bar := 3*worst(t, "naive", naive[e], exact[e]) + 1e-6*(1+largest(exact[e]))
					require.LessOrEqual(t, worst(t, "gradient", got[e], exact[e]), bar, "gradient %d", e)
				}
			}
			every(t, s, func() any {
				var err error
				got[0], got[1], got[2], _, _, err = gradient[float32](c, s, in, dOut, false)
				require.NoError(t, err)
				check(3)
				return got[:3]
			})
			var err error
			got[0], got[1], got[2], got[3], got[4], err = gradient[float32](c, s, in, dOut, true)
			require.NoError(t, err)
			check(5)
			every(t, s, func() any {
				var wide [5][]float64
				wide[0], wide[1], wide[2], wide[3], wide[4], err = gradient[float64](c, s, in, dOut, true)
				require.NoError(t, err)
				for e := range wide {
					require.LessOrEqual(t, worst(t, "float64", wide[e], exact[e]), 1e-13*(1+largest(exact[e])), "gradient %d", e)
				}
				return wide
			})
		})
	}
}

func largest(x []float64) (m float64) {
	for _, v := range x {
		m = max(m, math.Abs(v))
	}
	return m
}

// bytesOf is the size of a T.
func bytesOf[T number]() int {
	if suffix[T]() == "_f32" {
		return 4
	}
	return 8
}
