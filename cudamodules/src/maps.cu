// Which keys the heads of attention look at, on average, for some query rows (grounding.AttentionMaps):
//
//   maps[b, i, p] = 1/heads · Σ_h P_h[b, i, p]    P_h = e^(scale·q[b, t_i, h]·k[b, p, h] − lse[b, h, t_i])
//
// q is (batch, seq, heads, d), k (batch, n, kvHeads, d), lse (batch, heads, seq), tokens the t_i, integers of 8 bytes: `count` of them,
// which may repeat. With dS = P∘dMaps/heads, dq = scale·Σ_p dS·k and dlse = −Σ_p dS are added up over the i of a token, and 0 for tokens
// that were not chosen; dk = scale·Σ_i dS·q over the heads that share a key.
//
//   maps         a thread has a number
//   maps_rows    a warp has a row of dq, its lanes a key each; dynamic shared memory: 8·d numbers, columns of its own for each lane
//   maps_keys    a warp has a row of dk, its lanes a chosen token each; likewise
#include "math.cuh"

template <class T> struct Maps {
  const T *q, *k, *lse;
  const i64 *tokens;
  i64 batch, seq, heads, kvHeads, n, count, d;
  T scale;

  METHOD const T *query(i64 b, i64 t, i64 h) const { return q + ((b * seq + t) * heads + h) * d; }
  METHOD const T *key(i64 b, i64 p, i64 kh) const { return k + ((b * n + p) * kvHeads + kh) * d; }
  METHOD T weight(i64 b, i64 t, i64 h, i64 p) const {
    const T *x = query(b, t, h), *y = key(b, p, h / (heads / kvHeads));
    T s = 0;
    for (i64 c = 0; c < d; c++) s = fused(x[c], y[c], s);
    return exponential(scale * s - lse[(b * heads + h) * seq + t]);
  }
};

constexpr int maps_warps = 8;

template <class T> INLINE void rows(const Maps<T> &a, const T *dMaps, T *dq, T *dlse, T *shared) {
  const int lane = lane_id(), warp = threadIdx.x / 32;
  T *sum = shared + warp * a.d;
  for (i64 row = (i64)blockIdx.x * maps_warps + warp; row < a.batch * a.seq * a.heads; row += (i64)gridDim.x * maps_warps) {
    const i64 h = row % a.heads, t = row / a.heads % a.seq, b = row / a.heads / a.seq, kh = h / (a.heads / a.kvHeads);
    for (i64 c = lane; c < a.d; c += 32) sum[c] = 0;
    T all = 0;
    for (i64 i = 0; i < a.count; i++) {
      if (a.tokens[i] != t) continue;
      for (i64 p0 = 0; p0 < a.n; p0 += 32) {
        const i64 p = p0 + lane;
        const T ds = p < a.n ? a.weight(b, t, h, p) * dMaps[(b * a.count + i) * a.n + p] / (T)a.heads : (T)0;
        all += ds;
        for (int l = 0; l < 32 && p0 + l < a.n; l++) {
          const T dl = shuffle(ds, l);
          const T *key = a.key(b, p0 + l, kh);
          for (i64 c = lane; c < a.d; c += 32) sum[c] = fused(dl, key[c], sum[c]);
        }
      }
    }
    all = warp_sum(all);
    if (lane == 0) dlse[(b * a.heads + h) * a.seq + t] = -all;
    for (i64 c = lane; c < a.d; c += 32) dq[row * a.d + c] = a.scale * sum[c];
  }
}

template <class T> INLINE void keys(const Maps<T> &a, const T *dMaps, T *dk, T *shared) {
  const int lane = lane_id(), warp = threadIdx.x / 32;
  const i64 group = a.heads / a.kvHeads;
  T *sum = shared + warp * a.d;
  for (i64 row = (i64)blockIdx.x * maps_warps + warp; row < a.batch * a.n * a.kvHeads; row += (i64)gridDim.x * maps_warps) {
    const i64 kh = row % a.kvHeads, p = row / a.kvHeads % a.n, b = row / a.kvHeads / a.n;
    for (i64 c = lane; c < a.d; c += 32) sum[c] = 0;
    for (i64 h = kh * group; h < (kh + 1) * group; h++)
      for (i64 i0 = 0; i0 < a.count; i0 += 32) {
        const i64 i = i0 + lane;
        const T ds = i < a.count ? a.weight(b, a.tokens[i], h, p) * dMaps[(b * a.count + i) * a.n + p] / (T)a.heads : (T)0;
        for (int l = 0; l < 32 && i0 + l < a.count; l++) {
          const T dl = shuffle(ds, l);
          const T *query = a.query(b, a.tokens[i0 + l], h);
          for (i64 c = lane; c < a.d; c += 32) sum[c] = fused(dl, query[c], sum[c]);
        }
      }
    for (i64 c = lane; c < a.d; c += 32) dk[row * a.d + c] = a.scale * sum[c];
  }
}

#define MAPS_PARAMETERS(T)                                                                                                      \
  const T *q, const T *k, const T *lse, const i64 *tokens, i64 batch, i64 seq, i64 heads, i64 kvHeads, i64 n, i64 count, i64 d, \
      double scale
#define MAPS_ARGUMENTS(T) {q, k, lse, tokens, batch, seq, heads, kvHeads, n, count, d, (T)scale}

#define MAPS(T, t)                                                                                                               \
  KERNEL(256, maps_##t, (T *maps, MAPS_PARAMETERS(T))) {                                                                         \
    const Maps<T> a MAPS_ARGUMENTS(T);                                                                                           \
    for (i64 e = grid_first(); e < batch * count * n; e += grid_stride()) {                                                      \
      const i64 p = e % n, i = e / n % count, b = e / n / count;                                                                 \
      T s = 0;                                                                                                                   \
      for (i64 h = 0; h < heads; h++) s += a.weight(b, tokens[i], h, p);                                                         \
      maps[e] = s / (T)heads;                                                                                                    \
    }                                                                                                                            \
  }                                                                                                                              \
  KERNEL(32 * maps_warps, maps_rows_##t, (T *dq, T *dlse, const T *dMaps, MAPS_PARAMETERS(T))) {                                 \
    DYNAMIC_SHARED(T, shared);                                                                                                   \
    rows<T>(MAPS_ARGUMENTS(T), dMaps, dq, dlse, shared);                                                                         \
  }                                                                                                                              \
  KERNEL(32 * maps_warps, maps_keys_##t, (T *dk, const T *dMaps, MAPS_PARAMETERS(T))) {                                          \
    DYNAMIC_SHARED(T, shared);                                                                                                   \
    keys<T>(MAPS_ARGUMENTS(T), dMaps, dk, shared);                                                                               \
  }
MAPS(float, f32)
MAPS(double, f64)
