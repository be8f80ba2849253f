// Scores of tokens and patches, and their losses, by the formulas of package ops/grounding.
//
//   unit_rows      unit vectors of the rows of x and 1/‖x‖, both 0 where a row is shorter than 1e-12 or masked
//   unit_grad      dx from the gradient of unit vectors, in place: dx = (dx̂ − x̂·(x̂·dx̂))/‖x‖
//   ground_finish  scores s (rows, patches) to what is asked for: themselves (0), softmax over the patches (1), sigmoid(s + bias) (2)
//   ground_grad    ds = scale · the gradient of that, of which y is the result
//   cut            a picture (channels, height, width) to patches of ph × pw, each (channels, ph, pw), and back
//   contrast…      cross-entropy of each row and column of n × n scores against the diagonal
//   align…         sigmoid cross-entropy of scores z and targets, weighed
//   margin…        by how much maps are higher inside regions than outside
//
// A mask has integers or floats of `bytes` bytes, 0 for padding; bytes negative stands for floats. Losses are in double, sums in a fixed
// order: of a row by a warp, of a whole by blocks of a constant number of parts.
#include "math.cuh"
#include "mma.cuh"

INLINE bool real(const void *mask, i64 bytes, i64 i) {
  if (!mask) return true;
  if (bytes == 8) return ((const u64 *)mask)[i] != 0;
  if (bytes == 4) return ((const u32 *)mask)[i] != 0;
  return bytes == -8 ? ((const u64 *)mask)[i] << 1 != 0 : ((const u32 *)mask)[i] << 1 != 0;  // −0 is 0
}

// A warp has a row; WARP_ROWS walks them.
#define WARP_ROWS(r, rows) \
  for (i64 r = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; r < (rows); r += (i64)gridDim.x * (blockDim.x / 32))
#define LANES(i, n) for (i64 i = lane_id(); i < (n); i += 32)

constexpr int parts = 64;  // of a sum over everything: blocks

// part_of adds up f(i) for the i of this block's part of n, 256 threads; thread 0 gets the sum.
template <class F> METHOD double part_of(i64 n, double *shared, F f) {
  double s = 0;
  for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < n; i += (i64)parts * 256) s += f(i);
  s = warp_sum(s);
  if (lane_id() == 0) shared[threadIdx.x / 32] = s;
  BARRIER(0);
  s = 0;
  if (threadIdx.x == 0)
    for (int w = 0; w < 8; w++) s += shared[w];
  BARRIER(1);
  return s;
}
// sum_of adds up the parts, in their order.
METHOD double sum_of(const double *x, i64 n) {
  double s = 0;
  for (i64 i = 0; i < n; i++) s += x[i];
  return s;
}

// Side is what a map shows inside or outside a region.
struct Side { double n, sum, max; i64 at; };
INLINE Side joined(const Side &a, const Side &b) {
  if (a.n == 0) return b;
  if (b.n == 0) return a;
  // At a tie the first; a NaN wins.
  bool other = b.max > a.max || (b.max == a.max && b.at < a.at) || (is_nan(b.max) && !is_nan(a.max));
  return {a.n + b.n, a.sum + b.sum, other ? b.max : a.max, other ? b.at : a.at};
}
INLINE Side shuffled(const Side &s, int lane) {
  return {shuffle_xor(s.n, lane), shuffle_xor(s.sum, lane), shuffle_xor(s.max, lane), (i64)shuffle_xor((double)s.at, lane)};
}
template <class T> METHOD void sides(const T *map, const T *region, i64 n, Side *out, Side *in) {
  *out = *in = Side{0, 0, 0, 0};
  LANES(i, n) {
    const Side one{1, (double)map[i], (double)map[i], i};
    if (region[i] >= (T)0.5)
      *in = joined(*in, one);
    else if (region[i] >= 0)
      *out = joined(*out, one);
  }
  for (int d = 16; d; d >>= 1) {
    *out = joined(*out, shuffled(*out, d));
    *in = joined(*in, shuffled(*in, d));
  }
}

#define GROUND(T, t)                                                                                                                \
  KERNEL(256, unit_rows_##t, (T *unit, T *inverse, const T *x, const void *mask, i64 bytes, i64 rows, i64 dim)) {                   \
    WARP_ROWS(r, rows) {                                                                                                            \
      double s = 0;                                                                                                                 \
      LANES(i, dim) s += (double)x[r * dim + i] * (double)x[r * dim + i];                                                           \
      s = root(warp_sum(s));                                                                                                        \
      const bool there = real(mask, bytes, r) && !(s < 1e-12);                                                                      \
      const T inv = there ? (T)(1 / s) : (T)0;                                                                                      \
      LANES(i, dim) unit[r * dim + i] = real(mask, bytes, r) ? x[r * dim + i] * inv : (T)0;                                         \
      if (lane_id() == 0) inverse[r] = inv;                                                                                         \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, unit_grad_##t, (T *dx, const T *unit, const T *inverse, i64 rows, i64 dim)) {                                         \
    WARP_ROWS(r, rows) {                                                                                                            \
      double s = 0;                                                                                                                 \
      LANES(i, dim) s += (double)unit[r * dim + i] * (double)dx[r * dim + i];                                                       \
      const T along = (T)warp_sum(s);                                                                                               \
      LANES(i, dim) dx[r * dim + i] = fused(-along, unit[r * dim + i], dx[r * dim + i]) * inverse[r];                               \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, ground_finish_##t,                                                                                                    \
         (T *s, const void *tokens, i64 token_bytes, const void *patch, i64 patch_bytes, i64 rows, i64 per, i64 n, i64 form,        \
          double bias)) {                                                                                                           \
    WARP_ROWS(r, rows) {                                                                                                            \
      T *row = s + r * n;                                                                                                           \
      const i64 at = r / per * n; /* of the item's patches */                                                                       \
      const bool token = real(tokens, token_bytes, r);                                                                              \
      T top = -infinity<T>(), sum = 0;                                                                                              \
      if (form == 1 && token) {                                                                                                     \
        LANES(p, n) if (real(patch, patch_bytes, at + p)) top = larger(top, row[p]);                                                \
        top = warp_max(top);                                                                                                        \
        LANES(p, n) if (real(patch, patch_bytes, at + p) && top != -infinity<T>()) sum += exponential(row[p] - top);                \
        sum = warp_sum(sum);                                                                                                        \
      }                                                                                                                             \
      LANES(p, n) {                                                                                                                 \
        T v = row[p];                                                                                                               \
        if (form == 1) v = top == -infinity<T>() ? (T)0 : exponential(v - top) / sum;                                               \
        if (form == 2) v = sigmoid_of(v + (T)bias);                                                                                 \
        row[p] = token && real(patch, patch_bytes, at + p) ? v : (T)0;                                                              \
      }                                                                                                                             \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, ground_grad_##t,                                                                                                      \
         (T *ds, const T *y, const T *dy, const void *tokens, i64 token_bytes, const void *patch, i64 patch_bytes, i64 rows,        \
          i64 per, i64 n, i64 form, double factor)) {                                                                               \
    WARP_ROWS(r, rows) {                                                                                                            \
      const T *p = y + r * n, *g = dy + r * n, scale = (T)factor;                                                                   \
      const i64 at = r / per * n;                                                                                                   \
      const bool token = real(tokens, token_bytes, r);                                                                              \
      T mean = 0;                                                                                                                   \
      if (form == 1) {                                                                                                              \
        LANES(j, n) mean = fused(p[j], g[j], mean);                                                                                 \
        mean = warp_sum(mean);                                                                                                      \
      }                                                                                                                             \
      LANES(j, n) {                                                                                                                 \
        T v = form == 0 ? scale * g[j] : form == 1 ? scale * p[j] * (g[j] - mean) : scale * p[j] * (1 - p[j]) * g[j];               \
        ds[r * n + j] = token && real(patch, patch_bytes, at + j) ? v : (T)0;                                                       \
      }                                                                                                                             \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, cut_##t, (T *to, const T *from, i64 back, i64 count, i64 channels, i64 height, i64 width, i64 ph, i64 pw)) {          \
    const i64 across = width / pw, down = height / ph, depth = channels * ph * pw;                                                  \
    for (i64 e = grid_first(); e < count; e += grid_stride()) {                                                                     \
      const i64 in = e % depth, patch = e / depth % (across * down), b = e / depth / (across * down);                               \
      const i64 c = in / (ph * pw), y = patch / across * ph + in / pw % ph, x = patch % across * pw + in % pw;                      \
      const i64 at = ((b * channels + c) * height + y) * width + x;                                                                 \
      if (back)                                                                                                                     \
        to[at] = from[e];                                                                                                           \
      else                                                                                                                          \
        to[e] = from[at];                                                                                                           \
    }                                                                                                                               \
  }                                                                                                                                 \
  /* lse (2n) of the rows and then the columns, losses (2n) */                                                                      \
  KERNEL(256, contrast_##t, (double *lse, double *losses, const T *s, i64 n)) {                                                     \
    WARP_ROWS(r, 2 * n) {                                                                                                           \
      const T *line = r < n ? s + r * n : s + (r - n);                                                                              \
      const i64 step = r < n ? 1 : n;                                                                                               \
      double top = -infinity<double>(), sum = 0;                                                                                    \
      LANES(j, n) top = larger(top, (double)line[j * step]);                                                                        \
      top = warp_max(top);                                                                                                          \
      LANES(j, n) sum += exponential((double)line[j * step] - top);                                                                 \
      const double l = top + logarithm(warp_sum(sum));                                                                              \
      if (lane_id() == 0) {                                                                                                         \
        lse[r] = l;                                                                                                                 \
        losses[r] = l - (double)line[r % n * step];                                                                                 \
      }                                                                                                                             \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(32, contrast_total_##t, (T *loss, const double *losses, i64 n)) {                                                          \
    double s = 0;                                                                                                                   \
    LANES(i, 2 * n) s += losses[i];                                                                                                 \
    s = warp_sum(s);                                                                                                                \
    if (threadIdx.x == 0) *loss = (T)(s / (double)(2 * n));                                                                         \
  }                                                                                                                                 \
  KERNEL(256, contrast_grad_##t, (T *ds, const T *s, const double *lse, const T *dy, i64 n)) {                                      \
    for (i64 e = grid_first(); e < n * n; e += grid_stride()) {                                                                     \
      const i64 i = e / n, j = e % n;                                                                                               \
      double d = exponential((double)s[e] - lse[i]) + exponential((double)s[e] - lse[n + j]) - (i == j ? 2. : 0.);                  \
      ds[e] = (T)(d / (double)(2 * n) * (double)*dy);                                                                               \
    }                                                                                                                               \
  }                                                                                                                                 \
  /* sums (2·parts): of losses and of weights, `parts` blocks */                                                                    \
  KERNEL(256, align_##t, (double *sums, const T *z, const T *targets, const T *weights, i64 n, double positive)) {                  \
    __shared__ double shared[8];                                                                                                    \
    double loss = part_of(n, shared, [&](i64 i) {                                                                                   \
      const double w = weights ? (double)weights[i] : 1., y = (double)targets[i], x = (double)z[i];                                 \
      if (w == 0) return 0.;                                                                                                        \
      const double l = log1p_of(exponential(-magnitude(x)));                                                                        \
      return w * (positive * y * ((x < 0 ? -x : is_nan(x) ? x : 0.) + l) + (1 - y) * ((x > 0 ? x : is_nan(x) ? x : 0.) + l));       \
    });                                                                                                                             \
    double weight = part_of(n, shared, [&](i64 i) { return weights ? (double)weights[i] : 1.; });                                   \
    if (threadIdx.x == 0) {                                                                                                         \
      sums[blockIdx.x] = loss;                                                                                                      \
      sums[parts + blockIdx.x] = weight;                                                                                            \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(1, align_total_##t, (T *loss, const double *sums)) {                                                                       \
    const double weight = sum_of(sums + parts, parts);                                                                              \
    *loss = weight == 0 ? (T)0 : (T)(sum_of(sums, parts) / weight);                                                                 \
  }                                                                                                                                 \
  KERNEL(256, align_grad_##t,                                                                                                       \
         (T *dz, const T *z, const T *targets, const T *weights, const double *sums, const T *dy, i64 n, double positive)) {        \
    const double total = sum_of(sums + parts, parts);                                                                               \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                                                         \
      const double w = weights ? (double)weights[i] : 1., y = (double)targets[i];                                                   \
      double d = 0;                                                                                                                 \
      if (w != 0 && total != 0) {                                                                                                   \
        double other, p = sigmoid_of((double)z[i], &other);                                                                         \
        d = w / total * ((1 - y) * p - positive * y * other);                                                                       \
      }                                                                                                                             \
      dz[i] = (T)(d * (double)*dy);                                                                                                 \
    }                                                                                                                               \
  }                                                                                                                                 \
  /* losses (2·rows): of each map, and whether it has an inside and an outside */                                                   \
  KERNEL(256, margin_##t,                                                                                                           \
         (double *losses, const T *maps, const T *regions, i64 rows, i64 n, double max_margin, double mean_margin,                  \
          double max_weight, double mean_weight)) {                                                                                 \
    WARP_ROWS(r, rows) {                                                                                                            \
      Side out, in;                                                                                                                 \
      sides(maps + r * n, regions + r * n, n, &out, &in);                                                                           \
      const double high = out.max - in.max + max_margin, mean = out.sum / out.n - in.sum / in.n + mean_margin;                      \
      const bool both = out.n > 0 && in.n > 0;                                                                                      \
      if (lane_id() != 0) continue;                                                                                                 \
      losses[r] = both ? (high <= 0 ? 0. : max_weight * high) + (mean <= 0 ? 0. : mean_weight * mean) : 0.;                         \
      losses[rows + r] = both ? 1. : 0.;                                                                                            \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(32, margin_total_##t, (T *loss, const double *losses, i64 rows)) {                                                         \
    double s = 0, count = 0;                                                                                                        \
    LANES(i, rows) {                                                                                                                \
      s += losses[i];                                                                                                               \
      count += losses[rows + i];                                                                                                    \
    }                                                                                                                               \
    s = warp_sum(s);                                                                                                                \
    count = warp_sum(count);                                                                                                        \
    if (threadIdx.x == 0) *loss = count == 0 ? (T)0 : (T)(s / count);                                                               \
  }                                                                                                                                 \
  KERNEL(256, margin_grad_##t,                                                                                                      \
         (T *dx, const T *maps, const T *regions, const double *losses, const T *dy, i64 rows, i64 n, double max_margin,            \
          double mean_margin, double max_weight, double mean_weight)) {                                                             \
    double count = 0;                                                                                                               \
    LANES(i, rows) count += losses[rows + i];                                                                                       \
    const double share = (double)*dy / warp_sum(count);                                                                             \
    WARP_ROWS(r, rows) {                                                                                                            \
      Side out, in;                                                                                                                 \
      sides(maps + r * n, regions + r * n, n, &out, &in);                                                                           \
      const double high = out.max - in.max + max_margin, mean = out.sum / out.n - in.sum / in.n + mean_margin;                      \
      const bool both = out.n > 0 && in.n > 0;                                                                                      \
      const double by_max = both && !(high <= 0) ? share * max_weight : 0., by_mean = both && !(mean <= 0) ? share * mean_weight : 0.; \
      LANES(i, n) {                                                                                                                 \
        const T region = regions[r * n + i];                                                                                        \
        const bool inside = region >= (T)0.5, outside = !inside && region >= 0;                                                     \
        double d = inside ? -by_mean / in.n : outside ? by_mean / out.n : 0.;                                                       \
        if (inside && i == in.at) d -= by_max;                                                                                      \
        if (outside && i == out.at) d += by_max;                                                                                    \
        dx[r * n + i] = both ? (T)d : (T)0;                                                                                         \
      }                                                                                                                             \
    }                                                                                                                               \
  }
GROUND(float, f32)
GROUND(double, f64)
