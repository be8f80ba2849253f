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
