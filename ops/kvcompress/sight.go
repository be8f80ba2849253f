package kvcompress

import (
	"math"

	"stheno/ops/flashattn"
)

// sight is what a flashattn.Config asks of attention over a cache, which is causal always.
type sight struct {
	scale, softcap float64
	slopes         []float64 // of ALiBi, by head; nil for none
	left           int       // how many keys before its own a query sees
}

func newSight(cfg flashattn.Config, headDim, heads int) sight {
	s := sight{scale: cfg.Scale, softcap: cfg.Softcap, left: math.MaxInt32}
	if s.scale == 0 {
		s.scale = 1 / math.Sqrt(float64(headDim))
	}
	if cfg.ALiBi {
		s.slopes = flashattn.Slopes(heads)
	}
	if cfg.Window.Limited && cfg.Window.Left >= 0 {
		s.left = min(s.left, cfg.Window.Left)
	}
	return s
}

// from is the first key that a query at position p sees.
func (s *sight) from(p int) int { return max(0, p-s.left) }
