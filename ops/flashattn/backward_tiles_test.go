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
