// Products of matrices in tiles, from whatever their sides lie in: C = A·B, C (m × n).
//
// A side hands out numbers by line (a row of A, a column of B) and by step along the sum. For float, fetch reads those of 128 lines and
// 16 steps into a thread's registers and put writes them to shared memory, line by line, zeros beyond the ends; at gives one number.
#pragma once
#include "math.cuh"
#include "mma.cuh"

namespace gemm {
constexpr int threads = 256, tile = 128, slice = 16;
// The pitch of a line in shared memory: with it, the lanes that read a fragment hit 32 banks.
constexpr int pitch = slice + 4;
constexpr int shared_floats = 4 * tile * pitch;  // both sides, twice

// Strided is a side in plain memory.
template <class T> struct Strided {
  const T *data;
  i64 line, step, lines, steps;  // strides in elements, and counts
  T v[tile * slice / threads];

  // Neighbouring threads read along the dimension that lies together.
  METHOD void place(int i, int *l, int *s) const {
    int e = threadIdx.x + threads * i;
    *l = step == 1 ? e / slice : e % tile;
    *s = step == 1 ? e % slice : e / tile;
  }
  METHOD T at(i64 l, i64 s) const { return data[l * line + s * step]; }
  METHOD void fetch(i64 l0, i64 s0) {
    UNROLL
    for (int i = 0; i < tile * slice / threads; i++) {
      int l, s;
      place(i, &l, &s);
      v[i] = l0 + l < lines && s0 + s < steps ? at(l0 + l, s0 + s) : (T)0;
    }
  }
  METHOD void put(T *to) const {
    UNROLL
    for (int i = 0; i < tile * slice / threads; i++) {
      int l, s;
      place(i, &l, &s);
      to[l * pitch + s] = v[i];
    }
  }
  // exact: the numbers of this side have 11 significant bits at most, and are TF32 as they are.
  static constexpr bool exact = false;
};

// Result is C, and what becomes of a sum: C = alpha·sum + beta·C. beta 0 leaves C unread.
template <class T> struct Result {
  T *data;
  i64 row, col, m, n;
  T alpha, beta;
  METHOD void set(i64 i, i64 j, T sum) const {
    T *out = data + i * row + j * col;
    *out = alpha * sum + (beta == 0 ? (T)0 : beta * *out);
  }
};

// plain is one sum, one fma after the other.
template <class T, class A, class B> OUTLINE T plain(const A &a, const B &b, i64 i, i64 j) {
  T sum = 0;
  for (i64 p = 0; p < a.steps; p++) sum = fused((T)a.at(i, p), (T)b.at(j, p), sum);
  return sum;
}

// fragment is 8 steps of a line for each group of lanes: N/2 of the lines 8 apart, as mma.sync reads them.
template <int N, bool exact> METHOD Halves<N> fragment(const float *from) {
  int g = lane_id() / 4, t = lane_id() % 4;
  Halves<N> h;
  UNROLL
  for (int i = 0; i < N; i++) {
    float x = from[(g + (N == 4 ? i % 2 * 8 : 0)) * pitch + t + (N == 4 ? i / 2 : i) * 4];
    if (exact) {
      h.hi[i] = to_bits(x);
      h.lo[i] = 0;
    } else {
      split(x, &h.hi[i], &h.lo[i]);
    }
  }
  return h;
}

// product is C for a block of 256 threads and 128 × 128 of it, on tensor cores, with the error of float: each number is the sum of two
// of TF32, of whose products the smallest is left out. Tensor cores do not round sums to nearest, so only 16 steps are summed there, and
// those sums are added outside (Ootomo and Yokota 2022, section 3). A sum that is not finite is taken again, plainly: halves of an
// infinity are not to be multiplied with zeros.
//
// A warp has 64 × 32. Slices of 16 steps go through shared memory, of which there are two: while one is read, the next is written.
template <class A, class B> METHOD void product(A a, B b, const Result<float> &c, float *shared) {
  const i64 i0 = (i64)blockIdx.x * tile, j0 = (i64)blockIdx.y * tile, steps = a.steps;
  const int warp = threadIdx.x / 32, wi = warp / 4 * 64, wj = warp % 4 * 32;
  const bool idle = i0 + wi >= c.m || j0 + wj >= c.n;
  float sum[4][4][4];
  UNROLL
  for (int i = 0; i < 64; i++) sum[i / 16][i / 4 % 4][i % 4] = 0;
  float *now = shared, *next = shared + 2 * tile * pitch;
  a.fetch(i0, 0);
  b.fetch(j0, 0);
  a.put(now);
  b.put(now + tile * pitch);
  BARRIER(0);
  for (i64 s = 0; s < steps; s += slice) {
    if (s + slice < steps) {
      a.fetch(i0, s + slice);
      b.fetch(j0, s + slice);
    }
    if (!idle) {
      Halves<2> right[2][4];
      UNROLL
      for (int n = 0; n < 4; n++)
        UNROLL
        for (int h = 0; h < 2; h++) right[h][n] = fragment<2, B::exact>(now + tile * pitch + (wj + 8 * n) * pitch + 8 * h);
      UNROLL
      for (int m = 0; m < 4; m++) {
        if (i0 + wi + 16 * m >= c.m) continue;
        float part[4][4] = {};
        UNROLL
        for (int h = 0; h < 2; h++) {
          Halves<4> left = fragment<4, A::exact>(now + (wi + 16 * m) * pitch + 8 * h);
          UNROLL
          for (int n = 0; n < 4; n++) {
            mma_tf32(part[n], left.lo, right[h][n].hi);
            if (!B::exact) mma_tf32(part[n], left.hi, right[h][n].lo);
            mma_tf32(part[n], left.hi, right[h][n].hi);
          }
        }
        UNROLL
        for (int e = 0; e < 16; e++) sum[m][e / 4][e % 4] += part[e / 4][e % 4];
      }
    }
    if (s + slice < steps) {
      a.put(next);
      b.put(next + tile * pitch);
      BARRIER(1);
    }
    float *other = now;
    now = next;
    next = other;
  }
  u64 again = 0;  // which numbers are not finite
  auto row = [&](int e) { return i0 + wi + e / 16 * 16 + lane_id() / 4 + e / 2 % 2 * 8; };
  auto column = [&](int e) { return j0 + wj + e / 4 % 4 * 8 + lane_id() % 4 * 2 + e % 2; };
  UNROLL
  for (int e = 0; e < 64; e++) {
    const float v = sum[e / 16][e / 4 % 4][e % 4];
    if (row(e) >= c.m || column(e) >= c.n) continue;
    if (magnitude(v) < infinity<float>())
      c.set(row(e), column(e), v);
    else
      again |= (u64)1 << e;
  }
  for (int e = 0; e < 64; e++)
    if (again >> e & 1) c.set(row(e), column(e), plain<float>(a, b, row(e), column(e)));
}

// The same in double, without tensor cores: a block has 64 × 64, a thread 4 × 4, each a chain of fma along the sum. a_near
// and b_near say of each side whether its steps lie together.
constexpr int tile64 = 64, pitch64 = tile64 + 1, shared_doubles = 2 * slice * pitch64;

template <class A, class B>
METHOD void product(const A &a, const B &b, const Result<double> &c, double *shared, bool a_near, bool b_near) {
  double *sa = shared, *sb = shared + slice * pitch64;
  const i64 i0 = (i64)blockIdx.x * tile64, j0 = (i64)blockIdx.y * tile64, steps = a.steps;
  const int ti = threadIdx.x / 16, tj = threadIdx.x % 16;
  double sum[4][4] = {};
  for (i64 s0 = 0; s0 < steps; s0 += slice) {
    BARRIER(2);
    for (int e = threadIdx.x; e < tile64 * slice; e += threads) {
      int i = a_near ? e / slice : e % tile64, p = a_near ? e % slice : e / tile64;
      sa[p * pitch64 + i] = i0 + i < c.m && s0 + p < steps ? (double)a.at(i0 + i, s0 + p) : 0.;
      int j = b_near ? e / slice : e % tile64, q = b_near ? e % slice : e / tile64;
      sb[q * pitch64 + j] = j0 + j < c.n && s0 + q < steps ? (double)b.at(j0 + j, s0 + q) : 0.;
    }
    BARRIER(3);
    int last = steps - s0 < slice ? (int)(steps - s0) : slice;
    for (int p = 0; p < last; p++) {
      double x[4], y[4];
      for (int i = 0; i < 4; i++) x[i] = sa[p * pitch64 + ti + 16 * i];
      for (int j = 0; j < 4; j++) y[j] = sb[p * pitch64 + tj + 16 * j];
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[i][j] = fused(x[i], y[j], sum[i][j]);
    }
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      i64 r = i0 + ti + 16 * i, q = j0 + tj + 16 * j;
      if (r < c.m && q < c.n) c.set(r, q, sum[i][j]);
    }
}
}  // namespace gemm
