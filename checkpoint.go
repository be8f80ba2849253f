package stheno

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"

	"stheno/internal/tensorfile"
)

// Keys of a checkpoint's metadata, and the prefix of tensors that are not weights.
const (
	metaFormat      = "format"
	metaConfig      = "stheno.config"
	metaTraining    = "stheno.training"
	metaQuantized   = "stheno.quantized"
	optimizerPrefix = "optimizer."
)

// Save writes the weights to a safetensors file, one tensor a parameter, with the Config as JSON in the metadata. Of quantized
// layers it writes codes, scales and zero points as they are. The file appears whole or not at all: it is written beside path,
// synced and renamed. Save does not run while a graph trains.
func (m *Model) Save(path string) error { return m.save(path, nil, nil) }

// save also writes tensors and metadata of a training run.
func (m *Model) save(path string, extra map[string]*tensor.Dense, meta map[string]string) error {
	cfg, err := json.Marshal(m.cfg)
	if err != nil {
		return fmt.Errorf("stheno: Save: %w", err)
	}
	tensors := map[string]*tensor.Dense{}
	for name, d := range extra {
		tensors[optimizerPrefix+name] = d
	}
	for _, p := range m.params {
		tensors[p.Name] = p.Value
	}
	all := map[string]string{metaFormat: "pt", metaConfig: string(cfg)}
	if m.Quantized() {
		if all[metaQuantized], err = m.savePacked(tensors); err != nil {
			return fmt.Errorf("stheno: Save: %w", err)
		}
	}
	for k, v := range meta {
		all[k] = v
	}
	if err := tensorfile.Write(path, tensors, nil, all); err != nil {
		return fmt.Errorf("stheno: saving %s: %w", path, err)
	}
	return nil
}

// Load reads a model that Save wrote, or the weights of a training checkpoint. A file that is truncated, no safetensors
// file, of another program or inconsistent is an error.
func Load(path string) (*Model, error) {
	var m *Model
	err := tensorfile.With(path, func(r io.ReaderAt, size int64) (err error) {
		m, err = readModel(r, size)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("stheno: loading %s: %w", path, err)
	}
	return m, nil
}

// tensorReader reads a checkpoint.
type tensorReader struct{ *tensorfile.Reader }

func openTensors(r io.ReaderAt, size int64) (*tensorReader, error) {
	file, err := tensorfile.Open(r, size)
	return &tensorReader{file}, err
}

func readModel(r io.ReaderAt, size int64) (*Model, error) {
	file, err := openTensors(r, size)
	if err != nil {
		return nil, err
	}
	cfg, err := file.config()
	if err != nil {
		return nil, err
	}
	packed, err := file.packed(cfg)
	if err != nil {
		return nil, err
	}
	return file.model(cfg, safetensors.F32, packed)
}

// config reads the Config of a checkpoint.
func (t *tensorReader) config() (Config, error) {
	var cfg Config
	text, ok := t.Meta[metaConfig]
	if !ok {
		return cfg, fmt.Errorf("not a checkpoint of this module: got no %q in the metadata", metaConfig)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return cfg, fmt.Errorf("metadata %q: %w", metaConfig, err)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("metadata %q: %w", metaConfig, err)
	}
	return cfg.WithDefaults(), nil
}

// model reads the weights, checked against cfg by name, shape and dtype before any is read. Those of packed, the quantized
// layers by their parameter, are taken from there.
func (t *tensorReader) model(cfg Config, dtype safetensors.DType, packed map[string]*packedLayer) (*Model, error) {
	known := map[string]bool{}
	want := cfg.params()
	for name, p := range packed {
		want -= float64(p.In) * float64(p.Out)
		for _, part := range packedParts(p.Packed) {
			known[name+part.suffix] = true
		}
	}
	var have float64
	for name, info := range t.Tensors {
		if !known[name] && !strings.HasPrefix(name, optimizerPrefix) {
			have += float64(info.DataOffsets[1]-info.DataOffsets[0]) / float64(dtype.Size())
		}
	}
	if have != want {
		return nil, fmt.Errorf("got %.0f weights of %v, want %.0f for the model of its metadata", have, dtype, want)
	}
	for _, s := range cfg.specs() {
		if packed[s.name] != nil {
			continue
		}
		known[s.name] = true
		info, ok := t.Tensors[s.name]
		switch {
		case !ok:
			return nil, fmt.Errorf("got no tensor %q", s.name)
		case info.DType != dtype:
			return nil, fmt.Errorf("tensor %q: got dtype %v, want %v", s.name, info.DType, dtype)
		case !slices.EqualFunc(info.Shape, s.shape, func(got uint64, want int) bool { return got == uint64(want) }):
			return nil, fmt.Errorf("tensor %q: got shape %v, want %v", s.name, info.Shape, s.shape)
		}
	}
	for name := range t.Tensors {
		if !known[name] && !strings.HasPrefix(name, optimizerPrefix) {
			return nil, fmt.Errorf("got a tensor %q, which the model of its metadata does not have", name)
		}
	}
	dt := tensor.Float32
	if dtype == safetensors.F64 {
		dt = tensor.Float64
	}
	m, err := buildModel(cfg, dt, func(s spec) (*tensor.Dense, error) {
		if packed[s.name] != nil {
			return nil, nil
		}
		return t.Read(s.name)
	})
	if err != nil {
		return nil, err
	}
	m.packed = packed
	return m, nil
}
