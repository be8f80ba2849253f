// Package stheno composes transformer decoders from Gorgonia nodes, trains them and runs them.
//
// A [Model] is a [Config] and one copy of its weights. From it come Gorgonia graphs: [Model.TrainingGraph] with a loss
// and gradients, [Model.PrefillGraph] over a whole sequence, [Model.DecodeGraph] for one token after another over a key
// and value cache. [Train], [Model.Generate] and [Model.Evaluate] run them; [Model.Save] and [Load] keep them in
// safetensors files.
//
// A graph is made of this module's nodes ([Fused]: packages ops, ops/flashattn and ops/kvcompress) or, to compare, of
// nothing but Gorgonia's own ([Plain]). Both read the same weights and agree within rounding.
//
// [Model.Quantize] returns a model with its linear layers stored as FP16, BF16, INT8 or INT4, for everything but training;
// [Model.Plan] finds the precision of each layer within a budget. Sessions keep keys and values in fewer bits on request, and
// [Report] measures what all of that costs and gains.
//
// # The decoder
//
// With tokens t of shape (batch, seq), norm N, projections written (in, out):
//
//	h ← wte[t] (+ wpe[position] with learned positions)
//	for each block:
//	    a ← N(h);  q, k, v ← a·Wq, a·Wk, a·Wv     (rotated by position with rotary positions)
//	    h ← h + attention(q, k, v)·Wo             (causal; KVHeads shared by groups of Heads)
//	    a ← N(h)
//	    h ← h + act(a·Wfc)·Wproj                  (SwiGLU: (silu(a·Wgate) ⊙ a·Wfc)·Wproj)
//	logits ← N(h)·headᵀ                           (head is wte where embeddings are tied)
//
// The loss is the mean cross-entropy of the next token, in nats; reports in bits are divided by ln 2.
package stheno
