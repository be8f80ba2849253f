package quantize

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// RecorderConfig configures a Recorder.
type RecorderConfig struct {
	// Momentum is the weight of what came before in moving averages, at least 0 and below 1. 0 means 0.9.
	Momentum float64

	// Moments also records the second moments of each layer's channels, which GPTQ needs: 4·n·(n+1) bytes for n channels.
	Moments bool
}

// Recorder records what flows through the nodes of graphs: calibration on real activations. Tap a graph's nodes, run the graph on
// text that is like what will be seen later, then ask for Stats.
//
// A layer may be tapped several times, in one graph or in many, and graphs may run at the same time: all adds up. Of what
// Stats holds, only the moving averages depend on the order of runs, and the moments in their last bits.
type Recorder struct {
	cfg RecorderConfig

	mu     sync.Mutex
	layers map[string]*record
	order  []string
}

// record is one layer.
type record struct {
	layer    string
	channels int
	momentum float64
	moments  bool

	mu    sync.Mutex
	stats Stats
}

// NewRecorder returns a recorder that has seen nothing.
func NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	if cfg.Momentum == 0 {
		cfg.Momentum = 0.9
	}
	if !(cfg.Momentum > 0 && cfg.Momentum < 1) {
		return nil, fmt.Errorf("quantize.NewRecorder: Momentum: got %v, want 0 or more, below 1", cfg.Momentum)
	}
	return &Recorder{cfg: cfg, layers: map[string]*record{}}, nil
}

// Tap adds a node to x's graph that observes x, float32 or float64 of rank 1 or more, each time the graph runs. The last dimension
// is the layer's channels. The node has no reader and lets no gradient through; Gorgonia's machines run it all the same. A number
// that is not finite stops the run with an error that names the layer, and is not recorded.
func (r *Recorder) Tap(layer string, x *G.Node) error {
	const fn = "quantize.Tap"
	if r == nil {
		return fmt.Errorf("%s: got a nil Recorder, want one of NewRecorder", fn)
	}
	if layer == "" {
		return fmt.Errorf("%s: layer: got no name, want one", fn)
	}
	a := op.Arg{Name: "x", Node: x}
	if err := op.CheckArgs(fn, a); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, a); err != nil {
		return err
	}
	shape := x.Shape()
	if shape.Dims() < 1 || shape.TotalSize() < 1 {
		return fmt.Errorf("%s: layer %q: x: got shape %v, want rank 1 or more, and every dimension at least 1", fn, layer, shape)
	}
	rec, err := r.record(fn, layer, shape[shape.Dims()-1])
	if err != nil {
		return err
	}
	attrs := struct {
		Layer  string
		Serial uint64 // two taps of one node are two observations, and must not merge
	}{layer, tapCount.Add(1)}
	// A scalar, as the LispMachine wants of a node that nothing reads.
	_, err = G.ApplyOp(&tap{op.NewBase(fn, attrs, tensor.ScalarShape(), x.Dtype(), x), rec, x.Dtype(), shape.TotalSize()}, x)
	return err
}

var tapCount atomic.Uint64

// record returns the layer's record, a new one for a new layer.
func (r *Recorder) record(fn, layer string, channels int) (*record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.layers[layer]
	switch {
	case !ok:
		rec = &record{layer: layer, channels: channels, momentum: r.cfg.Momentum, moments: r.cfg.Moments}
		if rec.moments && channels > kernel.MaxQuantizedRows {
			return nil, fmt.Errorf("%s: layer %q: got %d channels, want at most %d for moments", fn, layer, channels, kernel.MaxQuantizedRows)
		}
		r.layers[layer] = rec
		r.order = append(r.order, layer)
	case rec.channels != channels:
		return nil, fmt.Errorf("%s: layer %q: got %d channels, want %d as tapped before", fn, layer, channels, rec.channels)
	}
	return rec, nil
}

// Layers are the names of the layers, in the order in which they were first tapped.
func (r *Recorder) Layers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.order)
}

// Stats returns a copy of what was recorded of a layer. A layer that was not tapped, or whose graph has not run, is an error.
func (r *Recorder) Stats(layer string) (*Stats, error) {
	const fn = "quantize.Stats"
	r.mu.Lock()
	rec, ok := r.layers[layer]
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%s: layer %q: got a layer that was not tapped, want one of %q", fn, layer, r.Layers())
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.stats.Runs == 0 {
		return nil, fmt.Errorf("%s: layer %q: got no runs of its graph, want at least one", fn, layer)
	}
	return rec.stats.clone(), nil
}

// Reset forgets what was recorded. The taps stay.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.layers {
		rec.mu.Lock()
		rec.stats = Stats{}
		rec.mu.Unlock()
	}
}

// observe adds a run.
func (rec *record) observe(x *tensor.Dense) error {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.moments && rec.stats.Moments == nil {
		m, err := NewMoments(rec.channels)
		if err != nil {
			return err
		}
		rec.stats.Moments = m
	}
	return rec.stats.Observe(x, rec.momentum)
}

// tap observes its input. What it writes to is the Recorder's, under a lock.
type tap struct {
	op.Base
	rec   *record
	dtype tensor.Dtype
	size  int
}

var _ G.SDOp = (*tap)(nil)

func (o *tap) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if len(in) != 1 {
		return nil, fmt.Errorf("%s: got %d inputs, want 1", o.Name(), len(in))
	}
	x, ok := in[0].(*tensor.Dense)
	if !ok || x == nil {
		return nil, fmt.Errorf("%s: layer %q: got a value of type %T, want *tensor.Dense", o.Name(), o.rec.layer, in[0])
	}
	if x.Dims() < 1 || x.Shape().TotalSize() != o.size || x.Shape()[x.Dims()-1] != o.rec.channels {
		return nil, fmt.Errorf("%s: layer %q: got a value of shape %v, want %d numbers in %d channels", o.Name(), o.rec.layer, x.Shape(), o.size, o.rec.channels)
	}
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if err := o.rec.observe(x); err != nil {
		return nil, fmt.Errorf("%s: layer %q: %w", o.Name(), o.rec.layer, err)
	}
	if o.dtype == tensor.Float64 {
		return op.NewScalar(float64(0)), nil
	}
	return op.NewScalar(float32(0)), nil
}

// DiffWRT: nothing.
func (o *tap) DiffWRT(n int) []bool { return make([]bool, n) }

// SymDiff is never asked for.
func (o *tap) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: not differentiable", o.Name())
}
