package grounding

import (
	"image/color"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"
)

func TestTensorsArePicturesToo(t *testing.T) {
	rgb := []uint8{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180} // 3 × 2 × 3
	for name, c := range map[string]struct {
		shape []int
		data  any
		want  color.NRGBA // at x 1, y 0
	}{
		"grey":        {[]int{2, 3}, []float64{0, 0.4, 2, -1, 1, 0}, color.NRGBA{102, 102, 102, 255}},
		"one channel": {[]int{1, 2, 3}, []float32{0, 0.4, 2, -1, 1, 0}, color.NRGBA{102, 102, 102, 255}},
		"first":       {[]int{3, 2, 3}, rgb, color.NRGBA{20, 80, 140, 255}},
		"last":        {[]int{2, 5, 3}, append(append([]uint8{}, rgb...), make([]uint8, 12)...), color.NRGBA{40, 50, 60, 255}},
		"alpha":       {[]int{4, 1, 2}, []uint8{1, 2, 3, 4, 5, 6, 7, 8}, color.NRGBA{2, 4, 6, 8}},
	} {
		img, err := TensorImage(tensor.New(tensor.WithShape(c.shape...), tensor.WithBacking(c.data)))
		require.NoError(t, err, name)
		require.Equal(t, c.want, img.At(1, 0), name)
	}
	clipped, err := TensorImage(tensor.New(tensor.WithShape(1, 2), tensor.WithBacking([]float32{-3, 7})))
	require.NoError(t, err)
	require.Equal(t, color.NRGBA{0, 0, 0, 255}, clipped.At(0, 0))
	require.Equal(t, color.NRGBA{255, 255, 255, 255}, clipped.At(1, 0))
}

// A slice of a transposed picture is read in its own order, too.
func TestTensorImageOfASliceOfATransposedTensor(t *testing.T) {
	x := tensor.New(tensor.WithShape(2, 3), tensor.WithBacking([]uint8{1, 2, 3, 4, 5, 6}))
	require.NoError(t, x.T())
	part, err := x.Slice(tensor.S(0, 2), nil)
	require.NoError(t, err)
	m, err := TensorImage(part.(*tensor.Dense))
	require.NoError(t, err)
	for _, c := range []struct {
		x, y int
		want uint32
	}{{0, 0, 1}, {1, 0, 4}, {0, 1, 2}, {1, 1, 5}} {
		r, _, _, _ := m.At(c.x, c.y).RGBA()
		require.Equal(t, c.want, r>>8, "%d, %d", c.x, c.y)
	}
}

// A tensor goes the whole way to patches; a transposed view is read in its own order.
func TestPatchesOfTensors(t *testing.T) {
	x := tensor.New(tensor.WithShape(3, 16, 24), tensor.WithBacking(tensor.Range(tensor.Float32, 0, 3*16*24)))
	for i, v := range x.Data().([]float32) {
		x.Data().([]float32)[i] = float32(int(v)%256) / 255
	}
	img, err := TensorImage(x)
	require.NoError(t, err)
	got, _, err := ImageTensor(img, PatchConfig{Patch: 8})
	require.NoError(t, err)
	require.Equal(t, tensor.Shape{3, 16, 24}, got.Shape())
	for i, v := range x.Data().([]float32) {
		require.InDelta(t, 2*v-1, got.Data().([]float32)[i], 1e-6)
	}
	turned := x.Clone().(*tensor.Dense)
	require.NoError(t, turned.T(1, 2, 0)) // channels last, not moved in memory
	again, err := TensorImage(turned)
	require.NoError(t, err)
	require.Equal(t, img, again)
}

func TestTensorImageErrors(t *testing.T) {
	of := func(data any, shape ...int) *tensor.Dense {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
	}
	for want, x := range map[string]*tensor.Dense{
		"got a nil tensor": nil,
		"got shape (2, 2, 2), want (height, width), or that with 1, 3 or 4 channels first or last": of(make([]float32, 8), 2, 2, 2),
		"got shape (4), want (height, width), or that with 1, 3 or 4 channels first or last":       of(make([]float32, 4), 4),
		"got int, want uint8, float32 or float64":                                                  of(make([]int, 4), 2, 2),
		"got NaN at channel 0, y 1, x 0, want numbers":                                             of([]float64{0, 0, math.NaN(), 0}, 2, 2),
	} {
		_, err := TensorImage(x)
		require.EqualError(t, err, "grounding.TensorImage: "+want)
	}
}
