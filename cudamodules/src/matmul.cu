// Matrix products in the precision of their inputs:
//
//   C = alpha·A·B + beta·C        C (m × n), A (m × k), B (k × n), `batch` of each
//
// Each matrix has a stride for its rows and one for its columns, in elements, so that transposed and column-major ones are the same
// kernel, and one from a batch to the next (0: the same for all). beta 0 leaves C unread. gemm.cuh says how; a block has 128 × 128 of C
// in float and 64 × 64 in double. Results do not depend on the grid.
#include "gemm.cuh"

KERNEL(gemm::threads, gemm_f32,
       (float *C, const float *A, const float *B, i64 m, i64 n, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col, i64 c_row, i64 c_col,
        i64 a_batch, i64 b_batch, i64 c_batch, double alpha, double beta)) {
  __shared__ float shared[gemm::shared_floats];
  gemm::Strided<float> a{A + blockIdx.z * a_batch, a_row, a_col, m, k}, b{B + blockIdx.z * b_batch, b_col, b_row, n, k};
  gemm::product(a, b, gemm::Result<float>{C + blockIdx.z * c_batch, c_row, c_col, m, n, (float)alpha, (float)beta}, shared);
}

KERNEL(gemm::threads, gemm_f64,
       (double *C, const double *A, const double *B, i64 m, i64 n, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col, i64 c_row, i64 c_col,
        i64 a_batch, i64 b_batch, i64 c_batch, double alpha, double beta)) {
  __shared__ double shared[gemm::shared_doubles];
  gemm::Strided<double> a{A + blockIdx.z * a_batch, a_row, a_col, m, k}, b{B + blockIdx.z * b_batch, b_col, b_row, n, k};
  gemm::product(a, b, gemm::Result<double>{C + blockIdx.z * c_batch, c_row, c_col, m, n, alpha, beta}, shared, a_col == 1, b_row == 1);
}

// gemm_row: the same for m up to four times gridDim.y, each of B's numbers read once for four rows of A. A block of 16 warps has 32
// columns. Where B's rows lie together, a lane has a column and a warp every 16th row of B; where its columns do, a warp has two
// columns and its lanes every 32nd row. What warps and lanes have is added up in a fixed order.
namespace row {
constexpr int threads = 512, warps = threads / 32, most = 4, columns = 32;

template <class T>
METHOD void product(const gemm::Result<T> &c, const T *A, const T *B, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col, T *shared) {
  const int lane = lane_id(), warp = threadIdx.x / 32;
  const i64 i0 = (i64)blockIdx.y * most, j0 = (i64)blockIdx.x * columns;
  if (b_row == 1) {
    for (int j = warp; j < columns; j += warps) {
      T sum[most] = {};
      if (j0 + j < c.n)
        for (i64 p = lane; p < k; p += 32) {
          const T b = B[p + (j0 + j) * b_col];
          UNROLL
          for (int r = 0; r < most; r++)
            if (i0 + r < c.m) sum[r] = fused(A[(i0 + r) * a_row + p * a_col], b, sum[r]);
        }
      UNROLL
      for (int r = 0; r < most; r++) {
        const T all = warp_sum(sum[r]);
        if (lane == 0 && j0 + j < c.n && i0 + r < c.m) c.set(i0 + r, j0 + j, all);
      }
    }
    return;
  }
  T sum[most] = {};
  if (j0 + lane < c.n) {
    constexpr int together = 4;  // numbers of B on their way at once
    i64 p = warp;
    for (; p + (together - 1) * warps < k; p += together * warps) {
      T b[together];
      UNROLL
      for (int u = 0; u < together; u++) b[u] = B[(p + u * warps) * b_row + (j0 + lane) * b_col];
      UNROLL
      for (int r = 0; r < most; r++)
        if (i0 + r < c.m)
          UNROLL
          for (int u = 0; u < together; u++) sum[r] = fused(A[(i0 + r) * a_row + (p + u * warps) * a_col], b[u], sum[r]);
    }
    for (; p < k; p += warps) {
      const T b = B[p * b_row + (j0 + lane) * b_col];
      UNROLL
      for (int r = 0; r < most; r++)
        if (i0 + r < c.m) sum[r] = fused(A[(i0 + r) * a_row + p * a_col], b, sum[r]);
    }
  }
  UNROLL
  for (int r = 0; r < most; r++) shared[(warp * most + r) * columns + lane] = sum[r];
  BARRIER(4);
  const int r = warp;  // a warp for each row
  if (r >= most || i0 + r >= c.m || j0 + lane >= c.n) return;
  T all = 0;
  for (int w = 0; w < warps; w++) all += shared[(w * most + r) * columns + lane];
  c.set(i0 + r, j0 + lane, all);
}
}  // namespace row

#define GEMM_ROW(T, t)                                                                                                             \
  KERNEL(row::threads, gemm_row_##t,                                                                                               \
         (T *C, const T *A, const T *B, i64 m, i64 n, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col, i64 c_row, i64 c_col,     \
          double alpha, double beta)) {                                                                                            \
    __shared__ T shared[row::warps * row::most * row::columns];                                                                    \
    row::product(gemm::Result<T>{C, c_row, c_col, m, n, (T)alpha, (T)beta}, A, B, k, a_row, a_col, b_row, b_col, shared);          \
  }
GEMM_ROW(float, f32)
GEMM_ROW(double, f64)
