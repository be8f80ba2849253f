package main

import (
	"context"
	"fmt"

	"stheno"
	"stheno/ops"
	"stheno/ops/quantize"
)

// further are two copies of the model that were trained on: the same steps on the same bytes at the same rates.
type further struct {
	forCodes *stheno.Model // through weights rounded to -weights
	inFull   *stheno.Model // in float32: what the steps alone bring
}

// trainForCodes trains copies of the model further. The model itself stays as it is.
func (j *job) trainForCodes(ctx context.Context) error {
	forCodes, err := j.trainOn(ctx, fmt.Sprintf("through weights in %v (%v)", j.opt.weights, j.opt.rounding),
		stheno.QuantizeConfig{Weights: j.opt.weights, Rounding: j.opt.rounding})
	if err != nil {
		return err
	}
	inFull, err := j.trainOn(ctx, "in float32, to compare with", stheno.QuantizeConfig{})
	if err != nil {
		return err
	}
	j.further = &further{forCodes, inFull}
	return nil
}

// trainOn returns a copy of the model after -qat more steps.
func (j *job) trainOn(ctx context.Context, how string, codes stheno.QuantizeConfig) (*stheno.Model, error) {
	m, err := clone(j.model)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(j.out, "further     %d steps of %d × %d bytes %s\n", j.opt.qat, j.opt.batch, j.opt.seq, how)
	p := newProgress(j.log, j.opt.qat)
	defer p.close()
	cfg := j.trainingOn(codes)
	cfg.OnStep = func(s stheno.Step) error {
		p.step(s)
		return nil
	}
	_, err = stheno.Train(ctx, m, tokens(j.text.training), cfg)
	return m, err
}

// trainingOn is the recipe of the further steps: that of training, but with a rate that falls to zero, and other sequences
// than the model has begun with.
func (j *job) trainingOn(codes stheno.QuantizeConfig) stheno.TrainConfig {
	cfg := j.training(j.opt.qat)
	cfg.Seed++
	cfg.Optimizer.LR = j.opt.qatRate
	cfg.Optimizer.Schedule = ops.Schedule{Kind: ops.ScheduleLinear, Warmup: min(100, j.opt.qat/10), Steps: j.opt.qat}
	cfg.Quantize = codes
	return cfg
}

// clone is a copy of a model in float32.
func clone(m *stheno.Model) (*stheno.Model, error) {
	out, err := stheno.NewModel(m.Config(), 0)
	if err != nil {
		return nil, err
	}
	for _, p := range m.Parameters() {
		from, ok := p.Value.Data().([]float32)
		if !ok {
			return nil, fmt.Errorf("-qat: got weights of %v, want float32", p.Value.Dtype())
		}
		to, err := out.Parameter(p.Name)
		if err != nil {
			return nil, err
		}
		copy(to.Data().([]float32), from)
	}
	return out, nil
}

// rounded is m in -weights, its codes chosen by how. GPTQ is calibrated on training text.
func (j *job) rounded(m *stheno.Model, how quantize.Method) (*stheno.Model, error) {
	cfg := stheno.QuantizeConfig{Weights: j.opt.weights, Rounding: how}
	if how == quantize.GPTQ {
		cfg.Calibration = tokens(j.text.training[:min(calibrationText, len(j.text.training))])
	}
	return m.Quantize(cfg)
}

// hasCodes reports whether weights in p are integers, which can be chosen in different ways, and trained for.
func hasCodes(p stheno.Precision) bool {
	switch p {
	case stheno.INT8, stheno.INT8Dynamic, stheno.INT4, stheno.INT4Dynamic:
		return true
	}
	return false
}

// parseRounding reads the name of a method.
func parseRounding(name string) (quantize.Method, error) {
	for m := quantize.Nearest; m <= quantize.GPTQ; m++ {
		if m.String() == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("got %q, want %v, %v or %v", name, quantize.Nearest, quantize.Clipped, quantize.GPTQ)
}
