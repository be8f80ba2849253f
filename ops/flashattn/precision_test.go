package flashattn

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// roundings are the precisions that round.
var roundings = []Precision{BFloat16, Int8}

func TestEveryCombinationOfFeaturesRounded(t *testing.T) {
	onAll(t, func(t *testing.T) {
		for _, precision := range roundings {
			for n := range 1 << features {
				instance{name: precision.String(), batch: 2, seqQ: 7, seqKV: 9, heads: 4, kvHeads: 2, d: 5, dv: 3, cfg: Config{Precision: precision}}.with(n).check(t)
			}
		}
	})
}

func TestShapesRounded(t *testing.T) {
	shapes := []instance{
		{name: "one", batch: 1, seqQ: 1, seqKV: 1, heads: 1, kvHeads: 1, d: 1, dv: 1},
		{name: "decode", batch: 2, seqQ: 1, seqKV: 97, heads: 6, kvHeads: 2, d: 64, dv: 64},
		{name: "odd", batch: 1, seqQ: 59, seqKV: 59, heads: 2, kvHeads: 1, d: 59, dv: 17},
		{name: "long", batch: 1, seqQ: 201, seqKV: 257, heads: 2, kvHeads: 2, d: 64, dv: 64},
		{name: "wide", batch: 1, seqQ: 17, seqKV: 70, heads: 1, kvHeads: 1, d: 256, dv: 255},
		{name: "blocks", batch: 1, seqQ: 130, seqKV: 150, heads: 2, kvHeads: 1, d: 24, dv: 16, cfg: Config{BlockQ: 50, BlockKV: 40}},
		{name: "packed", batch: 1, seqQ: 97, seqKV: 150, heads: 4, kvHeads: 2, d: 32, dv: 32, cuQ: []int{0, 1, 1, 40, 90}, cuKV: []int{0, 3, 10, 80, 149}},
	}
	onAll(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, s := range shapes {
			for _, precision := range roundings {
				s.cfg.Precision = precision
				for _, n := range []int{0, 1, r.IntN(1 << features)} {
					s.with(n).check(t)
				}
			}
		}
	})
}

func TestParsePrecision(t *testing.T) {
	for p := range precisions {
		got, err := ParsePrecision(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	_, err := ParsePrecision("int4")
	require.EqualError(t, err, `flashattn.ParsePrecision: got "int4", want one of ["float32" "bf16" "int8"]`)
	require.Equal(t, "Precision(9)", Precision(9).String())
}
