package kvcompress

import (
	"fmt"
	"reflect"
	"sync/atomic"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/ops/flashattn"
)

// attends numbers the nodes, so that Gorgonia merges no two: each of them changes its cache.
var attends atomic.Uint64

// Attend appends k and v to the cache and attends q over everything in it. The result is (batch, seq, heads, valueDim).
//
// pos is an integer scalar: the position of the first new token, which must be the number of tokens cached when the node
// runs. A position that is not the next one and a cache that has no room are errors of the run, and leave the cache
// unchanged. cfg may set Scale, Softcap, ALiBi, Window and Sinks; Causal is implied.
func Attend(q, k, v, pos *G.Node, cache Cache, cfg flashattn.Config) (*G.Node, error) {
	const fn = "kvcompress.Attend"
	aq, ak, av := op.Arg{Name: "q", Node: q}, op.Arg{Name: "k", Node: k}, op.Arg{Name: "v", Node: v}
	ap := op.Arg{Name: "pos", Node: pos}
	args := []op.Arg{aq, ak, av, ap}
	if cfg.Sinks != nil {
		args = append(args, op.Arg{Name: "Config.Sinks", Node: cfg.Sinks})
	}
	if cache == nil || reflect.ValueOf(cache).Kind() == reflect.Pointer && reflect.ValueOf(cache).IsNil() {
		return nil, fmt.Errorf("%s: cache: got nil, want a Cache", fn)
	}
	if err := op.CheckArgs(fn, args...); err != nil {
		return nil, err
	}
	if err := checkConfig(fn, cfg); err != nil {
		return nil, err
	}
	for _, a := range args {
		if a.Name == "pos" {
			continue
		}
		if dt := a.Node.Dtype(); dt != tensor.Float32 {
			return nil, fmt.Errorf("%s: %s: got dtype %v, want float32", fn, a.Name, dt)
		}
	}
	if err := op.CheckInteger(fn, ap); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, ap, 0); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, aq, 4); err != nil {
		return nil, err
	}
	s, seq, heads := cache.Shape(), q.Shape()[1], q.Shape()[2]
	if seq < 1 || seq > s.Capacity {
		return nil, fmt.Errorf("%s: q: got %d tokens, want 1 to the capacity %d", fn, seq, s.Capacity)
	}
	if heads < 1 || heads%s.KVHeads != 0 {
		return nil, fmt.Errorf("%s: q: got %d heads, want a multiple of %d", fn, heads, s.KVHeads)
	}
	for _, err := range []error{
		op.CheckShape(fn, aq, s.Batch, seq, heads, s.HeadDim),
		op.CheckShape(fn, ak, s.Batch, seq, s.KVHeads, s.HeadDim),
		op.CheckShape(fn, av, s.Batch, seq, s.KVHeads, s.ValueDim),
	} {
		if err != nil {
			return nil, err
		}
	}
	if cfg.Sinks != nil {
		if err := op.CheckShape(fn, args[4], heads); err != nil {
			return nil, err
		}
	}
	in := make([]*G.Node, len(args))
	for i, a := range args {
		in[i] = a.Node
	}
	o := &attend{
		Base:  op.NewBase(fn, attends.Add(1), tensor.Shape{s.Batch, seq, heads, s.ValueDim}, tensor.Float32, in...),
		cache: cache, cfg: cfg, seq: seq, heads: heads,
	}
	o.cfg.Sinks, o.cfg.Causal = nil, true
	return G.ApplyOp(o, in...)
}

func checkConfig(fn string, cfg flashattn.Config) error {
	switch {
	case cfg.Dropout != 0:
		return fmt.Errorf("%s: Config.Dropout: got %v, want 0", fn, cfg.Dropout)
	case cfg.Bias != nil:
		return fmt.Errorf("%s: Config.Bias: got a node, want none", fn)
	case cfg.CuSeqlensQ != nil || cfg.CuSeqlensKV != nil:
		return fmt.Errorf("%s: Config.CuSeqlensQ and CuSeqlensKV: got nodes, want none", fn)
	case cfg.Step != nil:
		return fmt.Errorf("%s: Config.Step: got a node, want none", fn)
	}
	return nil
}

// attend has the inputs q, k, v, pos and possibly sinks.
type attend struct {
	op.Base
	cache      Cache
	cfg        flashattn.Config
	seq, heads int
}

var _ G.SDOp = (*attend)(nil)

func (o *attend) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if len(in) != o.Arity() {
		return nil, fmt.Errorf("%s: got %d inputs, want %d", o.Name(), len(in), o.Arity())
	}
	pos, err := op.Int(in[3])
	if err != nil {
		return nil, fmt.Errorf("%s: pos: %w", o.Name(), err)
	}
	before := o.cache.Len()
	if pos != before {
		return nil, fmt.Errorf("%s: pos: got %d, want %d, the number of tokens cached", o.Name(), pos, before)
	}
	var data [3][]float32
	for i := range data {
		if data[i], err = op.Data[float32](in[i]); err != nil {
			return nil, fmt.Errorf("%s: input %d: %w", o.Name(), i, err)
		}
	}
	var sinks []float32
	if len(in) > 4 {
		if sinks, err = op.Data[float32](in[4]); err != nil {
			return nil, fmt.Errorf("%s: sinks: %w", o.Name(), err)
		}
	}
	if err := o.cache.Append(data[1], data[2], o.seq); err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done { // an error or a panic
			if undo := o.cache.Truncate(before); undo != nil && err != nil {
				err = fmt.Errorf("%w; and forgetting the tokens again: %w", err, undo)
			}
		}
	}()
	out, mem := op.New[float32](o.OutShape())
	if err := o.cache.Attend(mem, data[0], o.seq, o.heads, o.cfg, sinks); err != nil {
		return nil, err
	}
	done = true
	return out, nil
}

func (o *attend) DiffWRT(n int) []bool { return make([]bool, n) }

func (o *attend) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: not differentiable", o.Name())
}
