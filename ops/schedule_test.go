package ops_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/ops"
)

func TestSchedule(t *testing.T) {
	cosine := ops.Schedule{Kind: ops.ScheduleCosine, Warmup: 4, Steps: 12, Floor: 0.1}
	linear := ops.Schedule{Kind: ops.ScheduleLinear, Steps: 10}
	for _, c := range []struct {
		s    ops.Schedule
		step int
		want float64
	}{
		{ops.Schedule{}, 1, 1}, {ops.Schedule{}, 1000, 1},
		{ops.Schedule{Warmup: 4}, 1, 0.25}, {ops.Schedule{Warmup: 4}, 4, 1}, {ops.Schedule{Warmup: 4}, 5, 1},
		{cosine, 0, 0}, {cosine, 2, 0.5}, {cosine, 4, 1}, {cosine, 6, 0.1 + 0.9*(1+math.Sqrt2/2)/2}, {cosine, 8, 0.55},
		{cosine, 12, 0.1}, {cosine, 13, 0.1}, {cosine, 1 << 40, 0.1},
		{linear, 1, 0.9}, {linear, 5, 0.5}, {linear, 10, 0}, {linear, 11, 0},
	} {
		require.InDelta(t, c.want, c.s.At(c.step), 1e-15, "%v at step %d", c.s, c.step)
	}
}

func TestScheduleErrors(t *testing.T) {
	for want, s := range map[string]ops.Schedule{
		"Kind: got ScheduleKind(3), want constant, cosine or linear": {Kind: 3},
		"Warmup: got -1, want 0 or more steps":                       {Warmup: -1},
		": got Steps 5 and Floor 0 with Kind constant, want 0":       {Steps: 5},
		": got Steps 0 and Floor 0.5 with Kind constant, want 0":     {Floor: 0.5},
		"Steps: got 4, want more than Warmup 4":                      {Kind: ops.ScheduleLinear, Warmup: 4, Steps: 4},
		"Floor: got NaN, want a share in [0, 1]":                     {Kind: ops.ScheduleCosine, Steps: 4, Floor: math.NaN()},
		"Floor: got 1.5, want a share in [0, 1]":                     {Kind: ops.ScheduleCosine, Steps: 4, Floor: 1.5},
	} {
		_, err := ops.NewAdamW(ops.AdamWConfig{Schedule: s})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "ops.NewAdamW: Schedule")
	}
}

func ExampleSchedule() {
	s := ops.Schedule{Kind: ops.ScheduleCosine, Warmup: 2, Steps: 6, Floor: 0.1}
	for step := 1; step <= 6; step++ {
		fmt.Printf("%.2f ", s.At(step))
	}
	fmt.Println()
	// Output: 0.50 1.00 0.87 0.55 0.23 0.10
}
