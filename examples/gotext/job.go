package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"stheno"
)

// job is one run of the program and what it has found out so far.
type job struct {
	opt      options
	out, log io.Writer // results; progress

	text      corpus
	model     *stheno.Model
	further   *further      // with -qat, once it is trained
	quantized *stheno.Model // model with -weights, or model itself
	losses
	gzip, heldOut float64 // bits per byte of the held-out text; heldOut is 0 until it is known
}

// run trains, completes and compares. When ctx ends during a training, it still saves and shows what there is, without
// the comparison, and returns ctx's error; a training for codes that was not ended is left out.
func (j *job) run(ctx context.Context) error {
	runtime.GOMAXPROCS(j.opt.threads) // this module's nodes and gonum under Gorgonia's both go by it
	if err := j.prepare(ctx); err != nil {
		return err
	}
	stopped := error(nil)
	if j.opt.train {
		err := j.fit(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		stopped = err
	}
	if j.opt.train && len(j.bits) == 0 { // stopped before the first step: there is nothing new to save or show
		return stopped
	}
	if j.opt.save != "" {
		if err := j.model.Save(j.opt.save); err != nil {
			_ = j.show(context.WithoutCancel(ctx)) // the model is lost, what it can do need not be; the first error counts
			return err
		}
		fmt.Fprintf(j.out, "saved       %s\n", j.opt.save)
	}
	if stopped == nil && j.opt.qat > 0 {
		err := j.trainForCodes(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		stopped = err
	}
	if err := j.show(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if stopped != nil {
		return stopped
	}
	if err := j.compareAll(ctx); err != nil || !j.opt.roundings {
		return err
	}
	return j.compareRoundings(ctx)
}

// compareAll compares nodes and precisions, if that was asked for and there is something to compare with.
func (j *job) compareAll(ctx context.Context) error {
	if !j.opt.compare {
		return nil
	}
	if j.model.Quantized() {
		fmt.Fprintln(j.out, "The loaded weights are quantized: there is nothing to compare them with.")
		return nil
	}
	if err := j.compare(ctx); err != nil {
		return err
	}
	return j.precisions(ctx)
}

// prepare reads the text and makes or loads the model.
func (j *job) prepare(ctx context.Context) (err error) {
	if j.opt.load != "" {
		if j.model, err = stheno.Load(j.opt.load); err != nil {
			return err
		}
		if err = j.fits(j.model.Config()); err != nil {
			return fmt.Errorf("%s: %w", j.opt.load, err)
		}
		if j.model.Quantized() && (j.opt.train || j.opt.weights != stheno.F32) {
			return fmt.Errorf("%s: got a quantized model with -steps, -minutes or -weights, want one in full precision", j.opt.load)
		}
	}
	if j.opt.train || j.opt.qat > 0 {
		cfg := j.opt.config()
		if j.model != nil {
			cfg = j.model.Config()
		}
		if err = checkMemory(cfg, j.opt.batch, j.opt.seq); err != nil {
			return err
		}
	}
	if j.text, err = openText(ctx, j.opt.data); err != nil {
		return err
	}
	if len(j.text.training) <= j.opt.seq {
		return fmt.Errorf("-seq: got %d with %d bytes of text to train on, want less", j.opt.seq, len(j.text.training))
	}
	if j.gzip, err = gzipBits(j.text.held); err != nil {
		return err
	}
	if j.model == nil {
		if j.model, err = stheno.NewModel(j.opt.config(), j.opt.seed); err != nil {
			return err
		}
	}
	j.introduce()
	return nil
}

// fits reports what keeps a loaded model from this program, and takes over its context where none was asked for.
func (j *job) fits(cfg stheno.Config) error {
	if cfg.Vocab != vocab {
		return fmt.Errorf("got a model of %d tokens, want %d, one for each byte", cfg.Vocab, vocab)
	}
	if j.opt.ownSeq {
		j.opt.seq = cfg.MaxSeq
		return j.opt.checkPrompts()
	}
	if j.opt.seq > cfg.MaxSeq {
		return fmt.Errorf("-seq: got %d with a model of %d, want at most that", j.opt.seq, cfg.MaxSeq)
	}
	return nil
}

func (j *job) introduce() {
	c := j.model.Config()
	fmt.Fprintf(j.out, "text        %s: %s to train on, %s held out\n", j.text.name,
		bytesOf(len(j.text.training), j.text.files), bytesOf(len(j.text.held), j.text.heldFile))
	kv := ""
	if c.KVHeads != c.Heads {
		kv = fmt.Sprintf(" (%d for keys and values)", c.KVHeads)
	}
	fmt.Fprintf(j.out, "model       %d blocks of width %d, %d heads%s, %s, %s, %s positions: %s parameters\n",
		c.Layers, c.Dim, c.Heads, kv, c.Norm, c.Activation, c.Positions, count(c.Params()))
}

// show evaluates, draws and completes with the model as it is.
func (j *job) show(ctx context.Context) (err error) {
	if j.heldOut, err = j.model.Evaluate(ctx, tokens(j.text.held), j.opt.seq, stheno.Fused); err != nil {
		return err
	}
	fmt.Fprintf(j.out, "held out    %.3f bits per byte; gzip -9 on the same bytes: %.3f\n", j.heldOut, j.gzip)
	if err := j.quantize(ctx); err != nil {
		return err
	}
	if len(j.bits) > 1 {
		if err := j.picture("loss.png", j.plotLoss); err != nil {
			return err
		}
	}
	return j.complete(ctx)
}

// picture draws into the output directory. The file appears whole or not at all.
func (j *job) picture(name string, draw func(path string) error) error {
	if j.opt.out == "" {
		return nil
	}
	if err := os.MkdirAll(j.opt.out, 0o777); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	path := filepath.Join(j.opt.out, name)
	temporary := filepath.Join(j.opt.out, ".partial-"+name)
	if err := draw(temporary); err != nil {
		return errors.Join(fmt.Errorf("drawing %s: %w", path, err), os.RemoveAll(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	fmt.Fprintf(j.out, "picture     %s\n", path)
	return nil
}
