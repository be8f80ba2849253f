package flashattn

import "fmt"

// Precision is the width of the numbers that attention multiplies. Sums, the softmax and results keep the width of the inputs.
//
// Inputs of float64 are rounded to float32 before they are rounded further, and what comes after is float64: exact attention of the
// same rounded numbers.
type Precision uint8

const (
	// Float32 multiplies the inputs as they are, float32 or float64.
	Float32 Precision = iota

	// BFloat16 multiplies q, k and v rounded to BF16, ties to even: a relative error of 2⁻⁸ of each number at most. Kernels may round
	// the weights that multiply v too, each by 2⁻⁸ of itself and not those that are summed for the log-sum-exp. Gradients are those of
	// attention of the rounded q, k and v, passed straight through the rounding. On a card, float32 without dropout and packed sequences
	// also has weights, dOut and the gradients of products rounded where they multiply in the backward pass.
	BFloat16

	// Int8 multiplies q and k as integers of 8 bits, after SageAttention (Zhang et al. 2024, arXiv 2410.02367), and values rounded to
	// BF16. Weights and all sums stay as they are. The keys of a head are centred on the mean of those of its sequence, which moves all logits of a row by the
	// same, q_i·μ, and a block of rows that have a scale in common is one row:
	//
	//	μ = mean_j k_j
	//	q̂_i = s_i·a_i,  s_i = max|q_i|/127,      a_i = round(q_i/s_i)
	//	k̂_j = t_j·b_j,  t_j = max|k_j − μ|/127,  b_j = round((k_j − μ)/t_j)
	//	q_i·k_j ≈ s_i·t_j·(a_i·b_j) + q_i·μ
	//
	// a_i·b_j is exact. A number is off by half a step at most, |q − q̂| ≤ s/2, and a product of d numbers by
	// d·(s_i·max|k_j − μ| + t_j·max|q_i|)/2 + d·s_i·t_j/4, about max|q_i|·max|k_j − μ|·d/127, and far less where errors cancel.
	//
	// The softmax does not see q_i·μ, whatever the row sees, ALiBi and bias, which are added to it; the log-sum-exp, sinks and the softcap
	// do, and it is added for them as it is, in full precision. Under a causal mask the mean is still that of all keys: keys that a row
	// does not see change the rounding of its logits, and nothing else.
	//
	// Gradients are those of exact products: weights and dS come from the rounded logits of the forward pass, dQ = scale·dS·k and
	// dK = scale·dSᵀ·q from q and k as they are, dP from the rounded values (straight through; Bengio et al. 2013, arXiv 1308.3432). On a card,
	// where BFloat16 rounds what multiplies, so does Int8, q and k of these products among it.
	//
	// A row of q or k that holds a NaN or an infinity has the logits NaN, and is left out of the mean.
	Int8

	precisions // how many there are
)

var precisionNames = [precisions]string{"float32", "bf16", "int8"}

// String is float32, bf16 or int8.
func (p Precision) String() string {
	if p < precisions {
		return precisionNames[p]
	}
	return fmt.Sprintf("Precision(%d)", uint8(p))
}

// ParsePrecision is the Precision of a name that String gives.
func ParsePrecision(name string) (Precision, error) {
	for p, s := range precisionNames {
		if s == name {
			return Precision(p), nil
		}
	}
	return 0, fmt.Errorf("flashattn.ParsePrecision: got %q, want one of %q", name, precisionNames)
}
