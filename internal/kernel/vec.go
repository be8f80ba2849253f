package kernel

import (
	"fmt"
	"unsafe"
)

// maxCall bounds the elements of one assembly call, so that it ends within about 0.2 ms even when it streams from memory:
// assembly cannot be preempted, and the garbage collector waits for it.
const maxCall = 1 << 15

// breathe gives the scheduler a place to stop a loop of assembly calls. Only a function that has a frame checks for that,
// hence the second one.
//
//go:noinline
func breathe() { breath() }

//go:noinline
func breath() {}

// is32 reports whether T is float32, the type that assembly exists for.
func is32[T Float]() bool {
	var zero T
	return unsafe.Sizeof(zero) == 4
}

// as32 views x as float32; T is float32.
func as32[T Float](x []T) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

func sameLen(name string, want int, got ...int) {
	for _, g := range got {
		if g != want {
			panic(fmt.Sprintf("kernel: %s: slice of %d elements, want %d", name, g, want))
		}
	}
}

// Slices of one call have equal lengths. Where a comment says that dst may be x, it is the same memory from the same element on;
// slices that overlap otherwise give nonsense.

// Scale computes dst = a·x. dst may be x.
func Scale[T Float](dst, x []T, a T) {
	sameLen("Scale", len(dst), len(x))
	if is32[T]() && simdScale(as32(dst), as32(x), float32(a)) {
		return
	}
	for i, v := range x {
		dst[i] = a * v
	}
}

// AddScalar computes dst = x + a. dst may be x.
func AddScalar[T Float](dst, x []T, a T) {
	sameLen("AddScalar", len(dst), len(x))
	if is32[T]() && simdAddScalar(as32(dst), as32(x), float32(a)) {
		return
	}
	for i, v := range x {
		dst[i] = v + a
	}
}

// Add computes dst = x + y. dst may be x or y.
func Add[T Float](dst, x, y []T) {
	sameLen("Add", len(dst), len(x), len(y))
	if is32[T]() && simdAdd(as32(dst), as32(x), as32(y)) {
		return
	}
	for i, v := range x {
		dst[i] = v + y[i]
	}
}

// Mul computes dst = x·y, element by element. dst may be x or y.
func Mul[T Float](dst, x, y []T) {
	sameLen("Mul", len(dst), len(x), len(y))
	if is32[T]() && simdMul(as32(dst), as32(x), as32(y)) {
		return
	}
	for i, v := range x {
		dst[i] = v * y[i]
	}
}

// Axpy computes y += a·x. y may be x.
func Axpy[T Float](y []T, a T, x []T) {
	sameLen("Axpy", len(y), len(x))
	if is32[T]() && simdAxpy(as32(y), as32(x), float32(a)) {
		return
	}
	for i, v := range x {
		y[i] += a * v
	}
}

// MulAdd computes dst += x·y, element by element. dst may be x or y.
func MulAdd[T Float](dst, x, y []T) {
	sameLen("MulAdd", len(dst), len(x), len(y))
	if is32[T]() && simdMulAdd(as32(dst), as32(x), as32(y)) {
		return
	}
	for i, v := range x {
		dst[i] += v * y[i]
	}
}
