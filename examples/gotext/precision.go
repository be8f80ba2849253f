package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"stheno"
	"stheno/ops/kvcompress"
)

// Sizes of the texts that precisions are judged by, in bytes. They keep the comparison to some seconds.
const (
	planText        = 2 << 10  // calibration of -weights auto, of the training text
	calibrationText = 16 << 10 // of GPTQ, of the training text
	reportText      = 4 << 10  // of the held-out text
)

// quantize makes the model that completions are drawn from, and says what it is.
func (j *job) quantize(ctx context.Context) error {
	j.quantized = j.model
	how := ""
	switch {
	case j.opt.weights == stheno.F32:
		return nil
	case j.opt.weights == stheno.Auto:
		p, err := j.plan(ctx)
		if err != nil {
			return err
		}
		j.quantized = p.Model()
		fmt.Fprintf(j.out, "planned     %s of weights, mean divergence %.1e nats: predicted %.1e, limit %.0e\n",
			memory(p.MeasuredBytes), p.Measured.KL, p.PredictedKL, p.Budget.MaxKL)
	default:
		from := j.model
		if j.opt.roundings {
			how = fmt.Sprintf(", %v", j.opt.rounding)
		}
		if j.further != nil {
			from = j.further.forCodes
			how += fmt.Sprintf(", %d more steps for them", j.opt.qat)
		}
		q, err := j.rounded(from, j.opt.rounding)
		if err != nil {
			return err
		}
		j.quantized = q
	}
	bits, err := j.quantized.Evaluate(ctx, tokens(j.text.held), j.opt.seq, stheno.Fused)
	if err != nil {
		return err
	}
	fmt.Fprintf(j.out, "quantized   weights %v%s: %s instead of %s, held out %.4f bits per byte instead of %.4f\n",
		j.opt.weights, how, memory(j.quantized.Bytes()), memory(j.model.Bytes()), bits, j.heldOut)
	if j.opt.saveQuantized == "" {
		return nil
	}
	if err := j.quantized.Save(j.opt.saveQuantized); err != nil {
		return err
	}
	fmt.Fprintf(j.out, "saved       %s\n", j.opt.saveQuantized)
	return nil
}

func (j *job) plan(ctx context.Context) (*stheno.PlanResult, error) {
	fmt.Fprintln(j.log, "            measuring how sensitive each layer is")
	text := j.text.training[:min(planText, len(j.text.training))]
	return j.model.Plan(ctx, stheno.PlanConfig{Text: tokens(text), Seq: j.opt.seq, Budget: stheno.Budget{MaxKL: stheno.DefaultMaxKL}})
}

// precisions prints what each optimization alone costs and gains, and all of them together: those that were asked for, or INT8.
// Speed and memory are those of a process for each.
func (j *job) precisions(ctx context.Context) (err error) {
	fmt.Fprintln(j.log, "            measuring the same weights in fewer bits")
	variants, err := stheno.Variants(j.opt.kvRecent)
	if err != nil {
		return err
	}
	if j.opt.weights != stheno.F32 || j.opt.kv != (kvcompress.Config{}) {
		variants = append(variants, stheno.Variant{Name: "as asked for: -weights, -kv, -kv-keep", Model: j.quantized, KV: j.opt.kv})
	}
	dir, err := os.MkdirTemp("", "gotext-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	held := j.text.held[:min(reportText, len(j.text.held))]
	r := request{What: "precision", Model: filepath.Join(dir, "model.safetensors"), Text: filepath.Join(dir, "text"),
		Seq: min(j.opt.seq, len(held)-1), Threads: j.opt.threads}
	if err := os.WriteFile(r.Text, held, 0o666); err != nil {
		return err
	}
	report, err := stheno.Report(ctx, j.model, stheno.ReportConfig{
		Text: tokens(held), Seq: r.Seq, Variants: variants,
		Measure: func(v stheno.Variant, m *stheno.Model) (stheno.Measured, error) {
			r.KV = v.KV
			if err := m.Save(r.Model); err != nil {
				return stheno.Measured{}, err
			}
			out, err := measure(ctx, r)
			return out.Measured, err
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(j.out, "\nThe same weights in fewer bits; compressed caches keep the newest %d tokens as they are:\n\n%s", j.opt.kvRecent, report)
	return nil
}
