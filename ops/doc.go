// Package ops holds the plain nodes of a transformer: linear layers, normalisations, activations, residuals, dropout,
// rotary positions, embeddings, the loss, and the optimizer that trains them.
//
// A node is made by a function that takes nodes and a Config and returns a node and an error:
//
//	h, err := ops.RMSNorm(x, gamma, ops.RMSNormConfig{})
//	h, err = ops.Linear(h, w, nil, ops.LinearConfig{Activation: ops.ActSiLU})
//
// # Conventions
//
// Activations are (rows, dim) or (batch, seq, dim), heads (batch, seq, heads, headDim). dtypes are float32 and float64,
// the same for all inputs of a node unless its documentation says otherwise. The zero Config is a sensible one. What can be
// known to be wrong while the graph is built, such as a nil node or a shape that does not fit, is an error there; it starts
// with the function's name and states what it got and what it wants.
//
// Every node is differentiable on TapeMachines (symbolically) and on LispMachines. It never writes to its inputs and
// keeps no state between runs, so one graph may run on two machines at once. Inputs may be views; those that are not
// contiguous are copied first.
//
// Results have the same bits at any thread count: work is cut up by shape alone.
package ops
