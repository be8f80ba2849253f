package stheno

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"
)

// tensorView is a tensor on its way into a safetensors file.
type tensorView struct{ d *tensor.Dense }

var _ safetensors.View = tensorView{}

func (v tensorView) DType() safetensors.DType {
	switch v.d.Data().(type) {
	case []float64:
		return safetensors.F64
	case []int64:
		return safetensors.I64
	case []uint8:
		return safetensors.U8
	case []uint16:
		return safetensors.U16
	default:
		return safetensors.F32
	}
}

func (v tensorView) Shape() []uint64 {
	out := make([]uint64, v.d.Dims())
	for i, n := range v.d.Shape() {
		out[i] = uint64(n)
	}
	return out
}

func (v tensorView) DataLen() uint64 { return uint64(v.d.Size()) * v.DType().Size() }

// Data encodes one tensor at a time: the library writes them one after the other.
func (v tensorView) Data() []byte {
	out := make([]byte, 0, v.DataLen())
	switch d := v.d.Data().(type) {
	case []float32:
		for _, x := range d {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
		}
	case []float64:
		for _, x := range d {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(x))
		}
	case []int64:
		for _, x := range d {
			out = binary.LittleEndian.AppendUint64(out, uint64(x))
		}
	case []uint8:
		out = append(out, d...)
	case []uint16:
		for _, x := range d {
			out = binary.LittleEndian.AppendUint16(out, x)
		}
	}
	return out
}

// writeTensors writes a safetensors file whole or not at all: into a new file beside path, synced, then renamed.
func writeTensors(path string, tensors map[string]*tensor.Dense, meta map[string]string) (err error) {
	views := make(map[string]tensorView, len(tensors))
	for name, d := range tensors {
		switch d.Data().(type) {
		case []float32, []float64, []int64, []uint8, []uint16:
		default:
			return fmt.Errorf("%s: got a tensor of %v, want float32, float64, int64, uint8 or uint16", name, d.Dtype())
		}
		if d.RequiresIterator() {
			return fmt.Errorf("%s: got a view, want contiguous memory", name)
		}
		views[name] = tensorView{d}
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

// tensorReader reads tensors of a safetensors file one by one.
type tensorReader struct {
	r       io.ReaderAt
	data    int64 // offset of the first tensor
	meta    map[string]string
	tensors map[string]*safetensors.TensorInfo
}

// maxHeader is the format's own limit.
const maxHeader = 100_000_000

// openTensors reads and checks the header. Nothing of the size that the file claims is allocated before it is held to the
// size that the file has.
func openTensors(r io.ReaderAt, size int64) (*tensorReader, error) {
	var prefix [8]byte
	if size < 8 {
		return nil, fmt.Errorf("got a file of %d bytes, want a safetensors header", size)
	}
	if _, err := r.ReadAt(prefix[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		return nil, fmt.Errorf("not a safetensors file: got a header of %d bytes, want at most %d", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("truncated, or not a safetensors file: got %d bytes after the length of the header, want %d of header alone", size-8, n)
	}
	header := make([]byte, n)
	if _, err := r.ReadAt(header, 8); err != nil {
		return nil, err
	}
	var m safetensors.Metadata
	if err := json.Unmarshal(header, &m); err != nil {
		return nil, fmt.Errorf("not a safetensors file: %w", err)
	}
	out := &tensorReader{r: r, data: 8 + int64(n), meta: m.Metadata(), tensors: m.Tensors()}
	have, end := uint64(size-out.data), uint64(0)
	for name, info := range out.tensors {
		from, to := info.DataOffsets[0], info.DataOffsets[1]
		want, ok := info.DType.Size(), true
		for _, d := range info.Shape {
			hi, lo := bits.Mul64(want, d)
			ok = ok && hi == 0
			want = lo
		}
		if !ok || from > to || to-from != want {
			return nil, fmt.Errorf("tensor %q: got bytes %d to %d for shape %v of %v", name, from, to, info.Shape, info.DType)
		}
		end = max(end, to)
	}
	if end > have {
		return nil, fmt.Errorf("truncated: got %d bytes of tensors, want %d", have, end)
	}
	if end < have {
		return nil, fmt.Errorf("got %d bytes of tensors, want %d as the header says", have, end)
	}
	return out, nil
}

// read returns a tensor.
func (t *tensorReader) read(name string) (*tensor.Dense, error) {
	info, ok := t.tensors[name]
	if !ok {
		return nil, fmt.Errorf("got no tensor %q", name)
	}
	raw := make([]byte, info.DataOffsets[1]-info.DataOffsets[0])
	if _, err := t.r.ReadAt(raw, t.data+int64(info.DataOffsets[0])); err != nil && !(errors.Is(err, io.EOF) && len(raw) == 0) {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	shape := make([]int, len(info.Shape))
	for i, n := range info.Shape {
		shape[i] = int(n)
	}
	var backing any
	switch info.DType {
	case safetensors.F32:
		x := make([]float32, len(raw)/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		backing = x
	case safetensors.F64:
		x := make([]float64, len(raw)/8)
		for i := range x {
			x[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
		}
		backing = x
	case safetensors.I64:
		x := make([]int64, len(raw)/8)
		for i := range x {
			x[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		}
		backing = x
	case safetensors.U8:
		backing = raw
	case safetensors.U16:
		x := make([]uint16, len(raw)/2)
		for i := range x {
			x[i] = binary.LittleEndian.Uint16(raw[2*i:])
		}
		backing = x
	default:
		return nil, fmt.Errorf("tensor %q: got dtype %v, want F32, F64, I64, U8 or U16", name, info.DType)
	}
	if len(raw) == 0 || len(shape) == 0 {
		return nil, fmt.Errorf("tensor %q: got shape %v, want at least one number and one dimension", name, shape)
	}
	return dense(backing, shape), nil
}
