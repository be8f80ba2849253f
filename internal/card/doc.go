// Package card has memory that the card and the host share: managed memory, which the driver moves to whoever touches it. Weights in
// it are copied to the card once, by the first kernel that reads them, and back when the host reads what a kernel has written.
//
// The host may touch it while no kernel runs: after a machine's run or Synchronize.
//
// Without the build tag cuda there is no such memory, and the driver's package is no part of the program: it would link it to the
// system's C library.
package card
