package cudamodules

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"time"
)

// WarpgroupsVar names the environment variable that says when a card's attention is computed by warpgroups (WarpgroupAttention): "check",
// the default, is when the card has compute capability 9.0 and has computed two small problems rightly, "on" is without these problems, and
// "off" is never.
const WarpgroupsVar = "STHENO_WARPGROUPS"

// verdict is what a check has come to.
type verdict struct {
	ok  bool
	why string
}

// Warpgroups says whether to use WarpgroupAttention on the card, and why. Whoever asks first, in this process, has the card compute two small
// problems of random numbers, in a context of its own, and compares with the host; what does not agree, end or run is logged, and not used.
// After some faults of a kernel the driver may refuse the process whatever comes then, in other contexts too: there WarpgroupsVar=off helps.
func (d *Device) Warpgroups() (ok bool, why string) {
	mode := os.Getenv(WarpgroupsVar)
	switch mode {
	case "", "check", "on":
	case "off":
		return false, WarpgroupsVar + " is off"
	default:
		return false, fmt.Sprintf("got %s=%q, want on, off or check", WarpgroupsVar, mode)
	}
	capability, err := d.Capability()
	if err != nil {
		return false, err.Error()
	}
	if capability != 90 {
		return false, fmt.Sprintf("got compute capability %d.%d, want 9.0", capability/10, capability%10)
	}
	if mode == "on" {
		return true, WarpgroupsVar + " is on: not checked"
	}
	w := &d.driver.warpgroups
	w.Lock()
	defer w.Unlock()
	v, known := w.verdicts[d.id]
	if !known {
		if v.why, err = d.checkWarpgroups(); err != nil {
			v.why = "the check failed: " + err.Error()
			log.Printf("cudamodules: %s: attention by warpgroups is not used: %s", d.name, v.why)
		}
		v.ok = err == nil
		if w.verdicts == nil {
			w.verdicts = map[int32]verdict{}
		}
		w.verdicts[d.id] = v
	}
	return v.ok, v.why
}

// checkTime is how long the check waits for the card; it is another in a test.
var checkTime = time.Minute

// checkWarpgroups computes problems whose tiles fill every slot three times, and a window.
func (d *Device) checkWarpgroups() (agrees string, err error) {
	c, err := d.ownContext()
	if err != nil {
		return "", err
	}
	hangs := false
	defer func() {
		if hangs {
			return // Close would wait for it, as would anything else that gives memory back
		}
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	m, err := c.Load(WarpgroupModule)
	if err != nil {
		return "", err
	}
	stream, err := c.Stream()
	if err != nil {
		return "", err
	}
	var worst float64
	for i, dim := range []int{64, 128} {
		a := WarpgroupAttention{Batch: 1, SeqQ: 140, SeqKV: 700, Heads: 2, KVHeads: 1, Dim: dim, DimV: dim, Left: 1 << 40, Scale: 1 / math.Sqrt(float64(dim)),
			Patience: 20000}
		if i == 1 {
			a.Left = 500
		}
		e, err := a.check(c, m, stream)
		if errors.Is(err, context.DeadlineExceeded) {
			hangs = true
		}
		if err != nil {
			return "", fmt.Errorf("dim %d: %w", dim, err)
		}
		worst = max(worst, e)
	}
	return fmt.Sprintf("it agrees with the host, within %.2g of the bound", worst), nil
}

// check computes the problem with random numbers. It returns the largest error as a share of what rounding may do: each weight is off by
// 2⁻⁹ of itself at most, so a result by 2⁻⁹ of the largest value; twice that is the bound. Log-sum-exps have errors of float32 sums.
// What it takes of the card is given back with the context: to free memory is to wait for kernels, and they may not end.
func (a WarpgroupAttention) check(c *Context, m *Module, s *Stream) (float64, error) {
	q, k, v := randomBF16(a.Batch*a.SeqQ*a.Heads*a.Dim), randomBF16(a.Batch*a.SeqKV*a.KVHeads*a.Dim), randomBF16(a.Batch*a.SeqKV*a.KVHeads*a.DimV)
	out, lse := make([]float32, a.Batch*a.SeqQ*a.Heads*a.DimV), make([]float32, a.Batch*a.Heads*a.SeqQ)
	slices := [][]float32{q, k, v, out, lse}
	var at [5]Ptr
	for i, x := range slices {
		p, err := c.Alloc(4 * int64(len(x)))
		if err != nil {
			return 0, err
		}
		at[i] = p
		if i < 3 {
			err = Upload(c, p, x)
		} else {
			err = c.Set(p, 0xff, 4*int64(len(x)), nil)
		}
		if err != nil {
			return 0, err
		}
	}
	scratch, err := c.Alloc(a.ScratchBytes())
	if err != nil {
		return 0, err
	}
	if err := c.Synchronize(); err != nil { // the stream does not wait for others
		return 0, err
	}
	err = a.Launch(func(_, kernel string, g Geometry, params ...any) error {
		f, err := m.Function(kernel)
		if err != nil {
			return err
		}
		g.Stream = s
		return f.Launch(g, KernelParams(params)...)
	}, scratch, at[3], at[4], nil, at[0], at[1], at[2], nil)
	if err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	if err := s.Wait(wait); err != nil {
		return 0, err
	}
	for i := 3; i < 5; i++ {
		if err := Download(c, slices[i], at[i]); err != nil {
			return 0, err
		}
	}
	wantOut, wantLSE := a.onHost(q, k, v)
	var most, worst float64
	for _, x := range v {
		most = max(most, math.Abs(float64(x)))
	}
	compare := func(what string, got []float32, want []float64, bound float64) error {
		for i, w := range want {
			e := math.Abs(float64(got[i])-w) / bound
			if !(e <= 1) {
				return fmt.Errorf("%s %d: got %v, want %v ± %.2g", what, i, got[i], w, bound)
			}
			worst = max(worst, e)
		}
		return nil
	}
	if err := compare("result", out, wantOut, 2*most*0x1p-9); err != nil {
		return 0, err
	}
	return worst, compare("log-sum-exp", lse, wantLSE, 1e-4)
}

// randomBF16 are numbers from the normal distribution, rounded to BF16.
func randomBF16(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		b := math.Float32bits(float32(rand.NormFloat64()))
		x[i] = math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
	}
	return x
}

// onHost is the problem's definition in float64, without rounding.
func (a WarpgroupAttention) onHost(q, k, v []float32) (out, lse []float64) {
	out, lse = make([]float64, a.Batch*a.SeqQ*a.Heads*a.DimV), make([]float64, a.Batch*a.Heads*a.SeqQ)
	x := make([]float64, a.SeqKV)
	for r := range a.Batch * a.Heads * a.SeqQ {
		i, h, b := r%a.SeqQ, r/a.SeqQ%a.Heads, r/a.SeqQ/a.Heads
		kh, p := h/(a.Heads/a.KVHeads), i+a.SeqKV-a.SeqQ
		from, end := max(p-a.Left, 0), min(p+a.Right+1, a.SeqKV)
		row, to := q[((b*a.SeqQ+i)*a.Heads+h)*a.Dim:][:a.Dim], out[((b*a.SeqQ+i)*a.Heads+h)*a.DimV:][:a.DimV]
		top, sum := math.Inf(-1), 0.
		for j := from; j < end; j++ {
			x[j] = 0
			for e, y := range k[((b*a.SeqKV+j)*a.KVHeads+kh)*a.Dim:][:a.Dim] {
				x[j] += float64(row[e]) * float64(y) * a.Scale
			}
			top = max(top, x[j])
		}
		for j := from; j < end; j++ {
			w := math.Exp(x[j] - top)
			sum += w
			for e, y := range v[((b*a.SeqKV+j)*a.KVHeads+kh)*a.DimV:][:a.DimV] {
				to[e] += w * float64(y)
			}
		}
		lse[r] = top + math.Log(sum)
		if sum > 0 {
			for e := range to {
				to[e] /= sum
			}
		}
	}
	return out, lse
}

// KernelParams are parameters of Launch with integers of 8 bytes in the place of int, and the nil Ptr in that of nil.
func KernelParams(params []any) []any {
	out := make([]any, len(params))
	for i, p := range params {
		switch p := p.(type) {
		case nil:
			out[i] = Ptr(0)
		case int:
			out[i] = int64(p)
		default:
			out[i] = p
		}
	}
	return out
}
