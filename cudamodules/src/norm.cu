// RMSNorm and LayerNorm with their gradients, a block of 256 threads a row; sums are in double, by columns within a thread, then over
// the block in a fixed order. rows and dim are at least 1; gamma and beta may be null, for ones and zeros.
//
//   rmsnorm     y = x·r·gamma                      r = 1/√(mean x² + eps)
//   layernorm   y = (x − mean)·r·gamma + beta      r = 1/√(mean (x−mean)² + eps)
//
// The gradient runs in two kernels: _grad makes dx and keeps mean and r of each row in stats (rows × 2), _grad_gamma then sums
// dgamma and dbeta over the rows, a block for 32 columns.
#include "math.cuh"

constexpr int norm_threads = 256;

// block_sum sums v over the block; every thread gets it. scratch holds a double a warp. The same scratch may be used again after
// another BARRIER only, which the two at its ends are.
#define BLOCK_SUM(n, v, scratch)                                                      \
  {                                                                                   \
    v = warp_sum(v);                                                                  \
    BARRIER(n);                                                                       \
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;                       \
    BARRIER(n + 1);                                                                   \
    v = 0;                                                                            \
    for (int w = 0; w < norm_threads / 32; w++) v += scratch[w];                      \
  }

#define NORMS(T, t)                                                                                                                  \
  KERNEL(norm_threads, rmsnorm_##t, (T *RESTRICT y, const T *x, const T *gamma, i64 rows, i64 dim, double eps)) {                    \
    __shared__ double scratch[norm_threads / 32];                                                                                    \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                                             \
      const T *row = x + r * dim;                                                                                                    \
      double s = 0;                                                                                                                  \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) s = fused((double)row[j], (double)row[j], s);                            \
      BLOCK_SUM(0, s, scratch)                                                                                                       \
      T rstd = (T)(1 / root(s / dim + eps));                                                                                         \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) y[r * dim + j] = row[j] * rstd * (gamma ? gamma[j] : (T)1);              \
    }                                                                                                                                \
  }                                                                                                                                  \
  KERNEL(norm_threads, layernorm_##t,                                                                                                \
         (T *RESTRICT y, const T *x, const T *gamma, const T *beta, i64 rows, i64 dim, double eps)) {                                \
    __shared__ double scratch[norm_threads / 32];                                                                                    \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                                             \
      const T *row = x + r * dim;                                                                                                    \
      double s = 0;                                                                                                                  \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) s += (double)row[j];                                                     \
      BLOCK_SUM(0, s, scratch)                                                                                                       \
      T mean = (T)(s / dim);                                                                                                         \
      s = 0;                                                                                                                         \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) {                                                                        \
        double d = (double)(row[j] - mean);                                                                                          \
        s = fused(d, d, s);                                                                                                          \
      }                                                                                                                              \
      BLOCK_SUM(2, s, scratch)                                                                                                       \
      T rstd = (T)(1 / root(s / dim + eps));                                                                                         \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads)                                                                          \
        y[r * dim + j] = (row[j] - mean) * rstd * (gamma ? gamma[j] : (T)1) + (beta ? beta[j] : (T)0);                               \
    }                                                                                                                                \
  }                                                                                                                                  \
  KERNEL(norm_threads, norm_grad_##t,                                                                                                \
         (T *RESTRICT dx, T *RESTRICT stats, const T *x, const T *dy, const T *gamma, i64 rows, i64 dim, double eps, i64 centred)) { \
    __shared__ double scratch[norm_threads / 32];                                                                                    \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                                             \
      const T *row = x + r * dim, *up = dy + r * dim;                                                                                \
      double s = 0;                                                                                                                  \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) s += (double)row[j];                                                     \
      BLOCK_SUM(0, s, scratch)                                                                                                       \
      T mean = centred ? (T)(s / dim) : (T)0;                                                                                        \
      s = 0;                                                                                                                         \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) {                                                                        \
        double d = (double)(row[j] - mean);                                                                                          \
        s = fused(d, d, s);                                                                                                          \
      }                                                                                                                              \
      BLOCK_SUM(2, s, scratch)                                                                                                       \
      T rstd = (T)(1 / root(s / dim + eps));                                                                                         \
      double su = 0, suh = 0;                                                                                                        \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) {                                                                        \
        double u = (double)up[j] * (gamma ? (double)gamma[j] : 1.);                                                                  \
        su += u;                                                                                                                     \
        suh = fused(u, (double)((row[j] - mean) * rstd), suh);                                                                       \
      }                                                                                                                              \
      BLOCK_SUM(4, su, scratch)                                                                                                      \
      BLOCK_SUM(6, suh, scratch)                                                                                                     \
      T c1 = centred ? (T)(su / dim) : (T)0, c2 = (T)(suh / dim);                                                                    \
      for (i64 j = threadIdx.x; j < dim; j += norm_threads) {                                                                        \
        T u = up[j] * (gamma ? gamma[j] : (T)1);                                                                                     \
        dx[r * dim + j] = rstd * (u - c1 - (row[j] - mean) * rstd * c2);                                                             \
      }                                                                                                                              \
      if (threadIdx.x == 0) {                                                                                                        \
        stats[2 * r] = mean;                                                                                                         \
        stats[2 * r + 1] = rstd;                                                                                                     \
      }                                                                                                                              \
    }                                                                                                                                \
  }                                                                                                                                  \
  KERNEL(norm_threads, norm_grad_gamma_##t,                                                                                          \
         (T *RESTRICT dgamma, T *RESTRICT dbeta, const T *stats, const T *x, const T *dy, i64 rows, i64 dim)) {                      \
    __shared__ double part[2][norm_threads / 32][32];                                                                                \
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;                                                                            \
    i64 j = (i64)blockIdx.x * 32 + lane;                                                                                             \
    double g = 0, b = 0;                                                                                                             \
    for (i64 r = warp; j < dim && r < rows; r += norm_threads / 32) {                                                                \
      double d = (double)dy[r * dim + j];                                                                                            \
      g = fused(d, (double)((x[r * dim + j] - stats[2 * r]) * stats[2 * r + 1]), g);                                                 \
      b += d;                                                                                                                        \
    }                                                                                                                                \
    part[0][warp][lane] = g;                                                                                                         \
    part[1][warp][lane] = b;                                                                                                         \
    BARRIER(8);                                                                                                                      \
    if (warp != 0 || j >= dim) return;                                                                                               \
    for (int w = 1; w < norm_threads / 32; w++) {                                                                                    \
      g += part[0][w][lane];                                                                                                         \
      b += part[1][w][lane];                                                                                                         \
    }                                                                                                                                \
    if (dgamma) dgamma[j] = (T)g;                                                                                                    \
    if (dbeta) dbeta[j] = (T)b;                                                                                                      \
  }

NORMS(float, f32)
NORMS(double, f64)
