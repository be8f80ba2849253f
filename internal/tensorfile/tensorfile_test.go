package tensorfile_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/nlpodyssey/safetensors"
	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/tensorfile"
)

func dense(data any, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

func sample() (map[string]*tensor.Dense, tensorfile.Halves) {
	return map[string]*tensor.Dense{
		"f32": dense([]float32{1, -2.5}, 1, 2), "f64": dense([]float64{3e300}, 1), "i64": dense([]int64{-1, 1 << 40, 3}, 3),
		"u8": dense([]uint8{0, 255, 7}, 3, 1), "u16": dense([]uint16{65535, 2}, 2), "f16": dense([]uint16{0x3c00}, 1), "bf16": dense([]uint16{0x3f80, 1}, 2),
	}, tensorfile.Halves{"f16": safetensors.F16, "bf16": safetensors.BF16}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	tensors, halves := sample()
	for range 2 { // the second time over a file that is there
		require.NoError(t, tensorfile.Write(path, tensors, halves, map[string]string{"a": "b"}))
	}
	require.NoError(t, tensorfile.With(path, func(r io.ReaderAt, size int64) error {
		file, err := tensorfile.Open(r, size)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "b"}, file.Meta)
		require.Len(t, file.Tensors, len(tensors))
		require.Equal(t, safetensors.F16, file.Tensors["f16"].DType)
		require.Equal(t, safetensors.U16, file.Tensors["u16"].DType)
		for name, want := range tensors {
			got, err := file.Read(name)
			require.NoError(t, err)
			require.Equal(t, want.Data(), got.Data(), name)
			require.Equal(t, want.Shape(), got.Shape(), name)
		}
		_, err = file.Read("none")
		require.ErrorContains(t, err, `got no tensor "none"`)
		return nil
	}))
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing but the file")
}

func TestErrorsLeaveNoFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	require.ErrorContains(t, tensorfile.Write(path, map[string]*tensor.Dense{"a": dense([]int{1}, 1)}, nil, nil), "a: got a tensor of int")
	view, err := dense([]float32{1, 2, 3, 4}, 2, 2).Slice(nil, tensor.S(0))
	require.NoError(t, err)
	require.ErrorContains(t, tensorfile.Write(path, map[string]*tensor.Dense{"a": view.(*tensor.Dense)}, nil, nil), "a: got a view")

	// One that RequiresIterator says nothing of.
	turned := dense([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	require.NoError(t, turned.T())
	view, err = turned.Slice(tensor.S(0, 2), nil)
	require.NoError(t, err)
	require.ErrorContains(t, tensorfile.Write(path, map[string]*tensor.Dense{"a": view.(*tensor.Dense)}, nil, nil), "a: got a view")
	require.ErrorContains(t, tensorfile.Write(dir, nil, nil, nil), "is a folder or a device")
	require.Error(t, tensorfile.With(path, nil))
	require.ErrorContains(t, tensorfile.With(dir, nil), "got a folder or a device")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// file is a safetensors file with the given header and bytes of tensors.
func file(header string, data int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), make([]byte, data)...)
}

func TestReaderRefuses(t *testing.T) {
	entry := func(name, shape string, from, to int) string {
		return fmt.Sprintf(`"%s":{"dtype":"F32","shape":%s,"data_offsets":[%d,%d]}`, name, shape, from, to)
	}
	for want, raw := range map[string][]byte{
		"got a file of 3 bytes":                               {1, 2, 3},
		"not a safetensors file":                              file("nonsense", 0),
		"a header of 1229782938247303441 bytes, want at most": bytes.Repeat([]byte{0x11}, 50),
		"truncated, or not":                                   file("{}", 0)[:9],
		"truncated: got 3 bytes":                              file("{"+entry("a", "[1]", 0, 4)+"}", 3),
		"got 5 bytes of tensors":                              file("{"+entry("a", "[1]", 0, 4)+"}", 5),
		`tensor "a": got bytes 0 to 4`:                        file("{"+entry("a", "[2]", 0, 4)+"}", 4),
		`tensor "b": got bytes 4 to 0`:                        file("{"+entry("b", "[1]", 4, 0)+"}", 4),
		"got bytes 0 to 4 behind one that ends at 4":          file("{"+entry("a", "[1]", 0, 4)+","+entry("b", "[1]", 0, 4)+"}", 4),
		"got bytes 4 to 8 behind one that ends at 0":          file("{"+entry("a", "[1]", 4, 8)+"}", 8),
		"got bytes 0 to 8 behind one that ends at 8":          file("{"+entry("a", "[2]", 0, 8)+","+entry("b", "[2]", 0, 8)+","+entry("c", "[1]", 16, 20)+"}", 20), // as many bytes as the file has
		"for shape [4294967296 4294967296 4294967296]":        file("{"+entry("a", "[4294967296,4294967296,4294967296]", 0, 0)+"}", 0),
	} {
		_, err := tensorfile.Open(bytes.NewReader(raw), int64(len(raw)))
		require.ErrorContains(t, err, want)
	}
	raw := file(`{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}}`, 1)
	r, err := tensorfile.Open(bytes.NewReader(raw), int64(len(raw)))
	require.NoError(t, err)
	_, err = r.Read("a")
	require.ErrorContains(t, err, "got dtype BOOL")
	_, err = r.Read("b")
	require.ErrorContains(t, err, "want at least one number")
}

// FuzzOpen reads any bytes: an error or tensors that fit into the file, never a panic.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "x.safetensors")
	tensors, halves := sample()
	require.NoError(f, tensorfile.Write(path, tensors, halves, map[string]string{"a": "b"}))
	raw, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(raw)
	f.Add(file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := tensorfile.Open(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		total := 0
		for name := range r.Tensors {
			if d, err := r.Read(name); err == nil {
				total += int(d.MemSize())
			}
		}
		require.LessOrEqual(t, total, len(raw))
	})
}
