package stheno

import (
	"fmt"

	"stheno/ops/quantize"
)

// Precision is how numbers are stored: the weights of a layer, or cached keys and values.
type Precision int

// The precisions.
const (
	F32         Precision = iota // float32
	F16                          // IEEE 754 binary16
	BF16                         // the upper half of a float32; weights only
	INT8                         // 8 bits; of weights, with a scale for each output
	INT8Dynamic                  // INT8 weights, and inputs rounded to 8 bits token by token while the graph runs (W8A8)
	INT4                         // 4 bits; of weights, with a scale for each output and 32 inputs
	INT4Dynamic                  // INT4 weights, and inputs rounded to 8 bits token by token while the graph runs (W4A8)
	Auto                         // what a plan finds for each layer; weights only, see Plan
)

var precisionNames = []string{"f32", "f16", "bf16", "int8", "int8-dynamic", "int4", "int4-dynamic", "auto"}

// String returns the precision's name.
func (p Precision) String() string { return kindName("Precision", precisionNames, int(p)) }

// MarshalText writes the precision's name.
func (p Precision) MarshalText() ([]byte, error) {
	return kindText("Precision", precisionNames, int(p))
}

// UnmarshalText reads the precision's name.
func (p *Precision) UnmarshalText(text []byte) error {
	return parseKind(p, "precision", precisionNames, text)
}

// ParsePrecision reads a precision's name: f32, f16, bf16, int8, int8-dynamic, int4, int4-dynamic or auto.
func ParsePrecision(name string) (Precision, error) {
	var p Precision
	err := p.UnmarshalText([]byte(name))
	return p, err
}

// packing is how a layer's weights are packed, and in what precision its inputs are taken. Of F32 and Auto there is none.
func (p Precision) packing() (quantize.Config, quantize.Input, error) {
	int4 := quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup, GroupSize: 32}
	switch p {
	case F16:
		return quantize.Config{Scheme: quantize.FP16}, quantize.InputFull, nil
	case BF16:
		return quantize.Config{Scheme: quantize.BF16}, quantize.InputFull, nil
	case INT8:
		return quantize.Config{Scheme: quantize.INT8}, quantize.InputFull, nil
	case INT8Dynamic:
		return quantize.Config{Scheme: quantize.INT8}, quantize.InputINT8, nil
	case INT4:
		return int4, quantize.InputFull, nil
	case INT4Dynamic:
		return int4, quantize.InputINT8, nil
	}
	return quantize.Config{}, 0, fmt.Errorf("got precision %v, want f16, bf16, int8, int8-dynamic, int4 or int4-dynamic", p)
}
