// Package kvcompress keeps the keys and values of tokens that a decoder has seen, and attends over them.
//
// A [Cache] holds one attention layer's keys and values for a batch of sequences of equal length. [Attend] is the graph
// node: it appends the keys and values of the new tokens to the cache and attends the new queries over everything that is
// in it,
//
//	out_i = Σ_{j ≤ p+i} softmax_j(scale·q_i·k_j)·v_j
//
// with p the number of tokens cached before and the features of flashattn.Config. Appending and attending are one node,
// so its output has a static shape and the graph of one token serves for every token.
//
// # Shapes
//
//	q (batch, seq, heads, headDim)   k (batch, seq, kvHeads, headDim)   v (batch, seq, kvHeads, valueDim)
//
// heads is a multiple of kvHeads: query head h reads key head h/(heads/kvHeads). Numbers are float32.
//
// # Limits
//
// A cache belongs to one graph running on one machine at a time: unlike every other node, Attend changes something that
// outlives the run. It has no gradient. A run that fails leaves the cache as it was before its node.
package kvcompress
