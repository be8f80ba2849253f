package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestAdamW(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(41, 42))
		for _, n := range vecSizes() {
			step := float64(1 + rng.IntN(50))
			cfg := AdamWConfig{LR: 3e-3, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1,
				BiasCorr1: 1 - math.Pow(0.9, step), BiasCorr2: 1 - math.Pow(0.95, step), GradScale: 0.25}
			p, m, v, g := randoms(rng, n, 1), randoms(rng, n, 0.1), randoms(rng, n, 0.1), randoms(rng, n, 1)
			for i := range v {
				v[i] *= v[i]
			}
			gp, gm, gv, gg := fencedCopy(p, 1), fencedCopy(m, 2), fencedCopy(v, 3), fencedCopy(g, 0)
			AdamW(gp.data, gm.data, gv.data, gg.data, cfg)
			for _, s := range []*fenced{gp, gm, gv, gg} {
				s.intact(t)
			}
			for i := range n {
				d := 0.25 * float64(g[i])
				wantM := 0.9*float64(m[i]) + 0.1*d
				wantV := 0.95*float64(v[i]) + 0.05*d*d
				move := cfg.LR * wantM / cfg.BiasCorr1 / (math.Sqrt(wantV/cfg.BiasCorr2) + cfg.Eps)
				// Three roundings of each term: the factor, the product, the sum.
				mTol := 3 * half * (0.9*math.Abs(float64(m[i])) + 0.1*math.Abs(d))
				near(t, wantM, gm.data[i], mTol, "m n=%d i=%d", n, i)
				near(t, wantV, gv.data[i], 5*half*wantV, "v n=%d i=%d", n, i)
				near(t, float64(p[i])*(1-cfg.LR*cfg.WeightDecay)-move, gp.data[i],
					3*half*math.Abs(float64(p[i]))+8*half*math.Abs(move)+cfg.LR/cfg.BiasCorr1*mTol/math.Sqrt(wantV/cfg.BiasCorr2), "p n=%d i=%d", n, i)
			}
		}
	})
}
