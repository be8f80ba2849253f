// Attention forward in tiles, on tensor cores, with the error of float (three TF32 products for one):
//
//   out = softmax(logits)·v    logits = softcap(scale·q·kᵀ) − slope·|p − j| + bias, where row i at p = i + seqKV − seqQ sees key j
//
// q is (batch, seqQ, heads, d), k and v (batch, seqKV, kvHeads, d and dv), contiguous. Row i sees the keys p−left … p+right. Null
// pointers stand for no sinks (heads), slopes (heads) or bias; lse (batch, heads, seqQ) and stats (2, batch, heads, seqQ: the largest
// logit and the sum of e^(logit − largest), sinks included) are written where they are wanted. A row that sees no key gives zeros,
// lse and largest −∞, sum 0.
//
// A block of four warps has 64 rows of one head; tiles of 32 keys pass through shared memory. A warp has 16 rows, and keeps their
// output in registers. The online softmax is that of FlashAttention (Dao et al. 2022, algorithm 1; Dao 2023, section 3.1).
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

struct Attention {
  float *out, *lse, *stats;
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

// logit is what product s of row i and key j counts, −∞ where it is not seen.
INLINE float logit(const Attention &a, float s, i64 b, i64 h, i64 i, i64 j) {
  if (i >= a.seqQ || j < first_key(a, i) || j >= end_key(a, i)) return -infinity<float>();
  float x = s * a.scale;
  if (a.softcap > 0) x = capped(x, a.softcap);
  i64 distance = i + a.seqKV - a.seqQ - j;
  if (a.slopes) x -= a.slopes[h] * (float)(distance < 0 ? -distance : distance);
  if (a.bias) x += a.bias[b * a.bias_batch + h * a.bias_head + i * a.seqKV + j];
  return x;
}

template <int NV> INLINE void attend(const Attention &a, float *shared) {
  const i64 h = blockIdx.y, b = blockIdx.z, kh = h / (a.heads / a.kvHeads), i0 = (i64)blockIdx.x * rows_tile;
  const int warp = threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4, d = (int)a.d, dv = (int)a.dv, pd = pitch(d), pv = pitch(dv);
  float *sq = shared, *sk = sq + rows_tile * pd, *sv = sk + keys_tile * pd;
  const float *k = a.k + (b * a.seqKV * a.kvHeads + kh) * a.d, *v = a.v + (b * a.seqKV * a.kvHeads + kh) * a.dv;
  load(sq, a.q + (b * a.seqQ * a.heads + h) * a.d, i0, rows_tile, a.seqQ, a.heads * a.d, d);

  float o[NV][4], top[2] = {-infinity<float>(), -infinity<float>()}, sum[2] = {0, 0};
  UNROLL
  for (int n = 0; n < NV; n++)
    UNROLL
    for (int c = 0; c < 4; c++) o[n][c] = 0;
  const i64 last = i0 + rows_tile < a.seqQ ? i0 + rows_tile - 1 : a.seqQ - 1;
  const i64 end = end_key(a, last);
  for (i64 j0 = first_key(a, i0) / keys_tile * keys_tile; j0 < end; j0 += keys_tile) {
    BARRIER(0);
    load(sk, k, j0, keys_tile, a.seqKV, a.kvHeads * a.d, d);
    load(sv, v, j0, keys_tile, a.seqKV, a.kvHeads * a.dv, dv);
    BARRIER(1);
    float s[keys_tile / 8][4];
    UNROLL
    for (int n = 0; n < keys_tile / 8; n++)
      UNROLL
      for (int c = 0; c < 4; c++) s[n][c] = 0;
    for (int c0 = 0; c0 < d; c0 += 8) {
      Halves<4> qa = left_fragment(sq, pd, warp * 16, c0);
UNROLL
      for (int n = 0; n < keys_tile / 8; n++) mma_f32(s[n], qa, right_rows(sk, pd, n * 8, c0));
    }
    // Rows g and g+8 of the warp: r is which.
    float high[2] = {top[0], top[1]}, shrink[2];
    UNROLL
    for (int n = 0; n < keys_tile / 8; n++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        int r = c / 2;
        s[n][c] = logit(a, s[n][c], b, h, i0 + warp * 16 + g + 8 * r, j0 + n * 8 + 2 * t + c % 2);
        high[r] = larger(high[r], s[n][c]);
      }
    UNROLL
    for (int r = 0; r < 2; r++) {
      // The four lanes of a row.
      high[r] = larger(high[r], shuffle_xor(high[r], 1));
      high[r] = larger(high[r], shuffle_xor(high[r], 2));
      shrink[r] = high[r] == -infinity<float>() ? 1.f : exponential(top[r] - high[r]);
      top[r] = high[r];
      sum[r] *= shrink[r];
    }
    UNROLL
    for (int n = 0; n < keys_tile / 8; n++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        int r = c / 2;
        s[n][c] = top[r] == -infinity<float>() ? 0.f : exponential(s[n][c] - top[r]);
        sum[r] += s[n][c];
      }
    UNROLL
    for (int n = 0; n < NV; n++)
      UNROLL
      for (int c = 0; c < 4; c++) o[n][c] *= shrink[c / 2];
    UNROLL
    for (int n = 0; n < keys_tile / 8; n++) {
      Halves<4> pa = paired(s[n]);
UNROLL
      for (int m = 0; m < NV; m++)
        if (m * 8 < dv) mma_f32(o[m], pa, right_paired(sv, pv, n * 8, m * 8));
    }
  }

  UNROLL
  for (int r = 0; r < 2; r++) {
    sum[r] += shuffle_xor(sum[r], 1);
    sum[r] += shuffle_xor(sum[r], 2);
    const i64 i = i0 + warp * 16 + g + 8 * r, row = (b * a.heads + h) * a.seqQ + i;
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
      if (a.lse) a.lse[row] = blind ? top[r] : top[r] + logarithm(sum[r]);
      if (a.stats) {
        a.stats[row] = top[r];
        a.stats[(i64)gridDim.z * a.heads * a.seqQ + row] = blind ? 0.f : sum[r];
      }
    }
    float *out = a.out + ((b * a.seqQ + i) * a.heads + h) * a.dv;
    UNROLL
    for (int n = 0; n < NV; n++)
      UNROLL
      for (int c = 0; c < 2; c++) {
        int column = n * 8 + 2 * t + c;
        if (column < dv) out[column] = o[n][2 * r + c] * factor;
      }
  }
}

// The number is the largest dv. Dynamic shared memory: 4·((64 + 32)·pitch(d) + 32·pitch(dv)) bytes.
#define ATTENTION(most)                                                                                                             \
  KERNEL(attention_threads, attention_##most##_f32,                                                                                 \
         (float *out, float *lse, float *stats, const float *q, const float *k, const float *v, const float *sinks,                 \
          const float *slopes, const float *bias, i64 bias_batch, i64 bias_head, i64 seqQ, i64 seqKV, i64 heads, i64 kvHeads,       \
          i64 d, i64 dv, i64 left, i64 right, double scale, double softcap)) {                                                      \
    DYNAMIC_SHARED(float, shared);                                                                                                  \
    attend<most / 8>({out, lse, stats, q, k, v, sinks, slopes, bias, bias_batch, bias_head, seqQ, seqKV, heads, kvHeads, d, dv,     \
                      left, right, (float)scale, (float)softcap},                                                                   \
                     shared);                                                                                                       \
  }

ATTENTION(64)
ATTENTION(128)
ATTENTION(256)
