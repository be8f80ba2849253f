package flashattn

import (
	"fmt"
	"testing"
)

// Blocks of keys and chunks of rows whose numbers are out of a tile's range go another way, others of the same run do not, and all are
// held to the same bars.
func TestBackwardOfNumbersBeyondTiles(t *testing.T) {
	onAll(t, func(t *testing.T) {
		for _, features := range []int{0, 1, 1 << 6, 1<<2 | 1<<5} {
			c := instance{name: "beyond", batch: 1, seqQ: 210, seqKV: 200, heads: 2, kvHeads: 1, d: 40, dv: 24}.with(features)
			for what, scale := range map[string]struct {
				x          func(v *values[float64]) []float64
				row, by    int
				size       float64
				everything bool
			}{
				"large v":    {x: func(v *values[float64]) []float64 { return v.v }, row: 70, by: c.dv, size: 0x1p58},
				"small q":    {x: func(v *values[float64]) []float64 { return v.q }, by: c.d, size: 0x1p-40, everything: true},
				"small dOut": {x: func(v *values[float64]) []float64 { return v.dOut }, by: c.dv, size: 0x1p-80, everything: true},
				"small k":    {x: func(v *values[float64]) []float64 { return v.k }, by: c.d, size: 0x1p-40, everything: true},
			} {
				v := generate(c)
				x := scale.x(&v)
				if !scale.everything {
					x = x[scale.row*scale.by:][:scale.by]
				} else {
					x = x[:len(x)/2]
				}
				for i := range x {
					x[i] *= scale.size
				}
				c.name = fmt.Sprint(what, " ", features)
				c.checkOn(t, v)
			}
		}
	})
}

// Numbers and weights so small that their pieces are none of BF16 must not change those beside them.
func TestBackwardOfTinyNumbers(t *testing.T) {
	onAll(t, func(t *testing.T) {
		for _, features := range []int{0, 1 << 2, 1 << 3, 1 << 4, 1 << 5} {
			c := instance{name: fmt.Sprint("tiny ", features), batch: 1, seqQ: 70, seqKV: 90, heads: 2, kvHeads: 1, d: 40, dv: 24}.with(features)
			v := generate(c)
			for _, x := range [][]float64{v.q, v.k, v.v, v.dOut} {
				for i := range x {
					if i%3 == 0 {
						x[i] = float64(float32(x[i] * 0x1p-135))
					}
				}
			}
			c.checkOn(t, v)

			v = generate(c)
			c.name = fmt.Sprint("tiny weights ", features)
			for i := range v.k { // of every other 16 keys, whose logits are far below the others
				if e, key := i%c.d, i/c.d; e == 0 {
					v.k[i] = float64(key / 16 % 2 * -87)
				}
			}
			for i := 0; i < len(v.q); i += c.d {
				v.q[i] = 6
			}
			c.checkOn(t, v)
		}
	})
}
