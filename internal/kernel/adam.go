package kernel

import "math"

// AdamWConfig holds the numbers of one AdamW step.
type AdamWConfig struct {
	LR           float64
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64 // decoupled; 0 for none
	BiasCorr1    float64 // 1−β₁ᵗ at step t
	BiasCorr2    float64 // 1−β₂ᵗ
	GradScale    float64 // multiplies the gradient first: clipping, loss scale, accumulation
}

// adamCoefs are the factors of one step as the assembly reads them.
func (c AdamWConfig) adamCoefs() [9]float32 {
	return [9]float32{
		float32(c.GradScale),
		float32(c.Beta1), float32(1 - c.Beta1),
		float32(c.Beta2), float32(1 - c.Beta2),
		float32(1 - c.LR*c.WeightDecay),
		float32(c.LR / c.BiasCorr1),
		float32(1 / math.Sqrt(c.BiasCorr2)),
		float32(c.Eps),
	}
}

// AdamW takes one step of Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), in one pass:
//
//	g = GradScale·grad,  m = β₁m + (1−β₁)g,  v = β₂v + (1−β₂)g²
//	param = param·(1−LR·WeightDecay) − LR·(m/BiasCorr1)/(√(v/BiasCorr2) + Eps)
//
// The four slices are distinct; grad is left alone.
func AdamW[T Float](param, m, v, grad []T, cfg AdamWConfig) {
	sameLen("AdamW", len(param), len(m), len(v), len(grad))
	if is32[T]() {
		c := cfg.adamCoefs()
		if simdAdamW(as32(param), as32(m), as32(v), as32(grad), c[:]) {
			return
		}
	}
	step, root := cfg.LR/cfg.BiasCorr1, 1/math.Sqrt(cfg.BiasCorr2)
	for i, p := range param {
		g := cfg.GradScale * float64(grad[i])
		mi := cfg.Beta1*float64(m[i]) + (1-cfg.Beta1)*g
		vi := cfg.Beta2*float64(v[i]) + (1-cfg.Beta2)*g*g
		m[i], v[i] = T(mi), T(vi)
		param[i] = T(float64(p)*(1-cfg.LR*cfg.WeightDecay) - step*mi/(math.Sqrt(vi)*root+cfg.Eps))
	}
}
