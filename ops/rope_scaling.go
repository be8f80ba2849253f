package ops

import (
	"fmt"
	"math"
)

// RoPEScalingKind names a way to stretch rotary positions.
type RoPEScalingKind int

const (
	// RoPEScaleNone leaves the frequencies θ_i alone.
	RoPEScaleNone RoPEScalingKind = iota
	// RoPEScaleLinear divides every position by Factor: φ = pos·θ_i/Factor.
	//
	// Source: Chen et al., "Extending Context Window of Large Language Models via Positional Interpolation", 2023
	// (arXiv 2306.15595), equation 4.
	RoPEScaleLinear
	// RoPEScaleNTK replaces the base b by b·Factor^(Dim/(Dim−2)), which leaves the highest frequency alone and divides the
	// lowest by Factor.
	//
	// Source: Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", 2023 (arXiv 2309.00071),
	// definition 1, "NTK-aware" interpolation.
	RoPEScaleNTK
	// RoPEScaleYaRN leaves pairs alone that turn more than BetaFast times within OriginalSeq, divides the frequency of
	// those that turn less than BetaSlow times by Factor, and mixes the two in between; and it multiplies sines and cosines
	// by AttentionFactor:
	//
	//	θ'_i = (1−γ_i)·θ_i/Factor + γ_i·θ_i,  γ_i = 1 − clamp((i−low)/(high−low), 0, 1)
	//	low = ⌊d(BetaFast)⌋, high = ⌈d(BetaSlow)⌉, both within [0, Dim−1]
	//	d(r) = Dim·ln(OriginalSeq/(2π·r))/(2·ln Base), the pair that turns r times
	//
	// Source: the same paper, definition 2 ("NTK-by-parts") and the attention scaling of the definition of YaRN. γ is
	// linear in the pair's index as in the authors' program, with which checkpoints are trained, where the paper writes
	// it linear in the number of turns.
	RoPEScaleYaRN
)

// String returns the kind's name in lower case.
func (k RoPEScalingKind) String() string {
	switch k {
	case RoPEScaleNone:
		return "none"
	case RoPEScaleLinear:
		return "linear"
	case RoPEScaleNTK:
		return "ntk"
	case RoPEScaleYaRN:
		return "yarn"
	}
	return fmt.Sprintf("RoPEScalingKind(%d)", int(k))
}

// RoPEScaling describes how rotary positions are stretched to sequences longer than those of training. Fields that the
// kind does not use must be 0.
type RoPEScaling struct {
	Kind RoPEScalingKind
	// Factor is the new length over the one of training, at least 1. Every kind but RoPEScaleNone needs it.
	Factor float64
	// OriginalSeq is the sequence length of training, in tokens. YaRN needs it.
	OriginalSeq int
	// BetaFast and BetaSlow are numbers of turns within OriginalSeq, for YaRN. 0 means 32 and 1.
	BetaFast, BetaSlow float64
	// AttentionFactor multiplies sines and cosines, for YaRN. 0 means 0.1·ln(Factor) + 1.
	AttentionFactor float64
}

// normalise checks the config and fills in what its zero values mean.
func (c RoPEConfig) normalise(fn string, headDim int) (RoPEConfig, error) {
	if c.Base == 0 {
		c.Base = 10000
	}
	if !(c.Base > 1) || math.IsInf(c.Base, 1) {
		return c, fmt.Errorf("%s: Base: got %v, want a number above 1, or 0 for 10000", fn, c.Base)
	}
	if c.Dim == 0 {
		c.Dim = headDim
	}
	if c.Dim < 2 || c.Dim > headDim || c.Dim%2 != 0 {
		return c, fmt.Errorf("%s: Dim: got %d, want an even number from 2 to headDim %d", fn, c.Dim, headDim)
	}
	var err error
	c.Scaling, err = c.Scaling.normalise(fn, c.Dim)
	return c, err
}

func (s RoPEScaling) normalise(fn string, dim int) (RoPEScaling, error) {
	if s.Kind < RoPEScaleNone || s.Kind > RoPEScaleYaRN {
		return s, fmt.Errorf("%s: Scaling.Kind: got %v, want none, linear, ntk or yarn", fn, s.Kind)
	}
	if s.Kind == RoPEScaleNone {
		if s != (RoPEScaling{}) {
			return s, fmt.Errorf("%s: Scaling: got %+v, want every field 0 with Kind none", fn, s)
		}
		return s, nil
	}
	if !(s.Factor >= 1) || math.IsInf(s.Factor, 1) {
		return s, fmt.Errorf("%s: Scaling.Factor: got %v, want a number of at least 1", fn, s.Factor)
	}
	if s.Kind != RoPEScaleYaRN {
		if (s != RoPEScaling{Kind: s.Kind, Factor: s.Factor}) {
			return s, fmt.Errorf("%s: Scaling: got %+v, want only Factor with Kind %v", fn, s, s.Kind)
		}
		if s.Kind == RoPEScaleNTK && dim < 4 {
			return s, fmt.Errorf("%s: Dim: got %d, want at least 4 with Scaling.Kind ntk", fn, dim)
		}
		return s, nil
	}
	if s.OriginalSeq < 1 {
		return s, fmt.Errorf("%s: Scaling.OriginalSeq: got %d, want at least 1", fn, s.OriginalSeq)
	}
	if s.BetaFast == 0 {
		s.BetaFast = 32
	}
	if s.BetaSlow == 0 {
		s.BetaSlow = 1
	}
	if !(s.BetaSlow > 0 && s.BetaFast > s.BetaSlow) || math.IsInf(s.BetaFast, 1) {
		return s, fmt.Errorf("%s: Scaling: got BetaFast %v and BetaSlow %v, want 0 < BetaSlow < BetaFast", fn, s.BetaFast, s.BetaSlow)
	}
	if s.AttentionFactor == 0 {
		s.AttentionFactor = 0.1*math.Log(s.Factor) + 1
	}
	if !(s.AttentionFactor > 0) || math.IsInf(s.AttentionFactor, 1) {
		return s, fmt.Errorf("%s: Scaling.AttentionFactor: got %v, want a positive number", fn, s.AttentionFactor)
	}
	return s, nil
}

// frequencies returns the angle per position of each pair, in radians, and the factor for sines and cosines. The config
// is normalised.
func (c RoPEConfig) frequencies() (theta []float64, amplitude float64) {
	s, dim := c.Scaling, float64(c.Dim)
	base := c.Base
	if s.Kind == RoPEScaleNTK {
		base *= math.Pow(s.Factor, dim/(dim-2))
	}
	theta = make([]float64, c.Dim/2)
	for i := range theta {
		theta[i] = math.Pow(base, -2*float64(i)/dim)
	}
	switch s.Kind {
	case RoPEScaleLinear:
		for i := range theta {
			theta[i] /= s.Factor
		}
	case RoPEScaleYaRN:
		pairTurning := func(times float64) float64 {
			return dim * math.Log(float64(s.OriginalSeq)/(2*math.Pi*times)) / (2 * math.Log(c.Base))
		}
		low := max(0, math.Floor(pairTurning(s.BetaFast)))
		high := min(dim-1, math.Ceil(pairTurning(s.BetaSlow)))
		if high <= low {
			high = low + 0.001 // a step instead of a ramp
		}
		for i := range theta {
			slow := min(1, max(0, (float64(i)-low)/(high-low)))
			theta[i] = slow*theta[i]/s.Factor + (1-slow)*theta[i]
		}
		return theta, s.AttentionFactor
	}
	return theta, 1
}
