// Command grounding teaches a small network which part of a picture each word of a phrase speaks of, on scenes that it draws
// itself, and shows what it learnt.
//
//	go run ./examples/grounding
//	go run ./examples/grounding -save words.safetensors -out pictures
//	go run ./examples/grounding -load words.safetensors -image photo.png -caption 'the red circle left of a box and a striped ring'
//
// Scenes hold three to five shapes that differ in colour, shape, size, texture and place, many of them alike in some of
// these, and overlap. Phrases describe one of them by its traits, with synonyms, by its place ("on the left"), or by where
// it lies from another ("the circle left of the red box"), where the words of the landmark have the landmark's box. Five
// combinations of colour and shape are never shown in training. Test scenes are new; results on held-out combinations
// stand apart, and beside all of them those of a baseline without training (the cosine of colours) and of chance.
//
// Ctrl-C ends the program without writing anything more; a second one ends it at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	_ "image/gif"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"stheno/internal/aside"
)

// The exit statuses.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal takes its usual course
	os.Exit(program(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// program is run with the exit status, and the sentence that goes with it.
func program(ctx context.Context, args []string, out, log io.Writer) int {
	o, err := parseOptions(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	code := exitUsage
	if err == nil {
		code = exitFailed
		err = run(ctx, o, out, log)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(log, "grounding: stopped")
		return exitInterrupted
	default:
		fmt.Fprintf(log, "grounding: %v\n", err)
		return code
	}
}

type options struct {
	steps, scenes                   int
	seed                            uint64
	save, load, out, image, caption string
}

// parseOptions reads the command line. With -h it prints the help to out and returns flag.ErrHelp.
func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("grounding", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.IntVar(&o.steps, "steps", 1500, "steps of training, 16 scenes each")
	f.IntVar(&o.scenes, "scenes", 400, "test scenes of each part")
	f.Uint64Var(&o.seed, "seed", 1, "fixes weights and scenes")
	f.StringVar(&o.save, "save", "", "file to write the weights to")
	f.StringVar(&o.load, "load", "", "weights to use instead of training")
	f.StringVar(&o.out, "out", "grounding-out", "folder for the pictures")
	f.StringVar(&o.image, "image", "", "PNG, JPEG or GIF to ground the caption in, instead of test scenes")
	f.StringVar(&o.caption, "caption", "", "phrases for the image, parted by commas or «and»")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "Teaches a small network which part of a picture each word of a phrase speaks of, and shows what it learnt.\n\nFlags:")
			f.SetOutput(out)
			f.PrintDefaults()
		}
		return o, err
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("got the argument %q, want flags only: -h lists them", f.Arg(0))
	case o.steps < 1 || o.steps > maxSteps:
		return o, fmt.Errorf("-steps: got %d, want 1 to %d", o.steps, maxSteps)
	case o.scenes < 1 || o.scenes > maxScenes:
		return o, fmt.Errorf("-scenes: got %d, want 1 to %d", o.scenes, maxScenes)
	case o.image == "" && given["caption"]:
		return o, errors.New("-caption: got no -image with it, want one to look for the caption in")
	case o.load != "" && (given["save"] || given["steps"]):
		return o, errors.New("-load: got -save or -steps with it, want neither: loaded weights are not trained")
	}
	if err := aside.CheckFolder(o.out); err != nil {
		return o, fmt.Errorf("-out: %w", err)
	}
	if o.save != "" {
		if err := aside.CheckFile(o.save); err != nil {
			return o, fmt.Errorf("-save: %w", err)
		}
	}
	return o, nil
}

// Most of what can be asked for: years, and as many results as memory holds.
const (
	maxSteps  = 1_000_000_000
	maxScenes = 100_000
)

func run(ctx context.Context, o options, out, log io.Writer) error {
	var img image.Image
	var phrases []phrase
	var err error
	if o.image != "" { // before two minutes of training
		if img, err = open(o.image); err != nil {
			return err
		}
		if phrases, err = parse(o.caption); err != nil {
			return err
		}
	}
	w, err := trained(ctx, o, out, log)
	if err != nil {
		return err
	}
	threshold, err := calibrated(ctx, w, o)
	if err != nil {
		return err
	}
	if img != nil {
		return show(w, threshold, img, phrases, filepath.Join(o.out, "image.png"), out)
	}
	if err := report(ctx, w, threshold, o, out); err != nil {
		return err
	}
	return gallery(ctx, w, threshold, o, out)
}

func trained(ctx context.Context, o options, out, log io.Writer) (weights, error) {
	if o.load != "" {
		return loadWeights(o.load)
	}
	w := newWeights(rand.New(rand.NewPCG(o.seed, 0)))
	begun := time.Now()
	loss, err := train(ctx, w, o.seed, o.steps, log)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "trained on %d scenes in %s, loss %.4f\n", o.steps*batchSize, time.Since(begun).Round(time.Second), loss)
	if o.save != "" {
		return w, w.save(o.save)
	}
	return w, nil
}

func open(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: got a folder or a device, want a PNG, JPEG or GIF", path)
	}
	img, _, err := image.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: got no picture that can be read, want a PNG, JPEG or GIF: %w", path, err)
	}
	return img, nil
}
