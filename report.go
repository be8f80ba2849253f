package stheno

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"stheno/internal/procmem"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// Variant is a way to run a model: weights and caches in some precision.
type Variant struct {
	Name     string
	Quantize QuantizeConfig
	KV       kvcompress.Config

	// Attention is the precision in which attention multiplies, without a KV, whose caches have one of their own. It shows in the fidelity:
	// the speed is that of a session, which attends through caches. See Model.WithAttention.
	Attention flashattn.Precision

	// Model, where it is not nil, is run in place of what Quantize describes: a quantized model of the same Config.
	Model *Model
}

// Variants are every optimization alone and two together: weights in each precision; caches that keep the recent newest tokens as
// they are (0: 128) and the others in F16, INT8 and INT4; attention in BF16 and INT8; weights, the output projection too, and cache in
// INT8.
func Variants(recent int) ([]Variant, error) {
	var out []Variant
	for _, p := range []Precision{F16, BF16, INT8, INT8Dynamic, INT4, INT4Dynamic} {
		out = append(out, Variant{Name: "weights " + p.String(), Quantize: QuantizeConfig{Weights: p}})
	}
	var kv8 kvcompress.Config
	for _, p := range []Precision{F16, INT8, INT4} {
		kv, err := KVConfig(p, recent)
		if err != nil {
			return nil, err
		}
		if p == INT8 {
			kv8 = kv
		}
		out = append(out, Variant{Name: "cache " + p.String(), KV: kv})
	}
	for _, p := range []flashattn.Precision{flashattn.BFloat16, flashattn.Int8} {
		out = append(out, Variant{Name: "attention " + p.String(), Attention: p})
	}
	all := QuantizeConfig{Weights: INT8Dynamic, Output: true}
	return append(out, Variant{Name: "all: weights int8-dynamic, cache int8", Quantize: all, KV: kv8}), nil
}

// ReportConfig configures Report.
type ReportConfig struct {
	// Text is what the variants are compared on, best a text that the model has not been trained on. Report keeps
	// len(Text)·vocab logits of 4 bytes.
	Text []int
	// Seq is the context: Text is read in stretches of Seq tokens. 0 means the model's MaxSeq.
	Seq int
	// Variants are compared with the model as it is. Nil means Variants(0).
	Variants []Variant
	// Measure takes over the measurement of speed and memory of a variant's model. Nil means Model.Measure in this process.
	Measure func(v Variant, m *Model) (Measured, error)
	// OnRow is called with each row as it is done. An error ends the report and is returned.
	OnRow func(Row) error
}

// Measured is the speed and the memory of a model.
type Measured struct {
	Prefill    float64 `json:"prefill_tokens_per_second"`  // a prompt into an empty session, the building of its graph included
	Generate   float64 `json:"generate_tokens_per_second"` // token by token after it
	CacheBytes int64   `json:"cache_bytes"`                // of the session, filled
	PeakBytes  int64   `json:"peak_bytes"`                 // resident memory at its highest; 0: not measured
}

// Row is what a variant comes to.
type Row struct {
	Name        string `json:"name"`
	WeightBytes int64  `json:"weight_bytes"`
	Measured
	Fidelity
	Loss float64 `json:"perplexity_loss"` // against the model as it is, as a share: 0.01 is one percent

	// What fits into the memory that the model as it is takes with one sequence of Seq tokens: weights and cache.
	LongestSequence int64 `json:"longest_sequence"` // tokens of one sequence, the model's MaxSeq aside; math.MaxInt32 where any number fits
	LargestBatch    int64 `json:"largest_batch"`    // sequences of Seq tokens
}

// ReportResult is a table of variants, the model as it is first. HTML, Markdown and String show it.
type ReportResult struct {
	Model     Config   `json:"model"`
	Seq       int      `json:"seq"`
	Tokens    int      `json:"tokens"`
	Threads   int      `json:"threads"`
	Rows      []Row    `json:"rows"`
	Precision []string `json:"precision"` // of the layers of each row, in short
}

// Report measures what precision costs and gains: for the model as it is and for each variant speed, bytes, and how far its
// predictions are off those of the model as it is.
//
// PeakBytes is the highest resident memory of this process since the variant was built, less what Report itself holds: the
// reference's logits, and the weights of the model as it is that the variant does not share. Where memory matters most, let
// Measure run a process for each variant.
func Report(ctx context.Context, m *Model, cfg ReportConfig) (*ReportResult, error) {
	const fn = "stheno.Report"
	if cfg.Variants == nil {
		var err error
		if cfg.Variants, err = Variants(0); err != nil {
			return nil, err
		}
	}
	for i, v := range cfg.Variants {
		if v.Model != nil && v.Model.cfg != m.cfg {
			return nil, fmt.Errorf("%s: Variants[%d]: got a Model of another Config, want that of the model", fn, i)
		}
		if v.Attention != flashattn.Float32 && v.KV != (kvcompress.Config{}) {
			return nil, fmt.Errorf("%s: Variants[%d]: got attention in %v and a KV, want one of them", fn, i, v.Attention)
		}
	}
	y, err := m.newYardstick(ctx, fn, cfg.Text, cfg.Seq)
	if err != nil {
		return nil, err
	}
	if y.seq < 2 {
		return nil, fmt.Errorf("%s: Seq: got %d, want at least 2", fn, y.seq)
	}
	out := &ReportResult{Model: m.cfg, Seq: y.seq, Tokens: len(y.tokens) - 1, Threads: threads()}
	r := &reporter{m: m, cfg: cfg, y: y}
	for _, v := range append([]Variant{{Name: "as it is"}}, cfg.Variants...) {
		row, precision, err := r.row(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", fn, v.Name, err)
		}
		out.Rows, out.Precision = append(out.Rows, row), append(out.Precision, precision)
		if cfg.OnRow != nil {
			if err := cfg.OnRow(row); err != nil {
				return nil, fmt.Errorf("%s: OnRow: %w", fn, err)
			}
		}
	}
	return out, nil
}

// reporter is a report under way.
type reporter struct {
	m      *Model
	cfg    ReportConfig
	y      *yardstick
	first  Fidelity
	memory int64 // that the model as it is takes
}

func (r *reporter) row(ctx context.Context, v Variant) (Row, string, error) {
	row := Row{Name: v.Name}
	fresh := false
	if r.cfg.Measure == nil {
		debug.FreeOSMemory()
		fresh = procmem.ResetPeak()
	}
	q, err := r.model(v)
	if err != nil {
		return row, "", err
	}
	row.WeightBytes = q.Bytes()
	if r.cfg.Measure != nil {
		row.Measured, err = r.cfg.Measure(v, q)
	} else {
		row.Measured, err = q.Measure(ctx, r.y.tokens, r.y.seq, v.KV)
		row.PeakBytes -= r.y.bytes() + r.unshared(q)
		if !fresh {
			row.PeakBytes = 0
		}
	}
	if err != nil {
		return row, "", err
	}
	if row.Fidelity, err = r.y.measure(ctx, q, v.KV); err != nil {
		return row, "", err
	}
	cache, err := q.cacheBytes(r.y.seq, v.KV)
	if err != nil {
		return row, "", err
	}
	if r.memory == 0 {
		r.first, r.memory = row.Fidelity, row.WeightBytes+cache
	}
	row.Loss = row.Fidelity.Loss(r.first)
	if room := r.memory - row.WeightBytes; room > 0 {
		row.LargestBatch = room / cache
		row.LongestSequence, err = q.longest(room, v.KV)
	}
	return row, q.precisionSummary(), err
}

func (r *reporter) model(v Variant) (*Model, error) {
	m, err := r.quantized(v)
	if err != nil || v.Attention == flashattn.Float32 {
		return m, err
	}
	return m.WithAttention(v.Attention)
}

func (r *reporter) quantized(v Variant) (*Model, error) {
	if v.Model != nil {
		return v.Model, nil
	}
	choice, err := r.m.choose(v.Quantize)
	if err != nil {
		return nil, err
	}
	for _, p := range choice {
		if p != F32 {
			return r.m.Quantize(v.Quantize)
		}
	}
	return r.m, nil
}

// unshared is the bytes of the reference's weights that q does not use.
func (r *reporter) unshared(q *Model) (n int64) {
	for _, p := range r.m.params {
		if _, ok := q.index[p.Name]; !ok {
			n += int64(p.Value.MemSize())
		}
	}
	return n
}

// cacheBytes is what the caches of one sequence of n tokens take.
func (m *Model) cacheBytes(n int, kv kvcompress.Config) (int64, error) {
	s, err := kvcompress.MemorySavings(n, m.cacheShape(1, n), kv)
	return int64(m.cfg.Layers) * s.Bytes, err
}

// longest is how many tokens of one sequence fit into room bytes of cache.
func (m *Model) longest(room int64, kv kvcompress.Config) (int64, error) {
	fits := func(n int) (bool, error) {
		bytes, err := m.cacheBytes(n, kv)
		return bytes <= room, err
	}
	lo, hi := 0, 1 // lo fits, hi is not known to
	for hi < math.MaxInt32 {
		ok, err := fits(hi)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		lo, hi = hi, 2*hi
	}
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		ok, err := fits(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			lo = mid
		} else {
			hi = mid
		}
	}
	return int64(lo), nil
}

// Measure times a session of seq tokens of text over and over, for about a second: a prompt of three quarters, then the others
// one by one. The times are medians; the first round is not counted.
func (m *Model) Measure(ctx context.Context, text []int, seq int, kv kvcompress.Config) (Measured, error) {
	var out Measured
	if seq < 2 || seq > m.cfg.MaxSeq || seq > len(text) {
		return out, fmt.Errorf("stheno: Measure: got a context of %d tokens with a text of %d, want 2 to both and to MaxSeq = %d", seq, len(text), m.cfg.MaxSeq)
	}
	s, err := m.NewSession(SessionConfig{Capacity: seq, KV: kv})
	if err != nil {
		return out, err
	}
	defer s.Close()
	prompt := max(1, seq*3/4)
	var prefill, step []float64
	for begun := time.Now(); len(prefill) < 4 || len(prefill) < 20 && time.Since(begun) < time.Second; {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if err := s.Truncate(0); err != nil {
			return out, err
		}
		start := time.Now()
		if _, err := s.Feed(text[:prompt]); err != nil {
			return out, err
		}
		prefill = append(prefill, time.Since(start).Seconds())
		for _, id := range text[prompt:seq] {
			start = time.Now()
			if _, err := s.Feed([]int{id}); err != nil {
				return out, err
			}
			step = append(step, time.Since(start).Seconds())
		}
	}
	out.Prefill = float64(prompt) / medianOf(prefill[1:])
	out.Generate = 1 / medianOf(step[seq-prompt:])
	out.CacheBytes, out.PeakBytes = s.CacheBytes(), procmem.Peak()
	return out, nil
}

func medianOf(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}
