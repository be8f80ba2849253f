package main

import (
	"context"
	"fmt"
	"image"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"stheno/ops/grounding"
)

// gallery writes test scenes with what was found in them: scenes.png has phrases, words.png the words of one phrase in each
// scene.
func gallery(ctx context.Context, w weights, threshold float64, o options, out io.Writer) error {
	const rows = 8
	e, err := newEye(w, perTest, threshold)
	if err != nil {
		return err
	}
	defer e.vm.Close()
	ground := method(e.ground).until(ctx)
	rng := rand.New(rand.NewPCG(o.seed, 5))
	var scenes, words album
	for i := range rows {
		s := newScene(rng, perTest, i >= rows/2)
		fs, err := ground(s.img, plain(s.phrases))
		if err != nil {
			return err
		}
		name := "new scene"
		if i >= rows/2 {
			name = "held-out combination"
		}
		scenes.add(s.img, name)
		if err := scenes.boxes(s.img, fs); err != nil {
			return err
		}
		for j, f := range fs {
			if err := scenes.overlay(s.img, f.phrase, j); err != nil {
				return err
			}
		}
	}
	for range rows {
		s, d := related(rng)
		fs, err := ground(s.img, []phrase{d.phrase, d.phrase})
		if err != nil {
			return err
		}
		if err := words.spell(s.img, fs[0]); err != nil {
			return err
		}
	}
	if err := scenes.save(filepath.Join(o.out, "scenes.png"), 2+perTest, out); err != nil {
		return err
	}
	return words.save(filepath.Join(o.out, "words.png"), 1+shown, out)
}

// related finds a scene with a phrase about a relation.
func related(rng *rand.Rand) (scene, described) {
	for {
		s := newScene(rng, perTest, false)
		for _, d := range s.phrases {
			if d.kind == "relation" && len(d.words) <= shown {
				return s, d
			}
		}
	}
}

// shown is how many words words.png has room for.
const shown = 8

// album collects pictures with captions.
type album struct {
	pictures []image.Image
	captions []string
}

func (a *album) add(img image.Image, caption string) {
	a.pictures, a.captions = append(a.pictures, img), append(a.captions, caption)
}

// boxes adds the picture with a box for each phrase.
func (a *album) boxes(img image.Image, fs []found) error {
	var rs []*grounding.Result
	for _, f := range fs {
		short := *f.phrase
		short.Label = f.short
		rs = append(rs, &short)
	}
	p, err := grounding.DrawBoxes(img, rs, grounding.DrawConfig{})
	if err == nil {
		a.add(p, "boxes")
	}
	return err
}

// overlay adds the heat map of phrase i.
func (a *album) overlay(img image.Image, r *grounding.Result, i int) error {
	bare := *r
	bare.Label = "" // it is the caption
	p, err := grounding.Overlay(img, &bare, grounding.DrawConfig{Colour: i, Low: 0, High: 1})
	if err == nil {
		a.add(p, r.Label)
	}
	return err
}

// spell adds the picture and the map of each word of a phrase, in a row.
func (a *album) spell(img image.Image, f found) error {
	a.add(img, "scene")
	for i := range shown {
		if i >= len(f.words) {
			a.add(image.NewRGBA(img.Bounds()), "")
			continue
		}
		if err := a.overlay(img, f.words[i], 0); err != nil {
			return err
		}
	}
	return nil
}

// save writes a contact sheet and makes its folder.
func (a *album) save(path string, columns int, out io.Writer) error {
	sheet, err := grounding.ContactSheet(a.pictures, grounding.SheetConfig{Columns: columns, Captions: a.captions})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := sheet.Save(path); err != nil {
		return err
	}
	fmt.Fprintf(out, "picture: %s\n", path)
	return nil
}

// doubtful is the largest probability below which a phrase may describe nothing in the picture.
const doubtful = 0.2

// show grounds the phrases of a caption in a picture of the user's.
func show(w weights, threshold float64, img image.Image, phrases []phrase, path string, out io.Writer) error {
	e, err := newEye(w, len(phrases), threshold)
	if err != nil {
		return err
	}
	defer e.vm.Close()
	fs, err := e.ground(img, phrases)
	if err != nil {
		return err
	}
	var a album
	if err := a.boxes(img, fs); err != nil {
		return err
	}
	for i, f := range fs {
		if err := a.overlay(img, f.phrase, i); err != nil {
			return err
		}
		sure := ""
		if f.phrase.Max < doubtful {
			sure = ": perhaps not there"
		}
		fmt.Fprintf(out, "%s: %v, probability at most %.2f%s\n", f.phrase.Label, f.phrase.Boxes[0].Rectangle, f.phrase.Max, sure)
		for _, r := range f.words {
			fmt.Fprintf(out, "    %-10s %v, at most %.2f\n", r.Label, r.Boxes[0].Rectangle, r.Max)
		}
	}
	return a.save(path, 0, out)
}
