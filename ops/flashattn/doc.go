// Package flashattn computes exact attention in tiles, forward and backward, without ever holding the matrix of scores.
//
// For each batch element and head, with rows i of q and j of k and v,
//
//	x_ij = scale·q_i·k_j, softcapped, with ALiBi and bias added, −∞ where i does not see j
//	lse_i = log(Σ_j e^x_ij + e^sink)
//	out_i = Σ_j e^(x_ij − lse_i)·v_j
//
// Config says exactly what goes into x. Shapes are (batch, seq, heads, headDim). k and v may have fewer heads than q
// (grouped-query attention): query head h uses key head h·kvHeads/heads.
//
// # What a row sees
//
// Rows are aligned at the bottom right: the last query row stands at the last key. Causal with seqQ = 3, seqKV = 5 and with
// seqQ = 5, seqKV = 3 (x: seen):
//
//	     j 0 1 2 3 4              j 0 1 2
//	i 0    x x x . .         i 0    . . .
//	  1    x x x x .           1    . . .
//	  2    x x x x x           2    x . .
//	                           3    x x .
//	                           4    x x x
//
// A window of Left = 1, Right = 0 leaves x x in each row of the first picture: those at and just before the diagonal. A row that
// sees nothing has out = 0, lse = −∞, and takes part in no gradient, whether or not there is a sink.
//
// NaN and ±Inf in the inputs reach the rows that see them and no others.
//
// # Fewer bits
//
// Config.Precision multiplies numbers of BF16, or queries and keys as integers of 8 bits, with all other features. Precision says
// exactly which numbers are rounded, and what gradients are then; docs/numerics.md has a table of the error that this adds. With
// normal inputs an output in BF16 is off by 0.3 %, in INT8 by 0.7 %.
//
// # How
//
// A block of query rows passes over the keys once, a tile at a time, and keeps for each row the running maximum, the running
// sum and the output so far, which is rescaled whenever the maximum grows (online softmax; Milakov and Gimelshein 2018, arXiv
// 1805.02867; FlashAttention-2, Dao 2023, arXiv 2307.08691, algorithm 1). The backward pass recomputes the weights of a tile
// from the log-sum-exp, block of keys by block of keys (ibid., algorithm 2). All heads that share a key head pass over it
// together. Memory beyond inputs and outputs does not grow with the product of the lengths; Memory tells how much it is.
//
// Results do not depend on the number of threads, to the last bit.
package flashattn
