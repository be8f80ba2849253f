// Package grounding answers which region of an image each token speaks of: graph nodes with gradients, and what stands
// around them.
//
// With tokens X (tokens × dimT), patches Y (patches × dimP) and a projection W (dimT × dimP) of text into vision space,
//
//	Q = X·W    q̂ = Q[t]/‖Q[t]‖    ŷ = Y[p]/‖Y[p]‖    S[t,p] = q̂·ŷ / τ
//
// τ is the temperature; with τ = 1 the score S is the cosine similarity.
//
//	nodes      Ground (the matrix S, or its softmax or sigmoid), Pool (softmax(S)·V without the matrix), AttentionMaps
//	           (single maps from Q, K and the log-sum-exp of an attention node), PatchEmbed
//	pictures   ImageTensor and Patches (image → numbers), TensorImage (tensor → image), Grid (where each patch lies in the
//	           original picture)
//	results    Results (threshold, top-k, merged boxes), Calibrate
//	losses     InfoNCE, Contrastive, AlignmentLoss, MarginLoss, with OverlapTargets
//	metrics    Evaluate (pointing game, R@1/5/10, mean IoU, for each type of phrase)
//	drawing    Overlay, DrawBoxes, ContactSheet (image.Image, PNG, HTML)
//
// Limits: second derivatives are errors; the matrix form needs tokens × patches numbers for each item of a batch, in the
// backward pass twice that; Pool needs O(tokens + patches).
//
// Sources: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (contrastive
// loss); Li et al., "Grounded Language-Image Pre-training", 2022 (region–word alignment); Yang et al., "Improving Visual
// Grounding by Encouraging Consistent Gradient-based Explanations", 2023 (margin supervision); Dao, "FlashAttention-2",
// 2023 (tiles).
package grounding
