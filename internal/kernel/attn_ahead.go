package kernel

import "unsafe"

// Ahead is memory that OnlineTiles.Step asks the processor to bring to the second-level cache, line by line, between products. Asked for
// all at once, rows that lie far apart keep the processor waiting for as long as it takes to find them.
//
// The zero value has nothing to ask for.
type Ahead struct {
	now  aheadRows
	then [aheadMost]aheadRows // those after the first, and a zero behind the last
	next int                  // of then, after now
	n    int
}

// aheadMost is how many runs of rows there may be.
const aheadMost = 4

// aheadRows is what the assembly counts: a line of memory of 64 bytes, in which at lies, is the next one. Addresses are numbers, for
// nothing is read, and what is asked for may be gone.
type aheadRows struct {
	at          uintptr // 0 at the end
	left, lines int     // of this row, of each row
	gap, rows   int     // bytes from the end of a row's last line to the next row
	_           [3]int
}

// Clear forgets what is left.
func (a *Ahead) Clear() {
	clear(a.then[:a.n])
	a.now, a.next, a.n = aheadRows{}, 0, 0
}

// Add appends rows rows of n elements, x[r·stride : r·stride+n], of which those in x count. Only four runs of rows are kept.
func (a *Ahead) Add(x []float32, stride, rows, n int) {
	if n > stride || n <= 0 || len(x) < n || a.n == aheadMost {
		return
	}
	if rows = min(rows, (len(x)-n)/stride+1, maxPrefetch); rows <= 0 {
		return
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(x)))
	lines := (int(at&63) + 4*n + 63) / 64
	r := aheadRows{at: at, left: lines, lines: lines, gap: 4*stride - 64*lines, rows: rows}
	if a.n++; a.n == 1 {
		a.now = r
		return
	}
	a.then[a.n-2] = r
}

// Rest asks for all that is left, at once.
func (a *Ahead) Rest() {
	for ; a.now.at != 0; a.next++ {
		r := a.now
		prefetch(r.at, 64, 1, 64*r.left)
		if r.rows > 1 {
			prefetch(r.at+uintptr(64*r.left+r.gap), 64*r.lines+r.gap, r.rows-1, 64*r.lines)
		}
		a.now = a.then[a.next]
	}
	a.Clear()
}
