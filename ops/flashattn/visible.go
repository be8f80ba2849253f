package flashattn

import "fmt"

// far is a distance beyond any position; sums of two of them do not overflow.
const far = 1 << 40

// segment is a run of query rows of one batch element together with the keys that they may see: a whole batch element, or
// one sequence of a packed batch. Query row i stands at key position i − q0 + at.
type segment struct {
	batch  int
	q0, q1 int // query rows
	k0, k1 int // key rows
	at     int // position of row q0, in key rows
	panel  int // where codes of its keys begin, see codes.go
}

// sight is the window of keys around a position.
type sight struct{ left, right int }

func (a attrs) sight() sight {
	s := sight{far, far}
	if a.Window.Limited && a.Window.Left >= 0 {
		s.left = min(a.Window.Left, far)
	}
	if a.Window.Limited && a.Window.Right >= 0 {
		s.right = min(a.Window.Right, far)
	}
	return s
}

// keys returns the keys lo ≤ j < hi that query row i sees; both grow with i. An empty range has lo = hi.
func (s segment) keys(i int, w sight) (lo, hi int) {
	p := i - s.q0 + s.at
	lo = min(max(p-w.left, s.k0), s.k1)
	hi = min(max(p+w.right+1, s.k0), s.k1)
	return lo, max(lo, hi)
}

// segments lists the segments of a batch whose rows all belong together, aligned bottom-right.
func segments(batch, seqQ, seqKV int) []segment {
	s := make([]segment, batch)
	for b := range s {
		s[b] = segment{batch: b, q1: seqQ, k1: seqKV, at: seqKV - seqQ}
	}
	return s
}

// packedSegments lists the sequences of a packed batch of one.
func packedSegments(cuQ, cuKV []int, seqQ, seqKV int) ([]segment, error) {
	if err := checkLengths("CuSeqlensQ", cuQ, seqQ); err != nil {
		return nil, err
	}
	if err := checkLengths("CuSeqlensKV", cuKV, seqKV); err != nil {
		return nil, err
	}
	if len(cuQ) != len(cuKV) {
		return nil, fmt.Errorf("CuSeqlensKV: got %d entries, want %d as in CuSeqlensQ", len(cuKV), len(cuQ))
	}
	s := make([]segment, len(cuQ)-1)
	for n := range s {
		s[n] = segment{q0: cuQ[n], q1: cuQ[n+1], k0: cuKV[n], k1: cuKV[n+1]}
		s[n].at = s[n].k1 - (s[n].q1 - s[n].q0)
	}
	return s, nil
}

func checkLengths(name string, cu []int, seq int) error {
	if len(cu) < 2 || cu[0] != 0 {
		return fmt.Errorf("%s: got %v, want at least two entries, the first 0", name, cu)
	}
	for n := 1; n < len(cu); n++ {
		if cu[n] < cu[n-1] {
			return fmt.Errorf("%s: got %d after %d at entry %d, want entries that do not decrease", name, cu[n], cu[n-1], n)
		}
	}
	if last := cu[len(cu)-1]; last > seq {
		return fmt.Errorf("%s: got a last entry of %d, want at most the sequence length %d", name, last, seq)
	}
	return nil
}
