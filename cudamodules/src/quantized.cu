// Products with quantized weights ŵ (k × n, codes.cuh), in float and double:
//
//   quantized_S         y = x·ŵ, x (rows × k), y (rows × n)
//   quantized_turned_S  y = x·ŵᵀ, x (rows × n), y (rows × k): the gradient of the first with respect to x
//   quantized_row_S     the first for a few rows, codes multiplied as they are read
//   round_rows          x as integers: q = round(x/s), s = max|x|/127 of a row, or one scale given for all; a row with an infinity or NaN
//                       gets a scale of NaN
//   rounded_S           y = s·q·ŵ, with integers multiplied by integers: sums are exact within a group of rows of ŵ, and only sums are scaled
//   rounded_row_S       the same for a few rows
//   clamped             dx = 0 where |x| ≥ end, beyond the range of a given scale
//   quantized_lookup_S  y[i] = column ids[i] of ŵ, NaN for one out of range
//
// S is fp16, bf16, int8 or int4. q has rows of `pitch` bytes, a multiple of 64, zeros beyond k. Results do not depend on the grid.
#include "codes.cuh"
#include "gemm.cuh"
#include "mma_int8.cuh"

#define CODES(S) Codes<S>{codes, scales, zeros, k, n, group, many}

// CodeSide is ŵ as a side of a product in float: a line is a column of ŵ and a step one of its rows, or the other way round if turned.
template <int S, bool turned> struct CodeSide {
  static constexpr bool exact = Codes<S>::exact;
  static constexpr int rows = Codes<S>::rows, count = gemm::tile * gemm::slice / rows / gemm::threads;
  Codes<S> w;
  u32 words[count];
  float scales[count];
  int zeros[count];

  METHOD float at(i64 l, i64 s) const { return turned ? w.number(l, s) : w.number(s, l); }
  // Neighbouring threads read neighbouring words of a panel: word i is of columns `column` and rows from `row` on, counted from the
  // tile's corner.
  METHOD static void place(int i, int *row, int *column) {
    int e = threadIdx.x + gemm::threads * i;
    if (turned) {
      *row = e / panel_columns * rows;
      *column = e % panel_columns;
    } else {
      *row = e / panel_columns % (gemm::slice / rows) * rows;
      *column = e / (panel_columns * (gemm::slice / rows)) * panel_columns + e % panel_columns;
    }
  }
  METHOD void fetch(i64 l0, i64 s0) {
    UNROLL
    for (int i = 0; i < count; i++) {
      int row, column;
      place(i, &row, &column);
      i64 p = (turned ? l0 : s0) + row, j = (turned ? s0 : l0) + column;
      bool there = p < w.k && j < w.n;
      words[i] = there ? w.word(p / rows, j) : 0;
      const i64 at = w.shared(p);
      scales[i] = there && Codes<S>::scaled ? w.scale(at, j) : 0;
      zeros[i] = there && Codes<S>::scaled ? w.zero(at, j) : 0;
    }
  }
  METHOD void put(float *to) const {
    UNROLL
    for (int i = 0; i < count; i++) {
      int row, column;
      place(i, &row, &column);
      UNROLL
      for (int r = 0; r < rows; r++)
        to[turned ? (row + r) * gemm::pitch + column : column * gemm::pitch + row + r] = Codes<S>::value(words[i], r, scales[i], zeros[i]);
    }
  }
};

#define PRODUCT(s, S)                                                                                                               \
  KERNEL(gemm::threads, quantized_##s##_f32,                                                                                        \
         (float *y, const float *x, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n, i64 group,     \
          i64 many)) {                                                                                                              \
    __shared__ float shared[gemm::shared_floats];                                                                                   \
    gemm::product(gemm::Strided<float>{x, k, 1, rows, k}, CodeSide<S, false>{CODES(S)}, gemm::Result<float>{y, n, 1, rows, n, 1, 0}, \
                  shared);                                                                                                          \
  }                                                                                                                                 \
  KERNEL(gemm::threads, quantized_turned_##s##_f32,                                                                                 \
         (float *y, const float *x, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n, i64 group,     \
          i64 many)) {                                                                                                              \
    __shared__ float shared[gemm::shared_floats];                                                                                   \
    gemm::product(gemm::Strided<float>{x, n, 1, rows, n}, CodeSide<S, true>{CODES(S)}, gemm::Result<float>{y, k, 1, rows, k, 1, 0},  \
                  shared);                                                                                                          \
  }                                                                                                                                 \
  KERNEL(gemm::threads, quantized_##s##_f64,                                                                                        \
         (double *y, const double *x, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n, i64 group,   \
          i64 many)) {                                                                                                              \
    __shared__ double shared[gemm::shared_doubles];                                                                                 \
    gemm::product(gemm::Strided<double>{x, k, 1, rows, k}, CodeSide<S, false>{CODES(S)},                                            \
                  gemm::Result<double>{y, n, 1, rows, n, 1, 0}, shared, true, false);                                               \
  }                                                                                                                                 \
  KERNEL(gemm::threads, quantized_turned_##s##_f64,                                                                                 \
         (double *y, const double *x, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n, i64 group,   \
          i64 many)) {                                                                                                              \
    __shared__ double shared[gemm::shared_doubles];                                                                                 \
    gemm::product(gemm::Strided<double>{x, n, 1, rows, n}, CodeSide<S, true>{CODES(S)},                                             \
                  gemm::Result<double>{y, k, 1, rows, k, 1, 0}, shared, true, true);                                                \
  }
PRODUCT(fp16, FP16)
PRODUCT(bf16, BF16)
PRODUCT(int8, INT8)
PRODUCT(int4, INT4)

// A few rows: a block has one panel and up to four rows, blockIdx.y says which. Each of its eight warps has every eighth run of eight
// steps of the panel, a lane four columns of one of the steps. Sums over lanes and warps are taken in a fixed order.
constexpr int row_threads = 256, row_warps = 8, row_most = 4;

// total adds up what the lanes and warps have of each column and row: part[r][c] of lane (step, c/4). Thread r·16 + column gets the sum.
template <class T> METHOD T total(T part[row_most][4], T *shared) {
  const int lane = lane_id(), warp = threadIdx.x / 32;
  UNROLL
  for (int r = 0; r < row_most; r++)
    UNROLL
    for (int c = 0; c < 4; c++) {
      T v = part[r][c];
      v += shuffle_xor(v, 4);
      v += shuffle_xor(v, 8);
      v += shuffle_xor(v, 16);
      if (lane < 4) shared[warp * 64 + r * 16 + lane * 4 + c] = v;
    }
  BARRIER(4);
  T sum = 0;
  if (threadIdx.x < 64)
    for (int w = 0; w < row_warps; w++) sum += shared[w * 64 + threadIdx.x];
  return sum;
}

template <class T, int S> METHOD void row_product(T *y, const T *x, const Codes<S> &w, i64 rows, T *shared) {
  constexpr int R = Codes<S>::rows;
  const int lane = lane_id(), warp = threadIdx.x / 32;
  const i64 j0 = (i64)blockIdx.x * panel_columns + lane % 4 * 4, r0 = (i64)blockIdx.y * row_most;
  T part[row_most][4] = {};
  for (i64 step = warp * 8 + lane / 4; step < w.steps(); step += row_warps * 8) {
    const i64 p0 = step * R, at = w.shared(p0);
    float v[4][R];
    u32 words[4];
    w.four(step, j0, words);
    UNROLL
    for (int c = 0; c < 4; c++) {
      bool there = Codes<S>::scaled && j0 + c < w.n;
      float s = there ? w.scale(at, j0 + c) : 0;
      int z = there ? w.zero(at, j0 + c) : 0;
      UNROLL
      for (int i = 0; i < R; i++) v[c][i] = Codes<S>::value(words[c], i, s, z);
    }
    UNROLL
    for (int r = 0; r < row_most; r++) {
      if (r0 + r >= rows) break;
      UNROLL
      for (int i = 0; i < R; i++) {
        if (p0 + i >= w.k) break;
        T u = x[(r0 + r) * w.k + p0 + i];
        UNROLL
        for (int c = 0; c < 4; c++) part[r][c] = fused(u, (T)v[c][i], part[r][c]);
      }
    }
  }
  T sum = total(part, shared);
  i64 r = r0 + threadIdx.x / 16, j = (i64)blockIdx.x * panel_columns + threadIdx.x % 16;
  if (threadIdx.x < 64 && r < rows && j < w.n) y[r * w.n + j] = sum;
}

#define ROW(s, S, T, t)                                                                                                             \
  KERNEL(row_threads, quantized_row_##s##_##t,                                                                                      \
         (T *y, const T *x, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n, i64 group, i64 many)) { \
    __shared__ T shared[row_warps * 64];                                                                                            \
    row_product<T, S>(y, x, CODES(S), rows, shared);                                                                                \
  }
#define ROWS(s, S) ROW(s, S, float, f32) ROW(s, S, double, f64)
ROWS(fp16, FP16)
ROWS(bf16, BF16)
ROWS(int8, INT8)
ROWS(int4, INT4)

// One block a row. The arithmetic is that of package internal/kernel, so the integers are the same.
template <class T> METHOD void round_row(i8 *q, T *sx, const T *x, i64 k, i64 pitch, T given, T *shared) {
  T most = 0;
  for (i64 p = threadIdx.x; p < k; p += 256) most = larger(most, magnitude(x[p]));
  most = warp_max(most);
  if (lane_id() == 0) shared[threadIdx.x / 32] = most;
  BARRIER(5);
  most = shared[0];
  for (int i = 1; i < 8; i++) most = larger(most, shared[i]);
  BARRIER(6);
  bool finite = most < infinity<T>();
  double top = (double)most < 0x1p-100 ? 0x1p-100 : (double)most;
  T scale = (T)(top / 127), inverse = (T)(127 / top), end = infinity<T>();
  if (given > 0) {
    scale = given;
    inverse = 1 / given;
    end = 127 * given;
  }
  if (!finite) scale = infinity<T>() - infinity<T>();
  if (threadIdx.x == 0) *sx = scale;
  for (i64 p = threadIdx.x; p < pitch; p += 256) {
    T v = p < k && finite ? x[p] : 0;
    v = v < -end ? -end : v > end ? end : v;
    q[p] = (i8)(int)nearest(v * inverse);
  }
}

#define ROUND(T, t)                                                                                                                 \
  KERNEL(256, round_rows_##t, (i8 *q, T *sx, const T *x, i64 rows, i64 k, i64 pitch, double given)) {                               \
    __shared__ T shared[8];                                                                                                         \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) round_row<T>(q + r * pitch, sx + r, x + r * k, k, pitch, (T)given, shared);  \
  }                                                                                                                                 \
  KERNEL(256, clamped_##t, (T *dx, const T *x, double given, i64 n)) {                                                              \
    const T end = 127 * (T)given;                                                                                                   \
    for (i64 i = grid_first(); i < n; i += grid_stride())                                                                           \
      if (x[i] >= end || x[i] <= -end) dx[i] = 0;                                                                                   \
  }
ROUND(float, f32)
ROUND(double, f64)

// Integers by integers: a block of eight warps has 64 rows and 128 columns, a warp 32 × 32. Slices of 64 steps along the sum go through
// shared memory, of which there are two: while one is read, the next is written.
namespace rounded {
constexpr int threads = 256, tile_m = 64, tile_n = 128, slice = 64;
// In words, and such that the lanes that read a fragment hit 32 banks: x lies by halves of a slice and rows, codes by steps and columns.
constexpr int pitch_m = 12, pitch_n = tile_n + 8;
constexpr int x_words = 2 * tile_m * pitch_m;
template <int S> constexpr int code_words() { return slice / Codes<S>::rows * pitch_n; }
template <int S> constexpr int shared_words() { return 2 * (x_words + code_words<S>()); }

template <class T, int S>
METHOD void product(T *y, const i8 *q, const T *sx, const Codes<S> &w, i64 rows, i64 pitch, u32 *shared) {
  constexpr int R = Codes<S>::rows, steps = slice / R, quads = steps * tile_n / 4 / threads;
  const int lane = lane_id(), g = lane / 4, t = lane % 4, warp = threadIdx.x / 32, wi = warp / 4 * 32, wj = warp % 4 * 32;
  const i64 i0 = (i64)blockIdx.x * tile_m, j0 = (i64)blockIdx.y * tile_n;
  const bool idle = i0 + wi >= rows || j0 + wj >= w.n;
  Quad<u32> x, codes[quads];
  auto fetch = [&](i64 p0) {
    i64 row = i0 + threadIdx.x / 4;
    x = row < rows ? *(const Quad<u32> *)(q + row * pitch + p0 + threadIdx.x % 4 * 16) : Quad<u32>{};
    UNROLL
    for (int i = 0; i < quads; i++) {
      // Four columns of a step; a panel's steps lie one after the other.
      int e = threadIdx.x + threads * i, four = e % 4 * 4, step = e / 4 % steps, panel = e / 4 / steps;
      i64 j = j0 + panel * panel_columns + four, s = p0 / R + step;
      codes[i] = j / panel_columns * panel_columns < w.n && s < w.steps()
                     ? *(const Quad<u32> *)((const u32 *)w.codes + (j / panel_columns * w.steps() + s) * panel_columns + four)
                     : Quad<u32>{};
    }
  };
  auto put = [&](u32 *to) {
    *(Quad<u32> *)(to + (threadIdx.x % 4 / 2 * tile_m + threadIdx.x / 4) * pitch_m + threadIdx.x % 2 * 4) = x;
    UNROLL
    for (int i = 0; i < quads; i++) {
      int e = threadIdx.x + threads * i, four = e % 4 * 4, step = e / 4 % steps, panel = e / 4 / steps;
      *(Quad<u32> *)(to + x_words + step * pitch_n + panel * panel_columns + four) = codes[i];
    }
  };

  int sum[2][4][4] = {}, ones[2][2] = {};  // ones: Σ q of rows g and g+8
  T out[2][4][4] = {};
  i64 left = w.group;  // rows of the group
  u32 *now = shared, *next = shared + x_words + code_words<S>();
  fetch(0);
  put(now);
  BARRIER(7);
  for (i64 p0 = 0; p0 < w.k; p0 += slice) {
    const bool more = p0 + slice < w.k;
    if (more) fetch(p0 + slice);
    if (!idle) {
      for (int half = 0; half < 2; half++) {
        const i64 end = p0 + 32 * (half + 1);
        if (end - 32 >= w.k) break;
        u32 a[2][4];
        UNROLL
        for (int m = 0; m < 2; m++)
          UNROLL
          for (int i = 0; i < 4; i++) {
            // The rows of ŵ that a lane's words of codes have: 4t… and 4t+16… of INT8, 8t… and 8t+4… of INT4.
            int step = S == INT8 ? t + i / 2 * 4 : 2 * t + i / 2;
            a[m][i] = now[(half * tile_m + wi + 16 * m + g + i % 2 * 8) * pitch_m + step];
            ones[m][i % 2] = dot4(a[m][i], 0x01010101u, ones[m][i % 2]);
          }
        UNROLL
        for (int n = 0; n < 4; n++) {
          const u32 *from = now + x_words + half * 32 / R * pitch_n + wj + 8 * n + g;
          u32 b[2];
          if (S == INT8) {
            b[0] = from[t * pitch_n];
            b[1] = from[(t + 4) * pitch_n];
          } else {
            u32 both = from[t * pitch_n];
            b[0] = both & 0x0f0f0f0fu;
            b[1] = both >> 4 & 0x0f0f0f0fu;
          }
          UNROLL
          for (int m = 0; m < 2; m++) mma_int8(sum[m][n], a[m], b);
        }
        left -= 32;
        if (left > 0 && end < w.k) continue;
        // The end of a group: its sums are scaled.
        left = w.group;
        const i64 at = w.shared(end - 32);
        UNROLL
        for (int m = 0; m < 2; m++)
          UNROLL
          for (int r = 0; r < 2; r++) {
            int all = ones[m][r];
            all += shuffle_xor(all, 1);
            all += shuffle_xor(all, 2);
            ones[m][r] = 0;
            i64 row = i0 + wi + 16 * m + g + 8 * r;
            T unit = row < rows ? sx[row] : (T)0;
            UNROLL
            for (int n = 0; n < 4; n++)
              UNROLL
              for (int c = 0; c < 2; c++) {
                i64 j = j0 + wj + 8 * n + 2 * t + c;
                int &s = sum[m][n][2 * r + c];
                if (j < w.n) out[m][n][2 * r + c] += (T)(s - w.zero(at, j) * all) * (T)w.scale(at, j) * unit;
                s = 0;
              }
          }
      }
    }
    if (more) {
      put(next);
      BARRIER(8);
    }
    u32 *other = now;
    now = next;
    next = other;
  }
  UNROLL
  for (int m = 0; m < 2; m++)
    UNROLL
    for (int n = 0; n < 4; n++)
      UNROLL
      for (int e = 0; e < 4; e++) {
        i64 i = i0 + wi + 16 * m + g + e / 2 * 8, j = j0 + wj + 8 * n + 2 * t + e % 2;
        if (i < rows && j < w.n) y[i * w.n + j] = out[m][n][e];
      }
}

// A few rows: as row_product, but integers stay integers up to the end of a group. What a lane has of a group is scaled by itself.
template <class T, int S>
METHOD void row_product(T *y, const i8 *q, const T *sx, const Codes<S> &w, i64 rows, i64 pitch, double *shared) {
  constexpr int R = Codes<S>::rows;
  const int lane = lane_id(), warp = threadIdx.x / 32;
  const i64 j0 = (i64)blockIdx.x * panel_columns + lane % 4 * 4, r0 = (i64)blockIdx.y * row_most;
  const bool whole = w.group >= w.k;
  int sum[row_most][4] = {};
  double part[row_most][4] = {};
  for (i64 step = warp * 8 + lane / 4; step < w.steps(); step += row_warps * 8) {
    const i64 p0 = step * R, at = w.shared(p0);
    u32 words[4];
    w.four(step, j0, words);
    int z[4];
    float s[4];
    UNROLL
    for (int c = 0; c < 4; c++) {
      z[c] = j0 + c < w.n ? w.zero(at, j0 + c) : 0;
      s[c] = j0 + c < w.n && !whole ? w.scale(at, j0 + c) : 0;
    }
    UNROLL
    for (int r = 0; r < row_most; r++) {
      if (r0 + r >= rows) break;
      const u32 *x = (const u32 *)(q + (r0 + r) * pitch + p0);
      const u32 lo = x[0], hi = S == INT4 ? x[1] : 0;
      const int ones = dot4(hi, 0x01010101u, dot4(lo, 0x01010101u, 0));
      UNROLL
      for (int c = 0; c < 4; c++) {
        int d = S == INT4 ? dot4(hi, words[c] >> 4 & 0x0f0f0f0fu, dot4(lo, words[c] & 0x0f0f0f0fu, 0)) : dot4(lo, words[c], 0);
        d -= ones * z[c];
        if (whole)
          sum[r][c] += d;
        else
          part[r][c] += (double)d * s[c];
      }
    }
  }
  if (whole)
    for (int r = 0; r < row_most; r++)
      for (int c = 0; c < 4; c++) part[r][c] = sum[r][c];
  // Integers add up exactly in double.
  double all = total(part, shared);
  i64 r = r0 + threadIdx.x / 16, j = (i64)blockIdx.x * panel_columns + threadIdx.x % 16;
  if (threadIdx.x >= 64 || r >= rows || j >= w.n) return;
  y[r * w.n + j] = (T)all * (whole ? (T)w.scale(0, j) : (T)1) * sx[r];
}
}  // namespace rounded

#define ROUNDED(s, S, T, t)                                                                                                         \
  KERNEL(rounded::threads, rounded_##s##_##t,                                                                                       \
         (T *y, const i8 *q, const T *sx, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n,          \
          i64 group, i64 many, i64 pitch)) {                                                                                        \
    __shared__ u32 shared[rounded::shared_words<S>()];                                                                              \
    rounded::product<T, S>(y, q, sx, CODES(S), rows, pitch, shared);                                                                \
  }                                                                                                                                 \
  KERNEL(row_threads, rounded_row_##s##_##t,                                                                                        \
         (T *y, const i8 *q, const T *sx, const void *codes, const float *scales, const u8 *zeros, i64 rows, i64 k, i64 n,          \
          i64 group, i64 many, i64 pitch)) {                                                                                        \
    __shared__ double shared[row_warps * 64];                                                                                       \
    rounded::row_product<T, S>(y, q, sx, CODES(S), rows, pitch, shared);                                                            \
  }
ROUNDED(int8, INT8, float, f32)
ROUNDED(int8, INT8, double, f64)
ROUNDED(int4, INT4, float, f32)
ROUNDED(int4, INT4, double, f64)

#define LOOKUP(s, S)                                                                                                                \
  KERNEL(256, quantized_lookup_##s##_f32,                                                                                           \
         (float *y, const void *ids, const void *codes, const float *scales, const u8 *zeros, i64 id_bytes, i64 count, i64 k,       \
          i64 n, i64 group, i64 many)) {                                                                                            \
    const Codes<S> w = CODES(S);                                                                                                    \
    for (i64 e = grid_first(); e < count * k; e += grid_stride()) {                                                                 \
      i64 i = e / k, j = id_bytes == 8 ? ((const i64 *)ids)[i] : ((const int *)ids)[i];                                             \
      y[e] = j >= 0 && j < n ? w.number(e % k, j) : infinity<float>() - infinity<float>();                                          \
    }                                                                                                                               \
  }
LOOKUP(fp16, FP16)
LOOKUP(bf16, BF16)
LOOKUP(int8, INT8)
LOOKUP(int4, INT4)
