// Command attention composes grouped, causal, windowed attention in a Gorgonia graph and takes its gradients: the lines that
// the README opens with.
package main

import (
	"fmt"
	"log"

	G "gorgonia.org/gorgonia"

	"stheno/ops/flashattn"
)

func main() {
	g := G.NewGraph()
	input := func(name string, heads int) *G.Node { // (batch, sequence, heads, width of a head)
		return G.NewTensor(g, G.Float32, 4, G.WithName(name), G.WithShape(1, 1024, heads, 64), G.WithInit(G.Gaussian(0, 1)))
	}
	q, k, v := input("q", 8), input("k", 2), input("v", 2)
	out := G.Must(flashattn.Attend(q, k, v, flashattn.Config{Causal: true, Window: flashattn.Sliding(256)}))
	grads, err := G.Grad(G.Must(G.Mean(G.Must(G.Square(out)))), q, k, v)
	if err == nil {
		err = G.NewTapeMachine(g).RunAll()
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Shape(), grads[1].Shape())
}
