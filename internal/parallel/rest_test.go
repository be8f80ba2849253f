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
		r.note(5*time.Microsecond, 5*time.Microsecond, now, now+3*ms)
		require.Equal(t, want*ms, r.length)
		require.False(t, r.over(now+3*ms+want*ms-1))
		require.True(t, r.over(now+3*ms+want*ms))
		now += 3*ms + want*ms + 5*ms
	}
	now += restMax
	r.note(5*time.Microsecond, 5*time.Microsecond, now, now+3*ms)
	require.Equal(t, restMin, r.length, "a stall after a long time without is a first one")
}

func TestRestOnlyAfterAStall(t *testing.T) {
	for _, c := range []struct{ task, saved, waited time.Duration }{
		{0, 0, 0},
		{0, 0, stallMin - 1},     // not worth sleeping
		{10 * ms, 0, 10 * ms},    // three tasks for two workers
		{10 * ms, 0, 30*ms - 1},  // tasks of unequal length
		{ms, 10 * ms, 20*ms - 1}, // a pause in a long Run to which the helper contributed
	} {
		var r rest
		r.note(c.task, c.saved, 5*ms, 5*ms+c.waited)
		require.Zero(t, r, "task %v, saved %v, waited %v", c.task, c.saved, c.waited)
	}
	for _, c := range []struct{ task, saved time.Duration }{{0, 0}, {ms, 0}, {0, ms + ms/2}, {ms, ms}} {
		var r rest
		r.note(c.task, c.saved, 5*ms, 8*ms)
		require.Equal(t, rest{until: 8*ms + restMin, length: restMin}, r, "task %v, saved %v", c.task, c.saved)
	}
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
