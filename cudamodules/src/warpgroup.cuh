// What a card of compute capability 9.0 has beyond its forerunners: barriers in shared memory that count bytes, copies into shared memory
// by a unit of its own, and products by four warps together, whose right side (and left side, if it is not in registers) is read from
// shared memory while the warps do other things. Sections are those of the PTX ISA, version 8.0.
//
// Addresses of shared memory are the 32 bits that shared_address gives.
#pragma once
#include "narrow.cuh"

#if defined(CUEMU)
#include "warpgroup.h"
#endif

// STEP is a statement that a test may take away, as BARRIER(n) is.
#if defined(REMOVE_BARRIER)
#define STEP(n, ...) do { if ((n) != REMOVE_BARRIER) { __VA_ARGS__; } } while (0)
#else
#define STEP(n, ...) do { __VA_ARGS__; } while (0)
#endif

#if defined(CUEMU)
INLINE u32 shared_address(const void *p) { return cuemu::shared_address(p); }
#endif

// A barrier counts arrivals, and bytes that are still to come; its phase ends when neither is missing, and the next one begins.
INLINE void barrier_init(u32 bar, int arrivals) {
#if defined(CUEMU)
  cuemu::barrier_init(bar, arrivals);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
#endif
}

// barrier_show makes barriers that this thread has begun known to the unit that copies.
INLINE void barrier_show() {
#if defined(CUEMU)
  cuemu::barrier_show();
#else
  asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

INLINE void barrier_arrive(u32 bar) {
#if defined(CUEMU)
  cuemu::barrier_arrive(bar, 0);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
#endif
}

// barrier_expect arrives, and has the phase wait for that many bytes more.
INLINE void barrier_expect(u32 bar, int bytes) {
#if defined(CUEMU)
  cuemu::barrier_arrive(bar, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
#endif
}

// barrier_wait waits for the end of the phase whose number has this lowest bit. patience bounds how often it looks: then it gives up
// and is false. 0 is without end.
INLINE bool barrier_wait(u32 bar, int bit, i64 patience) {
#if defined(CUEMU)
  return cuemu::barrier_wait(bar, bit, patience != 0);
#else
  for (i64 tries = 0;;) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(bar), "r"(bit) : "memory");
    if (done) return true;
    if (++tries == patience) return false;
  }
#endif
}

// copy_bulk starts a copy of bytes, a multiple of 16 as both addresses are, which counts itself off at the barrier.
INLINE void copy_bulk(u32 to, const void *from, int bytes, u32 bar) {
#if defined(CUEMU)
  cuemu::copy_bulk(to, from, bytes, bar);
#else
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(to), "l"(__builtin_bit_cast(u64, from)), "r"(bytes), "r"(bar) : "memory");
#endif
}

// registers_fewer and registers_more set how many registers each thread of a warpgroup has; all of its warps call it.
template <int N> INLINE void registers_fewer() {
#if defined(CUEMU)
  cuemu::set_registers(N);
#else
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
template <int N> INLINE void registers_more() {
#if defined(CUEMU)
  cuemu::set_registers(N);
#else
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

// Products are asynchronous. products_fence comes between what registers were given and the products that use them; products_commit closes
// a group of products; products_wait<N> waits until no more than the N latest groups go on. Between a product and the wait for it, its
// registers and what it reads in shared memory are its own.
INLINE void products_fence() {
#if defined(CUEMU)
  cuemu::products_fence();
#else
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
INLINE void products_commit() {
#if defined(CUEMU)
  cuemu::products_commit();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int N> INLINE void products_wait() {
#if defined(CUEMU)
  cuemu::products_wait(N);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

// held keeps the compiler from moving registers over a product or a wait: it believes that they change here.
template <int N, class T> INLINE void held(T *x) {
#if !defined(CUEMU)
  UNROLL
  for (int i = 0; i < N; i++) {
    if constexpr (sizeof(T) == 4 && (T)0.5f != 0)
      asm volatile("" : "+f"(x[i])::"memory");
    else
      asm volatile("" : "+r"(x[i])::"memory");
  }
#endif
}

// A matrix of BF16 in shared memory whose swizzle is that of 128 bytes (section «Strides»): rows of 128 bytes, in groups of eight, 1024
// bytes on a boundary of 1024; bits 4–6 of an address are those of the place in the row, exclusive-or bits 7–9.
//
// Along the sum (K-major), a row is 64 numbers of one line, and groups of eight lines are 1024 bytes apart. Across it (MN-major), a row is
// 64 lines' numbers of one step, groups of eight steps are 1024 bytes apart, and the next 64 lines are `next` bytes further.
INLINE u64 along(u32 address) { return (u64)(address & 0x3ffff) >> 4 | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62; }
INLINE u64 across(u32 address, int next) {
  return (u64)(address & 0x3ffff) >> 4 | (u64)(next >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// Lists of operands for the widths of products.
#define REGISTERS_8(x, i) "+f"((x)[i]), "+f"((x)[i + 1]), "+f"((x)[i + 2]), "+f"((x)[i + 3]), "+f"((x)[i + 4]), "+f"((x)[i + 5]), "+f"((x)[i + 6]), "+f"((x)[i + 7])
#define REGISTERS_32(x, i) REGISTERS_8(x, i), REGISTERS_8(x, i + 8), REGISTERS_8(x, i + 16), REGISTERS_8(x, i + 24)
#define NAMES_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_64 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// product_shared is d = A·B, or d += A·B, for 64 lines of A, N of B and 16 steps, both along the sum. Warp w of the four has the lines
// 16w … 16w+15 of d, and of them, for each 8 of B's, what mma.cuh calls C.
template <int N> INLINE void product_shared(float *d, u64 a, u64 b, bool add) {
#if defined(CUEMU)
  cuemu::product(d, N, nullptr, a, b, false, add);
#else
  static_assert(N == 64 || N == 128, "the widths that are written out");
  if constexpr (N == 64)
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, %32, %33, p, 1, 1, 0, 0; }"
                 : REGISTERS_32(d, 0) : "l"(a), "l"(b), "r"((int)add));
  else
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, %64, %65, p, 1, 1, 0, 0; }"
                 : REGISTERS_32(d, 0), REGISTERS_32(d, 32) : "l"(a), "l"(b), "r"((int)add));
#endif
}

// product_registers is d += A·B with A in registers, as mma.sync.m16n8k16 has it, and B across the sum.
template <int N> INLINE void product_registers(float *d, const u32 *a, u64 b) {
#if defined(CUEMU)
  cuemu::product(d, N, a, 0, b, true, true);
#else
  static_assert(N == 64 || N == 128, "the widths that are written out");
  if constexpr (N == 64)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                 : REGISTERS_32(d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                 : REGISTERS_32(d, 0), REGISTERS_32(d, 32) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
}

// greater is larger in one instruction.
INLINE float greater(float a, float b) {
#if defined(CUEMU)
  return larger(a, b);
#else
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#endif
}
