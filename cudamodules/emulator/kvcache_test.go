//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/kernel"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// cardCache is a compressed cache as kvcache.cu lays it out, between launches in the memory of the host.
type cardCache struct {
	shape                              kvcompress.Shape
	cfg                                kvcompress.Config
	bits, sinks, recent, pages, rotate int
	codesK, codesV, numbersK, numbersV int
	sinkK, sinkV, floatK, floatV       []float32
	halfK, halfV, numbers              []uint16
	codes                              []uint8
	lens, coded, dropped               []int // of each sequence; dropped counts pages
}

func padded(n int) int { return (n + 15) / 16 * 16 }

// newCardCache lays out what cfg, of which no field but Rotate and Window is 0, implies.
func newCardCache(shape kvcompress.Shape, cfg kvcompress.Config, rotated bool) *cardCache {
	c := &cardCache{shape: shape, cfg: cfg, bits: 32 / cfg.Ratio, sinks: min(cfg.SinkTokens, shape.Capacity), rotate: 1}
	c.recent = max(1, min(max(cfg.Recent, cfg.GroupSize), shape.Capacity-c.sinks))
	c.pages = max(1, (shape.Capacity-c.sinks-c.recent+cfg.GroupSize-1)/cfg.GroupSize)
	if rotated {
		c.rotate = shape.HeadDim & -shape.HeadDim
	}
	if c.bits == 16 {
		c.numbersK, c.numbersV = shape.HeadDim*cfg.GroupSize, cfg.GroupSize*padded(shape.ValueDim)
	} else {
		c.codesK, c.codesV = padded(shape.HeadDim)*cfg.GroupSize*c.bits/8, cfg.GroupSize*padded(shape.ValueDim)*c.bits/8
		c.numbersK, c.numbersV = padded(shape.HeadDim), cfg.GroupSize
		if c.bits == 4 {
			c.numbersK, c.numbersV = 2*c.numbersK, 2*c.numbersV
		}
	}
	heads := shape.Batch * shape.KVHeads
	c.sinkK, c.sinkV = make([]float32, max(1, heads*c.sinks*shape.HeadDim)), make([]float32, max(1, heads*c.sinks*shape.ValueDim))
	if cfg.RecentFP16 {
		c.halfK, c.halfV = make([]uint16, heads*c.recent*shape.HeadDim), make([]uint16, heads*c.recent*shape.ValueDim)
	} else {
		c.floatK, c.floatV = make([]float32, heads*c.recent*shape.HeadDim), make([]float32, heads*c.recent*shape.ValueDim)
	}
	c.codes, c.numbers = make([]uint8, max(1, heads*c.pages*(c.codesK+c.codesV))), make([]uint16, heads*c.pages*(c.numbersK+c.numbersV))
	// What nobody has written is as bad as it can be.
	for _, x := range [][]float32{c.sinkK, c.sinkV, c.floatK, c.floatV} {
		for i := range x {
			x[i] = float32(math.NaN())
		}
	}
	for _, x := range [][]uint16{c.halfK, c.halfV, c.numbers} {
		for i := range x {
			x[i] = 0xffff
		}
	}
	for i := range c.codes {
		c.codes[i] = 0xa5
	}
	c.lens, c.coded, c.dropped = make([]int, shape.Batch), make([]int, shape.Batch), make([]int, shape.Batch)
	for b := range c.coded {
		c.coded[b] = c.sinks
	}
	return c
}

// params are the cache's memory, to be written if out, its states and sizes.
func (c *cardCache) params(states []int64) []any {
	ringK, ringV, halves := any(emulator.InOut{Data: c.floatK}), any(emulator.InOut{Data: c.floatV}), int64(0)
	if c.cfg.RecentFP16 {
		ringK, ringV, halves = emulator.InOut{Data: c.halfK}, emulator.InOut{Data: c.halfV}, 1
	}
	return []any{emulator.InOut{Data: c.sinkK}, emulator.InOut{Data: c.sinkV}, ringK, ringV, emulator.InOut{Data: c.codes}, emulator.InOut{Data: c.numbers},
		emulator.In{Data: states}, int64(c.shape.KVHeads), int64(c.shape.HeadDim), int64(c.shape.ValueDim), int64(c.sinks), int64(c.recent),
		int64(c.cfg.GroupSize), int64(c.pages), halves, int64(c.rotate)}
}

// step appends counts[b] of seq tokens of each sequence b and attends their queries.
func (c *cardCache) step(s *emulator.Session, q, k, v []float32, seq, heads int, counts []int, cfg flashattn.Config, sinks []float32) ([]float32, error) {
	group, sh := c.cfg.GroupSize, c.shape
	states := make([]int64, 0, 5*sh.Batch)
	span, touched, longest := 0, 0, 0
	for b := range sh.Batch {
		before, coded := c.lens[b], c.coded[b]
		c.lens[b] += counts[b]
		c.coded[b] = max(coded, c.lens[b]-c.recent)
		if c.cfg.Window > 0 {
			c.dropped[b] = max(c.dropped[b], (min(c.coded[b], c.lens[b]-c.cfg.Window)-c.sinks)/group)
		}
		states = append(states, int64(before), int64(coded), int64(c.lens[b]), int64(c.coded[b]), int64(c.dropped[b]))
		longest = max(longest, c.lens[b])
		if n := c.coded[b] - coded; n > 0 {
			first, last := (coded-c.sinks)/group, (c.coded[b]-1-c.sinks)/group
			touched = max(touched, last-first+1)
			// A page that is new takes the keys of its whole group, for their scales.
			end := c.coded[b]
			if start := c.sinks + last*group; start >= coded {
				end = start + group
			}
			span = max(span, end-coded)
		}
	}
	params := c.params(states)
	if span > 0 {
		rows := make([]float32, sh.Batch*sh.KVHeads*span*sh.HeadDim)
		err := s.Run("kvcache", "kv_rows", cudamodules.Geometry{Grid: [3]int{5}, Block: [3]int{128}, Shared: 16 * sh.HeadDim}, join([]any{emulator.Out{Data: rows},
			emulator.In{Data: k}, int64(span), int64(seq), int64(sh.Batch)}, params)...)
		if err != nil {
			return nil, err
		}
		err = s.Run("kvcache", fmt.Sprintf("kv_encode_%d", c.bits), cudamodules.Geometry{Grid: [3]int{touched, sh.KVHeads, sh.Batch}, Block: [3]int{128}},
			join([]any{emulator.In{Data: rows}, emulator.In{Data: v}, int64(span), int64(seq)}, params)...)
		if err != nil {
			return nil, err
		}
	}
	err := s.Run("kvcache", "kv_store", cudamodules.Geometry{Grid: [3]int{3}, Block: [3]int{256}},
		join([]any{emulator.In{Data: k}, emulator.In{Data: v}, int64(seq), int64(sh.Batch)}, params)...)
	if err != nil {
		return nil, err
	}
	const split = 96
	splits, chunks := (longest+split-1)/split, (seq*heads/sh.KVHeads+7)/8
	parts := make([]float32, sh.Batch*sh.KVHeads*chunks*splits*8*(2+sh.ValueDim))
	left, scale := int64(1)<<40, cfg.Scale
	if cfg.Window.Limited {
		left = int64(cfg.Window.Left)
	}
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(sh.HeadDim))
	}
	var slopes, logits any
	if cfg.ALiBi {
		var x []float32
		for _, v := range flashattn.Slopes(heads) {
			x = append(x, float32(v))
		}
		slopes = emulator.In{Data: x}
	}
	if sinks != nil {
		logits = emulator.In{Data: sinks}
	}
	shared := 4 * 8 * (3*padded(sh.HeadDim) + 3*64 + padded(sh.ValueDim) + 8)
	err = s.Run("kvcache", fmt.Sprintf("kv_attend_%d", c.bits), cudamodules.Geometry{Grid: [3]int{splits, sh.KVHeads, sh.Batch * chunks}, Block: [3]int{128}, Shared: shared},
		join([]any{emulator.Out{Data: parts}, emulator.In{Data: q}, slopes, int64(seq), int64(heads), left, int64(split), scale, cfg.Softcap}, params)...)
	if err != nil {
		return nil, err
	}
	out := make([]float32, sh.Batch*seq*heads*sh.ValueDim)
	err = s.Run("kvcache", "kv_merge", cudamodules.Geometry{Grid: [3]int{heads, seq, sh.Batch}, Block: [3]int{128}}, emulator.Out{Data: out}, emulator.In{Data: parts},
		logits, emulator.In{Data: states}, int64(seq), int64(heads), int64(sh.KVHeads), int64(sh.ValueDim), int64(splits))
	return out, err
}

// decompress is what the cache stands for, as Compressed.Decompress has it.
func (c *cardCache) decompress() (k, v []float32) {
	sh, n := c.shape, 0
	for _, l := range c.lens {
		n = max(n, l)
	}
	k, v = make([]float32, sh.Batch*n*sh.KVHeads*sh.HeadDim), make([]float32, sh.Batch*n*sh.KVHeads*sh.ValueDim)
	for b := range sh.Batch {
		for h := range sh.KVHeads {
			for t := range c.lens[b] {
				bh := b*sh.KVHeads + h
				rowK, rowV := k[((b*n+t)*sh.KVHeads+h)*sh.HeadDim:][:sh.HeadDim], v[((b*n+t)*sh.KVHeads+h)*sh.ValueDim:][:sh.ValueDim]
				switch at := bh*c.recent + t%c.recent; {
				case t < c.sinks:
					copy(rowK, c.sinkK[(bh*c.sinks+t)*sh.HeadDim:])
					copy(rowV, c.sinkV[(bh*c.sinks+t)*sh.ValueDim:])
				case t < c.sinks+c.dropped[b]*c.cfg.GroupSize: // zeros
				case t < c.coded[b]:
					c.decode(bh, t-c.sinks, rowK, rowV)
				case c.cfg.RecentFP16:
					kernel.FromFloat16(rowK, c.halfK[at*sh.HeadDim:][:sh.HeadDim])
					kernel.FromFloat16(rowV, c.halfV[at*sh.ValueDim:][:sh.ValueDim])
				default:
					copy(rowK, c.floatK[at*sh.HeadDim:])
					copy(rowV, c.floatV[at*sh.ValueDim:])
				}
			}
		}
	}
	return k, v
}

func (c *cardCache) decode(bh, t int, k, v []float32) {
	page, at, group := bh*c.pages+t/c.cfg.GroupSize, t%c.cfg.GroupSize, c.cfg.GroupSize
	numbers := c.numbers[page*(c.numbersK+c.numbersV):][:c.numbersK+c.numbersV]
	if c.bits == 16 {
		for i := range k {
			k[i] = kernel.Float16Value(numbers[i*group+at])
		}
		kernel.FromFloat16(v, numbers[c.numbersK+at*padded(len(v)):][:len(v)])
	} else {
		codes := c.codes[page*(c.codesK+c.codesV):]
		matrix := func(codes []uint8, numbers []uint16, rows, cols int) kernel.KVCodes {
			m := kernel.KVCodes{Bits: c.bits, Rows: rows, Cols: cols, Codes: codes, Scales: numbers[:rows]}
			if c.bits == 4 {
				m.Mins = numbers[rows:]
			}
			return m
		}
		mk := matrix(codes[:c.codesK], numbers[:c.numbersK], padded(len(k)), group)
		mk.DequantizeCols(k, len(k), len(k), at, at+1)
		mv := matrix(codes[c.codesK:][:c.codesV], numbers[c.numbersK:], group, padded(len(v)))
		mv.DequantizeRows(v, len(v), len(v), at, at+1)
	}
	for x := k; c.rotate > 1 && len(x) > 0; x = x[c.rotate:] {
		turn(x[:c.rotate])
	}
}

// turn multiplies by the normalized Hadamard matrix.
func turn(x []float32) {
	for h := 1; h < len(x); h *= 2 {
		for i := range x {
			if i&h == 0 {
				x[i], x[i+h] = x[i]+x[i+h], x[i]-x[i+h]
			}
		}
	}
	for i := range x {
		x[i] *= float32(1 / math.Sqrt(float64(len(x))))
	}
}

var caches = []struct {
	cfg     kvcompress.Config
	rotated bool
	shape   kvcompress.Shape
	heads   int
	steps   []int // tokens appended, each with its queries
	attend  flashattn.Config
	sinks   bool
}{
	{kvcompress.Config{Ratio: 4, Recent: 20, GroupSize: 16, SinkTokens: 3}, false,
		kvcompress.Shape{Batch: 1, KVHeads: 2, HeadDim: 24, ValueDim: 40, Capacity: 200}, 4, []int{1, 30, 1, 70, 2, 1}, flashattn.Config{}, true},
	{kvcompress.Config{Ratio: 8, Recent: 32, GroupSize: 32, SinkTokens: 1, RecentFP16: true}, true,
		kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 24, ValueDim: 24, Capacity: 200}, 1, []int{60, 1, 9, 64, 1}, flashattn.Config{Softcap: 3}, false},
	{kvcompress.Config{Ratio: 2, Recent: 16, GroupSize: 16}, false,
		kvcompress.Shape{Batch: 2, KVHeads: 1, HeadDim: 7, ValueDim: 5, Capacity: 120}, 3, []int{40, 1, 5}, flashattn.Config{ALiBi: true}, false},
	{kvcompress.Config{Ratio: 8, Recent: 80, GroupSize: 80, SinkTokens: 2}, true,
		kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 16, ValueDim: 150, Capacity: 300}, 2, []int{100, 80, 1, 1}, flashattn.Config{Window: flashattn.Sliding(50)}, false},
	{kvcompress.Config{Ratio: 4, Recent: 16, GroupSize: 16, SinkTokens: 2, Window: 40}, false,
		kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 16, ValueDim: 16, Capacity: 200}, 1, []int{50, 1, 60, 1}, flashattn.Config{}, false},
}

// Codes are those of Compressed, bit for bit, however tokens are appended, and attention over them is its attention.
func TestKVCache(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for i, c := range caches {
		cpu, err := kvcompress.NewCompressed(c.shape, c.cfg)
		require.NoError(t, err)
		card := newCardCache(c.shape, c.cfg, c.rotated)
		require.Equal(t, c.rotated, cpu.Config().Rotate == kvcompress.RotateAlways)
		for j, seq := range c.steps {
			s.Schedule(j % 4)
			seed := uint64(10 * i)
			sh := c.shape
			q, k := random[float32](seed+1+uint64(j), sh.Batch*seq*c.heads*sh.HeadDim), random[float32](seed+2+uint64(j), sh.Batch*seq*sh.KVHeads*sh.HeadDim)
			v := random[float32](seed+3+uint64(j), sh.Batch*seq*sh.KVHeads*sh.ValueDim)
			counts := make([]int, sh.Batch)
			for b := range counts {
				counts[b] = max(0, seq-3*b)
			}
			var sinks []float32
			if c.sinks {
				sinks = random[float32](9, c.heads)
			}
			require.NoError(t, cpu.AppendSome(k, v, seq, counts))
			want := make([]float32, sh.Batch*seq*c.heads*sh.ValueDim)
			require.NoError(t, cpu.AttendSome(want, q, seq, c.heads, counts, c.attend, sinks))
			got, err := card.step(s, q, k, v, seq, c.heads, counts, c.attend, sinks)
			require.NoError(t, err, "cache %d, step %d", i, j)
			wantK, wantV := cpu.Decompress()
			gotK, gotV := card.decompress()
			require.Equal(t, wantK, gotK, "cache %d, step %d: keys", i, j)
			require.Equal(t, wantV, gotV, "cache %d, step %d: values", i, j)
			near(t, got, wide(want), 4e-6, 1, fmt.Sprintf("cache %d, step %d: attention", i, j))
		}
	}
	s.Schedule(0)
}
