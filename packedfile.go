package stheno

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"gorgonia.org/tensor"

	"stheno/ops/quantize"
)

// packedMeta is what a file says of a quantized layer: the precision, what deviates from the precision's own packing, and
// a checksum of codes, scales and zero points, because any bits of codes make weights.
type packedMeta struct {
	Precision   Precision `json:"precision"`
	Granularity string    `json:"granularity,omitempty"`
	GroupSize   int       `json:"group_size,omitempty"`
	Asymmetric  bool      `json:"asymmetric,omitempty"`
	CRC32C      string    `json:"crc32c"`
}

// packedPart is a tensor of a Packed.
type packedPart struct {
	suffix string
	value  **tensor.Dense
}

// packedParts are the tensors that p's Config asks for.
func packedParts(p *quantize.Packed) []packedPart {
	out := []packedPart{{".codes", &p.Codes}}
	if p.Config.Scheme.HasScales() {
		out = append(out, packedPart{".scales", &p.Scales})
		if p.Config.Asymmetric {
			out = append(out, packedPart{".zeros", &p.Zeros})
		}
	}
	return out
}

// checksum is the CRC-32C of the tensors' bytes as they stand in a file.
func checksum(p *quantize.Packed) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := uint32(0)
	for _, part := range packedParts(p) {
		switch x := (*part.value).Data().(type) {
		case []uint8:
			sum = crc32.Update(sum, table, x)
		case []uint16:
			var b [2]byte
			for _, h := range x {
				binary.LittleEndian.PutUint16(b[:], h)
				sum = crc32.Update(sum, table, b[:])
			}
		case []float32:
			var b [4]byte
			for _, f := range x {
				binary.LittleEndian.PutUint32(b[:], math.Float32bits(f))
				sum = crc32.Update(sum, table, b[:])
			}
		}
	}
	return fmt.Sprintf("%08x", sum)
}

// savePacked adds the quantized layers to tensors and returns their metadata.
func (m *Model) savePacked(tensors map[string]*tensor.Dense) (string, error) {
	meta := map[string]packedMeta{}
	for name, p := range m.packed {
		for _, part := range packedParts(p.Packed) {
			tensors[name+part.suffix] = *part.value
		}
		x := packedMeta{Precision: p.precision, CRC32C: checksum(p.Packed)}
		if c := p.Config; c.Scheme.HasScales() {
			x.Granularity, x.GroupSize, x.Asymmetric = c.Granularity.String(), c.GroupSize, c.Asymmetric
		}
		meta[name] = x
	}
	text, err := json.Marshal(meta)
	return string(text), err
}

// packed reads the quantized layers, by their parameter; none of a file in full precision.
func (t *tensorReader) packed(cfg Config) (map[string]*packedLayer, error) {
	text, ok := t.Meta[metaQuantized]
	if !ok {
		return nil, nil
	}
	var meta map[string]packedMeta
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&meta); err != nil {
		return nil, fmt.Errorf("metadata %q: %w", metaQuantized, err)
	}
	var have float64
	for _, info := range t.Tensors {
		have += float64(info.DataOffsets[1] - info.DataOffsets[0])
	}
	if want := cfg.params(); want > 2*have { // before layers are listed: a weight takes half a byte at least
		return nil, fmt.Errorf("got %.0f bytes of tensors, want at least %.0f for the model of its metadata", have, want/2)
	}
	out := map[string]*packedLayer{}
	for _, l := range cfg.layers() {
		x, ok := meta[l.weight]
		if !ok {
			continue
		}
		p, err := t.packedLayer(l, x)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		out[l.weight] = p
		delete(meta, l.weight)
	}
	for name := range meta {
		return nil, fmt.Errorf("metadata %q: got a quantized %q, which is no layer of the model of its metadata", metaQuantized, name)
	}
	return out, nil
}

func (t *tensorReader) packedLayer(l layer, x packedMeta) (*packedLayer, error) {
	how, _, err := x.Precision.packing()
	if err != nil {
		return nil, err
	}
	if how.Scheme.HasScales() {
		for g := quantize.PerChannel; g <= quantize.PerGroup; g++ {
			if g.String() == x.Granularity {
				how.Granularity = g
			}
		}
		if how.Granularity.String() != x.Granularity {
			return nil, fmt.Errorf("got granularity %q, want per-channel, per-tensor or per-group", x.Granularity)
		}
		how.GroupSize, how.Asymmetric = x.GroupSize, x.Asymmetric
	}
	how.Transposed = l.transposed
	p := &quantize.Packed{Config: how, In: l.in, Out: l.out}
	for _, part := range packedParts(p) {
		if *part.value, err = t.Read(l.weight + part.suffix); err != nil {
			return nil, err
		}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if got := checksum(p); got != x.CRC32C {
		return nil, fmt.Errorf("damaged: got a checksum of %s, want %s", got, x.CRC32C)
	}
	return &packedLayer{p, x.Precision}, nil
}
