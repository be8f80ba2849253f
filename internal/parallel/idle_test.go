//go:build unix

package parallel

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cpuTime returns the processor time this process has used.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Helpers that spun on would use some 300 ms of processor time each.
func TestIdleHelpersUseNoProcessor(t *testing.T) {
	setProcs(t, 4)
	setThreads(t, 4)
	for range 100 {
		checkRun(t, 97, 4)
	}
	time.Sleep(100 * time.Millisecond)
	before := cpuTime(t)
	time.Sleep(300 * time.Millisecond)
	require.Less(t, cpuTime(t)-before, 100*time.Millisecond)
}
