package kernel

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTranspose(t *testing.T) {
	sizes := append([]int{3, 8, 9, 127, 128, 129, 1025}, awkward...)
	forEachISA(t, func(t *testing.T) {
		for _, rows := range sizes {
			for _, cols := range sizes {
				src := newGuarded(rows, cols, cols+2, 1, normal[float32](5))
				dst := newGuarded(cols, rows, rows+1, 1, func() float32 { return 0 })
				Transpose(dst.Data, dst.RowStride, src.Data, src.RowStride, rows, cols, 0.5)
				msg := fmt.Sprintf("rows=%d cols=%d", rows, cols)
				dst.requireIntact(t, msg)
				for i := range rows {
					for j := range cols {
						if got, want := dst.Data[dst.at(j, i)], src.Data[src.at(i, j)]/2; got != want {
							require.Equal(t, want, got, "%s: (%d, %d)", msg, i, j)
						}
					}
				}
			}
		}
	})
}

func TestTransposeFloat64(t *testing.T) {
	src := newGuarded(9, 17, 20, 1, normal[float64](6))
	dst := newGuarded(17, 9, 11, 1, func() float64 { return 0 })
	Transpose(dst.Data, 11, src.Data, 20, 9, 17, 3)
	dst.requireIntact(t, "")
	for i := range 9 {
		for j := range 17 {
			require.Equal(t, 3*src.Data[src.at(i, j)], dst.Data[dst.at(j, i)])
		}
	}
}
