//go:build cuda

package op

import (
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// An input goes to the card as it is, a view in row-major order; memory that belongs to the user is not recycled, and a value that
// was transposed after its node was made is an error.
func TestInputsLaidOutOnTheCard(t *testing.T) {
	n := G.NewMatrix(G.NewGraph(), G.Float32, G.WithShape(2, 3))
	o := &packOp{NewBase("op.Pack", nil, n.Shape(), n.Dtype(), n)}
	x := tensor.New(tensor.WithShape(2, 3), tensor.WithBacking([]float32{1, 2, 3, 4, 5, 6}))
	got, err := o.Do(x)
	require.NoError(t, err)
	require.Same(t, x, got)
	require.False(t, o.FreshResult())

	view := tensor.New(tensor.WithShape(3, 2), tensor.WithBacking([]float32{1, 4, 2, 5, 3, 6}))
	require.NoError(t, view.T())
	got, err = o.Do(view)
	require.NoError(t, err)
	require.Equal(t, []float32{1, 2, 3, 4, 5, 6}, got.Data())

	require.NoError(t, x.T())
	_, err = o.Do(x)
	require.EqualError(t, err, "op.Pack: input 0: got a value of shape (3, 2), want (2, 3)")
}
