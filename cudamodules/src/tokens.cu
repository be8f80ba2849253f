// What stands at the ends of a language model: embedding, rotary positions, cross-entropy, and AdamW. Integers have 4 or 8 bytes, which
// a parameter says. One that is out of range makes NaN of what depends on it: a kernel cannot return an error.
#include "math.cuh"

constexpr int loss_threads = 256;

// BLOCK_REDUCE folds v over the block; every thread gets it. scratch holds one a warp, and is not used again before another barrier.
#define BLOCK_REDUCE(n, v, fold, across, scratch)                                  \
  {                                                                                \
    v = across(v);                                                                 \
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;                    \
    BARRIER(n);                                                                    \
    v = scratch[0];                                                                \
    for (int w = 1; w < loss_threads / 32; w++) v = fold(v, scratch[w]);           \
  }
INLINE double plus(double a, double b) { return a + b; }

#define TOKENS(T, t)                                                                                                           \
  /* y[i] = table[ids[i]], rows of dim numbers */                                                                             \
  KERNEL(256, embedding_##t, (T *RESTRICT y, const T *table, const void *ids, i64 id_bytes, i64 vocab, i64 dim, i64 n)) {      \
    for (i64 e = grid_first(); e < n * dim; e += grid_stride()) {                                                              \
      i64 id = integer_at(ids, id_bytes, e / dim);                                                                             \
      y[e] = id >= 0 && id < vocab ? table[id * dim + e % dim] : not_a_number<T>();                                            \
    }                                                                                                                          \
  }                                                                                                                            \
  /* dtable[v] = Σ dy[i] over ids[i] = v, in the order of i, for each v that occurs but padding (−1: none); the rest of dtable must  */ \
  /* be zero before. The block of the first i with an id has its row.                                                            */ \
  KERNEL(128, embedding_grad_##t,                                                                                              \
         (T *RESTRICT dtable, const T *dy, const void *ids, i64 id_bytes, i64 vocab, i64 dim, i64 n, i64 padding)) {           \
    __shared__ int before[4];                                                                                                  \
    for (i64 i = blockIdx.x; i < n; i += gridDim.x) {                                                                          \
      i64 id = integer_at(ids, id_bytes, i);                                                                                   \
      if (id < 0 || id >= vocab || id == padding) continue;                                                                    \
      int found = 0;                                                                                                           \
      for (i64 p = threadIdx.x; p < i; p += 128) found |= integer_at(ids, id_bytes, p) == id;                                  \
      found = warp_max(found);                                                                                                 \
      BARRIER(6);                                                                                                              \
      if (lane_id() == 0) before[threadIdx.x / 32] = found;                                                                    \
      BARRIER(7);                                                                                                              \
      if (before[0] | before[1] | before[2] | before[3]) continue;                                                             \
      for (i64 j = threadIdx.x; j < dim; j += 128) {                                                                           \
        T s = 0;                                                                                                               \
        for (i64 p = i; p < n; p++)                                                                                            \
          if (integer_at(ids, id_bytes, p) == id) s += dy[p * dim + j];                                                        \
        dtable[id * dim + j] = s;                                                                                              \
      }                                                                                                                        \
    }                                                                                                                          \
  }                                                                                                                            \
  /* Rotary positions: pairs (i, i+dim/2), or (2i, 2i+1) if interleaved, of each head of x (batch, seq, heads, width) turn by  */ \
  /* (pos + s)·theta[i], backwards if so; sines and cosines are multiplied by amplitude. What is beyond dim passes through.    */ \
  /* pos has one number, or one a batch element (starts). A thread turns one pair of all heads of a token.                     */ \
  KERNEL(256, rope_##t,                                                                                                        \
         (T *RESTRICT y, const T *x, const void *pos, const double *theta, i64 pos_bytes, i64 starts, i64 batch, i64 seq,      \
          i64 heads, i64 width, i64 dim, i64 interleaved, i64 back, double amplitude)) {                                       \
    i64 half = dim / 2, places = half + (width - dim);                                                                         \
    for (i64 e = grid_first(); e < batch * seq * places; e += grid_stride()) {                                                 \
      i64 token = e / places, i = e % places, at = token * heads * width;                                                      \
      if (i >= half) {                                                                                                         \
        for (i64 h = 0; h < heads; h++, at += width) y[at + half + i] = x[at + half + i];                                      \
        continue;                                                                                                              \
      }                                                                                                                        \
      i64 p = integer_at(pos, pos_bytes, starts > 1 ? token / seq : 0) + token % seq;                                          \
      double phi = p >= 0 && p < (i64)1 << 31 ? (double)p * theta[i] : not_a_number<double>();                                 \
      T c = (T)(cosine(phi) * amplitude), s = (T)(sine(phi) * amplitude);                                                      \
      if (back) s = -s;                                                                                                        \
      i64 a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;                                                 \
      for (i64 h = 0; h < heads; h++, at += width) {                                                                           \
        T u = x[at + a], v = x[at + b];                                                                                        \
        y[at + a] = fused(u, c, -(v * s));                                                                                     \
        y[at + b] = fused(v, c, u * s);                                                                                        \
      }                                                                                                                        \
    }                                                                                                                          \
  }                                                                                                                            \
  /* The loss of each row of logits (ops.CrossEntropy has the formula), in double; stats (rows × 2) gets the largest logit and */ \
  /* the sum of e^(logit − largest). Rows with the target `ignored` have a loss of 0, if ignoring. A block has one row.        */ \
  KERNEL(loss_threads, cross_entropy_##t,                                                                                      \
         (double *RESTRICT losses, T *RESTRICT stats, const T *logits, const void *targets, i64 target_bytes, i64 rows,        \
          i64 vocab, i64 ignoring, i64 ignored, double smoothing, double zloss)) {                                             \
    __shared__ double sums[loss_threads / 32], alls[loss_threads / 32];                                                        \
    __shared__ T tops[loss_threads / 32];                                                                                      \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                                       \
      const T *z = logits + r * vocab;                                                                                         \
      i64 target = integer_at(targets, target_bytes, r);                                                                       \
      T top = -infinity<T>();                                                                                                  \
      for (i64 j = threadIdx.x; j < vocab; j += loss_threads) top = larger(top, z[j]);                                         \
      BLOCK_REDUCE(0, top, larger, warp_max, tops)                                                                             \
      double sum = 0, all = 0;                                                                                                 \
      for (i64 j = threadIdx.x; j < vocab; j += loss_threads) {                                                                \
        sum += (double)exponential(z[j] - top);                                                                                \
        all += (double)z[j];                                                                                                   \
      }                                                                                                                        \
      BLOCK_REDUCE(1, sum, plus, warp_sum, sums)                                                                               \
      BLOCK_REDUCE(2, all, plus, warp_sum, alls)                                                                               \
      if (threadIdx.x != 0) continue;                                                                                          \
      bool finite = magnitude(top) < infinity<T>();                                                                            \
      double lse = finite ? (double)top + logarithm(sum) : not_a_number<double>(), loss = 0;                                   \
      if (!(ignoring && target == ignored)) {                                                                                  \
        if (target < 0 || target >= vocab) loss = not_a_number<double>();                                                      \
        else loss = (1 - smoothing) * (lse - (double)z[target]) + zloss * lse * lse;                                           \
        if (smoothing > 0) loss += smoothing * (lse - all / vocab);                                                            \
      }                                                                                                                        \
      losses[r] = loss;                                                                                                        \
      stats[2 * r] = top;                                                                                                      \
      stats[2 * r + 1] = (T)sum;                                                                                               \
    }                                                                                                                          \
  }                                                                                                                            \
  /* total = Σ losses, over the number of rows that are not ignored if mean. One block. */                                     \
  KERNEL(loss_threads, cross_entropy_total_##t,                                                                                \
         (T *total, const double *losses, const void *targets, i64 target_bytes, i64 rows, i64 ignoring, i64 ignored, i64 mean)) { \
    __shared__ double sums[loss_threads / 32], counts[loss_threads / 32];                                                      \
    double sum = 0, count = 0;                                                                                                 \
    for (i64 r = threadIdx.x; r < rows; r += loss_threads) {                                                                   \
      sum += losses[r];                                                                                                        \
      count += ignoring && integer_at(targets, target_bytes, r) == ignored ? 0 : 1;                                            \
    }                                                                                                                          \
    BLOCK_REDUCE(3, sum, plus, warp_sum, sums)                                                                                 \
    BLOCK_REDUCE(4, count, plus, warp_sum, counts)                                                                               \
    if (threadIdx.x == 0) *total = (T)(mean && count > 0 ? sum / count : sum);                                                 \
  }                                                                                                                            \
  /* The gradient of that total times dLoss[0]. A block has one row. */                                                        \
  KERNEL(loss_threads, cross_entropy_grad_##t,                                                                                 \
         (T *RESTRICT dlogits, const T *logits, const T *stats, const T *dLoss, const void *targets, i64 target_bytes, i64 rows, \
          i64 vocab, i64 ignoring, i64 ignored, i64 mean, double smoothing, double zloss)) {                                   \
    __shared__ double sums[loss_threads / 32];                                                                                 \
    double count = 0;                                                                                                          \
    for (i64 r = threadIdx.x; r < rows; r += loss_threads) count += ignoring && integer_at(targets, target_bytes, r) == ignored ? 0 : 1; \
    BLOCK_REDUCE(5, count, plus, warp_sum, sums)                                                                              \
    double weight = (double)*dLoss / (mean && count > 0 ? count : 1);                                                          \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                                       \
      i64 target = integer_at(targets, target_bytes, r);                                                                       \
      bool skip = ignoring && target == ignored;                                                                               \
      T top = stats[2 * r];                                                                                                    \
      double sum = (double)stats[2 * r + 1];                                                                                   \
      double lse = magnitude(top) < infinity<T>() ? (double)top + logarithm(sum) : not_a_number<double>();                     \
      double factor = weight * (1 + 2 * zloss * lse) / sum, flat = weight * smoothing / vocab;                                 \
      for (i64 j = threadIdx.x; j < vocab; j += loss_threads) {                                                                \
        T d = exponential(logits[r * vocab + j] - top) * (T)factor;                                                            \
        if (smoothing > 0) d -= (T)flat;                                                                                       \
        if (j == target) d -= (T)(weight * (1 - smoothing));                                                                   \
        dlogits[r * vocab + j] = skip ? (T)0 : d;                                                                              \
      }                                                                                                                        \
    }                                                                                                                          \
  }                                                                                                                            \
  /* One step of AdamW (Loshchilov and Hutter 2019, algorithm 2): g = grad_scale·grad, m and v its averages, corr1 and corr2    */ \
  /* their bias corrections 1 − βᵗ.                                                                                            */ \
  KERNEL(256, adamw_##t,                                                                                                       \
         (T *RESTRICT param, T *RESTRICT m, T *RESTRICT v, const T *grad, i64 n, double lr, double beta1, double beta2,        \
          double eps, double decay, double corr1, double corr2, double grad_scale)) {                                          \
    T b1 = (T)beta1, c1 = (T)(1 - beta1), b2 = (T)beta2, c2 = (T)(1 - beta2), keep = (T)(1 - lr * decay);                      \
    T step = (T)(lr / corr1), inverse = (T)(1 / root(corr2)), e = (T)eps, scale = (T)grad_scale;                               \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                                                    \
      T g = scale * grad[i], a = fused(b1, m[i], c1 * g), b = fused(b2, v[i], c2 * g * g);                                     \
      m[i] = a;                                                                                                                \
      v[i] = b;                                                                                                                \
      param[i] = param[i] * keep - step * a / fused(root(b), inverse, e);                                                      \
    }                                                                                                                          \
  }

TOKENS(float, f32)
TOKENS(double, f64)
