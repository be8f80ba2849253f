package kvcompress

import (
	"fmt"
	"math"
)

// Config says how a cache keeps keys and values. The zero value keeps them as they are, in float32.
type Config struct {
	// Ratio is what 32 bits are divided by: 1 (or 0) for float32, a Plain cache; 2 for FP16, 4 for INT8, 8 for INT4.
	Ratio int
	// Recent is how many of the newest tokens are exact; 0 means 128. At least GroupSize are.
	Recent int
	// RecentFP16 keeps the recent tokens in FP16, half the memory and not quite exact, instead of float32.
	RecentFP16 bool
	// SinkTokens is how many of the first tokens stay in float32 for good: attention leans on them in most models.
	SinkTokens int
	// GroupSize is how many tokens share the scale of a channel of keys, a multiple of 16; 0 means 64.
	GroupSize int
	// Rotate spreads what is large in a key over all its channels before it is coded.
	Rotate Rotation
	// Window, unless 0, drops compressed tokens that are neither sinks nor among the Window newest, group by group.
	Window int
	// Budget, unless 0, is how many tokens each key head keeps of a sequence at most, in an Evicting cache: the first SinkTokens, the
	// Recent newest, and those with the largest accumulated attention. A Recent of 0 then means half of what sinks leave.
	Budget int
	// Model names the model and layer that the cache belongs to. A saved cache is restored only where the name is the same.
	Model string
}

// Rotation says whether keys are multiplied by a normalized Hadamard matrix before they are coded. Queries are multiplied by the
// same matrix, which is orthogonal, so that scores stay what they were.
type Rotation int

// The choices. A Hadamard matrix has a power of two of rows: where HeadDim is none, blocks of the largest power that divides it
// are rotated, of 8 channels at least.
const (
	RotateAuto Rotation = iota // with INT4, as far as HeadDim is a multiple of 8
	RotateNever
	RotateAlways
)

// Defaults of Config.
const (
	defaultRecent = 128
	defaultGroup  = 64
	minRotation   = 8
	maxGroup      = 1 << 12
)

// normal checks c for a cache of shape s and fills in what zero stands for.
func (c Config) normal(s Shape) (Config, error) {
	if c.Ratio == 0 {
		c.Ratio = 1
	}
	if c.Recent == 0 && c.Budget > c.SinkTokens {
		c.Recent = c.Budget - c.SinkTokens - (c.Budget-c.SinkTokens)/2
	}
	if c.Recent == 0 {
		c.Recent = defaultRecent
	}
	if c.GroupSize == 0 {
		c.GroupSize = defaultGroup
	}
	block := s.HeadDim & -s.HeadDim
	switch {
	case c.Ratio != 1 && c.Ratio != 2 && c.Ratio != 4 && c.Ratio != 8:
		return c, fmt.Errorf("kvcompress: Config.Ratio: got %d, want 1, 2, 4 or 8", c.Ratio)
	case c.Recent < 0:
		return c, fmt.Errorf("kvcompress: Config.Recent: got %d, want at least 0", c.Recent)
	case c.SinkTokens < 0:
		return c, fmt.Errorf("kvcompress: Config.SinkTokens: got %d, want at least 0", c.SinkTokens)
	case c.GroupSize < 16 || c.GroupSize%16 != 0 || c.GroupSize > maxGroup:
		return c, fmt.Errorf("kvcompress: Config.GroupSize: got %d, want a multiple of 16 up to %d", c.GroupSize, maxGroup)
	case c.Rotate < RotateAuto || c.Rotate > RotateAlways:
		return c, fmt.Errorf("kvcompress: Config.Rotate: got %d, want RotateAuto, RotateNever or RotateAlways", c.Rotate)
	case c.Rotate == RotateAlways && block < minRotation:
		return c, fmt.Errorf("kvcompress: Config.Rotate: got RotateAlways with HeadDim %d, want a multiple of %d", s.HeadDim, minRotation)
	case c.Window < 0:
		return c, fmt.Errorf("kvcompress: Config.Window: got %d, want at least 0", c.Window)
	case c.Budget < 0:
		return c, fmt.Errorf("kvcompress: Config.Budget: got %d, want at least 0", c.Budget)
	case c.Budget > 0 && c.Ratio != 1:
		return c, fmt.Errorf("kvcompress: Config.Budget: got %d with Ratio %d, want a Ratio of 1", c.Budget, c.Ratio)
	case c.Budget > 0 && s.Capacity > math.MaxInt32:
		return c, fmt.Errorf("kvcompress: Shape.Capacity: got %d with a Budget, want at most %d", s.Capacity, math.MaxInt32)
	case c.Budget > 0 && c.Window > 0:
		return c, fmt.Errorf("kvcompress: Config.Budget: got %d with a Window of %d, want one of them", c.Budget, c.Window)
	case c.Budget > 0 && c.Budget-c.Recent < c.SinkTokens:
		return c, fmt.Errorf("kvcompress: Config.Budget: got %d, want at least SinkTokens + Recent = %d", c.Budget, c.SinkTokens+c.Recent)
	case c.Ratio == 1 && c.Window > 0:
		return c, fmt.Errorf("kvcompress: Config.Window: got %d with Ratio 1, want a Ratio of 2, 4 or 8", c.Window)
	}
	if c.Rotate == RotateAuto {
		c.Rotate = RotateNever
		if c.Ratio == 8 && block >= minRotation {
			c.Rotate = RotateAlways
		}
	}
	return c, nil
}

// New returns an empty cache: a *Plain for Ratio 1, an *Evicting if there is a Budget, a *Compressed for the other ratios.
func New(shape Shape, cfg Config) (Cache, error) {
	shape, err := shape.normal()
	if err != nil {
		return nil, err
	}
	if cfg, err = cfg.normal(shape); err != nil {
		return nil, err
	}
	if cfg.Budget > 0 {
		return newEvicting(shape, cfg), nil
	}
	if cfg.Ratio == 1 {
		return NewPlain(shape)
	}
	return newCompressed(shape, cfg), nil
}

// NewCompressed is New for a Ratio of 2, 4 or 8.
func NewCompressed(shape Shape, cfg Config) (*Compressed, error) {
	c, err := New(shape, cfg)
	if err != nil {
		return nil, err
	}
	if c, ok := c.(*Compressed); ok {
		return c, nil
	}
	return nil, fmt.Errorf("kvcompress: Config.Ratio: got %d, want 2, 4 or 8", max(1, cfg.Ratio))
}
