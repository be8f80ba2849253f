package ops

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

const (
	// ropeMaxPosition bounds positions: up to it their products with frequencies keep 22 bits after the point in float64.
	ropeMaxPosition = 1 << 31
	// ropeTableBytes bounds one table. Rows beyond it are computed as they are needed.
	ropeTableBytes = 64 << 20
	// ropeTables bounds how many tables are kept, per dtype. A model uses one or two.
	ropeTables = 16
	// ropeFillRows is how many rows of a table one task computes, about 50 µs.
	ropeFillRows = 32
)

// ropeTable holds the sines and cosines of one configuration for positions 0, 1, …, as far as any run needed them.
type ropeTable[T kernel.Float] struct {
	theta     []float64
	amplitude float64
	used      uint64 // the clock of ropeCache at the last use, under its lock

	growing sync.Mutex
	rows    atomic.Pointer[ropeRows[T]]
}

// ropeRows is a state of a table, which never changes: a table that grows gets another one.
type ropeRows[T kernel.Float] struct {
	of   *ropeTable[T]
	half int
	n    int
	data []T // n rows of half cosines, then half sines
}

// upTo returns rows for the positions below n, or for as many as a table may hold.
func (t *ropeTable[T]) upTo(n int) *ropeRows[T] {
	half := len(t.theta)
	most := ropeTableBytes / (2 * half * int(sizeOf[T]()))
	n = min(n, most)
	if r := t.rows.Load(); r != nil && r.n >= n {
		return r
	}
	t.growing.Lock()
	defer t.growing.Unlock()
	old := t.rows.Load()
	if old != nil && old.n >= n {
		return old
	}
	// Powers of two, so that decoding, which needs one position more each time, seldom grows the table.
	r := &ropeRows[T]{of: t, half: half, n: min(most, 1<<max(6, bits.Len(uint(n-1))))}
	r.data = make([]T, r.n*2*half)
	done := 0
	if old != nil {
		done = copy(r.data, old.data) / (2 * half)
	}
	parallel.Run((r.n-done+ropeFillRows-1)/ropeFillRows, func(_ *parallel.Worker, task int) {
		first := done + task*ropeFillRows
		for p := first; p < min(first+ropeFillRows, r.n); p++ {
			t.fill(p, r.data[p*2*half:(p+1)*2*half])
		}
	})
	t.rows.Store(r)
	return r
}

// fill writes the cosines, then the sines of position p.
func (t *ropeTable[T]) fill(p int, row []T) {
	half := len(t.theta)
	for i, f := range t.theta {
		sin, cos := math.Sincos(float64(p) * f)
		row[i], row[half+i] = T(cos*t.amplitude), T(sin*t.amplitude)
	}
}

// row returns the cosines and sines of position p, in the table or computed into scratch, which has room for both.
func (r *ropeRows[T]) row(p int, scratch []T) (cos, sin []T) {
	if p < r.n {
		scratch = r.data[p*2*r.half : (p+1)*2*r.half]
	} else {
		r.of.fill(p, scratch)
	}
	return scratch[:r.half], scratch[r.half:]
}

func sizeOf[T kernel.Float]() uintptr {
	if _, ok := any(T(0)).(float64); ok {
		return 8
	}
	return 4
}

// ropeCache keeps the tables used last, by configuration.
type ropeCache[T kernel.Float] struct {
	sync.Mutex
	clock  uint64
	tables map[RoPEConfig]*ropeTable[T]
}

var (
	ropeCache32 ropeCache[float32]
	ropeCache64 ropeCache[float64]
)

// ropeTableOf returns the table of a normalised config.
func ropeTableOf[T kernel.Float](cfg RoPEConfig) *ropeTable[T] {
	cfg.Interleaved = false // which elements make up a pair does not change its angle
	if c, ok := any(&ropeCache64).(*ropeCache[T]); ok {
		return c.get(cfg)
	}
	return any(&ropeCache32).(*ropeCache[T]).get(cfg)
}

func (c *ropeCache[T]) get(cfg RoPEConfig) *ropeTable[T] {
	c.Lock()
	defer c.Unlock()
	c.clock++
	t := c.tables[cfg]
	if t == nil {
		if len(c.tables) >= ropeTables {
			c.dropOldest()
		}
		t = &ropeTable[T]{}
		t.theta, t.amplitude = cfg.frequencies()
		if c.tables == nil {
			c.tables = map[RoPEConfig]*ropeTable[T]{}
		}
		c.tables[cfg] = t
	}
	t.used = c.clock
	return t
}

func (c *ropeCache[T]) dropOldest() {
	var oldest RoPEConfig
	first := uint64(math.MaxUint64)
	for cfg, t := range c.tables {
		if t.used < first {
			oldest, first = cfg, t.used
		}
	}
	delete(c.tables, oldest)
}
