// What every kernel of this folder stands on.
//
// A source compiles three ways: by clang to PTX without the CUDA SDK (scripts/regen-ptx.sh), by nvcc, and by a C++ compiler for
// the host, where cuemu.h takes the place of the card and the tests run it. So:
//
//   - A kernel is written KERNEL(threads, name, (parameters)) { … }. Its name carries the dtype: _f32, _f64.
//   - Every parameter takes 8 bytes: a pointer, i64 or double. gorgonia.org/cu reads 8 bytes a parameter, whatever its type.
//   - Static shared memory is declared __shared__ at the top of a kernel (not in a template), dynamic one by DYNAMIC_SHARED.
//   - Sums are taken in a fixed order and there are no atomics on floats: results have the same bits on every run.
//   - Contraction is off; fma is written where it is meant. Host and card then round alike.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef signed char i8;
typedef unsigned char u8;

#if defined(CUEMU)
#include "cuemu.h"
#else

#if !defined(__NVCC__)
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
#include <__clang_cuda_builtin_vars.h>
#endif

#define KERNEL(threads, name, params) extern "C" __global__ void __launch_bounds__(threads) name params
#define DYNAMIC_SHARED(type, name) extern __shared__ __attribute__((aligned(128))) unsigned char dynamic_shared[]; \
  type *name = reinterpret_cast<type *>(dynamic_shared)
#define INLINE __device__ static inline __attribute__((always_inline))
#define OUTLINE __device__ static __attribute__((noinline))
#define RESTRICT __restrict__

#if !defined(__NVCC__)
INLINE float shuffle_xor(float v, int lane) { return __nvvm_shfl_sync_bfly_f32(0xffffffffu, v, lane, 31); }
INLINE float shuffle(float v, int lane) { return __nvvm_shfl_sync_idx_f32(0xffffffffu, v, lane, 31); }
INLINE int shuffle_xor(int v, int lane) { return __nvvm_shfl_sync_bfly_i32(0xffffffffu, v, lane, 31); }
INLINE int shuffle(int v, int lane) { return __nvvm_shfl_sync_idx_i32(0xffffffffu, v, lane, 31); }
INLINE void sync_warp() { __nvvm_bar_warp_sync(0xffffffffu); }
INLINE float root(float x) { return __nvvm_sqrt_rn_f(x); }
INLINE double root(double x) { return __nvvm_sqrt_rn_d(x); }
#else
INLINE float shuffle_xor(float v, int lane) { return __shfl_xor_sync(0xffffffffu, v, lane); }
INLINE float shuffle(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE int shuffle_xor(int v, int lane) { return __shfl_xor_sync(0xffffffffu, v, lane); }
INLINE int shuffle(int v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE void sync_warp() { __syncwarp(); }
INLINE float root(float x) { return __fsqrt_rn(x); }
INLINE double root(double x) { return __dsqrt_rn(x); }
#endif

#endif

// METHOD is INLINE for members of a struct.
#define METHOD __device__ inline __attribute__((always_inline))

INLINE double from_bits(u64 b) { return __builtin_bit_cast(double, b); }
INLINE float from_bits(u32 b) { return __builtin_bit_cast(float, b); }
INLINE u64 to_bits(double x) { return __builtin_bit_cast(u64, x); }
INLINE u32 to_bits(float x) { return __builtin_bit_cast(u32, x); }
INLINE double shuffle_xor(double v, int lane) {
  u64 b = to_bits(v);
  u32 lo = (u32)shuffle_xor((int)(u32)b, lane), hi = (u32)shuffle_xor((int)(u32)(b >> 32), lane);
  return from_bits((u64)hi << 32 | lo);
}
INLINE double shuffle(double v, int lane) {
  u64 b = to_bits(v);
  u32 lo = (u32)shuffle((int)(u32)b, lane), hi = (u32)shuffle((int)(u32)(b >> 32), lane);
  return from_bits((u64)hi << 32 | lo);
}
INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
INLINE float nearest(float x) { return __builtin_rintf(x); }
INLINE double nearest(double x) { return __builtin_rint(x); }
INLINE float magnitude(float x) { return __builtin_fabsf(x); }
INLINE double magnitude(double x) { return __builtin_fabs(x); }

// integer_at is integer i of an array of integers of 4 or 8 bytes.
INLINE i64 integer_at(const void *p, i64 bytes, i64 i) {
  return bytes == 4 ? (i64)static_cast<const int *>(p)[i] : static_cast<const i64 *>(p)[i];
}

INLINE int lane_id() { return threadIdx.x & 31; }

// BARRIER is __syncthreads() that a test may take away: compiled with -DREMOVE_BARRIER=n, the n-th one of a source is gone, and
// the kernel must then be found wrong.
#if defined(REMOVE_BARRIER)
#define BARRIER(n) do { if ((n) != REMOVE_BARRIER) __syncthreads(); } while (0)
#else
#define BARRIER(n) __syncthreads()
#endif

// first and stride walk n elements with the whole grid, whatever its shape.
INLINE i64 grid_first() {
  i64 block = blockIdx.x + (i64)gridDim.x * (blockIdx.y + (i64)gridDim.y * blockIdx.z);
  return block * ((i64)blockDim.x * blockDim.y * blockDim.z) + threadIdx.x + (i64)blockDim.x * (threadIdx.y + (i64)blockDim.y * threadIdx.z);
}
INLINE i64 grid_stride() {
  return (i64)gridDim.x * gridDim.y * gridDim.z * blockDim.x * blockDim.y * blockDim.z;
}

// Sums over a warp end in every lane, and have the same bits in all of them.
template <class T> INLINE T warp_sum(T v) {
  for (int d = 16; d; d >>= 1) v += shuffle_xor(v, d);
  return v;
}
template <class T> INLINE T larger(T a, T b) { return a > b || a != a ? a : b; }  // a NaN wins
template <class T> INLINE T warp_max(T v) {
  for (int d = 16; d; d >>= 1) v = larger(v, shuffle_xor(v, d));
  return v;
}
