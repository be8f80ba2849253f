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
// # Calibration
//
// A Recorder taps the nodes of a graph and observes what flows through them: ranges, a histogram, the largest magnitude of each
// channel, and if asked the second moments. From these,
//
//   - an Observer chooses the scale of inputs, which MatMulConfig.InputScale takes instead of one for each row;
//   - QuantizeWith rounds weights by GPTQ, so that outputs err least on such inputs; Clipped needs no calibration;
//   - SmoothScales moves the spread between channels from inputs to weights. A Hadamard rotation, which needs no calibration,
//     spreads large channels over all. Both leave the model the same function.
//
// OutputError says what a way of rounding costs.
//
// # Training
//
// FakeQuantize rounds weights and inputs in a graph that is trained, with the same codec and a straight-through gradient. What
// was trained is then packed with Quantize, or with QuantizeWith's Fixed where scales were learned, to the same numbers.
//
// # Files
//
// Save and Load keep packed matrices in safetensors files.
//
// At most 65,536 inputs: a sum of that many products of codes fits into 32 bits.
package quantize
