package stheno

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// sampler draws tokens from logits.
type sampler struct {
	temperature float64
	topK        int
	topP        float64
	r           *rand.Rand
	order       []int
	weight      []float64
}

func newSampler(cfg GenerateConfig) (*sampler, error) {
	switch {
	case !(cfg.Temperature >= 0) || math.IsInf(cfg.Temperature, 0):
		return nil, fmt.Errorf("stheno: GenerateConfig.Temperature: got %v, want 0 (the likeliest token) or a positive number", cfg.Temperature)
	case cfg.TopK < 0:
		return nil, fmt.Errorf("stheno: GenerateConfig.TopK: got %d, want 0 (all) or a positive number", cfg.TopK)
	case !(cfg.TopP >= 0 && cfg.TopP <= 1):
		return nil, fmt.Errorf("stheno: GenerateConfig.TopP: got %v, want 0 (all) to 1", cfg.TopP)
	}
	return &sampler{
		temperature: cfg.Temperature, topK: cfg.TopK, topP: cfg.TopP,
		r: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)),
	}, nil
}

// draw picks a token: the likeliest, the first of equals, at temperature 0; otherwise in proportion to exp(logit/T) among
// the TopK likeliest and, of those, the fewest whose probability adds up to TopP.
func (s *sampler) draw(logits []float32) (int, error) {
	best := 0
	for i, x := range logits {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 1) {
			return 0, fmt.Errorf("stheno: logits[%d]: got %v, want a finite number", i, x)
		}
		if x > logits[best] {
			best = i
		}
	}
	if s.temperature == 0 || s.topK == 1 {
		return best, nil
	}
	s.order = slices.Grow(s.order[:0], len(logits))
	for i := range logits {
		s.order = append(s.order, i)
	}
	if s.topK > 0 && s.topK < len(logits) || s.topP > 0 && s.topP < 1 {
		slices.SortFunc(s.order, func(a, b int) int {
			return cmp.Or(cmp.Compare(logits[b], logits[a]), cmp.Compare(a, b))
		})
	}
	if s.topK > 0 && s.topK < len(s.order) {
		s.order = s.order[:s.topK]
	}
	s.weight = slices.Grow(s.weight[:0], len(s.order))
	var sum float64
	for _, i := range s.order {
		w := math.Exp((float64(logits[i]) - float64(logits[best])) / s.temperature)
		s.weight = append(s.weight, w)
		sum += w
	}
	if s.topP > 0 && s.topP < 1 {
		var kept float64
		for i, w := range s.weight {
			if kept += w; kept >= s.topP*sum {
				s.weight, sum = s.weight[:i+1], kept
				break
			}
		}
	}
	at := s.r.Float64() * sum
	for i, w := range s.weight {
		if at -= w; at < 0 {
			return s.order[i], nil
		}
	}
	return best, nil // rounding left nothing over
}
