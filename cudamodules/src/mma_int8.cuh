// Products of small matrices of integers by a warp, on tensor cores, with fragments as PTX lays them out for mma.sync.m16n8k32: words
// of four numbers along the sum, and with g = lane/4 and t = lane%4,
//
//   A (16 × 32):  a0 (g, 4t…)  a1 (g+8, 4t…)  a2 (g, 4t+16…)  a3 (g+8, 4t+16…)
//   B (32 × 8):   b0 (4t…, g)  b1 (4t+16…, g)
//   C as mma.cuh has it
#pragma once
#include "mma.cuh"

INLINE int byte_of(u32 word, int i) { return (i8)(word >> 8 * i); }
INLINE int unsigned_byte_of(u32 word, int i) { return (u8)(word >> 8 * i); }

// dot4 is sum + Σ x_i·y_i over four signed bytes of x and unsigned ones of y.
INLINE int dot4(u32 x, u32 y, int sum) {
#if defined(CUEMU)
  for (int i = 0; i < 4; i++) sum += byte_of(x, i) * unsigned_byte_of(y, i);
#else
  asm("dp4a.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(y));
#endif
  return sum;
}

// mma_int8 is c += A·B for A of signed bytes and B of unsigned ones, exactly.
INLINE void mma_int8(int *c, const u32 *a, const u32 *b) {
#if defined(CUEMU)
  const Fragments all(a, b);
  for (int i = 0; i < 4; i++)
    for (int t = 0; t < 4; t++)
      for (int h = 0; h < 2; h++) c[i] = dot4(all.left(row_of_c(i), t, h), all.right(column_of_c(i), t, h), c[i]);
#else
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
