// Package quantize multiplies with weights that are stored in fewer bits: FP16, BF16, INT8 or INT4.
//
// # Formats
//
// FP16 and BF16 are rounded to the nearest number, ties to even. In INT8 and INT4 a weight w is the code
//
//	c = clamp(round(w/s) + z)        and stands for        ŵ = s·(c − z)
//
// with a scale s and a zero point z, one pair for the matrix (PerTensor), for each output (PerChannel), or for each output and
// group of 32, 64 or 128 inputs (PerGroup):
//
//	             codes      s                z
//	symmetric    ±127, ±7   max|w|/127, /7   the middle code, not stored
//	asymmetric   255, 15    (hi − lo)/255, /15   round(−lo/s), with lo = min(w, 0), hi = max(w, 0)
//
// so that |ŵ − w| ≤ s/2. Zero is exact in both. Weights that are not finite, or beyond the range of a half, are an error.
//
// Quantize packs a matrix once; the packed tensors are the only copy of the weights. Packed.Nodes adds them to a graph, where
// Let, Read and dot see them, and MatMul is the node that multiplies with them.
//
// # Products
//
// With inputs in full precision a product is x·ŵ, in float32: prefill widens pieces of ŵ into the cache and runs the float
// kernel on them. On processors with AMX (Linux) it cuts each x into three numbers of BF16 that add up to it, exactly, and multiplies
// those in tiles, as accurately. With InputINT8, each row of x is rounded to 8 bits while the node runs ("dynamic", W8A8 or W4A8), and
// products are summed in integers, exactly; only sums are scaled. The gradient with respect to x is that of x·ŵ, dOut·ŵᵀ, in
// both: rounding the rows is taken for the identity (the straight-through estimator, Bengio et al., arXiv 1308.3432). There is
// no gradient with respect to the weights.
//
// At most 65,536 inputs: a sum of that many products of codes fits into 32 bits.
package quantize
