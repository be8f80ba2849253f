package quantize

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
	"stheno/internal/tensorfile"
)

// metaPacked is the key of the metadata that describes the matrices.
const metaPacked = "stheno.packed"

// packedMeta is what a file says of a matrix, with a checksum of its tensors, because any bits of codes make weights.
type packedMeta struct {
	In          int    `json:"in"`
	Out         int    `json:"out"`
	Scheme      string `json:"scheme"`
	Granularity string `json:"granularity,omitempty"`
	GroupSize   int    `json:"group_size,omitempty"`
	Asymmetric  bool   `json:"asymmetric,omitempty"`
	Transposed  bool   `json:"transposed,omitempty"`
	CRC32C      string `json:"crc32c"`
}

// Save writes matrices to a safetensors file, whole or not at all: it is written beside path, synced and renamed. meta is written
// to the file's metadata besides, for those who have something to say of the whole. The file holds for a matrix called name
//
//	name.codes   (In, Out), F16 or BF16, or U8 for INT8; for INT4 U8 (In, ⌈Out/2⌉), outputs 2j and 2j+1 in the low and the high
//	             nibble of byte j
//	name.scales  F32, the Scales of Packed, if it has them
//	name.zeros   U8, the Zeros of Packed, if it has them
//
// in the plain order of rows whatever Packed's own, and the Config, sizes and a CRC-32C as JSON in the metadata. Another program
// finds the weights as scales·(codes − zeros), with zeros of 128 or 8 if there are none.
func Save(path string, layers map[string]*Packed, meta map[string]string) error {
	const fn = "quantize.Save"
	if _, ok := meta[metaPacked]; ok {
		return fmt.Errorf("%s: meta: got the key %q, want any other", fn, metaPacked)
	}
	tensors, halves, about := map[string]*tensor.Dense{}, tensorfile.Halves{}, map[string]packedMeta{}
	for _, name := range slices.Sorted(maps.Keys(layers)) {
		p := layers[name]
		if err := p.Check(); err != nil {
			return fmt.Errorf("%s: %q: %w", fn, name, err)
		}
		q, err := p.view()
		if err != nil {
			return fmt.Errorf("%s: %q: %w", fn, name, err)
		}
		x := packedMeta{In: p.In, Out: p.Out, Scheme: p.Config.Scheme.String(), Transposed: p.Config.Transposed}
		if p.Config.Scheme.HasScales() {
			x.Granularity, x.GroupSize, x.Asymmetric = p.Config.Granularity.String(), p.Config.GroupSize, p.Config.Asymmetric
		}
		var sum crc
		for _, part := range p.parts() {
			d := *part.value
			if part.suffix == ".codes" {
				d = plainCodes(q)
			}
			if _, ok := tensors[name+part.suffix]; ok {
				return fmt.Errorf("%s: got two tensors called %q, want names that differ", fn, name+part.suffix)
			}
			tensors[name+part.suffix], halves[name+part.suffix] = d, part.dtype
			sum.add(d)
		}
		x.CRC32C = sum.String()
		about[name] = x
	}
	text, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	all := map[string]string{metaPacked: string(text)}
	maps.Copy(all, meta)
	if err := tensorfile.Write(path, tensors, halves, all); err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	return nil
}

// Load reads the matrices that Save wrote, and the metadata that it was given. A file that is truncated, damaged, or of another
// kind is an error.
func Load(path string) (layers map[string]*Packed, meta map[string]string, err error) {
	err = tensorfile.With(path, func(r io.ReaderAt, size int64) error {
		layers, meta, err = readPacked(r, size)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("quantize.Load: %s: %w", path, err)
	}
	return layers, meta, nil
}

func readPacked(r io.ReaderAt, size int64) (map[string]*Packed, map[string]string, error) {
	file, err := tensorfile.Open(r, size)
	if err != nil {
		return nil, nil, err
	}
	text, ok := file.Meta[metaPacked]
	if !ok {
		return nil, nil, fmt.Errorf("got no %q in the metadata, want a file that Save wrote", metaPacked)
	}
	var about map[string]packedMeta
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&about); err != nil {
		return nil, nil, fmt.Errorf("metadata %q: %w", metaPacked, err)
	}
	layers, known := map[string]*Packed{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(about)) {
		p, err := about[name].read(file, name)
		if err != nil {
			return nil, nil, fmt.Errorf("%q: %w", name, err)
		}
		layers[name] = p
		for _, part := range p.parts() {
			known[name+part.suffix] = true
		}
	}
	for name := range file.Tensors {
		if !known[name] {
			return nil, nil, fmt.Errorf("got a tensor %q, which no matrix of its metadata has", name)
		}
	}
	delete(file.Meta, metaPacked)
	return layers, file.Meta, nil
}

// config is the Config that the metadata names.
func (x packedMeta) config() (Config, error) {
	c := Config{GroupSize: x.GroupSize, Asymmetric: x.Asymmetric, Transposed: x.Transposed}
	for c.Scheme = FP16; c.Scheme.String() != x.Scheme; c.Scheme++ {
		if c.Scheme == INT4 {
			return c, fmt.Errorf("got scheme %q, want %v, %v, %v or %v", x.Scheme, FP16, BF16, INT8, INT4)
		}
	}
	if !c.Scheme.HasScales() {
		if x.Granularity != "" {
			return c, fmt.Errorf("got granularity %q with %v, want none", x.Granularity, c.Scheme)
		}
		return c, nil
	}
	for c.Granularity = PerChannel; c.Granularity.String() != x.Granularity; c.Granularity++ {
		if c.Granularity == PerGroup {
			return c, fmt.Errorf("got granularity %q, want %v, %v or %v", x.Granularity, PerChannel, PerTensor, PerGroup)
		}
	}
	return c, nil
}

// read makes the matrix of the file's tensors, which are held to their shapes before anything is read.
func (x packedMeta) read(file *tensorfile.Reader, name string) (*Packed, error) {
	c, err := x.config()
	if err != nil {
		return nil, err
	}
	normal, err := c.normal("metadata")
	if err != nil {
		return nil, err
	}
	if normal != c {
		return nil, fmt.Errorf("got a group size of %d, want %d", c.GroupSize, normal.GroupSize)
	}
	if x.In < 1 || x.In > kernel.MaxQuantizedRows || x.Out < 1 || x.Out > 1<<32 {
		return nil, fmt.Errorf("got %d inputs and %d outputs, want 1 to %d inputs, 1 to 2^32 outputs", x.In, x.Out, kernel.MaxQuantizedRows)
	}
	p := &Packed{Config: c, In: x.In, Out: x.Out}
	l := layoutOf(c, x.In, x.Out)
	shapes := map[string]tensor.Shape{".codes": {x.In, plainWidth(c.Scheme, x.Out)}, ".scales": l.scales, ".zeros": l.scales}
	for _, part := range p.parts() {
		info, ok := file.Tensors[name+part.suffix]
		if !ok {
			return nil, fmt.Errorf("got no tensor %q", name+part.suffix)
		}
		if info.DType != part.dtype {
			return nil, fmt.Errorf("tensor %q: got dtype %v, want %v", name+part.suffix, info.DType, part.dtype)
		}
		want := shapes[part.suffix]
		if !slices.EqualFunc(info.Shape, want, func(a uint64, b int) bool { return a == uint64(b) }) {
			return nil, fmt.Errorf("tensor %q: got shape %v, want %v", name+part.suffix, info.Shape, want)
		}
	}
	var sum crc
	for _, part := range p.parts() {
		if *part.value, err = file.Read(name + part.suffix); err != nil {
			return nil, err
		}
		sum.add(*part.value)
	}
	if got := sum.String(); got != x.CRC32C {
		return nil, fmt.Errorf("damaged: got a checksum of %s, want %s", got, x.CRC32C)
	}
	plain := p.Codes
	p.Codes = newPacked(c, x.In, x.Out).Codes
	q, err := p.view()
	if err != nil {
		return nil, err
	}
	setPlainCodes(q, plain)
	return p, p.Check()
}

// filePart is one of a matrix's tensors, and how a file names its numbers.
type filePart struct {
	suffix string
	value  **tensor.Dense
	dtype  safetensors.DType
}

// parts are the tensors that p's Config asks for.
func (p *Packed) parts() []filePart {
	codes := filePart{".codes", &p.Codes, safetensors.U8}
	switch p.Config.Scheme {
	case FP16:
		codes.dtype = safetensors.F16
	case BF16:
		codes.dtype = safetensors.BF16
	}
	out := []filePart{codes}
	if p.Config.Scheme.HasScales() {
		out = append(out, filePart{".scales", &p.Scales, safetensors.F32})
		if p.Config.Asymmetric {
			out = append(out, filePart{".zeros", &p.Zeros, safetensors.U8})
		}
	}
	return out
}

// plainWidth is the number of elements of a row of plain codes.
func plainWidth(s Scheme, out int) int {
	if s == INT4 {
		return (out + 1) / 2
	}
	return out
}

// plainCodes are the codes in the order of rows.
func plainCodes(q *kernel.Quantized) *tensor.Dense {
	if !q.Coding.Integer() {
		x := make([]uint16, q.K*q.N)
		overPanels(q.N, func(j int) {
			for p := range q.K {
				x[p*q.N+j] = uint16(q.Code(p, j))
			}
		})
		return tensor.New(tensor.WithShape(q.K, q.N), tensor.WithBacking(x))
	}
	width := q.N
	if q.Coding == kernel.Code4 {
		width = (q.N + 1) / 2
	}
	x := make([]uint8, q.K*width)
	overPanels(q.N, func(j int) {
		for p := range q.K {
			if q.Coding == kernel.Code4 {
				x[p*width+j/2] |= uint8(q.Code(p, j) << (j % 2 * 4))
			} else {
				x[p*width+j] = uint8(q.Code(p, j))
			}
		}
	})
	return tensor.New(tensor.WithShape(q.K, width), tensor.WithBacking(x))
}

// setPlainCodes stores what plainCodes made.
func setPlainCodes(q *kernel.Quantized, d *tensor.Dense) {
	switch x := d.Data().(type) {
	case []uint16:
		overPanels(q.N, func(j int) {
			for p := range q.K {
				q.SetCode(p, j, int(x[p*q.N+j]))
			}
		})
	case []uint8:
		width := len(x) / q.K
		overPanels(q.N, func(j int) {
			for p := range q.K {
				if q.Coding == kernel.Code4 {
					q.SetCode(p, j, int(x[p*width+j/2]>>(j%2*4)&15))
				} else {
					q.SetCode(p, j, int(x[p*width+j]))
				}
			}
		})
	}
}

// overPanels calls body for each column. Those of a panel, whose codes share memory, are taken one after the other.
func overPanels(n int, body func(j int)) {
	parallel.Run((n+kernel.PanelCols-1)/kernel.PanelCols, func(_ *parallel.Worker, i int) {
		for j := i * kernel.PanelCols; j < min((i+1)*kernel.PanelCols, n); j++ {
			body(j)
		}
	})
}

// crc is the CRC-32C of tensors' bytes as they stand in a file.
type crc uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *crc) add(d *tensor.Dense) {
	*c = crc(crc32.Update(uint32(*c), castagnoli, tensorfile.Bytes(d)))
}

// String is the sum in hexadecimal.
func (c crc) String() string { return fmt.Sprintf("%08x", uint32(c)) }
