package ops

import (
	"fmt"
	"math"
)

// ScheduleKind is the shape of a learning rate after its warmup.
type ScheduleKind int

const (
	// ScheduleConstant stays at the peak.
	ScheduleConstant ScheduleKind = iota
	// ScheduleCosine follows half a cosine from the peak to the floor.
	//
	// Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5, without
	// restarts.
	ScheduleCosine
	// ScheduleLinear follows a straight line from the peak to the floor.
	ScheduleLinear
)

// String returns the kind's name in lower case.
func (k ScheduleKind) String() string {
	switch k {
	case ScheduleConstant:
		return "constant"
	case ScheduleCosine:
		return "cosine"
	case ScheduleLinear:
		return "linear"
	}
	return fmt.Sprintf("ScheduleKind(%d)", int(k))
}

// Schedule is the learning rate over the steps of training, as a share of its peak. The zero value is the peak always.
type Schedule struct {
	Kind ScheduleKind
	// Warmup is the number of steps over which the rate rises linearly to the peak, which step Warmup is the first to have.
	Warmup int
	// Steps is the step that reaches the floor, warmup included; later ones stay there. Only a constant schedule has none.
	Steps int
	// Floor is the share of the peak that remains at the end, in [0, 1].
	Floor float64
}

// At returns the share of the peak rate for step 1, 2, …
func (s Schedule) At(step int) float64 {
	if step < s.Warmup {
		return float64(max(0, step)) / float64(s.Warmup)
	}
	if s.Kind == ScheduleConstant {
		return 1
	}
	done := min(1, float64(step-s.Warmup)/float64(s.Steps-s.Warmup))
	if s.Kind == ScheduleCosine {
		done = (1 - math.Cos(math.Pi*done)) / 2
	}
	return 1 - (1-s.Floor)*done
}

func (s Schedule) check(fn string) error {
	switch {
	case s.Kind < ScheduleConstant || s.Kind > ScheduleLinear:
		return fmt.Errorf("%s: Schedule.Kind: got %v, want constant, cosine or linear", fn, s.Kind)
	case s.Warmup < 0:
		return fmt.Errorf("%s: Schedule.Warmup: got %d, want 0 or more steps", fn, s.Warmup)
	case s.Kind == ScheduleConstant && (s.Steps != 0 || s.Floor != 0):
		return fmt.Errorf("%s: Schedule: got Steps %d and Floor %v with Kind constant, want 0", fn, s.Steps, s.Floor)
	case s.Kind == ScheduleConstant:
		return nil
	case s.Steps <= s.Warmup:
		return fmt.Errorf("%s: Schedule.Steps: got %d, want more than Warmup %d", fn, s.Steps, s.Warmup)
	case !(s.Floor >= 0 && s.Floor <= 1):
		return fmt.Errorf("%s: Schedule.Floor: got %v, want a share in [0, 1]", fn, s.Floor)
	}
	return nil
}
