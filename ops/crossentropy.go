package ops

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// Reduction says how the losses of rows become one number.
type Reduction int

const (
	// ReduceMean divides the sum by the number of rows that are not ignored; none at all make a loss of 0.
	ReduceMean Reduction = iota
	// ReduceSum adds them up.
	ReduceSum
)

// String returns "mean" or "sum".
func (r Reduction) String() string {
	switch r {
	case ReduceMean:
		return "mean"
	case ReduceSum:
		return "sum"
	}
	return fmt.Sprintf("Reduction(%d)", int(r))
}

// CrossEntropyConfig configures CrossEntropy.
type CrossEntropyConfig struct {
	// Ignore says that rows with the target IgnoreIndex count for nothing. IgnoreIndex need not be a class; −100 is common.
	Ignore      bool
	IgnoreIndex int
	// LabelSmoothing is ε in [0, 1): the share of the target distribution that is spread evenly over all classes.
	LabelSmoothing float64
	// ZLoss weighs the square of the log of the softmax's normaliser, which keeps logits from drifting. 10⁻⁴ is common.
	ZLoss float64
	// Reduction is the mean over the rows that are not ignored, or the sum.
	Reduction Reduction
}

// CrossEntropy is the loss of logits against integer targets, a scalar that can be the cost of gorgonia.Grad:
//
//	lse_r = ln Σ_j e^z[r,j]
//	loss_r = (1−ε)·(lse_r − z[r,t_r]) + ε·(lse_r − Σ_j z[r,j]/vocab) + ZLoss·lse_r²
//
// and the mean or the sum of loss_r over the rows that are not ignored, in nats. logits is (rows, vocab) or
// (batch, seq, vocab), of floats; targets is (rows) or (batch, seq), of integers in [0, vocab), others being an error when
// the graph runs. It is differentiable with respect to logits:
//
//	dz[r,j] = dLoss·((1 + 2·ZLoss·lse_r)·softmax(z_r)_j − (1−ε)·[j = t_r] − ε/vocab), over the row count for the mean
//
// Only the maximum and the sum of exponentials of each row are kept for that; nothing else of the size of logits is
// made.
//
// Logits of any finite size are fine, and −Inf excludes a class: its probability is 0, and so is its gradient. A row whose target is
// excluded, or one with an excluded class under LabelSmoothing, has an infinite loss. A NaN or +Inf logit and a row without
// any class make the loss and the row's gradient NaN: they mean a model that has diverged, and that should be seen.
//
// Sources: label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7.
// z-loss: Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", 2022, section 5.
func CrossEntropy(logits, targets *G.Node, cfg CrossEntropyConfig) (*G.Node, error) {
	const fn = "ops.CrossEntropy"
	al, at := op.Arg{Name: "logits", Node: logits}, op.Arg{Name: "targets", Node: targets}
	if err := op.CheckArgs(fn, al, at); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, al); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, al, 2, 3); err != nil {
		return nil, err
	}
	if err := checkRows(fn, al); err != nil {
		return nil, err
	}
	if err := op.CheckInteger(fn, at); err != nil {
		return nil, err
	}
	shape := logits.Shape()
	if err := op.CheckShape(fn, at, shape[:shape.Dims()-1]...); err != nil {
		return nil, err
	}
	rows, vocab := rowsOf(shape)
	if err := cfg.check(fn); err != nil {
		return nil, err
	}
	stats, err := op.SideFor((*crossEntropy)(nil), logits, tensor.Shape{rows, 2}, logits.Dtype())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	return op.Apply(&crossEntropy{
		Base: op.NewBase(fn, cfg, tensor.ScalarShape(), logits.Dtype(), logits, targets, stats),
		cfg:  cfg, dtype: logits.Dtype(), rows: rows, vocab: vocab,
	}, logits, targets, stats)
}

func (c CrossEntropyConfig) check(fn string) error {
	if !c.Ignore && c.IgnoreIndex != 0 {
		return fmt.Errorf("%s: IgnoreIndex: got %d without Ignore, want 0", fn, c.IgnoreIndex)
	}
	if !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1) {
		return fmt.Errorf("%s: LabelSmoothing: got %v, want a number in [0, 1)", fn, c.LabelSmoothing)
	}
	if !(c.ZLoss >= 0) || math.IsInf(c.ZLoss, 1) {
		return fmt.Errorf("%s: ZLoss: got %v, want a finite number of at least 0", fn, c.ZLoss)
	}
	if c.Reduction != ReduceMean && c.Reduction != ReduceSum {
		return fmt.Errorf("%s: Reduction: got %v, want mean or sum", fn, c.Reduction)
	}
	return nil
}

// crossEntropy has the inputs logits, targets and a side (rows, 2) that Do fills with the maximum of each row and the sum
// of its exponentials after subtracting it.
type crossEntropy struct {
	op.Base
	cfg         CrossEntropyConfig
	dtype       tensor.Dtype
	rows, vocab int
}

var _ op.Selective = (*crossEntropy)(nil)

func (o *crossEntropy) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return crossEntropyForward[float64](o, in)
	}
	return crossEntropyForward[float32](o, in)
}

// DiffWRT: logits only.
func (o *crossEntropy) DiffWRT(int) []bool { return []bool{true, false, false} }

// BackwardReads: the inputs.
func (o *crossEntropy) BackwardReads(i int) bool { return i >= 0 }

// SymDiff builds the gradient for a TapeMachine.
func (o *crossEntropy) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *crossEntropy) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward recomputes the softmax of each row from its maximum and sum.
func (o *crossEntropy) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return crossEntropyBackward[float64](o, in, dOut, dIn)
	}
	return crossEntropyBackward[float32](o, in, dOut, dIn)
}

func crossEntropyForward[T kernel.Float](o *crossEntropy, in []G.Value) (G.Value, error) {
	z, err := op.Elements[T](o.Name(), "logits", in[0], o.rows*o.vocab)
	if err != nil {
		return nil, err
	}
	targets, count, err := o.targets(in[1])
	if err != nil {
		return nil, err
	}
	side, ok := in[2].(*tensor.Dense)
	if !ok {
		return nil, fmt.Errorf("%s: got a side of type %T, want *tensor.Dense", o.Name(), in[2])
	}
	stats := op.Memory[T](side)
	losses := make([]float64, o.rows)
	o.eachRow(func(r int) {
		if o.ignored(targets[r]) {
			return
		}
		row := z[r*o.vocab : (r+1)*o.vocab]
		top := kernel.Max(row)
		sum := kernel.SumExp(row, top)
		stats[2*r], stats[2*r+1] = top, sum
		losses[r] = crossEntropyRow(o, row, targets[r], crossEntropyLSE(top, sum))
	})
	var total float64
	for _, l := range losses {
		total += l
	}
	return op.NewScalar(T(total * o.weight(count))), nil
}

// crossEntropyLSE is ln Σ e^z in nats of a row with the given maximum and sum of e^(z−max); NaN where the row has no
// distribution.
func crossEntropyLSE[T kernel.Float](top, sum T) float64 {
	if math.IsInf(float64(top), 0) {
		return math.NaN()
	}
	return float64(top) + math.Log(float64(sum))
}

// crossEntropyRow is the loss of one row.
func crossEntropyRow[T kernel.Float](o *crossEntropy, row []T, target int, lse float64) float64 {
	eps := o.cfg.LabelSmoothing
	loss := (1-eps)*(lse-float64(row[target])) + o.cfg.ZLoss*lse*lse
	if eps > 0 {
		loss += eps * (lse - crossEntropySum(row)/float64(o.vocab))
	}
	return loss
}

// crossEntropySum is Σ z. A sum that leaves float32 is taken in float64.
func crossEntropySum[T kernel.Float](row []T) float64 {
	sum := float64(kernel.Sum(row))
	if math.IsInf(sum, 0) || math.IsNaN(sum) {
		sum = 0
		for _, z := range row {
			sum += float64(z)
		}
	}
	return sum
}

func crossEntropyBackward[T kernel.Float](o *crossEntropy, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	z, err := op.Elements[T](o.Name(), "logits", in[0], o.rows*o.vocab)
	if err != nil {
		return err
	}
	targets, count, err := o.targets(in[1])
	if err != nil {
		return err
	}
	stats, err := op.Elements[T](o.Name(), "side", in[2], 2*o.rows)
	if err != nil {
		return err
	}
	g, err := op.Elements[T](o.Name(), "gradient", dOut, 1)
	if err != nil {
		return err
	}
	dz := op.Memory[T](dIn[0])
	weight := float64(g[0]) * o.weight(count)
	eps := o.cfg.LabelSmoothing
	o.eachRow(func(r int) {
		if o.ignored(targets[r]) {
			return
		}
		row := dz[r*o.vocab : (r+1)*o.vocab]
		top, sum := stats[2*r], stats[2*r+1]
		lse := crossEntropyLSE(top, sum)
		kernel.ExpSub(row, z[r*o.vocab:(r+1)*o.vocab], top)
		kernel.Scale(row, row, T(weight*(1+2*o.cfg.ZLoss*lse)/float64(sum)))
		if eps > 0 {
			kernel.AddScalar(row, row, T(-weight*eps/float64(o.vocab)))
		}
		row[targets[r]] -= T(weight * (1 - eps))
	})
	return nil
}

// eachRow calls body for every row, several to a task where they are short.
func (o *crossEntropy) eachRow(body func(r int)) {
	per := max(1, minChunkLen/o.vocab)
	parallel.Run((o.rows+per-1)/per, func(_ *parallel.Worker, task int) {
		for r := task * per; r < min((task+1)*per, o.rows); r++ {
			body(r)
		}
	})
}

func (o *crossEntropy) ignored(target int) bool { return o.cfg.Ignore && target == o.cfg.IgnoreIndex }

// weight is what the sum over count rows is multiplied by.
func (o *crossEntropy) weight(count int) float64 {
	if o.cfg.Reduction == ReduceSum || count == 0 {
		return 1
	}
	return 1 / float64(count)
}

// targets returns a copy of the targets, all of them classes or ignored, and how many are not ignored.
func (o *crossEntropy) targets(v G.Value) (targets []int, count int, err error) {
	if targets, err = op.Ints(v); err != nil {
		return nil, 0, fmt.Errorf("%s: targets: %w", o.Name(), err)
	}
	if len(targets) != o.rows {
		return nil, 0, fmt.Errorf("%s: targets: got %d elements, want %d", o.Name(), len(targets), o.rows)
	}
	for i, t := range targets {
		switch {
		case o.ignored(t):
		case t < 0 || t >= o.vocab:
			return nil, 0, fmt.Errorf("%s: targets: got %d at element %d, want 0 to %d", o.Name(), t, i, o.vocab-1)
		default:
			count++
		}
	}
	return targets, count, nil
}
