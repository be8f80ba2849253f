package quantize

import (
	"fmt"

	"stheno/internal/kernel"
)

// Scheme is how a weight is stored.
type Scheme int

// The schemes.
const (
	FP16 Scheme = iota // IEEE 754 binary16: 11 significant bits, up to 65,504
	BF16               // the upper half of a float32: 8 significant bits
	INT8               // 8 bits and a scale
	INT4               // 4 bits and a scale, two to a byte
)

// String returns the scheme's name.
func (s Scheme) String() string {
	switch s {
	case FP16:
		return "fp16"
	case BF16:
		return "bf16"
	case INT8:
		return "int8"
	case INT4:
		return "int4"
	}
	return fmt.Sprintf("Scheme(%d)", int(s))
}

// HasScales reports whether the scheme stores integers and scales.
func (s Scheme) HasScales() bool { return s == INT8 || s == INT4 }

func (s Scheme) coding() kernel.Coding {
	return [...]kernel.Coding{FP16: kernel.Float16, BF16: kernel.BFloat16, INT8: kernel.Code8, INT4: kernel.Code4}[s]
}

// levels is the number of codes.
func (s Scheme) levels() int {
	if s == INT4 {
		return 16
	}
	return 256
}

// Granularity is the set of weights that share a scale.
type Granularity int

// The granularities.
const (
	PerChannel Granularity = iota // all weights of an output
	PerTensor                     // all weights
	PerGroup                      // GroupSize consecutive weights of an output
)

// String returns the granularity's name.
func (g Granularity) String() string {
	switch g {
	case PerChannel:
		return "per-channel"
	case PerTensor:
		return "per-tensor"
	case PerGroup:
		return "per-group"
	}
	return fmt.Sprintf("Granularity(%d)", int(g))
}

// Config configures Quantize. The zero value is FP16; INT8 and INT4 are symmetric and per channel unless said otherwise.
type Config struct {
	Scheme Scheme

	// Asymmetric gives INT8 and INT4 a zero point.
	Asymmetric bool

	// Granularity of the scales of INT8 and INT4.
	Granularity Granularity

	// GroupSize is that of PerGroup: 32, 64 or 128. 0 means 32.
	GroupSize int

	// Transposed says that the matrix given to Quantize is stored as (outputs, inputs), as an embedding table is that also
	// serves as the output layer.
	Transposed bool
}

// String names what the codes are: int4 per-group 32 asymmetric.
func (c Config) String() string {
	if !c.Scheme.HasScales() {
		return c.Scheme.String()
	}
	s := c.Scheme.String() + " " + c.Granularity.String()
	if c.Granularity == PerGroup {
		s += fmt.Sprintf(" %d", c.GroupSize)
	}
	if c.Asymmetric {
		s += " asymmetric"
	}
	return s
}

// normal fills defaults in and reports what makes no sense.
func (c Config) normal(fn string) (Config, error) {
	if c.Scheme < FP16 || c.Scheme > INT4 {
		return c, fmt.Errorf("%s: Scheme: got %d, want %d (%v) to %d (%v)", fn, int(c.Scheme), int(FP16), FP16, int(INT4), INT4)
	}
	if c.Granularity < PerChannel || c.Granularity > PerGroup {
		return c, fmt.Errorf("%s: Granularity: got %d, want %d (%v) to %d (%v)", fn, int(c.Granularity), int(PerChannel), PerChannel, int(PerGroup), PerGroup)
	}
	if !c.Scheme.HasScales() && (c.Asymmetric || c.Granularity != PerChannel) {
		return c, fmt.Errorf("%s: %v: got Asymmetric %v and Granularity %v, want neither: it has no scales", fn, c.Scheme, c.Asymmetric, c.Granularity)
	}
	switch {
	case c.Granularity != PerGroup:
		if c.GroupSize != 0 {
			return c, fmt.Errorf("%s: GroupSize: got %d with %v, want 0", fn, c.GroupSize, c.Granularity)
		}
	case c.GroupSize == 0:
		c.GroupSize = 32
	case c.GroupSize != 32 && c.GroupSize != 64 && c.GroupSize != 128:
		return c, fmt.Errorf("%s: GroupSize: got %d, want 32, 64 or 128", fn, c.GroupSize)
	}
	return c, nil
}
