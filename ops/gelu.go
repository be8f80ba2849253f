package ops

import G "gorgonia.org/gorgonia"

// GELUConfig configures GELU.
type GELUConfig struct {
	// Tanh selects the approximation of GPT-2, z/2·(1 + tanh(√(2/π)·(z + 0.044715·z³))), within 5e-4 of the exact one.
	Tanh bool
}

// GELU is the Gaussian error linear unit, elementwise:
//
//	y = x·Φ(x) = x/2·(1 + erf(x/√2))
//
// x has rank 1 or more, the result has x's shape.
//
// Source: Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, section 2.
func GELU(x *G.Node, cfg GELUConfig) (*G.Node, error) {
	if cfg.Tanh {
		return newActivation("ops.GELU", x, ActGELUTanh)
	}
	return newActivation("ops.GELU", x, ActGELU)
}
