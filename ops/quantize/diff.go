package quantize

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
	"stheno/ops"
)

// biasAt is the bias's place among the inputs.
func (o *matMul) biasAt() int {
	at := o.Arity() - 1
	if o.keeps {
		at--
	}
	return at
}

// DiffWRT: x and the bias, nothing with NoGrad.
func (o *matMul) DiffWRT(n int) []bool {
	wrt := make([]bool, n)
	if !o.noGrad {
		wrt[0] = true
		if o.biased {
			wrt[o.biasAt()] = true
		}
	}
	return wrt
}

// SymDiff builds the gradient for a TapeMachine.
func (o *matMul) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *matMul) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	if o.noGrad {
		return nil
	}
	return op.DoDiff(o, in, out)
}

// Backward: with z = x·ŵ + bias and dz = dOut·act'(z),
//
//	dx = dz·ŵᵀ    dbias = Σ_rows dz
//
// where x is clamped to the range of InputScale, dx is 0.
func (o *matMul) Backward(in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return backward[float64](o, in, out, dOut, dIn)
	}
	return backward[float32](o, in, out, dOut, dIn)
}

func backward[T kernel.Float](o *matMul, in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if o.noGrad {
		return nil
	}
	a, err := read[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.rows*o.out)
	if err != nil {
		return err
	}
	z := a.kept // what the activation's derivative is a function of
	if o.activation == ops.ActReLU {
		if z, err = op.Elements[T](o.Name(), "result", out, len(dy)); err != nil {
			return err
		}
	}
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		dz := dy
		if z != nil {
			dz = parallel.Scratch[T](w, 0, len(dy))
			parallel.Run((len(dy)+deltaBlock-1)/deltaBlock, func(_ *parallel.Worker, i int) {
				lo, hi := i*deltaBlock, min((i+1)*deltaBlock, len(dy))
				activateGrad(o.activation, dz[lo:hi], z[lo:hi], dy[lo:hi])
			})
		}
		if o.biased {
			sumRows(op.Memory[T](dIn[o.biasAt()]), dz)
		}
		dx := op.Memory[T](dIn[0])
		kernel.GemmQuantizedT(kernel.RowMajor(dx, o.rows, o.in), kernel.RowMajor(dz, o.rows, o.out), a.w)
		if o.inputScale > 0 {
			end := 127 * T(o.inputScale)
			for i, x := range a.x {
				if x >= end || x <= -end {
					dx[i] = 0
				}
			}
		}
	})
	return nil
}

const (
	deltaBlock = 1 << 14 // numbers of a task
	sumCols    = 256     // columns of a task
)

// sumRows sets sum to the sum of dz's rows, in their order.
func sumRows[T kernel.Float](sum, dz []T) {
	n := len(sum)
	parallel.Run((n+sumCols-1)/sumCols, func(_ *parallel.Worker, i int) {
		lo, hi := i*sumCols, min((i+1)*sumCols, n)
		clear(sum[lo:hi])
		for at := 0; at < len(dz); at += n {
			kernel.Add(sum[lo:hi], sum[lo:hi], dz[at+lo:at+hi])
		}
	})
}

// activateGrad is dz[i] = dy[i]·a'(z[i]). For ActReLU, z may also be the activation's result.
func activateGrad[T kernel.Float](a ops.Activation, dz, z, dy []T) {
	switch a {
	case ops.ActReLU:
		kernel.ReluGrad(dz, z, dy)
	case ops.ActGELU:
		kernel.GeluErfGrad(dz, z, dy)
	case ops.ActGELUTanh:
		kernel.GeluTanhGrad(dz, z, dy)
	case ops.ActSiLU:
		kernel.SiluGrad(dz, z, dy)
	}
}
