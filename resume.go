package stheno

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/tensorfile"
)

// progress is what a training checkpoint knows besides weights and optimizer: how far it is, and what must not change for
// the rest to come out as it would have.
type progress struct {
	Steps      int    `json:"steps"`
	Batch      int    `json:"batch"`
	Seq        int    `json:"seq"`
	Accumulate int    `json:"accumulate"`
	Seed       uint64 `json:"seed"`
	Nodes      string `json:"nodes"`
	Data       string `json:"data"`      // number and hash of the tokens
	Optimizer  string `json:"optimizer"` // AdamW's settings and how many parameters decay
	Kernel     string `json:"kernel"`    // the instruction set, which decides the last bits
	Quantize   string `json:"quantize"`  // the layers that are rounded
}

func (t *trainer) progress() progress {
	h := fnv.New64a()
	var word [8]byte
	for _, id := range t.data {
		binary.LittleEndian.PutUint64(word[:], uint64(id))
		h.Write(word[:])
	}
	return progress{
		Steps: t.done, Batch: t.cfg.Batch, Seq: t.cfg.Seq, Accumulate: t.cfg.Accumulate, Seed: t.cfg.Seed,
		Nodes: t.cfg.Nodes.String(), Data: fmt.Sprintf("%d tokens, FNV-1a %016x", len(t.data), h.Sum64()),
		Optimizer: t.settings(), Kernel: kernel.Active().String(), Quantize: t.graph.p.fakeSummary(),
	}
}

// settings writes down all that the optimizer's steps depend on. Of NoDecay, a function, it is what that says of the model's
// parameters.
func (t *trainer) settings() string {
	c := t.opt.Config()
	h := fnv.New64a()
	n := 0
	for _, p := range t.m.params {
		if c.NoDecay == nil || !c.NoDecay(p.Name) {
			fmt.Fprintln(h, p.Name)
			n++
		}
	}
	c.NoDecay = nil
	s := fmt.Sprintf("LR %v, betas %v and %v, Eps %v, WeightDecay %v, Clip %v, Schedule %+v", c.LR, c.Beta1, c.Beta2, c.Eps, c.WeightDecay, c.Clip, c.Schedule)
	return fmt.Sprintf("%s, %d parameters decay, FNV-1a %016x", s, n, h.Sum64())
}

// save writes the checkpoint, if there is to be one.
func (t *trainer) save() error {
	if t.cfg.Checkpoint == "" {
		return nil
	}
	text, err := json.Marshal(t.progress())
	if err != nil {
		return fmt.Errorf("stheno: saving a checkpoint: %w", err)
	}
	return t.m.save(t.cfg.Checkpoint, t.opt.State(), map[string]string{metaTraining: string(text)})
}

// resume takes weights, optimizer and progress from the checkpoint, all or nothing.
func (t *trainer) resume() error {
	err := tensorfile.With(t.cfg.Checkpoint, t.read)
	if err != nil {
		return fmt.Errorf("stheno: resuming from %s: %w", t.cfg.Checkpoint, err)
	}
	return nil
}

func (t *trainer) read(r io.ReaderAt, size int64) error {
	file, err := openTensors(r, size)
	if err != nil {
		return err
	}
	cfg, err := file.config()
	if err != nil {
		return err
	}
	if cfg != t.m.cfg {
		return fmt.Errorf("got a model of %+v, want %+v", cfg, t.m.cfg)
	}
	text, ok := file.Meta[metaTraining]
	if !ok {
		return fmt.Errorf("not a training checkpoint: got no %q in the metadata", metaTraining)
	}
	var was progress
	if err := json.Unmarshal([]byte(text), &was); err != nil {
		return fmt.Errorf("metadata %q: %w", metaTraining, err)
	}
	now := t.progress()
	now.Steps = was.Steps
	if was != now {
		return fmt.Errorf("got a training of %+v, want %+v", was, now)
	}
	if was.Steps < 0 {
		return fmt.Errorf("metadata %q: got %d steps, want 0 or more", metaTraining, was.Steps)
	}
	dtype := safetensors.F32
	if t.m.dtype == tensor.Float64 {
		dtype = safetensors.F64
	}
	from, err := file.model(cfg, dtype, nil)
	if err != nil {
		return err
	}
	state := map[string]*tensor.Dense{}
	for name := range file.Tensors {
		if key, ok := strings.CutPrefix(name, optimizerPrefix); ok {
			if state[key], err = file.Read(name); err != nil {
				return err
			}
		}
	}
	if err := t.checkMoments(state, was.Steps); err != nil {
		return err
	}
	if err := t.opt.SetState(state); err != nil {
		return err
	}
	for i, p := range from.params {
		if err := copyInto(t.m.params[i].Value, p.Value); err != nil {
			return err
		}
	}
	t.done = was.Steps
	return nil
}

// checkMoments holds an optimizer's state to the model: after a step it has both moments of every weight. With fewer the
// training would go on, but not as it would have.
func (t *trainer) checkMoments(state map[string]*tensor.Dense, steps int) error {
	if steps == 0 {
		return nil
	}
	for _, p := range t.m.params {
		for _, key := range []string{"m." + p.Name, "v." + p.Name} {
			d := state[key]
			if d == nil {
				return fmt.Errorf("got no tensor %q after %d steps", optimizerPrefix+key, steps)
			}
			if !d.Shape().Eq(p.Value.Shape()) || d.Dtype() != p.Value.Dtype() {
				return fmt.Errorf("tensor %q: got %v %v, want %v %v", optimizerPrefix+key, d.Dtype(), d.Shape(), p.Value.Dtype(), p.Value.Shape())
			}
		}
	}
	return nil
}

func copyInto(dst, src *tensor.Dense) error {
	switch from := src.Data().(type) {
	case []float32:
		copy(dst.Data().([]float32), from)
	case []float64:
		copy(dst.Data().([]float64), from)
	default:
		return fmt.Errorf("got weights of %v", src.Dtype())
	}
	return nil
}
