package stheno

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"
)

func TestSaveAndLoad(t *testing.T) {
	for name, cfg := range flavoursFor(Fused) {
		t.Run(name, func(t *testing.T) {
			m := noisy(t, cfg, tensor.Float32)
			path := filepath.Join(t.TempDir(), "m.safetensors")
			require.NoError(t, m.Save(path))
			require.NoError(t, m.Save(path), "over an old file")
			back, err := Load(path)
			require.NoError(t, err)
			require.Equal(t, m.Config(), back.Config())
			require.Len(t, back.Parameters(), len(m.Parameters()))
			for i, p := range m.Parameters() {
				require.Equal(t, p.Name, back.Parameters()[i].Name)
				require.Equal(t, p.Value.Data(), back.Parameters()[i].Value.Data())
				require.Equal(t, p.Value.Shape(), back.Parameters()[i].Value.Shape())
			}
			files, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			require.Len(t, files, 1, "no temporary file is left")
		})
	}
}

func TestSaveFailsWhole(t *testing.T) {
	m := noisy(t, flavours()["gpt2"], tensor.Float32)
	dir := t.TempDir()
	require.ErrorContains(t, m.Save(filepath.Join(dir, "none", "m.safetensors")), "stheno: saving")
	require.ErrorContains(t, m.Save(dir), "is a folder")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)

	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	require.ErrorContains(t, m.Save(socket), "want a file", "what is no file is not replaced")
}

// header splits a safetensors file.
func header(t testing.TB, file []byte) (text string, data []byte) {
	n := binary.LittleEndian.Uint64(file)
	return strings.TrimRight(string(file[8:8+n]), " "), file[8+n:]
}

func withHeader(text string, data []byte) []byte {
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

func savedModel(t testing.TB) []byte {
	m := noisy(t, flavours()["gpt2"], tensor.Float32)
	path := filepath.Join(t.TempDir(), "m.safetensors")
	require.NoError(t, m.Save(path))
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	return file
}

func TestLoadErrors(t *testing.T) {
	good := savedModel(t)
	text, data := header(t, good)
	edit := func(old, new string) []byte {
		require.Contains(t, text, old)
		return withHeader(strings.Replace(text, old, new, 1), data)
	}
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":            {nil, "got a file of 0 bytes"},
		"a few bytes":      {good[:5], "got a file of 5 bytes"},
		"half a header":    {good[:100], "truncated"},
		"half the weights": {good[:len(good)/2], "truncated"},
		"a byte short":     {good[:len(good)-1], "truncated"},
		"a byte long":      {append(bytes.Clone(good), 0), "got 16465 bytes of tensors, want 16464"},
		"text":             {[]byte("It was the best of times, it was the worst of times"), "not a safetensors file"},
		"no JSON":          {withHeader("{]", nil), "not a safetensors file"},
		"null":             {withHeader("null", nil), "not a checkpoint of this module"},
		"foreign":          {withHeader(`{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, make([]byte, 4)), "not a checkpoint of this module"},
		"unknown field":    {edit(`\"vocab\"`, `\"wocab\"`), `unknown field "wocab"`},
		"impossible model": {edit(`\"heads\":3`, `\"heads\":0`), "Config.Heads: got 0"},
		"another model":    {edit(`\"layers\":2`, `\"layers\":3`), "for the model of its metadata"},
		"huge model":       {edit(`\"vocab\":11`, `\"vocab\":268435456`), "for the model of its metadata"},
		"renamed":          {edit(`"wpe.weight"`, `"wqe.weight"`), `got no tensor "wpe.weight"`},
		"reshaped":         {edit(`[16,12]`, `[12,16]`), `tensor "wpe.weight": got shape [12 16], want [16 12]`},
		"another dtype":    {edit(`"dtype":"F32"`, `"dtype":"I32"`), "got dtype I32, want F32"},
		"a dtype's size":   {edit(`"dtype":"F32"`, `"dtype":"F64"`), "for shape"},
		"offsets":          {edit(`"data_offsets":[0,`, `"data_offsets":[9,`), "got bytes 9 to"},
		"overflow":         {withHeader(`{"w":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}`, nil), "got bytes 0 to 0"},
		"a header of ages": {binary.LittleEndian.AppendUint64(nil, 1<<62), "got a header of"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.safetensors")
			require.NoError(t, os.WriteFile(path, c.file, 0o600))
			_, err := Load(path)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "stheno: loading "+path)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Load(t.TempDir())
	require.ErrorContains(t, err, "want a file")
}

// FuzzLoad: whatever a file holds, reading it ends in a model or an error and allocates about what the file's size is.
func FuzzLoad(f *testing.F) {
	good := savedModel(f)
	text, data := header(f, good)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(withHeader(text, data[:40]))
	f.Add(withHeader("null", nil))
	f.Add(savedQuantized(f))
	f.Add(withHeader(`{"__metadata__":{"stheno.config":"{}"}}`, nil))
	cfg, err := json.Marshal(`{"vocab":9,"layers":99999999,"dim":1,"heads":1,"max_seq":1}`)
	require.NoError(f, err)
	f.Add(withHeader(fmt.Sprintf(`{"__metadata__":{"stheno.config":%s},"wte.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, cfg), make([]byte, 4)))
	f.Fuzz(func(t *testing.T, file []byte) {
		m, err := readModel(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			require.Nil(t, m)
			return
		}
		require.LessOrEqual(t, m.Bytes(), int64(len(file)))
		require.NoError(t, m.Config().Validate())
	})
}
