package ops

import (
	"errors"
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// AdamWConfig configures NewAdamW.
type AdamWConfig struct {
	// LR is the learning rate, the peak where there is a Schedule. 0 means 0.001.
	LR float64
	// Beta1 and Beta2 are the decay rates of the moments, in (0, 1). 0 means 0.9 and 0.999.
	Beta1, Beta2 float64
	// Eps is added to the root of the second moment. 0 means 1e-8.
	Eps float64
	// WeightDecay is λ: each step takes LR·λ of a parameter away. 0 means none; 0.1 is common for language models.
	WeightDecay float64
	// NoDecay names the parameters without weight decay, as biases and gains of norms should be. nil means none of them.
	NoDecay func(name string) bool
	// Clip is the largest L2 norm of all gradients together; larger ones are scaled down to it. 0 means no limit.
	Clip float64
	// Schedule is the course of the learning rate. The zero value is constant.
	Schedule Schedule
}

// ErrNonFinite is what Step's error wraps when a gradient holds a NaN or an infinity.
var ErrNonFinite = errors.New("gradient is not finite")

// AdamW is a gorgonia.Solver: Adam with decoupled weight decay and clipping by the global norm.
//
//	c = min(1, Clip/‖g‖), ‖g‖ over all parameters
//	m = β₁·m + (1−β₁)·c·g      v = β₂·v + (1−β₂)·(c·g)²
//	θ = θ − η·λ·θ − η·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + Eps),  η = LR·Schedule.At(step)
//
// t counts the steps of the parameter, so that one that joins later starts like the others did. The decay is scaled by the
// learning rate and follows its schedule, as is usual in practice; the paper has a factor of the schedule alone.
//
// Parameters are told apart by name. Their values and gradients are tensors or scalars of float32 or float64; values
// must be contiguous. The gradients of gorgonia.Grad serve with and without gorgonia.BindDualValues. With it, and on a
// LispMachine, gradients add up over runs until Step zeroes them; without it they are values of the run, which Step leaves
// alone. The result has the same bits at any thread count. Where parameters and gradients lie on a card, the step is made there, and
// an error of the card in the middle of it leaves some parameters updated. An AdamW must not be used from two
// goroutines at once.
//
// Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019 (arXiv 1711.05101), algorithm 2; clipping:
// Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, algorithm 1.
type AdamW struct {
	cfg     AdamWConfig
	step    int
	norm    float64
	card    bool // the last step was made there
	moments map[string]*adamMoments

	// Work of one step, kept to be allocated once.
	f32   adamGroup[float32]
	f64   adamGroup[float64]
	names map[string]bool
}

var _ G.Solver = (*AdamW)(nil)

// adamMoments is what a parameter has learnt: m and v have its shape and dtype.
type adamMoments struct {
	m, v  *tensor.Dense
	steps int
	leave func() error // moves m and v from the card; nil where they are not there
}

// Config returns the settings that the solver was made with, defaults filled in.
func (s *AdamW) Config() AdamWConfig { return s.cfg }

// NewAdamW returns a solver that has made no step.
func NewAdamW(cfg AdamWConfig) (*AdamW, error) {
	const fn = "ops.NewAdamW"
	for _, f := range []struct {
		value  *float64
		preset float64
	}{{&cfg.LR, 1e-3}, {&cfg.Beta1, 0.9}, {&cfg.Beta2, 0.999}, {&cfg.Eps, 1e-8}} {
		if *f.value == 0 {
			*f.value = f.preset
		}
	}
	for _, f := range []struct {
		name  string
		value float64
		ok    bool
		want  string
	}{
		{"LR", cfg.LR, cfg.LR > 0, "a positive number, or 0 for 0.001"},
		{"Beta1", cfg.Beta1, cfg.Beta1 > 0 && cfg.Beta1 < 1, "a number in (0, 1), or 0 for 0.9"},
		{"Beta2", cfg.Beta2, cfg.Beta2 > 0 && cfg.Beta2 < 1, "a number in (0, 1), or 0 for 0.999"},
		{"Eps", cfg.Eps, cfg.Eps > 0, "a positive number, or 0 for 1e-8"},
		{"WeightDecay", cfg.WeightDecay, cfg.WeightDecay >= 0, "a number of at least 0"},
		{"Clip", cfg.Clip, cfg.Clip >= 0, "a positive number, or 0 for no limit"},
	} {
		if !f.ok || math.IsInf(f.value, 0) {
			return nil, fmt.Errorf("%s: %s: got %v, want %s", fn, f.name, f.value, f.want)
		}
	}
	if err := cfg.Schedule.check(fn); err != nil {
		return nil, err
	}
	return &AdamW{cfg: cfg, moments: map[string]*adamMoments{}, names: map[string]bool{}}, nil
}

// Steps returns how many steps were made.
func (s *AdamW) Steps() int { return s.step }

// LR returns the learning rate of the last step, before the first one that of the first.
func (s *AdamW) LR() float64 { return s.cfg.LR * s.cfg.Schedule.At(max(1, s.step)) }

// LastNorm returns the L2 norm of all gradients of the last Step, before clipping. It is not finite after an ErrNonFinite.
func (s *AdamW) LastNorm() float64 { return s.norm }

// OnCard reports whether the last Step was made on the card, as it is where all parameters and gradients lie there.
func (s *AdamW) OnCard() bool { return s.card }

// FromCard moves the moments from the card to memory of the host, where they are needed no longer or the parameters have left it. A step
// with parameters on the card moves them there again. What is not done here, the garbage collector does.
func (s *AdamW) FromCard() error {
	var errs []error
	for _, mom := range s.moments {
		if mom.leave != nil {
			errs = append(errs, mom.leave())
		}
	}
	errs = append(errs, s.f32.parts.free(), s.f64.parts.free())
	s.f32.parts, s.f64.parts, s.card = nil, nil, false
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ops.AdamW.FromCard: %w", err)
	}
	return nil
}

// Step updates the parameters and zeroes gradients that add up. On an error no parameter has changed. One that wraps
// ErrNonFinite has zeroed those gradients all the same, so that training can go on with the next batch.
func (s *AdamW) Step(model []G.ValueGrad) error {
	const fn = "ops.AdamW.Step"
	defer s.release()
	for i, p := range model {
		if err := s.add(i, p); err != nil {
			return fmt.Errorf("%s: %w", fn, err)
		}
	}
	s.card = s.f32.onCard() && len(s.f64.params) == 0 || s.f64.onCard() && (len(s.f32.params) == 0 || s.f32.onCard())
	norm32, err := s.f32.squares()
	norm64, err64 := s.f64.squares()
	if err := errors.Join(err, err64); err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	s.norm = math.Sqrt(norm32 + norm64)
	if math.IsNaN(s.norm) || math.IsInf(s.norm, 0) {
		name := s.f32.nonFinite() + s.f64.nonFinite()
		s.f32.zeroGradients()
		s.f64.zeroGradients()
		return fmt.Errorf("%s: %w: got a norm of %v, the first at parameter %s", fn, ErrNonFinite, s.norm, name)
	}
	s.step++
	cfg := kernel.AdamWConfig{LR: s.LR(), Beta1: s.cfg.Beta1, Beta2: s.cfg.Beta2, Eps: s.cfg.Eps, WeightDecay: s.cfg.WeightDecay, GradScale: 1}
	if s.cfg.Clip > 0 && s.norm > s.cfg.Clip {
		cfg.GradScale = s.cfg.Clip / s.norm
	}
	if err := errors.Join(s.f32.update(cfg), s.f64.update(cfg)); err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	return nil
}

// release forgets the model, whose memory the solver must not keep alive.
func (s *AdamW) release() {
	s.f32.reset()
	s.f64.reset()
	clear(s.names)
}

// add takes parameter i of the model into the step.
func (s *AdamW) add(i int, p G.ValueGrad) error {
	if n, ok := p.(*G.Node); p == nil || ok && n == nil {
		return fmt.Errorf("parameter %d: got nil, want a node", i)
	}
	name := adamName(i, p)
	if s.names[name] {
		return fmt.Errorf("parameter %s: got it twice, want names that differ", name)
	}
	s.names[name] = true
	value := p.Value()
	if value == nil {
		return fmt.Errorf("parameter %s: got no value", name)
	}
	grad, err := p.Grad()
	if err != nil {
		return fmt.Errorf("parameter %s: gradient: %w", name, err)
	}
	if grad == nil {
		return fmt.Errorf("parameter %s: got no gradient, want one of a run of gorgonia.Grad's nodes", name)
	}
	if grad.Dtype() != value.Dtype() || !grad.Shape().Eq(value.Shape()) {
		return fmt.Errorf("parameter %s: got a gradient of %v %v, want %v %v", name, grad.Dtype(), grad.Shape(), value.Dtype(), value.Shape())
	}
	// The value of a gradient node belongs to the graph: it may be a constant, or the gradient of other parameters too.
	zero := true
	if n, ok := p.(interface{ Deriv() *G.Node }); ok && n.Deriv() != nil {
		zero = n.Deriv().Value() != grad
	}
	decay := s.cfg.NoDecay == nil || !s.cfg.NoDecay(name)
	switch dt := value.Dtype(); dt {
	case tensor.Float32:
		return s.f32.add(s.moments, name, value, grad, decay, zero)
	case tensor.Float64:
		return s.f64.add(s.moments, name, value, grad, decay, zero)
	default:
		return fmt.Errorf("parameter %s: got dtype %v, want float32 or float64", name, dt)
	}
}

// adamName is the name of parameter i of a model.
func adamName(i int, p G.ValueGrad) string {
	if n, ok := p.(G.Namer); ok && n.Name() != "" {
		return n.Name()
	}
	return fmt.Sprintf("#%d", i)
}
