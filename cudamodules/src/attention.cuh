// What the kernels of attention on tensor cores share: tiles in shared memory, fragments of them, and logits.
//
// q is (batch, seqQ, heads, d), k and v (batch, seqKV, kvHeads, d and dv), contiguous. Row i stands at p = i + seqKV − seqQ and sees the
// keys p−left … p+right. A block has four warps. What is not finite spreads to the rows and keys of its tile.
#pragma once
#include "math.cuh"
#include "mma.cuh"

constexpr int rows_tile = 64, keys_tile = 32, attention_threads = 128;

// pitch is the length of a row in shared memory: with it, the lanes that read a fragment hit 32 banks.
INLINE int pitch(int d) { return (d + 7) / 8 * 8 + 4; }

// load copies rows first … first+rows of a matrix of rows of d numbers, stride apart, into shared memory, zeros beyond `end` and d.
INLINE void load(float *to, const float *from, i64 first, int rows, i64 end, i64 stride, int d) {
  int p = pitch(d);
  for (int e = threadIdx.x; e < rows * (p - 4); e += attention_threads) {
    int r = e / (p - 4), c = e % (p - 4);
    to[r * p + c] = first + r < end && c < d ? from[(first + r) * stride + c] : 0.f;
  }
}

// left_fragment is rows r0 … r0+15 and columns c0 … c0+7 of a matrix in shared memory as A.
INLINE Halves<4> left_fragment(const float *m, int p, int r0, int c0) {
  int g = lane_id() / 4, t = lane_id() % 4;
  Halves<4> a;
  UNROLL
  for (int i = 0; i < 4; i++) split(m[(r0 + g + i % 2 * 8) * p + c0 + t + i / 2 * 4], &a.hi[i], &a.lo[i]);
  return a;
}

// right_rows is the transposed of rows r0 … r0+7, columns c0 … c0+7, as B: the product is with those rows.
INLINE Halves<2> right_rows(const float *m, int p, int r0, int c0) {
  int g = lane_id() / 4, t = lane_id() % 4;
  Halves<2> b;
  UNROLL
  for (int i = 0; i < 2; i++) split(m[(r0 + g) * p + c0 + t + i * 4], &b.hi[i], &b.lo[i]);
  return b;
}

// right_paired is rows r0 … r0+7 and columns c0 … c0+7 as B, for an A whose columns are those of a C fragment: row t of B is row 2t of
// the matrix, and row t+4 is row 2t+1. The sum does not mind the order.
INLINE Halves<2> right_paired(const float *m, int p, int r0, int c0) {
  int g = lane_id() / 4, t = lane_id() % 4;
  Halves<2> b;
  UNROLL
  for (int i = 0; i < 2; i++) split(m[(r0 + 2 * t + i) * p + c0 + g], &b.hi[i], &b.lo[i]);
  return b;
}

// paired makes an A of a C: its columns come in the order that right_paired has.
INLINE Halves<4> paired(const float *c) {
  Halves<4> a;
  split(c[0], &a.hi[0], &a.lo[0]);
  split(c[2], &a.hi[1], &a.lo[1]);
  split(c[1], &a.hi[2], &a.lo[2]);
  split(c[3], &a.hi[3], &a.lo[3]);
  return a;
}

// Attention is a problem. Null pointers stand for no sinks (heads), slopes (heads) or bias.
struct Attention {
  const float *q, *k, *v, *sinks, *slopes, *bias;
  i64 bias_batch, bias_head, seqQ, seqKV, heads, kvHeads, d, dv, left, right;
  float scale, softcap;
};

// first_key and end_key bound what row i sees.
INLINE i64 first_key(const Attention &a, i64 i) {
  i64 p = i + a.seqKV - a.seqQ - a.left;
  return p < 0 ? 0 : p > a.seqKV ? a.seqKV : p;
}
INLINE i64 end_key(const Attention &a, i64 i) {
  i64 p = i + a.seqKV - a.seqQ + a.right + 1;
  return p < 0 ? 0 : p > a.seqKV ? a.seqKV : p;
}

// capped is the softcap. It is rare and long, so it stays out of line.
OUTLINE float capped(float x, float cap) { return cap * tanh_of(x / cap); }

// logit is what product s of row i and key j counts, −∞ where it is not seen. slope, if it is not null, gets the derivative by s.
INLINE float logit(const Attention &a, float s, i64 b, i64 h, i64 i, i64 j, float *slope = nullptr) {
  if (slope) *slope = 0;
  if (i >= a.seqQ || j < first_key(a, i) || j >= end_key(a, i)) return -infinity<float>();
  float x = s * a.scale, by = a.scale;
  if (a.softcap > 0) {
    x = capped(x, a.softcap);
    float share = x / a.softcap;
    by *= 1 - share * share;
  }
  if (slope) *slope = by;
  i64 distance = i + a.seqKV - a.seqQ - j;
  if (a.slopes) x -= a.slopes[h] * (float)(distance < 0 ? -distance : distance);
  if (a.bias) x += a.bias[b * a.bias_batch + h * a.bias_head + i * a.seqKV + j];
  return x;
}

// finish writes the outputs of a warp's rows first … first+15: o (16 × 8·NV, a C) over the sums, with the sinks among them. A thread has
// the rows g and g+8: their largest logit and, of its own columns, the sum of e^(logit − largest).
template <int NV>
INLINE void finish(const Attention &a, float *to, float *lse, float *stats, i64 b, i64 h, i64 first, const float (*o)[4], float *top, float *sum) {
  const int g = lane_id() / 4, t = lane_id() % 4;
  UNROLL
  for (int r = 0; r < 2; r++) {
    sum[r] += shuffle_xor(sum[r], 1);
    sum[r] += shuffle_xor(sum[r], 2);
    const i64 i = first + g + 8 * r, row = (b * a.heads + h) * a.seqQ + i;
    const bool blind = top[r] == -infinity<float>();
    float factor = 0;
    if (!blind) {
      float shrink = 1;
      if (a.sinks) {
        float high = larger(top[r], a.sinks[h]);
        shrink = exponential(top[r] - high);
        sum[r] = sum[r] * shrink + exponential(a.sinks[h] - high);
        top[r] = high;
      }
      factor = shrink / sum[r];
    }
    if (i >= a.seqQ) continue;
    if (t == 0) {
      if (lse) lse[row] = blind ? top[r] : top[r] + logarithm(sum[r]);
      if (stats) {
        stats[row] = top[r];
        stats[(i64)gridDim.z * a.heads * a.seqQ + row] = blind ? 0.f : sum[r];
      }
    }
    float *out = to + ((b * a.seqQ + i) * a.heads + h) * a.dv;
    UNROLL
    for (int n = 0; n < NV; n++)
      UNROLL
      for (int c = 0; c < 2; c++) {
        int column = n * 8 + 2 * t + c;
        if (column < a.dv) out[column] = o[n][2 * r + c] * factor;
      }
  }
}

template <int N> INLINE void zero(float (*m)[4]) {
  UNROLL
  for (int n = 0; n < N; n++)
    UNROLL
    for (int c = 0; c < 4; c++) m[n][c] = 0;
}

// store writes columns c0 … c0+8·M−1 of the warp's rows of a gradient: row r of the block to `to` + r·stride, those before end.
template <int M, class Integer>
INLINE void store(float *to, const float (*sum)[4], i64 first, i64 end, i64 stride, Integer d, int c0 = 0) {
  const int g = lane_id() / 4, t = lane_id() % 4;
  UNROLL
  for (int m = 0; m < M; m++)
    UNROLL
    for (int c = 0; c < 4; c++) {
      const i64 r = first + threadIdx.x / 32 * 16 + g + c / 2 * 8;
      const int column = c0 + m * 8 + 2 * t + c % 2;
      if (r < end && column < d) to[r * stride + column] = sum[m][c];
    }
}
