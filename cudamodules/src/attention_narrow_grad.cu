// The gradient of attention in BF16, and on integers of 8 bits, on tensor cores: attention_grad.cu's equations. Weights come from the
// logits of attention_narrow.cu. What multiplies is rounded to BF16: dOut, v, weights, dX·slope, and q and k also where the logits are
// of codes (straight through; Bengio et al. 2013, arXiv 1308.3432).
//
// A block keeps 64 rows of two matrices in shared memory, and those of the others pass through it by asynchronous copies. Gradients
// wider than an instance has room for are computed in parts, each with weights of its own. No sum passes through memory, so the bits
// are the same on every run.
#include "attention_narrow.cuh"

constexpr int kept_rows = 64;

// Gradient is what a gradient reads besides Operands: dOut, q and k in BF16, and what the forward pass left.
struct Gradient {
  const u8 *dOut, *q, *k;
  i64 qk_width;               // bytes of a row of q and k in BF16
  const float *stats, *delta;  // stats (2, batch, heads, seqQ), delta (batch, heads, seqQ)
  i64 batch;
};

// Row is what the forward pass left of a row: by multiplies its products of codes, plus is added, and top is taken from its logits.
struct Row {
  float top, inverse, delta, by, plus;
};
template <bool codes> INLINE Row row_of(const Attention &a, const Operands &x, const Gradient &gr, i64 b, i64 h, i64 i) {
  if (i >= a.seqQ) return {0, 0, 0, 0, 0};
  const i64 row = (b * a.heads + h) * a.seqQ + i;
  const float sum = gr.stats[gr.batch * a.heads * a.seqQ + row];
  Row r = {gr.stats[row], sum == 0 ? 0.f : 1 / sum, gr.delta[row], 1, 0};
  if (codes) {
    r.by = x.q_scales[row];
    if (a.softcap > 0)
      r.plus = x.lift[row];
    else
      r.top -= a.scale * x.lift[row];
  }
  return r;
}

// weigh makes the weight and the gradient of a product of the product s and of dP = dOut·v.
INLINE void weigh(const Attention &a, const Row &r, bool easy, i64 b, i64 h, i64 i, i64 j, float *s, float *dp) {
  float slope = a.scale, x = easy ? *s * a.scale : logit(a, *s, b, h, i, j, &slope);
  const bool seen = x != -infinity<float>() && r.inverse != 0;
  *s = seen ? exp2_fast((x - r.top) * log2_e) * r.inverse : 0.f;
  *dp = seen ? *s * (*dp - r.delta) * slope : 0.f;
}

// rows_gradient computes 8·M columns of 64 rows of dQ of one head; N keys pass at a time.
template <int M, int N, bool codes>
INLINE void rows_gradient(const Attention &a, const Operands &x, const Gradient &gr, i64 parts, float *dQ, u8 *shared) {
  const i64 h = blockIdx.y, b = blockIdx.z, bh = b * a.heads + h, bk = b * a.kvHeads + h / (a.heads / a.kvHeads);
  const i64 i0 = (i64)blockIdx.x / parts * kept_rows, row0 = i0 + threadIdx.x / 32 * 16;
  const int g = lane_id() / 4, t = lane_id() % 4, c0 = (int)(blockIdx.x % parts) * 8 * M;
  const i64 pq = x.width + row_gap, pv = x.v_width + row_gap, pk = gr.qk_width + row_gap, tile = N * (pq + pv + (codes ? pk : 0));
  u8 *sq = shared, *sd = sq + kept_rows * pq, *tiles = sd + kept_rows * pv;
  const u8 *k = x.k + bk * a.seqKV * x.width, *v = x.v + bk * a.seqKV * x.v_width, *wide = gr.k + bk * a.seqKV * gr.qk_width;
  stage(sq, x.q + bh * a.seqQ * x.width, i0, kept_rows, a.seqQ, x.width);
  stage(sd, gr.dOut + bh * a.seqQ * x.v_width, i0, kept_rows, a.seqQ, x.v_width);
  Row rows[2];
  UNROLL
  for (int r = 0; r < 2; r++) rows[r] = row_of<codes>(a, x, gr, b, h, row0 + g + 8 * r);

  float sum[M][4];
  zero<M>(sum);
  const i64 last = i0 + kept_rows < a.seqQ ? i0 + kept_rows - 1 : a.seqQ - 1, begin = first_key(a, i0) / N * N, end = end_key(a, last);
  if (begin < end) {
    stage(tiles, k, begin, N, a.seqKV, x.width);
    stage(tiles + N * pq, v, begin, N, a.seqKV, x.v_width);
    if (codes) stage(tiles + N * (pq + pv), wide, begin, N, a.seqKV, gr.qk_width);
  }
  end_copies();
  int at = 0;
  for (i64 j0 = begin; j0 < end; j0 += N) {
    wait_copies<0>();
    BARRIER(0);
    const u8 *sk = tiles + at * tile, *sv = sk + N * pq, *sw = codes ? sv + N * pv : sk;
    at ^= 1;
    if (j0 + N < end) {
      u8 *next = tiles + at * tile;
      stage(next, k, j0 + N, N, a.seqKV, x.width);
      stage(next + N * pq, v, j0 + N, N, a.seqKV, x.v_width);
      if (codes) stage(next + N * (pq + pv), wide, j0 + N, N, a.seqKV, gr.qk_width);
    }
    end_copies();
    float s[N / 8][4], dp[N / 8][4];
    products<N / 8, codes>(s, sq, sk, x.width);
    products<N / 8, false>(dp, sd, sv, x.v_width);
    const bool all = easy(a, row0, j0, N);
    UNROLL
    for (int n = 0; n < N / 8; n++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        const i64 j = j0 + n * 8 + 2 * t + c % 2;
        const Row &r = rows[c / 2];
        if (codes) s[n][c] = s[n][c] * (r.by * (j < a.seqKV ? x.k_scales[bk * a.seqKV + j] : 0.f)) + r.plus;
        weigh(a, r, all, b, h, row0 + g + c / 2 * 8, j, &s[n][c], &dp[n][c]);
      }
    accumulate<N / 8, M>(sum, dp, sw, gr.qk_width, c0);
  }
  wait_copies<0>();
  store<M>(dQ + (b * a.seqQ * a.heads + h) * a.d, sum, i0, a.seqQ, a.heads * a.d, a.d, c0);
}

// keys_gradient computes 8·M columns of 64 rows of dK and dV of one key head, from all heads that share it; N query rows pass at a time.
template <int M, int N, bool codes>
INLINE void keys_gradient(const Attention &a, const Operands &x, const Gradient &gr, i64 parts, float *dK, float *dV, u8 *shared) {
  const i64 kh = blockIdx.y, b = blockIdx.z, group = a.heads / a.kvHeads, bk = b * a.kvHeads + kh;
  const i64 j0 = (i64)blockIdx.x / parts * kept_rows, key0 = j0 + threadIdx.x / 32 * 16;
  const int g = lane_id() / 4, t = lane_id() % 4, c0 = (int)(blockIdx.x % parts) * 8 * M;
  const i64 pq = x.width + row_gap, pv = x.v_width + row_gap, pk = gr.qk_width + row_gap;
  const i64 tile = N * (pq + pv + (codes ? pk : 0) + (i64)sizeof(Row));
  u8 *sk = shared, *sv = sk + kept_rows * pq, *tiles = sv + kept_rows * pv;
  stage(sk, x.k + bk * a.seqKV * x.width, j0, kept_rows, a.seqKV, x.width);
  stage(sv, x.v + bk * a.seqKV * x.v_width, j0, kept_rows, a.seqKV, x.v_width);
  float by[2] = {1, 1};
  if (codes)
    UNROLL
    for (int r = 0; r < 2; r++) by[r] = key0 + g + 8 * r < a.seqKV ? x.k_scales[bk * a.seqKV + key0 + g + 8 * r] : 0.f;

  float sumK[M][4], sumV[M][4];
  zero<M>(sumK);
  zero<M>(sumV);
  // The rows that see any of the keys j0 … j0+63: j − right ≤ p ≤ j + left.
  const i64 offset = a.seqKV - a.seqQ, last = (j0 + kept_rows < a.seqKV ? j0 + kept_rows : a.seqKV) - 1;
  const i64 from = j0 - a.right - offset, to = last + a.left - offset + 1;
  const i64 begin = from < 0 ? 0 : from / N * N, end = to > a.seqQ ? a.seqQ : to;
  // Tiles of the rows of one head, then of the next.
  const i64 each = begin < end ? (end - begin + N - 1) / N : 0, all = each * group;
  for (i64 n = -1, at = 1; n < all; n++) {
    // The tile after this one.
    if (n >= 0) {
      wait_copies<0>();
      BARRIER(1);
    }
    if (n + 1 < all) {
      u8 *next = tiles + (at ^ 1) * tile;
      const i64 h = kh * group + (n + 1) / each, i0 = begin + (n + 1) % each * N, bh = b * a.heads + h;
      stage(next, x.q + bh * a.seqQ * x.width, i0, N, a.seqQ, x.width);
      stage(next + N * pq, gr.dOut + bh * a.seqQ * x.v_width, i0, N, a.seqQ, x.v_width);
      if (codes) stage(next + N * (pq + pv), gr.q + bh * a.seqQ * gr.qk_width, i0, N, a.seqQ, gr.qk_width);
      if (threadIdx.x < N) ((Row *)(next + tile - N * (i64)sizeof(Row)))[threadIdx.x] = row_of<codes>(a, x, gr, b, h, i0 + threadIdx.x);
    }
    end_copies();
    at ^= 1;
    if (n < 0) continue;
    const u8 *sq = tiles + (at ^ 1) * tile, *sd = sq + N * pq, *sw = codes ? sd + N * pv : sq;
    const Row *rows = (const Row *)(sq + tile - N * (i64)sizeof(Row));
    const i64 h = kh * group + n / each, i0 = begin + n % each * N;
    float s[N / 8][4], dp[N / 8][4];
    products<N / 8, codes>(s, sk, sq, x.width);
    products<N / 8, false>(dp, sv, sd, x.v_width);
    // Rows i0 … i0+N−1 see all keys of the warp.
    const bool seen = a.softcap == 0 && !a.slopes && !a.bias && i0 + N <= a.seqQ && key0 >= first_key(a, i0 + N - 1) && key0 + 16 <= end_key(a, i0);
    UNROLL
    for (int m = 0; m < N / 8; m++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        const Row &r = rows[m * 8 + 2 * t + c % 2];
        if (codes) s[m][c] = s[m][c] * (r.by * by[c / 2]) + r.plus;
        weigh(a, r, seen, b, h, i0 + m * 8 + 2 * t + c % 2, key0 + g + c / 2 * 8, &s[m][c], &dp[m][c]);
      }
    accumulate<N / 8, M>(sumV, s, sd, x.v_width, c0);
    accumulate<N / 8, M>(sumK, dp, sw, gr.qk_width, c0);
  }
  wait_copies<0>();
  store<M>(dK + (b * a.seqKV * a.kvHeads + kh) * a.d, sumK, j0, a.seqKV, a.kvHeads * a.d, a.d, c0);
  store<M>(dV + (b * a.seqKV * a.kvHeads + kh) * a.dv, sumV, j0, a.seqKV, a.kvHeads * a.dv, a.dv, c0);
}

#define GRADIENT_PARAMETERS                                                                                                         \
  i64 parts, const u8 *dOut, const u8 *wideQ, const u8 *wideK, i64 qk_width, const float *stats, const float *delta, i64 batch,     \
      const u8 *q, const u8 *k, const u8 *v, i64 width, i64 v_width, const float *q_scales, const float *k_scales,                  \
      const float *lift, const float *slopes, const float *bias, i64 bias_batch, i64 bias_head, i64 seqQ, i64 seqKV, i64 heads,     \
      i64 kvHeads, i64 d, i64 dv, i64 left, i64 right, double scale, double softcap
#define GRADIENT_ARGUMENTS                                                                                                          \
  {nullptr, nullptr, nullptr, nullptr, slopes, bias, bias_batch, bias_head, seqQ, seqKV, heads, kvHeads, d, dv, left, right,        \
   (float)scale, (float)softcap},                                                                                                   \
      {q, k, v, width, v_width, q_scales, k_scales, lift}, {dOut, wideQ, wideK, qk_width, stats, delta, batch}, parts

// `most` is the largest number of columns of a part, `keys` and `rows` how many pass at a time. Dynamic shared memory: with p, pv and pk
// the widths plus 16, 64·(p + pv) + 2·tile·(p + pv + pk, if of codes), and 2·tile·20 more for keys.
#define ATTENTION_GRADIENT(name, codes, most, keys, rows)                                                                           \
  KERNEL(attention_threads, attention_grad_rows_##name##_##most##_f32, (float *dQ, GRADIENT_PARAMETERS)) {                          \
    DYNAMIC_SHARED(u8, shared);                                                                                                     \
    rows_gradient<most / 8, keys, codes>(GRADIENT_ARGUMENTS, dQ, shared);                                                           \
  }                                                                                                                                 \
  KERNEL(attention_threads, attention_grad_keys_##name##_##most##_f32, (float *dK, float *dV, GRADIENT_PARAMETERS)) {               \
    DYNAMIC_SHARED(u8, shared);                                                                                                     \
    keys_gradient<most / 8, rows, codes>(GRADIENT_ARGUMENTS, dK, dV, shared);                                                       \
  }

ATTENTION_GRADIENT(bf16, false, 64, 64, 32)
ATTENTION_GRADIENT(bf16, false, 128, 32, 32)
ATTENTION_GRADIENT(int8, true, 64, 64, 32)
ATTENTION_GRADIENT(int8, true, 128, 32, 32)
