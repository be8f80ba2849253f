package kernel

import "unsafe"

// Prefetch asks the processor to bring rows rows of n elements, x[r·stride : r·stride+n], nearer: to the second-level cache.
// Rows that lie far apart are beyond what processors foresee by themselves. It changes nothing but time; what is not in x
// is left out.
func Prefetch[T Float](x []T, stride, rows, n int) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if n > stride || n <= 0 {
		return
	}
	if rows = min(rows, (len(x)-n)/stride+1); rows > 0 && len(x) >= n {
		prefetch(uintptr(unsafe.Pointer(unsafe.SliceData(x))), stride*size, min(rows, maxPrefetch), n*size)
	}
}

// maxPrefetch bounds one call, for the garbage collector's sake.
const maxPrefetch = 1 << 10
