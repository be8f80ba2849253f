package parallel

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

func TestRestGrowsWhileStallsRecur(t *testing.T) {
	var r rest
	require.True(t, r.over(0))
	now := 10 * ms
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256} {
		r.note(50*time.Microsecond, now, now+3*ms)
		require.Equal(t, want*ms, r.length)
		require.False(t, r.over(now+3*ms+want*ms-1))
		require.True(t, r.over(now+3*ms+want*ms))
		now += 3*ms + want*ms + 5*ms
	}
	now += restMax
	r.note(50*time.Microsecond, now, now+3*ms)
	require.Equal(t, restMin, r.length, "a stall after a long time without is a first one")
}

func TestRestOnlyAfterAStall(t *testing.T) {
	for _, c := range []struct{ worked, waited time.Duration }{
		{0, 0},
		{0, stallMin - 1},      // short
		{20 * ms, 39 * ms},     // tasks of unequal length
		{200 * ms, 100 * ms},   // less than the caller worked
		{ms, 2*ms - 1},         // just under the factor
		{stallMin, stallMin},   // one task each, and the helper began late
		{10 * ms, callerSpin},  // the usual end of a long Run
		{10 * ms, 10*ms + 100}, // three tasks for two
	} {
		var r rest
		r.note(c.worked, 5*ms, 5*ms+c.waited)
		require.Zero(t, r, "worked %v, waited %v", c.worked, c.waited)
	}
	var r rest
	r.note(ms, 5*ms, 7*ms)
	require.Equal(t, rest{until: 8 * ms, length: ms}, r)
}

// A Run makes no offer to a helper at rest and does all its tasks without it.
func TestRunWithoutRestingHelpers(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 3)
	checkRun(t, 59, 3)
	require.True(t, shared.acquire())
	for _, h := range shared.helpers {
		h.rest = rest{until: clock() + time.Hour, length: restMin}
	}
	shared.release()
	t.Cleanup(func() { rouse(t) })
	for range 100 {
		checkRun(t, 59, 1)
	}
	rouse(t)
	checkRun(t, 59, 3)
}

// rouse ends the rest of all helpers: for tests whose tasks meet, which a machine under load must not hinder.
func rouse(t testing.TB) {
	require.True(t, shared.acquire())
	for _, h := range shared.helpers {
		h.rest = rest{}
	}
	shared.release()
}
