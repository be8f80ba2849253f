package grounding

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
)

// quarters is a picture of four colours, with an origin off zero.
func quarters(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(5, -3, 5+w, -3+h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{uint8(255 * (2 * x / w)), uint8(255 * (2 * y / h)), 0, 255}
			img.SetNRGBA(5+x, -3+y, c)
		}
	}
	return img
}

func TestPatchesKeepPixelsWithoutResizing(t *testing.T) {
	img := quarters(32, 16)
	x, g, err := Patches(img, PatchConfig{Patch: 8})
	require.NoError(t, err)
	require.Equal(t, tensor.Shape{8, 3 * 64}, x.Shape())
	require.Equal(t, [2]int{4, 2}, [2]int{g.Cols, g.Rows})
	data := x.Data().([]float32)
	for p := range 8 {
		red, green := float32(-1), float32(-1)
		if p%4 >= 2 {
			red = 1
		}
		if p >= 4 {
			green = 1
		}
		for i := range 64 {
			require.Equal(t, [3]float32{red, green, -1}, [3]float32{data[p*192+i], data[p*192+64+i], data[p*192+128+i]})
		}
	}
	require.Equal(t, image.Rect(13, -3, 21, 5), g.Rect(1))
	require.Equal(t, 5, g.At(13, 5))
	require.Equal(t, -1, g.At(37, 0))
}

func TestImagesOfAnyKind(t *testing.T) {
	grey := image.NewGray(image.Rect(0, 0, 50, 31))
	clear := image.NewRGBA(image.Rect(0, 0, 7, 90))
	deep := image.NewRGBA64(image.Rect(0, 0, 64, 64))
	pal := image.NewPaletted(image.Rect(0, 0, 33, 17), color.Palette{color.Black, color.White})
	for i, img := range []image.Image{grey, clear, deep, pal, quarters(200, 99), quarters(1, 1)} {
		for _, patch := range []int{8, 14, 16, 32} {
			for _, fit := range []Fit{Stretch, Pad, Crop} {
				for _, grey := range []bool{false, true} {
					x, g, err := Patches(img, PatchConfig{Patch: patch, Fit: fit, Grey: grey, Width: 2 * patch, Height: 3 * patch})
					require.NoError(t, err)
					require.Equal(t, 6, g.Len())
					for _, v := range x.Data().([]float32) {
						require.True(t, v >= -1 && v <= 1, "image %d: %v", i, v)
					}
					covered := 0
					for p := range g.Len() {
						require.True(t, g.Rect(p).In(img.Bounds()))
						covered += g.Rect(p).Dx() * g.Rect(p).Dy()
					}
					if fit != Crop && img.Bounds().Dx() > 3 {
						require.Equal(t, img.Bounds().Dx()*img.Bounds().Dy(), covered, "image %d %v: patches tile the picture", i, fit)
					}
				}
			}
		}
	}
	x, _, err := ImageTensor(clear, PatchConfig{Patch: 8})
	require.NoError(t, err)
	require.Equal(t, float32(1), x.Data().([]float32)[0], "transparent is white")
}

func TestPadAndCropKeepProportions(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 100, 50))
	_, g, err := Patches(img, PatchConfig{Patch: 8, Width: 64, Height: 64, Fit: Pad})
	require.NoError(t, err)
	mask := g.Mask()
	require.Equal(t, ones(64, 32, 33, 34, 35, 36, 37, 38, 39), append(mask[:40], ones(24)...), "the lower half is padding")
	require.True(t, g.Rect(63).Empty())
	require.Equal(t, image.Rect(0, 0, 13, 13), g.Rect(0))
	_, g, err = Patches(img, PatchConfig{Patch: 8, Width: 64, Height: 64, Fit: Crop})
	require.NoError(t, err)
	require.Equal(t, 25, g.Rect(0).Min.X)
	require.Equal(t, 75, g.Rect(63).Max.X)
}

func TestImageErrors(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 9, 9))
	for _, c := range []struct {
		img  image.Image
		cfg  PatchConfig
		want string
	}{
		{nil, PatchConfig{}, "got a nil image"},
		{image.NewGray(image.Rectangle{}), PatchConfig{}, "got an image of 0 × 0 pixels, want at least one"},
		{img, PatchConfig{Patch: -1}, "Patch: got -1, want 1 to 256, or 0 for 16"},
		{img, PatchConfig{Width: 17}, "Width: got 17, want a multiple of Patch (16) up to 32768"},
		{img, PatchConfig{Height: 1 << 20}, "Height: got 1048576, want a multiple of Patch (16) up to 32768"},
		{img, PatchConfig{Fit: 3}, "Fit: got Fit(3), want stretch, pad or crop"},
		{img, PatchConfig{Mean: [3]float64{1}}, "Mean: got [1 0 0] without Std, want both or none"},
		{img, PatchConfig{Std: [3]float64{1, math.NaN(), 1}}, "channel 1: got Mean 0 and Std NaN, want finite ones and a positive Std"},
	} {
		_, _, err := Patches(c.img, c.cfg)
		require.EqualError(t, err, "grounding.Patches: "+c.want)
		_, _, err = ImageTensor(c.img, c.cfg)
		require.EqualError(t, err, "grounding.ImageTensor: "+c.want)
	}
}

func TestCutEqualsPatches(t *testing.T) {
	img := quarters(48, 32)
	want, _, err := Patches(img, PatchConfig{Patch: 16})
	require.NoError(t, err)
	x, _, err := ImageTensor(img, PatchConfig{Patch: 16})
	require.NoError(t, err)
	in := optest.Input{Name: "x", Shape: []int{1, 3, 32, 48}, Data: optest.Float64s(x.Data().([]float32))}
	got := optest.Graph{Inputs: []optest.Input{in}, Build: func(n []*G.Node) (*G.Node, error) { return Cut(n[0], PatchEmbedConfig{}) }}
	require.Equal(t, optest.Float64s(want.Data().([]float32)), got.Run(t, tensor.Float32))
}

func TestPatchEmbedGradientsAndErrors(t *testing.T) {
	for _, transposed := range []bool{false, true} {
		w := optest.Seeded("w", 2, 12, 5)
		if transposed {
			w = optest.Seeded("w", 2, 5, 12)
		}
		optest.Graph{
			Inputs: []optest.Input{optest.Seeded("x", 1, 2, 2, 4, 6), w, optest.Seeded("b", 3, 5)},
			Build: func(n []*G.Node) (*G.Node, error) {
				return PatchEmbed(n[0], n[1], n[2], PatchEmbedConfig{PatchHeight: 2, PatchWidth: 3, TransposeWeight: transposed})
			},
		}.CheckGradients(t, 1e-6)
	}
	g := G.NewGraph()
	node := func(shape ...int) *G.Node {
		return G.NewTensor(g, tensor.Float32, len(shape), G.WithShape(shape...), G.WithName(fmt.Sprint("n", shape)))
	}
	x := node(2, 3, 32, 32)
	for _, c := range []struct {
		x, w *G.Node
		cfg  PatchEmbedConfig
		want string
	}{
		{nil, nil, PatchEmbedConfig{}, "grounding.PatchEmbed: x: got a nil node, want a node of the graph"},
		{node(3, 32, 32), nil, PatchEmbedConfig{}, "grounding.PatchEmbed: x: got shape (3, 32, 32) of rank 3, want rank 4"},
		{x, nil, PatchEmbedConfig{PatchHeight: 5}, "grounding.PatchEmbed: PatchHeight: got 5, want a divisor of the picture's 32"},
		{x, nil, PatchEmbedConfig{PatchWidth: -8}, "grounding.PatchEmbed: PatchWidth: got -8, want a divisor of the picture's 32"},
		{x, node(9, 4), PatchEmbedConfig{}, "grounding.PatchEmbed: ops.Linear: w: got shape (9, 4), want (768, 4)"},
	} {
		_, err := PatchEmbed(c.x, c.w, nil, c.cfg)
		require.EqualError(t, err, c.want)
	}
	seen := map[uint32]bool{}
	for _, c := range []PatchEmbedConfig{{}, {PatchHeight: 8}, {PatchWidth: 8}} {
		n, err := Cut(x, c)
		require.NoError(t, err)
		require.False(t, seen[n.Hashcode()])
		seen[n.Hashcode()] = true
	}
}

func TestOverlapTargets(t *testing.T) {
	g, err := NewGrid(2, 2, image.Rect(0, 0, 20, 20))
	require.NoError(t, err)
	got, err := OverlapTargets(g, image.Rect(5, 0, 10, 10), image.Rect(5, 5, 20, 10), image.Rect(6, 6, 9, 9))
	require.NoError(t, err)
	require.Equal(t, []float32{0.5, 0.5, 0, 0}, got)
	_, err = OverlapTargets(nil)
	require.Error(t, err)
	_, err = NewGrid(0, 1, g.Bounds)
	require.EqualError(t, err, "grounding.NewGrid: got 0 × 1 patches, want at least 1 × 1")
}
