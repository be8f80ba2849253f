// Command grounding teaches a small network which part of a picture a phrase speaks of, on scenes that it draws itself,
// and shows what it learnt.
//
//	go run ./examples/grounding
//	go run ./examples/grounding -save words.gob -out pictures
//	go run ./examples/grounding -load words.gob -image photo.png -caption 'the red circle and a striped box'
//
// Scenes hold three to five shapes that differ in colour, shape, size and texture; phrases describe one of them by any of
// these, with synonyms. Five combinations of colour and shape are never shown in training. Test scenes are new; results on
// held-out combinations stand apart, and beside all of them those of a baseline without training (the cosine of colours)
// and of chance.
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

	"stheno/ops/grounding"
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
	f.IntVar(&o.steps, "steps", 1200, "steps of training, 16 scenes each")
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
	var phrases [][]string
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

// report prints the metrics of model, baseline and chance on seen and held-out combinations.
func report(w weights, threshold float64, o options, out io.Writer) error {
	e, err := newEye(w, 1, threshold)
	if err != nil {
		return err
	}
	defer e.vm.Close()
	byColour, err := calibrate(colours(0.5), false, o.seed, min(o.scenes, 100))
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name   string
		unseen bool
	}{{"new scenes", false}, {"held-out combinations of colour and shape", true}} {
		for _, m := range []struct {
			name   string
			ground method
		}{
			{"trained", e.ground},
			{"without training: cosine of colours", colours(byColour)},
			{"chance", chance(rand.New(rand.NewPCG(o.seed, 4)))},
		} {
			r, err := evaluate(m.ground, o.seed, o.scenes, part.unseen)
			if err != nil {
				return err
			}
			if m.name != "trained" {
				r.ByType = nil
			}
			fmt.Fprintf(out, "\n%s, %s\n%v\n", part.name, m.name, r)
		}
	}
	return nil
}

// gallery writes test scenes with what was found in them.
func gallery(w weights, threshold float64, o options, out io.Writer) error {
	const rows, phrases = 6, 2
	e, err := newEye(w, phrases, threshold)
	if err != nil {
		return err
	}
	defer e.vm.Close()
	rng := rand.New(rand.NewPCG(o.seed, 5))
	var pictures []image.Image
	var captions []string
	for i := range rows {
		s := newScene(rng, phrases, i >= rows/2)
		found, err := e.ground(s.img, [][]string{s.phrases[0].words, s.phrases[1].words})
		if err != nil {
			return err
		}
		boxes, err := grounding.DrawBoxes(s.img, found, grounding.DrawConfig{})
		if err != nil {
			return err
		}
		name := "new scene"
		if i >= rows/2 {
			name = "held-out combination"
		}
		pictures, captions = append(pictures, s.img, boxes), append(captions, name, "boxes")
		for j, r := range found {
			p, err := grounding.Overlay(s.img, r, grounding.DrawConfig{Colour: j, Low: 0, High: 1})
			if err != nil {
				return err
			}
			pictures, captions = append(pictures, p), append(captions, s.phrases[j].String())
		}
	}
	sheet, err := grounding.ContactSheet(pictures, grounding.SheetConfig{Columns: 2 + phrases, Captions: captions})
	if err != nil {
		return err
	}
	path := filepath.Join(o.out, "scenes.png")
	fmt.Fprintf(out, "\npictures: %s\n", path)
	return sheet.Save(path)
}

// doubtful is the largest probability below which a phrase may describe nothing in the picture.
const doubtful = 0.2

// show grounds the phrases of a caption in a picture of the user's.
func show(w weights, threshold float64, img image.Image, phrases [][]string, path string, out io.Writer) error {
	e, err := newEye(w, len(phrases), threshold)
	if err != nil {
		return err
	}
	defer e.vm.Close()
	found, err := e.ground(img, phrases)
	if err != nil {
		return err
	}
	pictures := []image.Image{}
	p, err := grounding.DrawBoxes(img, found, grounding.DrawConfig{})
	if err != nil {
		return err
	}
	pictures = append(pictures, p)
	for i, r := range found {
		if p, err = grounding.Overlay(img, r, grounding.DrawConfig{Colour: i, Low: 0, High: 1}); err != nil {
			return err
		}
		pictures = append(pictures, p)
		sure := ""
		if r.Max < doubtful {
			sure = ": perhaps not there"
		}
		fmt.Fprintf(out, "%s: %v, probability at most %.2f%s\n", r.Label, r.Boxes[0].Rectangle, r.Max, sure)
	}
	sheet, err := grounding.ContactSheet(pictures, grounding.SheetConfig{Cell: 320})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "picture: %s\n", path)
	return sheet.Save(path)
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
