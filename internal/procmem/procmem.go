// Package procmem asks the system for the memory of this process and of the machine.
package procmem

// Assumed stands for the free memory of systems that do not tell.
const Assumed = 64 << 30
