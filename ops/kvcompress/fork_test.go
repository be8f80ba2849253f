package kvcompress_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// A cache that is forked and rewound again and again, as for one answer after the other to one prompt, counts the memory it has.
func TestForksLeaveNoBytesBehind(t *testing.T) {
	m := model{1, 2, 1, 16, 16}
	for name, cfg := range schemes {
		const prompt, total = 60, 150
		c := m.new(t, total, cfg)
		_, k, v := m.tokens(1, total)
		head := func(x []float32) []float32 { return x[:prompt*16] }
		tail := func(x []float32) []float32 { return x[prompt*16:] }
		var once int64
		for round := range 12 {
			require.NoError(t, c.Append(head(k), head(v), prompt))
			f := c.Fork()
			require.NoError(t, c.Append(tail(k), tail(v), total-prompt))
			require.NoError(t, f.Append(tail(k), tail(v), total-prompt))
			c.Fork()
			wk, wv := f.Decompress()
			gk, gv := c.Decompress()
			require.Equal(t, wk, gk, name)
			require.Equal(t, wv, gv, name)
			if round == 1 {
				once = c.Bytes()
			}
			if round > 1 {
				require.Equal(t, once, c.Bytes(), "%s: round %d", name, round)
			}
			c.Reset()
		}
	}
}

// Forks go on in goroutines of their own, and are read, cut and forked again there.
func TestForksRunAtTheSameTime(t *testing.T) {
	m := model{1, 2, 1, 16, 16}
	for name, cfg := range schemes {
		const prompt, total = 75, 140
		_, k, v := m.tokens(1, total)
		q, _, _ := m.tokens(2, 1)
		step := func(c *kvcompress.Compressed) (out []float32, err error) {
			out = make([]float32, len(q))
			if err = c.Append(k[prompt*16:], v[prompt*16:], total-prompt); err != nil {
				return nil, err
			}
			if err = c.Attend(out, q, 1, m.heads, flashattn.Config{}, nil); err != nil {
				return nil, err
			}
			f := c.Fork()
			if err = c.Truncate(prompt + 1); err != nil {
				return nil, err
			}
			c.Reset()
			return out, f.Attend(make([]float32, len(q)), q, 1, m.heads, flashattn.Config{}, nil)
		}
		c := m.new(t, total, cfg)
		require.NoError(t, c.Append(k[:prompt*16], v[:prompt*16], prompt))
		forks := []*kvcompress.Compressed{c.Fork(), c.Fork(), c.Fork(), c}
		outs, errs := make([][]float32, len(forks)), make([]error, len(forks))
		var wait sync.WaitGroup
		for i, f := range forks {
			wait.Go(func() { outs[i], errs[i] = step(f) })
		}
		wait.Wait()
		for i := range forks {
			require.NoError(t, errs[i], name)
			require.Equal(t, outs[0], outs[i], name)
		}
	}
}
