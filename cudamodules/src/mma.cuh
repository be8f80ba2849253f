// Products of small matrices by a warp, on tensor cores. Fragments lie as PTX lays them out for mma.sync.m16n8k8: with
// g = lane/4 and t = lane%4,
//
//   A (16 × 8):  a0 (g, t)   a1 (g+8, t)   a2 (g, t+4)   a3 (g+8, t+4)
//   B (8 × 8):   b0 (t, g)   b1 (t+4, g)
//   C (16 × 8):  c0 (g, 2t)  c1 (g, 2t+1)  c2 (g+8, 2t)  c3 (g+8, 2t+1)
#pragma once
#include "common.cuh"

// UNROLL stands before loops over registers: an index that is not known would put them in memory.
#define UNROLL _Pragma("unroll")

#if defined(CUEMU)
// Fragments are what all lanes bring to a product: word h of lane t of A's row r, and of B's column n. C's numbers lie alike in all kinds
// of products: number i of this lane is at row_of_c and column_of_c.
struct Fragments {
  struct { u32 a[4], b[2]; } of[32];
  Fragments(const u32 *a, const u32 *b) {
    auto mine = of[0];
    for (int i = 0; i < 4; i++) mine.a[i] = a[i];
    for (int i = 0; i < 2; i++) mine.b[i] = b[i];
    cuemu::exchange(&mine, sizeof mine, of);
  }
  u32 left(int r, int t, int h) const { return of[r % 8 * 4 + t].a[r / 8 + 2 * h]; }
  u32 right(int n, int t, int h) const { return of[n * 4 + t].b[h]; }
};
static inline int row_of_c(int i) { return lane_id() / 4 + i / 2 * 8; }
static inline int column_of_c(int i) { return lane_id() % 4 * 2 + i % 2; }
#endif

// mma_tf32 is c += A·B. Of each number the sign, the exponent and 10 bits of the mantissa are read.
INLINE void mma_tf32(float *c, const u32 *a, const u32 *b) {
#if defined(CUEMU)
  const Fragments all(a, b);
  for (int i = 0; i < 4; i++) {
    double s = c[i];
    for (int k = 0; k < 8; k++)
      s += (double)from_bits(all.left(row_of_c(i), k % 4, k / 4) & 0xffffe000u) * (double)from_bits(all.right(column_of_c(i), k % 4, k / 4) & 0xffffe000u);
    c[i] = (float)s;
  }
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// split takes x apart into two TF32 numbers, x = hi + lo up to 2⁻²² of x. What is not finite stays in hi, and lo is 0.
INLINE void split(float x, u32 *hi, u32 *lo) {
  u32 b = to_bits(x);
  bool finite = (b & 0x7f800000u) != 0x7f800000u;
  u32 h = finite ? (b + 0x1000u) & 0xffffe000u : b;
  float l = x - from_bits(h);
  *hi = h;
  *lo = finite && (h & 0x7f800000u) != 0x7f800000u ? (to_bits(l) + 0x1000u) & 0xffffe000u : 0;
}

// mma_f32 is c += A·B with the error of float: three products of halves, the smallest first; lo·lo is left out, 2⁻²² of the product.
template <int N> struct Halves { u32 hi[N], lo[N]; };
INLINE void mma_f32(float *c, const Halves<4> &a, const Halves<2> &b) {
  mma_tf32(c, a.lo, b.hi);
  mma_tf32(c, a.hi, b.lo);
  mma_tf32(c, a.hi, b.hi);
}
