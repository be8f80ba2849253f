package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is left to ask for is what has not been asked for: steps over enough groups come to the end of all rows, however many lines they
// have, and results do not depend on it.
func TestAheadComesToItsEnd(t *testing.T) {
	needTiles(t)
	c := tilesCase{onlineCase: onlineCase{rows: 256, d: 64, dv: 64, keys: 64}}
	run := func(a Ahead) *tilesRun {
		s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(2, 2)))
		r := c.pack(s, kts, vs, false)
		r.Ahead = a
		r.run(c, 0, 8)
		return r
	}
	want := run(Ahead{})
	x := alignedFloats(1 << 14)
	for n, add := range []func(a *Ahead){
		func(*Ahead) {},
		func(a *Ahead) { a.Add(x, 16, 1, 16) },
		func(a *Ahead) {
			a.Add(x, 100, 50, 80)
			a.Add(x[3:], 64, 20, 64)
			a.Add(x[9:], 7, 1, 7)
			a.Add(x, 16, 2, 1)
		},
		func(a *Ahead) { // more than there is, and more runs than are kept
			for range aheadMost + 1 {
				a.Add(x, 1000, 5000, 999)
			}
		},
	} {
		var a Ahead
		add(&a)
		lines := 0
		for _, r := range append([]aheadRows{a.now}, a.then[:]...) {
			lines += r.lines * r.rows
		}
		got := run(a)
		a = got.Ahead
		require.Equal(t, want.O, got.O)
		left := 0
		if a.now.at != 0 {
			left = a.now.left - a.now.lines
			for _, r := range append([]aheadRows{a.now}, a.then[a.next:]...) {
				left += r.lines * r.rows
			}
		}
		require.Equal(t, max(0, lines-7*32*2), left, "case %d: 7 of 8 groups make weights between products, 32 times 2 lines each", n)
		a.Rest()
		require.Equal(t, Ahead{}, a)
	}
	require.Zero(t, testing.AllocsPerRun(3, func() {
		var a Ahead
		a.Add(x, 100, 50, 80)
		a.Rest()
	}))
}

// Rows that are not there, or overlap, are not asked for.
func TestAheadTakesAnySize(t *testing.T) {
	var a Ahead
	for _, n := range [][4]int{{0, 8, 1, 8}, {7, 8, 1, 8}, {8, 8, 0, 8}, {8, 8, -1, 8}, {8, 4, 1, 8}, {8, 8, 1, 0}, {8, 0, 1, 0}} {
		a.Add(make([]float32, n[0]), n[1], n[2], n[3])
	}
	require.Equal(t, Ahead{}, a)
	a.Add(make([]float32, 30), 10, 9, 10)
	require.Equal(t, 3, a.now.rows)
}
