package tensorfile

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"os"
	"slices"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"

	"stheno/internal/memory"
)

// With opens a file for read.
func With(path string, read func(r io.ReaderAt, size int64) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("got a folder or a device, want a file")
	}
	return read(f, info.Size())
}

// Reader reads tensors of a safetensors file one by one.
type Reader struct {
	Meta    map[string]string
	Tensors map[string]*safetensors.TensorInfo

	r    io.ReaderAt
	data int64 // offset of the first tensor
}

// maxHeader is the format's own limit.
const maxHeader = 100_000_000

// Open reads and checks the header. Nothing of the size that the file claims is allocated before it is held to the
// size that the file has.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
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
	out := &Reader{r: r, data: 8 + int64(n), Meta: m.Metadata(), Tensors: m.Tensors()}
	have, end := uint64(size-out.data), uint64(0)
	for name, info := range out.Tensors {
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
	at := uint64(0)
	for _, name := range slices.SortedFunc(maps.Keys(out.Tensors), func(a, b string) int {
		return slices.Compare(out.Tensors[a].DataOffsets[:], out.Tensors[b].DataOffsets[:])
	}) {
		offsets := out.Tensors[name].DataOffsets
		if offsets[0] != at {
			return nil, fmt.Errorf("tensor %q: got bytes %d to %d behind one that ends at %d, want tensors one after the other", name, offsets[0], offsets[1], at)
		}
		at = offsets[1]
	}
	return out, nil
}

// Read returns a tensor: F16 and BF16 as uint16.
func (t *Reader) Read(name string) (*tensor.Dense, error) {
	info, ok := t.Tensors[name]
	if !ok {
		return nil, fmt.Errorf("got no tensor %q", name)
	}
	raw := memory.Make[byte](int(info.DataOffsets[1] - info.DataOffsets[0]))
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
		x := memory.Make[float32](len(raw) / 4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		backing = x
	case safetensors.F64:
		x := memory.Make[float64](len(raw) / 8)
		for i := range x {
			x[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
		}
		backing = x
	case safetensors.I64:
		x := memory.Make[int64](len(raw) / 8)
		for i := range x {
			x[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		}
		backing = x
	case safetensors.U8:
		backing = raw
	case safetensors.U16, safetensors.F16, safetensors.BF16:
		x := memory.Make[uint16](len(raw) / 2)
		for i := range x {
			x[i] = binary.LittleEndian.Uint16(raw[2*i:])
		}
		backing = x
	default:
		return nil, fmt.Errorf("tensor %q: got dtype %v, want F32, F64, I64, U8, U16, F16 or BF16", name, info.DType)
	}
	if len(raw) == 0 || len(shape) == 0 {
		return nil, fmt.Errorf("tensor %q: got shape %v, want at least one number and one dimension", name, shape)
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing)), nil
}
