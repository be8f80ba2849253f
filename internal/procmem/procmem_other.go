//go:build !linux

package procmem

import "runtime"

// Meaning says what Peak counts.
const Meaning = "memory that Go's runtime has had from the system (MemStats.Sys)"

// Peak is the most memory that this process has had so far, in bytes.
func Peak() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

// ResetPeak makes Peak count from now on, if the system can: this one cannot.
func ResetPeak() bool { return false }

// Available is what the machine can still give, in bytes. This system does not say.
func Available() int64 { return Assumed }
