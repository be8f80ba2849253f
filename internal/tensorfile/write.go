package tensorfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"
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
func Write(path string, tensors map[string]*tensor.Dense, halves Halves, meta map[string]string) (err error) {
	views := make(map[string]view, len(tensors))
	for name, d := range tensors {
		dtype, err := dtypeOf(d, halves[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if d.RequiresIterator() {
			return fmt.Errorf("%s: got a view, want contiguous memory", name)
		}
		views[name] = view{d, dtype}
	}
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = safetensors.SerializeToWriter(views, meta, f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}

// createBeside makes a new file in path's folder, with the permissions that the user's umask leaves.
func createBeside(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // the rename would replace even a device
		return nil, fmt.Errorf("%s is a folder or a device, want a file", path)
	}
	for serial := uint64(time.Now().UnixNano()); ; serial++ {
		f, err := os.OpenFile(path+"."+strconv.FormatUint(serial, 36)+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// syncFolder makes a rename durable where the system can; the file itself is synced already.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}
