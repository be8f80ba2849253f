package tensorfile

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"

	"stheno/internal/aside"
	"stheno/internal/op"
)

// Halves says which 16-bit numbers a tensor of uint16 holds.
type Halves map[string]safetensors.DType

// view is a tensor on its way into a file.
type view struct {
	d     *tensor.Dense
	dtype safetensors.DType
}

var _ safetensors.View = view{}

func (v view) DType() safetensors.DType { return v.dtype }

// dtypeOf is how a file names the numbers of d.
func dtypeOf(d *tensor.Dense, halves safetensors.DType) (safetensors.DType, error) {
	switch d.Data().(type) {
	case []float32:
		return safetensors.F32, nil
	case []float64:
		return safetensors.F64, nil
	case []int64:
		return safetensors.I64, nil
	case []uint8:
		return safetensors.U8, nil
	case []uint16:
		if halves == safetensors.F16 || halves == safetensors.BF16 {
			return halves, nil
		}
		return safetensors.U16, nil
	}
	return 0, fmt.Errorf("got a tensor of %v, want float32, float64, int64, uint8 or uint16", d.Dtype())
}

func (v view) Shape() []uint64 {
	out := make([]uint64, v.d.Dims())
	for i, n := range v.d.Shape() {
		out[i] = uint64(n)
	}
	return out
}

func (v view) DataLen() uint64 { return uint64(v.d.Size()) * v.dtype.Size() }

// Data encodes one tensor at a time: the library writes them one after the other.
func (v view) Data() []byte { return Bytes(v.d) }

// Bytes are the numbers of a contiguous tensor as they stand in a file. Those of uint8 are the tensor's own memory.
func Bytes(d *tensor.Dense) []byte {
	var out []byte
	switch d := d.Data().(type) {
	case []float32:
		out = make([]byte, 0, 4*len(d))
		for _, x := range d {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
		}
	case []float64:
		out = make([]byte, 0, 8*len(d))
		for _, x := range d {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(x))
		}
	case []int64:
		out = make([]byte, 0, 8*len(d))
		for _, x := range d {
			out = binary.LittleEndian.AppendUint64(out, uint64(x))
		}
	case []uint8:
		return d
	case []uint16:
		out = make([]byte, 0, 2*len(d))
		for _, x := range d {
			out = binary.LittleEndian.AppendUint16(out, x)
		}
	}
	return out
}

// Write writes a safetensors file whole or not at all: into a new file beside path, synced, then renamed. Tensors of uint16 are U16,
// or what halves calls them: F16 or BF16.
func Write(path string, tensors map[string]*tensor.Dense, halves Halves, meta map[string]string) error {
	views := make(map[string]view, len(tensors))
	for name, d := range tensors {
		dtype, err := dtypeOf(d, halves[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !op.Contiguous(d) {
			return fmt.Errorf("%s: got a view, want contiguous memory", name)
		}
		views[name] = view{d, dtype}
	}
	return aside.Write(path, func(f *os.File) error { return safetensors.SerializeToWriter(views, meta, f) })
}
