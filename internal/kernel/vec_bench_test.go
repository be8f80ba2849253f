package kernel

import (
	"fmt"
	"testing"
)

// perElement reports the time of one element; bytes that move are left to the reader.
func perElement(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/elem")
}

func BenchmarkElementwise(b *testing.B) {
	const n = 3072 // hot in the first-level cache
	x, y, z, w := allOf(n, 0.3), allOf(n, 0.1), allOf(n, 0.2), allOf(n, 0.5)
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"exp", func() { Exp(y, x) }},
		{"tanh", func() { Tanh(y, x) }},
		{"sigmoid", func() { Sigmoid(y, x) }},
		{"geluErf", func() { GeluErf(y, x) }},
		{"geluErfGrad", func() { GeluErfGrad(y, x, z) }},
		{"geluTanh", func() { GeluTanh(y, x) }},
		{"geluTanhGrad", func() { GeluTanhGrad(y, x, z) }},
		{"silu", func() { Silu(y, x) }},
		{"swiglu", func() { SwiGLU(y, x, z) }},
		{"add", func() { Add(y, x, z) }},
		{"sum", func() { Sum(x) }},
		{"dot", func() { Dot(x, y) }},
		{"max", func() { Max(x) }},
		{"sumExp", func() { SumExp(x, 0.3) }},
		{"dropout", func() { DropoutRow(y, x, 7, 3, 0.9) }},
		{"adamw", func() {
			AdamW(x, y, z, w, AdamWConfig{Beta1: 1, Beta2: 1, BiasCorr1: 1, BiasCorr2: 1, Eps: 1e-8})
		}},
		{"rotate", func() { Rotate(z, y, z, y, x, w) }},
	} {
		b.Run("op="+c.name, func(b *testing.B) {
			for b.Loop() {
				c.run()
			}
			perElement(b, n)
		})
	}
}

func BenchmarkSoftmaxStep(b *testing.B) {
	for _, n := range []int{16, 64, 250, 256} {
		b.Run(fmt.Sprintf("rows=96/n=%d", n), func(b *testing.B) {
			const rows = 96
			s := make([]float32, rows*n)
			for i := range s {
				s[i] = float32(i%17) - 12
			}
			m, l, a := allOf(rows, 0), allOf(rows, 0), allOf(rows, 0)
			for b.Loop() {
				// The output is scores again, between 0 and 1: nothing needs restoring.
				SoftmaxStep(s, n, rows, n, m, l, a)
			}
			perElement(b, rows*n)
		})
	}
}

func BenchmarkNormRow(b *testing.B) {
	const n = 768
	x, y, g := allOf(n, 0.3), allOf(n, 0.1), allOf(n, 1)
	b.Run("op=layerNorm", func(b *testing.B) {
		for b.Loop() {
			LayerNormRow(y, x, g, g, 1e-5)
		}
		perElement(b, n)
	})
	b.Run("op=layerNormGrad", func(b *testing.B) {
		dg, db := allOf(n, 0), allOf(n, 0)
		for b.Loop() {
			LayerNormGradRow(y, dg, db, x, x, g, 0.1, 1)
		}
		perElement(b, n)
	})
	b.Run("op=rmsNorm", func(b *testing.B) {
		for b.Loop() {
			RMSNormRow(y, x, g, 1e-5)
		}
		perElement(b, n)
	})
}
