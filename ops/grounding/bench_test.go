package grounding

import (
	"fmt"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/internal/parallel"
)

// BenchmarkGround is the matrix form without projection: 2·tokens·patches·dim operations; normalising counts for nothing. Results are
// handed back after each run, as models do it; kept ones stay with whoever asked for them, and each run gets fresh memory.
func BenchmarkGround(b *testing.B) {
	const dim = 512
	for _, s := range [][2]int{{32, 196}, {77, 2304}} {
		for _, kept := range []string{"", "/kept"} {
			b.Run(fmt.Sprintf("tokens=%d/patches=%d%s", s[0], s[1], kept), func(b *testing.B) {
				run, release := forwardOnly(b, func(n []*G.Node) (*G.Node, error) { return Ground(n[0], n[1], nil, Config{}) },
					optest.Seeded("x", 1, s[0], dim), optest.Seeded("y", 2, s[1], dim))
				optest.FLOPs(2*float64(s[0]*s[1]*dim), parallel.Threads()).Run(b, func() {
					run()
					if kept == "" {
						release()
					}
				})
			})
		}
	}
}

// BenchmarkPool is the streamed form: 2·tokens·patches·(dim + values) operations, and the scratch it needs.
func BenchmarkPool(b *testing.B) {
	const dim, values = 64, 4
	for _, s := range [][2]int{{77, 2304}, {4096, 16384}} {
		b.Run(fmt.Sprintf("tokens=%d/patches=%d", s[0], s[1]), func(b *testing.B) {
			parallel.ReleaseScratch()
			run, _ := forwardOnly(b, func(n []*G.Node) (*G.Node, error) { return Pool(n[0], n[1], nil, n[2], Config{Temperature: 0.1}) },
				optest.Seeded("x", 1, s[0], dim), optest.Seeded("y", 2, s[1], dim), optest.Seeded("v", 3, s[1], values))
			optest.FLOPs(2*float64(s[0]*s[1]*(dim+values)), parallel.Threads()).Run(b, run)
			b.ReportMetric(float64(parallel.ScratchBytes())/(1<<20), "scratch-MiB")
		})
	}
}

// forwardOnly returns a run of a graph, and what hands its results back.
func forwardOnly(b *testing.B, build func([]*G.Node) (*G.Node, error), in ...optest.Input) (run, release func()) {
	g := G.NewGraph()
	nodes := make([]*G.Node, len(in))
	for i := range in {
		nodes[i] = in[i].Node(g, tensor.Float32)
	}
	out, err := build(nodes)
	if err != nil {
		b.Fatal(err)
	}
	results := op.NewRecycler(g, G.Nodes{out}, nil)
	vm := G.NewTapeMachine(g)
	b.Cleanup(func() { vm.Close() })
	return func() {
		vm.Reset()
		if err := vm.RunAll(); err != nil {
			b.Fatal(err)
		}
	}, results.Release
}
