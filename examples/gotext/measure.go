package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	G "gorgonia.org/gorgonia"

	"stheno"
	"stheno/internal/procmem"
	"stheno/ops"
	"stheno/ops/kvcompress"
)

// measureEnv is set in the processes that measure: each does one thing with one set of nodes, so that its memory is that
// thing's. Its value is a request.
const measureEnv = "GOTEXT_MEASURE"

// request is what a process is to measure.
type request struct {
	What    string // "training", "inference" or "precision"
	Nodes   stheno.Nodes
	Model   string // a checkpoint
	Text    string // a file of bytes
	Batch   int
	Seq     int
	Threads int
	KV      kvcompress.Config // of a precision
}

// measurement is what came out. The inference fields are 0 for training, and the other way round.
type measurement struct {
	Step     time.Duration // of a training step: loss, gradients, optimizer
	Prefill  float64       // tokens per second
	Generate float64       // tokens per second
	Peak     int64         // bytes
	HeldOut  float64       // bits per byte

	stheno.Measured // of a precision
}

// measure asks a process of this program's own for a measurement.
func measure(ctx context.Context, r request) (measurement, error) {
	var m measurement
	exe, err := os.Executable()
	if err != nil {
		return m, err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return m, err
	}
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, exe)
	c.Env = append(os.Environ(), measureEnv+"="+string(text))
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		return m, fmt.Errorf("measuring %s of %s nodes: %w: %s", r.What, r.Nodes, err, lastLine(errs.String()))
	}
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		return m, fmt.Errorf("measuring %s of %s nodes: %w", r.What, r.Nodes, err)
	}
	return m, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// measureMain is the whole of a process that measures.
func measureMain(text string, stdout, stderr io.Writer) int {
	var r request
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		var m measurement
		if m, err = r.run(); err == nil {
			err = json.NewEncoder(stdout).Encode(m)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	return 0
}

func (r request) run() (measurement, error) {
	runtime.GOMAXPROCS(r.Threads)
	m, err := stheno.Load(r.Model)
	if err != nil {
		return measurement{}, err
	}
	text, err := os.ReadFile(r.Text)
	if err != nil {
		return measurement{}, err
	}
	switch r.What {
	case "training":
		return r.training(m, tokens(text))
	case "precision":
		out, err := m.Measure(context.Background(), tokens(text), r.Seq, r.KV)
		return measurement{Measured: out}, err
	}
	return r.inference(m, tokens(text))
}

// training measures loss, gradients and an optimizer step: with Plain nodes Gorgonia's Adam, with Fused ones AdamW.
func (r request) training(m *stheno.Model, text []int) (out measurement, err error) {
	g, err := m.TrainingGraph(r.Batch, r.Seq, r.Nodes)
	if err != nil {
		return out, err
	}
	defer g.Close()
	var solver G.Solver = G.NewAdamSolver(G.WithLearnRate(1e-5))
	if r.Nodes == stheno.Fused {
		if solver, err = ops.NewAdamW(ops.AdamWConfig{LR: 1e-5}); err != nil {
			return out, err
		}
	}
	var input, targets []int
	for b := range r.Batch {
		at := b * r.Seq % (len(text) - r.Seq)
		input = append(input, text[at:at+r.Seq]...)
		targets = append(targets, text[at+1:at+1+r.Seq]...)
	}
	out.Step, err = median(func() error {
		if _, err := g.Run(input, targets); err != nil {
			return err
		}
		return solver.Step(g.ValueGrads())
	})
	out.Peak = procmem.Peak()
	return out, err
}

// inference measures a prompt of Seq tokens, then a text drawn out token by token, then the held-out text.
func (r request) inference(m *stheno.Model, text []int) (out measurement, err error) {
	g, err := m.PrefillGraph(1, r.Seq, r.Nodes)
	if err != nil {
		return out, err
	}
	defer g.Close()
	d, err := median(func() error {
		_, err := g.Run(text[:r.Seq], 0)
		return err
	})
	if err != nil {
		return out, err
	}
	out.Prefill = float64(r.Seq) / d.Seconds()

	s, err := m.NewSession(stheno.SessionConfig{Capacity: r.Seq, Nodes: r.Nodes})
	if err != nil {
		return out, err
	}
	defer s.Close()
	var steps []time.Duration
	for _, id := range text[:r.Seq] {
		start := time.Now()
		if _, err := s.Feed([]int{id}); err != nil {
			return out, err
		}
		steps = append(steps, time.Since(start))
	}
	steps = steps[min(4, len(steps)/2):] // the first builds the graph
	slices.Sort(steps)
	out.Generate = 1 / steps[len(steps)/2].Seconds()
	out.Peak = procmem.Peak()

	out.HeldOut, err = m.Evaluate(context.Background(), text, r.Seq, r.Nodes)
	return out, err
}

// median runs f once to warm up, then three to fifteen times within about three seconds, and returns the median time.
func median(f func() error) (time.Duration, error) {
	if err := f(); err != nil {
		return 0, err
	}
	var times []time.Duration
	for begun := time.Now(); len(times) < 3 || len(times) < 15 && time.Since(begun) < 3*time.Second; {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
