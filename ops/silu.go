package ops

import G "gorgonia.org/gorgonia"

// SiLU is the sigmoid linear unit (swish), elementwise:
//
//	y = x·σ(x) = x/(1 + e⁻ˣ)
//
// x has rank 1 or more, the result has x's shape.
//
// Source: Elfwing, Uchibe and Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
// Reinforcement Learning", 2017, equation 4.
func SiLU(x *G.Node) (*G.Node, error) { return newActivation("ops.SiLU", x, ActSiLU) }
