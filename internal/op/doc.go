// Package op is what every op of this module shares: type, shape and hash of a node (Base), access to the numbers in a
// value (Data, Ints), side outputs (Side), and one way to write a gradient that serves both of Gorgonia's machines
// (Backwarder, SymDiff, DoDiff).
//
// An op package contributes the mathematics; docs/adding-an-op.md walks through one.
package op
