//go:build cuda

package op

import (
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// TestPackLeavesInputs: what packOp hands on, a model's weights for one, is not recycled.
func TestPackLeavesInputs(t *testing.T) {
	defer Poison()()
	weights := []float32{1, 2, 3}
	g := G.NewGraph()
	x := G.NewVector(g, tensor.Float32, G.WithName("x"), G.WithShape(3), G.WithValue(tensor.New(tensor.WithShape(3), tensor.WithBacking(weights))))
	_, err := G.ApplyOp(&packOp{NewBase("op.Pack", nil, x.Shape(), x.Dtype(), x)}, x)
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	r := NewRecycler(g, nil, nil)
	require.NoError(t, vm.RunAll())
	vm.Reset()
	r.Release()
	require.Equal(t, []float32{1, 2, 3}, weights)
}
