package kernel

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// atPageEnd returns n elements that end, or begin, where memory may not be touched: reading one element too many is a
// fault, which the NaN around other operands cannot show where the surplus lanes are dropped.
func atPageEnd(t *testing.T, n int, begin bool) []float32 {
	page := unix.Getpagesize()
	size := (4*n + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(mem)) })
	require.NoError(t, unix.Mprotect(mem[:page], unix.PROT_NONE))
	require.NoError(t, unix.Mprotect(mem[page+size:], unix.PROT_NONE))
	from := page + size - 4*n
	if begin {
		from = page
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[from])), n)
}

func TestNothingBeyondTheOperands(t *testing.T) {
	fill := func(s []float32) []float32 {
		for i := range s {
			s[i] = float32(i%5) - 2
		}
		return s
	}
	for _, begin := range []bool{false, true} {
		for _, m := range []int{1, 2, 4, 6, 7, 13} {
			for _, n := range []int{1, 3, 7, 9, 15, 17, 31, 59, 65} {
				for _, k := range []int{1, 3, 5, 9, 33} {
					a, b := fill(atPageEnd(t, max(m*k, m), begin)), fill(atPageEnd(t, k*n, begin))
					c := atPageEnd(t, m*n, begin)
					for _, isa := range tested() {
						restore, err := Use(isa)
						require.NoError(t, err)
						msg := fmt.Sprint(isa, m, n, k, begin)
						A, B, C := RowMajor(a, m, k), RowMajor(b, k, n), RowMajor(c, m, n)
						AT, BT := RowMajor(a, k, m).T(), RowMajor(b, n, k).T()
						Tile(m, n, k, a, k, 1, b, n, c, n, TileScaleAdd, a)
						Gemm(C, A, B, false, Epilogue[float32]{Bias: b})
						multiply(C, A, B, nil, b).requireClose(t, C, k, msg)
						Gemm(C, AT, BT, false, Epilogue[float32]{Bias: b})
						multiply(C, AT, BT, nil, b).requireClose(t, C, k, msg)
						restore()
					}
				}
			}
		}
	}
}
