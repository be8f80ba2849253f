package stheno

import (
	"fmt"
	"strings"

	"stheno/ops/quantize"
)

// fakes has p round the layers that cfg names.
func (p *plan) fakes(m *Model, cfg QuantizeConfig) error {
	choice, err := m.choose(cfg)
	if err != nil {
		return err
	}
	if cfg.Rounding != quantize.Nearest && cfg.Rounding != quantize.Clipped || len(cfg.Calibration) > 0 {
		return fmt.Errorf("stheno: QuantizeConfig: got Rounding %v and %d tokens of Calibration to train with, want %v or %v, and none", cfg.Rounding, len(cfg.Calibration), quantize.Nearest, quantize.Clipped)
	}
	p.fake, p.clip = map[string]Precision{}, cfg.Rounding == quantize.Clipped
	for name, precision := range choice {
		if precision != F32 {
			p.fake[name] = precision
		}
	}
	return nil
}

// fakeSummary names the layers that are rounded, in the order of their names.
func (p *plan) fakeSummary() string {
	if len(p.fake) == 0 {
		return "none"
	}
	s := fmt.Sprint(p.fake)
	if p.clip {
		s += " clipped"
	}
	return strings.TrimPrefix(s, "map")
}

// fake replaces the weights of the layers that p rounds.
func (w *weights) fake(cfg Config, p plan) error {
	if len(p.fake) == 0 {
		return nil
	}
	for _, l := range cfg.layers() {
		precision, ok := p.fake[l.name]
		if !ok {
			continue
		}
		how, input, err := precision.packing()
		if err != nil {
			return err
		}
		how.Transposed = l.transposed
		n, err := quantize.FakeQuantize(w.full[l.weight], quantize.FakeQuantizeConfig{Weights: how, Clip: p.clip && how.Scheme.HasScales()})
		if err != nil {
			return err
		}
		w.packed[l.weight] = matrix{name: l.weight, full: n, input: input}
	}
	return nil
}
