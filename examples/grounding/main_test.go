package main

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"
)

func TestScenesKeepTheirPromises(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	kinds := map[string]int{}
	for i := range 120 {
		unseen := i%2 == 0
		s := newScene(rng, 3, unseen)
		require.Len(t, s.phrases, 3)
		for _, d := range s.phrases {
			kinds[d.kind]++
			require.LessOrEqual(t, len(d.words), longest, d)
			require.True(t, d.box.In(image.Rect(0, 0, side, side)))
			require.True(t, d.box.Dx() > 10 && d.box.Dy() > 10, d)
			require.Equal(t, d.landmark < len(d.words), d.kind == "relation")
			require.Equal(t, d.landmark < len(d.words), d.box != d.landBox)
			o := named(d.words[:d.landmark])
			if o.traits[colourKind] >= 0 && o.traits[shapeKind] >= 0 {
				require.Equal(t, unseen, heldOut(o), d)
			} else {
				require.False(t, unseen, "phrases about held-out combinations name both")
			}
			// What the example says it also understands.
			again, err := parse(d.String())
			require.NoError(t, err)
			require.Equal(t, []phrase{d.phrase}, again)
		}
	}
	require.Greater(t, kinds["relation"], 50)
	require.Greater(t, kinds["position"], 20)
	require.Equal(t, []string{"red circle", "red cross", "blue triangle", "purple square", "purple ring"}, heldOutNames())
}

// named reads a phrase back, −1 for what it does not say.
func named(words []string) (o object) {
	o.traits = [kinds]int{-1, -1, -1, -1}
	for _, w := range words {
		if k, v := traitOf(w); k >= 0 {
			o.traits[k] = v
		}
	}
	return o
}

// fits says whether the traits that are named, and the place that is said, are those of an object; by hand, from the words.
func fits(words []string, o object, from *object) bool {
	for k, v := range named(words).traits {
		if v >= 0 && v != o.traits[k] {
			return false
		}
	}
	x, y := float64(side/2), float64(side/2)
	if from != nil {
		x, y = from.x, from.y
	}
	for _, w := range words {
		if (w == "left" && o.x >= x) || (w == "right" && o.x <= x) || ((w == "top" || w == "above" || w == "over") && o.y >= y) ||
			((w == "bottom" || w == "below" || w == "under") && o.y <= y) {
			return false
		}
	}
	return true
}

func TestPhrasesFitOneObjectOnly(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for i := range 300 {
		objects := newObjects(rng, false)
		d, ok := describe(rng, objects, false)
		if !ok {
			continue
		}
		var land *object
		if d.kind == "relation" {
			land = &objects[d.of]
			for j, o := range objects {
				require.Equal(t, j == d.of, fits(d.words[d.landmark:], o, nil), "%d: %v: landmark", i, d)
			}
		}
		for j, o := range objects {
			require.Equal(t, j == d.at, fits(d.words[:d.landmark], o, land), "%d: %v", i, d)
		}
	}
}

func TestRelationsDecide(t *testing.T) {
	red := object{traits: [kinds]int{0, 1, 0, 0}, x: 20, y: 50}
	blue := object{traits: [kinds]int{2, 0, 0, 0}, x: 50, y: 50}
	twin := object{traits: [kinds]int{0, 1, 0, 0}, x: 80, y: 50}
	rng := rand.New(rand.NewPCG(3, 3))
	seen := 0
	for range 2000 {
		if d, ok := byRelation(rng, []object{red, blue, twin}, 0, false); ok {
			seen++
			require.Equal(t, 1, d.of, d)
			require.Contains(t, d.words, "left", "the red squares differ in nothing else")
		}
		_, ok := byRelation(rng, []object{red, blue}, 0, false)
		require.False(t, ok, "nothing is to be told apart")
	}
	require.Greater(t, seen, 20)
}

func TestCaptions(t *testing.T) {
	got, err := parse("The red disc, a ring to the left of an azure box. And one on the left")
	require.NoError(t, err)
	require.Equal(t, "the red disc|a ring to the left of a azure box|thing on the left", strings.Join(labels(got), "|"))
	require.Equal(t, []int{3, 6, 4}, []int{got[0].landmark, got[1].landmark, got[2].landmark})
	require.Equal(t, []int{1, 2}, got[0].traits())
	require.Equal(t, []int{1}, got[1].traits())
	require.Equal(t, []int{0, 1, 2, 3}, got[2].traits(), "nothing names a trait")
	require.Equal(t, []string{"article, thing", "shape", "place", "landmark"}, []string{got[1].kindOf(0), got[1].kindOf(1), got[1].kindOf(5), got[1].kindOf(8)})
	for caption, want := range map[string]string{
		" , ":                                   `got " , ", which describes nothing`,
		"the thing":                             `got "the thing", which describes nothing`,
		"the red dog":                           `got the unknown word "dog"`,
		"the ring left of":                      `got "the ring left of", want an object after "of"`,
		"the ring left of the thing":            `want an object after "of"`,
		"the ring above the box below the disc": "which speaks of three objects, want one or two in a phrase",
		strings.Repeat("red ", 15):              "of 15 words, want at most 14 in a phrase",
	} {
		_, err := parse(caption)
		require.ErrorContains(t, err, want)
	}
}

func TestSightShowsTheWindow(t *testing.T) {
	pixels := make([]float32, 3*side*side)
	at := (3*patch+4)*side + 5*patch + 4 // in the middle of patch (5, 3), the first channel
	for _, i := range []int{at, at + 1, at + side, at + side + 1} {
		pixels[i] = 1
	}
	seen := make([]float32, patches*features)
	look(seen, pixels)
	const h, c = window / 2, window / 4
	for p := range patches {
		dx, dy := 5-p%cells, 3-p/cells
		contrast, colour := seen[p*features:][:h*h], seen[p*features+h*h:][:c*c]
		in := max(dx, -dx) <= around/patch && max(dy, -dy) <= around/patch
		require.Equal(t, in, slices.Max(contrast) > 1, p)
		require.Equal(t, in, slices.Max(colour) > 0, p)
		if in {
			require.Equal(t, (around+dy*patch+4)/2*h+(around+dx*patch+4)/2, slices.Index(contrast, slices.Max(contrast)))
			require.Equal(t, float32(0.25), colour[(around+dy*patch+4)/4*c+(around+dx*patch+4)/4])
		}
	}
}

func TestTrainingLowersTheLoss(t *testing.T) {
	w := newWeights(rand.New(rand.NewPCG(1, 0)))
	first, err := train(context.Background(), w, 1, 1, io.Discard)
	require.NoError(t, err)
	_, err = train(context.Background(), w, 1, 20, io.Discard)
	require.NoError(t, err)
	again, err := train(context.Background(), w, 1, 1, io.Discard) // the same scenes as at first
	require.NoError(t, err)
	require.Less(t, again, 0.9*first)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = train(ctx, w, 1, 1000, io.Discard)
	require.ErrorIs(t, err, context.Canceled)
}

func TestProgramTrainsSavesAndGroundsAPicture(t *testing.T) {
	dir := t.TempDir()
	file, picture := filepath.Join(dir, "w.safetensors"), filepath.Join(dir, "in.png")
	var out bytes.Buffer
	require.Zero(t, program(context.Background(), []string{"-steps", "2", "-scenes", "4", "-save", file, "-out", dir}, &out, io.Discard))
	for _, want := range []string{"trained on 32 scenes", "new scenes", "trained: phrases", "trained: each word by itself", "landmark",
		"without training", "chance", "held-out combinations (red circle, red cross, blue triangle", "pointing"} {
		require.Contains(t, out.String(), want)
	}
	require.FileExists(t, filepath.Join(dir, "scenes.png"))
	require.FileExists(t, filepath.Join(dir, "words.png"))

	f, err := os.Create(picture)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, image.NewGray(image.Rect(0, 0, 130, 77))))
	require.NoError(t, f.Close())
	out.Reset()
	require.Zero(t, program(context.Background(), []string{"-load", file, "-image", picture, "-caption", "The red disc left of a box and a big thing", "-out", dir}, &out, io.Discard))
	require.Contains(t, out.String(), "the red disc left of a box: (")
	require.Contains(t, out.String(), "a big thing: (")
	require.Contains(t, out.String(), "    of         (")
	require.FileExists(t, filepath.Join(dir, "image.png"))
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	text, small, broken, picture := filepath.Join(dir, "a.txt"), filepath.Join(dir, "small.safetensors"), filepath.Join(dir, "broken.safetensors"), filepath.Join(dir, "a.png")
	require.NoError(t, os.WriteFile(text, []byte("no picture"), 0o644))
	f, err := os.Create(picture)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, image.NewGray(image.Rect(0, 0, 9, 9))))
	require.NoError(t, f.Close())
	w := newWeights(rand.New(rand.NewPCG(1, 0)))
	w["mix.w"] = tensor.New(tensor.WithShape(2, 2), tensor.WithBacking(make([]float32, 4)))
	require.NoError(t, w.save(small))
	bad := make([]float32, hidden*hidden)
	bad[3] = float32(math.NaN())
	w["mix.w"] = tensor.New(tensor.WithShape(hidden, hidden), tensor.WithBacking(bad))
	require.NoError(t, w.save(broken))
	none := filepath.Join(dir, "none")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitFailed, "a.txt: got no picture that can be read, want a PNG, JPEG or GIF", []string{"-image", text, "-caption", "the red circle"}},
		{exitFailed, "got a folder or a device, want a PNG, JPEG or GIF", []string{"-image", dir, "-caption", "the red circle"}},
		{exitFailed, "none: no such file", []string{"-image", none, "-caption", "the red circle"}},
		{exitFailed, `got "", which describes nothing`, []string{"-image", picture}},
		{exitFailed, `got "the thing", which describes nothing`, []string{"-image", picture, "-caption", "the thing"}},
		{exitFailed, `got the unknown word "dog"`, []string{"-image", picture, "-caption", "the red dog"}},
		{exitFailed, "mix.w: got float32 of shape (2, 2), want float32 of (256, 256): the file is of a model of another size", []string{"-load", small}},
		{exitFailed, "mix.w: got NaN at 3, want finite numbers", []string{"-load", broken}},
		{exitFailed, "a.txt: got no weight file of this program", []string{"-load", text}},
		{exitFailed, none + ": no such file", []string{"-load", none}},
		{exitUsage, "-caption: got no -image with it", []string{"-caption", "the red circle"}},
		{exitUsage, "-load: got -save or -steps with it, want neither", []string{"-load", small, "-save", none}},
		{exitUsage, "-save: got the folder " + none + ", want one that can be written to", []string{"-save", filepath.Join(none, "w")}},
		{exitUsage, "-out: got the file " + text + ", want a folder", []string{"-out", text}},
		{exitUsage, "-steps: got 0, want 1 to", []string{"-steps", "0"}},
		{exitUsage, "-scenes: got -1, want 1 to", []string{"-scenes", "-1"}},
		{exitUsage, `invalid value "many" for flag -steps`, []string{"-steps", "many"}},
		{exitUsage, "flag provided but not defined: -stepps", []string{"-stepps", "3"}},
		{exitUsage, `got the argument "train", want flags only`, []string{"train"}},
	} {
		var log strings.Builder
		out := filepath.Join(dir, "pictures")
		require.Equal(t, c.code, program(context.Background(), append([]string{"-out", out}, c.args...), io.Discard, &log), c.args)
		require.Regexp(t, `^grounding: [^\n]*\n$`, log.String(), "one sentence")
		require.Contains(t, log.String(), c.want)
		require.NoDirExists(t, out, c.args)
	}
}

// An interrupt ends what comes after the training as well.
func TestInterruptsLeaveNothingHalfDone(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "w.safetensors"), filepath.Join(dir, "pictures")
	require.NoError(t, newWeights(rand.New(rand.NewPCG(1, 0))).save(file))
	for _, args := range [][]string{{"-save", filepath.Join(dir, "new")}, {"-load", file}} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var log strings.Builder
		require.Equal(t, exitInterrupted, program(ctx, append([]string{"-out", out}, args...), io.Discard, &log))
		require.True(t, strings.HasSuffix(log.String(), "grounding: stopped\n"), log.String())
		require.NoDirExists(t, out)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	w, err := loadWeights(file)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o := options{scenes: 3, seed: 1, out: out}
	require.ErrorIs(t, report(ctx, w, 0.5, o, io.Discard), context.Canceled)
	require.ErrorIs(t, gallery(ctx, w, 0.5, o, io.Discard), context.Canceled)
	require.NoDirExists(t, out)
}

func TestHelpIsNoError(t *testing.T) {
	var out, log strings.Builder
	require.Zero(t, program(context.Background(), []string{"-h"}, &out, &log))
	require.Contains(t, out.String(), "-caption")
	require.Empty(t, log.String())
}
