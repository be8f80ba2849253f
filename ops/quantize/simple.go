package quantize

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"sync"

	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// DynamicQuantizer is the simple way in: it quantizes the layers of a model one by one, by name, to INT8 or INT4, and leaves
// critical ones alone: the output projection and the final norm, by the names of DefaultFP32Layers, and those that AddFP32Layer
// names. Report lists what became of each layer, and why. With InputINT8 in MatMul, inputs are quantized while the model runs:
// nothing but the weights is needed beforehand.
//
// INT8 takes a scale for each output, INT4 one for each 32 weights; scales are those of the weights that QuantizeWeights is
// given. Calibrate is optional: it records what a layer's weights are like, and QuantizeWeights then refuses others. The methods
// may be called from several goroutines.
type DynamicQuantizer struct {
	cfg Config

	mu     sync.Mutex
	fp32   []string
	layers map[string]Range
	report map[string]LayerReport
}

// LayerReport is what became of a layer.
type LayerReport struct {
	Layer     string
	Precision string // fp32, or that of Config: int4 per-group 32
	Why       string
	Weights   int // numbers
	Bytes     int // that QuantizeWeights packed them into, or that they take in float32
}

// DefaultFP32Layers are the patterns of path.Match of the layers that a new DynamicQuantizer keeps in full precision: the
// output projection and the final norm, as models call them. What they compute goes into the logits at once, with no layer
// behind that could make good for it.
func DefaultFP32Layers() []string {
	return []string{"lm_head*", "*.lm_head*", "output", "output.*", "embed_out*", "ln_f*", "*.ln_f*", "norm_f*", "*.norm_f*", "final_norm*", "model.norm*"}
}

// Range is what Calibrate saw of a layer's weights.
type Range struct {
	Min, Max float64
	Shape    tensor.Shape
}

// NewDynamicQuantizer returns a quantizer to the given number of bits, 8 or 4, that leaves DefaultFP32Layers alone.
func NewDynamicQuantizer(bits int) (*DynamicQuantizer, error) {
	d := &DynamicQuantizer{fp32: DefaultFP32Layers(), layers: map[string]Range{}, report: map[string]LayerReport{}}
	switch bits {
	case 8:
		d.cfg = Config{Scheme: INT8}
	case 4:
		d.cfg = Config{Scheme: INT4, Granularity: PerGroup, GroupSize: 32}
	default:
		return nil, fmt.Errorf("quantize.NewDynamicQuantizer: got %d bits, want 8 or 4", bits)
	}
	return d, nil
}

// Config is the format that layers are quantized to.
func (d *DynamicQuantizer) Config() Config { return d.cfg }

// AddFP32Layer keeps layers in full precision, besides those that are already. name may be a pattern of path.Match, such as
// "*.norm".
func (d *DynamicQuantizer) AddFP32Layer(name string) error {
	if err := checkPattern("quantize.AddFP32Layer", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.fp32, name) {
		d.fp32 = append(d.fp32, name)
	}
	return nil
}

// SetFP32Layers keeps in full precision what these names and patterns of path.Match say and nothing else, DefaultFP32Layers
// included; with none, all layers are quantized.
func (d *DynamicQuantizer) SetFP32Layers(names ...string) error {
	for _, name := range names {
		if err := checkPattern("quantize.SetFP32Layers", name); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fp32 = slices.Clone(names)
	return nil
}

func checkPattern(fn, name string) error {
	if _, err := path.Match(name, ""); err != nil || name == "" {
		return fmt.Errorf("%s: got %q, want a name or a pattern of path.Match", fn, name)
	}
	return nil
}

// IsFP32 reports whether a layer stays in full precision.
func (d *DynamicQuantizer) IsFP32(layer string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.pattern(layer)
	return ok
}

// pattern is the first that keeps a layer in full precision. d is locked.
func (d *DynamicQuantizer) pattern(layer string) (string, bool) {
	i := slices.IndexFunc(d.fp32, func(pattern string) bool {
		ok, _ := path.Match(pattern, layer)
		return ok || pattern == layer
	})
	if i < 0 {
		return "", false
	}
	return d.fp32[i], true
}

// Report says of each layer that QuantizeWeights was given in what precision it is and why, in the order of their names.
func (d *DynamicQuantizer) Report() []LayerReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []LayerReport
	for _, name := range slices.Sorted(maps.Keys(d.report)) {
		out = append(out, d.report[name])
	}
	return out
}

// note adds a layer to the report.
func (d *DynamicQuantizer) note(layer string, weights *tensor.Dense, p *Packed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := LayerReport{Layer: layer, Precision: "fp32"}
	if weights != nil {
		r.Weights = weights.Shape().TotalSize()
		r.Bytes = 4 * r.Weights
	}
	if p != nil {
		r.Precision, r.Bytes, r.Why = p.Config.String(), p.Bytes(), "kept by no name"
	}
	if pattern, ok := d.pattern(layer); ok {
		r.Why = fmt.Sprintf("kept by %q", pattern)
	}
	d.report[layer] = r
}

// Calibrate records the range of a layer's weights, together with what earlier calls recorded for the layer, and checks that
// they can be quantized. weights is a matrix of float32 or float64; it is only read.
func (d *DynamicQuantizer) Calibrate(layer string, weights *tensor.Dense) error {
	const fn = "quantize.Calibrate"
	r, err := rangeOf(weights)
	if err != nil {
		return fmt.Errorf("%s: layer %q: %w", fn, layer, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.layers[layer]; ok {
		if !old.Shape.Eq(r.Shape) {
			return fmt.Errorf("%s: layer %q: got shape %v, want %v as before", fn, layer, r.Shape, old.Shape)
		}
		r.Min, r.Max = min(r.Min, old.Min), max(r.Max, old.Max)
	}
	d.layers[layer] = r
	return nil
}

// CalibrateAll calibrates all layers that are not kept in full precision, in the order of their names. It stops at the first
// error.
func (d *DynamicQuantizer) CalibrateAll(layers map[string]*tensor.Dense) error {
	for _, name := range slices.Sorted(maps.Keys(layers)) {
		if d.IsFP32(name) {
			continue
		}
		if err := d.Calibrate(name, layers[name]); err != nil {
			return err
		}
	}
	return nil
}

// Calibrated returns the range recorded for a layer.
func (d *DynamicQuantizer) Calibrated(layer string) (Range, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.layers[layer]
	return r, ok
}

// rangeOf reads a matrix.
func rangeOf(w *tensor.Dense) (Range, error) {
	if w == nil || w.Shape().Dims() != 2 || w.Shape().TotalSize() == 0 {
		return Range{}, fmt.Errorf("got %v, want a matrix", describe(w))
	}
	r := Range{Shape: w.Shape().Clone(), Min: math.Inf(1), Max: math.Inf(-1)}
	var err error
	each := func(i int, x float64) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			if err == nil {
				err = fmt.Errorf("w[%d, %d]: got %v, want a finite number", i/w.Shape()[1], i%w.Shape()[1], x)
			}
			return
		}
		r.Min, r.Max = min(r.Min, x), max(r.Max, x)
	}
	switch w.Dtype() {
	case tensor.Float32:
		x, e := op.Data[float32](w)
		if e != nil {
			return r, e
		}
		for i, v := range x {
			each(i, float64(v))
		}
	case tensor.Float64:
		x, e := op.Data[float64](w)
		if e != nil {
			return r, e
		}
		for i, v := range x {
			each(i, v)
		}
	default:
		return r, fmt.Errorf("got dtype %v, want float32 or float64", w.Dtype())
	}
	return r, err
}

func describe(w *tensor.Dense) string {
	if w == nil {
		return "nil"
	}
	return fmt.Sprintf("shape %v", w.Shape())
}

// QuantizeWeights packs a layer's weights of shape (inputs, outputs). Of a layer that stays in full precision it returns nil.
// A layer that was calibrated must have the shape that it had then, and weights within the range that was recorded.
func (d *DynamicQuantizer) QuantizeWeights(layer string, weights *tensor.Dense) (*Packed, error) {
	const fn = "quantize.QuantizeWeights"
	if d.IsFP32(layer) {
		d.note(layer, weights, nil)
		return nil, nil
	}
	if want, ok := d.Calibrated(layer); ok {
		got, err := rangeOf(weights)
		if err != nil {
			return nil, fmt.Errorf("%s: layer %q: %w", fn, layer, err)
		}
		if !got.Shape.Eq(want.Shape) {
			return nil, fmt.Errorf("%s: layer %q: got shape %v, want %v as calibrated", fn, layer, got.Shape, want.Shape)
		}
		if got.Min < want.Min || got.Max > want.Max {
			return nil, fmt.Errorf("%s: layer %q: got weights from %g to %g, want %g to %g as calibrated", fn, layer, got.Min, got.Max, want.Min, want.Max)
		}
	}
	p, err := Quantize(weights, d.cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: layer %q: %w", fn, layer, err)
	}
	d.note(layer, weights, p)
	return p, nil
}

// Dequantize returns the weights that p stands for, as Packed.Dequantize does.
func (d *DynamicQuantizer) Dequantize(p *Packed) (*tensor.Dense, error) { return p.Dequantize() }
