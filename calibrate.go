package stheno

import (
	"fmt"

	"gorgonia.org/tensor"

	"stheno/ops/quantize"
)

// Record runs the model over tokens and lets rec see what flows into each layer, by the names of Layers. tokens are read in
// stretches of seq (0: the model's MaxSeq) that each begin anew; less than a stretch at the end is left out. With a seq of 0 a text
// shorter than MaxSeq is one stretch.
func (m *Model) Record(tokens []int, seq int, rec *quantize.Recorder) error {
	const fn = "stheno: Record"
	if seq == 0 {
		seq = min(m.cfg.MaxSeq, len(tokens))
	}
	switch {
	case rec == nil:
		return fmt.Errorf("%s: got a nil Recorder", fn)
	case seq < 1 || seq > m.cfg.MaxSeq:
		return fmt.Errorf("%s: got stretches of %d tokens, want 1 to MaxSeq = %d", fn, seq, m.cfg.MaxSeq)
	case len(tokens) < seq:
		return fmt.Errorf("%s: got %d tokens, want at least %d", fn, len(tokens), max(1, seq))
	}
	if err := m.checkTokens("tokens", tokens, len(tokens)); err != nil {
		return err
	}
	g, err := m.inference(plan{batch: 1, seq: seq, recorder: rec}, Fused)
	if err != nil {
		return err
	}
	defer g.Close()
	for at := 0; at+seq <= len(tokens); at += seq {
		if _, err := g.Run(tokens[at:at+seq], 0); err != nil {
			return err
		}
	}
	return nil
}

// rounder packs the layers of a model.
type rounder struct {
	method   quantize.Method
	recorder *quantize.Recorder // nil without calibration
}

func (m *Model) newRounder(method quantize.Method, calibration []int) (*rounder, error) {
	const field = "stheno: QuantizeConfig"
	r := &rounder{method: method}
	switch {
	case method < quantize.Nearest || method > quantize.GPTQ:
		return nil, fmt.Errorf("%s.Rounding: got %v, want %v, %v or %v", field, method, quantize.Nearest, quantize.Clipped, quantize.GPTQ)
	case method == quantize.GPTQ && len(calibration) == 0:
		return nil, fmt.Errorf("%s.Calibration: got no text with %v, want some thousand tokens", field, method)
	case method == quantize.Nearest && len(calibration) > 0:
		return nil, fmt.Errorf("%s.Calibration: got %d tokens with %v, want none", field, len(calibration), method)
	case len(calibration) == 0:
		return r, nil
	}
	var err error
	if r.recorder, err = quantize.NewRecorder(quantize.RecorderConfig{Moments: true}); err != nil {
		return nil, err
	}
	if m.Quantized() {
		return r, nil // an error of quantize
	}
	if err := m.Record(calibration, 0, r.recorder); err != nil {
		return nil, fmt.Errorf("%s.Calibration: %w", field, err)
	}
	return r, nil
}

func (r *rounder) pack(l layer, w *tensor.Dense, p Precision) (*quantize.Packed, error) {
	how, _, err := p.packing()
	if err != nil {
		return nil, err
	}
	how.Transposed = l.transposed
	if !how.Scheme.HasScales() {
		return quantize.Quantize(w, how)
	}
	rounding := quantize.Rounding{Method: r.method}
	if r.recorder != nil {
		s, err := r.recorder.Stats(l.name)
		if err != nil {
			return nil, err
		}
		rounding.Moments = s.Moments
		rounding.Clip = r.method == quantize.GPTQ
	}
	return quantize.QuantizeWith(w, how, rounding)
}
