// Zeros, and dropout of elements (ops.Dropout has the formula): a copy that draws again which of them to leave out.
#include "math.cuh"
#include "random.cuh"

#define ELEMENTS(T, t)                                                                                                      \
  KERNEL(256, zero_##t, (T *RESTRICT y, i64 n)) {                                                                           \
    for (i64 i = grid_first(); i < n; i += grid_stride()) y[i] = 0;                                                         \
  }                                                                                                                         \
  KERNEL(256, dropout_##t,                                                                                                  \
         (T *RESTRICT y, const T *x, i64 seed, const void *step, i64 step_bytes, i64 below, double keep, i64 n)) {          \
    Dropout<T> r = dropout_of<T>(seed, step, step_bytes, below, keep);                                                      \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                                                 \
      T z = kept(r, (u64)i);                                                                                                \
      y[i] = z == 0 ? (T)0 : x[i] * z;                                                                                      \
    }                                                                                                                       \
  }                                                                                                                         \
  /* parts[b] = Σ x² over elements 4096·b …, in double, as many as blocks. */                                              \
  KERNEL(256, squares_##t, (double *RESTRICT parts, const T *x, i64 n)) {                                                   \
    __shared__ double sums[8];                                                                                              \
    i64 lo = (i64)blockIdx.x * 4096, hi = lo + 4096 < n ? lo + 4096 : n;                                                    \
    double s = 0;                                                                                                           \
    for (i64 i = lo + threadIdx.x; i < hi; i += 256) s = fused((double)x[i], (double)x[i], s);                              \
    s = warp_sum(s);                                                                                                        \
    if (lane_id() == 0) sums[threadIdx.x / 32] = s;                                                                         \
    BARRIER(0);                                                                                                             \
    if (threadIdx.x != 0) return;                                                                                           \
    for (int w = 1; w < 8; w++) s += sums[w];                                                                               \
    parts[blockIdx.x] = s;                                                                                                  \
  }

ELEMENTS(float, f32)
ELEMENTS(double, f64)
