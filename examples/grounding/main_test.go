package main

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"
)

func TestScenesKeepTheirPromises(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 60 {
		unseen := i%2 == 0
		s := newScene(rng, 2, unseen)
		require.Len(t, s.phrases, 2)
		for _, p := range s.phrases {
			require.True(t, p.box.In(image.Rect(0, 0, side, side)))
			require.True(t, p.box.Dx() > 10 && p.box.Dy() > 10, p)
			o := traitsOf(p.words)
			if o.traits[colourKind] >= 0 && o.traits[shapeKind] >= 0 {
				require.Equal(t, unseen, heldOut(o), p)
			} else {
				require.False(t, unseen, "phrases about held-out combinations name both")
			}
		}
	}
}

// traitsOf reads a phrase back, −1 for what it does not say.
func traitsOf(phrase []string) (o object) {
	for k := range lexicon {
		o.traits[k] = -1
		for v, synonyms := range lexicon[k] {
			if slices.ContainsFunc(phrase, func(w string) bool { return slices.Contains(synonyms, w) }) {
				o.traits[k] = v
			}
		}
	}
	return o
}

func TestPhrasesFitOneObjectOnly(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	red := object{traits: [kinds]int{0, 1, 0, 0}, box: image.Rect(0, 0, 5, 5)}
	blue := object{traits: [kinds]int{2, 1, 0, 0}, box: image.Rect(9, 9, 15, 15)}
	for range 100 {
		p, ok := describe(rng, []object{red, blue}, 0, false)
		if ok {
			require.Contains(t, p.kind, "colour", "the squares differ in colour only")
			require.Equal(t, red.box, p.box)
		}
	}
}

func TestTrainingLowersTheLoss(t *testing.T) {
	w := newWeights(rand.New(rand.NewPCG(1, 0)))
	first, err := train(context.Background(), w, 1, 1, io.Discard)
	require.NoError(t, err)
	last, err := train(context.Background(), w, 1, 6, io.Discard)
	require.NoError(t, err)
	require.Less(t, last, first)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = train(ctx, w, 1, 1000, io.Discard)
	require.ErrorIs(t, err, context.Canceled)
}

func TestProgramTrainsSavesAndGroundsAPicture(t *testing.T) {
	dir := t.TempDir()
	file, picture := filepath.Join(dir, "w.gob"), filepath.Join(dir, "in.png")
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), []string{"-steps", "2", "-scenes", "4", "-save", file, "-out", dir}, &out, io.Discard))
	for _, want := range []string{"trained on 32 scenes", "new scenes, trained", "without training", "chance", "held-out combinations", "pointing"} {
		require.Contains(t, out.String(), want)
	}
	require.FileExists(t, filepath.Join(dir, "scenes.png"))

	f, err := os.Create(picture)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, image.NewGray(image.Rect(0, 0, 130, 77))))
	require.NoError(t, f.Close())
	out.Reset()
	require.NoError(t, run(context.Background(), []string{"-load", file, "-image", picture, "-caption", "The red disc, a big thing", "-out", dir}, &out, io.Discard))
	require.Contains(t, out.String(), "red disc: ")
	require.Contains(t, out.String(), "big: ")
	require.FileExists(t, filepath.Join(dir, "image.png"))
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	text, small, picture := filepath.Join(dir, "a.txt"), filepath.Join(dir, "small.gob"), filepath.Join(dir, "a.png")
	require.NoError(t, os.WriteFile(text, []byte("no picture"), 0o644))
	f, err := os.Create(picture)
	require.NoError(t, err)
	require.NoError(t, png.Encode(f, image.NewGray(image.Rect(0, 0, 9, 9))))
	require.NoError(t, f.Close())
	w := newWeights(rand.New(rand.NewPCG(1, 0)))
	w["mix.w"] = tensor.New(tensor.WithShape(2, 2), tensor.WithBacking(make([]float32, 4)))
	require.NoError(t, w.save(small))
	for _, c := range []struct {
		want string
		args []string
	}{
		{"a.txt: not a PNG, JPEG or GIF", []string{"-image", text, "-caption", "the red circle"}},
		{"none.png: no such file", []string{"-image", filepath.Join(dir, "none.png"), "-caption", "the red circle"}},
		{`got "", which describes nothing`, []string{"-image", picture}},
		{`got "the thing", which describes nothing`, []string{"-image", picture, "-caption", "the thing"}},
		{`got the unknown word "dog"`, []string{"-image", picture, "-caption", "the red dog"}},
		{"mix.w: got 4 numbers, want 65536: the file is of a model of another size", []string{"-load", small}},
		{"a.txt: not a weight file of this program", []string{"-load", text}},
		{"got a -caption without an -image", []string{"-caption", "the red circle"}},
		{"got -steps 0 and -scenes 400, want at least 1", []string{"-steps", "0"}},
		{`got the argument "train", want flags only`, []string{"train"}},
	} {
		err := run(context.Background(), append([]string{"-out", dir}, c.args...), io.Discard, io.Discard)
		require.ErrorContains(t, err, c.want)
	}
}
