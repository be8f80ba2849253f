//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

func TestEmbedding(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	testEmbedding[float32](t, s)
	testEmbedding[float64](t, s)
}

func testEmbedding[T number](t *testing.T, s *emulator.Session) {
	const vocab, dim, padding = 7, 131, 3
	ids := []int64{2, 0, 6, 2, 3, 2, 7, -1}
	n := len(ids)
	table, dy := random[T](1, vocab*dim), random[T](2, n*dim)
	every(t, s, func() any {
		y, d := make([]T, n*dim), make([]T, vocab*dim)
		require.NoError(t, s.Run("tokens", "embedding"+suffix[T](), elements(n*dim, 256), emulator.Out{y}, emulator.In{table}, emulator.In{ids},
			int64(8), int64(vocab), int64(dim), int64(n)))
		want := make([]T, vocab*dim)
		for i, id := range ids {
			for j := range dim {
				if id < 0 || id >= vocab {
					require.True(t, y[i*dim+j] != y[i*dim+j], "row %d of an id out of range", i)
					continue
				}
				require.Equal(t, table[int(id)*dim+j], y[i*dim+j])
				if id != padding {
					want[int(id)*dim+j] += dy[i*dim+j]
				}
			}
		}
		require.NoError(t, s.Run("tokens", "embedding_grad"+suffix[T](), cudamodules.Geometry{Grid: [3]int{3}, Block: [3]int{128}},
			emulator.InOut{d}, emulator.In{dy}, emulator.In{ids}, int64(8), int64(vocab), int64(dim), int64(n), int64(padding)))
		require.Equal(t, want, d)
		return d
	})
}

func TestRoPE(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, starts := range [][]int64{{0}, {1 << 30}, {5, 70000}} {
		for _, interleaved := range []int64{0, 1} {
			testRoPE[float32](t, s, starts, interleaved)
			testRoPE[float64](t, s, starts, interleaved)
		}
	}
}

func testRoPE[T number](t *testing.T, s *emulator.Session, starts []int64, interleaved int64) {
	const batch, seq, heads, width, dim, amplitude = 2, 5, 3, 11, 8, 1.25
	theta := []float64{1, 0.1, 0.01, 0.001}
	x := random[T](1, batch*seq*heads*width)
	want := wide(x)
	for token := range batch * seq {
		p := starts[0]
		if len(starts) > 1 {
			p = starts[token/seq]
		}
		p += int64(token % seq)
		for h := range heads {
			at := (token*heads + h) * width
			for i, th := range theta {
				a, b := at+i, at+i+dim/2
				if interleaved != 0 {
					a, b = at+2*i, at+2*i+1
				}
				sin, cos := math.Sincos(float64(p) * th)
				u, v := float64(x[a]), float64(x[b])
				want[a], want[b] = amplitude*(u*cos-v*sin), amplitude*(v*cos+u*sin)
			}
		}
	}
	run := func(x []T, back int64) []T {
		y := make([]T, len(x))
		require.NoError(t, s.Run("tokens", "rope"+suffix[T](), elements(batch*seq*7, 64), emulator.Out{y}, emulator.In{x}, emulator.In{starts},
			emulator.In{theta}, int64(8), int64(len(starts)), int64(batch), int64(seq), int64(heads), int64(width), int64(dim), interleaved, back, amplitude))
		return y
	}
	y := run(x, 0)
	near(t, y, want, 8*epsilon[T](), 2, "rope")
	// Back turns the pairs the other way, times the amplitude again.
	original := wide(x)
	for i := range original {
		if i%width < dim {
			original[i] *= amplitude * amplitude
		}
	}
	near(t, run(y, 1), original, 16*epsilon[T](), 2, "rope backwards")
}

// refCrossEntropy is the loss and its gradient, from the definition.
func refCrossEntropy(z []float64, targets []int64, vocab int, ignored int64, mean bool, smoothing, zloss float64) (loss float64, d []float64) {
	d = make([]float64, len(z))
	count := 0.0
	for r, target := range targets {
		if target == ignored {
			continue
		}
		count++
		row := z[r*vocab : (r+1)*vocab]
		var sum, all float64
		for _, v := range row {
			sum += math.Exp(v)
			all += v
		}
		lse := math.Log(sum)
		loss += (1-smoothing)*(lse-row[target]) + smoothing*(lse-all/float64(vocab)) + zloss*lse*lse
		for j, v := range row {
			d[r*vocab+j] = (1+2*zloss*lse)*math.Exp(v)/sum - smoothing/float64(vocab)
		}
		d[r*vocab+int(target)] -= 1 - smoothing
	}
	if mean && count > 0 {
		loss /= count
		for i := range d {
			d[i] /= count
		}
	}
	return loss, d
}

func TestCrossEntropy(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, vocab := range []int{1, 59, 700} {
		for _, mean := range []bool{true, false} {
			testCrossEntropy[float32](t, s, vocab, mean)
			testCrossEntropy[float64](t, s, vocab, mean)
		}
	}
}

func testCrossEntropy[T number](t *testing.T, s *emulator.Session, vocab int, mean bool) {
	const rows, ignored, smoothing, zloss, up = 5, -100, 0.1, 0.01, 3.0
	z := random[T](1, rows*vocab)
	targets := []int64{0, int64(vocab - 1), ignored, int64(vocab / 2), 0}
	loss, d := refCrossEntropy(wide(z), targets, vocab, ignored, mean, smoothing, zloss)
	for i := range d {
		d[i] *= up
	}
	flag := int64(0)
	if mean {
		flag = 1
	}
	grid := cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{256}}
	every(t, s, func() any {
		losses, stats, total, got := make([]float64, rows), make([]T, 2*rows), make([]T, 1), make([]T, rows*vocab)
		require.NoError(t, s.Run("tokens", "cross_entropy"+suffix[T](), grid, emulator.Out{losses}, emulator.Out{stats}, emulator.In{z},
			emulator.In{targets}, int64(8), int64(rows), int64(vocab), int64(1), int64(ignored), smoothing, zloss))
		require.NoError(t, s.Run("tokens", "cross_entropy_total"+suffix[T](), cudamodules.Geometry{Block: [3]int{256}}, emulator.Out{total},
			emulator.In{losses}, emulator.In{targets}, int64(8), int64(rows), int64(1), int64(ignored), flag))
		require.NoError(t, s.Run("tokens", "cross_entropy_grad"+suffix[T](), grid, emulator.Out{got}, emulator.In{z}, emulator.In{stats},
			emulator.In{[]T{up}}, emulator.In{targets}, int64(8), int64(rows), int64(vocab), int64(1), int64(ignored), flag, smoothing, zloss))
		near(t, total, []float64{loss}, 8*epsilon[T](), 1, "loss")
		near(t, got, d, 12*epsilon[T](), 1, "gradient")
		return []any{total, got, stats}
	})
}

func TestAdamW(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	testAdamW[float32](t, s)
	testAdamW[float64](t, s)
}

func testAdamW[T number](t *testing.T, s *emulator.Session) {
	const n, lr, b1, b2, eps, decay, c1, c2, scale = 100, 0.01, 0.9, 0.999, 1e-8, 0.1, 0.19, 0.002, 0.5
	p, m, g, v := random[T](1, n), random[T](2, n), random[T](3, n), random[T](4, n)
	wantP, wantM, wantV := make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range p {
		v[i] *= v[i]
		grad := scale * float64(g[i])
		wantM[i] = b1*float64(m[i]) + (1-b1)*grad
		wantV[i] = b2*float64(v[i]) + (1-b2)*grad*grad
		wantP[i] = float64(p[i])*(1-lr*decay) - lr/c1*wantM[i]/(math.Sqrt(wantV[i]/c2)+eps)
	}
	require.NoError(t, s.Run("tokens", "adamw"+suffix[T](), elements(n, 32), emulator.InOut{p}, emulator.InOut{m}, emulator.InOut{v},
		emulator.In{g}, int64(n), lr, b1, b2, eps, decay, c1, c2, scale))
	near(t, m, wantM, 4*epsilon[T](), 1, "m")
	near(t, v, wantV, 4*epsilon[T](), 1, "v")
	near(t, p, wantP, 8*epsilon[T](), 1, "param")
}
