package kvcompress

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync/atomic"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/ops"
	"stheno/ops/flashattn"
)

// attends numbers the nodes, so that Gorgonia merges no two: each of them changes its cache.
var attends atomic.Uint64

// Attend appends k and v to the cache and attends q over everything in it. The result is (batch, seq, heads, valueDim).
//
// pos is an integer scalar: the position of the first new token, which must be the number of tokens cached when the node
// runs. For a Ragged cache it may be a vector (batch) instead, with the position of each sequence. A position that is not the
// next one and a cache that has no room are errors of the run, and leave the cache unchanged. cfg may set Scale, Softcap, ALiBi,
// Window and Sinks; Causal is implied. Rotary positions, if the model has them, are in q and k already (ops.RoPE).
func Attend(q, k, v, pos *G.Node, cache Cache, cfg flashattn.Config) (*G.Node, error) {
	return newAttend("kvcompress.Attend", apart(q, k, v), pos, nil, cache, cfg)
}

// AttendQKV is Attend of queries, keys and values that lie in one vector, as size says and ops.Linears makes it. The heads of its
// result are joined: (batch, seq, heads·headDim).
func AttendQKV(qkv, pos *G.Node, size ops.QKV, cache Cache, cfg flashattn.Config) (*G.Node, error) {
	return newAttend("kvcompress.AttendQKV", joined(qkv, size), pos, nil, cache, cfg)
}

// AttendSome is Attend for sequences of which counts (batch), integers from 0 to seq, says how many of the seq new tokens each has:
// prompts of different lengths, filled up at the end, and sequences that have ended. The other tokens are not cached, and their
// outputs are 0. The cache must be Ragged.
func AttendSome(q, k, v, pos, counts *G.Node, cache Cache, cfg flashattn.Config) (*G.Node, error) {
	const fn = "kvcompress.AttendSome"
	if counts == nil {
		return nil, fmt.Errorf("%s: counts: got a nil node, want a node of the graph", fn)
	}
	return newAttend(fn, apart(q, k, v), pos, counts, cache, cfg)
}

// source is where queries, keys and values come from: three nodes, or a vector.
type source struct {
	args  []op.Arg
	joint bool
	// check reports sizes other than those of the cache, and gives the number of tokens and of query heads.
	check func(fn string, s Shape) (seq, heads int, err error)
}

func apart(q, k, v *G.Node) source {
	args := []op.Arg{{Name: "q", Node: q}, {Name: "k", Node: k}, {Name: "v", Node: v}}
	return source{args: args, check: func(fn string, s Shape) (seq, heads int, err error) {
		if err := op.CheckRank(fn, args[0], 4); err != nil {
			return 0, 0, err
		}
		seq, heads = q.Shape()[1], q.Shape()[2]
		if err := s.checkQueries(fn, "q", seq, heads); err != nil {
			return 0, 0, err
		}
		for i, want := range [][2]int{{heads, s.HeadDim}, {s.KVHeads, s.HeadDim}, {s.KVHeads, s.ValueDim}} {
			if err := op.CheckShape(fn, args[i], s.Batch, seq, want[0], want[1]); err != nil {
				return 0, 0, err
			}
		}
		return seq, heads, nil
	}}
}

func joined(qkv *G.Node, size ops.QKV) source {
	arg := op.Arg{Name: "qkv", Node: qkv}
	return source{args: []op.Arg{arg}, joint: true, check: func(fn string, s Shape) (seq, heads int, err error) {
		want := ops.QKV{Batch: s.Batch, Seq: size.Seq, Heads: size.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim}
		if size != want || s.ValueDim != s.HeadDim {
			return 0, 0, fmt.Errorf("%s: QKV: got %+v, want the batch, heads and widths of the cache's %+v", fn, size, s)
		}
		if err := s.checkQueries(fn, "QKV", size.Seq, size.Heads); err != nil {
			return 0, 0, err
		}
		if err := op.CheckRank(fn, arg, 1); err != nil {
			return 0, 0, err
		}
		return size.Seq, size.Heads, op.CheckShape(fn, arg, size.Size())
	}}
}

// checkQueries reports numbers of tokens and query heads that do not fit a cache.
func (s Shape) checkQueries(fn, name string, seq, heads int) error {
	if seq < 1 || seq > s.Capacity {
		return fmt.Errorf("%s: %s: got %d tokens, want 1 to the capacity %d", fn, name, seq, s.Capacity)
	}
	if heads < 1 || heads%s.KVHeads != 0 {
		return fmt.Errorf("%s: %s: got %d heads, want a multiple of %d", fn, name, heads, s.KVHeads)
	}
	return nil
}

func newAttend(fn string, from source, pos, counts *G.Node, cache Cache, cfg flashattn.Config) (*G.Node, error) {
	ap := op.Arg{Name: "pos", Node: pos}
	ac, as := op.Arg{Name: "counts", Node: counts}, op.Arg{Name: "Config.Sinks", Node: cfg.Sinks}
	args := append(slices.Clone(from.args), ap)
	if counts != nil {
		args = append(args, ac)
	}
	if cfg.Sinks != nil {
		args = append(args, as)
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
		if a.Name == "pos" || a.Name == "counts" {
			continue
		}
		if dt := a.Node.Dtype(); dt != tensor.Float32 {
			return nil, fmt.Errorf("%s: %s: got dtype %v, want float32", fn, a.Name, dt)
		}
	}
	if err := op.CheckInteger(fn, ap); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, ap, 0, 1); err != nil {
		return nil, err
	}
	s := cache.Shape()
	seq, heads, err := from.check(fn, s)
	if err != nil {
		return nil, err
	}
	if cfg.Sinks != nil {
		if err := op.CheckShape(fn, as, heads); err != nil {
			return nil, err
		}
	}
	if pos.Dims() == 1 {
		if err := op.CheckShape(fn, ap, s.Batch); err != nil {
			return nil, err
		}
	}
	if counts != nil {
		if err := op.CheckInteger(fn, ac); err != nil {
			return nil, err
		}
		if err := op.CheckShape(fn, ac, s.Batch); err != nil {
			return nil, err
		}
	}
	if _, ok := cache.(Ragged); !ok && (counts != nil || pos.Dims() == 1) {
		return nil, fmt.Errorf("%s: cache: got a %T, want a Ragged cache for positions or counts of each sequence", fn, cache)
	}
	in := make([]*G.Node, len(args))
	for i, a := range args {
		in[i] = a.Node
	}
	shape := tensor.Shape{s.Batch, seq, heads, s.ValueDim}
	if from.joint {
		shape = tensor.Shape{s.Batch, seq, heads * s.ValueDim}
	}
	o := &attend{
		Base:  op.NewBase(fn, attends.Add(1), shape, tensor.Float32, in...),
		cache: cache, cfg: cfg, seq: seq, heads: heads, mains: len(from.args), counted: counts != nil,
	}
	o.cfg.Sinks, o.cfg.Causal = nil, true
	return op.Apply(attendOpFor(o), in...)
}

// checkConfig reports what attention over a cache does not do, and numbers that are none.
func checkConfig(fn string, cfg flashattn.Config) error {
	switch {
	case cfg.Dropout != 0:
		return fmt.Errorf("%s: Config.Dropout: got %v, want 0", fn, cfg.Dropout)
	case cfg.Precision != flashattn.Float32:
		return fmt.Errorf("%s: Config.Precision: got %v, want float32: the cache has a precision of its own", fn, cfg.Precision)
	case cfg.Bias != nil:
		return fmt.Errorf("%s: Config.Bias: got a node, want none", fn)
	case cfg.CuSeqlensQ != nil || cfg.CuSeqlensKV != nil:
		return fmt.Errorf("%s: Config.CuSeqlensQ and CuSeqlensKV: got nodes, want none", fn)
	case cfg.Step != nil:
		return fmt.Errorf("%s: Config.Step: got a node, want none", fn)
	case math.IsNaN(cfg.Scale) || math.IsInf(cfg.Scale, 0):
		return fmt.Errorf("%s: Config.Scale: got %v, want a finite number", fn, cfg.Scale)
	case !(cfg.Softcap >= 0) || math.IsInf(cfg.Softcap, 0):
		return fmt.Errorf("%s: Config.Softcap: got %v, want 0 or a positive number", fn, cfg.Softcap)
	case cfg.Window.Limited && (cfg.Window.Left < -1 || cfg.Window.Right < -1):
		return fmt.Errorf("%s: Config.Window: got left %d and right %d, want at least -1", fn, cfg.Window.Left, cfg.Window.Right)
	}
	return nil
}

// attend has the inputs q, k and v, or the vector of all three, then pos, possibly counts, and possibly sinks.
type attend struct {
	op.Base
	cache      Cache
	cfg        flashattn.Config
	seq, heads int
	mains      int // the number of inputs that q, k and v are
	counted    bool
}

var _ G.SDOp = (*attend)(nil)

func (o *attend) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	pos, err := op.Ints(in[o.mains])
	if err != nil {
		return nil, fmt.Errorf("%s: pos: %w", o.Name(), err)
	}
	before, err := o.checkPositions(pos)
	if err != nil {
		return nil, err
	}
	data, err := o.numbers(in)
	if err != nil {
		return nil, err
	}
	var counts []int
	rest := in[o.mains+1:]
	if o.counted {
		if counts, err = op.Ints(rest[0]); err != nil {
			return nil, fmt.Errorf("%s: counts: %w", o.Name(), err)
		}
		rest = rest[1:]
	}
	var sinks []float32
	if len(rest) > 0 {
		if sinks, err = op.Data[float32](rest[0]); err != nil {
			return nil, fmt.Errorf("%s: sinks: %w", o.Name(), err)
		}
		if len(sinks) != o.heads {
			return nil, fmt.Errorf("%s: sinks: got %d elements, want %d", o.Name(), len(sinks), o.heads)
		}
	}
	out, mem := op.New[float32](o.OutShape())
	if err := o.append(data[1], data[2], counts); err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done { // an error or a panic
			if undo := o.truncate(before); undo != nil && err != nil {
				err = fmt.Errorf("%w; and forgetting the tokens again: %w", err, undo)
			}
		}
	}()
	if o.counted {
		err = o.cache.(Ragged).AttendSome(mem, data[0], o.seq, o.heads, counts, o.cfg, sinks)
	} else {
		err = o.cache.Attend(mem, data[0], o.seq, o.heads, o.cfg, sinks)
	}
	if err != nil {
		return nil, err
	}
	done = true
	return out, nil
}

// numbers are those of q, k and v.
func (o *attend) numbers(in []G.Value) (data [3][]float32, err error) {
	for i := range o.mains {
		if data[i], err = op.Data[float32](in[i]); err != nil {
			return data, fmt.Errorf("%s: input %d: %w", o.Name(), i, err)
		}
	}
	s := o.cache.Shape()
	queries, keys := s.Batch*o.seq*o.heads*s.HeadDim, s.Batch*o.seq*s.KVHeads*s.HeadDim
	if o.mains == 1 {
		if want := queries + 2*keys; len(data[0]) != want {
			return data, fmt.Errorf("%s: qkv: got %d elements, want %d", o.Name(), len(data[0]), want)
		}
		all := data[0]
		return [3][]float32{all[:queries], all[queries : queries+keys], all[queries+keys:]}, nil
	}
	if len(data[0]) != queries {
		return data, fmt.Errorf("%s: q: got %d elements, want %d", o.Name(), len(data[0]), queries)
	}
	return data, nil
}

// checkPositions returns the lengths of all sequences, one for all if the cache has no others, and reports positions that are
// not those.
func (o *attend) checkPositions(got []int) ([]int, error) {
	lens := []int{o.cache.Len()}
	if c, ok := o.cache.(Ragged); ok {
		lens = make([]int, o.cache.Shape().Batch)
		for b := range lens {
			lens[b] = c.LenOf(b)
		}
	}
	if len(got) != 1 && len(got) != len(lens) {
		return nil, fmt.Errorf("%s: pos: got %d positions, want 1 or %d", o.Name(), len(got), len(lens))
	}
	for b, n := range lens {
		if p := got[min(b, len(got)-1)]; p != n {
			return nil, fmt.Errorf("%s: pos: got %d, want %d, the number of tokens cached", o.Name(), p, n)
		}
	}
	return lens, nil
}

func (o *attend) append(k, v []float32, counts []int) error {
	if o.counted {
		return o.cache.(Ragged).AppendSome(k, v, o.seq, counts)
	}
	return o.cache.Append(k, v, o.seq)
}

func (o *attend) truncate(lens []int) error {
	if c, ok := o.cache.(Ragged); ok {
		return c.TruncateEach(lens)
	}
	return o.cache.Truncate(lens[0])
}

func (o *attend) DiffWRT(n int) []bool { return make([]bool, n) }

func (o *attend) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: not differentiable", o.Name())
}
