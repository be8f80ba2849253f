package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
)

// report prints the metrics of model, baseline and chance on seen and held-out combinations.
func report(ctx context.Context, w weights, threshold float64, o options, out io.Writer) error {
	e, err := newEye(w, perTest, threshold)
	if err != nil {
		return err
	}
	defer e.vm.Close()
	byColour, err := calibrate(colours(0.5).until(ctx), false, o.seed, min(o.scenes, 100))
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name   string
		unseen bool
	}{{"new scenes", false}, {"held-out combinations (" + strings.Join(heldOutNames(), ", ") + ")", true}} {
		fmt.Fprintf(out, "\n%s\n", part.name)
		for _, m := range []struct {
			name   string
			ground method
		}{
			{"trained", e.ground},
			{"without training: cosine of colours", colours(byColour)},
			{"chance", chance(rand.New(rand.NewPCG(o.seed, 4)))},
		} {
			phrases, words, err := evaluate(m.ground.until(ctx), o.seed, o.scenes, part.unseen)
			if err != nil {
				return err
			}
			if words == nil {
				phrases.ByType = nil
			}
			fmt.Fprintf(out, "\n%s: phrases\n%v\n", m.name, phrases)
			if words != nil {
				fmt.Fprintf(out, "\n%s: each word by itself\n%v\n", m.name, words)
			}
		}
	}
	return nil
}
