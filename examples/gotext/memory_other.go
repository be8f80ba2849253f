//go:build !linux

package main

import "runtime"

// peakMeaning says what peakMemory counts.
const peakMeaning = "memory that Go's runtime has had from the system (MemStats.Sys)"

// peakMemory is the most memory that this process has had so far, in bytes.
func peakMemory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

// availableMemory is what the machine can still give, in bytes. This system does not say.
func availableMemory() int64 { return assumedMemory }
