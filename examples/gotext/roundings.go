package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"

	"stheno"
	"stheno/ops/quantize"
)

// leastLoss is a loss in %, below which a share of it says nothing: the last digit that the table shows.
const leastLoss = 0.01

// roundingRow is a line of the table of roundings.
type roundingRow struct {
	what string
	bits float64 // a byte of the held-out text
	full float64 // the same of float32 after the same steps; 0 for the model before them
}

// roundings is what the ways of choosing codes lose.
type roundings struct {
	weights stheno.Precision
	steps   int     // further ones; 0: none
	before  float64 // bits per byte of the model, in float32
	rows    []roundingRow

	// After the further steps: in float32, these weights rounded to nearest, and trained for the codes.
	full, nearest, trained float64
}

// lost is by how many % the perplexity of bits is above that of full.
func lost(bits, full float64) float64 { return 100 * math.Expm1((bits-full)*math.Ln2) }

// compareRoundings evaluates the ways of choosing codes on the held-out text and prints what they lose.
func (j *job) compareRoundings(ctx context.Context) error {
	fmt.Fprintln(j.log, "            measuring what ways of rounding lose")
	held := tokens(j.text.held)
	t := roundings{weights: j.opt.weights, before: j.heldOut, rows: []roundingRow{{what: "float32, the model before", bits: j.heldOut}}}
	add := func(what string, m *stheno.Model, full float64) (float64, error) {
		bits, err := m.Evaluate(ctx, held, j.opt.seq, stheno.Fused)
		t.rows = append(t.rows, roundingRow{what, bits, full})
		return bits, err
	}
	round := func(m *stheno.Model, how quantize.Method, full float64) (float64, error) {
		q, err := j.rounded(m, how)
		if err != nil {
			return 0, err
		}
		return add(fmt.Sprintf("  rounded: %v", how), q, full)
	}
	for _, how := range []quantize.Method{quantize.Nearest, quantize.Clipped, quantize.GPTQ} {
		if _, err := round(j.model, how, 0); err != nil {
			return err
		}
	}
	if j.further == nil {
		t.print(j.out, len(held))
		return nil
	}
	var err error
	t.steps = j.opt.qat
	if t.full, err = j.further.inFull.Evaluate(ctx, held, j.opt.seq, stheno.Fused); err != nil {
		return err
	}
	t.rows = append(t.rows, roundingRow{fmt.Sprintf("float32, %d more steps", t.steps), t.full, t.full})
	if t.nearest, err = round(j.further.inFull, quantize.Nearest, t.full); err != nil {
		return err
	}
	if _, err = round(j.further.inFull, quantize.GPTQ, t.full); err != nil {
		return err
	}
	t.trained, err = add(fmt.Sprintf("trained for %v, %d steps: %v", t.weights, t.steps, j.opt.rounding), j.quantized, t.full)
	if err != nil {
		return err
	}
	t.print(j.out, len(held))
	return nil
}

// print writes the table, and below it the share that training for the codes has won back.
func (t roundings) print(w io.Writer, held int) {
	fmt.Fprintf(w, "\nWeights in %v, %s held out; GPTQ is calibrated on training text. Perplexity, against float32\n\n", t.weights, bytesOf(held, 0))
	line := func(cells ...string) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-44s%16s%16s%18s", cells[0], cells[1], cells[2], cells[3]), " "))
	}
	same := ""
	if t.steps > 0 {
		same = "after as many"
	}
	line("", "bits per byte", "before", same)
	for i, r := range t.rows {
		before, after := "", ""
		if i > 0 {
			before = fmt.Sprintf("%+.2f %%", lost(r.bits, t.before))
		}
		if r.full != 0 && r.bits != r.full {
			after = fmt.Sprintf("%+.2f %%", lost(r.bits, r.full))
		}
		line(r.what, fmt.Sprintf("%.4f", r.bits), before, after)
	}
	if t.steps > 0 {
		fmt.Fprintf(w, "\n%s\n", t.wonBack())
	}
}

// wonBack says what training for the codes has won back. All it compares has had the same further steps; the second sentence
// sets apart what the steps alone have brought.
func (t roundings) wonBack() string {
	rounding := lost(t.nearest, t.full)
	if !(rounding >= leastLoss) {
		return fmt.Sprintf("After %d more steps rounding to nearest loses %.3f %%: too little to say what training for %v wins back.", t.steps, rounding, t.weights)
	}
	trained := lost(t.trained, t.full)
	return fmt.Sprintf(`Training for %v wins back %.0f %% of what rounding to nearest loses: %.2f %% instead of %.2f %% against float32, all after %d more steps.
Against the model before them it is %+.2f %% instead of %+.2f %%; of both the steps alone are %+.2f %%.`,
		t.weights, 100*(1-trained/rounding), trained, rounding, t.steps,
		lost(t.trained, t.before), lost(t.nearest, t.before), lost(t.full, t.before))
}
