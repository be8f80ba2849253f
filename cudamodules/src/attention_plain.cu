// Attention and its gradient without tensor cores, in float and double, with all that flashattn has: besides what attention.cu and
// attention_grad.cu compute, dropout and packed sequences. A warp has one row of the result, and its lanes a key or a row each.
//
// sinks, slopes, bias, lse, stats, delta are as there. cuQ and cuKV (sequences + 1), null for none, are where packed sequences begin:
// rows of one see only its keys, positions count within it, and rows after the last see nothing. A row of a sequence whose bounds are
// out of range becomes NaN, for a kernel cannot return an error. Weight (b, h, i, j) of (batch, heads, seqQ, seqKV) is dropped by its
// place.
//
// Logits are of q and k, with lift (batch, heads, seqQ; null for none) added to the products of a row; gradients multiply gq and gk, which
// are others where the products are rounded (narrow.cu).
//
// Dynamic shared memory: of _forward 4 warps times dv numbers, of _rows times d, of _keys times d + dv. Each lane has columns of its
// own there, so that nobody waits.
#include "math.cuh"
#include "random.cuh"

constexpr int plain_threads = 128, plain_warps = plain_threads / 32;

template <class T> struct Plain {
  const T *q, *k, *v, *gq, *gk, *lift, *sinks, *slopes, *bias;
  i64 bias_batch, bias_head, batch, seqQ, seqKV, heads, kvHeads, d, dv, left, right;
  T scale, softcap;
  const void *cuQ, *cuKV;
  i64 cuQ_bytes, cuKV_bytes, sequences;
  Dropout<T> drop;
};

// Sight is what a row sees, keys lo ≤ j < hi, from position p.
struct Sight {
  i64 lo, hi, p;
  bool bad;
};
template <class T> INLINE Sight sight_of(const Plain<T> &a, i64 i) {
  i64 k0 = 0, k1 = a.seqKV, p = i + a.seqKV - a.seqQ;
  if (a.cuQ) {
    i64 s = 0;
    while (s < a.sequences && integer_at(a.cuQ, a.cuQ_bytes, s + 1) <= i) s++;
    if (s == a.sequences) return {0, 0, 0, false};
    const i64 q0 = integer_at(a.cuQ, a.cuQ_bytes, s), q1 = integer_at(a.cuQ, a.cuQ_bytes, s + 1);
    k0 = integer_at(a.cuKV, a.cuKV_bytes, s);
    k1 = integer_at(a.cuKV, a.cuKV_bytes, s + 1);
    if (q0 < 0 || q0 > i || q1 > a.seqQ || k0 < 0 || k1 < k0 || k1 > a.seqKV) return {0, 0, 0, true};
    p = i - q0 + k1 - (q1 - q0);
  }
  i64 lo = p - a.left, hi = p + a.right + 1;
  lo = lo < k0 ? k0 : lo > k1 ? k1 : lo;
  hi = hi < k0 ? k0 : hi > k1 ? k1 : hi;
  return {lo, hi < lo ? lo : hi, p, false};
}

template <class T> OUTLINE T bounded(T x, T cap) { return cap * tanh_of(x / cap); }

template <class T> INLINE const T *query(const Plain<T> &a, i64 b, i64 h, i64 i) { return a.q + ((b * a.seqQ + i) * a.heads + h) * a.d; }
template <class T> INLINE i64 key_row(const Plain<T> &a, i64 b, i64 kh, i64 j) { return (b * a.seqKV + j) * a.kvHeads + kh; }
template <class T> INLINE T dot(const T *x, const T *y, i64 n) {
  T s = 0;
  for (i64 c = 0; c < n; c++) s = fused(x[c], y[c], s);
  return s;
}

// plain_logit is the logit of row i and key j, −∞ where it is not seen, and its derivative by q·k.
template <class T> INLINE T plain_logit(const Plain<T> &a, const Sight &s, i64 b, i64 h, i64 i, i64 j, T *slope) {
  *slope = 0;
  if (j < s.lo || j >= s.hi) return -infinity<T>();
  T x = dot(query(a, b, h, i), a.k + key_row(a, b, h / (a.heads / a.kvHeads), j) * a.d, a.d);
  if (a.lift) x += a.lift[(b * a.heads + h) * a.seqQ + i];
  x *= a.scale;
  *slope = a.scale;
  if (a.softcap > 0) {
    x = bounded(x, a.softcap);
    *slope *= 1 - (x / a.softcap) * (x / a.softcap);
  }
  if (a.slopes) x -= a.slopes[h] * (T)(s.p < j ? j - s.p : s.p - j);
  if (a.bias) x += a.bias[b * a.bias_batch + h * a.bias_head + i * a.seqKV + j];
  return x;
}
template <class T> INLINE T plain_kept(const Plain<T> &a, i64 b, i64 h, i64 i, i64 j) {
  return kept(a.drop, (u64)((b * a.heads + h) * a.seqQ + i) * (u64)a.seqKV + (u64)j);
}

template <class T> INLINE void plain_forward(const Plain<T> &a, T *out, T *lse, T *stats, T *shared) {
  const int warp = threadIdx.x / 32, lane = lane_id();
  const i64 rows = a.batch * a.heads * a.seqQ, step = (i64)gridDim.x * plain_warps;
  T *sum = shared + warp * a.dv;
  for (i64 row = (i64)blockIdx.x * plain_warps + warp; row < rows; row += step) {
    const i64 i = row % a.seqQ, h = row / a.seqQ % a.heads, b = row / a.seqQ / a.heads, kh = h / (a.heads / a.kvHeads);
    const Sight s = sight_of(a, i);
    for (i64 c = lane; c < a.dv; c += 32) sum[c] = 0;
    T top = -infinity<T>(), all = 0;
    for (i64 j0 = s.lo; j0 < s.hi; j0 += 32) {
      T slope, x = plain_logit(a, s, b, h, i, j0 + lane, &slope), high = larger(top, warp_max(x));
      T shrink = high == -infinity<T>() ? (T)1 : exponential(top - high);
      T w = x == -infinity<T>() ? (T)0 : exponential(x - high);
      all = fused(all, shrink, warp_sum(w));
      top = high;
      if (w != 0) w *= plain_kept(a, b, h, i, j0 + lane);
      for (i64 c = lane; c < a.dv; c += 32) sum[c] *= shrink;
      for (int l = 0; l < 32 && j0 + l < s.hi; l++) {
        T wl = shuffle(w, l);
        const T *v = a.v + key_row(a, b, kh, j0 + l) * a.dv;
        for (i64 c = lane; wl != 0 && c < a.dv; c += 32) sum[c] = fused(wl, v[c], sum[c]);
      }
    }
    const bool blind = top == -infinity<T>();
    T factor = 0;
    if (!blind) {
      T shrink = 1;
      if (a.sinks) {
        T high = larger(top, a.sinks[h]);
        shrink = exponential(top - high);
        all = fused(all, shrink, exponential(a.sinks[h] - high));
        top = high;
      }
      factor = shrink / all;
    }
    if (s.bad) top = all = factor = not_a_number<T>();
    if (lane == 0) {
      if (lse) lse[row] = blind ? top : top + logarithm(all);
      if (stats) {
        stats[row] = top;
        stats[rows + row] = all;
      }
    }
    T *to = out + ((b * a.seqQ + i) * a.heads + h) * a.dv;
    for (i64 c = lane; c < a.dv; c += 32) to[c] = sum[c] * factor;
  }
}

// Left is what the forward pass left, and the gradient of its results.
template <class T> struct Left {
  const T *dOut, *stats, *delta;
};

// weight is weight (b, h, i, j) after dropout, and *dx the gradient of its logit.
template <class T>
INLINE T weight(const Plain<T> &a, const Left<T> &f, const Sight &s, i64 b, i64 h, i64 i, i64 j, T *dx, T *slope) {
  const i64 row = (b * a.heads + h) * a.seqQ + i;
  const T sum = f.stats[a.batch * a.heads * a.seqQ + row], x = plain_logit(a, s, b, h, i, j, slope);
  *dx = 0;
  if (x == -infinity<T>() || sum == 0) return 0;
  const T w = exponential(x - f.stats[row]) / sum, z = plain_kept(a, b, h, i, j);
  const T dP = dot(f.dOut + ((b * a.seqQ + i) * a.heads + h) * a.dv, a.v + key_row(a, b, h / (a.heads / a.kvHeads), j) * a.dv, a.dv);
  *dx = w * (dP * z - f.delta[row]);
  return w * z;
}

template <class T> INLINE void plain_rows(const Plain<T> &a, const Left<T> &f, T *dQ, T *shared) {
  const int warp = threadIdx.x / 32, lane = lane_id();
  const i64 rows = a.batch * a.heads * a.seqQ, step = (i64)gridDim.x * plain_warps;
  T *sum = shared + warp * a.d;
  for (i64 row = (i64)blockIdx.x * plain_warps + warp; row < rows; row += step) {
    const i64 i = row % a.seqQ, h = row / a.seqQ % a.heads, b = row / a.seqQ / a.heads, kh = h / (a.heads / a.kvHeads);
    const Sight s = sight_of(a, i);
    for (i64 c = lane; c < a.d; c += 32) sum[c] = s.bad ? not_a_number<T>() : (T)0;
    for (i64 j0 = s.lo; j0 < s.hi; j0 += 32) {
      T dx, slope;
      weight(a, f, s, b, h, i, j0 + lane, &dx, &slope);
      dx *= slope;
      for (int l = 0; l < 32 && j0 + l < s.hi; l++) {
        T dl = shuffle(dx, l);
        const T *k = a.gk + key_row(a, b, kh, j0 + l) * a.d;
        for (i64 c = lane; dl != 0 && c < a.d; c += 32) sum[c] = fused(dl, k[c], sum[c]);
      }
    }
    T *to = dQ + ((b * a.seqQ + i) * a.heads + h) * a.d;
    for (i64 c = lane; c < a.d; c += 32) to[c] = sum[c];
  }
}

template <class T> INLINE void plain_keys(const Plain<T> &a, const Left<T> &f, T *dK, T *dV, T *shared) {
  const int warp = threadIdx.x / 32, lane = lane_id();
  const i64 rows = a.batch * a.kvHeads * a.seqKV, step = (i64)gridDim.x * plain_warps, group = a.heads / a.kvHeads;
  T *sumK = shared + warp * (a.d + a.dv), *sumV = sumK + a.d;
  for (i64 row = (i64)blockIdx.x * plain_warps + warp; row < rows; row += step) {
    const i64 j = row % a.seqKV, kh = row / a.seqKV % a.kvHeads, b = row / a.seqKV / a.kvHeads;
    for (i64 c = lane; c < a.d; c += 32) sumK[c] = 0;
    for (i64 c = lane; c < a.dv; c += 32) sumV[c] = 0;
    i64 first = 0, end = a.seqQ;
    if (!a.cuQ) {
      const i64 from = j - a.right - (a.seqKV - a.seqQ), to = j + a.left - (a.seqKV - a.seqQ) + 1;
      first = from < 0 ? 0 : from;
      end = to > a.seqQ ? a.seqQ : to;
    }
    for (i64 h = kh * group; h < (kh + 1) * group; h++)
      for (i64 i0 = first; i0 < end; i0 += 32) {
        const i64 i = i0 + lane;
        T w = 0, dx = 0, slope;
        if (i < end) w = weight(a, f, sight_of(a, i), b, h, i, j, &dx, &slope), dx *= slope;
        for (int l = 0; l < 32 && i0 + l < end; l++) {
          T wl = shuffle(w, l), dl = shuffle(dx, l);
          const T *q = a.gq + ((b * a.seqQ + i0 + l) * a.heads + h) * a.d, *dOut = f.dOut + ((b * a.seqQ + i0 + l) * a.heads + h) * a.dv;
          for (i64 c = lane; dl != 0 && c < a.d; c += 32) sumK[c] = fused(dl, q[c], sumK[c]);
          for (i64 c = lane; wl != 0 && c < a.dv; c += 32) sumV[c] = fused(wl, dOut[c], sumV[c]);
        }
      }
    for (i64 c = lane; c < a.d; c += 32) dK[key_row(a, b, kh, j) * a.d + c] = sumK[c];
    for (i64 c = lane; c < a.dv; c += 32) dV[key_row(a, b, kh, j) * a.dv + c] = sumV[c];
  }
}

// plain_bias is dBias[b, h, i, j] = Σ dx over the batch elements and heads that share the place. A thread has one.
template <class T> INLINE void plain_bias(const Plain<T> &a, const Left<T> &f, T *dBias) {
  const i64 nb = a.bias_batch ? a.batch : 1, nh = a.bias_head ? a.heads : 1, n = a.seqQ * a.seqKV;
  for (i64 e = grid_first(); e < nb * nh * n; e += grid_stride()) {
    const i64 j = e % a.seqKV, i = e / a.seqKV % a.seqQ, bh = e / n;
    const i64 b0 = nb > 1 ? bh / nh : 0, b1 = nb > 1 ? b0 + 1 : a.batch, h0 = nh > 1 ? bh % nh : 0, h1 = nh > 1 ? h0 + 1 : a.heads;
    const Sight s = sight_of(a, i);
    T sum = 0;
    for (i64 b = b0; b < b1; b++)
      for (i64 h = h0; h < h1; h++) {
        T dx, slope;
        weight(a, f, s, b, h, i, j, &dx, &slope);
        sum += dx;
      }
    dBias[e] = sum;
  }
}

#define PLAIN_PARAMETERS(T)                                                                                                        \
  const T *q, const T *k, const T *v, const T *gq, const T *gk, const T *lift, const T *sinks, const T *slopes, const T *bias,     \
      i64 bias_batch, i64 bias_head, i64 batch,                                                                                    \
      i64 seqQ, i64 seqKV, i64 heads, i64 kvHeads, i64 d, i64 dv, i64 left, i64 right, double scale, double softcap,               \
      const void *cuQ, i64 cuQ_bytes, const void *cuKV, i64 cuKV_bytes, i64 sequences, i64 seed, const void *step, i64 step_bytes, \
      i64 below, double keep
#define PLAIN_ARGUMENTS(T)                                                                                                         \
  {q, k, v, gq, gk, lift, sinks, slopes, bias, bias_batch, bias_head, batch, seqQ, seqKV, heads, kvHeads, d, dv, left, right, (T)scale,          \
   (T)softcap, cuQ, cuKV, cuQ_bytes, cuKV_bytes, sequences, dropout_of<T>(seed, step, step_bytes, below, keep)}

#define PLAIN(T, t)                                                                                                                \
  KERNEL(plain_threads, attention_plain_forward_##t, (T *out, T *lse, T *stats, PLAIN_PARAMETERS(T))) {                            \
    DYNAMIC_SHARED(T, shared);                                                                                                     \
    plain_forward<T>(PLAIN_ARGUMENTS(T), out, lse, stats, shared);                                                                 \
  }                                                                                                                                \
  KERNEL(plain_threads, attention_plain_rows_##t, (T *dQ, const T *dOut, const T *stats, const T *delta, PLAIN_PARAMETERS(T))) {   \
    DYNAMIC_SHARED(T, shared);                                                                                                     \
    plain_rows<T>(PLAIN_ARGUMENTS(T), {dOut, stats, delta}, dQ, shared);                                                           \
  }                                                                                                                                \
  KERNEL(plain_threads, attention_plain_keys_##t,                                                                                  \
         (T *dK, T *dV, const T *dOut, const T *stats, const T *delta, PLAIN_PARAMETERS(T))) {                                     \
    DYNAMIC_SHARED(T, shared);                                                                                                     \
    plain_keys<T>(PLAIN_ARGUMENTS(T), {dOut, stats, delta}, dK, dV, shared);                                                       \
  }                                                                                                                                \
  KERNEL(plain_threads, attention_plain_bias_##t,                                                                                  \
         (T *dBias, const T *dOut, const T *stats, const T *delta, PLAIN_PARAMETERS(T))) {                                         \
    plain_bias<T>(PLAIN_ARGUMENTS(T), {dOut, stats, delta}, dBias);                                                                \
  }                                                                                                                                \
  /* delta = Σ_c out·dOut − dLSE (null for 0), rows of (batch, heads, seqQ). A warp has one. */                                    \
  KERNEL(plain_threads, attention_plain_delta_##t,                                                                                 \
         (T *delta, const T *out, const T *dOut, const T *dLSE, i64 batch, i64 heads, i64 seqQ, i64 dv)) {                         \
    for (i64 row = (i64)blockIdx.x * plain_warps + threadIdx.x / 32; row < batch * heads * seqQ; row += (i64)gridDim.x * plain_warps) { \
      const i64 i = row % seqQ, h = row / seqQ % heads, b = row / seqQ / heads, at = ((b * seqQ + i) * heads + h) * dv;            \
      T s = 0;                                                                                                                     \
      for (i64 c = lane_id(); c < dv; c += 32) s = fused(out[at + c], dOut[at + c], s);                                            \
      s = warp_sum(s);                                                                                                             \
      if (lane_id() == 0) delta[row] = dLSE ? s - dLSE[row] : s;                                                                   \
    }                                                                                                                              \
  }                                                                                                                                \
  /* dSinks_h = −Σ e^(sink_h − lse)·delta over the rows of head h that see a key, in double. A warp has one h. */                  \
  KERNEL(32, attention_plain_sinks_##t,                                                                                            \
         (T *dSinks, const T *sinks, const T *stats, const T *delta, i64 batch, i64 heads, i64 seqQ)) {                            \
    const i64 h = blockIdx.x;                                                                                                      \
    double s = 0;                                                                                                                  \
    for (i64 e = lane_id(); e < batch * seqQ; e += 32) {                                                                           \
      const i64 row = (e / seqQ * heads + h) * seqQ + e % seqQ;                                                                    \
      const double all = (double)stats[batch * heads * seqQ + row];                                                                \
      if (all != 0) s -= exponential((double)sinks[h] - (double)stats[row]) / all * (double)delta[row];                            \
    }                                                                                                                              \
    s = warp_sum(s);                                                                                                               \
    if (lane_id() == 0) dSinks[h] = (T)s;                                                                                          \
  }

PLAIN(float, f32)
PLAIN(double, f64)
