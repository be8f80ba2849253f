// Rounding to what codes can stand for, in training, with the arithmetic of package ops/quantize: the same bits as there.
//
// A matrix of `in` rows and `out` columns has strides for both, in elements, of which one is 1 and nothing lies between. `group` rows of a column share a grid: a scale and a zero
// point, at (p/group·out + j)·many of grids, of which each is a pair of doubles; many is 0 for one grid of the whole matrix. levels is
// the number of codes, 256 or 16.
//
//   fake_grid      grids that cover each group; clip: those that err least in squares of some that cover less
//   fake_range     the smallest and the largest number of each column and of 0, for fake_whole, which makes one grid of them
//   fake_tries     of those ranges: the grids that cover steps/steps … least/steps of the whole matrix; fake_squares: by how much each column errs
//                  on each of them, in squares; fake_best: the first grid that errs least on all columns
//   fake_learned   grids of given scales
//   fake_codes     y = scale·(code − zero)
//   fake_half      y = x in FP16 (mantissa 10, least −14) or BF16 (7, −126); NaN where |x| > limit
//   fake_rows      rows of n numbers in 8 bits, each with a scale of its own
//   fake_static    numbers in 8 bits with one scale
//   fake_within    dx = dy where x is within the codes of its grid, half a step to spare, else 0
//   fake_grad      dx and ds of learned scales; parts takes a sum for each column where there is one scale, for fake_total
//
// What cannot be stored, a NaN for one, makes NaN of the numbers that share its grid.
#include "math.cuh"
#include "mma.cuh"

struct Grid { double scale, zero; };

INLINE double normal_scale(double s) {
  s = (double)(float)s;
  return s < 0x1p-126 ? 0x1p-126 : s;
}
INLINE Grid grid_of(double lo, double hi, int levels, bool asymmetric) {
  if (!(lo >= -0x1p126) || !(hi <= 0x1p126)) {
    double nan = infinity<double>() - infinity<double>();
    return {nan, nan};
  }
  if (!asymmetric) return {normal_scale(larger(-lo, hi) / (levels / 2 - 1)), (double)(levels / 2)};
  double scale = normal_scale((hi - lo) / (levels - 1)), zero = nearest(-lo / scale);
  return {scale, zero > levels - 1 ? (double)(levels - 1) : zero};
}
// code is the code of x less the zero point.
INLINE double code_of(double x, const Grid &g, int levels, bool asymmetric) {
  double r = nearest(x / g.scale), least = (asymmetric ? 0 : 1) - g.zero, most = levels - 1 - g.zero;
  return r < least ? least : r > most ? most : r;
}
// A comparison with NaN must not lose it.
INLINE double lower(double a, double b) { return b < a || b != b ? b : a; }
INLINE double higher(double a, double b) { return b > a || b != b ? b : a; }

template <class T> METHOD double squares(const T *x, i64 count, i64 stride, const Grid &g, int levels, bool asymmetric, double enough) {
  double sum = 0;
  for (i64 i = 0; i < count && !(sum > enough); i++) {
    double v = (double)x[i * stride], d = (double)((float)g.scale * (float)code_of(v, g, levels, asymmetric)) - v;
    sum += d * d;
  }
  return sum;
}

#define FAKE(T, t)                                                                                                                  \
  KERNEL(128, fake_grid_##t,                                                                                                        \
         (Grid *grids, const T *x, i64 in, i64 out, i64 row, i64 col, i64 group, i64 levels, i64 asymmetric, i64 clip_steps,        \
          i64 clip_least)) {                                                                                                        \
    const i64 groups = (in + group - 1) / group;                                                                                    \
    for (i64 e = grid_first(); e < groups * out; e += grid_stride()) {                                                              \
      const i64 p0 = e / out * group, count = in - p0 < group ? in - p0 : group;                                                    \
      const T *from = x + p0 * row + e % out * col;                                                                                 \
      double lo = 0, hi = 0;                                                                                                        \
      for (i64 i = 0; i < count; i++) {                                                                                             \
        lo = lower(lo, (double)from[i * row]);                                                                                      \
        hi = higher(hi, (double)from[i * row]);                                                                                     \
      }                                                                                                                             \
      Grid best = grid_of(lo, hi, (int)levels, asymmetric);                                                                         \
      double least = clip_steps ? squares(from, count, row, best, (int)levels, asymmetric, infinity<double>()) : 0;                 \
      for (i64 k = clip_steps - 1; k >= clip_least; k--) {                                                                          \
        double ratio = (double)k / clip_steps;                                                                                      \
        Grid g = grid_of(lo * ratio, hi * ratio, (int)levels, asymmetric);                                                          \
        double s = squares(from, count, row, g, (int)levels, asymmetric, least);                                                    \
        if (s < least) {                                                                                                            \
          best = g;                                                                                                                 \
          least = s;                                                                                                                \
        }                                                                                                                           \
      }                                                                                                                             \
      grids[e] = best;                                                                                                              \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(128, fake_range_##t, (double *ranges, const T *x, i64 in, i64 out, i64 row, i64 col)) {                                    \
    for (i64 j = grid_first(); j < out; j += grid_stride()) {                                                                       \
      double lo = 0, hi = 0;                                                                                                        \
      for (i64 p = 0; p < in; p++) {                                                                                                \
        lo = lower(lo, (double)x[p * row + j * col]);                                                                               \
        hi = higher(hi, (double)x[p * row + j * col]);                                                                              \
      }                                                                                                                             \
      ranges[2 * j] = lo;                                                                                                           \
      ranges[2 * j + 1] = hi;                                                                                                       \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(128, fake_squares_##t,                                                                                                     \
         (double *sums, const T *x, const Grid *tries, i64 count, i64 in, i64 out, i64 row, i64 col, i64 levels, i64 asymmetric)) { \
    for (i64 e = grid_first(); e < count * out; e += grid_stride())                                                                 \
      sums[e] = squares(x + e % out * col, in, row, tries[e / out], (int)levels, asymmetric, infinity<double>());                   \
  }                                                                                                                                 \
  KERNEL(128, fake_learned_##t, (Grid *grids, const T *scales, i64 n, i64 levels)) {                                                \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                                                         \
      double s = (double)scales[i];                                                                                                 \
      grids[i] = {s >= 0x1p-126 && s <= 3.4028234663852886e38 ? s : infinity<double>() - infinity<double>(), (double)(levels / 2)}; \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, fake_codes_##t,                                                                                                       \
         (T *y, const T *x, const Grid *grids, i64 in, i64 out, i64 row, i64 col, i64 group, i64 many, i64 levels, i64 asymmetric,  \
          i64 learned)) {                                                                                                           \
    for (i64 e = grid_first(); e < in * out; e += grid_stride()) {                                                                  \
      const i64 p = col == 1 ? e / out : e % in, j = col == 1 ? e % out : e / in, at = e;                                           \
      const Grid g = grids[(p / group * out + j) * many];                                                                           \
      double c = code_of((double)x[at], g, (int)levels, asymmetric);                                                                \
      y[at] = is_nan(x[at]) ? x[at] : learned ? (T)g.scale * (T)c : (T)((float)g.scale * (float)c);                                 \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, fake_half_##t, (T *y, const T *x, i64 n, i64 mantissa, i64 least, double limit)) {                                    \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                                                         \
      double v = (double)x[i];                                                                                                      \
      int e = (int)(to_bits(v) >> 52 & 2047) - 1023;                                                                                \
      double unit = power_of_two<double>((e < (int)least ? (int)least : e > 1000 ? 0 : e) - (int)mantissa);                         \
      y[i] = magnitude(v) <= limit ? (T)(nearest(v / unit) * unit) : (T)(infinity<double>() - infinity<double>());                  \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, fake_rows_##t, (T *y, const T *x, i64 rows, i64 n)) {                                                                 \
    __shared__ T shared[8];                                                                                                         \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                                            \
      T most = 0;                                                                                                                   \
      for (i64 i = threadIdx.x; i < n; i += 256) most = larger(most, magnitude(x[r * n + i]));                                      \
      most = warp_max(most);                                                                                                        \
      if (lane_id() == 0) shared[threadIdx.x / 32] = most;                                                                          \
      BARRIER(0);                                                                                                                   \
      most = shared[0];                                                                                                             \
      for (int i = 1; i < 8; i++) most = larger(most, shared[i]);                                                                   \
      BARRIER(1);                                                                                                                   \
      double top = (double)most < 0x1p-100 ? 0x1p-100 : (double)most;                                                               \
      T scale = (T)(top / 127), inverse = (T)(127 / top);                                                                           \
      if (!(most < infinity<T>())) scale = infinity<T>() - infinity<T>();                                                           \
      for (i64 i = threadIdx.x; i < n; i += 256) y[r * n + i] = scale * nearest(x[r * n + i] * inverse);                            \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, fake_static_##t, (T *y, const T *x, const Grid *grid, i64 n)) {                                                       \
    const T scale = (T)grid->scale, inverse = 1 / scale, end = 127 * scale;                                                         \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                                                         \
      T v = x[i];                                                                                                                   \
      v = v < -end ? -end : v > end ? end : v;                                                                                      \
      y[i] = scale * nearest(v * inverse);                                                                                          \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(256, fake_within_##t,                                                                                                      \
         (T *dx, const T *x, const T *dy, const Grid *grids, i64 in, i64 out, i64 row, i64 col, i64 group, i64 many, i64 levels,    \
          i64 asymmetric)) {                                                                                                        \
    for (i64 e = grid_first(); e < in * out; e += grid_stride()) {                                                                  \
      const i64 p = col == 1 ? e / out : e % in, j = col == 1 ? e % out : e / in, at = e;                                           \
      const Grid g = grids[(p / group * out + j) * many];                                                                           \
      double r = (double)x[at] / g.scale;                                                                                           \
      dx[at] = r >= (asymmetric ? 0 : 1) - g.zero - 0.5 && r <= levels - 1 - g.zero + 0.5 ? dy[at] : (T)0;                          \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(128, fake_grad_##t,                                                                                                        \
         (T *dx, T *ds, double *parts, const T *x, const T *dy, const Grid *grids, i64 in, i64 out, i64 row, i64 col, i64 group,    \
          i64 many, i64 levels)) {                                                                                                  \
    const i64 groups = (in + group - 1) / group;                                                                                    \
    const double most = (double)(levels / 2 - 1);                                                                                   \
    for (i64 e = grid_first(); e < groups * out; e += grid_stride()) {                                                              \
      const i64 p0 = e / out * group, j = e % out, count = in - p0 < group ? in - p0 : group;                                       \
      const double scale = grids[e * many].scale;                                                                                   \
      double sum = 0;                                                                                                               \
      for (i64 p = p0; p < p0 + count; p++) {                                                                                       \
        const i64 at = p * row + j * col;                                                                                           \
        const double v = (double)x[at] / scale, d = (double)dy[at];                                                                 \
        const bool low = v <= -most, high = v >= most;                                                                              \
        dx[at] = low || high ? (T)0 : dy[at];                                                                                       \
        sum += high ? most * d : low ? -most * d : (nearest(v) - v) * d;                                                            \
      }                                                                                                                             \
      if (many)                                                                                                                     \
        ds[e] = (T)(sum / root((double)count * most));                                                                              \
      else                                                                                                                          \
        parts[j] = sum;                                                                                                             \
    }                                                                                                                               \
  }                                                                                                                                 \
  KERNEL(32, fake_total_##t, (T *ds, const double *parts, i64 n, i64 count, i64 levels)) {                                          \
    double sum = 0;                                                                                                                 \
    for (i64 i = threadIdx.x; i < n; i += 32) sum += parts[i];                                                                      \
    sum = warp_sum(sum);                                                                                                            \
    if (threadIdx.x == 0) *ds = (T)(sum / root((double)count * (double)(levels / 2 - 1)));                                          \
  }

FAKE(float, f32)
FAKE(double, f64)

// whole_range is the smallest and the largest number of n ranges, in every lane of a warp.
INLINE void whole_range(const double *ranges, i64 n, double *low, double *high) {
  double lo = 0, hi = 0;
  for (i64 i = threadIdx.x; i < n; i += 32) {
    lo = lower(lo, ranges[2 * i]);
    hi = higher(hi, ranges[2 * i + 1]);
  }
  for (int d = 16; d; d >>= 1) {
    lo = lower(lo, shuffle_xor(lo, d));
    hi = higher(hi, shuffle_xor(hi, d));
  }
  *low = lo;
  *high = hi;
}

KERNEL(32, fake_whole_f64, (Grid *grid, const double *ranges, i64 n, i64 levels, i64 asymmetric)) {
  double lo, hi;
  whole_range(ranges, n, &lo, &hi);
  if (threadIdx.x == 0) *grid = grid_of(lo, hi, (int)levels, asymmetric);
}

KERNEL(32, fake_tries_f64, (Grid *tries, const double *ranges, i64 n, i64 levels, i64 asymmetric, i64 steps, i64 least)) {
  double lo, hi;
  whole_range(ranges, n, &lo, &hi);
  for (i64 i = threadIdx.x; i <= steps - least; i += 32) {
    const double ratio = (double)(steps - i) / (double)steps;
    tries[i] = grid_of(lo * ratio, hi * ratio, (int)levels, asymmetric);
  }
}

KERNEL(32, fake_best_f64, (Grid *grid, const Grid *tries, const double *sums, i64 count, i64 out)) {
  double best = infinity<double>(), at = 0;
  for (i64 i = threadIdx.x; i < count; i += 32) {
    double s = 0;
    for (i64 j = 0; j < out; j++) s += sums[i * out + j];
    if (s < best) {
      best = s;
      at = (double)i;
    }
  }
  for (int d = 16; d; d >>= 1) {
    const double other = shuffle_xor(best, d), place = shuffle_xor(at, d);
    if (other < best || (other == best && place < at)) {
      best = other;
      at = place;
    }
  }
  if (threadIdx.x == 0) *grid = tries[(i64)at];
}
