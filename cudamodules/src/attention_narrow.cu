// Attention forward on tensor cores in BF16, and on integers of 8 bits with values in BF16: attention.cu's equations and results with
// the numbers that flashattn.Precision has. Weights that multiply values are rounded to BF16, those that are summed are not.
//
// A block of eight warps has 128 rows of one head. Tiles of keys and values come by asynchronous copies, the next one while this one is
// multiplied.
#include "attention_narrow.cuh"

constexpr int narrow_threads = 256, narrow_rows_tile = 128;

template <int NV, int N, bool codes>
INLINE void attend(const Attention &a, const Operands &x, float *to, float *lse, float *stats, u8 *shared) {
  const i64 h = blockIdx.y, b = blockIdx.z, group = a.heads / a.kvHeads, bh = b * a.heads + h, bk = b * a.kvHeads + h / group;
  const i64 i0 = (i64)blockIdx.x * narrow_rows_tile, row0 = i0 + threadIdx.x / 32 * 16;
  const int g = lane_id() / 4, t = lane_id() % 4;
  const i64 pitch = x.width + row_gap, tile = N * (pitch + x.v_width + row_gap);
  u8 *sq = shared, *tiles = sq + narrow_rows_tile * pitch;
  const u8 *k = x.k + bk * a.seqKV * x.width, *v = x.v + bk * a.seqKV * x.v_width;
  stage(sq, x.q + bh * a.seqQ * x.width, i0, narrow_rows_tile, a.seqQ, x.width);

  float o[NV][4], top[2] = {-infinity<float>(), -infinity<float>()}, sum[2] = {0, 0};
  UNROLL
  for (int n = 0; n < NV; n++)
    UNROLL
    for (int c = 0; c < 4; c++) o[n][c] = 0;
  // Of codes: what products of the rows g and g+8 are multiplied by, and what is added.
  float by[2] = {1, 1}, lift[2] = {0, 0};
  if (codes)
    UNROLL
    for (int r = 0; r < 2; r++)
      if (row0 + g + 8 * r < a.seqQ) {
        by[r] = x.q_scales[bh * a.seqQ + row0 + g + 8 * r];
        lift[r] = x.lift[bh * a.seqQ + row0 + g + 8 * r];
      }

  const i64 last = i0 + narrow_rows_tile < a.seqQ ? i0 + narrow_rows_tile - 1 : a.seqQ - 1;
  const i64 begin = first_key(a, i0) / N * N, end = end_key(a, last);
  if (begin < end) {
    stage(tiles, k, begin, N, a.seqKV, x.width);
    stage(tiles + N * pitch, v, begin, N, a.seqKV, x.v_width);
  }
  end_copies();
  int at = 0;
  for (i64 j0 = begin; j0 < end; j0 += N) {
    wait_copies<0>();
    BARRIER(0);
    const u8 *sk = tiles + at * tile, *sv = sk + N * pitch;
    at ^= 1;
    if (j0 + N < end) {
      stage(tiles + at * tile, k, j0 + N, N, a.seqKV, x.width);
      stage(tiles + at * tile + N * pitch, v, j0 + N, N, a.seqKV, x.v_width);
    }
    end_copies();
    float s[N / 8][4];
    products<N / 8, codes>(s, sq, sk, x.width);
    if (codes)
      UNROLL
      for (int n = 0; n < N / 8; n++)
        UNROLL
        for (int c = 0; c < 2; c++) {
          const i64 j = j0 + n * 8 + 2 * t + c;
          const float scale = j < a.seqKV ? x.k_scales[bk * a.seqKV + j] : 0.f;
          UNROLL
          for (int r = 0; r < 2; r++) s[n][c + 2 * r] = s[n][c + 2 * r] * (by[r] * scale) + (a.softcap > 0 ? lift[r] : 0.f);
        }
    float high[2] = {top[0], top[1]}, shrink[2];
    const bool all = easy(a, row0, j0, N);
    UNROLL
    for (int n = 0; n < N / 8; n++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        const int r = c / 2;
        s[n][c] = all ? s[n][c] * a.scale : logit(a, s[n][c], b, h, row0 + g + 8 * r, j0 + n * 8 + 2 * t + c % 2);
        high[r] = larger(high[r], s[n][c]);
      }
    UNROLL
    for (int r = 0; r < 2; r++) {
      // The four lanes of a row.
      high[r] = larger(high[r], shuffle_xor(high[r], 1));
      high[r] = larger(high[r], shuffle_xor(high[r], 2));
      shrink[r] = high[r] == -infinity<float>() ? 1.f : exp2_fast((top[r] - high[r]) * log2_e);
      top[r] = high[r];
      sum[r] *= shrink[r];
    }
    UNROLL
    for (int n = 0; n < N / 8; n++)
      UNROLL
      for (int c = 0; c < 4; c++) {
        const int r = c / 2;
        s[n][c] = top[r] == -infinity<float>() ? 0.f : exp2_fast((s[n][c] - top[r]) * log2_e);
        sum[r] += s[n][c];
      }
    UNROLL
    for (int n = 0; n < NV; n++)
      UNROLL
      for (int c = 0; c < 4; c++) o[n][c] *= shrink[c / 2];
    accumulate<N / 8, NV>(o, s, sv, x.v_width);
  }
  wait_copies<0>();
  if (codes && !(a.softcap > 0))
    UNROLL
    for (int r = 0; r < 2; r++) top[r] += a.scale * lift[r];
  finish<NV>(a, to, lse, stats, b, h, row0, o, top, sum);
}

// The number is the largest dv, `tile` how many keys pass at a time. Dynamic shared memory: with p = width + 16 and pv = v_width + 16,
// 128·p + 2·tile·(p + pv) bytes.
#define ATTENTION(name, codes, most, tile)                                                                                          \
  KERNEL(narrow_threads, attention_##name##_##most##_f32,                                                                           \
         (float *out, float *lse, float *stats, const u8 *q, const u8 *k, const u8 *v, i64 width, i64 v_width,                      \
          const float *q_scales, const float *k_scales, const float *lift, const float *sinks, const float *slopes,                 \
          const float *bias, i64 bias_batch, i64 bias_head, i64 seqQ, i64 seqKV, i64 heads, i64 kvHeads, i64 d, i64 dv, i64 left,   \
          i64 right, double scale, double softcap)) {                                                                               \
    DYNAMIC_SHARED(u8, shared);                                                                                                     \
    attend<most / 8, tile, codes>({nullptr, nullptr, nullptr, sinks, slopes, bias, bias_batch, bias_head, seqQ, seqKV, heads,       \
                                   kvHeads, d, dv, left, right, (float)scale, (float)softcap},                                      \
                                  {q, k, v, width, v_width, q_scales, k_scales, lift}, out, lse, stats, shared);                    \
  }

ATTENTION(bf16, false, 64, 64)
ATTENTION(bf16, false, 128, 64)
ATTENTION(bf16, false, 256, 32)
ATTENTION(int8, true, 64, 64)
ATTENTION(int8, true, 128, 64)
ATTENTION(int8, true, 256, 32)
