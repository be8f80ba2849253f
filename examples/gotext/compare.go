package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"stheno"
	"stheno/internal/procmem"
)

// comparison is plain Gorgonia nodes (index stheno.Plain) and this module's (stheno.Fused) on the same weights. What was
// not measured is 0.
type comparison struct {
	training, inference [2]measurement
	difference          float64 // the largest of two logits for the same token
	compared            bool    // whether difference was measured
	noPlain             error   // what keeps plain nodes from composing this model
	seq                 int     // bytes of a sequence: -seq, or less where so little text is held out
}

// compare measures, prints the table and draws it. When ctx ends, it shows what it has and returns ctx's error.
func (j *job) compare(ctx context.Context) error {
	fmt.Fprintln(j.log, "            measuring the same weights on plain Gorgonia nodes and on ours")
	c, err := j.measureAll(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	j.table(j.out, c)
	if err == nil && c.noPlain == nil {
		err = j.picture("comparison.png", func(path string) error { return plotComparison(path, c) })
	}
	return err
}

func (j *job) measureAll(ctx context.Context) (c comparison, err error) {
	dir, err := os.MkdirTemp("", "gotext-")
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := request{
		Model: filepath.Join(dir, "model.safetensors"), Text: filepath.Join(dir, "text"),
		Batch: j.opt.batch, Seq: min(j.opt.seq, len(j.text.held)-1), Threads: j.opt.threads,
	}
	c.seq = r.Seq
	c.noPlain = j.model.Config().CheckPlain(true)
	if err = j.model.Save(r.Model); err != nil {
		return c, err
	}
	if err = os.WriteFile(r.Text, j.text.held, 0o666); err != nil {
		return c, err
	}
	for _, r.Nodes = range []stheno.Nodes{stheno.Fused, stheno.Plain} {
		if r.Nodes == stheno.Plain && c.noPlain != nil {
			continue
		}
		r.What = "training"
		if c.training[r.Nodes], err = measure(ctx, r); err != nil {
			return c, err
		}
		r.What = "inference"
		if c.inference[r.Nodes], err = measure(ctx, r); err != nil {
			return c, err
		}
	}
	if c.noPlain != nil {
		return c, nil
	}
	c.difference, err = j.largestDifference()
	c.compared = err == nil
	return c, err
}

// largestDifference is the largest absolute difference of two logits over one context of held-out text.
func (j *job) largestDifference() (float64, error) {
	text := tokens(j.text.held[:min(j.opt.seq, len(j.text.held))])
	var logits [2][]float32
	for nodes := range logits {
		d, err := j.model.Logits([][]int{text}, stheno.Nodes(nodes))
		if err != nil {
			return 0, err
		}
		data, ok := d.Data().([]float32)
		if !ok {
			return 0, fmt.Errorf("got logits of %v, want float32", d.Dtype())
		}
		logits[nodes] = data
	}
	var most float64
	for i, x := range logits[0] {
		d := math.Abs(float64(x) - float64(logits[1][i]))
		if !(d <= most) { // a NaN stays
			most = d
		}
	}
	return most, nil
}

// row is a line of the table: a quantity for both sets of nodes, and by what factor ours is better.
type row struct {
	what, plain, ours string
	factor            float64
}

// rows are the quantities that were measured for both.
func (c comparison) rows() []row {
	var out []row
	add := func(what string, plain, ours float64, moreIsBetter bool, text func(x float64) string) {
		factor := 0.0
		if plain > 0 && ours > 0 {
			factor = plain / ours
			if moreIsBetter {
				factor = 1 / factor
			}
		}
		show := func(x float64) string {
			if x == 0 {
				return "not measured"
			}
			return text(x)
		}
		out = append(out, row{what, show(plain), show(ours), factor})
	}
	t, i := c.training, c.inference
	const p, o = stheno.Plain, stheno.Fused
	speed := func(x float64) string { return count(int64(x)) + " tok/s" }
	size := func(x float64) string { return memory(int64(x)) }
	add("training step", t[p].Step.Seconds(), t[o].Step.Seconds(), false, milliseconds)
	add("prefill", i[p].Prefill, i[o].Prefill, true, speed)
	add("generate", i[p].Generate, i[o].Generate, true, speed)
	add("peak memory, training", float64(t[p].Peak), float64(t[o].Peak), false, size)
	add("peak memory, inference", float64(i[p].Peak), float64(i[o].Peak), false, size)
	return out
}

// table prints the comparison.
func (j *job) table(w io.Writer, c comparison) {
	const line = "%-28s%16s%16s%10s\n"
	fmt.Fprintf(w, line, "", "plain Gorgonia", "stheno", "")
	for _, r := range c.rows() {
		factor := ""
		if r.factor > 0 {
			factor = fmt.Sprintf("%.1f ×", r.factor)
		}
		fmt.Fprintf(w, line, r.what, r.plain, r.ours, factor)
	}
	bits := func(x float64) string {
		if x == 0 {
			return "not measured"
		}
		return fmt.Sprintf("%.4f", x)
	}
	fmt.Fprintf(w, line, "held-out bits per byte", bits(c.inference[stheno.Plain].HeldOut), bits(c.inference[stheno.Fused].HeldOut), "")
	fmt.Fprintf(w, line, "gzip -9, the same bytes", "", fmt.Sprintf("%.4f", j.gzip), "")
	if c.compared {
		fmt.Fprintf(w, line, "largest logit difference", "", fmt.Sprintf("%.1e", c.difference), "")
	}
	if c.noPlain != nil {
		fmt.Fprintf(w, "\nThis model is not measured on plain nodes: %v.\n", c.noPlain)
	}
	fmt.Fprintf(w, `
Same weights; %d × %d bytes a training step, prompts of %d bytes, %d of %d threads; medians. Plain is a graph of Gorgonia's
own nodes with gonum's products and Gorgonia's Adam. Memory is that of a process which does this alone: the
%s.
gzip has seen nothing before these bytes; the model has seen the training text, but looks back %d bytes at most.
`, j.opt.batch, c.seq, c.seq, j.opt.threads, runtime.NumCPU(), procmem.Meaning, j.opt.seq)
}
