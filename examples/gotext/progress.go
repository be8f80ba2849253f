package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"stheno"
)

// progress shows a training under way: a bar on a terminal, a line now and then elsewhere.
type progress struct {
	log   io.Writer
	bar   *progressbar.ProgressBar // nil without a terminal
	steps int
	every int
	begun time.Time
	speed float64 // tokens per second, smoothed
	bits  float64 // the loss, smoothed
}

func newProgress(log io.Writer, steps int) *progress {
	p := &progress{log: log, steps: steps, every: max(1, steps/10), begun: time.Now()}
	if isTerminal(log) {
		p.bar = progressbar.NewOptions(steps,
			progressbar.OptionSetWriter(log), progressbar.OptionUseANSICodes(true), progressbar.OptionSetWidth(24),
			progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetRenderBlankState(true), progressbar.OptionSetDescription("            "),
			progressbar.OptionSetTheme(progressbar.Theme{Saucer: "█", SaucerPadding: "░", BarStart: "▕", BarEnd: "▏"}))
	}
	return p
}

// step takes note of a step.
func (p *progress) step(s stheno.Step) {
	bits := s.Loss / math.Ln2
	weight := max(0.05, 1/float64(s.Step)) // a running mean, then an exponential one
	p.speed += (s.TokensPerSecond - p.speed) * weight
	p.bits += (bits - p.bits) * weight
	what := fmt.Sprintf("loss %.3f bits/byte, %s/s", p.bits, bytesOf(int(p.speed), 0))
	if p.bar != nil {
		p.bar.Describe("            " + what)
		p.bar.Add(1)
		return
	}
	if s.Step%p.every == 0 || s.Step == p.steps {
		left := time.Duration(float64(time.Since(p.begun)) / float64(s.Step) * float64(p.steps-s.Step))
		fmt.Fprintf(p.log, "            step %d of %d: %s, %s left\n", s.Step, p.steps, what, roundly(left))
	}
}

// close ends the bar's line.
func (p *progress) close() {
	if p.bar != nil {
		p.bar.Exit()
		fmt.Fprintln(p.log)
	}
}

// isTerminal reports whether w is a terminal, or at least a device like one.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
