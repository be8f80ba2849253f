//go:build cuda

package flashattn

import (
	"stheno/cudamodules"
	"stheno/internal/op"
)

// leastRows is from how many rows of queries on warpgroups compute: a block of theirs has 128 rows of one head.
const leastRows = 64

// byWarpgroups is forward by warpgroups, on cards that have them and for problems that they take: BF16 with windows, grouped heads and sinks.
func (n *narrowProblem) byWarpgroups(c *op.Card, out, lse any) (done bool, err error) {
	if n.codes || n.Softcap > 0 || n.ALiBi || n.HasBias || n.seqQ < leastRows {
		return false, nil
	}
	s := n.sight()
	return c.AttendByWarpgroups(cudamodules.WarpgroupAttention{
		Batch: n.batch, SeqQ: n.seqQ, SeqKV: n.seqKV, Heads: n.heads, KVHeads: n.kvHeads, Dim: n.d, DimV: n.dv, Left: s.left, Right: s.right, Scale: n.Scale,
	}, out, lse, n.stats, n.q, n.k, n.v, n.sinks)
}
