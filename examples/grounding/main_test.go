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
	require.NoError(t, run(context.Background(), []string{"-steps", "2", "-scenes", "4", "-save", file, "-out", dir}, &out, io.Discard))
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
	require.NoError(t, run(context.Background(), []string{"-load", file, "-image", picture, "-caption", "The red disc left of a box and a big thing", "-out", dir}, &out, io.Discard))
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
	for _, c := range []struct {
		want string
		args []string
	}{
		{"a.txt: not a PNG, JPEG or GIF", []string{"-image", text, "-caption", "the red circle"}},
		{"none.png: no such file", []string{"-image", filepath.Join(dir, "none.png"), "-caption", "the red circle"}},
		{`got "", which describes nothing`, []string{"-image", picture}},
		{`got "the thing", which describes nothing`, []string{"-image", picture, "-caption", "the thing"}},
		{`got the unknown word "dog"`, []string{"-image", picture, "-caption", "the red dog"}},
		{"mix.w: got float32 of shape (2, 2), want float32 of (256, 256): the file is of a model of another size", []string{"-load", small}},
		{"mix.w: got NaN at 3, want finite numbers", []string{"-load", broken}},
		{"a.txt: not a weight file of this program", []string{"-load", text}},
		{"got a -caption without an -image", []string{"-caption", "the red circle"}},
		{"got -steps 0 and -scenes 400, want at least 1", []string{"-steps", "0"}},
		{`got the argument "train", want flags only`, []string{"train"}},
	} {
		err := run(context.Background(), append([]string{"-out", dir}, c.args...), io.Discard, io.Discard)
		require.ErrorContains(t, err, c.want)
	}
}
