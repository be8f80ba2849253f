package flashattn

import (
	"testing"
)

// FuzzAttend holds tiles to the reference for any shape and any combination of features.
func FuzzAttend(f *testing.F) {
	f.Add(uint8(1), uint8(1), uint8(1), uint8(1), uint8(1), uint8(1), uint8(1), uint8(0), uint8(0), uint8(0))
	f.Add(uint8(2), uint8(59), uint8(97), uint8(2), uint8(2), uint8(64), uint8(17), uint8(255), uint8(0), uint8(0))
	f.Add(uint8(1), uint8(97), uint8(33), uint8(1), uint8(3), uint8(8), uint8(80), uint8(3), uint8(5), uint8(7))
	f.Fuzz(func(t *testing.T, batch, seqQ, seqKV, kvHeads, group, d, dv, features, blockQ, blockKV uint8) {
		size := func(n uint8, most int) int { return int(n)%most + 1 }
		c := instance{name: "fuzz", searched: true, batch: size(batch, 2), seqQ: size(seqQ, 100), seqKV: size(seqKV, 140), kvHeads: size(kvHeads, 3),
			d: size(d, 80), dv: size(dv, 80), cfg: Config{BlockQ: int(blockQ), BlockKV: int(blockKV)}}
		c.heads = c.kvHeads * size(group, 3)
		c.with(int(features)).check(t)
	})
}
