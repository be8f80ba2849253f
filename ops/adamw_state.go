package ops

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// The keys of a state: one for the step, and three for each parameter, which its name follows.
const (
	adamKeyStep  = "step"
	adamKeyM     = "m."
	adamKeyV     = "v."
	adamKeySteps = "steps."
)

// State returns a copy of all that SetState needs to go on with the same bits, besides the configuration and the parameters:
//
//	"step"        int64 (1)   the steps made
//	"m."+name     the first moment, of the parameter's shape and dtype; (1) for a scalar
//	"v."+name     the second moment
//	"steps."+name int64 (1)   the steps of that parameter
func (s *AdamW) State() map[string]*tensor.Dense {
	state := map[string]*tensor.Dense{adamKeyStep: adamCount(s.step)}
	for name, mom := range s.moments {
		state[adamKeyM+name] = mom.m.Clone().(*tensor.Dense)
		state[adamKeyV+name] = mom.v.Clone().(*tensor.Dense)
		state[adamKeySteps+name] = adamCount(mom.steps)
	}
	return state
}

// SetState makes the solver go on from a state that State returned; it copies. On an error nothing has changed.
func (s *AdamW) SetState(state map[string]*tensor.Dense) error {
	const fn = "ops.AdamW.SetState"
	step, err := adamCountOf(state, adamKeyStep)
	if err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	moments := map[string]*adamMoments{}
	for _, key := range slices.Sorted(maps.Keys(state)) {
		name, ok := strings.CutPrefix(key, adamKeyM)
		if !ok {
			continue
		}
		m, v := state[key], state[adamKeyV+name]
		for k, d := range map[string]*tensor.Dense{key: m, adamKeyV + name: v} {
			if d == nil {
				return fmt.Errorf("%s: %s: got none, want a tensor", fn, k)
			}
			if d.Dtype() != tensor.Float32 && d.Dtype() != tensor.Float64 {
				return fmt.Errorf("%s: %s: got dtype %v, want float32 or float64", fn, k, d.Dtype())
			}
			if !op.Contiguous(d) {
				return fmt.Errorf("%s: %s: got a view or a column-major tensor, want a contiguous tensor", fn, k)
			}
		}
		if !m.Shape().Eq(v.Shape()) || m.Dtype() != v.Dtype() {
			return fmt.Errorf("%s: %s: got %v %v, want %v %v as in %s", fn, adamKeyV+name, v.Dtype(), v.Shape(), m.Dtype(), m.Shape(), key)
		}
		steps, err := adamCountOf(state, adamKeySteps+name)
		if err != nil {
			return fmt.Errorf("%s: %w", fn, err)
		}
		moments[name] = &adamMoments{m: m.Clone().(*tensor.Dense), v: v.Clone().(*tensor.Dense), steps: steps}
	}
	if got, want := len(state), 1+3*len(moments); got != want {
		return fmt.Errorf("%s: got %d entries, want %d: the step and three for each of %d parameters", fn, got, want, len(moments))
	}
	s.step, s.moments = step, moments
	return nil
}

func adamCount(n int) *tensor.Dense {
	return tensor.New(tensor.WithShape(1), tensor.WithBacking([]int64{int64(n)}))
}

func adamCountOf(state map[string]*tensor.Dense, key string) (int, error) {
	d := state[key]
	if d == nil {
		return 0, fmt.Errorf("%s: got none, want a count of steps", key)
	}
	n, ok := d.Data().([]int64)
	if !ok || len(n) != 1 || n[0] < 0 {
		return 0, fmt.Errorf("%s: got %v %v, want one int64 of at least 0", key, d.Dtype(), d)
	}
	return int(n[0]), nil
}
