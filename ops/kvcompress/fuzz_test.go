package kvcompress_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// FuzzRestore: no file makes Restore panic, and none but a whole one changes the cache.
func FuzzRestore(f *testing.F) {
	m := model{1, 1, 1, 8, 8}
	cfg := kvcompress.Config{Ratio: 8, Recent: 16, GroupSize: 16, SinkTokens: 1}
	c := m.new(f, 80, cfg)
	_, k, v := m.tokens(1, 60)
	require.NoError(f, c.Append(k, v, 60))
	path := filepath.Join(f.TempDir(), "seed")
	require.NoError(f, c.Save(path))
	data, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:50])
	f.Add([]byte("sthenkv1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		r := m.new(t, 80, cfg)
		if err := r.Restore(path); err != nil {
			require.Zero(t, r.Len())
			return
		}
		r.Decompress()
		if r.Len() > 0 {
			require.NoError(t, r.Attend(make([]float32, 8), k[:8], 1, 1, flashattn.Config{}, nil))
		}
	})
}

// FuzzOperations: whatever is done to a cache, it holds the tokens it should, recent ones and sinks as they were, the others within a
// code's distance, counting the second rounding after a rollback.
func FuzzOperations(f *testing.F) {
	f.Add([]byte{9, 200, 30, 140, 5, 60, 250, 3}, uint8(1))
	f.Add([]byte{100, 20, 199, 201, 180, 77, 1, 1, 1}, uint8(2))
	f.Add([]byte{255, 129, 64, 131, 64, 133, 64, 192, 250}, uint8(0))
	f.Fuzz(func(t *testing.T, ops []byte, ratio uint8) {
		m := model{1, 1, 1, 16, 16}
		cfg := kvcompress.Config{Ratio: 2 << (ratio % 3), Recent: 20, GroupSize: 16, SinkTokens: int(ratio) % 5}
		const capacity = 160
		c := m.new(t, capacity, cfg)
		wantK, wantV := []float32{}, []float32{}
		for step, op := range ops[:min(len(ops), 40)] {
			switch n := int(op & 127); {
			case op < 128: // append
				_, k, v := m.tokens(uint64(step), max(1, n))
				err := c.Append(k, v, max(1, n))
				if len(wantK)/16+max(1, n) > capacity {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
					wantK, wantV = append(wantK, k...), append(wantV, v...)
				}
			case op < 192: // forget
				keep := max(0, len(wantK)/16-n)
				require.NoError(t, c.Truncate(keep))
				wantK, wantV = wantK[:16*keep], wantV[:16*keep]
			default:
				f := c.Fork()
				_, k, v := m.tokens(1, 1)
				_ = c.Append(k, v, 1)
				c = f
			}
			require.Equal(t, len(wantK)/16, c.Len())
			k, v := c.Decompress()
			require.Len(t, k, len(wantK))
			sinks := min(16*cfg.SinkTokens, len(k))
			require.Equal(t, wantK[:sinks], k[:sinks])
			require.Equal(t, wantV[:sinks], v[:sinks])
			for i := range k {
				// Keys are of size 3, but for the last channel, of size 30; 4 bits leave a fifteenth of the range of a rotated token.
				require.LessOrEqual(t, math.Abs(float64(k[i]-wantK[i])), 12.0)
				require.LessOrEqual(t, math.Abs(float64(v[i]-wantV[i])), 1.5)
			}
			if c.Len() > 0 {
				m.checkAttend(t, "attend", c, wantK[:16], 1, nil, flashattn.Config{}, nil)
			}
		}
	})
}
