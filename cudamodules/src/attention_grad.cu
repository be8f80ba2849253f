// The gradient of attention in tiles, on tensor cores, with the error of float (three TF32 products for one). With the logits x and
// the weights w of attention.cu, and delta = rowsum(dOut∘out) − dLSE,
//
//   dV = wᵀ·dOut    dX = w∘(dOut·vᵀ − delta)    dQ = dX·slope·k    dK = (dX·slope)ᵀ·q        slope = dx/d(q·k)
//
// (FlashAttention, Dao et al. 2022, algorithm 4). Weights are computed again from stats, the largest logits and sums that the
// forward pass left. One kernel has the rows of dQ, another those of dK and dV, so that each number is written once, by one thread,
// and nothing is added to in memory: seven products for five, and the same bits on every run.
//
// A block keeps 64 rows of two matrices (of q and dOut, or of k and v) in shared memory, and those of the other two pass through it in
// tiles. A warp has 16 rows, and their gradients in registers.
#include "attention.cuh"

struct Gradient {
  const float *dOut, *stats, *delta;  // stats (2, batch, heads, seqQ), delta (batch, heads, seqQ)
  i64 batch;
};

// Row is what the forward pass left of a row.
struct Row {
  float top, inverse, delta;
};
INLINE Row row_of(const Attention &a, const Gradient &g, i64 b, i64 h, i64 i) {
  if (i >= a.seqQ) return {0, 0, 0};
  const i64 row = (b * a.heads + h) * a.seqQ + i;
  const float sum = g.stats[g.batch * a.heads * a.seqQ + row];
  return {g.stats[row], sum == 0 ? 0.f : 1 / sum, g.delta[row]};
}

// weigh makes the weight and the gradient of a product of the product s and of dP = dOut·v.
INLINE void weigh(const Attention &a, const Row &r, i64 b, i64 h, i64 i, i64 j, float *s, float *dp) {
  float slope, x = logit(a, *s, b, h, i, j, &slope);
  const bool seen = x != -infinity<float>() && r.inverse != 0;
  *s = seen ? exponential(x - r.top) * r.inverse : 0.f;
  *dp = seen ? *s * (*dp - r.delta) * slope : 0.f;
}

// products is out (16 × 8·N) = rows of x, those of the warp, times the rows of y, transposed.
template <int N> INLINE void products(float (*out)[4], const float *x, const float *y, int p, int d) {
  zero<N>(out);
  for (int c0 = 0; c0 < d; c0 += 8) {
    Halves<4> left = left_fragment(x, p, threadIdx.x / 32 * 16, c0);
    UNROLL
    for (int n = 0; n < N; n++) mma_f32(out[n], left, right_rows(y, p, n * 8, c0));
  }
}

// accumulate is sum (16 × 8·M) += w (16 × 8·N) times the rows of y.
template <int N, int M> INLINE void accumulate(float (*sum)[4], const float (*w)[4], const float *y, int p, int d) {
  UNROLL
  for (int n = 0; n < N; n++) {
    Halves<4> left = paired(w[n]);
    UNROLL
    for (int m = 0; m < M; m++)
      if (m * 8 < d) mma_f32(sum[m], left, right_paired(y, p, n * 8, m * 8));
  }
}

// rows_gradient computes 64 rows of dQ of one head; N is the tile of keys over 8.
template <int M, int N> INLINE void rows_gradient(const Attention &a, const Gradient &gr, float *dQ, float *shared) {
  const i64 h = blockIdx.y, b = blockIdx.z, kh = h / (a.heads / a.kvHeads), i0 = (i64)blockIdx.x * rows_tile;
  const int warp = threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4, d = (int)a.d, dv = (int)a.dv, pd = pitch(d), pv = pitch(dv);
  float *sq = shared, *sd = sq + rows_tile * pd, *sk = sd + rows_tile * pv, *sv = sk + 8 * N * pd;
  const float *k = a.k + (b * a.seqKV * a.kvHeads + kh) * a.d, *v = a.v + (b * a.seqKV * a.kvHeads + kh) * a.dv;
  load(sq, a.q + (b * a.seqQ * a.heads + h) * a.d, i0, rows_tile, a.seqQ, a.heads * a.d, d);
  load(sd, gr.dOut + (b * a.seqQ * a.heads + h) * a.dv, i0, rows_tile, a.seqQ, a.heads * a.dv, dv);
  Row rows[2];
  UNROLL
  for (int r = 0; r < 2; r++) rows[r] = row_of(a, gr, b, h, i0 + warp * 16 + g + 8 * r);

  float sum[M][4];
  zero<M>(sum);
  const i64 last = i0 + rows_tile < a.seqQ ? i0 + rows_tile - 1 : a.seqQ - 1, end = end_key(a, last);
  for (i64 j0 = first_key(a, i0) / (8 * N) * (8 * N); j0 < end; j0 += 8 * N) {
    BARRIER(0);
    load(sk, k, j0, 8 * N, a.seqKV, a.kvHeads * a.d, d);
    load(sv, v, j0, 8 * N, a.seqKV, a.kvHeads * a.dv, dv);
    BARRIER(1);
    float s[N][4], dp[N][4];
    products<N>(s, sq, sk, pd, d);
    products<N>(dp, sd, sv, pv, dv);
    UNROLL
    for (int n = 0; n < N; n++)
      UNROLL
      for (int c = 0; c < 4; c++)
        weigh(a, rows[c / 2], b, h, i0 + warp * 16 + g + c / 2 * 8, j0 + n * 8 + 2 * t + c % 2, &s[n][c], &dp[n][c]);
    accumulate<N, M>(sum, dp, sk, pd, d);
  }
  store<M>(dQ + (b * a.seqQ * a.heads + h) * a.d, sum, i0, a.seqQ, a.heads * a.d, d);
}

// keys_gradient computes 64 rows of dK and dV of one key head, from all heads that share it; N is the tile of query rows over 8.
template <int M, int N> INLINE void keys_gradient(const Attention &a, const Gradient &gr, float *dK, float *dV, float *shared) {
  const i64 kh = blockIdx.y, b = blockIdx.z, group = a.heads / a.kvHeads, j0 = (i64)blockIdx.x * rows_tile;
  const int warp = threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4, d = (int)a.d, dv = (int)a.dv, pd = pitch(d), pv = pitch(dv);
  float *sk = shared, *sv = sk + rows_tile * pd, *sq = sv + rows_tile * pv, *sd = sq + 8 * N * pd;
  load(sk, a.k + (b * a.seqKV * a.kvHeads + kh) * a.d, j0, rows_tile, a.seqKV, a.kvHeads * a.d, d);
  load(sv, a.v + (b * a.seqKV * a.kvHeads + kh) * a.dv, j0, rows_tile, a.seqKV, a.kvHeads * a.dv, dv);

  float sumK[M][4], sumV[M][4];
  zero<M>(sumK);
  zero<M>(sumV);
  // The rows that see any of the keys j0 … j0+63: j − right ≤ p ≤ j + left.
  const i64 offset = a.seqKV - a.seqQ, last = (j0 + rows_tile < a.seqKV ? j0 + rows_tile : a.seqKV) - 1;
  const i64 from = j0 - a.right - offset, to = last + a.left - offset + 1;
  const i64 first = from < 0 ? 0 : from / (8 * N) * (8 * N), end = to > a.seqQ ? a.seqQ : to;
  for (i64 h = kh * group; h < (kh + 1) * group; h++)
    for (i64 i0 = first; i0 < end; i0 += 8 * N) {
      BARRIER(2);
      load(sq, a.q + (b * a.seqQ * a.heads + h) * a.d, i0, 8 * N, a.seqQ, a.heads * a.d, d);
      load(sd, gr.dOut + (b * a.seqQ * a.heads + h) * a.dv, i0, 8 * N, a.seqQ, a.heads * a.dv, dv);
      BARRIER(3);
      float s[N][4], dp[N][4];
      products<N>(s, sk, sq, pd, d);
      products<N>(dp, sv, sd, pv, dv);
      UNROLL
      for (int n = 0; n < N; n++)
        UNROLL
        for (int c = 0; c < 4; c++) {
          const i64 i = i0 + n * 8 + 2 * t + c % 2, j = j0 + warp * 16 + g + c / 2 * 8;
          weigh(a, row_of(a, gr, b, h, i), b, h, i, j, &s[n][c], &dp[n][c]);
        }
      accumulate<N, M>(sumV, s, sd, pv, dv);
      accumulate<N, M>(sumK, dp, sq, pd, d);
    }
  store<M>(dK + (b * a.seqKV * a.kvHeads + kh) * a.d, sumK, j0, a.seqKV, a.kvHeads * a.d, d);
  store<M>(dV + (b * a.seqKV * a.kvHeads + kh) * a.dv, sumV, j0, a.seqKV, a.kvHeads * a.dv, dv);
}

#define GRADIENT_PARAMETERS                                                                                                         \
  const float *dOut, const float *stats, const float *delta, const float *q, const float *k, const float *v, const float *slopes,   \
      const float *bias, i64 bias_batch, i64 bias_head, i64 batch, i64 seqQ, i64 seqKV, i64 heads, i64 kvHeads, i64 d, i64 dv,      \
      i64 left, i64 right, double scale, double softcap
#define GRADIENT_ARGUMENTS                                                                                                          \
  {q, k, v, nullptr, slopes, bias, bias_batch, bias_head, seqQ, seqKV, heads, kvHeads, d, dv, left, right, (float)scale,            \
   (float)softcap},                                                                                                                 \
      {dOut, stats, delta, batch}

// `most` is the largest d and dv, `tile` how many keys or rows pass at a time. Dynamic shared memory: 4·(64 + tile)·(pitch(d) + pitch(dv))
// bytes.
#define ATTENTION_GRADIENT(most, tile)                                                                                              \
  KERNEL(attention_threads, attention_grad_rows_##most##_f32, (float *dQ, GRADIENT_PARAMETERS)) {                                   \
    DYNAMIC_SHARED(float, shared);                                                                                                  \
    rows_gradient<most / 8, tile / 8>(GRADIENT_ARGUMENTS, dQ, shared);                                                              \
  }                                                                                                                                 \
  KERNEL(attention_threads, attention_grad_keys_##most##_f32, (float *dK, float *dV, GRADIENT_PARAMETERS)) {                        \
    DYNAMIC_SHARED(float, shared);                                                                                                  \
    keys_gradient<most / 8, tile / 8>(GRADIENT_ARGUMENTS, dK, dV, shared);                                                          \
  }

ATTENTION_GRADIENT(64, 32)
ATTENTION_GRADIENT(128, 16)
ATTENTION_GRADIENT(256, 16)
