//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules/emulator"
)

// unary are the functions of elemunaryop, with the error in units of half an ulp that they are held to (1 is correctly rounded).
var unary = map[string]struct {
	f      func(float64) float64
	inputs func() []float64
	units  float64
}{
	"abs":      {math.Abs, anywhere, 0},
	"sign":     {func(x float64) float64 { return math.Copysign(1, x) }, numbers, 0},
	"ceil":     {math.Ceil, anywhere, 0},
	"floor":    {math.Floor, anywhere, 0},
	"sin":      {math.Sin, angles, 4},
	"cos":      {math.Cos, angles, 4},
	"exp":      {math.Exp, anywhere, 3},
	"ln":       {math.Log, anywhere, 3},
	"log2":     {log2, anywhere, 4},
	"neg":      {func(x float64) float64 { return -x }, anywhere, 0},
	"square":   {func(x float64) float64 { return x * x }, anywhere, 1},
	"sqrt":     {math.Sqrt, anywhere, 1},
	"inv":      {func(x float64) float64 { return 1 / x }, anywhere, 1},
	"invSqrt":  {func(x float64) float64 { return 1 / math.Sqrt(x) }, anywhere, 3},
	"cube":     {func(x float64) float64 { return x * x * x }, anywhere, 3},
	"tanh":     {math.Tanh, anywhere, 6},
	"sigmoid":  {func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, anywhere, 6},
	"log1p":    {math.Log1p, anywhere, 6},
	"expm1":    {math.Expm1, anywhere, 4},
	"softplus": {softplus, anywhere, 6},
}

// log2 is math.Log2, which takes the difference of an integer and a logarithm, and so loses digits next to 1.
func log2(x float64) float64 {
	if x > 0.5 && x < 2 {
		return math.Log(x) / math.Ln2
	}
	return math.Log2(x)
}

func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// numbers are of all sizes and both signs. (709.4 and 1e-307, because on
// amd64 Go's own Exp overflows early and its Log gets float64 below the normal numbers wrong.)
func numbers() []float64 {
	x := []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 2, 88.5, 89, -88, -103.9, -104.1, 709.4, -745, 1e-40, -1e-40, 1e-307, 1e30, -1e30, 3e-5}
	for _, v := range random[float64](1, 200) {
		x = append(x, v, 10*v, 40*v, v*1e-4, math.Exp(20*v))
	}
	return x
}

func anywhere() []float64 { return append(numbers(), math.Inf(1), math.Inf(-1), math.NaN()) }

func angles() []float64 {
	x := []float64{0, math.Pi / 2, math.Pi, 1e5, -1e5, math.NaN(), math.Inf(1)}
	for _, v := range random[float64](2, 500) {
		x = append(x, v, 1000*v, 1e-4*v)
	}
	return x
}

func TestUnary(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	testUnary[float32](t, s)
	testUnary[float64](t, s)
}

func testUnary[T number](t *testing.T, s *emulator.Session) {
	for name, c := range unary {
		var x []T
		var want []float64
		for _, v := range c.inputs() {
			x = append(x, T(v))
			want = append(want, c.f(float64(T(v))))
		}
		kernel := name + suffix[T]()
		require.NoError(t, s.Run("elemunaryop", kernel, elements(len(x), 64), emulator.InOut{x}, int64(len(x))))
		// Below the normal numbers the error is that of their smallest.
		tiny := 0x1p-125
		if suffix[T]() == "_f64" {
			tiny = 0x1p-1021
		}
		if name == "sin" || name == "cos" {
			tiny = 1e-3 // relative to 1e-3 next to the zeros, where what is left of the argument decides
		}
		near(t, x, want, c.units*epsilon[T](), tiny, kernel)
	}
}

var binary = map[string]func(a, b float64) float64{
	"add": func(a, b float64) float64 { return a + b },
	"sub": func(a, b float64) float64 { return a - b },
	"mul": func(a, b float64) float64 { return a * b },
	"div": func(a, b float64) float64 { return a / b },
	"pow": math.Pow,
	"lt":  func(a, b float64) float64 { return truth(a < b) },
	"gt":  func(a, b float64) float64 { return truth(a > b) },
	"lte": func(a, b float64) float64 { return truth(a <= b) },
	"gte": func(a, b float64) float64 { return truth(a >= b) },
	"eq":  func(a, b float64) float64 { return truth(a == b) },
	"ne":  func(a, b float64) float64 { return truth(a != b) },
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func TestBinary(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	testBinary[float32](t, s)
	testBinary[float64](t, s)
}

func testBinary[T number](t *testing.T, s *emulator.Session) {
	edges := []float64{0, math.Copysign(0, -1), 1, -1, 2, 3, -3, 0.5, -0.5, 1e10, 2.5, math.Inf(1), math.Inf(-1), math.NaN(), 1e-40, 7}
	var a, b []T
	for _, x := range edges {
		for _, y := range edges {
			a, b = append(a, T(x)), append(b, T(y))
		}
	}
	r := random[float64](3, 400)
	for i := 0; i < len(r); i += 2 {
		a, b = append(a, T(math.Exp(3*r[i]))), append(b, T(10*r[i+1]))
	}
	n := len(a)
	for name, f := range binary {
		units := 1.0
		if name == "pow" {
			// Against 40 digits the kernel is within 1.5 half ulps; Go's own Pow is off by up to 6.
			units = 10
		}
		want := make([]float64, n)
		run := func(form string, out []T, params ...any) {
			kernel := name + "_" + form + suffix[T]()
			require.NoError(t, s.Run("elembinop", kernel, elements(n, 96), append(params, int64(len(out)))...))
			near(t, out, want[:len(out)], units*epsilon[T](), 0x1p-125, kernel)
		}
		for i := range want {
			want[i] = f(float64(a[i]), float64(b[i]))
		}
		out := append([]T(nil), a...)
		run("vv", out, emulator.InOut{out}, emulator.In{b})
		for i := range want {
			want[i] = f(float64(a[i]), float64(b[260]))
		}
		out = append([]T(nil), a...)
		run("vs", out, emulator.InOut{out}, emulator.In{b[260:261]})
		for i := range want {
			want[i] = f(float64(a[260]), float64(b[i]))
		}
		out = append([]T(nil), b...)
		run("sv", out, emulator.In{a[260:261]}, emulator.InOut{out})
		want[0] = f(float64(a[300]), float64(b[300]))
		out = append([]T(nil), a[300])
		run("ss", out, emulator.InOut{out}, emulator.In{b[300:301]})
	}
}

// The activations, against the portable formulas in float64.
func TestActivations(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	testActivations[float32](t, s)
	testActivations[float64](t, s)
}

const root2OverPi = 0.79788456080286535587989211986876

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

var activations = map[string]struct{ f, slope func(x float64) float64 }{
	"relu": {func(x float64) float64 { return max(x, 0) }, func(x float64) float64 { return truth(!(x <= 0)) }},
	"gelu": {
		func(x float64) float64 { return max(x, -40) * 0.5 * math.Erfc(-x/math.Sqrt2) },
		func(x float64) float64 {
			x = max(-40, min(40, x))
			return 0.5*math.Erfc(-x/math.Sqrt2) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
		},
	},
	"gelu_tanh": {
		func(x float64) float64 {
			x = max(x, -40)
			return x * sigmoid(2*root2OverPi*(x+0.044715*x*x*x))
		},
		func(x float64) float64 {
			x = max(-40, min(40, x))
			z := 2 * root2OverPi * (x + 0.044715*x*x*x)
			return sigmoid(z) + x*sigmoid(z)*sigmoid(-z)*2*root2OverPi*(1+3*0.044715*x*x)
		},
	},
	"silu": {silu, siluSlope},
}

func silu(x float64) float64 { return max(x, -750) * sigmoid(max(x, -750)) }
func siluSlope(x float64) float64 {
	x = max(-750, min(750, x))
	return sigmoid(x) * (1 + x*sigmoid(-x))
}

func testActivations[T number](t *testing.T, s *emulator.Session) {
	var x []T
	for _, v := range anywhere() {
		x = append(x, T(v))
	}
	n := len(x)
	dy := random[T](5, n)
	up := random[T](6, n)
	y, dx := make([]T, n), make([]T, n)
	want, slope := make([]float64, n), make([]float64, n)
	check := func(got []T, want []float64, what string) {
		t.Helper()
		// As internal/kernel promises: relative, or absolute next to 0, where the tails are.
		near(t, got, want, 12*epsilon[T](), 0.3, what)
	}
	for name, c := range activations {
		for i, v := range x {
			want[i] = c.f(float64(v))
			slope[i] = c.slope(float64(v)) * float64(dy[i])
		}
		kernel := name + suffix[T]()
		require.NoError(t, s.Run("act", kernel, elements(n, 96), emulator.Out{y}, emulator.In{x}, int64(n)))
		check(y, want, kernel)
		kernel = name + "_grad" + suffix[T]()
		require.NoError(t, s.Run("act", kernel, elements(n, 96), emulator.Out{dx}, emulator.In{x}, emulator.In{dy}, int64(n)))
		if name == "relu" {
			for i, v := range x {
				if v != v {
					slope[i] = float64(dy[i])
				}
			}
		}
		check(dx, slope, kernel)
	}
	x = x[:19+1000] // finite ones: a product with an infinity is another question
	for i, v := range x {
		x[i] = max(-1e6, min(1e6, v))
		want[i] = silu(float64(x[i])) * float64(up[i])
	}
	n = len(x)
	dup := make([]T, n)
	require.NoError(t, s.Run("act", "swiglu"+suffix[T](), elements(n, 32), emulator.Out{y[:n]}, emulator.In{x}, emulator.In{up[:n]}, int64(n)))
	check(y[:n], want[:n], "swiglu")
	require.NoError(t, s.Run("act", "swiglu_grad"+suffix[T](), elements(n, 32), emulator.Out{dx[:n]}, emulator.Out{dup},
		emulator.In{x}, emulator.In{up[:n]}, emulator.In{dy[:n]}, int64(n)))
	for i := range n {
		want[i] = float64(dy[i]) * float64(up[i]) * siluSlope(float64(x[i]))
		slope[i] = float64(dy[i]) * silu(float64(x[i]))
	}
	check(dx[:n], want[:n], "dgate")
	check(dup, slope[:n], "dup")
	require.NoError(t, s.Run("act", "add"+suffix[T](), elements(n, 32), emulator.Out{y[:n]}, emulator.In{x}, emulator.In{up[:n]}, int64(n)))
	for i := range n {
		want[i] = float64(x[i] + up[i])
	}
	check(y[:n], want[:n], "add")
}
