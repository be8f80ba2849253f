// Instructions on numbers of 16 and 8 bits: products by a warp on tensor cores, the loading of their fragments, and copies to shared
// memory that do not pass through registers.
//
// With g = lane/4 and t = lane%4, fragments of mma.sync.m16n8k16 (BF16) are words of two numbers along the sum, those of m16n8k32
// (integers) of four; counted in bytes of a row both lie alike:
//
//   A (16 rows, 32 bytes of each):  a0 (g, 4t…)  a1 (g+8, 4t…)  a2 (g, 4t+16…)  a3 (g+8, 4t+16…)
//   B (8 columns likewise):         b0 (4t…, g)  b1 (4t+16…, g)
//   C as mma.cuh has it
#pragma once
#include "mma.cuh"

#if defined(CUEMU)
#include "async.h"
#endif

// bf16_bits is x in BF16, rounded to nearest, ties to even.
INLINE u16 bf16_bits(float x) {
  const u32 b = to_bits(x);
  return x != x ? 0x7fff : (u16)((b + 0x7fffu + (b >> 16 & 1)) >> 16);
}
INLINE float bf16_value(u16 h) { return from_bits((u32)h << 16); }

// bf16_pair is a word of two numbers, the first one low.
INLINE u32 bf16_pair(float first, float second) {
#if defined(CUEMU)
  return (u32)bf16_bits(second) << 16 | bf16_bits(first);
#else
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(second), "f"(first));
  return r;
#endif
}

// exp2_fast is 2ˣ within 2 units of the last place, 0 below 2⁻¹²⁶.
INLINE float exp2_fast(float x) {
#if defined(CUEMU)
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.f : y;
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// mma_bf16 is c += A·B.
INLINE void mma_bf16(float *c, const u32 *a, const u32 *b) {
#if defined(CUEMU)
  const Fragments all(a, b);
  for (int i = 0; i < 4; i++) {
    double s = c[i];
    for (int t = 0; t < 4; t++)
      for (int h = 0; h < 2; h++) {
        const u32 x = all.left(row_of_c(i), t, h), y = all.right(column_of_c(i), t, h);
        s += (double)bf16_value((u16)x) * (double)bf16_value((u16)y);
        s += (double)bf16_value((u16)(x >> 16)) * (double)bf16_value((u16)(y >> 16));
      }
    c[i] = (float)s;
  }
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// mma_s8 is c += A·B for signed bytes, exactly.
INLINE void mma_s8(int *c, const u32 *a, const u32 *b) {
#if defined(CUEMU)
  const Fragments all(a, b);
  for (int i = 0; i < 4; i++)
    for (int t = 0; t < 4; t++)
      for (int h = 0; h < 2; h++) {
        const u32 x = all.left(row_of_c(i), t, h), y = all.right(column_of_c(i), t, h);
        for (int e = 0; e < 4; e++) c[i] += (i8)(x >> 8 * e) * (i8)(y >> 8 * e);
      }
#else
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

#if !defined(CUEMU)
INLINE u32 shared_address(const void *p) {
  u32 a;
  asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(a) : "l"(p));
  return a;
}
#endif

// load_matrices loads four matrices of 8 rows of 16 bytes from shared memory: lane l brings the address of row l%8 of matrix l/8. It
// gets bytes 4t … 4t+3 of row g of each.
INLINE void load_matrices(u32 *r, const void *row) {
#if defined(CUEMU)
  const u8 *mine = (const u8 *)row, *all[32];
  cuemu::exchange(&mine, sizeof mine, all);
  for (int m = 0; m < 4; m++) memcpy(&r[m], all[m * 8 + lane_id() / 4] + lane_id() % 4 * 4, 4);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
#endif
}
// load_transposed is load_matrices, but for numbers 2t and 2t+1 of column g, of 16 bits.
INLINE void load_transposed(u32 *r, const void *row) {
#if defined(CUEMU)
  const u8 *mine = (const u8 *)row, *all[32];
  cuemu::exchange(&mine, sizeof mine, all);
  for (int m = 0; m < 4; m++)
    for (int i = 0; i < 2; i++) memcpy((u8 *)&r[m] + 2 * i, all[m * 8 + lane_id() % 4 * 2 + i] + lane_id() / 4 * 2, 2);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
#endif
}

// copy_async begins to copy 16 bytes to shared memory, or zeros if they are not `there`; both addresses are multiples of 16. Copies
// belong to the group that end_copies ends, and wait_copies waits for those of this thread but for the newest N groups. A barrier then
// shows them to others.
INLINE void copy_async(void *to, const void *from, bool there) {
#if defined(CUEMU)
  cuemu::copy_later(to, there ? from : nullptr, 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
#endif
}
INLINE void end_copies() {
#if defined(CUEMU)
  cuemu::end_group();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> INLINE void wait_copies() {
#if defined(CUEMU)
  cuemu::wait_for(N);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}
