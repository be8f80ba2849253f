// Package kvcompress keeps the keys and values of tokens that a decoder has seen, and attends over them.
//
// A [Cache] holds one attention layer's keys and values for a batch of sequences. [Attend] is the graph node: it appends the keys
// and values of the new tokens to the cache and attends the new queries over everything that is in it,
//
//	out_i = Σ_{j ≤ p+i} softmax_j(scale·q_i·k_j)·v_j
//
// with p the number of tokens cached before and the features of flashattn.Config. Appending and attending are one node,
// so its output has a static shape and the graph of one token serves for every token. [AttendSome] is the same for sequences of
// different lengths.
//
// # Shapes
//
//	q (batch, seq, heads, headDim)   k (batch, seq, kvHeads, headDim)   v (batch, seq, kvHeads, valueDim)
//
// heads is a multiple of kvHeads: query head h reads key head h/(heads/kvHeads). Numbers are float32. Rotary positions are in q and
// k before they come here.
//
// # Compression
//
// [Plain] keeps float32. [Compressed] keeps a sequence in three parts:
//
//	SinkTokens in float32 | older tokens in 16, 8 or 4 bits | Recent tokens in float32 or FP16
//
// Keys are coded per channel over groups of GroupSize tokens, values per token, as their outliers lie (KIVI: Liu et al. 2024, arXiv
// 2402.02750). With 8 bits x ≈ s·(c − 128), s = max|x|/127; with 4 bits x ≈ s·c + m, m = min x, s = (max x − m)/15. s and m are
// rounded outwards to FP16, so that the error of every number is at most s/2. With 4 bits keys are multiplied by a Hadamard matrix H
// first, and queries too: (Hq)·(Hk) = q·k.
//
// A token is coded when it is no longer among the Recent newest, one token at a time: as the other tokens of its group are still
// recent then, and known, the group's scales are final from its first token on, and no token is kept longer than it needs to be.
// What a cache stands for so depends on its tokens alone, not on how they were appended.
//
// Attention multiplies codes as they lie, group by group, with the scales folded into the query (keys) or into the weights (values),
// and an online softmax over the three parts. It equals attention over what Decompress returns, to the rounding of float32. With
// many queries at once, tiles of 512 tokens are decoded into memory that is used again. There is no other copy.
//
// # Eviction
//
// Config.Window drops coded tokens that are neither sinks nor new, group by group. With Config.Budget the cache is an [Evicting] one: in
// float32, each key head keeps the sinks, the Recent newest tokens, and of the others those that got most attention so far,
//
//	A_j = Σ_i Σ_g e^(x_gij − lse_gi)
//
// summed over all queries i since token j came and the query heads g of the key head. What is dropped is gone: attention is then
// over fewer tokens, and by how much that changes a model's predictions depends on the model; stheno's Report measures it.
//
// # Limits
//
// A cache belongs to one graph running on one machine at a time: unlike every other node, Attend changes something that
// outlives the run. It has no gradient; [FakeQuantizeKV] is for training. A run that fails in the node forgets the tokens
// that it appended, as Truncate does. A Plain cache is not saved to files. Compressed refuses numbers beyond 65504, and NaN.
package kvcompress
