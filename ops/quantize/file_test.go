package quantize_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/ops/quantize"
)

// saved writes one matrix of each format and returns the file's path.
func saved(t testing.TB, shapes ...[2]int) (string, map[string]*quantize.Packed) {
	layers := map[string]*quantize.Packed{}
	for _, s := range shapes {
		for i, cfg := range configs() {
			cfg.Transposed = i%2 == 1
			layers[fmt.Sprintf("%d×%d %d", s[0], s[1], i)] = pack(t, dense(optest.Normal[float32](uint64(i), s[0]*s[1], 1), s[0], s[1]), cfg)
		}
	}
	path := filepath.Join(t.TempDir(), "packed.safetensors")
	require.NoError(t, quantize.Save(path, layers, map[string]string{"made by": "a test"}))
	return path, layers
}

func TestSaveAndLoad(t *testing.T) {
	path, layers := saved(t, [2]int{1, 1}, [2]int{70, 37}, [2]int{33, 16})
	got, meta, err := quantize.Load(path)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"made by": "a test"}, meta)
	require.Equal(t, layers, got, "bit for bit, unused codes at the ends of panels included")
}

// A file holds 2 bytes, 1 or ½ a weight, besides scales and the header, in plain order: another reader finds them.
func TestSaveIsPlain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	w := optest.Normal[float32](1, 64*32, 1)
	for _, cfg := range configs() {
		p := pack(t, dense(w, 64, 32), cfg)
		require.NoError(t, quantize.Save(path, map[string]*quantize.Packed{"w": p}, nil))
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		header := 8 + int(binary.LittleEndian.Uint64(raw))
		require.Equal(t, p.Bytes(), len(raw)-header, "%v", cfg)
	}
	p := pack(t, dense([]float32{7, -7, 3, 0, 1, 2}, 2, 3), quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerTensor})
	require.NoError(t, quantize.Save(path, map[string]*quantize.Packed{"w": p}, nil))
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Contains(raw, []byte{0x1f, 0x0b, 0x98, 0x0a}), "codes w + 8, two to a byte")
	require.Contains(t, string(raw), `"shape":[2,2]`)
	p = pack(t, dense([]float32{1, -2, 0.5}, 3, 1), quantize.Config{})
	require.NoError(t, quantize.Save(path, map[string]*quantize.Packed{"w": p}, nil))
	raw, err = os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.HasSuffix(raw, []byte{0, 0x3c, 0, 0xc0, 0, 0x38}))
	require.Contains(t, string(raw), `"dtype":"F16"`)
}

func TestLoadRefuses(t *testing.T) {
	path, _ := saved(t, [2]int{40, 20})
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	load := func(raw []byte) error {
		bad := filepath.Join(t.TempDir(), "bad.safetensors")
		require.NoError(t, os.WriteFile(bad, raw, 0o600))
		layers, _, err := quantize.Load(bad)
		require.Nil(t, layers)
		return err
	}
	flipped := bytes.Clone(raw)
	flipped[len(raw)-9] ^= 4
	swap := func(old, new string) []byte {
		require.Equal(t, len(old), len(new))
		require.Contains(t, string(raw), old)
		return []byte(strings.Replace(string(raw), old, new, 1))
	}
	for want, raw := range map[string][]byte{
		"truncated":                     raw[:len(raw)-1],
		"damaged: got a checksum of":    flipped,
		`got no "stheno.packed" in the`: swap("stheno.packed", "stheno.punked"),
		"unknown field":                 swap(`\"scheme\"`, `\"schema\"`),
		`got scheme "int5"`:             swap(`\"scheme\":\"int4\"`, `\"scheme\":\"int5\"`),
		`got granularity "per-tenors"`:  swap("per-tensor", "per-tenors"),
		"got dtype BF16, want F16":      swap(`\"scheme\":\"bf16\"`, `\"scheme\":\"fp16\"`),
		"GroupSize: got 65":             swap(`\"group_size\":64`, `\"group_size\":65`),
	} {
		err := load(raw)
		require.ErrorContains(t, err, "quantize.Load: ")
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, load(swap(`\"in\":40,\"out\":20`, `\"in\":41,\"out\":20`)), "got shape")
	require.ErrorContains(t, load(swap(`\"in\":40,\"out\":20`, `\"in\":00,\"out\":20`)), "metadata")
	require.ErrorContains(t, load(nil), "got a file of 0 bytes")
	_, _, err = quantize.Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorContains(t, err, "quantize.Load: ")
}

func TestSaveErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	good := pack(t, dense([]float32{1}, 1, 1), quantize.Config{Scheme: quantize.INT8})
	broken := *good
	broken.Scales = nil
	for want, err := range map[string]error{
		`"w": quantize.Check: got nil`:         quantize.Save(path, map[string]*quantize.Packed{"w": nil}, nil),
		`"w": quantize.Check: scales: got nil`: quantize.Save(path, map[string]*quantize.Packed{"w": &broken}, nil),
		`meta: got the key "stheno.packed"`:    quantize.Save(path, nil, map[string]string{"stheno.packed": ""}),
		"is a folder or a device":              quantize.Save(dir, map[string]*quantize.Packed{"w": good}, nil),
	} {
		require.ErrorContains(t, err, "quantize.Save: ")
		require.ErrorContains(t, err, want)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// FuzzLoad reads any bytes: an error or matrices that are sound, never a panic.
func FuzzLoad(f *testing.F) {
	path, _ := saved(f, [2]int{3, 2})
	raw, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(raw)
	require.NoError(f, quantize.Save(path, map[string]*quantize.Packed{"w": pack(f, dense([]float32{1, 2}, 2, 1), quantize.Config{Scheme: quantize.INT4})}, nil))
	raw, err = os.ReadFile(path)
	require.NoError(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(path, raw, 0o600))
		layers, _, err := quantize.Load(path)
		if err != nil {
			return
		}
		for _, p := range layers {
			require.NoError(t, p.Check())
			_, err := p.Dequantize()
			require.NoError(t, err)
		}
	})
}

func ExampleSave() {
	p, err := quantize.Quantize(dense([]float32{0.5, -1, 0.25, 2}, 2, 2), quantize.Config{Scheme: quantize.INT8})
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "packed.safetensors")
	if err := quantize.Save(path, map[string]*quantize.Packed{"mlp": p}, nil); err != nil {
		fmt.Println(err)
		return
	}
	layers, _, err := quantize.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(layers["mlp"].Config, layers["mlp"].Bytes(), "bytes")
	// Output:
	// int8 per-channel 72 bytes
}
