package ops

import "fmt"

// QKV says how queries, keys and values lie in one vector, as Linears makes it with their three matrices: first the queries of all
// tokens, (Batch, Seq, Heads, HeadDim) in row-major order, then the keys and then the values, (Batch, Seq, KVHeads, HeadDim) each.
type QKV struct {
	Batch, Seq     int
	Heads, KVHeads int // Heads is a multiple of KVHeads
	HeadDim        int
}

// Queries is the number of elements of the queries.
func (s QKV) Queries() int { return s.Batch * s.Seq * s.Heads * s.HeadDim }

// Keys is the number of elements of the keys, and of the values.
func (s QKV) Keys() int { return s.Batch * s.Seq * s.KVHeads * s.HeadDim }

// Size is the length of the vector.
func (s QKV) Size() int { return s.Queries() + 2*s.Keys() }

// Validate reports sizes that are not positive, and heads that are no multiple of the heads of keys.
func (s QKV) Validate() error {
	switch {
	case s.Batch < 1 || s.Seq < 1 || s.Heads < 1 || s.KVHeads < 1 || s.HeadDim < 1:
		return fmt.Errorf("QKV: got %+v, want positive sizes", s)
	case s.Heads%s.KVHeads != 0:
		return fmt.Errorf("QKV: got %d heads, want a multiple of the %d heads of keys", s.Heads, s.KVHeads)
	}
	return nil
}
