package kvcompress_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"

	"stheno/internal/optest"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// sealed is the contents of a file with a right checksum.
func sealed(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(append([]byte(nil), data...), sum[:]...)
}

// A restored cache keeps the same tokens, and goes on as the one that was saved does: before tokens were evicted, after, and between
// Append and Attend.
func TestEvictingSaveAndRestore(t *testing.T) {
	m := model{2, 4, 2, 16, 8}
	const total = 140
	cfg := kvcompress.Config{Budget: 30, Recent: 10, SinkTokens: 2, Model: "test"}
	q, k, v := m.tokens(3, total)
	path := filepath.Join(t.TempDir(), "cache")
	for _, at := range []int{0, 1, 25, 100} {
		c := m.evicting(t, total, cfg)
		for i := range at {
			m.step(t, c, q, k, v, total, i, 1)
		}
		part := func(x []float32, width, n int) []float32 { return m.part(x, total, at, n, width) }
		require.NoError(t, c.AppendSome(part(k, 32, 3), part(v, 16, 3), 3, []int{3, 1}))
		require.NoError(t, c.Save(path))
		r := m.evicting(t, total, cfg)
		m.step(t, r, q, k, v, total, 5, 20) // what was there before is gone
		require.NoError(t, r.Restore(path))
		require.Equal(t, c.Bytes(), r.Bytes())
		outs := [2][]float32{make([]float32, 2*3*32), make([]float32, 2*3*32)}
		for i, x := range []*kvcompress.Evicting{c, r} {
			require.NoError(t, x.AttendSome(outs[i], part(q, 64, 3), 3, 4, []int{3, 1}, flashattn.Config{}, nil))
		}
		require.Equal(t, outs[0], outs[1])
		for i := at + 3; i < at+30; i++ {
			require.Equal(t, m.step(t, c, q, k, v, total, i, 1), m.step(t, r, q, k, v, total, i, 1))
		}
		for b := range 2 {
			for h := range 2 {
				want, err := c.Kept(b, h)
				require.NoError(t, err)
				got, err := r.Kept(b, h)
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		}
	}
}

// TestEvictingSavesEveryState: whatever appending, attending and truncating, in any order, leave behind is restored.
func TestEvictingSavesEveryState(t *testing.T) {
	m := model{2, 2, 2, 4, 4}
	const total = 120
	path := filepath.Join(t.TempDir(), "cache")
	for seed := range uint64(12) {
		numbers := optest.Ints(seed+1, 1000, 1<<20)
		next := func(n int) int {
			x := numbers[0]
			numbers = numbers[1:]
			return x % n
		}
		cfg := kvcompress.Config{Budget: 8 + next(10), Recent: 1 + next(4), SinkTokens: next(4)}
		c := m.evicting(t, total, cfg)
		for range 25 {
			switch next(6) {
			case 0: // refused where tokens between are evicted
				_ = c.TruncateEach([]int{next(c.LenOf(0) + 1), next(c.LenOf(1) + 1)})
			case 1:
				_ = c.Truncate(next(c.Len() + 1))
			default:
				seq := min(1+next(9), total-c.Len())
				if seq == 0 {
					continue
				}
				counts := []int{next(seq + 1), next(seq + 1)}
				x := func() []float32 { return optest.Normal[float32](uint64(next(1<<20)), 2*seq*2*4, 2) }
				require.NoError(t, c.AppendSome(x(), x(), seq, counts))
				if next(3) > 0 {
					q := x()
					require.NoError(t, c.AttendSome(make([]float32, len(q)), q, seq, 2, counts, flashattn.Config{}, nil))
				}
			}
			require.NoError(t, c.Save(path))
			r := m.evicting(t, total, cfg)
			require.NoError(t, r.Restore(path), "seed %d", seed)
			if next(2) == 0 {
				c = r
			}
		}
	}
}

func TestEvictingRestoreRefuses(t *testing.T) {
	m := model{1, 1, 1, 4, 4}
	cfg := kvcompress.Config{Budget: 8, Recent: 3, SinkTokens: 1, Model: "test"}
	const total = 40
	q, k, v := m.tokens(3, total)
	c := m.evicting(t, total, cfg)
	for at := range 20 {
		m.step(t, c, q, k, v, total, at, 1)
	}
	path := filepath.Join(t.TempDir(), "cache")
	require.NoError(t, c.Save(path))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	body := data[:len(data)-sha256.Size]
	r := m.evicting(t, total, cfg)
	m.step(t, r, q, k, v, total, 0, 7)
	refused := func(want string, x *kvcompress.Evicting, data []byte) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, data, 0o600))
		n := x.Len()
		require.ErrorContains(t, x.Restore(path), want)
		require.Equal(t, n, x.Len())
	}
	for _, i := range []int{8, 12, 40, len(data) / 2, len(data) - 1} {
		bad := append([]byte(nil), data...)
		bad[i] ^= 4
		refused("damaged", r, bad)
	}
	refused("want a saved cache", r, data[1:])
	other := cfg
	other.Model = "other"
	refused(`got a cache of model "test", want "other"`, m.evicting(t, total, other), data)
	other = cfg
	other.Budget++
	refused("got a cache with {Ratio:1", m.evicting(t, total, other), data)
	refused("of shape", m.evicting(t, total+1, cfg), data)
	compressed := m.new(t, total, kvcompress.Config{Ratio: 4})
	require.ErrorContains(t, compressed.Restore(path), "want a saved cache", "another kind of cache")

	// What a right checksum vouches for may still be what no cache holds.
	require.Contains(t, string(body), `"Len":20,"Held":8,"Fresh":0`)
	for from, to := range map[string]string{`"Len":20`: `"Len":41`, `"Held":8`: `"Held":9`, `"Fresh":0`: `"Fresh":9`, `"Held":8,`: `"Held":-8`} {
		bad := bytes.Replace(body, []byte(from), []byte(to), 1)
		binary.LittleEndian.PutUint32(bad[8:], binary.LittleEndian.Uint32(body[8:])+uint32(len(to)-len(from)))
		refused("", r, sealed(bad))
	}
	slots := len(body) - 8*12 // of the 8 slots, 4 bytes of a position and 8 of a weight
	for i, want := range map[int]string{0: "which no cache of 20 tokens has", 3: "twice", 7: ""} {
		bad := append([]byte(nil), body...)
		binary.LittleEndian.PutUint32(bad[slots+4*i:], binary.LittleEndian.Uint32(body[slots+4*(i-1)&31:]))
		refused(want, r, sealed(bad))
	}
	bad := append([]byte(nil), body...)
	binary.LittleEndian.PutUint64(bad[slots+8*4:], math.Float64bits(math.NaN()))
	refused("got an accumulated attention of NaN in slot 0", r, sealed(bad))
	require.NoError(t, os.WriteFile(path, sealed(body), 0o600))
	require.NoError(t, r.Restore(path))
	require.Equal(t, 20, r.Len())
}

func FuzzRestoreEvicting(f *testing.F) {
	m := model{1, 1, 1, 4, 4}
	cfg := kvcompress.Config{Budget: 8, Recent: 3, SinkTokens: 1}
	q, k, v := m.tokens(3, 40)
	c := m.evicting(f, 40, cfg)
	for at := range 20 {
		m.step(f, c, q, k, v, 40, at, 1)
	}
	path := filepath.Join(f.TempDir(), "seed")
	require.NoError(f, c.Save(path))
	data, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(data[:len(data)-sha256.Size])
	f.Add(data[:50])
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(path, sealed(data), 0o600))
		r := m.evicting(t, 40, cfg)
		if err := r.Restore(path); err != nil {
			require.Zero(t, r.Len())
			return
		}
		for at := 20; at < 36 && r.Len() < 40; at++ {
			m.step(t, r, q, k, v, 40, at, 1)
		}
	})
}

// A budget is refused where it would do nothing.
func TestFakeQuantizeKVRefusesABudget(t *testing.T) {
	g := G.NewGraph()
	k := optest.Seeded("k", 1, 1, 8, 1, 16).Node(g, G.Float32)
	_, _, err := kvcompress.FakeQuantizeKV(k, k, kvcompress.Config{Budget: 4})
	require.ErrorContains(t, err, "kvcompress.FakeQuantizeKV: Config.Budget: got 4, want 0")
}
