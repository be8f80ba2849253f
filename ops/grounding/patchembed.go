package grounding

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
	"stheno/ops"
)

// PatchEmbedConfig configures PatchEmbed and Cut.
type PatchEmbedConfig struct {
	// PatchHeight and PatchWidth are the sides of a patch in pixels, divisors of the picture's height and width. 0 means 16
	// for the height, and the height for the width.
	PatchHeight, PatchWidth int
	// TransposeWeight says that w is (dim, channels·PatchHeight·PatchWidth), as a checkpoint's convolution kernel is once its
	// last three dimensions are made one. Cut has no use for it.
	TransposeWeight bool
}

// PatchEmbed is the first layer of a vision transformer: pictures are cut into patches, each mapped to a vector,
//
//	y[b,p] = flatten(patch p of picture b)·w + bias
//
// x is (batch, channels, height, width), w (channels·PatchHeight·PatchWidth, dim), bias (dim) or nil. The result is
// (batch, patches, dim), patches row by row, differentiable with respect to x, w and bias.
//
// Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, equation 1 (without position embeddings).
func PatchEmbed(x, w, bias *G.Node, cfg PatchEmbedConfig) (*G.Node, error) {
	const fn = "grounding.PatchEmbed"
	rows, err := cutNode(fn, x, cfg)
	if err != nil {
		return nil, err
	}
	y, err := ops.Linear(rows, w, bias, ops.LinearConfig{TransposeWeight: cfg.TransposeWeight})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	return y, nil
}

// Cut is PatchEmbed without weights: the patches themselves, (batch, patches, channels·PatchHeight·PatchWidth), each in the
// order channel, y, x. Differentiable with respect to x.
func Cut(x *G.Node, cfg PatchEmbedConfig) (*G.Node, error) { return cutNode("grounding.Cut", x, cfg) }

func cutNode(fn string, x *G.Node, cfg PatchEmbedConfig) (*G.Node, error) {
	a := op.Arg{Name: "x", Node: x}
	if err := op.CheckArgs(fn, a); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, a); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, a, 4); err != nil {
		return nil, err
	}
	if err := checkFull(fn, a); err != nil {
		return nil, err
	}
	if cfg.PatchHeight == 0 {
		cfg.PatchHeight = 16
	}
	if cfg.PatchWidth == 0 {
		cfg.PatchWidth = cfg.PatchHeight
	}
	s := x.Shape()
	for _, d := range []struct {
		name       string
		patch, all int
	}{{"PatchHeight", cfg.PatchHeight, s[2]}, {"PatchWidth", cfg.PatchWidth, s[3]}} {
		if d.patch < 1 || d.all%d.patch != 0 {
			return nil, fmt.Errorf("%s: %s: got %d, want a divisor of the picture's %d", fn, d.name, d.patch, d.all)
		}
	}
	c := cutting{s[0], s[1], s[2], s[3], cfg.PatchHeight, cfg.PatchWidth}
	shape := tensor.Shape{s[0], s[2] / c.ph * (s[3] / c.pw), s[1] * c.ph * c.pw}
	return op.Apply(&cutOp{Base: op.NewBase("grounding.Cut", c, shape, x.Dtype(), x), s: c, dtype: x.Dtype()}, x)
}

// cutting is the geometry of pictures and patches.
type cutting struct{ batch, channels, height, width, ph, pw int }

// each calls body with the places of each run of pw pixels in patches and in pictures.
func (s cutting) each(body func(patch, picture int)) {
	rows, cols := s.height/s.ph, s.width/s.pw
	parallel.Run(s.batch*rows, func(_ *parallel.Worker, i int) {
		b, r := i/rows, i%rows
		for c := range cols {
			for ch := range s.channels {
				for y := range s.ph {
					patch := ((((b*rows+r)*cols+c)*s.channels+ch)*s.ph + y) * s.pw
					body(patch, ((b*s.channels+ch)*s.height+r*s.ph+y)*s.width+c*s.pw)
				}
			}
		}
	})
}

func cut[T kernel.Float](s cutting, patches, pictures []T) {
	s.each(func(a, b int) { copy(patches[a:a+s.pw], pictures[b:b+s.pw]) })
}

type cutOp struct {
	op.Base
	s     cutting
	dtype tensor.Dtype
}

var _ op.Backwarder = (*cutOp)(nil)

func (o *cutOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return cutForward[float64](o, in[0])
	}
	return cutForward[float32](o, in[0])
}

func cutForward[T kernel.Float](o *cutOp, in G.Value) (G.Value, error) {
	x, err := op.Elements[T](o.Name(), "x", in, o.OutShape().TotalSize())
	if err != nil {
		return nil, err
	}
	out, y := op.New[T](o.OutShape())
	cut(o.s, y, x)
	return out, nil
}

// DiffWRT: x.
func (o *cutOp) DiffWRT(n int) []bool { return firstTrue(n, 1) }

// SymDiff builds the gradient for a TapeMachine.
func (o *cutOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *cutOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward puts each number back where it came from.
func (o *cutOp) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return cutBackward[float64](o, dOut, dIn[0])
	}
	return cutBackward[float32](o, dOut, dIn[0])
}

func cutBackward[T kernel.Float](o *cutOp, dOut G.Value, dIn *tensor.Dense) error {
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.OutShape().TotalSize())
	if err != nil {
		return err
	}
	dx := op.Memory[T](dIn)
	o.s.each(func(a, b int) { copy(dx[b:b+o.s.pw], dy[a:a+o.s.pw]) })
	return nil
}
