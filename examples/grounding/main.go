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
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "grounding:", err)
		os.Exit(1)
	}
}

type options struct {
	steps, scenes                   int
	seed                            uint64
	save, load, out, image, caption string
}

func parseOptions(args []string, log io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("grounding", flag.ContinueOnError)
	f.SetOutput(log)
	f.IntVar(&o.steps, "steps", 1500, "steps of training, 16 scenes each")
	f.IntVar(&o.scenes, "scenes", 400, "test scenes of each part")
	f.Uint64Var(&o.seed, "seed", 1, "fixes weights and scenes")
	f.StringVar(&o.save, "save", "", "file to write the weights to")
	f.StringVar(&o.load, "load", "", "weights to use instead of training")
	f.StringVar(&o.out, "out", "grounding-out", "folder for the pictures")
	f.StringVar(&o.image, "image", "", "PNG, JPEG or GIF to ground the caption in, instead of test scenes")
	f.StringVar(&o.caption, "caption", "", "phrases for the image, parted by commas or «and»")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("got the argument %q, want flags only", f.Arg(0))
	case o.steps < 1 || o.scenes < 1:
		return o, fmt.Errorf("got -steps %d and -scenes %d, want at least 1", o.steps, o.scenes)
	case o.image == "" && o.caption != "":
		return o, errors.New("got a -caption without an -image")
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	o, err := parseOptions(args, log)
	if err != nil {
		return err
	}
	var img image.Image
	var phrases []phrase
	if o.image != "" { // before two minutes of training
		if img, err = open(o.image); err != nil {
			return err
		}
		if phrases, err = parse(o.caption); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	w, err := trained(ctx, o, out, log)
	if err != nil {
		return err
	}
	threshold, err := calibrated(w, o)
	if err != nil {
		return err
	}
	if img != nil {
		return show(w, threshold, img, phrases, filepath.Join(o.out, "image.png"), out)
	}
	if err := report(w, threshold, o, out); err != nil {
		return err
	}
	return gallery(w, threshold, o, out)
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
	img, _, err := image.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: not a PNG, JPEG or GIF: %w", path, err)
	}
	return img, nil
}
