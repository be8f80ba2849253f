//go:build cuda

package op

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
)

// Every TapeMachine with a node on the card loads these modules: Gorgonia's own elementwise operators are among them.
func init() {
	for _, module := range cudamodules.Modules() {
		ptx, err := cudamodules.PTX(module)
		if err != nil {
			panic(err) // it is embedded
		}
		names, err := cudamodules.Entries(module)
		if err != nil {
			panic(err)
		}
		G.AddToStdLib(module, ptx, names)
	}
}

// DevicePtr is memory of a card.
type DevicePtr = cu.DevicePtr

// Card is where an op's CUDADo runs: a device of a machine.
type Card struct {
	name    string // the op's, for errors
	machine G.CUDAMachine
	ext     G.External
	dev     G.Device
}

// OnCard finds the card for a CUDADo.
func OnCard(name string, ext G.External, dev G.Device) (*Card, error) {
	m, ok := ext.(G.CUDAMachine)
	if !ok || int(dev) < 0 || int(dev) >= len(m.Engines()) {
		return nil, fmt.Errorf("%s: got machine %T and device %v, want a machine with that card", name, ext, dev)
	}
	return &Card{name, m, ext, dev}, nil
}

// Launch starts kernel module.name_dtype with n threads' worth of elementwise work, or the given geometry. params are values on the
// card, nil for a null pointer, int and float64: each takes 8 bytes.
func (c *Card) Launch(kernel string, grid, block [3]int, shared int, params ...any) error {
	// By pointer: the engine's queue is part of it.
	e := &c.machine.Engines()[int(c.dev)]
	fn, ok := e.Functions()[kernel]
	if !ok {
		return fmt.Errorf("%s: the machine has no kernel %s", c.name, kernel)
	}
	words := make([]uint64, len(params))
	argv := make([]unsafe.Pointer, len(params))
	for i, p := range params {
		switch p := p.(type) {
		case nil:
		case int:
			words[i] = uint64(p)
		case float64:
			words[i] = math.Float64bits(p)
		case G.Value:
			words[i] = uint64(p.Uintptr())
		case cu.DevicePtr:
			words[i] = uint64(p.Uintptr())
		default:
			return fmt.Errorf("%s: kernel %s: parameter %d: got %T, want a value, an int or a float64", c.name, kernel, i, p)
		}
		argv[i] = unsafe.Pointer(&words[i])
	}
	e.Context().LaunchAndSync(fn, max(grid[0], 1), max(grid[1], 1), max(grid[2], 1), max(block[0], 1), max(block[1], 1), max(block[2], 1),
		shared, cu.NoStream, argv)
	return c.settle()
}

// settle empties gorgonia.org/cu's queue, which crashes when some sixty calls are waiting in it. The replacement has none.
func (c *Card) settle() error {
	e := &c.machine.Engines()[int(c.dev)]
	if x, ok := any(e.Context()).(interface{ Eager() bool }); ok && x.Eager() {
		return e.Context().Errors()
	}
	return e.DoWork()
}

// Elementwise starts a kernel for n elements, which is its last parameter.
func (c *Card) Elementwise(kernel string, n int, params ...any) error {
	const threads, most = 256, 4096
	return c.Launch(kernel, [3]int{min((n+threads-1)/threads, most)}, [3]int{threads}, 0, append(params, n)...)
}

// Copy copies a value of n bytes within the card.
func (c *Card) Copy(dst, src G.Value, n int) error { return c.CopyBytes(At(dst, 0), At(src, 0), n) }

// CopyIn copies numbers to the card.
func CopyIn[T float32 | float64 | int64](c *Card, dst DevicePtr, numbers []T) error {
	e := &c.machine.Engines()[int(c.dev)]
	e.Context().MemcpyHtoD(dst, unsafe.Pointer(&numbers[0]), int64(len(numbers))*int64(unsafe.Sizeof(numbers[0])))
	err := c.settle()
	runtime.KeepAlive(numbers)
	return err
}

// Ints are the integers of a value on the card.
func (c *Card) Ints(v G.Value) ([]int, error) {
	n := 1
	if s := v.Shape(); !s.IsScalar() {
		n = s.TotalSize()
	}
	out := make([]int, n)
	switch e := c.machine.Engines()[int(c.dev)].Context(); v.Dtype() {
	case tensor.Int32:
		narrow := make([]int32, n)
		e.MemcpyDtoH(unsafe.Pointer(&narrow[0]), DevicePtr(v.Uintptr()), int64(4*n))
		if err := c.settle(); err != nil {
			return nil, err
		}
		for i, x := range narrow {
			out[i] = int(x)
		}
	case tensor.Int, tensor.Int64:
		e.MemcpyDtoH(unsafe.Pointer(&out[0]), DevicePtr(v.Uintptr()), int64(8*n))
		if err := c.settle(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s: got a value of %v, want int, int32 or int64", c.name, v.Dtype())
	}
	return out, nil
}

// At is the address n bytes into a value on the card.
func At(v G.Value, n int) DevicePtr { return DevicePtr(v.Uintptr()) + DevicePtr(n) }

// CopyBytes copies n bytes within the card.
func (c *Card) CopyBytes(dst, src DevicePtr, n int) error {
	c.machine.Engines()[int(c.dev)].Context().Memcpy(dst, src, int64(n))
	return c.settle()
}

// Zero makes n numbers of the kind of v zero, from dst on.
func (c *Card) Zero(v G.Value, dst DevicePtr, n int) error {
	return c.Elementwise("elements.zero"+Suffix(v), n, dst)
}

// SharedMost is how many bytes of dynamic shared memory a block may have. gorgonia.org/cu cannot ask for more than 48 KB.
func (c *Card) SharedMost() (int, error) {
	const optIn, always = 97, 48 << 10 // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
	if x, ok := any(c.machine.Engines()[int(c.dev)].Context()).(interface{ Eager() bool }); !ok || !x.Eager() {
		return always, nil
	}
	got, err := cu.Device(c.dev).Attributes(optIn)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	return max(got[0], always), nil
}

// Scratch lends n bytes, with arbitrary contents, to the kernels that f launches. gorgonia.org/cu lends none: there they come from the
// machine's arena, which has room for half as much again as its values take.
func (c *Card) Scratch(n int, f func(p DevicePtr) error) error {
	failed := func(err error) error { return fmt.Errorf("%s: %d bytes of scratch: %w", c.name, n, err) }
	lender, ok := any(c.machine.Engines()[int(c.dev)].Context()).(interface {
		Borrow(n int64) (DevicePtr, error)
		Return(p DevicePtr, n int64)
	})
	if !ok {
		mem, err := c.ext.Get(c.dev, int64(n))
		if err != nil {
			return failed(err)
		}
		defer c.ext.Put(c.dev, mem, int64(n))
		return f(cu.DevicePtr(mem.Uintptr()))
	}
	p, err := lender.Borrow(int64(n))
	if err != nil {
		return failed(err)
	}
	defer lender.Return(p, int64(n))
	return f(p)
}

// Suffix is how kernels are named after the dtype of v.
func Suffix(v G.Value) string {
	if strings.HasSuffix(v.Dtype().String(), "64") {
		return "_f64"
	}
	return "_f32"
}

// SizeOf is the size of a number of a kernel's suffix, in bytes.
func SizeOf(suffix string) int {
	if suffix == "_f64" {
		return 8
	}
	return 4
}

// Forward runs an op's kernel into the memory that the machine has set aside for its result.
func Forward(name string, ext G.External, dev G.Device, prealloc G.Value, f func(c *Card) error) (_ G.Value, err error) {
	defer Recover(name, &err)
	c, err := OnCard(name, ext, dev)
	if err != nil {
		return nil, err
	}
	if prealloc == nil {
		return nil, fmt.Errorf("%s: got no memory for the result", name)
	}
	if err := f(c); err != nil {
		return nil, err
	}
	return prealloc, nil
}

// CUDABackwarder is a Backwarder whose gradient has kernels. CUDABackward is Backward on the card; what is in dIn holds arbitrary
// numbers before.
type CUDABackwarder interface {
	Backwarder
	CUDABackward(c *Card, in []G.Value, out, dOut G.Value, dIn []G.Value) error
}

// cudaGradOp is gradOp on the card.
type cudaGradOp struct{ *gradOp }

// CallsExtern makes the machine set memory aside for the result.
func (o *cudaGradOp) CallsExtern() bool { return true }

func (o *cudaGradOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return Forward(o.name, ext, dev, prealloc, func(c *Card) error {
		args, err := o.split(in)
		if err != nil {
			return err
		}
		args.dIn[o.first] = prealloc
		return o.of.(CUDABackwarder).CUDABackward(c, args.in, args.out, args.dOut, args.dIn)
	})
}

// gradOpFor is g, on the card if it can be.
func gradOpFor(g *gradOp) G.Op {
	if _, ok := g.of.(CUDABackwarder); ok {
		return &cudaGradOp{g}
	}
	return g
}

// cudaSideOp is memory of the card that one op fills for others.
type cudaSideOp struct{ *sideOp }

func (o *cudaSideOp) CallsExtern() bool { return true }

func (o *cudaSideOp) CUDADo(_ G.External, _ G.Device, prealloc G.Value, _ ...G.Value) (G.Value, error) {
	if prealloc == nil {
		return nil, fmt.Errorf("%s: got no memory for the result", o.name)
	}
	return prealloc, nil
}

func sideOpFor(o *sideOp, of any) G.Op {
	if _, ok := of.(CUDABackwarder); ok {
		return &cudaSideOp{o}
	}
	return o
}

// cudaAfterOp copies the side: its memory ends with the last node that takes it as an input, which this one is.
type cudaAfterOp struct{ *afterOp }

func (o *cudaAfterOp) CallsExtern() bool { return true }

func (o *cudaAfterOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return Forward(o.name, ext, dev, prealloc, func(c *Card) error {
		return c.Copy(prealloc, in[0], o.shape.TotalSize()*int(in[0].Dtype().Size()))
	})
}

// afterOpFor is o on the card if the op that filled the side is there.
func afterOpFor(o *afterOp, filled *G.Node) G.Op {
	if _, ok := filled.Op().(G.CUDADoer); ok {
		return &cudaAfterOp{o}
	}
	return o
}

// Apply is gorgonia.ApplyOp. The machine copies an input to the card as so many bytes from where its value starts, which is wrong for
// a view: inputs that may be one pass through a node that lays them out first.
func Apply(o G.Op, in ...*G.Node) (*G.Node, error) {
	if _, ok := o.(G.CUDADoer); !ok {
		return G.ApplyOp(o, in...)
	}
	packed := make(G.Nodes, len(in))
	for i, n := range in {
		packed[i] = n
		if mayBeView(n) {
			var err error
			if packed[i], err = G.ApplyOp(&packOp{NewBase("op.Pack", nil, n.Shape(), n.Dtype(), n)}, n); err != nil {
				return nil, err
			}
		}
	}
	return G.ApplyOp(o, packed...)
}

func mayBeView(n *G.Node) bool {
	if _, ok := n.Op().(G.CUDADoer); ok {
		return false
	}
	_, ours := n.Op().(interface{ OutShape() tensor.Shape })
	return !ours
}

// packOp gives a value on as it is, or a copy in row-major order if it is a view. What it gives is copied to the card, and written by
// nobody.
type packOp struct{ Base }

func (o *packOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer Recover(o.name, &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	d, ok := in[0].(*tensor.Dense)
	if !ok || Contiguous(d) {
		return in[0], nil
	}
	var data any
	switch x := d.Data().(type) {
	case []float32:
		data = RowMajor(d, x)
	case []float64:
		data = RowMajor(d, x)
	case []int:
		data = RowMajor(d, x)
	case []int32:
		data = RowMajor(d, x)
	case []int64:
		data = RowMajor(d, x)
	case []uint8:
		data = RowMajor(d, x)
	case []uint16:
		data = RowMajor(d, x)
	default:
		return nil, fmt.Errorf("%s: got a view of %v, want floats or integers", o.name, d.Dtype())
	}
	return tensor.New(tensor.WithShape(d.Shape()...), tensor.WithBacking(data)), nil
}

// Kind is Passes.
func (o *packOp) Kind() Kind { return Passes }

// FreshResult: no, it may be the input's, a model's weights for one.
func (o *packOp) FreshResult() bool { return false }

// DiffWRT: floats.
func (o *packOp) DiffWRT(n int) []bool {
	ok := true
	switch o.OutDtype() {
	case tensor.Float32, tensor.Float64:
	default:
		ok = false
	}
	return []bool{ok}
}

// SymDiff hands the gradient on.
func (o *packOp) SymDiff(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) { return G.Nodes{grad}, nil }

// DoDiff is SymDiff on a LispMachine.
func (o *packOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return DoDiff(o, in, out)
}

// Backward hands the gradient on.
func (o *packOp) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.OutDtype() == tensor.Float64 {
		return addInto[float64](dIn[0], dOut.(*tensor.Dense))
	}
	return addInto[float32](dIn[0], dOut.(*tensor.Dense))
}
