// What the kernels of attention in BF16 and on integers of 8 bits share (flashattn.Precision). Their operands are copies that narrow.cu
// makes, (batch, heads, seq, width), rows of whole times 32 bytes filled up with zeros: q and k in BF16 or as codes, v and dOut in BF16.
//
// The logits of codes are those of
//
//   q·k = scale_i·scale_j·(code_i·code_j) + lift_i
//
// and lower by scale·lift_i where there is no softcap: the softmax does not see what a row has in common, so it is added at the end.
#pragma once
#include "attention.cuh"
#include "narrow.cuh"

constexpr float log2_e = 1.442695040888963407f;

struct Operands {
  const u8 *q, *k, *v;
  i64 width, v_width;                      // bytes of a row of q and k, and of v
  const float *q_scales, *k_scales, *lift;  // (batch, heads, seq), of codes
};

// A row in shared memory takes 16 bytes more than its width: eight rows of it then begin in different banks.
constexpr int row_gap = 16;

// stage begins to copy rows first … first+rows of a head into shared memory, zeros from `end` on.
INLINE void stage(u8 *to, const u8 *from, i64 first, int rows, i64 end, i64 width) {
  const int pieces = (int)width / 16;
  for (int e = threadIdx.x; e < rows * pieces; e += blockDim.x) {
    const int r = e / pieces, c = e % pieces * 16;
    const bool there = first + r < end;
    copy_async(to + r * (width + row_gap) + c, from + (there ? first + r : 0) * width + c, there);
  }
}

// Product is what multiplies rows of BF16, or of codes.
template <bool codes> struct Product {
  typedef float Sum;
  METHOD static void add(float *c, const u32 *a, const u32 *b) { mma_bf16(c, a, b); }
};
template <> struct Product<true> {
  typedef int Sum;
  METHOD static void add(int *c, const u32 *a, const u32 *b) { mma_s8(c, a, b); }
};

// products is out (16 × 8·N) = the warp's rows of x times the rows of y, transposed.
template <int N, bool codes> INLINE void products(float (*out)[4], const u8 *x, const u8 *y, i64 width) {
  typename Product<codes>::Sum sum[N][4];
  UNROLL
  for (int n = 0; n < N; n++)
    UNROLL
    for (int c = 0; c < 4; c++) sum[n][c] = 0;
  const i64 p = width + row_gap;
  const int l = lane_id();
  const u8 *left = x + (threadIdx.x / 32 * 16 + l % 16) * p + l / 16 * 16, *right = y + (l % 8 + l / 16 * 8) * p + l / 8 % 2 * 16;
  for (i64 c = 0; c < width; c += 32) {
    u32 a[4];
    load_matrices(a, left + c);
    UNROLL
    for (int n = 0; n < N; n += 2) {
      u32 b[4];
      load_matrices(b, right + n * 8 * p + c);
      Product<codes>::add(sum[n], a, b);
      Product<codes>::add(sum[n + 1], a, b + 2);
    }
  }
  UNROLL
  for (int n = 0; n < N; n++)
    UNROLL
    for (int c = 0; c < 4; c++) out[n][c] = (float)sum[n][c];
}

// accumulate is sum (16 × 8·M) += w (16 × 8·N), rounded to BF16, times columns c0 … c0+8·M of the rows of y, as far as there are. The
// two are a C and of BF16.
template <int N, int M> INLINE void accumulate(float (*sum)[4], const float (*w)[4], const u8 *y, i64 width, int c0 = 0) {
  const i64 p = width + row_gap;
  const int l = lane_id(), left = (int)width / 2 - c0;
  const u8 *right = y + l % 16 * p + l / 16 * 16 + 2 * c0;
  UNROLL
  for (int n = 0; n < N; n += 2) {
    const u32 a[4] = {bf16_pair(w[n][0], w[n][1]), bf16_pair(w[n][2], w[n][3]), bf16_pair(w[n + 1][0], w[n + 1][1]),
                      bf16_pair(w[n + 1][2], w[n + 1][3])};
    UNROLL
    for (int m = 0; m < M; m += 2)
      if (m * 8 < left) {
        u32 b[4];
        load_transposed(b, right + n * 8 * p + m * 16);
        mma_bf16(sum[m], a, b);
        mma_bf16(sum[m + 1], a, b + 2);
      }
  }
}

// easy reports whether the rows first … first+15 see all keys j0 … j0+n−1, and logits are products times a.scale.
INLINE bool easy(const Attention &a, i64 first, i64 j0, int n) {
  return a.softcap == 0 && !a.slopes && !a.bias && first + 16 <= a.seqQ && j0 >= first_key(a, first + 15) && j0 + n <= end_key(a, first);
}
