package flashattn

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Rows of one head lie heads·d apart, each on another page of memory, and cutting them is mostly waiting for them. While a unit goes
// through tiles over one panel, it asks for the keys and values of the next; over its last panels, also for the rows that it is going to
// write and for the queries of the unit that this worker is likely to take next, with its first keys and values.

// aheadPanels is how many of a unit's last panels ask for more than the next one.
const aheadPanels = 16

// askAhead fills u.tiles.Ahead while keys before j are under way.
func (u *forwardUnit[T]) askAhead(j int) {
	a := &u.tiles.Ahead
	a.Clear()
	keys := func(st *stacked, j, last int) {
		for _, x := range [...]*Heads[T]{&u.k, &u.problem.v} {
			if n := min(kernel.TileKeys, last-j); n > 0 {
				a.Add(float32s(x.Data[x.at(st.seg.batch, j, st.kvHead):]), x.SeqStride, n, x.Dim)
			}
		}
	}
	panels := (u.last - j + kernel.TileKeys - 1) / kernel.TileKeys // after this one
	if panels > 0 {
		keys(&u.st, j, u.last)
	}
	if panels >= aheadPanels {
		return
	}
	of := min(aheadPanels, (u.last-u.first+kernel.TileKeys-1)/kernel.TileKeys)
	part := of - 1 - panels
	rows := func(st *stacked, x *Heads[T]) {
		n := x.Dim
		if st.group > 1 {
			if n *= st.group; x.HeadStride != x.Dim {
				return
			}
		}
		i0, i1 := st.q0+(st.q1-st.q0)*part/of, st.q0+(st.q1-st.q0)*(part+1)/of
		if i1 > i0 {
			a.Add(float32s(x.Data[x.at(st.seg.batch, i0, st.kvHead*st.group):]), x.SeqStride, i1-i0, n)
		}
	}
	rows(&u.st, &u.out)
	if next := u.n + parallel.Threads(); next < len(u.units) {
		st := &u.units[next]
		rows(st, &u.problem.q)
		if panels == 0 {
			first, _ := st.seg.keys(st.q0, u.sight)
			keys(st, st.seg.k0+(first-st.seg.k0)/kernel.TileKeys*kernel.TileKeys, st.seg.k1)
		}
	}
}
