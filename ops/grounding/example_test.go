package grounding_test

import (
	"fmt"
	"image"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops/grounding"
)

func matrix(g *G.ExprGraph, name string, rows, cols int, data ...float32) *G.Node {
	v := tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
	return G.NewMatrix(g, tensor.Float32, G.WithShape(rows, cols), G.WithName(name), G.WithValue(v))
}

// Two tokens, a picture of 2 × 2 patches whose vectors are what they show.
func ExampleGround() {
	g := G.NewGraph()
	tokens := matrix(g, "tokens", 2, 2, 1, 0, 0, 1)
	patches := matrix(g, "patches", 4, 2, 2, 0, 0, 1, 3, 0, 1, 1)
	scores, err := grounding.Ground(tokens, patches, nil, grounding.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	grid, _ := grounding.NewGrid(2, 2, image.Rect(0, 0, 64, 64))
	found, err := grounding.Results(scores.Value(), grid, grounding.ResultConfig{Threshold: 0.8, Labels: []string{"red", "blue"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range found {
		fmt.Printf("%s: at most %.1f, patches %v, box %v\n", r.Label, r.Max, r.Patches, r.Boxes[0].Rectangle)
	}
	// Output:
	// red: at most 1.0, patches [0 2], box (0,0)-(32,64)
	// blue: at most 1.0, patches [1], box (32,0)-(64,32)
}

// Values for Pool that are patch centres tell where each token looks.
func ExamplePool() {
	g := G.NewGraph()
	tokens := matrix(g, "tokens", 1, 2, 1, 0)
	patches := matrix(g, "patches", 4, 2, -1, 0, 1, 0, -1, 0, -1, 0)
	grid, _ := grounding.NewGrid(2, 2, image.Rect(0, 0, 64, 64))
	centres := G.NewMatrix(g, tensor.Float32, G.WithShape(4, 2), G.WithName("centres"), G.WithValue(grid.Centres()))
	place, err := grounding.Pool(tokens, patches, nil, centres, grounding.Config{Temperature: 0.1})
	if err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.2f\n", place.Value().Data())
	// Output: [0.75 0.25]
}

func ExampleEvaluate() {
	grid, _ := grounding.NewGrid(2, 1, image.Rect(0, 0, 32, 16))
	maps := tensor.New(tensor.WithShape(1, 2), tensor.WithBacking([]float32{0.9, 0.2}))
	found, _ := grounding.Results(maps, grid, grounding.ResultConfig{})
	report, err := grounding.Evaluate([]grounding.Phrase{{Result: found[0], Truth: []image.Rectangle{image.Rect(0, 0, 20, 16)}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("pointing %.0f, mean IoU %.1f\n", report.All.Pointing, report.All.MeanIoU)
	// Output: pointing 1, mean IoU 0.8
}
