package cudamodules

// WarpgroupAttention is a problem for the kernels of module attention_sm90a: attention of q (batch, seqQ, heads, dim), k (batch, seqKV,
// kvHeads, dim) and v (batch, seqKV, kvHeads, dimV), float32 that is rounded to BF16, by warpgroups of cards of compute capability 9.0.
// Row i stands at p = i + seqKV − seqQ and sees the keys p−left … p+right.
type WarpgroupAttention struct {
	Batch, SeqQ, SeqKV, Heads, KVHeads, Dim, DimV int
	Left, Right                                   int
	Scale                                         float64
	Patience                                      int // how often a wait looks before it gives up; 0 is without end
}

// WarpgroupModule is where the kernels of WarpgroupAttention are.
const WarpgroupModule = "attention_sm90a"

// Takes says whether the kernels compute the problem: heads of at most 128, and a scale above 0.
func (a WarpgroupAttention) Takes() bool {
	return max(a.Dim, a.DimV) <= 128 && min(a.Dim, a.DimV, a.Batch, a.SeqQ, a.SeqKV, a.Heads, a.KVHeads) > 0 && a.Scale > 0 &&
		max(a.Heads, a.Batch) <= 65535
}

// wide is the width of tiles.
func (a WarpgroupAttention) wide() int {
	if max(a.Dim, a.DimV) <= 64 {
		return 64
	}
	return 128
}

// bytes are the sizes of q, and of k and v each, in tiles.
func (a WarpgroupAttention) bytes() (q, kv int64) {
	tiled := func(seq, heads int) int64 {
		return int64(a.Batch) * int64(heads) * int64((seq+127)/128*128) * int64(a.wide()) * 2
	}
	return tiled(a.SeqQ, a.Heads), tiled(a.SeqKV, a.KVHeads)
}

// ScratchBytes is how much memory of the card Launch wants besides.
func (a WarpgroupAttention) ScratchBytes() int64 {
	q, kv := a.bytes()
	return q + 2*kv
}

// Launch computes out (batch, seqQ, heads, dimV), lse (batch, heads, seqQ) and stats (2, batch, heads, seqQ) with a launcher of kernels by
// module and name. Its parameters are those given here, Ptr within scratch, int and float64. lse, stats and sinks (heads) may be nil.
func (a WarpgroupAttention) Launch(launch func(module, kernel string, g Geometry, params ...any) error, scratch Ptr,
	out, lse, stats, q, k, v, sinks any) error {
	qBytes, kvBytes := a.bytes()
	wide := a.wide()
	at := [3]Ptr{scratch, scratch + Ptr(qBytes), scratch + Ptr(qBytes+kvBytes)}
	pack := func(to Ptr, from any, seq, heads, dim, rows int, bytes int64) error {
		const threads, each, most = 256, 16, 1 << 20
		g := Geometry{Grid: [3]int{int(min((bytes/each+threads-1)/threads, most))}, Block: [3]int{threads}}
		return launch(WarpgroupModule, "attention_pack_f32", g, to, from, a.Batch, seq, heads, dim, rows, wide)
	}
	if err := pack(at[0], q, a.SeqQ, a.Heads, a.Dim, 64, qBytes); err != nil {
		return err
	}
	if err := pack(at[1], k, a.SeqKV, a.KVHeads, a.Dim, 128, kvBytes); err != nil {
		return err
	}
	if err := pack(at[2], v, a.SeqKV, a.KVHeads, a.DimV, 128, kvBytes); err != nil {
		return err
	}
	return a.attend(launch, at, out, lse, stats, sinks)
}

// attend is Launch once q, k and v are in tiles.
func (a WarpgroupAttention) attend(launch func(module, kernel string, g Geometry, params ...any) error, tiles [3]Ptr, out, lse, stats, sinks any) error {
	wide, name := a.wide(), "attention_warpgroups_64_f32"
	if wide == 128 {
		name = "attention_warpgroups_128_f32"
	}
	g := Geometry{Grid: [3]int{(a.SeqQ + 127) / 128, a.Heads, a.Batch}, Block: [3]int{384}, Shared: 1280*wide + 2048}
	return launch(WarpgroupModule, name, g, out, lse, stats, tiles[0], tiles[1], tiles[2], sinks, a.SeqQ, a.SeqKV, a.Heads, a.KVHeads, a.DimV,
		a.Left, a.Right, a.Scale, a.Patience)
}
