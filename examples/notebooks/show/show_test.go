package show

import (
	"bytes"
	"image/color"
	"image/png"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDrawShowsEveryCurve(t *testing.T) {
	p, err := Draw(Chart{
		Title: "title", X: "x", Y: "y", LogX: true, LogY: true, YBytes: true,
		Curves: []Curve{
			{Name: "a", X: []float64{1, 10, 100}, Y: []float64{1, 1 << 10, 1 << 20}, Points: true, Labels: []string{"l", "m", "n"}},
			{Name: "b", X: []float64{1, 10, 100}, Y: []float64{1 << 20, 1 << 10, 3}, Smooth: 2, Dashed: true},
			{Name: "c", X: []float64{50}, Y: []float64{1 << 15}, Loose: true},
		},
	})
	require.NoError(t, err)
	seen := map[color.Color]bool{}
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y++ {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x++ {
			seen[color.RGBAModel.Convert(p.At(x, y))] = true
		}
	}
	for i := range 3 {
		require.True(t, seen[curves[i]], "colour of curve %d", i)
	}
	require.False(t, seen[curves[3]])

	out := p.Render()
	img, err := png.Decode(bytes.NewReader(out.Data["image/png"].([]byte)))
	require.NoError(t, err)
	require.Equal(t, p.Bounds().Dx(), img.Bounds().Dx())
	size := out.Metadata["image/png"].(map[string]any)
	require.InDelta(t, float64(img.Bounds().Dx())/p.Density, size["width"], 1)
	require.NoError(t, p.Save(filepath.Join(t.TempDir(), "p.png")))
}

func TestDrawRefuses(t *testing.T) {
	one := func(c Curve) Chart { return Chart{Curves: []Curve{c}} }
	for want, c := range map[string]Chart{
		"no curves":          {},
		"at least one Y":     one(Curve{}),
		"got 2 X":            one(Curve{X: []float64{1, 2}, Y: []float64{1}}),
		"2 labels":           one(Curve{Y: []float64{1}, Labels: []string{"a", "b"}}),
		"Smooth -1":          one(Curve{Y: []float64{1}, Smooth: -1}),
		"point 1: got":       one(Curve{Y: []float64{1, math.NaN()}}),
		"point 0: got (1, 0": {LogY: true, Curves: []Curve{{Y: []float64{0, 1}}}},
		"cm":                 {Width: 1000, Curves: []Curve{{Y: []float64{1}}}},
		"YMin":               {YMin: 2, YMax: 1, Curves: []Curve{{Y: []float64{1}}}},
	} {
		_, err := Draw(c)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "show.Draw: ")
	}
	var none *Picture
	require.Equal(t, "no picture", none.String())
	require.Contains(t, none.Render().Data["text/plain"], "got no picture")
}

func TestTicksAreRoundAndFew(t *testing.T) {
	for _, c := range []struct {
		t         ticks
		low, high float64
		first     string
	}{
		{ticks{}, 0, 1, "0"},
		{ticks{}, 0.9, 113, "20"},
		{ticks{}, -3, -2.9, "-3"},
		{ticks{}, -29, 1030, "0"},
		{ticks{}, 1, 1e7, "2e+06"},
		{ticks{bytes: true}, 0, 5 << 20, "0 B"},
		{ticks{log: true}, 0.9, 90, "1"},
		{ticks{log: true}, 1e-9, 1e12, "1e-09"},
		{ticks{log: true, bytes: true}, 1 << 10, 1 << 34, "4 KiB"},
	} {
		got := c.t.Ticks(c.low, c.high)
		require.Equal(t, c.first, got[0].Label, c)
		require.True(t, len(got) >= 2 && len(got) <= most+1, "%v: %d ticks", c, len(got))
		for _, m := range got {
			require.True(t, m.Value >= c.low && m.Value <= c.high)
		}
	}
}

func TestMatrix(t *testing.T) {
	p, err := Matrix(2, 3, []float32{0, 1, 2, 3, 4, float32(math.NaN())}, 0, 0, 2)
	require.NoError(t, err)
	require.Equal(t, 6, p.Bounds().Dx())
	require.Equal(t, 4, p.Bounds().Dy())
	require.Equal(t, color.RGBA{255, 255, 255, 255}, p.At(1, 1))
	require.Equal(t, curves[0], p.At(5, 0))
	require.Equal(t, ink, p.At(2, 2))
	require.Equal(t, faded, p.At(4, 3))
	_, err = Matrix(2, 2, []float32{1}, 0, 0, 1)
	require.ErrorContains(t, err, "show.Matrix: got 2 × 2 with 1 values")
}

func TestTable(t *testing.T) {
	table := Table{Head: []string{"a", "b|c"}}
	table.Row("x", 0.12345)
	table.Row("3")
	require.Equal(t, "| a | b\\|c |\n|:---|---:|\n| x | 0.123 |\n| 3 |  |\n", table.Markdown())
	require.Empty(t, (&Table{}).Markdown())
}
