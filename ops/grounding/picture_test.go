package grounding

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scene is a picture with two shapes and the results that find them.
func scene(t testing.TB) (image.Image, []*Result) {
	img := image.NewRGBA(image.Rect(3, 4, 131, 100))
	for y := 4; y < 100; y++ {
		for x := 3; x < 131; x++ {
			c := color.RGBA{uint8(90 + x/2), uint8(120 + y/2), 110, 255}
			if math.Hypot(float64(x-40), float64(y-50)) < 22 {
				c = color.RGBA{200, 40, 40, 255}
			}
			if x > 80 && x < 115 && y > 60 && y < 90 {
				c = color.RGBA{40, 60, 200, 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	_, g, err := Patches(img, PatchConfig{Patch: 8})
	require.NoError(t, err)
	circle, err := OverlapTargets(g, image.Rect(18, 28, 62, 72))
	require.NoError(t, err)
	box, err := OverlapTargets(g, image.Rect(81, 61, 115, 90))
	require.NoError(t, err)
	m := mapValue(2, make([]float64, 2*g.Len())...)
	for i := range g.Len() {
		m.Data().([]float64)[i], m.Data().([]float64)[g.Len()+i] = float64(circle[i]), float64(box[i])
	}
	rs, err := Results(m, g, ResultConfig{Refine: 8, Labels: []string{"the red circle", "a blue box"}})
	require.NoError(t, err)
	return img, rs
}

func TestPictures(t *testing.T) {
	img, rs := scene(t)
	heat, err := Overlay(img, rs[0], DrawConfig{})
	require.NoError(t, err)
	require.Equal(t, image.Rect(0, 0, 128*3, 96*3), heat.Bounds())
	other, err := Overlay(img, rs[1], DrawConfig{Colour: 1})
	require.NoError(t, err)
	boxes, err := DrawBoxes(img, rs, DrawConfig{})
	require.NoError(t, err)
	page, err := ContactSheet([]image.Image{img, boxes, heat, other}, SheetConfig{Captions: []string{"the picture", "boxes", "the red circle", strings.Repeat("a long caption ", 9)}})
	require.NoError(t, err)
	if dir := os.Getenv("STHENO_PICTURES"); dir != "" {
		require.NoError(t, page.Save(filepath.Join(dir, "grounding.png")))
	}
	b, err := page.PNG()
	require.NoError(t, err)
	back, err := png.Decode(bytes.NewReader(b))
	require.NoError(t, err)
	require.Equal(t, page.Bounds(), back.Bounds())
	require.True(t, strings.HasPrefix(page.HTML(), `<img width="504" height=`))
	require.NoError(t, page.Save(filepath.Join(t.TempDir(), "page.png")))
	require.Error(t, page.Save(filepath.Join(t.TempDir(), "none", "page.png")))
}

func TestOverlayMixesHalfAndHalf(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 16, 16))
	g, err := NewGrid(2, 1, img.Bounds())
	require.NoError(t, err)
	rs, err := Results(mapValue(1, 0, 1), g, ResultConfig{Threshold: 2})
	require.NoError(t, err)
	p, err := Overlay(img, rs[0], DrawConfig{Scale: 1, NoBoxes: true})
	require.NoError(t, err)
	cold, warm := heatStops[0], heatStops[len(heatStops)-1]
	require.Equal(t, color.RGBA{uint8(math.Round(127.5 * cold[0])), uint8(math.Round(127.5 * cold[1])), uint8(math.Round(127.5 * cold[2])), 255}, p.RGBAAt(0, 0))
	require.Equal(t, color.RGBA{uint8(math.Round(127.5 * warm[0])), uint8(math.Round(127.5 * warm[1])), uint8(math.Round(127.5 * warm[2])), 255}, p.RGBAAt(15, 8))
}

func TestPictureErrors(t *testing.T) {
	img, rs := scene(t)
	for want, f := range map[string]func() (*Picture, error){
		"grounding.Overlay: got no image or an empty one":       func() (*Picture, error) { return Overlay(nil, rs[0], DrawConfig{}) },
		"grounding.Overlay: got no result, want one of Results": func() (*Picture, error) { return Overlay(img, nil, DrawConfig{}) },
		"grounding.Overlay: got an image with bounds (0,0)-(5,5), want the one that was grounded, (3,4)-(131,100)": func() (*Picture, error) {
			return Overlay(image.NewGray(image.Rect(0, 0, 5, 5)), rs[0], DrawConfig{})
		},
		"grounding.Overlay: Alpha: got 2, want a number in (0, 1], or 0 for 0.5":       func() (*Picture, error) { return Overlay(img, rs[0], DrawConfig{Alpha: 2}) },
		"grounding.DrawBoxes: Scale: got -1, want 1 to 64, or 0 for one that fits":     func() (*Picture, error) { return DrawBoxes(img, rs, DrawConfig{Scale: -1}) },
		"grounding.Overlay: Low and High: got 2 and 1, want Low below High, or both 0": func() (*Picture, error) { return Overlay(img, rs[0], DrawConfig{Low: 2, High: 1}) },
		"grounding.ContactSheet: got no pictures, want at least one":                   func() (*Picture, error) { return ContactSheet(nil, SheetConfig{}) },
		"grounding.ContactSheet: picture 0: got none or an empty one":                  func() (*Picture, error) { return ContactSheet([]image.Image{nil}, SheetConfig{}) },
		"grounding.ContactSheet: Captions: got 2, want 1 as there are pictures": func() (*Picture, error) {
			return ContactSheet([]image.Image{img}, SheetConfig{Captions: []string{"", ""}})
		},
	} {
		_, err := f()
		require.EqualError(t, err, want)
	}
	require.Empty(t, (*Picture)(nil).HTML())
}

func TestLabelsKeepClearOfEachOther(t *testing.T) {
	out := image.NewRGBA(image.Rect(0, 0, 240, 240))
	var taken []image.Rectangle
	for range 4 { // above, below and twice inside the same box
		p := label(out, image.Rect(60, 80, 160, 160), "a red circle", Colour(0), taken)
		require.True(t, p.In(out.Rect))
		for _, q := range taken {
			require.False(t, p.Overlaps(q))
		}
		taken = append(taken, p)
	}
	for range 9 { // more than there is room for: still inside the picture
		require.True(t, label(out, image.Rect(0, 0, 240, 240), "x", Colour(1), taken).In(out.Rect))
	}
}
