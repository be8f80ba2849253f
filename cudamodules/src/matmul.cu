// Matrix products in the precision of their inputs, without tensor cores:
//
//   C = alpha·A·B + beta·C        C (m × n), A (m × k), B (k × n), `batch` of each
//
// Each matrix has a stride for its rows and one for its columns, in elements, so that transposed and column-major ones are the same
// kernel, and one from a batch to the next (0: the same for all). beta 0 leaves C unread.
//
// A block of 256 threads computes 64 × 64 of C, a thread 4 × 4; slices of 16 along k pass through shared memory. Every element is
// one chain of fma along k: results do not depend on the grid.
#include "common.cuh"

constexpr int tile = 64, slice = 16;

#define GEMM(T, t)                                                                                                         \
  KERNEL(256, gemm_##t,                                                                                                    \
         (T *RESTRICT C, const T *A, const T *B, i64 m, i64 n, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col,          \
          i64 c_row, i64 c_col, i64 a_batch, i64 b_batch, i64 c_batch, double alpha, double beta)) {                       \
    __shared__ T sa[slice][tile + 1];                                                                                      \
    __shared__ T sb[slice][tile + 1];                                                                                      \
    A += blockIdx.z * a_batch;                                                                                             \
    B += blockIdx.z * b_batch;                                                                                             \
    C += blockIdx.z * c_batch;                                                                                             \
    i64 i0 = (i64)blockIdx.x * tile, j0 = (i64)blockIdx.y * tile;                                                          \
    int ti = threadIdx.x / 16, tj = threadIdx.x % 16;                                                                      \
    T sum[4][4];                                                                                                           \
    for (int i = 0; i < 4; i++)                                                                                            \
      for (int j = 0; j < 4; j++) sum[i][j] = 0;                                                                           \
    /* Neighbouring threads read along the dimension that lies together. */                                               \
    bool a_along_k = a_col == 1, b_along_k = b_row == 1;                                                                   \
    for (i64 p0 = 0; p0 < k; p0 += slice) {                                                                                \
      BARRIER(0);                                                                                                          \
      for (int e = threadIdx.x; e < tile * slice; e += 256) {                                                              \
        int i = a_along_k ? e / slice : e % tile, p = a_along_k ? e % slice : e / tile;                                    \
        sa[p][i] = i0 + i < m && p0 + p < k ? A[(i0 + i) * a_row + (p0 + p) * a_col] : (T)0;                               \
        int j = b_along_k ? e / slice : e % tile, q = b_along_k ? e % slice : e / tile;                                    \
        sb[q][j] = j0 + j < n && p0 + q < k ? B[(p0 + q) * b_row + (j0 + j) * b_col] : (T)0;                               \
      }                                                                                                                    \
      BARRIER(1);                                                                                                          \
      int last = k - p0 < slice ? (int)(k - p0) : slice;                                                                   \
      for (int p = 0; p < last; p++) {                                                                                     \
        T a[4], b[4];                                                                                                      \
        for (int i = 0; i < 4; i++) a[i] = sa[p][ti + 16 * i];                                                             \
        for (int j = 0; j < 4; j++) b[j] = sb[p][tj + 16 * j];                                                             \
        for (int i = 0; i < 4; i++)                                                                                        \
          for (int j = 0; j < 4; j++) sum[i][j] = fused(a[i], b[j], sum[i][j]);                                            \
      }                                                                                                                    \
    }                                                                                                                      \
    for (int i = 0; i < 4; i++)                                                                                            \
      for (int j = 0; j < 4; j++) {                                                                                        \
        i64 r = i0 + ti + 16 * i, c = j0 + tj + 16 * j;                                                                    \
        if (r >= m || c >= n) continue;                                                                                    \
        T *out = C + r * c_row + c * c_col;                                                                                \
        *out = (T)alpha * sum[i][j] + (beta == 0 ? (T)0 : (T)beta * *out);                                                 \
      }                                                                                                                    \
  }

GEMM(float, f32)
GEMM(double, f64)
