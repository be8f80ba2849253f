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
#include "attention.cuh"

template <int NV> INLINE void attend(const Attention &a, float *to, float *lse, float *stats, float *shared) {
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

  finish<NV>(a, to, lse, stats, b, h, i0 + warp * 16, o, top, sum);
}

// The number is the largest dv. Dynamic shared memory: 4·((64 + 32)·pitch(d) + 32·pitch(dv)) bytes.
#define ATTENTION(most)                                                                                                             \
  KERNEL(attention_threads, attention_##most##_f32,                                                                                 \
         (float *out, float *lse, float *stats, const float *q, const float *k, const float *v, const float *sinks,                 \
          const float *slopes, const float *bias, i64 bias_batch, i64 bias_head, i64 seqQ, i64 seqKV, i64 heads, i64 kvHeads,       \
          i64 d, i64 dv, i64 left, i64 right, double scale, double softcap)) {                                                      \
    DYNAMIC_SHARED(float, shared);                                                                                                  \
    attend<most / 8>({q, k, v, sinks, slopes, bias, bias_batch, bias_head, seqQ, seqKV, heads, kvHeads, d, dv,                      \
                      left, right, (float)scale, (float)softcap},                                                                   \
                     out, lse, stats, shared);                                                                                      \
  }

ATTENTION(64)
ATTENTION(128)
ATTENTION(256)
