package grounding

import (
	"image"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"
)

func mapValue(rows int, x ...float64) *tensor.Dense {
	return tensor.New(tensor.WithShape(rows, len(x)/rows), tensor.WithBacking(x))
}

func grid(t testing.TB, cols, rows int) *Grid {
	g, err := NewGrid(cols, rows, image.Rect(10, 20, 10+cols*8, 20+rows*8))
	require.NoError(t, err)
	return g
}

func TestResultsByHand(t *testing.T) {
	m := mapValue(1,
		0.9, 0.5, 0.1, 0.0,
		0.0, 0.1, 0.6, 0.0,
		0.0, 0.0, 0.1, 0.7)
	g := grid(t, 4, 3)
	rs, err := Results(m, g, ResultConfig{Labels: []string{"cat"}})
	require.NoError(t, err)
	r := rs[0]
	require.Equal(t, "cat", r.Label)
	require.Equal(t, 0.9, r.Max)
	require.Equal(t, 0, r.Best)
	require.Equal(t, image.Pt(13, 23), r.Point())
	require.Equal(t, []int{0, 1, 6, 11}, r.Patches)
	require.Len(t, r.Boxes, 3)
	require.Equal(t, image.Rect(10, 20, 26, 28), r.Boxes[0].Rectangle)
	require.InDelta(t, 0.7, r.Boxes[0].Score, 1e-12)
	require.InDelta(t, 1.4, r.Boxes[0].Mass, 1e-12)
	require.Equal(t, image.Rect(34, 36, 42, 44), r.Boxes[1].Rectangle)

	rs, err = Results(m, g, ResultConfig{Corners: true})
	require.NoError(t, err)
	require.Len(t, rs[0].Boxes, 1, "corners join the diagonal")
	require.Equal(t, g.Bounds, rs[0].Boxes[0].Rectangle)

	rs, err = Results(m, g, ResultConfig{Threshold: 0.7, Relative: true})
	require.NoError(t, err)
	require.Equal(t, []int{0, 11}, rs[0].Patches, "from 0.63 on")

	rs, err = Results(m, g, ResultConfig{TopK: 3})
	require.NoError(t, err)
	require.Equal(t, []int{0, 6, 11}, rs[0].Patches)

	rs, err = Results(m, g, ResultConfig{Threshold: 2})
	require.NoError(t, err)
	require.Empty(t, rs[0].Patches)
	require.Empty(t, rs[0].Boxes)
}

// A map of the shares of patches that a rectangle covers leads back to the rectangle, to the pixel.
func TestRefineFindsEdgesInsidePatches(t *testing.T) {
	g := grid(t, 8, 8)
	truth := image.Rect(10+12, 20+12, 10+44, 20+36)
	y, err := OverlapTargets(g, truth)
	require.NoError(t, err)
	m := tensor.New(tensor.WithShape(1, 1, 64), tensor.WithBacking(y))
	coarse, err := Results(m, g, ResultConfig{Threshold: 0.51})
	require.NoError(t, err)
	fine, err := Results(m, g, ResultConfig{Threshold: 0.51, Refine: 8})
	require.NoError(t, err)
	require.Greater(t, IoU(fine[0].Boxes[0].Rectangle, truth), IoU(coarse[0].Boxes[0].Rectangle, truth))
	require.Greater(t, IoU(fine[0].Boxes[0].Rectangle, truth), 0.85)
}

func TestPaddingIsNeverFound(t *testing.T) {
	_, g, err := Patches(image.NewGray(image.Rect(0, 0, 64, 32)), PatchConfig{Patch: 16, Width: 64, Height: 64, Fit: Pad})
	require.NoError(t, err)
	x := make([]float64, 16)
	for i := range x {
		x[i] = float64(i)
	}
	for _, refine := range []int{0, 4} {
		rs, err := Results(mapValue(1, x...), g, ResultConfig{Threshold: 6, Refine: refine})
		require.NoError(t, err)
		require.Equal(t, 7, rs[0].Best)
		require.Equal(t, []int{6, 7}, rs[0].Patches)
		require.True(t, rs[0].Boxes[0].In(g.Bounds))
	}
	rs, err := Results(mapValue(1, x...), g, ResultConfig{TopK: 16})
	require.NoError(t, err)
	require.Len(t, rs[0].Patches, 8)
}

func TestPatchesToBoxes(t *testing.T) {
	g := grid(t, 2, 2)
	boxes, err := PatchesToBoxes(g, []int{0, 3}, []float64{0.2, 0.8})
	require.NoError(t, err)
	require.Equal(t, []Box{{image.Rect(18, 28, 26, 36), 0.8, 0.8}, {image.Rect(10, 20, 18, 28), 0.2, 0.2}}, boxes)
	for want, f := range map[string]func() ([]Box, error){
		"got patch 4, want one in [0, 4)":           func() ([]Box, error) { return PatchesToBoxes(g, []int{4}, nil) },
		"got 2 scores, want 1 as there are patches": func() ([]Box, error) { return PatchesToBoxes(g, []int{0}, []float64{1, 2}) },
		"got a nil grid":                            func() ([]Box, error) { return PatchesToBoxes(nil, nil, nil) },
	} {
		_, err := f()
		require.EqualError(t, err, "grounding.PatchesToBoxes: "+want)
	}
}

func TestResultsErrors(t *testing.T) {
	g := grid(t, 2, 2)
	m := mapValue(1, 1, 2, 3, 4)
	for _, c := range []struct {
		m    *tensor.Dense
		g    *Grid
		cfg  ResultConfig
		want string
	}{
		{m, nil, ResultConfig{}, "got a nil grid"},
		{mapValue(1, 1, 2, 3), g, ResultConfig{}, "maps: got shape (1, 3), want (tokens, 4)"},
		{mapValue(1, 1, 2, math.NaN(), 4), g, ResultConfig{}, "maps: got NaN for token 0, patch 2, want finite numbers"},
		{m, g, ResultConfig{Threshold: math.Inf(1)}, "Threshold: got +Inf, want a finite number, or 0 for 0.5"},
		{m, g, ResultConfig{TopK: 5}, "TopK: got 5, want 0 to 4"},
		{m, g, ResultConfig{Refine: -1}, "Refine: got -1, want 0 to 64"},
		{m, g, ResultConfig{Labels: []string{"a", "b"}}, "Labels: got 2, want 1 as there are tokens"},
	} {
		_, err := Results(c.m, c.g, c.cfg)
		require.EqualError(t, err, "grounding.Results: "+c.want)
	}
	_, err := Results(nil, g, ResultConfig{})
	require.ErrorContains(t, err, "maps: got no value")
	_, _, err = Calibrate(nil, nil, ResultConfig{})
	require.EqualError(t, err, "grounding.Calibrate: got 0 results and 0 true regions, want as many, and at least one")
}

func TestCalibrateFindsTheThreshold(t *testing.T) {
	g := grid(t, 3, 1)
	rs, err := Results(mapValue(2, 0.3, 0.29, 0.2, 0.1, 0.31, 0.35), g, ResultConfig{})
	require.NoError(t, err)
	th, iou, err := Calibrate(rs, []image.Rectangle{g.Rect(0).Union(g.Rect(1)), g.Rect(1).Union(g.Rect(2))}, ResultConfig{})
	require.NoError(t, err)
	require.Equal(t, 1.0, iou)
	require.True(t, th > 0.2 && th <= 0.29, th)
}

// Three phrases, worked by hand.
func TestMetricsByHand(t *testing.T) {
	g := grid(t, 4, 1) // patches 10–18, 18–26, 26–34, 34–42 in x, 20–28 in y
	result := func(m ...float64) *Result {
		rs, err := Results(mapValue(1, m...), g, ResultConfig{})
		require.NoError(t, err)
		return rs[0]
	}
	r, err := Evaluate([]Phrase{
		// Points into the box, finds it exactly.
		{result(1, 0, 0, 0), []image.Rectangle{g.Rect(0)}, "a"},
		// Two true boxes. The first box is one of them, which any-box accepts; around both it is 1 patch of 4.
		{result(0.9, 0, 0, 0.8), []image.Rectangle{g.Rect(0), g.Rect(3)}, "a"},
		// The larger region is wrong, the second right, and the pointing is wrong: R@5 but not R@1.
		{result(0.9, 0.9, 0, 0.8), []image.Rectangle{g.Rect(3)}, "b"},
		// Nothing found; the largest value is right.
		{result(0.1, 0.2, 0.3, 0.4), []image.Rectangle{g.Rect(3)}, "b"},
	})
	require.NoError(t, err)
	require.Equal(t, Scores{"all", 4, 0.75, 0.5, 0.75, 0.75, 0.25, 0.5, 0.5, (1 + 0.25) / 4}, r.All)
	require.Equal(t, []Scores{
		{"a", 2, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.625},
		{"b", 2, 0.5, 0, 0.5, 0.5, 0, 0.5, 0.5, 0},
	}, r.ByType)
	require.Equal(t, `type    phrases  pointing  any R@1    R@5   R@10  merged R@1    R@5   R@10   mIoU
all           4      75.0     50.0   75.0   75.0        25.0   50.0   50.0  0.312
a             2     100.0    100.0  100.0  100.0        50.0   50.0   50.0  0.625
b             2      50.0      0.0   50.0   50.0         0.0   50.0   50.0  0.000`, r.String())
	require.Contains(t, r.HTML(), "<td>a</td><td>2</td><td>100.0</td>")
}

func TestIoUByHand(t *testing.T) {
	require.Equal(t, 1.0/7, IoU(image.Rect(0, 0, 2, 2), image.Rect(1, 1, 3, 3)))
	require.Equal(t, 0.5, IoU(image.Rect(0, 0, 1, 1), image.Rect(0, 0, 2, 1)))
	require.Equal(t, 0.0, IoU(image.Rectangle{}, image.Rectangle{}))
	require.Equal(t, 0.0, IoU(image.Rect(0, 0, 1, 1), image.Rect(1, 0, 2, 1)), "half-open: neighbours do not overlap")
}

func TestMetricsErrors(t *testing.T) {
	_, err := Evaluate(nil)
	require.EqualError(t, err, "grounding.Evaluate: got no phrases, want at least one")
	_, err = Evaluate([]Phrase{{}})
	require.EqualError(t, err, "grounding.Evaluate: phrase 0: got no result, want one of Results")
	_, err = Evaluate([]Phrase{{Result: &Result{Grid: grid(t, 1, 1), Label: "x"}}})
	require.EqualError(t, err, "grounding.Evaluate: phrase 0 (x): got true boxes [], want at least one and none empty")
}
