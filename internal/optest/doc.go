// Package optest holds what the tests of the ops share: seeded inputs, error bars relative to a naive computation,
// guarded memory, shape tables, and gradient checks on both of Gorgonia's machines.
package optest
