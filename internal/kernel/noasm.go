//go:build purego || !amd64

package kernel

// unreached is what a function of assembly panics with in builds that have no assembly for it.
const unreached = "kernel: this build has no assembly"
