package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// peakMeaning says what peakMemory counts.
const peakMeaning = "resident memory of the process at its highest (VmHWM)"

// peakMemory is the most memory that this process has had so far, in bytes.
func peakMemory() int64 { return procKiB("/proc/self/status", "VmHWM") << 10 }

// availableMemory is what the machine can still give, in bytes.
func availableMemory() int64 {
	if n := procKiB("/proc/meminfo", "MemAvailable"); n > 0 {
		return n << 10
	}
	return assumedMemory
}

// procKiB reads a line "key:  n kB", 0 if there is none.
func procKiB(path, key string) (n int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key+":"); ok {
			fmt.Sscan(rest, &n)
			return n
		}
	}
	return 0
}
