package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// plainCache is the key and value cache of a graph of Plain nodes. Gorgonia has no node that writes to a cache, so the
// cached tensors are inputs, and what a run adds is copied into them afterwards.
//
// They have one row more than the capacity, always zero: it is where the token of the run stands in the scores.
type plainCache struct {
	units, headDim, capacity, window int
	k, v                             []*tensor.Dense // one a layer, (units, capacity+1, headDim), units = kvHeads
	mask                             *tensor.Dense   // (units, group, capacity+1): 0 where a token is cached and in reach
	n                                int
}

func newPlainCache(m *Model, capacity int) *plainCache {
	cfg := m.cfg
	c := &plainCache{units: cfg.KVHeads, headDim: cfg.HeadDim, capacity: capacity, window: cfg.Window}
	rows := capacity + 1
	for range cfg.Layers {
		c.k = append(c.k, dense(make([]float32, c.units*rows*c.headDim), []int{c.units, rows, c.headDim}))
		c.v = append(c.v, dense(make([]float32, c.units*rows*c.headDim), []int{c.units, rows, c.headDim}))
	}
	group := cfg.Heads / cfg.KVHeads
	c.mask = dense(make([]float32, c.units*group*rows), []int{c.units, group, rows})
	c.setMask()
	return c
}

// setMask shows the token that comes next what it may see.
func (c *plainCache) setMask() {
	mask := c.mask.Data().([]float32)
	for i := range mask {
		j := i % (c.capacity + 1)
		mask[i] = hidden
		if j == c.capacity || j < c.n && (c.window == 0 || j > c.n-c.window) {
			mask[i] = 0
		}
	}
}

// add copies the keys and values that a run of seq tokens has made.
func (c *plainCache) add(kv [][2]*G.Node, seq int) error {
	if c.n+seq > c.capacity {
		return fmt.Errorf("stheno: got %d tokens on top of %d, want at most %d in all", seq, c.n, c.capacity)
	}
	for l, pair := range kv {
		for i, to := range []*tensor.Dense{c.k[l], c.v[l]} {
			from, ok := pair[i].Value().Data().([]float32)
			if !ok || len(from) != c.units*seq*c.headDim {
				return fmt.Errorf("stheno: layer %d: got %T of keys or values, want %d float32", l, pair[i].Value().Data(), c.units*seq*c.headDim)
			}
			dst := to.Data().([]float32)
			for u := range c.units {
				copy(dst[(u*(c.capacity+1)+c.n)*c.headDim:], from[u*seq*c.headDim:(u+1)*seq*c.headDim])
			}
		}
	}
	c.n += seq
	c.setMask()
	return nil
}

func (c *plainCache) truncate(n int) {
	c.n = n
	c.setMask()
}

func (c *plainCache) bytes() int64 {
	var n int64
	for l := range c.k {
		n += int64(c.k[l].MemSize() + c.v[l].MemSize())
	}
	return n
}

// plainPast are the nodes of a plainCache.
type plainPast struct {
	k, v  []*G.Node
	mask  *G.Node
	place *G.Node // (units, 1, capacity+1): 1 at the last row
}

func newPlainPast(t *plain, c *plainCache) *plainPast {
	input := func(name string, v *tensor.Dense) *G.Node {
		return G.NewTensor(t.g, v.Dtype(), v.Dims(), G.WithName(name), G.WithShape(v.Shape()...), G.WithValue(v))
	}
	rows := c.capacity + 1
	place := make([]float64, c.units*rows)
	for u := range c.units {
		place[u*rows+c.capacity] = 1
	}
	p := &plainPast{mask: input("past.mask", c.mask), place: t.constant("past.place", place, c.units, 1, rows)}
	for l := range c.k {
		p.k = append(p.k, input(fmt.Sprintf("past.%d.k", l), c.k[l]))
		p.v = append(p.v, input(fmt.Sprintf("past.%d.v", l), c.v[l]))
	}
	return p
}

// attend attends one query a head over the cache and the token itself, whose score and weight are moved to and from the
// spare row by products with place. Nothing of the cache is copied.
func (p *plainPast) attend(t *plain, layer int, q, k, v *G.Node) *G.Node {
	own := t.batched(t.scores(q, k), p.place, false)
	s := t.add(t.add(t.scores(q, p.k[layer]), own), p.mask)
	w := t.weights(s)
	own = t.batched(t.batched(w, p.place, true), v, false)
	return t.add(t.batched(w, p.v[layer], false), own)
}
