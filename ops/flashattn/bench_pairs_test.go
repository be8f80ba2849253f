package flashattn

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/optest"
)

// BenchmarkPairs is BenchmarkForward/precision=bf16 by VDPBF16PS, which is not used where it is slower than float32.
func BenchmarkPairs(b *testing.B) {
	grid(b, func(b *testing.B, c instance, threads int) {
		restore, err := kernel.UsePairs(true)
		if err != nil {
			b.Skip(err)
		}
		defer restore()
		if !kernel.OnlinePairsFused[float32]() {
			b.Skip("needs AVX-512")
		}
		c.cfg.Precision = BFloat16
		p, _ := build(c, generate(c).narrow())
		p.rowMax, p.rowSum = nil, nil
		require.True(b, roundsAsItGoes[float32](p.attrs, p.forwardBlocks(c.d, c.dv), false), fmt.Sprint(c.cfg))
		optest.FLOPs(c.useful(), threads).Run(b, p.forward)
	})
}
