package stheno

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"gorgonia.org/tensor"

	"stheno/ops/kvcompress"
	"stheno/ops/quantize"
)

// Budget is what a plan has to keep to. A limit of 0 is none; the zero Budget means a MaxKL of DefaultMaxKL.
type Budget struct {
	Bytes int64   // of all weights of the model
	MaxKL float64 // mean divergence from the model in full precision on the calibration text, in nats a token
}

// DefaultMaxKL is the loss limit of the zero Budget: about a tenth of a percent of perplexity.
const DefaultMaxKL = 1e-3

// PlanConfig configures Plan.
type PlanConfig struct {
	Budget Budget
	// Text is the calibration text; some thousand tokens are enough. Plan keeps len(Text)·vocab logits of 4 bytes, and runs the
	// model over it once for every layer and candidate.
	Text []int
	// Seq is the context: Text is read in stretches of Seq tokens. 0 means the model's MaxSeq.
	Seq int
	// Candidates are the precisions that a layer may take besides F32. Nil means F16, INT8 and INT4.
	Candidates []Precision
	// Rounding is how codes of INT8 and INT4 are chosen, as in QuantizeConfig, with Text for calibration.
	Rounding quantize.Method
	// Keep leaves layers in full precision, as in QuantizeConfig. Nil means the output projection; an empty slice means none.
	Keep []string
	// OnLayer is called as the sensitivities of each layer are known. An error ends the plan and is returned.
	OnLayer func(PlannedLayer) error
}

// Choice is what a layer costs in a precision.
type Choice struct {
	Precision Precision `json:"precision"`
	Bytes     int64     `json:"bytes"`
	KL        float64   `json:"kl"` // of the model in full precision but for this layer, at least 0
}

// PlannedLayer is a layer with its choices, F32 first, and the one that was taken.
type PlannedLayer struct {
	Name    string   `json:"name"`
	Choices []Choice `json:"choices"`
	Taken   Choice   `json:"taken"`
}

// PlanResult is the precision of each layer, what that was predicted to come to, and what it came to.
type PlanResult struct {
	Budget         Budget         `json:"budget"`
	Layers         []PlannedLayer `json:"layers"`
	PredictedBytes int64          `json:"predicted_bytes"` // of all weights
	PredictedKL    float64        `json:"predicted_kl"`    // the sum over layers
	MeasuredBytes  int64          `json:"measured_bytes"`
	Measured       Fidelity       `json:"measured"`

	model *Model
}

// Model is the model as planned.
func (p *PlanResult) Model() *Model { return p.model }

// Precisions is the plan as QuantizeConfig.Layers takes it.
func (p *PlanResult) Precisions() map[string]Precision {
	layers := map[string]Precision{}
	for _, l := range p.Layers {
		layers[l.Name] = l.Taken.Precision
	}
	return layers
}

// Plan finds the precision of each layer within a budget.
//
// It measures how sensitive the model is: for each layer and candidate the mean KL divergence of the model with that layer alone
// in that precision. Small errors of different layers hardly know of each other, so the divergence of a whole plan is predicted as
// the sum. From all layers in F32, steps along the lower convex hull of each layer's (bytes, KL) are taken in the order of KL for
// each byte saved: with a limit of bytes until it is met, with a limit of KL as long as it is not exceeded. With both, bytes are
// saved until their limit is met, and it is an error if the divergence is then above its own.
//
// The plan is measured as a whole. Where the prediction was too hopeful for MaxKL it is made again with less, a few times. The
// result depends on the model, the text and the instruction set alone.
func (m *Model) Plan(ctx context.Context, cfg PlanConfig) (*PlanResult, error) {
	const fn = "stheno.Plan"
	if err := cfg.normal(m); err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	y, err := m.newYardstick(ctx, fn, cfg.Text, cfg.Seq)
	if err != nil {
		return nil, err
	}
	calibration := cfg.Text
	if cfg.Rounding == quantize.Nearest {
		calibration = nil
	}
	r, err := m.newRounder(cfg.Rounding, calibration)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	layers, err := m.sensitivities(ctx, y, r, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	limit := cfg.Budget.MaxKL
	for range planTries {
		p := &PlanResult{Budget: cfg.Budget, Layers: slices.Clone(layers)}
		if err := p.take(m.Bytes(), limit); err != nil {
			return nil, fmt.Errorf("%s: %w", fn, err)
		}
		if p.model, err = m.quantize(p.Precisions(), r); err != nil {
			return nil, err
		}
		p.MeasuredBytes = p.model.Bytes()
		if p.Measured, err = y.measure(ctx, p.model, kvcompress.Config{}); err != nil {
			return nil, err
		}
		if cfg.Budget.MaxKL == 0 || p.Measured.KL <= cfg.Budget.MaxKL {
			return p, nil
		}
		if cfg.Budget.Bytes > 0 {
			return nil, fmt.Errorf("%s: Budget: got a mean KL of %.3g within %d bytes, want at most %.3g", fn, p.Measured.KL, cfg.Budget.Bytes, cfg.Budget.MaxKL)
		}
		limit = min(limit, p.PredictedKL) * 0.9 * cfg.Budget.MaxKL / p.Measured.KL
	}
	return nil, fmt.Errorf("%s: Budget.MaxKL: got %.3g, which no plan tried keeps to: want more", fn, cfg.Budget.MaxKL)
}

const planTries = 6

func (c *PlanConfig) normal(m *Model) error {
	if c.Budget == (Budget{}) {
		c.Budget.MaxKL = DefaultMaxKL
	}
	switch {
	case m.Quantized():
		return fmt.Errorf("got a quantized model, want one in full precision")
	case m.dtype != tensor.Float32:
		return fmt.Errorf("got a model of %v, want float32", m.dtype)
	case c.Budget.Bytes < 0:
		return fmt.Errorf("Budget.Bytes: got %d, want 0 (no limit) or a positive number", c.Budget.Bytes)
	case !(c.Budget.MaxKL >= 0) || math.IsInf(c.Budget.MaxKL, 0):
		return fmt.Errorf("Budget.MaxKL: got %v, want 0 (no limit) or a positive number", c.Budget.MaxKL)
	}
	if c.Candidates == nil {
		c.Candidates = []Precision{F16, INT8, INT4}
	}
	for _, p := range c.Candidates {
		if _, _, err := p.packing(); err != nil {
			return fmt.Errorf("Candidates: %w", err)
		}
	}
	if c.Keep == nil {
		c.Keep = []string{outputLayer}
	}
	_, err := m.choose(QuantizeConfig{Weights: INT8, Output: true, Keep: c.Keep})
	return err
}

// sensitivities measures every layer in every candidate.
func (m *Model) sensitivities(ctx context.Context, y *yardstick, r *rounder, cfg PlanConfig) ([]PlannedLayer, error) {
	var out []PlannedLayer
	for _, l := range m.Layers() {
		p := PlannedLayer{Name: l.Name, Choices: []Choice{{Precision: F32, Bytes: l.Bytes}}}
		for _, c := range cfg.Candidates {
			if matchesAny(cfg.Keep, l.Name) {
				continue
			}
			q, err := m.quantize(map[string]Precision{l.Name: c}, r)
			if err != nil && c == F16 { // beyond its range: this layer has one choice less
				continue
			}
			if err != nil {
				return nil, err
			}
			f, err := y.measure(ctx, q, kvcompress.Config{})
			if err != nil {
				return nil, err
			}
			p.Choices = append(p.Choices, Choice{Precision: c, Bytes: l.Bytes + q.Bytes() - m.Bytes(), KL: max(0, f.KL)})
		}
		p.Taken = p.Choices[0]
		out = append(out, p)
		if cfg.OnLayer != nil {
			if err := cfg.OnLayer(p); err != nil {
				return nil, fmt.Errorf("OnLayer: %w", err)
			}
		}
	}
	return out, nil
}

// hull is the choices on the lower convex hull of (bytes, KL), the most bytes first: each step saves bytes, at a price for each
// byte that rises from step to step.
func hull(choices []Choice) []Choice {
	c := slices.Clone(choices)
	slices.SortStableFunc(c, func(a, b Choice) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.KL, a.KL))
	})
	var out []Choice
	for _, x := range c {
		for len(out) > 0 && out[len(out)-1].KL >= x.KL { // fewer bytes, or as many, and no worse
			out = out[:len(out)-1]
		}
		for len(out) > 1 && price(out[len(out)-2], out[len(out)-1]) >= price(out[len(out)-2], x) {
			out = out[:len(out)-1]
		}
		out = append(out, x)
	}
	return out
}

// price is the KL for each byte saved by going from a to b.
func price(a, b Choice) float64 { return (b.KL - a.KL) / float64(a.Bytes-b.Bytes) }

// take chooses. bytes is that of the model in full precision, limit the KL to keep to, 0 for none.
func (p *PlanResult) take(bytes int64, limit float64) error {
	hulls := make([][]Choice, len(p.Layers))
	kl := 0.0
	for i := range p.Layers {
		hulls[i] = hull(p.Layers[i].Choices)
		bytes += hulls[i][0].Bytes - p.Layers[i].Choices[0].Bytes
		kl += hulls[i][0].KL
		p.Layers[i].Taken = hulls[i][0]
	}
	byBytes := p.Budget.Bytes > 0
	for !byBytes || bytes > p.Budget.Bytes {
		best := -1
		for i, h := range hulls {
			if len(h) < 2 || !byBytes && kl+h[1].KL-h[0].KL > limit {
				continue
			}
			if best < 0 || price(h[0], h[1]) < price(hulls[best][0], hulls[best][1]) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		h := hulls[best]
		bytes, kl = bytes+h[1].Bytes-h[0].Bytes, kl+h[1].KL-h[0].KL
		hulls[best], p.Layers[best].Taken = h[1:], h[1]
	}
	if byBytes && bytes > p.Budget.Bytes {
		return fmt.Errorf("Budget.Bytes: got %d, want at least %d, what the model takes with all layers in their smallest precision", p.Budget.Bytes, bytes)
	}
	p.PredictedBytes, p.PredictedKL = bytes, kl
	return nil
}

// String is the plan as lines of text.
func (p *PlanResult) String() string {
	var b strings.Builder
	for _, l := range p.Layers {
		fmt.Fprintf(&b, "%-20s %-13v %12d bytes   KL alone %.2e\n", l.Name, l.Taken.Precision, l.Taken.Bytes, l.Taken.KL)
	}
	fmt.Fprintf(&b, "predicted: %s, mean KL %.3e\nmeasured:  %s, mean KL %.3e, same top token %.2f %%\n",
		mib(p.PredictedBytes), p.PredictedKL, mib(p.MeasuredBytes), p.Measured.KL, 100*p.Measured.Top1)
	return b.String()
}

// HTML is the plan as a table for notebooks.
func (p *PlanResult) HTML() string {
	var b strings.Builder
	b.WriteString("<table><tr><th>layer</th><th>precision</th><th>bytes</th><th>KL alone</th></tr>")
	for _, l := range p.Layers {
		fmt.Fprintf(&b, "<tr><td>%s</td><td>%v</td><td>%d</td><td>%.2e</td></tr>", l.Name, l.Taken.Precision, l.Taken.Bytes, l.Taken.KL)
	}
	fmt.Fprintf(&b, "</table><p>predicted: %s, mean KL %.3e; measured: %s, mean KL %.3e, same top token %.2f %%</p>",
		mib(p.PredictedBytes), p.PredictedKL, mib(p.MeasuredBytes), p.Measured.KL, 100*p.Measured.Top1)
	return b.String()
}
